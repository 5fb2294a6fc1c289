//! An HTTP/1 message as it was on the wire, for formats that keep it raw.

use super::parts::STATUSES;
use super::{Half, headers};
use crate::event::{Headers, RequestHead, ResponseHead};

/// Header fields of one message; more is not believable.
const MAX_FIELDS: usize = 1024;

pub(super) fn request(bytes: &[u8]) -> Result<Half<RequestHead>, String> {
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    // The target may hold bytes that are no text, which the parser refuses.
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (line, _) = bytes.split_at(line_end);
    let (method, uri) = request_line(line)?;
    let plain = [b"GET / HTTP/1.1\r".as_slice(), &bytes[line_end..]].concat();
    let body_at = complete(parsed.parse(&plain), "request")?;
    let headers = named(parsed.headers);
    Ok(Half {
        body: body(&headers, &plain[body_at..])?,
        head: RequestHead {
            method,
            uri,
            headers,
            ..RequestHead::default()
        },
    })
}

/// Method and target: what stands before the first and the last space.
pub(super) fn request_line(line: &[u8]) -> Result<(String, String), String> {
    let refuse = || no_request_line(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let first = memchr::memchr(b' ', line).ok_or_else(refuse)?;
    let last = memchr::memrchr(b' ', line).ok_or_else(refuse)?;
    let (method, rest) = line.split_at(first);
    if first == 0 || !method.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse());
    }
    let target = if last > first && line[last + 1..].starts_with(b"HTTP/") {
        &line[first + 1..last]
    } else {
        &rest[1..]
    };
    if target.is_empty() {
        return Err(refuse());
    }
    let target = headers::target(target);
    // A request to a proxy names the whole URL.
    let target = match headers::split_url(&target) {
        Some((scheme, _, path)) if scheme.eq_ignore_ascii_case("http") => path,
        _ => target,
    };
    Ok((headers::text(method), target))
}

/// What is wrong with a line that is none of a request.
pub(super) fn no_request_line(line: &[u8]) -> String {
    let shown = crate::fault::printable(&headers::text(line), 60);
    format!("expected a request line, found {shown:?}")
}

pub(super) fn response(mut bytes: &[u8]) -> Result<Half<ResponseHead>, String> {
    // Interim ones come before the one that counts.
    while bytes.starts_with(b"HTTP/1.1 1") && !bytes.starts_with(b"HTTP/1.1 101") {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            break;
        };
        let Some(next) = bytes
            .get(end + 4..)
            .filter(|rest| rest.starts_with(b"HTTP/"))
        else {
            break;
        };
        bytes = next;
    }
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let body_at = complete(parsed.parse(bytes), "response")?;
    let headers = named(parsed.headers);
    let body = body(&headers, &bytes[body_at..])?;
    let status = parsed.code.filter(|status| STATUSES.contains(status));
    let status = status.ok_or("expected a status from 100 to 999")?;
    Ok(Half::response(status, headers, body))
}

fn complete(parsed: httparse::Result<usize>, what: &str) -> Result<usize, String> {
    match parsed {
        Ok(httparse::Status::Complete(at)) => Ok(at),
        Ok(httparse::Status::Partial) => Err(format!(
            "expected an HTTP/1 {what}, found one that ends within its headers"
        )),
        Err(error) => Err(format!("expected an HTTP/1 {what}: {error}")),
    }
}

fn named(fields: &[httparse::Header<'_>]) -> Headers {
    fields
        .iter()
        .map(|field| (field.name.to_owned(), headers::text(field.value)))
        .collect()
}

/// The body without its transfer coding; what is short stays short.
fn body(headers: &Headers, rest: &[u8]) -> Result<Vec<u8>, String> {
    let chunked = headers
        .value("transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    if chunked {
        return unchunked(rest);
    }
    let length = headers
        .value("content-length")
        .and_then(|length| length.trim().parse::<usize>().ok());
    Ok(match length {
        Some(length) if length < rest.len() => rest[..length].to_vec(),
        _ => rest.to_vec(),
    })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while !rest.is_empty() {
        match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((_, 0))) => break,
            Ok(httparse::Status::Complete((at, size))) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let data = rest.get(at..).unwrap_or_default();
                let taken = size.min(data.len());
                body.extend_from_slice(&data[..taken]);
                rest = data[taken..]
                    .strip_prefix(b"\r\n")
                    .unwrap_or(&data[taken..]);
            }
            // The capture ends within a chunk's size.
            Ok(httparse::Status::Partial) => break,
            Err(_invalid) => {
                return Err("expected a chunked body, found a chunk without a size".to_owned());
            }
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_sent() {
        let raw = request(b"POST /a?b=c d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").unwrap();
        assert_eq!(
            (raw.head.method.as_str(), raw.head.uri.as_str()),
            ("POST", "/a?b=c d")
        );
        assert_eq!(raw.body, b"abc");
        let raw = request(b"GET http://h.example/x HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(raw.head.uri, "/x");
        let raw = response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nhi there").unwrap();
        assert_eq!((raw.head.status, raw.body.as_slice()), (404, &b"hi"[..]));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [
            &b""[..],
            b"GET",
            b"GET / HTTP/1.1\r\nHost: h",
            b"\x16\x03\x01\x02\x00",
            b" / HTTP/1.1\r\n\r\n",
        ] {
            assert!(request(bytes).is_err(), "{bytes:?}");
        }
        assert!(response(b"HTTP/1.1 abc\r\n\r\n").is_err());
    }

    #[test]
    fn interim_responses_are_not_the_response() {
        let raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
        let found = response(raw).unwrap();
        assert_eq!(
            (found.head.status, found.body.as_slice()),
            (201, b"ok".as_slice())
        );
        let alone = response(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        assert_eq!(alone.head.status, 100);
    }
}
