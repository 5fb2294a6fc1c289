//! JSON: an envelope around the report itself.

use std::io::{self, Write};

use crate::report::{Report, Verdict};
use serde::Serialize;

use super::escape::{Syntax, guarded};

#[derive(Serialize)]
struct Envelope<'a, R: Report> {
    schema: &'static str,
    schema_version: u32,
    tool: &'static str,
    tool_version: &'static str,
    engine: &'static str,
    verdict: Verdict,
    #[serde(flatten)]
    report: &'a R,
}

/// One document, indented.
pub(crate) fn write<R: Report>(report: &R, out: &mut dyn Write) -> io::Result<()> {
    let envelope = Envelope {
        schema: R::SCHEMA,
        schema_version: version_of(R::SCHEMA),
        tool: "wasm-agent",
        tool_version: env!("CARGO_PKG_VERSION"),
        engine: crate::guest::engine::version(),
        verdict: report.verdict(),
        report,
    };
    document(&envelope, out)
}

/// Anything as one document, indented.
pub(super) fn document(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    guarded(Syntax::Json, out, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// The number a schema's name ends in.
fn version_of(schema: &str) -> u32 {
    schema
        .rsplit('/')
        .next()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}
