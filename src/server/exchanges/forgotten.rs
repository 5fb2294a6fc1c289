//! Exchanges that were forgotten before they were over.
//!
//! A body of one of them must not be taken for another's that has the same id.
//! Of each only the key is kept, and what its head announced: some dozen bytes,
//! for an hour, or until there are more than 262 144.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use super::{Announced, AsItIs, Key};
use crate::event::BodyChunk;

/// Longer than nearly all proxies let a request take.
const KEPT_FOR: Duration = Duration::from_secs(3600);
const MAX_KEYS: usize = 262_144;

#[derive(Default)]
pub(super) struct Forgotten {
    keys: HashMap<Key, (Instant, Announced), BuildHasherDefault<AsItIs>>,
    /// Oldest first; an item whose time is not its key's is out of date.
    order: VecDeque<(Instant, Key)>,
}

impl Forgotten {
    pub(super) fn add(&mut self, key: Key, announced: Announced, now: Instant) {
        self.keys
            .entry(key)
            .and_modify(|(since, have)| {
                *since = now;
                if *have != announced {
                    *have = Announced::Any;
                }
            })
            .or_insert((now, announced));
        self.order.push_back((now, key));
        while let Some(&(since, key)) = self.order.front() {
            let expired = now.saturating_duration_since(since) > KEPT_FOR;
            if !expired && self.order.len() <= MAX_KEYS {
                break;
            }
            self.order.pop_front();
            if self.keys.get(&key).is_some_and(|(last, _)| *last == since) {
                self.keys.remove(&key);
            }
        }
    }

    pub(super) fn contains(&self, key: Key, now: Instant) -> bool {
        self.get(key, now).is_some()
    }

    /// Whether a forgotten exchange may be the body's.
    pub(super) fn fits(&self, key: Key, chunk: &BodyChunk, now: Instant) -> bool {
        self.get(key, now)
            .is_some_and(|announced| announced.fits(chunk))
    }

    fn get(&self, key: Key, now: Instant) -> Option<Announced> {
        let (since, announced) = self.keys.get(&key)?;
        (now.saturating_duration_since(*since) <= KEPT_FOR).then_some(*announced)
    }
}
