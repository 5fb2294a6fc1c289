//! Removes secrets from everything that is written.
//!
//! Reports and fixtures show a secret as `redacted:` and its number, in the
//! order in which those of its transaction were met: no key is needed, and the
//! number says nothing but which of them are equal. What is collected over
//! many transactions has `redacted:` and sixteen hexadecimal digits of a keyed
//! hash (HMAC-SHA-256) in its place, so equal values stay equal and nobody
//! without the key can try values out.
//!
//! What makes a value a secret is the name it stands under, such as `token` or
//! `password`, or its own form: the prefix of an issuer's keys, a signed token, a
//! private key, a card's number. All cookies are secrets. A secret that was found
//! is replaced wherever else it occurs, as in an answer that echoes it, but never
//! in the fields of the protocol itself: what a client sends would choose them.
//!
//! Invariant: whoever chose the text, its cost is linear. What there is too
//! much of is not read, and nothing of it is shown.

mod binary;
mod body;
mod encoded;
mod finder;
mod forms;
mod found;
mod keep_decision;
mod layers;
mod markup;
mod names;
mod pairs;
mod parts;
mod places;
mod settings;
mod stand_in;

use std::borrow::Cow;
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use regex::Regex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::body::Body;
use self::found::Echoed;
use self::layers::spellings;
use self::names::{is_secret, is_secret_header, is_word};
use self::places::{About, Place, Places, Quote, in_text, in_url, whole};
use self::stand_in::{HASH_DIGITS, Manner, StandIn, is_part, is_stand_in};

pub(super) use self::stand_in::STAND_IN;

pub use found::SecretsFound;
pub(crate) use found::may_hold_secret;
pub(crate) use keep_decision::{Heard, Mark, Tried, keep_decision};

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
const SCHEMES: [&str; 15] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "digest",
    "dpop",
    "gnap",
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

    pub(crate) const fn keeps_secrets(&self) -> bool {
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
        if !found.has_id(id) {
            let places = in_text(id, About::default());
            self.pass(found).replaced("correlation_id", id, places);
            found.index();
        }
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
        let body = Body::of(&value);
        let mut pass = self.pass(found);
        pass.body = body.as_ref();
        pass.walk("", &mut value);
        let mut any = of_input(&mut value, |it| echoes(it, found));
        any |= self.ids(&mut value, found);
        let mut is_other = any || found.count != before;
        if is_other || found.looks_for_cuts() {
            is_other = true;
            of_input(&mut value, |it| found.cut_texts(it));
        }
        if let Some(body) = body {
            is_other |= body.fit_lengths(&mut value, found);
        }
        if is_other {
            return value.to_string();
        }
        json.to_owned()
    }

    /// An exchange has one id, whatever its records are found to hold later.
    fn ids(&self, value: &mut Value, found: &mut SecretsFound) -> bool {
        let Some(Value::String(id)) = value.get_mut("correlation_id") else {
            return false;
        };
        let shown = self.id(id, found);
        let is_other = shown != *id;
        *id = shown;
        is_other
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
        self.pass(found).walk("", &mut value);
        echoes(&mut value, found);
        value.to_string()
    }

    /// What a guest said, such as the message of its panic, as reports show it.
    #[must_use]
    pub fn said(&self, text: &str, found: &SecretsFound) -> String {
        if self.keeps_secrets() {
            return text.to_owned();
        }
        let places = in_text(text, About::default());
        if places.is_empty() {
            return found.quoting_text(text);
        }
        let mut found = found.known();
        let text = self.pass(&mut found).replaced("text", text, places);
        found.index();
        found.quoting_text(&text)
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
            body: None,
        }
    }
}

/// One text or value, looked through for secrets.
struct Pass<'a> {
    redactor: &'a Redactor,
    found: &'a mut SecretsFound,
    /// What is known of the input's body.
    body: Option<&'a Body>,
}

impl Pass<'_> {
    fn walk(&mut self, path: &str, value: &mut Value) {
        match value {
            Value::Object(map) => {
                let decoded = !binary::is_base64(map);
                let named = pairs::names_secret(map);
                let is_jwk = map.contains_key("kty");
                for (key, value) in map.iter_mut() {
                    // What is noted of a key is replaced with all echoes.
                    let at = if !path.is_empty() && self.free(path, key) != *key {
                        path.to_owned()
                    } else {
                        below(path, key)
                    };
                    match value {
                        Value::Object(headers) if key == "headers" => {
                            for (name, value) in headers.iter_mut() {
                                self.header_value(&Header::of(name), value);
                            }
                        }
                        Value::String(text) if path.is_empty() && is_protocol(key) => {
                            // The id is written once for all records.
                            if key == "method" {
                                *text = self.free(&at, text);
                            }
                        }
                        Value::String(text) if key == "uri" => {
                            *text = self.url(&at, text);
                        }
                        Value::String(text) if key == "data" => {
                            let body = self.body.filter(|_| path.is_empty());
                            *text = self.data(&at, text, (body, decoded));
                        }
                        value if is_secret(key) || (is_jwk && pairs::is_of_jwk(key)) => {
                            self.hide_all(&at, value);
                        }
                        value if named && pairs::is_value(key) => self.hide_all(&at, value),
                        other => self.walk(&at, other),
                    }
                }
            }
            Value::Array(values) => {
                if let [Value::String(name), value] = &mut values[..]
                    && is_secret_header(&name.to_ascii_lowercase())
                    && !value.as_str().is_some_and(is_plain_word)
                {
                    return self.hide_all(path, value);
                }
                for value in values {
                    self.walk(path, value);
                }
            }
            Value::String(text) => *text = self.free(path, text),
            Value::Number(number) if !path.is_empty() => {
                let text = number.to_string();
                if !in_text(&text, About::default()).is_empty() {
                    *value = self.hide(path, &text).into();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
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
                let cookies = cookies_sent(value).map(|pair| self.cookie(field, pair));
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
            _ if name.ends_with("authorization") || name.ends_with("authentication") => {
                match value.split_once(' ') {
                    Some((scheme, secret)) if SCHEMES.contains(&&*scheme.to_ascii_lowercase()) => {
                        let hidden = self.hide(field, secret);
                        if scheme.eq_ignore_ascii_case("basic") {
                            self.basic(field, secret);
                        }
                        format!("{scheme} {hidden}")
                    }
                    _ => self.hide(field, value),
                }
            }
            _ if header.is_secret => self.hide(field, value),
            _ => {
                let mut places = in_text(value, About::default());
                if value.contains(['=', '/', '%', ':']) {
                    places.extend(in_url(value));
                }
                self.replaced(field, value, places)
            }
        }
    }

    /// The password in a credential of user and password, which may stand alone
    /// elsewhere.
    fn basic(&mut self, field: &str, credential: &str) {
        let Ok(bytes) = base_64::decode(credential.trim()) else {
            return;
        };
        let Ok(pair) = String::from_utf8(bytes) else {
            return;
        };
        if let Some((_, password)) = pair.split_once(':') {
            self.hide(field, password);
        }
    }

    fn cookie(&mut self, field: &str, pair: &str) -> String {
        let (name, secret) = match pair.split_once('=') {
            Some((name, _)) => pair.split_at(name.len() + 1),
            None => pair.split_at(pair.len() - pair.trim_start().len()),
        };
        let hidden = if is_secret(name.trim_matches([' ', '='])) {
            self.hide(field, secret)
        } else {
            self.hide_as(field, secret, Echoed::Rare)
        };
        format!("{name}{hidden}")
    }

    /// Values of secret parameters of a path with a query, or of a URL.
    fn url(&mut self, field: &str, url: &str) -> String {
        self.replaced(field, url, in_url(url))
    }

    /// A text of any kind.
    fn free(&mut self, field: &str, text: &str) -> String {
        self.replaced(field, text, in_text(text, About::default()))
    }

    /// A body, as a text or as bytes in base64.
    fn data(&mut self, field: &str, data: &str, (body, is_text): (Option<&Body>, bool)) -> String {
        let hidden = || base_64::encode(stand_in::REST);
        if is_text {
            return self
                .body(field, data, body)
                .unwrap_or_else(|| data.to_owned());
        }
        let is_chunk = |it: &Body| it.is_compressed && !it.is_whole();
        if body.is_some_and(|it| it.is_unread || is_chunk(it)) && !encoded::is_plain_file(data) {
            if data != hidden() {
                self.found.count += 1;
                self.found.note_field(field);
            }
            return hidden();
        }
        if base_64::decode(data).is_err() {
            return self
                .body(field, data, body)
                .unwrap_or_else(|| data.to_owned());
        }
        let mut other = |text: &str| self.body(field, text, body);
        match encoded::edit_base64(data, stand_in::REST, &mut other) {
            Some(other) => {
                self.found.count += 1;
                self.found.note_field(field);
                other
            }
            None => data.to_owned(),
        }
    }

    /// A body's text, with what stood before it. None where nothing is hidden.
    fn body(&mut self, field: &str, text: &str, body: Option<&Body>) -> Option<String> {
        let before = body.filter(|it| !it.is_first);
        let mut tail =
            before.map_or_else(body::Tail::default, |it| self.found.tails[it.side].clone());
        let from = tail.text.len();
        let joined = match from {
            0 => Cow::Borrowed(text),
            _ => Cow::Owned(format!("{}{text}", tail.text)),
        };
        let says_form = body.is_some_and(|it| it.is_form) || tail.is_form;
        let is_form = says_form || places::looks_like_form(&joined);
        let goes_on = body.is_some_and(|it| !it.is_last);
        let about = About {
            is_form: Some(is_form),
            goes_on,
            ..About::default()
        };
        let mut all = in_text(&joined, about);
        if from > 0 || goes_on {
            self.found.index();
            all.extend(self.found.across(&joined, from, goes_on));
        }
        if tail.hides {
            all = vec![Place::of(from..joined.len())];
        }
        let all = apart(&joined, all);
        if let Some(body) = body.filter(|_| goes_on) {
            let open = all.last().filter(|it| it.range.end == joined.len());
            tail.is_form = is_form;
            tail.keep(&joined, open.map(|it| it.range.start));
            // What the next chunk is looked through with does not have its name.
            let inside = places::open_container(&joined);
            tail.hides |= inside.is_some_and(|it| !tail.text.contains(&joined[it]));
            self.found.tails[body.side] = tail;
        }
        let here = all
            .into_iter()
            .filter(|it| it.range.end > from)
            .collect::<Places>();
        let is_any = !here.is_empty();
        is_any.then(|| self.replaced_from(field, (&joined, from), here))
    }

    /// A text with a stand-in at each of these places.
    fn replaced(&mut self, field: &str, text: &str, places: Places) -> String {
        self.replaced_from(field, (text, 0), apart(text, places))
    }

    /// The same of what stands from there on; what is before was written already.
    fn replaced_from(
        &mut self,
        field: &str,
        (text, from): (&str, usize),
        mut places: Places,
    ) -> String {
        if places.len() > MAX_PLACES {
            places = whole(text);
        }
        let mut out = String::with_capacity(text.len() - from);
        let mut at = from;
        for Place { range, quote } in places {
            let begin = range.start.max(from);
            out.push_str(&text[at..begin]);
            at = range.end;
            let hidden = self.hide(field, &text[begin..at]);
            if begin > range.start {
                self.found.note_as(&text[range.clone()], &hidden);
            }
            let quote = quote.filter(|_| hidden != text[begin..at]);
            let quote = quote.map_or("", |quote| match quote {
                Quote::Plain => "\"",
                Quote::Like(at) => &text[at],
            });
            out.extend([quote, &*hidden, quote]);
        }
        out.push_str(&text[at..]);
        out
    }

    /// A secret's stand-in. What is empty or a stand-in already stays.
    fn hide(&mut self, field: &str, secret: &str) -> String {
        self.hide_as(field, secret, Echoed::All)
    }

    /// The same; of a value that is common it is not looked for elsewhere.
    fn hide_as(&mut self, field: &str, secret: &str, echoed: Echoed) -> String {
        if self.redactor.keeps_secrets() || secret.trim().is_empty() || are_stand_ins(secret) {
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
        let all = [secret].into_iter().chain(all).filter(|it| echoed.has(it));
        let stand_in = StandIn::new(&self.redactor.manner, field, &token);
        self.found.note(field, all, &stand_in);
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
            is_secret: is_secret_header(&name),
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

/// Fields of an input that are no text of anybody's, or are written once for all
/// records of an exchange.
const PROTOCOL: [&str; 3] = ["method", "client_ip", "correlation_id"];
/// Headers that say how a body is to be read.
const FRAMING: [&str; 4] = [
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "connection",
];

fn is_protocol(key: &str) -> bool {
    key == "encoding" || PROTOCOL.contains(&key)
}

/// Replaces texts of an input. Names of headers stay: with a stand-in in them
/// they would be none.
fn of_input(value: &mut Value, mut replace: impl FnMut(&mut Value) -> bool) -> bool {
    let headers = value.get_mut("headers").and_then(Value::as_object_mut);
    let mut headers = headers.map(std::mem::take).unwrap_or_default();
    let mut fields = Vec::new();
    for key in PROTOCOL {
        if let Some(Value::String(text)) = value.get_mut(key) {
            fields.push((key, std::mem::take(text)));
        }
    }
    let mut any = false;
    for (name, value) in &mut headers {
        if !FRAMING.iter().any(|it| it.eq_ignore_ascii_case(name)) {
            any |= replace(value);
        }
    }
    any |= replace(value);
    for (key, text) in fields {
        value[key] = text.into();
    }
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
/// What is a part of a stand-in is no secret.
fn apart(text: &str, mut places: Places) -> Places {
    places.retain(|place| !is_part(text, &place.range));
    // Of those that begin together the longest first.
    places.sort_by_key(|place| (place.range.start, std::cmp::Reverse(place.range.end)));
    let mut at = 0;
    places.retain_mut(|Place { range, .. }| {
        range.start = range.start.max(at);
        at = at.max(range.end);
        range.start < range.end
    });
    places
}

/// Whether a text is nothing but stand-ins, as of a name and its value.
fn are_stand_ins(text: &str) -> bool {
    // Quotes are of the text around them, where a form has no other values.
    let mut rest = text.trim_matches(['"', '\'', ' ']);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let next = rest.get(STAND_IN.len()..).and_then(|it| it.find(STAND_IN));
        let (first, after) = rest.split_at(next.map_or(rest.len(), |at| at + STAND_IN.len()));
        if !is_stand_in(first) {
            return false;
        }
        rest = after;
    }
    true
}

fn hashed(key: &[u8; 32], secret: &str) -> String {
    // A key of any length is right for it.
    let digits = Hmac::<Sha256>::new_from_slice(key).map(|mac| {
        let digest = mac.chain_update(secret).finalize().into_bytes();
        hex(&digest[..HASH_DIGITS / 2])
    });
    format!("{STAND_IN}{}", digits.unwrap_or_default())
}

/// Whether it may be the next name in a list of names.
fn is_plain_word(text: &str) -> bool {
    is_word(text) || text.bytes().all(|it| it.is_ascii_lowercase() || it == b'_')
}

/// The pairs in a `cookie` field.
fn cookies_sent(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = cookie_end(all);
        rest = all.get(end + 1..);
        Some(&all[..end])
    })
}

/// Where a cookie ends that a text begins with: at a semicolon, and not at one in
/// quotes.
fn cookie_end(text: &str) -> usize {
    let end = |from: usize| text[from..].find(';').map_or(text.len(), |it| from + it);
    let first = end(0);
    let quoted = quoted_end(text).filter(|it| *it > first);
    quoted.map_or(first, end)
}

/// Where the quotes end that the value of a text's first pair stands in.
fn quoted_end(text: &str) -> Option<usize> {
    let name = text.trim_start_matches([',', ' ']);
    let equals = text.len() - name.len() + name.find(['=', ';', ','])?;
    let inside = text[equals..].strip_prefix("=\"")?;
    let begin = text.len() - inside.len();
    inside.find('"').map(|it| begin + it + 1)
}

/// The values in a `set-cookie` field, and in several that were joined.
fn cookies_set(value: &str) -> Places {
    let Some(form) = SET_COOKIE.as_ref() else {
        return whole(value);
    };
    let mut begins: Vec<usize> = form.find_iter(value).map(|it| it.start()).collect();
    if begins.first() != Some(&0) {
        begins.insert(0, 0);
    }
    let ends = begins.iter().skip(1).copied().chain([value.len()]);
    let ends: Vec<usize> = ends.collect();
    // What is in quotes begins and ends no cookie.
    let mut covered = 0;
    begins
        .iter()
        .zip(ends)
        .filter_map(|(begin, end)| {
            if *begin < covered {
                return None;
            }
            let all = &value[*begin..end];
            let mut pair = &all[..all.find(';').unwrap_or(all.len())];
            if let Some(quoted) = quoted_end(&value[*begin..]).filter(|it| *it > pair.len()) {
                covered = begin + quoted;
                pair = &value[*begin..covered];
            }
            // One without a name is all value.
            let name = pair.find('=').map_or_else(
                || pair.len() - pair.trim_start_matches([',', ' ']).len(),
                |it| it + 1,
            );
            (name < pair.len()).then(|| Place::of(begin + name..begin + pair.len()))
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
