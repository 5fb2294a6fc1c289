//! One job: decodes, plays, compares, counts.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError, RwLock};

use super::earlier::{BUDGET, Before};
use super::groups::Groups;
use super::ordered::{Ordered, Row};
use super::read::{Batch, usable};
use super::report::{
    Category, EarlierCalls, FuelChange, Group, NoFixture, Outcomes, Summary, TestResult,
};
use super::save::{self, Which};
use super::tally::{Tally, Words, absorb_option, costly};
use super::view::View;
use super::{ReplaySettings, Subjects, Watch};
use crate::answer::Answer;
use crate::capture::{Mark, Redactor, Remark, Transaction, Unusable};
use crate::compare::{Change, Given, Played, Pointer, compare, drift, play, recorded_answers};
use crate::error::Error;
use crate::fault::FaultCode;
use crate::limits::Isolation;
use crate::policy::{Policy, Reply};

/// What all jobs share.
pub(super) struct Shared<'a> {
    pub(super) subjects: &'a Subjects<'a>,
    pub(super) settings: &'a ReplaySettings,
    /// For reports and fixtures.
    pub(super) redactor: Redactor,
    /// For a saved capture.
    pub(super) saving: Redactor,
    ordered: &'a Ordered<'a>,
    pub(super) watch: &'a Watch,
    /// Whether it matters when a transaction was.
    time_matters: bool,
    /// Held by all who ask a guest, and by one who must be alone with it.
    asking: RwLock<()>,
    /// The first thing that could not be written.
    failed: Mutex<Option<Error>>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        subjects: &'a Subjects<'a>,
        settings: &'a ReplaySettings,
        (redactor, saving): (Redactor, Redactor),
        (ordered, watch): (&'a Ordered<'a>, &'a Watch),
    ) -> Self {
        Self {
            subjects,
            settings,
            redactor,
            saving,
            ordered,
            watch,
            time_matters: subjects.read_fixed_clocks(),
            asking: RwLock::new(()),
            failed: Mutex::new(None),
        }
    }

    pub(super) fn failure(self) -> Result<(), Error> {
        let failed = self
            .failed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn fail(&self, error: Error) {
        self.watch.stop.store(true, Ordering::Relaxed);
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

/// The modules with instances of their own.
pub(super) struct Pair {
    pub(super) module: Policy,
    pub(super) baseline: Option<Policy>,
}

impl Pair {
    /// Like the subjects, with instances that nobody else uses.
    fn of(subjects: &Subjects<'_>) -> Self {
        Self {
            module: subjects.module.alone(),
            baseline: subjects.baseline.map(Policy::alone),
        }
    }
}

/// One job's state.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    tally: Tally,
    /// A paced replay gives transactions one by one; those of a lane share
    /// their instances all the same.
    paced: Vec<(u64, u32, Pair)>,
    /// Words of this batch that hold no secret.
    clean: HashSet<String>,
    /// Ignored parts that no answer had so far.
    unseen: Vec<&'a Pointer>,
    room: Room,
    /// Whether the transaction is asked about again, on a new instance.
    asks_again: bool,
    /// Transactions in a row that were late when they were asked about alone, too.
    late: usize,
}

/// After so many the guest is slow, and not the machine.
const MAX_LATE: usize = 4;
/// A panic ends the replay: what is read after it would not count.
struct StopsOnPanic<'a>(&'a AtomicBool);

impl Drop for StopsOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// In a paced replay one of so many transactions is asked about again.
const AGAIN_EVERY: u64 = 64;
/// Of a batch about so many are, in its second half: its instance has answered most by
/// then.
const AGAIN: usize = 8;
/// In a small batch at most one of so many, for asking again takes time.
const AGAIN_OF: usize = 16;

/// Whether the transaction at this place of a batch is asked about again; the last
/// one always is.
fn is_asked_again(at: usize, all: usize) -> bool {
    let step = (all / 2 / AGAIN).max(AGAIN_OF);
    at + 1 == all || at >= all / 2 && at.is_multiple_of(step)
}

/// What came of comparing a transaction.
#[derive(Default)]
pub(super) struct Judged {
    /// It was compared: with the baseline, or with what was recorded.
    pub(super) compared: bool,
    pub(super) change: Option<Change>,
}

/// Room that every transaction needs, kept from one to the next.
#[derive(Default)]
struct Room {
    new: Vec<Reply>,
    old: Vec<Reply>,
    json: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            tally: Tally::default(),
            paced: Vec::new(),
            clean: HashSet::new(),
            unseen: shared.settings.ignore.iter().collect(),
            room: Room::default(),
            asks_again: false,
            late: 0,
        }
    }

    /// Works until nothing is dealt any more.
    pub(super) fn run(mut self, dealt: &Mutex<Receiver<Batch<'_>>>) -> Tally {
        let _stops = StopsOnPanic(&self.shared.watch.stop);
        loop {
            let batch = dealt.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else {
                let ignored = self.shared.settings.ignore.iter();
                let is_found = |pointer: &Pointer| !self.unseen.contains(&pointer);
                let ignored = ignored.map(|pointer| (pointer.to_string(), is_found(pointer)));
                self.tally.report.ignored = ignored.collect();
                return self.tally;
            };
            self.batch(batch);
        }
    }

    fn batch(&mut self, batch: Batch<'_>) {
        let shared = self.shared;
        let paced = shared.settings.speed.is_some();
        let key = (batch.epoch, batch.lane);
        let kept = self.paced.iter().position(|kept| (kept.0, kept.1) == key);
        let pair = kept.map_or_else(
            || Pair::of(self.shared.subjects),
            |at| self.paced.swap_remove(at).2,
        );
        self.clean.clear();
        let mut rows = Vec::new();
        let before = self.tally.report.records.transactions;
        let (mut items, left) = (batch.items, Cell::new(BUDGET));
        let all = items.len();
        for at in 0..items.len() {
            if self.shared.watch.stop.load(Ordering::Relaxed) {
                break;
            }
            let (before, rest) = items.split_at_mut(at);
            let Some((seq, frame)) = rest.first_mut() else {
                break;
            };
            let earlier = Before {
                frames: RefCell::new(before),
                left: &left,
            };
            let decoded = usable(frame, &shared.settings.decode, shared.subjects.module);
            for unusable in decoded.unusable {
                self.unusable(unusable);
            }
            if let Some(transaction) = decoded.transaction {
                self.asks_again = if paced {
                    seq.is_multiple_of(AGAIN_EVERY)
                } else {
                    is_asked_again(at, all)
                };
                rows.extend(self.transaction(*seq, &transaction, (&pair, &earlier)));
            }
        }
        // Once for all of them: it is a place that all jobs write to.
        let done = self.tally.report.records.transactions - before;
        let watch = self.shared.watch;
        watch.transactions.fetch_add(done, Ordering::Relaxed);
        if paced {
            self.paced.retain(|kept| kept.0 == batch.epoch);
            self.paced.push((batch.epoch, batch.lane, pair));
        }
        drop(batch.bytes);
        self.shared.ordered.done(batch.group, rows);
    }

    fn unusable(&mut self, unusable: Unusable) {
        self.shared.watch.unusable.fetch_add(1, Ordering::Relaxed);
        self.tally.unusable(unusable);
    }

    fn transaction(
        &mut self,
        seq: u64,
        transaction: &Transaction<'_>,
        (pair, earlier): (&Pair, &Before<'_>),
    ) -> Option<Row> {
        let shared = self.shared;
        let Room { new, old, .. } = &mut self.room;
        let (new, old) = (std::mem::take(new), std::mem::take(old));
        let new = self.ask(&pair.module, transaction, new);
        let old = pair
            .baseline
            .as_ref()
            .map(|baseline| self.ask(baseline, transaction, old));
        self.tally.report.records.transactions += 1;
        for remark in &transaction.remarks {
            self.tally.remark(*remark);
        }
        if new.has_unfinished_body(transaction) {
            self.tally.remark(Remark::BodyUnfinished);
        }
        if shared.time_matters && transaction.steps.iter().any(|step| step.at_ns.is_none()) {
            self.tally.remark(Remark::NoTime);
        }
        let view = View {
            shared,
            seq,
            transaction,
            new: &new,
            old: old.as_ref(),
            secrets: OnceCell::new(),
            earlier,
        };
        self.count(&view);
        let on_new = self.on_new(&view, &pair.module);
        let judged = self.judge(&view);
        let no_fixture = self.fixture(&view, judged.change.as_ref());
        let (wants_rows, wants_records) = shared.ordered.wants;
        let row = (wants_rows || wants_records).then(|| Row {
            seq,
            row: if wants_rows {
                view.row(&judged, (no_fixture, on_new.as_ref()))
            } else {
                Vec::new()
            },
            record: if wants_records {
                view.records()
            } else {
                Vec::new()
            },
        });
        self.room.new = new.replies;
        self.room.old = old.map(|old| old.replies).unwrap_or_default();
        row
    }

    /// What the guest answers. One that is late is asked once more while no other
    /// is: many guests at a time, on a machine that does other work, are late
    /// without being slow.
    fn ask(&mut self, subject: &Policy, transaction: &Transaction<'_>, room: Vec<Reply>) -> Played {
        let asking = &self.shared.asking;
        let among_others = asking.read().unwrap_or_else(PoisonError::into_inner);
        let played = play(subject, transaction, room);
        drop(among_others);
        if !is_late(&played) || self.late >= MAX_LATE {
            return played;
        }
        let _alone = asking.write().unwrap_or_else(PoisonError::into_inner);
        let again = play(subject, transaction, Vec::new());
        self.late = if is_late(&again) { self.late + 1 } else { 0 };
        again
    }

    /// Asks again on a new instance, and compares. What was late on either is not
    /// compared.
    fn on_new(&mut self, view: &View<'_>, subject: &Policy) -> Option<Summary> {
        let isolation = subject.pool().settings().isolation;
        let calls_before = view.new.calls_before();
        if !self.asks_again
            || calls_before == 0
            || isolation == Isolation::Fresh
            || !subject.is_repeatable()
            || is_late(view.new)
        {
            return None;
        }
        let again = play(&subject.alone(), view.transaction, Vec::new());
        if is_late(&again) {
            return None;
        }
        let change = compare(&again, view.new, &view.shared.settings.ignore)?;
        let example = view.on_new(&change, calls_before);
        let on_new = example.on_new.clone();
        let found = Some(EarlierCalls::of(example));
        let before = &mut self.tally.report.earlier_calls;
        absorb_option(before, found, EarlierCalls::absorb);
        Some(on_new)
    }

    fn count(&mut self, view: &View<'_>) {
        let timings = view.shared.settings.timings;
        let mut words = Words {
            clean: &mut self.clean,
            hide: &|text| view.hidden(text),
            hide_decision: &|text| view.hidden_decision(text),
        };
        let outcomes = &mut self.tally.report.outcomes;
        outcomes.count((view.new, &mut words), timings);
        costly(
            &mut self.tally.report.dearest,
            (view.seq, view.new.fuel()),
            || view.costly(view.new.fuel()),
        );
        if timings {
            costly(
                &mut self.tally.report.slowest,
                (view.seq, view.new.time_ns()),
                || view.costly(view.new.time_ns()),
            );
        }
        if let Some(old) = view.old {
            self.tally
                .report
                .baseline_outcomes
                .get_or_insert_with(Outcomes::default)
                .count((old, &mut words), timings);
        }
        if let Some(expect) = &view.transaction.expect {
            let responses: Vec<_> = view
                .new
                .replies
                .iter()
                .filter_map(|reply| match &reply.answer {
                    Answer::Response(response) => Some(&**response),
                    Answer::Result(_) => None,
                })
                .collect();
            self.tally.test(TestResult {
                seq: view.seq,
                place: view.transaction.place.clone(),
                test: expect.test.clone(),
                missed: expect.check(&responses),
            });
        }
    }

    /// Compares, counts and keeps examples.
    fn judge(&mut self, view: &View<'_>) -> Judged {
        let settings = view.shared.settings;
        let mut judged = Judged::default();
        self.tally.report.rounded += u64::from(view.new.is_rounded());
        if let Some(old) = view.old {
            judged.change = compare(old, view.new, &settings.ignore);
            judged.compared = judged.change.is_some() || view.new.is_asked();
            let groups = self.tally.comparison.get_or_insert_with(Groups::default);
            if judged.compared {
                fuel_change(groups, view, (old.fuel(), view.new.fuel()));
                note(groups, view, judged.change.as_mut());
            }
            let mut both = old.replies.iter().zip(&view.new.replies);
            let is_unanswered = both.any(|(old, new)| old.is_answered() && !new.is_answered());
            self.tally.report.unanswered += u64::from(is_unanswered);
        }
        let played = view.old.unwrap_or(view.new);
        let drifting = (view.transaction, played);
        let subjects = view.shared.subjects;
        let subject = subjects.baseline.unwrap_or(subjects.module);
        if is_by_another(view.transaction, &subject.pool().module().hash) {
            self.tally.remark(Remark::OtherModule);
        }
        let is_other_input = view.transaction.mark() == Some(Mark::Changed);
        let failure_policy = subject.settings().failure_policy;
        if is_other_input {
            // What was recorded was answered to another input.
        } else if let Some(mut drift) = drift(
            drifting,
            failure_policy,
            &settings.ignore,
            &mut self.room.json,
        ) {
            let groups = self.tally.drift.get_or_insert_with(Groups::default);
            if drift.is_compared {
                if let Some(then) = recorded_fuel(view.transaction, played) {
                    fuel_change(groups, view, (then, played.fuel()));
                }
                note(groups, view, drift.change.as_mut());
            }
            if view.old.is_some() {
                let change = drift.change.filter(Change::is_other_decision);
                if let Some(change) = change {
                    self.departure(view, &change);
                }
            } else {
                judged.compared = drift.is_compared;
                judged.change = drift.change;
                let report = &mut self.tally.report;
                report.unanswered += u64::from(drift.is_unanswered);
                report.refused_unrecorded += u64::from(drift.is_refused_later);
            }
        }
        let is_shown = |change: &Change| change.category == Category::Faulted;
        let is_shown = view.old.is_some() && judged.change.as_ref().is_some_and(is_shown);
        if view.new.has_fault() && !is_shown {
            let summary = view.hidden_summary(&view.new.summary());
            let group = self.tally.faulted.fault(summary, settings.examples);
            keep_example(group, view, None);
        }
        if judged.compared {
            self.look_for_ignored(view);
        }
        judged
    }

    /// Counts what the baseline decides otherwise than it was recorded, where the
    /// module does so, too.
    fn departure(&mut self, view: &View<'_>, of_baseline: &Change) {
        let settings = view.shared.settings;
        let failure_policy = view.shared.subjects.module.settings().failure_policy;
        let now = drift(
            (view.transaction, view.new),
            failure_policy,
            &settings.ignore,
            &mut self.room.json,
        );
        let now = now.and_then(|drift| drift.change);
        if let Some(now) = now.filter(Change::is_other_decision) {
            let departure = view.departure((&of_baseline.from, &now.to));
            let departures = &mut self.tally.report.departures;
            let departures = departures.get_or_insert_default();
            departures.add(departure, settings.examples);
        }
    }

    /// Looks for the parts that are to be ignored: one that is misspelled
    /// ignores nothing.
    fn look_for_ignored(&mut self, view: &View<'_>) {
        if self.unseen.is_empty() {
            return;
        }
        let played = std::iter::once(view.new).chain(view.old);
        let mut sides: Vec<Vec<Given>> = played.map(Played::given).collect();
        sides.push(recorded_answers(view.transaction));
        self.unseen
            .retain(|pointer| !sides.iter().any(|answers| pointer.is_in(answers)));
    }

    /// Writes its fixture where one is wanted. Why it has none, if so.
    fn fixture(&mut self, view: &View<'_>, change: Option<&Change>) -> Option<NoFixture> {
        let save = view.shared.settings.fixtures.as_ref()?;
        if save.which == Which::Changed && change.is_none() && !view.new.has_fault() {
            return None;
        }
        let example = view.example(change);
        let report = &mut self.tally.report;
        if let Some(why) = example.no_fixture {
            *report.fixtures_left_out.entry(why).or_default() += 1;
            return Some(why);
        }
        let is_drift = change.is_some_and(|change| change.is_drift);
        // Nobody knows what would have been recorded of a smaller one.
        let smallest = example.minimized.as_ref().filter(|_| !is_drift);
        let file = view.transaction.place.file.rsplit('/').next();
        let stem = file.and_then(|file| file.split('.').next());
        let id = view.hidden(&view.transaction.id);
        match save::save(
            &save.folder,
            (view.seq, stem.unwrap_or_default(), &id),
            smallest.unwrap_or(&example.fixture),
        ) {
            Ok(()) => report.fixtures_written += 1,
            Err(error) => view.shared.fail(error),
        }
        None
    }
}

/// Whether the guest was stopped because its time was over.
fn is_late(played: &Played) -> bool {
    let replies = played.replies.iter();
    let mut faults = replies.filter_map(|reply| reply.fault.as_ref());
    faults.any(|fault| fault.code == FaultCode::Deadline)
}

/// Counts a transaction in a comparison, with an example if it is a change.
fn note(groups: &mut Groups, view: &View<'_>, change: Option<&mut Change>) {
    let Some(change) = change else {
        groups.unchanged();
        return;
    };
    change.from = view.hidden_summary(&change.from);
    change.to = view.hidden_summary(&change.to);
    let fields = view.hidden_fields(&change.fields);
    let group = groups.changed(change, fields, view.shared.settings.examples);
    keep_example(group, view, Some(change));
}

fn keep_example(group: &mut Group, view: &View<'_>, change: Option<&Change>) {
    let most = view.shared.settings.examples;
    if group.wants(view.seq, most) {
        group.keep([view.example(change)], most);
    }
}

/// Whether a module with another hash took the decisions of the time.
fn is_by_another(transaction: &Transaction<'_>, hash: &str) -> bool {
    let recorded = transaction
        .steps
        .iter()
        .filter_map(|step| step.recorded.as_ref());
    recorded
        .filter_map(|recorded| recorded.module.as_deref())
        .any(|module| module != hash)
}

/// What the calls cost at the time, where that is known of all of them, and
/// they were of the inputs that are here.
fn recorded_fuel(transaction: &Transaction<'_>, now: &Played) -> Option<u64> {
    let others = [Remark::Redacted, Remark::Respelled, Remark::UnknownKeys];
    if others
        .iter()
        .any(|remark| transaction.remarks.contains(remark))
    {
        return None;
    }
    let calls = transaction.steps.iter().zip(&now.replies);
    calls.map(|(step, _)| step.recorded.as_ref()?.fuel).sum()
}

fn fuel_change(groups: &mut Groups, view: &View<'_>, (before, now): (u64, u64)) {
    let fuel = groups.fuel.get_or_insert_with(FuelChange::default);
    fuel.old += before;
    fuel.new += now;
    match now.cmp(&before) {
        std::cmp::Ordering::Equal => fuel.equal += 1,
        std::cmp::Ordering::Less => fuel.less += 1,
        std::cmp::Ordering::Greater => {
            fuel.more += 1;
            let more = now - before;
            costly(&mut fuel.increases, (view.seq, more), || view.costly(more));
        }
    }
}
