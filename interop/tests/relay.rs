//! A relay between a client and the agent that keeps the ledger.
//!
//! Clients cannot tell an event the agent never received from one it lost:
//! both end in a timeout. Here an event counts as sent once the kernel took
//! all of it for the agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

pub struct Relay {
    pub path: PathBuf,
    ledger: Arc<Ledger>,
    accepting: tokio::task::JoinHandle<JoinSet<()>>,
    stop: tokio::sync::oneshot::Sender<()>,
}

#[derive(Default)]
struct Ledger {
    sent: AtomicUsize,
    answered: AtomicUsize,
}

impl Relay {
    pub fn start(folder: &Path, agent: PathBuf, is_v2: bool) -> Self {
        let path = folder.join("relay.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let ledger = Arc::new(Ledger::default());
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let counted = Arc::clone(&ledger);
        // In v2 the fifth byte names the message, in v1 every frame counts.
        let is_event = move |kind: u8| !is_v2 || (0x10..=0x17).contains(&kind);
        let is_answer = move |kind: u8| !is_v2 || kind == 0x20;
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    _ = &mut stopped => return open,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let Ok(agent) = UnixStream::connect(&agent).await else {
                    continue;
                };
                let (from_client, to_client) = accepted.into_split();
                let (from_agent, to_agent) = agent.into_split();
                let (there, back) = (Arc::clone(&counted), Arc::clone(&counted));
                open.spawn(async move {
                    let mut from = from_client;
                    let mut to = to_agent;
                    while let Some(frame) = next(&mut from).await {
                        if to.write_all(&frame).await.is_err() {
                            break;
                        }
                        let counts = is_event(frame[4]);
                        there.sent.fetch_add(counts.into(), Ordering::SeqCst);
                    }
                });
                open.spawn(async move {
                    let mut from = from_agent;
                    let mut to = to_client;
                    while let Some(frame) = next(&mut from).await {
                        let counts = is_answer(frame[4]);
                        back.answered.fetch_add(counts.into(), Ordering::SeqCst);
                        // Counted even where the client has left.
                        let _ = to.write_all(&frame).await;
                    }
                });
            }
        });
        Self {
            path,
            ledger,
            accepting,
            stop,
        }
    }

    pub fn answered(&self) -> usize {
        self.ledger.answered.load(Ordering::SeqCst)
    }

    /// What was sent and what was answered, once the clients are gone.
    pub async fn close(self) -> (usize, usize) {
        let _ = self.stop.send(());
        self.accepting.await.unwrap().join_all().await;
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.ledger.sent), count(&self.ledger.answered))
    }
}

/// One frame of either protocol; none at the end.
async fn next(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
    frame.resize(4 + usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}
