//! Compiles the gRPC messages in Rust alone, so that a machine with cargo and
//! nothing else builds this crate.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/agent_v2.proto");
    let files = protox::compile(["proto/agent_v2.proto"], ["proto"])?;
    // Messages only: the service is three paths in `server::grpc`.
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
