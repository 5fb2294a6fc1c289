//! The library as a host that embeds it sees it: the pool's promises, hook
//! modules, and every parser on the seeds of the fuzz targets.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy.toml knows only the functions themselves"
)]

mod async_host;
mod bodies;
mod clocks;
mod fuzz_seeds;
mod hooks;
mod pool;
mod starts;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of the program use the rest")]
mod support;

use std::path::{Path, PathBuf};

/// A shipped fixture module.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/modules")
        .join(name)
}
