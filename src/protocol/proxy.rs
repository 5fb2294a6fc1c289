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
pub(crate) use version::{Proxy, ProxyQuirks, Releases};

/// One surprising thing that a released proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub(crate) enum Quirk {
    /// The redirect becomes a 500.
    RedirectIs500,
    /// The challenge lets the request through.
    ChallengeAllows,
    /// The refusal of a response is ignored.
    ResponseRefusalIgnored,
    /// The refusal of a response's body comes too late for its status.
    ResponseBodyRefusalCuts,
    /// Response header operations of the request phase are lost.
    ResponseOpsDropped,
    /// Request header operations of the body phase are lost.
    RequestOpsAfterBodyDropped,
    /// Operations beside a block are lost.
    OpsBesideBlockDropped,
    /// Operations beside a redirect or a challenge are lost.
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
    /// In which releases, what happens, and what to do.
    #[must_use]
    pub(crate) fn explain(self) -> String {
        let text = self.text();
        match self.releases() {
            Some(releases) => format!("{releases}: {text}"),
            None => text.to_owned(),
        }
    }

    /// The releases that it was seen in; none where it follows from what the
    /// answer says, whoever carries it out.
    const fn releases(self) -> Option<Releases> {
        Some(match self {
            Self::RedirectIs500
            | Self::ChallengeAllows
            | Self::OpsBesideBlockDropped
            | Self::BodyCutAtContext
            | Self::BodyOfBodyBlockReplaced => Releases::UNREPAIRED,
            // Sentinel sends no responses to agents.
            Self::ResponseRefusalIgnored | Self::ResponseOpsDropped => {
                Releases::UNREPAIRED.of_zentinel()
            }
            Self::ResponseBodyRefusalCuts => Releases::REPAIRED,
            Self::OpsBesideRefusalDropped
            | Self::ValueArrivesEmpty
            | Self::RequestMutationIgnored => Releases::ALL,
            Self::RequestOpsAfterBodyDropped | Self::EmptyResponseBodyIgnored => {
                Releases::ALL.of_zentinel()
            }
            Self::CookiesReplaced
            | Self::LinkReplaced
            | Self::VaryReplaced
            | Self::ViaReplaced
            | Self::WwwAuthenticateReplaced => return None,
        })
    }

    const fn text(self) -> &'static str {
        match self {
            Self::RedirectIs500 => "a redirect of a request is answered with 500",
            Self::ChallengeAllows => {
                "a challenge lets the request through; there `serve` blocks with 403 instead"
            }
            Self::ResponseRefusalIgnored => {
                "a refusal of a response is ignored and the response passes"
            }
            Self::ResponseBodyRefusalCuts => {
                "a refusal of a response body replaces the response only where its head was not sent yet (a short body); else the client gets the upstream's status and a connection that is cut"
            }
            Self::ResponseOpsDropped => {
                "response header operations of the request phase are dropped; give them in on_response_headers"
            }
            Self::RequestOpsAfterBodyDropped => {
                "request header operations that come with the request body are dropped, by 0.6.54 unless the agent has request-body-mode \"inspect-first\""
            }
            Self::OpsBesideBlockDropped => "header operations that come with a block are dropped",
            Self::OpsBesideRefusalDropped => {
                "header operations that come with a redirect or a challenge are dropped"
            }
            Self::BodyCutAtContext => "the body of a block is cut at the text \"context:\"",
            Self::ValueArrivesEmpty => "a header value that is not visible ASCII arrives as \"\"",
            Self::RequestMutationIgnored => {
                "a change of the request body is ignored, by 0.6.54 unless the agent has request-body-mode \"stream\" or \"hybrid\""
            }
            Self::EmptyResponseBodyIgnored => {
                "an empty replacement of a response body is ignored and the body passes"
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
                "a block of a request body shows the proxy's own error page, not this body"
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
    let (is_block, block_body) = match &response.decision {
        Decision::Block { body, .. } => (true, body.as_deref().unwrap_or("")),
        _ => (false, ""),
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
            !request_phase && body_phase && refuses,
            Quirk::ResponseBodyRefusalCuts,
        ),
        (
            request_phase && !refuses && !response.response_headers.is_empty(),
            Quirk::ResponseOpsDropped,
        ),
        (
            request_phase && body_phase && !refuses && !response.request_headers.is_empty(),
            Quirk::RequestOpsAfterBodyDropped,
        ),
        (is_block && has_ops, Quirk::OpsBesideBlockDropped),
        (
            refuses && !is_block && has_ops,
            Quirk::OpsBesideRefusalDropped,
        ),
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
    use crate::event::{BodyChunk, RequestHead, ResponseHead};
    use crate::response::BodyMutation;

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

    /// A user looks whether a note is about the own proxy.
    #[test]
    fn each_quirk_of_a_proxy_names_its_releases() {
        for (quirk, releases) in [
            (
                Quirk::ChallengeAllows,
                "zentinel-proxy up to 0.6.45 and sentinel-proxy 0.4.14: ",
            ),
            (
                Quirk::ResponseRefusalIgnored,
                "zentinel-proxy up to 0.6.45: ",
            ),
            (
                Quirk::ResponseBodyRefusalCuts,
                "zentinel-proxy from 0.6.54 on: ",
            ),
            (
                Quirk::RequestMutationIgnored,
                "zentinel-proxy up to 0.6.54 and sentinel-proxy 0.4.14: ",
            ),
            (Quirk::CookiesReplaced, "add_response_headers sets "),
        ] {
            let told = quirk.explain();
            assert!(told.starts_with(releases), "{told}");
        }
    }

    #[test]
    fn what_needs_a_body_mode_or_comes_too_late_is_told() {
        let head = || Some(std::sync::Arc::new(RequestHead::default()));
        let chunk = BodyChunk::default;
        let request = Event::RequestBody {
            chunk: chunk(),
            request: head(),
        };
        let mut answer = AgentResponse::allow();
        answer.request_headers = vec![HeaderOp::Remove { name: "x".into() }];
        let late = [Quirk::RequestOpsAfterBodyDropped];
        assert_eq!(quirks(&request, &answer), late);
        let early = Event::RequestHeaders(RequestHead::default());
        assert_eq!(quirks(&early, &answer), []);
        answer.request_body_mutation = Some(BodyMutation {
            chunk_index: 0,
            data: b"x".to_vec(),
        });
        let both = [late[0], Quirk::RequestMutationIgnored];
        assert_eq!(quirks(&request, &answer), both);

        let block = AgentResponse::new(Decision::Block {
            status: 403,
            body: None,
        });
        let response = Event::ResponseBody {
            chunk: chunk(),
            request: None,
            response: None,
        };
        let cut = [
            Quirk::ResponseRefusalIgnored,
            Quirk::ResponseBodyRefusalCuts,
        ];
        assert_eq!(quirks(&response, &block), cut);
        let head = Event::ResponseHeaders(ResponseHead::default());
        assert_eq!(quirks(&head, &block), cut[..1]);
    }

    #[test]
    fn operations_beside_a_block_and_beside_a_redirect_are_told_apart() {
        let told = |decision| {
            let mut answer = AgentResponse::new(decision);
            answer.response_headers = vec![HeaderOp::Remove { name: "x".into() }];
            let event = Event::RequestHeaders(RequestHead::default());
            quirks(&event, &answer)
        };
        let block = Decision::Block {
            status: 403,
            body: None,
        };
        assert_eq!(told(block), [Quirk::OpsBesideBlockDropped]);
        let redirect = Decision::Redirect {
            url: "/".into(),
            status: 302,
        };
        let expected = [Quirk::RedirectIs500, Quirk::OpsBesideRefusalDropped];
        assert_eq!(told(redirect), expected);
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
