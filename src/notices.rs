//! A limit on log lines that a peer or a guest can cause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines a second; what is above it is counted and told later.
const PER_SECOND: u64 = 20;

pub(crate) struct Notices {
    start: Instant,
    /// The second it is, and the lines so far in it.
    second: AtomicU64,
    lines: AtomicU64,
}

/// What was left out last is told, too.
impl Drop for Notices {
    fn drop(&mut self) {
        self.tell();
    }
}

impl Notices {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
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
        self.lines.fetch_add(1, Ordering::Relaxed) < PER_SECOND
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
        let notices = Notices::new();
        let admitted = (0..1_000).filter(|_| notices.admit()).count();
        assert!((20..=40).contains(&admitted), "{admitted}");
    }
}
