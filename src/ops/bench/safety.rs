//! Costs of isolation and limits: the same calls under each isolation and limit, by
//! turns, so that all have the same machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::lab::{Lab, Samples, Stop, timed};
use super::progress::Meter;
use super::report::SafetyRow;
use super::{Amount, phases};
use crate::guest::engine::EngineSettings;
use crate::guest::module::Module;
use crate::limits::{Isolation, Limits};
use crate::policy::Policy;

/// Turns each mode gets.
const TURNS: u32 = 20;
/// Most calls between two looks at the clock.
const CALLS: usize = 8;
/// Modes, where the system has room for slots.
pub(super) const MODES: u32 = 7;
const RECYCLE: Isolation = Isolation::Recycle(100);
/// How much more than the dearest case a call may use up where fuel takes the
/// place of the deadline.
const FUEL_ROOM: u64 = 1000;

struct Mode {
    name: &'static str,
    is_chosen: bool,
    subject: Policy,
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
                let timed = timed(&self.subject, case)
                    .map_err(|fault| Stop::fault(during, Some(case), *fault))?;
                if is_kept {
                    self.samples.record(timed);
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

/// Measures each mode. `dearest` is the fuel of the dearest case.
pub(super) fn measure(
    lab: &Lab<'_>,
    cases: &[BenchCase],
    (amount, dearest): (Amount, u64),
    meter: &Meter<'_>,
) -> Result<Vec<SafetyRow>, Stop> {
    let mut modes = modes(lab, dearest)?;
    let time = match amount {
        Amount::Time(time) => time,
        Amount::Calls(_) => Duration::from_millis(100),
    };
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

fn modes(lab: &Lab<'_>, dearest: u64) -> Result<Vec<Mode>, Stop> {
    let limits = Limits {
        fuel: None,
        ..lab.limits()
    };
    let fuelled = Limits {
        fuel: Some(
            lab.limits()
                .fuel
                .unwrap_or_else(|| dearest.saturating_mul(FUEL_ROOM).saturating_add(1_000_000)),
        ),
        ..limits
    };
    let plain = if lab.limits().fuel.is_none() {
        Arc::clone(&lab.module)
    } else {
        lab.on(EngineSettings::default())?
    };
    let without_deadlines = lab.on(EngineSettings {
        fuel: true,
        no_deadlines: true,
        ..EngineSettings::default()
    })?;
    let chosen = (lab.isolation(), lab.limits().fuel.is_some());
    let mode = |name, module: &Arc<Module>, isolation, limits: Limits| Mode {
        name,
        is_chosen: chosen == (isolation, limits.fuel.is_some()),
        subject: lab.subject_of(module, (1, isolation), limits),
        samples: Samples::default(),
        next: 0,
        taken: Duration::ZERO,
    };
    let pooled = Isolation::Pooled;
    let mut modes = vec![
        mode("pooled, deadline", &plain, pooled, limits),
        mode("pooled, deadline and fuel", &lab.counting, pooled, fuelled),
        Mode {
            is_chosen: false,
            ..mode("pooled, fuel alone", &without_deadlines, pooled, fuelled)
        },
        mode("recycle=100, deadline", &plain, RECYCLE, limits),
        mode("fresh, deadline", &plain, Isolation::Fresh, limits),
        mode(
            "fresh, deadline and fuel",
            &lab.counting,
            Isolation::Fresh,
            fuelled,
        ),
    ];
    if let Some(slots) = phases::in_slots(lab) {
        let (name, limits) = if lab.limits().fuel.is_none() {
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
