//! The agent ABI's answer: bytes from a guest, checked into an agent response.
//!
//! In: what a handler returned. Out: a response of which every part may be
//! sent on, or a fault that names the JSON path. Invariant: a fault in an
//! answer that named a refusing decision carries that refusal, so that no
//! failure mode can turn it into an allow.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::EventKind;
use crate::fault::{Fault, FaultCode, Refusal, printable};
use crate::limits::{MAX_HEADER_OPS, MAX_HEADER_OPS_BYTES, MAX_REDIRECT_URL_BYTES};
use crate::response::{AgentResponse, Audit, BodyMutation, Decision, HeaderOp};

/// Every key of the result object. Their order is the order of `Key`.
pub const KEYS: [&str; 17] = [
    "decision",
    "status",
    "body",
    "add_request_headers",
    "add_response_headers",
    "remove_request_headers",
    "remove_response_headers",
    "tags",
    "rule_ids",
    "reason_codes",
    "confidence",
    "challenge_type",
    "challenge_params",
    "routing_metadata",
    "needs_more",
    "request_body_mutation",
    "response_body_mutation",
];

#[derive(Clone, Copy)]
enum Key {
    Decision,
    Status,
    Body,
    AddRequestHeaders,
    AddResponseHeaders,
    RemoveRequestHeaders,
    RemoveResponseHeaders,
    Tags,
    RuleIds,
    ReasonCodes,
    Confidence,
    ChallengeType,
    ChallengeParams,
    RoutingMetadata,
    NeedsMore,
    RequestBodyMutation,
    ResponseBodyMutation,
}

const STATUS_OF_BLOCK: u16 = 403;
const STATUS_OF_REDIRECT: u16 = 302;
const STATUS_OF_BAD_REDIRECT: u16 = 500;

/// Headers that frame a message or route it; a proxy owns them.
const FRAMING_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What an answer is checked against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerPolicy {
    /// Framing headers (`host` and its kin) a module may set all the same,
    /// in lower case.
    pub allowed_headers: Vec<String>,
}

/// An answer that may be sent on.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedAnswer {
    /// The response it asks for.
    pub response: AgentResponse,
    /// Keys the contract does not know; reported on the desk, ignored in
    /// production.
    pub unknown_keys: Vec<String>,
}

/// Checks the answer that a handler gave to an event of this kind.
///
/// `chunk_index` is the event's, for a body event.
///
/// # Errors
/// A [`Fault`] of code `bad-answer:…` that names the JSON path.
pub fn check_answer(
    bytes: &[u8],
    kind: EventKind,
    chunk_index: Option<u32>,
    policy: &AnswerPolicy,
) -> Result<CheckedAnswer, Fault> {
    let text = utf8(bytes)?;
    let mut slots = Slots::default();
    let parsed = read_slots(text, &mut slots);
    let refusal = slots.refusal();
    parsed
        .and_then(|()| slots.into_response(kind, chunk_index, policy))
        .map_err(|mut fault| {
            fault.refusal = refusal;
            fault
        })
}

pub(super) fn bad(what: &'static str, detail: impl Into<String>) -> Fault {
    Fault::new(FaultCode::BadAnswer(what), detail)
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        bad(
            "not-utf8",
            format!(
                "the answer must be UTF-8; byte {} of {} is not",
                error.valid_up_to(),
                bytes.len()
            ),
        )
    })
}

/// The fault of an answer that is no JSON object with distinct keys.
pub(super) fn unread(error: &serde_json::Error, text: &str) -> Fault {
    let shown = printable(text, 60);
    if error.is_data() {
        bad(
            "not-an-object",
            format!("the answer must be a JSON object, found {shown}"),
        )
    } else {
        bad("not-json", format!("{error} in {shown}"))
    }
}

pub(super) fn duplicate(path: &str) -> Fault {
    bad("duplicate-key", format!("{path} stands more than once"))
}

pub(super) fn mistyped(path: &str, expected: &str, found: &RawValue) -> Fault {
    bad(
        "mistyped",
        format!(
            "{path} must be {expected}, found {}",
            printable(found.get(), 60)
        ),
    )
}

fn read_slots<'a>(text: &'a str, slots: &mut Slots<'a>) -> Result<(), Fault> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = SlotReader { slots }
        .deserialize(&mut reader)
        .and_then(|()| reader.end());
    match read {
        Ok(()) => slots
            .duplicate
            .map_or(Ok(()), |key| Err(duplicate(&format!("$.{key}")))),
        Err(error) => Err(unread(&error, text)),
    }
}

/// The raw value of each known key, read in one pass without judging any.
#[derive(Default)]
struct Slots<'a> {
    known: [Option<&'a RawValue>; KEYS.len()],
    /// Every `decision` seen, so that a duplicate cannot hide a refusal.
    refused: Option<Word>,
    duplicate: Option<&'static str>,
    unknown: Vec<String>,
}

struct SlotReader<'s, 'a> {
    slots: &'s mut Slots<'a>,
}

impl<'a> DeserializeSeed<'a> for SlotReader<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for SlotReader<'_, 'a> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<KeyText<'a>>()? {
            let value: &'a RawValue = map.next_value()?;
            let key = key.0.as_ref();
            let Some(slot) = KEYS.iter().position(|known| *known == key) else {
                self.slots.unknown.push(key.to_owned());
                continue;
            };
            if slot == Key::Decision as usize
                && let Some(word) = Word::read(value).filter(|word| word.refuses())
            {
                self.slots.refused.get_or_insert(word);
            }
            if self.slots.known[slot].replace(value).is_some() {
                self.slots.duplicate = Some(KEYS[slot]);
            }
        }
        Ok(())
    }
}

/// A key, borrowed where it holds no escape.
#[derive(Deserialize)]
struct KeyText<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// The word under `decision`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Allow,
    Block,
    Redirect,
    Challenge,
}

impl Word {
    fn read(raw: &RawValue) -> Option<Self> {
        let text: std::borrow::Cow<'_, str> =
            serde_json::from_str::<KeyText<'_>>(raw.get()).ok()?.0;
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if is("allow") {
            Some(Self::Allow)
        } else if is("block") || is("deny") {
            Some(Self::Block)
        } else if is("redirect") {
            Some(Self::Redirect)
        } else if is("challenge") {
            Some(Self::Challenge)
        } else {
            None
        }
    }

    fn refuses(self) -> bool {
        self != Self::Allow
    }
}

impl<'a> Slots<'a> {
    fn get(&self, key: Key) -> Option<&'a RawValue> {
        self.known[key as usize].filter(|raw| raw.get() != "null")
    }

    fn path(key: Key) -> String {
        format!("$.{}", KEYS[key as usize])
    }

    fn refusal(&self) -> Option<Refusal> {
        let word = self.refused?;
        Some(Refusal {
            status: (word == Word::Block)
                .then(|| self.status().ok().flatten())
                .flatten()
                .filter(|status| block_status_is_valid(*status))
                .unwrap_or(STATUS_OF_BLOCK),
        })
    }

    /// The status, or `Err` where there is one that is no small integer.
    fn status(&self) -> Result<Option<u16>, ()> {
        self.get(Key::Status)
            .map(|raw| raw.get().parse::<u16>())
            .transpose()
            .map_err(|_not_a_status| ())
    }

    fn word(&self) -> Result<Word, Fault> {
        let Some(raw) = self.known[Key::Decision as usize] else {
            return Err(bad(
                "no-decision",
                "the answer must have \"decision\": allow, block, deny, redirect or challenge",
            ));
        };
        Word::read(raw).ok_or_else(|| {
            let found = serde_json::from_str::<String>(raw.get());
            let hint = found
                .ok()
                .and_then(|found| nearest(&found))
                .map(|word| format!("; did you mean {word:?}?"))
                .unwrap_or_default();
            bad(
                "unknown-decision",
                format!(
                    "$.decision must be allow, block, deny, redirect or challenge, found {}{hint}",
                    printable(raw.get(), 60)
                ),
            )
        })
    }

    fn into_response(
        mut self,
        kind: EventKind,
        chunk_index: Option<u32>,
        policy: &AnswerPolicy,
    ) -> Result<CheckedAnswer, Fault> {
        let word = self.word()?;
        let mut response = AgentResponse::allow();
        response.audit = Audit {
            tags: self.strings(Key::Tags)?,
            rule_ids: self.strings(Key::RuleIds)?,
            confidence: self.confidence()?,
            reason_codes: self.strings(Key::ReasonCodes)?,
        };
        response.routing_metadata = self.string_map(Key::RoutingMetadata)?;
        response.needs_more = self.needs_more()?;
        response.decision = self.decision(word, &mut response)?;
        self.header_ops(word, policy, &mut response)?;
        response.request_body_mutation = self.mutation(
            Key::RequestBodyMutation,
            (kind == EventKind::RequestBody)
                .then_some(chunk_index)
                .flatten(),
        )?;
        response.response_body_mutation = self.mutation(
            Key::ResponseBodyMutation,
            (kind == EventKind::ResponseBody)
                .then_some(chunk_index)
                .flatten(),
        )?;
        Ok(CheckedAnswer {
            response,
            unknown_keys: std::mem::take(&mut self.unknown),
        })
    }

    fn decision(&self, word: Word, response: &mut AgentResponse) -> Result<Decision, Fault> {
        let body = self.string(Key::Body)?;
        let challenge_type = self.string(Key::ChallengeType)?;
        let params = self.string_map(Key::ChallengeParams)?;
        let mut status = |valid: fn(u16) -> bool, default: u16| match self.status() {
            Ok(None) => default,
            Ok(Some(status)) if valid(status) => status,
            Ok(Some(_)) | Err(()) => {
                response.tag("bad-status");
                default
            }
        };
        Ok(match word {
            Word::Allow => Decision::Allow,
            Word::Block => Decision::Block {
                status: status(block_status_is_valid, STATUS_OF_BLOCK),
                body,
            },
            Word::Redirect => {
                let status = status(redirect_status_is_valid, STATUS_OF_REDIRECT);
                match body.filter(|url| redirect_url_is_usable(url)) {
                    Some(url) => Decision::Redirect { url, status },
                    None => {
                        response.tag("bad-redirect");
                        Decision::Block {
                            status: STATUS_OF_BAD_REDIRECT,
                            body: None,
                        }
                    }
                }
            }
            Word::Challenge => Decision::Challenge {
                challenge_type: challenge_type.ok_or_else(|| {
                    bad(
                        "no-challenge-type",
                        "$.challenge_type is required with the decision challenge",
                    )
                })?,
                params,
            },
        })
    }

    /// Sets in name order, then removes, for both directions. On a refusal bad
    /// operations are dropped and tagged; an allow that cannot be carried out
    /// as asked is a fault.
    fn header_ops(
        &self,
        word: Word,
        policy: &AnswerPolicy,
        response: &mut AgentResponse,
    ) -> Result<(), Fault> {
        let mut budget = OpBudget::default();
        let mut first_bad: Option<String> = None;
        for (set_key, remove_key, request) in [
            (Key::AddRequestHeaders, Key::RemoveRequestHeaders, true),
            (Key::AddResponseHeaders, Key::RemoveResponseHeaders, false),
        ] {
            let sets = self.string_map(set_key)?;
            let removes = self.strings(remove_key)?;
            let wanted = sets
                .into_iter()
                .map(|(name, value)| (set_key, HeaderOp::Set { name, value }))
                .chain(
                    removes
                        .into_iter()
                        .map(|name| (remove_key, HeaderOp::Remove { name })),
                );
            let kept = if request {
                &mut response.request_headers
            } else {
                &mut response.response_headers
            };
            for (key, op) in wanted {
                match op_problem(&op, policy).or_else(|| budget.take(&op)) {
                    None => kept.push(op),
                    Some(problem) => {
                        first_bad.get_or_insert_with(|| {
                            format!(
                                "{}[{:?}]: {problem}",
                                Self::path(key),
                                printable(op.name(), 60)
                            )
                        });
                    }
                }
            }
        }
        match first_bad {
            None => Ok(()),
            Some(_) if word.refuses() => {
                response.tag("bad-header");
                Ok(())
            }
            Some(problem) => Err(bad("bad-header", problem)),
        }
    }

    fn mutation(&self, key: Key, chunk_index: Option<u32>) -> Result<Option<BodyMutation>, Fault> {
        let Some(raw) = self.get(key) else {
            return Ok(None);
        };
        let path = Self::path(key);
        let mutation: Mutation = serde_json::from_str(raw.get()).map_err(|error| {
            bad(
                "mistyped",
                format!(
                    "{path} must be {{\"action\",\"chunk_index\",\"data\",\"encoding\"}}: {error}"
                ),
            )
        })?;
        if mutation.action == Action::PassThrough {
            return Ok(None);
        }
        let wrong = |what: String| Err(bad("body-mutation", format!("{path}{what}")));
        let Some(event_chunk) = chunk_index else {
            return wrong(": this event has no chunk of that body to change".to_owned());
        };
        if mutation
            .chunk_index
            .is_some_and(|index| index != event_chunk)
        {
            return wrong(format!(
                ".chunk_index must be the event's, {event_chunk}, found {}",
                mutation.chunk_index.unwrap_or_default()
            ));
        }
        let data = match (mutation.action, mutation.data, mutation.encoding) {
            (Action::Drop | Action::PassThrough, _, _) => Vec::new(),
            (Action::Replace, None, _) => {
                return wrong(".data is required with the action replace".to_owned());
            }
            (Action::Replace, Some(data), Encoding::Utf8) => data.into_bytes(),
            (Action::Replace, Some(data), Encoding::Base64) => match STANDARD.decode(data) {
                Ok(data) => data,
                Err(error) => return wrong(format!(".data is not base64: {error}")),
            },
        };
        Ok(Some(BodyMutation {
            chunk_index: event_chunk,
            data,
        }))
    }

    fn string(&self, key: Key) -> Result<Option<String>, Fault> {
        self.get(key)
            .map(|raw| {
                serde_json::from_str(raw.get())
                    .map_err(|_type| mistyped(&Self::path(key), "a string", raw))
            })
            .transpose()
    }

    fn needs_more(&self) -> Result<bool, Fault> {
        self.get(Key::NeedsMore).map_or(Ok(false), |raw| {
            serde_json::from_str(raw.get())
                .map_err(|_type| mistyped(&Self::path(Key::NeedsMore), "true or false", raw))
        })
    }

    fn confidence(&self) -> Result<Option<f64>, Fault> {
        let Some(raw) = self.get(Key::Confidence) else {
            return Ok(None);
        };
        serde_json::from_str::<f64>(raw.get())
            .ok()
            .filter(|value| (0.0..=1.0).contains(value))
            .map(Some)
            .ok_or_else(|| mistyped(&Self::path(Key::Confidence), "a number from 0 to 1", raw))
    }

    fn strings(&self, key: Key) -> Result<Vec<String>, Fault> {
        let Some(raw) = self.get(key) else {
            return Ok(Vec::new());
        };
        serde_json::from_str(raw.get()).map_err(|_type| {
            let path = Self::path(key);
            let items: Option<Vec<&RawValue>> = serde_json::from_str(raw.get()).ok();
            items
                .and_then(|items| {
                    items
                        .iter()
                        .enumerate()
                        .find(|(_, item)| serde_json::from_str::<String>(item.get()).is_err())
                        .map(|(at, item)| mistyped(&format!("{path}[{at}]"), "a string", item))
                })
                .unwrap_or_else(|| mistyped(&path, "an array of strings", raw))
        })
    }

    fn string_map(&self, key: Key) -> Result<BTreeMap<String, String>, Fault> {
        let Some(raw) = self.get(key) else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_str(raw.get()).map_err(|_type| {
            let path = Self::path(key);
            let items: Option<BTreeMap<String, &RawValue>> = serde_json::from_str(raw.get()).ok();
            items
                .and_then(|items| {
                    items
                        .iter()
                        .find(|(_, item)| serde_json::from_str::<String>(item.get()).is_err())
                        .map(|(name, item)| {
                            let path = format!("{path}[{:?}]", printable(name, 60));
                            mistyped(&path, "a string", item)
                        })
                })
                .unwrap_or_else(|| mistyped(&path, "an object of strings", raw))
        })
    }
}

#[derive(Deserialize)]
struct Mutation {
    action: Action,
    chunk_index: Option<u32>,
    data: Option<String>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Action {
    PassThrough,
    Replace,
    Drop,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

/// Counts operations and their bytes over both directions.
#[derive(Default)]
struct OpBudget {
    ops: usize,
    bytes: usize,
}

impl OpBudget {
    fn take(&mut self, op: &HeaderOp) -> Option<String> {
        self.ops += 1;
        self.bytes += op.size_bytes();
        if self.ops > MAX_HEADER_OPS {
            return Some(format!("more than {MAX_HEADER_OPS} header operations"));
        }
        (self.bytes > MAX_HEADER_OPS_BYTES)
            .then(|| format!("more than {MAX_HEADER_OPS_BYTES} bytes of header operations"))
    }
}

fn op_problem(op: &HeaderOp, policy: &AnswerPolicy) -> Option<String> {
    if !is_token(op.name()) {
        return Some("a header name must be a token (RFC 9110 5.1)".to_owned());
    }
    let HeaderOp::Set { name, value } = op else {
        return None;
    };
    if let Some(at) = value
        .bytes()
        .position(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
    {
        return Some(format!(
            "a header value must be free of control characters (RFC 9110 5.5), found {:#04x} at byte {at}",
            value.as_bytes()[at]
        ));
    }
    let lower = FRAMING_HEADERS
        .into_iter()
        .find(|framing| framing.eq_ignore_ascii_case(name))?;
    (!policy.allowed_headers.iter().any(|allowed| allowed == lower))
        .then(|| {
            format!("{lower} frames or routes the message and is the proxy's to set (--allow-header {lower} lets it through)")
        })
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~'))
}

const fn block_status_is_valid(status: u16) -> bool {
    200 <= status && status <= 599
}

const fn redirect_status_is_valid(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// http, https or an absolute path. Not `//host`, nor `/\host`, which browsers
/// read as one; not anything that must be percent-encoded first.
fn redirect_url_is_usable(url: &str) -> bool {
    let visible = url.bytes().all(|byte| {
        byte.is_ascii_graphic() && byte != b'\\' && byte != b'"' && byte != b'<' && byte != b'>'
    });
    if !visible || url.len() > MAX_REDIRECT_URL_BYTES {
        return false;
    }
    if url.starts_with('/') {
        return !url.starts_with("//");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && rest
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'[')
}

fn nearest(found: &str) -> Option<&'static str> {
    ["allow", "block", "deny", "redirect", "challenge"]
        .into_iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&found.trim().to_lowercase(), word),
                word,
            )
        })
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decision::{Answer, FailurePolicy, decide};

    fn check(json: &str) -> Result<AgentResponse, Fault> {
        check_answer(
            json.as_bytes(),
            EventKind::RequestHeaders,
            None,
            &AnswerPolicy::default(),
        )
        .map(|answer| answer.response)
    }

    fn decided(bytes: &[u8], policy: FailurePolicy) -> AgentResponse {
        let answer = check_answer(
            bytes,
            EventKind::RequestHeaders,
            None,
            &AnswerPolicy::default(),
        );
        match answer {
            Ok(answer) => decide(Ok(Answer::Given(Box::new(answer.response))), policy),
            Err(fault) => decide(Err(&fault), policy),
        }
    }

    #[test]
    fn every_key_is_read() {
        let response = check(
            r#"{"decision":"DENY","status":418,"body":"tea","add_request_headers":{"b":"2","a":"1"},
            "remove_request_headers":["c"],"add_response_headers":{"d":"4"},"remove_response_headers":["e"],
            "tags":["t"],"rule_ids":["r"],"reason_codes":["R"],"confidence":0.5,"routing_metadata":{"pool":"x"},
            "needs_more":true,"challenge_type":null,"challenge_params":{},"request_body_mutation":{"action":"pass_through"},
            "response_body_mutation":null}"#,
        )
        .unwrap();
        assert_eq!(
            serde_json::to_value(&response).unwrap(),
            serde_json::json!({
                "decision": {"block": {"status": 418, "body": "tea"}},
                "request_headers": [{"set":{"name":"a","value":"1"}},{"set":{"name":"b","value":"2"}},{"remove":{"name":"c"}}],
                "response_headers": [{"set":{"name":"d","value":"4"}},{"remove":{"name":"e"}}],
                "routing_metadata": {"pool": "x"},
                "audit": {"tags":["t"],"rule_ids":["r"],"confidence":0.5,"reason_codes":["R"]},
                "needs_more": true, "request_body_mutation": null, "response_body_mutation": null
            })
        );
    }

    #[test]
    fn unknown_decisions_are_faults_with_a_hint() {
        for word in [
            "denied",
            " block",
            "",
            "ALLOWED",
            "blok",
            "pass",
            "accept",
            "0",
            "null",
            "allow\u{0}",
        ] {
            let fault =
                check(&format!("{{\"decision\":{}}}", serde_json::json!(word))).unwrap_err();
            assert_eq!(
                fault.code,
                FaultCode::BadAnswer("unknown-decision"),
                "{word}"
            );
        }
        assert!(
            check(r#"{"decision":"blok"}"#)
                .unwrap_err()
                .detail
                .contains("\"block\"?")
        );
        for json in [
            r#"{"decision":1}"#,
            r#"{"decision":null}"#,
            r#"{"decision":["block"]}"#,
        ] {
            assert_eq!(
                check(json).unwrap_err().code.to_string(),
                "bad-answer:unknown-decision"
            );
        }
        assert_eq!(
            check("{}").unwrap_err().code.to_string(),
            "bad-answer:no-decision"
        );
    }

    #[test]
    fn a_bad_status_is_replaced_and_tagged_and_never_softens() {
        for status in [
            "0", "42", "99", "600", "999", "1000", "70000", "-1", "403.0", "\"403\"", "[]",
        ] {
            for (word, default) in [("block", 403), ("deny", 403)] {
                let response =
                    check(&format!(r#"{{"decision":"{word}","status":{status}}}"#)).unwrap();
                assert_eq!(response.decision.status(), Some(default), "{status}");
                assert_eq!(response.audit.tags, ["bad-status"]);
            }
            let redirect = check(&format!(
                r#"{{"decision":"redirect","body":"/x","status":{status}}}"#
            ))
            .unwrap();
            assert_eq!(
                redirect.decision,
                Decision::Redirect {
                    url: "/x".into(),
                    status: 302
                }
            );
        }
        assert_eq!(
            check(r#"{"decision":"block","status":200}"#)
                .unwrap()
                .decision
                .status(),
            Some(200)
        );
        assert_eq!(
            check(r#"{"decision":"redirect","body":"/x","status":304}"#)
                .unwrap()
                .audit
                .tags,
            ["bad-status"]
        );
    }

    #[test]
    fn only_usable_urls_redirect_and_the_rest_refuse() {
        for url in [
            "/",
            "/a?b=c#d",
            "http://example.org",
            "HTTPS://example.org/x",
            "https://[::1]/",
        ] {
            assert!(redirect_url_is_usable(url), "{url}");
        }
        let long = format!("/{}", "x".repeat(8192));
        for url in [
            "",
            "javascript:alert(1)",
            "//evil.example",
            "/\\evil.example",
            "ftp://x",
            "http://",
            "http:///x",
            "/a\r\nset-cookie: x=1",
            "/ä",
            "/a b",
            "x",
            "data:text/html,x",
            "mailto:a@b",
            "http:/x",
            long.as_str(),
        ] {
            let json = serde_json::json!({"decision": "redirect", "body": url}).to_string();
            let response = check(&json).unwrap();
            assert_eq!(
                response.decision,
                Decision::Block {
                    status: 500,
                    body: None
                },
                "{url}"
            );
            assert_eq!(response.audit.tags, ["bad-redirect"]);
        }
        assert_eq!(
            check(r#"{"decision":"redirect"}"#).unwrap().audit.tags,
            ["bad-redirect"]
        );
    }

    #[test]
    fn a_bad_header_faults_an_allow_and_is_dropped_from_a_refusal() {
        for (name, value) in [
            ("x", "a\r\nset-cookie: b"),
            ("x", "\n"),
            ("x", "\u{0}"),
            ("", "v"),
            ("a b", "v"),
            (":path", "/"),
            ("x\r\ny", "v"),
            ("ü", "v"),
            ("Host", "evil"),
            ("content-length", "0"),
            ("Transfer-Encoding", "chunked"),
            ("connection", "close"),
        ] {
            for key in ["add_request_headers", "add_response_headers"] {
                let allow = serde_json::json!({"decision":"allow", key: {name: value, "ok": "1"}})
                    .to_string();
                let fault = check(&allow).unwrap_err();
                assert_eq!(
                    fault.code,
                    FaultCode::BadAnswer("bad-header"),
                    "{name}: {value}"
                );
                assert!(
                    fault.detail.starts_with(&format!("$.{key}[")),
                    "{}",
                    fault.detail
                );
                let block = serde_json::json!({"decision":"block", key: {name: value, "ok": "1"}})
                    .to_string();
                let response = check(&block).unwrap();
                assert_eq!(response.audit.tags, ["bad-header"]);
                assert_eq!(
                    response.request_headers.len() + response.response_headers.len(),
                    1
                );
            }
        }
        assert!(check(r#"{"decision":"allow","remove_request_headers":["a b"]}"#).is_err());
        let policy = AnswerPolicy {
            allowed_headers: vec!["host".into()],
        };
        let answer = br#"{"decision":"allow","add_request_headers":{"Host":"inner"}}"#;
        assert!(check_answer(answer, EventKind::RequestHeaders, None, &policy).is_ok());
    }

    #[test]
    fn header_operations_are_bounded_in_number_and_size() {
        let many: BTreeMap<String, String> = (0..129)
            .map(|n| (format!("x-{n}"), String::new()))
            .collect();
        let json = |decision: &str| {
            serde_json::json!({"decision": decision, "add_response_headers": many}).to_string()
        };
        assert_eq!(
            check(&json("allow")).unwrap_err().code.to_string(),
            "bad-answer:bad-header"
        );
        assert_eq!(
            check(&json("block")).unwrap().response_headers.len(),
            MAX_HEADER_OPS
        );
        let big = serde_json::json!({"decision": "allow", "add_request_headers": {"x": "v".repeat(65536)}}).to_string();
        assert!(check(&big).unwrap_err().detail.contains("65536 bytes"));
    }

    #[test]
    fn mistyped_values_name_their_path() {
        for (json, path) in [
            (
                r#"{"decision":"allow","tags":"x"}"#,
                "$.tags must be an array of strings",
            ),
            (
                r#"{"decision":"allow","tags":["a",7]}"#,
                "$.tags[1] must be a string, found 7",
            ),
            (
                r#"{"decision":"allow","rule_ids":[["a"]]}"#,
                "$.rule_ids[0] must be",
            ),
            (
                r#"{"decision":"allow","body":7}"#,
                "$.body must be a string",
            ),
            (
                r#"{"decision":"allow","confidence":1.5}"#,
                "$.confidence must be a number from 0 to 1",
            ),
            (
                r#"{"decision":"allow","confidence":"0.5"}"#,
                "$.confidence must be",
            ),
            (
                r#"{"decision":"allow","needs_more":1}"#,
                "$.needs_more must be true or false",
            ),
            (
                r#"{"decision":"allow","add_request_headers":{"x":1}}"#,
                "$.add_request_headers[\"x\"] must be a string",
            ),
            (
                r#"{"decision":"allow","add_request_headers":[]}"#,
                "$.add_request_headers must be an object of strings",
            ),
            (
                r#"{"decision":"allow","routing_metadata":{"x":null}}"#,
                "$.routing_metadata[\"x\"] must be",
            ),
            (
                r#"{"decision":"allow","body":"\ud800"}"#,
                "$.body must be a string",
            ),
        ] {
            let fault = check(json).unwrap_err();
            assert_eq!(fault.code, FaultCode::BadAnswer("mistyped"), "{json}");
            assert!(fault.detail.starts_with(path), "{} / {path}", fault.detail);
        }
    }

    #[test]
    fn what_is_not_one_json_object_is_a_fault() {
        for (bytes, code) in [
            (&b"\xff\xfe"[..], "bad-answer:not-utf8"),
            (b"", "bad-answer:not-json"),
            (b"hello", "bad-answer:not-json"),
            (b"\xef\xbb\xbf{}", "bad-answer:not-json"),
            (b"[1]", "bad-answer:not-an-object"),
            (b"\"allow\"", "bad-answer:not-an-object"),
            (b"7", "bad-answer:not-an-object"),
            (b"{\"decision\":\"allow\"} x", "bad-answer:not-json"),
            (b"{\"decision\":\"allow\"}{}", "bad-answer:not-json"),
            (b"{\"decision\":\"allow\",}", "bad-answer:not-json"),
            (b"{\"decision\":\"allow\",\"x\":NaN}", "bad-answer:not-json"),
            (
                b"{\"decision\":\"allow\",\"decision\":\"allow\"}",
                "bad-answer:duplicate-key",
            ),
        ] {
            let fault = check_answer(
                bytes,
                EventKind::RequestHeaders,
                None,
                &AnswerPolicy::default(),
            )
            .unwrap_err();
            assert_eq!(
                fault.code.to_string(),
                code,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert!(check(" {\"decision\":\"allow\"} \n").is_ok());
    }

    #[test]
    fn unknown_keys_are_reported_and_nested_ones_cannot_hurt() {
        let deep = format!(
            r#"{{"decision":"allow","x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let answer = check_answer(
            deep.as_bytes(),
            EventKind::RequestHeaders,
            None,
            &AnswerPolicy::default(),
        )
        .unwrap();
        assert_eq!(answer.unknown_keys, ["x"]);
    }

    #[test]
    fn a_mutation_must_be_for_the_events_own_chunk() {
        let at = |json: &str, kind, index| {
            check_answer(json.as_bytes(), kind, index, &AnswerPolicy::default())
                .map(|answer| answer.response)
        };
        let replace =
            r#"{"decision":"allow","response_body_mutation":{"action":"replace","data":"bye"}}"#;
        let response = at(replace, EventKind::ResponseBody, Some(3)).unwrap();
        assert_eq!(
            response.response_body_mutation,
            Some(BodyMutation {
                chunk_index: 3,
                data: b"bye".to_vec()
            })
        );
        assert!(at(replace, EventKind::RequestBody, Some(3)).is_err());
        assert!(at(replace, EventKind::ResponseHeaders, None).is_err());
        let other =
            r#"{"decision":"allow","request_body_mutation":{"action":"drop","chunk_index":1}}"#;
        assert!(
            at(other, EventKind::RequestBody, Some(0))
                .unwrap_err()
                .detail
                .contains("chunk_index must be the event's, 0")
        );
        assert_eq!(
            at(other, EventKind::RequestBody, Some(1))
                .unwrap()
                .request_body_mutation
                .unwrap()
                .data,
            b""
        );
        for bad in [
            r#"{"action":"replace"}"#,
            r#"{"action":"replace","data":"*","encoding":"base64"}"#,
            r#"{"data":"x"}"#,
            r#"{"action":"erase"}"#,
            r#"{"action":"replace","data":"x","encoding":"latin1"}"#,
            "7",
        ] {
            let json = format!(r#"{{"decision":"allow","request_body_mutation":{bad}}}"#);
            assert!(at(&json, EventKind::RequestBody, Some(0)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hidden_or_broken_refusal_is_still_a_refusal() {
        for json in [
            r#"{"decision":"block","tags":"x"}"#,
            r#"{"decision":"challenge"}"#,
            r#"{"decision":"deny","decision":"allow"}"#,
            r#"{"decision":"allow","decision":"redirect"}"#,
            r#"{"decision":"Block"} trailing"#,
            r#"{"decision":"block","x":"#,
            r#"{"decision":"redirect","body":7}"#,
        ] {
            let response = decided(json.as_bytes(), FailurePolicy::Open);
            assert_eq!(response.decision.name(), "block", "{json}");
        }
        let stated = decided(
            br#"{"decision":"block","status":451,"tags":1}"#,
            FailurePolicy::Open,
        );
        assert_eq!(stated.decision.status(), Some(451));
    }

    /// Any JSON value, including ones that look like results.
    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a-z\r\n:/]{0,8}".prop_map(Into::into),
            prop_oneof!["allow", "block", "DENY", "redirect", "challenge", "/x"]
                .prop_map(Into::into),
        ];
        leaf.prop_recursive(2, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z-]{0,6}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Invariant 2: whatever stands beside it, a refusing word never allows.
        #[test]
        fn a_refusal_is_never_softened(
            word in prop_oneof!["block", "deny", "redirect", "challenge", "BLOCK", "Challenge"],
            others in prop::collection::vec((0..16usize, json_value()), 0..6),
            first in any::<bool>(),
            cut in prop::option::of(0..40usize),
        ) {
            let mut text = String::from("{");
            let decision = format!("\"decision\":\"{word}\"");
            if first { text.push_str(&decision); }
            for (key, value) in others {
                if text.len() > 1 { text.push(','); }
                text.push_str(&format!("\"{}\":{value}", KEYS[key]));
            }
            if !first {
                if text.len() > 1 { text.push(','); }
                text.push_str(&decision);
            }
            text.push('}');
            // A cut after the decision leaves broken JSON that had said it.
            if first && let Some(cut) = cut {
                let end = (decision.len() + 2 + cut).min(text.len());
                if text.is_char_boundary(end) { text.truncate(end); }
            }
            for policy in [FailurePolicy::Open, FailurePolicy::Closed] {
                let response = decided(text.as_bytes(), policy);
                prop_assert_ne!(response.decision, Decision::Allow, "{} {:?}", text, policy);
            }
        }

        /// Invariant 1: closed allows only what said allow and was whole.
        #[test]
        fn closed_allows_only_a_whole_allow(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            json_value().prop_map(|value| value.to_string().into_bytes()),
            json_value().prop_map(|value| serde_json::json!({"decision": value}).to_string().into_bytes()),
        ]) {
            let response = decided(&bytes, FailurePolicy::Closed);
            if response.decision == Decision::Allow {
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert!(value["decision"].as_str().unwrap().eq_ignore_ascii_case("allow"));
            }
        }
    }
}
