//! Access logs as JSON, one object a line, with a map of their fields.
//!
//! Collectors put the line of a program into an object of their own, or words
//! before it: both are taken off.

use std::fmt;

use memchr::memmem;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::map::Entry;

use super::access_log::{self, common_time, hex, response, text_of};
use super::assemble::assemble;
use super::fields::{LogObject, Logged, is_nothing, texts};
use super::format::{Read, Reader};
use super::frames::Lines;
use super::har::query_encoded;
use super::parts::address;
use super::surrogates::{self, Texts};
use super::{DecodeSettings, ExchangeParts, FieldMap, Format, Half, Place, Remark, headers, http1};
use crate::event::{Headers, RequestHead};
use crate::fault::printable;

pub(super) static READER: Reader = Reader {
    title: "JSON access log",
    loses: Some("only the fields the log has; no bodies"),
    recognises: |head| head.is_json() || head.lines().any(is_request),
    frames: |stream| assemble(Lines::new(stream), None, Format::JsonLog),
    read: Read::Record(read),
};

/// Where a collector keeps the line that a program wrote.
const WRAPPERS: [&str; 3] = ["log", "message", "MESSAGE"];
/// Wrappers within each other.
const MAX_DEPTH: usize = 4;

/// Whether a line of the file can be read, whatever the first line is.
pub(super) fn is_request(line: &[u8]) -> bool {
    let place = Place {
        file: "".into(),
        record: 0,
        offset: 0,
    };
    let mut exchange = ExchangeParts::new(place);
    let may_be = line.trim_ascii_end().ends_with(b"}");
    may_be && read(line, &DecodeSettings::default(), &mut exchange).is_ok()
}

/// The object at the end of a line, without the words before it, and the comma
/// behind it that the lines of an array have.
fn object_of(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    let line = match line.strip_suffix(b",") {
        Some(object) if object.trim_ascii_end().ends_with(b"}") => object.trim_ascii_end(),
        _ => line,
    };
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
    let log = Log::read(object_of(line))?;
    read_log(&log, settings, (exchange, 0))
}

fn read_log(
    log: &Log,
    settings: &DecodeSettings,
    (exchange, depth): (&mut ExchangeParts, usize),
) -> Result<(), String> {
    if !log.value.is_object() {
        return Err("expected a JSON object, found another value".to_owned());
    }
    let fields = &settings.fields;
    // A collector's object may have a path of its own: that of the file.
    let mut needed = ["request", "method"].into_iter();
    let object = LogObject::new(&log.value);
    let is_bare = needed.all(|what| fields.find(what, object).is_none());
    if depth < MAX_DEPTH && is_bare {
        let lines = log.wrapped();
        if !lines.is_empty() {
            return read_wrapped(&lines, settings, (exchange, depth));
        }
    }
    let asked = match log.targets() {
        None => asked(object, fields)?,
        Some(targets) => asked(LogObject::new(&targets), fields)?,
    };
    let texts = log.texts();
    let log = texts.as_ref().map_or(object, LogObject::new);
    exchange.at_ns = fields.all("time", log).find_map(|time| common_time(&time));
    // What the user named is the client, whatever else there is.
    let client = fields.given("client_ip", log);
    let is_address = |text: &String| address(text).is_some();
    let client = client.or_else(|| fields.all("client_ip", log).find(is_address));
    let (mut headers, is_unclear) = logged_headers(log, fields);
    if headers.value("host").is_none()
        && let Some(authority) = &asked.authority
    {
        headers.prepend("host", authority);
    }
    exchange.request = Some(Half {
        head: RequestHead {
            correlation_id: fields.find("id", log).unwrap_or_default(),
            method: asked.method,
            uri: asked.uri,
            client_ip: exchange.client_ip(settings, client.as_deref()),
            headers,
        },
        body: Vec::new(),
    });
    let mut statuses = fields.all("status", log);
    exchange.response = statuses.find_map(|status| response(&status));
    // A number that no response has says that there was none.
    let is_number = |value: &&Value| match value {
        Value::String(text) => text.trim().parse::<f64>().is_ok(),
        value => value.is_number(),
    };
    let no_status = exchange.response.is_none() && !fields.raw("status", log).iter().all(is_number);
    if asked.is_unclear || is_unclear || no_status {
        exchange.remark(Remark::LogUnclear);
    }
    Ok(())
}

/// Reads the one line of a program that stands in an object of its collector.
fn read_wrapped(
    lines: &[(&'static str, Vec<u8>)],
    settings: &DecodeSettings,
    (exchange, depth): (&mut ExchangeParts, usize),
) -> Result<(), String> {
    let read_one = |(key, text): &(&str, Vec<u8>), exchange: &mut ExchangeParts| {
        let text = text.trim_ascii_end();
        let within = |why| format!("the text of {key:?}: {why}");
        if text.trim_ascii_start().starts_with(b"{") {
            let log = Log::read(object_of(text)).map_err(within)?;
            read_log(&log, settings, (exchange, depth + 1)).map_err(within)
        } else {
            access_log::read(text, settings, exchange).map_err(within)
        }
    };
    let mut found = Vec::new();
    let mut first_why = None;
    for line in lines {
        let mut tried = ExchangeParts::new(exchange.place.clone());
        match read_one(line, &mut tried) {
            Ok(()) => found.push(line),
            Err(why) => first_why = first_why.or(Some(why)),
        }
    }
    match found.as_slice() {
        [] => Err(first_why.unwrap_or_default()),
        [one] => read_one(one, exchange),
        [one, rest @ ..] if rest.iter().all(|(_, text)| *text == one.1) => read_one(one, exchange),
        _ => Err("expected the line of one request, found two in its texts".to_owned()),
    }
}

/// What was asked for, as far as a log says.
struct Asked {
    method: String,
    uri: String,
    /// Of a whole URL.
    authority: Option<String>,
    /// The log says other things of it, too.
    is_unclear: bool,
}

/// A target that a log names: without its host, which stands apart.
struct Target {
    uri: String,
    authority: Option<String>,
}

impl Target {
    fn of(text: String) -> Self {
        match origin_form(&text) {
            Some((authority, uri)) => Self {
                authority: (!authority.is_empty()).then(|| authority.to_owned()),
                uri,
            },
            None => Self {
                uri: text,
                authority: None,
            },
        }
    }

    fn path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }

    /// Whether it is what a request asks for, or what an event cannot have.
    fn check(&self, method: &str) -> Result<(), String> {
        let is_target = self.uri.starts_with('/')
            || self.uri == "*"
            || self.uri.contains("://")
            || method.eq_ignore_ascii_case("CONNECT");
        is_target.then_some(()).ok_or_else(|| {
            format!(
                "expected a target that begins with \"/\", found {:?}",
                printable(&self.uri, 40)
            )
        })
    }
}

/// Method and target as the client sent them: what the user named comes first,
/// then the request line or a whole URL. A path alone may have been rewritten.
fn asked(log: LogObject<'_>, fields: &FieldMap) -> Result<Asked, String> {
    for what in ["request", "method", "uri"] {
        if fields.is_list(what, log) {
            return Err(format!("expected one {what}, found a list of several"));
        }
    }
    let line = fields.all("request", log).find_map(|line| {
        let (method, uri) = http1::request_line(line.as_bytes()).ok()?;
        let authority = http1::authority(line.as_bytes());
        Some((method, Target { uri, authority }))
    });
    let (line_method, line_target) = line.unzip();
    let missing = |what| {
        format!("expected the {what}, found no key for it; name one with --field {what}=KEY")
    };
    let given = fields.given("method", log);
    let named = fields.find("method", log);
    let is_other = |one: &String| named.as_ref().is_some_and(|named| named != one);
    let mut is_unclear = given.is_none() && line_method.as_ref().is_some_and(is_other);
    let method = given.or(line_method).or(named);
    let method = method.ok_or_else(|| missing("method"))?;
    check_method(&method)?;
    let given = fields.given("uri", log).map(Target::of);
    let is_given = given.is_some();
    let is_line = given.is_none() && line_target.is_some();
    let targets: Vec<Target> = fields.all("uri", log).map(Target::of).collect();
    let target = given.or(line_target);
    let mut target = target
        .or_else(|| take_asked(&targets))
        .ok_or_else(|| missing("uri"))?;
    if !is_line {
        target.check(&method)?;
    }
    is_unclear |= !is_given && targets.iter().any(|other| other.path() != target.path());
    if let Some(query) = logged_query(log, fields)? {
        match target.uri.split_once('?') {
            Some((_, own)) => is_unclear |= sorted(own) != sorted(&query),
            None => target.uri = format!("{}?{query}", target.uri),
        }
    }
    Ok(Asked {
        method,
        uri: target.uri,
        authority: target.authority,
        is_unclear,
    })
}

/// The target that the client asked for, as far as the keys tell: a whole URL,
/// or the first; the same with a query, where another has one.
fn take_asked(targets: &[Target]) -> Option<Target> {
    let url = targets.iter().position(|it| it.authority.is_some());
    let first = targets.get(url.unwrap_or(0))?;
    let is_longer = |it: &Target| {
        let rest = it.uri.strip_prefix(&*first.uri);
        rest.is_some_and(|rest| rest.starts_with('?'))
    };
    let longer = targets.iter().position(is_longer);
    let authority = first.authority.clone();
    let uri = &targets[longer.or(url).unwrap_or(0)].uri;
    Some(Target {
        uri: uri.clone(),
        authority,
    })
}

/// The parameters of a query, in an order that depends on no log.
fn sorted(query: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = query.split('&').collect();
    parts.sort_unstable();
    parts
}

/// The query that stands apart: a text, several, or its names and values.
fn logged_query(log: LogObject<'_>, fields: &FieldMap) -> Result<Option<String>, String> {
    let mut parts = Vec::new();
    for value in fields.raw("query", log) {
        if let Value::Object(map) = value {
            for (name, value) in map {
                let values = texts(value);
                if values.is_empty() && !is_nothing(value) {
                    return Err(format!(
                        "the query: expected a text for {:?}, found another value",
                        printable(name, 40)
                    ));
                }
                let pair = |value: &str| {
                    let [name, value] = [name, value].map(|text| query_encoded(text.as_bytes()));
                    format!("{name}={value}")
                };
                if values.is_empty() {
                    parts.push(pair(""));
                }
                parts.extend(values.iter().map(|value| pair(value)));
            }
            continue;
        }
        let values = texts(value);
        if values.is_empty() {
            return Err("the query: expected a text or names and values, found a list".to_owned());
        }
        parts.extend(values);
    }
    let query = parts.join("&");
    let query = query.strip_prefix('?').unwrap_or(&query);
    Ok((!query.is_empty()).then(|| query.to_owned()))
}

/// A method is one word.
fn check_method(method: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    method.bytes().all(is_token).then_some(()).ok_or_else(|| {
        format!(
            "expected a method of one word, found {:?}",
            printable(method, 40)
        )
    })
}

/// Authority, and path with query, of a URL that a proxy would be asked for.
fn origin_form(uri: &str) -> Option<(&str, String)> {
    let (scheme, authority, path) = headers::split_url(uri)?;
    let mut known = ["http", "https", "ws", "wss"].iter();
    known
        .any(|known| scheme.eq_ignore_ascii_case(known))
        .then_some((authority, path))
}

/// Headers the map names, the usual three, and those that the log has in a place
/// of headers; and whether there are some that are no texts.
fn logged_headers(log: LogObject<'_>, fields: &FieldMap) -> (Headers, bool) {
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
    let (logged, mut is_unclear) = FieldMap::headers(log);
    let known = if logged.is_empty() {
        Headers::new()
    } else {
        found.clone()
    };
    for Logged { name, value } in logged {
        let values = texts(value);
        is_unclear |= values.is_empty() && !is_nothing(value);
        if known.value(&name).is_none() {
            found.extend(values.iter().map(|value| (&name, value)));
        }
    }
    (found, is_unclear)
}

/// An object, each key once, whose texts may stand for bytes.
struct Log {
    value: Value,
    marks: Texts,
}

impl Log {
    fn read(text: &[u8]) -> Result<Self, String> {
        let (Once(value), marks) = value(text)?;
        Ok(Self { value, marks })
    }

    /// With texts as header values are, where they are others than in its value.
    fn texts(&self) -> Option<Value> {
        self.each(Texts::text)
    }

    /// With texts as request targets are, where they are others.
    fn targets(&self) -> Option<Value> {
        self.each(Texts::target)
    }

    fn each(&self, read: fn(Texts, String) -> String) -> Option<Value> {
        if self.marks == Texts::default() {
            return None;
        }
        let mut value = self.value.clone();
        replace(&mut value, &|text| read(self.marks, text));
        Some(value)
    }

    /// The lines of programs in an object of their collector.
    fn wrapped(&self) -> Vec<(&'static str, Vec<u8>)> {
        let texts = WRAPPERS.into_iter().filter_map(|key| {
            let text = self.value.get(key)?.as_str()?;
            Some((key, self.marks.bytes(text.to_owned())))
        });
        texts.collect()
    }
}

/// Puts another text in the place of each.
fn replace(value: &mut Value, read: &impl Fn(String) -> String) {
    match value {
        Value::String(text) => *text = read(std::mem::take(text)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, read)),
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, read)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON in which no key stands twice with two values: one of them would be lost.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Once;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("any JSON value")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Once, E> {
                Ok(Once(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Once, A::Error> {
                let mut items = Vec::new();
                while let Some(Once(item)) = list.next_element()? {
                    items.push(item);
                }
                Ok(Once(Value::Array(items)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Once, A::Error> {
                let mut map = serde_json::Map::new();
                while let Some((key, Once(value))) = members.next_entry::<String, Once>()? {
                    match map.entry(key) {
                        Entry::Vacant(place) => {
                            place.insert(value);
                        }
                        Entry::Occupied(place) if *place.get() == value => {}
                        Entry::Occupied(place) => {
                            let key = printable(place.key(), 40);
                            let twice = format!("expected the key {key:?} once, found it twice");
                            return Err(serde::de::Error::custom(twice));
                        }
                    }
                }
                Ok(Once(Value::Object(map)))
            }
        }
        reader.deserialize_any(Shapes)
    }
}

/// Reads an object. `\xHH`, which is no JSON, is what nginx and Apache write for
/// a byte in a text.
fn value(text: &[u8]) -> Result<(Once, Texts), String> {
    let read = surrogates::parse(text);
    match read {
        Err(_) if memmem::find(text, b"\\x").is_some() || memmem::find(text, b"\\v").is_some() => {
            surrogates::parse(&without_hex(text))
        }
        read => read,
    }
}

/// The same text in escapes that JSON has: bytes that are no UTF-8 become the lone
/// surrogates that stand for them.
fn without_hex(text: &[u8]) -> Vec<u8> {
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
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' | '\0'..' ' => {
                        out.extend_from_slice(
                            format!("\\u{:04x}", u32::from(character)).as_bytes(),
                        );
                    }
                    _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            for byte in chunk.invalid() {
                out.extend_from_slice(format!("\\udc{byte:02x}").as_bytes());
            }
        }
    }
    out.extend_from_slice(rest);
    out
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
