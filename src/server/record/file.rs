//! The file of a recording: opened, appended to, and followed where it is rotated.
//!
//! A file that is no recording is refused, at the start and whenever another one
//! stands at the path. No line is cut in two: what of one could not be written is
//! taken away again, or ended, so that the next line is whole.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::writer::{RETRY_AFTER, Storage, Unwritten};
use crate::capture::is_record;

/// Bytes of the first line that are looked at.
const MAX_FIRST: u64 = 1 << 20;

/// The file that lines go to.
#[derive(Debug)]
pub(super) struct RecordingFile {
    path: PathBuf,
    file: File,
    /// Its size as it was left.
    size: u64,
    /// Its last line is not whole and could not be taken away.
    is_torn: bool,
    /// Set where it was moved away and no other can be opened.
    retry_at: Option<Instant>,
}

impl RecordingFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
            is_torn: false,
            retry_at: None,
        })
    }

    /// Whether the path leads to this file.
    fn is_at_path(&self, there: &Metadata) -> bool {
        let same = |mine: Metadata| (mine.dev(), mine.ino()) == (there.dev(), there.ino());
        self.file.metadata().is_ok_and(same)
    }

    fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|mine| mine.nlink() == 0)
    }

    /// Goes on in the file that stands at the path now. Where that cannot be
    /// opened, and this one was moved away, it goes on in this one: a reader
    /// finds the lines there.
    fn reopen(&mut self, was_moved: bool) -> io::Result<()> {
        let can_stay = was_moved && !self.is_torn && !self.is_deleted();
        let now = Instant::now();
        if can_stay && self.retry_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        match Self::open(&self.path) {
            Ok(file) => {
                *self = file;
                let path = self.path.display();
                tracing::info!(%path, size = self.size, "the recording was opened anew");
                Ok(())
            }
            Err(error) if can_stay => {
                if self.retry_at.is_none() {
                    tracing::error!(
                        path = %self.path.display(),
                        %error,
                        "the recording was moved and cannot be opened anew; it goes on in the moved file"
                    );
                }
                self.retry_at = Some(now + RETRY_AFTER);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes away what is behind the last whole line that was written, and says
    /// how much of the lines is left.
    fn take_back(&mut self, lines: &[u8], done: usize) -> usize {
        let whole = memchr::memrchr(b'\n', &lines[..done]).map_or(0, |at| at + 1);
        let before = self.size;
        self.size = before + whole as u64;
        if whole < done {
            // Only if nothing but ours stands there.
            let is_ours = |mine: Metadata| mine.len() == before + done as u64;
            let is_ours = self.file.metadata().is_ok_and(is_ours);
            self.is_torn = !is_ours || self.file.set_len(self.size).is_err();
        }
        whole
    }
}

impl Storage for RecordingFile {
    fn ready(&mut self) -> io::Result<u64> {
        let there = std::fs::symlink_metadata(&self.path);
        let there = there.ok().filter(|there| self.is_at_path(there));
        match there {
            Some(there) if there.len() >= self.size && !self.is_torn => {
                self.size = there.len();
                self.retry_at = None;
            }
            there => self.reopen(there.is_none())?,
        }
        Ok(self.size)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let nothing = |error| Unwritten { written: 0, error };
        let mut was_deleted = false;
        loop {
            let (done, ended) = write(&mut self.file, lines);
            if let Err(error) = ended {
                let written = self.take_back(lines, done);
                return Err(Unwritten { written, error });
            }
            self.size += lines.len() as u64;
            // Nobody can read what was deleted just now.
            if !self.is_deleted() {
                return Ok(());
            }
            // Some file systems say so of every file.
            if std::mem::replace(&mut was_deleted, true) {
                return Ok(());
            }
            *self = Self::open(&self.path).map_err(nothing)?;
        }
    }
}

/// Says how many bytes were written, and why no more.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

/// Opens a recording to go on with, or a new one, for its owner alone. What is
/// there and is none stays as it is.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    // A link leads to a file that nobody has named, and a pipe without a reader
    // would hold us up.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    options.mode(0o600).custom_flags(flags.cast_signed());
    let mut file = options.open(path).map_err(explain)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > 0 {
        if !begins_with_record(&file)? {
            return Err(io::Error::other(
                "it is not a recording: its first line is not a record; name another file",
            ));
        }
        // A line that a crash left unfinished ends here.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if &last != b"\n" {
            file.write_all(b"\n")?;
        }
    }
    // One that was there before may be open to others.
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

fn explain(error: io::Error) -> io::Error {
    if Errno::from_io_error(&error) == Some(Errno::LOOP) {
        return io::Error::other("it is a symbolic link; name its target");
    }
    error
}

fn begins_with_record(file: &File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(MAX_FIRST).read_to_end(&mut first)?;
    let end = memchr::memchr(b'\n', &first);
    Ok(is_record(
        &first[..end.unwrap_or(first.len())],
        end.is_some(),
    ))
}
