//! Suggests the known word that a misspelled one probably means.
//!
//! The number of edits between two words costs the product of their lengths,
//! and the words come from guests, peers and files: long ones are not compared.

/// Longer words are no misspelling of anything we know.
const MAX_BYTES: usize = 64;

/// How many letters differ; none where a word is too long to compare.
pub(crate) fn edits(found: &str, known: &str) -> Option<usize> {
    (found.len() <= MAX_BYTES && known.len() <= MAX_BYTES)
        .then(|| strsim::damerau_levenshtein(found, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_words_are_compared() {
        assert_eq!(edits("blok", "block"), Some(1));
        assert_eq!(edits(&"x".repeat(MAX_BYTES + 1), "block"), None);
        assert_eq!(edits("block", &"x".repeat(MAX_BYTES + 1)), None);
    }
}
