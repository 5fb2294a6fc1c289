//! How a guest is called: one folder for each calling convention, and the only
//! place that links, enters and reads a guest.
//!
//! In: an instance of a module and a question. Out: an answer, checked, or a
//! fault. The set of conventions is closed; each is matched here and nowhere else.

pub mod json_buffer;

use wasmtime::{Instance, Memory, Store};

use self::json_buffer::answer::AnswerPolicy;
use super::host::HostState;
use super::module::Module;
use crate::answer::Answer;
use crate::fault::{Fault, FaultCode, Refusal};
use crate::limits::Limits;
use crate::question::{HeaderNames, Question};

/// How questions are put, and what answers are checked against.
#[derive(Debug, Clone, Copy)]
pub struct AskSettings<'a> {
    /// How header names are spelled for the guest.
    pub header_names: HeaderNames,
    /// What answers about events are checked against.
    pub answer_policy: &'a AnswerPolicy,
}

/// An answer of which every part has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The answer.
    pub answer: Answer,
    /// Keys, or their paths, that the contract does not know.
    pub unknown_keys: Vec<String>,
}

/// The linked exports of one instance, by the convention of its module.
pub(crate) enum Guest {
    /// See [`json_buffer`].
    JsonBuffer(json_buffer::guest::Guest),
}

impl Guest {
    /// Finds the exports that the contract promises.
    pub(super) fn link(
        module: &Module,
        instance: &Instance,
        (store, limits): (&mut Store<HostState>, &Limits),
    ) -> wasmtime::Result<Self> {
        let max = limits.max_answer_bytes;
        json_buffer::guest::Guest::link(module, instance, store, max).map(Self::JsonBuffer)
    }

    /// Begins a call whose input is written byte for byte by the caller.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        let Self::JsonBuffer(guest) = self;
        guest.begin()
    }

    /// Begins a call with this question.
    pub(super) fn write(&mut self, question: &Question<'_>, names: HeaderNames) {
        json_buffer::write_input(question, names, self.begin());
    }

    /// Calls a handler, by its place among the ABI's. Whether there is an answer.
    pub(super) async fn run(
        &mut self,
        store: &mut Store<HostState>,
        handler: usize,
    ) -> Result<bool, Fault> {
        let Self::JsonBuffer(guest) = self;
        guest.run(store, handler).await
    }

    /// Checks the answer of the last call.
    pub(super) fn check(
        &self,
        question: &Question<'_>,
        policy: &AnswerPolicy,
    ) -> Result<Checked, Fault> {
        json_buffer::check(question, self.answer(), policy)
    }

    /// The refusal in an answer of the last call that could not be read whole.
    pub(super) fn refusal_in_unread(&self, store: &Store<HostState>) -> Option<Refusal> {
        let Self::JsonBuffer(guest) = self;
        json_buffer::answer::refusal_in_unread(guest.unread_answer(store))
    }

    /// The bytes of the last answer, as the guest gave them.
    pub(super) fn answer(&self) -> &[u8] {
        let Self::JsonBuffer(guest) = self;
        guest.answer()
    }

    /// Bytes of the last call's input.
    pub(super) fn input_bytes(&self) -> u64 {
        let Self::JsonBuffer(guest) = self;
        guest.input_bytes()
    }

    /// The guest's linear memory.
    pub(super) const fn memory(&self) -> Memory {
        let Self::JsonBuffer(guest) = self;
        guest.memory()
    }

    /// Why the instance must not be called again though it answered.
    pub(super) const fn not_given_back(&self) -> Option<FaultCode> {
        let Self::JsonBuffer(guest) = self;
        guest.not_given_back()
    }
}
