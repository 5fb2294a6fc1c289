//! A transaction as a fixture: what examples show, and what is saved.

mod hooks;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::compare::Played;
use super::play::play_inputs;
use crate::abi::Abi;
use crate::answer::Answer;
use crate::capture::{Found, Redactor, Transaction};
use crate::error::Error;
use crate::event::Event;
use crate::files::{self, Links};
use crate::fixture;
use crate::guest::convention::json_buffer::event::write_input;
use crate::policy::Policy;
use crate::question::HeaderNames;
use crate::question::Question;

/// Which transactions become fixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that changed or faulted.
    Changed,
    /// All.
    All,
}

/// Whose answers the fixtures expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The module's: what it does now is right.
    New,
    /// The baseline's: what changed is to be mended.
    Old,
}

/// Fixtures to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveFixtures {
    /// The folder.
    pub folder: PathBuf,
    /// Which transactions.
    pub which: Which,
    /// Whose answers they expect.
    pub expect: Expect,
}

/// A transaction's events as a fixture's steps, secrets redacted.
struct Written {
    /// The fixture, without expectations.
    value: Value,
    /// What was redacted.
    found: Found,
}

/// Writes events as a fixture that `run` takes.
fn write(events: &[&Event], id: &str, (redactor, mut found): (&Redactor, Found)) -> Written {
    let mut steps = Vec::new();
    let has = |request: bool| {
        events.iter().any(|event| match event {
            Event::RequestHeaders(_) => request,
            Event::ResponseHeaders(_) => !request,
            _ => false,
        })
    };
    for event in events {
        let mut json = Vec::new();
        write_input(event, HeaderNames::AsWritten, &mut json);
        let json = redactor.input(&String::from_utf8_lossy(&json), &mut found);
        let mut input: Map<String, Value> = serde_json::from_str(&json).unwrap_or_default();
        if input.get("correlation_id").and_then(Value::as_str) == Some(id) {
            input.shift_remove("correlation_id");
        }
        if event.chunk_index().is_some() {
            shorten(event, &mut input, (has(true), has(false)));
        }
        steps.push(json!({"event": event.kind().name(), "input": input}));
    }
    let id = found.text(id).into_owned();
    Written {
        value: json!({"correlation_id": id, "steps": steps}),
        found,
    }
}

/// Takes from a body's input what the fixture's earlier steps say.
fn shorten(event: &Event, input: &mut Map<String, Value>, (request, response): (bool, bool)) {
    let is_request = event.kind().is_request();
    let mut gone: Vec<&str> = Vec::new();
    if request {
        gone.extend(["method", "uri", "client_ip"]);
    }
    if request && is_request || response && !is_request {
        gone.push("headers");
    }
    if response {
        gone.push("status");
    }
    for key in gone {
        input.shift_remove(key);
    }
    if input.get("total_size").is_some_and(Value::is_null) {
        input.shift_remove("total_size");
    }
    if input.get("encoding").and_then(Value::as_str) == Some("utf8") {
        input.shift_remove("encoding");
    }
}

/// Reads a fixture back, as `run` would.
fn read(fixture: &Value) -> Result<fixture::Fixture, String> {
    let input = fixture::Input {
        path: PathBuf::from("fixture"),
        document: None,
        bytes: fixture.to_string().into_bytes(),
    };
    fixture::parse(&input).map_err(|error| error.message)
}

/// A fixture's inputs, as `run` would feed them.
fn inputs_of(fixture: &Value) -> Result<Vec<Question<'static>>, String> {
    let steps = read(fixture)?.steps.into_iter();
    Ok(steps.map(|step| Question::from(step.event)).collect())
}

/// Adds to each step what a module answers to it, as expectations.
fn expect(fixture: &mut Value, played: &Played) {
    let Some(steps) = fixture.get_mut("steps").and_then(Value::as_array_mut) else {
        return;
    };
    // What was not reached is not part of the example.
    steps.truncate(played.answered.len().max(1));
    for (step, answered) in steps.iter_mut().zip(&played.answered) {
        let response = serde_json::to_value(&answered.answer).unwrap_or_default();
        let mut expected = Map::new();
        if let Some(fault) = &answered.fault {
            expected.insert("fault".to_owned(), json!({"exact": fault.code.to_string()}));
        }
        expected.insert("exact_response".to_owned(), response);
        step["expect"] = Value::Object(expected);
    }
}

/// A fixture with its expectations, proven: what the redacted transaction
/// really gives is what is expected, and a note says so where it differs.
pub(super) fn fixture(
    transaction: &Transaction<'_>,
    inputs: &[Question<'_>],
    (expected, redactor, known): (&Policy, &Redactor, Found),
    described: &str,
) -> Result<(Value, Vec<String>), String> {
    let made = match expected.abi() {
        Abi::Agent => of_events(transaction, inputs, (expected, redactor, known))?,
        Abi::Hook => hooks::of_contexts(inputs, (expected, redactor, known))?,
    };
    let mut value = Map::new();
    value.insert(
        "name".to_owned(),
        Value::from(made.found.text(&transaction.id)),
    );
    value.insert(
        "description".to_owned(),
        Value::from(made.found.text(described)),
    );
    if let Value::Object(rest) = made.value {
        value.extend(rest);
    }
    Ok((Value::Object(value), made.notes))
}

/// A fixture less its name, and what should be known of it.
struct Made {
    value: Value,
    found: Found,
    notes: Vec<String>,
}

impl Made {
    /// Says so where redacting changed what is answered.
    fn compare(&mut self, original: &Played, played: &Played) {
        let same = original.answered.len() == played.answered.len()
            && original
                .answered
                .iter()
                .zip(&played.answered)
                // As values: a hook that goes on with what another left has
                // its keys in that one's order.
                .all(|(left, right)| {
                    let left = json_of(&left.answer);
                    let left: Value =
                        serde_json::from_str(&self.found.text(&left)).unwrap_or_default();
                    serde_json::to_value(&right.answer).is_ok_and(|right| left == right)
                });
        if !same {
            self.notes.push(format!(
                "redacting {} changes the answer; --keep-secrets shows it as it was",
                self.found.fields.join(", ")
            ));
        }
    }
}

fn of_events(
    transaction: &Transaction<'_>,
    inputs: &[Question<'_>],
    (expected, redactor, known): (&Policy, &Redactor, Found),
) -> Result<Made, String> {
    let events: Vec<&Event> = inputs.iter().filter_map(Question::event).collect();
    let Written { value, found } = write(&events, &transaction.id, (redactor, known));
    let played = play_inputs(expected, &inputs_of(&value)?);
    let mut made = Made {
        value,
        found,
        notes: Vec::new(),
    };
    if !made.found.fields.is_empty() {
        made.compare(&play_inputs(expected, inputs), &played);
    }
    expect(&mut made.value, &played);
    Ok(made)
}

fn json_of(answer: &Answer) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

/// Writes a fixture file, named after its place in the capture.
pub(super) fn save(
    folder: &Path,
    (seq, stem, id): (u64, &str, &str),
    fixture: &Value,
) -> Result<(), Error> {
    let plain: String = format!("{stem}-{id}")
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || matches!(character, '-' | '_') {
                character
            } else {
                '-'
            }
        })
        .take(80)
        .collect();
    let path = folder.join(format!("{seq:06}-{plain}.json"));
    let text = serde_json::to_string_pretty(fixture).unwrap_or_default() + "\n";
    files::write(&path, Links::Replaced, text.as_bytes())
}
