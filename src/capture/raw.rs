//! The records of one transaction, and how they are decoded.

use std::sync::Arc;

use bytes::Bytes;

use super::{FieldMap, Format, Piece, Pieces, Place, Remark, Transaction, Unusable};
use crate::event::{DEFAULT_CLIENT_IP, bare_ip};

/// The records of one transaction, not yet decoded.
#[derive(Debug)]
pub struct RawTransaction {
    /// The file.
    pub file: Arc<str>,
    /// How to decode it.
    pub format: Format,
    /// Equal for the same transaction on every run: a hash of its correlation
    /// id, or of its record number where ids are not known before decoding.
    pub key: u64,
    /// Its records in order; empty where it came decoded.
    pub pieces: Pieces,
    /// What bringing its records together found.
    pub note: Option<Remark>,
    /// The transaction, where the format is read as a whole.
    pub ready: Option<Box<Transaction<'static>>>,
}

impl RawTransaction {
    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let records = self.pieces.iter().map(|piece| piece.bytes.len());
        let bodies = self.ready.iter().map(|ready| ready.body_bytes());
        records.chain(bodies).sum()
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

    /// Where one of its records stands.
    pub(super) fn place_of(&self, piece: &Piece) -> Place {
        Place {
            file: Arc::clone(&self.file),
            record: piece.record,
            offset: piece.offset,
        }
    }

    /// One of its records cannot be used.
    pub(super) fn unusable_at(&self, piece: &Piece, why: String) -> Unusable {
        Unusable {
            place: self.place_of(piece),
            why,
        }
    }

    pub(super) fn unusable(&self, why: String) -> Unusable {
        Unusable {
            place: self.place(),
            why,
        }
    }
}

/// What decoding a transaction's records gave.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The transaction of those that can be used, if there is one.
    pub transaction: Option<Transaction<'a>>,
    /// Those that cannot.
    pub unusable: Vec<Unusable>,
}

impl From<Transaction<'static>> for Decoded<'_> {
    fn from(transaction: Transaction<'static>) -> Self {
        Self {
            transaction: Some(transaction),
            unusable: Vec::new(),
        }
    }
}

/// What the reader found next.
#[derive(Debug)]
pub enum Item {
    /// The records of one transaction.
    Transaction(RawTransaction),
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
    /// A time, in nanoseconds since 1970, that all records are put at.
    pub at_ns: Option<i64>,
}

impl DecodeSettings {
    /// The address that a capture names, or the one for those that name none.
    pub(super) fn client_ip(&self, named: Option<&str>) -> String {
        bare_ip(named.unwrap_or(&self.client_ip))
    }
}

impl Default for DecodeSettings {
    fn default() -> Self {
        Self {
            client_ip: DEFAULT_CLIENT_IP.to_owned(),
            fields: FieldMap::default(),
            at_ns: None,
        }
    }
}
