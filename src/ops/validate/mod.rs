//! `validate`: module files through every check, static and live.
//!
//! In: paths and settings. Out: a [`ValidateReport`] with a row for each check.
//! The static rows are the verdict that `load` refuses modules by; the live
//! ones come from calling the module, always under the limits.
//! A file that cannot be read is one row, and the others go on.

mod answers;
mod bodies;
mod calls;
pub(in crate::ops) mod growth;
mod hooks;
mod report;
pub(in crate::ops) mod samples;
mod state;
mod torture;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::check::{Check, CheckKind, CheckStatus};
use crate::error::Error;
use crate::fault::printable;
use crate::guest::Instance;
use crate::guest::convention::json_buffer::answer::AnswerPolicy;
use crate::guest::engine::Engine;
use crate::guest::inspect::Facts;
use crate::guest::module::{Candidate, LoadSettings, Module};
use crate::limits::Isolation;
use crate::policy::BodySettings;
use crate::question::HeaderNames;
use crate::report::Verdict;

use calls::Prober;
pub(crate) use growth::Growth;
pub(crate) use report::{Metrics, ModuleFacts, ModuleReport, Row, SampleCost, ValidateReport};

/// Instances made to find out how long one takes.
const INSTANTIATIONS: usize = 5;

/// How far a module is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Probing {
    /// Not called at all.
    Static,
    /// Called with sample events.
    #[default]
    Samples,
    /// Called with the inputs production brings one day, too.
    Torture,
}

/// What modules are held to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ValidateSettings {
    /// Bounds of the file, limits of a call, the ABI asked for.
    pub load: LoadSettings,
    /// How far a module is tried.
    pub probing: Probing,
    /// How header names will be spelled for it.
    pub header_names: HeaderNames,
    /// What its answers are checked against.
    pub answer_policy: AnswerPolicy,
    /// How it gets bodies.
    pub bodies: BodySettings,
    /// Whether its instances will serve more than one call; none for what its
    /// ABI has by default.
    pub isolation: Option<Isolation>,
    /// Memory that may be kept for each call, in bytes. None: any is a warning.
    pub max_growth_bytes: Option<u64>,
    /// A warning fails the module.
    pub deny_warnings: bool,
}

/// Puts each file through every check.
///
/// # Errors
/// Only when the engine cannot be used or the system has no room for a thread;
/// whatever is wrong with a file is in its rows.
pub(crate) fn validate(
    engine: &Arc<Engine>,
    paths: &[PathBuf],
    settings: &ValidateSettings,
) -> Result<ValidateReport, Error> {
    let modules = paths
        .iter()
        .map(|path| module(engine, path, settings))
        .collect::<Result<_, _>>()?;
    Ok(ValidateReport {
        deny_warnings: settings.deny_warnings,
        modules,
    })
}

fn module(
    engine: &Arc<Engine>,
    path: &Path,
    settings: &ValidateSettings,
) -> Result<ModuleReport, Error> {
    let shown = printable(&path.to_string_lossy(), 512);
    let candidate = match Candidate::read(path, &settings.load) {
        Ok(candidate) => candidate,
        Err(error) => {
            return Ok(ModuleReport {
                path: shown,
                verdict: Verdict::Unreadable,
                facts: None,
                checks: vec![unreadable(&error)],
                metrics: None,
                unused_flag: None,
            });
        }
    };
    let mut report = ModuleReport {
        path: shown,
        verdict: Verdict::Passed,
        facts: Some(facts(&candidate)),
        checks: candidate
            .checks
            .all
            .iter()
            .cloned()
            .map(Row::from)
            .collect(),
        metrics: None,
        unused_flag: None,
    };
    let failed = report.count(CheckStatus::Fail);
    if failed > 0 {
        report.checks.push(Row::skip(
            CheckKind::Compile,
            "compiles, makes instances, answers",
            format!("not tried, {failed} of the checks above failed"),
        ));
    } else {
        compile_and_probe(engine, candidate, settings, &mut report)?;
    }
    let broken = report.count(CheckStatus::Fail) > 0
        || settings.deny_warnings && report.count(CheckStatus::Warn) > 0;
    if broken {
        report.verdict = Verdict::Failed;
    }
    Ok(report)
}

fn facts(candidate: &Candidate) -> ModuleFacts {
    let Facts {
        size_bytes,
        language,
        producers,
        has_names,
        has_dwarf,
        ..
    } = &candidate.facts;
    ModuleFacts {
        hash: candidate.source.hash.clone(),
        size_bytes: *size_bytes,
        abi: candidate.checks.abi.map(crate::abi::Abi::name),
        language: *language,
        producers: producers
            .iter()
            .map(|producer| printable(producer, 100))
            .collect(),
        has_names: *has_names,
        has_dwarf: *has_dwarf,
    }
}

/// A file that is no module at all.
fn unreadable(error: &Error) -> Row {
    let found = match error {
        Error::Read { source, .. } => format!("cannot read it: {source}"),
        Error::Malformed { message, .. } => message.clone(),
        other => other.to_string(),
    };
    // The assembler draws the place below its first line.
    let (first, rest) = found.split_once('\n').unwrap_or((&found, ""));
    let place = rest
        .split_once("--> ")
        .and_then(|(_, place)| place.lines().next())
        .and_then(|place| place.split_once(':'))
        .map(|(_, place)| format!(" at {place}"))
        .unwrap_or_default();
    let rest: Vec<String> = rest.lines().map(|line| printable(line, 200)).collect();
    Row::from(Check::fail(
        CheckKind::Readable,
        "a well-formed wasm binary or wasm text",
        printable(&format!("{first}{place}"), 500),
        "",
    ))
    .with_detail(rest.join("\n"))
}

fn compile_and_probe(
    engine: &Arc<Engine>,
    candidate: Candidate,
    settings: &ValidateSettings,
    report: &mut ModuleReport,
) -> Result<(), Error> {
    let expected = format!("compiles within {:?}", settings.load.load.max_compile_time);
    let module = match candidate.compile(engine, &settings.load.load) {
        Ok(module) => Arc::new(module),
        Err(error) => {
            report.checks.push(not_compiled(expected, &error));
            return Ok(());
        }
    };
    report.unused_flag = settings.bodies.unused(&module);
    // Rounded, so that rows do not differ from run to run; metrics say it.
    report
        .checks
        .push(Check::pass(CheckKind::Compile, expected, "compiles").into());
    let mut metrics = Metrics {
        compile_us: micros(module.compile_time),
        ..Metrics::default()
    };
    if settings.probing == Probing::Static {
        report.checks.push(Row::skip(
            CheckKind::Instantiate,
            "an instance, and answers to sample events",
            "not tried (--no-probe)",
        ));
    } else {
        report.checks.extend(probe(&module, settings, &mut metrics));
    }
    report.metrics = Some(metrics);
    Ok(())
}

fn not_compiled(expected: String, error: &Error) -> Row {
    let mut found = match error {
        Error::CompileTime { limit, .. } => format!("not done after {limit:?}"),
        other => other.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        found.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let fix = match error {
        Error::CompileTime { .. } => {
            "split generated code into smaller functions, or raise --max-compile-time"
        }
        // It says so itself, and nothing about the module would help.
        _ => "",
    };
    Check::fail(CheckKind::Compile, expected, printable(&found, 500), fix).into()
}

/// Everything that needs the module to run.
fn probe(module: &Arc<Module>, settings: &ValidateSettings, metrics: &mut Metrics) -> Vec<Row> {
    let mut rows = vec![instantiate(module, metrics)];
    if rows[0].check.status == CheckStatus::Fail {
        return rows;
    }
    let prober = Prober::new(module, settings);
    let trials = answers::try_samples(&prober, prober.samples());
    metrics.samples = trials.iter().filter_map(calls::Trial::cost).collect();
    rows.extend(answers::rows(&prober, &trials));
    let fixed = prober.repeatable();
    let (prober, trials) = match fixed {
        Some(fixed) => {
            let trials = answers::try_samples(&fixed, fixed.samples());
            (fixed, trials)
        }
        None => (prober, trials),
    };
    rows.push(answers::determinism(&prober, &trials));
    rows.extend(answers::spelling(&prober, &trials));
    let many = growth::probe(&prober, &trials);
    rows.push(many.row.clone());
    let state = state::probe(&prober, &trials, &many);
    let is_told = state.check.status == CheckStatus::Fail;
    let exchanges = growth::bodies::rows(&prober, &many).into_iter();
    // What counts all calls counts those about exchanges too.
    rows.extend(exchanges.filter(|row| !is_told || row.check.id.kind != CheckKind::State));
    rows.extend(bodies::rows(&prober));
    rows.push(state);
    metrics.growth = many.growth;
    if settings.probing == Probing::Torture {
        rows.extend(torture::probe(&prober, &trials));
    }
    rows
}

fn instantiate(module: &Arc<Module>, metrics: &mut Metrics) -> Row {
    let limits = module.limits;
    let expected = format!("an instance within {:?}", limits.timeout);
    let mut times = Vec::new();
    for _ in 0..INSTANTIATIONS {
        let started = Instant::now();
        match Instance::new(module, limits) {
            Ok(instance) => {
                times.push(started.elapsed());
                metrics.instance_memory_bytes = instance.memory_bytes();
            }
            Err(fault) => return Row::fault(CheckKind::Instantiate, expected, &fault),
        }
    }
    times.sort_unstable();
    metrics.instantiate_us = micros(times[times.len() / 2]);
    let found = format!("{} bytes of memory", metrics.instance_memory_bytes);
    Check::pass(CheckKind::Instantiate, expected, found).into()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
