//! New connections: as many as allowed, and none too fast.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::peer::serve_peer;
use super::{Drain, Shared};

/// Rest after an error of accepting: descriptors or memory are short, and
/// asking again at once would only burn a core.
const REST: Duration = Duration::from_millis(50);

/// Where connections come from.
pub(crate) trait Transport {
    type Stream: Send + 'static;

    /// The next connection.
    async fn next(&self) -> io::Result<Self::Stream>;

    /// Whether it is served at all.
    fn is_allowed(stream: &Self::Stream, shared: &Shared) -> bool;

    /// Serves it until it is over; after `stopped` only what was received.
    fn serve(
        stream: Self::Stream,
        shared: Arc<Shared>,
        stopped: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static;
}

impl Transport for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn is_allowed(stream: &UnixStream, shared: &Shared) -> bool {
        is_allowed(stream, shared)
    }

    async fn serve(stream: UnixStream, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
        let (reader, writer) = stream.into_split();
        let stop = async move {
            // Without a sender there is no server either.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        serve_peer(reader, writer, shared, stop).await;
    }
}

/// One permit for each connection there may be.
pub(crate) struct Permits {
    free: Arc<Semaphore>,
    all: usize,
}

impl Permits {
    fn new(all: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(all)),
            all,
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn drained(&self, grace: Duration) -> Drain {
        let all = u32::try_from(self.all).unwrap_or(u32::MAX);
        match tokio::time::timeout(grace, self.free.acquire_many(all)).await {
            Ok(_) => Drain::Complete,
            Err(_) => Drain::GraceRanOut {
                connections: self.all - self.free.available_permits(),
            },
        }
    }
}

/// Accepts and serves connections until `shutdown` is ready, then those that
/// were waiting to be accepted.
pub(crate) async fn accept<T: Transport>(
    listener: &T,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> Permits {
    let permits = Permits::new(shared.settings.max_connections);
    let mut shutdown = std::pin::pin!(shutdown);
    let next = async || {
        // Taken first: a peer that is not served is not accepted either.
        let permit = match Arc::clone(&permits.free).try_acquire_owned() {
            Ok(permit) => Ok(permit),
            Err(_) => {
                shared.full.send_replace(true);
                let permit = Arc::clone(&permits.free).acquire_owned().await;
                shared.full.send_replace(false);
                permit
            }
        };
        (permit, listener.next().await)
    };
    let begin = |(permit, accepted): (Result<OwnedSemaphorePermit, _>, io::Result<T::Stream>)| {
        let (Ok(permit), Ok(stream)) = (permit, accepted) else {
            return false;
        };
        if T::is_allowed(&stream, shared) {
            let served = T::serve(stream, Arc::clone(shared), stopped.clone());
            tokio::spawn(async move {
                served.await;
                drop(permit);
            });
        }
        true
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = next() => accepted,
        };
        if let Err(error) = &accepted.1
            && shared.notices.admit()
        {
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        if !begin(accepted) {
            tokio::select! {
                () = &mut shutdown => break,
                () = tokio::time::sleep(REST) => {}
            }
        }
    }
    // Who has connected was promised an answer to what it sent.
    while let Ok(accepted) = tokio::time::timeout(Duration::ZERO, next()).await {
        if !begin(accepted) {
            break;
        }
    }
    permits
}

fn is_allowed(stream: &UnixStream, shared: &Shared) -> bool {
    let allowed = &shared.settings.allowed_uids;
    if allowed.is_empty() {
        return true;
    }
    let uid = stream.peer_cred().map(|peer| peer.uid());
    let is_allowed = uid.as_ref().is_ok_and(|uid| allowed.contains(uid));
    if !is_allowed && shared.notices.admit() {
        tracing::warn!(uid = uid.ok(), "connection refused: not an allowed user");
    }
    is_allowed
}
