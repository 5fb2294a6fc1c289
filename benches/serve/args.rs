//! What is measured, and how long.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

/// Load on the built agent
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// The agent's binary [default: the one built for this bench]
    #[arg(long, value_name = "FILE")]
    pub(crate) agent: Option<PathBuf>,

    /// A module to serve; repeatable [default: the trivial guest and the rules]
    #[arg(long = "module", value_name = "FILE")]
    modules: Vec<PathBuf>,

    /// Connections, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) connections: usize,

    /// Events in flight on each connection; repeatable
    #[arg(long = "depth", value_name = "N", default_values_t = [1, 16])]
    pub(crate) depths: Vec<usize>,

    /// Instances of the module
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) pool_size: usize,

    /// How long each row is measured in each round
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,

    /// Rounds, of which the least disturbed counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) rounds: usize,

    /// More arguments for the agent; repeatable
    #[arg(long = "serve-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) serve_args: Vec<String>,

    /// Only what a runaway does to its neighbours
    #[arg(long)]
    pub(crate) neighbours: bool,

    /// Be the echo at this socket
    #[arg(long, hide = true)]
    pub(crate) echo: Option<PathBuf>,

    /// Said by cargo to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        self.seconds() / 6
    }

    pub(crate) fn agent(&self) -> &Path {
        let built = Path::new(env!("CARGO_BIN_EXE_wasm-agent"));
        self.agent.as_deref().unwrap_or(built)
    }

    pub(crate) fn modules(&self) -> Vec<PathBuf> {
        if !self.modules.is_empty() {
            return self.modules.clone();
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules");
        ["right/allow.wat", "rules/rules.wasm"]
            .map(|name| folder.join(name))
            .to_vec()
    }
}
