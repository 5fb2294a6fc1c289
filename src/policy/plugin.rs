//! The plugin: a hook context in, a result and the applied context out.
//!
//! For hook modules what [`crate::policy::agent`] is for agent modules: every command
//! and every embedding host calls hooks through [`Plugin::handle`]. There is no
//! failure policy: a fault is a result that is not ok, and the host decides.

use std::borrow::Cow;
use std::sync::Arc;

use crate::abi::Abi;
use crate::error::Error;
use crate::fault::{Fault, FaultCode};
use crate::guest::convention::json_buffer::hook::{CheckedResult, check_result};
use crate::guest::convention::json_buffer::write_input;
use crate::guest::module::Module;
use crate::guest::{Cost, Instance, RawAnswer};
use crate::hook::{Applied, Change, Hook, HookContext, HookResult, apply};
use crate::policy::pool::{Pool, PoolSettings};
use crate::question::{HeaderNames, Phase, Question};

/// What came of one hook.
#[derive(Debug, Clone)]
pub struct HandledHook {
    /// What the hook answered; after a fault, a result that is not ok.
    pub result: HookResult,
    /// The context the host goes on with: `input` and `data` as the hook left
    /// them, everything else as it was.
    pub context: HookContext,
    /// Whether that is another than it was called with.
    pub changed: bool,
    /// What else the hook would have changed.
    pub ignored: Vec<Change>,
    /// What the guest did wrong, if it did.
    pub fault: Option<Fault>,
    /// What the call cost; none where no guest was called.
    pub cost: Option<Cost>,
    /// Paths of keys of the answer that the contract does not know.
    pub unknown_keys: Vec<String>,
}

impl HandledHook {
    /// The result as the host acts on it, which is what records hold: with the
    /// context it goes on with, and none where that is as it was.
    #[must_use]
    pub fn effective(&self) -> HookResult {
        HookResult {
            ctx: self.changed.then(|| self.context.clone()),
            ..self.result.clone()
        }
    }
}

/// A module behind its pool, answering hook contexts.
pub struct Plugin {
    pool: Pool,
}

impl Plugin {
    /// A plugin of a loaded module.
    #[must_use]
    pub fn new(module: Arc<Module>, settings: PoolSettings) -> Self {
        Self {
            pool: Pool::new(module, settings),
        }
    }

    /// Makes the first instance, so that a module whose start fails is refused
    /// before the first context rather than at it.
    ///
    /// # Errors
    /// [`Error::WrongAbi`] for a module of another ABI, [`Error::Start`] with
    /// what the start did wrong.
    pub fn start(&self) -> Result<(), Error> {
        self.pool.module().require(Abi::Hook)?;
        self.pool.fill(1)
    }

    /// The pool, for its module, settings and counts.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether the module has this hook. `after_hook` is optional.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.pool.module().has_handler(hook.name())
    }

    /// Answers a hook's context, or the input that one was before, byte for
    /// byte.
    #[must_use]
    pub fn ask(&self, input: &Question<'_>) -> HandledHook {
        let refused = |what: String| {
            let fault = Fault::new(FaultCode::Internal, what);
            handled(HookContext::default(), Err(fault), None)
        };
        match input {
            Question::Hook(hook, context) => self.handle(*hook, context.as_ref().clone()),
            Question::Exact {
                phase: Phase::Hook(hook),
                json,
                ..
            } => match serde_json::from_slice(json) {
                Ok(context) => {
                    let (result, cost) = self.called(*hook, input);
                    handled(context, result, cost)
                }
                Err(error) => refused(format!("a hook's context that is none: {error}")),
            },
            Question::Event(_) | Question::Exact { .. } => {
                refused("an event, which no hook answers".to_owned())
            }
        }
    }

    /// Calls a hook. Waits for its turn, never fails, never panics. A hook that
    /// the module lacks is not called, and changes nothing.
    #[must_use]
    pub fn handle(&self, hook: Hook, context: HookContext) -> HandledHook {
        let (result, cost) = self.called(hook, &Question::Hook(hook, Cow::Borrowed(&context)));
        handled(context, result, cost)
    }

    fn called(
        &self,
        hook: Hook,
        input: &Question<'_>,
    ) -> (Result<Option<CheckedResult>, Fault>, Option<Cost>) {
        // Its hooks are absent, which must not pass for leave to go on.
        if let Err(error) = self.pool.module().require(Abi::Hook) {
            return (
                Err(Fault::new(FaultCode::Internal, error.to_string())),
                None,
            );
        }
        if !self.has(hook) {
            return (Ok(None), None);
        }
        self.pool.call(|instance| call_input(instance, hook, input))
    }
}

fn handled(
    context: HookContext,
    result: Result<Option<CheckedResult>, Fault>,
    cost: Option<Cost>,
) -> HandledHook {
    let (result, unknown_keys, fault) = match result {
        Ok(Some(answer)) => (answer.result, answer.unknown_keys, None),
        Ok(None) => (HookResult::unchanged(), Vec::new(), None),
        Err(fault) => (HookResult::trapped(&fault), Vec::new(), Some(fault)),
    };
    let Applied {
        context,
        changed,
        ignored,
    } = apply(context, &result);
    HandledHook {
        result,
        context,
        changed,
        ignored,
        fault,
        cost,
        unknown_keys,
    }
}

/// Calls a hook on an instance and checks its result; `None` is the empty
/// answer.
pub fn call_hook(
    instance: &mut Instance,
    hook: Hook,
    context: &HookContext,
) -> (Result<Option<CheckedResult>, Fault>, Cost) {
    let input = Question::Hook(hook, Cow::Borrowed(context));
    call_input(instance, hook, &input)
}

fn call_input(
    instance: &mut Instance,
    hook: Hook,
    input: &Question<'_>,
) -> (Result<Option<CheckedResult>, Fault>, Cost) {
    // A context has no header names to spell.
    let write = |out: &mut Vec<u8>| write_input(input, HeaderNames::AsWritten, out);
    let called = instance.call(hook as usize, write);
    let result = called.result.and_then(|answer| match answer {
        RawAnswer::Empty => Ok(None),
        RawAnswer::Bytes(bytes) => check_result(bytes).map(Some),
    });
    (result, called.cost)
}
