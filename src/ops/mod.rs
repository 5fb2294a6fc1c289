//! The operations behind the commands: settings in, a report out.

pub(crate) mod bench;
pub(crate) mod module_info;
pub(crate) mod new;
pub(crate) mod replay;
pub(crate) mod run;
mod shortest;
pub(crate) mod validate;
