//! The work of the guest threads: events that wait for a guest, bounded in number and
//! in time, and calls that began on another thread and take longer.
//!
//! In: calls and jobs from any connection. Out: what to do next, to a guest
//! thread; or, once a job has waited too long, to whoever answers overload. No
//! job is ever lost: one that is dropped answers for itself (see
//! [`super::job`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::job::{Call, Job};
use crate::fault::{Fault, FaultCode};
use crate::limits::after;
use crate::policy::{Policy, Pool};
use crate::server::lock;

pub(crate) struct Queue {
    state: Mutex<Waiting>,
    /// Jobs in the state, to look at without its lock.
    length: AtomicUsize,
    filled: Condvar,
    /// Told when events begin to wait, for [`Queue::expired`].
    waiting: Notify,
    max: usize,
    /// Bytes of the bodies in all jobs together; one alone may be larger.
    max_bytes: usize,
    wait: Duration,
}

#[derive(Default)]
struct Waiting {
    /// No more than there are instances; each holds one.
    begun: VecDeque<Call>,
    jobs: VecDeque<Job>,
    /// Of the bodies in `jobs`.
    bytes: usize,
    /// Guest threads with nothing to do.
    idle: usize,
    /// Somebody looks after jobs that wait too long.
    watched: bool,
    closed: bool,
}

impl Waiting {
    /// The oldest job whose call can begin.
    fn ready(&self, pool: &Pool) -> Option<usize> {
        if !pool.has_room() {
            return None;
        }
        self.jobs.iter().position(|job| job.is_ready(pool))
    }
}

/// What a guest thread does next.
pub(crate) enum Work {
    /// A call that was begun elsewhere.
    GoOn(Call),
    /// A new one.
    Call(Box<Job>),
}

/// What an event's answer says when no guest came free for it in time.
pub(crate) fn waited_too_long() -> Fault {
    Fault::new(FaultCode::Overload, "waited too long for a guest")
}

impl Queue {
    pub(crate) fn new(max: usize, max_bytes: usize, wait: Duration) -> Self {
        Self {
            state: Mutex::default(),
            length: AtomicUsize::new(0),
            filled: Condvar::new(),
            waiting: Notify::new(),
            max,
            max_bytes,
            wait,
        }
    }

    /// Whether nobody waits for a guest.
    pub(crate) fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }

    /// Hands a job over; gives it back where there is no room for it.
    pub(crate) fn push(&self, job: Job) -> Option<Job> {
        let mut state = lock(&self.state);
        let bytes = state.bytes.saturating_add(job.body_bytes());
        let is_full = state.jobs.len() >= self.max || state.bytes > 0 && bytes > self.max_bytes;
        if is_full || state.closed {
            return Some(job);
        }
        state.bytes = bytes;
        state.jobs.push_back(job);
        self.pushed(state);
        None
    }

    /// Gives a job back that no guest was free for after all.
    pub(crate) fn push_front(&self, job: Job) {
        let mut state = lock(&self.state);
        state.bytes += job.body_bytes();
        // It may have been taken out of the middle.
        let older = |other: &Job| other.queued() <= job.queued();
        let at = state.jobs.iter().take_while(|other| older(other)).count();
        state.jobs.insert(at, job);
        self.pushed(state);
    }

    fn pushed(&self, mut state: MutexGuard<'_, Waiting>) {
        self.length.store(state.jobs.len(), Ordering::SeqCst);
        let wake = state.idle > 0;
        let watch = !state.watched;
        state.watched = true;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        if watch {
            self.waiting.notify_one();
        }
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Hands a call over that was begun elsewhere.
    pub(crate) fn go_on(&self, call: Call) {
        lock(&self.state).begun.push_back(call);
        self.filled.notify_one();
    }

    /// Told whenever a call ended that was no guest thread's: somebody may
    /// have waited for its instance.
    pub(crate) fn instance_freed(&self) {
        if !self.is_empty() {
            // Behind the lock, or a thread that has just found no room and is
            // about to fall asleep would miss it.
            drop(lock(&self.state));
            self.filled.notify_one();
        }
    }

    /// Told whenever another pool takes the place of the one before: all of it
    /// may be free.
    pub(crate) fn pool_changed(&self) {
        // Behind the lock, as above.
        drop(lock(&self.state));
        self.filled.notify_all();
    }

    /// What to do next: first what holds an instance already, then the oldest
    /// job that can begin, as soon as there is room for a call. `None` once closed
    /// and empty.
    pub(crate) fn next(&self, policy: impl Fn() -> Arc<Policy>) -> Option<Work> {
        let mut state = lock(&self.state);
        loop {
            if let Some(call) = state.begun.pop_front() {
                return Some(Work::GoOn(call));
            }
            if !state.jobs.is_empty()
                && let Some(ready) = state.ready(policy().pool())
                && let Some(job) = state.jobs.remove(ready)
            {
                state.bytes -= job.body_bytes();
                self.length.store(state.jobs.len(), Ordering::SeqCst);
                return Some(Work::Call(Box::new(job)));
            }
            if state.closed && state.jobs.is_empty() {
                // One that waited for a job it could not begin has to end too.
                self.filled.notify_all();
                return None;
            }
            state.idle += 1;
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Whether a job has waited too long for a guest.
    pub(crate) fn is_expired(&self, job: &Job) -> bool {
        job.queued().elapsed() > self.wait
    }

    /// Jobs that have waited too long, as soon as there are any.
    pub(crate) async fn expired(&self) -> Vec<Job> {
        loop {
            let next = {
                let mut state = lock(&self.state);
                let next = state.jobs.front().map(|job| after(job.queued(), self.wait));
                state.watched = next.is_some();
                next
            };
            match next {
                None => self.waiting.notified().await,
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at.into()).await,
                Some(_) => {
                    let mut state = lock(&self.state);
                    let fresh = state
                        .jobs
                        .iter()
                        .position(|job| !self.is_expired(job))
                        .unwrap_or(state.jobs.len());
                    if fresh > 0 {
                        let expired: Vec<Job> = state.jobs.drain(..fresh).collect();
                        state.bytes -= expired.iter().map(Job::body_bytes).sum::<usize>();
                        self.length.store(state.jobs.len(), Ordering::SeqCst);
                        return expired;
                    }
                }
            }
        }
    }

    /// Ends the guest threads once the queue is empty.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }
}
