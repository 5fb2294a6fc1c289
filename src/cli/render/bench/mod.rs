//! A benchmark as a document for people, and as lines of figures.

mod charts;
mod csv;
pub(crate) mod profile;
mod tables;

use std::io::{self, Write};

use crate::guest::engine;
use crate::ops::bench::{Advice, BenchReport, GateVerdict};
use crate::report::{Report as _, Verdict};

use super::format::document;
use super::human::{Paint, Style, bytes, plural, short_hash};
use super::{Format, Render};
use crate::cli::document::{Block, Document, Span, shortened};

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
        if format != Format::Csv {
            return document(&built(self), format, style, out);
        }
        Style::plain().guarded(out, |out| csv::write(self, out))
    }
}

fn built(report: &BenchReport) -> Document {
    let mut blocks = vec![subject(report)];
    blocks.extend(about(report).map(faint));
    let comparison = report.comparison.as_ref();
    blocks.extend(comparison.into_iter().flat_map(tables::gate));
    blocks.extend(report.phases.iter().flat_map(tables::phases));
    // A gate's figures are in its own table.
    if comparison.is_none() {
        blocks.extend(tables::calls(report));
        blocks.extend(report.memory.iter().flat_map(tables::memory));
    }
    blocks.extend(tables::loads(report));
    blocks.extend(report.advice.iter().flat_map(advice));
    blocks.extend(tables::safety(report));
    blocks.extend(report.profile.iter().flat_map(tables::profile));
    blocks.extend(report.notes.iter().map(|note| Block::Note {
        text: note.clone(),
        about: String::new(),
    }));
    blocks.extend(changed(report));
    let (verdict, totals) = verdict(report);
    Document {
        title: "Benchmark",
        verdict,
        totals,
        blocks,
    }
}

/// The module or the agent.
fn subject(report: &BenchReport) -> Block {
    match &report.module {
        Some(module) => Block::Subject {
            name: shortened(&module.path, 512),
            facts: format!("{}, {}", bytes(module.size_bytes), short_hash(&module.hash)),
        },
        None => {
            let target = report.target.as_deref().unwrap_or_default();
            Block::Subject {
                name: shortened(&format!("agent at {target}"), 512),
                facts: String::new(),
            }
        }
    }
}

/// Where and how it was measured.
fn about(report: &BenchReport) -> [String; 2] {
    let machine = &report.machine;
    let place = format!(
        "{}, {}, {}, {}, {} build",
        shortened(&machine.processor, 120),
        plural(machine.cores as u64, "core"),
        shortened(&machine.kernel, 80),
        engine::version(),
        machine.build,
    );
    // An agent has a protocol alone, and a hook module has no header names.
    let flags = [
        ("protocol", "protocol"),
        ("isolation", "isolation"),
        ("timeout", "timeout"),
        ("fuel limit", "fuel"),
        ("header names", "header_names"),
    ];
    let flag = |(name, key)| Some(format!("{name} {}", report.settings.get(key)?));
    let flags: Vec<String> = flags.into_iter().filter_map(flag).collect();
    [place, flags.join(", ")]
}

/// Sentences that add to what stands above them.
fn faint(text: impl Into<String>) -> Block {
    Block::Text(Span::new(Paint::Faint, text))
}

fn advice(advice: &Advice) -> Vec<Block> {
    let mut blocks = vec![
        Block::Heading("Recommended pool size".to_owned()),
        Block::Text(advice.text.as_str().into()),
    ];
    blocks.extend(advice.flags.clone().map(Block::Code));
    blocks
}

/// Events named that were not answered alike.
const CHANGED_SHOWN: usize = 10;

/// Events that were not answered alike each time, and what to do about it.
fn changed(report: &BenchReport) -> Vec<Block> {
    let all = &report.changed_answers;
    let note = |text: String| Block::Note {
        text,
        about: String::new(),
    };
    let mut notes: Vec<Block> = all
        .iter()
        .take(CHANGED_SHOWN)
        .map(|changed| note(shortened(&format!("{changed} ({})", changed.by), 512)))
        .collect();
    if all.len() > CHANGED_SHOWN {
        notes.push(note(format!("… {} more", all.len() - CHANGED_SHOWN)));
    }
    if !all.is_empty() {
        let text = if report.fails_by_changes() {
            "answers depend on earlier calls, so the figures are of several answers: keep nothing between calls, or use --isolation fresh"
        } else {
            "the agent did not answer alike each time, so the figures are of several answers: because of earlier calls, its clock, random bytes or a reload"
        };
        notes.push(note(text.to_owned()));
    }
    notes
}

/// How it came out, in a line.
fn verdict(report: &BenchReport) -> (Span, String) {
    if let Some(failure) = &report.failure {
        let verdict = match failure.others {
            Some(_) => Span::new(Paint::Warning, "inconclusive"),
            None => Span::new(Paint::Bad, "failed"),
        };
        let text = shortened(&failure.to_string(), 1024);
        return (verdict, format!(": {text}"));
    }
    if !report.cases.is_empty()
        && report.fails_by_changes()
        && let changed @ 1.. = report.changed_answers.len()
    {
        let events = plural(report.cases.len() as u64, "event");
        let text = format!(": of {changed} of {events}");
        return (Span::new(Paint::Bad, "answers changed"), text);
    }
    let Some(comparison) = &report.comparison else {
        let text = format!("measured {}", plural(report.cases.len() as u64, "event"));
        return (Span::new(Paint::Good, text), String::new());
    };
    let verdict = match report.verdict() {
        Verdict::Passed => Span::new(Paint::Good, "better or equal"),
        Verdict::Inconclusive => Span::new(Paint::Warning, "inconclusive"),
        Verdict::Failed => Span::new(Paint::Bad, "regressed"),
        Verdict::Unreadable | Verdict::NothingChecked | Verdict::Unchecked => {
            Span::new(Paint::Warning, "nothing was compared")
        }
    };
    let counts = [
        (GateVerdict::Regressed, "regressed"),
        (GateVerdict::Inconclusive, "inconclusive"),
        (GateVerdict::BetterOrEqual, "better or equal"),
    ];
    let counts = counts.map(|(verdict, word)| format!("{} {word}", comparison.count(verdict)));
    (verdict, format!(": {}", counts.join(", ")))
}
