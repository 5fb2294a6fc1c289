//! How a guest is called: one folder for each calling convention, and the only
//! place that links, enters and reads a guest.
//!
//! In: an instance of a module and a question. Out: an answer, checked, or a
//! fault. The set of conventions is closed; each is matched here and nowhere else.

pub(crate) mod json_buffer;
#[cfg(test)]
mod pull_tests;

use std::time::SystemTime;

use wasmtime::{Instance, Linker, Memory, Store};

use self::json_buffer::answer::AnswerPolicy;
use super::faults::GuestAbort;
use super::host::HostState;
use super::inspect::{Facts, Import, ItemType};
use super::wasi::{self, catalog};
use crate::abi::Abi;
use crate::answer::Answer;
use crate::check::Check;
use crate::fault::{Fault, FaultCode, Refusal};
use crate::limits::{Limits, Wasi};
use crate::question::{HeaderNames, Phase, Question};

/// How questions are put, and what answers are checked against.
#[derive(Debug, Clone, Copy)]
pub struct AskSettings<'a> {
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What answers about events are checked against.
    pub answer_policy: &'a AnswerPolicy,
    /// Where the wall clock of a guest with fixed clocks begins the call; nothing
    /// for the same time at every call.
    pub now: Option<SystemTime>,
}

/// An answer of which every part has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The answer.
    pub answer: Answer,
    /// Keys, or their paths, that the contract does not know.
    pub unknown_keys: Vec<String>,
}

/// How a module's guest is called, which its exports tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Convention {
    /// See [`json_buffer`].
    JsonBuffer,
    /// See [`pull_tests`].
    #[cfg(test)]
    Pull,
}

/// AssemblyScript's `abort(message, file, line, column)`.
pub(super) const ABORT_TYPE: &str = "(i32, i32, i32, i32)";

/// What becomes of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    /// `env.abort` of AssemblyScript: a trap that carries the message.
    Abort,
    /// `env.emscripten_notify_memory_growth`: a notice that nobody needs.
    Notice,
    /// A function of WASI preview 1, whose world holds nothing.
    Wasi(&'static catalog::Function),
    /// A function that a guest pulls by.
    #[cfg(test)]
    Pull(pull_tests::HostFunction),
}

impl Linked {
    /// What the guest is answered, in words; nothing where it is refused.
    pub(super) fn answer(self, wasi: Wasi) -> Option<&'static str> {
        match self {
            Self::Abort => Some("a trap that carries the message"),
            Self::Notice => Some("nothing happens"),
            Self::Wasi(function) => (wasi != Wasi::None).then(|| function.answer(wasi)),
            #[cfg(test)]
            Self::Pull(_) => Some("what the guest pulls"),
        }
    }
}

impl Convention {
    /// The convention of a module.
    pub(super) fn of(facts: &Facts) -> Self {
        #[cfg(test)]
        if facts.export(pull_tests::MARKER).is_some() {
            return Self::Pull;
        }
        let _ = facts;
        Self::JsonBuffer
    }

    /// Whether a guest keeps what it was told of an exchange between its calls, so
    /// that an exchange needs an instance for itself.
    pub(crate) const fn keeps_exchange(self) -> bool {
        match self {
            Self::JsonBuffer => false,
            #[cfg(test)]
            Self::Pull => true,
        }
    }

    /// The export that handles a phase.
    pub(crate) const fn handler(self, phase: Phase) -> &'static str {
        match self {
            Self::JsonBuffer => phase.handler(),
            #[cfg(test)]
            Self::Pull => pull_tests::handler(phase),
        }
    }

    /// The handlers of an ABI that a module exports.
    pub(crate) fn handlers(self, facts: &Facts, abi: Abi) -> Vec<&'static str> {
        let phases = Phase::ALL.into_iter().filter(|phase| phase.abi() == abi);
        phases
            .map(|phase| self.handler(phase))
            .filter(|name| facts.export(name).is_some())
            .collect()
    }

    /// Checks the exports that are called, and those that nearly are.
    pub(super) fn check_exports(self, facts: &Facts, abi: Option<Abi>) -> Vec<Check> {
        match self {
            Self::JsonBuffer => json_buffer::exports::check(facts, abi),
            #[cfg(test)]
            Self::Pull => Vec::new(),
        }
    }

    /// What a module without any handler has in place of one, and how to declare one.
    pub(super) fn no_handler(self, facts: &Facts, wanted: Abi) -> (String, String) {
        match self {
            Self::JsonBuffer => json_buffer::exports::no_handler(facts, wanted),
            #[cfg(test)]
            Self::Pull => (String::from("no handler"), String::new()),
        }
    }

    /// How an import is answered, if it is.
    pub(super) fn linked(self, import: &Import) -> Option<Linked> {
        #[cfg(test)]
        if self == Self::Pull {
            return pull_tests::linked(import).map(Linked::Pull);
        }
        let ItemType::Func(ty) = &import.ty else {
            return None;
        };
        match (import.module.as_str(), import.name.as_str()) {
            ("env", "abort") => (**ty == *ABORT_TYPE).then_some(Linked::Abort),
            ("env", "emscripten_notify_memory_growth") => {
                (**ty == *"(i32)").then_some(Linked::Notice)
            }
            (catalog::MODULE, name) => catalog::find(name)
                .filter(|function| **ty == *function.ty)
                .map(Linked::Wasi),
            _ => None,
        }
    }

    /// Links what a module imports, as far as it is answered.
    pub(super) fn link_imports(
        self,
        linker: &mut Linker<HostState>,
        facts: &Facts,
    ) -> wasmtime::Result<()> {
        for import in &facts.imports {
            match self.linked(import) {
                Some(Linked::Abort) => link_abort(linker, import)?,
                Some(Linked::Notice) => {
                    linker.func_wrap(&import.module, &import.name, |_memory: i32| {})?;
                }
                Some(Linked::Wasi(function)) => {
                    wasi::link(linker, function, |state| &mut state.wasi)?;
                }
                #[cfg(test)]
                Some(Linked::Pull(function)) => function.link(linker)?,
                None => {}
            }
        }
        Ok(())
    }
}

fn link_abort(linker: &mut Linker<HostState>, import: &Import) -> wasmtime::Result<()> {
    let abort = |message: i32, file: i32, line: i32, column: i32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::new(GuestAbort {
            message: message.cast_unsigned(),
            file: file.cast_unsigned(),
            line: line.cast_unsigned(),
            column: column.cast_unsigned(),
        }))
    };
    linker.func_wrap(&import.module, &import.name, abort)?;
    Ok(())
}

/// The linked exports of one instance, by the convention of its module. Each has the
/// same methods.
pub(crate) enum Guest {
    /// See [`json_buffer`].
    JsonBuffer(json_buffer::guest::Guest),
    /// See [`pull_tests`].
    #[cfg(test)]
    Pull(pull_tests::Guest),
}

/// The one place where a guest's convention is matched.
macro_rules! each {
    ($self:expr, $guest:ident => $call:expr) => {
        match $self {
            Self::JsonBuffer($guest) => $call,
            #[cfg(test)]
            Self::Pull($guest) => $call,
        }
    };
}

impl Guest {
    /// Finds the exports that the contract promises.
    pub(super) fn link(
        convention: Convention,
        (facts, abi): (&Facts, Abi),
        instance: &Instance,
        (store, limits): (&mut Store<HostState>, &Limits),
    ) -> wasmtime::Result<Self> {
        match convention {
            Convention::JsonBuffer => {
                let exports = (instance, json_buffer::exports::present(facts, abi));
                let max = limits.max_answer_bytes;
                json_buffer::guest::Guest::link(exports, abi, (store, max)).map(Self::JsonBuffer)
            }
            #[cfg(test)]
            Convention::Pull => pull_tests::Guest::link(instance, store).map(Self::Pull),
        }
    }

    /// Begins a call whose input is written byte for byte by the caller.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        each!(self, guest => guest.begin())
    }

    /// Begins a call with this question.
    pub(super) fn write(
        &mut self,
        store: &mut Store<HostState>,
        question: &Question<'_>,
        names: HeaderNames,
    ) {
        each!(self, guest => guest.write(store, question, names));
    }

    /// Calls a handler, by its place among the ABI's. Whether there is an answer.
    pub(super) async fn run(
        &mut self,
        store: &mut Store<HostState>,
        handler: usize,
    ) -> Result<bool, Fault> {
        each!(self, guest => guest.run(store, handler).await)
    }

    /// Checks the answer of the last call.
    pub(super) fn check(
        &self,
        store: &Store<HostState>,
        question: &Question<'_>,
        policy: &AnswerPolicy,
    ) -> Result<Checked, Fault> {
        each!(self, guest => guest.check(store, question, policy))
    }

    /// The refusal in an answer of the last call that could not be read whole.
    pub(super) fn refusal_in_unread(&self, store: &Store<HostState>) -> Option<Refusal> {
        each!(self, guest => guest.refusal_in_unread(store))
    }

    /// What the handler probably meant to return, where that can be told.
    pub(super) fn misread(&self, store: &Store<HostState>) -> Option<&'static str> {
        each!(self, guest => guest.misread(store))
    }

    /// The bytes of the last answer, as the guest gave them.
    pub(super) fn answer(&self) -> &[u8] {
        each!(self, guest => guest.answer())
    }

    /// Bytes of the last call's input.
    pub(super) fn input_bytes(&self) -> u64 {
        each!(self, guest => guest.input_bytes())
    }

    /// The guest's linear memory.
    pub(super) const fn memory(&self) -> Memory {
        each!(self, guest => guest.memory())
    }

    /// Why the instance must not be called again though it answered.
    pub(super) const fn not_given_back(&self) -> Option<FaultCode> {
        each!(self, guest => guest.not_given_back())
    }
}
