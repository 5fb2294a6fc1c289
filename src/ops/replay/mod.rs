//! `replay`: captured traffic through a module, or through two.
//!
//! In: one loaded module, or two of one ABI, and captures. Out: a
//! [`ReplayReport`].
//!
//! ```text
//!   captures ──> read: one thread cuts records, selects, and deals them out
//!                  │    by epoch and lane
//!                  ▼
//!                work: each job decodes, plays, compares and counts
//!                  │
//!                  ▼
//!                tally: counts added up; rows put in order
//! ```
//!
//! Invariant: no byte of the result depends on the number of jobs, nor on how
//! the capture was sharded. A capture is cut into epochs by position, and each
//! epoch into [`LANES`] lanes by correlation id. The transactions of one lane
//! of one epoch run in order on an instance of their own, so what a guest
//! remembers, and what its allocator costs, is the same whoever runs it. A
//! shard is a set of whole lanes.

mod earlier;
mod groups;
pub(crate) mod histogram;
mod merge;
mod minimize;
mod ordered;
mod proof;
mod read;
pub(crate) mod report;
mod save;
mod tally;
mod view;
mod work;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use regex::Regex;

use crate::capture::{Capture, DecodeSettings, Format, Redactor};
use crate::error::Error;
use crate::limits::Wasi;
use crate::ops::module_info::{self, ModuleInfo};
use crate::policy::Policy;
use crate::time::{self, since_1970};

pub(crate) use crate::compare::Pointer;
pub(crate) use merge::merge;
pub(crate) use report::Shard;
pub use report::{FailOn, ReplayReport};
pub(crate) use save::{Expect, SaveFixtures, Which};

use ordered::Ordered;
use read::{Dealer, Dealt, Reading};
use work::{Shared, Worker};

/// Lanes of an epoch, and so the most shards there can be. It has many
/// divisors, so that shards are even; each lane has an instance made for each
/// epoch, so more of them cost more.
pub const LANES: u32 = 24;
/// Batches that wait for each job: what keeps it busy while the next epoch is
/// read. Those that do not fit wait in the reader, which then reads no further.
const BATCHES_AHEAD: usize = 4;
/// Transactions of one epoch.
const EPOCH_TRANSACTIONS: usize = 16384;
/// Bytes of one epoch's records; those of all that is dealt out are bounded too.
const EPOCH_BYTES: usize = 48 << 20;

/// Which transactions are replayed. What is not given selects all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// At most so many, the first ones that can be used.
    pub limit: Option<u64>,
    /// A share of them, from 0 to 1, with the seed that picks them.
    pub sample: Option<(f64, u64)>,
    /// Method or path with query, as `GET /a?b`, matches.
    pub matching: Vec<Match>,
    /// One part of several.
    pub shard: Option<Shard>,
}

/// One condition on a transaction.
#[derive(Debug, Clone)]
pub enum Match {
    /// The path with query matches.
    Path(Regex),
    /// The method is this one.
    Method(String),
    /// The captured response's status lies between these.
    Status(u16, u16),
}

/// What happens to secrets in all that is written. In reports and fixtures
/// they are numbers within their transaction, and need no key. A saved capture
/// keeps equal ones equal over its transactions: there they are keyed hashes.
#[derive(Clone)]
pub enum Redaction {
    /// They stay as they are.
    Keep,
    /// The key is random, and of this replay alone.
    RandomKey,
    /// The key was given, so that several captures agree; an empty one is
    /// refused.
    Key(Vec<u8>),
}

/// All but the key.
impl std::fmt::Debug for Redaction {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Keep => "Keep",
            Self::RandomKey => "RandomKey",
            Self::Key(_) => "Key(..)",
        })
    }
}

impl Redaction {
    /// For reports and fixtures, and for a saved capture.
    fn redactors(&self) -> Result<(Redactor, Redactor), Error> {
        let saving = match self {
            Self::Keep => return Ok((Redactor::keep_secrets(), Redactor::keep_secrets())),
            Self::RandomKey => Redactor::with_random_key()?,
            Self::Key(key) => Redactor::with_given_key(key)?,
        };
        Ok((Redactor::with_numbers(), saving))
    }
}

/// How a replay goes.
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    /// Threads that run guests.
    pub jobs: usize,
    /// The captures' format, where it is not to be told by content.
    pub format: Option<Format>,
    /// Bytes of one record.
    pub max_record: usize,
    /// How records are decoded.
    pub decode: DecodeSettings,
    /// Which transactions are replayed.
    pub selection: Selection,
    /// Keep the original timing, this many times as fast; `None`: as fast as
    /// it goes.
    pub speed: Option<f64>,
    /// Whether clock readings are part of the report.
    pub timings: bool,
    /// Examples of each group of changes.
    pub examples: usize,
    /// Parts of answers that are not compared.
    pub ignore: Vec<Pointer>,
    /// Look for the smallest transaction that shows each example's change.
    pub minimize: bool,
    /// What makes the replay fail.
    pub fail_on: FailOn,
    /// A record that cannot be used is a failure.
    pub strict: bool,
    /// It may pass although decisions were not compared, since redacting had changed
    /// them.
    pub allow_redacted_changes: bool,
    /// With more records than these that cannot be used there is no result.
    pub max_errors: Option<u64>,
    /// Fixtures to write.
    pub fixtures: Option<SaveFixtures>,
    /// What happens to secrets in all that is written.
    pub redaction: Redaction,
}

/// What is written while the replay goes on, in the capture's order.
#[derive(Default)]
pub struct Sinks {
    /// A JSON object a line for each transaction.
    pub rows: Option<Box<dyn Write + Send>>,
    /// The calls, as a capture of our own format.
    pub records: Option<Box<dyn Write + Send>>,
}

/// What others may look at, and do, while the replay goes on.
#[derive(Debug, Default)]
pub struct Watch {
    /// Set to end early, with what was done so far.
    pub stop: AtomicBool,
    /// Set once it is settled whether the end came early; after that there is
    /// nothing to end any more.
    pub ended: AtomicBool,
    /// Bytes of the files that were read.
    pub read_bytes: Arc<AtomicU64>,
    /// Transactions that were replayed.
    pub transactions: AtomicU64,
    /// Records that could not be used.
    pub unusable: AtomicU64,
    /// Tells a person at once why the replay waits or does not.
    pub teller: Option<fn(&str)>,
}

impl Watch {
    fn tell(&self, text: &str) {
        if let Some(teller) = self.teller {
            teller(text);
        }
    }

    /// Settles whether the end came early. Whoever sets `stop` and then does not
    /// see `ended` is seen here.
    fn end(&self) -> bool {
        self.ended.store(true, Ordering::SeqCst);
        self.stop.load(Ordering::SeqCst)
    }
}

/// The modules: the one that is asked about, and the one it is compared with.
pub struct Subjects<'a> {
    /// The module.
    pub module: &'a Policy,
    /// The version before, of the same ABI.
    pub baseline: Option<&'a Policy>,
}

impl Subjects<'_> {
    /// Whether it matters at which time they are asked: one can read a clock, and it
    /// is not the host's.
    #[must_use]
    pub fn read_fixed_clocks(&self) -> bool {
        let reads = |policy: &Policy| {
            let pool = policy.pool();
            policy.settings().pool.limits.wasi == Wasi::Fixed
                && pool.module().facts.imports_wasi("clock_time_get")
        };
        reads(self.module) || self.baseline.is_some_and(reads)
    }
}

/// Replays captures.
///
/// # Errors
/// When the modules are of two ABIs, a capture cannot be opened, a fixture or a
/// row cannot be written, the key is empty, or the system has no room for the
/// threads.
pub fn replay(
    subjects: &Subjects<'_>,
    captures: &[Capture],
    settings: &ReplaySettings,
    (sinks, watch): (Sinks, &Watch),
) -> Result<ReplayReport, Error> {
    if let Some(baseline) = subjects.baseline
        && baseline.abi() != subjects.module.abi()
    {
        return Err(Error::Usage(format!(
            "--baseline: expected a module of the {} ABI, like the module that it is compared with, found the {} ABI",
            subjects.module.abi().name(),
            baseline.abi().name()
        )));
    }
    let mut reading = Reading::new(captures, settings, watch);
    let redactors = settings.redaction.redactors()?;
    let redactor = redactors.0.clone();
    let ordered = Ordered::new(sinks, &watch.stop);
    let shared = Shared::new(subjects, settings, redactors, (&ordered, watch));
    let paced = settings.speed.is_some();
    let jobs = if paced { 1 } else { settings.jobs.max(1) };
    let bytes = Dealt::new(jobs);
    let (deal, dealt) = std::sync::mpsc::sync_channel(jobs * BATCHES_AHEAD);
    // Of the jobs alone: where all of them panic nobody waits for them to take
    // more.
    let dealt = Arc::new(Mutex::new(dealt));
    let (tallies, read) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for job in 0..jobs {
            let (shared, dealt) = (&shared, Arc::clone(&dealt));
            let thread = std::thread::Builder::new()
                .name(format!("replay-{job}"))
                .spawn_scoped(scope, move || Worker::new(shared).run(&dealt))
                .map_err(|source| Error::Host {
                    what: "cannot start a thread",
                    source: source.into(),
                })?;
            threads.push(thread);
        }
        drop(dealt);
        let read = Dealer::new((settings, watch), subjects.module, &ordered, (deal, &bytes))
            .deal(&mut reading);
        let mut tallies = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(tally) => tallies.push(tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Error>((tallies, read))
    })?;
    let mut tally = read?;
    for part in tallies {
        tally.absorb(part, settings.examples);
    }
    // Only now is nothing left that could still be left out.
    let interrupted = watch.end();
    let transactions = tally.report.records.transactions;
    ordered.finish(interrupted.then_some(transactions))?;
    for unusable in &mut tally.report.unusable {
        unusable.why = redactor.text(&unusable.why);
    }
    shared.failure()?;
    too_many(&tally.report, captures, settings)?;
    let module = |policy: &Policy| ModuleInfo::of(policy.pool().module());
    Ok(ReplayReport {
        module: module(subjects.module),
        baseline: subjects.baseline.map(module),
        settings: described(subjects, settings),
        shard: settings.selection.shard,
        interrupted,
        fail_on: settings.fail_on,
        strict: settings.strict,
        allow_redacted_changes: settings.allow_redacted_changes,
        captures: reading.captures,
        capture_digests: reading.digests,
        ..tally.into_report()
    })
}

/// Refuses a result of which too little is left. Which records were found
/// beyond the limit depends on who was faster; the first of all does not, since
/// what was dealt out is always done.
fn too_many(
    report: &ReplayReport,
    captures: &[Capture],
    settings: &ReplaySettings,
) -> Result<(), Error> {
    let Some(most) = settings
        .max_errors
        .filter(|most| report.records.unusable > *most)
    else {
        return Ok(());
    };
    let position = |file: &str| {
        captures
            .iter()
            .position(|capture| capture.path.to_string_lossy() == file)
    };
    let first = report
        .unusable
        .iter()
        .min_by_key(|unusable| (position(&unusable.place.file), unusable.place.record));
    let Some(first) = first else { return Ok(()) };
    Err(Error::Malformed {
        path: PathBuf::from(&*first.place.file),
        message: format!(
            "more than {most} records cannot be used (--max-errors); the first is record {} at byte {}: {}",
            first.place.record, first.place.offset, first.why
        ),
    })
}

/// How the module was called, and what was read, selected and compared, as
/// flags. The number of jobs is not among them: nothing depends on it.
fn described(subjects: &Subjects<'_>, settings: &ReplaySettings) -> BTreeMap<String, String> {
    let called = module_info::described(subjects.module).into_iter();
    let mut list: Vec<(&str, String)> = called.collect();
    list.extend([
        ("examples", settings.examples.to_string()),
        ("client_ip", settings.decode.client_ip.clone()),
        ("max_record_bytes", settings.max_record.to_string()),
    ]);
    let selection = &settings.selection;
    let sample = selection.sample.as_ref();
    let optional = [
        (
            "input_format",
            settings.format.map(|format| format.name().to_owned()),
        ),
        (
            "max_errors",
            settings.max_errors.map(|most| most.to_string()),
        ),
        ("limit", selection.limit.map(|limit| limit.to_string())),
        ("sample_rate", sample.map(|(rate, _)| rate.to_string())),
        ("seed", sample.map(|(_, seed)| seed.to_string())),
        ("speed", settings.speed.map(|factor| format!("{factor}x"))),
        (
            "at",
            settings
                .decode
                .at_ns
                .and_then(since_1970)
                .and_then(time::text),
        ),
    ];
    list.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let fields = settings.decode.fields.given.iter();
    let lists: [(&str, Vec<String>); 3] = [
        (
            "field",
            fields.map(|(what, key)| format!("{what}={key}")).collect(),
        ),
        (
            "match",
            selection.matching.iter().map(Match::text).collect(),
        ),
        (
            "ignore",
            settings.ignore.iter().map(Pointer::to_string).collect(),
        ),
    ];
    let given = lists.into_iter().filter(|(_, values)| !values.is_empty());
    list.extend(given.map(|(name, values)| (name, values.join(" "))));
    let expects_old = |save: &SaveFixtures| save.expect == Expect::Old;
    let switches = [
        ("minimize", settings.minimize),
        ("no_timings", !settings.timings),
        (
            "keep_secrets",
            matches!(settings.redaction, Redaction::Keep),
        ),
        (
            "expect_old",
            settings.fixtures.as_ref().is_some_and(expects_old),
        ),
    ];
    let given = switches.into_iter().filter(|(_, is_given)| *is_given);
    list.extend(given.map(|(name, _)| (name, "yes".to_owned())));
    let owned = list.into_iter();
    owned
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

impl Match {
    fn text(&self) -> String {
        match self {
            Self::Path(form) => format!("path={form}"),
            Self::Method(method) => format!("method={method}"),
            Self::Status(from, to) if from == to => format!("status={from}"),
            Self::Status(from, to) => format!("status={from}-{to}"),
        }
    }
}

#[cfg(test)]
mod redaction_tests {
    use super::*;

    #[test]
    fn an_empty_key_is_refused_and_no_key_is_shown() {
        assert!(matches!(
            Redaction::Key(Vec::new()).redactors(),
            Err(Error::Usage(_))
        ));
        let key = Redaction::Key(vec![171; 4]);
        assert!(key.redactors().is_ok());
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
