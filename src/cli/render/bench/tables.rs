//! The parts of a benchmark's document: each is a heading, a table, its charts
//! and what a reader has to know of them.

use std::time::Duration;

use crate::latency::Latency;
use crate::ops::bench::{
    BenchReport, CaseReport, Comparison, Finding, GateVerdict, LoadPoint, MemoryReport, Metric,
    Phases, Profile, SafetyRow, Spread,
};

use super::charts;
use super::faint;
use crate::cli::document::{Block, Cell, Column, Row, Span, Table, shortened};
use crate::cli::render::human::{Paint, bytes, count, end_of, plural, short_hash, time};

/// Rows of events in a table; the rest is in json and csv.
const MAX_ROWS: usize = 60;
/// Letters of an event's name.
const SHOWN: usize = 56;
/// Functions in a table.
const MAX_FUNCTIONS: usize = 15;

/// The columns of a table, and what stands in each of a row's data, if anything.
struct Fields<'a, T>(Vec<(Column, Show<'a, T>)>);

type Show<'a, T> = Box<dyn Fn(&T) -> Option<String> + 'a>;

impl<'a, T: 'a> Fields<'a, T> {
    fn with(mut self, column: Column, show: impl Fn(&T) -> Option<String> + 'a) -> Self {
        self.0.push((column, Box::new(show)));
        self
    }

    fn figure(self, heading: &'static str, show: impl Fn(&T) -> Option<String> + 'a) -> Self {
        self.with(Column::figure(heading), show)
    }

    /// Figures that a terminal without room leaves out.
    fn spared(
        self,
        heading: &'static str,
        spare: u8,
        show: impl Fn(&T) -> Option<String> + 'a,
    ) -> Self {
        self.with(Column::figure(heading).spared(spare), show)
    }

    /// The distribution of response times.
    fn response_times(self, of: fn(&T) -> Option<&Latency>) -> Self {
        self.spared("p50", 1, move |row| at(of(row), 0.5))
            .spared("p90", 8, move |row| at(of(row), 0.9))
            .figure("p99", move |row| at(of(row), 0.99))
            .spared("p99.9", 6, move |row| at(of(row), 0.999))
            .spared("Max", 7, move |row| of(row).map(|it| time(it.max())))
    }

    fn table<'r>(
        self,
        rows: impl IntoIterator<Item = &'r T>,
        paint: fn(&T) -> Option<Paint>,
    ) -> Block
    where
        T: 'r,
    {
        let (columns, shows): (Vec<Column>, Vec<Show<'a, T>>) = self.0.into_iter().unzip();
        let rows = rows.into_iter().map(|of| {
            let paint = paint(of);
            let texts = shows.iter().map(|show| show(of).unwrap_or_default());
            let cells = texts.map(|text| Cell::from(Span { text, paint }));
            cells.collect::<Vec<_>>()
        });
        filled(columns, rows.collect())
    }
}

/// A quantile.
fn at(times: Option<&Latency>, share: f64) -> Option<String> {
    times.map(|times| time(times.at(share)))
}

/// A table without the columns that nothing stands in.
fn filled(columns: Vec<Column>, rows: Vec<Vec<Cell>>) -> Block {
    let is_filled = |column: usize| {
        let mut cells = rows.iter().filter_map(|cells| cells.get(column));
        cells.any(|cell| !cell.span.text.is_empty())
    };
    let kept: Vec<bool> = (0..columns.len()).map(is_filled).collect();
    Block::Table(Table {
        columns: only(columns, &kept),
        rows: rows
            .into_iter()
            .map(|cells| Row::from(only(cells, &kept)))
            .collect(),
    })
}

fn only<T>(all: Vec<T>, kept: &[bool]) -> Vec<T> {
    let kept = all.into_iter().zip(kept).filter(|(_, kept)| **kept);
    kept.map(|(it, _)| it).collect()
}

fn heading(text: &str) -> Block {
    Block::Heading(text.to_owned())
}

/// The name of an event in a table: its end tells it from others.
fn event(name: &str) -> String {
    end_of(name, SHOWN)
}

fn nanos(nanos: u64) -> Option<String> {
    Some(time(Duration::from_nanos(nanos)))
}

pub(super) fn phases(phases: &Phases) -> Vec<Block> {
    type Phase<'a> = (&'static str, &'a Spread);
    let mut all: Vec<Phase<'_>> = vec![
        ("read and check", &phases.read),
        ("compile", &phases.compile),
        ("instance, mapped anew", &phases.instantiate_on_demand),
    ];
    let in_slot = phases.instantiate_in_slot.as_ref();
    all.extend(in_slot.map(|spread| ("instance, in a slot", spread)));
    all.push(("first call", &phases.first_call));
    all.push(("third call", &phases.warm_call));
    let fields = Fields::<Phase<'_>>(Vec::new())
        .with(Column::text(""), |(name, _)| Some((*name).to_owned()))
        .figure("Median", |(_, of)| nanos(of.median_ns))
        .spared("Least", 1, |(_, of)| nanos(of.min_ns))
        .figure("Most", |(_, of)| nanos(of.max_ns))
        .spared("Times", 2, |(_, of)| Some(count(of.count)));
    vec![
        heading("Phases"),
        charts::phases(&all),
        fields.table(&all, |_| None),
    ]
}

pub(super) fn calls(report: &BenchReport) -> Vec<Block> {
    let cases = &report.cases;
    if cases.is_empty() {
        return Vec::new();
    }
    let is_timed = cases.iter().any(|case| case.response.is_some());
    let has_fuel = cases.iter().any(|case| case.fuel.is_some());
    let decision = Column::text("Decision");
    let decision = if is_timed {
        decision.only_wide()
    } else {
        decision
    };
    let fields = Fields::<CaseReport>(Vec::new())
        .with(Column::text("Event"), |case| Some(event(&case.name)))
        .with(decision, |case| Some(case.decision.to_owned()))
        .spared("Fuel, first", 2, |case| Some(count(case.fuel?.first)))
        .figure("Fuel, warm", |case| Some(count(case.fuel?.warm)))
        .response_times(|case| case.response.as_ref())
        .with(Column::figure("Guest").only_wide(), |case| {
            at(case.guest.as_ref(), 0.5)
        });
    let mut blocks = vec![heading("Calls, one at a time")];
    blocks.extend(charts::fuel(&cases[..cases.len().min(MAX_ROWS)]));
    blocks.push(fields.table(cases.iter().take(MAX_ROWS), |_| None));
    if has_fuel {
        blocks.push(faint(
            "Fuel counts instructions, the same on every machine.",
        ));
    }
    if is_timed && has_fuel {
        blocks.push(faint("Times are from the event to the agent response."));
    }
    let more = cases.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        blocks.push(faint(format!("{more} more in --format json and csv.")));
    }
    if report.unhandled > 0 {
        let events = plural(report.unhandled as u64, "event");
        let why = format!("{events} left out: the module has no handler for it.");
        blocks.push(faint(why));
    }
    blocks
}

pub(super) fn memory(memory: &MemoryReport) -> Vec<Block> {
    let growth = &memory.growth;
    let sizes = [memory.initial_bytes, memory.peak_bytes].map(bytes);
    let [initial, peak] = sizes;
    let mut blocks = vec![
        heading("Memory of one instance"),
        faint(format!("{initial} at first, {peak} at most.")),
        faint(format!("Over many calls: {}.", growth.kept())),
    ];
    blocks.extend(
        growth
            .fate()
            .map(|fate| faint(format!("In production {fate}."))),
    );
    blocks
}

pub(super) fn loads(report: &BenchReport) -> Vec<Block> {
    let loads = &report.loads;
    if loads.is_empty() {
        return Vec::new();
    }
    let is_open = loads.iter().any(|point| point.rate.is_some());
    // By schedule, the rate is what loads are told by.
    let callers = Column::figure("Callers");
    let callers = if is_open { callers.spared(3) } else { callers };
    let fields = Fields::<LoadPoint>(Vec::new())
        .figure("Pool", |point| {
            (point.pool_size > 0).then(|| point.pool_size.to_string())
        })
        .with(callers, |point| Some(point.concurrency.to_string()))
        .figure("Due/s", |point| point.rate.map(rate))
        .figure("Done/s", |point| Some(rate(point.throughput)))
        .response_times(|point| Some(&point.response))
        .spared("Service p99", 5, |point| at(point.service.as_ref(), 0.99))
        .spared("Queue p99", 2, |point| at(point.queue.as_ref(), 0.99))
        .spared("Guest p99", 9, |point| at(point.guest.as_ref(), 0.99))
        .figure("CPU", |point| {
            let seconds = point.process?.cpu_us_per_event / 1e6;
            Some(time(Duration::from_secs_f64(seconds)))
        })
        .spared("Resident", 4, |point| {
            Some(bytes(point.process?.resident_bytes))
        });
    let mut blocks = vec![heading("Under load")];
    blocks.extend(charts::loads(loads));
    blocks.push(fields.table(loads, |_| None));
    blocks.push(faint(if is_open {
        "By schedule: response times start when an event was due, service times when it was sent."
    } else {
        "Each caller sends the next event as soon as it is answered; queue is the wait for an instance."
    }));
    if loads.iter().any(|point| point.process.is_some()) {
        blocks.push(faint("CPU is the time of the agent's process per event."));
    }
    blocks
}

pub(super) fn safety(report: &BenchReport) -> Vec<Block> {
    if report.safety.is_empty() {
        return Vec::new();
    }
    let fields = Fields::<SafetyRow>(Vec::new())
        .with(Column::text("Isolation and limits"), |row| {
            Some(row.mode.clone())
        })
        .figure("p50", |row| at(Some(&row.response), 0.5))
        .figure("p99", |row| at(Some(&row.response), 0.99))
        .figure("Times", |row| Some(format!("{:.2}", row.ratio)));
    vec![
        heading("Costs of isolation and limits"),
        fields.table(&report.safety, |row| row.is_chosen.then_some(Paint::Strong)),
        faint("One caller, all events in turn."),
    ]
}

pub(super) fn profile(profile: &Profile) -> Vec<Block> {
    let share = |looks: u64| {
        let all = profile.samples.max(1) as f64;
        Cell::from(format!("{:.1} %", looks as f64 / all * 100.0))
    };
    let functions = profile.functions.iter().take(MAX_FUNCTIONS);
    let rows = functions.map(|function| {
        let name = shortened(&function.name, SHOWN * 2);
        vec![name.into(), share(function.own), share(function.total)]
    });
    let columns = vec![
        Column::text("Function"),
        Column::figure("Own"),
        Column::figure("With callees"),
    ];
    let mut blocks = vec![
        heading("Where the time goes"),
        charts::flame(profile),
        filled(columns, rows.collect()),
        faint(format!(
            "{} of the guest, one every {} µs while it ran, at function entries and loop heads.",
            plural(profile.samples, "look"),
            profile.interval_us
        )),
    ];
    if !profile.has_names {
        blocks.push(faint(
            "The module has no names, so functions are numbers: build it without stripping (Rust: strip = false; wasm-opt: -g; TinyGo: without -no-debug; C: without -s).",
        ));
    }
    blocks
}

pub(super) fn gate(comparison: &Comparison) -> Vec<Block> {
    let is_quiet = |finding: &&Finding| {
        finding.interval.is_none()
            && finding.verdict == GateVerdict::BetterOrEqual
            && finding.before.to_bits() == finding.after.to_bits()
    };
    let findings = comparison.findings.iter();
    let (quiet, mut shown): (Vec<&Finding>, Vec<&Finding>) = findings.partition(is_quiet);
    shown.sort_by_key(|finding| match finding.verdict {
        GateVerdict::Regressed => 0,
        GateVerdict::Inconclusive => 1,
        GateVerdict::BetterOrEqual => 2,
    });
    let fields = Fields::<Finding>(Vec::new())
        .with(Column::text(""), |it| Some(it.metric.name().to_owned()))
        .with(Column::text("Event"), |it| it.case.as_deref().map(event))
        .spared("Before", 2, |it| Some(figure(it.metric, it.before)))
        .spared("Now", 1, |it| Some(figure(it.metric, it.after)))
        .figure("Change", |it| {
            let is_new = it.before <= 0.0 && it.after != 0.0;
            let ratio = (!is_new).then(|| percent(it.ratio));
            Some(ratio.unwrap_or_else(|| "from nothing".to_owned()))
        })
        .spared("99 % interval", 3, |it| {
            let [low, high] = it.interval?.map(percent);
            Some(format!("{low} to {high}"))
        })
        .with(Column::unbroken("Verdict"), |it| {
            Some(word(it.verdict).to_owned())
        });
    let rows = shown.iter().take(MAX_ROWS).copied();
    let mut blocks = vec![
        heading("Compared"),
        fields.table(rows, |finding| match finding.verdict {
            GateVerdict::Regressed => Some(Paint::Bad),
            GateVerdict::Inconclusive => Some(Paint::Warning),
            GateVerdict::BetterOrEqual => None,
        }),
        faint(format!(
            "Before: {}, {}",
            shortened(&comparison.before, 512),
            short_hash(&comparison.before_hash)
        )),
    ];
    if !quiet.is_empty() {
        let figures = plural(quiet.len() as u64, "figure");
        blocks.push(faint(format!("{figures} exactly unchanged.")));
    }
    if let Some(why) = shown.iter().find_map(|finding| finding.why.as_deref()) {
        blocks.push(faint(format!("Inconclusive: {}.", shortened(why, 300))));
    }
    let skipped = comparison.not_compared.iter().take(MAX_ROWS);
    blocks.extend(
        skipped.map(|skipped| faint(format!("Not compared: {}.", shortened(skipped, 300)))),
    );
    blocks
}

pub(super) const fn word(verdict: GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::BetterOrEqual => "ok",
        GateVerdict::Regressed => "regressed",
        GateVerdict::Inconclusive => "inconclusive",
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and bytes, which came from integers"
)]
fn figure(metric: Metric, value: f64) -> String {
    match metric {
        Metric::Time => time(Duration::from_secs_f64((value / 1e9).max(0.0))),
        Metric::Memory | Metric::Growth | Metric::Size => bytes(value as u64),
        Metric::FuelFirst | Metric::FuelWarm => count(value as u64),
    }
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

/// Events for each second, without figures nobody can trust.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and far below the largest integer"
)]
pub(super) fn rate(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    let unit = 10_f64.powf((rate.log10().floor() - 2.0).max(0.0));
    count(((rate / unit).round() * unit) as u64)
}
