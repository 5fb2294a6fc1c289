//! Any bytes as a guest's answer: no panic, and neither invariant broken.
//! Run with `cargo +nightly fuzz run answer`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasm_agent_kit::abi::answer::{AnswerPolicy, check_answer};
use wasm_agent_kit::decision::{Answer, FailurePolicy, decide};
use wasm_agent_kit::event::EventKind;
use wasm_agent_kit::response::Decision;

fuzz_target!(|bytes: &[u8]| {
    for (kind, chunk) in [
        (EventKind::RequestHeaders, None),
        (EventKind::ResponseBody, Some(0)),
    ] {
        let checked = check_answer(bytes, kind, chunk, &AnswerPolicy::default());
        for policy in [FailurePolicy::Closed, FailurePolicy::Open] {
            let response = match &checked {
                Ok(answer) => decide(Ok(Answer::Given(Box::new(answer.response.clone()))), policy),
                Err(fault) => decide(Err(fault), policy),
            };
            let allows = response.decision == Decision::Allow;
            if policy == FailurePolicy::Closed {
                assert!(!allows || checked.is_ok(), "closed, and a fault allows");
            }
            let refused = checked.as_ref().is_err_and(|fault| fault.refusal.is_some());
            assert!(!(allows && refused), "a refusal was softened");
        }
    }
});
