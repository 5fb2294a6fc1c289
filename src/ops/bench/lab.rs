//! The module on every engine it is measured on, and one measured call.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cases::BenchCase;
use super::report::BenchFailure;
use crate::abi::Abi;
use crate::agent::{Agent, AgentSettings};
use crate::client::AskError;
use crate::engine::{Engine, EngineSettings};
use crate::error::Error;
use crate::fault::Fault;
use crate::latency::Latency;
use crate::limits::{Isolation, Limits};
use crate::module::{Candidate, LoadSettings, Module, Source};
use crate::pool::PoolSettings;

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
    pub(super) agent: &'a AgentSettings,
    /// On the engine that `serve` would have.
    pub(super) module: Arc<Module>,
    /// On an engine that counts instructions.
    pub(super) counting: Arc<Module>,
}

impl<'a> Lab<'a> {
    pub(super) fn new(
        path: &'a Path,
        load: &'a LoadSettings,
        agent: &'a AgentSettings,
    ) -> Result<Self, Error> {
        let compiled = |settings| -> Result<Arc<Module>, Error> {
            let engine = Engine::new(settings)?;
            Ok(Arc::new(Module::load(&engine, path, load)?))
        };
        let served = EngineSettings {
            fuel: agent.pool.limits.fuel.is_some(),
            ..EngineSettings::default()
        };
        let module = compiled(served)?;
        module.require(Abi::Agent)?;
        let counting = if served.fuel {
            Arc::clone(&module)
        } else {
            compiled(EngineSettings {
                fuel: true,
                debug_lines: true,
                ..served
            })?
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

    /// What the limits are, isolation and all.
    pub(super) const fn limits(&self) -> Limits {
        self.agent.pool.limits
    }

    pub(super) const fn isolation(&self) -> Isolation {
        self.agent.pool.isolation
    }

    /// An agent as `serve` would have it, with so many instances.
    pub(super) fn agent(&self, size: usize) -> Agent {
        self.agent_of(&self.module, (size, self.isolation()), self.limits())
    }

    /// An agent on an engine that counts instructions, with one instance.
    pub(super) fn counting_agent(&self) -> Agent {
        self.agent_of(&self.counting, (1, self.isolation()), self.limits())
    }

    pub(super) fn agent_of(
        &self,
        module: &Arc<Module>,
        (size, isolation): (usize, Isolation),
        limits: Limits,
    ) -> Agent {
        Agent::new(
            Arc::clone(module),
            AgentSettings {
                pool: PoolSettings {
                    size,
                    wait: QUEUE_WAIT,
                    isolation,
                    limits,
                },
                ..self.agent.clone()
            },
        )
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

/// Answers an event and times it. A guest that faults is not measured.
pub(super) fn timed(agent: &Agent, case: &BenchCase) -> Result<Timed, Box<Fault>> {
    let started = Instant::now();
    let mut handled = black_box(agent.handle(&case.event));
    let cost = handled.cost.unwrap_or_default();
    let (guest, queue) = (cost.time, cost.waited);
    let fault = handled.fault.take();
    // The response is the caller's to drop, so that is part of a call.
    drop(handled);
    let response = started.elapsed();
    match fault {
        Some(fault) => Err(Box::new(fault)),
        None => Ok(Timed {
            response,
            guest,
            queue,
        }),
    }
}

/// Distributions of many measured calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    pub(super) response: Latency,
    pub(super) guest: Latency,
    pub(super) queue: Latency,
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
