//! Bodies in chunks: whole or chunk by chunk, every command and every transport gives
//! the answer that the test computes itself.

mod limits;
mod moved;
mod proxies;
mod same;
mod table;
mod uploads;
