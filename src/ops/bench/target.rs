//! A running agent, ours or anybody's, measured from outside: the same
//! fixtures, loads and gate, without a module to look into.

use std::time::{Duration, Instant};

use super::baseline::Baseline;
use super::cases::BenchCase;
use super::inputs::Inputs;
use super::judge::Timings;
use super::pairs::{self, Batch, Reference, Side};
use super::report::{BenchReport, CaseReport, Flags, LoadPoint, ProcessUse};
use super::session::{Benched, Session};
use super::settings::{Amount, BenchTask, repeated, share};
use super::steady::{Told, changed};
use super::stop::Stop;
use super::warm::time_each;
use crate::client::{Ask, Asker, Drive, Driven, ExchangeFrames, Pace, Process, Protocol, Target};
use crate::error::Error;
use crate::latency::Latency;

/// Turns each exchange gets.
const TURNS: u32 = 10;

/// An agent that runs already.
#[derive(Debug, Clone)]
pub(crate) struct Running {
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
pub(crate) fn bench_target(
    running: &Running,
    inputs: Inputs,
    task: &BenchTask<'_>,
) -> Result<Benched, Error> {
    let session = Session::new(task);
    let target = &running.target;
    if let Some(process) = running.process {
        process.spent().map_err(|source| Error::Host {
            what: "cannot look at the process of --pid",
            source: source.into(),
        })?;
    }
    let called = Flags::from([("protocol", target.protocol.name().to_owned())]);
    let mut flags = called.clone();
    flags.insert("connections", running.connections.to_string());
    flags.extend(task.settings.measuring());
    let debug_note = "this is a debug build, which sends slowly";
    let mut report = BenchReport::new(flags, inputs.sampled, debug_note);
    report.target = Some(target.address.to_string());
    let bench = TargetBench {
        running,
        session: &session,
        cases: &inputs.exchanges,
    };
    let done = bench.measure(&called, &mut report);
    let cases = inputs.exchanges.iter().flatten();
    let by = target.address.to_string();
    report.changed_answers = changed(cases, &by);
    session.end(done, report)
}

struct TargetBench<'a> {
    running: &'a Running,
    session: &'a Session<'a>,
    /// By exchange.
    cases: &'a [Vec<BenchCase>],
}

impl TargetBench<'_> {
    fn measure(&self, called: &Flags, report: &mut BenchReport) -> Result<Option<Baseline>, Stop> {
        let exchanges = self.exchanges()?;
        let Session {
            settings,
            against,
            meter,
        } = self.session;
        let each = time_each(settings.amount, self.cases.len());
        let one_by_one = repeated(each, self.cases.len());
        let load_time = self.session.load_time();
        let callers = settings.callers();
        let compares = against.is_some() || settings.keep;
        meter.plan(one_by_one);
        if compares {
            self.session
                .plan_pairs(self.cases.iter().map(Vec::len).sum());
        }
        if against.is_none() {
            meter.plan(repeated(load_time, callers.len()));
        }
        meter.begin("one at a time", one_by_one);
        report.cases = self.one_by_one(&exchanges, each)?;
        if against.is_none() {
            for (concurrency, pace) in callers {
                meter.begin(format!("{concurrency} callers"), load_time);
                let point = self.load(&exchanges, concurrency, pace)?;
                report.loads.push(point);
            }
        }
        if !compares {
            return Ok(None);
        }
        let timings = self.timings(&exchanges)?;
        self.session.keep(report, called, timings)
    }

    fn exchanges(&self) -> Result<Vec<ExchangeFrames>, Stop> {
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
            ExchangeFrames::new(self.running.target.protocol, &asks)
                .map_err(|error| Error::Usage(error.to_string()).into())
        };
        self.cases.iter().map(exchange).collect()
    }

    fn one_by_one(
        &self,
        exchanges: &[ExchangeFrames],
        each: Duration,
    ) -> Result<Vec<CaseReport>, Stop> {
        let failed = |error| Stop::ask("sending one event at a time", error);
        let mut asker = self.connect()?;
        let unmeasured = |case: &BenchCase| CaseReport {
            response: Some(Latency::new()),
            ..case.unmeasured()
        };
        let cases = self.cases.iter();
        let mut reports: Vec<Vec<CaseReport>> = cases
            .map(|cases| cases.iter().map(unmeasured).collect())
            .collect();
        let mut made = vec![0; exchanges.len()];
        // The first turn warms up.
        for turn in 0..=TURNS {
            let all = exchanges.iter().zip(&mut reports).zip(&mut made);
            for (((exchange, reports), made), cases) in all.zip(self.cases) {
                let until = Instant::now() + each / TURNS;
                let calls = match (self.session.settings.amount, turn.checked_sub(1)) {
                    (_, None) => 1,
                    (Amount::Time(_), Some(_)) => u64::MAX,
                    (Amount::Calls(calls), Some(turn)) => share(calls, turn.into(), TURNS.into()),
                };
                for asked in 0..calls {
                    if asked > 0 && calls == u64::MAX && Instant::now() >= until {
                        break;
                    }
                    let before = *made;
                    *made += 1;
                    asker
                        .ask(exchange, |step, asked| {
                            if let Some(case) = cases.get(step) {
                                case.steady.hold(Told::Decision(asked.decision), before);
                            }
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
            self.session.meter.tick();
        }
        Ok(reports.into_iter().flatten().collect())
    }

    fn connect(&self) -> Result<Asker, Stop> {
        let target = &self.running.target;
        Asker::connect(target)
            .map_err(|error| Stop::no_agent(format!("{}: {error}", target.address)))
    }

    fn load(
        &self,
        exchanges: &[ExchangeFrames],
        concurrency: usize,
        pace: Pace,
    ) -> Result<LoadPoint, Stop> {
        let settings = self.session.settings;
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
            connections: match target.protocol {
                Protocol::V1 => concurrency,
                Protocol::V2 | Protocol::Grpc => self.running.connections,
            },
            pace,
            warm_up: settings.warm_up,
            time,
            events,
            process: self.running.process,
        };
        let driven = drive
            .run(&|| self.session.meter.tick())
            .map_err(|error| Stop::ask("under load", error))?;
        Ok(point(driven, concurrency, pace))
    }

    /// Times of each event beside the reference's, those before and after it
    /// in its exchange being asked about as well.
    fn timings(&self, exchanges: &[ExchangeFrames]) -> Result<Timings, Stop> {
        let reference = Reference::new()?;
        let places = self.cases.iter().enumerate().flat_map(|(exchange, cases)| {
            let places = cases.iter().enumerate();
            places.map(move |(step, case)| (case, (exchange, step)))
        });
        let (all, places): (Vec<&BenchCase>, Vec<(usize, usize)>) = places.unzip();
        self.session.by_turns(&all, |index| {
            let (exchange, judged) = places[index];
            let exchange = &exchanges[exchange];
            let after: Side<'_> = Box::new(move |_| {
                let mut asker = self.connect()?;
                Ok(Box::new(move |calls: u32| {
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
                }) as Batch<'_>)
            });
            [reference.side(), after]
        })
    }
}

fn point(driven: Driven, concurrency: usize, pace: Pace) -> LoadPoint {
    let events = (driven.response.count() as f64).max(1.0);
    let process = driven.spent.map(|[before, after]| {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
        ProcessUse {
            cpu_us_per_event: cpu * 1e6 / events,
            resident_bytes: after.resident_bytes,
            resident_growth_per_event: grown / events,
        }
    });
    let seconds = driven.time.as_secs_f64();
    let point = LoadPoint::new(concurrency, pace, seconds, driven.response);
    LoadPoint {
        service: point.rate.map(|_| driven.service),
        process,
        ..point
    }
}
