//! JSON in a buffer: the host asks the guest for memory, writes the question
//! there as JSON, calls a handler, and reads the answer's JSON from where the
//! handler says.

pub(crate) mod answer;
pub(crate) mod event;
pub(crate) mod exports;
pub(crate) mod guest;
pub(crate) mod hook;

use std::borrow::Cow;

use self::answer::{AnswerPolicy, check_answer};
use self::hook::check_result;
use super::Checked;
use crate::answer::Answer;
use crate::fault::Fault;
use crate::question::{HeaderNames, Phase, Question};

/// Appends the input JSON. Header names of recorded bytes stay as they are.
pub(crate) fn write_input(question: &Question<'_>, names: HeaderNames, out: &mut Vec<u8>) {
    match question {
        Question::Event(event) => event::write_input(event, names, out),
        Question::Hook(_, context) => hook::write_input(context, out),
        Question::Exact { json, .. } => out.extend_from_slice(json),
    }
}

/// The input JSON, header names in lower case.
#[must_use]
pub(crate) fn input_json<'a>(question: &'a Question<'_>) -> Cow<'a, str> {
    if let Question::Exact { json, .. } = question {
        return String::from_utf8_lossy(json);
    }
    let mut out = Vec::new();
    write_input(question, HeaderNames::Lower, &mut out);
    String::from_utf8_lossy(&out).into_owned().into()
}

/// Checks the bytes of an answer to this question.
///
/// # Errors
/// A [`Fault`] of code `bad-answer:…` that names the JSON path.
pub(crate) fn check(
    question: &Question<'_>,
    bytes: &[u8],
    policy: &AnswerPolicy,
) -> Result<Checked, Fault> {
    match question.phase() {
        Phase::Event(kind) => {
            let checked = check_answer(bytes, kind, question.chunk_index(), policy)?;
            Ok(Checked {
                answer: Answer::Response(checked.response),
                unknown_keys: checked.unknown_keys,
            })
        }
        Phase::Hook(_) => {
            let checked = check_result(bytes)?;
            Ok(Checked {
                answer: Answer::Result(Box::new(checked.result)),
                unknown_keys: checked.unknown_keys,
            })
        }
    }
}
