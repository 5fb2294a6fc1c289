//! What is wrong with a record's text, in words for people.
//!
//! In: bytes of one record. Out: its text or its value, or a message with the
//! place within the record.

use serde::Deserialize;

/// UTF-8, or where it ends.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        format!(
            "expected UTF-8 text, found a byte that is not, {} bytes into the record",
            error.valid_up_to()
        )
    })
}

/// serde's message without its own idea of the place; it may quote a value of
/// any length.
pub(crate) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ");
    crate::fault::printable(message.map_or(&*text, |(message, _)| message), 200)
}

/// serde's message, with the place within the record.
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let kind = if error.is_data() {
        "expected another shape"
    } else {
        "expected JSON"
    };
    format!(
        "{kind}: {} (line {}, column {} of the record)",
        without_place(error),
        error.line(),
        error.column()
    )
}

/// Reads a record's JSON.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_str(utf8(bytes)?).map_err(|error| explain(&error))
}
