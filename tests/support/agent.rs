//! A started agent, and a proxy as simple as can be.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{binary, shipped};

/// Longer than anything here takes; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command for a module's agent, its socket in a folder of its own.
pub(crate) fn command(module_name: &str, folder: &TempDir) -> Command {
    let mut command = binary(["serve", "--module"]);
    command
        .arg(shipped(module_name))
        .arg("--socket")
        .arg(folder.path().join("a.sock"))
        .stdin(Stdio::null());
    command
}

/// A running agent; killed when the test ends before it does.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) folder: TempDir,
    /// The line that says so.
    pub(crate) serving: String,
    lines: Receiver<String>,
    /// Warnings and errors among the lines that were passed over.
    unexpected: std::cell::RefCell<Vec<String>>,
}

impl Agent {
    pub(crate) fn start(module_name: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(module_name, &folder);
        command.args(args);
        if module_name.starts_with("hostile/") {
            command.arg("--no-smoke-call");
        } else if !args.contains(&"--timeout") {
            // A good guest on a busy machine is no runaway.
            command.args(["--timeout", "5s"]);
        }
        Self::spawn(command, folder)
    }

    /// Starts the command and waits for the line that says it serves.
    pub(crate) fn spawn(mut command: Command, folder: TempDir) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut agent = Self {
            child,
            folder,
            serving: String::new(),
            lines,
            unexpected: std::cell::RefCell::default(),
        };
        agent.serving = agent.wait_for_line("serving");
        agent
    }

    pub(crate) fn wait_for_line(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) if line.contains("WARN") || line.contains("ERROR") => {
                    self.unexpected.borrow_mut().push(line);
                }
                Ok(_) => {}
                Err(error) => panic!("no line with {part:?}: {error}"),
            }
        }
    }

    /// Warnings and errors that nobody waited for, up to the line that was
    /// waited for last.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.unexpected.take()
    }

    /// The address of this name, where it logs JSON.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let line: Value = serde_json::from_str(&self.serving).unwrap();
        line[name].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("a.sock")
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// A connection of a proxy whose quirks are all repaired.
    pub(crate) fn connect_v2(&self) -> Client {
        let mut client = self.connect();
        let response = client.shake("0.6.54", "json");
        assert_eq!(response["success"], true);
        client
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the agent does not end");
    }

    /// CPU time it has used, in clock ticks (100 a second).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection of a proxy.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

impl Client {
    pub(crate) fn shake(&mut self, version: &str, encoding: &str) -> Value {
        self.send(
            0x01,
            &json!({"supported_versions":[2],"proxy_id":"zentinel-proxy","proxy_version":version,
                "config":null,"supported_encodings":[encoding]}),
        );
        let (kind, payload) = self.receive().unwrap();
        assert_eq!(kind, 0x02);
        serde_json::from_slice(&payload).unwrap()
    }

    pub(crate) fn send(&mut self, kind: u8, payload: &Value) {
        self.send_bytes(kind, &serde_json::to_vec(payload).unwrap());
    }

    pub(crate) fn send_bytes(&mut self, kind: u8, payload: &[u8]) {
        self.stream.write_all(&v2_frame(kind, payload)).unwrap();
    }

    pub(crate) fn send_v1(&mut self, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let frame = [&length.to_be_bytes(), payload].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// The next v2 frame; none where the agent closed the connection.
    ///
    /// A report of metrics may come at any time, and is left.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (kind, payload) = self.receive_any()?;
            if kind != 0x31 {
                return Some((kind, payload));
            }
        }
    }

    pub(crate) fn receive_any(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut frame = self.receive_v1()?;
        let kind = frame.remove(0);
        Some((kind, frame))
    }

    pub(crate) fn receive_v1(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.stream.read_exact(&mut frame).ok()?;
        Some(frame)
    }

    /// The next agent response; how the agent is may be told at any time.
    pub(crate) fn answer(&mut self) -> Value {
        loop {
            let (kind, payload) = self.receive().expect("an answer");
            if kind != 0x30 {
                assert_eq!(kind, 0x20);
                return serde_json::from_slice(&payload).unwrap();
            }
        }
    }

    /// Whether the agent closes the connection, sending nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
            || self.stream.take_error().is_ok_and(|error| error.is_some())
    }
}

pub(crate) fn v2_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).unwrap();
    [&length.to_be_bytes(), [kind].as_slice(), payload].concat()
}

/// A request headers event.
pub(crate) fn request(id: &str, uri: &str) -> Value {
    json!({"correlation_id":id,
        "metadata":{"correlation_id":id,"request_id":"r","client_ip":"192.0.2.7:5","client_port":0,
            "protocol":"HTTP/1.1","timestamp":"2026-11-20T13:31:06Z"},
        "method":"GET","uri":uri,"headers":{"host":["a"],"user-agent":["curl"]}})
}

pub(crate) fn id_of(answer: &Value) -> &str {
    answer["audit"]["custom"]["correlation_id"]
        .as_str()
        .unwrap()
}

/// `allow`, or the name of a refusal.
pub(crate) fn decision_of(answer: &Value) -> &str {
    match &answer["decision"] {
        Value::String(name) => name,
        Value::Object(decision) => decision.keys().next().unwrap(),
        other => panic!("{other}"),
    }
}
