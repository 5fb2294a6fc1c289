//! Secrets out of everything that is written.
//!
//! A secret becomes `redacted:` and sixteen hexadecimal digits of a keyed hash
//! (HMAC-SHA-256), so equal values stay equal and nobody without the key can
//! try values out. What makes a value a secret is the name it stands under:
//! credential headers, cookies, and parameters and JSON keys such as `token`
//! or `password`. A secret that was found is replaced wherever else it occurs,
//! as in an answer that echoes it.

use std::borrow::Cow;
use std::sync::LazyLock;

use hmac::{Hmac, Mac as _};
use regex::{Captures, Regex};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Shorter values are too common to be replaced wherever they occur.
const LEAST_ECHOED: usize = 6;

static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^(?:.*[-_.\[])?(?:(?:access|id|refresh|auth|bearer|csrf|xsrf|session)?[-_]?token|api[-_]?key|x-goog-api-key|(?:client[-_]?)?secret|password|passwd|passphrase|pwd|signature|sig|session(?:[-_]?id)?|sessid|phpsessid|jsessionid|jwt|credentials?)\]?$",
    )
    .ok()
});

/// A `"name": "value"` pair of JSON, wherever it stands.
static JSON_PAIR: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#""([A-Za-z0-9_.-]{1,64})"(\s*:\s*)"((?:[^"\\]|\\.)*)""#).ok());

/// A parameter of a form, of a URL in a text, or of a program's text.
static PARAMETER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z0-9_.\[\]-]{1,64})=([^&;\s'"<>\\]+)"#).ok());

/// A credential that says so itself.
static BEARER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)(\b(?:bearer|basic)\s+)([A-Za-z0-9._~+/-]{8,}=*)").ok());

/// The beginning of each cookie in a `set-cookie` value, joined ones too.
static SET_COOKIE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(^|, ?)([^=;,\s]+)=([^;,]*)").ok());

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
        if secret.len() >= LEAST_ECHOED && !self.secrets.iter().any(|(have, _)| have == secret) {
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
    pub const fn with_key(key: [u8; 32]) -> Self {
        Self { key: Some(key) }
    }

    /// Leaves everything as it is.
    #[must_use]
    pub const fn keep_secrets() -> Self {
        Self { key: None }
    }

    /// One input and its answer, as JSON texts.
    #[must_use]
    pub fn record(&self, input: &str, output: &str) -> Redacted {
        let mut found = Found::default();
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
        if found.count == before && !text {
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
        let mut found = Found::default();
        self.query("uri", uri, &mut found)
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
                            *text = self.query(&at, text, found);
                        }
                        Value::String(text) if key == "data" && decoded => {
                            *text = self.body(&at, text, found);
                        }
                        Value::String(text) if is_secret(key) => {
                            *text = self.hide(&at, text, found);
                        }
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
            "authorization" | "proxy-authorization" => match value.split_once(' ') {
                Some((scheme, secret)) if !scheme.is_empty() => {
                    format!("{scheme} {}", self.hide(&field, secret, found))
                }
                _ => self.hide(&field, value, found),
            },
            "cookie" => value
                .split(';')
                .map(|pair| match pair.split_once('=') {
                    Some((name, secret)) => {
                        format!("{name}={}", self.hide(&field, secret, found))
                    }
                    None if pair.trim().is_empty() => pair.to_owned(),
                    None => self.hide(&field, pair, found),
                })
                .collect::<Vec<_>>()
                .join(";"),
            "set-cookie" => SET_COOKIE.as_ref().map_or_else(String::new, |form| {
                form.replace_all(value, |cookie: &Captures<'_>| {
                    format!(
                        "{}{}={}",
                        &cookie[1],
                        &cookie[2],
                        self.hide(&field, &cookie[3], found)
                    )
                })
                .into_owned()
            }),
            "referer" | "location" | "x-original-url" | "x-rewrite-url" => {
                self.query(&field, value, found)
            }
            _ if is_secret(&lower) => self.hide(&field, value, found),
            _ => value.to_owned(),
        }
    }

    /// Values of secret parameters of a path with a query, or of a URL.
    fn query(&self, field: &str, uri: &str, found: &mut Found) -> String {
        let Some((path, query)) = uri.split_once('?') else {
            return uri.to_owned();
        };
        format!("{path}?{}", self.parameters(field, query, found))
    }

    fn parameters(&self, field: &str, query: &str, found: &mut Found) -> String {
        query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, secret)) if is_secret(name) => {
                    format!("{name}={}", self.hide(field, secret, found))
                }
                _ => pair.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("&")
    }

    /// A body, whatever it is: pairs of JSON, parameters, and credentials that
    /// say so themselves.
    fn body(&self, field: &str, text: &str, found: &mut Found) -> String {
        let (Some(json), Some(parameter), Some(bearer)) =
            (JSON_PAIR.as_ref(), PARAMETER.as_ref(), BEARER.as_ref())
        else {
            return String::new();
        };
        let text = json.replace_all(text, |pair: &Captures<'_>| {
            if is_secret(&pair[1]) {
                let hidden = self.hide(field, &pair[3], found);
                format!("\"{}\"{}\"{hidden}\"", &pair[1], &pair[2])
            } else {
                pair[0].to_owned()
            }
        });
        let text = parameter.replace_all(&text, |pair: &Captures<'_>| {
            if is_secret(&pair[1]) {
                format!("{}={}", &pair[1], self.hide(field, &pair[2], found))
            } else {
                pair[0].to_owned()
            }
        });
        bearer
            .replace_all(&text, |credential: &Captures<'_>| {
                format!(
                    "{}{}",
                    &credential[1],
                    self.hide(field, &credential[2], found)
                )
            })
            .into_owned()
    }

    /// A secret's stand-in. What is empty or a stand-in already stays.
    fn hide(&self, field: &str, secret: &str, found: &mut Found) -> String {
        let Some(key) = &self.key else {
            return secret.to_owned();
        };
        if secret.is_empty() || is_stand_in(secret) {
            return secret.to_owned();
        }
        let digest = Hmac::<Sha256>::new_from_slice(key).map(|mut mac| {
            mac.update(secret.as_bytes());
            mac.finalize().into_bytes()
        });
        let digits: String = digest
            .iter()
            .flat_map(|digest| digest.iter().take(8))
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let token = format!("redacted:{digits}");
        found.note(field, secret, &token);
        token
    }
}

fn is_stand_in(text: &str) -> bool {
    text.strip_prefix("redacted:")
        .is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_secret(name: &str) -> bool {
    // Without the rule nothing would be safe to show.
    name.len() > 256 || NAMES.as_ref().is_none_or(|form| form.is_match(name))
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
}
