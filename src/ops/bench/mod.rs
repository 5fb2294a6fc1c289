//! `bench`: what a module costs, how many instances it needs, and whether a
//! change made it worse.
//!
//! In: a module file, events and settings. Out: a [`BenchReport`]. Guests are
//! called through a [`Policy`](crate::policy::Policy) as in every command, on the
//! engine that `serve` would have; instructions are counted on a second one. A
//! guest that faults ends the benchmark and is its result: never a fast one.

mod advise;
mod baseline;
mod cases;
mod compare;
mod exact;
mod inputs;
mod judge;
mod lab;
mod load;
mod machine;
mod pairs;
mod phases;
mod profile;
mod progress;
mod report;
mod safety;
mod target;
mod warm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;
use crate::guest::module::LoadSettings;
use crate::ops::module_info::ModuleInfo;
use crate::policy::PolicySettings;
use crate::policy::pool::PoolSettings;

pub use advise::{Advice, Wish, advise};
pub use baseline::{Baseline, BaselineCase, BaselineModule};
pub use cases::{BenchCase, of_inputs};
pub use compare::{Comparison, Finding, Metric};
pub use inputs::{InputSettings, Inputs, MAX_CASES, Sampled, read_inputs};
pub use judge::{BUSY, Estimate, GateVerdict, Pair, Rounds, Thresholds};
pub use lab::{Samples, sample};
pub use machine::{Machine, cores};
pub use profile::{FunctionTime, Profile};
pub use progress::{Progress, Watcher};
pub use report::{
    BenchFailure, BenchReport, CaseFuel, CaseReport, LoadPoint, MemoryReport, Phases, ProcessUse,
    SafetyRow, Spread,
};
pub use target::{Running, bench_target};

use cases::of_samples;
use compare::{Exact, Timing};
use lab::{Lab, Stop};
use load::Load;
use machine::Computed;
use pairs::{Reference, Side, Taken};
use progress::Meter;

/// How long each row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// For so long.
    Time(Duration),
    /// So many calls.
    Calls(u64),
}

impl Amount {
    /// What one turn of [`load::TURNS`] has to do, if anything.
    fn of_turn(self, turn: u32) -> Option<Self> {
        let turns = load::TURNS;
        match self {
            Self::Time(time) => Some(Self::Time(time / turns)),
            Self::Calls(calls) => {
                let calls = share(calls, (turns, turn));
                (calls > 0).then_some(Self::Calls(calls))
            }
        }
    }
}

/// Of so many calls in so many turns those of one turn.
fn share(calls: u64, (turns, turn): (u32, u32)) -> u64 {
    let (turns, turn) = (u64::from(turns), u64::from(turn));
    calls / turns + u64::from(turn < calls % turns)
}

/// What is measured, and how.
#[derive(Debug, Clone)]
pub struct BenchSettings {
    /// Bounds of the file, limits of a call, the ABI asked for.
    pub load: LoadSettings,
    /// How an agent module is called; its pool's size and wait are not used.
    pub agent: PolicySettings,
    /// How a hook module is called, likewise.
    pub hook_pool: PoolSettings,
    /// How long each row is measured.
    pub amount: Amount,
    /// How long it is called before that.
    pub warm_up: Duration,
    /// Pools to put under load. With [`BenchSettings::concurrency`] empty,
    /// none is.
    pub pool_sizes: Vec<usize>,
    /// Callers at once.
    pub concurrency: Vec<usize>,
    /// Events for each second by schedule; with none, loops are closed.
    pub rates: Vec<f64>,
    /// The response time that 99 of 100 events are to keep.
    pub p99: Duration,
    /// What counts as worse.
    pub thresholds: Thresholds,
    /// Of the resampling.
    pub seed: u64,
    /// Whether to make a baseline.
    pub keep: bool,
    /// Whether to watch where the guest spends its time.
    pub profile: bool,
}

impl BenchSettings {
    /// How long is measured, as flags.
    fn measuring(&self) -> [(&'static str, String); 2] {
        let amount = match self.amount {
            Amount::Time(time) => ("duration", format!("{time:?}")),
            Amount::Calls(calls) => ("requests", calls.to_string()),
        };
        [amount, ("warm_up", format!("{:?}", self.warm_up))]
    }
}

/// What a module is compared with.
#[derive(Debug, Clone)]
pub enum Against {
    /// Another module, by turns.
    Module(PathBuf),
    /// What was kept of an earlier run, and its file.
    Baseline(PathBuf, Box<Baseline>),
}

/// What came of it.
#[derive(Debug)]
pub struct Benched {
    /// What was measured.
    pub report: BenchReport,
    /// What to keep of it, where that was asked for.
    pub baseline: Option<Baseline>,
}

/// Measures a module, with sample events where no inputs are given.
///
/// With `against` only what the gate needs is measured.
///
/// # Errors
/// Those of loading, and [`Error::Usage`] for a baseline of other settings. A
/// guest that faults is in the report.
pub fn bench(
    path: &Path,
    inputs: Option<Inputs>,
    (settings, against): (&BenchSettings, Option<&Against>),
    watcher: &Watcher<'_>,
) -> Result<Benched, Error> {
    let bench = Bench {
        settings,
        meter: Meter::new(watcher),
    };
    bench.run(path, inputs, against)
}

struct Bench<'a> {
    settings: &'a BenchSettings,
    meter: Meter<'a>,
}

impl Bench<'_> {
    fn run(
        &self,
        path: &Path,
        inputs: Option<Inputs>,
        against: Option<&Against>,
    ) -> Result<Benched, Error> {
        self.meter.begin("loading", Duration::ZERO);
        let settings = self.settings;
        let lab = Lab::new(path, settings)?;
        let names = settings.agent.header_names;
        let (mut cases, sampled) = match inputs {
            Some(inputs) => (inputs.exchanges.concat(), inputs.sampled),
            None => (of_samples(&lab.module, names), None),
        };
        let given = cases.len();
        cases.retain(|case| {
            let phase = case.input.phase();
            phase.abi() == lab.module.abi && lab.module.has_handler(phase.handler())
        });
        let mut report = BenchReport::new(self.flags(&lab), sampled.as_ref());
        report.module = Some(ModuleInfo::of(&lab.module));
        report.unhandled = given - cases.len();
        if report.is_debug() {
            report.notes.push(
                "this is a debug build: its times mean nothing; build with --release".to_owned(),
            );
        }
        let mut baseline = None;
        if !cases.is_empty() {
            self.plan(cases.len(), against.is_some());
            let before = Computed::so_far();
            let done = self.measure((&lab, &cases), against, &mut report);
            match done {
                Ok(kept) => baseline = kept,
                Err(Stop::Failure(mut failure)) => {
                    // What loops was found out when instructions were counted.
                    if failure.is_deadline() && !report.cases.is_empty() {
                        let others = Computed::so_far().zip(before);
                        failure.others = others
                            .map(|(now, before)| now.others_since(before))
                            .filter(|share| *share > BUSY);
                    }
                    report.failure = Some(*failure);
                }
                Err(Stop::Error(error)) => return Err(error),
            }
        }
        self.meter.begin("done", Duration::ZERO);
        Ok(Benched { report, baseline })
    }

    /// How the module is called, as flags; baselines are held to these.
    fn guest_flags(lab: &Lab<'_>) -> BTreeMap<String, String> {
        lab.flags()
            .into_iter()
            .map(|(flag, value)| (flag.to_owned(), value))
            .collect()
    }

    fn flags(&self, lab: &Lab<'_>) -> BTreeMap<&'static str, String> {
        let mut flags = lab.flags();
        flags.extend(self.settings.measuring());
        flags
    }

    /// What measuring takes, so that its end can be told.
    fn plan(&self, cases: usize, is_gate: bool) {
        let settings = self.settings;
        let pair = self.pair_time(cases);
        let pairs = pair * u32::try_from(cases).unwrap_or(u32::MAX);
        if is_gate || settings.keep {
            self.meter.plan(pairs);
        }
        if !is_gate {
            let warm = self.warm_time(cases);
            let loads = self.load_time() * u32::try_from(self.loads().len()).unwrap_or(u32::MAX);
            self.meter
                .plan(phases::EXPECTED + warm + loads + self.safety_time());
            if settings.profile {
                self.meter.plan(profile::TIME);
            }
        }
    }

    /// For one case of so many, both sides.
    fn pair_time(&self, cases: usize) -> Duration {
        let cases = u32::try_from(cases).unwrap_or(u32::MAX).max(1);
        let row = match self.settings.amount {
            Amount::Time(time) => time,
            Amount::Calls(_) => Duration::from_millis(100),
        };
        row.min(row * 16 / cases)
    }

    fn warm_time(&self, cases: usize) -> Duration {
        let cases_u32 = u32::try_from(cases).unwrap_or(u32::MAX);
        self.settings.warm_up + warm::time_each(self.settings.amount, cases) * cases_u32
    }

    fn load_time(&self) -> Duration {
        match self.settings.amount {
            Amount::Time(time) => self.settings.warm_up + time,
            Amount::Calls(_) => self.settings.warm_up,
        }
    }

    fn safety_time(&self) -> Duration {
        match self.settings.amount {
            Amount::Time(time) => time * safety::MODES,
            Amount::Calls(_) => Duration::from_millis(100) * safety::MODES,
        }
    }

    /// Everything that was asked for, into the report as far as it comes.
    fn measure(
        &self,
        (lab, cases): (&Lab<'_>, &[BenchCase]),
        against: Option<&Against>,
        report: &mut BenchReport,
    ) -> Result<Option<Baseline>, Stop> {
        self.meter.begin("counting instructions", Duration::ZERO);
        report.cases = exact::cases(lab, cases)?;
        report.memory = Some(exact::memory(lab, cases)?);
        if against.is_none() {
            self.measure_times(lab, cases, report)?;
        }
        // A baseline is measured and compared by the same pairs.
        let is_baseline = matches!(against, Some(Against::Baseline(..)));
        let pairs = if self.settings.keep || is_baseline {
            Some(self.beside_reference(lab, cases)?)
        } else {
            None
        };
        match (against, &pairs) {
            (Some(Against::Module(path)), _) => {
                report.comparison = Some(self.beside_module((lab, cases), path, report)?);
            }
            (Some(Against::Baseline(path, baseline)), Some((rounds, busy))) => {
                let flags = Self::guest_flags(lab);
                let compared =
                    self.beside_baseline((path, baseline), (report, &flags), (rounds, *busy))?;
                report.comparison = Some(compared);
            }
            _ => {}
        }
        Ok(pairs
            .filter(|_| self.settings.keep)
            .map(|pairs| Baseline::of(report, &Self::guest_flags(lab), pairs)))
    }

    fn measure_times(
        &self,
        lab: &Lab<'_>,
        cases: &[BenchCase],
        report: &mut BenchReport,
    ) -> Result<(), Stop> {
        let settings = self.settings;
        self.meter.begin("phases", phases::EXPECTED);
        report.phases = Some(phases::measure(lab, &cases[0], &self.meter)?);
        self.meter.begin("warm calls", self.warm_time(cases.len()));
        let amount = (settings.amount, settings.warm_up);
        let samples = warm::measure(lab, cases, amount, &self.meter)?;
        for (case, samples) in report.cases.iter_mut().zip(samples) {
            case.response = Some(samples.response);
            case.guest = Some(samples.guest);
        }
        report.loads = self.measure_loads(lab, cases)?;
        report.advice = advise(
            &report.loads,
            Wish {
                p99: settings.p99,
                cores: report.machine.cores,
                instance_bytes: report.memory.map_or(0, |memory| memory.peak_bytes),
            },
        );
        self.meter.begin("price of safety", self.safety_time());
        let fuel = report.cases.iter().filter_map(|case| case.fuel);
        let dearest = fuel
            .map(|fuel| fuel.first.max(fuel.warm_max))
            .max()
            .unwrap_or_default();
        report.safety = safety::measure(lab, cases, (settings.amount, dearest), &self.meter)?;
        if settings.profile {
            self.meter.begin("taking a profile", profile::TIME);
            report.profile = Some(profile::take(lab, cases, &self.meter)?);
        }
        Ok(())
    }

    /// Every combination, a few times by turns: so that the machine's mood is
    /// shared, and seen.
    fn measure_loads(&self, lab: &Lab<'_>, cases: &[BenchCase]) -> Result<Vec<LoadPoint>, Stop> {
        let mut agents = BTreeMap::new();
        for &size in &self.settings.pool_sizes {
            let agent = lab.subject(size);
            agent.pool().fill(size)?;
            agents.insert(size, agent);
        }
        let loads = self.loads();
        let mut points: Vec<Option<LoadPoint>> = vec![None; loads.len()];
        for turn in 0..load::TURNS {
            for ((pool_size, concurrency, rate), point) in loads.iter().zip(&mut points) {
                let (Some(agent), Some(amount)) =
                    (agents.get(pool_size), self.settings.amount.of_turn(turn))
                else {
                    continue;
                };
                let at = rate.map_or_else(String::new, |rate| format!(" at {rate}/s"));
                self.meter.begin(
                    format!("pool {pool_size}, {concurrency} callers{at}"),
                    self.load_time() / load::TURNS,
                );
                let load = Load {
                    subject: agent,
                    cases,
                    concurrency: *concurrency,
                    amount,
                    warm_up: self.settings.warm_up / load::TURNS,
                };
                let measured = match rate {
                    Some(rate) => load.open(*rate, &self.meter)?,
                    None => load.closed(&self.meter)?,
                };
                match point {
                    Some(point) => point.add(&measured),
                    None => *point = Some(measured),
                }
            }
        }
        Ok(points.into_iter().flatten().collect())
    }

    /// Every combination to put under load.
    fn loads(&self) -> Vec<(usize, usize, Option<f64>)> {
        let settings = self.settings;
        let rates: Vec<Option<f64>> = if settings.rates.is_empty() {
            vec![None]
        } else {
            settings.rates.iter().copied().map(Some).collect()
        };
        let mut loads = Vec::new();
        for &pool_size in &settings.pool_sizes {
            for &concurrency in &settings.concurrency {
                for &rate in &rates {
                    loads.push((pool_size, concurrency, rate));
                }
            }
        }
        loads
    }

    /// Times of each case beside the reference's.
    fn beside_reference(
        &self,
        lab: &Lab<'_>,
        cases: &[BenchCase],
    ) -> Result<(Vec<Rounds>, Option<f64>), Stop> {
        let reference = Reference::new()?;
        let all: Vec<&BenchCase> = cases.iter().collect();
        self.by_turns(&all, |index, time| {
            let sides: [&Side<'_>; 2] = [&|round| Ok(reference.batch(round)), &|round| {
                Ok(pairs::calls(lab.subject_of_round(round)?, &cases[index]))
            }];
            pairs::by_turns(sides, time, &self.meter)
        })
    }

    fn by_turns(
        &self,
        cases: &[&BenchCase],
        measure: impl Fn(usize, Duration) -> Result<Taken, Stop>,
    ) -> Result<(Vec<Rounds>, Option<f64>), Stop> {
        let time = self.pair_time(cases.len());
        let mut all = Vec::new();
        let mut shares = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            self.meter
                .begin(format!("comparing times of {}", case.name), time);
            let taken = measure(index, time)?;
            all.push(taken.rounds);
            shares.extend(taken.busy);
        }
        let busy = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        Ok((all, busy))
    }

    fn beside_module(
        &self,
        (lab, cases): (&Lab<'_>, &[BenchCase]),
        path: &Path,
        report: &BenchReport,
    ) -> Result<Comparison, Stop> {
        let settings = self.settings;
        self.meter.begin("loading", Duration::ZERO);
        let other = Lab::new(path, settings)?;
        other.module.require(lab.module.abi)?;
        let other_cases = exact::cases(&other, cases)?;
        let other_memory = exact::memory(&other, cases)?;
        let all: Vec<&BenchCase> = cases.iter().collect();
        let (rounds, busy) = self.by_turns(&all, |index, time| {
            let case = &cases[index];
            let side = |lab: &Lab<'_>, round| {
                let subject = lab.subject_of_round(round)?;
                Ok(pairs::calls(subject, case))
            };
            let sides: [&Side<'_>; 2] = [&|round| side(&other, round), &|round| side(lab, round)];
            pairs::by_turns(sides, time, &self.meter)
        })?;
        let info = ModuleInfo::of(&other.module);
        let before = Exact {
            module: Some((info.size_bytes, other_memory)),
            cases: &other_cases,
        };
        let after = Self::exact(report);
        Ok(compare::of_modules(
            (&info.path, &info.hash),
            [before, after],
            Timing {
                rounds: &rounds,
                busy,
                thresholds: &settings.thresholds,
                seed: settings.seed,
            },
        ))
    }

    fn beside_baseline(
        &self,
        (path, baseline): (&Path, &Baseline),
        (report, flags): (&BenchReport, &BTreeMap<String, String>),
        (rounds, busy): (&[Rounds], Option<f64>),
    ) -> Result<Comparison, Stop> {
        let settings = self.settings;
        let path = path.display().to_string();
        let comparable = compare::comparable(baseline, &path, flags, &report.machine)?;
        let after = Self::exact(report);
        Ok(compare::of_baseline(
            (&path, baseline),
            &comparable,
            after,
            Timing {
                rounds,
                busy,
                thresholds: &settings.thresholds,
                seed: settings.seed,
            },
        ))
    }

    fn exact(report: &BenchReport) -> Exact<'_> {
        let module = report.module.as_ref().zip(report.memory);
        Exact {
            module: module.map(|(module, memory)| (module.size_bytes, memory)),
            cases: &report.cases,
        }
    }
}
