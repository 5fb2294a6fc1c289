//! What one call of a guest cost: instructions, time and memory.

use std::time::Duration;

/// What one call cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Cost {
    /// Instructions, where the engine counts them.
    pub fuel: Option<u64>,
    /// Wall clock for alloc, handler and dealloc together.
    pub time: Duration,
    /// Processor time of the same, where that is measured
    /// ([`DeadlineClock::Processor`](crate::limits::DeadlineClock)); else the wall
    /// clock. Exact to 0.1 ms, and never more than `time`.
    pub computed: Duration,
    /// How long the call waited for its instance; not part of its time.
    pub waited: Duration,
    /// Bytes of input JSON.
    pub input_bytes: u64,
    /// Bytes of the answer.
    pub answer_bytes: u64,
    /// All linear memory after the call, in bytes.
    pub memory_bytes: u64,
    /// How much of it this call added.
    pub grown_bytes: u64,
    /// Calls that the same instance had answered before.
    pub calls_before: u64,
}

impl Cost {
    /// The wall clock in nanoseconds.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX)
    }
}
