//! The order of the start: what is wrong shows before anything is bound.

use std::fs;

use crate::support::agent::{Agent, command, decision_of, request};

/// What the smoke call says of each.
const FAULTY: [(&str, &str); 8] = [
    ("hostile/trap-unreachable.wat", "trap:unreachable"),
    ("hostile/spin.wat", "deadline"),
    ("hostile/spin-alloc.wat", "deadline"),
    ("hostile/alloc-null.wat", "alloc:null"),
    ("hostile/recursion.wat", "trap:stack-overflow"),
    ("hostile/not-json.wat", "bad-answer:"),
    ("hostile/unknown-decision.wat", "bad-answer:"),
    ("hostile/answer-too-large.wat", "answer-limit"),
];

#[test]
fn a_module_that_faults_at_its_smoke_call_is_not_served() {
    for (name, fault) in FAULTY {
        let folder = tempfile::tempdir().unwrap();
        let output = command(name, &folder).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        for part in [name, "on_request_headers", fault, "--no-smoke-call"] {
            assert!(said.contains(part), "{part:?} in {said}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn the_smoke_call_can_be_left_out() {
    let agent = Agent::start("hostile/trap-unreachable.wat", &[]);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("c", "/"));
    let answer = client.answer();
    assert_eq!(decision_of(&answer), "block");
    assert_eq!(answer["audit"]["reason_codes"][0], "trap:unreachable");
}

/// A module that counts its calls must not have been called before the first
/// event, or `run` and `serve` would answer it differently.
#[test]
fn the_smoke_call_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("hostile/counter.wat", &folder);
    command.args(["--pool-size", "1", "--timeout", "5s"]);
    let agent = Agent::spawn(command, folder);
    let mut client = agent.connect_v2();
    for expected in ["allow", "block", "allow"] {
        client.send(0x10, &request("c", "/"));
        assert_eq!(decision_of(&client.answer()), expected);
    }
}

/// A block is a decision, and decisions are no faults.
#[test]
fn a_module_that_refuses_the_smoke_call_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("right/deny.wat", &folder);
    command.args(["--timeout", "5s"]);
    Agent::spawn(command, folder).connect_v2();
}

/// The address space that a sandbox takes is not memory, and people limit
/// it without knowing that.
#[test]
fn o_10_too_little_address_space_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let agent = command("right/allow.wat", &folder);
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 3000000; exec \"$0\" \"$@\""])
        .arg(agent.get_program())
        .args(agent.get_args())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ulimit -v"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
