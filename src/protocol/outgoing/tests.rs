//! Each rule alone, and what becomes of an answer that is too large.

use std::collections::BTreeMap;

use super::*;
use crate::event::{BodyChunk, RequestHead, ResponseHead};
use crate::fault::BadAnswer;
use crate::protocol::proxy::ProxyQuirks;
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::RequestBodyText;
use crate::response::BodyMutation;

const SOCKETS: [Protocol; 2] = [Protocol::V1, Protocol::V2];
const PROTOCOLS: [Protocol; 3] = [Protocol::V1, Protocol::V2, Protocol::Grpc];

fn to(protocol: Protocol, version: &str) -> Recipient {
    Recipient {
        dialect: Dialect {
            protocol,
            encoding: Encoding::Json,
            request_body: RequestBodyText::Verbatim,
        },
        proxy: Proxy::new(ProxyQuirks::Auto, Some(version)),
        failure_policy: FailurePolicy::Closed,
        changes_response_bodies: false,
    }
}

fn old(protocol: Protocol) -> Recipient {
    to(protocol, "0.6.45")
}

fn new(protocol: Protocol) -> Recipient {
    to(protocol, "0.6.54")
}

/// On each transport: a proxy before the repair, and two whose answers are left
/// as they are.
fn proxies(protocols: &[Protocol]) -> Vec<(Recipient, bool)> {
    let all = protocols.iter().flat_map(|&protocol| {
        let off = Recipient {
            proxy: Proxy::new(ProxyQuirks::Off, Some("0.6.45")),
            ..old(protocol)
        };
        let v1 = Recipient {
            proxy: Proxy::new(ProxyQuirks::Auto, None),
            ..old(protocol)
        };
        [
            (old(protocol), true),
            (v1, true),
            (new(protocol), false),
            (off, false),
        ]
    });
    all.collect()
}

fn request() -> Event {
    Event::RequestHeaders(RequestHead::default())
}

fn response() -> Event {
    Event::ResponseHeaders(ResponseHead::default())
}

fn response_body(data: &[u8]) -> Event {
    Event::ResponseBody {
        chunk: BodyChunk {
            is_last: true,
            data: data.to_vec(),
            ..BodyChunk::default()
        },
        request: None,
        response: None,
    }
}

/// What is sent as the answer to this event, and recorded.
fn sent(answer: &AgentResponse, mut event: Event, to: Recipient) -> Sent {
    let mut outgoing = Outgoing::new(Box::new(answer.clone()), Asked::Event(&mut event), to);
    outgoing.is_recorded = true;
    let mut frame = Vec::new();
    let sent = outgoing.write(&mut frame).unwrap();
    assert!(to.dialect.protocol.frame(&frame).unwrap().is_some());
    sent
}

fn set(name: &str) -> HeaderOp {
    HeaderOp::Set {
        name: name.to_owned(),
        value: "v".to_owned(),
    }
}

fn block() -> AgentResponse {
    AgentResponse::new(Decision::Block {
        status: 451,
        body: None,
    })
}

fn challenge() -> AgentResponse {
    AgentResponse::new(Decision::Challenge {
        challenge_type: "js".into(),
        params: BTreeMap::new(),
    })
}

#[test]
fn rules_run_in_the_order_of_their_stages() {
    assert!(RULES.is_sorted_by_key(|rule| rule.stage));
}

#[test]
fn a_request_body_that_is_no_text_is_refused() {
    let mut answer = AgentResponse::allow();
    answer.request_body_mutation = Some(BodyMutation {
        chunk_index: 0,
        data: vec![0xff],
    });
    let mut refusal = block();
    refusal.request_body_mutation = answer.request_body_mutation.clone();
    for protocol in SOCKETS {
        let refused = sent(&answer, request(), new(protocol));
        assert_eq!(refused.answer.decision.status(), Some(500));
        assert_eq!(refused.recorded, Some(refused.answer));
        let code = FaultCode::BadAnswer(BadAnswer::BinaryRequestBody);
        assert_eq!(refused.fault.unwrap().code, code);
        let kept = sent(&refusal, request(), new(protocol));
        assert_eq!((*kept.answer, kept.fault), (block(), None));
        let mut decoding = new(protocol);
        decoding.dialect.request_body = RequestBodyText::Base64;
        assert_eq!(*sent(&answer, request(), decoding).answer, answer);
    }
}

#[test]
fn what_grpc_has_no_field_for_is_taken_out_and_tagged() {
    let mut answer = AgentResponse::allow();
    let left_out = sent(&answer, request(), new(Protocol::Grpc));
    assert_eq!(
        (*left_out.answer, left_out.left_out),
        (answer.clone(), vec![])
    );
    answer.request_body_mutation = Some(BodyMutation {
        chunk_index: 0,
        data: vec![0xff],
    });
    answer.routing_metadata.insert("pool".into(), "blue".into());
    let left_out = sent(&answer, request(), new(Protocol::Grpc));
    let tags = ["body-mutation-unsupported", "routing-metadata-unsupported"];
    assert_eq!(left_out.left_out, tags);
    assert_eq!(left_out.notes, [Note::BodyLeftOut]);
    assert_eq!(left_out.answer.audit.tags, tags);
    assert_eq!(left_out.answer.request_body_mutation, None);
    assert!(left_out.answer.routing_metadata.is_empty());
    assert_eq!(left_out.recorded, Some(left_out.answer));
    answer.request_body_mutation = None;
    for protocol in SOCKETS {
        assert_eq!(*sent(&answer, request(), new(protocol)).answer, answer);
    }
}

#[test]
fn a_response_body_that_is_replaced_by_nothing_is_noted() {
    let mut answer = AgentResponse::allow();
    answer.response_body_mutation = Some(BodyMutation {
        chunk_index: 0,
        data: Vec::new(),
    });
    let noted = |event| sent(&answer, event, new(Protocol::V2)).notes;
    assert_eq!(noted(response_body(b"all")), [Note::EmptyBodyIgnored]);
    assert_eq!(noted(response_body(b"")), []);
    assert_eq!(noted(response()), []);
}

#[test]
fn a_challenge_is_a_block_before_0_6_54_and_for_v1() {
    for (to, blocked) in proxies(&PROTOCOLS) {
        let sent = sent(&challenge(), request(), to);
        if blocked {
            assert_eq!(sent.answer.decision.status(), Some(403));
            assert_eq!(sent.answer.audit.tags, ["challenge-unsupported"]);
        } else {
            assert_eq!(*sent.answer, challenge());
        }
        // A replay has no proxy.
        assert_eq!(*sent.recorded.unwrap(), challenge());
    }
}

#[test]
fn a_redirect_is_noted_before_0_6_54_and_stays_a_redirect() {
    let redirect = AgentResponse::new(Decision::Redirect {
        url: "/".into(),
        status: 302,
    });
    for (to, fails) in proxies(&PROTOCOLS) {
        let sent = sent(&redirect, request(), to);
        assert_eq!(sent.notes.contains(&Note::RedirectFails), fails);
        assert_eq!(*sent.answer, redirect);
    }
}

#[test]
fn the_length_is_removed_where_a_body_may_change_before_0_6_54() {
    let removed = HeaderOp::Remove {
        name: "content-length".to_owned(),
    };
    let mut answer = AgentResponse::allow();
    answer.response_headers = vec![set("x")];
    for (mut to, is_old) in proxies(&PROTOCOLS) {
        to.changes_response_bodies = true;
        let found = sent(&answer, response(), to);
        let is_removed = is_old && to.dialect.protocol != Protocol::Grpc;
        let expected = if is_removed {
            vec![removed.clone(), set("x")]
        } else {
            vec![set("x")]
        };
        assert_eq!(found.answer.response_headers, expected);
        assert_eq!(*found.recorded.unwrap(), answer);
        assert_eq!(*sent(&answer, request(), to).answer, answer);
        to.changes_response_bodies = false;
        assert_eq!(*sent(&answer, response(), to).answer, answer);
    }
}

#[test]
fn response_operations_of_the_request_are_repeated_before_0_6_54() {
    for (to, kept) in proxies(&PROTOCOLS) {
        let mut answer = AgentResponse::allow();
        answer.response_headers = vec![set("x-early")];
        let early = sent(&answer, request(), to);
        assert_eq!(early.later, kept.then(|| vec![set("x-early")]));
        let mut event = response();
        answer.response_headers = vec![set("x-late")];
        let mut outgoing = Outgoing::new(Box::new(answer), Asked::Event(&mut event), to);
        outgoing.earlier = early.later.unwrap_or_default();
        let sent = outgoing.write(&mut Vec::new()).unwrap();
        let names = sent.answer.response_headers.iter().map(HeaderOp::name);
        let expected: &[&str] = if kept {
            &["x-early", "x-late"]
        } else {
            &["x-late"]
        };
        assert_eq!(names.collect::<Vec<_>>(), expected);
        assert_eq!(sent.later, None);
    }
}

#[test]
fn operations_beside_a_refusal_are_not_repeated() {
    let mut answer = block();
    answer.response_headers = vec![set("x")];
    assert_eq!(sent(&answer, request(), old(Protocol::V2)).later, None);
}

#[test]
fn an_unchanged_last_body_is_echoed_before_0_6_54() {
    for (to, echoed) in proxies(&PROTOCOLS) {
        let echoed = echoed && to.dialect.protocol != Protocol::Grpc;
        let sent = sent(&AgentResponse::allow(), response_body(b"all"), to);
        let body = sent.answer.response_body_mutation;
        assert_eq!(body.map(|body| body.data), echoed.then(|| b"all".to_vec()));
        assert_eq!(*sent.recorded.unwrap(), AgentResponse::allow());
    }
}

#[test]
fn only_what_would_be_lost_is_echoed() {
    let old = old(Protocol::V2);
    let refused = sent(&block(), response_body(b"all"), old);
    assert_eq!(*refused.answer, block());

    let mut answer = AgentResponse::allow();
    answer.response_body_mutation = Some(BodyMutation {
        chunk_index: 0,
        data: b"own".to_vec(),
    });
    assert_eq!(*sent(&answer, response_body(b"all"), old).answer, answer);

    let mut event = response_body(b"half");
    if let Event::ResponseBody { chunk, .. } = &mut event {
        chunk.is_last = false;
    }
    let half = sent(&AgentResponse::allow(), event, old);
    assert_eq!(*half.answer, AgentResponse::allow());
}

#[test]
fn response_bodies_that_are_cut_are_noted() {
    for (to, cut) in proxies(&PROTOCOLS) {
        let cut = cut && to.dialect.protocol == Protocol::Grpc;
        let noted = |event| {
            let notes = sent(&AgentResponse::allow(), event, to).notes;
            notes.contains(&Note::ResponseBodiesCut)
        };
        assert_eq!(noted(response_body(b"all")), cut);
        assert!(!noted(response()));
    }
}

/// Also in the recording, whatever the proxy's version made of it before.
#[test]
fn what_is_too_large_is_refused_or_loses_its_bodies() {
    let large = || {
        Some(BodyMutation {
            chunk_index: 0,
            data: vec![b'x'; 13 << 20],
        })
    };
    let mut allow = AgentResponse::allow();
    allow.response_body_mutation = large();
    // Of the second only the proxy's version makes a large answer.
    for (answer, event) in [
        (allow.clone(), response()),
        (AgentResponse::allow(), response_body(&[0; 13 << 20])),
    ] {
        let refused = sent(&answer, event, old(Protocol::V2));
        assert_eq!(refused.fault.unwrap().code, FaultCode::AnswerLimit);
        assert_eq!(refused.answer.decision.status(), Some(500));
        assert_eq!(refused.recorded, Some(refused.answer));
    }
    let mut open = new(Protocol::V2);
    open.failure_policy = FailurePolicy::Open;
    let allowed = sent(&allow, response(), open);
    assert_eq!(allowed.answer.audit.tags, ["wasm-error", "fail-open"]);
    assert_eq!(allowed.answer.response_body_mutation, None);
    assert_eq!(allowed.recorded, Some(allowed.answer));

    let mut refusal = challenge();
    refusal.response_body_mutation = large();
    let smaller = sent(&refusal, response(), old(Protocol::V2));
    assert_eq!(smaller.answer.decision.status(), Some(403));
    assert_eq!(
        (smaller.answer.response_body_mutation, smaller.fault),
        (None, None)
    );
    assert_eq!(*smaller.recorded.unwrap(), challenge());
}

#[test]
fn a_refusal_that_is_still_too_large_is_nothing_but_a_refusal() {
    let mut answer = AgentResponse::new(Decision::Block {
        status: 451,
        body: Some("x".repeat(17 << 20)),
    });
    answer.tag("t");
    let bare = sent(&answer, request(), new(Protocol::V2));
    assert_eq!((&*bare.answer, bare.fault), (&block(), None));
    assert_eq!(bare.recorded, Some(bare.answer));
    let id = "i".repeat(17 << 20);
    let asked = Asked::Other(&id);
    let outgoing = Outgoing::new(Box::new(answer), asked, new(Protocol::V2));
    assert!(outgoing.write(&mut Vec::new()).is_none());
}
