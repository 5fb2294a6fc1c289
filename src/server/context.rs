//! What earlier events of an exchange said, for the later ones.
//!
//! In: heads and header operations of events that were answered. Out: the
//! heads a body event belongs to, and the operations to repeat. One cache for
//! all connections, since a proxy sends the events of one exchange on several.
//! Invariant: memory stays within the limits whatever proxies send or forget;
//! what is too old goes when something new comes, so no timer is needed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Headers, RequestHead, ResponseHead};
use crate::response::HeaderOp;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextLimits {
    /// Exchanges at once.
    pub max_entries: usize,
    /// Bytes of all heads and operations, estimated.
    pub max_bytes: usize,
    /// An exchange is forgotten this long after its first event.
    pub time_to_live: Duration,
}

impl Default for ContextLimits {
    /// 16 384 exchanges, 64 MiB, 5 minutes: the first of them to be reached.
    fn default() -> Self {
        Self {
            max_entries: 16_384,
            max_bytes: 64 << 20,
            time_to_live: Duration::from_secs(300),
        }
    }
}

/// See the module's own description.
pub struct ContextCache {
    limits: ContextLimits,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Arc<str>, Entry>,
    /// Oldest first; an item whose number is not its entry's is out of date.
    order: VecDeque<(Instant, Arc<str>, u64)>,
    bytes: usize,
    next_number: u64,
}

#[derive(Default)]
struct Entry {
    number: u64,
    bytes: usize,
    request: Option<Kept<RequestHead>>,
    response: Option<Kept<ResponseHead>>,
    operations: Vec<HeaderOp>,
}

impl ContextCache {
    /// An empty cache.
    #[must_use]
    pub fn new(limits: ContextLimits) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
        }
    }

    /// Gives a body event the heads that are known.
    pub fn complete(&self, event: &mut Event) {
        let (chunk, request, response) = match event {
            Event::RequestHeaders(_) | Event::ResponseHeaders(_) => return,
            Event::RequestBody { chunk, request } => (chunk, request, None),
            Event::ResponseBody {
                chunk,
                request,
                response,
            } => (chunk, request, Some(response)),
        };
        let mut inner = self.lock();
        let id = chunk.correlation_id.as_str();
        let Some(entry) = inner.entries.get_mut(id) else {
            return;
        };
        *request = entry.request.as_mut().map(|kept| kept.head(id));
        if let Some(response) = response {
            *response = entry.response.as_mut().map(|kept| kept.head(id));
        }
    }

    /// Keeps the head of an event that is done with. A request's head begins
    /// its exchange anew.
    pub fn keep_head(&self, event: Event) {
        self.keep_head_at(event, Instant::now());
    }

    fn keep_head_at(&self, event: Event, now: Instant) {
        match event {
            Event::RequestHeaders(head) => {
                let id = Arc::from(head.correlation_id.as_str());
                let packed = head.pack();
                self.change(id, now, |entry| {
                    let bytes = packed.whole_bytes();
                    *entry = Entry {
                        number: entry.number,
                        bytes: 0,
                        request: Some(Kept::Packed(packed)),
                        ..Entry::default()
                    };
                    bytes
                });
            }
            Event::ResponseHeaders(head) => {
                let id = Arc::from(head.correlation_id.as_str());
                let packed = head.pack();
                self.change(id, now, |entry| {
                    let bytes = packed.whole_bytes();
                    entry.response = Some(Kept::Packed(packed));
                    bytes
                });
            }
            Event::RequestBody { .. } | Event::ResponseBody { .. } => {}
        }
    }

    /// Keeps operations to repeat in the answer to the response headers.
    pub fn keep_operations(&self, correlation_id: &str, operations: Vec<HeaderOp>) {
        let bytes = operations.iter().map(HeaderOp::size_bytes).sum();
        self.change(Arc::from(correlation_id), Instant::now(), |entry| {
            entry.operations.extend(operations);
            bytes
        });
    }

    /// Takes the operations to repeat now.
    #[must_use]
    pub fn take_operations(&self, correlation_id: &str) -> Vec<HeaderOp> {
        self.lock()
            .entries
            .get_mut(correlation_id)
            .map(|entry| std::mem::take(&mut entry.operations))
            .unwrap_or_default()
    }

    /// Forgets an exchange that is over.
    pub fn forget(&self, correlation_id: &str) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.remove(correlation_id) {
            inner.bytes -= entry.bytes;
        }
    }

    /// Changes an entry; `change` says how many bytes that adds to it.
    fn change(&self, id: Arc<str>, now: Instant, change: impl FnOnce(&mut Entry) -> usize) {
        // The entry itself, its place in the map and in the order.
        const OVERHEAD_BYTES: usize = 256;
        let mut inner = self.lock();
        let inner = &mut *inner;
        if !inner.entries.contains_key(&id) {
            inner.next_number += 1;
            let entry = Entry {
                number: inner.next_number,
                ..Entry::default()
            };
            inner
                .order
                .push_back((now, Arc::clone(&id), inner.next_number));
            inner.entries.insert(Arc::clone(&id), entry);
        }
        if let Some(entry) = inner.entries.get_mut(&id) {
            let before = entry.bytes;
            entry.bytes = change(entry) + entry.bytes + OVERHEAD_BYTES + id.len();
            inner.bytes = inner.bytes - before + entry.bytes;
        }
        inner.evict(&self.limits, now);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn evict(&mut self, limits: &ContextLimits, now: Instant) {
        while let Some((since, id, number)) = self.order.front() {
            let expired = now.saturating_duration_since(*since) > limits.time_to_live;
            // The order counts too: ids used over and over must not make it grow.
            let full = self.order.len() > limits.max_entries || self.bytes > limits.max_bytes;
            if !expired && !full {
                break;
            }
            if self
                .entries
                .get(id)
                .is_some_and(|entry| entry.number == *number)
                && let Some(entry) = self.entries.remove(id)
            {
                self.bytes -= entry.bytes;
            }
            self.order.pop_front();
        }
    }
}

/// A head that may be asked for. Most never are, and one block of memory is
/// given back sooner than two dozen strings that nobody has looked at since.
enum Kept<T> {
    Packed(Packed),
    Whole(Arc<T>),
}

impl<T: Head> Kept<T> {
    fn head(&mut self, correlation_id: &str) -> Arc<T> {
        match self {
            Self::Whole(head) => Arc::clone(head),
            Self::Packed(packed) => {
                let head = Arc::new(T::unpack(correlation_id, &mut packed.strings()));
                *self = Self::Whole(Arc::clone(&head));
                head
            }
        }
    }
}

/// Strings one after the other, each behind its length.
struct Packed(Box<[u8]>);

const LENGTH_BYTES: usize = size_of::<usize>();

impl Packed {
    fn new<'a>(strings: impl Iterator<Item = &'a str> + Clone) -> Self {
        let size = strings.clone().map(|text| LENGTH_BYTES + text.len()).sum();
        let mut bytes = Vec::with_capacity(size);
        for text in strings {
            bytes.extend_from_slice(&text.len().to_ne_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Self(bytes.into())
    }

    /// What the head takes once it is whole again.
    fn whole_bytes(&self) -> usize {
        let each = size_of::<String>();
        self.texts().map(|text| text.len() + each).sum()
    }

    fn strings(&self) -> impl Iterator<Item = String> {
        self.texts()
            .map(|text| String::from_utf8_lossy(text).into_owned())
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(usize::from_ne_bytes(*length))?;
            rest = after;
            Some(text)
        })
    }
}

/// What can be packed. The correlation id is the entry's own.
trait Head {
    fn pack(&self) -> Packed;
    fn unpack(correlation_id: &str, strings: &mut dyn Iterator<Item = String>) -> Self;
}

impl Head for RequestHead {
    fn pack(&self) -> Packed {
        let line = [&self.method, &self.uri, &self.client_ip];
        let line = line.into_iter().map(String::as_str);
        Packed::new(line.chain(fields(&self.headers)))
    }

    fn unpack(correlation_id: &str, strings: &mut dyn Iterator<Item = String>) -> Self {
        let mut next = || strings.next().unwrap_or_default();
        Self {
            correlation_id: correlation_id.to_owned(),
            method: next(),
            uri: next(),
            client_ip: next(),
            headers: headers(strings),
        }
    }
}

impl Head for ResponseHead {
    fn pack(&self) -> Packed {
        let status = self.status.to_string();
        let status = std::iter::once(status.as_str());
        Packed::new(status.chain(fields(&self.headers)))
    }

    fn unpack(correlation_id: &str, strings: &mut dyn Iterator<Item = String>) -> Self {
        let status = strings.next().and_then(|status| status.parse().ok());
        Self {
            correlation_id: correlation_id.to_owned(),
            status: status.unwrap_or_default(),
            headers: headers(strings),
        }
    }
}

fn fields(headers: &Headers) -> impl Iterator<Item = &str> + Clone {
    headers.iter().flat_map(|(name, value)| [name, value])
}

fn headers(strings: &mut dyn Iterator<Item = String>) -> Headers {
    std::iter::from_fn(|| Some((strings.next()?, strings.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::BodyChunk;

    fn request(id: &str, uri: &str) -> Event {
        Event::RequestHeaders(RequestHead {
            correlation_id: id.into(),
            uri: uri.into(),
            ..RequestHead::default()
        })
    }

    fn response(id: &str) -> Event {
        Event::ResponseHeaders(ResponseHead {
            correlation_id: id.into(),
            status: 200,
            ..ResponseHead::default()
        })
    }

    /// The URI and the status that a response body event would be given.
    fn known(cache: &ContextCache, id: &str) -> (Option<String>, Option<u16>) {
        let mut event = Event::ResponseBody {
            chunk: BodyChunk {
                correlation_id: id.into(),
                ..BodyChunk::default()
            },
            request: None,
            response: None,
        };
        cache.complete(&mut event);
        match event {
            Event::ResponseBody {
                request, response, ..
            } => (
                request.map(|head| head.uri.clone()),
                response.map(|head| head.status),
            ),
            other => panic!("{other:?}"),
        }
    }

    fn set(name: &str) -> HeaderOp {
        HeaderOp::Set {
            name: name.into(),
            value: String::new(),
        }
    }

    #[test]
    fn a_body_event_gets_the_heads_of_its_exchange() {
        let cache = ContextCache::new(ContextLimits::default());
        cache.keep_head(request("a", "/a"));
        cache.keep_head(response("a"));
        cache.keep_head(request("b", "/b"));
        assert_eq!(known(&cache, "a"), (Some("/a".into()), Some(200)));
        assert_eq!(known(&cache, "b"), (Some("/b".into()), None));
        assert_eq!(known(&cache, "c"), (None, None));
        cache.forget("a");
        assert_eq!(known(&cache, "a"), (None, None));
    }

    #[test]
    fn operations_are_taken_once_and_die_with_their_exchange() {
        let cache = ContextCache::new(ContextLimits::default());
        cache.keep_operations("a", vec![set("x")]);
        cache.keep_operations("a", vec![set("y")]);
        assert_eq!(cache.take_operations("a"), [set("x"), set("y")]);
        assert!(cache.take_operations("a").is_empty());
        cache.keep_operations("a", vec![set("x")]);
        cache.keep_head(request("a", "/again"));
        assert!(cache.take_operations("a").is_empty());
    }

    #[test]
    fn the_oldest_exchange_goes_when_there_are_too_many() {
        let cache = ContextCache::new(ContextLimits {
            max_entries: 3,
            ..ContextLimits::default()
        });
        for id in ["a", "b", "c", "d"] {
            cache.keep_head(request(id, "/"));
        }
        assert_eq!(known(&cache, "a").0, None);
        assert!(known(&cache, "b").0.is_some());
    }

    #[test]
    fn memory_is_bounded_by_bytes_too() {
        let cache = ContextCache::new(ContextLimits {
            max_bytes: 100_000,
            ..ContextLimits::default()
        });
        for number in 0..1_000 {
            cache.keep_head(request(&number.to_string(), &"x".repeat(1_000)));
            assert!(cache.lock().bytes <= 100_000);
        }
        assert!(known(&cache, "999").0.is_some());
        // Too large for the whole cache: not kept, and no harm done.
        cache.keep_head(request("large", &"x".repeat(200_000)));
        assert_eq!(cache.lock().bytes, 0);
    }

    #[test]
    fn the_same_id_for_ever_takes_no_more_memory() {
        let cache = ContextCache::new(ContextLimits {
            max_entries: 10,
            ..ContextLimits::default()
        });
        for _ in 0..1_000 {
            cache.keep_head(request("a", "/"));
            cache.forget("a");
            cache.keep_operations("a", vec![set("x")]);
        }
        let inner = cache.lock();
        assert!(inner.order.len() <= 10 && inner.entries.len() <= 1);
    }

    #[test]
    fn an_exchange_is_forgotten_after_its_time() {
        let cache = ContextCache::new(ContextLimits::default());
        let start = Instant::now();
        cache.keep_head_at(request("a", "/"), start);
        cache.keep_head_at(request("b", "/"), start + Duration::from_secs(200));
        cache.keep_head_at(request("c", "/"), start + Duration::from_secs(301));
        assert_eq!(known(&cache, "a").0, None);
        assert!(known(&cache, "b").0.is_some());
    }

    proptest! {
        /// Nobody can tell that a head was packed in between.
        #[test]
        fn a_head_comes_back_as_it_went(
            line in any::<[String; 3]>(),
            status in any::<u16>(),
            headers in prop::collection::vec(any::<(String, String)>(), 0..5),
        ) {
            let [method, uri, client_ip] = line;
            let correlation_id = "a".to_owned();
            let request = RequestHead {
                correlation_id: correlation_id.clone(), method, uri, client_ip, headers: headers.iter().cloned().collect(),
            };
            let response = ResponseHead { correlation_id, status, headers: headers.into_iter().collect() };
            let cache = ContextCache::new(ContextLimits::default());
            cache.keep_head(Event::RequestHeaders(request.clone()));
            cache.keep_head(Event::ResponseHeaders(response.clone()));
            for _ in 0..2 {
                let mut event = Event::ResponseBody {
                    chunk: BodyChunk { correlation_id: "a".into(), ..BodyChunk::default() },
                    request: None,
                    response: None,
                };
                cache.complete(&mut event);
                let Event::ResponseBody { request: known, response: answered, .. } = event else {
                    panic!("another event")
                };
                prop_assert_eq!(known.as_deref(), Some(&request));
                prop_assert_eq!(answered.as_deref(), Some(&response));
            }
        }
    }
}
