//! The answer to an event, as clients read it.
//!
//! In: an agent response that was decided and adapted. Out: the payload of its
//! frame. Keys that may be absent are written as null, which every client
//! takes.

use std::io::Write as _;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Encoding;
use super::frame::{Protocol, kind};
use crate::json::{Object, response as json, write_serialized};
use crate::protocol::grpc;
use crate::response::{AgentResponse, BodyMutation, Decision};

/// How a replacement of a request body is written. Released proxies use the
/// string's bytes as they are; upstream's documentation says base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestBodyText {
    /// The text itself; bytes that are no text cannot be sent. The default.
    #[default]
    Verbatim,
    /// Base64, for a proxy that decodes.
    Base64,
}

/// How the answers of one connection are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The protocol of the connection.
    pub protocol: Protocol,
    /// What the handshake agreed on; JSON in v1.
    pub encoding: Encoding,
    /// How request bodies are replaced.
    pub request_body: RequestBodyText,
}

impl Dialect {
    /// Appends the frame of an answer. Says whether it was within the
    /// protocol's limit and could be encoded; if not, `out` is as before.
    #[must_use]
    pub fn write(self, response: &AgentResponse, correlation_id: &str, out: &mut Vec<u8>) -> bool {
        let wire = WireResponse {
            response,
            correlation_id,
            dialect: self,
        };
        let kind = kind::AGENT_RESPONSE;
        match (self.protocol, self.encoding) {
            (Protocol::Grpc, _) => self.protocol.write(kind, out, |out| {
                grpc::write(grpc::answer(response, correlation_id), out);
            }),
            (_, Encoding::Json) => self.protocol.write(kind, out, |out| wire.write_json(out)),
            (_, Encoding::MessagePack) => wire.message_pack().is_some_and(|packed| {
                let write = |out: &mut Vec<u8>| out.extend_from_slice(&packed);
                self.protocol.write(kind, out, write)
            }),
        }
    }
}

struct WireResponse<'a> {
    response: &'a AgentResponse,
    correlation_id: &'a str,
    dialect: Dialect,
}

impl WireResponse<'_> {
    /// The same as JSON says: no released proxy asks for it, so it is written only
    /// once, and read again here. None where it cannot be read: the library keeps
    /// a key for itself, which a module may choose too.
    fn message_pack(&self) -> Option<Vec<u8>> {
        let mut json = Vec::new();
        self.write_json(&mut json);
        let read: Value = serde_json::from_slice(&json).ok()?;
        rmp_serde::to_vec(&read).ok()
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let response = self.response;
        let v2 = self.dialect.protocol == Protocol::V2;
        let mut object = Object::new(out);
        object.raw("version", if v2 { "2" } else { "1" });
        match &response.decision {
            Decision::Allow => object.raw("decision", "\"allow\""),
            Decision::Block { status, body } => {
                let mut decision = object.object("decision");
                let mut block = decision.object("block");
                block.number("status", (*status).into());
                match body {
                    None => block.raw("body", "null"),
                    Some(body) => block.text("body", body),
                }
                let headers = response.block_headers();
                if headers.is_empty() {
                    block.raw("headers", "null");
                } else {
                    let mut object = block.object("headers");
                    for (name, value) in &headers {
                        object.pair(name, value);
                    }
                    object.end();
                }
                block.end();
                decision.end();
            }
            other => write_serialized(other, object.key("decision")),
        }
        json::changes(response, &mut object);
        let mut audit = object.object("audit");
        json::labels(&response.audit, &mut audit);
        write_serialized(&response.audit.confidence, audit.key("confidence"));
        json::reasons(&response.audit, &mut audit);
        let mut custom = audit.object("custom");
        if v2 {
            custom.text("correlation_id", self.correlation_id);
        }
        custom.end();
        audit.end();
        object.flag("needs_more", response.needs_more);
        let verbatim = self.dialect.request_body == RequestBodyText::Verbatim;
        for (key, mutation, verbatim) in [
            (
                "request_body_mutation",
                &response.request_body_mutation,
                verbatim,
            ),
            (
                "response_body_mutation",
                &response.response_body_mutation,
                false,
            ),
        ] {
            match mutation {
                None => object.raw(key, "null"),
                Some(mutation) => write_mutation(mutation, verbatim, object.object(key)),
            }
        }
        object.raw("websocket_decision", "null");
        object.end();
    }
}

/// The change of a body: as text where that is wanted and can be, or as base64.
fn write_mutation(mutation: &BodyMutation, verbatim: bool, mut object: Object<'_>) {
    let bytes = &mutation.data;
    // Nothing written to a Vec fails.
    let _ = match std::str::from_utf8(bytes) {
        Ok(text) if verbatim => {
            object.text("data", text);
            Ok(())
        }
        _ => write!(
            object.key("data"),
            "\"{}\"",
            Base64Display::new(bytes, &STANDARD)
        ),
    };
    object.number("chunk_index", mutation.chunk_index.into());
    object.end();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::response::HeaderOp;

    const JSON: Dialect = Dialect {
        protocol: Protocol::V2,
        encoding: Encoding::Json,
        request_body: RequestBodyText::Verbatim,
    };

    fn payload(dialect: Dialect, response: &AgentResponse) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(dialect.write(response, "c1", &mut out));
        let frame = dialect.protocol.frame(&out).unwrap().unwrap();
        assert_eq!(frame.size, out.len());
        frame.payload.to_vec()
    }

    fn full() -> AgentResponse {
        let mut response = AgentResponse::new(Decision::Block {
            status: 403,
            body: Some("no".to_owned()),
        });
        response.tag("t");
        response.audit.confidence = Some(0.9);
        response.response_headers = vec![
            HeaderOp::Set {
                name: "a".to_owned(),
                value: "b".to_owned(),
            },
            HeaderOp::Remove {
                name: "c".to_owned(),
            },
        ];
        response.request_body_mutation = Some(BodyMutation {
            chunk_index: 1,
            data: b"plain".to_vec(),
        });
        response.response_body_mutation = Some(BodyMutation {
            chunk_index: 2,
            data: b"coded".to_vec(),
        });
        response
    }

    #[test]
    fn json_is_what_the_protocol_shows() {
        assert_eq!(
            String::from_utf8(payload(JSON, &full())).unwrap(),
            r#"{"version":2,"decision":{"block":{"status":403,"body":"no","headers":{"a":"b"}}},"request_headers":[],"response_headers":[{"set":{"name":"a","value":"b"}},{"remove":{"name":"c"}}],"routing_metadata":{},"audit":{"tags":["t"],"rule_ids":[],"confidence":0.9,"reason_codes":[],"custom":{"correlation_id":"c1"}},"needs_more":false,"request_body_mutation":{"data":"plain","chunk_index":1},"response_body_mutation":{"data":"Y29kZWQ=","chunk_index":2},"websocket_decision":null}"#
        );
    }

    #[test]
    fn v1_has_its_version_and_no_correlation_id() {
        let dialect = Dialect {
            protocol: Protocol::V1,
            ..JSON
        };
        assert_eq!(
            String::from_utf8(payload(dialect, &AgentResponse::allow())).unwrap(),
            r#"{"version":1,"decision":"allow","request_headers":[],"response_headers":[],"routing_metadata":{},"audit":{"tags":[],"rule_ids":[],"confidence":null,"reason_codes":[],"custom":{}},"needs_more":false,"request_body_mutation":null,"response_body_mutation":null,"websocket_decision":null}"#
        );
    }

    #[test]
    fn message_pack_says_the_same_in_named_maps() {
        let packed = Dialect {
            encoding: Encoding::MessagePack,
            ..JSON
        };
        for response in [full(), AgentResponse::allow()] {
            assert_eq!(value(packed, &response), value(JSON, &response));
        }
    }

    #[test]
    fn message_pack_keeps_every_bit_of_a_number() {
        let packed = Dialect {
            encoding: Encoding::MessagePack,
            ..JSON
        };
        let mut response = AgentResponse::allow();
        for confidence in [2.010387583309772e-08, f64::MIN_POSITIVE, 0.1] {
            response.audit.confidence = Some(confidence);
            let read = value(packed, &response);
            assert_eq!(read["audit"]["confidence"].as_f64(), Some(confidence));
        }
    }

    /// The library's own mark of a value that was not read.
    #[test]
    fn what_cannot_be_encoded_is_not_written() {
        let packed = Dialect {
            encoding: Encoding::MessagePack,
            ..JSON
        };
        let mut response = AgentResponse::allow();
        let key = "$serde_json::private::RawValue".to_owned();
        response.routing_metadata.insert(key, "{".to_owned());
        let mut out = Vec::new();
        assert!(!packed.write(&response, "c1", &mut out));
        assert!(out.is_empty());
    }

    fn value(dialect: Dialect, response: &AgentResponse) -> Value {
        let payload = payload(dialect, response);
        match dialect.encoding {
            Encoding::Json => serde_json::from_slice(&payload).unwrap(),
            Encoding::MessagePack => rmp_serde::from_slice(&payload).unwrap(),
        }
    }

    proptest! {
        /// Two writers, one response: whatever text stands in it.
        #[test]
        fn any_response_is_the_same_in_both(
            texts in prop::collection::vec(any::<String>(), 5),
            confidence in prop::option::of(0.0..=1.0_f64),
            needs_more in any::<bool>(),
            pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
            decision in 0..4_u8,
            data in any::<Vec<u8>>(),
        ) {
            let text = |place: usize| texts[place].clone();
            let mut response = AgentResponse::new(match decision {
                0 => Decision::Allow,
                1 => Decision::Block { status: 403, body: Some(text(0)) },
                2 => Decision::Redirect { url: text(0), status: 302 },
                _ => Decision::Challenge { challenge_type: text(0), params: pairs.clone() },
            });
            response.request_headers = vec![
                HeaderOp::Set { name: text(1), value: text(2) },
                HeaderOp::Add { name: text(1), value: text(3) },
                HeaderOp::Remove { name: text(3) },
            ];
            response.routing_metadata = pairs;
            response.audit.tags = texts.clone();
            response.audit.rule_ids = vec![text(4)];
            response.audit.confidence = confidence;
            response.needs_more = needs_more;
            response.request_body_mutation = Some(BodyMutation { chunk_index: 0, data: text(0).into_bytes() });
            response.response_body_mutation = Some(BodyMutation { chunk_index: 9, data });
            let mut own = Vec::new();
            json::write(&response, &mut own);
            prop_assert_eq!(String::from_utf8(own).unwrap(), serde_json::to_string(&response).unwrap());
            for protocol in [Protocol::V1, Protocol::V2] {
                let json = Dialect { protocol, ..JSON };
                let packed = Dialect { encoding: Encoding::MessagePack, ..json };
                prop_assert_eq!(value(json, &response), value(packed, &response));
            }
        }
    }

    #[test]
    fn request_bodies_can_be_written_for_a_proxy_that_decodes() {
        let dialect = Dialect {
            request_body: RequestBodyText::Base64,
            ..JSON
        };
        let json: Value = serde_json::from_slice(&payload(dialect, &full())).unwrap();
        assert_eq!(json["request_body_mutation"]["data"], "cGxhaW4=");
    }

    #[test]
    fn what_is_too_large_for_the_protocol_is_not_written() {
        let mut response = AgentResponse::allow();
        response.response_body_mutation = Some(BodyMutation {
            chunk_index: 0,
            data: vec![0; 13 << 20],
        });
        let mut out = Vec::new();
        assert!(!JSON.write(&response, "c1", &mut out));
        assert!(out.is_empty());
    }
}
