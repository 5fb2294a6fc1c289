//! A limit on log lines that a peer or a guest can cause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines a second; what is above it is counted and told later.
const PER_SECOND: u64 = 20;

pub(crate) struct LogLimiter {
    start: Instant,
    /// The second it is, and the lines so far in it.
    second: AtomicU64,
    lines: AtomicU64,
    cut: AtomicU64,
}

/// What was left out last is told, too.
impl Drop for LogLimiter {
    fn drop(&mut self) {
        self.tell();
    }
}

impl LogLimiter {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        }
    }

    /// Whether one more line may be written.
    ///
    /// Threads may disagree about the second for a moment; a line more or less
    /// does not matter.
    pub(crate) fn admit(&self) -> bool {
        let now = self.start.elapsed().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.tell();
        }
        let is_admitted = self.lines.fetch_add(1, Ordering::Relaxed) < PER_SECOND;
        if !is_admitted {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        is_admitted
    }

    /// Lines left out so far.
    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        let before = self.lines.swap(0, Ordering::Relaxed);
        if before > PER_SECOND {
            tracing::warn!(lines = before - PER_SECOND, "log lines left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut() {
        let log_limiter = LogLimiter::new();
        let admitted = (0..1_000).filter(|_| log_limiter.admit()).count();
        assert!((20..=40).contains(&admitted), "{admitted}");
        assert_eq!(log_limiter.cut() + admitted as u64, 1_000);
    }
}
