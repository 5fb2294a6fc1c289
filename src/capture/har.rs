//! HTTP Archive 1.2, as browsers and tools really write it.
//!
//! Every field is optional here, because real files lack what the specification
//! requires, and what decides nothing may be of any shape. Entries are cut out of
//! the stream one by one.

use std::fmt;

use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::lenient::{is_filled, number, text};
use super::parts::STATUSES;
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
    #[serde(default, deserialize_with = "text")]
    started_date_time: Option<String>,
    request: Option<Request>,
    response: Option<R>,
    #[serde(rename = "_clientIPAddress", default, deserialize_with = "text")]
    client_ip: Option<String>,
    #[serde(rename = "clientIPAddress", default, deserialize_with = "text")]
    client_ip_plain: Option<String>,
    #[serde(rename = "_client_ip", default, deserialize_with = "text")]
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
    post_data: Option<PostData>,
    #[serde(default, deserialize_with = "number")]
    body_size: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default, deserialize_with = "number")]
    status: Option<f64>,
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
struct Named(Vec<NameValue>);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct NameValue {
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    value: Option<String>,
    // Of a cookie of a response.
    #[serde(default, deserialize_with = "text")]
    path: Option<String>,
    #[serde(default, deserialize_with = "text")]
    domain: Option<String>,
    #[serde(default, deserialize_with = "text")]
    http_only: Option<String>,
    #[serde(default, deserialize_with = "text")]
    secure: Option<String>,
    #[serde(default, deserialize_with = "text")]
    same_site: Option<String>,
    // Of a part of a form.
    #[serde(default, deserialize_with = "text")]
    file_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct PostFields {
    #[serde(default, deserialize_with = "text")]
    mime_type: Option<String>,
    #[serde(default, deserialize_with = "text")]
    text: Option<String>,
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

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Named, A::Error> {
                let mut named = Vec::with_capacity(list.size_hint().unwrap_or(16));
                while let Some(one) = list.next_element()? {
                    named.push(one);
                }
                Ok(Named(named))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut named = Vec::new();
                while let Some(name) = map.next_key()? {
                    let value = map.next_value::<super::lenient::Text>()?.0;
                    named.push(NameValue {
                        name: Some(name),
                        value,
                        ..NameValue::default()
                    });
                }
                Ok(Named(named))
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
                let text = Some(text.to_owned());
                Ok(PostData(PostFields {
                    text,
                    ..PostFields::default()
                }))
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
        let client_ip = self
            .client_ip
            .or(self.client_ip_plain)
            .or(self.client_ip_snake);
        let client_ip = exchange.client_ip(settings, client_ip.as_deref());
        exchange.at_ns = self.started_date_time.as_deref().and_then(nanoseconds);
        let (head, posted) = request.read(texts, client_ip)?;
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
    /// Takes lines of `name: value`, where there is no list.
    fn or_lines(&mut self, lines: &Value) {
        let Some(lines) = lines.as_array().filter(|_| self.0.is_empty()) else {
            return;
        };
        let fields = lines.iter().filter_map(|line| {
            let line = line.as_str()?;
            // The name of a pseudo-header begins with a colon.
            let colon = line.get(1..)?.find(':')? + 1;
            let (name, value) = line.split_at(colon);
            let is_name = !name.contains(char::is_whitespace);
            is_name.then(|| NameValue {
                name: Some(name.to_owned()),
                value: Some(value[1..].trim().to_owned()),
                ..NameValue::default()
            })
        });
        self.0 = fields.collect();
    }

    /// Header fields. Some tools join the values of one name by line feeds.
    fn fields(self, texts: Texts) -> Headers {
        let mut fields = Headers::default();
        for NameValue { name, value, .. } in self.0 {
            let name = texts.text(name.unwrap_or_default());
            let value = texts.text(value.unwrap_or_default());
            if !value.contains('\n') {
                fields.push(&name, &value);
                continue;
            }
            // A line that begins with a blank goes on with the one before.
            let whole = value.replace("\r\n", "\n");
            let whole = whole.replace("\n ", " ").replace("\n\t", " ");
            for line in whole.split('\n').filter(|line| !line.is_empty()) {
                fields.push(&name, line);
            }
        }
        fields
    }

    /// `name=value` of each.
    fn pairs(&self, texts: Texts, encoded: fn(&[u8]) -> String) -> Vec<String> {
        let bytes = |text: &Option<String>| texts.bytes(text.clone().unwrap_or_default());
        let pairs = self.0.iter();
        pairs
            .map(|pair| {
                format!(
                    "{}={}",
                    encoded(&bytes(&pair.name)),
                    encoded(&bytes(&pair.value))
                )
            })
            .collect()
    }
}

impl NameValue {
    /// A cookie of a response, as its header has it.
    fn set_cookie(self, texts: Texts) -> String {
        let is_set = |flag: &Option<String>| flag.as_deref() == Some("true");
        let mut line = format!(
            "{}={}",
            self.name.unwrap_or_default(),
            self.value.unwrap_or_default()
        );
        for (name, value) in [
            ("Path", self.path),
            ("Domain", self.domain),
            ("SameSite", self.same_site),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line.push_str(&format!("; {name}={value}"));
            }
        }
        for (name, flag) in [("HttpOnly", self.http_only), ("Secure", self.secure)] {
            if is_set(&flag) {
                line.push_str(&format!("; {name}"));
            }
        }
        texts.text(line)
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
        if url.is_empty() || (url.starts_with('/') && !url.starts_with("//")) {
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
    data: Option<PostData>,
    body_size: Option<f64>,
}

impl Request {
    fn read(self, texts: Texts, client_ip: String) -> Result<(RequestHead, Posted), String> {
        let mut fields = self.headers.fields(texts);
        let pseudo = headers::split_pseudo(&mut fields);
        let url = texts.target(self.url.unwrap_or_default());
        let mut target = Target::of(&url, &pseudo)?;
        if !target.uri.contains('?') && !self.query_string.0.is_empty() {
            let query = self.query_string.pairs(texts, query_encoded).join("&");
            target.uri = format!("{}?{query}", target.uri);
        }
        if let Some(authority) = target.authority.filter(|_| fields.value("host").is_none()) {
            fields.prepend("host", &authority);
        }
        if fields.value("cookie").is_none() && !self.cookies.0.is_empty() {
            let plain = |bytes: &[u8]| headers::text(bytes);
            let cookies = self.cookies.pairs(texts, plain).join("; ");
            fields.push("cookie", &cookies);
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
        let head = RequestHead {
            method: texts.text(method),
            uri: target.uri,
            client_ip,
            headers: fields,
            ..RequestHead::default()
        };
        let posted = Posted {
            data: self.post_data,
            body_size: self.body_size,
        };
        Ok((head, posted))
    }
}

impl Posted {
    /// The body, as far as it was captured.
    fn body(
        self,
        texts: Texts,
        fields: &Headers,
        remarks: &mut Vec<Remark>,
    ) -> Result<Vec<u8>, String> {
        let said = content_length(fields).or(self.body_size);
        let mut is_kept_elsewhere = false;
        if let Some(PostData(data)) = self.data {
            is_kept_elsewhere = data.file.is_some() || data.hash.is_some();
            if let Some(text) = data.text.filter(|text| !text.is_empty()) {
                let place = "request.postData.text";
                let encoding = data.encoding.or(data.own_encoding);
                let bytes = body(texts.bytes(text), encoding.as_deref(), place)?;
                // Tools decode a body that was compressed, and then it is longer.
                let is_plain = fields.value("content-encoding").is_none();
                if is_plain && said.is_some_and(|said| is_short(bytes.len(), said)) {
                    remarks.push(Remark::BodyTruncated);
                }
                return Ok(bytes);
            }
            let is_form = data.mime_type.as_deref().is_none_or(|mime| {
                mime.trim_start()
                    .to_ascii_lowercase()
                    .starts_with("application/x-www-form-urlencoded")
            });
            let params = &data.params.0;
            let has_file = params.iter().any(|param| param.file_name.is_some());
            if !params.is_empty() && is_form && !has_file {
                // What was already encoded stays as it is: `%` is left alone.
                let pairs = data.params.pairs(texts, form_encoded);
                return Ok(pairs.join("&").into_bytes());
            }
            // Params do not hold the bytes of another kind of body.
            is_kept_elsewhere |= !params.is_empty();
        }
        if is_kept_elsewhere || said.is_some_and(|said| said > 0.0) {
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

fn form_encoded(text: &[u8]) -> String {
    encoded(text, "+")
}

pub(super) fn query_encoded(text: &[u8]) -> String {
    encoded(text, "%20")
}

fn encoded(text: &[u8], blank: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' => out.push_str(blank),
            b'&' | b'=' | b'#' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(*byte)),
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
        _ => Ok(text),
    }
}

impl Response {
    /// Nothing where there was no response: status 0.
    fn read(mut self, texts: Texts, exchange: &mut ExchangeParts) -> Result<(), String> {
        let status = match self.status {
            None => return Ok(()),
            Some(status) if status <= 0.0 => return Ok(()),
            Some(status) => STATUSES
                .into_iter()
                .find(|known| (f64::from(*known) - status).abs() < 0.5)
                .ok_or_else(|| {
                    format!("expected a response status from 100 to 999, found {status}")
                })?,
        };
        let mut fields = std::mem::take(&mut self.headers).fields(texts);
        headers::split_pseudo(&mut fields);
        if fields.value("set-cookie").is_none() {
            for cookie in std::mem::take(&mut self.cookies).0 {
                fields.push("set-cookie", &cookie.set_cookie(texts));
            }
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
