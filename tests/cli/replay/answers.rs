//! What is held against what: answers that nobody gave, steps that were not
//! recorded, recorded texts that are no answers, and answers that tell a proxy the
//! same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{record, recorded, replay, report};
use crate::support::guests::escaped;
use crate::support::{TestDir, run};

const ALLOW: &str = r#"{"decision":"allow"}"#;
const BLOCK: &str = r#"{"decision":"block"}"#;
const NAMED: &str = r#"{"decision":"allow","tags":["n"]}"#;
/// No answer: the handler traps.
const TRAP: &str = "";

/// A module whose handlers give these answers.
fn module(dir: &TestDir, name: &str, handlers: &[(&str, &str)]) -> PathBuf {
    let mut wat = String::from(
        "(module (memory (export \"memory\") 4)\n\
         (func (export \"alloc\") (param i32) (result i32) (i32.const 131072))\n\
         (func (export \"dealloc\") (param i32 i32))\n",
    );
    for (at, (handler, answer)) in (1..).zip(handlers) {
        let (at, size) = (at * 4096_usize, answer.len());
        let body = match *answer {
            TRAP => "unreachable".to_owned(),
            _ => format!("(i64.const {})", (at << 32) | size),
        };
        let text = escaped(answer.as_bytes());
        let _ = writeln!(
            wat,
            "(data (i32.const {at}) \"{text}\")\n\
             (func (export \"{handler}\") (param i32 i32) (result i64) {body})"
        );
    }
    dir.file(name, wat + ")")
}

const HEAD: &str = "on_request_headers";
const BODY: &str = "on_request_body";
const RESPONSE: &str = "on_response_headers";

/// Steps of one exchange with what was recorded of each.
fn exchange(id: &str, steps: &[(&str, Value)]) -> Vec<String> {
    let line = |(event, output): &(&str, Value)| {
        let input = match *event {
            "request_body" => json!({"data": "x"}),
            _ => json!({}),
        };
        record(
            id,
            &json!({"event": event, "input": input, "output": output}),
        )
    };
    steps.iter().map(line).collect()
}

fn capture(dir: &TestDir, lines: &[String]) -> PathBuf {
    dir.file("capture.jsonl", lines.join("\n") + "\n")
}

fn allowed() -> Value {
    recorded(&json!("allow"))
}

fn blocked() -> Value {
    recorded(&json!({"block": {"status": 403}}))
}

fn beside(old: &Path) -> [&str; 2] {
    ["--baseline", old.to_str().unwrap()]
}

#[test]
fn an_allow_that_nobody_gave_is_no_answer() {
    let dir = TestDir::new();
    let none = module(&dir, "none.wat", &[(RESPONSE, ALLOW)]);
    let other = module(&dir, "other.wat", &[(RESPONSE, ALLOW), (BODY, ALLOW)]);
    let asked = module(&dir, "asked.wat", &[(HEAD, ALLOW)]);
    let heads = |output: &Value| {
        let head = |at: usize| exchange(&format!("c{at}"), &[("request_headers", output.clone())]);
        (0..3).flat_map(head).collect::<Vec<_>>()
    };
    for (output, old, verdict, compared) in [
        (allowed(), None, "nothing_checked", 0),
        (Value::Null, Some(&other), "nothing_checked", 0),
        (allowed(), Some(&asked), "nothing_checked", 0),
        // What was refused passes now.
        (blocked(), None, "failed", 3),
    ] {
        let capture = capture(&dir, &heads(&output));
        let flags = old.map_or_else(Vec::new, |old| beside(old).to_vec());
        let done = report(&none, &[&capture], &flags);
        assert_eq!(done["verdict"], verdict, "{done:#}");
        assert_eq!(done["compared"], compared, "{done:#}");
        assert_eq!(done["outcomes"]["not_asked"], 3, "{done:#}");
        let junit = replay(&none, &[&capture], &[&flags[..], &["-o", "junit"]].concat());
        let text = junit.text();
        assert!(text.contains("nothing was asked"), "{text}");
        assert!(text.contains("<error") || verdict == "failed", "{text}");
    }
    // A handler that is new is an answer, and what it allows was allowed before.
    let heads = capture(&dir, &heads(&Value::Null));
    let done = report(&asked, &[&heads], &beside(&none));
    assert_eq!(
        (&done["verdict"], &done["compared"]),
        (&json!("passed"), &json!(3))
    );
}

#[test]
fn of_some_the_module_was_asked_nothing() {
    let dir = TestDir::new();
    let new = module(&dir, "new.wat", &[(RESPONSE, ALLOW)]);
    let lines = [
        exchange("head", &[("request_headers", allowed())]),
        exchange("response", &[("response_headers", allowed())]),
        exchange(
            "both",
            &[
                ("request_headers", allowed()),
                ("response_headers", allowed()),
            ],
        ),
    ];
    let capture = capture(&dir, &lines.concat());
    let done = replay(&new, &[&capture], &["-o", "json"]);
    done.assert_code(0);
    let json = done.json();
    assert_eq!(json["compared"], 2, "{json:#}");
    assert_eq!(json["outcomes"]["not_asked"], 1, "{json:#}");
    assert_eq!(json["unanswered"], 2, "{json:#}");
    for words in [
        "in 1 transaction, the module was asked nothing",
        "in 2 transactions, the module has no handler",
    ] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
}

#[test]
fn a_fixture_that_could_expect_nothing_is_not_written() {
    let dir = TestDir::new();
    let new = module(&dir, "new.wat", &[(RESPONSE, ALLOW)]);
    let capture = capture(&dir, &exchange("a", &[("request_headers", blocked())]));
    let folder = dir.path("saved");
    let save = ["--save-fixture", folder.to_str().unwrap()];
    let done = report(&new, &[&capture], &save);
    assert_eq!(done["fixtures_written"], 0, "{done:#}");
    assert_eq!(done["fixtures_left_out"], json!({"form": 1}), "{done:#}");
    let notes = done["drift"]["groups"][0]["examples"][0]["notes"].to_string();
    assert!(notes.contains("could expect nothing"), "{notes}");
    // The recorded answer can be missed.
    let old = report(
        &new,
        &[&capture],
        &[&save[..], &["--expect", "old"]].concat(),
    );
    assert_eq!(old["fixtures_written"], 1, "{old:#}");
    run(&new, &[&folder], &[]).assert_code(1);
}

#[test]
fn a_refusal_behind_the_last_recorded_answer_is_told() {
    let dir = TestDir::new();
    let new = module(
        &dir,
        "new.wat",
        &[(HEAD, ALLOW), (BODY, ALLOW), (RESPONSE, BLOCK)],
    );
    let trap = module(&dir, "trap.wat", &[(HEAD, NAMED), (RESPONSE, TRAP)]);
    let ends = |output: Value| {
        exchange(
            "a",
            &[
                ("request_headers", output),
                ("request_body", Value::Null),
                ("response_headers", Value::Null),
            ],
        )
    };
    for (module, output, count) in [
        (&new, allowed(), 1),
        // Beside another change too.
        (&trap, allowed(), 1),
        // Nobody asked any further then; what is behind is compared.
        (&new, blocked(), 0),
        (&new, Value::Null, 0),
    ] {
        let capture = capture(&dir, &ends(output));
        let done = replay(module, &[&capture], &["-o", "json", "--fail-on", "never"]);
        let json = done.json();
        assert_eq!(json["refused_unrecorded"], count, "{json:#}");
        let is_told = done
            .stderr
            .contains("refuses a step that has no recorded answer");
        assert_eq!(is_told, count == 1, "{}", done.stderr);
    }
}

#[test]
fn a_fault_of_another_answer_is_a_new_one() {
    let dir = TestDir::new();
    let old = module(
        &dir,
        "old.wat",
        &[(HEAD, TRAP), (BODY, ALLOW), (RESPONSE, ALLOW)],
    );
    let steps = ["request_headers", "request_body", "response_headers"].map(|it| (it, Value::Null));
    let capture = capture(&dir, &exchange("a", &steps));
    for (handlers, category) in [
        ([(HEAD, ALLOW), (BODY, ALLOW), (RESPONSE, TRAP)], "faulted"),
        ([(HEAD, TRAP), (BODY, TRAP), (RESPONSE, ALLOW)], "faulted"),
        (
            [(HEAD, TRAP), (BODY, ALLOW), (RESPONSE, ALLOW)],
            "unchanged",
        ),
        (
            [(HEAD, ALLOW), (BODY, ALLOW), (RESPONSE, ALLOW)],
            "unchanged",
        ),
    ] {
        let new = module(&dir, "new.wat", &handlers);
        let flags = [&beside(&old)[..], &["--fail-open", "--ignore", "/audit"]].concat();
        let done = report(&new, &[&capture], &flags);
        let categories = &done["comparison"]["categories"];
        assert_eq!(categories, &json!({category: 1}), "{handlers:?}: {done:#}");
    }
}

#[test]
fn answers_are_numbered_by_their_step() {
    let dir = TestDir::new();
    let new = module(
        &dir,
        "new.wat",
        &[
            (HEAD, ALLOW),
            (BODY, r#"{"decision":"allow","tags":["m"]}"#),
            (RESPONSE, NAMED),
        ],
    );
    let mut then = allowed();
    then["audit"]["rule_ids"] = json!(["then"]);
    let steps = [
        ("request_headers", allowed()),
        ("request_body", Value::Null),
        ("response_headers", then.clone()),
    ];
    let capture = capture(&dir, &exchange("a", &steps));
    let folder = dir.path("saved");
    let flags = [
        "--fail-on",
        "any",
        "--expect",
        "old",
        "--save-fixture",
        folder.to_str().unwrap(),
    ];
    let done = report(&new, &[&capture], &flags);
    let group = &done["drift"]["groups"][0];
    assert_eq!(
        group["fields"],
        json!(["3/audit/rule_ids", "3/audit/tags"]),
        "{done:#}"
    );
    let old = group["examples"][0]["old"].as_array().unwrap();
    assert_eq!(old[1..], [Value::Null, then.clone()], "{done:#}");
    for (ignored, code) in [("3/audit", 0), ("2/audit", 1)] {
        let flags = ["--fail-on", "any", "--ignore", ignored];
        replay(&new, &[&capture], &flags).assert_code(code);
    }
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    let fixture: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
    let expected = |step: usize| &fixture["steps"][step]["expect"]["exact_response"];
    assert_eq!(expected(0), &allowed());
    assert_eq!(fixture["steps"][1].get("expect"), None, "{fixture:#}");
    assert_eq!(expected(2), &then);
    run(&new, &[&file.path()], &[]).assert_code(1);
}

/// What `--fail-on any` says of two answers to a request.
fn code_of(dir: &TestDir, (old, new): (&str, &str)) -> Option<i32> {
    let [old, new] = [("old.wat", old), ("new.wat", new)]
        .map(|(name, answer)| module(dir, name, &[(HEAD, answer)]));
    let capture = capture(dir, &exchange("a", &[("request_headers", Value::Null)]));
    replay(
        &new,
        &[&capture],
        &[&beside(&old)[..], &["--fail-on", "any"]].concat(),
    )
    .code
}

#[test]
fn what_a_later_change_of_a_header_undoes_is_no_difference() {
    let dir = TestDir::new();
    let answer = |parts: Value| {
        let mut answer = json!({"decision": "allow"});
        answer
            .as_object_mut()
            .unwrap()
            .extend(parts.as_object().unwrap().clone());
        answer.to_string()
    };
    for (old, new, code) in [
        (
            json!({"add_response_headers": {"A": "1", "b": "2"}, "remove_response_headers": ["a"]}),
            json!({"add_response_headers": {"b": "2"}, "remove_response_headers": ["a"]}),
            0,
        ),
        (
            json!({"add_request_headers": {"X-B": "1", "x-b": "2"}}),
            json!({"add_request_headers": {"x-B": "2"}}),
            0,
        ),
        // The last of them is another.
        (
            json!({"add_request_headers": {"X-B": "2", "x-b": "1"}}),
            json!({"add_request_headers": {"x-b": "2"}}),
            1,
        ),
        // A value beside the one that was set is one more.
        (
            json!({"add_request_headers": {"b": "1"}, "append_request_headers": {"b": "2"}}),
            json!({"add_request_headers": {"b": "1"}}),
            1,
        ),
    ] {
        let (old, new) = (answer(old), answer(new));
        assert_eq!(code_of(&dir, (&old, &new)), Some(code), "{old} {new}");
    }
}

#[test]
fn recorded_answers_may_be_written_in_any_form() {
    let dir = TestDir::new();
    let block = module(&dir, "block.wat", &[(HEAD, BLOCK)]);
    let full = blocked();
    let mut nulls = full.clone();
    nulls["decision"]["block"] = json!({"status": 403, "body": null, "headers": null});
    nulls["audit"]["confidence"] = Value::Null;
    nulls["request_headers"] = Value::Null;
    let mut tagged = nulls.clone();
    tagged["audit"] = json!({"tags": ["then"]});
    let mut foreign = full.clone();
    foreign["decision"]["block"]["headers"] = json!({"a": "1"});
    for (output, fields) in [
        (full, Value::Null),
        (nulls, Value::Null),
        (json!({"decision": {"block": {"status": 403}}}), Value::Null),
        (
            json!({"decision": {"block": {"status": 403}}, "audit": {}}),
            Value::Null,
        ),
        (tagged, json!(["/audit/tags"])),
        (foreign, json!(["/decision/block/headers"])),
    ] {
        let capture = capture(&dir, &exchange("a", &[("request_headers", output.clone())]));
        let done = report(&block, &[&capture], &[]);
        assert_eq!(done["compared"], 1, "{output}: {done:#}");
        assert_eq!(
            done["drift"]["groups"][0]["fields"], fields,
            "{output}: {done:#}"
        );
    }
}

#[test]
fn a_recorded_text_that_is_no_answer_is_unusable() {
    let dir = TestDir::new();
    let block = module(&dir, "block.wat", &[(HEAD, BLOCK)]);
    let mut listed = allowed();
    listed["audit"]["tags"] = json!([1]);
    let mut renamed = allowed();
    renamed["response_headers"] = json!([{"put": {"name": "a"}}]);
    for (output, words) in [
        (json!("x"), "an object with \"decision\""),
        (json!([]), "an object with \"decision\""),
        (json!(7), "an object with \"decision\""),
        (json!({}), "decision"),
        (json!({"ok": true}), "decision"),
        (json!({"decision": "deny"}), "deny"),
        (json!({"decision": {"block": {}}}), "status"),
        (json!({"decision": {"block": {"status": 403.0}}}), "403.0"),
        (
            json!({"decision": {"block": {"status": 403}, "redirect": {}}}),
            "output",
        ),
        (listed, "output"),
        (renamed, "put"),
    ] {
        let lines = [
            exchange("bad", &[("request_headers", output.clone())]),
            exchange("good", &[("request_headers", blocked())]),
        ];
        let capture = capture(&dir, &lines.concat());
        let done = report(&block, &[&capture], &[]);
        assert_eq!(done["records"]["unusable"], 1, "{output}: {done:#}");
        let why = done["unusable"][0]["why"].as_str().unwrap();
        assert!(
            why.contains("output") && why.contains(words),
            "{output}: {why}"
        );
        let categories = &done["drift"]["categories"];
        assert_eq!(categories, &json!({"unchanged": 1}), "{output}: {done:#}");
    }
}

/// A group is never titled with an empty word.
#[test]
fn an_ignored_decision_has_a_word() {
    let dir = TestDir::new();
    let [old, new] = [("old.wat", ALLOW), ("new.wat", BLOCK)]
        .map(|(name, answer)| module(&dir, name, &[(HEAD, answer)]));
    let capture = capture(&dir, &exchange("a", &[("request_headers", Value::Null)]));
    let flags = [&beside(&old)[..], &["--ignore", "/decision/block"]].concat();
    let done = report(&new, &[&capture], &flags);
    let to = &done["comparison"]["groups"][0]["to"]["decision"];
    assert_eq!(to, "(no decision)", "{done:#}");
}

const BEFORE: &str = "before_hook";

/// The line of a hook, its input and output in these words.
fn hook(input: &str, output: &str) -> String {
    format!(
        r#"{{"v":1,"id":"h","phase":"before_hook","input":{{"input":{input},"data":null,"user":null,"headers":{{"authorization":"Bearer a-client-secret-7"}},"tenant_id":null}},"output":{output}}}"#
    )
}

fn left(input: &str) -> String {
    format!(
        r#"{{"ok":true,"ctx":{{"input":{input},"data":null,"user":null,"headers":{{}},"tenant_id":null}}}}"#
    )
}

#[test]
fn digits_that_no_double_holds_are_compared() {
    let dir = TestDir::new();
    let context = capture(&dir, &[hook("{}", "null")]);
    for (old, new, category) in [
        (
            r#"{"a":{"id":123456789012345678901234}}"#,
            r#"{"a":{"id":123456789012345678901235}}"#,
            "details",
        ),
        (
            r#"{"a":{"id":0.1000000000000000055}}"#,
            r#"{"a":{"id":0.1}}"#,
            "details",
        ),
        (
            r#"{"a":{"id":18446744073709551616}}"#,
            r#"{"a":{"id":18446744073709551616}}"#,
            "unchanged",
        ),
        (
            r#"{"a":{"id":18446744073709551615}}"#,
            r#"{"a":{"id":18446744073709551614}}"#,
            "details",
        ),
        (r#"{"a":{"id":1.10}}"#, r#"{"a":{"id":1.1}}"#, "unchanged"),
    ] {
        let [before, now] = [("old.wat", old), ("new.wat", new)]
            .map(|(name, input)| module(&dir, name, &[(BEFORE, &left(input))]));
        let folder = dir.path("saved");
        let save = ["--save-fixture", folder.to_str().unwrap()];
        let done = report(&now, &[&context], &[&beside(&before)[..], &save].concat());
        let comparison = &done["comparison"];
        assert_eq!(
            comparison["categories"],
            json!({category: 1}),
            "{old}: {done:#}"
        );
        let group = &comparison["groups"][0];
        if category == "details" {
            assert_eq!(
                group["fields"],
                json!(["/ctx/input/a/id"]),
                "{old}: {done:#}"
            );
        }
        if done["fixtures_left_out"] != Value::Null {
            // No fixture can tell them apart, and no secret is why.
            assert_eq!(
                done["fixtures_left_out"],
                json!({"form": 1}),
                "{old}: {done:#}"
            );
            let note = group["examples"][0]["notes"].to_string();
            assert!(note.contains("would not show the change"), "{note}");
        }
    }
}

#[test]
fn a_hook_is_not_asked_about_another_number_than_was_recorded() {
    let dir = TestDir::new();
    let module = module(&dir, "ok.wat", &[(BEFORE, r#"{"ok":true}"#)]);
    for (number, is_kept) in [
        ("12345678901234567890123", false),
        ("-9223372036854775809", false),
        ("9007199254740993.0", false),
        ("18446744073709551615", true),
        ("1.50", true),
    ] {
        let input = format!(r#"{{"deep":[{{"id":{number}}}]}}"#);
        for line in [hook(&input, "null"), hook("{}", &left(&input))] {
            let capture = capture(&dir, &[line]);
            let done = report(&module, &[&capture], &["--fail-on", "never"]);
            let usable = done["records"]["transactions"] == 1;
            assert_eq!(usable, is_kept, "{number}: {done:#}");
            if !is_kept {
                let why = done["unusable"][0]["why"].as_str().unwrap();
                assert!(why.contains(number), "{why}");
            }
        }
    }
}

/// With `--expect old` what was recorded as absent is expected to be.
#[test]
fn what_a_hook_left_out_then_is_expected_to_be_absent() {
    let dir = TestDir::new();
    let nothing = r#"{"ok":true,"ctx":null,"error":null,"details":null}"#;
    let refused = r#"{"ok":false,"ctx":null,"error":null,"details":null}"#;
    // Headers are not a hook's to change.
    let headers = r#""headers":{"authorization":"Bearer a-client-secret-7"}"#;
    let changed = left(r#"{"id":2}"#).replace(r#""headers":{}"#, headers);
    for (output, now) in [
        (nothing, &*changed),
        (refused, r#"{"ok":false,"error":"no"}"#),
        (refused, r#"{"ok":false,"details":[1]}"#),
        (&*changed, r#"{"ok":true}"#),
    ] {
        let new = module(&dir, "new.wat", &[(BEFORE, now)]);
        let capture = capture(&dir, &[hook(r#"{"id":1}"#, output)]);
        let folder = TestDir::new();
        let save = folder.path("saved");
        let flags = [
            "--fail-on",
            "never",
            "--expect",
            "old",
            "--save-fixture",
            save.to_str().unwrap(),
        ];
        let done = report(&new, &[&capture], &flags);
        assert_eq!(done["fixtures_written"], 1, "{output} {now}: {done:#}");
        run(&new, &[&save], &[]).assert_code(1);
        let old = module(&dir, "old.wat", &[(BEFORE, output)]);
        run(&old, &[&save], &[]).assert_code(0);
    }
}
