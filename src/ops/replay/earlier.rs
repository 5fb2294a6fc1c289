//! Earlier transactions of the same instances, for what hangs on them.

use std::cell::{Cell, RefCell};

use super::proof::Claim;
use super::save::Asked;
use super::view::View;
use crate::abi::Abi;
use crate::capture::{RawTransaction, decode};
use crate::limits::Isolation;
use crate::ops::shortest::shortest;
use crate::policy::Policy;
use crate::question::{Question, Timed};

/// Transactions that are looked back.
const MOST: usize = 16;
/// Instructions that looking back may cost in one batch: counted, since what is
/// found must not hang on the machine.
pub(super) const BUDGET: u64 = 100_000_000;
/// What any call costs besides its own.
const COST_OF_CALL: u64 = 10_000;

/// What the instances of a batch were asked about before a transaction.
pub(super) trait Earlier {
    /// Calls of earlier transactions that are needed, on new instances, for a
    /// claim to hold of these. Only of such as are allowed: a fixture ends where
    /// something is refused.
    ///
    /// # Errors
    /// More about why there are none, where more is known.
    fn needed(
        &self,
        view: &View<'_>,
        claimed: (&Claim<'_>, &[Timed<Question<'static>>]),
    ) -> Result<Vec<Timed<Question<'static>>>, String>;
}

/// The transactions of a batch before one of them.
pub(super) struct Before<'a> {
    pub(super) frames: RefCell<&'a mut [(u64, RawTransaction)]>,
    /// What is left of the batch's [`BUDGET`].
    pub(super) left: &'a Cell<u64>,
}

/// Calls of one earlier transaction.
#[derive(Clone, PartialEq)]
struct Past {
    questions: Vec<Timed<Question<'static>>>,
    /// Instructions, of all modules.
    cost: u64,
}

impl Earlier for Before<'_> {
    fn needed(
        &self,
        view: &View<'_>,
        (claim, questions): (&Claim<'_>, &[Timed<Question<'static>>]),
    ) -> Result<Vec<Timed<Question<'static>>>, String> {
        let subjects = view.shared.subjects;
        let module = subjects.module;
        if module.abi() == Abi::Hook || module.settings().pool.isolation == Isolation::Fresh {
            return Err(String::new());
        }
        let has_more = self.frames.borrow().len() > MOST;
        let mut all = self.last(view);
        for policy in [Some(module), subjects.baseline].into_iter().flatten() {
            all = self.allowed(policy, all);
        }
        let own = view.new.fuel() + view.old.map_or(0, |old| old.fuel());
        let holds = |part: &[Past]| {
            let cost = part.iter().fold(own, |sum, past| sum + past.cost);
            if !self.can_spend(cost) {
                return false;
            }
            let earlier = part.iter().flat_map(|past| past.questions.clone());
            let earlier = &earlier.collect::<Vec<_>>();
            claim.holds(view, &Asked { earlier, questions }.calls())
        };
        let ends = (0..all.len()).map(|first| &all[first..]);
        let Some(whole) = ends.into_iter().find(|end| holds(end)) else {
            return Err(if has_more || self.left.get() == 0 {
                format!(" It depends on more than {MOST} of them, or they cost too much to try.")
            } else {
                String::new()
            });
        };
        let needed = shortest(whole, holds).into_iter();
        Ok(needed.flat_map(|past| past.questions).collect())
    }
}

impl Before<'_> {
    /// Takes it from the budget, if that much is left.
    fn can_spend(&self, cost: u64) -> bool {
        let left = self.left.get().checked_sub(cost + COST_OF_CALL);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// The last of them, in order.
    fn last(&self, view: &View<'_>) -> Vec<Past> {
        let mut frames = self.frames.borrow_mut();
        let first = frames.len().saturating_sub(MOST);
        let mut all = Vec::new();
        for (_, frame) in frames.iter_mut().skip(first) {
            // One that cannot be read was not asked about either.
            let decoded = decode(frame, &view.shared.settings.decode);
            let Some(transaction) = decoded.transaction else {
                continue;
            };
            let questions = transaction.read_back();
            all.extend(questions.ok().map(|questions| Past { questions, cost: 0 }));
        }
        all
    }

    /// Those that a new instance allows, in this order.
    fn allowed(&self, policy: &Policy, all: Vec<Past>) -> Vec<Past> {
        let policy = policy.alone();
        let mut allowed = Vec::new();
        for mut past in all {
            let mut exchange = policy.exchange();
            let mut cost = 0;
            for question in &past.questions {
                let reply = exchange.at(question.at).ask(&question.question);
                let fuel = reply.and_then(|reply| reply.cost?.fuel);
                cost += fuel.unwrap_or(0) + COST_OF_CALL;
            }
            if !self.can_spend(cost) {
                return Vec::new();
            }
            if !exchange.has_ended() {
                past.cost += cost;
                allowed.push(past);
            }
        }
        allowed
    }
}
