//! The live exchanges of one peer that have one correlation id.
//!
//! As a rule there is one. Where there are more, an event goes to the only one
//! it can belong to. Where several are left, they become *undecided*: the
//! event is counted, and they are over once as many came as there are of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::kept::{Kept, Packed};
use super::{Affinity, Announced, OpenBody, Origin, Problem, Wants};
use crate::event::{BodyChunk, EventKind, RequestHead, ResponseHead};
use crate::policy::pool::Told;
use crate::response::HeaderOp;

/// Live exchanges of one id; each event looks at all of them.
const MAX_SHARING: usize = 64;
/// Heads that one body is judged with.
const MAX_HEADS: usize = 8;
/// An exchange that was refused, or has its response, may still get a body for
/// this long.
const FADES_AFTER: Duration = Duration::from_secs(10);
/// An exchange without its heads.
const OVERHEAD_BYTES: usize = 384;

#[derive(Default)]
pub(super) struct Exchange {
    pub(super) number: u64,
    connection: u64,
    pub(super) announced: Announced,
    /// None where no handler wants it, or none came.
    request: Option<Kept<RequestHead>>,
    response: Option<Kept<ResponseHead>>,
    pub(super) operations: Vec<HeaderOp>,
    pub(super) bytes: usize,
    /// The answer to its head went out.
    pub(super) is_answered: bool,
    /// No head of it came, and nothing but a body.
    is_of_body: bool,
    /// It was refused, so no event of it should follow. A proxy that did not
    /// wait for the refusal sends some all the same.
    is_over: bool,
    /// Since it was refused, or had its response, before its body came.
    fading: Option<Instant>,
    /// No more of the request will come.
    request_done: bool,
    /// A body came that may be this one's or another's.
    body_undecided: bool,
    response_seen: bool,
    response_undecided: bool,
    response_done: bool,
    /// The request's body and the response's, in chunks.
    bodies: [Body; 2],
}

/// What came of a body so far, for its next chunks.
#[derive(Default)]
pub(super) struct Body {
    /// The instance that was asked about the last chunk.
    pub(super) told: Option<Told>,
    /// What was collected, where the module wants it whole.
    pub(super) collected: Option<Arc<OpenBody>>,
    /// Chunks that came, and those that an instance was asked about.
    came: u32,
    pub(super) asked: u32,
    has_ended: bool,
    /// Some of its chunks were collected for a module that was replaced.
    pub(super) is_lost: bool,
    /// Chunks came that may be its own or another's.
    is_unclear: bool,
}

impl Body {
    pub(super) const fn is_begun(&self) -> bool {
        self.collected.is_some() || self.is_unclear
    }

    /// The instance that was asked about the chunks before this one, and whether about
    /// all of them.
    pub(super) fn told_before(&mut self, chunk: &BodyChunk, begins_anew: bool) -> Option<Told> {
        if self.has_ended || begins_anew {
            // Another exchange of this id, which cannot be told from this one.
            (self.came, self.asked, self.told) = (0, 0, None);
        }
        self.has_ended = chunk.is_last;
        let begins_late = self.came == 0 && chunk.chunk_index > 0;
        let lacks_some = self.came != self.asked || begins_late;
        self.came += 1;
        if lacks_some {
            Some(Told::without_one(self.told))
        } else {
            self.told
        }
    }
}

impl Exchange {
    fn new(number: u64, connection: u64, announced: Announced) -> Self {
        Self {
            number,
            connection,
            announced,
            bytes: OVERHEAD_BYTES,
            ..Self::default()
        }
    }

    pub(super) fn of_request(
        number: u64,
        connection: u64,
        announced: Announced,
        head: Option<Packed>,
    ) -> Self {
        let mut exchange = Self::new(number, connection, announced);
        exchange.bytes += head.as_ref().map_or(0, Packed::whole_bytes);
        exchange.request = head.map(Kept::Packed);
        exchange
    }

    /// One whose request never came, or was forgotten.
    pub(super) fn of_response(number: u64, connection: u64, head: Option<Packed>) -> Self {
        let mut exchange = Self::new(number, connection, Announced::Nothing);
        exchange.is_answered = true;
        exchange.take_response(head);
        exchange
    }

    /// One of which nothing but a body came.
    pub(super) fn of_body(number: u64, connection: u64, kind: EventKind) -> Self {
        let mut exchange = Self::new(number, connection, Announced::Any);
        exchange.is_answered = true;
        exchange.is_of_body = true;
        // Nothing says that an event of the other side would be of this exchange.
        exchange.request_done = !kind.is_request();
        exchange.response_seen = true;
        exchange.response_done = kind.is_request();
        exchange
    }

    pub(super) const fn body(&mut self, kind: EventKind) -> &mut Body {
        &mut self.bodies[!kind.is_request() as usize]
    }

    /// Whether no head tells its body from another's of this id.
    pub(super) const fn is_headless(&self, kind: EventKind) -> bool {
        if kind.is_request() {
            self.request.is_none()
        } else {
            self.request.is_none() && self.response.is_none()
        }
    }

    fn take_response(&mut self, head: Option<Packed>) {
        self.bytes += head.as_ref().map_or(0, Packed::whole_bytes);
        self.response = head.map(Kept::Packed);
        self.see_response();
    }

    /// An upstream may answer before it has the body, which then still comes.
    fn see_response(&mut self) {
        self.response_seen = true;
        match self.announced {
            Announced::Nothing | Announced::Perhaps => self.request_done = true,
            Announced::Bytes(_) | Announced::Any => self.fade(),
        }
    }

    fn fade(&mut self) {
        self.fading.get_or_insert_with(Instant::now);
    }

    fn has_faded(&self) -> bool {
        self.fading
            .is_some_and(|since| since.elapsed() > FADES_AFTER)
    }

    /// Whether a body of it may come.
    fn may_have_body(&self) -> bool {
        !self.request_done && !self.has_faded()
    }

    /// Whether its body, or its end, is still to come as a rule.
    const fn is_open(&self) -> bool {
        !self.is_over && !self.response_seen
    }

    pub(super) const fn is_of_body(&self) -> bool {
        self.is_of_body
    }

    pub(super) fn awaits_body(&self) -> bool {
        self.may_have_body() && matches!(self.announced, Announced::Bytes(_) | Announced::Any)
    }

    pub(super) const fn awaits_response(&self) -> bool {
        !self.response_done && !self.is_over
    }

    /// Whether an unplaced response may be its own.
    const fn lacks_response(&self) -> bool {
        self.response_undecided && !self.response_seen && !self.is_over
    }

    /// Whether an unplaced body of a response may be its own.
    const fn lacks_response_body(&self) -> bool {
        self.response_undecided && !self.response_done && !self.is_over
    }

    fn is_complete(&self, wants: Wants) -> bool {
        let request = !self.may_have_body() || !wants.request_bodies;
        let response = if wants.response_bodies {
            self.response_done
        } else {
            self.response_seen || !wants.response()
        };
        request && response
    }
}

#[derive(Default)]
pub(super) struct Group {
    exchanges: SmallVec<[Exchange; 1]>,
    /// Bodies, responses and responses' bodies that came to their end and may
    /// be any undecided exchange's.
    unplaced_bodies: usize,
    /// So many of the bodies were refused.
    unplaced_refusals: usize,
    unplaced_responses: usize,
    unplaced_response_bodies: usize,
    /// Heads of responses that may be any undecided exchange's.
    loose: Vec<Kept<ResponseHead>>,
    loose_bytes: usize,
    /// There were more of them than are kept.
    loose_lost: bool,
}

/// What an event belongs to.
#[derive(Debug, Default)]
pub(super) struct Matches {
    /// The exchange; behind it others that it may belong to as well.
    pub(super) numbers: SmallVec<[u64; 1]>,
    pub(super) problem: Option<Problem>,
    /// It may belong to others.
    pub(super) is_unclear: bool,
}

impl Matches {
    fn one(number: u64, is_unclear: bool) -> Self {
        Self {
            numbers: SmallVec::from_slice(&[number]),
            problem: None,
            is_unclear,
        }
    }

    fn problem(problem: Problem) -> Self {
        Self {
            numbers: SmallVec::new(),
            problem: Some(problem),
            is_unclear: true,
        }
    }
}

/// What became of a response's head.
pub(super) enum Responded {
    /// It is this exchange's, with the operations to repeat.
    Placed(u64, Vec<HeaderOp>),
    /// It may be any of several: the operations that all of them ask for, and
    /// how many are left out.
    Unclear(Vec<HeaderOp>, usize),
    /// No exchange waits for one.
    Nobody(Option<Packed>),
}

impl Group {
    pub(super) fn push(&mut self, exchange: Exchange) {
        self.exchanges.push(exchange);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.exchanges.len()
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.place(number).is_some()
    }

    fn place(&self, number: u64) -> Option<usize> {
        let mut exchanges = self.exchanges.iter();
        exchanges.position(|exchange| exchange.number == number)
    }

    pub(super) fn bytes(&self) -> usize {
        let exchanges = self.exchanges.iter().map(|exchange| exchange.bytes);
        exchanges.sum::<usize>() + self.loose_bytes
    }

    /// The exchange, if there is but one.
    pub(super) fn only(&self) -> Option<u64> {
        match self.exchanges.as_slice() {
            [only] => Some(only.number),
            _ => None,
        }
    }

    /// One was refused, by the answer to one of its events.
    pub(super) fn refused(&mut self, number: u64) {
        let Some(at) = self.place(number) else { return };
        self.discount_response(at);
        let exchange = &mut self.exchanges[at];
        exchange.is_over = true;
        exchange.fade();
        self.settle();
    }

    /// Whether a body of any of them is being collected.
    pub(super) fn has_begun_body(&self, kind: EventKind) -> bool {
        let side = usize::from(!kind.is_request());
        let mut exchanges = self.exchanges.iter();
        exchanges.any(|exchange| exchange.bodies[side].is_begun())
    }

    /// Chunks came that may be of any of them.
    pub(super) fn begins_unclear_body(&mut self, kind: EventKind) {
        for exchange in &mut self.exchanges {
            exchange.body(kind).is_unclear = true;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.exchanges.len() >= MAX_SHARING
    }

    /// The oldest, where there are too many.
    pub(super) fn crowded(&self) -> Option<u64> {
        let oldest = self.exchanges.first()?;
        (self.exchanges.len() > MAX_SHARING).then_some(oldest.number)
    }

    pub(super) fn by_number(&mut self, number: u64) -> Option<&mut Exchange> {
        self.place(number).map(|at| &mut self.exchanges[at])
    }

    /// Takes one away. What was counted may have been its own, so it does not
    /// count for the others.
    pub(super) fn remove(&mut self, number: u64) -> Option<Exchange> {
        let at = self.place(number)?;
        self.discount_response(at);
        let gone = self.exchanges.remove(at);
        if gone.body_undecided && !gone.request_done {
            self.unplaced_bodies = self.unplaced_bodies.saturating_sub(1);
            // Perhaps not all that are left were refused.
            self.unplaced_refusals = 0;
        }
        self.settle();
        Some(gone)
    }

    fn discount_response(&mut self, at: usize) {
        let gone = &self.exchanges[at];
        let less = |count: &mut usize, is: bool| *count = count.saturating_sub(usize::from(is));
        less(&mut self.unplaced_responses, gone.lacks_response());
        less(
            &mut self.unplaced_response_bodies,
            gone.lacks_response_body(),
        );
    }

    /// Takes away what is complete.
    pub(super) fn sweep(&mut self, wants: Wants) -> SmallVec<[Exchange; 1]> {
        let all = std::mem::take(&mut self.exchanges).into_iter();
        let (gone, left) = all.partition(|exchange| exchange.is_complete(wants));
        self.exchanges = left;
        self.settle();
        gone
    }

    pub(super) fn request_head(&mut self, number: u64, id: &str) -> Option<Arc<RequestHead>> {
        let head = self.by_number(number)?.request.as_mut()?;
        Some(head.head(id))
    }

    pub(super) fn response_head(&mut self, number: u64, id: &str) -> Option<Arc<ResponseHead>> {
        let own = self.by_number(number)?.response.as_mut();
        own.map(|head| head.head(id))
            .or_else(|| Some(self.loose.first_mut()?.head(id)))
    }

    /// Which exchange a request's body is of.
    pub(super) fn request_body(
        &mut self,
        origin: Origin,
        chunk: &BodyChunk,
        (is_forgotten, ends_unclear): (bool, bool),
    ) -> Matches {
        let fit =
            self.numbers(|exchange| exchange.may_have_body() && exchange.announced.fits(chunk));
        // A length that no head announced tells nothing: proxies may change it.
        let all = if fit.is_empty() {
            self.numbers(|exchange| exchange.may_have_body())
        } else {
            fit
        };
        let announced = self.numbers(|exchange| {
            all.contains(&exchange.number) && exchange.announced != Announced::Nothing
        });
        let candidates = if announced.is_empty() {
            &all
        } else {
            &announced
        };
        if is_forgotten {
            return Matches::problem(if announced.is_empty() {
                Problem::HeadLost
            } else {
                Problem::Ambiguous
            });
        }
        // The body of one that was refused, or has its response, came before that
        // as a rule.
        let open =
            self.numbers(|exchange| candidates.contains(&exchange.number) && exchange.is_open());
        let likely = if open.is_empty() { candidates } else { &open };
        let here = self.numbers(|exchange| {
            candidates.contains(&exchange.number) && exchange.connection == origin.connection
        });
        let own = self.numbers(|exchange| {
            likely.contains(&exchange.number) && here.contains(&exchange.number)
        });
        let one = match (candidates.as_slice(), here.as_slice(), origin.affinity) {
            ([], ..) => return Matches::default(),
            ([only], ..) => Some(*only),
            (_, [only], Affinity::Kept) => Some(*only),
            _ => None,
        };
        if let Some(number) = one {
            if chunk.is_last
                && let Some(exchange) = self.by_number(number)
            {
                exchange.request_done = true;
            }
            self.settle();
            return Matches::one(number, false);
        }
        let likely = match (open.as_slice(), own.as_slice()) {
            ([only], _) => Some(*only),
            (_, [own]) if origin.affinity == Affinity::LastHead => Some(*own),
            _ => None,
        };
        let found = match likely {
            // A handler is told the same, whichever of them it is.
            _ if self.have_equal_heads(candidates, chunk) => {
                Matches::one(likely.unwrap_or(candidates[0]), true)
            }
            Some(likely) if candidates.len() <= MAX_HEADS => {
                let others = candidates.iter().filter(|number| **number != likely);
                Matches {
                    numbers: std::iter::once(likely).chain(others.copied()).collect(),
                    problem: None,
                    is_unclear: true,
                }
            }
            _ => Matches::problem(Problem::Ambiguous),
        };
        for exchange in &mut self.exchanges {
            exchange.body_undecided |= candidates.contains(&exchange.number);
        }
        let ends = chunk.is_last || (ends_unclear && found.problem.is_some());
        self.unplaced_bodies += usize::from(ends);
        self.unplaced_refusals += usize::from(ends_unclear && found.problem.is_some());
        self.settle();
        found
    }

    /// An undecided exchange was refused; which of them it was is not known.
    pub(super) fn ends_undecided(&mut self, number: u64, is_counted: bool) {
        let exchange = self.by_number(number);
        if exchange.is_some_and(|exchange| exchange.body_undecided) {
            self.unplaced_bodies += usize::from(!is_counted);
            self.unplaced_refusals += 1;
            self.settle();
        }
    }

    /// Which exchange a response's head is of.
    pub(super) fn respond(&mut self, head: Option<Packed>, is_forgotten: bool) -> Responded {
        let waiting = self.going_on(|exchange| !exchange.response_seen);
        let Some(first) = waiting.first().copied() else {
            return Responded::Nobody(head);
        };
        if !is_forgotten
            && waiting.len() == 1
            && let Some(exchange) = self.by_number(first)
        {
            let operations = std::mem::take(&mut exchange.operations);
            exchange.take_response(head);
            self.settle();
            return Responded::Placed(first, operations);
        }
        let common = if is_forgotten {
            None
        } else {
            self.common_operations(&waiting)
        };
        let mut left_out = 0;
        for exchange in &mut self.exchanges {
            if waiting.contains(&exchange.number) {
                left_out = left_out.max(exchange.operations.len());
                exchange.response_undecided = true;
            }
        }
        self.keep_loose(head);
        self.unplaced_responses += usize::from(!is_forgotten);
        self.settle();
        match common {
            Some(operations) => Responded::Unclear(operations, 0),
            None => Responded::Unclear(Vec::new(), left_out),
        }
    }

    fn keep_loose(&mut self, head: Option<Packed>) {
        let Some(head) = head else { return };
        if self.loose.len() >= MAX_SHARING {
            self.loose_lost = true;
            return;
        }
        self.loose_bytes += head.whole_bytes();
        self.loose.push(Kept::Packed(head));
    }

    /// Which exchange a response's body is of.
    pub(super) fn response_body(
        &mut self,
        chunk: &BodyChunk,
        heads_come: bool,
        (is_forgotten, ends_unclear): (bool, bool),
    ) -> Matches {
        let undecided =
            self.numbers(|exchange| exchange.response_undecided && !exchange.response_done);
        let heads_come = heads_come
            || !undecided.is_empty()
            || self.exchanges.iter().any(|it| it.response.is_some());
        let placed = self.going_on(|exchange| {
            !exchange.response_done
                && !exchange.response_undecided
                && (exchange.response.is_some() || !heads_come)
        });
        let all: SmallVec<[u64; 4]> = placed.iter().chain(&undecided).copied().collect();
        let Some(first) = all.first().copied() else {
            return Matches::default();
        };
        let is_clear = !is_forgotten
            && (all.len() == 1 && undecided.is_empty() || self.respond_alike(&all, chunk));
        if !is_clear {
            if chunk.is_last || ends_unclear {
                self.muddle(&placed);
                self.unplaced_response_bodies += usize::from(!is_forgotten);
                self.settle();
            }
            return Matches::problem(Problem::Ambiguous);
        }
        if chunk.is_last {
            if placed.is_empty() {
                self.unplaced_response_bodies += 1;
            } else if let Some(exchange) = self.by_number(first) {
                exchange.response_done = true;
            }
            self.settle();
        }
        Matches::one(first, all.len() > 1)
    }

    /// A body ended that may be any of these exchanges'.
    fn muddle(&mut self, placed: &[u64]) {
        for exchange in &mut self.exchanges {
            if placed.contains(&exchange.number) {
                exchange.response_undecided = true;
                self.loose.extend(exchange.response.take());
            }
        }
    }

    /// Those that were not refused, and the others only where there are none.
    fn going_on(&self, which: impl Fn(&Exchange) -> bool) -> SmallVec<[u64; 4]> {
        let going_on = self.numbers(|exchange| which(exchange) && !exchange.is_over);
        if going_on.is_empty() {
            self.numbers(|exchange| which(exchange))
        } else {
            going_on
        }
    }

    fn numbers(&self, which: impl Fn(&&Exchange) -> bool) -> SmallVec<[u64; 4]> {
        let exchanges = self.exchanges.iter();
        exchanges
            .filter(which)
            .map(|exchange| exchange.number)
            .collect()
    }

    fn count(&self, which: fn(&Exchange) -> bool) -> usize {
        let exchanges = self.exchanges.iter();
        exchanges.filter(|exchange| which(exchange)).count()
    }

    /// Whether a handler would be told the same, whichever of them it is.
    fn have_equal_heads(&mut self, numbers: &[u64], chunk: &BodyChunk) -> bool {
        let id = &chunk.correlation_id;
        let mut heads = numbers.iter().map(|number| self.request_head(*number, id));
        let Some(Some(first)) = heads.next() else {
            return false;
        };
        heads.all(|head| head.is_some_and(|head| head == first))
    }

    /// The operations to repeat, where all of them ask for the same.
    fn common_operations(&self, numbers: &[u64]) -> Option<Vec<HeaderOp>> {
        let exchanges = self.exchanges.iter();
        let mut asked = exchanges.filter(|exchange| numbers.contains(&exchange.number));
        let first = asked.clone().next()?;
        asked
            .all(|exchange| exchange.is_answered && exchange.operations == first.operations)
            .then(|| first.operations.clone())
    }

    /// Whether a response's body is told the same of each.
    fn respond_alike(&mut self, numbers: &[u64], chunk: &BodyChunk) -> bool {
        let id = &chunk.correlation_id;
        if self.loose_lost || !self.have_equal_lines(numbers, id) {
            return false;
        }
        let own = self
            .exchanges
            .iter_mut()
            .filter(|exchange| numbers.contains(&exchange.number))
            .filter_map(|exchange| exchange.response.as_mut());
        let mut heads = own.chain(&mut self.loose).map(|head| head.head(id));
        let first = heads.next();
        heads.all(|head| Some(head) == first)
    }

    /// Method, URI and client are what a response's body is told of a request.
    fn have_equal_lines(&mut self, numbers: &[u64], id: &str) -> bool {
        let mut heads = numbers.iter().map(|number| self.request_head(*number, id));
        let Some(first) = heads.next() else {
            return false;
        };
        heads.all(|head| match (&head, &first) {
            (Some(head), Some(first)) => {
                (&head.method, &head.uri, &head.client_ip)
                    == (&first.method, &first.uri, &first.client_ip)
            }
            (None, None) => true,
            _ => false,
        })
    }

    /// Undecided exchanges are over once as many events came as there are of
    /// them.
    fn settle(&mut self) {
        let bodies = self.count(|it| it.body_undecided && it.may_have_body());
        if self.unplaced_bodies >= bodies {
            let all_refused = bodies > 0 && self.unplaced_refusals >= bodies;
            (self.unplaced_bodies, self.unplaced_refusals) = (0, 0);
            for at in 0..self.exchanges.len() {
                let exchange = &mut self.exchanges[at];
                let ends = exchange.body_undecided && !exchange.request_done;
                exchange.request_done |= ends;
                exchange.body_undecided = false;
                if ends && all_refused {
                    let number = exchange.number;
                    self.refused(number);
                    self.exchanges[at].response_done = true;
                }
            }
        }
        if self.unplaced_responses >= self.count(Exchange::lacks_response) {
            self.unplaced_responses = 0;
            for exchange in &mut self.exchanges {
                if exchange.response_undecided {
                    exchange.see_response();
                }
            }
        }
        if self.unplaced_response_bodies >= self.count(Exchange::lacks_response_body) {
            self.unplaced_response_bodies = 0;
            for exchange in &mut self.exchanges {
                exchange.response_done |= exchange.response_undecided;
            }
            self.loose.clear();
            self.loose_bytes = 0;
            self.loose_lost = false;
        }
    }
}
