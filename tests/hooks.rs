//! The hook ABI through the library: what a host that embeds it relies on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wasm_agent_kit::abi::Abi;
use wasm_agent_kit::abi::hook::{Hook, HookContext};
use wasm_agent_kit::agent::{Agent, AgentSettings};
use wasm_agent_kit::engine::{Engine, EngineSettings};
use wasm_agent_kit::error::Error;
use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::module::{LoadSettings, Module};
use wasm_agent_kit::plugin::{HandledHook, Plugin};
use wasm_agent_kit::pool::PoolSettings;
use wasm_agent_kit::response::Decision;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/modules")
        .join(name)
}

fn module(name: &str) -> Arc<Module> {
    let engine = Engine::new(EngineSettings {
        fuel: true,
        ..EngineSettings::default()
    })
    .unwrap();
    Arc::new(Module::load(&engine, &shipped(name), &LoadSettings::default()).unwrap())
}

fn plugin(name: &str) -> Plugin {
    let module = module(name);
    let settings = PoolSettings {
        isolation: module.abi.isolation(),
        limits: module.limits,
        wait: Duration::from_secs(20),
        ..PoolSettings::default()
    };
    Plugin::new(module, settings)
}

fn ada() -> HookContext {
    serde_json::from_value(json!({
        "input": {"name": "Ada", "email": " Ada@Example.ORG "},
        "user": {"id": "7", "role": "user"},
        "headers": {"content-type": "application/json"},
        "tenant_id": "acme",
    }))
    .unwrap()
}

fn handle(plugin: &Plugin, hook: Hook, context: HookContext) -> HandledHook {
    plugin.handle(hook, context)
}

#[test]
fn the_defaults_are_those_of_the_hook_abi() {
    let module = module("account/account.wasm");
    assert_eq!(module.abi, Abi::Hook);
    assert_eq!(module.limits.fuel, Some(1_000_000));
    assert_eq!(module.limits.max_memory_bytes, 256 * 65_536);
}

#[test]
fn an_agent_never_lets_a_hook_module_pass_for_one_that_allows() {
    let agent = Agent::new(module("hooks/pass-through.wat"), AgentSettings::default());
    let Err(Error::WrongAbi { .. }) = agent.start() else {
        panic!("an agent of a hook module")
    };
    let event = Event::RequestHeaders(RequestHead::default());
    let handled = agent.handle(&event);
    assert!(matches!(
        handled.response.decision,
        Decision::Block { status: 500, .. }
    ));
}

#[test]
fn a_plugin_never_lets_an_agent_module_pass_for_one_that_says_yes() {
    let plugin = plugin("right/allow.wat");
    let says = plugin.start().unwrap_err().to_string();
    assert!(says.contains("a proxy agent (the agent ABI)"), "{says}");
    assert!(says.contains("wasm-agent serve"), "{says}");
    assert!(!handle(&plugin, Hook::Before, ada()).result.ok);
}

#[test]
fn the_shipped_module_normalises_refuses_and_stamps() {
    let plugin = plugin("account/account.wasm");
    let before = handle(&plugin, Hook::Before, ada());
    assert_eq!(before.fault, None);
    assert_eq!(before.context.input["email"], "ada@example.org");
    assert!(before.ignored.is_empty(), "{:?}", before.ignored);
    let after = HookContext {
        data: Some(json!({"id": 1})),
        ..before.context
    };
    let after = handle(&plugin, Hook::After, after);
    assert_eq!(
        after.context.data,
        Some(json!({"id": 1, "checked_by": "account/1.0.0"}))
    );

    let refused = handle(&plugin, Hook::Before, HookContext::default());
    assert!(!refused.result.ok);
    assert_eq!(refused.result.error.as_deref(), Some("invalid record"));
    assert_eq!(
        refused.result.details.unwrap()[0],
        json!({"field": "email", "code": "required", "message": "an e-mail address is required"})
    );
}

#[test]
fn a_hook_that_the_module_lacks_is_not_called() {
    let plugin = plugin("hooks/trap.wat");
    assert!(plugin.has(Hook::After));
    let plugin = self::plugin("hooks/empty.wat");
    assert!(!plugin.has(Hook::After));
    let handled = handle(&plugin, Hook::After, ada());
    assert!(handled.result.ok && handled.cost.is_none());
    assert_eq!(handled.context, ada());
    assert_eq!(plugin.pool().counts().created, 0);
}
