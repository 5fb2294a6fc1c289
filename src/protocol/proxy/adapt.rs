//! An answer, changed so that the proxy at the other end does what it says.
//!
//! Invariant: no refusal becomes an allow here, and nothing a module asked
//! for is lost that the proxy could have done.

use super::Proxy;
use crate::event::Event;
use crate::response::{AgentResponse, BodyMutation, Decision, HeaderOp};

/// The status a challenge is refused with where it would let everything pass.
const STATUS_OF_CHALLENGE: u16 = 403;

/// What is left to do about an adapted answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adapted {
    /// The proxy will answer 500 to this redirect; worth a log line.
    pub redirect_fails: bool,
    /// Response header operations that the proxy drops now, and that are to be
    /// repeated in the answer to this exchange's response headers.
    pub remembered: Vec<HeaderOp>,
}

/// Adapts the answer to `event` for `proxy`.
///
/// `remembered` is what earlier answers of this exchange left to repeat. The
/// event is done with: a body is taken out of it rather than copied.
pub fn adapt(
    response: &mut AgentResponse,
    event: &mut Event,
    proxy: Proxy,
    remembered: Vec<HeaderOp>,
) -> Adapted {
    let mut adapted = Adapted::default();
    if !proxy.is_unrepaired() {
        return adapted;
    }
    if matches!(response.decision, Decision::Challenge { .. }) {
        response.decision = Decision::Block {
            status: STATUS_OF_CHALLENGE,
            body: None,
        };
        response.tag("challenge-unsupported");
    }
    let allows = response.decision == Decision::Allow;
    match event {
        Event::RequestHeaders(_) | Event::RequestBody { .. } => {
            adapted.redirect_fails = matches!(response.decision, Decision::Redirect { .. });
            if allows {
                adapted.remembered.clone_from(&response.response_headers);
            }
        }
        Event::ResponseHeaders(_) => repeat(response, remembered),
        Event::ResponseBody { chunk, .. } => {
            // One event holds the whole body there. An empty replacement is
            // not used by any proxy.
            let whole = chunk.is_last && chunk.chunk_index == 0 && !chunk.data.is_empty();
            if allows && whole && response.response_body_mutation.is_none() {
                response.response_body_mutation = Some(BodyMutation {
                    chunk_index: chunk.chunk_index,
                    data: std::mem::take(&mut chunk.data),
                });
            }
        }
    }
    adapted
}

/// Puts what was remembered before the answer's own operations, which so have
/// the last word about a header that both change.
fn repeat(response: &mut AgentResponse, mut remembered: Vec<HeaderOp>) {
    if !remembered.is_empty() {
        remembered.append(&mut response.response_headers);
        response.response_headers = remembered;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{BodyChunk, RequestHead, ResponseHead};
    use crate::protocol::proxy::ProxyQuirks;

    /// One before the repair, the repair, and quirks turned off.
    fn proxies() -> [Proxy; 3] {
        let auto = |version| Proxy::new(ProxyQuirks::Auto, Some(version));
        [
            auto("0.6.45"),
            auto("0.6.54"),
            Proxy::new(ProxyQuirks::Off, Some("0.6.45")),
        ]
    }

    fn request() -> Event {
        Event::RequestHeaders(RequestHead::default())
    }

    fn set(name: &str) -> HeaderOp {
        HeaderOp::Set {
            name: name.to_owned(),
            value: "v".to_owned(),
        }
    }

    fn last_body(data: &[u8]) -> Event {
        Event::ResponseBody {
            chunk: BodyChunk {
                is_last: true,
                data: data.to_vec(),
                ..BodyChunk::default()
            },
            request: None,
            response: None,
        }
    }

    #[test]
    fn a_challenge_is_a_block_before_0_6_54_and_for_v1() {
        let challenge = AgentResponse::new(Decision::Challenge {
            challenge_type: "js".into(),
            params: BTreeMap::new(),
        });
        let [old, new, off] = proxies();
        for proxy in [old, Proxy::new(ProxyQuirks::Auto, None)] {
            let mut response = challenge.clone();
            adapt(&mut response, &mut request(), proxy, Vec::new());
            assert_eq!(response.decision.status(), Some(403));
            assert_eq!(response.audit.tags, ["challenge-unsupported"]);
        }
        for proxy in [new, off] {
            let mut response = challenge.clone();
            adapt(&mut response, &mut request(), proxy, Vec::new());
            assert_eq!(response, challenge);
        }
    }

    #[test]
    fn a_redirect_fails_before_0_6_54_and_stays_a_redirect() {
        let redirect = AgentResponse::new(Decision::Redirect {
            url: "/".into(),
            status: 302,
        });
        let [old, new, off] = proxies();
        for (proxy, fails) in [(old, true), (new, false), (off, false)] {
            let mut response = redirect.clone();
            let adapted = adapt(&mut response, &mut request(), proxy, Vec::new());
            assert_eq!(adapted.redirect_fails, fails);
            assert_eq!(response, redirect);
        }
    }

    #[test]
    fn response_operations_of_the_request_are_repeated_before_0_6_54() {
        let [old, new, off] = proxies();
        for (proxy, kept) in [(old, true), (new, false), (off, false)] {
            let mut response = AgentResponse::allow();
            response.response_headers = vec![set("x-early")];
            let adapted = adapt(&mut response, &mut request(), proxy, Vec::new());
            assert_eq!(
                adapted.remembered,
                response.response_headers[..usize::from(kept)]
            );

            let mut response = AgentResponse::allow();
            response.response_headers = vec![set("x-late")];
            let mut event = Event::ResponseHeaders(ResponseHead::default());
            adapt(&mut response, &mut event, proxy, adapted.remembered);
            let names: Vec<_> = response
                .response_headers
                .iter()
                .map(HeaderOp::name)
                .collect();
            let expected: &[&str] = if kept {
                &["x-early", "x-late"]
            } else {
                &["x-late"]
            };
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn operations_beside_a_refusal_are_not_repeated() {
        let mut response = AgentResponse::new(Decision::Block {
            status: 403,
            body: None,
        });
        response.response_headers = vec![set("x")];
        let adapted = adapt(&mut response, &mut request(), proxies()[0], Vec::new());
        assert!(adapted.remembered.is_empty());
    }

    #[test]
    fn an_unchanged_last_body_is_echoed_before_0_6_54() {
        let [old, new, off] = proxies();
        for (proxy, echoed) in [(old, true), (new, false), (off, false)] {
            let mut response = AgentResponse::allow();
            adapt(&mut response, &mut last_body(b"all"), proxy, Vec::new());
            assert_eq!(
                response
                    .response_body_mutation
                    .map(|mutation| mutation.data),
                echoed.then(|| b"all".to_vec())
            );
        }
    }

    #[test]
    fn only_what_would_be_lost_is_echoed() {
        let old = proxies()[0];
        let refusal = Decision::Block {
            status: 403,
            body: None,
        };
        let mut response = AgentResponse::new(refusal);
        adapt(&mut response, &mut last_body(b"all"), old, Vec::new());
        assert_eq!(response.response_body_mutation, None);

        let mut response = AgentResponse::allow();
        let own = BodyMutation {
            chunk_index: 0,
            data: b"own".to_vec(),
        };
        response.response_body_mutation = Some(own.clone());
        adapt(&mut response, &mut last_body(b"all"), old, Vec::new());
        assert_eq!(response.response_body_mutation, Some(own));

        let mut event = last_body(b"half");
        if let Event::ResponseBody { chunk, .. } = &mut event {
            chunk.is_last = false;
        }
        let mut response = AgentResponse::allow();
        adapt(&mut response, &mut event, old, Vec::new());
        assert_eq!(response.response_body_mutation, None);
    }
}
