//! Any bytes as a baseline: one whose times are times, or an error that says
//! what to do. Run with `cargo +nightly fuzz run baseline`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::ops::bench::Baseline;

fuzz_target!(|bytes: &[u8]| match Baseline::parse(bytes) {
    Ok(baseline) => {
        let rounds = baseline.cases.iter().flat_map(|case| &case.rounds);
        assert!(
            rounds
                .flatten()
                .all(|pair| pair.before > 0.0 && pair.after.is_finite())
        );
    }
    Err(error) => assert!(error.contains("--save")),
});
