//! O-02: settings that a proxy pushes are applied, or refused with a reason.

use serde_json::{Value, json};

use super::admin::{health, metrics, start};
use super::guest::Guest;
use super::support::{Client, decision_of, request};

/// Why a push was refused, if it was.
fn push(client: &mut Client, config: &Value) -> Option<String> {
    let push = json!({"correlation_id":"push","config":config,"config_version":null});
    client.send(0x17, &push);
    let answer = client.answer();
    match decision_of(&answer) {
        "allow" => None,
        "block" => Some(
            answer["decision"]["block"]["body"]
                .as_str()
                .unwrap()
                .to_owned(),
        ),
        other => panic!("{other}"),
    }
}

fn ask(client: &mut Client) -> Value {
    client.send(0x10, &request("c", "/"));
    client.answer()
}

#[test]
fn o_02_what_is_pushed_changes_what_is_answered() {
    let args = ["--no-smoke-call", "--timeout", "5s"];
    let (agent, address) = start("hostile/trap-unreachable.wat", &args);
    let mut client = agent.connect_v2();
    assert_eq!(decision_of(&ask(&mut client)), "block");
    assert_eq!(
        push(&mut client, &json!({"fail-open": true, "pool-size": 9})),
        None
    );
    let answer = ask(&mut client);
    assert_eq!(decision_of(&answer), "allow");
    assert_eq!(answer["audit"]["tags"], json!(["wasm-error", "fail-open"]));
    // Whoever connects later is answered the same, and pushes the same.
    let mut other = agent.connect_v2();
    assert_eq!(
        push(&mut other, &json!({"fail-open": true, "pool-size": 9})),
        None
    );
    assert_eq!(decision_of(&ask(&mut other)), "allow");
    assert_eq!(health(address, "/readyz").1["pool_size"], 9);
    let found = metrics(address);
    assert_eq!(found["wasm_agent_pool_size"], 9.0);
    assert_eq!(
        found[r#"wasm_agent_configurations_total{result="applied"}"#],
        1.0
    );
    assert_eq!(
        found[r#"wasm_agent_configurations_total{result="unchanged"}"#],
        1.0
    );
}

#[test]
fn o_02_what_cannot_be_applied_changes_nothing() {
    let (agent, _) = start("right/deny.wat", &["--pool-size", "3", "--timeout", "5s"]);
    let mut client = agent.connect_v2();
    for (config, why) in [
        (json!({"pool-size": 0}), "pool-size"),
        (
            json!({"pool-size": 5, "module": "other.wasm"}),
            "unknown setting module",
        ),
        (json!({"fail_open": true}), "did you mean fail-open?"),
        (json!([1]), "an object"),
        // Its memory is larger from the beginning.
        (
            json!({"max-memory-bytes": 65536, "fail-open": true}),
            "memory",
        ),
    ] {
        let reason = push(&mut client, &config).unwrap();
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!(
        push(&mut client, &json!({"pool-size": 3, "fail-open": false})),
        None
    );
    assert_eq!(decision_of(&ask(&mut client)), "block");
}

/// A limit that is pushed holds from the next event on, fuel too, which the
/// engine did not count before.
#[test]
fn o_02_limits_are_applied() {
    let (agent, _) = start("rules/rules.wasm", &["--timeout", "5s"]);
    let mut client = agent.connect_v2();
    assert_eq!(decision_of(&ask(&mut client)), "allow");
    let reason = push(&mut client, &json!({"fuel": 100})).unwrap();
    assert!(
        reason.contains("fuel"),
        "the smoke call runs out of it: {reason}"
    );
    assert_eq!(push(&mut client, &json!({"fuel": 100_000_000})), None);
    assert_eq!(decision_of(&ask(&mut client)), "allow");
    assert_eq!(
        push(&mut client, &json!({"fuel": null, "isolation": "fresh"})),
        None
    );
    assert_eq!(decision_of(&ask(&mut client)), "allow");
    let reason = push(&mut client, &json!({"max-answer-bytes": 4})).unwrap();
    assert!(reason.contains("answer-limit"), "{reason}");
}

/// What was pushed is in force for a module that is loaded later, too.
#[test]
fn o_02_a_reload_keeps_what_was_pushed() {
    let guest = Guest::new("right/deny.wat");
    let path = guest.path();
    let (agent, address) = start(
        path.to_str().unwrap(),
        &["--timeout", "5s", "--no-smoke-call"],
    );
    let mut client = agent.connect_v2();
    assert_eq!(
        push(&mut client, &json!({"fail-open": true, "pool-size": 2})),
        None
    );
    guest.put("hostile/trap-unreachable.wat");
    agent.signal("HUP");
    agent.wait_for_line("reloaded");
    assert_eq!(
        ask(&mut client)["audit"]["tags"],
        json!(["wasm-error", "fail-open"])
    );
    assert_eq!(health(address, "/readyz").1["pool_size"], 2);
}

#[test]
fn settings_can_be_kept_from_the_proxy() {
    let (agent, _) = start("right/deny.wat", &["--timeout", "5s", "--keep-settings"]);
    let mut client = agent.connect_v2();
    assert_eq!(push(&mut client, &json!({"pool-size": 4})), None);
    let reason = push(&mut client, &json!({"pool-size": 5})).unwrap();
    assert!(reason.contains("kept"), "{reason}");
}
