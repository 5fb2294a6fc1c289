//! Bodies in chunks, as a host asks about them.

use std::sync::Arc;

use wasm_agent_kit::event::{BodyChunk, Event};
use wasm_agent_kit::fault::FaultCode;
use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
use wasm_agent_kit::policy::{FailurePolicy, Handled, Policy, PolicySettings};

use crate::support::TestDir;
use crate::support::guests::{fnv1a, joiner, whole_body};

/// A policy of a joiner with a pool of four instances.
fn policy(parts: &str) -> Policy {
    let dir = TestDir::new();
    let path = dir.file("joiner.wat", joiner(parts, 0));
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
    let mut settings = PolicySettings::default();
    settings.pool.size = 4;
    settings.pool.limits.timeout = std::time::Duration::from_secs(20);
    settings.pool.wait = std::time::Duration::from_secs(20);
    Policy::new(Arc::new(module), settings)
}

fn chunk(id: &str, at: u32, data: &str, is_last: bool) -> Event {
    Event::RequestBody {
        chunk: BodyChunk {
            correlation_id: id.into(),
            chunk_index: at,
            data: data.into(),
            is_last,
            ..BodyChunk::default()
        },
        request: None,
    }
}

#[track_caller]
fn assert_joined(handled: &Handled, body: &str) {
    assert!(handled.fault.is_none(), "{:?}", handled.fault);
    let tag = format!("h-{:08x}", fnv1a(body.as_bytes()));
    assert_eq!(handled.response.audit.tags, [tag]);
}

/// Nobody keeps it until the rest comes, and an allow would be one of a part.
#[test]
fn a_part_of_a_body_alone_is_refused_where_the_module_wants_whole_ones() {
    let policy = policy(&whole_body(1));
    for event in [
        chunk("c00001", 0, "ab", false),
        chunk("c00001", 1, "cd", true),
    ] {
        let fault = policy.handle(&event).fault.unwrap();
        assert_eq!(fault.code, FaultCode::BodyIncomplete);
        let reply = policy.ask(&(&event).into());
        assert!(reply.ends());
    }
    assert_joined(&policy.handle(&chunk("c00001", 0, "abcd", true)), "abcd");
    let mut exchange = policy.exchange();
    let more = exchange.handle(&chunk("c00001", 0, "ab", false)).unwrap();
    assert!(more.response.needs_more && more.cost.is_none());
    assert!(exchange.has_unfinished_body());
    let last = exchange.handle(&chunk("c00001", 1, "cd", true)).unwrap();
    assert_joined(&last, "abcd");
    assert!(!exchange.has_unfinished_body());
}

/// Many exchanges over one pool: each asks one instance about all of its chunks.
#[test]
fn an_exchange_keeps_its_instance_for_the_chunks_of_a_body() {
    let policy = policy("");
    let rounds = |thread: usize| {
        for round in 0..50 {
            let id = format!("c{:05}", thread * 100 + round);
            let mut exchange = policy.exchange();
            let mut body = String::new();
            for at in 0..6 {
                let data = format!("{thread}x{round}y{at}");
                body.push_str(&data);
                let event = chunk(&id, at, &data, at == 5);
                assert_joined(&exchange.handle(&event).unwrap(), &body);
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let rounds = &rounds;
            scope.spawn(move || rounds(thread));
        }
    });
    assert_eq!(policy.pool().counts().chunks_moved, 0);
}

/// The same where its instance is gone.
#[test]
fn an_exchange_whose_instance_is_gone_says_so_to_the_end_of_the_body() {
    let policy = policy("");
    let mut exchange = policy.exchange();
    assert_joined(
        &exchange.handle(&chunk("c00001", 0, "ab", false)).unwrap(),
        "ab",
    );
    assert!(
        policy
            .handle(&chunk("c00002", 0, "!", true))
            .fault
            .is_some()
    );
    for at in 1..4 {
        let handled = exchange
            .handle(&chunk("c00001", at, "cd", at == 3))
            .unwrap();
        let tags = &handled.response.audit.tags;
        assert!(
            tags.iter().any(|tag| tag == "instance-changed"),
            "{at}: {tags:?}"
        );
    }
    assert_eq!(policy.pool().counts().chunks_moved, 3);
}

/// A chunk that nobody was asked about is missing from what the instance knows.
#[test]
fn the_chunks_after_one_without_an_answer_say_so() {
    let dir = TestDir::new();
    let path = dir.file("joiner.wat", joiner("", 0));
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let module = Module::load(&engine, &path, &LoadSettings::default()).unwrap();
    let mut settings = PolicySettings::default();
    settings.pool.size = 1;
    settings.pool.limits.timeout = std::time::Duration::from_secs(20);
    settings.pool.wait = std::time::Duration::from_millis(1);
    settings.failure_policy = FailurePolicy::Open;
    let policy = Policy::new(Arc::new(module), settings);
    for busy in [0, 1] {
        let mut exchange = policy.exchange();
        for at in 0..3 {
            let others = (at == busy).then(|| policy.pool().lease().unwrap());
            let handled = exchange
                .handle(&chunk("c00001", at, "ab", at == 2))
                .unwrap();
            let tags = &handled.response.audit.tags;
            let says = |tag: &str| tags.iter().any(|it| it == tag);
            assert_eq!(says("overload"), others.is_some(), "{at}: {tags:?}");
            assert_eq!(says("instance-changed"), at > busy, "{at}: {tags:?}");
        }
    }
}
