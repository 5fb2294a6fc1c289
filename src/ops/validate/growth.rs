//! Does `dealloc` give memory back: many calls on one instance, and a line
//! fitted to its linear memory.

use serde::Serialize;

use crate::check::{Check, CheckKind, CheckStatus};
use crate::limits::{Isolation, RECYCLE_MEMORY_PERCENT};
use crate::policy::pool::Room;

use super::Row;
use super::calls::{Prober, Trial};

/// Memory grows in pages of 64 KiB, so a leak of 16 bytes a call shows twice
/// within this many.
const MAX_CALLS: usize = 10_000;
const BUDGET: u64 = 500_000_000;

/// What calls on one instance keep of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Growth {
    /// Calls made.
    pub calls: u64,
    /// Bytes kept for each call; 0 where memory does not go on growing.
    pub bytes_per_call: f64,
    /// Calls after which an instance would meet its memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_until_limit: Option<u64>,
    /// Calls after which an instance is thrown away and replaced, because its
    /// memory has grown near the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_after: Option<u64>,
}

impl Growth {
    /// What becomes of an instance that grows so, for people; nothing where it
    /// is kept.
    #[must_use]
    pub(crate) fn fate(&self) -> Option<String> {
        let calls = self.replaced_after?;
        let times = if calls == 1 { "call" } else { "calls" };
        Some(format!(
            "an instance is replaced after {calls} {times}, once it has grown by {RECYCLE_MEMORY_PERCENT} % of what --max-memory leaves it after its start"
        ))
    }
}

/// Calls one instance until memory, time or patience runs out.
pub(super) fn probe(prober: &Prober<'_>, trials: &[Trial]) -> (Option<Growth>, Row) {
    let id = CheckKind::Growth;
    let gate = prober.settings.max_growth_bytes;
    let expected = gate.map_or_else(
        || "no memory kept".to_owned(),
        |gate| format!("at most {gate} bytes kept for each call"),
    );
    let usable: Vec<&Trial> = trials
        .iter()
        .filter(|trial| trial.is_survived() && trial.seen.result.is_ok())
        .filter(|trial| trial.sample.is_ordinary())
        .collect();
    let most = match prober.isolation() {
        Isolation::Pooled => MAX_CALLS,
        Isolation::Recycle(calls) => {
            usize::try_from(calls).map_or(MAX_CALLS, |calls| calls.min(MAX_CALLS))
        }
        Isolation::Fresh => {
            let why = "not tried, an instance serves one call (--isolation fresh)";
            return (None, Row::skip(id, expected, why));
        }
    };
    if prober.is_exhausted() || usable.is_empty() {
        let why = if usable.is_empty() {
            "not tried, the instance faults at every sample".to_owned()
        } else {
            prober.why_skipped()
        };
        return (None, Row::skip(id, expected, why));
    }
    let (memory, is_replaced) = match call_on_and_on(prober, &usable, most) {
        Ok(seen) => seen,
        Err(row) => return (None, *row),
    };
    let limit = prober.module.limits.max_memory_bytes;
    let mut growth = fit(&memory, usable.len(), limit);
    growth.replaced_after = is_replaced.then_some(growth.calls);
    let check = judge(
        Check::pass(id, expected, found(&growth, &memory)),
        &growth,
        gate,
    );
    (Some(growth), check.into())
}

/// Linear memory before the first call and after each, and whether production
/// would replace the instance after the last.
fn call_on_and_on(
    prober: &Prober<'_>,
    trials: &[&Trial],
    most: usize,
) -> Result<(Vec<u64>, bool), Box<Row>> {
    let id = CheckKind::Growth;
    let limits = prober.module.limits;
    let mut instance = prober
        .instance()
        .map_err(|fault| Row::fault(id, "an instance", &fault))?;
    let room = Room::new(limits.max_memory_bytes);
    let mut is_replaced = false;
    let budget = prober.budget(BUDGET);
    let mut memory = vec![instance.memory_bytes()];
    for (call, trial) in trials.iter().cycle().take(most).enumerate() {
        if budget.is_spent() || is_replaced {
            break;
        }
        let seen = prober.call(&mut instance, &trial.sample);
        memory.push(seen.cost.memory_bytes);
        if let (Some(code), Err(fault)) = (seen.poison, &seen.result) {
            let expected = "any number of calls on one instance";
            let mut row = Row::fault(id, expected, fault);
            row.check.found = format!(
                "{}, in call {} on one instance ({} bytes of memory)",
                row.check.found,
                call + 1,
                seen.cost.memory_bytes
            );
            row.fault = Some(code);
            return Err(Box::new(row));
        }
        if seen.poison.is_some() {
            break;
        }
        is_replaced = !room.has_some_for(&instance);
    }
    Ok((memory, is_replaced))
}

fn found(growth: &Growth, memory: &[u64]) -> String {
    let (first, last) = (memory[0], memory[memory.len() - 1]);
    let kept = match growth.calls_until_limit {
        Some(until) => format!(
            "{:.0} bytes kept for each call; the limit is met after {until} calls",
            growth.bytes_per_call
        ),
        None if last > first => format!("{} bytes in all, then no growth", last - first),
        None => "none".to_owned(),
    };
    match growth.fate() {
        Some(fate) => format!("{kept}; {fate}"),
        None => kept,
    }
}

fn judge(check: Check, growth: &Growth, gate: Option<u64>) -> Check {
    let fix = "free in dealloc what it gets: the input after each call, and the answer";
    let is_over = |gate: u64| growth.bytes_per_call.round() > gate as f64;
    match gate {
        Some(gate) if is_over(gate) => check.with(CheckStatus::Fail, fix),
        None if growth.calls_until_limit.is_some() || growth.replaced_after.is_some() => {
            check.with(CheckStatus::Warn, fix)
        }
        Some(_) | None => check,
    }
}

/// The slope of memory over calls, once the first calls have warmed it up.
///
/// An allocator that grows once and then lives on what it has does not leak;
/// memory that grows in both halves of the calls does.
pub(in crate::ops) fn fit(memory: &[u64], cycle: usize, limit: u64) -> Growth {
    let calls = memory.len().saturating_sub(1);
    let warm_up = (calls / 10).max(cycle * 2).min(calls / 2);
    let rest = memory.get(warm_up..).unwrap_or_default();
    let half = rest.len() / 2;
    let grew = |part: &[u64]| part.last() > part.first();
    let is_leak = rest.len() >= 4 && grew(&rest[..half]) && grew(&rest[half..]);
    let grown = rest.last().unwrap_or(&0) - rest.first().unwrap_or(&0);
    let room = limit.saturating_sub(memory[0]);
    Growth {
        calls: calls as u64,
        bytes_per_call: if is_leak { slope(rest) } else { 0.0 },
        calls_until_limit: is_leak.then(|| room * (rest.len() as u64 - 1) / grown),
        replaced_after: None,
    }
}

/// Least squares over `(0, values[0])`, `(1, values[1])` and so on.
fn slope(values: &[u64]) -> f64 {
    let count = values.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = values
        .iter()
        .map(|value| *value as f64 / count)
        .sum::<f64>();
    let (mut over, mut under) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let distance = at as f64 - middle;
        over += distance * (*value as f64 - mean);
        under += distance * distance;
    }
    if under == 0.0 { 0.0 } else { over / under }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 64 << 20;
    const PAGE: u64 = 64 << 10;

    #[test]
    fn a_page_for_each_call_is_a_slope_of_a_page() {
        let memory: Vec<u64> = (0..700).map(|call| PAGE + call * PAGE).collect();
        let growth = fit(&memory, 10, LIMIT);
        assert!((growth.bytes_per_call - PAGE as f64).abs() < 1e-6);
        assert_eq!(growth.calls_until_limit, Some(1023));
    }

    #[test]
    fn a_small_leak_is_seen_through_the_steps_of_pages() {
        let memory: Vec<u64> = (0..2000)
            .map(|call| PAGE + call * 200 / PAGE * PAGE)
            .collect();
        let growth = fit(&memory, 10, LIMIT);
        assert!(
            (150.0..250.0).contains(&growth.bytes_per_call),
            "{growth:?}"
        );
        assert!(growth.calls_until_limit.is_some());
    }

    #[test]
    fn an_allocator_that_warms_up_does_not_leak() {
        let memory: Vec<u64> = (0..2000_u64)
            .map(|call| PAGE * (1 + u64::from(call > 3) + u64::from(call > 900)))
            .collect();
        assert_eq!(fit(&memory, 10, LIMIT).bytes_per_call, 0.0);
        assert_eq!(fit(&memory, 10, LIMIT).calls_until_limit, None);
    }

    #[test]
    fn few_calls_say_nothing() {
        for calls in 1..5 {
            let growth = fit(&vec![PAGE; calls], 10, LIMIT);
            assert_eq!(growth.calls_until_limit, None);
        }
    }
}
