//! A transaction as a fixture: what examples show, and what is saved.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::compare::Played;
use super::play::play_inputs;
use crate::abi::Abi;
use crate::capture::{Redactor, SecretsFound, Transaction};
use crate::error::Error;
use crate::event::Event;
use crate::files::{self, Links};
use crate::fixture;
use crate::fixture::hook::{ActualHook, whole};
use crate::guest::convention::json_buffer::write_input;
use crate::hook::{Hook, HookContext};
use crate::ops::run::steps::{self, StepReply};
use crate::policy::{Policy, Reply};
use crate::question::{HeaderNames, Question};

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

/// What takes secrets out of a fixture.
pub(super) struct SecretFilter<'a> {
    pub(super) redactor: &'a Redactor,
    /// Those that are known of the transaction.
    pub(super) secrets: SecretsFound,
}

impl SecretFilter<'_> {
    /// The input of a question, header names as they were written.
    fn input(&mut self, question: &Question<'_>) -> String {
        let mut json = Vec::new();
        write_input(question, HeaderNames::AsWritten, &mut json);
        let json = String::from_utf8_lossy(&json);
        self.redactor.input(&json, &mut self.secrets)
    }

    /// Whether both answered alike, but for secrets.
    fn is_same(&self, original: &Played, redacted: Vec<StepReply<'_>>) -> bool {
        let redacted: Vec<Reply> = redacted.into_iter().map(Reply::from).collect();
        let mut both = original.replies.iter().zip(&redacted);
        original.replies.len() == redacted.len()
            // As values: a hook that goes on with what another left has its
            // keys in that one's order.
            && both.all(|(left, right)| {
                let left = serde_json::to_string(&left.answer).unwrap_or_default();
                let left: Value =
                    serde_json::from_str(&self.secrets.text(&left)).unwrap_or_default();
                serde_json::to_value(&right.answer).is_ok_and(|right| left == right)
            })
    }
}

/// A fixture with its expectations, proven: what the redacted transaction
/// really gives is what is expected, and a note says so where it differs.
pub(super) fn fixture(
    transaction: &Transaction<'_>,
    questions: &[Question<'_>],
    (expected, mut filter): (&Policy, SecretFilter<'_>),
    described: &str,
) -> Result<(Value, Vec<String>), String> {
    let mut notes = Vec::new();
    let mut hooks = hooks_of(questions, &mut filter)?;
    let is_pair = matches!(hooks.as_slice(), [(Hook::Before, _), (Hook::After, _), ..]);
    let is_whole = is_pair && hooks.get(1).is_some_and(|(_, after)| after.data.is_some());
    hooks.truncate(if is_whole { 2 } else { 1 });
    let mut value = match expected.abi() {
        Abi::Agent => of_events(questions, &transaction.id, &mut filter),
        Abi::Hook => of_hooks(&hooks),
    };
    let read = read(&value)?;
    let mut replies = steps::ask(expected, &read);
    if is_pair && !goes_on(&replies, &hooks) {
        if matches!(replies.first(), Some(StepReply::Hook { handled, .. }) if handled.result.ok) {
            notes.push(
                "the after_hook was recorded with a context that before_hook does not produce, so the fixture has only the before_hook".to_owned(),
            );
        }
        replies.truncate(1);
        hooks.truncate(1);
        value = of_hooks(&hooks);
    }
    expect(&mut value, &replies);
    if !filter.secrets.fields.is_empty() {
        let asked = questions.get(..replies.len()).unwrap_or(questions);
        if !filter.is_same(&play_inputs(expected, asked), replies) {
            notes.push(format!(
                "redacting {} changes the answer; --keep-secrets shows it as it was",
                filter.secrets.fields.join(", ")
            ));
        }
    }
    let text = |text: &str| Value::from(filter.secrets.text(text));
    let mut whole = Map::new();
    whole.insert("name".to_owned(), text(&transaction.id));
    whole.insert("description".to_owned(), text(described));
    if let Value::Object(rest) = value {
        whole.extend(rest);
    }
    Ok((Value::Object(whole), notes))
}

/// Events as the steps of a fixture that `run` takes, without expectations.
fn of_events(questions: &[Question<'_>], id: &str, filter: &mut SecretFilter<'_>) -> Value {
    let events: Vec<&Event> = questions.iter().filter_map(Question::event).collect();
    let has = |request: bool| {
        events.iter().any(|event| match event {
            Event::RequestHeaders(_) => request,
            Event::ResponseHeaders(_) => !request,
            _ => false,
        })
    };
    let mut steps = Vec::new();
    for &event in &events {
        let json = filter.input(&event.into());
        let mut input: Map<String, Value> = serde_json::from_str(&json).unwrap_or_default();
        if input.get("correlation_id").and_then(Value::as_str) == Some(id) {
            input.shift_remove("correlation_id");
        }
        if event.chunk_index().is_some() {
            shorten(event, &mut input, (has(true), has(false)));
        }
        steps.push(json!({"event": event.kind().name(), "input": input}));
    }
    json!({"correlation_id": filter.secrets.text(id), "steps": steps})
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

/// Hooks with what they are called with.
fn hooks_of(
    questions: &[Question<'_>],
    filter: &mut SecretFilter<'_>,
) -> Result<Vec<(Hook, HookContext)>, String> {
    let mut hooks = Vec::new();
    for question in questions {
        if let Question::Hook(hook, _) = question {
            let context = serde_json::from_str(&filter.input(question));
            hooks.push((*hook, context.map_err(|error| error.to_string())?));
        }
    }
    Ok(hooks)
}

/// One hook, or both where the second goes on with what the first left, as a
/// fixture without expectations.
fn of_hooks(hooks: &[(Hook, HookContext)]) -> Value {
    match hooks {
        [(_, context), (_, after), ..] => {
            json!({"context": context, "before": {}, "after": {"data": after.data}})
        }
        [(hook, context)] => json!({"hook": hook.name(), "context": context}),
        [] => Value::Null,
    }
}

/// Whether the second hook was recorded with what the first leaves.
fn goes_on(replies: &[StepReply<'_>], hooks: &[(Hook, HookContext)]) -> bool {
    match (replies.get(1), hooks.get(1)) {
        (Some(StepReply::Hook { before, .. }), Some((_, recorded))) => **before == *recorded,
        _ => false,
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

/// Adds to each step what a module answers to it, as expectations.
fn expect(fixture: &mut Value, replies: &[StepReply<'_>]) {
    if let Some(steps) = fixture.get_mut("steps").and_then(Value::as_array_mut) {
        // What was not reached is not part of the example.
        steps.truncate(replies.len().max(1));
    }
    let is_pair = fixture.get("after").is_some();
    for (index, reply) in replies.iter().enumerate() {
        let (place, expected) = match reply {
            StepReply::Event { handled, .. } => {
                let mut expected = json!({});
                if let Some(fault) = &handled.fault {
                    expected["fault"] = json!({"exact": fault.code.to_string()});
                }
                expected["exact_response"] = json!(handled.response);
                (format!("/steps/{index}"), expected)
            }
            StepReply::Hook { handled, .. } => {
                let expected = whole(ActualHook {
                    result: &handled.result,
                    context: &handled.context,
                    ignored: &handled.ignored,
                    fault: handled.fault.as_ref(),
                    cost: handled.cost.as_ref(),
                });
                let place = match (is_pair, index) {
                    (false, _) => "",
                    (true, 0) => "/before",
                    (true, _) => "/after",
                };
                (place.to_owned(), expected)
            }
        };
        if let Some(step) = fixture.pointer_mut(&place) {
            step["expect"] = expected;
        }
    }
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
