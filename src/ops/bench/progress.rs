//! The progress of a benchmark, for whoever shows it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What is measured now, and how much time of the plan is over.
#[derive(Debug, Clone)]
pub(crate) struct Progress<'a> {
    /// What is measured now.
    pub what: &'a str,
    /// Time of the plan that is over.
    pub done: Duration,
    /// Time that the plan takes.
    pub total: Duration,
}

/// Somebody who shows it; called a few times a second.
pub(crate) type Watcher<'a> = dyn Fn(&Progress<'_>) + Sync + 'a;

/// Keeps the plan's time.
pub(super) struct Meter<'a> {
    watcher: &'a Watcher<'a>,
    state: Mutex<MeterState>,
}

struct MeterState {
    what: String,
    /// When the current part began, and how long it is to take.
    began: Instant,
    expected: Duration,
    /// Expected times of the parts before.
    done: Duration,
    total: Duration,
}

impl<'a> Meter<'a> {
    pub(super) fn new(watcher: &'a Watcher<'a>) -> Self {
        Self {
            watcher,
            state: Mutex::new(MeterState {
                what: String::new(),
                began: Instant::now(),
                expected: Duration::ZERO,
                done: Duration::ZERO,
                total: Duration::ZERO,
            }),
        }
    }

    /// Adds time to the plan.
    pub(super) fn plan(&self, time: Duration) {
        self.state().total += time;
    }

    /// The next part begins, which was planned with this time.
    pub(super) fn begin(&self, what: impl Into<String>, expected: Duration) {
        let mut state = self.state();
        let before = state.expected;
        state.done += before;
        state.what = what.into();
        state.began = Instant::now();
        state.expected = expected;
        drop(state);
        self.tick();
    }

    /// Tells the watcher.
    pub(super) fn tick(&self) {
        let state = self.state();
        let done = state.done + state.began.elapsed().min(state.expected);
        (self.watcher)(&Progress {
            what: &state.what,
            done,
            total: state.total.max(done),
        });
    }

    /// Sleeps, and tells the watcher a few times a second.
    pub(super) fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(200)));
            self.tick();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, MeterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
