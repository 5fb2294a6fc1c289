//! Reading captures and dealing their transactions out.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;

use super::ordered::Ordered;
use super::report::CaptureInfo;
use super::tally::Tally;
use super::{
    BATCHES_AHEAD, EPOCH_BYTES, EPOCH_TRANSACTIONS, LANES, Match, ReplaySettings, Selection, Watch,
};
use crate::abi::Abi;
use crate::capture::{
    Capture, DecodeSettings, Decoded, Format, Item, Opened, Pieces, Place, RawTransaction,
    Transaction, Unusable, decode, stable_hash,
};
use crate::digest;
use crate::error::Error;
use crate::policy::Policy;

/// How long a paced replay sleeps, and one that reads a stream waits, before it
/// looks whether it is to stop.
const NAP: Duration = Duration::from_millis(50);
/// Items of a stream that are read ahead, and their bytes.
const STREAM_ITEMS: usize = 64;
const STREAM_BYTES: usize = 16 << 20;

/// Captures that are read one after the other.
pub(super) struct Reading<'a> {
    paths: std::slice::Iter<'a, Capture>,
    settings: &'a ReplaySettings,
    watch: &'a Watch,
    opened: Option<Source>,
    /// The files that were opened.
    pub(super) captures: Vec<CaptureInfo>,
    /// Of a shard: the hash of what was read of each.
    pub(super) digests: Vec<String>,
    digest: Option<Sha256>,
}

/// Where the next item comes from.
enum Source {
    File(Opened),
    /// A thread that reads what may give nothing for hours.
    Stream(Receiver<Told>, Ahead),
}

/// Room for the bytes that a stream's thread reads ahead.
struct Ahead(Arc<Room>);

impl Drop for Ahead {
    /// Nobody takes them any more: the thread must not wait for that.
    fn drop(&mut self) {
        self.0.open();
    }
}

/// What such a thread tells.
enum Told {
    Opened(Arc<str>, Option<Format>),
    Item(Item),
    Failed(Error),
    /// Without it the thread did not get to the end.
    Ended,
}

impl Told {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Item(Item::Transaction(frame)) => frame.size_bytes(),
            Self::Opened(..) | Self::Item(_) | Self::Failed(_) | Self::Ended => 0,
        }
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        captures: &'a [Capture],
        settings: &'a ReplaySettings,
        watch: &'a Watch,
    ) -> Self {
        Self {
            paths: captures.iter(),
            settings,
            watch,
            opened: None,
            captures: Vec::new(),
            digests: Vec::new(),
            digest: None,
        }
    }

    /// Opens the next capture, if there is one.
    fn open_next(&mut self) -> Result<Option<Source>, Error> {
        let Some(capture) = self.paths.next() else {
            return Ok(None);
        };
        let (format, most) = (self.settings.format, self.settings.max_record);
        if capture.size_bytes.is_some() {
            let opened = capture.open(format, most, &self.watch.read_bytes)?;
            self.begin(&opened.file, opened.format);
            return Ok(Some(Source::File(opened)));
        }
        let (tell, told) = std::sync::mpsc::sync_channel(STREAM_ITEMS);
        let room = Arc::new(Room::new(STREAM_BYTES));
        let ahead = Ahead(Arc::clone(&room));
        let (capture, read) = (capture.clone(), Arc::clone(&self.watch.read_bytes));
        let thread = move || {
            let opened = match capture.open(format, most, &read) {
                Ok(opened) => opened,
                Err(error) => return drop(tell.send(Told::Failed(error))),
            };
            let begun = Told::Opened(Arc::clone(&opened.file), opened.format);
            let all = std::iter::once(begun).chain(opened.map(Told::Item));
            let all = all.chain(std::iter::once(Told::Ended));
            // Nobody listens any more where the replay ended early.
            for told in all {
                room.take(told.size_bytes());
                if tell.send(told).is_err() {
                    return;
                }
            }
        };
        // It is not joined: it may wait for its stream for ever.
        std::thread::Builder::new()
            .name("replay-stream".to_owned())
            .spawn(thread)
            .map_err(|source| Error::Host {
                what: "cannot start a thread",
                source: source.into(),
            })?;
        Ok(Some(Source::Stream(told, ahead)))
    }

    fn begin(&mut self, file: &str, format: Option<Format>) {
        self.captures.push(CaptureInfo {
            file: file.to_owned(),
            format,
            loses: format.and_then(|format| format.loses().map(str::to_owned)),
        });
        self.digest = self.settings.selection.shard.map(|_| Sha256::default());
    }

    /// The next item; nothing at the end, or where the replay is to stop while
    /// it waits for a stream.
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            let told = match &mut self.opened {
                None => {
                    self.opened = self.open_next()?;
                    if self.opened.is_none() {
                        return Ok(None);
                    }
                    continue;
                }
                Some(Source::File(opened)) => opened.next().map(Told::Item),
                Some(Source::Stream(told, Ahead(room))) => match told.recv_timeout(NAP) {
                    Ok(told) => {
                        room.give(told.size_bytes());
                        Some(told)
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Error::Host {
                            what: "cannot read a capture to its end",
                            source: "the thread that reads it panicked".into(),
                        });
                    }
                    Err(RecvTimeoutError::Timeout) if self.watch.stop.load(Ordering::Relaxed) => {
                        return Ok(None);
                    }
                    Err(RecvTimeoutError::Timeout) => continue,
                },
            };
            match told {
                Some(Told::Item(item)) => {
                    if let Some(digest) = &mut self.digest {
                        add_to(digest, &item);
                    }
                    return Ok(Some(item));
                }
                Some(Told::Opened(file, format)) => self.begin(&file, format),
                Some(Told::Failed(error)) => return Err(error),
                Some(Told::Ended) | None => {
                    self.end();
                    self.opened = None;
                }
            }
        }
    }

    /// Notes what was read of a capture.
    fn end(&mut self) {
        let digest = self.digest.take();
        self.digests.extend(digest.map(digest::sha256_text));
    }
}

/// What is read is part of what tells captures apart: their records, with their
/// places, whatever they are packed in.
fn add_to(digest: &mut Sha256, item: &Item) {
    match item {
        Item::Transaction(frame) => {
            for piece in &frame.pieces {
                digest.update(piece.record.to_le_bytes());
                digest.update(piece.bytes.len().to_le_bytes());
                digest.update(&piece.bytes);
            }
            if let Some(ready) = &frame.ready {
                digest.update(format!("{ready:?}"));
            }
        }
        Item::Unusable(unusable) => digest.update(format!("{unusable:?}")),
        Item::Skipped(remark) => digest.update(format!("{remark:?}")),
    }
}

/// Room for bytes that somebody is not done with yet.
struct Room {
    held: Mutex<Held>,
    done: Condvar,
}

struct Held {
    bytes: usize,
    most: usize,
}

impl Room {
    const fn new(most: usize) -> Self {
        Self {
            held: Mutex::new(Held { bytes: 0, most }),
            done: Condvar::new(),
        }
    }

    /// Waits until there is room for so many more; what is too large for any
    /// room goes alone.
    fn take(&self, bytes: usize) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |held: &mut Held| held.bytes > 0 && held.bytes + bytes > held.most;
        let held = self.done.wait_while(held, is_full);
        held.unwrap_or_else(PoisonError::into_inner).bytes += bytes;
    }

    fn give(&self, bytes: usize) {
        let held = self.held.lock();
        held.unwrap_or_else(PoisonError::into_inner).bytes -= bytes;
        self.done.notify_one();
    }

    /// Nobody waits any more.
    fn open(&self) {
        let held = self.held.lock();
        held.unwrap_or_else(PoisonError::into_inner).most = usize::MAX;
        self.done.notify_all();
    }
}

/// Bytes of records that are dealt out and not yet done with.
pub(super) struct Dealt(Room);

/// Part of them.
pub(super) struct DealtBytes<'a> {
    dealt: &'a Dealt,
    bytes: usize,
}

impl Dealt {
    /// What so many jobs need to be kept busy, and no more, however large one
    /// transaction is.
    pub(super) const fn new(jobs: usize) -> Self {
        let most = EPOCH_BYTES * 2 + EPOCH_BYTES / LANES as usize * BATCHES_AHEAD * jobs;
        Self(Room::new(most))
    }

    fn add(&self, bytes: usize) -> DealtBytes<'_> {
        self.0.take(bytes);
        DealtBytes { dealt: self, bytes }
    }
}

impl Drop for DealtBytes<'_> {
    fn drop(&mut self) {
        self.dealt.0.give(self.bytes);
    }
}

/// Transactions of one lane of one epoch.
pub(super) struct Batch<'a> {
    /// Batches of one group are put in order together.
    pub(super) group: u64,
    /// Which instances run it.
    pub(super) epoch: u64,
    /// Which instances run it.
    pub(super) lane: u32,
    /// In the capture's order, with their positions in it.
    pub(super) items: Vec<(u64, RawTransaction)>,
    /// Held until it is done with.
    pub(super) bytes: DealtBytes<'a>,
}

/// What a lane of this epoch has so far.
#[derive(Default)]
struct Lane {
    items: Vec<(u64, RawTransaction)>,
    bytes: usize,
}

/// Deals transactions out by epoch and lane.
pub(super) struct Dealer<'a> {
    settings: &'a ReplaySettings,
    watch: &'a Watch,
    module: &'a Policy,
    ordered: &'a Ordered<'a>,
    deal: SyncSender<Batch<'a>>,
    dealt: &'a Dealt,
    tally: Tally,
    /// Positions given so far.
    seq: u64,
    selected: u64,
    epoch: u64,
    group: u64,
    lanes: Vec<Lane>,
    /// What this epoch holds, of all shards.
    count: usize,
    bytes: usize,
    pace: Option<Pace>,
    /// Nobody takes batches any more.
    deserted: bool,
}

impl<'a> Dealer<'a> {
    pub(super) fn new(
        (settings, watch): (&'a ReplaySettings, &'a Watch),
        module: &'a Policy,
        ordered: &'a Ordered<'a>,
        (deal, dealt): (SyncSender<Batch<'a>>, &'a Dealt),
    ) -> Self {
        Self {
            settings,
            watch,
            module,
            ordered,
            deal,
            dealt,
            tally: Tally::default(),
            seq: 0,
            selected: 0,
            epoch: 0,
            group: 0,
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            count: 0,
            bytes: 0,
            pace: settings.speed.map(Pace::new),
            deserted: false,
        }
    }

    /// Reads to the end, the limit or the signal to stop. What was counted on
    /// the way.
    pub(super) fn deal(mut self, reading: &mut Reading<'_>) -> Result<Tally, Error> {
        while let Some(item) = reading.next_item()? {
            let is_over = self.watch.stop.load(Ordering::Relaxed) || self.deserted;
            if is_over || self.is_enough() || self.is_hopeless() {
                break;
            }
            self.item(item);
        }
        reading.end();
        self.end_epoch();
        Ok(self.tally)
    }

    fn is_enough(&self) -> bool {
        self.settings
            .selection
            .limit
            .is_some_and(|limit| self.selected >= limit)
    }

    /// More records cannot be used than are allowed to.
    fn is_hopeless(&self) -> bool {
        self.settings
            .max_errors
            .is_some_and(|most| self.watch.unusable.load(Ordering::Relaxed) > most)
    }

    fn unusable(&mut self, unusable: Unusable) {
        self.watch.unusable.fetch_add(1, Ordering::Relaxed);
        self.tally.unusable(unusable);
    }

    fn item(&mut self, item: Item) {
        // What is no transaction is counted by one shard only.
        match item {
            Item::Unusable(unusable) => {
                let key = [
                    unusable.place.record.to_le_bytes(),
                    unusable.place.offset.to_le_bytes(),
                ];
                if self.is_ours(lane_of(stable_hash(&key.concat()))) {
                    self.unusable(unusable);
                }
            }
            Item::Skipped(remark) => {
                if self
                    .settings
                    .selection
                    .shard
                    .is_none_or(|shard| shard.index == 1)
                {
                    self.tally.report.records.skipped += 1;
                    self.tally.remark(remark);
                }
            }
            Item::Transaction(frame) => self.frame(frame),
        }
    }

    fn is_ours(&self, lane: u32) -> bool {
        self.settings
            .selection
            .shard
            .is_none_or(|shard| lane % shard.of == shard.index - 1)
    }

    fn frame(&mut self, mut frame: RawTransaction) {
        let lane = lane_of(frame.key);
        let size = frame.size_bytes();
        let selection = &self.settings.selection;
        let sampled = selection
            .sample
            .is_none_or(|(rate, seed)| is_sampled(frame.key, rate, seed));
        let early =
            !selection.matching.is_empty() || selection.limit.is_some() || self.pace.is_some();
        let mut at_ns = None;
        let mut wanted = sampled;
        // Conditions, and the original timing, need what is in the records; a
        // limit counts what can be used.
        if sampled && early {
            let decoded = usable(&mut frame, &self.settings.decode, self.module);
            let transaction = decoded.transaction.map(Transaction::into_owned);
            for unusable in decoded.unusable {
                if self.is_ours(lane) {
                    self.unusable(unusable);
                }
            }
            let Some(transaction) = transaction else {
                return;
            };
            wanted = matches(selection, &transaction);
            at_ns = transaction.at_ns();
            frame.pieces = Pieces::new();
            frame.ready = Some(Box::new(transaction));
        }
        let seq = self.seq;
        self.seq += 1;
        self.count += 1;
        self.bytes += size;
        let ours = self.is_ours(lane);
        if !wanted {
            self.tally.report.records.not_selected += u64::from(ours);
        } else {
            self.selected += 1;
            if ours {
                self.hand_on(lane, (seq, frame), (size, at_ns));
            }
        }
        if self.count >= EPOCH_TRANSACTIONS || self.bytes >= EPOCH_BYTES {
            self.end_epoch();
        }
    }

    fn hand_on(
        &mut self,
        lane: u32,
        item: (u64, RawTransaction),
        (bytes, at_ns): (usize, Option<i64>),
    ) {
        let Some(pace) = &mut self.pace else {
            if let Some(lane) = self.lanes.get_mut(lane as usize) {
                lane.items.push(item);
                lane.bytes += bytes;
            }
            return;
        };
        pace.wait((at_ns, &item.1.place()), self.watch);
        self.ordered.expect(self.group, 1);
        let batch = Batch {
            group: self.group,
            epoch: self.epoch,
            lane,
            items: vec![item],
            bytes: self.dealt.add(bytes),
        };
        self.group += 1;
        self.deserted |= self.deal.send(batch).is_err();
    }

    fn end_epoch(&mut self) {
        let is_full = |lane: &&Lane| !lane.items.is_empty();
        let full = self.lanes.iter().filter(is_full).count();
        if full > 0 {
            self.ordered.expect(self.group, full);
            for (lane, Lane { items, bytes }) in (0..LANES).zip(&mut self.lanes) {
                if items.is_empty() {
                    continue;
                }
                let batch = Batch {
                    group: self.group,
                    epoch: self.epoch,
                    lane,
                    items: std::mem::replace(items, Vec::with_capacity(items.len())),
                    bytes: self.dealt.add(std::mem::take(bytes)),
                };
                self.deserted |= self.deal.send(batch).is_err();
            }
            self.group += 1;
        }
        self.epoch += 1;
        self.count = 0;
        self.bytes = 0;
    }
}

/// Decodes a transaction that the module can be asked about.
pub(super) fn usable<'f>(
    frame: &'f mut RawTransaction,
    settings: &DecodeSettings,
    module: &Policy,
) -> Decoded<'f> {
    let records = frame.pieces.iter();
    let records: SmallVec<[(u64, u64); 4]> =
        records.map(|piece| (piece.record, piece.offset)).collect();
    let mut decoded = decode(frame, settings);
    let is_other = |found: &mut Transaction<'_>| found.abi() != module.abi();
    let Some(transaction) = decoded.transaction.take_if(is_other) else {
        return decoded;
    };
    let expected = match module.abi() {
        Abi::Agent => "events of a proxy",
        Abi::Hook => "before_hook or after_hook",
    };
    let phase = transaction
        .steps
        .first()
        .map_or("nothing", |step| step.input.phase().name());
    let why = format!(
        "expected {expected}, since the module is {} (the {} ABI), found {phase} (the {} ABI)",
        module.abi().describe(),
        module.abi().name(),
        transaction.abi().name()
    );
    // Those that cannot be used in any case are named already.
    let known: HashSet<u64> = decoded.unusable.iter().map(|it| it.place.record).collect();
    let places = records.into_iter().map(|(record, offset)| Place {
        record,
        offset,
        ..transaction.place.clone()
    });
    let places = places.filter(|place| !known.contains(&place.record));
    let unusable = places.map(|place| Unusable {
        place,
        why: why.clone(),
    });
    decoded.unusable.extend(unusable);
    decoded
}

fn lane_of(key: u64) -> u32 {
    u32::try_from(key % u64::from(LANES)).unwrap_or(0)
}

/// The same transactions for the same seed, whatever else is in the capture.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of the hash are as even as 64"
)]
fn is_sampled(key: u64, rate: f64, seed: u64) -> bool {
    let drawn = stable_hash(&[key.to_le_bytes(), seed.to_le_bytes()].concat()) >> 11;
    (drawn as f64) < rate * (1_u64 << 53) as f64
}

fn matches(selection: &Selection, transaction: &Transaction<'_>) -> bool {
    let (method, uri) = transaction.request_line().unwrap_or_default();
    let status = transaction.response_status();
    // Several of one kind are alternatives, the kinds go together.
    let kinds: [fn(&Match) -> bool; 3] = [
        |matching| matches!(matching, Match::Path(_)),
        |matching| matches!(matching, Match::Method(_)),
        |matching| matches!(matching, Match::Status(..)),
    ];
    kinds.iter().all(|kind| {
        let mut alternatives = selection
            .matching
            .iter()
            .filter(|matching| kind(matching))
            .peekable();
        alternatives.peek().is_none()
            || alternatives.any(|matching| match matching {
                Match::Path(form) => form.is_match(&uri),
                Match::Method(name) => name.eq_ignore_ascii_case(&method),
                Match::Status(from, to) => {
                    status.is_some_and(|status| (*from..=*to).contains(&status))
                }
            })
    })
}

/// The longest pause that is waited for.
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// What is said of pauses that are not.
const MAX_TOLD: usize = 5;
/// The year 1990: a time before it is a clock that was not set, or none at all.
const EARLIEST_NS: i64 = 631_152_000_000_000_000;

/// The original timing, some times as fast.
struct Pace {
    speed: f64,
    began: Option<(Instant, i64)>,
    /// Pauses that were not waited for.
    left_out: Duration,
    told: usize,
}

impl Pace {
    const fn new(speed: f64) -> Self {
        Self {
            speed,
            began: None,
            left_out: Duration::ZERO,
            told: 0,
        }
    }

    /// Sleeps until a transaction that began then is due.
    fn wait(&mut self, (at_ns, place): (Option<i64>, &Place), watch: &Watch) {
        let Some(at) = at_ns.filter(|at| *at >= EARLIEST_NS) else {
            return;
        };
        let (began, first) = *self.began.get_or_insert_with(|| (Instant::now(), at));
        let Some(due) = self.due(at.saturating_sub(first)) else {
            return;
        };
        let left = || due.saturating_sub(self.left_out + began.elapsed());
        let pause = left();
        if pause > MAX_PAUSE {
            self.left_out += pause;
            self.told += 1;
            if self.told <= MAX_TOLD {
                let seconds = pause.as_secs();
                watch.tell(&format!(
                    "note: {}: record {} is due in {} days and {} minutes; replay waits at most {} minutes for a record and goes on at once",
                    place.file,
                    place.record,
                    seconds / 86_400,
                    seconds % 86_400 / 60,
                    MAX_PAUSE.as_secs() / 60
                ));
            }
            return;
        }
        while !watch.stop.load(Ordering::Relaxed) {
            let left = left();
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// When something is due that came so long after the first.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a microsecond more or less in a month does not matter"
    )]
    fn due(&self, after_ns: i64) -> Option<Duration> {
        Duration::try_from_secs_f64(after_ns as f64 / 1e9 / self.speed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dealt_out_is_bounded_and_what_is_too_large_goes_alone() {
        let dealt = Dealt::new(1);
        let most = dealt.0.held.lock().unwrap().most;
        let one = dealt.add(most * 2);
        std::thread::scope(|scope| {
            let (say, said) = std::sync::mpsc::channel();
            let dealt = &dealt;
            let next = scope.spawn(move || {
                let both = [dealt.add(most / 2), dealt.add(most / 2)];
                say.send(()).unwrap();
                drop(both);
            });
            assert!(said.recv_timeout(Duration::from_millis(20)).is_err());
            drop(one);
            next.join().unwrap();
            said.recv().unwrap();
        });
        assert_eq!(dealt.0.held.lock().unwrap().bytes, 0);
    }

    /// A stream's thread reads so many bytes ahead, and ends with the replay.
    #[test]
    fn a_stream_waits_for_room_and_not_for_a_replay_that_has_ended() {
        let room = Arc::new(Room::new(10));
        let ahead = Ahead(Arc::clone(&room));
        let (say, said) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for bytes in [6, 5, 30] {
                room.take(bytes);
                say.send(bytes).unwrap();
            }
        });
        assert_eq!(said.recv().unwrap(), 6);
        assert!(said.recv_timeout(Duration::from_millis(20)).is_err());
        ahead.0.give(6);
        assert_eq!(said.recv().unwrap(), 5);
        assert!(said.recv_timeout(Duration::from_millis(20)).is_err());
        drop(ahead);
        assert_eq!(said.recv().unwrap(), 30);
        thread.join().unwrap();
    }
}
