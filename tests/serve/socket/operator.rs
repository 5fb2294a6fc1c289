//! What operators and their machines do.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::agent::{Agent, command, decision_of, request, v2_frame};
use crate::support::{binary, shipped};

/// Flags with values that no agent can be started with.
const BAD: [[&str; 2]; 61] = [
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
    ["--pool-size", "-1"],
    ["--pool-size", "4.5"],
    ["--pool-size", ""],
    ["--timeout", "0"],
    ["--timeout", "100"],
    ["--timeout", "-1ms"],
    ["--timeout", "forever"],
    ["--fuel", "0"],
    ["--fuel", "18446744073709551616"],
    ["--max-memory", "0"],
    ["--max-memory", "5GiB"],
    ["--max-memory", "64 apples"],
    ["--max-answer", "-1"],
    ["--max-module", "x"],
    ["--max-compile-time", "0s"],
    ["--isolation", "shared"],
    ["--isolation", "recycle=0"],
    ["--isolation", "recycle=x"],
    ["--header-names", "upper"],
    ["--abi", "both"],
    ["--abi", "hook"],
    ["--socket-mode", "0060"],
    ["--socket-mode", "01777"],
    ["--socket-mode", "rw"],
    ["--socket-mode", ""],
    ["--allow-uid", "root"],
    ["--allow-uid", "-1"],
    ["--max-connections", "65537"],
    ["--max-in-flight", "65537"],
    ["--max-queue", "0"],
    ["--queue-wait", "0s"],
    ["--handshake-timeout", "0s"],
    ["--frame-timeout", "soon"],
    ["--write-timeout", "0s"],
    ["--proxy-timeout", "1ms"],
    ["--metrics-interval", "-1s"],
    ["--metrics-interval", "often"],
    ["--grpc-address", "50051"],
    ["--grpc-address", "127.0.0.1:99999"],
    ["--admin-address", "localhost"],
    ["--request-body", "binary"],
    ["--proxy-quirks", "0.6"],
    ["--record-rate", "0.5"],
    ["--record-max-size", "1MB"],
    ["--log-format", ""],
    ["--wasi", "all"],
    ["extra", "words"],
];

#[test]
fn o_01_bad_settings_are_refused_before_anything_is_bound() {
    for args in BAD {
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
        let mut command = binary(["serve", "--no-smoke-call", "--timeout", "5s"]);
        command
            .env("AGENT_SOCKET", folder.path().join("a.sock"))
            .env("WASM_MODULE", shipped("hostile/trap-unreachable.wat"))
            .env("WASM_POOL_SIZE", "2")
            .env("WASM_VERBOSE", "false")
            .env("FAIL_OPEN", value);
        let agent = Agent::spawn(command, folder);
        let mut client = agent.connect_v2();
        client.send(0x10, &request("c", "/"));
        assert_eq!(decision_of(&client.answer()), decision, "{value:?}");
    }
}

/// The same words on the command line, which wins over the environment.
#[test]
fn fail_open_is_spelled_in_every_way_people_do() {
    for (flag, variable, decision) in [
        (None, None, "block"),
        (None, Some("Yes"), "allow"),
        (Some("--fail-open"), None, "allow"),
        (Some("--fail-open"), Some("0"), "allow"),
        (Some("--fail-open=1"), None, "allow"),
        (Some("--fail-open=TRUE"), None, "allow"),
        (Some("--fail-open=yes"), None, "allow"),
        (Some("--fail-open=0"), Some("1"), "block"),
        (Some("--fail-open=False"), Some("true"), "block"),
        (Some("--fail-open=no"), Some("yes"), "block"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command("hostile/trap-unreachable.wat", &folder);
        command
            .args(flag)
            .args(["--no-smoke-call", "--timeout", "5s"]);
        if let Some(variable) = variable {
            command.env("FAIL_OPEN", variable);
        }
        let agent = Agent::spawn(command, folder);
        let mut client = agent.connect_v2();
        client.send(0x10, &request("c", "/"));
        let answer = client.answer();
        assert_eq!(decision_of(&answer), decision, "{flag:?} {variable:?}");
        assert_eq!(answer["audit"]["tags"][0], "wasm-error");
    }
}

/// A path that no socket can have is named with what is possible.
#[test]
fn o_03_a_path_too_long_for_a_socket_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("s".repeat(108));
    let output = command("rules/rules.wasm", &tempfile::tempdir().unwrap())
        .arg("--socket")
        .arg(&long)
        .output()
        .unwrap();
    // Said twice; what was said last holds, as it does for every flag.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(2 | 6)), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let folder = tempfile::Builder::new()
        .prefix(&"l".repeat(100))
        .tempdir()
        .unwrap();
    let output = command("rules/rules.wasm", &folder).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("at most 107 are possible"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The inodes of the sockets that a process has open.
fn sockets_of(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?;
            Some(link.trim_end_matches(']').to_owned())
        })
        .collect()
}

/// The kernel's own list of what this process listens on has nothing
/// that another machine could reach, unless it was asked for.
#[test]
fn p_13_nothing_listens_beyond_loopback() {
    for (address, beyond) in [("127.0.0.1:0", 0), ("0.0.0.0:0", 1)] {
        let args = ["--grpc-address", address, "--admin-address", "127.0.0.1:0"];
        let agent = Agent::start("right/allow.wat", &args);
        let own = sockets_of(agent.child.id());
        let tables = ["tcp", "tcp6", "udp", "udp6"].map(|name| {
            fs::read_to_string(format!("/proc/{}/net/{name}", agent.child.id())).unwrap_or_default()
        });
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        let bound: Vec<&str> = lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| own.iter().any(|inode| inode == fields[9]))
            .map(|fields| fields[1])
            .collect();
        assert_eq!(bound.len(), 2, "{bound:?}");
        // 127.0.0.1, as the kernel prints it on either kind of machine.
        let is_beyond =
            |place: &&&str| !place.starts_with("0100007F") && !place.starts_with("7F000001");
        assert_eq!(bound.iter().filter(is_beyond).count(), beyond, "{bound:?}");
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
        let mut reader = crate::support::agent::Client {
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

/// The ledger holds to the last event, a hundred times: what could be
/// written was answered.
#[test]
fn o_07_the_signal_to_stop_loses_nothing_under_load() {
    let mut all = 0;
    for round in 0..100 {
        let signal = ["TERM", "INT"][round % 2];
        let args = ["--queue-wait", "20s", "--max-queue", "65536"];
        let mut agent = Agent::start("right/deny.wat", &args);
        let peers: Vec<_> = (0..3)
            .map(|name| load(agent.connect_v2().stream, name))
            .collect();
        // Some load has come through by the time this is answered.
        let mut client = agent.connect_v2();
        for number in 0..10 {
            client.send(0x10, &request(&number.to_string(), "/"));
            client.answer();
        }
        agent.signal(signal);
        for peer in peers {
            let (sent, answered) = peer.join().unwrap();
            assert_eq!(sent, answered, "{signal}");
            all += sent;
        }
        assert_eq!(agent.wait().code(), Some(0));
        assert!(!agent.socket().exists());
    }
    // Some peers came too late in some rounds.
    assert!(all > 1_000, "{all}");
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

/// A signal that means nothing here changes nothing.
#[test]
fn o_07_a_broken_pipe_ends_nothing() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut client = agent.connect_v2();
    agent.signal("PIPE");
    client.send(0x10, &request("c", "/"));
    assert_eq!(decision_of(&client.answer()), "allow");
}

/// No proxy empties a body, so a module that asks for it is told of in the log.
#[test]
fn an_empty_replacement_of_a_response_body_is_told() {
    let agent = Agent::start("right/body-drop.wat", &["--log-format", "json"]);
    let mut client = agent.connect_v2();
    let event = serde_json::json!({"correlation_id":"c-7","data":"AAAA","is_last":true});
    client.send(0x13, &event);
    let answer = client.answer();
    assert_eq!(answer["response_body_mutation"]["data"], "");
    let line = agent.wait_for_line("ignores an empty replacement");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["correlation_id"]),
        (&"WARN".into(), &"c-7".into())
    );
    // Nothing was lost where there was nothing.
    let event = serde_json::json!({"correlation_id":"c-8","data":"","is_last":true});
    client.send(0x13, &event);
    client.answer();
    client.send(
        0x12,
        &serde_json::json!({"correlation_id":"c-9","status":200,"headers":{}}),
    );
    client.answer();
    agent.signal("TERM");
    let end = agent.wait_for_line("draining");
    assert_eq!(agent.unexpected(), Vec::<String>::new(), "{end}");
}

/// Every fault is a log line, and nobody takes them.
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
    let mut client = crate::support::agent::Client { stream };
    client.shake("0.6.54", "json");
    for number in 0..500 {
        client.send(0x10, &request(&number.to_string(), "/"));
        assert_eq!(decision_of(&client.answer()), "block");
    }
    let mut child = child;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A guest that faults at every event fills no disk.
#[test]
fn a_flood_of_faults_is_a_few_lines_a_second() {
    let agent = Agent::start("hostile/trap-unreachable.wat", &[]);
    let mut client = agent.connect_v2();
    let start = Instant::now();
    for number in 0..3_000 {
        client.send(0x10, &request(&number.to_string(), "/"));
        client.answer();
    }
    agent.signal("TERM");
    agent.wait_for_line("draining");
    let lines = agent.unexpected().len();
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    // Twenty, and the line that says how many were left out.
    assert!(
        lines > 0 && lines <= 21 * (seconds + 2),
        "{lines} in {seconds} s"
    );
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
