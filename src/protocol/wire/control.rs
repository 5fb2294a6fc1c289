//! Control messages: everything that is neither an event nor its answer.
//!
//! `state` and `action` are written as integers, because that is all that the
//! released clients read of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The proxy gave an event up. Always JSON; has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Cancel {
    /// The event's.
    pub correlation_id: String,
}

named! {
    /// How the agent is, in the form clients read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum HealthState {
        /// All is well.
        Healthy = 1 => "healthy",
        /// Working, but not as it should.
        Degraded = 2 => "degraded",
        /// Answering what was received, and no more.
        Draining = 3 => "draining",
        /// Not working.
        Unhealthy = 4 => "unhealthy",
    }
}

impl Serialize for HealthState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// A health message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HealthStatus<'a> {
    /// This agent.
    pub agent_id: &'a str,
    /// How it is.
    pub state: HealthState,
    /// Why, for people.
    pub message: Option<&'a str>,
    /// When this was so, in milliseconds since 1970.
    pub timestamp_ms: u64,
}

/// Metrics since the last report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MetricsReport<'a> {
    /// This agent.
    pub agent_id: &'a str,
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Milliseconds from one report to the next.
    pub interval_ms: u64,
    /// What only grows.
    pub counters: Vec<Metric<'a, u64>>,
    /// What goes up and down.
    pub gauges: Vec<Metric<'a, f64>>,
    /// Distributions.
    pub histograms: Vec<Histogram<'a>>,
}

/// One counter or gauge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Metric<'a, N> {
    /// Its name.
    pub name: &'a str,
    /// A sentence about it.
    pub help: Option<&'a str>,
    /// What tells it from others of its name.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// Its value now.
    pub value: N,
}

/// One distribution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Histogram<'a> {
    /// Its name.
    pub name: &'a str,
    /// A sentence about it.
    pub help: Option<&'a str>,
    /// What tells it from others of its name.
    pub labels: BTreeMap<&'a str, &'a str>,
    /// All values together.
    pub sum: f64,
    /// How many they were.
    pub count: u64,
    /// How many were at most so large, growing.
    pub buckets: Vec<Bucket>,
}

/// How many values were at most `le`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    /// The bound; infinity is written `"+Inf"`.
    pub le: f64,
    /// Values up to it.
    pub count: u64,
}

impl Serialize for Bucket {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Bucket", 2)?;
        if self.le.is_finite() {
            out.serialize_field("le", &self.le)?;
        } else {
            out.serialize_field("le", "+Inf")?;
        }
        out.serialize_field("count", &self.count)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_written_with_an_integer_state() {
        let status = HealthStatus {
            agent_id: "wasm",
            state: HealthState::Draining,
            message: None,
            timestamp_ms: 5,
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"agent_id":"wasm","state":3,"message":null,"timestamp_ms":5}"#
        );
    }

    #[test]
    fn metrics_are_written_as_clients_read_them() {
        let report = MetricsReport {
            agent_id: "wasm",
            timestamp_ms: 1,
            interval_ms: 2,
            counters: vec![Metric {
                name: "calls",
                help: None,
                labels: BTreeMap::new(),
                value: 3,
            }],
            gauges: Vec::new(),
            histograms: vec![Histogram {
                name: "wait",
                help: Some("Waited."),
                labels: BTreeMap::from([("event", "request_headers")]),
                sum: 1.5,
                count: 2,
                buckets: vec![
                    Bucket { le: 0.5, count: 1 },
                    Bucket {
                        le: f64::INFINITY,
                        count: 2,
                    },
                ],
            }],
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"agent_id":"wasm","timestamp_ms":1,"interval_ms":2,"counters":[{"name":"calls","help":null,"labels":{},"value":3}],"gauges":[],"histograms":[{"name":"wait","help":"Waited.","labels":{"event":"request_headers"},"sum":1.5,"count":2,"buckets":[{"le":0.5,"count":1},{"le":"+Inf","count":2}]}]}"#
        );
    }

    #[test]
    fn a_cancel_is_read_with_either_kind_of_reason() {
        let cancel: Cancel =
            serde_json::from_str(r#"{"correlation_id":"c1","reason":0,"timestamp_ms":1}"#).unwrap();
        assert_eq!(cancel.correlation_id, "c1");
    }
}
