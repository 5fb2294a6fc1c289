//! A module measured from inside: instructions and memory, phases, warm calls,
//! loads, costs of isolation and limits, and the gate.

use std::path::Path;
use std::time::Duration;

use super::advise::{Wish, advise};
use super::baseline::{Baseline, BaselineModule};
use super::cases::{BenchCase, of_samples, with_whole_bodies};
use super::compare;
use super::comparison::Comparison;
use super::harness::Harness;
use super::inputs::Inputs;
use super::judge::BUSY;
use super::load::{Load, TURNS};
use super::machine::CpuUse;
use super::pairs::{self, Reference, Side};
use super::report::{BenchReport, LoadPoint};
use super::session::{Benched, Session};
use super::settings::{Against, BenchTask, repeated};
use super::steady::changed;
use super::stop::Stop;
use super::{exact, phases, profile, safety, warm};
use crate::client::Pace;
use crate::error::Error;
use crate::limits::Isolation;
use crate::ops::module_info::ModuleInfo;
use crate::policy::BodyMode;

/// Measures a module, with sample events where no inputs are given.
///
/// # Errors
/// Those of loading, and [`Error::Usage`] for a baseline of other settings. A
/// guest that faults is in the report.
pub(crate) fn bench(
    path: &Path,
    inputs: Option<Inputs>,
    task: &BenchTask<'_>,
) -> Result<Benched, Error> {
    let session = Session::new(task);
    session.meter.begin("loading", Duration::ZERO);
    let settings = task.settings;
    let harness = Harness::new(path, settings)?;
    let names = settings.policy.header_names;
    let (mut cases, sampled) = match inputs {
        Some(mut inputs) => {
            if harness.body_mode() == BodyMode::Whole {
                let whole = |exchange| with_whole_bodies(exchange, settings.policy.bodies, names);
                inputs.exchanges = inputs.exchanges.into_iter().map(whole).collect();
            }
            (inputs.exchanges.concat(), inputs.sampled)
        }
        None => (of_samples(&harness.module, names), None),
    };
    let given = cases.len();
    cases.retain(|case| harness.module.handles(case.input.phase()));
    let mut flags = harness.flags();
    flags.extend(settings.measuring());
    let debug_note = "this is a debug build: its times mean nothing; build with --release";
    let mut report = BenchReport::new(flags, sampled, debug_note);
    report.module = Some(ModuleInfo::of(&harness.module));
    report.unused_flag = settings.policy.bodies.unused(&harness.module);
    report.unhandled = given - cases.len();
    if cases.is_empty() {
        return session.end(Ok(None), report);
    }
    let bench = ModuleBench {
        session: &session,
        harness: &harness,
        cases: &cases,
    };
    bench.plan();
    let before = CpuUse::so_far();
    let mut done = bench.measure(&mut report);
    let path = path.display().to_string();
    report.changed_answers.extend(changed(&cases, &path));
    if let Err(Stop::Failure(failure)) = &mut done
        // What loops was found out when instructions were counted.
        && failure.is_deadline()
        && !report.cases.is_empty()
    {
        let others = CpuUse::so_far().zip(before);
        failure.others = others
            .map(|(now, before)| now.others_since(before))
            .filter(|share| *share > BUSY);
    }
    session.end(done, report)
}

struct ModuleBench<'a> {
    session: &'a Session<'a>,
    harness: &'a Harness<'a>,
    cases: &'a [BenchCase],
}

impl ModuleBench<'_> {
    /// What measuring takes, so that its end can be told.
    fn plan(&self) {
        let Session {
            settings, meter, ..
        } = self.session;
        let is_gate = self.session.against.is_some();
        if is_gate || settings.keep {
            self.session.plan_pairs(self.cases.len());
        }
        if !is_gate {
            let loads = settings.pool_sizes.len() * settings.callers().len();
            meter.plan(phases::EXPECTED + self.warm_time() + self.safety_time());
            meter.plan(repeated(self.session.load_time(), loads));
            if settings.profile {
                meter.plan(profile::TIME);
            }
        }
    }

    fn warm_time(&self) -> Duration {
        let settings = self.session.settings;
        let cases = self.cases.len();
        settings.warm_up + repeated(warm::time_each(settings.amount, cases), cases)
    }

    fn safety_time(&self) -> Duration {
        self.session.settings.amount.row_time() * safety::MODES
    }

    /// Everything that was asked for, into the report as far as it comes.
    fn measure(&self, report: &mut BenchReport) -> Result<Option<Baseline>, Stop> {
        let Session {
            settings,
            against,
            meter,
        } = self.session;
        meter.begin("counting instructions", Duration::ZERO);
        report.cases = exact::cases(self.harness, self.cases)?;
        report.memory = Some(exact::memory(self.harness, self.cases)?);
        if against.is_none() {
            self.measure_times(report)?;
        }
        // A baseline is measured and compared by the same pairs.
        let is_baseline = matches!(against, Some(Against::Baseline(..)));
        let timings = if settings.keep || is_baseline {
            Some(self.beside_reference()?)
        } else {
            None
        };
        if let Some(Against::Module(path)) = against {
            report.comparison = Some(self.beside_module(path, report)?);
        }
        match timings {
            Some(timings) => self.session.keep(report, &self.harness.flags(), timings),
            None => Ok(None),
        }
    }

    fn measure_times(&self, report: &mut BenchReport) -> Result<(), Stop> {
        let Session {
            settings, meter, ..
        } = self.session;
        let (harness, cases) = (self.harness, self.cases);
        meter.begin("phases", phases::EXPECTED);
        report.phases = Some(phases::measure(harness, &cases[0], meter)?);
        meter.begin("warm calls", self.warm_time());
        let samples = warm::measure(harness, cases, settings, meter)?;
        for (case, samples) in report.cases.iter_mut().zip(samples) {
            case.response = Some(samples.response);
            case.guest = Some(samples.guest);
        }
        report.loads = self.measure_loads()?;
        let wish = Wish {
            p99: settings.p99,
            cores: report.machine.cores,
            instance_bytes: report.memory.map_or(0, |memory| memory.peak_bytes),
        };
        report.advice = advise(&report.loads, wish);
        meter.begin("price of safety", self.safety_time());
        let fuel = report.cases.iter().filter_map(|case| case.fuel);
        let most_fuel = fuel.map(|fuel| fuel.first.max(fuel.warm_max)).max();
        let modes = safety::modes(harness, most_fuel.unwrap_or_default())?;
        // A module that is meant for fewer calls of an instance is not held to more.
        let unjudged: Vec<BenchCase>;
        let cases = if harness.pool.isolation == Isolation::Pooled {
            cases
        } else {
            unjudged = cases.iter().map(BenchCase::anew).collect();
            &unjudged
        };
        report.safety = safety::measure(modes, cases, settings.amount.row_time(), meter)?;
        if settings.profile {
            meter.begin("taking a profile", profile::TIME);
            report.profile = Some(profile::take(harness, self.cases, meter)?);
        }
        Ok(())
    }

    /// Every combination, a few times by turns: so that whatever slows the
    /// machine down for a while slows all of them, and is seen.
    fn measure_loads(&self) -> Result<Vec<LoadPoint>, Stop> {
        let Session {
            settings, meter, ..
        } = self.session;
        let mut policies = Vec::new();
        for &size in &settings.pool_sizes {
            let policy = self.harness.policy(size);
            policy.pool().fill(size)?;
            policies.push(policy);
        }
        let mut loads = Vec::new();
        for policy in &policies {
            for (concurrency, pace) in settings.callers() {
                loads.push(Load {
                    policy,
                    cases: self.cases,
                    concurrency,
                    pace,
                    warm_up: settings.warm_up / TURNS,
                });
            }
        }
        let mut points: Vec<Option<LoadPoint>> = vec![None; loads.len()];
        for turn in 0..TURNS {
            let Some(amount) = settings.amount.of_turn(turn, TURNS) else {
                continue;
            };
            for (load, point) in loads.iter().zip(&mut points) {
                let at = match load.pace {
                    Pace::Closed => String::new(),
                    Pace::Rate(rate) => format!(" at {rate}/s"),
                };
                let size = load.policy.pool().settings().size;
                meter.begin(
                    format!("pool {size}, {} callers{at}", load.concurrency),
                    self.session.load_time() / TURNS,
                );
                let measured = load.measure(amount, meter)?;
                match point {
                    Some(point) => point.add(&measured),
                    None => *point = Some(measured),
                }
            }
        }
        Ok(points.into_iter().flatten().collect())
    }

    /// Times of each case beside the reference's.
    fn beside_reference(&self) -> Result<super::judge::Timings, Stop> {
        let reference = Reference::new()?;
        let all: Vec<&BenchCase> = self.cases.iter().collect();
        self.session.by_turns(&all, |index| {
            [reference.side(), side(self.harness, &self.cases[index])]
        })
    }

    fn beside_module(&self, path: &Path, report: &mut BenchReport) -> Result<Comparison, Stop> {
        self.session.meter.begin("loading", Duration::ZERO);
        let other = Harness::new(path, self.session.settings)?;
        other.module.require(self.harness.module.abi)?;
        let others: Vec<BenchCase> = self.cases.iter().map(BenchCase::anew).collect();
        let cases = exact::cases(&other, &others)?;
        let memory = exact::memory(&other, &others)?;
        let all: Vec<&BenchCase> = self.cases.iter().collect();
        let timings = self.session.by_turns(&all, |index| {
            [
                side(&other, &others[index]),
                side(self.harness, &self.cases[index]),
            ]
        })?;
        let by = path.display().to_string();
        report.changed_answers.extend(changed(&others, &by));
        let before = BaselineModule::of(&ModuleInfo::of(&other.module), &memory);
        let gate = self.session.gate(&timings);
        Ok(compare::of_modules(before, &cases, report, gate))
    }
}

/// Calls of a case, in each round on code of its own.
fn side<'a>(harness: &'a Harness<'_>, case: &'a BenchCase) -> Side<'a> {
    Box::new(move |round| Ok(pairs::calls(harness.policy_of_round(round)?, case)))
}
