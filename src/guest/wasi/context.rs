//! What one instance has of WASI: clocks, random bytes, and where its output
//! goes. Nothing here waits.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::guest::deadline::{Deadline, TooLong};
use crate::limits::Wasi;
use crate::log_limiter::LogLimiter;

use super::output::Output;

/// The time at the beginning of a start, and of a call that has no time of its own,
/// while clocks are fixed: 2024-01-01T00:00:00Z in seconds.
pub(crate) const FIXED_TIME: Duration = Duration::from_secs(1_704_067_200);
/// How far a fixed clock moves with each reading, so that no guest divides by
/// a time that did not pass.
const STEP: Duration = Duration::from_micros(1);
/// Monotonic clocks begin here; Go takes 0 for a broken clock.
const MONOTONIC_START: Duration = Duration::from_secs(1);
/// Any constant; the random bytes of every call while they are fixed.
const SEED: u64 = 0x05ee_d0fa_9ee5;

/// What one instance has of WASI.
pub(crate) struct Context {
    wasi: Wasi,
    pub(crate) output: Output,
    made: Instant,
    /// The time that the next call has of its own.
    next: Option<SystemTime>,
    /// Where a fixed wall clock began this call, since 1970.
    began: Duration,
    /// Slept, and by fixed clocks stepped, since the call began.
    moved_in_call: Duration,
    /// The same since the instance was made; by fixed clocks since the call began,
    /// after what the start moved.
    moved: Duration,
    stage: Stage,
    random: u64,
    /// When the call has to be over; the guest's sleeps bring it nearer.
    pub(crate) deadline: Deadline,
}

/// How far an instance has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Made,
    Starting,
    /// Its fixed clocks begin every call so far after the start began.
    Called {
        from: Duration,
    },
}

impl Context {
    pub(crate) fn new(wasi: Wasi, log_limiter: Arc<LogLimiter>, deadline: Deadline) -> Self {
        Self {
            wasi,
            output: Output::new(log_limiter),
            made: Instant::now(),
            next: None,
            began: FIXED_TIME,
            moved_in_call: Duration::ZERO,
            moved: Duration::ZERO,
            stage: Stage::Made,
            random: SEED,
            deadline,
        }
    }

    /// The next call, and no other, begins at this time if clocks are fixed.
    pub(crate) const fn begin_next_at(&mut self, time: Option<SystemTime>) {
        self.next = time;
    }

    /// A call or a start begins. Equal calls are to see equal clocks and
    /// random bytes, whatever was called before.
    pub(crate) fn begin_call(&mut self) {
        self.stage = match self.stage {
            Stage::Made => Stage::Starting,
            Stage::Starting => Stage::Called { from: self.moved },
            called @ Stage::Called { .. } => called,
        };
        if let (Stage::Called { from }, Wasi::Fixed | Wasi::None) = (self.stage, self.wasi) {
            self.moved = from;
        }
        self.began = match self.next.take() {
            Some(time) => since_1970(time),
            None => FIXED_TIME,
        };
        self.moved_in_call = Duration::ZERO;
        self.random = SEED;
        self.output.begin_call();
    }

    /// As if the guest had slept: its clocks go forward and its deadline comes
    /// nearer. Nobody waits, so no thread is held and local runs answer as
    /// production does.
    pub(super) fn sleep(&mut self, time: Duration) -> Result<(), TooLong> {
        self.deadline.sleep(time)?;
        self.skip(time);
        Ok(())
    }

    fn skip(&mut self, time: Duration) {
        self.moved_in_call = self.moved_in_call.saturating_add(time);
        self.moved = self.moved.saturating_add(time);
    }

    /// The wall clock, since 1970.
    pub(crate) fn wall_clock(&mut self) -> Duration {
        let now = match self.wasi {
            Wasi::Real => since_1970(SystemTime::now()),
            Wasi::Fixed | Wasi::None => self.began,
        };
        let now = now.saturating_add(self.moved_in_call);
        self.step();
        now
    }

    /// The clock that never goes back, from some moment on. A fixed one goes back
    /// where a call begins, and not behind the start.
    pub(crate) fn monotonic(&mut self) -> Duration {
        let now = match self.wasi {
            Wasi::Real => self.made.elapsed(),
            Wasi::Fixed | Wasi::None => Duration::ZERO,
        };
        let now = MONOTONIC_START
            .saturating_add(now)
            .saturating_add(self.moved);
        self.step();
        now
    }

    fn step(&mut self) {
        if self.wasi != Wasi::Real {
            self.skip(STEP);
        }
    }

    /// Fills a buffer; false where the host has no random bytes.
    pub(crate) fn fill_random(&mut self, bytes: &mut [u8]) -> bool {
        if self.wasi == Wasi::Real {
            return getrandom::fill(bytes).is_ok();
        }
        for chunk in bytes.chunks_mut(8) {
            let number = self.next_random().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        true
    }

    /// The `SplitMix64` generator: every 64-bit state is followed by another.
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DeadlineClock;

    fn context(wasi: Wasi) -> Context {
        let deadline = Deadline::new(DeadlineClock::Wall, Duration::MAX);
        Context::new(wasi, Arc::new(LogLimiter::new()), deadline)
    }

    #[test]
    fn fixed_clocks_and_bytes_repeat_with_every_call() {
        let mut context = context(Wasi::Fixed);
        let mut call = || {
            context.begin_call();
            let mut bytes = [0; 13];
            assert!(context.fill_random(&mut bytes));
            let first = context.wall_clock();
            context.skip(Duration::from_millis(5));
            (
                bytes,
                first,
                context.wall_clock() - first,
                context.monotonic(),
            )
        };
        // The first is the start, which has a time of its own.
        let start = call();
        let first = call();
        assert!(start.3 < first.3);
        assert_eq!(first.1, FIXED_TIME);
        assert_eq!(first.2, Duration::from_micros(5001));
        assert_ne!(first.0, [0; 13]);
        assert_eq!(first, call());
    }

    #[test]
    fn a_call_begins_at_its_own_time_and_the_next_one_does_not() {
        let own = Duration::from_secs(1_900_000_000);
        for (wasi, is_own) in [(Wasi::Fixed, true), (Wasi::Real, false)] {
            let mut context = context(wasi);
            let mut call = |time| {
                context.begin_next_at(time);
                context.begin_call();
                (context.wall_clock(), context.monotonic())
            };
            call(None);
            let timed = call(Some(UNIX_EPOCH + own));
            let next = call(None);
            assert_eq!(timed.0 == own, is_own);
            assert_ne!(next.0, own);
            assert_eq!(timed.1 == next.1, is_own);
        }
    }

    #[test]
    fn monotonic_time_never_goes_back() {
        for (wasi, calls) in [(Wasi::Fixed, 2), (Wasi::Real, 10)] {
            let mut context = context(wasi);
            let mut before = Duration::ZERO;
            for reading in 0..calls * 10 {
                if reading % 10 == 0 {
                    context.begin_call();
                    context.skip(Duration::from_millis(1));
                }
                let now = context.monotonic();
                assert!(now >= before && now >= MONOTONIC_START);
                before = now;
            }
        }
    }

    #[test]
    fn real_bytes_differ() {
        let mut context = context(Wasi::Real);
        let mut bytes = [[0; 16]; 2];
        for bytes in &mut bytes {
            context.begin_call();
            assert!(context.fill_random(bytes));
        }
        assert_ne!(bytes[0], bytes[1]);
    }
}
