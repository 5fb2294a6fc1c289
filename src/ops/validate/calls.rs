//! How the probes call a guest: samples in, what was seen out.
//!
//! Every call goes through [`Instance::ask`], as production's do. Invariant: an instance that may not be
//! called again is not; after a few deadlines nothing is called at all.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::cost::Cost;
use crate::fault::{Fault, FaultCode};
use crate::guest::module::Module;
use crate::guest::{AskSettings, Checked, Instance, processor_time};
use crate::hook::HookResult;
use crate::limits::{Isolation, Limits, Wasi};
use crate::policy::BodyMode;
use crate::policy::bodies::{Collected, Collector};
use crate::question::{HeaderNames, Question};
use crate::response::AgentResponse;

use super::{SampleCost, ValidateSettings, samples};

/// Deadlines waited for before a module is called no more: with the default
/// of 100 ms a hostile module is judged in well under a second.
const MAX_DEADLINES: u32 = 3;
/// What making an instance and a call costs beside the guest's instructions,
/// in as many of them: some 10 microseconds at 5 instructions a nanosecond.
pub(super) const CALL_OVERHEAD: u64 = 50_000;
/// A third of what was measured on compiled guests, in instructions for each
/// nanosecond.
const SLOWEST: u64 = 2;
/// Wall clock that a probe has at least: a busy machine is no finding.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// One call to be made.
#[derive(Debug, Clone)]
pub(in crate::ops) struct Sample {
    /// Names it in rows and sequences.
    pub(in crate::ops) name: &'static str,
    /// What the guest gets.
    pub(in crate::ops) input: Question<'static>,
}

impl Sample {
    pub(super) fn handler(&self) -> &'static str {
        self.input.phase().handler()
    }

    /// Whether production would ask this.
    pub(super) const fn is_ordinary(&self) -> bool {
        !matches!(self.input, Question::Exact { .. })
    }
}

/// What one call came to.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The checked answer, none for an empty one, or the fault.
    pub(super) result: Result<Option<Checked>, Fault>,
    /// What it cost.
    pub(super) cost: Cost,
    /// Why the instance may not be called again, if it may not.
    pub(super) poison: Option<FaultCode>,
    /// Whether memory was asked for that the limits refuse.
    pub(super) refused_growth: bool,
    /// What the handler probably meant to return, where nothing was read.
    pub(super) misread: Option<&'static str>,
}

impl Seen {
    /// Whether a proxy would be told the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (&self.result, &other.result) {
            (Ok(Some(one)), Ok(Some(other))) => one.answer.tells_the_same(&other.answer),
            (Ok(one), Ok(other)) => one.is_none() && other.is_none(),
            (Err(one), Err(other)) => (one.code, &one.refusal) == (other.code, &other.refusal),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        }
    }

    pub(super) fn fault(&self) -> Option<FaultCode> {
        self.result.as_ref().err().map(|fault| fault.code)
    }

    pub(super) fn answer(&self) -> Option<&Answer> {
        Some(&self.result.as_ref().ok()?.as_ref()?.answer)
    }

    pub(super) fn response(&self) -> Option<&AgentResponse> {
        match self.answer()? {
            Answer::Response(response) => Some(response),
            Answer::Result(_) => None,
        }
    }

    pub(super) fn hook_result(&self) -> Option<&HookResult> {
        match self.answer()? {
            Answer::Result(result) => Some(result),
            Answer::Response(_) => None,
        }
    }

    /// The decision or the fault, in a few words.
    pub(super) fn outcome(&self) -> String {
        match &self.result {
            Ok(None) => "empty answer".to_owned(),
            Ok(Some(checked)) => {
                let name = checked.answer.name();
                match self
                    .response()
                    .and_then(|response| response.decision.status())
                {
                    Some(status) => format!("{name} {status}"),
                    None => name.to_owned(),
                }
            }
            Err(fault) => fault.code.to_string(),
        }
    }

    /// Whether the call ran into a limit that takes a while to run into.
    pub(super) fn is_slow(&self) -> bool {
        self.fault() == Some(FaultCode::Deadline) || self.poison == Some(FaultCode::Deadline)
    }
}

/// What a hook said in one word.
pub(super) const fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "refused" }
}

/// A sample and what a fresh instance made of it.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) sample: Sample,
    pub(super) seen: Seen,
}

impl Trial {
    /// As it stands in the report; nothing for input that is no event.
    pub(super) fn cost(&self) -> Option<SampleCost> {
        self.sample.is_ordinary().then(|| SampleCost {
            handler: self.sample.handler(),
            sample: self.sample.name,
            outcome: self.seen.outcome(),
            fuel: self.seen.cost.fuel.filter(|_| self.seen.result.is_ok()),
            answer_bytes: self.seen.cost.answer_bytes,
            memory_bytes: self.seen.cost.memory_bytes,
        })
    }

    /// Whether the instance can be called again after it.
    pub(super) fn is_survived(&self) -> bool {
        self.seen.poison.is_none()
    }
}

/// Calls one module, and counts what it must not do too often.
pub(super) struct Prober<'a> {
    pub(super) module: &'a Arc<Module>,
    pub(super) settings: &'a ValidateSettings,
    limits: Limits,
    deadlines: Cell<u32>,
    /// Instructions so far, and what calling costs beside them.
    spent: Cell<u64>,
}

impl<'a> Prober<'a> {
    pub(super) fn new(module: &'a Arc<Module>, settings: &'a ValidateSettings) -> Self {
        Self {
            module,
            settings,
            limits: module.limits,
            deadlines: Cell::new(0),
            spent: Cell::new(0),
        }
    }

    /// The same with clocks and random bytes that repeat, where those of the guest
    /// are real: equal questions are then equal for it, so that answers and fuel
    /// can be compared.
    pub(super) fn repeatable(&self) -> Option<Self> {
        let is_real =
            self.limits.wasi == Wasi::Real && self.module.facts.reads_clocks_or_random_bytes();
        is_real.then(|| Self {
            limits: Limits {
                wasi: Wasi::Fixed,
                ..self.limits
            },
            deadlines: self.deadlines.clone(),
            spent: self.spent.clone(),
            ..*self
        })
    }

    /// Whether clocks and random bytes repeat here that are real in production.
    pub(super) fn is_repeatable_only_here(&self) -> bool {
        self.limits.wasi != self.module.limits.wasi
    }

    /// A budget from here on. A module that computes does at least
    /// [`SLOWEST`] instructions in a nanosecond.
    pub(super) fn budget(&self, instructions: u64) -> Budget<'_> {
        Budget {
            spent: &self.spent,
            until: self.spent.get().saturating_add(instructions),
            end: processor_time()
                + Duration::from_nanos(instructions / SLOWEST).max(LEAST_PATIENCE),
        }
    }

    /// Whether so many calls met the deadline that no more are made.
    pub(super) fn is_exhausted(&self) -> bool {
        self.deadlines.get() >= MAX_DEADLINES
    }

    /// What a row says that was not reached.
    pub(super) fn why_skipped(&self) -> String {
        match self.deadlines.get() {
            0 => "not tried, the calls before took too long".to_owned(),
            1 => "not tried, a call met its deadline".to_owned(),
            calls => format!("not tried, {calls} calls met their deadline"),
        }
    }

    /// How production gives the module bodies.
    pub(super) fn body_mode(&self) -> BodyMode {
        self.settings.bodies.mode_of(self.module)
    }

    /// Whether production asks the module this, and as what: one that gets bodies whole
    /// is asked about no part of one.
    pub(super) fn asks(&self, sample: &mut Sample) -> bool {
        if self.body_mode() == BodyMode::Chunks {
            return true;
        }
        samples::chunk_in(sample).is_none_or(|chunk| {
            let taken = Collector::default().take(chunk, self.settings.bodies.max_bytes);
            matches!(taken, Ok(Collected::Whole(_)))
        })
    }

    /// The samples that production asks the module.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = samples::all(self.module);
        samples.retain_mut(|sample| self.asks(sample));
        samples
    }

    /// Whether production's instances will serve more than one call.
    pub(super) fn isolation(&self) -> Isolation {
        let default = self.module.abi.isolation();
        self.settings.isolation.unwrap_or(default)
    }

    pub(super) fn instance(&self) -> Result<Instance, Box<Fault>> {
        Instance::new(self.module, self.limits)
    }

    /// Calls a new instance.
    pub(super) fn fresh(&self, sample: &Sample) -> Seen {
        self.fresh_spelled(sample, self.settings.header_names)
    }

    /// The same with header names spelled otherwise.
    pub(super) fn fresh_spelled(&self, sample: &Sample, names: HeaderNames) -> Seen {
        let once = || match self.instance() {
            Ok(mut instance) => self.ask(&mut instance, sample, names),
            Err(fault) => Seen {
                poison: Some(fault.code),
                result: Err(*fault),
                cost: Cost::default(),
                refused_growth: false,
                misread: None,
            },
        };
        self.patiently(|| {
            let seen = once();
            self.count(&seen);
            seen
        })
    }

    /// Does it again with nothing else running if a call met its deadline: others
    /// may have had the processor. What is then seen is what counts.
    pub(super) fn patiently<T>(&self, mut once: impl FnMut() -> T) -> T {
        let deadlines = self.deadlines.get();
        let done = once();
        if self.deadlines.get() == deadlines {
            return done;
        }
        self.deadlines.set(deadlines);
        self.module.engine.alone(once)
    }

    /// Calls an instance that may have been called before. Its caller makes the same
    /// calls [`Self::patiently`].
    pub(super) fn call(&self, instance: &mut Instance, sample: &Sample) -> Seen {
        let seen = self.ask(instance, sample, self.settings.header_names);
        self.count(&seen);
        seen
    }

    fn ask(&self, instance: &mut Instance, sample: &Sample, names: HeaderNames) -> Seen {
        let asking = AskSettings {
            header_names: names,
            answer_policy: &self.settings.answer_policy,
            now: None,
        };
        let (result, cost) = instance.ask(&sample.input, asking);
        Seen {
            misread: matches!(result, Ok(None))
                .then(|| instance.misread())
                .flatten(),
            result,
            cost,
            poison: instance.poison(),
            refused_growth: instance.was_refused_memory(),
        }
    }

    fn count(&self, seen: &Seen) {
        let spent = seen
            .cost
            .fuel
            .unwrap_or_default()
            .saturating_add(CALL_OVERHEAD);
        self.spent.set(self.spent.get().saturating_add(spent));
        if seen.is_slow() {
            self.deadlines.set(self.deadlines.get() + 1);
        }
    }
}

/// How much one probe may call the module.
///
/// Instructions end it for any module that computes, so that what is found
/// does not hang on the machine or on what else it does. Processor time ends it
/// for one that keeps the host busy instead.
#[derive(Clone, Copy)]
pub(super) struct Budget<'a> {
    spent: &'a Cell<u64>,
    until: u64,
    end: Duration,
}

impl Budget<'_> {
    pub(super) fn is_spent(self) -> bool {
        self.spent.get() >= self.until || processor_time() >= self.end
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::guest::engine::{Engine, EngineSettings};
    use crate::guest::module::LoadSettings;

    #[test]
    fn what_meets_its_deadline_is_done_once_more_and_then_counts() {
        let engine = Engine::new(EngineSettings::default()).unwrap();
        let path = Path::new("fixtures/modules/hostile/counter.wat");
        let module = Module::load(&engine, path, &LoadSettings::default()).unwrap();
        let (module, settings) = (Arc::new(module), ValidateSettings::default());
        let prober = Prober::new(&module, &settings);
        for (late, done) in [(0, 1), (1, 2), (2, 2)] {
            prober.deadlines.set(1);
            let mut times = 0;
            prober.patiently(|| {
                times += 1;
                let is_late = times <= late;
                prober
                    .deadlines
                    .set(prober.deadlines.get() + u32::from(is_late));
            });
            assert_eq!(times, done, "{late}");
            assert_eq!(prober.deadlines.get(), 1 + u32::from(late == 2), "{late}");
        }
    }
}
