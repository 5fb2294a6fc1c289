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
/// How the error of a result begins that stands for a fault; its code follows.
pub const TRAPPED: &str = "WASM plugin trapped: ";
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
            error: Some(format!("{TRAPPED}{}", fault.code)),
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
        raw.map(ToOwned::to_owned).ok_or_else(|| {
            bad(
                "incomplete-ctx",
                format!(
                    "$.ctx.{key} must be {what}, found nothing; return the whole context, or null"
                ),
            )
        })
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
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn hook_context(value: Value) -> HookContext {
        serde_json::from_value(value).unwrap()
    }

    fn ada() -> HookContext {
        hook_context(json!({
            "input": {"name": "Ada", "tags": [1, 2]},
            "user": {"id": "7", "role": "user"},
            "headers": {"b": "2", "a": "1"},
        }))
    }

    fn checked(text: &str) -> Result<CheckedResult, String> {
        check_result(text.as_bytes()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_input_has_every_key_in_contract_order_and_sorted_headers() {
        let mut out = Vec::new();
        write_input(&ada(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"input":{"name":"Ada","tags":[1,2]},"data":null,"user":{"id":"7","role":"user"},"headers":{"a":"1","b":"2"},"tenant_id":null}"#
        );
        assert_eq!(Hook::of(&ada()), Hook::Before);
        assert_eq!(Hook::from_name("after_hook"), Some(Hook::After));
    }

    #[test]
    fn only_ok_is_required() {
        let yes = checked(r#"{"ok":true}"#).unwrap();
        assert_eq!(yes.result, HookResult::unchanged());
        let no = checked(
            r#"{"ok":false,"ctx":null,"error":"no","details":[{"f":1}],"ctz":1,"details2":2}"#,
        )
        .unwrap();
        assert!(!no.result.ok);
        assert_eq!(no.result.error.as_deref(), Some("no"));
        assert_eq!(no.result.details, Some(vec![json!({"f": 1})]));
        assert_eq!(no.unknown_keys, ["$.ctz", "$.details2"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (answer, says) in [
            ("", "bad-answer:not-json"),
            ("{", "bad-answer:not-json"),
            (r#"{"ok":true} x"#, "bad-answer:not-json"),
            ("[]", "bad-answer:not-an-object"),
            ("true", "bad-answer:not-an-object"),
            ("{}", "bad-answer:no-ok"),
            (r#"{"ok":null}"#, "$.ok must be true or false, found null"),
            (r#"{"ok":"true"}"#, "$.ok must be true or false"),
            (r#"{"ok":true,"ok":false}"#, "$.ok occurs more than once"),
            (
                r#"{"ok":true,"\u006fk":false}"#,
                "$.ok occurs more than once",
            ),
            (
                r#"{"ok":false,"error":7}"#,
                "$.error must be a string, found 7",
            ),
            (
                r#"{"ok":false,"details":{}}"#,
                "$.details must be an array, found {}",
            ),
            (
                r#"{"ok":true,"ctx":[]}"#,
                "$.ctx must be a context object, found []",
            ),
            (
                r#"{"ok":true,"ctx":{"headers":{}}}"#,
                "$.ctx.input must be an object, found nothing",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{}}}"#,
                "$.ctx.headers must be an object of strings, found nothing",
            ),
            (
                r#"{"ok":true,"ctx":{"input":[],"headers":{}}}"#,
                "$.ctx.input must be an object, found []",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{},"headers":{"a":1}}}"#,
                "$.ctx.headers must be an object of strings",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{},"headers":{},"user":"root"}}"#,
                "$.ctx.user must be an object with",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{},"headers":{},"user":{"id":"1"}}}"#,
                "$.ctx.user must be an object with",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{},"headers":{},"user":{"id":1,"role":"a"}}}"#,
                "$.ctx.user.id must be a string, found 1",
            ),
            (
                r#"{"ok":true,"ctx":{"input":{},"headers":{},"tenant_id":1}}"#,
                "$.ctx.tenant_id must be a string, found 1",
            ),
        ] {
            let fault = checked(answer).unwrap_err();
            assert!(fault.contains(says), "{answer}: {fault}");
        }
        assert!(
            check_result(b"\xff")
                .unwrap_err()
                .to_string()
                .contains("not-utf8")
        );
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
        fn any_context()(
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
        /// Whatever a guest answers, it is read or a fault, never a panic.
        #[test]
        fn any_answer_is_read_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check_result(&bytes);
        }

        /// A context goes out and comes back as it was.
        #[test]
        fn any_context_reads_back(context in any_context()) {
            let mut answer = br#"{"ok":true,"ctx":"#.to_vec();
            write_input(&context, &mut answer);
            answer.push(b'}');
            let read = check_result(&answer).unwrap();
            prop_assert_eq!(read.result.ctx, Some(context));
        }

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
