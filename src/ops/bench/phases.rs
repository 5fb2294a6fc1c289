//! What a module takes before it answers at its usual speed, phase by phase.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::harness::{Harness, measured};
use super::progress::Meter;
use super::report::{Phases, Spread};
use super::stop::Stop;
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
pub(super) fn measure(
    harness: &Harness<'_>,
    case: &BenchCase,
    meter: &Meter<'_>,
) -> Result<Phases, Stop> {
    let (read, compile) = loads(harness, meter)?;
    let during = "making instances";
    let instantiate_on_demand = instances(harness, &harness.module, during)?;
    let instantiate_in_slot = match in_slots(harness) {
        Some(module) => Some(instances(harness, &module, during)?),
        None => None,
    };
    meter.tick();
    let (first_call, warm_call) = calls(harness, case)?;
    Ok(Phases {
        read,
        compile,
        instantiate_on_demand,
        instantiate_in_slot,
        first_call,
        warm_call,
    })
}

fn loads(harness: &Harness<'_>, meter: &Meter<'_>) -> Result<(Spread, Spread), Stop> {
    let engine = Engine::new(harness.served())?;
    let (mut read, mut compile) = (Vec::new(), Vec::new());
    let until = Instant::now() + LOAD_TIME;
    while read.len() < LOADS && (read.is_empty() || Instant::now() < until) {
        let started = Instant::now();
        let candidate = Candidate::read(harness.path, harness.load())?;
        read.push(started.elapsed());
        let module = candidate.compile(&engine, &harness.load().load)?;
        compile.push(module.compile_time);
        meter.tick();
    }
    Ok((Spread::of(read), Spread::of(compile)))
}

/// The module with slots mapped beforehand; none where there is no room.
pub(super) fn in_slots(harness: &Harness<'_>) -> Option<Arc<Module>> {
    let memory_bytes = usize::try_from(harness.pool.limits.max_memory_bytes).ok()?;
    harness
        .on(EngineSettings {
            allocation: Allocation::Slots {
                count: 2,
                memory_bytes,
            },
            ..harness.served()
        })
        .ok()
}

fn instances(harness: &Harness<'_>, module: &Arc<Module>, during: &str) -> Result<Spread, Stop> {
    repeated(|| {
        let started = Instant::now();
        let instance = Instance::new(module, harness.pool.limits)
            .map_err(|fault| Stop::fault(during, None, *fault))?;
        let made = started.elapsed();
        drop(instance);
        Ok([made])
    })
    .map(|[made]| made)
}

/// The first call on an instance, and the third.
fn calls(harness: &Harness<'_>, case: &BenchCase) -> Result<(Spread, Spread), Stop> {
    let call = |policy: &Policy| measured(policy, case, "making first calls").map(|call| call.time);
    repeated(|| {
        let policy = harness.policy(1);
        // The instance is made by now, and has not been called.
        policy.pool().fill(1)?;
        let first = call(&policy)?;
        call(&policy)?;
        Ok([first, call(&policy)?])
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
    Ok(times.map(Spread::of))
}
