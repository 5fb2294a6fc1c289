//! What becomes of messages on their way in and out.

use std::collections::BTreeMap;

use super::*;

fn read_sent(message: proxy_to_agent::Message) -> Inbound {
    let sent = ProxyToAgent {
        message: Some(message),
    };
    read(&sent.encode_to_vec()).unwrap()
}

fn response_headers(status_code: u32) -> Inbound {
    read_sent(proxy_to_agent::Message::ResponseHeaders(
        ResponseHeadersEvent {
            correlation_id: "c1".into(),
            status_code,
            headers: vec![Header {
                name: "x".into(),
                value: "1".into(),
            }],
        },
    ))
}

#[test]
fn a_status_is_never_cut_to_fit() {
    for (status, read) in [(200, Some(200)), (65_535, Some(65_535)), (65_736, None)] {
        let Inbound::Message(message) = response_headers(status) else {
            panic!("{status}");
        };
        match (message, read) {
            (Ok(Message::Event(Event::ResponseHeaders(head), _)), Some(status)) => {
                assert_eq!(head.status, status);
            }
            (Err(bad), None) => {
                assert_eq!((bad.what, bad.at), (BadEvent::Mistyped, "status"));
                assert_eq!(bad.correlation_id.as_deref(), Some("c1"));
            }
            (other, _) => panic!("{status}: {other:?}"),
        }
    }
}

#[test]
fn a_port_is_checked_and_cut_off_the_address() {
    let head = |client_port| {
        read_sent(proxy_to_agent::Message::RequestHeaders(
            RequestHeadersEvent {
                metadata: Some(proto::RequestMetadata {
                    correlation_id: "c1".into(),
                    client_ip: "192.0.2.7:5678".into(),
                    client_port,
                    ..proto::RequestMetadata::default()
                }),
                ..RequestHeadersEvent::default()
            },
        ))
    };
    let Inbound::Message(Ok(Message::Event(Event::RequestHeaders(read), _))) = head(65_535) else {
        panic!("not read");
    };
    assert_eq!(read.client_ip, "192.0.2.7");
    assert!(matches!(
        head(70_000),
        Inbound::Message(Err(BadMessage {
            at: "client_port",
            ..
        }))
    ));
}

#[test]
fn bodies_are_bytes_as_they_are() {
    let data = vec![0, 0xff, b'"'];
    let inbound = read_sent(proxy_to_agent::Message::RequestBodyChunk(BodyChunkEvent {
        correlation_id: "c1".into(),
        chunk_index: u32::MAX,
        data: data.clone(),
        is_last: true,
        total_size: Some(3),
        bytes_transferred: 3,
        ..BodyChunkEvent::default()
    }));
    let Inbound::Message(Ok(Message::Event(Event::RequestBody { chunk, .. }, _))) = inbound else {
        panic!("{inbound:?}");
    };
    assert_eq!((chunk.data, chunk.chunk_index), (data, u32::MAX));
    assert_eq!((chunk.total_size, chunk.transferred_bytes), (Some(3), 3));
}

#[test]
fn what_is_unknown_is_nothing_and_what_is_broken_an_error() {
    assert_eq!(read(b"").unwrap(), Inbound::Nothing);
    // Field 99, a message of no bytes.
    assert_eq!(read(&[0x9a, 0x06, 0x00]).unwrap(), Inbound::Nothing);
    assert!(read(&[0x0a, 0xff]).is_err());
}

#[test]
fn every_decision_is_named() {
    use agent_response::Decision as Sent;
    let sent = |decision| match answer(&AgentResponse::new(decision), "c1") {
        agent_to_proxy::Message::Response(response) => response.decision.unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(sent(Decision::Allow), Sent::Allow(_)));
    let block = Decision::Block {
        status: 451,
        body: Some("no".into()),
    };
    let Sent::Block(block) = sent(block) else {
        panic!("no block");
    };
    assert_eq!((block.status, block.body.as_deref()), (451, Some("no")));
    assert!(block.headers.is_empty());
    let redirect = Decision::Redirect {
        url: "/x".into(),
        status: 308,
    };
    assert!(matches!(sent(redirect), Sent::Redirect(to) if to.status == 308 && to.url == "/x"));
    let challenge = Decision::Challenge {
        challenge_type: "js".into(),
        params: BTreeMap::from([("k".into(), "v".into())]),
    };
    assert!(matches!(sent(challenge), Sent::Challenge(asked) if asked.params["k"] == "v"));
}

#[test]
fn a_block_brings_its_headers_itself() {
    use agent_response::Decision as Sent;
    let mut response = AgentResponse::new(Decision::Block {
        status: 429,
        body: None,
    });
    response.response_headers = vec![HeaderOp::Set {
        name: "retry-after".into(),
        value: "9".into(),
    }];
    let agent_to_proxy::Message::Response(sent) = answer(&response, "c1") else {
        panic!("no answer");
    };
    let Some(Sent::Block(block)) = sent.decision else {
        panic!("no block");
    };
    let [header] = &block.headers[..] else {
        panic!("{:?}", block.headers);
    };
    assert_eq!((&*header.name, &*header.value), ("retry-after", "9"));
}
