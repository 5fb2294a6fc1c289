//! One line of a recording, whoever wrote it.
//!
//! In: a line's bytes. Out: its parts, and the call that it records.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{CapturedStep, DecodeSettings, Mark, Recorded, Remark};
use super::input::{self, Written, written};
use super::output;
use crate::fault::printable;
use crate::json::explain;
use crate::json::numbers::lossy;
use crate::json::read::FastReader;
use crate::question::{Phase, Question};
use crate::time::nanoseconds;

/// One line that is what it should be, as far as its texts go.
pub(super) struct Line<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) phase: Phase,
    pub(super) ts: Option<Cow<'a, str>>,
    pub(super) module: Option<Cow<'a, str>>,
    /// Parts of the line.
    pub(super) input: &'a [u8],
    pub(super) output: Option<&'a [u8]>,
    /// An event's input that production would write in these very bytes.
    pub(super) written: Option<Written>,
    pub(super) fuel: Option<u64>,
    pub(super) redacted: bool,
    /// What is said of the redacted input.
    pub(super) mark: Option<Mark>,
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
    #[serde(borrow, default)]
    redaction: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// A line as anybody may write it, or what is wrong with it in our words.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let line: LineText<'_> = explain::parse(bytes)?;
        if line.v != 1 {
            return Err(format!("expected \"v\": 1, found {}", line.v));
        }
        let phase = Phase::from_name(&line.phase).ok_or_else(|| {
            format!(
                "unknown phase {:?}; known: {}",
                printable(&line.phase, 40),
                Phase::ALL.map(Phase::name).join(", ")
            )
        })?;
        let json = line.input.get();
        if !json.starts_with('{') {
            return Err("expected \"input\" to be an object".to_owned());
        }
        let mark = line.redaction.as_deref().map(mark).transpose()?;
        let written = match phase {
            Phase::Event(kind) => {
                FastReader::read(json.as_bytes(), |reader| written(reader, kind)).ok()
            }
            Phase::Hook(_) => None,
        };
        let output = line.output.map(|output| output.get().as_bytes());
        Ok(Self {
            id: line.id,
            phase,
            ts: line.ts,
            module: line.module,
            input: json.as_bytes(),
            output: output.filter(|output| *output != b"null"),
            written,
            fuel: line.fuel,
            redacted: !line.redacted.is_empty(),
            mark,
        })
    }

    /// The call it records, and what is to be said of its input.
    pub(super) fn step(
        self,
        settings: &DecodeSettings,
    ) -> Result<(CapturedStep<'a>, [Option<Remark>; 2]), String> {
        let (input, remarks) = match (self.written, self.phase) {
            (Some(Written { chunk_index }), phase) => {
                let json = Cow::Borrowed(self.input);
                let exact = Question::Exact {
                    phase,
                    chunk_index,
                    json,
                };
                (exact, [None; 2])
            }
            (None, phase) => {
                let text = explain::utf8(self.input)?;
                no_lossy_number(("input", text), phase)?;
                let read = input::read(phase, text, (&self.id, settings));
                read.map_err(|why| format!("input: {why}"))?
            }
        };
        if let Some(json) = self.output {
            output::check(json, self.phase)?;
            no_lossy_number(("output", explain::utf8(json)?), self.phase)?;
        }
        let recorded = self.output.map(|output| Recorded {
            response: Cow::Borrowed(output),
            fuel: self.fuel,
            module: self.module,
        });
        let step = CapturedStep {
            input,
            at_ns: self.ts.as_deref().and_then(nanoseconds),
            recorded,
        };
        Ok((step, remarks))
    }
}

/// What a line says of its redacted input; a word that is not known might say that
/// nothing of the line is to be compared.
fn mark(name: &str) -> Result<Mark, String> {
    Mark::from_name(name).ok_or_else(|| {
        format!(
            "expected \"redaction\" to be {}, found {:?}",
            Mark::ALL.map(Mark::name).join(" or "),
            printable(name, 40)
        )
    })
}

/// Refuses a hook's record with a number that gets lost when it is read: the guest
/// would get another one, or another one would be compared.
fn no_lossy_number((part, json): (&str, &str), phase: Phase) -> Result<(), String> {
    let lost = matches!(phase, Phase::Hook(_))
        .then(|| lossy(json))
        .flatten();
    lost.map_or(Ok(()), |number| {
        Err(format!(
            "{part}: expected numbers that a 64-bit integer or a double holds with all their digits, found {}",
            printable(number, 60)
        ))
    })
}
