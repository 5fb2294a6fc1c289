//! Access logs as JSON, one object a line, with a map of their fields.
//!
//! Collectors put the line of a program into an object of their own, or words
//! before it: both are taken off.

use std::borrow::Cow;

use memchr::memmem;
use serde_json::Value;

use super::access_log::{self, common_time, hex, response, text_of};
use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::Lines;
use super::parts::address;
use super::{DecodeSettings, ExchangeParts, FieldMap, Format, Half, headers, http1};
use crate::event::{Headers, RequestHead};

pub(super) static READER: Reader = Reader {
    title: "JSON access log",
    loses: Some("only the fields the log has; no bodies"),
    recognises: |head| head.is_json() || head.lines().any(is_behind_words),
    frames: |stream| assemble(Lines::new(stream), None, Format::JsonLog),
    read: Read::Record(read),
};

/// Where a collector keeps the line that a program wrote.
const WRAPPERS: [&str; 3] = ["log", "message", "MESSAGE"];
/// Wrappers within each other.
const MAX_DEPTH: usize = 4;

/// Whether an object that looks like a request's stands behind other words.
fn is_behind_words(line: &[u8]) -> bool {
    let object = object_of(line);
    if object.len() == line.len() {
        return false;
    }
    let log = value(object);
    let map = FieldMap::default();
    log.is_ok_and(|log| {
        let mut parts = ["request", "uri", "method"].into_iter();
        parts.any(|what| map.find(what, &log).is_some())
    })
}

/// The object at the end of a line, without the words before it.
fn object_of(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    if line.starts_with(b"{") || !line.ends_with(b"}") {
        return line;
    }
    // What has quotes is not a collector's words, but another record.
    let is_of_words = |at: &usize| memchr::memchr2(b'"', b'}', &line[..*at]).is_none();
    let begin = memmem::find(line, b" {").filter(is_of_words);
    begin.map_or(line, |at| &line[at + 1..])
}

fn read(
    line: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let line = text_of(line, exchange);
    let log = value(object_of(line))?;
    read_value(&log, settings, (exchange, 0))
}

fn read_value(
    log: &Value,
    settings: &DecodeSettings,
    (exchange, depth): (&mut ExchangeParts, usize),
) -> Result<(), String> {
    if !log.is_object() {
        return Err("expected a JSON object, found another value".to_owned());
    }
    let fields = &settings.fields;
    let find = |what| fields.find(what, log);
    let is_bare = || {
        let mut parts = ["request", "method", "uri"].into_iter();
        parts.all(|what| find(what).is_none())
    };
    if depth < MAX_DEPTH
        && let Some((key, text)) = wrapped(log)
        && is_bare()
    {
        let text = text.trim_end_matches(['\n', '\r']);
        let within = |why| format!("the text of {key:?}: {why}");
        return if text.trim_start().starts_with('{') {
            let log = value(text.as_bytes()).map_err(within)?;
            read_value(&log, settings, (exchange, depth + 1))
        } else {
            access_log::read(text.as_bytes(), settings, exchange).map_err(within)
        };
    }
    let (method, uri) = asked(log, fields)?;
    exchange.at_ns = fields.all("time", log).find_map(|time| common_time(&time));
    // What the user named is the client, whatever else there is.
    let client = fields.given("client_ip", log);
    let is_address = |text: &String| address(text).is_some();
    let client = client.or_else(|| fields.all("client_ip", log).find(is_address));
    exchange.request = Some(Half {
        head: RequestHead {
            correlation_id: find("id").unwrap_or_default(),
            method,
            uri,
            client_ip: exchange.client_ip(settings, client.as_deref()),
            headers: logged_headers(log, fields),
        },
        body: Vec::new(),
    });
    exchange.response = fields
        .all("status", log)
        .find_map(|status| response(&status));
    Ok(())
}

/// The line of a program in an object of its collector.
fn wrapped(log: &Value) -> Option<(&'static str, &str)> {
    let mut keys = WRAPPERS.into_iter();
    keys.find_map(|key| Some((key, log.get(key)?.as_str()?)))
}

/// Method and target as the client sent them: what the user named comes first,
/// then the request line or a whole URL. A path alone may have been rewritten.
fn asked(log: &Value, fields: &FieldMap) -> Result<(String, String), String> {
    let lines = fields.all("request", log);
    let line = lines
        .filter_map(|line| http1::request_line(line.as_bytes()).ok())
        .next();
    let (line_method, line_uri) = line.unzip();
    let missing = |what| {
        format!("expected the {what}, found no key for it; name one with --field {what}=KEY")
    };
    let method = fields
        .given("method", log)
        .or(line_method)
        .or_else(|| fields.find("method", log))
        .ok_or_else(|| missing("method"))?;
    let is_url = |uri: &String| origin_form(uri).is_some();
    let mut uri = fields
        .given("uri", log)
        .or(line_uri)
        .or_else(|| fields.all("uri", log).find(is_url))
        .or_else(|| fields.find("uri", log))
        .ok_or_else(|| missing("uri"))?;
    if let Some(path) = origin_form(&uri) {
        uri = path;
    }
    if !uri.contains('?')
        && let Some(query) = fields.find("query", log)
    {
        uri = format!("{uri}?{}", query.strip_prefix('?').unwrap_or(&query));
    }
    Ok((method, uri))
}

/// Path and query of a URL that a proxy would be asked for.
fn origin_form(uri: &str) -> Option<String> {
    let (scheme, _, path) = headers::split_url(uri)?;
    let mut known = ["http", "https", "ws", "wss"].iter();
    known
        .any(|known| scheme.eq_ignore_ascii_case(known))
        .then_some(path)
}

/// Headers the map names, the usual three, and Caddy's `request.headers`.
fn logged_headers(log: &Value, fields: &FieldMap) -> Headers {
    let mut found = Headers::new();
    let names = fields
        .mapped_headers()
        .chain(["host", "user-agent", "referer"]);
    for name in names {
        if found.value(name).is_none() {
            let values = fields.values(&format!("header.{name}"), log);
            found.extend(values.iter().map(|value| (name, value.as_str())));
        }
    }
    let logged = log
        .get("request")
        .and_then(|request| request.get("headers"));
    let Some(logged) = logged else {
        return found;
    };
    let known = found.clone();
    for (name, value) in super::fields::named_values(logged) {
        let name = name.to_ascii_lowercase();
        if known.value(&name).is_none() {
            let values = super::fields::texts(value);
            found.extend(values.iter().map(|value| (&name, value)));
        }
    }
    found
}

/// Reads an object. `\xHH`, which is no JSON, is what nginx and Apache write for
/// a byte in a text.
fn value(text: &[u8]) -> Result<Value, String> {
    let read = crate::json::explain::parse(text);
    match read {
        Err(_) if memmem::find(text, b"\\x").is_some() || memmem::find(text, b"\\v").is_some() => {
            crate::json::explain::parse(&without_hex(text))
        }
        read => read,
    }
}

/// The same text in escapes that JSON has. Bytes that are no UTF-8 are
/// percent-encoded, as in a request target.
fn without_hex(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let bytes = hex_bytes(rest);
        if bytes.is_empty() {
            let (escape, size): (&[u8], usize) = match rest {
                [_, b'v', ..] => (b"\\u000b", 2),
                [_, _, ..] => (&rest[..2], 2),
                _ => (rest, rest.len()),
            };
            out.extend_from_slice(escape);
            rest = &rest[size..];
            continue;
        }
        rest = &rest[bytes.len() * 4..];
        for character in headers::target(&bytes).chars() {
            match character {
                '"' | '\\' | '\0'..' ' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// The bytes of the escapes `\xHH` that stand here one behind the other.
fn hex_bytes(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(byte) = text.strip_prefix(b"\\x").and_then(hex) {
        bytes.push(byte);
        text = &text[4..];
    }
    bytes
}

#[cfg(test)]
#[path = "json_log_tests.rs"]
mod tests;
