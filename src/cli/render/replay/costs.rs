//! What the calls cost: instructions, time and memory.

use crate::ops::replay::ReplayReport;
use crate::ops::replay::histogram::{Histogram, PERCENTILES};
use crate::ops::replay::report::{Costly, Outcomes};

use super::super::human::{bytes, count};
use super::{Amount, table};
use crate::cli::document::{Block, Cell, Chart, Column, Counts, Unit};

/// Percentiles of both sides, their distributions, and what cost most.
pub(super) fn costs(report: &ReplayReport, amount: &Amount, blocks: &mut Vec<Block>) {
    let sides = sides(report);
    if sides.is_empty() {
        return;
    }
    blocks.push(Block::Heading("Costs of a call".to_owned()));
    let measured = |unit| {
        let sides = sides.iter();
        sides.filter_map(move |(side, outcomes)| Some((*side, histogram(outcomes, unit)?)))
    };
    let kinds = [
        ("fuel", "Fuel of a call", Unit::Instructions),
        ("time", "Time of a call", Unit::Nanoseconds),
    ];
    let rows = kinds.iter().flat_map(|(word, _, unit)| {
        measured(*unit).map(move |(side, histogram)| {
            let percentiles = PERCENTILES.map(|(percent, _)| histogram.percentile(percent));
            let figures = percentiles.into_iter().chain([histogram.max()]);
            let name = Cell::from(format!("{word} {side}").trim_end());
            let figures = figures.map(|value| unit.show(value).into());
            std::iter::once(name).chain(figures).collect()
        })
    });
    let figures = PERCENTILES.map(|(_, name)| name).into_iter().chain(["max"]);
    let columns = std::iter::once(Column::text("")).chain(figures.map(Column::figure));
    blocks.push(table(columns.collect(), rows));
    for (side, outcomes) in &sides {
        blocks.push(Block::Text(memory(side, outcomes).into()));
    }
    for (_, title, unit) in kinds {
        let sides = measured(unit).map(|(name, histogram)| Counts {
            name,
            counts: histogram.buckets().collect(),
        });
        let sides: Vec<Counts> = sides.collect();
        if !sides.is_empty() {
            blocks.push(Block::Chart(Chart::Distribution { title, unit, sides }));
        }
    }
    for (title, list, unit) in [
        ("Most expensive", &report.dearest, Unit::Instructions),
        ("Slowest", &report.slowest, Unit::Nanoseconds),
    ] {
        let ranking = Ranking {
            title,
            list,
            unit,
            sign: "",
        };
        ranking.show(amount, blocks);
    }
}

const fn histogram(outcomes: &Outcomes, unit: Unit) -> Option<&Histogram> {
    match unit {
        Unit::Instructions => Some(&outcomes.fuel),
        Unit::Nanoseconds => outcomes.time_ns.as_ref(),
    }
}

/// What each module made of the capture, with `before` or `now` where there are
/// two, and of each that was called at all.
fn sides(report: &ReplayReport) -> Vec<(&'static str, &Outcomes)> {
    let before = report.baseline_outcomes.as_ref();
    let now = report.baseline.as_ref().map_or("", |_| "now");
    let before = before.map(|outcomes| ("before", outcomes));
    let both = before.into_iter().chain([(now, &report.outcomes)]);
    both.filter(|(_, outcomes)| outcomes.calls > 0).collect()
}

/// How much memory the guests had.
fn memory(side: &str, outcomes: &Outcomes) -> String {
    let gap = if side.is_empty() { "" } else { " " };
    format!(
        "memory{gap}{side}: {} at most, grew in {} of {} calls, {} in all",
        bytes(outcomes.memory.max_bytes),
        count(outcomes.memory.growing_calls),
        count(outcomes.calls),
        bytes(outcomes.memory.grown_bytes)
    )
}

/// Transactions by their cost, the greatest first.
pub(super) struct Ranking<'a> {
    pub(super) title: &'a str,
    pub(super) list: &'a [Costly],
    pub(super) unit: Unit,
    /// What stands before each cost.
    pub(super) sign: &'a str,
}

impl Ranking<'_> {
    /// Adds a table, where any cost something.
    pub(super) fn show(&self, amount: &Amount, blocks: &mut Vec<Block>) {
        if self.list.iter().all(|costly| costly.cost == 0) {
            return;
        }
        blocks.push(Block::Heading(self.title.to_owned()));
        let rows = self.list.iter().take(amount.costly).map(|costly| {
            vec![
                format!("{}{}", self.sign, self.unit.show(costly.cost)).into(),
                amount.text(&costly.request, 100).into(),
                amount.text(&costly.decision, 100).into(),
                count(costly.place.record).into(),
            ]
        });
        let columns = vec![
            Column::figure(match self.unit {
                Unit::Instructions => "Instructions",
                Unit::Nanoseconds => "Time",
            }),
            Column::text("Request"),
            Column::text("Decision"),
            Column::figure("Record"),
        ];
        blocks.push(table(columns, rows));
    }
}
