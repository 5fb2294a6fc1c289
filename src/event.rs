//! What a proxy asks about: one typed event of an HTTP exchange.
//!
//! In: fields that a fixture, a capture or a transport has read. Out: an
//! [`Event`], which the ABI adapter writes as the guest's input JSON. Nothing
//! here knows wasm, decisions or files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

mod headers;

pub use headers::{Headers, Iter as HeadersIter};

/// The client of input that names none: a documentation address (RFC 5737).
pub const DEFAULT_CLIENT_IP: &str = "192.0.2.1";

named! {
    /// The name of one event, which is also the name of its handler less `on_`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum EventKind {
        /// The request line and headers.
        RequestHeaders => "request_headers",
        /// One chunk of the request body.
        RequestBody => "request_body",
        /// The status and headers of the upstream's answer.
        ResponseHeaders => "response_headers",
        /// One chunk of the response body.
        ResponseBody => "response_body",
    }
}

impl EventKind {
    /// Whether the event belongs to the request half of the exchange.
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(self, Self::RequestHeaders | Self::RequestBody)
    }
}

/// The request line, the client and the request headers.
/// ```
/// use wasm_agent_kit::event::{Event, RequestHead};
///
/// let event = Event::RequestHeaders(RequestHead {
///     method: "GET".into(),
///     uri: "/search?q=wasm".into(),
///     client_ip: "192.0.2.7".into(),
///     headers: [("host", "example.org")].into_iter().collect(),
///     ..RequestHead::default()
/// });
/// assert_eq!(event.kind().name(), "request_headers");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestHead {
    /// The same for every event of one exchange.
    pub correlation_id: String,
    /// `GET`, `POST` and so on, as sent.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// A bare address; see [`bare_ip`].
    pub client_ip: String,
    /// Request headers.
    pub headers: Headers,
}

/// The upstream's status and headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseHead {
    /// The same for every event of one exchange.
    pub correlation_id: String,
    /// HTTP status.
    pub status: u16,
    /// Response headers.
    pub headers: Headers,
}

/// One piece of a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BodyChunk {
    /// The same for every event of one exchange.
    pub correlation_id: String,
    /// Position of this chunk, from 0.
    pub chunk_index: u32,
    /// Whether the proxy says no chunk follows. Some proxies never say so.
    pub is_last: bool,
    /// Size of the whole body in bytes, where it is known.
    pub total_size: Option<u64>,
    /// Bytes of the body up to and including this chunk.
    pub transferred_bytes: u64,
    /// The bytes themselves.
    pub data: Vec<u8>,
}

/// One message from the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The request line and headers.
    RequestHeaders(RequestHead),
    /// A request body chunk, with the head it belongs to if that is known.
    RequestBody {
        /// The chunk.
        chunk: BodyChunk,
        /// The request's head, when it was seen.
        request: Option<Arc<RequestHead>>,
    },
    /// The upstream's status and headers.
    ResponseHeaders(ResponseHead),
    /// A response body chunk, with the heads it belongs to if they are known.
    ResponseBody {
        /// The chunk.
        chunk: BodyChunk,
        /// The request's head, when it was seen.
        request: Option<Arc<RequestHead>>,
        /// The response's head, when it was seen.
        response: Option<Arc<ResponseHead>>,
    },
}

impl Event {
    /// Which of the four this is.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::RequestHeaders(_) => EventKind::RequestHeaders,
            Self::RequestBody { .. } => EventKind::RequestBody,
            Self::ResponseHeaders(_) => EventKind::ResponseHeaders,
            Self::ResponseBody { .. } => EventKind::ResponseBody,
        }
    }

    /// The id all events of one exchange share.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        match self {
            Self::RequestHeaders(head) => &head.correlation_id,
            Self::ResponseHeaders(head) => &head.correlation_id,
            Self::RequestBody { chunk, .. } | Self::ResponseBody { chunk, .. } => {
                &chunk.correlation_id
            }
        }
    }

    /// The chunk's index, for a body event.
    #[must_use]
    pub const fn chunk_index(&self) -> Option<u32> {
        match self {
            Self::RequestBody { chunk, .. } | Self::ResponseBody { chunk, .. } => {
                Some(chunk.chunk_index)
            }
            Self::RequestHeaders(_) | Self::ResponseHeaders(_) => None,
        }
    }

    /// The headers a handler would see with this event.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        static NONE: Headers = Headers::new();
        match self {
            Self::RequestHeaders(head) => &head.headers,
            Self::ResponseHeaders(head) => &head.headers,
            Self::RequestBody { request, .. } => {
                request.as_ref().map_or(&NONE, |head| &head.headers)
            }
            Self::ResponseBody { response, .. } => {
                response.as_ref().map_or(&NONE, |head| &head.headers)
            }
        }
    }
}

/// Cuts the port off a client address.
///
/// Proxies up to zentinel-proxy 0.6.45 send `ip:port` (`[::1]:5678` for IPv6);
/// modules are promised a bare address. What is neither is left as it is.
#[must_use]
pub fn bare_ip(text: &str) -> String {
    // What nearly every proxy sends, first.
    if let Some((ip, port)) = text.split_once(':')
        && ip.parse::<Ipv4Addr>().is_ok()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
    {
        return ip.to_owned();
    }
    if text.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.ip().to_string();
    }
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|inner| inner.parse::<IpAddr>().is_ok())
        .unwrap_or(text)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_cut_off_a_client_address() {
        for (sent, bare) in [
            ("1.2.3.4:5678", "1.2.3.4"),
            ("1.2.3.4", "1.2.3.4"),
            ("[::1]:5678", "::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("unknown", "unknown"),
            ("", ""),
        ] {
            assert_eq!(bare_ip(sent), bare, "{sent}");
        }
    }

    #[test]
    fn names_and_kinds_are_each_others_inverse() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::from_name("request_header"), None);
    }
}
