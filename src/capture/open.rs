//! From arguments to readable streams: files, folders, standard input, gzip.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;

use super::assemble::Items;
use super::format::{Read as ReadRecords, ReadRecord};
use super::stream::Stream;
use super::{
    DecodeSettings, Decoded, ExchangeParts, Format, Item, Place, RawTransaction, Remark, Unusable,
    detect,
};
use crate::error::Error;
use crate::files::{self, Accept};

/// Bytes looked at to tell a format.
const HEAD_BYTES: usize = 64 << 10;
/// What a folder is searched for; `.gz` may follow each.
const EXTENSIONS: [&str; 8] = [
    "json", "jsonl", "ndjson", "har", "gor", "log", "yaml", "yml",
];

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The file, `-` for standard input.
    pub path: PathBuf,
    /// Its size in bytes, where it is known.
    pub size_bytes: Option<u64>,
}

/// Finds what the arguments name, in a stable order, and the files in folders
/// that do not look like captures.
///
/// # Errors
/// [`Error::Read`] for a path that is not there.
pub fn discover(arguments: &[PathBuf]) -> Result<(Vec<Capture>, Vec<PathBuf>), Error> {
    let mut captures = Vec::new();
    let mut passed_over = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            captures.push(Capture {
                path: argument.clone(),
                size_bytes: None,
            });
            continue;
        }
        let metadata = std::fs::metadata(argument).map_err(|source| Error::Read {
            path: argument.clone(),
            source,
        })?;
        if !metadata.is_dir() {
            captures.push(Capture {
                path: argument.clone(),
                size_bytes: metadata.is_file().then_some(metadata.len()),
            });
            continue;
        }
        for entry in walkdir::WalkDir::new(argument).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::Read {
                path: error.path().unwrap_or(argument).to_owned(),
                source: error.into(),
            })?;
            if !entry.file_type().is_file() {
                continue;
            }
            if is_capture(entry.path()) {
                captures.push(Capture {
                    size_bytes: entry.metadata().ok().map(|metadata| metadata.len()),
                    path: entry.into_path(),
                });
            } else {
                passed_over.push(entry.into_path());
            }
        }
    }
    Ok((captures, passed_over))
}

/// Whether a file is one by its name.
#[must_use]
pub(crate) fn is_capture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').is_some_and(|(_, extension)| {
        EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
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
        Opened::of_reader(file, counted, (forced, max_record)).map_err(|source| Error::Read {
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
        (forced, max_record): (Option<Format>, usize),
    ) -> io::Result<Self> {
        let (magic, rest) = head_of(reader, 2)?;
        let stream: Box<dyn Read + Send> = if magic == [0x1f, 0x8b] {
            Box::new(MultiGzDecoder::new(rest))
        } else {
            Box::new(rest)
        };
        match head_of(stream, HEAD_BYTES) {
            Ok((head, stream)) => Ok(opened(file, (head, Box::new(stream)), forced, max_record)),
            Err(error) => Ok(broken(file, &error)),
        }
    }
}

fn opened(
    file: Arc<str>,
    (head, stream): (Vec<u8>, Box<dyn Read + Send>),
    forced: Option<Format>,
    max_record: usize,
) -> Opened {
    let format = match forced.map_or_else(|| detect::detect(&head), Ok) {
        Ok(format) => format,
        Err(why) => return unreadable(file, why),
    };
    let stream = Stream::new(stream, &file, max_record);
    let items = (format.reader().frames)(stream);
    Opened {
        file,
        format: Some(format),
        items,
    }
}

fn broken(file: Arc<str>, error: &io::Error) -> Opened {
    unreadable(file, format!("cannot be read: {error}"))
}

/// A file nothing can be read from is one unusable record.
fn unreadable(file: Arc<str>, why: String) -> Opened {
    let place = Place {
        file: Arc::clone(&file),
        record: 0,
        offset: 0,
    };
    Opened {
        file,
        format: None,
        items: Box::new(std::iter::once(Item::Unusable(Unusable { place, why }))),
    }
}

/// Reads up to `most` bytes ahead, and gives a reader that has them again.
fn head_of<R: Read + Send + 'static>(
    mut reader: R,
    most: usize,
) -> io::Result<(Vec<u8>, impl Read + Send + 'static)> {
    let mut head = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    let read = reader.by_ref().take(limit).read_to_end(&mut head);
    // What was read before a fault is still worth looking at; the fault comes
    // again when the reader gets there.
    if let Err(error) = read
        && head.is_empty()
    {
        return Err(error);
    }
    let again = Cursor::new(head.clone());
    Ok((head, again.chain(reader)))
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
    }
    let is_any = exchange.request.is_some() || exchange.response.is_some();
    if !is_any {
        let why = "expected request or response headers, found none";
        let known: Vec<u64> = unusable.iter().map(|it| it.place.record).collect();
        let rest = frame.pieces.iter();
        let rest = rest.filter(|piece| !known.contains(&piece.record));
        unusable.extend(rest.map(|piece| frame.unusable_at(piece, why.to_owned())));
    }
    if exchange.request.is_none() && frame.note.is_none() {
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
        let expected = "unknown keys: test.z, input.b, input.a, log.d, output.c, stage.y, stage.x, output.e, input.f, test.a";
        assert_eq!(read(Format::Ftw, text), [Err(expected.to_owned())]);
    }
}
