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
        // What is left is true of nearly any refusal, so the decision is added.
        (
            r#"{"rule_ids":["x"]}"#,
            r#"{"rule_ids":{"exact":[]},"decision":"block"}"#,
        ),
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
            r#"{"response_headers":{"X-A":"2","x-b":{"absent":true}},"decision":"block"}"#,
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

/// What only a refusal has is not there where the module allows, and then the
/// decision is expected in its place.
#[test]
fn a_decision_that_was_expected_stays_expected() {
    let allow = r#"{"decision":"allow"}"#;
    let redirect = r#"{"decision":"redirect","body":"/x"}"#;
    let challenge = r#"{"decision":"challenge","challenge_type":"captcha"}"#;
    let block = r#"{"decision":"block"}"#;
    let answers = [allow, redirect, challenge, block];
    let budget = r#""budget":{"fuel":100000}"#;
    for expect in [
        r#"{"status":401,"body":"no"}"#.to_owned(),
        r#"{"status":307,"url":"/y"}"#.to_owned(),
        format!(r#"{{"status":401,{budget}}}"#),
        format!(r#"{{"fault":"trap:unreachable",{budget}}}"#),
        format!(r#"{{"challenge_type":{{"contains":"js"}},{budget}}}"#),
        r#"{"fault":{"contains":"fuel"},"tags":["wasm-error"]}"#.to_owned(),
        r#"{"response":{"decision":{"challenge":{"params":{"a":"1"}}},"needs_more":false}}"#
            .to_owned(),
        format!(r#"{{"response":{{"audit":{{"tags":["x"]}}}},{budget}}}"#),
    ] {
        for answer in answers {
            let dir = TestDir::new();
            let module = answering(&dir, "m.wat", answer);
            let text = format!(
                r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{expect}}}"#
            );
            let fixture = dir.file("f.json", text);
            let (text, _) = update_twice(&module, &fixture, 0);
            for other in answers.iter().filter(|it| **it != answer) {
                let other = answering(&dir, "other.wat", other);
                let done = run(&other, &[&fixture], &[]);
                assert_eq!(done.code, Some(1), "{expect} became {text}");
            }
        }
    }
}

#[test]
fn expectations_that_are_removed_leave_no_fixture_that_checks_nothing() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", BLOCK);
    let steps = |expect: &str| {
        format!(
            r#"{{"steps":[{{"event":"request_headers","input":{{"method":"GET","uri":"/"}}{expect}}},{{"event":"request_body","input":{{"data":"x"}}}}"#
        )
    };
    let last =
        r#"{"event":"response_headers","input":{"status":200},"expect":{"decision":"allow"}}]}"#;
    let fixture = dir.file("f.json", format!("{},{last}", steps("")));
    let (text, done) = update_twice(&module, &fixture, 0);
    assert!(text.starts_with(&steps(r#","expect":{"exact_response":{"decision":{"block":{"status":429,"body":"slow down"}},"response_headers":[{"set":{"name":"x-a","value":"2"}}],"audit":{"tags":["a","c"]}}}"#)), "{text}");
    assert!(
        done.stderr
            .contains("removed the expectations of step 3: an earlier step refuses"),
        "{}",
        done.stderr
    );
}

#[test]
fn headers_that_are_made_anew_are_expected_as_changes() {
    let answer = r#"{"decision":"allow","remove_request_headers":["x-a"],"append_request_headers":{"x-a":["1"]}}"#;
    let after = updated(
        answer,
        r#"{"event":"request_headers","input":{"method":"GET","uri":"/"},"expect":{"request_headers":{"x-a":"1"}}}"#,
    );
    let written: Value = serde_json::from_str(&after).unwrap();
    let ops = json!([{"remove": {"name": "x-a"}}, {"add": {"name": "x-a", "value": "1"}}]);
    assert_eq!(
        written["expect"],
        json!({"response": {"request_headers": ops}})
    );
}

/// Each line keeps its end, and new lines end as the line before them.
#[test]
fn mixed_line_ends_stay_mixed() {
    let lines = |ends: [&str; 2]| {
        let [first, rest] = ends;
        format!(
            "{{{first}  \"event\": \"request_headers\",{rest}  \"input\": {{\"method\": \"GET\", \"uri\": \"/\"}}{rest}}}{rest}"
        )
    };
    for ends in [["\r\n", "\n"], ["\n", "\r\n"]] {
        let before = lines(ends);
        let after = updated(BLOCK, &before);
        assert!(after.lines().count() > 8, "{after}");
        let of = |text: &str| text.matches("\r\n").count();
        let expected = match ends {
            ["\r\n", _] => of(&before),
            _ => after.lines().count() - 1,
        };
        assert_eq!(of(&after), expected, "{after:?}");
    }
}

#[test]
fn many_steps_are_updated_one_by_one() {
    let step = |tag: &str| {
        format!(
            "{{\n  \"event\": \"request_headers\",\n  \"input\": {{\"method\": \"GET\", \"uri\": \"/\"}},\n  \"expect\": {{\"tags\": [\"{tag}\"], \"status\": 429}}\n}}"
        )
    };
    let of = |tags: [&str; 3]| format!("{{\"steps\": [{}]}}\n", tags.map(step).join(", "));
    let allow = r#"{"decision":"allow","tags":["y"]}"#;
    let after = updated(allow, &of(["x", "longer", "y"]));
    let expected = of(["y", "y", "y"]).replace("\"status\": 429", "\"decision\": \"allow\"");
    assert_eq!(after, expected);
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
            .contains("removed the expectations of steps 2 and 3: an earlier step refuses"),
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
            r#"{"error":{"absent":true},"details":{"absent":true},"ok":true}"#,
        ),
        (
            refused,
            r#"{"ok":true,"details":{"absent":true}}"#,
            r#"{"ok":false,"exact_details":[{"f":1}]}"#,
        ),
        // A part of which nothing is left is checked as a whole.
        (
            r#"{"ok":true,"details":[]}"#,
            r#"{"ok":true,"details":[{"a":1}]}"#,
            r#"{"ok":true,"exact_details":[]}"#,
        ),
        (
            r#"{"ok":true,"ctx":{"input":{"a":[]},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
            r#"{"ok":true,"ctx":{"input":{"a":[3]}}}"#,
            r#"{"ok":true,"exact_ctx":{"input":{"a":[]},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
        ),
        (
            refused,
            r#"{"fault":"fuel","absent":["/input/x"],"error":"no"}"#,
            r#"{"absent":["/input/x"],"error":"no","ok":false}"#,
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
