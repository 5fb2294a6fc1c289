//! Does `dealloc` give memory back: many calls on one instance, and what its
//! linear memory makes of them. Their answers are held against a fresh instance's,
//! for [`super::state`].

pub(super) mod bodies;

use std::borrow::Cow;

use serde::Serialize;

use crate::check::{Check, CheckKind, CheckStatus};
use crate::guest::Instance;
use crate::limits::{Isolation, RECYCLE_MEMORY_PERCENT};
use crate::policy::pool::Room;

use super::Row;
use super::calls::{CALL_OVERHEAD, Prober, Sample, Seen, Trial};
use super::samples;

/// Calls that every module gets: a leak of 16 bytes a call fills two pages of
/// 64 KiB in so many.
const LEAST_CALLS: u64 = 10_000;
/// Calls that a module gets whose memory has not settled by then. The collectors
/// of the guests that were measured have settled after a fifth of them.
const MOST_CALLS: u64 = 100_000;
/// Calls that a module gets whose memory rests, where so much of it may be free
/// that a leak would not yet be seen.
const MOST_QUIET_CALLS: usize = 350_000;
/// In place of the least calls, for a guest that computes long; and for the others,
/// in instructions of the guest alone. Nothing that depends on the machine.
const BUDGET: u64 = 600_000_000;
/// The same where a gate is to be held.
const GATED_BUDGET: u64 = 4_000_000_000;
/// Only its wall clock counts, for a guest that keeps the host busy.
const FAR_BUDGET: u64 = 10_000_000_000;
/// The same where a gate is to be held.
const GATED_FAR_BUDGET: u64 = 30_000_000_000;
/// Bytes for each call that free memory may hide under any gate, since no module
/// would pass a gate of 0 otherwise: less than an input or an answer that is never
/// freed. Without a gate calls go on until it is no more.
const MOST_HIDDEN: u64 = 128;
/// Without a gate a module passes if a leak that was not seen is at most this, in bytes
/// for each call; beyond that nothing was checked.
const MOST_UNSEEN: u64 = 1024;
/// With a gate they go on until it is no more than this, if there is time.
const HIDDEN: u64 = 50;
/// How many times longer than it ever took to fill as much memory nothing must
/// be added, before memory has settled.
const PATIENCE: f64 = 2.5;
/// Memory grows by pages, so what is in use is known to a page.
const PAGE: f64 = 65_536.0;

/// What is known of memory after some calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trend {
    /// It does not go on growing.
    Settled,
    /// It grew until the instance was replaced, or all calls were made.
    Growing,
    /// It still grew, and a collector may yet free it: no figure can be told.
    NotSettled,
}

/// Why no more calls were made on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Ended {
    /// Time ran out, or memory had settled.
    Early,
    /// So many were made that no collector is waited for.
    Patience,
    /// As many were made as an instance serves.
    Life,
    /// Memory had grown so near to its limit that production replaces the instance.
    Replaced,
}

/// What calls on one instance keep of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Growth {
    /// Calls made.
    pub calls: u64,
    /// Whether memory goes on growing.
    pub trend: Trend,
    /// Bytes kept for each call; 0 once memory has settled, none before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_call: Option<f64>,
    /// The least and the most that it can be, by what was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_call_between: Option<[f64; 2]>,
    /// Calls after which an instance would meet its memory limit; none where it
    /// did not come near it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_until_limit: Option<u64>,
    /// Calls after which an instance is thrown away and replaced, because its
    /// memory has grown near the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_after: Option<u64>,
    /// Bytes added by all calls.
    #[serde(skip)]
    pub grown: u64,
    /// The call that added the last of them.
    #[serde(skip)]
    pub last_grown: u64,
    /// Whether an instance serves no more calls than these.
    #[serde(skip)]
    pub is_whole_life: bool,
}

impl Growth {
    /// What becomes of an instance that grows so, for people; nothing where it
    /// is kept.
    #[must_use]
    pub(crate) fn fate(&self) -> Option<String> {
        let calls = self.replaced_after?;
        let times = if calls == 1 { "call" } else { "calls" };
        Some(format!(
            "an instance is replaced after {calls} {times}, after it has used {RECYCLE_MEMORY_PERCENT} % of the memory that was free after its start (--max-memory)"
        ))
    }

    /// What each call has kept, whether or not more is to come.
    pub(in crate::ops) fn bytes_so_far(&self) -> f64 {
        let so_far = self.grown as f64 / self.calls.max(1) as f64;
        self.bytes_per_call.unwrap_or(so_far)
    }

    /// What calls keep, for people.
    #[must_use]
    pub(crate) fn kept(&self) -> String {
        let Self { calls, grown, .. } = self;
        let [least, most] = self.bytes_per_call_between.unwrap_or_default();
        let bytes = match self.bytes_so_far() {
            bytes if bytes < 1.0 => "under 1".to_owned(),
            bytes => format!("{bytes:.0}"),
        };
        if self.is_whole_life {
            let times = if *calls == 1 { "call" } else { "calls" };
            return format!(
                "memory grew by {grown} bytes in {calls} {times}; then another instance takes its place"
            );
        }
        match (self.trend, self.calls_until_limit) {
            (Trend::Growing, Some(until)) => format!(
                "{bytes} bytes kept for each call (between {least:.0} and {most:.0}); the limit is met after {until} calls"
            ),
            (Trend::Growing, None) => format!(
                "memory grew by {grown} bytes in {calls} calls, {bytes} for each so far (between {least:.0} and {most:.0}); not settled"
            ),
            (Trend::Settled, _) => {
                let quiet = calls - self.last_grown;
                let grown = match grown {
                    0 => "did not grow".to_owned(),
                    grown => format!("grew by {grown} bytes, but not"),
                };
                // What free memory has room for is not seen.
                let most = most.ceil();
                format!(
                    "memory {grown} in the last {quiet} calls; a leak would be under {most:.0} bytes a call"
                )
            }
            (Trend::NotSettled, _) => {
                format!("not settled within {calls} calls: {grown} bytes so far")
            }
        }
    }
}

/// Watches the memory of one instance from call to call.
///
/// Memory is added when what there is, is full. So between two additions as much
/// was filled as there was more at the second of them, whether memory is added by
/// pages or doubled.
#[derive(Debug)]
pub(in crate::ops) struct Watch {
    first: u64,
    now: u64,
    calls: u64,
    /// For each addition the call, and what was full.
    fillings: Vec<Filling>,
    /// Bytes filled for each call while that was slowest.
    slowest: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Filling {
    call: u64,
    full: u64,
}

impl Filling {
    fn bytes_since(self, before: Self) -> f64 {
        (self.full - before.full) as f64
    }

    fn calls_since(self, before: Self) -> f64 {
        (self.call - before.call) as f64
    }
}

impl Watch {
    /// `memory` is what an instance has before its first call.
    pub(in crate::ops) const fn new(memory: u64) -> Self {
        Self {
            first: memory,
            now: memory,
            calls: 0,
            fillings: Vec::new(),
            slowest: f64::INFINITY,
        }
    }

    /// What it has after a further call.
    pub(in crate::ops) fn add(&mut self, memory: u64) {
        self.calls += 1;
        if memory <= self.now {
            return;
        }
        let filling = Filling {
            call: self.calls,
            full: self.now,
        };
        // At first it may have been empty, and filled as fast as that.
        let before = self.last();
        let bytes = filling.bytes_since(before);
        if bytes > 0.0 {
            self.slowest = self.slowest.min(bytes / filling.calls_since(before));
        }
        self.fillings.push(filling);
        self.now = memory;
    }

    pub(in crate::ops) const fn calls(&self) -> u64 {
        self.calls
    }

    /// What it has now; memory never shrinks.
    pub(in crate::ops) const fn bytes(&self) -> u64 {
        self.now
    }

    fn last(&self) -> Filling {
        self.fillings.last().copied().unwrap_or_default()
    }

    /// Bytes that were not full when memory was last added, and are not yet.
    fn free(&self) -> f64 {
        (self.now - self.last().full) as f64
    }

    fn quiet_calls(&self) -> f64 {
        (self.calls - self.last().call) as f64
    }

    /// The most that each call since the last addition can have kept.
    fn most_hidden(&self) -> f64 {
        self.free() / self.quiet_calls().max(1.0)
    }

    /// Whether it was added to in the first round of samples only, or memory would
    /// be full again by now at the slowest pace at which it ever filled; each of
    /// `cycle` samples having been called since.
    fn is_settled(&self, cycle: usize) -> bool {
        if self.fillings.is_empty() {
            return true;
        }
        let is_early = self.last().call <= cycle as u64;
        let is_long = self.quiet_calls() > PATIENCE * self.free() / self.slowest;
        self.quiet_calls() >= cycle as f64 && (is_early || is_long)
    }

    /// The pace between the first addition after the first calls, which warm an
    /// instance up, and the last one.
    fn bytes_per_call(&self, cycle: usize) -> [f64; 3] {
        let warm_up = (self.calls / 10).max(cycle as u64 * 2);
        let last = self.last();
        let is_earlier = |filling: &&Filling| filling.call < last.call;
        let earlier = || self.fillings.iter().filter(is_earlier);
        let warm = earlier().find(|filling| filling.call >= warm_up);
        let Some(from) = warm.or(earlier().next_back()) else {
            let grown = (self.now - self.first) as f64;
            return [0.0, grown / self.calls as f64, grown];
        };
        let calls = last.calls_since(*from);
        let bytes = last.bytes_since(*from);
        [bytes - PAGE, bytes, bytes + PAGE].map(|bytes| bytes.max(0.0) / calls)
    }

    /// What is known by now, and why there is no more to know.
    pub(in crate::ops) fn growth(&self, cycle: usize, limit: u64, ended: Ended) -> Growth {
        let growth = Growth {
            calls: self.calls,
            trend: Trend::NotSettled,
            bytes_per_call: None,
            bytes_per_call_between: None,
            calls_until_limit: None,
            replaced_after: (ended == Ended::Replaced).then_some(self.calls),
            grown: self.now - self.first,
            last_grown: self.last().call,
            is_whole_life: ended == Ended::Life,
        };
        if ended != Ended::Replaced && self.is_settled(cycle) {
            return Growth {
                trend: Trend::Settled,
                bytes_per_call: Some(0.0),
                bytes_per_call_between: Some([0.0, self.most_hidden()]),
                ..growth
            };
        }
        if ended == Ended::Early {
            return growth;
        }
        let [least, likely, most] = self.bytes_per_call(cycle);
        let room = limit.saturating_sub(self.first) as f64;
        Growth {
            trend: Trend::Growing,
            bytes_per_call: Some(likely),
            bytes_per_call_between: Some([least, most]),
            calls_until_limit: (ended == Ended::Replaced).then(|| whole(room / likely)),
            ..growth
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of bytes or calls, and too many are the most there are"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// What came of calling one instance on and on.
pub(super) struct Probed {
    pub(super) growth: Option<Growth>,
    pub(super) row: Row,
    /// The samples that were called by turns, as indices into all trials.
    pub(super) cycle: Vec<usize>,
    /// Calls that an answer came of.
    pub(super) answers: usize,
    pub(super) stray: Option<Stray>,
}

/// The first answer that was not the fresh instance's.
pub(super) struct Stray {
    /// Calls before it.
    pub(super) before: usize,
    pub(super) seen: Seen,
}

impl From<Row> for Probed {
    fn from(row: Row) -> Self {
        Self {
            growth: None,
            row,
            cycle: Vec::new(),
            answers: 0,
            stray: None,
        }
    }
}

/// Calls one instance until memory, time or patience runs out.
pub(super) fn probe(prober: &Prober<'_>, trials: &[Trial]) -> Probed {
    let id = CheckKind::Growth;
    let gate = prober.settings.max_growth_bytes;
    let expected = gate.map_or_else(
        || "no memory kept".to_owned(),
        |gate| format!("at most {gate} bytes kept for each call"),
    );
    let is_usable = |trial: &Trial| {
        trial.is_survived()
            && trial.seen.result.is_ok()
            && trial.sample.is_ordinary()
            && !samples::is_partial(&trial.sample)
    };
    let cycle: Vec<usize> = (0..trials.len())
        .filter(|at| is_usable(&trials[*at]))
        .collect();
    let usable: Vec<&Trial> = cycle.iter().map(|at| &trials[*at]).collect();
    if prober.isolation() == Isolation::Fresh {
        let why = "not tried, an instance serves one call (--isolation fresh)";
        return Row::skip(id, expected, why).into();
    }
    if prober.is_exhausted() || usable.is_empty() {
        let why = if usable.is_empty() {
            "not tried, the instance faults at every sample".to_owned()
        } else {
            prober.why_skipped()
        };
        return Row::skip(id, expected, why).into();
    }
    let made = prober.patiently(|| {
        let mut calls = Calls::new(prober)?;
        let ended = calls.make(&usable);
        Ok::<_, Box<Row>>((calls, ended))
    });
    let (calls, ended) = match made {
        Ok(made) => made,
        Err(row) => return (*row).into(),
    };
    let (growth, row) = match ended {
        Ok(ended) => {
            let limit = prober.module.limits.max_memory_bytes;
            let growth = calls.watch.growth(usable.len(), limit, ended);
            let found = match growth.fate() {
                Some(fate) => format!("{}; {fate}", growth.kept()),
                None => growth.kept(),
            };
            let check = judge(Check::pass(id, expected, found), &growth, gate);
            (Some(growth), check.into())
        }
        Err(seen) => (None, calls.fault(&seen)),
    };
    Probed {
        growth,
        row,
        cycle,
        answers: calls.answers,
        stray: calls.stray,
    }
}

/// One instance that is called on and on.
struct Calls<'a> {
    prober: &'a Prober<'a>,
    instance: Instance,
    watch: Watch,
    /// Instructions of the guest.
    fuel: u64,
    answers: usize,
    stray: Option<Stray>,
    /// Calls about one exchange, each of which has a new correlation id; none where the
    /// samples keep theirs.
    exchange: Option<u64>,
    /// The first answer about an exchange that differs from those about the first.
    late: Option<Late>,
}

/// An answer that changed after so many calls.
struct Late {
    calls: u64,
    handler: &'static str,
    first: String,
    now: String,
}

impl<'a> Calls<'a> {
    fn new(prober: &'a Prober<'a>) -> Result<Self, Box<Row>> {
        let instance = prober
            .instance()
            .map_err(|fault| Row::fault(CheckKind::Growth, "an instance", &fault))?;
        Ok(Self {
            watch: Watch::new(instance.memory_bytes()),
            prober,
            instance,
            fuel: 0,
            answers: 0,
            stray: None,
            exchange: None,
            late: None,
        })
    }

    /// Holds an answer against that of a fresh instance. A fault that ends the
    /// instance stands in this probe's own row.
    fn compare(&mut self, trial: &Trial, seen: &Seen) {
        if seen.poison.is_some() || self.exchange.is_some() {
            return;
        }
        if self.stray.is_none() && !seen.is_like(&trial.seen) {
            self.stray = Some(Stray {
                before: self.answers,
                seen: seen.clone(),
            });
        }
        self.answers += 1;
    }

    /// The sample of the next call, of the exchange that it belongs to.
    fn named<'t>(&self, trial: &'t Trial) -> Cow<'t, Sample> {
        match self.exchange {
            None => Cow::Borrowed(&trial.sample),
            Some(calls) => {
                let id = format!("exchange-{:08}", self.watch.calls / calls);
                Cow::Owned(samples::of_exchange(&trial.sample, &id))
            }
        }
    }

    fn notice(&mut self, trial: &Trial, seen: &Seen) {
        if self.exchange.is_none() || self.late.is_some() {
            return;
        }
        let (first, now) = (trial.seen.outcome(), seen.outcome());
        if first != now {
            self.late = Some(Late {
                calls: self.watch.calls,
                handler: trial.sample.handler(),
                first,
                now,
            });
        }
    }

    /// Makes them, or gives back the call after which there can be no other.
    fn make(&mut self, trials: &[&Trial]) -> Result<Ended, Box<Seen>> {
        let room = Room::new(self.prober.module.limits.max_memory_bytes);
        let gate = self.prober.settings.max_growth_bytes;
        let far = self
            .prober
            .budget(gate.map_or(FAR_BUDGET, |_| GATED_FAR_BUDGET));
        let life = match self.prober.isolation() {
            Isolation::Recycle(calls) => usize::try_from(calls).unwrap_or(usize::MAX),
            Isolation::Pooled | Isolation::Fresh => usize::MAX,
        };
        for trial in trials.iter().cycle().take(life.min(MOST_QUIET_CALLS)) {
            if far.is_spent() || self.is_enough(trials.len()) {
                return Ok(Ended::Early);
            }
            if self.watch.calls >= MOST_CALLS && !self.watch.is_settled(trials.len()) {
                return Ok(Ended::Patience);
            }
            let sample = self.named(trial);
            let seen = self.prober.call(&mut self.instance, &sample);
            self.compare(trial, &seen);
            self.notice(trial, &seen);
            self.watch.add(seen.cost.memory_bytes);
            self.fuel += seen.cost.fuel.unwrap_or_default();
            if seen.poison.is_some() {
                return if seen.result.is_err() {
                    Err(Box::new(seen))
                } else {
                    Ok(Ended::Early)
                };
            }
            if !room.has_some_for(&self.instance) {
                return Ok(Ended::Replaced);
            }
        }
        Ok(if life <= MOST_QUIET_CALLS {
            Ended::Life
        } else {
            Ended::Patience
        })
    }

    /// Whether more calls would tell nothing more, or take too long.
    fn is_enough(&self, cycle: usize) -> bool {
        let Self { watch, fuel, .. } = self;
        let gate = self.prober.settings.max_growth_bytes;
        if *fuel > gate.map_or(BUDGET, |_| GATED_BUDGET) {
            return true;
        }
        if !watch.is_settled(cycle) {
            return false;
        }
        let is_seen = watch.calls >= LEAST_CALLS || fuel + watch.calls * CALL_OVERHEAD >= BUDGET;
        let hidden = gate.map_or(MOST_HIDDEN, |gate| gate.max(HIDDEN));
        is_seen && watch.most_hidden() <= hidden as f64
    }

    fn fault(&self, seen: &Seen) -> Row {
        let id = CheckKind::Growth;
        let expected = "any number of calls on one instance";
        let Err(fault) = &seen.result else {
            return Row::skip(id, expected, "not tried further");
        };
        let mut row = Row::fault(id, expected, fault);
        row.check.found = format!(
            "{}, in call {} on one instance ({} bytes of memory)",
            row.check.found, self.watch.calls, seen.cost.memory_bytes
        );
        row.fault = seen.poison;
        row
    }
}

fn judge(check: Check, growth: &Growth, gate: Option<u64>) -> Check {
    let [least, most] = growth.bytes_per_call_between.unwrap_or_default();
    let bytes = growth.bytes_per_call.unwrap_or(f64::INFINITY);
    let gated = gate.unwrap_or_default();
    let is_met = if growth.is_whole_life {
        // What all its calls keep has room; a gate fails what is sure to be over it.
        least <= gated as f64 || gate.is_none()
    } else if growth.trend == Trend::Settled {
        most <= gate.map_or(MOST_UNSEEN, |gate| gate.max(MOST_HIDDEN)) as f64
    } else {
        bytes <= gated as f64 && gate.is_some()
    };
    let fix = match growth.trend {
        _ if is_met => return check,
        Trend::Settled if gate.is_none() => {
            let fix = "too few calls to see a leak; --max-growth makes more of them";
            return check.with(CheckStatus::Skip, fix);
        }
        Trend::Settled => {
            "have less memory free at the start, so that a leak would be seen, or allow more by --max-growth"
        }
        Trend::Growing => "free in dealloc what it gets: the input after each call, and the answer",
        Trend::NotSettled => {
            "free memory in dealloc; with a garbage collector, run it more often or limit its heap"
        }
    };
    let status = match gate {
        Some(_) => CheckStatus::Fail,
        None => CheckStatus::Warn,
    };
    check.with(status, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 64 << 20;
    const PAGE: u64 = 64 << 10;
    const CYCLE: usize = 14;

    /// An allocator: how much memory there is once so much is in use and so much
    /// was there before.
    type Grow = fn(used: u64, have: u64) -> u64;

    const ALLOCATORS: [(&str, Grow); 5] = [
        ("pages", |used, _| used.next_multiple_of(PAGE)),
        ("doubled", |used, have| {
            have.max(1) * used.div_ceil(have.max(1)).next_power_of_two()
        }),
        ("by half", |used, have| {
            used.max(have * 3 / 2).next_multiple_of(PAGE)
        }),
        ("four times", |used, have| {
            used.max(have * 4).next_multiple_of(PAGE)
        }),
        ("steps of 256 KiB", |used, _| {
            used.next_multiple_of(4 * PAGE)
        }),
    ];

    /// Watches calls as the probe does, until memory has settled or so many were
    /// made: `used` is what is in use after a call.
    fn watched(calls: u64, have: u64, (grow, used): (Grow, impl Fn(u64) -> u64)) -> Growth {
        let mut watch = Watch::new(have);
        let mut have = have;
        while watch.calls < calls
            && have < LIMIT
            && !(watch.calls >= LEAST_CALLS && watch.is_settled(CYCLE))
        {
            let used = used(watch.calls + 1);
            if used > have {
                have = grow(used, have);
            }
            watch.add(have);
        }
        let ended = match (have >= LIMIT, watch.calls == calls) {
            (true, _) => Ended::Replaced,
            (false, true) => Ended::Patience,
            (false, false) => Ended::Early,
        };
        watch.growth(CYCLE, LIMIT, ended)
    }

    const RATES: [u64; 17] = [
        16, 17, 23, 31, 64, 100, 150, 205, 239, 390, 410, 820, 1000, 4096, 10_000, 40_000, 65_536,
    ];

    #[test]
    fn no_leak_of_16_bytes_or_more_is_out_of_bounds_whatever_the_allocator() {
        for (name, grow) in ALLOCATORS {
            for rate in RATES {
                for at_first in [0, 1024, 30_000, 60_000, 65_535] {
                    let growth = watched(40_000, PAGE, (grow, |call| at_first + call * rate));
                    let told = format!("{name}, {rate} bytes, {at_first} at first: {growth:?}");
                    let [least, most] = growth.bytes_per_call_between.unwrap();
                    assert!((least..=most).contains(&(rate as f64)), "{told}");
                    // A large step may have room for all that these calls keep.
                    if !["four times", "steps of 256 KiB"].contains(&name) {
                        assert_eq!(growth.trend, Trend::Growing, "{told}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_leak_is_told_by_its_bytes_and_not_by_the_steps_of_memory() {
        for (name, grow) in ALLOCATORS {
            for rate in [100, 150, 390, 1000] {
                let growth = watched(40_000, PAGE, (grow, |call| 1024 + call * rate));
                let bytes = growth.bytes_per_call.unwrap();
                assert!(
                    (bytes / rate as f64 - 1.0).abs() < 0.02,
                    "{name}, {rate}: {growth:?}"
                );
            }
        }
    }

    #[test]
    fn a_leak_behind_a_warm_up_is_seen() {
        for rate in [16, 150, 1000] {
            let used = |call: u64| call.min(10) * (1 << 20) + call * rate;
            let growth = watched(40_000, PAGE, (ALLOCATORS[0].1, used));
            let bytes = growth.bytes_per_call.unwrap();
            assert!(
                (bytes / rate as f64 - 1.0).abs() < 0.1,
                "{rate}: {growth:?}"
            );
        }
    }

    /// Only some samples leak, and those stand beside each other.
    #[test]
    fn a_pause_within_the_cycle_of_samples_is_no_end() {
        for leaking in [1, 2, 5, 13] {
            let used = |call: u64| (call / 14 * leaking + (call % 14).min(leaking)) * PAGE;
            for calls in 15..60 {
                let growth = watched(calls, PAGE, (ALLOCATORS[0].1, used));
                assert_eq!(
                    growth.trend,
                    Trend::Growing,
                    "{leaking} in {calls}: {growth:?}"
                );
            }
        }
    }

    #[test]
    fn memory_that_is_full_and_used_again_has_settled() {
        // Free lists, heaps that warm up, collectors.
        for (name, grow) in ALLOCATORS {
            for enough in [1, 70_000, 1 << 20, 4 << 20] {
                for rate in [700, 1200, 100_000] {
                    let used = |call: u64| (call * rate).min(enough);
                    let growth = watched(40_000, PAGE, (grow, used));
                    assert_eq!(growth.trend, Trend::Settled, "{name}, {rate} to {enough}");
                    assert_eq!(growth.bytes_per_call, Some(0.0));
                }
            }
        }
    }

    #[test]
    fn nothing_is_told_of_memory_that_was_not_watched_for_long() {
        let used = |call: u64| (call * 1200).min(8 << 20);
        let mut watch = Watch::new(2 * PAGE);
        for call in 1..7000 {
            watch.add(used(call).next_multiple_of(PAGE).max(2 * PAGE));
        }
        let growth = watch.growth(CYCLE, LIMIT, Ended::Early);
        assert_eq!(growth.trend, Trend::NotSettled);
        assert_eq!(growth.bytes_per_call, None);
        assert_eq!(growth.calls_until_limit, None);
        assert!(growth.kept().starts_with("not settled within 6999 calls: "));
    }

    #[test]
    fn a_page_for_each_call_is_a_page_for_each_call() {
        let growth = watched(2000, PAGE, (ALLOCATORS[0].1, |call| (1 + call) * PAGE));
        assert_eq!(growth.bytes_per_call, Some(PAGE as f64));
        assert_eq!(growth.calls_until_limit, Some(1023));
    }

    #[test]
    fn memory_that_never_grows_is_bounded_by_what_it_has() {
        let growth = watched(40_000, PAGE, (ALLOCATORS[0].1, |_| 0));
        assert_eq!(growth.calls, LEAST_CALLS);
        assert_eq!(
            growth.kept(),
            "memory did not grow in the last 10000 calls; a leak would be under 7 bytes a call"
        );
        assert_eq!(
            watched(0, 0, (ALLOCATORS[0].1, |_| 0)).trend,
            Trend::Settled
        );
        // A guest may begin without any memory.
        let growth = watched(40_000, 0, (ALLOCATORS[0].1, |_| 1));
        assert_eq!(growth.trend, Trend::Settled);
    }
}
