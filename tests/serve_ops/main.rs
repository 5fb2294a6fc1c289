//! The operations half of `serve`, from the outside: the built binary driven
//! by signals, files and sockets.
//!
//! Names begin with the row of the fault catalogue they prove.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

mod guest;
mod reload;
mod start;
#[path = "../serve/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the socket, which use all"
)]
mod support;
