//! Hands any bytes to [`wasm_agent_fuzz::baseline`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wasm_agent_fuzz::baseline(bytes));
