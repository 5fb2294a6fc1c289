//! Secrets of exchanges that are not over yet.
//!
//! A secret is named once, as by a request's header, and comes back in a later
//! event without its name. So what was found in an exchange is kept for it,
//! within bounds of number, bytes and time. Where any of it had to be given
//! up, later events of that exchange are not recorded: nobody could say what in
//! them is secret. Which exchanges that are is known exactly of a limited
//! number of them. Behind that, whatever may be one of them counts as one: an
//! event too few is written, and never a secret.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::capture::SecretsFound;

/// Exchanges at once, and as many times as this that were given up.
const MAX_EXCHANGES: usize = 16_384;
const TIMES_GIVEN_UP: usize = 4;
/// Exchanges are counted from 1, and no count comes this far. What is above is
/// the keyed hash of an exchange that nobody counted.
const FIRST_HASH: u64 = 1 << 40;
/// Groups of hashes, of which is known whether one was given up; 128 KiB.
const HASH_GROUPS: u64 = 1 << 20;
/// Bytes of all that was found, estimated.
const MAX_BYTES: usize = 32 << 20;
/// Since the last event of an exchange.
const TIME_TO_LIVE: Duration = Duration::from_secs(300);

/// What was found, by the exchange's number.
#[derive(Default)]
pub(super) struct KnownSecrets {
    kept: HashMap<u64, Kept>,
    /// Exchanges by the turn of their last event.
    order: BTreeMap<u64, u64>,
    turn: u64,
    bytes: usize,
    given_up: GivenUp,
}

struct Kept {
    found: SecretsFound,
    bytes: usize,
    turn: u64,
    used: Instant,
}

impl KnownSecrets {
    /// What is known of an exchange, for an event of it. None where something
    /// was known and was given up; a first event begins anew.
    pub(super) fn take(
        &mut self,
        exchange: u64,
        is_first: bool,
        now: Instant,
    ) -> Option<SecretsFound> {
        self.expire(now);
        if is_first {
            self.given_up.forget(exchange);
        }
        match self.remove(exchange) {
            Some(found) => Some(found),
            None if !is_first && self.given_up.has(exchange) => None,
            None => Some(SecretsFound::default()),
        }
    }

    /// Keeps what is known now for the events to come.
    pub(super) fn keep(&mut self, exchange: u64, mut found: SecretsFound, now: Instant) {
        self.turn += 1;
        found.begin();
        let bytes = found.size_bytes();
        self.bytes += bytes;
        self.order.insert(self.turn, exchange);
        let kept = Kept {
            found,
            bytes,
            turn: self.turn,
            used: now,
        };
        self.kept.insert(exchange, kept);
        while self.kept.len() > MAX_EXCHANGES || self.bytes > MAX_BYTES {
            self.give_up_oldest();
        }
    }

    /// An event of it is not recorded, nor are the later ones.
    pub(super) fn give_up(&mut self, exchange: u64) {
        self.remove(exchange);
        self.given_up.add(exchange);
    }

    fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.oldest()
            && let Some(kept) = self.kept.get(&oldest)
            && now.saturating_duration_since(kept.used) > TIME_TO_LIVE
        {
            self.give_up_oldest();
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.order.first_key_value().map(|(_, exchange)| *exchange)
    }

    fn give_up_oldest(&mut self) {
        if let Some(oldest) = self.oldest()
            && let Some(found) = self.remove(oldest)
            && found.is_any()
        {
            self.given_up.add(oldest);
        }
    }

    fn remove(&mut self, exchange: u64) -> Option<SecretsFound> {
        let kept = self.kept.remove(&exchange)?;
        self.order.remove(&kept.turn);
        self.bytes -= kept.bytes;
        Some(kept.found)
    }
}

/// Exchanges of which a part is missing: the last of them each by itself, and
/// those before so that none is taken for a whole one.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    all: HashSet<u64>,
    /// Oldest first; one that was forgotten may still be here.
    order: VecDeque<u64>,
    /// Counts below this one may be of exchanges that `all` has no room for.
    floor: u64,
    /// A bit for each group of hashes, which may have one of them.
    hashes: Vec<u8>,
}

impl GivenUp {
    pub(super) fn add(&mut self, exchange: u64) {
        if !self.all.insert(exchange) {
            return;
        }
        self.order.push_back(exchange);
        if self.order.len() > MAX_EXCHANGES * TIMES_GIVEN_UP
            && let Some(oldest) = self.order.pop_front()
            && self.all.remove(&oldest)
        {
            self.add_roughly(oldest);
        }
    }

    fn add_roughly(&mut self, exchange: u64) {
        if exchange < FIRST_HASH {
            self.floor = self.floor.max(exchange + 1);
            return;
        }
        let (byte, bit) = group_of(exchange);
        self.hashes.resize(group_of(HASH_GROUPS - 1).0 + 1, 0);
        self.hashes[byte] |= bit;
    }

    /// Whether an event that does not begin its exchange is of one of them, or
    /// may be.
    pub(super) fn has(&self, exchange: u64) -> bool {
        if self.all.contains(&exchange) {
            return true;
        }
        if exchange < FIRST_HASH {
            return exchange < self.floor;
        }
        let (byte, bit) = group_of(exchange);
        self.hashes.get(byte).is_some_and(|bits| bits & bit != 0)
    }

    /// It begins anew.
    pub(super) fn forget(&mut self, exchange: u64) {
        self.all.remove(&exchange);
    }
}

/// The byte and the bit of a hash's group.
fn group_of(hash: u64) -> (usize, u8) {
    let group = hash % HASH_GROUPS;
    let byte = usize::try_from(group / 8).unwrap_or_default();
    (byte, 1 << (group % 8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Redactor;

    fn with_secret(secret: &str) -> SecretsFound {
        let mut found = SecretsFound::default();
        let input = serde_json::json!({"headers": {"authorization": secret}}).to_string();
        Redactor::with_key([7; 32]).input(&input, &mut found);
        found
    }

    #[test]
    fn what_was_found_is_there_for_the_next_event() {
        let mut exchanges = KnownSecrets::default();
        let now = Instant::now();
        exchanges.keep(1, with_secret("Bearer S3cret-one"), now);
        exchanges.keep(2, with_secret("Bearer S3cret-two"), now);
        for _ in 0..3 {
            let found = exchanges.take(1, false, now).unwrap();
            assert!(!found.text("x S3cret-one y").contains("S3cret-one"));
            assert_eq!(found.text("x S3cret-two y"), "x S3cret-two y");
            exchanges.keep(1, found, now);
        }
        assert!(!exchanges.take(3, false, now).unwrap().is_any());
    }

    /// Whoever sends very many header names makes nobody keep them.
    #[test]
    fn where_secrets_stood_is_not_kept() {
        let headers: serde_json::Map<_, _> = (0..5_000)
            .map(|number| (format!("x-{number}-token"), "S3cret-one".into()))
            .collect();
        let mut found = SecretsFound::default();
        let input = serde_json::json!({ "headers": headers }).to_string();
        Redactor::with_key([7; 32]).input(&input, &mut found);
        assert!(found.size_bytes() > 5_000 * 64, "{}", found.size_bytes());
        let (mut exchanges, now) = (KnownSecrets::default(), Instant::now());
        exchanges.keep(1, found, now);
        assert!(exchanges.bytes < 16_384, "{}", exchanges.bytes);
        let found = exchanges.take(1, false, now).unwrap();
        assert_eq!(found.fields.capacity(), 0);
        assert!(!found.text("x S3cret-one y").contains("S3cret-one"));
    }

    #[test]
    fn of_what_was_given_up_nothing_more_is_told() {
        let begin = Instant::now();
        let late = begin + TIME_TO_LIVE + Duration::from_secs(1);
        let mut exchanges = KnownSecrets::default();
        exchanges.keep(1, with_secret("Bearer S3cret-one"), begin);
        exchanges.keep(2, SecretsFound::default(), begin);
        assert!(exchanges.take(1, false, late).is_none());
        assert!(exchanges.take(2, false, late).is_some(), "it knew of none");
        assert!(exchanges.take(1, true, late).is_some(), "it begins anew");
        assert_eq!((exchanges.bytes, exchanges.order.len()), (0, 0));
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let mut exchanges = KnownSecrets::default();
        let now = Instant::now();
        for number in 0..2 * MAX_EXCHANGES as u64 {
            exchanges.keep(number, with_secret("Bearer S3cret-one"), now);
            assert!(exchanges.bytes <= MAX_BYTES && exchanges.kept.len() <= MAX_EXCHANGES);
        }
        assert!(exchanges.take(0, false, now).is_none());
        let last = exchanges.take(2 * MAX_EXCHANGES as u64 - 1, false, now);
        assert!(last.unwrap().is_any());
        for number in 0..100 {
            let many: String = (0..2_000)
                .map(|at| format!("a{at}=S3cret-{number}-{at};"))
                .collect();
            let mut found = SecretsFound::default();
            let input = serde_json::json!({"headers": {"cookie": many}}).to_string();
            Redactor::with_key([7; 32]).input(&input, &mut found);
            exchanges.keep(number, found, now);
            assert!(exchanges.bytes <= MAX_BYTES);
        }
    }

    const MANY: u64 = 200_000;

    /// However many others were given up since: none is taken for a whole one.
    #[test]
    fn what_was_given_up_stays_so() {
        let mut given_up = GivenUp::default();
        (1..=MANY).for_each(|number| given_up.add(2 * number));
        assert_eq!(given_up.all.len(), MAX_EXCHANGES * TIMES_GIVEN_UP);
        assert!((1..=MANY).all(|number| given_up.has(2 * number)));
        assert!(!given_up.has(2 * MANY + 1) && !given_up.has(2 * MANY - 1));

        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | FIRST_HASH;
        let mut hashes = GivenUp::default();
        (0..MANY).for_each(|number| hashes.add(hash(number)));
        assert!((0..MANY).all(|number| hashes.has(hash(number))));
        assert!(!hashes.has(1), "no count is below a hash");
        let others = (MANY..2 * MANY).filter(|number| hashes.has(hash(*number)));
        assert!(others.count() < 40_000, "most others are still recorded");
        assert_eq!(hashes.hashes.len(), 128 << 10);
    }

    #[test]
    fn an_old_exchange_that_is_kept_or_begins_anew_is_recorded() {
        let (mut exchanges, now) = (KnownSecrets::default(), Instant::now());
        exchanges.given_up.floor = 101;
        assert!(exchanges.take(7, false, now).is_none());
        let found = exchanges.take(7, true, now).unwrap();
        exchanges.keep(7, found, now);
        assert!(exchanges.take(7, false, now).is_some());
        assert!(exchanges.take(101, false, now).is_some());
    }
}
