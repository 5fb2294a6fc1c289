//! The text that replaces a secret: `redacted:` and a hash, or a number.

use std::ops::Range;

/// What every stand-in begins with.
pub(in super::super) const STAND_IN: &str = "redacted:";
/// Hexadecimal digits of a hash that stands for a secret.
pub(super) const HASH_DIGITS: usize = 16;
/// Stands for all that might hold a secret which was not kept.
pub(super) const REST: &str = "redacted:rest";

/// Whether a text is a stand-in that means the same in every exchange.
pub(super) fn is_stand_in(text: &str) -> bool {
    text == REST
        || text
            .strip_prefix(STAND_IN)
            .is_some_and(|digits| digits.len() == HASH_DIGITS && hash_digits(digits) == HASH_DIGITS)
}

/// Whether a place of a text is a stand-in or inside one.
pub(super) fn is_inside(text: &str, place: &Range<usize>) -> bool {
    let from = place.start.saturating_sub(STAND_IN.len() + HASH_DIGITS);
    let to = place.start + STAND_IN.len();
    let near = &text[text.floor_char_boundary(from)..text.floor_char_boundary(to)];
    let Some(begin) = near.rfind(STAND_IN) else {
        return false;
    };
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
    length > 0 && place.end <= end + length
}

/// Of the hexadecimal digits that a text begins with, at most a hash's.
fn hash_digits(text: &str) -> usize {
    let digits = text.bytes().take(HASH_DIGITS);
    digits.take_while(u8::is_ascii_hexdigit).count()
}
