//! Fixtures and smallest requests: each shows the change that it is filed under,
//! on both modules, or is not there and the report says why.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{replay, report};
use crate::support::rules::{Act, Handler, Rules};
use crate::support::{TestDir, run, steps};

const ALLOW: &str = r#"{"decision":"allow"}"#;
const BLOCK: &str = r#"{"decision":"block","status":403}"#;
const SLOW: &str = r#"{"decision":"block","status":429}"#;

fn answer(text: &str) -> Act {
    Act::Answer(text.to_owned())
}

/// A module with this handler for the phases of requests and of their answers.
fn module(dir: &TestDir, name: &str, rules: &[(&str, &str)], default: Act) -> PathBuf {
    let rules = rules
        .iter()
        .map(|(text, then)| ((*text).to_owned(), answer(then)));
    let handler = Handler {
        rules: rules.collect(),
        default,
    };
    let phases = ["request_headers", "request_body"];
    let all = phases.map(|phase| (phase, handler.clone()));
    dir.file(name, Rules(all.to_vec()).wat())
}

fn after(calls: u32, then: &str) -> Act {
    Act::After(calls, Box::new(answer(ALLOW)), Box::new(answer(then)))
}

fn head(id: &str, uri: &str, headers: &Value) -> Value {
    json!({"v": 1, "id": id, "phase": "request_headers", "input": {
        "method": "POST", "uri": uri, "client_ip": "192.0.2.1", "correlation_id": id, "headers": headers,
    }})
}

/// The chunks of a body, sent as a proxy sends them.
fn body(id: &str, chunks: &[&str], total: &Value) -> Vec<Value> {
    let mut sent = 0;
    let chunk = |(index, data): (usize, &&str)| {
        sent += data.len();
        json!({"v": 1, "id": id, "phase": "request_body", "input": {
            "correlation_id": id, "method": "POST", "uri": "/up", "client_ip": "192.0.2.1",
            "headers": {}, "chunk_index": index, "is_last": index + 1 == chunks.len(),
            "total_size": total, "bytes_received": sent, "data": data, "encoding": "utf8",
        }})
    };
    chunks.iter().enumerate().map(chunk).collect()
}

fn capture(dir: &TestDir, records: &[Value]) -> PathBuf {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    dir.file("capture.jsonl", lines.join("\n"))
}

/// The fixtures of a folder, in the capture's order.
fn fixtures(folder: &Path) -> Vec<(PathBuf, Value)> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let fixture = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, fixture)
    };
    paths.into_iter().map(read).collect()
}

/// Replays with a baseline and holds each fixture against both modules.
#[track_caller]
fn saved(
    dir: &TestDir,
    (old, new): (&Path, &Path),
    capture: &Path,
    more: &[&str],
) -> (Value, Vec<Value>) {
    let folder = dir.path("saved");
    let flags = [
        "--baseline",
        old.to_str().unwrap(),
        "--save-fixture",
        folder.to_str().unwrap(),
    ];
    let report = report(new, &[capture], &[&flags[..], more].concat());
    let wants_old = more.contains(&"old");
    let all = fixtures(&folder).into_iter().map(|(path, fixture)| {
        for (module, passes) in [(old, wants_old), (new, !wants_old)] {
            let done = run(module, &[&path], &[]).json();
            let verdict = if passes { "passed" } else { "failed" };
            assert_eq!(done["verdict"], verdict, "{module:?}: {fixture:#}\n{done}");
        }
        fixture
    });
    let all: Vec<Value> = all.collect();
    assert_eq!(report["fixtures_written"], all.len(), "{report}");
    (report, all)
}

#[test]
fn what_hangs_on_earlier_calls_has_them_in_its_fixture() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    let new = module(&dir, "new.wat", &[], after(2, SLOW));
    let records: Vec<Value> = (0..120)
        .map(|at| head(&format!("c{at}"), &format!("/{at}"), &json!({})))
        .collect();
    let capture = capture(&dir, &records);
    for expect in ["new", "old"] {
        let (report, all) = saved(&dir, (&old, &new), &capture, &["--expect", expect]);
        let changed = &report["comparison"]["categories"]["decision"];
        assert_eq!(changed, all.len(), "{report}");
        assert!(all.len() > 20, "{report}");
        for fixture in &all {
            assert!(fixture["description"].to_string().contains("block 429"));
            let steps = fixture["steps"].as_array().unwrap();
            assert_eq!(steps.len(), 3, "{fixture:#}");
            let id = &steps[2]["input"]["correlation_id"];
            assert_eq!(id, &fixture["correlation_id"], "{fixture:#}");
            let decision = &steps[2]["expect"]["exact_response"]["decision"];
            assert_eq!(decision == "allow", expect == "old", "{fixture:#}");
        }
        let note = &report["comparison"]["groups"][0]["examples"][0]["notes"][0];
        assert!(
            note.as_str().unwrap().contains("earlier requests"),
            "{note}"
        );
    }
}

#[test]
fn what_cannot_be_shown_is_counted_and_said_in_every_format() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    // More calls than are looked back.
    let new = module(&dir, "new.wat", &[], after(20, SLOW));
    let records: Vec<Value> = (0..720)
        .map(|at| head(&format!("c{at}"), "/", &json!({})))
        .collect();
    let capture = capture(&dir, &records);
    let (report, all) = saved(&dir, (&old, &new), &capture, &["--minimize"]);
    let changed = &report["comparison"]["categories"]["decision"];
    assert!(changed.as_u64().unwrap() > 20 && all.is_empty(), "{report}");
    assert_eq!(&report["fixtures_left_out"]["earlier_calls"], changed);
    let example = &report["comparison"]["groups"][0]["examples"][0];
    assert_eq!(example["no_fixture"], "earlier_calls", "{example}");
    let notes = example["notes"].to_string();
    for words in [
        "On a new instance the module answers differently.",
        "It depends on more than 16 of them, or they cost too much to try.",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    assert_eq!(example["fixture"], Value::Null, "{example}");
    assert_eq!(example["minimized"], Value::Null, "{example}");
    let formats = ["human", "jsonl", "junit", "markdown", "html", "github"];
    let path = |format: &str| dir.path(&format!("report.{format}"));
    let reports: Vec<String> = formats
        .iter()
        .flat_map(|format| {
            [
                "--report".to_owned(),
                format!("{format}={}", path(format).display()),
            ]
        })
        .collect();
    let folder = dir.path("again");
    let flags = [
        "--baseline",
        old.to_str().unwrap(),
        "--save-fixture",
        folder.to_str().unwrap(),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .chain(reports.iter().map(String::as_str))
        .collect();
    replay(&new, &[&capture], &flags).assert_code(1);
    for format in formats {
        let text = std::fs::read_to_string(path(format)).unwrap();
        let words = if format == "jsonl" {
            "\"no_fixture\":\"earlier_calls\""
        } else {
            "fixtures not written: the answer depends on earlier requests"
        };
        assert!(text.contains(words), "{format}: {text}");
    }
}

/// One exchange goes to one instance, in a fixture as in a replay.
#[test]
fn calls_of_one_exchange_are_made_on_one_instance() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    let new = module(&dir, "new.wat", &[], after(1, SLOW));
    let records = [
        vec![head("a", "/up", &json!({}))],
        body("a", &["x"], &Value::Null),
    ]
    .concat();
    let capture = capture(&dir, &records);
    let (report, all) = saved(&dir, (&old, &new), &capture, &["--minimize"]);
    assert_eq!(all.len(), 1, "{report}");
    assert_eq!(all[0]["steps"].as_array().unwrap().len(), 2, "{}", all[0]);
}

/// The other module goes on behind the step at which the fixture's ends.
#[test]
fn what_the_other_module_ends_with_is_in_the_fixture() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[("evil", BLOCK)], answer(ALLOW));
    let new = module(
        &dir,
        "new.wat",
        &[("/up", SLOW), ("evil", BLOCK)],
        answer(ALLOW),
    );
    let records = [
        vec![head("a", "/up", &json!({}))],
        body("a", &["evil"], &json!(4)),
    ]
    .concat();
    let capture = capture(&dir, &records);
    let (report, all) = saved(&dir, (&old, &new), &capture, &[]);
    assert_eq!(all.len(), 1, "{report}");
    let title = all[0]["description"].as_str().unwrap();
    assert!(title.starts_with("block 403 → block 429."), "{title}");
    let played = run(&old, &[&fixtures(&dir.path("saved"))[0].0], &[]).json();
    let last = steps(&played).pop().unwrap();
    assert_eq!(last.status(), Some(403), "{played}");
}

/// Another status, field or fault is another change.
#[test]
fn the_smallest_request_shows_the_same_change() {
    let mistyped = |key: &str| format!(r#"{{"decision":"allow","{key}":1}}"#);
    let (tags, rules) = (mistyped("tags"), mistyped("rule_ids"));
    let added =
        |side: &str| format!(r#"{{"decision":"allow","add_{side}_headers":{{"x-y":"1"}}}}"#);
    let (request, response) = (added("request"), added("response"));
    for (first, then) in [(SLOW, BLOCK), (&*tags, &*rules), (&*request, &*response)] {
        let dir = TestDir::new();
        let old = module(&dir, "old.wat", &[], answer(ALLOW));
        // Without the one header it is the other change.
        let new = module(
            &dir,
            "new.wat",
            &[("\"x-a\":", first), ("/up", then)],
            answer(ALLOW),
        );
        let headers = json!({"x-a": "1", "x-b": "2"});
        let capture = capture(&dir, &[head("a", "/up/load?q=1", &headers)]);
        let flags = ["--minimize", "--fail-on", "any"];
        let (report, all) = saved(&dir, (&old, &new), &capture, &flags);
        assert_eq!(all.len(), 1, "{report}");
        let input = &all[0]["steps"][0]["input"];
        assert_eq!(input["headers"], json!({"x-a": "1"}), "{}", all[0]);
        assert_eq!(input["uri"], "/", "{}", all[0]);
    }
}

/// What chunks say of each other stays true.
#[test]
fn chunks_of_the_smallest_request_fit_each_other() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    let new = module(&dir, "new.wat", &[("evil", BLOCK)], answer(ALLOW));
    let chunks = ["first of them", "some evil words", "the last"];
    let size: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let headers = json!({"content-length": size.to_string(), "x-a": "1"});
    let mut records = vec![head("a", "/up", &headers)];
    let mut body = body("a", &chunks, &json!(size));
    for record in &mut body {
        record["input"]["headers"] = headers.clone();
    }
    records.extend(body);
    let capture = capture(&dir, &records);
    let (report, all) = saved(&dir, (&old, &new), &capture, &["--minimize"]);
    assert_eq!(all.len(), 1, "{report}");
    let steps = all[0]["steps"].as_array().unwrap();
    let input = &steps.last().unwrap()["input"];
    assert_eq!(input["data"], "evil", "{}", all[0]);
    assert_eq!(
        (
            &input["chunk_index"],
            &input["bytes_received"],
            &input["total_size"]
        ),
        (&json!(steps.len() - 1), &json!(4), &json!(4)),
        "{}",
        all[0]
    );
    assert!(
        !all[0].to_string().contains(&size.to_string()),
        "{}",
        all[0]
    );
}

/// A size that nobody knew is not the chunk's.
#[test]
fn an_unknown_size_stays_unknown() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    let new = module(
        &dir,
        "new.wat",
        &[("\"total_size\":null", BLOCK)],
        answer(ALLOW),
    );
    let records = [
        vec![head("a", "/up", &json!({}))],
        body("a", &["x"], &Value::Null),
        vec![head("b", "/up", &json!({}))],
        body("b", &["x"], &json!(1)),
    ];
    let capture = capture(&dir, &records.concat());
    let (report, all) = saved(&dir, (&old, &new), &capture, &[]);
    assert_eq!(all.len(), 1, "{report}");
    assert_eq!(all[0]["name"], "a", "{report}");
}

#[test]
fn what_hangs_on_a_secret_is_said_and_saved_with_it_alone() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[], answer(ALLOW));
    let new = module(
        &dir,
        "new.wat",
        &[("admin-of-all-things", BLOCK)],
        answer(ALLOW),
    );
    let headers = json!({"authorization": "Bearer admin-of-all-things"});
    let capture = capture(&dir, &[head("a", "/", &headers)]);
    let (report, all) = saved(&dir, (&old, &new), &capture, &["--minimize"]);
    assert!(all.is_empty(), "{all:?}");
    assert_eq!(report["fixtures_left_out"], json!({"redaction": 1}));
    let example = &report["comparison"]["groups"][0]["examples"][0];
    let note = example["notes"][0].as_str().unwrap();
    assert!(
        note.contains("headers.authorization changes the answer"),
        "{note}"
    );
    assert_eq!(example["minimized"], Value::Null, "{example}");
    let (report, all) = saved(&dir, (&old, &new), &capture, &["--keep-secrets"]);
    assert_eq!(all.len(), 1, "{report}");
}

/// Without a baseline the old answer is the one that was recorded.
#[test]
fn a_recorded_answer_is_expected_and_missed_now() {
    let dir = TestDir::new();
    let old = module(&dir, "old.wat", &[("/up", BLOCK)], answer(ALLOW));
    let new = module(&dir, "new.wat", &[("/b", SLOW)], answer(ALLOW));
    let records = ["/up", "/b", "/"].map(|uri| head(uri, uri, &json!({})));
    let recorded = dir.path("recorded.jsonl");
    let first = capture(&dir, &records);
    report(&old, &[&first], &["--save", recorded.to_str().unwrap()]);
    let folder = dir.path("drift");
    let flags = ["--save-fixture", folder.to_str().unwrap(), "--expect"];
    let with = |capture: &Path, expect: &str| {
        let flags = [&flags[..], &[expect, "--minimize"]].concat();
        report(&new, &[capture], &flags)
    };
    for (expect, verdicts) in [("old", ["passed", "failed"]), ("new", ["failed", "passed"])] {
        let drift = with(&recorded, expect);
        assert_eq!(drift["drift"]["categories"]["decision"], 2, "{drift}");
        let all = fixtures(&folder);
        assert_eq!(all.len(), 2, "{drift}");
        for (path, fixture) in all {
            for (module, verdict) in [&old, &new].into_iter().zip(verdicts) {
                let done = run(module, &[&path], &[]).json();
                assert_eq!(
                    done["verdict"], verdict,
                    "{expect}, {module:?}: {fixture:#}"
                );
            }
        }
    }
    // What is not refused now cannot be looked for in anything smaller.
    let examples = with(&recorded, "new")["drift"]["groups"].to_string();
    assert!(examples.contains("cannot be asked again"), "{examples}");
    // Where nothing was recorded there is no old answer.
    let trap = module(&dir, "trap.wat", &[], Act::Trap);
    let flags = [&flags[..], &["old"]].concat();
    let faulted = report(&trap, &[&first], &flags);
    assert_eq!(faulted["fixtures_left_out"], json!({"not_recorded": 3}));
}

/// The context that the host went on with is another than the first hook left.
#[test]
fn a_change_of_the_second_hook_has_a_fixture_of_its_own() {
    let dir = TestDir::new();
    let ok = r#"{"ok":true}"#;
    let hooks = |name: &str, then: &str| {
        let handler = |then: &str| Handler {
            rules: vec![("\"n\":2".to_owned(), answer(then))],
            default: answer(ok),
        };
        let rules = Rules(vec![
            ("before_hook", handler(ok)),
            ("after_hook", handler(then)),
        ]);
        dir.file(name, rules.wat().replace("\"on_", "\""))
    };
    let old = hooks("old.wat", ok);
    let new = hooks("new.wat", r#"{"ok":false,"error":"no"}"#);
    let context = |n: u32, data: Value| json!({"input": {"n": n}, "data": data, "user": null, "headers": {}, "tenant_id": null});
    let call =
        |phase: &str, input: Value| json!({"v": 1, "id": "a", "phase": phase, "input": input});
    let records = [
        call("before_hook", context(1, Value::Null)),
        call("after_hook", context(2, json!({"id": 1}))),
    ];
    let capture = capture(&dir, &records);
    let (report, all) = saved(&dir, (&old, &new), &capture, &[]);
    assert_eq!(all.len(), 1, "{report}");
    assert_eq!(all[0]["hook"], "after_hook", "{}", all[0]);
}

/// Expectations that the other module would meet too are none.
#[test]
fn a_fixture_that_cannot_fail_is_not_written() {
    let dir = TestDir::new();
    let hook = |name: &str, then: &str| {
        let handler = Handler {
            rules: Vec::new(),
            default: answer(then),
        };
        let rules = Rules(vec![("before_hook", handler)]);
        dir.file(name, rules.wat().replace("\"on_", "\""))
    };
    let old = hook("old.wat", r#"{"ok":true}"#);
    let new = hook("new.wat", r#"{"ok":true,"details":[1]}"#);
    let input = json!({"input": {}, "data": null, "user": null, "headers": {}, "tenant_id": null});
    let call = json!({"v": 1, "id": "a", "phase": "before_hook", "input": input});
    let capture = capture(&dir, &[call]);
    for expect in ["old", "new"] {
        let flags = ["--expect", expect, "--fail-on", "any"];
        let (report, all) = saved(&dir, (&old, &new), &capture, &flags);
        let left_out = report["fixtures_left_out"]["form"].as_u64();
        assert_eq!(all.len() as u64 + left_out.unwrap_or(0), 1, "{report}");
        if let Some((path, _)) = fixtures(&dir.path("saved")).first() {
            std::fs::remove_file(path).unwrap();
        }
    }
}
