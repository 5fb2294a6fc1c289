//! The gRPC transport at its socket, driven by tonic's client: a gRPC
//! implementation that is not ours. Names begin with the row of the fault
//! catalogue they prove, where there is one.

mod answers;
mod calls;
mod events;
mod operator;
mod raw;
mod slow;
pub(crate) mod support;
