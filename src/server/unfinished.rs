//! Messages that have not arrived completely; bounds the memory of all of them
//! together.
//!
//! In: how much each reader holds of a message whose end has not come. Out:
//! once all of them hold too much, who has to let go: the one whose message
//! was begun first, because an honest one is whole soon. Invariants: a message
//! that is alone is never too much, however large; what has to let go counts
//! no more, so nobody waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::server::lock;

/// What one connection may hold without being counted; also what is too
/// little to be worth closing somebody, where others hold more.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// What is said to whom has to let go.
pub(crate) const LET_GO: &str =
    "the unfinished messages of all connections took too much memory, and this was the oldest";

/// All messages that are not whole.
pub(crate) struct Unfinished {
    max: usize,
    messages: Mutex<Messages>,
}

#[derive(Default)]
struct Messages {
    bytes: usize,
    next_number: u64,
    /// By the order in which they were begun.
    messages: BTreeMap<u64, Message>,
}

struct Message {
    bytes: usize,
    let_go: Arc<Notify>,
}

/// One reader's part in it.
pub(crate) struct Share {
    all: Arc<Unfinished>,
    /// No more than this counts for nothing.
    free: usize,
    /// Of the message that counts, if one does.
    number: Option<u64>,
    let_go: Arc<Notify>,
}

impl Unfinished {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            messages: Mutex::default(),
        })
    }

    /// A part for one more reader; up to `free` bytes it counts for nothing.
    pub(crate) fn share(self: &Arc<Self>, free: usize) -> Share {
        Share {
            all: Arc::clone(self),
            free,
            number: None,
            let_go: Arc::default(),
        }
    }
}

impl Messages {
    fn begin(&mut self, let_go: Arc<Notify>) -> u64 {
        self.next_number += 1;
        let message = Message { bytes: 0, let_go };
        self.messages.insert(self.next_number, message);
        self.next_number
    }

    /// Says how much of a message there is now; none that was let go.
    fn hold(&mut self, number: u64, bytes: usize) {
        if let Some(message) = self.messages.get_mut(&number) {
            self.bytes = self.bytes - message.bytes + bytes;
            message.bytes = bytes;
        }
    }

    /// Says whether it still counted.
    fn end(&mut self, number: u64) -> bool {
        let ended = self.messages.remove(&number);
        self.bytes -= ended.as_ref().map_or(0, |message| message.bytes);
        ended.is_some()
    }

    /// Lets go of messages until the rest is no more than `max`.
    fn shrink(&mut self, max: usize) {
        while self.bytes > max && self.messages.len() > 1 {
            let large = |(number, message): (&u64, &Message)| {
                (message.bytes > SMALL_BYTES).then_some(*number)
            };
            let oldest = self.messages.keys().next().copied();
            let Some(number) = self.messages.iter().find_map(large).or(oldest) else {
                return;
            };
            if let Some(message) = self.messages.get(&number) {
                message.let_go.notify_one();
            }
            self.end(number);
        }
    }
}

impl Share {
    /// The reader holds so many bytes of a message that is not whole.
    pub(crate) fn hold(&mut self, bytes: usize) {
        if bytes <= self.free {
            return self.whole();
        }
        let mut state = lock(&self.all.messages);
        let number = *self
            .number
            .get_or_insert_with(|| state.begin(Arc::clone(&self.let_go)));
        state.hold(number, bytes);
        state.shrink(self.all.max);
    }

    /// The message has become whole, or there is none.
    pub(crate) fn whole(&mut self) {
        if let Some(number) = self.number.take()
            && !lock(&self.all.messages).end(number)
        {
            // It was to let go of this message, which is whole after all; the
            // next one is nobody's trouble.
            self.let_go = Arc::default();
        }
    }

    /// Ready once this reader has to let go. Loses nothing when dropped.
    pub(crate) async fn let_go(&self) {
        self.let_go.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.whole();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn has_let_go(share: &Share) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(share.let_go()).poll(&mut context).is_ready()
    }

    #[test]
    fn the_message_that_was_begun_first_lets_go() {
        let all = Unfinished::new(30 * MIB);
        let mut shares: Vec<Share> = (0..4).map(|_| all.share(SMALL_BYTES)).collect();
        for share in &mut shares[..3] {
            share.hold(10 * MIB);
        }
        // One that became whole and was begun again is the youngest.
        shares[0].whole();
        shares[0].hold(9 * MIB);
        shares[3].hold(11 * MIB);
        let gone: Vec<bool> = shares.iter().map(has_let_go).collect();
        assert_eq!(gone, [false, true, false, false]);
        assert_eq!(lock(&all.messages).bytes, 30 * MIB);
        // It counts no more, whatever it says.
        shares[1].hold(12 * MIB);
        assert_eq!(lock(&all.messages).bytes, 30 * MIB);
        drop(shares);
        let state = lock(&all.messages);
        assert_eq!((state.bytes, state.messages.len()), (0, 0));
    }

    #[test]
    fn what_became_whole_in_time_is_not_let_go() {
        let all = Unfinished::new(MIB);
        let (mut one, mut two) = (all.share(0), all.share(0));
        one.hold(MIB);
        two.hold(MIB);
        // The reader had the rest of it before it looked.
        one.whole();
        assert!(!has_let_go(&one));
        // The next one counts as before.
        one.hold(MIB);
        assert!(has_let_go(&two) && !has_let_go(&one));
        two.whole();
        two.hold(MIB);
        assert!(has_let_go(&one) && !has_let_go(&two));
    }

    #[test]
    fn a_message_that_is_alone_is_never_too_much() {
        let all = Unfinished::new(MIB);
        let mut one = all.share(0);
        one.hold(16 * MIB);
        assert!(!has_let_go(&one));
        let mut two = all.share(0);
        two.hold(16 * MIB);
        assert!(has_let_go(&one) && !has_let_go(&two));
    }

    #[test]
    fn small_messages_are_nobody_s_trouble() {
        let all = Unfinished::new(MIB);
        let mut small = all.share(0);
        small.hold(100);
        let mut free = all.share(SMALL_BYTES);
        free.hold(SMALL_BYTES);
        assert_eq!(lock(&all.messages).bytes, 100);
        let (mut one, mut two) = (all.share(0), all.share(0));
        one.hold(MIB / 2);
        two.hold(MIB / 2);
        assert!(has_let_go(&one));
        assert!(!has_let_go(&small) && !has_let_go(&free) && !has_let_go(&two));
        // Unless there is nothing else.
        let mut many: Vec<Share> = (0..20).map(|_| all.share(0)).collect();
        for share in &mut many {
            share.hold(SMALL_BYTES);
        }
        drop(two);
        for share in &mut many {
            share.hold(SMALL_BYTES);
        }
        assert!(lock(&all.messages).bytes <= MIB);
    }
}
