//! The toolkit behind `wasm-agent`.
pub mod abi;
pub mod agent;
pub mod contract;
pub mod decision;
pub mod engine;
pub mod error;
pub mod event;
pub mod fault;
pub mod inspect;
pub mod limits;
pub mod module;
pub mod pool;
pub mod response;
pub mod runner;
