//! Hands any bytes to [`wasm_agent_fuzz::event_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wasm_agent_fuzz::event_json(bytes));
