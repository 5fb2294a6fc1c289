//! Counting, in each worker on its own, so that sums do not depend on who
//! counted what: all lists are cut by position in the capture or by cost.

use std::collections::BTreeMap;

use super::compare::{Change, Played};
use super::histogram::Histogram;
use super::report::{
    Category, Comparison, Costly, Example, FuelChange, Group, GroupKey, MAX_COSTLY, MAX_KINDS,
    MAX_LISTED, OTHER, Outcomes, RecordCounts, ReplayReport, Summary, TestResult,
};
use crate::capture::{Remark, Unusable};
use crate::ops::exchange::Answer;

/// Test results that are kept one by one.
const MAX_TESTS: usize = 20_000;

/// What one worker counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: RecordCounts,
    pub(super) unusable: Vec<Unusable>,
    pub(super) remarks: BTreeMap<Remark, u64>,
    pub(super) outcomes: Outcomes,
    pub(super) baseline: Option<Outcomes>,
    pub(super) dearest: Vec<Costly>,
    pub(super) slowest: Vec<Costly>,
    pub(super) comparison: Option<Groups>,
    pub(super) drift: Option<Groups>,
    pub(super) faulted: Groups,
    pub(super) tests: Vec<TestResult>,
    pub(super) tests_passed: u64,
    pub(super) tests_failed: u64,
    pub(super) fixtures_written: u64,
}

impl Tally {
    pub(super) fn unusable(&mut self, unusable: Unusable) {
        self.records.unusable += 1;
        self.unusable.push(unusable);
        if self.unusable.len() > 2 * MAX_LISTED {
            cut(&mut self.unusable);
        }
    }

    pub(super) fn remark(&mut self, remark: Remark) {
        *self.remarks.entry(remark).or_default() += 1;
    }

    pub(super) fn test(&mut self, result: TestResult) {
        if result.missed.is_empty() {
            self.tests_passed += 1;
        } else {
            self.tests_failed += 1;
        }
        self.tests.push(result);
        if self.tests.len() > 2 * MAX_TESTS {
            cut_tests(&mut self.tests);
        }
    }

    /// Adds what another worker, or another shard, counted; of each group so
    /// many examples are kept.
    pub(super) fn absorb(&mut self, other: Self, examples: usize) {
        self.records.transactions += other.records.transactions;
        self.records.unusable += other.records.unusable;
        self.records.not_selected += other.records.not_selected;
        self.records.skipped += other.records.skipped;
        self.unusable.extend(other.unusable);
        cut(&mut self.unusable);
        for (remark, count) in other.remarks {
            *self.remarks.entry(remark).or_default() += count;
        }
        self.outcomes.absorb(&other.outcomes);
        absorb_option(&mut self.baseline, other.baseline, |into, from| {
            into.absorb(&from);
        });
        self.dearest.extend(other.dearest);
        cut_costly(&mut self.dearest);
        self.slowest.extend(other.slowest);
        cut_costly(&mut self.slowest);
        let absorb = |into: &mut Groups, from| into.absorb(from, examples);
        absorb_option(&mut self.comparison, other.comparison, absorb);
        absorb_option(&mut self.drift, other.drift, absorb);
        self.faulted.absorb(other.faulted, examples);
        self.tests.extend(other.tests);
        cut_tests(&mut self.tests);
        self.tests_passed += other.tests_passed;
        self.tests_failed += other.tests_failed;
        self.fixtures_written += other.fixtures_written;
    }

    /// What a report that was read again had counted.
    pub(super) fn of_report(report: ReplayReport) -> Self {
        Self {
            records: report.records,
            unusable: report.unusable,
            remarks: report.remarks,
            outcomes: report.outcomes,
            baseline: report.baseline_outcomes,
            dearest: report.dearest,
            slowest: report.slowest,
            comparison: report.comparison.map(Groups::of),
            drift: report.drift.map(Groups::of),
            faulted: Groups::of(Comparison {
                groups: report.faulted,
                ..Comparison::default()
            }),
            tests: report.tests,
            tests_passed: report.tests_passed,
            tests_failed: report.tests_failed,
            fixtures_written: report.fixtures_written,
        }
    }

    /// Writes the counts into a report that has all the rest.
    pub(super) fn into_report(mut self, report: &mut ReplayReport) {
        cut(&mut self.unusable);
        cut_tests(&mut self.tests);
        cut_costly(&mut self.dearest);
        cut_costly(&mut self.slowest);
        report.records = self.records;
        report.unusable = self.unusable;
        report.remarks = self.remarks;
        report.outcomes = self.outcomes;
        report.baseline_outcomes = self.baseline;
        report.dearest = self.dearest;
        report.slowest = self.slowest;
        report.comparison = self.comparison.map(Groups::comparison);
        report.drift = self.drift.map(Groups::comparison);
        report.faulted = self.faulted.comparison().groups;
        report.tests = self.tests;
        report.tests_passed = self.tests_passed;
        report.tests_failed = self.tests_failed;
        report.fixtures_written = self.fixtures_written;
    }
}

fn absorb_option<T>(into: &mut Option<T>, from: Option<T>, absorb: impl FnOnce(&mut T, T)) {
    match (into.as_mut(), from) {
        (Some(into), Some(from)) => absorb(into, from),
        (None, Some(from)) => *into = Some(from),
        (_, None) => {}
    }
}

fn cut(unusable: &mut Vec<Unusable>) {
    unusable.sort();
    unusable.truncate(MAX_LISTED);
}

/// Failures before passes, and in the capture's order.
fn cut_tests(tests: &mut Vec<TestResult>) {
    if tests.len() > MAX_TESTS {
        tests.sort_by_key(|test| (test.missed.is_empty(), test.seq));
        tests.truncate(MAX_TESTS);
    }
    tests.sort_by_key(|test| test.seq);
}

fn cut_costly(list: &mut Vec<Costly>) {
    list.sort_by(|a, b| b.cost.cmp(&a.cost).then(a.seq.cmp(&b.seq)));
    list.truncate(MAX_COSTLY);
}

/// Adds to a list of the costliest, describing only what gets onto it.
pub(super) fn costly(
    list: &mut Vec<Costly>,
    (seq, cost): (u64, u64),
    describe: impl FnOnce() -> Costly,
) {
    let enters = list.len() < MAX_COSTLY
        || list
            .last()
            .is_some_and(|last| cost > last.cost || cost == last.cost && seq < last.seq);
    if enters {
        list.push(describe());
        cut_costly(list);
    }
}

impl Outcomes {
    /// Counts what a module made of a transaction.
    ///
    /// Words of the guest's are kept without secrets (`hide`).
    pub(super) fn count(
        &mut self,
        (played, hide): (&Played, &dyn Fn(&str) -> String),
        timings: bool,
    ) {
        for answered in &played.answered {
            if let Some(cost) = &answered.cost {
                self.calls += 1;
                if let Some(fuel) = cost.fuel {
                    self.fuel.record(fuel);
                }
                if timings {
                    self.time_ns
                        .get_or_insert_with(Histogram::default)
                        .record(u64::try_from(cost.time.as_nanos()).unwrap_or(u64::MAX));
                }
                self.memory.max_bytes = self.memory.max_bytes.max(cost.memory_bytes);
                self.memory.growing_calls += u64::from(cost.grown_bytes > 0);
                self.memory.grown_bytes += cost.grown_bytes;
            }
            if let Some(fault) = &answered.fault {
                *self.faults.entry(fault.code.to_string()).or_default() += 1;
            }
        }
        match played.answered.last() {
            Some(last) => count(&mut self.decisions, &last.answer.decision(), hide),
            None => count(&mut self.decisions, "allow", hide),
        }
        let texts = |of: fn(&Answer) -> &[String]| {
            let mut seen: Vec<&str> = Vec::new();
            for text in played
                .answered
                .iter()
                .flat_map(|answered| of(&answered.answer))
            {
                if !seen.contains(&text.as_str()) {
                    seen.push(text);
                }
            }
            seen
        };
        for rule in texts(Answer::rule_ids) {
            count(&mut self.rules, rule, hide);
        }
        for tag in texts(Answer::tags) {
            count(&mut self.tags, tag, hide);
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.calls += other.calls;
        for (into, from) in [
            (&mut self.decisions, &other.decisions),
            (&mut self.rules, &other.rules),
            (&mut self.tags, &other.tags),
            (&mut self.faults, &other.faults),
        ] {
            for (word, number) in from {
                *into.entry(word.clone()).or_default() += number;
            }
        }
        self.fuel.absorb(&other.fuel);
        if let Some(time) = &other.time_ns {
            self.time_ns
                .get_or_insert_with(Histogram::default)
                .absorb(time);
        }
        self.memory.max_bytes = self.memory.max_bytes.max(other.memory.max_bytes);
        self.memory.growing_calls += other.memory.growing_calls;
        self.memory.grown_bytes += other.memory.grown_bytes;
    }
}

/// Counts a word; no new ones once there are too many. What is known already
/// was kept without secrets, so only new words are looked into.
fn count(counts: &mut BTreeMap<String, u64>, word: &str, hide: &dyn Fn(&str) -> String) {
    if let Some(number) = counts.get_mut(word) {
        *number += 1;
        return;
    }
    let hidden = hide(word);
    if let Some(number) = counts.get_mut(&hidden) {
        *number += 1;
    } else {
        let word = if counts.len() < MAX_KINDS {
            hidden
        } else {
            OTHER.to_owned()
        };
        *counts.entry(word).or_default() += 1;
    }
}

/// Changes by cause.
#[derive(Debug, Default)]
pub(super) struct Groups {
    compared: u64,
    categories: BTreeMap<Category, u64>,
    groups: BTreeMap<GroupKey, Group>,
    pub(super) fuel: Option<FuelChange>,
}

impl Groups {
    pub(super) fn unchanged(&mut self) {
        self.compared += 1;
        *self.categories.entry(Category::Unchanged).or_default() += 1;
    }

    /// Counts a change in its group.
    pub(super) fn changed(&mut self, change: &Change) -> &mut Group {
        self.compared += 1;
        *self.categories.entry(change.category).or_default() += 1;
        // What differs besides the decision is no cause of its own.
        let fields = if change.from == change.to {
            change.fields.clone()
        } else {
            Vec::new()
        };
        self.group((
            change.category,
            Some(change.from.clone()),
            change.to.clone(),
            fields,
        ))
    }

    /// Counts a fault that is compared with nothing.
    pub(super) fn fault(&mut self, to: Summary) -> &mut Group {
        self.group((Category::Faulted, None, to, Vec::new()))
    }

    fn group(&mut self, key: GroupKey) -> &mut Group {
        let group = if self.groups.len() >= MAX_KINDS && !self.groups.contains_key(&key) {
            other(key.0)
        } else {
            let (category, from, to, fields) = key;
            Group {
                category,
                from,
                to,
                fields,
                count: 0,
                examples: Vec::new(),
            }
        };
        let group = self.groups.entry(group.key()).or_insert(group);
        group.count += 1;
        group
    }

    fn absorb(&mut self, other: Self, examples: usize) {
        self.compared += other.compared;
        for (category, count) in other.categories {
            *self.categories.entry(category).or_default() += count;
        }
        for (key, group) in other.groups {
            match self.groups.get_mut(&key) {
                None => {
                    self.groups.insert(key, group);
                }
                Some(into) => {
                    into.count += group.count;
                    into.examples.extend(group.examples);
                    into.examples.sort_by_key(|example| example.seq);
                    into.examples.truncate(examples);
                }
            }
        }
        absorb_option(&mut self.fuel, other.fuel, |into, from| {
            into.old += from.old;
            into.new += from.new;
            into.equal += from.equal;
            into.more += from.more;
            into.less += from.less;
            into.increases.extend(from.increases);
            cut_costly(&mut into.increases);
        });
    }

    fn of(comparison: Comparison) -> Self {
        Self {
            compared: comparison.compared,
            categories: comparison.categories,
            groups: comparison
                .groups
                .into_iter()
                .map(|group| (group.key(), group))
                .collect(),
            fuel: comparison.fuel,
        }
    }

    fn comparison(self) -> Comparison {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by(|a, b| {
            let grave = |group: &Group| {
                let allowed = group.from.as_ref().is_none_or(|from| {
                    from.decision != "allow" && !from.decision.starts_with("ok")
                });
                (group.category, allowed)
            };
            grave(a)
                .cmp(&grave(b))
                .then(b.count.cmp(&a.count))
                .then_with(|| a.key().cmp(&b.key()))
        });
        Comparison {
            compared: self.compared,
            categories: self.categories,
            groups,
            fuel: self.fuel,
        }
    }
}

fn other(category: Category) -> Group {
    Group {
        category,
        from: None,
        to: Summary {
            decision: OTHER.to_owned(),
            tags: Vec::new(),
            rule_ids: Vec::new(),
            fault: None,
        },
        fields: Vec::new(),
        count: 0,
        examples: Vec::new(),
    }
}

impl Group {
    /// Whether an example at this position is wanted.
    pub(super) fn wants(&self, seq: u64, most: usize) -> bool {
        self.examples.len() < most || self.examples.last().is_some_and(|last| seq < last.seq)
    }

    /// Keeps an example that is wanted.
    pub(super) fn keep(&mut self, example: Example, most: usize) {
        self.examples.push(example);
        self.examples.sort_by_key(|example| example.seq);
        self.examples.truncate(most);
    }
}
