//! Upstream's own clients against the built `wasm-agent`.
//!
//! In: the binary that `WASM_AGENT_BIN` names, or the parent package's. Out:
//! what the proxies' own code makes of its answers. Nothing here knows the
//! agent's code; no test may wait for luck, only for something it can see.

mod events;
mod grpc;
mod lifecycle;
mod positional;
mod relay;
mod support;
mod v1;
mod v2;
mod v2_faults;
