//! What both named files and descriptors need: the kinds of files, and opening
//! that never waits.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use rustix::fs::OFlags;

pub(super) fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_symlink() {
        "a link"
    } else {
        "a regular file"
    }
}

pub(super) fn wrong_kind(kind: FileType) -> io::Error {
    let kind = name_of(kind);
    io::Error::other(format!("expected a file, found {kind}; name another file"))
}

/// Options by which opening never waits.
pub(super) fn options_without_waiting() -> OpenOptions {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    options
}

pub(super) fn wait_from_here_on(file: &File) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}
