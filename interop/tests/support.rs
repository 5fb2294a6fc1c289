//! A started agent, and upstream's clients connected to it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use zentinel_agent_protocol::v2::pool::FlowControlMode;
use zentinel_agent_protocol::v2::{AgentClientV2Uds, AgentPool, AgentPoolConfig};

/// Longer than anything here takes; a hang is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// No good guest is stopped or turned away, however busy the machine is.
pub const AMPLE: [&str; 4] = ["--queue-wait", "10s", "--timeout", "10s"];

/// The name the pool has for the agent.
pub const NAME: &str = "wasm";

/// The version of the v2 client, as major, minor and patch: `versions` runs the
/// suite with others.
pub fn client_version() -> [u32; 3] {
    const KEY: &str = "\nzentinel-agent-protocol = \"=";
    let manifest = include_str!("../Cargo.toml");
    let (_, rest) = manifest.split_once(KEY).unwrap();
    let (version, _) = rest.split_once('"').unwrap();
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap())
}

/// From here on proxies challenge and redirect, and keep what the request phase
/// says of the response.
pub const REPAIRED: [u32; 3] = [0, 6, 54];

pub fn parent() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The agent under test, built once where nobody built it before.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("WASM_AGENT_BIN") {
            return path.into();
        }
        let output = Command::new(env!("CARGO"))
            .current_dir(parent())
            .args(["build", "--locked", "--bin", "wasm-agent"])
            .args(["--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the agent does not build");
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap()
    })
}

/// A running agent; killed when the test ends before it does.
pub struct Agent {
    pub child: Child,
    /// None once it is handed on, for the next agent at the same socket.
    folder: Option<TempDir>,
    lines: Receiver<String>,
}

impl Agent {
    pub fn start(module: &str, args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), module, args)
    }

    /// Starts an agent and waits for the line that says it serves.
    pub fn start_in(folder: TempDir, module: &str, args: &[&str]) -> Self {
        // Most hostile guests would not be started otherwise.
        let hostile = module.starts_with("hostile/");
        let mut child = Command::new(binary())
            .env_clear()
            .arg("serve")
            .arg("--module")
            .arg(parent().join("fixtures/modules").join(module))
            .arg("--socket")
            .arg(folder.path().join("a.sock"))
            .args(hostile.then_some("--no-smoke-call"))
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let agent = Self {
            child,
            folder: Some(folder),
            lines,
        };
        agent.wait_for_line("serving");
        agent
    }

    fn wait_for_line(&self, part: &str) {
        let until = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return,
                Ok(line) => said.push(line),
                Err(error) => panic!("{error} before {part:?}: {said:#?}"),
            }
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder().join("a.sock")
    }

    pub fn terminate(&self) {
        let status = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("the agent does not end");
    }

    /// Ends it without a warning, as a crash does; the socket stays behind.
    pub fn crash(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.take().unwrap()
    }

    /// Ends it as a service manager does.
    pub fn stop(mut self) -> TempDir {
        self.terminate();
        assert_eq!(self.wait().code(), Some(0));
        self.folder.take().unwrap()
    }

    /// A proxy's pool: 4 connections, round robin, as released ones have it.
    pub async fn pool(&self) -> Arc<AgentPool> {
        pool(&self.socket(), PATIENCE).await
    }

    /// One connection, for what a pool cannot send.
    pub async fn client(&self) -> AgentClientV2Uds {
        let path = self.socket().display().to_string();
        let client = AgentClientV2Uds::new(NAME, path, PATIENCE).await.unwrap();
        client.connect().await.unwrap();
        client
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pool whose maintenance runs as a proxy's does, only more often.
pub async fn pool(socket: &Path, request_timeout: Duration) -> Arc<AgentPool> {
    try_pool(socket, request_timeout).await.unwrap()
}

/// The same, where the agent may not be there.
pub async fn try_pool(
    socket: &Path,
    request_timeout: Duration,
) -> Result<Arc<AgentPool>, impl std::fmt::Debug + use<>> {
    let pool = AgentPool::with_config(AgentPoolConfig {
        request_timeout,
        reconnect_interval: Duration::from_millis(10),
        health_check_interval: Duration::from_millis(50),
        flow_control_mode: FlowControlMode::FailClosed,
        ..AgentPoolConfig::default()
    });
    let endpoint = format!("unix:{}", socket.display());
    pool.add_agent(NAME, endpoint)
        .await
        .map(|()| Arc::new(pool))
}

/// An answer as the client read it.
pub fn read<T: Serialize, E: std::fmt::Display>(answer: Result<T, E>) -> Value {
    match answer {
        Ok(answer) => serde_json::to_value(answer).unwrap(),
        Err(error) => panic!("no answer: {error}"),
    }
}

/// Short for what runs into it; the rest shall not, on the busiest machine.
pub fn timeout(module: &str) -> &'static str {
    if module.contains("spin") {
        "50ms"
    } else {
        "10s"
    }
}

/// `allow`, or the name of a refusal.
pub fn decision(answer: &Value) -> &str {
    match &answer["decision"] {
        Value::String(name) => name,
        Value::Object(decision) => decision.keys().next().unwrap(),
        other => panic!("{other}"),
    }
}
