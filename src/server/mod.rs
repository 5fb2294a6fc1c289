//! `serve`: the agent behind a proxy.
//!
//! In: connections of proxies. Out: exactly one answer to every message that
//! wants one.

pub mod context;
pub mod wire;
