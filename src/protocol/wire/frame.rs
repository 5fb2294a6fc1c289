//! Frames: where one message ends and the next begins.
//!
//! In: the bytes received so far. Out: the next whole frame, or that more
//! bytes are needed, or that the peer broke the protocol. The announced length
//! is a limit to compare with and never a reason to allocate.

/// The largest v1 frame, in bytes of JSON; both released sides refuse more.
pub(crate) const MAX_V1_BYTES: usize = 10 * 1024 * 1024;
/// The largest v2 frame, in bytes of type and payload.
pub(crate) const MAX_V2_BYTES: usize = 16 * 1024 * 1024;
/// The largest gRPC message that clients take, who never raise their default.
pub(crate) const MAX_GRPC_ANSWER_BYTES: usize = 4 * 1024 * 1024 - 1;
/// Bytes before a v1 frame's JSON, and before a v2 frame's type.
const PREFIX_BYTES: usize = 4;

/// Message types of v2 that are no request types.
pub(crate) mod kind {
    /// The proxy's first frame.
    pub(crate) const HANDSHAKE_REQUEST: u8 = 0x01;
    /// The agent's first frame.
    pub(crate) const HANDSHAKE_RESPONSE: u8 = 0x02;
    /// The answer to an event.
    pub(crate) const AGENT_RESPONSE: u8 = 0x20;
    /// How the agent is.
    pub(crate) const HEALTH_STATUS: u8 = 0x30;
    /// Counters and gauges.
    pub(crate) const METRICS_REPORT: u8 = 0x31;
    /// The proxy gave an event up.
    pub(crate) const CANCEL: u8 = 0x40;
    /// Are you there?
    pub(crate) const PING: u8 = 0x41;
    /// Yes.
    pub(crate) const PONG: u8 = 0x42;
}

named! {
    /// Which of the protocols a connection speaks.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Protocol {
        /// One request, one response, in order; no handshake.
        V1 => "v1",
        /// Typed frames, any number in flight.
        V2 => "v2",
        /// The same as gRPC messages: the type is inside, a flag before the length.
        Grpc => "grpc",
    }
}

/// How a peer broke the framing; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A v2 frame without its type byte.
    #[error("a frame of length 0")]
    Empty,
    /// A frame above the protocol's limit.
    #[error("a frame of {0} bytes, above the protocol's limit")]
    TooLarge(usize),
    /// Neither protocol begins like this.
    #[error("byte 5 is {0:#04x}, and neither protocol begins with it")]
    UnknownProtocol(u8),
}

/// One whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The v2 message type; 0 in v1; gRPC's flag, 1 for compressed.
    pub kind: u8,
    /// The message.
    pub payload: &'a [u8],
    /// Bytes the frame takes with all its prefixes.
    pub size: usize,
}

impl Protocol {
    /// Tells the protocols apart by the fifth byte; `None` before it is there.
    ///
    /// # Errors
    /// Where no protocol begins like this.
    pub fn detect(received: &[u8]) -> Result<Option<Self>, FrameError> {
        match length(received) {
            Some(0) => return Err(FrameError::Empty),
            Some(size) if size > MAX_V2_BYTES => return Err(FrameError::TooLarge(size)),
            _ => {}
        }
        match received.get(PREFIX_BYTES) {
            None => Ok(None),
            Some(b'{') => Ok(Some(Self::V1)),
            Some(&kind::HANDSHAKE_REQUEST) => Ok(Some(Self::V2)),
            Some(&other) => Err(FrameError::UnknownProtocol(other)),
        }
    }

    /// The largest frame that is read, not counting the length itself.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::V1 => MAX_V1_BYTES,
            Self::V2 | Self::Grpc => MAX_V2_BYTES,
        }
    }

    /// The largest frame that is written.
    #[must_use]
    pub const fn max_answer_bytes(self) -> usize {
        match self {
            Self::V1 | Self::V2 => self.max_bytes(),
            Self::Grpc => MAX_GRPC_ANSWER_BYTES,
        }
    }

    /// Bytes before the length.
    const fn flag_bytes(self) -> usize {
        match self {
            Self::V1 | Self::V2 => 0,
            Self::Grpc => 1,
        }
    }

    /// The first whole frame of what was received; `None` where more is needed.
    ///
    /// # Errors
    /// Where the length is out of range.
    pub fn frame(self, received: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
        let Some(length) = received.get(self.flag_bytes()..).and_then(length) else {
            return Ok(None);
        };
        if length > self.max_bytes() {
            return Err(FrameError::TooLarge(length));
        }
        let prefix = self.flag_bytes() + PREFIX_BYTES;
        let size = prefix + length;
        let body = received.get(prefix..size);
        match self {
            Self::V1 => Ok(body.map(|payload| Frame {
                kind: 0,
                payload,
                size,
            })),
            Self::Grpc => Ok(body.map(|payload| Frame {
                kind: received[0],
                payload,
                size,
            })),
            Self::V2 if length == 0 => Err(FrameError::Empty),
            Self::V2 => Ok(body
                .and_then(<[u8]>::split_first)
                .map(|(&kind, payload)| Frame {
                    kind,
                    payload,
                    size,
                })),
        }
    }

    /// Appends a frame whose message `write` appends. `kind` is the v2 message
    /// type. Says whether it was within the limit; if not, `out` is as before.
    #[must_use]
    pub fn write(self, kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = out.len();
        let prefix = start + self.flag_bytes();
        let body = prefix + PREFIX_BYTES;
        out.resize(body, 0);
        if self == Self::V2 {
            out.push(kind);
        }
        write(out);
        let length = out.len() - body;
        match u32::try_from(length) {
            Ok(length_bytes) if length <= self.max_answer_bytes() => {
                out[prefix..body].copy_from_slice(&length_bytes.to_be_bytes());
                true
            }
            _ => {
                out.truncate(start);
                false
            }
        }
    }
}

fn length(received: &[u8]) -> Option<usize> {
    let prefix = received.first_chunk::<PREFIX_BYTES>()?;
    // A length beyond this machine's address space is beyond every limit too.
    Some(usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announced(length: u32, rest: &[u8]) -> Vec<u8> {
        [&length.to_be_bytes(), rest].concat()
    }

    #[test]
    fn lengths_at_and_beyond_the_limits() {
        let max = u32::try_from(MAX_V2_BYTES).unwrap();
        let frame = |length, rest: &[u8]| {
            Protocol::V2
                .frame(&announced(length, rest))
                .map(|frame| frame.is_some())
        };
        assert_eq!(frame(0, b""), Err(FrameError::Empty));
        assert_eq!(frame(1, b""), Ok(false));
        assert_eq!(frame(1, b"\x41"), Ok(true));
        assert_eq!(frame(max, b"\x10"), Ok(false));
        for length in [max + 1, u32::MAX] {
            let error = Err(FrameError::TooLarge(usize::try_from(length).unwrap()));
            assert_eq!(frame(length, b""), error);
            assert_eq!(
                Protocol::detect(&announced(length, b"")).map(|found| found.is_some()),
                error
            );
        }
        let v1 = u32::try_from(MAX_V1_BYTES).unwrap();
        assert!(Protocol::V1.frame(&announced(v1, b"{")).is_ok());
        assert!(Protocol::V1.frame(&announced(v1 + 1, b"{")).is_err());
    }

    #[test]
    fn the_fifth_byte_tells_the_protocols_apart() {
        assert_eq!(
            Protocol::detect(&announced(9, b"{")),
            Ok(Some(Protocol::V1))
        );
        assert_eq!(
            Protocol::detect(&announced(9, b"\x01")),
            Ok(Some(Protocol::V2))
        );
        assert_eq!(
            Protocol::detect(&announced(9, b"\x10")),
            Err(FrameError::UnknownProtocol(0x10))
        );
        assert_eq!(Protocol::detect(&[0, 0, 0]), Ok(None));
        assert_eq!(Protocol::detect(&[0; 4]), Err(FrameError::Empty));
    }

    #[test]
    fn a_ping_is_framed_as_the_protocol_shows() {
        let mut out = Vec::new();
        let json = br#"{"sequence":7,"timestamp_ms":1}"#;
        assert!(Protocol::V2.write(kind::PING, &mut out, |out| out.extend_from_slice(json)));
        assert_eq!(out[..7], [0, 0, 0, 0x20, 0x41, 0x7b, 0x22]);
    }

    #[test]
    fn a_frame_above_the_limit_is_not_written() {
        let mut out = b"before".to_vec();
        assert!(!Protocol::V1.write(0, &mut out, |out| out.resize(MAX_V1_BYTES + 11, b' ')));
        assert_eq!(out, b"before");
    }

    proptest! {
        /// What was written is read back, however it is cut into pieces.
        #[test]
        fn frames_read_back(
            payloads in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..50)), 0..5),
            v1 in any::<bool>(),
        ) {
            let protocol = if v1 { Protocol::V1 } else { Protocol::V2 };
            let mut bytes = Vec::new();
            for (kind, payload) in &payloads {
                prop_assert!(protocol.write(*kind, &mut bytes, |out| out.extend_from_slice(payload)));
            }
            let mut rest = bytes.as_slice();
            for (kind, payload) in &payloads {
                let frame = protocol.frame(rest).unwrap().unwrap();
                prop_assert_eq!(protocol.frame(&rest[..frame.size - 1]).unwrap(), None);
                prop_assert_eq!(frame.payload, payload.as_slice());
                prop_assert_eq!(frame.kind, if v1 { 0 } else { *kind });
                rest = &rest[frame.size..];
            }
            prop_assert!(rest.is_empty());
        }

        /// Any bytes are a frame, not enough or an error, and never a panic.
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Protocol::detect(&bytes);
            for protocol in [Protocol::V1, Protocol::V2] {
                if let Ok(Some(frame)) = protocol.frame(&bytes) {
                    prop_assert!(frame.size <= bytes.len());
                }
            }
        }
    }

    /// The flag is before the length, and clients take less than we do.
    #[test]
    fn grpc_messages_have_a_flag_and_limits_of_their_own() {
        let mut out = vec![7];
        assert!(Protocol::Grpc.write(0x20, &mut out, |out| out.extend_from_slice(b"abc")));
        assert_eq!(out, b"\x07\0\0\0\0\x03abc");
        let received = b"\x01\0\0\0\x02abc";
        for end in 0..7 {
            assert_eq!(Protocol::Grpc.frame(&received[..end]), Ok(None));
        }
        let frame = Protocol::Grpc.frame(received).unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload, frame.size), (1, &b"ab"[..], 7));
        let empty = Protocol::Grpc.frame(&[0; 5]).unwrap().unwrap();
        assert_eq!((empty.payload, empty.size), (&b""[..], 5));
        let mut large = vec![0];
        large.extend(announced(u32::MAX, b""));
        assert!(Protocol::Grpc.frame(&large).is_err());
        let mut out = Vec::new();
        let mut write = |size| Protocol::Grpc.write(0, &mut out, |out| out.resize(5 + size, 1));
        assert!(!write(MAX_GRPC_ANSWER_BYTES + 1));
        assert!(write(MAX_GRPC_ANSWER_BYTES));
    }
}
