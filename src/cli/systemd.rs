//! The service manager: sockets that it opened for us, and what it is told.
//!
//! Without a service manager nothing here does anything.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};

/// For the manager to take what it had no room for at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that are kept for it; the newest count.
const MAX_LATER: usize = 16;

/// Sockets that were opened for us.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) unix: Option<UnixListener>,
    pub(super) grpc: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Passed {
    /// Takes them over. A Unix socket is the agent's; a TCP one is gRPC's, or
    /// the admin address where its unit says `FileDescriptorName=admin`.
    ///
    /// # Errors
    /// [`Error::Usage`] where there are sockets we cannot use.
    pub(super) fn take() -> Result<Self, Error> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut sockets = ListenFd::from_env();
        let mut passed = Self::default();
        for index in 0..sockets.len() {
            let name = names.get(index).copied().unwrap_or_default();
            if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
                put(&mut passed.unix, listener, "Unix sockets")?;
            } else if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
                let (place, what) = match name {
                    "admin" => (&mut passed.admin, "TCP sockets named admin"),
                    _ => (&mut passed.grpc, "TCP sockets for gRPC"),
                };
                put(place, listener, what)?;
            } else {
                return Err(Error::Usage(format!(
                    "socket {index} {name:?} of the service manager: expected a listening stream socket, Unix or TCP"
                )));
            }
        }
        Ok(passed)
    }
}

fn put<T>(place: &mut Option<T>, listener: T, what: &str) -> Result<(), Error> {
    if place.replace(listener).is_some() {
        return Err(Error::Usage(format!(
            "the service manager passed several {what}; one is served"
        )));
    }
    Ok(())
}

/// Events are answered from now on.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// The module is loaded again; followed by [`reloaded`].
pub(super) fn reloading() {
    // The newer managers want to know when this began.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// How that went.
pub(super) fn reloaded(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What was received is answered, and no more.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Says over and over that we are alive, if anybody wants to know. From the
/// threads that move bytes: where they hang, this does too.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let interval = (limit / 3).max(Duration::from_millis(1));
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(interval).await;
    }
}

/// What the manager has no room for yet, in the order in which it was said.
struct Later {
    messages: VecDeque<String>,
    /// Whether a thread sends them; until it has, nothing may overtake them.
    is_sending: bool,
}

static LATER: Mutex<Later> = Mutex::new(Later {
    messages: VecDeque::new(),
    is_sending: false,
});

/// Nothing in it can be half-changed by a panic elsewhere.
fn later() -> MutexGuard<'static, Later> {
    LATER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Never waits: a manager that reads nothing must not stop the threads that
/// move bytes. What it has no room for is sent later, but for signs of life.
fn tell(states: &[NotifyState<'_>]) {
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let is_sign_of_life = matches!(states, [NotifyState::Watchdog]);
    let mut later = later();
    if !later.is_sending || is_sign_of_life {
        let sent = send(&manager, &message, false);
        let is_full = matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !is_full {
            return complain(sent);
        }
    }
    if is_sign_of_life {
        return;
    }
    if later.messages.len() == MAX_LATER {
        later.messages.pop_front();
    }
    later.messages.push_back(message);
    if !later.is_sending {
        let thread = std::thread::Builder::new().spawn(move || send_later(&manager));
        later.is_sending = thread.is_ok();
        complain(thread.map(drop));
    }
}

/// Sends one after the other until nothing is left.
fn send_later(manager: &OsStr) {
    loop {
        let mut later = later();
        let Some(message) = later.messages.pop_front() else {
            later.is_sending = false;
            return;
        };
        drop(later);
        complain(send(manager, &message, true));
    }
}

fn complain(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

fn send(manager: &OsStr, message: &str, may_wait: bool) -> io::Result<()> {
    let address = match manager.as_bytes() {
        // How a name that is in no folder is written, and how it is passed.
        [b'@', name @ ..] => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        path => SockAddr::unix(OsStr::from_bytes(path)),
    }?;
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(!may_wait)?;
    socket.set_write_timeout(may_wait.then_some(PATIENCE))?;
    socket.send_to(message.as_bytes(), &address)?;
    Ok(())
}
