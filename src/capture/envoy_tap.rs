//! Envoy's HTTP tap as JSON: buffered traces, and streamed segments that are
//! brought together by their trace id. Names in either of protobuf's spellings.

use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::assemble::{RecordRole, Roles, assemble};
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::parts::STATUSES;
use super::progress::{Chunk, Part};
use super::{DecodeSettings, ExchangeParts, Format, Half, Piece, Remark, base_64, headers};
use crate::event::{Headers, RequestHead, ResponseHead};
use crate::fault::printable;
use crate::time::nanoseconds;

/// Keys of the wrapper object, in both spellings.
const WRAPPERS: [&str; 8] = [
    "http_buffered_trace",
    "httpBufferedTrace",
    "http_streamed_trace_segment",
    "httpStreamedTraceSegment",
    "socket_buffered_trace",
    "socketBufferedTrace",
    "socket_streamed_trace_segment",
    "socketStreamedTraceSegment",
];

pub(super) static READER: Reader = Reader {
    title: "Envoy HTTP tap as JSON",
    loses: Some("bodies are cut at the tap's own limit (1 KiB by default)"),
    recognises: |head| WRAPPERS.iter().any(|wrapper| head.has(wrapper)),
    frames: |stream| {
        let elements = Elements::new(stream, Records::TopLevel);
        assemble(
            elements,
            Some(Roles { role, heads: None }),
            Format::EnvoyTap,
        )
    },
    read: Read::Record(read),
};

fn role(piece: &Piece) -> RecordRole {
    #[derive(Deserialize)]
    struct Wrapper {
        #[serde(alias = "httpStreamedTraceSegment")]
        http_streamed_trace_segment: Option<Id>,
    }
    #[derive(Deserialize)]
    struct Id {
        #[serde(alias = "traceId", default)]
        trace_id: TraceId,
        #[serde(alias = "requestHeaders")]
        request_headers: Option<IgnoredAny>,
        #[serde(alias = "requestTrailers")]
        request_trailers: Option<IgnoredAny>,
        #[serde(alias = "responseHeaders")]
        response_headers: Option<IgnoredAny>,
        #[serde(alias = "responseBodyChunk")]
        response_body_chunk: Option<IgnoredAny>,
        #[serde(alias = "responseTrailers")]
        response_trailers: Option<IgnoredAny>,
    }
    let Ok(Wrapper {
        http_streamed_trace_segment: Some(segment),
    }) = serde_json::from_slice::<Wrapper>(&piece.bytes)
    else {
        return RecordRole::Alone;
    };
    // Chunks have no numbers, and nothing follows trailers.
    let chunk = |trailers: &Option<IgnoredAny>| Chunk {
        index: None,
        is_last: trailers.is_some(),
    };
    let part = if segment.request_headers.is_some() {
        Part::RequestHead
    } else if segment.response_headers.is_some() {
        Part::ResponseHead
    } else if segment.response_body_chunk.is_some() || segment.response_trailers.is_some() {
        Part::ResponseBody(chunk(&segment.response_trailers))
    } else {
        Part::RequestBody(chunk(&segment.request_trailers))
    };
    RecordRole::Of {
        id: segment.trace_id.0.into_bytes().into(),
        part,
        is_last: false,
    }
}

/// A 64-bit number, which protobuf's JSON writes as a string.
#[derive(Default)]
struct TraceId(String);

impl<'de> Deserialize<'de> for TraceId {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(u64),
        }
        Ok(Self(match Either::deserialize(reader)? {
            Either::Text(text) => text,
            Either::Number(number) => number.to_string(),
        }))
    }
}

#[derive(Deserialize)]
struct Wrapper {
    #[serde(alias = "httpBufferedTrace")]
    http_buffered_trace: Option<Buffered>,
    #[serde(alias = "httpStreamedTraceSegment")]
    http_streamed_trace_segment: Option<Segment>,
}

#[derive(Deserialize)]
struct Buffered {
    request: Option<Message>,
    response: Option<Message>,
    #[serde(alias = "downstreamConnection")]
    downstream_connection: Option<Connection>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    headers: Vec<Field>,
    body: Option<Body>,
    #[serde(alias = "headersReceivedTime")]
    headers_received_time: Option<String>,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(alias = "traceId", default)]
    trace_id: TraceId,
    #[serde(alias = "requestHeaders")]
    request_headers: Option<Fields>,
    #[serde(alias = "requestBodyChunk")]
    request_body_chunk: Option<Body>,
    #[serde(alias = "responseHeaders")]
    response_headers: Option<Fields>,
    #[serde(alias = "responseBodyChunk")]
    response_body_chunk: Option<Body>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    headers: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(alias = "rawValue")]
    raw_value: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "asBytes")]
    as_bytes: Option<String>,
    #[serde(alias = "asString")]
    as_string: Option<String>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(alias = "remoteAddress")]
    remote_address: Option<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(alias = "socketAddress")]
    socket_address: Option<SocketAddress>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: Option<String>,
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let wrapper: Wrapper = crate::json::explain::parse(record)?;
    if let Some(trace) = wrapper.http_buffered_trace {
        trace.read(settings, exchange)
    } else if let Some(segment) = wrapper.http_streamed_trace_segment {
        segment.read(settings, exchange)
    } else {
        Err(format!(
            "expected an HTTP trace ({}), found another kind of trace or none",
            WRAPPERS[..4].join(", ")
        ))
    }
}

impl Buffered {
    fn read(self, settings: &DecodeSettings, exchange: &mut ExchangeParts) -> Result<(), String> {
        let peer = self
            .downstream_connection
            .and_then(|connection| connection.remote_address?.socket_address?.address);
        if let Some(message) = self.request {
            let received = message.headers_received_time.as_deref();
            exchange.at_ns = received.and_then(nanoseconds);
            let mut half = request(
                message.headers,
                exchange.client_ip(settings, peer.as_deref()),
            )?;
            half.body = read_body(message.body, exchange)?;
            exchange.request = Some(half);
        }
        if let Some(message) = self.response {
            let received = message.headers_received_time.as_deref();
            exchange.response_at_ns = received.and_then(nanoseconds);
            let mut half = response(message.headers)?;
            half.body = read_body(message.body, exchange)?;
            exchange.response = Some(half);
        }
        Ok(())
    }
}

impl Segment {
    fn read(self, settings: &DecodeSettings, exchange: &mut ExchangeParts) -> Result<(), String> {
        if !self.trace_id.0.is_empty() {
            exchange.own_id = Some(format!("trace-{}", self.trace_id.0));
        }
        if let Some(fields) = self.request_headers {
            exchange.request = Some(request(fields.headers, exchange.client_ip(settings, None))?);
        }
        if self.request_body_chunk.is_some() {
            let bytes = read_body(self.request_body_chunk, exchange)?;
            match &mut exchange.request {
                Some(half) => half.body.extend(bytes),
                // Nobody knows what was asked for.
                None => exchange.remark(Remark::StartMissing),
            }
        }
        if let Some(fields) = self.response_headers {
            exchange.response = Some(response(fields.headers)?);
        }
        let bytes = read_body(self.response_body_chunk, exchange)?;
        match &mut exchange.response {
            Some(half) => half.body.extend(bytes),
            None if bytes.is_empty() => {}
            None => exchange.remark(Remark::StartMissing),
        }
        Ok(())
    }
}

fn fields(fields: Vec<Field>) -> Result<Headers, String> {
    fields
        .into_iter()
        .map(|field| {
            let value = match field.raw_value {
                Some(raw) => {
                    let what = format!("\"raw_value\" of {:?}", printable(&field.key, 40));
                    headers::text(&base_64::read(&STANDARD, &raw, what)?)
                }
                None => field.value,
            };
            Ok((field.key, value))
        })
        .collect()
}

fn request(raw: Vec<Field>, client_ip: String) -> Result<Half<RequestHead>, String> {
    let mut headers = fields(raw)?;
    let pseudo = headers::split_pseudo(&mut headers);
    let pseudo = |name| {
        pseudo
            .value(name)
            .map(str::to_owned)
            .ok_or_else(|| format!("expected a request header {name:?}, found none"))
    };
    Ok(Half {
        head: RequestHead {
            method: pseudo(":method")?,
            uri: pseudo(":path")?,
            client_ip,
            headers,
            ..RequestHead::default()
        },
        body: Vec::new(),
    })
}

fn response(raw: Vec<Field>) -> Result<Half<ResponseHead>, String> {
    let mut headers = fields(raw)?;
    let pseudo = headers::split_pseudo(&mut headers);
    let status = pseudo
        .value(":status")
        .and_then(|status| status.parse().ok())
        .filter(|status| STATUSES.contains(status))
        .ok_or("expected a response header \":status\" from 100 to 999, found none")?;
    Ok(Half::response(status, headers, Vec::new()))
}

fn read_body(body: Option<Body>, exchange: &mut ExchangeParts) -> Result<Vec<u8>, String> {
    let Some(body) = body else {
        return Ok(Vec::new());
    };
    if body.truncated {
        exchange.remark(Remark::BodyTruncated);
    }
    match (body.as_bytes, body.as_string) {
        (Some(bytes), _) => base_64::read(&STANDARD, &bytes, "\"as_bytes\""),
        (None, text) => Ok(text.unwrap_or_default().into_bytes()),
    }
}
