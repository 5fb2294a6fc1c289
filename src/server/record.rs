//! What the server answered, written down as a capture that `replay` reads.
//!
//! In: events with their answers, from the threads that call guests. Out: our
//! own JSON Lines, secrets redacted, in a file that only its owner may read.
//! Invariant: an answer never waits for a record. What finds no room between
//! here and the disk is dropped and counted, and with it the later events of
//! its exchange: what is secret in them might be known from it alone.

mod check;
mod file;
mod secrets;
mod writer;

use std::convert::Infallible;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use file::RecordingFile;
use secrets::GivenUp;
use writer::{Storage, Writer};

use crate::capture::Redactor;
use crate::cost::Cost;
use crate::error::Error;
use crate::event::Event;
use crate::fault::Fault;
use crate::policy::Policy;
use crate::question::HeaderNames;
use crate::response::AgentResponse;
use crate::server::lock;

/// Records between the guests and the disk.
const MAX_WAITING: usize = 4096;
/// Bytes of bodies and headers in them.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// A file never grows larger unless it is told so.
pub(crate) const DEFAULT_MAX_RECORDING_BYTES: u64 = 1 << 30;
/// For the record that is being written once nobody waits any more.
const LAST_RECORD: Duration = Duration::from_millis(500);
/// For asking about what waits when it is closed; the rest is written unchecked.
const LAST_QUESTIONS: Duration = Duration::from_millis(200);
/// For all that waits, where nobody says how long.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What is recorded, and where.
#[derive(Clone)]
pub struct RecordSettings {
    /// The file; what it holds already is kept.
    pub path: PathBuf,
    /// A share of the transactions, from 0 to 1; whole ones, and no client
    /// chooses which.
    pub rate: f64,
    /// Bytes of the file; what comes after is dropped until it is rotated.
    pub max_bytes: u64,
    /// Leave secrets in.
    pub keep_secrets: bool,
    /// Key for redacted values; one of this process's own where none is given.
    /// An empty one is refused.
    pub key: Option<Vec<u8>>,
}

/// All but the key.
impl std::fmt::Debug for RecordSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RecordSettings")
            .field("path", &self.path)
            .field("rate", &self.rate)
            .field("max_bytes", &self.max_bytes)
            .field("keep_secrets", &self.keep_secrets)
            .field("has_key", &self.key.is_some())
            .finish_non_exhaustive()
    }
}

/// How many records there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordCounts {
    /// In the file.
    pub written: u64,
    /// For want of room, or because the file could not be written.
    pub dropped: u64,
    /// Of those in the file: the module was not asked about the input as it is
    /// redacted.
    pub unchecked: u64,
    /// And those whose decision is another since their input is redacted.
    pub changed: u64,
    /// Why nothing is written now.
    pub stopped: Option<Stopped>,
}

/// Why nothing is written at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The file cannot be written or opened; this is tried again.
    Error,
    /// The file has its largest size, until it is rotated.
    Full,
}

impl Stopped {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Error, Self::Full];

    /// As metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Full => "full",
        }
    }
}

/// Takes records and never makes anybody wait.
pub struct Recorder {
    /// None once it is closed.
    records: Mutex<Option<SyncSender<Record>>>,
    writer: Mutex<Option<WriterThread>>,
    rate: f64,
    /// What picks the sample.
    sampler: RandomState,
    /// Exchanges of which an event was dropped.
    torn: Mutex<GivenUp>,
    any_torn: AtomicBool,
    counts: Arc<Counts>,
}

struct WriterThread {
    handle: JoinHandle<()>,
    /// Breaks off when it ends.
    ended: Receiver<Infallible>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    unchecked: AtomicU64,
    changed: AtomicU64,
    /// Bytes on the way to the file.
    waiting: AtomicUsize,
    /// Records on the way to the file.
    pending: AtomicU64,
    /// Once it is closed: until when the module may be asked.
    ask_until: Mutex<Option<Instant>>,
    /// Set where nobody waits for them any more.
    give_up: AtomicBool,
    stopped: Mutex<Option<Stopped>>,
}

/// The guest that gave an answer, and the exchange it is of.
pub(crate) struct Source {
    /// A number that no client chooses: the exchange's count, of which a later
    /// exchange has a higher one, or a keyed hash.
    pub(crate) exchange: u64,
    pub(crate) module: Arc<str>,
    pub(crate) names: HeaderNames,
    /// What it is asked by about the redacted event. One that was replaced is gone
    /// soon, since nobody here holds it.
    pub(crate) policy: Weak<Policy>,
}

/// One event whose answer is still to be sent.
pub(crate) struct Prepared {
    source: Source,
    event: Event,
    cost: Option<Cost>,
    at: SystemTime,
    size: usize,
}

/// One event and its answer.
struct Record {
    asked: Prepared,
    /// None where no guest was asked, and only secrets are looked for.
    answered: Option<Answered>,
}

struct Answered {
    answer: Box<AgentResponse>,
    fault: Option<Fault>,
}

impl Recorder {
    /// Opens the file and starts the thread that writes it.
    ///
    /// # Errors
    /// [`Error::Write`] where the file cannot be opened, [`Error::Usage`] where
    /// the key is empty.
    pub fn start(settings: &RecordSettings) -> Result<Self, Error> {
        // Before there is a file.
        let redactor = redactor(settings)?;
        let file = RecordingFile::open(&settings.path).map_err(|source| Error::Write {
            path: settings.path.clone(),
            source,
        })?;
        Self::on(file, redactor, settings)
    }

    fn on(
        storage: impl Storage,
        redactor: Redactor,
        settings: &RecordSettings,
    ) -> Result<Self, Error> {
        let (records, received) = sync_channel(MAX_WAITING);
        let counts = Arc::new(Counts::default());
        let writer = Writer::new(storage, redactor, settings, Arc::clone(&counts));
        let (alive, ended) = sync_channel(0);
        let handle = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || {
                writer.run(&received);
                drop(alive);
            })
            .map_err(|source| Error::Host {
                what: "cannot start a thread",
                source: source.into(),
            })?;
        Ok(Self {
            records: Mutex::new(Some(records)),
            writer: Mutex::new(Some(WriterThread { handle, ended })),
            rate: settings.rate,
            sampler: RandomState::new(),
            torn: Mutex::default(),
            any_torn: AtomicBool::new(false),
            counts,
        })
    }

    /// Copies an event, if its exchange is of the sample and no event of it was
    /// dropped.
    pub(crate) fn prepare(
        &self,
        event: &Event,
        cost: Option<Cost>,
        source: Source,
    ) -> Option<Prepared> {
        if !self.is_sampled(source.exchange) {
            return None;
        }
        if self.is_torn(source.exchange, is_first(event)) {
            self.leave_out();
            return None;
        }
        // Looked at again when it is offered; here it saves the copy.
        let size = size_of(event);
        if self.counts.waiting.load(Ordering::Relaxed) + size > MAX_WAITING_BYTES {
            self.give_up(source.exchange);
            return None;
        }
        Some(Prepared {
            source,
            event: event.clone(),
            cost,
            at: called_at(cost),
            size,
        })
    }

    /// Takes what was sent, if there is room.
    pub(crate) fn offer(&self, asked: Prepared, answer: Box<AgentResponse>, fault: Option<Fault>) {
        let exchange = asked.source.exchange;
        let answered = Some(Answered { answer, fault });
        if !self.send(Record { asked, answered }) {
            self.give_up(exchange);
        }
    }

    /// Looks for secrets in an event that no guest is asked about: they may come
    /// back in later events of its exchange.
    pub(crate) fn learn(&self, event: &Event, exchange: u64) {
        if !self.is_sampled(exchange) || self.is_torn(exchange, is_first(event)) {
            return;
        }
        let asked = Prepared {
            source: Source {
                exchange,
                module: Arc::default(),
                names: HeaderNames::Lower,
                policy: Weak::new(),
            },
            event: event.clone(),
            cost: None,
            at: UNIX_EPOCH,
            size: size_of(event),
        };
        let answered = None;
        if !self.send(Record { asked, answered }) {
            self.tear(exchange);
        }
    }

    /// Says whether there was room.
    fn send(&self, record: Record) -> bool {
        let size = record.asked.size;
        let waiting = self.counts.waiting.fetch_add(size, Ordering::Relaxed);
        let sender = lock(&self.records).clone();
        self.counts.pending.fetch_add(1, Ordering::Relaxed);
        let taken = waiting + size <= MAX_WAITING_BYTES
            && sender.is_some_and(|sender| sender.try_send(record).is_ok());
        if !taken {
            self.counts.pending.fetch_sub(1, Ordering::Relaxed);
            self.counts.waiting.fetch_sub(size, Ordering::Relaxed);
        }
        taken
    }

    /// Counts an event that is not recorded, because its answer was not sent or
    /// there is no room, and drops the later events of its exchange.
    pub(crate) fn give_up(&self, exchange: u64) {
        if self.is_sampled(exchange) {
            self.leave_out();
            self.tear(exchange);
        }
    }

    fn tear(&self, exchange: u64) {
        lock(&self.torn).add(exchange);
        self.any_torn.store(true, Ordering::Relaxed);
    }

    /// Counts an event that cannot be recorded.
    pub(crate) fn leave_out(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an earlier event of the exchange was dropped.
    fn is_torn(&self, exchange: u64, is_first: bool) -> bool {
        if !self.any_torn.load(Ordering::Relaxed) {
            return false;
        }
        let mut torn = lock(&self.torn);
        if is_first {
            torn.forget(exchange);
        }
        !is_first && torn.has(exchange)
    }

    /// The same for all events of a transaction.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of the hash are as even as 64"
    )]
    fn is_sampled(&self, exchange: u64) -> bool {
        self.rate >= 1.0
            || ((self.sampler.hash_one(exchange) >> 11) as f64) < self.rate * (1_u64 << 53) as f64
    }

    /// How many records there were so far.
    #[must_use]
    pub fn counts(&self) -> RecordCounts {
        RecordCounts {
            written: self.counts.written.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            unchecked: self.counts.unchecked.load(Ordering::Relaxed),
            changed: self.counts.changed.load(Ordering::Relaxed),
            stopped: *lock(&self.counts.stopped),
        }
    }

    /// Writes what was taken, for so long and hardly longer, and says how much
    /// that was.
    pub fn close(&self, within: Duration) {
        *lock(&self.counts.ask_until) = Some(Instant::now() + LAST_QUESTIONS.min(within / 2));
        drop(lock(&self.records).take());
        let writer = lock(&self.writer).take();
        let Some(writer) = writer else { return };
        let has_ended = |within| {
            let ended = writer.ended.recv_timeout(within);
            matches!(ended, Err(RecvTimeoutError::Disconnected))
        };
        let mut ended = has_ended(within);
        let mut not_written = 0;
        if !ended {
            self.counts.give_up.store(true, Ordering::Relaxed);
            ended = has_ended(LAST_RECORD);
            not_written = self.counts.pending.load(Ordering::Relaxed);
            self.counts
                .dropped
                .fetch_add(not_written, Ordering::Relaxed);
        }
        if ended && writer.handle.join().is_err() {
            tracing::error!("a defect of this program; please report it");
        }
        let RecordCounts {
            written,
            dropped,
            unchecked,
            changed,
            ..
        } = self.counts();
        if not_written == 0 {
            tracing::info!(
                written,
                dropped,
                unchecked,
                changed,
                "the recording is complete"
            );
        } else {
            tracing::error!(
                written,
                dropped,
                not_written,
                "the recording is not complete: its last records were not written in time"
            );
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Recorder")
            .field("rate", &self.rate)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close(CLOSE_WITHIN);
    }
}

/// Whether an event begins an exchange.
const fn is_first(event: &Event) -> bool {
    matches!(event, Event::RequestHeaders(_))
}

/// When the guest was called whose call cost this and is just over: what its clock
/// said.
fn called_at(cost: Option<Cost>) -> SystemTime {
    let (now, took) = (SystemTime::now(), cost.unwrap_or_default().time);
    now.checked_sub(took).unwrap_or(now)
}

fn redactor(settings: &RecordSettings) -> Result<Redactor, Error> {
    match (&settings.key, settings.keep_secrets) {
        (_, true) => Ok(Redactor::keep_secrets()),
        (Some(key), false) => Redactor::with_given_key(key),
        (None, false) => Redactor::with_random_key(),
    }
}

fn size_of(event: &Event) -> usize {
    let fields: usize = event
        .headers()
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let data = match event {
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => chunk.data.len(),
        Event::RequestHeaders(head) => head.uri.len(),
        Event::ResponseHeaders(_) => 0,
    };
    512 + fields + data
}

#[cfg(test)]
mod tests;
