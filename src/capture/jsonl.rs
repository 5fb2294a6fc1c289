//! Our own JSON Lines: the exact input of each call and what was answered.
//!
//! One object a line, the lines of one transaction with the same id:
//!
//! ```json
//! {"v":1,"id":"c1","phase":"request_headers","ts":"2026-01-01T00:00:00Z",
//!  "module":"sha256:…","input":{…},"output":{…},"error":null,"fuel":39472,
//!  "wall_ns":11300,"redacted":["headers.cookie"]}
//! ```
//!
//! `schema/capture-1.schema.json` in the repository says it in full.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::assemble::{Assembler, Part, Sorted};
use super::frames::Lines;
use super::source::Stream;
use super::{
    CapturedStep, Format, Frame, Item, Piece, Place, Recorded, Remark, StepInput, Transaction,
    Unusable,
};
use crate::event::EventKind;
use crate::fault::Fault;
use crate::response::AgentResponse;

/// How our own lines begin, so that most need no parsing to be sorted.
const OWN_START: &[u8] = br#"{"v":1,"id":""#;
const OWN_PHASE: &[u8] = br#"","phase":""#;

pub(super) fn frames(stream: Stream) -> impl Iterator<Item = Item> + Send {
    let file = std::sync::Arc::clone(&stream.file);
    Assembler::new(Lines::new(stream), sort, file, Format::Jsonl)
}

fn sort(piece: &Piece) -> Sorted {
    if let Some((id, phase)) = own(&piece.bytes) {
        return Sorted::Of(id.into(), part(phase));
    }
    #[derive(Deserialize)]
    struct Keys<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        phase: Cow<'a, str>,
    }
    match serde_json::from_slice::<Keys<'_>>(&piece.bytes) {
        Ok(keys) => Sorted::Of(keys.id.as_bytes().into(), part(keys.phase.as_bytes())),
        Err(_unreadable) => Sorted::Alone,
    }
}

/// Id and phase of a line as we write it.
fn own(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(OWN_START)?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    let (id, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(OWN_PHASE)?;
    let end = memchr::memchr(b'"', rest)?;
    Some((id, &rest[..end]))
}

fn part(phase: &[u8]) -> Part {
    if phase == b"request_headers" || phase == b"before_hook" {
        Part::First
    } else {
        Part::Next
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    v: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow, default)]
    ts: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    fuel: Option<u64>,
    #[serde(default)]
    redacted: Vec<serde::de::IgnoredAny>,
}

pub(super) fn decode(frame: &Frame) -> Result<Transaction, Unusable> {
    let mut steps = Vec::with_capacity(frame.pieces.len());
    let mut transaction: Option<Transaction> = None;
    for piece in &frame.pieces {
        let place = Place {
            file: std::sync::Arc::clone(&frame.file),
            record: piece.record,
            offset: piece.offset,
        };
        let refuse = |why| Unusable {
            place: place.clone(),
            why,
        };
        let line: Line<'_> = parse(&piece.bytes).map_err(&refuse)?;
        let kind = check(&line).map_err(&refuse)?;
        let begun = transaction.get_or_insert_with(|| Transaction {
            place: place.clone(),
            id: line.id.clone().into_owned(),
            at_ns: line.ts.as_deref().and_then(nanoseconds),
            steps: Vec::new(),
            expect: None,
            remarks: Vec::new(),
        });
        if steps.is_empty() && kind != EventKind::RequestHeaders {
            begun.remarks.push(Remark::StartMissing);
        }
        if !line.redacted.is_empty() && !begun.remarks.contains(&Remark::Redacted) {
            begun.remarks.push(Remark::Redacted);
        }
        steps.push(step(&line, kind).map_err(&refuse)?);
    }
    let mut transaction = transaction.ok_or_else(|| frame.unusable("no record".to_owned()))?;
    transaction.steps = steps;
    Ok(transaction)
}

/// A line, or what is wrong with it in our words.
fn parse(bytes: &[u8]) -> Result<Line<'_>, String> {
    super::har::utf8(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| super::har::explain(&error))
}

fn check(line: &Line<'_>) -> Result<EventKind, String> {
    if line.v != 1 {
        return Err(format!("expected \"v\": 1, found {}", line.v));
    }
    EventKind::from_name(&line.phase).ok_or_else(|| {
        format!(
            "unknown phase {:?}; known: {}",
            line.phase,
            EventKind::ALL.map(EventKind::name).join(", ")
        )
    })
}

fn step(line: &Line<'_>, kind: EventKind) -> Result<CapturedStep, String> {
    #[derive(Deserialize)]
    struct Chunk {
        chunk_index: Option<u32>,
    }
    let json = line.input.get();
    if !json.starts_with('{') {
        return Err("expected \"input\" to be an object".to_owned());
    }
    let chunk_index = match kind {
        EventKind::RequestBody | EventKind::ResponseBody => {
            let chunk: Chunk = serde_json::from_str(json)
                .map_err(|error| format!("input: {}", super::har::explain(&error)))?;
            Some(chunk.chunk_index.unwrap_or(0))
        }
        EventKind::RequestHeaders | EventKind::ResponseHeaders => None,
    };
    Ok(CapturedStep {
        input: StepInput::Exact {
            kind,
            chunk_index,
            json: json.into(),
        },
        recorded: line
            .output
            .filter(|output| output.get() != "null")
            .map(|output| Recorded {
                response: output.get().into(),
                fuel: line.fuel,
            }),
    })
}

/// RFC 3339 as nanoseconds since 1970.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// One call, to be written as a line.
#[derive(Debug)]
pub struct RecordLine<'a> {
    /// The transaction.
    pub id: &'a str,
    /// The handler.
    pub phase: &'a str,
    /// When it was called, in nanoseconds since 1970, where that is known.
    pub at_ns: Option<i64>,
    /// `sha256:` and the module's hash.
    pub module: &'a str,
    /// The exact input JSON.
    pub input: &'a str,
    /// What the agent answered.
    pub output: &'a AgentResponse,
    /// What the guest did wrong.
    pub fault: Option<&'a Fault>,
    /// Instructions, where they were counted.
    pub fuel: Option<u64>,
    /// Wall clock of the call, where it is to be told.
    pub wall_ns: Option<u64>,
}

/// Writes one line, its secrets redacted.
pub fn write_record(line: &RecordLine<'_>, redactor: &super::Redactor, out: &mut Vec<u8>) {
    let output = serde_json::to_string(line.output).unwrap_or_else(|_| "null".to_owned());
    let redacted = redactor.record(line.input, &output);
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let number = |value: Option<u64>| value.map_or_else(|| "null".to_owned(), |n| n.to_string());
    let error = line.fault.map_or_else(
        || "null".to_owned(),
        |fault| {
            format!(
                r#"{{"kind":{},"message":{}}}"#,
                text(&fault.code.to_string()),
                text(&redacted.text(&crate::fault::printable(&fault.detail, 256)))
            )
        },
    );
    let at = line
        .at_ns
        .and_then(|at| jiff::Timestamp::from_nanosecond(at.into()).ok())
        .map_or_else(|| "null".to_owned(), |at| format!("\"{at:.9}\""));
    let fields: Vec<String> = redacted.fields.iter().map(|field| text(field)).collect();
    out.extend_from_slice(
        format!(
            r#"{{"v":1,"id":{},"phase":{},"ts":{at},"module":{},"input":{},"output":{},"error":{error},"fuel":{},"wall_ns":{},"redacted":[{}]}}"#,
            text(line.id),
            text(line.phase),
            text(line.module),
            redacted.input,
            redacted.output,
            number(line.fuel),
            number(line.wall_ns),
            fields.join(",")
        )
        .as_bytes(),
    );
    out.push(b'\n');
}
