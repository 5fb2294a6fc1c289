//! Connections over a stream in memory, with a clock that can be moved.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::accept::Crowd;
use super::connection::{Connection, Given};
use super::exchanges::Peer;
use super::metrics::Seen;
use super::peer::{ReadHalf, serve_peer};
use super::*;
use crate::cost::Cost;
use crate::event::{Event, RequestHead, ResponseHead};
use crate::fault::{Fault, FaultCode};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{LoadSettings, Module};
use crate::policy::decision::FailurePolicy;
use crate::policy::pool::PoolSettings;
use crate::policy::{Handled, PolicySettings};
use crate::protocol::proxy::{Proxy, ProxyQuirks};
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::{Dialect, RequestBodyText};
use crate::protocol::wire::{Encoding, HttpVersion};
use crate::question::HeaderNames;
use crate::response::{AgentResponse, BodyMutation, Decision, HeaderOp};

impl ReadHalf for tokio::io::ReadHalf<DuplexStream> {
    fn stop(&self) -> bool {
        false
    }
}

pub(super) struct Server {
    shared: Arc<Shared>,
    crowd: Arc<Crowd>,
    stop: watch::Sender<bool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

fn policy(module: &str, pool_size: usize, failure_policy: FailurePolicy) -> Arc<Policy> {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/modules")
        .join(module);
    let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
    let settings = PolicySettings {
        pool: PoolSettings {
            size: pool_size,
            ..PoolSettings::default()
        },
        failure_policy,
        ..PolicySettings::default()
    };
    Arc::new(Policy::new(Arc::new(module), settings))
}

impl Server {
    pub(super) fn new(module: &str) -> Self {
        Self::with(module, 1, ServeSettings::default())
    }

    fn with(module: &str, pool_size: usize, settings: ServeSettings) -> Self {
        let policy = policy(module, pool_size, FailurePolicy::Closed);
        let shared = Arc::new(Shared::new(policy.into(), settings));
        shared.start_guests(pool_size).unwrap();
        Self {
            shared,
            crowd: Arc::new(Crowd::new()),
            stop: watch::channel(false).0,
        }
    }

    fn connect(&self) -> Client {
        self.connect_with(1 << 20)
    }

    fn connect_with(&self, buffer: usize) -> Client {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let theirs = tokio::io::split(theirs);
        let mut stopped = self.stop.subscribe();
        let stop = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let (shared, crowd) = (Arc::clone(&self.shared), Arc::clone(&self.crowd));
        Client {
            stream: ours,
            over: tokio::spawn(async move {
                serve_peer(theirs, shared, &crowd, stop).await;
            }),
        }
    }

    /// A connection that nobody reads or writes.
    pub(super) fn connection(&self, protocol: Protocol) -> Connection {
        let dialect = Dialect {
            protocol,
            encoding: Encoding::Json,
            request_body: RequestBodyText::Verbatim,
        };
        let old = Proxy::new(ProxyQuirks::Auto, Some("0.6.45"));
        let shared = Arc::clone(&self.shared);
        Connection::new(shared, dialect, Some(old), Peer::Unknown)
    }

    async fn connect_v2(&self) -> Client {
        let mut client = self.connect();
        client.send(0x01, &handshake("0.6.54")).await;
        assert_eq!(client.receive().await.unwrap().0, 0x02);
        client
    }
}

fn handshake(version: &str) -> Value {
    json!({"supported_versions":[2],"proxy_id":"zentinel-proxy","proxy_version":version,
        "config":null,"supported_encodings":["json"]})
}

struct Client {
    stream: DuplexStream,
    over: JoinHandle<()>,
}

impl Client {
    async fn send(&mut self, kind: u8, payload: &Value) {
        let payload = serde_json::to_vec(payload).unwrap();
        self.send_raw(kind, &payload).await;
    }

    async fn send_raw(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = Vec::new();
        assert!(Protocol::V2.write(kind, &mut frame, |out| out.extend_from_slice(payload)));
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame's type and payload; none at the end of the stream.
    async fn receive(&mut self) -> Option<(u8, Value)> {
        let length = self.stream.read_u32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut frame).await.unwrap();
        Some((frame[0], serde_json::from_slice(&frame[1..]).unwrap()))
    }

    /// The next answer's correlation id and first reason code or decision.
    async fn answer(&mut self) -> (String, String) {
        let (kind, answer) = self.receive().await.unwrap();
        assert_eq!(kind, 0x20);
        let id = answer["audit"]["custom"]["correlation_id"]
            .as_str()
            .unwrap();
        let what = answer["audit"]["reason_codes"][0]
            .as_str()
            .or_else(|| answer["decision"].as_str())
            .unwrap_or("refused");
        (id.to_owned(), what.to_owned())
    }

    /// Waits until the server has closed the stream.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        self.over.await.unwrap();
    }
}

fn request(id: &str) -> Value {
    json!({"correlation_id":id,"metadata":{"correlation_id":id,"client_ip":"192.0.2.7:5"},
        "method":"GET","uri":"/","headers":{"host":["a"]}})
}

fn pair(id: &str, what: &str) -> (String, String) {
    (id.to_owned(), what.to_owned())
}

/// A v1 proxy connects long before it has anything to say.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_closed_when_others_wait_for_its_place() {
    let server = Server::new("right/allow.wat");
    let peers: Vec<_> = (0..500).map(|_| server.connect()).collect();
    let mut one = server.connect();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    one.send(0x01, &handshake("0.6.54")).await;
    assert_eq!(one.receive().await.unwrap().0, 0x02);
    let late = server.connect();
    let start = Instant::now();
    // One for each that waits, the longest silent first.
    let mut peers = peers.into_iter();
    for _ in 0..499 {
        server.crowd.wait();
        peers.next().unwrap().closed().await;
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut last = peers.next().unwrap();
    last.send(0x01, &handshake("0.6.54")).await;
    assert_eq!(last.receive().await.unwrap().0, 0x02);
    // Who has come only now has its five seconds.
    server.crowd.wait();
    late.closed().await;
    let waited = start.elapsed();
    assert!((5..=6).contains(&waited.as_secs()), "{waited:?}");
}

/// A message that takes too much beside others is given up at once, however
/// long it might still take, and what was answered before is not lost.
#[tokio::test(start_paused = true)]
async fn of_too_many_unfinished_messages_the_oldest_is_given_up() {
    let settings = ServeSettings {
        max_unfinished_bytes: 1 << 20,
        ..ServeSettings::default()
    };
    let server = Server::with("right/allow.wat", 1, settings);
    let unfinished = [&[0, 0xff, 0, 0, 0x10], vec![b'x'; 600 << 10].as_slice()].concat();
    let mut oldest = server.connect_v2().await;
    oldest.send(0x10, &request("before")).await;
    oldest.stream.write_all(&unfinished).await.unwrap();
    assert_eq!(oldest.answer().await, pair("before", "allow"));
    // The clock moves when all that was sent is read.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut v1 = server.connect();
    v1.stream.write_all(&[0, 0x90, 0, 0, b'{']).await.unwrap();
    v1.stream.write_all(&unfinished).await.unwrap();
    let start = Instant::now();
    oldest.closed().await;
    assert!(start.elapsed() < Duration::from_secs(1));
    // One that is whole soon gets through beside those that are not.
    let mut honest = server.connect_v2().await;
    let mut large = request("large").to_string().into_bytes();
    large.resize(3 << 20, b' ');
    honest.send_raw(0x10, &large).await;
    assert_eq!(honest.answer().await, pair("large", "allow"));
    v1.closed().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_first_message_is_cut_after_five_seconds() {
    let server = Server::new("right/allow.wat");
    let mut peer = server.connect();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let start = Instant::now();
    peer.stream.write_all(&[0, 0, 0]).await.unwrap();
    peer.closed().await;
    let waited = start.elapsed();
    assert!((5..=6).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_is_cut_after_ten_seconds() {
    let server = Server::new("right/allow.wat");
    let mut client = server.connect_v2().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let start = Instant::now();
    client.stream.write_all(&[0, 0xff, 0xff]).await.unwrap();
    let mut beats = tokio::time::interval(Duration::from_secs(1));
    let cut = loop {
        beats.tick().await;
        if client.stream.write_all(b"x").await.is_err() {
            break start.elapsed();
        }
    };
    assert!((10..=11).contains(&cut.as_secs()), "{cut:?}");
}

#[tokio::test]
async fn lengths_out_of_range_end_the_connection() {
    let server = Server::new("right/allow.wat");
    for length in [0_u32, 16_777_217, u32::MAX] {
        let mut client = server.connect_v2().await;
        client.stream.write_u32(length).await.unwrap();
        client.closed().await;
    }
}

/// What is in flight is answered first.
#[tokio::test]
async fn a_message_no_proxy_may_send_ends_the_connection() {
    let server = Server::new("right/allow.wat");
    for kind in [0x00, 0x01, 0x02, 0x18, 0x20, 0x30, 0x42, 0xff] {
        let mut client = server.connect_v2().await;
        client.send(0x10, &request("c1")).await;
        client.send(kind, &json!({})).await;
        assert_eq!(client.answer().await, pair("c1", "allow"), "{kind:#x}");
        client.closed().await;
    }
}

#[tokio::test]
async fn a_handshake_that_cannot_be_used_is_refused_and_closed() {
    let server = Server::new("right/allow.wat");
    for handshake in [json!({"supported_versions":[3]}), json!({}), json!([])] {
        let mut client = server.connect();
        client.send(0x01, &handshake).await;
        let (kind, answer) = client.receive().await.unwrap();
        assert_eq!((kind, &answer["success"]), (0x02, &json!(false)));
        client.closed().await;
    }
    let mut client = server.connect();
    client.send(0x10, &request("c1")).await;
    client.closed().await;
}

/// The connection stays, the event is refused.
#[tokio::test]
async fn events_that_cannot_be_read_are_refused() {
    let server = Server::new("right/allow.wat");
    let mut client = server.connect_v2().await;
    client
        .send(
            0x12,
            &json!({"correlation_id":"c1","status":65736,"headers":{}}),
        )
        .await;
    assert_eq!(client.answer().await, pair("c1", "bad-event:mistyped"));
    client.send_raw(0x10, br#"{"correlation_id":"c2","#).await;
    assert_eq!(client.answer().await, pair("c2", "bad-event:malformed"));
    client.send(0x10, &request("c3")).await;
    assert_eq!(client.answer().await, pair("c3", "allow"));
    client.send_raw(0x10, b"{}").await;
    client.closed().await;
}

#[tokio::test]
async fn events_without_a_handler_are_allowed() {
    let server = Server::new("right/allow.wat");
    let mut client = server.connect_v2().await;
    for kind in [0x14, 0x15, 0x16] {
        client.send(kind, &json!({"correlation_id":"c1"})).await;
        assert_eq!(client.answer().await, pair("c1", "allow"));
    }
    let body = json!({"correlation_id":"c1","data":"AA==","is_last":true});
    client.send(0x11, &body).await;
    assert_eq!(client.answer().await, pair("c1", "allow"));
}

/// Nothing is accepted and then ignored.
#[tokio::test]
async fn pushed_settings_are_in_force_or_refused() {
    let server = Server::new("right/allow.wat");
    let mut client = server.connect_v2().await;
    for (config, accepted) in [
        (json!(null), true),
        (json!({}), true),
        (
            json!({"pool-size":1,"fail-open":false,"timeout-ms":100}),
            true,
        ),
        (json!({"fail-open":true}), false),
        (json!({"new":1}), false),
        (json!(7), false),
    ] {
        let push = json!({"correlation_id":"c","config":config,"config_version":null});
        client.send(0x17, &push).await;
        let (_, answer) = client.receive().await.unwrap();
        assert_eq!(answer["decision"] == "allow", accepted, "{config}");
    }
}

/// Only the last event of an id that is in flight has a place in the
/// client.
#[tokio::test]
async fn an_answer_that_was_superseded_is_not_sent() {
    let server = Server::new("hostile/spin.wat");
    let mut client = server.connect_v2().await;
    client.send(0x10, &request("c1")).await;
    client.send(0x10, &request("c1")).await;
    client.send(0x10, &request("")).await;
    let mut answers = [client.answer().await, client.answer().await];
    answers.sort();
    assert_eq!(answers[0].0, "");
    assert_eq!(answers[1].0, "c1");
    client.stream.shutdown().await.unwrap();
    client.closed().await;
}

/// A cancel, for events that wait.
#[tokio::test]
async fn a_cancelled_event_is_neither_called_nor_answered() {
    let server = Server::new("hostile/spin.wat");
    let mut client = server.connect_v2().await;
    client.send(0x10, &request("runs")).await;
    for number in 0..50 {
        let id = format!("waits-{number}");
        client.send(0x10, &request(&id)).await;
        client
            .send(
                0x40,
                &json!({"correlation_id":id,"reason":0,"timestamp_ms":1}),
            )
            .await;
    }
    client
        .send(0x40, &json!({"correlation_id":"unknown"}))
        .await;
    client.send_raw(0x40, b"nonsense").await;
    let start = std::time::Instant::now();
    assert_eq!(client.answer().await, pair("runs", "deadline"));
    client.stream.shutdown().await.unwrap();
    client.closed().await;
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// A runaway guest delays no ping.
#[tokio::test]
async fn a_ping_is_answered_while_guests_run() {
    let server = Server::new("hostile/spin.wat");
    let mut client = server.connect_v2().await;
    client.send(0x10, &request("c1")).await;
    client
        .send_raw(0x41, br#"{"sequence":7, "timestamp_ms":1}"#)
        .await;
    let (kind, pong) = client.receive().await.unwrap();
    assert_eq!((kind, &pong["sequence"]), (0x42, &json!(7)));
    assert_eq!(client.answer().await, pair("c1", "deadline"));
}

/// What there is no room for is answered at once.
#[tokio::test]
async fn no_room_is_overload_and_never_silence() {
    let settings = ServeSettings {
        max_queue: 2,
        max_in_flight: 4,
        ..ServeSettings::default()
    };
    let server = Server::with("hostile/spin.wat", 1, settings);
    let mut client = server.connect_v2().await;
    for number in 0..20 {
        client.send(0x10, &request(&number.to_string())).await;
    }
    let mut whats = Vec::new();
    for _ in 0..20 {
        whats.push(client.answer().await.1);
    }
    let overload = whats.iter().filter(|what| *what == "overload").count();
    assert!(overload >= 17, "{whats:?}");
    assert!(
        whats
            .iter()
            .all(|what| what == "overload" || what == "deadline")
    );
}

/// An event that waits too long is answered although no guest came free.
#[tokio::test]
async fn a_long_wait_is_overload_in_time() {
    let settings = ServeSettings {
        queue_wait: Duration::from_millis(20),
        ..ServeSettings::default()
    };
    let server = Server::with("hostile/spin.wat", 1, settings);
    let watch_queue = tokio::spawn(refuse_expired(Arc::clone(&server.shared)));
    let mut client = server.connect_v2().await;
    client.send(0x10, &request("runs")).await;
    client.send(0x10, &request("waits")).await;
    assert_eq!(client.answer().await, pair("waits", "overload"));
    assert_eq!(client.answer().await, pair("runs", "deadline"));
    watch_queue.abort();
}

/// A peer that reads nothing is closed and holds little.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_answers_is_closed() {
    let server = Server::new("right/response-only.wat");
    let mut client = server.connect_with(64);
    let start = Instant::now();
    client.send(0x01, &handshake("0.6.54")).await;
    let closed = loop {
        let mut frame = Vec::new();
        assert!(Protocol::V2.write(0x41, &mut frame, |out| out.extend_from_slice(b"{}")));
        if client.stream.write_all(&frame).await.is_err() {
            break start.elapsed();
        }
    };
    assert!((5..=6).contains(&closed.as_secs()), "{closed:?}");
}

#[tokio::test]
async fn v1_answers_in_order_and_refuses_what_it_cannot_read() {
    let server = Server::new("right/deny.wat");
    let mut client = server.connect();
    let good = json!({"version":1,"event_type":"request_headers","payload":request("c1")});
    let mut frames = Vec::new();
    for payload in [good.to_string(), "{broken".to_owned(), good.to_string()] {
        assert!(Protocol::V1.write(0, &mut frames, |out| {
            out.extend_from_slice(payload.as_bytes());
        }));
    }
    client.stream.write_all(&frames).await.unwrap();
    client.stream.shutdown().await.unwrap();
    let mut answers = Vec::new();
    client.stream.read_to_end(&mut answers).await.unwrap();
    let mut rest = answers.as_slice();
    let mut statuses = Vec::new();
    while let Some(frame) = Protocol::V1.frame(rest).unwrap() {
        let answer: Value = serde_json::from_slice(frame.payload).unwrap();
        assert_eq!(answer["version"], 1);
        statuses.push(answer["decision"]["block"]["status"].clone());
        rest = &rest[frame.size..];
    }
    assert_eq!(statuses, [403, 500, 403]);
}

#[tokio::test]
async fn a_late_v1_answer_closes_the_connection_instead() {
    let settings = ServeSettings {
        late_after: Some(Duration::from_millis(10)),
        ..ServeSettings::default()
    };
    let server = Server::with("hostile/spin.wat", 1, settings);
    let mut client = server.connect();
    let event = json!({"version":1,"event_type":"request_headers","payload":request("c1")});
    let mut frame = Vec::new();
    assert!(Protocol::V1.write(0, &mut frame, |out| {
        out.extend_from_slice(event.to_string().as_bytes());
    }));
    client.stream.write_all(&frame).await.unwrap();
    let mut answers = Vec::new();
    client.stream.read_to_end(&mut answers).await.unwrap();
    assert!(answers.is_empty());
    // An answer that is not sent is none, but health is to know of its fault.
    let total = |family: &str, labels: &[&str]| counted(&server, family, labels);
    assert_eq!(total("wasm_agent_events_abandoned_total", &[]), 1);
    assert_eq!(total("wasm_agent_faults_total", &["deadline"]), 1);
    let answered = ["request_headers", "block"];
    assert_eq!(total("wasm_agent_events_total", &answered), 0);
}

/// The recording holds the answer that replaced the module's, and none where
/// none was sent.
#[tokio::test]
async fn what_is_recorded_is_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = |name: &str| recorder(&folder.path().join(name));
    let (replaced, dropped) = (recorder("replaced"), recorder("dropped"));
    // Bytes that are no text, which no proxy could be sent.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules");
    let wat = std::fs::read_to_string(fixtures.join("right/request-body-replace.wat")).unwrap();
    let wat = wat
        .replace("replaced by the module", "//////////////////8=")
        .replace("utf8", "base64");
    let module = folder.path().join("binary.wat");
    std::fs::write(&module, wat).unwrap();
    let settings = ServeSettings {
        recorder: Some(Arc::clone(&replaced)),
        ..ServeSettings::default()
    };
    let server = Server::with(module.to_str().unwrap(), 1, settings);
    let mut client = server.connect_v2().await;
    let body = json!({"correlation_id":"c1","data":"eA==","is_last":true,"total_size":1,
        "chunk_index":0,"bytes_received":1});
    client.send(0x11, &body).await;
    let (_, answer) = client.receive().await.unwrap();
    assert!(answer["decision"]["block"].is_object(), "{answer}");
    replaced.close(Duration::from_secs(60));
    let text = std::fs::read_to_string(folder.path().join("replaced")).unwrap();
    let line: Value = serde_json::from_str(text.trim()).unwrap();
    assert!(line["output"]["decision"]["block"].is_object(), "{line}");

    let settings = ServeSettings {
        late_after: Some(Duration::from_millis(10)),
        recorder: Some(Arc::clone(&dropped)),
        ..ServeSettings::default()
    };
    let server = Server::with("hostile/spin.wat", 1, settings);
    let mut client = server.connect();
    let event = json!({"version":1,"event_type":"request_headers","payload":request("c1")});
    let mut frame = Vec::new();
    assert!(Protocol::V1.write(0, &mut frame, |out| {
        out.extend_from_slice(event.to_string().as_bytes());
    }));
    client.stream.write_all(&frame).await.unwrap();
    client.stream.read_to_end(&mut Vec::new()).await.unwrap();
    dropped.close(Duration::from_secs(60));
    let counts = dropped.counts();
    assert_eq!((counts.written, counts.dropped), (0, 1));
}

fn recorder(path: &Path) -> Arc<record::Recorder> {
    let settings = record::RecordSettings {
        path: path.to_owned(),
        rate: 1.0,
        max_bytes: u64::MAX,
        keep_secrets: false,
        key: None,
    };
    Arc::new(record::Recorder::start(&settings).unwrap())
}

fn without_cost(response: AgentResponse) -> Handled {
    Handled {
        is_collected: false,
        response: Box::new(response),
        fault: None,
        cost: None,
        unknown_keys: Vec::new(),
    }
}

/// Answers the head of a request by what a module is said to have answered.
fn answer(connection: &Connection, id: &str, handled: Handled) {
    let event = Event::RequestHeaders(RequestHead {
        correlation_id: id.to_owned(),
        ..RequestHead::default()
    });
    let (ticket, _) = connection.begin(id);
    let policy = connection.shared().policy();
    let asked = connection.join(event, HttpVersion::Other, &policy);
    let source = record::Source {
        exchange: asked.joined.number,
        module: "sha256:0".into(),
        names: HeaderNames::Lower,
        policy: std::sync::Weak::new(),
    };
    let given = Given {
        handled,
        source: Some(source),
    };
    connection.answer(ticket, asked, given);
}

/// A sample of the metrics.
fn counted(server: &Server, family: &str, labels: &[&str]) -> u64 {
    let policy = server.shared.policy();
    let families = server
        .shared
        .live
        .metrics()
        .picture(&policy, Now::default());
    let family = families.iter().find(|found| found.name == family).unwrap();
    let has = |sample: &&metrics::Sample| sample.labels.iter().map(|(_, value)| value).eq(labels);
    match family.samples.iter().find(has).unwrap().value {
        metrics::Value::Count(count) => count,
        ref other => panic!("{other:?}"),
    }
}

/// An answer that is too large is refused: so it is counted, so its exchange is
/// over, and so it is recorded, whatever the module had answered.
#[tokio::test]
async fn what_is_counted_and_remembered_is_what_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    let recorder = recorder(&path);
    let settings = ServeSettings {
        recorder: Some(Arc::clone(&recorder)),
        ..ServeSettings::default()
    };
    let server = Server::with("right/challenge.wat", 1, settings);
    let shared = &server.shared;
    let connection = server.connection(Protocol::V2);
    let answer = |id: &str, mut response: AgentResponse, is_large: bool| {
        response.response_headers = vec![HeaderOp::Remove {
            name: "x".to_owned(),
        }];
        response.request_body_mutation = is_large.then(|| BodyMutation {
            chunk_index: 0,
            data: vec![b'x'; 17 << 20],
        });
        answer(&connection, id, without_cost(response));
    };
    answer("large", AgentResponse::allow(), true);
    let events = |decision| {
        counted(
            &server,
            "wasm_agent_events_total",
            &["request_headers", decision],
        )
    };
    assert_eq!((events("allow"), events("block")), (0, 1));
    assert_eq!(
        counted(&server, "wasm_agent_faults_total", &["answer-limit"]),
        1
    );
    let totals = shared.live.metrics().totals();
    assert_eq!((totals.events, totals.faults.iter().sum()), (1, 1));
    answer("small", AgentResponse::allow(), false);
    assert_eq!(events("allow"), 1);
    // A refusal asks for nothing in the answer to the response.
    let repeated = |id: &str| {
        let event = Event::ResponseHeaders(ResponseHead {
            correlation_id: id.to_owned(),
            ..ResponseHead::default()
        });
        let asked = connection.join(event, HttpVersion::Other, &shared.policy());
        asked.joined.operations.len()
    };
    assert_eq!((repeated("large"), repeated("small")), (0, 1));
    let challenge = AgentResponse::new(Decision::Challenge {
        challenge_type: "js".to_owned(),
        params: std::collections::BTreeMap::new(),
    });
    answer("challenge", challenge.clone(), false);
    answer("large-challenge", challenge, true);
    assert_eq!((events("block"), events("challenge")), (3, 0));
    recorder.close(Duration::from_secs(60));
    let text = std::fs::read_to_string(path).unwrap();
    let decisions: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["output"]["decision"].clone())
        .collect();
    let asked = json!({"challenge": {"challenge_type": "js", "params": {}}});
    assert_eq!(decisions.len(), 4, "{text}");
    assert_eq!(decisions[0]["block"]["status"], 500);
    // As they were before they became a block for this proxy.
    assert_eq!(decisions[1..], [json!("allow"), asked.clone(), asked]);
}

/// Health is to tell of a guest that makes every answer late, and of no event
/// that met no guest.
#[tokio::test]
async fn of_an_answer_that_is_not_sent_the_call_and_its_fault_count() {
    let settings = ServeSettings {
        late_after: Some(Duration::ZERO),
        ..ServeSettings::default()
    };
    let server = Server::with("right/allow.wat", 1, settings);
    let metrics = server.shared.live.metrics();
    let faulted = |cost| Handled {
        fault: Some(Fault::new(FaultCode::Deadline, "")),
        cost,
        ..without_cost(AgentResponse::allow())
    };
    let total = |family: &str, labels: &[&str]| counted(&server, family, labels);
    let calls = || {
        let families = metrics.picture(&server.shared.policy(), Now::default());
        let calls = families
            .iter()
            .find(|family| family.name == "wasm_agent_call_duration_seconds");
        match &calls.unwrap().samples[0].value {
            metrics::Value::Histogram { buckets, .. } => buckets.last().unwrap().1,
            other => panic!("{other:?}"),
        }
    };
    let late = server.connection(Protocol::V1);
    answer(&late, "late", faulted(Some(Cost::default())));
    let gone = server.connection(Protocol::V2);
    gone.end();
    answer(&gone, "gone", faulted(Some(Cost::default())));
    answer(&gone, "not called", faulted(None));
    assert_eq!(calls(), 2);
    assert_eq!(total("wasm_agent_events_abandoned_total", &[]), 3);
    assert_eq!(total("wasm_agent_faults_total", &["deadline"]), 2);
    let totals = metrics.totals();
    assert_eq!((totals.events, totals.faults.iter().sum()), (2, 2));
    // Of what no module is asked about, events count and settings do not.
    for seen in [Some(Seen::Other), None] {
        let (ticket, _) = gone.begin("other");
        gone.answer_plain((ticket, "other"), server.shared.policy().pass(), seen);
    }
    assert_eq!(total("wasm_agent_events_abandoned_total", &[]), 4);
}

/// What came of settings is logged where they are applied.
#[tokio::test]
async fn the_answer_to_what_could_not_be_read_is_logged_and_no_other_plain_one() {
    let server = Server::new("right/allow.wat");
    let connection = server.connection(Protocol::V2);
    let lines = tempfile::NamedTempFile::new().unwrap();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(Arc::new(lines.reopen().unwrap()))
        .finish();
    tracing::subscriber::with_default(log, || {
        for seen in [None, Some(Seen::Other), Some(Seen::Unreadable)] {
            let id = format!("{seen:?}");
            let (ticket, _) = connection.begin(&id);
            let handled = without_cost(AgentResponse::allow());
            connection.answer_plain((ticket, &id), handled, seen);
        }
    });
    let lines = std::fs::read_to_string(lines).unwrap();
    assert_eq!(lines.matches("answered").count(), 1, "{lines}");
    assert!(lines.contains("Some(Unreadable)"), "{lines}");
}

/// What was received before the signal is answered.
#[tokio::test]
async fn what_was_received_is_answered_after_the_signal_to_stop() {
    let server = Server::new("right/allow.wat");
    let mut client = server.connect_v2().await;
    for number in 0..50 {
        client.send(0x10, &request(&number.to_string())).await;
    }
    server.stop.send(true).unwrap();
    let mut answered = 0;
    while let Some((kind, message)) = client.receive().await {
        match kind {
            0x20 => answered += 1,
            0x30 => assert_eq!(message["state"], 3),
            other => panic!("{other:#x}"),
        }
    }
    assert_eq!(answered, 50);
}

/// The quirks follow the version in the handshake, and the exchange is
/// remembered from one connection to the next.
#[tokio::test]
async fn response_operations_of_the_request_are_repeated_on_another_connection() {
    let server = Server::new("right/early-response-ops.wat");
    for (version, repeated) in [("0.6.45", true), ("0.6.54", false)] {
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = server.connect();
            client.send(0x01, &handshake(version)).await;
            client.receive().await.unwrap();
            clients.push(client);
        }
        clients[0].send(0x10, &request("c1")).await;
        let (_, first) = clients[0].receive().await.unwrap();
        assert!(!first["response_headers"].as_array().unwrap().is_empty());
        let response = json!({"correlation_id":"c1","status":200,"headers":{}});
        clients[1].send(0x12, &response).await;
        let (_, second) = clients[1].receive().await.unwrap();
        let expected = if repeated {
            first["response_headers"].clone()
        } else {
            json!([])
        };
        assert_eq!(second["response_headers"], expected, "{version}");
    }
}

/// One step of a peer that is not quite in its right mind.
fn steps() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let id = "[a-z]{1,8}";
    prop_oneof![
        4 => id.prop_map(|id| (0x10, request(&id).to_string().into_bytes())),
        1 => id.prop_map(|id| (0x12, json!({"correlation_id":id,"status":200,"headers":{}}).to_string().into_bytes())),
        1 => id.prop_map(|id| (0x11, json!({"correlation_id":id,"data":7}).to_string().into_bytes())),
        1 => (0x14_u8..=0x17, id).prop_map(|(kind, id)| (kind, json!({"correlation_id":id}).to_string().into_bytes())),
        1 => Just((0x41, b"{}".to_vec())),
        1 => id.prop_map(|id| (0x10, format!(r#"{{"correlation_id":"{id}","x"#).into_bytes())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// As many answers as requests, each with its id.
    #[test]
    fn every_request_is_answered_once(steps in prop::collection::vec(steps(), 0..100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::new("right/allow.wat");
            let mut client = server.connect_v2().await;
            let mut expected = Vec::new();
            let pattern = regex::Regex::new(r#""correlation_id":"[a-z]*""#).unwrap();
            for (number, (kind, payload)) in steps.iter().enumerate() {
                // Ids that are in flight at once differ.
                let text = String::from_utf8(payload.clone()).unwrap();
                let id = format!("n{number}");
                let text = pattern.replace_all(&text, format!(r#""correlation_id":"{id}""#));
                client.send_raw(*kind, text.as_bytes()).await;
                if *kind != 0x41 {
                    expected.push(id);
                }
            }
            client.stream.shutdown().await.unwrap();
            let mut answered = Vec::new();
            while let Some((kind, answer)) = client.receive().await {
                if kind == 0x20 {
                    answered.push(answer["audit"]["custom"]["correlation_id"].as_str().unwrap().to_owned());
                }
            }
            expected.sort();
            answered.sort();
            assert_eq!(answered, expected);
        });
    }
}
