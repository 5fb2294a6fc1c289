//! How a guest is called: one folder for each calling convention.

pub mod json_buffer;
