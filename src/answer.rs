//! The answer of a guest, to an event or to a hook's context.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde::Serialize;
use serde_json::{Number, Value};

use crate::fault::printable;
use crate::hook::{HookResult, TRAPPED};
use crate::response::{AgentResponse, Decision, INSTANCE_CHANGED};

/// Characters of a hook's error in the words for a decision.
const SHOWN: usize = 160;

/// An answer: what the proxy or the host is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// About an event.
    Response(Box<AgentResponse>),
    /// About a hook's context.
    Result(Box<HookResult>),
}

impl Answer {
    /// Whether the exchange may go on: an event is allowed, a hook is ok.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Response(response) => response.decision == Decision::Allow,
            Self::Result(result) => result.ok,
        }
    }

    /// The decision with its status; of a hook whether the host may go on, and
    /// with a changed context or why not.
    #[must_use]
    pub fn decision(&self) -> Cow<'static, str> {
        match self {
            Self::Response(response) => {
                match (response.decision.name(), response.decision.status()) {
                    (name, None) => name.into(),
                    ("block", Some(403)) => "block 403".into(),
                    (name, Some(status)) => format!("{name} {status}").into(),
                }
            }
            Self::Result(result) => hook_decision(
                result.ok,
                result.ctx.is_some(),
                result.error.as_deref().unwrap_or_default(),
            ),
        }
    }

    /// Whether the proxy or the host is told the same by both: header names are
    /// the same in any case, and changes to different headers in any order. Of a
    /// hook's result counts what its host applies.
    #[must_use]
    pub fn tells_the_same(&self, other: &Self) -> bool {
        self == other || self.proxy_view() == other.proxy_view()
    }

    /// The answer as JSON, in the one form of all that tell a proxy the same.
    pub(crate) fn proxy_view(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        to_proxy_view(&mut value);
        if let Self::Result(result) = self
            && let Some(digits) = result.all_digits.as_ref().filter(|_| result.ok)
        {
            // With them, numbers that were rounded are told apart.
            value["all_digits"] = Value::clone(digits);
        }
        value
    }

    /// The decision's name; of a hook `ok` or `refused`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Response(response) => response.decision.name(),
            Self::Result(result) if result.ok => "ok",
            Self::Result(_) => "refused",
        }
    }

    /// Labels of the answer; a hook gives none.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        match self {
            Self::Response(response) => &response.audit.tags,
            Self::Result(_) => &[],
        }
    }

    /// Ids of the rules that fired; a hook gives none.
    #[must_use]
    pub fn rule_ids(&self) -> &[String] {
        match self {
            Self::Response(response) => &response.audit.rule_ids,
            Self::Result(_) => &[],
        }
    }
}

impl AgentResponse {
    /// As [`Answer::tells_the_same`].
    pub(crate) fn tells_the_same(&self, other: &Self) -> bool {
        let of = |response: &Self| Answer::Response(Box::new(response.clone()));
        self == other || of(self).tells_the_same(&of(other))
    }
}

fn to_plain_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *number = plain_number(number),
        Value::Array(items) => items.iter_mut().for_each(to_plain_numbers),
        Value::Object(keys) => keys.values_mut().for_each(to_plain_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The number in the one form of all that are equal: `1.0` is `1`. An integer stays
/// as it is, since a double would make different large ones equal.
pub(crate) fn plain_number(number: &Number) -> Number {
    let whole = number.as_f64().filter(|double| double.fract() == 0.0);
    let Some(double) = whole.filter(|_| number.is_f64()) else {
        return number.clone();
    };
    // Its digits are written out in full; of the two zeros one has a sign.
    let digits = format!("{:.0}", double + 0.0);
    let unsigned = digits.parse::<u64>().map(Number::from);
    unsigned
        .or_else(|_| digits.parse::<i64>().map(Number::from))
        .unwrap_or_else(|_| number.clone())
}

/// Brings the JSON of an answer to the one form of all that tell a proxy the
/// same: header names in lower case, and changes in the order of their names.
/// Changes to one header stay in their order, less those that a later one
/// overwrites. A part that is null is none, and a list that is not there is empty.
/// Of a hook's result counts what its host applies.
pub(crate) fn to_proxy_view(answer: &mut Value) {
    without_nulls(answer);
    if is_hook_result(answer) {
        return to_host_view(answer);
    }
    let decision = answer.get_mut("decision").and_then(Value::as_object_mut);
    let decision = decision.into_iter().flat_map(|kind| kind.values_mut());
    decision.for_each(without_nulls);
    answer.get_mut("audit").into_iter().for_each(without_nulls);
    static NOTHING: LazyLock<Value> = LazyLock::new(|| {
        let mut nothing = serde_json::to_value(AgentResponse::allow()).unwrap_or_default();
        // What is decided is never filled in.
        nothing
            .as_object_mut()
            .map(|parts| parts.shift_remove("decision"));
        nothing
    });
    fill_in(answer, &NOTHING);
    if let Some(Value::Array(tags)) = answer.pointer_mut("/audit/tags") {
        tags.retain(|tag| tag != INSTANCE_CHANGED);
    }
    for list in ["request_headers", "response_headers"] {
        if let Some(Value::Array(ops)) = answer.get_mut(list) {
            ops.iter_mut().for_each(lower_name);
            ops.sort_by_cached_key(|op| header_name(op).map(str::to_owned));
            *ops = without_overwritten(std::mem::take(ops));
        }
    }
}

/// Whether the JSON of an answer is about a hook's context, and not about an event.
pub(crate) fn is_hook_result(answer: &Value) -> bool {
    answer.get("ok").is_some() && answer.get("decision").is_none()
}

/// Leaves what a host applies: of a context only `input` and `data`, and of a refusal
/// nothing.
fn to_host_view(result: &mut Value) {
    let is_ok = result["ok"] == true;
    if let Some(parts) = result.as_object_mut() {
        parts.retain(|name, _| name != "ctx" || is_ok);
    }
    if let Some(context) = result.get_mut("ctx").and_then(Value::as_object_mut) {
        context.retain(|name, part| name == "input" || name == "data" && !part.is_null());
    }
    to_plain_numbers(result);
}

fn without_nulls(value: &mut Value) {
    if let Some(parts) = value.as_object_mut() {
        parts.retain(|_, part| !part.is_null());
    }
}

/// Adds the parts that are missing.
fn fill_in(value: &mut Value, from: &Value) {
    let (Some(parts), Some(from)) = (value.as_object_mut(), from.as_object()) else {
        return;
    };
    for (name, part) in from.iter().filter(|(_, part)| !part.is_null()) {
        fill_in(parts.entry(name).or_insert_with(|| part.clone()), part);
    }
}

/// Changes in the order of their names, less those that come to nothing: to set
/// or to remove a header undoes what was done to it before.
fn without_overwritten(ops: Vec<Value>) -> Vec<Value> {
    let mut left: Vec<Value> = Vec::with_capacity(ops.len());
    for op in ops {
        let name = header_name(&op).filter(|_| op.get("add").is_none());
        while name.is_some() && left.last().is_some_and(|last| header_name(last) == name) {
            left.pop();
        }
        left.push(op);
    }
    left
}

fn lower_name(op: &mut Value) {
    for parts in op
        .as_object_mut()
        .into_iter()
        .flat_map(|op| op.values_mut())
    {
        if let Some(Value::String(name)) = parts.get_mut("name") {
            name.make_ascii_lowercase();
        }
    }
}

fn header_name(op: &Value) -> Option<&str> {
    op.as_object()?.values().next()?.get("name")?.as_str()
}

/// A hook's result in a few words.
#[must_use]
pub fn hook_decision(ok: bool, changed: bool, error: &str) -> Cow<'static, str> {
    match (ok, changed) {
        (true, false) => "ok".into(),
        (true, true) => "ok changed".into(),
        (false, _) if error.is_empty() || error.starts_with(TRAPPED) => "refused".into(),
        (false, _) => format!("refused: {}", printable(error, SHOWN)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::HeaderOp;

    fn answer(ops: &[HeaderOp]) -> Answer {
        let mut response = AgentResponse::allow();
        response.request_headers = ops.to_vec();
        Answer::Response(Box::new(response))
    }

    fn set(name: &str, value: &str) -> HeaderOp {
        let (name, value) = (name.to_owned(), value.to_owned());
        HeaderOp::Set { name, value }
    }

    fn add(name: &str, value: &str) -> HeaderOp {
        let (name, value) = (name.to_owned(), value.to_owned());
        HeaderOp::Add { name, value }
    }

    fn remove(name: &str) -> HeaderOp {
        let name = name.to_owned();
        HeaderOp::Remove { name }
    }

    #[test]
    fn what_a_proxy_cannot_tell_apart_is_the_same() {
        let same = |one: &[HeaderOp], other: &[HeaderOp]| {
            assert!(answer(one).tells_the_same(&answer(other)), "{one:?}");
        };
        same(&[set("X-A", "1")], &[set("x-a", "1")]);
        same(&[remove("a"), remove("b")], &[remove("b"), remove("a")]);
        same(&[remove("a"), remove("A")], &[remove("a")]);
        same(&[set("a", "1"), remove("b")], &[remove("b"), set("a", "1")]);
        // What is overwritten comes to nothing.
        same(&[set("a", "1"), remove("A")], &[remove("a")]);
        same(&[set("A", "1"), set("a", "2")], &[set("a", "2")]);
        same(&[add("a", "1"), set("a", "2")], &[set("a", "2")]);
        let differ = |one: &[HeaderOp], other: &[HeaderOp]| {
            assert!(!answer(one).tells_the_same(&answer(other)), "{one:?}");
        };
        differ(&[set("a", "1")], &[set("a", "A")]);
        differ(&[set("a", "1")], &[remove("a")]);
        // The last one of a name counts.
        differ(
            &[set("a", "1"), set("A", "2")],
            &[set("a", "2"), set("A", "1")],
        );
        differ(&[set("a", "1"), remove("a")], &[remove("a"), set("a", "1")]);
        differ(&[add("a", "1")], &[set("a", "1")]);
        differ(&[add("a", "1"), add("a", "1")], &[add("a", "1")]);
        differ(&[set("a", "1"), add("a", "2")], &[set("a", "1")]);
        differ(&[remove("a"), add("a", "2")], &[add("a", "2")]);
    }

    #[test]
    fn what_a_host_does_not_apply_is_the_same() {
        let result = |text: &str| {
            let keys: Value = serde_json::from_str(text).unwrap();
            Answer::Result(Box::new(HookResult {
                ok: keys["ok"] == true,
                ctx: serde_json::from_value(keys["ctx"].clone()).unwrap(),
                error: keys["error"].as_str().map(str::to_owned),
                details: serde_json::from_value(keys["details"].clone()).unwrap(),
                all_digits: None,
            }))
        };
        let same = |one: &str, other: &str| {
            assert!(result(one).tells_the_same(&result(other)), "{one}");
        };
        same(
            r#"{"ok":true,"ctx":{"input":{"a":1,"b":[1.0]},"user":{"id":"1","role":"x"}}}"#,
            r#"{"ok":true,"ctx":{"input":{"b":[1],"a":1.0},"headers":{"a":"b"},"tenant_id":"t"}}"#,
        );
        same(
            r#"{"ok":false,"ctx":{"input":{"a":1}},"error":"no"}"#,
            r#"{"ok":false,"error":"no"}"#,
        );
        same(
            r#"{"ok":false,"details":[-0.0,1e2]}"#,
            r#"{"ok":false,"details":[0,100]}"#,
        );
        let differ = |one: &str, other: &str| {
            assert!(!result(one).tells_the_same(&result(other)), "{one}");
        };
        differ(r#"{"ok":true}"#, r#"{"ok":false}"#);
        differ(r#"{"ok":true,"error":"a"}"#, r#"{"ok":true,"error":"b"}"#);
        differ(
            r#"{"ok":false,"details":[]}"#,
            r#"{"ok":false,"details":[1]}"#,
        );
        differ(
            r#"{"ok":true,"ctx":{"input":{"a":[1,2]}}}"#,
            r#"{"ok":true,"ctx":{"input":{"a":[2,1]}}}"#,
        );
        differ(
            r#"{"ok":true,"ctx":{"input":{},"data":{"a":1}}}"#,
            r#"{"ok":true,"ctx":{"input":{}}}"#,
        );
        differ(
            r#"{"ok":true,"details":[9007199254740993]}"#,
            r#"{"ok":true,"details":[9007199254740992.0]}"#,
        );
    }
}
