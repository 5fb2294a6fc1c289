//! The time of a record, in the spellings of captures.

/// RFC 3339 as nanoseconds since 1970.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}
