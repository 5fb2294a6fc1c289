//! What is particular about probing hooks: the contexts they are called with,
//! and what they may not do with them.

use serde_json::{Map, Value, json};
use std::borrow::Cow;

use crate::abi::Abi;
use crate::check::{Check, CheckKind};
use crate::hook::{Hook, HookContext, HookUser, apply};
use crate::question::Question;

use super::Row;
use super::calls::{Prober, Sample, Trial, word};

/// A context that is JSON and holds escapes that name no character.
pub(super) const LONE_SURROGATE: &[u8] =
    br#"{"input":{"email":"\ud800","name":"\udfff"},"data":null,"user":null,"headers":{},"tenant_id":null}"#;

/// Contexts of ordinary requests, and some of what nobody planned for.
pub(super) fn samples() -> impl Iterator<Item = Sample> {
    let record = || json!({"name": "Ann", "email": " Ann@Example.COM ", "age": 41});
    let nested = || {
        json!({
            "name": "caf\u{e9} \u{1f600}\"\\\u{7}",
            "email": "x",
            "items": [{"id": 1, "price": 0.1}, null, []],
            "limits": {"low": i64::MIN, "high": u64::MAX, "on": false},
        })
    };
    let inputs = [
        ("record", record()),
        ("no-email", json!({"name": "Ann"})),
        ("empty-values", json!({"name": "", "email": ""})),
        ("null-values", json!({"name": null, "email": null})),
        (
            "other-types",
            json!({"name": 7, "email": ["a@example.com"]}),
        ),
        ("nested", nested()),
        ("empty-input", json!({})),
    ];
    let before = inputs
        .clone()
        .map(|(name, input)| sample(name, Hook::Before, context(input, None)));
    let data = [
        (
            "created",
            json!({"id": 7, "name": "Ann", "email": "ann@example.com"}),
        ),
        ("list", json!([{"id": 1}, {"id": 2}])),
        ("text", json!("deleted")),
        ("nested", nested()),
        ("empty-data", json!({})),
    ];
    let after = data.map(|(name, data)| sample(name, Hook::After, context(record(), Some(data))));
    let stranger = HookContext {
        user: None,
        tenant_id: None,
        headers: std::collections::BTreeMap::new(),
        ..context(record(), None)
    };
    before
        .into_iter()
        .chain([sample("no-user", Hook::Before, stranger)])
        .chain(after)
}

fn sample(name: &'static str, hook: Hook, context: HookContext) -> Sample {
    Sample {
        name,
        input: Question::Hook(hook, Cow::Owned(context)),
    }
}

fn context(input: Value, data: Option<Value>) -> HookContext {
    let headers = [("content-type", "application/json"), ("x-trace", "1")];
    HookContext {
        input: match input {
            Value::Object(input) => input,
            _ => Map::new(),
        },
        data,
        user: Some(HookUser {
            id: "user-1".to_owned(),
            role: "member".to_owned(),
        }),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        tenant_id: Some("tenant-1".to_owned()),
    }
}

/// Contexts that production brings one day, each with what it is in words.
pub(super) fn torture() -> Vec<(&'static str, Sample)> {
    const MIB: usize = 1 << 20;
    let text = |value: String| json!({"name": "Ann", "email": value});
    let many: Map<String, Value> = (0..10_000)
        .map(|n| (format!("field-{n:05}"), json!(n)))
        .collect();
    let deep = (0..60).fold(json!(1), |inner, _| json!({"a": [inner]}));
    let inputs = [
        ("value-1-mib", "a value of 1 MiB", text("a".repeat(MIB))),
        (
            "escapes-1-mib",
            "a value that grows when it is escaped",
            text("\u{1}".repeat(MIB / 6)),
        ),
        ("fields-10000", "ten thousand fields", Value::Object(many)),
        (
            "deep",
            "120 values within each other",
            json!({"email": deep}),
        ),
        ("nul", "a NUL in a value", text("\0a@b".to_owned())),
        (
            "non-ascii",
            "a value not ASCII",
            text("\u{fc}@\u{65e5}\u{672c} \u{202e}\u{1f600}".to_owned()),
        ),
        (
            "odd-keys",
            "keys that are empty, long or not ASCII",
            json!({"": 1, "\u{1f600}": 2, "k".repeat(4096): 3, "__proto__": 4}),
        ),
    ];
    let mut all = Vec::new();
    for hook in Hook::ALL {
        for (name, what, value) in &inputs {
            let context = match hook {
                Hook::Before => context(value.clone(), None),
                Hook::After => context(json!({"email": "a@b"}), Some(value.clone())),
            };
            all.push((*what, sample(name, hook, context)));
        }
    }
    let mut crowded = context(json!({"email": "a@b"}), None);
    crowded.headers = (0..10_000)
        .map(|n| (format!("x-{n:05}"), "v".to_owned()))
        .collect();
    all.push((
        "ten thousand headers",
        sample("headers-10000", Hook::Before, crowded),
    ));
    all
}

/// Remarks about the results of one hook.
pub(super) fn rows(prober: &Prober<'_>, handler: &str, trials: &[&Trial]) -> Vec<Row> {
    if prober.module.abi != Abi::Hook {
        return Vec::new();
    }
    let found = [
        ignored(handler, trials),
        unexplained(handler, trials),
        refused_memory(prober, handler, trials),
    ];
    found.into_iter().flatten().collect()
}

/// Changes of what a hook may only read. What is merely left out is not meant
/// as a change: the published examples leave it out.
fn ignored(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let (trial, paths) = trials.iter().find_map(|trial| {
        let Question::Hook(_, context) = &trial.sample.input else {
            return None;
        };
        let applied = apply(context.as_ref().clone(), trial.seen.hook_result()?);
        let paths: Vec<String> = applied
            .ignored
            .into_iter()
            .filter(|change| !matches!(change.after, None | Some(Value::Null)))
            .map(|change| change.path)
            .collect();
        (!paths.is_empty()).then_some((trial, paths))
    })?;
    let found = format!(
        "{} changed, first for {:?}",
        paths.join(", "),
        trial.sample.name
    );
    Some(Check::warn(
        CheckKind::Ignored.of(handler),
        "only input and data are changed",
        found,
        "return user, headers and tenant_id unchanged; their changes are ignored, and so are all changes of a result that is not ok",
    ).into())
}

/// A refusal that nobody can explain to a client.
fn unexplained(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let trial = trials.iter().find(|trial| {
        trial
            .seen
            .hook_result()
            .is_some_and(|result| !result.ok && result.error.is_none())
    })?;
    let found = format!(
        "{} without one, first for {:?}",
        word(false),
        trial.sample.name
    );
    Some(
        Check::warn(
            CheckKind::Error.of(handler),
            "an \"error\" with each refusal",
            found,
            "say why in \"error\"; without it a host can only report that a plugin refused",
        )
        .into(),
    )
}

/// Memory beyond the limit was asked for, and the guest coped.
fn refused_memory(prober: &Prober<'_>, handler: &str, trials: &[&Trial]) -> Option<Row> {
    let trial = trials
        .iter()
        .find(|trial| trial.seen.refused_growth && trial.seen.result.is_ok())?;
    let expected = format!(
        "at most {} pages of 64 KiB",
        prober.module.limits.max_memory_bytes >> 16
    );
    let found = format!(
        "more asked for and refused, first for {:?}",
        trial.sample.name
    );
    Some(
        Check::warn(
            CheckKind::Memory.of(handler),
            expected,
            found,
            "use less memory, or raise --max-memory here and in production",
        )
        .into(),
    )
}
