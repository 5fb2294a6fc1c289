//! New connections: as many as allowed, and none too fast.
//!
//! In: a listener. Out: a task for each connection there is a place for. One
//! more is accepted and waits for a place, so that it is known to wait: silent
//! peers give way to it, one place for each, and to nobody else.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

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

    /// Serves it until it is over; once told to stop only what was received.
    fn serve(
        stream: Self::Stream,
        shared: Arc<Shared>,
        doors: Doors,
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

    async fn serve(stream: UnixStream, shared: Arc<Shared>, doors: Doors) {
        let stop = doors.told_to_stop();
        serve_peer(stream.into_split(), shared, &doors.crowd, stop).await;
    }
}

/// What a connection is told from outside.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) crowd: Arc<Crowd>,
}

impl Doors {
    /// Ready once nothing more is to be read.
    pub(crate) fn told_to_stop(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopped = self.stopped.clone();
        async move {
            // Without a sender there is no server either.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }
}

/// Those who wait for a place, as those see it who may give theirs up.
pub(crate) struct Crowd {
    /// A permit for each that waits; whoever takes it gives way.
    waiting: Semaphore,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Semaphore::new(0),
        }
    }

    /// One more waits for a place.
    pub(crate) fn wait(&self) {
        self.waiting.add_permits(1);
    }

    /// It waits no more; somebody may have given way meanwhile.
    fn waits_no_more(&self) {
        self.waiting.forget_permits(1);
    }

    /// For a peer that has said nothing yet: ready once it has been so for
    /// `limit` and its place is wanted. Who has waited here longest is first.
    pub(crate) async fn wanted(&self, limit: Duration) {
        sleep(limit).await;
        // Never closed.
        if let Ok(permit) = self.waiting.acquire().await {
            permit.forget();
        }
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

    /// The next place; waits for one where all are taken.
    async fn next(&self, crowd: &Crowd) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        crowd.wait();
        let permit = Arc::clone(&self.free).acquire_owned().await;
        crowd.waits_no_more();
        // Never closed.
        permit.ok()
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
    let doors = Doors {
        stopped: stopped.clone(),
        crowd: Arc::new(Crowd::new()),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let begin = |stream, permit: OwnedSemaphorePermit| {
        let served = T::serve(stream, Arc::clone(shared), doors.clone());
        tokio::spawn(async move {
            served.await;
            drop(permit);
        });
    };
    let mut left = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.next() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                if shared.notices.admit() {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(REST) => continue,
                }
            }
        };
        // First: nobody has to give way to who is not served.
        if !T::is_allowed(&stream, shared) {
            continue;
        }
        let permit = tokio::select! {
            biased;
            permit = permits.next(&doors.crowd) => permit,
            () = &mut shutdown => None,
        };
        match permit {
            Some(permit) => begin(stream, permit),
            None => {
                left = Some(stream);
                break;
            }
        }
    }
    // Who has connected was promised an answer to what it sent.
    while let Ok(permit) = Arc::clone(&permits.free).try_acquire_owned() {
        let stream = match left.take() {
            Some(stream) => stream,
            None => match tokio::time::timeout(Duration::ZERO, listener.next()).await {
                Ok(Ok(stream)) if T::is_allowed(&stream, shared) => stream,
                Ok(Ok(_)) => continue,
                Ok(Err(_)) | Err(_) => break,
            },
        };
        begin(stream, permit);
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
