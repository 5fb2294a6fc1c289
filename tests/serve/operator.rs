//! Rows O: what operators and their machines do.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::support::{Agent, command, decision_of, module, request, v2_frame};

#[test]
fn o_01_bad_settings_are_refused_before_anything_is_bound() {
    for args in [
        ["--pool-size", "0"],
        ["--pool-size", "18446744073709551616"],
        ["--pool-size", "1025"],
        ["--timeout", "0s"],
        ["--max-memory", "1"],
        ["--socket-mode", "0999"],
        ["--socket-group", "no such group"],
        ["--max-connections", "0"],
        ["--max-in-flight", "0"],
        ["--grace-period", "-1s"],
        ["--proxy-quirks", "new"],
        ["--log-format", "xml"],
        ["--fail-open=perhaps", "--verbose"],
        ["--no-such-flag", "1"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = command("rules/rules.wasm", &folder)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{args:?}");
    }
    for (name, value) in [
        ("FAIL_OPEN", "maybe"),
        ("WASM_POOL_SIZE", "many"),
        ("WASM_VERBOSE", "loud"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = command("rules/rules.wasm", &folder)
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
    for (path, code) in [
        ("hostile/no-such.wasm", 3),
        ("invalid/no-alloc.wat", 1),
        ("invalid/start-traps.wat", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = command(path, &folder).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{path}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn the_environment_of_the_published_agents_is_read() {
    for (value, decision) in [
        ("1", "allow"),
        ("true", "allow"),
        ("YES", "allow"),
        ("0", "block"),
        ("false", "block"),
        ("no", "block"),
        ("", "block"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wasm-agent"));
        command
            .args(["serve", "--no-smoke-call"])
            .env_remove("RUST_LOG")
            .env("AGENT_SOCKET", folder.path().join("a.sock"))
            .env("WASM_MODULE", module("hostile/trap-unreachable.wat"))
            .env("WASM_POOL_SIZE", "2")
            .env("WASM_VERBOSE", "false")
            .env("FAIL_OPEN", value);
        let agent = Agent::spawn(command, folder);
        let mut client = agent.connect_v2();
        client.send(0x10, &request("c", "/"));
        assert_eq!(decision_of(&client.answer()), decision, "{value:?}");
    }
}

#[test]
fn o_03_what_is_not_ours_is_left_alone() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let again = command("rules/rules.wasm", &agent.folder).output().unwrap();
    assert_eq!(again.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&again.stderr).contains("another process"));
    let mut client = agent.connect_v2();
    client.send(0x10, &request("c", "/"));
    client.answer();

    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("a live socket", |path| {
            let listener = UnixListener::bind(path).unwrap();
            std::thread::spawn(move || listener.incoming().count());
        }),
        ("a file", |path| fs::write(path, "kept").unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a link", |path| {
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        }),
    ];
    for (what, make) in make {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        make(&path);
        let before = fs::symlink_metadata(&path).unwrap().ino();
        let output = command("rules/rules.wasm", &folder).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{what}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before, "{what}");
    }
}

#[test]
fn o_03_a_socket_that_a_crash_left_is_replaced() {
    let mut agent = Agent::start("rules/rules.wasm", &[]);
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    assert!(agent.socket().exists());
    let folder = std::mem::replace(&mut agent.folder, tempfile::tempdir().unwrap());
    let command = command("rules/rules.wasm", &folder);
    Agent::spawn(command, folder).connect_v2();
}

#[test]
fn o_04_the_socket_has_its_mode_and_strangers_are_turned_away() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mode = |agent: &Agent| fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&agent), 0o660);
    let uid = fs::metadata(agent.socket()).unwrap().uid();
    let own = Agent::start(
        "rules/rules.wasm",
        &["--socket-mode", "0600", "--allow-uid", &uid.to_string()],
    );
    assert_eq!(mode(&own), 0o600);
    own.connect_v2();
    let other = Agent::start("rules/rules.wasm", &["--allow-uid", &(uid + 1).to_string()]);
    assert!(other.connect().is_closed());
}

/// A peer that sends as fast as it can until it is told no, and counts.
fn load(mut stream: UnixStream, name: usize) -> std::thread::JoinHandle<(usize, usize)> {
    std::thread::spawn(move || {
        let mut reader = super::support::Client {
            stream: stream.try_clone().unwrap(),
        };
        let answers = std::thread::spawn(move || {
            let mut answered = 0;
            while let Some((kind, _)) = reader.receive() {
                answered += usize::from(kind == 0x20);
            }
            answered
        });
        let mut sent = 0;
        loop {
            let event = serde_json::to_vec(&request(&format!("{name}-{sent}"), "/")).unwrap();
            if stream.write_all(&v2_frame(0x10, &event)).is_err() {
                break;
            }
            sent += 1;
        }
        (sent, answers.join().unwrap())
    })
}

/// The ledger holds to the last event: what could be written was answered.
#[test]
fn o_07_the_signal_to_stop_loses_nothing_under_load() {
    for signal in ["TERM", "INT"] {
        let mut agent = Agent::start("rules/rules.wasm", &[]);
        let peers: Vec<_> = (0..4)
            .map(|name| load(agent.connect_v2().stream, name))
            .collect();
        // Some load has come through by the time this is answered.
        let mut client = agent.connect_v2();
        for number in 0..50 {
            client.send(0x10, &request(&number.to_string(), "/"));
            client.answer();
        }
        agent.signal(signal);
        for peer in peers {
            let (sent, answered) = peer.join().unwrap();
            assert!(sent > 0);
            assert_eq!(sent, answered, "{signal}");
        }
        assert_eq!(agent.wait().code(), Some(0));
        assert!(!agent.socket().exists());
    }
}

#[test]
fn o_07_running_calls_are_answered_after_the_signal() {
    let mut agent = Agent::start("hostile/spin.wat", &["--timeout", "500ms"]);
    let mut client = agent.connect_v2();
    client.send(0x10, &request("runs", "/"));
    // Answered after it: the event was received.
    client.send_bytes(0x41, b"{}");
    assert_eq!(client.receive().unwrap().0, 0x42);
    agent.signal("TERM");
    assert_eq!(client.receive().unwrap().0, 0x30);
    assert_eq!(client.answer()["audit"]["reason_codes"][0], "deadline");
    assert!(client.is_closed());
    assert_eq!(agent.wait().code(), Some(0));
}

#[test]
fn o_07_the_grace_period_and_a_second_signal_end_it() {
    for (grace, signals) in [("100ms", 1), ("30s", 2)] {
        let args = ["--timeout", "20s", "--grace-period", grace];
        let mut agent = Agent::start("hostile/spin.wat", &args);
        let mut client = agent.connect_v2();
        client.send(0x10, &request("runs", "/"));
        client.send_bytes(0x41, b"{}");
        client.receive().unwrap();
        let start = Instant::now();
        for _ in 0..signals {
            agent.signal("TERM");
            if signals > 1 {
                // Two signals at once would be one.
                client
                    .stream
                    .set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                let _ = client.receive();
            }
        }
        assert_eq!(agent.wait().code(), Some(6), "{grace}");
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(!agent.socket().exists());
    }
}

/// O-08: every fault is a log line, and nobody takes them.
#[test]
fn o_08_a_full_disk_under_the_log_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let child = command("hostile/trap-unreachable.wat", &folder)
        .args(["-vv", "--no-smoke-call"])
        .stderr(Stdio::from(full))
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let stream = UnixStream::connect(&socket).unwrap();
    let mut client = super::support::Client { stream };
    client.shake("0.6.54", "json");
    for number in 0..500 {
        client.send(0x10, &request(&number.to_string(), "/"));
        assert_eq!(decision_of(&client.answer()), "block");
    }
    let mut child = child;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn log_lines_carry_the_correlation_id_and_no_header_value() {
    let agent = Agent::start("hostile/trap-unreachable.wat", &["--log-format", "json"]);
    let mut client = agent.connect_v2();
    let mut event = request("c-1\n", "/");
    event["headers"]["authorization"] = serde_json::json!(["secret-value"]);
    client.send(0x10, &event);
    client.answer();
    let line = agent.wait_for_line("fault");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["correlation_id"], "c-1\\n");
    assert_eq!(line["fault"], "trap:unreachable");
    assert!(!line.to_string().contains("secret-value"));
}
