//! The decisions of a replay, and those that differ from the baseline's or the recorded
//! ones.

use std::collections::BTreeMap;

use crate::ops::replay::ReplayReport;
use crate::ops::replay::report::{
    Category, Comparison, Example, Failing, FuelChange, Group as Changes, Outcomes, percent,
};
use serde_json::Value;

use super::super::human::{Paint, count, plural};
use super::{Amount, costs, more, red, table};
use crate::cli::document::{Block, Column, Group, Span, Unit, shortened};

/// Decisions, rules, tags and faults, with how many transactions had each.
pub(super) fn decisions(report: &ReplayReport, amount: &Amount, blocks: &mut Vec<Block>) {
    type Kind = fn(&Outcomes) -> &BTreeMap<String, u64>;
    let kinds: [(&'static str, Kind); 4] = [
        ("Decision", |outcomes| &outcomes.decisions),
        ("Rule", |outcomes| &outcomes.rules),
        ("Tag", |outcomes| &outcomes.tags),
        ("Fault", |outcomes| &outcomes.faults),
    ];
    let before = report.baseline_outcomes.as_ref();
    let figures: &[&'static str] = match before {
        Some(_) => &["Before", "Now", "Change"],
        None => &["Transactions", "Share"],
    };
    for (heading, kind) in kinds {
        let words = beside(kind(&report.outcomes), before.map(kind));
        if words.is_empty() {
            continue;
        }
        let rows = words.iter().take(amount.rows).map(|&(word, old, new)| {
            let word = Span {
                text: amount.text(word, 80),
                paint: match heading {
                    "Fault" => Some(red(report.failing().faults)),
                    heading => paint(heading, word),
                },
            };
            let mut row = vec![word.into()];
            if before.is_some() {
                let change = i128::from(new) - i128::from(old);
                let change = (change != 0).then(|| format!("{change:+}"));
                row.extend([count(old), count(new), change.unwrap_or_default()].map(Into::into));
            } else {
                let share = percent(new, report.records.transactions);
                row.extend([count(new), format!("{share:.2} %")].map(Into::into));
            }
            row
        });
        let figures = figures.iter().map(|heading| Column::figure(heading));
        let columns = std::iter::once(Column::text(heading)).chain(figures);
        blocks.push(table(columns.collect(), rows));
        blocks.extend(more(words.len(), amount.rows));
    }
}

/// Words with their counts before and now, the most frequent first.
fn beside<'a>(
    now: &'a BTreeMap<String, u64>,
    before: Option<&'a BTreeMap<String, u64>>,
) -> Vec<(&'a str, u64, u64)> {
    let mut rows: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (word, number) in before.into_iter().flatten() {
        rows.entry(word).or_default().0 = *number;
    }
    for (word, number) in now {
        rows.entry(word).or_default().1 = *number;
    }
    let rows = rows.into_iter();
    let mut rows: Vec<_> = rows.map(|(word, (old, new))| (word, old, new)).collect();
    rows.sort_by_key(|(_, old, new)| std::cmp::Reverse(*old.max(new)));
    rows
}

fn paint(heading: &str, word: &str) -> Option<Paint> {
    match (heading, word) {
        ("Decision", "allow" | "ok" | "ok changed") => Some(Paint::Good),
        ("Decision", _) if word.starts_with("block") || word.starts_with("refused") => {
            Some(Paint::Bad)
        }
        ("Decision", _) => Some(Paint::Warning),
        _ => None,
    }
}

/// A comparison, with what, and what of it makes the replay fail.
pub(super) struct Compared<'a> {
    pub(super) with: &'a str,
    pub(super) comparison: &'a Comparison,
    pub(super) failing: Failing,
}

impl Compared<'_> {
    /// How many came out how, then the changes by cause.
    pub(super) fn show(&self, amount: &Amount, blocks: &mut Vec<Block>) {
        let Self {
            with,
            comparison,
            failing,
        } = *self;
        let number = plural(comparison.compared, "transaction");
        blocks.push(Block::Heading(format!("Compared with {with}: {number}")));
        let rows = Category::ALL.into_iter().map(|category| {
            let number = comparison.count(category);
            let share = percent(number, comparison.compared);
            let paint = match category {
                _ if number == 0 => Paint::Faint,
                Category::Unchanged => Paint::Good,
                category => red(failing.has(category)),
            };
            vec![
                Span::new(paint, category.name()).into(),
                count(number).into(),
                format!("{share:.2} %").into(),
            ]
        });
        let columns = vec![
            Column::text(""),
            Column::figure("Transactions"),
            Column::figure("Share"),
        ];
        blocks.push(table(columns, rows));
        if let Some(change) = &comparison.fuel {
            blocks.push(Block::Text(fuel(change).into()));
        }
        groups(&comparison.groups, failing, amount, blocks);
        if let Some(change) = &comparison.fuel {
            let increases = costs::Ranking {
                title: "Largest increases",
                list: &change.increases,
                unit: Unit::Instructions,
                sign: "+",
            };
            increases.show(amount, blocks);
        }
    }
}

/// The instructions before and now.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn fuel(fuel: &FuelChange) -> String {
    let sign = if fuel.new < fuel.old { '-' } else { '+' };
    let percent = match fuel.old {
        0 => 0.0,
        old => (fuel.new as f64 - old as f64) * 100.0 / old as f64,
    };
    format!(
        "fuel {} → {} ({sign}{}, {percent:+.2} %); {} transactions cost more, {} less, {} the same",
        count(fuel.old),
        count(fuel.new),
        count(fuel.new.abs_diff(fuel.old)),
        count(fuel.more),
        count(fuel.less),
        count(fuel.equal)
    )
}

/// Changes by cause, with examples of each.
pub(super) fn groups(
    groups: &[Changes],
    failing: Failing,
    amount: &Amount,
    blocks: &mut Vec<Block>,
) {
    blocks.extend(groups.iter().take(amount.groups).map(|group| {
        let mark = format!("{} ×", count(group.count));
        let examples = group.examples.iter();
        Block::Group(Group {
            mark: Some(Span::new(red(failing.has(group.category)), mark)),
            title: format!("{}: {}", group.category.name(), group.title()),
            blocks: examples.map(|it| example(it, amount)).collect(),
        })
    }));
    blocks.extend(more(groups.len(), amount.groups));
}

fn example(example: &Example, amount: &Amount) -> Block {
    let notes = example.notes.iter();
    let notes = notes.map(|note| Block::Text(Span::new(Paint::Warning, amount.text(note, 300))));
    let mut blocks: Vec<Block> = notes.collect();
    let minimized = example.minimized.as_ref();
    blocks.extend(minimized.map(|fixture| Block::Code(smallest(fixture))));
    let answers: [(&str, &[Value]); 2] = [("Before", &example.old), ("Now", &example.new)];
    let answers = answers.into_iter().filter(|_| amount.has_answers);
    blocks.extend(answers.filter_map(|(title, values)| folded(title, values)));
    let is_left_out = minimized.is_some() && !amount.has_answers;
    let fixture = Some(&example.fixture).filter(|_| !is_left_out);
    for (title, fixture) in [
        ("The smallest fixture that shows it", minimized),
        ("As a fixture", fixture),
    ] {
        blocks.extend(fixture.and_then(|it| folded(title, std::slice::from_ref(it))));
    }
    Block::Group(Group {
        mark: None,
        title: format!(
            "{} ({} record {}, {})",
            amount.text(&example.request, 120),
            amount.text(&example.place.file, 200),
            example.place.record,
            amount.text(&example.id, 80)
        ),
        blocks,
    })
}

/// JSON documents that a reader opens, where there are any.
fn folded(title: &str, values: &[Value]) -> Option<Block> {
    let values = values.iter().filter(|value| !value.is_null());
    let blocks: Vec<Block> = values.cloned().map(Block::Json).collect();
    (!blocks.is_empty()).then(|| {
        Block::Folded(Group {
            mark: None,
            title: title.to_owned(),
            blocks,
        })
    })
}

/// The inputs of a minimised fixture, on one line: of its steps, or the context
/// of its hooks and the data of the second.
fn smallest(fixture: &Value) -> String {
    let steps = fixture.get("steps").and_then(Value::as_array);
    let inputs: Vec<String> = match steps {
        Some(steps) => steps
            .iter()
            .filter_map(|step| step.get("input"))
            .map(ToString::to_string)
            .collect(),
        None => [fixture.get("context"), fixture.pointer("/after/data")]
            .into_iter()
            .flatten()
            .map(ToString::to_string)
            .collect(),
    };
    format!("smallest: {}", shortened(&inputs.join(" "), 400))
}
