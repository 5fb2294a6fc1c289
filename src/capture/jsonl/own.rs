//! Lines exactly as we write them, read at the speed of guests.
//!
//! A replay's guests take some microseconds for a record, so its JSON must not
//! take as long. Where a line has our own layout (keys in our order, no blanks)
//! its parts are found by checking the JSON of each and building nothing. A line
//! that is any other, or broken, is none of ours: the general reader says what
//! it is, or what is wrong with it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::{Line, has_chunk};
use crate::abi::Phase;

const START: &[u8] = br#"{"v":1,"id":""#;
const PHASE: &[u8] = br#"","phase":""#;
/// Values within values, as in the general reader.
const MAX_DEPTH: usize = 120;

/// Id and phase of a line of ours, which is all that sorting needs.
pub(super) fn keys(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(START)?;
    let end = memchr2(b'"', b'\\', rest)?;
    let (id, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(PHASE)?;
    let end = memchr(b'"', rest)?;
    Some((id, &rest[..end]))
}

/// A line of ours; nothing where it is another's or broken.
pub(super) fn read(bytes: &[u8]) -> Option<Line<'_>> {
    let (id, phase) = keys(bytes)?;
    // Control characters are not for texts, and blanks are not ours.
    if bytes.iter().fold(false, |any, byte| any | (*byte < 0x20)) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?;
    let at = START.len() + id.len() + PHASE.len() + phase.len() + 1;
    let phase = Phase::from_name(std::str::from_utf8(phase).ok()?)?;
    let mut reader = Reader { bytes, at };
    let ts = reader.member(b",\"ts\":")?;
    reader.member(b",\"module\":")?;
    reader.key(b",\"input\":")?;
    let begin = reader.at;
    let mut chunk_index = None;
    let mut twice = false;
    reader.object(0, |key, value| {
        if key == b"chunk_index" {
            twice |= chunk_index.replace(value).is_some();
        }
    })?;
    let input = &bytes[begin..reader.at];
    let output = reader.member(b",\"output\":")?;
    reader.member(b",\"error\":")?;
    let fuel = reader.member(b",\"fuel\":")?;
    reader.member(b",\"wall_ns\":")?;
    let redacted = reader.member(b",\"redacted\":")?;
    if twice || !redacted.starts_with(b"[") || reader.rest() != b"}" {
        return None;
    }
    let ts = match ts {
        b"null" => None,
        // An escape in it is not ours.
        [b'"', text @ .., b'"'] if memchr(b'\\', text).is_none() => {
            Some(Cow::Borrowed(text_of(text)?))
        }
        _ => return None,
    };
    let chunk_index = match (has_chunk(phase), chunk_index) {
        (false, _) => None,
        (true, Some(value)) => Some(number_of(value)?),
        (true, None) => Some(0),
    };
    let fuel = match fuel {
        b"null" => None,
        number => Some(number_of(number)?),
    };
    Some(Line {
        id: Cow::Borrowed(text_of(id)?),
        phase,
        ts,
        input,
        output: (output != b"null").then_some(output),
        chunk_index,
        fuel,
        redacted: redacted != b"[]",
    })
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number_of<N: std::str::FromStr>(bytes: &[u8]) -> Option<N> {
    text_of(bytes)?.parse().ok()
}

/// Checks JSON without blanks, and builds nothing of it.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn key(&mut self, key: &[u8]) -> Option<()> {
        self.rest().starts_with(key).then(|| self.at += key.len())
    }

    /// The value behind this key.
    fn member(&mut self, key: &[u8]) -> Option<&'a [u8]> {
        self.key(key)?;
        let begin = self.at;
        self.value(0)?;
        self.bytes.get(begin..self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(depth, |_, _| {}),
            b'[' => self.array(depth),
            b't' => self.key(b"true"),
            b'f' => self.key(b"false"),
            b'n' => self.key(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, mut seen: impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
        if depth > MAX_DEPTH || !self.take(b'{') {
            return None;
        }
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let key = self.string()?;
            if !self.take(b':') {
                return None;
            }
            let begin = self.at;
            self.value(depth + 1)?;
            seen(key, self.bytes.get(begin..self.at)?);
            if self.take(b'}') {
                return Some(());
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH || !self.take(b'[') {
            return None;
        }
        if self.take(b']') {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            if self.take(b']') {
                return Some(());
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    /// What stands between the quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        if !self.take(b'"') {
            return None;
        }
        let begin = self.at;
        loop {
            let rest = self.rest();
            let found = quote_or_escape(rest)?;
            self.at += found + 1;
            if rest[found] == b'"' {
                return self.bytes.get(begin..self.at - 1);
            }
            match self.peek()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                b'u' => {
                    let digits = self.bytes.get(self.at + 1..self.at + 5)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    self.at += 5;
                }
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += count;
        (count > 0).then_some(())
    }
}

/// Where the first quote or backslash is. Most strings are short, and a search
/// that is fast on long ones takes its time to begin.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const ESCAPES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    // Marks the lowest byte that is zero, and maybe some above it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut at = 0;
    for word in text.chunks_exact(8).take(4) {
        let word = u64::from_le_bytes(word.try_into().ok()?);
        let found = zeros(word ^ QUOTES) | zeros(word ^ ESCAPES);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &text[at..]).map(|found| at + found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"v":1,"id":"c1","phase":"request_body","ts":"2026-01-01T00:00:00.000000000Z","module":"sha256:00","input":{"method":"GET","n":[-1.5e+3,0,{}],"chunk_index":2,"headers":{"a":"x\u00e9\"}","chunk_index":"7"}},"output":{"decision":"allow"},"error":null,"fuel":17,"wall_ns":null,"redacted":["headers.cookie"]}"#;

    /// What there is to know of a line.
    fn parts<'a>(line: &Line<'a>) -> impl PartialEq + std::fmt::Debug + use<'a> {
        (
            line.id.clone(),
            line.phase,
            line.ts.clone(),
            line.input,
            line.output,
            (line.chunk_index, line.fuel, line.redacted),
        )
    }

    #[test]
    fn a_line_of_ours_reads_as_anybody_reads_it() {
        let line = read(LINE.as_bytes()).unwrap();
        assert_eq!(line.chunk_index, Some(2));
        assert_eq!((line.fuel, line.redacted), (Some(17), true));
        assert_eq!(parts(&line), parts(&Line::read(LINE.as_bytes()).unwrap()));
        for other in [
            LINE.replace("\"ts\":", "\"ts\": "),
            LINE.replace(",\"wall_ns\":null", ""),
            LINE.replace("-1.5e+3", "-01"),
            LINE.replace("\\u00e9", "\\u00g9"),
            LINE.replace("GET", "\u{1}"),
            format!("{LINE} "),
        ] {
            assert!(read(other.as_bytes()).is_none(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_first_quote_or_backslash_is_found(text in r#"[a-z"\\]{0,80}"#) {
            let expected = text.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(text.as_bytes()), expected);
            let plain = text.replace(['"', '\\'], "!");
            prop_assert_eq!(quote_or_escape(plain.as_bytes()), None);
        }

        /// Whatever is read here, the general reader reads the same.
        #[test]
        fn nothing_is_taken_that_is_no_json(changes in prop::collection::vec((0..LINE.len(), any::<u8>(), 0..3_u8), 0..4)) {
            let mut bytes = LINE.as_bytes().to_vec();
            for (at, byte, how) in changes {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => { bytes.remove(at); }
                }
            }
            if let Some(line) = read(&bytes) {
                let general = Line::read(&bytes);
                prop_assert!(general.is_ok(), "{:?}", general.err());
                prop_assert_eq!(parts(&line), parts(&general.unwrap()));
            }
        }
    }
}
