//! How the probes call a guest: samples in, what was seen out.
//!
//! Every call goes through [`call_event`] or [`call_hook`], or for input that
//! neither can express through [`Instance::call`]. Invariant: an instance that may not be
//! called again is not; after a few deadlines nothing is called at all.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::{Abi, handler_name};
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::guest::convention::json_buffer::answer::{CheckedAnswer, check_answer};
use crate::guest::convention::json_buffer::hook::{CheckedResult, check_result};
use crate::guest::module::Module;
use crate::guest::{Cost, Instance, RawAnswer};
use crate::hook::{Hook, HookContext, HookResult};
use crate::limits::Isolation;
use crate::policy::agent::call_event;
use crate::policy::plugin::call_hook;
use crate::question::HeaderNames;
use crate::response::{AgentResponse, Decision};

use super::{SampleCost, ValidateSettings};

/// Deadlines waited for before a module is called no more: with the default
/// of 100 ms a hostile module is judged in well under a second.
const MAX_DEADLINES: u32 = 3;
/// What making an instance and a call costs beside the guest's instructions,
/// in as many of them: some 10 microseconds at 5 instructions a nanosecond.
const CALL_OVERHEAD: u64 = 50_000;
/// A third of what was measured on compiled guests, in instructions for each
/// nanosecond.
const SLOWEST: u64 = 2;

/// What a guest is called with.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// An event, written as production would write it.
    Event(Box<Event>),
    /// A hook's context, likewise.
    Hook(Hook, Box<HookContext>),
    /// Bytes that neither is written as, for this handler.
    Raw(&'static str, Vec<u8>),
}

/// What a guest said, checked.
#[derive(Debug, Clone)]
pub(super) enum Answered {
    /// To an event.
    Event(CheckedAnswer),
    /// To a hook's context.
    Hook(Box<CheckedResult>),
}

impl Answered {
    /// Keys, or their paths, that the contract does not know.
    pub(super) fn unknown_keys(&self) -> &[String] {
        match self {
            Self::Event(answer) => &answer.unknown_keys,
            Self::Hook(answer) => &answer.unknown_keys,
        }
    }

    /// Whether it lets pass what it was asked about.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Event(answer) => answer.response.decision == Decision::Allow,
            Self::Hook(answer) => answer.result.ok,
        }
    }
}

/// One call to be made.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Names it in rows and sequences.
    pub(super) name: &'static str,
    /// What the guest gets.
    pub(super) input: Input,
}

impl Sample {
    pub(super) fn handler(&self) -> &'static str {
        match &self.input {
            Input::Event(event) => handler_name(event.kind()),
            Input::Hook(hook, _) => hook.name(),
            Input::Raw(handler, _) => handler,
        }
    }

    /// Whether production would ask this.
    pub(super) const fn is_ordinary(&self) -> bool {
        !matches!(self.input, Input::Raw(..))
    }
}

/// What one call came to.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The checked answer, none for an empty one, or the fault.
    pub(super) result: Result<Option<Answered>, Fault>,
    /// The answer's bytes as the guest gave them.
    pub(super) bytes: Vec<u8>,
    /// What it cost.
    pub(super) cost: Cost,
    /// Why the instance may not be called again, if it may not.
    pub(super) poison: Option<FaultCode>,
    /// Whether memory was asked for that the limits refuse.
    pub(super) refused_growth: bool,
}

impl Seen {
    /// Whether a proxy would be told the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.fault() == other.fault() && self.bytes == other.bytes
    }

    pub(super) fn fault(&self) -> Option<FaultCode> {
        self.result.as_ref().err().map(|fault| fault.code)
    }

    pub(super) fn response(&self) -> Option<&AgentResponse> {
        match self.result.as_ref().ok()?.as_ref()? {
            Answered::Event(answer) => Some(&answer.response),
            Answered::Hook(_) => None,
        }
    }

    pub(super) fn hook_result(&self) -> Option<&HookResult> {
        match self.result.as_ref().ok()?.as_ref()? {
            Answered::Hook(answer) => Some(&answer.result),
            Answered::Event(_) => None,
        }
    }

    /// The decision or the fault, in a few words.
    pub(super) fn outcome(&self) -> String {
        match &self.result {
            Ok(None) => "empty answer".to_owned(),
            Ok(Some(Answered::Event(answer))) => {
                let decision = &answer.response.decision;
                match decision.status() {
                    Some(status) => format!("{} {status}", decision.name()),
                    None => decision.name().to_owned(),
                }
            }
            Ok(Some(Answered::Hook(answer))) => word(answer.result.ok).to_owned(),
            Err(fault) => fault.code.to_string(),
        }
    }

    /// Whether the call ran into a limit that takes a while to run into.
    pub(super) fn is_slow(&self) -> bool {
        self.fault() == Some(FaultCode::Deadline) || self.poison == Some(FaultCode::Deadline)
    }
}

/// What a hook said in one word.
pub(super) const fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "refused" }
}

/// A sample and what a fresh instance made of it.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) sample: Sample,
    pub(super) seen: Seen,
}

impl Trial {
    /// As it stands in the report; nothing for input that is no event.
    pub(super) fn cost(&self) -> Option<SampleCost> {
        self.sample.is_ordinary().then(|| SampleCost {
            handler: self.sample.handler(),
            sample: self.sample.name,
            outcome: self.seen.outcome(),
            fuel: self.seen.cost.fuel.filter(|_| self.seen.result.is_ok()),
            answer_bytes: self.seen.cost.answer_bytes,
            memory_bytes: self.seen.cost.memory_bytes,
        })
    }

    /// Whether the instance can be called again after it.
    pub(super) fn is_survived(&self) -> bool {
        self.seen.poison.is_none()
    }
}

/// Calls one module, and counts what it must not do too often.
pub(super) struct Prober<'a> {
    pub(super) module: &'a Arc<Module>,
    pub(super) settings: &'a ValidateSettings,
    deadlines: Cell<u32>,
    /// Instructions so far, and what calling costs beside them.
    spent: Cell<u64>,
}

impl<'a> Prober<'a> {
    pub(super) const fn new(module: &'a Arc<Module>, settings: &'a ValidateSettings) -> Self {
        Self {
            module,
            settings,
            deadlines: Cell::new(0),
            spent: Cell::new(0),
        }
    }

    /// A budget from here on. A module that computes does at least
    /// [`SLOWEST`] instructions in a nanosecond.
    pub(super) fn budget(&self, instructions: u64) -> Budget<'_> {
        Budget {
            spent: &self.spent,
            until: self.spent.get().saturating_add(instructions),
            deadline: Instant::now() + Duration::from_nanos(instructions / SLOWEST),
        }
    }

    /// Whether so many calls met the deadline that no more are made.
    pub(super) fn is_exhausted(&self) -> bool {
        self.deadlines.get() >= MAX_DEADLINES
    }

    /// What a row says that was not reached.
    pub(super) fn why_skipped(&self) -> String {
        match self.deadlines.get() {
            0 => "not tried, the calls before took too long".to_owned(),
            1 => "not tried, a call met its deadline".to_owned(),
            calls => format!("not tried, {calls} calls met their deadline"),
        }
    }

    /// Whether production's instances will serve more than one call.
    pub(super) fn isolation(&self) -> Isolation {
        let default = self.module.abi.isolation();
        self.settings.isolation.unwrap_or(default)
    }

    pub(super) fn instance(&self) -> Result<Instance, Box<Fault>> {
        Instance::new(self.module, self.module.limits)
    }

    /// Calls a new instance.
    pub(super) fn fresh(&self, sample: &Sample) -> Seen {
        self.fresh_spelled(sample, self.settings.header_names)
    }

    /// The same with header names spelled otherwise.
    pub(super) fn fresh_spelled(&self, sample: &Sample, names: HeaderNames) -> Seen {
        match self.instance() {
            Ok(mut instance) => self.call_spelled(&mut instance, sample, names),
            Err(fault) => {
                let seen = Seen {
                    poison: Some(fault.code),
                    result: Err(*fault),
                    bytes: Vec::new(),
                    cost: Cost::default(),
                    refused_growth: false,
                };
                self.count(&seen);
                seen
            }
        }
    }

    /// Calls an instance that may have been called before.
    pub(super) fn call(&self, instance: &mut Instance, sample: &Sample) -> Seen {
        self.call_spelled(instance, sample, self.settings.header_names)
    }

    fn call_spelled(&self, instance: &mut Instance, sample: &Sample, names: HeaderNames) -> Seen {
        let policy = &self.settings.answer_policy;
        let (result, cost) = match &sample.input {
            Input::Event(event) => {
                let (result, cost) = call_event(instance, event, names, policy);
                (result.map(|answer| answer.map(Answered::Event)), cost)
            }
            Input::Hook(hook, context) => {
                let (result, cost) = call_hook(instance, *hook, context);
                (
                    result.map(|answer| answer.map(Box::new).map(Answered::Hook)),
                    cost,
                )
            }
            Input::Raw(handler, bytes) => self.call_raw(instance, handler, bytes),
        };
        let seen = Seen {
            result,
            bytes: instance.last_answer().to_vec(),
            cost,
            poison: instance.poison(),
            refused_growth: instance.was_refused_memory(),
        };
        self.count(&seen);
        seen
    }

    fn call_raw(
        &self,
        instance: &mut Instance,
        handler: &str,
        bytes: &[u8],
    ) -> (Result<Option<Answered>, Fault>, Cost) {
        let handlers = self.module.abi.handlers();
        let index = handlers.iter().position(|name| *name == handler);
        // No module has a handler beyond the last.
        let index = index.unwrap_or(handlers.len());
        let called = instance.call(index, |out| out.extend_from_slice(bytes));
        let result = called.result.and_then(|answer| match answer {
            RawAnswer::Empty => Ok(None),
            RawAnswer::Bytes(answer) => match EventKind::ALL.get(index) {
                Some(kind) if self.module.abi == Abi::Agent => {
                    let policy = &self.settings.answer_policy;
                    check_answer(answer, *kind, Some(0), policy).map(Answered::Event)
                }
                _ => check_result(answer).map(Box::new).map(Answered::Hook),
            }
            .map(Some),
        });
        (result, called.cost)
    }

    fn count(&self, seen: &Seen) {
        let spent = seen
            .cost
            .fuel
            .unwrap_or_default()
            .saturating_add(CALL_OVERHEAD);
        self.spent.set(self.spent.get().saturating_add(spent));
        if seen.is_slow() {
            self.deadlines.set(self.deadlines.get() + 1);
        }
    }
}

/// How much one probe may call the module.
///
/// Instructions end it for any module that computes, so that what is found
/// does not hang on the machine or on what else it does. Wall clock ends it
/// for one that keeps the host busy instead.
#[derive(Clone, Copy)]
pub(super) struct Budget<'a> {
    spent: &'a Cell<u64>,
    until: u64,
    deadline: Instant,
}

impl Budget<'_> {
    pub(super) fn is_spent(self) -> bool {
        self.spent.get() >= self.until || Instant::now() >= self.deadline
    }
}
