//! Settings that a proxy pushes are applied, or refused with a reason; what
//! would loosen the operator's is left as it is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::admin::{health, metrics, start};
use super::guest::Guest;
use crate::support::agent::{Client, decision_of, id_of, request};

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
    let args = ["--no-smoke-call", "--timeout", "5s", "--fail-open"];
    let (agent, address) = start("hostile/trap-unreachable.wat", &args);
    let mut client = agent.connect_v2();
    let answer = ask(&mut client);
    assert_eq!(decision_of(&answer), "allow");
    assert_eq!(answer["audit"]["tags"], json!(["wasm-error", "fail-open"]));
    let pushed = json!({"fail-open": false, "pool-size": 2});
    assert_eq!(push(&mut client, &pushed), None);
    assert_eq!(decision_of(&ask(&mut client)), "block");
    // Whoever connects later is answered the same, and pushes the same.
    let mut other = agent.connect_v2();
    assert_eq!(push(&mut other, &pushed), None);
    assert_eq!(decision_of(&ask(&mut other)), "block");
    assert_eq!(health(address, "/readyz").1["pool_size"], 2);
    let found = metrics(address);
    assert_eq!(found["wasm_agent_pool_size"], 2.0);
    let results =
        |result: &str| found[&*format!("wasm_agent_configurations_total{{result=\"{result}\"}}")];
    assert_eq!((results("applied"), results("unchanged")), (1.0, 1.0));
    // Back to what the operator said, and no further.
    let operators = json!({"fail-open": true, "pool-size": 4});
    assert_eq!(push(&mut other, &operators), None);
    assert_eq!(decision_of(&ask(&mut client)), "allow");
    assert_eq!(health(address, "/readyz").1["pool_size"], 4);
}

/// Each key on its own: a stricter value is applied, one that is looser than the
/// operator's is not, and whoever asks for health sees which.
#[test]
fn what_would_loosen_the_operators_settings_is_not_applied() {
    let operators = [
        "--pool-size",
        "2",
        "--timeout",
        "5s",
        "--fuel",
        "50000000",
        "--max-memory",
        "8MiB",
        "--max-answer",
        "64KiB",
        "--isolation",
        "recycle=100",
        "--no-smoke-call",
    ];
    let (agent, address) = start("rules/rules.wasm", &operators);
    let mut client = agent.connect_v2();
    let applied =
        |address| metrics(address)[r#"wasm_agent_configurations_total{result="applied"}"#];
    for (key, stricter, looser) in [
        ("pool-size", json!(1), vec![json!(3), json!(1024)]),
        ("fail-open", json!(false), vec![json!(true)]),
        (
            "timeout-ms",
            json!(4000),
            vec![json!(5001), json!(3_600_000)],
        ),
        (
            "fuel",
            json!(40_000_000),
            vec![json!(50_000_001), json!(u64::MAX), json!(null)],
        ),
        (
            "max-memory-bytes",
            json!(4 << 20),
            vec![json!((8 << 20) + 1), json!(4_u64 << 30)],
        ),
        (
            "max-answer-bytes",
            json!(32 << 10),
            vec![json!((64 << 10) + 1), json!(u32::MAX)],
        ),
        (
            "isolation",
            json!("recycle=50"),
            vec![json!("recycle=101"), json!("pooled")],
        ),
    ] {
        for looser in looser {
            // Together with what may be applied.
            let both = json!({"isolation": "recycle=99", key: looser});
            assert_eq!(push(&mut client, &both), None, "{key} {looser}");
            let said = health(address, "/healthz").1;
            let said = said["settings_not_applied"][0].as_str().unwrap();
            let start = format!("{key}: {} was pushed", looser.to_string().trim_matches('"'));
            assert!(said.starts_with(&start), "{said}");
            assert!(
                said.contains(&format!("--accept-settings {key} ")),
                "{said}"
            );
            let back = json!({"isolation": "recycle=100"});
            assert_eq!(push(&mut client, &back), None);
        }
        let before = applied(address);
        assert_eq!(push(&mut client, &json!({key: stricter})), None, "{key}");
        let expected = if key == "fail-open" { 0.0 } else { 1.0 };
        assert_eq!(applied(address) - before, expected, "{key}");
        // What is applied now is no news any more.
        assert!(
            health(address, "/healthz")
                .1
                .get("settings_not_applied")
                .is_none()
        );
    }
    agent.wait_for_line("pushed settings not applied");
    assert_eq!(health(address, "/healthz").1["status"], "healthy");
    assert_eq!(health(address, "/healthz").1["policy"], "fail-closed");
}

/// Where faults are allowed, a limit that real requests exceed would let them
/// through: none is tightened there, however the policy came to be open.
#[test]
fn no_limit_is_tightened_where_faults_are_allowed() {
    let operators = [
        "--timeout",
        "5s",
        "--fuel",
        "50000000",
        "--max-memory",
        "8MiB",
        "--max-answer",
        "64KiB",
        "--no-smoke-call",
        "--fail-open",
    ];
    let (agent, address) = start("rules/rules.wasm", &operators);
    let mut client = agent.connect_v2();
    let applied = || metrics(address)[r#"wasm_agent_configurations_total{result="applied"}"#];
    let told = |key: &str| {
        let said = health(address, "/healthz").1;
        let said = said["settings_not_applied"].as_array().cloned();
        let said = said.unwrap_or_default();
        said.into_iter()
            .map(|remark| remark.as_str().unwrap().to_owned())
            .find(|remark| remark.starts_with(&format!("{key}: ")))
    };
    for (key, tighter, own) in [
        ("timeout-ms", json!(1), json!(5000)),
        ("fuel", json!(1), json!(50_000_000)),
        ("max-memory-bytes", json!(4 << 20), json!(8 << 20)),
        ("max-answer-bytes", json!(1), json!(64 << 10)),
    ] {
        let about =
            format!("{key}: {tighter} was pushed and is not applied, because it is tighter");
        let before = applied();
        assert_eq!(push(&mut client, &json!({key: tighter})), None, "{key}");
        assert_eq!(applied() - before, 0.0, "{key}");
        let remark = told(key).unwrap();
        assert!(remark.starts_with(&about), "{remark}");
        assert!(
            remark.contains(&format!("--accept-settings {key} ")),
            "{remark}"
        );
        // The module still decides.
        assert_eq!(ask(&mut client)["audit"]["tags"], json!(["clean"]), "{key}");
        // What it was started with is no news.
        assert_eq!(push(&mut client, &json!({key: own})), None, "{key}");
        assert_eq!(told(key), None);

        // Closed, it is applied; opened again, it is not any more.
        let both = json!({"fail-open": false, key: tighter});
        assert_eq!(push(&mut client, &both), None, "{key}");
        assert_eq!(told(key), None);
        assert_eq!(push(&mut client, &json!({"fail-open": true})), None);
        assert!(told(key).unwrap().starts_with(&about), "{key}");
        assert_eq!(push(&mut client, &json!({key: own})), None, "{key}");
        assert_eq!(applied() - before, 2.0, "{key}");
    }
    agent.wait_for_line("pushed settings are no longer applied");

    let opened = [&operators[..], &["--accept-settings", "fuel"]].concat();
    let (agent, _) = start("rules/rules.wasm", &opened);
    let mut client = agent.connect_v2();
    assert_eq!(
        push(&mut client, &json!({"fuel": 1, "timeout-ms": 1})),
        None
    );
    let tags = ask(&mut client)["audit"]["tags"].clone();
    assert_eq!(tags, json!(["wasm-error", "fail-open"]));
}

/// The bound is what the operator said, not what is in force.
#[test]
fn a_stricter_value_can_be_taken_back() {
    let (agent, address) = start("right/deny.wat", &["--pool-size", "4", "--timeout", "5s"]);
    let mut client = agent.connect_v2();
    for (size, then) in [(1, 1), (3, 3), (5, 3), (4, 4), (2, 2), (1024, 2)] {
        assert_eq!(push(&mut client, &json!({"pool-size": size})), None);
        assert_eq!(health(address, "/readyz").1["pool_size"], then, "{size}");
    }
}

#[test]
fn single_keys_can_be_opened() {
    let args = [
        "--pool-size",
        "1",
        "--timeout",
        "5s",
        "--accept-settings",
        "pool-size,fuel",
    ];
    let (agent, address) = start("right/deny.wat", &args);
    let mut client = agent.connect_v2();
    let pushed = json!({"pool-size": 3, "fail-open": true});
    assert_eq!(push(&mut client, &pushed), None);
    let (_, said) = health(address, "/readyz");
    assert_eq!(
        (&said["pool_size"], &said["policy"]),
        (&json!(3), &json!("fail-closed"))
    );
    assert_eq!(said["settings_not_applied"].as_array().unwrap().len(), 1);
    for (args, why) in [
        (
            ["--accept-settings", "pool_size"].as_slice(),
            "did you mean pool-size?",
        ),
        (
            &["--accept-settings", "fuel", "--keep-settings"],
            "--keep-settings",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = crate::support::agent::command("right/deny.wat", &folder)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
    }
}

/// However much is pushed, every message is answered, the newest value of each
/// key is in force in the end, and no thread is made for a message.
#[test]
fn a_flood_of_settings_is_few_changes() {
    const PUSHED: usize = 3000;
    let args = ["--pool-size", "8", "--timeout", "5s", "--no-smoke-call"];
    let (agent, address) = start("rules/rules.wasm", &args);
    let mut client = agent.connect_v2();
    let threads = || {
        let tasks = format!("/proc/{}/task", agent.child.id());
        std::fs::read_dir(tasks).unwrap().count()
    };
    let before = threads();
    let mut sender = Client {
        stream: client.stream.try_clone().unwrap(),
    };
    let feeder = std::thread::spawn(move || {
        for number in 0..PUSHED {
            let config = json!({"pool-size": 1 + number % 7, "timeout-ms": 1000 + number});
            let (id, version) = (format!("k{number}"), "v".repeat(1000));
            sender.send(
                0x17,
                &json!({"correlation_id": id, "config": config, "config_version": version}),
            );
        }
        // Another key: what was pushed before it holds.
        sender.send(
            0x17,
            &json!({"correlation_id": "last", "config": {"fuel": 70_000_000}}),
        );
    });
    let mut answers = BTreeMap::new();
    let mut most = 0;
    for _ in 0..=PUSHED {
        let answer = client.answer();
        answers.insert(id_of(&answer).to_owned(), decision_of(&answer).to_owned());
        most = most.max(threads());
    }
    feeder.join().unwrap();
    assert_eq!(answers.len(), PUSHED + 1);
    assert_eq!((&*answers["last"], &*answers["k2999"]), ("allow", "allow"));
    assert!(most <= before + 4, "{most} threads, {before} before");
    let size = u64::try_from(1 + (PUSHED - 1) % 7).unwrap();
    assert_eq!(health(address, "/readyz").1["pool_size"], size);
    let found = metrics(address);
    let results =
        |result: &str| found[&*format!("wasm_agent_configurations_total{{result=\"{result}\"}}")];
    assert_eq!(
        results("applied") + results("unchanged") + results("refused") + results("limited"),
        3001.0
    );
}

/// A push that cannot be applied refuses itself, and no other that waited with
/// it.
#[test]
fn a_bad_push_keeps_no_good_one_out() {
    let (agent, address) = start("rules/rules.wasm", &["--pool-size", "4", "--timeout", "5s"]);
    let mut client = agent.connect_v2();
    for round in 0..20 {
        let mut send = |id: &str, config: Value| {
            client.send(
                0x17,
                &json!({"correlation_id": id, "config": config, "config_version": null}),
            );
        };
        send("first", json!({"pool-size": 4 - round % 2}));
        // The smoke call runs out of it.
        send("bad", json!({"fuel": 100}));
        send("good", json!({"timeout-ms": 4000 + round}));
        send("bad too", json!({"max-answer-bytes": 4}));
        let answers: BTreeMap<String, String> = (0..4)
            .map(|_| client.answer())
            .map(|answer| (id_of(&answer).to_owned(), decision_of(&answer).to_owned()))
            .collect();
        let decisions: Vec<&str> = ["first", "bad", "good", "bad too"]
            .iter()
            .map(|id| &*answers[*id])
            .collect();
        assert_eq!(decisions, ["allow", "block", "allow", "block"], "{round}");
        assert_eq!(health(address, "/readyz").1["pool_size"], 4 - round % 2);
    }
}

/// A key of any length costs no more than reading it, and is cut where it is
/// told.
#[test]
fn a_key_of_any_length_is_told_in_short() {
    let (agent, _) = start("right/deny.wat", &["--timeout", "5s"]);
    let mut client = agent.connect_v2();
    let long = "k".repeat(4_000_000);
    for config in [
        json!({&*long: 1}),
        json!({"isolation": long}),
        json!({"pool-size": vec![0; 500_000]}),
        json!({"pool-size": {&*long: {&*long: 1}}}),
        (0..200_000)
            .map(|number| (format!("key-{number}"), json!(number)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    ] {
        let reason = push(&mut client, &config).unwrap();
        assert!(reason.len() < 300, "{reason}");
        let line = agent.wait_for_line("pushed settings refused");
        assert!(line.len() < 600, "{line}");
    }
}

/// Refusals are logged up to a rate.
#[test]
fn a_flood_of_bad_settings_is_logged_in_few_lines() {
    let (agent, address) = start("right/deny.wat", &["--timeout", "5s"]);
    let mut client = agent.connect_v2();
    for _ in 0..1000 {
        assert!(push(&mut client, &json!({"new": 1})).is_some());
        assert!(push(&mut client, &json!({"fail-open": true})).is_none());
    }
    let cut = metrics(address)[r#"wasm_agent_log_lines_dropped_total{reason="rate"}"#];
    assert!(cut >= 1000.0, "{cut}");
}

/// An event that waits for an instance has room once a pool with more of them is
/// in place.
#[test]
fn an_event_that_waits_is_called_in_the_new_pool() {
    let args = [
        "--pool-size",
        "2",
        "--timeout",
        "20s",
        "--queue-wait",
        "20s",
        "--no-smoke-call",
    ];
    let (agent, address) = start("hostile/spin.wat", &args);
    let (mut first, mut second, mut pushes) =
        (agent.connect_v2(), agent.connect_v2(), agent.connect_v2());
    assert_eq!(
        push(&mut pushes, &json!({"pool-size": 1, "timeout-ms": 10_000})),
        None
    );
    first.send(0x10, &request("holds the only one", "/"));
    while metrics(address)[r#"wasm_agent_pool_instances{state="in_use"}"#] != 1.0 {}
    second.send(0x10, &request("waits", "/"));
    while metrics(address)["wasm_agent_pool_waiting"] != 1.0 {}
    // Its time in the new pool is short: it ends long before the first, whose
    // end the answer to the settings waits for.
    let config = json!({"pool-size": 2, "timeout-ms": 50});
    pushes.send(
        0x17,
        &json!({"correlation_id": "k", "config": config, "config_version": null}),
    );
    assert_eq!(id_of(&second.answer()), "waits");
    // The first one runs on.
    let deadlines = metrics(address)[r#"wasm_agent_faults_total{fault="deadline"}"#];
    assert_eq!(deadlines, 1.0);
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
        (json!({"max-memory-bytes": 65536, "pool-size": 1}), "memory"),
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
        &["--timeout", "5s", "--no-smoke-call", "--fail-open"],
    );
    let mut client = agent.connect_v2();
    assert_eq!(
        push(&mut client, &json!({"fail-open": false, "pool-size": 2})),
        None
    );
    guest.put("hostile/trap-unreachable.wat");
    agent.signal("HUP");
    agent.wait_for_line("reloaded");
    let answer = ask(&mut client);
    assert_eq!(decision_of(&answer), "block");
    assert_eq!(answer["audit"]["tags"], json!(["wasm-error"]));
    assert_eq!(health(address, "/readyz").1["pool_size"], 2);
}

#[test]
fn settings_can_be_kept_from_the_proxy() {
    let (agent, _) = start("right/deny.wat", &["--timeout", "5s", "--keep-settings"]);
    let mut client = agent.connect_v2();
    assert_eq!(push(&mut client, &json!({"pool-size": 4})), None);
    let reason = push(&mut client, &json!({"pool-size": 5})).unwrap();
    assert!(reason.contains("--keep-settings"), "{reason}");
}
