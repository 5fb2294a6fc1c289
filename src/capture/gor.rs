//! `GoReplay` files: raw HTTP/1 messages between separators.
//!
//! A record's first line is `<type> <id> <nanoseconds> [<latency>]`; type 1 is
//! a request, 2 production's response, 3 the response to an earlier replay.

use std::io;

use bytes::Bytes;
use memchr::memmem;

use super::assemble::{Assembler, Part, RecordRole};
use super::frames::{Cut, too_long, unreadable};
use super::http1;
use super::stream::Stream;
use super::{
    DecodeSettings, Exchange, Format, Frame, Half, Item, Piece, Remark, Transaction, Unusable,
};
use crate::event::{RequestHead, ResponseHead, bare_ip};

/// What stands between records: a line of three monkeys.
const SEPARATOR: &[u8] = "\n🐵🙈🙉\n".as_bytes();

pub(super) fn frames(stream: Stream) -> impl Iterator<Item = Item> + Send {
    let file = std::sync::Arc::clone(&stream.file);
    Assembler::new(Separated::new(stream), sort, file, Format::Gor)
}

/// A record's first line.
pub(super) struct Header<'a> {
    kind: u8,
    id: &'a [u8],
    at_ns: i64,
}

impl<'a> Header<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
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

fn split(piece: &Piece) -> Option<(Header<'_>, &[u8])> {
    let end = memchr::memchr(b'\n', &piece.bytes)?;
    let (line, rest) = piece.bytes.split_at(end);
    Some((Header::parse(line)?, &rest[1..]))
}

fn sort(piece: &Piece) -> RecordRole {
    match split(piece) {
        Some((Header { kind: b'3', .. }, _)) => RecordRole::Skip(Remark::ReplayedResponse),
        Some((header, _)) => {
            let part = if header.kind == b'1' {
                Part::First
            } else {
                Part::Last
            };
            RecordRole::Of(Bytes::copy_from_slice(header.id), part)
        }
        None => RecordRole::Alone,
    }
}

pub(super) fn decode(
    frame: &Frame,
    settings: &DecodeSettings,
) -> Result<Transaction<'static>, Unusable> {
    let mut exchange = Exchange::new(frame.place());
    for piece in &frame.pieces {
        read(piece, settings, &mut exchange).map_err(|why| frame.unusable_at(piece, why))?;
    }
    if exchange.request.is_none() {
        exchange.remark(Remark::StartMissing);
    }
    Ok(exchange.into_transaction())
}

fn read(piece: &Piece, settings: &DecodeSettings, exchange: &mut Exchange) -> Result<(), String> {
    let (header, message) = split(piece).ok_or(
        "expected \"<type> <id> <nanoseconds>\" on the record's first line, found something else",
    )?;
    if header.kind == b'1' {
        let raw = http1::request(message)?;
        exchange.at_ns = Some(header.at_ns);
        exchange.own_id = Some(super::headers::text(header.id));
        exchange.request = Some(Half {
            head: RequestHead {
                correlation_id: String::new(),
                method: raw.method,
                uri: raw.uri,
                client_ip: bare_ip(
                    raw.headers
                        .value("x-real-ip")
                        .filter(|address| !address.is_empty())
                        .unwrap_or(&settings.client_ip),
                ),
                headers: raw.headers,
            },
            body: raw.body,
        });
    } else {
        let raw = http1::response(message)?;
        exchange.response = Some(Half {
            head: ResponseHead {
                correlation_id: String::new(),
                status: raw.status,
                headers: raw.headers,
            },
            body: raw.body,
        });
    }
    Ok(())
}

/// Records between separators. The last one needs none behind it.
struct Separated {
    stream: Stream,
    /// Bytes read and not yet handed on.
    held: Vec<u8>,
    /// Where they begin in the file.
    offset: u64,
    /// Bytes of a record too long to keep, already thrown away.
    skipped: usize,
    record: u64,
    ended: bool,
}

impl Separated {
    const fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
            offset: 0,
            skipped: 0,
            record: 0,
            ended: false,
        }
    }

    fn record(&mut self) -> io::Result<Option<Cut>> {
        let mut looked_at = 0_usize;
        loop {
            let from = looked_at.saturating_sub(SEPARATOR.len());
            if let Some(found) = memmem::find(&self.held[from..], SEPARATOR) {
                let size = from + found;
                let rest = self.held.split_off(size + SEPARATOR.len());
                let mut bytes = std::mem::replace(&mut self.held, rest);
                bytes.truncate(size);
                return Ok(Some(self.cut(bytes, SEPARATOR.len())));
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
                self.ended = true;
                let bytes = std::mem::take(&mut self.held);
                if self.skipped == 0 && bytes.iter().all(u8::is_ascii_whitespace) {
                    return Ok(None);
                }
                return Ok(Some(self.cut(bytes, 0)));
            }
            self.held.extend_from_slice(ready);
            let taken = ready.len();
            self.stream.take(taken);
        }
    }

    fn cut(&mut self, bytes: Vec<u8>, separator: usize) -> Cut {
        self.record += 1;
        let size = self.skipped + bytes.len();
        let offset = self.offset;
        self.offset += (size + separator) as u64;
        self.skipped = 0;
        if size > self.stream.max_record {
            return Err(Unusable {
                place: self.stream.place(self.record, offset),
                why: too_long(size, self.stream.max_record),
            });
        }
        Ok(Piece {
            record: self.record,
            offset,
            bytes: bytes.into(),
        })
    }
}

impl Iterator for Separated {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        if self.ended {
            return None;
        }
        match self.record() {
            Ok(found) => found,
            Err(error) => {
                self.ended = true;
                Some(Err(Unusable {
                    place: self.stream.place(self.record + 1, self.offset),
                    why: unreadable(&error),
                }))
            }
        }
    }
}
