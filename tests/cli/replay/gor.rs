//! GoReplay files: whole, damaged and hostile.

use std::time::Duration;

use serde_json::json;

use super::{command, inputs, remarks, saved};
use crate::support::{TestDir, finish, shipped};

const SEPARATOR: &str = "\n🐵🙈🙉\n";

fn request(id: &str, path: &str) -> String {
    format!("1 {id} 1\nGET {path} HTTP/1.1\r\nHost: h\r\n\r\n{SEPARATOR}")
}

fn posted(fields: &str, body: &str) -> String {
    format!("1 aa 1\nPOST /p HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}{SEPARATOR}")
}

fn answer(id: &str, rest: &str) -> String {
    format!("2 {id} 2 3\nHTTP/1.1 {rest}{SEPARATOR}")
}

/// What is behind a message is named with its place, and the message is replayed.
#[test]
fn bytes_behind_a_message_are_named() {
    let lost = &request("bb", "/lost")[..30];
    for (text, calls) in [
        (posted("Content-Length: 2", &format!("ab{lost}")), 2),
        (posted("X: y", lost), 1),
        (
            posted(
                "Transfer-Encoding: chunked",
                &format!("1\r\na\r\n0\r\n\r\n{lost}"),
            ),
            2,
        ),
        // Nothing says how long the answer is.
        (
            request("aa", "/") + &answer("aa", &format!("200 OK\r\n\r\nhello{lost}")),
            3,
        ),
        (
            request("aa", "/") + &answer("aa", &format!("204 X\r\n\r\n{lost}")),
            2,
        ),
    ] {
        let text = text + &request("cc", "/next");
        let (report, records) = saved("c.gor", &text);
        let uris = inputs(&records, "request_headers", "uri");
        assert_eq!(uris.last(), Some(&json!("/next")), "{text}");
        assert_eq!(records.len(), calls + 1, "{text} {records:?}");
        assert_eq!(report["records"]["unusable"], 1, "{text} {report}");
        let offset = text.find(lost).unwrap();
        assert_eq!(report["unusable"][0]["offset"], offset, "{text} {report}");
    }
}

#[test]
fn separators_end_lines_of_either_kind_and_may_stand_first_and_last() {
    let lines = [request("a", "/1"), request("b", "/2"), request("c", "/3")].concat();
    let crlf = lines.replace("\r\n", "\n").replace('\n', "\r\n");
    let begins = &SEPARATOR[1..];
    for text in [
        lines.clone(),
        crlf,
        format!("{begins}{lines}"),
        format!("{SEPARATOR}{begins}{lines}"),
        format!("\u{feff}{lines}"),
        lines.replace(SEPARATOR, &format!("{SEPARATOR}\n")),
        lines[..lines.len() - 1].to_owned(),
        lines.trim_end_matches(SEPARATOR).to_owned(),
    ] {
        let (report, records) = saved("c.gor", &text);
        assert_eq!(report["captures"][0]["format"], "gor", "{text:?}");
        assert_eq!(report["records"]["transactions"], 3, "{text:?} {report}");
        assert_eq!(report["records"]["unusable"], 0, "{text:?} {report}");
        assert_eq!(records.len(), 3, "{text:?}");
    }
}

/// The end of a longer recording, and ids that middleware gave.
#[test]
fn a_recording_without_its_beginning_is_told_by_its_separators() {
    let text = ["pt: */*\r\n\r\n", SEPARATOR, &request("req_7-x", "/one")].concat();
    let (report, _) = saved("c.log", &text);
    assert_eq!(report["captures"][0]["format"], "gor", "{report}");
    assert_eq!(report["records"]["transactions"], 1, "{report}");
    assert_eq!(report["unusable"][0]["offset"], 0, "{report}");
    let (report, _) = saved(
        "c.log",
        request("b", "/") + &request("0b8f-4a.x", "/").replace(" 1\n", " late\n"),
    );
    assert_eq!(report["records"]["transactions"], 2, "{report}");
}

#[test]
fn answers_belong_to_the_oldest_request_of_their_id() {
    let ok = |status: &str| answer("aa", &format!("{status} X\r\nContent-Length: 0\r\n\r\n"));
    let text = [
        request("aa", "/1"),
        request("aa", "/2"),
        answer("aa", "100 Continue\r\n\r\n"),
        ok("201"),
        request("aa", "/3"),
        ok("202"),
        ok("203"),
        ok("204"),
    ];
    let (report, records) = saved("c.gor", text.concat());
    assert_eq!(report["records"]["transactions"], 4, "{report}");
    assert_eq!(
        remarks(&report),
        ["parts_left_out", "start_missing"],
        "{report}"
    );
    let order: Vec<String> = records
        .iter()
        .map(|it| {
            it["input"]["uri"]
                .as_str()
                .map_or(it["input"]["status"].to_string(), str::to_owned)
        })
        .collect();
    assert_eq!(order, ["/1", "201", "/2", "202", "/3", "203", "204"]);
}

/// A bad answer costs itself alone, whatever is wrong with it.
#[test]
fn a_bad_answer_leaves_its_request() {
    for bad in [
        "nonsense",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nHost: h",
        "",
    ] {
        let text = format!(
            "{}2 aa 2 3\n{bad}{SEPARATOR}{}",
            request("aa", "/a"),
            request("bb", "/b")
        );
        let (report, records) = saved("c.gor", text);
        assert_eq!(
            inputs(&records, "request_headers", "uri"),
            ["/a", "/b"],
            "{bad}"
        );
        assert_eq!(report["records"]["unusable"], 1, "{bad} {report}");
    }
}

#[test]
fn framing_that_contradicts_itself_or_is_short_is_told() {
    for (fields, body, remark) in [
        (
            "Content-Length: 1\r\nContent-Length: 3",
            "abc",
            Some("framing_unclear"),
        ),
        ("Content-Length: -3", "abc", Some("framing_unclear")),
        (
            "Transfer-Encoding: chunked, identity, gzip",
            "abc",
            Some("framing_unclear"),
        ),
        ("Content-Length: 9", "abc", Some("body_truncated")),
        (
            "Transfer-Encoding: chunked",
            "9\r\nabc",
            Some("body_truncated"),
        ),
        (
            "Transfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            Some("parts_left_out"),
        ),
        ("Content-Length: 3", "abc\r\n", None),
    ] {
        let (report, records) = saved("c.gor", posted(fields, body));
        assert_eq!(
            inputs(&records, "request_body", "data"),
            ["abc"],
            "{fields}"
        );
        assert_eq!(
            remarks(&report),
            Vec::from_iter(remark),
            "{fields} {report}"
        );
        assert_eq!(report["records"]["unusable"], 0, "{fields} {report}");
    }
}

/// Proxies look for an id in this order, and an empty one does not count.
#[test]
fn ids_are_those_that_proxies_take() {
    let with = |fields: &str| format!("1 own 1\nGET / HTTP/1.1\r\n{fields}\r\n{SEPARATOR}");
    let text = [
        with("X-Request-Id: r\r\nX-Correlation-Id: c\r\nX-Trace-Id: t\r\n"),
        with("X-Request-Id: r\r\nX-Correlation-Id: c\r\n"),
        with("X-Trace-Id: \r\nX-Request-Id: r\r\n"),
        with(""),
    ];
    let (_, records) = saved("c.gor", text.concat());
    let ids = inputs(&records, "request_headers", "correlation_id");
    assert_eq!(ids, ["t", "c", "r", "own"]);
}

#[test]
fn an_address_is_one_or_the_default_stands() {
    let with = |ip: &str| format!("1 own 1\nGET / HTTP/1.1\r\nX-Real-IP: {ip}\r\n\r\n{SEPARATOR}");
    let text = [
        with("10.0.0.0/8"),
        with("unknown"),
        with("[::1]:80"),
        with(""),
    ]
    .concat();
    let (_, records) = saved("c.gor", text);
    let addresses = inputs(&records, "request_headers", "client_ip");
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.1", "::1", "192.0.2.1"]);
}

/// Each of many small records held a block of the file.
#[test]
fn many_small_records_take_little_memory_and_small_limits_end() {
    let dir = TestDir::new();
    let text: String = (0..20_000)
        .map(|at| request(&format!("{at:024x}"), &format!("/{at}")))
        .collect();
    let (many, small) = (
        dir.file("many.gor", text),
        dir.file("small.gor", "1 a 1\nGET"),
    );
    let allow = shipped("right/allow.wat");
    let done = finish(command(&allow, &[&many]));
    done.assert_code(0);
    assert!(done.peak_kib < 300 << 10, "{} KiB", done.peak_kib);
    for most in ["1", "5", "9"] {
        let mut command = command(&allow, &[&small]);
        command.args(["--max-record", most]);
        let done = finish(command);
        assert_eq!(done.code, Some(3), "{most}: {}", done.stderr);
        assert!(done.cpu < Duration::from_secs(10), "{most}: {:?}", done.cpu);
    }
}

/// A separator with blanks behind it is one, and one that is damaged ends an answer
/// that does not say how long it is.
#[test]
fn separators_in_an_open_ended_answer_end_it() {
    let asked = request("aa", "/");
    for (separator, unusable) in [
        ("\n🐵🙈🙉 \n", 0),
        ("\n🐵🙈🙉\t \r\n", 0),
        ("\n🐵🙈🙉x\n", 1),
        ("\n", 1),
    ] {
        for next in [
            "1 bb 5\nGET /2 HTTP/1.1\r\n\r\n",
            "1 bb x\nGET /2 HTTP/1.1\r\n\r\n",
            "2 bb 5\nHTTP/2 200 OK\r\n\r\n",
        ] {
            let answer = format!("2 aa 2 3\nHTTP/1.1 200 OK\r\n\r\nhello{separator}");
            let text = asked.clone() + &answer + next;
            let (report, records) = saved("c.gor", &text);
            let named = if next.starts_with("2") && unusable == 0 {
                // HTTP/2 is not read, and named.
                1
            } else {
                unusable
            };
            assert_eq!(report["records"]["unusable"], named, "{text} {report}");
            let bodies = inputs(&records, "response_body", "data");
            assert!(
                bodies == ["hello"] || bodies == ["hello\n"],
                "{text} {bodies:?}"
            );
        }
    }
}
