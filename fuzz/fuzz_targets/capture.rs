//! Any bytes as a capture of each format: transactions, or records that are
//! named as unusable. Run with `cargo +nightly fuzz run capture`.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::capture::{DecodeSettings, Format, Item, Opened, decode};

/// Small, so that the limit itself is met.
const MAX_RECORD: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let formats = Format::ALL.map(Some).into_iter().chain([None]);
    for format in formats {
        let reader = Cursor::new(bytes.to_vec());
        let opened = Opened::of_reader("fuzz".into(), reader, (format, MAX_RECORD));
        for item in opened.expect("memory can be read") {
            match item {
                Item::Frame(mut frame) => match decode(&mut frame, &DecodeSettings::default()) {
                    Ok(transaction) => assert!(!transaction.steps.is_empty()),
                    Err(unusable) => assert!(!unusable.why.is_empty()),
                },
                Item::Unusable(unusable) => assert!(!unusable.why.is_empty()),
                Item::Skipped(_) => {}
            }
        }
    }
});
