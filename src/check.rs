//! One check of the contract and its result.

use std::fmt;

use serde::{Serialize, Serializer};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Not looked at, because of what was found before, or not far enough to say.
    Skip,
    /// Allowed, and likely to hurt one day.
    Warn,
    /// The contract is broken.
    Fail,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// Bytes of the binary.
    Size,
    /// Proposals of wasm that it uses.
    Features,
    /// What compiling it takes.
    Complexity,
    /// Which handlers it has.
    Abi,
    /// Its linear memory.
    Memory,
    /// A function that it exports.
    Export,
    /// Its tables.
    Tables,
    /// One import.
    Import,
    /// All imports together.
    Imports,
    /// What runs as an instance is made.
    Start,
    /// Whether the file holds a module.
    Readable,
    /// Compiling it.
    Compile,
    /// Making an instance.
    Instantiate,
    /// Answers of a handler.
    Answer,
    /// Giving memory back after an answer.
    Dealloc,
    /// Answers of no bytes.
    Empty,
    /// Keys of answers.
    Keys,
    /// Statuses of answers.
    Status,
    /// Redirects of answers.
    Redirect,
    /// Header operations of answers.
    Headers,
    /// Headers of the upstream that answers replace.
    Replaced,
    /// What proxies make of answers to a request's body.
    RequestBody,
    /// What a hook may not change.
    Ignored,
    /// Reasons of a hook that refuses.
    Error,
    /// Equal answers to equal input.
    Determinism,
    /// Answers to names in another letter case.
    HeaderSpelling,
    /// Memory that calls keep.
    Growth,
    /// Decisions about a body in one piece and in chunks.
    Bodies,
    /// What calls leave behind.
    State,
    /// One input of `--torture`.
    Torture,
}

impl CheckKind {
    /// A check of this kind about one handler, export, import or input.
    pub(crate) fn of(self, subject: impl Into<String>) -> CheckId {
        CheckId {
            kind: self,
            subject: Some(subject.into()),
        }
    }
}

impl fmt::Display for CheckKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

/// Stable name of a check, such as `export:alloc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckId {
    /// What it is about.
    pub kind: CheckKind,
    /// The one of that kind, where there are several.
    pub subject: Option<String>,
}

impl From<CheckKind> for CheckId {
    fn from(kind: CheckKind) -> Self {
        Self {
            kind,
            subject: None,
        }
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(out, "{}:{subject}", self.kind),
            None => write!(out, "{}", self.kind),
        }
    }
}

impl Serialize for CheckId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, such as `export:alloc`.
    pub id: CheckId,
    /// How it came out.
    pub status: CheckStatus,
    /// What the contract asks for.
    pub expected: String,
    /// What the module has.
    pub found: String,
    /// How to mend it, empty where nothing is to be mended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

impl Check {
    /// A check that came out well.
    pub fn pass(
        id: impl Into<CheckId>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            status: CheckStatus::Pass,
            expected: expected.into(),
            found: found.into(),
            fix: String::new(),
        }
    }

    /// The same with another status and a fix.
    #[must_use]
    pub fn with(mut self, status: CheckStatus, fix: impl Into<String>) -> Self {
        self.status = status;
        self.fix = fix.into();
        self
    }

    /// A check that failed.
    pub fn fail(
        id: impl Into<CheckId>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::pass(id, expected, found).with(CheckStatus::Fail, fix)
    }

    /// A check that came out well, and yet is likely to hurt one day.
    pub(crate) fn warn(
        id: impl Into<CheckId>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::pass(id, expected, found).with(CheckStatus::Warn, fix)
    }

    /// Fails with this fix where the condition does not hold.
    pub(crate) fn requires(self, holds: bool, fix: impl FnOnce() -> String) -> Self {
        if holds {
            self
        } else {
            self.with(CheckStatus::Fail, fix())
        }
    }
}
