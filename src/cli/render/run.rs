//! A run as a document: a table of decisions, then what needs attention.

mod hooks;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use crate::abi::Abi;
use crate::fault::Fault;
use crate::ops::run::{FixtureResult, HookOutcome, RunReport, StepResult, is_bad, summary};
use crate::report::{CaseStatus, Report as _, Verdict};
use crate::response::{AgentResponse, Decision, HeaderOp};

use super::escape::{Syntax, guarded};
use super::format::document;
use super::human::{Paint, Style, bytes, count, plural, short_hash, time};
use super::{Format, Render};
use crate::cli::document::{Block, Cell, Column, Diff, Document, Group, Span, Table, shortened};

/// Bytes of a value in the table and in remarks.
const SHOWN: usize = 160;

impl Render for RunReport {
    const FORMATS: &'static [Format] = &[
        Format::Human,
        Format::Json,
        Format::Jsonl,
        Format::Markdown,
        Format::Html,
        Format::Junit,
        Format::Github,
    ];

    fn write(&self, format: Format, style: Style, out: &mut dyn Write) -> io::Result<()> {
        if format != Format::Jsonl {
            return document(&built(self), format, style, out);
        }
        guarded(Syntax::Json, out, |out| {
            self.fixtures.iter().try_for_each(|fixture| {
                serde_json::to_writer(&mut *out, fixture)?;
                out.write_all(b"\n")
            })
        })
    }
}

fn built(report: &RunReport) -> Document {
    let module = &report.module;
    let is_hook = module.abi == Abi::Hook.name();
    let mut facts = format!("{}, {}", bytes(module.size_bytes), short_hash(&module.hash));
    if is_hook {
        let handlers = module.handlers.join(", ");
        facts.push_str(&format!(
            ", hook ABI, because the module exports {handlers}"
        ));
    }
    let mut blocks = vec![Block::Subject {
        name: shortened(&module.path, 512),
        facts,
    }];
    blocks.push(Block::Table(table(report, is_hook)));
    for fixture in &report.fixtures {
        blocks.extend(hooks::changes(fixture));
        blocks.extend(problems(fixture, report));
    }
    blocks.extend(remarks(report));
    blocks.extend(unchecked(report));
    let (verdict, totals) = totals(report);
    Document {
        title: "Run",
        verdict,
        totals,
        blocks,
    }
}

/// A row for each event or hook.
fn table(report: &RunReport, is_hook: bool) -> Table {
    let mut columns = vec![
        Column::unbroken(""),
        Column::text("Fixture"),
        Column::text(if is_hook { "Result" } else { "Decision" }),
        Column::text("Changes"),
    ];
    if !is_hook {
        columns.push(Column::text("Tags"));
    }
    columns.extend([
        Column::figure("Fuel"),
        // Memory seldom differs, and the time never repeats.
        Column::figure("Time").spared(1),
        Column::figure("Memory").spared(2),
    ]);
    let mut rows = Vec::new();
    for fixture in &report.fixtures {
        for (index, step) in fixture.steps.iter().enumerate() {
            let (mark, paint) = mark(step.status);
            let mut cells: Vec<Cell> = vec![
                Span::new(paint, mark).into(),
                name(fixture, index, step).into(),
            ];
            cells.extend(if is_hook {
                hooks::cells(step)
            } else {
                decided(step)
            });
            let nanos = step.time_ns.map(Duration::from_nanos);
            let figures = [
                step.fuel.map(count),
                nanos.map(time),
                step.memory_bytes.map(bytes),
            ];
            cells.extend(figures.map(|figure| figure.unwrap_or_default().into()));
            rows.push(cells.into());
        }
    }
    Table { columns, rows }
}

/// The decision, changes and tags.
fn decided(step: &StepResult) -> Vec<Cell> {
    let Some(response) = &step.response else {
        let none = Cell::default;
        return vec![
            Span::new(Paint::Faint, "not reached").into(),
            none(),
            none(),
        ];
    };
    vec![
        called(step, decision(response)).into(),
        changes(response),
        shortened(&response.audit.tags.join(" "), SHOWN).into(),
    ]
}

/// A result, and that nobody gave it where the module has no handler.
fn called(step: &StepResult, mut result: Span) -> Span {
    if !step.called && step.fault.is_none() {
        result.text.push_str(", not called");
    }
    result
}

fn name(fixture: &FixtureResult, index: usize, step: &StepResult) -> String {
    let name = shortened(&fixture.name, SHOWN);
    if fixture.steps.len() == 1 {
        name
    } else {
        format!("{name} {}. {}", index + 1, step.event)
    }
}

const fn mark(status: CaseStatus) -> (&'static str, Paint) {
    match status {
        CaseStatus::Passed => ("✓", Paint::Good),
        CaseStatus::Warned => ("!", Paint::Warning),
        CaseStatus::Failed => ("✗", Paint::Bad),
        CaseStatus::Errored => ("✗", Paint::Bad),
        CaseStatus::Skipped => ("–", Paint::Faint),
        CaseStatus::Unchecked => ("○", Paint::Faint),
    }
}

fn decision(response: &AgentResponse) -> Span {
    let word = response.decision.name();
    let (paint, text) = match &response.decision {
        Decision::Allow if response.needs_more => (Paint::Good, format!("{word}, needs more")),
        Decision::Allow => (Paint::Good, word.to_owned()),
        Decision::Block { status, .. } => (Paint::Bad, format!("{word} {status}")),
        Decision::Redirect { url, status } => {
            let url = shortened(url, SHOWN);
            (Paint::Warning, format!("{word} {status} to {url}"))
        }
        Decision::Challenge { challenge_type, .. } => {
            let kind = shortened(challenge_type, SHOWN);
            (Paint::Warning, format!("{word} {kind}"))
        }
    };
    Span::new(paint, text)
}

/// `req +x-a -x-b`, and in short how many of each.
fn changes(response: &AgentResponse) -> Cell {
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for (word, ops) in [
        ("req", &response.request_headers),
        ("resp", &response.response_headers),
    ] {
        if ops.is_empty() {
            continue;
        }
        let named: Vec<String> = ops
            .iter()
            .map(|op| match op {
                HeaderOp::Set { name, .. } => format!("+{name}"),
                HeaderOp::Add { name, .. } => format!("+{name} (append)"),
                HeaderOp::Remove { name } => format!("-{name}"),
            })
            .collect();
        let sets = named.iter().filter(|op| op.starts_with('+')).count();
        let counts = [('+', sets), ('-', named.len() - sets)];
        let counts = counts.iter().filter(|(_, number)| *number > 0);
        let counts: Vec<String> = counts.map(|(sign, n)| format!("{sign}{n}")).collect();
        long.push(format!("{word} {}", named.join(" ")));
        short.push(format!("{word} {}", counts.join(" ")));
    }
    for (word, mutation) in [
        ("req body", &response.request_body_mutation),
        ("resp body", &response.response_body_mutation),
    ] {
        let Some(mutation) = mutation else { continue };
        let text = match mutation.data.len() {
            0 => format!("{word} dropped"),
            length => format!("{word} {length} B"),
        };
        long.push(text.clone());
        short.push(text);
    }
    Cell {
        span: shortened(&long.join(", "), 2 * SHOWN).into(),
        short: Some(short.join(", ")),
    }
}

/// What missed its expectation, as a diff, and what faulted, with its stack.
fn problems(fixture: &FixtureResult, report: &RunReport) -> Vec<Block> {
    let path = shortened(&fixture.path, 512);
    let bad = |title: String, blocks| {
        Block::Group(Group {
            mark: Some(Span::new(Paint::Bad, "✗")),
            title,
            blocks,
        })
    };
    if let Some(error) = &fixture.error {
        let title = format!("{path}:{}:{}: {}", error.line, error.column, error.message);
        return vec![bad(title, Vec::new())];
    }
    let steps = fixture.steps.iter().filter(|step| is_bad(step.status));
    steps
        .map(|step| {
            let name = shortened(&fixture.name, SHOWN);
            let title = format!("{path}:{} {name} ({})", step.line, step.event);
            bad(title, problem(step, report))
        })
        .collect()
}

fn problem(step: &StepResult, report: &RunReport) -> Vec<Block> {
    let mismatches = step.mismatches.iter();
    let mut blocks: Vec<Block> = mismatches
        .map(|mismatch| {
            Block::Diff(Diff {
                path: mismatch.path.clone(),
                remark: "",
                before: mismatch.expected.clone(),
                after: mismatch.found.clone(),
            })
        })
        .collect();
    if let (Some(unstable), Some(first)) = (&step.unstable, step.summary()) {
        let event = unstable.response.as_deref().map(summary);
        let hook = unstable.hook.as_deref().map(HookOutcome::summary);
        let then = event.or(hook).unwrap_or_default();
        blocks.push(Block::Text(unstable.text().into()));
        blocks.push(Block::Text(format!("run 1: {first}").into()));
        blocks.push(Block::Text(
            format!("run {}: {then}", unstable.first_differing).into(),
        ));
    }
    blocks.extend(step.fault.iter().flat_map(|fault| stack(fault, report)));
    blocks
}

fn stack(fault: &Fault, report: &RunReport) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !fault.words.is_empty() {
        blocks.push(Block::Text("output of the guest:".into()));
        blocks.push(Block::Code(fault.words.join("\n")));
    }
    if fault.backtrace.is_empty() {
        return blocks;
    }
    let text = "stack of the guest, innermost first:";
    blocks.push(Block::Text(text.into()));
    blocks.push(Block::Code(fault.stack()));
    let hint = match (report.module.has_names, report.module.has_dwarf) {
        (false, _) => "the module has no names; build it without stripping to see them",
        (true, false) => {
            "for files and lines build with debug information (Rust: debug = \"line-tables-only\")"
        }
        (true, true) => return blocks,
    };
    blocks.push(Block::Text(hint.into()));
    blocks
}

/// Each remark once, with the fixtures it is about.
fn remarks(report: &RunReport) -> Vec<Block> {
    let mut about: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for fixture in &report.fixtures {
        for hint in fixture.steps.iter().flat_map(|step| &step.hints) {
            let fixtures = about.entry(hint.text()).or_default();
            if !fixtures.contains(&fixture.name.as_str()) {
                fixtures.push(&fixture.name);
            }
        }
    }
    about.into_iter().map(note).collect()
}

fn note((text, fixtures): (String, Vec<&str>)) -> Block {
    let shown = fixtures.iter().take(3).map(|name| shortened(name, 60));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let about = match fixtures.len().saturating_sub(3) {
        0 => format!("in {shown}"),
        more => format!("in {shown} and {more} more"),
    };
    Block::Note { text, about }
}

/// That nothing was checked, where nothing was expected and nothing is wrong.
fn unchecked(report: &RunReport) -> Option<Block> {
    let without = report.without_expectations();
    let without: Vec<&str> = without
        .filter(|fixture| !is_bad(fixture.status))
        .map(|fixture| fixture.name.as_str())
        .collect();
    let text = match without.len() {
        0 => return None,
        all if all == report.fixtures.len() => "nothing was checked: no fixture has an expectation; --require-expectations makes this a failure".to_owned(),
        some => format!("nothing was checked in {}: no step has an expectation", plural(some as u64, "fixture")),
    };
    Some(note((text, without)))
}

fn totals(report: &RunReport) -> (Span, String) {
    let list = |counts: &BTreeMap<&'static str, usize>| {
        counts
            .iter()
            .map(|(word, number)| format!("{number} {word}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let totals = &report.totals;
    let bad = totals.fixtures.contains_key("failed") || totals.fixtures.contains_key("errored");
    let paint = match report.verdict() {
        _ if bad => Paint::Bad,
        Verdict::Unchecked => Paint::Warning,
        _ => Paint::Good,
    };
    let fixtures = plural(report.fixtures.len() as u64, "fixture");
    let verdict = Span::new(paint, format!("{fixtures}: {}", list(&totals.fixtures)));
    if totals.decisions.is_empty() {
        return (verdict, String::new());
    }
    let (decisions, fuel) = (list(&totals.decisions), count(totals.fuel));
    (verdict, format!("; {decisions}; {fuel} instructions"))
}
