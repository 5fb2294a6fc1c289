//! Where a record stands, its bytes, and why it cannot be used.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

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
pub(crate) type Pieces = SmallVec<[Piece; 4]>;

/// The file's name without folders and extension.
pub(super) fn stem(file: &str) -> &str {
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
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
