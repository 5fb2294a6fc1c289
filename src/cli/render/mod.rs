//! The only code that formats. A renderer gets a report and a writer.

pub(crate) mod bench;
pub(crate) mod chart;
pub(crate) mod escape;
mod flame;
mod format;
pub(crate) mod github;
mod html;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod junit;
mod layout;
mod markdown;
pub(crate) mod page;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod sarif;
pub(crate) mod validate;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::fault::is_unprintable;
use crate::files::{Destination, Links};
use anstream::{AutoStream, ColorChoice};

pub(crate) use format::{Format, OutputArgs, Render};
use human::Style;

/// Files that reports go to, opened before anything starts, so that a path
/// nobody can write to costs nobody a run.
pub(crate) struct ReportFiles {
    files: Vec<(Format, PathBuf, Destination)>,
}

impl ReportFiles {
    /// Opens all of them, none of which may be what is read. What stands in
    /// them stays until there is a report.
    pub(crate) fn open(targets: &[(Format, PathBuf)], inputs: &[&Path]) -> Result<Self, Error> {
        let mut files: Vec<(Format, PathBuf, Destination)> = Vec::new();
        for (format, path) in targets {
            keep_inputs("--report", path, inputs)?;
            if files.iter().any(|(_, other, _)| other == path) {
                let path = shown(path);
                return Err(Error::Usage(format!("--report: {path} is given twice")));
            }
            let file = Destination::open(path, Links::Followed);
            let file = file.map_err(|error| unwritable("--report", path, &error))?;
            files.push((*format, path.clone(), file));
        }
        Ok(Self { files })
    }

    /// Writes each with `render`.
    pub(crate) fn write(
        self,
        mut render: impl FnMut(Format, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        for (format, path, file) in self.files {
            file.write(|out| render(format, out))
                .map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }
}

/// Writes a report to standard output and to the files that were asked for.
pub(crate) fn report(
    report: &impl Render,
    to: (Format, ReportFiles),
    style: Style,
) -> Result<(), Error> {
    let (format, files) = to;
    to_stdout(|out| report.render(format, style, out));
    files.write(|format, out| report.render(format, Style::plain(), out))
}

/// A place that a flag names and nobody can write to.
pub(crate) fn unwritable(flag: &str, path: &Path, error: &io::Error) -> Error {
    let path = shown(path);
    Error::Usage(format!("{flag}: cannot write {path}: {error}"))
}

/// Refuses to write over what is read.
pub(crate) fn keep_inputs(flag: &str, path: &Path, inputs: &[&Path]) -> Result<(), Error> {
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    let is_same = |input: &&Path| input.canonicalize().is_ok_and(|input| input == real);
    if inputs.iter().any(is_same) {
        return Err(Error::Usage(format!(
            "{flag}: {} is one of the inputs and would be overwritten; name another file",
            shown(path)
        )));
    }
    Ok(())
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no
/// error. What could not be written for another reason is no success, whatever the
/// operation found, see [`is_output_lost`].
pub(crate) fn to_stdout(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let stdout = KeepsError(io::stdout().lock(), None);
    let mut out = BufWriter::new(stdout);
    let written = render(&mut out).and_then(|()| out.flush());
    // A second attempt on drop would fail the same way.
    let (KeepsError(_, first), _) = out.into_parts();
    if let Err(error) = written.map_err(|error| first.unwrap_or(error))
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        OUTPUT_LOST.store(true, Ordering::Relaxed);
        to_stderr(&format!("error: cannot write to standard output: {error}"));
    }
}

/// A writer with the first error it met: a renderer's library may wrap that one in
/// an error of its own.
struct KeepsError<W>(W, Option<io::Error>);

impl<W> KeepsError<W> {
    fn kept<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.1.get_or_insert(error);
            kind.into()
        })
    }
}

impl<W: Write> Write for KeepsError<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.0.write(bytes);
        self.kept(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.0.flush();
        self.kept(result)
    }
}

/// Whether something could not be written to standard output.
static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Whether a result was lost on its way to standard output, as on a full disk.
pub(crate) fn is_output_lost() -> bool {
    OUTPUT_LOST.load(Ordering::Relaxed)
}

/// A warning on standard error, where there is one.
pub(crate) fn warn(warning: Option<impl std::fmt::Display>) {
    if let Some(warning) = warning {
        to_stderr(&format!("warning: {warning}"));
    }
}

/// A line on standard error.
pub(crate) fn to_stderr(line: &str) {
    let colored = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    // Nobody is left to be told.
    let _ = writeln!(io::stderr().lock(), "{}", escape::lines(line, colored));
}

/// What the parser says: help, the version, or what is wrong with a flag.
pub(crate) fn usage(error: &clap::Error) {
    let text = error.render().to_string();
    let is_tame = |character: char| character == '\n' || !is_unprintable(character);
    if text.chars().all(is_tame) {
        // Help and version go to standard output, which may be closed.
        let _ = error.print();
    } else {
        // A file's name that a shell put there may hold anything.
        to_stderr(text.trim_end());
    }
}

/// The path as reports show it.
pub(crate) fn shown(path: &Path) -> String {
    crate::fault::shown(path)
}
