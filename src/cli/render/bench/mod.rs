//! A benchmark as tables for people and pull requests, as lines of figures,
//! and as a page.

mod csv;
mod html;
pub(crate) mod profile;
mod sheets;

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment};
use wasm_agent_kit::fault::printable;
use wasm_agent_kit::guest::engine;
use wasm_agent_kit::ops::bench::{BenchReport, GateVerdict, LoadPoint};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::escape::{self, terminal};
use super::human::{Paint, Style, bytes, plural, short_hash, time};
use super::{Format, Render};
use sheets::{Sheet, Width, grouped};

impl Render for BenchReport {
    const FORMATS: &'static [Format] = &[
        Format::Human,
        Format::Json,
        Format::Csv,
        Format::Markdown,
        Format::Html,
        Format::Junit,
        Format::Github,
    ];

    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Csv => Style::plain().guarded(out, |out| csv::write(self, out)),
            Format::Markdown => Style::plain().guarded(out, |out| markdown(self, out)),
            Format::Html => html::write(self, out),
            _ => style.guarded(out, |out| human(self, style, out)),
        }
    }
}

fn human(report: &BenchReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (title, about) = heading(report);
    writeln!(
        out,
        "{}",
        style.paint(Paint::Strong, &style.wrapped(&title))
    )?;
    for line in about {
        writeln!(out, "{}", style.paint(Paint::Faint, &style.wrapped(&line)))?;
    }
    let width = if style.is_slim() {
        Width::Slim
    } else if style.is_narrow() {
        Width::Narrow
    } else if style.is_wide() {
        Width::Wide
    } else {
        Width::Usual
    };
    for sheet in sheets::of(report, width) {
        writeln!(out, "\n{}", style.paint(Paint::Strong, sheet.title))?;
        if !sheet.rows.is_empty() {
            writeln!(out, "{}", table(&sheet, style))?;
        }
        for note in &sheet.notes {
            writeln!(out, "{}", style.paint(Paint::Faint, &style.wrapped(note)))?;
        }
        if sheet.title == sheets::LOADS {
            plot(report, style, out)?;
        }
    }
    if let Some(advice) = &report.advice {
        writeln!(out, "\n{}", style.wrapped(&terminal(&advice.text)))?;
        if let Some(flags) = &advice.flags {
            writeln!(out, "  {}", style.paint(Paint::Good, &terminal(flags)))?;
        }
    }
    for note in &report.notes {
        let note = style.wrapped(&terminal(&format!("note: {note}")));
        let word = style.paint(Paint::Warning, "note:");
        writeln!(out, "{}", note.replacen("note:", &word, 1))?;
    }
    writeln!(out, "\n{}", verdict(report, style))
}

/// The module or the agent, and where it was measured.
fn heading(report: &BenchReport) -> (String, Vec<String>) {
    let title = report.module.as_ref().map_or_else(
        || {
            let target = report.target.as_deref().unwrap_or_default();
            printable(&format!("agent at {target}"), 512)
        },
        |module| {
            format!(
                "{}  {}, {}",
                printable(&module.path, 512),
                bytes(module.size_bytes),
                short_hash(&module.hash),
            )
        },
    );
    let machine = &report.machine;
    let about = format!(
        "{}, {}, {}, {}, {} build",
        printable(&machine.processor, 120),
        plural(machine.cores as u64, "core"),
        printable(&machine.kernel, 80),
        engine::version(),
        machine.build,
    );
    let mut lines = vec![about];
    let flag = |key| report.settings.get(key).map(String::as_str);
    if let Some(protocol) = flag("protocol") {
        lines.push(format!("protocol {protocol}"));
    } else {
        // A hook module has no header names.
        let flags = [
            ("isolation", "isolation"),
            ("timeout", "timeout"),
            ("fuel limit", "fuel"),
            ("header names", "header_names"),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(name, key)| Some(format!("{name} {}", flag(key)?)));
        lines.push(flags.collect::<Vec<_>>().join(", "));
    }
    (title, lines)
}

fn table(sheet: &Sheet, style: Style) -> comfy_table::Table {
    let mut table = style.table(&sheet.headings);
    for row in &sheet.rows {
        table.add_row(row.cells.iter().enumerate().map(|(column, text)| {
            let cell = match row.paint {
                Some(paint) => paint.cell(text),
                None => Cell::new(text),
            };
            if sheet.figures.contains(&column) {
                cell.set_alignment(CellAlignment::Right)
            } else {
                cell
            }
        }));
    }
    for column in &sheet.figures {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let unbroken: Vec<usize> = sheet
        .figures
        .iter()
        .copied()
        .chain(sheet.unbroken)
        .collect();
    Style::tighten(&mut table, &unbroken);
    table
}

/// Throughput and p99 over the size of the pool, with as many callers as did
/// the most.
fn plot(report: &BenchReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut best: Vec<&LoadPoint> = Vec::new();
    for point in &report.loads {
        match best
            .iter_mut()
            .find(|other| other.pool_size == point.pool_size)
        {
            Some(other) if other.throughput < point.throughput => *other = point,
            Some(_) => {}
            None => best.push(point),
        }
    }
    if best.len() < 2 {
        return Ok(());
    }
    let most = best
        .iter()
        .map(|point| point.throughput)
        .fold(0.0, f64::max);
    let width = style.width().saturating_sub(46).clamp(8, 48);
    writeln!(out)?;
    for point in best {
        let bar = bar(point.throughput / most, width);
        writeln!(
            out,
            "pool {:>3}  {}  {:>9}/s  p99 {:>9}",
            point.pool_size,
            style.paint(Paint::Good, &bar),
            grouped(point.throughput),
            time(point.response.at(0.99)),
        )?;
    }
    Ok(())
}

/// A bar of so many columns, in eighths.
fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a terminal's width"
    )]
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if let Some(part) = (eighths % 8).checked_sub(1) {
        bar.push(EIGHTHS[part]);
    }
    let drawn = eighths.div_ceil(8);
    bar.push_str(&" ".repeat(width.saturating_sub(drawn)));
    bar
}

/// How it came out, in a line.
fn verdict(report: &BenchReport, style: Style) -> String {
    if let Some(failure) = &report.failure {
        let text = printable(&failure.to_string(), 1024);
        let (paint, word) = match failure.others {
            Some(_) => (Paint::Warning, "inconclusive"),
            None => (Paint::Bad, "failed"),
        };
        return style.paint(paint, &style.wrapped(&format!("{word}: {text}")));
    }
    let Some(comparison) = &report.comparison else {
        let text = format!("measured {}", plural(report.cases.len() as u64, "event"));
        return style.paint(Paint::Good, &text);
    };
    let (paint, word) = match report.verdict() {
        Verdict::Passed => (Paint::Good, "better or equal"),
        Verdict::Inconclusive => (Paint::Warning, "inconclusive"),
        Verdict::Failed => (Paint::Bad, "regressed"),
        Verdict::Unreadable | Verdict::NothingChecked => (Paint::Warning, "nothing was compared"),
    };
    let counts = [
        (GateVerdict::Regressed, "regressed"),
        (GateVerdict::Inconclusive, "inconclusive"),
        (GateVerdict::BetterOrEqual, "better or equal"),
    ]
    .map(|(verdict, word)| format!("{} {word}", comparison.count(verdict)));
    let text = format!("{word}: {}", counts.join(", "));
    style.paint(paint, &style.wrapped(&text))
}

fn markdown(report: &BenchReport, out: &mut dyn Write) -> io::Result<()> {
    let (title, about) = heading(report);
    writeln!(out, "### {}\n", escape::markdown_code(&title))?;
    let about: Vec<String> = about.iter().map(|line| escape::markdown(line)).collect();
    writeln!(out, "{}\n", about.join("  \n"))?;
    let verdict = verdict(report, Style::plain());
    writeln!(out, "**{}**", escape::markdown(&verdict))?;
    let cell = |text: &str| escape::markdown(&printable(text, 200));
    for sheet in sheets::of(report, Width::Wide) {
        writeln!(out, "\n#### {}\n", sheet.title)?;
        if !sheet.rows.is_empty() {
            let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
            let headings = sheet.headings.iter().map(|heading| cell(heading));
            writeln!(out, "{}", line(headings.collect()))?;
            let rules = (0..sheet.headings.len()).map(|column| {
                if sheet.figures.contains(&column) {
                    "--:".to_owned()
                } else {
                    "---".to_owned()
                }
            });
            writeln!(out, "{}", line(rules.collect()))?;
            for row in &sheet.rows {
                writeln!(
                    out,
                    "{}",
                    line(row.cells.iter().map(|text| cell(text)).collect())
                )?;
            }
        }
        for note in &sheet.notes {
            writeln!(out, "\n{}", escape::markdown(note))?;
        }
    }
    if let Some(advice) = &report.advice {
        writeln!(out, "\n{}", escape::markdown(&advice.text))?;
        if let Some(flags) = &advice.flags {
            writeln!(out, "\n{}", escape::markdown_code(flags))?;
        }
    }
    for note in &report.notes {
        writeln!(out, "\nNote: {}", escape::markdown(note))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_they_are_told() {
        for (share, drawn) in [(0.0, "    "), (0.5, "██  "), (1.0, "████"), (0.28, "█▏  ")]
        {
            assert_eq!(bar(share, 4), drawn);
        }
        assert_eq!(bar(7.0, 2), "██");
        assert_eq!(bar(f64::NAN, 2), "  ");
    }
}
