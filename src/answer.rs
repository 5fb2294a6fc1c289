//! What a guest answers, whichever question it was asked.

use std::borrow::Cow;

use serde::Serialize;

use crate::fault::printable;
use crate::hook::{HookResult, TRAPPED};
use crate::response::{AgentResponse, Decision};

/// Characters of a hook's error in the words for a decision.
const SHOWN: usize = 160;

/// An answer: what the proxy or the host is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// About an event.
    Response(Box<AgentResponse>),
    /// About a hook's context.
    Result(Box<HookResult>),
}

impl Answer {
    /// Whether the exchange may go on: an event is allowed, a hook is ok.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Response(response) => response.decision == Decision::Allow,
            Self::Result(result) => result.ok,
        }
    }

    /// The decision with its status; of a hook whether the host may go on, and
    /// with a changed context or why not.
    #[must_use]
    pub fn decision(&self) -> Cow<'static, str> {
        match self {
            Self::Response(response) => {
                match (response.decision.name(), response.decision.status()) {
                    (name, None) => name.into(),
                    ("block", Some(403)) => "block 403".into(),
                    (name, Some(status)) => format!("{name} {status}").into(),
                }
            }
            Self::Result(result) => hook_decision(
                result.ok,
                result.ctx.is_some(),
                result.error.as_deref().unwrap_or_default(),
            ),
        }
    }

    /// The decision's name; of a hook `ok` or `refused`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Response(response) => response.decision.name(),
            Self::Result(result) if result.ok => "ok",
            Self::Result(_) => "refused",
        }
    }

    /// Labels of the answer; a hook gives none.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        match self {
            Self::Response(response) => &response.audit.tags,
            Self::Result(_) => &[],
        }
    }

    /// Ids of the rules that fired; a hook gives none.
    #[must_use]
    pub fn rule_ids(&self) -> &[String] {
        match self {
            Self::Response(response) => &response.audit.rule_ids,
            Self::Result(_) => &[],
        }
    }
}

/// A hook's result in a few words.
#[must_use]
pub fn hook_decision(ok: bool, changed: bool, error: &str) -> Cow<'static, str> {
    match (ok, changed) {
        (true, false) => "ok".into(),
        (true, true) => "ok changed".into(),
        (false, _) if error.is_empty() || error.starts_with(TRAPPED) => "refused".into(),
        (false, _) => format!("refused: {}", printable(error, SHOWN)).into(),
    }
}
