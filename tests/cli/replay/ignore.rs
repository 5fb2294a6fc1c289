//! `--ignore`: parts of answers that are not compared, and what that never hides.

use serde_json::{Value, json};

use super::{Versions, asks_for, record, recorded, replay, report};

const TAGS: [(&str, &str); 1] = [(
    r#"{"decision":"allow","tags":["a","b","c"],"rule_ids":["1"]}"#,
    r#"{"decision":"allow","tags":["x","y","c"],"rule_ids":["1"]}"#,
)];

/// The exit code with these parts ignored, where any difference fails.
fn code(versions: &Versions, lines: &[String], pointers: &[&str]) -> Option<i32> {
    let capture = versions.capture(lines);
    let mut flags = vec!["--fail-on", "any"];
    flags.extend(versions.beside());
    flags.extend(pointers.iter().flat_map(|pointer| ["--ignore", pointer]));
    let done = replay(&versions.new, &[&capture], &flags);
    done.assert_calm();
    done.code
}

#[test]
fn an_element_of_a_list_moves_no_other() {
    let versions = Versions::of(&TAGS);
    let lines = [asks_for("a", 0, &Value::Null)];
    for (pointers, expected) in [
        (&["/audit/tags/0", "/audit/tags/1"][..], 0),
        (&["/audit/tags/1", "/audit/tags/0"], 0),
        (&["/audit/tags/0", "/audit/tags/2"], 1),
        (&["/audit/tags/1", "/audit/tags/2"], 1),
        (&["/audit/tags/0"], 1),
        (&["/audit/tags"], 0),
        (&["/audit"], 0),
        (&["/audit", "/audit/tags/0"], 0),
        (&["/audit/tags/00", "/audit/tags/1"], 1),
    ] {
        assert_eq!(
            code(&versions, &lines, pointers),
            Some(expected),
            "{pointers:?}"
        );
    }
}

#[test]
fn no_ignored_part_hides_a_fault() {
    let allow = r#"{"decision":"allow"}"#;
    let versions = Versions::of(&[(allow, "")]);
    let capture = versions.capture(&[
        asks_for("a", 0, &Value::Null),
        asks_for("b", 0, &recorded(&json!("allow"))),
    ]);
    let beside = versions.beside();
    for fail_open in [&["--fail-open"][..], &[]] {
        for ignored in [
            &["/audit"][..],
            &["/audit/tags", "/audit/reason_codes"],
            &["/decision", "/audit"],
            &["1/decision", "1/audit"],
        ] {
            let ignored = ignored.iter().flat_map(|pointer| ["--ignore", *pointer]);
            let flags: Vec<&str> = fail_open.iter().copied().chain(ignored).collect();
            for (baseline, compared) in [(&beside[..], 2), (&[], 1)] {
                let flags = [&flags[..], baseline].concat();
                let report = report(&versions.new, &[&capture], &flags);
                assert_eq!(report["verdict"], "failed", "{flags:?}");
                let side = if baseline.is_empty() {
                    "drift"
                } else {
                    "comparison"
                };
                let comparison = &report[side];
                assert_eq!(
                    comparison["categories"]["faulted"], compared,
                    "{flags:?} {report:#}"
                );
                assert!(
                    comparison["groups"][0]["to"]["fault"].is_string(),
                    "{report:#}"
                );
            }
        }
    }
}

#[test]
fn a_part_of_one_answer_is_given_back_as_it_was_printed() {
    let versions = Versions::of(&[
        (
            r#"{"decision":"allow","tags":["a"]}"#,
            r#"{"decision":"allow","tags":["b"]}"#,
        ),
        (r#"{"decision":"allow"}"#, r#"{"decision":"allow"}"#),
    ]);
    let second = json!({"event": "response_headers", "input": {}});
    // The request asks for the second answer, the response for the first.
    let lines = [asks_for("0000", 1, &Value::Null), record("0000", &second)];
    let capture = versions.capture(&lines);
    let report = report(&versions.new, &[&capture], &versions.beside());
    let fields = &report["comparison"]["groups"][0]["fields"];
    assert_eq!(fields, &json!(["2/audit/tags"]), "{report:#}");
    for (pointer, expected) in [
        ("2/audit/tags", 0),
        ("1/audit/tags", 1),
        ("3/audit/tags", 1),
    ] {
        assert_eq!(
            code(&versions, &lines, &[pointer]),
            Some(expected),
            "{pointer}"
        );
    }
    for bad in ["audit", "0/audit", "/a~2", "steps"] {
        assert_eq!(code(&versions, &lines, &[bad]), Some(2), "{bad}");
    }
}

#[test]
fn a_part_that_no_answer_has_is_named() {
    let versions = Versions::of(&TAGS);
    let capture = versions.capture(&[asks_for("a", 0, &Value::Null)]);
    let (html, junit) = (versions.dir.path("r.html"), versions.dir.path("r.xml"));
    let targets = [
        format!("html={}", html.display()),
        format!("junit={}", junit.display()),
    ];
    let mut flags = vec![
        "--ignore",
        "/audit/tags",
        "--ignore",
        "/audit/tagz",
        "--ignore",
        "2/audit",
    ];
    flags.extend(versions.beside());
    flags.extend(
        targets
            .iter()
            .flat_map(|target| ["--report", target.as_str()]),
    );
    let said = "no answer has this part";
    let json = report(&versions.new, &[&capture], &flags);
    assert_eq!(
        json["ignored"],
        json!({"/audit/tags": true, "/audit/tagz": false, "2/audit": false})
    );
    for format in ["human", "markdown", "github"] {
        let done = replay(
            &versions.new,
            &[&capture],
            &[&flags[..], &["-o", format]].concat(),
        );
        done.assert_code(0);
        assert_eq!(
            done.text().matches(said).count(),
            2,
            "{format}: {}",
            done.text()
        );
    }
    for file in [html, junit] {
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(text.matches(said).count(), 2, "{text}");
    }
    // Equal answers are looked at too, and those of the time.
    let capture = versions.capture(&[asks_for("a", 0, &recorded(&json!("allow")))]);
    let flags = [
        "--ignore",
        "/audit/tags",
        "--ignore",
        "/routing_metadata",
        "--ignore",
        "/nothing",
    ];
    let json = report(&versions.new, &[&capture], &flags);
    assert_eq!(
        json["ignored"],
        json!({"/audit/tags": true, "/nothing": false, "/routing_metadata": true})
    );
}
