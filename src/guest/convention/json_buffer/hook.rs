//! A hook's context as input JSON, and its result's JSON checked.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{bad, duplicate, mistyped, unread, utf8};
use crate::fault::{BadAnswer, Fault};
use crate::hook::{CONTEXT_KEYS, HookContext, HookResult, HookUser, USER_KEYS};
use crate::json::numbers::with_all_digits;

/// Keys of a result.
pub(crate) const RESULT_KEYS: [&str; 4] = ["ok", "ctx", "error", "details"];

/// A result that may be acted upon.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedResult {
    /// The result itself.
    pub result: HookResult,
    /// Paths of keys the contract does not know; local commands report
    /// them, `serve` ignores them.
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
        return Err(bad(
            BadAnswer::NoOk,
            "the answer must have \"ok\": true or false",
        ));
    };
    let all_digits = given(ctx).and_then(|ctx| {
        let mut ctx = with_all_digits(ctx.get())?;
        let kept = ["input", "data"].map(|key| (key, ctx.get_mut(key).map(Value::take)));
        Some(Box::new(kept.into_iter().collect()))
    });
    let result = HookResult {
        ok: value("$.ok", "true or false", ok)?,
        ctx: given(ctx)
            .map(|ctx| context(ctx, &mut unknown_keys))
            .transpose()?,
        error: optional("$.error", "a string", error)?,
        details: optional("$.details", "an array", details)?,
        all_digits,
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
                BadAnswer::IncompleteContext,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hook::Hook;
    use crate::hook::tests::{ada, any_context};

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
    }
}
