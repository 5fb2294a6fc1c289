//! Secrets that were found, and other texts without them.

use std::borrow::Cow;

use serde_json::Value;

/// Secrets of one exchange that are looked for elsewhere, too.
const MAX_ECHOED: usize = 1024;
/// Bytes at either end of a secret that are looked for by themselves.
const MAX_REST: usize = 1024;
/// Shorter values are too common to be replaced wherever they occur.
const LEAST_ECHOED: usize = 6;

/// Secrets found so far, and where.
#[derive(Debug, Default, Clone)]
pub struct Found {
    pub(super) secrets: Vec<(String, String)>,
    /// Where they stood.
    pub fields: Vec<String>,
    /// How many stood anywhere, known ones too.
    pub(super) count: usize,
    /// Inputs may hold no more than a part of one.
    pub(super) cuts: bool,
}

impl Found {
    pub(super) fn note(&mut self, field: &str, secret: &str, token: &str) {
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

    /// The secrets alone, to be looked for in other inputs of the exchange.
    #[must_use]
    pub fn known(&self) -> Self {
        Self {
            secrets: self.secrets.clone(),
            ..Self::default()
        }
    }

    /// The same, to be looked for in parts of its inputs.
    #[must_use]
    pub fn known_in_parts(&self) -> Self {
        Self {
            cuts: true,
            ..self.known()
        }
    }

    /// Any text, without the secrets that were found.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        replace_all(text, &self.secrets)
    }

    /// Every text of a value whose parts may be cut: without the secrets that
    /// were found, and without what was left of one at either end.
    pub(super) fn cut_texts(&self, value: &mut Value) {
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

pub(super) fn replace_all<'a>(text: &'a str, secrets: &[(String, String)]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for (secret, token) in secrets {
        if text.contains(secret.as_str()) {
            text = Cow::Owned(text.replace(secret.as_str(), token));
        }
    }
    text
}
