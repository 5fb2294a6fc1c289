//! A guest is told the time of the record that it is asked about, or of `--at`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{record, replay, report, rows};
use crate::support::clock::{NEW_YEAR, Refuses};
use crate::support::{TestDir, capture as shipped_capture, run, steps};

const RULES: [Refuses; 3] = [
    Refuses::From(NEW_YEAR + 3_600),
    Refuses::Before(NEW_YEAR + 3_600),
    Refuses::OutsideOfficeHours,
];

/// A request at so many seconds after new year, with what was decided then.
fn line(id: &str, after: u64, decision: Option<&str>) -> String {
    let output = decision.map(|decision| json!({"decision": decision}));
    timed(
        id,
        "request_headers",
        Some(after),
        &output.unwrap_or_default(),
    )
}

fn timed(id: &str, event: &str, after: Option<u64>, output: &Value) -> String {
    let step = json!({"event": event, "input": {}, "output": output});
    let mut line: Value = serde_json::from_str(&record(id, &step)).unwrap();
    line["ts"] = after.map_or(Value::Null, |after| Value::from(text(after)));
    line.to_string()
}

/// As RFC 3339.
fn text(after: u64) -> String {
    let (hours, rest) = (after / 3_600, after % 3_600);
    let (day, hour) = (1 + hours / 24, hours % 24);
    format!(
        "2026-01-{day:02}T{hour:02}:{:02}:{:02}.000000001Z",
        rest / 60,
        rest % 60
    )
}

fn decisions(module: &Path, capture: &Path, flags: &[&str]) -> Vec<String> {
    let rows = rows(module, &[capture], flags);
    let decision = |row: &Value| row["module"]["decision"].as_str().unwrap().to_owned();
    rows.iter().map(decision).collect()
}

fn expected(rule: Refuses, after: u64) -> &'static str {
    if rule.at(NEW_YEAR + after) {
        "block 403"
    } else {
        "allow"
    }
}

#[test]
fn each_record_is_decided_at_its_own_time() {
    let dir = TestDir::new();
    let times = [
        0,
        3_599,
        3_600,
        9 * 3_600,
        17 * 3_600 - 1,
        17 * 3_600,
        40 * 3_600,
    ];
    for (number, rule) in RULES.into_iter().enumerate() {
        let module = dir.file(&format!("{number}.wat"), rule.wat());
        let lines: Vec<String> = times
            .iter()
            .enumerate()
            .map(|(at, after)| line(&format!("c{at}"), *after, None))
            .collect();
        let capture = dir.file("capture.jsonl", lines.join("\n"));
        let wanted: Vec<&str> = times.iter().map(|after| expected(rule, *after)).collect();
        assert!(wanted.contains(&"allow") && wanted.contains(&"block 403"));
        assert_eq!(decisions(&module, &capture, &[]), wanted, "{rule:?}");
        // Nor where header names are spelled otherwise, which reads the bytes anew.
        let canonical = ["--header-names", "canonical"];
        assert_eq!(decisions(&module, &capture, &canonical), wanted);
        for after in [0, 10 * 3_600] {
            let at = text(after);
            let all = decisions(&module, &capture, &["--at", &at]);
            assert_eq!(
                all,
                vec![expected(rule, after); times.len()],
                "{rule:?} {at}"
            );
        }
        let real = decisions(&module, &capture, &["--wasi", "real"]);
        assert!(real.windows(2).all(|two| two[0] == two[1]), "{real:?}");
    }
}

/// A streamed tap has no times, nor has a test file; all others do.
#[test]
fn every_format_that_has_times_tells_them() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(1_704_067_200).wat());
    for (name, without_time) in [
        ("chromium.har", None),
        ("envoy-tap.json", Some(7)),
        ("goreplay.gor", None),
        ("mitmproxy.har", None),
        ("nginx-access.log", None),
        ("nginx-json.log", None),
        ("suite.yaml", Some(4)),
    ] {
        let report = report(
            &module,
            &[&shipped_capture(name)],
            &["--at", "2023-06-01T00:00:00Z"],
        );
        let allowed = report["outcomes"]["decisions"]["allow"].as_u64();
        assert_eq!(
            allowed,
            report["records"]["transactions"].as_u64(),
            "{name}"
        );
        let report = super::report(&module, &[&shipped_capture(name)], &[]);
        let remark = report["remarks"]["no_time"].as_u64();
        assert_eq!(remark, without_time, "{name}");
    }
}

#[test]
fn steps_have_their_own_times_and_those_without_keep_the_last() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR + 10).wat());
    let transaction = |id: &str, times: [Option<u64>; 3]| {
        let events = ["request_headers", "request_body", "response_headers"];
        let lines = events.iter().zip(times);
        let lines = lines.map(|(event, after)| timed(id, event, after, &Value::Null));
        lines.collect::<Vec<_>>().join("\n")
    };
    let all = [
        transaction("a", [Some(1), Some(2), Some(3)]),
        transaction("b", [Some(1), None, Some(10)]),
        transaction("c", [Some(9), None, None]),
        transaction("d", [Some(10), Some(1), Some(1)]),
        // The fixed time is before all of them.
        transaction("e", [None, None, Some(10)]),
        transaction("f", [None, None, None]),
    ];
    let capture = dir.file("capture.jsonl", all.join("\n"));
    let seen: Vec<(String, u64)> = rows(&module, &[&capture], &[])
        .iter()
        .map(|row| {
            let decision = row["module"]["decision"].as_str().unwrap();
            (decision.to_owned(), row["record"].as_u64().unwrap())
        })
        .collect();
    let decisions: Vec<&str> = seen.iter().map(|(decision, _)| decision.as_str()).collect();
    let (allow, block) = ("allow", "block 403");
    assert_eq!(decisions, [allow, block, allow, block, block, allow]);
    assert_eq!(report(&module, &[&capture], &[])["remarks"]["no_time"], 2);
    // Of a module without a clock nothing is said.
    let other = crate::support::guests::answering(&dir, "o.wat", r#"{"decision":"allow"}"#);
    let other = report(&other, &[&capture], &[]);
    assert_eq!(other["remarks"]["no_time"], Value::Null);
}

/// A fixture of each record, with the smallest one.
fn saved(
    module: &Path,
    capture: &Path,
    (dir, flags): (&TestDir, &[&str]),
) -> Vec<(PathBuf, Value)> {
    let folder = dir.path("saved");
    let _ = std::fs::remove_dir_all(&folder);
    let path = folder.to_str().unwrap();
    let report = report(
        module,
        &[capture],
        &[&["--save-fixture", path], flags].concat(),
    );
    assert_eq!(report["fixtures_left_out"], Value::Null, "{report}");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read(&path).unwrap();
            (path, serde_json::from_slice(&text).unwrap())
        })
        .collect()
}

#[test]
fn an_expiring_rule_shows_itself_and_its_fixtures_say_when() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR + 3_600).wat());
    let lines: Vec<String> = (0..4)
        .map(|at| line(&format!("c{at}"), at * 600, Some("allow")))
        .collect();
    let capture = dir.file("capture.jsonl", lines.join("\n"));
    let now = report(&module, &[&capture], &[]);
    assert_eq!(now["drift"]["categories"]["unchanged"], 4, "{now}");
    let at = "2026-01-02T00:00:00Z";
    let flags = ["--at", at, "--minimize"];
    let then = report(&module, &[&capture], &flags);
    assert_eq!(then["verdict"], "failed");
    assert_eq!(then["drift"]["categories"]["decision"], 4, "{then}");
    assert_eq!(then["settings"]["at"], at);
    assert!(!then.to_string().contains("not minimised"), "{then}");
    for (path, fixture) in saved(&module, &capture, (&dir, &flags)) {
        assert_eq!(fixture["steps"][0]["now"], at, "{fixture}");
        let done = run(&module, &[&path], &[]);
        done.assert_code(0);
        assert_eq!(steps(&done.json())[0].decision(), "block");
    }
    // Without it each keeps its own.
    let own = saved(&module, &capture, (&dir, &["--fixtures", "all"]));
    assert_eq!(
        own[2].1["steps"][0]["now"],
        "2026-01-01T00:20:00.000000001Z"
    );
    assert_eq!(own.len(), 4);
    for (path, _) in own {
        run(&module, &[&path], &[]).assert_code(0);
    }
}

/// What differs between two versions at the time of the record is also tried at that
/// time, by the search for the smallest request as by `run`.
#[test]
fn two_versions_are_told_the_same_time() {
    let dir = TestDir::new();
    let old = dir.file("old.wat", Refuses::From(NEW_YEAR + 7_200).wat());
    let new = dir.file("new.wat", Refuses::From(NEW_YEAR + 3_600).wat());
    let step = |event: &str, input: Value| json!({"event": event, "input": input});
    let head = step(
        "request_headers",
        json!({"method": "POST", "uri": "/a/b?c=d", "headers": {"x": "y"}}),
    );
    let body = step("request_body", json!({"data": "some data"}));
    let mut lines = Vec::new();
    for (id, times) in [("a", [0, 5_000]), ("b", [5_000, 5_001]), ("c", [1, 2])] {
        for (step, after) in [&head, &body].into_iter().zip(times) {
            let mut line: Value = serde_json::from_str(&record(id, step)).unwrap();
            line["ts"] = text(after).into();
            lines.push(line.to_string());
        }
    }
    let capture = dir.file("capture.jsonl", lines.join("\n"));
    let baseline = old.to_str().unwrap();
    let flags = ["--baseline", baseline, "--minimize"];
    let all = report(&new, &[&capture], &flags);
    assert_eq!(all["comparison"]["categories"]["decision"], 2, "{all}");
    assert!(!all.to_string().contains("not minimised"), "{all}");
    let found = saved(&new, &capture, (&dir, &flags));
    assert_eq!(found.len(), 2);
    for (path, fixture) in &found {
        // One call is enough, if it is the one in that hour.
        assert_eq!(fixture["steps"].as_array().unwrap().len(), 1, "{fixture}");
        run(&new, &[path], &[]).assert_code(0);
        run(&old, &[path], &[]).assert_code(1);
    }
    assert_eq!(found[0].1["steps"][0]["event"], "request_body");
}

#[test]
fn hooks_are_told_the_time_where_they_have_a_clock() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::From(NEW_YEAR + 10).hook_wat());
    let call = |id: &str, after: u64| {
        json!({"v": 1, "id": id, "phase": "before_hook", "ts": text(after), "input": {
            "input": {"a": 1}, "data": null, "user": null, "headers": {}, "tenant_id": null,
        }})
        .to_string()
    };
    let capture = dir.file("capture.jsonl", [call("a", 9), call("b", 10)].join("\n"));
    let fixed = ["--wasi", "fixed"];
    assert_eq!(decisions(&module, &capture, &fixed), ["ok", "refused: no"]);
    for (path, fixture) in saved(
        &module,
        &capture,
        (&dir, &["--wasi", "fixed", "--fixtures", "all"]),
    ) {
        assert!(fixture["now"].is_string(), "{fixture}");
        run(&module, &[&path], &fixed).assert_code(0);
    }
    // Nobody told it a time, as it has no clock.
    let plain = dir.file(
        "p.wat",
        crate::support::guests::Answers::of([r#"{"ok":true}"#]).hook_wat(),
    );
    let done = replay(&plain, &[&capture], &["--at", "2026-01-01T00:00:00Z"]);
    done.assert_code(2);
    assert!(done.stderr.contains("--wasi fixed"), "{}", done.stderr);
}

#[test]
fn a_time_that_no_guest_is_told_is_refused() {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Refuses::OutsideOfficeHours.wat());
    let capture = dir.file("capture.jsonl", line("a", 0, None));
    let at = "2026-01-01T00:00:00Z";
    for (flags, said) in [
        (&["--at", at, "--wasi", "real"][..], "--wasi real"),
        (&["--at", at, "--wasi", "none"], "--wasi none"),
        (&["--at", at, "--speed", "1x"], "--speed"),
        (&["--at", "tomorrow"], "RFC 3339"),
        (&["--at", "1969-12-31T23:59:59Z"], "1970 to 2262"),
        (&["--at", ""], "RFC 3339"),
    ] {
        let done = replay(&module, &[&capture], flags);
        done.assert_code(2);
        assert!(done.stderr.contains(said), "{flags:?}: {}", done.stderr);
        assert!(done.stdout.is_empty());
    }
    let allow = crate::support::guests::answering(&dir, "a.wat", r#"{"decision":"allow"}"#);
    let done = replay(&allow, &[&capture], &["--at", at]);
    done.assert_code(0);
    assert!(done.stderr.contains("imports no clock"), "{}", done.stderr);
}
