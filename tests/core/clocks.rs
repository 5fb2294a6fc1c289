//! A host is told the truth by default: its guests read its clock and its random
//! bytes. One that tests with fixed ones says which time it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::guest::{Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::limits::Wasi;
use wasm_agent_kit::policy::{Handled, Policy, PolicySettings};

use crate::shipped;

fn policy(settings: PolicySettings) -> Policy {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let path = shipped("sandbox/sandbox.wasm");
    let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
    Policy::new(Arc::new(module), settings)
}

/// Asks the guest for what this header says.
fn attempt(name: &str) -> Event {
    Event::RequestHeaders(RequestHead {
        method: "GET".into(),
        uri: "/".into(),
        headers: [("x-try", name)].into(),
        ..RequestHead::default()
    })
}

fn tag(handled: Handled) -> String {
    assert_eq!(handled.fault, None);
    handled.response.audit.tags.join(" ")
}

fn wall_clock(handled: Handled) -> u64 {
    let tag = tag(handled);
    tag.strip_prefix("wall: ").unwrap().parse().unwrap()
}

#[test]
fn a_host_that_says_nothing_gets_its_own_clock_and_bytes_that_differ() {
    let mut settings = PolicySettings::default();
    // A good guest on a busy machine is no runaway.
    settings.pool.limits.timeout = Duration::from_secs(5);
    let policy = policy(settings);
    let seconds = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap().as_secs()
    };
    let before = seconds();
    let read = wall_clock(policy.handle(&attempt("clocks")));
    assert!((before..=seconds()).contains(&read), "{read}");
    let bytes = || tag(policy.handle(&attempt("random")));
    assert_ne!(bytes(), bytes());
    // A time that is given changes nothing then.
    let mut exchange = policy.exchange();
    let handled = exchange.at(Some(UNIX_EPOCH)).handle(&attempt("clocks"));
    assert!(wall_clock(handled.unwrap()) >= before);
}

#[test]
fn fixed_clocks_read_the_time_that_an_exchange_is_at() {
    let mut settings = PolicySettings::default();
    settings.pool.limits.wasi = Wasi::Fixed;
    settings.pool.limits.timeout = Duration::from_secs(5);
    let policy = policy(settings);
    let event = attempt("clocks");
    let mut exchange = policy.exchange();
    for time in [Some(0), Some(1_900_000_000), None, Some(1)] {
        let at = time.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let handled = exchange.at(at).handle(&event).unwrap();
        assert_eq!(wall_clock(handled), time.unwrap_or(1_704_067_200));
        // It stays until another one is given, and is no other exchange's.
        let handled = exchange.handle(&event).unwrap();
        assert_eq!(wall_clock(handled), time.unwrap_or(1_704_067_200));
        assert_eq!(wall_clock(policy.handle(&event)), 1_704_067_200);
    }
    let bytes = || tag(policy.handle(&attempt("random")));
    assert_eq!(bytes(), bytes());
}
