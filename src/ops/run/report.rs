//! What came of fixtures: of each step, of each fixture, and of all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::answer::Answer;
use crate::cost::Cost;
use crate::fault::{Fault, printable};
use crate::fixture::hook::ActualHook;
use crate::fixture::{Actual, Mismatch, Seen, expect, hook};
use crate::hook::{Change, HookContext, HookResult, changes};
use crate::ops::module_info::ModuleInfo;
use crate::policy::HandledHook;
use crate::protocol::proxy::Quirk;
use crate::report::{Case, CaseStatus, Report, Verdict};
use crate::response::AgentResponse;

/// Bytes of a guest's words in one line.
const SHOWN: usize = 160;

/// Something a user should know that is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Hint {
    /// The fixture spells header names otherwise than production does, and
    /// that would have changed the decision.
    Spelling {
        /// The decision with the names as production sends them.
        decision: String,
        /// The decision with the fixture's own spelling.
        as_written: String,
    },
    /// The module answered nothing, which allows.
    EmptyAnswer,
    /// The module is asked about whole bodies, and this chunk was not the last.
    Collected,
    /// The last chunk of a body never came, so the module was not asked about it.
    BodyUnfinished,
    /// The answer depends on what the same instance was asked before in this exchange.
    DependsOnInstance {
        /// What a new instance answers.
        alone: String,
        /// It is about a chunk, of a body that the module could get whole.
        #[serde(skip)]
        may_be_whole: bool,
    },
    /// A new instance answers otherwise than this one, that other fixtures were fed to.
    EarlierCalls {
        /// What a new instance answers.
        on_new: String,
        /// What this one answered.
        on_used: String,
        /// What it had answered before this fixture.
        calls_before: u64,
    },
    /// Keys of the answer that the contract does not know.
    UnknownKeys {
        /// The keys.
        keys: Vec<String>,
    },
    /// A hook would have changed what it may only read.
    Ignored {
        /// Where, as JSON pointers.
        paths: Vec<String>,
    },
    /// Headers that are expected not to be touched, and that no module may touch.
    CannotFail {
        /// Their names.
        headers: Vec<String>,
    },
    /// What a released proxy makes of this event or answer.
    Proxy {
        /// What it does.
        quirk: Quirk,
    },
}

/// What came of one step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepResult {
    /// The name of the event or hook.
    pub event: &'static str,
    /// The line it begins on.
    pub line: usize,
    /// How it came out.
    pub status: CaseStatus,
    /// What the proxy would be told; nothing for a step not reached.
    pub response: Option<Box<AgentResponse>>,
    /// What a hook made of its context; nothing for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookOutcome>,
    /// What the guest did wrong.
    pub fault: Option<Fault>,
    /// Instructions of alloc, handler and dealloc.
    pub fuel: Option<u64>,
    /// Wall clock of the call, in nanoseconds.
    pub time_ns: Option<u64>,
    /// Linear memory after the call, in bytes.
    pub memory_bytes: Option<u64>,
    /// Size of the answer, in bytes.
    pub answer_bytes: Option<u64>,
    /// Where the answer differs from what was expected.
    pub mismatches: Vec<Mismatch>,
    /// How many of the repeats answered otherwise than the first.
    pub unstable: Option<Unstable>,
    /// What a user should know besides.
    pub hints: Vec<Hint>,
    /// Whether anything was expected of this step.
    pub has_expectations: bool,
    /// Whether the module was called: not where it has no handler for this, nor
    /// where an earlier step refused.
    pub called: bool,
}

/// What a hook made of its context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HookOutcome {
    /// What it answered.
    pub result: HookResult,
    /// The context the host goes on with.
    pub context: HookContext,
    /// What it changed.
    pub changed: Vec<Change>,
    /// What it would have changed and may not.
    pub ignored: Vec<Change>,
}

impl HookOutcome {
    pub(super) fn of(before: &HookContext, handled: &HandledHook) -> Self {
        Self {
            result: handled.result.clone(),
            context: handled.context.clone(),
            changed: changes(before, &handled.context),
            ignored: handled.ignored.clone(),
        }
    }

    /// Whether the host is told the same by both, and goes on with the same.
    pub(super) fn tells_the_same(&self, other: &Self) -> bool {
        let applied = |outcome: &Self| {
            let ctx = Some(outcome.context.clone());
            let result = outcome.result.clone();
            Answer::Result(Box::new(HookResult { ctx, ..result }))
        };
        self == other || applied(self).tells_the_same(&applied(other))
    }

    /// `ok` or `refused`.
    #[must_use]
    pub(crate) const fn word(&self) -> &'static str {
        if self.result.ok { "ok" } else { "refused" }
    }

    /// The same with the error and the number of changes, for one line.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let error = self.result.error.as_ref().filter(|_| !self.result.ok);
        let error = error.map_or_else(String::new, |error| {
            format!(": {}", printable(error, SHOWN))
        });
        let changed = match self.changed.len() {
            0 => String::new(),
            count => format!(", {count} changed"),
        };
        format!("{}{error}{changed}", self.word())
    }

    pub(super) fn actual<'a>(&'a self, fault: Option<&'a Fault>) -> ActualHook<'a> {
        ActualHook {
            result: &self.result,
            context: &self.context,
            ignored: &self.ignored,
            fault,
            cost: None,
        }
    }
}

/// The same event was answered in more than one way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unstable {
    /// Repeats that answered otherwise than the first.
    pub differing: u32,
    /// All repeats.
    pub repeats: u32,
    /// The first of them, from 2.
    pub first_differing: u32,
    /// What it answered to an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Box<AgentResponse>>,
    /// What it answered to a hook's context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Box<HookOutcome>>,
}

impl Unstable {
    /// How many differ, in a sentence.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        format!(
            "the answer changed between equal runs: {} of {} repeats differ from the first",
            self.differing, self.repeats
        )
    }
}

/// What came of one fixture.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FixtureResult {
    /// The file.
    pub path: String,
    /// The fixture's name.
    pub name: String,
    /// The worst of its steps.
    pub status: CaseStatus,
    /// Why the file could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<UnreadFixture>,
    /// Its steps in order.
    pub steps: Vec<StepResult>,
}

/// A fixture file that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct UnreadFixture {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What was expected and found.
    pub message: String,
}

/// How many of each.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Totals {
    /// Fixtures by how they came out.
    pub fixtures: BTreeMap<&'static str, usize>,
    /// Fixtures that expect nothing, however they came out.
    pub without_expectations: usize,
    /// Steps that were answered, by decision; hooks by `ok` and `refused`.
    pub decisions: BTreeMap<&'static str, usize>,
    /// Steps that faulted, by reason code.
    pub faults: BTreeMap<String, usize>,
    /// Instructions of all calls.
    pub fuel: u64,
}

/// What came of all of them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunReport {
    /// The module that was run.
    pub module: ModuleInfo,
    /// How the module was called, as flags.
    pub settings: BTreeMap<&'static str, String>,
    /// Each fixture, in the order they were given.
    pub fixtures: Vec<FixtureResult>,
    /// How many of each.
    pub totals: Totals,
}

impl Report for RunReport {
    const SCHEMA: &'static str = "wasm-agent/run/1";

    fn verdict(&self) -> Verdict {
        if self.fixtures.is_empty() {
            Verdict::NothingChecked
        } else if self.fixtures.iter().any(|fixture| fixture.error.is_some()) {
            Verdict::Unreadable
        } else if self.fixtures.iter().any(|fixture| is_bad(fixture.status)) {
            Verdict::Failed
        } else if self.without_expectations().count() == self.fixtures.len() {
            Verdict::Unchecked
        } else {
            Verdict::Passed
        }
    }

    fn cases(&self) -> Vec<Case> {
        self.fixtures
            .iter()
            .flat_map(FixtureResult::cases)
            .collect()
    }
}

impl RunReport {
    /// The fixtures that expect nothing.
    pub(crate) fn without_expectations(&self) -> impl Iterator<Item = &FixtureResult> {
        self.fixtures
            .iter()
            .filter(|fixture| !fixture.has_expectations())
    }
}

pub(crate) const fn is_bad(status: CaseStatus) -> bool {
    matches!(status, CaseStatus::Failed | CaseStatus::Errored)
}

impl FixtureResult {
    /// Whether anything is expected of it; of one that could not be read nobody
    /// knows.
    pub(super) fn has_expectations(&self) -> bool {
        self.error.is_some() || self.steps.iter().any(|step| step.has_expectations)
    }

    fn cases(&self) -> Vec<Case> {
        let case = |name: String, status, line| Case {
            suite: self.path.clone(),
            name,
            status,
            message: String::new(),
            detail: String::new(),
            file: self.path.clone(),
            line: Some(line),
            time: Duration::ZERO,
        };
        if let Some(error) = &self.error {
            let mut unread = case(self.name.clone(), CaseStatus::Errored, error.line);
            unread.message.clone_from(&error.message);
            return vec![unread];
        }
        self.steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                let name = if self.steps.len() == 1 {
                    self.name.clone()
                } else {
                    format!("{} [{}] {}", self.name, index + 1, step.event)
                };
                let mut case = case(name, step.status, step.line);
                case.time = Duration::from_nanos(step.time_ns.unwrap_or_default());
                case.message = step.message();
                case.detail = step.detail();
                case
            })
            .collect()
    }
}

fn line(mismatch: &Mismatch) -> String {
    let Mismatch {
        path,
        expected,
        found,
        ..
    } = mismatch;
    format!("{path}: expected {expected}, found {found}")
}

impl StepResult {
    /// One line: what was expected and what was found.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        let first = self.mismatches.first().map(line);
        let unstable = self.unstable.as_ref().map(Unstable::text);
        let why = match self.status {
            CaseStatus::Skipped => "not reached: an earlier step refused the request",
            CaseStatus::Unchecked if !self.called => {
                "the module has no handler for it, so nothing was called and nothing was checked"
            }
            CaseStatus::Unchecked => "nothing was expected, so nothing was checked",
            CaseStatus::Warned => return self.warnings().join("\n"),
            _ => "",
        };
        first.or(unstable).unwrap_or_else(|| why.to_owned())
    }

    /// What a user should know about the module.
    fn warnings(&self) -> Vec<String> {
        let hints = self.hints.iter().filter(|hint| hint.is_warning());
        hints.map(Hint::text).collect()
    }

    fn detail(&self) -> String {
        let mut lines: Vec<String> = self.mismatches.iter().skip(1).map(line).collect();
        if self.status == CaseStatus::Unchecked {
            lines.extend(self.warnings());
        }
        if let Some(fault) = self.fault.as_ref().filter(|_| is_bad(self.status)) {
            lines.extend(fault.story().lines().map(str::to_owned));
        }
        lines.join("\n")
    }
}

impl StepResult {
    pub(super) fn costing(mut self, cost: Option<Cost>) -> Self {
        self.fuel = cost.and_then(|cost| cost.fuel);
        self.time_ns = cost.map(|cost| cost.time_ns());
        self.memory_bytes = cost.map(|cost| cost.memory_bytes);
        self.answer_bytes = cost.map(|cost| cost.answer_bytes);
        self.called = cost.is_some();
        self
    }

    /// Whether the module was asked, or would have been.
    const fn is_reached(&self) -> bool {
        self.response.is_some() || self.hook.is_some()
    }

    /// What came of it in a few words, where it was reached.
    #[must_use]
    pub(crate) fn summary(&self) -> Option<String> {
        let event = self.response.as_deref().map(summary);
        event.or_else(|| self.hook.as_ref().map(HookOutcome::summary))
    }

    /// What an update of the fixture needs.
    #[must_use]
    pub(crate) fn seen(&self) -> Seen<'_> {
        let fault = self.fault.as_ref();
        if self.is_reached() && !self.called && fault.is_none() {
            return Seen::NotCalled;
        }
        let whole = match (&self.response, &self.hook) {
            (Some(response), _) => expect::whole(Actual {
                response,
                fault,
                // Budgets are not updated.
                cost: None,
            }),
            (None, Some(outcome)) => hook::whole(outcome.actual(fault)),
            (None, None) => return Seen::NotReached,
        };
        Seen::Answered {
            whole,
            mismatches: &self.mismatches,
        }
    }

    /// What a repeat did not hold; of each place the first time counts, and an
    /// update writes nothing that only a repeat answered.
    pub(super) fn also(&mut self, mismatches: Vec<Mismatch>) {
        for mut mismatch in mismatches {
            let mut known = self.mismatches.iter();
            if !known.any(|known| known.path == mismatch.path) {
                mismatch.edits.clear();
                self.mismatches.push(mismatch);
            }
        }
    }

    /// Counts a repeat that came out otherwise than the first.
    pub(super) fn differs(&mut self, (round, repeats): (u32, u32)) -> &mut Unstable {
        let unstable = self.unstable.get_or_insert(Unstable {
            differing: 0,
            repeats,
            first_differing: round,
            response: None,
            hook: None,
        });
        unstable.differing += 1;
        unstable
    }

    /// What was answered, in a few words.
    pub(super) fn told(&self) -> String {
        let event = self.response.as_ref().map(|response| summary(response));
        let hook = || self.hook.as_ref().map(HookOutcome::summary);
        event.or_else(hook).unwrap_or_default()
    }

    pub(super) fn judged(&self) -> CaseStatus {
        let unexpected_fault = self
            .mismatches
            .iter()
            .any(|mismatch| mismatch.path == "fault");
        if unexpected_fault && self.fault.is_some() {
            CaseStatus::Errored
        } else if !self.mismatches.is_empty() || self.unstable.is_some() {
            CaseStatus::Failed
        } else if !self.is_reached() {
            CaseStatus::Skipped
        } else if !self.has_expectations {
            CaseStatus::Unchecked
        } else if self.hints.iter().any(Hint::is_warning) {
            CaseStatus::Warned
        } else {
            CaseStatus::Passed
        }
    }
}

impl Hint {
    /// What a user should know, in a sentence.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Spelling {
                decision,
                as_written,
            } => format!(
                "header names reach the module in lower case, as zentinel-proxy up to 0.6.54 and sentinel-proxy 0.4.14 send them: it decides {decision}; spelled as in the fixture it would decide {as_written}. Look names up in any case, or use --header-names canonical in run and serve"
            ),
            Self::Collected => "the module gets bodies whole, so it is not asked about this chunk; what is expected of the body belongs to its last chunk".to_owned(),
            Self::BodyUnfinished => "no chunk of this body is its last (\"is_last\"), and the module gets bodies whole, so it was not asked about it".to_owned(),
            Self::DependsOnInstance {
                alone,
                may_be_whole,
            } => format!(
                "a new instance answers {alone}: this answer depends on what the instance was asked before, and the events of one exchange may meet different instances; keep nothing between calls{}",
                if *may_be_whole {
                    ", or get bodies whole (the global whole_body, or --body whole)"
                } else {
                    ""
                }
            ),
            Self::EmptyAnswer => "the module gave an empty answer, which allows; published modules do this when they fail to parse their input".to_owned(),
            Self::EarlierCalls {
                on_new,
                on_used,
                calls_before,
            } => format!(
                "the answer depends on earlier calls on the same instance: {on_new} on a new one, {on_used} after {calls_before} {} of other fixtures. Keep nothing between calls, or use --isolation fresh",
                if *calls_before == 1 { "call" } else { "calls" }
            ),
            Self::UnknownKeys { keys } => format!(
                "the answer has unknown keys, which production ignores: {}",
                printable(&keys.join(", "), SHOWN)
            ),
            Self::Ignored { paths } => format!(
                "a hook may change only input and data; its host ignores changes of {}",
                printable(&paths.join(", "), SHOWN)
            ),
            Self::CannotFail { headers } => format!(
                "a module may not change {} without --allow-header, so an expectation that it is absent cannot fail",
                printable(&headers.join(", "), SHOWN)
            ),
            Self::Proxy { quirk } => quirk.explain(),
        }
    }

    /// Whether it is about the module, rather than about what proxies do or what
    /// the fixture expects.
    const fn is_warning(&self) -> bool {
        !matches!(self, Self::Proxy { .. } | Self::CannotFail { .. })
    }
}

pub(super) const fn badness(status: CaseStatus) -> u8 {
    match status {
        CaseStatus::Skipped => 0,
        CaseStatus::Unchecked => 1,
        CaseStatus::Passed => 2,
        CaseStatus::Warned => 3,
        CaseStatus::Failed => 4,
        CaseStatus::Errored => 5,
    }
}

/// The word for a status in reports.
#[must_use]
pub(crate) const fn status_name(status: CaseStatus) -> &'static str {
    match status {
        CaseStatus::Passed => "passed",
        CaseStatus::Warned => "warned",
        CaseStatus::Failed => "failed",
        CaseStatus::Errored => "errored",
        CaseStatus::Skipped => "skipped",
        CaseStatus::Unchecked => "unchecked",
    }
}

/// A decision with its status and tags, in a few words.
#[must_use]
pub(crate) fn summary(response: &AgentResponse) -> String {
    let mut text = response.decision.name().to_owned();
    if let Some(status) = response.decision.status() {
        text.push_str(&format!(" {status}"));
    }
    if !response.audit.tags.is_empty() {
        let tags = printable(&response.audit.tags.join(", "), SHOWN);
        text.push_str(&format!(" [{tags}]"));
    }
    text
}
