//! Answers of every shape, right and wrong.

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_HEADER_OPS;
use crate::policy::decision::{FailurePolicy, Outcome, decide};

fn check(json: &str) -> Result<AgentResponse, Fault> {
    check_answer(
        json.as_bytes(),
        EventKind::RequestHeaders,
        None,
        &AnswerPolicy::default(),
    )
    .map(|answer| *answer.response)
}

fn decided(bytes: &[u8], policy: FailurePolicy) -> AgentResponse {
    let answer = check_answer(
        bytes,
        EventKind::RequestHeaders,
        None,
        &AnswerPolicy::default(),
    );
    *match answer {
        Ok(answer) => decide(Ok(Outcome::Given(answer.response)), policy),
        Err(fault) => decide(Err(&fault), policy),
    }
}

#[test]
fn every_key_is_read() {
    let response = check(
        r#"{"decision":"DENY","status":418,"body":"tea","add_request_headers":{"b":"2","a":"1"},
        "remove_request_headers":["c"],"add_response_headers":{"d":"4"},"remove_response_headers":["e"],
        "append_request_headers":{"g":"1","f":["2","3"]},"append_response_headers":{"h":[]},
        "tags":["t"],"rule_ids":["r"],"reason_codes":["R"],"confidence":0.5,"routing_metadata":{"pool":"x"},
        "needs_more":true,"challenge_type":null,"challenge_params":{},"request_body_mutation":{"action":"pass_through"},
        "response_body_mutation":null}"#,
    )
    .unwrap();
    assert_eq!(
        serde_json::to_value(&response).unwrap(),
        serde_json::json!({
            "decision": {"block": {"status": 418, "body": "tea"}},
            "request_headers": [{"set":{"name":"a","value":"1"}},{"set":{"name":"b","value":"2"}},{"remove":{"name":"c"}},
                {"add":{"name":"f","value":"2"}},{"add":{"name":"f","value":"3"}},{"add":{"name":"g","value":"1"}}],
            "response_headers": [{"set":{"name":"d","value":"4"}},{"remove":{"name":"e"}}],
            "routing_metadata": {"pool": "x"},
            "audit": {"tags":["t"],"rule_ids":["r"],"confidence":0.5,"reason_codes":["R"]},
            "needs_more": true, "request_body_mutation": null, "response_body_mutation": null
        })
    );
}

#[test]
fn unknown_decisions_are_faults_with_a_hint() {
    for word in [
        "denied",
        " block",
        "",
        "ALLOWED",
        "blok",
        "pass",
        "accept",
        "0",
        "null",
        "allow\u{0}",
    ] {
        let fault = check(&format!("{{\"decision\":{}}}", serde_json::json!(word))).unwrap_err();
        assert_eq!(
            fault.code,
            FaultCode::BadAnswer(BadAnswer::UnknownDecision),
            "{word}"
        );
    }
    assert!(
        check(r#"{"decision":"blok"}"#)
            .unwrap_err()
            .detail
            .contains("\"block\"?")
    );
    for json in [
        r#"{"decision":1}"#,
        r#"{"decision":null}"#,
        r#"{"decision":["block"]}"#,
    ] {
        assert_eq!(
            check(json).unwrap_err().code.to_string(),
            "bad-answer:unknown-decision"
        );
    }
    assert_eq!(
        check("{}").unwrap_err().code.to_string(),
        "bad-answer:no-decision"
    );
}

#[test]
fn a_bad_status_is_replaced_and_tagged_and_never_softens() {
    for status in [
        "0", "42", "99", "600", "999", "1000", "70000", "-1", "403.0", "\"403\"", "[]",
    ] {
        for (word, default) in [("block", 403), ("deny", 403)] {
            let response = check(&format!(r#"{{"decision":"{word}","status":{status}}}"#)).unwrap();
            assert_eq!(response.decision.status(), Some(default), "{status}");
            assert_eq!(response.audit.tags, ["bad-status"]);
        }
        let redirect = check(&format!(
            r#"{{"decision":"redirect","body":"/x","status":{status}}}"#
        ))
        .unwrap();
        assert_eq!(
            redirect.decision,
            Decision::Redirect {
                url: "/x".into(),
                status: 302
            }
        );
    }
    assert_eq!(
        check(r#"{"decision":"block","status":200}"#)
            .unwrap()
            .decision
            .status(),
        Some(200)
    );
    assert_eq!(
        check(r#"{"decision":"redirect","body":"/x","status":304}"#)
            .unwrap()
            .audit
            .tags,
        ["bad-status"]
    );
}

#[test]
fn only_usable_urls_redirect_and_the_rest_refuse() {
    for url in [
        "/",
        "/a?b=c#d",
        "http://example.org",
        "HTTPS://example.org/x",
        "https://[::1]/",
    ] {
        assert!(redirect_url_is_usable(url), "{url}");
    }
    let long = format!("/{}", "x".repeat(8192));
    for url in [
        "",
        "javascript:alert(1)",
        "//evil.example",
        "/\\evil.example",
        "ftp://x",
        "http://",
        "http:///x",
        "http://[::1",
        "http://[x]/",
        "/a\r\nset-cookie: x=1",
        "/ä",
        "/a b",
        "x",
        "data:text/html,x",
        "mailto:a@b",
        "http:/x",
        long.as_str(),
    ] {
        let json = serde_json::json!({"decision": "redirect", "body": url}).to_string();
        let response = check(&json).unwrap();
        assert_eq!(
            response.decision,
            Decision::Block {
                status: 500,
                body: None
            },
            "{url}"
        );
        assert_eq!(response.audit.tags, ["bad-redirect"]);
    }
    assert_eq!(
        check(r#"{"decision":"redirect"}"#).unwrap().audit.tags,
        ["bad-redirect"]
    );
}

#[test]
fn a_bad_header_faults_an_allow_and_is_dropped_from_a_refusal() {
    for (name, value) in [
        ("x", "a\r\nset-cookie: b"),
        ("x", "\n"),
        ("x", "\u{0}"),
        ("", "v"),
        ("a b", "v"),
        (":path", "/"),
        ("x\r\ny", "v"),
        ("ü", "v"),
        ("Host", "evil"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
    ] {
        for key in [
            "add_request_headers",
            "add_response_headers",
            "append_request_headers",
            "append_response_headers",
        ] {
            let allow =
                serde_json::json!({"decision":"allow", key: {name: value, "ok": "1"}}).to_string();
            let fault = check(&allow).unwrap_err();
            assert_eq!(
                fault.code,
                FaultCode::BadAnswer(BadAnswer::BadHeader),
                "{name}: {value}"
            );
            assert!(
                fault.detail.starts_with(&format!("$.{key}[")),
                "{}",
                fault.detail
            );
            let block =
                serde_json::json!({"decision":"block", key: {name: value, "ok": "1"}}).to_string();
            let response = check(&block).unwrap();
            assert_eq!(response.audit.tags, ["bad-header"]);
            assert_eq!(
                response.request_headers.len() + response.response_headers.len(),
                1
            );
        }
    }
    assert!(check(r#"{"decision":"allow","remove_request_headers":["a b"]}"#).is_err());
    let policy = AnswerPolicy {
        allowed_headers: vec!["host".into()],
    };
    let answer = br#"{"decision":"allow","add_request_headers":{"Host":"inner"}}"#;
    assert!(check_answer(answer, EventKind::RequestHeaders, None, &policy).is_ok());
}

#[test]
fn header_operations_are_bounded_in_number_and_size() {
    let many: BTreeMap<String, String> = (0..129)
        .map(|n| (format!("x-{n}"), String::new()))
        .collect();
    let json = |decision: &str| {
        serde_json::json!({"decision": decision, "add_response_headers": many}).to_string()
    };
    assert_eq!(
        check(&json("allow")).unwrap_err().code.to_string(),
        "bad-answer:bad-header"
    );
    assert_eq!(
        check(&json("block")).unwrap().response_headers.len(),
        MAX_HEADER_OPS
    );
    let big =
        serde_json::json!({"decision": "allow", "add_request_headers": {"x": "v".repeat(65536)}})
            .to_string();
    assert!(check(&big).unwrap_err().detail.contains("65536 bytes"));
}

#[test]
fn mistyped_values_name_their_path() {
    for (json, path) in [
        (
            r#"{"decision":"allow","tags":"x"}"#,
            "$.tags must be an array of strings",
        ),
        (
            r#"{"decision":"allow","tags":["a",7]}"#,
            "$.tags[1] must be a string, found 7",
        ),
        (
            r#"{"decision":"allow","rule_ids":[["a"]]}"#,
            "$.rule_ids[0] must be",
        ),
        (
            r#"{"decision":"allow","body":7}"#,
            "$.body must be a string",
        ),
        (
            r#"{"decision":"allow","confidence":1.5}"#,
            "$.confidence must be a number from 0 to 1",
        ),
        (
            r#"{"decision":"allow","confidence":"0.5"}"#,
            "$.confidence must be",
        ),
        (
            r#"{"decision":"allow","needs_more":1}"#,
            "$.needs_more must be true or false",
        ),
        (
            r#"{"decision":"allow","add_request_headers":{"x":1}}"#,
            "$.add_request_headers[\"x\"] must be a string",
        ),
        (
            r#"{"decision":"allow","add_request_headers":[]}"#,
            "$.add_request_headers must be an object of strings",
        ),
        (
            r#"{"decision":"allow","append_response_headers":{"x":["a",1]}}"#,
            "$.append_response_headers[\"x\"] must be a string or an array of strings",
        ),
        (
            r#"{"decision":"allow","append_request_headers":"x"}"#,
            "$.append_request_headers must be an object of strings or of arrays of strings",
        ),
        (
            r#"{"decision":"allow","routing_metadata":{"x":null}}"#,
            "$.routing_metadata[\"x\"] must be",
        ),
        (
            r#"{"decision":"allow","body":"\ud800"}"#,
            "$.body must be a string",
        ),
    ] {
        let fault = check(json).unwrap_err();
        assert_eq!(
            fault.code,
            FaultCode::BadAnswer(BadAnswer::Mistyped),
            "{json}"
        );
        assert!(fault.detail.starts_with(path), "{} / {path}", fault.detail);
    }
}

#[test]
fn what_is_not_one_json_object_is_a_fault() {
    for (bytes, code) in [
        (&b"\xff\xfe"[..], "bad-answer:not-utf8"),
        (b"", "bad-answer:not-json"),
        (b"hello", "bad-answer:not-json"),
        (b"\xef\xbb\xbf{}", "bad-answer:not-json"),
        (b"[1]", "bad-answer:not-an-object"),
        (b"\"allow\"", "bad-answer:not-an-object"),
        (b"7", "bad-answer:not-an-object"),
        (b"{\"decision\":\"allow\"} x", "bad-answer:not-json"),
        (b"{\"decision\":\"allow\"}{}", "bad-answer:not-json"),
        (b"{\"decision\":\"allow\",}", "bad-answer:not-json"),
        (b"{\"decision\":\"allow\",\"x\":NaN}", "bad-answer:not-json"),
        (
            b"{\"decision\":\"allow\",\"decision\":\"allow\"}",
            "bad-answer:duplicate-key",
        ),
    ] {
        let fault = check_answer(
            bytes,
            EventKind::RequestHeaders,
            None,
            &AnswerPolicy::default(),
        )
        .unwrap_err();
        assert_eq!(
            fault.code.to_string(),
            code,
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert!(check(" {\"decision\":\"allow\"} \n").is_ok());
}

#[test]
fn unknown_keys_are_reported_and_nested_ones_cannot_hurt() {
    let deep = format!(
        r#"{{"decision":"allow","x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let answer = check_answer(
        deep.as_bytes(),
        EventKind::RequestHeaders,
        None,
        &AnswerPolicy::default(),
    )
    .unwrap();
    assert_eq!(answer.unknown_keys, ["x"]);
}

#[test]
fn a_mutation_must_be_for_the_events_own_chunk() {
    let at = |json: &str, kind, index| {
        check_answer(json.as_bytes(), kind, index, &AnswerPolicy::default())
            .map(|answer| answer.response)
    };
    let replace =
        r#"{"decision":"allow","response_body_mutation":{"action":"replace","data":"bye"}}"#;
    let response = at(replace, EventKind::ResponseBody, Some(3)).unwrap();
    assert_eq!(
        response.response_body_mutation,
        Some(BodyMutation {
            chunk_index: 3,
            data: b"bye".to_vec()
        })
    );
    assert!(at(replace, EventKind::RequestBody, Some(3)).is_err());
    assert!(at(replace, EventKind::ResponseHeaders, None).is_err());
    let other = r#"{"decision":"allow","request_body_mutation":{"action":"drop","chunk_index":1}}"#;
    assert!(
        at(other, EventKind::RequestBody, Some(0))
            .unwrap_err()
            .detail
            .contains("chunk_index must be the event's, 0")
    );
    assert_eq!(
        at(other, EventKind::RequestBody, Some(1))
            .unwrap()
            .request_body_mutation
            .unwrap()
            .data,
        b""
    );
    for bad in [
        r#"{"action":"replace"}"#,
        r#"{"action":"replace","data":"*","encoding":"base64"}"#,
        r#"{"data":"x"}"#,
        r#"{"action":"erase"}"#,
        r#"{"action":"replace","data":"x","encoding":"latin1"}"#,
        "7",
    ] {
        let json = format!(r#"{{"decision":"allow","request_body_mutation":{bad}}}"#);
        assert!(at(&json, EventKind::RequestBody, Some(0)).is_err(), "{bad}");
    }
}

#[test]
fn a_hidden_or_broken_refusal_is_still_a_refusal() {
    for json in [
        r#"{"decision":"block","tags":"x"}"#,
        r#"{"decision":"challenge"}"#,
        r#"{"decision":"deny","decision":"allow"}"#,
        r#"{"decision":"allow","decision":"redirect"}"#,
        r#"{"decision":"Block"} trailing"#,
        r#"{"decision":"block","x":"#,
        r#"{"decision":"redirect","body":7}"#,
    ] {
        let response = decided(json.as_bytes(), FailurePolicy::Open);
        assert_eq!(response.decision.name(), "block", "{json}");
    }
    let stated = decided(
        br#"{"decision":"block","status":451,"tags":1}"#,
        FailurePolicy::Open,
    );
    assert_eq!(stated.decision.status(), Some(451));
}

/// Any JSON value, including ones that look like results.
fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z\r\n:/]{0,8}".prop_map(Into::into),
        prop_oneof!["allow", "block", "DENY", "redirect", "challenge", "/x"].prop_map(Into::into),
    ];
    leaf.prop_recursive(2, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-z-]{0,6}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Invariant 2: whatever stands beside it, a refusing word never allows.
    #[test]
    fn a_refusal_is_never_softened(
        word in prop_oneof!["block", "deny", "redirect", "challenge", "BLOCK", "Challenge"],
        others in prop::collection::vec((0..16usize, json_value()), 0..6),
        first in any::<bool>(),
        cut in prop::option::of(0..40usize),
    ) {
        let mut text = String::from("{");
        let decision = format!("\"decision\":\"{word}\"");
        if first { text.push_str(&decision); }
        for (key, value) in others {
            if text.len() > 1 { text.push(','); }
            text.push_str(&format!("\"{}\":{value}", KEYS[key]));
        }
        if !first {
            if text.len() > 1 { text.push(','); }
            text.push_str(&decision);
        }
        text.push('}');
        // A cut after the decision leaves broken JSON that had said it.
        if first && let Some(cut) = cut {
            let end = (decision.len() + 2 + cut).min(text.len());
            if text.is_char_boundary(end) { text.truncate(end); }
        }
        for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
            let response = decided(text.as_bytes(), policy);
            prop_assert_ne!(response.decision, Decision::Allow, "{} {:?}", text, policy);
        }
    }

    /// Invariant 1: closed allows only what said allow and was whole.
    #[test]
    fn closed_allows_only_a_whole_allow(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        json_value().prop_map(|value| value.to_string().into_bytes()),
        json_value().prop_map(|value| serde_json::json!({"decision": value}).to_string().into_bytes()),
    ]) {
        let response = decided(&bytes, FailurePolicy::Closed);
        if response.decision == Decision::Allow {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(value["decision"].as_str().unwrap().eq_ignore_ascii_case("allow"));
        }
    }
}
