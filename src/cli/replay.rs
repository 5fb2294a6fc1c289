//! `replay`: arguments to settings, the operation, its report to a renderer.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use regex::Regex;
use wasm_agent_kit::abi::Abi;
use wasm_agent_kit::agent::Agent;
use wasm_agent_kit::capture::{
    self, Capture, DEFAULT_CLIENT_IP, DEFAULT_MAX_RECORD_BYTES, DecodeSettings, FieldMap, Format,
};
use wasm_agent_kit::engine::{Engine, EngineSettings};
use wasm_agent_kit::error::Error;
use wasm_agent_kit::limits::{DEFAULT_QUEUE_WAIT, MAX_POOL_SIZE};
use wasm_agent_kit::module::Module;
use wasm_agent_kit::ops::replay::{
    self, Expect, FailOn, LANES, Match, Redaction, ReplayReport, ReplaySettings, SaveFixtures,
    Selection, Shard, Sinks, Subjects, Watch, Which,
};
use wasm_agent_kit::ops::run::Subject;
use wasm_agent_kit::plugin::Plugin;
use wasm_agent_kit::report::Report as _;

use super::render::human::Style;
use super::render::{self, ReportFiles};
use super::{GuestArgs, OutputArgs, exit};

/// How often the progress bar looks.
const TICK: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "Examples:
  wasm-agent replay rules.wasm traffic.har
  wasm-agent replay --baseline old.wasm new.wasm captures/ --minimize
  wasm-agent replay --baseline old.wasm new.wasm access.log.gz --report html=diff.html
  wasm-agent replay rules.wasm coreruleset/tests/ --report junit=tests.xml
  wasm-agent replay new.wasm recorded.jsonl --save-fixture regressions/
  wasm-agent replay --shard 1/4 new.wasm big.har --format json > 1.json
  wasm-agent replay merge 1.json 2.json 3.json 4.json

Captures are told by their content: our own JSON Lines (serve --record, --save),
HAR, Envoy HTTP tap JSON, GoReplay, go-ftw tests, access logs (combined or JSON).";

/// Feed captured traffic to a module, or to two and compare
///
/// With one module: its decisions, faults and costs, and, where the capture
/// holds the decisions taken at the time, where it decides otherwise. With
/// --baseline: which transactions the new version decides otherwise than the
/// old one, grouped by cause, and what it costs.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::REPLAY_HELP))]
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
    /// capture [default: no waiting]
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,

    /// Leave clock readings out, so that equal runs give equal bytes
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
    output: OutputArgs<ReplayFormat>,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    /// Join the JSON reports of all shards to what one run would have said
    Merge {
        /// Reports written with --shard I/N --format json
        #[arg(value_name = "REPORT", required = true)]
        shards: Vec<PathBuf>,

        /// What is a failure [default: what the shards say]
        #[arg(long, value_name = "any|decision|fault|N%|never", value_parser = fail_on)]
        fail_on: Option<FailOn>,

        #[command(flatten)]
        output: OutputArgs<ReplayFormat>,
    },
}

/// How captures are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Captures")]
pub(super) struct InputArgs {
    /// The captures' format, where their content does not tell it
    #[arg(long, value_enum, value_name = "FORMAT")]
    input_format: Option<FormatArg>,

    /// The client's address where a format has none
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_CLIENT_IP)]
    client_ip: std::net::IpAddr,

    /// Which key of a JSON access log holds what, such as uri=req.path or
    /// header.cookie=cookie; repeatable
    #[arg(long = "field", value_name = "WHAT=KEY", value_parser = field)]
    fields: Vec<(String, String)>,

    /// Size of one record; longer ones are skipped and named
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_RECORD_BYTES as u64))]
    max_record: ByteSize,

    /// A record that cannot be used is an error, at the end
    #[arg(long)]
    pub(super) strict: bool,

    /// With more than N records that cannot be used, end early and without a
    /// result
    #[arg(long, value_name = "N")]
    pub(super) max_errors: Option<u64>,
}

impl InputArgs {
    pub(super) fn format(&self) -> Option<Format> {
        self.input_format.map(Format::from)
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
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
struct SelectArgs {
    /// At most N transactions, the first ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// A share of the transactions, such as 0.1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sample_rate: Option<f64>,

    /// What picks the sample; the same seed picks the same transactions
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Only transactions with path=REGEX, method=NAME or status=404|4xx|400-499;
    /// repeatable, one kind's are alternatives
    #[arg(long = "match", value_name = "WHAT=VALUE", value_parser = matching)]
    matching: Vec<Match>,

    /// Part I of N, by correlation id; join the JSON reports with replay merge.
    /// auto/N: the part that the index of a Kubernetes Indexed Job names
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<Shard>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
struct CompareArgs {
    /// Do not compare this part of answers, a JSON pointer such as /audit/tags;
    /// repeatable
    #[arg(long, value_name = "POINTER", value_parser = pointer)]
    ignore: Vec<String>,

    /// What is a failure: any difference, another decision (or fault), a fault,
    /// another decision in more than N%, or never
    #[arg(long, value_name = "any|decision|fault|N%|never", value_parser = fail_on, default_value = "decision")]
    fail_on: FailOn,

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
    /// Write changed and faulted transactions as fixtures for `run`
    #[arg(long, value_name = "DIR")]
    save_fixture: Option<PathBuf>,

    /// Which transactions become fixtures
    #[arg(long, value_enum, default_value_t = WhichArg::Changed, requires = "save_fixture")]
    fixtures: WhichArg,

    /// Whose answers the fixtures expect
    #[arg(long, value_enum, default_value_t = ExpectArg::New, requires = "save_fixture")]
    expect: ExpectArg,

    /// Write the calls as a capture of our own format
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Leave credentials, cookies and tokens in what is written
    #[arg(long)]
    keep_secrets: bool,

    /// Key for redacted values, so that several captures agree on them
    #[arg(
        long,
        value_name = "KEY",
        env = "WASM_AGENT_REDACT_KEY",
        hide_env_values = true,
        conflicts_with = "keep_secrets"
    )]
    redact_key: Option<String>,
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
    /// The baseline's
    Old,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    /// Our own JSON Lines
    Jsonl,
    /// HTTP Archive 1.2
    Har,
    /// Envoy HTTP tap as JSON
    EnvoyTap,
    /// GoReplay
    Gor,
    /// go-ftw tests
    Ftw,
    /// Combined access log
    AccessLog,
    /// JSON access log
    JsonLog,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Jsonl => Self::Jsonl,
            FormatArg::Har => Self::Har,
            FormatArg::EnvoyTap => Self::EnvoyTap,
            FormatArg::Gor => Self::Gor,
            FormatArg::Ftw => Self::Ftw,
            FormatArg::AccessLog => Self::AccessLog,
            FormatArg::JsonLog => Self::JsonLog,
        }
    }
}

/// What a replay can be rendered as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayFormat {
    /// Tables for people
    Human,
    /// One document, which replay merge reads
    Json,
    /// One line for each transaction, written as it goes
    Jsonl,
    /// JUnit XML
    Junit,
    /// For a comment on a pull request
    Markdown,
    /// One page, which needs nothing else
    Html,
    /// Annotations for GitHub Actions
    Github,
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
    for path in passed_over.iter().take(5) {
        render::to_stderr(&format!(
            "note: {} is no capture by its name and was not read",
            render::shown(path)
        ));
    }
    if passed_over.len() > 5 {
        render::to_stderr(&format!(
            "note: nor were {} more files",
            passed_over.len() - 5
        ));
    }
    let settings = args.settings()?;
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
    let baseline = args
        .baseline
        .as_ref()
        .map(|path| args.subject(&engine, path))
        .transpose()?;
    let (rows, others) = split(&args.output.reports);
    let files = ReportFiles::open(&others)?;
    let sinks = Sinks {
        rows: args.rows(&rows)?,
        records: args.save.save.as_ref().map(private).transpose()?,
    };
    let subjects = Subjects {
        module: &subject,
        baseline: baseline.as_ref(),
    };
    let watch = Arc::new(Watch::default());
    on_signal(&watch);
    let report = with_progress(&captures, &watch, || {
        replay::replay(&subjects, &captures, &settings, (sinks, &watch))
    })?;
    remarks(&report);
    if args.output.format != ReplayFormat::Jsonl {
        render::to_stdout(|out| render::replay::write(&report, args.output.format, style, out));
    }
    files.write(|format, out| render::replay::write(&report, format, Style::plain(), out))?;
    Ok(exit::of_verdict(report.verdict()))
}

fn merge(
    (shards, fail_on): (&[PathBuf], Option<FailOn>),
    output: &OutputArgs<ReplayFormat>,
    style: Style,
) -> Result<u8> {
    let (rows, others) = split(&output.reports);
    if output.format == ReplayFormat::Jsonl || !rows.is_empty() {
        return Err(Error::Usage(
            "jsonl has a line for each transaction, which reports do not hold; concatenate the shards' own".to_owned(),
        )
        .into());
    }
    let files = ReportFiles::open(&others)?;
    let mut report = replay::merge(shards)?;
    report.fail_on = fail_on.unwrap_or(report.fail_on);
    render::to_stdout(|out| render::replay::write(&report, output.format, style, out));
    files.write(|format, out| render::replay::write(&report, format, Style::plain(), out))?;
    Ok(exit::of_verdict(report.verdict()))
}

type Targets = Vec<(ReplayFormat, PathBuf)>;

/// Rows are written as they come, the other reports at the end.
fn split(reports: &[(ReplayFormat, PathBuf)]) -> (Targets, Targets) {
    reports
        .iter()
        .cloned()
        .partition(|(format, _)| *format == ReplayFormat::Jsonl)
}

impl ReplayArgs {
    fn settings(&self) -> Result<ReplaySettings, Error> {
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
            if fixtures.expect == Expect::Old && self.baseline.is_none() {
                return Err(Error::Usage("--expect old needs a --baseline".to_owned()));
            }
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
            decode: self.input.decode(),
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
            max_errors: self.input.max_errors,
            fixtures,
            redaction: match (&self.save.redact_key, self.save.keep_secrets) {
                (_, true) => Redaction::Keep,
                (Some(key), false) => Redaction::Key(key.clone().into_bytes()),
                (None, false) => Redaction::FromCapture,
            },
        })
    }

    fn subject(&self, engine: &Arc<Engine>, path: &Path) -> Result<Subject, Error> {
        let module = Arc::new(Module::load(engine, path, &self.guest.load())?);
        let subject = match module.abi {
            Abi::Agent => {
                let settings = self.guest.agent(1, DEFAULT_QUEUE_WAIT, self.fail_open);
                Subject::Agent(Box::new(Agent::new(module, settings)))
            }
            Abi::Hook if self.fail_open => {
                return Err(Error::Usage(
                    "--fail-open: a hook has no failure policy: its host gets a result that is not ok".to_owned(),
                ));
            }
            Abi::Hook => {
                let settings = self.guest.pool(Abi::Hook, 1, DEFAULT_QUEUE_WAIT);
                Subject::Plugin(Box::new(Plugin::new(module, settings)))
            }
        };
        subject.start()?;
        Ok(subject)
    }

    /// Where rows go: standard output or one file.
    fn rows(&self, files: &Targets) -> Result<Option<Box<dyn Write + Send>>, Error> {
        if self.output.format == ReplayFormat::Jsonl {
            return Ok(Some(Box::new(BufWriter::new(io::stdout()))));
        }
        match files.as_slice() {
            [] => Ok(None),
            [(_, path)] => {
                let file = std::fs::File::create(path).map_err(|error| {
                    Error::Usage(format!(
                        "--report: cannot write {}: {error}",
                        path.display()
                    ))
                })?;
                Ok(Some(Box::new(BufWriter::new(file))))
            }
            _ => Err(Error::Usage(
                "--report jsonl=PATH can be given once".to_owned(),
            )),
        }
    }
}

/// A file that only its owner may read: it holds traffic.
fn private(path: &PathBuf) -> Result<Box<dyn Write + Send>, Error> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|source| Error::Write {
        path: path.clone(),
        source,
    })?;
    Ok(Box::new(BufWriter::new(file)))
}

/// What a person should know besides the report.
fn remarks(report: &ReplayReport) {
    if report.interrupted {
        render::to_stderr(&format!(
            "warning: interrupted after {} transactions; the report is about these",
            report.records.transactions
        ));
    }
    if report.records.transactions == 0 {
        render::to_stderr("warning: nothing was checked: no transaction was replayed");
    }
}

/// The first signal ends the replay cleanly, a second one at once.
fn on_signal(watch: &Arc<Watch>) {
    let watch = Arc::clone(watch);
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                watch.stop.store(true, Ordering::Relaxed);
                render::to_stderr("interrupted; finishing what was begun, again to end at once");
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                end_at_once();
            }
        });
    };
    // Without the thread a signal ends the process, as it would anyway.
    let _ = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait);
}

#[expect(
    clippy::exit,
    reason = "the user asked twice; 130 is what a shell shows for it"
)]
fn end_at_once() {
    std::process::exit(130);
}

/// Shows how far the replay is while `work` goes on.
fn with_progress<T>(captures: &[Capture], watch: &Watch, work: impl FnOnce() -> T) -> T {
    let total: Option<u64> = captures.iter().map(|capture| capture.size_bytes).sum();
    // It hides itself where standard error is no terminal.
    let bar = match total {
        Some(total) => ProgressBar::new(total).with_style(style(
            "{bar:30} {percent:>3} %  {bytes}/{total_bytes}  {msg}  {eta} left",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}  {elapsed}")),
    };
    let done = AtomicBool::new(false);
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (bar, done) = (&bar, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if ended.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    show(bar, watch);
                }
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        drop(end);
        bar.finish_and_clear();
        result
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people, of counts far below 2^52"
)]
fn show(bar: &ProgressBar, watch: &Watch) {
    bar.set_position(watch.read_bytes.load(Ordering::Relaxed));
    let transactions = watch.transactions.load(Ordering::Relaxed);
    let seconds = bar.elapsed().as_secs_f64().max(0.001);
    bar.set_message(format!(
        "{} transactions, {:.0}/s",
        render::human::count(transactions),
        transactions as f64 / seconds
    ));
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn speed(text: &str) -> Result<f64, String> {
    text.strip_suffix('x')
        .unwrap_or(text)
        .parse::<f64>()
        .ok()
        .filter(|factor| (0.001..=100_000.0).contains(factor))
        .ok_or_else(|| "expected a factor such as 1x or 10x".to_owned())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "expected a share above 0 and up to 1, such as 0.1".to_owned())
}

fn field(text: &str) -> Result<(String, String), String> {
    let (what, key) = text
        .split_once('=')
        .filter(|(_, key)| !key.is_empty())
        .ok_or("expected WHAT=KEY, such as uri=request.path")?;
    if FieldMap::is_known(what) {
        Ok((what.to_owned(), key.to_owned()))
    } else {
        Err("expected method, uri, query, request, client_ip, status, time, id or header.NAME before the =".to_owned())
    }
}

fn matching(text: &str) -> Result<Match, String> {
    let (what, value) = text
        .split_once('=')
        .ok_or("expected path=REGEX, method=NAME or status=CODE")?;
    match what {
        "path" => Regex::new(value)
            .map(Match::Path)
            .map_err(|error| format!("not a regular expression: {error}")),
        "method" => Ok(Match::Method(value.to_owned())),
        "status" => statuses(value)
            .map(|(from, to)| Match::Status(from, to))
            .ok_or_else(|| "expected a status such as 404, 4xx or 400-499".to_owned()),
        _ => Err("expected path, method or status before the =".to_owned()),
    }
}

fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (u16::from_str(from).ok()?, u16::from_str(to).ok()?);
    (100 <= from && from <= to && to <= 999).then_some((from, to))
}

fn shard(text: &str) -> Result<Shard, String> {
    let refuse = || format!("expected I/N with I from 1 to N and N up to {LANES}, such as 1/4");
    let (index, of) = text.split_once('/').ok_or_else(refuse)?;
    let from_job = (index == "auto").then(job_index).transpose()?;
    let index = from_job.as_deref().unwrap_or(index);
    let (index, of): (u32, u32) = (
        index.parse().map_err(|_no_number| refuse())?,
        of.parse().map_err(|_no_number| refuse())?,
    );
    if (1..=LANES).contains(&of) && (1..=of).contains(&index) {
        Ok(Shard { index, of })
    } else {
        Err(refuse())
    }
}

/// The part's number, from 1, where Kubernetes counts from 0.
fn job_index() -> Result<String, String> {
    let index = std::env::var("JOB_COMPLETION_INDEX").map_err(|_unset| {
        "auto needs JOB_COMPLETION_INDEX, which an Indexed Job sets".to_owned()
    })?;
    let index: u32 = index.parse().map_err(|_no_number| {
        format!("expected JOB_COMPLETION_INDEX to be a number, found {index:?}")
    })?;
    Ok((u64::from(index) + 1).to_string())
}

fn pointer(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.len() > 1 {
        Ok(text.to_owned())
    } else {
        Err("expected a JSON pointer such as /audit/tags or /decision/block/body".to_owned())
    }
}

fn fail_on(text: &str) -> Result<FailOn, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(FailOn::Percent)
            .ok_or_else(|| "expected a share from 0% to 100%".to_owned());
    }
    match text {
        "any" => Ok(FailOn::Any),
        "decision" => Ok(FailOn::Decision),
        "fault" => Ok(FailOn::Fault),
        "never" => Ok(FailOn::Never),
        _ => Err("expected any, decision, fault, never or a share such as 0.5%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_shards_read_their_forms() {
        assert_eq!(statuses("4xx"), Some((400, 499)));
        assert_eq!(statuses("404"), Some((404, 404)));
        assert_eq!(statuses("200-299"), Some((200, 299)));
        for bad in ["", "xx", "0xx", "40", "500-400", "1000"] {
            assert_eq!(statuses(bad), None, "{bad}");
        }
        assert_eq!(shard("2/4"), Ok(Shard { index: 2, of: 4 }));
        for bad in ["0/4", "5/4", "1/0", "1", "1/241", "a/b"] {
            assert!(shard(bad).is_err(), "{bad}");
        }
        assert_eq!(fail_on("0.5%"), Ok(FailOn::Percent(0.5)));
        assert!(fail_on("101%").is_err() && fail_on("sometimes").is_err());
    }
}
