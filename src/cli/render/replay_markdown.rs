//! A replay as a comment on a pull request.

use std::io::{self, Write};
use std::time::Duration;

use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::report::{Category, Comparison, Group, percent};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::human::{count, plural, time};
use super::replay::{beside, lossy, relative};

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
        compared(drift, "the decisions taken at the time", out)?;
    }
    if !report.faulted.is_empty() {
        writeln!(out, "#### Faults\n")?;
        groups(&report.faulted, out)?;
    }
    costs(report, out)?;
    if report.tests_passed + report.tests_failed > 0 {
        writeln!(
            out,
            "Tests: {} passed, {} failed\n",
            count(report.tests_passed),
            count(report.tests_failed)
        )?;
        for test in report
            .tests
            .iter()
            .filter(|test| !test.missed.is_empty())
            .take(SHOWN)
        {
            writeln!(
                out,
                "- {}: {}",
                code(&test.test),
                shown(&test.missed.join("; "))
            )?;
        }
        writeln!(out)?;
    }
    for (format, loses) in lossy(report) {
        writeln!(out, "> {format} is lossy: {}", shown(loses))?;
    }
    for (remark, number) in &report.remarks {
        writeln!(out, "> {} × {}", count(*number), shown(remark.explain()))?;
    }
    Ok(())
}

fn decisions(report: &ReplayReport, out: &mut dyn Write) -> io::Result<()> {
    let before = report
        .baseline_outcomes
        .as_ref()
        .map(|outcomes| &outcomes.decisions);
    if before.is_some() {
        writeln!(out, "| Decision | Before | Now | |\n|---|--:|--:|--:|")?;
    } else {
        writeln!(out, "| Decision | Transactions | Share |\n|---|--:|--:|")?;
    }
    for (word, old, new) in beside(&report.outcomes.decisions, before) {
        if before.is_some() {
            let delta = i128::from(new) - i128::from(old);
            writeln!(
                out,
                "| {} | {} | {} | {delta:+} |",
                shown(word),
                count(old),
                count(new)
            )?;
        } else {
            writeln!(
                out,
                "| {} | {} | {:.2} % |",
                shown(word),
                count(new),
                percent(new, report.records.transactions)
            )?;
        }
    }
    writeln!(out)
}

fn compared(comparison: &Comparison, with: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "#### Beside {with}\n\n| | Transactions | Share |\n|---|--:|--:|"
    )?;
    for category in Category::ALL {
        let number = comparison.count(category);
        writeln!(
            out,
            "| {} | {} | {:.2} % |",
            category.name(),
            count(number),
            percent(number, comparison.compared)
        )?;
    }
    writeln!(out)?;
    if let Some(fuel) = &comparison.fuel {
        writeln!(
            out,
            "Fuel {} → {} ({:+.2} %): {} transactions cost more, {} less, {} the same.\n",
            count(fuel.old),
            count(fuel.new),
            relative(fuel.old, fuel.new),
            count(fuel.more),
            count(fuel.less),
            count(fuel.equal)
        )?;
    }
    groups(&comparison.groups, out)
}

fn groups(groups: &[Group], out: &mut dyn Write) -> io::Result<()> {
    for group in groups.iter().take(SHOWN) {
        writeln!(
            out,
            "<details><summary><b>{} ×</b> {}</summary>\n",
            count(group.count),
            super::page::escaped(&group.title())
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
            let text = serde_json::to_string_pretty(fixture).unwrap_or_default();
            // A fence longer than any within.
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(longest.max(2) + 1);
            writeln!(out, "{fence}json\n{text}\n{fence}\n")?;
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
    let sides = [
        ("before", report.baseline_outcomes.as_ref()),
        ("now", Some(&report.outcomes)),
    ];
    writeln!(
        out,
        "| A call | p50 | p90 | p99 | p99.9 | max |\n|---|--:|--:|--:|--:|--:|"
    )?;
    for (word, outcomes) in sides {
        let Some(outcomes) = outcomes else { continue };
        let word = if report.baseline.is_some() {
            format!(" {word}")
        } else {
            String::new()
        };
        let mut row = |name: &str, histogram: &_, show: &dyn Fn(u64) -> String| {
            let histogram: &wasm_agent_kit::ops::replay::histogram::Histogram = histogram;
            let cells: Vec<String> = [50.0, 90.0, 99.0, 99.9]
                .iter()
                .map(|percent| show(histogram.percentile(*percent)))
                .chain([show(histogram.max())])
                .collect();
            writeln!(out, "| {name}{word} | {} |", cells.join(" | "))
        };
        row("fuel", &outcomes.fuel, &count)?;
        if let Some(times) = &outcomes.time_ns {
            row("time", times, &|nanos| time(Duration::from_nanos(nanos)))?;
        }
    }
    writeln!(out)
}

/// A text that Markdown shows as it is.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' | '#' | '~' | '@' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
    }
    out
}

/// A text as code, whatever backticks it has.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let text = text.replace(['\n', '\r'], " ");
    if longest > 0 {
        format!("{fence} {text} {fence}")
    } else {
        format!("{fence}{text}{fence}")
    }
}
