//! HTTP Archive 1.2, as browsers and mitmproxy really write it.
//!
//! Every field is optional here, because real files lack what the
//! specification requires. Entries are cut out of the stream one by one.

use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer};

use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::{Elements, Records};
use super::parts::STATUSES;
use super::{DecodeSettings, ExchangeParts, Format, Half, Remark, base_64, headers};
use crate::event::{Headers, RequestHead, ResponseHead};
use crate::json::explain;
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
        head.keys.has_object("log", &inner)
    },
    frames: |stream| {
        let entries = Records::Within(["log", "entries"]);
        assemble(Elements::new(stream, entries), None, Format::Har)
    },
    read: Read::Record(read),
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    started_date_time: Option<String>,
    request: Option<Request>,
    response: Option<Response>,
    #[serde(
        rename = "_clientIPAddress",
        alias = "clientIPAddress",
        alias = "_client_ip",
        default
    )]
    client_ip: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: Option<String>,
    url: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    headers: Vec<Header>,
    post_data: Option<PostData>,
    body_size: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status: Option<f64>,
    #[serde(default, deserialize_with = "or_default")]
    headers: Vec<Header>,
    content: Option<Content>,
}

#[derive(Deserialize, Default)]
struct Header {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    mime_type: Option<String>,
    text: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    params: Vec<Param>,
    #[serde(alias = "_encoding")]
    encoding: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Param {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    value: Option<String>,
    file_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    size: Option<f64>,
    text: Option<String>,
    encoding: Option<String>,
}

/// `null` where the specification wants a value.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    reader: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(reader)?.unwrap_or_default())
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let entry: Entry = explain::parse(record)?;
    let request = entry
        .request
        .ok_or("expected an entry with \"request\", found none")?;
    let client_ip = exchange.client_ip(settings, entry.client_ip.as_deref());
    exchange.at_ns = entry.started_date_time.as_deref().and_then(nanoseconds);
    exchange.request = Some(request.read(client_ip, &mut exchange.remarks)?);
    if let Some(response) = entry.response {
        exchange.response = response.read(&mut exchange.remarks)?;
    }
    Ok(())
}

fn named(headers: Vec<Header>) -> Headers {
    headers
        .into_iter()
        .map(|header| (header.name, header.value))
        .collect()
}

impl Request {
    fn read(
        self,
        client_ip: String,
        remarks: &mut Vec<Remark>,
    ) -> Result<Half<RequestHead>, String> {
        let url = self.url.ok_or("expected \"request.url\", found none")?;
        let is_known = |scheme: &str| {
            let mut known = ["http", "https", "ws", "wss"].iter();
            known.any(|known| scheme.eq_ignore_ascii_case(known))
        };
        let (_, authority, uri) = headers::split_url(&url)
            .filter(|(scheme, _, _)| is_known(scheme))
            .ok_or_else(|| {
                format!(
                    "expected an http or https URL, found {:?}",
                    crate::fault::printable(&url, 40)
                )
            })?;
        let mut fields = named(self.headers);
        let pseudo = headers::split_pseudo(&mut fields);
        if fields.value("host").is_none() {
            fields.prepend("host", authority);
        }
        if fields.value("cookie").is_none() && fields.value("authorization").is_none() {
            remarks.push(Remark::NoCredentials);
        }
        let method = self
            .method
            .filter(|method| !method.is_empty())
            .or_else(|| pseudo.value(":method").map(str::to_owned))
            .ok_or("expected \"request.method\", found none")?;
        let body = match self.post_data {
            Some(data) => data.read()?,
            None => {
                if self.body_size.is_some_and(|size| size > 0.0) {
                    remarks.push(Remark::BodyMissing);
                }
                Vec::new()
            }
        };
        Ok(Half {
            head: RequestHead {
                method,
                uri,
                client_ip,
                headers: fields,
                ..RequestHead::default()
            },
            body,
        })
    }
}

impl PostData {
    fn read(self) -> Result<Vec<u8>, String> {
        if let Some(text) = self.text.filter(|text| !text.is_empty()) {
            return body(text, self.encoding.as_deref(), "request.postData.text");
        }
        let is_form = self.mime_type.as_deref().is_none_or(|mime| {
            mime.trim_start()
                .to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        });
        if self.params.is_empty() {
            return Ok(Vec::new());
        }
        if !is_form || self.params.iter().any(|param| param.file_name.is_some()) {
            return Err(
                "expected \"request.postData.text\", found only params, which do not hold the bytes of this kind of body".to_owned(),
            );
        }
        // What was already encoded stays as it is: `%` is left alone.
        let form: Vec<String> = self
            .params
            .iter()
            .map(|param| {
                format!(
                    "{}={}",
                    form_encoded(&param.name),
                    form_encoded(param.value.as_deref().unwrap_or_default())
                )
            })
            .collect();
        Ok(form.join("&").into_bytes())
    }
}

fn form_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'&' | b'=' | b'#' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

fn body(text: String, encoding: Option<&str>, place: &str) -> Result<Vec<u8>, String> {
    match encoding {
        Some(encoding) if encoding.eq_ignore_ascii_case("base64") => {
            // Some break it into lines, and some leave its padding out.
            let kept = |c: &char| !c.is_ascii_whitespace() && *c != '=';
            let text: String = text.chars().filter(kept).collect();
            let place = format_args!("\"{place}\", as its encoding says");
            base_64::read(&STANDARD_NO_PAD, &text, place)
        }
        _ => Ok(text.into_bytes()),
    }
}

impl Response {
    /// Nothing where there was no response: status 0.
    fn read(self, remarks: &mut Vec<Remark>) -> Result<Option<Half<ResponseHead>>, String> {
        let status = match self.status {
            None => return Ok(None),
            Some(status) if status <= 0.0 => return Ok(None),
            Some(status) => STATUSES
                .into_iter()
                .find(|known| (f64::from(*known) - status).abs() < 0.5)
                .ok_or_else(|| {
                    format!("expected a response status from 100 to 999, found {status}")
                })?,
        };
        let mut fields = named(self.headers);
        headers::split_pseudo(&mut fields);
        let body = match self.content {
            Some(content) => match content.text {
                Some(text) => body(text, content.encoding.as_deref(), "response.content.text")?,
                None => {
                    if content.size.is_some_and(|size| size > 0.0) {
                        remarks.push(Remark::BodyMissing);
                    }
                    Vec::new()
                }
            },
            None => Vec::new(),
        };
        Ok(Some(Half::response(status, fields, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_broken_into_lines_or_lack_its_padding() {
        for text in ["aGVsbG8=", "aGVs\r\nbG8=\r\n", "aGVsbG8", "aGVsbG8=="] {
            let bytes = body(text.to_owned(), Some("base64"), "text").unwrap();
            assert_eq!(bytes, b"hello", "{text}");
        }
        // Not base64, cut within a byte, and two texts one after the other.
        for text in ["a*b", "aGVsbG", "aGVsb", "YWJjYQ==YWJj"] {
            let read = body(text.to_owned(), Some("base64"), "text");
            assert!(read.is_err(), "{text}: {read:?}");
        }
    }
}
