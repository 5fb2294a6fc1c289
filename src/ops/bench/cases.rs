//! What a module is called with: events of fixtures, or samples where nobody
//! gave any.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::report::CaseReport;
use super::steady::Steady;
use crate::capture::{Redactor, SecretsFound};
use crate::digest;
use crate::fault::Fault;
use crate::fixture::Fixture;
use crate::guest::convention::json_buffer::write_input;
use crate::guest::module::Module;
use crate::ops::validate::samples;
use crate::policy::BodySettings;
use crate::policy::bodies::{Collected, Collector, chunk_of};
use crate::question::{HeaderNames, Question, Timed};

/// One event or context, and what it is called in reports.
#[derive(Debug, Clone)]
pub struct BenchCase {
    /// The fixture's name, with the step where it has several. No two cases
    /// have the same.
    pub name: String,
    /// What the module is called with.
    pub input: Question<'static>,
    /// When it is, where the clocks of guests are fixed.
    pub(super) now: Option<SystemTime>,
    /// `sha256:` and the hash of the handler's name and the input JSON, of a
    /// captured one without its secrets.
    pub input_hash: String,
    /// Bytes of the input JSON.
    pub input_bytes: u64,
    /// Chunks that a collected body came in.
    pub(super) chunks: u32,
    /// It is of a capture, whose secrets are not written.
    is_captured: bool,
    /// What must not be written of it.
    pub(super) secrets: SecretsFound,
    /// Whether it is always answered alike.
    pub(super) steady: Steady,
}

impl BenchCase {
    /// As it stands in a report before it was measured.
    pub(super) fn unmeasured(&self) -> CaseReport {
        CaseReport {
            name: self.name.clone(),
            event: self.input.phase().name(),
            input_hash: self.input_hash.clone(),
            input_bytes: self.input_bytes,
            answer_bytes: 0,
            decision: "none",
            fuel: None,
            response: None,
            guest: None,
        }
    }

    /// The same for another module, or for other ways to call it: its first answer is
    /// another's.
    pub(super) fn anew(&self) -> Self {
        Self {
            steady: Steady::default(),
            ..self.clone()
        }
    }

    /// Says anew what the input is that it is called with now.
    fn measures(&mut self, names: HeaderNames) {
        let mut input = Vec::new();
        write_input(&self.input, names, &mut input);
        self.input_bytes = input.len() as u64;
        if !self.is_captured {
            self.input_hash = hash(&self.input, &input);
        } else {
            let exchange = self.secrets.clone();
            self.hide(&exchange, names);
        }
    }

    /// Keeps what is secret in a captured exchange out of all that is written.
    pub(super) fn hide(&mut self, exchange: &SecretsFound, names: HeaderNames) {
        let mut input = Vec::new();
        write_input(&self.input, names, &mut input);
        self.is_captured = true;
        self.secrets = exchange.known();
        let redactor = Redactor::with_numbers();
        let redacted = redactor.input(&String::from_utf8_lossy(&input), &mut self.secrets);
        self.input_hash = hash(&self.input, redacted.as_bytes());
        self.input_bytes = input.len() as u64;
        self.name = self.secrets.text(&self.name).into_owned();
    }

    /// A fault at it, which may quote its input.
    pub(super) fn hidden(&self, mut fault: Fault) -> Fault {
        if !self.is_captured {
            return fault;
        }
        let redactor = Redactor::with_numbers();
        let hidden = |text: &str| redactor.said(text, &self.secrets);
        fault.detail = hidden(&fault.detail);
        for word in &mut fault.words {
            *word = hidden(word);
        }
        fault
    }
}

/// What a fixture calls. The second hook of a pair gets the context as it was
/// written, since what the first leaves is the module's.
pub(super) fn inputs(fixture: &Fixture) -> Vec<Timed<Question<'static>>> {
    let Some(hooks) = &fixture.hooks else {
        let events = fixture.steps.iter().map(|step| Timed {
            at: step.now,
            question: step.event.clone().into(),
        });
        return events.collect();
    };
    let mut context = hooks.context.clone();
    hooks
        .steps
        .iter()
        .map(|step| {
            if step.data.is_some() {
                context.data.clone_from(&step.data);
            }
            Timed {
                at: step.now,
                question: Question::Hook(step.hook, Cow::Owned(context.clone())),
            }
        })
        .collect()
}

/// Ordinary traffic, attacks and odd input, for the handlers that a module has.
#[must_use]
pub(super) fn of_samples(module: &Module, names: HeaderNames) -> Vec<BenchCase> {
    let named = samples::all(module).into_iter().map(|sample| {
        let name = match sample.input.phase().name() {
            "request_headers" => sample.name.to_owned(),
            kind => format!("{}/{}", kind.replace('_', "-"), sample.name),
        };
        (name, sample.input)
    });
    of_inputs(named, names)
}

/// The requests among those, for an agent whose handlers nobody knows.
#[must_use]
pub(super) fn of_request_samples(names: HeaderNames) -> Vec<BenchCase> {
    let named = samples::requests().map(|sample| (sample.name.to_owned(), sample.input));
    of_inputs(named, names)
}

/// Cases of exchanges, as they are grouped.
pub(super) fn of_exchanges(
    exchanges: Vec<Vec<(String, Timed<Question<'static>>)>>,
    names: HeaderNames,
) -> Vec<Vec<BenchCase>> {
    let sizes: Vec<usize> = exchanges.iter().map(Vec::len).collect();
    let all = exchanges.into_iter().flatten();
    let (times, named): (Vec<_>, Vec<_>) = all
        .map(|(name, timed)| (timed.at, (name, timed.question)))
        .unzip();
    let cases = of_inputs(named, names).into_iter().zip(times);
    let mut cases = cases.map(|(case, now)| BenchCase { now, ..case });
    sizes
        .into_iter()
        .map(|size| cases.by_ref().take(size).collect())
        .collect()
}

/// The cases of an exchange as a module is asked that wants whole bodies: the last
/// chunk of each has all of it, and the others are not there.
pub(super) fn with_whole_bodies(
    exchange: Vec<BenchCase>,
    bodies: BodySettings,
    names: HeaderNames,
) -> Vec<BenchCase> {
    let mut collectors = [Collector::new(false), Collector::new(false)];
    let mut whole = Vec::new();
    for mut case in exchange {
        let Some(mut event) = case.input.event().cloned() else {
            whole.push(case);
            continue;
        };
        let side = usize::from(!event.kind().is_request());
        let taken =
            chunk_of(&mut event).map(|chunk| collectors[side].take(chunk, bodies.max_bytes));
        match taken {
            Some(Ok(Collected::More)) => {}
            Some(Ok(Collected::Whole(chunks))) => {
                case.input = event.into();
                case.chunks = chunks;
                case.measures(names);
                whole.push(case);
            }
            // One that cannot be collected is measured as the fault that it is.
            None | Some(Err(_)) => whole.push(case),
        }
    }
    whole
}

/// Cases of these; a name that comes again gets a number.
#[must_use]
pub fn of_inputs(
    inputs: impl IntoIterator<Item = (String, Question<'static>)>,
    names: HeaderNames,
) -> Vec<BenchCase> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    inputs
        .into_iter()
        .map(|(name, input)| {
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times > 1 {
                format!("{name} #{times}")
            } else {
                name
            };
            let mut json = Vec::new();
            write_input(&input, names, &mut json);
            BenchCase {
                name,
                input_hash: hash(&input, &json),
                input,
                now: None,
                input_bytes: json.len() as u64,
                chunks: 1,
                is_captured: false,
                secrets: SecretsFound::default(),
                steady: Steady::default(),
            }
        })
        .collect()
}

fn hash(input: &Question<'_>, json: &[u8]) -> String {
    digest::sha256(&[input.phase().handler().as_bytes(), &[0], json])
}
