//! Points in time as recordings and fixtures write them (RFC 3339).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A text of RFC 3339 as nanoseconds since 1970. Nothing for what is none, or is not
/// in the years 1970 to 2262, which 64 bits hold.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    let at = i64::try_from(at.as_nanosecond()).ok()?;
    (at >= 0).then_some(at)
}

/// So many nanoseconds since 1970; nothing for a time before that.
pub(crate) fn since_1970(at_ns: i64) -> Option<SystemTime> {
    let since = Duration::from_nanos(at_ns.try_into().ok()?);
    UNIX_EPOCH.checked_add(since)
}

/// A time as text, with the digits that it needs.
pub(crate) fn text(at: SystemTime) -> Option<String> {
    Some(jiff::Timestamp::try_from(at).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for (given, written) in [
            ("2026-03-01T09:30:00Z", "2026-03-01T09:30:00Z"),
            ("2026-03-01T10:30:00.25+01:00", "2026-03-01T09:30:00.25Z"),
            (
                "1970-01-01T00:00:00.000000001Z",
                "1970-01-01T00:00:00.000000001Z",
            ),
        ] {
            let at = since_1970(nanoseconds(given).unwrap()).unwrap();
            assert_eq!(text(at).unwrap(), written);
        }
    }

    #[test]
    fn what_has_no_nanoseconds_of_64_bits_is_none() {
        for text in [
            "",
            "2026-03-01",
            "1969-12-31T23:59:59Z",
            "2300-01-01T00:00:00Z",
        ] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
        assert_eq!(since_1970(-1), None);
    }
}
