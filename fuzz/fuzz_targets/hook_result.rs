//! Any bytes as a hook's result: no panic, and nothing applied but input and
//! data. Run with `cargo +nightly fuzz run hook_result`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::abi::hook::{HookContext, HookUser, apply, check_result};

fuzz_target!(|bytes: &[u8]| {
    let context = HookContext {
        user: Some(HookUser {
            id: "7".to_owned(),
            role: "user".to_owned(),
        }),
        tenant_id: Some("acme".to_owned()),
        ..HookContext::default()
    };
    if let Ok(checked) = check_result(bytes) {
        let applied = apply(context.clone(), &checked.result);
        assert_eq!(applied.context.user, context.user);
        assert_eq!(applied.context.headers, context.headers);
        assert_eq!(applied.context.tenant_id, context.tenant_id);
        assert!(checked.result.ok || applied.context == context);
    }
});
