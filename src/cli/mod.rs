//! The command line: arguments to settings, reports to bytes.
//!
//! One file a command, each of them `Args` and `exec`; nothing here decides
//! anything about a guest.

#![expect(
    clippy::doc_markdown,
    reason = "doc comments here are help texts, read in a terminal"
)]

mod bench;
mod document;
pub(crate) mod exit;
pub(crate) mod logging;
mod new;
mod redact_key;
pub(crate) mod render;
mod replay;
mod run;
mod serve;
mod systemd;
mod validate;

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::abi::{Abi, AbiChoice};
use crate::error::Error;
use crate::guest::convention::json_buffer::answer::{self, AnswerPolicy, FRAMING_HEADERS};
use crate::guest::module::{LoadSettings, Module};
use crate::limits::{
    DEFAULT_MAX_ANSWER_BYTES, DEFAULT_MAX_COMPILE_TIME, DEFAULT_MAX_MODULE_BYTES,
    DEFAULT_QUEUE_WAIT, DEFAULT_TIMEOUT, DeadlineClock, Isolation, LimitChoice, Limits, LoadLimits,
    Wasi,
};
use crate::policy::decision::FailurePolicy;
use crate::policy::pool::PoolSettings;
use crate::policy::{BodyMode, BodySettings, DEFAULT_MAX_BODY_BYTES, Policy, PolicySettings};
use crate::question::HeaderNames;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The `wasm-agent` program: parses, logs, dispatches, exits.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            render::usage(&error);
            return ExitCode::from(if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            });
        }
    };
    outlive_file_size_limits();
    let _flush = logging::start(&cli);
    match exec(&cli) {
        Ok(exit::OK) if render::is_output_lost() => ExitCode::from(exit::UNREADABLE),
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            render::to_stderr(&render::human::error_chain(&error));
            ExitCode::from(exit::of_error(&error))
        }
    }
}

/// A write beyond a limit on the size of files (`ulimit -f`) is to fail with an
/// error that names the file. The system ends the process for it instead, unless
/// the process takes the signal.
#[cfg(unix)]
fn outlive_file_size_limits() {
    use tokio::signal::unix::{SignalKind, signal};

    /// SIGXFSZ, of Linux and macOS on all machines that the engine runs on.
    const FILE_SIZE_LIMIT: i32 = 25;
    // Taken once, it stays taken; nobody has to listen. Where that fails, all is
    // as without it.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
    {
        let _on_it = runtime.enter();
        let _ = signal(SignalKind::from_raw(FILE_SIZE_LIMIT));
    }
}

#[cfg(not(unix))]
const fn outlive_file_size_limits() {}

/// Test and operate the WebAssembly modules that decide about HTTP traffic
/// behind a Sentinel or Zentinel reverse proxy.
#[derive(Debug, Parser)]
#[command(name = "wasm-agent", version, styles = STYLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// When to colour output; NO_COLOR and CLICOLOR_FORCE are respected
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,

    /// More log lines on standard error; -vv for all (RUST_LOG overrides)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When to colour output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Validate(validate::ValidateArgs),
    New(new::NewArgs),
    Run(run::RunArgs),
    Replay(Box<replay::ReplayArgs>),
    Bench(Box<bench::BenchArgs>),
    /// Answer the events of a proxy on a Unix socket, over gRPC or on both
    Serve(Box<serve::ServeArgs>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(cli: &Cli) -> anyhow::Result<u8> {
    let style = render::human::Style::of_stdout(cli.color);
    match &cli.command {
        Command::New(args) => new::exec(args, style),
        Command::Validate(args) => validate::exec(args, style),
        Command::Run(args) => run::exec(args, style),
        Command::Replay(args) => replay::exec(args, style),
        Command::Bench(args) => bench::exec(args, style),
        Command::Serve(args) => serve::exec(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(
                *shell,
                &mut <Cli as clap::CommandFactory>::command(),
                "wasm-agent",
                &mut script,
            );
            render::to_stdout(|out| out.write_all(&script));
            Ok(exit::OK)
        }
    }
}

/// What a guest may use and how it is called; the same flags everywhere.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Guest")]
pub(crate) struct GuestArgs {
    /// Time limit for one call: alloc, handler and dealloc together; serve: wall clock;
    /// elsewhere: processor time
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_TIMEOUT))]
    timeout: TimeArg,

    /// Instruction limit for one call [default: no limit; hook ABI: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fuel: Option<u64>,

    /// Memory limit of one instance [default: 64MiB; hook ABI: 16MiB]
    #[arg(long, value_name = "SIZE", value_parser = size_of_a_page_or_more)]
    max_memory: Option<ByteSize>,

    /// Largest size of one answer
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_ANSWER_BYTES))]
    max_answer: ByteSize,

    /// Largest size of a module file
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_MODULE_BYTES))]
    max_module: ByteSize,

    /// Time limit for compiling a module
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_MAX_COMPILE_TIME))]
    max_compile_time: TimeArg,

    /// How long an instance is used: pooled (many calls), fresh (one), recycle=N
    /// [default: pooled; hook ABI: fresh]
    #[arg(long, value_name = "MODE", value_parser = str::parse::<Isolation>)]
    isolation: Option<Isolation>,

    /// Clocks and random bytes for modules that import WASI [default: fixed; serve: real; hook ABI: none]
    #[arg(long, value_enum, value_name = "WHICH")]
    wasi: Option<WasiArg>,

    /// Spelling of header names for the module; proxies up to zentinel-proxy 0.6.54 send lower case
    #[arg(long, value_enum, default_value_t = HeaderNamesArg::Lower)]
    header_names: HeaderNamesArg,

    /// How the module gets bodies; one that exports the global whole_body says it itself [default: chunks]
    #[arg(long, value_enum, value_name = "HOW")]
    body: Option<BodyArg>,

    /// Largest size of a body that is collected to be given whole; a longer one is a fault
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_BODY_BYTES))]
    max_body: ByteSize,

    /// Let the module set or remove a framing header (host, content-length, …); repeatable
    #[arg(long, value_name = "NAME", value_parser = framing_header)]
    allow_header: Vec<String>,

    /// The ABI of the module; auto decides by its exports
    #[arg(long, value_enum, default_value_t = AbiArg::Auto)]
    abi: AbiArg,

    /// A peer waits for the answers, so the wall clock counts, and nothing is to repeat.
    #[arg(skip)]
    is_serving: bool,
}

impl GuestArgs {
    /// What a call to a module of this ABI may use.
    pub(crate) fn limits(&self, abi: Abi) -> Limits {
        self.limit_choice().over(abi.limits())
    }

    fn limit_choice(&self) -> LimitChoice {
        LimitChoice {
            timeout: Some(self.timeout.0),
            clock: Some(if self.is_serving {
                DeadlineClock::Wall
            } else {
                DeadlineClock::Processor
            }),
            fuel: self.fuel,
            max_memory_bytes: self.max_memory.map(|size| size.as_u64()),
            max_answer_bytes: Some(self.max_answer.as_u64()),
            wasi: self.wasi.map(WasiArg::wasi),
            is_repeatable: !self.is_serving,
        }
    }

    pub(crate) fn load(&self) -> LoadSettings {
        LoadSettings {
            load: LoadLimits {
                max_module_bytes: self.max_module.as_u64(),
                max_compile_time: self.max_compile_time.0,
            },
            limits: self.limit_choice(),
            abi: self.abi.choice(),
        }
    }

    /// The same in production: clocks and random bytes are the host's, and the
    /// deadline is by the wall clock.
    pub(crate) fn serving(&self) -> Self {
        Self {
            is_serving: true,
            ..self.clone()
        }
    }

    /// Whether modules are held to this ABI and no other.
    pub(crate) fn is_for(&self, abi: Abi) -> bool {
        self.abi.choice() == AbiChoice::Only(abi)
    }

    /// What was asked for; the ABI's default where nothing was.
    pub(crate) const fn isolation(&self) -> Option<Isolation> {
        self.isolation
    }

    /// How instances of a module of this ABI are kept.
    pub(crate) fn pool(&self, abi: Abi, size: usize, wait: Duration) -> PoolSettings {
        PoolSettings {
            size,
            wait,
            isolation: self.isolation.unwrap_or(abi.isolation()),
            limits: self.limits(abi),
        }
    }

    pub(crate) const fn header_names(&self) -> HeaderNames {
        match self.header_names {
            HeaderNamesArg::Lower => HeaderNames::Lower,
            HeaderNamesArg::Canonical => HeaderNames::Canonical,
        }
    }

    /// How a policy answers: the same locally and in production.
    pub(crate) fn agent(
        &self,
        pool_size: usize,
        wait: Duration,
        fail_open: bool,
    ) -> PolicySettings {
        PolicySettings {
            pool: self.pool(Abi::Agent, pool_size, wait),
            header_names: self.header_names(),
            failure_policy: if fail_open {
                FailurePolicy::Open
            } else {
                FailurePolicy::Closed
            },
            answer_policy: self.answer_policy(),
            bodies: self.bodies(),
        }
    }

    pub(crate) const fn bodies(&self) -> BodySettings {
        BodySettings {
            mode: match self.body {
                None => None,
                Some(BodyArg::Chunks) => Some(BodyMode::Chunks),
                Some(BodyArg::Whole) => Some(BodyMode::Whole),
            },
            max_bytes: self.max_body.as_u64(),
        }
    }

    /// A policy of this module, with its first instance.
    pub(crate) fn policy(
        &self,
        module: Arc<Module>,
        pool_size: usize,
        fail_open: bool,
    ) -> Result<Policy, Error> {
        if module.abi == Abi::Hook && fail_open {
            let why = "a hook has no failure policy: its host gets a result that is not ok";
            return Err(Error::Usage(format!("--fail-open: {why}")));
        }
        let settings = PolicySettings {
            pool: self.pool(module.abi, pool_size, DEFAULT_QUEUE_WAIT),
            ..self.agent(pool_size, DEFAULT_QUEUE_WAIT, fail_open)
        };
        render::warn(settings.bodies.unused(&module));
        let policy = Policy::new(module, settings);
        policy.start()?;
        Ok(policy)
    }

    pub(crate) fn answer_policy(&self) -> AnswerPolicy {
        AnswerPolicy {
            allowed_headers: self.allow_header.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WasiArg {
    /// The time of the fixture or record, else 2024-01-01, and the same random bytes at every call
    Fixed,
    /// The host's clock and random bytes
    Real,
    /// A module that imports WASI is refused
    None,
}

impl WasiArg {
    const fn wasi(self) -> Wasi {
        match self {
            Self::Fixed => Wasi::Fixed,
            Self::Real => Wasi::Real,
            Self::None => Wasi::None,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BodyArg {
    /// Each chunk as the proxy sends it, as the published agents do
    Chunks,
    /// The whole body at once, when its last chunk has come
    Whole,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HeaderNamesArg {
    /// user-agent
    Lower,
    /// User-Agent
    Canonical,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AbiArg {
    /// The one whose handlers the module exports
    Auto,
    /// on_request_headers and the handlers of other events
    Agent,
    /// before_hook and after_hook
    Hook,
}

impl AbiArg {
    const fn choice(self) -> AbiChoice {
        match self {
            Self::Auto => AbiChoice::Auto,
            Self::Agent => AbiChoice::Only(Abi::Agent),
            Self::Hook => AbiChoice::Only(Abi::Hook),
        }
    }
}

/// A wall clock limit, 1 ms to 1 h, written `50ms` or `2s`.
#[derive(Debug, Clone, Copy)]
struct TimeArg(Duration);

impl fmt::Display for TimeArg {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl FromStr for TimeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("expected a duration such as 50ms or 2s: {error}"))?;
        if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&duration) {
            Ok(Self(duration))
        } else {
            Err("expected 1ms to 1h".to_owned())
        }
    }
}

fn size_of_a_page_or_more(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text
        .parse()
        .map_err(|error| format!("expected a size such as 64MiB: {error}"))?;
    if (ByteSize::kib(64)..=ByteSize::gib(4)).contains(&size) {
        Ok(size)
    } else {
        Err("expected 64KiB to 4GiB".to_owned())
    }
}

/// Others need no leave.
fn framing_header(name: &str) -> Result<String, String> {
    answer::framing_header(name).ok_or_else(|| {
        let known = FRAMING_HEADERS.join(", ");
        format!(
            "modules may set and remove every other header; the flag is for these: {known} and each name that begins with proxy-"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn isolation_reads_its_three_forms() {
        assert_eq!("recycle=3".parse(), Ok(Isolation::Recycle(3)));
        assert_eq!("fresh".parse(), Ok(Isolation::Fresh));
        for bad in ["recycle", "recycle=0", "recycle=x", "Fresh ", ""] {
            assert!(bad.parse::<Isolation>().is_err(), "{bad}");
        }
    }
}
