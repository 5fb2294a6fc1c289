//! The wasm engine: its settings, and the clock that interrupts guests.
//!
//! One [`Engine`] for each set of settings. Which proposals are on is stated
//! here and does not follow the crate's defaults.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::{
    Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails, WasmFeatures,
};

use crate::error::Error;
use crate::fault::printable;
use crate::guest::deadline::{TICK, process_time};
use crate::guest::faults::host_error;
use crate::guest::inspect::ALLOWED_FEATURES;
use crate::limits::{
    COMPILE_THREAD_STACK_BYTES, GUEST_STACK_BYTES, MAX_COMPILE_BYTES_AT_ONCE, MAX_MEMORIES,
    MAX_TABLE_ELEMENTS, MAX_TABLES, MAX_WASM_STACK_BYTES,
};

/// On a busy machine compiling may take so many times its limit by the wall clock.
const FAR_COMPILE_TIMES: u32 = 10;
/// Ticks without a running guest before the clock goes to sleep.
const IDLE_TICKS: u32 = 100;
/// Ticks to wait until no other guest runs: one that nobody polls may never end.
const MAX_QUIET_TICKS: u32 = 2_000;
/// Frames of a trap's backtrace.
const MAX_BACKTRACE_FRAMES: usize = 20;

/// The engine's name and version; fuel may differ from one to the next.
#[must_use]
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> =
        LazyLock::new(|| format!("wasmtime {}", wasmtime_environ::VERSION));
    &VERSION
}

/// Does not compile where another `wasmtime-environ` than the engine's is asked
/// for its version.
const _: fn(wasmtime::Trap) -> wasmtime_environ::Trap = |trap| trap;

/// Where instances get their memory from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// A mapping for each instance.
    #[default]
    OnDemand,
    /// Slots mapped once, for instances that live for one call.
    Slots {
        /// How many instances at once.
        count: u32,
        /// Linear memory of each, in bytes.
        memory_bytes: usize,
    },
}

/// What distinguishes one engine from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineSettings {
    /// Count instructions. Costs about a quarter of a call's time.
    pub fuel: bool,
    /// Resolve file and line of a trap from DWARF.
    pub debug_lines: bool,
    /// Where instances get their memory from.
    pub allocation: Allocation,
    /// Leave out the checks that deadlines need, to measure what they cost. An
    /// instance of such an engine must have a fuel limit instead.
    pub no_deadlines: bool,
}

/// The configuration of an engine with these settings.
#[must_use]
pub fn config(settings: EngineSettings) -> Config {
    let mut config = Config::new();
    config.wasm_features(WasmFeatures::all(), false);
    config.wasm_features(ALLOWED_FEATURES, true);
    config.strategy(Strategy::Cranelift);
    config.cranelift_opt_level(OptLevel::Speed);
    // A NaN's bits are the only thing about floats that differs between runs
    // and machines; the same everywhere, so local runs equal production.
    config.cranelift_nan_canonicalization(true);
    config.epoch_interruption(!settings.no_deadlines);
    config.consume_fuel(settings.fuel);
    config.max_wasm_stack(MAX_WASM_STACK_BYTES);
    config.async_stack_size(GUEST_STACK_BYTES);
    config.memory_reservation(4 << 30);
    config.memory_guard_size(32 << 20);
    config.guard_before_linear_memory(true);
    config.memory_init_cow(true);
    config.debug_info(false);
    // Stated, because the default asks an environment variable.
    config.wasm_backtrace_details(if settings.debug_lines {
        WasmBacktraceDetails::Enable
    } else {
        WasmBacktraceDetails::Disable
    });
    config.wasm_backtrace_max_frames(NonZeroUsize::new(MAX_BACKTRACE_FRAMES));
    config.native_unwind_info(false);
    if let Allocation::Slots {
        count,
        memory_bytes,
    } = settings.allocation
    {
        let [tables, memories] =
            [MAX_TABLES, MAX_MEMORIES].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let mut slots = PoolingAllocationConfig::new();
        slots
            .total_core_instances(count)
            .total_memories(count.saturating_mul(memories))
            .total_stacks(count)
            .total_tables(count.saturating_mul(tables))
            .max_memories_per_module(memories)
            .max_tables_per_module(tables)
            .max_memory_size(memory_bytes)
            .table_elements(usize::try_from(MAX_TABLE_ELEMENTS).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(256 << 10)
            .max_unused_warm_slots(count);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(slots));
    }
    config
}

/// An engine, the threads that compile for it and the clock that interrupts
/// what it runs.
/// ```
/// use wasm_agent_kit::guest::{Engine, EngineSettings};
///
/// // Fuel is counted where a call is to have a limit of instructions.
/// let engine = Engine::new(EngineSettings {
///     fuel: true,
///     ..EngineSettings::default()
/// })?;
/// # drop(engine);
/// # Ok::<(), wasm_agent_kit::error::Error>(())
/// ```
pub struct Engine {
    wasm: wasmtime::Engine,
    counts_fuel: bool,
    has_deadlines: bool,
    clock: Clock,
    /// Others work while this compiles.
    compiles_aside: AtomicBool,
}

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// When the engine refuses its settings, such as slots for which there is
    /// no address space.
    pub fn new(settings: EngineSettings) -> Result<Arc<Self>, Error> {
        let wasm = wasmtime::Engine::new(&config(settings))
            .map_err(host_error("cannot start the wasm engine"))?;
        let clock = Clock::start(wasm.clone()).map_err(|source| Error::Host {
            what: "cannot start the deadline thread",
            source: source.into(),
        })?;
        Ok(Arc::new(Self {
            wasm,
            counts_fuel: settings.fuel,
            has_deadlines: !settings.no_deadlines,
            clock,
            compiles_aside: AtomicBool::new(false),
        }))
    }

    /// The engine itself.
    #[must_use]
    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// Whether instructions are counted.
    pub(crate) const fn counts_fuel(&self) -> bool {
        self.counts_fuel
    }

    /// Whether a guest can be interrupted at its deadline.
    pub(crate) const fn has_deadlines(&self) -> bool {
        self.has_deadlines
    }

    /// A count for one instance.
    pub(crate) fn running_count(&self) -> RunningCount {
        let shared = Arc::clone(&self.clock.shared);
        let next = shared.next_row.fetch_add(1, Ordering::Relaxed);
        RunningCount {
            row: next % shared.rows.len(),
            shared,
        }
    }

    /// Whether no guest of this engine runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.clock.shared.is_idle()
    }

    /// Does something while no other guest of this engine runs: their calls wait
    /// until it is done. Those that have begun are waited for, for about 2 s.
    pub(crate) fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        let quiet = self.clock.shared.quiet();
        let result = act();
        drop(quiet);
        result
    }

    /// From now on compiling takes one core and leaves the others alone.
    pub(crate) fn compile_aside(&self) {
        self.compiles_aside.store(true, Ordering::Relaxed);
    }

    /// Compiles on threads with stacks of our choosing, and gives up waiting once
    /// `limit` has passed and this process has computed for as long, or after
    /// [`FAR_COMPILE_TIMES`] limits; what was started then runs on until it is done.
    /// No function takes more than `function_bytes` of memory.
    pub(crate) fn compile(
        &self,
        wasm: Vec<u8>,
        (limit, function_bytes): (Duration, u64),
    ) -> Result<Option<wasmtime::Module>, Error> {
        let aside = self.compiles_aside.load(Ordering::Relaxed);
        let threads = if aside { 1 } else { at_once(function_bytes) };
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compile-{index}"))
            .stack_size(COMPILE_THREAD_STACK_BYTES)
            .build()
            .map_err(|source| Error::Host {
                what: "cannot start compiling threads",
                source: source.into(),
            })?;
        let (done, result) = std::sync::mpsc::sync_channel(1);
        let engine = self.wasm.clone();
        threads.spawn(move || {
            let compiled = survived(|| wasmtime::Module::from_binary(&engine, &wasm));
            // The receiver may have given up.
            let _ = done.send(compiled);
        });
        let (began, spent_before) = (Instant::now(), process_time());
        let mut wait = limit;
        loop {
            match result.recv_timeout(wait) {
                Ok(module) => {
                    return module
                        .map(Some)
                        .map_err(host_error("the engine refuses the module"));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Other work on the machine is no fault of the module.
            wait = limit.saturating_sub(process_time().saturating_sub(spent_before));
            if wait.is_zero() || began.elapsed() >= limit.saturating_mul(FAR_COMPILE_TIMES) {
                return Ok(None);
            }
        }
    }
}

/// How many functions are compiled at once that take so many bytes: as many as
/// there are cores, if memory is to be had for them.
fn at_once(function_bytes: u64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let fit = MAX_COMPILE_BYTES_AT_ONCE / function_bytes.max(1);
    usize::try_from(fit).map_or(cores, |fit| fit.clamp(1, cores))
}

/// A panic in the compiler is a module that is refused, and not the end of what
/// else this process does.
fn survived<T>(compile: impl FnOnce() -> wasmtime::Result<T>) -> wasmtime::Result<T> {
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or_default();
        Err(wasmtime::Error::msg(format!(
            "the engine's compiler has a defect that this module triggers ({}); please report it, and build the module with different compiler settings until it is fixed",
            printable(said, 200)
        )))
    })
}

thread_local! {
    /// Whether this thread is the one that runs a guest alone.
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Where one instance is counted while it runs, so that the clock stays awake.
pub(crate) struct RunningCount {
    shared: Arc<Shared>,
    row: usize,
}

impl RunningCount {
    /// Keeps the clock awake from now on.
    pub(crate) fn begin(self) -> RunningGuard {
        self.shared.guest_starts(self.row);
        RunningGuard { count: Some(self) }
    }
}

/// A guest that runs, until this is dropped.
pub(crate) struct RunningGuard {
    count: Option<RunningCount>,
}

impl RunningGuard {
    /// The guest does not run any more; its count, for the next call.
    pub(crate) fn end(mut self) -> Option<RunningCount> {
        self.stop()
    }

    fn stop(&mut self) -> Option<RunningCount> {
        let count = self.count.take()?;
        if let Some(Row(guests)) = count.shared.rows.get(count.row) {
            guests.fetch_sub(1, Ordering::SeqCst);
        }
        Some(count)
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// Guests that run, of some instances. A cache line (or two that are fetched
/// together) of its own: all cores writing to one at each call costs more than
/// counting does.
#[repr(align(128))]
#[derive(Default)]
struct Row(AtomicUsize);

/// Advances the engine's epoch once a tick from a thread of its own, so that
/// guests that take every core cannot stop it. Sleeps while none runs.
struct Clock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    rows: [Row; 16],
    next_row: AtomicUsize,
    /// Whether one thread wants to run a guest alone; the lock is held meanwhile.
    wants_quiet: AtomicBool,
    quiet: Mutex<()>,
    asleep: AtomicBool,
    stop: AtomicBool,
    waker: std::sync::OnceLock<std::thread::Thread>,
}

impl Shared {
    /// Order matters: counted first, then looked whether the clock sleeps or
    /// somebody wants to be alone; those say so first, then look at the count.
    fn guest_starts(&self, row: usize) {
        let Some(Row(guests)) = self.rows.get(row) else {
            return;
        };
        guests.fetch_add(1, Ordering::SeqCst);
        while self.wants_quiet.load(Ordering::SeqCst) && !IS_ALONE.get() {
            guests.fetch_sub(1, Ordering::SeqCst);
            drop(self.quiet.lock().unwrap_or_else(PoisonError::into_inner));
            guests.fetch_add(1, Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.waker.get()
        {
            thread.unpark();
        }
    }

    /// Waits until no guest runs, and keeps others from starting.
    fn quiet(&self) -> Quiet<'_> {
        let held = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        IS_ALONE.set(true);
        self.wants_quiet.store(true, Ordering::SeqCst);
        for _ in 0..MAX_QUIET_TICKS {
            if self.is_idle() {
                break;
            }
            std::thread::sleep(TICK);
        }
        Quiet {
            shared: self,
            _held: held,
        }
    }

    fn is_idle(&self) -> bool {
        let none = |Row(guests): &Row| guests.load(Ordering::SeqCst) == 0;
        self.rows.iter().all(none)
    }
}

/// No other guest runs, until this is dropped.
struct Quiet<'a> {
    shared: &'a Shared,
    _held: MutexGuard<'a, ()>,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.shared.wants_quiet.store(false, Ordering::SeqCst);
        IS_ALONE.set(false);
    }
}

impl Clock {
    fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            rows: <[Row; 16]>::default(),
            next_row: AtomicUsize::new(0),
            wants_quiet: AtomicBool::new(false),
            quiet: Mutex::new(()),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            waker: std::sync::OnceLock::new(),
        });
        let clock = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("deadline".to_owned())
            .spawn(move || tick(&engine, &clock))?;
        let _ = shared.waker.set(thread.thread().clone());
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

fn tick(engine: &wasmtime::Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.is_idle() {
            idle += 1;
        } else {
            idle = 0;
        }
        if idle > IDLE_TICKS {
            shared.asleep.store(true, Ordering::SeqCst);
            while shared.is_idle() && !shared.stop.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_secs(1));
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread only ticks; it has nothing to report.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_reported_is_the_one_built_in() {
        let lock = include_str!("../../Cargo.lock");
        let (name, version) = version().split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"")));
    }

    /// The threads of the compiler hand a panic on to whoever waits for them.
    #[test]
    fn a_panic_of_the_compiler_is_a_refusal() {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        let (done, result) = std::sync::mpsc::sync_channel(1);
        threads.spawn(move || {
            let compiled: wasmtime::Result<((), ())> = survived(|| {
                Ok(rayon::join(
                    || (),
                    || panic!("\u{1b}no register for v{}", 7),
                ))
            });
            done.send(compiled).unwrap();
        });
        let error = result.recv().unwrap().unwrap_err().to_string();
        assert!(error.contains("no register for v7"), "{error}");
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn only_the_proposals_of_real_toolchains_are_on() {
        for fuel in [false, true] {
            let config = config(EngineSettings {
                fuel,
                ..EngineSettings::default()
            });
            let engine = wasmtime::Engine::new(&config).unwrap();
            assert_eq!(engine.get_wasm_features(), ALLOWED_FEATURES);
        }
        for off in [
            WasmFeatures::GC,
            WasmFeatures::GC_TYPES,
            WasmFeatures::FUNCTION_REFERENCES,
            WasmFeatures::EXCEPTIONS,
            WasmFeatures::THREADS,
            WasmFeatures::MEMORY64,
            WasmFeatures::TAIL_CALL,
            WasmFeatures::RELAXED_SIMD,
            WasmFeatures::CUSTOM_PAGE_SIZES,
            WasmFeatures::STACK_SWITCHING,
            WasmFeatures::WIDE_ARITHMETIC,
        ] {
            assert!(!ALLOWED_FEATURES.intersects(off), "{off:?}");
        }
    }
}
