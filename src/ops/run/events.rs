//! Fixtures of events: each through the agent, as far as one refuses.

use std::sync::Arc;

use super::report::{Hint, StepResult, summary};
use super::{RunSettings, not_reached};
use crate::event::Event;
use crate::fixture::{Actual, Fixture, Step, expect};
use crate::limits::Isolation;
use crate::policy::{Handled, Policy};
use crate::protocol::proxy;
use crate::question::HeaderNames;
use crate::report::CaseStatus;

/// Feeds each event in turn, up to the one that ends the exchange.
pub(super) fn run(
    policy: &Policy,
    spelling: &Spelling,
    fixture: &Fixture,
    settings: &RunSettings,
) -> Vec<StepResult> {
    let mut steps: Vec<StepResult> = Vec::new();
    for round in 1..=settings.repeat {
        let mut exchange = policy.exchange();
        for (index, step) in fixture.steps.iter().enumerate() {
            let handled = exchange.handle(&step.event);
            match (steps.get_mut(index), handled) {
                (None, Some(handled)) => steps.push(judge(spelling, step, handled)),
                (None, None) => {
                    let name = step.event.kind().name();
                    steps.push(not_reached(name, step.line, step.expect.is_some()));
                }
                (Some(first), Some(handled)) => {
                    first.compare(&handled, round, settings.repeat);
                    let cost = handled.cost.as_ref();
                    first.over(expect::over_budget(step.expect.as_ref(), cost));
                }
                (Some(_), None) => {}
            }
        }
    }
    steps
}

fn judge(spelling: &Spelling, step: &Step, handled: Handled) -> StepResult {
    let actual = Actual {
        response: &handled.response,
        fault: handled.fault.as_ref(),
        cost: handled.cost.as_ref(),
    };
    let mismatches = expect::check(step.expect.as_ref(), actual);
    let hints = hints(spelling, &step.event, &handled);
    StepResult {
        status: CaseStatus::Passed,
        response: Some(handled.response),
        fault: handled.fault,
        mismatches,
        hints,
        ..not_reached(step.event.kind().name(), step.line, step.expect.is_some())
    }
    .costing(handled.cost)
}

fn hints(spelling: &Spelling, event: &Event, handled: &Handled) -> Vec<Hint> {
    let mut hints = Vec::new();
    if handled.fault.is_none() {
        hints.extend(spelling.hint(event));
    }
    if handled
        .response
        .audit
        .tags
        .iter()
        .any(|tag| tag == "empty-answer")
    {
        hints.push(Hint::EmptyAnswer);
    }
    if !handled.unknown_keys.is_empty() {
        hints.push(Hint::UnknownKeys {
            keys: handled.unknown_keys.clone(),
        });
    }
    hints.extend(
        proxy::quirks(event, &handled.response)
            .into_iter()
            .map(|quirk| Hint::Proxy { quirk }),
    );
    hints
}

/// Two policies beside the one under test, which find out what another spelling
/// of header names would change. They use fresh instances, so that a module with
/// state decides about the fixtures as if they were not there.
pub(super) struct Spelling {
    names: HeaderNames,
    as_sent: Policy,
    as_written: Policy,
}

impl Spelling {
    pub(super) fn new(policy: &Policy) -> Self {
        let beside = |header_names| {
            let mut settings = policy.settings().clone();
            settings.pool.isolation = Isolation::Fresh;
            settings.header_names = header_names;
            Policy::new(Arc::clone(policy.pool().module()), settings)
        };
        let names = policy.settings().header_names;
        Self {
            names,
            as_sent: beside(names),
            as_written: beside(HeaderNames::AsWritten),
        }
    }

    fn hint(&self, event: &Event) -> Option<Hint> {
        let is_upper = |(name, _): (&str, &str)| name.bytes().any(|byte| byte.is_ascii_uppercase());
        if self.names != HeaderNames::Lower || !event.headers().iter().any(is_upper) {
            return None;
        }
        let sent = self.as_sent.handle(event);
        let written = self.as_written.handle(event);
        (written.fault.is_none() && written.response != sent.response).then(|| Hint::Spelling {
            decision: summary(&sent.response),
            as_written: summary(&written.response),
        })
    }
}
