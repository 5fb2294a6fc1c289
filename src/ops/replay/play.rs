//! A transaction through a module: its events in order, up to the one that
//! ends it.

use super::compare::Played;
use crate::abi::agent::HeaderNames;
use crate::agent::Agent;
use crate::capture::{StepInput, Transaction};
use crate::event::Event;
use crate::ops::exchange::Exchange;

/// Plays a captured transaction. Exact inputs go in byte for byte, unless
/// header names are to be spelled otherwise than they were.
pub(super) fn play(agent: &Agent, transaction: &Transaction) -> Played {
    let respelled = agent.settings().header_names != HeaderNames::Lower;
    let is_exact = |input: &StepInput| matches!(input, StepInput::Exact { .. });
    if respelled
        && transaction.steps.iter().any(|step| is_exact(&step.input))
        && let Ok(events) = transaction.events()
    {
        return play_events(agent, &events);
    }
    let mut exchange = Exchange::new(agent);
    let mut handled = Vec::with_capacity(transaction.steps.len());
    for step in &transaction.steps {
        let answered = exchange.ask(|agent| match &step.input {
            StepInput::Event(event) => agent.handle(event),
            StepInput::Exact {
                kind,
                chunk_index,
                json,
            } => agent.handle_exact(*kind, *chunk_index, json.as_bytes()),
        });
        match answered {
            Some(answered) => handled.push(answered),
            None => break,
        }
    }
    Played { handled }
}

/// Plays events that a fixture holds.
pub(super) fn play_events(agent: &Agent, events: &[Event]) -> Played {
    let mut exchange = Exchange::new(agent);
    let handled = events
        .iter()
        .map_while(|event| exchange.ask(|agent| agent.handle(event)))
        .collect();
    Played { handled }
}
