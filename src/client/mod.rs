//! The proxy's side of the protocols: asks a running agent and times it.
//!
//! In: where the agent listens and what to ask. Out: times, or what the agent
//! did wrong: an answer that says it failed, none at all, a closed connection.
//! Connections are blocking and each has a thread; only HTTP/2 has a runtime,
//! which that thread drives.

mod answers;
mod drive;
mod frames;
mod grpc;
mod link;
mod process;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::event::Event;
use crate::protocol::wire::frame::Frame;

pub use crate::protocol::wire::frame::Protocol;

pub use drive::{Drive, Driven, Pace};
pub use frames::ExchangeFrames;
pub use link::Asker;
pub use process::Process;

/// Nothing takes so long; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// gRPC, in plaintext.
    Grpc(SocketAddr),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An agent, whose answers are read and judged.
    Agent,
    /// Whoever sends each frame back, to see what frames cost by themselves.
    Echo,
}

/// An agent to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it listens.
    pub address: Address,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Who it is.
    pub peer: Peer,
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
            Self::Grpc(address) => write!(out, "grpc://{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected unix:/path/agent.sock or grpc://127.0.0.1:50051";
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        text.strip_prefix("grpc://")
            .map(|address| address.strip_suffix('/').unwrap_or(address))
            .and_then(|address| {
                use std::net::ToSocketAddrs as _;
                address.to_socket_addrs().ok()?.next()
            })
            .map(Self::Grpc)
            .ok_or_else(|| expected.to_owned())
    }
}

/// What a running agent did wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is nobody, or nobody who lets us in.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: Address,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke, or was silent for half a minute.
    #[error("{what}: {source}")]
    Broken {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What came is not what the protocol says.
    #[error("{0}")]
    Protocol(String),
    /// An answer says that the agent's module failed, or had no room.
    #[error("the agent failed at {case}: {reason}")]
    Failed {
        /// The event.
        case: String,
        /// Its reason codes.
        reason: String,
    },
}

/// One event to ask about, by name.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it is called in reports.
    pub name: String,
    /// The event.
    pub event: Event,
}

/// One frame of an agent's, read as one, for the fuzz targets.
///
/// # Errors
/// What is wrong with it.
#[doc(hidden)]
pub fn try_read(protocol: Protocol, frame: Frame<'_>) -> Result<(), AskError> {
    answers::read(protocol, frame).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["unix:/run/agent.sock", "grpc://127.0.0.1:50051"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "unix:",
            "/run/agent.sock",
            "grpc://",
            "grpc://nowhere",
            "http://127.0.0.1:1",
        ] {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains("unix:/path"), "{bad}: {error}");
        }
    }
}
