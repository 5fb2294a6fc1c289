//! From a file to its records: plain or gzip, of a format that its content tells.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::assemble::Items;
use super::format::{Read as ReadRecords, ReadRecord};
use super::stream::{self, Stream};
use super::{
    DecodeSettings, Decoded, ExchangeParts, Format, Item, Place, RawTransaction, Remark, Unusable,
    detect, ftw, stable_hash,
};
use crate::error::Error;
use crate::files::{self, Accept};

/// Bytes looked at to tell a format.
const HEAD_BYTES: usize = 64 << 10;
/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The file, `-` for standard input.
    pub path: PathBuf,
    /// Its size in bytes, where it is known.
    pub size_bytes: Option<u64>,
    /// Tells its records from those of other captures, if there are any.
    key: Option<u64>,
}

/// Whether a file is YAML that no capture is written in: settings that stand
/// beside tests, as those of containers and of the platforms tests run on.
pub(super) fn is_settings(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if !name.ends_with(".yaml") && !name.ends_with(".yml") {
        return false;
    }
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    let ahead = Ahead::of(Ahead::of(Box::new(file), 2).unpacked(), HEAD_BYTES);
    let head = ahead.head();
    ahead.failed.is_none()
        && ftw::is_other_yaml(head, head.len() < HEAD_BYTES)
        && detect::detect(head).is_err()
}

/// A capture that is being read.
pub struct Opened {
    /// Its name in reports.
    pub file: Arc<str>,
    /// What it is written in, if anything could be told.
    pub format: Option<Format>,
    items: Items,
}

impl Iterator for Opened {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.items.next()
    }
}

impl Capture {
    /// A file, with its size where that is known.
    #[must_use]
    pub fn new(path: &Path, size_bytes: Option<u64>) -> Self {
        Self {
            path: path.to_owned(),
            size_bytes,
            key: None,
        }
    }

    /// Tells its records from those of the other captures.
    pub(super) fn known_as(&mut self, name: &[u8]) {
        self.key = Some(stable_hash(name));
    }

    /// Opens it and tells its format.
    ///
    /// `read` counts the bytes taken from the file, compressed as they are.
    ///
    /// # Errors
    /// Those of [`files::open`].
    pub fn open(
        &self,
        forced: Option<Format>,
        max_record: usize,
        read: &Arc<AtomicU64>,
    ) -> Result<Opened, Error> {
        let file: Arc<str> = Arc::from(self.path.to_string_lossy().as_ref());
        let raw: Box<dyn Read + Send> = if self.path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(files::open(&self.path, Accept::Stream, "a capture")?)
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(read),
        };
        let named = (file, self.key);
        Opened::of_named(named, counted, (forced, max_record)).map_err(|source| Error::Read {
            path: self.path.clone(),
            source,
        })
    }
}

impl Opened {
    /// Reads a capture from anywhere, plain or gzip: its format, where it is
    /// not to be told by content, and the bytes that one record may have.
    ///
    /// # Errors
    /// What reading the first bytes failed with.
    pub fn of_reader(
        file: Arc<str>,
        reader: impl Read + Send + 'static,
        settings: (Option<Format>, usize),
    ) -> io::Result<Self> {
        Self::of_named((file, None), reader, settings)
    }

    fn of_named(
        (file, key): (Arc<str>, Option<u64>),
        reader: impl Read + Send + 'static,
        (forced, max_record): (Option<Format>, usize),
    ) -> io::Result<Self> {
        let magic = Ahead::of(Box::new(reader), 2);
        if magic.head().is_empty()
            && let Some(error) = magic.failed
        {
            return Err(error);
        }
        let (ahead, nuls) = without_nuls(magic.unpacked());
        let format = match forced.map_or_else(|| format_of(&file, &ahead, nuls), Ok) {
            Ok(format) => format,
            Err(why) => {
                let failed = ahead.failed.as_ref().map(stream::unreadable);
                return Ok(unreadable(file, why, failed));
            }
        };
        let mut stream = Stream::new(Box::new(ahead), &file, max_record);
        (stream.key, stream.offset) = (key, nuls);
        let before = (nuls > 0).then_some(Item::Skipped(Remark::NulBytes));
        let records = (format.reader().frames)(stream);
        Ok(Self {
            file,
            format: Some(format),
            items: match before {
                Some(before) => Box::new(std::iter::once(before).chain(records)),
                None => records,
            },
        })
    }
}

/// The format of a file that is not a fixture. A fixture may look like a line
/// of a JSON log.
#[must_use]
pub(crate) fn format_by_content(bytes: &[u8]) -> Option<Format> {
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    let found = detect::detect(head).ok();
    found.filter(|format| *format != Format::JsonLog || detect::has_lines(head))
}

/// The format of a file, or what to say of one that has none.
fn format_of(file: &str, ahead: &Ahead, nuls: u64) -> Result<Format, String> {
    let head = ahead.head();
    if head.is_empty() {
        return Err(match &ahead.failed {
            Some(error) => stream::unreadable(error),
            None if nuls > 0 => format!("the file holds {nuls} NUL bytes and nothing else"),
            None => "the file is empty".to_owned(),
        });
    }
    detect::detect(head).map_err(|why| {
        // It has no first bytes of its own.
        let is_brotli = file.to_ascii_lowercase().ends_with(".br");
        if is_brotli {
            "brotli is not read; unpack it first (brotli -d)".to_owned()
        } else {
            why
        }
    })
}

/// A file nothing can be read from is one unusable record; what reading it failed
/// with is another one.
fn unreadable(file: Arc<str>, why: String, failed: Option<String>) -> Opened {
    let place = Place {
        file: Arc::clone(&file),
        record: 0,
        offset: 0,
    };
    let rest = failed.filter(|failed| *failed != why);
    let all = std::iter::once(why).chain(rest);
    let items = all.map(move |why| {
        let place = place.clone();
        Item::Unusable(Unusable { place, why })
    });
    Opened {
        file,
        format: None,
        items: Box::new(items),
    }
}

/// A reader whose first bytes were looked at.
struct Ahead {
    head: Cursor<Vec<u8>>,
    /// What reading failed with behind them; it is told only once.
    failed: Option<io::Error>,
    rest: Box<dyn Read + Send>,
}

impl Ahead {
    /// Reads up to `most` bytes ahead.
    fn of(mut rest: Box<dyn Read + Send>, most: usize) -> Self {
        let mut head = Vec::new();
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        let read = rest.by_ref().take(limit).read_to_end(&mut head);
        Self {
            head: Cursor::new(head),
            failed: read.err(),
            rest,
        }
    }

    /// Without gzip, where these bytes begin as gzip does.
    fn unpacked(self) -> Box<dyn Read + Send> {
        if self.head() == detect::GZIP {
            Box::new(MultiGzDecoder::new(self))
        } else {
            Box::new(self)
        }
    }

    /// What of the first bytes was not read again so far.
    fn head(&self) -> &[u8] {
        let from = usize::try_from(self.head.position()).unwrap_or(usize::MAX);
        self.head.get_ref().get(from..).unwrap_or_default()
    }
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.head.read(out)?;
        if read > 0 || out.is_empty() {
            return Ok(read);
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.rest.read(out),
        }
    }
}

/// Looks at what stands behind the NUL bytes that a file may begin with: a log
/// that was emptied while a program wrote to it has as many as it had bytes.
fn without_nuls(mut stream: Box<dyn Read + Send>) -> (Ahead, u64) {
    let mut nuls = 0;
    loop {
        let mut ahead = Ahead::of(stream, HEAD_BYTES);
        let begin = ahead.head().iter().position(|byte| *byte != 0);
        let found = begin.unwrap_or(ahead.head().len()) as u64;
        // Half of UTF-16 is NUL bytes.
        let is_wide = nuls == 0 && detect::wide(ahead.head()).is_some();
        if found == 0 || is_wide {
            return (ahead, nuls);
        }
        nuls += found;
        ahead.head.set_position(found);
        if begin.is_some() || ahead.failed.is_some() {
            return (ahead, nuls);
        }
        stream = ahead.rest;
    }
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Decodes a frame's records. One that cannot be used takes no other with it.
pub fn decode<'f>(frame: &'f mut RawTransaction, settings: &DecodeSettings) -> Decoded<'f> {
    if let Some(mut ready) = frame.ready.take() {
        ready.place_in_time(settings.at_ns);
        return (*ready).into();
    }
    let note = frame.note;
    let mut decoded = match frame.format.reader().read {
        ReadRecords::Record(read) => decode_records(frame, settings, read),
        ReadRecords::Group(read) => read(frame, settings),
        ReadRecords::Done => Decoded {
            transaction: None,
            unusable: vec![frame.unusable("a test file is decoded as a whole".to_owned())],
        },
    };
    if let Some(transaction) = &mut decoded.transaction {
        let is_new = |note: &Remark| !transaction.remarks.contains(note);
        let note = note.filter(is_new);
        transaction.remarks.extend(note);
        transaction.place_in_time(settings.at_ns);
    }
    decoded
}

fn decode_records<'f>(
    frame: &'f RawTransaction,
    settings: &DecodeSettings,
    read: ReadRecord,
) -> Decoded<'f> {
    let mut exchange = ExchangeParts::new(frame.place());
    let mut unusable = Vec::new();
    for piece in &frame.pieces {
        if let Err(why) = read(&piece.bytes, settings, &mut exchange) {
            unusable.push(frame.unusable_at(piece, why));
        }
        if let Some(left) = exchange.left_over.take() {
            let mut place = frame.place_of(piece);
            place.offset += left.at as u64;
            let why = left.why;
            unusable.push(Unusable { place, why });
        }
    }
    let is_any = exchange.request.is_some() || exchange.response.is_some();
    if !is_any {
        let why = "expected request or response headers, found none";
        let known: Vec<u64> = unusable.iter().map(|it| it.place.record).collect();
        let rest = frame.pieces.iter();
        let rest = rest.filter(|piece| !known.contains(&piece.record));
        unusable.extend(rest.map(|piece| frame.unusable_at(piece, why.to_owned())));
    }
    let has_start = matches!(
        frame.note,
        Some(Remark::ExchangeCut | Remark::ExchangeUnclear)
    );
    if exchange.request.is_none() && !has_start {
        exchange.remark(Remark::StartMissing);
    }
    // A tap has bodies in parts: one of them may be missing now.
    if !unusable.is_empty() && frame.format == Format::EnvoyTap {
        exchange.remark(Remark::BodyTruncated);
    }
    Decoded {
        transaction: is_any.then(|| exchange.into_transaction()),
        unusable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{DEFAULT_CLIENT_IP, Event};

    /// The client's address and the request's body of each transaction, or what
    /// is wrong with its record.
    fn read(format: Format, text: &str) -> Vec<Result<(String, String), String>> {
        let reader = Cursor::new(text.as_bytes().to_vec());
        let opened = Opened::of_reader("capture".into(), reader, (Some(format), 1 << 20));
        let settings = DecodeSettings::default();
        let items = opened.unwrap().map(|item| match item {
            Item::Transaction(mut frame) => {
                let mut decoded = decode(&mut frame, &settings);
                if let Some(bad) = decoded.unusable.pop() {
                    return Err(bad.why);
                }
                let transaction = decoded.transaction.unwrap();
                let mut read = (String::new(), String::new());
                for event in transaction.questions().filter_map(|it| it.event()) {
                    match event {
                        Event::RequestHeaders(head) => read.0.clone_from(&head.client_ip),
                        Event::RequestBody { chunk, .. } => {
                            read.1 = String::from_utf8(chunk.data.clone()).unwrap();
                        }
                        _ => {}
                    }
                }
                Ok(read)
            }
            Item::Unusable(bad) => Err(bad.why),
            Item::Skipped(_) => Err("skipped".to_owned()),
        });
        items.collect()
    }

    fn har(rest: &str) -> String {
        let request = r#"{"method":"GET","url":"http://a.example/"}"#;
        format!(r#"{{"log":{{"entries":[{{"request":{request}{rest}}}]}}}}"#)
    }

    fn envoy(body: &str, rest: &str) -> String {
        let headers = r#"[{"key":":method","value":"POST"},{"key":":path","value":"/"}]"#;
        let request = format!(r#"{{"headers":{headers},"body":{{"as_bytes":{body:?}}}}}"#);
        format!(r#"{{"http_buffered_trace":{{"request":{request}{rest}}}}}"#)
    }

    fn ftw(input: &str) -> String {
        format!("tests:\n- test_id: 1\n  stages:\n  - input: {input}\n")
    }

    #[test]
    fn the_default_address_stands_where_the_capture_names_none() {
        let peer = |address: &str| {
            let address = format!(r#"{{"socketAddress":{{"address":{address:?}}}}}"#);
            format!(r#","downstreamConnection":{{"remoteAddress":{address}}}"#)
        };
        for (format, text, address) in [
            (Format::Har, har(""), DEFAULT_CLIENT_IP),
            (Format::Har, har(r#","_clientIPAddress":"""#), ""),
            (
                Format::Har,
                har(r#","_clientIPAddress":"10.0.0.1:9""#),
                "10.0.0.1",
            ),
            (Format::EnvoyTap, envoy("", ""), DEFAULT_CLIENT_IP),
            (Format::EnvoyTap, envoy("", &peer("")), ""),
            (Format::EnvoyTap, envoy("", &peer("10.0.0.1")), "10.0.0.1"),
            (Format::Ftw, ftw("{}"), DEFAULT_CLIENT_IP),
        ] {
            let expected = (address.to_owned(), String::new());
            assert_eq!(read(format, &text), [Ok(expected)], "{text}");
        }
    }

    /// A body that was cut must not pass for a shorter one.
    #[test]
    fn base64_is_whole_or_its_record_unusable() {
        let lines = "aGVs\\n bG8=";
        for (body, envoy_reads, ftw_reads) in [
            ("aGVsbG8=", true, true),
            (lines, false, true),
            ("aGVsbG8", false, false),
            ("aGVsbG9=", false, false),
            ("aGVsbG", false, false),
            ("aGVsbG8=aGVsbG8=", false, false),
        ] {
            let envoy = envoy(&body.replace("\\n", "\n"), "");
            let ftw = ftw(&format!("{{encoded_data: \"{body}\"}}"));
            for (format, text, is_read) in [
                (Format::EnvoyTap, envoy, envoy_reads),
                (Format::Ftw, ftw, ftw_reads),
            ] {
                let read = read(format, &text);
                let [read] = read.as_slice() else {
                    panic!("{text}: {read:?}");
                };
                match read {
                    Ok((_, body)) => assert!(is_read && body == "hello", "{text}: {body}"),
                    Err(why) => {
                        assert!(!is_read && why.contains("expected base64"), "{text}: {why}");
                    }
                }
            }
        }
    }

    #[test]
    fn unknown_keys_of_a_test_stand_in_its_own_order() {
        let text = "
tests:
- z: 1
  stages:
  - input: {b: 1, dest_addr: ., a: 1}
    output: {log: {d: 1}, c: 1}
    y: 1
  - stage: {x: 1, output: {e: 1}}
  template: {f: 1}
  a: 1
";
        let expected = "unknown keys: test.z, input.b, input.a, log.d, output.c and 5 more";
        assert_eq!(read(Format::Ftw, text), [Err(expected.to_owned())]);
    }
}
