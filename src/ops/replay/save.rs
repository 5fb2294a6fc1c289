//! A transaction as a fixture: what examples show, and what is saved.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::compare::Played;
use super::play::play_events;
use crate::abi::agent::{HeaderNames, write_input};
use crate::agent::Agent;
use crate::capture::{Found, Redactor, Transaction};
use crate::error::Error;
use crate::event::Event;
use crate::fixture;

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
pub(super) struct Written {
    /// The fixture, without expectations.
    pub(super) value: Value,
    /// What was redacted.
    pub(super) found: Found,
}

/// Writes events as a fixture that `run` takes.
pub(super) fn write(events: &[Event], id: &str, redactor: &Redactor) -> Written {
    let mut found = Found::default();
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

/// Reads a fixture's events back, as `run` would.
pub(super) fn read(fixture: &Value) -> Result<Vec<Event>, String> {
    let input = fixture::Input {
        path: PathBuf::from("fixture"),
        document: None,
        bytes: fixture.to_string().into_bytes(),
    };
    fixture::parse(&input)
        .map(|fixture| fixture.steps.into_iter().map(|step| step.event).collect())
        .map_err(|error| error.message)
}

/// Adds to each step what a module answers to it, as expectations.
pub(super) fn expect(fixture: &mut Value, played: &Played) {
    let Some(steps) = fixture.get_mut("steps").and_then(Value::as_array_mut) else {
        return;
    };
    // What was not reached is not part of the example.
    steps.truncate(played.handled.len().max(1));
    for (step, handled) in steps.iter_mut().zip(&played.handled) {
        let response = serde_json::to_value(&handled.response).unwrap_or_default();
        let mut expected = Map::new();
        if let Some(fault) = &handled.fault {
            expected.insert("fault".to_owned(), json!({"exact": fault.code.to_string()}));
        }
        expected.insert("exact_response".to_owned(), response);
        step["expect"] = Value::Object(expected);
    }
}

/// A fixture with its expectations, proven: what the redacted transaction
/// really gives is what is expected, and a note says so where it differs.
pub(super) fn fixture(
    transaction: &Transaction,
    events: &[Event],
    (expected, redactor): (&Agent, &Redactor),
    described: &str,
) -> Result<(Value, Vec<String>), String> {
    let written = write(events, &transaction.id, redactor);
    let mut notes = Vec::new();
    let again = read(&written.value)?;
    let played = play_events(expected, &again);
    if !written.found.fields.is_empty() {
        let original = play_events(expected, events);
        let same = original.handled.len() == played.handled.len()
            && original
                .handled
                .iter()
                .zip(&played.handled)
                .all(|(left, right)| {
                    written.found.text(&json_of(&left.response)) == json_of(&right.response)
                });
        if !same {
            notes.push(format!(
                "redacting {} changes the answer; --keep-secrets shows it as it was",
                written.found.fields.join(", ")
            ));
        }
    }
    let mut value = Map::new();
    value.insert(
        "name".to_owned(),
        Value::from(written.found.text(&transaction.id)),
    );
    value.insert(
        "description".to_owned(),
        Value::from(written.found.text(described)),
    );
    if let Value::Object(rest) = written.value {
        value.extend(rest);
    }
    let mut value = Value::Object(value);
    expect(&mut value, &played);
    Ok((value, notes))
}

fn json_of(response: &crate::response::AgentResponse) -> String {
    serde_json::to_string(response).unwrap_or_default()
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
    let text = serde_json::to_string_pretty(fixture).unwrap_or_default();
    std::fs::File::create(&path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")
        })
        .map_err(|source| Error::Write { path, source })
}
