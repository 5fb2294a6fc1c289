//! Paths that stand for open descriptors: `/dev/stdout`, `/dev/fd/5`,
//! `/proc/self/fd/1`, and links to these.
//!
//! The file behind one belongs to whoever opened it: its content, its mode and
//! the place where the next byte goes. So our own descriptors are shared rather
//! than opened anew, and nothing is cut or changed that is there already.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::kind::{options_without_waiting, wait_from_here_on, wrong_kind};

/// Links that are followed, as many as the system follows.
const MAX_LINKS: usize = 40;

/// The descriptor's place under `/proc` or `/dev/fd`, if the path leads to one.
pub(super) fn find(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let folder = match path.parent()? {
            folder if folder.as_os_str().is_empty() => Path::new("."),
            folder => folder,
        };
        let folder = folder.canonicalize().ok()?;
        let place = folder.join(path.file_name()?);
        let is_proc = folder.starts_with("/proc") && folder.ends_with("fd");
        if is_proc || folder == Path::new("/dev/fd") {
            return Some(place);
        }
        path = folder.join(std::fs::read_link(place).ok()?);
    }
    None
}

/// Opens the descriptor that [`find`] found, to write where it stands.
pub(super) fn open(place: &Path) -> io::Result<File> {
    let file = match own_number(place).map(share) {
        // Some sandboxes let no process share its own descriptors.
        Some(Err(error)) if is_forbidden(&error) => append(place)?,
        Some(shared) => File::from(shared?),
        None => append(place)?,
    };
    let kind = file.metadata()?.file_type();
    if !(kind.is_file() || kind.is_fifo() || kind.is_char_device() || kind.is_socket()) {
        return Err(wrong_kind(kind));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    if flags & OFlags::RWMODE == OFlags::RDONLY {
        return Err(io::Error::other(
            "expected a descriptor that is open for writing, found one that is open for reading only; name another file",
        ));
    }
    Ok(file)
}

/// The number of a descriptor of this process.
fn own_number(place: &Path) -> Option<RawFd> {
    let folder = place.parent()?;
    let own = || Path::new("/proc/self").canonicalize();
    if folder != Path::new("/dev/fd") && !own().is_ok_and(|own| folder.starts_with(own)) {
        return None;
    }
    place.file_name()?.to_str()?.parse().ok()
}

/// Another descriptor for the same open file.
fn share(number: RawFd) -> io::Result<OwnedFd> {
    match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        2 => io::stderr().as_fd().try_clone_to_owned(),
        number => share_other(number),
    }
}

#[cfg(target_os = "linux")]
fn share_other(number: RawFd) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn share_other(_number: RawFd) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// Opens the file anew, behind all that is in it.
fn append(place: &Path) -> io::Result<File> {
    let file = options_without_waiting().append(true).open(place)?;
    if !file.metadata()?.is_file() {
        wait_from_here_on(&file)?;
    }
    Ok(file)
}
