//! `serve --record`: what is written down, and that `replay` and `run` take it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::{Agent, command, decision_of, module, request};

const MODULE: &str = "rules/rules.wasm";
const URIS: [&str; 4] = [
    "/",
    "/admin/users",
    "/download?file=../../etc/passwd",
    "/old/page",
];

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
    let output = Command::new(env!("CARGO_BIN_EXE_wasm-agent"))
        .arg(args[0])
        .arg(module(MODULE))
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
    std::fs::copy(module(MODULE), &copy).unwrap();
    let output = super::support::command(MODULE, &folder)
        .arg("--record")
        .arg(&copy)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no recording"), "{text}");
    assert_eq!(
        std::fs::read(&copy).unwrap(),
        std::fs::read(module(MODULE)).unwrap()
    );
}

/// A limit on the size of files ends the recording, and neither the agent nor its
/// answers.
#[test]
fn a_limit_of_file_sizes_ends_the_recording_and_not_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traffic.jsonl");
    let served = command("right/allow.wat", &folder);
    let mut command = Command::new("bash");
    command
        .args(["-c", "ulimit -f 256; exec \"$0\" \"$@\""])
        .arg(served.get_program())
        .args(served.get_args())
        .args(["--timeout", "5s", "--record"])
        .arg(&file);
    let mut agent = Agent::spawn(command, folder);
    let mut client = agent.connect_v2();
    for index in 0..300 {
        let mut head = request(&format!("c{index}"), "/");
        head["headers"]["x"] = json!(["y".repeat(3000)]);
        client.send(0x10, &head);
        assert_eq!(decision_of(&client.answer()), "allow");
    }
    let line = agent.wait_for_line("the recording cannot be written");
    assert!(line.contains(file.to_str().unwrap()), "{line}");
    assert!(line.contains("File too large"), "{line}");
    client.send(0x10, &request("last", "/"));
    assert_eq!(decision_of(&client.answer()), "allow");
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
}
