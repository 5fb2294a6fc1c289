//! Reads what an agent sends to a client.

use std::borrow::Cow;
use std::fmt;

use prost::Message as _;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::frames::{BEFORE_ID, PLACEHOLDER, slot};
use super::{AskError, Protocol};
use crate::fault::printable;
use crate::protocol::grpc::proto::{AgentToProxy, agent_to_proxy};
use crate::protocol::wire::frame::{Frame, kind};
use crate::response::DecisionKind;

/// The tags by which an agent says that it failed.
const FAILED: [&str; 3] = ["wasm-error", "overload", "timeout"];

/// What a frame says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// The handshake came to this.
    Welcome(Result<(), String>),
    /// An answer, to the event in this place; in v1 to the one asked.
    Answer {
        slot: Option<usize>,
        decision: &'static str,
        failed: Option<String>,
    },
    /// The agent is there.
    Pong,
    /// Nothing that was asked for: health, metrics.
    Other,
}

/// Reads a frame.
pub(super) fn read(protocol: Protocol, frame: Frame<'_>) -> Result<Said, AskError> {
    if protocol == Protocol::Grpc {
        return read_grpc(frame.payload);
    }
    let is_answer = protocol == Protocol::V1 || frame.kind == kind::AGENT_RESPONSE;
    if !is_answer {
        return Ok(match frame.kind {
            kind::HANDSHAKE_RESPONSE => Said::Welcome(welcome(frame.payload)?),
            kind::PONG => Said::Pong,
            _ => Said::Other,
        });
    }
    let answer: AnswerText<'_> = parsed(frame.payload, "an answer")?;
    let slot = match (protocol, answer.audit.custom.correlation_id) {
        (Protocol::V1, _) => None,
        (_, Some(id)) => Some(slot(&id)?),
        (_, None) => {
            return Err(AskError::Protocol(
                "expected audit.custom.correlation_id in an answer, found none: a proxy could not tell whose it is".to_owned(),
            ));
        }
    };
    Ok(Said::Answer {
        slot,
        decision: answer.decision.0,
        failed: failure(&answer.audit.tags, &answer.audit.reason_codes),
    })
}

/// Reads a frame of our own that came back.
pub(super) fn read_echo(protocol: Protocol, frame: Frame<'_>) -> Result<Said, AskError> {
    let slot = match protocol {
        Protocol::V1 => None,
        Protocol::V2 => {
            let id = memchr::memmem::find(frame.payload, BEFORE_ID)
                .and_then(|place| frame.payload.get(place + BEFORE_ID.len()..))
                .and_then(|id| std::str::from_utf8(id.get(..PLACEHOLDER.len())?).ok());
            Some(slot(id.unwrap_or_default())?)
        }
        Protocol::Grpc => return Err(AskError::Protocol("gRPC has no echo".to_owned())),
    };
    Ok(Said::Answer {
        slot,
        decision: "none",
        failed: None,
    })
}

fn read_grpc(payload: &[u8]) -> Result<Said, AskError> {
    use crate::protocol::grpc::proto::agent_response::Decision;
    let message = AgentToProxy::decode(payload)
        .map_err(|error| AskError::Protocol(format!("not a message of the service: {error}")))?;
    Ok(match message.message {
        Some(agent_to_proxy::Message::Handshake(response)) => Said::Welcome(if response.success {
            Ok(())
        } else {
            Err(response.error.unwrap_or_default())
        }),
        Some(agent_to_proxy::Message::Response(answer)) => {
            let audit = answer.audit.unwrap_or_default();
            let text = |list: Vec<String>| list.into_iter().map(Cow::Owned).collect::<Vec<_>>();
            Said::Answer {
                slot: Some(slot(&answer.correlation_id)?),
                decision: match answer.decision {
                    Some(Decision::Allow(_)) => "allow",
                    Some(Decision::Block(_)) => "block",
                    Some(Decision::Redirect(_)) => "redirect",
                    Some(Decision::Challenge(_)) => "challenge",
                    None => "none",
                },
                failed: failure(&text(audit.tags), &text(audit.reason_codes)),
            }
        }
        Some(agent_to_proxy::Message::Pong(_)) => Said::Pong,
        _ => Said::Other,
    })
}

fn decision_name(word: &str) -> &'static str {
    DecisionKind::from_name(word).map_or("none", DecisionKind::name)
}

/// An answer that says its agent failed is no measurement.
fn failure(tags: &[Cow<'_, str>], reasons: &[Cow<'_, str>]) -> Option<String> {
    let failed = tags.iter().any(|tag| FAILED.contains(&tag.as_ref()));
    failed.then(|| {
        let all = if reasons.is_empty() { tags } else { reasons };
        printable(&all.join(", "), 200)
    })
}

fn parsed<'a, T: Deserialize<'a>>(payload: &'a [u8], what: &str) -> Result<T, AskError> {
    serde_json::from_slice(payload).map_err(|error| {
        let found = printable(&String::from_utf8_lossy(payload), 120);
        AskError::Protocol(format!("expected {what}, found {found:?}: {error}"))
    })
}

#[derive(Deserialize)]
struct AnswerText<'a> {
    decision: DecisionWord,
    #[serde(borrow, default)]
    audit: Audit<'a>,
}

/// A decision's name: a word, or what stands first in an object.
struct DecisionWord(&'static str);

impl<'de> Deserialize<'de> for DecisionWord {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Name;

        impl<'de> Visitor<'de> for Name {
            type Value = DecisionWord;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a decision, a word or an object")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<DecisionWord, E> {
                Ok(DecisionWord(decision_name(word)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DecisionWord, A::Error> {
                let mut name = "none";
                let mut is_first = true;
                while let Some(word) = map.next_key::<Cow<'de, str>>()? {
                    if is_first {
                        name = decision_name(&word);
                    }
                    is_first = false;
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(DecisionWord(name))
            }
        }

        reader.deserialize_any(Name)
    }
}

#[derive(Default, Deserialize)]
struct Audit<'a> {
    #[serde(borrow, default)]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    reason_codes: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    custom: Custom<'a>,
}

#[derive(Default, Deserialize)]
struct Custom<'a> {
    #[serde(borrow, default)]
    correlation_id: Option<Cow<'a, str>>,
}

fn welcome(payload: &[u8]) -> Result<Result<(), String>, AskError> {
    #[derive(Deserialize)]
    struct Welcome {
        success: bool,
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        encoding: Option<String>,
    }
    let welcome: Welcome = parsed(payload, "a handshake")?;
    Ok(match (welcome.success, welcome.encoding.as_deref()) {
        (true, None | Some("json")) => Ok(()),
        (true, Some(other)) => Err(format!("it requires the encoding {other}")),
        (false, _) => Err(welcome.error.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::frames::write;
    use super::*;

    #[test]
    fn answers_say_whose_they_are_and_whether_they_failed() {
        let answer = |text: &str| {
            let mut out = Vec::new();
            assert!(write(
                Protocol::V2,
                kind::AGENT_RESPONSE,
                &mut out,
                text.as_bytes()
            ));
            read(Protocol::V2, Protocol::V2.frame(&out).unwrap().unwrap())
        };
        let id = "c-0001-0017-000000000009";
        let allow = answer(&format!(
            r#"{{"version":2,"decision":"allow","audit":{{"custom":{{"correlation_id":"{id}"}}}}}}"#
        ));
        assert_eq!(
            allow.unwrap(),
            Said::Answer {
                slot: Some(17),
                decision: "allow",
                failed: None
            }
        );
        let failed = answer(&format!(
            r#"{{"version":2,"decision":{{"block":{{"status":500}}}},"audit":{{"tags":["wasm-error"],"reason_codes":["deadline"],"custom":{{"correlation_id":"{id}"}}}}}}"#
        ));
        assert_eq!(
            failed.unwrap(),
            Said::Answer {
                slot: Some(17),
                decision: "block",
                failed: Some("deadline".to_owned())
            }
        );
        for bad in [
            r#"{"version":2,"decision":"allow"}"#,
            r#"{"version":2,"decision":"allow","audit":{"custom":{"correlation_id":"x"}}}"#,
            r#"{"version":2,"decision":7,"audit":{"custom":{"correlation_id":"c-0001-0017-000000000009"}}}"#,
            "{}",
            "",
        ] {
            assert!(answer(bad).is_err(), "{bad}");
        }
    }
}
