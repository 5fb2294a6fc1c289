//! One job: decodes, plays, compares, counts.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::compare::{Change, Played, compare, drift};
use super::minimize::{Minimized, minimize};
use super::ordered::{Ordered, Row};
use super::play::{play, play_inputs};
use super::read::Batch;
use super::report::{Category, Costly, Example, FuelChange, Group, Outcomes, Summary, TestResult};
use super::save::{self, Expect, Which};
use super::tally::{Groups, Tally, Words, costly};
use super::{ReplaySettings, Subjects, Watch};
use crate::abi::{Abi, Input, Phase};
use crate::capture::{
    Found, RecordLine, Redactor, Remark, Transaction, Unusable, decode, may_hold_secret,
    write_record,
};
use crate::error::Error;
use crate::fault::printable;
use crate::limits::Isolation;
use crate::ops::exchange::{Answer, Answered, Ends as _};
use crate::ops::run::Subject;

/// Characters of a request line in reports.
const SHOWN: usize = 200;
/// Characters of a hook's input in their place.
const SHOWN_CONTEXT: usize = 80;

/// What all jobs share.
pub(super) struct Shared<'a> {
    subjects: &'a Subjects<'a>,
    settings: &'a ReplaySettings,
    redactor: Redactor,
    ordered: &'a Ordered<'a>,
    watch: &'a Watch,
    /// The first thing that could not be written.
    failed: Mutex<Option<Error>>,
}

impl<'a> Shared<'a> {
    pub(super) const fn new(
        subjects: &'a Subjects<'a>,
        settings: &'a ReplaySettings,
        redactor: Redactor,
        (ordered, watch): (&'a Ordered<'a>, &'a Watch),
    ) -> Self {
        Self {
            subjects,
            settings,
            redactor,
            ordered,
            watch,
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
struct Pair {
    module: Subject,
    baseline: Option<Subject>,
}

impl Pair {
    /// Like the subjects, with instances that nobody else uses.
    fn of(subjects: &Subjects<'_>, isolation: Option<Isolation>) -> Self {
        Self {
            module: subjects.module.alone(isolation),
            baseline: subjects.baseline.map(|baseline| baseline.alone(isolation)),
        }
    }
}

/// One job's state.
pub(super) struct Worker<'a> {
    shared: &'a Shared<'a>,
    tally: Tally,
    /// For examples: what they show must not depend on earlier requests.
    fresh: Pair,
    /// A paced replay gives transactions one by one; those of a lane share
    /// their instances all the same.
    paced: Vec<(u64, u32, Pair)>,
    /// Words of this batch that hold no secret.
    clean: HashSet<String>,
    room: Room,
}

/// Room that every transaction needs, kept from one to the next.
#[derive(Default)]
struct Room {
    new: Vec<Answered>,
    old: Vec<Answered>,
    json: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(shared: &'a Shared<'a>) -> Self {
        Self {
            shared,
            tally: Tally::default(),
            fresh: Pair::of(shared.subjects, Some(Isolation::Fresh)),
            paced: Vec::new(),
            clean: HashSet::new(),
            room: Room::default(),
        }
    }

    /// Works until nothing is dealt any more.
    pub(super) fn run(mut self, dealt: &Mutex<Receiver<Batch>>) -> Tally {
        loop {
            let batch = dealt.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else {
                return self.tally;
            };
            self.batch(batch);
        }
    }

    fn batch(&mut self, batch: Batch) {
        let paced = self.shared.settings.speed.is_some();
        let key = (batch.epoch, batch.lane);
        let kept = self.paced.iter().position(|kept| (kept.0, kept.1) == key);
        let pair = kept.map_or_else(
            || Pair::of(self.shared.subjects, None),
            |at| self.paced.swap_remove(at).2,
        );
        self.clean.clear();
        let mut rows = Vec::new();
        let before = self.tally.records.transactions;
        for (seq, mut frame) in batch.items {
            if self.shared.watch.stop.load(Ordering::Relaxed) {
                break;
            }
            match decode(&mut frame, &self.shared.settings.decode) {
                Ok(transaction) => match self.foreign(&transaction) {
                    None => rows.extend(self.transaction(seq, &transaction, &pair)),
                    Some(unusable) => self.unusable(unusable),
                },
                Err(unusable) => self.unusable(unusable),
            }
        }
        // Once for all of them: it is a place that all jobs write to.
        let done = self.tally.records.transactions - before;
        let watch = self.shared.watch;
        watch.transactions.fetch_add(done, Ordering::Relaxed);
        if paced {
            self.paced.retain(|kept| kept.0 == batch.epoch);
            self.paced.push((batch.epoch, batch.lane, pair));
        }
        self.shared.ordered.done(batch.group, rows);
    }

    fn unusable(&mut self, unusable: Unusable) {
        self.shared.watch.unusable.fetch_add(1, Ordering::Relaxed);
        self.tally.unusable(unusable);
    }

    /// What is wrong with a transaction for modules of the other ABI.
    fn foreign(&self, transaction: &Transaction<'_>) -> Option<Unusable> {
        let module = self.shared.subjects.module.abi();
        let found = transaction.abi();
        if module == found {
            return None;
        }
        let expected = match module {
            Abi::Agent => "events of a proxy",
            Abi::Hook => "before_hook or after_hook",
        };
        let phase = transaction
            .steps
            .first()
            .map_or("nothing", |step| step.input.phase().name());
        Some(Unusable {
            place: transaction.place.clone(),
            why: format!(
                "expected {expected}, since the module is {} (the {} ABI), found {phase} (the {} ABI)",
                module.describe(),
                module.name(),
                found.name()
            ),
        })
    }

    fn transaction(&mut self, seq: u64, transaction: &Transaction<'_>, pair: &Pair) -> Option<Row> {
        let shared = self.shared;
        let Room { new, old, .. } = &mut self.room;
        let (new, old) = (std::mem::take(new), std::mem::take(old));
        let new = play(&pair.module, transaction, new);
        let old = pair
            .baseline
            .as_ref()
            .map(|baseline| play(baseline, transaction, old));
        self.tally.records.transactions += 1;
        for remark in &transaction.remarks {
            self.tally.remark(*remark);
        }
        let view = View {
            shared,
            seq,
            transaction,
            new: &new,
            old: old.as_ref(),
            found: OnceCell::new(),
        };
        self.count(&view);
        let change = self.judge(&view);
        self.fixture(&view, change.as_ref());
        let (wants_rows, wants_records) = shared.ordered.wants;
        let row = (wants_rows || wants_records).then(|| Row {
            seq,
            row: if wants_rows {
                view.row(change.as_ref())
            } else {
                Vec::new()
            },
            record: if wants_records {
                view.records()
            } else {
                Vec::new()
            },
        });
        self.room.new = new.answered;
        self.room.old = old.map(|old| old.answered).unwrap_or_default();
        row
    }

    fn count(&mut self, view: &View<'_>) {
        let timings = view.shared.settings.timings;
        let mut words = Words {
            clean: &mut self.clean,
            hide: &|text| view.hidden(text),
        };
        let outcomes = &mut self.tally.outcomes;
        outcomes.count((view.new, &mut words), timings);
        costly(&mut self.tally.dearest, (view.seq, view.new.fuel()), || {
            view.costly(view.new.fuel())
        });
        if timings {
            costly(
                &mut self.tally.slowest,
                (view.seq, view.new.time_ns()),
                || view.costly(view.new.time_ns()),
            );
        }
        if let Some(old) = view.old {
            self.tally
                .baseline
                .get_or_insert_with(Outcomes::default)
                .count((old, &mut words), timings);
        }
        if let Some(expect) = &view.transaction.expect {
            let responses: Vec<_> = view
                .new
                .answered
                .iter()
                .filter_map(|answered| match &answered.answer {
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

    /// Compares, counts and keeps examples. What the transaction's change is,
    /// if it has one.
    fn judge(&mut self, view: &View<'_>) -> Option<Change> {
        let settings = view.shared.settings;
        let mut change = None;
        if let Some(old) = view.old {
            change = compare(old, view.new, &settings.ignore);
            let groups = self.tally.comparison.get_or_insert_with(Groups::default);
            fuel_change(groups, view, (old.fuel(), view.new.fuel()));
            note(groups, view, change.as_mut(), &self.fresh);
        }
        let judged = view.old.unwrap_or(view.new);
        let judging = (view.transaction, judged);
        if let Some(mut drifted) = drift(judging, &settings.ignore, &mut self.room.json) {
            let groups = self.tally.drift.get_or_insert_with(Groups::default);
            if let Some(then) = recorded_fuel(view.transaction, judged) {
                fuel_change(groups, view, (then, judged.fuel()));
            }
            note(groups, view, drifted.as_mut(), &self.fresh);
            if view.old.is_none() {
                change = drifted;
            }
        }
        if view.old.is_none() && view.new.has_fault() {
            let summary = view.hidden_summary(&view.new.summary());
            let group = self.tally.faulted.fault(summary, settings.examples);
            keep_example(group, view, None, &self.fresh);
        }
        change
    }

    fn fixture(&mut self, view: &View<'_>, change: Option<&Change>) {
        let Some(save) = &view.shared.settings.fixtures else {
            return;
        };
        if save.which == Which::Changed && change.is_none() && !view.new.has_fault() {
            return;
        }
        let example = view.example(change, &self.fresh);
        let fixture = example.minimized.as_ref().unwrap_or(&example.fixture);
        if fixture.is_null() {
            return;
        }
        let stem = view
            .transaction
            .place
            .file
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let stem = stem.split('.').next().unwrap_or_default();
        match save::save(
            &save.folder,
            (view.seq, stem, &view.hidden(&view.transaction.id)),
            fixture,
        ) {
            Ok(()) => self.tally.fixtures_written += 1,
            Err(error) => view.shared.fail(error),
        }
    }
}

/// Counts a transaction in a comparison, with an example if it is a change.
fn note(groups: &mut Groups, view: &View<'_>, change: Option<&mut Change>, fresh: &Pair) {
    let Some(change) = change else {
        groups.unchanged();
        return;
    };
    change.from = view.hidden_summary(&change.from);
    change.to = view.hidden_summary(&change.to);
    let group = groups.changed(change, view.shared.settings.examples);
    keep_example(group, view, Some(change), fresh);
}

fn keep_example(group: &mut Group, view: &View<'_>, change: Option<&Change>, fresh: &Pair) {
    let most = view.shared.settings.examples;
    if group.wants(view.seq, most) {
        group.keep(view.example(change, fresh), most);
    }
}

/// What the calls cost at the time, where that is known of all of them, and
/// they were of the inputs that are here.
fn recorded_fuel(transaction: &Transaction<'_>, now: &Played) -> Option<u64> {
    if transaction.remarks.contains(&Remark::Redacted) {
        return None;
    }
    let calls = transaction.steps.iter().zip(&now.answered);
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

/// One transaction with what came of it, and its secrets once they are needed.
struct View<'a> {
    shared: &'a Shared<'a>,
    seq: u64,
    transaction: &'a Transaction<'a>,
    new: &'a Played,
    old: Option<&'a Played>,
    found: OnceCell<Found>,
}

impl View<'_> {
    fn found(&self) -> &Found {
        self.found.get_or_init(|| {
            let mut found = Found::default();
            for step in &self.transaction.steps {
                self.shared.redactor.input(&step.input.json(), &mut found);
            }
            found
        })
    }

    /// A text of the guest's, or of the request's, without secrets.
    fn hidden(&self, text: &str) -> String {
        if !may_hold_secret(text) {
            return text.to_owned();
        }
        self.found().text(text).into_owned()
    }

    fn hidden_summary(&self, summary: &Summary) -> Summary {
        let list = |texts: &[String]| texts.iter().map(|text| self.hidden(text)).collect();
        Summary {
            // A hook's says why it refused.
            decision: self.hidden(&summary.decision),
            tags: list(&summary.tags),
            rule_ids: list(&summary.rule_ids),
            fault: summary.fault.clone(),
        }
    }

    fn request(&self) -> String {
        if let Some(step) = self.transaction.steps.first()
            && let Phase::Hook(hook) = step.input.phase()
        {
            let mut found = Found::default();
            let context = self.shared.redactor.input(&step.input.json(), &mut found);
            let context: Value = serde_json::from_str(&context).unwrap_or_default();
            let text = format!("{} {}", hook.name(), context["input"]);
            return printable(&self.hidden(&text), SHOWN_CONTEXT);
        }
        let line = self.transaction.request_line().map_or_else(
            || {
                self.transaction.response_status().map_or_else(
                    || "(no request)".to_owned(),
                    |status| format!("response {status}"),
                )
            },
            |(method, uri)| format!("{method} {}", self.shared.redactor.uri(&uri)),
        );
        printable(&self.hidden(&line), SHOWN)
    }

    fn costly(&self, cost: u64) -> Costly {
        Costly {
            seq: self.seq,
            place: self.transaction.place.clone(),
            id: self.hidden(&self.transaction.id),
            request: self.request(),
            decision: self.hidden_summary(&self.new.summary()).decision,
            cost,
        }
    }

    fn answers(&self, values: &[Value]) -> Vec<Value> {
        let mut found = self.found().clone();
        values
            .iter()
            .map(|value| {
                let text = self.shared.redactor.output(&value.to_string(), &mut found);
                serde_json::from_str(&text).unwrap_or_default()
            })
            .collect()
    }

    fn example(&self, change: Option<&Change>, fresh: &Pair) -> Example {
        let mut example = Example {
            seq: self.seq,
            place: self.transaction.place.clone(),
            id: self.hidden(&self.transaction.id),
            request: self.request(),
            fixture: Value::Null,
            minimized: None,
            notes: Vec::new(),
            old: self.answers(change.map_or(&[], |change| &change.old)),
            new: self.answers(&self.new.values()),
        };
        match self.transaction.inputs() {
            Ok(inputs) => self.fill(&mut example, &inputs, (change, fresh)),
            Err(why) => example.notes.push(format!("no fixture: {why}")),
        }
        example
    }

    fn fill(
        &self,
        example: &mut Example,
        inputs: &[Input<'_>],
        (change, fresh): (Option<&Change>, &Pair),
    ) {
        let settings = self.shared.settings;
        let wants_old = settings
            .fixtures
            .as_ref()
            .is_some_and(|save| save.expect == Expect::Old);
        let expected = match (&fresh.baseline, wants_old) {
            (Some(baseline), true) => baseline,
            _ => &fresh.module,
        };
        let place = &self.transaction.place;
        let described = format!(
            "{}From {}, record {}.",
            change.map_or_else(String::new, |change| format!(
                "{} → {}. ",
                change.from.text(),
                change.to.text()
            )),
            place.file.rsplit('/').next().unwrap_or_default(),
            place.record
        );
        let make = |inputs: &[Input<'_>]| {
            save::fixture(
                self.transaction,
                inputs,
                (expected, &self.shared.redactor),
                &described,
            )
        };
        match make(inputs) {
            Ok((fixture, notes)) => {
                example.fixture = fixture;
                example.notes.extend(notes);
            }
            Err(why) => example.notes.push(format!("no fixture: {why}")),
        }
        if !settings.minimize {
            return;
        }
        match self.smallest(inputs, change, fresh) {
            Minimized::To(inputs) => example.minimized = make(&inputs).ok().map(|made| made.0),
            Minimized::Already => {}
            Minimized::Unknown => example.notes.push(
                "not minimised: nothing is refused now, and what was then decided about less is not known; with the version of then as --baseline it is".to_owned(),
            ),
            Minimized::NotReproduced => example.notes.push(
                "not minimised: fresh instances do not show it, so it depends on earlier requests or on the record".to_owned(),
            ),
        }
    }

    /// The same change, drift or fault on fresh instances, with as little as
    /// possible.
    fn smallest(&self, inputs: &[Input<'_>], change: Option<&Change>, fresh: &Pair) -> Minimized {
        let ignore = &self.shared.settings.ignore;
        let kind = |change: Change| (change.category, change.from, change.to);
        match (change, &fresh.baseline) {
            (Some(change), judged) if change.is_drift => {
                let judged = judged.as_ref().unwrap_or(&fresh.module);
                let played = self.old.unwrap_or(self.new);
                if !played.answered.last().is_some_and(Answered::ends) {
                    return Minimized::Unknown;
                }
                let wanted = played.summary();
                minimize(inputs, |inputs| {
                    play_inputs(judged, inputs).summary() == wanted
                })
            }
            (Some(_), Some(baseline)) => {
                let outcome = |inputs: &[Input<'_>]| {
                    let (old, new) = (
                        play_inputs(baseline, inputs),
                        play_inputs(&fresh.module, inputs),
                    );
                    compare(&old, &new, ignore).map(kind)
                };
                let wanted = outcome(inputs);
                minimize(inputs, |inputs| {
                    wanted.is_some() && outcome(inputs) == wanted
                })
            }
            _ => {
                let fault = self.new.summary().fault;
                minimize(inputs, |inputs| {
                    fault.is_some() && play_inputs(&fresh.module, inputs).summary().fault == fault
                })
            }
        }
    }

    /// One line of the `jsonl` format.
    fn row(&self, change: Option<&Change>) -> Vec<u8> {
        let timings = self.shared.settings.timings;
        let side = |played: &Played| {
            let summary = self.hidden_summary(&played.summary());
            let mut value = serde_json::to_value(summary).unwrap_or_default();
            value["fuel"] = Value::from(played.fuel());
            if timings {
                value["time_ns"] = Value::from(played.time_ns());
            }
            value
        };
        let place = &self.transaction.place;
        let mut row = json!({
            "seq": self.seq,
            "file": &*place.file,
            "record": place.record,
            "offset": place.offset,
            "id": self.hidden(&self.transaction.id),
            "request": self.request(),
            "module": side(self.new),
        });
        if let Some(old) = self.old {
            row["baseline"] = side(old);
        }
        if self.old.is_some() || change.is_some() {
            row["category"] = json!(change.map_or(Category::Unchanged, |change| change.category));
        }
        if let Some(change) = change {
            row["fields"] = json!(change.fields);
            if self.old.is_none() {
                row["recorded"] = json!(change.from);
            }
        }
        let mut line = row.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// The module's calls, as a capture of our own format.
    fn records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let module = self.shared.subjects.module.pool().module();
        for (step, answered) in self.transaction.steps.iter().zip(&self.new.answered) {
            let cost = answered.cost.as_ref();
            let line = RecordLine {
                id: &self.transaction.id,
                phase: step.input.phase().name(),
                at_ns: self.transaction.at_ns,
                module: &module.hash,
                input: &step.input.json(),
                output: &answered.answer,
                fault: answered.fault.as_ref(),
                fuel: cost.and_then(|cost| cost.fuel),
                wall_ns: cost
                    .filter(|_| self.shared.settings.timings)
                    .and_then(|cost| u64::try_from(cost.time.as_nanos()).ok()),
            };
            write_record(&line, &self.shared.redactor, &mut out);
        }
        out
    }
}
