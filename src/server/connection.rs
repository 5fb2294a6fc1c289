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
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use super::exchanges::{Affinity, Arrival, JoinedEvent, Origin, Peer, Wants};
use super::metrics::Seen;
use super::record::Source;
use super::settings::MAX_UNSENT_BYTES;
use super::{Shared, lock};
use crate::event::{Event, EventKind};
use crate::fault::printable;
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
    request_heads_came: AtomicBool,
    response_heads_came: AtomicBool,
    /// A bit for each lasting note that was logged.
    told: AtomicU8,
}

#[derive(Default)]
struct Traffic {
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
        if !self.is_awaited(ticket) {
            self.give_up(exchange);
            return;
        }
        let cost = handled.cost;
        let recorder = self.shared.settings.recorder.as_ref();
        // Before a rule takes the body out of the event.
        let record = recorder
            .zip(source)
            .and_then(|(recorder, source)| recorder.prepare(&event, cost, source));
        let mut outgoing = self.outgoing(handled, Asked::Event(&mut event));
        outgoing.earlier = joined.operations;
        outgoing.is_recorded = record.is_some();
        let mut frame = FRAME.take();
        frame.clear();
        let sent = outgoing.write(&mut frame);
        self.tell(event.correlation_id(), sent.as_ref());
        self.send_answer(ticket, &frame, |is_sent| {
            let Some(mut sent) = sent.filter(|_| is_sent) else {
                // What was not prepared is counted as dropped already.
                self.give_up(exchange.filter(|_| record.is_some()));
                return;
            };
            let metrics = self.shared.live.metrics();
            metrics.answered(Seen::Kind(event.kind()), &sent);
            if let Some(cost) = cost {
                metrics.called(event.kind(), cost.time);
            }
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
            if let (Some(recorder), Some(record), Some(answer)) = (recorder, record, sent.recorded)
            {
                recorder.offer(record, answer, sent.fault);
            }
        });
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
        let sent = self.outgoing(handled, Asked::Other(id)).write(&mut frame);
        self.tell(id, sent.as_ref());
        self.send_answer(ticket, &frame, |is_sent| {
            if let (Some(sent), Some(seen), true) = (sent, seen, is_sent) {
                self.shared.live.metrics().answered(seen, &sent);
            }
        });
    }

    /// An event is not answered, since nobody waits for it any more.
    fn give_up(&self, recorded_exchange: Option<u64>) {
        self.shared.live.metrics().abandoned();
        let recorder = self.shared.settings.recorder.as_ref();
        if let Some((recorder, exchange)) = recorder.zip(recorded_exchange) {
            recorder.give_up(exchange);
        }
    }

    fn outgoing<'a>(&self, handled: Handled, asked: Asked<'a>) -> Outgoing<'a> {
        let agent = self.shared.agent();
        let to = Recipient {
            dialect: self.dialect,
            proxy: self.proxy(),
            failure_policy: agent.settings().failure_policy,
            changes_response_bodies: agent.handles(EventKind::ResponseBody),
        };
        let mut outgoing = Outgoing::new(handled.response, asked, to);
        outgoing.fault = handled.fault;
        outgoing
    }

    /// Logs what is about to be sent.
    fn tell(&self, correlation_id: &str, sent: Option<&Sent>) {
        let Some(sent) = sent else {
            // Only an id of many megabytes comes here; nobody can be told.
            self.end();
            return;
        };
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

    /// Takes the event out of those in flight and sends its answer. `settle` is
    /// told whether it is sent, before it is: the next event may follow it at
    /// once, and nothing of the exchange that follows the answer may be recorded
    /// before it.
    fn send_answer(&self, ticket: Ticket, frame: &[u8], settle: impl FnOnce(bool)) {
        let mut state = lock(&self.state);
        let Some(place) = state.in_flight.iter().position(|open| *open == ticket) else {
            drop(state);
            settle(false);
            return;
        };
        state.in_flight.swap_remove(place);
        let late = self.dialect.protocol == Protocol::V1
            && ticket.since.elapsed() > self.shared.late_after();
        let is_sent = !late && !state.ended;
        settle(is_sent);
        if late {
            state.ended = true;
        } else if is_sent {
            state.unsent.extend_from_slice(frame);
        }
        wake_writer(state);
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
        let mut state = lock(&self.state);
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
        lock(&self.state).writer_sleeps = false;
    }

    /// Whether the reader may go on: the peer takes what it is sent, and in v1
    /// the one event was answered.
    pub(crate) fn may_read(&self) -> bool {
        let state = lock(&self.state);
        match self.dialect.protocol {
            Protocol::V1 => state.in_flight.is_empty(),
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
