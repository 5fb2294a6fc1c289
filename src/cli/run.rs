//! `run`: arguments to settings, the operation, its report to a renderer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::capture;
use crate::error::Error;
use crate::files::{self, Links};
use crate::fixture::{self, FixtureError, Input};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::Module;
use crate::limits::MAX_POOL_SIZE;
use crate::ops::run::{self, FixtureResult, ParsedFixture, RunReport, RunSettings, StepResult};
use crate::policy::Policy;
use crate::report::Report as _;
use anyhow::Result;
use clap::Args;
use notify_debouncer_full::notify::RecursiveMode;
use regex::Regex;

use super::render::human::Style;
use super::render::{self, OutputArgs, ReportFiles};
use super::{GuestArgs, exit};

/// More repeats of a fixture would not end in a time that somebody waits for.
const MAX_REPEAT: i64 = 100_000;

/// Files settle for this long before a change is acted upon.
const DEBOUNCE: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "Examples:
  wasm-agent run rules.wasm fixtures/
  wasm-agent run rules.wasm 'tests/**/*.json' --report junit=report.xml
  wasm-agent run rules.wasm request.json --format json
  echo '{\"method\":\"GET\",\"uri\":\"/admin\"}' | wasm-agent run rules.wasm -
  wasm-agent run rules.wasm fixtures/ --watch

Without expectations the decision is printed, and no decision is a failure: nothing
is checked then, unless --require-expectations is given.

There is no SARIF: code scanning wants a place in a source file, and a fixture
does not know which line of the module's source decided. validate has it.";

/// Feed fixtures to a module, print its decisions and check them
///
/// A fixture is a JSON file: a request or response object, one event with its
/// input and expectations, or a transaction of several events.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct RunArgs {
    /// The module, .wasm or .wat
    #[arg(value_name = "MODULE")]
    module: PathBuf,

    /// Fixture files, folders, patterns, or - for standard input
    #[arg(value_name = "FIXTURE", required = true)]
    fixtures: Vec<PathBuf>,

    /// Only fixtures whose path or name matches
    #[arg(long = "run", value_name = "REGEX")]
    filter: Option<Regex>,

    /// Fixtures to run at the same time; with 1, a module that keeps state sees them in order
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=MAX_POOL_SIZE as i64))]
    jobs: u16,

    /// Feed each fixture N times; a changing answer is a failure
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_REPEAT))]
    repeat: u32,

    /// Stop at the first fixture that fails
    #[arg(long)]
    fail_fast: bool,

    /// Make the expectations of the fixtures true, and give one to fixtures without;
    /// a symbolic link is followed only if it is named itself
    #[arg(long, conflicts_with = "fail_fast")]
    update: bool,

    /// Fail where a fixture expects nothing
    #[arg(long)]
    require_expectations: bool,

    /// Run again when the module or a fixture changes
    #[arg(short, long)]
    watch: bool,

    /// Allow on a fault instead of blocking, as `serve --fail-open` would
    #[arg(long)]
    fail_open: bool,

    #[command(flatten)]
    guest: GuestArgs,

    #[command(flatten)]
    output: OutputArgs<RunReport>,
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &RunArgs, style: Style) -> Result<u8> {
    let from_stdin = args.fixtures.iter().any(|path| path.as_os_str() == "-");
    if from_stdin && (args.watch || args.update) {
        let flag = if args.watch { "--watch" } else { "--update" };
        return Err(Error::Usage(format!("{flag} needs files, and - is standard input")).into());
    }
    let engine = Engine::new(EngineSettings {
        fuel: true,
        debug_lines: true,
        ..EngineSettings::default()
    })?;
    if args.watch {
        return watch(args, &engine, style);
    }
    let files = ReportFiles::open(&args.output.reports, &read(args))?;
    let report = once(args, &engine)?;
    render::report(&report, (args.output.format, files), style)?;
    Ok(exit::of_verdict(report.verdict()))
}

/// The files that are named on the command line.
fn read(args: &RunArgs) -> Vec<&Path> {
    let fixtures = args.fixtures.iter().map(PathBuf::as_path);
    fixtures.chain([args.module.as_path()]).collect()
}

/// Loads everything anew and runs it once; after an update once more, so that the
/// report says what is still wrong.
fn once(args: &RunArgs, engine: &Arc<Engine>) -> Result<RunReport, Error> {
    let mut played = play(args, engine)?;
    if args.update && update(&args.fixtures, &played)? {
        played = play(args, engine)?;
    }
    let report = played.report;
    if report.fixtures.is_empty() {
        let why = args.filter.as_ref().map_or_else(
            || "no fixture was found".to_owned(),
            |filter| format!("no fixture matches --run {filter}"),
        );
        render::to_stderr(&format!("warning: nothing was checked: {why}"));
    }
    Ok(report)
}

/// Fixtures, and what came of them.
struct Played {
    inputs: Vec<Input>,
    fixtures: Vec<ParsedFixture>,
    report: RunReport,
}

fn play(args: &RunArgs, engine: &Arc<Engine>) -> Result<Played, Error> {
    let subject = subject(args, engine)?;
    let inputs = fixture::discover(&args.fixtures)?;
    let (inputs, fixtures) = selected(inputs, args.filter.as_ref());
    let settings = RunSettings {
        jobs: args.jobs.into(),
        repeat: args.repeat,
        fail_fast: args.fail_fast,
        require_expectations: args.require_expectations,
    };
    let report = run::run(&subject, &fixtures, &settings)?;
    Ok(Played {
        inputs,
        fixtures,
        report,
    })
}

fn subject(args: &RunArgs, engine: &Arc<Engine>) -> Result<Policy, Error> {
    let module = Arc::new(Module::load(engine, &args.module, &args.guest.load())?);
    args.guest.policy(module, args.jobs.into(), args.fail_open)
}

/// What is wrong with a file that is no fixture, and a capture.
fn of_capture(error: FixtureError, bytes: &[u8]) -> FixtureError {
    match capture::format_by_content(bytes) {
        Some(format) => FixtureError {
            message: format!(
                "expected a fixture, found a capture ({}); wasm-agent replay MODULE FILE replays it",
                format.title()
            ),
            ..error
        },
        None => error,
    }
}

/// Parses what the filter lets through. A file that does not parse is kept
/// whatever the filter says of its name, since nobody knows its name.
fn selected(inputs: Vec<Input>, filter: Option<&Regex>) -> (Vec<Input>, Vec<ParsedFixture>) {
    inputs
        .into_iter()
        .map(|input| {
            let fixture = fixture::parse(&input).map_err(|error| of_capture(error, &input.bytes));
            (input, fixture)
        })
        .filter(|(input, fixture)| {
            filter.is_none_or(|filter| {
                filter.is_match(&input.path.to_string_lossy())
                    || fixture
                        .as_ref()
                        .map_or(true, |fixture| filter.is_match(&fixture.name))
            })
        })
        .unzip()
}

/// Writes what is to be changed, and says so. Whether anything was.
fn update(named: &[PathBuf], played: &Played) -> Result<bool, Error> {
    let mut changed = Vec::new();
    let fixtures = played.inputs.iter().zip(&played.fixtures);
    for ((input, fixture), result) in fixtures.zip(&played.report.fixtures) {
        let Ok(fixture) = fixture else { continue };
        let text = String::from_utf8_lossy(&input.bytes);
        let seen = result.steps.iter().map(StepResult::seen).collect();
        let updated = fixture::update(&text, fixture, seen);
        if !updated.not_called.is_empty() {
            render::to_stderr(&format!(
                "{}: left the expectations of {}: the module has no handler for it, so there is no answer to write",
                render::shown(&input.path),
                numbered(&updated.not_called),
            ));
        }
        if let Some(text) = updated.text {
            keep_behind_links(&input.path, named)?;
            changed.push((&input.path, text, updated.not_reached));
        }
    }
    for (path, text, not_reached) in &changed {
        files::write(path, Links::Followed, text.as_bytes())?;
        let mut line = format!("updated {}", render::shown(path));
        if !not_reached.is_empty() {
            line.push_str(&format!(
                "; removed the expectations of {}: an earlier step refuses, so they are never reached",
                numbered(not_reached),
            ));
        }
        render::to_stderr(&line);
    }
    Ok(!changed.is_empty())
}

/// Steps by their numbers: `step 2`, `steps 2, 3 and 4`.
fn numbered(steps: &[usize]) -> String {
    let text = |steps: &[usize]| {
        let steps = steps.iter().map(ToString::to_string);
        steps.collect::<Vec<_>>().join(", ")
    };
    match steps {
        [before @ .., last] if !before.is_empty() => format!("steps {} and {last}", text(before)),
        _ => format!("step {}", text(steps)),
    }
}

/// What a link in a folder leads to was not meant by whoever named the folder.
fn keep_behind_links(path: &Path, named: &[PathBuf]) -> Result<(), Error> {
    if !path.is_symlink() || named.iter().any(|name| name == path) {
        return Ok(());
    }
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Err(Error::Write {
        path: path.to_owned(),
        source: std::io::Error::other(format!(
            "it is a symbolic link found in a folder and was not updated; name {} itself",
            render::shown(&real)
        )),
    })
}

/// Runs, waits for a change, runs again, until interrupted.
fn watch(args: &RunArgs, engine: &Arc<Engine>, style: Style) -> Result<u8> {
    let (changed, changes) = std::sync::mpsc::channel();
    let mut watcher = notify_debouncer_full::new_debouncer(DEBOUNCE, None, changed)?;
    // Folders, because editors and compilers replace files.
    watcher.watch(fixture::root(&args.module), RecursiveMode::NonRecursive)?;
    for argument in &args.fixtures {
        let single = argument.is_file();
        let mode = if single {
            RecursiveMode::NonRecursive
        } else {
            RecursiveMode::Recursive
        };
        watcher.watch(fixture::root(argument), mode)?;
    }
    // A link to a module says nothing when the module is built anew.
    let built = args.module.canonicalize().ok();
    if let Some(built) = &built {
        watcher.watch(fixture::root(built), RecursiveMode::NonRecursive)?;
    }
    let watched: Vec<&Path> = read(args).into_iter().chain(built.as_deref()).collect();
    let is_report = |path: &Path| {
        let real = path.canonicalize().ok();
        let mut reports = args.output.reports.iter();
        real.is_some() && reports.any(|(_, report)| report.canonicalize().ok() == real)
    };
    let mut before: Option<RunReport> = None;
    loop {
        match once(args, engine) {
            Ok(report) => {
                // Each run renews the files, as a run of its own would.
                let files = ReportFiles::open(&args.output.reports, &read(args))?;
                render::report(&report, (args.output.format, files), style)?;
                if let Some(before) = &before {
                    for line in differences(before, &report) {
                        render::to_stderr(&render::escape::terminal(&line));
                    }
                }
                before = Some(report);
            }
            // A module in mid-build is broken for a moment; go on watching.
            Err(error) => render::to_stderr(&render::human::error_chain(&error.into())),
        }
        render::to_stderr("waiting for a change of the module or a fixture; Ctrl-C to end");
        loop {
            let Ok(events) = changes.recv() else {
                return Ok(exit::OK);
            };
            let is_named = |path: &Path| {
                let mut names = watched.iter().map(|name| name.file_name());
                names.any(|name| name == path.file_name())
            };
            // Its own reports say nothing new.
            let relevant = |path: &PathBuf| {
                let is_read = path.extension().is_some_and(|ext| ext == "json") || is_named(path);
                is_read && !is_report(path)
            };
            let touched = events.is_ok_and(|events| {
                events
                    .iter()
                    .filter(|event| !event.kind.is_access())
                    .flat_map(|event| &event.paths)
                    .any(relevant)
            });
            if touched {
                break;
            }
        }
    }
}

/// What is otherwise than in the run before: one line each.
fn differences(before: &RunReport, now: &RunReport) -> Vec<String> {
    let steps = |report: &RunReport| -> BTreeMap<(String, String, usize), String> {
        report
            .fixtures
            .iter()
            .flat_map(|fixture| {
                fixture.steps.iter().enumerate().map(|(index, step)| {
                    (
                        (fixture.path.clone(), fixture.name.clone(), index),
                        outcome(fixture, step),
                    )
                })
            })
            .collect()
    };
    let (old, new) = (steps(before), steps(now));
    let mut lines = Vec::new();
    for (key, outcome) in &new {
        let (path, _, step) = key;
        let place = format!("{path} step {}", step + 1);
        match old.get(key) {
            None => lines.push(format!("new: {place}: {outcome}")),
            Some(was) if was != outcome => {
                lines.push(format!("changed: {place}: {was} -> {outcome}"));
            }
            Some(_) => {}
        }
    }
    lines.extend(
        old.keys()
            .filter(|key| !new.contains_key(*key))
            .map(|(path, _, step)| format!("gone: {path} step {}", step + 1)),
    );
    let (was, is) = (before.totals.fuel, now.totals.fuel);
    lines.push(if lines.is_empty() {
        "no decision changed".to_owned()
    } else {
        format!("{} of {} steps changed", lines.len(), new.len())
    });
    lines.push(format!(
        "fuel {was} -> {is} ({:+})",
        i128::from(is) - i128::from(was)
    ));
    lines
}

fn outcome(fixture: &FixtureResult, step: &StepResult) -> String {
    let word = run::status_name(step.status);
    match (step.summary(), &fixture.error) {
        (Some(summary), _) => format!("{word}, {summary}"),
        (None, Some(error)) => error.message.clone(),
        (None, None) => word.to_owned(),
    }
}
