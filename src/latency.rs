//! A distribution of times, kept as an HDR histogram.

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

/// Sleeps until shortly before, and then watches the clock.
pub(crate) fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > WATCH * 2 {
        std::thread::sleep(left - WATCH);
    }
    while Instant::now() < due {
        std::thread::yield_now();
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
    fn no_time_and_too_long_a_time_are_kept_too() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        assert_eq!(latency.count(), 2);
        assert!(latency.max() >= Duration::from_secs(3600));
    }
}
