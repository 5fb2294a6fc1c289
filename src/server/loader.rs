//! Keeps how the module was loaded, so that a reload loads it in the same way.
//!
//! In: a file and the settings in force. Out: a policy that has passed all
//! that the first one passed: file limits, contract, compiling, smoke call,
//! and a pool filled with instances. Whatever fails, nothing else changes.

use std::path::PathBuf;
use std::sync::Arc;

use crate::abi::Abi;
use crate::error::Error;
use crate::guest::contract;
use crate::guest::engine::{Engine, EngineSettings};
use crate::guest::module::{LoadSettings, Module};
use crate::policy::smoke::smoke_call;
use crate::policy::{Policy, PolicySettings};
use crate::server::pushed::Key;

/// Loads one module, as often as it is asked to.
#[derive(Debug, Clone)]
pub struct Loader {
    path: PathBuf,
    load: LoadSettings,
    smoke_call: bool,
    keep_settings: bool,
    accepted: Vec<Key>,
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
            accepted: Vec::new(),
        }
    }

    /// Lets peers push these settings freely; of all others only values that are
    /// no looser than those the agent was started with are applied.
    #[must_use]
    pub fn accept_settings(mut self, keys: &[Key]) -> Self {
        self.accepted = keys.to_vec();
        self
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

    pub(crate) fn accepted_settings(&self) -> &[Key] {
        &self.accepted
    }

    /// The first policy.
    ///
    /// # Errors
    /// Those of [`Module::load`], of the smoke call and of [`Policy::fill`].
    pub fn start(&self, settings: PolicySettings) -> Result<Policy, Error> {
        let engine = engine_for(&settings)?;
        let module = self.load(&engine, &settings)?;
        engine.compile_aside();
        self.ready(Policy::new(module, settings))
    }

    /// A policy of the file as it is now, with the settings of the one that
    /// runs.
    ///
    /// # Errors
    /// As for [`Loader::start`].
    pub fn again(&self, running: &Policy) -> Result<Policy, Error> {
        let settings = running.settings().clone();
        let module = self.load(&running.pool().module().engine, &settings)?;
        self.ready(running.followed_by(module, settings))
    }

    /// The module that runs, as these settings need it: where instructions are to
    /// be counted and were not, or the other way round, `other` if it is the same
    /// module, compiled so; else it is compiled again.
    ///
    /// # Errors
    /// Those of [`Module::load`], and [`Error::Changed`] where the file is another
    /// one by now.
    pub(crate) fn module_for(
        &self,
        settings: &PolicySettings,
        now: &Arc<Module>,
        other: Option<&Arc<Module>>,
    ) -> Result<Arc<Module>, Error> {
        let limits = settings.pool.limits;
        let verdict = contract::check(&now.facts, self.load.abi, limits.into(), &self.load.load);
        if verdict.failures().next().is_some() {
            return Err(Error::Refused {
                path: self.path.clone(),
                problems: verdict.failures().cloned().collect(),
            });
        }
        let counts_fuel = limits.fuel.is_some();
        let fitting = [Some(now), other]
            .into_iter()
            .flatten()
            .find(|module| module.engine.counts_fuel() == counts_fuel && module.hash == now.hash);
        match fitting {
            Some(module) => Ok(Arc::clone(module)),
            None => self.compiled_again(&now.hash, settings),
        }
    }

    /// A policy of [`Loader::module_for`] these settings.
    ///
    /// # Errors
    /// As for [`Loader::start`].
    pub(crate) fn adjusted(
        &self,
        running: &Policy,
        module: Arc<Module>,
        settings: PolicySettings,
    ) -> Result<Policy, Error> {
        self.ready(running.followed_by(module, settings))
    }

    /// The same file for an engine that fits these settings.
    fn compiled_again(&self, hash: &str, settings: &PolicySettings) -> Result<Arc<Module>, Error> {
        let engine = engine_for(settings)?;
        engine.compile_aside();
        let again = self.load(&engine, settings)?;
        if again.hash != hash {
            return Err(Error::Changed {
                path: self.path.clone(),
                found: again.hash.clone(),
            });
        }
        Ok(again)
    }

    fn load(&self, engine: &Arc<Engine>, settings: &PolicySettings) -> Result<Arc<Module>, Error> {
        let load = LoadSettings {
            limits: settings.pool.limits.into(),
            ..self.load
        };
        let module = Module::load(engine, &self.path, &load).map(Arc::new)?;
        if let Some(unused) = settings.bodies.unused(&module) {
            tracing::warn!("{unused}");
        }
        Ok(module)
    }

    fn ready(&self, policy: Policy) -> Result<Policy, Error> {
        let module = policy.pool().module();
        module.require(Abi::Agent)?;
        if self.smoke_call {
            smoke_call(module, policy.settings())?;
        }
        policy.fill()?;
        Ok(policy)
    }
}

fn engine_for(settings: &PolicySettings) -> Result<Arc<Engine>, Error> {
    Engine::new(EngineSettings {
        fuel: settings.pool.limits.fuel.is_some(),
        ..EngineSettings::default()
    })
}
