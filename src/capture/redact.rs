//! Removes secrets from everything that is written.
//!
//! Reports and fixtures show a secret as `redacted:` and its number, in the
//! order in which those of its transaction were met: no key is needed, and the
//! number says nothing but which of them are equal. What is collected over
//! many transactions has `redacted:` and sixteen hexadecimal digits of a keyed
//! hash (HMAC-SHA-256) in its place, so equal values stay equal and nobody
//! without the key can try values out.
//!
//! What makes a value a secret is the name it stands under: credential
//! headers, cookies, and parameters and JSON keys such as `token` or
//! `password`. A secret that was found is replaced wherever else it occurs, as
//! in an answer that echoes it.
//!
//! Invariant: whoever chose the text, its cost is linear. What there is too
//! much of is not read, and nothing of it is shown.

mod binary;
mod finder;
mod found;
mod keep_decision;
mod layers;
mod places;
mod stand_in;

use std::ops::Range;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use regex::Regex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::layers::spellings;
use self::places::{Places, in_text, in_url, is_secret, whole};
use self::stand_in::{HASH_DIGITS, Manner, StandIn, is_stand_in};

pub(super) use self::stand_in::STAND_IN;

pub use found::SecretsFound;
pub(crate) use found::may_hold_secret;
pub(crate) use keep_decision::{Heard, Mark, keep_decision};

use super::base_64;
use crate::digest::hex;
use crate::error::Error;

/// Secrets of one text; of one with more nothing is shown.
const MAX_PLACES: usize = 256;
/// Bytes of the name of a place.
const MAX_FIELD: usize = 128;

/// The beginning of each cookie in a `set-cookie` value, joined ones too.
static SET_COOKIE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?:^|, ?)[^=;,\s]+=").ok());

/// Words before a credential that are none themselves.
const SCHEMES: [&str; 14] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "digest",
    "dpop",
    "hawk",
    "hoba",
    "mutual",
    "negotiate",
    "ntlm",
    "oauth",
    "scram-sha-256",
    "token",
];

/// Takes secrets out, or leaves them where it was told so.
#[derive(Clone)]
pub struct Redactor {
    by: By,
    manner: Manner,
}

/// What stands in a secret's place.
#[derive(Clone)]
enum By {
    /// The secret itself.
    Nothing,
    /// Its number among those of its exchange.
    Number,
    /// A hash with this key.
    Key([u8; 32]),
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Redactor")
            .field("keeps_secrets", &self.keeps_secrets())
            .finish_non_exhaustive()
    }
}

/// A key from bytes of any length.
#[must_use]
pub fn key_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What redacting one input and its answer gave.
#[derive(Debug, Clone, Default)]
pub struct Redacted {
    /// The input JSON.
    pub input: String,
    /// The answer's JSON.
    pub output: String,
    /// Where secrets stood, such as `headers.cookie`.
    pub fields: Vec<String>,
}

impl Redactor {
    /// Takes secrets out, hashing with this key.
    #[must_use]
    pub const fn with_key(key: [u8; 32]) -> Self {
        Self::new(By::Key(key))
    }

    /// The same with a key that somebody gave, of any length but 0: with none
    /// anybody could try values out.
    ///
    /// # Errors
    /// [`Error::Usage`] where the key is empty.
    pub fn with_given_key(key: &[u8]) -> Result<Self, Error> {
        if key.is_empty() {
            return Err(Error::Usage(
                "the key for redacted values: expected at least 1 byte, found none; give a key, or omit it for a random one".to_owned(),
            ));
        }
        Ok(Self::with_key(key_of(&[b"given", key])))
    }

    /// The same with a key that nobody else has.
    ///
    /// # Errors
    /// [`Error::Host`] where the system has no random bytes.
    pub fn with_random_key() -> Result<Self, Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|source| Error::Host {
            what: "cannot make a key for redaction",
            source: source.into(),
        })?;
        Ok(Self::with_key(key))
    }

    /// Takes secrets out, and counts those of each exchange.
    #[must_use]
    pub const fn with_numbers() -> Self {
        Self::new(By::Number)
    }

    /// Leaves everything as it is.
    #[must_use]
    pub const fn keep_secrets() -> Self {
        Self::new(By::Nothing)
    }

    const fn new(by: By) -> Self {
        Self {
            by,
            manner: Manner::Token,
        }
    }

    /// The same with other stand-ins.
    fn in_manner(&self, manner: Manner) -> Self {
        Self {
            by: self.by.clone(),
            manner,
        }
    }

    const fn keeps_secrets(&self) -> bool {
        matches!(self.by, By::Nothing)
    }

    /// One input and its answer, as JSON texts; `found` has what is known of
    /// others of the exchange, and then of these.
    pub fn record(&self, input: &str, output: &str, found: &mut SecretsFound) -> Redacted {
        found.begin();
        let input = self.input(input, found);
        let output = self.output(output, found);
        Redacted {
            input,
            output,
            fields: found.fields.clone(),
        }
    }

    /// The id that an exchange's records share; it may be a secret.
    pub(super) fn id(&self, id: &str, found: &mut SecretsFound) -> String {
        found.id(id, || match &self.by {
            By::Key(key) => hashed(key, id),
            By::Nothing | By::Number => stand_in::REST.to_owned(),
        })
    }

    /// A guest's input, as JSON text.
    pub fn input(&self, json: &str, found: &mut SecretsFound) -> String {
        if self.keeps_secrets() {
            return json.to_owned();
        }
        let Ok(mut value) = serde_json::from_str::<Value>(json) else {
            // Nothing is known of it, so nothing of it is shown.
            found.note_field("input");
            return "{}".to_owned();
        };
        let before = found.count;
        self.pass(found).walk("", &mut value);
        if of_input(&mut value, |it| echoes(it, found))
            || found.count != before
            || found.looks_for_cuts()
        {
            of_input(&mut value, |it| found.cut_texts(it));
            return value.to_string();
        }
        json.to_owned()
    }

    /// An agent response or a hook's result, as JSON text: secrets of the input
    /// it echoes, and credentials it sets itself.
    pub fn output(&self, json: &str, found: &mut SecretsFound) -> String {
        if self.keeps_secrets() {
            return json.to_owned();
        }
        let Ok(mut value) = serde_json::from_str::<Value>(json) else {
            return "null".to_owned();
        };
        for side in ["request_headers", "response_headers"] {
            let ops = value.get_mut(side).and_then(Value::as_array_mut);
            for set in ops.into_iter().flatten().filter_map(first_value) {
                let name = set.get("name").and_then(Value::as_str).map(str::to_owned);
                if let (Some(name), Some(Value::String(text))) = (name, set.get_mut("value")) {
                    *text = self.pass(found).header(&Header::of(&name), text);
                }
            }
        }
        if let Some(context) = value.get_mut("ctx") {
            self.pass(found).walk("ctx", context);
        }
        echoes(&mut value, found);
        value.to_string()
    }

    /// Path and query, as reports show them, without the secrets of their
    /// exchange.
    #[must_use]
    pub fn uri(&self, uri: &str, found: &mut SecretsFound) -> String {
        let uri = self.pass(found).url("uri", uri);
        found.index();
        found.text(&uri).into_owned()
    }

    /// Any other text, as reports show it.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut found = SecretsFound::default();
        let text = self.pass(&mut found).free("text", text);
        found.index();
        found.text(&text).into_owned()
    }

    fn pass<'a>(&'a self, found: &'a mut SecretsFound) -> Pass<'a> {
        Pass {
            redactor: self,
            found,
        }
    }
}

/// One text or value, looked through for secrets.
struct Pass<'a> {
    redactor: &'a Redactor,
    found: &'a mut SecretsFound,
}

impl Pass<'_> {
    fn walk(&mut self, path: &str, value: &mut Value) {
        match value {
            Value::Object(map) => {
                let decoded = !binary::is_base64(map);
                for (key, value) in map.iter_mut() {
                    let at = below(path, key);
                    match value {
                        Value::Object(headers) if key == "headers" => {
                            for (name, value) in headers.iter_mut() {
                                self.header_value(&Header::of(name), value);
                            }
                        }
                        Value::String(text) if key == "uri" => {
                            *text = self.url(&at, text);
                        }
                        Value::String(text) if key == "data" && decoded => {
                            *text = self.free(&at, text);
                        }
                        Value::String(text) if key == "data" => {
                            *text = self.bytes(&at, text);
                        }
                        value if is_secret(key) => self.hide_all(&at, value),
                        other => self.walk(&at, other),
                    }
                }
            }
            Value::Array(values) => {
                for value in values {
                    self.walk(path, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Whatever stands under a secret's name.
    fn hide_all(&mut self, at: &str, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(at, text),
            Value::Number(number) => {
                let hidden = self.hide(at, &number.to_string());
                *value = match serde_json::from_str(&hidden) {
                    Ok(shape @ Value::Number(_)) => shape,
                    _ => hidden.into(),
                };
            }
            Value::Array(values) => {
                for value in values {
                    self.hide_all(at, value);
                }
            }
            Value::Object(map) => {
                for value in map.values_mut() {
                    self.hide_all(at, value);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn header_value(&mut self, header: &Header, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.header(header, text),
            Value::Array(values) => {
                for value in values {
                    self.header_value(header, value);
                }
            }
            _ => {}
        }
    }

    fn header(&mut self, header: &Header, value: &str) -> String {
        let Header { name, field, .. } = header;
        match name.as_str() {
            "cookie" => {
                let cookies = value.split(';').map(|pair| self.cookie(field, pair));
                cookies.collect::<Vec<_>>().join(";")
            }
            "set-cookie" => self.replaced(field, value, cookies_set(value)),
            "sec-websocket-protocol" => {
                let protocols = value.split(',').map(|protocol| {
                    let name = protocol.trim().to_ascii_lowercase();
                    if name.len() >= 24 || name.contains("bearer") || name.contains("token") {
                        self.hide(field, protocol.trim())
                    } else {
                        protocol.to_owned()
                    }
                });
                protocols.collect::<Vec<_>>().join(",")
            }
            // Under more names than one: proxies hand it on.
            _ if name.ends_with("authorization") => match value.split_once(' ') {
                Some((scheme, secret)) if SCHEMES.contains(&&*scheme.to_ascii_lowercase()) => {
                    format!("{scheme} {}", self.hide(field, secret))
                }
                _ => self.hide(field, value),
            },
            _ if header.is_secret => self.hide(field, value),
            _ if value.contains(['=', ':', ' ']) => {
                let places = [in_url(value), in_text(value)].concat();
                self.replaced(field, value, places)
            }
            _ => value.to_owned(),
        }
    }

    fn cookie(&mut self, field: &str, pair: &str) -> String {
        let (name, secret) = match pair.split_once('=') {
            Some((name, _)) => pair.split_at(name.len() + 1),
            None => pair.split_at(pair.len() - pair.trim_start().len()),
        };
        format!("{name}{}", self.hide(field, secret))
    }

    /// Values of secret parameters of a path with a query, or of a URL.
    fn url(&mut self, field: &str, url: &str) -> String {
        self.replaced(field, url, in_url(url))
    }

    /// A body, or a text of another kind, whatever it is.
    fn free(&mut self, field: &str, text: &str) -> String {
        self.replaced(field, text, in_text(text))
    }

    /// A body of bytes.
    fn bytes(&mut self, field: &str, base64: &str) -> String {
        let Ok(bytes) = base_64::decode(base64) else {
            return self.free(field, base64);
        };
        let text = binary::as_text(&bytes);
        let places = in_text(&text);
        if places.is_empty() {
            return base64.to_owned();
        }
        let text = self.replaced(field, &text, places);
        base_64::encode(binary::as_bytes(&text))
    }

    /// A text with a stand-in at each of these places.
    fn replaced(&mut self, field: &str, text: &str, places: Places) -> String {
        let mut places = apart(places);
        if places.len() > MAX_PLACES {
            places = whole(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for place in places {
            out.push_str(&text[at..place.start]);
            at = place.end;
            out.push_str(&self.hide(field, &text[place]));
        }
        out.push_str(&text[at..]);
        out
    }

    /// A secret's stand-in. What is empty or a stand-in already stays.
    fn hide(&mut self, field: &str, secret: &str) -> String {
        if self.redactor.keeps_secrets() || secret.is_empty() || is_stand_in(secret) {
            return secret.to_owned();
        }
        // What a guest answers to a redacted input has the numbers of that.
        let is_numbered = matches!(self.redactor.by, By::Number) && self.found.is_numbered(secret);
        if is_numbered || self.found.is_shape(secret) {
            return secret.to_owned();
        }
        // However it is spelled, so that equal ones stay equal.
        let spelled = spellings(secret.trim_matches([' ', '"']));
        let plain = spelled.last().map_or(secret, |plain| &**plain);
        let token = match &self.redactor.by {
            By::Nothing => return secret.to_owned(),
            By::Number => format!("{STAND_IN}{}", self.found.number(plain)),
            By::Key(key) => hashed(key, plain),
        };
        let all = spelled.iter().map(|spelling| &**spelling);
        let stand_in = StandIn::new(&self.redactor.manner, field, &token);
        self.found
            .note(field, [secret].into_iter().chain(all), &stand_in);
        stand_in.of(secret)
    }
}

/// A header's name in lower case, and what is to be known of it.
struct Header {
    name: String,
    field: String,
    is_secret: bool,
}

impl Header {
    fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        Self {
            field: below("headers", &name),
            is_secret: is_secret(&name),
            name,
        }
    }
}

/// A place in a place, by names of limited length: whoever makes the names
/// does not make them longer with each step inwards.
fn below(path: &str, key: &str) -> String {
    const CUT: char = '…';
    let room = MAX_FIELD.saturating_sub(path.len());
    match key {
        _ if path.ends_with(CUT) => path.to_owned(),
        key if path.is_empty() && key.len() <= room => key.to_owned(),
        key if key.len() <= room => format!("{path}.{key}"),
        key => format!("{path}.{}{CUT}", &key[..key.floor_char_boundary(room)]),
    }
}

/// Replaces texts of an input. Names of headers stay: with a stand-in in them
/// they would be none.
fn of_input(value: &mut Value, mut replace: impl FnMut(&mut Value) -> bool) -> bool {
    let headers = value.get_mut("headers").and_then(Value::as_object_mut);
    let mut headers = headers.map(std::mem::take).unwrap_or_default();
    let mut any = false;
    for value in headers.values_mut() {
        any |= replace(value);
    }
    any |= replace(value);
    if let Some(Value::Object(taken)) = value.get_mut("headers") {
        *taken = headers;
    }
    any
}

/// Replaces what was found in every text of a value. Whether there was any.
fn echoes(value: &mut Value, found: &mut SecretsFound) -> bool {
    if found.is_full {
        found.note_field("all texts, for too many secrets");
        SecretsFound::hide_texts(value);
        return true;
    }
    found.index();
    found.texts(value)
}

/// Places in order, of those that overlap each less what the ones before have.
fn apart(mut places: Places) -> Places {
    // Of those that begin together the longest first.
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let mut at = 0;
    places.retain_mut(|place| {
        place.start = place.start.max(at);
        at = at.max(place.end);
        place.start < place.end
    });
    places
}

fn hashed(key: &[u8; 32], secret: &str) -> String {
    // A key of any length is right for it.
    let digits = Hmac::<Sha256>::new_from_slice(key).map(|mac| {
        let digest = mac.chain_update(secret).finalize().into_bytes();
        hex(&digest[..HASH_DIGITS / 2])
    });
    format!("{STAND_IN}{}", digits.unwrap_or_default())
}

/// The values in a `set-cookie` field, and in several that were joined.
fn cookies_set(value: &str) -> Places {
    let Some(form) = SET_COOKIE.as_ref() else {
        return whole(value);
    };
    let begins: Vec<Range<usize>> = form.find_iter(value).map(|it| it.range()).collect();
    let ends = begins.iter().skip(1).map(|next| next.start);
    begins
        .iter()
        .zip(ends.chain([value.len()]))
        .map(|(begin, end)| {
            let rest = &value[begin.end..end];
            begin.end..begin.end + rest.find(';').unwrap_or(rest.len())
        })
        .collect()
}

/// What an operation on a header is given: an object of one key.
fn first_value(op: &mut Value) -> Option<&mut Value> {
    op.as_object_mut()?.values_mut().next()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;

#[cfg(test)]
mod cost_tests;
