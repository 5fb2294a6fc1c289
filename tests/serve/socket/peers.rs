//! What peers do, right and wrong.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::TestDir;
use crate::support::agent::{Agent, Client, command, decision_of, id_of, request, v2_frame};
use crate::support::guests::answering;

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

/// From 0.6.54 on a proxy makes its connections at once, with its settings in each
/// handshake and again as a message on each.
#[test]
fn the_settings_of_four_connections_at_once_are_answered_on_each() {
    let agent = Agent::start("rules/rules.wasm", &["--pool-size", "3"]);
    let round = |config: &Value| -> Vec<Value> {
        let mut clients: Vec<Client> = (0..4).map(|_| agent.connect()).collect();
        let handshake = json!({"supported_versions":[2],"proxy_id":"zentinel-proxy",
            "proxy_version":"0.6.54","config":config,"supported_encodings":["json"]});
        for client in &mut clients {
            client.send(0x01, &handshake);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let (kind, payload) = client.receive().unwrap();
            let shaken: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!((kind, &shaken["success"]), (0x02, &json!(true)));
            let id = format!("zentinel-configure-wasm-{number}");
            let event = json!({"config":config,"config_version":null,"correlation_id":id});
            client.send(0x17, &event);
        }
        let answers = clients.iter_mut().enumerate().map(|(number, client)| {
            let answer = client.answer();
            assert_eq!(id_of(&answer), format!("zentinel-configure-wasm-{number}"));
            client.send(0x10, &request("c", "/"));
            assert_eq!(decision_of(&client.answer()), "allow");
            answer
        });
        answers.collect()
    };
    for config in [json!({"pool-size": 2}), json!({"pool-size": 2}), json!({})] {
        for answer in round(&config) {
            assert_eq!(decision_of(&answer), "allow", "{config}");
        }
    }
    for answer in round(&json!({"level": 3})) {
        let reason = answer["decision"]["block"]["body"].as_str().unwrap();
        assert!(reason.contains("level"), "{reason}");
    }
}

/// What 0.6.54 uses goes out to it as the module gave it; older ones let a challenge
/// through, and are sent a block.
#[test]
fn refusals_go_out_as_the_proxys_version_takes_them() {
    let dir = TestDir::new();
    let params = json!({"www-authenticate": "Basic", "body": "who?"});
    let challenge = json!({"decision": "challenge", "challenge_type": "basic",
        "challenge_params": params});
    let block = json!({"decision": "block", "status": 429, "body": "context: 1",
        "add_response_headers": {"retry-after": "9"}, "append_response_headers": {"retry-after": "8"}});
    let redirect = json!({"decision": "redirect", "body": "/there", "status": 307});
    let refused = json!({"block": {"status": 403, "body": null, "headers": null}});
    let meant = [
        (
            &challenge,
            json!({"challenge": {"challenge_type": "basic", "params": params}}),
        ),
        (
            &block,
            json!({"block": {"status": 429, "body": "context: 1", "headers": {"retry-after": "9, 8"}}}),
        ),
        (
            &redirect,
            json!({"redirect": {"url": "/there", "status": 307}}),
        ),
    ];
    let events = [
        (0x10, request("c", "/")),
        (
            0x11,
            json!({"correlation_id": "d", "data": "YQ==", "is_last": true}),
        ),
        (
            0x12,
            json!({"correlation_id": "c", "status": 200, "headers": {}}),
        ),
        (
            0x13,
            json!({"correlation_id": "c", "data": "YQ==", "is_last": true}),
        ),
    ];
    for (answer, meant) in meant {
        let module = answering(&dir, "module.wat", answer.to_string());
        let agent = Agent::start(module.to_str().unwrap(), &[]);
        for (version, is_repaired) in [
            ("0.6.54", true),
            ("0.6.55", true),
            ("0.6.53", false),
            ("0.6.54-rc.1", false),
            ("0.6.45", false),
            ("0.4.14", false),
        ] {
            let is_lost = !is_repaired && *answer == challenge;
            let expected = if is_lost { &refused } else { &meant };
            for (kind, event) in &events {
                let mut client = agent.connect();
                assert_eq!(client.shake(version, "json")["success"], true);
                client.send(*kind, event);
                let sent = client.answer();
                assert_eq!(&sent["decision"], expected, "{version} {kind:#x}");
            }
        }
    }
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
            // A body whose head never came, and an event that cannot be read.
            let expected = match number % 8 {
                5 => ("block", json!(["wasm-error", "head-lost"])),
                7 => ("block", json!(["wasm-error"])),
                _ => ("allow", answer["audit"]["tags"].clone()),
            };
            let found = (decision_of(&answer), answer["audit"]["tags"].clone());
            assert_eq!(found, expected, "{answer}");
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
    let mut good = agent.connect_v2();
    let mut peers: Vec<_> = (0..200).map(|_| agent.connect_v2()).collect();
    let before = resident_kib(&agent);
    for peer in &mut peers {
        // 16 MiB announced, one byte sent.
        peer.stream.write_all(&[1, 0, 0, 0, 0x10]).unwrap();
    }
    assert_eq!(ledger(&mut good, "good", 80).len(), 80);
    for mut peer in peers {
        assert!(peer.is_closed());
    }
    let grown = resident_kib(&agent).saturating_sub(before);
    assert!(grown < 10 << 10, "{grown} KiB");
}

fn resident_kib(agent: &Agent) -> u64 {
    memory_kib(agent, "VmRSS")
}

/// The most it ever had.
fn peak_kib(agent: &Agent) -> u64 {
    memory_kib(agent, "VmHWM")
}

fn memory_kib(agent: &Agent, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
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
    // The shortest and the longest there are.
    let mut peer = agent.connect_v2();
    peer.send_bytes(0x41, b"");
    assert_eq!(peer.receive(), Some((0x42, Vec::new())));
    let mut event = serde_json::to_vec(&request("long", "/")).unwrap();
    event.resize(16_777_215, b' ');
    peer.send_bytes(0x10, &event);
    assert_eq!(id_of(&peer.answer()), "long");
    assert_eq!(ledger(&mut agent.connect_v2(), "after", 8).len(), 8);
}

/// What no proxy may send ends its connection, and no other.
#[test]
fn p_04_messages_that_no_proxy_may_send_close_the_connection() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut good = agent.connect_v2();
    // A second handshake, answers, reports, and types that do not exist.
    for kind in [0x00, 0x01, 0x02, 0x18, 0x20, 0x30, 0x31, 0x42, 0x7b, 0xff] {
        let mut peer = agent.connect_v2();
        let sent = serde_json::to_vec(&request("before", "/")).unwrap();
        peer.send_bytes(0x10, &sent);
        peer.send_bytes(kind, br#"{"supported_versions":[2],"correlation_id":"c"}"#);
        // What came before it is answered all the same.
        assert_eq!(id_of(&peer.answer()), "before", "{kind:#x}");
        assert!(peer.is_closed(), "{kind:#x}");
    }
    // An event before the handshake is of neither protocol.
    let mut peer = agent.connect();
    peer.send(0x10, &request("early", "/"));
    assert!(peer.is_closed());
    assert_eq!(ledger(&mut good, "good", 8).len(), 8);
}

/// By the failure policy, never with silence, and the connection
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

/// Every event, each of its required keys gone or of a wrong type.
fn broken() -> Vec<(u8, &'static str, Value)> {
    let head = request("c", "/");
    let body = json!({"correlation_id":"c","data":"AA==","is_last":true,"chunk_index":0});
    let response = json!({"correlation_id":"c","status":200,"headers":{}});
    let number = || {
        vec![
            json!("200"),
            json!(-1),
            json!(65_736),
            json!(200.5),
            json!(null),
        ]
    };
    let text = || vec![json!(7), json!(null), json!(["GET"]), json!({})];
    let headers = || {
        vec![
            json!(7),
            json!(null),
            json!([]),
            json!({"a":"b"}),
            json!({"a":[7]}),
        ]
    };
    let data = || vec![json!(7), json!(null), json!("no base64!"), json!("A")];
    let wrong = [
        (0x10, "request_headers", &head, "method", text()),
        (0x10, "request_headers", &head, "uri", text()),
        (0x10, "request_headers", &head, "headers", headers()),
        (
            0x10,
            "request_headers",
            &head,
            "metadata",
            vec![json!(7), json!("c"), json!({"client_ip":7})],
        ),
        (0x11, "request_body_chunk", &body, "data", data()),
        (
            0x11,
            "request_body_chunk",
            &body,
            "is_last",
            vec![json!(1), json!("true"), json!(null)],
        ),
        (
            0x11,
            "request_body_chunk",
            &body,
            "chunk_index",
            vec![json!(-1), json!(4_294_967_296_u64), json!("0")],
        ),
        (0x12, "response_headers", &response, "status", number()),
        (0x12, "response_headers", &response, "headers", headers()),
        (0x13, "response_body_chunk", &body, "data", data()),
        (
            0x13,
            "response_body_chunk",
            &body,
            "is_last",
            vec![json!(0), json!([])],
        ),
    ];
    let mut all = Vec::new();
    for (kind, name, event, key, values) in wrong {
        for value in values {
            let mut event = event.clone();
            event[key] = value;
            all.push((kind, name, event));
        }
        if key != "chunk_index" {
            let mut event = event.clone();
            event.as_object_mut().unwrap().remove(key);
            all.push((kind, name, event));
        }
    }
    all
}

/// The whole grid, in each protocol and encoding and both failure modes.
#[test]
fn p_05_every_broken_event_follows_the_failure_policy_in_every_protocol() {
    let broken = broken();
    assert!(broken.len() >= 50, "{}", broken.len());
    for (mode, expected) in [("no", "block"), ("yes", "allow")] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("rules/rules.wasm", &folder);
        command
            .env("FAIL_OPEN", mode)
            .args(["--timeout", "5s", "--queue-wait", "5s"]);
        let agent = Agent::spawn(command, folder);
        let mut json = agent.connect_v2();
        let mut packed = agent.connect();
        packed.shake("0.6.54", "msgpack");
        let mut v1 = agent.connect();
        for (kind, name, event) in &broken {
            json.send(*kind, event);
            let answer = json.answer();
            assert_eq!(
                (id_of(&answer), decision_of(&answer)),
                ("c", expected),
                "{event}"
            );
            packed.send_bytes(*kind, &rmp_serde::to_vec_named(event).unwrap());
            let (_, answer) = packed.receive().unwrap();
            let answer: Value = rmp_serde::from_slice(&answer).unwrap();
            assert_eq!(
                (id_of(&answer), decision_of(&answer)),
                ("c", expected),
                "{event}"
            );
            let envelope = json!({"version":1,"event_type":name,"payload":event});
            v1.send_v1(&serde_json::to_vec(&envelope).unwrap());
            let answer: Value = serde_json::from_slice(&v1.receive_v1().unwrap()).unwrap();
            assert_eq!(decision_of(&answer), expected, "{event}");
        }
        // Bytes that are no text.
        let mut event = br#"{"correlation_id":"c","metadata":{"client_ip":"-"},"method":"GET","uri":"/","headers":{"a":["#.to_vec();
        event.extend(b"\"\xff\xfe\"]}}");
        json.send_bytes(0x10, &event);
        assert_eq!(decision_of(&json.answer()), expected);
        // Deep nesting costs no stack in MessagePack either.
        let mut deep = b"\x82\xaecorrelation_id\xa1c\xa6config".to_vec();
        deep.resize(deep.len() + 1_000_000, 0x91);
        packed.send_bytes(0x17, &deep);
        let (_, answer) = packed.receive().unwrap();
        let answer: Value = rmp_serde::from_slice(&answer).unwrap();
        assert_eq!(decision_of(&answer), expected);
        assert_eq!(ledger(&mut json, "after", 8).len(), 8);
    }
}

/// Of events that share an id while they are in flight the last is
/// answered, an empty id is an id, and a cancel of nothing is nothing.
#[test]
fn p_09_ids_that_come_twice_or_are_empty_or_unknown() {
    let agent = Agent::start(
        "hostile/spin.wat",
        &["--pool-size", "1", "--timeout", "300ms"],
    );
    let mut client = agent.connect_v2();
    client.send(0x10, &request("same", "/first"));
    client.send(0x10, &request("same", "/second"));
    client.send(
        0x12,
        &json!({"correlation_id":"","status":200,"headers":{}}),
    );
    for cancel in [r#"{"correlation_id":"never seen"}"#, "{}", "[", ""] {
        client.send_bytes(0x40, cancel.as_bytes());
    }
    client.send_bytes(0x41, b"{}");
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let (kind, payload) = client.receive().unwrap();
        if kind == 0x20 {
            ids.push(id_of(&serde_json::from_slice(&payload).unwrap()).to_owned());
        }
    }
    ids.sort();
    assert_eq!(ids, ["", "same"]);
    // Nothing is left to come.
    client.stream.shutdown(Shutdown::Write).unwrap();
    while let Some((kind, _)) = client.receive() {
        assert_ne!(kind, 0x20);
    }
}

/// What was given up takes no room: as many events as may be in flight
/// find their place after any number of cancels.
#[test]
fn p_15_ten_thousand_cancels_give_their_room_back() {
    let args = ["--max-in-flight", "8", "--queue-wait", "20s"];
    let agent = Agent::start("rules/rules.wasm", &args);
    let mut client = agent.connect_v2();
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..10_000 {
            let id = format!("given-up-{number}");
            let event = serde_json::to_vec(&request(&id, "/")).unwrap();
            let cancel = serde_json::to_vec(&json!({"correlation_id":id,"reason":0})).unwrap();
            let frames = [v2_frame(0x10, &event), v2_frame(0x40, &cancel)].concat();
            writer.write_all(&frames).unwrap();
        }
        writer.write_all(&v2_frame(0x41, b"{}")).unwrap();
    });
    // Some were quicker than their cancel; none was answered twice.
    let mut answered = std::collections::BTreeSet::new();
    loop {
        let (kind, payload) = client.receive().unwrap();
        if kind == 0x42 {
            break;
        }
        let answer: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(answer["audit"]["reason_codes"], json!([]));
        assert!(answered.insert(id_of(&answer).to_owned()));
    }
    sender.join().unwrap();
    for round in 0..20 {
        for number in 0..8 {
            client.send(0x10, &request(&format!("{round}-{number}"), "/"));
        }
        for _ in 0..8 {
            let answer = client.answer();
            assert_eq!(decision_of(&answer), "allow", "{answer}");
        }
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

/// There is time without end to wait, and no room: each limit for itself is
/// enough to be told at once.
#[test]
fn p_10_too_many_in_flight_or_in_the_queue_are_refused_at_once() {
    for (limits, refused) in [
        (["--max-in-flight", "8", "--max-queue", "1000"], 42),
        (["--max-in-flight", "1000", "--max-queue", "7"], 42),
    ] {
        let mut args = vec![
            "--pool-size",
            "1",
            "--timeout",
            "10m",
            "--queue-wait",
            "10m",
        ];
        args.extend(limits);
        let agent = Agent::start("hostile/spin.wat", &args);
        let mut client = agent.connect_v2();
        client.send(0x10, &request("runs", "/"));
        client.send_bytes(0x41, b"{}");
        assert_eq!(client.receive().unwrap().0, 0x42);
        for number in 0..49 {
            client.send(0x10, &request(&number.to_string(), "/"));
        }
        client.send_bytes(0x41, b"{}");
        let mut told = Vec::new();
        loop {
            let (kind, payload) = client.receive().unwrap();
            if kind == 0x42 {
                break;
            }
            let answer: Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(answer["audit"]["reason_codes"], json!(["overload"]));
            told.push(id_of(&answer).to_owned());
        }
        // The last ones; those before them wait.
        let expected: Vec<String> = (49 - refused..49)
            .map(|number| number.to_string())
            .collect();
        assert_eq!(told, expected, "{limits:?}");
    }
}

/// The same in every protocol, and by the failure policy: what no guest came
/// free for is answered long before the one that runs has ended.
#[test]
fn p_10_overload_is_answered_in_every_protocol_by_the_failure_policy() {
    for (flags, decision, tags) in [
        (&[][..], "block", json!(["wasm-error", "overload"])),
        (
            &["--fail-open"],
            "allow",
            json!(["wasm-error", "overload", "fail-open"]),
        ),
    ] {
        let mut args = vec!["--pool-size", "1", "--timeout", "10m"];
        args.extend(flags);
        let agent = Agent::start("hostile/spin.wat", &args);
        let mut first = agent.connect_v2();
        first.send(0x10, &request("runs", "/"));
        first.send_bytes(0x41, b"{}");
        assert_eq!(first.receive().unwrap().0, 0x42);
        let mut v1 = agent.connect();
        let envelope =
            json!({"version":1,"event_type":"request_headers","payload":request("c", "/")});
        v1.send_v1(&serde_json::to_vec(&envelope).unwrap());
        let mut v2 = agent.connect_v2();
        v2.send(0x10, &request("c", "/"));
        let mut packed = agent.connect();
        packed.shake("0.6.54", "msgpack");
        packed.send_bytes(0x10, &rmp_serde::to_vec_named(&request("c", "/")).unwrap());
        let answers: [Value; 3] = [
            serde_json::from_slice(&v1.receive_v1().unwrap()).unwrap(),
            v2.answer(),
            rmp_serde::from_slice(&packed.receive().unwrap().1).unwrap(),
        ];
        for answer in answers {
            assert_eq!(decision_of(&answer), decision, "{answer}");
            assert_eq!(answer["audit"]["tags"], tags);
            assert_eq!(answer["audit"]["reason_codes"], json!(["overload"]));
        }
    }
}

/// Bodies that wait are bounded in bytes as well: far fewer events than the
/// queue may hold are refused once they are 256 MiB, and each is answered.
#[test]
fn p_10_bodies_that_wait_are_bounded_in_bytes() {
    let guest = tempfile::tempdir().unwrap();
    let path = guest.path().join("runaway.wat");
    let text = std::fs::read_to_string(crate::support::shipped("hostile/spin.wat")).unwrap();
    let text = text.replace("\"on_request_headers\"", "\"on_request_body\"");
    std::fs::write(&path, text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(path.to_str().unwrap(), &folder);
    command.args([
        "--no-smoke-call",
        "--pool-size",
        "1",
        "--max-in-flight",
        "1000",
    ]);
    command.args([
        "--timeout",
        "60s",
        "--queue-wait",
        "10m",
        "--frame-timeout",
        "60s",
    ]);
    let agent = Agent::spawn(command, folder);
    let data = "A".repeat(16_000_000);
    let body = |id: &str, data: &str| {
        let event = format!(r#"{{"correlation_id":"{id}","data":"{data}","is_last":true}}"#);
        v2_frame(0x11, event.as_bytes())
    };
    let mut client = agent.connect_v2();
    // One runs until its peer is gone, and 22 of 12 MB each fit below the limit.
    client.stream.write_all(&body("runs", "AA==")).unwrap();
    for number in 0..24 {
        let frame = body(&format!("large-{number}"), &data);
        client.stream.write_all(&frame).unwrap();
    }
    let mut refused = Vec::new();
    for _ in 0..2 {
        let answer = client.answer();
        assert_eq!(
            answer["audit"]["reason_codes"],
            json!(["overload"]),
            "{answer}"
        );
        refused.push(id_of(&answer).to_owned());
    }
    assert_eq!(refused, ["large-22", "large-23"]);
    assert!(resident_kib(&agent) < 600 << 10);
    // Those that wait are given up with their peer.
    drop(client);
    let mut after = agent.connect_v2();
    after.send(0x10, &request("after", "/"));
    assert_eq!(decision_of(&after.answer()), "allow");
}

/// A peer that never reads is closed by the write timeout, not kept.
#[test]
fn p_10_a_flood_without_reading_is_cut_off() {
    let agent = Agent::start("rules/rules.wasm", &["--write-timeout", "1s"]);
    let event = v2_frame(0x10, &serde_json::to_vec(&request("c", "/")).unwrap());
    // Pings come back as large as they went.
    let ping = v2_frame(0x41, &[b'p'; 64 << 10]);
    for frames in [event.repeat(64), ping] {
        let mut flood = agent.connect_v2();
        let before = peak_kib(&agent);
        let ended = loop {
            if let Err(error) = flood.stream.write_all(&frames) {
                break error.kind();
            }
        };
        // By the agent, and not by this side's patience.
        let by_agent = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(by_agent.contains(&ended), "{ended:?}");
        let grown = peak_kib(&agent) - before;
        assert!(grown < 32 << 10, "{grown} KiB");
    }
    assert_eq!(ledger(&mut agent.connect_v2(), "good", 80).len(), 80);
}

#[test]
fn p_11_what_was_sent_before_a_half_close_is_answered() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    for round in 0..1_000 {
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
    drop(good);
    // Peers that leave are no news.
    agent.signal("TERM");
    agent.wait_for_line("draining");
    let mut told = agent.unexpected();
    // Some events of the ledger are broken, and that is told.
    told.retain(|line| !line.contains("\"good-"));
    assert_eq!(told, Vec::<String>::new());
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
    let patience = third.stream.read_timeout().unwrap();
    let moment = Some(Duration::from_millis(300));
    third.stream.set_read_timeout(moment).unwrap();
    assert_eq!(third.receive(), None);
    third.stream.set_read_timeout(patience).unwrap();
    drop(first);
    assert_eq!(third.receive().unwrap().0, 0x02);
}
