//! A histogram that adds up exactly and reads well in JSON.
//!
//! Values are kept to three significant digits; count, sum, least and greatest
//! are exact.

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts by value.
#[derive(Clone)]
pub struct Histogram {
    counts: hdrhistogram::Histogram<u64>,
    sum: u64,
    min: u64,
    max: u64,
}

/// The percentiles that reports show.
pub(crate) const PERCENTILES: [(f64, &str); 4] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9")];

impl Default for Histogram {
    #[expect(
        clippy::expect_used,
        reason = "three digits are a precision the library has"
    )]
    fn default() -> Self {
        Self {
            counts: hdrhistogram::Histogram::new(3).expect("three significant digits"),
            sum: 0,
            min: u64::MAX,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        // It resizes itself for any value, so recording cannot fail.
        let _ = self.counts.record(value);
        self.sum = self.sum.saturating_add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds another's counts.
    pub fn absorb(&mut self, other: &Self) {
        // Both resize themselves, so adding cannot fail for want of room.
        let _ = self.counts.add(&other.counts);
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The least, 0 where there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        if self.counts.is_empty() { 0 } else { self.min }
    }

    /// The greatest, 0 where there is none.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// A percentile, from 0 to 100.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> u64 {
        if self.counts.is_empty() {
            return 0;
        }
        self.counts
            .value_at_percentile(percent)
            .clamp(self.min, self.max)
    }

    /// Values and how often each came, in order.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.counts
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
            && self.min() == other.min()
            && self.max == other.max
            && self.buckets().eq(other.buckets())
    }
}

impl Eq for Histogram {}

impl fmt::Debug for Histogram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum", &self.sum)
            .finish_non_exhaustive()
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut out = out.serialize_struct("Histogram", 9)?;
        out.serialize_field("count", &self.count())?;
        out.serialize_field("sum", &self.sum)?;
        out.serialize_field("min", &self.min())?;
        out.serialize_field("max", &self.max)?;
        for (percent, name) in PERCENTILES {
            out.serialize_field(name, &self.percentile(percent))?;
        }
        let buckets: Vec<String> = self
            .buckets()
            .map(|(value, count)| format!("{value}x{count}"))
            .collect();
        out.serialize_field("buckets", &buckets.join(" "))?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            count: u64,
            sum: u64,
            min: u64,
            max: u64,
            buckets: String,
        }
        let parts = Parts::deserialize(reader)?;
        let mut histogram = Self::default();
        for bucket in parts.buckets.split_ascii_whitespace() {
            let (value, count) = bucket
                .split_once('x')
                .and_then(|(value, count)| Some((value.parse().ok()?, count.parse().ok()?)))
                .ok_or_else(|| {
                    D::Error::custom(format!("expected a bucket VALUExCOUNT, found {bucket:?}"))
                })?;
            histogram
                .counts
                .record_n(value, count)
                .map_err(|error| D::Error::custom(format!("bucket {bucket:?}: {error}")))?;
        }
        if histogram.count() != parts.count {
            return Err(D::Error::custom(format!(
                "expected buckets of {} values together, found {}",
                parts.count,
                histogram.count()
            )));
        }
        histogram.sum = parts.sum;
        if parts.count > 0 {
            histogram.min = parts.min;
            histogram.max = parts.max;
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(values in prop::collection::vec(any::<u32>(), 0..200), cut in 0_usize..200) {
            let mut whole = Histogram::default();
            let mut parts = [Histogram::default(), Histogram::default()];
            for (index, value) in values.iter().enumerate() {
                whole.record(u64::from(*value));
                parts[usize::from(index < cut)].record(u64::from(*value));
            }
            let [mut first, second] = parts;
            first.absorb(&second);
            prop_assert_eq!(&first, &whole);
            let text = serde_json::to_string(&whole).unwrap();
            let again: Histogram = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::to_string(&again).unwrap(), text);
        }
    }
}
