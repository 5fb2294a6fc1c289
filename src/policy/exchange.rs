//! One exchange, question by question, as a proxy or a host asks them.

use std::borrow::Cow;
use std::time::SystemTime;

use super::bodies::{Bodies, Collector};
use super::pool::{Lease, Told};
use super::{Handled, HandledHook, Policy, Reply};
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::hook::{Hook, HookContext};
use crate::question::Question;
use crate::response::Decision;

/// An exchange in progress: a request and its response, of which a policy is asked
/// about one part after the other.
///
/// Nothing is asked any more once an answer has refused: neither a proxy nor a host
/// asks any further then. A guest that keeps what it was told between its calls has
/// one instance for the whole exchange; others share the pool call by call.
///
/// ```no_run
/// use wasm_agent_kit::event::Event;
/// use wasm_agent_kit::policy::Policy;
///
/// fn all_pass(policy: &Policy, events: &[Event]) -> bool {
///     let mut exchange = policy.exchange();
///     let answered = events.iter().map_while(|event| exchange.handle(event));
///     answered.count() == events.len() && !exchange.has_ended()
/// }
/// ```
pub struct Exchange<'a> {
    policy: &'a Policy,
    kept: Kept<'a>,
    /// Of the request's body and of the response's, where the module wants them whole.
    bodies: Bodies,
    has_ended: bool,
}

/// What an exchange keeps from one question to the next.
#[derive(Default)]
pub(super) struct Kept<'a> {
    /// The instance that keeps it, where its guest keeps one.
    lease: Option<Lease<'a>>,
    /// Why there is none any more. Another would not know what was asked before.
    lost: Option<FaultCode>,
    /// The instance that was asked about the last chunk, of the request's body and of
    /// the response's: the next chunk is for it too.
    chunks: [Option<Told>; 2],
    /// The time of its questions.
    pub(super) now: Option<SystemTime>,
}

impl<'a> Kept<'a> {
    const fn new() -> Self {
        Self {
            lease: None,
            lost: None,
            chunks: [None; 2],
            now: None,
        }
    }

    /// Where the instance stands that is asked about this body.
    pub(super) const fn chunks_of(&mut self, kind: EventKind) -> &mut Option<Told> {
        &mut self.chunks[!kind.is_request() as usize]
    }

    /// The instance to ask, if there is one already; `keeps` says whether one is
    /// kept at all.
    pub(super) fn take(&mut self, keeps: bool) -> Result<Option<Lease<'a>>, Box<Fault>> {
        if let Some(code) = self.lost {
            let what = "the instance that kept this exchange is gone";
            return Err(Box::new(Fault::new(code, what)));
        }
        // Until it comes back: a call may be given up.
        self.lost = keeps.then_some(FaultCode::Internal);
        Ok(self.lease.take())
    }

    /// Keeps it for the next question.
    pub(super) fn keep(&mut self, lease: Lease<'a>) {
        self.lost = lease.poison();
        self.lease = self.lost.is_none().then_some(lease);
    }
}

impl<'a> Exchange<'a> {
    pub(super) const fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            kept: Kept::new(),
            bodies: [Collector::new(false), Collector::new(false)],
            has_ended: false,
        }
    }

    /// Whether an answer has refused.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// From here on a guest whose clocks are fixed is told at each call that it is
    /// this time; with none that it is 2024-01-01. Where clocks are real this
    /// changes nothing.
    pub const fn at(&mut self, time: Option<SystemTime>) -> &mut Self {
        self.kept.now = time;
        self
    }

    /// Whether a body was begun that the module wants whole, and its last chunk has
    /// not come: the module was not asked about it.
    #[must_use]
    pub fn has_unfinished_body(&self) -> bool {
        !self.has_ended && self.bodies.iter().any(Collector::is_unfinished)
    }

    /// Asks the next question, see [`Policy::ask`]; nothing once it has ended. A module
    /// that wants whole bodies is asked at the last chunk; the others are answered in
    /// its place.
    pub fn ask(&mut self, question: &Question<'_>) -> Option<Reply> {
        if self.has_ended {
            return None;
        }
        let reply = match self.policy.collect(&mut self.bodies, question) {
            Ok(asked) => self.policy.ask_kept(&mut self.kept, &asked),
            Err(handled) => (*handled).into(),
        };
        self.ends(reply.ends());
        Some(reply)
    }

    /// The same as a future, see [`Policy::ask_async`].
    pub async fn ask_async(&mut self, question: &Question<'_>) -> Option<Reply> {
        if self.has_ended {
            return None;
        }
        let reply = match self.policy.collect(&mut self.bodies, question) {
            Ok(asked) => self.policy.ask_kept_async(&mut self.kept, &asked).await,
            Err(handled) => (*handled).into(),
        };
        self.ends(reply.ends());
        Some(reply)
    }

    /// Asks about the next event, see [`Policy::handle`] and [`Exchange::ask`]; nothing
    /// once it has ended.
    pub fn handle(&mut self, event: &Event) -> Option<Handled> {
        if self.has_ended {
            return None;
        }
        let handled = match self.policy.collect(&mut self.bodies, &event.into()) {
            Ok(asked) => {
                let called = self.policy.called(&mut self.kept, &asked);
                self.policy.answered(called)
            }
            Err(handled) => *handled,
        };
        self.ends(handled.response.decision != Decision::Allow);
        Some(handled)
    }

    /// The same as a future, see [`Policy::ask_async`].
    pub async fn handle_async(&mut self, event: &Event) -> Option<Handled> {
        if self.has_ended {
            return None;
        }
        let handled = match self.policy.collect(&mut self.bodies, &event.into()) {
            Ok(asked) => {
                let called = self.policy.called_async(&mut self.kept, &asked).await;
                self.policy.answered(called)
            }
            Err(handled) => *handled,
        };
        self.ends(handled.response.decision != Decision::Allow);
        Some(handled)
    }

    /// Calls the next hook, see [`Policy::hook`]; nothing once it has ended.
    pub fn hook(&mut self, hook: Hook, context: HookContext) -> Option<HandledHook> {
        if self.has_ended {
            return None;
        }
        let question = Question::Hook(hook, Cow::Borrowed(&context));
        let called = self.policy.called(&mut self.kept, &question.into());
        let handled = HandledHook::of(context, called);
        self.ends(!handled.result.ok);
        Some(handled)
    }

    fn ends(&mut self, has_ended: bool) {
        self.has_ended = has_ended;
        if has_ended {
            self.kept = Kept::new();
            self.bodies = Default::default();
        }
    }
}
