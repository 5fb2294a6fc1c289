//! The incoming half of one gRPC call: handshake, events, control messages.
//!
//! Invariant: whatever ends the reading (the peer's end, a broken message, a
//! timeout, the signal to stop), all that was received whole is answered
//! before the call ends, and its status says why it did.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::body::{Ending, Status};
use super::call::Call;
use crate::fault::{BadEvent, printable};
use crate::protocol::grpc::proto::{ConfigureEvent, HandshakeRequest};
use crate::protocol::grpc::{Inbound, handshake_response, pong, read, write};
use crate::protocol::proxy::Proxy;
use crate::protocol::shortened::Shortened;
use crate::protocol::wire::frame::{FrameError, Protocol};
use crate::protocol::wire::handshake::PROTOCOL_VERSION;
use crate::protocol::wire::{BadMessage, Message};
use crate::server::configure::configure;
use crate::server::connection::Connection;
use crate::server::metrics::Closed;
use crate::server::receive::{Turn, dispatch};
use crate::server::sessions::{Session, Sessions, now_ms};
use crate::server::unfinished::{LET_GO, Share};
use crate::server::{after, told_to_stop};

/// What was sent before the signal to stop may still be on its way through
/// the kernel and HTTP/2. It is read until the peer is silent for so long ...
const QUIET: Duration = Duration::from_millis(20);
/// ... but not for longer than this, because a busy peer is never silent.
const LINGER: Duration = Duration::from_millis(200);
/// An idle call's buffer is given back above this.
const KEPT_BYTES: usize = 64 << 10;

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Handshake, then any number of messages.
    Stream,
    /// One event, one answer.
    Single,
    /// Whatever comes is read and left.
    Control,
}

/// The reading side of one call.
pub(super) struct Reader {
    body: Incoming,
    buffer: BytesMut,
    share: Share,
    connection: Arc<Connection>,
    call: Arc<Call>,
    ending: Ending,
    /// Once it is greeted.
    session: Option<Session>,
}

impl Drop for Reader {
    /// However reading ends, the call does too.
    fn drop(&mut self) {
        self.ending
            .get_or_init(|| Status::internal("a defect of this program; please report it"));
        self.connection.finish();
    }
}

impl Reader {
    pub(super) fn new(
        body: Incoming,
        connection: Arc<Connection>,
        call: Arc<Call>,
        ending: Ending,
    ) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            // Of a stream each byte counts: a connection may have many.
            share: connection.shared().unfinished.share(0),
            connection,
            call,
            ending,
            session: None,
        }
    }

    /// Reads until nothing more can be read.
    pub(super) async fn run(mut self, mode: Mode, stopped: watch::Receiver<bool>) {
        let stop = told_to_stop(&stopped);
        let call = Arc::clone(&self.call);
        let reading = async {
            match mode {
                Mode::Control => self.drain(stop).await,
                Mode::Stream | Mode::Single => self.read(mode, stop).await,
            }
        };
        let result = tokio::select! {
            result = reading => result,
            // Told by whoever gave it up.
            () = call.given_up() => return,
        };
        let status = result.err().unwrap_or_else(Status::ok);
        if status.is_ok() {
            tracing::debug!(?mode, "gRPC call closes");
        } else if self.connection.shared().log_limiter.admit() {
            let end = printable(status.message(), 512);
            tracing::warn!(?mode, end, "gRPC call closed");
        }
        // Set once, here; the drop that follows lets the answers end.
        let _ = self.ending.set(status);
    }

    async fn drain(&mut self, stop: impl Future<Output = ()>) -> Result<(), Status> {
        tokio::select! {
            result = async {
                while more(&mut self.body, &mut self.buffer, &self.connection).await? {
                    self.buffer.clear();
                }
                Ok(())
            } => result,
            () = stop => Ok(()),
        }
    }

    async fn read(&mut self, mode: Mode, stop: impl Future<Output = ()>) -> Result<(), Status> {
        let settings = &Arc::clone(self.connection.shared()).settings;
        let mut stop = std::pin::pin!(stop);
        let mut first = Some(after(Instant::now(), settings.handshake_timeout));
        let mut partial = None;
        let mut stopping: Option<Instant> = None;
        if mode == Mode::Single {
            self.connection.greet(Proxy::new(settings.quirks, None));
        }
        loop {
            let mut turn = Turn::new();
            while let Some(inbound) = self.take()? {
                self.eased().await;
                if turn.is_over() {
                    tokio::task::yield_now().await;
                    turn = Turn::new();
                }
                self.receive(mode, inbound, &mut turn).await?;
                (first, partial) = (None, None);
                if mode == Mode::Single {
                    return Ok(());
                }
            }
            self.share.hold(self.buffer.len());
            if !self.buffer.is_empty() {
                partial.get_or_insert_with(|| after(Instant::now(), settings.frame_timeout));
            }
            if stopping.is_some_and(|last| last <= Instant::now()) {
                return Ok(());
            }
            let until = stopping
                .map(|last| last.min(Instant::now() + QUIET))
                .or(first)
                .or(partial);
            tokio::select! {
                // Else a peer that always has more to say never lets it through.
                biased;
                () = &mut stop, if stopping.is_none() => {
                    stopping = Some(Instant::now() + LINGER);
                    // A stream's first message is the handshake's answer, and a
                    // single call's only one is its own.
                    if mode == Mode::Stream && self.connection.is_greeted() {
                        self.connection.shared().say_draining(&self.connection);
                    }
                }
                () = self.share.let_go() => {
                    self.count(Closed::Unfinished);
                    return Err(Status::too_large(LET_GO));
                }
                more = within(more(&mut self.body, &mut self.buffer, &self.connection), until) => match more {
                    Some(more) => if !more? {
                        return self.at_end(mode);
                    },
                    None if stopping.is_some() => return Ok(()),
                    None => {
                        self.count(Closed::Slow);
                        return Err(Status::timeout("no whole message in time"));
                    }
                },
            }
        }
    }

    /// The peer is done; half a message is one it will not finish.
    fn at_end(&self, mode: Mode) -> Result<(), Status> {
        match (self.buffer.is_empty(), mode) {
            (true, Mode::Single) => Err(Status::invalid("a call without a message")),
            (true, _) => Ok(()),
            (false, _) => Err(Status::invalid("the stream ends inside a message")),
        }
    }

    fn count(&self, why: Closed) {
        self.connection.shared().live.metrics().closed(why);
    }

    /// Waits until the peer has taken enough of what it was sent; one that
    /// does not is given up with the call.
    async fn eased(&self) {
        while !self.connection.may_read() {
            self.connection.eased.notified().await;
        }
    }

    /// The next whole message, if it is there.
    fn take(&mut self) -> Result<Option<Inbound>, Status> {
        let frame = match Protocol::Grpc.frame(&self.buffer) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
                    // A large event was here once; what is idle holds little.
                    self.buffer = BytesMut::new();
                }
                return Ok(None);
            }
            Err(error @ FrameError::TooLarge(_)) => {
                return Err(Status::too_large(error.to_string()));
            }
            Err(error) => return Err(Status::invalid(error.to_string())),
        };
        if frame.kind != 0 {
            return Err(Status::unimplemented("compressed messages are not read"));
        }
        let inbound = read(frame.payload)
            .map_err(|_error| Status::invalid("a message that cannot be decoded"))?;
        let size = frame.size;
        self.buffer.advance(size);
        self.share.whole();
        Ok(Some(inbound))
    }

    /// Begins or answers what one message holds.
    async fn receive(
        &mut self,
        mode: Mode,
        inbound: Inbound,
        turn: &mut Turn,
    ) -> Result<(), Status> {
        let connection = &self.connection;
        match inbound {
            Inbound::Message(message) if connection.is_greeted() => {
                dispatch(connection, message, turn)
                    .map_err(|violation| Status::invalid(violation.to_string()))?;
            }
            Inbound::Message(message) => {
                dispatch(connection, Err(before_handshake(message)), turn)
                    .map_err(|violation| Status::invalid(violation.to_string()))?;
            }
            Inbound::Handshake(request) => self.greet(mode, &request)?,
            Inbound::Ping(ping) => connection.send(0, |out| write(pong(ping, now_ms()), out)),
            Inbound::Configure(_) | Inbound::Cancel(_) | Inbound::Nothing
                if mode == Mode::Single =>
            {
                return Err(Status::invalid("a message that has no answer"));
            }
            Inbound::Configure(pushed) => self.configure(&pushed).await?,
            Inbound::Cancel(id) => connection.cancel(&id),
            // A message newer than this agent; whether it wants an answer
            // cannot be known.
            Inbound::Nothing => tracing::debug!("a message of unknown kind"),
        }
        Ok(())
    }

    fn greet(&mut self, mode: Mode, request: &HandshakeRequest) -> Result<(), Status> {
        let connection = &self.connection;
        let settings = &connection.shared().settings;
        if mode == Mode::Stream && connection.is_greeted() {
            return Err(Status::invalid("a second handshake"));
        }
        let error = (!request.supported_versions.contains(&PROTOCOL_VERSION))
            .then_some("no common protocol version: this agent speaks 2");
        let response = handshake_response(settings.identity(), error);
        connection.send(0, |out| write(response, out));
        if let Some(error) = error {
            return Err(Status::refused(error));
        }
        connection.greet(Proxy::new(settings.quirks, Some(&request.proxy_version)));
        if mode == Mode::Stream {
            self.session = Some(Sessions::join(connection));
        }
        tracing::debug!(proxy = printable(&request.proxy_id, 64), "connected");
        Ok(())
    }

    /// Accepted by the next pong, refused by the end of the stream.
    async fn configure(&self, pushed: &ConfigureEvent) -> Result<(), Status> {
        let config = if pushed.config_json.trim().is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::from_str::<Shortened>(&pushed.config_json)
                .map_err(|_error| Status::invalid("pushed settings are not JSON"))?
                .0
        };
        let live = &self.connection.shared().live;
        let outcome = configure(live, &config, (self.connection.number(), 0))
            .outcome()
            .await;
        outcome.map_err(Status::refused)
    }
}

/// Reads what there is; false at the end. Loses nothing when dropped.
async fn more(
    body: &mut Incoming,
    buffer: &mut BytesMut,
    connection: &Connection,
) -> Result<bool, Status> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
    match frame {
        None => Ok(false),
        // The peer has given the call up, or is gone.
        Some(Err(error)) => {
            tracing::debug!(%error, "gRPC call given up");
            connection.end();
            buffer.clear();
            Ok(false)
        }
        Some(Ok(frame)) => {
            if let Ok(data) = frame.into_data() {
                buffer.extend_from_slice(&data);
            }
            Ok(true)
        }
    }
}

/// What an event that came too early is answered by.
fn before_handshake(message: Result<Message, BadMessage>) -> BadMessage {
    let correlation_id = match message {
        Ok(message) => Some(message.correlation_id().to_owned()),
        Err(bad) => bad.correlation_id,
    };
    BadMessage {
        what: BadEvent::BeforeHandshake,
        at: "",
        correlation_id,
    }
}

/// None where it took too long.
async fn within<F: Future>(work: F, until: Option<Instant>) -> Option<F::Output> {
    match until {
        None => Some(work.await),
        Some(at) => timeout_at(at, work).await.ok(),
    }
}
