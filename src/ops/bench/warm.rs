//! Warm calls, one at a time: each case by turns, so that a machine whose
//! speed drifts does so for all of them alike.

use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::harness::{Harness, Samples, sample};
use super::progress::Meter;
use super::settings::{Amount, BenchSettings, part, share};
use super::stop::Stop;

/// Turns each case gets.
const TURNS: u32 = 10;
/// Most calls between two looks at the clock.
const CALLS: u64 = 8;
/// Whatever is asked for, all cases together take no longer than so many
/// times the amount of one.
const MOST_CASES: u32 = 8;

/// The time of each case, of so many.
pub(super) fn time_each(amount: Amount, cases: usize) -> Duration {
    let row = amount.row_time();
    match amount {
        Amount::Time(_) => row.min(part(row * MOST_CASES, cases)),
        Amount::Calls(_) => row,
    }
}

/// Measures every case.
pub(super) fn measure(
    harness: &Harness<'_>,
    cases: &[BenchCase],
    settings: &BenchSettings,
    meter: &Meter<'_>,
) -> Result<Vec<Samples>, Stop> {
    let during = "making warm calls";
    let policy = harness.policy(1);
    let amount = settings.amount;
    let each = time_each(amount, cases.len());
    let mut samples = vec![Samples::default(); cases.len()];
    let turn = |samples: Option<&mut Samples>, case: &BenchCase, time, calls: u64| {
        let until = Instant::now() + time;
        let mut made = 0;
        // One call of a slow guest may take all the time there is.
        let mut next = 1;
        let mut unused = Samples::default();
        let samples = samples.unwrap_or(&mut unused);
        while made < calls && (Instant::now() < until || made == 0) {
            // Looking at the clock is no part of a call.
            let few = next.min(calls - made);
            next = CALLS.min(next * 2);
            sample(&policy, case, few, samples)
                .map_err(|fault| Stop::fault(during, Some(case), *fault))?;
            made += few;
        }
        Ok::<(), Stop>(())
    };
    for case in cases {
        turn(None, case, part(settings.warm_up, cases.len()), u64::MAX)?;
    }
    let mut taken = vec![Duration::ZERO; cases.len()];
    for number in 0..TURNS {
        for ((case, samples), taken) in cases.iter().zip(&mut samples).zip(&mut taken) {
            let (time, calls) = match amount {
                // It has had its time already.
                Amount::Time(_) if *taken > each => continue,
                Amount::Time(_) => (each / TURNS, u64::MAX),
                Amount::Calls(calls) => {
                    (Duration::MAX / 4, share(calls, number.into(), TURNS.into()))
                }
            };
            let started = Instant::now();
            turn(Some(samples), case, time, calls)?;
            *taken += started.elapsed();
        }
        meter.tick();
    }
    Ok(samples)
}
