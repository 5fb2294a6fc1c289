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

mod input;
mod line;
mod output;
mod own;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::assemble::{RecordRole, Roles, SameId, assemble};
use super::detect::Keys as KeysOf;
use super::format::{Read, Reader};
use super::frames::Lines;
use super::heads::{HeadPart, Heads};
use super::progress::{Chunk, Part};
use super::{
    CapturedStep, DecodeSettings, Decoded, Format, Mark, Piece, RawTransaction, Remark, Transaction,
};
use crate::event::EventKind;
use crate::fault::Fault;
use crate::hook::Hook;
use crate::question::Phase;

pub use self::input::read_back;
use self::input::whole_number;
use self::line::Line;

pub(super) static READER: Reader = Reader {
    title: "Our own JSON Lines",
    loses: None,
    // Its first line may be broken, or of a version to come.
    recognises: |head| {
        let is_line = |line: &[u8]| line.starts_with(b"{") && has_keys(&KeysOf::of(line));
        has_keys(&head.keys) || head.lines().any(is_line)
    },
    frames: |stream| {
        let alike = SameId::Heads(heads);
        assemble(
            Lines::new(stream),
            Some(Roles { role, alike }),
            Format::Jsonl,
        )
    },
    read: Read::Group(decode),
};

fn has_keys(keys: &KeysOf) -> bool {
    keys.has("phase") && keys.has("input")
}

fn role(piece: &Piece) -> RecordRole {
    let line = &piece.bytes;
    let own = own::keys(line).and_then(|(id, phase)| {
        let phase = Phase::from_name(std::str::from_utf8(phase).ok()?)?;
        let part = part(phase, || own::chunk(line))?;
        Some((line.slice_ref(id), part, own::ends(line, phase)?))
    });
    let read = own.or_else(|| {
        let keys: Keys<'_> = serde_json::from_slice(line).ok()?;
        let phase = Phase::from_name(&keys.phase)?;
        let part = part(phase, || Some(keys.chunk()))?;
        Some((
            Bytes::copy_from_slice(keys.id.as_bytes()),
            part,
            keys.ends(),
        ))
    });
    read.map_or(RecordRole::Alone, |(id, part, is_last)| RecordRole::Of {
        id,
        part,
        is_last,
    })
}

/// What a record says of the heads of its exchange.
fn heads(piece: &Piece) -> Heads {
    let line = &piece.bytes;
    if let Some((_, phase)) = own::keys(line)
        && let Ok(phase) = std::str::from_utf8(phase)
        && let Some(Phase::Event(kind)) = Phase::from_name(phase)
        && let Some(heads) = own::heads(line, kind)
    {
        return heads;
    }
    serde_json::from_slice(line)
        .map_or_else(|_none| Heads::default(), |keys: Keys<'_>| keys.heads())
}

fn part(phase: Phase, chunk: impl FnOnce() -> Option<Chunk>) -> Option<Part> {
    Some(match phase {
        Phase::Event(EventKind::RequestHeaders) => Part::RequestHead,
        Phase::Event(EventKind::RequestBody) => Part::RequestBody(chunk()?),
        Phase::Event(EventKind::ResponseHeaders) => Part::ResponseHead,
        Phase::Event(EventKind::ResponseBody) => Part::ResponseBody(chunk()?),
        Phase::Hook(Hook::Before) => Part::BeforeHook,
        Phase::Hook(Hook::After) => Part::AfterHook,
    })
}

/// What bringing records together needs of a line.
#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

impl Keys<'_> {
    fn chunk(&self) -> Chunk {
        #[derive(Deserialize, Default)]
        struct Text {
            chunk_index: Option<serde_json::Number>,
            is_last: Option<bool>,
        }
        let text = self.input.map(RawValue::get);
        // What is wrong with it, decoding will say.
        let text: Text = text
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let index = text.chunk_index.map(|index| index.to_string());
        let index = index.and_then(|index| u32::try_from(whole_number(&index)?).ok());
        Chunk {
            index: Some(index.unwrap_or(0)),
            is_last: text.is_last.unwrap_or(false),
        }
    }

    /// In the bytes that our own lines have.
    fn heads(&self) -> Heads {
        #[derive(Deserialize, Default)]
        struct Text {
            method: Option<String>,
            uri: Option<String>,
            client_ip: Option<String>,
            status: Option<serde_json::Number>,
            headers: Option<BTreeMap<String, serde_json::Value>>,
        }
        let text = self.input.map(RawValue::get);
        let text: Text = text
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let headers = text.headers.map(|headers| {
            let lower = headers.into_iter();
            let lower: BTreeMap<String, serde_json::Value> = lower
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect();
            serde_json::json!(lower)
        });
        let of_request = matches!(&*self.phase, "request_headers" | "request_body");
        let of_headers = if of_request {
            HeadPart::RequestHeaders
        } else {
            HeadPart::ResponseHeaders
        };
        let mut heads = Heads::default();
        for (part, value) in [
            (HeadPart::Method, text.method.map(serde_json::Value::from)),
            (HeadPart::Uri, text.uri.map(serde_json::Value::from)),
            (
                HeadPart::ClientIp,
                text.client_ip.map(serde_json::Value::from),
            ),
            (HeadPart::Status, text.status.map(serde_json::Value::from)),
            (of_headers, headers),
        ] {
            if let Some(value) = value {
                heads.set(part, value.to_string().into());
            }
        }
        heads
    }

    fn ends(&self) -> bool {
        #[derive(Deserialize)]
        struct Text {
            decision: Option<serde_json::Value>,
            ok: Option<bool>,
        }
        let text = self.output.map(RawValue::get);
        text.and_then(|text| serde_json::from_str::<Text>(text).ok())
            .is_some_and(|text| {
                text.decision.is_some_and(|decision| decision != "allow") || text.ok == Some(false)
            })
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

fn decode<'f>(frame: &'f RawTransaction, settings: &DecodeSettings) -> Decoded<'f> {
    let mut transaction: Option<Transaction<'_>> = None;
    let mut unusable = Vec::new();
    for piece in &frame.pieces {
        let read = line(&piece.bytes).and_then(|line| {
            let id = line.id.clone();
            let redacted = line.redacted.then_some(Remark::Redacted);
            let marked = line.mark.map(Remark::of_mark);
            let (step, [spelling, address]) = line.step(settings)?;
            let before = transaction.iter().flat_map(|it| &it.steps);
            // Its body would be another one.
            if !unusable.is_empty() && !goes_on(&step, before) {
                return Err(
                    "a record before it that has a part of the same body cannot be used".to_owned(),
                );
            }
            Ok((step, id, [redacted, marked, spelling, address]))
        });
        let (step, id, remarks) = match read {
            Ok(read) => read,
            Err(why) => {
                unusable.push(frame.unusable_at(piece, why));
                continue;
            }
        };
        let begun = transaction.get_or_insert_with(|| Transaction {
            place: frame.place_of(piece),
            id,
            steps: Vec::with_capacity(frame.pieces.len()),
            expect: None,
            remarks: Vec::new(),
        });
        if begun.steps.is_empty() && !step.input.phase().is_first() && frame.note.is_none() {
            begun.remarks.push(Remark::StartMissing);
        }
        for remark in remarks.into_iter().flatten() {
            if !begun.remarks.contains(&remark) {
                begun.remarks.push(remark);
            }
        }
        begun.steps.push(step);
    }
    Decoded {
        transaction,
        unusable,
    }
}

fn line(bytes: &[u8]) -> Result<Line<'_>, String> {
    own::read(bytes).map_or_else(|| Line::read(bytes), Ok)
}

/// Whether the chunk before this one is there, of a body in chunks.
fn goes_on<'s>(
    step: &CapturedStep<'_>,
    mut before: impl DoubleEndedIterator<Item = &'s CapturedStep<'s>>,
) -> bool {
    let Some(index) = step.input.chunk_index().filter(|index| *index > 0) else {
        return true;
    };
    let is_of_body = |it: &&CapturedStep<'_>| it.input.phase() == step.input.phase();
    let last = before.rfind(is_of_body);
    last.is_some_and(|it| it.input.chunk_index() == Some(index - 1))
}

/// One call, to be written as a line: what a proxy's agent answered to an
/// event, or what a host goes on with after a hook
/// ([`HandledHook::effective`](crate::policy::HandledHook::effective)).
#[derive(Debug)]
pub(crate) struct RecordLine<'a, Output> {
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

/// A line without its end, which says whether redacting changed the answer.
pub(crate) struct Written {
    line: Vec<u8>,
    /// The input as it is written.
    pub(crate) input: String,
}

impl Written {
    /// One line, its secrets redacted, and those that were found in others of its
    /// transaction. All lines of a transaction take the same `found`.
    pub(crate) fn new<Output: Serialize>(
        line: &RecordLine<'_, Output>,
        (redactor, found): (&super::Redactor, &mut super::SecretsFound),
    ) -> Self {
        let output = serde_json::to_string(line.output).unwrap_or_else(|_| "null".to_owned());
        let redacted = redactor.record(line.input, &output, found);
        let id = redactor.id(line.id, found);
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let number =
            |value: Option<u64>| value.map_or_else(|| "null".to_owned(), |n| n.to_string());
        let error = line.fault.map_or_else(
            || "null".to_owned(),
            |fault| {
                format!(
                    r#"{{"kind":{},"message":{}}}"#,
                    text(&fault.code.to_string()),
                    text(&crate::fault::printable(
                        &redactor.said(&fault.detail, found),
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
        let line = format!(
            r#"{{"v":1,"id":{},"phase":{},"ts":{at},"module":{},"input":{},"output":{},"error":{error},"fuel":{},"wall_ns":{},"redacted":[{}]"#,
            text(&id),
            text(line.phase),
            text(line.module),
            redacted.input,
            redacted.output,
            number(line.fuel),
            number(line.wall_ns),
            fields.join(",")
        );
        Self {
            line: line.into_bytes(),
            input: redacted.input,
        }
    }

    /// The line with its end.
    pub(crate) fn end(self, mark: Option<Mark>) -> Vec<u8> {
        let mut line = self.line;
        if let Some(mark) = mark {
            line.extend_from_slice(format!(r#","redaction":"{}""#, mark.name()).as_bytes());
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Redactor, SecretsFound};
    use super::*;
    use crate::fault::{FaultCode, TrapKind};

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
                fault: Some(&Fault::new(
                    FaultCode::Trap(TrapKind::Unreachable),
                    said.as_str(),
                )),
                fuel: None,
                wall_ns: None,
            };
            let (redactor, mut found) = (Redactor::with_numbers(), SecretsFound::default());
            let out = Written::new(&line, (&redactor, &mut found)).end(None);
            let out = String::from_utf8(out).unwrap();
            assert!(!out.contains("S3c"), "{said}: {out}");
        }
    }
}
