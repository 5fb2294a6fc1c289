//! `replay`: arguments to settings, the operation, its report to a renderer.

#[cfg(test)]
mod chain_tests;
mod progress;
mod values;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use crate::abi::Abi;
use crate::capture::{self, DEFAULT_MAX_RECORD_BYTES, DecodeSettings, FieldMap, Format};
use crate::error::Error;
use crate::event::DEFAULT_CLIENT_IP;
use crate::files;
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::Module;
use crate::limits::{MAX_POOL_SIZE, Wasi};
use crate::ops::replay::{
    self, Expect, FailOn, Match, Pointer, Redaction, ReplayReport, ReplaySettings, SaveFixtures,
    Selection, Shard, Sinks, Subjects, Watch, Which,
};
use crate::policy::Policy;
use crate::report::Report as _;
use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};

use super::redact_key::KeyArgs;
use super::render::escape::{Guard, Syntax};
use super::render::human::Style;
use super::render::{self, Format as OutputFormat, OutputArgs, ReportFiles};
use super::{GuestArgs, exit};

pub(super) use values::share;

const EXAMPLES: &str = "Examples:
  wasm-agent replay rules.wasm traffic.har
  wasm-agent replay --baseline old.wasm new.wasm captures/ --minimize
  wasm-agent replay --baseline old.wasm new.wasm access.log.gz --report html=diff.html
  wasm-agent replay rules.wasm coreruleset/tests/ --report junit=tests.xml
  wasm-agent replay new.wasm recorded.jsonl --save-fixture regressions/
  wasm-agent replay --shard 1/4 new.wasm big.har --format json > 1.json
  wasm-agent replay merge 1.json 2.json 3.json 4.json

Captures are recognised by their content: our own JSON Lines (serve --record, --save),
HAR, Envoy HTTP tap JSON, GoReplay, go-ftw tests, access logs (combined or JSON).";

const FAILURES: &str = "What --fail-on counts as a failure:
                              any  decision  recorded  fault  N%  never
  the module faults           yes  yes       yes       yes    *   -
  another decision            yes  yes       yes       -      *   -
  other details of the same   yes  -         -         -      -   -
  with --baseline, a decision
  of both modules that is not
  the recorded one            -    -         yes       -      -   -
  a test of a test file fails yes  yes       yes       yes    yes -
  * if another decision, or a fault that the other side does not have, is in more than
    N% of the compared transactions; a fault also counts if faults are in more than N%
    of all transactions
Compared are the answers of --baseline, or without it those in the capture. Where
there are none, only faults count. A fault of the other side alone is no fault of the
module; what it decided then is compared.";

/// Feed captured traffic to a module, or to two and compare
///
/// With one module: its decisions, faults and costs, and differences from the
/// decisions in the capture, if it has them. With --baseline: the transactions
/// that the new version decides differently, grouped by cause, and the costs of
/// both versions.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{FAILURES}\n\n{}", exit::REPLAY_HELP))]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ReplayArgs {
    #[command(subcommand)]
    command: Option<ReplayCommand>,

    /// The module, .wasm or .wat
    #[arg(value_name = "MODULE", required = true)]
    module: Option<PathBuf>,

    /// Capture files, folders, or - for standard input; gzip is unpacked
    #[arg(value_name = "CAPTURE", required = true)]
    captures: Vec<PathBuf>,

    /// The version to compare with
    #[arg(long, value_name = "MODULE")]
    baseline: Option<PathBuf>,

    #[command(flatten)]
    input: InputArgs,

    #[command(flatten)]
    select: SelectArgs,

    #[command(flatten)]
    compare: CompareArgs,

    /// Threads that run guests [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_POOL_SIZE as i64))]
    jobs: Option<u16>,

    /// Keep the original timing, N times as fast: 1x, 10x; in the order of the
    /// capture; a pause of more than 10 minutes is left out, with a note
    /// [default: no waiting]
    #[arg(long, value_name = "FACTOR", value_parser = values::speed)]
    speed: Option<f64>,

    /// Tell the module at each call that it is this time, such as
    /// 2026-03-01T09:30:00Z: shows what will be decided otherwise then [default: the
    /// time of each record]
    #[arg(long, value_name = "TIME", value_parser = values::time, conflicts_with = "speed")]
    at: Option<i64>,

    /// Omit times, so that equal runs give equal bytes
    #[arg(long)]
    no_timings: bool,

    /// Allow on a fault instead of blocking, as `serve --fail-open` would
    #[arg(long)]
    fail_open: bool,

    #[command(flatten)]
    save: SaveArgs,

    #[command(flatten)]
    guest: GuestArgs,

    #[command(flatten)]
    output: OutputArgs<ReplayReport>,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    /// Merge the JSON reports of all shards into the report of one run
    Merge {
        /// Reports written with --shard I/N --format json
        #[arg(value_name = "REPORT", required = true)]
        shards: Vec<PathBuf>,

        /// What is a failure [default: as the shards were run]
        #[arg(long, value_name = "any|decision|recorded|fault|N%|never", value_parser = values::fail_on)]
        fail_on: Option<FailOn>,

        #[command(flatten)]
        output: OutputArgs<ReplayReport>,
    },
}

/// How captures are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Captures")]
pub(super) struct InputArgs {
    /// Format of the captures, if it cannot be recognised from their content
    #[arg(long, value_name = "FORMAT", value_parser = values::input_format())]
    input_format: Option<Format>,

    /// Client address for formats that have none
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_CLIENT_IP)]
    client_ip: std::net::IpAddr,

    /// Which key of a JSON access log holds what, such as uri=req.path or
    /// header.cookie=cookie; repeatable
    #[arg(long = "field", value_name = "WHAT=KEY", value_parser = values::field)]
    fields: Vec<(String, String)>,

    /// Largest size of one record; longer ones are skipped and reported
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_RECORD_BYTES as u64))]
    max_record: ByteSize,

    /// Exit with an error at the end if a record could not be used
    #[arg(long)]
    pub(super) strict: bool,

    /// Stop without a result if more than N records cannot be used
    #[arg(long, value_name = "N")]
    pub(super) max_errors: Option<u64>,
}

impl InputArgs {
    pub(super) const fn format(&self) -> Option<Format> {
        self.input_format
    }

    pub(super) fn max_record(&self) -> usize {
        usize::try_from(self.max_record.as_u64()).unwrap_or(usize::MAX)
    }

    pub(super) fn decode(&self) -> DecodeSettings {
        DecodeSettings {
            client_ip: self.client_ip.to_string(),
            fields: FieldMap {
                given: self.fields.clone(),
            },
            at_ns: None,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
struct SelectArgs {
    /// At most N transactions, the first ones; records that cannot be used do not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// A share of the transactions, such as 0.1
    #[arg(long, value_name = "SHARE", value_parser = values::share)]
    sample_rate: Option<f64>,

    /// Seed of the sample; the same seed picks the same transactions
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Only transactions with path=REGEX, method=NAME or status=404|4xx|400-499;
    /// repeatable; values of one kind are alternatives
    #[arg(long = "match", value_name = "WHAT=VALUE", value_parser = values::matching)]
    matching: Vec<Match>,

    /// Part I of N, by correlation id; join the JSON reports with replay merge.
    /// auto/N: the part that the index of a Kubernetes Indexed Job names
    #[arg(long, value_name = "I/N", value_parser = values::shard)]
    shard: Option<Shard>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
struct CompareArgs {
    /// Do not compare this part of answers, a JSON pointer such as /audit/tags,
    /// or 2/audit/tags for the second answer alone; a fault of the module counts
    /// all the same; repeatable
    #[arg(long, value_name = "POINTER", value_parser = Pointer::from_str)]
    ignore: Vec<Pointer>,

    /// What is a failure; see the table below
    #[arg(long, value_name = "any|decision|recorded|fault|N%|never", value_parser = values::fail_on, default_value = "decision")]
    fail_on: FailOn,

    /// Pass although records say that redacting them changed the decision
    /// (redaction-changed); their recorded decisions are not compared
    #[arg(long)]
    allow_redacted_changes: bool,

    /// Examples of each group of changes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    examples: u16,

    /// Find the smallest request that still shows each example's change
    #[arg(long)]
    minimize: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Written files")]
struct SaveArgs {
    /// Write changed and faulted transactions as fixtures for `run`; a symbolic
    /// link with a fixture's name in DIR is replaced
    #[arg(long, value_name = "DIR")]
    save_fixture: Option<PathBuf>,

    /// Which transactions become fixtures
    #[arg(long, value_enum, default_value_t = WhichArg::Changed, requires = "save_fixture")]
    fixtures: WhichArg,

    /// Whose answers the fixtures expect
    #[arg(long, value_enum, default_value_t = ExpectArg::New, requires = "save_fixture")]
    expect: ExpectArg,

    /// Write the calls as a capture in our own format; a symbolic link is followed
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Do not redact credentials, cookies and tokens in written files
    #[arg(long, conflicts_with = "redact_key_file")]
    keep_secrets: bool,

    #[command(flatten)]
    key: KeyArgs,
}

impl SaveArgs {
    fn redaction(&self) -> Result<Redaction, Error> {
        if self.keep_secrets {
            return Ok(Redaction::Keep);
        }
        match self.key.key()? {
            Some(key) => Ok(Redaction::Key(key)),
            None => Ok(Redaction::RandomKey),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhichArg {
    /// Those that changed or faulted
    Changed,
    /// All that were replayed
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ExpectArg {
    /// The module's
    New,
    /// The baseline's; without one those that were recorded
    Old,
}

fn note_passed_over(passed_over: &[capture::PassedOver]) {
    for passed in passed_over.iter().take(5) {
        render::to_stderr(&format!(
            "note: {} {} and was not read",
            render::shown(&passed.path),
            passed.explain()
        ));
    }
    if passed_over.len() > 5 {
        render::to_stderr(&format!(
            "note: {} more files were not read either",
            passed_over.len() - 5
        ));
    }
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &ReplayArgs, style: Style) -> Result<u8> {
    if let Some(ReplayCommand::Merge {
        shards,
        fail_on,
        output,
    }) = &args.command
    {
        return merge((shards, *fail_on), output, style);
    }
    let (captures, passed_over) = capture::discover(&args.captures)?;
    note_passed_over(&passed_over);
    let settings = args.settings()?;
    args.note_own_key(&settings);
    args.check_clock(Abi::Agent)?;
    let module = args
        .module
        .as_ref()
        .ok_or_else(|| Error::Usage("expected a module".to_owned()))?;
    let engine = Engine::new(EngineSettings {
        fuel: true,
        debug_lines: true,
        ..EngineSettings::default()
    })?;
    let subject = args.subject(&engine, module)?;
    args.check_clock(subject.abi())?;
    let baseline = args
        .baseline
        .as_ref()
        .map(|path| args.subject(&engine, path))
        .transpose()?;
    let read: Vec<&Path> = captures
        .iter()
        .map(|capture| capture.path.as_path())
        .chain([module.as_path()])
        .chain(args.baseline.as_deref())
        .collect();
    let (rows, others) = split(&args.output.reports);
    for (flag, path) in rows
        .iter()
        .map(|(_, path)| ("--report", path))
        .chain(args.save.save.iter().map(|path| ("--save", path)))
    {
        render::keep_inputs(flag, path, &read)?;
    }
    let files = ReportFiles::open(&others, &read)?;
    let sinks = Sinks {
        rows: args.rows(&rows)?,
        records: args.save.save.as_deref().map(private).transpose()?,
    };
    let subjects = Subjects {
        module: &subject,
        baseline: baseline.as_ref(),
    };
    if args.at.is_some() && !subjects.read_fixed_clocks() {
        render::to_stderr("warning: --at changes nothing: the module imports no clock");
    }
    let watch = Arc::new(Watch {
        teller: Some(render::to_stderr),
        ..Watch::default()
    });
    progress::on_signal(&watch);
    let report = progress::shown(&captures, &watch, || {
        replay::replay(&subjects, &captures, &settings, (sinks, &watch))
    })?;
    remarks(&report, args.output.format);
    // What is written in rows is on standard output already.
    render::report(&report, (args.output.format, files), style)?;
    Ok(exit::of_verdict(report.verdict()))
}

fn merge(
    (shards, fail_on): (&[PathBuf], Option<FailOn>),
    output: &OutputArgs<ReplayReport>,
    style: Style,
) -> Result<u8> {
    let (rows, others) = split(&output.reports);
    if output.format == OutputFormat::Jsonl || !rows.is_empty() {
        return Err(Error::Usage(
            "jsonl has a line for each transaction, which reports do not hold; concatenate the shards' own".to_owned(),
        )
        .into());
    }
    let read: Vec<&Path> = shards.iter().map(PathBuf::as_path).collect();
    let files = ReportFiles::open(&others, &read)?;
    let mut report = replay::merge(shards)?;
    report.fail_on = fail_on.unwrap_or(report.fail_on);
    remarks(&report, output.format);
    render::report(&report, (output.format, files), style)?;
    Ok(exit::of_verdict(report.verdict()))
}

type Targets = Vec<(OutputFormat, PathBuf)>;

/// Rows are written as they come, the other reports at the end.
fn split(reports: &[(OutputFormat, PathBuf)]) -> (Targets, Targets) {
    reports
        .iter()
        .cloned()
        .partition(|(format, _)| *format == OutputFormat::Jsonl)
}

impl ReplayArgs {
    fn settings(&self) -> Result<ReplaySettings, Error> {
        let redaction = self.save.redaction()?;
        let fixtures = self.save.save_fixture.as_ref().map(|folder| SaveFixtures {
            folder: folder.clone(),
            which: match self.save.fixtures {
                WhichArg::Changed => Which::Changed,
                WhichArg::All => Which::All,
            },
            expect: match self.save.expect {
                ExpectArg::New => Expect::New,
                ExpectArg::Old => Expect::Old,
            },
        });
        if let Some(fixtures) = &fixtures {
            std::fs::create_dir_all(&fixtures.folder).map_err(|source| Error::Write {
                path: fixtures.folder.clone(),
                source,
            })?;
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(ReplaySettings {
            jobs: self.jobs.map_or_else(cores, usize::from),
            format: self.input.format(),
            max_record: self.input.max_record(),
            decode: DecodeSettings {
                at_ns: self.at,
                ..self.input.decode()
            },
            selection: Selection {
                limit: self.select.limit,
                sample: self.select.sample_rate.map(|rate| (rate, self.select.seed)),
                matching: self.select.matching.clone(),
                shard: self.select.shard,
            },
            speed: self.speed,
            timings: !self.no_timings,
            examples: self.compare.examples.into(),
            ignore: self.compare.ignore.clone(),
            minimize: self.compare.minimize,
            fail_on: self.compare.fail_on,
            strict: self.input.strict,
            allow_redacted_changes: self.compare.allow_redacted_changes,
            max_errors: self.input.max_errors,
            fixtures,
            redaction,
        })
    }

    /// Says so where secrets that are equal will not be so over the shards.
    fn note_own_key(&self, settings: &ReplaySettings) {
        let is_own = matches!(settings.redaction, Redaction::RandomKey);
        if is_own && self.save.save.is_some() && self.select.shard.is_some() {
            render::to_stderr(
                "note: this shard replaces secrets with a random key of its own, so equal secrets are not equal over the shards; where they have to be, give every shard the same --redact-key-file FILE, made once with head -c 32 /dev/urandom | base64 > FILE",
            );
        }
    }

    /// Refuses a time for a module that is not told it.
    fn check_clock(&self, abi: Abi) -> Result<(), Error> {
        let why = match self.guest.limits(abi).wasi {
            _ if self.at.is_none() => return Ok(()),
            Wasi::Fixed => return Ok(()),
            Wasi::Real => "with --wasi real the module reads the clock of this machine",
            Wasi::None => {
                "the module has no clock (--wasi none, which is the default for hooks); give --wasi fixed"
            }
        };
        Err(Error::Usage(format!("--at: {why}")))
    }

    fn subject(&self, engine: &Arc<Engine>, path: &Path) -> Result<Policy, Error> {
        let module = Arc::new(Module::load(engine, path, &self.guest.load())?);
        self.guest.policy(module, 1, self.fail_open)
    }

    /// Where rows go: standard output or one file.
    fn rows(&self, files: &Targets) -> Result<Option<Box<dyn Write + Send>>, Error> {
        if self.output.format == OutputFormat::Jsonl {
            return Ok(Some(rows_to(io::stdout())));
        }
        match files.as_slice() {
            [] => Ok(None),
            [(_, path)] => {
                let file = files::create(path, false)
                    .map_err(|error| render::unwritable("--report", path, &error))?;
                Ok(Some(rows_to(Named::new(path, file))))
            }
            _ => Err(Error::Usage(
                "--report jsonl=PATH can be given once".to_owned(),
            )),
        }
    }
}

/// Rows are JSON, one a line.
fn rows_to(out: impl Write + Send + 'static) -> Box<dyn Write + Send> {
    Box::new(Guard::new(Syntax::Json, BufWriter::new(out)))
}

/// A file that only its owner may read: it holds traffic.
fn private(path: &Path) -> Result<Box<dyn Write + Send>, Error> {
    let file = files::create(path, true).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok(Box::new(BufWriter::new(Named::new(path, file))))
}

/// A file whose errors say which one it is.
struct Named {
    path: PathBuf,
    file: std::fs::File,
}

impl Named {
    fn new(path: &Path, file: std::fs::File) -> Self {
        let path = path.to_owned();
        Self { path, file }
    }

    fn tell(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

impl Write for Named {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        written.map_err(|error| self.tell(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        flushed.map_err(|error| self.tell(&error))
    }
}

/// What a person should know who reads another format than the one for people.
fn remarks(report: &ReplayReport, format: OutputFormat) {
    if format == OutputFormat::Human {
        return;
    }
    for warning in report.warnings() {
        render::to_stderr(&format!("warning: {warning}"));
    }
}
