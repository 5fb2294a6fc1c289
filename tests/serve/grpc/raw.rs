//! A peer of raw HTTP/2 frames, which can do what no client library does: keep
//! its windows shut, answer no ping, stop in the middle of anything.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::support::{LONG, ProxyToAgent, ToAgent};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Flags.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
    /// It reads and answers neither settings nor pings.
    pub(crate) is_deaf: bool,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Peer {
    /// Only the connection.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            received: Vec::new(),
            is_deaf: false,
        }
    }

    /// Each of its streams takes `window` bytes, until more is said.
    pub(crate) async fn open(address: SocketAddr, window: u32) -> Self {
        let mut peer = Self::silent(address).await;
        peer.write(PREFACE).await;
        let settings = [&[0, 4], window.to_be_bytes().as_slice()].concat();
        peer.write(&frame(SETTINGS, 0, 0, &settings)).await;
        peer
    }

    /// An answer to the agent's settings would be part of the preface.
    pub(crate) async fn half_a_preface(&mut self) {
        self.is_deaf = true;
        self.write(&PREFACE[..10]).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn call(&mut self, stream: u32, method: &str) {
        assert!(self.try_call(stream, method).await);
    }

    /// Says whether the agent is still there.
    pub(crate) async fn try_call(&mut self, stream: u32, method: &str) -> bool {
        let path = format!("/zentinel.agent.v2.AgentServiceV2/{method}");
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", "a"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // Literal, without the table and without Huffman's code.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let call = frame(HEADERS, END_HEADERS, stream, &block);
        self.stream.write_all(&call).await.is_ok()
    }

    /// Part of a message, as large as it is; in frames that any peer takes.
    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8]) {
        for part in bytes.chunks(16 << 10) {
            self.write(&frame(DATA, 0, stream, part)).await;
        }
    }

    pub(crate) async fn send(&mut self, stream: u32, message: ToAgent) {
        self.data(stream, &bytes(message)).await;
    }

    /// Nothing more is sent on this stream.
    pub(crate) async fn end(&mut self, stream: u32) {
        self.write(&frame(DATA, END_STREAM, stream, &[])).await;
    }

    /// Gives the call up.
    pub(crate) async fn reset(&mut self, stream: u32) {
        const CANCEL: u32 = 8;
        self.write(&frame(RESET, 0, stream, &CANCEL.to_be_bytes()))
            .await;
    }

    /// Takes so many bytes more; on stream 0, of all streams together.
    pub(crate) async fn widen(&mut self, stream: u32, bytes: u32) {
        let payload = bytes.to_be_bytes();
        self.write(&frame(WINDOW_UPDATE, 0, stream, &payload)).await;
    }

    /// The next frame that is no housekeeping; none at the connection's end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let (frame, flags) = timeout(LONG, self.any()).await.unwrap()?;
            match frame.kind {
                SETTINGS | PING if flags & ACK == 0 && !self.is_deaf => {
                    let payload = if frame.kind == PING {
                        frame.payload
                    } else {
                        Vec::new()
                    };
                    let answer = self::frame(frame.kind, ACK, 0, &payload);
                    // It may be gone.
                    let _ = self.stream.write_all(&answer).await;
                }
                DATA | HEADERS | RESET => return Some(frame),
                _ => {}
            }
        }
    }

    async fn any(&mut self) -> Option<(Frame, u8)> {
        loop {
            if let Some((head, rest)) = self.received.split_first_chunk::<9>() {
                let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
                let length = number([0, head[0], head[1], head[2]]);
                let length = usize::try_from(length).unwrap();
                if let Some(payload) = rest.get(..length) {
                    let frame = Frame {
                        kind: head[3],
                        stream: number([head[5], head[6], head[7], head[8]]),
                        payload: payload.to_vec(),
                    };
                    let flags = head[4];
                    self.received.drain(..9 + length);
                    return Some((frame, flags));
                }
            }
            // A reset is an end too.
            let read = self.stream.read_buf(&mut self.received).await;
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next frame of this kind on this stream, after whatever others.
    pub(crate) async fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection has ended");
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
        }
    }

    /// Reads nothing, and sends these bytes over and over until the agent is
    /// gone.
    pub(crate) async fn send_until_gone(&self, bytes: &[u8]) {
        let gone = async {
            loop {
                match self.stream.try_write(bytes) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                    _ => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(LONG, gone).await.unwrap();
    }

    /// Waits for the connection's end, whatever comes before.
    pub(crate) async fn closed(mut self) {
        while self.next().await.is_some() {}
    }
}

/// An answer to a ping that nobody sent, which means nothing.
pub(crate) fn nothing() -> Vec<u8> {
    frame(PING, ACK, 0, &[0; 8])
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags]].concat();
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// A message with what stands before it.
pub(crate) fn bytes(message: ToAgent) -> Vec<u8> {
    let message = ProxyToAgent {
        message: Some(message),
    };
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), &message].concat()
}
