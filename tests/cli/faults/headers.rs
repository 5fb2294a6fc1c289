//! Headers that a guest asks for and that must not reach the wire.

use serde_json::{Value, json};

use crate::support::guests::Answers;
use crate::support::{MODES, Step};

/// Names and values that must never reach the wire.
fn bad_headers() -> Vec<(String, String)> {
    let names = [
        "",
        " ",
        "x y",
        "x:y",
        ":path",
        "x\r\ny",
        "x\n",
        "x\0",
        "é",
        "x\u{7f}",
        "(x)",
        "x,y",
        "\"x\"",
        "x{",
        "Host",
        "host",
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "TE",
        "keep-alive",
        "Upgrade",
        "trailer",
        "proxy-connection",
    ];
    let values = [
        "a\r\nset-cookie: b=c",
        "a\n",
        "\n",
        "a\r",
        "\r\n\r\n<html>",
        "a\0b",
        "\u{1}",
        "\u{1b}[31m",
        "a\u{7f}",
        "\u{b}",
    ];
    let named = names
        .iter()
        .map(|name| ((*name).to_owned(), "v".to_owned()));
    let valued = values
        .iter()
        .map(|value| ("x-value".to_owned(), (*value).to_owned()));
    named.chain(valued).collect()
}

const SETS: [&str; 2] = ["add_request_headers", "add_response_headers"];
const REMOVES: [&str; 2] = ["remove_request_headers", "remove_response_headers"];

/// Every string a proxy would put into a header.
fn header_texts(step: &Step) -> Vec<String> {
    let mut texts = Vec::new();
    for side in ["request_headers", "response_headers"] {
        for op in step.response()[side].as_array().unwrap() {
            for part in op.as_object().unwrap().values() {
                let parts = part.as_object().unwrap().values();
                texts.extend(parts.map(|part| part.as_str().unwrap().to_owned()));
            }
        }
    }
    texts
}

#[test]
fn m_17_no_header_is_split_forged_or_left_out_in_silence() {
    let bad = bad_headers();
    let mut answers = Vec::new();
    for (name, value) in &bad {
        for key in SETS {
            answers.push((key, json!({name.as_str(): value, "x-good": "1"})));
        }
        // A removal cannot smuggle anything in; only its name must be one.
        if value == "v"
            && !name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        {
            for key in REMOVES {
                answers.push((key, json!([name, "x-good"])));
            }
        }
    }
    for word in ["allow", "block"] {
        let table = Answers::of(
            answers
                .iter()
                .map(|(key, value)| json!({"decision": word, *key: value}).to_string()),
        );
        for (fail_open, mode) in MODES {
            for ((_, asked), step) in answers.iter().zip(table.ask_requests(mode)) {
                println!("{word} {asked}");
                let texts = header_texts(&step);
                for text in &texts {
                    assert!(
                        !text.bytes().any(|byte| byte < b' ' || byte == 0x7f),
                        "{text:?}"
                    );
                }
                if word == "allow" {
                    step.assert_fault("bad-answer:bad-header", fail_open);
                    assert!(texts.is_empty());
                } else {
                    assert_eq!(step.decision(), "block");
                    assert!(step.tags().contains(&"bad-header"), "{step:?}");
                    // The good one beside it stays, and nothing else.
                    assert!(
                        texts.iter().all(|text| text == "x-good" || text == "1"),
                        "{texts:?}"
                    );
                    assert!(!texts.is_empty());
                }
            }
        }
    }
}

#[test]
fn m_17_framing_headers_pass_where_they_are_allowed() {
    let table = Answers::of([r#"{"decision":"allow","add_request_headers":{"Host":"a.example"}}"#]);
    table.ask_requests(&[])[0].assert_fault("bad-answer:bad-header", false);
    let step = &table.ask_requests(&["--allow-header", "host"])[0];
    step.assert_allowed();
    assert_eq!(header_texts(step), ["Host", "a.example"]);
}

#[test]
fn m_17_operations_are_counted_and_weighed() {
    let many = |count: usize| -> Value {
        (0..count)
            .map(|n| (format!("x-{n:05}"), Value::from("v")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let removes = |count: usize| -> Vec<String> { (0..count).map(|n| format!("x-{n}")).collect() };
    let long = |size: usize| json!({"x": "v".repeat(size)});
    let cases = [
        (json!({"add_request_headers": many(128)}), true),
        (json!({"add_request_headers": many(129)}), false),
        (json!({"add_request_headers": many(10_000)}), false),
        (json!({"remove_response_headers": removes(10_000)}), false),
        (
            json!({"add_request_headers": many(64), "remove_response_headers": removes(64)}),
            true,
        ),
        (
            json!({"add_request_headers": many(64), "remove_response_headers": removes(65)}),
            false,
        ),
        (json!({"add_response_headers": long((64 << 10) - 1)}), true),
        (json!({"add_response_headers": long(64 << 10)}), false),
        (json!({"add_response_headers": long(1_000_000)}), false),
        (
            json!({"add_request_headers": long(40_000), "add_response_headers": long(40_000)}),
            false,
        ),
    ];
    for word in ["allow", "block"] {
        let table = Answers::of(cases.iter().map(|(ops, _)| {
            let mut answer = ops.clone();
            answer["decision"] = word.into();
            answer.to_string()
        }));
        for ((_, fits), step) in cases.iter().zip(table.ask_requests(&[])) {
            let texts = header_texts(&step);
            assert!(texts.iter().map(String::len).sum::<usize>() <= 64 << 10);
            let ops = ["request_headers", "response_headers"]
                .map(|side| step.response()[side].as_array().unwrap().len());
            assert!(ops.iter().sum::<usize>() <= 128, "{ops:?}");
            match (word, fits) {
                ("allow", true) => step.assert_allowed(),
                ("allow", false) => step.assert_fault("bad-answer:bad-header", false),
                (_, fits) => {
                    assert_eq!(step.decision(), "block");
                    assert_eq!(step.tags().contains(&"bad-header"), !fits);
                }
            }
        }
    }
}
