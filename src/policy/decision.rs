//! Fail-open and fail-closed: the only place that knows them.
//!
//! In: a checked answer or a fault. Out: the agent response. Pure, so that the
//! two invariants can be proven over any input:
//!
//! 1. fail-closed never allows because something went wrong;
//! 2. an answer that says block, deny, redirect or challenge never becomes an
//!    allow, in either mode.

use crate::fault::{Fault, FaultCode};
use crate::response::{AgentResponse, Decision};

named! {
    /// What a fault becomes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum FailurePolicy {
        /// Block with 500. The default.
        #[default]
        Closed => "fail-closed",
        /// Allow, and say so in the audit tags.
        Open => "fail-open",
    }
}

/// A checked answer, before the failure policy is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The module has no handler for the event, so it was not called.
    NotCalled,
    /// The handler returned nothing, which allows.
    Empty,
    /// The handler's answer; every part of it has been checked.
    Given(Box<AgentResponse>),
}

/// Turns what came of a call into what the proxy is told.
#[must_use]
pub fn decide(result: Result<Outcome, &Fault>, policy: FailurePolicy) -> Box<AgentResponse> {
    match result {
        Ok(Outcome::NotCalled) => Box::new(AgentResponse::allow()),
        Ok(Outcome::Empty) => {
            let mut response = AgentResponse::allow();
            response.tag("empty-answer");
            Box::new(response)
        }
        Ok(Outcome::Given(response)) => response,
        Err(fault) => Box::new(on_fault(fault, policy)),
    }
}

fn on_fault(fault: &Fault, policy: FailurePolicy) -> AgentResponse {
    let mut response = match (policy, fault.refusal) {
        (FailurePolicy::Closed, _) => AgentResponse::new(Decision::Block {
            status: match fault.code {
                FaultCode::Overload => 503,
                _ => 500,
            },
            body: Some("Wasm Error".to_owned()),
        }),
        (FailurePolicy::Open, Some(refusal)) => AgentResponse::new(Decision::Block {
            status: refusal.status,
            body: None,
        }),
        (FailurePolicy::Open, None) => AgentResponse::allow(),
    };
    response.tag("wasm-error");
    if let FaultCode::Overload
    | FaultCode::HeadLost
    | FaultCode::AmbiguousExchange
    | FaultCode::BodyTooLarge
    | FaultCode::BodyIncomplete = fault.code
    {
        response.tag(&fault.code.to_string());
    }
    if policy == FailurePolicy::Open {
        response.tag(if fault.refusal.is_some() {
            "refusal-kept"
        } else {
            "fail-open"
        });
    }
    response.audit.reason_codes.push(fault.code.to_string());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{BadAnswer, Refusal};

    #[test]
    fn a_fault_blocks_with_500_when_closed() {
        let fault = Fault::new(FaultCode::Trap(crate::fault::TrapKind::Unreachable), "");
        let response = decide(Err(&fault), FailurePolicy::Closed);
        assert_eq!(
            response.decision,
            Decision::Block {
                status: 500,
                body: Some("Wasm Error".to_owned())
            }
        );
        assert_eq!(response.audit.tags, ["wasm-error"]);
        assert_eq!(response.audit.reason_codes, ["trap:unreachable"]);
    }

    #[test]
    fn a_fault_allows_and_says_so_when_open() {
        let fault = Fault::new(FaultCode::Deadline, "");
        let response = decide(Err(&fault), FailurePolicy::Open);
        assert_eq!(response.decision, Decision::Allow);
        assert_eq!(response.audit.tags, ["wasm-error", "fail-open"]);
        assert_eq!(response.audit.reason_codes, ["deadline"]);
    }

    #[test]
    fn a_refusal_in_a_faulty_answer_is_kept_when_open() {
        let mut fault = Fault::new(FaultCode::BadAnswer(BadAnswer::Mistyped), "");
        fault.refusal = Some(Refusal { status: 451 });
        let response = decide(Err(&fault), FailurePolicy::Open);
        assert_eq!(response.decision.status(), Some(451));
        assert_eq!(response.audit.tags, ["wasm-error", "refusal-kept"]);
    }

    #[test]
    fn no_room_is_503_and_tagged() {
        let fault = Fault::new(FaultCode::Overload, "");
        let closed = decide(Err(&fault), FailurePolicy::Closed);
        assert_eq!(closed.decision.status(), Some(503));
        assert_eq!(closed.audit.tags, ["wasm-error", "overload"]);
        let open = decide(Err(&fault), FailurePolicy::Open);
        assert_eq!(open.decision, Decision::Allow);
        assert_eq!(open.audit.tags, ["wasm-error", "overload", "fail-open"]);
    }
}
