//! One transaction with what came of it, as reports show it: without secrets.

use std::cell::OnceCell;

use serde_json::{Value, json};

use super::compare::{Change, Played, compare};
use super::minimize::{Minimized, minimize};
use super::play::play_inputs;
use super::report::{Category, Costly, Example, Summary};
use super::save::{self, Expect};
use super::work::{Pair, Shared};
use crate::capture::{RecordLine, SecretsFound, Transaction, may_hold_secret, write_record};
use crate::cost::Cost;
use crate::fault::printable;
use crate::guest::convention::json_buffer::input_json;
use crate::policy::Reply;
use crate::question::{Phase, Question};

/// Characters of a request line in reports.
const SHOWN: usize = 200;
/// Characters of a hook's input in their place.
const SHOWN_CONTEXT: usize = 80;

/// One transaction with what came of it, and its secrets once they are needed.
pub(super) struct View<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) seq: u64,
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) new: &'a Played,
    pub(super) old: Option<&'a Played>,
    pub(super) secrets: OnceCell<SecretsFound>,
}

impl View<'_> {
    fn secrets(&self) -> &SecretsFound {
        self.secrets.get_or_init(|| {
            let mut secrets = SecretsFound::default();
            for step in &self.transaction.steps {
                self.shared
                    .redactor
                    .input(&input_json(&step.input), &mut secrets);
            }
            secrets
        })
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
        self.secrets().text(text).into_owned()
    }

    pub(super) fn hidden_summary(&self, summary: &Summary) -> Summary {
        let list = |texts: &[String]| texts.iter().map(|text| self.hidden(text)).collect();
        Summary {
            decision: self.hidden_decision(&summary.decision),
            tags: list(&summary.tags),
            rule_ids: list(&summary.rule_ids),
            fault: summary.fault.clone(),
        }
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

    pub(super) fn example(&self, change: Option<&Change>, fresh: &Pair) -> Example {
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
        match crate::capture::read_back(self.transaction.questions()) {
            Ok(inputs) => self.fill(&mut example, &inputs, (change, fresh)),
            Err(why) => example.notes.push(format!("no fixture: {why}")),
        }
        example
    }

    fn fill(
        &self,
        example: &mut Example,
        inputs: &[Question<'_>],
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
        let make = |inputs: &[Question<'_>], secrets: SecretsFound| {
            let redactor = &self.shared.redactor;
            let filter = save::SecretFilter { redactor, secrets };
            save::fixture(self.transaction, inputs, (expected, filter), &described)
        };
        match make(inputs, self.secrets().known()) {
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
            Minimized::To(inputs) => {
                // The name that told a secret may be gone, with half of it.
                let known = self.secrets().known_in_parts();
                example.minimized = make(&inputs, known).ok().map(|made| made.0);
            }
            Minimized::Already => {}
            Minimized::Unknown => example.notes.push(
                "not minimised: the module refuses nothing now, and the recorded decision cannot be asked again; use the recorded version as --baseline".to_owned(),
            ),
            Minimized::NotReproduced => example.notes.push(
                "not minimised: fresh instances do not change, so it depends on earlier requests or on the record".to_owned(),
            ),
        }
    }

    /// The same change, drift or fault on fresh instances, with as little as
    /// possible.
    fn smallest(
        &self,
        inputs: &[Question<'_>],
        change: Option<&Change>,
        fresh: &Pair,
    ) -> Minimized {
        let ignore = &self.shared.settings.ignore;
        let kind = |change: Change| (change.category, change.from, change.to);
        match (change, &fresh.baseline) {
            (Some(change), judged) if change.is_drift => {
                let judged = judged.as_ref().unwrap_or(&fresh.module);
                let played = self.old.unwrap_or(self.new);
                if !played.replies.last().is_some_and(Reply::ends) {
                    return Minimized::Unknown;
                }
                let wanted = played.summary();
                minimize(inputs, |inputs| {
                    play_inputs(judged, inputs).summary() == wanted
                })
            }
            (Some(_), Some(baseline)) => {
                let outcome = |inputs: &[Question<'_>]| {
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
    pub(super) fn row(&self, change: Option<&Change>) -> Vec<u8> {
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
    pub(super) fn records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let module = self.shared.subjects.module.pool().module();
        let redactor = &self.shared.saving;
        let mut secrets = SecretsFound::default();
        for step in &self.transaction.steps {
            redactor.input(&input_json(&step.input), &mut secrets);
        }
        for (step, reply) in self.transaction.steps.iter().zip(&self.new.replies) {
            let cost = reply.cost.as_ref();
            let line = RecordLine {
                id: &self.transaction.id,
                phase: step.input.phase().name(),
                at_ns: self.transaction.at_ns,
                module: &module.hash,
                input: &input_json(&step.input),
                output: &reply.answer,
                fault: reply.fault.as_ref(),
                fuel: cost.and_then(|cost| cost.fuel),
                wall_ns: cost
                    .filter(|_| self.shared.settings.timings)
                    .map(Cost::time_ns),
            };
            write_record(&line, (redactor, &mut secrets), &mut out);
        }
        out
    }
}
