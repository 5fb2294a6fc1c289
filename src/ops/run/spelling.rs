//! Whether a decision changes when header names are spelled otherwise, and whether
//! one depends on what its instance was asked before.

use std::sync::Arc;

use super::report::{Hint, StepResult, summary};
use crate::fault::{Fault, FaultCode};
use crate::fixture::{Fixture, Step};
use crate::limits::Isolation;
use crate::policy::Policy;
use crate::policy::bodies::replaces_body;
use crate::question::HeaderNames;

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

    /// Asks about each step on an instance of its own. Says where the answer is another
    /// one, for the first step that has one.
    pub(super) fn instance_hint(&self, fixture: &Fixture, results: &mut [StepResult]) {
        if fixture.steps.len() < 2 {
            return;
        }
        let mut answers = results.iter().filter_map(|result| result.response.as_ref());
        let replaces = answers.any(|response| replaces_body(response));
        let mut exchange = self.as_sent.exchange();
        for (at, (step, result)) in fixture.steps.iter().zip(results).enumerate() {
            let (Some(alone), Some(response)) =
                (exchange.at(step.now).handle(&step.event), &result.response)
            else {
                return;
            };
            let is_late = |fault: &Fault| fault.code == FaultCode::Deadline;
            let faults = [&alone.fault, &result.fault];
            if faults.into_iter().flatten().any(is_late) {
                return;
            }
            if !response.tells_the_same(&alone.response) {
                // Whole bodies cannot be replaced where they come in several chunks.
                let may_be_whole = step.event.chunk_index().is_some() && !replaces;
                let alone = summary(&alone.response);
                // The first step has no step before it in its exchange.
                let hint = Hint::DependsOnInstance {
                    alone,
                    may_be_whole,
                };
                result.hints.extend((at > 0).then_some(hint));
                return;
            }
        }
    }

    pub(super) fn hint(&self, step: &Step) -> Option<Hint> {
        let is_upper = |(name, _): (&str, &str)| name.bytes().any(|byte| byte.is_ascii_uppercase());
        if self.names != HeaderNames::Lower || !step.event.headers().iter().any(is_upper) {
            return None;
        }
        let ask = |policy: &Policy| policy.exchange().at(step.now).handle(&step.event);
        let (sent, written) = (ask(&self.as_sent)?, ask(&self.as_written)?);
        (written.fault.is_none() && !written.response.tells_the_same(&sent.response)).then(|| {
            Hint::Spelling {
                decision: summary(&sent.response),
                as_written: summary(&written.response),
            }
        })
    }
}
