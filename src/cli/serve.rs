//! `serve`: arguments to settings, the agent started, its socket bound, the
//! signals obeyed.

mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::abi::Abi;
use crate::error::Error;
use crate::limits::{DEFAULT_POOL_SIZE, DEFAULT_QUEUE_WAIT, MAX_POOL_SIZE};
use crate::policy::Policy;
use crate::protocol::proxy::ProxyQuirks;
use crate::protocol::wire::response::RequestBodyText;
use crate::server::admin::serve_admin;
use crate::server::bind::{BindError, BoundSocket, DEFAULT_MODE, SocketMode, listen_at};
use crate::server::exchanges::ExchangeLimits;
use crate::server::loader::Loader;
use crate::server::pushed::Key;
use crate::server::record::{DEFAULT_MAX_RECORDING_BYTES, RecordSettings, Recorder};
use crate::server::settings::{
    DEFAULT_FRAME_TIMEOUT, DEFAULT_GRACE, DEFAULT_HANDSHAKE_TIMEOUT, DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_IN_FLIGHT, DEFAULT_MAX_QUEUE, DEFAULT_MAX_UNFINISHED_BYTES, DEFAULT_WRITE_TIMEOUT,
};
use crate::server::{Drain, Listeners, Live, ServeSettings, serve};
use anyhow::{Context as _, Result};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::values::{Interval, Mode};
use super::redact_key::KeyArgs;
use super::systemd::{self, Passed};
use super::{GuestArgs, TimeArg, exit};

/// Where packages put it; writable for a service that has a runtime folder.
const DEFAULT_SOCKET: &str = "/run/wasm-agent/agent.sock";

/// From when we stop answering to when a v1 proxy stops waiting.
const PROXY_MARGIN: Duration = Duration::from_millis(10);

/// For what a recording still has to write, even where the grace period ran
/// out.
const LEAST_FOR_RECORDING: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "Examples:
  wasm-agent serve --module rules.wasm --socket /run/wasm-agent/agent.sock
  wasm-agent serve --module rules.wasm --pool-size 8 --timeout 50ms --log-format json
  wasm-agent serve --module rules.wasm --grpc-address 127.0.0.1:50051
  WASM_MODULE=rules.wasm FAIL_OPEN=no wasm-agent serve

SIGTERM and SIGINT answer all events that were received, then exit; a second signal
exits at once. SIGHUP loads the module again; the new one is used only if it passes
all checks. A recording whose file was moved goes on in a new one, with or without
SIGHUP.";

/// Answer the events of a proxy on a Unix socket, over gRPC or on both
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::SERVE_HELP))]
pub(crate) struct ServeArgs {
    /// The module, .wasm or .wat
    #[arg(long, value_name = "FILE", env = "WASM_MODULE")]
    module: PathBuf,

    /// The socket [default: $XDG_RUNTIME_DIR/wasm-agent.sock, else /run/wasm-agent/agent.sock]
    #[arg(long, value_name = "PATH", env = "AGENT_SOCKET")]
    socket: Option<PathBuf>,

    /// Serve gRPC at this address, such as 127.0.0.1:50051, in plaintext; alone unless --socket is given too
    #[arg(long, value_name = "ADDRESS", env = "WASM_GRPC_ADDRESS")]
    grpc_address: Option<SocketAddr>,

    /// Answer /metrics (Prometheus), /healthz and /readyz over HTTP at this address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "WASM_ADMIN_ADDRESS")]
    admin_address: Option<SocketAddr>,

    /// Instances of the module, each for one call at a time
    #[arg(long, value_name = "N", env = "WASM_POOL_SIZE", default_value_t = DEFAULT_POOL_SIZE as u16, value_parser = clap::value_parser!(u16).range(1..=MAX_POOL_SIZE as i64))]
    pool_size: u16,

    /// Allow on a fault instead of blocking
    #[arg(long, env = "FAIL_OPEN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set, value_parser = values::boolean)]
    fail_open: bool,

    /// Serve a module even where a handler faults at a small, valid event
    #[arg(long)]
    no_smoke_call: bool,

    /// Refuse settings that the proxy pushes, if they differ from these
    #[arg(long)]
    keep_settings: bool,

    /// Settings that a proxy may also loosen, such as pool-size,timeout-ms; it can only tighten the others
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        conflicts_with = "keep_settings"
    )]
    accept_settings: Vec<Key>,

    /// Log lines for people or for machines
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub(crate) log_format: LogFormat,

    /// The published agents' way to say --verbose
    #[arg(long, env = "WASM_VERBOSE", hide = true, value_name = "BOOL", default_value = "false", action = clap::ArgAction::Set, value_parser = values::boolean)]
    pub(crate) verbose_env: bool,

    /// Proxy whose known bugs are worked around: auto (the version that it reports in the handshake; none from 0.6.54 on), off, or a version such as 0.6.45
    #[arg(long, value_name = "WHOSE", default_value_t = ProxyQuirks::Auto)]
    proxy_quirks: ProxyQuirks,

    /// Encoding of a request body that the module replaces; zentinel-proxy up to 0.6.54 uses the text as it is, where it uses it
    #[arg(long, value_enum, default_value_t = RequestBodyArg::Text)]
    request_body: RequestBodyArg,

    /// Name of the agent in handshakes
    #[arg(long, value_name = "NAME", default_value = "wasm")]
    agent_id: String,

    #[command(flatten)]
    record: RecordArgs,

    #[command(flatten)]
    peers: PeerArgs,

    #[command(flatten)]
    guest: GuestArgs,
}

/// What is written down for `replay`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Recording")]
struct RecordArgs {
    /// Append each call and its answer to a file for `replay`; answers are never delayed by this
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Record a share of the transactions, such as 0.01
    #[arg(long, value_name = "SHARE", value_parser = super::replay::share, default_value_t = 1.0, requires = "record")]
    record_rate: f64,

    /// Largest size of the file; later calls are counted but not recorded
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_RECORDING_BYTES), requires = "record")]
    record_max_size: ByteSize,

    /// Do not redact credentials, cookies and tokens in the recording
    #[arg(long, requires = "record", conflicts_with = "redact_key_file")]
    record_secrets: bool,

    #[command(flatten)]
    key: KeyArgs,
}

impl RecordArgs {
    fn start(&self) -> Result<Option<Arc<Recorder>>, Error> {
        let Some(path) = &self.record else {
            return Ok(None);
        };
        let recorder = Recorder::start(&RecordSettings {
            path: path.clone(),
            rate: self.record_rate,
            max_bytes: self.record_max_size.as_u64(),
            keep_secrets: self.record_secrets,
            key: if self.record_secrets {
                None
            } else {
                self.key.key()?
            },
        })?;
        Ok(Some(Arc::new(recorder)))
    }
}

/// Who may connect, and how much of everything there is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
struct PeerArgs {
    /// Permission bits of the socket, in octal
    #[arg(long, value_name = "MODE", value_parser = values::octal, default_value_t = Mode(DEFAULT_MODE))]
    socket_mode: Mode,

    /// Group of the socket, by number or name
    #[arg(long, value_name = "GROUP", value_parser = values::group)]
    socket_group: Option<u32>,

    /// User id that may connect; repeatable [default: every user whom the socket mode permits]
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,

    /// Open connections; more have to wait
    #[arg(long, value_name = "N", default_value_t = count(DEFAULT_MAX_CONNECTIONS), value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,

    /// Events in flight on one connection; more are answered as overload
    #[arg(long, value_name = "N", default_value_t = count(DEFAULT_MAX_IN_FLIGHT), value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_in_flight: u32,

    /// Events that wait for an instance; more are answered as overload
    #[arg(long, value_name = "N", default_value_t = count(DEFAULT_MAX_QUEUE), value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_queue: u32,

    /// How long an event may wait for an instance; then it is answered as overload
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_QUEUE_WAIT))]
    queue_wait: TimeArg,

    /// Handshake timeout, from the first byte of a connection; a silent connection is also closed after this while another waits for its place
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_HANDSHAKE_TIMEOUT))]
    handshake_timeout: TimeArg,

    /// How long each further message may take, from its first byte
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_FRAME_TIMEOUT))]
    frame_timeout: TimeArg,

    /// Memory for messages that are not complete yet, over all connections; beyond it the connection whose message began first is closed
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(DEFAULT_MAX_UNFINISHED_BYTES as u64))]
    max_unfinished: ByteSize,

    /// How long a peer may take to receive an answer
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_WRITE_TIMEOUT))]
    write_timeout: TimeArg,

    /// The proxy's timeout-ms: a v1 answer that would come later closes the connection instead [default: 10ms more than queue-wait and timeout need, 250ms]
    #[arg(long, value_name = "TIME")]
    proxy_timeout: Option<TimeArg>,

    /// How often v2 proxies are sent metrics; 0s for never
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::interval)]
    metrics_interval: Interval,

    /// How long to drain on shutdown
    #[arg(long, value_name = "TIME", default_value_t = TimeArg(DEFAULT_GRACE))]
    grace_period: TimeArg,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines of text
    Human,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RequestBodyArg {
    /// Plain text; a binary replacement is a fault
    Text,
    /// Base64, for a proxy that decodes
    Base64,
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &ServeArgs) -> Result<u8> {
    let mut settings = args.settings()?;
    let passed = Passed::take()?;
    args.check(&passed)?;
    let live = start(args)?;
    let recorder = args.record.start()?;
    settings.recorder.clone_from(&recorder);
    let (bound, published) = Bound::bind(args, passed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads(args.pool_size))
        .thread_name("io")
        .enable_all()
        .build()
        .context("cannot start the I/O threads")?;
    let grace = settings.grace;
    let told: OnceLock<Instant> = OnceLock::new();
    // The recorder asks it about the last records, too.
    let asked = live.clone();
    let outcome = runtime.block_on(run(bound, live, settings, &told));
    // Guests that still run are given up with the process.
    runtime.shutdown_background();
    drop(published);
    if let Some(recorder) = recorder {
        let left = match (&outcome, told.get()) {
            (Ok(Drain::Complete), Some(told)) => grace.saturating_sub(told.elapsed()),
            _ => Duration::ZERO,
        };
        recorder.close(left.max(LEAST_FOR_RECORDING));
    }
    drop(asked);
    Ok(match outcome? {
        Drain::Complete => exit::OK,
        Drain::GraceRanOut { connections } => {
            tracing::error!(connections, "ended before all events were answered");
            exit::UNSERVED
        }
    })
}

/// One I/O thread for each call that may run at once, up to the cores there
/// are: they call the guests too.
fn io_threads(pool_size: u16) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(usize::from(pool_size).max(2))
}

/// Loads the module, calls it once and makes all its instances.
fn start(args: &ServeArgs) -> Result<Live, Error> {
    if args.guest.is_for(Abi::Hook) {
        let why = Abi::Hook.way_out();
        return Err(Error::Usage(format!("--abi hook: {why}")));
    }
    let guest = args.guest.serving();
    let loader = Loader::new(args.module.clone(), guest.load(), !args.no_smoke_call)
        .keep_settings(args.keep_settings)
        .accept_settings(&args.accept_settings);
    let agent = loader.start(guest.agent(
        args.pool_size.into(),
        args.peers.queue_wait.0,
        args.fail_open,
    ))?;
    Ok(Live::new(agent, loader))
}

/// Bound and not yet served: the socket with its path, the address.
struct Bound {
    unix: Option<(String, std::os::unix::net::UnixListener)>,
    grpc: Option<std::net::TcpListener>,
    admin: Option<std::net::TcpListener>,
}

impl Bound {
    /// Binds all that was asked for, and nothing where any of it fails.
    fn bind(args: &ServeArgs, passed: Passed) -> Result<(Self, Option<BoundSocket>), BindError> {
        let is_passed = passed.unix.is_some() || passed.grpc.is_some();
        let mut bound = Self {
            unix: passed.unix.map(|socket| ("passed".to_owned(), socket)),
            grpc: passed.grpc,
            admin: passed.admin,
        };
        if let Some(address) = args.grpc_address {
            bound.grpc = Some(listen_at(address)?);
        }
        if let Some(address) = args.admin_address {
            bound.admin = Some(listen_at(address)?);
        }
        let path = if is_passed {
            args.socket.clone()
        } else {
            args.socket()
        };
        let Some(path) = path else {
            return Ok((bound, None));
        };
        // Last, so that it shows only when all the rest is there.
        let (listener, published) = BoundSocket::bind(&path, args.peers.socket_mode())?;
        bound.unix = Some((path.display().to_string(), listener));
        Ok((bound, Some(published)))
    }

    /// Answers at the admin address, if there is one, until the process ends.
    /// Must run on the runtime.
    fn serve_admin(&mut self, live: &Live) -> std::io::Result<()> {
        if let Some(listener) = self.admin.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(serve_admin(listener, live.clone()));
        }
        Ok(())
    }

    /// Must run on the runtime.
    fn listeners(self) -> std::io::Result<Listeners> {
        let unix = self.unix.map(|(_, listener)| {
            listener.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(listener)
        });
        let grpc = self.grpc.map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        });
        Ok(Listeners {
            unix: unix.transpose()?,
            grpc: grpc.transpose()?,
        })
    }
}

/// Serves until a signal says stop, and notes when; a second one ends at once.
async fn run(
    mut bound: Bound,
    live: Live,
    settings: ServeSettings,
    told: &OnceLock<Instant>,
) -> Result<Drain> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let hangup = listen_for(SignalKind::hangup())?;
    live.metrics().count_lines_lost_by(super::logging::lost);
    tell_serving(&live.policy(), &bound);
    bound.serve_admin(&live).context("cannot listen")?;
    let listeners = bound.listeners().context("cannot listen")?;
    let reloads = tokio::spawn(reload_at(hangup, live.clone()));
    tokio::spawn(systemd::keep_alive());
    systemd::ready();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut stop = Some(stop);
    let shutdown = async move {
        // Dropping the sender is the signal.
        let _ = stopped.await;
    };
    let mut served = std::pin::pin!(serve(listeners, live, settings, shutdown));
    loop {
        tokio::select! {
            drain = &mut served => return drain.context("cannot serve"),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.get_or_init(Instant::now);
        if stop.take().is_none() {
            tracing::warn!("second signal; stopping at once");
            return Ok(Drain::GraceRanOut { connections: 0 });
        }
        reloads.abort();
        systemd::stopping();
        tracing::info!("draining; a second signal stops at once");
    }
}

/// Loads the module again at every signal, one after the other; signals that
/// come meanwhile are one.
async fn reload_at(mut hangup: Signal, live: Live) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP: loading the module again");
        systemd::reloading();
        let live = live.clone();
        let started = Instant::now();
        let reloaded = tokio::task::spawn_blocking(move || live.reload()).await;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match reloaded {
            Ok(Ok(agent)) => {
                let module = agent.pool().module();
                tracing::info!(hash = module.hash, took_ms, "reloaded");
                systemd::reloaded("serving");
            }
            Ok(Err(error)) => {
                let error = error.in_one_line();
                tracing::error!(
                    error,
                    took_ms,
                    "reload refused; the old module stays in use"
                );
                systemd::reloaded(&format!("serving the old module; {error}"));
            }
            // The runtime ends, or a defect of ours that has told of itself.
            Err(error) => {
                tracing::error!(%error, "reload refused; the old module stays in use");
                systemd::reloaded("serving the old module");
            }
        }
    }
}

/// The line that says the agent is ready.
fn tell_serving(agent: &Policy, bound: &Bound) {
    let module = agent.pool().module();
    let socket = bound.unix.as_ref().map(|(path, _)| path);
    let address = |listener: &std::net::TcpListener| listener.local_addr().ok();
    let grpc = bound.grpc.as_ref().and_then(address);
    let admin = bound.admin.as_ref().and_then(address);
    if let Some(address) = grpc
        && !address.ip().is_loopback()
    {
        tracing::warn!(
            %address,
            "gRPC is plaintext without authentication: everyone who reaches this address can read and send; use a loopback address or a private network"
        );
    }
    tracing::info!(
        socket = socket.map(tracing::field::display),
        grpc = grpc.map(tracing::field::display),
        admin = admin.map(tracing::field::display),
        module = crate::fault::shown(&module.path),
        hash = module.hash,
        pool_size = agent.pool().settings().size,
        policy = agent.settings().failure_policy.name(),
        "serving"
    );
}

fn listen_for(kind: SignalKind) -> Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

impl ServeArgs {
    /// None where gRPC alone was asked for.
    fn socket(&self) -> Option<PathBuf> {
        if self.socket.is_some() || self.grpc_address.is_some() {
            return self.socket.clone();
        }
        let socket = std::env::var_os("XDG_RUNTIME_DIR")
            .filter(|folder| !folder.is_empty())
            .map_or_else(
                || PathBuf::from(DEFAULT_SOCKET),
                |folder| Path::new(&folder).join("wasm-agent.sock"),
            );
        Some(socket)
    }

    /// What was passed and what was asked for must be different places.
    fn check(&self, passed: &Passed) -> Result<(), Error> {
        let twice = [
            ("--socket", self.socket.is_some() && passed.unix.is_some()),
            (
                "--grpc-address",
                self.grpc_address.is_some() && passed.grpc.is_some(),
            ),
            (
                "--admin-address",
                self.admin_address.is_some() && passed.admin.is_some(),
            ),
        ];
        match twice.iter().find(|(_, twice)| *twice) {
            Some((flag, _)) => Err(Error::Usage(format!(
                "{flag}: the service manager has passed a socket for this; leave the flag out"
            ))),
            None => Ok(()),
        }
    }

    fn settings(&self) -> Result<ServeSettings, Error> {
        let peers = &self.peers;
        let timeout = self.guest.limits(Abi::Agent).timeout;
        let least = ServeSettings::late_after(peers.queue_wait.0, timeout);
        let late_after = peers.proxy_timeout.map(|limit| {
            limit.0.checked_sub(PROXY_MARGIN).filter(|late| *late >= least).ok_or_else(|| {
                Error::Usage(format!(
                    "--proxy-timeout: expected at least {:?}, so that --queue-wait and --timeout fit in it, found {:?}",
                    least + PROXY_MARGIN,
                    limit.0
                ))
            })
        });
        Ok(ServeSettings {
            agent_id: self.agent_id.clone(),
            quirks: self.proxy_quirks,
            request_body: match self.request_body {
                RequestBodyArg::Text => RequestBodyText::Verbatim,
                RequestBodyArg::Base64 => RequestBodyText::Base64,
            },
            max_connections: size(peers.max_connections),
            max_in_flight: size(peers.max_in_flight),
            max_queue: size(peers.max_queue),
            queue_wait: peers.queue_wait.0,
            late_after: late_after.transpose()?,
            handshake_timeout: peers.handshake_timeout.0,
            frame_timeout: peers.frame_timeout.0,
            max_unfinished_bytes: usize::try_from(peers.max_unfinished.as_u64())
                .unwrap_or(usize::MAX),
            write_timeout: peers.write_timeout.0,
            grace: peers.grace_period.0,
            allowed_uids: peers.allow_uid.clone(),
            metrics_interval: peers.metrics_interval.0,
            exchanges: ExchangeLimits::default(),
            recorder: None,
        })
    }
}

impl PeerArgs {
    const fn socket_mode(&self) -> SocketMode {
        SocketMode {
            mode: self.socket_mode.0,
            group: self.socket_group,
        }
    }
}

fn count(default: usize) -> u32 {
    u32::try_from(default).unwrap_or(u32::MAX)
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
