//! The steps of a fixture, asked in turn: what a module makes of each, and how
//! that differs from what was expected.

use serde_json::Value;

use super::not_reached;
use super::report::{Hint, HookOutcome, StepResult, summary};
use super::spelling::Spelling;
use crate::cost::Cost;
use crate::fault::{Fault, FaultCode};
use crate::fixture::hook::{self, ActualHook};
use crate::fixture::{Actual, Expect, Fixture, HookStep, Mismatch, Step, expect};
use crate::guest::convention::json_buffer::answer::framing_header;
use crate::hook::{Change, HookContext, may_change};
use crate::limits::Isolation;
use crate::policy::{Handled, HandledHook, Policy, Reply};
use crate::protocol::proxy;
use crate::question::Phase;

/// What a module made of one step.
pub(crate) enum StepReply<'a> {
    Event {
        step: &'a Step,
        handled: Box<Handled>,
        /// No body is collected of which the last chunk never comes.
        has_whole_body: bool,
    },
    Hook {
        step: &'a HookStep,
        /// What it was called with: what the hook before left, with the step's
        /// own data.
        before: Box<HookContext>,
        handled: Box<HandledHook>,
    },
}

impl From<StepReply<'_>> for Reply {
    fn from(reply: StepReply<'_>) -> Self {
        match reply {
            StepReply::Event { handled, .. } => (*handled).into(),
            StepReply::Hook { handled, .. } => (*handled).into(),
        }
    }
}

/// Asks about each step in turn, up to the one that ends the exchange.
pub(crate) fn ask<'a>(policy: &Policy, fixture: &'a Fixture) -> Vec<StepReply<'a>> {
    let mut exchange = policy.exchange();
    let Some(hooks) = &fixture.hooks else {
        let replies = fixture.steps.iter().map_while(|step| {
            let handled = Box::new(exchange.at(step.now).handle(&step.event)?);
            let has_whole_body = true;
            Some(StepReply::Event {
                step,
                handled,
                has_whole_body,
            })
        });
        let mut replies: Vec<_> = replies.collect();
        if let Some(StepReply::Event { has_whole_body, .. }) = replies.last_mut() {
            *has_whole_body = !exchange.has_unfinished_body();
        }
        return replies;
    };
    let mut context = Some(hooks.context.clone());
    let replies = hooks.steps.iter().map_while(|step| {
        let mut before = context.take()?;
        if step.data.is_some() {
            before.data.clone_from(&step.data);
        }
        let handled = exchange.at(step.now).hook(step.hook, before.clone())?;
        context = handled.result.ok.then(|| handled.context.clone());
        Some(StepReply::Hook {
            step,
            before: Box::new(before),
            handled: Box::new(handled),
        })
    });
    replies.collect()
}

/// Whether all that a fixture expects came: what `run` calls passed.
pub(crate) fn are_met(replies: &[StepReply<'_>], fixture: &Fixture) -> bool {
    let mut rest = (replies.len()..).map_while(|index| fixture.step(index));
    replies.iter().all(|reply| reply.mismatches().is_empty())
        && rest.all(|(_, _, has_expectations)| !has_expectations)
}

/// Whether a fixture is fed again to a new instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    OnNewInstance,
    Not,
}

/// Feeds a fixture so many times; the first time is judged, and what differs
/// from it is noted. So is what a new instance answers otherwise than one that other
/// fixtures were fed to.
pub(super) fn run(
    (policy, spelling): (&Policy, &Spelling),
    fixture: &Fixture,
    repeats: u32,
    again: Again,
) -> Vec<StepResult> {
    let replies = ask(policy, fixture);
    let first = replies.iter().find_map(StepReply::cost);
    let calls_before = first.map_or(0, |cost| cost.calls_before);
    let replies = replies.into_iter();
    let mut results: Vec<StepResult> = replies
        .map(|reply| reply.judged(policy, spelling))
        .collect();
    let is_fresh = policy.pool().settings().isolation == Isolation::Fresh;
    if again == Again::OnNewInstance && calls_before > 0 && !is_fresh && policy.is_repeatable() {
        let replies = ask(&policy.alone(), fixture).into_iter();
        let differing = results.iter_mut().zip(replies).find_map(|(used, reply)| {
            let on_new = reply.differs_from(used)?;
            Some((used, on_new))
        });
        if let Some((used, on_new)) = differing {
            let on_used = used.told();
            used.hints.push(Hint::EarlierCalls {
                on_new,
                on_used,
                calls_before,
            });
        }
    }
    let depends = |hint: &Hint| matches!(hint, Hint::EarlierCalls { .. });
    let is_told = results.iter().any(|step| step.hints.iter().any(depends));
    if policy.is_repeatable() && !is_told {
        spelling.instance_hint(fixture, &mut results);
    }
    let rest = (results.len()..).map_while(|index| fixture.step(index));
    results.extend(rest.map(|(name, line, expects)| not_reached(name, line, expects)));
    for round in 2..=repeats {
        for (first, reply) in results.iter_mut().zip(ask(policy, fixture)) {
            reply.repeats(first, (round, repeats));
        }
    }
    results
}

impl StepReply<'_> {
    fn judged(self, policy: &Policy, spelling: &Spelling) -> StepResult {
        let mismatches = self.mismatches();
        match self {
            Self::Event {
                step,
                handled,
                has_whole_body,
            } => {
                // We gave the answer: what holds of it says nothing of the module.
                let is_checked = !handled.is_collected || !mismatches.is_empty();
                let expects = step.expect.is_some() && is_checked;
                let unfinished = (!has_whole_body).then_some(Hint::BodyUnfinished);
                StepResult {
                    mismatches,
                    hints: cannot_fail(step, policy)
                        .into_iter()
                        .chain(event_hints(step, &handled, spelling))
                        .chain(unfinished)
                        .collect(),
                    response: Some(handled.response),
                    fault: handled.fault,
                    ..not_reached(step.event.kind().name(), step.line, expects)
                }
                .costing(handled.cost)
            }
            Self::Hook {
                step,
                before,
                handled,
            } => StepResult {
                mismatches,
                hints: hook_hints(&handled),
                hook: Some(HookOutcome::of(&before, &handled)),
                fault: handled.fault,
                ..not_reached(step.hook.name(), step.line, step.expect.is_some())
            }
            .costing(handled.cost),
        }
    }

    /// Whether somebody answered: a guest, or a fault that kept it from being called.
    pub(crate) const fn is_answered(&self) -> bool {
        match self {
            Self::Event { handled, .. } => {
                handled.cost.is_some() || handled.fault.is_some() || handled.is_collected
            }
            Self::Hook { handled, .. } => handled.cost.is_some() || handled.fault.is_some(),
        }
    }

    /// Whether we answered in the module's place.
    pub(crate) fn is_collected(&self) -> bool {
        matches!(self, Self::Event { handled, .. } if handled.is_collected)
    }

    /// What the call cost; none where no guest was called.
    const fn cost(&self) -> Option<&Cost> {
        match self {
            Self::Event { handled, .. } => handled.cost.as_ref(),
            Self::Hook { handled, .. } => handled.cost.as_ref(),
        }
    }

    /// What it tells in a few words, if that is otherwise than another instance did.
    /// Nothing is said of calls that were late.
    fn differs_from(self, other: &StepResult) -> Option<String> {
        let fault = match &self {
            Self::Event { handled, .. } => handled.fault.as_ref(),
            Self::Hook { handled, .. } => handled.fault.as_ref(),
        };
        let is_late = |fault: &Fault| fault.code == FaultCode::Deadline;
        if fault.is_some_and(is_late) || other.fault.as_ref().is_some_and(is_late) {
            return None;
        }
        match self {
            Self::Event { handled, .. } => {
                let told = &handled.response;
                let known = other.response.as_ref()?;
                (!known.tells_the_same(told)).then(|| summary(told))
            }
            Self::Hook {
                before, handled, ..
            } => {
                let outcome = HookOutcome::of(&before, &handled);
                let known = other.hook.as_ref()?;
                (!known.tells_the_same(&outcome)).then(|| outcome.summary())
            }
        }
    }

    /// Where what came differs from what was expected.
    fn mismatches(&self) -> Vec<Mismatch> {
        let (phase, expects) = match self {
            Self::Event { step, .. } => (Phase::Event(step.event.kind()), step.expect.is_some()),
            Self::Hook { step, .. } => (Phase::Hook(step.hook), step.expect.is_some()),
        };
        if expects && !self.is_answered() {
            return vec![not_called(phase)];
        }
        match self {
            Self::Event { step, handled, .. } => {
                let actual = Actual {
                    response: &handled.response,
                    fault: handled.fault.as_ref(),
                    cost: handled.cost.as_ref(),
                };
                expect::check(step.expect.as_ref(), actual)
            }
            Self::Hook { step, handled, .. } => {
                let actual = ActualHook {
                    result: &handled.result,
                    context: &handled.context,
                    ignored: &handled.ignored,
                    fault: handled.fault.as_ref(),
                    cost: handled.cost.as_ref(),
                };
                hook::check(step.expect.as_ref(), actual)
            }
        }
    }

    /// Holds a repeat against the first round.
    fn repeats(self, first: &mut StepResult, rounds: (u32, u32)) {
        first.also(self.mismatches());
        match self {
            Self::Event { handled, .. } => {
                let response = first.response.as_ref();
                if !response.is_some_and(|first| first.tells_the_same(&handled.response)) {
                    let unstable = first.differs(rounds);
                    unstable.response.get_or_insert(handled.response);
                }
            }
            Self::Hook {
                before, handled, ..
            } => {
                let outcome = HookOutcome::of(&before, &handled);
                let known = first.hook.as_ref();
                if !known.is_some_and(|first| first.tells_the_same(&outcome)) {
                    let unstable = first.differs(rounds);
                    unstable.hook.get_or_insert_with(|| Box::new(outcome));
                }
            }
        }
    }
}

/// What is expected of a handler that the module lacks: nobody was asked, so
/// nothing of it holds.
fn not_called(phase: Phase) -> Mismatch {
    Mismatch {
        path: "event".to_owned(),
        expected: format!("an answer of {}", phase.handler()),
        found: format!(
            "the module does not export {}, so nothing was called and nothing was checked",
            phase.handler()
        ),
        edits: Vec::new(),
    }
}

/// What is expected not to be touched, and may not be touched by any module.
fn cannot_fail(step: &Step, policy: &Policy) -> Option<Hint> {
    let allowed = &policy.settings().answer_policy.allowed_headers;
    let untouched = step.expect.iter().flat_map(Expect::untouched_headers);
    let framing = untouched.filter_map(framing_header);
    let headers: Vec<String> = framing.filter(|name| !allowed.contains(name)).collect();
    (!headers.is_empty()).then_some(Hint::CannotFail { headers })
}

fn event_hints(step: &Step, handled: &Handled, spelling: &Spelling) -> Vec<Hint> {
    let mut hints = Vec::new();
    if handled.is_collected && step.expect.is_some() {
        hints.push(Hint::Collected);
    }
    if handled.fault.is_none() {
        hints.extend(spelling.hint(step));
    }
    let mut tags = handled.response.audit.tags.iter();
    if tags.any(|tag| tag == "empty-answer") {
        hints.push(Hint::EmptyAnswer);
    }
    hints.extend(unknown_keys(&handled.unknown_keys));
    let quirks = proxy::quirks(&step.event, &handled.response).into_iter();
    hints.extend(quirks.map(|quirk| Hint::Proxy { quirk }));
    hints
}

fn hook_hints(handled: &HandledHook) -> Vec<Hint> {
    // What is only left out, as the published examples do, asks for nothing.
    let sets = |change: &&Change| {
        !matches!(change.after, None | Some(Value::Null)) && !may_change(&change.path)
    };
    let ignored = handled.ignored.iter().filter(sets);
    let paths: Vec<String> = ignored.map(|change| change.path.clone()).collect();
    let ignored = (!paths.is_empty()).then_some(Hint::Ignored { paths });
    let keys = unknown_keys(&handled.unknown_keys);
    ignored.into_iter().chain(keys).collect()
}

fn unknown_keys(keys: &[String]) -> Option<Hint> {
    (!keys.is_empty()).then(|| Hint::UnknownKeys {
        keys: keys.to_vec(),
    })
}
