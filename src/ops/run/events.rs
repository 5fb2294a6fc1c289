//! Fixtures of events: each through the agent, as far as one refuses.

use std::sync::Arc;

use super::report::{Hint, StepResult, summary};
use super::{RunSettings, not_reached};
use crate::event::Event;
use crate::fixture::{Actual, Fixture, Step, expect};
use crate::limits::Isolation;
use crate::ops::exchange::Exchange;
use crate::policy::agent::{Agent, Handled};
use crate::proxy;
use crate::question::HeaderNames;
use crate::report::CaseStatus;

/// Feeds each event in turn, up to the one that ends the exchange.
pub(super) fn run(
    desk: &AgentDesk<'_>,
    fixture: &Fixture,
    settings: &RunSettings,
) -> Vec<StepResult> {
    let mut steps: Vec<StepResult> = Vec::new();
    for round in 1..=settings.repeat {
        let mut exchange = Exchange::default();
        for (index, step) in fixture.steps.iter().enumerate() {
            let handled = exchange.ask(|| desk.agent.handle(&step.event));
            match (steps.get_mut(index), handled) {
                (None, Some(handled)) => steps.push(judge(desk, step, handled)),
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

fn judge(desk: &AgentDesk<'_>, step: &Step, handled: Handled) -> StepResult {
    let actual = Actual {
        response: &handled.response,
        fault: handled.fault.as_ref(),
        cost: handled.cost.as_ref(),
    };
    let mismatches = expect::check(step.expect.as_ref(), actual);
    let hints = hints(desk, &step.event, &handled);
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

fn hints(desk: &AgentDesk<'_>, event: &Event, handled: &Handled) -> Vec<Hint> {
    let mut hints = Vec::new();
    if handled.fault.is_none() {
        hints.extend(desk.spelling(event));
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

/// The agent under test, and two beside it that find out what a spelling of
/// header names would change. They use fresh instances, so that a module with
/// state decides about the fixtures as if they were not there.
pub(super) struct AgentDesk<'a> {
    agent: &'a Agent,
    as_sent: Agent,
    as_written: Agent,
}

impl<'a> AgentDesk<'a> {
    pub(super) fn new(agent: &'a Agent) -> Self {
        let beside = |header_names| {
            let mut settings = agent.settings().clone();
            settings.pool.isolation = Isolation::Fresh;
            settings.header_names = header_names;
            Agent::new(Arc::clone(agent.pool().module()), settings)
        };
        Self {
            agent,
            as_sent: beside(agent.settings().header_names),
            as_written: beside(HeaderNames::AsWritten),
        }
    }

    fn spelling(&self, event: &Event) -> Option<Hint> {
        let is_upper = |(name, _): (&str, &str)| name.bytes().any(|byte| byte.is_ascii_uppercase());
        if self.agent.settings().header_names != HeaderNames::Lower
            || !event.headers().iter().any(is_upper)
        {
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
