//! The operations behind the commands: settings in, a report out.

pub mod bench;
pub mod new;
pub mod run;
pub mod validate;
