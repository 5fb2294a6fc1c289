//! The protocols between a proxy and an agent, without any I/O.
//!
//! In: the bytes of one message. Out: what it says, in our own types; and the
//! other way. [`wire`] is what a Unix socket carries (v1, v2), `grpc` the
//! messages of gRPC, [`proxy`] what released proxies do with events and
//! answers, `outgoing` the one way that all answers take. Nothing here waits, calls
//! a guest or reads a clock.

pub(crate) mod grpc;
pub(crate) mod outgoing;
pub(crate) mod proxy;
pub(crate) mod shortened;
pub(crate) mod wire;
