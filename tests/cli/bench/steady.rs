//! `bench` of modules that do not answer alike each time: never green, and told in
//! every format.

use std::path::Path;

use serde_json::Value;

use super::bench;
use crate::support::TestDir;
use crate::support::guests::{ALLOW, context, guest, limiter};

fn changed(report: &Value) -> Vec<(&str, &str, u64)> {
    let all = report["changed_answers"].as_array();
    let all = all.into_iter().flatten();
    all.map(|it| {
        let text = |key: &str| it[key].as_str().unwrap();
        (
            text("from"),
            text("to"),
            it["after_calls"].as_u64().unwrap(),
        )
    })
    .collect()
}

#[test]
fn an_answer_that_changes_is_told_with_the_number_of_calls_and_is_a_failure() {
    let dir = TestDir::new();
    let request = dir.request();
    for calls in [1, 30, 100, 1_000, 3_000] {
        let module = limiter(&dir, "limiter.wat", calls);
        let done = bench(&[&module, &request], &[]);
        done.assert_code(1);
        let report = done.json();
        assert_eq!(report["verdict"], "failed");
        assert_eq!(changed(&report), [("allow", "block 429", u64::from(calls))]);
        assert_eq!(
            report["changed_answers"][0]["case"],
            report["cases"][0]["name"]
        );
        assert_eq!(
            report["changed_answers"][0]["by"],
            *module.to_string_lossy()
        );
    }
    // As many as are ever made are answered alike; each call on an instance of its own.
    let done = bench(&[&limiter(&dir, "limiter.wat", 1 << 30), &request], &[]);
    done.assert_code(0);
    assert_eq!(done.json().get("changed_answers"), None);
    let module = limiter(&dir, "limiter.wat", 30);
    for (isolation, code) in [("fresh", 0), ("recycle=30", 0), ("recycle=31", 1)] {
        bench(&[&module, &request], &["--isolation", isolation]).assert_code(code);
    }
}

#[test]
fn every_format_says_that_an_answer_changed() {
    let dir = TestDir::new();
    let (module, request) = (limiter(&dir, "limiter.wat", 30), dir.request());
    for (format, said) in [
        ("human", "allow at first, block 429 after 30 calls"),
        ("markdown", "allow at first, block 429 after 30 calls"),
        ("html", "allow at first, block 429 after 30 calls"),
        (
            "junit",
            "<failure message=\"the answer changed while it was measured",
        ),
        ("github", "::error file="),
        ("csv", ",after_calls,30"),
    ] {
        let path = dir.path("report");
        let report = format!("{format}={}", path.display());
        bench(&[&module, &request], &["--report", &report]).assert_code(1);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(said), "{format}: {text}");
    }
}

/// What tells a proxy something else is another answer, and nothing else is.
#[test]
fn only_what_a_proxy_is_told_counts() {
    let dir = TestDir::new();
    let request = dir.request();
    let by_turns = |one: &str, other: &str| {
        let data = |at: u32, text: &str| {
            format!("(data (i32.const {at}) \"{}\")", text.replace('"', "\\22"))
        };
        guest(
            &dir,
            "turns.wat",
            &format!(
                "(global $turn (mut i32) (i32.const 0)) {} {}",
                data(2048, one),
                data(4096, other)
            ),
            &format!(
                "(global.set $turn (i32.xor (global.get $turn) (i32.const 1)))
                 (select (i64.const {}) (i64.const {}) (global.get $turn))",
                (2048_u64 << 32) | one.len() as u64,
                (4096_u64 << 32) | other.len() as u64
            ),
        )
    };
    let set =
        |headers: &str| format!(r#"{{"decision":"allow","add_request_headers":{{{headers}}}}}"#);
    let (one, other) = (set(r#""x-a":"1","x-b":"2""#), set(r#""x-b":"2","x-a":"1""#));
    bench(&[&by_turns(&one, &other), &request], &[]).assert_code(0);
    let other = set(r#""x-b":"2","x-a":"3""#);
    let done = bench(&[&by_turns(&one, &other), &request], &[]);
    done.assert_code(1);
    let report = done.json();
    assert_eq!(
        changed(&report),
        [("allow", "allow with something else changed", 1)]
    );
}

#[test]
fn no_gate_passes_and_nothing_is_saved_where_an_answer_changes() {
    let dir = TestDir::new();
    let request = dir.request();
    let steady = guest(&dir, "steady.wat", "", ALLOW);
    let module = limiter(&dir, "limiter.wat", 500);
    let gate = |modules: [&Path; 2]| {
        let done = bench(
            &[modules[0], modules[1], &request],
            &["--threshold", "1000%"],
        );
        done.assert_code(1);
        let report = done.json();
        assert_eq!(changed(&report), [("allow", "block 429", 500)]);
        assert_eq!(
            report["changed_answers"][0]["by"],
            *module.to_string_lossy()
        );
    };
    gate([&steady, &module]);
    gate([&module, &steady]);
    let saved = dir.path("baseline.json");
    let save = ["--save", saved.to_str().unwrap()];
    bench(&[&module, &request], &save).assert_code(1);
    assert!(!saved.exists());
    bench(&[&steady, &request], &save).assert_code(0);
    assert!(saved.exists());
    let compare = ["--compare", saved.to_str().unwrap(), "--threshold", "1000%"];
    bench(&[&module, &request], &compare).assert_code(1);
}

#[test]
fn what_a_hook_answers_is_held_against_its_first_result_too() {
    let dir = TestDir::new();
    let module = dir.file(
        "hooks.wat",
        r#"(module (memory (export "memory") 2) (global $calls (mut i32) (i32.const 0))
        (data (i32.const 1024) "{\22ok\22:true }") (data (i32.const 2048) "{\22ok\22:false}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "before_hook") (param i32 i32) (result i64)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (select (i64.const 0x0000_0800_0000_000c) (i64.const 0x0000_0400_0000_000c)
            (i32.gt_u (global.get $calls) (i32.const 40)))))"#,
    );
    let input = dir.file("context.json", context(1));
    bench(&[&module, &input], &[]).assert_code(0);
    let done = bench(&[&module, &input], &["--isolation", "pooled"]);
    done.assert_code(1);
    assert_eq!(changed(&done.json()), [("ok", "refused", 40)]);
}
