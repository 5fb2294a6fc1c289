//! Bodies in chunks, and what `run` says of them.

use serde_json::{Value, json};

use crate::support::guests::{fnv1a, joined, joiner, whole_body};
use crate::support::{Done, MODES, Step, TestDir, binary, finish, run, shipped, steps};

const WHOLE: [&str; 2] = ["--body", "whole"];

/// A fixture of a request and these chunks of its body, with what is expected of each.
fn fixture(chunks: &[(&str, Value)], is_ended: bool) -> String {
    let mut steps = vec![json!({"event":"request_headers","input":{"method":"POST","uri":"/"}})];
    for (at, (data, expect)) in chunks.iter().enumerate() {
        let is_last = is_ended && at + 1 == chunks.len();
        let input = json!({"data":data,"chunk_index":at,"is_last":is_last});
        let mut step = json!({"event":"request_body","input":input});
        if !expect.is_null() {
            step["expect"] = expect.clone();
        }
        steps.push(step);
    }
    json!({"correlation_id":"c00001","steps":steps}).to_string()
}

fn ran(parts: &str, fixture: &str, flags: &[&str]) -> Done {
    let dir = TestDir::new();
    let module = dir.file("joiner.wat", joiner(parts, 0));
    let fixture = dir.file("upload.json", fixture);
    run(&module, &[&fixture], flags)
}

fn hints(step: &Step) -> Vec<&Value> {
    let hints = step.0["hints"].as_array();
    hints.map_or_else(Vec::new, |hints| hints.iter().collect())
}

fn has_hint(step: &Step, part: &str) -> bool {
    hints(step)
        .iter()
        .any(|hint| hint.to_string().contains(part))
}

/// The step says what the joiner says to a whole body.
#[track_caller]
fn assert_whole(step: &Step, body: &str) {
    let expected: Value = serde_json::from_str(&joined(fnv1a(body.as_bytes()), true)).unwrap();
    assert_eq!(step.fault(), None, "{step:?}");
    assert_eq!(step.decision(), expected["decision"]);
    assert_eq!(json!(step.tags()), expected["tags"]);
}

#[test]
fn an_answer_that_depends_on_its_instance_is_told() {
    let chunks = [("ab", Value::Null), ("cd", Value::Null)];
    let all = steps(&ran("", &fixture(&chunks, true), &[]).json());
    assert_whole(&all[2], "abcd");
    assert!(has_hint(&all[2], "depends_on_instance"), "{:?}", all[2]);
    for (parts, flags) in [("", &WHOLE[..]), (&whole_body(1), &[])] {
        let all = steps(&ran(parts, &fixture(&chunks, true), flags).json());
        assert_whole(&all[2], "abcd");
        assert!(
            !all.iter().any(|step| has_hint(step, "depends_on")),
            "{all:?}"
        );
    }
}

#[test]
fn the_word_of_the_module_goes_before_the_flag() {
    let chunks = [("ab", Value::Null), ("cd", Value::Null)];
    for (word, flag) in [(1, "chunks"), (0, "whole")] {
        let flags = ["--body", flag];
        let all = steps(&ran(&whole_body(word), &fixture(&chunks, true), &flags).json());
        assert_whole(&all[2], "abcd");
        assert_eq!(all[1].tags().is_empty(), word == 1, "{:?}", all[1]);
        assert_eq!(all[1].response()["needs_more"], true);
    }
}

/// We give that answer, so it says nothing of the module.
#[test]
fn an_expectation_of_a_chunk_before_the_last_checks_nothing() {
    let allow = json!({"decision":"allow"});
    let early = fixture(&[("ab", allow.clone()), ("cd", Value::Null)], true);
    let done = ran("", &early, &WHOLE);
    let report = done.json();
    assert_eq!(report["fixtures"][0]["status"], "unchecked", "{report}");
    assert!(has_hint(&steps(&report)[1], "collected"));
    let strict = [&WHOLE[..], &["--require-expectations"]].concat();
    ran("", &early, &strict).assert_code(1);

    // A wrong one fails all the same, and one of the last chunk counts.
    let wrong = fixture(
        &[("ab", json!({"decision":"block"})), ("cd", Value::Null)],
        true,
    );
    ran("", &wrong, &WHOLE).assert_code(1);
    let decision = if fnv1a(b"abcd") & 3 < 2 {
        "block"
    } else {
        "allow"
    };
    let late = fixture(
        &[("ab", Value::Null), ("cd", json!({"decision":decision}))],
        true,
    );
    let report = ran("", &late, &WHOLE).json();
    assert_eq!(report["fixtures"][0]["status"], "passed", "{report}");
}

#[test]
fn a_body_without_an_end_is_told() {
    let all = steps(&ran("", &fixture(&[("ab", Value::Null)], false), &WHOLE).json());
    assert!(has_hint(&all[1], "body_unfinished"), "{:?}", all[1]);
    let all = steps(&ran("", &fixture(&[("ab", Value::Null)], false), &[]).json());
    assert!(!has_hint(&all[1], "body_unfinished"), "{:?}", all[1]);
}

#[test]
fn a_body_beyond_the_limit_or_with_a_gap_gets_the_failure_policy() {
    for (is_open, mode) in MODES {
        let flags = [&WHOLE[..], &["--max-body", "5B"], mode].concat();
        let chunks = |last| fixture(&[("abc", Value::Null), (last, Value::Null)], true);
        assert_whole(&steps(&ran("", &chunks("de"), &flags).json())[2], "abcde");
        let gap = chunks("de").replace(
            "\"chunk_index\":1",
            "\"chunk_index\":2,\"bytes_received\":9",
        );
        for (fixture, code) in [(chunks("def"), "body-too-large"), (gap, "body-incomplete")] {
            let all = steps(&ran("", &fixture, &flags).json());
            let step = &all[2];
            assert_eq!(step.fault(), Some(code));
            assert_eq!(step.reasons(), [code]);
            assert!(step.tags().contains(&code), "{step:?}");
            assert_eq!(step.decision() == "allow", is_open, "{step:?}");
            assert!(is_open || step.status() == Some(500));
        }
    }
}

#[test]
fn validate_checks_the_global() {
    for (word, status, found) in [(1, "pass", "1"), (7, "fail", "7, which is neither")] {
        let dir = TestDir::new();
        let module = dir.file("joiner.wat", joiner(&whole_body(word), 0));
        let mut command = binary(["validate", "--format", "json"]);
        command.arg(&module);
        let report = finish(command).json();
        let checks = report["modules"][0]["checks"].as_array().unwrap();
        let check = checks
            .iter()
            .find(|check| check["id"] == "export:whole_body");
        let check = check.unwrap();
        assert_eq!(check["status"], status, "{check}");
        assert!(
            check["found"].as_str().unwrap().starts_with(found),
            "{check}"
        );
    }
}

/// The global is the word itself, or the address of a variable that holds it.
#[test]
fn what_the_global_may_be() {
    const VARIABLE: &str = "(global (export \"whole_body\") i32 (i32.const 4096))";
    let variable = |data: &str| format!("{VARIABLE}(data (i32.const 4096) \"{data}\")");
    let says = [
        (whole_body(1), Some("1")),
        (whole_body(0), Some("0")),
        (variable("\\01\\00\\00\\00"), Some("1")),
        (variable("\\00\\00\\00\\00"), Some("0")),
        // Its zeros were cut off.
        (variable("\\01"), Some("1")),
        (variable("\\01\\00"), Some("1")),
        (
            format!("{VARIABLE}(data (i32.const 4094) \"xx\\01\")"),
            Some("1"),
        ),
        // One that is 0 stands in no segment.
        (VARIABLE.to_owned(), Some("0")),
        (variable("\\07\\00\\00\\00"), None),
        (variable("\\01\\00\\00\\01"), None),
        (whole_body(7), None),
        (whole_body(u32::MAX), None),
        (VARIABLE.replace("4096", "4095"), None),
        (VARIABLE.replace("4096", "1000000000"), None),
        (
            "(global (export \"whole_body\") i64 (i64.const 1))".to_owned(),
            None,
        ),
        (
            "(global (export \"whole_body\") (mut i32) (i32.const 1))".to_owned(),
            None,
        ),
        ("(func (export \"whole_body\"))".to_owned(), None),
    ];
    let chunks = fixture(&[("ab", Value::Null), ("cd", Value::Null)], true);
    for (parts, word) in says {
        let done = ran(&parts, &chunks, &[]);
        let Some(word) = word else {
            done.assert_code(1);
            let check = "export:whole_body: expected i32 global: 1 for whole bodies";
            assert!(done.stderr.contains(check), "{parts}: {}", done.stderr);
            continue;
        };
        let all = steps(&done.json());
        assert_whole(&all[2], "abcd");
        assert_eq!(all[1].tags().is_empty(), word == "1", "{parts}");
    }
}

/// A module that keeps nothing answers alike whichever instance a chunk meets: that
/// another one was asked is told in a tag, and is no difference.
#[test]
fn instances_that_are_replaced_are_no_difference_of_a_module() {
    let module = shipped("rules/rules.wasm");
    let folder = crate::support::fixture("events");
    for calls in 1..5 {
        let isolation = format!("recycle={calls}");
        let flags = ["--isolation", &isolation, "--jobs", "1", "--repeat", "3"];
        let report = run(&module, &[&folder], &flags).json();
        let all = steps(&report);
        let moved = all
            .iter()
            .any(|step| step.tags().contains(&"instance-changed"));
        assert!(moved || calls == 4, "{isolation}");
        for step in &all {
            for hint in ["depends_on_instance", "earlier_calls"] {
                assert!(!has_hint(step, hint), "{isolation}: {step:?}");
            }
        }
        assert_eq!(report["verdict"], "passed", "{isolation}");
    }
}
