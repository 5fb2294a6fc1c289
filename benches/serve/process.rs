//! The process under load.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use wasm_agent_kit::client::Process;

use super::args::Args;

const PATIENCE: Duration = Duration::from_secs(60);

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

    pub(crate) fn agent(args: &Args, module: &Path) -> Result<Self> {
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
                // A busy machine is not what is measured.
                .args(["--queue-wait", "10s", "--timeout", "10s"])
                // Every frame is an answer.
                .args(["--metrics-interval", "0s"])
                .args(&args.serve_args);
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

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s.sock")
    }

    /// Whose use is counted.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
