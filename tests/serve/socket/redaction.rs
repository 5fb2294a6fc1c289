//! `serve --record`: a redacted record keeps its decision, or says that it does not.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use base64::Engine as _;

use crate::support::agent::{Agent, Client, command, decision_of, request};
use crate::support::rules::{Act, Handler, Rules};
use crate::support::{TestDir, binary};

/// A module that blocks where its input has one of these texts.
fn waf(dir: &TestDir, name: &str, patterns: &[&str]) -> std::path::PathBuf {
    let act = |answer: &str| Act::Answer(answer.to_owned());
    let block = |pattern: &&str| {
        (
            (*pattern).to_owned(),
            act(r#"{"decision":"block","status":403}"#),
        )
    };
    let handler = Handler {
        rules: patterns.iter().map(block).collect(),
        default: act(r#"{"decision":"allow"}"#),
    };
    let phases = ["request_headers", "request_body", "response_headers"];
    dir.file(
        name,
        Rules(phases.map(|phase| (phase, handler.clone())).to_vec()).wat(),
    )
}

fn recording(module: &Path, file: &Path) -> (Agent, Client) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(module.to_str().unwrap(), &folder);
    command.args(["--timeout", "5s", "--record"]).arg(file);
    let agent = Agent::spawn(command, folder);
    let client = agent.connect_v2();
    (agent, client)
}

fn stop(mut agent: Agent, client: Client) {
    drop(client);
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
}

fn body(id: &str, data: &str) -> Value {
    json!({"correlation_id": id, "chunk_index": 0, "is_last": true, "total_size": null,
        "bytes_received": data.len(), "data": base64::engine::general_purpose::STANDARD.encode(data)})
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_recording_replays_decision_for_decision_or_says_where_not() {
    let dir = TestDir::new();
    let module = waf(
        &dir,
        "waf.wat",
        &["' OR '", "UNION", "../", "%27", "\\u0027"],
    );
    let file = dir.path("traffic.jsonl");
    let (agent, mut client) = recording(&module, &file);
    let values = [
        "1' OR '1'='1",
        "x' UNION y",
        "UNION",
        "../../x",
        "1%27--",
        "plain-s3cret-01",
    ];
    let mut blocked = 0;
    for (number, value) in values.iter().enumerate() {
        for place in 0..4 {
            let id = format!("c{number}-{place}");
            let mut head = request(&id, "/login");
            match place {
                0 => head["uri"] = json!(format!("/s?token={value}")),
                1 => head["headers"]["cookie"] = json!([format!("sid={value}")]),
                2 => head["headers"]["authorization"] = json!([format!("Bearer {value}")]),
                _ => head["method"] = json!("POST"),
            }
            client.send(0x10, &head);
            let mut decision = decision_of(&client.answer()).to_owned();
            if place == 3 {
                client.send(0x11, &body(&id, &json!({"password": value}).to_string()));
                decision_of(&client.answer()).clone_into(&mut decision);
            }
            blocked += u64::from(decision == "block");
        }
    }
    // What is not written when the agent stops is asked about for a moment only.
    let until = Instant::now() + Duration::from_secs(30);
    while std::fs::read_to_string(&file).unwrap().lines().count() < 5 * values.len() {
        assert!(Instant::now() < until, "not all records were written");
        std::thread::sleep(Duration::from_millis(10));
    }
    stop(agent, client);
    assert_eq!(blocked, 5 * 4);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let marks = |mark: &str| {
        lines(&file)
            .iter()
            .filter(|line| line["redaction"] == mark)
            .count()
    };
    println!(
        "recorded: {} marked changed, {} unchecked",
        marks("redaction-changed"),
        marks("unchecked")
    );
    assert_eq!(marks("unchecked"), 0, "{text}");
    let changed = marks("redaction-changed");
    assert!((4..10).contains(&changed), "{changed}: {text}");
    let output = binary(["replay", "--format", "json", "--allow-redacted-changes"])
        .arg(&module)
        .arg(&file)
        .output()
        .unwrap();
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(replayed["verdict"], "passed", "{replayed}");
    assert!(
        replayed["drift"]["categories"]["decision"].is_null(),
        "{replayed}"
    );
    let again = replayed["outcomes"]["decisions"]["block 403"]
        .as_u64()
        .unwrap();
    assert_eq!(again, blocked - changed as u64, "{replayed}");
}

/// A secret of the head comes back in the body: it is asked about behind the head as
/// that is written.
#[test]
fn a_later_event_is_asked_about_behind_the_redacted_head() {
    let dir = TestDir::new();
    // The body is blocked for what the head had as well.
    let module = waf(&dir, "waf.wat", &["again: it's so"]);
    let file = dir.path("traffic.jsonl");
    let (agent, mut client) = recording(&module, &file);
    client.send(0x10, &request("c1", "/s?token=it's so"));
    assert_eq!(decision_of(&client.answer()), "allow");
    client.send(0x11, &body("c1", "again: it's so"));
    assert_eq!(decision_of(&client.answer()), "block");
    client.send(0x10, &request("c2", "/s?token=it's so"));
    assert_eq!(decision_of(&client.answer()), "allow");
    client.send(0x11, &body("c2", "nothing"));
    assert_eq!(decision_of(&client.answer()), "allow");
    stop(agent, client);
    let marks: Vec<Value> = lines(&file)
        .iter()
        .map(|line| line["redaction"].clone())
        .collect();
    // All words of a secret are never readable.
    assert_eq!(
        marks,
        [
            Value::Null,
            json!("redaction-changed"),
            Value::Null,
            Value::Null
        ]
    );
}

/// A guest that answers in its own time: nothing is asked of it that would hold up
/// the recording, and what was not asked says so.
#[test]
fn what_could_not_be_asked_is_marked_and_counted() {
    let dir = TestDir::new();
    let answer = |answer: &str| Act::Answer(answer.to_owned());
    // The first call of each instance is allowed, the others are not.
    let act = Act::After(
        1,
        Box::new(answer(r#"{"decision":"allow"}"#)),
        Box::new(answer(r#"{"decision":"block","status":403}"#)),
    );
    let handler = Handler {
        rules: Vec::new(),
        default: act,
    };
    let module = dir.file(
        "counts.wat",
        Rules(vec![("request_headers", handler)]).wat(),
    );
    let file = dir.path("traffic.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(module.to_str().unwrap(), &folder);
    command
        .args([
            "--timeout",
            "5s",
            "--pool-size",
            "1",
            "--no-smoke-call",
            "--record",
        ])
        .arg(&file);
    let agent = Agent::spawn(command, folder);
    let mut client = agent.connect_v2();
    for (number, decision) in ["allow", "block", "block"].iter().enumerate() {
        client.send(
            0x10,
            &request(&format!("c{number}"), "/s?token=a-s3cret-value"),
        );
        assert_eq!(decision_of(&client.answer()), *decision);
    }
    stop(agent, client);
    let marks: Vec<Value> = lines(&file)
        .iter()
        .map(|line| line["redaction"].clone())
        .collect();
    assert_eq!(marks, [Value::Null, json!("unchecked"), json!("unchecked")]);
}
