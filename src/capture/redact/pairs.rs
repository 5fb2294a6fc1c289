//! Names and values with a colon between them: JSON, YAML, programs, headers.

use std::cell::LazyCell;
use std::ops::Range;

use memchr::memmem;
use serde_json::{Map, Value as Json};

use super::SCHEMES;
use super::names::{LONGEST_NAME, end_of_name, is_secret, is_word};
use super::places::{Place, Places, Quote};

/// Keys that hold the name of what stands beside them.
const NAME_KEYS: [&str; 14] = [
    "name",
    "key",
    "field",
    "fieldname",
    "param",
    "parameter",
    "header",
    "id",
    "property",
    "k",
    "n",
    "variable",
    "label",
    "path",
];
/// Parts of a private key in JSON (JWK).
const OF_JWK: [&str; 7] = ["d", "k", "p", "q", "dp", "dq", "qi"];
/// Keys that hold what has that name.
const VALUE_KEYS: [&str; 12] = [
    "value",
    "values",
    "val",
    "v",
    "content",
    "data",
    "text",
    "stringvalue",
    "defaultvalue",
    "answer",
    "input",
    "secret",
];

/// Whether an object has the name of a secret beside what has that name.
pub(super) fn names_secret(map: &Map<String, Json>) -> bool {
    map.iter().any(|(key, name)| {
        let is_name = NAME_KEYS.iter().any(|it| it.eq_ignore_ascii_case(key));
        is_name && name.as_str().is_some_and(is_name_of_secret)
    })
}

/// Whether it is one, or the path of one, such as `/user/password`.
fn is_name_of_secret(name: &str) -> bool {
    let name = name.strip_prefix('/').map_or(name, |path| {
        path.rsplit_once('/').map_or(path, |(_, last)| last)
    });
    is_secret(end_of_name(name))
}

/// Whether such a value stands under this key.
pub(super) fn is_value(key: &str) -> bool {
    VALUE_KEYS.iter().any(|it| it.eq_ignore_ascii_case(key))
}

/// Whether it is the name of a secret part of a key.
pub(super) fn is_of_jwk(key: &str) -> bool {
    OF_JWK.contains(&key)
}

/// A name before a colon.
struct Key<'a> {
    name: &'a str,
    /// Its closing quote.
    quote: Option<Range<usize>>,
}

/// The value behind a colon.
enum Value {
    Text(Range<usize>),
    Word(Range<usize>),
    /// A list or an object, by its opening bracket.
    Nested(usize),
    None,
}

/// Bytes between a name and its value in which other objects may stand.
const NEAR: usize = 512;

/// The secrets of a text's pairs. Hands back the name of the list or the object of
/// secrets that the text ends in.
pub(super) fn find(text: &str, places: &mut Places) -> Option<Range<usize>> {
    let mut open = None;
    let jwk = LazyCell::new(|| memmem::find(text.as_bytes(), b"\"kty\"").is_some());
    let is_jwk = || *jwk;
    let mut covered = 0;
    // Where the last colon was: what is before it was read.
    let mut floor = 0;
    // The end of a name that is a secret's, and of a value whose name may follow.
    let mut named: Option<usize> = None;
    let mut unnamed: Option<(usize, Place)> = None;
    // Where the last word ends that was looked at: others may begin in it.
    let mut word = 0;
    for colon in memchr::memchr_iter(b':', text.as_bytes()) {
        if colon < covered {
            continue;
        }
        let Some(key) = Key::before(text, floor, colon) else {
            floor = colon + 1;
            continue;
        };
        floor = colon + 1;
        let is_secret_name = is_secret(end_of_name(key.name))
            || (key.quote.is_some() && is_of_jwk(key.name) && is_jwk());
        let is = |keys: &[&str]| keys.iter().any(|it| it.eq_ignore_ascii_case(key.name));
        let (is_name, is_value) = (is(&NAME_KEYS), is_value(key.name));
        if !is_secret_name && !is_name && !is_value {
            continue;
        }
        let is_plain = is_secret_name && key.quote.is_none();
        let value = match is_plain.then(|| block(text, colon)).flatten() {
            Some(lines) => Value::Text(lines),
            None => Value::behind(text, colon + 1, &mut word),
        };
        if is_secret_name {
            let is_nested = matches!(value, Value::Nested(_));
            open = is_nested.then(|| colon.saturating_sub(key.name.len() + 2)..colon);
            covered = hide(text, &key, value, places).max(colon);
            floor = floor.max(covered);
            continue;
        }
        if is_name
            && let Value::Text(name) = &value
            && is_name_of_secret(&text[name.clone()])
        {
            match unnamed.take() {
                Some((end, place)) if !has_brace(&text[end..colon]) => places.push(place),
                _ => named = Some(name.end),
            }
        } else if is_value {
            match named.take() {
                Some(end) if end <= colon && depth(&text[end..colon]) == Some(0) => {
                    covered = hide(text, &key, value, places).max(colon);
                    floor = floor.max(covered);
                }
                before => {
                    // It stands in another value of the same object.
                    named = before.filter(|end| {
                        *end <= colon && colon - end < NEAR && depth(&text[*end..colon]).is_some()
                    });
                    unnamed = value.place(&key).map(|it| (it.range.end, it));
                }
            }
        }
    }
    let is_open = covered >= text.len() && !text.ends_with(['}', ']']);
    open.filter(|_| is_open)
        .map(|it| text.floor_char_boundary(it.start)..it.end)
}

/// How many objects begin in a text and do not end; None where one ends that began
/// before it.
fn depth(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for at in memchr::memchr2_iter(b'{', b'}', text.as_bytes()) {
        depth = match text.as_bytes()[at] {
            b'{' => depth + 1,
            _ => depth.checked_sub(1)?,
        };
    }
    Some(depth)
}

/// Lines of YAML that belong to the name before a colon: a list, or a text of
/// several lines.
fn block(text: &str, colon: usize) -> Option<Range<usize>> {
    const LONGEST_MARK: usize = 16;
    let rest = &text[colon + 1..];
    let near = &rest[..rest.floor_char_boundary(LONGEST_MARK)];
    let mark = &near[..near.find('\n')?];
    let is_text = mark.trim_ascii().starts_with(['|', '>']);
    if !is_text && !mark.trim_ascii().is_empty() {
        return None;
    }
    let of_line = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let line = text[..colon].rfind('\n').map_or(0, |at| at + 1);
    let indent = of_line(&text[line..colon]);
    let begin = colon + 1 + mark.len() + 1;
    let mut end = begin;
    for line in text[begin..].split_inclusive('\n') {
        let plain = line.trim_ascii();
        let is_item = !is_text && plain.starts_with("- ") && of_line(line) > indent;
        let is_more = is_text && (plain.is_empty() || of_line(line) > indent);
        if !is_item && !is_more {
            break;
        }
        end += line.len();
    }
    let lines = text[begin..end].trim_ascii_end();
    let from = lines.trim_start_matches([' ', '-', '\n', '\r', '\t']);
    (!from.is_empty()).then(|| begin + lines.len() - from.len()..begin + lines.len())
}

fn has_brace(text: &str) -> bool {
    memchr::memchr2(b'{', b'}', text.as_bytes()).is_some()
}

impl<'a> Key<'a> {
    fn before(text: &'a str, floor: usize, colon: usize) -> Option<Self> {
        let before = text[floor..colon].trim_ascii_end();
        let end = floor + before.len();
        if let Some(quote @ ('"' | '\'')) = before.chars().next_back() {
            let inside = &before[..before.len() - 1];
            let near = inside.ceil_char_boundary(inside.len().saturating_sub(LONGEST_NAME + 1));
            let begin = inside[near..].rfind(quote);
            let name = match begin {
                Some(begin) => &inside[near + begin + 1..],
                None => Self::word(inside),
            };
            return (!name.is_empty()).then_some(Self {
                name,
                quote: Some(end - 1..end),
            });
        }
        let name = Self::word(before);
        (!name.is_empty()).then_some(Self { name, quote: None })
    }

    /// The characters of a name that a text ends with.
    fn word(text: &str) -> &str {
        let is_name = |byte: &u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'.' | b'$' | b'@' | b'[' | b']' | b'-')
        };
        let length = text.bytes().rev().take_while(|it| is_name(it)).count();
        &text[text.len() - length..]
    }
}

impl Value {
    fn behind(text: &str, from: usize, word: &mut usize) -> Self {
        let rest = &text[from..];
        let at = from + rest.len() - rest.trim_ascii_start().len();
        match text.as_bytes().get(at) {
            Some(b'"') => Self::Text(at + 1..string_end(text, at + 1, "\"")),
            Some(b'\'') => Self::Text(at + 1..string_end(text, at + 1, "'")),
            Some(b'[' | b'{') => Self::Nested(at),
            Some(_) => {
                if at >= *word {
                    *word = at + word_end(&text[at..]);
                }
                if *word == at {
                    Self::None
                } else {
                    Self::Word(at..*word)
                }
            }
            None => Self::None,
        }
    }

    fn place(self, key: &Key<'_>) -> Option<Place> {
        match self {
            Self::Text(range) => Some(Place::of(range)),
            Self::Word(range) => Some(Place {
                range,
                quote: key.quote.clone().map(Quote::Like),
            }),
            Self::Nested(_) | Self::None => None,
        }
    }
}

/// Where a value without quotes ends.
fn word_end(text: &str) -> usize {
    let ends = |c: char| {
        c.is_whitespace()
            || matches!(
                c,
                ',' | ';'
                    | '&'
                    | '\''
                    | '"'
                    | '<'
                    | '>'
                    | '('
                    | ')'
                    | '{'
                    | '}'
                    | '['
                    | ']'
                    | '\\'
                    | '`'
            )
    };
    text.find(ends).unwrap_or(text.len())
}

/// Hides what stands under a secret's name. Hands back where it ends.
fn hide(text: &str, key: &Key<'_>, value: Value, places: &mut Places) -> usize {
    match value {
        Value::Text(range) => {
            let end = range.end;
            places.push(Place::of(range));
            end
        }
        Value::Nested(open) => nested(text, open, key, places),
        Value::Word(range) => {
            let word = &text[range.clone()];
            let is_header = |it: &str| {
                key.name.len() >= it.len()
                    && key.name.is_char_boundary(key.name.len() - it.len())
                    && key.name[key.name.len() - it.len()..].eq_ignore_ascii_case(it)
            };
            if key.quote.is_none() && (is_header("authorization") || is_header("cookie")) {
                // A header in a text: all of its line.
                let end = text[range.start..].find(['\r', '\n', '"', '\'', '<']);
                let end = end.map_or(text.len(), |it| range.start + it);
                let line = &text[range.start..end];
                let scheme = line
                    .split_once(' ')
                    .filter(|(it, _)| is_word(it) || SCHEMES.contains(&&*it.to_ascii_lowercase()));
                let begin = scheme.map_or(range.start, |(it, _)| range.start + it.len() + 1);
                places.push(Place::of(begin..end));
                return end;
            }
            let is_literal = matches!(word, "true" | "false" | "null");
            let is_value = key.quote.is_some()
                || word.len() >= 6
                || (word.len() >= 3 && word.bytes().any(|it| it.is_ascii_digit()));
            let is_variable = word.starts_with(['$', '*']) && key.quote.is_none();
            let end = range.end;
            if is_value && !is_literal && !is_variable {
                places.push(Place {
                    range,
                    quote: key.quote.clone().map(Quote::Like),
                });
            }
            end
        }
        Value::None => 0,
    }
}

/// Hides all values of a list or an object; its keys stay. Hands back where it
/// ends.
fn nested(text: &str, open: usize, key: &Key<'_>, places: &mut Places) -> usize {
    let bytes = text.as_bytes();
    let mut in_object: Vec<bool> = Vec::new();
    let mut quote = key.quote.clone();
    let mut at = open;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => in_object.push(byte == b'{'),
            b']' | b'}' => {
                in_object.pop();
                if in_object.is_empty() {
                    return at + 1;
                }
            }
            b'"' | b'\'' => {
                let end = string_end(text, at + 1, if byte == b'"' { "\"" } else { "'" });
                let is_object = in_object.last().copied().unwrap_or_default();
                if !(is_object && is_key(&text[(end + 1).min(text.len())..])) {
                    places.push(Place::of(at + 1..end));
                }
                quote = Some(at..at + 1);
                at = end;
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                let length = match word_end(&text[at..]) {
                    0 => text[at..].chars().next().map_or(1, char::len_utf8),
                    length => length,
                };
                let word = &text[at..at + length];
                // `key: value` of a program: the name is one, and not the value.
                let (word, begin) = match word.split_once(':') {
                    Some((_, "")) => ("", at),
                    Some((name, value)) => (value, at + name.len() + 1),
                    None => (word, at),
                };
                let is_name = is_key(&text[at + length..]);
                if !word.is_empty() && !is_name && !matches!(word, "true" | "false" | "null") {
                    places.push(Place {
                        range: begin..begin + word.len(),
                        quote: quote.clone().map(Quote::Like),
                    });
                }
                at += length - 1;
            }
        }
        at += 1;
    }
    text.len()
}

/// Whether a colon follows.
fn is_key(rest: &str) -> bool {
    rest.trim_ascii_start().starts_with(':')
}

/// Where a string ends that began with this quote; a text that was cut ends it
/// too.
pub(super) fn string_end(text: &str, begin: usize, quote: &str) -> usize {
    let mut at = begin;
    while let Some(found) = text[at..].find(quote) {
        let end = at + found;
        let escapes = text[begin..end]
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'\\')
            .count();
        if escapes % 2 == 0 {
            return end;
        }
        at = end + 1;
    }
    text.len()
}

/// Marks those that are numbers of JSON, so that what stands for them is a text.
pub(super) fn quote_numbers(text: &str, places: &mut [Place]) {
    let is_json = text.trim_ascii_start().starts_with(['{', '[']);
    for place in places {
        let value = &text[place.range.clone()];
        if !value.bytes().all(|it| it.is_ascii_digit()) {
            continue;
        }
        // Near enough: between a number and its key are a colon and a space or two.
        let near = text.ceil_char_boundary(place.range.start.saturating_sub(64));
        let before = text[near..place.range.start].trim_ascii_end();
        let after = text[place.range.end..].trim_ascii_start();
        if !(after.is_empty() || after.starts_with([',', '}', ']'])) {
            continue;
        }
        let of_list = || (is_json && before.ends_with(['[', ','])).then_some(Quote::Plain);
        let of_key = before.strip_suffix(':').and_then(|key| {
            let key = key.trim_ascii_end();
            let end = near + key.len();
            key.ends_with('"').then_some(Quote::Like(end - 1..end))
        });
        place.quote = of_key.or_else(of_list);
    }
}
