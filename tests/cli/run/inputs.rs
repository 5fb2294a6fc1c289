//! What a step of a fixture does not say is as in the steps before.

use crate::support::guests::escaped;
use crate::support::{Done, TestDir, run, steps};

use serde_json::json;

/// A module that blocks a body whose input holds this text.
fn looking_for(dir: &TestDir, text: &str) -> std::path::PathBuf {
    let length = text.len();
    let look = format!(
        r#"(local $at i32) (local $n i32)
        (block $none (loop $next
          (br_if $none (i32.gt_u (i32.add (local.get $at) (i32.const {length})) (local.get 1)))
          (local.set $n (i32.const 0))
          (block $no (loop $same
            (br_if $no (i32.ne
              (i32.load8_u (i32.add (i32.add (local.get 0) (local.get $at)) (local.get $n)))
              (i32.load8_u (i32.add (i32.const 1024) (local.get $n)))))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $same (i32.lt_u (local.get $n) (i32.const {length})))
            (return (i64.const 0x0000_0100_0000_0014))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))
        (i64.const 0x0000_0200_0000_0014)"#
    );
    dir.file(
        "m.wat",
        format!(
            r#"(module (memory (export "memory") 2) (data (i32.const 1024) "{}")
            (data (i32.const 256) "{{\22decision\22:\22block\22}}")
            (data (i32.const 512) "{{\22decision\22:\22allow\22}}")
            (func (export "alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "dealloc") (param i32 i32))
            (func (export "on_request_body") (param i32 i32) (result i64) {look})
            (func (export "on_response_body") (param i32 i32) (result i64) {look}))"#,
            escaped(text.as_bytes())
        ),
    )
}

fn last_decision(done: &Done) -> String {
    steps(&done.json()).last().unwrap().decision().to_owned()
}

#[test]
fn a_body_has_what_the_steps_before_said() {
    let request = json!({"event": "request_headers", "input": {"method": "PUT", "uri": "/up", "client_ip": "192.0.2.9", "correlation_id": "c-7", "headers": {"a": "1"}}});
    let response =
        json!({"event": "response_headers", "input": {"status": 503, "headers": {"b": "2"}}});
    for (name, input, holds) in [
        ("request_body", json!({}), r#""headers":{"a":"1"}"#),
        ("request_body", json!({}), r#""correlation_id":"c-7""#),
        (
            "request_body",
            json!({"headers": {"x": "1"}}),
            r#""method":"PUT","uri":"/up","client_ip":"192.0.2.9","headers":{"x":"1"}"#,
        ),
        (
            "request_body",
            json!({"uri": "/other"}),
            r#""method":"PUT","uri":"/other","client_ip":"192.0.2.9","headers":{"a":"1"}"#,
        ),
        (
            "request_body",
            json!({"client_ip": "192.0.2.5:80"}),
            r#""uri":"/up","client_ip":"192.0.2.5""#,
        ),
        (
            "request_body",
            json!({"method": "POST"}),
            r#""method":"POST","uri":"/up""#,
        ),
        (
            "response_body",
            json!({}),
            r#""uri":"/up","client_ip":"192.0.2.9","status":503,"headers":{"b":"2"}"#,
        ),
        (
            "response_body",
            json!({"headers": {"x": "1"}}),
            r#""status":503,"headers":{"x":"1"}"#,
        ),
        (
            "response_body",
            json!({"status": 404}),
            r#""status":404,"headers":{"b":"2"}"#,
        ),
        (
            "response_body",
            json!({"client_ip": "192.0.2.5"}),
            r#""uri":"/up","client_ip":"192.0.2.5","status":503"#,
        ),
    ] {
        let dir = TestDir::new();
        let mut input = input;
        input["data"] = json!("x");
        let body = json!({"event": name, "input": input});
        let fixture = json!({"steps": [request, response, body]}).to_string();
        let module = looking_for(&dir, holds);
        let done = run(&module, &[&dir.file("f.json", &fixture)], &[]);
        assert_eq!(last_decision(&done), "block", "{fixture} gives {holds}");
    }
}

/// What one body step says, the next one of that body goes on from.
#[test]
fn a_body_goes_on_from_the_body_step_before() {
    let head = json!({"method": "PUT", "uri": "/up", "client_ip": "192.0.2.9", "headers": {"a": "1"}, "correlation_id": "c-8"});
    let full = r#"{"correlation_id":"c-8","method":"PUT","uri":"/up","client_ip":"192.0.2.9","headers":{"a":"1"},"chunk_index":1"#;
    for (name, first, second, holds) in [
        ("request_body", head.clone(), json!({}), full),
        (
            "request_body",
            head.clone(),
            json!({"uri": "/other"}),
            r#""uri":"/other","client_ip":"192.0.2.9","headers":{"a":"1"},"chunk_index":1"#,
        ),
        (
            "response_body",
            json!({"status": 503, "headers": {"b": "2"}}),
            json!({}),
            r#""status":503,"headers":{"b":"2"},"chunk_index":1"#,
        ),
        (
            "request_body",
            json!({"chunk_index": 3}),
            json!({}),
            r#""chunk_index":4"#,
        ),
        (
            "response_body",
            json!({"chunk_index": 9}),
            json!({}),
            r#""chunk_index":10"#,
        ),
        (
            "request_body",
            json!({"chunk_index": 3}),
            json!({"chunk_index": 0}),
            r#""chunk_index":0"#,
        ),
        (
            "request_body",
            json!({"bytes_received": 300}),
            json!({}),
            r#""bytes_received":301"#,
        ),
        (
            "response_body",
            json!({"bytes_sent": 7}),
            json!({}),
            r#""bytes_sent":8"#,
        ),
        (
            "request_body",
            json!({"total_size": 2}),
            json!({}),
            r#""is_last":true,"total_size":2"#,
        ),
        (
            "response_body",
            json!({"total_size": 2}),
            json!({"total_size": null}),
            r#""is_last":true,"total_size":null"#,
        ),
        (
            "request_body",
            json!({}),
            json!({}),
            r#""is_last":true,"total_size":null"#,
        ),
    ] {
        let step = |mut input: serde_json::Value| {
            input["data"] = json!("x");
            json!({"event": name, "input": input})
        };
        let fixture = json!({"steps": [step(first), step(second)]}).to_string();
        let dir = TestDir::new();
        let module = looking_for(&dir, holds);
        let done = run(&module, &[&dir.file("f.json", &fixture)], &[]);
        let decisions: Vec<String> = steps(&done.json())
            .iter()
            .map(|step| step.decision().to_owned())
            .collect();
        assert_eq!(decisions, ["allow", "block"], "{fixture} gives {holds}");
    }
}

#[test]
fn what_a_body_cannot_have_is_refused_by_name() {
    for (name, input, says) in [
        (
            "request_body",
            json!({"status": 200}),
            "\"status\" is of a response",
        ),
        (
            "request_body",
            json!({"client_ip": "192.0.2.5"}),
            "add method and uri, which no request_headers step",
        ),
        (
            "request_body",
            json!({"headers": {}}),
            "add method and uri, which no request_headers step",
        ),
        (
            "request_body",
            json!({"method": "GET"}),
            "add method and uri, which no request_headers step",
        ),
        (
            "response_body",
            json!({"client_ip": "192.0.2.5"}),
            "add method and uri, which no request_headers step",
        ),
        (
            "response_body",
            json!({"headers": {"a": "1"}}),
            "add status, which no response_headers step",
        ),
        ("response_body", json!({"status": 99}), "from 100 to 599"),
    ] {
        let dir = TestDir::new();
        let mut input = input;
        input["data"] = json!("x");
        let fixture = json!({"event": name, "input": input}).to_string();
        let module = looking_for(&dir, "x");
        let done = run(&module, &[&dir.file("f.json", &fixture)], &[]);
        done.assert_code(3);
        let error = done.json()["fixtures"][0]["error"]["message"].to_string();
        let error = error.replace("\\\"", "\"");
        assert!(error.contains(says), "{fixture}: {error}");
    }
}

/// A request begins an exchange: nothing of the one before it is left.
#[test]
fn two_exchanges_in_one_fixture_are_told_apart() {
    let text = r#"{"correlation_id":"all","steps":[
        {"event":"request_headers","input":{"method":"POST","uri":"/a","correlation_id":"one"}},
        {"event":"request_body","input":{"data":"a"}},
        {"event":"request_headers","input":{"method":"POST","uri":"/b"}},
        {"event":"request_body","input":{"data":"b"}},
        {"event":"request_body","input":{"data":"bb"}}]}"#;
    for (needle, first) in [
        (r#""correlation_id":"one""#, 1),
        (r#""is_last":true"#, 1),
        (r#""correlation_id":"all""#, 3),
        (r#""is_last":false"#, 3),
        (r#""uri":"/b""#, 3),
        (r#""chunk_index":1"#, 4),
        (r#""bytes_received":3"#, 4),
    ] {
        let dir = TestDir::new();
        let module = looking_for(&dir, needle);
        let report = run(&module, &[&dir.file("f.json", text)], &[]).json();
        let steps = steps(&report);
        let blocked = steps
            .iter()
            .position(|step| step.0["response"]["decision"]["block"].is_object());
        assert_eq!(blocked, Some(first), "{needle}");
    }
}
