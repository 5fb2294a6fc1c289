//! One exchange, call by call: what `run` and `replay` share.

use std::borrow::Cow;

use serde::Serialize;

use crate::fault::{Fault, printable};
use crate::guest::Cost;
use crate::hook::{HookResult, TRAPPED};
use crate::policy::agent::Handled;
use crate::policy::plugin::HandledHook;
use crate::response::{AgentResponse, Decision};

/// Characters of a hook's error in the words for a decision.
const SHOWN: usize = 160;

/// An exchange in progress.
#[derive(Debug, Default)]
pub struct Exchange {
    refused: bool,
}

impl Exchange {
    /// Makes the next call. Nothing where an earlier one refused: neither a
    /// proxy nor a host asks any further then.
    pub fn ask<A: Ends>(&mut self, call: impl FnOnce() -> A) -> Option<A> {
        if self.refused {
            return None;
        }
        let answered = call();
        self.refused = answered.ends();
        Some(answered)
    }
}

/// What may end an exchange.
pub trait Ends {
    /// Whether the exchange is over with it.
    fn ends(&self) -> bool;
}

impl Ends for Handled {
    fn ends(&self) -> bool {
        !matches!(self.response.decision, Decision::Allow)
    }
}

/// What came of one call, whichever ABI the module is written to.
#[derive(Debug, Clone)]
pub struct Answered {
    /// What the proxy or the host is told.
    pub answer: Answer,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
}

/// What the proxy or the host is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// About an event.
    Response(Box<AgentResponse>),
    /// About a hook's context: the effective result, see
    /// [`HandledHook::effective`].
    Result(Box<HookResult>),
}

impl From<Handled> for Answered {
    fn from(handled: Handled) -> Self {
        Self {
            answer: Answer::Response(handled.response),
            fault: handled.fault,
            cost: handled.cost,
        }
    }
}

impl From<HandledHook> for Answered {
    fn from(handled: HandledHook) -> Self {
        Self {
            answer: Answer::Result(Box::new(handled.effective())),
            fault: handled.fault,
            cost: handled.cost,
        }
    }
}

impl Ends for Answered {
    fn ends(&self) -> bool {
        match &self.answer {
            Answer::Response(response) => !matches!(response.decision, Decision::Allow),
            Answer::Result(result) => !result.ok,
        }
    }
}

impl Answer {
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
