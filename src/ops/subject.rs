//! What an operation calls: an agent or a plugin, as the module's ABI has it.

use crate::agent::Agent;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::pool::Pool;

/// A module behind its pool.
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

    /// Its pool, for the module, the settings and the counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        match self {
            Self::Agent(agent) => agent.pool(),
            Self::Plugin(plugin) => plugin.pool(),
        }
    }
}
