//! How calls begin, go on and end.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;
use wasm_agent_kit::internals::server::{Drain, ServeSettings};

use super::support::*;

#[tokio::test]
async fn both_service_names_are_served_and_headers_come_first() {
    let server = Server::start("right/allow.wat").await;
    for package in [ZENTINEL, SENTINEL] {
        let mut client = Client::open(server.channel().await, package).await;
        client.send(handshake("0.6.54"));
        client.send(request("c1"));
        let FromAgent::Handshake(answer) = client.receive().await else {
            panic!("the handshake is answered first");
        };
        let able = answer.capabilities.unwrap();
        assert_eq!(answer.protocol_version, 2);
        assert_eq!(able.supported_events, [1, 2, 3, 4, 8]);
        assert_eq!(able.limits.unwrap().max_concurrency, 100);
        assert_eq!(client.outcome().await, pair("c1", "allow"));
        client.send = None;
        assert_eq!(client.end().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_handshake_without_our_version_is_refused() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.open().await;
    client.send(ToAgent::Handshake(proto::HandshakeRequest {
        supported_versions: vec![3],
        ..Default::default()
    }));
    let FromAgent::Handshake(answer) = client.receive().await else {
        panic!("no handshake");
    };
    assert!(!answer.success && answer.error.is_some());
    assert_eq!(
        client.end().await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn an_event_before_the_handshake_is_refused_and_not_silent() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.open().await;
    client.send(request("early"));
    let refused = client.outcome().await;
    assert_eq!(refused, pair("early", "bad-event:before-handshake"));
    client.send(handshake("0.6.54"));
    assert!(matches!(client.receive().await, FromAgent::Handshake(_)));
    client.send(request("c1"));
    assert_eq!(client.outcome().await, pair("c1", "allow"));
    client.send(handshake("0.6.54"));
    assert_eq!(
        client.end().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// A runaway guest delays no ping.
#[tokio::test]
async fn a_ping_is_answered_while_guests_run() {
    let server = Server::start("hostile/spin.wat").await;
    let mut client = server.greeted("0.6.54").await;
    client.send(request("c1"));
    client.send(ping(7));
    let FromAgent::Pong(pong) = client.receive().await else {
        panic!("no pong");
    };
    assert_eq!((pong.sequence, pong.ping_timestamp_ms), (7, 11));
    assert_eq!(client.outcome().await, pair("c1", "deadline"));
}

/// The pong accepts, the end of the stream refuses and says why.
#[tokio::test]
async fn pushed_settings_are_in_force_or_the_stream_ends() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.greeted("0.6.54").await;
    for config in ["", "{}", r#"{"pool-size":1,"fail-open":false}"#] {
        client.send(configure(config));
        client.send(ping(1));
        assert!(matches!(client.receive().await, FromAgent::Pong(_)));
    }
    client.send(configure(r#"{"fail-open":"yes"}"#));
    client.send(ping(2));
    let refused = client.end().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("fail-open"), "{refused}");
    let client = server.greeted("0.6.54").await;
    client.send(configure("{"));
    assert_eq!(
        client.end().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_cancelled_event_is_neither_called_nor_answered() {
    let server = Server::start("hostile/spin.wat").await;
    let mut client = server.greeted("0.6.54").await;
    let start = Instant::now();
    client.send(request("runs"));
    for id in (0..50).map(|number| number.to_string()) {
        client.send(request(&id));
        client.send(ToAgent::Cancel(proto::CancelRequest {
            correlation_id: id,
            ..Default::default()
        }));
    }
    client.send = None;
    assert_eq!(client.outcome().await, pair("runs", "deadline"));
    assert_eq!(client.end().await.unwrap(), 0);
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// What was received is answered, the stream says so and ends well.
#[tokio::test]
async fn what_was_received_is_answered_after_the_signal_to_stop() {
    let settings = ServeSettings {
        queue_wait: LONG,
        ..ServeSettings::default()
    };
    let mut server = Server::with(agent("hostile/spin.wat", 1), settings, None).await;
    let mut client = server.greeted("0.6.54").await;
    for number in 0..5 {
        client.send(request(&number.to_string()));
    }
    server.stop.take();
    let (mut answered, mut draining) = (0, false);
    while let Some(message) = client.next().await.unwrap() {
        match message {
            FromAgent::Response(_) => answered += 1,
            FromAgent::Health(health) => draining = health.state() == proto::HealthState::Draining,
            other => panic!("{other:?}"),
        }
    }
    assert!(draining);
    assert_eq!(answered, 5);
    let drain = timeout(LONG, server.served).await.unwrap().unwrap();
    assert_eq!(drain.unwrap(), Drain::Complete);
}

#[tokio::test]
async fn a_message_of_an_unknown_kind_harms_nothing() {
    let server = Server::start("right/allow.wat").await;
    let mut client = server.greeted("0.6.54").await;
    let unknown = ProxyToAgent { message: None };
    client.send.as_ref().unwrap().send(unknown).unwrap();
    client.send(request("c1"));
    assert_eq!(client.outcome().await, pair("c1", "allow"));
}

#[tokio::test]
async fn one_event_can_be_asked_about_by_itself() {
    let server = Server::start("right/deny.wat").await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    let mut call = async |message: Option<ToAgent>, method: &str| {
        grpc.ready().await.unwrap();
        let path = format!("/sentinel.agent.v2.AgentServiceV2/{method}");
        let codec = ProstCodec::<ProxyToAgent, AgentToProxy>::default();
        let request = Request::new(ProxyToAgent { message });
        let call = grpc.unary(request, path.parse().unwrap(), codec);
        let answered = timeout(LONG, call).await.unwrap();
        answered.map(|answer| answer.into_inner().message.unwrap())
    };
    let answer = call(Some(request("c1")), "ProcessEvent").await.unwrap();
    assert!(matches!(answer, FromAgent::Response(answer) if answer.correlation_id == "c1"));
    let answer = call(Some(ping(3)), "ProcessEvent").await.unwrap();
    assert!(matches!(answer, FromAgent::Pong(_)));
    for message in [None, Some(configure("{}"))] {
        let refused = call(message, "ProcessEvent").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let refused = call(None, "ProcessNothing").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_control_stream_is_accepted_and_drained() {
    let server = Server::start("right/allow.wat").await;
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.unwrap();
    let (send, messages) = mpsc::unbounded_channel();
    let call = grpc.streaming(
        Request::new(UnboundedReceiverStream::new(messages)),
        "/zentinel.agent.v2.AgentServiceV2/ControlStream"
            .parse()
            .unwrap(),
        ProstCodec::<proto::AgentControl, proto::ProxyControl>::default(),
    );
    let mut receive = timeout(LONG, call).await.unwrap().unwrap().into_inner();
    for _ in 0..1_000 {
        let log = proto::LogMessage {
            message: "x".repeat(10_000),
            ..Default::default()
        };
        send.send(proto::AgentControl {
            message: Some(proto::agent_control::Message::Log(log)),
        })
        .unwrap();
    }
    drop(send);
    let end = timeout(LONG, receive.message()).await.unwrap();
    assert!(end.unwrap().is_none());
}

/// Section 6 of the protocol: on a timer, in the form that clients read.
#[tokio::test]
async fn metrics_are_sent_on_a_timer() {
    let settings = ServeSettings {
        metrics_interval: Some(Duration::from_millis(50)),
        ..ServeSettings::default()
    };
    let server = Server::with(agent("right/allow.wat", 1), settings, None).await;
    let mut client = server.open().await;
    client.send(handshake("0.6.54"));
    let FromAgent::Handshake(shaken) = client.receive().await else {
        panic!("no handshake");
    };
    let features = shaken.capabilities.unwrap().features.unwrap();
    assert!(features.metrics_export);
    client.send(request("c1"));
    client.answer().await;
    let report = loop {
        let FromAgent::Metrics(report) = client.next().await.unwrap().unwrap() else {
            panic!("no report");
        };
        let allowed = report.counters.iter().find(|counter| {
            counter.name == "wasm_agent_events_total"
                && counter.labels["event"] == "request_headers"
                && counter.labels["decision"] == "allow"
        });
        // A report that was under way before the event knows nothing of it.
        if allowed.unwrap().value == 1 {
            break report;
        }
    };
    assert_eq!((report.agent_id.as_str(), report.interval_ms), ("wasm", 50));
    assert!(
        report
            .gauges
            .iter()
            .any(|gauge| gauge.name == "wasm_agent_pool_size")
    );
    let calls = report.histograms.iter().find(|histogram| {
        histogram.name == "wasm_agent_call_duration_seconds"
            && histogram.labels["event"] == "request_headers"
    });
    let calls = calls.unwrap();
    assert_eq!((calls.count, calls.buckets.last().unwrap().count), (1, 1));
    assert!(calls.buckets.last().unwrap().le.is_infinite());
    // Nobody is sent what nobody asked for.
    let settings = ServeSettings {
        metrics_interval: None,
        ..ServeSettings::default()
    };
    let server = Server::with(agent("right/allow.wat", 1), settings, None).await;
    let mut client = server.open().await;
    client.send(handshake("0.6.54"));
    let FromAgent::Handshake(shaken) = client.receive().await else {
        panic!("no handshake");
    };
    assert!(
        !shaken
            .capabilities
            .unwrap()
            .features
            .unwrap()
            .metrics_export
    );
}

/// Streams on one connection are bounded, and the peer is told how many.
#[tokio::test]
async fn p_13_streams_on_a_connection_are_bounded() {
    let server = Server::start("right/allow.wat").await;
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let mut send = send.ready().await.unwrap();
    let mut connection = std::pin::pin!(connection);
    // Ends when the server does; its settings have come by then.
    let path = format!(
        "http://{}/zentinel.agent.v2.AgentServiceV2/ProcessStream",
        server.address
    );
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (response, _body) = send.send_request(request, false).unwrap();
    tokio::select! {
        ended = connection.as_mut() => panic!("{ended:?}"),
        answered = timeout(LONG, response) => assert_eq!(answered.unwrap().unwrap().status(), 200),
    }
    assert_eq!(connection.max_concurrent_send_streams(), 200);
}

/// A call that says nothing is not kept.
#[tokio::test]
async fn a_silent_call_is_ended() {
    let settings = ServeSettings {
        handshake_timeout: Duration::from_millis(50),
        ..ServeSettings::default()
    };
    let server = Server::with(agent("right/allow.wat", 1), settings, None).await;
    let client = server.open().await;
    assert_eq!(
        client.end().await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
}
