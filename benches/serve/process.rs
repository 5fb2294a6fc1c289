//! The process under load.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use wasm_agent_kit::internals::client::{Address, Peer, Protocol, Target};

use super::args::Args;

const PATIENCE: Duration = Duration::from_secs(60);
/// A busy machine is not what is measured.
pub(crate) const PATIENT: [&str; 4] = ["--queue-wait", "10s", "--timeout", "10s"];

/// A started process; killed when it is dropped.
pub(crate) struct Served {
    child: Child,
    folder: TempDir,
    /// Where it listens besides, unless it is the echo.
    grpc: Option<SocketAddr>,
}

impl Served {
    pub(crate) fn echo() -> Result<Self> {
        Self::start(None, |socket| {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--echo").arg(socket);
            Ok(command)
        })
    }

    /// `limits` are arguments.
    pub(crate) fn agent(args: &Args, module: &Path, limits: &[&str]) -> Result<Self> {
        // An address that was free a moment ago.
        let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Self::start(Some(grpc), |socket| {
            let mut command = Command::new(args.agent());
            command
                .arg("serve")
                .arg("--socket")
                .arg(socket)
                .arg("--module")
                .arg(module)
                .arg("--pool-size")
                .arg(args.pool_size.to_string())
                .args(limits)
                // Every frame is an answer.
                .args(["--metrics-interval", "0s"])
                .arg("--grpc-address")
                .arg(grpc.to_string())
                .args(&args.serve_args);
            Ok(command)
        })
    }

    fn start(
        grpc: Option<SocketAddr>,
        command: impl FnOnce(&Path) -> Result<Command>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = command(&folder.path().join("s.sock"))?
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the process under load")?;
        let mut served = Self {
            child,
            folder,
            grpc,
        };
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(served.socket()).is_err() {
            if let Some(status) = served.child.try_wait()? {
                bail!("it ended at once: {status}");
            }
            if Instant::now() > until {
                bail!("it does not listen");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(served)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn target(&self, protocol: Protocol, peer: Peer) -> Target {
        let address = match (protocol, self.grpc) {
            (Protocol::Grpc, Some(address)) => Address::Grpc(address),
            _ => Address::Unix(self.socket()),
        };
        Target {
            address,
            protocol,
            peer,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
