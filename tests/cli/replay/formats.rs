//! Every format, and that they agree.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{command, har, replay, report, rows};
use crate::support::{TestDir, capture, finish, shipped};

/// Requests with how they ended, sorted: what formats must agree on.
fn decisions(name: &str) -> Vec<String> {
    let rules = shipped("rules/rules.wasm");
    let mut seen: Vec<String> = rows(&rules, &[&capture(name)], &[])
        .iter()
        .map(|row| {
            format!(
                "{} {} {}",
                row["request"].as_str().unwrap(),
                row["module"]["decision"],
                row["module"]["rule_ids"]
            )
        })
        .collect();
    seen.sort();
    assert!(!seen.is_empty());
    seen
}

#[test]
fn every_shipped_capture_is_told_and_replays_whole() {
    let rules = shipped("rules/rules.wasm");
    for (name, format, transactions) in [
        ("chromium.har", "har", 14),
        ("mitmproxy.har", "har", 14),
        ("nginx-access.log", "access-log", 14),
        ("nginx-json.log", "json-log", 14),
        ("envoy-tap.json", "envoy-tap", 14),
        ("goreplay.gor", "gor", 14),
        ("recorded.jsonl", "jsonl", 14),
        ("suite.yaml", "ftw", 4),
        ("suite-v3.yaml", "ftw", 3),
    ] {
        let report = report(&rules, &[&capture(name)], &["--strict"]);
        assert_eq!(report["captures"][0]["format"], format, "{name}");
        assert_eq!(report["records"]["transactions"], transactions, "{name}");
        assert_eq!(report["records"]["unusable"], 0, "{name}: {report}");
        assert_eq!(report["verdict"], "passed", "{name}: {report}");
        let lossy = report["captures"][0]["loses"].is_string();
        assert_eq!(lossy, format != "jsonl", "{name}");
    }
}

#[test]
fn the_same_traffic_in_other_formats_gives_the_same_decisions() {
    let har = decisions("chromium.har");
    assert_eq!(har, decisions("envoy-tap.json"));
    assert_eq!(har, decisions("goreplay.gor"));
    assert_eq!(har, decisions("recorded.jsonl"));
    // Seen by two tools at once; the proxy did not see the one that failed.
    let browser: Vec<&String> = har.iter().filter(|line| !line.contains("/down ")).collect();
    let proxy = decisions("mitmproxy.har");
    assert!(browser.len() >= 13);
    for line in browser {
        assert!(proxy.contains(line), "{line} not in {proxy:#?}");
    }
    assert_eq!(decisions("nginx-access.log"), decisions("nginx-json.log"));
}

#[test]
fn captures_may_be_packed_piped_and_in_folders() {
    let dir = TestDir::new();
    let allow = shipped("right/allow.wat");
    let text = har(30, |_| false);
    let plain = dir.file("in/a.har", &text);
    dir.file("in/notes.md", "no capture");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
    let packed = dir.file("in/deep/b.har.gz", packed.finish().unwrap());
    let folder = dir.path("in");
    for (path, transactions) in [(&plain, 30), (&packed, 30), (&folder, 60)] {
        let done = replay(&allow, &[path], &["--format", "json"]);
        assert_eq!(done.json()["records"]["transactions"], transactions);
    }
    let done = replay(&allow, &[&folder], &[]);
    assert!(done.stderr.contains("notes.md"), "{}", done.stderr);

    let mut command = command(&allow, &[Path::new("-")]);
    command.args(["--format", "json"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["records"]["transactions"], 30);
    assert_eq!(report["captures"][0]["file"], "-");
}

#[test]
fn real_hars_with_holes_are_read() {
    let dir = TestDir::new();
    let entries = r#"{"log":{"entries":[
        {"request":{"method":"GET","url":"https://a.example/h2","headers":[{"name":":authority","value":"a.example"},{"name":":path","value":"/h2"},{"name":"Cookie","value":"a=1"},{"name":"Cookie","value":"b=2"}]},"response":{"status":0}},
        {"request":{"url":"https://a.example/aborted","method":"GET"},"_initiator":{"type":"script"},"response":null},
        {"request":{"url":"https://a.example/form","method":"POST","headers":null,"postData":{"mimeType":"application/x-www-form-urlencoded","params":[{"name":"a","value":"1 2"},{"name":"b"}]}},"response":{"status":204,"headers":[]}},
        {"request":{"url":"https://a.example/gif","method":"GET","headers":[]},"response":{"status":200,"headers":[],"content":{"size":3,"mimeType":"image/gif","text":"/wAB","encoding":"base64"}}},
        {"request":{"url":"data:text/plain,hi","method":"GET"}}
    ]}}"#;
    let har = dir.file("holes.har", format!("\u{feff}{entries}"));
    let saved = dir.path("saved.jsonl");
    let allow = shipped("rules/rules.wasm");
    let report = report(
        &allow,
        &[&har],
        &["--save", saved.to_str().unwrap(), "--keep-secrets"],
    );
    assert_eq!(report["records"]["transactions"], 4);
    assert_eq!(report["unusable"][0]["record"], 5);
    assert!(
        report["unusable"][0]["why"]
            .as_str()
            .unwrap()
            .contains("data:")
    );
    let saved = std::fs::read_to_string(saved).unwrap();
    let inputs: Vec<Value> = saved
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .collect();
    let of = |phase: &str, id: &str| -> BTreeMap<String, Value> {
        let line = inputs
            .iter()
            .find(|line| line["phase"] == phase && line["id"] == id)
            .unwrap_or_else(|| panic!("{phase} {id} in {saved}"));
        serde_json::from_value(line["input"].clone()).unwrap()
    };
    let first = of("request_headers", "holes-1");
    assert_eq!(first["headers"]["cookie"], "a=1, b=2");
    assert_eq!(first["headers"]["host"], "a.example");
    assert!(first["headers"].get(":path").is_none());
    assert_eq!(of("request_body", "holes-3")["data"], "a=1+2&b=");
    assert_eq!(of("response_body", "holes-4")["data"], "/wAB");
    assert_eq!(of("response_body", "holes-4")["encoding"], "base64");
}

#[test]
fn a_test_suite_s_expectations_are_checked() {
    let rules = shipped("rules/rules.wasm");
    let passed = report(
        &rules,
        &[&capture("suite.yaml"), &capture("suite-v3.yaml")],
        &[],
    );
    assert_eq!(passed["tests_passed"], 7);
    assert_eq!(passed["remarks"]["not_checked"], 1);

    let allow = shipped("right/allow.wat");
    let done = replay(&allow, &[&capture("suite.yaml")], &["--format", "junit"]);
    done.assert_code(1);
    let text = done.text();
    assert!(text.contains(r#"failures="3""#), "{text}");
    assert!(
        text.contains("942100-1") && text.contains("rule 942100: expected to fire"),
        "{text}"
    );
}

#[test]
fn tests_with_unknown_keys_or_templates_are_named_and_the_rest_is_run() {
    let dir = TestDir::new();
    let suite = dir.file(
        "odd.yaml",
        "tests:\n  - test_id: 1\n    stages:\n      - input: {uri: \"/\", colour: red}\n        output: {status: 200}\n  - test_id: 2\n    stages:\n      - input: {uri: '/{{ no }}', data: '{{ randAlpha 3 }}'}\n        output: {status: 200}\n  - test_id: 3\n    stages:\n      - input: {uri: '/{{ no }}', data: '{{ \"a\" | repeat 3 }}'}\n        output: {status: 200}\n",
    );
    let report = report(&shipped("right/allow.wat"), &[&suite], &[]);
    assert_eq!(report["records"]["transactions"], 1);
    let why = |index: usize| report["unusable"][index]["why"].as_str().unwrap();
    assert!(why(0).contains("input.colour"), "{report}");
    assert!(why(1).contains("randAlpha"), "{report}");
    assert!(report["unusable"][1]["offset"].as_u64().unwrap() > 0);
}

#[test]
fn a_json_log_of_another_shape_is_read_with_a_map() {
    let dir = TestDir::new();
    let log = dir.file(
        "app.log",
        "{\"req\":{\"verb\":\"GET\",\"target\":\"/old/x\"},\"from\":\"198.51.100.7:4711\",\"cookies\":\"a=1\"}\n",
    );
    let rules = shipped("rules/rules.wasm");
    let done = replay(&rules, &[&log], &[]);
    done.assert_code(3);
    assert!(
        done.text().contains("--field method=KEY"),
        "{}",
        done.text()
    );
    let fields = [
        "--field",
        "method=req.verb",
        "--field",
        "uri=req.target",
        "--field",
        "client_ip=from",
        "--field",
        "header.cookie=cookies",
    ];
    let rows = rows(&rules, &[&log], &fields);
    assert_eq!(rows[0]["module"]["decision"], "redirect 301");
}

#[test]
fn records_of_one_transaction_are_brought_together() {
    let dir = TestDir::new();
    let line = |id: &str, phase: &str, input: &str| {
        format!(r#"{{"v":1,"id":"{id}","phase":"{phase}","input":{input}}}"#)
    };
    let head = |id: &str| {
        line(
            id,
            "request_headers",
            r#"{"method":"POST","uri":"/","client_ip":"192.0.2.1","correlation_id":"x","headers":{}}"#,
        )
    };
    let body = |id: &str| {
        line(
            id,
            "request_body",
            r#"{"correlation_id":"x","chunk_index":0,"is_last":true,"total_size":2,"bytes_received":2,"data":"hi","encoding":"utf8"}"#,
        )
    };
    let mixed = [
        head("a"),
        head("b"),
        body("a"),
        body("b"),
        body("late"),
        head("a"),
    ]
    .join("\n");
    let capture = dir.file("mixed.jsonl", mixed);
    let report = report(&shipped("rules/rules.wasm"), &[&capture], &[]);
    assert_eq!(report["records"]["transactions"], 4);
    assert_eq!(report["remarks"]["start_missing"], 1);
    assert_eq!(report["outcomes"]["calls"], 6);
}

#[test]
fn the_schema_describes_what_is_written() {
    let dir = TestDir::new();
    let saved = dir.path("saved.jsonl");
    let mut command = command(&shipped("rules/rules.wasm"), &[&capture("chromium.har")]);
    command.arg("--save").arg(&saved);
    finish(command).assert_code(0);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema: Value =
        serde_json::from_slice(&std::fs::read(root.join("schema/capture-1.schema.json")).unwrap())
            .unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let written = std::fs::read_to_string(saved).unwrap();
    let shipped = std::fs::read_to_string(capture("recorded.jsonl")).unwrap();
    let mut lines = 0;
    for line in written.lines().chain(shipped.lines()) {
        let value: Value = serde_json::from_str(line).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?} in {line}");
        lines += 1;
    }
    assert!(lines > 40, "{lines}");
    assert!(!validator.is_valid(&serde_json::json!({"v": 2})));
}
