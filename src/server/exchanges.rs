//! What earlier events of an exchange said, for the later ones.
//!
//! In: heads and header operations of events that were answered. Out: the
//! heads a body event belongs to, and the operations to repeat. One cache for
//! all connections, since a proxy sends the events of one exchange on several.
//! Invariant: memory stays within the limits whatever proxies send or forget;
//! what is too old goes when something new comes, so no timer is needed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};
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
    hasher: RandomState,
    inner: Mutex<Inner>,
}

/// A keyed hash of a correlation id: nobody can make two ids meet.
type Key = u64;

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, Entry, BuildHasherDefault<AsItIs>>,
    /// Oldest first; an item whose number is not its entry's is out of date.
    order: VecDeque<(Instant, Key, u64)>,
    bytes: usize,
    next_number: u64,
}

/// A key is a hash already.
#[derive(Default)]
struct AsItIs(u64);

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
            hasher: RandomState::new(),
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
        let id = chunk.correlation_id.as_str();
        let key = self.key(id);
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&key) else {
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
                let packed = head.pack();
                self.change(&head.correlation_id, now, |entry| {
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
                let packed = head.pack();
                self.change(&head.correlation_id, now, |entry| {
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
        self.change(correlation_id, Instant::now(), |entry| {
            entry.operations.extend(operations);
            bytes
        });
    }

    /// Takes the operations to repeat now.
    #[must_use]
    pub fn take_operations(&self, correlation_id: &str) -> Vec<HeaderOp> {
        let key = self.key(correlation_id);
        self.lock()
            .entries
            .get_mut(&key)
            .map(|entry| std::mem::take(&mut entry.operations))
            .unwrap_or_default()
    }

    /// Forgets an exchange that is over.
    pub fn forget(&self, correlation_id: &str) {
        let key = self.key(correlation_id);
        let mut inner = self.lock();
        let forgotten = inner.entries.remove(&key);
        inner.bytes -= forgotten.as_ref().map_or(0, |entry| entry.bytes);
        // Its memory is given back while others go on.
        drop(inner);
        drop(forgotten);
    }

    fn key(&self, correlation_id: &str) -> Key {
        self.hasher.hash_one(correlation_id)
    }

    /// Changes an entry; `change` says how many bytes that adds to it.
    fn change(&self, id: &str, now: Instant, change: impl FnOnce(&mut Entry) -> usize) {
        // The entry itself, its place in the map and in the order.
        const OVERHEAD_BYTES: usize = 256;
        let key = self.key(id);
        let mut locked = self.lock();
        let inner = &mut *locked;
        let entry = inner.entries.entry(key).or_insert_with(|| {
            inner.next_number += 1;
            let number = inner.next_number;
            inner.order.push_back((now, key, number));
            Entry {
                number,
                ..Entry::default()
            }
        });
        let before = entry.bytes;
        entry.bytes = change(entry) + entry.bytes + OVERHEAD_BYTES;
        inner.bytes = inner.bytes - before + entry.bytes;
        let evicted = inner.evict(&self.limits, now);
        // Its memory is given back while others go on.
        drop(locked);
        drop(evicted);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes away what is too old or too much; hands back the last of it, which
    /// as a rule is all.
    fn evict(&mut self, limits: &ContextLimits, now: Instant) -> Option<Entry> {
        let mut evicted = None;
        while let Some((since, key, number)) = self.order.front() {
            let expired = now.saturating_duration_since(*since) > limits.time_to_live;
            // The order counts too: ids used over and over must not make it grow.
            let full = self.order.len() > limits.max_entries || self.bytes > limits.max_bytes;
            if !expired && !full {
                break;
            }
            if let std::collections::hash_map::Entry::Occupied(entry) = self.entries.entry(*key)
                && entry.get().number == *number
            {
                let entry = entry.remove();
                self.bytes -= entry.bytes;
                evicted = Some(entry);
            }
            self.order.pop_front();
        }
        evicted
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
                let head = Arc::new(T::unpack(correlation_id, &mut packed.texts()));
                *self = Self::Whole(Arc::clone(&head));
                head
            }
        }
    }
}

/// Texts one after the other, behind the lengths of all of them.
struct Packed {
    bytes: Box<[u8]>,
    texts: usize,
}

const LENGTH_BYTES: usize = size_of::<usize>();

impl Packed {
    fn new(line: &[&str], headers: &Headers) -> Self {
        let texts = line.len() + 2 * headers.len();
        let line_bytes: usize = line.iter().map(|text| text.len()).sum();
        let size = LENGTH_BYTES * texts + line_bytes + headers.text().len();
        let mut bytes = Vec::with_capacity(size);
        let fields = headers.iter().flat_map(|(name, value)| [name, value]);
        for text in line.iter().copied().chain(fields) {
            bytes.extend_from_slice(&text.len().to_ne_bytes());
        }
        for text in line.iter().copied().chain([headers.text()]) {
            bytes.extend_from_slice(text.as_bytes());
        }
        Self {
            bytes: bytes.into(),
            texts,
        }
    }

    /// About what the head takes once it is whole again.
    const fn whole_bytes(&self) -> usize {
        self.bytes.len() + self.texts * size_of::<String>()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let (lengths, mut rest) = self.bytes.split_at(LENGTH_BYTES * self.texts);
        let (lengths, _) = lengths.as_chunks();
        lengths.iter().map_while(move |length| {
            let (text, after) = rest.split_at_checked(usize::from_ne_bytes(*length))?;
            rest = after;
            std::str::from_utf8(text).ok()
        })
    }
}

/// What can be packed. The correlation id is the entry's own.
trait Head {
    fn pack(&self) -> Packed;
    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self;
}

impl Head for RequestHead {
    fn pack(&self) -> Packed {
        Packed::new(&[&self.method, &self.uri, &self.client_ip], &self.headers)
    }

    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self {
        let mut next = || texts.next().unwrap_or_default().to_owned();
        Self {
            correlation_id: correlation_id.to_owned(),
            method: next(),
            uri: next(),
            client_ip: next(),
            headers: headers(texts),
        }
    }
}

impl Head for ResponseHead {
    fn pack(&self) -> Packed {
        Packed::new(&[&self.status.to_string()], &self.headers)
    }

    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self {
        let status = texts.next().and_then(|status| status.parse().ok());
        Self {
            correlation_id: correlation_id.to_owned(),
            status: status.unwrap_or_default(),
            headers: headers(texts),
        }
    }
}

fn headers(texts: &mut dyn Iterator<Item = &str>) -> Headers {
    let mut headers = Headers::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        headers.push(name, value);
    }
    headers
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
