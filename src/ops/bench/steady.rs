//! Whether a case is answered alike each time it is measured.
//!
//! Every answer is held against the first one, after the clock was read. A time is the
//! time of one and the same answer, or the report says that it is not.

use std::fmt;
use std::sync::OnceLock;

use serde::Serialize;

use super::cases::BenchCase;
use crate::answer::Answer;
use crate::policy::{HandledHook, Reply};

/// The first answer to a case, and how the first other one differs.
#[derive(Debug, Clone, Default)]
pub(super) struct Steady {
    first: OnceLock<Told>,
    change: OnceLock<Change>,
}

/// What came of one call.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Event(Answer),
    Hook(Box<HandledHook>),
    /// By a running agent, of which no more is read.
    Decision(&'static str),
}

#[derive(Debug, Clone)]
struct Change {
    from: String,
    to: String,
    after_calls: u64,
}

/// A case that was answered otherwise after earlier calls.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChangedAnswer {
    /// The module, or the address of the agent.
    pub by: String,
    /// The case's name.
    pub case: String,
    /// What was answered first.
    pub from: String,
    /// What was answered then.
    pub to: String,
    /// Calls of the same instance before it; of an agent questions about this case.
    pub after_calls: u64,
}

impl fmt::Display for ChangedAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            case,
            from,
            to,
            after_calls,
            ..
        } = self;
        let times = if *after_calls == 1 { "call" } else { "calls" };
        write!(
            out,
            "{case}: {from} at first, {to} after {after_calls} {times}"
        )
    }
}

impl Told {
    /// Whether a proxy or a host is told the same. Most answers are equal, which is
    /// found out without copying anything.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Event(one), Self::Event(other)) => one.tells_the_same(other),
            (Self::Hook(one), Self::Hook(other)) => {
                one.result == other.result && one.context == other.context || {
                    let answer = |hook: &HandledHook| Reply::from(hook.clone()).answer;
                    answer(one).tells_the_same(&answer(other))
                }
            }
            (Self::Decision(one), Self::Decision(other)) => one == other,
            _ => false,
        }
    }

    /// The decision, without any words of the guest.
    fn decision(&self) -> String {
        match self {
            Self::Event(answer) => answer.decision().into_owned(),
            Self::Hook(hook) if hook.result.ok => "ok".to_owned(),
            Self::Hook(_) => "refused".to_owned(),
            Self::Decision(decision) => (*decision).to_owned(),
        }
    }
}

impl Steady {
    /// Holds an answer against the first one.
    pub(super) fn hold(&self, told: Told, after_calls: u64) {
        let Some(first) = self.first.get() else {
            // Whoever was faster is the first.
            drop(self.first.set(told));
            return;
        };
        if self.change.get().is_some() || first.is_like(&told) {
            return;
        }
        let [from, mut to] = [first, &told].map(Told::decision);
        if from == to {
            to.push_str(" with something else changed");
        }
        let change = Change {
            from,
            to,
            after_calls,
        };
        drop(self.change.set(change));
    }
}

/// The cases that were not answered alike.
pub(super) fn changed<'a>(
    cases: impl IntoIterator<Item = &'a BenchCase>,
    by: &str,
) -> Vec<ChangedAnswer> {
    let cases = cases.into_iter();
    cases
        .filter_map(|case| {
            let Change {
                from,
                to,
                after_calls,
            } = case.steady.change.get()?.clone();
            Some(ChangedAnswer {
                by: by.to_owned(),
                case: case.name.clone(),
                from,
                to,
                after_calls,
            })
        })
        .collect()
}
