//! Starts of modules as a host sees them that embeds the library: what nobody else calls
//! is called, once for each instance.

use std::sync::Arc;

use serde_json::json;
use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
use wasm_agent_kit::hook::{Hook, HookContext};
use wasm_agent_kit::policy::{PluginRuntime, PluginSettings, Policy, PolicySettings};

/// A module that refuses once it was set up, so often that it is told from twice.
/// `handlers` call `$answer`.
fn module(handlers: &str, parts: &str, answers: [&str; 2]) -> Vec<u8> {
    let [refusal, pass] = answers.map(|text| text.replace('"', "\\22"));
    let [refusal_len, pass_len] = answers.map(str::len);
    let text = format!(
        r#"(module (memory (export "memory") 2) (global $set-up (mut i32) (i32.const 0))
        (data (i32.const 1024) "{refusal}") (data (i32.const 2048) "{pass}")
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func $set-up (global.set $set-up (i32.add (global.get $set-up) (i32.const 1))))
        (func $answer (param i32 i32) (result i64)
          (select (i64.const {}) (i64.const {}) (i32.eq (global.get $set-up) (i32.const 1))))
        {handlers} {parts})"#,
        (1024_u64 << 32) | refusal_len as u64,
        (2048_u64 << 32) | pass_len as u64,
    );
    wat::parse_str(text).unwrap()
}

const SET_UP: [&str; 5] = [
    r#"(export "__wasm_call_ctors" (func $set-up))"#,
    r#"(export "_initialize" (func $set-up))"#,
    r#"(export "__wasm_call_ctors" (func $set-up)) (func (export "_initialize"))"#,
    r#"(export "__wasm_call_ctors" (func $set-up)) (func (export "_initialize") (call $set-up))"#,
    r#"(export "__wasm_call_ctors" (func $set-up)) (start $set-up)"#,
];

#[test]
fn an_agent_module_is_set_up_once_before_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.wasm");
    let handlers = r#"(export "on_request_headers" (func $answer))"#;
    let event = Event::RequestHeaders(RequestHead {
        method: "GET".into(),
        uri: "/private".into(),
        ..RequestHead::default()
    });
    let answers = [r#"{"decision":"block"}"#, r#"{"decision":"allow"}"#];
    for parts in SET_UP {
        std::fs::write(&path, module(handlers, parts, answers)).unwrap();
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
        let policy = Policy::new(Arc::new(module), PolicySettings::default());
        for _ in 0..3 {
            let handled = policy.handle(&event);
            assert!(handled.fault.is_none(), "{parts}");
            assert_eq!(handled.response.decision.name(), "block", "{parts}");
        }
    }
}

#[test]
fn a_hook_module_is_set_up_once_for_each_instance() {
    let hooks = r#"(export "before_hook" (func $answer)) (export "after_hook" (func $answer))"#;
    let one_calls = r#"(export "__wasm_call_ctors" (func $set-up))
        (export "before_hook" (func $answer))
        (func (export "after_hook") (param i32 i32) (result i64)
          (if (i32.eqz (global.get $set-up)) (then (call $set-up)))
          (call $answer (local.get 0) (local.get 1)))"#;
    let answers = [r#"{"ok":false}"#, r#"{"ok":true}"#];
    let runtime = PluginRuntime::new(PluginSettings::default()).unwrap();
    let all = SET_UP.map(|parts| (hooks, parts));
    for (number, (handlers, parts)) in all.into_iter().chain([(one_calls, "")]).enumerate() {
        let name = format!("plugin-{number}");
        let plugin = runtime
            .load_bytes(&name, module(handlers, parts, answers))
            .unwrap();
        for hook in [Hook::Before, Hook::After, Hook::Before] {
            let context: HookContext = serde_json::from_value(json!({"input": {}})).unwrap();
            let handled = plugin.hook(hook, context);
            assert!(handled.fault.is_none(), "{parts}");
            assert!(!handled.result.ok, "{parts}");
        }
    }
}
