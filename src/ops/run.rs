//! `run`: asks a policy about fixtures and checks each answer.
//!
//! In: a loaded agent or plugin, and fixtures. Out: a [`RunReport`]: for each
//! step the agent response or the hook's result, what it cost, and where it
//! differs from what was expected.

mod report;
mod spelling;
pub(crate) mod steps;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use self::report::badness;
use self::spelling::Spelling;
use self::steps::Again;
use super::module_info::{self, ModuleInfo};
use crate::abi::Abi;
use crate::error::Error;
use crate::fixture::{Fixture, FixtureError, Mismatch};
use crate::policy::Policy;
use crate::report::CaseStatus;

pub(crate) use report::{
    FixtureResult, HookOutcome, RunReport, StepResult, Totals, UnreadFixture, is_bad, status_name,
    summary,
};

/// How fixtures are fed to the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunSettings {
    /// Fixtures at once, and the size of the agent's pool.
    pub jobs: usize,
    /// How often each fixture is fed; answers must not change.
    pub repeat: u32,
    /// Leave the rest after the first fixture that fails.
    pub fail_fast: bool,
    /// A fixture that expects nothing fails.
    pub require_expectations: bool,
}

/// A fixture, or why there is none.
pub(crate) type ParsedFixture = Result<Fixture, FixtureError>;

/// Feeds the fixtures to the module, in order of their list within each job.
///
/// # Errors
/// When the system has no room for the threads.
pub(crate) fn run(
    subject: &Policy,
    fixtures: &[ParsedFixture],
    settings: &RunSettings,
) -> Result<RunReport, Error> {
    let results: Vec<Mutex<Option<FixtureResult>>> =
        fixtures.iter().map(|_| Mutex::new(None)).collect();
    let spelling = Spelling::new(subject);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(fixture), Some(slot)) = (fixtures.get(index), results.get(index)) else {
                return;
            };
            let again = asked_again(index, fixtures.len());
            let result = run_one((subject, &spelling), fixture, settings, again);
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

/// Fixtures that are fed again to a new instance, of however many.
const ASKED_AGAIN: usize = 64;

/// Whether the fixture at this place is fed again to a new instance.
fn asked_again(index: usize, all: usize) -> Again {
    if index.is_multiple_of(all.div_ceil(ASKED_AGAIN).max(1)) {
        Again::OnNewInstance
    } else {
        Again::Not
    }
}

fn run_one(
    (policy, spelling): (&Policy, &Spelling),
    fixture: &ParsedFixture,
    settings: &RunSettings,
    again: Again,
) -> FixtureResult {
    let fixture = match fixture {
        Ok(fixture) => fixture,
        Err(error) => return unread(error),
    };
    if fixture.abi() != policy.abi() {
        return unread(&wrong_abi(fixture, policy.abi()));
    }
    let mut steps = steps::run((policy, spelling), fixture, settings.repeat, again);
    let expects = steps.iter().any(|step| step.has_expectations);
    if let Some(first) = steps.first_mut()
        && settings.require_expectations
        && !expects
    {
        first.mismatches.push(Mismatch {
            path: "expect".to_owned(),
            expected: "an expectation".to_owned(),
            found: "none: this fixture has no expectation, and --require-expectations is given"
                .to_owned(),
            edits: Vec::new(),
        });
    }
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

/// A step as it stands before anything came of it.
fn not_reached(event: &'static str, line: usize, has_expectations: bool) -> StepResult {
    let mismatches = if has_expectations {
        vec![Mismatch {
            path: "event".to_owned(),
            expected: "this step to be reached".to_owned(),
            found: "an earlier step refused the exchange".to_owned(),
            edits: Vec::new(),
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
        called: false,
    }
}

fn report(subject: &Policy, fixtures: Vec<FixtureResult>, settings: &RunSettings) -> RunReport {
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
    let mut report = RunReport {
        module: ModuleInfo::of(subject.pool().module()),
        settings: described(subject, settings),
        fixtures,
        totals,
    };
    report.totals.without_expectations = report.without_expectations().count();
    report
}

fn described(subject: &Policy, settings: &RunSettings) -> BTreeMap<&'static str, String> {
    let mut described = module_info::described(subject);
    described.insert("jobs", settings.jobs.to_string());
    described.insert("repeat", settings.repeat.to_string());
    described
}
