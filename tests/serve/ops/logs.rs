//! Whatever becomes of the log, events are answered.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::admin::metrics;
use crate::support::agent::{Client, command, decision_of, request};

/// More lines than wait for a reader and fit in a pipe.
const EVENTS: usize = 6_000;

/// An agent whose every event is a fault, several lines of log each.
fn noisy(stderr: Stdio) -> (Child, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let child = command("hostile/trap-unreachable.wat", &folder)
        .args(["-vv", "--no-smoke-call", "--log-format", "json"])
        .args(["--admin-address", "127.0.0.1:0"])
        .stderr(stderr)
        .spawn()
        .unwrap();
    (child, folder)
}

/// Reads up to the line that it serves.
fn until_serving(child: &mut Child) -> (BufReader<ChildStderr>, serde_json::Value) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0);
        if line.contains("\"serving\"") {
            return (log, serde_json::from_str(&line).unwrap());
        }
    }
}

fn all_are_answered(folder: &TempDir) {
    let path = folder.path().join("a.sock");
    let until = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        match std::os::unix::net::UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut client = Client { stream };
    client.shake("0.6.54", "json");
    for number in 0..EVENTS {
        client.send(0x10, &request(&number.to_string(), "/"));
        assert_eq!(decision_of(&client.answer()), "block");
    }
}

fn ends_well(mut child: Child) {
    let pid = child.id().to_string();
    let kill = std::process::Command::new("kill").arg(pid).status();
    assert!(kill.unwrap().success());
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("the agent does not end");
}

#[test]
fn o_08_a_log_that_nobody_reads_stops_nothing() {
    let (mut child, folder) = noisy(Stdio::piped());
    let (unread, serving) = until_serving(&mut child);
    all_are_answered(&folder);
    let address = serving["admin"].as_str().unwrap().parse().unwrap();
    let lost = metrics(address)[r#"wasm_agent_log_lines_dropped_total{reason="writer"}"#];
    assert!(lost > 0.0);
    ends_well(child);
    drop(unread);
}

#[test]
fn o_08_a_log_whose_reader_has_gone_stops_nothing() {
    let (mut child, folder) = noisy(Stdio::piped());
    drop(until_serving(&mut child));
    all_are_answered(&folder);
    ends_well(child);
}

#[test]
fn o_08_a_full_disk_stops_nothing() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (child, folder) = noisy(Stdio::from(full));
    all_are_answered(&folder);
    ends_well(child);
}
