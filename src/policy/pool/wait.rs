//! How a caller waits: a thread sleeps, a task of an executor is woken.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use futures_timer::Delay;
use tokio::task::coop::unconstrained;
/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) enum Caller {
    /// A thread, which sleeps while it waits.
    Thread,
    /// A task, which gives its thread back while it waits.
    Task,
}

impl Caller {
    /// What comes, if it comes in time.
    pub(in crate::policy) async fn wait<T>(
        self,
        end: Instant,
        coming: impl Future<Output = T>,
    ) -> Option<T> {
        // A thread of tokio counts what its task waits for, and would hold back what
        // has come.
        let mut coming = pin!(unconstrained(coming));
        match self {
            Self::Thread => {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let mut context = Context::from_waker(&waker);
                loop {
                    if let Poll::Ready(come) = coming.as_mut().poll(&mut context) {
                        return Some(come);
                    }
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    thread::park_timeout(left);
                }
            }
            Self::Task => {
                let left = end.saturating_duration_since(Instant::now());
                let mut over = pin!(Delay::new(left));
                poll_fn(|context| match coming.as_mut().poll(context) {
                    Poll::Ready(come) => Poll::Ready(Some(come)),
                    Poll::Pending => over.as_mut().poll(context).map(|()| None),
                })
                .await
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Counts a caller while it waits.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
