//! Our own JSON Lines: the exact input of each call and what was answered.
//!
//! One object a line, the lines of one transaction with the same id. The phase
//! is an event of an exchange or a hook, `output` the agent response or the
//! hook's effective result:
//!
//! ```json
//! {"v":1,"id":"c1","phase":"request_headers","ts":"2026-01-01T00:00:00Z",
//!  "module":"sha256:…","input":{…},"output":{…},"error":null,"fuel":39472,
//!  "wall_ns":11300,"redacted":["headers.cookie"]}
//! ```
//!
//! `schema/capture-1.schema.json` in the repository says it in full.

mod own;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::assemble::{Assembler, Part, Sorted};
use super::frames::Lines;
use super::source::Stream;
use super::{
    CapturedStep, Format, Frame, Item, Piece, Place, Recorded, Remark, Transaction, Unusable,
};
use crate::event::EventKind;
use crate::fault::Fault;
use crate::hook::HookContext;
use crate::question::{Phase, Question};

pub(super) fn frames(stream: Stream) -> impl Iterator<Item = Item> + Send {
    let file = Arc::clone(&stream.file);
    Assembler::new(Lines::new(stream), sort, file, Format::Jsonl)
}

fn sort(piece: &Piece) -> Sorted {
    if let Some((id, phase)) = own::keys(&piece.bytes) {
        return Sorted::Of(piece.bytes.slice_ref(id), part(phase));
    }
    #[derive(Deserialize)]
    struct Keys<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
        #[serde(borrow)]
        phase: Cow<'a, str>,
    }
    match serde_json::from_slice::<Keys<'_>>(&piece.bytes) {
        Ok(keys) => Sorted::Of(
            Bytes::copy_from_slice(keys.id.as_bytes()),
            part(keys.phase.as_bytes()),
        ),
        Err(_unreadable) => Sorted::Alone,
    }
}

/// Whether a line is a record; of one that was cut, whether it begins as ours
/// do.
pub(crate) fn is_record(line: &[u8], is_whole: bool) -> bool {
    if is_whole {
        return own::read(line).is_some() || Line::read(line).is_ok();
    }
    own::keys(line).is_some_and(|(_, phase)| {
        std::str::from_utf8(phase).is_ok_and(|phase| Phase::from_name(phase).is_some())
    })
}

fn part(phase: &[u8]) -> Part {
    if phase == b"request_headers" || phase == b"before_hook" {
        Part::First
    } else {
        Part::Next
    }
}

pub(super) fn decode(frame: &Frame) -> Result<Transaction<'_>, Unusable> {
    let mut transaction: Option<Transaction<'_>> = None;
    for piece in &frame.pieces {
        let place = || Place {
            file: Arc::clone(&frame.file),
            record: piece.record,
            offset: piece.offset,
        };
        let refuse = |why| Unusable {
            place: place(),
            why,
        };
        let line = match own::read(&piece.bytes) {
            Some(line) => line,
            None => Line::read(&piece.bytes).map_err(&refuse)?,
        };
        let phase = line.phase;
        let begun = transaction.get_or_insert_with(|| Transaction {
            place: place(),
            id: line.id.clone(),
            at_ns: line.ts.as_deref().and_then(nanoseconds),
            steps: Vec::with_capacity(frame.pieces.len()),
            expect: None,
            remarks: Vec::new(),
        });
        if begun.steps.is_empty() && !phase.is_first() {
            begun.remarks.push(Remark::StartMissing);
        }
        if line.redacted && !begun.remarks.contains(&Remark::Redacted) {
            begun.remarks.push(Remark::Redacted);
        }
        if begun.abi() != phase.abi() && !begun.steps.is_empty() {
            return Err(refuse(format!(
                "expected a phase of the {} ABI, as the records before of the same id, found {}",
                begun.abi().name(),
                phase.name()
            )));
        }
        begun.steps.push(line.step().map_err(&refuse)?);
    }
    transaction.ok_or_else(|| frame.unusable("no record".to_owned()))
}

/// One line that is what it should be, as far as its texts go.
struct Line<'a> {
    id: Cow<'a, str>,
    phase: Phase,
    ts: Option<Cow<'a, str>>,
    module: Option<Cow<'a, str>>,
    /// Parts of the line.
    input: &'a [u8],
    output: Option<&'a [u8]>,
    chunk_index: Option<u32>,
    fuel: Option<u64>,
    redacted: bool,
}

#[derive(Deserialize)]
struct LineText<'a> {
    v: u32,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow, default)]
    ts: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    module: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    fuel: Option<u64>,
    #[serde(default)]
    redacted: Vec<serde::de::IgnoredAny>,
}

impl<'a> Line<'a> {
    /// A line as anybody may write it, or what is wrong with it in our words.
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Chunk {
            chunk_index: Option<u32>,
        }
        let text = super::har::utf8(bytes)?;
        let line: LineText<'_> =
            serde_json::from_str(text).map_err(|error| super::har::explain(&error))?;
        if line.v != 1 {
            return Err(format!("expected \"v\": 1, found {}", line.v));
        }
        let phase = Phase::from_name(&line.phase).ok_or_else(|| {
            format!(
                "unknown phase {:?}; known: {}",
                line.phase,
                Phase::ALL.map(Phase::name).join(", ")
            )
        })?;
        let json = line.input.get();
        if !json.starts_with('{') {
            return Err("expected \"input\" to be an object".to_owned());
        }
        let chunk_index = if has_chunk(phase) {
            let chunk: Chunk = serde_json::from_str(json).map_err(|error| input_is(&error))?;
            Some(chunk.chunk_index.unwrap_or(0))
        } else {
            None
        };
        let output = line.output.map(|output| output.get().as_bytes());
        Ok(Self {
            id: line.id,
            phase,
            ts: line.ts,
            module: line.module,
            input: json.as_bytes(),
            output: output.filter(|output| *output != b"null"),
            chunk_index,
            fuel: line.fuel,
            redacted: !line.redacted.is_empty(),
        })
    }

    /// The call it records.
    fn step(self) -> Result<CapturedStep<'a>, String> {
        if matches!(self.phase, Phase::Hook(_)) {
            // What comes back is applied to it, so it has to be one.
            serde_json::from_slice::<HookContext>(self.input).map_err(|error| input_is(&error))?;
        }
        Ok(CapturedStep {
            input: Question::Exact {
                phase: self.phase,
                chunk_index: self.chunk_index,
                json: Cow::Borrowed(self.input),
            },
            recorded: self.output.map(|output| Recorded {
                response: Cow::Borrowed(output),
                fuel: self.fuel,
                module: self.module,
            }),
        })
    }
}

const fn has_chunk(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Event(EventKind::RequestBody | EventKind::ResponseBody)
    )
}

fn input_is(error: &serde_json::Error) -> String {
    format!("input: {}", super::har::explain(error))
}

/// RFC 3339 as nanoseconds since 1970.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// One call, to be written as a line: what a proxy's agent answered to an
/// event, or what a host goes on with after a hook
/// ([`HandledHook::effective`](crate::policy::HandledHook::effective)).
#[derive(Debug)]
pub struct RecordLine<'a, Output> {
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
    /// The agent response, or the effective result of a hook.
    pub output: &'a Output,
    /// What the guest did wrong.
    pub fault: Option<&'a Fault>,
    /// Instructions, where they were counted.
    pub fuel: Option<u64>,
    /// Wall clock of the call, where it is to be told.
    pub wall_ns: Option<u64>,
}

/// Writes one line, its secrets redacted, and those that were found in others
/// of its transaction. All lines of a transaction take the same `found`.
pub fn write_record<Output: Serialize>(
    line: &RecordLine<'_, Output>,
    (redactor, found): (&super::Redactor, &mut super::Found),
    out: &mut Vec<u8>,
) {
    let output = serde_json::to_string(line.output).unwrap_or_else(|_| "null".to_owned());
    let redacted = redactor.record(line.input, &output, found);
    let id = redactor.id(line.id, found);
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let number = |value: Option<u64>| value.map_or_else(|| "null".to_owned(), |n| n.to_string());
    let error = line.fault.map_or_else(
        || "null".to_owned(),
        |fault| {
            format!(
                r#"{{"kind":{},"message":{}}}"#,
                text(&fault.code.to_string()),
                text(&crate::fault::printable(
                    &found.quoting_text(&fault.detail),
                    256
                ))
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
            text(&id),
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

#[cfg(test)]
mod tests {
    use super::super::{Found, Redactor};
    use super::*;
    use crate::fault::FaultCode;

    /// A secret that reaches over the end of what is shown is none the less
    /// found as a whole.
    #[test]
    fn no_beginning_of_a_secret_is_left_in_a_fault() {
        let secret = "S3cret-that-is-long-enough-to-be-cut";
        let long = (215..260).map(|before| format!("{} {secret} and more", "x".repeat(before)));
        // As the fault of an answer quotes it.
        let quoted = (6..secret.len()).map(|cut| {
            let answer = format!("{} {secret}", "x".repeat(59 - cut));
            format!("found {}, twice", crate::fault::printable(&answer, 60))
        });
        for said in long.chain(quoted) {
            let line = RecordLine {
                id: "c1",
                phase: "request_headers",
                at_ns: None,
                module: "sha256:0",
                input: &format!(r#"{{"headers":{{"x-api-key":"{secret}"}}}}"#),
                output: &serde_json::Value::Null,
                fault: Some(&Fault::new(FaultCode::Trap("unreachable"), said.as_str())),
                fuel: None,
                wall_ns: None,
            };
            let (redactor, mut found) = (Redactor::with_numbers(), Found::default());
            let mut out = Vec::new();
            write_record(&line, (&redactor, &mut found), &mut out);
            let out = String::from_utf8(out).unwrap();
            assert!(!out.contains("S3c"), "{said}: {out}");
        }
    }
}
