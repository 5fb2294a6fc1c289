//! Any bytes as a fixture file: a fixture, or an error with a place.
//! Run with `cargo +nightly fuzz run fixture`.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::fixture::{Input, parse};

fuzz_target!(|bytes: &[u8]| {
    let input = Input {
        path: PathBuf::from("fuzz.json"),
        document: None,
        bytes: bytes.to_vec(),
    };
    if let Err(error) = parse(&input) {
        assert!(error.line >= 1 && error.column >= 1);
    }
});
