//! The core as a library: the pool's promises, which no command shows alone.

use std::future::Future as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::fault::{FaultCode, TrapKind};
use wasm_agent_kit::guest::{Allocation, Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::internals::guest::{Instance, RawAnswer};
use wasm_agent_kit::limits::{Isolation, Limits};
use wasm_agent_kit::policy::{Policy, PolicySettings};
use wasm_agent_kit::policy::{Pool, PoolSettings};

use crate::shipped;

fn module(path: &str) -> Arc<Module> {
    load(path, EngineSettings::default())
}

fn load(path: &str, settings: EngineSettings) -> Arc<Module> {
    let engine = Engine::new(settings).unwrap();
    Arc::new(Module::load(&engine, &shipped(path), &LoadSettings::default()).unwrap())
}

fn request(uri: &str) -> Event {
    Event::RequestHeaders(RequestHead {
        method: "GET".into(),
        uri: uri.into(),
        ..RequestHead::default()
    })
}

/// Runs `work` on this many threads at once.
fn on_threads(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..count {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

#[test]
fn a_pool_of_n_lends_n_and_makes_no_more() {
    let pool = Pool::new(
        module("right/allow.wat"),
        PoolSettings {
            size: 3,
            wait: Duration::from_secs(20),
            ..PoolSettings::default()
        },
    );
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    on_threads(12, |_| {
        for _ in 0..200 {
            let mut lease = pool.lease().unwrap();
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            assert!(
                lease
                    .call(0, |out| out.extend_from_slice(b"{}"))
                    .result
                    .is_ok()
            );
            now.fetch_sub(1, Ordering::SeqCst);
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    let counts = pool.counts();
    assert!((1..=3).contains(&counts.created), "{counts:?}");
    assert_eq!(counts.refused, 0);
}

#[test]
fn a_caller_waits_for_its_turn_and_no_longer_than_allowed() {
    let pool = Pool::new(
        module("right/allow.wat"),
        PoolSettings {
            size: 1,
            wait: Duration::from_millis(50),
            ..PoolSettings::default()
        },
    );
    let held = pool.lease().unwrap();
    let started = Instant::now();
    let Err(fault) = pool.lease() else {
        panic!("two leases of one instance")
    };
    assert_eq!(fault.code, FaultCode::Overload);
    assert!(started.elapsed() >= Duration::from_millis(50));
    drop(held);
    assert!(pool.lease().is_ok());
    assert_eq!(pool.counts().refused, 1);
}

#[test]
fn a_waiting_caller_is_woken_when_a_lease_ends() {
    let pool = Pool::new(
        module("right/allow.wat"),
        PoolSettings {
            size: 1,
            wait: Duration::from_secs(20),
            ..PoolSettings::default()
        },
    );
    let held = Barrier::new(2);
    on_threads(2, |number| {
        if number == 0 {
            let lease = pool.lease().unwrap();
            held.wait();
            // Long enough for the other to fall asleep; right either way.
            std::thread::yield_now();
            drop(lease);
        } else {
            held.wait();
            assert!(pool.lease().is_ok());
        }
    });
    assert_eq!(pool.counts().refused, 0);
}

#[test]
fn overload_is_an_answer_within_the_wait() {
    let settings = PolicySettings {
        pool: PoolSettings {
            size: 1,
            wait: Duration::from_millis(10),
            limits: Limits {
                timeout: Duration::from_millis(400),
                ..Limits::default()
            },
            ..PoolSettings::default()
        },
        ..PolicySettings::default()
    };
    let agent = Policy::new(module("hostile/spin.wat"), settings);
    let together = Barrier::new(3);
    let codes: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    together.wait();
                    agent.handle(&request("/"))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                let handled = thread.join().unwrap();
                let status = handled.response.decision.status().unwrap();
                format!("{} {status}", handled.fault.unwrap().code)
            })
            .collect()
    });
    assert_eq!(
        codes.iter().filter(|code| *code == "overload 503").count(),
        2,
        "{codes:?}"
    );
    assert!(codes.contains(&"deadline 500".to_owned()), "{codes:?}");
}

#[test]
fn every_fault_costs_one_instance_and_nothing_else() {
    let agent = Policy::new(
        module("hostile/trap-unreachable.wat"),
        PolicySettings::default(),
    );
    for _ in 0..100 {
        let handled = agent.handle(&request("/"));
        assert_eq!(
            handled.fault.unwrap().code,
            FaultCode::Trap(TrapKind::Unreachable)
        );
    }
    let counts = agent.pool().counts();
    assert_eq!((counts.created, counts.dropped_faulted), (100, 100));
}

#[test]
fn isolation_decides_how_long_an_instance_lives() {
    for (isolation, created) in [
        (Isolation::Pooled, 1),
        (Isolation::Fresh, 12),
        (Isolation::Recycle(5), 3),
    ] {
        let settings = PolicySettings {
            pool: PoolSettings {
                isolation,
                ..PoolSettings::default()
            },
            ..PolicySettings::default()
        };
        let agent = Policy::new(module("right/allow.wat"), settings);
        for _ in 0..12 {
            assert!(agent.handle(&request("/")).fault.is_none());
        }
        assert_eq!(agent.pool().counts().created, created, "{isolation}");
    }
}

#[test]
fn a_defect_of_ours_in_mid_call_costs_the_instance_and_not_the_pool() {
    let pool = Pool::new(
        module("right/allow.wat"),
        PoolSettings {
            size: 1,
            ..PoolSettings::default()
        },
    );
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut lease = pool.lease().unwrap();
        let _ = lease.call(0, |_| panic!("planted"));
    }));
    assert!(broken.is_err());
    let mut lease = pool.lease().unwrap();
    let called = lease.call(0, |out| out.extend_from_slice(b"{}"));
    assert!(matches!(called.result, Ok(RawAnswer::Bytes(_))));
    let counts = pool.counts();
    assert_eq!((counts.created, counts.dropped_faulted), (2, 1));
}

#[test]
fn slots_and_mappings_answer_alike() {
    let answers: Vec<_> = [
        Allocation::OnDemand,
        Allocation::Slots {
            count: 4,
            memory_bytes: 64 << 20,
        },
    ]
    .map(|allocation| {
        let settings = EngineSettings {
            fuel: true,
            allocation,
            ..EngineSettings::default()
        };
        let settings = load("rules/rules.wasm", settings);
        let fresh = PolicySettings {
            pool: PoolSettings {
                isolation: Isolation::Fresh,
                ..PoolSettings::default()
            },
            ..PolicySettings::default()
        };
        let agent = Policy::new(settings, fresh);
        ["/", "/admin", "/old/x", "/?q=union select"].map(|uri| {
            let handled = agent.handle(&request(uri));
            (handled.response, handled.cost.unwrap().fuel)
        })
    })
    .into_iter()
    .collect();
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn the_clock_sleeps_between_calls_and_still_interrupts() {
    let settings = PolicySettings {
        pool: PoolSettings {
            limits: Limits {
                timeout: Duration::from_millis(20),
                ..Limits::default()
            },
            ..PoolSettings::default()
        },
        ..PolicySettings::default()
    };
    let agent = Policy::new(module("hostile/spin.wat"), settings);
    for idle in [0, 150, 300] {
        // Past the ticks after which the clock goes to sleep.
        std::thread::sleep(Duration::from_millis(idle));
        let handled = agent.handle(&request("/"));
        assert_eq!(handled.fault.unwrap().code, FaultCode::Deadline);
    }
}

/// A guest's stack is its own, so a caller's small one is no danger.
#[test]
fn endless_recursion_is_a_fault_on_a_thread_with_little_stack() {
    let module = module("hostile/recursion.wat");
    let called = std::thread::Builder::new()
        .stack_size(192 << 10)
        .spawn(move || {
            let mut instance = Instance::new(&module, Limits::default()).unwrap();
            instance.call(0, |_| {}).result.map(|_| ())
        });
    let fault = called.unwrap().join().unwrap().unwrap_err();
    assert_eq!(fault.code, FaultCode::Trap(TrapKind::StackOverflow));
}

#[test]
fn a_running_call_gives_way_and_a_given_up_one_costs_the_instance() {
    for name in ["spin.wat", "spin-alloc.wat", "spin-dealloc.wat"] {
        let limits = Limits {
            // Not met here: what ends these calls is that nobody goes on.
            timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        let mut instance = Instance::new(&module(&format!("hostile/{name}")), limits).unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut call = Box::pin(instance.call_async(0, |out| out.extend_from_slice(b"{}")));
        for _ in 0..3 {
            assert!(call.as_mut().poll(&mut context).is_pending(), "{name}");
        }
        drop(call);
        assert_eq!(instance.poison(), Some(FaultCode::Internal), "{name}");
    }
}

#[test]
fn a_call_goes_on_where_it_gave_way_on_any_thread() {
    let limits = Limits {
        timeout: Duration::from_millis(30),
        ..Limits::default()
    };
    let mut instance = Instance::new(&module("hostile/spin.wat"), limits).unwrap();
    let mut call = Box::pin(instance.call_async(0, |out| out.extend_from_slice(b"{}")));
    let called = loop {
        let polled = std::thread::scope(|scope| {
            let thread =
                scope.spawn(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop())));
            thread.join().unwrap()
        });
        if let Poll::Ready(called) = polled {
            break called;
        }
    };
    assert!(called.cost.time >= limits.timeout);
    assert_eq!(called.result.unwrap_err().code, FaultCode::Deadline);
}
