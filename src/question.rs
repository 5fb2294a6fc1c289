//! What a guest is called with, whichever ABI it is written to.
//!
//! Everything that calls guests goes through [`Question`]: an event, a hook's
//! context, or the very bytes that a guest got before.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::abi::{Abi, handler_name};
use crate::event::{Event, EventKind};
use crate::hook::{Hook, HookContext};

named! {
    /// How header names are spelled for the guest.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum HeaderNames {
        /// `user-agent`: what every released proxy sends. The default.
        #[default]
        Lower => "lower",
        /// `User-Agent`: for modules written to the published examples.
        Canonical => "canonical",
        /// As the event has them. Only to find out what a spelling would change.
        AsWritten => "as-written",
    }
}

impl HeaderNames {
    pub(crate) fn spell(self, name: &str) -> Cow<'_, str> {
        match self {
            Self::AsWritten => Cow::Borrowed(name),
            Self::Lower if !has_upper(name) => Cow::Borrowed(name),
            Self::Lower => Cow::Owned(name.to_ascii_lowercase()),
            Self::Canonical => Cow::Owned(canonical(name)),
        }
    }
}

/// No branch from byte to byte: nearly all names have none.
fn has_upper(name: &str) -> bool {
    let upper = |any: bool, byte: u8| any | byte.is_ascii_uppercase();
    name.bytes().fold(false, upper)
}

/// `x-request-id` as `X-Request-Id`.
pub(crate) fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|character| {
            let spelled = if upper {
                character.to_ascii_uppercase()
            } else {
                character.to_ascii_lowercase()
            };
            upper = character == '-';
            spelled
        })
        .collect()
}

/// The handler that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// One of the agent ABI.
    Event(EventKind),
    /// One of the hook ABI.
    Hook(Hook),
}

impl Phase {
    /// All of both ABIs, in production order.
    pub const ALL: [Self; 6] = [
        Self::Event(EventKind::RequestHeaders),
        Self::Event(EventKind::RequestBody),
        Self::Event(EventKind::ResponseHeaders),
        Self::Event(EventKind::ResponseBody),
        Self::Hook(Hook::Before),
        Self::Hook(Hook::After),
    ];

    /// The name in fixtures, captures and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event(kind) => kind.name(),
            Self::Hook(hook) => hook.name(),
        }
    }

    /// The phase that [`Phase::name`] spells, if any does.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// The ABI of the modules that have this handler.
    #[must_use]
    pub const fn abi(self) -> Abi {
        match self {
            Self::Event(_) => Abi::Agent,
            Self::Hook(_) => Abi::Hook,
        }
    }

    /// The export that is called.
    #[must_use]
    pub const fn handler(self) -> &'static str {
        match self {
            Self::Event(kind) => handler_name(kind),
            Self::Hook(hook) => hook.name(),
        }
    }

    /// The place of its export among its ABI's.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Event(kind) => kind as usize,
            Self::Hook(hook) => hook as usize,
        }
    }

    /// Whether an exchange begins with it.
    #[must_use]
    pub const fn is_first(self) -> bool {
        matches!(
            self,
            Self::Event(EventKind::RequestHeaders) | Self::Hook(Hook::Before)
        )
    }
}

/// What a guest is called with.
/// ```
/// use wasm_agent_kit::event::{Event, RequestHead};
/// use wasm_agent_kit::question::{Phase, Question};
///
/// let event = Event::RequestHeaders(RequestHead::default());
/// let question = Question::from(&event);
/// assert_eq!(question.phase(), Phase::Event(event.kind()));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Question<'a> {
    /// An event of an HTTP exchange.
    Event(Cow<'a, Event>),
    /// A hook's context.
    Hook(Hook, Cow<'a, HookContext>),
    /// The input a guest got before, to be given again byte for byte.
    Exact {
        /// The handler it went to.
        phase: Phase,
        /// The chunk's index, for a body event.
        chunk_index: Option<u32>,
        /// The input JSON.
        json: Cow<'a, [u8]>,
    },
}

impl<'a> Question<'a> {
    /// The handler it goes to.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Event(event) => Phase::Event(event.kind()),
            Self::Hook(hook, _) => Phase::Hook(*hook),
            Self::Exact { phase, .. } => *phase,
        }
    }

    /// The chunk's index, for a body event.
    #[must_use]
    pub fn chunk_index(&self) -> Option<u32> {
        match self {
            Self::Event(event) => event.chunk_index(),
            Self::Hook(..) => None,
            Self::Exact { chunk_index, .. } => *chunk_index,
        }
    }

    /// The event, where it is one and no bytes.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Event(event) => Some(event),
            Self::Hook(..) | Self::Exact { .. } => None,
        }
    }

    /// The same, on its own.
    #[must_use]
    pub fn into_owned(self) -> Question<'static> {
        match self {
            Self::Event(event) => Question::Event(Cow::Owned(event.into_owned())),
            Self::Hook(hook, context) => Question::Hook(hook, Cow::Owned(context.into_owned())),
            Self::Exact {
                phase,
                chunk_index,
                json,
            } => Question::Exact {
                phase,
                chunk_index,
                json: Cow::Owned(json.into_owned()),
            },
        }
    }
}

impl From<Event> for Question<'static> {
    fn from(event: Event) -> Self {
        Self::Event(Cow::Owned(event))
    }
}

impl<'a> From<&'a Event> for Question<'a> {
    fn from(event: &'a Event) -> Self {
        Self::Event(Cow::Borrowed(event))
    }
}

/// A question, and when it is asked, for a guest whose clocks are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timed<Q> {
    /// None where nobody knows.
    pub(crate) at: Option<SystemTime>,
    pub(crate) question: Q,
}

impl<Q> Timed<Q> {
    pub(crate) const fn by_ref(&self) -> Timed<&Q> {
        Timed {
            at: self.at,
            question: &self.question,
        }
    }
}

impl From<Question<'static>> for Timed<Question<'static>> {
    fn from(question: Question<'static>) -> Self {
        Self { at: None, question }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_phases_are_each_others_inverse() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_name(phase.name()), Some(phase));
            assert!(phase.abi().handlers().contains(&phase.handler()));
        }
        assert_eq!(Phase::from_name("request_header"), None);
    }
}
