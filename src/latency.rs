//! A distribution of times, kept as an HDR histogram; and when what is timed
//! is due.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

/// Every value is kept to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;
/// An hour: a longer time counts as this.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// How long something took, many times over.
///
/// In JSON: the count, the percentiles, and the histogram itself as pairs of
/// the highest value of a bucket and how many values it holds, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// Nothing measured yet.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the histogram takes one to five digits")]
    pub fn new() -> Self {
        Self(
            // Grows with what is recorded: most never see a second.
            Histogram::new(SIGNIFICANT_DIGITS).expect("so many digits"),
        )
    }

    /// Adds one time.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // There is room for what is no longer than this.
        let _ = self.0.record(nanos.min(LONGEST_NS));
    }

    /// Adds all of another's.
    pub fn add(&mut self, other: &Self) {
        // Both grow as they must, so it cannot fail.
        let _ = self.0.add(&other.0);
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that this share of them, 0 to 1, took at most.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// The shortest.
    #[must_use]
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e9)
    }

    /// Times and how many of them, growing; each bucket by its highest value.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut out = serializer.serialize_struct("Latency", 9)?;
        out.serialize_field("count", &self.count())?;
        out.serialize_field("min_ns", &nanos(self.min()))?;
        out.serialize_field("mean_ns", &nanos(self.mean()))?;
        for (name, quantile) in [
            ("p50_ns", 0.5),
            ("p90_ns", 0.9),
            ("p99_ns", 0.99),
            ("p99_9_ns", 0.999),
        ] {
            out.serialize_field(name, &nanos(self.at(quantile)))?;
        }
        out.serialize_field("max_ns", &nanos(self.max()))?;
        out.serialize_field("buckets", &self.buckets().collect::<Vec<_>>())?;
        out.end()
    }
}

/// Before an event is due its caller stops sleeping and watches the clock: a
/// sleep ends some 60 µs late.
const WATCH: Duration = Duration::from_micros(100);

/// When each of many events is due, whoever sends it.
pub(crate) struct Schedule {
    began: Instant,
    /// Events for each second.
    rate: f64,
    /// Events of the warm-up, and of all.
    unmeasured: u64,
    all: u64,
    next: Mutex<u64>,
}

/// An event that is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which one it is, from 0.
    pub(crate) number: usize,
    /// Whether the warm-up is over.
    pub(crate) is_measured: bool,
    /// How long ago it was due.
    pub(crate) late: Duration,
}

impl Schedule {
    /// Begins in a moment. The rate is more than 0.
    pub(crate) fn new(rate: f64, warm_up: Duration, measured: Duration) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "times and rates are positive and bounded"
        )]
        let events = |time: Duration| (time.as_secs_f64() * rate).ceil() as u64;
        Self {
            began: Instant::now() + Duration::from_millis(5),
            rate,
            unmeasured: events(warm_up),
            all: events(warm_up + measured),
            next: Mutex::new(0),
        }
    }

    /// Waits for the next event that is due and is nobody's; none after the
    /// last. One caller at a time waits for its event: as many clocks watched
    /// as there are callers would keep the processor from what is timed.
    pub(crate) fn next(&self) -> Option<Due> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        if number >= self.all {
            return None;
        }
        *next += 1;
        let due = self.due(number);
        sleep_until(due);
        // Where there is time the next caller is woken before the event is
        // due, and not when it is to be sent.
        let held = (self.rate * WATCH.as_secs_f64() >= 1.0).then_some(next);
        while Instant::now() < due {
            std::thread::yield_now();
        }
        drop(held);
        Some(Due {
            number: usize::try_from(number).unwrap_or(0),
            is_measured: number >= self.unmeasured,
            late: due.elapsed(),
        })
    }

    /// How long the measured events took, the last of which was answered then:
    /// no less than they were due in.
    pub(crate) fn measured_time(&self, last: Option<Instant>) -> Duration {
        let from = self.due(self.unmeasured);
        let due = self.due(self.all).saturating_duration_since(from);
        last.map_or(due, |last| last.saturating_duration_since(from).max(due))
    }

    fn due(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// Sleeps until shortly before; from then on the clock is to be watched.
fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > WATCH * 2 {
        std::thread::sleep(left - WATCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::new();
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let near = |found: Duration, micros: f64| {
            let off = found.as_secs_f64() * 1e6 / micros;
            assert!((0.998..1.002).contains(&off), "{found:?} for {micros} µs");
        };
        near(latency.at(0.5), 500.0);
        near(latency.at(0.99), 990.0);
        near(latency.max(), 1000.0);
        near(latency.mean(), 500.5);
        assert_eq!(latency.buckets().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    #[test]
    fn every_event_is_due_once_and_none_too_early() {
        let schedule = Schedule::new(2000.0, Duration::from_millis(2), Duration::from_millis(10));
        let began = schedule.began;
        let found = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while let Some(due) = schedule.next() {
                        let number = u32::try_from(due.number).unwrap();
                        let at = began + Duration::from_micros(500) * number;
                        assert!(Instant::now() >= at);
                        found.lock().unwrap().push((due.number, due.is_measured));
                    }
                });
            }
        });
        let due = Duration::from_millis(10);
        assert_eq!(schedule.measured_time(None), due);
        assert_eq!(schedule.measured_time(Some(began)), due);
        let late = began + Duration::from_millis(2) + due * 3;
        assert_eq!(schedule.measured_time(Some(late)), due * 3);
        let mut found = found.into_inner().unwrap();
        found.sort_unstable();
        let expected: Vec<(usize, bool)> = (0..24).map(|number| (number, number >= 4)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn no_time_and_too_long_a_time_are_kept_too() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.count(), 2);
        assert!(latency.max() >= Duration::from_secs(3600));
    }
}
