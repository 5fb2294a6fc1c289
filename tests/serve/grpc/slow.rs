//! Peers that take nothing, or stop in the middle of something.

use std::time::Duration;

use serde_json::json;
use tokio::net::UnixListener;
use tokio::time::timeout;
use wasm_agent_kit::internals::server::Value;
use wasm_agent_kit::internals::server::{Drain, Live, ServeSettings};

use super::answers::ask_on_unix;
use super::raw::{DATA, HEADERS, Peer, RESET, bytes, frame, nothing};
use super::support::*;

const METHOD: &str = "ProcessStream";

async fn start(settings: ServeSettings) -> Server {
    Server::with(agent("right/allow.wat", 1), settings, None).await
}

/// The agent's own number for this.
fn number(live: &Live, family: &str, label: &str) -> Value {
    let families = live.picture();
    let family = families.iter().find(|found| found.name == family);
    let samples = &family.unwrap().samples;
    let sample = samples.iter().find(|sample| sample.labels[0].1 == label);
    sample.unwrap().value.clone()
}

/// How many peers were closed for this.
fn closed(live: &Live, reason: &str) -> u64 {
    match number(live, "wasm_agent_peers_closed_total", reason) {
        Value::Count(count) => count,
        _ => unreachable!("a counter"),
    }
}

/// How many streams are open whose peers said who they are.
fn open_streams(live: &Live) -> Value {
    number(live, "wasm_agent_connections", "grpc")
}

/// Reports are many and answers must be taken soon; what is left is given up
/// at the end long before the grace period is.
fn settings() -> ServeSettings {
    ServeSettings {
        write_timeout: Duration::from_millis(300),
        metrics_interval: Some(Duration::from_millis(1)),
        ..ServeSettings::default()
    }
}

async fn stops(mut server: Server) {
    server.stop.take();
    // Far below the grace period.
    let drain = timeout(LONG, server.served).await.unwrap().unwrap();
    assert_eq!(drain.unwrap(), Drain::Complete);
}

/// Whichever window is shut, and whenever: after the write timeout the peer is
/// closed, and nothing is left of it that could hold the shutdown.
#[tokio::test]
async fn x5_a_peer_that_takes_nothing_is_closed() {
    // Nothing at all, part of the first answer, some answers; then the window
    // of all streams together, which is 65 535 bytes.
    for window in [0, 1, 5_000, 16 << 20] {
        let live = Live::from(agent("right/allow.wat", 1));
        let server = Server::with(live.clone(), settings(), None).await;
        let mut peer = Peer::open(server.address, window).await;
        peer.call(1, METHOD).await;
        peer.send(1, handshake("0.6.54")).await;
        peer.closed().await;
        assert_eq!(closed(&live, "untaken"), 1, "{window}");
        stops(server).await;
    }
    for window in [0, 1] {
        let server = start(settings()).await;
        let mut peer = Peer::open(server.address, window).await;
        peer.call(1, "ProcessEvent").await;
        peer.send(1, request("c")).await;
        peer.closed().await;
        stops(server).await;
    }
}

/// The bytes that it sends keep nobody open who takes nothing.
#[tokio::test]
async fn x5_a_peer_that_sends_on_and_takes_nothing_is_closed() {
    let server = start(settings()).await;
    let mut peer = Peer::open(server.address, 0).await;
    peer.call(1, METHOD).await;
    peer.send(1, handshake("0.6.54")).await;
    let ping = bytes(ToAgent::Ping(proto::Ping::default()));
    peer.send_until_gone(&frame(DATA, 0, 1, &ping)).await;
    stops(server).await;
}

/// A call whose reader waits until its peer takes answers, and whose peer goes
/// instead: nothing is left of it.
#[tokio::test]
async fn x5_a_peer_that_takes_nothing_and_goes_leaves_nothing() {
    for resets in [true, false] {
        let live = Live::from(agent("right/allow.wat", 1));
        let settings = ServeSettings {
            // It is not this that ends the call.
            write_timeout: Duration::from_secs(600),
            ..ServeSettings::default()
        };
        let server = Server::with(live.clone(), settings, None).await;
        let mut peer = Peer::open(server.address, 0).await;
        peer.call(1, METHOD).await;
        peer.until(HEADERS, 1).await;
        peer.send(1, handshake("0.6.54")).await;
        // Less than the agent's window, and the answers are twice as large:
        // more than may wait to be sent.
        let ping = bytes(ToAgent::Ping(proto::Ping::default()));
        peer.data(1, &ping.repeat(120_000)).await;
        // The agent runs on this thread, and now has enough turns to come to
        // where it waits.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(open_streams(&live), Value::Gauge(1.0));
        if resets {
            peer.reset(1).await;
        } else {
            drop(peer);
        }
        let gone = async {
            while open_streams(&live) != Value::Gauge(0.0) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, gone).await.expect("a reader is left");
        stops(server).await;
    }
}

/// A peer that reads nothing from its socket is one that takes nothing.
#[tokio::test]
async fn x5_a_peer_that_does_not_read_is_closed() {
    let server = start(settings()).await;
    let mut peer = Peer::open(server.address, 1 << 30).await;
    peer.widen(0, 1 << 30).await;
    peer.call(1, METHOD).await;
    peer.send(1, handshake("0.6.54")).await;
    peer.send_until_gone(&nothing()).await;
    stops(server).await;
}

/// Of several calls on one connection only the one is given up whose answers
/// are not taken.
#[tokio::test]
async fn x5_a_call_that_takes_nothing_harms_no_other() {
    let server = start(ServeSettings {
        metrics_interval: None,
        ..settings()
    })
    .await;
    let mut peer = Peer::open(server.address, 0).await;
    for stream in [1, 3, 5] {
        peer.call(stream, METHOD).await;
        peer.until(HEADERS, stream).await;
    }
    peer.widen(3, 1 << 20).await;
    for stream in [1, 3, 5] {
        peer.send(stream, handshake("0.6.54")).await;
    }
    let mut given_up = Vec::new();
    while given_up.len() < 2 {
        let frame = peer.next().await.unwrap();
        match frame.kind {
            RESET => given_up.push(frame.stream),
            DATA => assert_eq!(frame.stream, 3),
            _ => {}
        }
    }
    given_up.sort_unstable();
    assert_eq!(given_up, [1, 5]);
    peer.send(3, request("c")).await;
    peer.until(DATA, 3).await;
    stops(server).await;
}

/// A peer that takes a little at a time, and all in time, is kept.
#[tokio::test]
async fn x5_a_peer_that_takes_its_time_is_kept() {
    let server = start(ServeSettings {
        write_timeout: Duration::from_secs(5),
        metrics_interval: None,
        ..ServeSettings::default()
    })
    .await;
    let mut peer = Peer::open(server.address, 0).await;
    peer.call(1, METHOD).await;
    peer.send(1, handshake("0.6.54")).await;
    peer.until(HEADERS, 1).await;
    let mut message = Vec::new();
    while message.len() < 5 || message.len() < 5 + usize::from(message[4]) {
        peer.widen(1, 9).await;
        message.extend(peer.until(DATA, 1).await.payload);
    }
    stops(server).await;
}

/// Wherever a peer stops before the signal to stop, and even if it never
/// answers HTTP/2's own questions, nothing was received, so nothing is left to
/// do.
#[tokio::test]
async fn what_is_not_whole_does_not_hold_the_shutdown() {
    let message = bytes(request("c"));
    let half = &message[..message.len() / 2];
    for is_deaf in [true, false] {
        let server = start(ServeSettings {
            // None of these ends it.
            handshake_timeout: Duration::from_secs(600),
            frame_timeout: Duration::from_secs(600),
            ..ServeSettings::default()
        })
        .await;
        let address = server.address;
        let mut peers = vec![Peer::silent(address).await];
        let mut peer = Peer::silent(address).await;
        peer.half_a_preface().await;
        peers.push(peer);
        // A connection without calls.
        peers.push(Peer::open(address, 65_535).await);
        for method in [METHOD, "ProcessEvent", "ControlStream"] {
            for part in [&[][..], &[0], &message[..5], half] {
                let mut peer = Peer::open(address, 65_535).await;
                peer.call(1, method).await;
                peer.data(1, part).await;
                peer.until(HEADERS, 1).await;
                peers.push(peer);
            }
        }
        // After whole messages, on one of several streams.
        let mut peer = Peer::open(address, 65_535).await;
        for stream in [1, 3] {
            peer.call(stream, METHOD).await;
            peer.send(stream, handshake("0.6.54")).await;
            peer.until(DATA, stream).await;
        }
        peer.data(1, half).await;
        peers.push(peer);
        // One that has no call any more.
        let mut peer = Peer::open(address, 65_535).await;
        peer.call(1, METHOD).await;
        peer.end(1).await;
        peer.until(HEADERS, 1).await;
        peers.push(peer);
        for peer in &mut peers {
            peer.is_deaf |= is_deaf;
        }
        let peers: Vec<_> = peers
            .into_iter()
            .map(|peer| tokio::spawn(peer.closed()))
            .collect();
        stops(server).await;
        for peer in peers {
            peer.await.unwrap();
        }
    }
}

/// HTTP/2 lets a peer call until it has answered the agent's last question. One
/// that never does, and calls on and on, is not waited for; what it calls at
/// first, when it may not know yet, is served.
#[tokio::test]
async fn calls_without_end_do_not_hold_the_shutdown() {
    for method in [METHOD, "ProcessEvent", "ControlStream", "unknown"] {
        let mut server = start(ServeSettings::default()).await;
        let mut peer = Peer::open(server.address, 1 << 20).await;
        peer.call(1, "ProcessEvent").await;
        peer.until(HEADERS, 1).await;
        peer.is_deaf = true;
        server.stop.take();
        peer.call(3, "ProcessEvent").await;
        peer.send(3, request("c")).await;
        peer.until(DATA, 3).await;
        let calls = async {
            let mut stream = 5;
            while peer.try_call(stream, method).await {
                stream += 2;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LONG, calls).await.expect(method);
        stops(server).await;
    }
}

/// A host may mean "for ever", and no clock goes that far.
#[tokio::test]
async fn times_without_end_are_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let settings = ServeSettings {
        queue_wait: Duration::MAX,
        late_after: Some(Duration::MAX),
        handshake_timeout: Duration::MAX,
        frame_timeout: Duration::MAX,
        write_timeout: Duration::MAX,
        grace: Duration::MAX,
        metrics_interval: Some(Duration::MAX),
        ..ServeSettings::default()
    };
    let unix = UnixListener::bind(&path).unwrap();
    let agent = agent("right/allow.wat", 1);
    let server = Server::with(agent, settings, Some(unix)).await;
    let mut peer = Peer::open(server.address, 1 << 20).await;
    peer.call(1, METHOD).await;
    peer.until(HEADERS, 1).await;
    for message in [handshake("0.6.54"), request("c")] {
        let message = bytes(message);
        let (start, rest) = message.split_at(7);
        peer.data(1, start).await;
        tokio::task::yield_now().await;
        peer.data(1, rest).await;
        peer.until(DATA, 1).await;
    }
    let event = json!({"correlation_id": "c", "method": "GET", "uri": "/",
        "metadata": {"correlation_id": "c", "client_ip": "192.0.2.7"}, "headers": {}});
    let answer = timeout(LONG, ask_on_unix(&path, "0.6.54", &event)).await;
    assert_eq!(answer.unwrap()["decision"], "allow");
    let closed = tokio::spawn(peer.closed());
    stops(server).await;
    closed.await.unwrap();
}

/// Each stream counts, and those that were begun first are given up; their
/// connections and other calls go on.
#[tokio::test]
async fn s9_unfinished_messages_of_all_calls_have_one_bound() {
    let live = Live::from(agent("right/allow.wat", 1));
    let settings = ServeSettings {
        max_unfinished_bytes: 1 << 20,
        ..ServeSettings::default()
    };
    let server = Server::with(live.clone(), settings, None).await;
    let mut honest = server.greeted("0.6.54").await;
    // 16 MB are announced, 200 KiB come.
    let unfinished = [&[0, 0, 0xff, 0, 0], vec![b'x'; 200 << 10].as_slice()].concat();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = Peer::open(server.address, 65_535).await;
        for stream in [1, 3] {
            peer.call(stream, METHOD).await;
            peer.until(HEADERS, stream).await;
            peer.data(stream, &unfinished).await;
        }
        peers.push(peer);
    }
    // 5 of 10 fit; the others are told so.
    for (index, stream) in [(0, 1), (0, 3), (1, 1), (1, 3), (2, 1)] {
        peers[index].until(HEADERS, stream).await;
    }
    assert_eq!(closed(&live, "unfinished"), 5);
    // Of another call on the connection of one that was given up.
    peers[0].call(5, METHOD).await;
    peers[0].send(5, handshake("0.6.54")).await;
    peers[0].until(DATA, 5).await;
    // A large one beside them gets through, although it alone is more.
    let data = vec![b'x'; 3 << 20];
    honest.send(ToAgent::RequestBodyChunk(body("large", data)));
    assert_eq!(honest.outcome().await, pair("large", "allow"));
    honest.send(request("small"));
    assert_eq!(honest.outcome().await, pair("small", "allow"));
}

/// A client may connect long before it calls: only where somebody waits for
/// its place does it have to go, and one for each.
#[tokio::test]
async fn x8_silent_peers_give_way_only_to_those_that_wait() {
    let server = start(ServeSettings {
        max_connections: 3,
        handshake_timeout: Duration::from_millis(100),
        ..ServeSettings::default()
    })
    .await;
    let silent = Peer::silent(server.address).await;
    let mut without_calls = Peer::open(server.address, 65_535).await;
    let mut half = Peer::silent(server.address).await;
    half.half_a_preface().await;
    // Half of a first message is another matter.
    half.closed().await;
    let client = server.greeted("0.6.54").await;
    // All places are taken, and nobody waits.
    // It was sent the agent's settings, and no end.
    while let Ok(count) = silent.stream.try_read(&mut [0; 64]) {
        assert_ne!(count, 0);
    }
    without_calls.call(1, METHOD).await;
    without_calls.until(HEADERS, 1).await;
    let mut again = Peer::open(server.address, 65_535).await;
    silent.closed().await;
    again.call(1, METHOD).await;
    again.until(HEADERS, 1).await;
    drop(client);
}
