//! Envoy's HTTP tap as JSON: buffered traces, and streamed segments that are
//! brought together by their trace id. Names in either of protobuf's spellings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::assemble::{Assembler, Part, RecordRole};
use super::frames::{Elements, Records};
use super::headers;
use super::stream::Stream;
use super::time::nanoseconds;
use super::{
    DecodeSettings, Exchange, Format, Frame, Half, Item, Piece, Remark, Transaction, Unusable,
};
use crate::event::{Headers, RequestHead, ResponseHead, bare_ip};

/// Keys of the wrapper object, in both spellings.
pub(super) const WRAPPERS: [&str; 8] = [
    "http_buffered_trace",
    "httpBufferedTrace",
    "http_streamed_trace_segment",
    "httpStreamedTraceSegment",
    "socket_buffered_trace",
    "socketBufferedTrace",
    "socket_streamed_trace_segment",
    "socketStreamedTraceSegment",
];

pub(super) fn frames(stream: Stream) -> impl Iterator<Item = Item> + Send {
    let file = std::sync::Arc::clone(&stream.file);
    Assembler::new(
        Elements::new(stream, Records::TopLevel),
        sort,
        file,
        Format::EnvoyTap,
    )
}

fn sort(piece: &Piece) -> RecordRole {
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
        request_headers: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Wrapper>(&piece.bytes) {
        Ok(Wrapper {
            http_streamed_trace_segment: Some(segment),
        }) => {
            let part = if segment.request_headers.is_some() {
                Part::First
            } else {
                Part::Next
            };
            RecordRole::Of(segment.trace_id.0.into_bytes().into(), part)
        }
        _ => RecordRole::Alone,
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

pub(super) fn decode(
    frame: &Frame,
    settings: &DecodeSettings,
) -> Result<Transaction<'static>, Unusable> {
    let mut exchange = Exchange::new(frame.place());
    let mut trace_id = String::new();
    for piece in &frame.pieces {
        let refuse = |why| frame.unusable_at(piece, why);
        let wrapper: Wrapper = crate::json::explain::parse(&piece.bytes).map_err(refuse)?;
        if let Some(trace) = wrapper.http_buffered_trace {
            trace.read(settings, &mut exchange).map_err(refuse)?;
        } else if let Some(segment) = wrapper.http_streamed_trace_segment {
            trace_id.clone_from(&segment.trace_id.0);
            segment.read(settings, &mut exchange).map_err(refuse)?;
        } else {
            return Err(refuse(format!(
                "expected an HTTP trace ({}), found another kind of trace or none",
                WRAPPERS[..4].join(", ")
            )));
        }
    }
    if exchange.request.is_none() {
        exchange.remark(Remark::StartMissing);
        if exchange.response.is_none() {
            return Err(
                frame.unusable("expected request or response headers, found none".to_owned())
            );
        }
    }
    if !trace_id.is_empty() {
        exchange.own_id = Some(format!("trace-{trace_id}"));
    }
    Ok(exchange.into_transaction())
}

impl Buffered {
    fn read(self, settings: &DecodeSettings, exchange: &mut Exchange) -> Result<(), String> {
        let peer = self
            .downstream_connection
            .and_then(|connection| connection.remote_address?.socket_address?.address);
        if let Some(message) = self.request {
            exchange.at_ns = message
                .headers_received_time
                .as_deref()
                .and_then(nanoseconds);
            let mut half = request(message.headers, peer.as_deref(), settings)?;
            if let Some(body) = message.body {
                half.body = body.read(&mut exchange.remarks)?;
            }
            exchange.request = Some(half);
        }
        if let Some(message) = self.response {
            let mut half = response(message.headers)?;
            if let Some(body) = message.body {
                half.body = body.read(&mut exchange.remarks)?;
            }
            exchange.response = Some(half);
        }
        Ok(())
    }
}

impl Segment {
    fn read(self, settings: &DecodeSettings, exchange: &mut Exchange) -> Result<(), String> {
        if let Some(fields) = self.request_headers {
            exchange.request = Some(request(fields.headers, None, settings)?);
        }
        if let Some(body) = self.request_body_chunk {
            let bytes = body.read(&mut exchange.remarks)?;
            exchange
                .request
                .get_or_insert_with(Half::default)
                .body
                .extend(bytes);
        }
        if let Some(fields) = self.response_headers {
            exchange.response = Some(response(fields.headers)?);
        }
        if let Some(body) = self.response_body_chunk {
            let bytes = body.read(&mut exchange.remarks)?;
            if let Some(half) = &mut exchange.response {
                half.body.extend(bytes);
            }
        }
        Ok(())
    }
}

fn fields(fields: Vec<Field>) -> Result<Headers, String> {
    fields
        .into_iter()
        .map(|field| {
            let value = match field.raw_value {
                Some(raw) => headers::text(&STANDARD.decode(&raw).map_err(|error| {
                    format!(
                        "expected base64 in \"raw_value\" of {:?}: {error}",
                        field.key
                    )
                })?),
                None => field.value,
            };
            Ok((field.key, value))
        })
        .collect()
}

fn request(
    raw: Vec<Field>,
    peer: Option<&str>,
    settings: &DecodeSettings,
) -> Result<Half<RequestHead>, String> {
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
            correlation_id: String::new(),
            method: pseudo(":method")?,
            uri: pseudo(":path")?,
            client_ip: bare_ip(peer.unwrap_or(&settings.client_ip)),
            headers,
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
        .filter(|status| (100..=999).contains(status))
        .ok_or("expected a response header \":status\" from 100 to 999, found none")?;
    Ok(Half {
        head: ResponseHead {
            correlation_id: String::new(),
            status,
            headers,
        },
        body: Vec::new(),
    })
}

impl Body {
    fn read(self, remarks: &mut Vec<Remark>) -> Result<Vec<u8>, String> {
        if self.truncated && !remarks.contains(&Remark::BodyTruncated) {
            remarks.push(Remark::BodyTruncated);
        }
        match (self.as_bytes, self.as_string) {
            (Some(bytes), _) => STANDARD
                .decode(&bytes)
                .map_err(|error| format!("expected base64 in \"as_bytes\": {error}")),
            (None, Some(text)) => Ok(text.into_bytes()),
            (None, None) => Ok(Vec::new()),
        }
    }
}
