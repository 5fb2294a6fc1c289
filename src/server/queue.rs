//! Events waiting for a guest: bounded in number and in time.
//!
//! In: jobs from any connection. Out: the oldest one, to a guest thread; or,
//! once it has waited too long, to whoever answers overload. No job is ever
//! lost: one that is dropped answers for itself (see [`super::job`]).

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::job::Job;
use crate::fault::{Fault, FaultCode};

pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Told when events begin to wait, for [`Queue::expired`].
    waiting: Notify,
    max: usize,
    wait: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Guest threads with nothing to do.
    idle: usize,
    /// Somebody looks after jobs that wait too long.
    watched: bool,
    closed: bool,
}

/// What an event's answer says when no guest came free for it in time.
pub(crate) fn waited_too_long() -> Fault {
    Fault::new(FaultCode::Overload, "waited too long for a guest")
}

impl Queue {
    pub(crate) fn new(max: usize, wait: Duration) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            waiting: Notify::new(),
            max,
            wait,
        }
    }

    /// Hands a job over; gives it back where there is no room for it.
    pub(crate) fn push(&self, job: Job) -> Option<Job> {
        let mut state = self.lock();
        if state.jobs.len() >= self.max || state.closed {
            return Some(job);
        }
        state.jobs.push_back(job);
        let wake = state.idle > 0;
        // An idle thread may be woken for an earlier job than this one.
        let watch = state.jobs.len() > state.idle && !state.watched;
        state.watched |= watch;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        if watch {
            self.waiting.notify_one();
        }
        None
    }

    /// How many jobs wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// The oldest job, waiting for one; `None` once closed and empty.
    pub(crate) fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
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

    /// Jobs that have waited too long, as soon as there are any, while all
    /// guest threads are busy.
    pub(crate) async fn expired(&self) -> Vec<Job> {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.jobs.front().map(|job| job.queued() + self.wait);
                state.watched = next.is_some();
                next
            };
            match next {
                None => self.waiting.notified().await,
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at.into()).await,
                Some(_) => {
                    let mut state = self.lock();
                    let fresh = state
                        .jobs
                        .iter()
                        .position(|job| !self.is_expired(job))
                        .unwrap_or(state.jobs.len());
                    if fresh > 0 {
                        return state.jobs.drain(..fresh).collect();
                    }
                }
            }
        }
    }

    /// Ends the guest threads once the queue is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Nothing in the state can be half-changed by a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
