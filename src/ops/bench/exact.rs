//! What does not depend on the machine: instructions and linear memory.

use super::cases::BenchCase;
use super::harness::{Harness, measured};
use super::report::{CaseFuel, CaseReport, MemoryReport};
use super::stop::Stop;
use crate::limits::Isolation;
use crate::ops::validate::growth::{Ended, Watch};

/// How often a case is tried that misses its deadline.
const ATTEMPTS: u32 = 4;
/// Further calls of each case, the median of which is its warm cost.
const WARM_CALLS: usize = 31;
/// Instructions that those may take, but for the least of them: so that every
/// machine makes as many.
const WARM_FUEL: u64 = 200_000_000;
const LEAST_WARM_CALLS: usize = 3;
/// Calls on one instance for the growth of memory.
const MEMORY_CALLS: usize = 10_000;
/// Instructions that those may take, so that every machine makes as many.
const MEMORY_FUEL: u64 = 500_000_000;

/// Instructions of each case, on an instance of its own.
pub(super) fn cases(harness: &Harness<'_>, cases: &[BenchCase]) -> Result<Vec<CaseReport>, Stop> {
    cases
        .iter()
        .map(|case| patiently(|| one(harness, case)))
        .collect()
}

/// A guest that was not let run misses its deadline too, and then does not
/// when it is asked again. One that loops does every time.
fn patiently<T>(mut measure: impl FnMut() -> Result<T, Stop>) -> Result<T, Stop> {
    for _ in 1..ATTEMPTS {
        match measure() {
            Err(Stop::Failure(failure)) if failure.is_deadline() => {}
            done => return done,
        }
    }
    measure()
}

fn one(harness: &Harness<'_>, case: &BenchCase) -> Result<CaseReport, Stop> {
    let policy = harness.counting_policy();
    let during = "counting instructions";
    let answered = measured(&policy, case, during)?;
    let first = answered.cost.fuel.unwrap_or_default();
    let mut warm = Vec::new();
    let mut spent = 0;
    while warm.len() < LEAST_WARM_CALLS || warm.len() < WARM_CALLS && spent < WARM_FUEL {
        let again = measured(&policy, case, during)?;
        let fuel = again.cost.fuel.unwrap_or_default();
        spent += fuel;
        warm.push(fuel);
    }
    warm.sort_unstable();
    let fuel = CaseFuel {
        first,
        warm: warm.get(warm.len() / 2).copied().unwrap_or(first),
        warm_min: warm.first().copied().unwrap_or(first),
        warm_max: warm.last().copied().unwrap_or(first),
    };
    Ok(CaseReport {
        answer_bytes: answered.cost.answer_bytes,
        decision: answered.decision,
        fuel: Some(fuel),
        ..case.unmeasured()
    })
}

/// Linear memory of one instance that is called on and on.
pub(super) fn memory(harness: &Harness<'_>, cases: &[BenchCase]) -> Result<MemoryReport, Stop> {
    patiently(|| on_and_on(harness, cases))
}

fn on_and_on(harness: &Harness<'_>, cases: &[BenchCase]) -> Result<MemoryReport, Stop> {
    let during = "watching its memory";
    let limit = harness.pool.limits.max_memory_bytes;
    let most = match harness.pool.isolation {
        Isolation::Pooled => MEMORY_CALLS,
        Isolation::Fresh => 1,
        Isolation::Recycle(calls) => {
            usize::try_from(calls).map_or(MEMORY_CALLS, |calls| calls.min(MEMORY_CALLS))
        }
    };
    let policy = harness.counting_policy();
    let initial_bytes = policy
        .pool()
        .lease()
        .map_err(|fault| Stop::fault(during, None, *fault))?
        .memory_bytes();
    let mut memory = Watch::new(initial_bytes);
    let mut fuel = 0;
    // From there on production replaces the instance, as the pool here does.
    let is_replaced = || policy.pool().counts().dropped_memory > 0;
    for case in cases.iter().cycle().take(most) {
        let cost = measured(&policy, case, during)?.cost;
        memory.add(cost.memory_bytes);
        fuel += cost.fuel.unwrap_or_default();
        if is_replaced() || fuel > MEMORY_FUEL {
            break;
        }
    }
    let ended = if is_replaced() {
        Ended::Replaced
    } else if memory.calls() < most as u64 {
        Ended::Early
    } else if most < MEMORY_CALLS {
        Ended::Life
    } else {
        Ended::Patience
    };
    let growth = memory.growth(cases.len(), limit, ended);
    Ok(MemoryReport {
        initial_bytes,
        peak_bytes: memory.bytes(),
        growth,
    })
}
