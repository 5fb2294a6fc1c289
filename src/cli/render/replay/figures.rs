//! What every rendering of a replay says, before it is laid out.

use std::collections::BTreeMap;
use std::time::Duration;

use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::histogram::{Histogram, PERCENTILES};
use wasm_agent_kit::ops::replay::report::{
    Category, Comparison, FuelChange, Outcomes, TestResult, percent,
};
use wasm_agent_kit::report::{Report as _, Verdict};

use crate::cli::render::human::{bytes, count, time};

/// How the replay came out, in a word.
pub(super) fn verdict_word(report: &ReplayReport) -> &'static str {
    match report.verdict() {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Unreadable => "unreadable",
        Verdict::NothingChecked => "nothing was checked",
        Verdict::Inconclusive => "interrupted",
    }
}

/// Words of one kind and how many transactions had each.
pub(super) struct Words<'a> {
    pub(super) heading: &'static str,
    /// Of the figures.
    pub(super) columns: &'static [&'static str],
    /// A word with its figures, the most frequent first.
    pub(super) rows: Vec<(&'a str, Vec<String>)>,
}

/// Decisions, rules, tags and faults; the kinds there are any of.
pub(super) fn words(report: &ReplayReport) -> Vec<Words<'_>> {
    type Kind = fn(&Outcomes) -> &BTreeMap<String, u64>;
    let kinds: [(&str, Kind); 4] = [
        ("Decision", |outcomes| &outcomes.decisions),
        ("Rule", |outcomes| &outcomes.rules),
        ("Tag", |outcomes| &outcomes.tags),
        ("Fault", |outcomes| &outcomes.faults),
    ];
    let before = report.baseline_outcomes.as_ref();
    let tables = kinds.into_iter().map(|(heading, kind)| {
        let rows = beside(kind(&report.outcomes), before.map(kind));
        let figures = |(word, old, new)| {
            let figures = if before.is_some() {
                vec![count(old), count(new), difference(old, new)]
            } else {
                let share = percent(new, report.records.transactions);
                vec![count(new), format!("{share:.2} %")]
            };
            (word, figures)
        };
        Words {
            heading,
            columns: if before.is_some() {
                &["Before", "Now", ""]
            } else {
                &["Transactions", "Share"]
            },
            rows: rows.into_iter().map(figures).collect(),
        }
    });
    tables.filter(|table| !table.rows.is_empty()).collect()
}

/// Words with their counts before and now, the most frequent first.
fn beside<'a>(
    now: &'a BTreeMap<String, u64>,
    before: Option<&'a BTreeMap<String, u64>>,
) -> Vec<(&'a str, u64, u64)> {
    let mut rows: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (word, number) in before.into_iter().flatten() {
        rows.entry(word).or_default().0 = *number;
    }
    for (word, number) in now {
        rows.entry(word).or_default().1 = *number;
    }
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|(word, (old, new))| (word, old, new))
        .collect();
    rows.sort_by_key(|(_, old, new)| std::cmp::Reverse(*old.max(new)));
    rows
}

/// With its sign; nothing where there is none.
fn difference(old: u64, new: u64) -> String {
    match i128::from(new) - i128::from(old) {
        0 => String::new(),
        delta => format!("{delta:+}"),
    }
}

/// What each module made of the capture, with `" before"` or `" now"` where
/// there are two, and of each that was called at all.
pub(super) fn sides(report: &ReplayReport) -> Vec<(&'static str, &Outcomes)> {
    let now = if report.baseline.is_some() {
        " now"
    } else {
        ""
    };
    let before = report.baseline_outcomes.as_ref();
    before
        .map(|outcomes| (" before", outcomes))
        .into_iter()
        .chain([(now, &report.outcomes)])
        .filter(|(_, outcomes)| outcomes.calls > 0)
        .collect()
}

/// The columns of [`costs`].
pub(super) fn cost_columns() -> impl Iterator<Item = &'static str> {
    PERCENTILES.map(|(_, name)| name).into_iter().chain(["max"])
}

/// What a call cost, `fuel` and `time`, by [`cost_columns`].
pub(super) fn costs(outcomes: &Outcomes) -> Vec<(&'static str, Vec<String>)> {
    let figures = |histogram: &Histogram, show: &dyn Fn(u64) -> String| {
        let percentiles = PERCENTILES.map(|(percent, _)| histogram.percentile(percent));
        percentiles
            .into_iter()
            .chain([histogram.max()])
            .map(show)
            .collect()
    };
    let mut costs = vec![("fuel", figures(&outcomes.fuel, &count))];
    if let Some(times) = &outcomes.time_ns {
        costs.push(("time", figures(times, &nanos)));
    }
    costs
}

/// How much memory the guests had.
pub(super) fn memory(outcomes: &Outcomes) -> String {
    format!(
        "{} at most, grew in {} of {} calls, {} in all",
        bytes(outcomes.memory.max_bytes),
        count(outcomes.memory.growing_calls),
        count(outcomes.calls),
        bytes(outcomes.memory.grown_bytes)
    )
}

/// Nanoseconds, for people.
pub(super) fn nanos(nanos: u64) -> String {
    time(Duration::from_nanos(nanos))
}

/// How many transactions are in each category, and their share.
pub(super) fn categories(
    comparison: &Comparison,
) -> impl Iterator<Item = (Category, u64, String)> + '_ {
    Category::ALL.into_iter().map(|category| {
        let number = comparison.count(category);
        let share = percent(number, comparison.compared);
        (category, number, format!("{share:.2} %"))
    })
}

/// The instructions before and now.
pub(super) fn fuel(fuel: &FuelChange) -> String {
    let sign = if fuel.new < fuel.old { '-' } else { '+' };
    format!(
        "{} → {} ({sign}{}, {:+.2} %); {} transactions cost more, {} less, {} the same",
        count(fuel.old),
        count(fuel.new),
        count(fuel.new.abs_diff(fuel.old)),
        relative(fuel.old, fuel.new),
        count(fuel.more),
        count(fuel.less),
        count(fuel.equal)
    )
}

/// The change from one figure to the other, in percent.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn relative(old: u64, new: u64) -> f64 {
    if old == 0 {
        return 0.0;
    }
    (new as f64 - old as f64) * 100.0 / old as f64
}

/// What each lossy format does not hold, once.
pub(super) fn lossy(report: &ReplayReport) -> BTreeMap<&'static str, &str> {
    let captures = report.captures.iter();
    captures
        .filter_map(|capture| Some((capture.format?.name(), capture.loses.as_deref()?)))
        .collect()
}

/// How many tests passed and failed, where the capture has any.
pub(super) fn tests(report: &ReplayReport) -> Option<String> {
    let (passed, failed) = (report.tests_passed, report.tests_failed);
    (passed + failed > 0).then(|| format!("{} passed, {} failed", count(passed), count(failed)))
}

/// The tests that failed.
pub(super) fn failed_tests(report: &ReplayReport) -> Vec<&TestResult> {
    let tests = report.tests.iter();
    tests.filter(|test| !test.missed.is_empty()).collect()
}
