//! The source tree itself: no test here links the library.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; clippy.toml knows only the functions themselves"
)]

mod layers;
