//! A service manager: what it is told, and the sockets it passes on.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::guest::Guest;
use crate::support::agent::{Agent, command, decision_of, request, v2_frame};
use crate::support::{binary, shipped};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is told until a message holds `part`.
fn told(socket: &UnixDatagram, part: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let count = socket.recv(&mut buffer).unwrap();
        let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
        if message.contains(part) {
            return message;
        }
        assert!(message.contains("WATCHDOG=1"), "{message} before {part}");
    }
}

#[test]
fn the_service_manager_is_told_of_every_change() {
    let guest = Guest::new("right/allow.wat");
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command(guest.path().to_str().unwrap(), &folder);
    command
        .args(["--timeout", "5s"])
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "60000");
    let mut agent = Agent::spawn(command, folder);
    told(&socket, "READY=1");
    for _ in 0..3 {
        told(&socket, "WATCHDOG=1");
    }
    agent.signal("HUP");
    let message = told(&socket, "RELOADING=1");
    assert!(message.contains("MONOTONIC_USEC="), "{message}");
    told(&socket, "READY=1");
    guest.put("invalid/no-alloc.wat");
    agent.signal("HUP");
    told(&socket, "RELOADING=1");
    let message = told(&socket, "READY=1");
    assert!(message.contains("export:alloc"), "{message}");
    agent.signal("TERM");
    told(&socket, "STOPPING=1");
    assert_eq!(agent.wait().code(), Some(0));
}

/// A manager whose socket is full is told later, of all and in order: of a
/// reload's start never after its end.
#[test]
fn a_manager_that_reads_late_is_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = command("right/allow.wat", &folder);
    command
        .args(["--timeout", "5s"])
        .env("NOTIFY_SOCKET", &notify);
    let mut agent = Agent::spawn(command, folder);
    told(&socket, "READY=1");
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"of another", &notify).is_ok() {}
    for _ in 0..5 {
        agent.signal("HUP");
        agent.wait_for_line("reloaded");
    }
    let mut buffer = [0; 4096];
    let mut came = Vec::new();
    while came.len() < 10 {
        let count = socket.recv(&mut buffer).unwrap();
        let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
        if message != "of another" {
            came.push(message.lines().next().unwrap().to_owned());
        }
    }
    assert_eq!(came, ["RELOADING=1", "READY=1"].repeat(5));
    agent.signal("TERM");
    told(&socket, "STOPPING=1");
    assert_eq!(agent.wait().code(), Some(0));
}

/// Sockets are passed as descriptors 3 and up, which a shell can open.
fn activated(agent: &Command, script: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{script} exec \"$0\" \"$@\""));
    command.arg(agent.get_program()).args(agent.get_args());
    for (name, value) in agent.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A socket that the manager keeps open: connections made before the agent
/// runs are served, and the socket is not ours to remove.
#[test]
fn g_13_a_socket_that_was_passed_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Waits to be accepted.
    let early = UnixStream::connect(&path).unwrap();
    let mut plain = binary(["serve", "--timeout", "5s", "--module"]);
    plain.arg(shipped("right/deny.wat"));
    // Standard input is the socket; the shell makes it descriptor 3.
    let mut command = activated(
        &plain,
        "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$;",
    );
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let mut agent = Agent::spawn(command, folder);
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = crate::support::agent::Client { stream: early };
    assert_eq!(client.shake("0.6.54", "json")["success"], true);
    client.send(0x10, &request("c", "/"));
    assert_eq!(decision_of(&client.answer()), "block");
    agent.signal("TERM");
    assert_eq!(agent.wait().code(), Some(0));
    assert!(path.exists());
}

/// Asks until told to stop, on a new connection whenever one ends. What could
/// be sent is counted, and what was answered.
fn ask_on_and_on(path: &std::path::Path, done: &Arc<AtomicBool>) -> JoinHandle<(usize, usize)> {
    let (path, done) = (path.to_owned(), Arc::clone(done));
    std::thread::spawn(move || {
        let (mut sent, mut answered) = (0, 0);
        while !done.load(Ordering::SeqCst) {
            // Never refused: the socket outlives each agent, and only then ends.
            let stream = match UnixStream::connect(&path) {
                Ok(stream) => stream,
                Err(error) => {
                    assert!(done.load(Ordering::SeqCst), "{error}");
                    break;
                }
            };
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut client = crate::support::agent::Client { stream };
            let hello = v2_frame(
                0x01,
                br#"{"supported_versions":[2],"proxy_version":"0.6.54"}"#,
            );
            // An agent that was told to stop greets nobody.
            if client.stream.write_all(&hello).is_err() || client.receive().is_none() {
                continue;
            }
            let event = serde_json::to_vec(&request("c", "/")).unwrap();
            let frame = v2_frame(0x10, &event);
            while !done.load(Ordering::SeqCst) && client.stream.write_all(&frame).is_ok() {
                sent += 1;
                let is_answer =
                    |message: Option<(u8, Vec<u8>)>| message.map(|(kind, _)| kind == 0x20);
                match std::iter::repeat_with(|| is_answer(client.receive()))
                    .find(|is| *is != Some(false))
                {
                    Some(Some(_)) => answered += 1,
                    _ => break,
                }
            }
        }
        (sent, answered)
    })
}

/// A hundred restarts on a socket that the manager keeps. No connection is
/// refused, and every event that an agent received is answered.
#[test]
fn g_13_a_hundred_restarts_refuse_nobody_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut plain = binary(["serve", "--timeout", "5s", "--queue-wait", "20s"]);
    plain.arg("--module").arg(shipped("right/deny.wat"));
    let done = Arc::new(AtomicBool::new(false));
    let peers: Vec<_> = (0..2).map(|_| ask_on_and_on(&path, &done)).collect();
    for _ in 0..100 {
        let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$;";
        let mut command = activated(&plain, script);
        command.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        let mut agent = Agent::spawn(command, tempfile::tempdir().unwrap());
        // It has answered somebody when it is told to stop.
        let mut client = crate::support::agent::Client {
            stream: UnixStream::connect(&path).unwrap(),
        };
        client.shake("0.6.54", "json");
        client.send(0x10, &request("c", "/"));
        assert_eq!(decision_of(&client.answer()), "block");
        agent.signal("TERM");
        assert_eq!(agent.wait().code(), Some(0));
    }
    done.store(true, Ordering::SeqCst);
    // Whoever waits to be served now is let go.
    drop(listener);
    for peer in peers {
        let (sent, answered) = peer.join().unwrap();
        assert!(sent > 100, "{sent}");
        assert_eq!(sent, answered);
    }
}

#[test]
fn sockets_that_cannot_be_served_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let agent = command("right/deny.wat", &folder);
    // A file is no socket.
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$;";
    let output = activated(&agent, script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("listening stream socket"), "{said}");
}
