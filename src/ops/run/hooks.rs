//! Fixtures of hooks: each hook on what the one before left of the context.

use serde::Serialize;
use serde_json::Value;

use super::report::{Hint, StepResult};
use super::{RunSettings, not_reached};
use crate::fault::{Fault, printable};
use crate::fixture::hook::{ActualHook, check};
use crate::fixture::{HookFixture, HookStep};
use crate::hook::{Change, HookContext, HookResult, changes};
use crate::policy::{HandledHook, Policy};
use crate::report::CaseStatus;

/// What a hook made of its context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookOutcome {
    /// What it answered.
    pub result: HookResult,
    /// The context the host goes on with.
    pub context: HookContext,
    /// What it changed.
    pub changed: Vec<Change>,
    /// What it would have changed and may not.
    pub ignored: Vec<Change>,
}

impl HookOutcome {
    /// `ok` or `refused`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        if self.result.ok { "ok" } else { "refused" }
    }

    /// The same with the error and the number of changes, for one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let error = self.result.error.as_ref().filter(|_| !self.result.ok);
        let error = error.map_or_else(String::new, |error| format!(": {}", printable(error, 160)));
        let changed = match self.changed.len() {
            0 => String::new(),
            count => format!(", {count} changed"),
        };
        format!("{}{error}{changed}", self.word())
    }

    pub(super) fn actual<'a>(&'a self, fault: Option<&'a Fault>) -> ActualHook<'a> {
        ActualHook {
            result: &self.result,
            context: &self.context,
            ignored: &self.ignored,
            fault,
            cost: None,
        }
    }
}

/// Feeds the context to each hook in turn; a refusal ends it, as it ends the
/// host's own work.
pub(super) fn run(
    policy: &Policy,
    fixture: &HookFixture,
    settings: &RunSettings,
) -> Vec<StepResult> {
    let mut steps: Vec<StepResult> = Vec::new();
    for round in 1..=settings.repeat {
        let mut context = Some(fixture.context.clone());
        for (index, step) in fixture.steps.iter().enumerate() {
            let asked = context.take().map(|mut context| {
                if step.data.is_some() {
                    context.data.clone_from(&step.data);
                }
                let handled = policy.hook(step.hook, context.clone());
                (context, handled)
            });
            context = asked
                .as_ref()
                .filter(|(_, handled)| handled.result.ok)
                .map(|(_, handled)| handled.context.clone());
            match (steps.get_mut(index), asked) {
                (None, Some((before, handled))) => steps.push(judge(step, &before, handled)),
                (None, None) => {
                    let expects = step.expect.is_some();
                    steps.push(not_reached(step.hook.name(), step.line, expects));
                }
                (Some(first), Some((before, handled))) => {
                    let again = outcome(&before, &handled);
                    if first.hook.as_ref() != Some(&again) {
                        let unstable = first.differs(round, settings.repeat);
                        unstable.hook.get_or_insert_with(|| Box::new(again));
                    }
                }
                (Some(_), None) => {}
            }
        }
    }
    steps
}

fn outcome(before: &HookContext, handled: &HandledHook) -> HookOutcome {
    HookOutcome {
        result: handled.result.clone(),
        context: handled.context.clone(),
        changed: changes(before, &handled.context),
        ignored: handled.ignored.clone(),
    }
}

fn judge(step: &HookStep, before: &HookContext, handled: HandledHook) -> StepResult {
    let outcome = outcome(before, &handled);
    let actual = ActualHook {
        cost: handled.cost.as_ref(),
        ..outcome.actual(handled.fault.as_ref())
    };
    StepResult {
        status: CaseStatus::Passed,
        mismatches: check(step.expect.as_ref(), actual),
        hints: hints(&handled),
        hook: Some(outcome),
        fault: handled.fault,
        ..not_reached(step.hook.name(), step.line, step.expect.is_some())
    }
    .costing(handled.cost)
}

fn hints(handled: &HandledHook) -> Vec<Hint> {
    let mut hints = Vec::new();
    let sets = |change: &&Change| !matches!(change.after, None | Some(Value::Null));
    let paths: Vec<String> = handled
        .ignored
        .iter()
        // What is only left out, as the published examples do, asks for nothing.
        .filter(sets)
        .map(|change| change.path.clone())
        .collect();
    if !paths.is_empty() {
        hints.push(Hint::Ignored { paths });
    }
    if !handled.unknown_keys.is_empty() {
        hints.push(Hint::UnknownKeys {
            keys: handled.unknown_keys.clone(),
        });
    }
    hints
}
