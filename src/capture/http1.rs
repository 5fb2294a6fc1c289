//! An HTTP/1 message as it was on the wire, for formats that keep it raw.

use super::parts::STATUSES;
use super::{Half, Remark, headers};
use crate::event::{Headers, RequestHead, ResponseHead};

/// Header fields of one message; more is not believable.
const MAX_FIELDS: usize = 1024;

/// A message, and what its framing says.
#[derive(Debug)]
pub(super) struct Message<H> {
    pub(super) half: Half<H>,
    pub(super) remarks: Vec<Remark>,
    /// Where the bytes behind the message begin, if there are any but blank ones.
    pub(super) left_over: Option<usize>,
    /// Its body goes on as far as its bytes go: nothing says where it ends.
    pub(super) is_open_ended: bool,
}

impl<H> Message<H> {
    fn new(head: H, framed: Framed) -> Self {
        Self {
            half: Half {
                head,
                body: framed.body,
            },
            remarks: framed.remarks,
            left_over: framed.left_over,
            is_open_ended: framed.is_open_ended,
        }
    }
}

/// One that was not read from bytes.
impl<H> From<Half<H>> for Message<H> {
    fn from(half: Half<H>) -> Self {
        Self {
            half,
            remarks: Vec::new(),
            left_over: None,
            is_open_ended: false,
        }
    }
}

pub(super) fn request(bytes: &[u8]) -> Result<Message<RequestHead>, String> {
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    // The target may hold bytes that are no text, which the parser refuses.
    let line_end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let (line, _) = bytes.split_at(line_end);
    let (method, uri) = request_line(line)?;
    let plain = [PLAIN_LINE, &bytes[line_end..]].concat();
    let body_at = complete(parsed.parse(&plain), "request")?;
    let body_at = line_end + (body_at - PLAIN_LINE.len());
    let mut headers = named(parsed.headers);
    if headers.value("host").is_none()
        && let Some(authority) = authority(line)
    {
        headers.prepend("host", &authority);
    }
    // A request that does not say how long its body is has none.
    let framed = Framed::of(&headers, (bytes, body_at), Unsaid::NoBody);
    let head = RequestHead {
        method,
        uri,
        headers,
        ..RequestHead::default()
    };
    Ok(Message::new(head, framed))
}

/// Stands for any request line where headers are parsed.
const PLAIN_LINE: &[u8] = b"GET / HTTP/1.1\r";

/// Method and target: what stands before the first and the last space.
pub(super) fn request_line(line: &[u8]) -> Result<(String, String), String> {
    let (method, target) = words(line).ok_or_else(|| no_request_line(line))?;
    let target = headers::target(target);
    // A request to a proxy names the whole URL.
    let target = match headers::split_url(&target) {
        Some((scheme, _, path)) if is_web(scheme) => path,
        _ => target,
    };
    Ok((headers::text(method), target))
}

/// Method and target in the bytes of a request line. Blanks around the target
/// are no part of it.
fn words(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii_end();
    let first = memchr::memchr(b' ', line)?;
    let last = memchr::memrchr(b' ', line)?;
    let (method, rest) = line.split_at(first);
    if first == 0 || !method.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let target = if last > first && line[last + 1..].starts_with(b"HTTP/") {
        &line[first..last]
    } else {
        rest
    };
    let target = target.trim_ascii();
    (!target.is_empty()).then_some((method, target))
}

fn is_web(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// The authority of a whole URL in a request line.
pub(super) fn authority(line: &[u8]) -> Option<String> {
    let (_, target) = words(line)?;
    let target = headers::target(target);
    let (scheme, authority, _) = headers::split_url(&target)?;
    (is_web(scheme) && !authority.is_empty()).then(|| authority.to_owned())
}

/// What is wrong with a line that is none of a request.
pub(super) fn no_request_line(line: &[u8]) -> String {
    let shown = crate::fault::printable(&headers::text(line), 60);
    format!("expected a request line, found {shown:?}")
}

/// A response to a request of this method, where that is known.
pub(super) fn response(
    bytes: &[u8],
    method: Option<&str>,
) -> Result<Message<ResponseHead>, String> {
    let mut message_at = 0;
    loop {
        let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        let message = bytes.get(message_at..).unwrap_or_default();
        let body_at = message_at + complete(parsed.parse(message), "response")?;
        let status = parsed.code.filter(|status| STATUSES.contains(status));
        let status = status.ok_or("expected a status from 100 to 999")?;
        let rest = bytes.get(body_at..).unwrap_or_default();
        // Interim ones come before the one that counts.
        if is_interim(status) && rest.starts_with(b"HTTP/") {
            message_at = body_at;
            continue;
        }
        let headers = named(parsed.headers);
        let has_none = matches!(status, 100..=199 | 204 | 304)
            || method.is_some_and(|method| method == "HEAD")
            || method.is_some_and(|method| method == "CONNECT" && status < 300);
        let unsaid = if has_none {
            Unsaid::Never
        } else {
            Unsaid::ToTheEnd
        };
        let mut framed = Framed::of(&headers, (bytes, body_at), unsaid);
        if message_at > 0 {
            framed.remarks.push(Remark::PartsLeftOut);
        }
        let head = ResponseHead {
            status,
            headers,
            ..ResponseHead::default()
        };
        return Ok(Message::new(head, framed));
    }
}

pub(super) const fn is_interim(status: u16) -> bool {
    matches!(status, 100 | 102..=199)
}

/// Whether all that is there are interim responses: the one that counts is to come.
pub(super) fn is_only_interim(message: &[u8]) -> bool {
    let starts = message.starts_with(b"HTTP/1.1 1") || message.starts_with(b"HTTP/1.0 1");
    starts
        && response(message, None)
            .is_ok_and(|read| is_interim(read.half.head.status) && read.left_over.is_none())
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

/// The body of a message that does not say how long it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsaid {
    NoBody,
    ToTheEnd,
    /// It has none whatever it says, as the answer to HEAD.
    Never,
}

/// What a message says of its length.
enum Length {
    Unsaid,
    Bytes(usize),
    Chunked,
    /// Not to be told: two lengths, no number, or a coding that nobody knows.
    Unclear,
}

impl Length {
    fn of(headers: &Headers) -> Self {
        let list = |name: &'static str| {
            let fields = headers.iter();
            let fields = fields.filter(move |(have, _)| have.eq_ignore_ascii_case(name));
            fields
                .flat_map(|(_, value)| value.split(','))
                .map(str::trim)
        };
        let is_coding =
            |coding: &&str| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity");
        let mut codings = list("transfer-encoding").filter(is_coding);
        let mut lengths = list("content-length");
        match (codings.next(), codings.next(), lengths.next()) {
            (Some(coding), None, None) if coding.eq_ignore_ascii_case("chunked") => Self::Chunked,
            (Some(_), ..) => Self::Unclear,
            (None, _, None) => Self::Unsaid,
            (None, _, Some(length)) => {
                let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
                match length.parse() {
                    Ok(bytes) if is_number && lengths.all(|other| other == length) => {
                        Self::Bytes(bytes)
                    }
                    _ => Self::Unclear,
                }
            }
        }
    }
}

/// The bytes behind a head: the body without its transfer coding, and what is no
/// part of it.
#[derive(Default)]
struct Framed {
    body: Vec<u8>,
    remarks: Vec<Remark>,
    left_over: Option<usize>,
    is_open_ended: bool,
}

impl Framed {
    fn of(headers: &Headers, (bytes, body_at): (&[u8], usize), unsaid: Unsaid) -> Self {
        let mut framed = Self::default();
        let rest = bytes.get(body_at..).unwrap_or_default();
        let length = match Length::of(headers) {
            _ if unsaid == Unsaid::Never => Length::Bytes(0),
            Length::Unsaid if unsaid == Unsaid::NoBody => Length::Bytes(0),
            length => length,
        };
        let taken = match length {
            Length::Bytes(length) => {
                let taken = length.min(rest.len());
                framed.body.extend_from_slice(&rest[..taken]);
                if taken < length {
                    framed.remarks.push(if taken == 0 {
                        Remark::BodyMissing
                    } else {
                        Remark::BodyTruncated
                    });
                }
                taken
            }
            Length::Chunked => framed.unchunk(rest),
            Length::Unsaid | Length::Unclear => {
                framed.is_open_ended = true;
                framed.body.extend_from_slice(rest);
                if matches!(length, Length::Unclear) {
                    framed.remarks.push(Remark::FramingUnclear);
                }
                rest.len()
            }
        };
        // Blank ones may be what a separator or an editor put there.
        let is_blank = rest[taken..].iter().all(u8::is_ascii_whitespace);
        framed.left_over = (!is_blank).then_some(body_at + taken);
        framed
    }

    /// Takes the chunks, and says how many bytes they and their sizes are.
    fn unchunk(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some((size, data_at)) = chunk_size(rest, at) else {
                // It ends within a size, or there is none.
                self.remarks.push(Remark::BodyTruncated);
                let is_cut = !rest[at..].contains(&b'\n') && rest.len() - at <= SIZE_BYTES;
                return if is_cut { rest.len() } else { at };
            };
            if size == 0 {
                return self.trailers(rest, data_at);
            }
            let data = &rest[data_at..];
            let taken = size.min(data.len());
            self.body.extend_from_slice(&data[..taken]);
            at = data_at + taken;
            if taken < size {
                self.remarks.push(Remark::BodyTruncated);
                return at;
            }
            match line_end(&rest[at..]) {
                Some(end) => at += end,
                None => {
                    self.remarks.push(Remark::BodyTruncated);
                    return if rest[at..] == *b"\r" { rest.len() } else { at };
                }
            }
        }
    }

    /// What stands behind the last chunk, up to an empty line.
    fn trailers(&mut self, rest: &[u8], mut at: usize) -> usize {
        let begin = at;
        while let Some(end) = memchr::memchr(b'\n', &rest[at..]) {
            let line = rest[at..at + end].trim_ascii();
            if line.is_empty() {
                if at > begin {
                    self.remarks.push(Remark::PartsLeftOut);
                }
                return at + end + 1;
            }
            if !line.contains(&b':') {
                break;
            }
            at += end + 1;
        }
        // No trailers: what is there is no part of the message.
        begin
    }
}

/// The bytes of the end of a line at the beginning.
fn line_end(rest: &[u8]) -> Option<usize> {
    match rest {
        [b'\r', b'\n', ..] => Some(2),
        [b'\n', ..] => Some(1),
        _ => None,
    }
}

/// Bytes of a chunk's size and its extensions; more is not believable.
const SIZE_BYTES: usize = 1 << 10;

/// The size of the chunk that begins there, and where its bytes begin.
fn chunk_size(rest: &[u8], at: usize) -> Option<(usize, usize)> {
    let line = rest.get(at..)?;
    let line = &line[..line.len().min(SIZE_BYTES)];
    let end = memchr::memchr(b'\n', line)?;
    let size = line[..end].split(|byte| *byte == b';').next()?.trim_ascii();
    let is_size = (1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(size).ok().filter(|_| is_size)?;
    Some((usize::from_str_radix(size, 16).ok()?, at + end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(message: &str) -> (String, Vec<Remark>, Option<&str>) {
        let read = request(message.as_bytes()).unwrap();
        let body = String::from_utf8(read.half.body).unwrap();
        let left = read.left_over.map(|at| &message[at..]);
        (body, read.remarks, left)
    }

    #[test]
    fn messages_are_read_as_they_were_sent() {
        let raw = request(b"POST /a?b=c d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").unwrap();
        assert_eq!(
            (raw.half.head.method.as_str(), raw.half.head.uri.as_str()),
            ("POST", "/a?b=c d")
        );
        assert_eq!(raw.half.body, b"abc");
        for (line, uri) in [
            ("GET http://h.example/x HTTP/1.0", "/x"),
            ("GET HTTPS://h.example/x?y HTTP/1.1", "/x?y"),
            ("GET ftp://h.example/x HTTP/1.1", "ftp://h.example/x"),
            ("GET /x HTTP/1.1 \t", "/x"),
            ("GET  /x  HTTP/1.1", "/x"),
            ("GET /x ", "/x"),
        ] {
            let raw = request(format!("{line}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(raw.half.head.uri, uri, "{line}");
            let host = raw.half.head.headers.value("host");
            assert_eq!(
                host.is_some(),
                !uri.contains("ftp") && line.contains("h.example")
            );
        }
        let raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nhi there";
        let raw = response(raw, None).unwrap();
        assert_eq!(
            (raw.half.head.status, raw.half.body.as_slice()),
            (404, &b"hi"[..])
        );
        assert_eq!(raw.left_over, Some(47));
    }

    type Case<'a> = (&'a str, &'a str, &'a str, &'a [Remark], Option<&'a str>);

    fn check((fields, rest, body, remarks, left): Case<'_>) {
        let line = if fields.is_empty() { "" } else { "\n" };
        let message = format!("POST / HTTP/1.1\r\n{fields}{line}\r\n{rest}");
        let expected = (body.to_owned(), remarks.to_vec(), left);
        assert_eq!(body_of(&message), expected, "{message:?}");
    }

    #[test]
    fn bodies_are_as_long_as_their_framing_says() {
        use Remark::{BodyMissing, BodyTruncated, FramingUnclear};
        let cases: &[Case<'_>] = &[
            ("", "", "", &[][..], None),
            ("", "\r\n \n", "", &[], None),
            ("", "abc", "", &[], Some("abc")),
            ("Content-Length: 3", "abc\n", "abc", &[], None),
            ("Content-Length: 3", "abcd", "abc", &[], Some("d")),
            ("Content-Length: 3", "ab", "ab", &[BodyTruncated], None),
            ("Content-Length: 3", "", "", &[BodyMissing], None),
            (
                "Content-Length: 3, 3\nContent-Length: 3",
                "abc",
                "abc",
                &[],
                None,
            ),
            (
                "Content-Length: 3\nContent-Length: 5",
                "abcde",
                "abcde",
                &[FramingUnclear],
                None,
            ),
            ("Content-Length: +3", "abc", "abc", &[FramingUnclear], None),
            ("Content-Length: 0x3", "abc", "abc", &[FramingUnclear], None),
            ("Content-Length:", "abc", "abc", &[FramingUnclear], None),
            (
                "Transfer-Encoding: xchunked",
                "abc",
                "abc",
                &[FramingUnclear],
                None,
            ),
            (
                "Transfer-Encoding: chunked, gzip",
                "abc",
                "abc",
                &[FramingUnclear],
                None,
            ),
            (
                "Transfer-Encoding: chunked\nContent-Length: 3",
                "abc",
                "abc",
                &[FramingUnclear],
                None,
            ),
            (
                "Transfer-Encoding: identity\nTransfer-Encoding: Chunked",
                "1\r\na\r\n0\r\n\r\n",
                "a",
                &[],
                None,
            ),
        ];
        for case in cases {
            check(*case);
        }
    }

    #[test]
    fn chunks_are_put_together_and_what_is_none_is_left_over() {
        use Remark::{BodyTruncated, PartsLeftOut};
        const CHUNKED: &str = "Transfer-Encoding: chunked";
        let cases: &[Case<'_>] = &[
            (CHUNKED, "1;x=y\na\n0\n\n", "a", &[], None),
            (CHUNKED, "1\r\na\r\n0\r\n\r\n1 b", "a", &[], Some("1 b")),
            (
                CHUNKED,
                "1\r\na\r\n0\r\nX: y\r\n\r\n",
                "a",
                &[PartsLeftOut],
                None,
            ),
            (
                CHUNKED,
                "1\r\na\r\n0\r\n1 b 1\nGET",
                "a",
                &[],
                Some("1 b 1\nGET"),
            ),
            (CHUNKED, "5\r\nab", "ab", &[BodyTruncated], None),
            (CHUNKED, "2\r\nab\r\n", "ab", &[BodyTruncated], None),
            (CHUNKED, "2\r\nab\r\n3", "ab", &[BodyTruncated], None),
            (
                CHUNKED,
                "2\r\nab\r\nzz\r\nc",
                "ab",
                &[BodyTruncated],
                Some("zz\r\nc"),
            ),
            (
                CHUNKED,
                "2\r\nabc\r\n0\r\n\r\n",
                "ab",
                &[BodyTruncated],
                Some("c\r\n0\r\n\r\n"),
            ),
            (
                CHUNKED,
                "ffffffffffffffff\r\nab",
                "ab",
                &[BodyTruncated],
                None,
            ),
        ];
        for case in cases {
            check(*case);
        }
    }

    /// What a response has without a length hangs on its request and its status.
    #[test]
    fn responses_without_a_body_have_none() {
        let read = |head: &str, method| {
            let raw = format!("{head}\r\n\r\nabc");
            let read = response(raw.as_bytes(), method).unwrap();
            (read.half.body.len(), read.left_over.is_some())
        };
        assert_eq!(read("HTTP/1.1 200 OK", Some("GET")), (3, false));
        assert_eq!(
            read("HTTP/1.1 200 OK\r\nContent-Length: 9", Some("HEAD")),
            (0, true)
        );
        assert_eq!(read("HTTP/1.1 200 OK", Some("CONNECT")), (0, true));
        for status in [101, 204, 304] {
            assert_eq!(read(&format!("HTTP/1.1 {status} X"), None), (0, true));
        }
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
        assert!(response(b"HTTP/1.1 abc\r\n\r\n", None).is_err());
    }

    #[test]
    fn interim_responses_are_not_the_response() {
        let raw = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
        for raw in [raw.to_owned(), raw.replace('\r', "")] {
            let found = response(raw.as_bytes(), None).unwrap();
            assert_eq!(
                (found.half.head.status, found.half.body.as_slice()),
                (201, &b"ok"[..])
            );
            assert_eq!(found.remarks, [Remark::PartsLeftOut]);
            assert!(!is_only_interim(raw.as_bytes()));
        }
        let alone = b"HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(response(alone, None).unwrap().half.head.status, 100);
        assert!(is_only_interim(alone));
        for other in [
            "HTTP/1.1 101 X\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nx",
            "HTTP/1.1 100",
        ] {
            assert!(!is_only_interim(other.as_bytes()), "{other}");
        }
    }
}
