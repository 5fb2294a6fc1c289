//! JSON texts with lone surrogates, which stand for bytes that are no UTF-8.
//!
//! Python writes such a byte as `\udc80` to `\udcff` ("surrogateescape"). JSON's
//! grammar allows it, a Rust text cannot hold it: the record is read again with
//! a mark in its place, and [`Texts`] makes bytes of the mark.

use memchr::memmem;
use serde::de::DeserializeOwned;

use super::headers;
use crate::json::explain;

/// Characters that stand for nothing in any text; one that the record does not
/// have is its mark.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// How the texts of one record become bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Texts {
    /// Stands before the number of a byte, where the record has such bytes.
    mark: Option<char>,
}

/// Reads a record's JSON, and says how its texts become bytes.
pub(super) fn parse<T: DeserializeOwned>(record: &[u8]) -> Result<(T, Texts), String> {
    match explain::parse(record) {
        Ok(value) => Ok((value, Texts::default())),
        Err(why) => {
            let (marked, texts) = marked(record).ok_or(why)?;
            Ok((explain::parse(&marked)?, texts))
        }
    }
}

impl Texts {
    /// The bytes that a text stands for.
    pub(super) fn bytes(self, text: String) -> Vec<u8> {
        let Some(mark) = self.mark else {
            return text.into_bytes();
        };
        let mut bytes = Vec::with_capacity(text.len());
        let mut parts = text.split(mark);
        bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            let mut rest = part.chars();
            let byte = rest.next().and_then(|number| u8::try_from(number).ok());
            bytes.extend(byte);
            bytes.extend_from_slice(rest.as_str().as_bytes());
        }
        bytes
    }

    /// A header's value or another text that is no target and no body.
    pub(super) fn text(self, text: String) -> String {
        match self.mark {
            None => text,
            Some(_) => headers::text(&self.bytes(text)),
        }
    }

    /// A request target or a URL.
    pub(super) fn target(self, text: String) -> String {
        match self.mark {
            None => text,
            Some(_) => headers::target(&self.bytes(text)),
        }
    }
}

/// The record with its lone surrogates replaced; nothing where it has none.
fn marked(record: &[u8]) -> Option<(Vec<u8>, Texts)> {
    let may_have = |escape: &[u8]| memmem::find(record, escape).is_some();
    if !may_have(b"\\ud") && !may_have(b"\\uD") {
        return None;
    }
    let text = std::str::from_utf8(record).ok()?;
    let mark = MARKS.into_iter().find(|mark| {
        let escape = format!("\\u{:04x}", u32::from(*mark));
        !text.contains(*mark) && !text.to_ascii_lowercase().contains(&escape)
    })?;
    let mut out = Vec::with_capacity(record.len() + 16);
    let mut rest = record;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (taken, byte) = match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
            (Some(low @ 0xdc80..=0xdcff), _) => (6, Some(low & 0xff)),
            (Some(_), _) => {
                out.extend_from_slice("\u{fffd}".as_bytes());
                rest = &rest[6..];
                continue;
            }
            (None, _) => (2.min(rest.len()), None),
        };
        match byte {
            Some(byte) => out.extend_from_slice(format!("{mark}\\u{byte:04x}").as_bytes()),
            None => out.extend_from_slice(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
    let mark = Some(mark);
    Some((out, Texts { mark }))
}

/// The surrogate that an escape at the beginning is of.
fn surrogate(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..=0xdfff).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(json: &str) -> Vec<u8> {
        let (text, texts): (String, Texts) = parse(json.as_bytes()).unwrap();
        texts.bytes(text)
    }

    #[test]
    fn lone_surrogates_are_bytes_or_the_replacement_character() {
        for (json, expected) in [
            (r#""\udcff\u0000ab\udc80""#, &b"\xff\0ab\x80"[..]),
            (r#""\uDCC3\uDCA9""#, b"\xc3\xa9"),
            // Whole pairs are characters, whatever stands beside them.
            (r#""\ud83d\ude00\udcff""#, b"\xf0\x9f\x98\x80\xff"),
            (
                r#""\udc7f\udd00\ud800""#,
                "\u{fffd}\u{fffd}\u{fffd}".as_bytes(),
            ),
            (r#""\ud800\udc80""#, "\u{10080}".as_bytes()),
            (r#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}".as_bytes()),
            // No escape: its backslash is escaped itself.
            (r#""\\udcff\udcfe""#, b"\\udcff\xfe"),
            (r#""\ud800""#, "\u{fffd}".as_bytes()),
            // A mark that the text has is not taken.
            ("\"\u{fdd0}\u{80}\\udcff\"", b"\xef\xb7\x90\xc2\x80\xff"),
            (r#""\ufDd0A\udcff""#, b"\xef\xb7\x90A\xff"),
        ] {
            assert_eq!(bytes(json), expected, "{json}");
        }
    }

    #[test]
    fn texts_that_cannot_be_bytes_keep_their_meaning() {
        let (value, texts): (String, Texts) = parse(br#""caf\udce9""#).unwrap();
        assert_eq!(texts.text(value.clone()), "café");
        assert_eq!(texts.target(value), "caf%E9");
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for json in [r#""\udcff"#, r#"{"a":"\udcff""#, r#""\udcf""#, r#""\ud8"#] {
            assert!(
                parse::<serde_json::Value>(json.as_bytes()).is_err(),
                "{json}"
            );
        }
    }
}
