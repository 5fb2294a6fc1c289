//! A run for people: a table of decisions, then what needs attention.

mod hooks;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment};
use wasm_agent_kit::abi::Abi;
use wasm_agent_kit::fault::{Fault, printable};
use wasm_agent_kit::ops::run::{FixtureResult, Hint, HookOutcome, RunReport, StepResult, summary};
use wasm_agent_kit::report::CaseStatus;
use wasm_agent_kit::response::{AgentResponse, Decision, HeaderOp};

use super::escape::{Syntax, guarded, terminal};
use super::human::{Paint, Style, bytes, count, short_hash, time, wrap};
use super::{Format, Render};

/// Characters of a value in the table and in remarks.
const SHOWN: usize = 160;

impl Render for RunReport {
    const FORMATS: &'static [Format] = &[
        Format::Human,
        Format::Json,
        Format::Jsonl,
        Format::Junit,
        Format::Github,
    ];

    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Jsonl => guarded(Syntax::Json, out, |out| {
                self.fixtures.iter().try_for_each(|fixture| {
                    serde_json::to_writer(&mut *out, fixture)?;
                    out.write_all(b"\n")
                })
            }),
            _ => style.guarded(out, |out| human(self, style, out)),
        }
    }
}

fn human(report: &RunReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let module = &report.module;
    let path = printable(&module.path, 512);
    let facts = format!("{}, {}", bytes(module.size_bytes), short_hash(&module.hash),);
    let is_long = path.chars().count() + 2 + facts.len() > style.width();
    let between = if style.is_narrow() && is_long {
        "\n"
    } else {
        ""
    };
    writeln!(
        out,
        "{}{between}  {facts}",
        style.paint(Paint::Strong, &path)
    )?;
    if report.module.abi == Abi::Hook.name() {
        hooks::table(report, style, out)?;
    } else if report
        .fixtures
        .iter()
        .any(|fixture| !fixture.steps.is_empty())
    {
        let headings = [
            "", "Fixture", "Decision", "Changes", "Tags", "Fuel", "Time", "Memory",
        ];
        let mut table = style.table(&headings[..columns(style)]);
        for fixture in &report.fixtures {
            for (index, step) in fixture.steps.iter().enumerate() {
                table.add_row(
                    row(fixture, index, step, style)
                        .into_iter()
                        .take(columns(style)),
                );
            }
        }
        Style::tighten(&mut table, fixed(style, &[0, 5, 6, 7]));
        writeln!(out, "{}", table.trim_fmt())?;
    }
    for fixture in &report.fixtures {
        hooks::changes(fixture, style, out)?;
        problems(fixture, report, style, out)?;
    }
    remarks(report, style, out)?;
    writeln!(out, "{}", totals(report, style))
}

/// Memory, which seldom differs, is left out where there is no room for it, and
/// then the time, which never repeats.
const fn columns(style: Style) -> usize {
    match (style.is_narrow(), style.is_slim()) {
        (false, _) => 8,
        (true, false) => 7,
        (true, true) => 6,
    }
}

/// Where there is little room all cells are fitted before they are laid out.
const fn fixed(style: Style, figures: &'static [usize]) -> &'static [usize] {
    if style.is_narrow() {
        &[0, 1, 2, 3, 4, 5, 6, 7]
    } else {
        figures
    }
}

/// Text in its share of a narrow table, broken where people would break it.
fn fitted(text: &str, percent: usize, style: Style) -> String {
    if !style.is_narrow() {
        return text.to_owned();
    }
    // The mark, the fuel, the time.
    let figures = if style.is_slim() { 2 + 9 } else { 2 + 9 + 10 };
    let room = style.width().saturating_sub(figures) * percent / 100;
    wrap(text, room.saturating_sub(1)).join("\n")
}

fn row(fixture: &FixtureResult, index: usize, step: &StepResult, style: Style) -> Vec<Cell> {
    let (mark, paint) = mark(step.status);
    let response = step.response.as_ref();
    let mut row = vec![
        paint.cell(mark),
        Cell::new(fitted(&name(fixture, index, step), 40, style)),
        response.map_or_else(
            || Paint::Faint.cell(&fitted("not reached", 20, style)),
            |response| decision(response, style),
        ),
        Cell::new(
            response
                .map(|response| fitted(&changes(response, style), 20, style))
                .unwrap_or_default(),
        ),
        Cell::new(
            response
                .map(|response| printable(&response.audit.tags.join(" "), SHOWN))
                .map(|tags| fitted(&tags, 20, style))
                .unwrap_or_default(),
        ),
    ];
    row.extend(figures(step));
    row
}

fn name(fixture: &FixtureResult, index: usize, step: &StepResult) -> String {
    let name = printable(&fixture.name, SHOWN);
    if fixture.steps.len() == 1 {
        name
    } else {
        format!("{name} {}. {}", index + 1, step.event)
    }
}

fn figures(step: &StepResult) -> [Cell; 3] {
    let figure = |text: Option<String>| {
        Cell::new(text.unwrap_or_default()).set_alignment(CellAlignment::Right)
    };
    [
        figure(step.fuel.map(count)),
        figure(step.time_ns.map(|nanos| time(Duration::from_nanos(nanos)))),
        figure(step.memory_bytes.map(bytes)),
    ]
}

const fn mark(status: CaseStatus) -> (&'static str, Paint) {
    match status {
        CaseStatus::Passed => ("✓", Paint::Good),
        CaseStatus::Warned => ("!", Paint::Warning),
        CaseStatus::Failed => ("✗", Paint::Bad),
        CaseStatus::Errored => ("✗", Paint::Bad),
        CaseStatus::Skipped => ("–", Paint::Faint),
    }
}

fn decision(response: &AgentResponse, style: Style) -> Cell {
    let mut text = response.decision.name().to_owned();
    match &response.decision {
        Decision::Allow if response.needs_more => text.push_str(", needs more"),
        Decision::Allow => {}
        Decision::Block { status, .. } => text.push_str(&format!(" {status}")),
        Decision::Redirect { url, status } => {
            text.push_str(&format!(" {status} to {}", printable(url, SHOWN)));
        }
        Decision::Challenge { challenge_type, .. } => {
            text.push_str(&format!(" {}", printable(challenge_type, SHOWN)));
        }
    }
    let text = fitted(&text, 20, style);
    match response.decision {
        Decision::Allow => Paint::Good.cell(&text),
        Decision::Block { .. } => Paint::Bad.cell(&text),
        Decision::Redirect { .. } | Decision::Challenge { .. } => Paint::Warning.cell(&text),
    }
}

/// `request +x-a -x-b` where there is room, else how many of each.
fn changes(response: &AgentResponse, style: Style) -> String {
    let side = |ops: &[HeaderOp]| {
        if style.is_wide() {
            let named: Vec<String> = ops
                .iter()
                .map(|op| match op {
                    HeaderOp::Set { name, .. } => format!("+{name}"),
                    HeaderOp::Remove { name } => format!("-{name}"),
                })
                .collect();
            return named.join(" ");
        }
        let sets = ops
            .iter()
            .filter(|op| matches!(op, HeaderOp::Set { .. }))
            .count();
        match (sets, ops.len() - sets) {
            (0, removes) => format!("-{removes}"),
            (sets, 0) => format!("+{sets}"),
            (sets, removes) => format!("+{sets} -{removes}"),
        }
    };
    let mut parts = Vec::new();
    for (word, ops) in [
        ("req", &response.request_headers),
        ("resp", &response.response_headers),
    ] {
        if !ops.is_empty() {
            parts.push(format!("{word} {}", side(ops)));
        }
    }
    for (word, mutation) in [
        ("req body", &response.request_body_mutation),
        ("resp body", &response.response_body_mutation),
    ] {
        if let Some(mutation) = mutation {
            parts.push(if mutation.data.is_empty() {
                format!("{word} dropped")
            } else {
                format!("{word} {} B", mutation.data.len())
            });
        }
    }
    printable(&parts.join(", "), 2 * SHOWN)
}

/// What missed its expectation, as a diff, and what faulted, with its stack.
fn problems(
    fixture: &FixtureResult,
    report: &RunReport,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    if let Some(error) = &fixture.error {
        return writeln!(
            out,
            "{} {}:{}:{}: {}",
            style.paint(Paint::Bad, "✗"),
            printable(&fixture.path, 512),
            error.line,
            error.column,
            terminal(&error.message)
        );
    }
    for step in &fixture.steps {
        let bad = matches!(step.status, CaseStatus::Failed | CaseStatus::Errored);
        if !bad {
            continue;
        }
        writeln!(
            out,
            "{} {}:{} {} ({})",
            style.paint(Paint::Bad, "✗"),
            printable(&fixture.path, 512),
            step.line,
            printable(&fixture.name, SHOWN),
            step.event
        )?;
        for mismatch in &step.mismatches {
            writeln!(out, "    {}", terminal(&mismatch.path))?;
            for (paint, sign, value) in [
                (Paint::Bad, '-', &mismatch.expected),
                (Paint::Good, '+', &mismatch.found),
            ] {
                let line = style.prose(&format!("{sign} {}", terminal(value)), "        ");
                writeln!(out, "      {}", style.paint(paint, &line))?;
            }
        }
        if let (Some(unstable), Some(first)) = (&step.unstable, step.summary()) {
            writeln!(
                out,
                "    the answer changed between equal runs: {} of {} repeats differ from the first",
                unstable.differing, unstable.repeats
            )?;
            let event = unstable.response.as_deref().map(summary);
            let hook = unstable.hook.as_deref().map(HookOutcome::summary);
            let then = event.or(hook).unwrap_or_default();
            writeln!(out, "      run 1: {}", terminal(&first))?;
            let then = terminal(&then);
            writeln!(out, "      run {}: {then}", unstable.first_differing)?;
        }
        if let Some(fault) = &step.fault {
            stack(fault, report, style, out)?;
        }
    }
    Ok(())
}

fn stack(fault: &Fault, report: &RunReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if !fault.words.is_empty() {
        writeln!(out, "    output of the guest:")?;
        for line in &fault.words {
            writeln!(out, "    {}", terminal(line))?;
        }
    }
    if fault.backtrace.is_empty() {
        return Ok(());
    }
    writeln!(out, "    stack of the guest, innermost first:")?;
    for line in fault.stack().lines() {
        writeln!(out, "    {}", terminal(line))?;
    }
    let hint = match (report.module.has_names, report.module.has_dwarf) {
        (false, _) => "the module has no names; build it without stripping to see them",
        (true, false) => {
            "for files and lines build with debug information (Rust: debug = \"line-tables-only\")"
        }
        (true, true) => return Ok(()),
    };
    writeln!(out, "    {}", style.prose(hint, "    "))
}

/// Each remark once, with the fixtures it is about.
fn remarks(report: &RunReport, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let mut about: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for fixture in &report.fixtures {
        for hint in fixture.steps.iter().flat_map(|step| &step.hints) {
            let fixtures = about.entry(explain(hint)).or_default();
            if !fixtures.contains(&fixture.name.as_str()) {
                fixtures.push(&fixture.name);
            }
        }
    }
    for (remark, fixtures) in about {
        let shown = fixtures
            .iter()
            .take(3)
            .map(|name| printable(name, 60))
            .collect::<Vec<_>>()
            .join(", ");
        let more = fixtures.len().saturating_sub(3);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        writeln!(
            out,
            "{} {}\n  {}",
            style.paint(Paint::Warning, "note:"),
            style.prose(&terminal(&remark), "      "),
            style.paint(Paint::Faint, &format!("in {shown}{more}"))
        )?;
    }
    Ok(())
}

fn explain(hint: &Hint) -> String {
    match hint {
        Hint::Spelling {
            decision,
            as_written,
        } => format!(
            "header names reach the module in lower case, as proxies send them: it decides {decision}; spelled as in the fixture it would decide {as_written}. Look names up in any case, or use --header-names canonical in run and serve"
        ),
        Hint::EmptyAnswer => "the module gave an empty answer, which allows; published modules do this when they fail to parse their input".to_owned(),
        Hint::UnknownKeys { keys } => format!(
            "the answer has unknown keys, which production ignores: {}",
            printable(&keys.join(", "), SHOWN)
        ),
        Hint::Ignored { paths } => format!(
            "a hook may change only input and data; its host ignores changes of {}",
            printable(&paths.join(", "), SHOWN)
        ),
        Hint::Proxy { quirk } => quirk.explain().to_owned(),
    }
}

fn totals(report: &RunReport, style: Style) -> String {
    let list = |counts: &BTreeMap<&'static str, usize>| {
        counts
            .iter()
            .map(|(word, number)| format!("{number} {word}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let totals = &report.totals;
    let bad = totals.fixtures.contains_key("failed") || totals.fixtures.contains_key("errored");
    let paint = if bad { Paint::Bad } else { Paint::Good };
    let fixtures = match report.fixtures.len() {
        1 => "1 fixture".to_owned(),
        number => format!("{number} fixtures"),
    };
    let verdict = format!("{fixtures}: {}", list(&totals.fixtures));
    if totals.decisions.is_empty() {
        return style.paint(paint, &verdict);
    }
    let decisions = list(&totals.decisions);
    let figures = format!("{decisions}; {} instructions", count(totals.fuel));
    let is_long = verdict.chars().count() + 2 + figures.chars().count() > style.width();
    let between = if style.is_narrow() && is_long {
        "\n  "
    } else {
        " "
    };
    format!("{};{between}{figures}", style.paint(paint, &verdict))
}
