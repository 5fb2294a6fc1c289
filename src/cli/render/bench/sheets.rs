//! The tables of a benchmark, before anybody draws their lines.

use std::time::Duration;

use wasm_agent_kit::fault::printable;
use wasm_agent_kit::latency::Latency;
use wasm_agent_kit::ops::bench::{
    BenchReport, CaseFuel, CaseReport, Comparison, Finding, GateVerdict, LoadPoint, MemoryReport,
    Metric, ProcessUse, Profile, Spread,
};

use crate::cli::render::human::{Paint, bytes, count, end_of, plural, short_hash, time};

/// Rows of events in a table; the rest is in json and csv.
const MAX_ROWS: usize = 60;
/// Letters of an event's name.
const SHOWN: usize = 56;
/// The title of the table that a plot follows.
pub(super) const LOADS: &str = "Under load";
pub(super) const PROFILE: &str = "Where the time goes";
pub(super) const PHASES: &str = "Phases";
pub(super) const CALLS: &str = "Calls, one at a time";

/// The name of an event in a table.
fn shown(name: &str) -> String {
    end_of(&printable(name, 512), SHOWN)
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Width {
    Slim,
    Narrow,
    Usual,
    Wide,
}

/// One table.
pub(super) struct Sheet {
    pub(super) title: &'static str,
    pub(super) headings: Vec<&'static str>,
    /// Columns of figures, which are never broken.
    pub(super) figures: Vec<usize>,
    /// Nor is this column of words.
    pub(super) unbroken: Option<usize>,
    pub(super) rows: Vec<Row>,
    /// What a reader has to know, below it.
    pub(super) notes: Vec<String>,
}

/// One line of it.
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) paint: Option<Paint>,
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, paint: None }
    }
}

/// All tables there is something for.
pub(super) fn of(report: &BenchReport, width: Width) -> Vec<Sheet> {
    // A gate's figures are in its own table.
    let is_gate = report.comparison.is_some();
    [
        report
            .comparison
            .as_ref()
            .map(|comparison| gate(comparison, width)),
        phases(report),
        calls(report, width).filter(|_| !is_gate),
        report.memory.as_ref().filter(|_| !is_gate).map(memory),
        loads(report, width <= Width::Narrow),
        safety(report),
        report
            .profile
            .as_ref()
            .map(|taken| profile(taken, width <= Width::Narrow)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn phases(report: &BenchReport) -> Option<Sheet> {
    let phases = report.phases.as_ref()?;
    let row = |name: &str, spread: &Spread| {
        let at = |nanos| time(Duration::from_nanos(nanos));
        Row::from(vec![
            name.to_owned(),
            at(spread.median_ns),
            at(spread.min_ns),
            at(spread.max_ns),
            count(spread.count),
        ])
    };
    let mut rows = vec![
        row("read and check", &phases.read),
        row("compile", &phases.compile),
        row("instance, mapped anew", &phases.instantiate_on_demand),
    ];
    rows.extend(
        phases
            .instantiate_in_slot
            .as_ref()
            .map(|spread| row("instance, in a slot", spread)),
    );
    rows.push(row("first call", &phases.first_call));
    rows.push(row("third call", &phases.warm_call));
    Some(Sheet {
        title: PHASES,
        headings: vec!["", "Median", "Least", "Most", "Times"],
        figures: vec![1, 2, 3, 4],
        unbroken: None,
        rows,
        notes: Vec::new(),
    })
}

fn calls(report: &BenchReport, width: Width) -> Option<Sheet> {
    if report.cases.is_empty() {
        return None;
    }
    let is_timed = report.cases.iter().any(|case| case.response.is_some());
    let has_fuel = report.cases.iter().any(|case| case.fuel.is_some());
    let (is_wide, is_narrow) = (width == Width::Wide, width <= Width::Narrow);
    let columns = [
        (true, "Event"),
        (is_wide || !is_timed, "Decision"),
        (has_fuel && !is_narrow, "Fuel, first"),
        (has_fuel, "Fuel, warm"),
        (is_timed, "p50"),
        (is_timed && !is_narrow, "p90"),
        (is_timed, "p99"),
        (is_timed && !is_narrow, "p99.9"),
        (is_timed && !is_narrow, "Max"),
        (is_timed && has_fuel && is_wide, "Guest"),
    ];
    let row = |case: &CaseReport| {
        let fuel = |of: &dyn Fn(CaseFuel) -> u64| {
            case.fuel.map_or_else(String::new, |fuel| count(of(fuel)))
        };
        let at = |of: &dyn Fn(&Latency) -> Duration| {
            let response = case.response.as_ref();
            response.map_or_else(String::new, |response| time(of(response)))
        };
        let guest = case.guest.as_ref();
        let cells = [
            shown(&case.name),
            printable(case.decision, 100),
            fuel(&|fuel| fuel.first),
            fuel(&|fuel| fuel.warm),
            at(&|response| response.at(0.5)),
            at(&|response| response.at(0.9)),
            at(&|response| response.at(0.99)),
            at(&|response| response.at(0.999)),
            at(&Latency::max),
            guest.map_or_else(String::new, |guest| time(guest.at(0.5))),
        ];
        let cells = cells.into_iter().zip(columns);
        let cells: Vec<String> = cells
            .filter_map(|(cell, (is_shown, _))| is_shown.then_some(cell))
            .collect();
        Row::from(cells)
    };
    let mut notes = Vec::new();
    if has_fuel {
        notes.push("Fuel counts instructions, the same on every machine.".to_owned());
    }
    if is_timed && has_fuel {
        notes.push("Times are from the event to the agent response.".to_owned());
    }
    let more = report.cases.len().saturating_sub(MAX_ROWS);
    if more > 0 {
        notes.push(format!("{more} more in --format json and csv."));
    }
    if report.unhandled > 0 {
        notes.push(format!(
            "{} left out: the module has no handler for it.",
            plural(report.unhandled as u64, "event")
        ));
    }
    let headings: Vec<&str> = columns
        .into_iter()
        .filter_map(|(is_shown, heading)| is_shown.then_some(heading))
        .collect();
    let words = headings
        .iter()
        .position(|heading| heading.contains([',', 'p']));
    Some(Sheet {
        title: CALLS,
        figures: (words.unwrap_or(headings.len())..headings.len()).collect(),
        headings,
        unbroken: None,
        rows: report.cases.iter().take(MAX_ROWS).map(row).collect(),
        notes,
    })
}

fn memory(memory: &MemoryReport) -> Sheet {
    let growth = &memory.growth;
    let kept = match growth.calls_until_limit {
        Some(until) => format!(
            "{:.0} bytes kept for each call: the limit is reached after {} calls",
            growth.bytes_per_call,
            count(until)
        ),
        None => format!("nothing kept over {}", plural(growth.calls, "call")),
    };
    let mut notes = vec![format!(
        "{} at first, {} at most, {kept}.",
        bytes(memory.initial_bytes),
        bytes(memory.peak_bytes),
    )];
    notes.extend(growth.fate().map(|fate| format!("In production {fate}.")));
    Sheet {
        title: "Memory of one instance",
        headings: Vec::new(),
        figures: Vec::new(),
        unbroken: None,
        rows: Vec::new(),
        notes,
    }
}

/// Which columns a table of loads has.
#[derive(Clone, Copy)]
struct Columns {
    is_narrow: bool,
    is_open: bool,
    has_pool: bool,
    has_process: bool,
}

impl Columns {
    /// Where there is little room, its time is what one looks at.
    const fn has_memory(self) -> bool {
        self.has_process && !(self.is_narrow && self.is_open)
    }

    fn headings(self) -> Vec<&'static str> {
        [
            (self.has_pool, "Pool"),
            (true, "Callers"),
            (self.is_open, "Due/s"),
            (true, "Done/s"),
            (true, "p50"),
            (!self.is_narrow, "p90"),
            (true, "p99"),
            (!self.is_narrow, "p99.9"),
            (!self.is_narrow, "Max"),
            (self.is_open && !self.is_narrow, "Service p99"),
            (self.has_pool, "Queue p99"),
            (self.has_pool && !self.is_narrow, "Guest p99"),
            (self.has_process, "CPU"),
            (self.has_memory(), "Resident"),
        ]
        .into_iter()
        .filter_map(|(is_shown, heading)| is_shown.then_some(heading))
        .collect()
    }

    fn cells(self, point: &LoadPoint) -> Vec<String> {
        let p99 = |latency: &Option<Latency>| {
            latency
                .as_ref()
                .map_or_else(String::new, |latency| time(latency.at(0.99)))
        };
        let response = &point.response;
        let process =
            |show: &dyn Fn(ProcessUse) -> String| point.process.map_or_else(String::new, show);
        [
            (self.has_pool, point.pool_size.to_string()),
            (true, point.concurrency.to_string()),
            (self.is_open, point.rate.map_or_else(String::new, grouped)),
            (true, grouped(point.throughput)),
            (true, time(response.at(0.5))),
            (!self.is_narrow, time(response.at(0.9))),
            (true, time(response.at(0.99))),
            (!self.is_narrow, time(response.at(0.999))),
            (!self.is_narrow, time(response.max())),
            (self.is_open && !self.is_narrow, p99(&point.service)),
            (self.has_pool, p99(&point.queue)),
            (self.has_pool && !self.is_narrow, p99(&point.guest)),
            (
                self.has_process,
                process(&|used| time(Duration::from_secs_f64(used.cpu_us_per_event / 1e6))),
            ),
            (
                self.has_memory(),
                process(&|used| bytes(used.resident_bytes)),
            ),
        ]
        .into_iter()
        .filter_map(|(is_shown, cell)| is_shown.then_some(cell))
        .collect()
    }
}

fn loads(report: &BenchReport, is_narrow: bool) -> Option<Sheet> {
    if report.loads.is_empty() {
        return None;
    }
    let any = |is: &dyn Fn(&LoadPoint) -> bool| report.loads.iter().any(is);
    let columns = Columns {
        is_narrow,
        is_open: any(&|point| point.rate.is_some()),
        has_pool: any(&|point| point.pool_size > 0),
        has_process: any(&|point| point.process.is_some()),
    };
    let headings = columns.headings();
    let mut notes = vec![
        if columns.is_open {
            "By schedule: response times start when an event was due, service times when it was sent."
        } else {
            "Each caller sends the next event as soon as it is answered; queue is the wait for an instance."
        }
        .to_owned(),
    ];
    if columns.has_process {
        notes.push("CPU is the time of the agent's process per event.".to_owned());
    }
    Some(Sheet {
        title: LOADS,
        figures: (0..headings.len()).collect(),
        headings,
        unbroken: None,
        rows: report
            .loads
            .iter()
            .map(|point| columns.cells(point).into())
            .collect(),
        notes,
    })
}

fn safety(report: &BenchReport) -> Option<Sheet> {
    if report.safety.is_empty() {
        return None;
    }
    let rows = report.safety.iter().map(|row| Row {
        cells: vec![
            printable(&row.mode, 200),
            time(row.response.at(0.5)),
            time(row.response.at(0.99)),
            format!("{:.2}", row.ratio),
        ],
        paint: row.is_chosen.then_some(Paint::Strong),
    });
    Some(Sheet {
        title: "Costs of isolation and limits",
        headings: vec!["Isolation and limits", "p50", "p99", "Times"],
        figures: vec![1, 2, 3],
        unbroken: None,
        rows: rows.collect(),
        notes: vec!["One caller, all events in turn.".to_owned()],
    })
}

/// Functions in a table.
const MAX_FUNCTIONS: usize = 15;
/// Letters of their names where there is little room.
const SHORT_NAME: usize = 34;

fn profile(profile: &Profile, is_narrow: bool) -> Sheet {
    let share = |looks: u64| {
        let all = profile.samples.max(1) as f64;
        format!("{:.1} %", looks as f64 / all * 100.0)
    };
    let rows = profile
        .functions
        .iter()
        .take(MAX_FUNCTIONS)
        .map(|function| {
            let name = printable(&function.name, SHOWN * 2);
            Row::from(vec![
                if is_narrow {
                    end_of(&name, SHORT_NAME)
                } else {
                    name
                },
                share(function.own),
                share(function.total),
            ])
        });
    let mut notes = vec![format!(
        "{} of the guest, one every {} µs while it ran, at function entries and loop heads.",
        plural(profile.samples, "look"),
        profile.interval_us
    )];
    if !profile.has_names {
        notes.push(
            "The module has no names, so functions are numbers: build it without stripping (Rust: strip = false; wasm-opt: -g; TinyGo: without -no-debug; C: without -s).".to_owned(),
        );
    }
    Sheet {
        title: PROFILE,
        headings: vec!["Function", "Own", "With callees"],
        figures: vec![1, 2],
        unbroken: None,
        rows: rows.collect(),
        notes,
    }
}

fn gate(comparison: &Comparison, width: Width) -> Sheet {
    let is_quiet = |finding: &&Finding| {
        finding.interval.is_none()
            && finding.verdict == GateVerdict::BetterOrEqual
            && finding.before.to_bits() == finding.after.to_bits()
    };
    let mut shown: Vec<&Finding> = comparison
        .findings
        .iter()
        .filter(|finding| !is_quiet(finding))
        .collect();
    shown.sort_by_key(|finding| match finding.verdict {
        GateVerdict::Regressed => 0,
        GateVerdict::Inconclusive => 1,
        GateVerdict::BetterOrEqual => 2,
    });
    let quiet = comparison.findings.len() - shown.len();
    let rows = shown
        .iter()
        .take(MAX_ROWS)
        .map(|finding| judged(finding, width));
    let mut notes = vec![format!(
        "Before: {}, {}",
        printable(&comparison.before, 512),
        short_hash(&comparison.before_hash)
    )];
    if quiet > 0 {
        notes.push(format!(
            "{} exactly unchanged.",
            plural(quiet as u64, "figure")
        ));
    }
    let mut whys: Vec<&str> = shown
        .iter()
        .filter_map(|finding| finding.why.as_deref())
        .collect();
    whys.dedup();
    if let Some(why) = whys.first() {
        notes.push(format!("Inconclusive: {}.", printable(why, 300)));
    }
    for skipped in comparison.not_compared.iter().take(MAX_ROWS) {
        notes.push(format!("Not compared: {}.", printable(skipped, 300)));
    }
    let headings = gate_columns(
        [
            "",
            "Event",
            "Before",
            "Now",
            "Change",
            "99 % interval",
            "Verdict",
        ],
        width,
    );
    Sheet {
        title: "Compared",
        figures: (2..headings.len() - 1).collect(),
        unbroken: Some(headings.len() - 1),
        headings,
        rows: rows.collect(),
        notes,
    }
}

/// Where there is little room: what, by how much, and whether it matters.
fn gate_columns<T>(all: [T; 7], width: Width) -> Vec<T> {
    let spared: &[usize] = match width {
        Width::Slim => &[2, 3, 5],
        Width::Narrow => &[5],
        Width::Usual | Width::Wide => &[],
    };
    let kept = all
        .into_iter()
        .enumerate()
        .filter(|(column, _)| !spared.contains(column));
    kept.map(|(_, cell)| cell).collect()
}

fn judged(finding: &Finding, width: Width) -> Row {
    let case = finding.case.as_deref();
    let interval = finding.interval;
    let cells = [
        finding.metric.name().to_owned(),
        case.map_or_else(String::new, shown),
        figure(finding.metric, finding.before),
        figure(finding.metric, finding.after),
        if finding.before > 0.0 || finding.after == 0.0 {
            percent(finding.ratio)
        } else {
            "from nothing".to_owned()
        },
        interval.map_or_else(String::new, |[low, high]| {
            format!("{} to {}", percent(low), percent(high))
        }),
        word(finding.verdict).to_owned(),
    ];
    Row {
        cells: gate_columns(cells, width),
        paint: match finding.verdict {
            GateVerdict::Regressed => Some(Paint::Bad),
            GateVerdict::Inconclusive => Some(Paint::Warning),
            GateVerdict::BetterOrEqual => None,
        },
    }
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
pub(super) fn grouped(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    let unit = 10_f64.powf((rate.log10().floor() - 2.0).max(0.0));
    count(((rate / unit).round() * unit) as u64)
}
