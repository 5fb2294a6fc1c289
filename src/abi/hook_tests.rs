//! Results of hooks, right and wrong, and what is applied of them.

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
    let no =
        checked(r#"{"ok":false,"ctx":null,"error":"no","details":[{"f":1}],"ctz":1,"details2":2}"#)
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
        (r#"{"ok":true,"ok":false}"#, "$.ok stands more than once"),
        (
            r#"{"ok":true,"\u006fk":false}"#,
            "$.ok stands more than once",
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
    let Applied { context, ignored } = apply(ada(), &wanted);
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
    let Applied { context, ignored } = apply(before.clone(), &wanted);
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
        let Applied { context, ignored } = apply(before.clone(), &result);
        prop_assert_eq!(&context.user, &before.user);
        prop_assert_eq!(&context.headers, &before.headers);
        prop_assert_eq!(&context.tenant_id, &before.tenant_id);
        if !ok {
            prop_assert_eq!(&context, &before);
        }
        prop_assert_eq!(ignored.is_empty(), context == wanted);
    }
}
