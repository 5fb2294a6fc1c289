//! The ABIs: what a module exports, gets and answers.
//!
//! Both share one calling convention (`guest::convention`).

use crate::event::EventKind;
use crate::hook;
use crate::limits::{Isolation, Limits};

/// Exports that handle events, in the order of [`crate::event::EventKind::ALL`].
pub const EVENT_HANDLERS: [&str; 4] = [
    "on_request_headers",
    "on_request_body",
    "on_response_headers",
    "on_response_body",
];

named! {
    /// The contract a module was written to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Abi {
        /// `on_request_headers` and its kin: decisions about HTTP traffic.
        Agent => "agent",
        /// `before_hook` and `after_hook`: a plugin around somebody's own code.
        Hook => "hook",
    }
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
    /// The handlers a module of this ABI may export.
    #[must_use]
    pub const fn handlers(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &EVENT_HANDLERS,
            Self::Hook => &hook::HANDLERS,
        }
    }

    /// The handler that must be there, whatever others are. An agent module
    /// chooses: any of the four will do.
    #[must_use]
    pub const fn required_handler(self) -> Option<&'static str> {
        match self {
            Self::Agent => None,
            Self::Hook => Some(hook::HANDLERS[0]),
        }
    }

    /// What such a module is, in words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Agent => "a proxy agent",
            Self::Hook => "a before/after-hook plugin",
        }
    }

    /// What one call may use where nobody says otherwise.
    #[must_use]
    pub fn limits(self) -> Limits {
        match self {
            Self::Agent => Limits::default(),
            Self::Hook => Limits::of_hooks(),
        }
    }

    /// Whether an instance serves more than one call where nobody says so.
    #[must_use]
    pub const fn isolation(self) -> Isolation {
        match self {
            Self::Agent => Isolation::Pooled,
            Self::Hook => Isolation::Fresh,
        }
    }

    /// What to do with such a module where the other ABI is asked for.
    #[must_use]
    pub const fn way_out(self) -> &'static str {
        match self {
            Self::Agent => {
                "it answers a proxy's events: use `wasm-agent serve`, or `wasm-agent run` with request and response fixtures"
            }
            Self::Hook => {
                "it cannot be served to a proxy: use `wasm-agent run` with hook fixtures, or call it from a program with PluginRuntime"
            }
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
    EVENT_HANDLERS[kind as usize]
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
