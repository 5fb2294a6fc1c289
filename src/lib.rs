//! The toolkit behind `wasm-agent`: modules that decide about HTTP traffic,
//! loaded, called, limited and judged in one way.
//!
//! A module is core WebAssembly that gets an event of an HTTP exchange as JSON
//! and answers with JSON. Whatever asks, the way through the house is this:
//!
//! ```text
//!   fixture ──> event ──> agent ──────────────────────────> response ──> report
//!                          │  pool: a lease, within a time      ▲
//!                          ▼                                    │
//!                        abi::agent: the event as input JSON    │
//!                          ▼                                    │
//!                        runner: one call under limits          │
//!                          ▼                                    │
//!                        abi::answer: bytes, checked            │
//!                          ▼                                    │
//!                        decision: answer or fault, decided ────┘
//!
//!   hook context ──> plugin ─ pool ─ abi::hook ─ the same runner ─ abi::hook
//!                       └──────> result, and the context with input and data applied
//!
//!   file ──> module::read ──> inspect ──> contract ──> engine (compiled) ──> module
//! ```
//!
//! | Room | Knows | Never |
//! |---|---|---|
//! | [`event`], [`response`], [`fault`], [`limits`], [`latency`], [`error`] | the words everything speaks | any other room |
//! | [`files`] | how a file is opened, read and replaced | what is in it |
//! | [`inspect`], [`contract`] | bytes and the static contract | running anything |
//! | [`engine`], [`module`], [`runner`], [`pool`], [`wasi`] | wasmtime; the only door to it | JSON, decisions |
//! | [`abi`] | what a guest gets and answers | wasmtime |
//! | [`decision`] | fail-open and fail-closed | anything but answers and faults |
//! | [`agent`] | the path from event to response | files, terminals |
//! | [`plugin`] | the path from hook context to result | files, terminals |
//! | [`smoke`] | one call of each handler before a module answers for anybody | files, terminals |
//! | [`protocol`] | messages and their bytes, and what released proxies make of them | sockets, guests |
//! | [`capture`] | recorded input, and what of it is secret | guests, wasmtime |
//! | [`fixture`], [`report`] | hand-written input; results before formatting | wasmtime, terminals |
//! | [`ops`] | one operation for each command | printing, argument parsing |
//! | [`server`] | connections and their protocols; asks the agent | guests, the failure policy |
//! | [`client`] | the proxy's side of the protocols: asks a running agent | guests, our own agent |
//!
//! There are two ABIs and one way to call a guest. An [`abi::Input`] is an event, a
//! hook's context or the bytes of before. [`runner`] allocates, writes,
//! calls, reads and gives back for both; [`abi::Abi`] knows which exports are
//! handlers, whether an answer may lie at address 0, and which limits hold where
//! nobody says otherwise; [`abi::agent`] with [`abi::answer`], and [`abi::hook`],
//! know the JSON on either side.
//!
//! The feature `cli`, on by default, is the program: commands, recorded and
//! hand-written input, the server and its client. A host that loads modules and
//! asks them switches it off (`default-features = false`) and compiles half as
//! much. The feature `http` converts events and answers from and to the types of
//! the crate of that name.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use wasm_agent_kit::policy::{Policy, PolicySettings};
//! use wasm_agent_kit::guest::engine::{Engine, EngineSettings};
//! use wasm_agent_kit::event::{Event, RequestHead};
//! use wasm_agent_kit::guest::module::{LoadSettings, Module};
//!
//! let engine = Engine::new(EngineSettings::default())?;
//! let module = Module::load(&engine, Path::new("rules.wasm"), &LoadSettings::default())?;
//! let agent = Agent::new(Arc::new(module), PolicySettings::default());
//! let event = Event::RequestHeaders(RequestHead {
//!     method: "GET".into(),
//!     uri: "/admin".into(),
//!     ..RequestHead::default()
//! });
//! let handled = agent.handle(&event);
//! assert_eq!(handled.response.decision.name(), "block");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(feature = "cli"),
    allow(dead_code, reason = "some of it is there for the program alone")
)]

pub mod abi;
pub mod answer;
#[cfg(feature = "cli")]
pub mod capture;
#[cfg(feature = "cli")]
pub mod client;
mod digest;
pub mod error;
pub mod event;
pub mod fault;
pub mod files;
#[cfg(feature = "cli")]
pub mod fixture;
pub mod guest;
pub mod hook;
#[cfg(feature = "http")]
pub mod http_types;
mod json;
#[cfg(feature = "cli")]
pub mod latency;
pub mod limits;
pub(crate) mod log_limiter;
#[cfg(feature = "cli")]
pub mod ops;
pub mod policy;
#[cfg(feature = "cli")]
pub mod protocol;
pub mod question;
#[cfg(feature = "cli")]
pub mod report;
pub mod response;
#[cfg(feature = "cli")]
pub mod server;
mod suggest;
#[cfg(feature = "cli")]
mod unix;
