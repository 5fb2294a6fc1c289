//! Whether an answer that cannot be used asks for a refusal all the same.
//!
//! In: the bytes of a broken answer. Out: the refusal in it, if there is one.
//! The reader is tolerant: it follows strings and nesting, takes any bytes for
//! text, and looks for the key `decision` of the outermost object. Of several
//! values a refusal wins. Text inside other strings and inner objects does not
//! count, unless quotes or brackets do not match or the answer is cut short:
//! nobody can tell then what is inside what, so any mention counts. Each byte
//! is read a bounded number of times.

use super::STATUS_OF_BLOCK;
use super::rules::block_status_is_valid;
use crate::fault::Refusal;

/// The words that refuse.
const REFUSING: [&str; 4] = ["block", "deny", "redirect", "challenge"];
/// The word that does not.
const ALLOWING: &str = "allow";
const KEY: &str = "decision";
const STATUS: &str = "status";
/// No key or word of interest is longer, even if every letter is escaped.
const MAX_WORD_BYTES: usize = 64;
/// Bytes between the key and its value, spaces not counted, where something
/// stands between them that no JSON has: a comment, a call, damage.
const MAX_GAP_BYTES: usize = 64;

/// The refusal that `bytes` asks for.
pub(crate) fn find_refusal(bytes: &[u8]) -> Option<Refusal> {
    // Text of two bytes a letter has a NUL beside each.
    let without: Vec<u8>;
    let bytes = if memchr::memchr(0, bytes).is_some() {
        without = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        &without
    } else {
        bytes
    };
    let mut reader = Reader::new(bytes);
    reader.read();
    let refuses = reader.refuses || (reader.is_unclear && mentions_refusal(bytes));
    refuses.then(|| Refusal {
        status: reader.status.unwrap_or(STATUS_OF_BLOCK),
    })
}

/// What the reader expects next in an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Key,
    Colon,
    Value,
    /// After a value.
    End,
}

/// The keys of the outermost object that matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Decision,
    Status,
    Other,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// For each open bracket, whether it is an object's.
    open: Vec<bool>,
    /// How many of them are.
    objects: usize,
    /// How many were open at the last key of the outermost object.
    key_depth: usize,
    place: Place,
    key: Key,
    refuses: bool,
    blocks: bool,
    status: Option<u16>,
    /// Quotes or brackets do not match, or the answer is cut short.
    is_unclear: bool,
}

impl<'a> Reader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            open: Vec::new(),
            objects: 0,
            key_depth: 0,
            place: Place::Value,
            key: Key::Other,
            refuses: false,
            blocks: false,
            status: None,
            is_unclear: false,
        }
    }

    fn read(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'{' | b'[' => self.open(byte == b'{'),
                b'}' | b']' => self.close(byte == b'}'),
                b',' => self.comma(),
                b':' => self.colon(),
                b'"' => self.string(),
                _ => self.bare(),
            }
        }
        let cut = !self.open.is_empty();
        // Nobody can tell what was to follow the key.
        self.refuses |=
            cut && self.is_decision() && matches!(self.place, Place::Colon | Place::Value);
        self.is_unclear |= cut;
        // A status belongs to a block; other refusals have their own.
        self.status = self.status.filter(|_| self.blocks);
    }

    fn open(&mut self, is_object: bool) {
        // A key is text.
        self.is_unclear |= self.in_object() && matches!(self.place, Place::Key | Place::Colon);
        self.open.push(is_object);
        self.objects += usize::from(is_object);
        self.place = if is_object { Place::Key } else { Place::Value };
        self.at += 1;
    }

    fn close(&mut self, is_object: bool) {
        let closed = self.open.pop();
        self.objects -= usize::from(closed == Some(true));
        self.is_unclear |= closed != Some(is_object)
            || (is_object && matches!(self.place, Place::Colon | Place::Value));
        self.place = Place::End;
        self.at += 1;
    }

    fn comma(&mut self) {
        self.is_unclear |= self.open.is_empty()
            || (self.in_object() && matches!(self.place, Place::Colon | Place::Value));
        self.place = if self.in_object() {
            Place::Key
        } else {
            Place::Value
        };
        self.at += 1;
    }

    fn colon(&mut self) {
        self.is_unclear |= !self.in_object() || self.place != Place::Colon;
        self.place = Place::Value;
        self.at += 1;
    }

    fn string(&mut self) {
        let start = self.at + 1;
        let mut end = start;
        loop {
            let found = memchr::memchr2(b'"', b'\\', self.bytes.get(end..).unwrap_or_default());
            let Some(found) = found else {
                // It never ends.
                self.is_unclear = true;
                end = self.bytes.len();
                self.at = end;
                break;
            };
            end += found;
            if self.bytes[end] == b'"' {
                self.at = end + 1;
                break;
            }
            end = (end + 2).min(self.bytes.len());
        }
        // Text right beside a quote: one of the two is not what it seems.
        let next = self.bytes.get(self.at);
        self.is_unclear |= next.is_some_and(|next| !is_separator(*next));
        self.token(start, end);
    }

    /// A number, a word, or what else stands without quotes.
    fn bare(&mut self) {
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = rest
            .iter()
            .position(|byte| is_separator(*byte) || *byte == b'"');
        self.at = length.map_or(self.bytes.len(), |length| start + length);
        self.is_unclear |= self.bytes.get(self.at) == Some(&b'"');
        // Words behind a value are none of JSON.
        self.is_unclear |= self.in_object() && matches!(self.place, Place::End | Place::Colon);
        let rest = &self.bytes[start..self.at];
        // Quotes of other alphabets, and what else surrounds a word.
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'\\';
        let first = rest.iter().position(is_letter).unwrap_or(0);
        let last = rest
            .iter()
            .rposition(is_letter)
            .map_or(rest.len(), |last| last + 1);
        self.token(start + first, start + last);
    }

    /// Takes a string or a bare word for the key or the value that it is.
    fn token(&mut self, start: usize, end: usize) {
        let text = self.bytes.get(start..end).unwrap_or_default();
        if !self.in_object() {
            // An element of an array that is the decision itself.
            if self.is_within_decision() {
                self.decision(text);
            }
            self.place = Place::End;
            return;
        }
        match self.place {
            // Where a comma is missing, what follows a value is a key.
            Place::Key | Place::End => {
                if self.objects == 1 {
                    self.key = Key::of(text);
                    self.key_depth = self.open.len();
                } else if self.is_within_decision() {
                    self.decision(text);
                }
                self.place = Place::Colon;
            }
            Place::Colon => self.is_unclear = true,
            Place::Value => {
                match self.key {
                    Key::Status if self.objects == 1 => self.status = number(text),
                    Key::Decision if self.objects == 1 || self.is_within_decision() => {
                        self.decision(text);
                    }
                    _ => {}
                }
                self.place = Place::End;
            }
        }
    }

    fn decision(&mut self, text: &[u8]) {
        let word = decoded(text);
        let is_cut = self.at >= self.bytes.len();
        let says = |refusing: &&&str| **refusing == word || (is_cut && refusing.starts_with(&word));
        if let Some(refusing) = REFUSING.iter().find(says) {
            self.refuses = true;
            self.blocks |= matches!(*refusing, "block" | "deny");
        }
    }

    fn in_object(&self) -> bool {
        self.open.last() == Some(&true)
    }

    fn is_decision(&self) -> bool {
        self.key == Key::Decision && self.open.len() == self.key_depth
    }

    /// In an array or object that stands where the decision's word should.
    fn is_within_decision(&self) -> bool {
        self.key == Key::Decision && self.open.len() > self.key_depth
    }
}

impl Key {
    fn of(text: &[u8]) -> Self {
        match decoded(text).as_str() {
            KEY => Self::Decision,
            STATUS => Self::Status,
            _ => Self::Other,
        }
    }
}

const fn is_separator(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'}' | b'[' | b']' | b',' | b':'
    )
}

fn number(text: &[u8]) -> Option<u16> {
    let status = std::str::from_utf8(text).ok()?.parse().ok()?;
    block_status_is_valid(status).then_some(status)
}

/// The text without escapes, in lower case; empty
/// where it is too long to be a word of interest.
fn decoded(text: &[u8]) -> String {
    if text.len() > MAX_WORD_BYTES {
        return String::new();
    }
    let mut word = String::new();
    let mut at = 0;
    while at < text.len() {
        let (letter, next) = letter(text, at);
        word.push(letter);
        at = next;
    }
    word
}

/// The letter at a place, in lower case, and where the next begins. What is
/// no ASCII is some other letter, which no word of interest has.
fn letter(text: &[u8], at: usize) -> (char, usize) {
    if let Some(escape) = text.get(at..at + 6)
        && escape.starts_with(b"\\u")
        && let Ok(hex) = std::str::from_utf8(&escape[2..])
        && let Ok(code) = u8::from_str_radix(hex, 16)
        && code.is_ascii()
    {
        return (char::from(code.to_ascii_lowercase()), at + 6);
    }
    let byte = text.get(at).copied().unwrap_or_default();
    (char::from(byte.to_ascii_lowercase()), at + 1)
}

/// Whether the key `decision` stands anywhere with a refusing word behind it.
fn mentions_refusal(bytes: &[u8]) -> bool {
    let mut starts = memchr::memchr3_iter(b'd', b'D', b'\\', bytes);
    starts.any(|start| {
        end_of_word(bytes, start, KEY).is_some_and(|end| refusing_word_follows(bytes, end))
    })
}

/// Where `word` ends, if it begins at `start`.
fn end_of_word(bytes: &[u8], start: usize, word: &str) -> Option<usize> {
    let mut at = start;
    for expected in word.chars() {
        let (found, next) = letter(bytes, at);
        if at >= bytes.len() || found != expected {
            return None;
        }
        at = next;
    }
    Some(at)
}

fn refusing_word_follows(bytes: &[u8], key_end: usize) -> bool {
    let mut at = key_end;
    let mut gap = 0;
    let mut says_more = false;
    while gap <= MAX_GAP_BYTES {
        let Some(byte) = bytes.get(at) else {
            // Cut before the value: nobody can tell what it was to be.
            return !says_more;
        };
        if REFUSING
            .iter()
            .any(|word| begins_or_is_cut(bytes, at, word))
        {
            return true;
        }
        // What follows another key is looked at from there, once.
        let ends = [ALLOWING, KEY];
        if ends
            .iter()
            .any(|word| end_of_word(bytes, at, word).is_some())
        {
            return false;
        }
        gap += usize::from(!byte.is_ascii_whitespace());
        says_more |= byte.is_ascii_alphanumeric();
        at += 1;
    }
    false
}

/// Whether a word stands here, or what the end of the answer left of it.
fn begins_or_is_cut(bytes: &[u8], start: usize, word: &str) -> bool {
    let mut at = start;
    for expected in word.chars() {
        if at >= bytes.len() {
            return at > start;
        }
        let (found, next) = letter(bytes, at);
        if found != expected {
            return false;
        }
        at = next;
    }
    true
}

#[cfg(test)]
#[cfg(feature = "cli")]
#[path = "refusal_tests.rs"]
mod tests;
