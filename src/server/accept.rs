//! Accepts connections: up to a limit, and not too fast.
//!
//! In: a listener. Out: a task for each connection there is a place for. One
//! more is accepted and waits for a place, so that it is known to wait: silent
//! peers give way to it, one place for each, and to nobody else.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use super::peer::serve_peer;
use super::{Drain, Shared, lock, told_to_stop};

/// Rest after an error of accepting: descriptors or memory are short, and
/// asking again at once would only burn a core.
const REST: Duration = Duration::from_millis(50);

/// Where connections come from.
pub(crate) trait Transport {
    type Stream: Send + 'static;

    /// The next connection.
    async fn next(&self) -> io::Result<Self::Stream>;

    /// Whether it is served at all.
    fn is_allowed(_: &Self::Stream, _: &Shared) -> bool {
        true
    }

    /// Serves it until it is over; once told to stop only what was received.
    fn serve(
        stream: Self::Stream,
        shared: Arc<Shared>,
        signals: Signals,
    ) -> impl Future<Output = ()> + Send + 'static;
}

impl Transport for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn is_allowed(stream: &UnixStream, shared: &Shared) -> bool {
        let allowed = &shared.settings.allowed_uids;
        if allowed.is_empty() {
            return true;
        }
        let uid = stream.peer_cred().map(|peer| peer.uid());
        let is_allowed = uid.as_ref().is_ok_and(|uid| allowed.contains(uid));
        if !is_allowed && shared.log_limiter.admit() {
            tracing::warn!(uid = uid.ok(), "connection refused: not an allowed user");
        }
        is_allowed
    }

    async fn serve(stream: UnixStream, shared: Arc<Shared>, signals: Signals) {
        let stop = told_to_stop(&signals.stopped);
        serve_peer(stream.into_split(), shared, &signals.crowd, stop).await;
    }
}

/// What a connection is told from outside.
#[derive(Clone)]
pub(crate) struct Signals {
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) crowd: Arc<Crowd>,
}

/// Those who wait for a place, as those see it who may give theirs up.
pub(crate) struct Crowd {
    needs: Mutex<Needs>,
    /// At least one permit for each need that is not met. There may be more: a
    /// permit that was handed to somebody cannot be taken back.
    permits: Semaphore,
}

#[derive(Default)]
struct Needs {
    /// Who waits now.
    waiting: usize,
    /// For how many of them nobody has given way yet.
    unmet: usize,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        Self {
            needs: Mutex::default(),
            permits: Semaphore::new(0),
        }
    }

    /// One more waits for a place.
    pub(crate) fn wait(&self) {
        let mut needs = lock(&self.needs);
        needs.waiting += 1;
        needs.unmet += 1;
        self.permits.add_permits(1);
    }

    /// It waits no more; somebody may have given way meanwhile.
    fn waits_no_more(&self) {
        let mut needs = lock(&self.needs);
        needs.waiting = needs.waiting.saturating_sub(1);
        needs.unmet = needs.unmet.min(needs.waiting);
        let permits = self.permits.available_permits();
        self.permits
            .forget_permits(permits.saturating_sub(needs.unmet));
    }

    /// Whoever was asked keeps its place: somebody else has to give way, if
    /// the place is still wanted.
    pub(crate) fn pass_on(&self) {
        let mut needs = lock(&self.needs);
        if needs.unmet < needs.waiting {
            needs.unmet += 1;
            self.permits.add_permits(1);
        }
    }

    /// For a peer that has said nothing yet: ready once it has been so for
    /// `limit` and its place is wanted. Who has waited here longest is first.
    pub(crate) async fn wanted(&self, limit: Duration) {
        sleep(limit).await;
        // Never closed.
        while let Ok(permit) = self.permits.acquire().await {
            permit.forget();
            let mut needs = lock(&self.needs);
            if needs.unmet > 0 {
                needs.unmet -= 1;
                return;
            }
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
    let signals = Signals {
        stopped: stopped.clone(),
        crowd: Arc::new(Crowd::new()),
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let begin = |stream, permit: OwnedSemaphorePermit| {
        let served = T::serve(stream, Arc::clone(shared), signals.clone());
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
                if shared.log_limiter.admit() {
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
            permit = permits.next(&signals.crowd) => permit,
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn is_wanted(silent: impl Future<Output = ()>) -> bool {
        timeout(Duration::from_secs(1), silent).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_gives_way_to_who_waits_no_more() {
        let crowd = Crowd::new();
        let mut silent = std::pin::pin!(crowd.wanted(Duration::ZERO));
        assert!(!is_wanted(silent.as_mut()).await);
        // A place comes free before the silent one has seen that it was asked.
        crowd.wait();
        crowd.waits_no_more();
        assert!(!is_wanted(silent.as_mut()).await);
        crowd.wait();
        assert!(is_wanted(silent.as_mut()).await);
        // It keeps its place; the next one is asked, as long as somebody waits.
        crowd.pass_on();
        assert!(is_wanted(crowd.wanted(Duration::ZERO)).await);
        crowd.waits_no_more();
        crowd.pass_on();
        assert!(!is_wanted(crowd.wanted(Duration::ZERO)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn each_that_waits_has_a_need_of_its_own() {
        let crowd = Crowd::new();
        crowd.wait();
        crowd.wait();
        assert!(is_wanted(crowd.wanted(Duration::ZERO)).await);
        crowd.waits_no_more();
        assert!(is_wanted(crowd.wanted(Duration::ZERO)).await);
        assert!(!is_wanted(crowd.wanted(Duration::ZERO)).await);
    }
}
