//! A fixture says when its calls are made.

use serde_json::{Value, json};

use crate::support::clock::{NEW_YEAR, Refuses};
use crate::support::{TestDir, run, steps};

const BEFORE: &str = "2025-12-31T23:59:59.999999999Z";
const AFTER: &str = "2026-01-01T00:00:00Z";

fn event(event: &str, now: Option<&str>) -> Value {
    let input = match event {
        "request_headers" => json!({"method": "GET", "uri": "/"}),
        "response_headers" => json!({"status": 200}),
        _ => json!({"data": "x"}),
    };
    let mut step = json!({"event": event, "input": input});
    if let Some(now) = now {
        step["now"] = now.into();
    }
    step
}

fn decisions(fixture: &Value, flags: &[&str]) -> Vec<String> {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR).wat());
    let done = run(&module, &[&dir.file("f.json", fixture.to_string())], flags);
    let report = done.json();
    let steps = report["fixtures"][0]["steps"].as_array().unwrap();
    let decision = |step: &Value| match &step["response"]["decision"] {
        Value::String(text) => text.clone(),
        Value::Null => "not reached".to_owned(),
        other => other.as_object().unwrap().keys().next().unwrap().clone(),
    };
    steps.iter().map(decision).collect()
}

#[test]
fn a_call_is_made_at_the_time_of_its_step_or_of_the_step_before() {
    let (head, body) = ("request_headers", "request_body");
    let steps = |now: Option<&str>, steps: &[Value]| {
        let mut fixture = json!({"steps": steps});
        if let Some(now) = now {
            fixture["now"] = now.into();
        }
        fixture
    };
    let (allow, block) = ("allow", "block");
    for (fixture, wanted) in [
        (event(head, None), &[allow][..]),
        (event(head, Some(BEFORE)), &[allow]),
        (event(head, Some(AFTER)), &[block]),
        (event(head, Some("2026-01-01T02:00:00+02:00")), &[block]),
        (event(head, Some("2026-01-01T02:00:00+02:01")), &[allow]),
        (steps(Some(AFTER), &[event(head, None)]), &[block]),
        (
            steps(Some(AFTER), &[event(head, Some(BEFORE)), event(body, None)]),
            &[allow, allow],
        ),
        (
            steps(
                Some(BEFORE),
                &[
                    event(head, None),
                    event(body, Some(AFTER)),
                    event("response_headers", None),
                ],
            ),
            &[allow, block, "not reached"],
        ),
        (
            steps(
                None,
                &[
                    event(head, None),
                    event(body, None),
                    event("response_headers", Some(AFTER)),
                ],
            ),
            &[allow, allow, block],
        ),
    ] {
        assert_eq!(decisions(&fixture, &[]), wanted, "{fixture}");
        assert_eq!(decisions(&fixture, &["--isolation", "fresh"]), wanted);
        assert_eq!(decisions(&fixture, &["--wasi", "real"])[0], block);
    }
}

#[test]
fn a_time_that_is_none_is_an_error_with_its_place() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR).wat());
    for (now, said) in [
        (
            "\"yesterday\"",
            "expected a time from 1970 to 2262 such as \"2026-03-01T09:30:00Z\" (RFC 3339), found \"yesterday\"",
        ),
        ("\"2026-01-01\"", "found \"2026-01-01\""),
        ("\"2300-01-01T00:00:00Z\"", "1970 to 2262"),
        ("1767225600", "expected a string"),
        ("null", "expected a string"),
    ] {
        for (before, behind) in [
            (
                "{\n  \"event\": \"request_headers\",",
                "\"input\": {\"method\": \"GET\", \"uri\": \"/\"}}",
            ),
            ("{\n  \"steps\": [],", "\"name\": \"x\"}"),
            ("{\n  \"context\": {},", "\"name\": \"x\"}"),
        ] {
            let text = format!("{before}\n  \"now\": {now},\n{behind}");
            let done = run(&module, &[&dir.file("f.json", text)], &[]);
            done.assert_code(3);
            let error = &done.json()["fixtures"][0]["error"];
            assert_eq!(error["line"], 3, "{error}");
            assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        }
    }
    // A bare request has no time: it is what a proxy sends.
    let bare = dir.file(
        "b.json",
        r#"{"method":"GET","uri":"/","now":"2026-01-01T00:00:00Z"}"#,
    );
    let done = run(&module, &[&bare], &[]);
    done.assert_code(3);
    let error = done.json()["fixtures"][0]["error"]["message"].to_string();
    assert!(
        error.contains("unknown key") && error.contains("now"),
        "{error}"
    );
}

#[test]
fn an_update_keeps_the_time_and_is_made_at_it() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR).wat());
    let text = "{\n  \"event\": \"request_headers\",\n  \"now\": \"2026-01-01T00:00:00Z\",\n  \"input\": {\"method\": \"GET\", \"uri\": \"/\"},\n  \"expect\": {\"decision\": \"allow\"}\n}\n";
    let fixture = dir.file("f.json", text);
    run(&module, &[&fixture], &["--update"]).assert_code(0);
    let after = std::fs::read_to_string(&fixture).unwrap();
    assert_eq!(after, text.replace("allow", "block"));
}

#[test]
fn hooks_have_times_where_they_have_a_clock() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR).hook_wat());
    let context = json!({"input": {}});
    for (fixture, wanted) in [
        (json!({"context": context, "now": BEFORE}), &[true][..]),
        (json!({"context": context, "now": AFTER}), &[false]),
        (json!({"context": context}), &[true]),
        (
            json!({"context": context, "now": BEFORE, "before": {}, "after": {"data": 1}}),
            &[true, true],
        ),
        (
            json!({"context": context, "before": {"now": BEFORE}, "after": {"data": 1, "now": AFTER}}),
            &[true, false],
        ),
        (
            json!({"context": context, "now": AFTER, "before": {"now": BEFORE}, "after": {"data": 1}}),
            &[true, true],
        ),
    ] {
        let file = dir.file("f.json", fixture.to_string());
        let report = run(&module, &[&file], &["--wasi", "fixed"]).json();
        let results = report["fixtures"][0]["steps"].as_array().unwrap().iter();
        let results: Vec<bool> = results
            .map(|step| step["hook"]["result"]["ok"] == true)
            .collect();
        assert_eq!(results, wanted, "{fixture} {report}");
    }
}

/// What another spelling of header names would change is looked for at the same time.
#[test]
fn no_spelling_is_blamed_for_the_time() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::Before(NEW_YEAR).wat());
    let fixture = json!({"event": "request_headers", "now": AFTER,
        "input": {"method": "GET", "uri": "/", "headers": {"User-Agent": "x"}}});
    let done = run(&module, &[&dir.file("f.json", fixture.to_string())], &[]);
    let report = done.json();
    assert_eq!(steps(&report)[0].decision(), "allow");
    assert_eq!(
        report["fixtures"][0]["steps"][0]["hints"],
        json!([]),
        "{report}"
    );
}
