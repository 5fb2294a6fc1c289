//! A transaction through a module: its calls in order, up to the one that
//! ends it.

use super::Played;
use crate::abi::Abi;
use crate::capture::Transaction;
use crate::policy::{Policy, Reply};
use crate::question::{HeaderNames, Phase, Question, Timed};

/// Plays a captured transaction. Exact inputs go in byte for byte, unless
/// header names are to be spelled otherwise than they were, or the chunks of a body
/// are to be put together.
///
/// `replies` is room for its answers, from a transaction before.
pub(crate) fn play(subject: &Policy, transaction: &Transaction<'_>, replies: Vec<Reply>) -> Played {
    let respelled =
        subject.abi() == Abi::Agent && subject.settings().header_names != HeaderNames::Lower;
    let is_read_back = |input: &Question<'_>| match (input, input.phase()) {
        (Question::Exact { .. }, Phase::Event(kind)) => respelled || subject.collects_bodies(kind),
        _ => false,
    };
    if transaction
        .steps
        .iter()
        .any(|step| is_read_back(&step.input))
        && let Ok(inputs) = transaction.read_back()
    {
        return asked(subject, inputs.iter().map(Timed::by_ref), replies);
    }
    asked(subject, transaction.timed(), replies)
}

/// Plays them on an instance of their own, as `run` plays a fixture.
pub(crate) fn play_alone<'q, 'a: 'q>(
    subject: &Policy,
    questions: impl Iterator<Item = Timed<&'q Question<'a>>>,
) -> Played {
    asked(&subject.alone(), questions, Vec::new())
}

fn asked<'q, 'a: 'q>(
    subject: &Policy,
    questions: impl Iterator<Item = Timed<&'q Question<'a>>>,
    mut replies: Vec<Reply>,
) -> Played {
    let mut exchange = subject.exchange();
    replies.clear();
    replies.extend(questions.map_while(|timed| exchange.at(timed.at).ask(timed.question)));
    Played { replies }
}
