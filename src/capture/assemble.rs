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

use super::stream::{Cutter, unreadable};
use super::{Format, Item, Piece, Pieces, RawTransaction, Remark, stable_hash};

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

/// Tells what a record is.
pub(super) type Role = fn(&Piece) -> RecordRole;

/// What a capture gives, one after the other.
pub(super) type Items = Box<dyn Iterator<Item = Item> + Send>;

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
struct Assembler<C> {
    cutter: C,
    role: Option<Role>,
    file: Arc<str>,
    format: Format,
    open: VecDeque<Open>,
    /// Serial numbers of the open transactions, by id.
    by_id: HashMap<Bytes, u64>,
    next_serial: u64,
    held: usize,
    records: u64,
    ended: bool,
}

/// The groups of a stream's records. With no `role` each record is a
/// transaction of its own.
pub(super) fn assemble(
    cutter: impl Cutter + Send + 'static,
    role: Option<Role>,
    format: Format,
) -> Items {
    Box::new(Assembler {
        file: Arc::clone(&cutter.stream().file),
        cutter,
        role,
        format,
        open: VecDeque::new(),
        by_id: HashMap::new(),
        next_serial: 0,
        held: 0,
        records: 0,
        ended: false,
    })
}

impl<C> Assembler<C> {
    fn frame(&self, key: u64, pieces: Pieces) -> RawTransaction {
        RawTransaction {
            file: Arc::clone(&self.file),
            format: self.format,
            key,
            pieces,
            ready: None,
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

    fn pop(&mut self) -> Option<RawTransaction> {
        let open = self.open.pop_front()?;
        self.held -= open.size;
        if self.by_id.get(&open.id) == Some(&open.serial) {
            self.by_id.remove(&open.id);
        }
        Some(self.frame(stable_hash(&open.id), open.pieces))
    }
}

impl<C: Cutter> Iterator for Assembler<C> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if self.is_due() {
                return self.pop().map(Item::Transaction);
            }
            if self.ended {
                return None;
            }
            let piece = match self.cutter.next_record() {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(unusable))) => return Some(Item::Unusable(unusable)),
                Ok(None) => {
                    self.ended = true;
                    continue;
                }
                Err(error) => {
                    self.ended = true;
                    let offset = self.cutter.offset();
                    let unusable = self.cutter.stream().unusable(offset, unreadable(&error));
                    return Some(Item::Unusable(unusable));
                }
            };
            let number = piece.record.to_le_bytes();
            let Some(role) = self.role else {
                let key = stable_hash(&[number, piece.offset.to_le_bytes()].concat());
                return Some(Item::Transaction(self.frame(key, smallvec![piece])));
            };
            self.records += 1;
            match role(&piece) {
                RecordRole::Of(id, part) => self.add(id, part, piece),
                RecordRole::Alone => self.begin(Bytes::copy_from_slice(&number), piece, true),
                RecordRole::Skip(remark) => return Some(Item::Skipped(remark)),
            }
        }
    }
}
