//! What the server answered, written down as a capture that `replay` reads.
//!
//! In: events with their answers, from the threads that call guests. Out: our
//! own JSON Lines, secrets redacted, in a file that only its owner may read.
//! Invariant: an answer never waits for a record. What finds no room between
//! here and the disk is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::abi::agent::{HeaderNames, write_input};
use crate::agent::Handled;
use crate::capture::{Found, RecordLine, Redactor, key_of, stable_hash, write_record};
use crate::error::Error;
use crate::event::Event;
use crate::fault::Fault;
use crate::response::AgentResponse;

/// Records between the guests and the disk.
const MAX_WAITING: usize = 4096;
/// Bytes of bodies and headers in them.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// A file never grows larger unless it is told so.
pub const DEFAULT_MAX_RECORDING_BYTES: u64 = 1 << 30;
/// What is written reaches the file this soon.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// What is recorded, and where.
#[derive(Debug, Clone)]
pub struct RecordSettings {
    /// The file; what it holds already is kept.
    pub path: PathBuf,
    /// A share of the transactions, from 0 to 1; whole ones, by correlation id.
    pub rate: f64,
    /// Bytes of the file; what comes after is dropped.
    pub max_bytes: u64,
    /// Leave secrets in.
    pub keep_secrets: bool,
    /// Key for redacted values; one of this process's own where none is given.
    pub key: Option<Vec<u8>>,
}

/// How many records there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordCounts {
    /// In the file.
    pub written: u64,
    /// For want of room, or because the file could not be written.
    pub dropped: u64,
}

/// Takes records and never makes anybody wait.
pub struct Recorder {
    /// None once it is closed.
    records: Mutex<Option<SyncSender<Record>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    rate: f64,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    /// Bytes on the way to the file.
    waiting: AtomicUsize,
}

struct Record {
    event: Event,
    response: Box<AgentResponse>,
    fault: Option<Fault>,
    fuel: Option<u64>,
    time: Option<Duration>,
    at: SystemTime,
    module: Arc<str>,
    names: HeaderNames,
    size: usize,
}

impl Recorder {
    /// Opens the file and starts the thread that writes it.
    ///
    /// # Errors
    /// [`Error::Write`] where the file cannot be opened.
    pub fn start(settings: &RecordSettings) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: settings.path.clone(),
            source,
        };
        let file = open(&settings.path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let (records, received) = sync_channel(MAX_WAITING);
        let counts = Arc::new(Counts::default());
        let writer = Writer {
            file: BufWriter::new(file),
            path: settings.path.clone(),
            size,
            max_bytes: settings.max_bytes,
            redactor: redactor(settings)?,
            counts: Arc::clone(&counts),
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(|source| Error::Host {
                what: "cannot start a thread",
                source: source.into(),
            })?;
        Ok(Self {
            records: Mutex::new(Some(records)),
            writer: Mutex::new(Some(thread)),
            rate: settings.rate,
            counts,
        })
    }

    /// Takes a copy of an answer, if it is of the sample and there is room.
    pub fn offer(&self, event: &Event, handled: &Handled, (module, names): (&str, HeaderNames)) {
        if !self.is_sampled(event.correlation_id()) {
            return;
        }
        let size = size_of(event);
        let waiting = self.counts.waiting.fetch_add(size, Ordering::Relaxed);
        let record = || Record {
            event: event.clone(),
            response: handled.response.clone(),
            fault: handled.fault.clone(),
            fuel: handled.cost.and_then(|cost| cost.fuel),
            time: handled.cost.map(|cost| cost.time),
            at: SystemTime::now(),
            module: module.into(),
            names,
            size,
        };
        let sender = self
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let taken = waiting + size <= MAX_WAITING_BYTES
            && sender.is_some_and(|sender| sender.try_send(record()).is_ok());
        if !taken {
            self.counts.waiting.fetch_sub(size, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The same for all events of a transaction.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of the hash are as even as 64"
    )]
    fn is_sampled(&self, id: &str) -> bool {
        self.rate >= 1.0
            || ((stable_hash(id.as_bytes()) >> 11) as f64) < self.rate * (1_u64 << 53) as f64
    }

    /// How many records there were so far.
    #[must_use]
    pub fn counts(&self) -> RecordCounts {
        RecordCounts {
            written: self.counts.written.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    /// Writes what was taken, and says how much that was.
    pub fn close(&self) {
        drop(
            self.records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(writer) = writer else { return };
        if writer.join().is_err() {
            tracing::error!("a defect of this program; please report it");
        }
        let counts = self.counts();
        tracing::info!(
            written = counts.written,
            dropped = counts.dropped,
            "the recording is complete"
        );
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
        self.close();
    }
}

/// Appends to a file of the owner's alone.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if metadata.len() > 0 {
        let mut first = [0];
        file.read_exact(&mut first)?;
        if &first != b"{" {
            return Err(std::io::Error::other(
                "it is no recording, and what is in it would be lost; name another file",
            ));
        }
        // A line that a crash left unfinished ends here.
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut first)?;
        if &first != b"\n" {
            file.write_all(b"\n")?;
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // One that was there before may be open to others.
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(file)
}

fn redactor(settings: &RecordSettings) -> Result<Redactor, Error> {
    Ok(match (&settings.key, settings.keep_secrets) {
        (_, true) => Redactor::keep_secrets(),
        (Some(key), false) => Redactor::with_key(key_of(&[b"given", key])),
        (None, false) => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|source| Error::Host {
                what: "cannot make a key for redaction",
                source: source.into(),
            })?;
            Redactor::with_key(key)
        }
    })
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

struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    size: u64,
    max_bytes: u64,
    redactor: Redactor,
    counts: Arc<Counts>,
    /// Said once; the records that follow are only counted.
    failed: bool,
}

impl Writer {
    fn run(mut self, records: &Receiver<Record>) {
        loop {
            match records.recv_timeout(FLUSH_AFTER) {
                Ok(record) => self.write(&record),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
        }
    }

    fn write(&mut self, record: &Record) {
        self.counts
            .waiting
            .fetch_sub(record.size, Ordering::Relaxed);
        let line = self.line(record);
        let fits = self.size + line.len() as u64 <= self.max_bytes;
        if !fits && !self.failed {
            self.failed = true;
            tracing::warn!(
                path = %self.path.display(),
                max_bytes = self.max_bytes,
                "the recording is full; what follows is dropped"
            );
        }
        if !fits || self.failed {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match self.file.write_all(&line) {
            Ok(()) => {
                self.size += line.len() as u64;
                self.counts.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                self.fail(&error);
            }
        }
    }

    fn line(&self, record: &Record) -> Vec<u8> {
        let mut input = Vec::new();
        write_input(&record.event, record.names, &mut input);
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).ok();
        let at_ns = record.at.duration_since(UNIX_EPOCH).ok();
        let mut line = Vec::new();
        write_record(
            &RecordLine {
                id: record.event.correlation_id(),
                phase: record.event.kind().name(),
                at_ns: at_ns.and_then(|at| i64::try_from(at.as_nanos()).ok()),
                module: &record.module,
                input: &String::from_utf8_lossy(&input),
                output: &record.response,
                fault: record.fault.as_ref(),
                fuel: record.fuel,
                wall_ns: record.time.and_then(nanoseconds),
            },
            (&self.redactor, &mut Found::default()),
            &mut line,
        );
        line
    }

    fn flush(&mut self) {
        if let Err(error) = self.file.flush() {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        if !self.failed {
            self.failed = true;
            tracing::error!(
                path = %self.path.display(),
                %error,
                "the recording cannot be written; what follows is dropped"
            );
        }
    }
}
