//! Request frames: made once and sent often, each time with an id of its own.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::{Ask, AskError};
use crate::event::{BodyChunk, Event, Headers};
use crate::fault::printable;
use crate::protocol::grpc::proto::{self, ProxyToAgent, proxy_to_agent};
use crate::protocol::wire::RequestType;
use crate::protocol::wire::frame::{Protocol, kind};

/// Where the id of an event goes; as long as every id.
pub(super) const PLACEHOLDER: &str = "c-0000-0000-000000000000";
/// The three numbers within an id; the second is the place among those in
/// flight.
const NUMBERS: [Range<usize>; 3] = [2..6, SLOT, 12..24];
const SLOT: Range<usize> = 7..11;
/// What stands before the id in an event's JSON.
pub(super) const BEFORE_ID: &[u8] = b"\"correlation_id\":\"";

/// Events that share an id, asked about one after the other.
#[derive(Debug, Clone)]
pub struct ExchangeFrames {
    pub(super) steps: Vec<Step>,
}

/// One event as a frame with places for the id.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: String,
    frame: Vec<u8>,
    places: Vec<usize>,
}

impl ExchangeFrames {
    /// Frames of these events.
    ///
    /// # Errors
    /// Where an event is beyond the protocol's limit.
    pub fn new(protocol: Protocol, asks: &[Ask]) -> Result<Self, AskError> {
        let steps = asks
            .iter()
            .map(|ask| Step::new(protocol, ask))
            .collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }

    /// Bytes of its frames, each with all its prefixes.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.steps.iter().map(|step| step.frame.len()).sum()
    }
}

impl Step {
    fn new(protocol: Protocol, ask: &Ask) -> Result<Self, AskError> {
        let mut frame = Vec::new();
        let kind = RequestType::from(ask.event.kind());
        let payload = match protocol {
            Protocol::V1 => {
                let payload = payload(&ask.event, false);
                let event = json!({
                    "version": 1, "event_type": kind.name(), "payload": payload,
                });
                event.to_string().into_bytes()
            }
            Protocol::V2 => payload(&ask.event, true).to_string().into_bytes(),
            Protocol::Grpc => packed(message(&ask.event)),
        };
        let fits = write(protocol, kind as u8, &mut frame, &payload);
        if !fits {
            return Err(AskError::Protocol(format!(
                "{}: the event is larger than the protocol's largest message",
                ask.name
            )));
        }
        let id = PLACEHOLDER.as_bytes();
        let places = frame
            .windows(id.len())
            .enumerate()
            .filter_map(|(place, part)| (part == id).then_some(place))
            .collect();
        Ok(Self {
            name: ask.name.clone(),
            frame,
            places,
        })
    }

    /// Appends the frame under an id made of the three numbers.
    pub(super) fn write(&self, numbers: [usize; 3], out: &mut Vec<u8>) {
        let id = id(numbers);
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for place in &self.places {
            out[start + place..][..id.len()].copy_from_slice(&id);
        }
    }
}

/// The placeholder with connection, slot and number in it: `format!` would
/// take a good part of the time that an event takes its caller.
fn id(numbers: [usize; 3]) -> [u8; PLACEHOLDER.len()] {
    let mut id = [0; PLACEHOLDER.len()];
    id.copy_from_slice(PLACEHOLDER.as_bytes());
    for (place, mut number) in NUMBERS.into_iter().zip(numbers) {
        for digit in id[place].iter_mut().rev() {
            *digit = b"0123456789"[number % 10];
            number /= 10;
        }
    }
    id
}

pub(super) fn write(protocol: Protocol, kind: u8, out: &mut Vec<u8>, payload: &[u8]) -> bool {
    protocol.write(kind, out, |out| out.extend_from_slice(payload))
}

/// The event as JSON, as a proxy writes it.
fn payload(event: &Event, has_id: bool) -> Value {
    let id = PLACEHOLDER;
    let mut payload = match event {
        Event::RequestHeaders(head) => json!({
            "metadata": {
                "correlation_id": id, "request_id": id, "client_ip": head.client_ip,
                "client_port": 0, "server_name": null, "protocol": "HTTP/1.1",
                "tls_version": null, "tls_cipher": null, "route_id": "bench",
                "upstream_id": null, "timestamp": "2026-01-01T00:00:00Z",
            },
            "method": head.method, "uri": head.uri, "headers": header_map(&head.headers),
        }),
        Event::ResponseHeaders(head) => json!({
            "correlation_id": id, "status": head.status, "headers": header_map(&head.headers),
        }),
        Event::RequestBody { chunk, .. } => body(chunk, "bytes_received"),
        Event::ResponseBody { chunk, .. } => body(chunk, "bytes_sent"),
    };
    if has_id && let Some(object) = payload.as_object_mut() {
        object.insert("correlation_id".to_owned(), id.into());
    }
    payload
}

fn header_map(headers: &Headers) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        let values = map.entry(name.to_lowercase()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.into());
        }
    }
    map.into()
}

fn body(chunk: &BodyChunk, transferred: &str) -> Value {
    json!({
        "correlation_id": PLACEHOLDER, "data": STANDARD.encode(&chunk.data),
        "is_last": chunk.is_last, "total_size": chunk.total_size,
        "chunk_index": chunk.chunk_index, transferred: chunk.transferred_bytes,
    })
}

fn message(event: &Event) -> proxy_to_agent::Message {
    use proxy_to_agent::Message;
    let id = || PLACEHOLDER.to_owned();
    let headers = |headers: &Headers| {
        let header = |(name, value): (&str, &str)| proto::Header {
            name: name.to_lowercase(),
            value: value.to_owned(),
        };
        headers.iter().map(header).collect()
    };
    let chunk = |chunk: &BodyChunk| proto::BodyChunkEvent {
        correlation_id: id(),
        chunk_index: chunk.chunk_index,
        data: chunk.data.clone(),
        is_last: chunk.is_last,
        total_size: chunk.total_size,
        bytes_transferred: chunk.transferred_bytes,
        ..Default::default()
    };
    match event {
        Event::RequestHeaders(head) => Message::RequestHeaders(proto::RequestHeadersEvent {
            metadata: Some(proto::RequestMetadata {
                correlation_id: id(),
                request_id: id(),
                client_ip: head.client_ip.clone(),
                protocol: "HTTP/1.1".to_owned(),
                ..Default::default()
            }),
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: headers(&head.headers),
            ..Default::default()
        }),
        Event::ResponseHeaders(head) => Message::ResponseHeaders(proto::ResponseHeadersEvent {
            correlation_id: id(),
            status_code: head.status.into(),
            headers: headers(&head.headers),
        }),
        Event::RequestBody { chunk: sent, .. } => Message::RequestBodyChunk(chunk(sent)),
        Event::ResponseBody { chunk: sent, .. } => Message::ResponseBodyChunk(chunk(sent)),
    }
}

/// The first frame of a connection; v1 has none.
pub(super) fn handshake(protocol: Protocol) -> Option<Vec<u8>> {
    const PROXY: &str = "zentinel-proxy";
    const VERSION: &str = "0.6.45";
    let json = json!({
        "supported_versions": [2], "proxy_id": PROXY, "proxy_version": VERSION,
        "config": null, "supported_encodings": ["json"],
    });
    let grpc = proxy_to_agent::Message::Handshake(proto::HandshakeRequest {
        supported_versions: vec![2, 1],
        proxy_id: PROXY.to_owned(),
        proxy_version: VERSION.to_owned(),
        config_json: "{}".to_owned(),
    });
    control(protocol, (kind::HANDSHAKE_REQUEST, &json), grpc)
}

/// A question whether the agent is there; v1 has none.
pub(super) fn ping(protocol: Protocol, number: usize) -> Option<Vec<u8>> {
    let sequence = number as u64;
    let json = json!({"sequence": sequence, "timestamp_ms": 0});
    let grpc = proxy_to_agent::Message::Ping(proto::Ping {
        sequence,
        ..Default::default()
    });
    control(protocol, (kind::PING, &json), grpc)
}

/// The frame of a message that is no event, as v2 and gRPC have it; v1 has none.
fn control(
    protocol: Protocol,
    (kind, json): (u8, &Value),
    grpc: proxy_to_agent::Message,
) -> Option<Vec<u8>> {
    let payload = match protocol {
        Protocol::V1 => return None,
        Protocol::V2 => json.to_string().into_bytes(),
        Protocol::Grpc => packed(grpc),
    };
    let mut out = Vec::new();
    let fits = write(protocol, kind, &mut out, &payload);
    debug_assert!(fits, "it is small");
    Some(out)
}

fn packed(message: proxy_to_agent::Message) -> Vec<u8> {
    ProxyToAgent {
        message: Some(message),
    }
    .encode_to_vec()
}

pub(super) fn slot(id: &str) -> Result<usize, AskError> {
    id.get(SLOT)
        .and_then(|slot| slot.parse().ok())
        .ok_or_else(|| {
            AskError::Protocol(format!(
                "an answer to {:?}, which was never sent",
                printable(id, 60)
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::super::answers::{Said, read_echo};
    use super::*;
    use crate::event::{RequestHead, ResponseHead};
    use crate::protocol::wire::frame::Frame;
    use crate::protocol::wire::{self, Encoding};

    fn head() -> RequestHead {
        RequestHead {
            correlation_id: "c-0007-0042-000000000003".to_owned(),
            method: "POST".to_owned(),
            uri: "/a?b=ü".to_owned(),
            client_ip: "192.0.2.7".to_owned(),
            headers: Headers::from([("accept", "a"), ("accept", "b")]),
        }
    }

    fn events() -> Vec<Event> {
        let chunk = BodyChunk {
            correlation_id: head().correlation_id,
            chunk_index: 2,
            is_last: true,
            total_size: Some(9),
            transferred_bytes: 9,
            data: b"\x00\xffabc".to_vec(),
        };
        vec![
            Event::RequestHeaders(head()),
            Event::RequestBody {
                chunk: chunk.clone(),
                request: None,
            },
            Event::ResponseHeaders(ResponseHead {
                correlation_id: head().correlation_id,
                status: 503,
                headers: head().headers,
            }),
            Event::ResponseBody {
                chunk,
                request: None,
                response: None,
            },
        ]
    }

    /// What a client writes, the agent reads: the same event, under the id.
    #[test]
    fn an_agent_reads_what_is_asked() {
        for event in events() {
            let ask = Ask {
                name: "x".to_owned(),
                event: event.clone(),
            };
            for protocol in [Protocol::V1, Protocol::V2] {
                let step = Step::new(protocol, &ask).unwrap();
                let mut out = Vec::new();
                step.write([7, 42, 3], &mut out);
                let frame = protocol.frame(&out).unwrap().unwrap();
                assert_eq!(frame.size, out.len());
                let read = match protocol {
                    Protocol::V1 => wire::event::read_v1(frame.payload),
                    _ => wire::event::read_v2(
                        RequestType::from_byte(frame.kind).unwrap(),
                        Encoding::Json,
                        frame.payload,
                    ),
                };
                assert_eq!(
                    read,
                    Ok(wire::Message::Event(event.clone(), version(&event))),
                    "{protocol:?}"
                );
            }
            let step = Step::new(Protocol::Grpc, &ask).unwrap();
            let mut out = Vec::new();
            step.write([7, 42, 3], &mut out);
            let frame = Protocol::Grpc.frame(&out).unwrap().unwrap();
            let read = crate::protocol::grpc::read(frame.payload).unwrap();
            let message = wire::Message::Event(event.clone(), version(&event));
            assert_eq!(read, crate::protocol::grpc::Inbound::Message(Ok(message)));
        }
    }

    /// What the metadata of a request says of it.
    fn version(event: &Event) -> wire::HttpVersion {
        match event {
            Event::RequestHeaders(_) => wire::HttpVersion::One,
            _ => wire::HttpVersion::Other,
        }
    }

    #[test]
    fn ids_hold_their_numbers_and_an_echo_brings_them_back() {
        let id = id([7, 42, 1_234_567]);
        assert_eq!(id, *b"c-0007-0042-000001234567");
        let ask = Ask {
            name: "x".to_owned(),
            event: events().remove(0),
        };
        for (protocol, place) in [(Protocol::V1, None), (Protocol::V2, Some(42))] {
            let mut out = Vec::new();
            Step::new(protocol, &ask)
                .unwrap()
                .write([7, 42, 3], &mut out);
            let frame = protocol.frame(&out).unwrap().unwrap();
            let Said::Answer { slot, .. } = read_echo(protocol, frame).unwrap() else {
                panic!("no answer");
            };
            assert_eq!(slot, place);
        }
        let other = Frame {
            kind: 0x10,
            payload: b"{}",
            size: 7,
        };
        assert!(read_echo(Protocol::V2, other).is_err());
    }
}
