//! The agent: an event in, an agent response out.
//!
//! Every command and every transport answers through [`Agent::handle`], so the
//! desk and production cannot differ.

use std::sync::Arc;

use crate::abi::agent::{HeaderNames, write_input};
use crate::abi::answer::{AnswerPolicy, CheckedAnswer, check_answer};
use crate::abi::{Abi, handler_name};
use crate::decision::{Answer, FailurePolicy, decide};
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::module::Module;
use crate::pool::{Pool, PoolSettings};
use crate::response::AgentResponse;
use crate::runner::{Cost, Instance, RawAnswer};

/// How an agent answers.
#[derive(Debug, Clone, Default)]
pub struct AgentSettings {
    /// Instances and limits.
    pub pool: PoolSettings,
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What a fault becomes.
    pub failure_policy: FailurePolicy,
    /// What answers are checked against.
    pub answer_policy: AnswerPolicy,
}

/// What came of one event.
#[derive(Debug, Clone)]
pub struct Handled {
    /// What the proxy is told.
    pub response: AgentResponse,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// Keys of the answer that the contract does not know.
    pub unknown_keys: Vec<String>,
}

/// A module behind its pool, answering events.
pub struct Agent {
    pool: Pool,
    settings: AgentSettings,
    /// Whether the module has a handler, in the order of [`EventKind::ALL`].
    has_handler: [bool; EventKind::ALL.len()],
}

impl Agent {
    /// An agent for a loaded module.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: AgentSettings) -> Self {
        Self {
            has_handler: EventKind::ALL.map(|kind| module.has_handler(handler_name(kind))),
            pool: Pool::new(module, settings.pool),
            settings,
        }
    }

    /// An agent in this one's place, with a pool that counts on where this
    /// one's is.
    #[must_use]
    pub fn followed_by(&self, module: Arc<Module>, settings: AgentSettings) -> Self {
        Self {
            has_handler: EventKind::ALL.map(|kind| module.has_handler(handler_name(kind))),
            pool: self.pool.followed_by(module, settings.pool),
            settings,
        }
    }

    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first event rather than at it.
    ///
    /// # Errors
    /// [`Error::WrongAbi`] for a module of another ABI, [`Error::Start`] with
    /// what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        self.pool.module().require(Abi::Agent)?;
        self.pool.fill(1)
    }

    /// Makes all instances that the pool may have, so that no event waits for
    /// one to be made.
    ///
    /// # Errors
    /// Those of [`Agent::start`].
    pub fn fill(&self) -> Result<(), Error> {
        self.pool.module().require(Abi::Agent)?;
        self.pool.fill(self.settings.pool.size)
    }

    /// Whether the module has a handler for events of this kind.
    #[must_use]
    pub const fn handles(&self, kind: EventKind) -> bool {
        self.has_handler[kind as usize]
    }

    /// Answers an event that no guest is to be called for.
    #[must_use]
    pub fn pass(&self) -> Handled {
        self.decided(Ok(Answer::NotCalled), None, Vec::new())
    }

    /// Answers an event that came to no good before a guest was called: by
    /// the failure policy, as after a guest's own fault.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Handled {
        self.decided(Err(fault), None, Vec::new())
    }

    /// The pool, for its counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How this agent answers.
    #[must_use]
    pub const fn settings(&self) -> &AgentSettings {
        &self.settings
    }

    /// Answers one event. Waits for an instance, never fails, never panics.
    ///
    /// Must run on a [`guest_thread`](crate::runner::guest_thread).
    #[must_use]
    pub fn handle(&self, event: &Event) -> Handled {
        let names = self.settings.header_names;
        self.ask((event.kind(), event.chunk_index()), |out| {
            write_input(event, names, out);
        })
    }

    /// Answers an event whose input was written before, byte for byte.
    #[must_use]
    pub fn handle_exact(&self, kind: EventKind, chunk_index: Option<u32>, input: &[u8]) -> Handled {
        self.ask((kind, chunk_index), |out| out.extend_from_slice(input))
    }

    fn ask(&self, event: (EventKind, Option<u32>), write: impl FnOnce(&mut Vec<u8>)) -> Handled {
        // Its handlers are absent, which must not pass for an allow.
        if let Err(error) = self.pool.module().require(Abi::Agent) {
            return self.refuse(Fault::new(FaultCode::Internal, error.to_string()));
        }
        if !self.handles(event.0) {
            return self.pass();
        }
        let (result, cost) = self
            .pool
            .call(|instance| call_written(instance, event, write, &self.settings.answer_policy));
        match result {
            Ok(Some(answer)) => {
                let response = Answer::Given(Box::new(answer.response));
                self.decided(Ok(response), cost, answer.unknown_keys)
            }
            Ok(None) => self.decided(Ok(Answer::Empty), cost, Vec::new()),
            Err(fault) => self.decided(Err(fault), cost, Vec::new()),
        }
    }

    fn decided(
        &self,
        result: Result<Answer, Fault>,
        cost: Option<Cost>,
        unknown_keys: Vec<String>,
    ) -> Handled {
        let policy = self.settings.failure_policy;
        let (response, fault) = match result {
            Ok(answer) => (decide(Ok(answer), policy), None),
            Err(fault) => (decide(Err(&fault), policy), Some(fault)),
        };
        Handled {
            response,
            fault,
            cost,
            unknown_keys,
        }
    }
}

/// Calls the event's handler on an instance and checks its answer; `None` is
/// the empty answer.
pub fn call_event(
    instance: &mut Instance,
    event: &Event,
    names: HeaderNames,
    policy: &AnswerPolicy,
) -> (Result<Option<CheckedAnswer>, Fault>, Cost) {
    call_written(
        instance,
        (event.kind(), event.chunk_index()),
        |out| write_input(event, names, out),
        policy,
    )
}

fn call_written(
    instance: &mut Instance,
    (kind, chunk_index): (EventKind, Option<u32>),
    write: impl FnOnce(&mut Vec<u8>),
    policy: &AnswerPolicy,
) -> (Result<Option<CheckedAnswer>, Fault>, Cost) {
    let called = instance.call(kind as usize, write);
    let result = called.result.and_then(|answer| match answer {
        RawAnswer::Empty => Ok(None),
        RawAnswer::Bytes(bytes) => check_answer(bytes, kind, chunk_index, policy).map(Some),
    });
    (result, called.cost)
}
