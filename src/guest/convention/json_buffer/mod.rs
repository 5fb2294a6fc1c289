//! JSON in a buffer: the host asks the guest for memory, writes the question
//! there as JSON, calls a handler, and reads the answer's JSON from where the
//! handler says.

pub mod answer;
pub mod event;
pub mod hook;
