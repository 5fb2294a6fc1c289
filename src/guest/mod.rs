//! The sandboxed module: loaded, checked, instantiated and called under limits.
//!
//! In: a file and a question. Out: what the guest answered, checked, or a fault,
//! with what the call cost. Only this folder knows the engine.

pub(crate) mod contract;
pub(crate) mod convention;
mod deadline;
pub(crate) mod engine;
mod faults;
mod host;
pub(crate) mod inspect;
pub(crate) mod instance;
pub(crate) mod module;
mod stack;
pub(crate) mod wasi;

pub use engine::{Allocation, Engine, EngineSettings};
pub use instance::SLICE;
pub use module::{LoadSettings, Module};

pub(crate) use convention::{AskSettings, Checked};
pub(crate) use deadline::{TICK, processor_time};
pub(crate) use instance::Instance;
pub(crate) use stack::StackSamples;

pub(crate) use host::{ExecMode, HostState};
pub(crate) use instance::drive;
