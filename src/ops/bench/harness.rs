//! The module on every engine it is measured on, and one measured call.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::report::Flags;
use super::settings::BenchSettings;
use super::steady::Told;
use super::stop::Stop;
use crate::abi::Abi;
use crate::cost::Cost;
use crate::error::Error;
use crate::fault::{Fault, FaultCode};
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{Candidate, LoadSettings, Module, Source};
use crate::latency::Latency;
use crate::ops::module_info::{called, pooled};
use crate::policy::bodies::cannot_be_done;
use crate::policy::pool::PoolSettings;
use crate::policy::{BodyMode, Policy, PolicySettings};
use crate::question::Question;

/// What compiling a module over and over may take; it is compiled twice
/// whatever that takes.
const COPIES_TIME: Duration = Duration::from_secs(2);

/// Rounds of a comparison, each with instances of its own.
pub(super) const ROUNDS: usize = 8;

/// How long a caller waits for an instance: long enough that a load shows as
/// queueing and not as refusals.
const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// A module under test.
pub(super) struct Harness<'a> {
    pub(super) path: &'a Path,
    settings: &'a BenchSettings,
    /// How its instances are kept and limited: as its ABI has it where nobody
    /// said.
    pub(super) pool: PoolSettings,
    /// On the engine that production would have.
    pub(super) module: Arc<Module>,
    /// On an engine that counts instructions.
    pub(super) counting: Arc<Module>,
    copies: OnceLock<Vec<Arc<Module>>>,
}

impl<'a> Harness<'a> {
    pub(super) fn new(path: &'a Path, settings: &'a BenchSettings) -> Result<Self, Error> {
        let load = &settings.load;
        let pool = match Candidate::read(path, load)?.checks.abi {
            Some(Abi::Hook) => settings.hook_pool,
            // What has none is refused with its reasons when it is compiled.
            Some(Abi::Agent) | None => settings.policy.pool,
        };
        let served = served(&pool);
        let module = compiled(path, load, served)?;
        let counting = if served.fuel {
            Arc::clone(&module)
        } else {
            let counting = EngineSettings {
                fuel: true,
                debug_lines: true,
                ..served
            };
            compiled(path, load, counting)?
        };
        Ok(Self {
            path,
            settings,
            pool: PoolSettings {
                wait: QUEUE_WAIT,
                ..pool
            },
            module,
            counting,
            copies: OnceLock::new(),
        })
    }

    pub(super) const fn load(&self) -> &'a LoadSettings {
        &self.settings.load
    }

    /// How the module is called, as flags.
    pub(super) fn flags(&self) -> Flags {
        match self.module.abi {
            Abi::Agent => called(&self.settings.policy, self.body_mode()),
            Abi::Hook => pooled(&self.pool),
        }
    }

    /// How the module gets bodies.
    pub(super) fn body_mode(&self) -> BodyMode {
        self.settings.policy.bodies.mode_of(&self.module)
    }

    /// The engine that production would have.
    pub(super) fn served(&self) -> EngineSettings {
        served(&self.pool)
    }

    /// The module on an engine of its own.
    pub(super) fn on(&self, settings: EngineSettings) -> Result<Arc<Module>, Error> {
        compiled(self.path, self.load(), settings)
    }

    /// As production would have it, with so many instances.
    pub(super) fn policy(&self, size: usize) -> Policy {
        self.policy_of(&self.module, PoolSettings { size, ..self.pool })
    }

    /// On an engine that counts instructions, with one instance.
    pub(super) fn counting_policy(&self) -> Policy {
        let size = 1;
        self.policy_of(&self.counting, PoolSettings { size, ..self.pool })
    }

    pub(super) fn policy_of(&self, module: &Arc<Module>, pool: PoolSettings) -> Policy {
        let settings = PolicySettings {
            pool,
            ..self.settings.policy.clone()
        };
        Policy::new(Arc::clone(module), settings)
    }

    /// As production would have it, for a round of a comparison, if it can on
    /// code of its own: where in memory code comes to lie makes it some per
    /// cent faster or slower, which must not pass for the module's doing.
    pub(super) fn policy_of_round(&self, round: usize) -> Result<Policy, Error> {
        let copies = match self.copies.get() {
            Some(copies) => copies,
            None => {
                let copies = self.compile_copies()?;
                self.copies.get_or_init(|| copies)
            }
        };
        let size = 1;
        let pool = PoolSettings { size, ..self.pool };
        Ok(self.policy_of(&copies[round % copies.len()], pool))
    }

    fn compile_copies(&self) -> Result<Vec<Arc<Module>>, Error> {
        let mut copies = vec![Arc::clone(&self.module)];
        let started = Instant::now();
        while copies.len() < ROUNDS && (copies.len() < 2 || started.elapsed() < COPIES_TIME) {
            let module = Module::load(&self.module.engine, self.path, self.load())?;
            if module.hash != self.module.hash {
                return Err(Error::Malformed {
                    path: self.path.to_owned(),
                    message: "the file was replaced while it was measured; measure again"
                        .to_owned(),
                });
            }
            copies.push(Arc::new(module));
        }
        Ok(copies)
    }
}

fn served(pool: &PoolSettings) -> EngineSettings {
    EngineSettings {
        fuel: pool.limits.fuel.is_some(),
        ..EngineSettings::default()
    }
}

fn compiled(
    path: &Path,
    load: &LoadSettings,
    settings: EngineSettings,
) -> Result<Arc<Module>, Error> {
    let engine = Engine::new(settings)?;
    Ok(Arc::new(Module::load(&engine, path, load)?))
}

/// A module of our own making, for what must not change from run to run.
pub(super) fn built_in(wasm: Vec<u8>, name: &str) -> Result<Arc<Module>, Error> {
    let settings = LoadSettings::default();
    let source = Source {
        path: name.into(),
        wasm,
        hash: String::new(),
    };
    let engine = Engine::new(EngineSettings::default())?;
    let module = Candidate::of(source, &settings)?.compile(&engine, &settings.load)?;
    Ok(Arc::new(module))
}

/// One measured call.
pub(super) struct Call {
    /// From the event to the agent response, from a hook's context to the
    /// context that comes of it.
    pub(super) time: Duration,
    pub(super) cost: Cost,
    pub(super) decision: &'static str,
}

/// Calls the module as every command does, and times that. A guest that faults
/// is not measured. What is done with the answer here is not part of the time.
fn call(policy: &Policy, case: &BenchCase) -> Result<Call, Box<Fault>> {
    let mut exchange = policy.exchange();
    exchange.at(case.now);
    let (time, cost, told, decision, fault) = match &case.input {
        // The context is the host's own to give: copying it is not part of a call.
        Question::Hook(hook, context) => {
            let context = context.as_ref().clone();
            let started = Instant::now();
            let handled = black_box(exchange.hook(*hook, context));
            let time = started.elapsed();
            let mut handled = handled.ok_or_else(not_asked)?;
            let fault = handled.fault.take();
            let decision = if handled.result.ok { "ok" } else { "refused" };
            let cost = handled.cost;
            (time, cost, Told::Hook(Box::new(handled)), decision, fault)
        }
        question => {
            let started = Instant::now();
            let reply = black_box(exchange.ask(question));
            let time = started.elapsed();
            let mut reply = reply.ok_or_else(not_asked)?;
            let fault = reply.fault.take();
            let fault = fault.or_else(|| cannot_be_done(&reply.answer, case.chunks));
            let decision = reply.answer.name();
            (time, reply.cost, Told::Event(reply.answer), decision, fault)
        }
    };
    if let Some(fault) = fault {
        return Err(Box::new(fault));
    }
    let cost = cost.unwrap_or_default();
    if policy.is_repeatable() {
        case.steady.hold(told, cost.calls_before);
    }
    Ok(Call {
        time,
        cost,
        decision,
    })
}

/// A defect: the first question of an exchange is always asked.
fn not_asked() -> Box<Fault> {
    let what = "the first question of an exchange was not asked; please report it";
    Box::new(Fault::new(FaultCode::Internal, what))
}

/// The same while this is being measured, which a fault ends.
pub(super) fn measured(policy: &Policy, case: &BenchCase, during: &str) -> Result<Call, Stop> {
    call(policy, case).map_err(|fault| Stop::fault(during, Some(case), *fault))
}

/// Distributions of many measured calls.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// From the event to the agent response.
    pub response: Latency,
    /// Inside the guest.
    pub guest: Latency,
    /// Waiting for an instance.
    pub queue: Latency,
}

/// Makes so many calls of a case, one after the other, and times each.
///
/// # Errors
/// The guest's fault: what faults is not measured.
pub fn sample(
    policy: &Policy,
    case: &BenchCase,
    calls: u64,
    samples: &mut Samples,
) -> Result<(), Box<Fault>> {
    for _ in 0..calls {
        samples.record(&call(policy, case)?);
    }
    Ok(())
}

impl Samples {
    pub(super) fn record(&mut self, call: &Call) {
        self.response.record(call.time);
        self.guest.record(call.cost.time);
        self.queue.record(call.cost.waited);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.response.add(&other.response);
        self.guest.add(&other.guest);
        self.queue.add(&other.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bench::{Amount, Thresholds};

    fn settings() -> BenchSettings {
        BenchSettings {
            load: LoadSettings::default(),
            policy: PolicySettings::default(),
            hook_pool: PoolSettings::default(),
            amount: Amount::Calls(1),
            warm_up: Duration::ZERO,
            pool_sizes: Vec::new(),
            concurrency: Vec::new(),
            rates: Vec::new(),
            p99: Duration::ZERO,
            thresholds: Thresholds::default(),
            seed: 1,
            keep: false,
            profile: false,
        }
    }

    fn copied() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wat");
        std::fs::copy("fixtures/modules/right/allow.wat", &path).unwrap();
        (folder, path)
    }

    /// What one place in memory does to code, the next round does not have.
    #[test]
    fn rounds_have_code_of_their_own() {
        let (_folder, path) = copied();
        let settings = settings();
        let harness = Harness::new(&path, &settings).unwrap();
        let module = |round| Arc::clone(harness.policy_of_round(round).unwrap().pool().module());
        let mut copies: Vec<_> = (0..ROUNDS)
            .map(|round| Arc::as_ptr(&module(round)))
            .collect();
        copies.sort_unstable();
        copies.dedup();
        assert_eq!(copies.len(), ROUNDS);
        assert!(Arc::ptr_eq(&module(0), &module(ROUNDS)));
    }

    #[test]
    fn a_file_that_is_replaced_meanwhile_is_not_taken_for_the_same() {
        let (_folder, path) = copied();
        let settings = settings();
        let harness = Harness::new(&path, &settings).unwrap();
        std::fs::copy("fixtures/modules/right/deny.wat", &path).unwrap();
        let error = harness.policy_of_round(0).err().unwrap().to_string();
        assert!(error.contains("replaced while it was measured"), "{error}");
    }
}
