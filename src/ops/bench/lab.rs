//! The module on every engine it is measured on, and one measured call.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::BenchSettings;
use super::cases::{Asked, BenchCase};
use super::report::BenchFailure;
use crate::abi::Abi;
use crate::abi::hook::{Hook, HookContext};
use crate::agent::{Agent, AgentSettings};
use crate::client::AskError;
use crate::engine::{Engine, EngineSettings};
use crate::error::Error;
use crate::event::Event;
use crate::fault::{Fault, FaultCode};
use crate::latency::Latency;
use crate::limits::{Isolation, Limits};
use crate::module::{Candidate, LoadSettings, Module, Source};
use crate::ops::run::{called, pooled};
use crate::ops::subject::Subject;
use crate::plugin::Plugin;
use crate::pool::PoolSettings;
use crate::runner::Cost;

/// How long a caller waits for an instance: long enough that a load shows as
/// queueing and not as refusals.
const QUEUE_WAIT: Duration = Duration::from_secs(30);

/// Why measuring ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// It could not be done at all.
    Error(Error),
    /// The guest faulted: a result of its own.
    Failure(Box<BenchFailure>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    pub(super) fn fault(during: &str, case: Option<&BenchCase>, fault: Fault) -> Self {
        Self::Failure(Box::new(BenchFailure {
            during: during.to_owned(),
            case: case.map(|case| case.name.clone()),
            message: fault.to_string(),
            others: None,
            fault: Some(fault),
        }))
    }

    /// A running agent: nobody there is an error, whoever fails a failure.
    pub(super) fn ask(during: &str, error: AskError) -> Self {
        match error {
            AskError::Connect { .. } => Self::Error(Error::Host {
                what: "cannot measure the agent",
                source: error.into(),
            }),
            AskError::Failed { case, reason } => Self::agent(during, Some(case), reason),
            other => Self::agent(during, None, other.to_string()),
        }
    }

    fn agent(during: &str, case: Option<String>, message: String) -> Self {
        Self::Failure(Box::new(BenchFailure {
            during: during.to_owned(),
            case,
            message,
            others: None,
            fault: None,
        }))
    }

    pub(super) fn no_thread(source: std::io::Error) -> Self {
        Self::Error(Error::Host {
            what: "cannot start a thread",
            source: source.into(),
        })
    }
}

/// A module under test.
pub(super) struct Lab<'a> {
    pub(super) path: &'a Path,
    pub(super) load: &'a LoadSettings,
    /// How it is called. Of a plugin only the pool is used.
    pub(super) agent: AgentSettings,
    /// On the engine that `serve` would have.
    pub(super) module: Arc<Module>,
    /// On an engine that counts instructions.
    pub(super) counting: Arc<Module>,
}

impl<'a> Lab<'a> {
    pub(super) fn new(path: &'a Path, settings: &'a BenchSettings) -> Result<Self, Error> {
        let load = &settings.load;
        let candidate = Candidate::read(path, load)?;
        let mut agent = settings.agent.clone();
        if let Some(abi) = candidate.verdict.abi {
            agent.pool.limits = candidate.limits.over(abi.limits());
            agent.pool.isolation = settings.isolation.unwrap_or(abi.isolation());
        }
        let served = EngineSettings {
            fuel: agent.pool.limits.fuel.is_some(),
            ..EngineSettings::default()
        };
        let compiled = candidate.compile(&Engine::new(served)?, &load.load)?;
        let module = Arc::new(compiled);
        let counting = if served.fuel {
            Arc::clone(&module)
        } else {
            let engine = Engine::new(EngineSettings {
                fuel: true,
                debug_lines: true,
                ..served
            })?;
            Arc::new(Module::load(&engine, path, load)?)
        };
        Ok(Self {
            path,
            load,
            agent,
            module,
            counting,
        })
    }

    /// The module on an engine of its own.
    pub(super) fn on(&self, settings: EngineSettings) -> Result<Arc<Module>, Error> {
        let engine = Engine::new(settings)?;
        Ok(Arc::new(Module::load(&engine, self.path, self.load)?))
    }

    /// How the module is called, as flags.
    pub(super) fn flags(&self) -> BTreeMap<&'static str, String> {
        match self.module.abi {
            Abi::Agent => called(&self.agent),
            Abi::Hook => pooled(&self.agent.pool),
        }
    }

    /// The same, as baselines hold them.
    pub(super) fn guest_flags(&self) -> BTreeMap<String, String> {
        let flags = self.flags().into_iter();
        flags
            .map(|(flag, value)| (flag.to_owned(), value))
            .collect()
    }

    /// What the limits are, isolation and all.
    pub(super) const fn limits(&self) -> Limits {
        self.agent.pool.limits
    }

    pub(super) const fn isolation(&self) -> Isolation {
        self.agent.pool.isolation
    }

    /// An agent as `serve` would have it, or a plugin as a host would, with so
    /// many instances.
    pub(super) fn subject(&self, size: usize) -> Subject {
        self.subject_of(&self.module, (size, self.isolation()), self.limits())
    }

    /// The same on an engine that counts instructions, with one instance.
    pub(super) fn counting_subject(&self) -> Subject {
        self.subject_of(&self.counting, (1, self.isolation()), self.limits())
    }

    pub(super) fn subject_of(
        &self,
        module: &Arc<Module>,
        (size, isolation): (usize, Isolation),
        limits: Limits,
    ) -> Subject {
        let module = Arc::clone(module);
        let pool = PoolSettings {
            size,
            wait: QUEUE_WAIT,
            isolation,
            limits,
        };
        match module.abi {
            Abi::Agent => Subject::Agent(Box::new(Agent::new(
                module,
                AgentSettings {
                    pool,
                    ..self.agent.clone()
                },
            ))),
            Abi::Hook => Subject::Plugin(Box::new(Plugin::new(module, pool))),
        }
    }
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Timed {
    /// From the event to the agent response.
    pub(super) response: Duration,
    /// Inside the guest.
    pub(super) guest: Duration,
    /// Waiting for an instance.
    pub(super) queue: Duration,
}

/// What came of one case.
pub(super) struct Answered {
    /// What the guest did wrong.
    pub(super) fault: Option<Fault>,
    /// What the call cost.
    pub(super) cost: Cost,
    /// The decision, or `ok` or `refused`.
    pub(super) word: &'static str,
}

/// A call that is ready to be made: a context goes to a plugin as a host would
/// give its own away.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and a box would count as part of the call"
)]
enum Prepared<'a> {
    Event(&'a Agent, &'a Event),
    Hook(&'a Plugin, Hook, HookContext),
    /// Of the other ABI; such cases were left out.
    Unsuited,
}

impl<'a> Prepared<'a> {
    fn new(subject: &'a Subject, case: &'a BenchCase) -> Self {
        match (subject, &case.asked) {
            (Subject::Agent(agent), Asked::Event(event)) => Self::Event(agent, event),
            (Subject::Plugin(plugin), Asked::Hook(hook, context)) => {
                Self::Hook(plugin, *hook, context.clone())
            }
            (Subject::Agent(_), Asked::Hook(..)) | (Subject::Plugin(_), Asked::Event(_)) => {
                Self::Unsuited
            }
        }
    }

    /// Makes the call. What came of it is the caller's to drop, so that is part
    /// of it.
    fn make(self) -> Answered {
        match self {
            Self::Event(agent, event) => {
                let mut handled = black_box(agent.handle(event));
                Answered {
                    fault: handled.fault.take(),
                    cost: handled.cost.unwrap_or_default(),
                    word: handled.response.decision.name(),
                }
            }
            Self::Hook(plugin, hook, context) => {
                let mut handled = black_box(plugin.handle(hook, context));
                Answered {
                    fault: handled.fault.take(),
                    cost: handled.cost.unwrap_or_default(),
                    word: if handled.result.ok { "ok" } else { "refused" },
                }
            }
            Self::Unsuited => Answered {
                fault: Some(Fault::new(
                    FaultCode::Internal,
                    "a case for a module of the other ABI",
                )),
                cost: Cost::default(),
                word: "none",
            },
        }
    }
}

/// Asks once.
pub(super) fn ask(subject: &Subject, case: &BenchCase) -> Answered {
    Prepared::new(subject, case).make()
}

/// Asks once and times it. A guest that faults is not measured.
pub(super) fn timed(subject: &Subject, case: &BenchCase) -> Result<Timed, Box<Fault>> {
    let call = Prepared::new(subject, case);
    let started = Instant::now();
    let Answered { fault, cost, .. } = call.make();
    let response = started.elapsed();
    match fault {
        Some(fault) => Err(Box::new(fault)),
        None => Ok(Timed {
            response,
            guest: cost.time,
            queue: cost.waited,
        }),
    }
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
    subject: &Subject,
    case: &BenchCase,
    calls: u64,
    samples: &mut Samples,
) -> Result<(), Box<Fault>> {
    for _ in 0..calls {
        samples.record(timed(subject, case)?);
    }
    Ok(())
}

impl Samples {
    pub(super) fn record(&mut self, timed: Timed) {
        self.response.record(timed.response);
        self.guest.record(timed.guest);
        self.queue.record(timed.queue);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.response.add(&other.response);
        self.guest.add(&other.guest);
        self.queue.add(&other.queue);
    }
}
