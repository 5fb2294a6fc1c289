//! Events: from a frame's payload to a [`Message`], in one pass.
//!
//! One visitor reads every event in every encoding: keys in any order, unknown
//! ones skipped, repeated ones (MessagePack proxies write the correlation id
//! twice) the last one taken. What an event must have is looked at afterwards,
//! so that a broken event still says whom it was about.

use std::fmt;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use super::values::{Data, HeaderMap, WithText};
use super::{BadMessage, Encoding, HttpVersion, Message, RequestType};
use crate::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead, bare_ip};
use crate::fault::BadEvent;
use crate::json::read::FastReader;
use crate::protocol::shortened::Shortened;

/// MessagePack nests by one byte a level; nothing real nests deeper than this.
const MAX_MESSAGE_PACK_DEPTH: usize = 128;

/// Reads the payload of a v2 frame of this type.
///
/// # Errors
/// A [`BadMessage`] with the correlation id, where there is one to be found.
pub fn read_v2(
    kind: RequestType,
    encoding: Encoding,
    payload: &[u8],
) -> Result<Message, BadMessage> {
    let mut fields = Fields::default();
    let read = match encoding {
        Encoding::Json => read_json(payload, &mut fields),
        Encoding::MessagePack => {
            let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
            reader.set_max_depth(MAX_MESSAGE_PACK_DEPTH);
            FieldsSeed(&mut fields)
                .deserialize(&mut reader)
                .map_err(|error| message_pack_problem(&error))
        }
    };
    fields.into_message(Some(kind), read, payload)
}

/// Reads a v1 frame.
///
/// # Errors
/// A [`BadMessage`]; v1 answers in order and needs no correlation id.
pub fn read_v1(payload: &[u8]) -> Result<Message, BadMessage> {
    let mut envelope = Envelope::default();
    let read = read_json(payload, &mut envelope);
    let read = read.and(match (&envelope.kind, envelope.has_payload) {
        (None, _) => Err((BadEvent::Missing, "event_type")),
        (Some(None), _) => Err((BadEvent::UnknownType, "event_type")),
        (Some(Some(_)), false) => Err((BadEvent::Missing, "payload")),
        (Some(Some(kind)), true) => {
            if *kind == RequestType::Configure {
                envelope
                    .fields
                    .correlation_id
                    .get_or_insert_with(String::new);
            }
            Ok(())
        }
    });
    envelope
        .fields
        .into_message(envelope.kind.flatten(), read, payload)
}

/// What a payload is read into, by any reader.
trait Filled: Default {
    fn fill<'de, D: Deserializer<'de>>(&mut self, reader: D) -> Result<(), D::Error>;
}

impl Filled for Fields {
    fn fill<'de, D: Deserializer<'de>>(&mut self, reader: D) -> Result<(), D::Error> {
        FieldsSeed(self).deserialize(reader)
    }
}

impl Filled for Envelope {
    fn fill<'de, D: Deserializer<'de>>(&mut self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(EnvelopeSeed(self))
    }
}

fn read_json<F: Filled>(payload: &[u8], into: &mut F) -> Result<(), Problem> {
    if FastReader::read(payload, |reader: &mut FastReader<'_>| into.fill(reader)).is_ok() {
        return Ok(());
    }
    // People's JSON, rare JSON, or none: another reader knows.
    *into = F::default();
    // Looked at once as a whole, text need not be looked at string by string.
    let read = if let Ok(text) = std::str::from_utf8(payload) {
        let mut reader = serde_json::Deserializer::from_str(text);
        into.fill(&mut reader).and_then(|()| reader.end())
    } else {
        // What matters may still be text.
        let mut reader = serde_json::Deserializer::from_slice(payload);
        into.fill(&mut reader).and_then(|()| reader.end())
    };
    read.map_err(|error| json_problem(&error))
}

/// What is wrong, and at which key.
type Problem = (BadEvent, &'static str);

fn json_problem(error: &serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => (BadEvent::Mistyped, ""),
        _ => (BadEvent::Malformed, ""),
    }
}

fn message_pack_problem(error: &rmp_serde::decode::Error) -> Problem {
    use rmp_serde::decode::Error;
    match error {
        Error::TypeMismatch(_)
        | Error::OutOfRange
        | Error::LengthMismatch(_)
        | Error::Uncategorized(_)
        | Error::Syntax(_) => (BadEvent::Mistyped, ""),
        _ => (BadEvent::Malformed, ""),
    }
}

named! {
    /// Every key that some event has and that matters to us.
    #[derive(Clone, Copy, Default, Deserialize)]
    #[serde(field_identifier, rename_all = "snake_case")]
    enum Key {
        CorrelationId => "correlation_id",
        Metadata => "metadata",
        Method => "method",
        Uri => "uri",
        Headers => "headers",
        Status => "status",
        Data => "data",
        IsLast => "is_last",
        TotalSize => "total_size",
        ChunkIndex => "chunk_index",
        BytesReceived => "bytes_received",
        BytesSent => "bytes_sent",
        Config => "config",
        #[default]
        #[serde(other)]
        Other => "",
    }
}

/// All events' fields together; each event has some of them.
#[derive(Default)]
struct Fields {
    correlation_id: Option<String>,
    metadata: Metadata,
    method: Option<String>,
    uri: Option<String>,
    headers: Option<Headers>,
    status: Option<u16>,
    data: Option<Vec<u8>>,
    is_last: Option<bool>,
    total_size: Option<u64>,
    chunk_index: Option<u32>,
    bytes_received: Option<u64>,
    bytes_sent: Option<u64>,
    config: Value,
    /// The key that is being read.
    at: Key,
}

impl Fields {
    fn into_message(
        mut self,
        kind: Option<RequestType>,
        read: Result<(), Problem>,
        payload: &[u8],
    ) -> Result<Message, BadMessage> {
        let id = self
            .correlation_id
            .take()
            .or_else(|| self.metadata.correlation_id.take());
        let at = self.at.name();
        let problem = match (read, kind, id) {
            (Ok(()), Some(kind), Some(id)) => {
                return match self.missing(kind) {
                    None => Ok(self.into_kind(kind, id)),
                    Some(at) => Err(BadMessage {
                        what: BadEvent::Missing,
                        at,
                        correlation_id: Some(id),
                    }),
                };
            }
            (Ok(()), _, None) => ((BadEvent::Missing, "correlation_id"), None),
            (Ok(()), None, id) => ((BadEvent::UnknownType, ""), id),
            (Err((what, "")), _, id) => ((what, at), id),
            (Err(problem), _, id) => (problem, id),
        };
        let ((what, at), id) = problem;
        Err(BadMessage {
            what,
            at,
            correlation_id: id.or_else(|| find_id(payload)),
        })
    }

    /// The first key that is missing for a message of this kind.
    fn missing(&self, kind: RequestType) -> Option<&'static str> {
        let needed: &[(bool, &'static str)] = match kind {
            RequestType::RequestHeaders => &[
                (self.method.is_some(), "method"),
                (self.uri.is_some(), "uri"),
                (self.metadata.client_ip.is_some(), "client_ip"),
                (self.headers.is_some(), "headers"),
            ],
            RequestType::ResponseHeaders => &[
                (self.status.is_some(), "status"),
                (self.headers.is_some(), "headers"),
            ],
            RequestType::RequestBodyChunk | RequestType::ResponseBodyChunk => &[
                (self.is_last.is_some(), "is_last"),
                (self.data.is_some(), "data"),
            ],
            _ => &[],
        };
        let missing = needed.iter().find(|(is_there, _)| !is_there);
        missing.map(|(_, key)| *key)
    }

    /// The message; nothing is missing for it.
    fn into_kind(self, kind: RequestType, correlation_id: String) -> Message {
        match kind {
            RequestType::RequestHeaders => {
                let version = self.metadata.version();
                let head = RequestHead {
                    correlation_id,
                    method: self.method.unwrap_or_default(),
                    uri: self.uri.unwrap_or_default(),
                    client_ip: self.metadata.client_ip.unwrap_or_default(),
                    headers: self.headers.unwrap_or_default(),
                };
                Message::Event(Event::RequestHeaders(head), version)
            }
            RequestType::ResponseHeaders => Message::of(Event::ResponseHeaders(ResponseHead {
                correlation_id,
                status: self.status.unwrap_or_default(),
                headers: self.headers.unwrap_or_default(),
            })),
            RequestType::RequestBodyChunk => Message::of(Event::RequestBody {
                chunk: self.into_chunk(correlation_id, |fields| fields.bytes_received),
                request: None,
            }),
            RequestType::ResponseBodyChunk => Message::of(Event::ResponseBody {
                chunk: self.into_chunk(correlation_id, |fields| fields.bytes_sent),
                request: None,
                response: None,
            }),
            RequestType::RequestComplete
            | RequestType::WebSocketFrame
            | RequestType::GuardrailInspect => Message::Unhandled {
                correlation_id,
                ends_exchange: kind == RequestType::RequestComplete,
            },
            RequestType::Configure => Message::Configure {
                correlation_id,
                config: self.config,
            },
        }
    }

    fn into_chunk(
        self,
        correlation_id: String,
        transferred: impl FnOnce(&Self) -> Option<u64>,
    ) -> BodyChunk {
        BodyChunk {
            correlation_id,
            chunk_index: self.chunk_index.unwrap_or(0),
            is_last: self.is_last.unwrap_or_default(),
            total_size: self.total_size,
            transferred_bytes: transferred(&self).unwrap_or(0),
            data: self.data.unwrap_or_default(),
        }
    }
}

struct FieldsSeed<'a>(&'a mut Fields);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an event object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let fields = self.0;
        while let Some(key) = map.next_key()? {
            fields.at = key;
            match key {
                Key::CorrelationId => fields.correlation_id = Some(map.next_value()?),
                Key::Metadata => map.next_value_seed(MetadataSeed(&mut fields.metadata))?,
                Key::Method => fields.method = Some(map.next_value()?),
                Key::Uri => fields.uri = Some(map.next_value()?),
                Key::Headers => fields.headers = Some(map.next_value::<HeaderMap>()?.0),
                Key::Status => fields.status = Some(map.next_value()?),
                Key::Data => fields.data = Some(map.next_value::<Data>()?.0),
                Key::IsLast => fields.is_last = Some(map.next_value()?),
                Key::TotalSize => fields.total_size = map.next_value()?,
                Key::ChunkIndex => fields.chunk_index = map.next_value()?,
                Key::BytesReceived => fields.bytes_received = map.next_value()?,
                Key::BytesSent => fields.bytes_sent = map.next_value()?,
                Key::Config => fields.config = map.next_value::<Shortened>()?.0,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// What matters of a request's metadata.
#[derive(Default)]
struct Metadata {
    correlation_id: Option<String>,
    client_ip: Option<String>,
    server_name: Option<String>,
    protocol: Option<String>,
}

impl Metadata {
    fn version(&self) -> HttpVersion {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        HttpVersion::of(protocol, self.server_name.as_deref())
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MetadataKey {
    CorrelationId,
    ClientIp,
    ServerName,
    Protocol,
    #[serde(other)]
    Other,
}

struct MetadataSeed<'a>(&'a mut Metadata);

impl<'de> DeserializeSeed<'de> for MetadataSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a metadata object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key()? {
            match key {
                MetadataKey::CorrelationId => self.0.correlation_id = Some(map.next_value()?),
                MetadataKey::ClientIp => {
                    self.0.client_ip = Some(map.next_value_seed(WithText(bare_ip))?);
                }
                MetadataKey::ServerName => self.0.server_name = map.next_value()?,
                MetadataKey::Protocol => self.0.protocol = map.next_value()?,
                MetadataKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    /// Older MessagePack proxies write the fields in order and without names:
    /// correlation id, request id, client address and port, server name,
    /// protocol, five or six more.
    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        self.0.correlation_id = list.next_element()?;
        list.next_element::<IgnoredAny>()?;
        self.0.client_ip = list.next_element_seed(WithText(bare_ip))?;
        list.next_element::<IgnoredAny>()?;
        self.0.server_name = list.next_element()?.flatten();
        self.0.protocol = list.next_element()?.flatten();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// The v1 frame around an event.
#[derive(Default)]
struct Envelope {
    /// None without the key, `Some(None)` where nobody knows the type.
    kind: Option<Option<RequestType>>,
    has_payload: bool,
    fields: Fields,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum EnvelopeKey {
    EventType,
    Payload,
    #[serde(other)]
    Other,
}

struct EnvelopeSeed<'a>(&'a mut Envelope);

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an envelope object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key()? {
            match key {
                EnvelopeKey::EventType => {
                    let name: String = map.next_value()?;
                    self.0.kind = Some(RequestType::from_name(&name));
                }
                EnvelopeKey::Payload => {
                    if self.0.has_payload {
                        return Err(M::Error::custom("two payloads"));
                    }
                    map.next_value_seed(FieldsSeed(&mut self.0.fields))?;
                    self.0.has_payload = true;
                }
                EnvelopeKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The correlation id of a message that does not parse: the first one that is
/// written down anywhere in it. Inside a JSON string the quotes of such a key
/// would be escaped, so no header value can pose as one.
fn find_id(payload: &[u8]) -> Option<String> {
    const JSON_KEY: &[u8] = b"\"correlation_id\"";
    const PACKED_KEY: &[u8] = b"\xaecorrelation_id";
    let after = |key: &'static [u8]| {
        payload
            .windows(key.len())
            .enumerate()
            .filter(move |(_, window)| *window == key)
            .map(move |(at, _)| &payload[at + key.len()..])
    };
    let json = after(JSON_KEY).find_map(|rest| {
        let rest = rest.trim_ascii_start().strip_prefix(b":")?;
        serde_json::Deserializer::from_slice(rest)
            .into_iter::<String>()
            .next()?
            .ok()
    });
    json.or_else(|| {
        after(PACKED_KEY).find_map(|rest| {
            String::deserialize(&mut rmp_serde::Deserializer::from_read_ref(rest)).ok()
        })
    })
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
