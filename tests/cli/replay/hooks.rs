//! Hooks: recorded calls of plugins, through one module and through two.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{har, replay, report};
use crate::support::{TestDir, capture, run, shipped};

/// Contexts that the shipped plugin changes, refuses and stamps: each a
/// transaction of one hook, or of both.
fn contexts() -> Vec<Value> {
    let context = |email: &str, data: Value| {
        json!({
            "input": {"name": "Ada", "email": email},
            "data": data,
            "user": {"id": "7", "role": "user"},
            "headers": {"authorization": "Bearer s3cr3t-of-the-client", "accept": "*/*"},
            "tenant_id": "acme",
        })
    };
    let line = |id: &str, phase: &str, input: Value| json!({"v": 1, "id": id, "phase": phase, "input": input});
    vec![
        line(
            "plain",
            "before_hook",
            context("ada@example.org", Value::Null),
        ),
        line(
            "spaces",
            "before_hook",
            context(" Ada@Example.ORG ", Value::Null),
        ),
        line("none", "before_hook", context("", Value::Null)),
        line("half", "before_hook", context("ada@", Value::Null)),
        line(
            "both",
            "before_hook",
            context("Ada@example.org", Value::Null),
        ),
        line(
            "both",
            "after_hook",
            context("ada@example.org", json!({"id": 7})),
        ),
    ]
}

fn recorded(dir: &TestDir) -> PathBuf {
    let lines: Vec<String> = contexts().iter().map(Value::to_string).collect();
    dir.file("hooks.jsonl", lines.join("\n"))
}

fn plugin() -> PathBuf {
    shipped("account/account.wasm")
}

fn flag(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn hooks_are_counted_and_saved() {
    let dir = TestDir::new();
    let saved = dir.path("saved.jsonl");
    let first = report(&plugin(), &[&recorded(&dir)], &["--save", flag(&saved)]);
    assert_eq!(first["verdict"], "passed", "{first}");
    assert_eq!(first["records"]["transactions"], 5);
    assert_eq!(first["outcomes"]["calls"], 6);
    assert_eq!(
        first["outcomes"]["decisions"],
        json!({"ok": 1, "ok changed": 2, "refused: invalid record": 2})
    );
    assert_eq!(first["drift"], Value::Null);
    let fuel = &first["outcomes"]["fuel"];
    assert!(fuel["min"].as_u64().unwrap() > 100, "{fuel}");

    let lines: Vec<Value> = std::fs::read_to_string(&saved)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let phases: Vec<&str> = lines
        .iter()
        .map(|line| line["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases[..5], ["before_hook"; 5]);
    assert_eq!(phases[5..], ["after_hook"]);
    assert_eq!(
        lines[0]["output"],
        json!({"ok": true, "ctx": null, "error": null, "details": null})
    );
    assert_eq!(
        lines[1]["output"]["ctx"]["input"]["email"],
        "ada@example.org"
    );
    assert_eq!(lines[2]["output"]["details"][0]["code"], "required");
    assert_eq!(lines[0]["redacted"], json!(["headers.authorization"]));
    assert_schema(&lines);
}

/// From what a host wrote, and from what a replay of it wrote.
#[test]
fn hooks_repeat_and_become_fixtures_that_pass() {
    let dir = TestDir::new();
    let input = recorded(&dir);
    let saved = dir.path("saved.jsonl");
    report(&plugin(), &[&input], &["--save", flag(&saved)]);
    for (name, capture) in [("first", &input), ("again", &saved)] {
        let fixtures = dir.path(name);
        let flags = ["--save-fixture", flag(&fixtures), "--fixtures", "all"];
        let again = report(&plugin(), &[capture], &flags);
        assert_eq!(again["verdict"], "passed", "{again}");
        if name == "again" {
            let drift = &again["drift"];
            assert_eq!(drift["categories"], json!({"unchanged": 5}), "{drift}");
            // What was recorded cost what it cost with its secrets.
            assert_eq!(drift["fuel"], Value::Null, "{drift}");
        }
        assert_eq!(again["fixtures_written"], 5);
        let passed = run(&plugin(), &[&fixtures], &["--timeout", "20s"]).json();
        assert_eq!(passed["verdict"], "passed", "{passed}");
        let steps: Vec<usize> = passed["fixtures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fixture| fixture["steps"].as_array().unwrap().len())
            .collect();
        // Two hooks of one context are one fixture.
        assert_eq!(steps, [1, 1, 1, 1, 2], "{passed}");
        for file in std::fs::read_dir(&fixtures).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    }
}

#[test]
fn a_call_that_repeats_costs_what_it_cost() {
    let dir = TestDir::new();
    let saved = dir.path("saved.jsonl");
    let flags = ["--save", flag(&saved), "--keep-secrets"];
    report(&plugin(), &[&recorded(&dir)], &flags);
    let again = report(&plugin(), &[&saved], &[]);
    let fuel = &again["drift"]["fuel"];
    assert_eq!(fuel["equal"], 5, "{fuel}");
    assert_eq!(fuel["old"], again["outcomes"]["fuel"]["sum"], "{fuel}");
    let other = report(&shipped("hooks/pass-through.wat"), &[&saved], &[]);
    assert_eq!(other["drift"]["fuel"]["less"], 5, "{other}");
}

fn assert_schema(lines: &[Value]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema: Value =
        serde_json::from_slice(&std::fs::read(root.join("schema/capture-1.schema.json")).unwrap())
            .unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for line in lines {
        let errors: Vec<String> = schema
            .iter_errors(line)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}: {line}");
    }
    // An answer of the other ABI is none.
    let mut wrong = lines[0].clone();
    wrong["output"] = json!({"decision": "allow"});
    assert!(!schema.is_valid(&wrong));
    let mut wrong = lines[0].clone();
    wrong["input"]["headers"] = json!({"a": ["1"]});
    assert!(!schema.is_valid(&wrong));
}

#[test]
fn two_plugins_differ_by_leave_by_context_and_by_fault() {
    let dir = TestDir::new();
    let input = recorded(&dir);
    let passes = shipped("hooks/pass-through.wat");
    let flags = [
        "--baseline",
        flag(&passes),
        "--minimize",
        "--format",
        "json",
    ];
    let done = replay(&plugin(), &[&input], &flags);
    done.assert_code(1);
    let compared = done.json();
    let categories = &compared["comparison"]["categories"];
    assert_eq!(
        categories,
        &json!({"decision": 2, "details": 2, "unchanged": 1})
    );
    let groups = compared["comparison"]["groups"].as_array().unwrap();
    assert_eq!(groups[0]["from"]["decision"], "ok");
    assert_eq!(groups[0]["to"]["decision"], "refused: invalid record");
    // What matters of a refusal: nothing but that there is no address.
    assert_eq!(
        groups[0]["examples"][0]["minimized"]["context"]["input"],
        json!({}),
        "{compared}"
    );
    assert_eq!(groups[1]["to"]["decision"], "ok changed");
    let example = &groups[1]["examples"][0];
    assert_eq!(example["old"][0]["ctx"], Value::Null);
    assert_eq!(
        example["new"][0]["ctx"]["input"]["email"],
        "ada@example.org"
    );
    // Of both hooks, and that a header was redacted changes nothing.
    let pair = &groups[1]["examples"][1];
    assert_eq!(pair["id"], "both");
    assert!(pair["fixture"]["after"].is_object(), "{pair}");
    assert_eq!(pair["notes"], Value::Null, "{pair}");
    let fuel = &compared["comparison"]["fuel"];
    assert_eq!(fuel["more"], 5, "{fuel}");
    // Byte for byte, whoever does it.
    let with = |jobs: &str| {
        replay(
            &plugin(),
            &[&input],
            &[&flags[..], &["--jobs", jobs]].concat(),
        )
        .text()
    };
    assert_eq!(with("1"), with("8"));

    let trap = shipped("hooks/trap.wat");
    let faulted = report(&trap, &[&input], &["--baseline", flag(&plugin())]);
    assert_eq!(
        faulted["comparison"]["categories"]["faulted"], 5,
        "{faulted}"
    );
    let fault = faulted["comparison"]["groups"][0]["to"]["fault"].as_str();
    assert!(
        fault.is_some_and(|fault| fault.starts_with("trap")),
        "{faulted}"
    );
}

#[test]
fn a_faulted_hook_drifts_from_what_was_and_its_fixture_passes() {
    let dir = TestDir::new();
    let saved = dir.path("saved.jsonl");
    let fixtures = dir.path("fixtures");
    report(&plugin(), &[&recorded(&dir)], &["--save", flag(&saved)]);
    let trap = shipped("hooks/trap.wat");
    let drifted = report(
        &trap,
        &[&saved],
        &["--save-fixture", flag(&fixtures), "--minimize"],
    );
    assert_eq!(drifted["verdict"], "failed");
    assert_eq!(
        drifted["drift"]["categories"],
        json!({"faulted": 5}),
        "{drifted}"
    );
    // Everything traps it, so nothing of the context is needed.
    let example = &drifted["drift"]["groups"][0]["examples"][0];
    assert_eq!(
        example["minimized"]["context"]["input"],
        json!({}),
        "{drifted}"
    );
    let passed = run(&trap, &[&fixtures], &["--timeout", "20s"]).json();
    assert_eq!(passed["verdict"], "passed", "{passed}");
}

#[test]
fn records_of_the_other_abi_are_named_and_the_rest_is_replayed() {
    let dir = TestDir::new();
    let hooks = recorded(&dir);
    let agent = shipped("right/allow.wat");
    let done = replay(&agent, &[&hooks], &["--format", "json"]);
    done.assert_code(3);
    let read = done.json();
    assert_eq!(read["records"]["unusable"], 6, "{read}");
    let why = read["unusable"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("expected events of a proxy, since the module is a proxy agent (the agent ABI), found before_hook (the hook ABI)"),
        "{why}"
    );
    let http = dir.file("traffic.har", har(3, |_| false));
    let done = replay(&plugin(), &[&http], &["--format", "json"]);
    done.assert_code(3);
    let why = done.json()["unusable"][0]["why"].to_string();
    assert!(why.contains("expected before_hook or after_hook"), "{why}");
    let mixed = report(&plugin(), &[&http, &hooks], &[]);
    assert_eq!(mixed["records"]["transactions"], 5);
    assert_eq!(mixed["records"]["unusable"], 3);
    // Two modules of two ABIs cannot be compared at all.
    let done = replay(&plugin(), &[&hooks], &["--baseline", flag(&agent)]);
    done.assert_code(2);
    assert!(
        done.stderr.contains("a module of the hook ABI"),
        "{}",
        done.stderr
    );
    replay(&plugin(), &[&hooks], &["--fail-open"]).assert_code(2);
    // One id, two ABIs.
    let events = std::fs::read_to_string(capture("recorded.jsonl")).unwrap();
    let event: Value = serde_json::from_str(events.lines().nth(1).unwrap()).unwrap();
    let mut event = event;
    event["id"] = json!("plain");
    let text = format!("{}\n{event}\n", contexts()[0]);
    let read = report(&plugin(), &[&dir.file("both.jsonl", text)], &[]);
    assert_eq!(read["records"]["transactions"], 1, "the hook is asked");
    let why = read["unusable"][0]["why"].as_str().unwrap();
    assert!(why.contains("expected before_hook or after_hook"), "{why}");
}

/// What was recorded may be that nothing changed.
#[test]
fn a_context_that_was_left_alone_is_expected_so() {
    let dir = TestDir::new();
    let mut line = contexts().remove(1);
    line["output"] = json!({"ok": true, "ctx": null, "error": null, "details": null});
    let input = dir.file("hooks.jsonl", line.to_string());
    let fixtures = dir.path("fixtures");
    let flags = ["--save-fixture", flag(&fixtures), "--expect", "old"];
    let drifted = report(&plugin(), &[&input], &flags);
    assert_eq!(drifted["fixtures_written"], 1, "{drifted:#}");
    let timeout = ["--timeout", "20s"];
    run(&plugin(), &[&fixtures], &timeout).assert_code(1);
    run(&shipped("hooks/pass-through.wat"), &[&fixtures], &timeout).assert_code(0);
}

/// In a fixture of both hooks there is one context, with other data for the second.
#[test]
fn hooks_of_two_contexts_are_no_pair() {
    let dir = TestDir::new();
    for (key, other) in [
        ("tenant_id", json!("other")),
        ("user", Value::Null),
        ("headers", json!({"accept": "text/html"})),
    ] {
        let mut lines = contexts().split_off(4);
        lines[1]["input"][key] = other.clone();
        lines[1]["output"] = json!({"ok": false, "ctx": null, "error": "no", "details": null});
        let text = format!("{}\n{}\n", lines[0], lines[1]);
        let input = dir.file("hooks.jsonl", text);
        let fixtures = dir.path(key);
        let flags = ["--save-fixture", flag(&fixtures)];
        let drifted = report(&plugin(), &[&input], &flags);
        assert_eq!(drifted["fixtures_written"], 1, "{drifted:#}");
        let file = std::fs::read_dir(&fixtures).unwrap().next().unwrap();
        let text = std::fs::read(file.unwrap().path()).unwrap();
        let fixture: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(fixture["hook"], "after_hook", "{fixture:#}");
        assert_eq!(fixture["context"][key], other, "{fixture:#}");
    }
}

/// In a fixture of both hooks the second goes on with what the first left.
#[test]
fn hooks_that_did_not_go_on_with_each_other_are_no_pair() {
    let dir = TestDir::new();
    for (email, is_pair) in [("ada@example.org", true), ("somebody@else.example", false)] {
        let mut lines = contexts().split_off(4);
        let left = |ctx: &Value| json!({"ok": true, "ctx": ctx, "error": null, "details": null});
        let mut after_first = lines[0]["input"].clone();
        after_first["input"]["email"] = json!("ada@example.org");
        lines[0]["output"] = left(&after_first);
        lines[1]["output"] = left(&Value::Null);
        lines[1]["input"]["input"]["email"] = json!(email);
        let text = format!("{}\n{}\n", lines[0], lines[1]);
        let fixtures = dir.path(email);
        let flags = ["--save-fixture", flag(&fixtures), "--expect", "old"];
        let passes = shipped("hooks/pass-through.wat");
        let drifted = report(&passes, &[&dir.file("hooks.jsonl", text)], &flags);
        // One that would not show the change is left out, and never a wrong one.
        let Some(file) = std::fs::read_dir(&fixtures)
            .ok()
            .and_then(|mut files| files.next())
        else {
            assert!(!is_pair, "{drifted:#}");
            assert_eq!(drifted["fixtures_left_out"]["form"], 1, "{drifted:#}");
            continue;
        };
        let text = std::fs::read(file.unwrap().path()).unwrap();
        let fixture: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(fixture.get("after").is_some(), is_pair, "{fixture:#}");
    }
}
