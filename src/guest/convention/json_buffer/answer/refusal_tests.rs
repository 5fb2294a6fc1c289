//! The reader of refusals: examples of each kind of damage, and damage at
//! every byte of answers made up at random.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::super::{AnswerPolicy, check_answer};
use super::*;
use crate::event::{Event, EventKind, RequestHead};
use crate::policy::decision::{FailurePolicy, Outcome, decide};
use crate::protocol::outgoing::{Asked, Outgoing, Recipient};
use crate::protocol::proxy::{Proxy, ProxyQuirks};
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::{Dialect, RequestBodyText};
use crate::response::{AgentResponse, Decision};

fn status(text: &str) -> Option<u16> {
    find_refusal(text.as_bytes()).map(|refusal| refusal.status)
}

#[test]
fn a_refusal_is_found_wherever_the_damage_stands() {
    for text in [
        r#"{"decision":"block"}"#,
        r#"{"decision":"DENY"}"#,
        r#"{"decision":"redirect"}"#,
        r#"{"decision":"challenge"}"#,
        r#"{ "decision" : "block" }"#,
        r#"{"confidence":nan,"decision":"block"}"#,
        "{\"body\":\"a\nb\",\"decision\":\"block\"}",
        r#"{"body":"\q","decision":"block"}"#,
        r#"{"\ud800":1,"decision":"block"}"#,
        r#"{"\u0064ecision":"bl\u006fck"}"#,
        r#"{"decision":"allow","decision":"block"}"#,
        r#"{"decision":"block","decision":"allow"}"#,
        r#"{"decision":"block"} and more"#,
        r#"before {"decision":"block"}"#,
        r#"[{"decision":"block"}]"#,
        r#"{decision:block}"#,
        r#"{'decision':'block'}"#,
        r#"{"decision":["block"]}"#,
        r#"{"decision":{"block":{"status":403}}}"#,
        r#"{"decision":[["block"]]}"#,
        r#"{"decision":{"type":"block"}}"#,
        r#"{"a":1 "decision":"block"}"#,
        r#"{"decision": /* matched rule 942100 */ "block"}"#,
        "{\"decision\": // rule matched here\n \"block\"}",
        r#"{"decision":String("block")}"#,
        r#"{"decision":xxxxxxxxxxxx"block"}"#,
        "{\"decision\":\0\0\0\0\0\0\0\0\0\"block\"}",
        "{\"decision\":`block`}",
        "{\"decision\":“block”}",
        "{\0\"\0d\0e\0c\0i\0s\0i\0o\0n\0\"\0:\0\"\0b\0l\0o\0c\0k\0\"\0}\0",
        r#"{"a":1,,"decision":"block",}"#,
        // Quotes and brackets that do not match.
        r#"{"body":"x,"decision":"block"}"#,
        r#"{"body":x","decision":"block"}"#,
        r#"{"body":"x\","decision":"block"}"#,
        r#"{decision":"block"}"#,
        r#"{"decision:"block"}"#,
        r#"{"decision":block"}"#,
        r#"{"decision" "block"}"#,
        r#"{"decision","block"}"#,
        r#"{"a":{"b":1,"decision":"block"}"#,
        r#"{"a":[1,"decision":"block"}"#,
        r#"["decision":"block"}"#,
        r#""decision":"block"}"#,
        // Cut short.
        r#"{"decision":"block""#,
        r#"{"decision":"blo"#,
        r#"{"decision":""#,
        r#"{"decision":"#,
        r#"{"decision""#,
        r#"{"x":"never ends, "decision": "de"#,
    ] {
        assert_eq!(status(text), Some(403), "{text}");
    }
    let not_text = [
        b"{\"body\":\"\xff\",\"decision\":\"block\"}".as_slice(),
        b"\xfe\xff{\"decision\":\"block\"}",
    ];
    for bytes in not_text {
        assert!(find_refusal(bytes).is_some());
    }
}

#[test]
fn text_inside_other_strings_and_objects_does_not_count() {
    for text in [
        "",
        "{}",
        "{",
        "null",
        r#"{"decision":"allow"}"#,
        r#"{"decision":"allow","confidence":nan}"#,
        r#"{"decision":"pass"}"#,
        r#"{"decision":" block"}"#,
        r#"{"decision":"blocked"}"#,
        r#"{"decision":1}"#,
        r#"{"decision":"allow","body":"decision: block","x":nan}"#,
        r#"{"decision":"allow","body":"\"decision\":\"block\"","x":nan}"#,
        "{\"decision\":\"allow\",\"body\":\"\n\\\"decision\\\":\\\"block\\\"\"}",
        r#"{"decision":"allow","routing_metadata":{"decision":"block"},"x":nan}"#,
        r#"{"decision":"allow","tags":["block","deny"],"x":nan}"#,
        r#"{"tags":[{"decision":"block"}],"decision":"allow","x":nan}"#,
        r#"{"decision":"allow","body":"do not block"#,
        r#"{"decision":"allow" "body":"block"}"#,
        r#"{"decision":true,"body":"the decision is to block"}"#,
        r#""{\"decision\":\"block\"}""#,
        r#"{"decision":"allow","body":"cut"#,
        r#"{"decision":"a"#,
        r#"{"predecision":"block","decision":"allow","x":nan}"#,
    ] {
        assert_eq!(status(text), None, "{text}");
    }
}

#[test]
fn a_blocks_own_status_is_kept_where_it_can_be_used() {
    for (text, expected) in [
        (r#"{"decision":"block","status":451,"tags":1}"#, 451),
        (r#"{"status":451,"x":nan,"decision":"deny"}"#, 451),
        (r#"{"decision":"block","status":99}"#, 403),
        (r#"{"decision":"block","status":70000}"#, 403),
        (r#"{"decision":"redirect","status":302}"#, 403),
        (r#"{"decision":"block","x":{"status":451}}"#, 403),
    ] {
        assert_eq!(status(text), Some(expected), "{text}");
    }
}

/// A string, its escapes among them, with what a reader may take for more.
fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z\"\\\\{}\\[\\],: ]{0,12}",
        Just("\"decision\":\"allow\"".to_owned()),
        Just("\\".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        string().prop_map(serde_json::Value::from),
        any::<i32>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            prop::collection::vec((string(), inner), 0..3)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// The members before and behind a decision.
type Members = Vec<(String, serde_json::Value)>;

fn members() -> impl Strategy<Value = Members> {
    let known = prop::sample::select(super::super::KEYS.as_slice()).prop_map(str::to_owned);
    let key = prop_oneof![known, string()];
    let is_other = |pair: &(String, _)| pair.0 != KEY;
    prop::collection::vec((key, value()).prop_filter("another key", is_other), 0..4)
}

/// The answer's bytes, and where the key's letters and the word's are.
fn written(
    before: &Members,
    word: &str,
    behind: &Members,
    space: &str,
) -> (Vec<u8>, [std::ops::Range<usize>; 2]) {
    let member = |(key, value): &(String, serde_json::Value)| {
        format!("{}{space}:{space}{value}", serde_json::json!(key))
    };
    let mut text = format!("{{{space}");
    for pair in before {
        text += &format!("{},{space}", member(pair));
    }
    let key = text.len() + 1..text.len() + 1 + KEY.len();
    text += &format!("\"{KEY}\"{space}:{space}");
    let said = text.len() + 1..text.len() + 1 + word.len();
    text += &format!("\"{word}\"");
    for pair in behind {
        text += &format!(",{space}{}", member(pair));
    }
    text.push('}');
    (text.into_bytes(), [key, said])
}

/// What the answer comes to under a policy.
fn decided(bytes: &[u8], policy: FailurePolicy) -> Decision {
    response(bytes, policy).decision
}

fn response(bytes: &[u8], policy: FailurePolicy) -> Box<AgentResponse> {
    let checked = check_answer(
        bytes,
        EventKind::RequestHeaders,
        None,
        &AnswerPolicy::default(),
    );
    let answer = checked.map(|checked| Outcome::Given(checked.response));
    match answer {
        Ok(answer) => decide(Ok(answer), policy),
        Err(fault) => decide(Err(&fault), policy),
    }
}

/// The transports over which a proxy of some generation is told to allow.
fn transports_that_allow(response: &AgentResponse, version: &str) -> Vec<String> {
    let mut found = Vec::new();
    let proxy = Proxy::new(ProxyQuirks::Auto, Some(version));
    for (protocol, encoding) in [
        (Protocol::V1, Encoding::Json),
        (Protocol::V2, Encoding::Json),
        (Protocol::V2, Encoding::MessagePack),
        (Protocol::Grpc, Encoding::Json),
    ] {
        let mut event = Event::RequestHeaders(RequestHead::default());
        let to = Recipient {
            dialect: Dialect {
                protocol,
                encoding,
                request_body: RequestBodyText::Verbatim,
            },
            proxy,
            failure_policy: FailurePolicy::Open,
            changes_response_bodies: true,
        };
        let asked = Asked::Event(&mut event);
        let mut frame = Vec::new();
        let sent = Outgoing::new(Box::new(response.clone()), asked, to).write(&mut frame);
        assert!(sent.is_some());
        let payload = protocol.frame(&frame).unwrap().unwrap().payload;
        let allows = match (protocol, encoding) {
            (Protocol::Grpc, _) => grpc_allows(payload),
            (_, Encoding::Json) => {
                serde_json::from_slice::<serde_json::Value>(payload).unwrap()["decision"] == "allow"
            }
            (_, Encoding::MessagePack) => {
                rmp_serde::from_slice::<serde_json::Value>(payload).unwrap()["decision"] == "allow"
            }
        };
        if allows {
            found.push(format!("{version} {protocol:?} {encoding:?}"));
        }
    }
    found
}

/// A decision that is missing is an allow to a proxy.
fn grpc_allows(payload: &[u8]) -> bool {
    use crate::protocol::grpc::proto::{AgentToProxy, agent_response, agent_to_proxy};
    let message: AgentToProxy = prost::Message::decode(payload).unwrap();
    let Some(agent_to_proxy::Message::Response(response)) = message.message else {
        return true;
    };
    matches!(
        response.decision,
        None | Some(agent_response::Decision::Allow(_))
    )
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Changed(u8),
    Gone,
    Doubled,
    Put(u8),
    Cut,
}

fn damage() -> impl Strategy<Value = Damage> {
    let byte = || {
        prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\"\\{}[]:, \n\0x".to_vec())
        ]
    };
    prop_oneof![
        6 => byte().prop_map(Damage::Changed),
        1 => Just(Damage::Gone),
        1 => Just(Damage::Doubled),
        2 => byte().prop_map(Damage::Put),
        1 => Just(Damage::Cut),
    ]
}

fn damaged(bytes: &[u8], at: usize, damage: Damage) -> Vec<u8> {
    let (before, behind) = bytes.split_at(at);
    let (one, rest) = behind.split_at(1);
    match damage {
        Damage::Changed(byte) => [before, &[byte], rest].concat(),
        Damage::Gone => [before, rest].concat(),
        Damage::Doubled => [before, one, one, rest].concat(),
        Damage::Put(byte) => [before, &[byte], one, rest].concat(),
        Damage::Cut => before.to_vec(),
    }
}

/// How many damaged answers are tried: more by `just long`.
fn tries() -> u32 {
    let given = std::env::var("REFUSAL_TRIES").ok();
    given.map_or(20_000, |tries| tries.parse().unwrap())
}

/// No damage outside the decision softens a refusal, whatever the policy, and
/// fail-closed allows nothing that is broken.
#[test]
fn damage_softens_no_refusal() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let words = prop::sample::select(vec![
        "block",
        "deny",
        "redirect",
        "challenge",
        "Block",
        "DENY",
    ]);
    let space = prop::sample::select(vec!["", " ", "\n  "]);
    let made = (members(), words, members(), space, damage());
    let (mut tried, mut seed) = (0, 0_usize);
    while tried < tries() {
        let tree = made.new_tree(&mut runner).unwrap();
        let (before, word, behind, space, damage) = tree.current();
        let (bytes, [key, said]) = written(&before, word, &behind, space);
        for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
            assert_ne!(
                decided(&bytes, policy),
                Decision::Allow,
                "{:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
        // Every byte, from a place that changes, in steps where there are many.
        let step = 1 + bytes.len() / 64;
        seed += 1;
        for at in (seed % step..bytes.len()).step_by(step) {
            // A byte put at either end of a word makes another word.
            let inside = |range: &std::ops::Range<usize>| match damage {
                Damage::Cut => at <= said.start,
                Damage::Put(_) => (range.start..=range.end).contains(&at),
                Damage::Changed(_) | Damage::Gone | Damage::Doubled => range.contains(&at),
            };
            if inside(&key) || inside(&said) {
                continue;
            }
            let bytes = damaged(&bytes, at, damage);
            tried += 1;
            let version = ["0.6.45", "0.6.54"][usize::from(tried % 2 == 0)];
            for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
                let allowed = transports_that_allow(&response(&bytes, policy), version);
                assert!(
                    allowed.is_empty(),
                    "{allowed:?} {policy:?} {damage:?} at {at}: {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }
    println!(
        "{tried} damaged refusals under both policies, over four transports to two generations of proxies: 0 softened"
    );
}

proptest! {
    /// Fail-closed allows nothing but an answer that is whole and allows.
    #[test]
    fn closed_allows_only_what_is_whole(before in members(), behind in members(), damage in damage(), at in any::<prop::sample::Index>()) {
        let (bytes, _) = written(&before, "allow", &behind, "");
        let bytes = damaged(&bytes, at.index(bytes.len()), damage);
        if decided(&bytes, FailurePolicy::Closed) == Decision::Allow {
            let whole: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(whole["decision"].as_str().unwrap().eq_ignore_ascii_case("allow"));
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = find_refusal(&bytes);
    }
}

/// Eight times the bytes cost about eight times as much, whatever they are.
#[test]
fn reading_takes_linear_time() {
    let pieces: [&[u8]; 12] = [
        b"d",
        b"\\",
        b"\"",
        b"{",
        b"[",
        b"decision",
        b"decision\"",
        b"\\u0064ecision",
        b"\"decision\":",
        b"{\"decision\":",
        b" ",
        b"decision        ",
    ];
    for piece in pieces {
        let time = |bytes: usize| {
            let text = piece.repeat(bytes / piece.len());
            let best = (0..5).map(|_| {
                let started = crate::guest::processor_time();
                std::hint::black_box(find_refusal(&text));
                crate::guest::processor_time() - started
            });
            best.min().unwrap()
        };
        let (small, large) = (time(50_000), time(400_000));
        assert!(
            large < small * 40 + std::time::Duration::from_millis(2),
            "{piece:?}: {small:?}, {large:?}"
        );
    }
}
