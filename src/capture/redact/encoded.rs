//! Texts that are packed as a whole: in base64, and compressed.

use std::io::{Read, Write as _};

use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::super::base_64;
use super::binary;
use super::places::{About, Place, Places, in_text};

/// Characters of base64 that are worth unpacking.
const LEAST: usize = 20;
/// Texts that are packed into each other.
const MAX_DEPTH: usize = 2;
/// Bytes of what is unpacked: as many for each of the packed ones as deflate can
/// make of text, and no more than so many.
const MOST_BYTES: usize = 16 << 20;
const MOST_FOR_EACH: usize = 64;

/// Runs of base64 that hold a secret; each is hidden as a whole.
pub(super) fn find(text: &str, about: About, places: &mut Places) {
    if about.depth >= MAX_DEPTH {
        return;
    }
    let bytes = text.as_bytes();
    let is_one = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/' | b'-' | b'_');
    let mut at = 0;
    while at < bytes.len() {
        // A run that is long enough has each twentieth byte.
        let begin = match bytes.get(at + LEAST - 1) {
            None => break,
            Some(far) if !is_one(far) => {
                at += LEAST;
                continue;
            }
            Some(_) => {
                let near = &bytes[at..at + LEAST];
                let end = near.iter().rposition(|it| !is_one(it));
                at + end.map_or(0, |end| end + 1)
            }
        };
        at = begin + bytes[begin..].iter().take_while(|it| is_one(it)).count();
        if at - begin >= LEAST {
            let padded = at
                + bytes[at..]
                    .iter()
                    .take(2)
                    .take_while(|it| **it == b'=')
                    .count();
            if holds_secret(&text[begin..at], about) {
                places.push(Place::of(begin..padded));
            } else {
                // A path may stand before it.
                let mut from = begin;
                for segment in text[begin..at].split('/') {
                    if segment.len() >= LEAST
                        && segment.len() < at - begin
                        && holds_secret(segment, about)
                    {
                        places.push(Place::of(from..from + segment.len()));
                    }
                    from += segment.len() + 1;
                }
            }
        }
        at += 1;
    }
}

/// Whether what a run encodes is a text with a secret, or compressed one.
fn holds_secret(run: &str, about: About) -> bool {
    let Some(bytes) = unpacked(run) else {
        return false;
    };
    let about = About {
        depth: about.depth + 1,
        ..About::default()
    };
    match Packing::of(&bytes) {
        Some((_, Unpacked::All(inner))) => !in_text(&binary::as_text(&inner), about).is_empty(),
        Some((_, Unpacked::Part)) => false,
        None => std::str::from_utf8(&bytes)
            .is_ok_and(|text| is_readable(text) && !in_text(text, about).is_empty()),
    }
}

fn is_readable(text: &str) -> bool {
    !text.contains(|it: char| it.is_control() && !matches!(it, '\n' | '\r' | '\t'))
}

/// The bytes of a run in either alphabet, without its padding.
fn unpacked(run: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let run = run.as_bytes();
    let run = &run[..run.len() - usize::from(run.len() % 4 == 1)];
    let is_url = run.iter().any(|it| matches!(it, b'-' | b'_'));
    let engine = if is_url {
        URL_SAFE_NO_PAD
    } else {
        STANDARD_NO_PAD
    };
    engine.decode(run).ok()
}

/// How bytes were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zlib,
    Deflate,
}

/// What is left of compressed bytes once they are unpacked.
#[derive(Debug, PartialEq, Eq)]
enum Unpacked {
    All(Vec<u8>),
    /// They are damaged, a part of more, or too much.
    Part,
}

impl Packing {
    /// None where they are not compressed, as far as anybody can tell.
    fn of(bytes: &[u8]) -> Option<(Self, Unpacked)> {
        let read = |from: &mut dyn Read| {
            let most = bytes.len().saturating_mul(MOST_FOR_EACH).min(MOST_BYTES);
            let mut out = Vec::new();
            let done = from.take(most as u64 + 1).read_to_end(&mut out);
            (done.is_ok() && out.len() <= most).then_some(out)
        };
        if bytes.starts_with(&[0x1f, 0x8b, 8]) {
            let out = read(&mut MultiGzDecoder::new(bytes));
            return Some((Self::Gzip, out.map_or(Unpacked::Part, Unpacked::All)));
        }
        // Two bytes that are a head of zlib may be anything else's, and raw deflate
        // has none: they are one where all of them unpack.
        let has_head =
            matches!(bytes, [0x78, second, ..] if (0x7800 + u16::from(*second)).is_multiple_of(31));
        if has_head {
            let mut zlib = ZlibDecoder::new(bytes);
            let out = read(&mut zlib).filter(|_| zlib.total_in() == bytes.len() as u64);
            if let Some(out) = out {
                return Some((Self::Zlib, Unpacked::All(out)));
            }
            return Some((Self::Zlib, Unpacked::Part))
                .filter(|_| matches!(bytes[1], 0x01 | 0x5e | 0x9c | 0xda));
        }
        if bytes.len() < 8 || bytes.is_ascii() {
            return None;
        }
        let mut deflate = DeflateDecoder::new(bytes);
        let out = read(&mut deflate).filter(|_| deflate.total_in() == bytes.len() as u64)?;
        (out.len() > bytes.len() / 2).then_some((Self::Deflate, Unpacked::All(out)))
    }

    fn pack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let level = Compression::default();
        match self {
            Self::Gzip => {
                let mut out = GzEncoder::new(Vec::new(), level);
                out.write_all(bytes).ok()?;
                out.finish().ok()
            }
            Self::Zlib => {
                let mut out = ZlibEncoder::new(Vec::new(), level);
                out.write_all(bytes).ok()?;
                out.finish().ok()
            }
            Self::Deflate => {
                let mut out = DeflateEncoder::new(Vec::new(), level);
                out.write_all(bytes).ok()?;
                out.finish().ok()
            }
        }
    }
}

/// What became of bytes.
pub(super) enum Edited {
    Same,
    Other(Vec<u8>),
    /// They cannot be looked into.
    Unread,
}

/// Puts another text in the place of the one that bytes hold, where there is
/// one, also in compressed ones.
pub(super) fn edit(bytes: &[u8], other: &mut dyn FnMut(&str) -> Option<String>) -> Edited {
    edit_packed(bytes, other, 0)
}

fn edit_packed(
    bytes: &[u8],
    other: &mut dyn FnMut(&str) -> Option<String>,
    depth: usize,
) -> Edited {
    match Packing::of(bytes) {
        Some((_, Unpacked::Part)) => Edited::Unread,
        Some(_) if depth >= MAX_DEPTH => Edited::Unread,
        Some((packing, Unpacked::All(inner))) => match edit_packed(&inner, other, depth + 1) {
            Edited::Other(inner) => packing.pack(&inner).map_or(Edited::Unread, Edited::Other),
            rest => rest,
        },
        None => match other(&binary::as_text(bytes)) {
            Some(text) => Edited::Other(binary::as_bytes(&text)),
            None => Edited::Same,
        },
    }
}

/// The same of bytes in base64. What cannot be looked into is hidden.
pub(super) fn edit_base64(
    data: &str,
    hidden: &str,
    other: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<String> {
    let bytes = base_64::decode(data).ok()?;
    match edit(&bytes, other) {
        Edited::Same => None,
        Edited::Other(bytes) => Some(base_64::encode(bytes)),
        Edited::Unread => Some(base_64::encode(hidden)),
    }
}

/// Whether bytes in base64 are a file of a kind that is compressed by itself, so
/// that what its head says of compression is done already.
pub(super) fn is_plain_file(data: &str) -> bool {
    const BEGINS: [&[u8]; 8] = [
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"GIF8",
        b"RIFF",
        b"wOF",
        b"%PDF",
        b"\0\0\x01\0",
        b"<",
    ];
    let begin = &data[..data.floor_char_boundary(16)];
    base_64::decode(begin).is_ok_and(|bytes| BEGINS.iter().any(|it| bytes.starts_with(it)))
}
