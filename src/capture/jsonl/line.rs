//! One line of a recording, whoever wrote it.
//!
//! In: a line's bytes. Out: its parts, and the call that it records.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{CapturedStep, Recorded};
use crate::event::EventKind;
use crate::hook::HookContext;
use crate::json::explain;
use crate::question::{Phase, Question};

/// One line that is what it should be, as far as its texts go.
pub(super) struct Line<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) phase: Phase,
    pub(super) ts: Option<Cow<'a, str>>,
    pub(super) module: Option<Cow<'a, str>>,
    /// Parts of the line.
    pub(super) input: &'a [u8],
    pub(super) output: Option<&'a [u8]>,
    pub(super) chunk_index: Option<u32>,
    pub(super) fuel: Option<u64>,
    pub(super) redacted: bool,
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
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Chunk {
            chunk_index: Option<u32>,
        }
        let line: LineText<'_> = explain::parse(bytes)?;
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
    pub(super) fn step(self) -> Result<CapturedStep<'a>, String> {
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

pub(super) const fn has_chunk(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Event(EventKind::RequestBody | EventKind::ResponseBody)
    )
}

fn input_is(error: &serde_json::Error) -> String {
    format!("input: {}", explain::explain(error))
}
