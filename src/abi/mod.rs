//! The ABIs: what a module exports, gets and answers.
//!
//! Both ABIs share one calling convention (`runner`); an adapter knows only
//! what is different. `Abi` is matched here and nowhere else.

pub mod agent;
pub mod answer;

use crate::event::EventKind;

/// The contract a module was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Abi {
    /// `on_request_headers` and its kin: decisions about HTTP traffic.
    Agent,
    /// `before_hook` and `after_hook`: a plugin around somebody's own code.
    Hook,
}

/// Which ABI to hold a module to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AbiChoice {
    /// The one whose handlers it exports.
    #[default]
    Auto,
    /// This one, whatever else it exports.
    Only(Abi),
}

impl Abi {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Hook];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hook => "hook",
        }
    }

    /// The handlers a module of this ABI may export, with the one that must be
    /// there first if one must.
    #[must_use]
    pub const fn handlers(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &agent::HANDLERS,
            Self::Hook => &["before_hook", "after_hook"],
        }
    }

    /// Whether an answer at address 0 with a length is valid, rather than the
    /// published agents' way of answering nothing.
    #[must_use]
    pub const fn reads_address_zero(self) -> bool {
        matches!(self, Self::Hook)
    }
}

/// The export that handles an event.
#[must_use]
pub const fn handler_name(kind: EventKind) -> &'static str {
    agent::HANDLERS[kind as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_its_event_with_on_before_it() {
        for kind in EventKind::ALL {
            assert_eq!(handler_name(kind), format!("on_{}", kind.name()));
        }
    }
}
