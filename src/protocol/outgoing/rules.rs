//! The rules that every answer passes on its way out, in their order.
//!
//! In: an answer on its way. Out: the same one, changed so that this transport
//! and this proxy do what it says. A new rule is one function and one line in
//! [`RULES`].

use super::{Asked, BODY_LEFT_OUT, Note, Outgoing, ROUTING_LEFT_OUT, STATUS_OF_REFUSAL};
use crate::event::Event;
use crate::fault::{BadAnswer, Fault, FaultCode};
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::RequestBodyText;
use crate::response::{BodyMutation, Decision, HeaderOp};

/// When a rule has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Whether the answer can be sent at all, or is refused instead.
    Refusal,
    /// What of its parts the transport can carry.
    Parts,
    /// What this version of the proxy needs; a recording holds nothing of it.
    Proxy,
}

pub(super) struct Rule {
    pub(super) stage: Stage,
    pub(super) apply: fn(&mut Outgoing<'_>),
}

/// All rules, in the order in which they run.
pub(super) const RULES: &[Rule] = &[
    rule(Stage::Refusal, refuse_binary_request_body),
    rule(Stage::Parts, leave_out_bodies),
    rule(Stage::Parts, leave_out_routing),
    rule(Stage::Parts, note_empty_response_body),
    rule(Stage::Proxy, block_for_challenge),
    rule(Stage::Proxy, note_redirect),
    rule(Stage::Proxy, remove_response_length),
    rule(Stage::Proxy, repeat_earlier_operations),
    rule(Stage::Proxy, echo_response_body),
    rule(Stage::Proxy, note_cut_response_body),
];

const fn rule(stage: Stage, apply: fn(&mut Outgoing<'_>)) -> Rule {
    Rule { stage, apply }
}

impl Outgoing<'_> {
    fn is_grpc(&self) -> bool {
        self.to.dialect.protocol == Protocol::Grpc
    }

    fn is_unrepaired(&self) -> bool {
        self.to.proxy.is_unrepaired()
    }

    fn event(&self) -> Option<&Event> {
        match &self.asked {
            Asked::Event(event) => Some(event),
            Asked::Other(_) => None,
        }
    }
}

/// A request's body that is replaced by no text is the module's fault where the
/// proxy takes the text as it is; beside a refusal it does not matter.
fn refuse_binary_request_body(out: &mut Outgoing<'_>) {
    let dialect = out.to.dialect;
    if out.is_grpc() || dialect.request_body != RequestBodyText::Verbatim {
        return;
    }
    let mutation = &out.answer.request_body_mutation;
    if mutation
        .as_ref()
        .is_none_or(|mutation| std::str::from_utf8(&mutation.data).is_ok())
    {
        return;
    }
    if out.answer.decision == Decision::Allow {
        out.refuse(Fault::new(
            FaultCode::BadAnswer(BadAnswer::BinaryRequestBody),
            "a request body can be replaced by text only; --request-body base64 is for proxies that decode",
        ));
    } else {
        out.answer.request_body_mutation = None;
    }
}

/// gRPC has no field for the replacement of a body.
fn leave_out_bodies(out: &mut Outgoing<'_>) {
    if !out.is_grpc() {
        return;
    }
    let request = out.answer.request_body_mutation.take();
    let response = out.answer.response_body_mutation.take();
    if request.is_some() || response.is_some() {
        out.leave_out(BODY_LEFT_OUT);
        out.notes.push(Note::BodyLeftOut);
    }
}

/// gRPC has no field for what is meant for the proxy's router.
fn leave_out_routing(out: &mut Outgoing<'_>) {
    if out.is_grpc() && !std::mem::take(&mut out.answer.routing_metadata).is_empty() {
        out.leave_out(ROUTING_LEFT_OUT);
    }
}

/// No proxy replaces a response's body by nothing.
fn note_empty_response_body(out: &mut Outgoing<'_>) {
    let mutation = &out.answer.response_body_mutation;
    let is_empty = mutation
        .as_ref()
        .is_some_and(|mutation| mutation.data.is_empty());
    if is_empty
        && matches!(out.event(), Some(Event::ResponseBody { chunk, .. }) if !chunk.data.is_empty())
    {
        out.notes.push(Note::EmptyBodyIgnored);
    }
}

/// A challenge lets everything pass before 0.6.54, so it becomes a block.
fn block_for_challenge(out: &mut Outgoing<'_>) {
    if out.is_unrepaired() && matches!(out.answer.decision, Decision::Challenge { .. }) {
        out.answer.decision = Decision::Block {
            status: STATUS_OF_REFUSAL,
            body: None,
        };
        out.answer.tag("challenge-unsupported");
    }
}

/// A redirect of a request becomes a 500 before 0.6.54, which is a refusal too.
fn note_redirect(out: &mut Outgoing<'_>) {
    if out.is_unrepaired()
        && matches!(out.answer.decision, Decision::Redirect { .. })
        && out.event().is_some_and(|event| event.kind().is_request())
    {
        out.notes.push(Note::RedirectFails);
    }
}

/// The length in a response's head stays as it was before 0.6.54, so it is taken
/// away where the body may become longer or shorter.
fn remove_response_length(out: &mut Outgoing<'_>) {
    if out.is_unrepaired()
        && !out.is_grpc()
        && out.to.changes_response_bodies
        && matches!(out.event(), Some(Event::ResponseHeaders(_)))
    {
        let name = "content-length".to_owned();
        out.answer
            .response_headers
            .insert(0, HeaderOp::Remove { name });
    }
}

/// Response header operations of the request phase are dropped before 0.6.54, so
/// they are repeated in the answer to the response's head, before its own: those
/// have the last word about a header that both change.
fn repeat_earlier_operations(out: &mut Outgoing<'_>) {
    if out.is_unrepaired() && matches!(out.event(), Some(Event::ResponseHeaders(_))) {
        let earlier = std::mem::take(&mut out.earlier);
        out.answer.response_headers.splice(0..0, earlier);
    }
}

/// The last piece of a response's body is all that is forwarded before 0.6.54, so
/// a body that came whole is written again. No proxy uses an empty replacement.
fn echo_response_body(out: &mut Outgoing<'_>) {
    if out.is_grpc() || !out.is_unrepaired() || out.answer.decision != Decision::Allow {
        return;
    }
    let answer = &mut out.answer;
    let Asked::Event(Event::ResponseBody { chunk, .. }) = &mut out.asked else {
        return;
    };
    let is_whole = chunk.is_last && chunk.chunk_index == 0 && !chunk.data.is_empty();
    if is_whole && answer.response_body_mutation.is_none() {
        answer.response_body_mutation = Some(BodyMutation {
            chunk_index: chunk.chunk_index,
            data: std::mem::take(&mut chunk.data),
        });
    }
}

/// Over gRPC nothing can be answered that makes a proxy before 0.6.54 forward the
/// pieces of a response's body before the last.
fn note_cut_response_body(out: &mut Outgoing<'_>) {
    if out.is_unrepaired()
        && out.is_grpc()
        && matches!(out.event(), Some(Event::ResponseBody { .. }))
    {
        out.notes.push(Note::ResponseBodiesCut);
    }
}
