//! The recorder by itself: bounds that no traffic reaches in a test, and a
//! disk that fails when it is told to.

use std::io::{self, Read as _, Write as _};
use std::time::Instant;

use super::writer::Unwritten;
use super::*;
use crate::event::{BodyChunk, RequestHead};

fn settings(rate: f64) -> RecordSettings {
    RecordSettings {
        path: "a pipe".into(),
        rate,
        max_bytes: u64::MAX,
        keep_secrets: false,
        key: None,
    }
}

/// Writes into a pipe, which takes so much and then blocks.
fn into_pipe(rate: f64) -> (Recorder, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    (on(writer, &settings(rate)), reader)
}

fn on(storage: impl Storage, settings: &RecordSettings) -> Recorder {
    let redactor = redactor(settings).unwrap();
    Recorder::on(storage, redactor, settings).unwrap()
}

impl Storage for io::PipeWriter {
    fn ready(&mut self) -> io::Result<u64> {
        Ok(0)
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        self.write_all(lines)
            .map_err(|error| Unwritten { written: 0, error })
    }
}

fn head(uri: &str) -> Event {
    Event::RequestHeaders(RequestHead {
        uri: uri.to_owned(),
        ..RequestHead::default()
    })
}

fn body(bytes: usize) -> Event {
    let chunk = BodyChunk {
        data: vec![b'x'; bytes],
        ..BodyChunk::default()
    };
    Event::RequestBody {
        chunk,
        request: None,
    }
}

fn offer(recorder: &Recorder, exchange: u64, event: &Event) {
    let source = Source {
        exchange,
        module: "sha256:0".into(),
        names: HeaderNames::Lower,
        policy: Weak::new(),
    };
    if let Some(record) = recorder.prepare(event, None, source) {
        recorder.offer(record, Box::new(AgentResponse::allow()), None);
    }
}

/// A disk that takes nothing holds up the end for as long as was said. What
/// was not written is counted.
#[test]
fn closing_waits_no_longer_than_it_was_told() {
    let (recorder, mut reader) = into_pipe(1.0);
    for number in 0..40 {
        offer(&recorder, number, &body(100_000));
    }
    let begin = Instant::now();
    recorder.close(Duration::from_millis(50));
    // Far above what it waits, and far below for ever.
    assert!(begin.elapsed() < Duration::from_secs(20));
    let counts = recorder.counts();
    assert!(counts.dropped > 30, "{counts:?}");
    assert_eq!(counts.written + counts.dropped, 40, "{counts:?}");
    // Nor does it go on when the disk takes something again.
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    assert!(text.len() < 1_000_000, "{}", text.len());
}

#[test]
fn closing_writes_what_was_taken() {
    let (recorder, mut reader) = into_pipe(1.0);
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    for number in 0..200 {
        offer(&recorder, number, &body(10_000));
    }
    recorder.close(Duration::from_secs(60));
    offer(&recorder, 7, &head("/late"));
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.dropped), (200, 1));
    assert_eq!(read.join().unwrap().lines().count(), 200);
}

/// However long the records themselves may take.
#[test]
fn closing_asks_for_a_moment_only() {
    for (within, most) in [(60_000, 200), (100, 50)] {
        let (recorder, _reader) = into_pipe(1.0);
        recorder.close(Duration::from_millis(within));
        let until = lock(&recorder.counts.ask_until).unwrap();
        assert!(until <= Instant::now() + Duration::from_millis(most));
    }
}

/// Where one event found no room the later ones of its exchange might hold what
/// it alone would have shown to be a secret.
#[test]
fn what_follows_a_dropped_event_is_dropped_until_the_exchange_begins_anew() {
    let (recorder, mut reader) = into_pipe(1.0);
    offer(&recorder, 1, &body(MAX_WAITING_BYTES));
    assert_eq!(recorder.counts().dropped, 1);
    offer(&recorder, 1, &body(9));
    offer(&recorder, 2, &body(9));
    assert_eq!(recorder.counts().dropped, 2);
    offer(&recorder, 1, &head("/anew"));
    recorder.close(Duration::from_secs(60));
    assert_eq!(
        (recorder.counts().written, recorder.counts().dropped),
        (2, 2)
    );
    drop(recorder);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("/anew"));
}

/// The same where very many other exchanges lost an event since.
#[test]
fn a_torn_exchange_stays_torn_however_many_follow() {
    let (recorder, _reader) = into_pipe(1.0);
    (1..=100_000).for_each(|number| lock(&recorder.torn).add(number));
    recorder.any_torn.store(true, Ordering::Relaxed);
    for exchange in [1, 50_000, 100_000] {
        offer(&recorder, exchange, &body(9));
    }
    assert_eq!(recorder.counts().dropped, 3);
    offer(&recorder, 100_001, &body(9));
    offer(&recorder, u64::MAX, &body(9));
    recorder.close(Duration::from_secs(60));
    assert_eq!(
        (recorder.counts().written, recorder.counts().dropped),
        (2, 3)
    );
}

#[test]
fn a_sample_has_all_events_of_an_exchange_or_none() {
    let (recorder, _reader) = into_pipe(0.5);
    let (other, _reader_of_other) = into_pipe(0.5);
    let of = |recorder: &Recorder| -> Vec<bool> {
        (0..1_000)
            .map(|number| recorder.is_sampled(number))
            .collect()
    };
    let picked = of(&recorder);
    assert_eq!(picked, of(&recorder));
    assert_ne!(picked, of(&other), "each has a key of its own");
    let count = picked.iter().filter(|picked| **picked).count();
    assert!((400..600).contains(&count), "{count}");
}

#[test]
fn an_empty_key_is_refused_before_there_is_a_file_and_no_key_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let with_key = |key: &[u8]| RecordSettings {
        path: path.clone(),
        key: Some(key.to_vec()),
        ..settings(1.0)
    };
    let error = Recorder::start(&with_key(b"")).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
    assert!(!path.exists());
    Recorder::start(&with_key(b"k")).unwrap();
    let shown = format!("{:?}", with_key(&[171; 4]));
    assert!(
        !shown.contains("171") && shown.contains("has_key: true"),
        "{shown}"
    );
}

/// What the answer to an event was is not known where none was sent; what is
/// secret in later events might be known from it alone.
#[test]
fn what_was_not_sent_is_not_recorded_nor_is_what_follows() {
    let (recorder, mut reader) = into_pipe(1.0);
    recorder.give_up(1);
    offer(&recorder, 1, &body(9));
    offer(&recorder, 2, &body(9));
    recorder.close(Duration::from_secs(60));
    let counts = recorder.counts();
    assert_eq!((counts.written, counts.dropped), (1, 2));
    drop(recorder);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 1);
}

/// A disk that fails when it is told to, and what is on it.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    is_broken: bool,
    text: String,
    attempts: u32,
}

impl Storage for Disk {
    fn ready(&mut self) -> io::Result<u64> {
        Ok(lock(&self.0).text.len() as u64)
    }

    /// Takes the first line alone where it is broken.
    fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut disk = lock(&self.0);
        disk.attempts += 1;
        let lines = std::str::from_utf8(lines).unwrap();
        if !disk.is_broken {
            disk.text.push_str(lines);
            return Ok(());
        }
        let written = lines.find('\n').unwrap() + 1;
        disk.text.push_str(&lines[..written]);
        let error = io::Error::other("broken");
        Err(Unwritten { written, error })
    }
}

/// Waits until all that was offered is written or dropped.
fn settled(recorder: &Recorder) -> RecordCounts {
    let begin = Instant::now();
    while recorder.counts.pending.load(Ordering::Relaxed) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
    recorder.counts()
}

/// One error ends nothing for good: what was not written is counted, nothing
/// more is of its exchange, and the disk is asked again, but not at each event.
#[test]
fn what_a_disk_does_not_take_is_dropped_and_it_is_tried_again() {
    let disk = Disk::default();
    let recorder = on(disk.clone(), &settings(1.0));
    lock(&disk.0).is_broken = true;
    (0..3).for_each(|exchange| offer(&recorder, exchange, &head("/broken")));
    let counts = settled(&recorder);
    assert_eq!((counts.written, counts.dropped), (1, 2));
    assert_eq!(counts.stopped, Some(Stopped::Error));
    let begin = Instant::now();
    for exchange in 100..300 {
        offer(&recorder, exchange, &head("/still"));
        settled(&recorder);
    }
    let attempts = lock(&disk.0).attempts;
    assert!(
        u64::from(attempts) <= 2 + begin.elapsed().as_secs(),
        "{attempts}"
    );
    lock(&disk.0).is_broken = false;
    let mut exchange = 1_000;
    while recorder.counts().stopped.is_some() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        offer(&recorder, exchange, &head("/again"));
        settled(&recorder);
        exchange += 1;
    }
    // The first one's begin was written, the others' were not.
    (0..3).for_each(|exchange| offer(&recorder, exchange, &body(9)));
    offer(&recorder, 2, &head("/anew"));
    offer(&recorder, 2, &body(9));
    let before = counts.written + counts.dropped + 200 + (exchange - 1_000);
    let counts = settled(&recorder);
    assert_eq!(counts.written + counts.dropped, before + 5);
    let text = lock(&disk.0).text.clone();
    assert_eq!(text.lines().count() as u64, counts.written);
    assert_eq!(
        text.matches(r#""phase":"request_body""#).count(),
        2,
        "{text}"
    );
    assert!(text.contains("/again") && text.contains("/anew"));
}

/// Nobody can read what went into a file that was deleted since it was looked at.
#[test]
fn lines_that_met_a_deleted_file_are_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let mut file = RecordingFile::open(&path).unwrap();
    assert_eq!(file.ready().unwrap(), 0);
    std::fs::remove_file(&path).unwrap();
    file.append(b"a line\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a line\n");
}
