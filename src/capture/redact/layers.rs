//! Encodings of single characters, also of texts that were encoded several times:
//! those of URLs, of strings in JSON and programs, and of HTML.
//!
//! A URL in a parameter of a URL is encoded once more with each step inwards, and
//! so is JSON in a string of JSON. So a text is decoded as a whole, a few times, and looked through each time:
//! what a byte costs does not depend on what stands around it. What is encoded
//! deeper than that is not read, and hidden.

use std::borrow::Cow;
use std::ops::Range;

use super::places::{Place, Quote};

/// How many times a text is decoded.
const MAX_LAYERS: usize = 4;

/// A text, decoded so many times.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) text: Cow<'a, str>,
    /// Where each byte, and the end, was in the text as it was given; nothing
    /// where that is this one.
    origin: Option<Vec<usize>>,
}

impl<'a> Layer<'a> {
    /// A text and what it is when decoded, up to what changes no more. The
    /// place from which on it could be decoded further goes to `rest`.
    pub(super) fn each(text: &'a str, mut look: impl FnMut(&Layer<'a>)) -> Option<usize> {
        let mut layer = Layer {
            text: Cow::Borrowed(text),
            origin: None,
        };
        for _ in 0..MAX_LAYERS {
            look(&layer);
            layer = layer.decoded()?;
        }
        look(&layer);
        let deeper = escape(layer.text.as_bytes(), 0)?;
        Some(layer.origin(deeper.at))
    }

    /// Where a place was in the text as it was given.
    pub(super) fn origin(&self, at: usize) -> usize {
        let Some(origin) = &self.origin else {
            return at;
        };
        // No place is behind the end, which is there too.
        origin
            .get(at)
            .or(origin.last())
            .copied()
            .unwrap_or_default()
    }

    /// Whether it is another text than the one that was given.
    pub(super) const fn is_decoded(&self) -> bool {
        self.origin.is_some()
    }

    /// Where a place of it was in the text as it was given.
    pub(super) fn place(&self, place: Place) -> Place {
        let origin = |it: Range<usize>| self.origin(it.start)..self.origin(it.end);
        Place {
            range: origin(place.range),
            quote: place.quote.map(|quote| match quote {
                Quote::Like(at) => Quote::Like(origin(at)),
                Quote::Plain => Quote::Plain,
            }),
        }
    }

    /// None where nothing is encoded.
    fn decoded(&self) -> Option<Layer<'a>> {
        let bytes = self.text.as_bytes();
        let mut next = escape(bytes, 0)?;
        let mut out = Vec::with_capacity(bytes.len());
        let mut origin = Vec::with_capacity(bytes.len() + 1);
        let mut at = 0;
        loop {
            out.extend_from_slice(&bytes[at..next.at]);
            origin.extend((at..next.at).map(|at| self.origin(at)));
            let mut utf8 = [0; 4];
            let value = match next.value {
                Value::Byte(ref byte) => std::slice::from_ref(byte),
                Value::Char(char) => char.encode_utf8(&mut utf8).as_bytes(),
            };
            out.extend_from_slice(value);
            origin.resize(origin.len() + value.len(), self.origin(next.at));
            at = next.end;
            match escape(bytes, at) {
                Some(other) => next = other,
                None => break,
            }
        }
        out.extend_from_slice(&bytes[at..]);
        origin.extend((at..=bytes.len()).map(|at| self.origin(at)));
        let (text, origin) = as_text(&out, origin);
        Some(Layer {
            text: Cow::Owned(text),
            origin: Some(origin),
        })
    }
}

/// A text without one layer of such encodings.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    let layer = Layer {
        text: Cow::Borrowed(text),
        origin: None,
    };
    layer.decoded().map_or(Cow::Borrowed(text), |it| it.text)
}

/// A text in each of its spellings, the one as it was given first.
pub(super) fn spellings(text: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(text)];
    while all.len() <= MAX_LAYERS
        && let Some(last) = all.last()
        && let Cow::Owned(next) = decoded(last)
    {
        all.push(Cow::Owned(next));
    }
    all
}

/// A character that is encoded, and where.
struct Escape {
    at: usize,
    end: usize,
    value: Value,
}

enum Value {
    Byte(u8),
    Char(char),
}

/// The next of them.
fn escape(bytes: &[u8], from: usize) -> Option<Escape> {
    let mut marks = memchr::memchr3_iter(b'%', b'\\', b'&', &bytes[from..]);
    marks.find_map(|at| {
        let at = from + at;
        let (value, length) = match bytes[at] {
            b'%' => (Value::Byte(hex_byte(bytes, at + 1)?), 3),
            b'&' => entity(&bytes[at..])?,
            _ => backslash(&bytes[at..])?,
        };
        Some(Escape {
            at,
            end: at + length,
            value,
        })
    })
}

fn hex_digit(bytes: &[u8], at: usize) -> Option<u32> {
    char::from(*bytes.get(at)?).to_digit(16)
}

fn hex_byte(bytes: &[u8], at: usize) -> Option<u8> {
    u8::try_from(hex_digit(bytes, at)? * 16 + hex_digit(bytes, at + 1)?).ok()
}

/// Of a string in JSON or a program: its value and its length.
fn backslash(bytes: &[u8]) -> Option<(Value, usize)> {
    let value = match bytes.get(1)? {
        byte @ (b'"' | b'\'' | b'/' | b'\\') => *byte,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => return Some((Value::Byte(hex_byte(bytes, 2)?), 4)),
        b'u' => return unicode(bytes),
        _ => return None,
    };
    Some((Value::Byte(value), 2))
}

/// Four digits behind a `u`, or eight of which the first four are the first half.
fn unicode(bytes: &[u8]) -> Option<(Value, usize)> {
    let unit = |at: usize| {
        let mut digits = (at..at + 4).map(|at| hex_digit(bytes, at));
        digits.try_fold(0, |all, digit| Some(all * 16 + digit?))
    };
    let first = unit(2)?;
    if let Some(char) = char::from_u32(first) {
        return Some((Value::Char(char), 6));
    }
    let second = (bytes.get(6..8)? == b"\\u").then(|| unit(8))??;
    let high = first.checked_sub(0xD800).filter(|it| *it < 0x400)?;
    let low = second.checked_sub(0xDC00).filter(|it| *it < 0x400)?;
    Some((
        Value::Char(char::from_u32(0x1_0000 + (high << 10) + low)?),
        12,
    ))
}

/// Of HTML: its value and its length.
fn entity(bytes: &[u8]) -> Option<(Value, usize)> {
    const NAMED: [(&[u8], char); 11] = [
        (b"amp", '&'),
        (b"lt", '<'),
        (b"gt", '>'),
        (b"quot", '"'),
        (b"apos", '\''),
        (b"equals", '='),
        (b"colon", ':'),
        (b"sol", '/'),
        (b"num", '#'),
        (b"plus", '+'),
        (b"nbsp", '\u{a0}'),
    ];
    const LONGEST: usize = 10;
    let near = &bytes[1..bytes.len().min(LONGEST)];
    let length = memchr::memchr(b';', near)?;
    let name = &near[..length];
    let char = match name {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
        [b'#', digits @ ..] => number(digits, 10)?,
        name => NAMED.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((Value::Char(char), length + 2))
}

fn number(digits: &[u8], radix: u32) -> Option<char> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_number = digits.chars().all(|it| it.is_digit(radix));
    char::from_u32(
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| is_number)?,
    )
}

/// Bytes as text; what is none becomes a character that says so.
fn as_text(bytes: &[u8], origin: Vec<usize>) -> (String, Vec<usize>) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), origin);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut moved = Vec::with_capacity(origin.len());
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let next = at + chunk.valid().len();
        moved.extend_from_slice(&origin[at..next]);
        at = next;
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            moved.extend([origin[at]; char::REPLACEMENT_CHARACTER.len_utf8()]);
            at += chunk.invalid().len();
        }
    }
    moved.extend(origin.last());
    (text, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_known_where_it_was() {
        for (text, spelled) in [
            ("a%20b", vec!["a%20b", "a b"]),
            ("%25%32%30", vec!["%25%32%30", "%20", " "]),
            ("%e9x%zz%", vec!["%e9x%zz%", "\u{fffd}x%zz%"]),
            ("plain", vec!["plain"]),
        ] {
            let mut seen = Vec::new();
            let deeper = Layer::each(text, |layer| {
                assert_eq!(layer.origin(layer.text.len()), text.len());
                for (at, _) in layer.text.char_indices() {
                    assert!(text.is_char_boundary(layer.origin(at)));
                }
                seen.push(layer.text.clone().into_owned());
            });
            assert_eq!(
                (seen, deeper),
                (spelled.iter().map(|it| (*it).to_owned()).collect(), None)
            );
        }
        let deep = format!("/a?b=%{}41", "25".repeat(9));
        assert_eq!(Layer::each(&deep, |_| {}), Some(5));
    }
}
