//! Load on a running agent. In a closed loop a fixed number of events is always in
//! flight. By schedule each event has a time at which it is sent, and each caller has
//! its own connection, so that no event waits behind the answer to another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::answers::Said;
use super::frames::ExchangeFrames;
use super::link::{Asker, Link};
use super::process::Spent;
use super::{AskError, Process, Protocol, Target};
use crate::latency::{Latency, Schedule};

/// How events follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As soon as there is an answer.
    Closed,
    /// So many for each second.
    Rate(f64),
}

/// What is asked, and how.
#[derive(Debug)]
pub struct Drive<'a> {
    /// The agent.
    pub target: &'a Target,
    /// What it is asked, by turns; at least one.
    pub exchanges: &'a [ExchangeFrames],
    /// Events in flight at once, at least 1.
    pub concurrency: usize,
    /// Connections for them, as even as may be; by schedule each event has
    /// its own.
    pub connections: usize,
    /// How events follow each other.
    pub pace: Pace,
    /// Before it is measured.
    pub warm_up: Duration,
    /// While it is measured.
    pub time: Duration,
    /// In a closed loop instead of warming up and of `time`: so many events,
    /// all of which are measured.
    pub events: Option<u64>,
    /// The process whose use is counted.
    pub process: Option<Process>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Driven {
    /// From when an event was due, in a closed loop from when it was sent.
    pub response: Latency,
    /// From when it was sent; nothing in a closed loop.
    pub service: Latency,
    /// Wall clock while it was measured.
    pub time: Duration,
    /// What the process had spent before and after.
    pub spent: Option<[Spent; 2]>,
}

/// What the threads are told.
#[derive(Default)]
struct Phase {
    measures: AtomicBool,
    over: AtomicBool,
    /// Threads that are not done.
    running: AtomicUsize,
}

/// One event in flight.
#[derive(Debug, Clone, Copy)]
struct Flight {
    sent: Instant,
    exchange: usize,
    step: usize,
    /// Of the exchange's id.
    number: usize,
}

/// One thread's connection.
enum Caller {
    Closed(Box<Link>, Share),
    Open(Box<Asker>),
}

/// One connection's share of the whole.
#[derive(Debug, Clone, Copy)]
struct Share {
    connection: usize,
    /// Events in flight.
    depth: usize,
    /// Events that it may still send.
    left: u64,
}

#[derive(Default)]
struct Times {
    response: Latency,
    service: Latency,
    /// When the last event was answered, by schedule.
    last: Option<Instant>,
}

impl Drive<'_> {
    /// Runs it; `tick` is called now and then while it does.
    ///
    /// # Errors
    /// The first thing that an agent did wrong.
    pub fn run(&self, tick: &dyn Fn()) -> Result<Driven, AskError> {
        // All are let in before anything is measured.
        let callers = self.callers()?;
        let phase = Phase::default();
        phase.running.store(callers.len(), Ordering::Relaxed);
        phase
            .measures
            .store(self.events.is_some(), Ordering::Relaxed);
        let schedule = self.schedule();
        let start = (Instant::now(), self.spent()?);
        let here = std::thread::current();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (number, caller) in callers.into_iter().enumerate() {
                let (phase, schedule, here) = (&phase, &schedule, &here);
                let work = move || {
                    let done = match caller {
                        Caller::Closed(link, share) => self.closed(*link, share, phase),
                        Caller::Open(asker) => self.open(*asker, phase, schedule),
                    };
                    if done.is_err() {
                        phase.over.store(true, Ordering::Relaxed);
                    }
                    if phase.running.fetch_sub(1, Ordering::AcqRel) == 1 {
                        here.unpark();
                    }
                    done
                };
                let thread = std::thread::Builder::new()
                    .name(format!("caller-{number}"))
                    .spawn_scoped(scope, work)
                    .map_err(|source| {
                        phase.over.store(true, Ordering::Relaxed);
                        AskError::Broken {
                            what: "starting a thread",
                            source,
                        }
                    })?;
                threads.push(thread);
            }
            let clock = match self.events {
                Some(_) => self.count(&phase, start, tick),
                None => self.clock(&phase, tick),
            };
            let mut times = Times::default();
            let mut first = None;
            for thread in threads {
                match thread.join() {
                    Ok(Ok(more)) => {
                        times.response.add(&more.response);
                        times.service.add(&more.service);
                        times.last = times.last.max(more.last);
                    }
                    Ok(Err(error)) => first = first.or(Some(error)),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            let (mut time, spent) = clock?;
            if matches!(self.pace, Pace::Rate(_)) {
                // What was late is answered after the schedule's end.
                time = schedule.measured_time(times.last);
            }
            first.map_or(
                Ok(Driven {
                    response: times.response,
                    service: times.service,
                    time,
                    spent,
                }),
                Err,
            )
        })
    }

    /// Connections, and events in flight on each.
    fn callers(&self) -> Result<Vec<Caller>, AskError> {
        if matches!(self.pace, Pace::Rate(_)) {
            return (0..self.concurrency)
                .map(|_| Ok(Caller::Open(Box::new(Asker::connect(self.target)?))))
                .collect();
        }
        let connections = self.connections.clamp(1, self.concurrency);
        (0..connections)
            .map(|number| {
                let more = usize::from(number < self.concurrency % connections);
                let link = Box::new(Link::connect(self.target)?);
                let left = self.events.map_or(u64::MAX, |events| {
                    let (connections, number) = (connections as u64, number as u64);
                    events / connections + u64::from(number < events % connections)
                });
                let share = Share {
                    connection: number,
                    depth: self.concurrency / connections + more,
                    left,
                };
                Ok(Caller::Closed(link, share))
            })
            .collect()
    }

    /// Events have a rate, and exchanges are due. A closed loop has none.
    fn schedule(&self) -> Schedule {
        let events: usize = self.exchanges.iter().map(|all| all.steps.len()).sum();
        let rate = match self.pace {
            Pace::Closed => 1.0,
            Pace::Rate(rate) => rate * self.exchanges.len() as f64 / events.max(1) as f64,
        };
        Schedule::new(rate, self.warm_up, self.time)
    }

    fn spent(&self) -> Result<Option<Spent>, AskError> {
        let spent = self.process.map(Process::spent).transpose();
        spent.map_err(|source| AskError::Broken {
            what: "looking at the process of --pid",
            source,
        })
    }

    /// Waits until all events are answered.
    #[allow(clippy::type_complexity, reason = "two results of one clock")]
    fn count(
        &self,
        phase: &Phase,
        (began, before): (Instant, Option<Spent>),
        tick: &dyn Fn(),
    ) -> Result<(Duration, Option<[Spent; 2]>), AskError> {
        while phase.running.load(Ordering::Acquire) > 0 {
            std::thread::park_timeout(Duration::from_millis(100));
            tick();
        }
        let time = began.elapsed();
        let spent = before.zip(self.spent()?);
        Ok((time, spent.map(|(before, after)| [before, after])))
    }

    /// Keeps the time, and looks at the process before and after.
    #[allow(clippy::type_complexity, reason = "two results of one clock")]
    fn clock(
        &self,
        phase: &Phase,
        tick: &dyn Fn(),
    ) -> Result<(Duration, Option<[Spent; 2]>), AskError> {
        let sleep = |time: Duration| {
            let until = Instant::now() + time;
            while Instant::now() < until && !phase.over.load(Ordering::Relaxed) {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(Duration::from_millis(100)));
                tick();
            }
        };
        sleep(self.warm_up);
        let before = self.spent();
        let began = Instant::now();
        phase.measures.store(true, Ordering::Relaxed);
        sleep(self.time);
        phase.measures.store(false, Ordering::Relaxed);
        let time = began.elapsed();
        let after = self.spent();
        // By schedule the last events are still to be answered.
        if self.pace == Pace::Closed || before.is_err() || after.is_err() {
            phase.over.store(true, Ordering::Relaxed);
        }
        Ok((
            time,
            before?.zip(after?).map(|(before, after)| [before, after]),
        ))
    }

    /// Sends and receives until it is over and all is answered.
    fn closed(&self, mut link: Link, share: Share, phase: &Phase) -> Result<Times, AskError> {
        let Share {
            connection,
            depth,
            mut left,
        } = share;
        // No more places than there are events.
        let depth = usize::try_from(left).map_or(depth, |left| depth.min(left));
        let mut sender = link.sender()?;
        let mut times = Times::default();
        let mut out = Vec::new();
        let mut number = 0;
        let mut begin = |slot: usize, out: &mut Vec<u8>| {
            number += 1;
            let exchange = (connection + number) % self.exchanges.len();
            let now = Instant::now();
            self.exchanges[exchange].steps[0].write([connection, slot, number], out);
            Flight {
                sent: now,
                exchange,
                step: 0,
                number,
            }
        };
        let mut flights: Vec<Flight> = (0..depth).map(|slot| begin(slot, &mut out)).collect();
        left -= depth as u64;
        // In v1 answers do not say whose they are, and come in order.
        let mut in_order: VecDeque<usize> = match self.target.protocol {
            Protocol::V1 => (0..depth).collect(),
            Protocol::V2 | Protocol::Grpc => VecDeque::new(),
        };
        let mut in_flight = depth;
        while in_flight > 0 {
            if !out.is_empty() {
                sender.send(&out)?;
                out.clear();
            }
            link.receive()?;
            let now = Instant::now();
            while let Some(said) = link.next()? {
                let Said::Answer { slot, failed, .. } = said else {
                    continue;
                };
                let next = || in_order.pop_front();
                let slot = slot.or_else(next).ok_or_else(unasked)?;
                let flight = flights.get_mut(slot).ok_or_else(unasked)?;
                if let Some(reason) = failed {
                    return Err(self.failure(flight, reason));
                }
                if phase.measures.load(Ordering::Relaxed) {
                    times.response.record(now.duration_since(flight.sent));
                }
                let steps = &self.exchanges[flight.exchange].steps;
                let next = steps.get(flight.step + 1);
                if left == 0 || next.is_none() && phase.over.load(Ordering::Relaxed) {
                    in_flight -= 1;
                    continue;
                }
                left -= 1;
                if let Some(step) = next {
                    step.write([connection, slot, flight.number], &mut out);
                    flight.step += 1;
                    flight.sent = now;
                } else {
                    *flight = begin(slot, &mut out);
                }
                if self.target.protocol == Protocol::V1 {
                    in_order.push_back(slot);
                }
            }
        }
        Ok(times)
    }

    /// What it is when an answer says that its agent failed.
    fn failure(&self, flight: &Flight, reason: String) -> AskError {
        let steps = &self.exchanges[flight.exchange].steps;
        AskError::Failed {
            case: steps[flight.step].name.clone(),
            reason,
        }
    }

    /// By schedule each caller has a connection and takes the next exchange
    /// that is due; the steps after its first are due when they can be asked.
    fn open(
        &self,
        mut asker: Asker,
        phase: &Phase,
        schedule: &Schedule,
    ) -> Result<Times, AskError> {
        let mut times = Times::default();
        while !phase.over.load(Ordering::Relaxed) {
            let Some(due) = schedule.next() else { break };
            let exchange = due.number % self.exchanges.len();
            asker.ask(&self.exchanges[exchange], |step, asked| {
                if due.is_measured {
                    let late = if step == 0 { due.late } else { Duration::ZERO };
                    times.response.record(asked.time + late);
                    times.service.record(asked.time);
                    times.last = Some(Instant::now());
                }
            })?;
        }
        Ok(times)
    }
}

fn unasked() -> AskError {
    AskError::Protocol("an answer to an event that was not sent".to_owned())
}
