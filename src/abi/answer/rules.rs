//! What an answer may ask a proxy for: statuses, headers and where to go.

use std::net::Ipv6Addr;

use super::AnswerPolicy;
use crate::limits::{MAX_HEADER_OPS, MAX_HEADER_OPS_BYTES, MAX_REDIRECT_URL_BYTES};
use crate::response::HeaderOp;

/// Headers that frame a message or route it; a proxy owns them.
pub const FRAMING_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

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
    let HeaderOp::Set { name, value } = op else {
        return None;
    };
    if let Some(at) = value
        .bytes()
        .position(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
    {
        return Some(format!(
            "a header value must be free of control characters (RFC 9110 5.5), found {:#04x} at byte {at}",
            value.as_bytes()[at]
        ));
    }
    let lower = FRAMING_HEADERS
        .into_iter()
        .find(|framing| framing.eq_ignore_ascii_case(name))?;
    (!policy.allowed_headers.iter().any(|allowed| allowed == lower))
        .then(|| {
            format!("{lower} frames or routes the message and is the proxy's to set (--allow-header {lower} lets it through)")
        })
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~'))
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

pub(super) fn nearest(found: &str) -> Option<&'static str> {
    ["allow", "block", "deny", "redirect", "challenge"]
        .into_iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&found.trim().to_lowercase(), word),
                word,
            )
        })
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, word)| word)
}
