//! Peers that are slow or silent: they keep nobody else from being served, and
//! the process neither from starting nor from ending.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use super::admin::{health, metrics, start};
use super::guest::Guest;
use crate::support::agent::{Agent, Client, command, decision_of, id_of, request, v2_frame};
use crate::support::{binary, fixture};

/// Sooner than the admin address gives a silent connection up by itself.
const SOON: Duration = Duration::from_secs(3);

/// A probe, as a service manager's: it does not wait for long.
fn probe(address: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&address, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// Sends what there is room for, and reads nothing.
fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.set_nonblocking(true).unwrap();
    // It may have been closed for others.
    let _ = stream.write(bytes);
    stream.set_nonblocking(false).unwrap();
}

/// S3: however many hold the admin address, and whatever they do there.
#[test]
fn s3_a_probe_is_answered_beside_peers_that_hold_the_admin_address() {
    let (_agent, address) = start("right/allow.wat", &["--timeout", "5s"]);
    let metrics = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n";
    let body = "POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx";
    for sent in [
        "",
        "G",
        "GET /healthz HTTP/1.1\r\nhost: a\r\nx: ",
        // Keeps the connection.
        metrics,
        // Takes none of its answers.
        &metrics.repeat(1000),
        body,
    ] {
        let peers: Vec<_> = (0..80)
            .map(|_| {
                let peer = TcpStream::connect(address).unwrap();
                send(&peer, sent.as_bytes());
                peer
            })
            .collect();
        probe(address);
        // Those that are left are as busy as they can be.
        for _ in 0..3 {
            for peer in &peers {
                send(peer, metrics.as_bytes());
            }
            probe(address);
        }
    }
}

/// S3: who takes no answer is not kept, whether or not others come.
#[test]
fn s3_a_peer_that_takes_no_answers_is_closed() {
    let (_agent, address) = start("right/allow.wat", &["--timeout", "5s"]);
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_write_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let metrics = "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let error = loop {
        if let Err(error) = peer.write_all(metrics.as_bytes()) {
            break error.kind();
        }
    };
    let by_agent = [
        std::io::ErrorKind::BrokenPipe,
        std::io::ErrorKind::ConnectionReset,
    ];
    assert!(by_agent.contains(&error), "{error:?}");
}

fn resident_mib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() >> 10
}

/// All but the end of a message of 16 MiB, or of 10 in v1.
fn unfinished(peer: &mut Client, is_v1: bool) {
    let (length, first) = if is_v1 {
        (10 << 20, b'{')
    } else {
        (16_u32 << 20, 0x11)
    };
    let mut message = vec![b'x'; usize::try_from(length).unwrap() - (1 << 20)];
    message[0] = first;
    let bytes = [&length.to_be_bytes(), message.as_slice()].concat();
    // Those that were given up are closed.
    let _ = peer.stream.write_all(&bytes);
}

/// S9: what all of them hold together is bounded, one large message beside
/// them gets through, and small ones never know of it.
#[test]
fn s9_unfinished_messages_of_many_peers_have_one_bound() {
    for is_v1 in [false, true] {
        let args = ["--timeout", "5s", "--frame-timeout", "10m"];
        let handshake = ["--handshake-timeout", "10m"];
        let (agent, address) = start("rules/rules.wasm", &[args.as_slice(), &handshake].concat());
        let mut small = agent.connect_v2();
        let half = v2_frame(0x10, &serde_json::to_vec(&request("small", "/")).unwrap());
        let (begun, rest) = half.split_at(100);
        small.stream.write_all(begun).unwrap();
        let mut peers: Vec<_> = (0..40)
            .map(|_| match is_v1 {
                true => agent.connect(),
                false => agent.connect_v2(),
            })
            .collect();
        for peer in &mut peers {
            unfinished(peer, is_v1);
        }
        let mut honest = agent.connect_v2();
        let mut large = serde_json::to_vec(&request("large", "/")).unwrap();
        large.resize((16 << 20) - 1, b' ');
        honest.send_bytes(0x10, &large);
        let answer = honest.answer();
        assert_eq!((id_of(&answer), decision_of(&answer)), ("large", "allow"));
        // The small one was begun before all others.
        small.stream.write_all(rest).unwrap();
        assert_eq!(decision_of(&small.answer()), "allow");
        let found = resident_mib(&agent);
        assert!(found < 300, "{found} MiB");
        let name = r#"wasm_agent_peers_closed_total{reason="unfinished"}"#;
        let closed = metrics(address)[name];
        assert!(closed >= 20.0, "{closed}");
        agent.wait_for_line("the oldest");
        drop(peers);
    }
}

/// S9: the bound is the operator's, and one largest message is always possible.
#[test]
fn s9_one_largest_message_is_always_possible() {
    let args = ["--timeout", "5s", "--max-unfinished", "1KiB"];
    let (agent, address) = start("rules/rules.wasm", &args);
    let mut honest = agent.connect_v2();
    let mut large = serde_json::to_vec(&request("large", "/")).unwrap();
    large.resize((16 << 20) - 1, b' ');
    for _ in 0..3 {
        honest.send_bytes(0x10, &large);
        assert_eq!(decision_of(&honest.answer()), "allow");
    }
    let name = r#"wasm_agent_peers_closed_total{reason="unfinished"}"#;
    assert_eq!(metrics(address)[name], 0.0);
}

/// On the Unix socket: wherever peers stop, nothing was received.
#[test]
fn what_is_not_whole_does_not_hold_the_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("right/allow.wat", &folder);
    command.args(["--timeout", "5s", "--frame-timeout", "10m"]);
    command.args(["--handshake-timeout", "10m", "--grace-period", "5s"]);
    let mut agent = Agent::spawn(command, folder);
    let mut peers = Vec::new();
    let handshake = v2_frame(0x01, br#"{"supported_versions":[2]}"#);
    let v1 = [b"\0\0\x01\0{".as_slice(), b"\"version\":1"].concat();
    for part in [&[][..], &[0], &handshake[..4], &handshake[..20], &v1] {
        let mut peer = agent.connect();
        peer.stream.write_all(part).unwrap();
        peers.push(peer);
    }
    let event = v2_frame(0x10, &serde_json::to_vec(&request("c", "/")).unwrap());
    for part in [&[][..], &event[..1], &event[..5], &event[..50]] {
        let mut peer = agent.connect_v2();
        peer.stream.write_all(part).unwrap();
        peers.push(peer);
    }
    agent.signal("TERM");
    // It would be 6 at the end of the grace period.
    assert_eq!(agent.wait().code(), Some(0));
    drop(peers);
}

/// X8: with every place taken and nobody waiting, silent peers stay; who then
/// waits gets one place, of the one that was silent longest, and no other.
#[test]
fn x8_silent_peers_give_way_only_to_those_that_wait() {
    let args = ["--max-connections", "3", "--handshake-timeout", "200ms"];
    let agent = Agent::start("rules/rules.wasm", &args);
    let first = agent.connect();
    // Silent for longer by more than timers differ.
    std::thread::sleep(Duration::from_millis(50));
    let mut silent = [first, agent.connect()];
    let mut greeted = agent.connect_v2();
    let pause = silent[0].stream.read_timeout().unwrap();
    for peer in &mut silent {
        let limit = Some(Duration::from_millis(300));
        peer.stream.set_read_timeout(limit).unwrap();
        assert!(!peer.is_closed());
        peer.stream.set_read_timeout(pause).unwrap();
    }
    let mut waits = agent.connect_v2();
    let [mut first, mut second] = silent;
    assert!(first.is_closed());
    assert_eq!(second.shake("0.6.54", "json")["success"], true);
    for client in [&mut greeted, &mut waits, &mut second] {
        client.send(0x10, &request("c", "/"));
        assert_eq!(decision_of(&client.answer()), "allow");
    }
}

/// A socket whose owner accepts nobody, with as many waiting as may wait.
fn full(path: &Path) -> (Socket, Vec<Socket>) {
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(path).unwrap();
    let listener = socket();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let peer = socket();
        peer.set_nonblocking(true).unwrap();
        if peer.connect(&address).is_err() {
            return (listener, waiting);
        }
        waiting.push(peer);
    }
}

/// What a command came to; a hang is a failure.
fn finish(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// X7: nothing is waited for that may never come.
#[test]
fn x7_a_socket_whose_owner_accepts_nobody_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let held = full(&path);
    let mut start = command("right/allow.wat", &folder);
    start.args(["--timeout", "5s"]);
    let output = finish(start);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("accepts no connections"), "{said}");
    // It is left as it is.
    assert!(path.exists());
    drop(held);
}

#[test]
fn x7_a_pipe_in_the_place_of_the_lock_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("a.sock.lock");
    assert!(
        Command::new("mkfifo")
            .arg(&lock)
            .status()
            .unwrap()
            .success()
    );
    let mut start = command("right/allow.wat", &folder);
    start.args(["--timeout", "5s"]);
    let output = finish(start);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    for part in ["a.sock.lock", "a named pipe", "remove it"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
}

#[test]
fn x7_bench_does_not_wait_for_an_agent_that_accepts_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let held = full(&path);
    let mut bench = binary(["bench"]);
    bench
        .arg(fixture("events/requests/allow-page.json"))
        .args(["--target", &format!("unix:{}", path.display())]);
    let output = finish(bench);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("accepts no connections"), "{said}");
    drop(held);
}

/// X7: a service manager that reads nothing, told as often as can be.
#[test]
fn x7_a_service_manager_that_reads_nothing_holds_nothing_up() {
    let guest = Guest::new("right/allow.wat");
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    // It has no room left.
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &notify).is_ok() {}
    let mut command = command(guest.path().to_str().unwrap(), &folder);
    command
        .args(["--timeout", "5s"])
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "3000");
    let mut agent = Agent::spawn(command, folder);
    let mut client = agent.connect_v2();
    for round in 0..3 {
        agent.signal("HUP");
        agent.wait_for_line("reloaded");
        client.send(0x10, &request(&round.to_string(), "/"));
        assert_eq!(decision_of(&client.answer()), "allow");
    }
    // Once it reads, it learns that the agent is ready.
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut buffer = [0; 4096];
    loop {
        let count = manager.recv(&mut buffer).unwrap();
        if buffer[..count].starts_with(b"READY=1") {
            break;
        }
    }
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
}

/// X6: an event that waits goes to the new pool as soon as there is one, and
/// not only when a call on the old one ends: with threads that have nothing to
/// do, as where there were more instances once, and with none.
#[test]
fn x6_an_event_that_waits_is_woken_by_another_pool() {
    let args = ["--no-smoke-call", "--timeout", "15s", "--queue-wait", "1m"];
    for (by_settings, threads) in [(true, "4"), (true, "1"), (false, "4"), (false, "1")] {
        let guest = Guest::new("hostile/spin.wat");
        let agent = guest.serve(&[args.as_slice(), &["--pool-size", threads]].concat());
        let mut client = agent.connect_v2();
        client.send(
            0x17,
            &json!({"correlation_id":"s","config":{"pool-size":1}}),
        );
        assert_eq!(decision_of(&client.answer()), "allow");
        client.send(0x10, &request("runs", "/"));
        client.send_bytes(0x41, b"{}");
        assert_eq!(client.receive().unwrap().0, 0x42);
        client.send(0x10, &request("waits", "/"));
        client.send_bytes(0x41, b"{}");
        assert_eq!(client.receive().unwrap().0, 0x42);
        if by_settings {
            let mut other = agent.connect_v2();
            let settings = json!({"correlation_id":"s","config":{"timeout-ms":50}});
            other.send(0x17, &settings);
        } else {
            guest.put("right/allow.wat");
            agent.signal("HUP");
        }
        let answer = client.answer();
        assert_eq!(id_of(&answer), "waits", "{answer}");
        let expected = if by_settings { "block" } else { "allow" };
        assert_eq!(decision_of(&answer), expected, "{answer}");
    }
}

/// X5, on the Unix socket: reports do not pile up for a peer that takes
/// nothing, however long it may take nothing.
#[test]
fn x5_reports_do_not_pile_up() {
    let args = ["--timeout", "5s", "--write-timeout", "10m"];
    let interval = ["--metrics-interval", "1ms"];
    let (agent, address) = start("right/allow.wat", &[args.as_slice(), &interval].concat());
    let peers: Vec<_> = (0..4).map(|_| agent.connect_v2()).collect();
    // Their sockets are full after some of them. Each look takes at least as
    // long as one report.
    let reports = |count: u32| {
        for _ in 0..count {
            health(address, "/healthz");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    reports(100);
    let before = resident_mib(&agent);
    reports(200);
    let grown = resident_mib(&agent).saturating_sub(before);
    assert!(grown < 8, "{grown} MiB");
    drop(peers);
}
