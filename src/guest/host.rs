//! What the host knows of a guest: its limits, and how it used them.

use std::any::Any;
use std::time::Instant;

use wasmtime::{ResourceLimiter, Store, TypedFunc, WasmParams, WasmResults};

use super::stack::StackSamples;
use crate::guest::wasi;
use crate::limits::{
    CALLERS_STACK_BYTES, MAX_GROWS_PER_CALL, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES,
};

/// How a guest's computing is spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecMode {
    /// To its end at once, on the caller's stack.
    AtOnce,
    /// In slices, on a stack of its own.
    InSlices,
}

impl ExecMode {
    /// For a caller that has nothing else to do.
    pub(crate) fn for_this_thread() -> Self {
        match stacker::remaining_stack() {
            Some(left) if left >= CALLERS_STACK_BYTES => Self::AtOnce,
            _ => Self::InSlices,
        }
    }
}

/// The one way into a guest.
pub(super) async fn enter<P: WasmParams + Sync, R: WasmResults + Sync>(
    function: &TypedFunc<P, R>,
    store: &mut Store<HostState>,
    arguments: P,
) -> wasmtime::Result<R> {
    match store.data().mode {
        ExecMode::AtOnce => function.call(store, arguments),
        ExecMode::InSlices => function.call_async(store, arguments).await,
    }
}

/// What the host knows of one store.
pub(crate) struct HostState {
    pub(super) max_memory_bytes: usize,
    /// What all linear memories have together.
    pub(super) memory_bytes: usize,
    /// Fuel for each call; none where the engine counts none.
    pub(super) fuel: Option<u64>,
    pub(super) mode: ExecMode,
    /// When the call gives way.
    pub(super) slice_ends: Instant,
    pub(crate) wasi: wasi::Context,
    pub(super) grows: u32,
    /// A growth was refused since the call began.
    pub(super) refused_growth: bool,
    /// Where the guest was, if that is to be known.
    pub(super) samples: Option<Box<StackSamples>>,
    /// What a convention keeps of an exchange between its calls.
    pub(super) kept: Option<Box<dyn Any + Send>>,
    /// Where the guest keeps what it says as it panics.
    pub(super) panic_message: Option<u32>,
}

impl ResourceLimiter for HostState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grows += 1;
        let all = self
            .memory_bytes
            .saturating_sub(current)
            .saturating_add(desired);
        // What is granted here must not fail later, or it would be counted for nothing.
        let granted = all <= self.max_memory_bytes
            && maximum.is_none_or(|maximum| desired <= maximum)
            && self.grows <= MAX_GROWS_PER_CALL;
        if granted {
            self.memory_bytes = all;
        }
        self.refused_growth |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // More than 32 bits can address, or no memory left on this machine: that stays
        // counted, since nobody says which of the two it was.
        self.refused_growth = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grows += 1;
        let granted = desired as u64 <= MAX_TABLE_ELEMENTS && self.grows <= MAX_GROWS_PER_CALL;
        self.refused_growth |= !granted;
        Ok(granted)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}
