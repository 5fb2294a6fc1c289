//! From arguments to readable streams: files, folders, standard input, gzip.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{Format, Item, Place, Unusable, access_log, detect, envoy_tap, ftw, gor, har, jsonl};
use crate::error::Error;
use crate::files::{self, Accept};

/// Bytes looked at to tell a format.
const HEAD_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Blocks that are kept to be read into again, 128 MiB: as many as a replay
/// has records of at a time, so that none is made anew.
const MAX_FREE_BLOCKS: usize = 512;

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
pub fn is_capture(path: &Path) -> bool {
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
    items: Box<dyn Iterator<Item = Item> + Send>,
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
    let stream = Stream {
        inner: BufReader::with_capacity(BUFFER_BYTES, stream),
        failed: None,
        blocks: Blocks::default(),
        offset: 0,
        max_record,
        file: Arc::clone(&file),
    };
    let items: Box<dyn Iterator<Item = Item> + Send> = match format {
        Format::Jsonl => Box::new(jsonl::frames(stream)),
        Format::Har => Box::new(har::frames(stream)),
        Format::EnvoyTap => Box::new(envoy_tap::frames(stream)),
        Format::Gor => Box::new(gor::frames(stream)),
        Format::Ftw => Box::new(ftw::frames(stream)),
        Format::AccessLog | Format::JsonLog => Box::new(access_log::frames(stream, format)),
    };
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

/// Blocks that nobody has records in any more, to be read into again: memory
/// that is given back and asked for again costs as much as reading it.
#[derive(Clone, Default)]
struct Blocks(Arc<Mutex<Vec<Vec<u8>>>>);

impl Blocks {
    fn block(&self) -> Block {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Block {
            data: free.unwrap_or_else(|| vec![0; BUFFER_BYTES]),
            filled: 0,
            blocks: self.clone(),
        }
    }
}

/// Bytes that records share, until the last of them is done with.
struct Block {
    data: Vec<u8>,
    filled: usize,
    blocks: Blocks,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.data.get(..self.filled).unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MAX_FREE_BLOCKS {
            free.push(std::mem::take(&mut self.data));
        }
    }
}

/// An uncompressed stream that knows where it is.
pub(super) struct Stream {
    inner: BufReader<Box<dyn Read + Send>>,
    /// What reading failed with, behind the block before.
    failed: Option<io::Error>,
    blocks: Blocks,
    /// Bytes taken so far.
    pub(super) offset: u64,
    /// Bytes of one record.
    pub(super) max_record: usize,
    /// The file's name in reports.
    pub(super) file: Arc<str>,
}

impl Stream {
    /// The bytes that are ready; none at the end.
    pub(super) fn ready(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.inner.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.inner.fill_buf()
    }

    /// As much as one block holds, less only at the end; nothing once that was
    /// reached. Where reading fails, what was read before comes first and the
    /// error with the next block. The caller counts what it takes of it.
    pub(super) fn block(&mut self) -> io::Result<Bytes> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut block = self.blocks.block();
        while block.filled < block.data.len() {
            let rest = &mut block.data[block.filled..];
            // What is buffered first; then past the buffer, which would copy.
            let read = if self.inner.buffer().is_empty() {
                self.inner.get_mut().read(rest)
            } else {
                self.inner.read(rest)
            };
            match read {
                Ok(0) => break,
                Ok(read) => block.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if block.filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        // The end of a file: many small ones must not take a block each.
        if block.filled < BUFFER_BYTES / 2 {
            return Ok(Bytes::copy_from_slice(block.as_ref()));
        }
        Ok(Bytes::from_owner(block))
    }

    /// Takes bytes that were ready.
    pub(super) fn take(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.offset += bytes as u64;
    }

    /// Where this stream is, as the place of a record.
    pub(super) fn place(&self, record: u64, offset: u64) -> Place {
        Place {
            file: Arc::clone(&self.file),
            record,
            offset,
        }
    }
}
