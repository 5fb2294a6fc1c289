//! Reads base64: the bodies of captures, where a text that was cut off is an error, and
//! values that redaction looks into.

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

/// Bytes to look for secrets in, with padding or without.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    ANY_PADDING.decode(text)
}

/// Bytes of a capture in exactly this form, or a message that says where base64
/// was expected.
pub(super) fn read(
    form: &GeneralPurpose,
    text: &str,
    place: impl Display,
) -> Result<Vec<u8>, String> {
    let bytes = form.decode(text);
    bytes.map_err(|error| format!("expected base64 in {place}: {error}"))
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
