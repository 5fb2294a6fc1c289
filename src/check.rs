//! One check of the contract, and how it came out.

use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Not looked at, because of what was found before.
    Skip,
    /// Allowed, and likely to hurt one day.
    Warn,
    /// The contract is broken.
    Fail,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, such as `export:alloc`.
    pub id: String,
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
        id: impl Into<String>,
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
        id: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::pass(id, expected, found).with(CheckStatus::Fail, fix)
    }

    /// Fails with this fix where the condition does not hold.
    pub(super) fn requires(self, holds: bool, fix: impl FnOnce() -> String) -> Self {
        if holds {
            self
        } else {
            self.with(CheckStatus::Fail, fix())
        }
    }
}
