//! A validation for people: a row for each check, what to mend below it, then
//! what the module costs.

use std::io::{self, Write};
use std::time::Duration;

use wasm_agent_kit::guest::contract::CheckStatus;
use wasm_agent_kit::ops::validate::{Metrics, ModuleReport, Row, ValidateReport};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::escape::terminal;
use super::human::{Paint, Style, bytes, count, short_hash, time, wrap};
use super::{github, json, junit, sarif};
use crate::cli::validate::ValidateFormat;

/// A check's name is not given more columns than this.
const WIDEST_NAME: usize = 40;
/// Of what is left, the share in percent that what was expected may claim.
const EXPECTED_PERCENT: usize = 42;

/// Writes the report in the format asked for.
pub(crate) fn write(
    report: &ValidateReport,
    format: ValidateFormat,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        ValidateFormat::Human => style.guarded(out, |out| human(report, style, out)),
        ValidateFormat::Json => json::write(report, out),
        ValidateFormat::Junit => junit::write(report, out),
        ValidateFormat::Github => github::write(report, out),
        ValidateFormat::Sarif => sarif::write(report, out),
    }
}

fn human(report: &ValidateReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    for module in &report.modules {
        heading(module, style, out)?;
        rows(module, style, out)?;
        if let Some(metrics) = &module.metrics {
            figures(metrics, style, out)?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{}", summary(report, style))
}

fn heading(module: &ModuleReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    write!(
        out,
        "{}",
        style.paint(Paint::Strong, &terminal(&module.path))
    )?;
    let Some(facts) = &module.facts else {
        return writeln!(out);
    };
    let mut parts = vec![bytes(facts.size_bytes), short_hash(&facts.hash)];
    parts.extend(facts.abi.map(|abi| format!("{abi} ABI")));
    let versioned = |producer: &&String| producer.contains(|c: char| c.is_ascii_digit());
    let producer = facts.producers.iter().find(versioned);
    parts.push(
        match (facts.language, producer.or(facts.producers.first())) {
            (Some(language), Some(producer)) => format!("{language} ({producer})"),
            (Some(language), None) => language.to_owned(),
            (None, Some(producer)) => producer.clone(),
            (None, None) => "unknown toolchain".to_owned(),
        },
    );
    let line = terminal(&parts.join(", "));
    if module.path.chars().count() + 2 + line.chars().count() <= style.width() {
        writeln!(out, "  {line}")
    } else {
        writeln!(out)?;
        lines(out, "  ", &wrap(&line, style.width().saturating_sub(2)))
    }
}

/// The columns of one module's rows.
struct Columns {
    name: usize,
    expected: usize,
    found: usize,
}

impl Columns {
    fn of(module: &ModuleReport, style: Style) -> Self {
        let longest = |text: fn(&Row) -> &str| {
            module
                .checks
                .iter()
                .map(|row| text(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let name = longest(|row| &row.check.id).clamp("Check".len(), WIDEST_NAME);
        let name = name.min(style.width() * 2 / 5);
        // The mark, and two spaces between columns.
        let left = style.width().saturating_sub(2 + name + 4);
        let share = left * EXPECTED_PERCENT / 100;
        let unused = left.saturating_sub(longest(|row| &row.check.found));
        let most = share.max(unused).max("Expected".len());
        let expected = longest(|row| &row.check.expected).clamp("Expected".len(), most);
        Self {
            name,
            expected,
            found: left.saturating_sub(expected).max(10),
        }
    }
}

fn rows(module: &ModuleReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let columns = Columns::of(module, style);
    let (name, expected) = (columns.name, columns.expected);
    let headings = format!("  {:name$}  {:expected$}  Found", "Check", "Expected");
    writeln!(out, "{}", style.paint(Paint::Faint, &headings))?;
    for run in module.checks.chunk_by(is_more_of_the_same) {
        if let [first, _, _, ..] = run {
            let mut all = first.clone();
            all.check.id = format!("{}:* ({})", family(first), run.len());
            all.check.expected = String::new();
            cells(&all, &columns, style, out)?;
            continue;
        }
        for row in run {
            whole_row(row, &columns, style, out)?;
        }
    }
    Ok(())
}

/// Whether two rows were left out for one reason, so that one line will do.
fn is_more_of_the_same(one: &Row, other: &Row) -> bool {
    one.check.status == CheckStatus::Skip
        && other.check.status == CheckStatus::Skip
        && one.check.found == other.check.found
        && family(one) == family(other)
}

/// A check's id up to the first colon.
fn family(row: &Row) -> &str {
    row.check.id.split(':').next().unwrap_or_default()
}

/// The cells, then what to mend and the detail below them.
fn whole_row(row: &Row, columns: &Columns, style: Style, out: &mut dyn Write) -> io::Result<()> {
    cells(row, columns, style, out)?;
    let indent = " ".repeat(6);
    let room = style.width().saturating_sub(indent.len());
    if !row.check.fix.is_empty() && row.check.status != CheckStatus::Pass {
        for line in wrap(&terminal(&format!("fix: {}", row.check.fix)), room) {
            writeln!(out, "{indent}{}", style.paint(Paint::Strong, &line))?;
        }
    }
    let detail = row.detail.lines().map(terminal);
    for line in detail.flat_map(|line| wrap_code(&line, room)) {
        writeln!(out, "{indent}{}", style.paint(Paint::Faint, &line))?;
    }
    Ok(())
}

fn cells(row: &Row, columns: &Columns, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (mark, paint) = match row.check.status {
        CheckStatus::Pass => ("✓", Paint::Good),
        CheckStatus::Skip => ("–", Paint::Faint),
        CheckStatus::Warn => ("!", Paint::Warning),
        CheckStatus::Fail => ("✗", Paint::Bad),
    };
    let cells = [
        wrap(&terminal(&row.check.id), columns.name),
        wrap(&terminal(&row.check.expected), columns.expected),
        wrap(&terminal(&row.check.found), columns.found),
    ];
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let cell = |column: usize| cells[column].get(at).map_or("", String::as_str);
        let mark = if at == 0 { mark } else { " " };
        let name = format!("{:width$}", cell(0), width = columns.name);
        let found = if matches!(row.check.status, CheckStatus::Pass) {
            cell(2).to_owned()
        } else {
            style.paint(paint, cell(2))
        };
        let line = format!(
            "{} {name}  {:width$}  {found}",
            style.paint(paint, mark),
            cell(1),
            width = columns.expected
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Compile, instance, and the fuel of each sample by handler.
fn figures(metrics: &Metrics, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut costs = vec![format!(
        "compiled in {}",
        time(Duration::from_micros(metrics.compile_us))
    )];
    if metrics.instance_memory_bytes > 0 {
        costs.push(format!(
            "an instance in {} with {} of memory",
            time(Duration::from_micros(metrics.instantiate_us)),
            bytes(metrics.instance_memory_bytes)
        ));
    }
    let room = style.width().saturating_sub(2);
    lines(out, "  ", &wrap(&costs.join(", "), room))?;
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
        lines(
            out,
            "  ",
            &wrap(&format!("fuel of {handler}: {text}"), room),
        )?;
    }
    Ok(())
}

fn lines(out: &mut dyn Write, indent: &str, lines: &[String]) -> io::Result<()> {
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{indent}{line}"))
}

fn summary(report: &ValidateReport, style: Style) -> String {
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
        Verdict::NothingChecked => (Paint::Bad, "nothing checked"),
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
    format!(
        "{}: {modules}; checks: {}{denied}",
        style.paint(paint, word),
        parts.join(", ")
    )
}

/// The same for a line whose spaces mean something.
fn wrap_code(line: &str, width: usize) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.to_owned()];
    }
    wrap(line, width)
}
