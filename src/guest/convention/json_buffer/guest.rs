//! The guest of this convention: its linked exports, and one call through them.
//!
//! Every value that a guest returns is taken as unsigned and range-checked
//! before it is used.

use wasmtime::{Instance, Memory, Store, TypedFunc};

use super::answer::{AnswerPolicy, refusal_in_unread};
use super::write_input;
use crate::abi::Abi;
use crate::fault::{BadEvent, Fault, FaultCode, Refusal};
use crate::guest::convention::Checked;
use crate::guest::faults::{fault_of, range};
use crate::guest::host::{HostState, enter};
use crate::question::{HeaderNames, Question};

/// The exports of one instance, and what a call needs beside them.
pub(crate) struct Guest {
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    dealloc: TypedFunc<(i32, i32), ()>,
    /// In the order of the ABI's handlers.
    handlers: Vec<Option<TypedFunc<(i32, i32), i64>>>,
    /// Whether an answer at address 0 is one.
    reads_address_zero: bool,
    max_answer_bytes: u64,
    /// Where an answer lies that was not copied out: it is too large, or not
    /// all of it is in memory.
    unread: Option<(u32, u32)>,
    /// Why the last call's memory could not be given back.
    not_given_back: Option<FaultCode>,
    /// What the handler returned, both halves.
    returned: (u32, u32),
    // Kept from call to call, so that a call allocates nothing.
    input: Vec<u8>,
    answer: Vec<u8>,
}

impl Guest {
    /// Finds the exports that the contract promises.
    pub(crate) fn link(
        (instance, handlers): (&Instance, Vec<Option<&'static str>>),
        abi: Abi,
        (store, max_answer_bytes): (&mut Store<HostState>, u64),
    ) -> wasmtime::Result<Self> {
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| wasmtime::Error::msg("no exported memory"))?;
        let alloc = instance.get_typed_func(&mut *store, "alloc")?;
        let dealloc = instance.get_typed_func(&mut *store, "dealloc")?;
        let handlers = handlers.into_iter().map(|name| {
            let link = |name| instance.get_typed_func(&mut *store, name);
            name.map(link).transpose()
        });
        let handlers = handlers.collect::<wasmtime::Result<_>>()?;
        Ok(Self {
            memory,
            alloc,
            dealloc,
            handlers,
            reads_address_zero: abi.reads_address_zero(),
            max_answer_bytes,
            unread: None,
            not_given_back: None,
            returned: (0, 0),
            input: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Begins a call, of which this is the input: nothing is left of the one before.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.answer.clear();
        self.unread = None;
        self.not_given_back = None;
        self.returned = (0, 0);
        self.input.clear();
        &mut self.input
    }

    /// Begins a call with this question.
    pub(crate) fn write(
        &mut self,
        _store: &mut Store<HostState>,
        question: &Question<'_>,
        names: HeaderNames,
    ) {
        write_input(question, names, self.begin());
    }

    /// Checks the answer of the last call.
    pub(crate) fn check(
        &self,
        store: &Store<HostState>,
        question: &Question<'_>,
        policy: &AnswerPolicy,
    ) -> Result<Checked, Fault> {
        super::check(question, &self.answer, policy).map_err(|mut fault| {
            if let Some(hint) = self.misread(store) {
                fault.detail = format!("{}; {hint}", fault.detail);
            }
            fault
        })
    }

    /// How the two halves of what the handler returned were probably meant, where
    /// there is an answer in that other place.
    pub(crate) fn misread(&self, store: &Store<HostState>) -> Option<&'static str> {
        let (high, low) = self.returned;
        let memory = self.memory.data(store);
        let is_object = |bytes: Option<&[u8]>| {
            let text = bytes.unwrap_or_default().trim_ascii_start();
            text.strip_prefix(b"{")
                .map(<[u8]>::trim_ascii_start)
                .is_some_and(|rest| rest.starts_with(b"\""))
        };
        let from = |at: u32| usize::try_from(at).ok().and_then(|at| memory.get(at..));
        if high == 0 && low != 0 && is_object(from(low)) {
            return Some("the handler returns an address alone; return (address << 32) | length");
        }
        let swapped = range(low, high).and_then(|range| memory.get(range));
        (high != 0 && is_object(swapped) && !is_object(from(high))).then_some(
            "the handler returns (length << 32) | address; return (address << 32) | length",
        )
    }

    /// The refusal in an answer of the last call that could not be read whole.
    pub(crate) fn refusal_in_unread(&self, store: &Store<HostState>) -> Option<Refusal> {
        refusal_in_unread(self.unread_answer(store))
    }

    /// The guest's linear memory.
    pub(crate) const fn memory(&self) -> Memory {
        self.memory
    }

    /// Bytes of the last call's input.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.input.len() as u64
    }

    /// The last answer, as the guest gave it.
    pub(crate) fn answer(&self) -> &[u8] {
        &self.answer
    }

    /// Why the instance must not be called again though it answered.
    pub(crate) const fn not_given_back(&self) -> Option<FaultCode> {
        self.not_given_back
    }

    /// What is in memory of an answer that was too large to be copied out or
    /// not all inside memory; empty where the last call gave none such.
    fn unread_answer<'a>(&self, store: &'a Store<HostState>) -> &'a [u8] {
        let memory = self.memory.data(store);
        self.unread
            .and_then(|(ptr, len)| range(ptr, len))
            .and_then(|range| memory.get(range.start..range.end.min(memory.len())))
            .unwrap_or_default()
    }

    /// Whether there is an answer in `self.answer`.
    pub(crate) async fn run(
        &mut self,
        store: &mut Store<HostState>,
        handler: usize,
    ) -> Result<bool, Fault> {
        if !matches!(self.handlers.get(handler), Some(Some(_))) {
            return Ok(false);
        }
        let input = self.write_input(store).await?;
        // Looked up again because it cannot stay borrowed, and a copy costs.
        let Some(Some(handler)) = self.handlers.get(handler) else {
            return Ok(false);
        };
        let packed = match enter(handler, &mut *store, input).await {
            Ok(packed) => packed.cast_unsigned(),
            Err(error) => return Err(self.fault(store, &error, "in the handler")),
        };
        let (ptr, len) = unpack(packed);
        self.returned = (ptr, len);
        let has_answer = len != 0 && (ptr != 0 || self.reads_address_zero);
        if has_answer {
            self.read_answer(store, ptr, len)?;
        }
        // The answer stands whatever becomes of giving memory back.
        let mut given_back = self.give_back(store, input).await;
        if has_answer && given_back.is_ok() {
            given_back = self
                .give_back(store, (ptr.cast_signed(), len.cast_signed()))
                .await;
        }
        if let Err(fault) = given_back {
            self.not_given_back = Some(fault.code);
        }
        Ok(has_answer)
    }

    async fn write_input(&mut self, store: &mut Store<HostState>) -> Result<(i32, i32), Fault> {
        let len = i32::try_from(self.input.len()).map_err(|_too_large| {
            Fault::new(
                FaultCode::BadEvent(BadEvent::TooLarge),
                "the event's input JSON must be below 2 GiB",
            )
        })?;
        let ptr = match enter(&self.alloc, &mut *store, len).await {
            Ok(ptr) => ptr,
            Err(error) => return Err(self.fault(store, &error, "in alloc")),
        };
        if ptr == 0 && len != 0 {
            return Err(Fault::new(
                FaultCode::AllocNull,
                format!("alloc({len}) must return an address, found 0"),
            ));
        }
        let memory = self.memory.data_mut(&mut *store);
        let size = memory.len();
        let target =
            range(ptr.cast_unsigned(), len.cast_unsigned()).and_then(|range| memory.get_mut(range));
        match target {
            Some(target) => {
                target.copy_from_slice(&self.input);
                Ok((ptr, len))
            }
            None => Err(Fault::new(
                FaultCode::AllocOutOfBounds,
                format!(
                    "alloc({len}) must return a range inside memory of {size} bytes, found {:#x}",
                    ptr.cast_unsigned()
                ),
            )),
        }
    }

    /// Copies the answer out, after both its place and its size were checked.
    fn read_answer(&mut self, store: &Store<HostState>, ptr: u32, len: u32) -> Result<(), Fault> {
        self.unread = Some((ptr, len));
        let memory = self.memory.data(store);
        let Some(bytes) = range(ptr, len).and_then(|range| memory.get(range)) else {
            return Err(Fault::new(
                FaultCode::AnswerOutOfBounds,
                format!(
                    "the answer must lie inside memory of {} bytes, found {len} bytes at {ptr:#x}{}",
                    memory.len(),
                    self.misread(store)
                        .map(|hint| format!("; {hint}"))
                        .unwrap_or_default()
                ),
            ));
        };
        if u64::from(len) > self.max_answer_bytes {
            return Err(Fault::new(
                FaultCode::AnswerLimit,
                format!(
                    "the answer must have at most {} bytes, found {len}",
                    self.max_answer_bytes
                ),
            ));
        }
        self.answer.extend_from_slice(bytes);
        self.unread = None;
        Ok(())
    }

    async fn give_back(
        &mut self,
        store: &mut Store<HostState>,
        range: (i32, i32),
    ) -> Result<(), Fault> {
        match enter(&self.dealloc, &mut *store, range).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fault(store, &error, "in dealloc")),
        }
    }

    fn fault(&self, store: &Store<HostState>, error: &wasmtime::Error, stage: &str) -> Fault {
        fault_of(error, store, Some(self.memory), stage)
    }
}

const fn unpack(packed: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = packed.to_be_bytes();
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Both halves of an answer are unsigned, and no range wraps.
        #[test]
        fn any_packed_value_is_a_checked_range(packed in any::<u64>(), size in 0..100_000_u64) {
            let (ptr, len) = unpack(packed);
            prop_assert_eq!((u64::from(ptr) << 32) | u64::from(len), packed);
            let memory = vec![0_u8; usize::try_from(size).unwrap()];
            let found = range(ptr, len).and_then(|range| memory.get(range));
            prop_assert_eq!(found.is_some(), u64::from(ptr) + u64::from(len) <= size);
        }
    }
}
