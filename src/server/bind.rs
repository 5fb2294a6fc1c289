//! The socket's place in the file system: taken without harming anybody,
//! given back when done.
//!
//! Steps: lock the path, look what is there, bind in a folder that only we can
//! enter, give the socket its mode, move it into place. The lock file stays:
//! two agents could each hold one if it came and went. Invariant: a live socket of another
//! process, a file, a directory or a link is never touched.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::unix::{connect_now, kind_of};

/// Read and write for owner and group.
pub(crate) const DEFAULT_MODE: u32 = 0o660;
/// `sun_path` holds 108 bytes with its final zero.
const MAX_PATH_BYTES: usize = 107;

/// Why the socket's path cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// What is at the path, or the path itself.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The socket or its lock file.
        path: PathBuf,
        /// What is wrong.
        problem: PathProblem,
    },
    /// The system refused an address of the network.
    #[error("cannot listen at {address}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refused a step.
    #[error("{}: cannot {what}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// The step.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a path or with what is there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    /// So many bytes are longer than the system's addresses are.
    #[error(
        "{0} bytes with the suffix of the temporary name, at most 107 are possible; use a shorter path"
    )]
    TooLong(usize),
    /// Somebody listens there and accepts nobody: as many wait as may wait.
    #[error(
        "another process listens here and accepts no connections; stop it first or use another path"
    )]
    Stuck,
    /// Another agent holds the path's lock or answers on the socket.
    #[error("another process serves at this path; stop it first or use another path")]
    InUse,
    /// Something is there that is no socket.
    #[error("expected a socket or nothing, found {0}; it is left as it is")]
    NotASocket(&'static str),
    /// Something is in the place of the lock file that is no file.
    #[error("expected the lock file or nothing, found {0}; remove it or use another path")]
    NotALock(&'static str),
}

impl PathProblem {
    fn at(self, path: &Path) -> BindError {
        BindError::Path {
            path: path.to_owned(),
            problem: self,
        }
    }
}

/// Listens at an address of the network; a port of 0 is chosen by the system.
///
/// # Errors
/// [`BindError::Address`].
pub(crate) fn listen_at(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|source| BindError::Address { address, source })
}

/// How the socket is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketMode {
    /// Permission bits.
    pub mode: u32,
    /// The group it is given to, if another than ours.
    pub group: Option<u32>,
}

impl Default for SocketMode {
    fn default() -> Self {
        Self {
            mode: DEFAULT_MODE,
            group: None,
        }
    }
}

/// A socket in its place; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    path: PathBuf,
    /// Device and inode, to know the socket again.
    identity: (u64, u64),
    /// Held as long as the socket is.
    _lock: File,
}

impl BoundSocket {
    /// Binds a listener at `path`.
    ///
    /// # Errors
    /// A [`BindError`]; nothing was changed then, except that a lock file may
    /// have been left beside the path.
    pub(crate) fn bind(path: &Path, mode: SocketMode) -> Result<(UnixListener, Self), BindError> {
        let folder = beside(path, ".new");
        let temporary = folder.join("s");
        let found = temporary.as_os_str().len();
        if found > MAX_PATH_BYTES {
            return Err(PathProblem::TooLong(found).at(path));
        }
        // Before anything else, so that two agents cannot both find it free.
        let lock = lock(path)?;
        probe(path)?;
        // Ours by the lock; a crash may have left it.
        clear(&folder, &temporary);
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(system(path, "make a folder beside it"))?;
        let made = UnixListener::bind(&temporary)
            .map_err(system(path, "bind a socket beside it"))
            .and_then(|listener| Ok((listener, publish(&temporary, path, mode)?)));
        clear(&folder, &temporary);
        let (listener, identity) = made?;
        let bound = Self {
            path: path.to_owned(),
            identity,
            _lock: lock,
        };
        Ok((listener, bound))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // At the end of the process there is nothing else to do about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn lock(path: &Path) -> Result<File, BindError> {
    let place = beside(path, ".lock");
    // Opening a named pipe would wait for somebody at its other end.
    if let Ok(metadata) = std::fs::symlink_metadata(&place)
        && !metadata.is_file()
    {
        return Err(PathProblem::NotALock(kind_of(metadata.file_type())).at(&place));
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(place)
        .map_err(system(path, "open the lock file beside it"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(PathProblem::InUse.at(path)),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(system(path, "lock the file beside it")(error))
        }
    }
}

/// Whether the path is free: nothing there, or a socket nobody answers on.
fn probe(path: &Path) -> Result<(), BindError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(path, "look at it")(error)),
    };
    let kind = metadata.file_type();
    if !kind.is_socket() {
        return Err(PathProblem::NotASocket(kind_of(kind)).at(path));
    }
    match connect_now(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        // Somebody is there.
        Ok(_) => Err(PathProblem::InUse.at(path)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(PathProblem::Stuck.at(path)),
        Err(error) => Err(system(path, "check whether a process serves there")(error)),
    }
}

/// Gives the socket its group and mode, and only then its name.
fn publish(temporary: &Path, path: &Path, mode: SocketMode) -> Result<(u64, u64), BindError> {
    if mode.group.is_some() {
        std::os::unix::fs::chown(temporary, None, mode.group)
            .map_err(system(path, "give the socket its group"))?;
    }
    std::fs::set_permissions(temporary, std::fs::Permissions::from_mode(mode.mode))
        .map_err(system(path, "give the socket its mode"))?;
    let metadata =
        std::fs::symlink_metadata(temporary).map_err(system(path, "look at the new socket"))?;
    std::fs::rename(temporary, path).map_err(system(path, "move the socket into place"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What is not there need not go; what cannot go shows at the next step.
fn clear(folder: &Path, socket: &Path) {
    let _ = std::fs::remove_file(socket);
    let _ = std::fs::remove_dir(folder);
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn system(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> BindError {
    let path = path.to_owned();
    move |source| BindError::System { path, what, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn bind(path: &Path) -> Result<(UnixListener, BoundSocket), BindError> {
        BoundSocket::bind(path, SocketMode::default())
    }

    fn problem(path: &Path) -> PathProblem {
        match bind(path) {
            Err(BindError::Path { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_socket_has_its_mode_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for mode in [0o660, 0o600] {
            let (listener, bound) =
                BoundSocket::bind(&path, SocketMode { mode, group: None }).unwrap();
            assert_eq!(bound.path, path);
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, mode);
            UnixStream::connect(&path).unwrap();
            drop((listener, bound));
            assert!(!path.exists());
        }
        assert!(!beside(&path, ".new").exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // Of a process that knows nothing of our lock.
        let other = UnixListener::bind(&path).unwrap();
        assert_eq!(problem(&path), PathProblem::InUse);
        UnixStream::connect(&path).unwrap();
        drop(other);
        let (_listener, bound) = bind(&path).unwrap();
        // Of one that does.
        assert_eq!(problem(&path), PathProblem::InUse);
        drop(bound);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        for path in [&file, &link, &inner] {
            assert!(matches!(problem(path), PathProblem::NotASocket(_)));
            assert!(std::fs::symlink_metadata(path).is_ok());
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        let long = folder.path().join("x".repeat(108));
        assert!(matches!(problem(&long), PathProblem::TooLong(_)));
        let nowhere = folder.path().join("none/a.sock");
        assert!(matches!(bind(&nowhere), Err(BindError::System { .. })));
    }

    #[test]
    fn a_socket_that_is_no_longer_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let (_listener, bound) = bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }
}
