//! A replay for people: what was read, what was decided, what changed, what
//! it cost.

mod figures;
mod html;
mod markdown;

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment};
use wasm_agent_kit::fault::printable;
use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::report::{Category, Comparison, Costly, Group};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::escape::terminal;
use super::human::{Paint, Style, bytes, count, plural, short_hash};
use super::{Format, Render};

/// Rules, tags and groups that are shown; the JSON has all.
const SHOWN: usize = 12;

impl Render for ReplayReport {
    const FORMATS: &'static [Format] = &[
        Format::Human,
        Format::Json,
        Format::Jsonl,
        Format::Junit,
        Format::Markdown,
        Format::Html,
        Format::Github,
    ];

    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()> {
        match format {
            // Written while the replay went on.
            Format::Jsonl => Ok(()),
            Format::Markdown => Style::plain().guarded(out, |out| markdown::write(self, out)),
            Format::Html => html::write(self, out),
            _ => style.guarded(out, |out| human(self, style, out)),
        }
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
            short_hash(&module.hash),
        )?;
    }
    input(report, style, out)?;
    decisions(report, style, out)?;
    costs(report, style, out)?;
    if let Some(comparison) = &report.comparison {
        compared(comparison, "the baseline", style, out)?;
    }
    if let Some(drift) = &report.drift {
        compared(drift, "the recorded decisions", style, out)?;
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
    for (format, loses) in figures::lossy(report) {
        let text = style.wrapped(&terminal(&format!("{format} is lossy: {loses}")));
        writeln!(out, "{}", style.paint(Paint::Faint, &text))?;
    }
    for (remark, number) in &report.remarks {
        let text = style.wrapped(&format!(
            "{}: {}",
            plural(*number, "transaction"),
            remark.explain()
        ));
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

fn decisions(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for words in figures::words(report) {
        let headings = [&[words.heading], words.columns].concat();
        let mut table = style.table(&headings);
        for (word, figures) in words.rows.iter().take(SHOWN) {
            let figure = |text| Cell::new(text).set_alignment(CellAlignment::Right);
            let mut row = vec![decision_cell(words.heading, word)];
            row.extend(figures.iter().map(figure));
            table.add_row(row);
        }
        Style::tighten(&mut table, &[1, 2, 3]);
        writeln!(out, "\n{}", table.trim_fmt())?;
        if words.rows.len() > SHOWN {
            writeln!(out, "and {} more", words.rows.len() - SHOWN)?;
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

fn costs(report: &ReplayReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    for (side, outcomes) in figures::sides(report) {
        for (of, figures) in figures::costs(outcomes) {
            let named = figures::cost_columns().zip(figures);
            let figures: Vec<String> = named.map(|(name, text)| format!("{name} {text}")).collect();
            writeln!(out, "{of} a call{side}: {}", figures.join(", "))?;
        }
        writeln!(out, "memory{side}: {}", figures::memory(outcomes))?;
    }
    type Show = fn(u64) -> String;
    let lists: [(&str, &[Costly], Show); 2] = [
        ("Most expensive", &report.dearest, |fuel| {
            format!("{} instructions", count(fuel))
        }),
        ("Slowest", &report.slowest, figures::nanos),
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
                Cell::new(printable(&costly.decision, 100)),
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
                "compared with {with}: {}",
                plural(comparison.compared, "transaction")
            )
        )
    )?;
    for (category, number, share) in figures::categories(comparison) {
        let text = format!("{:>12}  {}  {share}", count(number), category.name());
        let paint = match category {
            _ if number == 0 => Paint::Faint,
            Category::Faulted | Category::Decision => Paint::Bad,
            Category::Details => Paint::Warning,
            Category::Unchanged => Paint::Good,
        };
        writeln!(out, "{}", style.paint(paint, &text))?;
    }
    if let Some(fuel) = &comparison.fuel {
        writeln!(out, "fuel {}", figures::fuel(fuel))?;
    }
    groups(&comparison.groups, style, out)
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
                &format!("  {} × {}", count(group.count), terminal(&group.title()))
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
    let Some(tests) = figures::tests(report) else {
        return Ok(());
    };
    writeln!(out, "\ntests: {tests}")?;
    let failed = figures::failed_tests(report);
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
    let paint = match report.verdict() {
        Verdict::Passed => Paint::Good,
        Verdict::Failed | Verdict::Unreadable => Paint::Bad,
        Verdict::NothingChecked | Verdict::Inconclusive => Paint::Warning,
    };
    let word = figures::verdict_word(report);
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
