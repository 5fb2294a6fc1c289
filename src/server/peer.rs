//! The life of one connection: greet, read events, send answers, part.
//!
//! In: the two halves of any stream. Out: its answers. Invariant: whatever
//! ends the reading (the peer's end, a broken frame, a timeout, the signal to
//! stop), all that was received whole is answered before the stream closes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use super::accept::Crowd;
use super::connection::{Connection, Next};
use super::exchanges::Peer;
use super::metrics::Closed;
use super::receive::{Turn, Violation, receive};
use super::sessions::Sessions;
use super::unfinished::{LET_GO, SMALL_BYTES, Share};
use super::{Shared, after};
use crate::protocol::proxy::Proxy;
use crate::protocol::wire::Encoding;
use crate::protocol::wire::frame::{FrameError, Protocol, kind};
use crate::protocol::wire::handshake::{HandshakeRequest, write_response};
use crate::protocol::wire::response::Dialect;

/// Room made for each read; an idle connection holds no more than this.
const READ_BYTES: usize = 16 << 10;
/// Room made for each read of a large frame. Its announced length is not
/// believed: the buffer grows as bytes come.
const READ_LARGE_BYTES: usize = 64 << 10;

/// The reading half of a stream.
pub(crate) trait ReadHalf: AsyncRead + Unpin {
    /// Tells the peer that nothing more will be read. Says whether reading
    /// will then come to an end by itself, after what was sent before.
    fn stop(&self) -> bool;

    /// Who is at the other end.
    fn peer(&self) -> Peer {
        Peer::Unknown
    }
}

impl ReadHalf for tokio::net::unix::OwnedReadHalf {
    /// From here on the peer's writes fail, so it knows what was not received.
    fn stop(&self) -> bool {
        socket2::SockRef::from(self.as_ref())
            .shutdown(std::net::Shutdown::Read)
            .is_ok()
    }

    fn peer(&self) -> Peer {
        let process = self.as_ref().peer_cred().ok().and_then(|peer| peer.pid());
        process.map_or(Peer::Unknown, Peer::Process)
    }
}

/// Why reading came to an end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the peer closed the connection")]
    Peer,
    #[error("told to stop")]
    Stopped,
    #[error("no whole frame within {0:?}")]
    Timeout(Duration),
    #[error("it was idle, and another connection waits")]
    GaveWay,
    #[error("{LET_GO}")]
    Unfinished,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("the handshake cannot be used: {0}")]
    Handshake(&'static str),
}

/// Serves one connection until it is over.
pub(crate) async fn serve_peer<R, W, S>(
    (reader, mut writer): (R, W),
    shared: Arc<Shared>,
    crowd: &Crowd,
    stop: S,
) where
    R: ReadHalf,
    W: AsyncWrite + Unpin,
    S: Future<Output = ()>,
{
    let stop = std::pin::pin!(stop);
    let mut input = Input {
        reader,
        buffer: BytesMut::new(),
        share: shared.unfinished.share(SMALL_BYTES),
        stop,
        stopped: None,
    };
    let greeted = greet(&mut input, &mut writer, &shared, crowd).await;
    let connection = match greeted {
        Ok(connection) => Arc::new(connection),
        Err(end) => {
            tell(&shared, &end);
            // The peer may be gone as well.
            let _ = writer.shutdown().await;
            return;
        }
    };
    let _session = Sessions::join(&connection);
    let mut answers = AnswerWriter::new(&connection, writer);
    let end = read_events(&mut input, &mut answers).await;
    // What is left of it will never be whole, and the answers may take long.
    drop(input);
    if let Some(end) = end {
        tell(&shared, &end);
        connection.finish();
        poll_fn(|context| answers.poll_send(context)).await;
    }
    connection.end();
    // The peer may be gone as well.
    let _ = answers.writer.shutdown().await;
}

/// A peer that leaves is no news; one that breaks the protocol is.
fn tell(shared: &Shared, end: &End) {
    let counted = match end {
        End::Timeout(_) => Some(Closed::Slow),
        End::GaveWay => Some(Closed::GaveWay),
        End::Unfinished => Some(Closed::Unfinished),
        _ => None,
    };
    if let Some(reason) = counted {
        shared.live.metrics().closed(reason);
    }
    match end {
        End::Peer | End::Stopped => tracing::debug!(%end, "connection closes"),
        _ if shared.log_limiter.admit() => tracing::warn!(%end, "connection closed"),
        _ => {}
    }
}

/// Finds out what the peer speaks; answers its handshake if it has one.
async fn greet<R: ReadHalf, W: AsyncWrite + Unpin, S: Future<Output = ()>>(
    input: &mut Input<'_, R, S>,
    writer: &mut W,
    shared: &Arc<Shared>,
    crowd: &Crowd,
) -> Result<Connection, End> {
    let settings = &shared.settings;
    // A v1 proxy connects long before it has anything to say. Only where
    // others wait for its place does it have to give way.
    while input.buffer.is_empty() {
        tokio::select! {
            read = input.read(None) => read?,
            () = crowd.wanted(settings.handshake_timeout) => return Err(End::GaveWay),
        }
    }
    let deadline = Deadline::after(settings.handshake_timeout);
    let protocol = loop {
        if let Some(protocol) = Protocol::detect(&input.buffer)?
            && protocol.frame(&input.buffer)?.is_some()
        {
            break protocol;
        }
        input.share.hold(input.buffer.len());
        input.read(Some(deadline)).await?;
    };
    input.share.whole();
    let mut dialect = Dialect {
        protocol,
        encoding: Encoding::Json,
        request_body: settings.request_body,
    };
    let mut version = None;
    if protocol == Protocol::V2 {
        let Some(frame) = protocol.frame(&input.buffer)? else {
            return Err(End::Peer);
        };
        let size = frame.size;
        let request = HandshakeRequest::read(frame.payload);
        let result = match &request {
            Ok(request) if request.speaks_ours() => Ok(request.encoding()),
            Ok(_) => Err("no common protocol version: this agent speaks 2"),
            Err(_) => Err("the handshake request cannot be read"),
        };
        let mut answer = Vec::new();
        let _ = protocol.write(kind::HANDSHAKE_RESPONSE, &mut answer, |out| {
            write_response(result, settings.identity(), out);
        });
        match timeout(settings.write_timeout, writer.write_all(&answer)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(End::Peer),
        }
        dialect.encoding = result.map_err(End::Handshake)?;
        version = request.ok().map(|request| request.proxy_version);
        input.buffer.advance(size);
    }
    let proxy = Proxy::new(settings.quirks, version.as_deref());
    tracing::debug!(?protocol, encoding = ?dialect.encoding, "connected");
    let peer = input.reader.peer();
    Ok(Connection::new(
        Arc::clone(shared),
        dialect,
        Some(proxy),
        peer,
    ))
}

/// Reads and begins events until nothing more can be read, and sends answers
/// meanwhile. `None` where nothing more can be sent.
async fn read_events<R: ReadHalf, W: AsyncWrite + Unpin, S: Future<Output = ()>>(
    input: &mut Input<'_, R, S>,
    answers: &mut AnswerWriter<'_, W>,
) -> Option<End> {
    let connection = answers.connection;
    let protocol = connection.dialect().protocol;
    let limit = connection.shared().settings.frame_timeout;
    let mut deadline = None;
    loop {
        connection.writer_is_awake();
        let mut turn = Turn::new();
        loop {
            if turn.is_over() || !connection.may_read() {
                answers.ease().await?;
                if turn.is_over() {
                    tokio::task::yield_now().await;
                    turn = Turn::new();
                }
                connection.writer_is_awake();
            }
            let frame = match protocol.frame(&input.buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Some(error.into()),
            };
            let size = frame.size;
            if let Err(violation) = receive(connection, frame, &mut turn) {
                return Some(violation.into());
            }
            input.buffer.advance(size);
            input.share.whole();
            deadline = None;
        }
        input.share.hold(input.buffer.len());
        if input.buffer.is_empty() {
            // A large event was here once; what is idle holds little.
            if input.buffer.capacity() > READ_LARGE_BYTES {
                input.buffer = BytesMut::new();
            }
        } else {
            deadline.get_or_insert_with(|| Deadline::after(limit));
        }
        let was_stopped = input.stopped.is_some();
        let read = {
            let mut read = std::pin::pin!(input.read(deadline));
            poll_fn(|context| {
                // Sent first: what was just answered is here.
                if answers.poll_send(context).is_ready() {
                    return Poll::Ready(None);
                }
                read.as_mut().poll(context).map(Some)
            })
            .await
        };
        if let Err(end) = read? {
            return Some(end);
        }
        if input.stopped.is_some() && !was_stopped {
            connection.shared().say_draining(connection);
        }
    }
}

/// Sends what is to be sent, as much as there is in each write.
struct AnswerWriter<'a, W> {
    connection: &'a Arc<Connection>,
    writer: W,
    /// What is being written, and how much of it was.
    batch: Vec<u8>,
    written: usize,
    /// While the peer takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<'a, W: AsyncWrite + Unpin> AnswerWriter<'a, W> {
    const fn new(connection: &'a Arc<Connection>, writer: W) -> Self {
        Self {
            connection,
            writer,
            batch: Vec::new(),
            written: 0,
            patience: None,
        }
    }

    /// Sends until there is nothing to send and the next event may be read.
    /// `None` where nothing more can be sent.
    async fn ease(&mut self) -> Option<()> {
        poll_fn(|context| {
            if self.poll_send(context).is_ready() {
                return Poll::Ready(None);
            }
            if self.connection.may_read() {
                Poll::Ready(Some(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Ready once nothing more can be sent or is to be.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.connection.shared().settings.write_timeout;
        loop {
            if self.written == self.batch.len() {
                self.batch.clear();
                if self.batch.capacity() > READ_LARGE_BYTES {
                    self.batch = Vec::new();
                }
                (self.written, self.patience) = (0, None);
                match self.connection.take_unsent(&mut self.batch, context) {
                    Next::Send => {}
                    Next::Wait => return Poll::Pending,
                    Next::End => return Poll::Ready(()),
                }
            }
            let rest = &self.batch[self.written..];
            match Pin::new(&mut self.writer).poll_write(context, rest) {
                Poll::Ready(Ok(count @ 1..)) => self.written += count,
                Poll::Ready(ended) => {
                    // A proxy that gave up and left; no error of ours.
                    let error = ended.err();
                    tracing::debug!(?error, "the peer takes no answers");
                    self.connection.end();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
                    if patience.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    let shared = self.connection.shared();
                    shared.live.metrics().closed(Closed::Untaken);
                    if shared.log_limiter.admit() {
                        tracing::warn!(?limit, "the peer took no answers; connection closed");
                    }
                    self.connection.end();
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// A point in time and the limit it came from.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self {
            at: after(Instant::now(), limit),
            limit,
        }
    }
}

/// What comes from the peer, until it or we have had enough.
struct Input<'a, R, S> {
    reader: R,
    buffer: BytesMut,
    share: Share,
    stop: Pin<&'a mut S>,
    /// Once told to stop: whether reading will come to an end by itself.
    stopped: Option<bool>,
}

impl<R: ReadHalf, S: Future<Output = ()>> Input<'_, R, S> {
    /// Reads what there is. After the signal to stop, may read nothing once.
    async fn read(&mut self, deadline: Option<Deadline>) -> Result<(), End> {
        let room = if self.buffer.len() < READ_BYTES {
            READ_BYTES
        } else {
            READ_LARGE_BYTES
        };
        if self.buffer.capacity() - self.buffer.len() < room / 4 {
            self.buffer.reserve(room);
        }
        let read = self.reader.read_buf(&mut self.buffer);
        let read = match self.stopped {
            None => {
                tokio::select! {
                    // The signal first: a peer that always has more to say
                    // would never let it through.
                    biased;
                    () = self.stop.as_mut() => {
                        self.stopped = Some(self.reader.stop());
                        return Ok(());
                    }
                    () = self.share.let_go() => return Err(End::Unfinished),
                    read = within(read, deadline) => read?,
                }
            }
            Some(true) => tokio::select! {
                biased;
                () = self.share.let_go() => return Err(End::Unfinished),
                read = within(read, deadline) => read?,
            },
            // What is there now, and no waiting for more.
            Some(false) => match timeout(Duration::ZERO, read).await {
                Ok(read) => read,
                Err(_) => return Err(End::Stopped),
            },
        };
        match read {
            Ok(0) | Err(_) if self.stopped.is_some() => Err(End::Stopped),
            Ok(0) | Err(_) => Err(End::Peer),
            Ok(_) => Ok(()),
        }
    }
}

async fn within<F: Future>(work: F, deadline: Option<Deadline>) -> Result<F::Output, End> {
    match deadline {
        None => Ok(work.await),
        Some(Deadline { at, limit }) => timeout_at(at, work)
            .await
            .map_err(|_elapsed| End::Timeout(limit)),
    }
}
