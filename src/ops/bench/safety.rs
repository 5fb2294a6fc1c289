//! Costs of isolation and limits: the same calls under each isolation and limit, by
//! turns, so that all have the same machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::harness::{Harness, Samples, measured};
use super::phases;
use super::progress::Meter;
use super::report::SafetyRow;
use super::stop::Stop;
use crate::guest::engine::EngineSettings;
use crate::guest::module::Module;
use crate::limits::{Isolation, Limits};
use crate::policy::Policy;
use crate::policy::pool::PoolSettings;

/// Turns each mode gets.
const TURNS: u32 = 20;
/// Most calls between two looks at the clock.
const CALLS: usize = 8;
/// Modes, where the system has room for slots.
pub(super) const MODES: u32 = 7;
const RECYCLE: Isolation = Isolation::Recycle(100);
/// How much more than the most expensive case a call may use up where fuel takes the
/// place of the deadline.
const FUEL_FACTOR: u64 = 1000;

/// One isolation with its limits, and what was measured of it.
pub(super) struct Mode {
    name: &'static str,
    is_chosen: bool,
    policy: Policy,
    samples: Samples,
    /// The case whose turn it is.
    next: usize,
    /// The time it had, without its first turn.
    taken: Duration,
}

impl Mode {
    /// Calls it for so long, and keeps the times but for the first turn.
    fn turn(&mut self, cases: &[BenchCase], time: Duration, is_kept: bool) -> Result<(), Stop> {
        let during = "comparing isolation and limits";
        let started = Instant::now();
        // One call of a slow guest may take all the time there is.
        let mut calls = 1;
        while started.elapsed() < time {
            for _ in 0..calls {
                let case = &cases[self.next % cases.len()];
                self.next += 1;
                let call = measured(&self.policy, case, during)?;
                if is_kept {
                    self.samples.record(&call);
                }
            }
            calls = CALLS.min(calls * 2);
        }
        if is_kept {
            self.taken += started.elapsed();
        }
        Ok(())
    }
}

/// Measures each mode for so long.
pub(super) fn measure(
    mut modes: Vec<Mode>,
    cases: &[BenchCase],
    time: Duration,
    meter: &Meter<'_>,
) -> Result<Vec<SafetyRow>, Stop> {
    // The first turn is for warming up.
    for number in 0..=TURNS {
        // Who has had the time already waits for the others.
        for mode in modes.iter_mut().filter(|mode| mode.taken <= time) {
            mode.turn(cases, time / TURNS, number > 0)?;
        }
        meter.tick();
    }
    let first = modes
        .first()
        .map_or(1.0, |mode| mode.samples.response.at(0.5).as_secs_f64());
    Ok(modes
        .into_iter()
        .map(|mode| SafetyRow {
            mode: mode.name.to_owned(),
            is_chosen: mode.is_chosen,
            ratio: mode.samples.response.at(0.5).as_secs_f64() / first,
            response: mode.samples.response,
        })
        .collect())
}

/// Every way to call the module. A call of the most expensive case takes this
/// fuel.
pub(super) fn modes(harness: &Harness<'_>, most_fuel: u64) -> Result<Vec<Mode>, Stop> {
    let limits = Limits {
        fuel: None,
        ..harness.pool.limits
    };
    let fuelled = Limits {
        fuel: Some(harness.pool.limits.fuel.unwrap_or_else(|| {
            most_fuel
                .saturating_mul(FUEL_FACTOR)
                .saturating_add(1_000_000)
        })),
        ..limits
    };
    let plain = if harness.pool.limits.fuel.is_none() {
        Arc::clone(&harness.module)
    } else {
        harness.on(EngineSettings::default())?
    };
    let without_deadlines = harness.on(EngineSettings {
        fuel: true,
        no_deadlines: true,
        ..EngineSettings::default()
    })?;
    let chosen = (harness.pool.isolation, harness.pool.limits.fuel.is_some());
    let mode = |name, module: &Arc<Module>, isolation, limits: Limits| Mode {
        name,
        is_chosen: chosen == (isolation, limits.fuel.is_some()),
        policy: harness.policy_of(
            module,
            PoolSettings {
                size: 1,
                isolation,
                limits,
                ..harness.pool
            },
        ),
        samples: Samples::default(),
        next: 0,
        taken: Duration::ZERO,
    };
    let pooled = Isolation::Pooled;
    let mut modes = vec![
        mode("pooled, deadline", &plain, pooled, limits),
        mode(
            "pooled, deadline and fuel",
            &harness.counting,
            pooled,
            fuelled,
        ),
        Mode {
            is_chosen: false,
            ..mode("pooled, fuel alone", &without_deadlines, pooled, fuelled)
        },
        mode("recycle=100, deadline", &plain, RECYCLE, limits),
        mode("fresh, deadline", &plain, Isolation::Fresh, limits),
        mode(
            "fresh, deadline and fuel",
            &harness.counting,
            Isolation::Fresh,
            fuelled,
        ),
    ];
    if let Some(slots) = phases::in_slots(harness) {
        let (name, limits) = if harness.pool.limits.fuel.is_none() {
            ("fresh from slots, deadline", limits)
        } else {
            ("fresh from slots, deadline and fuel", fuelled)
        };
        modes.push(Mode {
            is_chosen: false,
            ..mode(name, &slots, Isolation::Fresh, limits)
        });
    }
    Ok(modes)
}
