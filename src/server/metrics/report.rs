//! The metrics as the v2 protocol reports them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Family, Sample, Value};
use crate::protocol::wire::control::{Bucket, Histogram, Metric, MetricsReport};

/// The message; one of these a peer gets in each `interval`.
pub(crate) fn report<'a>(
    agent_id: &'a str,
    families: &'a [Family],
    interval: Duration,
    now_ms: u64,
) -> MetricsReport<'a> {
    let mut report = MetricsReport {
        agent_id,
        timestamp_ms: now_ms,
        interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        counters: Vec::new(),
        gauges: Vec::new(),
        histograms: Vec::new(),
    };
    for family in families {
        for sample in &family.samples {
            add(family, sample, &mut report);
        }
    }
    report
}

fn add<'a>(family: &'a Family, sample: &'a Sample, report: &mut MetricsReport<'a>) {
    let (name, help) = (family.name, Some(family.help));
    let labels: BTreeMap<&str, &str> = sample
        .labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    match &sample.value {
        Value::Count(value) => report.counters.push(Metric {
            name,
            help,
            labels,
            value: *value,
        }),
        Value::Gauge(value) | Value::Total(value) => report.gauges.push(Metric {
            name,
            help,
            labels,
            value: *value,
        }),
        Value::Histogram { sum, buckets } => report.histograms.push(Histogram {
            name,
            help,
            labels,
            sum: *sum,
            count: buckets.last().map_or(0, |(_, count)| *count),
            buckets: buckets
                .iter()
                .map(|(le, count)| Bucket {
                    le: *le,
                    count: *count,
                })
                .collect(),
        }),
    }
}
