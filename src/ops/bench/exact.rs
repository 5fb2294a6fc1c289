//! What does not depend on the machine: instructions and linear memory.

use super::cases::BenchCase;
use super::lab::{Lab, Stop};
use super::report::{CaseFuel, CaseReport, MemoryReport};
use crate::agent::{Agent, Handled};
use crate::limits::{Isolation, RECYCLE_MEMORY_PERCENT};
use crate::ops::validate::growth::fit;

/// Further calls of each case, the median of which is its warm cost.
const WARM_CALLS: usize = 31;
/// Calls on one instance for the growth of memory.
const MEMORY_CALLS: usize = 10_000;
/// Instructions that those may take, so that every machine makes as many.
const MEMORY_FUEL: u64 = 500_000_000;

/// Instructions of each case, on an instance of its own.
pub(super) fn cases(lab: &Lab<'_>, cases: &[BenchCase]) -> Result<Vec<CaseReport>, Stop> {
    cases.iter().map(|case| one(lab, case)).collect()
}

fn one(lab: &Lab<'_>, case: &BenchCase) -> Result<CaseReport, Stop> {
    let agent = lab.counting_agent();
    let handled = call(&agent, case, "counting instructions")?;
    let cost = handled.cost.unwrap_or_default();
    let first = cost.fuel.unwrap_or_default();
    let mut warm = Vec::new();
    for _ in 0..WARM_CALLS {
        let again = call(&agent, case, "counting instructions")?;
        warm.extend(again.cost.and_then(|cost| cost.fuel));
    }
    warm.sort_unstable();
    let fuel = CaseFuel {
        first,
        warm: warm.get(warm.len() / 2).copied().unwrap_or(first),
        warm_min: warm.first().copied().unwrap_or(first),
        warm_max: warm.last().copied().unwrap_or(first),
    };
    Ok(CaseReport {
        name: case.name.clone(),
        event: case.event.kind().name(),
        input_hash: case.input_hash.clone(),
        input_bytes: case.input_bytes,
        answer_bytes: cost.answer_bytes,
        decision: handled.response.decision.name(),
        fuel: Some(fuel),
        response: None,
        guest: None,
    })
}

fn call(agent: &Agent, case: &BenchCase, during: &str) -> Result<Handled, Stop> {
    let mut handled = agent.handle(&case.event);
    match handled.fault.take() {
        Some(fault) => Err(Stop::fault(during, Some(case), fault)),
        None => Ok(handled),
    }
}

/// Linear memory of one instance that is called on and on.
pub(super) fn memory(lab: &Lab<'_>, cases: &[BenchCase]) -> Result<MemoryReport, Stop> {
    let during = "watching its memory";
    let limit = lab.limits().max_memory_bytes;
    let most = match lab.isolation() {
        Isolation::Pooled => MEMORY_CALLS,
        Isolation::Fresh => 1,
        Isolation::Recycle(calls) => {
            usize::try_from(calls).map_or(MEMORY_CALLS, |calls| calls.min(MEMORY_CALLS))
        }
    };
    let agent = lab.counting_agent();
    let initial_bytes = agent
        .pool()
        .lease()
        .map_err(|fault| Stop::fault(during, None, *fault))?
        .memory_bytes();
    let mut memory = vec![initial_bytes];
    let mut fuel = 0;
    for case in cases.iter().cycle().take(most) {
        let cost = call(&agent, case, during)?.cost.unwrap_or_default();
        memory.push(cost.memory_bytes);
        fuel += cost.fuel.unwrap_or_default();
        // From here on production replaces the instance.
        if cost.memory_bytes > limit / 100 * RECYCLE_MEMORY_PERCENT || fuel > MEMORY_FUEL {
            break;
        }
    }
    Ok(MemoryReport {
        initial_bytes,
        peak_bytes: memory.iter().copied().max().unwrap_or(initial_bytes),
        growth: fit(&memory, cases.len(), limit),
    })
}
