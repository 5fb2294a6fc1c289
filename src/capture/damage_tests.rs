//! Captures that are damaged at random: every record is replayed as it was, or
//! named; nothing is gone without a word.
//!
//! A format plugs in with how it writes records with marks in them
//! ([`Writer`]). `DAMAGE_TRIES` says how often each is tried, `DAMAGE_FORMATS`
//! which formats are tried, also those that are switched off.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Cursor;
use std::ops::Range;

use super::{DecodeSettings, Format, Item, Opened, Remark, decode};
use crate::event::Event;
use crate::question::Question;

const TRIES: u64 = 3_000;

/// How a format is written.
struct Writer {
    format: Format,
    name: &'static str,
    /// Whether it holds already.
    is_on: bool,
    head: &'static str,
    /// One record with its marks, each in a line that is replayed or named.
    record: fn(&mut Text, usize),
    between: &'static str,
    tail: &'static str,
    /// What damage puts between bytes, besides a few bytes of any kind.
    inserts: &'static [&'static str],
}

/// A line, or another part that stands for itself, with the mark in it.
struct Carrier {
    range: Range<usize>,
    mark: String,
}

struct Record {
    range: Range<usize>,
    carriers: Vec<Carrier>,
}

#[derive(Default)]
struct Text {
    text: String,
    records: Vec<Record>,
    carriers: Vec<Carrier>,
}

impl Text {
    /// Adds a part with a mark where `@` stands.
    fn carrier(&mut self, index: usize, part: &str) {
        let mark = format!("mark{index:03}n{}k", self.carriers.len());
        let from = self.text.len();
        self.text.push_str(&part.replace('@', &mark));
        let range = from..self.text.len();
        self.carriers.push(Carrier { range, mark });
    }

    fn file(&mut self, writer: &Writer, records: Range<usize>) {
        self.text.push_str(writer.head);
        for index in records.clone() {
            if index > records.start {
                self.text.push_str(writer.between);
            }
            let from = self.text.len();
            (writer.record)(self, index);
            self.records.push(Record {
                range: from..self.text.len(),
                carriers: std::mem::take(&mut self.carriers),
            });
        }
        self.text.push_str(writer.tail);
    }
}

const WRITERS: [Writer; 7] = [
    Writer {
        format: Format::Ftw,
        name: "ftw",
        is_on: true,
        head: "---\nrule_id: 900100\ntests:\n",
        record: |text, index| {
            let id = index + 1;
            let _ = write!(
                text.text,
                "  - test_id: {id}\n    desc: plain\n    stages:\n      - input:\n          method: POST\n"
            );
            text.carrier(index, "          uri: \"/@?a=1\"\n");
            text.text
                .push_str("          headers:\n            Host: localhost\n");
            text.carrier(index, "            User-Agent: \"@\"\n");
            text.carrier(index, "          data: \"a=@\"\n");
            text.text
                .push_str("        output:\n          status: 200\n");
        },
        between: "",
        tail: "",
        inserts: &[
            "\n", "  ", " ", "\t", "\"", "'", "- ", "  - ", ":", "---\n", "\r\n", "]", "}", "{",
            "tests:\n", "é", "|", ">", "&a ", "*a ",
        ],
    },
    Writer {
        format: Format::Jsonl,
        name: "jsonl",
        is_on: true,
        head: "",
        record: |text, index| {
            text.carrier(index, &format!(
                "{{\"v\":1,\"id\":\"i{index}\",\"phase\":\"request_headers\",\"input\":{{\"method\":\"GET\",\"uri\":\"/@\",\"client_ip\":\"192.0.2.7\",\"correlation_id\":\"i{index}\",\"headers\":{{}}}}}}\n"
            ));
        },
        between: "",
        tail: "",
        inserts: JSON_INSERTS,
    },
    Writer {
        format: Format::Har,
        name: "har",
        is_on: true,
        head: "{\"log\":{\"version\":\"1.2\",\"entries\":[\n",
        record: |text, index| {
            text.carrier(index, "{\"request\":{\"method\":\"GET\",\"url\":\"http://h.example/@\",\"headers\":[]},\"response\":{\"status\":200,\"headers\":[]}}");
        },
        between: ",\n",
        tail: "\n]}}\n",
        inserts: JSON_INSERTS,
    },
    Writer {
        format: Format::EnvoyTap,
        name: "envoy-tap",
        is_on: true,
        head: "",
        record: |text, index| {
            text.carrier(index, "{\"http_buffered_trace\":{\"request\":{\"headers\":[{\"key\":\":method\",\"value\":\"GET\"},{\"key\":\":path\",\"value\":\"/@\"}]}}}\n");
        },
        between: "",
        tail: "",
        inserts: JSON_INSERTS,
    },
    Writer {
        format: Format::Gor,
        name: "gor",
        is_on: true,
        head: "",
        record: |text, index| {
            text.carrier(index, &format!(
                "1 abcdef{index:02} 1700000000000000000\nPOST /@ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\n"
            ));
        },
        between: "🐵🙈🙉\n",
        tail: "🐵🙈🙉\n",
        inserts: &["\n", "\r\n", "\r", "🐵🙈🙉\n", "1 aa 1\n", " ", "\0"],
    },
    Writer {
        format: Format::AccessLog,
        name: "access-log",
        is_on: true,
        head: "",
        record: |text, index| {
            text.carrier(index, "203.0.113.9 - - [01/Jan/2026:00:00:00 +0000] \"GET /@ HTTP/1.1\" 200 5 \"-\" \"agent\"\n");
        },
        between: "",
        tail: "",
        inserts: &["\n", "\r\n", "\"", "[", "]", " ", "\\", "\u{feff}"],
    },
    Writer {
        format: Format::JsonLog,
        name: "json-log",
        is_on: true,
        head: "",
        record: |text, index| {
            text.carrier(index, "{\"method\":\"GET\",\"path\":\"/@\",\"status\":200,\"remote_addr\":\"203.0.113.9\"}\n");
        },
        between: "",
        tail: "",
        inserts: JSON_INSERTS,
    },
];

const JSON_INSERTS: &[&str] = &[
    "\n", "\r\n", "\"", "{", "}", "[", "]", ",", ":", " ", "\\", "\u{feff}", "null",
];

/// Numbers that depend on the seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = self.0;
        next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((next ^ (next >> 31)) % bound.max(1) as u64).unwrap()
    }
}

/// A damaged text: parts of the written one, and bytes that came in between.
enum Part {
    Kept(Range<usize>),
    New(Vec<u8>),
}

struct Damaged {
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl Damaged {
    fn of(text: &str, writer: &Writer, dice: &mut Dice) -> Self {
        let size = text.len();
        let mut parts = Vec::from([Part::Kept(0..size)]);
        for _ in 0..=dice.below(3) {
            let at = dice.below(size + 1);
            let span = match dice.below(4) {
                0 | 1 => 0,
                2 => 1 + dice.below(12),
                _ => dice.below(size / 2),
            };
            let mut new = Vec::new();
            if span == 0 || dice.below(3) == 0 {
                let insert = writer.inserts[dice.below(writer.inserts.len())];
                new.extend_from_slice(insert.as_bytes());
                if dice.below(8) == 0 {
                    new.extend((0..=dice.below(3)).map(|_| b"\xff\x07\x80\0a"[dice.below(5)]));
                }
            }
            parts = cut(parts, at..(at + span).min(size), new);
        }
        let mut bytes = Vec::new();
        for part in &parts {
            bytes.extend_from_slice(match part {
                Part::Kept(range) => &text.as_bytes()[range.clone()],
                Part::New(new) => new,
            });
        }
        Self { parts, bytes }
    }

    /// Where a range of the written text stands now, if nothing of it and nothing
    /// beside it was touched.
    fn intact(&self, range: &Range<usize>, size: usize) -> Option<Range<usize>> {
        let wide = range.start.saturating_sub(1)..(range.end + 1).min(size);
        let mut at = 0;
        for part in &self.parts {
            match part {
                Part::Kept(kept) if kept.start <= wide.start && wide.end <= kept.end => {
                    let from = at + range.start - kept.start;
                    return Some(from..from + range.len());
                }
                Part::Kept(kept) => at += kept.len(),
                Part::New(new) => at += new.len(),
            }
        }
        None
    }
}

/// Takes a range of the written text out, and puts bytes in its place.
fn cut(parts: Vec<Part>, gone: Range<usize>, new: Vec<u8>) -> Vec<Part> {
    let mut left = Vec::new();
    let mut new = Some(new);
    for part in parts {
        let Part::Kept(kept) = part else {
            left.push(part);
            continue;
        };
        let before = kept.start..kept.end.min(gone.start);
        let behind = kept.start.max(gone.end)..kept.end;
        let is_here = kept.contains(&gone.start) || kept.end == gone.start;
        if !before.is_empty() {
            left.push(Part::Kept(before));
        }
        if let Some(new) = new.take_if(|_| is_here) {
            left.push(Part::New(new));
        }
        if !behind.is_empty() && behind.start >= gone.end {
            left.push(Part::Kept(behind));
        }
    }
    left
}

/// What came out of a capture: transactions as texts, and what was named.
#[derive(Default)]
struct Outcome {
    replayed: Vec<String>,
    /// Where transactions and unusable records begin, and whether a word was said.
    places: Vec<(usize, bool)>,
}

impl Outcome {
    fn of(bytes: &[u8], format: Format) -> Self {
        let reader = Cursor::new(bytes.to_vec());
        let opened = Opened::of_reader("c".into(), reader, (Some(format), 1 << 20)).unwrap();
        let mut outcome = Self::default();
        for item in opened {
            match item {
                Item::Transaction(mut frame) => {
                    let decoded = decode(&mut frame, &DecodeSettings::default());
                    for unusable in &decoded.unusable {
                        outcome.place(unusable.place.offset, true);
                    }
                    let Some(transaction) = decoded.transaction else {
                        continue;
                    };
                    // These say nothing of what the capture lost.
                    let is_usual = |remark: &Remark| {
                        matches!(
                            remark,
                            Remark::NoResponse | Remark::NoCredentials | Remark::NoTime
                        )
                    };
                    let is_named = !transaction.remarks.iter().all(is_usual);
                    outcome.place(transaction.place.offset, is_named);
                    let events = transaction.questions().map(asked);
                    outcome.replayed.push(events.collect());
                }
                Item::Unusable(unusable) => outcome.place(unusable.place.offset, true),
                Item::Skipped(_) => {}
            }
        }
        outcome.places.sort_unstable();
        outcome
    }

    fn place(&mut self, offset: u64, is_named: bool) {
        self.places
            .push((usize::try_from(offset).unwrap(), is_named));
    }

    /// Whether a word was said about a part of these bytes.
    fn names(&self, range: &Range<usize>) -> bool {
        self.places.iter().any(|(from, is_named)| {
            let next = self.places.iter().map(|(at, _)| *at).find(|at| at > from);
            *is_named && *from < range.end && range.start < next.unwrap_or(usize::MAX)
        })
    }
}

fn asked(question: &Question<'_>) -> String {
    match question {
        Question::Exact { json, .. } => String::from_utf8_lossy(json).into_owned() + "\n",
        Question::Event(event) => shown(event),
        Question::Hook(..) => format!("{question:?}\n"),
    }
}

/// An event without its id, which a place may be part of.
fn shown(event: &Event) -> String {
    match event {
        Event::RequestHeaders(head) => format!(
            "{} {} {} {:?}\n",
            head.method, head.uri, head.client_ip, head.headers
        ),
        Event::ResponseHeaders(head) => format!("{} {:?}\n", head.status, head.headers),
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => {
            String::from_utf8_lossy(&chunk.data).into_owned() + "\n"
        }
    }
}

/// What is wrong with how a damaged capture is read.
fn fault(writer: &Writer, seed: u64) -> Option<String> {
    let mut dice = Dice(seed);
    let mut text = Text::default();
    let first = 2 + dice.below(4);
    text.file(writer, 0..first);
    // Files that were joined.
    if dice.below(3) == 0 {
        text.file(writer, first..first + 2);
    }
    let whole = Outcome::of(text.text.as_bytes(), writer.format);
    let mut written = HashMap::new();
    for record in &text.records {
        let mark = &record.carriers[0].mark;
        let found = whole.replayed.iter().find(|text| text.contains(mark));
        match found {
            Some(found) => written.insert(mark, found),
            None => return Some(format!("{mark} is not replayed from {:?}", text.text)),
        };
    }
    let damaged = Damaged::of(&text.text, writer, &mut dice);
    let outcome = Outcome::of(&damaged.bytes, writer.format);
    let report = |what: &str, mark: &str| {
        let shown = String::from_utf8_lossy(&damaged.bytes);
        Some(format!(
            "seed {seed}: {mark} {what}\n{shown}\n{:#?}\n{:?}",
            outcome.replayed, outcome.places
        ))
    };
    for record in &text.records {
        let is_whole = damaged.intact(&record.range, text.text.len());
        for carrier in &record.carriers {
            let Some(range) = damaged.intact(&carrier.range, text.text.len()) else {
                continue;
            };
            let mut found = outcome
                .replayed
                .iter()
                .filter(|text| text.contains(&carrier.mark))
                .peekable();
            if found.peek().is_none() && !outcome.names(&range) {
                return report("is gone without a word", &carrier.mark);
            }
            let original = written[&record.carriers[0].mark];
            if is_whole.is_some() && found.any(|text| text != original) && !outcome.names(&range) {
                return report("is in another input", &carrier.mark);
            }
        }
    }
    None
}

#[test]
fn what_is_damaged_is_replayed_or_named() {
    let tries = std::env::var("DAMAGE_TRIES").map_or(TRIES, |tries| tries.parse().unwrap());
    let wanted = std::env::var("DAMAGE_FORMATS").ok();
    let is_wanted = |writer: &&Writer| {
        wanted.as_deref().map_or(writer.is_on, |names| {
            names.split(',').any(|name| name == writer.name)
        })
    };
    let mut report = String::new();
    for writer in WRITERS.iter().filter(is_wanted) {
        let faults: Vec<String> = (0..tries).filter_map(|seed| fault(writer, seed)).collect();
        let found = format!(
            "{}: {} exceptions in {tries} tries\n",
            writer.name,
            faults.len()
        );
        print!("{found}");
        if let Some(first) = faults.first() {
            report += &(found + first + "\n");
        }
    }
    assert!(report.is_empty(), "{report}");
}
