//! Hooks: the context a plugin is called with, its result, and what of that
//! result is applied to the context.
//!
//! Only `input` and `data` come back into the context. Whatever else a hook
//! changed is ignored, and listed so that it can be reported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fault::Fault;

/// Exports of this ABI, in the order of [`Hook::ALL`].
pub const HANDLERS: [&str; 2] = [Hook::Before.name(), Hook::After.name()];

/// Keys of a context.
pub const CONTEXT_KEYS: [&str; 5] = ["input", "data", "user", "headers", "tenant_id"];
/// Keys of a context's `user`.
pub(crate) const USER_KEYS: [&str; 2] = ["id", "role"];
/// How the error of a result begins that stands for a fault; its code follows.
pub const TRAPPED: &str = "WASM plugin trapped: ";

named! {
    /// On which side of the host's own work a hook runs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Hook {
        /// Before it: may change or refuse the input.
        Before => "before_hook",
        /// After it: may change the data that came of it.
        After => "after_hook",
    }
}

impl Hook {
    /// The hook a host calls with this context: with `data` the one after.
    #[must_use]
    pub const fn of(context: &HookContext) -> Self {
        match context.data {
            None => Self::Before,
            Some(_) => Self::After,
        }
    }
}

/// What a hook is called with.
/// ```
/// use wasm_agent_kit::hook::HookContext;
///
/// let context: HookContext = serde_json::from_str(r#"{"input": {"name": "Ada"}}"#)?;
/// assert_eq!(context.input["name"], "Ada");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HookContext {
    /// What the host is about to work on; a hook may change it.
    #[serde(default)]
    pub input: Map<String, Value>,
    /// What came of the host's work, none before it; a hook may change it.
    #[serde(default)]
    pub data: Option<Value>,
    /// Who asks; a hook may read it.
    #[serde(default)]
    pub user: Option<HookUser>,
    /// Request headers; a hook may read them.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Whose data it is; a hook may read it.
    #[serde(default)]
    pub tenant_id: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookUser {
    /// Who.
    pub id: String,
    /// As what.
    pub role: String,
}

/// What a hook answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookResult {
    /// Whether the host may go on.
    pub ok: bool,
    /// The context as the hook would have it, before anything is applied.
    pub ctx: Option<HookContext>,
    /// Why not, where it may not.
    pub error: Option<String>,
    /// More about that, field by field.
    pub details: Option<Vec<Value>>,
    /// `input` and `data` of `ctx` with all digits of their numbers, where a value
    /// does not hold all of them: the host goes on with the nearest double, and
    /// two results with other digits are not the same.
    #[serde(skip)]
    pub all_digits: Option<Box<Value>>,
}

impl HookResult {
    /// The host may go on and nothing is changed: also what an empty answer
    /// and a hook that the module lacks mean.
    #[must_use]
    pub const fn unchanged() -> Self {
        Self {
            ok: true,
            ctx: None,
            error: None,
            details: None,
            all_digits: None,
        }
    }

    /// What a fault is to the host: no crash, and no leave to go on.
    #[must_use]
    pub fn trapped(fault: &Fault) -> Self {
        Self {
            ok: false,
            error: Some(format!("{TRAPPED}{}", fault.code)),
            ..Self::unchanged()
        }
    }
}

/// One difference between two contexts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where, as a JSON pointer (RFC 6901) into the context.
    pub path: String,
    /// What stood there, none where nothing did.
    pub before: Option<Value>,
    /// What stands there now, none where nothing does.
    pub after: Option<Value>,
}

/// A context after a hook, and what the hook may not have changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The context the host goes on with.
    pub context: HookContext,
    /// Whether `input` or `data` are otherwise than before.
    pub changed: bool,
    /// What was ignored of the result.
    pub ignored: Vec<Change>,
}

/// Takes `input` and `data` from the result, where the host may go on.
///
/// A `data` of null keeps what was there, as the published runtime has it.
#[must_use]
pub fn apply(context: HookContext, result: &HookResult) -> Applied {
    let Some(wanted) = &result.ctx else {
        return Applied {
            context,
            changed: false,
            ignored: Vec::new(),
        };
    };
    let mut context = context;
    let mut changed = false;
    if result.ok {
        if context.input != wanted.input {
            changed = true;
            context.input.clone_from(&wanted.input);
        }
        if wanted.data.is_some() && context.data != wanted.data {
            changed = true;
            context.data.clone_from(&wanted.data);
        }
    }
    Applied {
        changed,
        ignored: changes(&context, wanted),
        context,
    }
}

/// Whether a hook may change the place that a JSON pointer leads to.
pub(crate) fn may_change(pointer: &str) -> bool {
    matches!(pointer.split('/').nth(1), Some("input" | "data"))
}

/// Where two contexts differ, down to the innermost value that does.
#[must_use]
pub fn changes(before: &HookContext, after: &HookContext) -> Vec<Change> {
    if before == after {
        return Vec::new();
    }
    let as_value = |context| serde_json::to_value(context).unwrap_or(Value::Null);
    let mut found = Vec::new();
    differ(
        String::new(),
        Some(&as_value(before)),
        Some(&as_value(after)),
        &mut found,
    );
    found
}

fn differ(path: String, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<Change>) {
    match (before, after) {
        (Some(before), Some(after)) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(added) {
                let step = key.replace('~', "~0").replace('/', "~1");
                let path = format!("{path}/{step}");
                differ(path, before.get(key), after.get(key), out);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                differ(format!("{path}/{at}"), Some(before), Some(after), out);
            }
        }
        _ => out.push(Change {
            path,
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn hook_context(value: Value) -> HookContext {
        serde_json::from_value(value).unwrap()
    }

    pub(crate) fn ada() -> HookContext {
        hook_context(json!({
            "input": {"name": "Ada", "tags": [1, 2]},
            "user": {"id": "7", "role": "user"},
            "headers": {"b": "2", "a": "1"},
        }))
    }

    #[test]
    fn input_and_data_come_back_and_nothing_else_does() {
        let wanted = HookResult {
            ctx: Some(hook_context(json!({
                "input": {"name": "ada", "new": true},
                "data": {"a/b": 1},
                "headers": {"a": "1", "b": "3"},
                "tenant_id": "other",
            }))),
            ..HookResult::unchanged()
        };
        let Applied {
            context, ignored, ..
        } = apply(ada(), &wanted);
        assert_eq!(
            context,
            HookContext {
                input: wanted.ctx.as_ref().unwrap().input.clone(),
                data: Some(json!({"a/b": 1})),
                ..ada()
            }
        );
        let paths: Vec<&str> = ignored.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/user", "/headers/b", "/tenant_id"]);
        assert_eq!(ignored[1].before, Some(json!("2")));
        assert_eq!(ignored[1].after, Some(json!("3")));

        let no = HookResult {
            ok: false,
            ..wanted
        };
        let refused = apply(ada(), &no);
        assert_eq!(refused.context, ada(), "a no changes nothing");
        assert_eq!(refused.ignored.len(), 7);
    }

    #[test]
    fn data_of_null_keeps_what_was_there() {
        let before = HookContext {
            data: Some(json!([1])),
            ..ada()
        };
        let wanted = HookResult {
            ctx: Some(ada()),
            ..HookResult::unchanged()
        };
        let Applied {
            context, ignored, ..
        } = apply(before.clone(), &wanted);
        assert_eq!(context, before);
        assert_eq!(ignored[0].path, "/data");
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let after = hook_context(json!({
            "input": {"tags": [1, 3], "a~/b": null},
            "user": {"id": "7", "role": "user"},
            "headers": {"b": "2", "a": "1"},
        }));
        let paths: Vec<String> = changes(&ada(), &after)
            .into_iter()
            .map(|change| change.path)
            .collect();
        assert_eq!(paths, ["/input/name", "/input/tags/1", "/input/a~0~1b"]);
        assert_eq!(changes(&ada(), &ada()), []);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z/~\u{e9}\"]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z/~]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    prop_compose! {
        pub(crate) fn any_context()(
            input in prop::collection::btree_map("[a-z]{1,3}", json_value(), 0..4),
            data in prop::option::of(json_value().prop_filter("null is none", |data| !data.is_null())),
            user in prop::option::of(("[a-z]{0,3}", "[a-z]{0,3}")),
            headers in prop::collection::btree_map("[a-z-]{1,3}", "[ -~]{0,6}", 0..4),
            tenant_id in prop::option::of("[a-z]{0,3}"),
        ) -> HookContext {
            HookContext {
                input: input.into_iter().collect(),
                data,
                user: user.map(|(id, role)| HookUser { id, role }),
                headers,
                tenant_id,
            }
        }
    }

    proptest! {
        /// A hook never changes who asks, the headers or the tenant, and what
        /// differs afterwards is listed without a gap.
        #[test]
        fn nothing_but_input_and_data_is_ever_applied(
            before in any_context(),
            wanted in any_context(),
            ok in any::<bool>(),
        ) {
            let result = HookResult { ok, ctx: Some(wanted.clone()), ..HookResult::unchanged() };
            let Applied { context, ignored, .. } = apply(before.clone(), &result);
            prop_assert_eq!(&context.user, &before.user);
            prop_assert_eq!(&context.headers, &before.headers);
            prop_assert_eq!(&context.tenant_id, &before.tenant_id);
            if !ok {
                prop_assert_eq!(&context, &before);
            }
            prop_assert_eq!(ignored.is_empty(), context == wanted);
        }
    }
}
