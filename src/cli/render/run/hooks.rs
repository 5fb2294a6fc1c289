//! Hooks in the document of a run: cells of the table, and each context as
//! diffs.

use crate::hook::Change;
use crate::ops::run::{FixtureResult, HookOutcome, StepResult};

use super::super::human::Paint;
use super::{SHOWN, called};
use crate::cli::document::{Block, Cell, Diff, Group, Span, shortened};

/// Changes of one hook that are shown; the JSON report has all of them.
const MAX_CHANGES: usize = 20;

/// The result, and how many changes of each kind.
pub(super) fn cells(step: &StepResult) -> Vec<Cell> {
    let Some(outcome) = &step.hook else {
        return vec![
            Span::new(Paint::Faint, "not reached").into(),
            Cell::default(),
        ];
    };
    let result = if outcome.result.ok {
        called(step, Span::new(Paint::Good, "ok"))
    } else {
        let error = outcome.result.error.as_deref();
        let error = shortened(error.unwrap_or("no reason given"), SHOWN);
        Span::new(Paint::Bad, format!("refused: {error}"))
    };
    vec![result.into(), counted(outcome).into()]
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
pub(super) fn changes(fixture: &FixtureResult) -> Vec<Block> {
    let mut groups = Vec::new();
    for step in &fixture.steps {
        let Some(outcome) = &step.hook else { continue };
        let details = outcome.result.details.as_deref().unwrap_or_default();
        let ignored = ", ignored: a hook may change only input and data";
        let mut blocks = diffs(&outcome.changed, "");
        blocks.extend(diffs(&outcome.ignored, ignored));
        let shown = details.iter().take(MAX_CHANGES);
        let shown = shown.map(|detail| shortened(&format!("detail {detail}"), SHOWN));
        blocks.extend(shown.map(|text| Block::Text(text.into())));
        blocks.extend(more(details.len()));
        if !blocks.is_empty() {
            groups.push(Block::Group(Group {
                mark: None,
                title: format!("{} ({})", shortened(&fixture.name, SHOWN), step.event),
                blocks,
            }));
        }
    }
    groups
}

fn diffs(changes: &[Change], remark: &'static str) -> Vec<Block> {
    let value = |value: &Option<serde_json::Value>| {
        let text = value.as_ref().map(ToString::to_string);
        shortened(text.as_deref().unwrap_or("none"), SHOWN)
    };
    let shown = changes.iter().take(MAX_CHANGES).map(|change| {
        Block::Diff(Diff {
            path: shortened(&change.path, SHOWN),
            remark,
            before: value(&change.before),
            after: value(&change.after),
        })
    });
    shown.chain(more(changes.len())).collect()
}

fn more(count: usize) -> Option<Block> {
    match count.saturating_sub(MAX_CHANGES) {
        0 => None,
        rest => Some(Block::Text(format!("and {rest} more").into())),
    }
}
