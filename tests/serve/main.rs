//! `serve` from the outside: the built binary at its socket.
//!
//! The ledger of every test: what was sent was answered, once. Names begin
//! with the row of the fault catalogue they prove.

#[cfg(test)]
mod exchanges;
#[cfg(test)]
mod golden;
#[cfg(test)]
#[path = "../grpc/support.rs"]
#[allow(dead_code, reason = "shared with the tests of gRPC, which use all")]
mod grpc;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod record;
#[cfg(test)]
mod support;
