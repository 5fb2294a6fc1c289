//! The calls of one connection, and whether their peer takes what it is sent.
//!
//! hyper takes an answer from us before the peer has room for it, and asks for
//! no more meanwhile; so what was handed to it is counted here until it has
//! left. Invariant: a call whose peer leaves an answer for longer than the
//! write timeout is given up, with all that waits for it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::Executor;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::server::metrics::Closed;
use crate::server::{Shared, after, lock};

tokio::task_local! {
    /// The call that the running task serves.
    static CALL: Arc<Call>;
}

/// One call, from its request to the last byte of its answers.
#[derive(Default)]
pub(super) struct Call {
    handed: Mutex<Handed>,
    given_up: CancellationToken,
    is_late: bool,
}

/// What HTTP/2 was given and has not sent yet.
#[derive(Default)]
struct Handed {
    batches: usize,
    /// Since when the first of them waits.
    since: Option<Instant>,
    /// Who waits until there is none.
    waiting: Option<Waker>,
}

impl Call {
    /// The one that the running task serves.
    pub(super) fn current() -> Arc<Self> {
        // Each request is served by a task that `Calls` has made.
        CALL.try_with(Arc::clone).unwrap_or_default()
    }

    /// Whether it came too long after the signal to stop: nobody waits for its
    /// end.
    pub(super) const fn is_late(&self) -> bool {
        self.is_late
    }

    /// Bytes to be sent, counted until they are.
    pub(super) fn hand(self: &Arc<Self>, bytes: Vec<u8>) -> Batch {
        let mut handed = lock(&self.handed);
        handed.batches += 1;
        handed.since.get_or_insert_with(Instant::now);
        Batch {
            bytes: bytes.into(),
            call: Arc::clone(self),
        }
    }

    /// Ready once nothing waits to be sent.
    pub(super) fn poll_taken(&self, context: &Context<'_>) -> Poll<()> {
        let mut handed = lock(&self.handed);
        if handed.batches == 0 {
            return Poll::Ready(());
        }
        handed.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    fn taken(&self) {
        let mut handed = lock(&self.handed);
        handed.batches -= 1;
        // The next one's time begins where this one's ends.
        handed.since = (handed.batches > 0).then(Instant::now);
        let waiting = match handed.batches {
            0 => handed.waiting.take(),
            _ => None,
        };
        drop(handed);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Ready once the call was given up.
    pub(super) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Serves the call to its end; false where its peer took nothing for
    /// longer than `limit`.
    async fn serve(&self, serving: impl Future<Output = ()>, limit: Duration) -> bool {
        let mut serving = pin!(serving);
        let mut alarm = pin!(sleep_until(Instant::now()));
        // While it is set, there is no need to set it again: whether its time
        // was too early is seen when it comes.
        let mut is_set = false;
        poll_fn(|context| {
            if serving.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            loop {
                if !is_set {
                    let Some(since) = lock(&self.handed).since else {
                        return Poll::Pending;
                    };
                    alarm.as_mut().reset(after(since, limit));
                }
                is_set = true;
                ready!(alarm.as_mut().poll(context));
                is_set = false;
                let since = lock(&self.handed).since;
                if since.is_some_and(|since| after(since, limit) <= Instant::now()) {
                    return Poll::Ready(false);
                }
            }
        })
        .await
    }
}

/// Bytes on their way to the peer.
pub(super) struct Batch {
    bytes: Bytes,
    call: Arc<Call>,
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Batch {
    /// Sent, or given up with its call.
    fn drop(&mut self) {
        self.call.taken();
    }
}

/// The calls of one connection; makes the tasks that serve them.
#[derive(Clone)]
pub(super) struct Calls {
    shared: Arc<Shared>,
    open: watch::Sender<usize>,
    forsaken: Arc<Notify>,
    /// Once told to stop: from when on a new call is late.
    last: Arc<OnceLock<Instant>>,
}

impl Calls {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: watch::Sender::new(0),
            forsaken: Arc::default(),
            last: Arc::default(),
        }
    }

    /// What the peer calls within `time` is served, because it may not know of
    /// the stop yet; what it calls later is late.
    pub(super) fn stop_after(&self, time: Duration) {
        let _ = self.last.set(Instant::now() + time);
    }

    /// Ready once no call has been open for so long.
    pub(super) async fn quiet(&self, time: Duration) {
        let mut open = self.open.subscribe();
        loop {
            // Neither can fail: the sender is here.
            let _ = open.wait_for(|open| *open == 0).await;
            if timeout(time, open.wait_for(|open| *open > 0))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Ready once the last call was given up.
    pub(super) async fn forsaken(&self) {
        self.forsaken.notified().await;
    }

    fn give_up(&self, call: &Call) {
        call.given_up.cancel();
        self.shared.live.metrics().closed(Closed::Untaken);
        let limit = self.shared.settings.write_timeout;
        if self.shared.log_limiter.admit() {
            tracing::warn!(?limit, "the peer took no answers; gRPC call closed");
        }
    }
}

/// One call is open, as long as this is kept; also one that panics.
struct Open {
    all: watch::Sender<usize>,
}

impl Open {
    fn new(all: watch::Sender<usize>) -> Self {
        all.send_modify(|open| *open += 1);
        Self { all }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.send_modify(|open| *open -= 1);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, serving: F) {
        let calls = self.clone();
        let is_late = calls.last.get().is_some_and(|last| *last <= Instant::now());
        let open = (!is_late).then(|| Open::new(calls.open.clone()));
        tokio::spawn(async move {
            let call = Arc::new(Call {
                is_late,
                ..Call::default()
            });
            let limit = calls.shared.settings.write_timeout;
            let serving = CALL.scope(Arc::clone(&call), serving);
            // What is given up is dropped here, which resets the stream.
            let was_served = call.serve(serving, limit).await;
            if !was_served {
                calls.give_up(&call);
            }
            drop(open);
            // A peer that takes nothing of all it asked for is not kept.
            if !was_served && *calls.open.borrow() == 0 {
                calls.forsaken.notify_one();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_panics_is_open_no_more() {
        let all = watch::Sender::new(0);
        let open = Open::new(all.clone());
        assert_eq!(*all.borrow(), 1);
        let call = tokio::spawn(async move {
            let _open = open;
            panic!("a defect");
        });
        assert!(call.await.unwrap_err().is_panic());
        assert_eq!(*all.borrow(), 0);
    }
}
