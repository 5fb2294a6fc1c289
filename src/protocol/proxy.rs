//! What released proxies make of events and answers, where it may surprise.
//!
//! In: an event and its answer. Out: the quirks that would show, each naming
//! the releases it was seen in, for `run` to report. What `serve` does about them
//! are rules of `protocol::outgoing`.

mod version;

use serde::Serialize;

use crate::event::Event;
use crate::response::{AgentResponse, Decision, HeaderOp};

pub use version::Version;
pub(crate) use version::{Proxy, ProxyQuirks};

/// One surprising thing that a released proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub(crate) enum Quirk {
    /// The redirect becomes a 500.
    RedirectIs500,
    /// The challenge lets the request through.
    ChallengeAllows,
    /// The challenge's and the redirect's refusal of a response is ignored.
    ResponseRefusalIgnored,
    /// Response header operations of the request phase are lost.
    ResponseOpsDropped,
    /// Operations beside a refusal are lost.
    OpsBesideRefusalDropped,
    /// The body is cut at the text `context:`.
    BodyCutAtContext,
    /// A value that is not visible ASCII arrives empty.
    ValueArrivesEmpty,
    /// A replacement of a request body is not used.
    RequestMutationIgnored,
    /// An empty replacement of a response body is not used.
    EmptyResponseBodyIgnored,
    /// The upstream's cookies are gone.
    CookiesReplaced,
    /// The upstream's values of a header that comes more than once are gone.
    #[serde(rename = "list_replaced")]
    LinkReplaced,
    /// The same of another one.
    #[serde(rename = "list_replaced")]
    VaryReplaced,
    /// The same of another one.
    #[serde(rename = "list_replaced")]
    ViaReplaced,
    /// The same of another one.
    #[serde(rename = "list_replaced")]
    WwwAuthenticateReplaced,
    /// A block of a request body shows the proxy's own error, not this body.
    BodyOfBodyBlockReplaced,
}

impl Quirk {
    /// What happens, in which releases, and what to do.
    #[must_use]
    pub(crate) const fn explain(self) -> &'static str {
        match self {
            Self::RedirectIs500 => {
                "zentinel-proxy up to 0.6.45 and sentinel-proxy answer 500 to a redirect; 0.6.54 redirects"
            }
            Self::ChallengeAllows => {
                "zentinel-proxy up to 0.6.45 and sentinel-proxy let a challenge through; behind them `serve` blocks with 403 instead"
            }
            Self::ResponseRefusalIgnored => {
                "zentinel-proxy up to 0.6.45 ignores a refusal in the response phase; the response passes"
            }
            Self::ResponseOpsDropped => {
                "zentinel-proxy up to 0.6.45 drops response header operations of the request phase; give them in on_response_headers"
            }
            Self::OpsBesideRefusalDropped => {
                "released proxies drop header operations that come with a refusal"
            }
            Self::BodyCutAtContext => {
                "zentinel-proxy up to 0.6.45 cuts a block's body at the text \"context:\""
            }
            Self::ValueArrivesEmpty => {
                "a header value that is not visible ASCII arrives as \"\" from zentinel-proxy 0.6.45"
            }
            Self::RequestMutationIgnored => {
                "zentinel-proxy up to 0.6.45 ignores a change of the request body"
            }
            Self::EmptyResponseBodyIgnored => {
                "released proxies ignore an empty replacement of a response body"
            }
            Self::CookiesReplaced => {
                "add_response_headers sets a header: this Set-Cookie replaces every cookie of the upstream, which logs its users out; append_response_headers adds one"
            }
            Self::LinkReplaced => {
                "add_response_headers sets a header: all Link values of the upstream are replaced; append_response_headers adds one"
            }
            Self::VaryReplaced => {
                "add_response_headers sets a header: all Vary values of the upstream are replaced; append_response_headers adds one"
            }
            Self::ViaReplaced => {
                "add_response_headers sets a header: all Via values of the upstream are replaced; append_response_headers adds one"
            }
            Self::WwwAuthenticateReplaced => {
                "add_response_headers sets a header: all WWW-Authenticate values of the upstream are replaced; append_response_headers adds one"
            }
            Self::BodyOfBodyBlockReplaced => {
                "zentinel-proxy up to 0.6.45 shows its own error page, not this body, for a block of a request body"
            }
        }
    }
}

/// Headers that are lists by their standards (RFC 8288, RFC 9110), that upstreams
/// send in several lines, and that nobody means to take from them.
pub(crate) const LISTS: [(&str, Quirk); 4] = [
    ("link", Quirk::LinkReplaced),
    ("vary", Quirk::VaryReplaced),
    ("via", Quirk::ViaReplaced),
    ("www-authenticate", Quirk::WwwAuthenticateReplaced),
];

/// Whether this answer takes from the upstream every value of this header and puts
/// another in their place. Where the upstream's headers are known, they hold it.
fn replaces(event: &Event, response: &AgentResponse, name: &str) -> bool {
    let is_known = match event {
        Event::ResponseHeaders(_) => true,
        Event::ResponseBody { response, .. } => response.is_some(),
        Event::RequestHeaders(_) | Event::RequestBody { .. } => false,
    };
    if is_known && event.headers().value(name).is_none() {
        return false;
    }
    let ops = response.response_headers.iter().rev();
    let mut ops = ops.filter(|op| !matches!(op, HeaderOp::Add { .. }));
    // What is removed in the end is meant to be gone.
    let last = ops.find(|op| op.name().eq_ignore_ascii_case(name));
    matches!(last, Some(HeaderOp::Set { .. }))
}

/// The quirks this event and answer would meet.
#[must_use]
pub(crate) fn quirks(event: &Event, response: &AgentResponse) -> Vec<Quirk> {
    let request_phase = event.kind().is_request();
    let body_phase = event.chunk_index().is_some();
    let refuses = response.decision != Decision::Allow;
    let block_body = match &response.decision {
        Decision::Block { body, .. } => body.as_deref().unwrap_or(""),
        _ => "",
    };
    let has_ops = !response.request_headers.is_empty() || !response.response_headers.is_empty();
    // Beside a refusal there is no answer of the upstream, or nobody sees it.
    let replaces = |name: &str| !refuses && replaces(event, response, name);
    let drops = |mutation: &Option<crate::response::BodyMutation>| {
        mutation
            .as_ref()
            .is_some_and(|mutation| mutation.data.is_empty())
    };
    [
        (
            request_phase && matches!(response.decision, Decision::Redirect { .. }),
            Quirk::RedirectIs500,
        ),
        (
            request_phase && matches!(response.decision, Decision::Challenge { .. }),
            Quirk::ChallengeAllows,
        ),
        (!request_phase && refuses, Quirk::ResponseRefusalIgnored),
        (
            request_phase && !refuses && !response.response_headers.is_empty(),
            Quirk::ResponseOpsDropped,
        ),
        (refuses && has_ops, Quirk::OpsBesideRefusalDropped),
        (block_body.contains("context:"), Quirk::BodyCutAtContext),
        (
            request_phase && body_phase && !block_body.is_empty(),
            Quirk::BodyOfBodyBlockReplaced,
        ),
        (
            event
                .headers()
                .iter()
                .any(|(_, value)| !is_visible_ascii(value)),
            Quirk::ValueArrivesEmpty,
        ),
        (
            response.request_body_mutation.is_some(),
            Quirk::RequestMutationIgnored,
        ),
        (
            drops(&response.response_body_mutation),
            Quirk::EmptyResponseBodyIgnored,
        ),
        (replaces("set-cookie"), Quirk::CookiesReplaced),
    ]
    .into_iter()
    .chain(LISTS.map(|(name, quirk)| (replaces(name), quirk)))
    .filter_map(|(applies, quirk)| applies.then_some(quirk))
    .collect()
}

fn is_visible_ascii(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RequestHead;

    #[test]
    fn a_set_takes_lists_from_the_upstream_and_nothing_else() {
        let event = Event::RequestHeaders(RequestHead::default());
        let told = |decision: Decision, ops: &[HeaderOp]| {
            let mut response = AgentResponse::new(decision);
            response.response_headers = ops.to_vec();
            let mut quirks = quirks(&event, &response);
            quirks.retain(|quirk| quirk.explain().contains("add_response_headers"));
            quirks
        };
        let set = |name: &str| HeaderOp::Set {
            name: name.to_owned(),
            value: "1".to_owned(),
        };
        let allow = || Decision::Allow;
        for name in ["set-cookie", "Set-Cookie"] {
            assert_eq!(told(allow(), &[set(name)]), [Quirk::CookiesReplaced]);
        }
        for (name, quirk) in LISTS {
            assert_eq!(told(allow(), &[set("x-a"), set(name)]), [quirk]);
        }
        for name in ["x-set-cookie", "cache-control", "content-type"] {
            assert_eq!(told(allow(), &[set(name)]), []);
        }
        let name = "set-cookie".to_owned();
        assert_eq!(told(allow(), &[HeaderOp::Remove { name }]), []);
        let block = Decision::Block {
            status: 403,
            body: None,
        };
        assert_eq!(told(block, &[set("set-cookie")]), []);
    }

    #[test]
    fn what_old_proxies_mistreat_is_told() {
        let event = |value: &str| {
            Event::RequestHeaders(RequestHead {
                headers: [("x", value)].into(),
                ..RequestHead::default()
            })
        };
        assert!(quirks(&event("plain"), &AgentResponse::allow()).is_empty());
        assert_eq!(
            quirks(&event("ü"), &AgentResponse::allow()),
            [Quirk::ValueArrivesEmpty]
        );
        let challenge = AgentResponse::new(Decision::Challenge {
            challenge_type: "js".into(),
            params: std::collections::BTreeMap::new(),
        });
        assert_eq!(
            quirks(&event("plain"), &challenge),
            [Quirk::ChallengeAllows]
        );
    }
}
