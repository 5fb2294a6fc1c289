//! Whether the guest does its work: looks at the faults of the last minute,
//! once a second, and reports it if more than half of the events fault.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::metrics::{Totals, most_often};

const LOOK: Duration = Duration::from_secs(1);
/// Looks that are remembered: a minute of them.
const LOOKS: usize = 60;
/// Fewer faults than this say nothing yet.
const MIN_FAULTS: u64 = 10;

/// Looks until it is dropped.
pub(crate) async fn watch_faults(shared: Arc<Shared>) {
    let mut looks = VecDeque::from([shared.live.metrics().totals()]);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = shared.live.metrics().totals();
        let verdict = looks.front().and_then(|then| judge(then, &now));
        shared.live.say_faulty(verdict);
        looks.push_back(now);
        if looks.len() > LOOKS {
            looks.pop_front();
        }
    }
}

/// What is wrong, if anything is. Without counts, so that it stays the same
/// for as long as it is so.
fn judge(then: &Totals, now: &Totals) -> Option<String> {
    let events = now.events - then.events;
    let faults = std::array::from_fn(|index| now.faults[index] - then.faults[index]);
    let all: u64 = faults.iter().sum();
    (all >= MIN_FAULTS && all * 2 > events).then(|| {
        format!(
            "more than half of the last minute's events faulted, most often: {}",
            most_often(&faults).name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::metrics::FaultKind;
    use super::*;

    #[test]
    fn health_follows_what_most_events_come_to() {
        let totals = |events, trap, overload| {
            let mut totals = Totals {
                events,
                ..Totals::default()
            };
            totals.faults[FaultKind::Trap as usize] = trap;
            totals.faults[FaultKind::Overload as usize] = overload;
            totals
        };
        let then = totals(1_000, 400, 100);
        assert_eq!(judge(&then, &totals(1_018, 409, 100)), None);
        assert_eq!(judge(&then, &totals(1_020, 410, 100)), None);
        let verdict = judge(&then, &totals(1_019, 404, 106)).unwrap();
        assert!(verdict.ends_with(": overload"), "{verdict}");
        let verdict = judge(&then, &totals(1_010, 410, 100)).unwrap();
        assert!(verdict.ends_with(": trap"), "{verdict}");
    }
}
