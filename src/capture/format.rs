//! The formats, and what a reader of a report should know of a capture.

use serde::{Deserialize, Serialize};

use super::assemble::Items;
use super::detect::Head;
use super::stream::Stream;
use super::{
    DecodeSettings, Decoded, ExchangeParts, Mark, RawTransaction, access_log, envoy_tap, ftw, gor,
    har, json_log, jsonl,
};

named! {
    /// What a capture file is written in.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Format {
        /// Our own JSON Lines: exact inputs and answers.
        Jsonl => "jsonl",
        /// HTTP Archive 1.2.
        Har => "har",
        /// Envoy's HTTP tap as JSON, buffered or streamed.
        EnvoyTap => "envoy-tap",
        /// `GoReplay`'s file format.
        Gor => "gor",
        /// go-ftw test files.
        Ftw => "ftw",
        /// Access logs in the combined format.
        AccessLog => "access-log",
        /// Access logs as JSON, one object a line.
        JsonLog => "json-log",
    }
}

impl Format {
    /// What it is, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.reader().title
    }

    /// What the format does not hold, so that a decision about it may differ
    /// from production's; nothing for a format that holds all.
    #[must_use]
    pub fn loses(self) -> Option<&'static str> {
        self.reader().loses
    }

    /// Each format's own description: the one place that names them all.
    pub(super) const fn reader(self) -> &'static Reader {
        match self {
            Self::Jsonl => &jsonl::READER,
            Self::Har => &har::READER,
            Self::EnvoyTap => &envoy_tap::READER,
            Self::Gor => &gor::READER,
            Self::Ftw => &ftw::READER,
            Self::AccessLog => &access_log::READER,
            Self::JsonLog => &json_log::READER,
        }
    }
}

/// All there is to know of a format but its name.
pub(super) struct Reader {
    pub(super) title: &'static str,
    pub(super) loses: Option<&'static str>,
    /// Whether a capture that begins like this is of the format.
    pub(super) recognises: fn(&Head<'_>) -> bool,
    /// Cuts a capture into records, those of one transaction together.
    pub(super) frames: fn(Stream) -> Items,
    pub(super) read: Read,
}

/// Adds a record's part to its exchange.
pub(super) type ReadRecord = fn(&[u8], &DecodeSettings, &mut ExchangeParts) -> Result<(), String>;

/// How records become a transaction.
pub(super) enum Read {
    /// Each record adds its part to the exchange.
    Record(ReadRecord),
    /// All records of a transaction are read together.
    Group(for<'f> fn(&'f RawTransaction, &DecodeSettings) -> Decoded<'f>),
    /// They are read as they are cut.
    Done,
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
    /// The records begin in the middle of an exchange: the rest of it was not
    /// recorded, or nothing but their order tells them from another's.
    StartMissing,
    /// The rest of an exchange whose first records had been handed on.
    ExchangeCut,
    /// A record that may be of several exchanges that share its id.
    ExchangeUnclear,
    /// Inputs were spelled otherwise than production spells them.
    Respelled,
    /// Inputs had keys that no input has.
    UnknownKeys,
    /// A response that a replay tool saw, not production.
    ReplayedResponse,
    /// A HAR entry without credentials; browsers leave them out.
    NoCredentials,
    /// The record was written with secrets redacted.
    Redacted,
    /// Nobody knows when it was, and the module can read a clock.
    NoTime,
    /// The decisions of the time are another module's.
    OtherModule,
    /// An expectation of a test that no module's answer can be held against.
    NotChecked,
    /// No chunk of a body is its last, and the module gets bodies whole.
    BodyUnfinished,
    /// No client's address is known; the default one stands in its place.
    ClientIpDefault,
    /// NUL bytes stood where no record is.
    NulBytes,
    /// A message does not say where its body ends, or says two things.
    FramingUnclear,
    /// Trailers, interim responses and the like, which no event has.
    PartsLeftOut,
    /// Its redacted input led to another decision when it was written.
    RedactionChanged,
    /// Nobody asked the module about its redacted input.
    RedactionUnchecked,
    /// A log's line says several things of one part of a request.
    LogUnclear,
    /// A HAR entry says a query, cookies or a form twice, and differently.
    ListsDiffer,
}

impl Remark {
    /// What a mark of a record says.
    pub(super) const fn of_mark(mark: Mark) -> Self {
        match mark {
            Mark::Changed => Self::RedactionChanged,
            Mark::Unchecked => Self::RedactionUnchecked,
        }
    }

    /// A sentence for people.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::HeaderNotAscii => {
                "header values beyond visible ASCII reach the module empty, as proxies up to zentinel-proxy 0.6.54 send them"
            }
            Self::BodyTruncated => {
                "the capture holds only part of a body; the module sees that part"
            }
            Self::BodyMissing => "a body was not captured, so no body event is replayed",
            Self::NoResponse => "no response was captured, so only the request is replayed",
            Self::StartMissing => {
                "exchanges without their first record: the module has no handler for it, or the capture begins later. Such exchanges can hold records of others that share their id"
            }
            Self::ExchangeCut => {
                "the rest of a long exchange is asked and compared as an exchange of its own. More than 4096 records of others came between two of its records, or more than 96 MiB since its first one"
            }
            Self::ExchangeUnclear => {
                "records that can belong to several exchanges that share an id; each is asked and compared as an exchange of its own, without the records before it"
            }
            Self::Respelled => {
                "inputs were recorded in another spelling (spaces, order of keys, header names, ...); the module gets them as production writes them"
            }
            Self::UnknownKeys => {
                "inputs have keys that production does not write; the module does not get them"
            }
            Self::ReplayedResponse => {
                "responses to an earlier replay do not come from production and are ignored"
            }
            Self::NoCredentials => {
                "neither Authorization nor Cookie; browsers omit them from a HAR by default"
            }
            Self::Redacted => {
                "recorded with secrets redacted; a rule about their values may differ"
            }
            Self::NoTime => {
                "records without a time: the clock of the module reads 2024-01-01 there; --at gives all records a time"
            }
            Self::OtherModule => {
                "recorded with a different module; the recorded decisions and fuel belong to that module"
            }
            Self::BodyUnfinished => {
                "no chunk of a body is its last, and the module gets bodies whole, so it was not asked about it"
            }
            Self::ClientIpDefault => {
                "requests whose client's address is not known; the module gets that of --client-ip"
            }
            Self::NulBytes => {
                "NUL bytes before a record, as in a log that was emptied while a program wrote to it; they hold nothing"
            }
            Self::RedactionChanged => {
                "redacting the input changed the decision, so the recorded one belongs to another input: it is not compared, and no fixture is made of it"
            }
            Self::RedactionUnchecked => {
                "written without asking the module about the redacted input, so the recorded decision may belong to another one"
            }
            Self::NotChecked => {
                "expectations that a module cannot meet or miss (response or log text)"
            }
            Self::FramingUnclear => {
                "lengths that contradict each other or are no numbers, or an unknown transfer coding: all bytes behind the head are taken for the body"
            }
            Self::LogUnclear => {
                "lines of a log that say other things of the request than what the module gets (two targets or methods, a status that is no number, headers that are no texts); what the client asked for is taken, as far as the keys tell"
            }
            Self::PartsLeftOut => {
                "trailers, interim responses (1xx), messages of a WebSocket, credentials in a URL, what a test sends behind its request and what it gives but go-ftw does not send belong to no event, so the module does not get them"
            }
            Self::ListsDiffer => {
                "lists of cookies, query or form fields with names that the header, URL or text beside them lacks, or with entries that cannot be read; the module does not get those"
            }
        }
    }
}
