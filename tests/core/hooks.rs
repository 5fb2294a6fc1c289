//! The hook ABI through the library: what a host that embeds it relies on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::json;
use wasm_agent_kit::abi::Abi;
use wasm_agent_kit::error::Error;
use wasm_agent_kit::event::{Event, EventKind, RequestHead};
use wasm_agent_kit::guest::{Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::hook::{Hook, HookContext};
use wasm_agent_kit::limits::LimitChoice;
use wasm_agent_kit::policy::PoolSettings;
use wasm_agent_kit::policy::{HandledHook, Policy, PolicySettings};
use wasm_agent_kit::policy::{PluginRuntime, PluginSettings};
use wasm_agent_kit::question::{Phase, Question};
use wasm_agent_kit::response::Decision;

use crate::shipped;

fn module(name: &str) -> Arc<Module> {
    let engine = Engine::new(EngineSettings {
        fuel: true,
        ..EngineSettings::default()
    })
    .unwrap();
    Arc::new(Module::load(&engine, &shipped(name), &LoadSettings::default()).unwrap())
}

fn plugin(name: &str) -> Policy {
    let module = module(name);
    let pool = PoolSettings {
        isolation: module.abi.isolation(),
        limits: module.limits,
        wait: Duration::from_secs(20),
        ..PoolSettings::default()
    };
    let settings = PolicySettings {
        pool,
        ..PolicySettings::default()
    };
    Policy::new(module, settings)
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

fn handle(plugin: &Policy, hook: Hook, context: HookContext) -> HandledHook {
    plugin.hook(hook, context)
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
    let agent = Policy::new(module("hooks/pass-through.wat"), PolicySettings::default());
    let Err(Error::WrongAbi { .. }) = agent.pool().module().require(Abi::Agent) else {
        panic!("an agent of a hook module")
    };
    let event = Event::RequestHeaders(RequestHead::default());
    let handled = agent.handle(&event);
    assert!(matches!(
        handled.response.decision,
        Decision::Block { status: 500, .. }
    ));
    let says = handled.fault.unwrap().to_string();
    assert!(says.contains("the hook ABI"), "{says}");
    // Nor where the question is recorded bytes.
    let reply = agent.ask(&Question::Exact {
        phase: Phase::Event(EventKind::RequestHeaders),
        chunk_index: None,
        json: b"{}".into(),
    });
    assert!(!reply.answer.passes());
}

#[test]
fn a_plugin_never_lets_an_agent_module_pass_for_one_that_says_yes() {
    let plugin = plugin("right/allow.wat");
    let refused = plugin.pool().module().require(Abi::Hook);
    let says = refused.unwrap_err().to_string();
    assert!(says.contains("a proxy agent (the agent ABI)"), "{says}");
    assert!(says.contains("wasm-agent serve"), "{says}");
    let handled = handle(&plugin, Hook::Before, ada());
    assert!(!handled.result.ok);
    assert!(
        handled
            .fault
            .unwrap()
            .to_string()
            .contains("wasm-agent serve")
    );
    let reply = plugin.ask(&Question::Exact {
        phase: Phase::Hook(Hook::Before),
        chunk_index: None,
        json: br#"{"input":{},"headers":{}}"#.into(),
    });
    assert!(!reply.answer.passes());
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
    assert!(plugin.has_hook(Hook::After));
    let plugin = self::plugin("hooks/empty.wat");
    assert!(!plugin.has_hook(Hook::After));
    let handled = handle(&plugin, Hook::After, ada());
    assert!(handled.result.ok && handled.cost.is_none());
    assert_eq!(handled.context, ada());
    assert_eq!(plugin.pool().counts().created, 0);
}

/// The runtime of the tests below: as hosts have it, but patient with a busy
/// machine.
fn runtime(limits: LimitChoice) -> PluginRuntime {
    PluginRuntime::new(PluginSettings {
        limits: LimitChoice {
            timeout: Some(limits.timeout.unwrap_or(Duration::from_secs(5))),
            ..limits
        },
        wait: Duration::from_secs(60),
        ..PluginSettings::default()
    })
    .unwrap()
}

/// Loads a shipped module and calls its `before_hook`.
fn call(name: &str) -> HandledHook {
    let runtime = runtime(LimitChoice::default());
    let path = shipped(name);
    runtime.load(&path).unwrap();
    runtime.call(&path, Hook::Before, ada()).unwrap()
}

// The seven behaviours that the published runtime documents by its tests.

#[test]
fn published_1_pass_through_runs_and_says_yes() {
    let handled = call("hooks/pass-through.wat");
    assert!(handled.result.ok);
    assert_eq!(handled.context, ada());
}

#[test]
fn published_2_a_modifier_changes_the_context() {
    let handled = call("hooks/modify.wat");
    assert!(handled.result.ok);
    assert_eq!(handled.result.ctx.unwrap().input["name"], "changed");
    assert_eq!(handled.context.input["name"], "changed");
    assert_eq!(handled.context.user, ada().user, "not its to change");
}

#[test]
fn published_3_a_crash_is_a_result_and_no_crash() {
    let handled = call("hooks/trap.wat");
    assert!(!handled.result.ok);
    let error = handled.result.error.unwrap();
    assert_eq!(error, "WASM plugin trapped: trap:unreachable");
    assert_eq!(handled.context, ada());
}

#[test]
fn published_4_a_plugins_own_error_comes_through() {
    let handled = call("hooks/error.wat");
    assert!(!handled.result.ok);
    assert_eq!(
        handled.result.error.as_deref(),
        Some("validation failed: email is required")
    );
    assert_eq!(handled.fault, None);
}

#[test]
fn published_5_an_unloaded_plugin_is_an_error() {
    let runtime = runtime(LimitChoice::default());
    for path in [shipped("hooks/pass-through.wat"), "nowhere.wasm".into()] {
        assert!(!runtime.is_loaded(&path));
        let error = runtime.call(&path, Hook::Before, ada()).unwrap_err();
        assert!(matches!(error, Error::NotLoaded { .. }), "{error}");
    }
}

#[test]
fn published_6_out_of_fuel_is_a_result_and_no_crash() {
    let runtime = runtime(LimitChoice {
        fuel: Some(1),
        ..LimitChoice::default()
    });
    let path = shipped("hooks/modify.wat");
    let error = runtime
        .load(&path)
        .map(|plugin| plugin.hook(Hook::Before, ada()));
    let handled = error.unwrap();
    assert_eq!(
        handled.result.error.as_deref(),
        Some("WASM plugin trapped: fuel")
    );
}

#[test]
fn published_7_there_is_no_wasi() {
    let runtime = runtime(LimitChoice::default());
    let Err(Error::Refused { problems, .. }) = runtime.load(&shipped("hooks/import-wasi.wat"))
    else {
        panic!("a clock for a hook")
    };
    assert_eq!(
        problems[0].id.to_string(),
        "import:wasi_snapshot_preview1.clock_time_get"
    );
    assert!(call("hooks/pass-through.wat").result.ok);
}

// What the published runtime does not do.

#[test]
fn equal_bytes_are_one_plugin_whatever_they_are_called() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.wat");
    let original = shipped("hooks/pass-through.wat");
    std::fs::copy(&original, &copy).unwrap();
    let runtime = runtime(LimitChoice::default());
    let first = runtime.load(&original).unwrap();
    assert!(Arc::ptr_eq(&first, &runtime.load(&copy).unwrap()));
    let bytes = std::fs::read(&original).unwrap();
    let named = runtime.load_bytes("by name", bytes).unwrap();
    assert!(Arc::ptr_eq(&first, &named));
    // By another way to the same file.
    let around = original.parent().unwrap().join("../hooks/pass-through.wat");
    assert!(Arc::ptr_eq(&first, &runtime.plugin(&around).unwrap()));
    runtime.unload(&original).unwrap();
    assert!(!runtime.is_loaded(&original));
    assert!(runtime.is_loaded(&copy) && runtime.is_loaded("by name".as_ref()));
    assert!(runtime.unload(&original).is_err());
}

#[test]
fn a_changed_file_is_another_plugin_once_it_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plugin.wat");
    let write = |name: &str| std::fs::copy(shipped(name), &path).unwrap();
    let runtime = runtime(LimitChoice::default());
    write("hooks/pass-through.wat");
    let first = runtime.load(&path).unwrap();
    write("hooks/error.wat");
    assert!(Arc::ptr_eq(&first, &runtime.load(&path).unwrap()));
    assert!(runtime.call(&path, Hook::Before, ada()).unwrap().result.ok);
    runtime.reload(&path).unwrap();
    assert!(!runtime.call(&path, Hook::Before, ada()).unwrap().result.ok);
    // A broken one changes nothing, and whoever holds the first goes on.
    std::fs::write(&path, "(module)").unwrap();
    assert!(runtime.reload(&path).is_err());
    assert!(!runtime.call(&path, Hook::Before, ada()).unwrap().result.ok);
    assert!(first.hook(Hook::Before, ada()).result.ok);
}

#[test]
fn what_many_threads_load_at_once_is_loaded_once() {
    let runtime = runtime(LimitChoice::default());
    let path = shipped("account/account.wasm");
    let plugins: Vec<Arc<Policy>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| runtime.load(&path).unwrap()))
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(plugins.iter().all(|it| Arc::ptr_eq(it, &plugins[0])));
}

#[test]
fn a_failed_load_keeps_nobody_waiting() {
    let runtime = runtime(LimitChoice::default());
    let path = shipped("hooks/import-wasi.wat");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(runtime.load(&path).is_err()));
        }
    });
    assert!(!runtime.is_loaded(&path));
}

#[test]
fn hooks_are_called_from_many_threads() {
    let runtime = runtime(LimitChoice::default());
    let good = shipped("account/account.wasm");
    let bad = shipped("hooks/trap.wat");
    for path in [&good, &bad] {
        runtime.load(path).unwrap();
    }
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (runtime, good, bad) = (&runtime, &good, &bad);
            scope.spawn(move || {
                for call in 0..20 {
                    let mut context = ada();
                    let email = format!("USER{number}-{call}@B");
                    context.input.insert("email".into(), json!(email));
                    let trapped = runtime.call(bad, Hook::Before, context.clone()).unwrap();
                    assert!(!trapped.result.ok);
                    let handled = runtime.call(good, Hook::Before, context).unwrap();
                    assert_eq!(handled.fault, None);
                    assert_eq!(handled.context.input["email"], email.to_lowercase());
                }
            });
        }
    });
    let counts = runtime.plugin(&good).unwrap().pool().counts();
    assert_eq!(
        counts.dropped_isolation, counts.created,
        "each call had its own"
    );
}

/// A guest that computes until its deadline must delay nobody: neither who
/// loads nor who calls. The deadline is doubled until a busy machine finds the
/// time for the rest before it.
#[test]
fn nothing_is_locked_while_a_guest_runs() {
    let done_before = |deadline: Duration| {
        let runtime = runtime(LimitChoice {
            timeout: Some(deadline),
            fuel: Some(u64::MAX),
            ..LimitChoice::default()
        });
        let spinning = runtime.load(&shipped("hooks/spin.wat")).unwrap();
        let (ended, begun) = (AtomicBool::new(false), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.wait();
                let handled = spinning.hook(Hook::Before, ada());
                ended.store(true, Ordering::SeqCst);
                assert_eq!(handled.fault.unwrap().code.to_string(), "deadline");
            });
            begun.wait();
            let path = shipped("hooks/pass-through.wat");
            runtime.load(&path).unwrap();
            let handled = runtime.call(&path, Hook::Before, ada()).unwrap();
            assert!(handled.result.ok);
            !ended.load(Ordering::SeqCst)
        })
    };
    let deadlines = [1, 4, 16].map(Duration::from_secs);
    assert!(deadlines.into_iter().any(done_before));
}

/// The same for a module that takes long to compile.
#[test]
fn nothing_is_locked_while_a_module_compiles() {
    let done_before = |functions: usize| {
        let runtime = runtime(LimitChoice::default());
        let path = shipped("hooks/pass-through.wat");
        runtime.load(&path).unwrap();
        let (ended, begun) = (AtomicBool::new(false), Barrier::new(2));
        let slow = slow_to_compile(functions);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                begun.wait();
                runtime.load_bytes("slow", slow.into_bytes()).unwrap();
                ended.store(true, Ordering::SeqCst);
            });
            begun.wait();
            assert!(runtime.call(&path, Hook::Before, ada()).unwrap().result.ok);
            !ended.load(Ordering::SeqCst)
        })
    };
    assert!([500, 4_000, 16_000].into_iter().any(done_before));
}

fn slow_to_compile(functions: usize) -> String {
    let body = "(local.set 0 (i32.mul (local.get 0) (i32.const 3)))".repeat(40);
    let functions: String = (0..functions)
        .map(|_| format!("(func (param i32) (result i32) {body} (local.get 0))\n"))
        .collect();
    format!(
        r#"(module (memory (export "memory") 2)
        (func (export "alloc") (param i32) (result i32) (i32.const 8))
        (func (export "dealloc") (param i32 i32))
        (func (export "before_hook") (param i32 i32) (result i64) (i64.const 0))
        {functions})"#
    )
}

#[test]
fn one_call_more_than_there_are_places_is_overload_within_its_wait() {
    let runtime = PluginRuntime::new(PluginSettings {
        limits: LimitChoice {
            timeout: Some(Duration::from_secs(1)),
            fuel: Some(u64::MAX),
            ..LimitChoice::default()
        },
        calls: 1,
        wait: Duration::from_millis(1),
        ..PluginSettings::default()
    })
    .unwrap();
    let plugin = runtime.load(&shipped("hooks/spin.wat")).unwrap();
    let codes: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| plugin.hook(Hook::Before, ada()).fault.unwrap()))
            .collect();
        let faults = threads.into_iter().map(|it| it.join().unwrap());
        faults.map(|fault| fault.code.to_string()).collect()
    });
    assert!(codes.contains(&"deadline".to_owned()), "{codes:?}");
}

#[test]
fn the_example_stores_what_the_plugin_lets_it() {
    let plugins = runtime(LimitChoice::default());
    for path in [example::ACCOUNT, example::TRAP] {
        plugins.load(path.as_ref()).unwrap();
    }
    let create = |plugin, email| example::create(&plugins, plugin, email).unwrap();
    assert_eq!(
        create(example::ACCOUNT, " Ada@Example.ORG ").unwrap(),
        json!({"id": 1, "email": "ada@example.org", "checked_by": "account/1.0.0"})
    );
    let refused = create(example::ACCOUNT, "").unwrap_err();
    assert!(
        refused.contains("an e-mail address is required"),
        "{refused}"
    );
    let trapped = create(example::TRAP, "a@b").unwrap_err();
    assert!(trapped.contains("WASM plugin trapped"), "{trapped}");
}

#[expect(dead_code, reason = "its main is for people")]
#[path = "../../examples/hooks.rs"]
mod example;

/// Only an answer about an event is searched for a refusal that its fault would
/// lose: a hook has no decision, and its fault is a result that is not ok.
#[test]
fn a_hook_that_faults_refuses_by_its_result_alone() {
    let module = r#"(module
        (memory (export "memory") 1)
        (data (i32.const 65500) "{\"decision\":\"block\"}")
        (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "dealloc") (param i32 i32))
        (func (export "before_hook") (param i32 i32) (result i64)
            (i64.const 0xffdc_0000_0064)))"#;
    let runtime = PluginRuntime::new(PluginSettings::default()).unwrap();
    let plugin = runtime.load_bytes("m", module.into()).unwrap();
    let handled = handle(&plugin, Hook::Before, ada());
    assert!(!handled.result.ok);
    let fault = handled.fault.unwrap();
    assert!(fault.to_string().contains("out-of-bounds"), "{fault}");
    assert!(fault.refusal.is_none());
}
