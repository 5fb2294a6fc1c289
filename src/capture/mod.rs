//! Recorded input: capture files of seven formats become transactions.
//!
//! In: files, folders or standard input, plain or gzip. Out, in two stages:
//!
//! ```text
//!     open ──> detect ──> frames: one reader cuts the stream into records
//!                           │     (bounded memory, whatever the file's size)
//!                           ▼
//!                         decode: any thread turns records into a Transaction
//! ```
//!
//! A record that cannot be used is an [`Unusable`] with file, record number,
//! byte offset and reason. Nothing is dropped without being counted.

mod access_log;
mod assemble;
mod base_64;
#[cfg(test)]
mod damage_tests;
mod detect;
mod envoy_tap;
mod expect;
mod fields;
mod find;
mod format;
mod frames;
mod ftw;
mod gor;
mod har;
mod headers;
mod heads;
mod http1;
mod json_log;
mod jsonl;
mod lenient;
mod open;
mod parts;
mod place;
mod progress;
mod raw;
mod redact;
mod stream;
mod surrogates;
mod transaction;

use self::parts::{ExchangeParts, Half};

pub(crate) use expect::Expectation;
pub(crate) use fields::FieldMap;
pub use find::discover;
pub(crate) use find::{PassedOver, is_capture};
pub use format::Format;
pub(crate) use format::Remark;
pub use jsonl::read_back;
pub(crate) use jsonl::{RecordLine, Written, is_record};
pub(crate) use open::format_by_content;
pub use open::{Capture, Opened, decode};
pub(crate) use place::{Piece, Pieces, Place, Unusable, stable_hash};
pub(crate) use raw::Decoded;
pub(crate) use raw::RawTransaction;
pub use raw::{DecodeSettings, Item};
pub(crate) use redact::{Heard, Mark, Tried, keep_decision, may_hold_secret};
pub use redact::{Redactor, SecretsFound, key_of};
pub use transaction::Transaction;
pub(crate) use transaction::{CapturedStep, Recorded};

/// Bytes of one record; what is longer is skipped and named.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 << 20;
