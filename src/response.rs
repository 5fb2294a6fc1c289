//! What the proxy is told: the agent response, in the shape it has on the wire.
//!
//! In: an answer that was checked, or a fault that was decided about. Out: one
//! [`AgentResponse`], which serializes as the response object that proxies read
//! (less `version` and the correlation id, which belong to the transport).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};

/// The tag of an answer about a chunk whose instance was not asked about all chunks
/// before. We give it: which instance a chunk meets is no answer of the module.
pub(crate) const INSTANCE_CHANGED: &str = "instance-changed";

/// What is to become of the request or response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Block {
        /// HTTP status, 200 to 599.
        status: u16,
        /// Body for the client, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// Send the client elsewhere.
    Redirect {
        /// An http or https URL, or an absolute path.
        url: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// Ask the client to prove something first.
    Challenge {
        /// What kind of proof.
        challenge_type: String,
        /// Parameters of that kind.
        params: BTreeMap<String, String>,
    },
}

named! {
    /// A decision without its details.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum DecisionKind {
        /// Let it pass.
        Allow => "allow",
        /// Refuse it; also spelled `deny`.
        #[serde(alias = "deny")]
        Block => "block",
        /// Send the client elsewhere.
        Redirect => "redirect",
        /// Ask the client to prove something first.
        Challenge => "challenge",
    }
}

impl Decision {
    /// What kind of decision it is.
    #[must_use]
    pub const fn kind(&self) -> DecisionKind {
        match self {
            Self::Allow => DecisionKind::Allow,
            Self::Block { .. } => DecisionKind::Block,
            Self::Redirect { .. } => DecisionKind::Redirect,
            Self::Challenge { .. } => DecisionKind::Challenge,
        }
    }

    /// The word for this decision in reports and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The HTTP status the decision carries, if it carries one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Block { status, .. } | Self::Redirect { status, .. } => Some(*status),
            Self::Allow | Self::Challenge { .. } => None,
        }
    }
}

/// One change to a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderOp {
    /// Replace all values of the name by this one.
    Set {
        /// Header name, a token.
        name: String,
        /// Header value, free of control characters.
        value: String,
    },
    /// Add a value beside those that the name has.
    Add {
        /// Header name, a token.
        name: String,
        /// Header value, free of control characters.
        value: String,
    },
    /// Take every value of the name away.
    Remove {
        /// Header name, a token.
        name: String,
    },
}

impl HeaderOp {
    /// The header that is changed.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Add { name, .. } | Self::Remove { name } => name,
        }
    }

    /// The value that it brings, if it brings one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Set { value, .. } | Self::Add { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }

    /// Bytes of name and value together.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.name().len() + self.value().map_or(0, str::len)
    }
}

/// Whether a header can have this name: a token (RFC 9110 5.1).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~'))
}

/// What is written down about the decision.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Audit {
    /// Free labels, the module's own and ours.
    pub tags: Vec<String>,
    /// Ids of the rules that fired.
    pub rule_ids: Vec<String>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Short machine-readable reasons; a fault's code is one of them.
    pub reason_codes: Vec<String>,
}

/// A change to one body chunk. An empty replacement drops the chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyMutation {
    /// The chunk that is replaced.
    pub chunk_index: u32,
    /// The bytes to send in its place.
    pub data: Vec<u8>,
}

impl Serialize for BodyMutation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("BodyMutation", 3)?;
        out.serialize_field("chunk_index", &self.chunk_index)?;
        if let Ok(text) = std::str::from_utf8(&self.data) {
            out.serialize_field("data", text)?;
            out.serialize_field("encoding", "utf8")?;
        } else {
            out.serialize_field("data", &STANDARD.encode(&self.data))?;
            out.serialize_field("encoding", "base64")?;
        }
        out.end()
    }
}

/// The whole answer to one event.
/// ```
/// use wasm_agent_kit::response::{AgentResponse, Decision};
///
/// fn status_to_send(response: &AgentResponse) -> Option<u16> {
///     match &response.decision {
///         Decision::Allow => None,
///         Decision::Block { status, .. } | Decision::Redirect { status, .. } => Some(*status),
///         Decision::Challenge { .. } => Some(403),
///     }
/// }
/// assert_eq!(status_to_send(&AgentResponse::allow()), None);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentResponse {
    /// What is to be done.
    pub decision: Decision,
    /// Changes to the request on its way to the upstream, in order.
    pub request_headers: Vec<HeaderOp>,
    /// Changes to the response on its way to the client, in order.
    pub response_headers: Vec<HeaderOp>,
    /// Passed on to the proxy's router.
    pub routing_metadata: BTreeMap<String, String>,
    /// What is written down.
    pub audit: Audit,
    /// The decision is provisional until the body has been seen.
    pub needs_more: bool,
    /// Change to a request body chunk.
    pub request_body_mutation: Option<BodyMutation>,
    /// Change to a response body chunk.
    pub response_body_mutation: Option<BodyMutation>,
}

impl AgentResponse {
    /// A response with this decision and nothing else in it.
    #[must_use]
    pub fn new(decision: Decision) -> Self {
        Self {
            decision,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            routing_metadata: BTreeMap::new(),
            audit: Audit::default(),
            needs_more: false,
            request_body_mutation: None,
            response_body_mutation: None,
        }
    }

    /// Allow, nothing changed.
    #[must_use]
    pub fn allow() -> Self {
        Self::new(Decision::Allow)
    }

    /// Headers of the client's answer to a block, whose message has room for one
    /// value of each name. Several values become one list; of cookies, which are
    /// no list (RFC 9110, 5.3), the last one stays.
    pub(crate) fn block_headers(&self) -> Vec<(&str, String)> {
        let mut headers: Vec<(&str, String)> = Vec::new();
        for op in &self.response_headers {
            let name = op.name();
            let same = |(have, _): &(&str, String)| have.eq_ignore_ascii_case(name);
            let place = headers.iter().position(same);
            let before = place.map(|place| headers.remove(place).1);
            let value = match (op, before) {
                (HeaderOp::Remove { .. }, _) => continue,
                (HeaderOp::Add { value, .. }, Some(before))
                    if !name.eq_ignore_ascii_case("set-cookie") =>
                {
                    format!("{before}, {value}")
                }
                (HeaderOp::Set { value, .. } | HeaderOp::Add { value, .. }, _) => value.clone(),
            };
            headers.push((name, value));
        }
        headers
    }

    /// Adds a tag unless it is there already.
    pub fn tag(&mut self, tag: &str) {
        if !self.audit.tags.iter().any(|have| have == tag) {
            self.audit.tags.push(tag.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_one_value_of_each_header() {
        let set = |name: &str, value: &str| HeaderOp::Set {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let add = |name: &str, value: &str| HeaderOp::Add {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let name = "X-Gone".to_owned();
        let mut response = AgentResponse::allow();
        response.response_headers = vec![
            set("x-gone", "1"),
            set("Allow", "PUT"),
            set("allow", "GET"),
            add("ALLOW", "HEAD"),
            add("set-cookie", "a=1"),
            HeaderOp::Remove { name },
            add("Set-Cookie", "b=2"),
        ];
        let expected = [("ALLOW", "GET, HEAD"), ("Set-Cookie", "b=2")];
        let expected = expected.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(response.block_headers(), expected);
    }

    #[test]
    fn a_response_serializes_as_proxies_read_it() {
        let mut response = AgentResponse::new(Decision::Block {
            status: 403,
            body: Some("no".to_owned()),
        });
        response.request_headers = vec![HeaderOp::Remove {
            name: "x-debug".to_owned(),
        }];
        response.response_body_mutation = Some(BodyMutation {
            chunk_index: 2,
            data: vec![0xff],
        });
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"decision":{"block":{"status":403,"body":"no"}},"request_headers":[{"remove":{"name":"x-debug"}}],"response_headers":[],"routing_metadata":{},"audit":{"tags":[],"rule_ids":[],"reason_codes":[]},"needs_more":false,"request_body_mutation":null,"response_body_mutation":{"chunk_index":2,"data":"/w==","encoding":"base64"}}"#
        );
        assert_eq!(
            serde_json::to_string(&AgentResponse::allow().decision).unwrap(),
            r#""allow""#
        );
    }
}
