//! Where a guest spends its time, by function.
//!
//! The guest is looked at as often as its deadline is, and its stack written
//! down: at the entry of a function or the head of a loop, where compiled code
//! looks at the clock. So a function without loops counts for its caller.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::harness::Harness;
use super::progress::Meter;
use super::report::{FunctionTime, Profile};
use super::stop::Stop;
use crate::guest::{AskSettings, StackSamples};
use crate::limits::Isolation;
use crate::policy::pool::PoolSettings;

/// How long a guest is watched.
pub(super) const TIME: Duration = Duration::from_secs(3);
/// Calls between two looks at the clock.
const CALLS: usize = 16;
const DURING: &str = "taking a profile";

/// Watches the module while it answers the cases by turns.
pub(super) fn take(
    harness: &Harness<'_>,
    cases: &[BenchCase],
    meter: &Meter<'_>,
) -> Result<Profile, Stop> {
    let policy = harness.policy_of(
        &harness.module,
        PoolSettings {
            size: 1,
            isolation: Isolation::Pooled,
            ..harness.pool
        },
    );
    let mut lease = policy
        .pool()
        .lease()
        .map_err(|fault| Stop::fault(DURING, None, *fault))?;
    lease.sample_stacks();
    let until = Instant::now() + TIME;
    let mut all = cases.iter().cycle();
    while Instant::now() < until {
        for case in all.by_ref().take(CALLS) {
            let asking = AskSettings {
                now: case.now,
                ..policy.settings().asking()
            };
            let fault = lease.ask(&case.input, asking).0.err();
            if let Some(fault) = fault {
                return Err(Stop::fault(DURING, Some(case), fault));
            }
        }
        meter.tick();
    }
    let samples = lease.take_samples();
    Ok(Profile::of(
        harness.path.display().to_string(),
        harness.module.facts.has_names,
        &samples,
    ))
}

impl Profile {
    fn of(module: String, has_names: bool, samples: &StackSamples) -> Self {
        let name = |function: &u32| {
            samples
                .names
                .get(function)
                .cloned()
                .unwrap_or_else(|| format!("func[{function}]"))
        };
        let mut stacks: Vec<(Vec<String>, u64)> = Vec::new();
        let mut known: BTreeMap<&[u32], usize> = BTreeMap::new();
        let mut functions: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
        let mut timeline = Vec::new();
        for (at, stack) in &samples.stacks {
            let index = *known.entry(stack).or_insert_with(|| {
                stacks.push((stack.iter().map(name).collect(), 0));
                stacks.len() - 1
            });
            stacks[index].1 += 1;
            timeline.push((*at, index));
            if let Some(own) = stack.last() {
                functions.entry(*own).or_default()[0] += 1;
            }
            let mut once = stack.clone();
            once.sort_unstable();
            once.dedup();
            for function in once {
                functions.entry(function).or_default()[1] += 1;
            }
        }
        let mut functions: Vec<FunctionTime> = functions
            .iter()
            .map(|(function, [own, total])| FunctionTime {
                name: name(function),
                own: *own,
                total: *total,
            })
            .collect();
        functions.sort_by(|a, b| (b.own, b.total, &a.name).cmp(&(a.own, a.total, &b.name)));
        Self {
            module,
            samples: samples.stacks.len() as u64,
            interval_us: u64::try_from(crate::guest::TICK.as_micros()).unwrap_or(1000),
            has_names,
            functions,
            stacks,
            timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recursive_function_counts_once_for_each_look() {
        let samples = StackSamples {
            stacks: vec![
                (Duration::ZERO, vec![1, 2, 2, 2]),
                (Duration::from_millis(1), vec![1]),
                (Duration::from_millis(2), vec![1, 2, 2, 2]),
            ],
            names: BTreeMap::from([(1, "outer".to_owned())]),
            ..StackSamples::default()
        };
        let profile = Profile::of("m".to_owned(), true, &samples);
        assert_eq!(profile.samples, 3);
        let seen: Vec<(&str, u64, u64)> = profile
            .functions
            .iter()
            .map(|function| (function.name.as_str(), function.own, function.total))
            .collect();
        assert_eq!(seen, [("func[2]", 2, 2), ("outer", 1, 3)]);
        assert_eq!(profile.stacks.len(), 2);
        assert_eq!(profile.stacks[0].1, 2);
        assert_eq!(profile.timeline[2].1, 0);
    }
}
