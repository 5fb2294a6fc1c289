//! A transaction as a fixture: what examples show, and what is saved. No fixture
//! is made without `run`'s own words on it: it was played, on both sides where
//! there are two, and showed what it is filed under.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::proof::{Calls, Claim, phases_of};
use super::view::View;
use crate::capture::{Redactor, SecretsFound};
use crate::compare::{Given, Played, fault_of, play_alone, recorded_answers};
use crate::error::Error;
use crate::event::Event;
use crate::files::{self, Links};
use crate::fixture;
use crate::fixture::hook::{ActualHook, whole, whole_of};
use crate::guest::convention::json_buffer::write_input;
use crate::guest::wasi::FIXED_TIME;
use crate::hook::{Hook, HookContext};
use crate::ops::run::steps::{self, StepReply};
use crate::policy::{Policy, Reply};
use crate::question::{HeaderNames, Question, Timed};
use crate::time;

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
    /// The baseline's, without one the recorded ones: what changed is to be
    /// mended.
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

    /// What is expected of a step: the answer may echo a secret.
    fn expected(&mut self, mut expected: Value) -> Value {
        for (key, value) in expected.as_object_mut().into_iter().flatten() {
            let is_context = matches!(key.as_str(), "ctx" | "exact_ctx");
            let whole = match key.as_str() {
                "exact_response" => value.take(),
                _ if is_context => json!({"ctx": value.take()}),
                _ => json!({"details": value.take()}),
            };
            let text = self.redactor.output(&whole.to_string(), &mut self.secrets);
            let mut whole: Value = serde_json::from_str(&text).unwrap_or_default();
            *value = match key.as_str() {
                "exact_response" => whole,
                _ if is_context => whole["ctx"].take(),
                _ => whole["details"].take(),
            };
        }
        expected
    }
}

/// Calls that become a fixture.
#[derive(Clone, Copy)]
pub(super) struct Asked<'q> {
    /// Those of earlier transactions, which come first.
    pub(super) earlier: &'q [Timed<Question<'static>>],
    /// Those of the transaction.
    pub(super) questions: &'q [Timed<Question<'static>>],
}

impl Asked<'_> {
    /// Makes them on an instance of their own, as `run` does with a fixture of
    /// them.
    pub(super) fn calls(self) -> Calls<impl Fn(&Policy) -> Option<Played>> {
        Calls {
            phases: phases_of(self.questions),
            first: 0,
            play: move |subject: &Policy| {
                let all = self.earlier.iter().chain(self.questions);
                from(
                    play_alone(subject, all.map(Timed::by_ref)).replies,
                    self.earlier.len(),
                )
            },
        }
    }
}

/// The answers behind those to the first calls, if there are any.
fn from(mut replies: Vec<Reply>, first: usize) -> Option<Played> {
    (replies.len() > first).then(|| Played {
        replies: replies.split_off(first),
    })
}

/// What a fixture is to show.
pub(super) struct Purpose<'a> {
    pub(super) claim: Claim<'a>,
    pub(super) expects: Expects<'a>,
    /// The module that does not answer what is expected.
    pub(super) differs: Option<&'a Policy>,
}

/// The answers that a fixture expects.
#[derive(Clone, Copy)]
pub(super) enum Expects<'a> {
    /// What this module answers.
    Of(&'a Policy),
    /// What was answered at the time.
    Recorded(&'a [Given]),
}

/// A fixture that was tried: with the answers that it expects, and as its
/// purpose says. Nothing where its calls do not show that without their secrets,
/// or `run` could not tell.
pub(super) fn fixture(
    view: &View<'_>,
    asked: Asked<'_>,
    (purpose, mut filter): (&Purpose<'_>, SecretFilter<'_>),
    described: &str,
) -> Result<Option<Value>, String> {
    let id = &view.transaction.id;
    let mut can_fail = None;
    for draft in Draft::all(asked, id, &mut filter)? {
        let is_recorded = matches!(purpose.claim, Claim::Answers(_));
        if is_recorded && !draft.goes_on_as_recorded(view, &mut filter)
            || !purpose.claim.holds(view, &draft.calls())
        {
            continue;
        }
        let expected = draft.expected(purpose.expects, &mut filter);
        let expects_something = draft.expects(&expected, &purpose.claim);
        can_fail = can_fail.max(Some(expects_something));
        if !expects_something {
            continue;
        }
        let text = |text: &str| Value::from(filter.secrets.text(text));
        // The module that differs may go on where the expected answers end.
        for steps in [expected.len().max(1), usize::MAX] {
            let mut whole = Map::new();
            whole.insert("name".to_owned(), text(id));
            whole.insert("description".to_owned(), text(described));
            if let Value::Object(rest) = draft.with(&expected, steps) {
                whole.extend(rest);
            }
            let value = Value::Object(whole);
            let whole = Draft {
                fixture: read(&value)?,
                value,
                phases: draft.phases.clone(),
                inputs: None,
                ..draft
            };
            if purpose.claim.holds(view, &whole.calls()) && purpose.is_served(&whole.fixture) {
                return Ok(Some(whole.value));
            }
        }
    }
    if can_fail == Some(false) {
        return Err(
            "the module has no handler for it, so a fixture could expect nothing".to_owned(),
        );
    }
    Ok(None)
}

impl Purpose<'_> {
    /// Whether `run` passes the fixture where it should, and only there.
    fn is_served(&self, fixture: &fixture::Fixture) -> bool {
        let are_met = |policy: &Policy| {
            let replies = steps::ask(&policy.alone(), fixture);
            steps::are_met(&replies, fixture)
        };
        let passes = match self.expects {
            Expects::Of(policy) => are_met(policy),
            Expects::Recorded(_) => true,
        };
        passes && self.differs.is_none_or(|policy| !are_met(policy))
    }
}

/// Calls as a fixture without expectations.
struct Draft {
    value: Value,
    fixture: fixture::Fixture,
    phases: Vec<&'static str>,
    /// How many calls of the transaction are left out before its own.
    first: usize,
    /// How many of its steps are calls of earlier transactions.
    earlier: usize,
    /// Of a pair of hooks, what each was called with.
    inputs: Option<[Map<String, Value>; 2]>,
}

impl Draft {
    /// All ways to write them, the one with most of them first.
    fn all(asked: Asked<'_>, id: &str, filter: &mut SecretFilter<'_>) -> Result<Vec<Self>, String> {
        let draft = |value: Value, phases: &[&'static str], (first, earlier)| {
            Ok::<_, String>(Self {
                fixture: read(&value)?,
                value,
                phases: phases.to_vec(),
                first,
                earlier,
                inputs: None,
            })
        };
        let phases = phases_of(asked.questions);
        let hooks = hooks_of(asked.questions, filter)?;
        if hooks.is_empty() {
            let value = of_events(asked, id, filter);
            return Ok(vec![draft(value, &phases, (0, asked.earlier.len()))?]);
        }
        let mut all = Vec::new();
        // A pair has one user, one tenant and the same headers.
        if let [first, second, ..] = hooks.as_slice()
            && let ((Hook::Before, before), (Hook::After, after)) =
                (&first.question, &second.question)
            && after.data.is_some()
            && (&before.user, &before.headers) == (&after.user, &after.headers)
            && before.tenant_id == after.tenant_id
        {
            let pair = of_hooks(&hooks[..2]);
            all.push(Self {
                inputs: Some([before.input.clone(), after.input.clone()]),
                ..draft(pair, &phases[..2], (0, 0))?
            });
        }
        for (at, hook) in hooks.chunks(1).enumerate() {
            all.push(draft(of_hooks(hook), &phases[at..=at], (at, 0))?);
        }
        Ok(all)
    }

    /// Whether the fixture can fail for what it is to show: something is expected in
    /// each phase that has to be among its calls, or anywhere if none has to.
    fn expects(&self, expected: &[Value], claim: &Claim<'_>) -> bool {
        let own = expected.iter().skip(self.earlier);
        let mut all = self.phases.iter().zip(own);
        match claim {
            Claim::Answers(answers) if !answers.needed.is_empty() => {
                let mut needed = answers.needed.iter();
                needed.all(|phase| all.clone().any(|(own, it)| own == phase && !it.is_null()))
            }
            _ => all.any(|(_, it)| !it.is_null()),
        }
    }

    /// What is expected of each step. Those of earlier transactions are there to
    /// be passed.
    fn expected(&self, expects: Expects<'_>, filter: &mut SecretFilter<'_>) -> Vec<Value> {
        let allowed = (0..self.earlier).map(|_| json!({"decision": "allow"}));
        match expects {
            Expects::Of(policy) => {
                let replies = steps::ask(&policy.alone(), &self.fixture);
                let expected = |(index, reply): (usize, &StepReply<'_>)| {
                    if !reply.is_answered() || reply.is_collected() {
                        // Of a handler that the module lacks nothing can be expected,
                        // nor of what we answer in its place.
                        Value::Null
                    } else if index < self.earlier {
                        json!({"decision": "allow"})
                    } else {
                        filter.expected(expected_of(reply))
                    }
                };
                replies.iter().enumerate().map(expected).collect()
            }
            Expects::Recorded(answers) => {
                let mut expected: Vec<Value> = allowed.collect();
                let mut context = self.value.get("context").cloned();
                for answer in answers {
                    let Some(index) = answer.step.checked_sub(self.first) else {
                        continue;
                    };
                    let text = answer.value.to_string();
                    let text = filter.redactor.output(&text, &mut filter.secrets);
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(context) = &mut context {
                        self.go_on(context, (index, &answer));
                    }
                    // Of a step that was not recorded nothing is expected.
                    expected.resize(self.earlier + index, Value::Null);
                    expected.push(expected_of_record(&answer, context.as_ref()));
                }
                expected
            }
        }
    }

    /// The context that the host goes on with after this hook of the draft.
    fn go_on(&self, context: &mut Value, (index, answer): (usize, &Value)) {
        let data = (index > 0).then(|| self.value.pointer("/after/data"));
        if let Some(data) = data.flatten() {
            context["data"] = data.clone();
        }
        if let Some(left) = answer.get("ctx").filter(|left| !left.is_null()) {
            context.clone_from(left);
        }
    }

    /// Whether the second of two hooks was called with what the first left when they
    /// were recorded: in a fixture of both it is.
    fn goes_on_as_recorded(&self, view: &View<'_>, filter: &mut SecretFilter<'_>) -> bool {
        let Some([input, second]) = &self.inputs else {
            return true;
        };
        let answers = recorded_answers(view.transaction);
        let Some(first) = answers.first().filter(|answer| answer.step == 0) else {
            return true;
        };
        let text = first.value.to_string();
        let text = filter.redactor.output(&text, &mut filter.secrets);
        let first: Value = serde_json::from_str(&text).unwrap_or_default();
        let left = first.pointer("/ctx/input").and_then(Value::as_object);
        left.unwrap_or(input) == second
    }

    /// The fixture with so many of its steps, and what is expected of them.
    fn with(&self, expected: &[Value], steps: usize) -> Value {
        let mut fixture = self.value.clone();
        if let Some(all) = fixture.get_mut("steps").and_then(Value::as_array_mut) {
            all.truncate(steps);
        }
        let is_pair = fixture.get("after").is_some();
        let expected = expected.iter().enumerate();
        for (index, expected) in expected.filter(|(_, expected)| !expected.is_null()) {
            let place = match (fixture.get("steps"), is_pair, index) {
                (Some(_), ..) => format!("/steps/{index}"),
                (None, false, 0) => String::new(),
                (None, true, 0) => "/before".to_owned(),
                (None, true, 1) => "/after".to_owned(),
                (None, ..) => break,
            };
            if let Some(step) = fixture.pointer_mut(&place) {
                step["expect"] = expected.clone();
            }
        }
        fixture
    }

    /// Makes them on an instance of their own.
    fn calls(&self) -> Calls<impl Fn(&Policy) -> Option<Played>> {
        Calls {
            phases: self.phases.clone(),
            first: self.first,
            play: |subject: &Policy| {
                let replies = steps::ask(&subject.alone(), &self.fixture);
                from(replies.into_iter().map(Reply::from).collect(), self.earlier)
            },
        }
    }
}

/// Events as the steps of a fixture that `run` takes, without expectations.
fn of_events(asked: Asked<'_>, id: &str, filter: &mut SecretFilter<'_>) -> Value {
    let all = || asked.earlier.iter().chain(asked.questions);
    if !asked.earlier.is_empty() {
        // What is a secret of one of them is hidden in all.
        for asked in all() {
            filter.input(&asked.question);
        }
        filter.secrets = filter.secrets.known();
    }
    let mut heads = Heads::default();
    let mut steps = Vec::new();
    // A step has the id of the one before, unless it has one of its own.
    let mut known = Value::from(id);
    let mut now = None;
    for (at, event) in all().filter_map(|asked| Some((asked.at, asked.question.event()?))) {
        let json = filter.input(&event.into());
        let mut input: Map<String, Value> = serde_json::from_str(&json).unwrap_or_default();
        heads.shorten(event, &mut input);
        match input.get("correlation_id") {
            Some(own) if *own != known => known = own.clone(),
            _ => drop(input.shift_remove("correlation_id")),
        }
        let mut step = json!({"event": event.kind().name(), "input": input});
        set_time(&mut step, (at, &mut now));
        steps.push(step);
    }
    json!({"correlation_id": filter.secrets.text(id), "steps": steps})
}

/// Says when a step is asked, where that is not when the one before was.
fn set_time(step: &mut Value, (at, now): (Option<SystemTime>, &mut Option<SystemTime>)) {
    if *now != at {
        let fixed = UNIX_EPOCH + FIXED_TIME;
        step["now"] = json!(time::text(at.unwrap_or(fixed)));
        *now = at;
    }
}

/// Inputs of the heads so far, which a fixture's body steps need not repeat.
#[derive(Default)]
struct Heads {
    request: Map<String, Value>,
    response: Map<String, Value>,
}

impl Heads {
    /// Takes from a body's input what an earlier step says. Of each head all
    /// that a body repeats or nothing: with a part of it the rest is not filled
    /// in.
    fn shorten(&mut self, event: &Event, input: &mut Map<String, Value>) {
        let (of_request, of_response): (&[&str], &[&str]) = match event {
            Event::RequestHeaders(_) => {
                self.request.clone_from(input);
                return;
            }
            Event::ResponseHeaders(_) => {
                self.response.clone_from(input);
                return;
            }
            Event::RequestBody { .. } => (&["method", "uri", "client_ip", "headers"], &[]),
            Event::ResponseBody { .. } => (&["method", "uri", "client_ip"], &["status", "headers"]),
        };
        for (keys, head) in [(of_request, &self.request), (of_response, &self.response)] {
            let mut both = keys.iter().map(|key| (input.get(*key), head.get(*key)));
            if both.all(|(here, there)| here.is_some() && here == there) {
                keys.iter().for_each(|key| {
                    input.shift_remove(*key);
                });
            }
        }
        if input.get("encoding").and_then(Value::as_str) == Some("utf8") {
            input.shift_remove("encoding");
        }
    }
}

/// Hooks with what they are called with.
fn hooks_of(
    questions: &[Timed<Question<'_>>],
    filter: &mut SecretFilter<'_>,
) -> Result<Vec<Timed<(Hook, HookContext)>>, String> {
    let mut hooks = Vec::new();
    for Timed { at, question } in questions {
        if let Question::Hook(hook, _) = question {
            let context = serde_json::from_str(&filter.input(question));
            let context = context.map_err(|error| error.to_string())?;
            let (at, question) = (*at, (*hook, context));
            hooks.push(Timed { at, question });
        }
    }
    Ok(hooks)
}

/// One hook, or both where the second goes on with what the first left, as a
/// fixture without expectations.
fn of_hooks(hooks: &[Timed<(Hook, HookContext)>]) -> Value {
    let Some((first, rest)) = hooks.split_first() else {
        return Value::Null;
    };
    let (hook, context) = &first.question;
    let mut now = None;
    let mut fixture = match rest.first() {
        None => json!({"hook": hook.name(), "context": context}),
        Some(_) => json!({"context": context, "before": {}}),
    };
    set_time(&mut fixture, (first.at, &mut now));
    if let Some(second) = rest.first() {
        fixture["after"] = json!({"data": second.question.1.data});
        set_time(&mut fixture["after"], (second.at, &mut now));
    }
    fixture
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

/// All of what a module answered to a step.
fn expected_of(reply: &StepReply<'_>) -> Value {
    match reply {
        StepReply::Event { handled, .. } => {
            let mut expected = json!({});
            if let Some(fault) = &handled.fault {
                expected["fault"] = json!({"exact": fault.code.to_string()});
            }
            expected["exact_response"] = json!(handled.response);
            expected
        }
        StepReply::Hook { handled, .. } => whole(ActualHook {
            result: &handled.result,
            context: &handled.context,
            ignored: &handled.ignored,
            fault: handled.fault.as_ref(),
            cost: handled.cost.as_ref(),
        }),
    }
}

/// All of what was recorded of an answer; of a hook with the context that the
/// host went on with.
fn expected_of_record(answer: &Value, context: Option<&Value>) -> Value {
    let mut expected = match context {
        Some(context) => whole_of(answer, context.clone()),
        None => json!({"exact_response": answer}),
    };
    if let Some(fault) = fault_of(answer) {
        expected["fault"] = json!({"exact": fault});
    }
    expected
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

#[cfg(test)]
#[path = "save_tests.rs"]
mod tests;
