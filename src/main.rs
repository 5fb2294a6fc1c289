//! The `wasm-agent` program: parses, logs, dispatches, exits.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, which may be closed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                cli::exit::USAGE
            } else {
                cli::exit::OK
            });
        }
    };
    start_logging(cli.verbose);
    match cli::exec(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::render::to_stderr(&cli::render::human::error_chain(&error));
            ExitCode::from(cli::exit::of_error(&error))
        }
    }
}

/// Log lines go to standard error; a closed one is no reason to stop.
fn start_logging(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .init();
}
