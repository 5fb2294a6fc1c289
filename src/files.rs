//! Opening files: the one way to read what somebody named or a folder holds,
//! and to write what somebody asked for.
//!
//! A path says nothing about what it leads to. So before a file is opened, and
//! again once it is open, its kind is looked at: nothing waits at a pipe that
//! nobody writes to, nothing reads a device without an end, and whatever is
//! read into memory has a limit.
//!
//! A file is replaced as a whole: it is written beside its place and moved
//! there. A link that the user named himself is followed, since he meant what
//! it leads to; a link that lies where this program chose the name is replaced
//! and what it leads to stays as it is. What somebody else has open, as standard
//! output is, is written to where it stands and keeps what is in it.

mod descriptor;
mod kind;

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::{File, FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{self, AtomicU32};
use std::sync::mpsc;
use std::time::Duration;

use self::kind::{name_of, options_without_waiting, wait_from_here_on, wrong_kind};
use crate::error::Error;

/// How long a named pipe may be without anybody who writes to it.
const WAIT_FOR_WRITER: Duration = Duration::from_secs(3);
/// What only its owner may read.
const PRIVATE: u32 = 0o600;

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// A regular file alone: a module is looked at more than once.
    Regular,
    /// A regular file that lies in a folder that was named.
    InFolder,
    /// A regular file, or a pipe or terminal that the user named himself.
    Stream,
}

impl Accept {
    fn takes(self, metadata: &Metadata) -> bool {
        let kind = metadata.file_type();
        let is_stream = kind.is_fifo() || kind.is_char_device() && has_an_end(metadata);
        kind.is_file() || self == Self::Stream && is_stream
    }

    fn look(self, path: &Path, metadata: &Metadata, what: &str) -> Result<FileType, Error> {
        let kind = metadata.file_type();
        if self.takes(metadata) {
            return Ok(kind);
        }
        Err(Error::Malformed {
            path: path.to_owned(),
            message: self.refuse(what, kind),
        })
    }

    /// What was expected and what to do.
    fn refuse(self, what: &str, found: FileType) -> String {
        let found = name_of(found);
        let wanted = match self {
            Self::Regular | Self::InFolder => "a regular file",
            Self::Stream => "a regular file or a pipe",
        };
        let fix = match self {
            _ if found == "a directory" => "name a file in it",
            Self::InFolder => "remove it from the folder",
            Self::Regular | Self::Stream => "copy its content to a file and name that file",
        };
        format!("expected {what}, {wanted}, found {found}; {fix}")
    }
}

/// Terminals are read from line by line, and the null device is empty; other
/// devices may never end.
fn has_an_end(metadata: &Metadata) -> bool {
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    // Terminals: virtual ones and consoles, pseudo terminals, serial lines.
    (major, minor) == (1, 3) || matches!(major, 4 | 5 | 136..=143 | 188)
}

/// Looks at what a path leads to, without opening it.
///
/// # Errors
/// Those of [`open`].
pub(crate) fn check(path: &Path, accept: Accept, what: &str) -> Result<FileType, Error> {
    let metadata = std::fs::metadata(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    accept.look(path, &metadata, what)
}

/// Opens a file to read from it.
///
/// # Errors
/// [`Error::Read`] where the system refuses, [`Error::Malformed`] where it is
/// another kind of file than `accept` takes.
pub(crate) fn open(path: &Path, accept: Accept, what: &str) -> Result<File, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let kind = check(path, accept, what)?;
    let file = if kind.is_fifo() {
        open_pipe(path)
    } else {
        // Whatever took its place since then does not hold us up.
        options_without_waiting().read(true).open(path)
    };
    let file = file.map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let kind = accept.look(path, &metadata, what)?;
    if !kind.is_file() {
        wait_from_here_on(&file).map_err(read)?;
    }
    Ok(file)
}

/// Reads a whole file of at most `most` bytes.
///
/// # Errors
/// Those of [`open`], and [`Error::Malformed`] where there is more.
pub(crate) fn read(
    path: &Path,
    accept: Accept,
    (what, most): (&str, u64),
) -> Result<Vec<u8>, Error> {
    let file = open(path, accept, what)?;
    // What is known to be too large is not read at all.
    if file.metadata().is_ok_and(|metadata| metadata.len() > most) {
        return Err(too_large(path, what, most));
    }
    read_from(file, path, (what, most))
}

/// The same of what is open already.
///
/// # Errors
/// [`Error::Read`], and [`Error::Malformed`] where there is more.
pub(crate) fn read_from(
    source: impl io::Read,
    path: &Path,
    (what, most): (&str, u64),
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = source.take(most.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > most {
        return Err(too_large(path, what, most));
    }
    Ok(bytes)
}

fn too_large(path: &Path, what: &str, most: u64) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        message: format!("expected {what} of at most {most} bytes, found more; give a smaller one"),
    }
}

/// Opens a pipe once somebody writes to it.
fn open_pipe(path: &Path) -> io::Result<File> {
    let (opened, file) = mpsc::channel();
    let named = path.to_owned();
    let wait = move || {
        // Nobody waits any more.
        let _ = opened.send(File::open(named));
    };
    std::thread::Builder::new()
        .name("open".to_owned())
        .spawn(wait)?;
    file.recv_timeout(WAIT_FOR_WRITER).unwrap_or_else(|_late| {
        // The thread ends with the process, or with the first writer. A writer
        // of our own would let it end now, and cut off other readers.
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "no process wrote to this pipe within {} s; start its writer first",
                WAIT_FOR_WRITER.as_secs()
            ),
        ))
    })
}

/// The order of names in which numbers count as such: `_2` before `_10`. Names that
/// differ in zeros alone stay in the order of their bytes.
pub(crate) fn by_number(one: &OsStr, other: &OsStr) -> Ordering {
    let (bytes, others) = (one.as_encoded_bytes(), other.as_encoded_bytes());
    let (mut left, mut right) = (bytes, others);
    loop {
        let (number, other) = (digits(left), digits(right));
        let order = if number.is_empty() || other.is_empty() {
            match (left.first(), right.first()) {
                (None, None) => return bytes.cmp(others),
                (one, other) => one.cmp(&other),
            }
        } else {
            let significant = |digits: &'_ [u8]| {
                let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
                digits.len() - zeros
            };
            let (size, size_of_other) = (significant(number), significant(other));
            let value = &number[number.len() - size..];
            let value_of_other = &other[other.len() - size_of_other..];
            (size, value).cmp(&(size_of_other, value_of_other))
        };
        if order.is_ne() {
            return order;
        }
        left = &left[number.len().max(1)..];
        right = &right[other.len().max(1)..];
    }
}

fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

/// What becomes of a link where something is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// The user named it: what it leads to is written.
    Followed,
    /// This program chose the name: the link is replaced.
    Replaced,
}

/// A place that something can be written to, looked at before there is
/// anything to write. What stands there stays until then.
pub(crate) struct Destination {
    path: PathBuf,
    /// What is there, open to write to; nothing where nothing is.
    there: Option<File>,
    way: Way,
}

/// How what is there becomes what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A new file takes its place.
    Replace,
    /// Its content goes, the file stays.
    Overwrite,
    /// Nothing of it goes: it is a descriptor that somebody else opened.
    Continue,
}

impl Destination {
    /// Finds out whether a file can be written here.
    ///
    /// # Errors
    /// What the system says, or what is there instead of a file.
    pub(crate) fn open(path: &Path, links: Links) -> io::Result<Self> {
        if links == Links::Replaced {
            return Self::beside_links(path);
        }
        if let Some(place) = descriptor::find(path) {
            return Ok(Self {
                path: path.to_owned(),
                there: Some(descriptor::open(&place)?),
                way: Way::Continue,
            });
        }
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(io::Error::other(
                        "it is a symbolic link to nothing; remove it",
                    ));
                }
                can_create_beside(path)?;
                return Ok(Self {
                    path: path.to_owned(),
                    there: None,
                    way: Way::Replace,
                });
            }
            Err(error) => return Err(error),
        };
        let there = Some(open_to_write(path, metadata.file_type())?);
        if !metadata.is_file() {
            return Ok(Self {
                path: path.to_owned(),
                there,
                way: Way::Overwrite,
            });
        }
        let path = path.canonicalize()?;
        let way = match can_create_beside(&path) {
            Ok(()) => Way::Replace,
            Err(error) if is_denied(&error) => Way::Overwrite,
            Err(error) => return Err(error),
        };
        Ok(Self { path, there, way })
    }

    /// A file or a link or nothing.
    fn beside_links(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_file() && !metadata.is_symlink() => {
                return Err(wrong_kind(metadata.file_type()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(Self {
            path: path.to_owned(),
            there: None,
            way: Way::Replace,
        })
    }

    /// Writes the file as a whole.
    ///
    /// # Errors
    /// What writing fails with; what stood there stays then.
    pub(crate) fn write(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.way != Way::Replace {
            let Some(there) = &mut self.there else {
                return Ok(());
            };
            if self.way == Way::Overwrite {
                empty(there)?;
            }
            return buffered(there, write);
        }
        let (mut draft, at) = Draft::create(&self.path)?;
        if let Some(there) = &self.there {
            draft.set_permissions(there.metadata()?.permissions())?;
        }
        buffered(&mut draft, write)?;
        let moved = std::fs::rename(&at.0, &self.path);
        match (moved, &mut self.there) {
            (Ok(()), _) => {
                at.keep();
                Ok(())
            }
            // A file that is mounted cannot be replaced.
            (Err(error), Some(there)) if error.kind() == io::ErrorKind::ResourceBusy => {
                empty(there)?;
                io::copy(&mut File::open(&at.0)?, there).map(drop)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Writes a whole file at once.
///
/// # Errors
/// [`Error::Write`].
pub(crate) fn write(path: &Path, links: Links, bytes: &[u8]) -> Result<(), Error> {
    Destination::open(path, links)
        .and_then(|target| target.write(|out| out.write_all(bytes)))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

/// Opens a file that is written as its content comes: empty, and with
/// `is_private` for its owner alone. A link is followed: the user named it. A
/// descriptor that somebody else opened keeps its content and its mode.
///
/// # Errors
/// What the system says, or what is there instead of a file.
pub(crate) fn create(path: &Path, is_private: bool) -> io::Result<File> {
    if let Some(place) = descriptor::find(path) {
        return descriptor::open(&place);
    }
    match std::fs::metadata(path) {
        Ok(metadata) => {
            let file = open_to_write(path, metadata.file_type())?;
            if file.metadata()?.is_file() && is_private {
                file.set_permissions(Permissions::from_mode(PRIVATE))?;
            }
            empty(&file)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mode = if is_private { PRIVATE } else { 0o666 };
            options_without_waiting()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)
        }
        Err(error) => Err(error),
    }
}

/// Opens what is there, without changing it.
fn open_to_write(path: &Path, kind: FileType) -> io::Result<File> {
    let takes = |kind: FileType| kind.is_file() || kind.is_fifo() || kind.is_char_device();
    if !takes(kind) {
        return Err(wrong_kind(kind));
    }
    let opened = options_without_waiting().write(true).open(path);
    let file = opened.map_err(|error| {
        // What a pipe says that nobody has open.
        if kind.is_fifo() && error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) {
            return io::Error::other("no process reads from this pipe; start its reader first");
        }
        error
    })?;
    let kind = file.metadata()?.file_type();
    if !takes(kind) {
        return Err(wrong_kind(kind));
    }
    if !kind.is_file() {
        wait_from_here_on(&file)?;
    }
    Ok(file)
}

/// Takes the content of a regular file away.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(())
}

fn buffered(
    file: &mut File,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()
}

/// A file beside another that it is to become. It goes away unless it is kept.
struct Draft(PathBuf);

impl Draft {
    fn create(path: &Path) -> io::Result<(File, Self)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        const TRIES: u32 = 100;
        const LONGEST: usize = 100;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().take(LONGEST / 4).collect();
        let process = std::process::id();
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..TRIES {
            let number = COUNT.fetch_add(1, atomic::Ordering::Relaxed);
            // Hidden, so that nobody takes it for one of a folder's files.
            let at = path.with_file_name(format!(".{name}.{process}-{number}.new"));
            let mut options = OpenOptions::new();
            match options.write(true).create_new(true).open(&at) {
                Ok(file) => return Ok((file, Self(at))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // Nothing is lost with it.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

fn can_create_beside(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::other("expected the name of a file"));
    }
    Draft::create(path).map(drop)
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}
