//! Hands any bytes to [`wasm_agent_fuzz::settings`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wasm_agent_fuzz::settings(bytes));
