//! Fast reader for the lines that we write ourselves.
//!
//! A replay's guests take some microseconds for a record, so its JSON must not
//! take as long. Where a line has our own layout (keys in our order, no blanks)
//! its parts are found by checking the JSON of each and building nothing. A line
//! that is any other, or broken, is none of ours: the general reader says what
//! it is, or what is wrong with it.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

use super::super::Mark;
use super::super::heads::{HeadPart, Heads};
use super::super::progress::Chunk;
use super::input::written;
use super::line::Line;
use crate::event::EventKind;
use crate::json::read::{FastReader, NotPlain};
use crate::question::Phase;

const START: &[u8] = br#"{"v":1,"id":""#;
const PHASE: &[u8] = br#"","phase":""#;

/// Id and phase of a line of ours, which is all that sorting needs.
pub(super) fn keys(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(START)?;
    let end = memchr2(b'"', b'\\', rest)?;
    let (id, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(PHASE)?;
    let end = memchr(b'"', rest)?;
    Some((id, &rest[..end]))
}

/// Where a body event's chunk stands, if it is said as we say it.
pub(super) fn chunk(line: &[u8]) -> Option<Chunk> {
    chunk_at(line).map(|(_, chunk)| chunk)
}

/// The same, and where the line says it.
///
/// Between quotes a quote is escaped, so a text cannot pass for these keys;
/// and where headers have names like them, their values are texts.
fn chunk_at(line: &[u8]) -> Option<(usize, Chunk)> {
    static INDEX: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#","chunk_index":"#));
    INDEX.find_iter(line).find_map(|at| {
        let rest = line.get(at + INDEX.needle().len()..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (index, rest) = rest.split_at_checked(digits)?;
        let rest = rest.strip_prefix(br#","is_last":"#)?;
        let chunk = Chunk {
            index: Some(std::str::from_utf8(index).ok()?.parse().ok()?),
            is_last: rest.starts_with(b"true"),
        };
        Some((at, chunk))
    })
}

/// What an event of this kind says of its heads, if it says that as we do.
pub(super) fn heads(line: &Bytes, kind: EventKind) -> Option<Heads> {
    static INPUT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#","input":"#));
    use HeadPart::{ClientIp, Method, RequestHeaders, ResponseHeaders, Status, Uri};
    const REQUEST: [(HeadPart, &[u8]); 3] = [
        (Method, b"\"method\":"),
        (Uri, b",\"uri\":"),
        (ClientIp, b",\"client_ip\":"),
    ];
    let begin = INPUT.find(line)? + INPUT.needle().len();
    // The data of a body is not looked at.
    let end = match kind {
        EventKind::RequestBody | EventKind::ResponseBody => chunk_at(line)?.0,
        EventKind::RequestHeaders | EventKind::ResponseHeaders => line.len(),
    };
    let mut reader = FastReader::new(line.get(begin..end)?)?;
    let mut heads = Heads::default();
    let mut take = |reader: &mut FastReader<'_>, (part, key): (HeadPart, &[u8])| {
        let value = reader.member(key)?;
        heads.set(part, line.slice_ref(value.as_bytes()));
        Ok::<_, NotPlain>(())
    };
    let mut read = || {
        let id: &[u8] = b",\"correlation_id\":";
        reader.expect(b"{")?;
        match kind {
            EventKind::RequestHeaders => {
                for part in REQUEST {
                    take(&mut reader, part)?;
                }
                reader.member(id)?;
                take(&mut reader, (RequestHeaders, b",\"headers\":"))
            }
            EventKind::ResponseHeaders => {
                take(&mut reader, (Status, b"\"status\":"))?;
                reader.member(id)?;
                take(&mut reader, (ResponseHeaders, b",\"headers\":"))
            }
            EventKind::RequestBody | EventKind::ResponseBody => {
                reader.member(&id[1..])?;
                if !reader.rest().is_empty() && !reader.rest().starts_with(b",\"status\":") {
                    reader.expect(b",")?;
                    for part in REQUEST {
                        take(&mut reader, part)?;
                    }
                }
                let headers = if kind == EventKind::RequestBody {
                    RequestHeaders
                } else {
                    ResponseHeaders
                };
                if reader.rest().starts_with(b",\"status\":") {
                    take(&mut reader, (Status, b",\"status\":"))?;
                }
                if !reader.rest().is_empty() {
                    take(&mut reader, (headers, b",\"headers\":"))?;
                }
                reader.rest().is_empty().then_some(()).ok_or(NotPlain)
            }
        }
    };
    read().ok()?;
    Some(heads)
}

/// Whether the answer ends the exchange, if it is written as we write it. A
/// hook's is not looked for: its input may hold anything.
pub(super) fn ends(line: &[u8], phase: Phase) -> Option<bool> {
    static OUTPUT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(br#","output":"#));
    if matches!(phase, Phase::Hook(_)) {
        return None;
    }
    OUTPUT.find_iter(line).find_map(|at| {
        let output = line.get(at + OUTPUT.needle().len()..)?;
        if output.starts_with(b"null,") {
            return Some(false);
        }
        let decision = output.strip_prefix(br#"{"decision":"#)?;
        Some(!decision.starts_with(br#""allow""#))
    })
}

/// A line of ours; nothing where it is another's or broken.
pub(super) fn read(bytes: &[u8]) -> Option<Line<'_>> {
    let (id, phase) = keys(bytes)?;
    let (id, phase) = (text_of(id)?, text_of(phase)?);
    FastReader::read(bytes, |reader| parts(reader, (id, phase))).ok()
}

fn parts<'a>(
    reader: &mut FastReader<'a>,
    (id, name): (&'a str, &str),
) -> Result<Line<'a>, NotPlain> {
    for known in [START, id.as_bytes(), PHASE, name.as_bytes(), b"\""] {
        reader.expect(known)?;
    }
    let phase = Phase::from_name(name).ok_or(NotPlain)?;
    let ts = reader.member(b",\"ts\":")?;
    let module = reader.member(b",\"module\":")?;
    reader.expect(b",\"input\":")?;
    let begin = reader.at();
    let written = match phase {
        Phase::Event(kind) => reader.attempt(|reader| written(reader, kind)).ok(),
        Phase::Hook(_) => None,
    };
    if written.is_none() {
        reader.skip()?;
    }
    let input = reader.since(begin)?;
    if !input.starts_with('{') {
        return Err(NotPlain);
    }
    let output = reader.member(b",\"output\":")?;
    reader.member(b",\"error\":")?;
    let fuel = reader.member(b",\"fuel\":")?;
    reader.member(b",\"wall_ns\":")?;
    let redacted = reader.member(b",\"redacted\":")?;
    let mark = if reader.rest().starts_with(b"}") {
        None
    } else {
        let name = reader.member(b",\"redaction\":")?;
        Some(
            Mark::ALL
                .into_iter()
                .find(|mark| name.trim_matches('"') == mark.name())
                .ok_or(NotPlain)?,
        )
    };
    reader.expect(b"}")?;
    if !redacted.starts_with('[') {
        return Err(NotPlain);
    }
    let text = |json: &'a str| json.strip_prefix('"')?.strip_suffix('"');
    let text_or_null = |json: &'a str| match json {
        "null" => Ok(None),
        // An escape in it is not ours.
        json if !json.contains('\\') => text(json)
            .map(|text| Some(Cow::Borrowed(text)))
            .ok_or(NotPlain),
        _ => Err(NotPlain),
    };
    let (ts, module) = (text_or_null(ts)?, text_or_null(module)?);
    let fuel = match fuel {
        "null" => None,
        number => Some(number_of(number)?),
    };
    Ok(Line {
        id: Cow::Borrowed(id),
        phase,
        ts,
        module,
        input: input.as_bytes(),
        output: (output != "null").then_some(output.as_bytes()),
        written,
        fuel,
        redacted: redacted != "[]",
        mark,
    })
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number_of<N: std::str::FromStr>(json: &str) -> Result<N, NotPlain> {
    json.parse().map_err(|_no_number| NotPlain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"v":1,"id":"c1","phase":"request_body","ts":"2026-01-01T00:00:00.000000000Z","module":"sha256:00","input":{"method":"GET","n":[-1.5e+3,0,{}],"chunk_index":2,"headers":{"a":"x\u00e9\"}","chunk_index":"7"}},"output":{"decision":"allow"},"error":null,"fuel":17,"wall_ns":null,"redacted":["headers.cookie"]}"#;

    /// What there is to know of a line.
    fn parts<'a>(line: &Line<'a>) -> impl PartialEq + std::fmt::Debug + use<'a> {
        (
            line.id.clone(),
            line.phase,
            (line.ts.clone(), line.module.clone()),
            line.input,
            line.output,
            (line.written, line.fuel, line.redacted),
        )
    }

    #[test]
    fn a_line_of_ours_reads_as_anybody_reads_it() {
        let line = read(LINE.as_bytes()).unwrap();
        assert_eq!((line.fuel, line.redacted), (Some(17), true));
        assert_eq!(parts(&line), parts(&Line::read(LINE.as_bytes()).unwrap()));
        for other in [
            LINE.replace("\"ts\":", "\"ts\": "),
            LINE.replace(",\"wall_ns\":null", ""),
            LINE.replace("-1.5e+3", "-01"),
            LINE.replace("\\u00e9", "\\u00g9"),
            LINE.replace("\"sha256:00\"", "7"),
            LINE.replace("GET", "\u{1}"),
            format!("{LINE} "),
        ] {
            assert!(read(other.as_bytes()).is_none(), "{other}");
        }
    }

    proptest! {
        /// Whatever is read here, the general reader reads the same.
        #[test]
        fn nothing_is_taken_that_is_no_json(changes in prop::collection::vec((0..LINE.len(), any::<u8>(), 0..3_u8), 0..4)) {
            let mut bytes = LINE.as_bytes().to_vec();
            for (at, byte, how) in changes {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => { bytes.remove(at); }
                }
            }
            if let Some(line) = read(&bytes) {
                let general = Line::read(&bytes);
                prop_assert!(general.is_ok(), "{:?}", general.err());
                prop_assert_eq!(parts(&line), parts(&general.unwrap()));
            }
        }
    }
}
