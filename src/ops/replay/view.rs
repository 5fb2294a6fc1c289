//! One transaction with what came of it, as reports show it: without secrets.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::earlier::Earlier;
use super::minimize::{Minimized, minimize};
use super::proof::{Answers, Calls, Claim, End, Kind, places};
use super::report::{
    Category, Costly, Departure, EarlierCallsExample, Example, NoFixture, Summary,
};
use super::save::{self, Asked, Expect, Expects, Purpose};
use super::work::{Judged, Shared};
use crate::capture::{
    CapturedStep, Heard, Mark, RecordLine, Redactor, SecretsFound, Transaction, Tried, Written,
    keep_decision, may_hold_secret,
};
use crate::compare::{Change, DecisionCheck, Given, Played, compare};
use crate::cost::Cost;
use crate::fault::printable;
use crate::guest::convention::json_buffer::input_json;
use crate::policy::{Policy, Reply};
use crate::question::{Phase, Question, Timed};

/// Characters of a request line in reports.
const SHOWN: usize = 200;
/// Characters of a fault's code.
const SHOWN_FAULT: usize = 60;
/// Characters of a hook's input in their place.
const SHOWN_CONTEXT: usize = 80;
/// Instructions that looking for the smallest request of a transaction may cost.
const MOST_SPENT: u64 = 2_000_000_000;
/// How a note begins about an answer that a new instance does not give.
const ON_EARLIER: &str = "the answer depends on earlier requests";
const ELSEWHERE: &str = "On a new instance the module answers differently";

/// Each answer at the place of its step; null where nothing was recorded.
fn in_place(answers: &[Given]) -> Vec<Value> {
    let mut values = Vec::new();
    for answer in answers {
        values.resize(answer.step, Value::Null);
        values.push(answer.value.clone());
    }
    values
}

/// One transaction with what came of it, and its secrets once they are needed.
pub(super) struct View<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) seq: u64,
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) new: &'a Played,
    pub(super) old: Option<&'a Played>,
    pub(super) secrets: OnceCell<SecretsFound>,
    /// What the same instances were asked about before.
    pub(super) earlier: &'a dyn Earlier,
}

impl View<'_> {
    fn secrets(&self) -> &SecretsFound {
        self.secrets
            .get_or_init(|| self.learned(&self.shared.redactor))
    }

    /// The secrets of its inputs, as they are to be replaced.
    fn learned(&self, redactor: &Redactor) -> SecretsFound {
        let mut secrets = SecretsFound::default();
        for step in &self.transaction.steps {
            redactor.input(&input_json(&step.input), &mut secrets);
        }
        secrets
    }

    /// How a module ended it: in words of ours, with a hook's own reason.
    pub(super) fn hidden_decision(&self, decision: &str) -> String {
        match decision.split_once(": ") {
            Some((refused, why)) => format!("{refused}: {}", self.hidden(why)),
            None => decision.to_owned(),
        }
    }

    /// A text of the guest's, or of the request's, without secrets.
    pub(super) fn hidden(&self, text: &str) -> String {
        if !may_hold_secret(text) {
            return text.to_owned();
        }
        self.shared.redactor.said(text, self.secrets())
    }

    pub(super) fn hidden_summary(&self, summary: &Summary) -> Summary {
        let list = |texts: &[String]| texts.iter().map(|text| self.hidden(text)).collect();
        Summary {
            decision: self.hidden_decision(&summary.decision),
            tags: list(&summary.tags),
            rule_ids: list(&summary.rule_ids),
            // A recorded one may be any text.
            fault: summary
                .fault
                .as_deref()
                .map(|fault| printable(&self.hidden(fault), SHOWN_FAULT)),
        }
    }

    /// Where two answers differ. The guest chooses some of the names.
    pub(super) fn hidden_fields(&self, fields: &[String]) -> Vec<String> {
        let hidden = |name: &str| {
            let plain = name.replace("~1", "/").replace("~0", "~");
            if !may_hold_secret(&plain) {
                return name.to_owned();
            }
            let key = self.secrets().key(&plain).into_owned();
            key.replace('~', "~0").replace('/', "~1")
        };
        let field = |field: &String| {
            let names: Vec<String> = field.split('/').map(hidden).collect();
            names.join("/")
        };
        fields.iter().map(field).collect()
    }

    fn request(&self) -> String {
        if let Some(step) = self.transaction.steps.first()
            && let Phase::Hook(hook) = step.input.phase()
        {
            let mut secrets = self.secrets().known();
            let context = self
                .shared
                .redactor
                .input(&input_json(&step.input), &mut secrets);
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
            |(method, uri)| {
                let mut secrets = self.secrets().known();
                format!("{method} {}", self.shared.redactor.uri(&uri, &mut secrets))
            },
        );
        printable(&self.hidden(&line), SHOWN)
    }

    pub(super) fn costly(&self, cost: u64) -> Costly {
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
        let mut secrets = self.secrets().clone();
        values
            .iter()
            .map(|value| {
                let text = self
                    .shared
                    .redactor
                    .output(&value.to_string(), &mut secrets);
                serde_json::from_str(&text).unwrap_or_default()
            })
            .collect()
    }

    pub(super) fn example(&self, change: Option<&Change>) -> Example {
        let is_drift = change.is_some_and(|change| change.is_drift);
        let now = self.old.filter(|_| is_drift).unwrap_or(self.new);
        let mut example = Example {
            seq: self.seq,
            place: self.transaction.place.clone(),
            id: self.hidden(&self.transaction.id),
            request: self.request(),
            fixture: Value::Null,
            minimized: None,
            no_fixture: None,
            notes: Vec::new(),
            old: self.answers(&in_place(change.map_or(&[], |change| &change.old))),
            new: self.answers(&now.values()),
        };
        match self.transaction.read_back() {
            Ok(questions) => self.fill(&mut example, &questions, change),
            Err(why) => example.leave_out(NoFixture::Form, &why),
        }
        example
    }

    fn fill(
        &self,
        example: &mut Example,
        questions: &[Timed<Question<'static>>],
        change: Option<&Change>,
    ) {
        if self.transaction.mark() == Some(Mark::Changed) {
            let why = "redacting the record had changed the decision, so nothing can be expected of its input";
            return example.leave_out(NoFixture::Redaction, why);
        }
        if self.wants_record() {
            let why = "it is to expect the recorded answer, and none was recorded";
            return example.leave_out(NoFixture::NotRecorded, why);
        }
        let purpose = self.purpose(change);
        let described = self.described(change);
        let make =
            |asked: Asked<'_>, purpose: &Purpose<'_>, known: fn(&SecretsFound) -> SecretsFound| {
                let write = |redactor: &Redactor, found: &mut SecretsFound| {
                    *found = self.learned(redactor);
                    let secrets = known(found);
                    let filter = save::SecretFilter { redactor, secrets };
                    save::fixture(self, asked, (purpose, filter), &described)
                };
                let may_be_redacted = || {
                    let has_secrets = !self.secrets().fields.is_empty();
                    has_secrets && purpose.claim.holds(self, &asked.calls())
                };
                let ask = |tried: &Tried<'_, Result<Option<Value>, String>>| match tried.written {
                    Ok(None) if may_be_redacted() => Heard::Other,
                    Ok(None) => Heard::Nothing,
                    Ok(Some(_)) | Err(_) => Heard::Same,
                };
                let mut found = SecretsFound::default();
                keep_decision((&self.shared.redactor, &mut found), write, ask).0
            };
        let whole = |asked: Asked<'_>| make(asked, &purpose, SecretsFound::known);
        self.whole(example, questions, (&purpose, whole));
        // Of what shows nothing there is nothing that a smaller one could show.
        let shows_something = change.is_some() || self.new.has_fault();
        if !self.shared.settings.minimize || !shows_something {
            return;
        }
        let purpose = match self.smaller(change, purpose) {
            Ok(purpose) => purpose,
            Err(why) => return example.notes.push(format!("not minimised: {why}")),
        };
        // The name that told a secret may be gone, with half of it.
        let smallest =
            |asked: Asked<'_>| make(asked, &purpose, SecretsFound::known_in_parts).ok()?;
        self.smallest(example, questions, (&purpose, smallest));
        if example.minimized.is_some() && change.is_some_and(|change| change.is_drift) {
            let note =
                "the smallest request expects today's answer; there is no recorded one for it";
            example.notes.push(note.to_owned());
        }
    }

    /// Its fixture, or why there is none.
    fn whole(
        &self,
        example: &mut Example,
        questions: &[Timed<Question<'static>>],
        (purpose, make): (
            &Purpose<'_>,
            impl Fn(Asked<'_>) -> Result<Option<Value>, String>,
        ),
    ) {
        let earlier = &[];
        let asked = Asked { earlier, questions };
        match make(asked) {
            Ok(Some(fixture)) => example.fixture = fixture,
            Err(why) => example.leave_out(NoFixture::Form, &why),
            Ok(None) if purpose.claim.holds(self, &asked.calls()) => {
                if !self.is_shown_with_secrets(asked, purpose) {
                    let why = "a fixture of this transaction would not show the change";
                    return example.leave_out(NoFixture::Form, why);
                }
                let fields = self.secrets().fields.join(", ");
                let why = format!(
                    "redacting {fields} changes the answer; --keep-secrets shows it as it was"
                );
                example.leave_out(NoFixture::Redaction, &why);
            }
            Ok(None) => {
                let earlier = self.earlier.needed(self, (&purpose.claim, questions));
                let fixture = earlier.and_then(|earlier| {
                    let earlier = &earlier;
                    let fixture = make(Asked { earlier, questions }).ok().flatten();
                    fixture.ok_or_else(String::new)
                });
                match fixture {
                    Ok(fixture) => {
                        example.fixture = fixture;
                        let note = format!("{ON_EARLIER}; the fixture has those that are needed");
                        example.notes.push(note);
                    }
                    Err(why) => {
                        let why = format!("{ON_EARLIER}. {ELSEWHERE}.{why}");
                        example.leave_out(NoFixture::EarlierCalls, &why);
                    }
                }
            }
        }
    }

    /// Whether a fixture that keeps the secrets serves the purpose: where it does
    /// not, redacting is not why there is none.
    fn is_shown_with_secrets(&self, asked: Asked<'_>, purpose: &Purpose<'_>) -> bool {
        let filter = save::SecretFilter {
            redactor: &Redactor::keep_secrets(),
            secrets: SecretsFound::default(),
        };
        let has_secrets = !self.secrets().fields.is_empty();
        has_secrets
            && matches!(
                save::fixture(self, asked, (purpose, filter), ""),
                Ok(Some(_))
            )
    }

    /// The smallest fixture, or why there is none.
    fn smallest(
        &self,
        example: &mut Example,
        questions: &[Timed<Question<'static>>],
        (purpose, make): (&Purpose<'_>, impl Fn(Asked<'_>) -> Option<Value>),
    ) {
        let earlier = &[];
        let spent = Cell::new(0_u64);
        let shows = |questions: &[Timed<Question<'static>>]| {
            let Calls {
                phases,
                first,
                play,
            } = Asked { earlier, questions }.calls();
            let play = |subject: &Policy| {
                let played = play(subject)?;
                spent.set(spent.get().saturating_add(played.fuel()));
                Some(played)
            };
            let calls = Calls {
                phases,
                first,
                play,
            };
            purpose.claim.holds(self, &calls)
        };
        let stop = &self.shared.watch.stop;
        let may_go_on = || spent.get() < MOST_SPENT && !stop.load(Ordering::Relaxed);
        let why = match minimize(questions, shows, may_go_on) {
            Minimized::Already => return,
            Minimized::To(questions) => {
                let questions = &questions;
                example.minimized = make(Asked { earlier, questions });
                if example.minimized.is_some() {
                    return;
                }
                "the smallest request shows the change only with its secrets".to_owned()
            }
            Minimized::NotReproduced => format!("{ON_EARLIER}. {ELSEWHERE}."),
        };
        example.notes.push(format!("not minimised: {why}"));
    }

    fn described(&self, change: Option<&Change>) -> String {
        let place = &self.transaction.place;
        format!(
            "{}From {}, record {}.",
            change.map_or_else(String::new, |change| format!(
                "{} → {}. ",
                change.from.text(),
                change.to.text()
            )),
            place.file.rsplit('/').next().unwrap_or_default(),
            place.record
        )
    }

    /// Whether a fixture is to expect what was recorded, and nothing was.
    fn wants_record(&self) -> bool {
        let mut steps = self.transaction.steps.iter();
        self.old.is_none() && self.expects_old() && steps.all(|step| step.recorded.is_none())
    }

    fn expects_old(&self) -> bool {
        let save = self.shared.settings.fixtures.as_ref();
        save.is_some_and(|save| save.expect == Expect::Old)
    }

    /// The phases of its calls.
    fn phases(&self) -> Vec<&'static str> {
        let questions = self.transaction.questions();
        questions.map(|it| it.phase().name()).collect()
    }

    /// What a fixture of it is to show.
    fn purpose<'p>(&'p self, change: Option<&'p Change>) -> Purpose<'p> {
        let subjects = self.shared.subjects;
        let (module, wants_old) = (subjects.module, self.expects_old());
        let answers = |policy, played, needed| {
            Claim::Answers(Answers {
                policy,
                played,
                needed,
            })
        };
        let both = subjects.baseline.zip(self.old);
        let (judged, played) = both.unwrap_or((module, self.new));
        let (expected, other) = match both {
            Some((baseline, _)) if wants_old => (baseline, module),
            Some((baseline, _)) => (module, baseline),
            None => (module, module),
        };
        match change {
            Some(change) if change.is_drift => {
                let is_old = wants_old && both.is_none();
                Purpose {
                    claim: {
                        let places = places(change, &self.phases()).into_iter();
                        answers(judged, played, places.map(|place| place.0).collect())
                    },
                    expects: if is_old {
                        Expects::Recorded(&change.old)
                    } else {
                        Expects::Of(judged)
                    },
                    differs: is_old.then_some(judged),
                }
            }
            Some(_) => {
                let kind = self
                    .old
                    .and_then(|old| Kind::of(self, (old, self.new), &self.phases()));
                Purpose {
                    claim: match kind {
                        Some(kind) => Claim::Change(Box::new(kind)),
                        None => Claim::End(module, End::of(self, self.new)),
                    },
                    expects: Expects::Of(expected),
                    differs: Some(other),
                }
            }
            None if self.new.has_fault() => Purpose {
                claim: Claim::End(module, End::of(self, self.new)),
                expects: Expects::Of(module),
                differs: None,
            },
            None => Purpose {
                claim: if wants_old {
                    answers(judged, played, Default::default())
                } else {
                    answers(module, self.new, Default::default())
                },
                expects: Expects::Of(expected),
                differs: None,
            },
        }
    }

    /// What a smaller transaction is to show. What was recorded cannot be asked
    /// again about a smaller one, so it is that the module ends it as it does now.
    fn smaller<'p>(
        &'p self,
        change: Option<&'p Change>,
        purpose: Purpose<'p>,
    ) -> Result<Purpose<'p>, &'static str> {
        match purpose.claim {
            Claim::Answers(Answers { policy, played, .. }) => {
                if change.is_some() && !played.replies.last().is_some_and(Reply::ends) {
                    return Err(
                        "the module refuses nothing now, and the recorded decision cannot be asked again; use the recorded version as --baseline",
                    );
                }
                Ok(Purpose {
                    claim: Claim::End(policy, End::of(self, played)),
                    expects: Expects::Of(policy),
                    differs: None,
                })
            }
            Claim::Change(_) | Claim::End(..) => Ok(purpose),
        }
    }

    /// How it ended when it was recorded, and how it ends now. What was recorded is
    /// shown without secrets already.
    pub(super) fn departure(&self, (recorded, now): (&Summary, &Summary)) -> Departure {
        Departure {
            seq: self.seq,
            place: self.transaction.place.clone(),
            id: self.hidden(&self.transaction.id),
            request: self.request(),
            recorded: recorded.clone(),
            now: self.hidden_summary(now),
        }
    }

    /// How it ended on a new instance, and on one that had answered so many calls.
    pub(super) fn on_new(&self, change: &Change, calls_before: u64) -> EarlierCallsExample {
        EarlierCallsExample {
            seq: self.seq,
            place: self.transaction.place.clone(),
            id: self.hidden(&self.transaction.id),
            request: self.request(),
            on_new: self.hidden_summary(&change.from),
            on_used: self.hidden_summary(&change.to),
            fields: self.hidden_fields(&change.fields),
            calls_before,
            is_decision: change.is_other_decision(),
        }
    }

    /// One line of the `jsonl` format; `on_new` where a new instance answers otherwise.
    pub(super) fn row(
        &self,
        judged: &Judged,
        (no_fixture, on_new): (Option<NoFixture>, Option<&Summary>),
    ) -> Vec<u8> {
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
        let category = |change: &Change| change.category;
        let category = judged.change.as_ref().map_or(Category::Unchanged, category);
        row["category"] = json!(judged.compared.then_some(category));
        if let Some(change) = &judged.change {
            row["fields"] = json!(self.hidden_fields(&change.fields));
            if self.old.is_none() {
                row["recorded"] = json!(change.from);
            }
        }
        if let Some(mark) = self.transaction.mark() {
            row["redaction"] = json!(mark.name());
        }
        if let Some(on_new) = on_new {
            row["on_new_instance"] = json!(on_new);
        }
        if let Some(why) = no_fixture {
            row["no_fixture"] = json!(why);
        }
        let mut line = row.to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// The module's calls, as a capture of our own format.
    pub(super) fn records(&self) -> Vec<u8> {
        let subject = self.shared.subjects.module;
        let module = subject.pool().module();
        let timings = self.shared.settings.timings;
        let steps = || self.transaction.steps.iter();
        let inputs: Vec<_> = steps().map(|step| input_json(&step.input)).collect();
        let write = |redactor: &Redactor, secrets: &mut SecretsFound| -> Vec<Written> {
            // Each is written without what only a later one tells, too.
            for input in inputs.iter().filter(|_| inputs.len() > 1) {
                redactor.input(input, secrets);
            }
            let calls = steps().zip(&inputs).zip(&self.new.replies);
            let line = |((step, input), reply): ((&CapturedStep<'_>, &Cow<'_, str>), &Reply)| {
                let cost = reply.cost.as_ref();
                let line = RecordLine {
                    id: &self.transaction.id,
                    phase: step.input.phase().name(),
                    at_ns: step.at_ns,
                    module: &module.hash,
                    input,
                    output: &reply.answer,
                    fault: reply.fault.as_ref(),
                    fuel: cost.and_then(|cost| cost.fuel),
                    wall_ns: cost.filter(|_| timings).map(Cost::time_ns),
                };
                Written::new(&line, (redactor, &mut *secrets))
            };
            calls.map(line).collect()
        };
        let as_it_was = |played: &Played| {
            let change = compare(self.new, played, &[]);
            change.is_none_or(|change| !change.is_other_end())
        };
        let mut check = DecisionCheck::new(subject, self.transaction, as_it_was);
        let is_same = |(line, input): (&Written, &Cow<'_, str>)| line.input == **input;
        let mut secrets = SecretsFound::default();
        let (lines, mark) = keep_decision((&self.shared.saving, &mut secrets), write, |tried| {
            let lines = tried.written;
            if lines.iter().zip(&inputs).all(is_same) {
                return Heard::Same;
            }
            let inputs = lines.iter().map(|line| line.input.as_str());
            check.ask(inputs, (tried.redactor, tried.found))
        });
        // What was said of the record stays, whoever reads it.
        let before = self.transaction.mark();
        let end = |(line, input): (Written, &Cow<'_, str>)| {
            let mark = mark.filter(|_| line.input != **input);
            line.end(mark.max(before))
        };
        lines.into_iter().zip(&inputs).flat_map(end).collect()
    }
}
