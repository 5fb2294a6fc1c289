//! The two invariants of the contract, over answers that are wrong beside a
//! decision: fail-closed never allows because something went wrong, and a
//! refusal is never softened into an allow.

use std::collections::BTreeSet;

use crate::support::guests::Answers;
use crate::support::{MODES, assert_faulty};

/// The four decisions that refuse, each with what it cannot do without.
const REFUSALS: [&str; 4] = [
    r#""decision":"block""#,
    r#""decision":"deny""#,
    r#""decision":"redirect","body":"/login""#,
    r#""decision":"challenge","challenge_type":"js""#,
];

/// For each known key, values of every wrong type.
fn mistyped() -> Vec<(&'static str, &'static str)> {
    let strings = ["\"x\"", "1", "true", "{}", "[1]", "[\"a\",null]", "[[]]"];
    let map = [
        "\"x\"",
        "1",
        "true",
        "[]",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":[\"b\"]}",
    ];
    let mut all = Vec::new();
    for key in [
        "tags",
        "rule_ids",
        "reason_codes",
        "remove_request_headers",
        "remove_response_headers",
    ] {
        all.extend(strings.map(|value| (key, value)));
    }
    for key in [
        "add_request_headers",
        "add_response_headers",
        "routing_metadata",
        "challenge_params",
    ] {
        all.extend(map.map(|value| (key, value)));
    }
    all.extend(["\"x\"", "true", "-0.1", "1.1", "1e400", "[]"].map(|value| ("confidence", value)));
    all.extend(["\"true\"", "1", "[]"].map(|value| ("needs_more", value)));
    all.extend(["1", "[]", "{}"].map(|value| ("challenge_type", value)));
    all.extend(["1", "[]", "{}"].map(|value| ("body", value)));
    for key in ["request_body_mutation", "response_body_mutation"] {
        all.extend(
            [
                "1",
                "\"x\"",
                "[]",
                "{}",
                "{\"action\":\"explode\"}",
                "{\"action\":\"replace\"}",
            ]
            .map(|value| (key, value)),
        );
    }
    all
}

#[test]
fn invariant_1_a_mistyped_allow_is_never_an_allow_when_closed() {
    let cases = mistyped();
    let table = Answers::of(
        cases
            .iter()
            .map(|(key, value)| format!(r#"{{"decision":"allow","{key}":{value}}}"#)),
    );
    for (fail_open, mode) in MODES {
        for ((key, value), step) in cases.iter().zip(table.ask_requests(mode)) {
            println!("{key}: {value}");
            assert_faulty(
                &step,
                &["bad-answer:mistyped", "bad-answer:body-mutation"],
                fail_open,
            );
            let detail = step.0["fault"]["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("$.{key}")), "{detail}");
        }
    }
}

#[test]
fn invariant_2_a_refusal_is_never_softened_whatever_is_wrong_beside_it() {
    let mut answers = Vec::new();
    for refusal in REFUSALS {
        for (key, value) in mistyped() {
            if !refusal.contains(&format!("\"{key}\"")) {
                answers.push(format!(r#"{{{refusal},"{key}":{value}}}"#));
                answers.push(format!(r#"{{"{key}":{value},{refusal}}}"#));
            }
        }
        for beside in [
            r#""decision":"allow""#,
            r#""decision":null"#,
            r#""decision":"x""#,
            r#""status":-1"#,
            r#""x":1"#,
            r#""add_request_headers":{"a\r\nb":"c"}"#,
            r#""tags":[],"tags":[]"#,
        ] {
            answers.push(format!(r#"{{{refusal},{beside}}}"#));
            answers.push(format!(r#"{{{beside},{refusal}}}"#));
        }
        // The object ends too soon or too late, after the word was said.
        answers.push(format!("{{{refusal}"));
        answers.push(format!("{{{refusal}}} trailing"));
        answers.push(format!("{{{refusal}}}{{\"decision\":\"allow\"}}"));
        answers.push(format!("{{{refusal},\"x\":}}"));
        // Damage before the word, that no parser comes past.
        for before in [
            "\"confidence\":nan",
            "\"body\":\"a\nb\"",
            r#""body":"\q""#,
            r#""\ud800":1"#,
            r#""body":"x"#,
            r#""body":x""#,
            r#""a":{"b":1"#,
        ] {
            answers.push(format!("{{{before},{refusal}}}"));
        }
    }
    answers.push(r#"{"decision":"challenge"}"#.to_owned());
    answers.push(r#"{"decision":"redirect","body":1}"#.to_owned());
    let table = Answers::of(&answers);
    for (_, mode) in MODES {
        for (answer, step) in answers.iter().zip(table.ask_requests(mode)) {
            assert_ne!(step.decision(), "allow", "{mode:?} {answer} {step:?}");
        }
    }
    // Nor is one that is too large to be taken, wherever the word stands.
    let long = "a".repeat(4096);
    let large = [
        format!(r#"{{"decision":"block","body":"{long}"}}"#),
        format!(r#"{{"body":"{long}","decision":"block"}}"#),
    ];
    for (_, mode) in MODES {
        let flags = [&["--max-answer", "1KiB"], mode].concat();
        for step in Answers::of(&large).ask_requests(&flags) {
            assert_ne!(step.decision(), "allow", "{mode:?} {step:?}");
        }
    }
    // A block's own status outlives the fault when open.
    let answer = r#"{"decision":"block","status":429,"tags":1}"#;
    let step = &Answers::of([answer]).ask_requests(&["--fail-open"])[0];
    assert_eq!((step.decision(), step.status()), ("block", Some(429)));
    let tags: BTreeSet<&str> = step.tags().into_iter().collect();
    assert!(
        tags.contains("wasm-error") && !tags.contains("fail-open"),
        "{tags:?}"
    );
}
