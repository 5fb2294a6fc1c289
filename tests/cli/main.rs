//! Every command but `serve` as a user meets it: the built binary, what it
//! prints and how it ends. No test here links the library.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy.toml knows only the functions themselves"
)]

mod bench;
mod busy;
mod faults;
mod languages;
mod readme;
mod replay;
mod run;
mod snapshots;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of `serve` use the rest")]
mod support;
mod validate;
