//! Elements and attributes of HTML and XML.

use std::ops::Range;

use super::names::is_secret;
use super::places::{Place, Places};

/// Attributes that hold the name of what another one holds.
const NAME_ATTRIBUTES: [&str; 10] = [
    "name",
    "id",
    "property",
    "key",
    "itemprop",
    "data-name",
    "ng-model",
    "v-model",
    "formcontrolname",
    "http-equiv",
];
/// Attributes that hold what has that name.
const VALUE_ATTRIBUTES: [&str; 6] = [
    "value",
    "content",
    "data-value",
    "data-content",
    "ng-init",
    "placeholder-value",
];
/// Elements of HTML whose text is no value of theirs.
const NO_VALUES: [&str; 22] = [
    "a", "body", "button", "div", "fieldset", "form", "h1", "h2", "h3", "html", "iframe", "img",
    "input", "label", "li", "link", "map", "meta", "p", "section", "select", "span",
];

/// An element whose texts are secrets.
struct Inside<'a> {
    name: &'a str,
    begin: usize,
    /// How many of that name are open.
    depth: usize,
    texts: Vec<Range<usize>>,
}

/// What a tag says.
struct Tag<'a> {
    name: &'a str,
    end: usize,
    is_closing: bool,
    is_empty: bool,
    /// The name that it gives to a value is a secret's.
    names_secret: bool,
    /// Its text has that name, too.
    names_text: bool,
    values: Vec<Range<usize>>,
}

/// The secrets of elements and attributes. Hands back where the element of secrets
/// begins that the text ends in; of one that `goes_on` elsewhere all its texts are
/// secrets.
pub(super) fn find(text: &str, goes_on: bool, places: &mut Places) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut inside: Option<Inside<'_>> = None;
    let mut quotes = Quotes {
        none_from: [usize::MAX; 2],
    };
    // The text since the last tag, and whether it is a secret's name.
    let mut names_next = false;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'<', &bytes[at..]) {
        let open = at + found;
        let text_before = text[at..open].trim_ascii();
        if let Some(inside) = &mut inside {
            inside.add(text, at..open);
        }
        if text[open..].starts_with("<![CDATA[") {
            let begin = open + "<![CDATA[".len();
            let end = text[begin..]
                .find("]]>")
                .map_or(text.len(), |it| begin + it);
            if let Some(inside) = &mut inside {
                inside.add(text, begin..end);
            }
            at = (end + "]]>".len()).min(text.len());
            continue;
        }
        let Some(tag) = Tag::read(text, open, &mut quotes) else {
            at = open + 1;
            continue;
        };
        at = tag.end;
        let is_named = || !tag.values.is_empty() && is_secret(local_name(tag.name));
        if tag.names_secret || is_named() {
            places.extend(tag.values.iter().cloned().map(Place::of));
        }
        match &mut inside {
            Some(it) if tag.name == it.name && tag.is_closing => {
                it.depth -= 1;
                if it.depth == 0 {
                    places.extend(it.texts.drain(..).map(Place::of));
                    inside = None;
                }
            }
            Some(it) if tag.name == it.name && !tag.is_empty => it.depth += 1,
            Some(_) => {}
            None if tag.is_closing => {
                let is_name = ["key", "name"]
                    .iter()
                    .any(|it| it.eq_ignore_ascii_case(tag.name));
                if is_name {
                    names_next = is_secret(text_before);
                }
            }
            None if tag.begins_secret() || (std::mem::take(&mut names_next) && !tag.is_empty) => {
                inside = Some(Inside {
                    name: tag.name,
                    begin: open,
                    depth: 1,
                    texts: Vec::new(),
                });
            }
            None => {}
        }
    }
    let mut inside = inside?;
    inside.add(text, at..text.len());
    // It was never closed, as a tag of HTML may be: its first text is its own.
    let texts = if goes_on { usize::MAX } else { 1 };
    places.extend(inside.texts.into_iter().take(texts).map(Place::of));
    Some(inside.begin..inside.begin + 1 + inside.name.len())
}

fn local_name(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or_default()
}

impl Inside<'_> {
    fn add(&mut self, text: &str, range: Range<usize>) {
        let trimmed = text[range.clone()].trim_ascii();
        if !trimmed.is_empty() {
            let lead = text[range.clone()].len() - text[range.clone()].trim_ascii_start().len();
            let begin = range.start + lead;
            self.texts.push(begin..begin + trimmed.len());
        }
    }
}

/// From where on a text has none of a quote.
struct Quotes {
    none_from: [usize; 2],
}

impl Quotes {
    /// Where the next one is.
    fn next(&mut self, bytes: &[u8], from: usize, quote: u8) -> Option<usize> {
        let none_from = &mut self.none_from[usize::from(quote == b'\'')];
        if from >= *none_from {
            return None;
        }
        let found = memchr::memchr(quote, &bytes[from..]);
        if found.is_none() {
            *none_from = from;
        }
        found.map(|it| from + it)
    }
}

impl<'a> Tag<'a> {
    fn read(text: &'a str, open: usize, quotes: &mut Quotes) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_closing = bytes.get(open + 1) == Some(&b'/');
        let begin = open + 1 + usize::from(is_closing);
        let is_name =
            |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'-');
        let end = begin + bytes[begin..].iter().take_while(is_name).count();
        if end == begin || bytes[begin].is_ascii_digit() {
            return None;
        }
        let mut tag = Self {
            name: &text[begin..end],
            end,
            is_closing,
            is_empty: false,
            names_secret: false,
            names_text: false,
            values: Vec::new(),
        };
        tag.attributes(text, quotes);
        Some(tag)
    }

    fn attributes(&mut self, text: &str, quotes: &mut Quotes) {
        let bytes = text.as_bytes();
        let mut at = self.end;
        loop {
            at += bytes[at..]
                .iter()
                .take_while(|it| it.is_ascii_whitespace())
                .count();
            match bytes.get(at) {
                None | Some(b'<') => break,
                Some(b'>') => {
                    at += 1;
                    break;
                }
                Some(b'/') => {
                    self.is_empty = bytes.get(at + 1) == Some(&b'>');
                    at += 1;
                    continue;
                }
                Some(_) => {}
            }
            let ends_name =
                |it: &u8| it.is_ascii_whitespace() || matches!(it, b'=' | b'>' | b'<' | b'/');
            let name = at..at + bytes[at..].iter().take_while(|it| !ends_name(it)).count();
            at = name.end.max(at);
            let spaces = bytes[at..]
                .iter()
                .take_while(|it| it.is_ascii_whitespace())
                .count();
            if bytes.get(at + spaces) != Some(&b'=') {
                at = (at + spaces).max(name.start + usize::from(name.is_empty()));
                continue;
            }
            at += spaces + 1;
            at += bytes[at..]
                .iter()
                .take_while(|it| it.is_ascii_whitespace())
                .count();
            let value = match bytes.get(at) {
                Some(quote @ (b'"' | b'\'')) => {
                    let Some(end) = quotes.next(bytes, at + 1, *quote) else {
                        // It was cut.
                        at += 1;
                        self.attribute(text, name, at..text.len());
                        break;
                    };
                    let value = at + 1..end;
                    at = end + 1;
                    value
                }
                _ => {
                    let ends = |it: &u8| it.is_ascii_whitespace() || matches!(it, b'>' | b'<');
                    let length = bytes[at..].iter().take_while(|it| !ends(it)).count();
                    let value = at..at + length;
                    at += length;
                    value
                }
            };
            self.attribute(text, name, value);
        }
        self.end = at;
    }

    fn attribute(&mut self, text: &str, name: Range<usize>, value: Range<usize>) {
        let (Some(name), Some(held)) = (text.get(name), text.get(value.clone())) else {
            return;
        };
        let is = |names: &[&str]| names.iter().any(|it| it.eq_ignore_ascii_case(name));
        if is(&VALUE_ATTRIBUTES) {
            self.values.push(value);
        } else if is(&NAME_ATTRIBUTES) {
            let is_secret = is_secret(held);
            self.names_secret |= is_secret;
            self.names_text |= is_secret && (is(&["name"]) || is(&["key"]));
        } else if is(&["type"]) {
            self.names_secret |= held.eq_ignore_ascii_case("password");
        }
    }

    /// Whether the texts up to its end are secrets.
    fn begins_secret(&self) -> bool {
        if self.is_closing || self.is_empty {
            return false;
        }
        let local = local_name(self.name);
        let is_html = NO_VALUES.iter().any(|it| it.eq_ignore_ascii_case(local));
        !is_html && (self.names_text || is_secret(local))
    }
}
