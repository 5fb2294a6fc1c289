//! A replay for people: what was read, what was decided, what changed, what
//! it cost.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment};
use wasm_agent_kit::fault::printable;
use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::histogram::{Histogram, PERCENTILES};
use wasm_agent_kit::ops::replay::report::{Category, Comparison, Costly, Group, Outcomes, percent};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::human::{Paint, Style, bytes, count, plural, time};
use super::{github, json, junit, replay_html, replay_markdown};
use crate::cli::replay::ReplayFormat;

/// Rules, tags and groups that are shown; the JSON has all.
const SHOWN: usize = 12;

/// Writes the report in the format asked for.
pub(crate) fn write(
    report: &ReplayReport,
    format: ReplayFormat,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        ReplayFormat::Human => human(report, style, out),
        ReplayFormat::Json => json::write(report, out),
        // Written while the replay went on.
        ReplayFormat::Jsonl => Ok(()),
        ReplayFormat::Junit => junit::write(report, out),
        ReplayFormat::Markdown => replay_markdown::write(report, out),
        ReplayFormat::Html => replay_html::write(report, out),
        ReplayFormat::Github => github::write(report, out),
    }
}

fn human(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for (word, module) in [
        ("baseline", report.baseline.as_ref()),
        ("module", Some(&report.module)),
    ] {
        let Some(module) = module else { continue };
        writeln!(
            out,
            "{:<9} {}  {}, {}",
            if report.baseline.is_some() {
                word
            } else {
                "module"
            },
            style.paint(Paint::Strong, &printable(&module.path, 512)),
            bytes(module.size_bytes),
            module.hash.get(..19).unwrap_or(&module.hash),
        )?;
    }
    input(report, style, out)?;
    decisions(report, style, out)?;
    costs(report, style, out)?;
    if let Some(comparison) = &report.comparison {
        compared(comparison, "the baseline", style, out)?;
    }
    if let Some(drift) = &report.drift {
        compared(drift, "the decisions taken at the time", style, out)?;
    }
    if !report.faulted.is_empty() {
        writeln!(out, "\n{}", style.paint(Paint::Bad, "faults"))?;
        groups(&report.faulted, style, out)?;
    }
    tests(report, style, out)?;
    if report.fixtures_written > 0 {
        writeln!(out, "\n{} fixtures written", count(report.fixtures_written))?;
    }
    writeln!(out, "\n{}", conclusion(report, style))
}

/// The files, and what of them could not be used.
fn input(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for capture in report.captures.iter().take(SHOWN) {
        let format = capture.format.map_or("unreadable", |format| format.name());
        writeln!(
            out,
            "{:<9} {}  {format}",
            "capture",
            printable(&capture.file, 512)
        )?;
    }
    let more = report.captures.len().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(out, "{:<9} and {more} more", "")?;
    }
    if let Some(shard) = report.shard {
        writeln!(out, "{:<9} {} of {}", "shard", shard.index, shard.of)?;
    }
    for (format, loses) in lossy(report) {
        let text = style.wrapped(&format!("{format} is lossy: {loses}"));
        writeln!(out, "{}", style.paint(Paint::Faint, &text))?;
    }
    for (remark, number) in &report.remarks {
        let text = style.wrapped(&format!("{} × {}", count(*number), remark.explain()));
        writeln!(out, "{}", style.paint(Paint::Faint, &text))?;
    }
    let records = &report.records;
    if records.unusable > 0 {
        let text = plural(records.unusable, "unusable record");
        writeln!(out, "{}", style.paint(Paint::Warning, &text))?;
        for unusable in report.unusable.iter().take(SHOWN) {
            writeln!(
                out,
                "  {} record {} at byte {}: {}",
                printable(&unusable.place.file, 512),
                unusable.place.record,
                unusable.place.offset,
                printable(&unusable.why, 512)
            )?;
        }
        let more = records.unusable.saturating_sub(SHOWN as u64);
        if more > 0 && report.unusable.len() > SHOWN {
            writeln!(out, "  and {} more", count(more))?;
        }
    }
    Ok(())
}

/// What each lossy format does not hold, once.
pub(super) fn lossy(report: &ReplayReport) -> BTreeMap<&'static str, &str> {
    report
        .captures
        .iter()
        .filter_map(|capture| Some((capture.format?.name(), capture.loses.as_deref()?)))
        .collect()
}

fn decisions(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let now = &report.outcomes;
    let before = report.baseline_outcomes.as_ref();
    type Kind = fn(&Outcomes) -> &BTreeMap<String, u64>;
    let kinds: [(&str, Kind); 4] = [
        ("Decision", |outcomes| &outcomes.decisions),
        ("Rule", |outcomes| &outcomes.rules),
        ("Tag", |outcomes| &outcomes.tags),
        ("Fault", |outcomes| &outcomes.faults),
    ];
    for (heading, kind) in kinds {
        let rows = beside(kind(now), before.map(kind));
        if rows.is_empty() {
            continue;
        }
        let mut headings = vec![heading];
        headings.extend(if before.is_some() {
            vec!["Before", "Now", ""]
        } else {
            vec!["Transactions", "Share"]
        });
        let mut table = style.table(&headings);
        let all = report.records.transactions;
        for (word, old, new) in rows.iter().take(SHOWN) {
            let figure = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            let mut row = vec![decision_cell(heading, word)];
            if before.is_some() {
                let delta = i128::from(*new) - i128::from(*old);
                row.push(figure(count(*old)));
                row.push(figure(count(*new)));
                row.push(figure(if delta == 0 {
                    String::new()
                } else {
                    format!("{delta:+}")
                }));
            } else {
                row.push(figure(count(*new)));
                row.push(figure(format!("{:.2} %", percent(*new, all))));
            }
            table.add_row(row);
        }
        Style::tighten(&mut table, &[1, 2, 3]);
        writeln!(out, "\n{}", table.trim_fmt())?;
        if rows.len() > SHOWN {
            writeln!(out, "and {} more", rows.len() - SHOWN)?;
        }
    }
    Ok(())
}

fn decision_cell(heading: &str, word: &str) -> Cell {
    let shown = printable(word, 80);
    match heading {
        "Decision" if matches!(word, "allow" | "ok" | "ok changed") => Paint::Good.cell(&shown),
        "Decision" if word.starts_with("block") || word.starts_with("refused") => {
            Paint::Bad.cell(&shown)
        }
        "Decision" => Paint::Warning.cell(&shown),
        "Fault" => Paint::Bad.cell(&shown),
        _ => Cell::new(shown),
    }
}

/// Words with their counts before and now, the most frequent first.
pub(super) fn beside<'a>(
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

/// `p50 39 472, p90 …`.
fn percentiles(histogram: &Histogram, show: impl Fn(u64) -> String) -> String {
    let mut parts: Vec<String> = PERCENTILES
        .iter()
        .map(|(percent, name)| format!("{name} {}", show(histogram.percentile(*percent))))
        .collect();
    parts.push(format!("max {}", show(histogram.max())));
    parts.join(", ")
}

fn costs(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    let sides = [
        ("before", report.baseline_outcomes.as_ref()),
        ("now", Some(&report.outcomes)),
    ];
    for (word, outcomes) in sides {
        let Some(outcomes) = outcomes else { continue };
        let word = if report.baseline.is_some() {
            format!(" {word}")
        } else {
            String::new()
        };
        if outcomes.calls == 0 {
            continue;
        }
        writeln!(
            out,
            "fuel a call{word}: {}",
            percentiles(&outcomes.fuel, count)
        )?;
        if let Some(times) = &outcomes.time_ns {
            let show = |nanos| time(Duration::from_nanos(nanos));
            writeln!(out, "time a call{word}: {}", percentiles(times, show))?;
        }
        writeln!(
            out,
            "memory{word}: {} at most, grew in {} of {} calls, {} in all",
            bytes(outcomes.memory.max_bytes),
            count(outcomes.memory.growing_calls),
            count(outcomes.calls),
            bytes(outcomes.memory.grown_bytes)
        )?;
    }
    type Show = fn(u64) -> String;
    let lists: [(&str, &[Costly], Show); 2] = [
        ("Dearest", &report.dearest, |fuel| {
            format!("{} instructions", count(fuel))
        }),
        ("Slowest", &report.slowest, |nanos| {
            time(Duration::from_nanos(nanos))
        }),
    ];
    for (heading, list, show) in lists {
        if list.is_empty() || list.iter().all(|costly| costly.cost == 0) {
            continue;
        }
        let mut table = style.table(&[heading, "Request", "Decision", "Record"]);
        for costly in list.iter().take(5) {
            table.add_row([
                Cell::new(show(costly.cost)).set_alignment(CellAlignment::Right),
                Cell::new(printable(&costly.request, 100)),
                Cell::new(&costly.decision),
                Cell::new(costly.place.record),
            ]);
        }
        Style::tighten(&mut table, &[0, 2, 3]);
        writeln!(out, "\n{}", table.trim_fmt())?;
    }
    Ok(())
}

fn compared(
    comparison: &Comparison,
    with: &str,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "\n{}",
        style.paint(
            Paint::Strong,
            &format!(
                "beside {with}: {}",
                plural(comparison.compared, "transaction")
            )
        )
    )?;
    for category in Category::ALL {
        let number = comparison.count(category);
        let text = format!(
            "{:>12}  {}  {:.2} %",
            count(number),
            category.name(),
            percent(number, comparison.compared)
        );
        let paint = match category {
            _ if number == 0 => Paint::Faint,
            Category::Faulted | Category::Decision => Paint::Bad,
            Category::Details => Paint::Warning,
            Category::Unchanged => Paint::Good,
        };
        writeln!(out, "{}", style.paint(paint, &text))?;
    }
    if let Some(fuel) = &comparison.fuel {
        let sign = if fuel.new < fuel.old { '-' } else { '+' };
        writeln!(
            out,
            "fuel {} → {} ({sign}{}, {:+.2} %); {} transactions cost more, {} less, {} the same",
            count(fuel.old),
            count(fuel.new),
            count(fuel.new.abs_diff(fuel.old)),
            relative(fuel.old, fuel.new),
            count(fuel.more),
            count(fuel.less),
            count(fuel.equal)
        )?;
    }
    groups(&comparison.groups, style, out)
}

/// The change from one figure to the other, in percent.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
pub(super) fn relative(old: u64, new: u64) -> f64 {
    if old == 0 {
        return 0.0;
    }
    (new as f64 - old as f64) * 100.0 / old as f64
}

fn groups(groups: &[Group], style: Style, out: &mut dyn Write) -> io::Result<()> {
    for group in groups.iter().take(SHOWN) {
        let paint = match group.category {
            Category::Faulted | Category::Decision => Paint::Bad,
            Category::Details | Category::Unchanged => Paint::Warning,
        };
        writeln!(
            out,
            "{}",
            style.paint(
                paint,
                &format!("  {} × {}", count(group.count), group.title())
            )
        )?;
        for example in &group.examples {
            writeln!(
                out,
                "      {}  {}",
                printable(&example.request, 120),
                style.paint(
                    Paint::Faint,
                    &format!(
                        "{} record {}",
                        printable(&example.place.file, 200),
                        example.place.record
                    )
                )
            )?;
            if let Some(minimized) = &example.minimized {
                writeln!(out, "      smallest: {}", smallest(minimized))?;
            }
            for note in &example.notes {
                writeln!(
                    out,
                    "      {}",
                    style.paint(Paint::Faint, &printable(note, 300))
                )?;
            }
        }
    }
    if groups.len() > SHOWN {
        writeln!(out, "  and {} more groups", groups.len() - SHOWN)?;
    }
    Ok(())
}

/// The inputs of a minimised fixture, on one line: of its steps, or the context
/// of its hooks and the data of the second.
pub(super) fn smallest(fixture: &serde_json::Value) -> String {
    let steps = fixture.get("steps").and_then(serde_json::Value::as_array);
    let inputs: Vec<String> = match steps {
        Some(steps) => steps
            .iter()
            .filter_map(|step| step.get("input"))
            .map(ToString::to_string)
            .collect(),
        None => [fixture.get("context"), fixture.pointer("/after/data")]
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
    };
    printable(&inputs.join(" "), 400)
}

fn tests(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if report.tests_passed + report.tests_failed == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "\ntests: {} passed, {} failed",
        count(report.tests_passed),
        count(report.tests_failed)
    )?;
    let failed: Vec<_> = report
        .tests
        .iter()
        .filter(|test| !test.missed.is_empty())
        .collect();
    for test in failed.iter().take(SHOWN) {
        writeln!(
            out,
            "  {} {} {}",
            style.paint(Paint::Bad, "✗"),
            printable(&test.test, 80),
            style.paint(Paint::Faint, &printable(&test.place.file, 200))
        )?;
        for missed in &test.missed {
            writeln!(out, "      {}", printable(missed, 200))?;
        }
    }
    if failed.len() > SHOWN {
        writeln!(out, "  and {} more", failed.len() - SHOWN)?;
    }
    Ok(())
}

fn conclusion(report: &ReplayReport, style: Style) -> String {
    let (paint, word) = match report.verdict() {
        Verdict::Passed => (Paint::Good, "passed"),
        Verdict::Failed => (Paint::Bad, "failed"),
        Verdict::Unreadable => (Paint::Bad, "unreadable"),
        Verdict::NothingChecked => (Paint::Warning, "nothing was checked"),
        Verdict::Inconclusive => (Paint::Warning, "interrupted"),
    };
    let records = &report.records;
    let mut parts = vec![plural(records.transactions, "transaction")];
    if records.unusable > 0 {
        parts.push(plural(records.unusable, "unusable record"));
    }
    for (number, word) in [
        (records.not_selected, "not selected"),
        (records.skipped, "left out"),
    ] {
        if number > 0 {
            parts.push(format!("{} {word}", count(number)));
        }
    }
    if let Some(judged) = report.judged() {
        let changed = judged.compared - judged.count(Category::Unchanged);
        parts.push(format!("{} changed", count(changed)));
    }
    let faults: u64 = report.outcomes.faults.values().sum();
    parts.push(plural(faults, "fault"));
    style.paint(paint, &format!("{word}: {}", parts.join(", ")))
}
