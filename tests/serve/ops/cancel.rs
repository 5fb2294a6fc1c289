//! Whoever gives an event up gets the guest back that worked on it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::admin::{metrics, start};
use super::guest::{Guest, edited};
use crate::support::agent::{Client, decision_of, id_of, request};
use crate::support::shipped;

/// A guest that never ends a call with `x-poison` in it, and allows any other.
fn runaway() -> Guest {
    let guest = Guest::new("right/allow.wat");
    guest.put_bytes(&edited(
        &shipped("hostile/poison-once.wat"),
        "(then (unreachable))",
        "(then (loop $on (br $on)))",
    ));
    guest
}

/// Begins a call that does not end by itself, and waits until it was received.
fn begin(client: &mut Client, id: &str) {
    let mut event = request(id, "/");
    event["headers"]["x-poison"] = json!(["1"]);
    client.send(0x10, &event);
    client.send_bytes(0x41, b"{}");
    assert_eq!(client.receive().unwrap().0, 0x42);
}

fn args() -> Vec<&'static str> {
    vec![
        "--pool-size",
        "1",
        "--timeout",
        "10m",
        "--queue-wait",
        "10m",
    ]
}

/// One instance, a call that takes ten minutes, and an answer all the same.
#[test]
fn p_15_a_cancelled_call_is_stopped() {
    let guest = runaway();
    let (agent, address) = start(guest.path().to_str().unwrap(), &args());
    let mut client = agent.connect_v2();
    let began = Instant::now();
    for round in 0..50 {
        let id = format!("runs-{round}");
        begin(&mut client, &id);
        let cancel = json!({"correlation_id": id, "reason": round % 6, "timestamp_ms": 1});
        client.send(0x40, &cancel);
        client.send(0x10, &request("next", "/"));
        let answer = client.answer();
        assert_eq!((id_of(&answer), decision_of(&answer)), ("next", "allow"));
    }
    assert!(began.elapsed() < Duration::from_secs(60));
    let found = metrics(address);
    assert_eq!(found["wasm_agent_events_abandoned_total"], 50.0);
    assert_eq!(
        found[r#"wasm_agent_instances_dropped_total{reason="fault"}"#],
        50.0
    );
    assert_eq!(found[r#"wasm_agent_pool_instances{state="in_use"}"#], 0.0);
}

/// So are the calls of a peer that leaves, and those that a later event of the
/// same id takes the place of.
#[test]
fn p_15_calls_that_nobody_waits_for_are_stopped() {
    let guest = runaway();
    let (agent, _) = start(guest.path().to_str().unwrap(), &args());
    let mut leaves = agent.connect_v2();
    begin(&mut leaves, "left");
    drop(leaves);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("next", "/"));
    assert_eq!(id_of(&client.answer()), "next");
    begin(&mut client, "same");
    client.send(0x10, &request("same", "/"));
    let answer = client.answer();
    assert_eq!((id_of(&answer), decision_of(&answer)), ("same", "allow"));
}
