//! JSON in a buffer: the host asks the guest for memory, writes the question
//! there as JSON, calls a handler, and reads the answer's JSON from where the
//! handler says.

pub mod answer;
pub mod event;
pub mod hook;

use std::borrow::Cow;

use crate::question::{HeaderNames, Question};

/// Appends the input JSON. Header names of recorded bytes stay as they are.
pub fn write_input(question: &Question<'_>, names: HeaderNames, out: &mut Vec<u8>) {
    match question {
        Question::Event(event) => event::write_input(event, names, out),
        Question::Hook(_, context) => hook::write_input(context, out),
        Question::Exact { json, .. } => out.extend_from_slice(json),
    }
}

/// The input JSON, header names in lower case.
#[must_use]
pub fn input_json<'a>(question: &'a Question<'_>) -> Cow<'a, str> {
    if let Question::Exact { json, .. } = question {
        return String::from_utf8_lossy(json);
    }
    let mut out = Vec::new();
    write_input(question, HeaderNames::Lower, &mut out);
    String::from_utf8_lossy(&out).into_owned().into()
}
