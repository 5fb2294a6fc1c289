//! A replay as a document: what was read, what was decided, what changed, what
//! it cost.

mod changes;
mod costs;

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::ops::module_info::ModuleInfo;
use crate::ops::replay::ReplayReport;
use crate::ops::replay::report::{
    CaptureInfo, Category, Failing, MAX_COSTLY, MAX_KINDS, TestResult,
};
use crate::report::{Report as _, Verdict};

use super::format::document;
use super::human::{Paint, Style, bytes, count, plural, short_hash};
use super::{Format, Render};
use crate::cli::document::{Block, Cell, Column, Document, Group, Row, Span, Table, shortened};

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
            _ => document(&built(self, &Amount::of(format)), format, style, out),
        }
    }
}

/// How much a reader of a format reads; the JSON has all.
struct Amount {
    /// Rows of a table.
    rows: usize,
    /// Groups of changes.
    groups: usize,
    /// The most expensive transactions.
    costly: usize,
    /// Whether answers stand beside the fixture that holds the last of them.
    has_answers: bool,
    /// Whether texts are whole, however long; a terminal shows their start.
    has_whole_texts: bool,
}

impl Amount {
    const fn of(format: Format) -> Self {
        match format {
            Format::Html => Self {
                rows: MAX_KINDS,
                groups: 200,
                costly: MAX_COSTLY,
                has_answers: true,
                has_whole_texts: true,
            },
            Format::Markdown => Self {
                rows: 20,
                groups: 20,
                costly: 5,
                has_answers: false,
                has_whole_texts: true,
            },
            _ => Self {
                rows: 12,
                groups: 12,
                costly: 5,
                has_answers: false,
                has_whole_texts: false,
            },
        }
    }

    /// A text, of which a terminal shows at most so many bytes.
    fn text(&self, text: &str, in_terminal: usize) -> String {
        if self.has_whole_texts {
            text.to_owned()
        } else {
            shortened(text, in_terminal)
        }
    }
}

fn built(report: &ReplayReport, amount: &Amount) -> Document {
    let failing = report.failing();
    let mut blocks = subjects(report, amount);
    captures(report, amount, &mut blocks);
    unusable(report, amount, &mut blocks);
    changes::decisions(report, amount, &mut blocks);
    let beside_baseline = report.comparison.is_some();
    for (with, comparison, is_judged) in [
        ("the baseline", &report.comparison, true),
        ("the recorded decisions", &report.drift, !beside_baseline),
    ] {
        if let Some(comparison) = comparison {
            let compared = changes::Compared {
                with,
                comparison,
                failing: if is_judged {
                    failing
                } else {
                    Failing::default()
                },
            };
            compared.show(amount, &mut blocks);
        }
    }
    if !report.faulted.is_empty() {
        blocks.push(Block::Heading("Faults".to_owned()));
        changes::groups(
            &report.faulted,
            report.failing_faults(),
            amount,
            &mut blocks,
        );
    }
    if let Some(found) = &report.earlier_calls {
        let text = amount.text(&found.text(), 1024);
        blocks.push(Block::Text(Span::new(red(failing.earlier_calls), text)));
        blocks.push(Block::Note {
            text: "keep nothing between calls, or run with --isolation fresh: which instance a request meets is chance in production".to_owned(),
            about: String::new(),
        });
    }
    tests(report, amount, &mut blocks);
    costs::costs(report, amount, &mut blocks);
    blocks.push(settings(report));
    if report.fixtures_written > 0 {
        let written = plural(report.fixtures_written, "fixture");
        blocks.push(Block::Text(format!("{written} written").into()));
    }
    for (why, &number) in &report.fixtures_left_out {
        let left_out = plural(number, "fixture");
        let text = format!("{left_out} not written: {}", why.name());
        blocks.push(Block::Text(Span::new(Paint::Warning, text)));
    }
    blocks.extend(report.warnings().into_iter().map(|text| Block::Note {
        text,
        about: String::new(),
    }));
    let (verdict, totals) = summary(report);
    Document {
        title: "Replay",
        verdict,
        totals,
        blocks,
    }
}

fn subjects(report: &ReplayReport, amount: &Amount) -> Vec<Block> {
    let subject = |word: &str, module: &ModuleInfo| {
        let (size, hash) = (bytes(module.size_bytes), short_hash(&module.hash));
        Block::Subject {
            name: amount.text(&module.path, 512),
            facts: format!("{word}{size}, {hash}"),
        }
    };
    match &report.baseline {
        None => vec![subject("", &report.module)],
        Some(baseline) => vec![
            subject("baseline, ", baseline),
            subject("module, ", &report.module),
        ],
    }
}

/// The files, and what should be known of them.
fn captures(report: &ReplayReport, amount: &Amount, blocks: &mut Vec<Block>) {
    let row = |capture: &CaptureInfo| {
        let format = capture.format.map_or("unreadable", |format| format.name());
        vec![amount.text(&capture.file, 512).into(), format.into()]
    };
    let rows = report.captures.iter().take(amount.rows).map(row);
    let columns = vec![Column::text("Capture"), Column::unbroken("Format")];
    blocks.push(table(columns, rows));
    blocks.extend(more(report.captures.len(), amount.rows));
    if let Some(shard) = report.shard {
        let text = format!("shard {} of {}", shard.index, shard.of);
        blocks.push(Block::Text(text.into()));
    }
    let lossy = report.captures.iter();
    let lossy: BTreeMap<&str, &str> = lossy
        .filter_map(|capture| Some((capture.format?.name(), capture.loses.as_deref()?)))
        .collect();
    let lossy = lossy.iter();
    let lossy = lossy.map(|(format, loses)| format!("{format} is lossy: {loses}"));
    let remarks = report.remarks.iter().map(|(remark, number)| {
        let number = plural(*number, "transaction");
        format!("{number}: {}", remark.explain())
    });
    let notes = lossy.chain(remarks);
    blocks.extend(notes.map(|text| Block::Text(Span::new(Paint::Faint, text))));
}

/// Records that could not be used.
fn unusable(report: &ReplayReport, amount: &Amount, blocks: &mut Vec<Block>) {
    let number = report.records.unusable;
    if number == 0 {
        return;
    }
    blocks.push(Block::Heading(plural(number, "unusable record")));
    let rows = report.unusable.iter().take(amount.rows).map(|unusable| {
        let place = &unusable.place;
        vec![
            amount.text(&place.file, 512).into(),
            count(place.record).into(),
            count(place.offset).into(),
            amount.text(&unusable.why, 512).into(),
        ]
    });
    let columns = vec![
        Column::text("File"),
        Column::figure("Record"),
        Column::figure("At byte"),
        Column::text("Why"),
    ];
    blocks.push(table(columns, rows));
    let shown = report.unusable.len().min(amount.rows);
    blocks.extend(more(usize::try_from(number).unwrap_or(usize::MAX), shown));
}

fn tests(report: &ReplayReport, amount: &Amount, blocks: &mut Vec<Block>) {
    let (passed, failed) = (report.tests_passed, report.tests_failed);
    if passed + failed == 0 {
        return;
    }
    blocks.push(Block::Heading("Tests".to_owned()));
    let text = format!("{} passed, {} failed", count(passed), count(failed));
    blocks.push(Block::Text(text.into()));
    let all = report.tests.iter().filter(|test| !test.missed.is_empty());
    let all: Vec<&TestResult> = all.collect();
    let paint = red(report.failing().tests);
    let row = |test: &&TestResult| Row {
        cells: vec![
            Span::new(paint, "✗").into(),
            amount.text(&test.test, 80).into(),
            Span::new(Paint::Faint, amount.text(&test.place.file, 200)).into(),
        ],
        below: test
            .missed
            .iter()
            .map(|it| amount.text(it, 200).into())
            .collect(),
    };
    blocks.push(Block::Table(Table {
        columns: vec![
            Column::unbroken(""),
            Column::text("Failed test"),
            Column::text("File"),
        ],
        rows: all.iter().take(amount.rows).map(row).collect(),
    }));
    blocks.extend(more(all.len(), amount.rows));
}

/// How modules were called and what was selected, as flags.
fn settings(report: &ReplayReport) -> Block {
    let rows = report.settings.iter();
    let rows = rows.map(|(name, value)| vec![name.as_str().into(), value.as_str().into()]);
    let columns = vec![Column::text("Setting"), Column::text("Value")];
    Block::Folded(Group {
        mark: None,
        title: "Settings".to_owned(),
        blocks: vec![table(columns, rows)],
    })
}

fn summary(report: &ReplayReport) -> (Span, String) {
    let (paint, word) = match report.verdict() {
        Verdict::Passed => (Paint::Good, "passed"),
        Verdict::Failed => (Paint::Bad, "failed"),
        Verdict::Unreadable => (Paint::Bad, "unreadable"),
        Verdict::NothingChecked | Verdict::Unchecked => (Paint::Warning, "nothing was checked"),
        Verdict::Inconclusive if report.interrupted => (Paint::Warning, "interrupted"),
        Verdict::Inconclusive => (Paint::Warning, "inconclusive"),
    };
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
        if judged.compared < records.transactions {
            parts.push(format!("{} compared", count(judged.compared)));
        }
        parts.push(format!("{} changed", count(changed)));
    } else if records.transactions > 0 && report.tests_passed + report.tests_failed == 0 {
        parts.push("nothing compared".to_owned());
    }
    parts.push(plural(report.outcomes.faulted, "fault"));
    if let Some(found) = &report.earlier_calls {
        let number = found.decisions + found.details;
        parts.push(format!("{} depending on earlier calls", count(number)));
    }
    if report.tests_failed > 0 {
        parts.push(plural(report.tests_failed, "failed test"));
    }
    if report.interrupted && report.verdict() != Verdict::Inconclusive {
        parts.push("interrupted".to_owned());
    }
    (Span::new(paint, word), format!(": {}", parts.join(", ")))
}

/// What makes the replay fail is red, and nothing else is.
const fn red(fails: bool) -> Paint {
    if fails { Paint::Bad } else { Paint::Warning }
}

fn table(columns: Vec<Column>, rows: impl Iterator<Item = Vec<Cell>>) -> Block {
    Block::Table(Table {
        columns,
        rows: rows.map(Row::from).collect(),
    })
}

/// How many of all are not shown.
fn more(all: usize, shown: usize) -> Option<Block> {
    match all.saturating_sub(shown) {
        0 => None,
        rest => Some(Block::Text(
            format!("and {} more", count(rest as u64)).into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Place, Unusable};
    use crate::ops::replay::report::{
        Comparison, Costly, Example, FuelChange, Group as Changes, Outcomes, RecordCounts, Summary,
    };

    fn long(text: &str) -> String {
        format!("{text}{}END{text}", "x".repeat(600))
    }

    fn report() -> ReplayReport {
        let place = |file: &str| Place {
            file: long(file).into(),
            record: 1,
            offset: 0,
        };
        let costly = Costly {
            seq: 0,
            place: place("costly"),
            id: String::new(),
            request: long("expensive"),
            decision: long("became"),
            cost: 55_437,
        };
        let changes = Changes {
            category: Category::Decision,
            from: None,
            to: Summary {
                decision: String::new(),
                tags: Vec::new(),
                rule_ids: Vec::new(),
                fault: None,
            },
            fields: Vec::new(),
            count: 1,
            examples: vec![Example {
                seq: 0,
                place: place("place"),
                id: long("identity"),
                request: long("request"),
                fixture: serde_json::Value::Null,
                minimized: None,
                no_fixture: None,
                notes: vec![long("note")],
                old: Vec::new(),
                new: Vec::new(),
            }],
        };
        ReplayReport {
            records: RecordCounts {
                unusable: 1,
                ..RecordCounts::default()
            },
            unusable: vec![Unusable {
                place: place("unread"),
                why: long("why"),
            }],
            outcomes: Outcomes {
                decisions: [(long("word"), 1)].into(),
                rules: [(long("rule"), 1)].into(),
                tags: [(long("tag"), 1)].into(),
                ..Outcomes::default()
            },
            comparison: Some(Comparison {
                groups: vec![changes],
                fuel: Some(FuelChange {
                    increases: vec![costly],
                    ..FuelChange::default()
                }),
                ..Comparison::default()
            }),
            tests: vec![TestResult {
                seq: 0,
                place: place("tested"),
                test: long("test"),
                missed: vec![long("missed")],
            }],
            tests_failed: 1,
            ..ReplayReport::default()
        }
    }

    fn written(report: &ReplayReport, format: Format) -> String {
        let mut out = Vec::new();
        report.write(format, Style::plain(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_a_terminal_shortens_texts() {
        let report = report();
        for (format, is_whole) in [
            (Format::Human, false),
            (Format::Markdown, true),
            (Format::Html, true),
        ] {
            let text = written(&report, format);
            for part in [
                "unread",
                "why",
                "word",
                "rule",
                "tag",
                "request",
                "place",
                "identity",
                "note",
                "test",
                "missed",
                "tested",
                "expensive",
                "became",
            ] {
                let end = format!("xEND{part}");
                assert_eq!(text.contains(&end), is_whole, "{format:?} {part}: {text}");
            }
            assert!(
                text.contains("+55\u{202f}437") || text.contains("+55 437"),
                "{text}"
            );
        }
    }
}
