//! A fast reader for JSON that programs wrote, in the layout that programs use.
//!
//! Proxies' frames and our own records are small, many, and written by
//! programs: no blanks, few escapes. [`FastReader`] reads that much of JSON and
//! gives up on everything else, right or wrong; whoever asks then asks
//! `serde_json`, which reads it or says what is wrong with it. Invariant: what
//! is read here, `serde_json` reads the same.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::marks::Marks;

/// Values within values; `serde_json` stops at 128.
const MAX_DEPTH: usize = 120;

/// Not JSON of this kind.
#[derive(Debug)]
pub(crate) struct NotPlain;

impl fmt::Display for NotPlain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("not JSON as programs write it")
    }
}

impl std::error::Error for NotPlain {}

impl de::Error for NotPlain {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Result<T, E = NotPlain> = std::result::Result<T, E>;

/// What is escaped in a string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Escapes {
    None,
    /// By one letter each.
    Short,
    /// Some by number.
    Unicode,
}

/// Reads a text from its beginning on.
pub(crate) struct FastReader<'a> {
    text: &'a str,
    marks: Marks,
    at: usize,
    depth: usize,
    /// Kept for strings that have escapes.
    unescaped: String,
}

impl<'a> FastReader<'a> {
    /// A reader, if this is text without control characters: they stand in no
    /// string, and between tokens only for people.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            marks: Marks::of(bytes)?,
            text: std::str::from_utf8(bytes).ok()?,
            at: 0,
            depth: 0,
            unescaped: String::new(),
        })
    }

    /// Reads the whole text.
    pub(crate) fn read<T>(bytes: &'a [u8], read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut reader = Self::new(bytes).ok_or(NotPlain)?;
        let value = read(&mut reader)?;
        reader.rest().is_empty().then_some(value).ok_or(NotPlain)
    }

    /// Where it has come to.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// What it has read since then.
    pub(crate) fn since(&self, begin: usize) -> Result<&'a str> {
        self.text.get(begin..self.at).ok_or(NotPlain)
    }

    /// What is still to be read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Steps over exactly this.
    pub(crate) fn expect(&mut self, what: &[u8]) -> Result<()> {
        if !self.rest().starts_with(what) {
            return Err(NotPlain);
        }
        self.at += what.len();
        Ok(())
    }

    /// Steps over a key with its punctuation, and its value, which it hands
    /// back as it stands there.
    pub(crate) fn member(&mut self, key: &[u8]) -> Result<&'a str> {
        self.expect(key)?;
        self.skip()
    }

    /// Steps over a value, and hands back its text.
    pub(crate) fn skip(&mut self) -> Result<&'a str> {
        let begin = self.at;
        self.skip_value()?;
        self.since(begin)
    }

    fn skip_value(&mut self) -> Result<()> {
        self.at = self.value_end(self.at).ok_or(NotPlain)?;
        Ok(())
    }

    /// Reads what may stand here; where it does not, nothing was read.
    pub(crate) fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let begin = (self.at, self.depth);
        read(self).inspect_err(|_| (self.at, self.depth) = begin)
    }

    /// Steps over a string if it is spelled as [`write_string`] spells it, and
    /// hands back what stands between its quotes.
    ///
    /// [`write_string`]: super::write_string
    pub(crate) fn written_string(&mut self) -> Result<&'a str> {
        match self.raw_string()? {
            (raw, Escapes::None) => Ok(raw),
            // It escapes no slash. One behind an escaped backslash is rare.
            (raw, Escapes::Short) if !raw.contains("\\/") => Ok(raw),
            _ => Err(NotPlain),
        }
    }

    /// The same for a number that has neither sign nor fraction.
    pub(crate) fn written_number<N: std::str::FromStr>(&mut self) -> Result<N> {
        let text = self.number()?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotPlain);
        }
        text.parse().map_err(|_too_large| NotPlain)
    }

    /// Where the value that begins there ends. In one loop and with one bit for
    /// each container around it, since most of what is skipped is long.
    fn value_end(&self, mut at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut depth = 0;
        let mut is_object = 0_u128;
        loop {
            match *bytes.get(at)? {
                b'"' => at = self.string_end(at + 1)?,
                open @ (b'{' | b'[') => {
                    at += 1;
                    if self.depth + depth >= MAX_DEPTH {
                        return None;
                    }
                    let close = open + 2;
                    if *bytes.get(at)? == close {
                        at += 1;
                    } else {
                        depth += 1;
                        is_object = is_object << 1 | u128::from(open == b'{');
                        if open == b'{' {
                            at = self.key_end(at)?;
                        }
                        continue;
                    }
                }
                b't' => at = word_end(bytes, at, b"true")?,
                b'f' => at = word_end(bytes, at, b"false")?,
                b'n' => at = word_end(bytes, at, b"null")?,
                _ => at = number_end(bytes, at)?,
            }
            loop {
                if depth == 0 {
                    return Some(at);
                }
                let in_object = is_object & 1 == 1;
                match *bytes.get(at)? {
                    b',' => {
                        at += 1;
                        if in_object {
                            at = self.key_end(at)?;
                        }
                        break;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return None,
                }
                at += 1;
                depth -= 1;
                is_object >>= 1;
            }
        }
    }

    /// Behind a key that begins there, and its colon.
    fn key_end(&self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        if *bytes.get(at)? != b'"' {
            return None;
        }
        let colon = self.string_end(at + 1)?;
        (*bytes.get(colon)? == b':').then_some(colon + 1)
    }

    /// Behind the quote that ends the string whose text begins there.
    fn string_end(&self, mut at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        loop {
            let mark = self.marks.next(at)?;
            if *bytes.get(mark)? == b'"' {
                return Some(mark + 1);
            }
            at = escape_end(bytes, mark)?.0;
        }
    }

    fn peek(&self) -> Result<u8> {
        let byte = self.text.as_bytes().get(self.at);
        byte.copied().ok_or(NotPlain)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek().is_ok_and(|next| next == byte);
        self.at += usize::from(is);
        is
    }

    /// Opens an object or an array.
    fn begin(&mut self, open: u8) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH || !self.take(open) {
            return Err(NotPlain);
        }
        Ok(())
    }

    /// Whether another member or item follows, past its comma; if not, past
    /// the end of the object or array.
    fn goes_on(&mut self, is_first: &mut bool, close: u8) -> Result<bool> {
        if self.take(close) {
            self.depth -= 1;
            return Ok(false);
        }
        if !std::mem::take(is_first) && !self.take(b',') {
            return Err(NotPlain);
        }
        Ok(true)
    }

    /// What stands between the quotes, and which escapes are in it.
    fn raw_string(&mut self) -> Result<(&'a str, Escapes)> {
        if !self.take(b'"') {
            return Err(NotPlain);
        }
        let begin = self.at;
        let mut escapes = Escapes::None;
        let bytes = self.text.as_bytes();
        loop {
            let mark = self.marks.next(self.at).ok_or(NotPlain)?;
            self.at = mark;
            if bytes.get(mark) == Some(&b'"') {
                let text = self.since(begin)?;
                self.at += 1;
                return Ok((text, escapes));
            }
            let (end, escape) = escape_end(bytes, mark).ok_or(NotPlain)?;
            escapes = escapes.max(escape);
            self.at = end;
        }
    }

    /// The text of a number, as JSON has them.
    fn number(&mut self) -> Result<&'a str> {
        let begin = self.at;
        self.at = number_end(self.text.as_bytes(), begin).ok_or(NotPlain)?;
        self.since(begin)
    }
}

/// Behind the escape that begins there, and its kind.
fn escape_end(bytes: &[u8], at: usize) -> Option<(usize, Escapes)> {
    match bytes.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((at + 2, Escapes::Short)),
        b'u' => {
            let digits = bytes.get(at + 2..at + 6)?;
            let is_number = digits.iter().all(u8::is_ascii_hexdigit);
            is_number.then_some((at + 6, Escapes::Unicode))
        }
        _ => None,
    }
}

/// Behind this word, if it stands there.
fn word_end(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes
        .get(at..)?
        .starts_with(word)
        .then_some(at + word.len())
}

/// Behind the number that begins there, as JSON has them.
fn number_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let digits = |at: usize| {
        let is_digit = |byte: &&u8| byte.is_ascii_digit();
        let count = bytes.get(at..)?.iter().take_while(is_digit).count();
        (count > 0).then_some(at + count)
    };
    at += usize::from(is(at, b'-'));
    at = if is(at, b'0') { at + 1 } else { digits(at)? };
    if is(at, b'.') {
        at = digits(at + 1)?;
    }
    if is(at, b'e') || is(at, b'E') {
        at += 1;
        at += usize::from(is(at, b'+') || is(at, b'-'));
        at = digits(at)?;
    }
    Some(at)
}

/// Puts in `out` what a string with short escapes says.
fn unescape(raw: &str, out: &mut String) {
    out.clear();
    let mut parts = raw.split('\\');
    out.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        // Two backslashes are one, and what follows them is no escape.
        let Some(escaped) = part.as_bytes().first() else {
            out.push('\\');
            out.push_str(parts.next().unwrap_or_default());
            continue;
        };
        out.push(match escaped {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            same => char::from(*same),
        });
        out.push_str(&part[1..]);
    }
}

impl<'de> Deserializer<'de> for &mut FastReader<'de> {
    type Error = NotPlain;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek()? {
            b'"' => self.deserialize_str(visitor),
            b'{' => self.deserialize_map(visitor),
            b'[' => self.deserialize_seq(visitor),
            b't' => {
                self.expect(b"true")?;
                visitor.visit_bool(true)
            }
            b'f' => {
                self.expect(b"false")?;
                visitor.visit_bool(false)
            }
            b'n' => {
                self.expect(b"null")?;
                visitor.visit_unit()
            }
            // Fractions and what is below zero are rare enough.
            _ => visitor.visit_u64(self.number()?.parse().map_err(de::Error::custom)?),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.raw_string()? {
            (raw, Escapes::None) => visitor.visit_borrowed_str(raw),
            (raw, Escapes::Short) => {
                unescape(raw, &mut self.unescaped);
                visitor.visit_str(&self.unescaped)
            }
            // Maybe half a character: not to be decided here.
            (_, Escapes::Unicode) => Err(NotPlain),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek()? == b'n' {
            self.expect(b"null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip_value()?;
        visitor.visit_unit()
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.begin(b'{')?;
        let mut members = Items::of(self, b'}');
        let value = visitor.visit_map(&mut members)?;
        members.end()?;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        // An array may stand for a struct too, but no program writes one.
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.begin(b'[')?;
        let mut items = Items::of(self, b']');
        let value = visitor.visit_seq(&mut items)?;
        items.end()?;
        Ok(value)
    }

    /// For whoever needs to know how another reader hands out such a value.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _visitor: V,
    ) -> Result<V::Value> {
        Err(NotPlain)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value> {
        Err(NotPlain)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct tuple tuple_struct
    }
}

/// The rest of an object or array.
struct Items<'r, 'a> {
    reader: &'r mut FastReader<'a>,
    close: u8,
    is_first: bool,
    is_over: bool,
}

impl<'r, 'a> Items<'r, 'a> {
    const fn of(reader: &'r mut FastReader<'a>, close: u8) -> Self {
        Self {
            reader,
            close,
            is_first: true,
            is_over: false,
        }
    }

    fn goes_on(&mut self) -> Result<bool> {
        self.is_over = !self.reader.goes_on(&mut self.is_first, self.close)?;
        Ok(!self.is_over)
    }

    /// All has been read, or there is nothing more to read.
    fn end(mut self) -> Result<()> {
        if self.is_over || !self.goes_on()? {
            return Ok(());
        }
        Err(NotPlain)
    }
}

impl<'a> MapAccess<'a> for &mut Items<'_, 'a> {
    type Error = NotPlain;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.goes_on()? {
            return Ok(None);
        }
        if self.reader.peek()? != b'"' {
            return Err(NotPlain);
        }
        let key = seed.deserialize(&mut *self.reader)?;
        self.reader.expect(b":")?;
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'a> SeqAccess<'a> for &mut Items<'_, 'a> {
    type Error = NotPlain;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if !self.goes_on()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    fn plain<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
        FastReader::read(text.as_bytes(), |reader| T::deserialize(reader)).ok()
    }

    #[test]
    fn what_programs_write_is_read() {
        for text in [
            r#"{"a":[1,true,false,null,"x"],"b":{},"c":[]}"#,
            r#""quote \" slash \/ backslash \\n tab \t \\""#,
            r#""grüße, 世界""#,
            "18446744073709551615",
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(plain::<Value>(text), Some(expected), "{text}");
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Read<'a> {
            text: &'a str,
            small: u8,
            none: Option<u8>,
        }
        let read: Option<Read<'_>> = plain(r#"{"text":"t","more":[-1.5e3],"small":7,"none":null}"#);
        assert!(read.is_some_and(|read| read.text == "t" && read.small == 7));
    }

    #[test]
    fn everything_else_is_left_to_another_reader() {
        for text in [
            "",
            " 1",
            "1 ",
            "[1, 2]",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{1:2}",
            "-1",
            "1.5",
            "01",
            "\"\\u00e9\"",
            "\"\\u00g9\"",
            "\"\\u00",
            "\"\\x\"",
            "\"",
            "\"\\",
            "\"\n\"",
            "[1]]",
            "tru",
        ] {
            assert_eq!(plain::<Value>(text), None, "{text}");
        }
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(plain::<Value>(&deep(MAX_DEPTH)).is_some());
        assert!(plain::<Value>(&deep(MAX_DEPTH + 1)).is_none());
        assert!(plain::<de::IgnoredAny>(&deep(MAX_DEPTH + 1)).is_none());
        // What nobody wants to know of need only be well formed.
        assert!(plain::<de::IgnoredAny>(r#"["\u00e9",-1.5e+3]"#).is_some());
    }

    /// A value of a list that its visitor does not read to its end.
    #[test]
    fn what_is_not_read_to_its_end_is_not_read() {
        assert_eq!(plain::<(u8, u8)>("[1,2]"), Some((1, 2)));
        assert_eq!(plain::<(u8, u8)>("[1,2,3]"), None);
        assert_eq!(plain::<(u8, u8)>("[1]"), None);
    }

    proptest! {
        /// Whatever is read here, `serde_json` reads the same.
        #[test]
        fn what_is_read_is_what_anybody_reads(text in r#"([\[\]{}",:\\0-9a1.\-/nt]|true|null|"a"|"a":|\\n|\\u0061| ){0,24}"#) {
            if let Some(value) = plain::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(value));
            }
            if plain::<de::IgnoredAny>(&text).is_some() {
                prop_assert!(serde_json::from_str::<de::IgnoredAny>(&text).is_ok(), "{}", text);
            }
        }

        /// What a program writes is read, but for rare numbers and escapes.
        #[test]
        fn strings_are_what_was_written(texts in prop::collection::vec(r#"[ -~é世\n\t]{0,40}"#, 0..5)) {
            let written = serde_json::to_string(&texts).unwrap();
            prop_assert_eq!(plain::<Vec<String>>(&written), Some(texts));
        }
    }
}
