//! Envoy's HTTP tap as JSON: buffered traces, and streamed segments that are
//! brought together by their trace id. Names in either of protobuf's spellings.

use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::assemble::{RecordRole, Roles, SameId, assemble};
use super::detect::Keys;
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::lenient::{is_filled, text};
use super::parts::STATUSES;
use super::progress::{Chunk, Part};
use super::surrogates::{self, Texts};
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
    recognises: |head| {
        // Some put an array around them.
        let listed = head.text.strip_prefix(b"[").map(Keys::of);
        let keys = listed.as_ref().unwrap_or(&head.keys);
        WRAPPERS.iter().any(|wrapper| keys.has(wrapper))
    },
    frames: |stream| {
        let elements = Elements::new(stream, Records::TopLevel);
        assemble(
            elements,
            Some(Roles {
                role,
                alike: SameId::OneAtATime,
            }),
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
        /// A 64-bit number, which protobuf's JSON writes as a text.
        #[serde(alias = "traceId", default, deserialize_with = "text")]
        trace_id: Option<String>,
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
        id: segment.trace_id.unwrap_or_default().into_bytes().into(),
        part,
        is_last: false,
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
    #[serde(alias = "downstreamConnection", default)]
    downstream_connection: Value,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    headers: Vec<Field>,
    #[serde(default, deserialize_with = "is_filled")]
    trailers: bool,
    body: Option<Body>,
    #[serde(alias = "headersReceivedTime", default, deserialize_with = "text")]
    headers_received_time: Option<String>,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(alias = "traceId", default, deserialize_with = "text")]
    trace_id: Option<String>,
    #[serde(alias = "requestHeaders")]
    request_headers: Option<Fields>,
    #[serde(alias = "requestBodyChunk")]
    request_body_chunk: Option<Body>,
    #[serde(alias = "requestTrailers", default, deserialize_with = "is_filled")]
    request_trailers: bool,
    #[serde(alias = "responseHeaders")]
    response_headers: Option<Fields>,
    #[serde(alias = "responseBodyChunk")]
    response_body_chunk: Option<Body>,
    #[serde(alias = "responseTrailers", default, deserialize_with = "is_filled")]
    response_trailers: bool,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    headers: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    #[serde(default, deserialize_with = "text")]
    key: Option<String>,
    #[serde(default, deserialize_with = "text")]
    value: Option<String>,
    #[serde(alias = "rawValue", default, deserialize_with = "text")]
    raw_value: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "asBytes", default, deserialize_with = "text")]
    as_bytes: Option<String>,
    #[serde(alias = "asString", default, deserialize_with = "text")]
    as_string: Option<String>,
    #[serde(default, deserialize_with = "is_filled")]
    truncated: bool,
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let (wrapper, texts): (Wrapper, Texts) = surrogates::parse(record)?;
    if let Some(trace) = wrapper.http_buffered_trace {
        trace.read(texts, settings, exchange)
    } else if let Some(segment) = wrapper.http_streamed_trace_segment {
        segment.read(texts, settings, exchange)
    } else {
        Err(format!(
            "expected an HTTP trace ({}), found another kind of trace or none",
            WRAPPERS[..4].join(", ")
        ))
    }
}

impl Buffered {
    /// One half that cannot be used does not cost the other, nor a body its head.
    fn read(
        self,
        texts: Texts,
        settings: &DecodeSettings,
        exchange: &mut ExchangeParts,
    ) -> Result<(), String> {
        // `downstream_connection`, of which the address is all that is wanted.
        let peer = || {
            let find = |value: &Value, names: [&str; 2]| -> Option<Value> {
                names.iter().find_map(|name| value.get(name)).cloned()
            };
            let peer = find(
                &self.downstream_connection,
                ["remote_address", "remoteAddress"],
            )?;
            let peer = find(&peer, ["socket_address", "socketAddress"])?;
            peer.get("address")?.as_str().map(str::to_owned)
        };
        let client_ip = exchange.client_ip(settings, peer().as_deref());
        let mut read = Ok(());
        if let Some(message) = self.request {
            exchange.at_ns = message.at_ns();
            let asked = request((message.headers, texts), client_ip).and_then(|half| {
                let half = exchange.request.insert(half);
                let body = read_body(message.body, texts, &mut exchange.remarks)?;
                half.body = body;
                Ok(())
            });
            exchange.left_out(message.trailers);
            read = asked;
        }
        if let Some(message) = self.response {
            exchange.response_at_ns = message.at_ns();
            let answered = response((message.headers, texts)).and_then(|half| {
                let half = exchange.response.insert(half);
                let body = read_body(message.body, texts, &mut exchange.remarks)?;
                half.body = body;
                Ok(())
            });
            exchange.left_out(message.trailers);
            read = read.and(answered);
        }
        read
    }
}

impl Message {
    fn at_ns(&self) -> Option<i64> {
        self.headers_received_time.as_deref().and_then(nanoseconds)
    }
}

impl ExchangeParts {
    /// Trailers belong to no event.
    fn left_out(&mut self, trailers: bool) {
        if trailers {
            self.remark(Remark::PartsLeftOut);
        }
    }
}

impl Segment {
    fn read(
        self,
        texts: Texts,
        settings: &DecodeSettings,
        exchange: &mut ExchangeParts,
    ) -> Result<(), String> {
        if let Some(id) = self.trace_id.filter(|id| !id.is_empty()) {
            exchange.own_id = Some(format!("trace-{id}"));
        }
        exchange.left_out(self.request_trailers || self.response_trailers);
        if let Some(fields) = self.request_headers {
            let client_ip = exchange.client_ip(settings, None);
            exchange.request = Some(request((fields.headers, texts), client_ip)?);
        }
        if let Some(chunk) = self.request_body_chunk {
            let bytes = read_body(Some(chunk), texts, &mut exchange.remarks)?;
            match &mut exchange.request {
                Some(half) => half.body.extend(bytes),
                None => return exchange.without_head(),
            }
        }
        if let Some(fields) = self.response_headers {
            exchange.response = Some(response((fields.headers, texts))?);
        }
        if let Some(chunk) = self.response_body_chunk {
            let bytes = read_body(Some(chunk), texts, &mut exchange.remarks)?;
            match &mut exchange.response {
                Some(half) => half.body.extend(bytes),
                None => return exchange.without_head(),
            }
        }
        Ok(())
    }
}

impl ExchangeParts {
    /// A part of a body can be asked about only behind its head.
    fn without_head(&mut self) -> Result<(), String> {
        self.remark(Remark::StartMissing);
        Err(
            "expected the headers of the message before this chunk of its body, found none"
                .to_owned(),
        )
    }
}

fn fields((fields, texts): (Vec<Field>, Texts)) -> Result<Headers, String> {
    fields
        .into_iter()
        .map(|field| {
            let key = texts.text(field.key.unwrap_or_default());
            let value = match (field.raw_value, field.value) {
                (Some(raw), _) => {
                    let what = format!("\"raw_value\" of {:?}", printable(&key, 40));
                    headers::text(&base_64::read(&STANDARD, &raw, what)?)
                }
                (None, value) if key == ":path" => texts.target(value.unwrap_or_default()),
                (None, value) => texts.text(value.unwrap_or_default()),
            };
            Ok((key, value))
        })
        .collect()
}

fn request(raw: (Vec<Field>, Texts), client_ip: String) -> Result<Half<RequestHead>, String> {
    let mut headers = fields(raw)?;
    let pseudo = headers::split_pseudo(&mut headers);
    let pseudo = |name| {
        let value = pseudo.value(name).filter(|value| !value.is_empty());
        value
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

fn response(raw: (Vec<Field>, Texts)) -> Result<Half<ResponseHead>, String> {
    let mut headers = fields(raw)?;
    let pseudo = headers::split_pseudo(&mut headers);
    let status = pseudo
        .value(":status")
        .and_then(|status| status.parse().ok())
        .filter(|status| STATUSES.contains(status))
        .ok_or("expected a response header \":status\" from 100 to 999, found none")?;
    Ok(Half::response(status, headers, Vec::new()))
}

fn read_body(
    body: Option<Body>,
    texts: Texts,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<u8>, String> {
    let Some(body) = body else {
        return Ok(Vec::new());
    };
    if body.truncated && !remarks.contains(&Remark::BodyTruncated) {
        remarks.push(Remark::BodyTruncated);
    }
    match (body.as_bytes, body.as_string) {
        (Some(bytes), _) => base_64::read(&STANDARD, &bytes, "\"as_bytes\""),
        (None, text) => Ok(texts.bytes(text.unwrap_or_default())),
    }
}
