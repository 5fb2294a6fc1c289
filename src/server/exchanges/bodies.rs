//! Bodies that are collected for a module that wants them whole, and the bound of all
//! of them together.
//!
//! In: the chunks of each body, as they arrive. Out: the whole body with the last one.
//! Invariant: all together hold no more than `max_bytes`, or one alone does. Beyond it
//! the body that was begun first is given up: an honest one is whole soon.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::event::BodyChunk;
use crate::fault::{Fault, FaultCode};
use crate::log_limiter::LogLimiter;
use crate::policy::bodies::{Collected, Collector};
use crate::server::lock;

/// All bodies of which the last chunk has not come.
pub(crate) struct Bodies {
    max_bytes: usize,
    open: Mutex<Open>,
    unfinished: AtomicU64,
    log_limiter: LogLimiter,
}

#[derive(Default)]
struct Open {
    bytes: usize,
    next_number: u64,
    /// By the order in which they were begun, with the bytes of each.
    bodies: BTreeMap<u64, (Weak<OpenBody>, usize)>,
}

/// What has come of one body.
pub(crate) struct OpenBody {
    number: u64,
    collector: Mutex<Collector>,
    all: Arc<Bodies>,
}

impl Bodies {
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            open: Mutex::default(),
            unfinished: AtomicU64::new(0),
            log_limiter: LogLimiter::new(),
        })
    }

    /// Room for one more body; `is_numbered` where only the numbers of its chunks tell
    /// them from those of another.
    pub(super) fn begin(self: &Arc<Self>, is_numbered: bool) -> Arc<OpenBody> {
        let mut open = lock(&self.open);
        open.next_number += 1;
        let collector = Mutex::new(Collector::new(is_numbered));
        Arc::new(OpenBody {
            number: open.next_number,
            collector,
            all: Arc::clone(self),
        })
    }

    /// Bodies that ended without their last chunk.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Notes how much a body holds, and hands back those that are to be given up.
    fn hold(&self, body: &Arc<OpenBody>, bytes: usize) -> Vec<Arc<OpenBody>> {
        let mut open = lock(&self.open);
        open.release(body.number);
        if bytes > 0 {
            open.bytes += bytes;
            let held = (Arc::downgrade(body), bytes);
            open.bodies.insert(body.number, held);
        }
        let mut gone = Vec::new();
        while open.bytes > self.max_bytes {
            let mut others = open.bodies.iter().filter(|(it, _)| **it != body.number);
            let Some((number, (oldest, _))) = others.next() else {
                break;
            };
            let number = *number;
            gone.extend(oldest.upgrade());
            open.release(number);
        }
        gone
    }
}

impl Open {
    fn release(&mut self, number: u64) {
        if let Some((_, bytes)) = self.bodies.remove(&number) {
            self.bytes -= bytes;
        }
    }
}

impl OpenBody {
    /// Takes the next chunk in, see [`Collector::take`].
    pub(crate) fn take(
        self: &Arc<Self>,
        chunk: &mut BodyChunk,
        max_bytes: u64,
    ) -> Result<Collected, Fault> {
        let (taken, bytes) = {
            let mut collector = lock(&self.collector);
            let taken = collector.take(chunk, max_bytes);
            (taken, collector.bytes())
        };
        for body in self.all.hold(self, bytes) {
            lock(&body.collector).fail(FaultCode::Overload);
        }
        taken
    }

    /// Nobody will be asked about it, and whoever sends the next chunk is told.
    pub(super) fn give_up(&self) {
        lock(&self.collector).fail(FaultCode::BodyIncomplete);
        lock(&self.all.open).release(self.number);
    }
}

impl std::fmt::Debug for OpenBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("OpenBody").finish_non_exhaustive()
    }
}

impl Drop for OpenBody {
    fn drop(&mut self) {
        lock(&self.all.open).release(self.number);
        if !lock(&self.collector).is_unfinished() {
            return;
        }
        self.all.unfinished.fetch_add(1, Ordering::Relaxed);
        if self.all.log_limiter.admit() {
            tracing::warn!(
                "a body ended before its last chunk came, so the module was not asked about it; a proxy that buffers request bodies sends no more of one than its max-inspection-bytes: set that to at least --max-body"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 100;

    fn chunk(index: u32, size: usize, is_last: bool) -> BodyChunk {
        BodyChunk {
            chunk_index: index,
            data: vec![b'x'; size],
            is_last,
            ..BodyChunk::default()
        }
    }

    fn code(taken: Result<Collected, Fault>) -> Result<Collected, FaultCode> {
        taken.map_err(|fault| fault.code)
    }

    #[test]
    fn the_body_that_was_begun_first_is_given_up() {
        let all = Bodies::new(100);
        let bodies: Vec<_> = (0..3).map(|_| all.begin(true)).collect();
        for body in &bodies[..2] {
            let more = body.take(&mut chunk(0, 40, false), LIMIT);
            assert_eq!(code(more), Ok(Collected::More));
        }
        assert_eq!(
            code(bodies[2].take(&mut chunk(0, 40, false), LIMIT)),
            Ok(Collected::More)
        );
        assert!(lock(&all.open).bytes <= 100);
        let last = |at: usize| code(bodies[at].take(&mut chunk(1, 1, true), LIMIT));
        assert_eq!(last(0), Err(FaultCode::Overload));
        assert_eq!(
            (last(1), last(2)),
            (Ok(Collected::Whole(2)), Ok(Collected::Whole(2)))
        );
        drop(bodies);
        let open = lock(&all.open);
        assert_eq!((open.bytes, open.bodies.len(), all.unfinished()), (0, 0, 0));
    }

    #[test]
    fn a_body_that_is_alone_may_be_larger() {
        let all = Bodies::new(10);
        let body = all.begin(true);
        assert_eq!(
            code(body.take(&mut chunk(0, 60, false), LIMIT)),
            Ok(Collected::More)
        );
        drop(body);
        assert_eq!((lock(&all.open).bytes, all.unfinished()), (0, 1));
    }
}
