//! Access logs as servers and their collectors really write them: each line is
//! replayed as it says, or named.

use std::path::Path;

use serde_json::Value;

use super::{replay, report};
use crate::support::{TestDir, shipped};

const TIME: &str = "[12/Jul/2026:00:00:00 +0000]";

/// A line of the combined format, with these words before the time.
fn combined(before: &str, path: &str) -> String {
    format!("{before} {TIME} \"GET {path} HTTP/1.1\" 200 10 \"-\" \"curl/8\"")
}

/// What a replay of a log asked about, and its report.
struct Asked {
    report: Value,
    heads: Vec<Value>,
}

impl Asked {
    fn of(name: &str, bytes: impl AsRef<[u8]>, flags: &[&str]) -> Self {
        let dir = TestDir::new();
        let log = dir.file(name, bytes);
        Self::of_path(&dir, &log, flags)
    }

    fn of_path(dir: &TestDir, log: &Path, flags: &[&str]) -> Self {
        let saved = dir.path("saved.jsonl");
        let save = ["--save", saved.to_str().unwrap(), "--keep-secrets"];
        let report = report(
            &shipped("right/allow.wat"),
            &[log],
            &[&save, flags].concat(),
        );
        let saved = std::fs::read_to_string(saved).unwrap();
        let lines = saved
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let heads = lines.filter(|line: &Value| line["phase"] == "request_headers");
        Self {
            report,
            heads: heads.map(|line| line["input"].clone()).collect(),
        }
    }

    fn each(&self, key: &str) -> Vec<&str> {
        let values = self.heads.iter().map(|head| head[key].as_str().unwrap());
        values.collect()
    }

    #[track_caller]
    fn assert_unusable(&self, records: &[u64]) {
        let unusable = self.report["unusable"].as_array().unwrap();
        let found: Vec<u64> = unusable
            .iter()
            .map(|it| it["record"].as_u64().unwrap())
            .collect();
        assert_eq!(found, records, "{}", self.report);
        assert_eq!(self.report["records"]["unusable"], records.len());
    }

    fn why(&self) -> &str {
        self.report["unusable"][0]["why"]
            .as_str()
            .unwrap_or_default()
    }
}

#[test]
fn words_of_collectors_are_no_address_and_the_default_is_counted() {
    let log = [
        combined("2026-07-12T00:00:00.6Z stdout F 203.0.113.1 - -", "/cri"),
        combined(
            "Jul 12 00:00:00 192.0.2.200 nginx: 203.0.113.2 - ann",
            "/syslog",
        ),
        combined("web-1  | 203.0.113.3 - -", "/compose"),
        combined("198.51.100.1 203.0.113.4 - -", "/two"),
        combined("host.isp.example - -", "/name"),
        combined("unix: - -", "/socket"),
        combined("10.0.0.0/8 - -", "/net"),
    ]
    .join("\n");
    let asked = Asked::of("a.log", log, &["--client-ip", "192.0.2.77"]);
    let [default, ips @ ..] = [
        "192.0.2.77",
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.3",
        "203.0.113.4",
    ];
    assert_eq!(asked.each("client_ip"), [&ips[..], &[default; 3]].concat());
    assert!(
        asked
            .heads
            .iter()
            .all(|head| head["headers"]["host"].is_null())
    );
    assert_eq!(asked.report["remarks"]["client_ip_default"], 3);
    asked.assert_unusable(&[]);
}

#[test]
fn lines_that_were_cut_or_joined_are_named() {
    let good = combined("203.0.113.7 - -", "/good");
    let lines = [
        good.clone(),
        good[4..].to_owned(),
        good[..good.len() - 3].to_owned(),
        format!("{}{good}", &good[..20]),
        format!("{good}{good}"),
        format!("{good} {good}"),
        format!("{good}\r{good}"),
        good.replace("/good", "/g\0d"),
        good.replace(" 10 ", " 10 0.1 \"x\" "),
        good.clone(),
    ];
    let asked = Asked::of("a.log", lines.join("\n"), &[]);
    assert_eq!(asked.each("uri"), ["/good", "/good"]);
    asked.assert_unusable(&[2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn fields_between_size_and_referer_lose_no_agent() {
    let line = combined("203.0.113.7 - -", "/a").replace(" 10 ", " 10 0.012 ");
    let asked = Asked::of("a.log", line, &[]);
    assert_eq!(asked.heads[0]["headers"]["user-agent"], "curl/8");
}

#[test]
fn nul_bytes_of_an_emptied_log_hide_no_line() {
    let good = combined("203.0.113.7 - -", "/a");
    for nuls in [1, 600, 200_000] {
        let zeros = "\0".repeat(nuls);
        for (text, lines) in [
            (format!("{zeros}{good}\n{good}\n"), 2),
            (format!("{good}\n{zeros}{good}\n"), 2),
        ] {
            let asked = Asked::of("a.log", text, &[]);
            assert_eq!(asked.each("client_ip"), vec!["203.0.113.7"; lines]);
            assert_eq!(asked.report["remarks"]["nul_bytes"], 1, "{}", asked.report);
            asked.assert_unusable(&[]);
        }
    }
    let asked = Asked::of("a.log", "\0".repeat(100_000), &[]);
    assert!(asked.why().contains("100000 NUL bytes"), "{}", asked.why());
}

#[test]
fn what_the_client_asked_for_comes_before_what_a_proxy_made_of_it() {
    for (line, flags, uri) in [
        (
            r#"{"uri":"/s","method":"GET","request":"GET /s?q=1 HTTP/1.1"}"#,
            &[][..],
            "/s?q=1",
        ),
        (
            r#"{"path":"/s","method":"GET","request_query":"q=1"}"#,
            &[],
            "/s?q=1",
        ),
        (
            r#"{"uri":"/s","method":"GET","http.url":"http://h.example/s?q=1"}"#,
            &[],
            "/s?q=1",
        ),
        (
            r#"{"uri":"foo://bar/x?y","method":"GET"}"#,
            &[],
            "foo://bar/x?y",
        ),
        (
            r#"{"x":{"to":"/t"},"request":"GET /s HTTP/1.1"}"#,
            &["--field", "uri=x.to"],
            "/t",
        ),
        (r#"{"request":"GET /\x22\xC3\xa9 HTTP/1.1"}"#, &[], "/\"é"),
    ] {
        let asked = Asked::of("a.log", line, flags);
        assert_eq!(asked.each("uri"), [uri], "{line}");
    }
    let line = r#"{"method":"GET","uri":"/","vhost":"h.example","http_referrer":"r","req":[{"name":"Cookie","value":"a=1"}]}"#;
    let asked = Asked::of("a.log", line, &["--field", "header.cookie=req.cookie"]);
    let headers = &asked.heads[0]["headers"];
    assert_eq!(
        (&headers["host"], &headers["referer"], &headers["cookie"]),
        (&"h.example".into(), &"r".into(), &"a=1".into())
    );
}

#[test]
fn lines_in_objects_of_collectors_are_read() {
    let line = combined("203.0.113.7 - -", "/a");
    let docker = serde_json::json!({"log": format!("{line}\n"), "stream": "stdout", "time": "x"});
    let beat = serde_json::json!({"log": {"level": "info"}, "message": line});
    let inner = r#"{"remote_addr":"203.0.113.7","request":"GET /a HTTP/1.1"}"#;
    let json = serde_json::json!({"log": format!("{inner}\n"), "stream": "stdout"});
    let started = r#"{"log":"server started\n","stream":"stderr"}"#;
    let words = format!("2026-07-12T00:00:00Z stdout F {inner}");
    let log = [
        &docker.to_string(),
        &beat.to_string(),
        &json.to_string(),
        started,
        &words,
    ]
    .map(str::to_owned);
    let asked = Asked::of("a.log", log.join("\n"), &[]);
    assert_eq!(asked.each("client_ip"), ["203.0.113.7"; 4]);
    asked.assert_unusable(&[4]);
    assert!(
        asked.why().starts_with("the text of \"log\""),
        "{}",
        asked.why()
    );
    let alone = Asked::of("a.log", format!("{words}\n"), &[]);
    assert_eq!(alone.report["captures"][0]["format"], "json-log");
}

#[test]
fn objects_over_lines_and_arrays_are_told_in_one_sentence() {
    let pretty = "{\n  \"method\": \"GET\",\n  \"uri\": \"/a\"\n}\n";
    let ours = "{\n  \"v\": 1,\n  \"phase\": \"request_headers\",\n  \"input\": {}\n}\n";
    for (text, word) in [
        (pretty.repeat(5), "span"),
        (ours.repeat(3), "span"),
        (r#"[{"method":"GET","uri":"/a"}]"#.to_owned(), "array"),
        (format!("[\n  {pretty},\n{pretty}]\n"), "array"),
        ("#Version: 1.0\n#Fields: date time\n".to_owned(), "W3C"),
    ] {
        let asked = Asked::of("a.json", text, &[]);
        assert_eq!(asked.report["records"]["unusable"], 1);
        assert!(asked.why().contains(word), "{word}: {}", asked.why());
    }
}

#[test]
fn a_mark_may_begin_any_line() {
    let line = |id: &str| {
        format!(
            "\u{feff}{{\"v\":1,\"id\":\"{id}\",\"phase\":\"request_headers\",\"input\":{{\"method\":\"GET\",\"uri\":\"/\",\"headers\":{{}}}}}}\n"
        )
    };
    let asked = Asked::of(
        "a.jsonl",
        [line("a"), "\u{feff}\n".to_owned(), line("b")].concat(),
        &[],
    );
    assert_eq!(asked.heads.len(), 2);
    asked.assert_unusable(&[]);
}

/// A pause of years is not waited for, and a person is told so at once; a time of
/// zero is none.
#[test]
fn long_pauses_are_not_waited_for() {
    let dir = TestDir::new();
    let line =
        |time: &str| format!(r#"{{"method":"GET","uri":"/","timestamp":"bad","ts":{time}}}"#);
    for (times, is_told) in [
        (["0", "1767225600", "\"2026-01-01T00:00:00\""], false),
        (["1767225600000", "1767225600500", "1767225600"], false),
        (["1500000000", "1767225600", "1767225600.5"], true),
        (
            ["1", "1767225600000000", "\"2026-01-01 00:00:00.1\""],
            false,
        ),
    ] {
        let log = dir.file("a.log", times.map(line).join("\n"));
        let began = std::time::Instant::now();
        let done = replay(
            &shipped("right/allow.wat"),
            &[&log],
            &["--speed", "1x", "--format", "json"],
        );
        assert!(began.elapsed().as_secs() < 60, "{times:?}");
        assert_eq!(done.json()["records"]["transactions"], 3);
        assert_eq!(
            done.stderr.contains("goes on at once"),
            is_told,
            "{}",
            done.stderr
        );
    }
}

#[test]
fn what_a_line_says_twice_or_in_another_way_is_not_lost() {
    let good = combined("203.0.113.7 - -", "/a");
    let lines = [
        good.replace("203", "access.log:203"),
        good.replace("203.0.113.7", "\"203.0.113.7\""),
        good.replace(" 200 ", " \"200\"\t"),
        good.replace("curl/8", r"\u0063url\/8"),
        good.replace("\"-\" \"curl/8\"", "sqlmap/1.0"),
    ];
    let asked = Asked::of("a.log", lines.join("\n"), &[]);
    assert_eq!(asked.each("client_ip"), ["203.0.113.7"; 4]);
    for head in &asked.heads {
        assert_eq!(head["headers"]["user-agent"], "curl/8");
    }
    asked.assert_unusable(&[5]);

    let lines = [
        "Listening on 8080",
        r#"{"method":"GET","uri":"/index.php","url":"http://h.example/x?q=1"}"#,
        r#"{"method":"GET","uri":"/a","uri":"/b"}"#,
        r#"{"method":"GET","uri":"/c","http_cookie":"a=1","args":{"d":"e"}}"#,
    ];
    let asked = Asked::of("b.log", lines.join("\n"), &[]);
    assert_eq!(asked.each("uri"), ["/x?q=1", "/c?d=e"]);
    assert_eq!(asked.heads[0]["headers"]["host"], "h.example");
    assert_eq!(asked.heads[1]["headers"]["cookie"], "a=1");
    assert_eq!(asked.report["remarks"]["log_unclear"], 1);
    asked.assert_unusable(&[1, 3]);
}

/// An address that was recorded stands; where there is none, that is told.
#[test]
fn a_record_of_ours_without_an_address_is_counted() {
    let line = |id: &str, address: &str| {
        format!(
            r#"{{"v":1,"id":"{id}","phase":"request_headers","input":{{"method":"GET","uri":"/"{address},"headers":{{}}}}}}"#
        )
    };
    let lines = [
        line("a", ""),
        line("b", r#","client_ip":"10.0.0.0/8""#),
        line("c", r#","client_ip":"""#),
    ];
    let asked = Asked::of("a.jsonl", lines.join("\n"), &["--client-ip", "192.0.2.77"]);
    assert_eq!(asked.each("client_ip"), ["192.0.2.77", "10.0.0.0/8", ""]);
    assert_eq!(asked.report["remarks"]["client_ip_default"], 1);
}
