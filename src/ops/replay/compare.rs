//! Two answers to the same transaction: whether, where and how they differ.

use serde_json::Value;

use super::report::{Category, Summary};
use crate::answer::Answer;
use crate::answer::hook_decision;
use crate::capture::Transaction;
use crate::hook::TRAPPED;
use crate::json;
use crate::policy::Reply;

/// What one module made of a transaction.
#[derive(Debug)]
pub(super) struct Played {
    /// Its answers, up to the one that ended it.
    pub(super) replies: Vec<Reply>,
}

impl Played {
    pub(super) fn fuel(&self) -> u64 {
        self.costs().filter_map(|cost| cost.fuel).sum()
    }

    pub(super) fn time_ns(&self) -> u64 {
        self.costs()
            .map(crate::cost::Cost::time_ns)
            .fold(0, u64::saturating_add)
    }

    fn costs(&self) -> impl Iterator<Item = &crate::cost::Cost> {
        self.replies.iter().filter_map(|reply| reply.cost.as_ref())
    }

    pub(super) fn has_fault(&self) -> bool {
        self.replies.iter().any(|reply| reply.fault.is_some())
    }

    pub(super) fn values(&self) -> Vec<Value> {
        self.replies
            .iter()
            .map(|reply| serde_json::to_value(&reply.answer).unwrap_or_default())
            .collect()
    }

    pub(super) fn summary(&self) -> Summary {
        let mut summary = summary_of(&self.values());
        summary.fault = self
            .replies
            .iter()
            .filter_map(|reply| reply.fault.as_ref())
            .map(|fault| fault.code.to_string())
            .next_back();
        summary
    }
}

/// How answers ended, from their JSON.
pub(super) fn summary_of(values: &[Value]) -> Summary {
    let mut tags = Vec::new();
    let mut rule_ids = Vec::new();
    for value in values {
        add_texts(value, "/audit/tags", &mut tags);
        add_texts(value, "/audit/rule_ids", &mut rule_ids);
    }
    Summary {
        decision: values.last().map_or_else(|| "allow".into(), decision_text),
        tags,
        rule_ids,
        fault: values.iter().filter_map(fault_of).next_back(),
    }
}

/// The code of the fault that an answer stands for.
fn fault_of(value: &Value) -> Option<String> {
    if value.get("ok").is_some() {
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
    match value.get("ok") {
        Some(ok) => ok != true,
        None => value
            .get("decision")
            .is_none_or(|decision| decision != "allow"),
    }
}

fn add_texts(value: &Value, pointer: &str, texts: &mut Vec<String>) {
    let found = value.pointer(pointer).and_then(Value::as_array);
    for text in found.into_iter().flatten().filter_map(Value::as_str) {
        if !texts.iter().any(|have| have == text) {
            texts.push(text.to_owned());
        }
    }
}

/// As [`Answer::decision`](crate::ops::exchange::Answer::decision) says it.
fn decision_text(value: &Value) -> String {
    if let Some(ok) = value.get("ok") {
        let changed = value.get("ctx").is_some_and(|context| !context.is_null());
        let error = value.get("error").and_then(Value::as_str);
        return hook_decision(ok == true, changed, error.unwrap_or_default()).into_owned();
    }
    match value.get("decision") {
        Some(Value::Object(map)) => map.iter().next().map_or_else(String::new, |(name, parts)| {
            parts
                .get("status")
                .map_or_else(|| name.clone(), |status| format!("{name} {status}"))
        }),
        Some(Value::String(name)) => name.clone(),
        Some(_) => String::new(),
        // It was left out of the comparison.
        None if value.get("ctx").is_some() => "ok".to_owned(),
        None => "allow".to_owned(),
    }
}

/// A difference between two sides.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) category: Category,
    pub(super) from: Summary,
    pub(super) to: Summary,
    pub(super) fields: Vec<String>,
    pub(super) old: Vec<Value>,
    /// From what was recorded, not from what the baseline answers.
    pub(super) is_drift: bool,
}

/// Holds what two modules made of a transaction against each other. Equal
/// answers, by far the most, cost one comparison.
pub(super) fn compare(old: &Played, new: &Played, ignored: &[String]) -> Option<Change> {
    let equal = old.replies.len() == new.replies.len()
        && old
            .replies
            .iter()
            .zip(&new.replies)
            .all(|(old, new)| old.answer == new.answer);
    if equal {
        return None;
    }
    let mut change = differ(old.values(), &new.values(), ignored)?;
    change.from.fault = old.summary().fault;
    change.to.fault = new.summary().fault;
    if change.from.fault != change.to.fault {
        change.category = Category::Faulted;
    }
    Some(change)
}

/// Holds what was recorded against what a module answers now. Nothing where
/// nothing was recorded. `room` is for writing answers.
pub(super) fn drift(
    (transaction, now): (&Transaction<'_>, &Played),
    ignored: &[String],
    room: &mut Vec<u8>,
) -> Option<Option<Change>> {
    let mut any = false;
    let mut equal = true;
    for (index, step) in transaction.steps.iter().enumerate() {
        let Some(recorded) = &step.recorded else {
            continue;
        };
        any = true;
        equal = equal
            && now
                .replies
                .get(index)
                .is_some_and(|reply| reads_as(&reply.answer, &recorded.response, room));
    }
    if !any {
        return None;
    }
    if equal {
        return Some(None);
    }
    // Only the steps that both sides answered up to where either ended.
    let mut old = Vec::new();
    for step in &transaction.steps {
        let Some(recorded) = &step.recorded else {
            break;
        };
        let Ok(value) = serde_json::from_slice::<Value>(&recorded.response) else {
            break;
        };
        let ended = ends(&value);
        old.push(value);
        if ended {
            break;
        }
    }
    let mut new = now.values();
    // A recording that stops early says nothing about later steps.
    if !old.last().is_some_and(ends) && old.len() < new.len() && !old.is_empty() {
        new.truncate(old.len());
    }
    Some(differ(old, &new, ignored).map(|change| Change {
        is_drift: true,
        ..change
    }))
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

/// Compares answers as JSON, less what is ignored.
fn differ(old: Vec<Value>, new: &[Value], ignored: &[String]) -> Option<Change> {
    let strip = |value: &Value| {
        let mut value = value.clone();
        let pointers = ignored.iter();
        pointers.for_each(|pointer| remove(&mut value, pointer));
        value
    };
    let stripped: [Vec<Value>; 2];
    let (mut left, mut right) = (old.as_slice(), new);
    if !ignored.is_empty() {
        stripped = [left, right].map(|values| values.iter().map(strip).collect());
        [left, right] = stripped.each_ref().map(Vec::as_slice);
    }
    let ignores_ends = |pointer: &String| pointer == "/decision" || pointer == "/ok";
    if ignored.iter().any(ignores_ends) {
        // How many answers there were follows from the decisions.
        let both = left.len().min(right.len());
        (left, right) = (&left[..both], &right[..both]);
    }
    if left == right {
        return None;
    }
    let mut fields = Vec::new();
    for (index, (left, right)) in left.iter().zip(right).enumerate() {
        let mut paths = Vec::new();
        differing("", left, right, &mut paths);
        for path in paths {
            let path = if index == 0 {
                path
            } else {
                format!("{}{path}", index + 1)
            };
            if !fields.contains(&path) {
                fields.push(path);
            }
        }
    }
    if left.len() != right.len() {
        fields.push("steps".to_owned());
    }
    let (from, to) = (summary_of(left), summary_of(right));
    let word = |summary: &Summary| {
        summary
            .decision
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let category = if from.fault != to.fault {
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

/// Paths at which two values differ; a list counts as one.
fn differing(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(left), Value::Object(right)) => {
            let names: std::collections::BTreeSet<&String> =
                left.keys().chain(right.keys()).collect();
            for name in names {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                differing(
                    &format!("{path}/{escaped}"),
                    left.get(name).unwrap_or(&Value::Null),
                    right.get(name).unwrap_or(&Value::Null),
                    out,
                );
            }
        }
        _ if old == new => {}
        _ => out.push(path.to_owned()),
    }
}

/// Takes what a JSON pointer names away.
fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.shift_remove(&name);
        }
        Some(Value::Array(list)) => {
            if let Ok(index) = name.parse::<usize>()
                && index < list.len()
            {
                list.remove(index);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(decision: Value, tags: &[&str]) -> Value {
        json!({"decision": decision, "audit": {"tags": tags, "rule_ids": [], "reason_codes": []}})
    }

    #[test]
    fn changes_are_sorted_by_how_grave_they_are() {
        let allow = || answer(json!("allow"), &[]);
        let block = |status: u16, tags: &[&str]| answer(json!({"block": {"status": status}}), tags);
        let category =
            |old: Value, new: Value| differ(vec![old], &[new], &[]).map(|change| change.category);
        assert_eq!(category(allow(), allow()), None);
        assert_eq!(category(allow(), block(403, &[])), Some(Category::Decision));
        assert_eq!(
            category(block(403, &[]), block(429, &[])),
            Some(Category::Details)
        );
        assert_eq!(
            category(allow(), answer(json!("allow"), &["x"])),
            Some(Category::Details)
        );
        let mut fault = block(500, &["wasm-error"]);
        fault["audit"]["reason_codes"] = json!(["trap:unreachable"]);
        assert_eq!(category(allow(), fault), Some(Category::Faulted));
    }

    #[test]
    fn ignored_fields_do_not_differ() {
        let ignored = ["/audit/tags".to_owned(), "/decision/block/body".to_owned()];
        let old = answer(json!({"block": {"status": 403, "body": "a"}}), &["x"]);
        let new = answer(json!({"block": {"status": 403, "body": "b"}}), &["y"]);
        assert!(differ(vec![old.clone()], std::slice::from_ref(&new), &ignored).is_none());
        let change = differ(vec![old], &[new], &[]).unwrap();
        assert_eq!(change.fields, ["/audit/tags", "/decision/block/body"]);
    }
}
