//! Cutting a stream into records: lines, and elements of JSON.
//!
//! Invariant: memory is bounded by the longest record that is allowed; a
//! longer one is passed over and named, and reading goes on behind it.

use std::{io, mem};

use bytes::{Buf as _, Bytes};
use memchr::{memchr, memchr2};

use super::stream::{Cut, Cutter, Stream};

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

/// Bytes of a key that are worth remembering.
const KEY_BYTES: usize = 64;

/// A record for each JSON value that [`Records`] names. What stands around
/// them is passed over; the values themselves are not looked into.
pub(super) struct Elements {
    stream: Stream,
    /// Bytes that the stream has ready, and how many of them were looked at.
    chunk: Vec<u8>,
    at: usize,
    records: Records,
    /// Containers open around the current byte.
    depth: usize,
    /// Whether the array of records is open, and how deep its elements are.
    inside: Option<usize>,
    /// Whether that array was ever seen.
    seen: bool,
    in_string: bool,
    escaped: bool,
    /// The string read last outside of records.
    token: Vec<u8>,
    /// The key whose value is being read, at depths 1 and 2.
    keys: [Vec<u8>; 2],
    current: Option<Current>,
}

struct Current {
    offset: u64,
    collected: Collected,
    /// A number, a word or a string: no brackets to count.
    scalar: bool,
}

/// What a byte means for the record that is being read.
enum Step {
    /// Go on behind this many bytes.
    Taken(usize),
    /// The record is complete with this many bytes.
    Complete(usize),
}

impl Elements {
    pub(super) fn new(stream: Stream, records: Records) -> Self {
        Self {
            stream,
            chunk: Vec::new(),
            at: 0,
            records,
            depth: 0,
            inside: (records == Records::TopLevel).then_some(0),
            seen: records == Records::TopLevel,
            in_string: false,
            escaped: false,
            token: Vec::new(),
            keys: [Vec::new(), Vec::new()],
            current: None,
        }
    }

    /// Goes on in the chunk, to the end of a record or of the chunk.
    fn look_at(&mut self, chunk: &[u8]) -> bool {
        while self.at < chunk.len() {
            let rest = &chunk[self.at..];
            if self.current.is_none() {
                self.at += self.around(rest);
                continue;
            }
            let (bytes, complete) = match self.within(rest) {
                Step::Taken(bytes) => (bytes, false),
                Step::Complete(bytes) => (bytes, true),
            };
            self.collect(&rest[..bytes]);
            self.at += bytes;
            if complete {
                return true;
            }
        }
        false
    }

    fn collect(&mut self, bytes: &[u8]) {
        let most = self.stream.max_record;
        if let Some(current) = &mut self.current {
            current.collected.push(bytes, most);
        }
    }

    fn complete(&mut self) -> Option<Cut> {
        let Current {
            offset, collected, ..
        } = self.current.take()?;
        Some(
            self.stream
                .cut(offset, collected.size, collected.bytes.into()),
        )
    }

    /// Inside a record: only strings and brackets matter.
    fn within(&mut self, rest: &[u8]) -> Step {
        let floor = self.inside.unwrap_or(0);
        let scalar = self.current.as_ref().is_some_and(|current| current.scalar);
        let mut at = 0;
        while at < rest.len() {
            if self.in_string {
                at += self.string(&rest[at..]);
                if !self.in_string && scalar && self.depth == floor {
                    return Step::Complete(at);
                }
                continue;
            }
            let byte = rest[at];
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if !scalar => self.depth += 1,
                b'}' | b']' if !scalar => {
                    self.depth -= 1;
                    if self.depth == floor {
                        return Step::Complete(at + 1);
                    }
                }
                b',' | b'{' | b'}' | b'[' | b']' | b'\n' | b' ' if scalar => {
                    return Step::Complete(at);
                }
                _ => {}
            }
            at += 1;
        }
        Step::Taken(at)
    }

    /// In a string: up to its end, or as far as the bytes go.
    fn string(&mut self, rest: &[u8]) -> usize {
        let mut at = 0;
        if self.escaped {
            self.escaped = false;
            at = 1;
        }
        while at < rest.len() {
            match memchr2(b'"', b'\\', &rest[at..]) {
                None => return rest.len(),
                Some(found) if rest[at + found] == b'"' => {
                    self.in_string = false;
                    return at + found + 1;
                }
                Some(found) => {
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

    /// Outside of records: looks for the array, and for its elements. Hands
    /// back how many bytes it took; none where a record begins.
    fn around(&mut self, rest: &[u8]) -> usize {
        if self.in_string {
            let taken = self.string(rest);
            let keep = KEY_BYTES.saturating_sub(self.token.len()).min(taken);
            self.token.extend_from_slice(&rest[..keep]);
            return taken;
        }
        let Some(byte) = rest.first() else { return 0 };
        if self.inside == Some(self.depth) && !matches!(byte, b',' | b']' | b'}') {
            if byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf) {
                return 1;
            }
            self.current = Some(Current {
                offset: self.stream.offset + self.at as u64,
                collected: Collected::default(),
                scalar: !matches!(byte, b'{' | b'['),
            });
            return 0;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.token.clear();
            }
            b':' if self.depth == 1 || self.depth == 2 => {
                // The token still has its closing quote.
                self.token.pop();
                self.keys[self.depth - 1] = mem::take(&mut self.token);
            }
            b'{' => self.depth += 1,
            b'[' => {
                self.depth += 1;
                if let Records::Within([outer, inner]) = self.records
                    && self.depth == 3
                    && self.keys[0] == outer.as_bytes()
                    && self.keys[1] == inner.as_bytes()
                {
                    self.inside = Some(3);
                    self.seen = true;
                }
            }
            b'}' | b']' => {
                if self.inside == Some(self.depth) && self.records != Records::TopLevel {
                    self.inside = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
        1
    }

    /// Asked again it has nothing more to say.
    fn at_end(&mut self) -> Option<Cut> {
        let (seen, depth) = (
            mem::replace(&mut self.seen, true),
            mem::take(&mut self.depth),
        );
        let refuse = |stream: &Stream, offset, why| Some(Err(stream.unusable(offset, why)));
        if let Some(current) = self.current.take_if(|it| !it.scalar || self.in_string) {
            let why = format!(
                "the file ends in the middle of this record, {} bytes into it",
                current.collected.size
            );
            return refuse(&self.stream, current.offset, why);
        }
        if self.current.is_some() {
            return self.complete();
        }
        if !seen && let Records::Within([outer, inner]) = self.records {
            let why = format!("expected an array {outer}.{inner}, found none");
            return refuse(&self.stream, 0, why);
        }
        if depth > 0 {
            let why = format!(
                "the file ends before its JSON does; the {} records before were read",
                self.stream.record
            );
            return refuse(&self.stream, self.stream.offset, why);
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
            let complete = self.look_at(&chunk);
            self.chunk = chunk;
            if complete {
                return Ok(self.complete());
            }
        }
    }
}
