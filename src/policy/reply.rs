//! The result of one question: the answer, the guest's fault and the cost.

use super::{Called, wrong_answer};
use crate::answer::Answer;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::guest::Checked;
use crate::hook::{Applied, Change, HookContext, HookResult, apply};
use crate::response::AgentResponse;

/// What came of one question, whatever was asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply {
    /// What the proxy or the host is told; of a hook the effective result, see
    /// [`HandledHook::effective`].
    pub answer: Answer,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// A chunk of a body that is collected, see [`Handled::is_collected`].
    pub is_collected: bool,
}

/// What came of one event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Handled {
    /// What the proxy is told; in a box, since it is handed on often.
    pub response: Box<AgentResponse>,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// Keys of the answer that the contract does not know.
    pub unknown_keys: Vec<String>,
    /// The event is a chunk of a body whose rest is to come, and the module is asked
    /// about the whole body: this answer was given in its place.
    pub is_collected: bool,
}

/// What came of one hook.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandledHook {
    /// What the hook answered; after a fault, a result that is not ok.
    pub result: HookResult,
    /// The context the host goes on with: `input` and `data` as the hook left
    /// them, everything else as it was.
    pub context: HookContext,
    /// Whether that is another than it was called with.
    pub changed: bool,
    /// What else the hook would have changed.
    pub ignored: Vec<Change>,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// Paths of keys of the answer that the contract does not know.
    pub unknown_keys: Vec<String>,
}

impl HandledHook {
    /// The result as the host acts on it, which is what records hold: with the
    /// context it goes on with, and none where that is as it was.
    #[must_use]
    pub fn effective(&self) -> HookResult {
        HookResult {
            ctx: self.changed.then(|| self.context.clone()),
            ..self.result.clone()
        }
    }
}

impl Reply {
    /// Whether somebody answered: a guest, a fault that kept it from being called, or
    /// we in its place while a body is collected. Where the module lacks the handler
    /// nobody did.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.cost.is_some() || self.fault.is_some() || self.is_collected
    }

    /// Whether the exchange is over with it.
    #[must_use]
    pub fn ends(&self) -> bool {
        !self.answer.passes()
    }
}

impl From<Handled> for Reply {
    fn from(handled: Handled) -> Self {
        Self {
            answer: Answer::Response(handled.response),
            fault: handled.fault,
            cost: handled.cost,
            is_collected: handled.is_collected,
        }
    }
}

impl From<HandledHook> for Reply {
    fn from(handled: HandledHook) -> Self {
        Self {
            answer: Answer::Result(Box::new(handled.effective())),
            fault: handled.fault,
            cost: handled.cost,
            is_collected: false,
        }
    }
}

impl HandledHook {
    /// What a context becomes by a hook's answer; none where it gave none.
    pub(super) fn of(context: HookContext, called: Called) -> Self {
        let Called { result, cost, .. } = called;
        let (result, unknown_keys, fault) = match result {
            Ok(Some(Checked {
                answer: Answer::Result(result),
                unknown_keys,
            })) => (*result, unknown_keys, None),
            Ok(None) => (HookResult::unchanged(), Vec::new(), None),
            Ok(Some(_)) => {
                let result = Err(wrong_answer());
                return Self::of(context, Called { result, ..called });
            }
            Err(fault) => (HookResult::trapped(&fault), Vec::new(), Some(fault)),
        };
        let Applied {
            context,
            changed,
            ignored,
        } = apply(context, &result);
        Self {
            result,
            context,
            changed,
            ignored,
            fault,
            cost,
            unknown_keys,
        }
    }
}
