//! `serve` from outside: at its Unix socket, over gRPC, and in the hands of an
//! operator.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy.toml knows only the functions themselves"
)]

mod bodies;
mod deploy;
mod grpc;
mod ops;
mod socket;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of the other commands use the rest")]
mod support;
