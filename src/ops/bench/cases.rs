//! What a module is called with: events of fixtures, or samples where nobody
//! gave any.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::abi::agent::{HeaderNames, write_input};
use crate::abi::hook::{self, Hook, HookContext};
use crate::abi::{Abi, handler_name};
use crate::capture::{Found, Redactor};
use crate::event::Event;
use crate::fault::Fault;
use crate::fixture::Fixture;
use crate::module::Module;
use crate::ops::validate::samples;

/// What a module is called with.
#[derive(Debug, Clone)]
pub enum Work {
    /// An event, for the agent ABI.
    Event(Event),
    /// A hook's context, for the hook ABI.
    Hook(Hook, Box<HookContext>),
}

impl Work {
    /// The name of the event or hook.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Event(event) => event.kind().name(),
            Self::Hook(hook, _) => hook.name(),
        }
    }

    /// The export that is called.
    #[must_use]
    pub const fn handler(&self) -> &'static str {
        match self {
            Self::Event(event) => handler_name(event.kind()),
            Self::Hook(hook, _) => hook.name(),
        }
    }

    /// The ABI of the modules it is for.
    #[must_use]
    pub const fn abi(&self) -> Abi {
        match self {
            Self::Event(_) => Abi::Agent,
            Self::Hook(..) => Abi::Hook,
        }
    }

    fn write(&self, names: HeaderNames, out: &mut Vec<u8>) {
        match self {
            Self::Event(event) => write_input(event, names, out),
            Self::Hook(_, context) => hook::write_input(context, out),
        }
    }
}

/// One event or context, and what it is called in reports.
#[derive(Debug, Clone)]
pub struct BenchCase {
    /// The fixture's name, with the step where it has several. No two cases
    /// have the same.
    pub name: String,
    /// What the module is called with.
    pub work: Work,
    /// `sha256:` and the hash of the handler's name and the input JSON, of a
    /// captured one without its secrets.
    pub input_hash: String,
    /// Bytes of the input JSON.
    pub input_bytes: u64,
    /// What must not be written of it.
    pub(super) secrets: Found,
}

impl BenchCase {
    /// Keeps what is secret in a captured input out of all that is written.
    pub(super) fn hide(&mut self, redactor: &Redactor, names: HeaderNames) {
        let mut input = Vec::new();
        self.work.write(names, &mut input);
        let redacted = redactor.input(&String::from_utf8_lossy(&input), &mut self.secrets);
        self.input_hash = hash(&self.work, redacted.as_bytes());
        self.name = self.secrets.text(&self.name).into_owned();
    }

    /// A fault at it, which may quote its input.
    pub(super) fn hidden(&self, mut fault: Fault) -> Fault {
        let hidden = |text: &str| self.secrets.text(text).into_owned();
        fault.detail = hidden(&fault.detail);
        for word in &mut fault.words {
            *word = hidden(word);
        }
        fault
    }
}

/// What a fixture calls. The second hook of a pair gets the context as it was
/// written, since what the first leaves is the module's.
pub(super) fn works(fixture: &Fixture) -> Vec<Work> {
    let Some(hooks) = &fixture.hooks else {
        let events = fixture.steps.iter().map(|step| step.event.clone());
        return events.map(Work::Event).collect();
    };
    let mut context = hooks.context.clone();
    hooks
        .steps
        .iter()
        .map(|step| {
            if step.data.is_some() {
                context.data.clone_from(&step.data);
            }
            Work::Hook(step.hook, Box::new(context.clone()))
        })
        .collect()
}

/// Ordinary traffic, attacks and odd input, for the handlers that a module has.
#[must_use]
pub(super) fn of_samples(module: &Module, names: HeaderNames) -> Vec<BenchCase> {
    let events = samples::events(module)
        .into_iter()
        .map(|(name, event)| (name, Work::Event(event)));
    let contexts = samples::contexts(module)
        .into_iter()
        .map(|(name, hook, context)| (name, Work::Hook(hook, Box::new(context))));
    let named = events.chain(contexts).map(|(name, work)| {
        let name = match work.name() {
            "request_headers" => name.to_owned(),
            kind => format!("{}/{name}", kind.replace('_', "-")),
        };
        (name, work)
    });
    of_works(named, names)
}

/// The requests among those, for an agent whose handlers nobody knows.
#[must_use]
pub(super) fn of_request_samples(names: HeaderNames) -> Vec<BenchCase> {
    let events = samples::requests_alone();
    let named = events
        .into_iter()
        .map(|(name, event)| (name.to_owned(), Work::Event(event)));
    of_works(named, names)
}

/// Cases of exchanges, as they are grouped.
pub(super) fn of_exchanges(
    exchanges: Vec<Vec<(String, Work)>>,
    names: HeaderNames,
) -> Vec<Vec<BenchCase>> {
    let sizes: Vec<usize> = exchanges.iter().map(Vec::len).collect();
    let mut cases = of_works(exchanges.into_iter().flatten(), names).into_iter();
    sizes
        .into_iter()
        .map(|size| cases.by_ref().take(size).collect())
        .collect()
}

/// Cases of these; a name that comes again gets a number.
#[must_use]
pub fn of_works(
    works: impl IntoIterator<Item = (String, Work)>,
    names: HeaderNames,
) -> Vec<BenchCase> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    works
        .into_iter()
        .map(|(name, work)| {
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times > 1 {
                format!("{name} #{times}")
            } else {
                name
            };
            let mut input = Vec::new();
            work.write(names, &mut input);
            BenchCase {
                name,
                input_hash: hash(&work, &input),
                work,
                input_bytes: input.len() as u64,
                secrets: Found::default(),
            }
        })
        .collect()
}

fn hash(work: &Work, input: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(work.handler())
        .chain_update([0])
        .chain_update(input)
        .finalize();
    format!("sha256:{hash:x}")
}
