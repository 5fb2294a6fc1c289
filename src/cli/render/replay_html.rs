//! stub
use std::io::{self, Write};
use wasm_agent_kit::ops::replay::ReplayReport;
pub(super) fn write(_report: &ReplayReport, _out: &mut dyn Write) -> io::Result<()> {
    Ok(())
}
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
