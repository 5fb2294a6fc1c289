//! What a guest may use, and where each number comes from. Those that a module
//! can rely on are in docs/contract.md, Limits and Header operations.
//!
//! The same limits hold in every command: what would be killed in production
//! is stopped in local runs too.

use std::time::{Duration, Instant};

/// Time for one call, alloc, handler and dealloc together.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
/// Linear memory of one agent instance.
pub const DEFAULT_MAX_MEMORY_BYTES: u64 = 64 << 20;
/// Instructions for one hook call.
pub(crate) const DEFAULT_HOOK_FUEL: u64 = 1_000_000;
/// Linear memory of one hook instance, 256 pages.
pub(crate) const DEFAULT_HOOK_MAX_MEMORY_BYTES: u64 = 256 * (64 << 10);
/// Size of one answer.
pub(crate) const DEFAULT_MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Size of one module file.
pub(crate) const DEFAULT_MAX_MODULE_BYTES: u64 = 64 << 20;
/// Compiling a module may take this long; a real 2 MB Go module takes seconds.
pub(crate) const DEFAULT_MAX_COMPILE_TIME: Duration = Duration::from_secs(30);
/// How long a caller waits for a free instance before the answer is overload.
pub const DEFAULT_QUEUE_WAIT: Duration = Duration::from_millis(100);
/// Instances of one module; the published agents' default.
pub const DEFAULT_POOL_SIZE: usize = 4;
/// More instances than this meet the kernel's default limit on memory maps
/// (65 530, several for each instance).
pub const MAX_POOL_SIZE: usize = 1024;

/// Elements of one table: as many as a module may have functions. Go has one
/// for each of its functions, and some thousands of them.
pub(crate) const MAX_TABLE_ELEMENTS: u64 = 20_000;
/// Linear memories of one instance. Tools that merge modules make two or three; each
/// reserves 4 GiB of address space.
pub(crate) const MAX_MEMORIES: usize = 8;
/// Tables of one instance.
pub(crate) const MAX_TABLES: usize = 4;
/// Growth requests granted in one call; each costs a system call, and real
/// allocators grow far less often.
pub(crate) const MAX_GROWS_PER_CALL: u32 = 10_000;
/// Native stack that wasm frames may use, wasmtime's default.
pub(crate) const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// The stack a guest runs on, one for each instance: the wasm stack and
/// 1.5 MiB for the host's own frames below and above it.
pub(crate) const GUEST_STACK_BYTES: usize = 2 << 20;
/// What a thread must have left of its own stack for a guest to run on it: the
/// wasm stack and as much again for the host's frames below and above it.
pub(crate) const CALLERS_STACK_BYTES: usize = 2 * MAX_WASM_STACK_BYTES;
/// Stack of compiling threads, which recurse with the nesting of the module.
pub(crate) const COMPILE_THREAD_STACK_BYTES: usize = 16 << 20;

/// Header operations in one answer.
pub(crate) const MAX_HEADER_OPS: usize = 128;
/// Bytes of names and values of all header operations.
pub(crate) const MAX_HEADER_OPS_BYTES: usize = 64 << 10;
/// A redirect's URL; RFC 9110 4.1 asks recipients to take 8000 octets.
pub(crate) const MAX_REDIRECT_URL_BYTES: usize = 8_000;

/// A pooled instance that has grown by more than this share of what it may grow
/// by is replaced after its call, before a leaking guest meets the limit in
/// mid-request.
pub(crate) const RECYCLE_MEMORY_PERCENT: u64 = 75;

/// Bytes of wasm text. Its syntax tree takes up to eighty times as much, and
/// text is written by hand.
pub(crate) const MAX_TEXT_BYTES: usize = 8 << 20;
/// Imports that are listed one by one, and tools that are remembered.
pub(crate) const MAX_LISTED: usize = 100;
/// Functions of one module, beyond what toolchains emit for a policy.
pub(crate) const MAX_FUNCTIONS: u32 = 20_000;
/// Bytes of one function body; compile time grows faster than linearly.
pub(crate) const MAX_FUNCTION_BYTES: usize = 512 << 10;
/// Locals of one function, parameters not counted.
pub(crate) const MAX_LOCALS: u64 = 2_000;
/// Blocks within blocks in one function.
pub(crate) const MAX_NESTING: u32 = 1_000;
/// Reads and writes of locals in one function, each counted once for every
/// loop around it: a compiler carries a local through each of those loops.
/// Cranelift takes about a second for 80 000.
pub(crate) const MAX_CARRIED_LOCALS: u64 = 500_000;
/// Bytes that compiling one function may take, as reckoned from its operators;
/// the most expensive one of Go's own library takes 9 MiB.
pub(crate) const MAX_FUNCTION_COMPILE_BYTES: u64 = 84 << 20;
/// What is kept of a compiled function until all are, as a share of what
/// compiling it takes: one part in so many.
pub(crate) const KEPT_OF_COMPILING: u64 = 16;
/// Bytes that compiling a module may take beyond three times its size: those of
/// the most expensive function, and what is kept of all. A reload adds no more to a
/// running agent.
pub(crate) const MAX_COMPILE_BYTES: u64 = 136 << 20;
/// Bytes that the functions which are compiled at once may take together; less
/// than all cores compile where single functions take much.
pub(crate) const MAX_COMPILE_BYTES_AT_ONCE: u64 = 192 << 20;
/// Types of one module, and all their parameters and results.
pub(crate) const MAX_TYPE_VALUES: u64 = 1_000_000;
/// Element segments of one module.
pub(crate) const MAX_ELEMENT_SEGMENTS: u32 = 10_000;
/// Data segments of one module; all that a wasm reader takes. Go leaves out
/// runs of zeros and so cuts its data into tens of thousands.
pub(crate) const MAX_DATA_SEGMENTS: u32 = 100_000;

/// Far enough away to be "never", and near enough to reckon with.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When `time` from `start` on is over. A host may mean "for ever", and no clock
/// goes that far.
#[must_use]
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    let end = start.checked_add(time);
    end.unwrap_or_else(|| start + FOR_EVER)
}

named! {
    /// What a guest gets of WASI preview 1, which never is more than clocks, random
    /// bytes and a log to write to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Wasi {
        /// Nothing: a module that imports it is refused.
        None => "none",
        /// Random bytes that are the same at every call, and clocks that begin each
        /// call at the time of its question, so that decisions repeat.
        Fixed => "fixed",
        /// The host's clocks and random bytes.
        #[default]
        Real => "real",
    }
}

/// What one call may use.
/// ```
/// use std::time::Duration;
/// use wasm_agent_kit::limits::Limits;
///
/// let limits = Limits {
///     timeout: Duration::from_millis(20),
///     max_memory_bytes: 16 << 20,
///     ..Limits::default()
/// };
/// assert_eq!(limits.fuel, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time for one call; also for one instantiation.
    pub timeout: Duration,
    /// The clock that `timeout` is measured by.
    pub clock: DeadlineClock,
    /// Instructions for one call, none for no limit.
    pub fuel: Option<u64>,
    /// Linear memory of one instance, in bytes.
    pub max_memory_bytes: u64,
    /// Size of one answer, in bytes.
    pub max_answer_bytes: u64,
    /// What it gets of WASI.
    pub wasi: Wasi,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            clock: DeadlineClock::default(),
            fuel: None,
            max_memory_bytes: DEFAULT_MAX_MEMORY_BYTES,
            max_answer_bytes: DEFAULT_MAX_ANSWER_BYTES,
            wasi: Wasi::default(),
        }
    }
}

impl Limits {
    /// What one hook call may use where nobody says otherwise.
    #[must_use]
    pub fn of_hooks() -> Self {
        Self {
            fuel: Some(DEFAULT_HOOK_FUEL),
            max_memory_bytes: DEFAULT_HOOK_MAX_MEMORY_BYTES,
            wasi: Wasi::None,
            ..Self::default()
        }
    }
}

/// The clock that the deadline of a call is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadlineClock {
    /// The wall clock: for a server, whose peer waits.
    #[default]
    Wall,
    /// The processor time of the thread that calls, so that other work on the machine
    /// is no fault of the guest. The wall clock ends the call after 20 times the
    /// deadline, and not before 2 s. A blocking call of a policy that takes too long
    /// beside other work is repeated once, while no other guest of its engine runs:
    /// meanwhile the calls of other threads wait.
    Processor,
}

/// The limits somebody asked for; what is not given is the ABI's own default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitChoice {
    /// Time for one call.
    pub timeout: Option<Duration>,
    /// The clock that `timeout` is measured by.
    pub clock: Option<DeadlineClock>,
    /// Instructions for one call.
    pub fuel: Option<u64>,
    /// Linear memory of one instance, in bytes.
    pub max_memory_bytes: Option<u64>,
    /// Size of one answer, in bytes.
    pub max_answer_bytes: Option<u64>,
    /// What it gets of WASI.
    pub wasi: Option<Wasi>,
    /// Whether clocks and random bytes are [`Wasi::Fixed`] where the ABI's own
    /// default is [`Wasi::Real`]: for local runs, which repeat.
    pub is_repeatable: bool,
}

impl From<Limits> for LimitChoice {
    /// Exactly these; no fuel limit is no choice, and the ABI's own.
    fn from(limits: Limits) -> Self {
        Self {
            timeout: Some(limits.timeout),
            clock: Some(limits.clock),
            fuel: limits.fuel,
            max_memory_bytes: Some(limits.max_memory_bytes),
            max_answer_bytes: Some(limits.max_answer_bytes),
            wasi: Some(limits.wasi),
            is_repeatable: false,
        }
    }
}

impl LimitChoice {
    /// These limits, and the others from `defaults`.
    #[must_use]
    pub fn over(self, defaults: Limits) -> Limits {
        Limits {
            timeout: self.timeout.unwrap_or(defaults.timeout),
            clock: self.clock.unwrap_or(defaults.clock),
            fuel: self.fuel.or(defaults.fuel),
            max_memory_bytes: self.max_memory_bytes.unwrap_or(defaults.max_memory_bytes),
            max_answer_bytes: self.max_answer_bytes.unwrap_or(defaults.max_answer_bytes),
            wasi: match (self.wasi, defaults.wasi) {
                (Some(chosen), _) => chosen,
                (None, Wasi::Real) if self.is_repeatable => Wasi::Fixed,
                (None, default) => default,
            },
        }
    }
}

/// What loading one module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Size of the file, and of the binary that text assembles to, in bytes.
    pub max_module_bytes: u64,
    /// Time for compiling, by the wall clock and by the processor time of the
    /// process: the longer one counts, up to ten times this by the wall clock.
    pub max_compile_time: Duration,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            max_module_bytes: DEFAULT_MAX_MODULE_BYTES,
            max_compile_time: DEFAULT_MAX_COMPILE_TIME,
        }
    }
}

/// Whether an instance serves more than one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Kept for the next call. The default of the agent ABI.
    #[default]
    Pooled,
    /// One instance for each call.
    Fresh,
    /// Replaced after this many calls.
    Recycle(u64),
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "pooled" => Ok(Self::Pooled),
            None if text == "fresh" => Ok(Self::Fresh),
            Some(("recycle", calls)) => calls
                .parse()
                .ok()
                .filter(|calls| *calls > 0)
                .map(Self::Recycle)
                .ok_or_else(|| format!("expected recycle=N with N of 1 or more, found {calls:?}")),
            _ => Err("expected pooled, fresh or recycle=N".to_owned()),
        }
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pooled => out.write_str("pooled"),
            Self::Fresh => out.write_str("fresh"),
            Self::Recycle(calls) => write!(out, "recycle={calls}"),
        }
    }
}
