//! Turns an error of the engine into the fault of the guest.

use std::fmt;

use wasmtime::{Memory, Store, Trap, WasmBacktrace};

use super::host::HostState;
use super::stack::frame;
use crate::error::Error;
use crate::fault::{Fault, FaultCode, TrapKind, printable};
use crate::guest::wasi::{self, Ended};

/// `env.abort` was called; the arguments are addresses in the guest.
#[derive(Debug)]
pub(crate) struct GuestAbort {
    pub(crate) message: u32,
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl fmt::Display for GuestAbort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the guest called env.abort")
    }
}

impl std::error::Error for GuestAbort {}

/// Sorts an engine error by its type, never by its text.
pub(super) fn fault_of(
    error: &wasmtime::Error,
    store: &Store<HostState>,
    memory: Option<Memory>,
    stage: &str,
) -> Fault {
    let state = store.data();
    let mut fault = if let Some(abort) = error.downcast_ref::<GuestAbort>() {
        let text = |address| {
            memory
                .and_then(|memory| utf16_at(memory.data(store), address))
                .unwrap_or_else(|| "no message".to_owned())
        };
        Fault::new(
            FaultCode::Trap(TrapKind::Abort),
            format!(
                "abort {stage}: {} at {}:{}:{}",
                text(abort.message),
                text(abort.file),
                abort.line,
                abort.column
            ),
        )
    } else if let Some(ended) = error.downcast_ref::<Ended>() {
        ended.fault(stage)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        trap_fault(*trap, state, stage)
    } else if state.refused_growth {
        Fault::new(
            FaultCode::MemoryLimit,
            format!(
                "more than {} bytes of memory {stage}",
                state.max_memory_bytes
            ),
        )
    } else if finds_no_room(error) {
        Fault::new(
            FaultCode::MemoryLimit,
            format!(
                "{error:#} {stage}; an instance reserves 4 GiB of address space, of which it uses little: raise ulimit -v (LimitAS=) and vm.max_map_count, or lower --pool-size"
            ),
        )
    } else {
        Fault::new(FaultCode::Internal, format!("{stage}: {error:#}"))
    };
    if matches!(fault.code, FaultCode::Trap(_)) {
        let mut words = state.wasi.output.last_words();
        if words.is_empty() {
            words = panic_words(memory.map(|memory| memory.data(store)), state);
        }
        fault.say(words);
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        fault.backtrace = backtrace.frames().iter().map(frame).collect();
    }
    fault
}

/// What the guest left in its [`PANIC_MESSAGE`].
fn panic_words(memory: Option<&[u8]>, state: &HostState) -> Vec<String> {
    const MAX_BYTES: usize = 1024;
    let start = state.panic_message.and_then(|at| usize::try_from(at).ok());
    let text = memory
        .zip(start)
        .and_then(|(memory, start)| memory.get(start..))
        .unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    wasi::words(&text[..text.len().min(MAX_BYTES)])
}

/// Whether the system had no memory, or no address space, for what was made.
fn finds_no_room(error: &wasmtime::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM))
}

fn trap_fault(trap: Trap, state: &HostState, stage: &str) -> Fault {
    let code = match trap {
        Trap::OutOfFuel => FaultCode::Fuel,
        Trap::Interrupt => FaultCode::Deadline,
        _ if state.refused_growth => FaultCode::MemoryLimit,
        Trap::StackOverflow => FaultCode::Trap(TrapKind::StackOverflow),
        Trap::MemoryOutOfBounds => FaultCode::Trap(TrapKind::OutOfBounds),
        Trap::TableOutOfBounds => FaultCode::Trap(TrapKind::TableOutOfBounds),
        Trap::IndirectCallToNull => FaultCode::Trap(TrapKind::NullCall),
        Trap::BadSignature => FaultCode::Trap(TrapKind::BadSignature),
        Trap::IntegerOverflow => FaultCode::Trap(TrapKind::IntegerOverflow),
        Trap::IntegerDivisionByZero => FaultCode::Trap(TrapKind::DivideByZero),
        Trap::BadConversionToInteger => FaultCode::Trap(TrapKind::BadConversion),
        Trap::UnreachableCodeReached => FaultCode::Trap(TrapKind::Unreachable),
        _ => FaultCode::Trap(TrapKind::Other),
    };
    let detail = match code {
        FaultCode::Deadline => {
            let excuse = state.wasi.deadline.excuse();
            format!("still running after its deadline {stage}{excuse}")
        }
        FaultCode::Fuel => format!("used up its fuel {stage}"),
        FaultCode::MemoryLimit => format!(
            "a growth beyond {} bytes, or of too many, was refused; then {trap} {stage}",
            state.max_memory_bytes
        ),
        _ => format!("{trap} {stage}"),
    };
    Fault::new(code, detail)
}

/// An AssemblyScript string: UTF-16, its length in bytes before it.
fn utf16_at(memory: &[u8], address: u32) -> Option<String> {
    const MAX_BYTES: u32 = 1024;
    let header = range(address.checked_sub(4)?, 4)?;
    let bytes = u32::from_le_bytes(memory.get(header)?.try_into().ok()?).min(MAX_BYTES);
    let units: Vec<u16> = memory
        .get(range(address, bytes)?)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    (address != 0).then(|| printable(&String::from_utf16_lossy(&units), 256))
}

/// `ptr..ptr + len`, where that does not wrap on this machine.
pub(super) fn range(ptr: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(ptr).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    Some(start..end)
}

/// For `map_err`: a failure of the engine.
pub(super) fn host_error(what: &'static str) -> impl FnOnce(wasmtime::Error) -> Error {
    move |source| {
        let denied = source
            .chain()
            .filter_map(|cause| cause.downcast_ref::<rustix::io::Errno>())
            .any(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
        let source = source.into();
        if denied {
            Error::NotExecutable { source }
        } else {
            Error::Host { what, source }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A broken abort message is no message, never a panic.
        #[test]
        fn any_abort_address_is_safe(address in any::<u32>(), memory in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = utf16_at(&memory, address);
            let _ = utf16_at(&memory, address % 70);
        }
    }

    /// In this form the engine reports what mprotect answered.
    #[test]
    fn forbidden_memory_has_an_error_of_its_own() {
        for denied in [rustix::io::Errno::ACCESS, rustix::io::Errno::PERM] {
            let error = wasmtime::Error::new(denied).context("unable to make memory executable");
            assert!(matches!(
                host_error("cannot")(error),
                Error::NotExecutable { .. }
            ));
        }
        let other = wasmtime::Error::msg("no room");
        assert!(matches!(host_error("cannot")(other), Error::Host { .. }));
    }
}
