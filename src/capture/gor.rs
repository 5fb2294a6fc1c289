//! `GoReplay` files: raw HTTP/1 messages between separators.
//!
//! A record's first line is `<type> <id> <nanoseconds> [<latency>]`; type 1 is
//! a request, 2 production's response, 3 the response to an earlier replay.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem::{self, Finder};

use super::assemble::{RecordRole, Roles, SameId, assemble};
use super::format::{Read, Reader};
use super::http1::{self, Message};
use super::parts::LeftOver;
use super::progress::Part;
use super::stream::{Cut, Cutter, Stream};
use super::{DecodeSettings, ExchangeParts, Format, Piece, Remark};

/// The line that stands between records: three monkeys.
const MONKEYS: &[u8] = "🐵🙈🙉".as_bytes();
/// Blanks behind them, as editors leave some.
const MAX_BLANKS: usize = 16;
/// The longest separator: that line, and the ends of two lines.
const SEPARATOR_BYTES: usize = MONKEYS.len() + MAX_BLANKS + 4;

pub(super) static READER: Reader = Reader {
    title: "GoReplay",
    loses: Some("no client address"),
    recognises: |head| {
        let mut lines = head.text.split(|byte| *byte == b'\n');
        let begins = lines.next().and_then(Header::parse);
        // What is left of a longer recording begins with any bytes.
        let is_separator = |line: &[u8]| line.trim_ascii_end() == MONKEYS;
        begins.is_some_and(|header| header.at_ns.is_some()) || lines.any(is_separator)
    },
    frames: |stream| {
        assemble(
            Separated::new(stream),
            Some(Roles {
                role,
                alike: SameId::InOrder,
            }),
            Format::Gor,
        )
    },
    read: Read::Record(read),
};

/// A record's first line.
struct Header<'a> {
    kind: u8,
    id: &'a [u8],
    /// Nothing where no number stands there: all else can be replayed.
    at_ns: Option<i64>,
}

impl<'a> Header<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Self::of_words(&mut line.split(|byte| *byte == b' '))
    }

    fn of_words(words: &mut dyn Iterator<Item = &'a [u8]>) -> Option<Self> {
        let kind = match words.next()? {
            [kind @ b'1'..=b'3'] => *kind,
            _ => return None,
        };
        // Most are 24 digits; middleware may have given it another.
        let id = words.next()?;
        if id.is_empty() || !id.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let at_ns = words.next().and_then(|at| std::str::from_utf8(at).ok());
        let at_ns = at_ns.and_then(|at| at.parse().ok());
        Some(Self { kind, id, at_ns })
    }
}

fn split(record: &[u8]) -> Option<(Header<'_>, &[u8])> {
    // Joined files may have their marks in the middle, and blank lines between.
    let record = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
    let record = record.trim_ascii_start();
    let end = memchr::memchr(b'\n', record)?;
    let (line, rest) = record.split_at(end);
    Some((Header::parse(line)?, &rest[1..]))
}

fn role(piece: &Piece) -> RecordRole {
    match split(&piece.bytes) {
        Some((Header { kind: b'3', .. }, _)) => RecordRole::Skip(Remark::ReplayedResponse),
        Some((Header { kind: b'2', .. }, message)) if http1::is_only_interim(message) => {
            RecordRole::Skip(Remark::PartsLeftOut)
        }
        Some((header, _)) => {
            let is_last = header.kind != b'1';
            RecordRole::Of {
                id: Bytes::copy_from_slice(header.id),
                part: if is_last {
                    Part::ResponseHead
                } else {
                    Part::RequestHead
                },
                is_last,
            }
        }
        None => RecordRole::Alone,
    }
}

fn read(
    record: &[u8],
    settings: &DecodeSettings,
    exchange: &mut ExchangeParts,
) -> Result<(), String> {
    let (header, message) = split(record).ok_or(
        "expected \"<type> <id> <nanoseconds>\" on the record's first line, found something else",
    )?;
    let message_at = record.len() - message.len();
    if header.kind != b'1' {
        let request = exchange.request.as_ref();
        let method = request.map(|request| request.head.method.as_str());
        let response = unswallowed(http1::response(message, method)?, message.len());
        note(exchange, &response, message_at);
        exchange.response = Some(response.half);
        exchange.response_at_ns = header.at_ns;
        return Ok(());
    }
    let mut request = unswallowed(http1::request(message)?, message.len());
    note(exchange, &request, message_at);
    let address = request.half.head.headers.value("x-real-ip");
    request.half.head.client_ip =
        exchange.client_ip(settings, address.filter(|address| !address.is_empty()));
    exchange.at_ns = header.at_ns;
    exchange.own_id = Some(super::headers::text(header.id));
    exchange.request = Some(request.half);
    Ok(())
}

fn note<H>(exchange: &mut ExchangeParts, message: &Message<H>, message_at: usize) {
    for remark in &message.remarks {
        exchange.remark(*remark);
    }
    exchange.left_over = message.left_over.map(|at| LeftOver {
        at: message_at + at,
        why: "expected a separator (a line of 🐵🙈🙉) behind the message, found more bytes: a damaged record, or one whose separator or length is wrong".to_owned(),
    });
}

/// The message without a record that stands in its body, where nothing says how long
/// the body is and a separator is missing.
fn unswallowed<H>(mut message: Message<H>, size: usize) -> Message<H> {
    let body = &mut message.half.body;
    if message.is_open_ended
        && let Some(at) = record_in(body)
    {
        message.left_over = Some(size - (body.len() - at));
        body.truncate(at);
    }
    message
}

/// Where a record or a separator begins in these bytes: a record at the end of a line,
/// before the first line of a message.
fn record_in(bytes: &[u8]) -> Option<usize> {
    let monkeys = memmem::find(bytes, MONKEYS);
    let bytes = &bytes[..monkeys.unwrap_or(bytes.len())];
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        let (line, next) = (&bytes[from..end], &bytes[end + 1..]);
        let next = next.split(|byte| *byte == b'\n').next();
        if next.is_some_and(begins_message) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let spaces = memchr::memrchr_iter(b' ', line).take(3);
            let mut begins = spaces.filter_map(|space| {
                let begin = space.checked_sub(1)?;
                Header::parse(&line[begin..])
                    .filter(|header| begin == 0 || header.at_ns.is_some())
                    .map(|_| begin)
            });
            if let Some(begin) = begins.next() {
                return Some(from + begin);
            }
        }
        from = end + 1;
    }
    monkeys
}

/// Whether this is the first line of a message: `HTTP/...`, or a method and a target.
fn begins_message(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace);
    let first = words.next().unwrap_or_default();
    let is_method = !first.is_empty() && first.iter().all(u8::is_ascii_uppercase);
    let target = words.next().unwrap_or_default();
    let is_target = target.starts_with(b"/") || target == b"*" || target.starts_with(b"http");
    first.starts_with(b"HTTP/")
        || is_method && is_target
        || line.trim_ascii_end().ends_with(b" HTTP/1.1")
        || line.trim_ascii_end().ends_with(b" HTTP/1.0")
}

/// Records between separators. The last one needs none behind it.
struct Separated {
    stream: Stream,
    monkeys: Finder<'static>,
    /// Bytes read and not yet handed on; records share them.
    held: BytesMut,
    /// Bytes of a record too long to keep, already thrown away.
    skipped: usize,
    /// Everything was read.
    is_end: bool,
}

/// Bytes of a record, and of the separator behind it.
struct Ends {
    record: usize,
    separator: usize,
}

impl Separated {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            monkeys: Finder::new(MONKEYS),
            held: BytesMut::new(),
            skipped: 0,
            is_end: false,
        }
    }

    /// Where the next separator is; it stands in a line of its own. Looks from
    /// there on, and moves that to where it is to look again.
    fn separator(&self, from: &mut usize) -> Option<Ends> {
        while let Some(found) = self.monkeys.find(&self.held[*from..]) {
            let at = *from + found;
            let (before, behind) = (&self.held[..at], &self.held[at + MONKEYS.len()..]);
            let blanks = behind.iter().take(MAX_BLANKS);
            let blanks = blanks.take_while(|byte| matches!(byte, b' ' | b'\t'));
            let blanks = blanks.count();
            let end = match &behind[blanks..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                rest @ ([b'\r'] | []) if self.is_end => rest.len(),
                // More has to be read to tell.
                [b'\r'] | [] => {
                    *from = at;
                    return None;
                }
                _ => 0,
            };
            let is_line = behind.len() == blanks || end > 0;
            let is_first = before.is_empty() && self.skipped == 0;
            if is_line && (is_first || before.ends_with(b"\n")) {
                let record = before.strip_suffix(b"\n").unwrap_or(before);
                // A file whose lines all end so; a body may end in it as well.
                let record = if end == 2 {
                    record.strip_suffix(b"\r").unwrap_or(record)
                } else {
                    record
                };
                return Some(Ends {
                    record: record.len(),
                    separator: at + MONKEYS.len() + blanks + end - record.len(),
                });
            }
            *from = at + MONKEYS.len();
        }
        let most = self.held.len().saturating_sub(MONKEYS.len() - 1);
        *from = most.max(*from);
        None
    }

    fn cut(&mut self, Ends { record, separator }: Ends) -> Cut {
        let offset = self.offset();
        let bytes = self.held.split_to(record).freeze();
        self.held.advance(separator);
        let size = record + std::mem::take(&mut self.skipped);
        self.stream.cut(offset, size, bytes)
    }
}

impl Cutter for Separated {
    fn stream(&self) -> &Stream {
        &self.stream
    }

    fn offset(&self) -> u64 {
        self.stream.offset - (self.skipped + self.held.len()) as u64
    }

    fn next_record(&mut self) -> io::Result<Option<Cut>> {
        let mut from = 0_usize;
        loop {
            if let Some(ends) = self.separator(&mut from) {
                let is_blank = self.held[..ends.record].iter().all(u8::is_ascii_whitespace);
                if self.skipped == 0 && is_blank {
                    self.held.advance(ends.record + ends.separator);
                    from = 0;
                    continue;
                }
                return Ok(Some(self.cut(ends)));
            }
            if self.is_end {
                if self.skipped == 0 && self.held.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                let record = self.held.len();
                return Ok(Some(self.cut(Ends {
                    record,
                    separator: 0,
                })));
            }
            // Only what may be part of a separator is kept of a record too long.
            let most = self.stream.max_record.saturating_add(SEPARATOR_BYTES);
            if let Some(dropped) = self.held.len().checked_sub(SEPARATOR_BYTES)
                && self.held.len() > most
            {
                self.skipped += dropped;
                self.held.advance(dropped);
                from = from.saturating_sub(dropped);
            }
            let ready = self.stream.ready()?;
            self.held.extend_from_slice(ready);
            let taken = ready.len();
            self.is_end = taken == 0;
            self.stream.take(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_in_an_open_ended_body_is_found() {
        for (body, at) in [
            ("ab\n1 aa 17\nGET / HTTP/1.1\r\n", Some(3)),
            ("ab1 aa 17\nGET / HTTP/1.1\r\n", Some(2)),
            // Without a time, with another version, without one, and a response.
            ("ab\n1 aa x\nGET / HTTP/1.1\n", Some(3)),
            ("ab\n1 aa\nGET /x\n", Some(3)),
            ("ab\n1 aa 17\nGET / HTTP/2\n", Some(3)),
            ("ab\n2 aa 17\r\nHTTP/2 200\r\n", Some(3)),
            ("ab\n3 aa 1.7\nHTTP/1.1 200 OK", Some(3)),
            // The monkeys end it wherever they stand.
            ("ab\n🐵🙈🙉x\n", Some(3)),
            ("ab🐵🙈🙉 \n1 aa 17\nGET / HTTP/1.1\n", Some(2)),
            ("ab\n1 aa 17\nGET /\n🐵🙈🙉x\n", Some(3)),
            ("ab\n1 2 3\nand so on\n", None),
            ("ab\n1 aa\n", None),
        ] {
            assert_eq!(record_in(body.as_bytes()), at, "{body}");
        }
    }
}
