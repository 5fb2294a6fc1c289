//! What an answer may ask a proxy for: statuses, headers and where to go.

use std::net::Ipv6Addr;

use super::AnswerPolicy;
use crate::fault::printable;
use crate::limits::{MAX_HEADER_OPS, MAX_HEADER_OPS_BYTES, MAX_REDIRECT_URL_BYTES};
use crate::response::{HeaderOp, is_token};
use crate::suggest;

/// Headers that frame a message or route it; a proxy owns them, and each that
/// begins with `proxy-`.
pub(crate) const FRAMING_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How the names of headers for the next proxy begin.
const PROXY_HEADERS: &str = "proxy-";

/// The name in lower case, if a module may neither set nor remove that header.
#[must_use]
pub(crate) fn framing_header(name: &str) -> Option<String> {
    let listed = FRAMING_HEADERS
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name));
    let is_framing = listed
        || name
            .get(..PROXY_HEADERS.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(PROXY_HEADERS));
    is_framing.then(|| name.to_ascii_lowercase())
}

/// Counts operations and their bytes over both directions.
#[derive(Default)]
pub(super) struct OpBudget {
    ops: usize,
    bytes: usize,
}

impl OpBudget {
    pub(super) fn take(&mut self, op: &HeaderOp) -> Option<String> {
        self.ops += 1;
        self.bytes += op.size_bytes();
        if self.ops > MAX_HEADER_OPS {
            return Some(format!("more than {MAX_HEADER_OPS} header operations"));
        }
        (self.bytes > MAX_HEADER_OPS_BYTES)
            .then(|| format!("more than {MAX_HEADER_OPS_BYTES} bytes of header operations"))
    }
}

pub(super) fn op_problem(op: &HeaderOp, policy: &AnswerPolicy) -> Option<String> {
    if !is_token(op.name()) {
        return Some("a header name must be a token (RFC 9110 5.1)".to_owned());
    }
    if let Some(value) = op.value()
        && let Some(at) = value
            .bytes()
            .position(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
    {
        return Some(format!(
            "a header value must be free of control characters (RFC 9110 5.5), found {:#04x} at byte {at}",
            value.as_bytes()[at]
        ));
    }
    let framing = framing_header(op.name())?;
    (!policy.allowed_headers.contains(&framing)).then(|| {
        let shown = printable(&framing, 60);
        format!("{shown} frames or routes the message and belongs to the proxy (--allow-header {shown} permits it)")
    })
}

pub(super) const fn block_status_is_valid(status: u16) -> bool {
    200 <= status && status <= 599
}

pub(super) const fn redirect_status_is_valid(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// http, https or an absolute path. Not `//host`, nor `/\host`, which browsers
/// read as one; not anything that must be percent-encoded first.
pub(super) fn redirect_url_is_usable(url: &str) -> bool {
    let visible = url.bytes().all(|byte| {
        byte.is_ascii_graphic() && byte != b'\\' && byte != b'"' && byte != b'<' && byte != b'>'
    });
    if !visible || url.len() > MAX_REDIRECT_URL_BYTES {
        return false;
    }
    if url.starts_with('/') {
        return !url.starts_with("//");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && match rest.strip_prefix('[') {
            Some(rest) => rest
                .split_once(']')
                .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok()),
            None => rest.starts_with(|first: char| first.is_ascii_alphanumeric()),
        }
}

/// The word that was meant, where it is a misspelling.
pub(super) fn nearest(found: &str) -> Option<&'static str> {
    let found = found.trim().to_lowercase();
    ["allow", "block", "deny", "redirect", "challenge"]
        .into_iter()
        .filter_map(|word| Some((suggest::edits(&found, word)?, word)))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, word)| word)
}
