//! The deadline of one call, by the wall clock or by the processor time of the call.
//!
//! In: when the call began, when it was interrupted, and what the guest slept. Out:
//! whether its time is over. A busy machine takes the processor away from a guest:
//! by processor time that is not the guest's fault, and a bound by the wall clock
//! ends the call all the same. Reading a thread's processor time is a system call,
//! so it is read once in [`NEAR`] and where a deadline may be over; with the wall clock
//! only for calls so long that they are interrupted.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::limits::{DeadlineClock, after};

/// How often a running guest's deadline is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How old a reading of the processor time may be at the start of a call. All that
/// passed since then counts as spent before the call: the guest may get this much
/// more, and never less.
const NEAR: Duration = Duration::from_micros(100);
/// By processor time a call may take so many times its deadline by the wall clock,
const FAR_DEADLINES: u32 = 20;
/// and always at least this.
const FAR: Duration = Duration::from_secs(2);

thread_local! {
    /// This thread's processor time, and when it was read.
    static READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    /// This thread's processor time when the slice that runs on it began; none as long
    /// as nobody needs it.
    static SLICE_BEGAN: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The deadline of one call.
pub(crate) struct Deadline {
    clock: DeadlineClock,
    timeout: Duration,
    /// It cannot be over before this.
    next_look: Instant,
    /// It is over at this, by any clock.
    end: Instant,
    /// Processor time of the slices before this one.
    computed: Duration,
    slept: Duration,
}

/// How long the guest sleeps would be over only after the deadline.
pub(crate) struct TooLong;

impl Deadline {
    pub(crate) fn new(clock: DeadlineClock, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            clock,
            timeout,
            next_look: now,
            end: now,
            computed: Duration::ZERO,
            slept: Duration::ZERO,
        }
    }

    /// A call begins on this thread.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.computed = Duration::ZERO;
        self.slept = Duration::ZERO;
        self.next_look = after(now, self.timeout);
        self.end = match self.clock {
            DeadlineClock::Wall => self.next_look,
            DeadlineClock::Processor => {
                let far = self.timeout.saturating_mul(FAR_DEADLINES).max(FAR);
                after(now, far)
            }
        };
        SLICE_BEGAN.set(match self.clock {
            DeadlineClock::Wall => None,
            DeadlineClock::Processor => Some(recent_processor_time(now)),
        });
    }

    /// When the call ends at the latest.
    pub(crate) const fn end(&self) -> Instant {
        self.end
    }

    /// Whether the call has had its time.
    pub(crate) fn is_over(&mut self, now: Instant) -> bool {
        if SLICE_BEGAN.get().is_none() {
            // The first look comes within a tick, as a rule.
            SLICE_BEGAN.set(Some(processor_time().saturating_sub(TICK)));
        }
        if now < self.next_look {
            return false;
        }
        if now >= self.end {
            return true;
        }
        let left = self.timeout.saturating_sub(self.spent());
        self.next_look = after(now, left);
        left.is_zero()
    }

    /// As if the guest had slept: its deadline comes nearer.
    pub(crate) fn sleep(&mut self, time: Duration) -> Result<(), TooLong> {
        let left = match self.clock {
            DeadlineClock::Wall => self.end.saturating_duration_since(Instant::now()),
            DeadlineClock::Processor => self.timeout.saturating_sub(self.spent()),
        };
        if time >= left {
            return Err(TooLong);
        }
        self.slept += time;
        self.next_look -= time;
        if self.clock == DeadlineClock::Wall {
            self.end -= time;
        }
        Ok(())
    }

    /// The call gives its thread away.
    pub(crate) fn end_slice(&mut self) {
        self.computed = self.computed();
        SLICE_BEGAN.set(None);
    }

    /// The call goes on, on this thread.
    pub(crate) fn begin_slice() {
        SLICE_BEGAN.set(Some(processor_time()));
    }

    /// Processor time of a call that took `time` by the wall clock and ended just
    /// now. Short calls are not looked at: what they computed is no longer than that.
    pub(crate) fn computed_in(&self, time: Duration) -> Duration {
        if self.clock == DeadlineClock::Wall || time <= NEAR {
            return time;
        }
        self.computed().min(time)
    }

    fn computed(&self) -> Duration {
        let slice = SLICE_BEGAN
            .get()
            .map(|began| processor_time().saturating_sub(began));
        self.computed + slice.unwrap_or_default()
    }

    /// What counts towards the deadline by processor time.
    fn spent(&self) -> Duration {
        self.computed().saturating_add(self.slept)
    }

    /// For the fault of a call that was ended just now: how much of its time the
    /// guest had the processor, where that was not all.
    pub(crate) fn excuse(&self) -> String {
        let spent = self.spent();
        let whole = match self.clock {
            DeadlineClock::Wall => self.timeout,
            DeadlineClock::Processor if spent >= self.timeout => return String::new(),
            DeadlineClock::Processor => self.timeout.saturating_mul(FAR_DEADLINES).max(FAR),
        };
        // A deadline is looked at once a tick.
        if spent.saturating_add(whole / 10) >= whole {
            return String::new();
        }
        format!(
            "; it had the processor for {} of {} ms, so the machine was busy with other work",
            spent.as_millis(),
            whole.as_millis()
        )
    }
}

/// The processor time of this thread at the start of a call, at least.
fn recent_processor_time(now: Instant) -> Duration {
    let near = READ.get().filter(|(at, _)| now.duration_since(*at) < NEAR);
    if let Some((at, time)) = near {
        return time + now.duration_since(at);
    }
    let time = processor_time();
    READ.set(Some((now, time)));
    time
}

/// The processor time of this process.
pub(super) fn process_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// The processor time of this thread.
pub(crate) fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(5);

    fn compute_for(time: Duration) {
        let end = processor_time() + time;
        while processor_time() < end {}
    }

    #[test]
    fn a_deadline_counts_what_its_clock_counts() {
        let over = |clock| {
            let mut deadline = Deadline::new(clock, TIME);
            deadline.begin(Instant::now());
            // As if others had the processor.
            std::thread::sleep(2 * TIME);
            let after_waiting = deadline.is_over(Instant::now());
            compute_for(2 * TIME);
            (after_waiting, deadline.is_over(Instant::now()))
        };
        assert_eq!(over(DeadlineClock::Wall), (true, true));
        assert_eq!(over(DeadlineClock::Processor), (false, true));
    }

    #[test]
    fn by_the_wall_clock_a_fault_says_whether_others_had_the_processor() {
        let excuse = |wait: &dyn Fn(Duration)| {
            let mut deadline = Deadline::new(DeadlineClock::Wall, 20 * TIME);
            deadline.begin(Instant::now());
            assert!(!deadline.is_over(Instant::now()));
            wait(21 * TIME);
            assert!(deadline.is_over(Instant::now()));
            deadline.excuse()
        };
        assert!(excuse(&std::thread::sleep).contains("the machine was busy"));
        assert_eq!(excuse(&compute_for), "");
    }

    #[test]
    fn slices_and_sleeps_add_up() {
        let mut deadline = Deadline::new(DeadlineClock::Processor, 4 * TIME);
        deadline.begin(Instant::now());
        compute_for(TIME);
        deadline.end_slice();
        // Another call on the same thread.
        compute_for(10 * TIME);
        Deadline::begin_slice();
        assert!(!deadline.is_over(Instant::now()));
        assert!(deadline.sleep(Duration::from_millis(12)).is_ok());
        assert!(deadline.sleep(TIME).is_err());
        compute_for(TIME);
        assert!(deadline.is_over(Instant::now()));
    }

    #[test]
    fn a_guest_that_never_gets_the_processor_is_ended_all_the_same() {
        let mut deadline = Deadline::new(DeadlineClock::Processor, TIME);
        let began = Instant::now();
        deadline.begin(began);
        assert!(!deadline.is_over(began + FAR / 2));
        assert!(deadline.is_over(began + FAR));
        assert!(deadline.excuse().contains("the machine was busy"));
    }
}
