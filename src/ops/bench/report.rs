//! What a benchmark found, before anybody formats it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::comparison::Comparison;
use super::machine::Machine;
use super::steady::ChangedAnswer;
use crate::capture::{Remark, Unusable};
use crate::client::Pace;
use crate::fault::{Fault, FaultCode, printable};
use crate::latency::Latency;
use crate::ops::module_info::ModuleInfo;
use crate::ops::replay::report::CaptureInfo;
use crate::ops::validate::Growth;
use crate::report::{Case, CaseStatus, Report, Verdict};

/// How a module or an agent is called and measured, as flags.
pub(crate) type Flags = BTreeMap<&'static str, String>;

/// All that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct BenchReport {
    /// The running agent that was measured, by its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The module; none where a running agent was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleInfo>,
    /// A flag that has no effect on the module, in words.
    #[serde(skip)]
    pub unused_flag: Option<String>,
    /// Where it was measured.
    pub machine: Machine,
    /// How it was called and measured, as flags.
    pub settings: Flags,
    /// What it takes before the first warm call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
    /// Each event, in the order they were given.
    pub cases: Vec<CaseReport>,
    /// What was taken of captures, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// Events that were not answered alike each time: their figures are of several
    /// answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed_answers: Vec<ChangedAnswer>,
    /// Events that were not measured because the module has no handler.
    pub unhandled: usize,
    /// Linear memory over many calls on one instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryReport>,
    /// Throughput and latency under load.
    pub loads: Vec<LoadPoint>,
    /// What the loads say of the number of instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// The same calls under other isolation and limits.
    pub safety: Vec<SafetyRow>,
    /// Where the guest spends its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The gate's judgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What ended it: a guest that faulted was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<BenchFailure>,
    /// What a reader should know of the figures.
    pub notes: Vec<String>,
}

/// What the loads say of the number of instances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Advice {
    /// The number of instances to have; none where no measured one will do.
    pub pool_size: Option<usize>,
    /// The flags of `serve` that give it.
    pub flags: Option<String>,
    /// The whole of it as sentences.
    pub text: String,
}

/// What was taken of captures.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Sampled {
    /// The files.
    pub captures: Vec<CaptureInfo>,
    /// Transactions they hold.
    pub transactions: u64,
    /// Those that were taken.
    pub taken: u64,
    /// Their events.
    pub events: u64,
    /// What picked them.
    pub seed: u64,
    /// Records that could not be used; of what was not taken only as far as
    /// one could tell without decoding it.
    pub unusable: u64,
    /// The first of those.
    pub examples: Vec<Unusable>,
    /// Records that are no traffic.
    pub skipped: u64,
    /// What a reader should know, with how many of what was taken it is true of.
    pub remarks: BTreeMap<Remark, u64>,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Profile {
    /// The module's file.
    pub module: String,
    /// Looks at the guest.
    pub samples: u64,
    /// Wall clock from one look to the next while a guest ran, in microseconds.
    pub interval_us: u64,
    /// Whether functions have names; else they have numbers.
    pub has_names: bool,
    /// Functions, the one with the most time of its own first.
    pub functions: Vec<FunctionTime>,
    /// Every stack that was seen, the outermost function first, with how often.
    pub stacks: Vec<(Vec<String>, u64)>,
    /// When each look was, and which of the stacks it saw.
    #[serde(skip)]
    pub timeline: Vec<(Duration, usize)>,
}

/// One function's share.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FunctionTime {
    /// Its name, demangled.
    pub name: String,
    /// Looks that found it running itself.
    pub own: u64,
    /// Looks that found it or what it called.
    pub total: u64,
}

/// A guest or an agent failed where it was to be measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BenchFailure {
    /// What was being measured.
    pub during: String,
    /// The event it faulted at, where it was one.
    pub case: Option<String>,
    /// What happened.
    pub message: String,
    /// The share of the machine that others had, where that may be why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<f64>,
    /// What the guest did, where it was one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Least, median and most of a few times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    /// How many there were.
    pub count: u64,
    /// The least, in nanoseconds.
    pub min_ns: u64,
    /// The median, in nanoseconds.
    pub median_ns: u64,
    /// The most, in nanoseconds.
    pub max_ns: u64,
}

impl Spread {
    /// Of these times; all 0 of none.
    #[must_use]
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let nanos = |time: Option<&Duration>| {
            let nanos = time.map_or(0, Duration::as_nanos);
            u64::try_from(nanos).unwrap_or(u64::MAX)
        };
        Self {
            count: times.len() as u64,
            min_ns: nanos(times.first()),
            median_ns: nanos(times.get(times.len() / 2)),
            max_ns: nanos(times.last()),
        }
    }
}

/// What a module takes before it answers at its usual speed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phases {
    /// Read, inspected and checked.
    pub read: Spread,
    /// Compiled to native code.
    pub compile: Spread,
    /// An instance, its memory mapped anew.
    pub instantiate_on_demand: Spread,
    /// An instance in a slot that was mapped before; none where the system
    /// has no room for slots.
    pub instantiate_in_slot: Option<Spread>,
    /// The first call on an instance, which touches its memory first.
    pub first_call: Spread,
    /// The same call once the instance is warm.
    pub warm_call: Spread,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaseReport {
    /// The fixture's name.
    pub name: String,
    /// The event's name.
    pub event: &'static str,
    /// `sha256:` and the hash of what the guest gets.
    pub input_hash: String,
    /// Bytes of the input.
    pub input_bytes: u64,
    /// Bytes of the answer.
    pub answer_bytes: u64,
    /// What the module decided.
    pub decision: &'static str,
    /// Instructions; none where a running agent was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel: Option<CaseFuel>,
    /// From the event to the agent response, one call at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Latency>,
    /// The part of it inside the guest call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Latency>,
}

/// Instructions of one event, the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct CaseFuel {
    /// The first call on a fresh instance.
    pub first: u64,
    /// The median of further calls on the same instance.
    pub warm: u64,
    /// The least of them.
    pub warm_min: u64,
    /// The most of them.
    pub warm_max: u64,
}

/// Linear memory of one instance.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct MemoryReport {
    /// Of a fresh instance, in bytes.
    pub initial_bytes: u64,
    /// The most it had, in bytes.
    pub peak_bytes: u64,
    /// What calls keep of it.
    pub growth: Growth,
}

/// One combination of instances and callers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadPoint {
    /// Instances of the module; 0 where a running agent has them.
    pub pool_size: usize,
    /// Callers at once.
    pub concurrency: usize,
    /// Events for each second by schedule; none in a closed loop, where each
    /// caller asks again as soon as it is answered.
    pub rate: Option<f64>,
    /// Events answered for each second, the mean of its turns.
    pub throughput: f64,
    /// The same of each turn it had.
    pub turns: Vec<f64>,
    /// From when an event was due to its answer.
    pub response: Latency,
    /// From when it was sent; the same as `response` in a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Latency>,
    /// Waiting for an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Latency>,
    /// Inside the guest call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Latency>,
    /// What the measured process used, where it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessUse>,
}

/// What a process spent while it was under load.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ProcessUse {
    /// Processor time for each event, in microseconds.
    pub cpu_us_per_event: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// How much of it was added, for each event, in bytes.
    pub resident_growth_per_event: f64,
}

/// The same calls in another way.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SafetyRow {
    /// Isolation, limits and where memory comes from.
    pub mode: String,
    /// Whether this is how the module was measured elsewhere.
    pub is_chosen: bool,
    /// From event to response.
    pub response: Latency,
    /// The median by that of the first row.
    pub ratio: f64,
}

impl MemoryReport {
    /// Whole bytes that a call keeps, or has kept until now.
    pub(super) fn growth_bytes(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "memory grows by no more than there is"
        )]
        let bytes = self.growth.bytes_so_far().round() as u64;
        bytes
    }
}

impl LoadPoint {
    /// What so many callers did in so many seconds, as seen from outside a module.
    pub(super) fn new(concurrency: usize, pace: Pace, seconds: f64, response: Latency) -> Self {
        let throughput = response.count() as f64 / seconds;
        Self {
            pool_size: 0,
            concurrency,
            rate: match pace {
                Pace::Closed => None,
                Pace::Rate(rate) => Some(rate),
            },
            throughput,
            turns: vec![throughput],
            response,
            service: None,
            queue: None,
            guest: None,
            process: None,
        }
    }

    /// Adds a further turn.
    pub(super) fn add(&mut self, turn: &Self) {
        self.turns.extend_from_slice(&turn.turns);
        self.throughput = self.turns.iter().sum::<f64>() / self.turns.len().max(1) as f64;
        self.response.add(&turn.response);
        for (mine, other) in [
            (&mut self.service, &turn.service),
            (&mut self.queue, &turn.queue),
            (&mut self.guest, &turn.guest),
        ] {
            if let (Some(mine), Some(other)) = (mine, other) {
                mine.add(other);
            }
        }
        self.process = turn.process.or(self.process);
    }

    /// The most it did in one turn.
    #[must_use]
    pub(crate) fn best_turn(&self) -> f64 {
        self.turns.iter().copied().fold(self.throughput, f64::max)
    }
}

impl BenchReport {
    /// Nothing measured yet, on this machine, by these flags. What a debug build
    /// does to the figures is a note.
    pub(super) fn new(settings: Flags, sampled: Option<Sampled>, debug_note: &str) -> Self {
        let machine = Machine::here();
        let mut notes = sampled.as_ref().map(Sampled::notes).unwrap_or_default();
        if machine.build == "debug" {
            notes.push(debug_note.to_owned());
        }
        Self {
            machine,
            settings,
            sampled,
            notes,
            ..Self::default()
        }
    }
}

impl Sampled {
    /// What a reader of the figures has to know, in sentences.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![format!(
            "{} of {} in {} taken, {} (seed {})",
            self.taken,
            counted(self.transactions, "captured transaction"),
            match self.captures.as_slice() {
                [one] => one.file.clone(),
                many => format!("{} captures", many.len()),
            },
            counted(self.events, "event"),
            self.seed
        )];
        if self.unusable > 0 {
            let mut note = format!("{} cannot be used", counted(self.unusable, "record"));
            if let Some(Unusable { place, why }) = self.examples.first() {
                note.push_str(&format!(
                    ", the first {} record {} at byte {}: {why}",
                    place.file, place.record, place.offset
                ));
            }
            notes.push(note);
        }
        let losses: BTreeMap<&str, &str> = self
            .captures
            .iter()
            .filter_map(|capture| Some((capture.format?.name(), capture.loses.as_deref()?)))
            .collect();
        notes.extend(
            losses
                .iter()
                .map(|(name, loses)| format!("{name}: {loses}")),
        );
        let remarks = self.remarks.iter();
        notes.extend(
            remarks.map(|(remark, count)| {
                format!("{} of {}: {}", count, self.taken, remark.explain())
            }),
        );
        notes.iter().map(|note| printable(note, 300)).collect()
    }
}

/// A number of things, by their word for one.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl BenchReport {
    /// Whether answers changed that nothing but earlier calls can have changed. A
    /// running agent has real clocks, and may have loaded another module.
    pub(crate) fn fails_by_changes(&self) -> bool {
        self.target.is_none() && !self.changed_answers.is_empty()
    }
}

impl Report for BenchReport {
    const SCHEMA: &'static str = "wasm-agent/bench/1";

    fn verdict(&self) -> Verdict {
        if let Some(failure) = &self.failure {
            if failure.others.is_some() {
                Verdict::Inconclusive
            } else {
                Verdict::Failed
            }
        } else if self.cases.is_empty() {
            Verdict::NothingChecked
        } else if self.fails_by_changes() {
            Verdict::Failed
        } else {
            self.comparison
                .as_ref()
                .map_or(Verdict::Passed, Comparison::verdict)
        }
    }

    fn cases(&self) -> Vec<Case> {
        let suite = self
            .module
            .as_ref()
            .map(|module| module.path.as_str())
            .or(self.target.as_deref())
            .unwrap_or_default();
        let case = |name: &str, status| Case {
            suite: suite.to_owned(),
            name: name.to_owned(),
            status,
            message: String::new(),
            detail: String::new(),
            file: suite.to_owned(),
            line: None,
            time: Duration::ZERO,
        };
        let failed = self.failure.iter().map(|failure| Case {
            message: failure.to_string(),
            detail: failure.fault.as_ref().map(Fault::stack).unwrap_or_default(),
            ..case(
                &failure.during,
                if failure.others.is_some() {
                    CaseStatus::Warned
                } else {
                    CaseStatus::Errored
                },
            )
        });
        let judged = self.comparison.iter().flat_map(|comparison| {
            comparison.findings.iter().map(|finding| Case {
                message: finding.to_string(),
                ..case(&finding.name(), finding.verdict.status())
            })
        });
        let changed = self.changed_answers.iter().map(|changed| Case {
            message: format!("the answer changed while it was measured: {changed}"),
            ..case(
                &changed.case,
                if self.fails_by_changes() {
                    CaseStatus::Failed
                } else {
                    CaseStatus::Warned
                },
            )
        });
        let is_changed = |case: &CaseReport| {
            let mut changed = self.changed_answers.iter();
            changed.any(|changed| changed.case == case.name)
        };
        let measured = self
            .cases
            .iter()
            .filter(|case| self.comparison.is_none() && !is_changed(case))
            .map(|measured| Case {
                time: measured
                    .response
                    .as_ref()
                    .map_or(Duration::ZERO, |response| response.at(0.5)),
                ..case(&measured.name, CaseStatus::Passed)
            });
        let all = failed.chain(changed).chain(judged);
        all.chain(measured).collect()
    }
}

impl BenchFailure {
    /// Whether a call took longer than it may, which a machine can do to it.
    pub(super) fn is_deadline(&self) -> bool {
        self.fault
            .as_ref()
            .is_some_and(|fault| fault.code == FaultCode::Deadline)
    }
}

impl std::fmt::Display for BenchFailure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = if self.fault.is_some() {
            "the module faulted"
        } else {
            "the agent failed"
        };
        write!(out, "{who} while {}", self.during)?;
        if let Some(case) = &self.case {
            write!(out, ", at {case}")?;
        }
        write!(out, ": {}", self.message)?;
        if let Some(others) = self.others {
            write!(
                out,
                "; other processes used {:.0} % of the CPU, which may be the reason: measure on an idle machine, or raise --timeout",
                others * 100.0
            )?;
        }
        Ok(())
    }
}
