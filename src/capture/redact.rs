//! Secrets out of everything that is written.
//!
//! A secret becomes `redacted:` and sixteen hexadecimal digits of a keyed hash
//! (HMAC-SHA-256), so equal values stay equal and nobody without the key can
//! try values out. What makes a value a secret is the name it stands under:
//! credential headers, cookies, and parameters and JSON keys such as `token`
//! or `password`. A secret that was found is replaced wherever else it occurs,
//! as in an answer that echoes it.

mod found;
mod places;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use regex::Regex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use self::found::replace_all;
use self::places::{Places, decoded, in_text, in_url, is_secret, whole};

pub use found::{Found, may_hold_secret};

/// Secrets of one text; of one with more nothing is shown.
const MAX_PLACES: usize = 256;

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
    key: Option<[u8; 32]>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Redactor")
            .field("keeps_secrets", &self.key.is_none())
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
    secrets: Vec<(String, String)>,
}

impl Redacted {
    /// Any text, without the secrets that were found.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        replace_all(text, &self.secrets).into_owned()
    }
}

impl Redactor {
    /// Takes secrets out, hashing with this key.
    #[must_use]
    pub const fn with_key(key: [u8; 32]) -> Self {
        Self { key: Some(key) }
    }

    /// Leaves everything as it is.
    #[must_use]
    pub const fn keep_secrets() -> Self {
        Self { key: None }
    }

    /// One input and its answer, as JSON texts; `found` has what is known of
    /// others of the exchange.
    #[must_use]
    pub fn record(&self, input: &str, output: &str, mut found: Found) -> Redacted {
        let input = self.input(input, &mut found);
        let output = self.output(output, &mut found);
        Redacted {
            input,
            output,
            fields: found.fields,
            secrets: found.secrets,
        }
    }

    /// A guest's input, as JSON text.
    pub fn input(&self, json: &str, found: &mut Found) -> String {
        if self.key.is_none() {
            return json.to_owned();
        }
        let Ok(mut value) = serde_json::from_str::<Value>(json) else {
            // Nothing is known of it, so nothing of it is shown.
            found.fields.push("input".to_owned());
            return "{}".to_owned();
        };
        let before = found.count;
        self.walk("", &mut value, found);
        let text = self.echoes(&mut value, found);
        if found.cuts {
            found.cut_texts(&mut value);
        }
        if found.count == before && !text && !found.cuts {
            return json.to_owned();
        }
        value.to_string()
    }

    /// An agent response or a hook's result, as JSON text: secrets of the input
    /// it echoes, and credentials it sets itself.
    pub fn output(&self, json: &str, found: &mut Found) -> String {
        if self.key.is_none() {
            return json.to_owned();
        }
        let Ok(mut value) = serde_json::from_str::<Value>(json) else {
            return "null".to_owned();
        };
        for side in ["request_headers", "response_headers"] {
            let ops = value.get_mut(side).and_then(Value::as_array_mut);
            for set in ops.into_iter().flatten().filter_map(|op| op.get_mut("set")) {
                let name = set.get("name").and_then(Value::as_str).map(str::to_owned);
                if let (Some(name), Some(Value::String(text))) = (name, set.get_mut("value")) {
                    *text = self.header(&name, text, found);
                }
            }
        }
        if let Some(context) = value.get_mut("ctx") {
            self.walk("ctx", context, found);
        }
        self.echoes(&mut value, found);
        value.to_string()
    }

    /// Path and query, as reports show them.
    #[must_use]
    pub fn uri(&self, uri: &str) -> String {
        self.url("uri", uri, &mut Found::default())
    }

    /// Any other text, as reports show it.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.free("text", text, &mut Found::default())
    }

    /// Replaces what was found in every text of a value.
    fn echoes(&self, value: &mut Value, found: &Found) -> bool {
        match value {
            Value::String(text) => match replace_all(text, &found.secrets) {
                Cow::Borrowed(_) => false,
                Cow::Owned(other) => {
                    *text = other;
                    true
                }
            },
            Value::Array(values) => values
                .iter_mut()
                .fold(false, |any, value| self.echoes(value, found) | any),
            Value::Object(map) => map
                .iter_mut()
                .fold(false, |any, (_, value)| self.echoes(value, found) | any),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn walk(&self, path: &str, value: &mut Value, found: &mut Found) {
        match value {
            Value::Object(map) => {
                let decoded = map.get("encoding").and_then(Value::as_str) != Some("base64");
                for (key, value) in map.iter_mut() {
                    let at = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    match value {
                        Value::Object(headers) if key == "headers" => {
                            for (name, value) in headers.iter_mut() {
                                self.header_value(name, value, found);
                            }
                        }
                        Value::String(text) if key == "uri" => {
                            *text = self.url(&at, text, found);
                        }
                        Value::String(text) if key == "data" && decoded => {
                            *text = self.free(&at, text, found);
                        }
                        Value::String(text) if key == "data" => {
                            *text = self.bytes(&at, text, found);
                        }
                        Value::String(text) if is_secret(key) => {
                            *text = self.hide(&at, text, found);
                        }
                        value if is_secret(key) => self.hide_all(&at, value, found),
                        other => self.walk(&at, other, found),
                    }
                }
            }
            Value::Array(values) => {
                for value in values {
                    self.walk(path, value, found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Whatever stands under a secret's name.
    fn hide_all(&self, at: &str, value: &mut Value, found: &mut Found) {
        match value {
            Value::String(text) => *text = self.hide(at, text, found),
            Value::Number(number) => *value = self.hide(at, &number.to_string(), found).into(),
            Value::Array(values) => {
                for value in values {
                    self.hide_all(at, value, found);
                }
            }
            Value::Object(map) => {
                for value in map.values_mut() {
                    self.hide_all(at, value, found);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn header_value(&self, name: &str, value: &mut Value, found: &mut Found) {
        match value {
            Value::String(text) => *text = self.header(name, text, found),
            Value::Array(values) => {
                for value in values {
                    self.header_value(name, value, found);
                }
            }
            _ => {}
        }
    }

    fn header(&self, name: &str, value: &str, found: &mut Found) -> String {
        let lower = name.to_ascii_lowercase();
        let field = format!("headers.{lower}");
        match lower.as_str() {
            "cookie" => {
                let cookies = value
                    .split(';')
                    .map(|pair| self.cookie(&field, pair, found));
                cookies.collect::<Vec<_>>().join(";")
            }
            "set-cookie" => self.replaced(&field, (value, cookies_set(value)), found),
            "sec-websocket-protocol" => {
                let protocols = value.split(',').map(|protocol| {
                    let name = protocol.trim().to_ascii_lowercase();
                    if name.len() >= 24 || name.contains("bearer") || name.contains("token") {
                        self.hide(&field, protocol.trim(), found)
                    } else {
                        protocol.to_owned()
                    }
                });
                protocols.collect::<Vec<_>>().join(",")
            }
            // Under more names than one: proxies hand it on.
            _ if lower.ends_with("authorization") => match value.split_once(' ') {
                Some((scheme, secret)) if SCHEMES.contains(&&*scheme.to_ascii_lowercase()) => {
                    format!("{scheme} {}", self.hide(&field, secret, found))
                }
                _ => self.hide(&field, value, found),
            },
            _ if is_secret(&lower) => self.hide(&field, value, found),
            _ if value.contains(['=', ':', ' ']) => {
                let places = [in_url(value), in_text(value)].concat();
                self.replaced(&field, (value, places), found)
            }
            _ => value.to_owned(),
        }
    }

    fn cookie(&self, field: &str, pair: &str, found: &mut Found) -> String {
        let (name, secret) = match pair.split_once('=') {
            Some((name, _)) => pair.split_at(name.len() + 1),
            None => pair.split_at(pair.len() - pair.trim_start().len()),
        };
        format!("{name}{}", self.hide(field, secret, found))
    }

    /// Values of secret parameters of a path with a query, or of a URL.
    fn url(&self, field: &str, url: &str, found: &mut Found) -> String {
        self.replaced(field, (url, in_url(url)), found)
    }

    /// A body, or a text of another kind, whatever it is.
    fn free(&self, field: &str, text: &str, found: &mut Found) -> String {
        self.replaced(field, (text, in_text(text)), found)
    }

    /// A body of bytes: each as one character, so that none is lost.
    fn bytes(&self, field: &str, base64: &str, found: &mut Found) -> String {
        let Ok(bytes) = STANDARD.decode(base64) else {
            return base64.to_owned();
        };
        let text: String = bytes.iter().copied().map(char::from).collect();
        let places = in_text(&text);
        if places.is_empty() {
            return base64.to_owned();
        }
        let text = self.replaced(field, (&text, places), found);
        let bytes: Vec<u8> = text
            .chars()
            .filter_map(|it| u8::try_from(it).ok())
            .collect();
        STANDARD.encode(bytes)
    }

    /// A text with a stand-in at each of these places.
    fn replaced(
        &self,
        field: &str,
        (text, mut places): (&str, Places),
        found: &mut Found,
    ) -> String {
        if places.len() > MAX_PLACES {
            places = whole(text);
        }
        // Of those that overlap the one that begins first, and of these the
        // longest.
        places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for place in places {
            // What of it is covered already needs no other stand-in.
            let begin = place.start.max(at);
            if begin >= place.end {
                continue;
            }
            out.push_str(&text[at..begin]);
            out.push_str(&self.hide(field, &text[begin..place.end], found));
            at = place.end;
        }
        out.push_str(&text[at..]);
        out
    }

    /// A secret's stand-in. What is empty or a stand-in already stays.
    fn hide(&self, field: &str, secret: &str, found: &mut Found) -> String {
        let Some(key) = &self.key else {
            return secret.to_owned();
        };
        if secret.is_empty() || is_stand_in(secret) {
            return secret.to_owned();
        }
        // However it is spelled, so that equal ones stay equal.
        let spelled = secret.trim_matches([' ', '"']);
        let plain = decoded(spelled);
        let digest = Hmac::<Sha256>::new_from_slice(key).map(|mut mac| {
            mac.update(plain.as_bytes());
            mac.finalize().into_bytes()
        });
        let digits: String = digest
            .iter()
            .flat_map(|digest| digest.iter().take(8))
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let token = format!("redacted:{digits}");
        for spelling in [secret, spelled, &*plain] {
            found.note(field, spelling, &token);
        }
        token
    }
}

fn is_stand_in(text: &str) -> bool {
    text.strip_prefix("redacted:")
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
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

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
