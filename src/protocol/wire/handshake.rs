//! The v2 handshake: the proxy says what it speaks, the agent answers once.
//!
//! Both messages are JSON whatever encoding is agreed upon.

use serde::{Deserialize, Serialize};

use super::Encoding;

/// The version of the protocol we speak on a handshake.
pub(crate) const PROTOCOL_VERSION: u32 = 2;
/// Events a module may have handlers for, as both sides number them. Configure
/// is left out: clients disagree about its number.
pub(crate) const SUPPORTED_EVENTS: [u8; 4] = [1, 2, 3, 4];
/// What the documentation of both sides calls the largest message.
pub(crate) const MAX_BODY_BYTES: u64 = 10_485_760;
/// A hint to proxies that send bodies in chunks.
pub(crate) const PREFERRED_CHUNK_BYTES: u64 = 65_536;

/// The proxy's first message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HandshakeRequest {
    /// Protocol versions the proxy speaks.
    pub supported_versions: Vec<u32>,
    /// Which proxy.
    #[serde(default)]
    pub proxy_id: String,
    /// The version of its protocol crate.
    #[serde(default)]
    pub proxy_version: String,
    /// Encodings the proxy speaks, the preferred one first; none means JSON.
    #[serde(default)]
    pub supported_encodings: Vec<String>,
}

impl HandshakeRequest {
    /// Reads the payload of a handshake frame.
    ///
    /// # Errors
    /// Where it is no such object.
    pub fn read(payload: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(payload)
    }

    /// Whether the proxy speaks a version that we speak.
    #[must_use]
    pub fn speaks_ours(&self) -> bool {
        self.supported_versions.contains(&PROTOCOL_VERSION)
    }

    /// The first encoding of the proxy's that we know; JSON if there is none.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.supported_encodings
            .iter()
            .find_map(|name| match name.as_str() {
                "json" => Some(Encoding::Json),
                "msgpack" => Some(Encoding::MessagePack),
                _ => None,
            })
            .unwrap_or_default()
    }
}

/// Who answers, and how much at once.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The agent's id.
    pub agent_id: &'a str,
    /// Events that may be in flight on one connection.
    pub in_flight: u32,
    /// Whether it sends reports of its metrics.
    pub metrics: bool,
}

/// Appends the payload of the answer: what is agreed on, or why nothing is.
pub fn write_response(result: Result<Encoding, &str>, identity: Identity<'_>, out: &mut Vec<u8>) {
    let response = HandshakeResponse {
        protocol_version: PROTOCOL_VERSION,
        success: result.is_ok(),
        error: result.err(),
        encoding: match result {
            Ok(Encoding::MessagePack) => "msgpack",
            _ => "json",
        },
        capabilities: Capabilities {
            agent_id: identity.agent_id,
            name: "wasm-agent",
            version: env!("CARGO_PKG_VERSION"),
            supported_events: SUPPORTED_EVENTS,
            features: Features {
                streaming_body: true,
                config_push: true,
                metrics_export: identity.metrics,
                concurrent_requests: identity.in_flight,
                cancellation: true,
                health_reporting: true,
                ..Features::default()
            },
            limits: HandshakeLimits {
                max_body_size: MAX_BODY_BYTES,
                max_concurrency: identity.in_flight,
                preferred_chunk_size: PREFERRED_CHUNK_BYTES,
            },
        },
    };
    // Neither these types nor a Vec can fail.
    let _ = serde_json::to_writer(out, &response);
}

/// Clients require every key of the three inner objects.
#[derive(Serialize)]
struct HandshakeResponse<'a> {
    protocol_version: u32,
    success: bool,
    error: Option<&'a str>,
    encoding: &'static str,
    capabilities: Capabilities<'a>,
}

#[derive(Serialize)]
struct Capabilities<'a> {
    agent_id: &'a str,
    name: &'static str,
    version: &'static str,
    supported_events: [u8; 4],
    features: Features,
    limits: HandshakeLimits,
}

#[derive(Serialize, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the protocol's own list of features"
)]
struct Features {
    streaming_body: bool,
    websocket: bool,
    guardrails: bool,
    config_push: bool,
    metrics_export: bool,
    concurrent_requests: u32,
    cancellation: bool,
    flow_control: bool,
    health_reporting: bool,
}

#[derive(Serialize)]
struct HandshakeLimits {
    max_body_size: u64,
    max_concurrency: u32,
    preferred_chunk_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::recorded;

    #[test]
    fn the_handshake_of_a_released_proxy_is_read() {
        let handshakes: Vec<_> = recorded::v2()
            .into_iter()
            .filter(|frame| frame.kind == 0x01)
            .collect();
        assert_eq!(handshakes.len(), 4);
        for frame in handshakes {
            let request = HandshakeRequest::read(&frame.payload).unwrap();
            assert!(request.speaks_ours());
            assert_eq!(request.proxy_version, "0.6.45");
            assert_eq!(request.encoding(), Encoding::Json);
        }
    }

    #[test]
    fn encodings_follow_the_proxys_order() {
        let request = |encodings: &str| {
            let json = format!(r#"{{"supported_versions":[2],"supported_encodings":{encodings}}}"#);
            HandshakeRequest::read(json.as_bytes()).unwrap().encoding()
        };
        assert_eq!(request(r#"["msgpack","json"]"#), Encoding::MessagePack);
        assert_eq!(request(r#"["json","msgpack"]"#), Encoding::Json);
        assert_eq!(request(r#"["cbor"]"#), Encoding::Json);
        assert_eq!(request("[]"), Encoding::Json);
    }

    #[test]
    fn the_answer_has_every_key_that_clients_require() {
        let identity = Identity {
            agent_id: "wasm",
            in_flight: 100,
            metrics: true,
        };
        let mut out = Vec::new();
        write_response(Ok(Encoding::MessagePack), identity, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"protocol_version":2,"success":true,"error":null,"encoding":"msgpack","capabilities":{"agent_id":"wasm","name":"wasm-agent","version":""#,
                env!("CARGO_PKG_VERSION"),
                r#"","supported_events":[1,2,3,4],"features":{"streaming_body":true,"websocket":false,"guardrails":false,"config_push":true,"metrics_export":true,"concurrent_requests":100,"cancellation":true,"flow_control":false,"health_reporting":true},"limits":{"max_body_size":10485760,"max_concurrency":100,"preferred_chunk_size":65536}}}"#
            )
        );
        let mut out = Vec::new();
        write_response(Err("no common version"), identity, &mut out);
        let refusal: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(refusal["success"], false);
        assert_eq!(refusal["error"], "no common version");
    }
}
