//! The service manager: sockets that it opened for us, and what it is told.
//!
//! Without a service manager nothing here does anything.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use socket2::{Domain, SockAddr, Socket, Type};
use wasm_agent_kit::error::Error;

/// For the manager to take what it had no room for at once.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Never waits: a manager that reads nothing must not stop the threads that
/// move bytes. What it has no room for is sent later, but for signs of life.
fn tell(states: &[NotifyState<'_>]) {
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let mut sent = send(&manager, &message, false);
    if matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock) {
        if matches!(states, [NotifyState::Watchdog]) {
            return;
        }
        let later = std::thread::Builder::new().spawn(move || send(&manager, &message, true));
        sent = later.map(drop);
    }
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell the service manager");
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
