//! Cutting a stream into records: lines, and elements of JSON.
//!
//! Invariant: memory is bounded by the longest record that is allowed; a
//! longer one is passed over and named, and reading goes on behind it.

use std::{io, mem};

use bytes::{Buf as _, Bytes};
use memchr::{memchr, memchr2, memchr3};
use serde::de::IgnoredAny;

use super::stream::{Cut, Cutter, Stream};
use crate::fault::printable;

/// A record that is being collected.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    /// All its bytes, those not kept too.
    size: usize,
}

impl Collected {
    fn push(&mut self, bytes: &[u8], most: usize) {
        self.size += bytes.len();
        if self.size <= most {
            self.bytes.extend_from_slice(bytes);
        } else {
            // Nobody will read what is there of it.
            self.bytes = Vec::new();
        }
    }
}

/// A record for each line that is not blank. Lines share the block they were
/// read in, so that most are never copied.
pub(super) struct Lines {
    stream: Stream,
    /// What was read and not handed out yet.
    block: Bytes,
    /// Where the line begins that is being read.
    begin: u64,
}

/// One line; of one that is too long only the size.
struct Line {
    bytes: Bytes,
    size: usize,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            begin: stream.offset,
            stream,
            block: Bytes::new(),
        }
    }

    fn line(&mut self) -> io::Result<Option<Line>> {
        if let Some(size) = memchr(b'\n', &self.block) {
            let bytes = self.taken(size);
            return Ok(Some(Line { bytes, size }));
        }
        // It goes on in the next blocks, or is the last.
        let mut line = Collected::default();
        loop {
            let end = memchr(b'\n', &self.block);
            let part = self.taken(end.unwrap_or(self.block.len()));
            line.push(&part, self.stream.max_record);
            if end.is_none() {
                self.block = self.stream.block()?;
                if !self.block.is_empty() {
                    continue;
                }
                if line.size == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some(Line {
                bytes: line.bytes.into(),
                size: line.size,
            }));
        }
    }

    /// Takes so many bytes, and the end of the line behind them.
    fn taken(&mut self, bytes: usize) -> Bytes {
        let line = self.block.split_to(bytes);
        let end = usize::from(!self.block.is_empty());
        self.block.advance(end);
        self.stream.offset += (bytes + end) as u64;
        line
    }
}

impl Cutter for Lines {
    fn stream(&self) -> &Stream {
        &self.stream
    }

    fn offset(&self) -> u64 {
        self.begin
    }

    fn next_record(&mut self) -> io::Result<Option<Cut>> {
        loop {
            let offset = self.stream.offset;
            self.begin = offset;
            let Some(Line { mut bytes, size }) = self.line()? else {
                return Ok(None);
            };
            // Of several files that were joined each may have one.
            while bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.advance(3);
            }
            if size <= self.stream.max_record && bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return Ok(Some(self.stream.cut(offset, size, bytes)));
        }
    }
}

/// Which JSON values of a stream are records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    /// Each value of the stream, with or without anything between them.
    TopLevel,
    /// Each element of the array at these two keys.
    Within([&'static str; 2]),
}

/// Bytes of a key that are always kept.
const KEY_BYTES: usize = 64;
/// How deep the elements of [`Records::Within`] are.
const LIST: usize = 3;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A record for each JSON value that [`Records`] names. What stands around them
/// must be JSON too, and is named where it is none: nothing is passed over but
/// white space, commas and the other keys of the wrapper. An object that stands
/// where none can is a record, as behind a bracket too many.
pub(super) struct Elements {
    stream: Stream,
    /// Bytes that the stream has ready, and how many of them were looked at.
    chunk: Vec<u8>,
    at: usize,
    records: Records,
    /// How many containers of the wrapper are open: 1 and 2 are the objects with
    /// the two keys, [`LIST`] is the array.
    level: usize,
    /// What comes next in the objects of the wrapper.
    expects: [Expect; LIST],
    /// Where the wrapper that was seen last begins, and whether it has the array.
    wrapper: Option<u64>,
    has_list: bool,
    /// The key whose value comes next, with its quotes.
    key: Vec<u8>,
    key_offset: u64,
    /// Containers open within the current value.
    depth: usize,
    in_string: bool,
    escaped: bool,
    current: Option<Current>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Key,
    Colon,
    Value,
    Comma,
}

/// A value, or bytes that are none, being collected.
struct Current {
    kind: Kind,
    offset: u64,
    collected: Collected,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Record,
    /// Of an object of the wrapper.
    Key,
    /// The value of a key that holds no records.
    Passed,
    /// What can stand nowhere.
    Junk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Container,
    Text,
    /// A number, a word, or anything else.
    Word,
}

/// What a byte means for the value that is being read.
enum Step {
    /// Go on behind this many bytes.
    Taken(usize),
    /// The value is complete with this many bytes.
    Complete(usize),
}

impl Elements {
    pub(super) fn new(stream: Stream, records: Records) -> Self {
        Self {
            stream,
            chunk: Vec::new(),
            at: 0,
            records,
            level: 0,
            expects: [Expect::Key; LIST],
            wrapper: None,
            has_list: false,
            key: Vec::new(),
            key_offset: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            current: None,
        }
    }

    /// Goes on in the chunk, to the next record or to the end of the chunk.
    fn look_at(&mut self, chunk: &[u8]) -> Option<Cut> {
        while let Some(rest) = chunk.get(self.at..).filter(|rest| !rest.is_empty()) {
            if self.current.is_none() {
                if let Some(cut) = self.around(rest[0]) {
                    return Some(cut);
                }
                continue;
            }
            let (bytes, complete) = match self.within(rest) {
                Step::Taken(bytes) => (bytes, false),
                Step::Complete(bytes) => (bytes, true),
            };
            self.collect(&rest[..bytes]);
            self.at += bytes;
            if complete && let Some(cut) = self.complete() {
                return Some(cut);
            }
        }
        None
    }

    fn collect(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current {
            let most = match current.kind {
                Kind::Key | Kind::Junk => self.stream.max_record.max(KEY_BYTES),
                Kind::Record | Kind::Passed => self.stream.max_record,
            };
            current.collected.push(bytes, most);
        }
    }

    fn complete(&mut self) -> Option<Cut> {
        let Current {
            kind,
            offset,
            collected: Collected { bytes, size },
            ..
        } = self.current.take()?;
        match kind {
            Kind::Record => return Some(self.stream.cut(offset, size, bytes.into())),
            Kind::Key => {
                self.key = bytes;
                self.key_offset = offset;
                self.expect(Expect::Colon);
            }
            // One that is too long to be kept is taken for what it seems to be.
            Kind::Passed => {
                let is_json = || serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
                if size == bytes.len() && !is_json() {
                    return self.junk(offset, &bytes);
                }
            }
            Kind::Junk if self.level == 0 && bytes == BYTE_ORDER_MARK => {}
            Kind::Junk => return self.junk(offset, &bytes),
        }
        None
    }

    /// Bytes that are neither a record nor JSON around them.
    fn junk(&mut self, offset: u64, bytes: &[u8]) -> Option<Cut> {
        let shown = printable(&String::from_utf8_lossy(bytes), 40);
        let why = format!("expected nothing but JSON around the records, found {shown:?}");
        let unusable = self.stream.unusable(offset, why);
        self.stream.record += 1;
        Some(Err(unusable))
    }

    fn expect(&mut self, next: Expect) {
        if let Some(expects) = self.expects.get_mut(self.level) {
            *expects = next;
        }
    }

    /// Inside a value: only strings and brackets matter.
    fn within(&mut self, rest: &[u8]) -> Step {
        let form = self.current.as_ref().map_or(Form::Word, |it| it.form);
        let mut at = 0;
        while at < rest.len() {
            if self.in_string {
                at += self.string(&rest[at..]);
                if !self.in_string && form == Form::Text {
                    return Step::Complete(at);
                }
                // No text of JSON has a line feed: the record was cut within one.
                if self.records == Records::TopLevel && self.in_string && at < rest.len() {
                    self.in_string = false;
                    self.depth = 0;
                    return Step::Complete(at);
                }
                continue;
            }
            match (form, rest[at]) {
                (Form::Word, byte)
                    if (at > 0 || self.has_begun())
                        && (byte.is_ascii_whitespace() || b",:{}[]\"".contains(&byte)) =>
                {
                    return Step::Complete(at);
                }
                (_, b'"') => self.in_string = true,
                (Form::Container, b'{' | b'[') => self.depth += 1,
                (Form::Container, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Step::Complete(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Step::Taken(at)
    }

    /// Whether a byte of the current value was taken.
    fn has_begun(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|current| current.collected.size > 0)
    }

    /// In a string: up to its end, or as far as the bytes go. Where each value of
    /// the stream is a record, a line feed is its end too.
    fn string(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        if self.escaped {
            self.escaped = false;
            at = 1;
        }
        let is_cut_by_lines = self.records == Records::TopLevel;
        while at < rest.len() {
            let found = if is_cut_by_lines {
                memchr3(b'"', b'\\', b'\n', &rest[at..])
            } else {
                memchr2(b'"', b'\\', &rest[at..])
            };
            let Some(found) = found else {
                return rest.len();
            };
            match rest[at + found] {
                b'"' => {
                    self.in_string = false;
                    return at + found + 1;
                }
                b'\n' => return at + found,
                _ => {
                    at += found + 2;
                    if at > rest.len() {
                        self.escaped = true;
                        return rest.len();
                    }
                }
            }
        }
        at
    }

    /// Outside of values: takes this byte, or begins a value with it.
    fn around(&mut self, byte: u8) -> Option<Cut> {
        if byte.is_ascii_whitespace() {
            self.at += 1;
            return None;
        }
        let expects = self.expects.get(self.level).copied();
        match (self.level, expects, byte) {
            // A key that no value follows is none.
            (1 | 2, Some(Expect::Colon), _) if byte != b':' => {
                self.expect(Expect::Comma);
                let key = mem::take(&mut self.key);
                return self.junk(self.key_offset, &key);
            }
            (1 | 2, Some(Expect::Colon), _) => self.expect(Expect::Value),
            (1 | 2, Some(Expect::Value), b',' | b'}' | b']' | b':') => {
                self.expect(Expect::Comma);
                let key = mem::take(&mut self.key);
                return self.junk(self.key_offset, &key);
            }
            (1 | 2, Some(Expect::Value), _) => {
                self.expect(Expect::Comma);
                if !self.descends(byte) {
                    self.begin(Kind::Passed, byte);
                    return None;
                }
            }
            (1 | 2, _, b',') => self.expect(Expect::Key),
            (1 | 2, _, b'}') => {
                self.level -= 1;
                self.at += 1;
                return self.end_of_wrapper();
            }
            (1 | 2, _, b'"') => {
                self.begin(Kind::Key, byte);
                return None;
            }
            (_, _, b',') => {}
            (LIST, _, b']') => {
                self.level = match self.records {
                    Records::TopLevel => 0,
                    Records::Within(_) => LIST - 1,
                };
            }
            (0, _, b'{') if self.records != Records::TopLevel => {
                self.wrapper = Some(self.offset_here());
                self.has_list = false;
                self.level = 1;
                self.expect(Expect::Key);
            }
            (0, _, b'[') if self.records == Records::TopLevel => self.level = LIST,
            (_, _, b'}' | b']' | b':') => {
                let offset = self.offset_here();
                self.at += 1;
                return self.junk(offset, &[byte]);
            }
            (level, _, _) => {
                let is_list = level == LIST || self.records == Records::TopLevel;
                let is_mark = level == 0 && byte == BYTE_ORDER_MARK[0];
                let is_record = byte == b'{' || is_list && !is_mark;
                let kind = if is_record { Kind::Record } else { Kind::Junk };
                self.begin(kind, byte);
                return None;
            }
        }
        self.at += 1;
        None
    }

    fn offset_here(&self) -> u64 {
        self.stream.offset + self.at as u64
    }

    fn begin(&mut self, kind: Kind, byte: u8) {
        self.depth = 0;
        self.current = Some(Current {
            kind,
            offset: self.offset_here(),
            collected: Collected::default(),
            form: match byte {
                b'{' | b'[' => Form::Container,
                b'"' => Form::Text,
                _ => Form::Word,
            },
        });
    }

    /// Whether this value of the wrapper is on the way to the records.
    fn descends(&mut self, byte: u8) -> bool {
        let Records::Within(keys) = self.records else {
            return false;
        };
        let Some(wanted) = keys.get(self.level - 1) else {
            return false;
        };
        let key = self.key.strip_prefix(b"\"");
        let key = key.and_then(|key| key.strip_suffix(b"\""));
        let opens = if self.level == LIST - 1 { b'[' } else { b'{' };
        if key != Some(wanted.as_bytes()) || byte != opens {
            return false;
        }
        self.level += 1;
        self.expect(Expect::Key);
        self.has_list |= self.level == LIST;
        true
    }

    /// The wrapper may have ended: it is named where it had no records.
    fn end_of_wrapper(&mut self) -> Option<Cut> {
        let offset = self.wrapper.take_if(|_| self.level == 0)?;
        if self.has_list {
            return None;
        }
        let unusable = self.no_list(offset);
        self.stream.record += 1;
        unusable
    }

    fn no_list(&self, offset: u64) -> Option<Cut> {
        let Records::Within([outer, inner]) = self.records else {
            return None;
        };
        let why = format!("expected an array {outer}.{inner}, found none");
        Some(Err(self.stream.unusable(offset, why)))
    }

    /// Asked again it has nothing more to say.
    fn at_end(&mut self) -> Option<Cut> {
        let level = mem::take(&mut self.level);
        let is_complete = |it: &Current| it.form == Form::Word && it.kind != Kind::Passed;
        if let Some(current) = self.current.take_if(|it| !is_complete(it)) {
            let why = format!(
                "the file ends in the middle of this record, {} bytes into it",
                current.collected.size
            );
            return Some(Err(self.stream.unusable(current.offset, why)));
        }
        if self.current.is_some() {
            self.level = level;
            let cut = self.complete();
            if cut.is_some() {
                return cut;
            }
            self.level = 0;
        }
        let wrapper = self.wrapper.take();
        let is_none = wrapper.is_none() && self.stream.record == 0;
        let lacks_list = !mem::replace(&mut self.has_list, true) && (wrapper.is_some() || is_none);
        if lacks_list && let Some(cut) = self.no_list(wrapper.unwrap_or(0)) {
            return Some(cut);
        }
        if level > 0 {
            let why = format!(
                "the file ends before its JSON does; the {} records before were read",
                self.stream.record
            );
            return Some(Err(self.stream.unusable(self.stream.offset, why)));
        }
        None
    }
}

impl Cutter for Elements {
    fn stream(&self) -> &Stream {
        &self.stream
    }

    fn next_record(&mut self) -> io::Result<Option<Cut>> {
        loop {
            if self.at >= self.chunk.len() {
                self.stream.take(self.chunk.len());
                self.chunk.clear();
                self.at = 0;
                // A copy, so that the state may change while it is looked at.
                self.chunk.extend_from_slice(self.stream.ready()?);
                if self.chunk.is_empty() {
                    return Ok(self.at_end());
                }
            }
            let chunk = mem::take(&mut self.chunk);
            let found = self.look_at(&chunk);
            self.chunk = chunk;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;

    const HAR: Records = Records::Within(["log", "entries"]);

    /// What is cut out of a text: records in their own words, and what is named with
    /// its place.
    fn cut(text: &str, records: Records) -> Vec<String> {
        let file: Arc<str> = Arc::from("c");
        let bytes = Cursor::new(text.as_bytes().to_vec());
        let mut elements = Elements::new(Stream::new(Box::new(bytes), &file, 1 << 20), records);
        let mut found = Vec::new();
        while let Some(cut) = elements.next_record().unwrap() {
            found.push(match cut {
                Ok(piece) => String::from_utf8(piece.bytes.to_vec()).unwrap(),
                Err(bad) => {
                    let quoted = bad.why.split_once("found \"").map(|(_, quoted)| quoted);
                    format!(
                        "!{} {}",
                        bad.place.offset,
                        quoted.unwrap_or(&bad.why).trim_end_matches('"')
                    )
                }
            });
        }
        assert!(elements.next_record().unwrap().is_none(), "{text}");
        found
    }

    #[test]
    fn what_stands_around_entries_is_theirs_or_named() {
        let (no_list, ends) = (
            "expected an array log.entries, found none",
            "the file ends before",
        );
        for (text, expected) in [
            (
                r#"{"log":{"version":"1.2","pages":[{"entries":[5]}],"entries":[{"a":1},{"b":"]"}],"comment":""},"x":{"y":[1]}}"#,
                &[r#"{"a":1}"#, r#"{"b":"]"}"#][..],
            ),
            // A bracket too many, of either kind, and one too few.
            (
                r#"{"log":{"entries":[{"a":1}],{"b":2}]}}"#,
                &[r#"{"a":1}"#, r#"{"b":2}"#, "!35 ]"],
            ),
            (
                r#"{"log":{"entries":[{"a":1}},{"b":2}]}}"#,
                &[r#"{"a":1}"#, "!26 }", r#"{"b":2}"#],
            ),
            (
                r#"{"log":{"entries":[{"a":1}]}}} {"b":2}"#,
                &[r#"{"a":1}"#, "!29 }", &format!("!31 {no_list}")],
            ),
            (
                r#"{"log":{"entries":[{"a":1}]]}}"#,
                &[r#"{"a":1}"#, "!27 ]"],
            ),
            (
                r#"{"log":{"entries":[{"a":1}}}"#,
                &[
                    r#"{"a":1}"#,
                    "!26 }",
                    "!27 }",
                    &format!("!28 {ends} its JSON does; the 3 records before were read"),
                ],
            ),
            // Text behind, between and before.
            (
                r#"{"log":{"entries":[{"a":1}]}} two"#,
                &[r#"{"a":1}"#, "!30 two"],
            ),
            (
                r#"one {"log":{"entries":[{"a":1}x{"b":2},"c"]}}"#,
                &["!0 one", r#"{"a":1}"#, "x", r#"{"b":2}"#, r#""c""#],
            ),
            (
                r#"{"log":{x "entries":[{"a":1}]y}}"#,
                &["!8 x", r#"{"a":1}"#, "!29 y"],
            ),
            (
                r#"{"log":{"a" "entries":[],"b":,"c":1.x}}"#,
                &[r#"!8 \"a\"#, r#"!25 \"b\"#, "!34 1.x"],
            ),
            (
                r#"{"log":{"pages":[1}2],"entries":[{"a":1}]}}"#,
                &["!16 [1}", "!19 2", "!20 ]", r#"{"a":1}"#],
            ),
            // A second archive, with its mark or without, and one without entries.
            (
                "{\"log\":{\"entries\":[{}]}}\n\u{feff}{\"log\":{\"entries\":[{\"b\":2}]}}",
                &["{}", r#"{"b":2}"#],
            ),
            (
                r#"{"log":{"entries":[{}]}}{"log":{}}"#,
                &["{}", &format!("!24 {no_list}")],
            ),
            (r#"{"log":{"entries":5}}"#, &[&format!("!0 {no_list}")]),
            (
                r#"{"log":{"entries":[{}]}"#,
                &[
                    "{}",
                    &format!("!23 {ends} its JSON does; the 1 records before were read"),
                ],
            ),
            ("", &[&format!("!0 {no_list}")]),
        ] {
            assert_eq!(cut(text, HAR), expected, "{text}");
        }
    }

    #[test]
    fn a_list_without_its_key_is_told_beside_what_is_cut() {
        let no_list = "!0 expected an array log.entries, found none";
        let cut_at = |at: usize| {
            format!("!{at} the file ends in the middle of this record, 1 bytes into it")
        };
        let closed = r#"{"log":{"entr ies":[{}]}}["#;
        assert_eq!(cut(closed, HAR), [no_list, &cut_at(25)]);
        let open = r#"{"log":{"entr ies":[{}]}["#;
        assert_eq!(cut(open, HAR), [&cut_at(24), no_list]);
    }

    #[test]
    fn values_one_after_the_other_are_all_read_or_named() {
        for (text, expected) in [
            (
                "{\"a\":1}\n{\"b\":2},{\"c\":3}",
                &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#][..],
            ),
            (
                r#"{"a":1}garbage{"b":2}"#,
                &[r#"{"a":1}"#, "garbage", r#"{"b":2}"#],
            ),
            (
                r#"{"a":1}}]{"b":2}"#,
                &[r#"{"a":1}"#, "!7 }", "!8 ]", r#"{"b":2}"#],
            ),
            (r#"[{"a":1},{"b":2}] 5"#, &[r#"{"a":1}"#, r#"{"b":2}"#, "5"]),
            ("\u{feff}{}\u{feff}{}", &["{}", "{}"]),
            ("\u{fefe}{}", &["!0 \\u{fefe}", "{}"]),
            // A record that was cut within a text costs only itself.
            ("{\"a\":\"xy\n{\"b\":2}\n", &["{\"a\":\"xy", r#"{"b":2}"#]),
            (
                "[",
                &["!1 the file ends before its JSON does; the 0 records before were read"],
            ),
            (
                "{\"a\":",
                &["!0 the file ends in the middle of this record, 5 bytes into it"],
            ),
        ] {
            assert_eq!(cut(text, Records::TopLevel), expected, "{text}");
        }
    }
}
