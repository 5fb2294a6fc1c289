//! What an operation found, before anybody formats it.
//!
//! An operation returns a struct that implements [`Report`]; renderers turn
//! it into bytes. JSON is the struct itself, JUnit and annotations are its
//! cases, the exit code is its verdict: no format can change the outcome.

use std::time::Duration;

use serde::Serialize;

/// How the whole of it came out. The exit code follows from this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// All is well.
    Passed,
    /// We worked, the module did not.
    Failed,
    /// An input could not be read.
    Unreadable,
    /// Nothing was checked.
    NothingChecked,
    /// What was asked for was done, and nobody said what must come of it.
    Unchecked,
    /// It could not be told from noise.
    Inconclusive,
}

/// How one case came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaseStatus {
    /// As expected.
    Passed,
    /// As expected, with a remark.
    Warned,
    /// Otherwise than expected.
    Failed,
    /// The guest faulted, or an input could not be read.
    Errored,
    /// Not reached.
    Skipped,
    /// Nothing was expected, so nothing was checked.
    Unchecked,
}

/// One thing that passed or failed, as test reports and annotations show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// The group it belongs to: a fixture file or a module.
    pub suite: String,
    /// Its name within the group.
    pub name: String,
    /// How it came out.
    pub status: CaseStatus,
    /// One line: what was expected and what was found. Empty when it passed.
    pub message: String,
    /// More lines: a diff or a backtrace.
    pub detail: String,
    /// The file somebody would open to mend it.
    pub file: String,
    /// Line in that file, where one is known.
    pub line: Option<usize>,
    /// How long it took.
    pub time: Duration,
}

/// What every operation's result can do.
pub(crate) trait Report: Serialize {
    /// Name and version of the JSON shape, such as `wasm-agent/run/1`.
    const SCHEMA: &'static str;

    /// How the whole of it came out.
    fn verdict(&self) -> Verdict;

    /// Its cases, in a stable order.
    fn cases(&self) -> Vec<Case>;
}
