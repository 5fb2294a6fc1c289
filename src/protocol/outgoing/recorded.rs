//! An answer of today as a recording of an earlier one would hold it.
//!
//! In: an answer, and what of its transport a recorded answer to the same event
//! shows. Out: what the same rules make of it, so that a replay compares like with
//! like: gRPC carries no bodies, and the socket no binary request body.

use super::{Asked, BODY_LEFT_OUT, Outgoing, ROUTING_LEFT_OUT, Recipient, Sent};
use crate::fault::{BadAnswer, FaultCode};
use crate::policy::decision::FailurePolicy;
use crate::protocol::proxy::{Proxy, ProxyQuirks};
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::{Dialect, RequestBodyText};
use crate::response::AgentResponse;

impl Recipient {
    /// The one that a recorded answer was for, where its tags or its fault show
    /// that the transport could not carry what a module had answered.
    pub(crate) fn of_recorded<'a>(
        mut tags: impl Iterator<Item = &'a str>,
        fault: Option<&str>,
        failure_policy: FailurePolicy,
    ) -> Option<Self> {
        let of_socket = [
            FaultCode::BadAnswer(BadAnswer::BinaryRequestBody),
            FaultCode::AnswerLimit,
        ];
        let protocol = if tags.any(|tag| [BODY_LEFT_OUT, ROUTING_LEFT_OUT].contains(&tag)) {
            Protocol::Grpc
        } else if fault.is_some_and(|fault| of_socket.iter().any(|of| of.to_string() == fault)) {
            Protocol::V2
        } else {
            return None;
        };
        Some(Self {
            dialect: Dialect {
                protocol,
                encoding: Encoding::Json,
                request_body: RequestBodyText::Verbatim,
            },
            proxy: Proxy::new(ProxyQuirks::Off, None),
            failure_policy,
            changes_response_bodies: false,
        })
    }

    /// What it is told, less what is for a version of the proxy.
    pub(crate) fn told(self, answer: AgentResponse) -> Option<Sent> {
        let outgoing = Outgoing::new(Box::new(answer), Asked::Other(""), self);
        outgoing.write(&mut Vec::new())
    }
}
