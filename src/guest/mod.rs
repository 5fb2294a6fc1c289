//! The sandboxed module: loaded, checked, instantiated and called under limits.
//!
//! In: a file and a question. Out: what the guest answered, checked, or a fault,
//! with what the call cost. Only this folder knows the engine.

pub mod contract;
pub mod convention;
pub mod engine;
mod faults;
mod host;
pub mod inspect;
mod instance;
pub mod module;
mod stack;
pub mod wasi;

pub use convention::{AskSettings, Checked};
pub use instance::{Called, Instance, PANIC_MESSAGE, RawAnswer, SLICE};
pub use stack::StackSamples;

pub(crate) use host::{ExecMode, HostState};
pub(crate) use instance::drive;
