//! The host functions: each reads its arguments from guest memory with checked
//! ranges, and answers an error number of WASI, or ends the call.

use std::fmt;
use std::time::Duration;

use wasmtime::{Caller, Engine, Extern, FuncType, Linker, Val, ValType};

use super::catalog::{Function, MODULE, Role};
use super::context::Context;
use super::output::Stream;
use crate::fault::{Fault, FaultCode, TrapKind};
use crate::guest::deadline::TooLong;

/// Pieces of one write, and subscriptions of one poll. More is no program's
/// need, and each is looked at.
const MAX_PIECES: u32 = 1024;
/// Random bytes of one call; they take some milliseconds, in which the thread
/// serves nobody else.
const MAX_RANDOM_BYTES: u32 = 1 << 20;

/// Why a call does not go on.
#[derive(Debug)]
pub(crate) enum Ended {
    /// `proc_exit`, whatever the code: a handler has to return.
    Exit(u32),
    /// `proc_raise`.
    Raised(u32),
    /// A sleep that would not have been over before the deadline.
    Slept(Duration),
}

impl Ended {
    pub(crate) fn fault(&self, stage: &str) -> Fault {
        let code = match self {
            Self::Exit(_) | Self::Raised(_) => FaultCode::Trap(TrapKind::Exit),
            Self::Slept(_) => FaultCode::Deadline,
        };
        Fault::new(code, format!("{self} {stage}"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(out, "exit with code {code}"),
            Self::Raised(signal) => write!(out, "exit by signal {signal}"),
            Self::Slept(time) => write!(out, "a sleep of {time:?}, beyond the deadline,"),
        }
    }
}

impl std::error::Error for Ended {}

/// Error numbers of WASI that are answered here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Errno {
    BadDescriptor = 8,
    Fault = 21,
    Invalid = 28,
    Io = 29,
    NotSeekable = 70,
}

/// Why a function does not answer 0.
enum Refusal {
    Errno(Errno),
    End(wasmtime::Error),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Ended> for Refusal {
    fn from(ended: Ended) -> Self {
        Self::End(wasmtime::Error::new(ended))
    }
}

type Answer = Result<(), Refusal>;

/// Links one function. Its import has the type of the catalog; `context` is where
/// the store keeps what the instance has.
pub(crate) fn link<T: 'static>(
    linker: &mut Linker<T>,
    function: &'static Function,
    context: fn(&mut T) -> &mut Context,
) -> wasmtime::Result<()> {
    let ty = func_type(linker.engine(), function.ty);
    let role = function.role;
    linker.func_new(
        MODULE,
        function.name,
        ty,
        move |mut caller, params, results| {
            let errno = match call(role, (&mut caller, context), &Params(params)) {
                Ok(()) => 0,
                Err(Refusal::Errno(errno)) => errno as i32,
                Err(Refusal::End(error)) => return Err(error),
            };
            if let Some(result) = results.first_mut() {
                *result = Val::I32(errno);
            }
            Ok(())
        },
    )?;
    Ok(())
}

/// A type as the catalog writes it, `(i32, i64) -> i32`.
fn func_type(engine: &Engine, text: &str) -> FuncType {
    let values = |text: &str| -> Vec<ValType> {
        text.trim_matches(['(', ')'])
            .split(", ")
            .filter(|name| !name.is_empty())
            .map(|name| match name {
                "i64" => ValType::I64,
                _ => ValType::I32,
            })
            .collect()
    };
    let (params, results) = text.split_once(" -> ").unwrap_or((text, ""));
    FuncType::new(engine, values(params), values(results))
}

/// Arguments by position; the linker has checked their number and types.
struct Params<'a>(&'a [Val]);

impl Params<'_> {
    fn int(&self, index: usize) -> u32 {
        let value = self.0.get(index).and_then(Val::i32);
        value.unwrap_or_default().cast_unsigned()
    }
}

fn call<T>(
    role: Role,
    (caller, context): (&mut Caller<'_, T>, fn(&mut T) -> &mut Context),
    params: &Params<'_>,
) -> Answer {
    match role {
        // Those that need no memory, which a start function may lack.
        Role::Yield | Role::Args | Role::Environ => return Ok(()),
        Role::Exit => return Err(Ended::Exit(params.int(0)).into()),
        Role::Raise => return Err(Ended::Raised(params.int(0)).into()),
        Role::NoFile | Role::NoDirectory | Role::NoSocket => {
            return Err(Errno::BadDescriptor.into());
        }
        _ => {}
    }
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return Err(Errno::Fault.into());
    };
    let (bytes, host) = memory.data_and_store_mut(caller);
    let host = context(host);
    let mut guest = GuestMemory { bytes };
    let first = params.int(0);
    match role {
        Role::ArgsSizes | Role::EnvironSizes => {
            guest.put(first, &[0; 4])?;
            guest.put(params.int(1), &[0; 4])
        }
        Role::ClockRes => guest
            .clock(first)
            .and_then(|_clock| guest.put(params.int(1), &1_000_u64.to_le_bytes())),
        Role::ClockTime => {
            let time = nanos(guest.clock(first)?.read(host));
            guest.put(params.int(2), &time.to_le_bytes())
        }
        Role::Random => guest.random(first, params.int(1), host),
        Role::Poll => poll(&mut guest, params, host),
        Role::Write => write(&mut guest, params, host),
        _ => standard_stream(role, &mut guest, params),
    }
}

/// What can be asked about descriptors 0, 1 and 2; there are no others.
fn standard_stream(role: Role, guest: &mut GuestMemory<'_>, params: &Params<'_>) -> Answer {
    /// A terminal, so that libraries write lines as they come.
    const CHARACTER_DEVICE: u8 = 2;
    const MAY_READ: u64 = 1 << 1;
    const MAY_WRITE: u64 = 1 << 6;
    let descriptor = params.int(0);
    if descriptor > 2 {
        return Err(Errno::BadDescriptor.into());
    }
    match role {
        Role::Read if descriptor == 0 => guest.put(params.int(3), &[0; 4]),
        Role::Close | Role::FdStatFlags => Ok(()),
        Role::FdStat => {
            let mut stat = [0; 24];
            stat[0] = CHARACTER_DEVICE;
            let rights = if descriptor == 0 { MAY_READ } else { MAY_WRITE };
            stat[8..16].copy_from_slice(&rights.to_le_bytes());
            guest.put(params.int(1), &stat)
        }
        Role::FileStat => {
            let mut stat = [0; 64];
            stat[16] = CHARACTER_DEVICE;
            guest.put(params.int(1), &stat)
        }
        Role::Seek | Role::Tell => Err(Errno::NotSeekable.into()),
        _ => Err(Errno::BadDescriptor.into()),
    }
}

fn write(guest: &mut GuestMemory<'_>, params: &Params<'_>, host: &mut Context) -> Answer {
    let stream = match params.int(0) {
        1 => Stream::Output,
        2 => Stream::Error,
        _ => return Err(Errno::BadDescriptor.into()),
    };
    let (pieces, count) = (params.int(1), params.int(2));
    if count > MAX_PIECES {
        return Err(Errno::Invalid.into());
    }
    let mut written = 0_u32;
    for index in 0..count {
        let at = pieces.checked_add(index * 8).ok_or(Errno::Fault)?;
        let (ptr, len) = (guest.int(at)?, guest.int(at.saturating_add(4))?);
        let bytes = guest.slice(ptr, len)?;
        written = written.checked_add(len).ok_or(Errno::Invalid)?;
        host.output.write(stream, bytes);
    }
    guest.put(params.int(3), &written.to_le_bytes())
}

/// What a subscription waits for.
enum Awaited {
    /// A time from now.
    Time(Duration),
    /// A descriptor: ready at once, or none of ours.
    Descriptor(u32),
}

/// Answers the descriptors that are ready, else the first sleep to be over.
fn poll(guest: &mut GuestMemory<'_>, params: &Params<'_>, host: &mut Context) -> Answer {
    let (subscriptions, events, count) = (params.int(0), params.int(1), params.int(2));
    if count == 0 || count > MAX_PIECES {
        return Err(Errno::Invalid.into());
    }
    let mut awaited = Vec::new();
    for index in 0..count {
        let at = subscriptions.checked_add(index * 48).ok_or(Errno::Fault)?;
        awaited.push(guest.subscription(at, host)?);
    }
    let shortest = awaited.iter().filter_map(|(.., awaited)| match awaited {
        Awaited::Time(time) => Some(*time),
        Awaited::Descriptor(_) => None,
    });
    let is_ready = |awaited: &Awaited| matches!(awaited, Awaited::Descriptor(_));
    let ready_after = if awaited.iter().any(|(.., awaited)| is_ready(awaited)) {
        None
    } else {
        shortest.min()
    };
    if let Some(time) = ready_after {
        host.sleep(time).map_err(|TooLong| Ended::Slept(time))?;
    }
    let mut answered = 0_u32;
    for (userdata, kind, awaited) in &awaited {
        let errno = match (awaited, ready_after) {
            (Awaited::Time(time), Some(slept)) if *time <= slept => 0,
            (Awaited::Time(_), _) => continue,
            (Awaited::Descriptor(descriptor), _) if *descriptor <= 2 => 0,
            (Awaited::Descriptor(_), _) => Errno::BadDescriptor as u16,
        };
        let mut event = [0; 32];
        event[..8].copy_from_slice(userdata);
        event[8..10].copy_from_slice(&errno.to_le_bytes());
        event[10] = *kind;
        let at = events.checked_add(answered * 32).ok_or(Errno::Fault)?;
        guest.put(at, &event)?;
        answered += 1;
    }
    guest.put(params.int(3), &answered.to_le_bytes())
}

#[derive(Clone, Copy)]
enum Clock {
    Wall,
    Monotonic,
}

impl Clock {
    fn read(self, host: &mut Context) -> Duration {
        match self {
            Self::Wall => host.wall_clock(),
            Self::Monotonic => host.monotonic(),
        }
    }
}

/// Guest memory; every range is checked before it is used.
struct GuestMemory<'a> {
    bytes: &'a mut [u8],
}

impl GuestMemory<'_> {
    fn slice(&self, ptr: u32, len: u32) -> Result<&[u8], Errno> {
        let start = usize::try_from(ptr).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(len).ok()?));
        start
            .zip(end)
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or(Errno::Fault)
    }

    fn slice_mut(&mut self, ptr: u32, len: u32) -> Result<&mut [u8], Errno> {
        let range = self.slice(ptr, len).map(<[u8]>::len)?;
        let start = usize::try_from(ptr).unwrap_or(usize::MAX);
        self.bytes
            .get_mut(start..)
            .and_then(|bytes| bytes.get_mut(..range))
            .ok_or(Errno::Fault)
    }

    fn int(&self, ptr: u32) -> Result<u32, Errno> {
        let bytes = self.slice(ptr, 4)?.try_into().map_err(|_len| Errno::Fault);
        bytes.map(u32::from_le_bytes)
    }

    fn long(&self, ptr: u32) -> Result<u64, Errno> {
        let bytes = self.slice(ptr, 8)?.try_into().map_err(|_len| Errno::Fault);
        bytes.map(u64::from_le_bytes)
    }

    fn put(&mut self, ptr: u32, value: &[u8]) -> Answer {
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.slice_mut(ptr, len)?.copy_from_slice(value);
        Ok(())
    }

    /// The wall clock and the monotonic one; there are no others.
    fn clock(&self, id: u32) -> Result<Clock, Refusal> {
        match id {
            0 => Ok(Clock::Wall),
            1 => Ok(Clock::Monotonic),
            _ => Err(Errno::Invalid.into()),
        }
    }

    fn random(&mut self, ptr: u32, len: u32, host: &mut Context) -> Answer {
        if len > MAX_RANDOM_BYTES {
            return Err(Errno::Invalid.into());
        }
        if host.fill_random(self.slice_mut(ptr, len)?) {
            Ok(())
        } else {
            Err(Errno::Io.into())
        }
    }

    /// One of 48 bytes: user data, what is awaited, and its particulars.
    fn subscription(&self, at: u32, host: &mut Context) -> Result<([u8; 8], u8, Awaited), Refusal> {
        const CLOCK: u8 = 0;
        const READ: u8 = 1;
        const WRITE: u8 = 2;
        const ABSOLUTE: u32 = 1;
        let userdata = self.long(at)?.to_le_bytes();
        // The range to the end, so that sums below do not wrap.
        self.slice(at, 48)?;
        let kind = self.slice(at + 8, 1)?.first().copied().unwrap_or(u8::MAX);
        let awaited = match kind {
            CLOCK => {
                let clock = self.clock(self.int(at + 16)?)?;
                let time = Duration::from_nanos(self.long(at + 24)?);
                let flags = self.int(at + 40)? & 0xffff;
                Awaited::Time(if flags & ABSOLUTE == 0 {
                    time
                } else {
                    time.saturating_sub(clock.read(host))
                })
            }
            READ | WRITE => Awaited::Descriptor(self.int(at + 16)?),
            _ => return Err(Errno::Invalid.into()),
        };
        Ok((userdata, kind, awaited))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::catalog::FUNCTIONS;
    use super::*;

    #[test]
    fn each_type_of_the_catalog_can_be_read() {
        let config = crate::guest::engine::config(crate::guest::engine::EngineSettings::default());
        let engine = Engine::new(&config).unwrap();
        for function in &FUNCTIONS {
            let ty = func_type(&engine, function.ty);
            let shown = |types: Vec<ValType>| {
                let names: Vec<String> = types.iter().map(ToString::to_string).collect();
                format!("({})", names.join(", "))
            };
            let results = match ty.results().next() {
                Some(result) => format!(" -> {result}"),
                None => String::new(),
            };
            assert_eq!(
                format!("{}{results}", shown(ty.params().collect())),
                function.ty
            );
        }
    }
}
