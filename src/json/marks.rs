//! The positions of quotes and backslashes in a JSON text.
//!
//! They are all that ends a string or goes on with it, so a reader that has
//! them never looks at what is in between. Found for the whole text at once,
//! with vector instructions; looking for each by itself costs more, since most
//! strings are short.

use wide::u8x16;

/// Bytes that one word of marks stands for.
const BLOCK: usize = 64;

/// One bit for each byte of a text.
pub(super) struct Marks(Vec<u64>);

impl Marks {
    /// The marks of a text without control characters; of one that has some,
    /// nothing: they stand in no string, and between tokens only for people.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let (blocks, rest) = text.as_chunks::<BLOCK>();
        let mut controls = u8x16::splat(0);
        let mut words = Vec::with_capacity(blocks.len() + 1);
        for block in blocks {
            words.push(word_of(block, &mut controls));
        }
        let mut last = [b' '; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        words.push(word_of(&last, &mut controls));
        (!controls.any()).then_some(Self(words))
    }

    /// The first mark at this byte or behind it.
    pub(super) fn next(&self, at: usize) -> Option<usize> {
        let mut index = at / BLOCK;
        // Without those before it.
        let mut word = *self.0.get(index)? >> (at % BLOCK) << (at % BLOCK);
        while word == 0 {
            index += 1;
            word = *self.0.get(index)?;
        }
        Some(index * BLOCK + word.trailing_zeros() as usize)
    }
}

fn word_of(block: &[u8; BLOCK], controls: &mut u8x16) -> u64 {
    let (quote, escape) = (u8x16::splat(b'"'), u8x16::splat(b'\\'));
    let highest_control = u8x16::splat(0x1f);
    let (parts, _) = block.as_chunks::<16>();
    let mut word = 0;
    for (index, part) in parts.iter().enumerate() {
        let part = u8x16::new(*part);
        *controls |= part.min(highest_control).simd_eq(part);
        let found = part.simd_eq(quote) | part.simd_eq(escape);
        word |= u64::from(found.to_bitmask()) << (index * 16);
    }
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_quote_and_backslash_has_its_mark(text in r#"[a-zé"\\]{0,200}"#) {
            let marks = Marks::of(text.as_bytes()).unwrap();
            let is_mark = |byte: &u8| matches!(byte, b'"' | b'\\');
            for from in 0..=text.len() {
                let expected = text.as_bytes()[from..].iter().position(is_mark);
                prop_assert_eq!(marks.next(from), expected.map(|found| from + found));
            }
        }

        #[test]
        fn a_control_character_anywhere_is_found(length in 0..200_usize, at in any::<usize>(), byte in 0..0x20_u8) {
            let mut text = vec![b' '; length];
            prop_assert!(Marks::of(&text).is_some());
            text.insert(at % (length + 1), byte);
            prop_assert!(Marks::of(&text).is_none());
        }
    }
}
