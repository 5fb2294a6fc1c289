//! The operations half of `serve`, from the outside: the built binary driven
//! by signals, files and sockets.

pub(crate) mod admin;
mod cancel;
mod configure;
mod guest;
mod logs;
mod manager;
mod reload;
mod slow;
mod start;
