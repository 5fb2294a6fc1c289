//! Writes the Rust of the gRPC messages: in, `agent_v2.proto`; out,
//! `agent_v2.rs` beside it. With `--check` it writes nothing and fails where the
//! committed file is not what it would write.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const HEADER: &str = "\
// Generated from `agent_v2.proto` by `cargo run --manifest-path
// proto/generate/Cargo.toml`; change that file, not this one.
";

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let committed = folder.join("agent_v2.rs");
    let files = protox::compile([folder.join("agent_v2.proto")], [folder])?;
    // Messages only: the service is three paths in `server::grpc`.
    let modules = files
        .file
        .into_iter()
        .map(|file| {
            (
                prost_build::Module::from_protobuf_package_name(file.package()),
                file,
            )
        })
        .collect();
    let generated: String = prost_build::Config::new()
        .generate(modules)?
        .into_values()
        .collect();
    let generated = format!("{HEADER}{generated}");
    if !env::args().any(|argument| argument == "--check") {
        fs::write(&committed, generated)?;
    } else if fs::read_to_string(&committed)? != generated {
        return Err("proto/agent_v2.rs is not what proto/agent_v2.proto generates: run this without --check".into());
    }
    Ok(())
}
