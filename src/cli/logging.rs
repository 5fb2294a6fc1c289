//! Log lines: to standard error, and for `serve` by a thread of their own, so
//! that a full disk or a pipe nobody reads never stops an answer.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::render::escape::{Syntax, whole};
use super::serve::LogFormat;
use super::{Cli, Color, Command};

/// Lines that wait to be written; further ones are left out.
const MAX_WAITING: usize = 4096;
/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_millis(500);

/// Lines that nobody took.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that nobody took, so far.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Writes the last lines as it is dropped.
pub(crate) struct Flush(Option<SyncSender<Message>>);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts logging as the command wants it.
pub(crate) fn start(cli: &Cli) -> Flush {
    let serve = match &cli.command {
        Command::Serve(args) => Some(args),
        _ => None,
    };
    let more = serve.is_some_and(|args| args.verbose_env);
    let level = match (serve.is_some(), cli.verbose + u8::from(more)) {
        (false, 0) => "warn",
        (false, 1) | (true, 0) => "info",
        _ => "debug",
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(wanted) if !wanted.trim().is_empty() => {
            EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
                super::render::to_stderr(&format!("warning: RUST_LOG is ignored: {error}"));
                EnvFilter::new(level)
            })
        }
        _ => EnvFilter::new(level),
    };
    let colored = colours(cli.color);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colored)
        // The default prints its own errors, and panics where it cannot.
        .log_internal_errors(false);
    let stderr = move || Shown { colored };
    let Some(args) = serve else {
        lines.with_writer(stderr).init();
        return Flush(None);
    };
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let writer = std::thread::Builder::new().name("log".to_owned());
    if writer.spawn(move || write_lines(&receiver)).is_err() {
        lines.with_writer(stderr).init();
        return Flush(None);
    }
    let syntax = match args.log_format {
        LogFormat::Human => Syntax::Text { colored: false },
        LogFormat::Json => Syntax::Json,
    };
    let waiting = Lines(sender.clone(), syntax);
    let lines = lines.with_writer(waiting).with_ansi(false);
    match args.log_format {
        LogFormat::Human => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Flush(Some(sender))
}

/// As for everything else on a terminal.
fn colours(color: Color) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    color != Color::Never && !refused && io::stderr().is_terminal()
}

fn write_lines(messages: &Receiver<Message>) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if io::stderr().lock().write_all(&line).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
            }
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let Some(sender) = &self.0 else { return };
        let (done, flushed) = sync_channel(1);
        if sender.try_send(Message::Flush(done)).is_ok() {
            // A pipe nobody reads keeps its lines.
            let _ = flushed.recv_timeout(FLUSH);
        }
    }
}

/// Writes each line to standard error.
struct Shown {
    colored: bool,
}

impl Write for Shown {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let colored = self.colored;
        let shown = whole(Syntax::Text { colored }, line);
        io::stderr().lock().write_all(&shown)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands each line over whole, or leaves it out.
#[derive(Clone)]
struct Lines(SyncSender<Message>, Syntax);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Full or closed: the line is left out.
        let shown = whole(self.1, line);
        if self.0.try_send(Message::Line(shown)).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
