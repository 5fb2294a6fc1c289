//! What go-ftw sends for a stage: its version 2.5 decides.

use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;

use super::super::http1::{self, Message};
use super::super::parts::STATUSES;
use super::super::{Half, Remark, base_64, headers};
use super::template::templated;
use super::yaml::{Node, Value};
use crate::event::{DEFAULT_CLIENT_IP, Headers, RequestHead, ResponseHead};

const FORM: &str = "application/x-www-form-urlencoded";

/// What a stage sends, and what the server answers.
#[derive(Default, Clone)]
pub(super) struct Input {
    pub(super) uri: Option<String>,
    /// Several requests that differ in their target alone.
    pub(super) uris: Vec<String>,
    method: Option<String>,
    headers: Option<Fields>,
    ordered_headers: Option<Fields>,
    data: Option<String>,
    encoded_data: Option<String>,
    encoded_request: Option<String>,
    raw_request: Option<String>,
    autocomplete_headers: Option<bool>,
    stop_magic: Option<bool>,
    follow_redirect: Option<bool>,
    response: Option<Arc<Node>>,
}

type Fields = Vec<(String, String)>;

/// Which texts may hold templates.
#[derive(Clone, Copy)]
pub(super) enum Templates<'a> {
    /// The body alone, as in a stage.
    InData,
    /// The target and the values of header fields too, as around a payload.
    Around(Option<&'a str>),
}

impl Input {
    pub(super) fn of(node: &Node) -> Result<Self, String> {
        node.expect_mapping("input")?;
        let text = |key: &str| node.get(key).map(|it| text(key, it)).transpose();
        let flag = |key: &str| node.get(key).map(|it| flag(key, it)).transpose();
        let uri = text("uri")?;
        let uris = node.get("uris").map(|it| uris(it)).transpose()?;
        if uri.is_some() && uris.is_some() {
            return Err("expected \"uri\" or \"uris\", found both".to_owned());
        }
        Ok(Self {
            uri,
            uris: uris.unwrap_or_default(),
            method: text("method")?,
            headers: node
                .get("headers")
                .map(|it| fields("headers", it))
                .transpose()?,
            ordered_headers: node
                .get("ordered_headers")
                .map(|it| fields("ordered_headers", it))
                .transpose()?,
            data: node.get("data").map(|it| data(it)).transpose()?,
            encoded_data: text("encoded_data")?,
            encoded_request: text("encoded_request")?,
            raw_request: text("raw_request")?,
            autocomplete_headers: flag("autocomplete_headers")?,
            stop_magic: flag("stop_magic")?,
            follow_redirect: flag("follow_redirect")?,
            response: node.get("response").map(Arc::clone),
        })
    }

    /// This one, with what it does not say taken from another.
    pub(super) fn over(self, base: Self) -> Self {
        let uris = if self.uris.is_empty() && self.uri.is_none() {
            base.uris
        } else {
            self.uris
        };
        macro_rules! own_or_base {
            ($($key:ident)*) => {
                Self { uris, $($key: self.$key.or(base.$key),)* }
            };
        }
        own_or_base! {
            uri method headers ordered_headers data encoded_data encoded_request raw_request
            autocomplete_headers stop_magic follow_redirect response
        }
    }

    /// The request that is sent.
    pub(super) fn request(
        &self,
        uri: Option<&str>,
        templates: Templates<'_>,
    ) -> Result<Message<RequestHead>, String> {
        if self.follow_redirect == Some(true) {
            return Err("follow_redirect needs a server's response, and there is none".to_owned());
        }
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let (encoded, raw) = (&self.encoded_request, &self.raw_request);
        let ways = [given(encoded), given(raw), given(&self.data)];
        if ways.iter().filter(|is_given| **is_given).count() > 1 {
            return Err(
                "expected one of \"encoded_request\", \"raw_request\" and \"data\", found more"
                    .to_owned(),
            );
        }
        let mut request = match (encoded, raw) {
            (Some(text), _) if !text.is_empty() => {
                http1::request(&decode64("encoded_request", text)?)?
            }
            (_, Some(text)) if !text.is_empty() => http1::request(text.as_bytes())?,
            _ => self.built(uri, templates)?.into(),
        };
        // The server takes it for another request, of which nobody asks the module.
        if request.left_over.is_some() || self.leaves_out(uri, &request.half.head) {
            request.remarks.push(Remark::PartsLeftOut);
        }
        DEFAULT_CLIENT_IP.clone_into(&mut request.half.head.client_ip);
        Ok(request)
    }

    fn built(
        &self,
        uri: Option<&str>,
        templates: Templates<'_>,
    ) -> Result<Half<RequestHead>, String> {
        let payload = match templates {
            Templates::InData => None,
            Templates::Around(payload) => payload,
        };
        let fill = |text: &str| match templates {
            Templates::InData => Ok(text.as_bytes().to_vec()),
            Templates::Around(payload) => templated(text, payload),
        };
        let method = self.method.as_deref().unwrap_or("GET");
        let target = headers::target(&fill(uri.unwrap_or("/"))?);
        if method.is_empty() || target.is_empty() {
            let what = if method.is_empty() { "method" } else { "uri" };
            return Err(format!(
                "expected a \"{what}\", found an empty text: no server reads such a request line"
            ));
        }
        let mut body = match (&self.data, &self.encoded_data) {
            (Some(text), _) => templated(text, payload)?,
            (None, Some(encoded)) => decode64("encoded_data", encoded)?,
            (None, None) => Vec::new(),
        };
        let mut fields = Headers::new();
        for (name, value) in self.fields() {
            fields.push(name, &headers::text(&fill(value)?));
        }
        self.complete(method, &mut fields, &mut body);
        Ok(Half {
            head: RequestHead {
                method: method.to_owned(),
                uri: target,
                headers: fields,
                ..RequestHead::default()
            },
            body,
        })
    }

    /// Whether the test says more than go-ftw sends.
    fn leaves_out(&self, uri: Option<&str>, sent: &RequestHead) -> bool {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let has = |fields: &Option<Fields>| fields.as_ref().is_some_and(|it| !it.is_empty());
        if given(&self.encoded_request) || given(&self.raw_request) {
            let is_sent = |text: Option<&str>, sent: &str| text.is_none_or(|it| it == sent);
            return given(&self.encoded_data)
                || has(&self.headers)
                || has(&self.ordered_headers)
                || !is_sent(uri, &sent.uri)
                || !is_sent(self.method.as_deref(), &sent.method);
        }
        self.data.is_some() && given(&self.encoded_data)
            || self.ordered_headers.is_some() && has(&self.headers)
    }

    /// Header fields in the order that they are sent in.
    fn fields(&self) -> &[(String, String)] {
        let fields = self.ordered_headers.as_ref().or(self.headers.as_ref());
        fields.map_or(&[], Vec::as_slice)
    }

    /// Adds the fields that go-ftw adds, and encodes the body as it does.
    fn complete(&self, method: &str, fields: &mut Headers, body: &mut Vec<u8>) {
        let is_off = self.stop_magic == Some(true);
        let is_on = self.autocomplete_headers.unwrap_or(!is_off);
        let has = |fields: &Headers, name: &str, is: fn(&str) -> bool| {
            let mut named = fields
                .iter()
                .filter(|(it, _)| it.eq_ignore_ascii_case(name));
            named.any(|(_, value)| is(value))
        };
        if is_on && !body.is_empty() {
            if !has(fields, "content-type", |_| true) {
                fields.push("Content-Type", FORM);
            }
            let is_plain = !body.iter().any(|byte| matches!(byte, b'%' | b'+'));
            if is_plain && has(fields, "content-type", |it| it.eq_ignore_ascii_case(FORM)) {
                *body = form_encoded(body);
            }
        }
        let is_multipart = |it: &str| it.to_lowercase().contains("multipart/form-data;");
        if has(fields, "content-type", is_multipart) {
            *body = with_crlf(body);
        }
        if !is_on {
            return;
        }
        if !has(fields, "connection", |_| true) {
            fields.push("Connection", "close");
        }
        // These are the methods that its pattern, which binds loosely, takes.
        let has_body = method.starts_with("POST")
            || method.contains("PUT")
            || method.contains("PATCH")
            || method.ends_with("DELETE");
        if (has_body || !body.is_empty()) && !has(fields, "content-length", |_| true) {
            fields.push("Content-Length", &body.len().to_string());
        }
    }

    /// The response that the test has the server give.
    pub(super) fn response(&self) -> Result<Option<Half<ResponseHead>>, String> {
        let Some(node) = &self.response else {
            return Ok(None);
        };
        node.expect_mapping("response")?;
        let text = |key: &str| node.get(key).map(|it| text(key, it)).transpose();
        let status = text("status")?.filter(|status| status != "0");
        let status = status.map_or(Ok(200), |status| {
            let number = status.parse().ok().filter(|it| STATUSES.contains(it));
            number.ok_or_else(|| format!("expected a status from 100 to 999, found {status:?}"))
        })?;
        let given = |key: &str| text(key).map(|it| it.filter(|text| !text.is_empty()));
        let body = match (given("encoded_body")?, given("body")?) {
            (Some(_), Some(_)) => {
                return Err("expected \"body\" or \"encoded_body\", found both".to_owned());
            }
            (Some(encoded), None) => decode64("encoded_body", &encoded)?,
            (None, body) => body.unwrap_or_default().into_bytes(),
        };
        let fields = node
            .get("headers")
            .map(|it| fields("headers", it))
            .transpose()?;
        let fields = fields.unwrap_or_default();
        let fields = fields.iter().map(|(name, value)| (name, value)).collect();
        Ok(Some(Half::response(status, fields, body)))
    }
}

/// Names and values of a form, encoded each for itself.
fn form_encoded(body: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(body.len());
    // What stands behind the last separator counts only where there is anything.
    let body = body.strip_suffix(b"&").unwrap_or(body);
    for (index, pair) in body.split(|byte| *byte == b'&').enumerate() {
        if index > 0 {
            encoded.push(b'&');
        }
        let equals = memchr::memchr(b'=', pair);
        for (at, byte) in pair.iter().enumerate() {
            match byte {
                b'=' if Some(at) == equals => encoded.push(b'='),
                b' ' => encoded.push(b'+'),
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    encoded.push(*byte);
                }
                _ => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
    }
    encoded
}

/// Every line feed with a carriage return before it, whatever stood there.
fn with_crlf(body: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(body.len() + body.len() / 16);
    for byte in body {
        if *byte == b'\n' {
            lines.push(b'\r');
        }
        lines.push(*byte);
    }
    lines
}

/// A scalar of any type is the text that stands there.
pub(super) fn text(key: &str, node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Null => Ok(String::new()),
        Value::Text(text) => Ok(text.clone()),
        Value::List { .. } | Value::Map(_) => Err(format!(
            "expected a text in \"{key}\", found {}",
            node.kind()
        )),
    }
}

pub(super) fn flag(key: &str, node: &Node) -> Result<bool, String> {
    let text = text(key, node)?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Ok(true),
        "false" | "no" | "off" | "n" => Ok(false),
        _ => Err(format!(
            "expected true or false in \"{key}\", found {:?}",
            crate::fault::printable(&text, 40)
        )),
    }
}

/// One target or a list of them.
fn uris(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::List { items, .. } if items.is_empty() => {
            Err("expected at least one of \"uris\", found none".to_owned())
        }
        Value::List { items, .. } => items.iter().map(|uri| text("uris", uri)).collect(),
        _ => Ok(vec![text("uris", node)?]),
    }
}

/// One text, or the first version's list of lines.
fn data(node: &Node) -> Result<String, String> {
    let Value::List { items, .. } = &node.value else {
        return text("data", node);
    };
    let lines: Result<Vec<String>, String> = items.iter().map(|line| text("data", line)).collect();
    Ok(lines?.join("\r\n"))
}

/// Header fields: a mapping, which is sent in the order of its names, or a list.
fn fields(key: &str, node: &Node) -> Result<Fields, String> {
    match &node.value {
        Value::Map(_) => {
            let fields = node.fields().into_iter();
            let fields = fields.map(|(name, value)| Ok((name.to_owned(), text(name, value)?)));
            let mut fields = fields.collect::<Result<Fields, String>>()?;
            fields.sort();
            Ok(fields)
        }
        Value::List { items, .. } => items
            .iter()
            .map(|field| {
                let part = |part: &str| {
                    let found = field.get(part);
                    found.map_or_else(|| Ok(String::new()), |found| text(part, found))
                };
                if field.get("name").is_none() {
                    return Err(format!(
                        "expected a \"name\" in each of \"{key}\", found none"
                    ));
                }
                Ok((part("name")?, part("value")?))
            })
            .collect(),
        Value::Null | Value::Text(_) => Err(format!(
            "expected a mapping or a list in \"{key}\", found {}",
            node.kind()
        )),
    }
}

fn decode64(key: &str, text: &str) -> Result<Vec<u8>, String> {
    let text: String = text.split_ascii_whitespace().collect();
    base_64::read(&STANDARD, &text, format_args!("\"{key}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_by_name_and_value() {
        for (body, sent) in [
            ("q=1' x&b=<i>", "q=1%27+x&b=%3Ci%3E"),
            ("a=b=c", "a=b%3Dc"),
            ("a&", "a"),
            ("a&&b", "a&&b"),
            ("=&=", "=&="),
            ("&", ""),
            ("é~-_.", "%C3%A9~-_."),
            ("{\"a\":1}", "%7B%22a%22%3A1%7D"),
        ] {
            assert_eq!(form_encoded(body.as_bytes()), sent.as_bytes(), "{body}");
        }
    }
}
