//! The admin address: metrics that agree with what was sent, and health.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::guest::Guest;
use crate::support::agent::{Agent, command, decision_of, request};

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent with an admin address of the system's choice.
pub(crate) fn start(module: &str, args: &[&str]) -> (Agent, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(module, &folder);
    command
        .args(["--admin-address", "127.0.0.1:0", "--log-format", "json"])
        .args(args);
    let agent = Agent::spawn(command, folder);
    let address = agent.address("admin");
    (agent, address)
}

/// Status and body.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub(crate) fn health(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = ask(address, "GET", path);
    (status, serde_json::from_str(&body).unwrap())
}

/// Every sample by its name with labels, after every line was found to be in
/// the text format.
pub(crate) fn metrics(address: SocketAddr) -> BTreeMap<String, f64> {
    let (status, body) = ask(address, "GET", "/metrics");
    assert_eq!(status, 200);
    let sample = regex::Regex::new(
        r#"^([a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})?) ([0-9.e+-]+)$"#,
    )
    .unwrap();
    let mut family = String::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else {
            let found = sample.captures(line).unwrap_or_else(|| panic!("{line}"));
            assert!(line.starts_with(&family), "{line}");
            let value = found.get(6).unwrap().as_str().parse().unwrap();
            let name = found[1].to_owned();
            assert_eq!(samples.insert(name.clone(), value), None, "{name}");
        }
    }
    samples
}

/// Waits until a sample has a value; metrics are behind by no more than the
/// moment between an answer and the next look.
fn until(address: SocketAddr, name: &str, value: f64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = metrics(address)[name];
        if found == value {
            return;
        }
        assert!(Instant::now() < end, "{name} is {found}, expected {value}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn metrics_agree_with_what_was_sent() {
    let (agent, address) = start("rules/rules.wasm", &["--pool-size", "2", "--timeout", "5s"]);
    let mut v1 = agent.connect();
    let payload = json!({"version":1,"event_type":"request_headers","payload":request("v1","/")});
    v1.send_v1(&serde_json::to_vec(&payload).unwrap());
    v1.receive_v1().unwrap();
    let mut client = agent.connect_v2();
    for number in 0..6 {
        let uri = if number < 2 { "/admin" } else { "/" };
        client.send(0x10, &request(&number.to_string(), uri));
        client.answer();
    }
    client.send_bytes(0x10, br#"{"correlation_id":"bad","metadata":7}"#);
    client.answer();
    client.send(0x14, &json!({"correlation_id":"done","status":200}));
    client.answer();
    let mut packed = agent.connect();
    packed.shake("0.6.54", "msgpack");

    // A connection counts once its handshake was answered.
    until(
        address,
        r#"wasm_agent_connections{protocol="v2-msgpack"}"#,
        1.0,
    );
    let found = metrics(address);
    for (name, value) in [
        (
            r#"wasm_agent_events_total{event="request_headers",decision="allow"}"#,
            5.0,
        ),
        (
            r#"wasm_agent_events_total{event="request_headers",decision="block"}"#,
            2.0,
        ),
        (
            r#"wasm_agent_events_total{event="unreadable",decision="block"}"#,
            1.0,
        ),
        (
            r#"wasm_agent_events_total{event="other",decision="allow"}"#,
            1.0,
        ),
        (r#"wasm_agent_faults_total{fault="bad-event"}"#, 1.0),
        (r#"wasm_agent_faults_total{fault="trap"}"#, 0.0),
        (
            r#"wasm_agent_call_duration_seconds_count{event="request_headers"}"#,
            7.0,
        ),
        (
            r#"wasm_agent_call_duration_seconds_bucket{event="request_headers",le="+Inf"}"#,
            7.0,
        ),
        ("wasm_agent_queue_wait_seconds_count", 7.0),
        ("wasm_agent_pool_size", 2.0),
        (r#"wasm_agent_pool_instances{state="idle"}"#, 2.0),
        (r#"wasm_agent_pool_instances{state="in_use"}"#, 0.0),
        ("wasm_agent_pool_waiting", 0.0),
        ("wasm_agent_instances_created_total", 2.0),
        (r#"wasm_agent_connections{protocol="v1"}"#, 1.0),
        (r#"wasm_agent_connections{protocol="v2-json"}"#, 1.0),
        (r#"wasm_agent_connections{protocol="v2-msgpack"}"#, 1.0),
        (r#"wasm_agent_health{state="healthy"}"#, 1.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
    let info = found
        .keys()
        .find(|name| name.starts_with("wasm_agent_module_info"));
    assert!(info.unwrap().contains("hash=\"sha256:"));
    assert!(found["process_resident_memory_bytes"] > 1e6);
    drop((client, v1));
    until(
        address,
        r#"wasm_agent_connections{protocol="v2-json"}"#,
        0.0,
    );
    until(address, r#"wasm_agent_connections{protocol="v1"}"#, 0.0);
    assert_eq!(
        metrics(address)[r#"wasm_agent_connections_total{protocol="v1"}"#],
        1.0
    );
}

#[test]
fn faults_and_dropped_instances_are_counted() {
    let args = ["--no-smoke-call", "--pool-size", "1"];
    let (agent, address) = start("hostile/trap-unreachable.wat", &args);
    let mut client = agent.connect_v2();
    for number in 0..5 {
        client.send(0x10, &request(&number.to_string(), "/"));
        client.answer();
    }
    let found = metrics(address);
    assert_eq!(found[r#"wasm_agent_faults_total{fault="trap"}"#], 5.0);
    assert_eq!(
        found[r#"wasm_agent_instances_dropped_total{reason="fault"}"#],
        5.0
    );
}

/// Health does not say that all is well while nothing works.
#[test]
fn o_13_health_says_when_most_events_fault_and_when_they_no_longer_do() {
    let args = ["--no-smoke-call", "--pool-size", "1"];
    let (agent, address) = start("hostile/trap-unreachable.wat", &args);
    let mut client = agent.connect_v2();
    assert_eq!(health(address, "/readyz").1["status"], "healthy");
    for number in 0..20 {
        client.send(0x10, &request(&number.to_string(), "/"));
        client.answer();
    }
    // The proxy is told too, in the form that clients read.
    let (kind, payload) = client.receive().unwrap();
    assert_eq!(kind, 0x30);
    let status: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(status["state"], 2);
    assert!(status["message"].as_str().unwrap().ends_with(": trap"));
    let (code, body) = health(address, "/readyz");
    // It still gives the answers that there are.
    assert_eq!((code, &body["status"]), (200, &json!("degraded")));
    assert_eq!(
        metrics(address)[r#"wasm_agent_health{state="degraded"}"#],
        1.0
    );
}

/// A refused reload is told wherever somebody may look.
#[test]
fn a_refused_reload_is_told_everywhere() {
    let guest = Guest::new("right/deny.wat");
    let (agent, address) = start(guest.path().to_str().unwrap(), &["--timeout", "5s"]);
    let mut before = agent.connect_v2();
    guest.put("invalid/no-alloc.wat");
    agent.signal("HUP");
    let (kind, payload) = before.receive().unwrap();
    let status: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((kind, &status["state"]), (0x30, &json!(2)));
    assert!(status["message"].as_str().unwrap().contains("export:alloc"));
    // Who connects later is told as well.
    let mut after = agent.connect();
    after.shake("0.6.54", "json");
    assert_eq!(after.receive().unwrap().0, 0x30);
    for path in ["/healthz", "/readyz"] {
        let (code, body) = health(address, path);
        assert_eq!((code, &body["status"]), (200, &json!("degraded")), "{path}");
        assert!(
            body["reasons"][0]
                .as_str()
                .unwrap()
                .contains("export:alloc")
        );
    }
    let old = health(address, "/readyz").1["hash"].clone();
    before.send(0x10, &request("c", "/"));
    assert_eq!(decision_of(&before.answer()), "block");

    guest.put("right/allow.wat");
    agent.signal("HUP");
    let (_, payload) = before.receive().unwrap();
    let status: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(status["state"], 1);
    agent.wait_for_line("reloaded");
    let body = health(address, "/readyz").1;
    assert_eq!(
        (&body["status"], &body["reasons"]),
        (&json!("healthy"), &json!([]))
    );
    assert_ne!(body["hash"], old);
    let found = metrics(address);
    assert_eq!(found[r#"wasm_agent_reloads_total{result="applied"}"#], 1.0);
    assert_eq!(found[r#"wasm_agent_reloads_total{result="refused"}"#], 1.0);
    assert!(found[r#"wasm_agent_instances_dropped_total{reason="replaced"}"#] >= 4.0);
}

#[test]
fn while_it_drains_it_is_alive_and_not_ready() {
    let args = ["--no-smoke-call", "--timeout", "3s", "--queue-wait", "10s"];
    let (mut agent, address) = start("hostile/spin.wat", &args);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("runs", "/"));
    client.send_bytes(0x41, b"{}");
    assert_eq!(client.receive().unwrap().0, 0x42);
    agent.signal("TERM");
    assert_eq!(client.receive().unwrap().0, 0x30);
    let (code, body) = health(address, "/readyz");
    assert_eq!((code, &body["status"]), (503, &json!("draining")));
    assert_eq!(health(address, "/healthz").0, 200);
    client.answer();
    assert_eq!(agent.wait().code(), Some(0));
}

#[test]
fn the_admin_address_answers_what_it_has_and_nothing_else() {
    let (agent, address) = start("right/allow.wat", &["--timeout", "5s"]);
    assert_eq!(ask(address, "GET", "/").0, 404);
    assert_eq!(ask(address, "POST", "/metrics").0, 405);
    assert_eq!(ask(address, "HEAD", "/metrics"), (200, String::new()));
    // Peers that say nothing or nonsense neither stop it nor the agent.
    let silent: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut nonsense = TcpStream::connect(address).unwrap();
    nonsense
        .write_all(b"\x00\x01\x02 nonsense\r\n\r\n")
        .unwrap();
    assert_eq!(ask(address, "GET", "/healthz").0, 200);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("c", "/"));
    assert_eq!(decision_of(&client.answer()), "allow");
    drop(silent);
    // The place is taken.
    let folder = tempfile::tempdir().unwrap();
    let output = command("right/allow.wat", &folder)
        .args(["--timeout", "5s", "--admin-address", &address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(!folder.path().join("a.sock").exists());
}

/// Section 6 of the protocol: on a timer, in the form that clients read.
#[test]
fn v2_peers_are_sent_metrics_on_a_timer() {
    let args = ["--metrics-interval", "50ms", "--timeout", "5s"];
    let agent = Agent::start("right/allow.wat", &args);
    for encoding in ["json", "msgpack"] {
        let mut client = agent.connect();
        let shaken = client.shake("0.6.54", encoding);
        assert_eq!(shaken["capabilities"]["features"]["metrics_export"], true);
        let (kind, payload) = client.receive_any().unwrap();
        assert_eq!(kind, 0x31);
        let report: Value = match encoding {
            "json" => serde_json::from_slice(&payload).unwrap(),
            _ => rmp_serde::from_slice(&payload).unwrap(),
        };
        assert_eq!(report["agent_id"], "wasm");
        assert_eq!(report["interval_ms"], 50);
        let named = |list: &str, name: &str| {
            let list = report[list].as_array().unwrap();
            assert!(list.iter().any(|metric| metric["name"] == name), "{name}");
        };
        named("counters", "wasm_agent_events_total");
        named("gauges", "wasm_agent_pool_size");
        named("histograms", "wasm_agent_call_duration_seconds");
        let last = &report["histograms"][0]["buckets"].as_array().unwrap()[17];
        assert_eq!(last, &json!({"le": "+Inf", "count": 0}));
    }
}

#[test]
fn what_is_recorded_and_what_is_dropped_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traffic.jsonl");
    let file = file.to_str().unwrap();
    // Room for a few records of the twenty.
    let args = ["--record", file, "--record-max-size", "5KB"];
    let (agent, address) = start("rules/rules.wasm", &args);
    let mut client = agent.connect_v2();
    for index in 0..20 {
        client.send(0x10, &request(&format!("c{index}"), "/"));
        assert_eq!(decision_of(&client.answer()), "allow");
    }
    // They are written behind the answers.
    let until = Instant::now() + PATIENCE;
    loop {
        let samples = metrics(address);
        let count =
            |result: &str| samples[&format!("wasm_agent_records_total{{result=\"{result}\"}}")];
        let (written, dropped) = (count("written"), count("dropped"));
        if written + dropped >= 20.0 {
            assert!(written > 0.0 && dropped > 0.0, "{written} {dropped}");
            break;
        }
        assert!(Instant::now() < until, "{written} {dropped}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_other, address) = start("rules/rules.wasm", &[]);
    assert!(
        !metrics(address)
            .keys()
            .any(|name| name.starts_with("wasm_agent_records"))
    );
}
