//! What a module is called with: events of fixtures, or samples where nobody
//! gave any.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::abi::agent::{HeaderNames, write_input};
use crate::abi::handler_name;
use crate::abi::hook::{self, Hook, HookContext};
use crate::event::Event;
use crate::fixture::Fixture;
use crate::module::Module;
use crate::ops::subject::Subject;
use crate::ops::validate::samples;

/// What a module is asked.
#[derive(Debug, Clone)]
pub enum Asked {
    /// About an event.
    Event(Event),
    /// To look at a context, by this hook.
    Hook(Hook, HookContext),
}

impl Asked {
    /// The name of the event or hook.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Event(event) => event.kind().name(),
            Self::Hook(hook, _) => hook.name(),
        }
    }

    /// The handler, and the input JSON it gets.
    fn input(&self, names: HeaderNames) -> (&'static str, Vec<u8>) {
        let mut input = Vec::new();
        match self {
            Self::Event(event) => {
                write_input(event, names, &mut input);
                (handler_name(event.kind()), input)
            }
            Self::Hook(hook, context) => {
                hook::write_input(context, &mut input);
                (hook.name(), input)
            }
        }
    }

    /// Whether it is asked of a module like this.
    pub(super) fn suits(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Event(event), Subject::Agent(agent)) => agent.handles(event.kind()),
            (Self::Hook(hook, _), Subject::Plugin(plugin)) => plugin.has(*hook),
            (Self::Event(_), Subject::Plugin(_)) | (Self::Hook(..), Subject::Agent(_)) => false,
        }
    }
}

/// One event or hook, and what it is called in reports.
#[derive(Debug, Clone)]
pub struct BenchCase {
    /// The fixture's name, with the step where it has several. No two cases
    /// have the same.
    pub name: String,
    /// The event, or the hook and its context.
    pub asked: Asked,
    /// `sha256:` and the hash of the handler's name and the input JSON.
    pub input_hash: String,
    /// Bytes of the input JSON.
    pub input_bytes: u64,
}

/// Every step of every fixture, in order.
#[must_use]
pub fn of_fixtures(fixtures: &[Fixture], names: HeaderNames) -> Vec<BenchCase> {
    let named = fixtures.iter().flat_map(|fixture| {
        let steps = steps(fixture);
        let many = steps.len() > 1;
        steps.into_iter().enumerate().map(move |(index, asked)| {
            let name = if many {
                format!("{} [{}]", fixture.name, index + 1)
            } else {
                fixture.name.clone()
            };
            (name, asked)
        })
    });
    of_asked(named, names)
}

/// A fixture's steps. The second hook of a pair is asked with the pair's own
/// context, since what the first makes of it hangs on the module.
fn steps(fixture: &Fixture) -> Vec<Asked> {
    let Some(hooks) = &fixture.hooks else {
        let events = fixture.steps.iter().map(|step| step.event.clone());
        return events.map(Asked::Event).collect();
    };
    let asked = hooks.steps.iter().map(|step| {
        let mut context = hooks.context.clone();
        if step.data.is_some() {
            context.data.clone_from(&step.data);
        }
        Asked::Hook(step.hook, context)
    });
    asked.collect()
}

/// Ordinary traffic, attacks and odd input, for the handlers that a module has.
#[must_use]
pub fn of_samples(module: &Module, names: HeaderNames) -> Vec<BenchCase> {
    let samples = samples::asked(module).into_iter().map(|(name, asked)| {
        let half = match asked.name() {
            "request_headers" => String::new(),
            kind => format!("{}/", kind.replace('_', "-")),
        };
        (format!("{half}{name}"), asked)
    });
    of_asked(samples, names)
}

/// The requests among those, for an agent whose handlers nobody knows.
#[must_use]
pub fn of_request_samples(names: HeaderNames) -> Vec<BenchCase> {
    let events = samples::requests_alone();
    of_asked(
        events
            .into_iter()
            .map(|(name, event)| (name.to_owned(), Asked::Event(event))),
        names,
    )
}

/// Cases of these; a name that comes again gets a number.
pub fn of_asked(
    all: impl IntoIterator<Item = (String, Asked)>,
    names: HeaderNames,
) -> Vec<BenchCase> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    all.into_iter()
        .map(|(name, asked)| {
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times > 1 {
                format!("{name} #{times}")
            } else {
                name
            };
            let (handler, input) = asked.input(names);
            let hash = Sha256::new()
                .chain_update(handler)
                .chain_update([0])
                .chain_update(&input)
                .finalize();
            BenchCase {
                name,
                asked,
                input_hash: format!("sha256:{hash:x}"),
                input_bytes: input.len() as u64,
            }
        })
        .collect()
}
