//! `serve`: the agent behind a proxy.
//!
//! In: a bound listener and an agent. Out: exactly one answer to every message
//! that wants one. Guests are called where their event was read; a call that
//! computes on goes on on a thread of its own, so that a runaway stalls neither
//! pings nor other connections. All else runs on tokio.
//!
//! ```text
//! peer -> receive -> job ---------------------------> connection -> peer
//!                     `-> queue -> job (guest thread) --^
//! ```

mod accept;
pub(crate) mod admin;
pub(crate) mod bind;
mod configure;
mod connection;
pub(crate) mod exchanges;
mod grpc;
mod health;
mod job;
pub(crate) mod live;
pub(crate) mod loader;
pub(crate) mod metrics;
mod patient;
mod peer;
pub(crate) mod pushed;
mod queue;
mod receive;
pub(crate) mod record;
mod sessions;
pub(crate) mod settings;
mod unfinished;

use std::future::Future;
use std::hash::RandomState;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fault::printable;
use crate::log_limiter::LogLimiter;
use crate::policy::{Policy, PolicySettings};
use crate::protocol::outgoing::Sent;
use crate::protocol::wire::{BadMessage, Message};
use exchanges::Exchanges;
use health::watch_faults;
pub use live::Live;
use metrics::Now;
use queue::Queue;
use sessions::Sessions;
use settings::MAX_QUEUED_BYTES;
pub(crate) use settings::ServeSettings;
use unfinished::Unfinished;

/// What all connections share.
pub(crate) struct Shared {
    live: Live,
    settings: ServeSettings,
    exchanges: Exchanges,
    next_connection: AtomicU64,
    queue: Queue,
    log_limiter: LogLimiter,
    sessions: Sessions,
    unfinished: Arc<Unfinished>,
    /// The threads that call guests.
    guests: Mutex<Vec<JoinHandle<()>>>,
    hasher: RandomState,
}

impl Shared {
    fn new(live: Live, settings: ServeSettings) -> Self {
        Self {
            live,
            exchanges: Exchanges::new(settings.exchanges),
            next_connection: AtomicU64::new(0),
            queue: Queue::new(settings.max_queue, MAX_QUEUED_BYTES, settings.queue_wait),
            log_limiter: LogLimiter::new(),
            sessions: Sessions::default(),
            unfinished: Unfinished::new(settings.max_unfinished_bytes),
            guests: Mutex::default(),
            hasher: RandomState::new(),
            settings,
        }
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.live.policy()
    }

    /// How late an answer is too late on a v1 connection.
    pub(crate) fn late_after(&self) -> Duration {
        self.settings.late_after.unwrap_or_else(|| {
            let timeout = self.live.policy_now().settings().pool.limits.timeout;
            ServeSettings::late_after(self.settings.queue_wait, timeout)
        })
    }

    /// Writes down what came of an event. Never header values or bodies; the
    /// guest's own words escaped and cut.
    pub(crate) fn tell(&self, correlation_id: &str, sent: &Sent) {
        let decision = sent.answer.decision.name();
        tracing::debug!(
            correlation_id = printable(correlation_id, 128),
            decision,
            "answered"
        );
        if let Some(fault) = &sent.fault
            && self.log_limiter.admit()
        {
            let backtrace: Vec<&str> = fault
                .backtrace
                .iter()
                .map(|frame| frame.function.as_str())
                .collect();
            tracing::warn!(
                correlation_id = printable(correlation_id, 128),
                decision,
                fault = %fault.code,
                detail = printable(&fault.detail, 512),
                words = fault.words.join(" | "),
                backtrace = backtrace.join(" < "),
                "fault"
            );
        }
    }

    /// Starts the guest threads that are missing for `count` calls at once.
    /// Those that are too many stay: the pool bounds the calls.
    pub(crate) fn start_guests(self: &Arc<Self>, count: usize) -> std::io::Result<()> {
        let mut guests = lock(&self.guests);
        while guests.len() < count {
            let shared = Arc::clone(self);
            let name = format!("guest-{}", guests.len());
            let thread = std::thread::Builder::new().name(name);
            match thread.spawn(move || job::work(&shared)) {
                Ok(thread) => guests.push(thread),
                Err(error) => {
                    if guests.is_empty() {
                        self.queue.close();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Waits for the guest threads, which have nothing left to do.
    fn join_guests(&self) {
        for thread in lock(&self.guests).drain(..) {
            // Its panics were caught and told.
            let _ = thread.join();
        }
    }

    /// For the metrics.
    pub(crate) fn now(&self) -> Now {
        Now {
            queued: self.queue.len(),
            lines_cut: self.log_limiter.cut(),
            exchanges: self.exchanges.counts(),
            recorded: self.settings.recorder.as_ref().map(|it| it.counts()),
        }
    }
}

/// How serving came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// All that was received was answered.
    Complete,
    /// The grace period ran out first.
    GraceRanOut {
        /// Connections that were still open.
        connections: usize,
    },
}

impl Drain {
    /// How both came to their end.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Complete, end) | (end, Self::Complete) => end,
            (
                Self::GraceRanOut { connections: first },
                Self::GraceRanOut {
                    connections: second,
                },
            ) => Self::GraceRanOut {
                connections: first + second,
            },
        }
    }
}

/// Where proxies connect: to any of them, over one agent.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For both protocols of the Unix socket.
    pub unix: Option<UnixListener>,
    /// For gRPC, in plaintext: proxies speak nothing else.
    pub grpc: Option<TcpListener>,
}

impl From<UnixListener> for Listeners {
    fn from(listener: UnixListener) -> Self {
        Self {
            unix: Some(listener),
            grpc: None,
        }
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self {
            unix: None,
            grpc: Some(listener),
        }
    }
}

/// Serves until `shutdown` is ready and all that was received is answered.
///
/// Must run on a tokio runtime with I/O and time. The agent's pool should be
/// filled: as many guest threads are started as it may have instances. What
/// [`Live`] is given while it serves answers the events that come after.
///
/// # Errors
/// Where no threads can be started.
pub async fn serve(
    listeners: impl Into<Listeners>,
    policy: impl Into<Live>,
    settings: ServeSettings,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<Drain> {
    let listeners = listeners.into();
    let live = policy.into();
    let guests = live.policy().pool().settings().size;
    let shared = Arc::new(Shared::new(live, settings));
    shared.live.served_by(&shared);
    shared.start_guests(guests)?;
    let mut chores = JoinSet::new();
    chores.spawn(refuse_expired(Arc::clone(&shared)));
    chores.spawn(watch_faults(Arc::clone(&shared)));
    chores.spawn(sessions::tell_health(Arc::clone(&shared)));
    if let Some(interval) = shared.settings.metrics_interval {
        chores.spawn(sessions::tell_metrics(Arc::clone(&shared), interval));
    }
    let (stop, stopped) = watch::channel(false);
    let signal = async {
        shutdown.await;
        shared.live.say_draining();
        // Nobody may be left to be told.
        let _ = stop.send(true);
    };
    let (unix, grpc, ()) = tokio::join!(
        serve_listener(listeners.unix, &shared, &stopped),
        serve_listener(listeners.grpc, &shared, &stopped),
        signal,
    );
    chores.abort_all();
    shared.queue.close();
    let drain = unix.and(grpc);
    if drain == Drain::Complete {
        shared.join_guests();
    }
    Ok(drain)
}

/// Serves one transport until `stopped`, then what it has received.
async fn serve_listener<T: accept::Transport>(
    listener: Option<T>,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
) -> Drain {
    let Some(listener) = listener else {
        return Drain::Complete;
    };
    let permits = accept::accept(&listener, shared, stopped, told_to_stop(stopped)).await;
    // Closed before the drain: who comes now is told so at once.
    drop(listener);
    permits.drained(shared.settings.grace).await
}

/// Ready once nothing more is to be read.
fn told_to_stop(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        // Without a sender there is no server either.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

/// Locks what no panic elsewhere can have left half-changed: all that the server
/// keeps behind locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`crate::limits::after`], on the clock of those that move bytes.
fn after(start: Instant, time: Duration) -> Instant {
    crate::limits::after(start.into_std(), time).into()
}

/// Answers events that wait too long while every guest thread is busy.
async fn refuse_expired(shared: Arc<Shared>) {
    loop {
        for mut job in shared.queue.expired().await {
            if !job.is_awaited() {
                continue;
            }
            let job = if job.gives_in() {
                job.begin(shared.policy())
            } else {
                Some(job)
            };
            if let Some(job) = job {
                job.refuse(queue::waited_too_long());
            }
        }
    }
}

/// One message of the gRPC service, for the fuzz targets: nothing where it is
/// no event.
///
/// # Errors
/// Where it is no message.
#[doc(hidden)]
pub fn try_grpc(payload: &[u8]) -> Result<Option<Result<Message, BadMessage>>, String> {
    match crate::protocol::grpc::read(payload) {
        Ok(crate::protocol::grpc::Inbound::Message(read)) => Ok(Some(read)),
        Ok(_) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What pushed settings come to, for the fuzz targets.
///
/// # Errors
/// Why they are refused.
#[doc(hidden)]
pub fn try_settings(pushed: &serde_json::Value) -> Result<PolicySettings, String> {
    let pushed = pushed::Pushed::read(pushed)?;
    Ok(pushed::over(&PolicySettings::default(), &pushed.settings))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
