//! Which exchange an event belongs to, and what its earlier events said.
//!
//! In: events as they arrive, and who sent them. Out: for a body event the
//! heads it belongs to, for a response's head the operations to repeat.
//!
//! The client chooses the correlation id, so it is never trusted alone: many
//! exchanges may have one at the same time. Events are joined within one peer,
//! by what each head announced of its body, and by the connection where the
//! proxy keeps an exchange on one. Where live exchanges cannot be told apart,
//! the event gets no head and is told why.
//!
//! Invariants: no event gets the head of another exchange alone; what was
//! forgotten for want of room or time is known to be forgotten for an hour;
//! memory and the cost of each event stay within limits whatever proxies and
//! clients send.

mod bodies;
mod forgotten;
mod group;
mod kept;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::bodies::Bodies;
pub(crate) use self::bodies::OpenBody;
use self::forgotten::Forgotten;
use self::group::{Exchange, Group, Matches, Responded};
use self::kept::Head as _;
use crate::event::{BodyChunk, Event, EventKind, Headers, RequestHead, ResponseHead};
use crate::policy::pool::Told;
use crate::response::HeaderOp;
use crate::server::lock;

/// Bytes of all bodies that are collected and not whole yet; as many as of messages
/// that are not.
const MAX_COLLECTED_BYTES: usize = 128 << 20;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeLimits {
    /// Exchanges at once.
    pub max_exchanges: usize,
    /// Bytes of all heads and operations, estimated.
    pub max_bytes: usize,
    /// An exchange is forgotten this long after its first event.
    pub time_to_live: Duration,
}

impl Default for ExchangeLimits {
    /// 65 536 exchanges, 64 MiB, 5 minutes: the first of them to be reached.
    fn default() -> Self {
        Self {
            max_exchanges: 65_536,
            max_bytes: 64 << 20,
            time_to_live: Duration::from_secs(300),
        }
    }
}

/// Who connected. All connections of one proxy process are one peer, since a
/// proxy sends the events of one exchange on several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// A process of this machine.
    Process(i32),
    /// Whoever connects from there.
    Address(IpAddr),
    /// Nobody knows.
    Unknown,
}

/// What the connection of an event says about its exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Nothing: v1 takes any free connection for each event.
    None,
    /// The proxy sends a request's body where it sent the last head *with that
    /// id*. All released v2 proxies do, over both transports, so a shared id
    /// brings a body to the connection of another exchange.
    LastHead,
    /// The proxy keeps a request on one connection.
    Kept,
}

/// Where an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) peer: Peer,
    pub(crate) connection: u64,
    pub(crate) affinity: Affinity,
    /// Heads of requests, and of responses, came on this connection before.
    /// Where none ever did, the proxy sends none.
    pub(crate) heads_come: [bool; 2],
}

/// What later events will need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    /// A handler of request bodies.
    pub(crate) request_bodies: bool,
    /// A handler of response bodies.
    pub(crate) response_bodies: bool,
    /// Operations to repeat in the answer to the response's head.
    pub(crate) operations: bool,
    /// A number that all events of an exchange share.
    pub(crate) numbers: bool,
    /// An event that cannot be joined is refused, which ends its exchange.
    pub(crate) ends_unclear: bool,
    /// What the chunks of one body are to each other.
    pub(crate) chunks: Chunks,
}

/// What the chunks of one body are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Chunks {
    /// Nothing: each is asked about alone.
    #[default]
    Alone,
    /// All are for one instance.
    Together,
    /// They are collected.
    Collected,
}

impl Wants {
    const fn anything(self) -> bool {
        self.request_bodies || self.response_bodies || self.operations || self.numbers
    }

    /// Whether the exchange goes on after the request.
    const fn response(self) -> bool {
        self.response_bodies || self.operations || self.numbers
    }
}

/// How an event arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) origin: Origin,
    pub(crate) wants: Wants,
    /// A request's head came over HTTP/1.
    pub(crate) is_http1: bool,
    pub(crate) now: Instant,
}

/// An event on its way, and what is known of its exchange.
#[derive(Debug)]
pub(crate) struct JoinedEvent {
    pub(crate) event: Event,
    pub(crate) joined: Joined,
}

impl JoinedEvent {
    /// Whether it is a chunk, and others of its body are to come.
    pub(crate) const fn has_more_chunks(&self) -> bool {
        match &self.event {
            Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => !chunk.is_last,
            Event::RequestHeaders(_) | Event::ResponseHeaders(_) => false,
        }
    }
}

/// An arrival, with the hash of its peer and its correlation id.
#[derive(Debug, Clone, Copy)]
struct Keyed {
    key: Key,
    arrival: Arrival,
}

/// The heads of a response's body.
struct Heads<'a> {
    request: &'a mut Option<Arc<RequestHead>>,
    response: &'a mut Option<Arc<ResponseHead>>,
}

/// What a request's head says about a body to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Announced {
    /// There is none.
    #[default]
    Nothing,
    /// One is possible, and such requests have none as a rule.
    Perhaps,
    /// One of so many bytes.
    Bytes(u64),
    /// One of any length, or none.
    Any,
}

impl Announced {
    /// Reads a head. Only HTTP/1 must say that a body follows, and proxies tell
    /// the version badly, so the method must be one without a body too.
    pub(crate) fn of(head: &RequestHead, is_http1: bool) -> Self {
        let headers = &head.headers;
        // Proxies may unpack a body before they hand it over.
        let any_length = ["transfer-encoding", "content-encoding", "upgrade"];
        if any_length.iter().any(|name| headers.value(name).is_some()) {
            return Self::Any;
        }
        let mut lengths = values(headers, "content-length");
        let has_none = ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE"].contains(&&*head.method);
        match (lengths.next(), lengths.next()) {
            (None, _) if has_none && is_http1 => Self::Nothing,
            (None, _) if has_none => Self::Perhaps,
            (None, _) | (_, Some(_)) => Self::Any,
            (Some(length), None) => match length.trim().parse() {
                Ok(0) if is_http1 => Self::Nothing,
                Ok(length) => Self::Bytes(length),
                Err(_) => Self::Any,
            },
        }
    }

    /// Whether this may be one of the body's pieces.
    fn fits(self, chunk: &BodyChunk) -> bool {
        let Self::Bytes(length) = self else {
            return true;
        };
        let seen = chunk.transferred_bytes.max(chunk.data.len() as u64);
        // A proxy that does not count says 0.
        let counted = chunk.transferred_bytes > 0 || chunk.chunk_index == 0;
        if chunk.is_last && counted {
            seen == length
        } else {
            seen <= length
        }
    }
}

fn values<'a>(headers: &'a Headers, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = headers.iter();
    fields
        .filter(move |(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Why an event cannot be joined to its exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The exchange's head was forgotten, or never came where heads do come.
    HeadLost,
    /// Several live exchanges have this id, and nothing tells them apart.
    Ambiguous,
    /// Chunks before this one were collected for a module that wants whole bodies, and
    /// the one in its place does not.
    Incomplete,
}

/// One exchange that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    key: Key,
    number: u64,
}

/// What is known of an event's exchange. The event itself was given its heads.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// The exchange, where it is one that is remembered.
    pub(crate) place: Option<Place>,
    /// The same for all events of an exchange, as far as they can be joined.
    pub(crate) number: u64,
    /// Why there is no head, if there should be one.
    pub(crate) problem: Option<Problem>,
    /// Heads of other exchanges that the body may belong to as well.
    pub(crate) other_heads: Vec<Arc<RequestHead>>,
    /// It may be an event of several exchanges, or of one that was forgotten.
    pub(crate) is_unclear: bool,
    /// Operations that earlier answers of the exchange asked for.
    pub(crate) operations: Vec<HeaderOp>,
    /// What came of its body before this chunk.
    pub(crate) body: Option<Arc<OpenBody>>,
    /// The instance that was asked about the chunk before.
    pub(crate) told: Option<Told>,
    /// So many chunks the body came in that the event holds now.
    pub(crate) chunks: u32,
}

impl Joined {
    /// Takes over what was found in the group of this key, if there is one.
    fn take(&mut self, key: Key, found: Option<Matches>) {
        let Some(found) = found else { return };
        self.problem = found.problem;
        self.is_unclear = found.is_unclear;
        let first = found.numbers.first().copied();
        self.place = first.map(|number| Place { key, number });
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ExchangeCounts {
    /// Remembered now.
    pub(crate) live: u64,
    /// Given up unfinished, for want of room or time.
    pub(crate) forgotten: u64,
    /// Operations that were left out, since their exchange was not clear.
    pub(crate) operations_left_out: u64,
    /// Bodies to be collected that ended without their last chunk.
    pub(crate) bodies_unfinished: u64,
}

/// A keyed hash of peer and id: nobody can make two of them meet.
type Key = u64;

/// See the module's own description.
pub(crate) struct Exchanges {
    limits: ExchangeLimits,
    hasher: RandomState,
    inner: Mutex<Inner>,
    bodies: Arc<Bodies>,
    forgotten: AtomicU64,
    operations_left_out: AtomicU64,
}

#[derive(Default)]
struct Inner {
    groups: HashMap<Key, Group, BuildHasherDefault<AsItIs>>,
    /// Oldest first: exchanges whose head announces no body, which go first,
    /// and the others. An item may be out of date.
    queues: [VecDeque<(Instant, Place)>; 2],
    live: usize,
    bytes: usize,
    next_number: u64,
    bodies: Forgotten,
    responses: Forgotten,
}

/// A key is a hash already.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    /// Keys are nothing but numbers.
    fn write(&mut self, _bytes: &[u8]) {}
}

impl Exchanges {
    pub(crate) fn new(limits: ExchangeLimits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            inner: Mutex::default(),
            bodies: Bodies::new(MAX_COLLECTED_BYTES),
            forgotten: AtomicU64::new(0),
            operations_left_out: AtomicU64::new(0),
        }
    }

    /// Takes note of an event and gives it the heads of its exchange.
    ///
    /// To be called once for each event, in the order they arrive.
    pub(crate) fn arrive(&self, arrival: Arrival, mut event: Event) -> JoinedEvent {
        let wants = arrival.wants;
        let key = self.key(arrival.origin.peer, event.correlation_id());
        let keyed = Keyed { key, arrival };
        let bodies = |wanted: bool| wanted || wants.numbers;
        let mut joined = match &mut event {
            // Nothing of it will be asked for.
            Event::RequestHeaders(_) | Event::ResponseHeaders(_) if !wants.anything() => {
                Joined::default()
            }
            Event::RequestHeaders(head) => self.begin(keyed, head),
            Event::RequestBody { chunk, request } if bodies(wants.request_bodies) => self
                .join_body(arrival.now, |inner| {
                    inner.request_body((keyed, &self.bodies), chunk, request)
                }),
            Event::ResponseHeaders(head) => self.respond(keyed, head),
            Event::ResponseBody {
                chunk,
                request,
                response,
            } if bodies(wants.response_bodies) => {
                let heads = Heads { request, response };
                self.join_body(arrival.now, |inner| {
                    inner.response_body((keyed, &self.bodies), chunk, heads)
                })
            }
            Event::RequestBody { .. } | Event::ResponseBody { .. } => Joined::default(),
        };
        // A number of an exchange is never so high.
        joined.number = joined.place.map_or(key | 1 << 63, |place| place.number);
        JoinedEvent { event, joined }
    }

    /// Joins a body, which may begin an exchange, and holds the limits.
    fn join_body(&self, now: Instant, join: impl FnOnce(&mut Inner) -> Joined) -> Joined {
        let mut inner = lock(&self.inner);
        let joined = join(&mut inner);
        let gone = self.evict(&mut inner, now);
        drop(inner);
        drop(gone);
        joined
    }

    /// An instance was asked about a chunk, and is to be about the next ones.
    pub(crate) fn asked(&self, place: Option<Place>, kind: EventKind, told: Told) {
        let Some(place) = place else { return };
        lock(&self.inner).change(place.key, |group| {
            if let Some(exchange) = group.by_number(place.number) {
                let body = exchange.body(kind);
                body.asked += 1;
                body.told = Some(told);
            }
        });
    }

    /// Keeps operations to repeat in the answer to the response's head. The
    /// event they belong to has been answered with an allow.
    pub(crate) fn answered(&self, place: Option<Place>, operations: Vec<HeaderOp>) {
        let Some(place) = place else {
            self.left_out(operations.len());
            return;
        };
        let mut locked = lock(&self.inner);
        let inner = &mut *locked;
        inner.change(place.key, |group| {
            if let Some(exchange) = group.by_number(place.number) {
                let bytes: usize = operations.iter().map(HeaderOp::size_bytes).sum();
                exchange.is_answered = true;
                exchange.operations.extend(operations);
                exchange.bytes += bytes;
            }
        });
        let gone = self.evict(inner, Instant::now());
        drop(locked);
        drop(gone);
    }

    /// An exchange is over, since the proxy was told to refuse this event of it.
    /// Where the event may be another's, none is ended.
    pub(crate) fn refused(&self, place: Option<Place>, event: &Event, is_unclear: bool) {
        let Some(place) = place else { return };
        let mut inner = lock(&self.inner);
        inner.change(place.key, |group| match event {
            Event::RequestBody { chunk, .. } if is_unclear => {
                group.ends_undecided(place.number, chunk.is_last);
            }
            _ if is_unclear => {}
            _ => group.refused(place.number),
        });
        if !is_unclear {
            // It goes first from now on.
            inner.queues[0].push_back((Instant::now(), place));
        }
    }

    /// The proxy says that an exchange is over. Where several may be meant,
    /// none is ended.
    pub(crate) fn completed(&self, origin: Origin, correlation_id: &str) {
        let key = self.key(origin.peer, correlation_id);
        let mut inner = lock(&self.inner);
        let only = inner.groups.get(&key).and_then(Group::only);
        let gone = only.and_then(|number| inner.remove(Place { key, number }));
        drop(inner);
        drop(gone);
    }

    /// A head came that could not be read, and its exchange may go on.
    pub(crate) fn lose(&self, origin: Origin, correlation_id: &str) {
        let key = self.key(origin.peer, correlation_id);
        let now = Instant::now();
        let mut inner = lock(&self.inner);
        inner.bodies.add(key, Announced::Any, now);
        inner.responses.add(key, Announced::Any, now);
    }

    pub(crate) fn counts(&self) -> ExchangeCounts {
        ExchangeCounts {
            live: lock(&self.inner).live as u64,
            forgotten: self.forgotten.load(Ordering::Relaxed),
            operations_left_out: self.operations_left_out.load(Ordering::Relaxed),
            bodies_unfinished: self.bodies.unfinished(),
        }
    }

    fn key(&self, peer: Peer, correlation_id: &str) -> Key {
        self.hasher.hash_one((peer, correlation_id))
    }

    fn begin(&self, keyed: Keyed, head: &RequestHead) -> Joined {
        let Keyed { key, arrival } = keyed;
        let Arrival { wants, now, .. } = arrival;
        let announced = Announced::of(head, arrival.is_http1);
        let is_kept = wants.request_bodies || wants.response_bodies;
        let packed = is_kept.then(|| head.pack());
        let mut locked = lock(&self.inner);
        let inner = &mut *locked;
        let place = inner.place(key);
        let exchange =
            Exchange::of_request(place.number, arrival.origin.connection, announced, packed);
        let crowded = inner.add(now, place, exchange);
        let gone = crowded.map(|oldest| self.forget(inner, oldest, now));
        let evicted = self.evict(inner, now);
        drop(locked);
        drop((gone, evicted));
        Joined {
            place: Some(place),
            ..Joined::default()
        }
    }

    fn respond(&self, keyed: Keyed, head: &ResponseHead) -> Joined {
        let Keyed { key, arrival } = keyed;
        let Arrival {
            origin, wants, now, ..
        } = arrival;
        let mut packed = wants.response_bodies.then(|| head.pack());
        let mut locked = lock(&self.inner);
        let inner = &mut *locked;
        let is_forgotten = inner.responses.contains(key, now);
        let respond = |group: &mut Group| group.respond(packed.take(), is_forgotten);
        let responded = inner.change(key, respond);
        let responded = responded.unwrap_or(Responded::Nobody(packed));
        let mut joined = Joined::default();
        match responded {
            Responded::Placed(number, operations) => {
                let place = Place { key, number };
                joined.place = Some(place);
                joined.operations = operations;
                // If its body is still to come, it is of those that go first.
                inner.queues[0].push_back((now, place));
            }
            Responded::Unclear(operations, left_out) => {
                joined.is_unclear = true;
                joined.operations = operations;
                self.left_out(left_out);
            }
            Responded::Nobody(packed) if wants.response_bodies => {
                joined.is_unclear = is_forgotten || origin.heads_come[0];
                let place = inner.place(key);
                let exchange = Exchange::of_response(place.number, origin.connection, packed);
                let crowded = inner.add(now, place, exchange);
                drop(crowded.map(|oldest| self.forget(inner, oldest, now)));
                joined.place = Some(place);
            }
            Responded::Nobody(_) => joined.is_unclear = is_forgotten || origin.heads_come[0],
        }
        let gone = (inner.sweep(key, wants), self.evict(inner, now));
        drop(locked);
        drop(gone);
        joined
    }

    fn left_out(&self, operations: usize) {
        self.operations_left_out
            .fetch_add(operations as u64, Ordering::Relaxed);
    }

    /// Forgets what is too old or too much. Hands back the last of it, whose
    /// memory is given back while others go on.
    fn evict(&self, inner: &mut Inner, now: Instant) -> Option<Exchange> {
        let mut gone = None;
        for queue in 0..inner.queues.len() {
            while let Some((since, place)) = inner.queues[queue].front().copied() {
                let is_live = inner
                    .groups
                    .get(&place.key)
                    .is_some_and(|group| group.has(place.number));
                let expired = now.saturating_duration_since(since) > self.limits.time_to_live;
                let full =
                    inner.live > self.limits.max_exchanges || inner.bytes > self.limits.max_bytes;
                if is_live && !expired && !full {
                    break;
                }
                inner.queues[queue].pop_front();
                if is_live {
                    gone = self.forget(inner, place, now);
                }
            }
            inner.tidy(queue, self.limits.max_exchanges);
        }
        gone
    }

    fn forget(&self, inner: &mut Inner, place: Place, now: Instant) -> Option<Exchange> {
        let exchange = inner.remove(place)?;
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        if exchange.is_of_body() {
            // The numbers of its chunks tell that the first ones are missing.
            return Some(exchange);
        }
        if exchange.awaits_body() {
            inner.bodies.add(place.key, exchange.announced, now);
        }
        if exchange.awaits_response() {
            inner.responses.add(place.key, Announced::Any, now);
        }
        Some(exchange)
    }
}

impl Inner {
    const fn place(&mut self, key: Key) -> Place {
        self.next_number += 1;
        Place {
            key,
            number: self.next_number,
        }
    }

    /// Hands back the oldest of its group where there are too many.
    fn add(&mut self, now: Instant, place: Place, exchange: Exchange) -> Option<Place> {
        let announces = matches!(exchange.announced, Announced::Bytes(_) | Announced::Any);
        self.queues[usize::from(announces)].push_back((now, place));
        self.groups.entry(place.key).or_default();
        let crowded = self.change(place.key, |group| {
            group.push(exchange);
            group.crowded()
        });
        let key = place.key;
        crowded.flatten().map(|number| Place { key, number })
    }

    /// Changes a group and keeps count. An empty one is taken away.
    fn change<T>(&mut self, key: Key, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = self.groups.get_mut(&key)?;
        let before = (group.len(), group.bytes());
        let changed = change(group);
        self.live = self.live + group.len() - before.0;
        self.bytes = self.bytes + group.bytes() - before.1;
        if group.is_empty() {
            self.groups.remove(&key);
        }
        Some(changed)
    }

    fn remove(&mut self, place: Place) -> Option<Exchange> {
        self.change(place.key, |group| group.remove(place.number))?
    }

    /// Takes away what is complete.
    fn sweep(&mut self, key: Key, wants: Wants) -> Option<SmallVec<[Exchange; 1]>> {
        self.change(key, |group| group.sweep(wants))
    }

    fn request_body(
        &mut self,
        (keyed, bodies): (Keyed, &Arc<Bodies>),
        chunk: &BodyChunk,
        request: &mut Option<Arc<RequestHead>>,
    ) -> Joined {
        let Keyed { key, arrival } = keyed;
        let Arrival { origin, wants, .. } = arrival;
        let [heads_come, _] = origin.heads_come;
        let is_forgotten = self.bodies.fits(key, chunk, arrival.now);
        let id = chunk.correlation_id.as_str();
        let mut joined = Joined::default();
        let flags = (is_forgotten, wants.ends_unclear);
        let found = self.change(key, |group| {
            let found = group.request_body(origin, chunk, flags);
            let mut heads = found.numbers.iter();
            *request = heads
                .next()
                .and_then(|number| group.request_head(*number, id));
            joined.other_heads = heads
                .filter_map(|number| group.request_head(*number, id))
                .collect();
            found
        });
        joined.take(key, found);
        if joined.problem.is_none() && request.is_none() && (heads_come || is_forgotten) {
            joined.problem = Some(Problem::HeadLost);
        }
        self.body_goes_on(
            &mut joined,
            (keyed, bodies),
            (EventKind::RequestBody, chunk),
        );
        drop(self.sweep(key, wants));
        joined
    }

    fn response_body(
        &mut self,
        (keyed, bodies): (Keyed, &Arc<Bodies>),
        chunk: &BodyChunk,
        heads: Heads<'_>,
    ) -> Joined {
        let Keyed { key, arrival } = keyed;
        let Arrival { origin, wants, .. } = arrival;
        let Heads { request, response } = heads;
        let [request_heads, response_heads] = origin.heads_come;
        let is_forgotten = self.responses.contains(key, arrival.now);
        let id = chunk.correlation_id.as_str();
        let mut joined = Joined::default();
        let flags = (is_forgotten, wants.ends_unclear);
        let found = self.change(key, |group| {
            let found = group.response_body(chunk, response_heads, flags);
            if let Some(&number) = found.numbers.first() {
                *request = group.request_head(number, id);
                *response = group.response_head(number, id);
            }
            found
        });
        let is_known = found.is_some();
        joined.take(key, found);
        let is_lost = (request_heads && request.is_none())
            || (response_heads && response.is_none())
            || (is_forgotten && !is_known);
        if is_lost {
            joined.problem.get_or_insert(Problem::HeadLost);
        }
        self.body_goes_on(
            &mut joined,
            (keyed, bodies),
            (EventKind::ResponseBody, chunk),
        );
        drop(self.sweep(key, wants));
        joined
    }

    /// Finds what came of the body before this chunk, and keeps a place for it where
    /// more is to come.
    fn body_goes_on(
        &mut self,
        joined: &mut Joined,
        (keyed, bodies): (Keyed, &Arc<Bodies>),
        (kind, chunk): (EventKind, &BodyChunk),
    ) {
        let Keyed { key, arrival } = keyed;
        let wants = arrival.wants;
        if joined.problem.is_some() {
            return;
        }
        // A chunk that counts more bytes than its own has others before it.
        let is_alone = chunk.transferred_bytes <= chunk.data.len() as u64;
        let is_single = chunk.is_last && chunk.chunk_index == 0 && is_alone;
        if joined.is_unclear {
            // The chunks of several bodies may come between each other.
            let group = self.groups.get_mut(&key);
            let is_begun = group.is_some_and(|group| {
                let is_begun = group.has_begun_body(kind);
                if !is_single {
                    group.begins_unclear_body(kind);
                }
                is_begun
            });
            if wants.chunks == Chunks::Collected && (!is_single || is_begun) {
                joined.problem = Some(Problem::Ambiguous);
            }
            if wants.chunks != Chunks::Together || joined.place.is_none() {
                return;
            }
        }
        let is_headless = joined.place.is_none();
        if is_headless {
            if wants.chunks == Chunks::Together && chunk.chunk_index > 0 {
                joined.told = Some(Told::without_one(None));
            }
            if chunk.is_last || wants.chunks == Chunks::Alone {
                return;
            }
            if self.groups.get(&key).is_some_and(Group::is_full) {
                joined.problem = Some(Problem::Ambiguous);
                return;
            }
            // Its other chunks have to find it.
            let place = self.place(key);
            let exchange = Exchange::of_body(place.number, arrival.origin.connection, kind);
            self.add(arrival.now, place, exchange);
            joined.place = Some(place);
        }
        let Some(place) = joined.place else { return };
        self.change(key, |group| {
            let Some(exchange) = group.by_number(place.number) else {
                return;
            };
            let is_numbered = exchange.is_headless(kind);
            let body = exchange.body(kind);
            if wants.chunks == Chunks::Together {
                let begins_anew = joined.is_unclear && chunk.chunk_index == 0 && is_alone;
                joined.told = body.told_before(chunk, begins_anew);
            }
            if wants.chunks != Chunks::Collected {
                if let Some(collected) = body.collected.take() {
                    collected.give_up();
                    body.is_lost = true;
                }
                joined.problem = body.is_lost.then_some(Problem::Incomplete);
            } else if chunk.is_last {
                joined.body = body.collected.take();
            } else {
                let begin = || bodies.begin(is_numbered);
                joined.body = Some(Arc::clone(body.collected.get_or_insert_with(begin)));
            }
        });
    }

    /// Drops items that are out of date, before they are too many.
    fn tidy(&mut self, queue: usize, max_exchanges: usize) {
        if self.queues[queue].len() > 2 * max_exchanges.max(64) {
            let groups = &self.groups;
            self.queues[queue].retain(|(_, place)| {
                groups
                    .get(&place.key)
                    .is_some_and(|group| group.has(place.number))
            });
        }
    }
}

#[cfg(test)]
mod interleavings_tests;
#[cfg(test)]
mod tests;
