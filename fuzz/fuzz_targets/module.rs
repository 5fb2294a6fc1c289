//! Any bytes as a module: facts that are judged, or an offset.
//! Run with `cargo +nightly fuzz run module`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::abi::AbiChoice;
use wasm_agent_kit::contract::check;
use wasm_agent_kit::inspect::inspect;
use wasm_agent_kit::limits::{Limits, LoadLimits};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(facts) = inspect(bytes) {
        let verdict = check(&facts, AbiChoice::Auto, &Limits::default(), &LoadLimits::default());
        assert!(!verdict.checks.is_empty());
    }
});
