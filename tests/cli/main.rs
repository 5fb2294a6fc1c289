//! The commands as a user meets them: the built binary, its reports, its help
//! and its errors.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    reason = "helpers of tests are tests, and the harness has more of them than these tests need"
)]

mod snapshots;
#[path = "../support/mod.rs"]
mod support;
