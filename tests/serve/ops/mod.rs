//! The operations half of `serve`, from the outside: the built binary driven
//! by signals, files and sockets.
//!
//! Names begin with the row of the fault catalogue they prove.

mod admin;
mod cancel;
mod configure;
mod guest;
mod logs;
mod manager;
mod reload;
mod slow;
mod start;
