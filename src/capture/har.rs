//! HTTP Archive 1.2, as browsers and tools really write it.
//!
//! Every field is optional here, because real files lack what the specification
//! requires, and what decides nothing may be of any shape. Entries are cut out of
//! the stream one by one.

use std::collections::HashSet;
use std::fmt;

use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::lenient::{Loose, any_text, is_filled, number, text};
use super::parts::{self, STATUSES};
use super::surrogates::{self, Texts};
use super::{DecodeSettings, ExchangeParts, Format, Half, Remark, base_64, headers};
use crate::event::{Headers, RequestHead};
use crate::fault::printable;
use crate::time::nanoseconds;

pub(super) static READER: Reader = Reader {
    title: "HTTP Archive 1.2",
    loses: Some(
        "no client address; bodies are decoded, not as sent; browsers omit credentials by default",
    ),
    recognises: |head| {
        let inner = [
            "version", "creator", "browser", "pages", "entries", "comment",
        ];
        // A line of a log may have an object with this name, too.
        head.keys.has_object("log", &inner) && !head.has("method")
    },
    frames: |stream| {
        let entries = Records::Within(["log", "entries"]);
        assemble(Elements::new(stream, entries), None, Format::Har)
    },
    read: Read::Record(read),
};

/// An entry, with its response if that has the shape of one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "R: DeserializeOwned")]
struct Entry<R> {
    #[serde(default, deserialize_with = "any_text")]
    started_date_time: Option<String>,
    // Large; boxed, so that the entry is moved cheaply.
    request: Option<Box<Request>>,
    response: Option<Box<R>>,
    #[serde(rename = "_clientIPAddress", default, deserialize_with = "any_text")]
    client_ip: Option<String>,
    #[serde(rename = "clientIPAddress", default, deserialize_with = "any_text")]
    client_ip_plain: Option<String>,
    #[serde(rename = "_client_ip", default, deserialize_with = "any_text")]
    client_ip_snake: Option<String>,
    /// Lines of headers, as `WebPageTest` has them where it has no list.
    #[serde(rename = "_headers", default)]
    lines: Value,
    #[serde(rename = "_webSocketMessages", default, deserialize_with = "is_filled")]
    has_messages: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default, deserialize_with = "text")]
    method: Option<String>,
    #[serde(default, deserialize_with = "text")]
    url: Option<String>,
    #[serde(default)]
    headers: Named,
    #[serde(default)]
    cookies: Named,
    #[serde(default)]
    query_string: Named,
    #[serde(default)]
    post_data: PostData,
    /// Where tools put a body that know the format badly.
    #[serde(default, deserialize_with = "is_filled")]
    body: bool,
    #[serde(default, deserialize_with = "is_filled")]
    content: bool,
    #[serde(default, deserialize_with = "number")]
    body_size: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    status: Loose,
    #[serde(default)]
    headers: Named,
    #[serde(default)]
    cookies: Named,
    content: Option<Content>,
    #[serde(default, deserialize_with = "number")]
    body_size: Option<f64>,
}

/// A list of names and values; some tools write it as an object.
#[derive(Default)]
struct Named {
    pairs: Vec<NameValue>,
    /// A text stands in the place of the list.
    text: String,
    /// Something stands there that is neither.
    is_odd: bool,
}

#[derive(Deserialize, Default)]
#[serde(from = "Members")]
struct NameValue {
    name: Option<String>,
    value: Loose,
    /// Most pairs have none, and lists of them are long.
    more: Option<Box<More>>,
}

/// What may stand beside a name and a value.
#[derive(Default, PartialEq)]
struct More {
    // Of a cookie of a response.
    path: Option<String>,
    domain: Option<String>,
    http_only: Option<String>,
    secure: Option<String>,
    same_site: Option<String>,
    // Of a part of a form.
    file_name: Option<String>,
}

/// A [`NameValue`] as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    #[serde(alias = "key", default, deserialize_with = "any_text")]
    name: Option<String>,
    #[serde(alias = "values", default)]
    value: Loose,
    #[serde(default, deserialize_with = "any_text")]
    path: Option<String>,
    #[serde(default, deserialize_with = "any_text")]
    domain: Option<String>,
    #[serde(default, deserialize_with = "any_text")]
    http_only: Option<String>,
    #[serde(default, deserialize_with = "any_text")]
    secure: Option<String>,
    #[serde(default, deserialize_with = "any_text")]
    same_site: Option<String>,
    #[serde(default, deserialize_with = "any_text")]
    file_name: Option<String>,
}

impl From<Members> for NameValue {
    fn from(members: Members) -> Self {
        let more = More {
            path: members.path,
            domain: members.domain,
            http_only: members.http_only,
            secure: members.secure,
            same_site: members.same_site,
            file_name: members.file_name,
        };
        Self {
            name: members.name,
            value: members.value,
            more: (more != More::default()).then(|| Box::new(more)),
        }
    }
}

/// An element of a list of names and values.
enum Element {
    Pair(NameValue),
    /// `name: value` or `name=value`.
    Line(String),
    Odd,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PostFields {
    #[serde(default, deserialize_with = "any_text")]
    mime_type: Option<String>,
    #[serde(default)]
    text: Loose,
    #[serde(default)]
    params: Named,
    #[serde(default, deserialize_with = "text")]
    encoding: Option<String>,
    #[serde(rename = "_encoding", default, deserialize_with = "text")]
    own_encoding: Option<String>,
    /// Where Playwright put the body.
    #[serde(rename = "_file")]
    file: Option<IgnoredAny>,
    #[serde(rename = "_sha1")]
    hash: Option<IgnoredAny>,
}

/// What was sent; some tools write nothing but its text.
#[derive(Default)]
struct PostData(PostFields);

#[derive(Deserialize)]
struct Content {
    #[serde(default, deserialize_with = "number")]
    size: Option<f64>,
    #[serde(default, deserialize_with = "number")]
    compression: Option<f64>,
    #[serde(default, deserialize_with = "text")]
    text: Option<String>,
    #[serde(default, deserialize_with = "text")]
    encoding: Option<String>,
    /// Where Playwright put the body.
    #[serde(rename = "_file")]
    file: Option<IgnoredAny>,
    #[serde(rename = "_sha1")]
    hash: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Named;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of names and values")
            }

            fn visit_unit<E>(self) -> Result<Named, E> {
                Ok(Named::default())
            }

            fn visit_bool<E>(self, is_odd: bool) -> Result<Named, E> {
                Ok(Named {
                    is_odd,
                    ..Named::default()
                })
            }

            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Named, E> {
                self.visit_bool(true)
            }

            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Named, E> {
                self.visit_bool(true)
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Named, E> {
                self.visit_bool(true)
            }

            fn visit_str<E>(self, text: &str) -> Result<Named, E> {
                Ok(Named {
                    text: text.trim().to_owned(),
                    ..Named::default()
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Named, A::Error> {
                let mut named = Named::default();
                while let Some(one) = list.next_element()? {
                    match one {
                        Element::Pair(pair) => named.pairs.push(pair),
                        Element::Line(line) => match NameValue::of_line(&line) {
                            Some(pair) => named.pairs.push(pair),
                            None => named.is_odd = true,
                        },
                        Element::Odd => named.is_odd = true,
                    }
                }
                Ok(named)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut named = Named::default();
                while let Some(name) = map.next_key()? {
                    named.pairs.push(NameValue {
                        name: Some(name),
                        value: map.next_value()?,
                        ..NameValue::default()
                    });
                }
                Ok(named)
            }
        }
        reader.deserialize_any(Shapes)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Element;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name and its value")
            }

            fn visit_str<E>(self, line: &str) -> Result<Element, E> {
                Ok(Element::Line(line.to_owned()))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_unit<E>(self) -> Result<Element, E> {
                Ok(Element::Odd)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Element, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Element::Odd)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                Ok(Element::Pair(NameValue::deserialize(map)?))
            }
        }
        reader.deserialize_any(Shapes)
    }
}

impl<'de> Deserialize<'de> for PostData {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = PostData;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("what was posted")
            }

            fn visit_str<E>(self, text: &str) -> Result<PostData, E> {
                Ok(PostData(PostFields {
                    text: Loose::Text(text.to_owned()),
                    ..PostFields::default()
                }))
            }

            fn visit_unit<E>(self) -> Result<PostData, E> {
                Ok(PostData::default())
            }

            fn visit_bool<E>(self, is_any: bool) -> Result<PostData, E> {
                let text = if is_any { Loose::Odd } else { Loose::None };
                Ok(PostData(PostFields {
                    text,
                    ..PostFields::default()
                }))
            }

            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<PostData, E> {
                self.visit_bool(true)
            }

            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<PostData, E> {
                self.visit_bool(true)
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<PostData, E> {
                self.visit_bool(true)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PostData, A::Error> {
                let mut is_any = false;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    is_any = true;
                }
                self.visit_bool(is_any)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PostData, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                Ok(PostData(PostFields::deserialize(map)?))
            }
        }
        reader.deserialize_any(Shapes)
    }
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    match surrogates::parse::<Entry<Response>>(record) {
        Ok((entry, texts)) => entry.read(texts, settings, exchange),
        Err(why) => {
            // A response of another shape does not cost the request.
            let request_alone = surrogates::parse::<Entry<IgnoredAny>>(record);
            let (entry, texts) = request_alone.map_err(|_same| why.clone())?;
            entry.read_request(texts, settings, exchange)?;
            Err(why)
        }
    }
}

impl<R> Entry<R> {
    fn read_request(
        self,
        texts: Texts,
        settings: &DecodeSettings,
        exchange: &mut ExchangeParts,
    ) -> Result<(), String> {
        let mut request = self
            .request
            .ok_or("expected an entry with \"request\", found none")?;
        request.headers.or_lines(&self.lines["request"]);
        if self.has_messages {
            exchange.remark(Remark::PartsLeftOut);
        }
        let named = [
            &self.client_ip,
            &self.client_ip_plain,
            &self.client_ip_snake,
        ];
        let mut named = named.into_iter().flatten();
        let is_address = |text: &&String| parts::address(text).is_some();
        let named = named.clone().find(is_address).or_else(|| named.next());
        let client_ip = exchange.client_ip(settings, named.map(String::as_str));
        exchange.at_ns = self.started_date_time.as_deref().and_then(nanoseconds);
        let (head, posted) = request.read(texts, client_ip, &mut exchange.remarks)?;
        let fields = &head.headers;
        if fields.value("cookie").is_none() && fields.value("authorization").is_none() {
            exchange.remark(Remark::NoCredentials);
        }
        let request = exchange.request.insert(Half {
            head,
            body: Vec::new(),
        });
        request.body = posted.body(texts, &request.head.headers, &mut exchange.remarks)?;
        Ok(())
    }
}

impl Entry<Response> {
    fn read(
        mut self,
        texts: Texts,
        settings: &DecodeSettings,
        exchange: &mut ExchangeParts,
    ) -> Result<(), String> {
        let response = self.response.take().map(|mut response| {
            response.headers.or_lines(&self.lines["response"]);
            response
        });
        let asked = self.read_request(texts, settings, exchange);
        let answered = match response {
            // Without its request it would be another exchange.
            Some(response) if exchange.request.is_some() => response.read(texts, exchange),
            _ => Ok(()),
        };
        asked.and(answered)
    }
}

impl Named {
    fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.text.is_empty() && !self.is_odd
    }

    /// Takes lines of `name: value`, where there is no list.
    fn or_lines(&mut self, lines: &Value) {
        let Some(lines) = lines.as_array().filter(|_| self.is_empty()) else {
            return;
        };
        let lines = lines.iter().filter_map(Value::as_str);
        self.pairs = lines.filter_map(NameValue::of_header_line).collect();
    }

    /// Header fields. Some tools join the values of one name by line feeds.
    fn fields(mut self, texts: Texts) -> Result<Headers, String> {
        let lines = self.text.lines().map(NameValue::of_header_line);
        let lines: Option<Vec<NameValue>> = lines.collect();
        self.is_odd |= lines.is_none();
        self.pairs.extend(lines.into_iter().flatten());
        if self.is_odd {
            return Err(
                "expected a list of names and values as \"headers\", found something else"
                    .to_owned(),
            );
        }
        let mut fields = Headers::default();
        for NameValue { name, value, .. } in self.pairs {
            // Nothing that anybody could send.
            if name.as_deref() == Some("") && !value.is_filled() {
                continue;
            }
            let name = texts.text(name.unwrap_or_default());
            if name.is_empty() {
                return Err("expected the name of a header as \"name\", found none".to_owned());
            }
            match value {
                Loose::None => fields.push(&name, ""),
                Loose::Text(value) => push_lines(&mut fields, &name, texts.text(value)),
                Loose::List(values) => {
                    for value in values {
                        push_lines(&mut fields, &name, texts.text(value));
                    }
                }
                Loose::Odd => {
                    let name = printable(&name, 40);
                    return Err(format!(
                        "expected a text as the value of the header {name:?}, found an object"
                    ));
                }
            }
        }
        Ok(fields)
    }

    /// Whether all that stands there can be read.
    fn is_readable(&self) -> bool {
        let is_odd = |pair: &NameValue| {
            let is_nameless = pair.name.as_deref().is_none_or(str::is_empty);
            matches!(pair.value, Loose::Odd) || is_nameless && !pair.value.is_filled()
        };
        !self.is_odd && !self.pairs.iter().any(is_odd)
    }

    /// `name=value` of each, or the text that stands in their place.
    fn joined(&self, by: &str, texts: Texts, written: Written) -> String {
        let bytes = |text: &String| texts.bytes(text.clone());
        let mut pairs = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            let name = pair.name.as_ref().map(bytes).unwrap_or_default();
            match &pair.value {
                Loose::None => pairs.push((name, Vec::new())),
                Loose::Text(value) => pairs.push((name, bytes(value))),
                Loose::List(values) => {
                    pairs.extend(values.iter().map(|value| (name.clone(), bytes(value))));
                }
                Loose::Odd => {}
            }
        }
        // Whoever decoded one of them decoded all.
        let is_decoded = pairs
            .iter()
            .any(|(name, value)| is_decoded(name) || is_decoded(value));
        let text = |text: &[u8]| match written {
            Written::Plain => headers::text(text),
            Written::Query => encoded(text, ("%20", is_decoded)),
            Written::Form => encoded(text, ("+", is_decoded)),
        };
        let pairs = pairs.iter();
        let pairs = pairs.map(|(name, value)| format!("{}={}", text(name), text(value)));
        let all = pairs.chain((!self.text.is_empty()).then(|| texts.text(self.text.clone())));
        all.collect::<Vec<_>>().join(by)
    }

    /// Whether the list has a name that none of these `name=value` has, or what
    /// cannot be read.
    fn is_beyond<'a>(&self, said: impl Iterator<Item = &'a str> + Clone) -> bool {
        if self.is_odd || self.is_empty() {
            return self.is_odd;
        }
        let name_of = |said: &'a str| said.split('=').next().unwrap_or(said).trim();
        if !self.text.is_empty() && !said.clone().any(|said| self.text.contains(said)) {
            return true;
        }
        let mut names = said.clone().map(name_of);
        let is_next = |pair: &NameValue| pair.name.as_deref() == names.next();
        // Most lists were made of the text.
        if self.pairs.iter().all(is_next) {
            return false;
        }
        let names: HashSet<Vec<u8>> = said.map(|said| decoded(name_of(said))).collect();
        let lacks = |pair: &NameValue| {
            let name = pair.name.as_deref().unwrap_or_default().trim();
            !name.is_empty() && !names.contains(&decoded(name))
        };
        self.pairs.iter().any(lacks)
    }
}

/// How names and values are written in what they are joined to.
#[derive(Clone, Copy)]
enum Written {
    Plain,
    Query,
    Form,
}

fn push_lines(fields: &mut Headers, name: &str, value: String) {
    if !value.contains('\n') {
        fields.push(name, &value);
        return;
    }
    // A line that begins with a blank goes on with the one before.
    let whole = value.replace("\r\n", "\n");
    let whole = whole.replace("\n ", " ").replace("\n\t", " ");
    for line in whole.split('\n').filter(|line| !line.is_empty()) {
        fields.push(name, line);
    }
}

impl NameValue {
    fn is_file(&self) -> bool {
        let more = self.more.as_ref();
        more.is_some_and(|more| more.file_name.is_some())
    }

    fn new((name, value): (&str, &str)) -> Self {
        Self {
            name: Some(name.trim().to_owned()),
            value: Loose::Text(value.trim().to_owned()),
            ..Self::default()
        }
    }

    /// A line of `name: value`.
    fn of_header_line(line: &str) -> Option<Self> {
        // The name of a pseudo-header begins with a colon.
        let colon = line.get(1..)?.find(':')? + 1;
        let (name, value) = line.split_at(colon);
        let is_name = !name.contains(char::is_whitespace);
        is_name.then(|| Self::new((name, &value[1..])))
    }

    /// The same, or `name=value` of a cookie or a query.
    fn of_line(line: &str) -> Option<Self> {
        let pair = line.split_once('=');
        let pair = pair.filter(|(name, _)| !name.contains([':', ' ']));
        pair.map(Self::new).or_else(|| Self::of_header_line(line))
    }

    /// A cookie of a response, as its header has it.
    fn set_cookie(self, texts: Texts) -> Option<String> {
        let is_set = |flag: &Option<String>| flag.as_deref() == Some("true");
        let value = match self.value {
            Loose::None => String::new(),
            Loose::Text(value) => value,
            Loose::List(_) | Loose::Odd => return None,
        };
        let mut line = format!("{}={value}", self.name.filter(|name| !name.is_empty())?);
        let more = self.more.unwrap_or_default();
        for (name, value) in [
            ("Path", more.path),
            ("Domain", more.domain),
            ("SameSite", more.same_site),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line.push_str(&format!("; {name}={value}"));
            }
        }
        for (name, flag) in [("HttpOnly", more.http_only), ("Secure", more.secure)] {
            if is_set(&flag) {
                line.push_str(&format!("; {name}"));
            }
        }
        Some(texts.text(line))
    }
}

/// Where a request went: its URL, or what stands in its place.
struct Target {
    authority: Option<String>,
    uri: String,
    /// Whether its scheme is `ws` or `wss`.
    is_socket: bool,
}

impl Target {
    fn of(url: &str, pseudo: &Headers) -> Result<Self, String> {
        let path = pseudo.value(":path");
        // A URL without its scheme.
        if url.starts_with("//")
            && let Some((_, authority, uri)) = headers::split_url(&format!("http:{url}"))
        {
            return Ok(Self {
                authority: Some(authority.to_owned()),
                uri,
                is_socket: false,
            });
        }
        if url.is_empty() || url.starts_with('/') {
            let uri = if url.is_empty() {
                path
            } else {
                url.split('#').next()
            };
            return Ok(Self {
                authority: None,
                uri: uri
                    .ok_or("expected \"request.url\", found none")?
                    .to_owned(),
                is_socket: false,
            });
        }
        let is_known = |scheme: &str| {
            let mut known = ["http", "https", "ws", "wss"].iter();
            known.any(|known| scheme.eq_ignore_ascii_case(known))
        };
        let (scheme, authority, uri) = headers::split_url(url)
            .filter(|(scheme, _, _)| is_known(scheme))
            .ok_or_else(|| {
                format!(
                    "expected an http or https URL, found {:?}",
                    printable(url, 40)
                )
            })?;
        Ok(Self {
            authority: Some(authority.to_owned()),
            uri,
            is_socket: scheme
                .get(..2)
                .is_some_and(|it| it.eq_ignore_ascii_case("ws")),
        })
    }
}

/// What a request says of its body.
struct Posted {
    data: PostFields,
    /// Something stands where no body is read.
    is_elsewhere: bool,
    body_size: Option<f64>,
}

impl Request {
    fn read(
        self,
        texts: Texts,
        client_ip: String,
        remarks: &mut Vec<Remark>,
    ) -> Result<(RequestHead, Posted), String> {
        let mut fields = self.headers.fields(texts)?;
        let pseudo = headers::split_pseudo(&mut fields);
        let url = texts.target(self.url.unwrap_or_default());
        let mut target = Target::of(&url, &pseudo)?;
        if has_credentials(&url) && fields.value("authorization").is_none() {
            remarks.push(Remark::PartsLeftOut);
        }
        let (path, query) = target.uri.split_once('?').unwrap_or((&target.uri, ""));
        let mut differs = false;
        if query.is_empty() && !self.query_string.is_empty() {
            let query = self.query_string.joined("&", texts, Written::Query);
            differs |= !self.query_string.is_readable();
            target.uri = format!("{path}?{query}");
        } else {
            differs |= self.query_string.is_beyond(query.split('&'));
        }
        if let Some(authority) = target.authority.filter(|_| fields.value("host").is_none()) {
            fields.prepend("host", &authority);
        }
        if lacks(&fields, "cookie") && !self.cookies.is_empty() {
            let cookies = self.cookies.joined("; ", texts, Written::Plain);
            differs |= !self.cookies.is_readable();
            fields = without(&fields, "cookie");
            fields.push("cookie", &cookies);
        } else {
            let said = values(&fields, "cookie").flat_map(|value| value.split(';'));
            differs |= self.cookies.is_beyond(said);
        }
        if differs {
            remarks.push(Remark::ListsDiffer);
        }
        let upgrade = fields.value("upgrade");
        let is_socket =
            target.is_socket || upgrade.is_some_and(|to| to.eq_ignore_ascii_case("websocket"));
        let method = self
            .method
            .filter(|method| !method.is_empty())
            .or_else(|| pseudo.value(":method").map(str::to_owned))
            // A handshake of a socket is nothing else; Chrome leaves it out.
            .or_else(|| is_socket.then(|| "GET".to_owned()))
            .ok_or("expected \"request.method\", found none")?;
        let method = sendable(texts.text(method), target.uri.as_str())?;
        let head = RequestHead {
            method,
            uri: target.uri,
            client_ip,
            headers: fields,
            ..RequestHead::default()
        };
        let posted = Posted {
            data: self.post_data.0,
            is_elsewhere: self.body || self.content,
            body_size: self.body_size,
        };
        Ok((head, posted))
    }
}

/// The method, if it and the target can stand in a request line.
fn sendable(method: String, uri: &str) -> Result<String, String> {
    if !method.bytes().all(|byte| byte.is_ascii_graphic()) {
        let shown = printable(&method, 40);
        return Err(format!("expected a method in one word, found {shown:?}"));
    }
    if uri.contains(|c: char| c.is_ascii_control()) {
        let shown = printable(uri, 40);
        return Err(format!(
            "expected a URL without line ends and the like, found {shown:?}"
        ));
    }
    Ok(method)
}

fn has_credentials(url: &str) -> bool {
    let rest = url.split_once("//").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

fn values<'a>(fields: &'a Headers, name: &'static str) -> impl Iterator<Item = &'a str> + Clone {
    let fields = fields.iter();
    let fields = fields.filter(move |(have, _)| have.eq_ignore_ascii_case(name));
    fields.map(|(_, value)| value)
}

/// Whether there is no such field but empty ones.
fn lacks(fields: &Headers, name: &'static str) -> bool {
    values(fields, name).all(str::is_empty)
}

fn without(fields: &Headers, name: &str) -> Headers {
    let fields = fields.iter();
    fields
        .filter(|(have, _)| !have.eq_ignore_ascii_case(name))
        .collect()
}

impl Posted {
    /// The body, as far as it was captured.
    fn body(
        self,
        texts: Texts,
        fields: &Headers,
        remarks: &mut Vec<Remark>,
    ) -> Result<Vec<u8>, String> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let said = content_length(fields).or(self.body_size);
        let mut data = self.data;
        let is_form = data.mime_type.as_deref().is_none_or(|mime| {
            let start = mime.trim_start().get(..FORM.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(FORM))
        });
        let params = std::mem::take(&mut data.params);
        let has_file = params.pairs.iter().any(NameValue::is_file);
        let is_form = is_form && !has_file && !params.is_empty();
        let is_odd = matches!(data.text, Loose::List(_) | Loose::Odd);
        if let Loose::Text(text) = std::mem::take(&mut data.text)
            && !text.is_empty()
        {
            let place = "request.postData.text";
            let encoding = data.encoding.or(data.own_encoding);
            let bytes = body(texts.bytes(text), encoding.as_deref(), place)?;
            // Tools decode a body that was compressed, and then it is longer.
            let is_plain = fields.value("content-encoding").is_none();
            if is_plain && said.is_some_and(|said| is_short(bytes.len(), said)) {
                remarks.push(Remark::BodyTruncated);
            }
            let differs = is_form && params.is_beyond(String::from_utf8_lossy(&bytes).split('&'));
            if differs && !remarks.contains(&Remark::ListsDiffer) {
                remarks.push(Remark::ListsDiffer);
            }
            return Ok(bytes);
        }
        if is_form {
            if !params.is_readable() {
                remarks.push(Remark::BodyTruncated);
            }
            // What was already encoded stays as it is.
            return Ok(params.joined("&", texts, Written::Form).into_bytes());
        }
        // Params do not hold the bytes of another kind of body.
        let is_elsewhere = self.is_elsewhere
            || data.file.is_some()
            || data.hash.is_some()
            || is_odd
            || !params.is_empty();
        if is_elsewhere || said.is_some_and(|said| said > 0.0) {
            remarks.push(Remark::BodyMissing);
        }
        Ok(Vec::new())
    }
}

fn content_length(fields: &Headers) -> Option<f64> {
    let length = fields.value("content-length")?;
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    length.parse().ok().filter(|_| is_number)
}

/// Whether fewer bytes are there than there were.
#[expect(
    clippy::cast_precision_loss,
    reason = "bodies have far fewer than 2^52 bytes"
)]
fn is_short(bytes: usize, said: f64) -> bool {
    (bytes as f64) < said
}

/// Whether a text cannot be part of an encoded query or form.
fn is_decoded(text: &[u8]) -> bool {
    let mut at = text.iter().enumerate();
    at.any(|(at, byte)| match byte {
        b'%' => escape(&text[at..]).is_none(),
        b' ' | b'&' | 0..=0x1f | 0x7f.. => true,
        _ => false,
    })
}

/// The byte that an escape at the beginning stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    u8::from_str_radix(digits, 16).ok()
}

/// A name or a value of a query, of which nothing is encoded.
pub(super) fn query_encoded(text: &[u8]) -> String {
    encoded(text, ("%20", true))
}

/// The bytes that a text in a URL or a form stands for.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        let byte = escape(rest);
        out.push(match (byte, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, first) => *first,
        });
        rest = &rest[if byte.is_some() { 3 } else { 1 }..];
    }
    out
}

/// A name or a value of a query or a form. Escapes stay as they are; a plus sign
/// stands for a blank unless the texts were decoded.
fn encoded(text: &[u8], (blank, is_decoded): (&str, bool)) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        let is_plain = match byte {
            b'&' | b'=' | b'#' | 0..=0x1f | 0x7f.. => false,
            b'+' => !is_decoded,
            b'%' => escape(&text[at..]).is_some(),
            _ => true,
        };
        match byte {
            b' ' => out.push_str(blank),
            _ if is_plain => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn body(text: Vec<u8>, encoding: Option<&str>, place: &str) -> Result<Vec<u8>, String> {
    match encoding {
        Some(encoding) if encoding.eq_ignore_ascii_case("base64") => {
            // Some break it into lines, and some leave its padding out.
            let kept = |byte: &u8| !byte.is_ascii_whitespace() && *byte != b'=';
            let text: Vec<u8> = text.into_iter().filter(kept).collect();
            let place = format_args!("\"{place}\", as its encoding says");
            base_64::read(&STANDARD_NO_PAD, &headers::text(&text), place)
        }
        Some(encoding) if !is_text(encoding) => {
            let shown = printable(encoding, 20);
            Err(format!(
                "expected base64 as the encoding of \"{place}\", found {shown:?}"
            ))
        }
        _ => Ok(text),
    }
}

/// Whether a body with this encoding is its text.
fn is_text(encoding: &str) -> bool {
    let known = [
        "", "utf-8", "utf8", "text", "plain", "none", "identity", "us-ascii", "ascii",
    ];
    known
        .iter()
        .any(|known| encoding.trim().eq_ignore_ascii_case(known))
}

impl Response {
    /// Nothing where there was no response: status 0, or none and nothing else.
    fn status(&self) -> Result<Option<u16>, String> {
        let said = match &self.status {
            Loose::Text(text) => text.trim(),
            Loose::None | Loose::List(_) | Loose::Odd => "",
        };
        let digits = said.bytes().take_while(u8::is_ascii_digit).count();
        let status = said[..digits].parse().ok();
        if let Some(status) = status.filter(|status| STATUSES.contains(status)) {
            return Ok(Some(status));
        }
        let has_text = |content: &Content| content.text.as_ref().is_some_and(|it| !it.is_empty());
        let is_any = !self.headers.is_empty() || self.content.as_ref().is_some_and(has_text);
        let is_none = status == Some(0) || said.is_empty() || said.starts_with('-');
        let is_odd = matches!(self.status, Loose::List(_) | Loose::Odd);
        if is_none && !is_odd && !is_any {
            return Ok(None);
        }
        let shown = printable(said, 20);
        Err(format!(
            "expected a response status from 100 to 999, found {shown:?}"
        ))
    }

    fn read(mut self, texts: Texts, exchange: &mut ExchangeParts) -> Result<(), String> {
        let Some(status) = self.status()? else {
            return Ok(());
        };
        let mut fields = std::mem::take(&mut self.headers).fields(texts)?;
        headers::split_pseudo(&mut fields);
        if lacks(&fields, "set-cookie") && !self.cookies.is_empty() {
            fields = without(&fields, "set-cookie");
            let is_readable = self.cookies.is_readable() && self.cookies.text.is_empty();
            let cookies = std::mem::take(&mut self.cookies).pairs;
            let cookies = cookies.into_iter().map(|cookie| cookie.set_cookie(texts));
            let cookies: Vec<Option<String>> = cookies.collect();
            if !is_readable || cookies.contains(&None) {
                exchange.remark(Remark::ListsDiffer);
            }
            for cookie in cookies.into_iter().flatten() {
                fields.push("set-cookie", &cookie);
            }
        } else if self.cookies.is_beyond(values(&fields, "set-cookie")) {
            exchange.remark(Remark::ListsDiffer);
        }
        let request = exchange.request.as_ref();
        let has_none = matches!(status, 100..=199 | 204 | 304)
            || request.is_some_and(|request| request.head.method == "HEAD");
        let body = self.body(texts, (&fields, has_none), &mut exchange.remarks);
        let (body, bad) = body.map_or_else(|why| (Vec::new(), Err(why)), |body| (body, Ok(())));
        exchange.response = Some(Half::response(status, fields, body));
        bad
    }

    fn body(
        self,
        texts: Texts,
        (fields, has_none): (&Headers, bool),
        remarks: &mut Vec<Remark>,
    ) -> Result<Vec<u8>, String> {
        let said = content_length(fields).or(self.body_size);
        let mut is_missing = !has_none && said.is_some_and(|said| said > 0.0);
        let Some(content) = self.content else {
            remarks.extend(is_missing.then_some(Remark::BodyMissing));
            return Ok(Vec::new());
        };
        is_missing |= content.file.is_some() || content.hash.is_some();
        is_missing |= content.size.is_some_and(|size| size > 0.0);
        let Some(text) = content.text.filter(|text| !text.is_empty()) else {
            remarks.extend(is_missing.then_some(Remark::BodyMissing));
            return Ok(Vec::new());
        };
        let encoding = content.encoding.as_deref();
        let bytes = body(texts.bytes(text), encoding, "response.content.text")?;
        if let Some(size) = content.size {
            // Some give the size as it was sent, and how much shorter that was.
            let size = size + content.compression.unwrap_or(0.0).min(0.0);
            // A byte order mark is none of the text.
            let mark = if encoding.is_none() { 3 } else { 0 };
            let is_whole = !is_short(bytes.len() + mark, size) && is_short(bytes.len() + 2, size);
            if is_short(bytes.len(), size) && !(mark > 0 && is_whole) {
                remarks.push(Remark::BodyTruncated);
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_broken_into_lines_or_lack_its_padding() {
        for text in ["aGVsbG8=", "aGVs\r\nbG8=\r\n", "aGVsbG8", "aGVsbG8=="] {
            let bytes = body(text.into(), Some("base64"), "text").unwrap();
            assert_eq!(bytes, b"hello", "{text}");
        }
        // Not base64, cut within a byte, and two texts one after the other.
        for text in ["a*b", "aGVsbG", "aGVsb", "YWJjYQ==YWJj"] {
            let read = body(text.into(), Some("base64"), "text");
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }
}
