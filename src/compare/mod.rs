//! Captured transactions, asked about again: whether, where and how two answers to
//! the same one differ.

mod decision_check;
mod ignore;
mod play;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use decision_check::DecisionCheck;
pub(crate) use ignore::Pointer;
use ignore::strip;
pub(crate) use play::{play, play_alone};

use crate::answer::{Answer, hook_decision, is_hook_result, to_proxy_view};
use crate::capture::Transaction;
use crate::event::EventKind;
use crate::hook::TRAPPED;
use crate::json;
use crate::policy::Reply;
use crate::policy::decision::FailurePolicy;
use crate::protocol::outgoing::Recipient;
use crate::question::Phase;

named! {
    /// How a transaction came out beside what it is compared with.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Category {
        /// The module faults, and not as the other side did. Where only the other
        /// side faulted, its decision is compared like any other.
        Faulted => "faulted",
        /// Another decision.
        Decision => "decision changed",
        /// The same decision with another status, body, header or tag.
        Details => "details changed",
        /// Equal.
        Unchanged => "unchanged",
    }
}

/// How a transaction ended, in short: what groups of changes are made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Summary {
    /// The decision with its status, such as `block 403`.
    pub decision: String,
    /// Tags of all its answers.
    pub tags: Vec<String>,
    /// Rules that fired.
    pub rule_ids: Vec<String>,
    /// What the guest did wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
}

/// What one module made of a transaction.
#[derive(Debug)]
pub(crate) struct Played {
    /// Its answers, up to the one that ended it.
    pub(crate) replies: Vec<Reply>,
}

impl Played {
    pub(crate) fn fuel(&self) -> u64 {
        self.costs().filter_map(|cost| cost.fuel).sum()
    }

    pub(crate) fn time_ns(&self) -> u64 {
        self.costs()
            .map(crate::cost::Cost::time_ns)
            .fold(0, u64::saturating_add)
    }

    fn costs(&self) -> impl Iterator<Item = &crate::cost::Cost> {
        self.replies.iter().filter_map(|reply| reply.cost.as_ref())
    }

    /// What its instance had answered before.
    pub(crate) fn calls_before(&self) -> u64 {
        self.costs().next().map_or(0, |cost| cost.calls_before)
    }

    pub(crate) fn has_fault(&self) -> bool {
        self.replies.iter().any(|reply| reply.fault.is_some())
    }

    /// Whether the module was asked anything: it may have no handler for any of it.
    pub(crate) fn is_asked(&self) -> bool {
        let mut replies = self.replies.iter();
        replies.any(|reply| reply.cost.is_some() || reply.fault.is_some())
    }

    /// Whether the module was to get a body whole, and its last chunk never came.
    pub(crate) fn has_unfinished_body(&self, transaction: &Transaction<'_>) -> bool {
        let is_over = self.replies.last().is_some_and(Reply::ends);
        let last = |kind: EventKind| {
            let asked = transaction.steps.iter().zip(&self.replies);
            let mut bodies = asked.rev().map(|(step, reply)| (step.input.phase(), reply));
            bodies.find(|(phase, _)| *phase == Phase::Event(kind))
        };
        let kinds = [EventKind::RequestBody, EventKind::ResponseBody];
        let mut last = kinds.into_iter().filter_map(last);
        !is_over && last.any(|(_, reply)| reply.is_collected)
    }

    /// Its answers, each with its step.
    pub(crate) fn given(&self) -> Vec<Given> {
        self.replies.iter().enumerate().map(Given::now).collect()
    }

    /// The same with all digits of all numbers, as only answers of now have them.
    fn with_all_digits(&self) -> Vec<Given> {
        let mut answers = self.given();
        for (answer, reply) in answers.iter_mut().zip(&self.replies) {
            if let Some(Value::Object(parts)) = all_digits(reply) {
                let mut ctx = answer.value["ctx"].take();
                for (key, value) in parts {
                    ctx[key] = value.clone();
                }
                answer.value["ctx"] = ctx;
            }
        }
        answers
    }

    /// Whether an answer has a number whose digits get lost.
    pub(crate) fn is_rounded(&self) -> bool {
        self.replies.iter().any(|reply| all_digits(reply).is_some())
    }

    pub(crate) fn values(&self) -> Vec<Value> {
        self.replies.iter().map(value_of).collect()
    }

    pub(crate) fn summary(&self) -> Summary {
        summary_of(&self.given())
    }
}

/// One answer to a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// To which of its steps, from 0.
    pub(crate) step: usize,
    pub(crate) value: Value,
    /// The code of the fault that it stands for.
    fault: Option<String>,
}

impl Given {
    fn now((step, reply): (usize, &Reply)) -> Self {
        Self {
            step,
            value: value_of(reply),
            fault: code_of(reply),
        }
    }

    /// We answered in the module's place, as its body is collected: that more is needed
    /// is no answer of the module.
    fn wants_as_much_as(&mut self, other: &Self) {
        if let Some(more) = other.value.get("needs_more") {
            self.value["needs_more"] = more.clone();
        }
    }

    /// The same as the transport of a recorded answer to this step would have
    /// told it, where that could not carry all of it.
    fn told(mut self, reply: &Reply, recorded: Option<&Self>, policy: FailurePolicy) -> Self {
        if let (Answer::Response(answer), None, Some(recorded)) =
            (&reply.answer, &reply.fault, recorded)
        {
            let tags = recorded.value.pointer("/audit/tags");
            let tags = tags.and_then(Value::as_array).into_iter().flatten();
            let tags = tags.filter_map(Value::as_str);
            let to = Recipient::of_recorded(tags, recorded.fault.as_deref(), policy);
            if let Some(sent) = to.and_then(|to| to.told((**answer).clone())) {
                self.value = serde_json::to_value(&sent.answer).unwrap_or_default();
                self.fault = sent.fault.map(|fault| fault.code.to_string());
            }
        }
        self
    }

    fn recorded(step: usize, value: Value) -> Self {
        let fault = fault_of(&value);
        Self { step, value, fault }
    }
}

fn value_of(reply: &Reply) -> Value {
    serde_json::to_value(&reply.answer).unwrap_or_default()
}

fn all_digits(reply: &Reply) -> Option<&Value> {
    match &reply.answer {
        Answer::Response(_) => None,
        Answer::Result(result) => result.all_digits.as_deref(),
    }
}

fn code_of(reply: &Reply) -> Option<String> {
    reply.fault.as_ref().map(|fault| fault.code.to_string())
}

/// How answers ended.
fn summary_of(answers: &[Given]) -> Summary {
    let mut tags = Vec::new();
    let mut rule_ids = Vec::new();
    for Given { value, .. } in answers {
        add_texts(value, "/audit/tags", &mut tags);
        add_texts(value, "/audit/rule_ids", &mut rule_ids);
    }
    let decision = answers.last().map(|last| decision_text(&last.value));
    let faults = answers.iter().filter_map(|answer| answer.fault.as_ref());
    Summary {
        decision: decision.unwrap_or_else(|| "allow".to_owned()),
        tags,
        rule_ids,
        fault: faults.cloned().next_back(),
    }
}

/// The code of the fault that a recorded answer stands for.
pub(crate) fn fault_of(value: &Value) -> Option<String> {
    if is_hook_result(value) {
        let error = value.get("error")?.as_str()?;
        return error.strip_prefix(TRAPPED).map(str::to_owned);
    }
    let tags = value.pointer("/audit/tags")?.as_array()?;
    let reason = value.pointer("/audit/reason_codes/0")?.as_str()?;
    tags.iter()
        .any(|tag| tag == "wasm-error")
        .then(|| reason.to_owned())
}

/// Whether nobody asks any further after this answer.
fn ends(value: &Value) -> bool {
    if is_hook_result(value) {
        return value["ok"] != true;
    }
    value
        .get("decision")
        .is_none_or(|decision| decision != "allow")
}

fn add_texts(value: &Value, pointer: &str, texts: &mut Vec<String>) {
    let found = value.pointer(pointer).and_then(Value::as_array);
    for text in found.into_iter().flatten().filter_map(Value::as_str) {
        if !texts.iter().any(|have| have == text) {
            texts.push(text.to_owned());
        }
    }
}

/// As [`Answer::decision`] says it.
fn decision_text(value: &Value) -> String {
    if is_hook_result(value) {
        let changed = value.get("ctx").is_some_and(|context| !context.is_null());
        let error = value.get("error").and_then(Value::as_str);
        return hook_decision(value["ok"] == true, changed, error.unwrap_or_default()).into_owned();
    }
    match value.get("decision") {
        Some(Value::String(name)) => name.clone(),
        decision => {
            let decision = decision.and_then(Value::as_object);
            match decision.and_then(|decision| decision.iter().next()) {
                Some((name, parts)) => parts
                    .get("status")
                    .map_or_else(|| name.clone(), |status| format!("{name} {status}")),
                // It was left out of the comparison.
                None => "(no decision)".to_owned(),
            }
        }
    }
}

/// A difference between two sides.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) category: Category,
    pub(crate) from: Summary,
    pub(crate) to: Summary,
    pub(crate) fields: Vec<String>,
    pub(crate) old: Vec<Given>,
    /// From what was recorded, not from what the baseline answers.
    pub(crate) is_drift: bool,
}

impl Change {
    /// Another decision or a new fault, and not only other details.
    pub(crate) fn is_other_decision(&self) -> bool {
        self.category != Category::Details
    }

    /// The same, or the decision has another status.
    pub(crate) fn is_other_end(&self) -> bool {
        self.is_other_decision() || self.from.decision != self.to.decision
    }
}

/// Answers in the one form of all that tell a proxy the same, less what is
/// ignored.
fn seen(answers: &[Given], ignored: &[Pointer]) -> Vec<Given> {
    let seen = answers.iter().cloned().map(|mut answer| {
        strip(&mut answer.value, answer.step, ignored);
        to_proxy_view(&mut answer.value);
        answer
    });
    seen.collect()
}

/// Holds what two modules made of a transaction against each other. Equal
/// answers, by far the most, cost one comparison.
pub(crate) fn compare(old: &Played, new: &Played, ignored: &[Pointer]) -> Option<Change> {
    let equal = old.replies.len() == new.replies.len()
        && old
            .replies
            .iter()
            .zip(&new.replies)
            .all(|(old, new)| old.answer == new.answer);
    if equal {
        return None;
    }
    let (mut before, mut now) = (old.with_all_digits(), new.with_all_digits());
    let answers = before.iter_mut().zip(&mut now);
    for ((before, now), (old, new)) in answers.zip(old.replies.iter().zip(&new.replies)) {
        match (old.is_collected, new.is_collected) {
            (false, true) => now.wants_as_much_as(before),
            (true, false) => before.wants_as_much_as(now),
            _ => {}
        }
    }
    differ(before, &now, ignored)
}

/// What was recorded of a transaction beside what a module answers now.
#[derive(Debug, Default)]
pub(crate) struct Drift {
    /// An answer of the time was held against one of now, or differs from what
    /// is told where the module has no handler.
    pub(crate) is_compared: bool,
    pub(crate) change: Option<Change>,
    /// A step was answered at the time, and the module has no handler for it.
    pub(crate) is_unanswered: bool,
    /// A step behind the last recorded answer is refused now.
    pub(crate) is_refused_later: bool,
}

/// Holds what was recorded against what a module answers now. Nothing where
/// nothing was recorded. `room` is for writing answers.
pub(crate) fn drift(
    (transaction, now): (&Transaction<'_>, &Played),
    failure_policy: FailurePolicy,
    ignored: &[Pointer],
    room: &mut Vec<u8>,
) -> Option<Drift> {
    let mut drift = Drift::default();
    let mut last = None;
    let mut equal = true;
    for (index, step) in transaction.steps.iter().enumerate() {
        let Some(recorded) = &step.recorded else {
            continue;
        };
        last = Some(index);
        let reply = now.replies.get(index);
        drift.is_compared |= reply.is_some_and(Reply::is_answered);
        drift.is_unanswered |= reply.is_some_and(|reply| !reply.is_answered());
        let is_same = |reply: &Reply| reads_as(&reply.answer, &recorded.response, room);
        equal = equal && reply.is_some_and(is_same);
    }
    let mut last = last?;
    let mut has_ended = false;
    if !equal {
        let old = recorded_answers(transaction);
        let end = old.last()?;
        last = end.step;
        has_ended = ends(&end.value);
        let counts = |index: usize| match transaction.steps.get(index) {
            // A recording that stops early says nothing about later steps.
            _ if index > last => has_ended,
            // What was not recorded is not compared, unless nobody asks further.
            Some(step) => step.recorded.is_some() || index + 1 == now.replies.len(),
            None => false,
        };
        let new = now.replies.iter().enumerate();
        let mut new: Vec<Given> = new
            .filter(|(index, _)| counts(*index))
            .map(|(step, reply)| {
                let recorded = at(&old, step);
                let mut now = Given::now((step, reply)).told(reply, recorded, failure_policy);
                if let Some(recorded) = recorded.filter(|_| reply.is_collected) {
                    now.wants_as_much_as(recorded);
                }
                now
            })
            .collect();
        // What it refuses only there ends the exchange there, too.
        if let Some(end) = new.iter().position(|answer| ends(&answer.value)) {
            new.truncate(end + 1);
        }
        drift.change = differ(old, &new, ignored).map(|change| Change {
            is_drift: true,
            ..change
        });
        drift.is_compared |= drift.change.is_some();
    }
    let refused = now.replies.last().is_some_and(Reply::ends);
    drift.is_refused_later = refused && !has_ended && now.replies.len() > last + 1;
    Some(drift)
}

/// The answers of the time, up to the one that ended the transaction.
pub(crate) fn recorded_answers(transaction: &Transaction<'_>) -> Vec<Given> {
    let mut answers = Vec::new();
    for (index, step) in transaction.steps.iter().enumerate() {
        let Some(recorded) = &step.recorded else {
            continue;
        };
        let Ok(value) = serde_json::from_slice::<Value>(&recorded.response) else {
            break;
        };
        let ended = ends(&value);
        answers.push(Given::recorded(index, value));
        if ended {
            break;
        }
    }
    answers
}

/// Whether an answer's JSON is this text; `room` is for writing it.
fn reads_as(answer: &Answer, text: &[u8], room: &mut Vec<u8>) -> bool {
    room.clear();
    match answer {
        Answer::Response(response) => json::response::write(response, room),
        Answer::Result(result) => json::write_serialized(result, room),
    }
    room == text
}

/// Compares answers as a proxy or a host is told them, less what is ignored. A
/// fault of the new side that the same answer of the old one does not have
/// differs whatever is ignored.
fn differ(old: Vec<Given>, new: &[Given], ignored: &[Pointer]) -> Option<Change> {
    let (mut left, mut right) = (seen(&old, ignored), seen(new, ignored));
    let end = left
        .last()
        .map(|it| it.step)
        .min(right.last().map(|it| it.step));
    let is_ignored = |pointer: &Pointer| pointer.is_decision_of(end.unwrap_or(0));
    if ignored.iter().any(is_ignored) {
        // How many answers there are follows from the decision.
        left.retain(|answer| at(new, answer.step).is_some());
        right.retain(|answer| at(&old, answer.step).is_some());
    }
    let is_new = |answer: &Given| {
        let before = || at(&old, answer.step).and_then(|before| before.fault.as_ref());
        answer.fault.is_some() && answer.fault.as_ref() != before()
    };
    let faulted = new.iter().any(is_new);
    let mut fields = fields(&left, &right);
    if fields.is_empty() {
        if !faulted {
            return None;
        }
        fields.push("fault".to_owned());
    }
    let fault = |answers: &[Given]| summary_of(answers).fault;
    let from = Summary {
        fault: fault(&old),
        ..summary_of(&left)
    };
    let to = Summary {
        fault: fault(new),
        ..summary_of(&right)
    };
    let word = |summary: &Summary| {
        let words = summary.decision.split([' ', ':']).next();
        words.unwrap_or_default().to_owned()
    };
    let category = if faulted {
        Category::Faulted
    } else if word(&from) == word(&to) {
        Category::Details
    } else {
        Category::Decision
    };
    Some(Change {
        category,
        from,
        to,
        fields,
        old,
        is_drift: false,
    })
}

/// The answer to this step, from 0. Answers are in the order of their steps.
fn at(answers: &[Given], step: usize) -> Option<&Given> {
    let found = answers.binary_search_by_key(&step, |answer| answer.step);
    answers.get(found.ok()?)
}

/// Where two sides differ: as `/audit/tags` in their answers to the first step,
/// as `2/audit/tags` in those to the second.
fn fields(left: &[Given], right: &[Given]) -> Vec<String> {
    let mut fields = Vec::new();
    for old in left {
        let Some(new) = at(right, old.step) else {
            continue;
        };
        let begin = match old.step {
            0 => String::new(),
            step => (step + 1).to_string(),
        };
        differing(&begin, (&old.value, &new.value), &mut fields);
    }
    if !left
        .iter()
        .map(|it| it.step)
        .eq(right.iter().map(|it| it.step))
    {
        fields.push("steps".to_owned());
    }
    fields
}

/// Paths at which two values differ; a list counts as one. A name with null is
/// not the same as no such name.
fn differing(path: &str, sides: (&Value, &Value), out: &mut Vec<String>) {
    match sides {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for name in names {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                let path = format!("{path}/{escaped}");
                match (left.get(name), right.get(name)) {
                    (Some(left), Some(right)) => differing(&path, (left, right), out),
                    _ => out.push(path),
                }
            }
        }
        (left, right) if left == right => {}
        _ => out.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(decision: Value, tags: &[&str]) -> Value {
        json!({"decision": decision, "audit": {"tags": tags, "rule_ids": [], "reason_codes": []}})
    }

    fn side(answers: Vec<Value>) -> Vec<Given> {
        let answers = answers.into_iter().enumerate();
        answers
            .map(|(step, value)| Given::recorded(step, value))
            .collect()
    }

    fn fault(decision: Value, code: &str) -> Value {
        let mut fault = answer(decision, &["wasm-error"]);
        fault["audit"]["reason_codes"] = json!([code]);
        fault
    }

    fn change(old: Value, new: Value, ignored: &[&str]) -> Option<Change> {
        let ignored: Vec<Pointer> = ignored.iter().map(|text| text.parse().unwrap()).collect();
        differ(side(vec![old]), &side(vec![new]), &ignored)
    }

    #[test]
    fn changes_are_sorted_by_how_grave_they_are() {
        let allow = || answer(json!("allow"), &[]);
        let block = |status: u16, tags: &[&str]| answer(json!({"block": {"status": status}}), tags);
        let trap = || fault(json!({"block": {"status": 500}}), "trap:unreachable");
        let open = || fault(json!("allow"), "trap:unreachable");
        for (old, new, expected) in [
            (allow(), allow(), None),
            (allow(), block(403, &[]), Some(Category::Decision)),
            (block(403, &[]), block(429, &[]), Some(Category::Details)),
            (
                allow(),
                answer(json!("allow"), &["x"]),
                Some(Category::Details),
            ),
            (allow(), trap(), Some(Category::Faulted)),
            (allow(), open(), Some(Category::Faulted)),
            // A fault of the old side alone is what it decided then.
            (trap(), allow(), Some(Category::Decision)),
            (trap(), block(500, &[]), Some(Category::Details)),
            (open(), allow(), Some(Category::Details)),
            (open(), block(403, &[]), Some(Category::Decision)),
            (trap(), trap(), None),
            (open(), trap(), Some(Category::Decision)),
            (
                fault(json!("allow"), "deadline"),
                open(),
                Some(Category::Faulted),
            ),
        ] {
            let text = format!("{old} {new}");
            let category = change(old, new, &[]).map(|change| change.category);
            assert_eq!(category, expected, "{text}");
        }
    }

    #[test]
    fn ignored_fields_do_not_differ() {
        let ignored = ["/audit/tags", "/decision/block/body"];
        let old = answer(json!({"block": {"status": 403, "body": "a"}}), &["x"]);
        let new = answer(json!({"block": {"status": 403, "body": "b"}}), &["y"]);
        assert!(change(old.clone(), new.clone(), &ignored).is_none());
        let change = change(old, new, &[]).unwrap();
        assert_eq!(change.fields, ["/audit/tags", "/decision/block/body"]);
    }

    #[test]
    fn nothing_that_is_ignored_hides_a_fault() {
        let trap = || fault(json!("allow"), "trap:unreachable");
        let allow = || answer(json!("allow"), &[]);
        for ignored in [
            &["/audit"][..],
            &["/audit/tags", "/audit/reason_codes"],
            &["/audit", "/decision"],
        ] {
            let seen = change(allow(), trap(), ignored).unwrap();
            assert_eq!(seen.category, Category::Faulted, "{ignored:?}");
            assert_eq!(seen.fields, ["fault"], "{ignored:?}");
            assert!(change(trap(), allow(), ignored).is_none(), "{ignored:?}");
        }
        // Where the decision is ignored, answers behind the fault are too.
        let (old, new) = (side(vec![allow(), allow()]), side(vec![trap()]));
        let ignored = ["/decision".parse().unwrap(), "/audit".parse().unwrap()];
        let seen = differ(old, &new, &ignored).unwrap();
        assert_eq!(seen.category, Category::Faulted);
    }

    #[test]
    fn a_difference_has_a_name() {
        let context = |input: Value| json!({"ok": true, "ctx": {"input": input}});
        for (old, new, field) in [
            (json!({"x": null}), json!({}), "/ctx/input/x"),
            (
                json!({"x": {}}),
                json!({"x": {"y": null}}),
                "/ctx/input/x/y",
            ),
            (
                json!({"x": 9_007_199_254_740_993_u64}),
                json!({"x": 9_007_199_254_740_992_u64}),
                "/ctx/input/x",
            ),
            (
                json!({"x": 0.1}),
                json!({"x": 0.100_000_000_000_000_02}),
                "/ctx/input/x",
            ),
            (json!([null]), json!([]), "/ctx/input"),
            (json!({"a/b~": 1}), json!({"a/b~": 2}), "/ctx/input/a~1b~0"),
        ] {
            let text = format!("{old} {new}");
            let seen = change(context(old.clone()), context(new.clone()), &[]).expect(&text);
            assert_eq!(seen.fields, [field], "{text}");
            // What a report prints can be given back.
            assert!(
                change(context(old), context(new), &[field]).is_none(),
                "{text}"
            );
        }
    }

    /// As fixtures and `validate` compare them: recorded answers are no other case.
    #[test]
    fn what_a_host_does_not_apply_is_no_difference() {
        let result = |ctx: Value| json!({"ok": true, "ctx": ctx});
        for (old, new) in [
            (json!({"input": {"x": 1}}), json!({"input": {"x": 1.0}})),
            (
                json!({"input": {}, "tenant_id": null}),
                json!({"input": {}, "tenant_id": "t"}),
            ),
        ] {
            assert!(change(result(old), result(new), &[]).is_none());
        }
        // A key that a recording holds besides makes no hook of an event.
        let recorded = json!({"decision": "allow", "ok": true});
        let change = change(recorded, json!({"decision": "allow"}), &[]);
        assert_eq!(change.map(|it| it.category), Some(Category::Details));
    }

    #[test]
    fn a_part_of_one_answer_can_be_ignored_alone() {
        let tagged = |tags: [&str; 2]| side(tags.map(|tag| answer(json!("allow"), &[tag])).into());
        let differ = |ignored: &[&str]| {
            let ignored: Vec<Pointer> = ignored.iter().map(|text| text.parse().unwrap()).collect();
            let change = differ(tagged(["a", "b"]), &tagged(["x", "y"]), &ignored);
            change.map(|change| change.fields).unwrap_or_default()
        };
        assert_eq!(differ(&[]), ["/audit/tags", "2/audit/tags"]);
        assert_eq!(differ(&["2/audit/tags"]), ["/audit/tags"]);
        assert_eq!(differ(&["1/audit/tags"]), ["2/audit/tags"]);
        assert!(differ(&["/audit/tags"]).is_empty());
    }
}
