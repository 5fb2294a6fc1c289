//! A stream that gives up a peer which does not read what it is sent.
//!
//! In: any stream. Out: the same one, whose writes fail once the peer took
//! nothing for too long, so that whoever writes neither waits for ever nor has
//! to look at the clock.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

pub(crate) struct Patient<S> {
    stream: S,
    limit: Duration,
    /// While the peer takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
    received: Received,
}

/// Counts the first bytes of a stream.
struct Received {
    count: usize,
    told: watch::Sender<usize>,
    /// What comes after so many is not counted.
    enough: usize,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            patience: None,
            received: Received {
                count: 0,
                told: watch::Sender::new(0),
                enough: 0,
            },
        }
    }

    /// How many bytes have come, up to `enough`.
    pub(crate) fn received(&mut self, enough: usize) -> watch::Receiver<usize> {
        self.received.enough = enough;
        self.received.told.subscribe()
    }

    /// What came of a write, or that the peer had its time.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let limit = self.limit;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(patience.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let received = &mut this.received;
        let new = buffer.filled().len() - before;
        if received.count < received.enough && new > 0 {
            received.count = received.enough.min(received.count + new);
            received.told.send_replace(received.count);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_one_that_takes_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut patient = Patient::new(ours, Duration::from_secs(5));
        patient.write_all(b"full").await.unwrap();
        sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        let write = patient.write_all(b"more");
        let (written, ()) = tokio::join!(write, async {
            sleep(Duration::from_secs(4)).await;
            theirs.read_exact(&mut [0; 4]).await.unwrap();
        });
        written.unwrap();
        let error = patient.write_all(b"late").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 9);
    }

    #[tokio::test]
    async fn the_first_bytes_are_counted_and_no_more() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut patient = Patient::new(ours, Duration::from_secs(5));
        let received = patient.received(3);
        for expected in [2, 3, 3] {
            theirs.write_all(b"ab").await.unwrap();
            patient.read_exact(&mut [0; 2]).await.unwrap();
            assert_eq!(*received.borrow(), expected);
        }
    }
}
