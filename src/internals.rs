//! What the tests, benches and fuzz targets of this repository reach inside for.
//! Nothing here is for hosts: it may change with every version.

/// How recorded traffic is read.
pub mod capture {
    pub use crate::capture::{
        Capture, DEFAULT_MAX_RECORD_BYTES, DecodeSettings, Format, Item, Opened, Redactor,
        SecretsFound, Transaction, decode, discover, key_of, read_back,
    };
}

/// The proxy's side of the protocols.
pub mod client {
    pub use crate::client::{
        Address, Ask, AskError, Asker, Drive, Driven, ExchangeFrames, Pace, Peer, Process,
        Protocol, Target, try_read,
    };
}

/// Hand-written input.
pub mod fixture {
    pub use crate::fixture::{Input, Seen, discover, parse, update};
}

/// The guest, below the policy.
pub mod guest {
    pub use crate::guest::convention::json_buffer::answer::check_answer;
    pub use crate::guest::convention::json_buffer::event::write_input;
    pub use crate::guest::convention::json_buffer::hook::{
        check_result, write_input as write_context,
    };
    pub use crate::guest::engine::config;
    pub use crate::guest::instance::{Instance, RawAnswer};
    pub use crate::guest::module::{Candidate, Source};
    pub use crate::policy::decision::{Outcome, decide};
}

/// Percentiles.
pub mod latency {
    pub use crate::latency::Latency;
}

/// The operations of commands.
pub mod ops {
    pub use crate::ops::bench::{Baseline, BenchCase, Samples, of_inputs, sample};
    pub use crate::ops::replay::{
        FailOn, LANES, Redaction, ReplayReport, ReplaySettings, Selection, Sinks, Subjects, Watch,
        replay,
    };
}

/// Messages and their bytes.
pub mod protocol {
    pub use crate::protocol::proxy::Version;
    pub use crate::protocol::wire::control::Cancel;
    pub use crate::protocol::wire::event::{read_v1, read_v2};
    pub use crate::protocol::wire::frame::Protocol;
    pub use crate::protocol::wire::handshake::{HandshakeRequest, Identity, write_response};
    pub use crate::protocol::wire::response::{Dialect, RequestBodyText};
    pub use crate::protocol::wire::{BadMessage, Encoding, Message, RequestType};
}

/// The server.
pub mod server {
    pub use crate::server::metrics::Value;
    pub use crate::server::settings::{DEFAULT_GRACE, ServeSettings};
    pub use crate::server::{Drain, Listeners, Live, serve, try_grpc, try_settings};
}
