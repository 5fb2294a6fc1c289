//! What records say of the heads of their exchange.
//!
//! Clients choose ids, and several exchanges under one id may be open at a time.
//! A record of a body repeats the heads before it, and so says whose it is.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use super::redact::STAND_IN;

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadPart {
    Method,
    Uri,
    ClientIp,
    RequestHeaders,
    Status,
    ResponseHeaders,
}

/// Parts of heads, as far as they are known, in bytes that are equal where the
/// parts are.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads([Option<Bytes>; 6]);

/// Whether a record is of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It repeats another head.
    No,
    Maybe,
    /// It repeats what is known of the heads.
    Yes,
}

impl Heads {
    pub(super) fn set(&mut self, part: HeadPart, value: Bytes) {
        self.0[part as usize] = Some(value);
    }

    /// Takes what was not known yet.
    pub(super) fn learn(&mut self, other: Self) {
        for (known, other) in self.0.iter_mut().zip(other.0) {
            *known = known.take().or(other);
        }
    }

    pub(super) fn fit(&self, other: &Self) -> Fit {
        // No client sends a request without headers: who wrote none repeats no head.
        let has_none = |heads: &Self| {
            let headers = heads.0[HeadPart::RequestHeaders as usize].as_deref();
            headers.map(|it| it == b"{}")
        };
        let is_unsaid = has_none(self) == Some(false) && has_none(other) == Some(true);
        let of_request = HeadPart::RequestHeaders as usize;
        let both = self.0.iter().zip(&other.0).enumerate();
        let both = both.filter(|(part, _)| !is_unsaid || *part > of_request);
        let both =
            both.filter_map(|(part, (one, other))| Some((part, one.as_ref()?, other.as_ref()?)));
        let fits = both.map(|(part, one, other)| {
            // A secret may be found in one record and not yet in another.
            if one == other || without_length(one) == without_length(other) {
                Fit::Yes
            } else if part == HeadPart::Method as usize || is_redacted(one) || is_redacted(other) {
                Fit::Maybe
            } else {
                Fit::No
            }
        });
        fits.min().unwrap_or(Fit::Maybe)
    }
}

/// Headers without the length of a body: redacting a body changes it in the record
/// of that body alone.
fn without_length(headers: &[u8]) -> [&[u8]; 2] {
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#""content-length":""#));
    let Some(at) = FINDER.find(headers) else {
        return [headers, b""];
    };
    let (before, length) = headers.split_at(at);
    let value = &length[FINDER.needle().len()..];
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    [before, &value[digits..]]
}

fn is_redacted(text: &[u8]) -> bool {
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(STAND_IN));
    FINDER.find(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(one: &'static str, other: &'static str) -> Fit {
        let [one, other] = [one, other].map(|headers| {
            let mut heads = Heads::default();
            heads.set(
                HeadPart::RequestHeaders,
                Bytes::from_static(headers.as_bytes()),
            );
            heads
        });
        one.fit(&other)
    }

    #[test]
    fn a_length_that_redaction_changed_is_no_other_head() {
        let head = r#"{"a":"1","content-length":"35","z":"2"}"#;
        assert_eq!(
            fit(head, r#"{"a":"1","content-length":"45","z":"2"}"#),
            Fit::Yes
        );
        assert_eq!(
            fit(head, r#"{"a":"1","content-length":"45","z":"3"}"#),
            Fit::No
        );
        assert_eq!(
            fit(head, r#"{"a":"2","content-length":"35","z":"2"}"#),
            Fit::No
        );
        assert_eq!(fit(head, r#"{"a":"1","z":"2"}"#), Fit::No);
    }
}
