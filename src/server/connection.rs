//! One connection: what is in flight, and what is still to be written.
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
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use super::exchanges::{Affinity, Arrival, Chunks, JoinedEvent, Origin, Peer, Wants};
use super::metrics::Seen;
use super::record::Source;
use super::settings::MAX_UNSENT_BYTES;
use super::{Shared, lock};
use crate::event::{Event, EventKind};
use crate::fault::{Fault, FaultCode, printable};
use crate::policy::bodies::{self, Collected, Collector};
use crate::policy::decision::FailurePolicy;
use crate::policy::{Handled, Policy};
use crate::protocol::outgoing::{Asked, Outgoing, Recipient, Sent};
use crate::protocol::proxy::Proxy;
use crate::protocol::wire::HttpVersion;
use crate::protocol::wire::frame::Protocol;
use crate::protocol::wire::response::Dialect;
use crate::response::Decision;

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

/// What came of an event, and the guest that gave the answer, where it is to be
/// recorded.
pub(crate) struct Given {
    pub(crate) handled: Handled,
    pub(crate) source: Option<Source>,
}

impl From<Handled> for Given {
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
    state: Mutex<Traffic>,
    /// For a reader that is no part of the writer's task: something was sent,
    /// or nothing is in flight any more.
    pub(crate) eased: Notify,
    /// Heads of requests, and of responses.
    heads_came: [AtomicBool; 2],
    /// A bit for each lasting note that was logged.
    told: AtomicU8,
}

#[derive(Default)]
struct Traffic {
    in_flight: Vec<Ticket>,
    /// Answers that were claimed and are still to be sent.
    claimed: usize,
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

impl Traffic {
    /// All that was received.
    const fn is_answered(&self) -> bool {
        self.in_flight.is_empty() && self.claimed == 0
    }
}

/// What a peer is told unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    Health,
    Metrics,
}

/// The one answer to an event that was in flight. Dropping it sends the answer,
/// so that a panic before that does not keep the proxy waiting.
struct Claim<'a> {
    connection: &'a Connection,
    /// None where it is not to be sent, and the connection is over.
    frame: Option<&'a [u8]>,
}

impl Claim<'_> {
    const fn is_sent(&self) -> bool {
        self.frame.is_some()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.connection.state);
        state.claimed -= 1;
        match self.frame {
            None => state.ended = true,
            Some(frame) if !state.ended => state.unsent.extend_from_slice(frame),
            Some(_) => {}
        }
        wake_writer(state);
    }
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
            heads_came: Default::default(),
            told: AtomicU8::new(0),
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
        let affinity = match self.dialect.protocol {
            Protocol::V1 => Affinity::None,
            _ if self.proxy().sends_bodies_after_ids() => Affinity::LastHead,
            _ => Affinity::Kept,
        };
        Origin {
            peer: self.peer,
            connection: self.number,
            affinity,
            heads_come: self
                .heads_came
                .each_ref()
                .map(|came| came.load(Ordering::Relaxed)),
        }
    }

    /// Joins an event to its exchange.
    pub(crate) fn join(&self, event: Event, version: HttpVersion, policy: &Policy) -> JoinedEvent {
        let kind = event.kind();
        let wants = Wants {
            request_bodies: policy.handles(EventKind::RequestBody),
            response_bodies: policy.handles(EventKind::ResponseBody),
            operations: self.proxy().is_unrepaired(),
            numbers: self.shared.settings.recorder.is_some(),
            ends_unclear: policy.settings().failure_policy == FailurePolicy::Closed,
            chunks: if policy.collects_bodies(kind) {
                Chunks::Collected
            } else if policy.keeps_chunks_together(kind) {
                Chunks::Together
            } else {
                Chunks::Alone
            },
        };
        let arrival = Arrival {
            origin: self.origin(),
            wants,
            is_http1: version == HttpVersion::One,
            now: Instant::now(),
        };
        let joined = self.shared.exchanges.arrive(arrival, event);
        match kind {
            EventKind::RequestHeaders => self.heads_came[0].store(true, Ordering::Relaxed),
            EventKind::ResponseHeaders => self.heads_came[1].store(true, Ordering::Relaxed),
            EventKind::RequestBody | EventKind::ResponseBody => {}
        }
        joined
    }

    /// Takes a chunk into the body that is collected for the module. Says how to answer
    /// it where the module is not asked about it: more is to come, or it cannot be.
    pub(crate) fn collect(&self, asked: &mut JoinedEvent, policy: &Policy) -> Option<Handled> {
        let kind = asked.event.kind();
        let chunk = bodies::chunk_of(&mut asked.event)?;
        if !policy.collects_bodies(kind) {
            return None;
        }
        let max_bytes = policy.settings().bodies.max_bytes;
        let taken = match &asked.joined.body {
            Some(body) => body.take(chunk, max_bytes),
            None => Collector::new(true).take(chunk, max_bytes),
        };
        match taken {
            Ok(Collected::Whole(chunks)) => {
                asked.joined.chunks = chunks;
                None
            }
            Ok(Collected::More) => Some(policy.collects()),
            Err(fault) => Some(policy.refuse(fault)),
        }
    }

    /// Begins an event; an earlier one of the same id is given up. Says
    /// whether there is room for it.
    pub(crate) fn begin(&self, correlation_id: &str) -> (Ticket, bool) {
        let key = self.shared.hasher.hash_one(correlation_id);
        let mut state = lock(&self.state);
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
        let mut state = lock(&self.state);
        state.in_flight.retain(|ticket| ticket.key != key);
        wake_writer(state);
    }

    /// Whether somebody still waits for this answer.
    pub(crate) fn is_awaited(&self, ticket: Ticket) -> bool {
        lock(&self.state).in_flight.contains(&ticket)
    }

    /// Sends the answer to an event, and keeps what later events need of it.
    pub(crate) fn answer(&self, ticket: Ticket, asked: JoinedEvent, given: impl Into<Given>) {
        let Given { handled, source } = given.into();
        let JoinedEvent { mut event, joined } = asked;
        let exchange = source.as_ref().map(|source| source.exchange);
        let recorder = self.shared.settings.recorder.as_ref();
        if source.is_none()
            && !joined.is_unclear
            && let Some(recorder) = recorder
        {
            // It is not recorded, but its secrets may be in later events that are.
            match &handled.fault {
                None => recorder.learn(&event, joined.number),
                Some(_) => recorder.give_up(joined.number),
            }
        }
        let metrics = self.shared.live.metrics();
        let cost = handled.cost;
        // A call and its fault count whether or not the answer is sent.
        if let Some(cost) = cost {
            metrics.called(event.kind(), cost.time);
        }
        let called_fault = |fault: Option<&Fault>| {
            let of_call = fault.filter(|_| cost.is_some());
            of_call.map(|fault| fault.code)
        };
        let fault = called_fault(handled.fault.as_ref());
        if !self.is_awaited(ticket) {
            self.give_up(fault, exchange);
            return;
        }
        // Before a rule takes the body out of the event.
        let record = recorder
            .zip(source)
            .and_then(|(recorder, source)| recorder.prepare(&event, cost, source));
        if joined.chunks > 1
            && let Some(chunk) = bodies::chunk_of(&mut event)
        {
            // As the proxy has it: this is the last of several.
            chunk.chunk_index = joined.chunks - 1;
        }
        let mut outgoing = self.outgoing(handled, Asked::Event(&mut event));
        outgoing.earlier = joined.operations;
        outgoing.is_recorded = record.is_some();
        let mut frame = FRAME.take();
        frame.clear();
        let Some(mut sent) = self.write(outgoing, &mut frame) else {
            self.give_up(fault, exchange.filter(|_| record.is_some()));
            return;
        };
        self.tell(event.correlation_id(), &sent);
        let claim = self.claim(ticket, &frame);
        if !claim.as_ref().is_some_and(Claim::is_sent) {
            // What was not prepared is counted as dropped already.
            let exchange = exchange.filter(|_| record.is_some());
            self.give_up(called_fault(sent.fault.as_ref()), exchange);
            return;
        }
        metrics.answered(Seen::Kind(event.kind()), &sent);
        let exchanges = &self.shared.exchanges;
        if sent.answer.decision != Decision::Allow {
            // Before 0.6.54 a refusal of a response is ignored, and it goes on.
            let goes_on = self.proxy().is_unrepaired() && !event.kind().is_request();
            if !goes_on && ticket.since.elapsed() <= self.shared.late_after() {
                exchanges.refused(joined.place, &event, joined.is_unclear);
            }
        } else if let Some(later) = sent.later.take() {
            exchanges.answered(joined.place.filter(|_| !joined.is_unclear), later);
        }
        if let (Some(recorder), Some(record), Some(answer)) = (recorder, record, sent.recorded) {
            recorder.offer(record, answer, sent.fault);
        }
        drop(claim);
        // One large answer is no reason to keep its size for ever.
        if frame.capacity() <= MAX_UNSENT_BYTES {
            FRAME.set(frame);
        }
    }

    /// Sends an answer that no guest gave and that is not recorded: to what no
    /// module is asked about, or what could not be read; `seen` where it counts
    /// as an event.
    pub(crate) fn answer_plain(
        &self,
        (ticket, id): (Ticket, &str),
        handled: Handled,
        seen: Option<Seen>,
    ) {
        let mut frame = Vec::new();
        let sent = self.write(self.outgoing(handled, Asked::Other(id)), &mut frame);
        // What came of settings is logged where they are applied.
        if let (Some(sent), Some(Seen::Unreadable)) = (&sent, seen) {
            self.tell(id, sent);
        }
        let claim = self.claim(ticket, &frame);
        let metrics = self.shared.live.metrics();
        let is_sent = claim.as_ref().is_some_and(Claim::is_sent);
        match (seen, sent) {
            (Some(seen), Some(sent)) if is_sent => metrics.answered(seen, &sent),
            (Some(_), _) => metrics.abandoned(None),
            (None, _) => {}
        }
    }

    /// An event is not answered, since nobody waits for it any more; `fault` is
    /// that of its call.
    fn give_up(&self, fault: Option<FaultCode>, recorded_exchange: Option<u64>) {
        self.shared.live.metrics().abandoned(fault);
        let recorder = self.shared.settings.recorder.as_ref();
        if let Some((recorder, exchange)) = recorder.zip(recorded_exchange) {
            recorder.give_up(exchange);
        }
    }

    fn outgoing<'a>(&self, handled: Handled, asked: Asked<'a>) -> Outgoing<'a> {
        let policy = self.shared.live.policy_now();
        let to = Recipient {
            dialect: self.dialect,
            proxy: self.proxy(),
            failure_policy: policy.settings().failure_policy,
            changes_response_bodies: policy.handles(EventKind::ResponseBody),
        };
        let mut outgoing = Outgoing::new(handled.response, asked, to);
        outgoing.fault = handled.fault;
        outgoing
    }

    /// Writes an answer's frame. Where not even a bare refusal fits into one,
    /// nobody can be told, and the connection ends.
    fn write(&self, outgoing: Outgoing<'_>, frame: &mut Vec<u8>) -> Option<Sent> {
        let sent = outgoing.write(frame);
        if sent.is_none() {
            self.end();
        }
        sent
    }

    /// Logs what is about to be sent.
    fn tell(&self, correlation_id: &str, sent: &Sent) {
        self.shared.tell(correlation_id, sent);
        let id = || printable(correlation_id, 128);
        if !sent.left_out.is_empty() {
            tracing::debug!(
                correlation_id = id(),
                lost = sent.left_out.join(" "),
                "gRPC cannot carry the whole answer; the Unix socket can"
            );
        }
        for note in &sent.notes {
            let bit = 1 << *note as u8;
            let is_new = if note.is_lasting() {
                self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
            } else {
                self.shared.log_limiter.admit()
            };
            if is_new {
                tracing::warn!(correlation_id = id(), "{}", note.text());
            }
        }
    }

    /// Takes the event out of those in flight, so that the caller can count and
    /// remember what the answer says before the proxy can see it: the next event
    /// may follow the answer at once. None where nobody waits for it any more.
    fn claim<'a>(&'a self, ticket: Ticket, frame: &'a [u8]) -> Option<Claim<'a>> {
        let is_late = self.dialect.protocol == Protocol::V1
            && ticket.since.elapsed() > self.shared.late_after();
        let mut state = lock(&self.state);
        let place = state.in_flight.iter().position(|open| *open == ticket)?;
        state.in_flight.swap_remove(place);
        state.claimed += 1;
        let is_sent = !is_late && !state.ended;
        drop(state);
        Some(Claim {
            connection: self,
            frame: is_sent.then_some(frame),
        })
    }

    /// Appends a control message.
    pub(crate) fn send(&self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = lock(&self.state);
        if !state.ended {
            // A message of our own is far below the limit.
            let _ = self.dialect.protocol.write(kind, &mut state.unsent, write);
        }
        wake_writer(state);
    }

    /// Sends a report; it replaces one of its kind that was not sent yet, so
    /// that they do not pile up before a peer that takes nothing.
    pub(crate) fn report(&self, report: Report, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let mut newest = Vec::new();
        // A message of our own is far below the limit.
        let _ = self.dialect.protocol.write(kind, &mut newest, write);
        let mut state = lock(&self.state);
        if !state.ended {
            state.reports[report as usize] = newest;
        }
        wake_writer(state);
    }

    /// Swaps what is unsent into the empty `batch`, for the writer; where
    /// there is nothing, the writer is woken later.
    pub(crate) fn take_unsent(&self, batch: &mut Vec<u8>, context: &Context<'_>) -> Next {
        let mut state = lock(&self.state);
        if state.ended {
            return Next::End;
        }
        let Traffic {
            unsent, reports, ..
        } = &mut *state;
        for report in reports {
            unsent.append(report);
        }
        if !unsent.is_empty() {
            std::mem::swap(unsent, batch);
            return Next::Send;
        }
        if state.finishing && state.is_answered() {
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
        lock(&self.state).writer_sleeps = false;
    }

    /// Whether the reader may go on: the peer takes what it is sent, and in v1
    /// the one event was answered.
    pub(crate) fn may_read(&self) -> bool {
        let state = lock(&self.state);
        match self.dialect.protocol {
            Protocol::V1 => state.is_answered(),
            Protocol::V2 | Protocol::Grpc => state.unsent.len() <= MAX_UNSENT_BYTES,
        }
    }

    /// Nothing more will be read.
    pub(crate) fn finish(&self) {
        let mut state = lock(&self.state);
        state.finishing = true;
        wake_writer(state);
    }

    /// Nobody is there any more: events in flight are given up.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        state.in_flight.clear();
        state.unsent = Vec::new();
        state.reports = Default::default();
        wake_writer(state);
    }
}

/// After the lock: whoever is woken wants it.
fn wake_writer(mut state: MutexGuard<'_, Traffic>) {
    if !std::mem::take(&mut state.writer_sleeps) {
        return;
    }
    let writer = state.writer.take();
    drop(state);
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::Server;

    /// The proxy learns of an answer only once it is kept what the answer says;
    /// and nobody takes the connection for idle meanwhile.
    #[tokio::test]
    async fn a_claimed_answer_is_awaited_and_not_yet_sent() {
        let server = Server::new("right/allow.wat");
        let connection = server.connection(Protocol::V1);
        let context = Context::from_waker(Waker::noop());
        let mut batch = Vec::new();
        let (ticket, _) = connection.begin("c1");
        connection.finish();
        let claim = connection.claim(ticket, b"answer").unwrap();
        assert!(connection.claim(ticket, b"twice").is_none());
        assert!(!connection.may_read());
        let next = connection.take_unsent(&mut batch, &context);
        assert!(matches!(next, Next::Wait));
        drop(claim);
        assert!(connection.may_read());
        let next = connection.take_unsent(&mut batch, &context);
        assert!(matches!(next, Next::Send));
        assert_eq!(batch, b"answer");
        batch.clear();
        let next = connection.take_unsent(&mut batch, &context);
        assert!(matches!(next, Next::End));
    }
}
