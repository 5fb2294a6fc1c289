//! The operations behind the commands: settings in, a report out.

pub mod bench;
pub mod module_info;
pub mod new;
pub mod replay;
pub mod run;
pub mod validate;
