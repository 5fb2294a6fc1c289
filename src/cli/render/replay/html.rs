//! A replay as one page: totals, changes by group with examples to open, the
//! distribution of fuel.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;
use wasm_agent_kit::ops::replay::ReplayReport;
use wasm_agent_kit::ops::replay::histogram::Histogram;
use wasm_agent_kit::ops::replay::report::{Category, Comparison, Costly, Example, Group, percent};
use wasm_agent_kit::report::{Report as _, Verdict};

use super::figures::{self, nanos};
use crate::cli::render::chart::{Counts, distribution};
use crate::cli::render::escape::html as escaped;
use crate::cli::render::human::{bytes, count, plural, short_hash};
use crate::cli::render::page::Page;

/// Groups on the page; a person reads no more.
const SHOWN: usize = 200;

pub(super) fn write(report: &ReplayReport, out: &mut dyn Write) -> io::Result<()> {
    let mut body = String::new();
    head(report, &mut body);
    if let Some(comparison) = &report.comparison {
        compared(comparison, "Compared with the baseline", &mut body);
    }
    if let Some(drift) = &report.drift {
        compared(drift, "Compared with the recorded decisions", &mut body);
    }
    if !report.faulted.is_empty() {
        body.push_str("<h2>Faults</h2>");
        groups(&report.faulted, &mut body);
    }
    decisions(report, &mut body);
    costs(report, &mut body);
    tests(report, &mut body);
    input(report, &mut body);
    Page::new("Replay").markup(&body).write(out)
}

/// Writing to a text cannot fail.
macro_rules! add {
    ($out:expr, $($parts:tt)*) => {{ let _ = write!($out, $($parts)*); }};
}

fn head(report: &ReplayReport, out: &mut String) {
    let class = match report.verdict() {
        Verdict::Passed => "good",
        Verdict::Failed | Verdict::Unreadable => "bad",
        Verdict::NothingChecked | Verdict::Inconclusive => "warning",
    };
    let word = figures::verdict_word(report);
    add!(out, "<p class=\"banner {class}\">{word}</p><p>");
    if let Some(baseline) = &report.baseline {
        add!(
            out,
            "<code>{}</code> <span class=\"faint\">{}</span> → ",
            escaped(&baseline.path),
            escaped(&short_hash(&baseline.hash))
        );
    }
    let module = &report.module;
    add!(
        out,
        "<code>{}</code> <span class=\"faint\">{}, {}</span></p>",
        escaped(&module.path),
        escaped(&short_hash(&module.hash)),
        bytes(module.size_bytes)
    );
    let card = |out: &mut String, number: u64, word: &str, class: &str| {
        add!(
            out,
            "<div class=\"card\"><b class=\"{}\">{}</b>{word}</div>",
            if number == 0 { "" } else { class },
            count(number)
        );
    };
    out.push_str("<div class=\"cards\">");
    card(out, report.records.transactions, "transactions", "");
    if let Some(judged) = report.judged() {
        for (category, class) in [
            (Category::Decision, "bad"),
            (Category::Details, "warning"),
            (Category::Faulted, "bad"),
            (Category::Unchanged, "good"),
        ] {
            card(out, judged.count(category), category.name(), class);
        }
    } else {
        card(out, report.outcomes.faults.values().sum(), "faults", "bad");
    }
    if report.tests_passed + report.tests_failed > 0 {
        card(out, report.tests_failed, "tests failed", "bad");
    }
    card(out, report.records.unusable, "unusable records", "warning");
    out.push_str("</div>");
    if let Some(judged) = report.judged() {
        share_bar(judged, out);
    }
}

/// How large the parts are, as one bar.
fn share_bar(comparison: &Comparison, out: &mut String) {
    out.push_str("<div class=\"share\">");
    for (category, color) in [
        (Category::Faulted, "s3"),
        (Category::Decision, "bad"),
        (Category::Details, "warning"),
        (Category::Unchanged, "good"),
    ] {
        let share = percent(comparison.count(category), comparison.compared);
        if share > 0.0 {
            add!(
                out,
                "<i style=\"width:{share:.3}%;min-width:2px;background:var(--{color})\" title=\"{}: {share:.2} %\"></i>",
                category.name()
            );
        }
    }
    out.push_str("</div>");
}

fn compared(comparison: &Comparison, title: &str, out: &mut String) {
    add!(out, "<h2>{title}</h2>");
    if let Some(fuel) = &comparison.fuel {
        add!(out, "<p>Fuel {}.</p>", figures::fuel(fuel));
    }
    if comparison.groups.is_empty() {
        add!(
            out,
            "<p class=\"good\">All {} transactions came out the same.</p>",
            count(comparison.compared)
        );
    }
    groups(&comparison.groups, out);
    if let Some(fuel) = comparison
        .fuel
        .as_ref()
        .filter(|fuel| !fuel.increases.is_empty())
    {
        out.push_str("<h3>Largest increases</h3>");
        costly(&fuel.increases, |more| format!("+{}", count(more)), out);
    }
}

fn groups(groups: &[Group], out: &mut String) {
    for (index, group) in groups.iter().take(SHOWN).enumerate() {
        let class = match group.category {
            Category::Faulted | Category::Decision => "bad",
            Category::Details => "warning",
            Category::Unchanged => "faint",
        };
        add!(
            out,
            "<details{}><summary><b class=\"{class}\">{} ×</b> {} <span class=\"faint\">{}</span></summary><div>",
            if index == 0 { " open" } else { "" },
            count(group.count),
            escaped(&group.title()),
            group.category.name()
        );
        for example in &group.examples {
            self::example(example, out);
        }
        out.push_str("</div></details>");
    }
    if groups.len() > SHOWN {
        add!(
            out,
            "<p>and {} more groups, in the JSON report</p>",
            groups.len() - SHOWN
        );
    }
}

fn example(example: &Example, out: &mut String) {
    add!(
        out,
        "<details><summary><code>{}</code> <span class=\"faint\">{} record {}, {}</span></summary><div>",
        escaped(&example.request),
        escaped(&example.place.file),
        example.place.record,
        escaped(&example.id)
    );
    for note in &example.notes {
        add!(out, "<p class=\"warning\">{}</p>", escaped(note));
    }
    if let Some(minimized) = &example.minimized {
        add!(
            out,
            "<h3>The smallest request that shows it</h3><pre>{}</pre>",
            json(minimized)
        );
    }
    out.push_str("<div class=\"columns\">");
    if !example.old.is_empty() {
        add!(
            out,
            "<div><h3>Before</h3><pre>{}</pre></div>",
            answers(&example.old)
        );
    }
    add!(
        out,
        "<div><h3>Now</h3><pre>{}</pre></div></div>",
        answers(&example.new)
    );
    add!(
        out,
        "<h3>As a fixture</h3><pre>{}</pre></div></details>",
        json(&example.fixture)
    );
}

fn json(value: &Value) -> String {
    escaped(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn answers(values: &[Value]) -> String {
    values.iter().map(json).collect::<Vec<_>>().join("\n")
}

fn decisions(report: &ReplayReport, out: &mut String) {
    out.push_str("<h2>Decisions</h2><div class=\"columns\">");
    for words in figures::words(report) {
        add!(out, "<table><tr><th>{}</th>", words.heading);
        for column in words.columns {
            add!(out, "<th class=\"n\">{column}</th>");
        }
        out.push_str("</tr>");
        for (word, figures) in words.rows {
            add!(out, "<tr><td>{}</td>", escaped(word));
            cells(&figures, out);
        }
        out.push_str("</table>");
    }
    out.push_str("</div>");
}

/// The figures of a row, and its end.
fn cells(figures: &[String], out: &mut String) {
    for figure in figures {
        add!(out, "<td class=\"n\">{figure}</td>");
    }
    out.push_str("</tr>");
}

fn costs(report: &ReplayReport, out: &mut String) {
    let sides = figures::sides(report);
    if sides.is_empty() {
        return;
    }
    let buckets = |histogram: &Histogram| histogram.buckets().collect();
    let fuel: Vec<Counts<'_>> = sides
        .iter()
        .map(|(side, outcomes)| Counts {
            name: side.trim_start(),
            counts: buckets(&outcomes.fuel),
        })
        .collect();
    add!(out, "<h2>Fuel of a call</h2>{}", distribution(&fuel, count));
    let times: Vec<Counts<'_>> = sides
        .iter()
        .filter_map(|(side, outcomes)| {
            Some(Counts {
                name: side.trim_start(),
                counts: buckets(outcomes.time_ns.as_ref()?),
            })
        })
        .collect();
    if !times.is_empty() {
        add!(
            out,
            "<h2>Time of a call</h2>{}",
            distribution(&times, nanos)
        );
    }
    out.push_str("<h2>Percentiles</h2><table><tr><th>A call</th>");
    for name in figures::cost_columns() {
        add!(out, "<th class=\"n\">{name}</th>");
    }
    out.push_str("</tr>");
    for (side, outcomes) in &sides {
        for (of, figures) in figures::costs(outcomes) {
            add!(out, "<tr><td>{of}{side}</td>");
            cells(&figures, out);
        }
    }
    out.push_str("</table>");
    for (side, outcomes) in &sides {
        add!(out, "<p>Memory{side}: {}.</p>", figures::memory(outcomes));
    }
    out.push_str("<div class=\"columns\"><div><h3>Most expensive requests</h3>");
    costly(&report.dearest, count, out);
    out.push_str("</div>");
    if !report.slowest.is_empty() {
        out.push_str("<div><h3>Slowest requests</h3>");
        costly(&report.slowest, nanos, out);
        out.push_str("</div>");
    }
    out.push_str("</div>");
}

fn costly(list: &[Costly], show: impl Fn(u64) -> String, out: &mut String) {
    out.push_str("<table>");
    for costly in list {
        add!(
            out,
            "<tr><td class=\"n\">{}</td><td><code>{}</code></td><td>{}</td><td class=\"n faint\">record {}</td></tr>",
            show(costly.cost),
            escaped(&costly.request),
            escaped(&costly.decision),
            costly.place.record
        );
    }
    out.push_str("</table>");
}

fn tests(report: &ReplayReport, out: &mut String) {
    let Some(tests) = figures::tests(report) else {
        return;
    };
    add!(out, "<h2>Tests</h2><p>{tests}</p>");
    let failed = figures::failed_tests(report);
    if !failed.is_empty() {
        out.push_str("<table>");
        for test in failed.iter().take(1000) {
            add!(
                out,
                "<tr><td class=\"bad\">{}</td><td>{}</td><td class=\"faint\">{}</td></tr>",
                escaped(&test.test),
                escaped(&test.missed.join("; ")),
                escaped(&test.place.file)
            );
        }
        out.push_str("</table>");
    }
}

fn input(report: &ReplayReport, out: &mut String) {
    out.push_str("<h2>Captures</h2><table>");
    for capture in &report.captures {
        add!(
            out,
            "<tr><td><code>{}</code></td><td>{}</td></tr>",
            escaped(&capture.file),
            capture.format.map_or("unreadable", |format| format.name())
        );
    }
    out.push_str("</table>");
    for (format, loses) in figures::lossy(report) {
        add!(
            out,
            "<p class=\"faint\">{format} is lossy: {}</p>",
            escaped(loses)
        );
    }
    for (remark, number) in &report.remarks {
        add!(
            out,
            "<p class=\"faint\">{}: {}</p>",
            plural(*number, "transaction"),
            escaped(remark.explain())
        );
    }
    if !report.unusable.is_empty() {
        add!(
            out,
            "<h3>{}</h3><table>",
            plural(report.records.unusable, "unusable record")
        );
        for unusable in &report.unusable {
            add!(
                out,
                "<tr><td><code>{}</code></td><td class=\"n\">record {}</td><td class=\"n\">byte {}</td><td>{}</td></tr>",
                escaped(&unusable.place.file),
                unusable.place.record,
                unusable.place.offset,
                escaped(&unusable.why)
            );
        }
        out.push_str("</table>");
    }
    out.push_str("<h3>Settings</h3><table>");
    for (name, value) in &report.settings {
        add!(
            out,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escaped(name),
            escaped(value)
        );
    }
    out.push_str("</table>");
}
