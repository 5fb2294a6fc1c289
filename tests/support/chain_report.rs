//! Reports of a whole replay, held against what is right for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::chain::{Case, Change, Judged, Side, Summary, Truth, differ};
use super::rules::{HOOKS, PHASES, Rules};

/// What `--fail-on` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailOn {
    Any,
    Decision,
    Fault,
    Never,
    Percent(u32),
}

impl FailOn {
    pub(crate) fn all(percent: u32) -> [Self; 5] {
        [
            Self::Decision,
            Self::Any,
            Self::Fault,
            Self::Never,
            Self::Percent(percent),
        ]
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Decision => "decision".to_owned(),
            Self::Fault => "fault".to_owned(),
            Self::Never => "never".to_owned(),
            Self::Percent(most) => format!("{most}%"),
        }
    }
}

/// What of a replay makes it fail.
#[derive(Debug, Clone, Copy, Default)]
struct Failing {
    /// Faults of the module, whoever else has them.
    faults: bool,
    new_faults: bool,
    decisions: bool,
    details: bool,
}

/// Changes with one cause.
#[derive(Debug, Default)]
struct Group {
    count: u64,
    fields: BTreeSet<String>,
    /// The first lines of its transactions.
    records: Vec<u64>,
}

type Key = (
    &'static str,
    Option<Summary>,
    Summary,
    Option<BTreeSet<String>>,
);
type Groups = BTreeMap<Key, Group>;

const CATEGORIES: [(&str, &str); 4] = [
    ("faulted", "faulted"),
    ("decision", "decision changed"),
    ("details", "details changed"),
    ("unchanged", "unchanged"),
];

/// A report of one replay, with what is right for it.
pub(crate) struct Held<'c> {
    pub(crate) case: &'c Case,
    pub(crate) truth: &'c Truth,
    /// Transactions that were asked about again and answered with another decision, and
    /// with other details: which ones are asked again is taken as reported.
    pub(crate) earlier: (u64, u64),
}

fn add(groups: &mut Groups, key: Key, fields: &BTreeSet<String>, record: u64) {
    let group = groups.entry(key).or_default();
    group.count += 1;
    group.fields.extend(fields.iter().cloned());
    group.records.push(record);
}

fn key_of(change: &Change) -> Key {
    let fields = (change.from == change.to).then(|| change.fields.clone());
    let (from, to) = (change.from.clone(), change.to.clone());
    (change.category, Some(from), to, fields)
}

impl Held<'_> {
    fn transactions(&self) -> impl Iterator<Item = &Judged> {
        self.truth.transactions.iter()
    }

    fn count(&self, wanted: impl Fn(&Judged) -> bool) -> u64 {
        self.transactions().filter(|it| wanted(it)).count() as u64
    }

    fn compared(&self) -> u64 {
        self.count(|it| it.judged().0)
    }

    fn changed(&self, category: &str) -> u64 {
        self.count(|it| it.judged().1.is_some_and(|it| it.category == category))
    }

    fn faulted(&self) -> u64 {
        self.count(Judged::faults)
    }

    /// Takes over which answers depend on earlier calls: only those of a module that
    /// counts may.
    pub(crate) fn take_earlier(&mut self, report: &Value) {
        let found = &report["earlier_calls"];
        let count = |key: &str| found[key].as_u64().unwrap_or(0);
        self.earlier = (count("decisions"), count("details"));
        let may_depend = self.case.new.counts() && !self.case.flags.is_fresh;
        assert!(may_depend || found.is_null(), "{report}");
    }

    /// Whether those make it fail.
    const fn fails_by_earlier(&self, fail_on: FailOn) -> bool {
        let (decisions, details) = self.earlier;
        match fail_on {
            FailOn::Any => decisions + details > 0,
            FailOn::Decision => decisions > 0,
            _ => false,
        }
    }

    fn failing(&self, fail_on: FailOn) -> Failing {
        let faults = self.faulted() > 0;
        let (decisions, details) = (self.changed("decision") > 0, self.changed("details") > 0);
        match fail_on {
            FailOn::Never => Failing::default(),
            FailOn::Fault => Failing {
                faults,
                new_faults: faults,
                ..Failing::default()
            },
            FailOn::Decision | FailOn::Any => Failing {
                faults,
                new_faults: faults,
                decisions,
                details: details && fail_on == FailOn::Any,
            },
            FailOn::Percent(most) => {
                let is_more = |part: u64, all: u64| part * 100 > u64::from(most) * all;
                let all = self.truth.transactions.len() as u64;
                let faults = is_more(self.faulted(), all);
                let changed = self.changed("decision") + self.changed("faulted");
                let decisions = is_more(changed, self.compared());
                Failing {
                    faults,
                    new_faults: faults || decisions,
                    decisions,
                    details: false,
                }
            }
        }
    }

    /// The verdict with its exit code.
    pub(crate) fn verdict(&self, fail_on: FailOn) -> (&'static str, u8) {
        let failing = self.failing(fail_on);
        let has_failed = failing.new_faults
            || failing.decisions
            || failing.details
            || self.fails_by_earlier(fail_on);
        let (read, unusable) = (self.truth.transactions.len(), self.truth.unusable);
        if has_failed {
            ("failed", 1)
        } else if unusable > 0 && (self.case.flags.is_strict || read == 0) {
            ("unreadable", 3)
        } else if read > 0 {
            ("passed", 0)
        } else {
            ("nothing_checked", 4)
        }
    }

    fn groups(&self, change: impl Fn(&Judged) -> Option<&Change>) -> Groups {
        let mut groups = Groups::new();
        for it in self.transactions() {
            if let Some(change) = change(it) {
                add(&mut groups, key_of(change), &change.fields, it.record);
            }
        }
        groups
    }

    /// Faults that no comparison with a baseline shows.
    fn faults(&self) -> Groups {
        let mut groups = Groups::new();
        for it in self.transactions() {
            let is_shown = it.beside_change.as_ref();
            let is_shown = is_shown.is_some_and(|change| change.category == "faulted");
            if it.faults() && !is_shown {
                let answers: Vec<Value> = it.new.iter().map(|it| it.value.clone()).collect();
                let fault = it.new.iter().filter_map(|it| it.fault.as_ref()).next_back();
                let to = Summary::of(&answers, fault);
                add(
                    &mut groups,
                    ("faulted", None, to, None),
                    &BTreeSet::new(),
                    it.record,
                );
            }
        }
        groups
    }

    /// Holds the JSON of a report against it.
    pub(crate) fn report(&self, report: &Value, fail_on: FailOn) {
        assert_eq!(report["verdict"], self.verdict(fail_on).0, "{report:#}");
        let records = &report["records"];
        let found = [&records["transactions"], &records["unusable"]];
        let all = self.truth.transactions.len() as u64;
        assert_eq!(found, [all, self.truth.unusable], "{records}");
        assert_eq!([&records["not_selected"], &records["skipped"]], [0, 0]);
        assert_eq!(report["compared"], self.compared(), "{report:#}");
        self.outcomes(&report["outcomes"], |it| Some(&it.new));
        let is_beside = self.case.old.is_some() && all > 0;
        assert_eq!(
            report.get("baseline_outcomes").is_some(),
            is_beside,
            "{report:#}"
        );
        if is_beside {
            self.outcomes(&report["baseline_outcomes"], |it| it.old.as_ref());
        }
        self.comparison(
            (report.get("comparison"), false),
            |it| it.beside.as_ref(),
            |it| it.beside_change.as_ref(),
        );
        self.comparison(
            (report.get("drift"), true),
            |it| it.drifted.as_ref(),
            |it| it.drift_change.as_ref(),
        );
        self.same_groups(&report["faulted"], self.faults(), |it| {
            (Vec::new(), Side::of(it.new.iter()).answers)
        });
        self.ignored(&report["ignored"]);
    }

    fn outcomes(
        &self,
        found: &Value,
        answers: impl Fn(&Judged) -> Option<&Vec<super::chain::Answered>>,
    ) {
        let mut counts: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for part in ["decisions", "tags", "rules", "faults"] {
            counts.insert(part, BTreeMap::new());
        }
        let (mut calls, mut faulted) = (0, 0);
        for answers in self.transactions().filter_map(answers) {
            let mut count = |part: &'static str, words: Vec<String>| {
                for word in words {
                    let counts = counts.get_mut(part).unwrap();
                    *counts.entry(word).or_default() += 1_u64;
                }
            };
            let values: Vec<Value> = answers.iter().map(|it| it.value.clone()).collect();
            let summary = Summary::of(&values, None);
            let faults: BTreeSet<String> =
                answers.iter().filter_map(|it| it.fault.clone()).collect();
            calls += answers.iter().filter(|it| it.is_called).count();
            faulted += u64::from(!faults.is_empty());
            count("decisions", vec![summary.decision]);
            count("tags", summary.tags);
            count("rules", summary.rule_ids);
            count("faults", faults.into_iter().collect());
        }
        assert_eq!(found["calls"], calls, "{found:#}");
        assert_eq!(found["faulted"], faulted, "{found:#}");
        for (part, words) in counts {
            assert_eq!(found[part], serde_json::json!(words), "{part} {found:#}");
        }
    }

    fn comparison(
        &self,
        (found, is_drift): (Option<&Value>, bool),
        sides: impl Fn(&Judged) -> Option<&(Side, Side)>,
        change: impl Fn(&Judged) -> Option<&Change>,
    ) {
        let compared = self.count(|it| sides(it).is_some());
        assert_eq!(found.is_some(), compared > 0, "{found:#?}");
        let Some(found) = found else {
            return;
        };
        assert_eq!(found["compared"], compared, "{found:#}");
        for (category, _) in CATEGORIES {
            let is_it = |it: &Judged| {
                sides(it).is_some()
                    && change(it).map_or("unchanged", |change| change.category) == category
            };
            let number = found["categories"].get(category);
            let number = number.map_or(0, |number| number.as_u64().unwrap());
            assert_eq!(number, self.count(is_it), "{category} {found:#}");
        }
        let groups = self.groups(&change);
        self.same_groups(&found["groups"], groups, |it| {
            let now = if is_drift { it.old.as_ref() } else { None };
            let now = Side::of(now.unwrap_or(&it.new).iter());
            (sides(it).unwrap().0.answers.clone(), now.answers)
        });
    }

    /// Holds groups with their examples against these.
    fn same_groups(
        &self,
        found: &Value,
        mut groups: Groups,
        answers: impl Fn(&Judged) -> (Vec<Value>, Vec<Value>),
    ) {
        let mut ranks = Vec::new();
        for group in found.as_array().unwrap() {
            let category = group["category"].as_str().unwrap();
            let rank = CATEGORIES.iter().position(|it| it.0 == category).unwrap();
            let from = Some(&group["from"]).filter(|from| !from.is_null());
            let (from, to) = (from.map(Summary::read), Summary::read(&group["to"]));
            let fields: BTreeSet<String> = group["fields"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| field.as_str().unwrap().to_owned())
                .collect();
            let was_allowed = from
                .as_ref()
                .is_some_and(|from| from.decision == "allow" || from.decision.starts_with("ok"));
            let own = (from.as_ref() == Some(&to)).then(|| fields.clone());
            let key = (CATEGORIES[rank].0, from, to, own);
            let right = groups
                .remove(&key)
                .unwrap_or_else(|| panic!("{key:#?} is in {found:#}, and not in {groups:#?}"));
            assert_eq!(
                (&group["count"], &fields),
                (&right.count.into(), &right.fields)
            );
            ranks.push((rank, !was_allowed, u64::MAX - right.count));
            let shown = group["examples"].as_array().unwrap();
            let most = right.records.len().min(self.case.flags.examples);
            assert_eq!(shown.len(), most, "{group:#}");
            for (example, record) in shown.iter().zip(right.records) {
                assert_eq!(example["record"], record, "{group:#}");
                let it = self.transaction(record);
                let (old, new) = answers(it);
                assert_eq!(example["old"], Value::Array(old), "{group:#}");
                assert_eq!(example["new"], Value::Array(new), "{group:#}");
            }
        }
        assert!(groups.is_empty(), "{groups:#?} are not in {found:#}");
        assert!(ranks.is_sorted(), "{found:#}");
    }

    fn transaction(&self, record: u64) -> &Judged {
        let mut all = self.transactions();
        all.find(|it| it.record == record)
            .unwrap_or_else(|| panic!("line {record} begins no transaction"))
    }

    fn is_ignored(&self, pointer: &str) -> bool {
        let mut compared = self.transactions().filter(|it| it.judged().0);
        compared.any(|it| {
            let played = [Some(&it.new), it.old.as_ref()].into_iter().flatten();
            let mut played = played.map(|answers| Side::of(answers.iter()));
            let recorded = it.drifted.as_ref().map(|sides| &sides.0);
            played.any(|side| side.has(pointer)) || recorded.is_some_and(|it| it.has(pointer))
        })
    }

    fn ignored(&self, found: &Value) {
        let all = self.case.flags.ignore.iter();
        let right: BTreeMap<&str, bool> = all.map(|it| (*it, self.is_ignored(it))).collect();
        let found = Some(found).filter(|it| !it.is_null());
        assert_eq!(
            found.cloned().unwrap_or_else(|| serde_json::json!({})),
            serde_json::json!(right)
        );
    }

    /// Holds the lines of `jsonl` against it. Of each position in the capture the
    /// first line of its transaction.
    pub(crate) fn rows(&self, text: &str) -> BTreeMap<u64, u64> {
        let mut places = BTreeMap::new();
        for row in text.lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let record = row["record"].as_u64().unwrap();
            places.insert(row["seq"].as_u64().unwrap(), record);
            let it = self.transaction(record);
            let (compared, change) = it.judged();
            let category = change.map_or("unchanged", |change| change.category);
            let category = Some(category).filter(|_| compared);
            assert_eq!(row["category"].as_str(), category, "{row:#}");
            let fields = row.get("fields").map(|fields| -> BTreeSet<String> {
                let fields = fields.as_array().unwrap().iter();
                fields.map(|it| it.as_str().unwrap().to_owned()).collect()
            });
            assert_eq!(
                fields.as_ref(),
                change.map(|change| &change.fields),
                "{row:#}"
            );
            let side = |answers: &[super::chain::Answered]| {
                let side = Side::of(answers.iter());
                Summary::of(&side.answers, side.fault())
            };
            assert_eq!(Summary::read(&row["module"]), side(&it.new), "{row:#}");
            assert_eq!(row.get("baseline").is_some(), it.old.is_some(), "{row:#}");
            if let Some(old) = &it.old {
                assert_eq!(Summary::read(&row["baseline"]), side(old), "{row:#}");
            }
            let recorded = row.get("recorded").map(Summary::read);
            let right = change.filter(|_| it.old.is_none());
            assert_eq!(recorded, right.map(|change| change.from.clone()), "{row:#}");
        }
        let mut right: Vec<u64> = self.transactions().map(|it| it.record).collect();
        right.sort_unstable();
        assert_eq!(
            places.values().copied().collect::<Vec<_>>(),
            right,
            "{text}"
        );
        places
    }

    /// Cases of JUnit: suite, name, and whether it is an error, a failure or
    /// neither.
    fn cases(&self, fail_on: FailOn) -> Vec<(&'static str, String, &'static str)> {
        let failing = self.failing(fail_on);
        let mut cases = Vec::new();
        let is_beside = self.case.old.is_some();
        let has = |sides: fn(&Judged) -> bool| self.count(sides) > 0;
        let mut comparison = |suite, groups: Groups, is_judged: bool, unchanged: u64| {
            for ((category, from, to, fields), _) in groups {
                let kind = match category {
                    _ if !is_judged => "",
                    "faulted" if failing.new_faults => "error",
                    "decision" if failing.decisions => "failure",
                    "details" if failing.details => "failure",
                    _ => "",
                };
                let fields: Vec<String> = fields.into_iter().flatten().collect();
                let from = from.unwrap().text();
                let name = if fields.is_empty() {
                    format!("{from} → {}", to.text())
                } else {
                    format!("{}: {}", to.text(), fields.join(", "))
                };
                cases.push((suite, name, kind));
            }
            cases.push((suite, format!("{unchanged} transactions unchanged"), ""));
        };
        if has(|it| it.beside.is_some()) {
            let unchanged = self.count(|it| it.beside.is_some() && it.beside_change.is_none());
            let groups = self.groups(|it| it.beside_change.as_ref());
            comparison("baseline", groups, true, unchanged);
        }
        if has(|it| it.drifted.is_some()) {
            let unchanged = self.count(|it| it.drifted.is_some() && it.drift_change.is_none());
            let groups = self.groups(|it| it.drift_change.as_ref());
            comparison("recorded", groups, !is_beside, unchanged);
        }
        // Beside a baseline these are the faults that it has too.
        let is_red = failing.faults || failing.new_faults && !is_beside;
        for ((_, _, to, _), _) in self.faults() {
            cases.push(("faults", to.text(), if is_red { "error" } else { "" }));
        }
        cases
    }

    /// Sentences that every format has.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.truth.transactions.is_empty() {
            warnings.push("nothing was checked".to_owned());
            return warnings;
        }
        let departures = self.count(|it| it.departs);
        if departures > 0 {
            let many = if departures == 1 { "" } else { "s" };
            warnings.push(format!(
                "in {departures} transaction{many}, neither module decides as it was recorded"
            ));
        }
        if self.compared() == 0 {
            warnings.push("nothing was compared".to_owned());
        } else {
            let ignore = self.case.flags.ignore.iter();
            let missing = ignore.filter(|pointer| !self.is_ignored(pointer));
            warnings.extend(missing.map(|it| format!("--ignore {it}: no answer has this part")));
        }
        warnings
    }

    fn totals(&self) -> String {
        let plural = |number: u64, word: &str| match number {
            1 => format!("1 {word}"),
            _ => format!("{number} {word}s"),
        };
        let all = self.truth.transactions.len() as u64;
        let mut parts = vec![plural(all, "transaction")];
        if self.truth.unusable > 0 {
            parts.push(plural(self.truth.unusable, "unusable record"));
        }
        let compared = self.compared();
        if compared > 0 {
            if compared < all {
                parts.push(format!("{compared} compared"));
            }
            let changed = self.count(|it| it.judged().1.is_some());
            parts.push(format!("{changed} changed"));
        } else if all > 0 {
            parts.push("nothing compared".to_owned());
        }
        parts.push(plural(self.faulted(), "fault"));
        let earlier = self.earlier.0 + self.earlier.1;
        if earlier > 0 {
            parts.push(format!("{earlier} depending on earlier calls"));
        }
        parts.join(", ")
    }

    /// Holds a report in a format for people or for CI against it.
    pub(crate) fn text(&self, format: &str, text: &str, (fail_on, left_out): (FailOn, usize)) {
        let (verdict, code) = self.verdict(fail_on);
        // Markdown escapes what is not to be an emphasis.
        let text = &text.replace('\\', "");
        let about = || format!("{format} with --fail-on {}: {text}", fail_on.text());
        for warning in self.warnings() {
            assert!(text.contains(&warning), "{warning} in {}", about());
        }
        let none = [
            "nothing was checked: ",
            "nothing was compared",
            "no answer has this part",
        ];
        for other in none {
            let is_right = self
                .warnings()
                .iter()
                .any(|it| it.contains(other.trim_end_matches(": ")));
            assert_eq!(text.contains(other), is_right, "{other} in {}", about());
        }
        let word = verdict.replace("nothing_checked", "nothing was checked");
        let (good, bad) = match format {
            "human" => {
                let line = format!("\n{word}: {}\n", self.totals());
                assert!(text.contains(&line), "{line} in {}", about());
                return;
            }
            "markdown" => ("### ✅", "### ❌"),
            "html" => ("banner good", "banner bad"),
            "junit" => return self.junit(text, (fail_on, left_out)),
            _ => return self.github(text, (fail_on, left_out)),
        };
        assert!(
            text.contains(&self.totals()),
            "{} in {}",
            self.totals(),
            about()
        );
        assert_eq!(text.contains(good), code == 0, "{}", about());
        assert_eq!(text.contains(bad), code == 1 || code == 3, "{}", about());
    }

    /// How many cases are red besides those of comparisons: unusable records, and
    /// that nothing was checked.
    fn red_besides(&self, fail_on: FailOn) -> u64 {
        let (verdict, _) = self.verdict(fail_on);
        let unreadable = self.case.flags.is_strict || verdict == "unreadable";
        let unusable = if unreadable { self.truth.unusable } else { 0 };
        let earlier = u64::from(self.fails_by_earlier(fail_on));
        unusable + u64::from(verdict == "nothing_checked") + earlier
    }

    fn junit(&self, text: &str, (fail_on, _): (FailOn, usize)) {
        let mut found = Vec::new();
        let mut others = 0;
        for case in text.split("<testcase ").skip(1) {
            let case = case.split("</testcase>").next().unwrap();
            let of = |key: &str| {
                let value = case.split(&format!("{key}=\"")).nth(1).unwrap();
                let value = value.split('"').next().unwrap();
                let value = value.replace("&quot;", "\"").replace("&gt;", ">");
                value.replace("&lt;", "<").replace("&amp;", "&")
            };
            let kind = ["error", "failure"];
            let kind = kind.into_iter().find(|it| case.contains(&format!("<{it}")));
            let suite = ["baseline", "recorded", "faults"];
            match suite.into_iter().find(|it| of("classname") == *it) {
                Some(suite) => found.push((suite, of("name"), kind.unwrap_or_default())),
                None => others += u64::from(kind.is_some()),
            }
        }
        let mut right = self.cases(fail_on);
        right.sort();
        found.sort();
        assert_eq!(found, right, "{text}");
        assert_eq!(others, self.red_besides(fail_on), "{text}");
    }

    fn github(&self, text: &str, (fail_on, left_out): (FailOn, usize)) {
        let cases = self.cases(fail_on);
        let is_red = |case: &&(&str, String, &str)| !case.2.is_empty();
        let besides = self.red_besides(fail_on);
        let red = cases.iter().filter(is_red).count() as u64 + besides;
        let starting = |start: &str| text.lines().filter(|it| it.starts_with(start)).count();
        assert_eq!(starting("::error ") as u64, red, "{text}");
        let unchanged = cases.iter().filter(|it| it.1.ends_with(" unchanged"));
        let all = cases.len() as u64 - unchanged.count() as u64
            + self.truth.unusable
            + self.warnings().len() as u64
            + u64::from(self.earlier.0 + self.earlier.1 > 0)
            + left_out as u64;
        assert_eq!(starting("::warning ") as u64, all - red, "{text}");
        let counted = format!(" {red} failed, {} warnings,", all - red);
        assert!(text.contains(&counted), "{counted} {text}");
    }
}

/// A module that plays fixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Player {
    New,
    /// The baseline, or without one what answered when it was recorded.
    Old,
}

/// What fixtures are to show.
impl Held<'_> {
    /// How many transactions are to become fixtures, and how many of them have no
    /// recorded answer to expect.
    pub(crate) fn wanted(&self) -> (u64, u64) {
        let is_wanted =
            |it: &Judged| self.case.flags.saves_all || it.judged().1.is_some() || it.faults();
        let has_none = |it: &Judged| {
            is_wanted(it) && self.case.flags.expects_old && it.old.is_none() && !it.has_record
        };
        (self.count(is_wanted), self.count(has_none))
    }

    /// Whether each wanted fixture that has an answer to expect can be shown, and
    /// how many of them may be left out none the less: a fixture of both hooks
    /// goes on with what the first left, and so may show less.
    pub(crate) fn may_lack(&self) -> Option<u64> {
        let has_both = |it: &Judged| self.case.is_hooks && it.asked > 1;
        self.shows_all().then(|| self.count(has_both))
    }

    fn shows_all(&self) -> bool {
        let handles_all = |rules: &Rules| {
            let all = if self.case.is_hooks {
                HOOKS.len()
            } else {
                PHASES.len()
            };
            rules.0.len() == all && !rules.counts()
        };
        let old = self.case.old.as_ref().unwrap_or(&self.case.past);
        handles_all(&self.case.new) && handles_all(old)
    }

    /// Whether a fixture of the transaction that begins with this line passes with
    /// a module; nothing where that is not known.
    pub(crate) fn passes(&self, record: u64, player: Player) -> Option<bool> {
        let it = self.transaction(record);
        let (_, change) = it.judged();
        let expects_old = self.case.flags.expects_old;
        if change.is_none() {
            let is_of_new = it.faults() || !expects_old || it.old.is_none();
            let is_it = (player == Player::New) == is_of_new;
            return is_it.then_some(true);
        }
        if it.old.is_none() && player == Player::Old && (it.is_unclear || !self.shows_all()) {
            // Of a handler that a module lacks nothing is expected, and a fault that
            // nobody expects is none of what was recorded.
            return None;
        }
        Some((player == Player::Old) == expects_old)
    }

    /// Holds what two modules answered to a fixture against the change that it is
    /// filed under.
    pub(crate) fn shown(&self, record: u64, (old, new): (&Value, &Value)) {
        let side = |report: &Value| {
            let mut side = Side::default();
            let steps = report["fixtures"][0]["steps"].as_array().unwrap().iter();
            for step in steps.filter(|step| !step["response"].is_null()) {
                side.answers.push(step["response"].clone());
                side.faults
                    .push(step["fault"]["code"].as_str().map(str::to_owned));
            }
            side
        };
        let right = self.transaction(record).beside_change.as_ref().unwrap();
        let (old, new) = (side(old), side(new));
        let found = differ(&old, &new, &self.case.flags.ignore).unwrap();
        let plain = |change: &Change| {
            let fields: BTreeSet<String> = change
                .fields
                .iter()
                .map(|it| {
                    it.trim_start_matches(|it: char| it.is_ascii_digit())
                        .to_owned()
                })
                .filter(|it| it != "steps")
                .collect();
            let (from, to) = (change.from.clone(), change.to.clone());
            (change.category, from, to, fields)
        };
        assert_eq!(plain(&found), plain(right));
    }
}
