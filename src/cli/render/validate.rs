//! A validation as a document: a row for each check with what to mend below
//! it, then what the module costs.

use std::io::{self, Write};
use std::time::Duration;

use crate::check::CheckStatus;
use crate::ops::validate::{Metrics, ModuleReport, Row, ValidateReport};
use crate::report::{Report as _, Verdict};

use super::format::document;
use super::human::{Paint, Style, bytes, count, short_hash, time};
use super::{Format, Render};
use crate::cli::document::{self, Block, Cell, Column, Document, Span, Table};

impl Render for ValidateReport {
    const FORMATS: &'static [Format] = &[
        Format::Human,
        Format::Json,
        Format::Markdown,
        Format::Html,
        Format::Junit,
        Format::Github,
        Format::Sarif,
    ];

    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()> {
        document(&built(self), format, style, out)
    }
}

fn built(report: &ValidateReport) -> Document {
    let mut blocks = Vec::new();
    for module in &report.modules {
        blocks.push(subject(module));
        blocks.push(Block::Table(rows(module)));
        blocks.extend(module.metrics.as_ref().map(|it| Block::Table(costs(it))));
    }
    let (verdict, totals) = summary(report);
    Document {
        title: "Validation",
        verdict,
        totals,
        blocks,
    }
}

fn subject(module: &ModuleReport) -> Block {
    let mut parts = Vec::new();
    if let Some(facts) = &module.facts {
        parts = vec![bytes(facts.size_bytes), short_hash(&facts.hash)];
        parts.extend(facts.abi.map(|abi| format!("{abi} ABI")));
        let versioned = |producer: &&String| producer.contains(|c: char| c.is_ascii_digit());
        let producer = facts.producers.iter().find(versioned);
        parts.push(
            match (facts.language, producer.or(facts.producers.first())) {
                (Some(language), Some(producer)) => format!("{language:?} ({producer})"),
                (Some(language), None) => format!("{language:?}"),
                (None, Some(producer)) => producer.clone(),
                (None, None) => "unknown toolchain".to_owned(),
            },
        );
    }
    Block::Subject {
        name: module.path.clone(),
        facts: parts.join(", "),
    }
}

fn rows(module: &ModuleReport) -> Table {
    let mut rows = Vec::new();
    for run in module.checks.chunk_by(is_more_of_the_same) {
        if let [first, _, _, ..] = run {
            let mut all = first.clone();
            all.check.id.subject = Some(format!("* ({})", run.len()));
            all.check.expected = String::new();
            rows.push(cells(&all).into());
            continue;
        }
        rows.extend(run.iter().map(whole_row));
    }
    Table {
        columns: vec![
            Column::unbroken(""),
            Column::text("Check"),
            Column::text("Expected"),
            Column::text("Found"),
        ],
        rows,
    }
}

/// Whether two rows were left out for one reason, so that one line will do.
fn is_more_of_the_same(one: &Row, other: &Row) -> bool {
    one.check.status == CheckStatus::Skip
        && other.check.status == CheckStatus::Skip
        && one.check.found == other.check.found
        && one.check.id.kind == other.check.id.kind
}

/// The cells, then what to mend and the detail below them.
fn whole_row(row: &Row) -> document::Row {
    let mut below = Vec::new();
    if !row.check.fix.is_empty() && row.check.status != CheckStatus::Pass {
        below.push(Span::new(Paint::Strong, format!("fix: {}", row.check.fix)));
    }
    if !row.detail.is_empty() {
        below.push(Span::new(Paint::Faint, &row.detail));
    }
    document::Row {
        cells: cells(row),
        below,
    }
}

fn cells(row: &Row) -> Vec<Cell> {
    let (mark, paint) = match row.check.status {
        CheckStatus::Pass => ("✓", Paint::Good),
        CheckStatus::Skip => ("–", Paint::Faint),
        CheckStatus::Warn => ("!", Paint::Warning),
        CheckStatus::Fail => ("✗", Paint::Bad),
    };
    let is_passed = row.check.status == CheckStatus::Pass;
    vec![
        Span::new(paint, mark).into(),
        row.check.id.to_string().into(),
        row.check.expected.as_str().into(),
        Span {
            text: row.check.found.clone(),
            paint: (!is_passed).then_some(paint),
        }
        .into(),
    ]
}

/// Compile, instance, and the fuel of each sample by handler.
fn costs(metrics: &Metrics) -> Table {
    let mut rows = vec![vec![
        "compiled in".into(),
        time(Duration::from_micros(metrics.compile_us)).into(),
    ]];
    if metrics.instance_memory_bytes > 0 {
        let made = time(Duration::from_micros(metrics.instantiate_us));
        let memory = bytes(metrics.instance_memory_bytes);
        rows.push(vec![
            "an instance in".into(),
            format!("{made} with {memory} of memory").into(),
        ]);
    }
    let mut handlers: Vec<&str> = metrics.samples.iter().map(|one| one.handler).collect();
    handlers.dedup();
    for handler in handlers {
        let own = metrics.samples.iter().filter(|one| one.handler == handler);
        let fuel: Vec<(&str, u64)> = own
            .filter_map(|one| Some((one.sample, one.fuel?)))
            .collect();
        // A figure is not to be torn apart at the end of a line.
        let figure = |fuel| count(fuel).replace(' ', "\u{a0}");
        let text = match fuel.as_slice() {
            [] => continue,
            [(_, first), rest @ ..] if rest.iter().all(|(_, fuel)| fuel == first) => {
                format!("{} for each sample", figure(*first))
            }
            fuel => fuel
                .iter()
                .map(|(sample, fuel)| format!("{sample}\u{a0}{}", figure(*fuel)))
                .collect::<Vec<_>>()
                .join(", "),
        };
        rows.push(vec![format!("fuel of {handler}").into(), text.into()]);
    }
    Table {
        columns: vec![Column::text(""), Column::text("")],
        rows: rows.into_iter().map(document::Row::from).collect(),
    }
}

fn summary(report: &ValidateReport) -> (Span, String) {
    let total = |status| -> usize {
        report
            .modules
            .iter()
            .map(|module| module.count(status))
            .sum()
    };
    let (paint, word) = match report.verdict() {
        Verdict::Passed => (Paint::Good, "passed"),
        Verdict::Failed => (Paint::Bad, "failed"),
        Verdict::Unreadable => (Paint::Bad, "unreadable"),
        Verdict::NothingChecked | Verdict::Unchecked => (Paint::Bad, "nothing checked"),
        Verdict::Inconclusive => (Paint::Bad, "inconclusive"),
    };
    let mut parts = vec![format!("{} passed", total(CheckStatus::Pass))];
    for (status, one, more) in [
        (CheckStatus::Fail, "failed", "failed"),
        (CheckStatus::Warn, "warning", "warnings"),
        (CheckStatus::Skip, "not tried", "not tried"),
    ] {
        match total(status) {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            many => parts.push(format!("{many} {more}")),
        }
    }
    let denied = if report.deny_warnings && total(CheckStatus::Warn) > 0 {
        " (warnings are denied)"
    } else {
        ""
    };
    let modules = match report.modules.len() {
        1 => "1 module".to_owned(),
        many => {
            let well = report
                .modules
                .iter()
                .filter(|module| module.verdict == Verdict::Passed)
                .count();
            format!("{many} modules, {well} without a failure")
        }
    };
    let totals = format!(": {modules}; checks: {}{denied}", parts.join(", "));
    (Span::new(paint, word), totals)
}
