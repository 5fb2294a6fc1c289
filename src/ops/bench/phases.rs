//! What a module takes before it answers at its usual speed, phase by phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::lab::{Lab, Stop, timed};
use super::progress::Meter;
use super::report::{Phases, Spread};
use crate::guest::Instance;
use crate::guest::engine::{Allocation, Engine, EngineSettings};
use crate::guest::module::{Candidate, Module};
use crate::policy::Policy;

/// Loads, unless they take longer than [`LOAD_TIME`].
const LOADS: usize = 5;
const LOAD_TIME: Duration = Duration::from_millis(1500);
/// Instances of each kind, and first calls.
const INSTANCES: usize = 200;
const INSTANCE_TIME: Duration = Duration::from_millis(300);

/// What measuring the phases takes at most, once the first load is done.
pub(super) const EXPECTED: Duration = Duration::from_millis(2400);

/// Measures them. The first and the warm call are those of the first case.
pub(super) fn measure(lab: &Lab<'_>, case: &BenchCase, meter: &Meter<'_>) -> Result<Phases, Stop> {
    let (read, compile) = loads(lab, meter)?;
    let during = "making instances";
    let instantiate_on_demand = instances(lab, &lab.module, during)?;
    let instantiate_in_slot = match in_slots(lab) {
        Some(module) => Some(instances(lab, &module, during)?),
        None => None,
    };
    meter.tick();
    let (first_call, warm_call) = calls(lab, case)?;
    Ok(Phases {
        read,
        compile,
        instantiate_on_demand,
        instantiate_in_slot,
        first_call,
        warm_call,
    })
}

fn loads(lab: &Lab<'_>, meter: &Meter<'_>) -> Result<(Spread, Spread), Stop> {
    let engine = Engine::new(EngineSettings {
        fuel: lab.limits().fuel.is_some(),
        ..EngineSettings::default()
    })?;
    let (mut read, mut compile) = (Vec::new(), Vec::new());
    let until = Instant::now() + LOAD_TIME;
    while read.len() < LOADS && (read.is_empty() || Instant::now() < until) {
        let started = Instant::now();
        let candidate = Candidate::read(lab.path, lab.load())?;
        read.push(started.elapsed());
        let module = candidate.compile(&engine, &lab.load().load)?;
        compile.push(module.compile_time);
        meter.tick();
    }
    Ok((spread(read), spread(compile)))
}

/// The module with slots mapped beforehand; none where there is no room.
pub(super) fn in_slots(lab: &Lab<'_>) -> Option<Arc<Module>> {
    let memory_bytes = usize::try_from(lab.limits().max_memory_bytes).ok()?;
    lab.on(EngineSettings {
        fuel: lab.limits().fuel.is_some(),
        allocation: Allocation::Slots {
            count: 2,
            memory_bytes,
        },
        ..EngineSettings::default()
    })
    .ok()
}

fn instances(lab: &Lab<'_>, module: &Arc<Module>, during: &str) -> Result<Spread, Stop> {
    repeated(|| {
        let started = Instant::now();
        let instance = Instance::new(module, lab.limits())
            .map_err(|fault| Stop::fault(during, None, *fault))?;
        let made = started.elapsed();
        drop(instance);
        Ok([made])
    })
    .map(|[made]| made)
}

/// The first call on an instance, and the third.
fn calls(lab: &Lab<'_>, case: &BenchCase) -> Result<(Spread, Spread), Stop> {
    let call = |subject: &Policy| {
        timed(subject, case)
            .map(|timed| timed.response)
            .map_err(|fault| Stop::fault("making first calls", Some(case), *fault))
    };
    repeated(|| {
        let subject = lab.subject(1);
        // The instance is made by now, and has not been called.
        subject.pool().fill(1)?;
        let first = call(&subject)?;
        call(&subject)?;
        Ok([first, call(&subject)?])
    })
    .map(|[first, warm]| (first, warm))
}

fn repeated<const N: usize>(
    mut measure: impl FnMut() -> Result<[Duration; N], Stop>,
) -> Result<[Spread; N], Stop> {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::new());
    let until = Instant::now() + INSTANCE_TIME;
    for _ in 0..INSTANCES {
        for (times, time) in times.iter_mut().zip(measure()?) {
            times.push(time);
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(times.map(spread))
}

fn spread(times: Vec<Duration>) -> Spread {
    Spread::of(times).unwrap_or(Spread {
        count: 0,
        min_ns: 0,
        median_ns: 0,
        max_ns: 0,
    })
}
