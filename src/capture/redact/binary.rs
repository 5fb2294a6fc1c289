//! Turns bytes that are not UTF-8 into a text that redaction can search, and back.
//!
//! What is UTF-8 in them stays as it is, so a secret reads the same in a text
//! and between other bytes. Each byte that is none becomes one character of a
//! private range, and back: no byte is lost.

use serde_json::{Map, Value};

/// The character of byte 0; those of 0x80 and above are used.
const FIRST: u32 = 0xEF00;
/// Whether an object's `data` is bytes in base64.
pub(super) fn is_base64(map: &Map<String, Value>) -> bool {
    map.get("encoding").and_then(Value::as_str) == Some("base64")
}

pub(super) fn as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if byte_of(char).is_some() {
                // It would come back as another byte.
                text.extend(char.encode_utf8(&mut [0; 4]).bytes().map(char_of));
            } else {
                text.push(char);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(char_of));
    }
    text
}

pub(super) fn as_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for char in text.chars() {
        match byte_of(char) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(char.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

fn char_of(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(char: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(char).checked_sub(FIRST)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_byte_is_lost(bytes: Vec<u8>, text: String) {
            prop_assert_eq!(as_bytes(&as_text(&bytes)), bytes);
            prop_assert_eq!(as_bytes(&as_text(text.as_bytes())), text.as_bytes());
        }
    }

    #[test]
    fn a_character_of_the_private_range_comes_back() {
        for text in ["\u{efff}", "a\u{ef80}b", "\u{ef00}\u{ef7f}", "S\u{e9}cret"] {
            assert_eq!(as_bytes(&as_text(text.as_bytes())), text.as_bytes());
        }
        assert_eq!(as_text(b"\xff S\xc3\xa9cret"), "\u{efff} S\u{e9}cret");
    }
}
