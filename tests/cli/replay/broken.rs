//! Broken captures: each is named with its place, and the rest is replayed.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::{command, har, recorded, replay, report};
use crate::support::guests::answering;
use crate::support::{TestDir, capture, json_texts, shipped};

fn why(report: &Value, index: usize) -> &str {
    report["unusable"][index]["why"]
        .as_str()
        .unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn a_truncated_capture_is_replayed_up_to_its_end() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let text = har(20, |_| false);
    let cut = text.len() - 100;
    let path = dir.file("cut.har", &text[..cut]);
    let read = report(&allow, &[&path], &[]);
    assert_eq!(read["records"]["transactions"], 19);
    assert_eq!(read["unusable"][0]["record"], 20);
    assert!(
        why(&read, 0).contains("ends in the middle of this record"),
        "{read}"
    );
    let offset = usize::try_from(read["unusable"][0]["offset"].as_u64().unwrap()).unwrap();
    assert!(text[offset..].starts_with("{\"startedDateTime\""));
    replay(&allow, &[&path], &[]).assert_code(0);
    replay(&allow, &[&path], &["--strict"]).assert_code(3);

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    packed.write_all(har(2_000, |_| false).as_bytes()).unwrap();
    let mut packed = packed.finish().unwrap();
    packed.truncate(packed.len() / 2);
    let path = dir.file("cut.har.gz", packed);
    let read = report(&allow, &[&path], &[]);
    assert!(
        read["records"]["transactions"].as_u64().unwrap() > 500,
        "{read}"
    );
    assert_eq!(read["records"]["unusable"], 1, "{read}");
}

/// The end of a long recording, as `tail -c` gives it.
#[test]
fn a_recording_without_its_beginning_is_still_one() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let line = r#"{"v":1,"id":"a","phase":"request_headers","input":{"method":"GET","uri":"/","headers":{}}}"#;
    for first in [&line[40..], &line[..40], "{\"v\":2}"] {
        let path = dir.file("cut.jsonl", format!("{first}\n{line}\n"));
        let report = report(&allow, &[&path], &[]);
        assert_eq!(report["records"]["transactions"], 1, "{report}");
        assert_eq!(report["records"]["unusable"], 1, "{report}");
        assert_eq!(report["unusable"][0]["record"], 1, "{report}");
    }
}

#[test]
fn every_broken_record_is_named_and_its_neighbours_are_replayed() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let good = r#"{"v":1,"id":"a","phase":"request_headers","input":{"method":"GET","uri":"/","headers":{}}}"#;
    let mut text = Vec::new();
    for line in [
        good.as_bytes(),
        b"{\"v\":1,\"id\":\"b\",\"phase\":\"request_headers\"",
        b"\xff\xfe not text",
        b"{\"v\":9,\"id\":\"c\",\"phase\":\"request_headers\",\"input\":{}}",
        b"{\"v\":1,\"id\":\"d\",\"phase\":\"request_footers\",\"input\":{}}",
        b"{\"v\":1,\"id\":\"e\",\"phase\":\"request_headers\",\"input\":[]}",
        good.replace("\"a\"", "\"z\"").as_bytes(),
    ] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    let path = dir.file("broken.jsonl", text);
    let report = report(&allow, &[&path], &[]);
    assert_eq!(report["records"]["transactions"], 2, "{report}");
    assert_eq!(report["records"]["unusable"], 5);
    for (index, (record, word)) in [
        (2, "expected JSON"),
        (3, "expected UTF-8"),
        (4, "expected \"v\": 1, found 9"),
        (5, "unknown phase \"request_footers\""),
        (6, "\"input\" to be an object"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(report["unusable"][index]["record"], record, "{report}");
        assert!(why(&report, index).contains(word), "{word}: {report}");
    }
}

/// A record that cannot be used takes no other of its exchange with it, and each
/// is counted.
#[test]
fn a_broken_record_leaves_the_others_of_its_exchange() {
    let dir = TestDir::new();
    let blocks = answering(&dir, "block.wat", r#"{"decision":"block"}"#);
    let allows = answering(&dir, "allow.wat", r#"{"decision":"allow"}"#);
    let ours = |phase: &str, input: &str| {
        let output = recorded(&"allow".into());
        format!(
            r#"{{"v":1,"id":"x","phase":"{phase}","ts":null,"module":null,"input":{input},"output":{output},"error":null,"fuel":null,"wall_ns":null,"redacted":[]}}"#
        )
    };
    let head = ours(
        "request_headers",
        r#"{"method":"GET","uri":"/admin","client_ip":"192.0.2.1","correlation_id":"x","headers":{}}"#,
    );
    let chunk = |index: u32, size: &str| {
        let input = format!(
            r#"{{"correlation_id":"x","chunk_index":{index},"is_last":false,"total_size":null,"bytes_received":{size},"data":"a","encoding":"utf8"}}"#
        );
        ours("request_body", &input)
    };
    let response = ours(
        "response_headers",
        r#"{"status":200,"correlation_id":"x","headers":{}}"#,
    );
    let bad_response = response.replace(r#""headers":{}"#, r#""headers":5"#);
    let cut = response[..response.len() - 5].to_owned();
    let bad_chunk = chunk(0, "-1");
    // With the steps of the one transaction that is left, and what is counted.
    for (lines, steps, unusable) in [
        (vec![&head, &cut], 1, 1),
        (vec![&head, &bad_response], 1, 1),
        (vec![&head, &bad_chunk, &response], 2, 1),
        // The rest of a body is another body.
        (vec![&head, &bad_chunk, &chunk(1, "2"), &response], 2, 2),
        (
            vec![&head, &chunk(0, "1"), &chunk(1, "-1"), &chunk(2, "1")],
            2,
            2,
        ),
        (vec![&bad_chunk, &bad_response], 0, 2),
    ] {
        let lines: Vec<&str> = lines.into_iter().map(String::as_str).collect();
        let capture = dir.file("c.jsonl", lines.join("\n"));
        for flags in [&["-j", "1"][..], &["--limit", "9"]] {
            let read = report(&allows, &[&capture], flags);
            assert_eq!(read["records"]["unusable"], unusable, "{lines:#?} {read}");
            assert_eq!(read["outcomes"]["calls"], steps, "{lines:#?} {read}");
        }
        if steps > 0 {
            replay(&blocks, &[&capture], &[]).assert_code(1);
        }
    }
    // A module of the other ABI can use none of them.
    let capture = dir.file("c.jsonl", [&*head, &*bad_chunk, &*response].join("\n"));
    let read = report(&shipped("account/account.wasm"), &[&capture], &[]);
    assert_eq!(read["records"]["unusable"], 3, "{read}");
}

/// Whoever wrote a record does not make a report as long as he likes.
#[test]
fn messages_quote_names_and_values_in_part() {
    let dir = TestDir::new();
    let long = "n".repeat(9_000);
    let ours = |phase: &str, input: &str| {
        format!(r#"{{"v":1,"id":"x","phase":"{phase}","input":{input}}}"#)
    };
    let head = r#"{"method":"GET","uri":"/",REST}"#;
    let lines = [
        ours(&long, "{}"),
        ours(
            "request_headers",
            &head.replace("REST", &format!(r#""headers":{{"{long}":5}}"#)),
        ),
        ours(
            "request_headers",
            &head.replace("REST", &format!(r#""{long}":1,"{long}":2"#)),
        ),
        ours(
            "request_headers",
            &head.replace("REST", &format!(r#""headers":"{long}""#)),
        ),
        ours("request_body", &format!(r#"{{"is_last":"{long}"}}"#)),
        ours(
            "before_hook",
            &format!(r#"{{"input":{{}},"headers":"{long}"}}"#),
        ),
    ];
    let capture = dir.file("c.jsonl", lines.join("\n"));
    let read = report(&shipped("right/allow.wat"), &[&capture], &[]);
    let unusable = read["unusable"].as_array().unwrap();
    assert_eq!(unusable.len(), lines.len(), "{read}");
    for bad in unusable {
        assert!(bad["why"].as_str().unwrap().len() < 400, "{bad}");
    }
}

/// Where too much is broken, what is left would be no answer.
#[test]
fn more_errors_than_allowed_end_the_replay_and_name_the_first() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    // More than one epoch, so that it ends early.
    let text = har(20_000, |_| false).replacen(r#""method":"GET""#, r#""method":[]"#, 6);
    let path = dir.file("traffic.har", text);
    for jobs in ["1", "4"] {
        let flags = ["--max-errors", "5", "--jobs", jobs];
        let done = replay(&allow, &[&path], &flags);
        done.assert_code(3);
        assert!(done.stdout.is_empty());
        assert!(
            done.stderr.contains(
                "more than 5 records cannot be used (--max-errors); the first is record 1 at byte "
            ),
            "{}",
            done.stderr
        );
        assert!(done.stderr.contains("traffic.har"), "{}", done.stderr);
    }
    let done = replay(&allow, &[&path], &["--max-errors", "6", "--format", "json"]);
    done.assert_code(0);
    assert_eq!(done.json()["records"]["transactions"], 19_994);
    replay(&allow, &[&path], &["--max-errors", "0"]).assert_code(3);
}

#[test]
fn what_is_no_capture_is_an_error_that_says_what_would_be() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let har16: Vec<u8> = std::iter::once(0xfeff_u16)
        .chain(har(1, |_| false).encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    for (name, bytes, word) in [
        ("utf16.har", har16, "UTF-16"),
        ("empty.har", Vec::new(), "empty"),
        (
            "trace.pcap",
            b"\xd4\xc3\xb2\xa1\x02\0\x04\0".to_vec(),
            "goreplay",
        ),
        (
            "tap.pb",
            b"\x0a\x12\x0a\x10\0\0abc".to_vec(),
            "JSON_BODY_AS",
        ),
        ("notes.log", b"just some words\n".to_vec(), "--input-format"),
        (
            "no-entries.har",
            b"{\"log\":{\"version\":\"1.2\"}}".to_vec(),
            "log.entries",
        ),
    ] {
        let path = dir.file(name, bytes);
        let done = replay(&allow, &[&path], &[]);
        done.assert_code(3);
        assert!(done.text().contains(word), "{name}: {}", done.text());
    }
    let done = replay(&allow, &[&dir.path("nowhere.har")], &[]);
    done.assert_code(3);
    assert!(done.stderr.contains("cannot read"), "{}", done.stderr);
    // One of several: the others are replayed.
    let broken = dir.path("utf16.har");
    let report = report(&allow, &[&broken, &capture("chromium.har")], &[]);
    assert_eq!(report["records"]["transactions"], 14);
    assert_eq!(report["records"]["unusable"], 1);
}

/// A record is any JSON anybody ever wrote to break parsers.
#[test]
fn no_json_text_breaks_a_reader() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let deep = "[".repeat(100_000);
    let texts: Vec<Vec<u8>> = json_texts::BROKEN
        .iter()
        .map(|(_, text)| text.to_vec())
        .chain(json_texts::NO_OBJECT.map(|text| text.as_bytes().to_vec()))
        .chain([deep.into_bytes()])
        .collect();
    for (format, before, after) in [
        ("har", &b"{\"log\":{\"entries\":["[..], &b"]}}\n"[..]),
        (
            "jsonl",
            b"{\"v\":1,\"id\":\"a\",\"phase\":\"request_headers\",\"input\":",
            b"}\n",
        ),
        ("envoy-tap", b"{\"http_buffered_trace\":", b"}\n"),
        ("json-log", b"", b"\n"),
        ("gor", b"1 a 1\n", b"\n"),
        ("ftw", b"tests: ", b"\n"),
    ] {
        for (index, text) in texts.iter().enumerate() {
            let name = format!("{format}/{index}.log");
            dir.file(&name, [before, text, after].concat());
        }
        let folder = dir.path(format);
        let report = report(&allow, &[&folder], &["--input-format", format]);
        let unusable = report["records"]["unusable"].as_u64().unwrap();
        assert!(unusable >= texts.len() as u64 / 2, "{format}: {unusable}");
    }
}

/// Memory is bounded, whatever the file's and a record's size.
#[test]
fn a_capture_of_any_size_needs_bounded_memory() {
    const ENTRIES: usize = 3_000;
    let body = "x".repeat(64 << 10);
    let entry = |index: usize, body: &str| {
        format!(
            r#"{{"request":{{"method":"POST","url":"https://a.example/{index}","headers":[],"postData":{{"mimeType":"text/plain","text":"{body}"}}}},"response":{{"status":200,"headers":[]}}}}"#
        )
    };
    let mut child = command(&shipped("rules/rules.wasm"), &[Path::new("-")])
        .args(["--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let id = child.id();
    let mut peak_kib = 0;
    input.write_all(b"{\"log\":{\"entries\":[").unwrap();
    for index in 0..ENTRIES {
        if index == 1_000 {
            // 400 MiB in one record.
            input
                .write_all(b"{\"request\":{\"url\":\"https://a.example/big\",\"method\":\"")
                .unwrap();
            let block = "y".repeat(1 << 20);
            for _ in 0..400 {
                input.write_all(block.as_bytes()).unwrap();
            }
            input.write_all(b"\"}},").unwrap();
        }
        let separator = if index + 1 < ENTRIES { "," } else { "]}}" };
        input.write_all(entry(index, &body).as_bytes()).unwrap();
        input.write_all(separator.as_bytes()).unwrap();
        if index % 100 == 0 {
            peak_kib = peak_kib.max(crate::support::high_water_kib(id));
        }
    }
    peak_kib = peak_kib.max(crate::support::high_water_kib(id));
    drop(input);
    let out = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["records"]["transactions"], ENTRIES);
    assert_eq!(report["unusable"][0]["record"], 1_001);
    assert!(why(&report, 0).contains("--max-record"), "{report}");
    assert!((1..256 << 10).contains(&peak_kib), "{peak_kib} KiB");
}

/// Control bytes and bytes that are no text reach the guest as a proxy
/// would send them.
#[test]
fn bytes_that_are_no_text_are_kept_or_left_out_as_proxies_do() {
    let dir = TestDir::new();
    let mut gor = b"1 aaaa01 1700000000000000000\nPOST /caf\xe9?q=\xff HTTP/1.1\r\nHost: h\r\nX-Latin: caf\xe9\r\nX-Tab: a\tb\r\nContent-Length: 4\r\n\r\n\x00\xff\x01z".to_vec();
    gor.extend_from_slice("\n🐵🙈🙉\n".as_bytes());
    gor.extend_from_slice(b"1 aaaa02 1700000000000000001\nGET /last HTTP/1.1\r\nHost: h\r\n\r\n");
    let path = dir.file("odd.gor", gor);
    let saved = dir.path("saved.jsonl");
    let flags = ["--save", saved.to_str().unwrap()];
    let report = report(&shipped("rules/rules.wasm"), &[&path], &flags);
    // The last record has no separator behind it, and counts.
    assert_eq!(report["records"]["transactions"], 2, "{report}");
    assert_eq!(report["remarks"]["header_not_ascii"], 1);
    let lines: Vec<Value> = std::fs::read_to_string(saved)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let input = &lines[0]["input"];
    assert_eq!(input["uri"], "/caf%E9?q=%FF");
    assert_eq!(input["headers"]["x-latin"], "");
    assert_eq!(input["headers"]["x-tab"], "a\tb");
    assert_eq!(lines[1]["input"]["data"], "AP8Beg==");
}
