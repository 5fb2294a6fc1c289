//! The one way out: what becomes of an answer between its decision and its bytes.
//!
//! In: an answer, what it is the answer to, and who takes it. Out: the bytes of its
//! frame, the answer that stands in them, and the answer as a recording holds it.
//! Every answer of every transport comes through here: first the rules in their
//! order, then the encoding. Invariant: no refusal becomes an allow.

mod recorded;
mod rules;

use self::rules::{RULES, Stage};
use super::proxy::Proxy;
use super::wire::response::Dialect;
use crate::event::Event;
use crate::fault::{Fault, FaultCode};
use crate::policy::decision::{FailurePolicy, decide};
use crate::response::{AgentResponse, Decision, HeaderOp};

/// The status of a refusal that has none of its own.
const STATUS_OF_REFUSAL: u16 = 403;

/// The tag of an answer whose changes of a body were left out.
const BODY_LEFT_OUT: &str = "body-mutation-unsupported";
/// Of one whose words for the proxy's router were.
const ROUTING_LEFT_OUT: &str = "routing-metadata-unsupported";

/// Who takes an answer, as far as the rules have to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipient {
    pub(crate) dialect: Dialect,
    pub(crate) proxy: Proxy,
    /// What becomes of an answer that cannot be sent.
    pub(crate) failure_policy: FailurePolicy,
    /// The module has a handler of response bodies, and may change their length.
    pub(crate) changes_response_bodies: bool,
}

/// What an answer is the answer to.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// The event is done with: a body is taken out of it rather than copied.
    Event(&'a mut Event),
    /// No event that a module is asked about; of this correlation id.
    Other(&'a str),
}

impl Asked<'_> {
    fn correlation_id(&self) -> &str {
        match self {
            Self::Event(event) => event.correlation_id(),
            Self::Other(id) => id,
        }
    }
}

/// An answer on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) answer: Box<AgentResponse>,
    pub(crate) fault: Option<Fault>,
    pub(crate) asked: Asked<'a>,
    pub(crate) to: Recipient,
    /// Response header operations of earlier answers of the exchange, which the
    /// proxy dropped.
    pub(crate) earlier: Vec<HeaderOp>,
    /// Set where the answer is recorded.
    pub(crate) is_recorded: bool,
    left_out: Vec<&'static str>,
    notes: Vec<Note>,
}

/// What was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) answer: Box<AgentResponse>,
    /// Why the failure policy decided, if it did.
    pub(crate) fault: Option<Fault>,
    /// What a recording holds: the answer as it was sent, but without what only
    /// this version of the proxy needs, since a replay has no proxy.
    pub(crate) recorded: Option<Box<AgentResponse>>,
    /// Response header operations that this proxy drops now, to be repeated in the
    /// answer to the response's head. None where there are to be none: after a
    /// refusal, or where the proxy carries them out.
    pub(crate) later: Option<Vec<HeaderOp>>,
    /// Tags of what the transport cannot carry.
    pub(crate) left_out: Vec<&'static str>,
    /// What operators should know.
    pub(crate) notes: Vec<Note>,
}

/// Something about an answer that operators should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    BodyLeftOut,
    ResponseBodiesCut,
    RedirectFails,
    EmptyBodyIgnored,
}

impl Note {
    /// Whether each connection is told of once, because it goes on like this.
    pub(crate) const fn is_lasting(self) -> bool {
        !matches!(self, Self::EmptyBodyIgnored)
    }

    /// What happens, and what to do.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::BodyLeftOut => {
                "gRPC cannot replace a body; the Unix socket can (logged once for each connection)"
            }
            Self::ResponseBodiesCut => {
                "over gRPC zentinel-proxy up to 0.6.45, which this proxy is or may be, forwards only the last piece of a response body that an agent has seen: take response_body out of its events, or use the Unix socket (logged once for each connection)"
            }
            Self::RedirectFails => {
                "zentinel-proxy up to 0.6.45 and sentinel-proxy, which this proxy is or may be, answer 500 to a redirect; zentinel-proxy redirects from 0.6.54 on (logged once for each connection)"
            }
            Self::EmptyBodyIgnored => {
                "zentinel-proxy up to 0.6.54 ignores an empty replacement of a response body; replace it with one byte, or block"
            }
        }
    }
}

impl<'a> Outgoing<'a> {
    pub(crate) const fn new(answer: Box<AgentResponse>, asked: Asked<'a>, to: Recipient) -> Self {
        Self {
            answer,
            fault: None,
            asked,
            to,
            earlier: Vec::new(),
            is_recorded: false,
            left_out: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Runs the rules and appends the answer's frame to `frame`. None where not
    /// even a bare refusal fits into the protocol's largest frame, which only a
    /// correlation id of many megabytes brings about.
    pub(crate) fn write(mut self, frame: &mut Vec<u8>) -> Option<Sent> {
        let of_proxy = RULES.partition_point(|rule| rule.stage < Stage::Proxy);
        let (all, of_proxy) = RULES.split_at(of_proxy);
        for rule in all {
            (rule.apply)(&mut self);
        }
        let mut recorded = self.is_recorded.then(|| self.answer.clone());
        for rule in of_proxy {
            (rule.apply)(&mut self);
        }
        if !self.encode(&mut recorded, frame) {
            return None;
        }
        let later = self
            .drops_operations()
            .then(|| self.answer.response_headers.clone());
        Some(Sent {
            later,
            answer: self.answer,
            fault: self.fault,
            recorded,
            left_out: self.left_out,
            notes: self.notes,
        })
    }

    /// Appends the frame. An answer that is too large for it becomes smaller, and
    /// the recorded one with it: first without its changes of bodies, where an
    /// allow without them is decided by the failure policy; then without anything
    /// but its refusal.
    fn encode(&mut self, recorded: &mut Option<Box<AgentResponse>>, frame: &mut Vec<u8>) -> bool {
        if self.fits(frame) {
            return true;
        }
        if self.answer.decision == Decision::Allow {
            self.refuse(Fault::new(
                FaultCode::AnswerLimit,
                "the answer is larger than the protocol's largest frame",
            ));
            *recorded = self.is_recorded.then(|| self.answer.clone());
        }
        for answer in std::iter::once(&mut self.answer).chain(recorded.as_mut()) {
            answer.request_body_mutation = None;
            answer.response_body_mutation = None;
        }
        if self.fits(frame) {
            return true;
        }
        let status = self.answer.decision.status().unwrap_or(STATUS_OF_REFUSAL);
        *self.answer = AgentResponse::new(Decision::Block { status, body: None });
        *recorded = self.is_recorded.then(|| self.answer.clone());
        self.fits(frame)
    }

    /// Whether the proxy drops the response header operations of this answer, and
    /// goes on to a response.
    fn drops_operations(&self) -> bool {
        let is_request = matches!(&self.asked, Asked::Event(event) if event.kind().is_request());
        let goes_on = self.answer.decision == Decision::Allow;
        is_request && goes_on && self.to.proxy.is_unrepaired()
    }

    fn fits(&self, frame: &mut Vec<u8>) -> bool {
        let id = self.asked.correlation_id();
        self.to.dialect.write(&self.answer, id, frame)
    }

    /// Puts the failure policy's decision in the answer's place.
    fn refuse(&mut self, fault: Fault) {
        self.answer = decide(Err(&fault), self.to.failure_policy);
        self.fault = Some(fault);
    }

    /// Says that the transport cannot carry something.
    fn leave_out(&mut self, tag: &'static str) {
        self.answer.tag(tag);
        self.left_out.push(tag);
    }
}

#[cfg(test)]
mod tests;
