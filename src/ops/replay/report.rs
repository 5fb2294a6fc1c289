//! What a replay found: counts that shards of it add up to exactly.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::histogram::Histogram;
use crate::capture::{Format, Place, Remark, Unusable};
pub(crate) use crate::compare::{Category, Summary};
use crate::ops::module_info::ModuleInfo;
use crate::report::{Case, CaseStatus, Report, Verdict};

/// Unusable records that are listed one by one; all are counted.
pub(crate) const MAX_LISTED: usize = 100;
/// Transactions in each list of the costliest.
pub(crate) const MAX_COSTLY: usize = 10;
/// Rules, tags, groups of changes: what is kept apart; the rest is counted
/// together under [`OTHER`].
pub(crate) const MAX_KINDS: usize = 2_000;
/// Places that are listed of those where the answers of a group differ.
pub(crate) const MAX_FIELDS: usize = 20;
/// What stands for all that is not kept apart.
pub(crate) const OTHER: &str = "(other)";

/// Which part of a capture this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 1.
    pub index: u32,
    /// All shards.
    pub of: u32,
}

/// One capture file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureInfo {
    /// The file, `-` for standard input.
    pub file: String,
    /// What it is written in.
    pub format: Option<Format>,
    /// What the format does not hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loses: Option<String>,
}

/// How many records and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Transactions replayed.
    pub transactions: u64,
    /// Records that could not be used.
    pub unusable: u64,
    /// Transactions that the selection left out.
    pub not_selected: u64,
    /// Records that are well-formed and no traffic to replay.
    pub skipped: u64,
}

/// What one module made of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Calls of the module.
    pub calls: u64,
    /// Transactions of which the module was asked nothing, since it has no
    /// handler for any of their events.
    #[serde(default)]
    pub not_asked: u64,
    /// Transactions by how they ended: the decision with its status.
    pub decisions: BTreeMap<String, u64>,
    /// Transactions in which each rule fired.
    pub rules: BTreeMap<String, u64>,
    /// Transactions with each tag.
    pub tags: BTreeMap<String, u64>,
    /// Transactions with each fault, by reason code.
    pub faults: BTreeMap<String, u64>,
    /// Transactions with any.
    #[serde(default)]
    pub faulted: u64,
    /// Instructions of each call.
    pub fuel: Histogram,
    /// Wall clock of each call, in nanoseconds; nothing with `--no-timings`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time_ns: Option<Histogram>,
    /// Linear memory.
    pub memory: MemoryUse,
}

/// What became of linear memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The most one instance had, in bytes.
    pub max_bytes: u64,
    /// Calls that added to it.
    pub growing_calls: u64,
    /// What they added, in bytes.
    pub grown_bytes: u64,
}

/// A transaction that cost much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costly {
    /// Its position in the capture.
    pub seq: u64,
    /// Its first record.
    #[serde(flatten)]
    pub place: Place,
    /// Its correlation id.
    pub id: String,
    /// Method and path, secrets redacted.
    pub request: String,
    /// How it ended.
    pub decision: String,
    /// What it cost: instructions or nanoseconds.
    pub cost: u64,
}

/// One changed or faulted transaction, shown in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its position in the capture.
    pub seq: u64,
    /// Its first record.
    #[serde(flatten)]
    pub place: Place,
    /// Its correlation id.
    pub id: String,
    /// Method and path, secrets redacted.
    pub request: String,
    /// The fixture it makes, secrets redacted.
    pub fixture: Value,
    /// The smallest fixture that still shows the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minimized: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_fixture: Option<NoFixture>,
    /// What a reader should know of its fixtures.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// The answers before, up to the one that ended it.
    pub old: Vec<Value>,
    /// The answers now.
    pub new: Vec<Value>,
}

named! {
    /// Why a transaction has no fixture.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum NoFixture {
        /// On instances of their own the modules answer otherwise.
        EarlierCalls => "the answer depends on earlier requests",
        /// Without its secrets it is another request to the module.
        Redaction => "redacting it changes the answer",
        /// Nothing was recorded that could be expected.
        NotRecorded => "no answer was recorded",
        /// No fixture says what was asked, or can tell the answers apart.
        Form => "no fixture can show it",
    }
}

impl Example {
    /// Its notes, and the smallest fixture there is.
    fn detail(&self) -> String {
        let fixture = self.minimized.as_ref().unwrap_or(&self.fixture);
        let fixture = Some(fixture).filter(|fixture| !fixture.is_null());
        let fixture = fixture.and_then(|it| serde_json::to_string_pretty(it).ok());
        let lines = self.notes.iter().cloned().chain(fixture);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Notes why it has no fixture.
    pub(super) fn leave_out(&mut self, why: NoFixture, text: &str) {
        self.no_fixture = Some(why);
        self.notes.push(format!("no fixture: {text}"));
    }
}

/// Changes with the same cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What kind of change.
    pub category: Category,
    /// How these transactions ended before; nothing where there is no before.
    pub from: Option<Summary>,
    /// How they end now.
    pub to: Summary,
    /// Which parts of the answers differ, as JSON pointers: of all of its
    /// transactions, or only of some where they also end otherwise than before.
    pub fields: Vec<String>,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Example>,
}

/// What cost what, on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FuelChange {
    /// Instructions before, all transactions.
    pub old: u64,
    /// Instructions now.
    pub new: u64,
    /// Transactions that cost as much as before.
    pub equal: u64,
    /// Transactions that cost more.
    pub more: u64,
    /// Transactions that cost less.
    pub less: u64,
    /// The largest increases.
    pub increases: Vec<Costly>,
}

/// Two sides, transaction by transaction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Transactions that were compared.
    pub compared: u64,
    /// How many came out how.
    pub categories: BTreeMap<Category, u64>,
    /// Changes by cause, the gravest first.
    pub groups: Vec<Group>,
    /// Cost; nothing where the old side's is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fuel: Option<FuelChange>,
}

impl Comparison {
    /// How many came out so.
    #[must_use]
    pub fn count(&self, category: Category) -> u64 {
        self.categories.get(&category).copied().unwrap_or(0)
    }
}

/// One test of a test file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TestResult {
    /// Its position in the capture.
    pub seq: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Its name.
    pub test: String,
    /// What was missed; nothing where it passed.
    pub missed: Vec<String>,
}

/// What makes a replay fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailOn {
    /// Any difference, and what `Decision` counts.
    Any,
    /// Another decision, and what `Fault` counts.
    #[default]
    Decision,
    /// What `Decision` counts, and with a baseline also decisions of both modules
    /// that are not the recorded ones.
    Recorded,
    /// A fault of the module, whether or not the other side faulted too.
    Fault,
    /// Another decision or a new fault in more than this share of what was
    /// compared, or a fault in more than this share of all, in percent.
    Percent(f64),
    /// Nothing, not even a failed test.
    Never,
}

impl std::fmt::Display for FailOn {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => out.write_str("any"),
            Self::Decision => out.write_str("decision"),
            Self::Recorded => out.write_str("recorded"),
            Self::Fault => out.write_str("fault"),
            Self::Percent(most) => write!(out, "{most}%"),
            Self::Never => out.write_str("never"),
        }
    }
}

/// What of a replay makes it fail. All that reports colour, and the exit code,
/// follow from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failing {
    /// Faults of the module.
    pub(crate) faults: bool,
    /// Other decisions, and new faults among what was compared.
    decisions: bool,
    /// Other details of the same decision.
    details: bool,
    /// Tests of test files.
    pub(crate) tests: bool,
    /// Answers that depend on earlier calls of their instance.
    pub(crate) earlier_calls: bool,
    /// Decisions of both modules that are not the recorded ones.
    pub(crate) departures: bool,
}

impl Failing {
    /// Whether transactions that came out so are part of it.
    pub(crate) const fn has(self, category: Category) -> bool {
        match category {
            Category::Faulted => self.faults || self.decisions,
            Category::Decision => self.decisions,
            Category::Details => self.details,
            Category::Unchanged => false,
        }
    }

    const fn any(self) -> bool {
        self.faults
            || self.decisions
            || self.details
            || self.tests
            || self.earlier_calls
            || self.departures
    }
}

/// Transactions that were asked about again on a new instance, and answered otherwise
/// there: some of each thousand are asked again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierCalls {
    /// Those with another decision, or a fault on one side only.
    pub decisions: u64,
    /// Those with other details of the same decision.
    pub details: u64,
    /// The first of the gravest.
    pub example: EarlierCallsExample,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierCallsExample {
    /// Its position in the capture.
    pub seq: u64,
    /// Its first record.
    #[serde(flatten)]
    pub place: Place,
    /// Its correlation id.
    pub id: String,
    /// Method and path, secrets redacted.
    pub request: String,
    /// How it ends on a new instance.
    pub on_new: Summary,
    /// How it ended on the instance that had been asked before.
    pub on_used: Summary,
    /// Which parts of the answers differ, as JSON pointers.
    pub fields: Vec<String>,
    /// What that instance had answered before.
    pub calls_before: u64,
    /// Whether it is another decision, and not only other details.
    pub is_decision: bool,
}

impl EarlierCalls {
    pub(super) fn of(example: EarlierCallsExample) -> Self {
        Self {
            decisions: u64::from(example.is_decision),
            details: u64::from(!example.is_decision),
            example,
        }
    }

    pub(super) fn absorb(&mut self, other: Self) {
        self.decisions += other.decisions;
        self.details += other.details;
        let rank = |example: &EarlierCallsExample| (!example.is_decision, example.seq);
        if rank(&other.example) < rank(&self.example) {
            self.example = other.example;
        }
    }

    /// The finding, in a sentence.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let example = &self.example;
        let [new, mut used] = [&example.on_new, &example.on_used].map(Summary::text);
        if new == used {
            used.push_str(&format!(" with another {}", example.fields.join(", ")));
        }
        let times = if example.calls_before == 1 {
            "call"
        } else {
            "calls"
        };
        format!(
            "answers depend on earlier calls on the same instance: {} answered otherwise when asked about again on a new one, first {} ({}, record {}): {new} there, {used} after {} {times}",
            transactions(self.decisions + self.details),
            example.request,
            example.place.file,
            example.place.record,
            example.calls_before,
        )
    }
}

/// Transactions that neither module decides as it was recorded: two modules that
/// agree may both lack what the recorded one had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departures {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Departure>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Its position in the capture.
    pub seq: u64,
    /// Its first record.
    #[serde(flatten)]
    pub place: Place,
    /// Its correlation id.
    pub id: String,
    /// Method and path, secrets redacted.
    pub request: String,
    /// How it ended when it was recorded.
    pub recorded: Summary,
    /// How it ends with the module.
    pub now: Summary,
}

/// Departures that a sentence shows.
const SHOWN_DEPARTURES: usize = 3;

impl Departures {
    pub(super) fn add(&mut self, departure: Departure, examples: usize) {
        self.absorb(
            Self {
                count: 1,
                examples: vec![departure],
            },
            examples,
        );
    }

    pub(super) fn absorb(&mut self, other: Self, examples: usize) {
        self.count += other.count;
        self.examples.extend(other.examples);
        self.examples.sort_by_key(|example| example.seq);
        self.examples.truncate(examples);
    }

    /// The finding, in a sentence.
    fn text(&self) -> String {
        let examples = self.examples.iter().take(SHOWN_DEPARTURES).map(|it| {
            let (recorded, now) = (it.recorded.text(), it.now.text());
            let (file, record) = (&it.place.file, it.place.record);
            format!(
                "{} ({file}, record {record}): {recorded} → {now}",
                it.request
            )
        });
        let examples: Vec<String> = examples.collect();
        let first = if examples.is_empty() {
            String::new()
        } else {
            format!("; first {}", examples.join(", "))
        };
        format!(
            "in {}, neither module decides as it was recorded, so that they agree says little (--fail-on recorded makes it a failure){first}",
            transactions(self.count)
        )
    }
}

/// What came of a replay; by default of one without a transaction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The module.
    pub module: ModuleInfo,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<ModuleInfo>,
    /// How modules were called and what was selected, as flags.
    pub settings: BTreeMap<String, String>,
    /// Which part of the capture this is; nothing for all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shard: Option<Shard>,
    /// Ended before the capture did.
    pub interrupted: bool,
    /// What makes it fail.
    pub fail_on: FailOn,
    /// A record that cannot be used is a failure.
    pub strict: bool,
    /// It may pass although decisions were not compared, since redacting had changed
    /// them.
    #[serde(default)]
    pub allow_redacted_changes: bool,
    /// The files.
    pub captures: Vec<CaptureInfo>,
    /// Of a shard: a hash of what was read of each file, so that only shards of
    /// the same captures are merged.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub capture_digests: Vec<String>,
    /// Which parts of answers were ignored, and whether any answer has them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub ignored: BTreeMap<String, bool>,
    /// How many records and what became of them.
    pub records: RecordCounts,
    /// The first records that could not be used.
    pub unusable: Vec<Unusable>,
    /// What should be known about the capture, with how many records it
    /// concerns.
    pub remarks: BTreeMap<Remark, u64>,
    /// What the module made of it.
    pub outcomes: Outcomes,
    /// What the baseline made of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline_outcomes: Option<Outcomes>,
    /// The transactions with most instructions.
    pub dearest: Vec<Costly>,
    /// The transactions that took longest; empty with `--no-timings`.
    pub slowest: Vec<Costly>,
    /// Transactions that were compared: with the baseline, or without one with
    /// the recorded decisions.
    #[serde(default)]
    pub compared: u64,
    /// Transactions with a step that the other side answered, and for which the
    /// module has no handler.
    #[serde(default)]
    pub unanswered: u64,
    /// Transactions in which the module refuses a step behind the last recorded
    /// answer.
    #[serde(default)]
    pub refused_unrecorded: u64,
    /// Transactions in which the module answers a number whose digits neither a
    /// 64-bit integer nor a double holds.
    #[serde(default)]
    pub rounded: u64,
    /// Whether answers depend on what the same instance was asked before; nothing
    /// where none was found that does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub earlier_calls: Option<EarlierCalls>,
    /// The module compared with the baseline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comparison: Option<Comparison>,
    /// The decisions taken at the time beside the baseline's, or the module's
    /// where there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<Comparison>,
    /// With a baseline: what neither module decides as it was recorded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub departures: Option<Departures>,
    /// Faults of the module, by cause; beside a baseline those that it has too.
    pub faulted: Vec<Group>,
    /// Tests of test files; those that passed are only counted beyond some.
    pub tests: Vec<TestResult>,
    /// Tests that passed, and that failed.
    pub tests_passed: u64,
    /// Tests that failed.
    pub tests_failed: u64,
    /// Fixtures that were written.
    pub fixtures_written: u64,
    /// Those that were not, since they would not show what they are for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub fixtures_left_out: BTreeMap<NoFixture, u64>,
}

impl ReplayReport {
    /// The comparison that decides about success.
    #[must_use]
    pub fn judged(&self) -> Option<&Comparison> {
        self.comparison.as_ref().or(self.drift.as_ref())
    }

    /// Transactions about which the module was asked.
    fn asked(&self) -> u64 {
        let all = self.records.transactions;
        all.saturating_sub(self.outcomes.not_asked)
    }

    /// What of it makes it fail, by `--fail-on`.
    pub(crate) fn failing(&self) -> Failing {
        let count = |category| self.judged().map_or(0, |judged| judged.count(category));
        let (decisions, details) = (count(Category::Decision), count(Category::Details));
        let faulted = self.outcomes.faulted;
        let tests = self.tests_failed > 0;
        let other = |of: fn(&EarlierCalls) -> u64| self.earlier_calls.as_ref().map_or(0, of);
        let fault = Failing {
            faults: faulted > 0,
            tests,
            ..Failing::default()
        };
        let decision = Failing {
            decisions: decisions > 0,
            earlier_calls: other(|found| found.decisions) > 0,
            ..fault
        };
        match self.fail_on {
            FailOn::Recorded => Failing {
                departures: self.departures.is_some(),
                ..decision
            },
            FailOn::Any => Failing {
                details: details > 0,
                earlier_calls: self.earlier_calls.is_some(),
                ..decision
            },
            FailOn::Decision => decision,
            FailOn::Fault => fault,
            FailOn::Percent(most) => {
                // The share of a part says nothing about that of the whole.
                let is_more = |part, all| !self.interrupted && percent(part, all) > most;
                Failing {
                    faults: is_more(faulted, self.asked()),
                    decisions: is_more(decisions + count(Category::Faulted), self.compared),
                    tests,
                    ..Failing::default()
                }
            }
            FailOn::Never => Failing::default(),
        }
    }

    /// The same for faults that stand beside the comparison. With a baseline they
    /// are those that it has too, which are no part of what was compared.
    pub(crate) fn failing_faults(&self) -> Failing {
        let failing = self.failing();
        Failing {
            decisions: failing.decisions && self.comparison.is_none(),
            ..failing
        }
    }

    /// Transactions whose redacted input led to another decision when it was
    /// written.
    fn redaction_changed(&self) -> u64 {
        let number = self.remarks.get(&Remark::RedactionChanged);
        number.copied().unwrap_or_default()
    }

    /// Transactions about whose redacted input nobody asked when it was written.
    fn redaction_unchecked(&self) -> u64 {
        let number = self.remarks.get(&Remark::RedactionUnchecked);
        number.copied().unwrap_or_default()
    }

    /// Whether redacting may have taken away what the two modules differ in: of some
    /// that nobody asked about no recorded answer tells that it did not.
    fn may_hide_changes(&self) -> bool {
        let told = self.drift.as_ref().map_or(0, |drift| drift.compared);
        self.redaction_unchecked() > 0 && self.comparison.is_some() && told < self.asked()
    }

    /// What redaction did to the records of the capture.
    fn redaction_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let changed = self.redaction_changed();
        if changed > 0 {
            let so = if self.allow_redacted_changes {
                "--allow-redacted-changes lets it pass all the same"
            } else {
                "it passes with --allow-redacted-changes"
            };
            let changed = transactions(changed);
            warnings.push(format!(
                "in {changed}, redacting had changed the decision (redaction-changed), so the recorded one is not compared; {so}"
            ));
        }
        let unchecked = self.redaction_unchecked();
        if unchecked > 0 {
            let so = match (self.may_hide_changes(), self.allow_redacted_changes) {
                (false, _) => "",
                (true, true) => {
                    "; no recorded answer tells, and --allow-redacted-changes lets it pass all the same"
                }
                (true, false) => {
                    "; no recorded answer tells, so it passes only with --allow-redacted-changes"
                }
            };
            warnings.push(format!(
                "in {}, nobody asked the module about the redacted input (unchecked), so its decision may be another{so}",
                transactions(unchecked)
            ));
        }
        warnings
    }

    /// What must be known besides the verdict, in sentences. One that tells the
    /// verdict comes first.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (all, not_asked) = (self.records.transactions, self.outcomes.not_asked);
        if self.interrupted && all == 0 {
            warnings.push("interrupted after 0 transactions".to_owned());
        } else if self.interrupted {
            let all = transactions(all);
            warnings.push(format!(
                "interrupted after {all}; the report covers only these"
            ));
        }
        if all == 0 {
            warnings.push("nothing was checked: no transaction was replayed".to_owned());
        } else if all == not_asked {
            let text = "nothing was asked: the module has no handler for any event of the capture";
            warnings.push(text.to_owned());
            return warnings;
        }
        warnings.extend(self.redaction_warnings());
        let changed = self.redaction_changed();
        if all > 0 && self.compared == 0 && self.tests_passed + self.tests_failed == 0 {
            let why = if changed > 0 {
                "of no transaction that has recorded answers are they those to its input"
            } else if self.unanswered > 0 {
                "the module has no handler for the events that have recorded answers"
            } else {
                "the capture has no recorded answers, and no --baseline was given"
            };
            warnings.push(format!(
                "nothing was compared: {why}; only faults were looked for"
            ));
        }
        let counted = [
            (
                not_asked,
                "the module was asked nothing: it has no handler for any of their events",
            ),
            (
                self.unanswered,
                "the module has no handler for a step that the other side answered",
            ),
            (
                self.refused_unrecorded,
                "the module refuses a step that has no recorded answer; this is not compared",
            ),
            (
                self.rounded,
                "the module answers a number whose digits neither a 64-bit integer nor a double holds; beside a recorded answer the nearest double is compared",
            ),
        ];
        let counted = counted.into_iter().filter(|(number, _)| *number > 0);
        warnings
            .extend(counted.map(|(number, what)| format!("in {}, {what}", transactions(number))));
        warnings.extend(self.departures.iter().map(Departures::text));
        if self.compared > 0 {
            let missing = self.ignored.iter().filter(|(_, is_found)| !**is_found);
            warnings.extend(missing.map(|(pointer, _)| {
                format!("--ignore {pointer}: no answer has this part, so nothing was ignored")
            }));
        }
        warnings
    }
}

fn transactions(number: u64) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} transaction{end}")
}

/// A share in percent.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of records stay far below 2^52"
)]
pub(crate) fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / all as f64
}

impl Report for ReplayReport {
    const SCHEMA: &'static str = "wasm-agent/replay/1";

    fn verdict(&self) -> Verdict {
        let unusable = self.records.unusable;
        if self.failing().any() {
            Verdict::Failed
        } else if self.strict && unusable > 0 {
            Verdict::Unreadable
        } else if self.interrupted {
            Verdict::Inconclusive
        } else if self.asked() > 0 {
            let is_open = self.redaction_changed() > 0 || self.may_hide_changes();
            if is_open && !self.allow_redacted_changes {
                Verdict::Inconclusive
            } else {
                Verdict::Passed
            }
        } else if unusable > 0 {
            Verdict::Unreadable
        } else {
            Verdict::NothingChecked
        }
    }

    fn cases(&self) -> Vec<Case> {
        let (failing, of_faults) = (self.failing(), self.failing_faults());
        let tests = self.tests.iter();
        let mut cases: Vec<Case> = tests.map(|test| test_case(test, failing.tests)).collect();
        let beside_baseline = self.comparison.is_some();
        let comparisons = [
            ("baseline", self.comparison.as_ref(), failing),
            (
                "recorded",
                self.drift.as_ref(),
                if beside_baseline {
                    Failing::default()
                } else {
                    failing
                },
            ),
        ];
        for (suite, comparison, failing) in comparisons {
            let Some(comparison) = comparison else {
                continue;
            };
            let groups = comparison.groups.iter();
            cases.extend(groups.map(|group| group_case(suite, group, failing)));
            let unchanged = comparison.count(Category::Unchanged);
            cases.push(plain_case(
                suite,
                &format!("{unchanged} transactions unchanged"),
            ));
        }
        let faulted = self.faulted.iter();
        cases.extend(faulted.map(|group| group_case("faults", group, of_faults)));
        cases.extend(self.earlier_calls.iter().map(|found| Case {
            status: if failing.earlier_calls {
                CaseStatus::Failed
            } else {
                CaseStatus::Warned
            },
            message: found.text(),
            file: found.example.place.file.to_string(),
            ..plain_case("replay", "answers depend on earlier calls")
        }));
        let is_unreadable = self.strict || self.verdict() == Verdict::Unreadable;
        let unusable = self.unusable.iter();
        cases.extend(unusable.map(|it| unusable_case(it, is_unreadable)));
        cases.extend(self.fixtures_left_out.iter().map(|(why, number)| Case {
            status: CaseStatus::Warned,
            message: format!("{number} fixtures not written: {}", why.name()),
            ..plain_case("fixtures", why.name())
        }));
        let asked = self.asked();
        if cases.is_empty() && asked > 0 {
            let name = format!("{asked} transactions without a fault");
            cases.push(plain_case("replay", &name));
        }
        // These two verdicts are told by the first warning; the others by the
        // cases above.
        let is_red = matches!(
            self.verdict(),
            Verdict::Inconclusive | Verdict::NothingChecked
        );
        let warnings = self.warnings().into_iter().enumerate();
        let departures = self.departures.as_ref().map(Departures::text);
        cases.extend(warnings.map(|(index, message)| Case {
            status: if is_red && index == 0 {
                CaseStatus::Errored
            } else if failing.departures && departures.as_ref() == Some(&message) {
                CaseStatus::Failed
            } else {
                CaseStatus::Warned
            },
            message: message.clone(),
            ..plain_case(
                "replay",
                message.split([':', ';']).next().unwrap_or_default(),
            )
        }));
        cases
    }
}

fn plain_case(suite: &str, name: &str) -> Case {
    Case {
        suite: suite.to_owned(),
        name: name.to_owned(),
        status: CaseStatus::Passed,
        message: String::new(),
        detail: String::new(),
        file: String::new(),
        line: None,
        time: Duration::ZERO,
    }
}

fn test_case(test: &TestResult, fails: bool) -> Case {
    Case {
        status: match (test.missed.is_empty(), fails) {
            (true, _) => CaseStatus::Passed,
            (false, true) => CaseStatus::Failed,
            (false, false) => CaseStatus::Warned,
        },
        message: test.missed.first().cloned().unwrap_or_default(),
        detail: test.missed.get(1..).unwrap_or_default().join("\n"),
        file: test.place.file.to_string(),
        ..plain_case(&test.place.file, &test.test)
    }
}

fn unusable_case(unusable: &Unusable, fails: bool) -> Case {
    let place = &unusable.place;
    Case {
        status: if fails {
            CaseStatus::Errored
        } else {
            CaseStatus::Warned
        },
        message: format!(
            "unusable record {} at byte {}: {}",
            place.record, place.offset, unusable.why
        ),
        file: place.file.to_string(),
        ..plain_case(&place.file, &format!("record {}", place.record))
    }
}

fn group_case(suite: &str, group: &Group, failing: Failing) -> Case {
    let status = match (failing.has(group.category), group.category) {
        (true, Category::Faulted) => CaseStatus::Errored,
        (true, _) => CaseStatus::Failed,
        (false, _) => CaseStatus::Warned,
    };
    let example = group.examples.first();
    Case {
        status,
        message: format!(
            "{}: {} transactions{}",
            group.category.name(),
            group.count,
            example.map_or_else(String::new, |example| format!(
                ", first {} ({}, record {})",
                example.request, example.place.file, example.place.record
            ))
        ),
        detail: example.map_or_else(String::new, Example::detail),
        file: example.map_or_else(String::new, |example| example.place.file.to_string()),
        ..plain_case(suite, &group.title())
    }
}

impl Summary {
    /// `block 403 [sqli] (942100)`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.decision.clone();
        if !self.tags.is_empty() {
            text.push_str(&format!(" [{}]", self.tags.join(", ")));
        }
        if !self.rule_ids.is_empty() {
            text.push_str(&format!(" ({})", self.rule_ids.join(", ")));
        }
        if let Some(fault) = &self.fault {
            text.push_str(&format!(" {fault}"));
        }
        crate::fault::printable(&text, 300)
    }
}

impl Group {
    /// `allow → block 403 [sqli]`, with what differs where that is all.
    #[must_use]
    pub fn title(&self) -> String {
        let to = self.to.text();
        match &self.from {
            None => to,
            Some(_) if self.is_by_fields() => format!("{to}: {}", self.fields.join(", ")),
            Some(from) => format!("{} → {to}", from.text()),
        }
    }

    /// Whether where they differ is all that tells it from other groups. What
    /// differs besides the end of a transaction is no cause of its own.
    pub(super) fn is_by_fields(&self) -> bool {
        self.from.as_ref() == Some(&self.to)
    }

    /// What makes two groups the same.
    pub(super) fn key(&self) -> GroupKey {
        let fields = if self.is_by_fields() {
            self.fields.clone()
        } else {
            Vec::new()
        };
        (self.category, self.from.clone(), self.to.clone(), fields)
    }
}

pub(super) type GroupKey = (Category, Option<Summary>, Summary, Vec<String>);
