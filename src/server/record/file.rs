//! Opens the file of a recording, and refuses a file that is not one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::capture::is_record;

/// Bytes of the first line that are looked at.
const MAX_FIRST: u64 = 1 << 20;

/// Opens a recording to go on with, or a new one, for its owner alone. What is
/// there and is none stays as it is.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;

        use rustix::fs::OFlags;
        // A link leads to a file that nobody has named, and a pipe without a
        // reader would hold up the start.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        options.mode(0o600).custom_flags(flags.cast_signed());
    }
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
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // One that was there before may be open to others.
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(file)
}

#[cfg(unix)]
fn explain(error: io::Error) -> io::Error {
    if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::LOOP) {
        return io::Error::other("it is a symbolic link; name its target");
    }
    error
}

#[cfg(not(unix))]
fn explain(error: io::Error) -> io::Error {
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
