//! Faults that a guest, a file or a reader of our output can cause, each of
//! them met through the built binary, as a user would meet it.
//!
//! A row of the fault catalogue is one or more tests, named by the row.
//! `tests/mutants.sh` takes each protection out and shows that its row fails.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy.toml knows only the functions themselves"
)]

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
#[path = "../support/mod.rs"]
mod support;
mod texts;
mod wasi;
