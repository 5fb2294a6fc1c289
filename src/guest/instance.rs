//! One guest call under limits: the only place that runs guest code.
//!
//! In: an [`Instance`] and input JSON. Out: the answer's bytes or a
//! [`Fault`], with what the call cost. Every value a guest returns is taken as
//! unsigned and range-checked before it is used. Invariant: an instance that
//! trapped, broke a limit or was given up in mid-call says so, and is never
//! called again.
//!
//! A call is a future: [`Instance::call_async`] runs the guest on a stack of
//! its own (a fiber) and gives way after each [`SLICE`] of computing; whoever
//! polls it decides where it goes on. [`Instance::call`] is the same call to
//! its end, on the caller's stack where that has the room, which saves making
//! and changing stacks; else on a fiber too. Either way recursion in a guest
//! meets its own limit, the same one, and never the end of a thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::{Memory, Store, TypedFunc, UpdateDeadline, WasmBacktrace, WasmParams, WasmResults};

use super::faults::{fault_of, range};
use super::host::HostState;
use crate::fault::{Fault, FaultCode};
use crate::guest::engine::Seat;
use crate::guest::module::Module;
use crate::guest::wasi;
use crate::limits::{CALLERS_STACK_BYTES, Limits, after};

use super::StackSamples;

/// How long a guest computes before its call gives way, at the next tick of
/// the engine's clock: as a rule 0.2 to 1.2 ms, and longer only in one bulk
/// operation on memory, which nothing interrupts.
pub const SLICE: Duration = Duration::from_micros(200);

/// How a guest's computing is spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turns {
    /// To its end at once, on the caller's stack.
    One,
    /// In slices, on a stack of its own.
    Many,
}

impl Turns {
    /// For a caller that has nothing else to do.
    pub(crate) fn for_this_thread() -> Self {
        match stacker::remaining_stack() {
            Some(left) if left >= CALLERS_STACK_BYTES => Self::One,
            _ => Self::Many,
        }
    }
}

/// The one way into a guest.
async fn enter<P: WasmParams + Sync, R: WasmResults + Sync>(
    function: &TypedFunc<P, R>,
    store: &mut Store<HostState>,
    arguments: P,
) -> wasmtime::Result<R> {
    match store.data().turns {
        Turns::One => function.call(store, arguments),
        Turns::Many => function.call_async(store, arguments).await,
    }
}

/// Drives a call to its end on this thread. Nothing in a call waits for
/// anything but the processor, so one that gave way is simply taken up again.
pub(crate) fn drive<T>(call: impl Future<Output = T>) -> T {
    let mut call = pin!(call);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = call.as_mut().poll(&mut context) {
            return done;
        }
    }
}

/// A module without a standard error may export this global: the address of
/// text, ended by a NUL, that is empty until the guest says why it panics.
pub const PANIC_MESSAGE: &str = "panic_message";

/// What one call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Instructions, where the engine counts them.
    pub fuel: Option<u64>,
    /// Wall clock for alloc, handler and dealloc together.
    pub time: Duration,
    /// How long the call waited for its instance; not part of its time.
    pub waited: Duration,
    /// Bytes of input JSON.
    pub input_bytes: u64,
    /// Bytes of the answer.
    pub answer_bytes: u64,
    /// Linear memory after the call, in bytes.
    pub memory_bytes: u64,
    /// How much of it this call added.
    pub grown_bytes: u64,
}

/// What a handler returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawAnswer<'a> {
    /// Nothing.
    Empty,
    /// Bytes, copied out of the guest.
    Bytes(&'a [u8]),
}

/// One guest call: its result and its price.
pub struct Called<'a> {
    /// The answer, or what went wrong.
    pub result: Result<RawAnswer<'a>, Fault>,
    /// What it cost.
    pub cost: Cost,
}

/// One live copy of a module, alone in its store.
pub struct Instance {
    store: Store<HostState>,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    dealloc: TypedFunc<(i32, i32), ()>,
    /// In the order of the ABI's handlers.
    handlers: Vec<Option<TypedFunc<(i32, i32), i64>>>,
    module: Arc<Module>,
    /// Where it is counted while it runs; away in mid-call.
    seat: Option<Seat>,
    limits: Limits,
    /// Linear memory once its start was over.
    memory_at_start: u64,
    /// How much the last call added.
    grown_bytes: u64,
    calls: u64,
    poison: Option<FaultCode>,
    /// A call began and did not end: it runs, was given up or panicked.
    in_call: bool,
    /// Where an answer lies that was not copied out: it is too large, or not
    /// all of it is in memory.
    unread: Option<(u32, u32)>,
    // Kept from call to call, so that a call allocates nothing.
    input: Vec<u8>,
    answer: Vec<u8>,
}

impl Instance {
    /// Makes an instance and runs its start function and `_initialize`, under
    /// one deadline and one tank of fuel for both.
    ///
    /// # Errors
    /// The fault that ended it.
    pub fn new(module: &Arc<Module>, limits: Limits) -> Result<Self, Box<Fault>> {
        drive(Self::new_in(Turns::for_this_thread(), module, limits))
    }

    /// The same as a future.
    ///
    /// # Errors
    /// The fault that ended it.
    pub(crate) async fn new_in(
        turns: Turns,
        module: &Arc<Module>,
        limits: Limits,
    ) -> Result<Self, Box<Fault>> {
        let counts_fuel = module.engine.counts_fuel();
        if limits.fuel.is_some() && !counts_fuel {
            return Err(Box::new(Fault::new(
                FaultCode::Internal,
                "a fuel limit on an engine that counts none",
            )));
        }
        if limits.fuel.is_none() && !module.engine.has_deadlines() {
            return Err(Box::new(Fault::new(
                FaultCode::Internal,
                "neither a deadline nor a fuel limit",
            )));
        }
        let state = HostState {
            max_memory_bytes: usize::try_from(limits.max_memory_bytes).unwrap_or(usize::MAX),
            fuel: counts_fuel.then(|| limits.fuel.unwrap_or(u64::MAX)),
            timeout: limits.timeout,
            deadline: Instant::now(),
            turns,
            slice_ends: Instant::now(),
            wasi: wasi::Context::new(limits.wasi, Arc::clone(&module.notices)),
            grows: 0,
            refused_growth: false,
            samples: None,
            panic_message: None,
        };
        let mut store = Store::new(module.engine.wasm(), state);
        store.limiter(|state| state);
        // Touches host data only: the store must be left alone here.
        store.epoch_deadline_callback(|mut context| {
            if context.data().samples.is_some() {
                let stack = WasmBacktrace::force_capture(&context);
                if let Some(samples) = &mut context.data_mut().samples {
                    samples.add(&stack);
                }
            }
            let (now, state) = (Instant::now(), context.data_mut());
            Ok(if now >= state.deadline {
                UpdateDeadline::Interrupt
            } else if now >= state.slice_ends {
                // For fairness, not for limits: how long it then waits for its
                // next turn is not known here and may count as computed.
                state.slice_ends = now + SLICE;
                UpdateDeadline::Yield(1)
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        let running = module.engine.seat().begin();
        let made = match arm(&mut store, turns, Instant::now()) {
            Ok(()) => Self::instantiate(module, &mut store).await,
            Err(error) => Err(error),
        };
        store.data_mut().wasi.output.end_call();
        match made {
            Ok((memory, alloc, dealloc, handlers)) => Ok(Self {
                memory_at_start: memory.data_size(&store) as u64,
                grown_bytes: 0,
                store,
                memory,
                alloc,
                dealloc,
                handlers,
                module: Arc::clone(module),
                seat: running.end(),
                limits,
                calls: 0,
                poison: None,
                in_call: false,
                unread: None,
                input: Vec::new(),
                answer: Vec::new(),
            }),
            Err(error) => Err(Box::new(fault_of(&error, &store, None, "while starting"))),
        }
    }

    async fn instantiate(
        module: &Module,
        store: &mut Store<HostState>,
    ) -> wasmtime::Result<(
        Memory,
        TypedFunc<i32, i32>,
        TypedFunc<(i32, i32), ()>,
        Vec<Option<TypedFunc<(i32, i32), i64>>>,
    )> {
        let instance = match store.data().turns {
            Turns::One => module.pre.instantiate(&mut *store)?,
            Turns::Many => module.pre.instantiate_async(&mut *store).await?,
        };
        let message = instance.get_global(&mut *store, PANIC_MESSAGE);
        let message = message.and_then(|global| global.get(&mut *store).i32());
        store.data_mut().panic_message = message.map(i32::cast_unsigned);
        if module.facts.export("_initialize").is_some() {
            let initialize = instance.get_typed_func::<(), ()>(&mut *store, "_initialize")?;
            enter(&initialize, store, ()).await?;
        }
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| wasmtime::Error::msg("no exported memory"))?;
        let alloc = instance.get_typed_func(&mut *store, "alloc")?;
        let dealloc = instance.get_typed_func(&mut *store, "dealloc")?;
        let mut handlers = Vec::new();
        for name in module.abi.handlers() {
            handlers.push(if module.has_handler(name) {
                Some(instance.get_typed_func(&mut *store, name)?)
            } else {
                None
            });
        }
        Ok((memory, alloc, dealloc, handlers))
    }

    /// Calls one handler, an index into the ABI's list, on the input JSON that
    /// `write` appends to an empty buffer.
    ///
    /// A handler the module lacks answers nothing; callers do not come that far.
    pub fn call(&mut self, handler: usize, write: impl FnOnce(&mut Vec<u8>)) -> Called<'_> {
        drive(self.call_in(Turns::for_this_thread(), handler, write))
    }

    /// The same as a future that gives way, see [`SLICE`]. The input is
    /// written now. A call that is not awaited to its end poisons the instance.
    pub fn call_async(
        &mut self,
        handler: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> impl Future<Output = Called<'_>> + Send {
        self.call_in(Turns::Many, handler, write)
    }

    pub(crate) fn call_in(
        &mut self,
        turns: Turns,
        handler: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> impl Future<Output = Called<'_>> + Send {
        self.in_call = true;
        self.input.clear();
        write(&mut self.input);
        self.calls += 1;
        self.answer.clear();
        self.unread = None;
        self.called(turns, handler)
    }

    async fn called(&mut self, turns: Turns, handler: usize) -> Called<'_> {
        let seat = self.seat.take();
        let running = seat.unwrap_or_else(|| self.module.engine.seat()).begin();
        let memory_before = self.memory.data_size(&self.store);
        let started = Instant::now();
        let result = match arm(&mut self.store, turns, started) {
            Ok(()) => self.run(handler).await,
            Err(error) => Err(self.fault(&error, "before the call")),
        };
        self.store.data_mut().wasi.output.end_call();
        let time = started.elapsed();
        self.seat = running.end();
        let memory_after = self.memory.data_size(&self.store);
        let cost = Cost {
            fuel: self.fuel_used(),
            time,
            waited: Duration::ZERO,
            input_bytes: self.input.len() as u64,
            answer_bytes: self.answer.len() as u64,
            memory_bytes: memory_after as u64,
            grown_bytes: memory_after.saturating_sub(memory_before) as u64,
        };
        self.grown_bytes = cost.grown_bytes;
        if let Err(fault) = &result
            && fault.code.poisons()
        {
            self.poison.get_or_insert(fault.code);
        }
        self.in_call = false;
        let result = result.map(|has_answer| {
            if has_answer {
                RawAnswer::Bytes(&self.answer)
            } else {
                RawAnswer::Empty
            }
        });
        Called { result, cost }
    }

    /// Whether there is an answer in `self.answer`.
    async fn run(&mut self, handler: usize) -> Result<bool, Fault> {
        if !matches!(self.handlers.get(handler), Some(Some(_))) {
            return Ok(false);
        }
        let input = self.write_input().await?;
        // Looked up again because it cannot stay borrowed, and a copy costs.
        let Some(Some(handler)) = self.handlers.get(handler) else {
            return Ok(false);
        };
        let packed = match enter(handler, &mut self.store, input).await {
            Ok(packed) => packed.cast_unsigned(),
            Err(error) => return Err(self.fault(&error, "in the handler")),
        };
        let (ptr, len) = unpack(packed);
        let has_answer = len != 0 && (ptr != 0 || self.module.abi.reads_address_zero());
        if has_answer {
            self.read_answer(ptr, len)?;
        }
        // The answer stands whatever becomes of giving memory back.
        let mut given_back = self.give_back(input).await;
        if has_answer && given_back.is_ok() {
            given_back = self.give_back((ptr.cast_signed(), len.cast_signed())).await;
        }
        if let Err(fault) = given_back {
            self.poison.get_or_insert(fault.code);
        }
        Ok(has_answer)
    }

    async fn write_input(&mut self) -> Result<(i32, i32), Fault> {
        let len = i32::try_from(self.input.len()).map_err(|_too_large| {
            Fault::new(
                FaultCode::BadEvent("too-large"),
                "the event's input JSON must be below 2 GiB",
            )
        })?;
        let ptr = match enter(&self.alloc, &mut self.store, len).await {
            Ok(ptr) => ptr,
            Err(error) => return Err(self.fault(&error, "in alloc")),
        };
        if ptr == 0 && len != 0 {
            return Err(Fault::new(
                FaultCode::AllocNull,
                format!("alloc({len}) must return an address, found 0"),
            ));
        }
        let memory = self.memory.data_mut(&mut self.store);
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
    fn read_answer(&mut self, ptr: u32, len: u32) -> Result<(), Fault> {
        self.unread = Some((ptr, len));
        let memory = self.memory.data(&self.store);
        let Some(bytes) = range(ptr, len).and_then(|range| memory.get(range)) else {
            return Err(Fault::new(
                FaultCode::BadAnswer("out-of-bounds"),
                format!(
                    "the answer must lie inside memory of {} bytes, found {len} bytes at {ptr:#x}",
                    memory.len()
                ),
            ));
        };
        if u64::from(len) > self.limits.max_answer_bytes {
            return Err(Fault::new(
                FaultCode::AnswerLimit,
                format!(
                    "the answer must have at most {} bytes, found {len}",
                    self.limits.max_answer_bytes
                ),
            ));
        }
        self.answer.extend_from_slice(bytes);
        self.unread = None;
        Ok(())
    }

    async fn give_back(&mut self, range: (i32, i32)) -> Result<(), Fault> {
        match enter(&self.dealloc, &mut self.store, range).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fault(&error, "in dealloc")),
        }
    }

    fn fault(&self, error: &wasmtime::Error, stage: &str) -> Fault {
        fault_of(error, &self.store, Some(self.memory), stage)
    }

    fn fuel_used(&self) -> Option<u64> {
        let given = self.store.data().fuel?;
        Some(given - self.store.get_fuel().ok()?)
    }

    /// From now on the guest's stack is written down each time its deadline is
    /// looked at.
    pub fn sample_stacks(&mut self) {
        self.store.data_mut().samples = Some(Box::default());
    }

    /// What was written down; nothing is from now on.
    pub fn take_samples(&mut self) -> StackSamples {
        let samples = self.store.data_mut().samples.take();
        samples.map_or_else(StackSamples::default, |samples| *samples)
    }

    /// The bytes of the last answer, as the guest gave them.
    #[must_use]
    pub fn last_answer(&self) -> &[u8] {
        &self.answer
    }

    /// What is in memory of an answer that was too large to be copied out or
    /// not all inside memory; empty where the last call gave none such.
    #[must_use]
    pub fn unread_answer(&self) -> &[u8] {
        let memory = self.memory.data(&self.store);
        self.unread
            .and_then(|(ptr, len)| range(ptr, len))
            .and_then(|range| memory.get(range.start..range.end.min(memory.len())))
            .unwrap_or_default()
    }

    /// How long one call may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// The fault after which this instance must not be called again.
    #[must_use]
    pub const fn poison(&self) -> Option<FaultCode> {
        if self.in_call {
            return Some(FaultCode::Internal);
        }
        self.poison
    }

    /// Whether the last call asked for memory that was refused.
    #[must_use]
    pub fn was_refused_memory(&self) -> bool {
        self.store.data().refused_growth
    }

    /// Calls made on this instance.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// Linear memory once its start was over, in bytes.
    #[must_use]
    pub const fn memory_at_start(&self) -> u64 {
        self.memory_at_start
    }

    /// How much of its memory the last call added, in bytes.
    #[must_use]
    pub const fn grown_bytes(&self) -> u64 {
        self.grown_bytes
    }

    /// Linear memory now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.data_size(&self.store) as u64
    }
}

/// Winds up the limits of one call or one start that begins now.
fn arm(store: &mut Store<HostState>, turns: Turns, now: Instant) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.grows = 0;
    state.refused_growth = false;
    state.deadline = after(now, state.timeout);
    state.turns = turns;
    state.slice_ends = match turns {
        // Never before its deadline.
        Turns::One => state.deadline,
        Turns::Many => now + SLICE,
    };
    state.wasi.begin_call();
    let fuel = state.fuel;
    store.set_epoch_deadline(1);
    fuel.map_or(Ok(()), |fuel| store.set_fuel(fuel))
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
