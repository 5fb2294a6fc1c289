//! The hook ABI: a context in, a result checked, and what of it is applied.
//!
//! Only `input` and `data` come back into the context. Whatever else a hook
//! changed is ignored, and listed so that it can be reported.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::answer::{bad, duplicate, mistyped, unread, utf8};
use crate::fault::Fault;

/// Exports of this ABI, in the order of [`Hook::ALL`].
pub const HANDLERS: [&str; 2] = ["before_hook", "after_hook"];

/// Keys of a result.
pub const RESULT_KEYS: [&str; 4] = ["ok", "ctx", "error", "details"];
/// Keys of a context.
pub const CONTEXT_KEYS: [&str; 5] = ["input", "data", "user", "headers", "tenant_id"];
const USER_KEYS: [&str; 2] = ["id", "role"];

/// On which side of the host's own work a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Before it: may change or refuse the input.
    Before,
    /// After it: may change the data that came of it.
    After,
}

impl Hook {
    /// Both, in the order they run in.
    pub const ALL: [Self; 2] = [Self::Before, Self::After];

    /// The export's name, also in fixtures, captures and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        HANDLERS[self as usize]
    }

    /// The hook that [`Hook::name`] spells, if any does.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

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
        }
    }

    /// What a fault is to the host: no crash, and no leave to go on.
    #[must_use]
    pub fn trapped(fault: &Fault) -> Self {
        Self {
            ok: false,
            error: Some(format!("WASM plugin trapped: {}", fault.code)),
            ..Self::unchanged()
        }
    }
}

/// A result that may be acted upon.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedResult {
    /// The result itself.
    pub result: HookResult,
    /// Paths of keys the contract does not know; reported on the desk,
    /// ignored in production.
    pub unknown_keys: Vec<String>,
}

/// Writes the context as the input object of a hook: keys in contract order,
/// header names sorted, so equal contexts give equal bytes.
pub fn write_input(context: &HookContext, out: &mut Vec<u8>) {
    // A context has text keys only and a Vec takes all, so this cannot fail.
    let _ = serde_json::to_writer(out, context);
}

/// Checks what a hook answered.
///
/// # Errors
/// A [`Fault`] of code `bad-answer:…` that names the JSON path.
pub fn check_result(bytes: &[u8]) -> Result<CheckedResult, Fault> {
    let text = utf8(bytes)?;
    let object: Object<'_> = serde_json::from_str(text).map_err(|error| unread(&error, text))?;
    let mut unknown_keys = Vec::new();
    let keys = object.known("$", RESULT_KEYS, &mut unknown_keys)?;
    let [ok, ctx, error, details] = keys;
    let Some(ok) = ok else {
        return Err(bad("no-ok", "the answer must have \"ok\": true or false"));
    };
    let result = HookResult {
        ok: value("$.ok", "true or false", ok)?,
        ctx: given(ctx)
            .map(|ctx| context(ctx, &mut unknown_keys))
            .transpose()?,
        error: optional("$.error", "a string", error)?,
        details: optional("$.details", "an array", details)?,
    };
    Ok(CheckedResult {
        result,
        unknown_keys,
    })
}

fn context(raw: &RawValue, unknown: &mut Vec<String>) -> Result<HookContext, Fault> {
    let path = "$.ctx";
    let object: Object<'_> = value(path, "a context object", raw)?;
    let [input, data, user, headers, tenant_id] = object.known(path, CONTEXT_KEYS, unknown)?;
    // As the published runtime has it: these two may not be left out.
    let required = |raw: Option<&RawValue>, key: &str, what: &str| {
        raw.map(ToOwned::to_owned)
            .ok_or_else(|| bad("incomplete-ctx", format!("$.ctx.{key} must be {what}, found nothing; give the whole context back, or none")))
    };
    let input = required(input, "input", "an object")?;
    let headers = required(headers, "headers", "an object of strings")?;
    Ok(HookContext {
        input: value("$.ctx.input", "an object", &input)?,
        data: optional("$.ctx.data", "a JSON value", data)?,
        user: given(user)
            .map(|user| hook_user(user, unknown))
            .transpose()?,
        headers: value("$.ctx.headers", "an object of strings", &headers)?,
        tenant_id: optional("$.ctx.tenant_id", "a string", tenant_id)?,
    })
}

fn hook_user(raw: &RawValue, unknown: &mut Vec<String>) -> Result<HookUser, Fault> {
    let path = "$.ctx.user";
    let what = "an object with the strings \"id\" and \"role\"";
    let object: Object<'_> = value(path, what, raw)?;
    let [Some(id), Some(role)] = object.known(path, USER_KEYS, unknown)? else {
        return Err(mistyped(path, what, raw));
    };
    Ok(HookUser {
        id: value("$.ctx.user.id", "a string", id)?,
        role: value("$.ctx.user.role", "a string", role)?,
    })
}

/// `null` is as good as nothing.
fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

fn optional<'a, T: Deserialize<'a>>(
    path: &str,
    what: &str,
    raw: Option<&'a RawValue>,
) -> Result<Option<T>, Fault> {
    given(raw).map(|raw| value(path, what, raw)).transpose()
}

fn value<'a, T: Deserialize<'a>>(path: &str, what: &str, raw: &'a RawValue) -> Result<T, Fault> {
    serde_json::from_str(raw.get()).map_err(|_mistyped| mistyped(path, what, raw))
}

/// The values of an object by their keys, of which none is judged yet.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// The values of the keys that are known here.
    fn known<const N: usize>(
        self,
        path: &str,
        keys: [&str; N],
        unknown: &mut Vec<String>,
    ) -> Result<[Option<&'a RawValue>; N], Fault> {
        let mut values = [None; N];
        for (key, value) in self.0 {
            match keys.iter().position(|known| *known == key) {
                None => unknown.push(format!("{path}.{key}")),
                Some(slot) if values[slot].is_some() => {
                    return Err(duplicate(&format!("{path}.{key}")));
                }
                Some(slot) => values[slot] = Some(value),
            }
        }
        Ok(values)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object<'de>, M::Error> {
                let mut entries = Vec::new();
                while let Some(Key(key)) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Object(entries))
            }
        }
        reader.deserialize_map(ObjectVisitor)
    }
}

/// A key, borrowed where it holds no escape.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

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
            ignored: Vec::new(),
        };
    };
    let mut context = context;
    if result.ok {
        context.input.clone_from(&wanted.input);
        if wanted.data.is_some() {
            context.data.clone_from(&wanted.data);
        }
    }
    Applied {
        ignored: changes(&context, wanted),
        context,
    }
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
#[path = "hook_tests.rs"]
mod tests;
