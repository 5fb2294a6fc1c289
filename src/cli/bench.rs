//! `bench`: arguments to settings, the operation, its report to a renderer.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::abi::Abi;
use crate::client::{Address, Peer, Process, Protocol, Target};
use crate::error::Error;
use crate::files::{Destination, Links};
use crate::limits::{DEFAULT_QUEUE_WAIT, MAX_POOL_SIZE};
use crate::ops::bench::{
    self, Against, Amount, Baseline, BenchReport, BenchSettings, BenchTask, Benched, InputSettings,
    Inputs, MAX_CASES, Profile, Progress, Running, Thresholds,
};
use crate::report::Report as _;
use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};

use super::render::human::Style;
use super::render::{self, OutputArgs, ReportFiles};
use super::replay::InputArgs;
use super::{GuestArgs, TimeArg, exit};

/// Rows under load: more would take longer than anybody waits.
const MAX_LOADS: usize = 400;
const MAX_CONCURRENCY: i64 = 1024;
const MAX_RATE: i64 = 1_000_000;
const MAX_REQUESTS: i64 = 1_000_000_000;

const EXAMPLES: &str = "Examples:
  wasm-agent bench rules.wasm
  wasm-agent bench rules.wasm fixtures/ --report html=bench.html
  wasm-agent bench rules.wasm access.log.gz traffic.har --sample 50
  wasm-agent bench rules.wasm --pool-size 1,2,4,8 --concurrency 1,4,16,64
  wasm-agent bench rules.wasm --pool-size 2,4 --rate 1000,5000,20000
  wasm-agent bench rules.wasm fixtures/ --save main.json
  wasm-agent bench rules.wasm fixtures/ --compare main.json
  wasm-agent bench old.wasm new.wasm fixtures/ --threshold 5% --threshold fuel=1%
  wasm-agent bench fixtures/ --target unix:/run/wasm-agent/agent.sock --pid 4711

With two modules, or with --compare, only what the gate needs is measured. Fuel,
memory and size are compared exactly, time by an interval of 99 %. Captures are
recognised by their content, as in replay; all other files are fixtures.";

/// Measure what a module costs, how many instances it needs, and what changed
///
/// Without fixtures and captures the module is called with sample events. From
/// captures, --sample transactions are picked at random.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::BENCH_HELP))]
pub(crate) struct BenchArgs {
    /// The module, .wasm or .wat, or two to compare; then fixtures and captures: files, folders or patterns
    #[arg(
        value_name = "MODULE|FIXTURE|CAPTURE",
        required_unless_present = "target"
    )]
    inputs: Vec<PathBuf>,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    measuring: MeasuringArgs,

    #[command(flatten)]
    captures: InputArgs,

    /// Number of transactions to pick from all captures
    #[arg(long, value_name = "N", help_heading = "Captures", default_value_t = 25, value_parser = clap::value_parser!(u8).range(1..=MAX_CASES as i64))]
    sample: u8,

    #[command(flatten)]
    gate: GateArgs,

    #[command(flatten)]
    guest: GuestArgs,

    #[command(flatten)]
    output: OutputArgs<BenchReport>,
}

/// What is measured, and for how long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
struct MeasuringArgs {
    /// How long each row is measured
    #[arg(short, long, value_name = "TIME", default_value_t = TimeArg(Duration::from_millis(500)), conflicts_with = "requests")]
    duration: TimeArg,

    /// Calls for each row, instead of a duration
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_REQUESTS as u64))]
    requests: Option<u64>,

    /// Warm-up before each row
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(Duration::from_millis(100)))]
    warm_up: TimeArg,

    /// Pool sizes to measure under load [default: 1, the number of cores, and twice that]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=MAX_POOL_SIZE as i64))]
    pool_size: Vec<u16>,

    /// Numbers of concurrent callers [default: 1, and 2 and 8 times the number of cores]
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=MAX_CONCURRENCY))]
    concurrency: Vec<u16>,

    /// Events per second, sent by a fixed schedule [default: each caller sends as soon as it is answered]
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=MAX_RATE))]
    rate: Vec<u32>,

    /// Write a profile of the guest: a flame graph if the name ends in .svg, else a file for the Firefox Profiler; repeatable
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "target"])]
    profile: Vec<PathBuf>,

    /// 99th percentile of response times that the recommended pool size must keep
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(Duration::from_millis(2)))]
    p99: TimeArg,
}

/// A running agent instead of a module.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running agent")]
struct TargetArgs {
    /// Measure a running agent: unix:/path/agent.sock or grpc://127.0.0.1:50051
    #[arg(long, value_name = "ADDRESS", conflicts_with = "pool_size")]
    target: Option<Address>,

    /// The protocol on a Unix socket
    #[arg(long, value_parser = socket_protocol(), default_value = "v2", requires = "target")]
    protocol: Protocol,

    /// Connections that the callers share; with v1 or --rate each caller has its own
    #[arg(long, value_name = "N", default_value_t = 4, requires = "target", value_parser = clap::value_parser!(u16).range(1..=MAX_CONCURRENCY))]
    connections: u16,

    /// Process id of the agent, to measure its CPU time and memory
    #[arg(long, value_name = "PID", requires = "target", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
}

/// Reads the protocol on a Unix socket.
fn socket_protocol() -> impl TypedValueParser<Value = Protocol> {
    let values = [
        (Protocol::V1, "One event at a time on each connection"),
        (Protocol::V2, "Any number in flight"),
    ];
    let named = values.map(|(protocol, help)| PossibleValue::new(protocol.name()).help(help));
    PossibleValuesParser::new(named).map(|name| Protocol::from_name(&name).unwrap_or(Protocol::V2))
}

/// What it is compared with, and what counts as worse.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gate")]
struct GateArgs {
    /// Save the results as a baseline; a symbolic link is followed
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Compare with a baseline
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,

    /// Smallest relative slowdown that is a regression: 5% (of time), or time=, fuel=, memory=, size= with a percentage; repeatable [default: time=5% fuel=0% memory=0% size=5%]
    #[arg(long, value_name = "PERCENT")]
    threshold: Vec<Threshold>,

    /// Ignore slowdowns smaller than this
    #[arg(long, value_name = "TIME", value_parser = short_time, default_value = "1us")]
    min_threshold: Duration,

    /// Seed for the confidence intervals and for --sample
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Refuses, before anything is measured, a place where no baseline can be.
fn savable(path: &Path) -> Result<(), Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let why = if path.exists() && !path.is_file() {
        "it is not a regular file"
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        "there is no such folder"
    } else {
        return Destination::open(path, Links::Followed)
            .map(drop)
            .map_err(|error| render::unwritable("--save", path, &error));
    };
    let error = std::io::Error::other(why);
    Err(render::unwritable("--save", path, &error))
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &BenchArgs, style: Style) -> Result<u8> {
    let settings = args.settings()?;
    let (modules, inputs) = args.split()?;
    let against = args.against(&modules)?;
    let read: Vec<&Path> = modules.iter().chain(&inputs).map(AsRef::as_ref).collect();
    if let Some(path) = &args.gate.save {
        render::keep_inputs("--save", path, &read)?;
        savable(path)?;
    }
    let files = ReportFiles::open(&args.output.reports, &read)?;
    let inputs = bench::read_inputs(&inputs, &args.input(&settings))?;
    let bar = bar();
    let watcher = |progress: &Progress<'_>| show(&bar, progress);
    let task = BenchTask {
        settings: &settings,
        against: against.as_ref(),
        watcher: &watcher,
    };
    let benched = match (args.target.running(), modules.last()) {
        (Some(running), _) => {
            let names = settings.policy.header_names;
            let inputs = inputs.unwrap_or_else(|| Inputs::requests(names));
            bench::bench_target(&running, inputs, &task)
        }
        // Of two modules the second is judged.
        (None, Some(judged)) => bench::bench(judged, inputs, &task),
        (None, None) => Err(Error::Usage("expected a module".to_owned())),
    };
    bar.finish_and_clear();
    let Benched { report, baseline } = benched?;
    render::warn(report.unused_flag.as_ref());
    if let (Some(path), Some(baseline)) = (&args.gate.save, &baseline) {
        baseline.write(path)?;
        render::to_stderr(&format!("saved {}", render::shown(path)));
    }
    if let Some(profile) = &report.profile {
        for path in &args.measuring.profile {
            write_profile(profile, path)?;
        }
    }
    if report.cases.is_empty() && report.failure.is_none() {
        render::to_stderr(
            "warning: nothing was measured: the module has a handler for none of the events",
        );
    }
    render::report(&report, (args.output.format, files), style)?;
    Ok(exit::of_verdict(report.verdict()))
}

/// As a flame graph or for Firefox, by the file's name.
fn write_profile(profile: &Profile, path: &Path) -> Result<(), Error> {
    let is_svg = path.extension().is_some_and(|extension| extension == "svg");
    let render = |out: &mut dyn std::io::Write| {
        if is_svg {
            render::bench::profile::flame_file(profile, out)
        } else {
            render::bench::profile::firefox(profile, out)
        }
    };
    Destination::open(path, Links::Followed)
        .and_then(|file| file.write(render))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })?;
    let how = if is_svg {
        "open it in a browser"
    } else {
        "open it in profiler.firefox.com"
    };
    render::to_stderr(&format!("wrote {}: {how}", render::shown(path)));
    Ok(())
}

impl TargetArgs {
    fn running(&self) -> Option<Running> {
        let address = self.target.clone()?;
        let protocol = match address {
            Address::Grpc(_) => Protocol::Grpc,
            Address::Unix(_) => self.protocol,
        };
        Some(Running {
            target: Target {
                address,
                protocol,
                peer: Peer::Agent,
            },
            connections: self.connections.into(),
            process: self.pid.map(Process),
        })
    }
}

impl BenchArgs {
    fn settings(&self) -> Result<BenchSettings, Error> {
        let cores = bench::cores();
        let measuring = &self.measuring;
        let or = |given: &[u16], default: &[usize]| {
            let mut sizes: Vec<usize> = given.iter().map(|size| usize::from(*size)).collect();
            if sizes.is_empty() {
                sizes = default.to_vec();
            }
            sizes.sort_unstable();
            sizes.dedup();
            sizes
        };
        let pool_sizes = or(
            &measuring.pool_size,
            &[1, cores, cores * 2].map(|size| size.min(MAX_POOL_SIZE)),
        );
        let concurrency = if measuring.rate.is_empty() {
            or(&measuring.concurrency, &[1, cores * 2, cores * 8])
        } else {
            or(&measuring.concurrency, &[cores * 32])
        };
        let loads = pool_sizes.len() * concurrency.len() * measuring.rate.len().max(1);
        if loads > MAX_LOADS {
            return Err(Error::Usage(format!(
                "expected at most {MAX_LOADS} combinations of --pool-size, --concurrency and --rate, found {loads}"
            )));
        }
        let amount = self.amount();
        for rate in &measuring.rate {
            let due = match amount {
                Amount::Time(time) => time.as_secs_f64() * f64::from(*rate),
                Amount::Calls(_) => 100.0,
            };
            if due < 10.0 {
                return Err(Error::Usage(format!(
                    "--rate {rate}: fewer than 10 events are due within --duration {}; measure for longer",
                    measuring.duration
                )));
            }
        }
        let mut thresholds = Thresholds {
            min_time_ns: self.gate.min_threshold.as_secs_f64() * 1e9,
            ..Thresholds::default()
        };
        for threshold in &self.gate.threshold {
            *match threshold.of {
                Of::Time => &mut thresholds.time,
                Of::Fuel => &mut thresholds.fuel,
                Of::Memory => &mut thresholds.memory,
                Of::Size => &mut thresholds.size,
            } = threshold.share;
        }
        Ok(BenchSettings {
            load: self.guest.load(),
            policy: self.guest.agent(1, DEFAULT_QUEUE_WAIT, false),
            hook_pool: self.guest.pool(Abi::Hook, 1, DEFAULT_QUEUE_WAIT),
            amount,
            warm_up: measuring.warm_up.0,
            pool_sizes,
            concurrency,
            rates: measuring.rate.iter().copied().map(f64::from).collect(),
            p99: measuring.p99.0,
            thresholds,
            seed: self.gate.seed,
            keep: self.gate.save.is_some(),
            profile: !measuring.profile.is_empty(),
        })
    }

    fn input(&self, settings: &BenchSettings) -> InputSettings {
        InputSettings {
            format: self.captures.format(),
            max_record: self.captures.max_record(),
            decode: self.captures.decode(),
            strict: self.captures.strict,
            max_errors: self.captures.max_errors,
            sample: self.sample.into(),
            seed: self.gate.seed,
            header_names: settings.policy.header_names,
        }
    }

    /// The modules, one or two, and what they are called with. With a target
    /// there are none.
    fn split(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        if let [before, ..] = self.measuring.profile.as_slice()
            && self.inputs.len() > 1
            && self.inputs[1..].iter().any(|path| Self::is_module(path))
        {
            return Err(Error::Usage(format!(
                "--profile {}: expected one module to watch, found two to compare",
                render::shown(before)
            )));
        }
        if self.target.target.is_some() {
            return Ok((Vec::new(), self.inputs.clone()));
        }
        let mut modules: Vec<PathBuf> = self.inputs.iter().take(1).cloned().collect();
        let (more, inputs): (Vec<PathBuf>, Vec<PathBuf>) = self
            .inputs
            .iter()
            .skip(1)
            .cloned()
            .partition(|path| Self::is_module(path));
        modules.extend(more);
        if modules.len() > 2 {
            return Err(Error::Usage(format!(
                "expected one module, or two to compare, found {}",
                modules.len()
            )));
        }
        Ok((modules, inputs))
    }

    fn is_module(path: &Path) -> bool {
        path.extension()
            .is_some_and(|extension| extension == "wasm" || extension == "wat")
    }

    fn amount(&self) -> Amount {
        self.measuring
            .requests
            .map_or(Amount::Time(self.measuring.duration.0), Amount::Calls)
    }

    fn against(&self, modules: &[PathBuf]) -> Result<Option<Against>, Error> {
        match (modules, &self.gate.compare) {
            ([_, _], Some(_)) => Err(Error::Usage(
                "--compare and a second module: expected one of the two".to_owned(),
            )),
            ([before, _], None) => Ok(Some(Against::Module(before.clone()))),
            (_, Some(path)) => {
                let baseline = Baseline::read(path)?;
                Ok(Some(Against::Baseline(path.clone(), Box::new(baseline))))
            }
            (_, None) => Ok(None),
        }
    }
}

/// Seen on a terminal and nowhere else.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {prefix} left: {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar
}

fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    bar.set_length(millis(progress.total).max(1));
    bar.set_position(millis(progress.done));
    let left = progress.total.saturating_sub(progress.done);
    bar.set_prefix(format!("{} s", left.as_secs_f64().ceil()));
    bar.set_message(crate::fault::printable(progress.what, 60));
}

/// What a threshold is of.
#[derive(Debug, Clone, Copy)]
enum Of {
    Time,
    Fuel,
    Memory,
    Size,
}

/// A share of something, written `5%` or `fuel=5%`.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    of: Of,
    share: f64,
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (of, percent) = match text.split_once('=') {
            None => (Of::Time, text),
            Some(("time", percent)) => (Of::Time, percent),
            Some(("fuel", percent)) => (Of::Fuel, percent),
            Some(("memory", percent)) => (Of::Memory, percent),
            Some(("size", percent)) => (Of::Size, percent),
            Some((other, _)) => {
                return Err(format!(
                    "expected time, fuel, memory or size before the =, found {other:?}"
                ));
            }
        };
        percent
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .filter(|number| (0.0..=1000.0).contains(number))
            .map(|number| Self {
                of,
                share: number / 100.0,
            })
            .ok_or_else(|| "expected a percentage of 0% to 1000%, such as 5%".to_owned())
    }
}

/// A time of nanoseconds to seconds.
fn short_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("expected a duration such as 1us: {error}"))?;
    if time <= Duration::from_secs(60) {
        Ok(time)
    } else {
        Err("expected 0s to 60s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_name_what_they_are_of() {
        let read = |text: &str| {
            text.parse::<Threshold>()
                .map(|threshold| (format!("{:?}", threshold.of), threshold.share))
        };
        assert_eq!(read("5%"), Ok(("Time".to_owned(), 0.05)));
        assert_eq!(read("fuel=0.5%"), Ok(("Fuel".to_owned(), 0.005)));
        for bad in ["5", "-1%", "x%", "speed=5%", "", "NaN%", "inf%"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
