//! The thread that writes records, and what it does when that fails.
//!
//! In: records, in the order of their answers. Out: whole lines in a file, and
//! counts. Invariant: a record counts as written once its line is in the file,
//! and as dropped where it never gets there. Of an exchange of which a record is
//! dropped nothing more is written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::check::{Checks, EVENT, Step};
use super::secrets::KnownSecrets;
use super::{Answered, Counts, MAX_WAITING, Prepared, Record, RecordSettings, Stopped, is_first};
use crate::capture::{Heard, Mark, RecordLine, Redactor, SecretsFound, Written, keep_decision};
use crate::guest::convention::json_buffer::event::write_input;
use crate::server::lock;

/// A line waits no longer for its way to the file.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// Nor for more than so many bytes.
const FLUSH_BYTES: usize = 64 << 10;
/// With more records than these on their way no module is asked about any.
const MANY_WAITING: u64 = MAX_WAITING as u64 / 4;
/// Between two attempts where the file cannot be written.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Between two log lines that say so.
const SAY_AFTER: Duration = Duration::from_secs(60);

/// Where lines go.
pub(super) trait Storage: Send + 'static {
    /// Looks which file the lines go to now, and says its size.
    fn ready(&mut self) -> io::Result<u64>;

    /// Appends whole lines to it.
    fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten>;
}

/// Lines that could not all be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// Bytes of the first lines, which are in the file.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

/// Lines on the way to the file.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The lines in it.
    lines: Vec<Line>,
}

/// One line on the way to the file.
struct Line {
    /// Where it ends in the batch.
    end: usize,
    exchange: u64,
    mark: Option<Mark>,
}

enum State {
    Writing,
    /// Until the file is smaller than this, or another one.
    Full(u64),
    Failed(Failed),
}

#[derive(Clone, Copy)]
struct Failed {
    /// There was no file to write to.
    is_missing: bool,
    retry_at: Instant,
    /// Records dropped before.
    dropped: u64,
    is_said: bool,
}

pub(super) struct Writer<S> {
    storage: S,
    path: PathBuf,
    max_bytes: u64,
    redactor: Redactor,
    known: KnownSecrets,
    checks: Checks,
    counts: Arc<Counts>,
    batch: Batch,
    flush_at: Instant,
    state: State,
    said_at: Option<Instant>,
}

impl<S: Storage> Writer<S> {
    pub(super) fn new(
        storage: S,
        redactor: Redactor,
        settings: &RecordSettings,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            storage,
            path: settings.path.clone(),
            max_bytes: settings.max_bytes,
            redactor,
            known: KnownSecrets::default(),
            checks: Checks::default(),
            counts,
            batch: Batch::default(),
            flush_at: Instant::now() + FLUSH_AFTER,
            state: State::Writing,
            said_at: None,
        }
    }

    pub(super) fn run(mut self, records: &Receiver<Record>) {
        while !self.counts.give_up.load(Ordering::Relaxed) {
            let wait = self.flush_at.saturating_duration_since(Instant::now());
            match records.recv_timeout(wait) {
                Ok(record) => self.take(record),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.batch.bytes.len() >= FLUSH_BYTES || self.flush_at <= Instant::now() {
                self.flush();
            }
        }
        self.flush();
    }

    fn take(&mut self, record: Record) {
        let Record { asked, answered } = record;
        let exchange = asked.source.exchange;
        self.counts.waiting.fetch_sub(asked.size, Ordering::Relaxed);
        let Some(answered) = answered else {
            self.learn(&asked);
            self.counts.pending.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let line = if self.is_stopped() {
            None
        } else {
            self.line(asked, &answered)
        };
        match line {
            Some((line, mark)) if line.len() as u64 <= self.max_bytes => {
                self.batch.bytes.extend_from_slice(&line);
                let end = self.batch.bytes.len();
                self.batch.lines.push(Line {
                    end,
                    exchange,
                    mark,
                });
            }
            _ => self.drop_record(exchange),
        }
    }

    /// Keeps what is secret in an event that is not written.
    fn learn(&mut self, asked: &Prepared) {
        let (exchange, now) = (asked.source.exchange, Instant::now());
        let is_first = is_first(&asked.event);
        if let Some(mut found) = self.known.take(exchange, is_first, now) {
            self.redactor.input(&input_of(asked), &mut found);
            self.known.keep(exchange, found, now);
        }
        self.begin(exchange, is_first);
    }

    /// Where secrets are kept nothing is asked, and nothing is kept for it.
    fn begin(&mut self, exchange: u64, is_first: bool) {
        if is_first && !self.redactor.keeps_secrets() {
            self.checks.begin(exchange);
        }
    }

    /// Until when the module may be asked. Where many records wait, they come first.
    fn ask_until(&self) -> Instant {
        let now = Instant::now();
        if self.counts.pending.load(Ordering::Relaxed) > MANY_WAITING {
            return now;
        }
        lock(&self.counts.ask_until).unwrap_or(now + EVENT)
    }

    /// None where secrets of its exchange are not known any more.
    fn line(&mut self, asked: Prepared, answered: &Answered) -> Option<(Vec<u8>, Option<Mark>)> {
        let (exchange, now) = (asked.source.exchange, Instant::now());
        let is_first = is_first(&asked.event);
        let mut found = self.known.take(exchange, is_first, now)?;
        self.begin(exchange, is_first);
        let input = input_of(&asked);
        let Prepared {
            source,
            event,
            cost,
            at,
            ..
        } = asked;
        let at_ns = at.duration_since(UNIX_EPOCH).ok();
        let at_ns = at_ns.and_then(|at| i64::try_from(at.as_nanos()).ok());
        let step = Step {
            at_ns,
            answer: serde_json::to_vec(&answered.answer).unwrap_or_default(),
            module: Arc::clone(&source.module),
            written: String::new(),
            input,
            event,
        };
        let write = |redactor: &Redactor, found: &mut SecretsFound| {
            let line = RecordLine {
                id: step.event.correlation_id(),
                phase: step.event.kind().name(),
                at_ns,
                module: &source.module,
                input: &step.input,
                output: &answered.answer,
                fault: answered.fault.as_ref(),
                fuel: cost.and_then(|cost| cost.fuel),
                wall_ns: cost.map(|cost| cost.time_ns()),
            };
            Written::new(&line, (redactor, found))
        };
        let until = self.ask_until();
        let about = (&step, &source.policy);
        let questions = self.checks.questions(exchange, about, until);
        // Without any in the exchange, no event before was redacted either.
        let had_secrets = found.met_any();
        let mut has_asked = false;
        let (line, mark) = questions.asked(|ask| {
            keep_decision((&self.redactor, &mut found), write, |tried| {
                if tried.written.input == step.input && !had_secrets {
                    return Heard::Same;
                }
                has_asked = true;
                ask(tried)
            })
        });
        drop(questions);
        if has_asked {
            self.checks.spent(now);
        }
        let written = line.input.clone();
        self.checks
            .keep(exchange, Step { written, ..step }, &source.policy);
        self.known.keep(exchange, found, now);
        Some((line.end(mark), mark))
    }

    /// Writes the lines that wait. Looks for the file even where none does: one
    /// that was moved away is made anew, and a full one may be empty by now.
    fn flush(&mut self) {
        let now = Instant::now();
        self.flush_at = now + FLUSH_AFTER;
        if matches!(self.state, State::Failed(failed) if now < failed.retry_at) {
            return;
        }
        let size = match self.storage.ready() {
            Ok(size) => size,
            Err(error) => {
                self.fail(&error, true);
                self.settle(0);
                return;
            }
        };
        match self.state {
            State::Full(full) if size < full => self.go_to(State::Writing),
            State::Failed(failed) if failed.is_missing => self.resume(),
            _ => {}
        }
        let room = self.max_bytes.saturating_sub(size);
        let fits = self.batch.fits(room);
        if fits > 0 {
            if let Err(unwritten) = self.storage.append(&self.batch.bytes[..fits]) {
                self.fail(&unwritten.error, false);
                self.settle(unwritten.written);
                return;
            }
            self.resume();
        }
        if fits < self.batch.bytes.len() {
            self.fill(size + fits as u64);
        }
        self.settle(fits);
    }

    /// Counts what became of the batch, of which so many bytes are in the file.
    fn settle(&mut self, written: usize) {
        self.batch.bytes.clear();
        for line in std::mem::take(&mut self.batch.lines) {
            let Line {
                end,
                exchange,
                mark,
            } = line;
            if end <= written {
                self.counts.written.fetch_add(1, Ordering::Relaxed);
                match mark {
                    Some(Mark::Changed) => self.counts.changed.fetch_add(1, Ordering::Relaxed),
                    Some(Mark::Unchecked) => self.counts.unchecked.fetch_add(1, Ordering::Relaxed),
                    None => 0,
                };
                self.counts.pending.fetch_sub(1, Ordering::Relaxed);
            } else {
                self.drop_record(exchange);
            }
        }
    }

    fn drop_record(&mut self, exchange: u64) {
        self.known.give_up(exchange);
        self.checks.forget(exchange);
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        self.counts.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether no record is taken at the moment.
    fn is_stopped(&self) -> bool {
        match self.state {
            State::Writing => false,
            State::Full(_) => true,
            State::Failed(failed) => Instant::now() < failed.retry_at,
        }
    }

    fn fill(&mut self, size: u64) {
        self.go_to(State::Full(size));
        tracing::warn!(
            path = %self.path.display(),
            max_bytes = self.max_bytes,
            "the recording is full; further calls are dropped until the file is rotated"
        );
    }

    fn fail(&mut self, error: &io::Error, is_missing: bool) {
        let now = Instant::now();
        let earlier = match self.state {
            State::Failed(failed) => Some(failed),
            State::Writing | State::Full(_) => None,
        };
        // A file that fails and works in turns does not fill the log.
        let is_due = self
            .said_at
            .is_none_or(|at| now.duration_since(at) >= SAY_AFTER);
        self.go_to(State::Failed(Failed {
            is_missing,
            retry_at: now + RETRY_AFTER,
            dropped: earlier.map_or_else(|| self.dropped(), |failed| failed.dropped),
            is_said: earlier.map_or(is_due, |failed| failed.is_said),
        }));
        if earlier.is_none() && is_due {
            self.said_at = Some(now);
            tracing::error!(
                path = %self.path.display(),
                %error,
                "the recording cannot be written; calls are dropped until it can"
            );
        }
    }

    /// The file can be written again, if it could not.
    fn resume(&mut self) {
        let State::Failed(failed) = self.state else {
            return;
        };
        self.go_to(State::Writing);
        if failed.is_said {
            tracing::info!(
                path = %self.path.display(),
                dropped = self.dropped() - failed.dropped,
                "the recording can be written again"
            );
        }
    }

    fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    fn go_to(&mut self, state: State) {
        *lock(&self.counts.stopped) = match state {
            State::Writing => None,
            State::Full(_) => Some(Stopped::Full),
            State::Failed(_) => Some(Stopped::Error),
        };
        self.state = state;
    }
}

/// What a guest is asked.
fn input_of(asked: &Prepared) -> String {
    let mut input = Vec::new();
    write_input(&asked.event, asked.source.names, &mut input);
    String::from_utf8_lossy(&input).into_owned()
}

impl Batch {
    /// Bytes of the first lines that have room.
    fn fits(&self, room: u64) -> usize {
        let ends = self.lines.iter().map(|line| line.end);
        ends.take_while(|end| *end as u64 <= room)
            .last()
            .unwrap_or(0)
    }
}
