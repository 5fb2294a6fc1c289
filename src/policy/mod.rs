//! A module that answers: its instances, its limits and its failure policy.

pub mod agent;
pub mod decision;
pub mod plugin;
pub mod pool;
pub mod runtime;
pub mod smoke;
