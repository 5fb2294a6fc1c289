//! A running agent, ours or anybody's, measured from outside: the same
//! fixtures, loads and gate, without a module to look into.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::inputs::Inputs;
use super::judge::Rounds;
use super::lab::Stop;
use super::pairs::{self, Batch, Reference, Side};
use super::progress::{Meter, Watcher};
use super::report::{BenchReport, CaseReport, LoadPoint, ProcessUse};
use super::{Against, Amount, Baseline, Bench, BenchSettings, Benched, share};
use crate::client::{Ask, AskError, Asker, Drive, Driven, Exchange, Pace, Process, Speech, Target};
use crate::error::Error;
use crate::latency::Latency;

/// Turns each exchange gets.
const TURNS: u32 = 10;

/// An agent that runs already.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where it listens and how it is spoken to.
    pub target: Target,
    /// Connections for events that may be in flight together.
    pub connections: usize,
    /// Its process, whose use is counted.
    pub process: Option<Process>,
}

/// Measures a running agent. The events of an exchange come one after the
/// other, and each is timed, and judged, for itself.
///
/// # Errors
/// [`Error::Host`] where nobody answers at the address, [`Error::Usage`] for a
/// baseline of other settings. An agent that fails is in the report.
pub fn bench_target(
    running: &Running,
    inputs: &Inputs,
    (settings, against): (&BenchSettings, Option<&Against>),
    watcher: &Watcher<'_>,
) -> Result<Benched, Error> {
    let bench = Bench {
        settings,
        meter: Meter::new(watcher),
    };
    Outside {
        running,
        bench: &bench,
    }
    .run(inputs, against)
}

struct Outside<'a> {
    running: &'a Running,
    bench: &'a Bench<'a>,
}

impl Outside<'_> {
    fn run(&self, inputs: &Inputs, against: Option<&Against>) -> Result<Benched, Error> {
        let target = &self.running.target;
        if let Some(process) = self.running.process {
            process.spent().map_err(|source| Error::Host {
                what: "cannot look at the process of --pid",
                source: source.into(),
            })?;
        }
        let mut flags = BTreeMap::from([("protocol", target.speech.name().to_owned())]);
        let mut settings = flags.clone();
        flags.insert("connections", self.running.connections.to_string());
        flags.extend(self.bench.settings.measuring());
        let mut report = BenchReport::new(flags, inputs.sampled.as_ref());
        report.target = Some(target.address.to_string());
        if report.is_debug() {
            report
                .notes
                .push("this is a debug build, which sends slowly".to_owned());
        }
        let settings: BTreeMap<String, String> = std::mem::take(&mut settings)
            .into_iter()
            .map(|(flag, value)| (flag.to_owned(), value))
            .collect();
        let mut baseline = None;
        match self.measure(&inputs.exchanges, (against, &settings), &mut report) {
            Ok(kept) => baseline = kept,
            Err(Stop::Failure(failure)) => report.failure = Some(*failure),
            Err(Stop::Error(error)) => return Err(error),
        }
        Ok(Benched { report, baseline })
    }

    fn measure(
        &self,
        cases: &[Vec<BenchCase>],
        (against, flags): (Option<&Against>, &BTreeMap<String, String>),
        report: &mut BenchReport,
    ) -> Result<Option<Baseline>, Stop> {
        let exchanges = self.exchanges(cases)?;
        let settings = self.bench.settings;
        let count = u32::try_from(cases.len()).unwrap_or(u32::MAX);
        let events: usize = cases.iter().map(Vec::len).sum();
        let each = super::warm::time_each(settings.amount, cases.len());
        let pairs = self.bench.pair_time(events) * u32::try_from(events).unwrap_or(u32::MAX);
        let loads = self.loads();
        let load_time = self.bench.load_time();
        let compares = against.is_some() || settings.keep;
        let meter = &self.bench.meter;
        meter.plan(each * count);
        if compares {
            meter.plan(pairs);
        }
        if against.is_none() {
            meter.plan(load_time * u32::try_from(loads.len()).unwrap_or(u32::MAX));
        }
        meter.begin("one at a time", each * count);
        report.cases = self.one_by_one(cases, &exchanges, each)?;
        if against.is_none() {
            for (concurrency, pace) in loads {
                meter.begin(format!("{concurrency} callers"), load_time);
                report
                    .loads
                    .push(self.load(&exchanges, (concurrency, pace))?);
            }
        }
        if !compares {
            return Ok(None);
        }
        let (rounds, busy) = self.rounds(cases, &exchanges)?;
        if let Some(Against::Baseline(path, baseline)) = against {
            report.comparison = Some(self.bench.beside_baseline(
                (path, baseline),
                (report, flags),
                (&rounds, busy),
            )?);
        }
        Ok(settings
            .keep
            .then(|| Baseline::of(report, flags, (rounds, busy))))
    }

    fn exchanges(&self, cases: &[Vec<BenchCase>]) -> Result<Vec<Exchange>, Stop> {
        let exchange = |cases: &Vec<BenchCase>| {
            let asks = cases
                .iter()
                .map(|case| match case.input.event() {
                    Some(event) => Ok(Ask {
                        name: case.name.clone(),
                        event: event.clone(),
                    }),
                    None => Err(Error::Usage(format!(
                        "{}: expected events of a proxy, found a hook, which no agent is asked about",
                        case.name
                    ))),
                })
                .collect::<Result<Vec<Ask>, Error>>()?;
            Exchange::new(self.running.target.speech, &asks)
                .map_err(|error| Error::Usage(error.to_string()).into())
        };
        cases.iter().map(exchange).collect()
    }

    fn loads(&self) -> Vec<(usize, Pace)> {
        let settings = self.bench.settings;
        let mut paces: Vec<Pace> = settings.rates.iter().copied().map(Pace::Rate).collect();
        if paces.is_empty() {
            paces.push(Pace::Closed);
        }
        let concurrency = settings.concurrency.iter();
        concurrency
            .flat_map(|concurrency| paces.iter().map(|pace| (*concurrency, *pace)))
            .collect()
    }

    fn one_by_one(
        &self,
        cases: &[Vec<BenchCase>],
        exchanges: &[Exchange],
        each: Duration,
    ) -> Result<Vec<CaseReport>, Stop> {
        let failed = |error| Stop::ask("sending one event at a time", error);
        let mut asker = self.connect()?;
        let mut reports: Vec<Vec<CaseReport>> = cases
            .iter()
            .map(|cases| cases.iter().map(unmeasured).collect())
            .collect();
        // The first turn warms up.
        for turn in 0..=TURNS {
            for (exchange, reports) in exchanges.iter().zip(&mut reports) {
                let until = Instant::now() + each / TURNS;
                let calls = match (self.bench.settings.amount, turn.checked_sub(1)) {
                    (_, None) => 1,
                    (Amount::Time(_), Some(_)) => u64::MAX,
                    (Amount::Calls(calls), Some(turn)) => share(calls, (TURNS, turn)),
                };
                for asked in 0..calls {
                    if asked > 0 && calls == u64::MAX && Instant::now() >= until {
                        break;
                    }
                    asker
                        .ask(exchange, |step, asked| {
                            if let Some(report) = reports.get_mut(step) {
                                report.decision = asked.decision;
                                if turn > 0
                                    && let Some(response) = &mut report.response
                                {
                                    response.record(asked.time);
                                }
                            }
                        })
                        .map_err(failed)?;
                }
            }
            self.bench.meter.tick();
        }
        Ok(reports.into_iter().flatten().collect())
    }

    fn connect(&self) -> Result<Asker, Stop> {
        let target = &self.running.target;
        Asker::connect(target).map_err(|error| {
            Stop::Error(Error::Host {
                what: "cannot measure the agent",
                source: AskErrorAt {
                    target: target.address.to_string(),
                    error,
                }
                .into(),
            })
        })
    }

    fn load(
        &self,
        exchanges: &[Exchange],
        (concurrency, pace): (usize, Pace),
    ) -> Result<LoadPoint, Stop> {
        let settings = self.bench.settings;
        let (time, events) = match (settings.amount, pace) {
            (Amount::Time(time), _) => (time, None),
            (Amount::Calls(calls), Pace::Rate(rate)) => {
                (Duration::from_secs_f64(calls as f64 / rate), None)
            }
            (Amount::Calls(calls), Pace::Closed) => (Duration::ZERO, Some(calls)),
        };
        let target = &self.running.target;
        let drive = Drive {
            target,
            exchanges,
            concurrency,
            // No proxy sends ahead of an answer in v1.
            connections: match target.speech {
                Speech::V1 => concurrency,
                Speech::V2 | Speech::Grpc => self.running.connections,
            },
            pace,
            warm_up: settings.warm_up,
            time,
            events,
            process: self.running.process,
        };
        let driven = drive
            .run(&|| self.bench.meter.tick())
            .map_err(|error| Stop::ask("under load", error))?;
        Ok(point(driven, (concurrency, pace)))
    }

    /// Times of each event beside the reference's, those before and after it
    /// in its exchange being asked about as well.
    fn rounds(
        &self,
        cases: &[Vec<BenchCase>],
        exchanges: &[Exchange],
    ) -> Result<(Vec<Rounds>, Option<f64>), Stop> {
        let reference = Reference::new()?;
        let places = cases.iter().enumerate().flat_map(|(exchange, cases)| {
            let places = cases.iter().enumerate();
            places.map(move |(step, case)| (case, (exchange, step)))
        });
        let (all, places): (Vec<&BenchCase>, Vec<(usize, usize)>) = places.unzip();
        self.bench.by_turns(&all, |index, time| {
            let (exchange, judged) = places[index];
            let exchange = &exchanges[exchange];
            let after = |_: usize| -> Result<Batch<'_>, Stop> {
                let mut asker = self.connect()?;
                Ok(Box::new(move |calls| {
                    let mut time = Duration::ZERO;
                    for _ in 0..calls {
                        asker
                            .ask(exchange, |step, asked| {
                                if step == judged {
                                    time += asked.time;
                                }
                            })
                            .map_err(|error| Stop::ask(pairs::DURING, error))?;
                    }
                    Ok(time)
                }))
            };
            let sides: [&Side<'_>; 2] = [&|round| Ok(reference.batch(round)), &after];
            pairs::by_turns(sides, time, &self.bench.meter)
        })
    }
}

/// Says where the agent that did wrong was to be.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {error}")]
struct AskErrorAt {
    target: String,
    error: AskError,
}

fn unmeasured(case: &BenchCase) -> CaseReport {
    CaseReport {
        name: case.name.clone(),
        event: case.input.phase().name(),
        input_hash: case.input_hash.clone(),
        input_bytes: case.input_bytes,
        answer_bytes: 0,
        decision: "none",
        fuel: None,
        response: Some(Latency::new()),
        guest: None,
    }
}

fn point(driven: Driven, (concurrency, pace): (usize, Pace)) -> LoadPoint {
    let events = driven.response.count() as f64;
    let seconds = driven.time.as_secs_f64();
    let rate = match pace {
        Pace::Closed => None,
        Pace::Rate(rate) => Some(rate),
    };
    let process = driven.spent.map(|[before, after]| {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
        ProcessUse {
            cpu_us_per_event: cpu * 1e6 / events.max(1.0),
            resident_bytes: after.resident_bytes,
            resident_growth_per_event: grown / events.max(1.0),
        }
    });
    LoadPoint {
        pool_size: 0,
        concurrency,
        rate,
        throughput: events / seconds,
        turns: vec![events / seconds],
        response: driven.response,
        service: rate.map(|_| driven.service),
        queue: None,
        guest: None,
        process,
    }
}
