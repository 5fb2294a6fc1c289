//! `serve --record`: what is written down, and that `replay` and `run` take it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use base64::Engine as _;

use crate::support::agent::{Agent, Client, command, decision_of, request};
use crate::support::clock::{NEW_YEAR, Refuses};
use crate::support::{binary, shipped};

const MODULE: &str = "rules/rules.wasm";
const URIS: [&str; 4] = [
    "/",
    "/admin/users",
    "/download?file=../../etc/passwd",
    "/old/page",
];

/// An agent that records into this file, and a client of it.
pub(super) fn recording(file: &Path, args: &[&str]) -> (Agent, Client) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(MODULE, &folder);
    command
        .args(["--timeout", "5s", "--record"])
        .arg(file)
        .args(args);
    let agent = Agent::spawn(command, folder);
    let client = agent.connect_v2();
    (agent, client)
}

fn stop(mut agent: Agent, client: Client) {
    drop(client);
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
}

/// Serves so many transactions with a recording, and ends in order.
fn recorded(count: usize, args: &[&str]) -> (Agent, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traffic.jsonl");
    let mut command = command(MODULE, &folder);
    command
        .args(["--timeout", "5s", "--record"])
        .arg(&file)
        .args(args);
    let mut agent = Agent::spawn(command, folder);
    let mut client = agent.connect_v2();
    for index in 0..count {
        let id = format!("c{index}");
        let mut head = request(&id, URIS[index % URIS.len()]);
        head["headers"]["authorization"] = json!(["Bearer s3cr3t-of-the-client"]);
        client.send(0x10, &head);
        if decision_of(&client.answer()) == "allow" {
            client.send(
                0x12,
                &json!({"correlation_id":id,"status":200,"headers":{"server":["nginx"]}}),
            );
            assert_eq!(decision_of(&client.answer()), "allow");
        }
    }
    drop(client);
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
    (agent, file)
}

fn json_of(args: &[&str], paths: &[&Path]) -> Value {
    json_with(MODULE, args, paths)
}

fn json_with(module: &str, args: &[&str], paths: &[&Path]) -> Value {
    let output = binary([args[0]])
        .arg(shipped(module))
        .args(paths)
        .args(&args[1..])
        .args(["--format", "json", "--timeout", "5s"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn what_was_served_replays_decision_for_decision_and_becomes_fixtures_that_pass() {
    let (_agent, file) = recorded(40, &[]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("s3cr3t"), "{text}");
    assert!(text.contains("Bearer redacted:"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let fixtures = file.with_file_name("fixtures");
    let folder = fixtures.to_str().unwrap();
    let replayed = json_of(
        &[
            "replay",
            "--strict",
            "--save-fixture",
            folder,
            "--fixtures",
            "all",
        ],
        &[&file],
    );
    assert_eq!(replayed["verdict"], "passed", "{replayed}");
    assert_eq!(replayed["records"]["transactions"], 40);
    assert_eq!(replayed["drift"]["compared"], 40);
    assert_eq!(replayed["drift"]["categories"]["unchanged"], 40);
    assert!(replayed["outcomes"]["decisions"].as_object().unwrap().len() > 2);
    let run = json_of(&["run"], &[&fixtures]);
    assert_eq!(run["verdict"], "passed", "{run}");
    assert_eq!(run["fixtures"].as_array().unwrap().len(), 40);
}

/// Records the answer of a module to one whole request body.
fn record_body(module: &str, file: &Path, args: &[&str]) -> Value {
    let served = tempfile::tempdir().unwrap();
    let mut command = command(module, &served);
    command.args(["--timeout", "5s", "--record"]).arg(file);
    command.args(args);
    let agent = Agent::spawn(command, served);
    let mut client = agent.connect_v2();
    client.send(0x11, &body("c1", "x", "bytes_received"));
    client.answer();
    stop(agent, client);
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A recording holds what was sent; what its transport could not carry is no
/// difference in a replay, and everything else is.
#[test]
fn what_a_transport_does_not_carry_is_no_drift() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let is_same = |module: &str, args: &[&str]| {
        let replayed = json_with(module, &[&["replay"], args].concat(), &[&file]);
        assert_eq!(replayed["drift"]["compared"], 1, "{replayed}");
        replayed["drift"]["categories"]["unchanged"] == 1
    };
    let text = "right/request-body-replace.wat";
    let mut line = record_body(text, &file, &[]);
    assert!(is_same(text, &[]));
    // As gRPC has it.
    line["output"]["request_body_mutation"] = Value::Null;
    std::fs::write(&file, format!("{line}\n")).unwrap();
    assert!(!is_same(text, &[]));
    line["output"]["audit"]["tags"] = json!(["body-mutation-unsupported"]);
    std::fs::write(&file, format!("{line}\n")).unwrap();
    assert!(is_same(text, &[]));
    line["output"]["decision"] = json!({"block": {"status": 403}});
    std::fs::write(&file, format!("{line}\n")).unwrap();
    assert!(!is_same(text, &[]));

    // Bytes that are no text, which no proxy could be sent.
    let module = folder.path().join("binary.wat");
    let source = std::fs::read_to_string(shipped(text)).unwrap();
    let source = source.replace("replaced by the module", "//////////////////8=");
    std::fs::write(&module, source.replace("utf8", "base64")).unwrap();
    let module = module.to_str().unwrap();
    for (args, decision) in [(&[][..], "block"), (&["--fail-open"], "allow")] {
        std::fs::remove_file(&file).unwrap();
        let line = record_body(module, &file, args);
        assert_eq!(decision_of(&line["output"]), decision, "{line}");
        assert!(is_same(module, args));
        assert!(!is_same(text, args), "another answer");
    }
}

/// The clock of the host decides here, and the time of each record in `replay` and of
/// its fixture in `run`.
#[test]
fn what_was_decided_by_the_clock_replays_decision_for_decision() {
    for rule in [
        Refuses::From(NEW_YEAR),
        Refuses::Before(NEW_YEAR),
        Refuses::OutsideOfficeHours,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (module, file, fixtures) = (path("m.wat"), path("traffic.jsonl"), path("fixtures"));
        std::fs::write(&module, rule.wat()).unwrap();
        let socket = tempfile::tempdir().unwrap();
        let mut command = command(&module, &socket);
        command.args(["--timeout", "5s", "--record", &file]);
        let mut agent = Agent::spawn(command, socket);
        let mut client = agent.connect_v2();
        let mut refused = 0;
        for index in 0..8 {
            client.send(0x10, &request(&format!("c{index}"), "/"));
            refused += usize::from(decision_of(&client.answer()) == "block");
        }
        drop(client);
        agent.signal("TERM");
        assert_eq!(agent.wait().code(), Some(0));
        match rule {
            Refuses::From(_) => assert_eq!(refused, 8),
            Refuses::Before(_) => assert_eq!(refused, 0),
            Refuses::OutsideOfficeHours => {}
        }
        let json = |args: &[&str]| -> Value {
            let output = binary(args)
                .args(["--format", "json", "--timeout", "5s"])
                .output();
            serde_json::from_slice(&output.unwrap().stdout).unwrap()
        };
        let save = ["--save-fixture", &fixtures, "--fixtures", "all"];
        let replayed = json(&[&["replay", &module, &file], &save[..]].concat());
        assert_eq!(
            replayed["drift"]["categories"]["unchanged"], 8,
            "{replayed}"
        );
        let run = json(&["run", &module, &fixtures]);
        assert_eq!(run["totals"]["fixtures"]["passed"], 8, "{run}");
    }
}

#[test]
fn a_sample_has_whole_transactions() {
    let (_agent, file) = recorded(200, &["--record-rate", "0.3"]);
    let replayed = json_of(&["replay"], &[&file]);
    let count = replayed["records"]["transactions"].as_u64().unwrap();
    assert!((30..=90).contains(&count), "{count}");
    assert!(
        replayed["remarks"].get("start_missing").is_none(),
        "{replayed}"
    );
    assert_eq!(replayed["verdict"], "passed");
}

#[test]
fn a_full_recording_is_told_and_answers_go_on() {
    let (agent, file) = recorded(40, &["--record-max-size", "5KB"]);
    assert!(std::fs::metadata(&file).unwrap().len() <= 5_000);
    agent.wait_for_line("the recording is full");
    let line = agent.wait_for_line("the recording is complete");
    assert!(
        line.contains("dropped=") && !line.contains("dropped=0"),
        "{line}"
    );
}

#[test]
fn a_recording_that_cannot_be_written_is_an_error_before_anything_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["/dev/full", "/nowhere/at/all"] {
        let output = command(MODULE, &folder)
            .args(["--record", path])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{path}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("cannot write"), "{text}");
        assert!(!folder.path().join("a.sock").exists());
    }
}

#[test]
fn only_a_recording_is_continued_and_a_torn_line_costs_no_other() {
    let (_agent, file) = recorded(3, &[]);
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines = whole.lines().count();
    let torn = tempfile::tempdir().unwrap();
    let path = torn.path().join("torn.jsonl");
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let mut command = command(MODULE, &torn);
    command.args(["--timeout", "5s", "--record"]).arg(&path);
    let mut agent = Agent::spawn(command, torn);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("later", "/admin/users"));
    assert_eq!(decision_of(&client.answer()), "block");
    drop(client);
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
    let text = std::fs::read_to_string(&path).unwrap();
    let read = text
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok());
    assert_eq!(read.count(), lines, "all but the torn one, and the new one");

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("module.wasm");
    std::fs::copy(shipped(MODULE), &copy).unwrap();
    let output = crate::support::agent::command(MODULE, &folder)
        .arg("--record")
        .arg(&copy)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not a recording"), "{text}");
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(shipped(MODULE)).unwrap()
    );
}

const SECRET: &str = "S3cret-of-one-exchange";

/// A guest that is asked about the response alone gives the recording no other
/// event, but what is secret in the request is so in the response.
#[test]
fn a_secret_of_an_event_that_no_guest_is_asked_about_is_in_no_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let served = tempfile::tempdir().unwrap();
    let mut command = command("right/response-only.wat", &served);
    command.args(["--timeout", "5s", "--record"]).arg(&file);
    let agent = Agent::spawn(command, served);
    let mut client = agent.connect_v2();
    let mut head = request("first", "/");
    head["headers"]["x-api-key"] = json!([SECRET]);
    let echo = json!({"correlation_id": "first", "status": 200, "headers": {"x-echo": [SECRET]}});
    for (kind, message) in [(0x10, &head), (0x12, &echo)] {
        client.send(kind, message);
        client.answer();
    }
    stop(agent, client);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("x-echo") && !text.contains(SECRET), "{text}");
}

/// Nor of an event that the failure policy decided.
#[test]
fn what_follows_an_event_that_met_no_guest_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let module = folder.path().join("spin.wat");
    let text = std::fs::read_to_string(shipped("hostile/spin.wat")).unwrap();
    let (spins, _) = text.rsplit_once(')').unwrap();
    let answers = r#"(data (i32.const 1024) "{\"decision\":\"allow\"}")
        (func (export "on_response_headers") (param i32 i32) (result i64)
            (i64.const 0x0000_0400_0000_0014)))"#;
    std::fs::write(&module, [spins, answers].concat()).unwrap();
    let served = tempfile::tempdir().unwrap();
    let mut command = command(module.to_str().unwrap(), &served);
    // With one event in flight a second one is too many.
    command.args(["--fail-open", "--max-in-flight", "1", "--no-smoke-call"]);
    command.args(["--timeout", "300ms", "--record"]).arg(&file);
    let agent = Agent::spawn(command, served);
    let mut client = agent.connect_v2();
    let mut second = request("second", "/");
    second["headers"]["x-api-key"] = json!([SECRET]);
    client.send(0x10, &request("first", "/"));
    client.send(0x10, &second);
    let (one, other) = (client.answer(), client.answer());
    assert!(
        one["audit"]["tags"].to_string().contains("overload"),
        "{one}"
    );
    assert_eq!(decision_of(&other), "allow");
    let echo = json!({"correlation_id": "second", "status": 200, "headers": {"x-echo": [SECRET]}});
    client.send(0x12, &echo);
    client.answer();
    drop(client);
    agent.signal("TERM");
    let line = agent.wait_for_line("the recording is complete");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains("first"), "{text}");
    assert!(line.contains("written=1"), "{line}");
}

/// A body's event, to which the agent gives the head.
fn body(id: &str, data: &str, kind: &str) -> Value {
    json!({
        "correlation_id": id, "data": base64::engine::general_purpose::STANDARD.encode(data),
        "is_last": true, "chunk_index": 0, "total_size": null, kind: data.len(),
    })
}

/// What one event of an exchange says is secret is so in all that follow,
/// whichever exchanges come between, and in no other exchange.
#[test]
fn a_secret_of_one_event_is_in_no_later_one() {
    let named: [(&str, Value); 4] = [
        ("authorization", json!([format!("Bearer {SECRET}")])),
        ("cookie", json!([format!("a=b; sid={SECRET}")])),
        ("x-api-key", json!([SECRET])),
        (
            "referer",
            json!([format!("https://a.example/?token={SECRET}")]),
        ),
    ];
    for (name, value) in named {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        let (agent, mut client) = recording(&file, &[]);
        let mut ask = |kind: u8, message: &Value| {
            client.send(kind, message);
            client.answer();
        };
        let mut head = request("first", "/");
        head["headers"][name] = value;
        ask(0x10, &head);
        for other in 0..20 {
            ask(0x10, &request(&format!("o{other}"), &format!("/{other}")));
        }
        ask(
            0x11,
            &body("first", &format!("x {SECRET} y"), "bytes_received"),
        );
        ask(
            0x12,
            &json!({"correlation_id": "first", "status": 200, "headers": {"x-echo": [SECRET], "location": [format!("/{SECRET}/next")]}}),
        );
        ask(
            0x13,
            &body("first", &format!("<p>{SECRET}</p>"), "bytes_sent"),
        );
        ask(
            0x12,
            &json!({"correlation_id": "o3", "status": 200, "headers": {"x-mine": ["S3cret-of-none-at-all"]}}),
        );
        stop(agent, client);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 25, "{text}");
        assert!(!text.contains(SECRET), "{name}: {text}");
        assert!(text.contains("S3cret-of-none-at-all"), "{text}");
        let tokens: std::collections::BTreeSet<&str> = text
            .split("redacted:")
            .skip(1)
            .map(|rest| &rest[..16])
            .filter(|token| token.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect();
        assert!((1..=2).contains(&tokens.len()), "{name}: {tokens:?}");
    }
}

/// A body that is no UTF-8 is recorded as base64, without the secrets of its
/// exchange.
#[test]
fn a_secret_is_in_no_body_of_bytes() {
    let base64 = base64::engine::general_purpose::STANDARD;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let (agent, mut client) = recording(&file, &[]);
    let mut head = request("first", "/");
    head["headers"]["x-api-key"] = json!([SECRET]);
    let bytes = [b"\xff\xfe ", SECRET.as_bytes(), b" \xe9"].concat();
    let with_bytes = |kind| {
        let mut body = body("first", "", kind);
        body["data"] = base64.encode(&bytes).into();
        body[kind] = bytes.len().into();
        body
    };
    for (kind, message) in [
        (0x10, head),
        (0x11, with_bytes("bytes_received")),
        (
            0x12,
            json!({"correlation_id": "first", "status": 200, "headers": {}}),
        ),
        (0x13, with_bytes("bytes_sent")),
    ] {
        client.send(kind, &message);
        client.answer();
    }
    stop(agent, client);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    for line in [&lines[1], &lines[3]] {
        let input = &line["input"];
        assert_eq!(input["encoding"], "base64", "{line}");
        let bytes = base64.decode(input["data"].as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\xff\xfe redacted:"), "{bytes:?}");
        assert!(bytes.ends_with(b" \xe9"), "{bytes:?}");
    }
    assert_eq!(json_of(&["replay"], &[&file])["verdict"], "passed");
}

/// What a response sets is secret in what follows it, and the id, which a
/// later event shows to be a secret, still joins the exchange.
#[test]
fn a_secret_of_a_response_is_not_in_its_body_and_the_id_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let (agent, mut client) = recording(&file, &[]);
    for (kind, message) in [
        (0x10, request("sess-000001", "/")),
        (
            0x12,
            json!({"correlation_id": "sess-000001", "status": 200, "headers": {"set-cookie": [format!("sid={SECRET}; Path=/"), "old=sess-000001"]}}),
        ),
        (
            0x13,
            body("sess-000001", &format!("sid is {SECRET}"), "bytes_sent"),
        ),
    ] {
        client.send(kind, &message);
        client.answer();
    }
    stop(agent, client);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    let replayed = json_of(&["replay"], &[&file]);
    assert_eq!(replayed["records"]["transactions"], 1, "{text}");
}

/// A client's URL costs what it is long, and the end of the agent waits for no
/// recording.
#[test]
fn no_url_stops_the_recorder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.jsonl");
    let (agent, mut client) = recording(&file, &["--grace-period", "20s"]);
    let nested = format!("/{}?a=%3D%253D%25253D%2525253D", "?a=1".repeat(150));
    let deep = format!("/?a={}", "%25".repeat(200) + "3D");
    for (index, uri) in [&nested, &deep, &"/?a=1;sid=x".repeat(900), "/after"]
        .into_iter()
        .enumerate()
    {
        client.send(0x10, &request(&format!("c{index}"), uri));
        client.answer();
    }
    stop(agent, client);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(text.contains("/after"));
}

/// Which transactions are recorded nobody knows before.
#[test]
fn a_share_is_picked_by_no_client() {
    let share = |prefix: &str| -> std::collections::BTreeSet<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        let (agent, mut client) = recording(&file, &["--record-rate", "0.5"]);
        for index in 0..64 {
            client.send(0x10, &request(&format!("{prefix}{index}"), "/"));
            client.answer();
        }
        stop(agent, client);
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["id"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let (first, again) = (share("c"), share("c"));
    assert!((10..=54).contains(&first.len()), "{first:?}");
    assert_ne!(first, again, "the same ids are picked by every process");
}

/// Only a recording is gone on with, and what is none stays as it was.
#[test]
fn a_file_of_another_kind_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.jsonl");
    let record = r#"{"v":1,"id":"a","phase":"request_headers","input":{}}"#;
    let other = [
        "{\"my\":\"config\"}\n",
        "{\n  \"v\": 1\n}\n",
        "{}",
        "[1]\n",
        "{\"v\":2,\"id\":\"a\",\"phase\":\"request_headers\",\"input\":{}}\n",
        "{\"v\":1,\"id\":\"a\",\"phase\":\"nothing\",\"input\":{}}\n",
        "\n",
        &format!("\u{feff}{record}\n"),
        &format!("GET / {record}\n"),
        &"{\"v\":1,".repeat(400_000),
    ];
    let refused = |path: &Path, says: &str| {
        let folder = tempfile::tempdir().unwrap();
        // One that starts all the same ends by itself.
        let serve = command(MODULE, &folder);
        let mut limited = Command::new("timeout");
        limited.arg("60").arg(serve.get_program());
        limited.args(serve.get_args()).arg("--record").arg(path);
        let output = limited.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(says), "{text}");
        assert!(!folder.path().join("a.sock").exists());
    };
    let open_to_all = std::fs::Permissions::from_mode(0o644);
    for text in other {
        std::fs::write(&target, text).unwrap();
        std::fs::set_permissions(&target, open_to_all.clone()).unwrap();
        refused(&target, "name another file");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), text);
        let mode = std::fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{text:.40}");
    }
    std::fs::write(&target, format!("{record}\n")).unwrap();
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    refused(&link, "symbolic link");
    let dangling = folder.path().join("dangling.jsonl");
    std::os::unix::fs::symlink(folder.path().join("not-there"), &dangling).unwrap();
    refused(&dangling, "symbolic link");
    assert!(!folder.path().join("not-there").exists());
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    refused(&pipe, "not a regular file");
    refused(folder.path(), "cannot write");
    // One that is a recording goes on, whoever wrote its first line.
    let (agent, mut client) = recording(&target, &[]);
    client.send(0x10, &request("later", "/"));
    client.answer();
    stop(agent, client);
    let text = std::fs::read_to_string(&target).unwrap();
    assert!(
        text.starts_with(record) && text.lines().count() == 2,
        "{text}"
    );
}

#[test]
fn a_key_makes_recordings_agree_and_an_empty_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "a key\n").unwrap();
    let token = |args: &[&str]| {
        let (_agent, file) = recorded(1, args);
        let text = std::fs::read_to_string(&file).unwrap();
        let at = text.find("Bearer redacted:").unwrap() + 16;
        text[at..at + 16].to_owned()
    };
    let with_key = ["--redact-key-file", key.to_str().unwrap()];
    assert_eq!(token(&with_key), token(&with_key));
    assert_ne!(token(&[]), token(&[]));
    std::fs::write(&key, "").unwrap();
    let output = command(MODULE, &folder)
        .args(["--record", "r.jsonl"])
        .args(with_key)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!Path::new("r.jsonl").exists());
}
