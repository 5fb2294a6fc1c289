//! What proxies and agents write on a Unix socket, in our own types.
//!
//! In: bytes of a frame. Out: a [`Message`], or a [`BadMessage`] that knows
//! whom to answer as well as can be known. The other way: agent responses and
//! control messages to frames. Nothing here waits, calls a guest or decides.

pub(crate) mod control;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod response;

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod recorded;
pub(super) mod values;

use serde_json::Value;

use crate::event::{Event, EventKind};
use crate::fault::BadEvent;

/// How the payloads of a v2 connection are written. v1 is always JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// What every published proxy speaks.
    #[default]
    Json,
    /// What custom builds of the proxies may ask for.
    MessagePack,
}

/// What a request came over, where its head says so.
///
/// Released proxies name HTTP/1.1 for every request. A server name, which is
/// the authority of the request's target, tells HTTP/2 and 3 as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpVersion {
    /// A request without a length has no body.
    One,
    /// A body may follow in any case.
    #[default]
    Other,
}

impl HttpVersion {
    pub(crate) fn of(protocol: &str, server_name: Option<&str>) -> Self {
        let has_name = server_name.is_some_and(|name| !name.is_empty());
        if protocol.starts_with("HTTP/1") && !has_name {
            Self::One
        } else {
            Self::Other
        }
    }
}

named! {
    /// A message that must be answered with one agent response: the type that a v2
    /// frame's fifth byte is, and the name of it in a v1 envelope.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum RequestType {
        /// The request line and headers.
        RequestHeaders = 0x10 => "request_headers",
        /// One chunk of the request body.
        RequestBodyChunk = 0x11 => "request_body_chunk",
        /// The upstream's status and headers.
        ResponseHeaders = 0x12 => "response_headers",
        /// One chunk of the response body.
        ResponseBodyChunk = 0x13 => "response_body_chunk",
        /// The exchange is over.
        RequestComplete = 0x14 => "request_complete",
        /// One frame of a WebSocket.
        WebSocketFrame = 0x15 => "web_socket_frame",
        /// Text for a guardrail to judge.
        GuardrailInspect = 0x16 => "guardrail_inspect",
        /// Settings, pushed by the proxy.
        Configure = 0x17 => "configure",
    }
}

impl RequestType {
    /// The type a v2 frame's fifth byte names.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

impl From<EventKind> for RequestType {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::RequestHeaders => Self::RequestHeaders,
            EventKind::RequestBody => Self::RequestBodyChunk,
            EventKind::ResponseHeaders => Self::ResponseHeaders,
            EventKind::ResponseBody => Self::ResponseBodyChunk,
        }
    }
}

/// One message that wants an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// An event that a module may have a handler for. Body events have no
    /// heads yet: those come from the exchange they belong to.
    Event(Event, HttpVersion),
    /// An event that no module has a handler for.
    Unhandled {
        /// Whom to answer.
        correlation_id: String,
        /// The exchange is over.
        ends_exchange: bool,
    },
    /// Settings, pushed by the proxy.
    Configure {
        /// Whom to answer; empty in v1.
        correlation_id: String,
        /// Any JSON.
        config: Value,
    },
}

impl Message {
    /// An event that says nothing of its HTTP version.
    pub(crate) fn of(event: Event) -> Self {
        Self::Event(event, HttpVersion::default())
    }

    /// Whom to answer.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        match self {
            Self::Event(event, _) => event.correlation_id(),
            Self::Unhandled { correlation_id, .. } | Self::Configure { correlation_id, .. } => {
                correlation_id
            }
        }
    }
}

/// A message that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMessage {
    /// A short, stable word for the reason code `bad-event:…`.
    pub what: BadEvent,
    /// The key at which reading ended. Never a value: those are the client's.
    pub at: &'static str,
    /// Whom to answer, where that could be made out.
    pub correlation_id: Option<String>,
}
