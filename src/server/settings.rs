//! How the server behaves, and where each number comes from.

use std::sync::Arc;
use std::time::Duration;

use super::exchanges::ExchangeLimits;
use super::record::Recorder;
use crate::limits::DEFAULT_QUEUE_WAIT;
use crate::protocol::proxy::ProxyQuirks;
use crate::protocol::wire::handshake::Identity;
use crate::protocol::wire::response::RequestBodyText;

/// Connections at once. A proxy opens 4, or 11 in v1.
pub(crate) const DEFAULT_MAX_CONNECTIONS: usize = 1024;
/// Events in flight on one connection; released clients send as many.
pub(crate) const DEFAULT_MAX_IN_FLIGHT: usize = 100;
/// Events waiting for a guest, over all connections.
pub(crate) const DEFAULT_MAX_QUEUE: usize = 1024;
/// The first message must be whole this long after its first byte; a peer that
/// says nothing has as long, once others wait for its place.
pub(crate) const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A frame must be whole this long after its first byte.
pub(crate) const DEFAULT_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Bodies of all events that wait for a guest together, in bytes: sixteen of the
/// largest the protocol has, and far more of those that proxies send.
pub(crate) const MAX_QUEUED_BYTES: usize = 256 << 20;
/// Messages that are not whole yet, over all connections together, in bytes:
/// eight of the largest the protocol has.
pub(crate) const DEFAULT_MAX_UNFINISHED_BYTES: usize = 128 << 20;
/// A peer that takes nothing for so long is closed.
pub(crate) const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// What was received must be answered so long after the signal to stop.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// How often v2 peers are sent what was counted; the published agents' default.
pub(crate) const DEFAULT_METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// Beyond a call's deadline: the tick that ends it, and a busy machine.
pub(crate) const LATE_SLACK: Duration = Duration::from_millis(40);
/// Answers not yet taken by a peer before no more is read from it, in bytes.
pub(crate) const MAX_UNSENT_BYTES: usize = 1 << 20;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// What the agent calls itself in handshakes.
    pub agent_id: String,
    /// Whose quirks are worked around.
    pub quirks: ProxyQuirks,
    /// How replacements of request bodies are written.
    pub request_body: RequestBodyText,
    /// Connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// Events in flight on one connection; further ones are overload.
    pub max_in_flight: usize,
    /// Events waiting for a guest; further ones are overload.
    pub max_queue: usize,
    /// An event that waited so long for a guest is overload.
    pub queue_wait: Duration,
    /// An answer later than this is not sent on a v1 connection, which is
    /// closed instead: the client would take it for the next event's. None:
    /// [`ServeSettings::late_after`] of the limits in force.
    pub late_after: Option<Duration>,
    /// For the first frame of a connection, from its first byte. A connection
    /// that has said nothing for as long is closed only where another one waits
    /// for its place; one for each that waits, the longest silent first.
    pub handshake_timeout: Duration,
    /// For each further frame, from its first byte.
    pub frame_timeout: Duration,
    /// Messages that are not whole yet, over all connections and gRPC calls
    /// together, in bytes. Beyond it the one that was begun first is given up
    /// with its connection or call; of a Unix connection 64 KiB are not counted,
    /// and a message that is alone is read whole, however large.
    pub max_unfinished_bytes: usize,
    /// For the peer to take what it is sent at one time, on every transport.
    pub write_timeout: Duration,
    /// For answering what was received, once told to stop.
    pub grace: Duration,
    /// User ids that may connect; empty for whoever the socket's mode lets.
    pub allowed_uids: Vec<u32>,
    /// How often v2 peers are sent what was counted; none for never.
    pub metrics_interval: Option<Duration>,
    /// What is remembered of each exchange.
    pub exchanges: ExchangeLimits,
    /// Takes a copy of each answer of a guest.
    pub recorder: Option<Arc<Recorder>>,
}

impl ServeSettings {
    /// What a handshake says of this agent.
    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity {
            agent_id: &self.agent_id,
            in_flight: u32::try_from(self.max_in_flight).unwrap_or(u32::MAX),
            metrics: self.metrics_interval.is_some(),
        }
    }

    /// The latest answer that is not late: a wait in the queue, a call that
    /// runs into its deadline, and [`LATE_SLACK`]. With the default limits that
    /// is 240 ms, below the 250 ms after which a proxy configured as we
    /// document gives up: an answer it no longer waits for must not be sent.
    #[must_use]
    pub fn late_after(queue_wait: Duration, timeout: Duration) -> Duration {
        queue_wait
            .saturating_add(timeout)
            .saturating_add(LATE_SLACK)
    }
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            agent_id: "wasm".to_owned(),
            quirks: ProxyQuirks::Auto,
            request_body: RequestBodyText::Verbatim,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            max_queue: DEFAULT_MAX_QUEUE,
            queue_wait: DEFAULT_QUEUE_WAIT,
            late_after: None,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            frame_timeout: DEFAULT_FRAME_TIMEOUT,
            max_unfinished_bytes: DEFAULT_MAX_UNFINISHED_BYTES,
            write_timeout: DEFAULT_WRITE_TIMEOUT,
            grace: DEFAULT_GRACE,
            allowed_uids: Vec::new(),
            metrics_interval: Some(DEFAULT_METRICS_INTERVAL),
            exchanges: ExchangeLimits::default(),
            recorder: None,
        }
    }
}
