//! Better, worse, or cannot tell: statistics that a gate can stand on.
//!
//! In: pairs of times, measured by turns in rounds. Out: how much slower one
//! is than the other, with an interval by the bootstrap, and a judgement. The
//! rounds are resampled first and the pairs within them second, since what a
//! round's instances got (which pages, which cache lines) all its pairs share.
//! The same seed gives the same interval.

use serde::{Deserialize, Serialize};

use crate::report::CaseStatus;

/// Resamples behind an interval.
const RESAMPLES: usize = 1000;
/// The share of resamples an interval leaves out, both ends together: 99 %
/// are inside.
const LEFT_OUT: f64 = 0.01;
/// A thread that waited for a processor for this share of its time measured
/// the machine and not the module.
pub(crate) const BUSY: f64 = 0.10;

/// How a module did beside what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GateVerdict {
    /// Better, equal, or worse by less than the threshold.
    BetterOrEqual,
    /// Worse by more than the threshold, and that is no chance.
    Regressed,
    /// Noise is larger than what was asked about.
    Inconclusive,
}

impl GateVerdict {
    /// As test reports have it.
    #[must_use]
    pub(crate) const fn status(self) -> CaseStatus {
        match self {
            Self::BetterOrEqual => CaseStatus::Passed,
            Self::Regressed => CaseStatus::Failed,
            Self::Inconclusive => CaseStatus::Warned,
        }
    }
}

/// How much worse is worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Thresholds {
    /// Of time, as a share: 0.05 is five per cent.
    pub time: f64,
    /// Of time, in nanoseconds; both must be passed.
    pub min_time_ns: f64,
    /// Of instructions, as a share.
    pub fuel: f64,
    /// Of linear memory, as a share.
    pub memory: f64,
    /// Of the module's size, as a share.
    pub size: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            time: 0.05,
            min_time_ns: 1000.0,
            fuel: 0.0,
            memory: 0.0,
            size: 0.05,
        }
    }
}

/// Times for each call of one batch of each, in nanoseconds, taken by turns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// What it is compared with.
    pub before: f64,
    /// What is judged.
    pub after: f64,
}

/// Pairs by round; each round has instances of its own.
pub(crate) type Rounds = Vec<Vec<Pair>>;

/// Times of each case beside those of what it is compared with.
#[derive(Debug)]
pub(super) struct Timings {
    /// By case.
    pub(super) rounds: Vec<Rounds>,
    /// The share of the time that others had the processor; none where the
    /// kernel does not say.
    pub(super) busy: Option<f64>,
}

/// How much slower, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// Median time by median time, 1 for equally fast.
    pub ratio: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Median time of what it is compared with, in nanoseconds.
    pub before_ns: f64,
    /// Median time of what is judged, in nanoseconds.
    pub after_ns: f64,
}

/// Compares the two sides of the pairs; none where there are no pairs.
#[must_use]
pub(super) fn paired(rounds: &Rounds, seed: u64) -> Option<Estimate> {
    let ratios = by_round(rounds, |pair| pair.after / pair.before)?;
    let (low, high) = interval(seed, |random| resampled(&ratios, random));
    Some(Estimate {
        ratio: median(ratios.concat()),
        low,
        high,
        before_ns: median(by_round(rounds, |pair| pair.before)?.concat()),
        after_ns: median(by_round(rounds, |pair| pair.after)?.concat()),
    })
}

/// Compares two runs of different times. Each has its pairs with the same
/// reference as `before`, by whose speed times of one run are put beside the
/// other's.
#[must_use]
pub(super) fn apart(old: &Rounds, new: &Rounds, seed: u64) -> Option<Estimate> {
    let in_references = |rounds| by_round(rounds, |pair: &Pair| pair.after / pair.before);
    let (old_ratios, new_ratios) = (in_references(old)?, in_references(new)?);
    let (low, high) = interval(seed, |random| {
        resampled(&new_ratios, random) / resampled(&old_ratios, random)
    });
    let ratio = median(new_ratios.concat()) / median(old_ratios.concat());
    let after_ns = median(by_round(new, |pair| pair.after)?.concat());
    Some(Estimate {
        ratio,
        low,
        high,
        before_ns: after_ns / ratio,
        after_ns,
    })
}

impl Estimate {
    /// Worse, not worse, or cannot tell. What is worse must be so with the
    /// whole interval, by the share and by the time.
    #[must_use]
    pub(crate) fn judge(&self, thresholds: &Thresholds) -> GateVerdict {
        let is_worse = |ratio: f64| {
            ratio > 1.0 + thresholds.time && (ratio - 1.0) * self.before_ns > thresholds.min_time_ns
        };
        match (is_worse(self.low), is_worse(self.high)) {
            (true, _) => GateVerdict::Regressed,
            (false, true) => GateVerdict::Inconclusive,
            (false, false) => GateVerdict::BetterOrEqual,
        }
    }
}

/// Judges a figure without noise.
#[must_use]
pub(super) fn exactly(before: f64, after: f64, threshold: f64) -> GateVerdict {
    if after > before * (1.0 + threshold) {
        GateVerdict::Regressed
    } else {
        GateVerdict::BetterOrEqual
    }
}

/// None where no round has anything.
fn by_round(rounds: &Rounds, value: impl Fn(&Pair) -> f64) -> Option<Vec<Vec<f64>>> {
    let values: Vec<Vec<f64>> = rounds
        .iter()
        .map(|round| round.iter().map(&value).filter(|v| v.is_finite()).collect())
        .filter(|round: &Vec<f64>| !round.is_empty())
        .collect();
    (!values.is_empty()).then_some(values)
}

/// The median of as many rounds and as many values as there are, drawn with
/// replacement.
fn resampled(rounds: &[Vec<f64>], random: &mut Random) -> f64 {
    let mut drawn = Vec::with_capacity(rounds.iter().map(Vec::len).sum());
    for _ in 0..rounds.len() {
        let round = &rounds[random.below(rounds.len())];
        drawn.extend((0..round.len()).map(|_| round[random.below(round.len())]));
    }
    median(drawn)
}

fn interval(seed: u64, mut resample: impl FnMut(&mut Random) -> f64) -> (f64, f64) {
    let mut random = Random(seed);
    let mut drawn: Vec<f64> = (0..RESAMPLES).map(|_| resample(&mut random)).collect();
    drawn.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small constant"
    )]
    let cut = (RESAMPLES as f64 * LEFT_OUT / 2.0) as usize;
    (drawn[cut], drawn[RESAMPLES - 1 - cut])
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *median
}

/// `SplitMix64`: small, quick, and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Random {
        /// 0 to 1.
        fn share(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            let (a, b) = (self.share().max(1e-12), self.share());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        }
    }

    /// What a machine does to two modules of these true costs: noise of each
    /// batch, luck of each round, bursts of somebody else's work, drift.
    struct Machine {
        noise: f64,
        luck: f64,
        bursts: f64,
    }

    impl Machine {
        fn measure(&self, before: f64, after: f64, random: &mut Random) -> Rounds {
            let mut drift = 1.0;
            let mut rounds = Rounds::new();
            for _ in 0..8 {
                let luck = [self.luck * random.normal(), self.luck * random.normal()];
                let round = (0..12).map(|_| {
                    drift *= 1.0 + 0.002 * random.normal();
                    let mut one = |cost: f64, luck: f64| {
                        let burst = if random.share() < self.bursts {
                            1.0 + 4.0 * random.share()
                        } else {
                            1.0
                        };
                        cost * drift * burst * (1.0 + luck + self.noise * random.normal()).max(0.1)
                    };
                    Pair {
                        before: one(before, luck[0]),
                        after: one(after, luck[1]),
                    }
                });
                rounds.push(round.collect());
            }
            rounds
        }
    }

    const QUIET: Machine = Machine {
        noise: 0.02,
        luck: 0.005,
        bursts: 0.02,
    };
    const BUSY_MACHINE: Machine = Machine {
        noise: 0.30,
        luck: 0.10,
        bursts: 0.40,
    };

    fn verdicts(machine: &Machine, after: f64, count: u64) -> Vec<GateVerdict> {
        (0..count)
            .map(|seed| {
                let rounds = machine.measure(10_000.0, after, &mut Random(seed));
                paired(&rounds, seed).unwrap().judge(&Thresholds {
                    min_time_ns: 100.0,
                    ..Thresholds::default()
                })
            })
            .collect()
    }

    fn count(verdicts: &[GateVerdict], verdict: GateVerdict) -> usize {
        verdicts.iter().filter(|found| **found == verdict).count()
    }

    #[test]
    fn the_same_module_never_regresses_in_a_hundred_comparisons() {
        for machine in [&QUIET, &BUSY_MACHINE] {
            let found = verdicts(machine, 10_000.0, 100);
            assert_eq!(count(&found, GateVerdict::Regressed), 0);
        }
        let found = verdicts(&QUIET, 10_000.0, 100);
        assert_eq!(count(&found, GateVerdict::BetterOrEqual), 100);
    }

    #[test]
    fn a_fifth_slower_is_seen_on_a_quiet_machine_and_not_sworn_to_on_a_busy_one() {
        let found = verdicts(&QUIET, 12_000.0, 100);
        assert_eq!(count(&found, GateVerdict::Regressed), 100);
        let found = verdicts(&BUSY_MACHINE, 10_400.0, 100);
        assert!(count(&found, GateVerdict::Inconclusive) > 50, "{found:?}");
        assert!(count(&found, GateVerdict::Regressed) <= 1, "{found:?}");
    }

    /// From a quiet machine to one that is hardly there: the same module is
    /// never red, and what is half as slow again is never green where it can
    /// be told at all.
    #[test]
    fn no_machine_makes_the_same_module_red() {
        const SEEDS: u64 = 8;
        let mut inconclusive = 0;
        for noise in [0.0, 0.1, 0.6] {
            for luck in [0.0, 0.02, 0.15] {
                for bursts in [0.0, 0.1, 0.9] {
                    let machine = Machine {
                        noise,
                        luck,
                        bursts,
                    };
                    let found = verdicts(&machine, 10_000.0, SEEDS);
                    assert_eq!(
                        count(&found, GateVerdict::Regressed),
                        0,
                        "{noise} {luck} {bursts}"
                    );
                    inconclusive += count(&found, GateVerdict::Inconclusive);
                    if noise + luck < 0.15 && bursts < 0.2 {
                        let found = verdicts(&machine, 15_000.0, SEEDS);
                        assert_eq!(count(&found, GateVerdict::Regressed) as u64, SEEDS);
                    }
                }
            }
        }
        // It is not for want of words that it is never red.
        assert!(inconclusive > 50, "{inconclusive}");
    }

    #[test]
    fn below_the_least_time_nothing_is_worse() {
        let rounds = QUIET.measure(10_000.0, 15_000.0, &mut Random(1));
        let estimate = paired(&rounds, 1).unwrap();
        let judge = |min_time_ns| {
            estimate.judge(&Thresholds {
                min_time_ns,
                ..Thresholds::default()
            })
        };
        assert_eq!(judge(1_000.0), GateVerdict::Regressed);
        assert_eq!(judge(10_000.0), GateVerdict::BetterOrEqual);
    }

    #[test]
    fn another_speed_of_the_whole_machine_is_no_regression() {
        let mut random = Random(3);
        let old = QUIET.measure(20_000.0, 10_000.0, &mut random);
        let same = QUIET.measure(20_000.0 * 1.3, 10_000.0 * 1.3, &mut random);
        let slower = QUIET.measure(20_000.0 * 1.3, 13_000.0 * 1.3, &mut random);
        let judge = |new| apart(&old, new, 3).unwrap().judge(&Thresholds::default());
        assert_eq!(judge(&same), GateVerdict::BetterOrEqual);
        assert_eq!(judge(&slower), GateVerdict::Regressed);
    }

    #[test]
    fn three_per_cent_more_instructions_regress_by_default_and_not_one_less() {
        let fuel = Thresholds::default().fuel;
        assert_eq!(exactly(1000.0, 1030.0, fuel), GateVerdict::Regressed);
        assert_eq!(exactly(1000.0, 1001.0, fuel), GateVerdict::Regressed);
        assert_eq!(exactly(1000.0, 1000.0, fuel), GateVerdict::BetterOrEqual);
        assert_eq!(exactly(1000.0, 1030.0, 0.03), GateVerdict::BetterOrEqual);
        assert_eq!(exactly(0.0, 1.0, 0.03), GateVerdict::Regressed);
    }

    #[test]
    fn nothing_measured_is_no_estimate() {
        assert_eq!(paired(&Vec::new(), 0), None);
        assert_eq!(paired(&vec![Vec::new()], 0), None);
    }

    proptest! {
        /// The same seed says the same, the interval holds together, and
        /// what is equal pair by pair is judged equal.
        #[test]
        fn an_interval_is_sound(
            rounds in prop::collection::vec(
                prop::collection::vec((1.0..1e7_f64, 1.0..1e7_f64), 1..8), 1..6),
            seed in any::<u64>(),
        ) {
            let rounds: Rounds = rounds
                .into_iter()
                .map(|round| round.into_iter().map(|(before, after)| Pair { before, after }).collect())
                .collect();
            let estimate = paired(&rounds, seed).unwrap();
            prop_assert_eq!(Some(estimate), paired(&rounds, seed));
            prop_assert!(estimate.low <= estimate.high);
            let equal: Rounds = rounds
                .iter()
                .map(|round| round.iter().map(|pair| Pair { after: pair.before, ..*pair }).collect())
                .collect();
            let verdict = paired(&equal, seed).unwrap().judge(&Thresholds::default());
            prop_assert_eq!(verdict, GateVerdict::BetterOrEqual);
        }
    }
}
