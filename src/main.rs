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
    outlive_file_size_limits();
    let _flush = cli::logging::start(&cli);
    match cli::exec(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli::render::to_stderr(&cli::render::human::error_chain(&error));
            ExitCode::from(cli::exit::of_error(&error))
        }
    }
}

/// A write beyond a limit on the size of files (`ulimit -f`) is to fail with an
/// error that names the file. The system ends the process for it instead, unless
/// the process takes the signal.
#[cfg(unix)]
fn outlive_file_size_limits() {
    use tokio::signal::unix::{SignalKind, signal};

    /// SIGXFSZ, of Linux and macOS on all machines that the engine runs on.
    const FILE_SIZE_LIMIT: i32 = 25;
    // Taken once, it stays taken; nobody has to listen. Where that fails, all is
    // as without it.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
    {
        let _on_it = runtime.enter();
        let _ = signal(SignalKind::from_raw(FILE_SIZE_LIMIT));
    }
}

#[cfg(not(unix))]
const fn outlive_file_size_limits() {}
