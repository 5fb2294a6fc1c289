//! Records of one exchange, brought together by their id.
//!
//! Records of several exchanges may be interleaved, as a server's own
//! concurrency interleaves them, and several exchanges may share an id:
//! [`Progress`] and [`Heads`] tell them apart. A record that may be of several
//! is an exchange of its own, with a remark. An exchange is handed on when
//! nothing can follow in it any more, or when too much is held back for it:
//! memory stays bounded, and the order is that of first records. What follows in
//! it after that is an exchange of its own, too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::heads::{Fit, Heads};
use super::progress::{Part, Progress};
use super::stream::{Cutter, unreadable};
use super::{Format, Item, Piece, Pieces, RawTransaction, Remark, stable_hash};

/// Records of others that may lie between two records of an exchange.
const WINDOW_RECORDS: u64 = 4096;
/// Bytes that are held back, of all exchanges that may go on and of those
/// behind them.
const MAX_HELD_BYTES: usize = 96 << 20;
/// Open exchanges of one id among which the one of a record is looked for, the
/// newest: the work for a record stays bounded.
const MAX_ALIKE: usize = 256;
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
    /// No record of the format, so it may be a lost part of the exchanges with
    /// these ids; of any exchange, where it names none.
    Unreadable(Vec<Bytes>),
    /// Nothing to replay.
    Skip(Remark),
}

/// What a format says of its records.
#[derive(Clone, Copy)]
pub(super) struct Roles {
    /// Tells what a record is.
    pub(super) role: fn(&Piece) -> RecordRole,
    /// What tells exchanges apart that share an id.
    pub(super) alike: SameId,
}

/// What tells exchanges apart that share an id.
#[derive(Clone, Copy)]
pub(super) enum SameId {
    /// What their records say of the heads.
    Heads(HeadsOf),
    /// Their order: ids are of connections, and answers come in the order of their
    /// requests.
    InOrder,
    /// Ids are the capture's own and begin anew: a record that cannot follow ends
    /// what came before.
    OneAtATime,
}

/// What a capture gives, one after the other.
pub(super) type Items = Box<dyn Iterator<Item = Item> + Send>;

struct Open {
    serial: u64,
    id: Bytes,
    pieces: Pieces,
    size: usize,
    progress: Progress,
    /// What its records say, once somebody asked.
    heads: Option<Heads>,
    note: Option<Remark>,
    /// The record count when its newest record came.
    newest: u64,
}

/// Brings records together; see the module's description.
struct Assembler<C> {
    cutter: C,
    roles: Option<Roles>,
    file: Arc<str>,
    format: Format,
    open: VecDeque<Open>,
    /// The exchanges that may go on, by id.
    by_id: HashMap<Bytes, Alike>,
    next_serial: u64,
    /// Hashes of ids, each at a place of its own choice, where the newest stays.
    handed_on: Vec<(u64, Progress)>,
    held: usize,
    records: u64,
    ended: bool,
}

/// Tells what a record says of the heads of its exchange.
pub(super) type HeadsOf = fn(&Piece) -> Heads;

/// Serial numbers of the open exchanges of one id, the newest last.
#[derive(Default)]
struct Alike {
    unanswered: SmallVec<[u64; 1]>,
    /// Those with a response.
    answered: SmallVec<[u64; 1]>,
}

impl Alike {
    fn add(&mut self, serial: u64, progress: Progress) {
        let list = if progress.has_begun(ANSWER) {
            &mut self.answered
        } else {
            &mut self.unanswered
        };
        list.push(serial);
    }

    fn remove(&mut self, serial: u64) {
        for list in [&mut self.unanswered, &mut self.answered] {
            if let Some(at) = list.iter().position(|known| *known == serial) {
                list.remove(at);
            }
        }
    }

    /// Those that this part may be of.
    fn takers(&self, part: Part) -> SmallVec<[u64; 4]> {
        let answered: &[u64] = if part == ANSWER { &[] } else { &self.answered };
        let lists = [&*self.unanswered, answered].into_iter();
        let newest = lists.flat_map(|list| list.iter().rev().take(MAX_ALIKE));
        newest.copied().collect()
    }

    fn newest(&self) -> Option<u64> {
        self.unanswered.last().max(self.answered.last()).copied()
    }

    fn is_empty(&self) -> bool {
        self.unanswered.is_empty() && self.answered.is_empty()
    }
}

/// What an exchange has one of.
const ANSWER: Part = Part::ResponseHead;

/// Where a record belongs.
enum Home {
    /// To the open exchange with this serial number.
    Open(u64),
    /// To none that is open.
    New,
    /// To one of several.
    Unclear,
}

/// The groups of a stream's records. With no `roles` each record is a
/// transaction of its own.
pub(super) fn assemble(
    cutter: impl Cutter + Send + 'static,
    roles: Option<Roles>,
    format: Format,
) -> Items {
    Box::new(Assembler {
        file: Arc::clone(&cutter.stream().file),
        cutter,
        roles,
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
        // Many small ones take more than their records.
        let size = piece.bytes.len() + size_of::<Open>();
        self.held += size;
        if !progress.is_over() {
            let alike = self.by_id.entry(id.clone()).or_default();
            alike.add(self.next_serial, progress);
        }
        self.open.push_back(Open {
            serial: self.next_serial,
            id,
            pieces: smallvec![piece],
            size,
            progress,
            heads: None,
            note,
            newest: self.records,
        });
        self.next_serial += 1;
    }

    fn begin_alone(&mut self, number: &[u8], piece: Piece) {
        let mut alone = Progress::default();
        alone.end();
        self.begin(Bytes::copy_from_slice(number), piece, (alone, None));
    }

    fn add(&mut self, id: Bytes, piece: Piece, (part, is_last): (Part, bool)) {
        let mut said = None;
        let home = match self.roles.map(|roles| roles.alike) {
            Some(SameId::Heads(_) | SameId::InOrder) if part.is_first() => Home::New,
            Some(SameId::Heads(heads)) => {
                let said = &*said.insert(heads(&piece));
                self.home(&id, part, (heads, said))
            }
            Some(SameId::InOrder) => self.oldest(&id, part),
            Some(SameId::OneAtATime) | None => {
                let newest = self.by_id.get(&id).and_then(Alike::newest);
                newest.map_or(Home::New, |newest| self.goes_on(newest, part))
            }
        };
        let mut rest = None;
        let note = match home {
            Home::Open(serial) => {
                self.join(serial, piece, (part, is_last));
                if let (Some(open), Some(said)) = (self.at(serial), said) {
                    open.heads.get_or_insert_default().learn(said);
                }
                return;
            }
            Home::New => {
                rest = self.before_rest(&id, part);
                rest.map(|_| Remark::ExchangeCut)
            }
            Home::Unclear => Some(Remark::ExchangeUnclear),
        };
        let mut progress = rest.unwrap_or_default();
        progress.advance(part, is_last);
        self.begin(id, piece, (progress, note));
    }

    /// Where a record belongs that says this of its heads.
    fn home(&mut self, id: &[u8], part: Part, (heads, said): (HeadsOf, &Heads)) -> Home {
        let Some(alike) = self.by_id.get(id) else {
            return Home::New;
        };
        let mut best = (Fit::No, false);
        let mut home = Home::New;
        for serial in alike.takers(part) {
            let Some(open) = self.at(serial).filter(|open| open.progress.allows(part)) else {
                continue;
            };
            let known = open
                .heads
                .get_or_insert_with(|| open.pieces.first().map(heads).unwrap_or_default());
            // A response that has begun goes on before another one begins.
            let fit = (known.fit(said), open.progress.has_begun(part));
            if fit.0 == Fit::No || fit < best {
                continue;
            }
            home = if fit == best {
                Home::Unclear
            } else {
                Home::Open(serial)
            };
            best = fit;
        }
        home
    }

    /// The same where nothing but the order tells.
    fn oldest(&mut self, id: &[u8], part: Part) -> Home {
        let alike = self.by_id.get(id).map(|alike| alike.unanswered.iter());
        let open: SmallVec<[u64; 4]> = alike
            .into_iter()
            .flatten()
            .take(MAX_ALIKE)
            .copied()
            .collect();
        let takes = |serial: &u64| self.at(*serial).is_some_and(|it| it.progress.allows(part));
        open.into_iter().find(takes).map_or(Home::New, Home::Open)
    }

    /// The same where there is but one at a time.
    fn goes_on(&mut self, newest: u64, part: Part) -> Home {
        match self.at(newest) {
            Some(open) if open.progress.allows(part) => Home::Open(newest),
            Some(open) => {
                open.progress.end();
                Home::New
            }
            None => Home::New,
        }
    }

    /// Adds a record to an open exchange.
    fn join(&mut self, serial: u64, piece: Piece, (part, is_last): (Part, bool)) {
        let (records, size) = (self.records, piece.bytes.len());
        let Some(open) = self.at(serial) else { return };
        let before = open.progress;
        open.progress.advance(part, is_last);
        open.newest = records;
        open.size += size;
        open.pieces.push(piece);
        let (id, now) = (open.id.clone(), open.progress);
        self.held += size;
        if now.is_over() {
            self.forget(&id, serial);
        } else if now.has_begun(ANSWER) != before.has_begun(ANSWER)
            && let Some(alike) = self.by_id.get_mut(&id)
        {
            alike.remove(serial);
            alike.add(serial, now);
        }
    }

    /// Nothing follows in this exchange any more.
    fn forget(&mut self, id: &[u8], serial: u64) {
        if let Some(alike) = self.by_id.get_mut(id) {
            alike.remove(serial);
            if alike.is_empty() {
                self.by_id.remove(id);
            }
        }
    }

    /// A part of the open exchanges with these ids may be lost, or of all of them.
    fn lose_part(&mut self, ids: &[Bytes]) {
        let is_any = ids.is_empty();
        let open = self.open.iter_mut().filter(|it| !it.progress.is_over());
        for open in open.filter(|it| is_any || ids.contains(&it.id)) {
            open.note.get_or_insert(Remark::BodyTruncated);
        }
    }

    /// Nothing but its order would tell that a record of an exchange is missing.
    fn is_uncounted(&self) -> bool {
        let alike = self.roles.map(|roles| roles.alike);
        matches!(alike, Some(SameId::OneAtATime))
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
                || self.held > MAX_HELD_BYTES
                || self.records - open.newest > WINDOW_RECORDS
        })
    }

    fn pop(&mut self) -> Option<RawTransaction> {
        let open = self.open.pop_front()?;
        self.held -= open.size;
        self.forget(&open.id, open.serial);
        let key = stable_hash(&open.id);
        if !self.ended && self.roles.is_some() {
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
                Ok(Some(Err(unusable))) => {
                    if self.is_uncounted() {
                        self.lose_part(&[]);
                    }
                    return Some(Item::Unusable(unusable));
                }
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
            let number = self.cutter.stream().key_of(&piece);
            let Some(Roles { role, .. }) = self.roles else {
                let key = stable_hash(&number);
                return Some(Item::Transaction(self.frame(key, smallvec![piece])));
            };
            self.records += 1;
            match role(&piece) {
                RecordRole::Of { id, part, is_last } => self.add(id, piece, (part, is_last)),
                RecordRole::Alone => self.begin_alone(&number, piece),
                RecordRole::Unreadable(ids) => {
                    self.lose_part(&ids);
                    self.begin_alone(&number, piece);
                }
                RecordRole::Skip(remark) => return Some(Item::Skipped(remark)),
            }
        }
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
