//! `run --update` changes what has to change, and nothing else of a fixture.

use crate::support::guests::{Answers, answering};
use crate::support::{Done, TestDir, run, shipped};

use serde_json::{Value, json};

/// Updates a fixture twice, and gives what became of it. The second time changes
/// nothing.
fn updated(answer: &str, text: &str) -> String {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", answer);
    update_twice(&module, &dir.file("f.json", text), 0).0
}

fn update_twice(module: &std::path::Path, fixture: &std::path::Path, code: i32) -> (String, Done) {
    let done = run(module, &[fixture], &["--update"]);
    done.assert_code(code);
    let once = std::fs::read_to_string(fixture).unwrap();
    let again = run(module, &[fixture], &["--update"]);
    again.assert_code(code);
    assert!(!again.stderr.contains("updated"), "{}", again.stderr);
    assert_eq!(std::fs::read_to_string(fixture).unwrap(), once);
    run(module, &[fixture], &[]).assert_code(code);
    (once, done)
}

const BLOCK: &str = r#"{"decision":"block","status":429,"body":"slow down","tags":["a","c"],"add_response_headers":{"x-a":"2"}}"#;

#[test]
fn what_changes_is_a_value_in_its_authors_layout() {
    let input = r#""input":{"method":"GET","uri":"/"}"#;
    for (before, after) in [
        // One line stays one line.
        (
            format!(r#"{{"event":"request_headers",{input},"expect":{{"decision":"allow"}}}}"#),
            format!(r#"{{"event":"request_headers",{input},"expect":{{"decision":"block"}}}}"#),
        ),
        // Order, indentation, line ends, no line end at the last line.
        (
            "{\r\n\t\"expect\" : { \"status\":  403 ,\r\n\t\t\"decision\": \"block\" },\r\n\t\"description\": \"why\",\r\n\t\"input\": {\"uri\": \"/\", \"method\": \"GET\"}, \"event\": \"request_headers\"}".to_owned(),
            "{\r\n\t\"expect\" : { \"status\":  429 ,\r\n\t\t\"decision\": \"block\" },\r\n\t\"description\": \"why\",\r\n\t\"input\": {\"uri\": \"/\", \"method\": \"GET\"}, \"event\": \"request_headers\"}".to_owned(),
        ),
    ] {
        assert_eq!(updated(BLOCK, &before), after);
    }
}

#[test]
fn each_kind_of_expectation_stays_of_its_kind() {
    for (expect, after) in [
        (r#"{"tags":["a","b"]}"#, r#"{"tags":["a"]}"#),
        (r#"{"tags":["x"]}"#, r#"{"tags":["a","c"]}"#),
        (r#"{"rule_ids":["x"]}"#, r#"{"rule_ids":{"exact":[]}}"#),
        (
            r#"{"tags":{"all":["a","b"],"none":["c","d"]}}"#,
            r#"{"tags":{"all":["a"],"none":["d"]}}"#,
        ),
        (
            r#"{"tags":{"exact":["a"]}}"#,
            r#"{"tags":{"exact":["a","c"]}}"#,
        ),
        (r#"{"tags":{"none":["a"]}}"#, r#"{"tags":["a","c"]}"#),
        (
            r#"{"tags":{"regex":"x","all":["a"]}}"#,
            r#"{"tags":{"all":["a"]}}"#,
        ),
        (
            r#"{"body":{"contains":"slow","regex":"up$"}}"#,
            r#"{"body":{"contains":"slow"}}"#,
        ),
        (r#"{"body":{"contains":"no"}}"#, r#"{"body":"slow down"}"#),
        (
            r#"{"url":"/x","decision":"block"}"#,
            r#"{"url":{"absent":true},"decision":"block"}"#,
        ),
        (
            r#"{"response_headers":{"X-A":"1","x-b":"1"}}"#,
            r#"{"response_headers":{"X-A":"2","x-b":{"absent":true}}}"#,
        ),
        (
            r#"{"response":{"audit":{"tags":["b","c"]},"needs_more":false}}"#,
            r#"{"response":{"audit":{"tags":["c"]},"needs_more":false}}"#,
        ),
        (
            r#"{"response":{"routing_metadata":{"a":"1"},"needs_more":true}}"#,
            r#"{"response":{"needs_more":false}}"#,
        ),
        (
            r#"{"response":{"decision":{"redirect":{"status":302}}}}"#,
            r#"{"response":{"decision":{"block":{"status":429,"body":"slow down"}}}}"#,
        ),
        (
            r#"{"decision":"block","fault":"trap:unreachable"}"#,
            r#"{"decision":"block"}"#,
        ),
    ] {
        let of = |expect: &str| {
            format!(
                r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{expect}}}"#
            )
        };
        assert_eq!(updated(BLOCK, &of(expect)), of(after), "{expect}");
    }
}

#[test]
fn a_fixture_without_expectations_gets_the_whole_answer_and_no_nulls() {
    let exact = r#"{"exact_response": {"decision": {"block": {"status": 429, "body": "slow down"}}, "response_headers": [{"set": {"name": "x-a", "value": "2"}}], "audit": {"tags": ["a", "c"]}}}"#;
    assert_eq!(
        updated(BLOCK, "{\"method\": \"GET\", \"uri\": \"/\"}\n"),
        format!(
            "{{\"event\": \"request_headers\", \"input\": {{\"method\": \"GET\", \"uri\": \"/\"}}, \"expect\": {exact}}}\n"
        )
    );
    assert_eq!(
        updated(
            BLOCK,
            r#"{"event":"request_headers","input":{"method":"GET","uri":"/"}}"#
        ),
        format!(
            r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{}}}"#,
            exact.replace(": ", ":").replace(", ", ",")
        )
    );
    let lines = "{\n    \"method\": \"GET\",\n    \"uri\": \"/\"\n}\n";
    assert_eq!(
        updated(r#"{"decision":"allow"}"#, lines),
        "{\n    \"event\": \"request_headers\",\n    \"input\": {\n        \"method\": \"GET\",\n        \"uri\": \"/\"\n    },\n    \"expect\": {\"exact_response\": {\"decision\": \"allow\"}}\n}\n"
    );
    let long = updated(BLOCK, lines);
    assert!(!long.contains("null"), "{long}");
    assert!(long.lines().count() < 40, "{long}");
    // Steps that their author left without one keep none.
    let some = r#"{"steps":[{"event":"request_headers","input":{"method":"GET","uri":"/"}},{"event":"response_headers","input":{"status":200},"expect":{"tags":["x"]}}]}"#;
    let allow = r#"{"decision":"allow","tags":["y"]}"#;
    assert_eq!(updated(allow, some), some.replace("[\"x\"]", "[\"y\"]"));
}

#[test]
fn what_a_refusal_leaves_out_is_removed_and_said() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", BLOCK);
    let first = r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"decision":"DECISION"}}"#;
    let rest = r#"{"event":"request_body","input":{"data":"x"}EXPECT},{"event":"response_headers","input":{"status":200}EXPECT}"#;
    let of = |decision: &str, expect: &str| {
        format!(
            r#"{{"steps":[{},{}]}}"#,
            first.replace("DECISION", decision),
            rest.replace("EXPECT", expect)
        )
    };
    let fixture = dir.file(
        "f.json",
        of(
            "allow",
            r#","expect":{"decision":"allow","budget":{"fuel":9}}"#,
        ),
    );
    let (text, done) = update_twice(&module, &fixture, 0);
    assert_eq!(text, of("block", ""));
    assert!(
        done.stderr
            .contains("removed what was expected of step 2, 3"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_promise_is_not_updated_and_still_fails() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", BLOCK);
    let of = |decision: &str| {
        format!(
            r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{{"decision":"{decision}","budget":{{"fuel":1}}}}}}"#
        )
    };
    let fixture = dir.file("f.json", of("allow"));
    assert_eq!(update_twice(&module, &fixture, 1).0, of("block"));
}

#[test]
fn hooks_are_updated_in_the_same_way() {
    let ctx =
        r#"{"input":{"n":"0000","a":[1,2]},"data":null,"user":null,"headers":{},"tenant_id":null}"#;
    let ok = format!(r#"{{"ok":true,"ctx":{ctx}}}"#);
    let refused = r#"{"ok":false,"error":"no","details":[{"f":1}]}"#;
    for (answer, expect, after) in [
        (
            ok.as_str(),
            r#"{"ctx":{"input":{"n":"0000","a":[3]}}}"#,
            r#"{"ctx":{"input":{"n":"0000","a":[1,2]}}}"#,
        ),
        (
            &ok,
            r#"{"exact_ctx":{"input":{"n":"0000"},"data":null,"user":null,"headers":{}}}"#,
            r#"{"exact_ctx":{"input":{"n":"0000","a":[1,2]},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
        ),
        (
            &ok,
            r#"{"error":"no","details":[1]}"#,
            r#"{"error":{"absent":true},"details":{"absent":true}}"#,
        ),
        (
            refused,
            r#"{"ok":true,"details":{"absent":true}}"#,
            r#"{"ok":false,"exact_details":[{"f":1}]}"#,
        ),
        (
            refused,
            r#"{"exact_details":[{"f":2}]}"#,
            r#"{"exact_details":[{"f":1}]}"#,
        ),
    ] {
        let dir = TestDir::new();
        let module = dir.file("m.wat", Answers::of([answer]).hook_wat());
        let of =
            |expect: &str| format!(r#"{{"context":{{"input":{{"n":"0000"}}}},"expect":{expect}}}"#);
        let fixture = dir.file("f.json", of(expect));
        assert_eq!(update_twice(&module, &fixture, 0).0, of(after), "{expect}");
    }
    let dir = TestDir::new();
    let module = dir.file("m.wat", Answers::of([ok]).hook_wat());
    let fixture = dir.file("f.json", r#"{"input":{"n":"0000"}}"#);
    let text = update_twice(&module, &fixture, 0).0;
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["expect"]["error"], json!({"absent": true}));
    assert_eq!(written["expect"]["exact_ctx"]["input"]["a"], json!([1, 2]));
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_pair_without_expectations_gets_one_for_each_hook() {
    let dir = TestDir::new();
    let module = shipped("account/account.wasm");
    let fixture = dir.file(
        "f.json",
        r#"{"context":{"input":{"email":"ADA@example.org"}},"after":{"data":{"id":7}}}"#,
    );
    let text = update_twice(&module, &fixture, 0).0;
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written["before"]["expect"]["ok"], true);
    assert_eq!(written["after"]["expect"]["ok"], true);
}

#[test]
fn an_update_and_a_stop_at_the_first_failure_contradict_each_other() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", BLOCK);
    run(&module, &[&dir.request()], &["--update", "--fail-fast"]).assert_code(2);
}
