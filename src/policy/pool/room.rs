//! Whether an instance has grown so much that it is replaced now, before a leaking
//! guest meets its limit in the middle of a call.
//!
//! What counts is growth since its start: a module may need nearly all it may
//! have from the beginning. And not all growth is a leak: a guest that grows far
//! in its first calls and then lives on what it has would be replaced after each
//! of them. So a few instances are kept on trial; what one of them is seen to get
//! along with is enough for all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::guest::Instance;
use crate::limits::RECYCLE_MEMORY_PERCENT;

/// Calls after which an instance is kept that would be replaced, to see whether
/// it goes on growing.
const TRIALS: u32 = 3;

/// What is known of the memory of one module's instances.
pub(crate) struct Room {
    limit: u64,
    /// The most that an instance has been seen to get along with.
    enough: AtomicU64,
    trials: AtomicU32,
}

/// An instance's memory after a call, in bytes.
#[derive(Debug, Clone, Copy)]
struct InstanceMemory {
    at_start: u64,
    now: u64,
    /// What the call added.
    grown: u64,
}

impl Room {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            limit,
            enough: AtomicU64::new(0),
            trials: AtomicU32::new(TRIALS),
        }
    }

    /// Whether an instance may serve a further call.
    pub(crate) fn has_some_for(&self, instance: &Instance) -> bool {
        self.has_some(InstanceMemory {
            at_start: instance.memory_at_start(),
            now: instance.memory_bytes(),
            grown: instance.grown_bytes(),
        })
    }

    fn has_some(&self, memory: InstanceMemory) -> bool {
        let grown = memory.now.saturating_sub(memory.at_start);
        let room = self.limit.saturating_sub(memory.at_start);
        if grown <= room / 100 * RECYCLE_MEMORY_PERCENT {
            return true;
        }
        if memory.grown == 0 {
            self.enough.fetch_max(memory.now, Ordering::Relaxed);
            return true;
        }
        if memory.now <= self.enough.load(Ordering::Relaxed) {
            return true;
        }
        // A second step of this size would not fit: that is a leak, as a rule.
        let is_first = memory.grown == grown;
        let fits_again = memory.now.saturating_add(memory.grown) <= self.limit;
        let left = |trials: u32| trials.checked_sub(1);
        (is_first || fits_again)
            && self
                .trials
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// How many instances `calls` take that grow as `grows` says, by the number
    /// of the call on its instance, beginning with 1; and how many of them met
    /// the limit of 64 MiB.
    fn instances(calls: u32, at_start: u64, grows: impl Fn(u32) -> u64) -> (u32, u32) {
        let room = Room::new(64 * MIB);
        let (mut made, mut met, mut now, mut call) = (1, 0, at_start, 0);
        for _ in 0..calls {
            call += 1;
            let grown = grows(call);
            let memory = InstanceMemory {
                at_start,
                now: now + grown,
                grown,
            };
            let is_over = memory.now > 64 * MIB;
            met += u32::from(is_over);
            if is_over || !room.has_some(memory) {
                (made, now, call) = (made + 1, at_start, 0);
            } else {
                now = memory.now;
            }
        }
        (made, met)
    }

    #[test]
    fn what_is_there_from_the_start_is_no_growth() {
        for at_start in [1, 48, 49, 50, 60, 63, 64] {
            assert_eq!(instances(200, at_start * MIB, |_| 0), (1, 0), "{at_start}");
        }
    }

    #[test]
    fn an_instance_that_grows_at_first_and_then_no_more_is_kept() {
        for at_start in [1, 40, 50, 60, 63] {
            let room = 64 * MIB - at_start * MIB;
            for first in [room / 10, room / 2, room * 8 / 10, room] {
                let grows = |call| if call == 1 { first } else { 0 };
                assert_eq!(instances(200, at_start * MIB, grows), (1, 0), "{at_start}");
            }
            let steps = |call| if call <= 9 { room / 10 } else { 0 };
            assert_eq!(instances(200, at_start * MIB, steps), (1, 0), "{at_start}");
        }
    }

    #[test]
    fn a_leak_never_meets_the_limit() {
        for at_start in [1, 40, 60] {
            let room = 64 * MIB - at_start * MIB;
            for part in [3, 4, 5, 10, 100] {
                let (made, met) = instances(1000, at_start * MIB, |_| room / part);
                assert!(made > 5, "{part}: {made}");
                assert_eq!(met, 0, "{part}");
            }
        }
    }

    /// One that takes all the room in a single call is told from one that then
    /// has enough only by trying.
    #[test]
    fn a_leak_of_all_the_room_is_tried_a_few_times() {
        let (_, met) = instances(1000, MIB, |_| 50 * MIB);
        assert!(met <= TRIALS, "{met}");
    }
}
