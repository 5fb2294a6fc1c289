//! The `wasm-agent` program: parses, logs, dispatches, exits.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            cli::render::usage(&error);
            return ExitCode::from(if error.use_stderr() {
                cli::exit::USAGE
            } else {
                cli::exit::OK
            });
        }
    };
    let _flush = cli::logging::start(&cli);
    match cli::exec(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::render::to_stderr(&cli::render::human::error_chain(&error));
            ExitCode::from(cli::exit::of_error(&error))
        }
    }
}
