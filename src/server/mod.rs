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
pub mod bind;
mod configure;
mod connection;
pub mod context;
pub(crate) mod grpc;
mod job;
pub mod live;
pub mod loader;
mod peer;
mod queue;
mod receive;
pub mod settings;
pub mod wire;

use std::future::Future;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::agent::{Agent, Handled};
use crate::event::{Event, EventKind};
use crate::fault::printable;
use crate::notices::Notices;
use connection::Connection;
use context::ContextCache;
pub use live::Live;
use queue::Queue;
pub use settings::ServeSettings;
use wire::Encoding;
use wire::control::{HealthState, HealthStatus};
use wire::frame::{Protocol, kind};

/// What all connections share.
pub(crate) struct Shared {
    live: Live,
    settings: ServeSettings,
    context: ContextCache,
    queue: Queue,
    notices: Notices,
    hasher: RandomState,
}

impl Shared {
    fn new(live: Live, settings: ServeSettings) -> Self {
        Self {
            live,
            context: ContextCache::new(settings.context),
            queue: Queue::new(settings.max_queue, settings.queue_wait),
            notices: Notices::new(),
            hasher: RandomState::new(),
            settings,
        }
    }

    pub(crate) fn agent(&self) -> Arc<Agent> {
        self.live.agent()
    }

    /// Keeps the head of an answered event, if a handler may ask for it.
    pub(crate) fn keep_head(&self, event: Event) {
        let agent = self.agent();
        let wanted = match event.kind() {
            EventKind::RequestHeaders => {
                agent.handles(EventKind::RequestBody) || agent.handles(EventKind::ResponseBody)
            }
            EventKind::ResponseHeaders => agent.handles(EventKind::ResponseBody),
            EventKind::RequestBody | EventKind::ResponseBody => false,
        };
        if wanted {
            self.context.keep_head(event);
        }
    }

    /// Writes down what came of an event. Never header values or bodies; the
    /// guest's own words escaped and cut.
    pub(crate) fn tell(&self, correlation_id: &str, handled: &Handled) {
        tracing::debug!(
            correlation_id = printable(correlation_id, 128),
            decision = handled.response.decision.name(),
            "answered"
        );
        if let Some(fault) = &handled.fault
            && self.notices.admit()
        {
            let backtrace: Vec<&str> = fault
                .backtrace
                .iter()
                .map(|frame| frame.function.as_str())
                .collect();
            tracing::warn!(
                correlation_id = printable(correlation_id, 128),
                decision = handled.response.decision.name(),
                fault = %fault.code,
                detail = printable(&fault.detail, 512),
                words = fault.words.join(" | "),
                backtrace = backtrace.join(" < "),
                "fault"
            );
        }
    }

    /// Tells a v2 peer that no more is read.
    pub(crate) fn say_draining(&self, connection: &Connection) {
        let dialect = connection.dialect();
        match dialect.protocol {
            Protocol::V1 => return,
            Protocol::V2 => {}
            Protocol::Grpc => {
                let health = grpc::convert::health(&self.settings, HealthState::Draining);
                connection.send(0, |out| grpc::convert::write(health, out));
                return;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let status = HealthStatus {
            agent_id: &self.settings.agent_id,
            state: HealthState::Draining,
            message: Some("shutting down"),
            timestamp_ms: now.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0)),
        };
        connection.send(kind::HEALTH_STATUS, |out| match dialect.encoding {
            // Neither these types nor a Vec can fail.
            Encoding::Json => drop(serde_json::to_writer(out, &status)),
            Encoding::MessagePack => {
                drop(status.serialize(&mut rmp_serde::Serializer::new(out).with_struct_map()));
            }
        });
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
    agent: impl Into<Live>,
    settings: ServeSettings,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<Drain> {
    let listeners = listeners.into();
    let live = agent.into();
    let guests = live.agent().pool().settings().size;
    let shared = Arc::new(Shared::new(live, settings));
    let threads = Threads::start(&shared, guests)?;
    let watch_queue = tokio::spawn(refuse_expired(Arc::clone(&shared)));
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
    watch_queue.abort();
    shared.queue.close();
    let drain = unix.and(grpc);
    if drain == Drain::Complete {
        threads.join();
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
    let mut told = stopped.clone();
    let shutdown = async move {
        // Without a sender there is no server either.
        let _ = told.wait_for(|stopped| *stopped).await;
    };
    let permits = accept::accept(&listener, shared, stopped, shutdown).await;
    // Closed before the drain: who comes now is told so at once.
    drop(listener);
    permits.drained(shared.settings.grace).await
}

/// Answers events that wait too long while every guest thread is busy.
async fn refuse_expired(shared: Arc<Shared>) {
    loop {
        for job in shared.queue.expired().await {
            job.refuse(queue::waited_too_long());
        }
    }
}

/// The threads that call guests.
struct Threads(Vec<std::thread::JoinHandle<()>>);

impl Threads {
    fn start(shared: &Arc<Shared>, count: usize) -> std::io::Result<Self> {
        let start = |index| {
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new().name(format!("guest-{index}"));
            thread.spawn(move || job::work(&shared))
        };
        let threads: std::io::Result<Vec<_>> = (0..count).map(start).collect();
        if threads.is_err() {
            shared.queue.close();
        }
        threads.map(Self)
    }

    /// Waits for the threads, which have nothing left to do.
    fn join(self) {
        for thread in self.0 {
            // Its panics were caught and told.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
