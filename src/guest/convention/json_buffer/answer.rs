//! The agent ABI's answer: bytes from a guest, checked into an agent response.
//!
//! In: what a handler returned. Out: a response of which every part may be
//! sent on, or a fault that names the JSON path. Invariant: a fault in an
//! answer that named a refusing decision carries that refusal, so that no
//! failure mode can turn it into an allow.

mod refusal;
mod rules;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use self::rules::{
    OpBudget, block_status_is_valid, nearest, op_problem, redirect_status_is_valid,
    redirect_url_is_usable,
};
use crate::event::EventKind;
use crate::fault::{BadAnswer, Fault, FaultCode, Refusal, printable};
use crate::response::{AgentResponse, Audit, BodyMutation, Decision, HeaderOp};

pub(crate) use refusal::find_refusal;
pub(crate) use rules::{FRAMING_HEADERS, framing_header};

/// Every key of the result object. Their order is the order of `Key`.
pub(crate) const KEYS: [&str; 19] = [
    "decision",
    "status",
    "body",
    "add_request_headers",
    "add_response_headers",
    "remove_request_headers",
    "remove_response_headers",
    "append_request_headers",
    "append_response_headers",
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
    AppendRequestHeaders,
    AppendResponseHeaders,
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

/// The status of a block that names none that can be used.
pub(crate) const STATUS_OF_BLOCK: u16 = 403;
const STATUS_OF_REDIRECT: u16 = 302;
const STATUS_OF_BAD_REDIRECT: u16 = 500;

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
    pub response: Box<AgentResponse>,
    /// Keys the contract does not know; reported by `run`, ignored in
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
    let checked = utf8(bytes).and_then(|text| {
        let mut slots = Slots::default();
        read_slots(text, &mut slots)?;
        slots.into_response(kind, chunk_index, policy)
    });
    checked.map_err(|mut fault| {
        fault.refusal = find_refusal(bytes);
        fault
    })
}

pub(super) fn bad(what: BadAnswer, detail: impl Into<String>) -> Fault {
    Fault::new(FaultCode::BadAnswer(what), detail)
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        bad(
            BadAnswer::NotUtf8,
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
            BadAnswer::NotAnObject,
            format!("the answer must be a JSON object, found {shown}"),
        )
    } else {
        bad(BadAnswer::NotJson, format!("{error} in {shown}"))
    }
}

pub(super) fn duplicate(path: &str) -> Fault {
    bad(
        BadAnswer::DuplicateKey,
        format!("{path} occurs more than once"),
    )
}

pub(super) fn mistyped(path: &str, expected: &str, found: &RawValue) -> Fault {
    bad(
        BadAnswer::Mistyped,
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
                BadAnswer::NoDecision,
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
                BadAnswer::UnknownDecision,
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
        let mut response = Box::new(AgentResponse::allow());
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
                        BadAnswer::NoChallengeType,
                        "$.challenge_type is required with the decision challenge",
                    )
                })?,
                params,
            },
        })
    }

    /// Sets in name order, then removes, then additions in name order, for both
    /// directions. On a refusal bad operations are dropped and tagged; an allow that
    /// cannot be carried out as asked is a fault.
    fn header_ops(
        &self,
        word: Word,
        policy: &AnswerPolicy,
        response: &mut AgentResponse,
    ) -> Result<(), Fault> {
        let mut budget = OpBudget::default();
        let mut first_bad: Option<String> = None;
        for ([set_key, remove_key, add_key], kept) in [
            (
                [
                    Key::AddRequestHeaders,
                    Key::RemoveRequestHeaders,
                    Key::AppendRequestHeaders,
                ],
                &mut response.request_headers,
            ),
            (
                [
                    Key::AddResponseHeaders,
                    Key::RemoveResponseHeaders,
                    Key::AppendResponseHeaders,
                ],
                &mut response.response_headers,
            ),
        ] {
            let sets = self.string_map(set_key)?.into_iter();
            let removes = self.strings(remove_key)?.into_iter();
            let adds = self.string_lists(add_key)?.into_iter();
            let adds = adds.flat_map(|(name, OneOrMore(values))| {
                let add = move |value| HeaderOp::Add {
                    name: name.clone(),
                    value,
                };
                values.into_iter().map(add)
            });
            let wanted = sets
                .map(|(name, value)| (set_key, HeaderOp::Set { name, value }))
                .chain(removes.map(|name| (remove_key, HeaderOp::Remove { name })))
                .chain(adds.map(|op| (add_key, op)));
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
            Some(problem) => Err(bad(BadAnswer::BadHeader, problem)),
        }
    }

    fn mutation(&self, key: Key, chunk_index: Option<u32>) -> Result<Option<BodyMutation>, Fault> {
        let Some(raw) = self.get(key) else {
            return Ok(None);
        };
        let path = Self::path(key);
        let mutation: Mutation = serde_json::from_str(raw.get()).map_err(|error| {
            bad(
                BadAnswer::Mistyped,
                format!(
                    "{path} must be {{\"action\",\"chunk_index\",\"data\",\"encoding\"}}: {error}"
                ),
            )
        })?;
        if mutation.action == Action::PassThrough {
            return Ok(None);
        }
        let wrong = |what: String| Err(bad(BadAnswer::BodyMutation, format!("{path}{what}")));
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
        self.map_of(key, "a string", "an object of strings")
    }

    fn string_lists(&self, key: Key) -> Result<BTreeMap<String, OneOrMore>, Fault> {
        let object = "an object of strings or of arrays of strings";
        self.map_of(key, "a string or an array of strings", object)
    }

    fn map_of<T: serde::de::DeserializeOwned>(
        &self,
        key: Key,
        item_type: &str,
        object_type: &str,
    ) -> Result<BTreeMap<String, T>, Fault> {
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
                        .find(|(_, item)| serde_json::from_str::<T>(item.get()).is_err())
                        .map(|(name, item)| {
                            let path = format!("{path}[{:?}]", printable(name, 60));
                            mistyped(&path, item_type, item)
                        })
                })
                .unwrap_or_else(|| mistyped(&path, object_type, raw))
        })
    }
}

/// One text, or a list of them.
struct OneOrMore(Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(String),
            More(Vec<String>),
        }
        Either::deserialize(deserializer).map(|either| match either {
            Either::One(text) => Self(vec![text]),
            Either::More(texts) => Self(texts),
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

/// How much of an answer that was not read is searched for a refusal, in bytes.
const MAX_UNREAD_BYTES: usize = 16 << 20;

/// The refusal in an answer of which only a part can be read. Where that is
/// more than is looked at, nobody can tell, and it refuses.
pub(crate) fn refusal_in_unread(bytes: &[u8]) -> Option<Refusal> {
    let looked_at = &bytes[..bytes.len().min(MAX_UNREAD_BYTES)];
    find_refusal(looked_at).or_else(|| {
        (bytes.len() > MAX_UNREAD_BYTES).then_some(Refusal {
            status: STATUS_OF_BLOCK,
        })
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
