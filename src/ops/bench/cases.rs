//! What a module is called with: events of fixtures, or samples where nobody
//! gave any.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::abi::agent::{HeaderNames, write_input};
use crate::abi::handler_name;
use crate::event::Event;
use crate::fixture::Fixture;
use crate::module::Module;
use crate::ops::validate::samples;

/// One event, and what it is called in reports.
#[derive(Debug, Clone)]
pub struct BenchCase {
    /// The fixture's name, with the step where it has several. No two cases
    /// have the same.
    pub name: String,
    /// The event.
    pub event: Event,
    /// `sha256:` and the hash of the handler's name and the input JSON.
    pub input_hash: String,
    /// Bytes of the input JSON.
    pub input_bytes: u64,
}

/// Every step of every fixture, in order.
#[must_use]
pub fn of_fixtures(fixtures: &[Fixture], names: HeaderNames) -> Vec<BenchCase> {
    let named = fixtures.iter().flat_map(|fixture| {
        let many = fixture.steps.len() > 1;
        fixture.steps.iter().enumerate().map(move |(index, step)| {
            let name = if many {
                format!("{} [{}]", fixture.name, index + 1)
            } else {
                fixture.name.clone()
            };
            (name, step.event.clone())
        })
    });
    of_events(named, names)
}

/// Ordinary traffic, attacks and odd input, for the handlers that a module has.
#[must_use]
pub fn of_samples(module: &Module, names: HeaderNames) -> Vec<BenchCase> {
    let events = samples::events(module).into_iter().map(|(name, event)| {
        let half = match event.kind().name() {
            "request_headers" => String::new(),
            kind => format!("{}/", kind.replace('_', "-")),
        };
        (format!("{half}{name}"), event)
    });
    of_events(events, names)
}

/// The requests among those, for an agent whose handlers nobody knows.
#[must_use]
pub fn of_request_samples(names: HeaderNames) -> Vec<BenchCase> {
    let events = samples::requests_alone();
    of_events(
        events
            .into_iter()
            .map(|(name, event)| (name.to_owned(), event)),
        names,
    )
}

/// Cases of these events; a name that comes again gets a number.
pub fn of_events(
    events: impl IntoIterator<Item = (String, Event)>,
    names: HeaderNames,
) -> Vec<BenchCase> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    events
        .into_iter()
        .map(|(name, event)| {
            let times = seen.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times > 1 {
                format!("{name} #{times}")
            } else {
                name
            };
            let mut input = Vec::new();
            write_input(&event, names, &mut input);
            let hash = Sha256::new()
                .chain_update(handler_name(event.kind()))
                .chain_update([0])
                .chain_update(&input)
                .finalize();
            BenchCase {
                name,
                event,
                input_hash: format!("sha256:{hash:x}"),
                input_bytes: input.len() as u64,
            }
        })
        .collect()
}
