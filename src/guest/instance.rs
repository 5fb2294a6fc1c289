//! One instance of a module, and one call of its guest under limits.
//!
//! In: a question. Out: an answer, checked, or a [`Fault`], with what the call
//! cost. How the guest is entered and read is [`super::convention`]'s. Invariant: an instance that
//! trapped, broke a limit or was given up in mid-call says so, and is never
//! called again.
//!
//! A call is a future: [`Instance::call_async`] runs the guest on a stack of
//! its own (a fiber) and gives way after each [`SLICE`] of computing; whoever
//! polls it decides where it goes on. [`Instance::call`] is the same call to
//! its end, on the caller's stack where that has the room, which saves making
//! and changing stacks; else on a fiber too. Either way recursion in a guest
//! meets its own limit, the same one, and never the end of a thread.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline, WasmBacktrace};

use super::convention::{AskSettings, Checked, Guest};
use super::deadline::Deadline;
use super::faults::fault_of;
use super::host::{ExecMode, HostState, enter};
use super::stack::StackSamples;
use crate::cost::Cost;
use crate::fault::{Fault, FaultCode};
use crate::guest::engine::RunningCount;
use crate::guest::module::Module;
use crate::guest::wasi;
use crate::limits::Limits;
use crate::question::{Phase, Question};

/// How long a guest computes before its call gives way, at the next tick of
/// the engine's clock: as a rule 0.2 to 1.2 ms, and longer only in one bulk
/// operation on memory, which nothing interrupts.
pub const SLICE: Duration = Duration::from_micros(200);

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
pub(crate) const PANIC_MESSAGE: &str = "panic_message";

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

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
    guest: Guest,
    module: Arc<Module>,
    /// No other instance of this process has it.
    number: u64,
    /// Where it is counted while it runs; away in mid-call.
    running_count: Option<RunningCount>,
    limits: Limits,
    /// Linear memory once its start was over.
    memory_at_start: u64,
    /// How much the last call added.
    grown_bytes: u64,
    calls: u64,
    poison: Option<FaultCode>,
    /// A call began and did not end: it runs, was given up or panicked.
    in_call: bool,
}

impl Instance {
    /// Makes an instance and runs its start function, `__wasm_call_ctors` where
    /// nothing else calls it, and `_initialize`, under one deadline and one tank
    /// of fuel for all.
    ///
    /// # Errors
    /// The fault that ended it.
    pub fn new(module: &Arc<Module>, limits: Limits) -> Result<Self, Box<Fault>> {
        drive(Self::new_in(ExecMode::for_this_thread(), module, limits))
    }

    /// The same as a future.
    ///
    /// # Errors
    /// The fault that ended it.
    pub(crate) async fn new_in(
        mode: ExecMode,
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
            memory_bytes: 0,
            fuel: counts_fuel.then(|| limits.fuel.unwrap_or(u64::MAX)),
            mode,
            slice_ends: Instant::now(),
            wasi: wasi::Context::new(
                limits.wasi,
                Arc::clone(&module.log_limiter),
                Deadline::new(limits.clock, limits.timeout),
            ),
            grows: 0,
            refused_growth: false,
            samples: None,
            kept: None,
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
            Ok(if state.wasi.deadline.is_over(now) {
                UpdateDeadline::Interrupt
            } else if now >= state.slice_ends {
                // For fairness, not for limits: how long it then waits for its
                // next turn is not known here and may count as computed.
                state.slice_ends = now + SLICE;
                state.wasi.deadline.end_slice();
                UpdateDeadline::YieldCustom(1, Box::pin(next_slice()))
            } else {
                UpdateDeadline::Continue(1)
            })
        });
        let running = module.engine.running_count().begin();
        let made = match arm(&mut store, mode, Instant::now()) {
            Ok(()) => Self::instantiate(module, &mut store, &limits).await,
            Err(error) => Err(error),
        };
        store.data_mut().wasi.output.end_call();
        match made {
            Ok(guest) => Ok(Self {
                number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
                memory_at_start: store.data().memory_bytes as u64,
                grown_bytes: 0,
                store,
                guest,
                module: Arc::clone(module),
                running_count: running.end(),
                limits,
                calls: 0,
                poison: None,
                in_call: false,
            }),
            Err(error) => Err(Box::new(fault_of(&error, &store, None, "while starting"))),
        }
    }

    async fn instantiate(
        module: &Module,
        store: &mut Store<HostState>,
        limits: &Limits,
    ) -> wasmtime::Result<Guest> {
        let instance = match store.data().mode {
            ExecMode::AtOnce => module.pre.instantiate(&mut *store)?,
            ExecMode::InSlices => module.pre.instantiate_async(&mut *store).await?,
        };
        let message = instance.get_global(&mut *store, PANIC_MESSAGE);
        let message = message.and_then(|global| global.get(&mut *store).i32());
        store.data_mut().panic_message = message.map(i32::cast_unsigned);
        for name in &module.facts.initializers {
            let initialize = instance.get_typed_func::<(), ()>(&mut *store, name)?;
            enter(&initialize, store, ()).await?;
        }
        let exports = (&module.facts, module.abi);
        Guest::link(module.convention, exports, &instance, (store, limits))
    }

    /// Calls one handler, an index into the ABI's list, on the input JSON that
    /// `write` appends to an empty buffer.
    ///
    /// A handler the module lacks answers nothing; callers do not come that far.
    pub fn call(&mut self, handler: usize, write: impl FnOnce(&mut Vec<u8>)) -> Called<'_> {
        drive(self.call_in(ExecMode::for_this_thread(), handler, write))
    }

    /// The same as a future that gives way, see [`SLICE`]. The input is
    /// written now. A call that is not awaited to its end poisons the instance.
    pub fn call_async(
        &mut self,
        handler: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> impl Future<Output = Called<'_>> + Send {
        self.call_in(ExecMode::InSlices, handler, write)
    }

    pub(crate) fn call_in(
        &mut self,
        mode: ExecMode,
        handler: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> impl Future<Output = Called<'_>> + Send {
        self.in_call = true;
        self.calls += 1;
        write(self.guest.begin());
        async move {
            let (result, cost) = self.called(mode, handler).await;
            let result = result.map(|has_answer| {
                if has_answer {
                    RawAnswer::Bytes(self.guest.answer())
                } else {
                    RawAnswer::Empty
                }
            });
            Called { result, cost }
        }
    }

    /// Asks the guest and checks what it answers; `None` is the empty answer.
    ///
    /// Checking the answer about an event counts into the deadline of the call.
    pub fn ask(
        &mut self,
        question: &Question<'_>,
        settings: AskSettings<'_>,
    ) -> (Result<Option<Checked>, Fault>, Cost) {
        drive(self.ask_in(ExecMode::for_this_thread(), question, settings))
    }

    pub(crate) async fn ask_in(
        &mut self,
        mode: ExecMode,
        question: &Question<'_>,
        settings: AskSettings<'_>,
    ) -> (Result<Option<Checked>, Fault>, Cost) {
        let phase = question.phase();
        if phase.abi() != self.module.abi {
            let what = format!("{} is asked of another ABI's module", phase.name());
            return (Err(Fault::new(FaultCode::Internal, what)), Cost::default());
        }
        self.in_call = true;
        self.calls += 1;
        self.guest
            .write(&mut self.store, question, settings.header_names);
        self.store.data_mut().wasi.begin_next_at(settings.now);
        let (called, cost) = self.called(mode, phase.index()).await;
        // Only an answer about an event may refuse what its fault would let pass.
        let may_refuse = matches!(phase, Phase::Event(_));
        let is_long = cost.answer_bytes > LONG_ANSWER_BYTES || called.is_err() && may_refuse;
        if is_long && mode == ExecMode::InSlices {
            self.store.data_mut().wasi.deadline.end_slice();
            next_slice().await;
        }
        // Reading the clock costs as much as checking a short answer.
        let counts = is_long && may_refuse;
        let checking = counts.then(Instant::now);
        let result = match called {
            Ok(false) => Ok(None),
            Ok(true) => {
                let checked = self
                    .guest
                    .check(&self.store, question, settings.answer_policy);
                checked.map(Some)
            }
            Err(mut fault) if may_refuse => {
                fault.refusal = self.guest.refusal_in_unread(&self.store);
                Err(fault)
            }
            Err(fault) => Err(fault),
        };
        // Not what it waited for its turn in between.
        let is_overdue = checking.is_some_and(|began| {
            cost.time.saturating_add(began.elapsed()) > self.limits.timeout
                && self.store.data_mut().wasi.deadline.is_over(Instant::now())
        });
        (within_deadline(result, is_overdue), cost)
    }

    async fn called(&mut self, mode: ExecMode, handler: usize) -> (Result<bool, Fault>, Cost) {
        let running_count = self.running_count.take();
        let running = running_count
            .unwrap_or_else(|| self.module.engine.running_count())
            .begin();
        let memory_before = self.memory_bytes();
        let started = Instant::now();
        let result = match arm(&mut self.store, mode, started) {
            Ok(()) => self.guest.run(&mut self.store, handler).await,
            Err(error) => Err(self.fault(&error, "before the call")),
        };
        self.store.data_mut().wasi.output.end_call();
        let time = started.elapsed();
        let computed = self.store.data().wasi.deadline.computed_in(time);
        self.running_count = running.end();
        let memory_after = self.memory_bytes();
        let cost = Cost {
            fuel: self.fuel_used(),
            time,
            computed,
            waited: Duration::ZERO,
            input_bytes: self.guest.input_bytes(),
            answer_bytes: self.guest.answer().len() as u64,
            memory_bytes: memory_after,
            grown_bytes: memory_after.saturating_sub(memory_before),
            calls_before: self.calls.saturating_sub(1),
        };
        self.grown_bytes = cost.grown_bytes;
        if let Err(fault) = &result
            && fault.code.poisons()
        {
            self.poison.get_or_insert(fault.code);
        }
        if let Some(code) = self.guest.not_given_back() {
            self.poison.get_or_insert(code);
        }
        self.in_call = false;
        (result, cost)
    }

    fn fault(&self, error: &wasmtime::Error, stage: &str) -> Fault {
        fault_of(error, &self.store, Some(self.guest.memory()), stage)
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

    /// Nothing is left of the exchange that the instance was kept for.
    pub(crate) fn end_exchange(&mut self) {
        drop(self.store.data_mut().kept.take());
    }

    /// What the handler probably meant to return, where the last answer was empty or
    /// could not be used and that can be told.
    #[must_use]
    pub fn misread(&self) -> Option<&'static str> {
        self.guest.misread(&self.store)
    }

    /// The bytes of the last answer, as the guest gave them.
    #[must_use]
    pub fn last_answer(&self) -> &[u8] {
        self.guest.answer()
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

    /// No other instance of this process has it.
    pub(crate) const fn number(&self) -> u64 {
        self.number
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

    /// All linear memory now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.store.data().memory_bytes as u64
    }
}

/// Winds up the limits of one call or one start that begins now.
fn arm(store: &mut Store<HostState>, mode: ExecMode, now: Instant) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.grows = 0;
    state.refused_growth = false;
    state.wasi.deadline.begin(now);
    state.mode = mode;
    state.slice_ends = match mode {
        // Never before its deadline.
        ExecMode::AtOnce => state.wasi.deadline.end(),
        ExecMode::InSlices => now + SLICE,
    };
    state.wasi.begin_call();
    let fuel = state.fuel;
    store.set_epoch_deadline(1);
    fuel.map_or(Ok(()), |fuel| store.set_fuel(fuel))
}

/// Longer answers are not checked on a thread that reads.
const LONG_ANSWER_BYTES: u64 = 16 << 10;

/// An answer that takes too long to check is a fault, and if it refuses it does
/// so all the same.
fn within_deadline(
    checked: Result<Option<Checked>, Fault>,
    is_overdue: bool,
) -> Result<Option<Checked>, Fault> {
    match checked {
        Ok(Some(checked)) if is_overdue && checked.answer.passes() => {
            let what = "the deadline passed while the answer was checked";
            Err(Fault::new(FaultCode::Deadline, what))
        }
        checked => checked,
    }
}

/// Lets others have their turn once, and goes on with the next slice.
async fn next_slice() {
    let mut has_given_way = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_given_way, true) {
            Poll::Ready(())
        } else {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
    Deadline::begin_slice();
}
