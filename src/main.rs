//! The `wasm-agent` program, which is the library's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    wasm_agent_kit::main()
}
