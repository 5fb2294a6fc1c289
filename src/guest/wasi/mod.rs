//! WASI preview 1 for guests of real toolchains: a world that holds nothing.
//!
//! In: the imports of a module. Out: host functions that answer "no files, no
//! directories, no variables, no arguments, no sockets", write what a guest
//! prints to the log, and turn an exit into a trap. Invariants: no function
//! opens, waits or blocks; each is over in bounded time and memory, whatever a
//! guest passes; a sleep moves the guest's clocks and is taken from its
//! deadline instead of being slept.
//!
//! Why functions of our own: `wasmtime-wasi` 48 has preview 1 only on top of
//! its component model and async features, whose advisories this build leaves
//! out by leaving them out, and its `poll_oneoff` blocks the calling thread
//! where no deadline reaches it.

pub(crate) mod catalog;
mod context;
mod link;
mod output;

pub(crate) use context::{Context, FIXED_TIME};
pub(crate) use link::{Ended, link};
pub(crate) use output::words;
