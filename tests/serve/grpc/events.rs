//! Events of every kind, size and number: each is answered, once.

use tonic::Code;
use wasm_agent_kit::internals::server::ServeSettings;

use super::support::*;

#[tokio::test]
async fn every_kind_of_event_is_answered() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.greeted("0.6.54").await;
    let events = [
        request("c1"),
        ToAgent::RequestBodyChunk(body("c1", vec![0xff, 0])),
        response("c1", 200),
        ToAgent::ResponseBodyChunk(body("c1", Vec::new())),
        ToAgent::WebsocketFrame(proto::WebSocketFrameEvent {
            correlation_id: "c1".into(),
            ..Default::default()
        }),
        ToAgent::Guardrail(proto::GuardrailInspectEvent {
            correlation_id: "c1".into(),
            ..Default::default()
        }),
        ToAgent::RequestComplete(proto::RequestCompleteEvent {
            correlation_id: "c1".into(),
            status_code: 99_999,
            ..Default::default()
        }),
    ];
    for event in events {
        client.send(event);
        assert_eq!(client.outcome().await, pair("c1", "allow"));
    }
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_and_the_stream_goes_on() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.greeted("0.6.54").await;
    client.send(response("c1", 65_736));
    assert_eq!(client.outcome().await, pair("c1", "bad-event:mistyped"));
    let ToAgent::RequestHeaders(mut event) = request("c2") else {
        panic!("not a request");
    };
    event.metadata.as_mut().unwrap().client_port = 70_000;
    client.send(ToAgent::RequestHeaders(event.clone()));
    assert_eq!(client.outcome().await, pair("c2", "bad-event:mistyped"));
    event.metadata = None;
    client.send(ToAgent::RequestHeaders(event));
    assert_eq!(client.outcome().await, pair("", "bad-event:missing"));
    client.send(request("c3"));
    assert_eq!(client.outcome().await, pair("c3", "allow"));
}

/// More than tonic's default, and more than our own limit.
#[tokio::test]
async fn large_messages_pass_up_to_sixteen_mebibytes() {
    let server = Server::start("right/response-only.wat").await;
    let channel = server.channel().await;
    let mut client = Client::open(channel.clone(), ZENTINEL).await;
    client.send(handshake("0.6.54"));
    client.receive().await;
    client.send(ToAgent::RequestBodyChunk(body("c1", vec![0; 5 << 20])));
    assert_eq!(client.outcome().await, pair("c1", "allow"));
    client.send(ToAgent::RequestBodyChunk(body("c2", vec![0; 16 << 20])));
    assert_eq!(
        client.end().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    // The connection, and so the other streams on it, survive.
    let mut other = Client::open(channel, ZENTINEL).await;
    other.send(handshake("0.6.54"));
    other.receive().await;
}

#[tokio::test]
async fn a_thousand_events_in_flight_are_answered_once_each() {
    let settings = ServeSettings {
        max_in_flight: 1_000,
        queue_wait: LONG,
        ..ServeSettings::default()
    };
    let server = Server::with(agent("right/allow.wat", 2), settings, None).await;
    let mut client = server.greeted("0.6.54").await;
    for number in 0..1_000 {
        client.send(request(&format!("{number:03}")));
    }
    client.send = None;
    let mut answered = Vec::new();
    while let Some(message) = client.next().await.unwrap() {
        let FromAgent::Response(answer) = message else {
            panic!("{message:?}");
        };
        assert!(matches!(answer.decision, Some(Decision::Allow(_))));
        answered.push(answer.correlation_id);
    }
    answered.sort();
    let sent: Vec<_> = (0..1_000).map(|number| format!("{number:03}")).collect();
    assert_eq!(answered, sent);
}

#[tokio::test]
async fn no_room_is_overload_and_never_silence() {
    let settings = ServeSettings {
        max_in_flight: 4,
        ..ServeSettings::default()
    };
    let server = Server::with(agent("hostile/spin.wat", 1), settings, None).await;
    let mut client = server.greeted("0.6.54").await;
    for number in 0..20 {
        client.send(request(&number.to_string()));
    }
    let mut overload = 0;
    for _ in 0..20 {
        match client.outcome().await.1.as_str() {
            "overload" => overload += 1,
            "deadline" => {}
            other => panic!("{other}"),
        }
    }
    assert!(overload >= 16, "{overload}");
}
