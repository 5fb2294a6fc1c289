//! `run`: fixtures through an agent, each answer checked.
//!
//! In: a loaded agent or plugin, and fixtures. Out: a [`RunReport`]: for each
//! step the agent response or the hook's result, what it cost, and where it
//! differs from what was expected.

mod hooks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::exchange::{Answered, Exchange};
use crate::abi::agent::HeaderNames;
use crate::abi::{Abi, Input};
use crate::agent::{Agent, AgentSettings, Handled};
use crate::error::Error;
use crate::event::Event;
use crate::fault::{Fault, printable};
use crate::fixture::{Actual, Fixture, FixtureError, Mismatch, Seen, Step, expect, hook};
use crate::limits::Isolation;
use crate::module::Module;
use crate::plugin::Plugin;
use crate::pool::{Pool, PoolSettings};
use crate::proxy::{self, Quirk};
use crate::report::{Case, CaseStatus, Report, Verdict};
use crate::response::AgentResponse;
use crate::runner::Cost;

/// How fixtures are fed to the module.
#[derive(Debug, Clone, Copy)]
pub struct RunSettings {
    /// Fixtures at once, and the size of the agent's pool.
    pub jobs: usize,
    /// How often each fixture is fed; answers must not change.
    pub repeat: u32,
    /// Leave the rest after the first fixture that fails.
    pub fail_fast: bool,
}

pub use hooks::HookOutcome;

/// The module that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// The file.
    pub path: String,
    /// `sha256:` and its hash.
    pub hash: String,
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// The ABI it was called by.
    pub abi: Cow<'static, str>,
    /// The handlers it exports, which are what the ABI was chosen by.
    pub handlers: Vec<Cow<'static, str>>,
    /// Functions have names, for backtraces.
    pub has_names: bool,
    /// There is DWARF, for files and lines in backtraces.
    pub has_dwarf: bool,
}

impl ModuleInfo {
    /// What a report says of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        Self {
            path: module.path.display().to_string(),
            hash: module.hash.clone(),
            size_bytes: module.facts.size_bytes,
            abi: module.abi.name().into(),
            handlers: module.handlers().into_iter().map(Cow::Borrowed).collect(),
            has_names: module.facts.has_names,
            has_dwarf: module.facts.has_dwarf,
        }
    }
}

/// Something a user should know that is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Hint {
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
    /// What a released proxy makes of this event or answer.
    Proxy {
        /// What it does.
        quirk: Quirk,
    },
}

/// What came of one step.
#[derive(Debug, Clone, Serialize)]
pub struct StepResult {
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
}

/// The same event was answered in more than one way.
#[derive(Debug, Clone, Serialize)]
pub struct Unstable {
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

/// What came of one fixture.
#[derive(Debug, Clone, Serialize)]
pub struct FixtureResult {
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
pub struct UnreadFixture {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What was expected and found.
    pub message: String,
}

/// How many of each.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Fixtures by how they came out.
    pub fixtures: BTreeMap<&'static str, usize>,
    /// Steps that were answered, by decision; hooks by `ok` and `refused`.
    pub decisions: BTreeMap<&'static str, usize>,
    /// Steps that faulted, by reason code.
    pub faults: BTreeMap<String, usize>,
    /// Instructions of all calls.
    pub fuel: u64,
}

/// What came of all of them.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
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

const fn is_bad(status: CaseStatus) -> bool {
    matches!(status, CaseStatus::Failed | CaseStatus::Errored)
}

impl FixtureResult {
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

impl StepResult {
    /// One line: what was expected and what was found.
    #[must_use]
    pub fn message(&self) -> String {
        let first = self.mismatches.first().map(|mismatch| {
            format!(
                "{}: expected {}, found {}",
                mismatch.path, mismatch.expected, mismatch.found
            )
        });
        let unstable = self.unstable.as_ref().map(|unstable| {
            format!(
                "the answer changed between equal runs: {} of {} repeats differ from the first",
                unstable.differing, unstable.repeats
            )
        });
        let skipped = (self.status == CaseStatus::Skipped)
            .then(|| "not reached: an earlier step refused the request".to_owned());
        first.or(unstable).or(skipped).unwrap_or_default()
    }

    fn detail(&self) -> String {
        let mut lines: Vec<String> = self
            .mismatches
            .iter()
            .skip(1)
            .map(|mismatch| {
                format!(
                    "{}: expected {}, found {}",
                    mismatch.path, mismatch.expected, mismatch.found
                )
            })
            .collect();
        if let Some(fault) = self.fault.as_ref().filter(|_| is_bad(self.status)) {
            lines.extend(fault.story().lines().map(str::to_owned));
        }
        lines.join("\n")
    }
}

/// A fixture, or why there is none.
pub type ParsedFixture = Result<Fixture, FixtureError>;

/// What fixtures are fed to.
pub enum Subject {
    /// A module that decides about events.
    Agent(Box<Agent>),
    /// A module of hooks.
    Plugin(Box<Plugin>),
}

impl Subject {
    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first fixture.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        match self {
            Self::Agent(agent) => agent.start(),
            Self::Plugin(plugin) => plugin.start(),
        }
    }

    /// Calls it as every command does: waits for an instance, never fails.
    #[must_use]
    pub fn ask(&self, input: &Input<'_>) -> Answered {
        match self {
            Self::Agent(agent) => agent.ask(input).into(),
            Self::Plugin(plugin) => plugin.ask(input).into(),
        }
    }

    /// The same with one instance that nobody else uses, kept as before or
    /// otherwise.
    #[must_use]
    pub fn alone(&self, isolation: Option<Isolation>) -> Self {
        let module = Arc::clone(self.pool().module());
        let mut pool = *self.pool().settings();
        pool.size = 1;
        pool.isolation = isolation.unwrap_or(pool.isolation);
        match self {
            Self::Agent(agent) => {
                let settings = AgentSettings {
                    pool,
                    ..agent.settings().clone()
                };
                Self::Agent(Box::new(Agent::new(module, settings)))
            }
            Self::Plugin(_) => Self::Plugin(Box::new(Plugin::new(module, pool))),
        }
    }

    /// The ABI its module is written to.
    #[must_use]
    pub const fn abi(&self) -> Abi {
        match self {
            Self::Agent(_) => Abi::Agent,
            Self::Plugin(_) => Abi::Hook,
        }
    }

    /// How its module is called, as reports have it.
    pub(in crate::ops) fn described(&self) -> BTreeMap<&'static str, String> {
        match self {
            Self::Agent(agent) => called(agent.settings()),
            Self::Plugin(plugin) => pooled(plugin.pool().settings()),
        }
    }

    pub(in crate::ops) const fn pool(&self) -> &Pool {
        match self {
            Self::Agent(agent) => agent.pool(),
            Self::Plugin(plugin) => plugin.pool(),
        }
    }
}

/// Feeds the fixtures to the module, in order of their list within each job.
///
/// # Errors
/// When the system has no room for the threads.
pub fn run(
    subject: &Subject,
    fixtures: &[ParsedFixture],
    settings: &RunSettings,
) -> Result<RunReport, Error> {
    let results: Vec<Mutex<Option<FixtureResult>>> =
        fixtures.iter().map(|_| Mutex::new(None)).collect();
    let desk = Desk::new(subject);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(fixture), Some(slot)) = (fixtures.get(index), results.get(index)) else {
                return;
            };
            let result = run_one(&desk, fixture, settings);
            if settings.fail_fast && is_bad(result.status) {
                stop.store(true, Ordering::Relaxed);
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for job in 0..settings.jobs.clamp(1, fixtures.len().max(1)) {
            let thread = std::thread::Builder::new().name(format!("run-{job}"));
            thread.spawn_scoped(scope, work)?;
        }
        Ok(())
    })
    .map_err(|source: std::io::Error| Error::Host {
        what: "cannot start a thread",
        source: source.into(),
    })?;
    let fixtures = results
        .into_iter()
        .filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect();
    Ok(report(subject, fixtures, settings))
}

fn run_one(desk: &Desk<'_>, fixture: &ParsedFixture, settings: &RunSettings) -> FixtureResult {
    let fixture = match fixture {
        Ok(fixture) => fixture,
        Err(error) => return unread(error),
    };
    let steps = match (desk, &fixture.hooks) {
        (Desk::Agent(desk), None) => events(desk, fixture, settings),
        (Desk::Plugin(plugin), Some(hooks)) => hooks::run(plugin, hooks, settings),
        (Desk::Agent(_), Some(_)) | (Desk::Plugin(_), None) => {
            return unread(&wrong_abi(fixture, desk.subject_abi()));
        }
    };
    finished(fixture, steps)
}

/// A fixture for modules of the other ABI.
fn wrong_abi(fixture: &Fixture, module: Abi) -> FixtureError {
    let (found, line, _) = fixture.step(0).unwrap_or(("no step", 1, false));
    let expected = match module {
        Abi::Agent => "an event",
        Abi::Hook => "a hook's context",
    };
    FixtureError {
        path: fixture.path.clone(),
        line,
        column: 1,
        message: format!(
            "expected {expected}, since the module is {} (the {} ABI), found {found} (the {} ABI); run it with a module of that ABI, or with --abi {2} if the module has both",
            module.describe(),
            module.name(),
            fixture.abi().name(),
        ),
    }
}

fn unread(error: &FixtureError) -> FixtureResult {
    FixtureResult {
        path: error.path.display().to_string(),
        name: name_of(&error.path),
        status: CaseStatus::Errored,
        error: Some(UnreadFixture {
            line: error.line,
            column: error.column,
            message: error.message.clone(),
        }),
        steps: Vec::new(),
    }
}

fn events(desk: &AgentDesk<'_>, fixture: &Fixture, settings: &RunSettings) -> Vec<StepResult> {
    let mut steps: Vec<StepResult> = Vec::new();
    for round in 1..=settings.repeat {
        let mut exchange = Exchange::default();
        for (index, step) in fixture.steps.iter().enumerate() {
            let handled = exchange.ask(|| desk.agent.handle(&step.event));
            match (steps.get_mut(index), handled) {
                (None, Some(handled)) => steps.push(judge(desk, step, handled)),
                (None, None) => {
                    let name = step.event.kind().name();
                    steps.push(not_reached(name, step.line, step.expect.is_some()));
                }
                (Some(first), Some(handled)) => first.compare(&handled, round, settings.repeat),
                (Some(_), None) => {}
            }
        }
    }
    steps
}

fn finished(fixture: &Fixture, mut steps: Vec<StepResult>) -> FixtureResult {
    for step in &mut steps {
        step.status = step.judged();
    }
    let status = steps
        .iter()
        .map(|step| step.status)
        .max_by_key(|status| badness(*status));
    FixtureResult {
        path: fixture.path.display().to_string(),
        name: fixture.name.clone(),
        status: status.unwrap_or(CaseStatus::Passed),
        error: None,
        steps,
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

const fn badness(status: CaseStatus) -> u8 {
    match status {
        CaseStatus::Skipped => 0,
        CaseStatus::Passed => 1,
        CaseStatus::Warned => 2,
        CaseStatus::Failed => 3,
        CaseStatus::Errored => 4,
    }
}

fn judge(desk: &AgentDesk<'_>, step: &Step, handled: Handled) -> StepResult {
    let actual = Actual {
        response: &handled.response,
        fault: handled.fault.as_ref(),
        cost: handled.cost.as_ref(),
    };
    let mismatches = expect::check(step.expect.as_ref(), actual);
    let hints = hints(desk, &step.event, &handled);
    StepResult {
        status: CaseStatus::Passed,
        response: Some(handled.response),
        fault: handled.fault,
        mismatches,
        hints,
        ..not_reached(step.event.kind().name(), step.line, step.expect.is_some())
    }
    .costing(handled.cost)
}

/// A step as it stands before anything came of it.
fn not_reached(event: &'static str, line: usize, has_expectations: bool) -> StepResult {
    let mismatches = if has_expectations {
        vec![Mismatch {
            path: "event".to_owned(),
            expected: "this step to be reached".to_owned(),
            found: "an earlier step refused the exchange".to_owned(),
            update: expect::Update::Keep,
        }]
    } else {
        Vec::new()
    };
    StepResult {
        event,
        line,
        status: CaseStatus::Skipped,
        response: None,
        hook: None,
        fault: None,
        fuel: None,
        time_ns: None,
        memory_bytes: None,
        answer_bytes: None,
        mismatches,
        unstable: None,
        hints: Vec::new(),
        has_expectations,
    }
}

impl StepResult {
    fn costing(mut self, cost: Option<Cost>) -> Self {
        self.fuel = cost.and_then(|cost| cost.fuel);
        self.time_ns = cost.map(|cost| u64::try_from(cost.time.as_nanos()).unwrap_or(u64::MAX));
        self.memory_bytes = cost.map(|cost| cost.memory_bytes);
        self.answer_bytes = cost.map(|cost| cost.answer_bytes);
        self
    }

    /// Whether the module was asked, or would have been.
    const fn is_reached(&self) -> bool {
        self.response.is_some() || self.hook.is_some()
    }

    /// What came of it in a few words, where it was reached.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let event = self.response.as_deref().map(summary);
        event.or_else(|| self.hook.as_ref().map(HookOutcome::summary))
    }

    /// What an update of the fixture needs, where the step was reached.
    #[must_use]
    pub fn seen(&self) -> Option<Seen<'_>> {
        let fault = self.fault.as_ref();
        let whole = match (&self.response, &self.hook) {
            (Some(response), _) => expect::whole(Actual {
                response,
                fault,
                // Budgets are not updated.
                cost: None,
            }),
            (None, Some(outcome)) => hook::whole(outcome.actual(fault)),
            (None, None) => return None,
        };
        Some(Seen {
            whole,
            mismatches: &self.mismatches,
        })
    }

    /// Holds a repeat against the first round.
    fn compare(&mut self, again: &Handled, round: u32, repeats: u32) {
        if self.response.as_ref() != Some(&again.response) {
            let unstable = self.differs(round, repeats);
            unstable
                .response
                .get_or_insert_with(|| again.response.clone());
        }
    }

    /// Counts a repeat that came out otherwise than the first.
    fn differs(&mut self, round: u32, repeats: u32) -> &mut Unstable {
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

    fn judged(&self) -> CaseStatus {
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
        } else if self.hints.iter().any(Hint::is_warning) {
            CaseStatus::Warned
        } else {
            CaseStatus::Passed
        }
    }
}

impl Hint {
    /// Whether it is about the module, rather than about what proxies do.
    const fn is_warning(&self) -> bool {
        !matches!(self, Self::Proxy { .. })
    }
}

fn hints(desk: &AgentDesk<'_>, event: &Event, handled: &Handled) -> Vec<Hint> {
    let mut hints = Vec::new();
    if handled.fault.is_none() {
        hints.extend(desk.spelling(event));
    }
    if handled
        .response
        .audit
        .tags
        .iter()
        .any(|tag| tag == "empty-answer")
    {
        hints.push(Hint::EmptyAnswer);
    }
    if !handled.unknown_keys.is_empty() {
        hints.push(Hint::UnknownKeys {
            keys: handled.unknown_keys.clone(),
        });
    }
    hints.extend(
        proxy::quirks(event, &handled.response)
            .into_iter()
            .map(|quirk| Hint::Proxy { quirk }),
    );
    hints
}

/// What is under test.
enum Desk<'a> {
    Agent(Box<AgentDesk<'a>>),
    Plugin(&'a Plugin),
}

impl<'a> Desk<'a> {
    fn new(subject: &'a Subject) -> Self {
        match subject {
            Subject::Agent(agent) => Self::Agent(Box::new(AgentDesk::new(agent))),
            Subject::Plugin(plugin) => Self::Plugin(plugin),
        }
    }

    const fn subject_abi(&self) -> Abi {
        match self {
            Self::Agent(_) => Abi::Agent,
            Self::Plugin(_) => Abi::Hook,
        }
    }
}

/// The agent under test, and two beside it that find out what a spelling of
/// header names would change. They use fresh instances, so that a module with
/// state decides about the fixtures as if they were not there.
struct AgentDesk<'a> {
    agent: &'a Agent,
    as_sent: Agent,
    as_written: Agent,
}

impl<'a> AgentDesk<'a> {
    fn new(agent: &'a Agent) -> Self {
        let beside = |header_names| {
            let mut settings = agent.settings().clone();
            settings.pool.isolation = Isolation::Fresh;
            settings.header_names = header_names;
            Agent::new(Arc::clone(agent.pool().module()), settings)
        };
        Self {
            agent,
            as_sent: beside(agent.settings().header_names),
            as_written: beside(HeaderNames::AsWritten),
        }
    }

    fn spelling(&self, event: &Event) -> Option<Hint> {
        let is_upper = |(name, _): (&str, &str)| name.bytes().any(|byte| byte.is_ascii_uppercase());
        if self.agent.settings().header_names != HeaderNames::Lower
            || !event.headers().iter().any(is_upper)
        {
            return None;
        }
        let sent = self.as_sent.handle(event);
        let written = self.as_written.handle(event);
        (written.fault.is_none() && written.response != sent.response).then(|| Hint::Spelling {
            decision: summary(&sent.response),
            as_written: summary(&written.response),
        })
    }
}

/// A decision with its status and tags, in a few words.
#[must_use]
pub fn summary(response: &AgentResponse) -> String {
    let mut text = response.decision.name().to_owned();
    if let Some(status) = response.decision.status() {
        text.push_str(&format!(" {status}"));
    }
    if !response.audit.tags.is_empty() {
        let tags = printable(&response.audit.tags.join(", "), 160);
        text.push_str(&format!(" [{tags}]"));
    }
    text
}

fn report(subject: &Subject, fixtures: Vec<FixtureResult>, settings: &RunSettings) -> RunReport {
    let mut totals = Totals::default();
    for fixture in &fixtures {
        *totals
            .fixtures
            .entry(status_name(fixture.status))
            .or_default() += 1;
        for step in &fixture.steps {
            let event = step.response.as_ref().map(|it| it.decision.name());
            let hook = step.hook.as_ref().map(HookOutcome::word);
            if let Some(word) = event.or(hook) {
                *totals.decisions.entry(word).or_default() += 1;
            }
            if let Some(fault) = &step.fault {
                *totals.faults.entry(fault.code.to_string()).or_default() += 1;
            }
            totals.fuel += step.fuel.unwrap_or_default();
        }
    }
    RunReport {
        module: ModuleInfo::of(subject.pool().module()),
        settings: described(subject, settings),
        fixtures,
        totals,
    }
}

/// The word for a status in reports.
#[must_use]
pub const fn status_name(status: CaseStatus) -> &'static str {
    match status {
        CaseStatus::Passed => "passed",
        CaseStatus::Warned => "warned",
        CaseStatus::Failed => "failed",
        CaseStatus::Errored => "errored",
        CaseStatus::Skipped => "skipped",
    }
}

fn described(subject: &Subject, settings: &RunSettings) -> BTreeMap<&'static str, String> {
    let mut described = subject.described();
    described.insert("jobs", settings.jobs.to_string());
    described.insert("repeat", settings.repeat.to_string());
    described
}

/// How a module is called, as reports have it.
pub(in crate::ops) fn called(settings: &AgentSettings) -> BTreeMap<&'static str, String> {
    let mut described = pooled(&settings.pool);
    let names = settings.header_names.name();
    let policy = settings.failure_policy.name();
    described.insert("header_names", names.to_owned());
    described.insert("failure_policy", policy.to_owned());
    described
}

/// The part of it that both ABIs have.
pub(in crate::ops) fn pooled(settings: &PoolSettings) -> BTreeMap<&'static str, String> {
    let limits = settings.limits;
    BTreeMap::from([
        ("timeout", format!("{:?}", limits.timeout)),
        (
            "fuel",
            limits
                .fuel
                .map_or_else(|| "none".to_owned(), |fuel| fuel.to_string()),
        ),
        ("max_memory_bytes", limits.max_memory_bytes.to_string()),
        ("max_answer_bytes", limits.max_answer_bytes.to_string()),
        ("wasi", limits.wasi.name().to_owned()),
        ("isolation", settings.isolation.to_string()),
    ])
}
