//! Rows P: what peers do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Agent, Client, command, decision_of, id_of, request, v2_frame};

/// The frames that a released proxy sent, by protocol.
fn recorded(file: &str) -> Vec<(u8, Vec<u8>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/wire")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|frame: &Value| frame["direction"] == "proxy to agent")
        .map(|frame| {
            let kind = frame["type"].as_str().map_or(0, |hex| {
                u8::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap()
            });
            (kind, serde_json::to_vec(&frame["payload"]).unwrap())
        })
        .collect()
}

#[test]
fn recorded_proxies_of_both_protocols_are_answered_at_once_on_one_socket() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut v1 = agent.connect();
    let mut v2 = agent.connect();
    assert_eq!(v2.shake("0.6.45", "json")["success"], true);
    for (_, payload) in recorded("sentinel-proxy-0.4.14-v1.jsonl") {
        v1.send_v1(&payload);
        let answer: Value = serde_json::from_slice(&v1.receive_v1().unwrap()).unwrap();
        assert_eq!(answer["version"], 1);
    }
    let mut echoed = 0;
    for (kind, payload) in recorded("zentinel-proxy-0.6.45-v2.jsonl") {
        if kind == 0x01 {
            continue;
        }
        let event: Value = serde_json::from_slice(&payload).unwrap();
        v2.send_bytes(kind, &payload);
        let answer = v2.answer();
        assert_eq!(id_of(&answer), event["correlation_id"]);
        if kind == 0x13 && decision_of(&answer) == "allow" {
            // zentinel-proxy 0.6.45 loses a body that is passed through.
            assert_eq!(answer["response_body_mutation"]["data"], event["data"]);
            echoed += 1;
        }
    }
    assert!(echoed >= 4, "{echoed}");
}

/// Sends `count` events with ids of its own and hands back all answers.
fn ledger(client: &mut Client, name: &str, count: usize) -> BTreeMap<String, Value> {
    let mut writer = client.stream.try_clone().unwrap();
    let owned = name.to_owned();
    let sender = std::thread::spawn(move || {
        for number in 0..count {
            let id = format!("{owned}-{number}");
            let (kind, event) = match number % 8 {
                0..=3 => (0x10, request(&id, "/")),
                4 => (0x12, json!({"correlation_id":id,"status":200,"headers":{}})),
                5 => (
                    0x13,
                    json!({"correlation_id":id,"data":"AA==","is_last":true}),
                ),
                6 => (0x16, json!({"correlation_id":id})),
                _ => (0x10, json!({"correlation_id":id,"method":7})),
            };
            writer
                .write_all(&v2_frame(kind, &serde_json::to_vec(&event).unwrap()))
                .unwrap();
        }
    });
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = client.answer();
        let before = answers.insert(id_of(&answer).to_owned(), answer);
        assert!(before.is_none());
    }
    sender.join().unwrap();
    answers
}

#[test]
fn p_04_every_request_of_many_connections_is_answered_once() {
    let agent = Agent::start(
        "rules/rules.wasm",
        &[
            "--max-in-flight",
            "65536",
            "--max-queue",
            "65536",
            "--queue-wait",
            "10s",
        ],
    );
    let clients: Vec<_> = (0..8)
        .map(|name| {
            let mut client = agent.connect_v2();
            std::thread::spawn(move || ledger(&mut client, &name.to_string(), 1_000))
        })
        .collect();
    for client in clients {
        let answers = client.join().unwrap();
        assert_eq!(answers.len(), 1_000);
        for (id, answer) in answers {
            let number: usize = id.rsplit('-').next().unwrap().parse().unwrap();
            let expected = if number % 8 == 7 { "block" } else { "allow" };
            assert_eq!(decision_of(&answer), expected, "{answer}");
        }
    }
}

/// A v1 proxy makes its primary connection long before it uses it.
#[test]
fn p_01_a_silent_peer_keeps_its_place_and_half_a_message_does_not() {
    let agent = Agent::start("rules/rules.wasm", &["--handshake-timeout", "200ms"]);
    let mut silent = agent.connect();
    for _ in 0..3 {
        let start = Instant::now();
        let mut slow = agent.connect();
        slow.stream.write_all(&[0]).unwrap();
        assert!(slow.is_closed());
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
    let event = json!({"version":1,"event_type":"request_headers","payload":request("c","/")});
    silent.send_v1(&serde_json::to_vec(&event).unwrap());
    let answer: Value = serde_json::from_slice(&silent.receive_v1().unwrap()).unwrap();
    assert_eq!(decision_of(&answer), "allow");
}

#[test]
fn p_01_silent_peers_give_way_to_others() {
    let args = ["--handshake-timeout", "200ms", "--max-connections", "50"];
    let agent = Agent::start("rules/rules.wasm", &args);
    let peers: Vec<_> = (0..500).map(|_| agent.connect()).collect();
    // Behind all of them.
    let mut client = agent.connect_v2();
    client.send(0x10, &request("c", "/"));
    assert_eq!(decision_of(&client.answer()), "allow");
    let closed = peers.into_iter().map(|mut peer| {
        peer.stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        usize::from(peer.is_closed())
    });
    assert!(closed.sum::<usize>() >= 450);
}

#[test]
fn p_02_slow_peers_are_closed_and_hold_no_memory() {
    let agent = Agent::start("rules/rules.wasm", &["--frame-timeout", "300ms"]);
    let mut peers: Vec<_> = (0..100).map(|_| agent.connect_v2()).collect();
    let before = resident_kib(&agent);
    for peer in &mut peers {
        // 16 MiB announced, one byte sent.
        peer.stream.write_all(&[1, 0, 0, 0, 0x10]).unwrap();
    }
    for mut peer in peers {
        assert!(peer.is_closed());
    }
    let grown = resident_kib(&agent).saturating_sub(before);
    assert!(grown < 10 << 10, "{grown} KiB");
}

fn resident_kib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn p_03_lengths_out_of_range_close_the_connection() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    for length in [0_u32, 16_777_217, u32::MAX] {
        let mut peer = agent.connect_v2();
        peer.stream.write_all(&length.to_be_bytes()).unwrap();
        assert!(peer.is_closed(), "{length}");
    }
    assert_eq!(ledger(&mut agent.connect_v2(), "after", 8).len(), 8);
}

/// P-05 to P-08: by the failure policy, never with silence, and the connection
/// stays.
#[test]
fn p_05_events_that_cannot_be_read_follow_the_failure_policy() {
    let payloads = [
        r#"{"correlation_id":"c","#,
        r#"{"correlation_id":"c"}"#,
        r#"{"correlation_id":"c","method":null,"uri":"/","headers":{},"metadata":{"client_ip":"-"}}"#,
        r#"{"correlation_id":"c","method":"GET","uri":"/","headers":{"a":"b"},"metadata":{"client_ip":"-"}}"#,
        r#"{"correlation_id":"c","method":"GET","uri":"/","headers":{"a":["\ud800"]}}"#,
        "{\"correlation_id\":\"c\",\"method\":\"\u{0}\"}",
    ];
    for (mode, expected) in [("no", "block"), ("yes", "allow")] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("rules/rules.wasm", &folder);
        command.env("FAIL_OPEN", mode);
        let agent = Agent::spawn(command, folder);
        let mut client = agent.connect_v2();
        for payload in payloads {
            client.send_bytes(0x10, payload.as_bytes());
            let answer = client.answer();
            assert_eq!(decision_of(&answer), expected, "{payload}");
            let reason = answer["audit"]["reason_codes"][0].as_str().unwrap();
            assert!(reason.starts_with("bad-event:"), "{reason}");
            assert_eq!(answer["audit"]["tags"][0], "wasm-error");
        }
        client.send(
            0x12,
            &json!({"correlation_id":"c","status":65736,"headers":{}}),
        );
        assert_eq!(decision_of(&client.answer()), expected);
        let deep = format!(
            r#"{{"correlation_id":"c","config":{}"#,
            "[".repeat(1_000_000)
        );
        client.send_bytes(0x17, deep.as_bytes());
        assert_eq!(decision_of(&client.answer()), expected);
        client.send(0x10, &request("good", "/"));
        assert_eq!(decision_of(&client.answer()), "allow");
    }
}

#[test]
fn p_10_a_runaway_delays_neither_pings_nor_other_connections() {
    let agent = Agent::start("hostile/spin.wat", &["--pool-size", "1", "--timeout", "4s"]);
    let mut client = agent.connect_v2();
    let mut other = agent.connect_v2();
    client.send(0x10, &request("runs", "/"));
    let start = Instant::now();
    for peer in [&mut client, &mut other] {
        peer.send_bytes(0x41, br#"{"sequence":7,"timestamp_ms":1}"#);
        let (kind, payload) = peer.receive().unwrap();
        assert_eq!(
            (kind, payload.as_slice()),
            (0x42, br#"{"sequence":7,"timestamp_ms":1}"#.as_slice())
        );
    }
    // Far below the runaway's deadline, on however busy a machine.
    assert!(start.elapsed() < Duration::from_secs(3));
    let answer = client.answer();
    assert_eq!(answer["audit"]["reason_codes"], json!(["deadline"]));
}

#[test]
fn p_10_overload_is_answered_in_time() {
    let agent = Agent::start(
        "hostile/spin.wat",
        &["--pool-size", "1", "--timeout", "4s", "--max-queue", "8"],
    );
    let mut client = agent.connect_v2();
    client.send(0x10, &request("runs", "/"));
    let start = Instant::now();
    for number in 0..50 {
        client.send(0x10, &request(&number.to_string(), "/"));
    }
    for _ in 0..50 {
        let answer = client.answer();
        assert_eq!(answer["audit"]["reason_codes"], json!(["overload"]));
        assert_eq!(answer["decision"]["block"]["status"], 503);
    }
    // 100 ms of waiting, and what a very busy machine adds to it.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(id_of(&client.answer()), "runs");
}

/// A peer that never reads is closed by the write timeout, not kept.
#[test]
fn p_10_a_flood_without_reading_is_cut_off() {
    let agent = Agent::start("rules/rules.wasm", &["--write-timeout", "300ms"]);
    let mut flood = agent.connect_v2();
    let before = resident_kib(&agent);
    let frame = v2_frame(0x10, &serde_json::to_vec(&request("c", "/")).unwrap());
    let frames = frame.repeat(64);
    while flood.stream.write_all(&frames).is_ok() {}
    let grown = resident_kib(&agent).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
    assert_eq!(ledger(&mut agent.connect_v2(), "good", 80).len(), 80);
}

#[test]
fn p_11_what_was_sent_before_a_half_close_is_answered() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    for round in 0..200 {
        let mut client = agent.connect_v2();
        for number in 0..5 {
            client.send(0x10, &request(&number.to_string(), "/"));
        }
        client.stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..5 {
            client.answer();
        }
        assert!(client.is_closed(), "{round}");
    }
    let mut v1 = agent.connect();
    let event = json!({"version":1,"event_type":"request_headers","payload":request("c", "/")});
    v1.send_v1(event.to_string().as_bytes());
    v1.stream.shutdown(Shutdown::Write).unwrap();
    assert!(v1.receive_v1().is_some());
    assert!(v1.receive_v1().is_none());
}

#[test]
fn p_11_a_storm_of_peers_that_leave_harms_nobody() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut good = agent.connect_v2();
    for _ in 0..500 {
        let mut client = agent.connect();
        // Left at once, some with an answer on its way.
        let _ = client
            .stream
            .write_all(&v2_frame(0x01, br#"{"supported_versions":[2]}"#));
        let event = serde_json::to_vec(&request("c", "/")).unwrap();
        let _ = client.stream.write_all(&v2_frame(0x10, &event));
    }
    assert_eq!(ledger(&mut good, "good", 80).len(), 80);
}

#[test]
fn p_12_no_descriptors_left_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let inner = command("rules/rules.wasm", &folder);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let agent = Agent::spawn(command, folder);
    let mut good = agent.connect_v2();
    let flood: Vec<_> = (0..120).map(|_| agent.connect()).collect();
    agent.wait_for_line("cannot accept");
    let before = agent.cpu_ticks();
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(ledger(&mut good, &rounds.to_string(), 8).len(), 8);
        rounds += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    // 100 ticks a second; a loop without rest would take them all.
    let used = agent.cpu_ticks() - before;
    assert!(used < 30, "{used}");
    drop(flood);
    assert_eq!(ledger(&mut agent.connect_v2(), "after", 8).len(), 8);
}

#[test]
fn p_12_connections_above_the_limit_wait_for_their_turn() {
    let agent = Agent::start("rules/rules.wasm", &["--max-connections", "2"]);
    let first = agent.connect_v2();
    let _second = agent.connect_v2();
    let mut third = agent.connect();
    third.send(0x01, &json!({"supported_versions":[2]}));
    drop(first);
    assert_eq!(third.receive().unwrap().0, 0x02);
}
