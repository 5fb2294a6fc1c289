//! A module's file that changes while an agent runs on it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::agent::{Agent, command};
use crate::support::shipped;

/// The file, in a folder of its own.
pub(crate) struct Guest {
    folder: TempDir,
}

impl Guest {
    pub(crate) fn new(module_name: &str) -> Self {
        let guest = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        guest.put(module_name);
        guest
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("module")
    }

    /// Puts a fixture in its place, as a deployment should: in one step.
    pub(crate) fn put(&self, module_name: &str) {
        self.put_bytes(&std::fs::read(shipped(module_name)).unwrap());
    }

    pub(crate) fn put_bytes(&self, bytes: &[u8]) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    /// An agent on it.
    pub(crate) fn serve(&self, args: &[&str]) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(self.path().to_str().unwrap(), &folder);
        command.args(args);
        if !args.contains(&"--timeout") {
            command.args(["--timeout", "5s"]);
        }
        Agent::spawn(command, folder)
    }
}

/// A `.wat` fixture with another text in place of one of its own.
pub(crate) fn edited(path: &Path, from: &str, to: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{}", path.display());
    text.replace(from, to).into_bytes()
}
