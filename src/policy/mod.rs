//! A policy: a module with its instances, its limits and its failure policy.
//!
//! In: a question. Out: a reply, always. Every command, every transport and every
//! embedding host asks through [`Policy`], so local runs and production cannot
//! differ.

pub mod decision;
mod exchange;
pub mod pool;
mod reply;
pub mod runtime;
pub mod smoke;

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use self::decision::{FailurePolicy, Outcome, decide};
use self::pool::{Lease, Pool, PoolSettings, caught};
use crate::abi::Abi;
use crate::answer::Answer;
use crate::cost::Cost;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::guest::convention::json_buffer::answer::AnswerPolicy;
use crate::guest::module::Module;
use crate::guest::{AskSettings, Checked, Turns, drive};
use crate::hook::{Hook, HookContext};
use crate::limits::Isolation;
use crate::question::{HeaderNames, Phase, Question};

pub use exchange::{Ends, Exchange};
pub use reply::{Handled, HandledHook, Reply};

/// How a module is asked, and what its faults become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicySettings {
    /// Instances and limits.
    pub pool: PoolSettings,
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What a fault becomes that an event led to; a hook's fault is a result that
    /// is not ok.
    pub failure_policy: FailurePolicy,
    /// What answers are checked against.
    pub answer_policy: AnswerPolicy,
}

impl PolicySettings {
    /// How a guest is asked.
    #[must_use]
    pub const fn asking(&self) -> AskSettings<'_> {
        AskSettings {
            header_names: self.header_names,
            answer_policy: &self.answer_policy,
        }
    }
}

/// A module that answers questions: events of HTTP exchanges, or contexts of
/// hooks.
pub struct Policy {
    pool: Pool,
    settings: PolicySettings,
    /// Whether the module has a handler, in the order of [`Phase::ALL`].
    has_handler: [bool; Phase::ALL.len()],
}

impl Policy {
    /// A policy of a loaded module.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: PolicySettings) -> Self {
        Self::behind(Pool::new(module, settings.pool), settings)
    }

    /// A policy in this one's place, with a pool that counts on where this
    /// one's is.
    #[must_use]
    pub fn followed_by(&self, module: Arc<Module>, settings: PolicySettings) -> Self {
        Self::behind(self.pool.followed_by(module, settings.pool), settings)
    }

    fn behind(pool: Pool, settings: PolicySettings) -> Self {
        let has = |phase: Phase| pool.module().has_handler(phase.handler());
        Self {
            has_handler: Phase::ALL.map(has),
            pool,
            settings,
        }
    }

    /// The same with one instance that nobody else uses, kept as before or
    /// otherwise.
    #[must_use]
    pub fn alone(&self, isolation: Option<Isolation>) -> Self {
        let mut settings = self.settings.clone();
        settings.pool.size = 1;
        settings.pool.isolation = isolation.unwrap_or(settings.pool.isolation);
        Self::new(Arc::clone(self.pool.module()), settings)
    }

    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first question rather than at it. A host that asks about events
    /// alone, or hooks alone, asks [`Module::require`] too: other questions are
    /// faults.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        self.pool.fill(1)
    }

    /// Makes all instances that the pool may have, so that no question waits for
    /// one to be made.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn fill(&self) -> Result<(), Error> {
        self.pool.fill(self.settings.pool.size)
    }

    /// The ABI its module is written to.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.pool.module().abi
    }

    /// The pool, for its module, settings and counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How this policy answers.
    #[must_use]
    pub const fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// Whether the module has a handler for events of this kind.
    #[must_use]
    pub const fn handles(&self, kind: EventKind) -> bool {
        self.has_handler[kind as usize]
    }

    /// Whether the module has this hook. `after_hook` is optional.
    #[must_use]
    pub const fn has_hook(&self, hook: Hook) -> bool {
        self.has_handler[EventKind::ALL.len() + hook as usize]
    }

    /// Answers an event that no guest is to be called for.
    #[must_use]
    pub fn pass(&self) -> Handled {
        self.decided(Ok(Outcome::NotCalled), None, Vec::new())
    }

    /// Answers an event that failed before a guest was called: by the failure
    /// policy, as after a guest's own fault.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Handled {
        self.decided(Err(fault), None, Vec::new())
    }

    /// Answers any question, also input recorded earlier, byte for byte. Waits for
    /// an instance, never fails, never panics.
    #[must_use]
    pub fn ask(&self, question: &Question<'_>) -> Reply {
        match question {
            Question::Hook(hook, context) => self.hook(*hook, context.as_ref().clone()).into(),
            Question::Event(event) => self.event(event.kind(), question).into(),
            Question::Exact { phase, json, .. } => match phase {
                Phase::Hook(hook) => self.recorded_hook(*hook, question, json).into(),
                Phase::Event(kind) => self.event(*kind, question).into(),
            },
        }
    }

    /// Answers one event. Waits for an instance, never fails, never panics.
    #[must_use]
    pub fn handle(&self, event: &Event) -> Handled {
        self.event(event.kind(), &event.into())
    }

    fn event(&self, kind: EventKind, question: &Question<'_>) -> Handled {
        // Its handlers are absent, which must not pass for an allow.
        if let Err(error) = self.pool.module().require(Abi::Agent) {
            return self.refuse(Fault::new(FaultCode::Internal, error.to_string()));
        }
        if !self.handles(kind) {
            return self.pass();
        }
        let (result, cost) = self.called(question);
        self.answered(result, cost)
    }

    /// Calls a hook. Waits for its turn, never fails, never panics. A hook that
    /// the module lacks is not called, and changes nothing.
    #[must_use]
    pub fn hook(&self, hook: Hook, context: HookContext) -> HandledHook {
        let (result, cost) = self.hook_called(hook, &Question::Hook(hook, Cow::Borrowed(&context)));
        HandledHook::of(context, result, cost)
    }

    fn recorded_hook(&self, hook: Hook, question: &Question<'_>, json: &[u8]) -> HandledHook {
        match serde_json::from_slice(json) {
            Ok(context) => {
                let (result, cost) = self.hook_called(hook, question);
                HandledHook::of(context, result, cost)
            }
            Err(error) => {
                let what = format!("a hook's context that is none: {error}");
                let fault = Fault::new(FaultCode::Internal, what);
                HandledHook::of(HookContext::default(), Err(fault), None)
            }
        }
    }

    fn hook_called(
        &self,
        hook: Hook,
        question: &Question<'_>,
    ) -> (Result<Option<Checked>, Fault>, Option<Cost>) {
        // Its hooks are absent, which must not pass for leave to go on.
        if let Err(error) = self.pool.module().require(Abi::Hook) {
            let fault = Fault::new(FaultCode::Internal, error.to_string());
            return (Err(fault), None);
        }
        if !self.has_hook(hook) {
            return (Ok(None), None);
        }
        self.called(question)
    }

    fn called(&self, question: &Question<'_>) -> (Result<Option<Checked>, Fault>, Option<Cost>) {
        let lease = async { self.pool.lease() };
        drive(self.called_on(lease, question, Turns::for_this_thread()))
    }

    /// Answers one event that the module has a handler for, on an instance that
    /// [`Pool::try_lease`] has found free. The future gives way while the guest
    /// computes, see [`SLICE`](crate::guest::SLICE), and never panics.
    pub async fn handle_leased<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        event: &Event,
    ) -> Handled {
        let question = Question::from(event);
        let (result, cost) = self.called_on(lease, &question, Turns::Many).await;
        self.answered(result, cost)
    }

    async fn called_on<'a>(
        &'a self,
        lease: impl Future<Output = Result<Lease<'a>, Box<Fault>>> + Send,
        question: &Question<'_>,
        turns: Turns,
    ) -> (Result<Option<Checked>, Fault>, Option<Cost>) {
        // Pinned where it stands: a future that is moved is copied, whole.
        let called = pin!(async {
            match lease.await {
                Err(fault) => (Err(*fault), None),
                Ok(mut lease) => {
                    let asking = self.settings.asking();
                    let (result, mut cost) = lease.ask_in(turns, question, asking).await;
                    cost.waited = lease.waited();
                    (result, Some(cost))
                }
            }
        });
        caught(called).await
    }

    fn answered(&self, result: Result<Option<Checked>, Fault>, cost: Option<Cost>) -> Handled {
        match result {
            Ok(Some(Checked {
                answer: Answer::Response(response),
                unknown_keys,
            })) => self.decided(Ok(Outcome::Given(response)), cost, unknown_keys),
            Ok(None) => self.decided(Ok(Outcome::Empty), cost, Vec::new()),
            Ok(Some(_)) => self.decided(Err(wrong_answer()), cost, Vec::new()),
            Err(fault) => self.decided(Err(fault), cost, Vec::new()),
        }
    }

    fn decided(
        &self,
        result: Result<Outcome, Fault>,
        cost: Option<Cost>,
        unknown_keys: Vec<String>,
    ) -> Handled {
        let policy = self.settings.failure_policy;
        let (response, fault) = match result {
            Ok(outcome) => (decide(Ok(outcome), policy), None),
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

/// A defect of a calling convention, which must not pass for an empty answer.
fn wrong_answer() -> Fault {
    Fault::new(
        FaultCode::Internal,
        "the answer is to another question; please report it",
    )
}
