//! A record's input as production gives it to the guest.
//!
//! In: the JSON of an input, as anybody may have written it. Out: the question
//! that it asks. Where its bytes are those that production writes, nothing is
//! built ([`written`]); everything else is read to an event or a context, which
//! the one writer writes again. Nothing is filled in from other records: the
//! guest got what stands here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::{DecodeSettings, Remark, base_64};
use crate::event::{BodyChunk, Event, EventKind, Headers, RequestHead, ResponseHead, bare_ip};
use crate::fault::printable;
use crate::guest::convention::json_buffer::write_input;
use crate::hook::{CONTEXT_KEYS, HookContext, USER_KEYS};
use crate::json::explain;
use crate::json::read::{FastReader, NotPlain};
use crate::question::{HeaderNames, Phase, Question};

/// Characters of a name or value that a message quotes.
const SHOWN: usize = 40;

/// An event's input in the bytes that production writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) chunk_index: Option<u32>,
}

/// Steps over an input that is spelled as production spells it: what
/// `json_buffer::event::write_input` gives, header names in lower case.
pub(super) fn written(reader: &mut FastReader<'_>, kind: EventKind) -> Result<Written, NotPlain> {
    let mut chunk_index = None;
    match kind {
        EventKind::RequestHeaders => {
            text(reader, b"{\"method\":")?;
            text(reader, b",\"uri\":")?;
            client_ip(reader)?;
            text(reader, b",\"correlation_id\":")?;
            headers(reader)?;
        }
        EventKind::ResponseHeaders => {
            number::<u16>(reader, b"{\"status\":")?;
            text(reader, b",\"correlation_id\":")?;
            headers(reader)?;
        }
        EventKind::RequestBody => {
            text(reader, b"{\"correlation_id\":")?;
            if request_line(reader)? {
                headers(reader)?;
            }
            chunk_index = Some(chunk(reader, b",\"bytes_received\":")?);
        }
        EventKind::ResponseBody => {
            text(reader, b"{\"correlation_id\":")?;
            request_line(reader)?;
            if reader.rest().starts_with(b",\"status\":") {
                number::<u16>(reader, b",\"status\":")?;
                headers(reader)?;
            }
            chunk_index = Some(chunk(reader, b",\"bytes_sent\":")?);
        }
    }
    reader.expect(b"}")?;
    Ok(Written { chunk_index })
}

fn text<'a>(reader: &mut FastReader<'a>, key: &[u8]) -> Result<&'a str, NotPlain> {
    reader.expect(key)?;
    reader.written_string()
}

fn number<N: std::str::FromStr>(reader: &mut FastReader<'_>, key: &[u8]) -> Result<N, NotPlain> {
    reader.expect(key)?;
    reader.written_number()
}

fn client_ip(reader: &mut FastReader<'_>) -> Result<(), NotPlain> {
    let address = text(reader, b",\"client_ip\":")?;
    let has_port = address.contains([':', '[']) && bare_ip(address) != address;
    (!has_port).then_some(()).ok_or(NotPlain)
}

fn request_line(reader: &mut FastReader<'_>) -> Result<bool, NotPlain> {
    if !reader.rest().starts_with(b",\"method\":") {
        return Ok(false);
    }
    text(reader, b",\"method\":")?;
    text(reader, b",\"uri\":")?;
    client_ip(reader)?;
    Ok(true)
}

/// Names sorted, each once, in lower case.
fn headers(reader: &mut FastReader<'_>) -> Result<(), NotPlain> {
    reader.expect(b",\"headers\":{")?;
    if reader.rest().starts_with(b"}") {
        return reader.expect(b"}");
    }
    let mut previous: Option<&str> = None;
    loop {
        let name = reader.written_string()?;
        let is_plain = |byte: u8| byte != b'\\' && !byte.is_ascii_uppercase();
        if !name.bytes().all(is_plain) || previous.is_some_and(|previous| previous >= name) {
            return Err(NotPlain);
        }
        previous = Some(name);
        text(reader, b":")?;
        if reader.rest().starts_with(b"}") {
            return reader.expect(b"}");
        }
        reader.expect(b",")?;
    }
}

fn chunk(reader: &mut FastReader<'_>, transferred: &[u8]) -> Result<u32, NotPlain> {
    let index = number(reader, b",\"chunk_index\":")?;
    let is_last = reader.member(b",\"is_last\":")?;
    if !matches!(is_last, "true" | "false") {
        return Err(NotPlain);
    }
    if reader.rest().starts_with(b",\"total_size\":null") {
        reader.expect(b",\"total_size\":null")?;
    } else {
        number::<u64>(reader, b",\"total_size\":")?;
    }
    number::<u64>(reader, transferred)?;
    let data = text(reader, b",\"data\":")?;
    if reader.rest().starts_with(b",\"encoding\":\"utf8\"") {
        reader.expect(b",\"encoding\":\"utf8\"")?;
        return Ok(index);
    }
    reader.expect(b",\"encoding\":\"base64\"")?;
    // What is text goes as text.
    let bytes = STANDARD.decode(data).map_err(|_none| NotPlain)?;
    match std::str::from_utf8(&bytes) {
        Ok(_text) => Err(NotPlain),
        Err(_binary) => Ok(index),
    }
}

/// Reads an input of the exchange with this id, and says what is remarkable
/// about it.
pub(super) fn read(
    phase: Phase,
    json: &str,
    (id, settings): (&str, &DecodeSettings),
) -> Result<(Question<'static>, [Option<Remark>; 2]), String> {
    let entries: Entries<'_> =
        serde_json::from_str(json).map_err(|error| explain::explain(&error))?;
    let mut no_address = None;
    let (question, has_unknown) = match phase {
        Phase::Event(kind) => {
            let unknown = entries.has_unknown(keys_of(kind));
            let input = Input {
                entries,
                id,
                settings,
            };
            let event = input.event(kind)?;
            let has_request = match &event {
                Event::RequestHeaders(_) => true,
                Event::ResponseHeaders(_) => false,
                Event::RequestBody { request, .. } | Event::ResponseBody { request, .. } => {
                    request.is_some()
                }
            };
            no_address =
                (has_request && !input.has(&["client_ip"])).then_some(Remark::ClientIpDefault);
            (Question::from(event), unknown)
        }
        Phase::Hook(hook) => {
            let context: HookContext =
                serde_json::from_str(json).map_err(|error| explain::explain(&error))?;
            let user: Option<Entries<'_>> = entries.of("user")?;
            let unknown = entries.has_unknown(&CONTEXT_KEYS)
                || user.is_some_and(|user| user.has_unknown(&USER_KEYS));
            (Question::Hook(hook, Cow::Owned(context)), unknown)
        }
    };
    let mut written = Vec::with_capacity(json.len());
    write_input(&question, HeaderNames::Lower, &mut written);
    let remark = if has_unknown {
        Some(Remark::UnknownKeys)
    } else {
        (written != json.as_bytes()).then_some(Remark::Respelled)
    };
    Ok((question, [remark, no_address]))
}

/// The questions of a transaction, exact ones read back to events.
///
/// # Errors
/// What is wrong with the first that is none.
pub fn read_back<'q, 'a: 'q>(
    questions: impl Iterator<Item = &'q Question<'a>>,
) -> Result<Vec<Question<'static>>, String> {
    questions
        .map(|question| match question {
            Question::Exact { phase, json, .. } => {
                let settings = DecodeSettings::default();
                let read = read(*phase, explain::utf8(json)?, ("", &settings));
                read.map(|(question, _)| question)
            }
            question => Ok(question.clone().into_owned()),
        })
        .collect()
}

/// Keys of the input that each handler gets, in the writer's order.
const fn keys_of(kind: EventKind) -> &'static [&'static str] {
    match kind {
        EventKind::RequestHeaders => &["method", "uri", "client_ip", "correlation_id", "headers"],
        EventKind::ResponseHeaders => &["status", "correlation_id", "headers"],
        EventKind::RequestBody => &[
            "correlation_id",
            "method",
            "uri",
            "client_ip",
            "headers",
            "chunk_index",
            "is_last",
            "total_size",
            "bytes_received",
            "data",
            "encoding",
        ],
        EventKind::ResponseBody => &[
            "correlation_id",
            "method",
            "uri",
            "client_ip",
            "status",
            "headers",
            "chunk_index",
            "is_last",
            "total_size",
            "bytes_sent",
            "data",
            "encoding",
        ],
    }
}

/// The members of an object, each key once.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<'de>, M::Error> {
                let mut keys = HashSet::new();
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key<'de>, &RawValue>()? {
                    if !keys.insert(key.0.clone()) {
                        let key = printable(&key.0, SHOWN);
                        let twice = format!("expected the key {key:?} once, found it twice");
                        return Err(serde::de::Error::custom(twice));
                    }
                    entries.push((key.0, value));
                }
                Ok(Entries(entries))
            }
        }
        reader.deserialize_map(EntriesVisitor)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Entries<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let mut entries = self.0.iter();
        let found = entries.find(|(known, _)| known == key)?.1.get();
        (found != "null").then_some(found)
    }

    /// The value of a key; nothing where there is none, or null.
    fn of<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, String> {
        let value = self.get(key).map(serde_json::from_str);
        value
            .transpose()
            .map_err(|error| format!("{key}: {}", explain::without_place(&error)))
    }

    fn has_unknown(&self, known: &[&str]) -> bool {
        self.0.iter().any(|(key, _)| !known.contains(&key.as_ref()))
    }
}

/// An event's input that may be spelled in any way.
struct Input<'a> {
    entries: Entries<'a>,
    /// The id of the record's exchange.
    id: &'a str,
    settings: &'a DecodeSettings,
}

impl Input<'_> {
    fn event(&self, kind: EventKind) -> Result<Event, String> {
        Ok(match kind {
            EventKind::RequestHeaders => {
                self.needed("method")?;
                self.needed("uri")?;
                Event::RequestHeaders(RequestHead {
                    headers: self.headers()?,
                    ..self.request_line()?
                })
            }
            EventKind::ResponseHeaders => {
                self.needed("status")?;
                Event::ResponseHeaders(self.response()?)
            }
            EventKind::RequestBody => Event::RequestBody {
                chunk: self.chunk("bytes_received")?,
                request: if self.has(&["method", "uri", "client_ip", "headers"]) {
                    Some(Arc::new(RequestHead {
                        headers: self.headers()?,
                        ..self.request_line()?
                    }))
                } else {
                    None
                },
            },
            EventKind::ResponseBody => Event::ResponseBody {
                chunk: self.chunk("bytes_sent")?,
                request: if self.has(&["method", "uri", "client_ip"]) {
                    Some(Arc::new(self.request_line()?))
                } else {
                    None
                },
                response: if self.has(&["status", "headers"]) {
                    self.needed("status")?;
                    Some(Arc::new(self.response()?))
                } else {
                    None
                },
            },
        })
    }

    fn has(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.entries.get(key).is_some())
    }

    fn needed(&self, key: &str) -> Result<(), String> {
        if self.has(&[key]) {
            return Ok(());
        }
        Err(format!("expected {key:?}, found none"))
    }

    fn text(&self, key: &str) -> Result<String, String> {
        Ok(self.entries.of(key)?.unwrap_or_default())
    }

    fn number<N: TryFrom<u64>>(&self, key: &str) -> Result<Option<N>, String> {
        let Some(text) = self.entries.get(key) else {
            return Ok(None);
        };
        let number = whole_number(text).and_then(|number| N::try_from(number).ok());
        let found = || {
            let most = u64::MAX >> (64 - 8 * size_of::<N>());
            let text = printable(text, SHOWN);
            format!("{key}: expected a whole number from 0 to {most}, found {text}")
        };
        number.map(Some).ok_or_else(found)
    }

    fn id(&self) -> Result<String, String> {
        let id = self.entries.of("correlation_id")?;
        Ok(id.unwrap_or_else(|| self.id.to_owned()))
    }

    fn headers(&self) -> Result<Headers, String> {
        let mut headers = Headers::new();
        let Some(Entries(entries)) = self.entries.of("headers")? else {
            return Ok(headers);
        };
        for (name, value) in &entries {
            let values: Values<'_> = serde_json::from_str(value.get()).map_err(|_neither| {
                let name = printable(name, SHOWN);
                format!("headers.{name}: expected a string, or several")
            })?;
            match values {
                Values::One(value) => headers.push(name, &value),
                Values::Several(values) => {
                    values.iter().for_each(|value| headers.push(name, value));
                }
            }
        }
        Ok(headers)
    }

    /// The request without its headers.
    fn request_line(&self) -> Result<RequestHead, String> {
        let address: Option<String> = self.entries.of("client_ip")?;
        Ok(RequestHead {
            correlation_id: self.id()?,
            method: self.text("method")?,
            uri: self.text("uri")?,
            client_ip: self.settings.client_ip(address.as_deref()),
            headers: Headers::new(),
        })
    }

    fn response(&self) -> Result<ResponseHead, String> {
        Ok(ResponseHead {
            correlation_id: self.id()?,
            status: self.number("status")?.unwrap_or_default(),
            headers: self.headers()?,
        })
    }

    /// What a proxy left out is what its messages mean without it.
    fn chunk(&self, transferred: &str) -> Result<BodyChunk, String> {
        let data = self.text("data")?;
        let data = match self.text("encoding")?.as_str() {
            "" | "utf8" => data.into_bytes(),
            "base64" => base_64::read(&STANDARD, &data, "\"data\"")?,
            other => {
                let other = printable(other, SHOWN);
                return Err(format!(
                    "encoding: expected \"utf8\" or \"base64\", found {other:?}"
                ));
            }
        };
        Ok(BodyChunk {
            correlation_id: self.id()?,
            chunk_index: self.number("chunk_index")?.unwrap_or_default(),
            is_last: self.entries.of("is_last")?.unwrap_or_default(),
            total_size: self.number("total_size")?,
            transferred_bytes: self.number(transferred)?.unwrap_or_default(),
            data,
        })
    }
}

/// Values of one header name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values<'a> {
    #[serde(borrow)]
    One(Cow<'a, str>),
    Several(Vec<String>),
}

/// A number that is whole, however it is spelled.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only those that fit get there"
)]
pub(super) fn whole_number(text: &str) -> Option<u64> {
    let exact = text.parse().ok();
    exact.or_else(|| {
        let number: f64 = serde_json::from_str(text).ok()?;
        let fits = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
        fits.then_some(number as u64)
    })
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
