//! Fixture files that are broken, deep, huge or ambiguous.

use serde_json::Value;

use crate::support::json_texts::{BROKEN, NO_OBJECT, VALUES};
use crate::support::{TestDir, run, shipped, wasm_agent};

/// Feeds each text as a fixture of its own, all in one process, and returns
/// the report's entry for each.
fn feed<T: AsRef<[u8]>>(texts: &[T]) -> Vec<Value> {
    let dir = TestDir::new();
    for (number, text) in texts.iter().enumerate() {
        dir.file(&format!("events/{number:03}.json"), text);
    }
    let done = run(&shipped("right/allow.wat"), &[&dir.path("events")], &[]);
    done.assert_code(3);
    let report = done.json();
    assert_eq!(report["verdict"], "unreadable");
    let fixtures = report["fixtures"].as_array().unwrap().clone();
    assert_eq!(fixtures.len(), texts.len());
    fixtures
}

/// Line, column and message of a fixture that could not be used.
#[track_caller]
fn place(fixture: &Value) -> (u64, u64, String) {
    let error = &fixture["error"];
    let at = |key: &str| {
        error[key]
            .as_u64()
            .filter(|at| *at > 0)
            .unwrap_or_else(|| panic!("no {key}: {fixture}"))
    };
    (
        at("line"),
        at("column"),
        error["message"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn i_04_broken_json_is_named_with_its_place() {
    for ((name, _), fixture) in BROKEN.iter().zip(feed(&BROKEN.map(|(_, text)| text))) {
        println!("{name}");
        assert!(!place(&fixture).2.is_empty());
        assert_eq!(fixture["status"], "errored");
    }
    for fixture in feed(&NO_OBJECT) {
        place(&fixture);
    }
}

#[test]
fn i_04_each_broken_value_of_a_request_is_an_error() {
    let request = |value: &[u8]| {
        [
            b"{\"method\":\"GET\",\"uri\":\"/\",\"headers\":{\"a\":",
            value,
            b"}}",
        ]
        .concat()
    };
    let values: Vec<Vec<u8>> = BROKEN
        .iter()
        .filter_map(|(_, text)| text.strip_prefix(b"{\"a\":")?.strip_suffix(b"}"))
        .map(request)
        .collect();
    assert!(values.len() > 20);
    for fixture in feed(&values) {
        place(&fixture);
    }
    // No number, null or object is a header's value; strings are.
    let values: Vec<Vec<u8>> = VALUES
        .iter()
        .filter(|value| !value.starts_with('"') && **value != "[]")
        .map(|value| request(value.as_bytes()))
        .collect();
    for fixture in feed(&values) {
        place(&fixture);
    }
}

#[test]
fn i_04_the_place_is_the_place() {
    let cases = [
        ("{\"method\":\"GET\",\n \"uri\": NaN}", 2, 9),
        (
            "{\n\"method\":\"GET\",\"uri\":\"/\",\n  \"uri\":\"/\"}",
            3,
            3,
        ),
        (
            "{\"method\":\"GET\",\n\"uri\":\"/\",\n\"hedders\":{}}",
            3,
            1,
        ),
        ("{ // why\n\"method\":\"GET\"}", 1, 3),
        ("{\"uri\":\"é\",\n\"method\":\"é\",\"x\":1}", 2, 14),
    ];
    for ((text, line, column), fixture) in cases.iter().zip(feed(&cases.map(|(text, ..)| text))) {
        let (found_line, found_column, message) = place(&fixture);
        assert_eq!(found_line, *line, "{text}: {message}");
        // The last character looked at, or the one after it.
        assert!(
            found_column.abs_diff(*column) <= 1,
            "{text}: column {found_column}: {message}"
        );
    }
}

#[test]
fn i_04_a_key_that_stands_twice_is_an_error_wherever_it_stands() {
    let input = r#""input":{"method":"GET","uri":"/"}"#;
    let event = r#""event":"request_headers""#;
    let texts = [
        r#"{"method":"GET","method":"PUT","uri":"/"}"#.to_owned(),
        r#"{"method":"GET","uri":"/","headers":{"a":"1","a":"2"}}"#.to_owned(),
        r#"{"method":"GET","uri":"/","headers":{},"headers":{}}"#.to_owned(),
        r#"{"status":200,"status":201}"#.to_owned(),
        format!("{{{event},{event},{input}}}"),
        format!("{{{event},{input},{input}}}"),
        format!(r#"{{{event},{input},"expect":{{"decision":"allow","decision":"block"}}}}"#),
        format!(r#"{{{event},{input},"expect":{{}},"expect":{{}}}}"#),
        format!(r#"{{"steps":[{{{event},{input}}}],"steps":[{{{event},{input}}}]}}"#),
        format!(r#"{{"steps":[{{{event},{input},{input}}}]}}"#),
    ];
    for (text, fixture) in texts.iter().zip(feed(&texts)) {
        let (.., message) = place(&fixture);
        assert!(message.contains("more than once"), "{text}: {message}");
    }
}

#[test]
fn i_04_numbers_and_escapes_out_of_range_are_errors() {
    let texts = [
        r#"{"status":1e400}"#,
        r#"{"status":200.5}"#,
        r#"{"status":-1}"#,
        r#"{"status":99}"#,
        r#"{"status":600}"#,
        r#"{"status":65736}"#,
        r#"{"status":123456789012345678901234567890}"#,
        r#"{"method":"GET","uri":"\ud800"}"#,
        r#"{"method":"GET","uri":"\udc00x"}"#,
        r#"{"method":"GET","uri":"\ud800\u0041"}"#,
        r#"{"method":"GET","uri":"/","headers":{"\ud800":"1"}}"#,
        r#"{"event":"request_body","input":{"data":"x","chunk_index":4294967296}}"#,
        r#"{"event":"request_body","input":{"data":"x","total_size":-1}}"#,
    ];
    for fixture in feed(&texts) {
        place(&fixture);
    }
}

#[test]
fn i_04_deep_json_is_refused_at_the_depth() {
    let deep = |open: &str, count: usize| open.repeat(count);
    let texts = [
        deep("[", 100),
        deep("[", 2_000_000),
        deep("{\"a\":", 100),
        deep("{\"a\":", 500_000),
        format!(
            r#"{{"method":"GET","uri":"/","headers":{}}}"#,
            deep("[", 100_000) + &deep("]", 100_000)
        ),
        format!(
            r#"{{"x":{}}}"#,
            deep("{\"\":", 50_000) + "1" + &deep("}", 50_000)
        ),
    ];
    for fixture in feed(&texts) {
        let (.., message) = place(&fixture);
        assert!(message.contains("at most 32"), "{message}");
    }
}

#[test]
fn i_04_a_huge_fixture_is_refused_by_its_size() {
    let dir = TestDir::new();
    let path = dir.sparse("huge.json", 4 << 30);
    let done = run(&shipped("right/allow.wat"), &[&path], &[]);
    done.assert_code(3);
    assert!(done.stderr.contains("huge.json"), "{}", done.stderr);
    assert!(done.peak_kib < 512 << 10, "{} KiB", done.peak_kib);
}

#[test]
fn i_04_a_fixture_of_many_headers_is_read_in_time() {
    let dir = TestDir::new();
    let headers: Vec<String> = (0..300_000)
        .map(|number| format!(r#""x-{number}":"v""#))
        .collect();
    let headers = headers.join(",");
    let path = dir.file(
        "many.json",
        format!(r#"{{"method":"GET","uri":"/","headers":{{{headers}}}}}"#),
    );
    // The input is larger than the guest's memory, which is the guest's fault.
    let done = run(&shipped("right/allow.wat"), &[&path], &["--timeout", "5s"]);
    done.assert_calm();
    assert!(done.cpu.as_secs() < 10, "{:?}", done.cpu);
    assert!(done.peak_kib < 512 << 10, "{} KiB", done.peak_kib);
}

#[test]
fn i_04_a_person_is_told_file_line_and_column() {
    let dir = TestDir::new();
    let good = dir.request();
    let bad = dir.file("bad.json", "{\"method\":\"GET\",\n\"hedders\":{}}");
    let module = shipped("right/allow.wat");
    let done = wasm_agent([&"run".into(), &module, &bad, &good]);
    done.assert_code(3);
    assert!(done.text().contains("bad.json:2:"), "{}", done.text());
    assert!(
        done.text().contains("did you mean \"headers\""),
        "{}",
        done.text()
    );
    // The good one beside it was run all the same.
    assert!(done.text().contains("allow"), "{}", done.text());
}

#[test]
fn i_04_a_missing_fixture_is_named() {
    let dir = TestDir::new();
    let path = dir.path("missing.json");
    let done = run(&shipped("right/allow.wat"), &[&path], &[]);
    done.assert_code(3);
    assert!(done.stderr.contains("missing.json"), "{}", done.stderr);
}
