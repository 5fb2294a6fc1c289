//! The text that replaces a secret: `redacted:` and a hash, or a number; or its
//! shape, where the answer of a module hangs on that.

mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::names::is_secret;

/// What every stand-in begins with.
pub(in super::super) const STAND_IN: &str = "redacted:";
/// Hexadecimal digits of a hash that stands for a secret.
pub(super) const HASH_DIGITS: usize = 16;
/// Stands for all that might hold a secret which was not kept.
pub(super) const REST: &str = "redacted:rest";

/// How secrets are replaced.
#[derive(Debug, Clone, Default)]
pub(super) enum Manner {
    /// By `redacted:` and a hash or a number.
    #[default]
    Token,
    /// All by their shape.
    Shape,
    /// These by their shape, with these words of it readable; the others by a token.
    Only(Arc<Shapes>),
}

/// Secrets, each by its token, and words of it.
pub(super) type Shapes = BTreeMap<String, BTreeSet<String>>;

/// What replaces one secret, in each of its spellings.
pub(super) struct StandIn<'a> {
    manner: &'a Manner,
    token: &'a str,
    /// Whether words of it may stay readable.
    may_show_words: bool,
}

impl<'a> StandIn<'a> {
    /// For a secret that stands in this field.
    pub(super) fn new(manner: &'a Manner, field: &str, token: &'a str) -> Self {
        Self {
            manner,
            token,
            may_show_words: !is_of_credentials(field),
        }
    }

    /// Its token, and words of a value that a module may be asked about; nothing
    /// where this is settled.
    pub(super) fn asked(&self, value: &str) -> Option<(&str, BTreeSet<String>)> {
        let words = || match self.may_show_words {
            true => shape::words(value),
            false => BTreeSet::new(),
        };
        matches!(self.manner, Manner::Shape).then(|| (self.token, words()))
    }

    /// The words that stay readable, where its shape stands for it.
    fn words(&self) -> Option<&BTreeSet<String>> {
        const NONE: &BTreeSet<String> = &BTreeSet::new();
        let words = match self.manner {
            Manner::Token => None,
            Manner::Shape => Some(NONE),
            Manner::Only(shapes) => shapes.get(self.token),
        };
        words.map(|words| if self.may_show_words { words } else { NONE })
    }

    pub(super) fn is_shape(&self) -> bool {
        self.words().is_some()
    }

    pub(super) fn of(&self, value: &str) -> String {
        let shape = |words| shape::shape(value, self.token, words);
        let shape = self.words().and_then(shape);
        shape.unwrap_or_else(|| self.token.to_owned())
    }
}

/// Whether a field is a header that has nothing but a credential in it.
fn is_of_credentials(field: &str) -> bool {
    let header = field.strip_prefix("headers.");
    header.is_some_and(|name| {
        name.ends_with("cookie") || name.ends_with("authorization") || is_secret(name)
    })
}

/// Whether a text is a stand-in that means the same in every exchange.
pub(super) fn is_stand_in(text: &str) -> bool {
    text == REST
        || text
            .strip_prefix(STAND_IN)
            .is_some_and(|digits| digits.len() == HASH_DIGITS && hash_digits(digits) == HASH_DIGITS)
}

/// Whether a place of a text is a stand-in or inside one.
pub(super) fn is_inside(text: &str, place: &Range<usize>) -> bool {
    around(text, place).is_some_and(|it| place.end <= it.end)
}

/// Whether a place of a text is inside a stand-in, and not all of it.
pub(super) fn is_part(text: &str, place: &Range<usize>) -> bool {
    around(text, place).is_some_and(|it| place.end <= it.end && *place != it)
}

/// The stand-in that a place of a text begins in.
pub(super) fn around(text: &str, place: &Range<usize>) -> Option<Range<usize>> {
    let from = place.start.saturating_sub(STAND_IN.len() + HASH_DIGITS);
    let to = place.start + STAND_IN.len();
    let near = &text[text.floor_char_boundary(from)..text.floor_char_boundary(to)];
    let begin = near.rfind(STAND_IN)?;
    let start = text.floor_char_boundary(from) + begin;
    let end = text.floor_char_boundary(from) + begin + STAND_IN.len();
    let rest = &text[end..];
    let length = match hash_digits(rest) {
        HASH_DIGITS => HASH_DIGITS,
        _ if rest.starts_with(&REST[STAND_IN.len()..]) => REST.len() - STAND_IN.len(),
        _ => {
            let digits = rest.bytes().take(HASH_DIGITS);
            digits.take_while(u8::is_ascii_digit).count()
        }
    };
    (length > 0 && place.start < end + length).then(|| start..end + length)
}

/// Of the hexadecimal digits that a text begins with, at most a hash's.
fn hash_digits(text: &str) -> usize {
    let digits = text.bytes().take(HASH_DIGITS);
    digits.take_while(u8::is_ascii_hexdigit).count()
}
