//! Bodies as a module is to get them: chunk by chunk, or whole.
//!
//! In: the chunks of one body, in turn. Out: for each of them what to do: ask the
//! module, answer in its place since more is to come, or treat it as a fault. The
//! collected body has the chunk fields of one that came in one piece, so equal
//! bodies give equal input however they were cut.

use crate::answer::Answer;
use crate::event::{BodyChunk, Event};
use crate::fault::{BadAnswer, Fault, FaultCode, printable};
use crate::guest::{Checked, Module};
use crate::response::AgentResponse;

/// Size of a body that is collected for a module.
pub const DEFAULT_MAX_BODY_BYTES: u64 = 1 << 20;

named! {
    /// How a module gets bodies.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum BodyMode {
        /// Each chunk as the proxy sends it, as the published agents do. The default.
        #[default]
        Chunks => "chunks",
        /// The whole body in one event, once its last chunk has come.
        Whole => "whole",
    }
}

/// How a module gets bodies, and how large they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodySettings {
    /// What was asked for, which holds where the module does not say it itself; chunks
    /// where nothing was.
    pub mode: Option<BodyMode>,
    /// Bytes of a body that is collected; a longer one is the fault
    /// `body-too-large`.
    pub max_bytes: u64,
}

impl Default for BodySettings {
    fn default() -> Self {
        Self {
            mode: None,
            max_bytes: DEFAULT_MAX_BODY_BYTES,
        }
    }
}

impl BodySettings {
    /// How this module gets bodies: its own word goes first.
    #[must_use]
    pub(crate) const fn mode_of(&self, module: &Module) -> BodyMode {
        match module.wants_whole_bodies() {
            Some(true) => BodyMode::Whole,
            Some(false) => BodyMode::Chunks,
            None => match self.mode {
                Some(mode) => mode,
                None => BodyMode::Chunks,
            },
        }
    }

    /// That what was asked for has no effect, as the module says the opposite.
    pub(crate) fn unused(&self, module: &Module) -> Option<String> {
        let asked = self.mode.filter(|mode| *mode != self.mode_of(module))?;
        let says = module.wants_whole_bodies().map(u8::from)?;
        Some(format!(
            "--body {} changes nothing: {} exports the global whole_body with the value {says}",
            asked.name(),
            printable(&module.path.display().to_string(), 200)
        ))
    }
}

/// What to do about a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// The chunk holds the whole body now: ask the module about it. It came in so
    /// many chunks.
    Whole(u32),
    /// Answer in the module's place: more is to come.
    More,
}

/// What was collected of one body.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    data: Vec<u8>,
    chunks: u32,
    /// A chunk 0 is the first of a body. Else it may be one without a number, of a
    /// peer that numbers none.
    is_numbered: bool,
    /// Why the module cannot be asked about this body any more.
    failed: Option<FaultCode>,
}

/// Of a request's body and of its response's.
pub(super) type Bodies = [Collector; 2];

impl Collector {
    pub(crate) const fn new(is_numbered: bool) -> Self {
        Self {
            data: Vec::new(),
            chunks: 0,
            is_numbered,
            failed: None,
        }
    }

    /// Takes the next chunk in; the last one comes back as the whole body.
    ///
    /// # Errors
    /// `body-too-large`, and `body-incomplete` where a chunk before it is missing.
    pub(crate) fn take(
        &mut self,
        chunk: &mut BodyChunk,
        max_bytes: u64,
    ) -> Result<Collected, Fault> {
        let size = self.data.len() as u64 + chunk.data.len() as u64;
        if !self.goes_on(chunk, size) {
            self.fail(FaultCode::BodyIncomplete);
        }
        let announced = chunk.total_size.unwrap_or_default();
        if size.max(announced) > max_bytes {
            self.fail(FaultCode::BodyTooLarge);
        }
        // The beginning of a long body is all that a proxy with a buffer of this size
        // sends: it does not say so, and nothing follows.
        let may_be_cut = self.chunks == 0 && !chunk.is_last;
        if may_be_cut && size >= max_bytes {
            self.fail(FaultCode::BodyTooLarge);
        }
        if let Some(code) = self.failed {
            let chunks = self.chunks.saturating_add(1);
            self.chunks = if chunk.is_last { 0 } else { chunks };
            return Err(why(code, max_bytes));
        }
        self.chunks += 1;
        if !chunk.is_last {
            self.data.extend_from_slice(&chunk.data);
            return Ok(Collected::More);
        }
        if !self.data.is_empty() {
            self.data.extend_from_slice(&chunk.data);
            chunk.data = std::mem::take(&mut self.data);
        }
        chunk.chunk_index = 0;
        chunk.transferred_bytes = size;
        chunk.total_size = Some(size);
        let chunks = std::mem::take(&mut self.chunks);
        Ok(Collected::Whole(chunks))
    }

    /// Whether a chunk follows the ones before, with which the body has this size. The
    /// count of bytes tells it best: zentinel-proxy 0.6.54 gives the number 0 twice in
    /// its hybrid mode. A peer may count only the bytes of the chunk, or nothing.
    const fn goes_on(&self, chunk: &BodyChunk, size: u64) -> bool {
        let counted = chunk.transferred_bytes;
        if self.chunks == 0 {
            // Where only the chunks tell one body from another, a count of more bytes
            // than its own says that others came before.
            let is_first = !self.is_numbered || counted <= size;
            return chunk.chunk_index == 0 && is_first;
        }
        if counted == size && counted > 0 {
            return true;
        }
        if chunk.chunk_index != 0 || self.is_numbered {
            return chunk.chunk_index == self.chunks;
        }
        counted == 0 || counted == chunk.data.len() as u64
    }

    /// The rest of the body is no longer collected, and its memory is given back.
    pub(crate) fn fail(&mut self, code: FaultCode) {
        self.failed.get_or_insert(code);
        self.data = Vec::new();
    }

    /// Bytes that it holds.
    pub(crate) const fn bytes(&self) -> usize {
        self.data.capacity()
    }

    /// Whether chunks came, and the last one did not.
    pub(crate) const fn is_begun(&self) -> bool {
        self.chunks > 0
    }

    /// The same, and nobody was told that something is wrong with it.
    pub(crate) const fn is_unfinished(&self) -> bool {
        self.is_begun() && self.failed.is_none()
    }
}

fn why(code: FaultCode, max_bytes: u64) -> Fault {
    let what = match code {
        FaultCode::BodyTooLarge => {
            format!("the body is longer than the {max_bytes} bytes that are collected (--max-body)")
        }
        FaultCode::Overload => "no room to collect this body".to_owned(),
        _ => "a chunk of this body is missing, so the module cannot be asked about it".to_owned(),
    };
    Fault::new(code, what)
}

/// The fault of a chunk that comes alone, to a module that wants whole bodies.
pub(super) fn alone() -> Fault {
    Fault::new(
        FaultCode::BodyIncomplete,
        "the module wants whole bodies, and this is a part of one; ask about all of its chunks through one policy::Exchange",
    )
}

/// The chunk of a body event.
pub(crate) const fn chunk_of(event: &mut Event) -> Option<&mut BodyChunk> {
    match event {
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => Some(chunk),
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
    }
}

/// Whether an answer replaces or drops the body that it is about.
pub(crate) const fn replaces_body(response: &AgentResponse) -> bool {
    response.request_body_mutation.is_some() || response.response_body_mutation.is_some()
}

/// Holds an answer to a collected body against what can be carried out: the chunks
/// before the last one have been passed on, so the body cannot be replaced.
pub(crate) fn check(
    answer: Result<Option<Checked>, Fault>,
    chunks: u32,
) -> Result<Option<Checked>, Fault> {
    match answer {
        Ok(Some(checked)) => match cannot_be_done(&checked.answer, chunks) {
            Some(fault) => Err(fault),
            None => Ok(Some(checked)),
        },
        other => other,
    }
}

/// Why an answer to a body that came in so many chunks cannot be carried out.
pub(crate) fn cannot_be_done(answer: &Answer, chunks: u32) -> Option<Fault> {
    match answer {
        Answer::Response(response) if chunks > 1 && answer.passes() && replaces_body(response) => {
            Some(Fault::new(
                FaultCode::BadAnswer(BadAnswer::BodyMutation),
                "the answer replaces a body that came in several chunks, of which the proxy has passed on all but the last",
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: u32, data: &str, is_last: bool) -> BodyChunk {
        BodyChunk {
            chunk_index: index,
            data: data.into(),
            is_last,
            ..BodyChunk::default()
        }
    }

    /// The whole body, or the code of the fault at the chunk that led to it.
    fn collect(chunks: &[BodyChunk], max: u64) -> Result<BodyChunk, (usize, FaultCode)> {
        let mut collector = Collector::new(false);
        for (at, chunk) in chunks.iter().enumerate() {
            let mut chunk = chunk.clone();
            match collector.take(&mut chunk, max) {
                Ok(Collected::More) => assert!(at + 1 < chunks.len()),
                Ok(Collected::Whole(count)) => {
                    assert_eq!(count as usize, chunks.len());
                    assert_eq!(collector.bytes(), 0);
                    return Ok(chunk);
                }
                Err(fault) => {
                    assert_eq!(collector.bytes(), 0);
                    return Err((at, fault.code));
                }
            }
        }
        panic!("no last chunk");
    }

    #[test]
    fn equal_bodies_are_equal_however_they_were_cut() {
        let one = collect(&[chunk(0, "abcdef", true)], 6).unwrap();
        assert_eq!((one.total_size, one.transferred_bytes), (Some(6), 6));
        for cut in [
            vec![chunk(0, "abc", false), chunk(1, "def", true)],
            vec![
                chunk(0, "", false),
                chunk(1, "abcdef", false),
                chunk(2, "", true),
            ],
            // Not numbered.
            vec![chunk(0, "ab", false), chunk(0, "cdef", true)],
        ] {
            assert_eq!(collect(&cut, 6).unwrap(), one);
        }
    }

    #[test]
    fn what_is_too_long_or_has_a_gap_is_a_fault_to_its_end() {
        let long = [chunk(0, "abc", false), chunk(1, "def", true)];
        assert_eq!(collect(&long, 5), Err((1, FaultCode::BodyTooLarge)));
        let mut announced = chunk(0, "a", false);
        announced.total_size = Some(9);
        assert_eq!(collect(&[announced], 5), Err((0, FaultCode::BodyTooLarge)));
        let mut tail = chunk(1, "b", true);
        tail.transferred_bytes = 1;
        assert_eq!(collect(&[tail], 5), Err((0, FaultCode::BodyIncomplete)));
        let gap = [chunk(0, "a", false), chunk(2, "c", true)];
        assert_eq!(collect(&gap, 5), Err((1, FaultCode::BodyIncomplete)));
        assert_eq!(
            collect(&[chunk(1, "b", true)], 5),
            Err((0, FaultCode::BodyIncomplete))
        );
        let mut collector = Collector::new(false);
        let mut long = chunk(0, "abcdef", false);
        assert!(collector.take(&mut long, 5).is_err());
        let last = collector.take(&mut chunk(1, "g", true), 5);
        assert_eq!(last.unwrap_err().code, FaultCode::BodyTooLarge);
    }
}
