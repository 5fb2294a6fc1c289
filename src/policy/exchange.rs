//! One exchange, question by question, as a proxy or a host asks them.

use super::{Handled, Reply};
use crate::response::Decision;

/// An exchange in progress.
#[derive(Debug, Default)]
pub struct Exchange {
    refused: bool,
}

impl Exchange {
    /// Makes the next call. Nothing where an earlier one refused: neither a
    /// proxy nor a host asks any further then.
    pub fn ask<A: Ends>(&mut self, call: impl FnOnce() -> A) -> Option<A> {
        if self.refused {
            return None;
        }
        let answered = call();
        self.refused = answered.ends();
        Some(answered)
    }
}

/// What may end an exchange.
pub trait Ends {
    /// Whether the exchange is over with it.
    fn ends(&self) -> bool;
}

impl Ends for Handled {
    fn ends(&self) -> bool {
        self.response.decision != Decision::Allow
    }
}

impl Ends for Reply {
    fn ends(&self) -> bool {
        !self.answer.passes()
    }
}
