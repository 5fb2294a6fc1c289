//! One connection to an agent: bytes out, bytes in, the handshake done.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::answers::{self, Said};
use super::frames::{self, ExchangeFrames};
use super::grpc::Stream;
use super::{Address, AskError, PATIENCE, Peer, Protocol, Target};
use crate::unix::connect_now;

/// For an agent to accept one of the connections that wait.
const PATIENCE_TO_CONNECT: Duration = Duration::from_secs(5);

/// A connection that was let in.
pub(super) struct Link {
    protocol: Protocol,
    peer: Peer,
    end: End,
    received: Vec<u8>,
    /// How much of it was read as frames.
    done: usize,
    buffer: Vec<u8>,
}

enum End {
    Unix(UnixStream),
    Grpc(Box<Stream>),
}

/// The way out, which another thread may have.
pub(super) enum Sender {
    Unix(UnixStream),
    Grpc(UnboundedSender<Bytes>),
}

impl Link {
    pub(super) fn connect(target: &Target) -> Result<Self, AskError> {
        let refused = |source| AskError::Connect {
            address: target.address.clone(),
            source,
        };
        let end = match &target.address {
            Address::Unix(path) => {
                let stream = connect(path).map_err(refused)?;
                stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
                stream.set_write_timeout(Some(PATIENCE)).map_err(refused)?;
                End::Unix(stream)
            }
            Address::Grpc(address) => {
                End::Grpc(Box::new(Stream::connect(*address).map_err(refused)?))
            }
        };
        let mut link = Self {
            protocol: target.protocol,
            peer: target.peer,
            end,
            received: Vec::new(),
            done: 0,
            buffer: vec![0; 64 << 10],
        };
        if let Some(hello) = frames::handshake(target.protocol)
            && target.peer == Peer::Agent
        {
            link.sender()?.send(&hello)?;
            loop {
                match link.next()? {
                    Some(Said::Welcome(Ok(()))) => break,
                    Some(Said::Welcome(Err(why))) => {
                        return Err(AskError::Protocol(format!(
                            "the agent refuses the handshake: {}",
                            crate::fault::printable(&why, 200)
                        )));
                    }
                    Some(_) => {}
                    None => link.receive()?,
                }
            }
        }
        Ok(link)
    }

    pub(super) fn sender(&self) -> Result<Sender, AskError> {
        Ok(match &self.end {
            End::Unix(stream) => Sender::Unix(stream.try_clone().map_err(broken("sending"))?),
            End::Grpc(stream) => Sender::Grpc(stream.sender()),
        })
    }

    /// Waits for more bytes. An agent that goes is an error.
    pub(super) fn receive(&mut self) -> Result<(), AskError> {
        self.received.drain(..self.done);
        self.done = 0;
        let receiving = "waiting for an answer";
        let count = match &mut self.end {
            End::Unix(stream) => {
                let count = stream.read(&mut self.buffer).map_err(|error| {
                    // What a timeout of a socket is called.
                    let error = match error.kind() {
                        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                        _ => error,
                    };
                    broken(receiving)(error)
                })?;
                self.received.extend_from_slice(&self.buffer[..count]);
                count
            }
            End::Grpc(stream) => stream
                .receive(&mut self.received)
                .map_err(broken(receiving))?,
        };
        if count == 0 {
            return Err(broken(receiving)(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// The next frame of what was received.
    pub(super) fn next(&mut self) -> Result<Option<Said>, AskError> {
        let rest = self.received.get(self.done..).unwrap_or_default();
        let frame = self
            .protocol
            .frame(rest)
            .map_err(|error| AskError::Protocol(format!("the agent sent {error}")))?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        self.done += frame.size;
        match self.peer {
            Peer::Agent => answers::read(self.protocol, frame),
            Peer::Echo => answers::read_echo(self.protocol, frame),
        }
        .map(Some)
    }
}

impl Sender {
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), AskError> {
        let sent = match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Grpc(stream) => stream
                .send(Bytes::copy_from_slice(bytes))
                .map_err(|_gone| io::ErrorKind::BrokenPipe.into()),
        };
        sent.map_err(broken("sending an event"))
    }
}

/// Connects as soon as the agent has room for one more that waits.
fn connect(path: &Path) -> io::Result<UnixStream> {
    /// How often it is asked.
    const PAUSE: Duration = Duration::from_millis(5);
    let until = Instant::now() + PATIENCE_TO_CONNECT;
    loop {
        match connect_now(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    let why = "a process listens there and accepts no connections";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn broken(what: &'static str) -> impl Fn(io::Error) -> AskError {
    move |source| AskError::Broken { what, source }
}

/// One connection with one event in flight: for times one by one.
pub struct Asker {
    link: Link,
    sender: Sender,
    /// Tells its ids from those of others.
    connection: usize,
    number: usize,
    out: Vec<u8>,
}

/// Connections by this process so far; ids have four digits for it.
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
const MOST_CONNECTIONS: usize = 10_000;

/// What one event came to.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// From sending it to its answer.
    pub time: Duration,
    /// What the agent decided.
    pub decision: &'static str,
}

impl Asker {
    /// Connects, and shakes hands where the protocol does.
    ///
    /// # Errors
    /// Where there is nobody, or nobody who speaks the protocol.
    pub fn connect(target: &Target) -> Result<Self, AskError> {
        let link = Link::connect(target)?;
        Ok(Self {
            sender: link.sender()?,
            link,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed) % MOST_CONNECTIONS,
            number: 0,
            out: Vec::new(),
        })
    }

    /// Asks about each event of an exchange, one after the other.
    ///
    /// # Errors
    /// Where the agent does not answer, or says that it failed.
    pub fn ask(
        &mut self,
        exchange: &ExchangeFrames,
        mut each: impl FnMut(usize, Asked),
    ) -> Result<(), AskError> {
        self.number += 1;
        for (index, step) in exchange.steps.iter().enumerate() {
            self.out.clear();
            step.write([self.connection, 0, self.number], &mut self.out);
            let sent = Instant::now();
            self.sender.send(&self.out)?;
            let decision = loop {
                match self.link.next()? {
                    Some(Said::Answer {
                        failed: Some(reason),
                        ..
                    }) => {
                        return Err(AskError::Failed {
                            case: step.name.clone(),
                            reason,
                        });
                    }
                    Some(Said::Answer { decision, .. }) => break decision,
                    Some(_) => {}
                    None => self.link.receive()?,
                }
            };
            let time = sent.elapsed();
            each(index, Asked { time, decision });
        }
        Ok(())
    }

    /// Asks whether the agent is there, and says how long that took.
    ///
    /// # Errors
    /// Where it does not say so, and by v1, which has no such question.
    pub fn ping(&mut self) -> Result<Duration, AskError> {
        self.number += 1;
        let ping = frames::ping(self.link.protocol, self.number)
            .ok_or_else(|| AskError::Protocol("v1 has no pings".to_owned()))?;
        let sent = Instant::now();
        self.sender.send(&ping)?;
        loop {
            match self.link.next()? {
                Some(Said::Pong) => return Ok(sent.elapsed()),
                Some(_) => {}
                None => self.link.receive()?,
            }
        }
    }
}
