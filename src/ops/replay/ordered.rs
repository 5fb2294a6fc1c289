//! Writes lines in the order of the capture, whichever worker made them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Sinks;
use crate::error::Error;

/// What one transaction adds to the sinks.
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) row: Vec<u8>,
    pub(super) record: Vec<u8>,
}

/// The sinks, behind what waits for its turn.
pub(super) struct Ordered<'a> {
    queue: Mutex<Queue>,
    stop: &'a AtomicBool,
    /// Whether rows, and records, are wanted at all.
    pub(super) wants: (bool, bool),
}

/// What was announced, and what of it is written.
struct Queue {
    sinks: Sinks,
    next: u64,
    waiting: BTreeMap<u64, Pending>,
    failed: Option<io::Error>,
}

/// Batches whose lines are written together.
struct Pending {
    left: usize,
    rows: Vec<Row>,
}

impl<'a> Ordered<'a> {
    pub(super) fn new(sinks: Sinks, stop: &'a AtomicBool) -> Self {
        Self {
            wants: (sinks.rows.is_some(), sinks.records.is_some()),
            queue: Mutex::new(Queue {
                sinks,
                next: 0,
                waiting: BTreeMap::new(),
                failed: None,
            }),
            stop,
        }
    }

    const fn is_idle(&self) -> bool {
        !self.wants.0 && !self.wants.1
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a group of so many batches.
    pub(super) fn expect(&self, group: u64, batches: usize) {
        if !self.is_idle() {
            self.lock().waiting.insert(
                group,
                Pending {
                    left: batches,
                    rows: Vec::new(),
                },
            );
        }
    }

    /// Takes one batch's lines, and writes all whose turn it is.
    pub(super) fn done(&self, group: u64, rows: Vec<Row>) {
        if self.is_idle() {
            return;
        }
        let mut queue = self.lock();
        if let Some(group) = queue.waiting.get_mut(&group) {
            group.left -= 1;
            group.rows.extend(rows);
        }
        loop {
            let next = queue.next;
            if queue.waiting.get(&next).is_none_or(|group| group.left > 0) {
                return;
            }
            let rows = queue.waiting.remove(&next).map(|group| group.rows);
            queue.next += 1;
            self.write(&mut queue, rows.unwrap_or_default());
        }
    }

    fn write(&self, queue: &mut Queue, mut rows: Vec<Row>) {
        rows.sort_by_key(|row| row.seq);
        for row in rows {
            if queue.failed.is_some() {
                return;
            }
            let mut written = Ok(());
            if let Some(out) = &mut queue.sinks.rows {
                written = out.write_all(&row.row);
            }
            if let Some(out) = &mut queue.sinks.records {
                written = written.and_then(|()| out.write_all(&row.record));
            }
            if let Err(error) = written {
                // Nothing more can be written, so nothing more is done.
                self.stop.store(true, Ordering::Relaxed);
                queue.failed = Some(error);
            }
        }
    }

    /// Writes what an early end left, and flushes. Where the replay was
    /// interrupted after so many transactions, the last row says so: without it
    /// rows look as if they were all.
    pub(super) fn finish(&self, interrupted_after: Option<u64>) -> Result<(), Error> {
        let mut queue = self.lock();
        let left = std::mem::take(&mut queue.waiting);
        let mut rows: Vec<Row> = left.into_values().flat_map(|group| group.rows).collect();
        rows.extend(interrupted_after.map(|transactions| Row {
            seq: u64::MAX,
            row: format!("{{\"interrupted\":true,\"transactions\":{transactions}}}\n").into(),
            record: Vec::new(),
        }));
        self.write(&mut queue, rows);
        let Queue { sinks, failed, .. } = &mut *queue;
        let flush = |sink: &mut Option<Box<dyn Write + Send>>| {
            sink.as_mut().map_or(Ok(()), |sink| sink.flush())
        };
        let flushed = flush(&mut sinks.rows).and_then(|()| flush(&mut sinks.records));
        match failed.take().map_or(flushed, Err) {
            // A reader that has seen enough (`| head`) is no error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Write {
                path: PathBuf::from("the replay's lines"),
                source: error,
            }),
            _ => Ok(()),
        }
    }
}
