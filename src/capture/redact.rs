//! Secrets out of everything that is written.
//!
//! A secret becomes `redacted:` and sixteen hexadecimal digits of a keyed hash
//! (HMAC-SHA-256), so equal values stay equal and nobody without the key can
//! try values out. What makes a value a secret is the name it stands under:
//! credential headers, cookies, and parameters and JSON keys such as `token`
//! or `password`. A secret that was found is replaced wherever else it occurs,
//! as in an answer that echoes it.

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

use self::places::{Places, decoded, in_text, in_url, is_secret, whole};

/// Secrets of one text; of one with more nothing is shown.
const MAX_PLACES: usize = 256;
/// Secrets of one exchange that are looked for elsewhere, too.
const MAX_ECHOED: usize = 1024;
/// Bytes at either end of a secret that are looked for by themselves.
const MAX_REST: usize = 1024;

/// Shorter values are too common to be replaced wherever they occur.
const LEAST_ECHOED: usize = 6;

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
    known: Found,
    /// Whether inputs may hold no more than a part of a known secret.
    cuts: bool,
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

/// Secrets found so far, and where.
#[derive(Debug, Default, Clone)]
pub struct Found {
    secrets: Vec<(String, String)>,
    /// Where they stood.
    pub fields: Vec<String>,
    /// How many stood anywhere, known ones too.
    count: usize,
}

impl Found {
    fn note(&mut self, field: &str, secret: &str, token: &str) {
        self.count += 1;
        if !self.fields.iter().any(|have| have == field) {
            self.fields.push(field.to_owned());
        }
        if secret.len() >= LEAST_ECHOED
            && self.secrets.len() < MAX_ECHOED
            && !self.secrets.iter().any(|(have, _)| have == secret)
        {
            self.secrets.push((secret.to_owned(), token.to_owned()));
            // The longest first, so that none is hidden by a part of it.
            self.secrets
                .sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        }
    }

    /// Any text, without the secrets that were found.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        replace_all(text, &self.secrets)
    }

    /// Every text of a value whose parts may be cut: without the secrets that
    /// were found, and without what was left of one at either end.
    fn cut_texts(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(other) = self.text(text) {
                    *text = other;
                }
                for (secret, token) in &self.secrets {
                    if let Some(other) = without_rest(text, secret, token) {
                        *text = other;
                    }
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.cut_texts(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.cut_texts(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// The text without the beginning of the secret at its end, the end of it at
/// its beginning, and without anything if it is a part of it.
fn without_rest(text: &str, secret: &str, token: &str) -> Option<String> {
    let long_enough =
        |length: usize| length >= LEAST_ECHOED && length < secret.len() && length <= MAX_REST;
    if text.len() >= LEAST_ECHOED && secret.contains(text) {
        return Some(token.to_owned());
    }
    // A longer rest than is looked for shows itself by its end.
    let ends = (0..4)
        .filter_map(|less| secret.get(..MAX_REST - less))
        .take(1);
    let begins = (0..4).filter_map(|less| secret.get(secret.len().checked_sub(MAX_REST - less)?..));
    let mut ends = ends.chain(begins.take(1));
    if ends.any(|end| end.len() < secret.len() && text.contains(end)) {
        return Some(token.to_owned());
    }
    let places = secret.char_indices().map(|(at, _)| at);
    let lengths: Vec<usize> = places.take_while(|at| *at <= MAX_REST).collect();
    let mut lengths = lengths.into_iter().rev();
    if let Some(at) = lengths.find(|at| long_enough(*at) && text.ends_with(&secret[..*at])) {
        return Some(format!("{}{token}", &text[..text.len() - at]));
    }
    let mut begins = secret.char_indices().map(|(at, _)| at);
    let rest = begins.find_map(|at| {
        let rest = &secret[at..];
        (long_enough(rest.len())).then(|| text.strip_prefix(rest))?
    });
    rest.map(|rest| format!("{token}{rest}"))
}

/// Whether a text is long enough for [`Found::text`] to replace any of it.
#[must_use]
pub const fn may_hold_secret(text: &str) -> bool {
    text.len() >= LEAST_ECHOED
}

fn replace_all<'a>(text: &'a str, secrets: &[(String, String)]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for (secret, token) in secrets {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), token));
        }
    }
    text
}

impl Redactor {
    /// Takes secrets out, hashing with this key.
    #[must_use]
    pub fn with_key(key: [u8; 32]) -> Self {
        Self {
            key: Some(key),
            ..Self::keep_secrets()
        }
    }

    /// Leaves everything as it is.
    #[must_use]
    pub const fn keep_secrets() -> Self {
        Self {
            key: None,
            known: Found {
                secrets: Vec::new(),
                fields: Vec::new(),
                count: 0,
            },
            cuts: false,
        }
    }

    /// The same for inputs of an exchange of which secrets are known, wherever
    /// in it they stood.
    #[must_use]
    pub fn knowing(&self, found: &Found) -> Self {
        Self {
            key: self.key,
            known: Found {
                secrets: found.secrets.clone(),
                ..Found::default()
            },
            cuts: false,
        }
    }

    /// The same for parts of such inputs.
    #[must_use]
    pub fn knowing_cut(&self, found: &Found) -> Self {
        Self {
            cuts: true,
            ..self.knowing(found)
        }
    }

    /// What is known of an exchange before its inputs are looked at.
    #[must_use]
    pub fn known(&self) -> Found {
        self.known.clone()
    }

    /// One input and its answer, as JSON texts.
    #[must_use]
    pub fn record(&self, input: &str, output: &str) -> Redacted {
        let mut found = self.known.clone();
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
        if self.cuts {
            self.known.cut_texts(&mut value);
        }
        if found.count == before && !text && !self.cuts {
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
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::with_key(key_of(&[b"test"]))
    }

    #[test]
    fn secrets_go_and_their_shape_stays() {
        let input = r#"{"method":"GET","uri":"/a?token=abcdef&page=2","headers":{"authorization":"Bearer abcdef","cookie":"sid=one; theme=dark","x-api-key":"k-123456","accept":"*/*"}}"#;
        let out = redactor().record(
            input,
            r#"{"decision":"allow","audit":{"tags":["saw abcdef"]}}"#,
        );
        for secret in ["abcdef", "k-123456", "=one", "dark"] {
            assert!(!out.input.contains(secret), "{secret} in {}", out.input);
        }
        assert!(!out.output.contains("abcdef"), "{}", out.output);
        assert!(out.input.contains("Bearer redacted:"));
        assert!(out.input.contains("page=2"));
        let value: Value = serde_json::from_str(&out.input).unwrap();
        let token = value["uri"]
            .as_str()
            .unwrap()
            .split(['=', '&'])
            .nth(1)
            .unwrap();
        assert!(
            value["headers"]["authorization"]
                .as_str()
                .unwrap()
                .ends_with(token)
        );
        assert_eq!(
            out.fields,
            [
                "uri",
                "headers.authorization",
                "headers.cookie",
                "headers.x-api-key"
            ]
        );
    }

    #[test]
    fn the_second_input_of_an_exchange_loses_its_secrets_too() {
        let mut found = Found::default();
        for secret in ["hunter22", "hunter22", "other-one"] {
            let input =
                format!(r#"{{"data":"password={secret}","headers":{{"cookie":"s={secret}"}}}}"#);
            let out = redactor().input(&input, &mut found);
            assert!(!out.contains(secret), "{out}");
        }
        assert_eq!(found.fields, ["data", "headers.cookie"]);
    }

    #[test]
    fn what_has_no_secret_stays_byte_for_byte() {
        let input = "{\"uri\":\"/caf\u{e9}?a=\\u0001\",\"headers\":{}}";
        let out = redactor().record(input, "null");
        assert_eq!(out.input, input);
        assert!(out.fields.is_empty());
        assert_eq!(
            Redactor::keep_secrets()
                .record("{\"password\":\"x\"}", "null")
                .input,
            "{\"password\":\"x\"}"
        );
    }

    #[test]
    fn redacting_twice_changes_nothing() {
        let once = redactor().record(r#"{"headers":{"cookie":"a=bcdefgh"}}"#, "null");
        let other = Redactor::with_key(key_of(&[b"other"]));
        assert_eq!(other.record(&once.input, "null").input, once.input);
    }

    #[test]
    fn bodies_lose_their_passwords() {
        let form = redactor().record(
            r#"{"data":"user=a&password=hunter22","encoding":"utf8"}"#,
            "null",
        );
        assert!(!form.input.contains("hunter22") && form.input.contains("user=a"));
        let json = redactor().record(
            r#"{"data":"{\"password\": \"hunter22\", \"n\": 1}","encoding":"utf8"}"#,
            "null",
        );
        assert!(!json.input.contains("hunter22") && json.input.contains("\\\"n\\\": 1"));
    }

    #[test]
    fn any_text_loses_what_says_that_it_is_a_credential() {
        let page = "<a href='/x?token=abcdefgh&p=1'>fetch(u, {headers: {Authorization: 'Bearer abc.def-ghi'}})";
        let input = serde_json::json!({"data": page, "encoding": "utf8"}).to_string();
        let out = redactor().record(&input, "null");
        assert!(!out.input.contains("abcdefgh") && !out.input.contains("abc.def-ghi"));
        assert!(
            out.input.contains("&p=1'>fetch(u, {headers"),
            "{}",
            out.input
        );
    }

    #[test]
    fn every_cookie_that_is_set_is_covered() {
        let input = r#"{"status":200,"headers":{"set-cookie":"a=secret1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/, b=secret2"}}"#;
        let out = redactor().record(input, "null");
        assert!(!out.input.contains("secret"), "{}", out.input);
        assert!(
            out.input
                .contains("Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/")
        );
    }

    /// Everything that an input with this body, path or header shows.
    fn shown(input: &Value) -> String {
        redactor().record(&input.to_string(), "null").input
    }

    #[test]
    fn secrets_of_urls_go_wherever_they_stand() {
        for url in [
            "/p;jsessionid=HUNTER22/next?page=2",
            "/a?user%5Bpassword%5D=HUNTER22&page=2",
            "/a?pass%77ord=HUNTER22",
            "https://app.example/cb#access_token=HUNTER22",
            "https://ann:HUNTER22@app.example/",
            "/cb?code=HUNTER22&state=HUNTER22&page=2",
            "/go?next=https%3A%2F%2Fx%2F%3Ftoken%3DHUNTER22",
            "/go?x=1?token=HUNTER22",
            "/a?b=1;sid=HUNTER22",
        ] {
            for input in [
                serde_json::json!({"uri": url}),
                serde_json::json!({"headers": {"referer": url}}),
                serde_json::json!({"headers": {"link": format!("<{url}>; rel=next")}}),
            ] {
                let out = shown(&input);
                assert!(!out.contains("HUNTER22"), "{out}");
            }
        }
        for url in [
            "/a?code=7&page=2",
            "/a?state=open",
            "/go?next=%2Fx%3Fa%3D1",
            "/a=b",
        ] {
            let input = serde_json::json!({"uri": url});
            assert_eq!(shown(&input), input.to_string());
        }
    }

    #[test]
    fn secrets_of_bodies_go_however_they_are_written() {
        let part =
            "--x\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nHUNTER22\r\n--x--\r\n";
        for body in [
            part,
            "<login><password>HUNTER22</password></login>",
            "mutation { login(password: \"HUNTER22\") { id } }",
            "{'password': 'HUNTER22'}",
            r#"{"log":"{\"password\":\"HUNTER22\"}"}"#,
            r#"{"token":["HUNTER22",{"a":"HUNTER22"}],"b":1}"#,
            r#"{"password":{"value":"HUNTER22"},"user":"ann"}"#,
            r#"{"newPassword":"HUNTER22"}"#,
            r#"{"password":"HUNTER22 and it was cut her"#,
            "user=ann&password=first'HUNTER22",
            "user%5Bpassword%5D=HUNTER22&user%5Bname%5D=ann",
            "__RequestVerificationToken=HUNTER22",
            "aws_secret_access_key = HUNTER22",
            "private_key: HUNTER22",
            "<input name='csrf_token' value='x'><a href='?token=HUNTER22'>",
        ] {
            let out = shown(&serde_json::json!({"data": body, "encoding": "utf8"}));
            assert!(!out.contains("HUNTER22"), "{out}");
            let data = STANDARD.encode(body.as_bytes());
            let out = shown(&serde_json::json!({"data": data, "encoding": "base64"}));
            let out: Value = serde_json::from_str(&out).unwrap();
            let bytes = STANDARD.decode(out["data"].as_str().unwrap()).unwrap();
            assert!(
                !String::from_utf8(bytes).unwrap().contains("HUNTER22"),
                "{body}"
            );
        }
        assert!(
            !shown(&serde_json::json!({"data": r#"{"password":12345678}"#})).contains("12345678")
        );
        let file = STANDARD.encode([0_u8, 0xff, 0x80, b'a', b'=', b'1']);
        let input = serde_json::json!({"data": file, "encoding": "base64"});
        assert_eq!(shown(&input), input.to_string());
    }

    #[test]
    fn secrets_of_headers_go_under_every_name_they_have() {
        for (name, value) in [
            ("x-forwarded-authorization", "Bearer HUNTER22"),
            ("x-original-authorization", "Basic HUNTER22"),
            ("authorization", "HUNTER22 rest"),
            ("x-auth-key", "HUNTER22"),
            ("ocp-apim-subscription-key", "HUNTER22"),
            ("x-functions-key", "HUNTER22"),
            ("sec-websocket-protocol", "chat, bearer.HUNTER22"),
            ("refresh", "5; url=/a?token=HUNTER22"),
            ("x-forwarded-uri", "/a?token=HUNTER22"),
            ("x-note", "Authorization: Bearer HUNTER22"),
            ("set-cookie", "sid=abc,HUNTER22; Path=/, b=\"HUNTER22\""),
        ] {
            let mut headers = serde_json::Map::new();
            headers.insert(name.to_owned(), value.into());
            let out = shown(&serde_json::json!({"headers": headers}));
            assert!(!out.contains("HUNTER22"), "{out}");
        }
        for (name, value) in [
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            ),
            ("accept", "text/html;q=0.9, */*;q=0.8"),
            ("sec-websocket-protocol", "graphql-ws"),
            ("host", "localhost:8080"),
        ] {
            let mut headers = serde_json::Map::new();
            headers.insert(name.to_owned(), value.into());
            let input = serde_json::json!({"headers": headers});
            assert_eq!(shown(&input), input.to_string());
        }
    }

    #[test]
    fn equal_secrets_are_equal_however_they_are_spelled() {
        let mut found = Found::default();
        let input = r#"{"uri":"/a?token=secret%31","headers":{"cookie":"a=secret1; b=\"secret1\"; secret1"}}"#;
        redactor().input(input, &mut found);
        let tokens: std::collections::BTreeSet<&String> =
            found.secrets.iter().map(|(_, token)| token).collect();
        assert_eq!(tokens.len(), 1, "{:?}", found.secrets);
    }

    #[test]
    fn what_is_left_of_a_secret_goes_too() {
        let mut found = Found::default();
        let whole = r#"{"data":"{\"user\":\"ann\",\"password\":\"correct horse battery\"}"}"#;
        redactor().input(whole, &mut found);
        let cut = redactor().knowing_cut(&found);
        for data in [
            "rd\": \"correct horse bat",
            "orse battery\"}",
            "t horse b",
            "correct horse battery",
        ] {
            let out = cut.input(
                &serde_json::json!({"data": data}).to_string(),
                &mut Found::default(),
            );
            assert!(!out.contains("horse"), "{out}");
        }
    }

    /// What anybody may send costs no more than its size: a minute would be
    /// seen here, where it takes the square of it.
    #[test]
    fn no_text_takes_longer_than_it_is_long() {
        for part in [
            "token:[",
            "\"token\":{",
            "token='",
            "token:\\\"",
            "password=",
            "a;sid=x&",
            "<password>",
            "name=\"password\"\n\n",
        ] {
            let text = part.repeat(200_000 / part.len());
            let input = serde_json::json!({"data": text, "uri": text, "headers": {"x-a": text, "cookie": text}});
            let out = redactor().record(&input.to_string(), "null");
            assert!(out.input.len() < 4 * 200_000 * 20, "{part}");
        }
        let mut found = Found::default();
        let secret = "ab".repeat(100_000);
        let whole = serde_json::json!({"data": format!("password={secret}&x=1")}).to_string();
        redactor().input(&whole, &mut found);
        let cut = redactor().knowing_cut(&found);
        for data in [
            &secret[..150_000],
            &secret[7..],
            &format!("x {}", &secret[..2_000]),
            &format!("x {}", &secret[..500]),
        ] {
            let input = serde_json::json!({"data": data}).to_string();
            let out = cut.input(&input, &mut Found::default());
            assert!(!out.contains("abababab"), "{}", out.len());
        }
    }

    proptest::proptest! {
        /// No text breaks the search, and a secret with a name never stays.
        #[test]
        fn any_text_is_looked_through(before in r#"[a-z0-9 =:&;?#%"'\\<>{}\[\]/\n\u{e9}]{0,30}"#, after in r#"[a-z =:&;"'\\<>{}\[\]/\n\u{e9}]{0,30}"#) {
            let places = [in_text(&before), in_url(&before)].concat();
            for place in places {
                proptest::prop_assert!(before.get(place).is_some());
            }
            let data = format!("{before}&password=HUNTER22&{after}");
            let out = shown(&serde_json::json!({"data": data}));
            proptest::prop_assert!(!out.contains("HUNTER22"), "{}", out);
        }
    }
}
