//! One connection, as all its parts see it: what is in flight, and what is
//! still to be written.
//!
//! The reader begins events, and answers them where no guest takes its time;
//! guest threads answer the others; the writer takes what is to be sent.
//! Invariant: of the events of one correlation id that are in
//! flight at once only the last is answered, because the client keeps one
//! place for an id and would take an earlier answer for the later event's.
//! That place is the connection's own: a late answer on another connection
//! meets nobody.

use std::cell::RefCell;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use super::Shared;
use super::exchanges::{Affinity, Arrival, JoinedEvent, Origin, Peer, Wants};
use super::metrics::Seen;
use super::record::{Record, Source};
use super::settings::MAX_UNSENT_BYTES;
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode};
use crate::policy::decision::FailurePolicy;
use crate::policy::{Handled, Policy};
use crate::protocol::grpc::{BODY_MUTATION_LOST, express};
use crate::protocol::proxy::{Proxy, adapt};
use crate::protocol::wire::HttpVersion;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::{Dialect, RequestBodyText};
use crate::response::{AgentResponse, Decision, HeaderOp};

thread_local! {
    /// Kept from answer to answer, so that writing one allocates nothing.
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One event in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// A keyed hash of the correlation id: nobody can make two ids meet.
    key: u64,
    number: u64,
    since: Instant,
}

impl Ticket {
    pub(crate) const fn since(&self) -> Instant {
        self.since
    }
}

/// An answer on its way out, and the guest that gave it, where it is to be
/// recorded.
pub(crate) struct Outgoing {
    pub(crate) handled: Handled,
    pub(crate) source: Option<Source>,
}

impl From<Handled> for Outgoing {
    fn from(handled: Handled) -> Self {
        Self {
            handled,
            source: None,
        }
    }
}

pub(crate) struct Connection {
    shared: Arc<Shared>,
    dialect: Dialect,
    peer: Peer,
    number: u64,
    /// Set by the handshake, where that comes after the connection.
    proxy: OnceLock<Proxy>,
    state: Mutex<State>,
    /// For a reader that is no part of the writer's task: something was sent,
    /// or nothing is in flight any more.
    pub(crate) eased: Notify,
    request_heads_came: AtomicBool,
    response_heads_came: AtomicBool,
    redirect_told: AtomicBool,
    body_loss_told: AtomicBool,
    cut_bodies_told: AtomicBool,
}

#[derive(Default)]
struct State {
    in_flight: Vec<Ticket>,
    next_number: u64,
    unsent: Vec<u8>,
    /// Of each kind the newest that is not in `unsent` yet.
    reports: [Vec<u8>; 2],
    /// Who is told that there is something to send, or that nothing more will
    /// come.
    writer: Option<Waker>,
    /// Not while the writer is about to look anyway.
    writer_sleeps: bool,
    /// Nothing more is read: the writer ends when all is answered and sent.
    finishing: bool,
    /// Nobody is there any more, or nothing may be sent any more.
    ended: bool,
}

/// What a peer is told unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    Health,
    Metrics,
}

/// What the writer is to do next.
pub(crate) enum Next {
    Send,
    Wait,
    End,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        dialect: Dialect,
        proxy: Option<Proxy>,
        peer: Peer,
    ) -> Self {
        let proxy = proxy.map_or_else(OnceLock::new, OnceLock::from);
        let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            dialect,
            peer,
            number,
            proxy,
            state: Mutex::default(),
            eased: Notify::new(),
            request_heads_came: AtomicBool::new(false),
            response_heads_came: AtomicBool::new(false),
            redirect_told: AtomicBool::new(false),
            body_loss_told: AtomicBool::new(false),
            cut_bodies_told: AtomicBool::new(false),
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Keeps who the peer is; the first to say so is believed.
    pub(crate) fn greet(&self, proxy: Proxy) {
        let _ = self.proxy.set(proxy);
    }

    pub(crate) fn is_greeted(&self) -> bool {
        self.proxy.get().is_some()
    }

    /// Who the peer is; the oldest there is, until it says so.
    fn proxy(&self) -> Proxy {
        let oldest = || Proxy::new(self.shared.settings.quirks, None);
        self.proxy.get().copied().unwrap_or_else(oldest)
    }

    /// No other connection has it.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// What says which exchange an event of this connection belongs to.
    pub(crate) fn origin(&self) -> Origin {
        let came = |seen: &AtomicBool| seen.load(Ordering::Relaxed);
        let affinity = match self.dialect.protocol {
            Protocol::V1 => Affinity::None,
            _ if self.proxy().sends_bodies_after_ids() => Affinity::LastHead,
            _ => Affinity::Kept,
        };
        Origin {
            peer: self.peer,
            connection: self.number,
            affinity,
            heads_come: [
                came(&self.request_heads_came),
                came(&self.response_heads_came),
            ],
        }
    }

    /// Joins an event to its exchange.
    pub(crate) fn join(&self, event: Event, version: HttpVersion, agent: &Policy) -> JoinedEvent {
        let kind = event.kind();
        let wants = Wants {
            request_bodies: agent.handles(EventKind::RequestBody),
            response_bodies: agent.handles(EventKind::ResponseBody),
            operations: self.proxy().is_unrepaired(),
            numbers: self.shared.settings.recorder.is_some(),
            ends_unclear: agent.settings().failure_policy == FailurePolicy::Closed,
        };
        let arrival = Arrival {
            origin: self.origin(),
            wants,
            is_http1: version == HttpVersion::One,
            now: Instant::now(),
        };
        let joined = self.shared.exchanges.arrive(arrival, event);
        match kind {
            EventKind::RequestHeaders => self.request_heads_came.store(true, Ordering::Relaxed),
            EventKind::ResponseHeaders => self.response_heads_came.store(true, Ordering::Relaxed),
            EventKind::RequestBody | EventKind::ResponseBody => {}
        }
        joined
    }

    /// Begins an event; an earlier one of the same id is given up. Says
    /// whether there is room for it.
    pub(crate) fn begin(&self, correlation_id: &str) -> (Ticket, bool) {
        let key = self.shared.hasher.hash_one(correlation_id);
        let mut state = self.lock();
        state.in_flight.retain(|ticket| ticket.key != key);
        let ticket = Ticket {
            key,
            number: state.next_number,
            since: Instant::now(),
        };
        state.next_number += 1;
        state.in_flight.push(ticket);
        let room = state.in_flight.len() <= self.shared.settings.max_in_flight;
        (ticket, room)
    }

    /// Gives an event up: it is not answered, and not called if it waits.
    pub(crate) fn cancel(&self, correlation_id: &str) {
        let key = self.shared.hasher.hash_one(correlation_id);
        let mut state = self.lock();
        state.in_flight.retain(|ticket| ticket.key != key);
        wake_writer(state);
    }

    /// Whether somebody still waits for this answer.
    pub(crate) fn is_awaited(&self, ticket: Ticket) -> bool {
        self.lock().in_flight.contains(&ticket)
    }

    /// Sends the answer to an event, and keeps what later events need of it.
    pub(crate) fn answer(&self, ticket: Ticket, asked: JoinedEvent, outgoing: impl Into<Outgoing>) {
        let Outgoing { handled, source } = outgoing.into();
        let JoinedEvent {
            mut event,
            mut joined,
        } = asked;
        if !self.is_awaited(ticket) {
            self.shared.live.metrics().abandoned();
            if let (Some(recorder), Some(source)) = (&self.shared.settings.recorder, source) {
                recorder.give_up(source.exchange);
            }
            return;
        }
        self.shared.tell(event.correlation_id(), &handled);
        let proxy = self.proxy();
        let handled = self.expressible(&event, handled);
        // What this transport carries, and before the proxy's version changes it.
        let recorder = self.shared.settings.recorder.as_ref();
        let mut record = recorder
            .zip(source)
            .and_then(|(recorder, source)| recorder.prepare(&event, &handled, source));
        let (mut response, fault, cost) = (handled.response, handled.fault, handled.cost);
        if event.kind() == EventKind::ResponseHeaders && self.may_replace_response_body() {
            joined.operations.push(HeaderOp::Remove {
                name: "content-length".to_owned(),
            });
        }
        let (place, is_unclear) = (joined.place, joined.is_unclear);
        let adapted = adapt(&mut response, &mut event, proxy, joined.operations);
        if adapted.redirect_fails && !self.redirect_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                correlation_id = crate::fault::printable(event.correlation_id(), 128),
                "this proxy answers 500 to a redirect; zentinel-proxy 0.6.54 redirects (logged once for each connection)"
            );
        }
        self.tell_ignored(&event, &response);
        let metrics = self.shared.live.metrics();
        metrics.answered(Seen::Kind(event.kind()), &response.decision, fault.as_ref());
        if let Some(cost) = cost {
            metrics.called(event.kind(), cost.time);
        }
        let mut frame = FRAME.take();
        frame.clear();
        let replaced = self.encode(&response, event.correlation_id(), &mut frame);
        if let (Some(record), Some(replaced)) = (&mut record, replaced) {
            record.replace(replaced);
        }
        // Before the answer goes out: the next event may follow it at once.
        let exchanges = &self.shared.exchanges;
        if response.decision != Decision::Allow {
            // Before 0.6.54 a refusal of a response is ignored, and it goes on.
            let goes_on = proxy.is_unrepaired() && !event.kind().is_request();
            if !goes_on && ticket.since.elapsed() <= self.shared.late_after() {
                exchanges.refused(place, &event, is_unclear);
            }
        } else if proxy.is_unrepaired() && event.kind().is_request() {
            let place = place.filter(|_| !is_unclear);
            exchanges.answered(place, adapted.remembered);
        }
        self.send_answer(ticket, &frame, record);
        // One large answer is no reason to keep its size for ever.
        if frame.capacity() <= MAX_UNSENT_BYTES {
            FRAME.set(frame);
        }
    }

    /// Whether a response's body may become longer or shorter behind a proxy
    /// that leaves the length in its head as it was.
    fn may_replace_response_body(&self) -> bool {
        self.proxy().is_unrepaired()
            && self.dialect.protocol != Protocol::Grpc
            && self.shared.agent().handles(EventKind::ResponseBody)
    }

    /// A proxy leaves a body as it is that is to be replaced by nothing.
    fn tell_ignored(&self, event: &Event, response: &AgentResponse) {
        let ignored = response
            .response_body_mutation
            .as_ref()
            .is_some_and(|mutation| mutation.data.is_empty());
        if ignored
            && matches!(event, Event::ResponseBody { chunk, .. } if !chunk.data.is_empty())
            && self.shared.log_limiter.admit()
        {
            tracing::warn!(
                correlation_id = crate::fault::printable(event.correlation_id(), 128),
                "proxies ignore an empty replacement of a response body; replace it with one byte, or block"
            );
        }
    }

    /// Sends an answer that is no event's: to settings, or to what could not
    /// be read.
    pub(crate) fn answer_plain(&self, ticket: Ticket, id: &str, response: &AgentResponse) {
        let mut frame = Vec::new();
        // No guest gave it, so it is not recorded.
        let _ = self.encode(response, id, &mut frame);
        self.send_answer(ticket, &frame, None);
    }

    /// Says once what this connection keeps losing; each time in debug logs
    /// and in the audit tags.
    fn tell_lost(&self, event: &Event, lost: &[&str]) {
        let id = || crate::fault::printable(event.correlation_id(), 128);
        if !lost.is_empty() {
            tracing::debug!(
                correlation_id = id(),
                lost = lost.join(" "),
                "gRPC cannot carry the whole answer; the Unix socket can"
            );
        }
        if lost.contains(&BODY_MUTATION_LOST) && !self.body_loss_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                correlation_id = id(),
                "gRPC cannot replace a body; the Unix socket can (logged once for each connection)"
            );
        }
        // Nothing that can be answered over gRPC repairs this.
        if event.kind() == EventKind::ResponseBody
            && self.proxy().is_unrepaired()
            && !self.cut_bodies_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                correlation_id = id(),
                "over gRPC this proxy forwards only the last piece of a response body that an agent has seen: take response_body out of its events, or use the Unix socket (logged once for each connection)"
            );
        }
    }

    /// A replacement of a request body that no proxy could be sent is the
    /// module's fault; beside a refusal it does not matter.
    fn expressible(&self, event: &Event, mut handled: Handled) -> Handled {
        if self.dialect.protocol == Protocol::Grpc {
            let lost = express(&mut handled.response);
            self.tell_lost(event, &lost);
            return handled;
        }
        let verbatim = self.dialect.request_body == RequestBodyText::Verbatim;
        let binary = |data: &[u8]| verbatim && std::str::from_utf8(data).is_err();
        let Some(mutation) = &handled.response.request_body_mutation else {
            return handled;
        };
        if !binary(&mutation.data) {
            return handled;
        }
        if handled.response.decision != Decision::Allow {
            handled.response.request_body_mutation = None;
            return handled;
        }
        let fault = Fault::new(
            FaultCode::BadAnswer("binary-request-body"),
            "a request body can be replaced by text only; --request-body base64 is for proxies that decode",
        );
        let refused = self.shared.agent().refuse(fault);
        self.shared.tell(event.correlation_id(), &refused);
        refused
    }

    /// Appends the answer's frame to `out`, without its body changes where it
    /// would be too large with them. Says what was written in its place.
    fn encode(&self, response: &AgentResponse, id: &str, out: &mut Vec<u8>) -> Option<Handled> {
        if self.dialect.write(response, id, out) {
            return None;
        }
        let allows = response.decision == Decision::Allow;
        let fault = Fault::new(
            FaultCode::AnswerLimit,
            "the answer is larger than the protocol's largest frame",
        );
        let mut smaller = if allows {
            self.shared.agent().refuse(fault)
        } else {
            Handled {
                response: Box::new(response.clone()),
                fault: None,
                cost: None,
                unknown_keys: Vec::new(),
            }
        };
        smaller.response.request_body_mutation = None;
        smaller.response.response_body_mutation = None;
        if self.dialect.write(&smaller.response, id, out) {
            return Some(smaller);
        }
        // Still a refusal, and nothing else.
        let status = smaller.response.decision.status().unwrap_or(403);
        *smaller.response = AgentResponse::new(Decision::Block { status, body: None });
        if !self.dialect.write(&smaller.response, id, out) {
            // Only an id of many megabytes comes here; nobody can be told.
            self.end();
        }
        Some(smaller)
    }

    /// Recorded under the lock: nothing of the exchange that follows the answer
    /// can be recorded before it.
    fn send_answer(&self, ticket: Ticket, frame: &[u8], record: Option<Record>) {
        let record = self.shared.settings.recorder.as_ref().zip(record);
        let mut state = self.lock();
        let Some(place) = state.in_flight.iter().position(|open| *open == ticket) else {
            drop(state);
            if let Some((recorder, record)) = record {
                recorder.give_up(record.exchange());
            }
            return;
        };
        state.in_flight.swap_remove(place);
        let late = self.dialect.protocol == Protocol::V1
            && ticket.since.elapsed() > self.shared.late_after();
        let is_sent = !late && !state.ended;
        if late {
            state.ended = true;
        } else if is_sent {
            state.unsent.extend_from_slice(frame);
        }
        match record {
            Some((recorder, record)) if is_sent => recorder.offer(record),
            Some((recorder, record)) => recorder.give_up(record.exchange()),
            None => {}
        }
        wake_writer(state);
    }

    /// Appends a control message.
    pub(crate) fn send(&self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if !state.ended {
            // A message of our own is far below the limit.
            let _ = self.dialect.protocol.write(kind, &mut state.unsent, write);
        }
        wake_writer(state);
    }

    /// Sends a report; it replaces one of its kind that was not sent yet, so
    /// that they do not pile up before a peer that takes nothing.
    pub(crate) fn report(&self, report: Report, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.lock();
        if !state.ended {
            let newest = &mut state.reports[report as usize];
            newest.clear();
            // A message of our own is far below the limit.
            let _ = self.dialect.protocol.write(kind, newest, write);
        }
        wake_writer(state);
    }

    /// Swaps what is unsent into the empty `batch`, for the writer; where
    /// there is nothing, the writer is woken later.
    pub(crate) fn take_unsent(&self, batch: &mut Vec<u8>, context: &Context<'_>) -> Next {
        let mut state = self.lock();
        if state.ended {
            return Next::End;
        }
        let State {
            unsent, reports, ..
        } = &mut *state;
        for report in reports {
            unsent.append(report);
        }
        if !unsent.is_empty() {
            std::mem::swap(unsent, batch);
            return Next::Send;
        }
        if state.finishing && state.in_flight.is_empty() {
            return Next::End;
        }
        match &mut state.writer {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        state.writer_sleeps = true;
        Next::Wait
    }

    /// The writer will look before it sleeps again: answers from now on wake
    /// nobody.
    pub(crate) fn writer_is_awake(&self) {
        self.lock().writer_sleeps = false;
    }

    /// Whether the reader may go on: the peer takes what it is sent, and in v1
    /// the one event was answered.
    pub(crate) fn may_read(&self) -> bool {
        let state = self.lock();
        match self.dialect.protocol {
            Protocol::V1 => state.in_flight.is_empty(),
            Protocol::V2 | Protocol::Grpc => state.unsent.len() <= MAX_UNSENT_BYTES,
        }
    }

    /// Nothing more will be read.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.finishing = true;
        wake_writer(state);
    }

    /// Nobody is there any more: events in flight are given up.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.in_flight.clear();
        state.unsent = Vec::new();
        state.reports = Default::default();
        wake_writer(state);
    }

    /// Nothing in the state can be half-changed by a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After the lock: whoever is woken wants it.
fn wake_writer(mut state: MutexGuard<'_, State>) {
    if !std::mem::take(&mut state.writer_sleeps) {
        return;
    }
    let writer = state.writer.take();
    drop(state);
    if let Some(writer) = writer {
        writer.wake();
    }
}
