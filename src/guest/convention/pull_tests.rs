//! A second calling convention, for tests alone: the guest pulls what it wants to
//! know by host calls, refuses by one, and is asked of a whole exchange on one
//! instance. It keeps the parts above this folder from relying on JSON in a buffer.

use std::future::Future as _;
use std::path::Path;
use std::sync::Arc;

use wasmtime::{Caller, Instance, Linker, Memory, Store, TypedFunc};

use super::json_buffer::answer::AnswerPolicy;
use super::{AskSettings, Checked};
use crate::answer::Answer;
use crate::event::{Event, RequestHead, ResponseHead};
use crate::fault::{Fault, FaultCode, Refusal};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::faults::fault_of;
use crate::guest::host::{HostState, enter};
use crate::guest::inspect::Import;
use crate::guest::module::{Candidate, LoadSettings, Module, Source};
use crate::limits::LoadLimits;
use crate::policy::{Policy, PolicySettings};
use crate::question::{HeaderNames, Phase, Question};
use crate::response::{AgentResponse, Decision};

/// The export that tells this convention.
pub(super) const MARKER: &str = "pull_version_1";

/// The export that handles a phase.
pub(super) const fn handler(phase: Phase) -> &'static str {
    match phase {
        Phase::Event(crate::event::EventKind::RequestHeaders) => "pull_on_request",
        Phase::Event(crate::event::EventKind::ResponseHeaders) => "pull_on_response",
        _ => "pull_on_nothing",
    }
}

/// What the host answers to a guest of this convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::guest) enum HostFunction {
    /// `first_of_path() -> i32`: the byte of the request's path behind the slash.
    FirstOfPath,
    /// `refuse(status)`.
    Refuse,
}

pub(super) fn linked(import: &Import) -> Option<HostFunction> {
    match (import.module.as_str(), import.name.as_str()) {
        ("pull", "first_of_path") => Some(HostFunction::FirstOfPath),
        ("pull", "refuse") => Some(HostFunction::Refuse),
        _ => None,
    }
}

/// What the store keeps of one exchange.
#[derive(Default)]
struct Kept {
    path: String,
    refused: Option<u16>,
}

fn kept(state: &mut HostState) -> &mut Kept {
    let kept = state.kept.get_or_insert_with(|| Box::new(Kept::default()));
    kept.downcast_mut().unwrap()
}

impl HostFunction {
    pub(super) fn link(self, linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
        match self {
            Self::FirstOfPath => linker.func_wrap(
                "pull",
                "first_of_path",
                |mut caller: Caller<'_, HostState>| {
                    let path = &kept(caller.data_mut()).path;
                    path.as_bytes().get(1).copied().map_or(0, i32::from)
                },
            ),
            Self::Refuse => linker.func_wrap(
                "pull",
                "refuse",
                |mut caller: Caller<'_, HostState>, status: i32| {
                    kept(caller.data_mut()).refused = u16::try_from(status).ok();
                },
            ),
        }?;
        Ok(())
    }
}

/// The exports of one instance.
pub(crate) struct Guest {
    memory: Memory,
    handlers: Vec<Option<TypedFunc<(), ()>>>,
    input: Vec<u8>,
}

impl Guest {
    pub(super) fn link(
        instance: &Instance,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<Self> {
        let memory = instance.get_memory(&mut *store, "memory").unwrap();
        let phases = Phase::ALL.into_iter().take(4);
        let link = |phase| instance.get_typed_func(&mut *store, handler(phase)).ok();
        Ok(Self {
            memory,
            handlers: phases.map(link).collect(),
            input: Vec::new(),
        })
    }

    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    pub(super) fn write(
        &mut self,
        store: &mut Store<HostState>,
        question: &Question<'_>,
        _names: HeaderNames,
    ) {
        if let Question::Event(event) = question
            && let Event::RequestHeaders(request) = event.as_ref()
        {
            kept(store.data_mut()).path.clone_from(&request.uri);
        }
    }

    pub(super) async fn run(
        &mut self,
        store: &mut Store<HostState>,
        handler: usize,
    ) -> Result<bool, Fault> {
        let handler = self.handlers[handler].as_ref().unwrap();
        match enter(handler, &mut *store, ()).await {
            Ok(()) => Ok(kept(store.data_mut()).refused.is_some()),
            Err(error) => Err(fault_of(&error, store, Some(self.memory), "in a handler")),
        }
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) fn check(
        &self,
        store: &Store<HostState>,
        _question: &Question<'_>,
        _policy: &AnswerPolicy,
    ) -> Result<Checked, Fault> {
        let kept = store.data().kept.as_ref();
        let kept = kept.and_then(|kept| kept.downcast_ref::<Kept>());
        let Some(status) = kept.and_then(|kept| kept.refused) else {
            return Err(Fault::new(FaultCode::Internal, "no answer"));
        };
        let mut response = AgentResponse::allow();
        response.decision = Decision::Block { status, body: None };
        Ok(Checked {
            answer: Answer::Response(Box::new(response)),
            unknown_keys: Vec::new(),
        })
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) fn misread(&self, _store: &Store<HostState>) -> Option<&'static str> {
        None
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) fn refusal_in_unread(&self, _store: &Store<HostState>) -> Option<Refusal> {
        None
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) fn answer(&self) -> &[u8] {
        &[]
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) fn input_bytes(&self) -> u64 {
        0
    }

    pub(super) const fn memory(&self) -> Memory {
        self.memory
    }

    #[expect(clippy::unused_self, reason = "each convention has the same methods")]
    pub(super) const fn not_given_back(&self) -> Option<FaultCode> {
        None
    }
}

/// Refuses a response to `/r` and a request to `/x`; traps at a request to `/t`, and
/// spins at a response to `/s`.
const GUEST: &str = r#"(module
    (import "pull" "first_of_path" (func $first (result i32)))
    (import "pull" "refuse" (func $refuse (param i32)))
    (memory (export "memory") 1)
    (func (export "pull_version_1"))
    (func (export "pull_on_request")
        (if (i32.eq (call $first) (i32.const 120)) (then (call $refuse (i32.const 403))))
        (if (i32.eq (call $first) (i32.const 116)) (then unreachable)))
    (func (export "pull_on_response")
        (if (i32.eq (call $first) (i32.const 115)) (then (loop $on (br $on))))
        (if (i32.eq (call $first) (i32.const 114)) (then (call $refuse (i32.const 502))))))"#;

fn policy(size: usize) -> Policy {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let limits = LoadLimits::default();
    let source = Source::of(Path::new("pull.wat"), GUEST.into(), &limits).unwrap();
    let candidate = Candidate::of(source, &LoadSettings::default()).unwrap();
    let module: Module = candidate.compile(&engine, &limits).unwrap();
    let mut settings = PolicySettings::default();
    settings.pool.size = size;
    settings.pool.wait = std::time::Duration::ZERO;
    Policy::new(Arc::new(module), settings)
}

fn request(path: &str) -> Event {
    Event::RequestHeaders(RequestHead {
        method: "GET".into(),
        uri: path.into(),
        ..RequestHead::default()
    })
}

fn response() -> Event {
    Event::ResponseHeaders(ResponseHead::default())
}

/// Status of each answer of an exchange, 0 where it lets go on.
fn asked(policy: &Policy, path: &str) -> Vec<u16> {
    let mut exchange = policy.exchange();
    [request(path), response()]
        .iter()
        .map_while(|event| exchange.handle(event))
        .map(|handled| {
            assert!(handled.fault.is_none(), "{:?}", handled.fault);
            match handled.response.decision {
                Decision::Block { status, .. } => status,
                _ => 0,
            }
        })
        .collect()
}

#[test]
fn a_guest_that_pulls_keeps_an_exchange_on_its_instance() {
    let policy = policy(1);
    assert_eq!(asked(&policy, "/a"), [0, 0]);
    assert_eq!(asked(&policy, "/r"), [0, 502]);
    assert_eq!(asked(&policy, "/x"), [403]);
    let counts = policy.pool().counts();
    assert_eq!((counts.created, counts.refused), (1, 0));
}

#[test]
fn two_exchanges_have_two_instances_and_no_third_begins() {
    let policy = policy(2);
    let (mut one, mut other) = (policy.exchange(), policy.exchange());
    assert!(one.handle(&request("/r")).is_some());
    assert!(other.handle(&request("/a")).is_some());
    assert_eq!(policy.pool().usage().in_use, 2);
    let mut third = policy.exchange();
    let fault = third.handle(&request("/a")).unwrap().fault.unwrap();
    assert_eq!(fault.code, FaultCode::Overload);
    // Each is asked of its own request.
    let blocks = |handled: crate::policy::Handled| handled.response.decision != Decision::Allow;
    assert!(!blocks(other.handle(&response()).unwrap()));
    assert!(blocks(one.handle(&response()).unwrap()));
    // One that has ended gives its instance back at once.
    assert_eq!(policy.pool().usage().in_use, 1);
    drop(other);
    assert_eq!(policy.pool().usage().in_use, 0);
}

/// Another instance would know nothing of the request, and let the response pass.
#[test]
fn an_exchange_whose_instance_is_gone_is_a_fault_to_its_end() {
    let policy = policy(1);
    let mut exchange = policy.exchange();
    let trapped = exchange.handle(&request("/t")).unwrap();
    assert!(trapped.fault.unwrap().code.poisons());
    // By default a fault refuses, which ends the exchange.
    assert!(exchange.handle(&response()).is_none());
    let mut settings = policy.settings().clone();
    settings.failure_policy = crate::policy::FailurePolicy::Open;
    let open = policy.followed_by(Arc::clone(policy.pool().module()), settings);
    let mut exchange = open.exchange();
    let trapped = exchange.handle(&request("/t")).unwrap().fault.unwrap();
    let after = exchange.handle(&response()).unwrap().fault.unwrap();
    assert_eq!(after.code, trapped.code);
    // So is one whose host gave up waiting for an answer.
    let mut exchange = open.exchange();
    assert!(exchange.handle(&request("/s")).is_some());
    {
        let spins = response();
        let mut given_up = std::pin::pin!(exchange.handle_async(&spins));
        let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(given_up.as_mut().poll(&mut waker).is_pending());
    }
    let after = exchange.handle(&response()).unwrap().fault.unwrap();
    assert_eq!(after.code, FaultCode::Internal);
}

/// What was kept of an exchange goes with it.
#[test]
fn an_instance_of_this_convention_is_asked_alone_too() {
    let policy = policy(1);
    assert!(matches!(
        policy.handle(&request("/x")).response.decision,
        Decision::Block { status: 403, .. }
    ));
    let settings = PolicySettings::default();
    let asking: AskSettings<'_> = settings.asking();
    let mut lease = policy.pool().lease().unwrap();
    let (answer, _) = lease.ask(&Question::from(&request("/a")), asking);
    assert!(answer.unwrap().is_none());
}
