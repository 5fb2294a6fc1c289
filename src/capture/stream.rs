//! A capture's uncompressed bytes, in blocks that its records share.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Piece, Place, Unusable};

const BUFFER_BYTES: usize = 256 << 10;
/// Blocks that are kept to be read into again, 128 MiB: as many as a replay
/// has records of at a time, so that none is made anew.
const MAX_FREE_BLOCKS: usize = 512;

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
    /// Records cut out of it so far.
    pub(super) record: u64,
    /// Bytes of one record.
    pub(super) max_record: usize,
    /// The file's name in reports.
    pub(super) file: Arc<str>,
    /// Tells the records of several files apart, wherever the files lie.
    pub(super) key: Option<u64>,
}

impl Stream {
    /// Reads from the first byte of an uncompressed file.
    pub(super) fn new(inner: Box<dyn Read + Send>, file: &Arc<str>, max_record: usize) -> Self {
        Self {
            inner: BufReader::with_capacity(BUFFER_BYTES, inner),
            failed: None,
            blocks: Blocks::default(),
            offset: 0,
            record: 0,
            max_record,
            key: None,
            file: Arc::clone(file),
        }
    }

    /// What samples and shards know a record by that has no id.
    pub(super) fn key_of(&self, piece: &Piece) -> SmallVec<[u8; 24]> {
        let parts = [Some(piece.record), Some(piece.offset), self.key];
        parts
            .into_iter()
            .flatten()
            .flat_map(u64::to_le_bytes)
            .collect()
    }

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

    /// The next record, which has so many bytes; those of a longer one than is
    /// allowed are not needed.
    pub(super) fn cut(&mut self, offset: u64, size: usize, bytes: Bytes) -> Cut {
        let most = self.max_record;
        let cut = if size > most {
            Err(self.unusable(
                offset,
                format!("expected a record of at most {most} bytes (--max-record), found {size}"),
            ))
        } else {
            Ok(Piece {
                record: self.record + 1,
                offset,
                bytes,
            })
        };
        self.record += 1;
        cut
    }

    /// The next record cannot be used.
    pub(super) fn unusable(&self, offset: u64, why: String) -> Unusable {
        let place = Place {
            file: Arc::clone(&self.file),
            record: self.record + 1,
            offset,
        };
        Unusable { place, why }
    }
}

/// A record's bytes, or why there are none.
pub(super) type Cut = Result<Piece, Unusable>;

/// Cuts records out of a stream, each by the rules of its own.
pub(super) trait Cutter {
    /// The stream they come from.
    fn stream(&self) -> &Stream;

    /// The next record, nothing at the end of the stream.
    fn next_record(&mut self) -> io::Result<Option<Cut>>;

    /// Where the next record begins.
    fn offset(&self) -> u64 {
        self.stream().offset
    }
}

/// What to say when the stream itself fails.
pub(super) fn unreadable(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        format!("the file ends in the middle of its compressed data: {error}")
    } else {
        format!("the rest of the file cannot be read: {error}")
    }
}
