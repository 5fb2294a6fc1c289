//! Answers that are wrong in themselves.

use serde_json::{Value, json};

use crate::support::guests::{Answers, EVENTS};
use crate::support::json_texts::{BROKEN, NO_OBJECT, VALUES};
use crate::support::{MODES, Step, assert_faulty};

#[test]
fn m_13_an_answer_that_is_no_json_object_is_a_fault() {
    let mut table = Answers::of(
        BROKEN
            .iter()
            .map(|(_, text)| text)
            .filter(|text| !text.is_empty()),
    );
    for text in NO_OBJECT {
        table.add(text.as_bytes());
    }
    let named: Vec<&str> = BROKEN
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(name, _)| *name)
        .chain(NO_OBJECT)
        .collect();
    for (fail_open, mode) in MODES {
        for (name, step) in named.iter().zip(table.ask_requests(mode)) {
            println!("{name}");
            let codes = [
                "bad-answer:not-json",
                "bad-answer:not-utf8",
                "bad-answer:not-an-object",
            ];
            assert_faulty(&step, &codes, fail_open);
        }
    }
}

/// A good decision around a broken value is no good decision.
#[test]
fn m_13_a_broken_value_anywhere_spoils_an_allow() {
    let answers = BROKEN.iter().filter_map(|(name, text)| {
        let value = text.strip_prefix(b"{\"a\":")?.strip_suffix(b"}")?;
        let answer = [&b"{\"decision\":\"allow\",\"a\":"[..], value, b"}"].concat();
        Some((*name, answer))
    });
    let (names, answers): (Vec<&str>, Vec<Vec<u8>>) = answers.unzip();
    assert!(names.len() > 20);
    let table = Answers::of(&answers);
    for (fail_open, mode) in MODES {
        for (name, step) in names.iter().zip(table.ask_requests(mode)) {
            println!("{name}");
            assert_faulty(
                &step,
                &["bad-answer:not-json", "bad-answer:not-utf8"],
                fail_open,
            );
        }
    }
}

#[test]
fn m_13_right_json_in_unknown_places_changes_nothing() {
    let mut answers: Vec<String> = VALUES
        .iter()
        .map(|value| format!(r#"{{"x":{value},"decision":"allow"}}"#))
        .collect();
    answers.push(" \r\n\t{ \"decision\" : \"allow\" } \r\n\t".to_owned());
    answers.push(r#"{"\u0064ecision":"\u0061llow"}"#.to_owned());
    for step in Answers::of(&answers).ask(&EVENTS, &[]) {
        step.assert_allowed();
    }
}

#[test]
fn m_13_deep_answers_end_and_never_crash() {
    let deep = |count: usize| "[".repeat(count) + &"]".repeat(count);
    let objects = |count: usize| "{\"a\":".repeat(count) + "1" + &"}".repeat(count);
    let mut table = Answers::default();
    for key in [
        "x",
        "tags",
        "challenge_params",
        "request_body_mutation",
        "decision",
    ] {
        for value in [deep(1000), deep(200_000), objects(30_000)] {
            table.add(format!(r#"{{"{key}":{value},"decision":"allow"}}"#).as_bytes());
        }
    }
    for text in ["[".repeat(500_000), "{\"a\":".repeat(50_000)] {
        table.add(text.as_bytes());
    }
    for (_, mode) in MODES {
        let steps = table.ask_requests(mode);
        let (unknown, rest) = steps.split_at(3);
        for step in unknown {
            // Whether depth alone is a fault is left open; a wrong class is not.
            assert!(
                matches!(step.fault(), None | Some("bad-answer:not-json")),
                "{step:?}"
            );
        }
        for step in rest {
            assert!(step.fault().unwrap().starts_with("bad-answer:"), "{step:?}");
        }
    }
}

#[test]
fn m_14_an_unknown_decision_is_a_fault() {
    let words = [
        "",
        " ",
        "denied",
        " block",
        "block ",
        "blocked",
        "blok",
        "b1ock",
        "allowed",
        "allow ",
        " allow",
        "alow",
        "allow\0",
        "allow\n",
        "allow;",
        "\u{feff}allow",
        "al\u{200b}low",
        "аllow",
        "ａｌｌｏｗ",
        "allow/block",
        "accept",
        "pass",
        "ok",
        "yes",
        "true",
        "1",
        "0",
        "none",
        "null",
        "continue",
        "next",
        "permit",
        "reject",
        "refuse",
        "drop",
        "deny!",
        "forbid",
        "403",
        "redirected",
        "redirect:/",
        "challenged",
        "captcha",
        "error",
        "undefined",
        "default",
        "ALLOWED",
        "Blockİ",
        "\"allow\"",
        "{}",
        "[allow]",
    ];
    assert!(words.len() >= 50);
    let mut answers: Vec<String> = words
        .iter()
        .map(|word| json!({ "decision": word }).to_string())
        .collect();
    for value in [
        "null",
        "true",
        "0",
        "[]",
        "[\"allow\"]",
        "{}",
        "{\"allow\":{}}",
    ] {
        answers.push(format!(r#"{{"decision":{value}}}"#));
    }
    let table = Answers::of(&answers);
    for (fail_open, mode) in MODES {
        for (answer, step) in answers.iter().zip(table.ask_requests(mode)) {
            println!("{answer}");
            step.assert_fault("bad-answer:unknown-decision", fail_open);
        }
    }
    let none = Answers::of(["{}", r#"{"Decision":"allow"}"#, r#"{"status":403}"#]);
    for step in none.ask_requests(&[]) {
        step.assert_fault("bad-answer:no-decision", false);
    }
}

#[test]
fn m_14_known_decisions_are_read_in_any_case() {
    let mut expected = Vec::new();
    let mut table = Answers::default();
    for (words, decision) in [
        (["allow", "ALLOW", "Allow", "aLLoW"], "allow"),
        (["block", "BLOCK", "Block", "bLoCk"], "block"),
        (["deny", "DENY", "Deny", "dENY"], "block"),
        (["redirect", "REDIRECT", "Redirect", "ReDirect"], "redirect"),
        (
            ["challenge", "CHALLENGE", "Challenge", "cHALLENGE"],
            "challenge",
        ),
    ] {
        for word in words {
            expected.push(decision);
            let answer = json!({"decision": word, "body": "/x", "challenge_type": "js"});
            table.add(answer.to_string().as_bytes());
        }
    }
    for (_, mode) in MODES {
        let steps = table.ask_requests(mode);
        let found: Vec<&str> = steps.iter().map(Step::decision).collect();
        assert_eq!(found, expected);
    }
}

const STATUSES: [u64; 29] = [
    0, 1, 42, 99, 100, 101, 199, 200, 204, 299, 300, 301, 302, 303, 304, 307, 308, 309, 403, 418,
    500, 599, 600, 999, 1000, 65_535, 65_536, 65_739, 70_000,
];

#[test]
fn m_15_a_bad_status_never_softens_a_refusal() {
    let block = |status: u64| (200..=599).contains(&status);
    let redirect = |status: u64| [301, 302, 303, 307, 308].contains(&status);
    let numbers = STATUSES.into_iter().chain([u64::MAX]);
    let others = [
        "-1",
        "403.0",
        "4.03e2",
        "1e400",
        "\"403\"",
        "\"\"",
        "true",
        "[]",
        "[403]",
        "{}",
        "123456789012345678901234567890",
    ];
    let mut expected = Vec::new();
    let mut table = Answers::default();
    let mut add = |word: &str, status: &str, good: Option<u64>, default: u64| {
        table.add(format!(r#"{{"decision":"{word}","body":"/x","status":{status}}}"#).as_bytes());
        let kind = if word == "redirect" {
            "redirect"
        } else {
            "block"
        };
        expected.push((kind, good.unwrap_or(default), good.is_none()));
    };
    for number in numbers {
        for word in ["block", "deny"] {
            add(
                word,
                &number.to_string(),
                Some(number).filter(|n| block(*n)),
                403,
            );
        }
        add(
            "redirect",
            &number.to_string(),
            Some(number).filter(|n| redirect(*n)),
            302,
        );
    }
    for text in others {
        add("block", text, None, 403);
        add("redirect", text, None, 302);
    }
    for (_, mode) in MODES {
        for ((kind, status, tagged), step) in expected.iter().zip(table.ask_requests(mode)) {
            assert_eq!(step.fault(), None, "{step:?}");
            assert_eq!(
                (step.decision(), step.status()),
                (*kind, Some(*status)),
                "{step:?}"
            );
            assert_eq!(step.tags().contains(&"bad-status"), *tagged, "{step:?}");
        }
    }
}

const BAD_URLS: [&str; 33] = [
    "",
    " ",
    "x",
    "login",
    "?a=b",
    "#top",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "vbscript:x",
    "file:///etc/passwd",
    "ftp://example.org/",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https://",
    "https:///path",
    "https://\\evil",
    "http://?x",
    " /x",
    "/x y",
    "/x\r\nset-cookie: a=b",
    "https://example.org/\r\nx: y",
    "/x\n",
    "/x\0",
    "/\u{7f}",
    "/\u{85}",
    "/é",
    "https://exämple.org/",
    "/\u{202e}",
];

const GOOD_URLS: [&str; 8] = [
    "/",
    "/login",
    "/login?next=%2Fa%20b#c",
    "http://example.org",
    "https://example.org/a?b=c",
    "HTTPS://example.org/",
    "https://user@example.org:8443/",
    "https://[::1]/",
];

#[test]
fn m_16_a_redirect_without_a_usable_url_is_a_block() {
    let long = format!("https://example.org/{}", "a".repeat(8000));
    let bad: Vec<Value> = BAD_URLS
        .into_iter()
        .map(Value::from)
        .chain([Value::Null, long.into()])
        .collect();
    let mut table = Answers::of([
        r#"{"decision":"redirect"}"#,
        r#"{"decision":"redirect","status":302}"#,
    ]);
    for url in bad.iter().chain(&GOOD_URLS.map(Value::from)) {
        table.add(
            json!({"decision": "redirect", "body": url})
                .to_string()
                .as_bytes(),
        );
    }
    for (_, mode) in MODES {
        let steps = table.ask_requests(mode);
        let (refused, allowed) = steps.split_at(2 + bad.len());
        for step in refused {
            assert_eq!(step.fault(), None, "{step:?}");
            assert_eq!(
                (step.decision(), step.status()),
                ("block", Some(500)),
                "{step:?}"
            );
            assert!(step.tags().contains(&"bad-redirect"), "{step:?}");
            assert!(!step.response().to_string().contains("evil"), "{step:?}");
        }
        for (url, step) in GOOD_URLS.iter().zip(allowed) {
            assert_eq!(
                step.response()["decision"],
                json!({"redirect": {"url": url, "status": 302}})
            );
        }
    }
}
