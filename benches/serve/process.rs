//! The process under load, and the CPU time it has used.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::args::Args;

/// Linux counts in hundredths of a second for programs, on all machines.
const TICK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);
/// A busy machine is not what is measured.
pub(crate) const PATIENT: [&str; 4] = ["--queue-wait", "10s", "--timeout", "10s"];

/// A started process; killed when it is dropped.
pub(crate) struct Served {
    child: Child,
    folder: TempDir,
}

impl Served {
    pub(crate) fn echo() -> Result<Self> {
        Self::start(|socket| {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--echo").arg(socket);
            Ok(command)
        })
    }

    /// `limits` are arguments, and so is `grpc`, where to listen besides.
    pub(crate) fn agent(
        args: &Args,
        module: &Path,
        limits: &[&str],
        grpc: Option<SocketAddr>,
    ) -> Result<Self> {
        Self::start(|socket| {
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
                .args(&args.serve_args);
            if let Some(address) = grpc {
                command.arg("--grpc-address").arg(address.to_string());
            }
            Ok(command)
        })
    }

    fn start(command: impl FnOnce(&Path) -> Result<Command>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = command(&folder.path().join("s.sock"))?
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the process under load")?;
        let mut served = Self { child, folder };
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

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    /// User and system time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may hold anything; what follows is numbers.
        let (_, fields) = stat.rsplit_once(')').context("no process statistics")?;
        let mut ticks = 0;
        for field in fields.split_whitespace().skip(11).take(2) {
            ticks += field.parse::<u32>()?;
        }
        Ok(TICK * ticks)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
