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
            if one == other {
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

fn is_redacted(text: &[u8]) -> bool {
    static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(STAND_IN));
    FINDER.find(text).is_some()
}
