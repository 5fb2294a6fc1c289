//! Recorded input: capture files of seven formats become transactions.
//!
//! In: files, folders or standard input, plain or gzip. Out, in two stages:
//!
//! ```text
//!   source ──> detect ──> frames: one reader cuts the stream into records
//!                           │     (bounded memory, whatever the file's size)
//!                           ▼
//!                         decode: any thread turns records into a Transaction
//! ```
//!
//! A record that cannot be used is an [`Unusable`] with file, record number,
//! byte offset and reason. Nothing is dropped without being counted.

mod access_log;
mod assemble;
mod detect;
mod envoy_tap;
mod frames;
mod ftw;
mod gor;
mod har;
mod headers;
mod http1;
mod jsonl;
mod redact;
mod source;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::abi::{Abi, Input, Phase};
use crate::event::{BodyChunk, Event, EventKind, RequestHead, ResponseHead};
use crate::fixture;

pub use access_log::FieldMap;
pub use ftw::Expectation;
pub use jsonl::{RecordLine, write_record};
pub use redact::{Found, Redacted, Redactor, key_of, may_hold_secret};
pub use source::{Capture, Opened, discover, is_capture};

/// A documentation address (RFC 5737), for formats that know no client.
pub const DEFAULT_CLIENT_IP: &str = "192.0.2.1";

/// Bytes of one record; what is longer is skipped and named.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 << 20;

/// What a capture file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Our own JSON Lines: exact inputs and answers.
    Jsonl,
    /// HTTP Archive 1.2.
    Har,
    /// Envoy's HTTP tap as JSON, buffered or streamed.
    EnvoyTap,
    /// `GoReplay`'s file format.
    Gor,
    /// go-ftw test files.
    Ftw,
    /// Access logs in the combined format.
    AccessLog,
    /// Access logs as JSON, one object a line.
    JsonLog,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] = [
        Self::Jsonl,
        Self::Har,
        Self::EnvoyTap,
        Self::Gor,
        Self::Ftw,
        Self::AccessLog,
        Self::JsonLog,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Har => "har",
            Self::EnvoyTap => "envoy-tap",
            Self::Gor => "gor",
            Self::Ftw => "ftw",
            Self::AccessLog => "access-log",
            Self::JsonLog => "json-log",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Jsonl => "Our own JSON Lines",
            Self::Har => "HTTP Archive 1.2",
            Self::EnvoyTap => "Envoy HTTP tap as JSON",
            Self::Gor => "GoReplay",
            Self::Ftw => "go-ftw tests",
            Self::AccessLog => "Combined access log",
            Self::JsonLog => "JSON access log",
        }
    }

    /// What the format does not hold, so that a decision about it may differ
    /// from production's; nothing for a format that holds all.
    #[must_use]
    pub const fn loses(self) -> Option<&'static str> {
        match self {
            Self::Jsonl => None,
            Self::Har => Some(
                "no client address; bodies as decoded, not as sent; browsers leave credentials out unless told otherwise",
            ),
            Self::EnvoyTap => Some("bodies are cut at the tap's own limit (1 KiB by default)"),
            Self::Gor => Some("no client address"),
            Self::Ftw => Some("no client address, and no response but what the test gives"),
            Self::AccessLog => Some(
                "of the headers only host, referer and user-agent at most; no bodies; no response headers",
            ),
            Self::JsonLog => Some("only the fields the log has; no bodies"),
        }
    }
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, `-` for standard input.
    #[serde(with = "shared_text")]
    pub file: Arc<str>,
    /// Which record of the file, from 1.
    pub record: u64,
    /// Where it begins, in bytes of the uncompressed file.
    pub offset: u64,
}

/// A file's name stands in every place, so it is shared.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<Arc<str>, D::Error> {
        Ok(String::deserialize(reader)?.into())
    }
}

/// A record that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unusable {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// What was expected and found.
    pub why: String,
}

/// One record's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which record of the file, from 1.
    pub record: u64,
    /// Where it begins in the uncompressed file.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// Records of one transaction; most have no more than an exchange has heads
/// and bodies.
pub type Pieces = SmallVec<[Piece; 4]>;

/// The records of one transaction, not yet decoded.
#[derive(Debug)]
pub struct Frame {
    /// The file.
    pub file: Arc<str>,
    /// How to decode it.
    pub format: Format,
    /// Equal for the same transaction on every run: a hash of its correlation
    /// id, or of its record number where ids are not known before decoding.
    pub key: u64,
    /// Its records in order; empty where it came decoded.
    pub pieces: Pieces,
    /// The transaction, where the format is read as a whole.
    pub ready: Option<Box<Transaction<'static>>>,
}

impl Frame {
    /// Bytes held.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Gives its records memory of their own, where it is to be kept while
    /// others of the same block of the file are not.
    pub fn detach(&mut self) {
        for piece in &mut self.pieces {
            piece.bytes = Bytes::copy_from_slice(&piece.bytes);
        }
    }

    /// Where its first record stands.
    #[must_use]
    pub fn place(&self) -> Place {
        if let Some(ready) = &self.ready {
            return ready.place.clone();
        }
        let (record, offset) = self
            .pieces
            .first()
            .map_or((0, 0), |piece| (piece.record, piece.offset));
        Place {
            file: Arc::clone(&self.file),
            record,
            offset,
        }
    }

    fn unusable(&self, why: String) -> Unusable {
        Unusable {
            place: self.place(),
            why,
        }
    }
}

/// What the reader found next.
#[derive(Debug)]
pub enum Item {
    /// The records of one transaction.
    Frame(Frame),
    /// A record, or the rest of a file, that cannot be used.
    Unusable(Unusable),
    /// A record that is well-formed and is no traffic to replay.
    Skipped(Remark),
}

/// Something a reader of the report should know about the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remark {
    /// Header values that are not visible ASCII became empty.
    HeaderNotAscii,
    /// The capture says that a body was cut.
    BodyTruncated,
    /// A body was there, and the capture does not hold it.
    BodyMissing,
    /// There was no response: aborted, blocked or not captured.
    NoResponse,
    /// The records begin in the middle of an exchange.
    StartMissing,
    /// A response that a replay tool saw, not production.
    ReplayedResponse,
    /// A HAR entry without credentials; browsers leave them out.
    NoCredentials,
    /// The record was written with secrets redacted.
    Redacted,
    /// The decisions of the time are another module's.
    OtherModule,
    /// An expectation of a test that no module's answer can be held against.
    NotChecked,
}

impl Remark {
    /// A sentence for people.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::HeaderNotAscii => {
                "header values beyond visible ASCII reach the module empty, as released proxies send them"
            }
            Self::BodyTruncated => "the capture cut a body; the module sees what is there",
            Self::BodyMissing => "a body was not captured, so no body event is replayed",
            Self::NoResponse => "no response was captured, so only the request is replayed",
            Self::StartMissing => {
                "the first records of an exchange are missing; the rest is replayed"
            }
            Self::ReplayedResponse => {
                "responses to an earlier replay are not production's and were left out"
            }
            Self::NoCredentials => {
                "no authorization and no cookie; browsers leave them out of a HAR unless told otherwise"
            }
            Self::Redacted => {
                "recorded with secrets redacted; a rule about their values may differ"
            }
            Self::OtherModule => {
                "recorded with another module than the one it is held against; decisions and fuel of the time are that one's"
            }
            Self::NotChecked => {
                "expectations that cannot be held against a module (response or log text)"
            }
        }
    }
}

/// What was answered at the time.
#[derive(Debug, Clone)]
pub struct Recorded<'a> {
    /// The agent response or the hook's result, as JSON.
    pub response: Cow<'a, [u8]>,
    /// Instructions of the call.
    pub fuel: Option<u64>,
    /// The hash of the module that answered.
    pub module: Option<Cow<'a, str>>,
}

/// One call of a transaction.
#[derive(Debug, Clone)]
pub struct CapturedStep<'a> {
    /// What the guest gets.
    pub input: Input<'a>,
    /// What was answered at the time, where the capture knows.
    pub recorded: Option<Recorded<'a>>,
}

impl CapturedStep<'_> {
    fn into_owned(self) -> CapturedStep<'static> {
        CapturedStep {
            input: self.input.into_owned(),
            recorded: self.recorded.map(|recorded| Recorded {
                response: Cow::Owned(recorded.response.into_owned()),
                fuel: recorded.fuel,
                module: recorded.module.map(|hash| Cow::Owned(hash.into_owned())),
            }),
        }
    }
}

/// One exchange, as captured; parts of it are parts of its records.
#[derive(Debug, Clone)]
pub struct Transaction<'a> {
    /// Where its first record stands.
    pub place: Place,
    /// The id all its events share.
    pub id: Cow<'a, str>,
    /// When it began, in nanoseconds since 1970.
    pub at_ns: Option<i64>,
    /// Its events in order.
    pub steps: Vec<CapturedStep<'a>>,
    /// What a test file expects of it.
    pub expect: Option<Box<Expectation>>,
    /// What a reader should know.
    pub remarks: Vec<Remark>,
}

impl Transaction<'_> {
    /// The same without its records.
    #[must_use]
    pub fn into_owned(self) -> Transaction<'static> {
        let steps = self.steps.into_iter().map(CapturedStep::into_owned);
        Transaction {
            place: self.place,
            id: Cow::Owned(self.id.into_owned()),
            at_ns: self.at_ns,
            steps: steps.collect(),
            expect: self.expect,
            remarks: self.remarks,
        }
    }

    /// The ABI of the modules that it can be replayed to.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.steps
            .first()
            .map_or(Abi::Agent, |step| step.input.phase().abi())
    }

    /// The inputs, exact ones read back.
    ///
    /// # Errors
    /// What is wrong with an input that is none.
    pub fn inputs(&self) -> Result<Vec<Input<'static>>, String> {
        let mut exact: Vec<(Phase, &str)> = Vec::new();
        for step in &self.steps {
            if let Input::Exact { phase, json, .. } = &step.input {
                exact.push((*phase, har::utf8(json)?));
            }
        }
        if exact.is_empty() {
            let inputs = self.steps.iter().map(|step| step.input.clone());
            return Ok(inputs.map(Input::into_owned).collect());
        }
        if self.abi() == Abi::Hook {
            return exact
                .into_iter()
                .filter_map(|(phase, json)| match phase {
                    Phase::Hook(hook) => Some((hook, json)),
                    Phase::Event(_) => None,
                })
                .map(|(hook, json)| {
                    let context = serde_json::from_str(json)
                        .map_err(|error| format!("input: {}", har::explain(&error)))?;
                    Ok(Input::Hook(hook, Cow::Owned(context)))
                })
                .collect();
        }
        let steps: Vec<(EventKind, &str)> = exact
            .into_iter()
            .filter_map(|(phase, json)| match phase {
                Phase::Event(kind) => Some((kind, json)),
                Phase::Hook(_) => None,
            })
            .collect();
        let events = fixture::events_of(&steps)?;
        Ok(events.into_iter().map(Input::from).collect())
    }

    /// Method and path with query of the request, where one is known.
    #[must_use]
    pub fn request_line(&self) -> Option<(String, String)> {
        #[derive(Deserialize)]
        struct Line {
            method: Option<String>,
            uri: Option<String>,
        }
        match &self.steps.first()?.input {
            Input::Event(event) => match event.as_ref() {
                Event::RequestHeaders(head) => Some((head.method.clone(), head.uri.clone())),
                Event::RequestBody {
                    request: Some(head),
                    ..
                }
                | Event::ResponseBody {
                    request: Some(head),
                    ..
                } => Some((head.method.clone(), head.uri.clone())),
                _ => None,
            },
            Input::Exact {
                phase: Phase::Event(_),
                json,
                ..
            } => {
                let line: Line = serde_json::from_slice(json).ok()?;
                Some((line.method?, line.uri?))
            }
            Input::Hook(..) | Input::Exact { .. } => None,
        }
    }

    /// The status of the captured response, where there is one.
    #[must_use]
    pub fn response_status(&self) -> Option<u16> {
        #[derive(Deserialize)]
        struct Status {
            status: Option<u16>,
        }
        self.steps.iter().find_map(|step| match &step.input {
            Input::Event(event) => match event.as_ref() {
                Event::ResponseHeaders(head) => Some(head.status),
                _ => None,
            },
            Input::Exact {
                phase: Phase::Event(EventKind::ResponseHeaders),
                json,
                ..
            } => serde_json::from_slice::<Status>(json).ok()?.status,
            Input::Hook(..) | Input::Exact { .. } => None,
        })
    }
}

/// How records are decoded.
#[derive(Debug, Clone)]
pub struct DecodeSettings {
    /// The client's address where the format knows none.
    pub client_ip: String,
    /// Which fields of a JSON access log mean what.
    pub fields: FieldMap,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        Self {
            client_ip: DEFAULT_CLIENT_IP.to_owned(),
            fields: FieldMap::default(),
        }
    }
}

/// Decodes a frame's records.
///
/// # Errors
/// Which record cannot be used, and why.
pub fn decode<'f>(
    frame: &'f mut Frame,
    settings: &DecodeSettings,
) -> Result<Transaction<'f>, Unusable> {
    if let Some(ready) = frame.ready.take() {
        return Ok(*ready);
    }
    let frame = &*frame;
    match frame.format {
        Format::Jsonl => jsonl::decode(frame),
        Format::Har => har::decode(frame, settings),
        Format::EnvoyTap => envoy_tap::decode(frame, settings),
        Format::Gor => gor::decode(frame, settings),
        Format::AccessLog | Format::JsonLog => access_log::decode(frame, settings),
        Format::Ftw => Err(frame.unusable("a test file is decoded as a whole".to_owned())),
    }
}

/// One half of an exchange as most formats have it: a head and a whole body.
#[derive(Debug, Default)]
struct Half<H> {
    head: H,
    body: Vec<u8>,
}

/// An exchange in parts, to be made a transaction.
struct Exchange {
    place: Place,
    at_ns: Option<i64>,
    request: Option<Half<RequestHead>>,
    response: Option<Half<ResponseHead>>,
    remarks: Vec<Remark>,
    /// The capture's own id, for a request that carried none.
    own_id: Option<String>,
}

impl Exchange {
    fn new(place: Place) -> Self {
        Self {
            own_id: None,
            place,
            at_ns: None,
            request: None,
            response: None,
            remarks: Vec::new(),
        }
    }

    fn remark(&mut self, remark: Remark) {
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// Events in production order: what a proxy would have asked about.
    fn into_transaction(mut self) -> Transaction<'static> {
        if let Some(request) = &mut self.request
            && headers::as_production(&mut request.head.headers)
        {
            self.remark(Remark::HeaderNotAscii);
        }
        if let Some(response) = &mut self.response
            && headers::as_production(&mut response.head.headers)
        {
            self.remark(Remark::HeaderNotAscii);
        }
        if self.response.is_none() {
            self.remark(Remark::NoResponse);
        }
        let id = self.id();
        let mut steps = Vec::new();
        let mut push = |event: Event| {
            steps.push(CapturedStep {
                input: Input::from(event),
                recorded: None,
            });
        };
        let mut request_head = None;
        if let Some(mut request) = self.request {
            request.head.correlation_id.clone_from(&id);
            let head = Arc::new(request.head.clone());
            request_head = Some(Arc::clone(&head));
            push(Event::RequestHeaders(request.head));
            if !request.body.is_empty() {
                push(Event::RequestBody {
                    chunk: whole_body(&id, request.body),
                    request: Some(head),
                });
            }
        }
        if let Some(mut response) = self.response {
            response.head.correlation_id.clone_from(&id);
            let head = Arc::new(response.head.clone());
            push(Event::ResponseHeaders(response.head));
            if !response.body.is_empty() {
                push(Event::ResponseBody {
                    chunk: whole_body(&id, response.body),
                    request: request_head,
                    response: Some(head),
                });
            }
        }
        Transaction {
            place: self.place,
            id: Cow::Owned(id),
            at_ns: self.at_ns,
            steps,
            expect: None,
            remarks: self.remarks,
        }
    }

    /// The id the request carried, or one from the record's place.
    fn id(&self) -> String {
        let carried = self.request.as_ref().and_then(|request| {
            if !request.head.correlation_id.is_empty() {
                return Some(request.head.correlation_id.clone());
            }
            ["x-correlation-id", "x-request-id"]
                .into_iter()
                .find_map(|name| request.head.headers.value(name))
                .filter(|id| !id.is_empty() && id.len() <= 256)
                .map(str::to_owned)
        });
        carried
            .or_else(|| self.own_id.clone())
            .unwrap_or_else(|| format!("{}-{}", stem(&self.place.file), self.place.record))
    }
}

/// The file's name without folders and extension.
fn stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    match name.split('.').next() {
        Some("-") => "stdin",
        Some(stem) if !stem.is_empty() => stem,
        _ => name,
    }
}

fn whole_body(id: &str, data: Vec<u8>) -> BodyChunk {
    let size = data.len() as u64;
    BodyChunk {
        correlation_id: id.to_owned(),
        chunk_index: 0,
        is_last: true,
        total_size: Some(size),
        transferred_bytes: size,
        data,
    }
}

/// A hash that is the same on every machine and in every release (FNV-1a with
/// a finalizer that spreads it): shards and samples depend on it.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
