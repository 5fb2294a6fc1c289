//! `GoReplay` files: raw HTTP/1 messages between separators.
//!
//! A record's first line is `<type> <id> <nanoseconds> [<latency>]`; type 1 is
//! a request, 2 production's response, 3 the response to an earlier replay.

use std::io;

use bytes::Bytes;
use memchr::memmem;

use super::assemble::{RecordRole, Roles, assemble};
use super::format::{Read, Reader};
use super::http1;
use super::progress::Part;
use super::stream::{Cut, Cutter, Stream};
use super::{DecodeSettings, ExchangeParts, Format, Piece, Remark};

/// What stands between records: a line of three monkeys.
const SEPARATOR: &[u8] = "\n🐵🙈🙉\n".as_bytes();

pub(super) static READER: Reader = Reader {
    title: "GoReplay",
    loses: Some("no client address"),
    recognises: |head| Header::parse(head.first_line()).is_some(),
    frames: |stream| {
        assemble(
            Separated::new(stream),
            Some(Roles { role, heads: None }),
            Format::Gor,
        )
    },
    read: Read::Record(read),
};

/// A record's first line.
struct Header<'a> {
    kind: u8,
    id: &'a [u8],
    at_ns: i64,
}

impl<'a> Header<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|byte| *byte == b' ');
        let kind = match words.next()? {
            [kind @ b'1'..=b'3'] => *kind,
            _ => return None,
        };
        let id = words.next()?;
        if id.is_empty() || !id.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        let at_ns = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        Some(Self { kind, id, at_ns })
    }
}

fn split(record: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let end = memchr::memchr(b'\n', record)?;
    let (line, rest) = record.split_at(end);
    Some((Header::parse(line)?, &rest[1..]))
}

fn role(piece: &Piece) -> RecordRole {
    match split(&piece.bytes) {
        Some((Header { kind: b'3', .. }, _)) => RecordRole::Skip(Remark::ReplayedResponse),
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
    if header.kind != b'1' {
        exchange.response = Some(http1::response(message)?);
        exchange.response_at_ns = Some(header.at_ns);
        return Ok(());
    }
    let mut request = http1::request(message)?;
    let address = request.head.headers.value("x-real-ip");
    request.head.client_ip =
        exchange.client_ip(settings, address.filter(|address| !address.is_empty()));
    exchange.at_ns = Some(header.at_ns);
    exchange.own_id = Some(super::headers::text(header.id));
    exchange.request = Some(request);
    Ok(())
}

/// Records between separators. The last one needs none behind it.
struct Separated {
    stream: Stream,
    /// Bytes read and not yet handed on.
    held: Vec<u8>,
    /// Bytes of a record too long to keep, already thrown away.
    skipped: usize,
}

impl Separated {
    const fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
            skipped: 0,
        }
    }

    /// A record of the first `size` bytes that are held, and what is behind its
    /// separator.
    fn cut(&mut self, size: usize, separator: usize) -> Cut {
        let offset = self.offset();
        let rest = self.held.split_off(size + separator);
        let mut bytes = std::mem::replace(&mut self.held, rest);
        bytes.truncate(size);
        let size = size + std::mem::take(&mut self.skipped);
        self.stream.cut(offset, size, bytes.into())
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
        let mut looked_at = 0_usize;
        loop {
            let from = looked_at.saturating_sub(SEPARATOR.len());
            if let Some(found) = memmem::find(&self.held[from..], SEPARATOR) {
                return Ok(Some(self.cut(from + found, SEPARATOR.len())));
            }
            looked_at = self.held.len();
            if self.held.len() > self.stream.max_record {
                // Only what may be half a separator is kept.
                let keep = SEPARATOR.len();
                self.skipped += self.held.len() - keep;
                self.held.drain(..self.held.len() - keep);
                looked_at = keep;
            }
            let ready = self.stream.ready()?;
            if ready.is_empty() {
                if self.skipped == 0 && self.held.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                return Ok(Some(self.cut(self.held.len(), 0)));
            }
            self.held.extend_from_slice(ready);
            let taken = ready.len();
            self.stream.take(taken);
        }
    }
}
