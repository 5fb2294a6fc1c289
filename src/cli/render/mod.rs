//! The only code that formats. A renderer gets a report and a writer.

pub(crate) mod bench;
pub(crate) mod chart;
pub(crate) mod github;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod page;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod sarif;
pub(crate) mod validate;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use wasm_agent_kit::error::Error;

/// Files that reports go to, opened before anything starts, so that a path
/// nobody can write to costs nobody a run.
pub(crate) struct ReportFiles<F> {
    files: Vec<(F, PathBuf, File)>,
}

impl<F: Copy> ReportFiles<F> {
    /// Opens all of them, none of which may be what is read. What stands in
    /// them stays until there is a report.
    pub(crate) fn open(targets: &[(F, PathBuf)], inputs: &[&Path]) -> Result<Self, Error> {
        let mut files: Vec<(F, PathBuf, File)> = Vec::new();
        for (format, path) in targets {
            keep_inputs("--report", path, inputs)?;
            if files.iter().any(|(_, other, _)| other == path) {
                let path = path.display();
                return Err(Error::Usage(format!("--report: {path} is given twice")));
            }
            let mut options = File::options();
            let file = options.write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|error| {
                let path = path.display();
                Error::Usage(format!("--report: cannot write {path}: {error}"))
            })?;
            files.push((*format, path.clone(), file));
        }
        Ok(Self { files })
    }

    /// Writes each with `render`.
    pub(crate) fn write(
        self,
        mut render: impl FnMut(F, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Error> {
        for (format, path, file) in self.files {
            let emptied = match file.metadata() {
                Ok(metadata) if metadata.is_file() => file.set_len(0),
                other => other.map(drop),
            };
            let mut out = BufWriter::new(file);
            emptied
                .and_then(|()| render(format, &mut out))
                .and_then(|()| out.flush())
                .map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }
}

/// Refuses to write over what is read.
pub(crate) fn keep_inputs(flag: &str, path: &Path, inputs: &[&Path]) -> Result<(), Error> {
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    let is_same = |input: &&Path| input.canonicalize().is_ok_and(|input| input == real);
    if inputs.iter().any(is_same) {
        return Err(Error::Usage(format!(
            "{flag}: {} is one of the inputs, which it would write over; name another file",
            path.display()
        )));
    }
    Ok(())
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no
/// error, and a full disk does not change what was found out: the exit code
/// is the operation's own.
pub(crate) fn to_stdout(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = render(&mut out).and_then(|()| out.flush());
    // A second attempt on drop would fail the same way.
    let (_, _) = out.into_parts();
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        to_stderr(&format!(
            "warning: cannot write to standard output: {error}"
        ));
    }
}

/// One line on standard error, where there is one.
pub(crate) fn to_stderr(line: &str) {
    // Nobody is left to be told.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The path as reports show it.
pub(crate) fn shown(path: &Path) -> String {
    wasm_agent_kit::fault::printable(&path.to_string_lossy(), 512)
}
