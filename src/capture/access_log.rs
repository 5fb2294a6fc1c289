//! Access logs: lines in the combined format, or JSON with a field map.
//!
//! Lossy by nature: of a request's headers only those that were logged, no
//! bodies. The report says so.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};
use serde_json::Value;

use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::Lines;
use super::parts::STATUSES;
use super::{DecodeSettings, ExchangeParts, Format, Half, headers, http1};
use crate::event::{Headers, RequestHead, ResponseHead, bare_ip};
use crate::time::nanoseconds;

/// The combined format, and the common one; with or without Apache's virtual
/// host before it, with anything behind it.
static COMBINED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?-u)^(?:(?P<vhost>[^ ,"\[\]]+) (?P<vip>[0-9a-fA-F]*[:.][0-9a-fA-F:.]+)|(?P<ip>[^ ,"\[\]]+)(?:, ?[^ ,"\[\]]+)*) [^ \[]+ (?P<user>[^\[]*?) ?\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-) (?P<size>\d+|-)(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?"#,
    )
    .ok()
});

pub(super) static COMBINED_READER: Reader = Reader {
    title: "Combined access log",
    loses: Some("at most the headers host, referer and user-agent; no bodies; no response headers"),
    recognises: |head| {
        let is_combined = |line| COMBINED.as_ref().is_some_and(|form| form.is_match(line));
        !head.is_json() && head.lines().any(is_combined)
    },
    frames: |stream| assemble(Lines::new(stream), None, Format::AccessLog),
    read: Read::Record(read_combined),
};

pub(super) static JSON_READER: Reader = Reader {
    title: "JSON access log",
    loses: Some("only the fields the log has; no bodies"),
    recognises: |head| head.is_json(),
    frames: |stream| assemble(Lines::new(stream), None, Format::JsonLog),
    read: Read::Record(read_json),
};

fn read_combined(
    line: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let found = COMBINED
        .as_ref()
        .and_then(|form| form.captures(line))
        .ok_or("expected a line of the combined log format: address - user [time] \"request\" status size \"referer\" \"agent\"")?;
    let field = |name| field(&found, name);
    let request = field("request").ok_or("expected a request line, found \"-\"")?;
    let (method, uri) = http1::request_line(&request)?;
    // What else may stand there, of a handshake say, is no method.
    let is_method = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if !method.bytes().all(is_method) {
        return Err(http1::no_request_line(&request));
    }
    let mut fields = Headers::new();
    for (name, group) in [
        ("host", "vhost"),
        ("referer", "referer"),
        ("user-agent", "agent"),
    ] {
        if let Some(value) = field(group) {
            fields.push(name, &headers::text(&value));
        }
    }
    // A host's name, or a socket's, is no address.
    let address = field("ip")
        .or_else(|| field("vip"))
        .map(|address| bare_ip(&headers::text(&address)))
        .filter(|address| address.parse::<IpAddr>().is_ok());
    exchange.at_ns = field("time").and_then(|time| common_time(&headers::text(&time)));
    exchange.request = Some(Half {
        head: RequestHead {
            method,
            uri,
            client_ip: settings.client_ip(address.as_deref()),
            headers: fields,
            ..RequestHead::default()
        },
        body: Vec::new(),
    });
    exchange.response = field("status").and_then(|status| response(&headers::text(&status)));
    Ok(())
}

fn response(status: &str) -> Option<Half<ResponseHead>> {
    let status = status.parse().ok()?;
    let is_one = STATUSES.contains(&status);
    is_one.then(|| Half::response(status, Headers::new(), Vec::new()))
}

/// A group without its escapes; nothing where the log has `-`.
fn field(found: &Captures<'_>, name: &str) -> Option<Vec<u8>> {
    let text = unescape(found.name(name)?.as_bytes());
    (text != b"-" && !text.is_empty()).then_some(text)
}

/// What nginx (`\x22`) and Apache (`\"`, `\n`, `\xhh`) write for bytes that
/// would break the line.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let hex = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        match tail {
            [b'x', high, low, ..] => {
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) {
                    out.push(high * 16 + low);
                    rest = &tail[3..];
                } else {
                    out.push(b'\\');
                }
            }
            [known, ..] => {
                out.push(match known {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    other => *other,
                });
                rest = &tail[1..];
            }
            [] => out.push(b'\\'),
        }
    }
    out
}

/// `10/Oct/2000:13:55:36 -0700`, or ISO 8601, or seconds since 1970.
fn common_time(text: &str) -> Option<i64> {
    if let Ok(at) = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", text)
        .and_then(|parsed| parsed.to_timestamp())
    {
        return i64::try_from(at.as_nanosecond()).ok();
    }
    if let Some(at) = nanoseconds(text) {
        return Some(at);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds
        .parse::<i64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

fn read_json(
    line: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let log: Value = crate::json::explain::parse(line)?;
    if !log.is_object() {
        return Err("expected a JSON object, found another value".to_owned());
    }
    let find = |what| settings.fields.find(what, &log);
    let line = find("request").and_then(|line| http1::request_line(line.as_bytes()).ok());
    let missing = |what| {
        format!("expected the {what}, found no key for it; name one with --field {what}=KEY")
    };
    let method = find("method")
        .or_else(|| line.as_ref().map(|(method, _)| method.clone()))
        .ok_or_else(|| missing("method"))?;
    let mut uri = find("uri")
        .or_else(|| line.map(|(_, uri)| uri))
        .ok_or_else(|| missing("uri"))?;
    if let Some((_, _, path)) = headers::split_url(&uri) {
        uri = path;
    }
    if !uri.contains('?')
        && let Some(query) = find("query")
    {
        uri = format!("{uri}?{}", query.strip_prefix('?').unwrap_or(&query));
    }
    exchange.at_ns = find("time").and_then(|time| common_time(&time));
    exchange.request = Some(Half {
        head: RequestHead {
            correlation_id: find("id").unwrap_or_default(),
            method,
            uri,
            client_ip: settings.client_ip(find("client_ip").as_deref()),
            headers: logged_headers(&log, settings),
        },
        body: Vec::new(),
    });
    exchange.response = find("status").and_then(|status| response(&status));
    Ok(())
}

/// Headers the map names, the usual three, and Caddy's `request.headers`.
fn logged_headers(log: &Value, settings: &DecodeSettings) -> Headers {
    let mut found = Headers::new();
    let names = settings
        .fields
        .mapped_headers()
        .chain(["host", "user-agent", "referer"]);
    for name in names {
        if found.value(name).is_none()
            && let Some(value) = settings.fields.find(&format!("header.{name}"), log)
        {
            found.push(name, &value);
        }
    }
    let logged = log
        .get("request")
        .and_then(|request| request.get("headers"))
        .and_then(Value::as_object);
    for (name, values) in logged.into_iter().flatten() {
        let name = name.to_ascii_lowercase();
        if found.value(&name).is_some() {
            continue;
        }
        match values {
            Value::String(value) => found.push(&name, value),
            Value::Array(values) => found.extend(
                values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|value| (&name, value)),
            ),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(line: &str) -> Result<(RequestHead, Option<u16>), String> {
        let mut exchange = ExchangeParts::new(super::super::Place {
            file: "access.log".into(),
            record: 1,
            offset: 0,
        });
        read_combined(line.as_bytes(), &DecodeSettings::default(), &mut exchange)?;
        let status = exchange.response.map(|response| response.head.status);
        Ok((exchange.request.unwrap().head, status))
    }

    #[test]
    fn combined_lines_of_nginx_and_apache_are_read() {
        let (head, status) = combined(r#"192.0.2.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=\x22c\x22 HTTP/1.0" 200 2326 "http://e.example/" "Mozilla \"x\"""#).unwrap();
        assert_eq!(head.uri, "/a?b=\"c\"");
        assert_eq!(head.client_ip, "192.0.2.7");
        assert_eq!(head.headers.value("user-agent"), Some("Mozilla \"x\""));
        assert_eq!(status, Some(200));
        let (head, _) = combined(r#"www.example:80 2001:db8::1 - - [10/Oct/2000:13:55:36 -0700] "POST / HTTP/1.1" 204 - "-" "-" extra"#).unwrap();
        assert_eq!(head.client_ip, "2001:db8::1");
        assert_eq!(head.headers, Headers::from([("host", "www.example:80")]));
        let (head, _) =
            combined(r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "HEAD /x HTTP/1.1" 304 0"#)
                .unwrap();
        assert_eq!(head.method, "HEAD");
    }

    #[test]
    fn the_client_is_an_address_or_the_default() {
        let line = |client: &str| {
            format!(r#"{client} - - [10/Oct/2000:13:55:36 -0700] "GET /a b HTTP/1.0" 200 1"#)
        };
        for (client, ip) in [
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("www.example:443 host.isp.example", "192.0.2.1"),
            ("unix:", "192.0.2.1"),
        ] {
            let (head, _) = combined(&line(client)).unwrap();
            assert_eq!((head.client_ip.as_str(), head.uri.as_str()), (ip, "/a b"));
            assert_eq!(head.headers.len(), 0, "{client}");
        }
    }

    #[test]
    fn what_was_asked_for_comes_before_what_became_of_it() {
        for (line, uri) in [
            (
                r#"{"method":"GET","uri":"/login?next=https://app/home"}"#,
                "/login?next=https://app/home",
            ),
            (r#"{"method":"GET","uri":"https://app/home?a"}"#, "/home?a"),
            (
                r#"{"request":"GET /search?q=1' UNION SELECT x HTTP/1.1"}"#,
                "/search?q=1' UNION SELECT x",
            ),
            (
                r#"{"method":"","request_method":"GET","uri":"/index.php","request_uri":"/s?q=1"}"#,
                "/s?q=1",
            ),
        ] {
            let mut exchange = ExchangeParts::new(super::super::Place {
                file: "access.json".into(),
                record: 1,
                offset: 0,
            });
            read_json(line.as_bytes(), &DecodeSettings::default(), &mut exchange).unwrap();
            let head = exchange.request.unwrap().head;
            assert_eq!((head.method.as_str(), head.uri.as_str()), ("GET", uri));
        }
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        for line in [
            "",
            "hello",
            r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "-" 400 0 "-" "-""#,
            r#"192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03\x01" 400 0 "-" "-""#,
        ] {
            assert!(combined(line).is_err(), "{line}");
        }
    }

    #[test]
    fn times_are_read_in_three_spellings() {
        let at = Some(971_211_336_000_000_000);
        assert_eq!(common_time("10/Oct/2000:13:55:36 -0700"), at);
        assert_eq!(common_time("2000-10-10T20:55:36Z"), at);
        assert_eq!(common_time("971211336.000"), at);
        assert_eq!(common_time("yesterday"), None);
    }
}
