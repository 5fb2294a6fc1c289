//! Errors of the user's or the system's doing. A guest's doing is a
//! [`Fault`], which is data.

use std::path::PathBuf;
use std::time::Duration;

use crate::abi::Abi;
use crate::check::Check;
use crate::fault::{Fault, printable, shown};

/// Why something could not be done at all.
/// ```
/// use wasm_agent_kit::error::Error;
/// use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
///
/// let engine = Engine::new(EngineSettings::default())?;
/// match Module::load(&engine, "absent.wasm".as_ref(), &LoadSettings::default()) {
///     Err(Error::Read { path, .. }) => assert!(path.ends_with("absent.wasm")),
///     Err(Error::Refused { problems, .. }) => println!("{} checks failed", problems.len()),
///     other => drop(other?),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", shown(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {message}", shown(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and found, with the place, and the fix.
        message: String,
    },
    /// A well-formed module that does not keep the contract.
    #[error(
        "{}: the module does not keep the contract{}",
        shown(path),
        list(problems)
    )]
    Refused {
        /// The module.
        path: PathBuf,
        /// The failed checks.
        problems: Vec<Check>,
    },
    /// A module of the other ABI.
    #[error("{}: expected {} (the {} ABI), found {} (the {} ABI), since it exports {handlers}; {}", shown(path), wanted.describe(), wanted.name(), found.describe(), found.name(), found.way_out())]
    WrongAbi {
        /// The module.
        path: PathBuf,
        /// The handlers it exports.
        handlers: String,
        /// The ABI it is called by.
        found: Abi,
        /// The ABI that was asked for.
        wanted: Abi,
    },
    /// A plugin was called that nobody loaded.
    #[error("{}: not loaded; load it before it is called", shown(path))]
    NotLoaded {
        /// The module's path, or the name it was to be loaded by.
        path: PathBuf,
    },
    /// A module that compiles and cannot be instantiated.
    #[error("{}: cannot make an instance: {fault}", shown(path))]
    Start {
        /// The module.
        path: PathBuf,
        /// What its start did wrong.
        fault: Box<Fault>,
    },
    /// A module whose handler faults at a small, valid event.
    #[error(
        "{}: {handler} faults at a small, valid event: {fault} (--no-smoke-call serves it anyway)",
        shown(path)
    )]
    Smoke {
        /// The module.
        path: PathBuf,
        /// The handler.
        handler: &'static str,
        /// What it did wrong.
        fault: Box<Fault>,
    },
    /// The module's file is another one than what runs.
    #[error(
        "{}: the file on disk differs from the running module, found {found}; send SIGHUP first to load it",
        shown(path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// The hash it has now.
        found: String,
    },
    /// Compiling took longer than allowed.
    #[error("{}: not compiled within {limit:?} (--max-compile-time)", shown(path))]
    CompileTime {
        /// The module.
        path: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The system forbids memory that is written and then executed, which is
    /// where compiled modules live.
    #[error(
        "the system forbids executable memory, which compiled modules need; with systemd remove MemoryDenyWriteExecute=yes from the unit, with SELinux allow execmem"
    )]
    NotExecutable {
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A setting is out of range or contradicts another.
    #[error("{0}")]
    Usage(String),
    /// Nothing matched, so nothing was checked.
    #[error("nothing was checked: {0}")]
    NothingChecked(String),
    /// The engine or the system failed us.
    #[error("{what}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the engine said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// With its causes, on one line, and fit for a log.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        printable(&words.join(" "), 1024)
    }
}

fn list(problems: &[Check]) -> String {
    problems
        .iter()
        .map(|check| {
            format!(
                "\n  {}: expected {}, found {}; {}",
                check.id, check.expected, check.found, check.fix
            )
        })
        .collect()
}
