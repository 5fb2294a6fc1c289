//! What is counted, and how: atomics that exist before the first event, so
//! that counting takes no lock, looks nothing up and allocates nothing.
//!
//! In: what came of events, connections and changes. Out: [`Family`]s, the one
//! picture from which the Prometheus text ([`text`]) and the report to proxies
//! are written. A library's histograms lock at each value; these do not.

pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod text;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::capture::Mark;
use crate::event::EventKind;
use crate::fault::FaultCode;
use crate::policy::Policy;
use crate::protocol::outgoing::Sent;
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::Dialect;
use crate::response::DecisionKind;
use crate::server::exchanges::ExchangeCounts;
use crate::server::record::{RecordCounts, Stopped};

/// Upper bounds of all latency histograms, in nanoseconds: from a trivial
/// guest's call to far beyond every default limit.
const BOUNDS: [u64; 17] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
];

// Words of labels. A value as a number is its place among all.
named! {
    /// Faults by kind. What kind of trap it was stands in the log.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum FaultKind {
        Trap => "trap",
        Deadline => "deadline",
        Fuel => "fuel",
        MemoryLimit => "memory-limit",
        AnswerLimit => "answer-limit",
        Alloc => "alloc",
        BadAnswer => "bad-answer",
        BadEvent => "bad-event",
        Overload => "overload",
        Internal => "internal",
        HeadLost => "head-lost",
        AmbiguousExchange => "ambiguous-exchange",
        BodyTooLarge => "body-too-large",
        BodyIncomplete => "body-incomplete",
    }

    /// What came of a change that was asked for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Change {
        Applied => "applied",
        /// What was asked for was in force already.
        Unchanged => "unchanged",
        Refused => "refused",
        /// Some of it would loosen what the operator chose, and was left out.
        Limited => "limited",
    }

    /// Why a peer was closed that had done nothing wrong but to take its time.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Closed {
        /// It said nothing, and others waited for its place.
        GaveWay => "gave-way",
        /// Its message was not whole in time.
        Slow => "slow",
        /// It took no answers.
        Untaken => "untaken",
        /// Its message was the oldest of those that took too much memory.
        Unfinished => "unfinished",
    }
}

/// Labels of connections: their protocols, of v2 with the encoding. Of gRPC a
/// connection is one stream; released proxies have one on each.
const CONNECTIONS: [&str; 4] = ["v1", "v2-json", "v2-msgpack", "grpc"];

/// The place of a connection's label.
const fn connection_label(dialect: Dialect) -> usize {
    match (dialect.protocol, dialect.encoding) {
        (Protocol::V1, _) => 0,
        (Protocol::V2, Encoding::Json) => 1,
        (Protocol::V2, Encoding::MessagePack) => 2,
        (Protocol::Grpc, _) => 3,
    }
}

/// What an event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Kind(EventKind),
    /// No module has a handler for it.
    Other,
    Unreadable,
}

impl Seen {
    const COUNT: usize = EventKind::ALL.len() + 2;

    const fn index(self) -> usize {
        match self {
            Self::Kind(kind) => kind as usize,
            Self::Other => EventKind::ALL.len(),
            Self::Unreadable => EventKind::ALL.len() + 1,
        }
    }

    /// In the order of their indexes.
    fn names() -> impl Iterator<Item = &'static str> {
        let kinds = EventKind::ALL.into_iter().map(EventKind::name);
        kinds.chain(["other", "unreadable"])
    }
}

impl From<FaultCode> for FaultKind {
    fn from(code: FaultCode) -> Self {
        match code {
            FaultCode::Trap(_) => Self::Trap,
            FaultCode::Deadline => Self::Deadline,
            FaultCode::Fuel => Self::Fuel,
            FaultCode::MemoryLimit => Self::MemoryLimit,
            FaultCode::AnswerLimit => Self::AnswerLimit,
            FaultCode::AllocNull | FaultCode::AllocOutOfBounds => Self::Alloc,
            FaultCode::AnswerOutOfBounds | FaultCode::BadAnswer(_) => Self::BadAnswer,
            FaultCode::BadEvent(_) => Self::BadEvent,
            FaultCode::Overload => Self::Overload,
            FaultCode::Internal => Self::Internal,
            FaultCode::HeadLost => Self::HeadLost,
            FaultCode::AmbiguousExchange => Self::AmbiguousExchange,
            FaultCode::BodyTooLarge => Self::BodyTooLarge,
            FaultCode::BodyIncomplete => Self::BodyIncomplete,
        }
    }
}

impl FaultKind {
    /// Whether it says something about this agent, rather than about a peer.
    const fn is_ours(self) -> bool {
        !matches!(
            self,
            Self::BadEvent
                | Self::HeadLost
                | Self::AmbiguousExchange
                | Self::BodyTooLarge
                | Self::BodyIncomplete
        )
    }
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, by how long they were.
#[derive(Debug, Default)]
struct Histogram {
    /// The last one holds what is above all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let above = BOUNDS.iter().take_while(|bound| nanoseconds > **bound);
        self.buckets[above.count()].add(1);
        self.nanoseconds.add(nanoseconds);
    }

    fn read(&self) -> Value {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.read();
            let bound = BOUNDS
                .get(index)
                .map_or(f64::INFINITY, |bound| seconds(*bound));
            buckets.push((bound, count));
        }
        Value::Histogram {
            sum: seconds(self.nanoseconds.read()),
            buckets,
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact below three months, and no picture needs more"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// What the server knows without being told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Now {
    /// Events that wait for a guest.
    pub(crate) queued: usize,
    /// Log lines left out so far.
    pub(crate) lines_cut: u64,
    /// What is remembered of exchanges, and what was forgotten.
    pub(crate) exchanges: ExchangeCounts,
    /// Calls recorded so far, where any are to be.
    pub(crate) recorded: Option<RecordCounts>,
}

/// Events that were answered so far, or whose call faulted, and the faults that
/// are no peer's doing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) faults: [u64; FaultKind::ALL.len()],
}

/// All counters of one server.
#[derive(Debug, Default)]
pub struct Metrics {
    answered: [[Counter; DecisionKind::ALL.len()]; Seen::COUNT],
    abandoned: Counter,
    /// Those of them whose call faulted.
    abandoned_faults: Counter,
    faults: [Counter; FaultKind::ALL.len()],
    calls: [Histogram; EventKind::ALL.len()],
    waits: Histogram,
    connections: [AtomicI64; CONNECTIONS.len()],
    connected: [Counter; CONNECTIONS.len()],
    reloads: [Counter; Change::ALL.len()],
    configurations: [Counter; Change::ALL.len()],
    lines_lost: OnceLock<fn() -> u64>,
    closed: [Counter; Closed::ALL.len()],
    started: Started,
}

/// When this was made.
#[derive(Debug)]
struct Started(SystemTime);

impl Default for Started {
    fn default() -> Self {
        Self(SystemTime::now())
    }
}

impl Metrics {
    /// An event got its answer, which is counted as it is sent.
    pub(crate) fn answered(&self, seen: Seen, sent: &Sent) {
        self.answered[seen.index()][sent.answer.decision.kind() as usize].add(1);
        if let Some(fault) = &sent.fault {
            self.faulted(fault.code);
        }
    }

    fn faulted(&self, fault: FaultCode) {
        self.faults[FaultKind::from(fault) as usize].add(1);
    }

    /// A guest was called, for so long.
    pub(crate) fn called(&self, kind: EventKind, time: Duration) {
        self.calls[kind as usize].observe(time);
    }

    /// An event was given up before its answer: by its peer, for a later event
    /// of the same id, or because it was late; `fault` is that of its call.
    pub(crate) fn abandoned(&self, fault: Option<FaultCode>) {
        self.abandoned.add(1);
        if let Some(fault) = fault {
            self.abandoned_faults.add(1);
            self.faulted(fault);
        }
    }

    /// An event's call begins so long after it was read.
    pub(crate) fn waited(&self, wait: Duration) {
        self.waits.observe(wait);
    }

    pub(crate) fn connected(&self, dialect: Dialect) {
        self.connected[connection_label(dialect)].add(1);
        self.connections[connection_label(dialect)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self, dialect: Dialect) {
        self.connections[connection_label(dialect)].fetch_sub(1, Ordering::Relaxed);
    }

    /// A peer, or a call of gRPC, was closed.
    pub(crate) fn closed(&self, reason: Closed) {
        self.closed[reason as usize].add(1);
    }

    pub(crate) fn reloaded(&self, change: Change) {
        self.reloads[change as usize].add(1);
    }

    pub(crate) fn configured(&self, change: Change) {
        self.configurations[change as usize].add(1);
    }

    /// Where else log lines are lost; the first to say so is believed.
    pub fn count_lines_lost_by(&self, lost: fn() -> u64) {
        // A second source would be a second program.
        let _ = self.lines_lost.set(lost);
    }

    /// What health is judged by.
    pub(crate) fn totals(&self) -> Totals {
        let handled = &self.answered[..EventKind::ALL.len()];
        let ours = |kind: FaultKind| u64::from(kind.is_ours()) * self.faults[kind as usize].read();
        Totals {
            events: self.abandoned_faults.read()
                + handled.iter().flatten().map(Counter::read).sum::<u64>(),
            faults: FaultKind::ALL.map(ours),
        }
    }

    /// All of it as it is now.
    pub(crate) fn picture(&self, policy: &Policy, now: Now) -> Vec<Family> {
        let mut families = self.events();
        families.extend(pool(policy, now.queued));
        families.extend(self.changes(policy, now.lines_cut));
        families.extend(exchanges(now.exchanges));
        families.push(Family::new(
            "wasm_agent_peers_closed_total",
            "Connections and gRPC calls closed because their peer was slow or silent, by reason.",
            labelled("reason", Closed::ALL.map(Closed::name), &self.closed),
        ));
        families.extend(now.recorded.into_iter().flat_map(recorded));
        families
    }

    fn events(&self) -> Vec<Family> {
        let answered = Seen::names().zip(&self.answered).flat_map(|(event, row)| {
            DecisionKind::ALL
                .iter()
                .zip(row)
                .map(move |(decision, count)| {
                    Sample::new(Value::Count(count.read()))
                        .with("event", event)
                        .with("decision", decision.name())
                })
        });
        let calls = EventKind::ALL
            .iter()
            .zip(&self.calls)
            .map(|(kind, calls)| Sample::new(calls.read()).with("event", kind.name()));
        vec![
            Family::new(
                "wasm_agent_events_total",
                "Events answered, by event and by the decision that was sent.",
                answered,
            ),
            Family::new(
                "wasm_agent_events_abandoned_total",
                "Events given up by their peer before they were answered.",
                [Sample::new(Value::Count(self.abandoned.read()))],
            ),
            Family::new(
                "wasm_agent_faults_total",
                "Events decided by the failure policy, by fault.",
                labelled("fault", FaultKind::ALL.map(FaultKind::name), &self.faults),
            ),
            Family::new(
                "wasm_agent_call_duration_seconds",
                "Duration of guest calls: alloc, handler and dealloc together.",
                calls,
            ),
            Family::new(
                "wasm_agent_queue_wait_seconds",
                "Time from reading an event to the start of its call.",
                [Sample::new(self.waits.read())],
            ),
        ]
    }

    fn changes(&self, policy: &Policy, lines_cut: u64) -> Vec<Family> {
        let module = policy.pool().module();
        let open = CONNECTIONS
            .iter()
            .zip(&self.connections)
            .map(|(name, open)| {
                let open = open.load(Ordering::Relaxed).max(0).unsigned_abs();
                Sample::new(Value::gauge(open)).with("protocol", *name)
            });
        let started = self
            .started
            .0
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lost = self.lines_lost.get().map_or(0, |lost| lost());
        let lines = |reason, count| Sample::new(Value::Count(count)).with("reason", reason);
        let info = Sample::new(Value::Gauge(1.0));
        vec![
            Family::new(
                "wasm_agent_connections",
                "Open connections, by protocol; of gRPC, streams.",
                open,
            ),
            Family::new(
                "wasm_agent_connections_total",
                "Connections whose protocol is known, by protocol.",
                labelled("protocol", CONNECTIONS, &self.connected),
            ),
            Family::new(
                "wasm_agent_reloads_total",
                "Reloads of the module, by result.",
                labelled("result", Change::ALL.map(Change::name), &self.reloads)
                    .filter(|sample| !sample.has("unchanged") && !sample.has("limited")),
            ),
            Family::new(
                "wasm_agent_configurations_total",
                "Settings pushed by a proxy, by result.",
                labelled(
                    "result",
                    Change::ALL.map(Change::name),
                    &self.configurations,
                ),
            ),
            Family::new(
                "wasm_agent_module_info",
                "The module that answers now.",
                [info
                    .clone()
                    .with("hash", module.hash.clone())
                    .with("path", module.path.display().to_string())],
            ),
            Family::new(
                "wasm_agent_build_info",
                "This program.",
                [info
                    .with("version", env!("CARGO_PKG_VERSION"))
                    .with("engine", crate::guest::engine::version())],
            ),
            Family::new(
                "wasm_agent_log_lines_dropped_total",
                "Log lines dropped: too many caused by a peer or guest, or the log's reader is too slow.",
                [lines("rate", lines_cut), lines("writer", lost)],
            ),
            Family::new(
                "process_start_time_seconds",
                "When this process began to serve, in seconds since 1970.",
                [Sample::new(Value::Gauge(started.as_secs_f64()))],
            ),
        ]
    }
}

fn recorded(counts: RecordCounts) -> [Family; 3] {
    let count = |result, count| Sample::new(Value::Count(count)).with("result", result);
    let marked = |mark: Mark, count| Sample::new(Value::Count(count)).with("mark", mark.name());
    let stopped = Stopped::ALL.map(|reason| {
        let is_so = counts.stopped == Some(reason);
        Sample::new(Value::gauge(usize::from(is_so))).with("reason", reason.name())
    });
    [
        Family::new(
            "wasm_agent_records_total",
            "Calls that --record selected: those whose line is in the file, and those that were dropped, by result.",
            [
                count("written", counts.written),
                count("dropped", counts.dropped),
            ],
        ),
        Family::new(
            "wasm_agent_records_marked_total",
            "Records in the file whose decision may not be that of their redacted input: the module was not asked about it (unchecked), or decides otherwise (redaction-changed), by mark.",
            [
                marked(Mark::Unchecked, counts.unchecked),
                marked(Mark::Changed, counts.changed),
            ],
        ),
        Family::new(
            "wasm_agent_recording_stopped",
            "1 while all calls are dropped because the recording cannot be written (error) or has its largest size (full).",
            stopped,
        ),
    ]
}

fn pool(policy: &Policy, queued: usize) -> Vec<Family> {
    let usage = policy.pool().usage();
    let counts = policy.pool().counts();
    let state = |state, count: usize| Sample::new(Value::gauge(count)).with("state", state);
    let reason = |reason, count| Sample::new(Value::Count(count)).with("reason", reason);
    vec![
        Family::new(
            "wasm_agent_pool_size",
            "Instances that may exist, and calls that may run at once.",
            [Sample::new(Value::gauge(usage.size))],
        ),
        Family::new(
            "wasm_agent_pool_instances",
            "Instances, by state.",
            [state("in_use", usage.in_use), state("idle", usage.idle)],
        ),
        Family::new(
            "wasm_agent_pool_waiting",
            "Events that wait for an instance.",
            [Sample::new(Value::gauge(queued + usage.waiting))],
        ),
        Family::new(
            "wasm_agent_instances_created_total",
            "Instances made.",
            [Sample::new(Value::Count(counts.created))],
        ),
        Family::new(
            "wasm_agent_instances_dropped_total",
            "Instances dropped, by reason.",
            [
                reason("fault", counts.dropped_faulted),
                reason("memory", counts.dropped_memory),
                reason("isolation", counts.dropped_isolation),
                reason("replaced", counts.dropped_replaced),
            ],
        ),
        Family::new(
            "wasm_agent_chunks_moved_total",
            "Chunks of bodies whose instance was not asked about all chunks before, because the one that was had been busy for longer than the queue wait or was gone.",
            [Sample::new(Value::Count(counts.chunks_moved))],
        ),
    ]
}

fn exchanges(counts: ExchangeCounts) -> [Family; 4] {
    let count = |count| [Sample::new(Value::Count(count))];
    [
        Family::new(
            "wasm_agent_exchanges",
            "Exchanges that are remembered for their later events.",
            [Sample::new(Value::gauge(counts.live))],
        ),
        Family::new(
            "wasm_agent_exchanges_forgotten_total",
            "Exchanges forgotten before they ended, because of their number, size or age.",
            count(counts.forgotten),
        ),
        Family::new(
            "wasm_agent_operations_left_out_total",
            "Response header operations left out, since several exchanges with one id were open.",
            count(counts.operations_left_out),
        ),
        Family::new(
            "wasm_agent_bodies_unfinished_total",
            "Bodies that were collected for the module and ended before their last chunk, so that it was not asked about them.",
            count(counts.bodies_unfinished),
        ),
    ]
}

fn labelled<const N: usize>(
    label: &'static str,
    names: [&'static str; N],
    counts: &[Counter; N],
) -> impl Iterator<Item = Sample> {
    std::iter::zip(names, counts)
        .map(move |(name, count)| Sample::new(Value::Count(count.read())).with(label, name))
}

/// The kind of fault that came most often.
pub(crate) fn most_often(faults: &[u64; FaultKind::ALL.len()]) -> FaultKind {
    let most = FaultKind::ALL.into_iter().zip(faults);
    most.max_by_key(|(_, count)| **count)
        .map_or(FaultKind::Trap, |(kind, _)| kind)
}

/// All samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// As both forms write it.
    pub name: &'static str,
    /// A sentence about it.
    pub help: &'static str,
    /// What is known; of one kind.
    pub samples: Vec<Sample>,
}

impl Family {
    pub(crate) fn new(
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = Sample>,
    ) -> Self {
        Self {
            name,
            help,
            samples: samples.into_iter().collect(),
        }
    }
}

/// One value, and what tells it from others of its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// In the order they are written.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

impl Sample {
    pub(crate) const fn new(value: Value) -> Self {
        Self {
            labels: Vec::new(),
            value,
        }
    }

    pub(crate) fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }

    fn has(&self, value: &str) -> bool {
        self.labels.iter().any(|(_, found)| found == value)
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only grows.
    Count(u64),
    /// Only grows, and in parts.
    Total(f64),
    /// Goes up and down.
    Gauge(f64),
    /// How many values were at most so large, growing; the last bound is
    /// infinite and its count is that of all.
    Histogram {
        /// All values together, in seconds.
        sum: f64,
        /// Bounds in seconds, and counts.
        buckets: Vec<(f64, u64)>,
    },
}

impl Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges here are counts of things that fit in memory"
    )]
    fn gauge(count: impl TryInto<u64>) -> Self {
        Self::Gauge(count.try_into().unwrap_or(u64::MAX) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 5_000, 5_001, 1_000_000_000, 1_000_000_001, u64::MAX] {
            histogram.observe(Duration::from_nanos(nanoseconds));
        }
        let Value::Histogram { buckets, .. } = histogram.read() else {
            unreachable!()
        };
        let at = |bound: f64| buckets.iter().find(|(le, _)| *le == bound).unwrap().1;
        assert_eq!((at(5e-6), at(1e-5), at(1.0)), (2, 3, 4));
        assert_eq!(at(f64::INFINITY), 6);
    }

    #[test]
    fn bounds_grow() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
