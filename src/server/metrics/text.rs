//! The metrics in Prometheus' text format, version 0.0.4.

use std::fmt::{self, Write as _};

use super::{Family, Sample, Value};

/// What the text says of itself over HTTP.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The families as text.
#[must_use]
pub(crate) fn text(families: &[Family]) -> String {
    let mut out = String::with_capacity(16 << 10);
    for family in families {
        write_family(family, &mut out);
    }
    out
}

fn write_family(family: &Family, out: &mut String) {
    let Some(first) = family.samples.first() else {
        return;
    };
    let kind = match first.value {
        Value::Count(_) | Value::Total(_) => "counter",
        Value::Gauge(_) => "gauge",
        Value::Histogram { .. } => "histogram",
    };
    let name = family.name;
    // Nothing written to a String fails.
    let _ = writeln!(out, "# HELP {name} {}", family.help);
    let _ = writeln!(out, "# TYPE {name} {kind}");
    for sample in &family.samples {
        write_sample(name, sample, out);
    }
}

fn write_sample(name: &str, sample: &Sample, out: &mut String) {
    let labels = |bound| Labels { sample, bound };
    let all = labels(None);
    // Nothing written to a String fails.
    let _ = match &sample.value {
        Value::Count(value) => writeln!(out, "{name}{all} {value}"),
        Value::Total(value) | Value::Gauge(value) => writeln!(out, "{name}{all} {value}"),
        Value::Histogram { sum, buckets } => {
            for (bound, count) in buckets {
                let _ = writeln!(out, "{name}_bucket{} {count}", labels(Some(*bound)));
            }
            let count = buckets.last().map_or(0, |(_, count)| *count);
            writeln!(out, "{name}_sum{all} {sum}\n{name}_count{all} {count}")
        }
    };
}

/// In braces, if there are any.
struct Labels<'a> {
    sample: &'a Sample,
    /// A bucket's.
    bound: Option<f64>,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (name, value) in &self.sample.labels {
            write!(out, "{before}{name}=\"{}\"", escaped(value))?;
            before = ',';
        }
        match self.bound {
            None if before == '{' => return Ok(()),
            None => {}
            Some(bound) if bound.is_finite() => write!(out, "{before}le=\"{bound}\"")?,
            Some(_) => write!(out, "{before}le=\"+Inf\"")?,
        }
        out.write_str("}")
    }
}

/// Backslash, quote and line feed, as the format asks.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written_as_the_format_asks() {
        let families = [
            Family::new(
                "requests_total",
                "Requests.",
                [Sample::new(Value::Count(3))
                    .with("path", "a\\b\"c\nd")
                    .with("kind", "x")],
            ),
            Family::new("size", "Size.", [Sample::new(Value::Gauge(2.0))]),
            Family::new(
                "wait_seconds",
                "Wait.",
                [Sample::new(Value::Histogram {
                    sum: 0.25,
                    buckets: vec![(0.000_005, 1), (f64::INFINITY, 2)],
                })
                .with("event", "e")],
            ),
            Family::new("nothing", "Nothing.", []),
        ];
        assert_eq!(
            text(&families),
            concat!(
                "# HELP requests_total Requests.\n",
                "# TYPE requests_total counter\n",
                "requests_total{path=\"a\\\\b\\\"c\\nd\",kind=\"x\"} 3\n",
                "# HELP size Size.\n",
                "# TYPE size gauge\n",
                "size 2\n",
                "# HELP wait_seconds Wait.\n",
                "# TYPE wait_seconds histogram\n",
                "wait_seconds_bucket{event=\"e\",le=\"0.000005\"} 1\n",
                "wait_seconds_bucket{event=\"e\",le=\"+Inf\"} 2\n",
                "wait_seconds_sum{event=\"e\"} 0.25\n",
                "wait_seconds_count{event=\"e\"} 2\n",
            )
        );
    }
}
