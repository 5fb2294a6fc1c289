//! A replay as a comment on a pull request.

use std::io::{self, Write};

use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::report::{Comparison, Group};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::figures;
use crate::cli::render::escape::{
    markdown as shown, markdown_code as code, markdown_html, markdown_json,
};
use crate::cli::render::human::{count, plural};

/// Groups that are shown.
const SHOWN: usize = 20;

pub(super) fn write(report: &ReplayReport, out: &mut dyn Write) -> io::Result<()> {
    let mark = match report.verdict() {
        Verdict::Passed => "✅",
        Verdict::Failed | Verdict::Unreadable => "❌",
        Verdict::NothingChecked | Verdict::Inconclusive => "⚠️",
    };
    let records = &report.records;
    writeln!(
        out,
        "### {mark} replay: {}, {}\n",
        plural(records.transactions, "transaction"),
        plural(records.unusable, "unusable record")
    )?;
    if let Some(baseline) = &report.baseline {
        writeln!(
            out,
            "{} → {}\n",
            code(&baseline.path),
            code(&report.module.path)
        )?;
    } else {
        writeln!(out, "{}\n", code(&report.module.path))?;
    }
    decisions(report, out)?;
    if let Some(comparison) = &report.comparison {
        compared(comparison, "the baseline", out)?;
    }
    if let Some(drift) = &report.drift {
        compared(drift, "the recorded decisions", out)?;
    }
    if !report.faulted.is_empty() {
        writeln!(out, "#### Faults\n")?;
        groups(&report.faulted, out)?;
    }
    costs(report, out)?;
    if let Some(tests) = figures::tests(report) {
        writeln!(out, "Tests: {tests}\n")?;
        for test in figures::failed_tests(report).into_iter().take(SHOWN) {
            writeln!(
                out,
                "- {}: {}",
                code(&test.test),
                shown(&test.missed.join("; "))
            )?;
        }
        writeln!(out)?;
    }
    for (format, loses) in figures::lossy(report) {
        writeln!(out, "> {format} is lossy: {}", shown(loses))?;
    }
    for (remark, number) in &report.remarks {
        writeln!(
            out,
            "> {}: {}",
            plural(*number, "transaction"),
            shown(remark.explain())
        )?;
    }
    Ok(())
}

/// Decisions alone: the rest is in the report that a reader opens.
fn decisions(report: &ReplayReport, out: &mut dyn Write) -> io::Result<()> {
    let decision = |words: &figures::Words<'_>| words.heading == "Decision";
    let Some(words) = figures::words(report).into_iter().find(decision) else {
        return Ok(());
    };
    writeln!(out, "| {} | {} |", words.heading, words.columns.join(" | "))?;
    writeln!(out, "|---|{}", "--:|".repeat(words.columns.len()))?;
    for (word, figures) in &words.rows {
        writeln!(out, "| {} | {} |", shown(word), figures.join(" | "))?;
    }
    writeln!(out)
}

fn compared(comparison: &Comparison, with: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "#### Compared with {with}\n\n| | Transactions | Share |\n|---|--:|--:|"
    )?;
    for (category, number, share) in figures::categories(comparison) {
        writeln!(out, "| {} | {} | {share} |", category.name(), count(number))?;
    }
    writeln!(out)?;
    if let Some(fuel) = &comparison.fuel {
        writeln!(out, "Fuel {}.\n", figures::fuel(fuel))?;
    }
    groups(&comparison.groups, out)
}

fn groups(groups: &[Group], out: &mut dyn Write) -> io::Result<()> {
    for group in groups.iter().take(SHOWN) {
        writeln!(
            out,
            "<details><summary><b>{} ×</b> {}</summary>\n",
            count(group.count),
            markdown_html(&group.title())
        )?;
        for example in &group.examples {
            writeln!(
                out,
                "{} ({} record {})\n",
                code(&example.request),
                shown(&example.place.file),
                example.place.record
            )?;
            let fixture = example.minimized.as_ref().unwrap_or(&example.fixture);
            writeln!(out, "{}\n", markdown_json(fixture))?;
            for note in &example.notes {
                writeln!(out, "{}\n", shown(note))?;
            }
        }
        writeln!(out, "</details>\n")?;
    }
    if groups.len() > SHOWN {
        writeln!(out, "and {} more groups\n", groups.len() - SHOWN)?;
    }
    Ok(())
}

fn costs(report: &ReplayReport, out: &mut dyn Write) -> io::Result<()> {
    let columns: Vec<&str> = figures::cost_columns().collect();
    writeln!(out, "| A call | {} |", columns.join(" | "))?;
    writeln!(out, "|---|{}", "--:|".repeat(columns.len()))?;
    for (side, outcomes) in figures::sides(report) {
        for (of, figures) in figures::costs(outcomes) {
            writeln!(out, "| {of}{side} | {} |", figures.join(" | "))?;
        }
    }
    writeln!(out)
}
