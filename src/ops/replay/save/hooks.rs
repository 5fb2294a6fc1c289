//! Hooks as a fixture: one of them, or both where the second goes on with what
//! the first left.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::Made;
use crate::capture::{Found, Redactor};
use crate::fixture::hook::{ActualHook, whole};
use crate::guest::convention::json_buffer::input_json;
use crate::hook::{Hook, HookContext};
use crate::ops::replay::compare::Played;
use crate::policy::{HandledHook, Policy};
use crate::question::Question;

/// One hook and what it is called with.
type Call = (Hook, HookContext);

pub(super) fn of_contexts(
    inputs: &[Question<'_>],
    (plugin, redactor, mut found): (&Policy, &Redactor, Found),
) -> Result<Made, String> {
    let mut notes = Vec::new();
    let mut original: Vec<Call> = Vec::new();
    let mut calls: Vec<Call> = Vec::new();
    for input in inputs {
        let Question::Hook(hook, context) = input else {
            continue;
        };
        let json = redactor.input(&input_json(input), &mut found);
        let redacted = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        original.push((*hook, context.as_ref().clone()));
        calls.push((*hook, redacted));
    }
    let Some((hook, context)) = calls.first().cloned() else {
        return Err("no hook".to_owned());
    };
    let first = plugin.hook(hook, context.clone());
    // As `run` plays a pair: the second hook gets what the first left.
    let second = match calls.get(1) {
        Some((Hook::After, given)) if hook == Hook::Before && first.result.ok => {
            let pair = HookContext {
                data: given.data.clone(),
                ..first.context.clone()
            };
            if pair == *given && pair.data.is_some() {
                Some(plugin.hook(Hook::After, pair))
            } else {
                notes.push(
                    "the after_hook was recorded with a context that before_hook does not produce, so the fixture has only the before_hook".to_owned(),
                );
                None
            }
        }
        _ => None,
    };
    let context = serde_json::to_value(&context).unwrap_or_default();
    let value = match &second {
        None => json!({"hook": hook.name(), "context": context, "expect": expected(&first)}),
        Some(second) => json!({
            "context": context,
            "before": {"expect": expected(&first)},
            "after": {"data": calls.get(1).map(|call| &call.1.data), "expect": expected(second)},
        }),
    };
    super::read(&value)?;
    let mut made = Made {
        value,
        found,
        notes,
    };
    if !made.found.fields.is_empty() {
        let played = Played {
            answered: std::iter::once(first)
                .chain(second)
                .map(Into::into)
                .collect(),
        };
        let again = original
            .into_iter()
            .take(played.answered.len())
            .map(|(hook, context)| plugin.ask(&Question::Hook(hook, Cow::Owned(context))))
            .collect();
        made.compare(&Played { answered: again }, &played);
    }
    Ok(made)
}

fn expected(handled: &HandledHook) -> Value {
    whole(ActualHook {
        result: &handled.result,
        context: &handled.context,
        ignored: &handled.ignored,
        fault: handled.fault.as_ref(),
        cost: handled.cost.as_ref(),
    })
}
