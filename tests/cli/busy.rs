//! Verdicts on a machine that has other work: eight processes that compute all the
//! time. A deadline counts what the guest computes, so none of its faults are theirs.
//! These tests disturb all others, so they run alone: `.ci/run` asks for them.

use std::process::{Child, Command, Stdio};

use crate::support::guests::{ALLOW, guest};
use crate::support::{TestDir, binary, finish, run, steps};

const OTHERS: usize = 8;
/// Runs of each command; `just busy 100` makes more.
const ROUNDS: usize = 20;
/// Ten times what a call computes. A process that waits for the processor in the middle
/// of a call takes longer than this by the wall clock.
const DEADLINE: [&str; 2] = ["--timeout", "2ms"];

/// Processes that compute until they are dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn new() -> Self {
        let start = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..OTHERS).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn looping(dir: &TestDir, name: &str, rounds: u64) -> std::path::PathBuf {
    let body = format!(
        "(local $i i64)
         (loop $again
           (br_if $again (i64.lt_u
             (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const {rounds}))))
         {ALLOW}"
    );
    guest(dir, name, "", &body)
}

fn rounds() -> usize {
    std::env::var("BUSY_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

#[test]
#[ignore = "takes the processors from all other tests; `just busy` runs it"]
fn a_busy_machine_is_no_fault_of_a_module() {
    let dir = TestDir::new();
    let module = looping(&dir, "loop.wat", 60_000);
    let events = dir.requests("events.json", 100);
    let busy = Busy::new();
    for round in 0..rounds() {
        let mut validate = binary(["validate"]);
        validate.arg(&module).args(DEADLINE);
        let validated = finish(validate);
        assert_eq!(validated.code, Some(0), "{round}: {}", validated.text());
        let ran = run(&module, &[&events], &DEADLINE);
        assert_eq!(ran.code, Some(0), "{round}: {}", ran.text());
    }
    drop(busy);
}

#[test]
#[ignore = "takes the processors from all other tests; `just busy` runs it"]
fn a_guest_that_never_ends_is_ended_on_a_busy_machine_too() {
    let dir = TestDir::new();
    let module = looping(&dir, "spin.wat", u64::MAX);
    let events = dir.request();
    let busy = Busy::new();
    for _ in 0..3 {
        let report = run(&module, &[&events], &["--timeout", "20ms"]).json();
        let step = &steps(&report)[0];
        step.assert_fault("deadline", false);
        let fault = step.0["fault"]["detail"].as_str().unwrap();
        assert!(!fault.contains("busy"), "it computed all the time: {fault}");
    }
    drop(busy);
}
