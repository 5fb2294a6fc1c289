//! Envoy's HTTP tap as JSON: buffered traces, and streamed segments that are
//! brought together by their trace id. Names in either of protobuf's spellings.

use std::fmt;

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use memchr::memmem;
use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::assemble::{RecordRole, Roles, SameId, assemble};
use super::detect::Keys;
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::lenient::{Text, is_filled, text};
use super::parts::STATUSES;
use super::progress::{Chunk, Part};
use super::surrogates::{self, Texts};
use super::{DecodeSettings, ExchangeParts, Format, Half, Piece, Remark, base_64, headers, http1};
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
        #[serde(alias = "httpBufferedTrace")]
        http_buffered_trace: Option<IgnoredAny>,
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
    let record = &piece.bytes;
    let segment = match serde_json::from_slice::<Wrapper>(record) {
        Ok(Wrapper {
            http_streamed_trace_segment: Some(segment),
            ..
        }) => segment,
        Ok(wrapper) if wrapper.http_buffered_trace.is_some() => return RecordRole::Alone,
        // A trace of another kind.
        Ok(_) if memmem::find(record, b"\"socket").is_some() => return RecordRole::Alone,
        _ => return RecordRole::Unreadable(ids_in(record)),
    };
    // Chunks have no numbers, and nothing follows trailers.
    let chunk = |trailers: &Option<IgnoredAny>| Chunk {
        index: None,
        is_last: trailers.is_some(),
    };
    let part = if segment.request_headers.is_some() {
        Part::RequestHead
    } else if segment.response_headers.is_some() {
        if is_only_interim(record) {
            return RecordRole::Skip(Remark::PartsLeftOut);
        }
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

/// The trace ids that stand in a record that is no JSON; none where one is not whole.
fn ids_in(record: &[u8]) -> Vec<Bytes> {
    let mut ids = Vec::new();
    let keys = [&b"\"trace_id\""[..], b"\"traceId\""].into_iter();
    for (key, at) in keys.flat_map(|key| memmem::find_iter(record, key).map(move |at| (key, at))) {
        let value = record[at + key.len()..].trim_ascii_start();
        let value = value.strip_prefix(b":").unwrap_or_default();
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").unwrap_or(value);
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        let (id, rest) = value.split_at(digits.count());
        if id.is_empty() || rest.is_empty() {
            return Vec::new();
        }
        ids.push(Bytes::copy_from_slice(id));
    }
    ids
}

/// Whether a segment is nothing but an interim response, which no event has: the one
/// that counts is to come.
fn is_only_interim(record: &[u8]) -> bool {
    // Its status begins with 1, in base64 with M.
    let may_be = [&b"\"1"[..], b"\"M"];
    if !may_be
        .iter()
        .any(|text| memmem::find(record, text).is_some())
    {
        return false;
    }
    let Ok((wrapper, texts)) = surrogates::parse::<Wrapper<IgnoredAny>>(record) else {
        return false;
    };
    let segment = wrapper.http_streamed_trace_segment.unwrap_or_default();
    let is_alone = segment.request_body_chunk.is_none() && segment.response_body_chunk.is_none();
    let head = segment.response_headers.filter(|_| is_alone);
    let head = head.and_then(|head| response((head.headers.0, texts)).ok());
    head.is_some_and(|half| http1::is_interim(half.head.status))
}

#[derive(Deserialize)]
#[serde(bound = "R: DeserializeOwned")]
struct Wrapper<R> {
    #[serde(alias = "httpBufferedTrace")]
    http_buffered_trace: Option<Buffered<R>>,
    #[serde(alias = "httpStreamedTraceSegment")]
    http_streamed_trace_segment: Option<Segment>,
}

/// A trace, with its response if that has the shape of one.
#[derive(Deserialize)]
#[serde(bound = "R: DeserializeOwned")]
struct Buffered<R> {
    request: Option<Message>,
    response: Option<R>,
    #[serde(alias = "downstreamConnection", default)]
    downstream_connection: Value,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    headers: FieldList,
    #[serde(default, deserialize_with = "is_filled")]
    trailers: bool,
    body: Option<Body>,
    #[serde(alias = "headersReceivedTime", default, deserialize_with = "text")]
    headers_received_time: Option<String>,
}

#[derive(Deserialize, Default)]
struct Segment {
    #[serde(alias = "traceId", default, deserialize_with = "text")]
    trace_id: Option<String>,
    #[serde(alias = "requestHeaders")]
    request_headers: Option<Fields>,
    #[serde(alias = "requestBodyChunk")]
    request_body_chunk: Option<Body>,
    #[serde(alias = "requestTrailers")]
    request_trailers: Option<IsFilled>,
    #[serde(alias = "responseHeaders")]
    response_headers: Option<Fields>,
    #[serde(alias = "responseBodyChunk")]
    response_body_chunk: Option<Body>,
    #[serde(alias = "responseTrailers")]
    response_trailers: Option<IsFilled>,
}

#[derive(Deserialize)]
struct IsFilled(#[serde(deserialize_with = "is_filled")] bool);

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    headers: FieldList,
}

/// A list of fields; some tools write it as an object.
#[derive(Default)]
struct FieldList(Vec<Field>);

#[derive(Deserialize, Default)]
struct Field {
    #[serde(alias = "name", default, deserialize_with = "text")]
    key: Option<String>,
    #[serde(default, deserialize_with = "text")]
    value: Option<String>,
    #[serde(alias = "rawValue", default, deserialize_with = "text")]
    raw_value: Option<String>,
    /// Where a `HeaderValueOption` has them.
    header: Option<Box<Field>>,
}

#[derive(Default)]
struct Body {
    as_bytes: Option<String>,
    as_string: Option<String>,
    is_truncated: bool,
    /// It has something that is none of these.
    is_odd: bool,
}

impl<'de> Deserialize<'de> for FieldList {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = FieldList;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of header fields")
            }

            fn visit_unit<E>(self) -> Result<FieldList, E> {
                Ok(FieldList::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FieldList, A::Error> {
                let mut fields = Vec::with_capacity(list.size_hint().unwrap_or(16));
                while let Some(field) = list.next_element()? {
                    fields.push(field);
                }
                Ok(FieldList(fields))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldList, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, Text(value))) = map.next_entry()? {
                    fields.push(Field {
                        key: Some(key),
                        value,
                        ..Field::default()
                    });
                }
                Ok(FieldList(fields))
            }
        }
        reader.deserialize_any(Shapes)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Body;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a body")
            }

            fn visit_str<E>(self, text: &str) -> Result<Body, E> {
                Ok(Body {
                    as_string: Some(text.to_owned()),
                    ..Body::default()
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut body = Body::default();
                while let Some(key) = map.next_key::<String>()? {
                    let known = match key.as_str() {
                        "as_bytes" | "asBytes" => &mut body.as_bytes,
                        "as_string" | "asString" => &mut body.as_string,
                        "truncated" => {
                            body.is_truncated |= map.next_value::<IsFilled>()?.0;
                            continue;
                        }
                        _ => {
                            body.is_odd |= map.next_value::<IsFilled>()?.0;
                            continue;
                        }
                    };
                    if known.is_some() {
                        return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    *known = map.next_value::<Text>()?.0;
                }
                Ok(body)
            }
        }
        reader.deserialize_any(Shapes)
    }
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let (wrapper, texts) = match surrogates::parse::<Wrapper<Message>>(record) {
        Ok(read) => read,
        Err(why) => {
            // A response of another shape does not cost the request.
            let request_alone = surrogates::parse::<Wrapper<IgnoredAny>>(record);
            let (wrapper, texts) = request_alone.map_err(|_same| why.clone())?;
            if let Some(mut trace) = wrapper.http_buffered_trace {
                trace.read_request(texts, settings, exchange)?;
            }
            return Err(why);
        }
    };
    match (
        wrapper.http_buffered_trace,
        wrapper.http_streamed_trace_segment,
    ) {
        (Some(trace), None) => trace.read(texts, settings, exchange),
        (None, Some(segment)) => segment.read(texts, settings, exchange),
        (Some(trace), Some(_)) => {
            trace.read(texts, settings, exchange)?;
            Err("expected one HTTP trace, found a buffered one and a segment".to_owned())
        }
        (None, None) => Err(format!(
            "expected an HTTP trace ({}), found another kind of trace or none",
            WRAPPERS[..4].join(", ")
        )),
    }
}

impl<R> Buffered<R> {
    /// A body that cannot be used does not cost its head.
    fn read_request(
        &mut self,
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
        let Some(message) = self.request.take() else {
            return Ok(());
        };
        exchange.at_ns = message.at_ns();
        exchange.left_out(message.trailers);
        let half = request((message.headers.0, texts), client_ip)?;
        let half = exchange.request.insert(half);
        half.body = read_body(message.body, texts, &mut exchange.remarks)?;
        Ok(())
    }
}

impl Buffered<Message> {
    /// One half that cannot be used does not cost the other.
    fn read(
        mut self,
        texts: Texts,
        settings: &DecodeSettings,
        exchange: &mut ExchangeParts,
    ) -> Result<(), String> {
        let asked = self.read_request(texts, settings, exchange);
        let Some(message) = self.response else {
            return asked;
        };
        exchange.response_at_ns = message.at_ns();
        exchange.left_out(message.trailers);
        let answered = response((message.headers.0, texts)).and_then(|half| {
            let half = exchange.response.insert(half);
            half.body = read_body(message.body, texts, &mut exchange.remarks)?;
            Ok(())
        });
        asked.and(answered)
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
        let trailers = [&self.request_trailers, &self.response_trailers];
        let trailers = trailers.into_iter().flatten();
        let has_part = trailers.clone().next().is_some()
            || self.request_headers.is_some()
            || self.request_body_chunk.is_some()
            || self.response_headers.is_some()
            || self.response_body_chunk.is_some();
        if !has_part {
            return Err(
                "expected headers, a chunk of a body or trailers in this segment, found none"
                    .to_owned(),
            );
        }
        exchange.left_out(trailers.clone().any(|it| it.0));
        if let Some(fields) = self.request_headers {
            let client_ip = exchange.client_ip(settings, None);
            exchange.request = Some(request((fields.headers.0, texts), client_ip)?);
        }
        if let Some(chunk) = self.request_body_chunk {
            let bytes = read_body(Some(chunk), texts, &mut exchange.remarks)?;
            match &mut exchange.request {
                Some(half) => half.body.extend(bytes),
                None => return exchange.without_head(),
            }
        }
        if let Some(fields) = self.response_headers {
            exchange.response = Some(response((fields.headers.0, texts))?);
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
    let inner = |field: Field| {
        field
            .header
            .map_or((field.key, field.value, field.raw_value), |inner| {
                (inner.key, inner.value, inner.raw_value)
            })
    };
    fields
        .into_iter()
        .map(inner)
        .map(|(key, value, raw)| {
            let key = texts.text(key.unwrap_or_default());
            if key.is_empty() {
                return Err("expected the name of a header as \"key\", found none".to_owned());
            }
            let value = value.unwrap_or_default();
            let value = if key == ":path" {
                texts.target(value)
            } else {
                texts.text(value)
            };
            let Some(raw) = raw.filter(|raw| !raw.is_empty()) else {
                return Ok((key, value));
            };
            let what = format!("\"raw_value\" of {:?}", printable(&key, 40));
            // Readers of protobuf's JSON take either alphabet, with padding or without.
            let plain = raw
                .trim_end_matches('=')
                .replace('-', "+")
                .replace('_', "/");
            let bytes = base_64::read(&STANDARD_NO_PAD, &plain, what)?;
            let raw = if key == ":path" {
                headers::target(&bytes)
            } else {
                headers::text(&bytes)
            };
            if !value.is_empty() && value != raw {
                let key = printable(&key, 40);
                return Err(format!(
                    "expected one value of {key:?}, found another one as \"raw_value\""
                ));
            }
            Ok((key, raw))
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
    if body.is_odd {
        return Err(
            "expected a body with \"as_bytes\" or \"as_string\", found other keys".to_owned(),
        );
    }
    if body.is_truncated && !remarks.contains(&Remark::BodyTruncated) {
        remarks.push(Remark::BodyTruncated);
    }
    let bytes = body.as_bytes.filter(|bytes| !bytes.is_empty());
    let text = body.as_string.filter(|text| !text.is_empty());
    match (bytes, text) {
        (Some(_), Some(_)) => {
            Err("expected one of \"as_bytes\" and \"as_string\", found both".to_owned())
        }
        (Some(bytes), None) => base_64::read(&STANDARD, &bytes, "\"as_bytes\""),
        (None, text) => Ok(texts.bytes(text.unwrap_or_default())),
    }
}
