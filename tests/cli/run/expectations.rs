//! What an expectation says is what is checked, and each can fail.

use crate::support::guests::{Answers, answering};
use crate::support::{Done, TestDir, run, steps};

use serde_json::{Value, json};

/// An answer to a request, checked against an expectation.
fn request(answer: &str, expect: &str) -> Done {
    event(
        "request_headers",
        r#"{"method":"GET","uri":"/"}"#,
        (answer, expect),
    )
}

fn event(name: &str, input: &str, (answer, expect): (&str, &str)) -> Done {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", answer);
    let text = format!(r#"{{"event":"{name}","input":{input},"expect":{expect}}}"#);
    run(&module, &[&dir.file("f.json", text)], &[])
}

/// A hook's answer, checked against an expectation.
fn hook(answer: &str, expect: &str) -> Done {
    let dir = TestDir::new();
    let module = dir.file("m.wat", Answers::of([answer]).hook_wat());
    let text = format!(r#"{{"context":{{"input":{{"n":"0000"}}}},"expect":{expect}}}"#);
    run(&module, &[&dir.file("f.json", text)], &[])
}

/// The first mismatch.
fn missed(done: &Done) -> Value {
    done.assert_code(1);
    steps(&done.json())[0].0["mismatches"][0].clone()
}

/// What is said of a fixture that cannot be used.
fn refused(done: &Done) -> String {
    done.assert_code(3);
    let report = done.json();
    report["fixtures"][0]["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned()
}

const ALLOW: &str = r#"{"decision":"allow"}"#;
const OK: &str = r#"{"ok":true}"#;

#[test]
fn what_checks_nothing_is_refused_by_name() {
    for (expect, name) in [
        ("{}", "expect"),
        (r#"{"tags":[]}"#, "tags"),
        (r#"{"tags":{}}"#, "tags"),
        (r#"{"rule_ids":{"all":[]}}"#, "rule_ids.all"),
        (r#"{"reason_codes":{"none":[]}}"#, "reason_codes.none"),
        (r#"{"tags":{"regex":""}}"#, "tags.regex"),
        (r#"{"budget":{}}"#, "budget"),
        (r#"{"budget":{"fuel":null}}"#, "budget.fuel"),
        (r#"{"response":{}}"#, "response"),
        (r#"{"response":{"audit":{}}}"#, "response.audit"),
        (
            r#"{"response":{"decision":"allow","audit":{"tags":[]}}}"#,
            "response.audit.tags",
        ),
        (r#"{"request_headers":{}}"#, "request_headers"),
        (r#"{"response_headers":{"x-a":{}}}"#, "response_headers.x-a"),
        (
            r#"{"response_headers":{"x-a":null}}"#,
            "response_headers.x-a",
        ),
        (r#"{"body":{"contains":""}}"#, "body.contains"),
        (r#"{"fault":{"regex":""}}"#, "fault.regex"),
        (r#"{"url":{}}"#, "url"),
        (r#"{"status":null}"#, "status"),
        (r#"{"decision":"allow","body":null}"#, "body"),
        (r#"{"exact_response":null}"#, "exact_response"),
        (r#"{"request_body":{"exact":null}}"#, "request_body.exact"),
    ] {
        let said = refused(&request(ALLOW, expect));
        assert!(said.starts_with(&format!("{name}: ")), "{expect}: {said}");
        assert!(said.contains("checks nothing"), "{expect}: {said}");
    }
    for (expect, name) in [
        ("{}", "expect"),
        (r#"{"absent":[]}"#, "absent"),
        (r#"{"ctx":{}}"#, "ctx"),
        (r#"{"ctx":null}"#, "ctx"),
        (r#"{"ctx":{"input":{"a":[{}]}}}"#, "ctx.input.a.0"),
        (r#"{"error":null}"#, "error"),
        (r#"{"details":[]}"#, "details"),
        (r#"{"details":null}"#, "details"),
        (r#"{"exact_details":null}"#, "exact_details"),
        (r#"{"ignored":[]}"#, "ignored"),
        (r#"{"ignored":{"none":[]}}"#, "ignored.none"),
    ] {
        let said = refused(&hook(OK, expect));
        assert!(said.starts_with(&format!("{name}: ")), "{expect}: {said}");
    }
    let null = refused(&request(ALLOW, "null"));
    assert!(
        null.contains("an object that says what must come"),
        "{null}"
    );
}

#[test]
fn a_key_that_checks_nothing_is_shown_where_it_stands() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", ALLOW);
    let text = "{\n  \"event\": \"request_headers\",\n  \"input\": {\"method\": \"GET\", \"uri\": \"/\"},\n  \"expect\": {\n    \"decision\": \"allow\",\n    \"tags\": []\n  }\n}\n";
    let report = run(&module, &[&dir.file("f.json", text)], &[]).json();
    let error = &report["fixtures"][0]["error"];
    assert_eq!((&error["line"], &error["column"]), (&json!(6), &json!(5)));
}

#[test]
fn what_no_answer_can_have_is_refused() {
    for expect in [
        r#"{"response_headers":{"x a":{"absent":true}}}"#,
        r#"{"response_headers":{"x-a":{"removed":true,"exact":"1"}}}"#,
        r#"{"response_headers":{"x-a":{"removed":false}}}"#,
        r#"{"body":{"absent":true,"exact":"no"}}"#,
        r#"{"response_body":{"absent":true,"base64":"AA=="}}"#,
        r#"{"response_headers":{"x-a":"1","x-a":"2"}}"#,
        r#"{"response":{"needs_more":true,"needs_more":false}}"#,
    ] {
        refused(&request(ALLOW, expect));
    }
    for path in [
        "/password",
        "input/password",
        "/user/password",
        "/headers/a/b",
        "/tenant_id/0",
        "/",
        "",
    ] {
        for key in ["absent", "ignored"] {
            let said = refused(&hook(OK, &json!({key: [path]}).to_string()));
            assert!(said.contains(&format!("{path:?}")), "{said}");
        }
        refused(&hook(OK, &json!({"ignored": {"none": [path]}}).to_string()));
    }
    // A hook may change these.
    for path in ["/input", "/input/a", "/data", "/data/0"] {
        for expect in [
            json!([path]),
            json!({"none": [path]}),
            json!({"exact": [path]}),
        ] {
            let said = refused(&hook(OK, &json!({"ignored": expect}).to_string()));
            assert!(said.contains("so it is never ignored; use ctx"), "{said}");
        }
    }
    // These are always there, null or empty.
    for (path, instead) in [
        ("/user", r#"{"ctx": {"user": null}}"#),
        ("/tenant_id", r#"{"ctx": {"tenant_id": null}}"#),
        ("/data", r#"{"ctx": {"data": null}}"#),
        ("/input", r#""/input/password""#),
        ("/headers", r#""/headers/password""#),
    ] {
        let said = refused(&hook(OK, &json!({"absent": [path]}).to_string()));
        assert!(said.contains(instead), "{said}");
        assert!(said.contains("a context always has"), "{said}");
    }
    for path in ["/user/id", "/headers/a~1b", "/input/a", "/data/0"] {
        hook(OK, &json!({"absent": [path]}).to_string()).assert_code(0);
    }
}

/// A place is touched with what is below it, and with what is above.
#[test]
fn places_that_a_hook_may_not_touch_are_found_above_and_below() {
    let answer = |user: Value, headers: Value, tenant: Value| {
        json!({"ok": true, "ctx": {"input": {"n": "1"}, "data": null, "user": user, "headers": headers, "tenant_id": tenant}})
            .to_string()
    };
    let check = |answer: &str, ignored: Value| {
        let dir = TestDir::new();
        let module = dir.file("m.wat", Answers::of([answer]).hook_wat());
        let user = json!({"id": "7", "role": "user"});
        let context = json!({"input": {"n": "0000"}, "user": user, "headers": {"a": "1"}});
        let text = json!({"context": context, "expect": {"ignored": ignored}}).to_string();
        // The digits stand at the beginning of the input.
        let done = run(&module, &[&dir.file("f.json", text)], &[]);
        done.code.unwrap()
    };
    let user = json!({"id": "7", "role": "user"});
    let admin = json!({"id": "7", "role": "admin"});
    let escalates = answer(admin, json!({"a": "1"}), Value::Null);
    let anonymous = answer(Value::Null, json!({"a": "1"}), Value::Null);
    let respelled = answer(user.clone(), json!({"a": "1", "ab": "2"}), Value::Null);
    let moved = answer(user, json!({"a": "1"}), json!("t"));
    for (answer, path, is_touched) in [
        (&escalates, "/user", true),
        (&escalates, "/user/role", true),
        (&escalates, "/user/id", false),
        (&escalates, "/headers", false),
        (&anonymous, "/user", true),
        (&anonymous, "/user/role", true),
        (&anonymous, "/tenant_id", false),
        (&respelled, "/headers", true),
        (&respelled, "/headers/ab", true),
        (&respelled, "/headers/a", false),
        (&moved, "/tenant_id", true),
        (&moved, "/user", false),
    ] {
        let code = check(answer, json!({"none": [path]}));
        assert_eq!(code, i32::from(is_touched), "none {path}: {answer}");
        // A place below is not named by what is above.
        if *answer != anonymous {
            let code = check(answer, json!([path]));
            assert_eq!(code, i32::from(!is_touched), "all {path}: {answer}");
        }
    }
    assert_eq!(check(&escalates, json!({"exact": ["/user"]})), 1);
    assert_eq!(check(&escalates, json!(["/user", "/user/role"])), 0);
}

/// What a refusal would have changed is no change that it may not make.
#[test]
fn a_refusal_ignores_no_input() {
    let answer = r#"{"ok":false,"ctx":{"input":{"n":"1"},"data":[1],"user":null,"headers":{},"tenant_id":"t"}}"#;
    hook(answer, r#"{"ignored":{"exact":["/tenant_id"]}}"#).assert_code(0);
    hook(answer, r#"{"ignored":{"none":["/user"]}}"#).assert_code(0);
    missed(&hook(answer, r#"{"ignored":{"exact":[]}}"#));
}

#[test]
fn a_null_is_refused_with_a_hint_that_can_be_followed() {
    let can_be_absent = |done: &Done| refused(done).contains("{\"absent\": true}");
    for key in ["body", "url", "challenge_type", "fault", "request_body"] {
        assert!(can_be_absent(&request(
            ALLOW,
            &format!(r#"{{"{key}":null}}"#)
        )));
        let followed = format!(r#"{{"{key}":{{"absent":true}}}}"#);
        request(ALLOW, &followed).assert_code(0);
    }
    let header = r#"{"request_headers":{"x-a":null}}"#;
    assert!(can_be_absent(&request(ALLOW, header)));
    for key in [
        "decision",
        "status",
        "needs_more",
        "budget",
        "exact_response",
        "response",
        "tags",
    ] {
        let done = request(ALLOW, &format!(r#"{{"{key}":null}}"#));
        assert!(!can_be_absent(&done), "{key}");
    }
    for key in ["ok", "exact_details", "ctx", "ignored", "absent"] {
        assert!(
            !can_be_absent(&hook(OK, &format!(r#"{{"{key}":null}}"#))),
            "{key}"
        );
    }
    for key in ["error", "details"] {
        assert!(
            can_be_absent(&hook(OK, &format!(r#"{{"{key}":null}}"#))),
            "{key}"
        );
    }
}

#[test]
fn an_expectation_that_no_module_can_miss_is_noted() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", ALLOW);
    let hints = |headers: &str, flags: &[&str]| {
        let text = format!(
            r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{{{headers}}}}}"#
        );
        let done = run(&module, &[&dir.file("f.json", text)], flags);
        done.assert_code(0);
        let report = done.json();
        assert_eq!(report["fixtures"][0]["status"], "passed");
        steps(&report)[0].0["hints"].clone()
    };
    let framing = r#""request_headers":{"Content-Length":{"absent":true},"x-a":{"absent":true}},"response_headers":{"proxy-x":{"absent":true}}"#;
    let of = |headers: &[&str]| json!([{"kind": "cannot_fail", "headers": headers}]);
    assert_eq!(hints(framing, &[]), of(&["content-length", "proxy-x"]));
    let lifted = hints(framing, &["--allow-header", "content-length"]);
    assert_eq!(lifted, of(&["proxy-x"]));
    let other = r#""request_headers":{"x-a":{"absent":true}}"#;
    assert_eq!(hints(other, &[]), json!([]));
}

/// A hook that answers in turn, and what is the same to its host.
#[test]
fn repeats_of_a_hook_are_compared_as_its_host_applies_them() {
    let ctx = |input: &str, rest: &str| {
        format!(r#"{{"ok":true,"ctx":{{"input":{{{input}}},"data":null,{rest}}}}}"#)
    };
    let rest = r#""user":null,"headers":{},"tenant_id":null"#;
    let other = r#""user":{"id":"1","role":"x"},"headers":{"a":"b"},"tenant_id":"t""#;
    for (one, two, code) in [
        (ctx(r#""p":1,"q":2"#, rest), ctx(r#""q":2,"p":1"#, rest), 0),
        (ctx(r#""p":1"#, rest), ctx(r#""p":1"#, other), 0),
        (ctx(r#""p":1"#, rest), ctx(r#""p":1.0"#, rest), 0),
        (
            r#"{"ok":false,"error":"no"}"#.to_owned(),
            format!(
                r#"{{"ok":false,"error":"no","ctx":{{"input":{{"z":1}},"data":null,{rest}}}}}"#
            ),
            0,
        ),
        (ctx(r#""p":1"#, rest), ctx(r#""p":2"#, rest), 1),
        (ctx(r#""p":[1,2]"#, rest), ctx(r#""p":[2,1]"#, rest), 1),
        (r#"{"ok":true}"#.to_owned(), ctx(r#""p":1"#, rest), 1),
        (
            r#"{"ok":false,"error":"no"}"#.to_owned(),
            r#"{"ok":false,"error":"yes"}"#.to_owned(),
            1,
        ),
    ] {
        let dir = TestDir::new();
        let module = dir.file("m.wat", in_turn(&one, &two));
        let fixture = dir.file("f.json", r#"{"input":{"a":1}}"#);
        let flags = ["--repeat", "3", "--isolation", "pooled"];
        let done = run(&module, &[&fixture], &flags);
        assert_eq!(done.code, Some(code), "{one} and {two}");
    }
}

/// A hook that gives two answers in turn.
fn in_turn(one: &str, two: &str) -> String {
    use crate::support::guests::escaped;
    let packed = |at: usize, answer: &str| (at << 32) | answer.len();
    format!(
        r#"(module (memory (export "memory") 2) (global $n (mut i32) (i32.const 0))
        (data (i32.const 1024) "{}") (data (i32.const 8192) "{}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "before_hook") (param i32 i32) (result i64)
          (global.set $n (i32.xor (global.get $n) (i32.const 1)))
          (if (result i64) (global.get $n) (then (i64.const {})) (else (i64.const {})))))"#,
        escaped(one.as_bytes()),
        escaped(two.as_bytes()),
        packed(1024, one),
        packed(8192, two),
    )
}

#[test]
fn repeats_have_a_bound() {
    let dir = TestDir::new();
    let module = answering(&dir, "m.wat", ALLOW);
    for count in ["0", "100001", "4294967295"] {
        run(&module, &[&dir.request()], &["--repeat", count]).assert_code(2);
    }
}

/// A guest's number, and numbers that it is not.
#[test]
fn numbers_are_compared_as_they_are() {
    for (number, others) in [
        (
            "9007199254740992",
            vec!["9007199254740993", "9007199254740992.5"],
        ),
        ("18446744073709551615", vec!["18446744073709551614", "-1"]),
        ("-9223372036854775808", vec!["-9223372036854775807"]),
        ("0.30000000000000004", vec!["0.3", "0.30000000000000010"]),
        ("1.0", vec!["1.0000000000000002", "0.9999999999999999"]),
        ("100000000000000000000", vec!["100000000000000016384"]),
    ] {
        let context = |number: &str| {
            format!(
                r#"{{"input":{{"n":{number}}},"data":null,"user":null,"headers":{{}},"tenant_id":null}}"#
            )
        };
        let answer = format!(
            r#"{{"ok":false,"ctx":{},"details":[{number}]}}"#,
            context(number)
        );
        let kept = format!(r#"{{"ok":true,"ctx":{}}}"#, context(number));
        hook(
            &answer,
            &format!(r#"{{"details":[{number}],"exact_details":[{number}]}}"#),
        )
        .assert_code(0);
        hook(
            &kept,
            &format!(
                r#"{{"ctx":{{"input":{{"n":{number}}}}},"exact_ctx":{}}}"#,
                context(number)
            ),
        )
        .assert_code(0);
        for other in others {
            for expect in [
                format!(r#"{{"details":[{other}]}}"#),
                format!(r#"{{"exact_details":[{other}]}}"#),
            ] {
                let code = hook(&answer, &expect).code;
                assert!(matches!(code, Some(1 | 3)), "{number}: {expect}: {code:?}");
            }
            for expect in [
                format!(r#"{{"ctx":{{"input":{{"n":{other}}}}}}}"#),
                format!(r#"{{"exact_ctx":{}}}"#, context(other)),
            ] {
                let code = hook(&kept, &expect).code;
                assert!(matches!(code, Some(1 | 3)), "{number}: {expect}: {code:?}");
            }
        }
    }
    hook(
        r#"{"ok":true,"details":[1.0,-0.0,5e0]}"#,
        r#"{"exact_details":[1,0,5]}"#,
    )
    .assert_code(0);
}

#[test]
fn a_number_that_reading_would_round_is_refused_at_its_place() {
    for number in [
        "36893488147419103233",
        "-9223372036854775809",
        "9007199254740993.0",
        "9.007199254740993e15",
        "0.1000000000000000055",
        "1e-400",
    ] {
        let said = refused(&hook(
            OK,
            &format!(r#"{{"ctx":{{"input":{{"n":{number}}}}}}}"#),
        ));
        assert!(said.contains(&format!("found {number}")), "{said}");
    }
    for number in [
        "1e2",
        "0.10000000000000001",
        "1.5e-7",
        "123456789012345680000",
        "0.0",
    ] {
        let done = hook(OK, &format!(r#"{{"ctx":{{"input":{{"n":{number}}}}}}}"#));
        missed(&done);
    }
}

#[test]
fn null_is_not_a_key_that_is_left_out() {
    let answer = r#"{"ok":true,"ctx":{"input":{"a":1},"data":null,"user":null,"headers":{},"tenant_id":null}}"#;
    let with = r#"{"ok":true,"ctx":{"input":{"a":null},"data":null,"user":null,"headers":{},"tenant_id":null}}"#;
    let none = missed(&hook(answer, r#"{"ctx":{"input":{"b":null}}}"#));
    assert_eq!(
        (&none["path"], &none["found"]),
        (&json!("ctx.input.b"), &json!("none"))
    );
    missed(&request(
        ALLOW,
        r#"{"response":{"audit":{"confidence":null}}}"#,
    ));
    missed(&hook(
        with,
        r#"{"exact_ctx":{"input":{},"data":null,"user":null,"headers":{},"tenant_id":null}}"#,
    ));
    hook(with, r#"{"ctx":{"input":{"a":null},"user":null}}"#).assert_code(0);
}

#[test]
fn an_error_and_details_can_be_expected_not_to_be() {
    let absent = r#"{"error":{"absent":true},"details":{"absent":true}}"#;
    hook(OK, absent).assert_code(0);
    let error = missed(&hook(r#"{"ok":true,"error":"x"}"#, absent));
    assert_eq!(error["path"], "error");
    let details = missed(&hook(r#"{"ok":false,"details":[]}"#, absent));
    assert_eq!(
        (&details["path"], &details["found"]),
        (&json!("details"), &json!("[]"))
    );
    missed(&hook(OK, r#"{"details":{"absent":false}}"#));
    missed(&hook(OK, r#"{"exact_details":[]}"#));
    refused(&hook(OK, r#"{"details":{"absent":true,"exact":[]}}"#));
}

#[test]
fn a_body_is_compared_by_its_bytes() {
    let chunk = r#"{"data":"x"}"#;
    let replaced = |data: &str| {
        format!(
            r#"{{"decision":"allow","response_body_mutation":{{"action":"replace","data":"{data}","encoding":"base64"}}}}"#
        )
    };
    // 0x61 0xff 0x62, and the same with the replacement character.
    let (bytes, text) = (replaced("Yf9i"), replaced("Ye+/vWI="));
    let check = |answer: &str, expect: &str| {
        event(
            "response_body",
            chunk,
            (answer, &format!(r#"{{"response_body":{expect}}}"#)),
        )
    };
    check(&text, r#""a\ufffdb""#).assert_code(0);
    check(&text, r#"{"base64":"Ye+/vWI="}"#).assert_code(0);
    check(&bytes, r#"{"base64":"Yf9i"}"#).assert_code(0);
    check(&bytes, r#"{"contains":"b","regex":"^a"}"#).assert_code(0);
    for expect in [
        r#""a\ufffdb""#,
        r#"{"contains":"\ufffd"}"#,
        r#"{"regex":"\ufffd"}"#,
        r#"{"base64":"Ye+/vWI="}"#,
        r#"{"base64":"Yf9i","contains":"c"}"#,
        r#"{"absent":true}"#,
    ] {
        let missed = missed(&check(&bytes, expect));
        assert_eq!(missed["found"], "base64 \"Yf9i\"", "{expect}");
    }
}

#[test]
fn a_list_that_names_a_text_twice_wants_it_twice() {
    let once = r#"{"decision":"allow","tags":["a","b"]}"#;
    let twice = r#"{"decision":"allow","tags":["a","b","a"]}"#;
    missed(&request(once, r#"{"tags":["a","a"]}"#));
    request(twice, r#"{"tags":["a","a"]}"#).assert_code(0);
}

#[test]
fn a_fault_is_known_by_its_code_and_by_its_text() {
    let dir = TestDir::new();
    let module = crate::support::shipped("hostile/mistyped-tags-on-allow.wat");
    for (expect, code) in [
        (r#""bad-answer:mistyped""#, 0),
        (r#"{"regex":"^bad-answer:mistyped$"}"#, 0),
        (r#"{"contains":"must be an array"}"#, 0),
        (
            r#"{"contains":"must be an array","regex":"^bad-answer"}"#,
            0,
        ),
        (r#"{"contains":"must be an object"}"#, 1),
        (r#""bad-answer""#, 1),
        (r#"{"absent":true}"#, 1),
    ] {
        let text = format!(
            r#"{{"event":"request_headers","input":{{"method":"GET","uri":"/"}},"expect":{{"fault":{expect}}}}}"#
        );
        run(&module, &[&dir.file("f.json", text)], &[]).assert_code(code);
    }
}

/// A hook that leaks a page with each call.
const LEAK: &str = r#"(module (memory (export "memory") 2)
  (data (i32.const 8) "{\22ok\22:true}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "before_hook") (param i32 i32) (result i64)
    (drop (memory.grow (i32.const 1)))
    (i64.const 0x0000_0008_0000_000b)))"#;

#[test]
fn budgets_of_hooks_hold_for_every_repeat() {
    let dir = TestDir::new();
    let module = dir.file("leak.wat", LEAK);
    let text = r#"{"context":{"input":{}},"expect":{"ok":true,"budget":{"memory":"256KiB"}}}"#;
    let fixture = dir.file("f.json", text);
    let flags = ["--isolation", "pooled"];
    run(&module, &[&fixture], &flags).assert_code(0);
    let done = run(
        &module,
        &[&fixture],
        &[&flags[..], &["--repeat", "5"]].concat(),
    );
    let first = missed(&done);
    assert_eq!(first["path"], "budget.memory");
    let all = &steps(&done.json())[0].0["mismatches"];
    assert_eq!(all.as_array().unwrap().len(), 1, "each place once: {all}");
}

#[test]
fn an_exact_response_may_leave_out_what_is_empty_and_nothing_else() {
    let answer = r#"{"decision":"allow","tags":["a"],"add_request_headers":{"x":"1"}}"#;
    let headers = r#""request_headers":[{"set":{"name":"x","value":"1"}}]"#;
    let exact = |keys: &str| request(answer, &format!(r#"{{"exact_response":{{{keys}}}}}"#));
    exact(&format!(
        r#""decision":"allow",{headers},"audit":{{"tags":["a"]}}"#
    ))
    .assert_code(0);
    assert_eq!(
        missed(&exact(&format!(r#""decision":"allow",{headers}"#)))["path"],
        "exact_response.audit.tags"
    );
    assert_eq!(
        missed(&exact(r#""decision":"allow","audit":{"tags":["a"]}"#))["path"],
        "exact_response.request_headers"
    );
    assert_eq!(
        missed(&exact(&format!(r#"{headers},"audit":{{"tags":["a"]}}"#)))["path"],
        "exact_response.decision"
    );
}

#[test]
fn what_is_appended_is_neither_set_nor_untouched() {
    let answer = |ops: &str| format!(r#"{{"decision":"allow",{ops}}}"#);
    let appends = answer(r#""append_request_headers":{"X-A":["1","2"],"b":"3"}"#);
    let expect = |wanted: &str| format!(r#"{{"request_headers":{{"x-a":{wanted}}}}}"#);
    request(&appends, &expect(r#"{"appended":["1","2"]}"#)).assert_code(0);
    for wrong in [
        r#"{"appended":["2","1"]}"#,
        r#"{"appended":["1"]}"#,
        r#""1""#,
        r#""2""#,
        r#"{"absent":true}"#,
        r#"{"removed":true}"#,
    ] {
        let miss = missed(&request(&appends, &expect(wrong)));
        assert_eq!(miss["found"], r#"appended ["1", "2"]"#, "{wrong}");
    }
    // A list that is made anew: none of the simple conditions says that.
    let anew = answer(r#""remove_request_headers":["x-a"],"append_request_headers":{"x-a":"1"}"#);
    for wrong in [r#"{"appended":["1"]}"#, r#"{"removed":true}"#, r#""1""#] {
        let miss = missed(&request(&anew, &expect(wrong)));
        assert_eq!(miss["found"], r#"removed, then appended "1""#, "{wrong}");
    }
    for bad in [
        r#"{"appended":[]}"#,
        r#"{"appended":["1"],"removed":true}"#,
        r#"{"appended":"1"}"#,
    ] {
        refused(&request(&appends, &expect(bad)));
    }
}

/// A name of a header that is set, and one that is appended to, in the report.
#[test]
fn a_set_and_an_append_read_differently() {
    let answer = r#"{"decision":"allow","add_response_headers":{"a":"1"},
        "append_response_headers":{"b":"2"}}"#;
    let done = event(
        "response_headers",
        r#"{"status":200}"#,
        (answer, r#"{"decision":"allow"}"#),
    );
    let ops = &steps(&done.json())[0].0["response"]["response_headers"];
    assert_eq!(
        *ops,
        json!([{"set":{"name":"a","value":"1"}},{"add":{"name":"b","value":"2"}}])
    );
}

/// Case of a header's name, and the order of changes to different headers.
#[test]
fn an_exact_response_is_what_a_proxy_is_told() {
    let answer = r#"{"decision":"allow","add_request_headers":{"x-by":"1"},"remove_request_headers":["a","b"]}"#;
    let set = |name: &str, value: &str| json!({"set": {"name": name, "value": value}});
    let remove = |name: &str| json!({"remove": {"name": name}});
    for (ops, expected) in [
        (json!([set("x-by", "1"), remove("a"), remove("b")]), 0),
        (json!([remove("B"), set("X-By", "1"), remove("a")]), 0),
        (json!([set("x-by", "2"), remove("a"), remove("b")]), 1),
        (json!([set("x-by", "1"), remove("a")]), 1),
        (json!([set("x-by", "1"), remove("a"), remove("x-by")]), 1),
    ] {
        let expect = json!({"exact_response": {"decision": "allow", "request_headers": ops}});
        request(answer, &expect.to_string()).assert_code(expected);
    }
}
