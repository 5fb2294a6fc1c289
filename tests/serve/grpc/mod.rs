//! The gRPC transport at its socket, driven by tonic's client: a gRPC
//! implementation that is not ours. Numbers in names are those of docs/faults.md.

mod answers;
mod calls;
mod events;
mod operator;
mod raw;
mod slow;
pub(crate) mod support;
