//! Records of one transaction, brought together by their id.
//!
//! Records of several transactions may be interleaved, as a server's own
//! concurrency interleaves them. A transaction is handed on when its format
//! says that it is complete, or when more than a window of records came since
//! its first: memory stays bounded, and the order is that of first records.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::frames::Cut;
use super::{Format, Frame, Item, Piece, Pieces, Remark, Unusable, stable_hash};

/// Records that may lie between the first and the last of a transaction.
const WINDOW_RECORDS: u64 = 4096;
/// Bytes that may be held back for records still to come.
const WINDOW_BYTES: usize = 4 << 20;

/// How a record takes part in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Begins one, even where the same id is still open.
    First,
    /// Follows.
    Next,
    /// Follows, and nothing comes after it.
    Last,
}

/// What a record is, found out without decoding it.
pub(super) enum RecordRole {
    /// Part of the transaction with this id.
    Of(Bytes, Part),
    /// A transaction of its own, or not to be understood: decoding will say.
    Alone,
    /// Nothing to replay.
    Skip(Remark),
}

struct Open {
    serial: u64,
    id: Bytes,
    pieces: Pieces,
    size: usize,
    complete: bool,
    /// The record count when it began.
    began: u64,
}

/// Brings records together; see the module's description.
pub(super) struct Assembler<I, S> {
    cuts: I,
    sort: S,
    file: Arc<str>,
    format: Format,
    open: VecDeque<Open>,
    /// Serial numbers of the open transactions, by id.
    by_id: HashMap<Bytes, u64>,
    next_serial: u64,
    held: usize,
    records: u64,
    ended: bool,
    refused: Option<Unusable>,
}

impl<I: Iterator<Item = Cut>, S: FnMut(&Piece) -> RecordRole> Assembler<I, S> {
    pub(super) fn new(cuts: I, sort: S, file: Arc<str>, format: Format) -> Self {
        Self {
            cuts,
            sort,
            file,
            format,
            open: VecDeque::new(),
            by_id: HashMap::new(),
            next_serial: 0,
            held: 0,
            records: 0,
            ended: false,
            refused: None,
        }
    }

    fn begin(&mut self, id: Bytes, piece: Piece, complete: bool) {
        let serial = self.next_serial;
        self.next_serial += 1;
        if !complete {
            self.by_id.insert(id.clone(), serial);
        }
        let size = piece.bytes.len();
        self.held += size;
        self.open.push_back(Open {
            serial,
            id,
            pieces: smallvec![piece],
            size,
            complete,
            began: self.records,
        });
    }

    fn add(&mut self, id: Bytes, part: Part, piece: Piece) {
        if part == Part::First {
            if let Some(before) = self.by_id.remove(&id).and_then(|serial| self.at(serial)) {
                before.complete = true;
            }
            self.begin(id, piece, false);
            return;
        }
        let size = piece.bytes.len();
        let Some(open) = self
            .by_id
            .get(&id)
            .copied()
            .and_then(|serial| self.at(serial))
        else {
            self.begin(id, piece, part == Part::Last);
            return;
        };
        open.pieces.push(piece);
        open.size += size;
        open.complete |= part == Part::Last;
        if part == Part::Last {
            self.by_id.remove(&id);
        }
        self.held += size;
    }

    /// The open transaction with this serial number: they stand in order and
    /// without gaps.
    fn at(&mut self, serial: u64) -> Option<&mut Open> {
        let first = self.open.front()?.serial;
        let index = usize::try_from(serial.checked_sub(first)?).ok()?;
        self.open.get_mut(index)
    }

    fn is_due(&self) -> bool {
        self.open.front().is_some_and(|open| {
            self.ended
                || open.complete
                || self.held > WINDOW_BYTES
                || self.records - open.began > WINDOW_RECORDS
        })
    }

    fn pop(&mut self) -> Option<Frame> {
        let open = self.open.pop_front()?;
        self.held -= open.size;
        if self.by_id.get(&open.id) == Some(&open.serial) {
            self.by_id.remove(&open.id);
        }
        Some(Frame {
            file: Arc::clone(&self.file),
            format: self.format,
            key: stable_hash(&open.id),
            pieces: open.pieces,
            ready: None,
        })
    }
}

impl<I: Iterator<Item = Cut>, S: FnMut(&Piece) -> RecordRole> Iterator for Assembler<I, S> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.is_due() {
                return self.pop().map(Item::Frame);
            }
            if let Some(refused) = self.refused.take() {
                return Some(Item::Unusable(refused));
            }
            if self.ended {
                return None;
            }
            match self.cuts.next() {
                None => self.ended = true,
                Some(Err(unusable)) => return Some(Item::Unusable(unusable)),
                Some(Ok(piece)) => {
                    self.records += 1;
                    match (self.sort)(&piece) {
                        RecordRole::Of(id, part) => self.add(id, part, piece),
                        RecordRole::Alone => {
                            let id = Bytes::copy_from_slice(&piece.record.to_le_bytes());
                            self.begin(id, piece, true);
                        }
                        RecordRole::Skip(remark) => return Some(Item::Skipped(remark)),
                    }
                }
            }
        }
    }
}

/// A frame for each record, for formats whose records are transactions.
pub(super) fn each(
    cuts: impl Iterator<Item = Cut> + Send,
    file: Arc<str>,
    format: Format,
) -> impl Iterator<Item = Item> + Send {
    cuts.map(move |cut| match cut {
        Ok(piece) => Item::Frame(Frame {
            file: Arc::clone(&file),
            format,
            key: stable_hash(&[piece.record.to_le_bytes(), piece.offset.to_le_bytes()].concat()),
            pieces: smallvec![piece],
            ready: None,
        }),
        Err(unusable) => Item::Unusable(unusable),
    })
}
