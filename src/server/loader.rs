//! How the module was loaded, so that it can be loaded again the same way.
//!
//! In: a file and the settings in force. Out: an agent that has passed all
//! that the first one passed: file limits, contract, compiling, smoke call,
//! and a pool filled with instances. Whatever fails, nothing else changes.

use std::path::PathBuf;
use std::sync::Arc;

use crate::abi::Abi;
use crate::agent::{Agent, AgentSettings};
use crate::contract;
use crate::engine::{Engine, EngineSettings};
use crate::error::Error;
use crate::module::{LoadSettings, Module};
use crate::smoke::smoke_call;

/// Loads one module, as often as it is asked to.
#[derive(Debug, Clone)]
pub struct Loader {
    path: PathBuf,
    load: LoadSettings,
    smoke_call: bool,
    keep_settings: bool,
}

impl Loader {
    /// A loader of this file. Its memory is held to the limits of the agent
    /// that it is loaded for, whatever `load` says of them.
    #[must_use]
    pub const fn new(path: PathBuf, load: LoadSettings, smoke_call: bool) -> Self {
        Self {
            path,
            load,
            smoke_call,
            keep_settings: false,
        }
    }

    /// Refuses to change the settings of what it has loaded.
    #[must_use]
    pub const fn keep_settings(mut self, keep: bool) -> Self {
        self.keep_settings = keep;
        self
    }

    pub(crate) const fn keeps_settings(&self) -> bool {
        self.keep_settings
    }

    /// The first agent.
    ///
    /// # Errors
    /// Those of [`Module::load`], of the smoke call and of [`Agent::fill`].
    pub fn start(&self, settings: AgentSettings) -> Result<Agent, Error> {
        let engine = Engine::new(EngineSettings {
            fuel: settings.pool.limits.fuel.is_some(),
            ..EngineSettings::default()
        })?;
        let module = self.load(&engine, &settings)?;
        engine.compile_aside();
        self.ready(Agent::new(module, settings))
    }

    /// An agent of the file as it is now, with the settings of the one that
    /// runs.
    ///
    /// # Errors
    /// As for [`Loader::start`].
    pub fn again(&self, running: &Agent) -> Result<Agent, Error> {
        let settings = running.settings().clone();
        let module = self.load(&running.pool().module().engine, &settings)?;
        self.ready(running.followed_by(module, settings))
    }

    /// An agent of the module that runs, with other settings.
    ///
    /// The module is compiled again only where instructions are to be counted
    /// and were not, or the other way round.
    ///
    /// # Errors
    /// As for [`Loader::start`], and [`Error::Changed`] where it would have to
    /// be compiled again and the file is another one by now.
    pub fn adjusted(&self, running: &Agent, settings: AgentSettings) -> Result<Agent, Error> {
        let module = running.pool().module();
        let limits = &settings.pool.limits;
        if limits.fuel.is_some() != module.engine.counts_fuel() {
            let engine = Engine::new(EngineSettings {
                fuel: limits.fuel.is_some(),
                ..EngineSettings::default()
            })?;
            engine.compile_aside();
            let again = self.load(&engine, &settings)?;
            if again.hash != module.hash {
                return Err(Error::Changed {
                    path: self.path.clone(),
                    found: again.hash.clone(),
                });
            }
            return self.ready(running.followed_by(again, settings));
        }
        let verdict = contract::check(
            &module.facts,
            self.load.abi,
            (*limits).into(),
            &self.load.load,
        );
        if verdict.failures().next().is_some() {
            return Err(Error::Refused {
                path: self.path.clone(),
                problems: verdict.failures().cloned().collect(),
            });
        }
        self.ready(running.followed_by(Arc::clone(module), settings))
    }

    fn load(&self, engine: &Arc<Engine>, settings: &AgentSettings) -> Result<Arc<Module>, Error> {
        let load = LoadSettings {
            limits: settings.pool.limits.into(),
            ..self.load
        };
        Module::load(engine, &self.path, &load).map(Arc::new)
    }

    fn ready(&self, agent: Agent) -> Result<Agent, Error> {
        let module = agent.pool().module();
        module.require(Abi::Agent)?;
        if self.smoke_call {
            smoke_call(module, agent.settings())?;
        }
        agent.fill()?;
        Ok(agent)
    }
}
