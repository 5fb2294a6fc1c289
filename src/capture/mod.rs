//! Recorded input: capture files of seven formats become transactions.
//!
//! In: files, folders or standard input, plain or gzip. Out, in two stages:
//!
//! ```text
//!   source ──> detect ──> frames: one reader cuts the stream into records
//!                           │     (bounded memory, whatever the file's size)
//!                           ▼
//!                         decode: any thread turns records into a Transaction
//! ```
//!
//! A record that cannot be used is an [`Unusable`] with file, record number,
//! byte offset and reason. Nothing is dropped without being counted.

mod access_log;
mod assemble;
mod detect;
mod envoy_tap;
mod format;
mod frames;
mod ftw;
mod gor;
mod har;
mod headers;
mod http1;
mod jsonl;
mod parts;
mod redact;
mod source;
mod transaction;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::parts::{Exchange, Half};

pub use access_log::FieldMap;
pub use format::{Format, Remark};
pub use ftw::Expectation;
pub(crate) use jsonl::is_record;
pub use jsonl::{RecordLine, write_record};
pub use redact::{Found, Redacted, Redactor, key_of, may_hold_secret};
pub use source::{Capture, Opened, discover, is_capture};
pub use transaction::{CapturedStep, Recorded, Transaction};

/// A documentation address (RFC 5737), for formats that know no client.
pub const DEFAULT_CLIENT_IP: &str = "192.0.2.1";

/// Bytes of one record; what is longer is skipped and named.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 << 20;

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, `-` for standard input.
    #[serde(with = "shared_text")]
    pub file: Arc<str>,
    /// Which record of the file, from 1.
    pub record: u64,
    /// Where it begins, in bytes of the uncompressed file.
    pub offset: u64,
}

/// A file's name stands in every place, so it is shared.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Arc<str>, D::Error> {
        Ok(String::deserialize(reader)?.into())
    }
}

/// A record that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unusable {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What was expected and found.
    pub why: String,
}

/// One record's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which record of the file, from 1.
    pub record: u64,
    /// Where it begins in the uncompressed file.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// Records of one transaction; most have no more than an exchange has heads
/// and bodies.
pub type Pieces = SmallVec<[Piece; 4]>;

/// The records of one transaction, not yet decoded.
#[derive(Debug)]
pub struct Frame {
    /// The file.
    pub file: Arc<str>,
    /// How to decode it.
    pub format: Format,
    /// Equal for the same transaction on every run: a hash of its correlation
    /// id, or of its record number where ids are not known before decoding.
    pub key: u64,
    /// Its records in order; empty where it came decoded.
    pub pieces: Pieces,
    /// The transaction, where the format is read as a whole.
    pub ready: Option<Box<Transaction<'static>>>,
}

impl Frame {
    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Gives its records memory of their own, where it is to be kept while
    /// others of the same block of the file are not.
    pub fn detach(&mut self) {
        for piece in &mut self.pieces {
            piece.bytes = Bytes::copy_from_slice(&piece.bytes);
        }
    }

    /// Where its first record stands.
    #[must_use]
    pub fn place(&self) -> Place {
        if let Some(ready) = &self.ready {
            return ready.place.clone();
        }
        let (record, offset) = self
            .pieces
            .first()
            .map_or((0, 0), |piece| (piece.record, piece.offset));
        Place {
            file: Arc::clone(&self.file),
            record,
            offset,
        }
    }

    fn unusable(&self, why: String) -> Unusable {
        Unusable {
            place: self.place(),
            why,
        }
    }
}

/// What the reader found next.
#[derive(Debug)]
pub enum Item {
    /// The records of one transaction.
    Frame(Frame),
    /// A record, or the rest of a file, that cannot be used.
    Unusable(Unusable),
    /// A record that is well-formed and is no traffic to replay.
    Skipped(Remark),
}

/// How records are decoded.
#[derive(Debug, Clone)]
pub struct DecodeSettings {
    /// The client's address where the format knows none.
    pub client_ip: String,
    /// Which fields of a JSON access log mean what.
    pub fields: FieldMap,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        Self {
            client_ip: DEFAULT_CLIENT_IP.to_owned(),
            fields: FieldMap::default(),
        }
    }
}

/// Decodes a frame's records.
///
/// # Errors
/// Which record cannot be used, and why.
pub fn decode<'f>(
    frame: &'f mut Frame,
    settings: &DecodeSettings,
) -> Result<Transaction<'f>, Unusable> {
    if let Some(ready) = frame.ready.take() {
        return Ok(*ready);
    }
    let frame = &*frame;
    match frame.format {
        Format::Jsonl => jsonl::decode(frame),
        Format::Har => har::decode(frame, settings),
        Format::EnvoyTap => envoy_tap::decode(frame, settings),
        Format::Gor => gor::decode(frame, settings),
        Format::AccessLog | Format::JsonLog => access_log::decode(frame, settings),
        Format::Ftw => Err(frame.unusable("a test file is decoded as a whole".to_owned())),
    }
}

/// The file's name without folders and extension.
fn stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    match name.split('.').next() {
        Some("-") => "stdin",
        Some(stem) if !stem.is_empty() => stem,
        _ => name,
    }
}

/// A hash that is the same on every machine and in every release (FNV-1a with
/// a finalizer that spreads it): shards and samples depend on it.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
