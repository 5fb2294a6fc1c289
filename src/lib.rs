//! The toolkit behind `wasm-agent`: modules that decide about HTTP traffic,
//! loaded, asked, limited and judged in one way.
//!
//! A module is core WebAssembly. A [`policy::Policy`] is a loaded module with its
//! instances, limits and failure policy; it answers a [`question::Question`] with
//! a [`policy::Reply`], always:
//!
//! ```text
//!   question ──> policy ─────────────────────────────────────> reply
//!                  │  pool: an instance, within a time            ▲
//!                  ▼                                              │
//!                guest::instance: one call under limits           │
//!                  ▼                                              │
//!                guest::convention: how this guest is called      │
//!                  ▼                                              │
//!                answer, checked ──> decision: answer or fault ───┘
//!
//!   file ──> read ──> inspect ──> contract ──> engine (compiled) ──> module
//! ```
//!
//! Each part of the source may use the parts of its own row and of the rows above
//! it, and no two parts use each other; a test reads this table.
//!
//! | Parts | What they know |
//! |---|---|
//! | `abi` `answer` `check` `cost` `digest` `error` `event` `fault` `hook` `http_types` `latency` `limits` `named` `question` `report` `response` `suggest` `time` `unix` | the words that everything speaks |
//! | `files` `json` `log_limiter` | how files are opened and replaced, how JSON is written fast, how log lines are bounded |
//! | `guest` | the engine: how a module is read, checked, compiled, instantiated and called |
//! | `policy` `protocol` | instances, limits and the failure policy; messages to proxies and their bytes, without I/O |
//! | `fixture` `client` | hand-written input; the proxy's side of the protocols |
//! | `capture` | recorded input, and what of it is secret |
//! | `compare` | captured input asked about again, and two answers held against each other |
//! | `ops` `server` | one operation for each command; connections |
//! | `cli` `internals` | arguments, terminals and formats; what the tests of this repository reach inside for |
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
//! use wasm_agent_kit::event::{Event, RequestHead};
//! use wasm_agent_kit::guest::{Engine, EngineSettings};
//! use wasm_agent_kit::guest::{LoadSettings, Module};
//! use wasm_agent_kit::policy::{Policy, PolicySettings};
//!
//! let engine = Engine::new(EngineSettings::default())?;
//! let module = Module::load(&engine, Path::new("rules.wasm"), &LoadSettings::default())?;
//! let policy = Policy::new(Arc::new(module), PolicySettings::default());
//! let event = Event::RequestHeaders(RequestHead {
//!     method: "GET".into(),
//!     uri: "/admin".into(),
//!     ..RequestHead::default()
//! });
//! let handled = policy.handle(&event);
//! assert_eq!(handled.response.decision.name(), "block");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(feature = "cli"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "some of it is there for the program alone"
    )
)]

#[macro_use]
mod named;

pub mod abi;
pub mod answer;
#[cfg(feature = "cli")]
mod capture;
pub mod check;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod client;
#[cfg(feature = "cli")]
mod compare;
pub mod cost;
mod digest;
pub mod error;
pub mod event;
pub mod fault;
mod files;
#[cfg(feature = "cli")]
mod fixture;
pub mod guest;
pub mod hook;
#[cfg(feature = "http")]
pub mod http_types;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod internals;
mod json;
#[cfg(feature = "cli")]
mod latency;
pub mod limits;
mod log_limiter;
#[cfg(feature = "cli")]
mod ops;
pub mod policy;
#[cfg(feature = "cli")]
mod protocol;
pub mod question;
#[cfg(feature = "cli")]
mod report;
pub mod response;
#[cfg(feature = "cli")]
mod server;
mod suggest;
#[cfg(feature = "cli")]
mod time;
#[cfg(feature = "cli")]
mod unix;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use cli::main;
