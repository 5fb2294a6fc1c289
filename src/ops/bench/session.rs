//! What both benchmarks share, of a module and of a running agent: the time
//! that parts take, comparing by turns, and the gate at the end.

use std::time::Duration;

use super::baseline::Baseline;
use super::cases::BenchCase;
use super::compare::{self, Gate};
use super::judge::Timings;
use super::pairs::{self, Side};
use super::progress::Meter;
use super::report::{BenchReport, Flags};
use super::settings::{Against, BenchSettings, BenchTask, part, repeated};
use super::stop::Stop;
use crate::error::Error;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Benched {
    /// What was measured.
    pub report: BenchReport,
    /// What to keep of it, where that was asked for.
    pub baseline: Option<Baseline>,
}

/// One benchmark under way.
pub(super) struct Session<'a> {
    pub(super) settings: &'a BenchSettings,
    pub(super) against: Option<&'a Against>,
    pub(super) meter: Meter<'a>,
}

impl<'a> Session<'a> {
    pub(super) fn new(task: &BenchTask<'a>) -> Self {
        Self {
            settings: task.settings,
            against: task.against,
            meter: Meter::new(task.watcher),
        }
    }

    /// For one case of so many, both sides.
    pub(super) fn pair_time(&self, cases: usize) -> Duration {
        let row = self.settings.amount.row_time();
        row.min(part(row * 16, cases))
    }

    pub(super) fn load_time(&self) -> Duration {
        self.settings.warm_up + self.settings.amount.time().unwrap_or_default()
    }

    /// Adds to the plan comparing so many cases by turns.
    pub(super) fn plan_pairs(&self, cases: usize) {
        self.meter.plan(repeated(self.pair_time(cases), cases));
    }

    /// Compares the two sides of each case.
    pub(super) fn by_turns<'s>(
        &self,
        cases: &[&BenchCase],
        sides: impl Fn(usize) -> [Side<'s>; 2],
    ) -> Result<Timings, Stop> {
        let time = self.pair_time(cases.len());
        let mut rounds = Vec::new();
        let mut shares = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            self.meter
                .begin(format!("comparing times of {}", case.name), time);
            let compared = pairs::by_turns(sides(index), time, &self.meter)?;
            rounds.push(compared.rounds);
            shares.extend(compared.busy);
        }
        let busy = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        Ok(Timings { rounds, busy })
    }

    /// How this run's times are judged.
    pub(super) const fn gate<'t>(&'t self, timings: &'t Timings) -> Gate<'t> {
        Gate {
            timings,
            thresholds: &self.settings.thresholds,
            seed: self.settings.seed,
        }
    }

    /// Judges times beside the reference's, and keeps them where that was
    /// asked for.
    pub(super) fn keep(
        &self,
        report: &mut BenchReport,
        flags: &Flags,
        timings: Timings,
    ) -> Result<Option<Baseline>, Stop> {
        if let Some(Against::Baseline(path, baseline)) = self.against {
            let path = path.display().to_string();
            let comparable = compare::comparable(baseline, &path, flags, &report.machine)?;
            let gate = self.gate(&timings);
            report.comparison = Some(compare::of_baseline(baseline, comparable, report, gate));
        }
        Ok((self.settings.keep).then(|| Baseline::of(report, flags, timings)))
    }

    /// Ends the benchmark: a guest or agent that failed is in the report.
    pub(super) fn end(
        &self,
        done: Result<Option<Baseline>, Stop>,
        mut report: BenchReport,
    ) -> Result<Benched, Error> {
        let baseline = match done {
            // Times of several answers are nothing to hold others against.
            Ok(baseline) => baseline.filter(|_| report.changed_answers.is_empty()),
            Err(Stop::Failure(failure)) => {
                report.failure = Some(*failure);
                None
            }
            Err(Stop::Error(error)) => return Err(error),
        };
        self.meter.begin("done", Duration::ZERO);
        Ok(Benched { report, baseline })
    }
}
