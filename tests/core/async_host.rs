//! A host that runs on an executor: its threads are given back while a guest
//! computes and while a caller waits for an instance.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::fault::FaultCode;
use wasm_agent_kit::guest::{Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::hook::{Hook, HookContext};
use wasm_agent_kit::policy::{Policy, PolicySettings};
use wasm_agent_kit::question::Question;

use crate::shipped;

fn policy(path: &str, size: usize, wait: Duration) -> Policy {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let module = Module::load(&engine, &shipped(path), &LoadSettings::default()).unwrap();
    let mut settings = PolicySettings::default();
    settings.pool.size = size;
    settings.pool.wait = wait;
    settings.pool.limits.timeout = Duration::from_millis(100);
    Policy::new(Arc::new(module), settings)
}

fn request() -> Event {
    Event::RequestHeaders(RequestHead {
        method: "GET".into(),
        uri: "/".into(),
        ..RequestHead::default()
    })
}

/// One thread for everything.
fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().unwrap();
    runtime.block_on(work)
}

/// What runs beside guests that never answer, on the same thread, has its turns.
#[test]
fn a_guest_that_spins_does_not_hold_the_thread_of_its_host() {
    let policy = policy("hostile/spin.wat", 2, Duration::from_secs(20));
    let turns = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    on_one_thread(async {
        let others = async {
            while !is_over.load(Ordering::Relaxed) {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        let event = request();
        let guests = async {
            // Two run and two wait.
            let (one, two, three, four) = tokio::join!(
                policy.handle_async(&event),
                policy.handle_async(&event),
                policy.handle_async(&event),
                policy.handle_async(&event),
            );
            for handled in [one, two, three, four] {
                assert_eq!(handled.fault.unwrap().code, FaultCode::Deadline);
            }
            is_over.store(true, Ordering::Relaxed);
        };
        tokio::join!(others, guests);
    });
    // One that is held until its guest's deadline has four.
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns > 50, "{turns}");
}

#[test]
fn callers_wait_in_order_and_each_is_answered() {
    let policy = policy("right/allow.wat", 1, Duration::from_secs(20));
    let held = policy.pool().lease().unwrap();
    let event = request();
    let question = Question::from(&event);
    let mut waker = Context::from_waker(Waker::noop());
    let (mut first, mut second) = (
        pin!(policy.ask_async(&question)),
        pin!(policy.handle_async(&event)),
    );
    assert!(first.as_mut().poll(&mut waker).is_pending());
    assert!(second.as_mut().poll(&mut waker).is_pending());
    assert_eq!(policy.pool().usage().waiting, 2);
    drop(held);
    // The place is the first one's, whoever asks now.
    assert!(policy.pool().try_lease().is_none());
    assert!(second.as_mut().poll(&mut waker).is_pending());
    on_one_thread(async {
        assert!(first.await.fault.is_none());
        assert!(second.await.fault.is_none());
    });
    assert_eq!(policy.pool().usage().waiting, 0);
    assert_eq!(policy.pool().usage().in_use, 0);
}

#[test]
fn a_caller_that_goes_away_takes_no_place_with_it() {
    let policy = policy("right/allow.wat", 1, Duration::from_secs(20));
    let event = request();
    let held = policy.pool().lease().unwrap();
    {
        let mut waker = Context::from_waker(Waker::noop());
        let mut gone = pin!(policy.handle_async(&event));
        assert!(gone.as_mut().poll(&mut waker).is_pending());
        drop(held);
    }
    assert_eq!(policy.pool().usage().waiting, 0);
    assert!(policy.handle(&event).fault.is_none());
}

/// A call that its host drops in the middle ends its instance.
#[test]
fn a_call_that_is_given_up_ends_its_instance() {
    let policy = policy("hostile/spin.wat", 1, Duration::from_secs(20));
    let event = request();
    {
        let mut waker = Context::from_waker(Waker::noop());
        let mut call = pin!(policy.handle_async(&event));
        assert!(matches!(call.as_mut().poll(&mut waker), Poll::Pending));
        assert_eq!(policy.pool().usage().in_use, 1);
    }
    assert_eq!(policy.pool().usage().in_use, 0);
    assert_eq!(policy.pool().counts().dropped_faulted, 1);
}

#[test]
fn waiting_ends_in_time_on_any_executor() {
    let policy = policy("right/allow.wat", 1, Duration::from_millis(20));
    let _held = policy.pool().lease().unwrap();
    let event = request();
    let fault = on_one_thread(policy.handle_async(&event)).fault.unwrap();
    assert_eq!(fault.code, FaultCode::Overload);
    assert_eq!(policy.pool().counts().refused, 1);
}

#[test]
fn a_hook_is_called_and_an_exchange_asked_as_a_future() {
    let hooks = policy("account/account.wasm", 1, Duration::from_secs(20));
    let context: HookContext =
        serde_json::from_str(r#"{"input": {"email": " Ada@Example.ORG "}}"#).unwrap();
    let handled = on_one_thread(hooks.hook_async(Hook::Before, context));
    assert_eq!(handled.context.input["email"], "ada@example.org");
    let agent = policy("right/allow.wat", 1, Duration::from_secs(20));
    on_one_thread(async {
        let mut exchange = agent.exchange();
        let event = request();
        assert!(exchange.handle_async(&event).await.is_some());
        assert!(exchange.ask_async(&Question::from(&event)).await.is_some());
        assert!(!exchange.has_ended());
    });
}

/// A task that has used up its share of a tokio thread may block in a call all the
/// same, and gets the place that comes free.
#[test]
fn a_blocking_call_in_a_task_gets_the_place_that_comes_free() {
    let policy = policy("right/allow.wat", 1, Duration::from_secs(20));
    let held = std::sync::Mutex::new(Some(policy.pool().lease().unwrap()));
    on_one_thread(async {
        let channel = tokio::sync::Semaphore::new(1);
        while tokio::task::coop::has_budget_remaining() {
            let mut permit = pin!(channel.acquire());
            let mut waker = Context::from_waker(Waker::noop());
            let _ = permit.as_mut().poll(&mut waker);
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while policy.pool().usage().waiting == 0 {
                    std::thread::yield_now();
                }
                drop(held.lock().unwrap().take());
            });
            assert!(policy.handle(&request()).fault.is_none());
        });
    });
}
