//! `serve` from the outside: the built binary at its socket.
//!
//! The ledger of every test: what was sent was answered, once. Names begin
//! with the row of the fault catalogue they prove.

mod exchanges;
mod golden;
mod operator;
mod peers;
mod record;
mod redaction;
mod rotation;
pub(crate) mod starts;
