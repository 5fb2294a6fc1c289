//! Bytes in base64, as any capture writes them: with padding or without.

use std::fmt::Display;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{DecodeError, Engine as _, alphabet};

const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    ANY_PADDING.decode(text)
}

/// The same of a text that may be broken into lines, or a message that says
/// where base64 was expected.
pub(super) fn read(text: &str, place: impl Display) -> Result<Vec<u8>, String> {
    let text: String = text.split_ascii_whitespace().collect();
    decode(&text).map_err(|error| format!("expected base64 in {place}: {error}"))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
