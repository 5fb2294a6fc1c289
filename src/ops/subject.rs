//! A module of either ABI, asked as every command asks it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::exchange::Answered;
use crate::abi::Abi;
use crate::error::Error;
use crate::guest::module::Module;
use crate::limits::Isolation;
use crate::policy::agent::{Agent, AgentSettings};
use crate::policy::plugin::Plugin;
use crate::policy::pool::{Pool, PoolSettings};
use crate::question::Question;

/// What is asked.
pub enum Subject {
    /// A module that decides about events.
    Agent(Box<Agent>),
    /// A module of hooks.
    Plugin(Box<Plugin>),
}

impl Subject {
    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first fixture.
    ///
    /// # Errors
    /// [`Error::Start`] with what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        match self {
            Self::Agent(agent) => agent.start(),
            Self::Plugin(plugin) => plugin.start(),
        }
    }

    /// Calls it as every command does: waits for an instance, never fails.
    #[must_use]
    pub fn ask(&self, input: &Question<'_>) -> Answered {
        match self {
            Self::Agent(agent) => agent.ask(input).into(),
            Self::Plugin(plugin) => plugin.ask(input).into(),
        }
    }

    /// The same with one instance that nobody else uses, kept as before or
    /// otherwise.
    #[must_use]
    pub fn alone(&self, isolation: Option<Isolation>) -> Self {
        let module = Arc::clone(self.pool().module());
        let mut pool = *self.pool().settings();
        pool.size = 1;
        pool.isolation = isolation.unwrap_or(pool.isolation);
        match self {
            Self::Agent(agent) => {
                let settings = AgentSettings {
                    pool,
                    ..agent.settings().clone()
                };
                Self::Agent(Box::new(Agent::new(module, settings)))
            }
            Self::Plugin(_) => Self::Plugin(Box::new(Plugin::new(module, pool))),
        }
    }

    /// The ABI its module is written to.
    #[must_use]
    pub const fn abi(&self) -> Abi {
        match self {
            Self::Agent(_) => Abi::Agent,
            Self::Plugin(_) => Abi::Hook,
        }
    }

    /// How its module is called, as reports have it.
    pub(in crate::ops) fn described(&self) -> BTreeMap<&'static str, String> {
        match self {
            Self::Agent(agent) => called(agent.settings()),
            Self::Plugin(plugin) => pooled(plugin.pool().settings()),
        }
    }

    pub(in crate::ops) const fn pool(&self) -> &Pool {
        match self {
            Self::Agent(agent) => agent.pool(),
            Self::Plugin(plugin) => plugin.pool(),
        }
    }
}

/// The module that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// The file.
    pub path: String,
    /// `sha256:` and its hash.
    pub hash: String,
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// The ABI it was called by.
    pub abi: Cow<'static, str>,
    /// The handlers it exports, which are what the ABI was chosen by.
    pub handlers: Vec<Cow<'static, str>>,
    /// Functions have names, for backtraces.
    pub has_names: bool,
    /// There is DWARF, for files and lines in backtraces.
    pub has_dwarf: bool,
}

impl ModuleInfo {
    /// What a report says of a module.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        Self {
            path: module.path.display().to_string(),
            hash: module.hash.clone(),
            size_bytes: module.facts.size_bytes,
            abi: module.abi.name().into(),
            handlers: module.handlers().into_iter().map(Cow::Borrowed).collect(),
            has_names: module.facts.has_names,
            has_dwarf: module.facts.has_dwarf,
        }
    }
}

/// How a module is called, as reports have it.
pub(in crate::ops) fn called(settings: &AgentSettings) -> BTreeMap<&'static str, String> {
    let mut described = pooled(&settings.pool);
    let names = settings.header_names.name();
    let policy = settings.failure_policy.name();
    described.insert("header_names", names.to_owned());
    described.insert("failure_policy", policy.to_owned());
    described
}

/// The part of it that both ABIs have.
pub(in crate::ops) fn pooled(settings: &PoolSettings) -> BTreeMap<&'static str, String> {
    let limits = settings.limits;
    BTreeMap::from([
        ("timeout", format!("{:?}", limits.timeout)),
        (
            "fuel",
            limits
                .fuel
                .map_or_else(|| "none".to_owned(), |fuel| fuel.to_string()),
        ),
        ("max_memory_bytes", limits.max_memory_bytes.to_string()),
        ("max_answer_bytes", limits.max_answer_bytes.to_string()),
        ("wasi", limits.wasi.name().to_owned()),
        ("isolation", settings.isolation.to_string()),
    ])
}
