//! One exchange with an agent, event by event: what `run` and `replay` share.

use crate::agent::{Agent, Handled};
use crate::response::{AgentResponse, Decision};

/// An exchange in progress.
pub struct Exchange<'a> {
    agent: &'a Agent,
    refused: bool,
}

impl<'a> Exchange<'a> {
    /// An exchange that no event of has been asked about.
    #[must_use]
    pub const fn new(agent: &'a Agent) -> Self {
        Self {
            agent,
            refused: false,
        }
    }

    /// Asks about the next event. Nothing where an earlier one was refused: a
    /// proxy asks no further about such an exchange.
    pub fn ask(&mut self, call: impl FnOnce(&Agent) -> Handled) -> Option<Handled> {
        if self.refused {
            return None;
        }
        let handled = call(self.agent);
        self.refused = ends(&handled.response);
        Some(handled)
    }
}

/// Whether the exchange is over with this answer.
#[must_use]
pub const fn ends(response: &AgentResponse) -> bool {
    !matches!(response.decision, Decision::Allow)
}
