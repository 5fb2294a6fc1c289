//! Records of one exchange, brought together by their id.
//!
//! Records of several exchanges may be interleaved, as a server's own
//! concurrency interleaves them, and several exchanges may share an id
//! ([`Progress`] tells them apart). An exchange is handed on when nothing can
//! follow in it any more, or when too much is held back for it: memory stays
//! bounded, and the order is that of first records. What follows in it after
//! that is an exchange of its own, with a remark.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;

use super::progress::{Part, Progress};
use super::stream::{Cutter, unreadable};
use super::{Format, Item, Piece, Pieces, RawTransaction, Remark, stable_hash};

/// Records of others that may lie between two records of an exchange.
const WINDOW_RECORDS: u64 = 4096;
/// Bytes of others that may be held back while an exchange may go on.
const WINDOW_BYTES: usize = 4 << 20;
/// Bytes of one exchange.
const MAX_EXCHANGE_BYTES: usize = 64 << 20;
/// Exchanges that were handed on of which it is known how far they had come.
const REMEMBERED: usize = 1 << 14;

/// What a record is, found out without decoding it.
pub(super) enum RecordRole {
    /// Part of an exchange with this id.
    Of {
        id: Bytes,
        part: Part,
        /// Nothing comes after it, as after a refusal.
        is_last: bool,
    },
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
    progress: Progress,
    note: Option<Remark>,
    /// The record count when its newest record came.
    newest: u64,
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
    /// Hashes of ids, each at a place of its own choice, where the newest stays.
    handed_on: Vec<(u64, Progress)>,
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
        handed_on: Vec::new(),
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
            note: None,
            ready: None,
        }
    }

    fn begin(&mut self, id: Bytes, piece: Piece, (progress, note): (Progress, Option<Remark>)) {
        let size = piece.bytes.len();
        self.held += size;
        self.open.push_back(Open {
            serial: self.next_serial,
            id,
            pieces: smallvec![piece],
            size,
            progress,
            note,
            newest: self.records,
        });
        self.next_serial += 1;
    }

    fn add(&mut self, id: Bytes, piece: Piece, (part, is_last): (Part, bool)) {
        let records = self.records;
        let size = piece.bytes.len();
        let known = self.by_id.get(&id).copied();
        let mut rest = None;
        if let Some(open) = known.and_then(|serial| self.at(serial)) {
            if open.progress.allows(part) {
                open.progress.advance(part, is_last);
                open.newest = records;
                open.size += size;
                open.pieces.push(piece);
                self.held += size;
                return;
            }
            open.progress.end();
        } else {
            rest = self.before_rest(&id, part);
        }
        let note = rest.map(|_| Remark::ExchangeCut);
        let mut progress = rest.unwrap_or_default();
        progress.advance(part, is_last);
        self.by_id.insert(id.clone(), self.next_serial);
        self.begin(id, piece, (progress, note));
    }

    /// How far an exchange had come that was handed on and that this part
    /// belongs to.
    fn before_rest(&self, id: &[u8], part: Part) -> Option<Progress> {
        if part.is_first() {
            return None;
        }
        let key = stable_hash(id);
        let (known, progress) = self.handed_on.get(remembered_at(key))?;
        (*known == key && progress.allows(part)).then_some(*progress)
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
                || open.progress.is_over()
                || self.held - open.size > WINDOW_BYTES
                || open.size > MAX_EXCHANGE_BYTES
                || self.records - open.newest > WINDOW_RECORDS
        })
    }

    fn pop(&mut self) -> Option<RawTransaction> {
        let open = self.open.pop_front()?;
        self.held -= open.size;
        if self.by_id.get(&open.id) == Some(&open.serial) {
            self.by_id.remove(&open.id);
        }
        let key = stable_hash(&open.id);
        if !self.ended && self.role.is_some() {
            self.handed_on.resize(REMEMBERED, (0, Progress::default()));
            if let Some(place) = self.handed_on.get_mut(remembered_at(key)) {
                *place = (key, open.progress);
            }
        }
        let mut frame = self.frame(key, open.pieces);
        frame.note = open.note;
        Some(frame)
    }
}

/// The place in a list of [`REMEMBERED`].
fn remembered_at(key: u64) -> usize {
    usize::try_from(key % REMEMBERED as u64).unwrap_or(0)
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
                RecordRole::Of { id, part, is_last } => self.add(id, piece, (part, is_last)),
                RecordRole::Alone => {
                    let mut alone = Progress::default();
                    alone.end();
                    self.begin(Bytes::copy_from_slice(&number), piece, (alone, None));
                }
                RecordRole::Skip(remark) => return Some(Item::Skipped(remark)),
            }
        }
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
