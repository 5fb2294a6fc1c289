//! A module under load: callers at once, in a closed loop or by schedule.
//!
//! In a closed loop each caller asks again as soon as it is answered, which
//! finds the capacity and flatters the tail: a slow answer keeps its caller
//! from asking. By schedule an event is due whatever became of the ones before,
//! and its response time counts from when it was due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, RwLock};
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::harness::{Call, Samples, measured};
use super::progress::Meter;
use super::report::LoadPoint;
use super::settings::{Amount, share};
use super::stop::Stop;
use crate::client::Pace;
use crate::latency::{Latency, Schedule};
use crate::policy::Policy;

/// Turns each load gets.
pub(super) const TURNS: u32 = 3;

/// What is asked of a policy.
pub(super) struct Load<'a> {
    pub(super) policy: &'a Policy,
    pub(super) cases: &'a [BenchCase],
    pub(super) concurrency: usize,
    pub(super) pace: Pace,
    pub(super) warm_up: Duration,
}

/// What one caller measured.
#[derive(Default)]
struct Caller {
    samples: Samples,
    /// From when an event was sent, where that is not when it was due.
    service: Latency,
    /// When its last event was answered, by schedule.
    last: Option<Instant>,
}

impl Load<'_> {
    pub(super) fn measure(&self, amount: Amount, meter: &Meter<'_>) -> Result<LoadPoint, Stop> {
        match self.pace {
            Pace::Closed => self.closed(amount, meter),
            Pace::Rate(rate) => self.open(rate, amount, meter),
        }
    }

    /// Each caller asks again as soon as it is answered.
    fn closed(&self, amount: Amount, meter: &Meter<'_>) -> Result<LoadPoint, Stop> {
        let measures = AtomicBool::new(false);
        let over = AtomicBool::new(false);
        let quota = match amount {
            Amount::Time(_) => None,
            Amount::Calls(calls) => Some(calls),
        };
        let caller = |number: usize| -> Result<Caller, Stop> {
            let mut caller = Caller::default();
            let mut next = number;
            let mine = quota.map(|calls| share(calls, number as u64, self.concurrency as u64));
            let mut counted = 0;
            while !over.load(Ordering::Relaxed) && mine.is_none_or(|mine| counted < mine) {
                let case = &self.cases[next % self.cases.len()];
                next += 1;
                let call = self.call(case, &over)?;
                if measures.load(Ordering::Relaxed) || mine.is_some() {
                    caller.samples.record(&call);
                    counted += 1;
                }
            }
            Ok(caller)
        };
        let (time, callers) = self.callers(&over, caller, || {
            if let Amount::Time(time) = amount {
                meter.sleep(self.warm_up);
                let began = Instant::now();
                measures.store(true, Ordering::Relaxed);
                meter.sleep(time);
                measures.store(false, Ordering::Relaxed);
                let time = began.elapsed();
                over.store(true, Ordering::Relaxed);
                Some(time)
            } else {
                None
            }
        })?;
        Ok(self.point(time, callers))
    }

    /// An event is due every so often, whoever is free takes it.
    fn open(&self, rate: f64, amount: Amount, meter: &Meter<'_>) -> Result<LoadPoint, Stop> {
        let measured = match amount {
            Amount::Time(time) => time,
            Amount::Calls(calls) => Duration::from_secs_f64(calls as f64 / rate),
        };
        let over = AtomicBool::new(false);
        // It begins when all callers are there.
        let schedule = OnceLock::new();
        let schedule = || schedule.get_or_init(|| Schedule::new(rate, self.warm_up, measured));
        let caller = |_: usize| -> Result<Caller, Stop> {
            let mut caller = Caller::default();
            let schedule = schedule();
            while !over.load(Ordering::Relaxed) {
                let Some(due) = schedule.next() else { break };
                let case = &self.cases[due.number % self.cases.len()];
                let mut call = self.call(case, &over)?;
                if due.is_measured {
                    caller.service.record(call.time);
                    call.time += due.late;
                    call.cost.waited += due.late;
                    caller.samples.record(&call);
                    caller.last = Some(Instant::now());
                }
            }
            Ok(caller)
        };
        let (_, callers) = self.callers(&over, caller, || {
            meter.sleep(self.warm_up + measured);
            None
        })?;
        // What was late is answered after the schedule's end.
        let last = callers.iter().filter_map(|caller| caller.last).max();
        let time = schedule().measured_time(last);
        Ok(self.point(time, callers))
    }

    /// One call; a fault ends all callers.
    fn call(&self, case: &BenchCase, over: &AtomicBool) -> Result<Call, Stop> {
        measured(self.policy, case, "under load")
            .inspect_err(|_| over.store(true, Ordering::Relaxed))
    }

    /// Starts the callers, and beside them what keeps the time. None begins
    /// before all are there.
    fn callers(
        &self,
        over: &AtomicBool,
        caller: impl Fn(usize) -> Result<Caller, Stop> + Sync,
        clock: impl FnOnce() -> Option<Duration>,
    ) -> Result<(Duration, Vec<Caller>), Stop> {
        let gate = RwLock::new(());
        let caller = |number| {
            drop(gate.read());
            caller(number)
        };
        let caller = &caller;
        std::thread::scope(|scope| {
            let closed = gate.write();
            let threads: Result<Vec<_>, _> = (0..self.concurrency)
                .map(|number| {
                    std::thread::Builder::new()
                        .name(format!("caller-{number}"))
                        .spawn_scoped(scope, move || caller(number))
                })
                .collect();
            // Those that are there must not wait for one that is not to come.
            over.store(threads.is_err(), Ordering::Relaxed);
            drop(closed);
            let threads = threads.map_err(Stop::no_thread)?;
            let began = Instant::now();
            let time = clock();
            let callers = threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect::<Result<Vec<_>, _>>()?;
            Ok((time.unwrap_or_else(|| began.elapsed()), callers))
        })
    }

    fn point(&self, time: Duration, callers: Vec<Caller>) -> LoadPoint {
        let (mut samples, mut service) = (Samples::default(), Latency::new());
        for caller in callers {
            samples.add(&caller.samples);
            service.add(&caller.service);
        }
        let seconds = time.as_secs_f64();
        let point = LoadPoint::new(self.concurrency, self.pace, seconds, samples.response);
        LoadPoint {
            pool_size: self.policy.pool().settings().size,
            service: point.rate.map(|_| service),
            queue: Some(samples.queue),
            guest: Some(samples.guest),
            ..point
        }
    }
}
