//! Faults that a guest, a file or a reader of our output can cause, each of
//! them met through the built binary, as a user would meet it.
//!
//! Numbers in names are those of docs/faults.md. `tests/mutants.sh` takes each
//! protection out and shows that a test fails.

mod answers;
mod calls;
mod compile;
mod file_size;
mod files;
mod fixtures;
mod headers;
mod hooks;
mod invariants;
mod memory;
mod modules;
mod output;
mod refused;
mod state;
mod texts;
mod wasi;
