//! Whether a module decides about other inputs as it did about those of a
//! transaction: what redacting asks before it writes.

use std::borrow::Cow;

use super::{Given, Played, compare, differ, play};
use crate::capture::{CapturedStep, Heard, Redactor, SecretsFound, Transaction};
use crate::fault::FaultCode;
use crate::policy::Policy;
use crate::question::Question;

/// A transaction that was answered, and its module.
pub(crate) struct DecisionCheck<'a, F> {
    policy: &'a Policy,
    transaction: &'a Transaction<'a>,
    /// Whether these answers are the ones of the time: an instance that was asked
    /// before, or another clock, may have led to those.
    are_as_they_were: F,
    /// What a new instance answers to it; nothing before it was asked.
    answered: Option<Option<Played>>,
}

impl<'a, F: Fn(&Played) -> bool> DecisionCheck<'a, F> {
    pub(crate) const fn new(
        policy: &'a Policy,
        transaction: &'a Transaction<'a>,
        are_as_they_were: F,
    ) -> Self {
        Self {
            policy,
            transaction,
            are_as_they_were,
            answered: None,
        }
    }

    /// Asks about these inputs in the place of its own, in their order; the others
    /// tell what was redacted in them, and how.
    pub(crate) fn ask<'i>(
        &mut self,
        inputs: impl Iterator<Item = &'i str>,
        redacted: (&Redactor, &SecretsFound),
    ) -> Heard {
        let ask = |transaction: &Transaction<'_>| {
            let played = play(&self.policy.alone(), transaction, Vec::new());
            Some(played).filter(|played| !is_late(played))
        };
        let answered = self.answered.get_or_insert_with(|| {
            let played = ask(self.transaction);
            played.filter(|played| (self.are_as_they_were)(played))
        });
        let Some(answered) = answered else {
            return Heard::Nothing;
        };
        let steps = self.transaction.steps.iter().zip(inputs);
        let steps = steps.map(|(step, input)| CapturedStep {
            input: Question::Exact {
                phase: step.input.phase(),
                chunk_index: step.input.chunk_index(),
                json: Cow::Borrowed(input.as_bytes()),
            },
            at_ns: step.at_ns,
            recorded: None,
        });
        let other = Transaction {
            place: self.transaction.place.clone(),
            id: Cow::Borrowed(&self.transaction.id),
            steps: steps.collect(),
            expect: None,
            remarks: Vec::new(),
        };
        let Some(played) = ask(&other) else {
            return Heard::Nothing;
        };
        let is_same = match compare(answered, &played, &[]) {
            None => true,
            Some(change) if change.is_other_end() => false,
            // What echoes a secret echoes its stand-in now.
            Some(_) => {
                let old = redacted_answers(answered, redacted);
                differ(old, &redacted_answers(&played, redacted), &[]).is_none()
            }
        };
        if is_same { Heard::Same } else { Heard::Other }
    }
}

/// Its answers as they are written, given the secrets of its input.
fn redacted_answers(played: &Played, (redactor, found): (&Redactor, &SecretsFound)) -> Vec<Given> {
    let mut found = found.clone();
    let mut answers = played.given();
    for answer in &mut answers {
        let text = redactor.output(&answer.value.to_string(), &mut found);
        answer.value = serde_json::from_str(&text).unwrap_or_default();
    }
    answers
}

fn is_late(played: &Played) -> bool {
    let mut faults = played.replies.iter().filter_map(|it| it.fault.as_ref());
    faults.any(|fault| fault.code == FaultCode::Deadline)
}
