//! Hashes as text. In: bytes; out: hexadecimal digits. One place, so that the
//! hash of a file and that of an input read alike.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// `sha256:` and the hash of these parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    sha256_text(hash)
}

/// The same of parts that came one by one.
pub(crate) fn sha256_text(hash: Sha256) -> String {
    format!("sha256:{}", hex(&hash.finalize()))
}

/// Two digits a byte, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Nothing written to a String fails.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_hashed_as_one_text() {
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"abc"]), known);
        assert_eq!(sha256(&[b"a", b"", b"bc"]), known);
    }
}
