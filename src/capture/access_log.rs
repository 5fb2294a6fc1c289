//! Access logs as lines of the combined format, or the common one.
//!
//! Lossy by nature: of a request's headers only those that were logged, no
//! bodies. The report says so. A line is read only if all of it is understood:
//! one that was cut, or two that were joined, must not pass for another request.

use std::net::IpAddr;

use memchr::{memchr, memchr2, memmem, memrchr};

use super::assemble::assemble;
use super::format::{Read, Reader};
use super::frames::Lines;
use super::parts::STATUSES;
use super::{DecodeSettings, ExchangeParts, Format, Half, Remark, headers, http1, json_log};
use crate::event::{Headers, RequestHead, ResponseHead, bare_ip};
use crate::time::nanoseconds;

pub(super) static READER: Reader = Reader {
    title: "Combined access log",
    loses: Some("at most the headers host, referer and user-agent; no bodies; no response headers"),
    recognises: |head| {
        let is_combined = |line| Line::parse(without_nuls(line)).is_ok();
        // Objects of a program's own may stand before the lines of its requests.
        let is_other = || head.has("phase") || head.lines().any(json_log::is_request);
        head.lines().any(is_combined) && !(head.is_json() && is_other())
    },
    frames: |stream| assemble(Lines::new(stream), None, Format::AccessLog),
    read: Read::Record(read),
};

const FORM: &str = "expected a line of the combined log format: address - user [time] \"request\" status size \"referer\" \"agent\"";
const CUT: &str = "expected a line of the combined log format, found one that is cut, or joined with another: its address, user and time are not understood";
const BEHIND: &str = "expected \"referer\" \"agent\" behind the size, found other fields there; write the log in the combined format, or as JSON";
const TWO: &str = "expected one line of the combined log format, found two that are joined";
const UNCLOSED: &str = "expected a quote and a blank at the end of each quoted field, found a line that is cut or joined with another";

/// The parts of a line, with their escapes.
struct Line<'a> {
    host: Option<&'a [u8]>,
    client: &'a [u8],
    time: &'a [u8],
    request: &'a [u8],
    status: &'a [u8],
    referer: &'a [u8],
    agent: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, &'static str> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if memchr2(b'\r', 0, line).is_some() {
            return Err(
                "expected a line of text that ends in a line feed, found a carriage return or a NUL byte within it",
            );
        }
        let end = memmem::find(line, b"] \"")
            .or_else(|| end_of_time(line))
            .ok_or(FORM)?;
        let begin = memrchr(b'[', &line[..end]).ok_or(FORM)?;
        let time = &line[begin + 1..end];
        if memchr(b'"', time).is_some() {
            return Err(CUT);
        }
        let (host, client) = client(&line[..begin])?;
        let request = blanks(&line[end + 1..]).ok_or(FORM)?;
        let (request, rest) = quoted(request).ok_or(UNCLOSED)?;
        let (status, rest) = word(rest).ok_or(FORM)?;
        let (size, rest) = word(rest).ok_or(FORM)?;
        let is_number = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        let is_status = status == b"-" || status.len() == 3 && is_number(status);
        if !is_status || size != b"-" && !is_number(size) {
            return Err(FORM);
        }
        let (referer, agent) = behind(rest)?;
        Ok(Self {
            host,
            client,
            time,
            request,
            status,
            referer,
            agent,
        })
    }
}

/// Where the time ends that more than one blank follows.
fn end_of_time(line: &[u8]) -> Option<usize> {
    let mut ends = memchr::memchr_iter(b']', line);
    ends.find(|at| blanks(&line[at + 1..]).is_some_and(|rest| rest.starts_with(b"\"")))
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What stands behind one blank or several.
fn blanks(text: &[u8]) -> Option<&[u8]> {
    let count = text.iter().take_while(|byte| is_blank(**byte)).count();
    (count > 0).then(|| &text[count..])
}

/// Blanks and the word behind them, which may have quotes, and what is left.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = blanks(text)?;
    if text.starts_with(b"\"") {
        return quoted(text);
    }
    let end = memchr2(b' ', b'\t', text).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// What stands between two quotes, and what is left behind them.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            break;
        }
        at += 2;
    }
    let rest = &text[at + 1..];
    (rest.is_empty() || is_blank(rest[0])).then(|| (&text[..at], rest))
}

/// Referer and user agent, which follow the size, and whatever is behind them.
/// Fields between are passed over where nothing else can be meant.
fn behind(mut rest: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let mut texts: [&[u8]; 2] = [b"", b""];
    let (mut quotes, mut words_before, mut in_row) = (0, 0, true);
    let (mut is_bracket, mut are_numbers) = (false, true);
    // Times and sizes that stand behind the common format.
    let is_number = |word: &[u8]| {
        let mut bytes = word.iter();
        word == b"-" || bytes.all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    let rest_of_line = rest;
    while !rest.is_empty() {
        let is_apart = is_blank(rest[0]);
        let field = is_apart.then(|| &rest[1..]).ok_or(UNCLOSED)?;
        if field.starts_with(b"\"") {
            let (text, behind) = quoted(field).ok_or(UNCLOSED)?;
            if is_bracket && memmem::find(text, b" HTTP/").is_some() {
                return Err(TWO);
            }
            if let Some(place) = texts.get_mut(quotes) {
                *place = text;
            }
            quotes += 1;
            rest = behind;
        } else {
            let end = memchr2(b' ', b'\t', field).unwrap_or(field.len());
            let word = &field[..end];
            are_numbers &= is_number(word);
            if memchr(b'"', word).is_some() {
                return Err(UNCLOSED);
            }
            is_bracket = word.ends_with(b"]");
            match quotes {
                0 => words_before += usize::from(!word.is_empty()),
                1 => in_row &= word.is_empty(),
                _ => {}
            }
            rest = &field[end..];
        }
    }
    if begins_a_time(rest_of_line) {
        return Err(TWO);
    }
    match quotes {
        // Anything else may be a referer or an agent without quotes.
        0 if are_numbers => Ok((b"", b"")),
        2 if in_row => Ok((texts[0], texts[1])),
        3.. if in_row && words_before == 0 => Ok((texts[0], texts[1])),
        _ => Err(BEHIND),
    }
}

/// Whether ` - [` or ` [` and a day stand in what is no quoted field: where a
/// line was joined with the beginning of another.
fn begins_a_time(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let end = memchr2(b'"', b'[', rest).unwrap_or(rest.len());
        rest = match rest.get(end..) {
            Some(field @ [b'"', ..]) => quoted(field).map_or(&[], |(_, rest)| rest),
            Some([b'[', day, tens, b'/', ..]) if day.is_ascii_digit() && tens.is_ascii_digit() => {
                return true;
            }
            Some([_, rest @ ..]) => rest,
            Some([]) | None => &[],
        };
    }
    false
}

/// The virtual host and the client, of what stands before the time: the client
/// is the last word before ident and user. Collectors of logs write more
/// words before it.
fn client(before: &[u8]) -> Result<(Option<&[u8]>, &[u8]), &'static str> {
    let words: smallvec::SmallVec<[&[u8]; 8]> = before
        .split(|byte| is_blank(*byte))
        .filter(|word| !word.is_empty())
        .collect();
    let is_list = |at: &usize| words[*at].ends_with(b",");
    // Without ident and user, or with one of them.
    if words.len() < 3 {
        return match words.first() {
            Some(first) => {
                let first = without_file(without_quotes(first, first)?)?;
                is_address(first).then_some((None, first)).ok_or(CUT)
            }
            None => Err(CUT),
        };
    }
    let last = words.len() - 3;
    // Addresses of a list are the client's and those of proxies.
    let first = (0..last).rev().take_while(is_list).last().unwrap_or(last);
    let prefix = &words[..first];
    let client = without_quotes(words[first], words[last])?;
    let client = if prefix.is_empty() {
        without_file(client)?
    } else {
        client
    };
    if is_address(client) || first < last && !is_cut(client) {
        return Ok((host(prefix)?, client));
    }
    // A user's name may have blanks.
    if is_address(words[0])
        && words[1] == b"-"
        && !words[2..].contains(&b"-".as_slice())
        && !words[2..].iter().any(|word| is_address(word))
    {
        return Ok((None, words[0]));
    }
    // A host's name, or a socket's, is no address.
    match prefix {
        _ if is_cut(client) => Err(CUT),
        [] => Ok((None, client)),
        [vhost] if has_port(vhost) => Ok((Some(*vhost), client)),
        _ => Err(CUT),
    }
}

/// The client, or the first of a list of them, without the quotes around.
fn without_quotes<'a>(first: &'a [u8], last: &[u8]) -> Result<&'a [u8], &'static str> {
    let Some(inner) = first.strip_prefix(b"\"") else {
        return if last.ends_with(b"\"") {
            Err(CUT)
        } else {
            Ok(first)
        };
    };
    if !last.ends_with(b"\"") {
        return Err(CUT);
    }
    Ok(inner.strip_suffix(b"\"").unwrap_or(inner))
}

/// An address without the file and the number of the line that grep writes
/// before it. Where a number may be a part of the address, nobody can tell.
fn without_file(word: &[u8]) -> Result<&[u8], &'static str> {
    if is_address(word) {
        return Ok(word);
    }
    let behind = |colon: usize| &word[colon + 1..];
    let mut found = memchr::memchr_iter(b':', word)
        .map(behind)
        .filter(|rest| is_address(rest));
    let Some(address) = found.next() else {
        return Ok(word);
    };
    let number = memchr(b':', address).map(|colon| address.split_at(colon));
    let is_unclear = number.is_some_and(|(number, rest)| {
        number.iter().all(u8::is_ascii_digit) && is_address(&rest[1..])
    });
    if is_unclear || memchr2(b'[', b'"', &word[..word.len() - address.len()]).is_some() {
        return Err(CUT);
    }
    Ok(address)
}

fn is_address(word: &[u8]) -> bool {
    let word = word.split(|byte| *byte == b',').next().unwrap_or(word);
    let may_be = word
        .first()
        .is_some_and(|first| first.is_ascii_hexdigit() || b":[".contains(first));
    may_be && std::str::from_utf8(word).is_ok_and(|word| bare_ip(word).parse::<IpAddr>().is_ok())
}

/// Whether a word that is no address is a piece of one.
fn is_cut(word: &[u8]) -> bool {
    let is_of_4 = |byte: &u8| byte.is_ascii_digit() || b".,".contains(byte);
    let is_of_6 = |byte: &u8| byte.is_ascii_hexdigit() || b":,".contains(byte);
    word.iter().all(is_of_4) || memchr(b':', word).is_some() && word.iter().all(is_of_6)
}

fn has_port(word: &[u8]) -> bool {
    let colon = memrchr(b':', word).filter(|at| *at > 0);
    let port = colon.and_then(|at| word.get(at + 1..)).unwrap_or_default();
    !port.is_empty() && port.iter().all(u8::is_ascii_digit)
}

/// The virtual host that Apache writes before the client, if the words before
/// the client are one. They must not be a line that was cut.
fn host<'a>(prefix: &[&'a [u8]]) -> Result<Option<&'a [u8]>, &'static str> {
    let is_like = |word: &[u8]| is_address(word) || memchr(b'.', word).is_some() && is_cut(word);
    let is_line = |two: &[&[u8]]| is_like(two[0]) && two[1] == b"-";
    // Syslog's own fields have quotes, as in x="1".
    let is_quoted = |word: &[u8]| {
        word.starts_with(b"\"") || word.ends_with(b"\"") && memmem::find(word, b"=\"").is_none()
    };
    let is_of_line = |word: &&[u8]| begins_a_time(word) || is_quoted(word);
    if prefix.windows(2).any(is_line) || prefix.iter().any(is_of_line) {
        return Err(CUT);
    }
    let [vhost] = prefix else {
        return Ok(None);
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:".contains(byte);
    let is_host = |host: &[u8]| {
        let name = host.split(|byte| *byte == b':').next().unwrap_or(host);
        let is_alone = name.len() == host.len() && memchr(b'.', host).is_some();
        let has_port = has_port(host) && memrchr(b':', host) == Some(name.len());
        (is_alone || has_port) && host.iter().all(is_name) && !is_address(host)
    };
    // The file and the line's number may stand before it.
    let files = memchr::memchr_iter(b':', vhost).map(|colon| &vhost[colon + 1..]);
    Ok(std::iter::once(*vhost)
        .chain(files)
        .find(|host| is_host(host)))
}

/// A line without the NUL bytes before it: a log that was emptied while its
/// writer had it open has as many as there were bytes.
fn without_nuls(line: &[u8]) -> &[u8] {
    let begin = line.iter().position(|byte| *byte != 0);
    &line[begin.unwrap_or(line.len())..]
}

/// The same, with a word about them.
pub(super) fn text_of<'a>(line: &'a [u8], exchange: &mut ExchangeParts) -> &'a [u8] {
    if line.first() != Some(&0) {
        return line;
    }
    exchange.remark(Remark::NulBytes);
    without_nuls(line)
}

/// Reads a line of the combined format.
pub(super) fn read(
    line: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let found = Line::parse(text_of(line, exchange))?;
    let request = field(found.request).ok_or("expected a request line, found \"-\"")?;
    let (method, uri) = http1::request_line(&request)?;
    // What else may stand there, of a handshake say, is no method.
    let is_method = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if !method.bytes().all(is_method) {
        return Err(http1::no_request_line(&request));
    }
    let mut fields = Headers::new();
    // A proxy is asked for a whole URL, and its host is the one that counts.
    let asked = http1::authority(&request);
    let host = asked.as_deref().map(str::as_bytes).or(found.host);
    for (name, text) in [
        ("host", host.unwrap_or_default()),
        ("referer", found.referer),
        ("user-agent", found.agent),
    ] {
        if let Some(value) = field(text) {
            fields.push(name, &headers::text(&value));
        }
    }
    exchange.at_ns = common_time(&headers::text(found.time));
    let client = headers::text(found.client);
    exchange.request = Some(Half {
        head: RequestHead {
            method,
            uri,
            client_ip: exchange.client_ip(settings, Some(&client)),
            headers: fields,
            ..RequestHead::default()
        },
        body: Vec::new(),
    });
    exchange.response = response(&headers::text(found.status));
    Ok(())
}

/// A response with this status; some write it with a fraction or its reason.
pub(super) fn response(status: &str) -> Option<Half<ResponseHead>> {
    let number = status.split(' ').next().unwrap_or_default();
    let whole = number.strip_suffix(".0").unwrap_or(number);
    let status = whole.parse().ok()?;
    let is_one = STATUSES.contains(&status);
    is_one.then(|| Half::response(status, Headers::new(), Vec::new()))
}

/// A field without its escapes; nothing where the log has `-`.
fn field(text: &[u8]) -> Option<Vec<u8>> {
    let text = unescape(text);
    (text != b"-" && !text.is_empty()).then_some(text)
}

/// The byte of an escape's two digits.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// What nginx (`\x22`) and Apache (`\"`, `\n`, `\xhh`) write for bytes that
/// would break the line.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let tail = &rest[at + 1..];
        rest = tail;
        match tail {
            [b'x', digits @ ..] => {
                if let Some(byte) = hex(digits) {
                    out.push(byte);
                    rest = &tail[3..];
                } else {
                    out.push(b'\\');
                }
            }
            [b'u', ..] => match character(tail) {
                Some((character, size)) => {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = &tail[size..];
                }
                None => out.push(b'\\'),
            },
            [known, ..] => {
                let byte = match known {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'v' => 0x0b,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'\\' | b'"' | b'/' => *known,
                    // Nobody's escape: the request had the backslash.
                    _ => {
                        out.push(b'\\');
                        continue;
                    }
                };
                out.push(byte);
                rest = &tail[1..];
            }
            [] => out.push(b'\\'),
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The character of `uXXXX`, or of two such escapes that are a pair, and how
/// many bytes it takes.
fn character(text: &[u8]) -> Option<(char, usize)> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"u")?;
        Some(u16::from_be_bytes([hex(digits)?, hex(digits.get(2..)?)?]))
    };
    let first = unit(text)?;
    let second = text
        .get(5..)
        .and_then(|rest| unit(rest.strip_prefix(b"\\")?));
    let units = [first, second.unwrap_or_default()];
    let character = char::decode_utf16(units).next()?.ok()?;
    Some((character, if character.len_utf16() == 2 { 11 } else { 5 }))
}

/// `10/Oct/2000:13:55:36 -0700`, or ISO 8601, or a number since 1970 of seconds,
/// milliseconds, microseconds or nanoseconds. A time without a zone is UTC. A
/// time of 0 is none.
pub(super) fn common_time(text: &str) -> Option<i64> {
    let time = civil(text).or_else(|| since_1970(text))?;
    (time > 0).then_some(time)
}

fn civil(text: &str) -> Option<i64> {
    const COMMON: &str = "%d/%b/%Y:%H:%M:%S";
    let utc = jiff::tz::TimeZone::UTC;
    let at = if text.get(2..3) == Some("/") {
        let zoned = jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", text);
        let zoned = zoned.and_then(|parsed| parsed.to_timestamp());
        zoned.or_else(|_no_zone| {
            let local = jiff::civil::DateTime::strptime(COMMON, text)?;
            Ok::<_, jiff::Error>(local.to_zoned(utc)?.timestamp())
        })
    } else if let Some(at) = nanoseconds(text) {
        return Some(at);
    } else {
        let local = text.parse::<jiff::civil::DateTime>();
        local.and_then(|local| Ok(local.to_zoned(utc)?.timestamp()))
    };
    i64::try_from(at.ok()?.as_nanosecond()).ok()
}

/// A number of seconds or of a smaller unit: which one, its size tells.
fn since_1970(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i64 = whole.parse().ok()?;
    let unit: i64 = match number {
        ..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let digits: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    number
        .checked_mul(unit)?
        .checked_add(digits / (1_000_000_000 / unit))
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
