//! Counts results, in each worker separately. The sums do not depend on which worker
//! counted what: every list is ordered and cut by position in the capture, by cost or
//! by content, never by time of arrival.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::groups::Groups;
use super::histogram::Histogram;
use super::report::{
    Comparison, Costly, EarlierCalls, MAX_COSTLY, MAX_KINDS, MAX_LISTED, OTHER, Outcomes,
    ReplayReport, TestResult,
};
use crate::answer::Answer;
use crate::capture::{Remark, Unusable};
use crate::compare::Played;

/// Test results that are kept one by one.
const MAX_TESTS: usize = 20_000;

/// What one worker counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Where all counts stand but those of the groups.
    pub(super) report: ReplayReport,
    pub(super) comparison: Option<Groups>,
    pub(super) drift: Option<Groups>,
    pub(super) faulted: Groups,
}

impl Tally {
    pub(super) fn unusable(&mut self, unusable: Unusable) {
        let report = &mut self.report;
        report.records.unusable += 1;
        report.unusable.push(unusable);
        if report.unusable.len() > 2 * MAX_LISTED {
            cut(&mut report.unusable);
        }
    }

    pub(super) fn remark(&mut self, remark: Remark) {
        *self.report.remarks.entry(remark).or_default() += 1;
    }

    pub(super) fn test(&mut self, result: TestResult) {
        let report = &mut self.report;
        if result.missed.is_empty() {
            report.tests_passed += 1;
        } else {
            report.tests_failed += 1;
        }
        report.tests.push(result);
        if report.tests.len() > 2 * MAX_TESTS {
            cut_tests(&mut report.tests);
        }
    }

    /// Adds what another worker, or another shard, counted; of each group so
    /// many examples are kept.
    pub(super) fn absorb(&mut self, other: Self, examples: usize) {
        let absorb = |into: &mut Groups, from| into.absorb(from, examples);
        absorb_option(&mut self.comparison, other.comparison, absorb);
        absorb_option(&mut self.drift, other.drift, absorb);
        self.faulted.absorb(other.faulted, examples);
        let (report, other) = (&mut self.report, other.report);
        report.records.transactions += other.records.transactions;
        report.records.unusable += other.records.unusable;
        report.records.not_selected += other.records.not_selected;
        report.records.skipped += other.records.skipped;
        for (remark, count) in other.remarks {
            *report.remarks.entry(remark).or_default() += count;
        }
        report.outcomes.absorb(&other.outcomes);
        let before = &mut report.baseline_outcomes;
        absorb_option(before, other.baseline_outcomes, |into, from| {
            into.absorb(&from);
        });
        report.unusable.extend(other.unusable);
        report.dearest.extend(other.dearest);
        report.slowest.extend(other.slowest);
        report.tests.extend(other.tests);
        report.tests_passed += other.tests_passed;
        report.tests_failed += other.tests_failed;
        report.unanswered += other.unanswered;
        report.refused_unrecorded += other.refused_unrecorded;
        report.rounded += other.rounded;
        let before = &mut report.earlier_calls;
        absorb_option(before, other.earlier_calls, EarlierCalls::absorb);
        absorb_option(&mut report.departures, other.departures, |into, from| {
            into.absorb(from, examples);
        });
        report.fixtures_written += other.fixtures_written;
        for (why, count) in other.fixtures_left_out {
            *report.fixtures_left_out.entry(why).or_default() += count;
        }
        for (pointer, is_found) in other.ignored {
            *report.ignored.entry(pointer).or_default() |= is_found;
        }
        self.cut();
    }

    fn cut(&mut self) {
        cut(&mut self.report.unusable);
        cut_costly(&mut self.report.dearest);
        cut_costly(&mut self.report.slowest);
        cut_tests(&mut self.report.tests);
    }

    /// What a report that was read again had counted.
    pub(super) fn of_report(mut report: ReplayReport) -> Self {
        Self {
            comparison: report.comparison.take().map(Groups::of),
            drift: report.drift.take().map(Groups::of),
            faulted: Groups::of(Comparison {
                groups: std::mem::take(&mut report.faulted),
                ..Comparison::default()
            }),
            report,
        }
    }

    /// A report of all that was counted.
    pub(super) fn into_report(mut self) -> ReplayReport {
        self.cut();
        let mut report = ReplayReport {
            comparison: self.comparison.map(Groups::comparison),
            drift: self.drift.map(Groups::comparison),
            faulted: self.faulted.comparison().groups,
            ..self.report
        };
        report.compared = report.judged().map_or(0, |judged| judged.compared);
        report
    }
}

pub(super) fn absorb_option<T>(
    into: &mut Option<T>,
    from: Option<T>,
    absorb: impl FnOnce(&mut T, T),
) {
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

pub(super) fn cut_costly(list: &mut Vec<Costly>) {
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
    /// Words of the guest's are kept without secrets.
    pub(super) fn count(&mut self, (played, words): (&Played, &mut Words<'_>), timings: bool) {
        let mut codes: Vec<String> = Vec::new();
        for reply in &played.replies {
            if let Some(cost) = &reply.cost {
                self.calls += 1;
                if let Some(fuel) = cost.fuel {
                    self.fuel.record(fuel);
                }
                if timings {
                    self.time_ns
                        .get_or_insert_with(Histogram::default)
                        .record(cost.time_ns());
                }
                self.memory.max_bytes = self.memory.max_bytes.max(cost.memory_bytes);
                self.memory.growing_calls += u64::from(cost.grown_bytes > 0);
                self.memory.grown_bytes += cost.grown_bytes;
            }
            if let Some(fault) = &reply.fault {
                let code = fault.code.to_string();
                if !codes.contains(&code) {
                    codes.push(code);
                }
            }
        }
        self.not_asked += u64::from(!played.is_asked());
        self.faulted += u64::from(!codes.is_empty());
        for code in codes {
            *self.faults.entry(code).or_default() += 1;
        }
        match played.replies.last() {
            Some(last) => {
                let decision = (words.hide_decision)(&last.answer.decision());
                count(&mut self.decisions, &decision);
            }
            None => count(&mut self.decisions, "allow"),
        }
        let texts = |of: fn(&Answer) -> &[String]| {
            let mut seen: Vec<&str> = Vec::new();
            for text in played.replies.iter().flat_map(|reply| of(&reply.answer)) {
                if !seen.contains(&text.as_str()) {
                    seen.push(text);
                }
            }
            seen
        };
        for rule in texts(Answer::rule_ids) {
            count(&mut self.rules, &words.shown(rule));
        }
        for tag in texts(Answer::tags) {
            count(&mut self.tags, &words.shown(tag));
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.calls += other.calls;
        self.not_asked += other.not_asked;
        self.faulted += other.faulted;
        for (into, from) in [
            (&mut self.decisions, &other.decisions),
            (&mut self.rules, &other.rules),
            (&mut self.tags, &other.tags),
            (&mut self.faults, &other.faults),
        ] {
            for (word, number) in from {
                *into.entry(word.clone()).or_default() += number;
            }
            cut_words(into, MAX_KINDS);
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

/// A transaction's words, as reports may show them.
pub(super) struct Words<'a> {
    /// Words that held no secret, so that most are looked into once. Of one
    /// batch: what else a worker has seen depends on how many there are.
    pub(super) clean: &'a mut HashSet<String>,
    /// Takes this transaction's secrets out.
    pub(super) hide: &'a dyn Fn(&str) -> String,
    /// The same for how it ended.
    pub(super) hide_decision: &'a dyn Fn(&str) -> String,
}

impl Words<'_> {
    fn shown<'w>(&mut self, word: &'w str) -> Cow<'w, str> {
        if self.clean.contains(word) {
            return Cow::Borrowed(word);
        }
        let shown = (self.hide)(word);
        if shown != word {
            return Cow::Owned(shown);
        }
        self.clean.insert(shown);
        Cow::Borrowed(word)
    }
}

fn count(counts: &mut BTreeMap<String, u64>, word: &str) {
    if let Some(number) = counts.get_mut(word) {
        *number += 1;
        return;
    }
    counts.insert(word.to_owned(), 1);
    cut_words(counts, MAX_KINDS);
}

/// Keeps so many words apart and counts the others together. The alphabet
/// decides, since whoever counts a part of them then keeps every word that all
/// together keep; words with digits go first, which a module makes up for each
/// request if it makes up any.
fn cut_words(counts: &mut BTreeMap<String, u64>, most: usize) {
    while counts.len() > most + usize::from(counts.contains_key(OTHER)) {
        let words = || counts.keys().rev();
        let Some(word) = words()
            .find(|word| has_digit(word))
            .or_else(|| words().find(|word| *word != OTHER))
            .cloned()
        else {
            return;
        };
        let number = counts.remove(&word).unwrap_or_default();
        *counts.entry(OTHER.to_owned()).or_default() += number;
    }
}

pub(super) fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::groups::new_group;
    use super::super::report::{Category, Example, Group, GroupKey, Summary};
    use super::*;

    const MOST: usize = 3;

    fn summary(tag: &str) -> Summary {
        Summary {
            decision: "allow".to_owned(),
            tags: vec![tag.to_owned()],
            rule_ids: Vec::new(),
            fault: None,
        }
    }

    fn example(seq: u64) -> Example {
        let text = format!(
            r#"{{"seq":{seq},"file":"f","record":1,"offset":0,"id":"","request":"","fixture":null,"old":[],"new":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Counts some of the words, with their positions, as one worker does.
    fn counted(words: &[(u64, &String)]) -> (BTreeMap<String, u64>, Groups) {
        let (mut counts, mut groups) = (BTreeMap::new(), Groups::default());
        for (seq, word) in words {
            *counts.entry((*word).clone()).or_default() += 1;
            cut_words(&mut counts, MOST);
            let group = new_group(Category::Details, None, summary(word), Vec::new());
            let group = groups.count(group, (MOST, 2));
            if group.wants(*seq, 2) {
                group.keep([example(*seq)], 2);
            }
        }
        (counts, groups)
    }

    proptest! {
        /// More words than are kept apart, counted by three and added up, are
        /// what one would have counted.
        #[test]
        fn who_counts_makes_no_difference(words in prop::collection::vec(("[a-f]|r[0-9]", 0..3_usize), 0..60)) {
            let place = |(seq, (word, who)): (usize, &(String, usize))| (seq as u64, word.clone(), *who);
            let all: Vec<(u64, String, usize)> = words.iter().enumerate().map(place).collect();
            let of = |who: Option<usize>| {
                let is_his = |it: &&(u64, String, usize)| who.is_none_or(|who| it.2 == who);
                counted(&all.iter().filter(is_his).map(|it| (it.0, &it.1)).collect::<Vec<_>>())
            };
            let (counts, groups) = of(None);
            let (mut added, mut joined) = (BTreeMap::new(), Groups::default());
            for who in [2, 0, 1] {
                let (counts, groups) = of(Some(who));
                for (word, number) in counts {
                    *added.entry(word).or_default() += number;
                }
                cut_words(&mut added, MOST);
                for (key, group) in groups.groups {
                    match joined.groups.get_mut(&key) {
                        None => { joined.groups.insert(key, group); }
                        Some(into) => into.absorb(group, 2),
                    }
                    joined.cut((MOST, 2));
                }
            }
            prop_assert_eq!(&added, &counts);
            let seen = |groups: Groups| -> Vec<_> {
                let row = |(key, group): (GroupKey, Group)| {
                    (key.2.text(), group.count, group.examples.iter().map(|it| it.seq).collect::<Vec<_>>())
                };
                groups.groups.into_iter().map(row).collect()
            };
            prop_assert_eq!(seen(joined), seen(groups));
            prop_assert_eq!(counts.values().sum::<u64>(), words.len() as u64);
            prop_assert!(counts.len() <= MOST + 1);
        }
    }

    #[test]
    fn words_a_module_makes_up_go_first() {
        let words = [
            "zebra",
            "client 192.0.2.1",
            "client 192.0.2.2",
            "admin",
            "sqli",
        ];
        let mut counts = words.map(|word| (word.to_owned(), 1)).into_iter().collect();
        cut_words(&mut counts, MOST);
        let kept: Vec<&String> = counts.keys().collect();
        assert_eq!(kept, [OTHER, "admin", "sqli", "zebra"]);
        assert_eq!(counts[OTHER], 2);
    }

    /// A word that is one transaction's secret is not shown because another
    /// batch's transaction had it as a plain word.
    #[test]
    fn words_are_known_by_their_own_batch() {
        let mut clean = HashSet::new();
        let mut words = Words {
            clean: &mut clean,
            hide: &|_| "redacted".to_owned(),
            hide_decision: &str::to_owned,
        };
        assert_eq!(words.shown("plain-word"), "redacted");
        words.hide = &|word| word.to_owned();
        assert_eq!(words.shown("plain-word"), "plain-word");
        words.hide = &|_| "redacted".to_owned();
        assert_eq!(words.shown("plain-word"), "plain-word");
        clean.clear();
        let mut words = Words {
            clean: &mut clean,
            hide: &|_| "redacted".to_owned(),
            hide_decision: &str::to_owned,
        };
        assert_eq!(words.shown("plain-word"), "redacted");
    }
}
