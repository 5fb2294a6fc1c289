//! Hooks for people: a table of results, and each context as a diff.

use std::io::{self, Write};

use comfy_table::Cell;
use wasm_agent_kit::fault::printable;
use wasm_agent_kit::hook::Change;
use wasm_agent_kit::ops::run::{FixtureResult, HookOutcome, RunReport, StepResult};

use super::super::human::{Paint, Style};
use super::{SHOWN, figures, fitted, fixed, mark, name};

/// Changes of one hook that are shown; the JSON report has all of them.
const MAX_CHANGES: usize = 20;

/// A row for each hook.
pub(super) fn table(report: &RunReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let handlers = report.module.handlers.join(", ");
    writeln!(
        out,
        "{}",
        style.paint(
            Paint::Faint,
            &format!("hook ABI, because the module exports {handlers}")
        )
    )?;
    let steps: usize = report.fixtures.iter().map(|it| it.steps.len()).sum();
    if steps == 0 {
        return Ok(());
    }
    let headings = ["", "Fixture", "Result", "Changes", "Fuel", "Time", "Memory"];
    let columns = match (style.is_narrow(), style.is_slim()) {
        (false, _) => 7,
        (true, false) => 6,
        (true, true) => 5,
    };
    let mut table = style.table(&headings[..columns]);
    for fixture in &report.fixtures {
        for (index, step) in fixture.steps.iter().enumerate() {
            let cells = row(fixture, index, step, style);
            table.add_row(cells.into_iter().take(columns));
        }
    }
    Style::tighten(&mut table, fixed(style, &[0, 4, 5, 6]));
    writeln!(out, "{}", table.trim_fmt())
}

fn row(fixture: &FixtureResult, index: usize, step: &StepResult, style: Style) -> Vec<Cell> {
    let (mark, paint) = mark(step.status);
    let hook = step.hook.as_ref();
    let mut row = vec![
        paint.cell(mark),
        Cell::new(fitted(&name(fixture, index, step), 40, style)),
        hook.map_or_else(
            || Paint::Faint.cell("not reached"),
            |outcome| result(outcome, style),
        ),
        Cell::new(fitted(&hook.map(counted).unwrap_or_default(), 25, style)),
    ];
    row.extend(figures(step));
    row
}

fn result(outcome: &HookOutcome, style: Style) -> Cell {
    let result = &outcome.result;
    if result.ok {
        return Paint::Good.cell("ok");
    }
    let error = result.error.as_deref().unwrap_or("no reason given");
    let text = format!("refused: {}", printable(error, SHOWN));
    Paint::Bad.cell(&fitted(&text, 35, style))
}

/// How many of each kind.
fn counted(outcome: &HookOutcome) -> String {
    let kinds = [
        (outcome.changed.len(), "changed"),
        (outcome.ignored.len(), "ignored"),
    ];
    let counted: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    counted.join(", ")
}

/// What each hook changed, and what it would have changed and may not.
pub(super) fn changes(
    fixture: &FixtureResult,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    for step in &fixture.steps {
        let Some(outcome) = &step.hook else { continue };
        let details = outcome.result.details.as_deref().unwrap_or_default();
        if outcome.changed.is_empty() && outcome.ignored.is_empty() && details.is_empty() {
            continue;
        }
        writeln!(
            out,
            "{} ({})",
            style.paint(Paint::Strong, &printable(&fixture.name, SHOWN)),
            step.event
        )?;
        diff(&outcome.changed, "", style, out)?;
        diff(
            &outcome.ignored,
            ", ignored: a hook may change only input and data",
            style,
            out,
        )?;
        for detail in details.iter().take(MAX_CHANGES) {
            let detail = printable(&detail.to_string(), SHOWN);
            writeln!(out, "    detail {detail}")?;
        }
        more(details.len(), out)?;
    }
    Ok(())
}

fn diff(changes: &[Change], remark: &str, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for change in changes.iter().take(MAX_CHANGES) {
        let path = printable(&change.path, SHOWN);
        writeln!(out, "    {path}{}", style.paint(Paint::Warning, remark))?;
        let sides = [
            ("-", &change.before, Paint::Bad),
            ("+", &change.after, Paint::Good),
        ];
        for (sign, value, paint) in sides {
            let value = value.as_ref().map(ToString::to_string);
            let value = printable(value.as_deref().unwrap_or("none"), SHOWN);
            let paint = if remark.is_empty() {
                paint
            } else {
                Paint::Faint
            };
            writeln!(
                out,
                "      {}",
                style.paint(paint, &format!("{sign} {value}"))
            )?;
        }
    }
    more(changes.len(), out)
}

fn more(count: usize, out: &mut dyn Write) -> io::Result<()> {
    match count.saturating_sub(MAX_CHANGES) {
        0 => Ok(()),
        rest => writeln!(out, "    and {rest} more"),
    }
}
