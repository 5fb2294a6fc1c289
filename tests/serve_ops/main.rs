//! The operations half of `serve`, from the outside: the built binary driven
//! by signals, files and sockets.
//!
//! Names begin with the row of the fault catalogue they prove.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod configure;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod manager;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod start;
#[cfg(test)]
#[path = "../serve/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests of the socket, which use all"
)]
mod support;
