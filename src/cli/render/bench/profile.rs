//! A profile in files: what Firefox's profiler opens, or a flame graph.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use crate::ops::bench::Profile;
use serde_json::{Value, json};

use crate::cli::document::Flame;
use crate::cli::render::escape::{Syntax, guarded};
use crate::cli::render::flame::svg;

/// The version of the processed profile format that is written, which is that
/// of samply as well; the profiler brings older ones up to date.
const FIREFOX_VERSION: u32 = 55;

/// Writes what the profiler of Firefox opens: tables of strings, functions,
/// frames and stacks that refer to each other by index, and the samples.
pub(crate) fn firefox(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut tables = Tables::default();
    let stacks: Vec<Option<usize>> = profile
        .stacks
        .iter()
        .map(|(stack, _)| tables.stack(stack))
        .collect();
    let samples: Vec<Option<usize>> = profile
        .timeline
        .iter()
        .map(|(_, index)| stacks.get(*index).copied().flatten())
        .collect();
    let times: Vec<f64> = profile
        .timeline
        .iter()
        .map(|(at, _)| at.as_secs_f64() * 1e3)
        .collect();
    // A guest that is looked at has been running since it was due, and the
    // profiler draws that as activity.
    let ran: Vec<u64> = std::iter::once(0.0)
        .chain(times.iter().copied())
        .zip(&times)
        .map(|(before, now)| whole_us(now - before).min(profile.interval_us))
        .collect();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let last = times.last().copied().unwrap_or_default();
    let document = json!({
        "meta": {
            "categories": [{"name": "Other", "color": "grey", "subcategories": ["Other"]}],
            "debug": false,
            "extensions": {"length": 0, "baseURL": [], "id": [], "name": []},
            "interval": profile.interval_us as f64 / 1e3,
            "preprocessedProfileVersion": FIREFOX_VERSION,
            "processType": 0,
            "product": profile.module,
            "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
            "startTime": now.as_secs_f64() * 1e3,
            "symbolicated": true,
            "pausedRanges": [],
            "version": 24,
            "usesOnlyOneStackType": true,
            "sourceCodeIsNotOnSearchfox": true,
            "markerSchema": [],
        },
        "libs": [],
        "pages": [],
        "profilerOverhead": [],
        "counters": [],
        "threads": [{
            "name": "guest", "isMainThread": true, "tid": "1", "pid": "1",
            "processName": profile.module, "processType": "default",
            "processStartupTime": 0.0, "processShutdownTime": last,
            "registerTime": 0.0, "unregisterTime": last,
            "pausedRanges": [], "showMarkersInTimeline": false,
            "frameTable": tables.frame_table(),
            "funcTable": tables.func_table(),
            "stackTable": {
                "length": tables.stacks.len(),
                "prefix": tables.stacks.iter().map(|(prefix, _)| *prefix).collect::<Vec<_>>(),
                "frame": tables.stacks.iter().map(|(_, frame)| *frame).collect::<Vec<_>>(),
            },
            "stringArray": tables.names,
            "samples": {
                "length": samples.len(), "weightType": "samples", "stack": samples,
                "time": times, "weight": vec![1; samples.len()],
                "threadCPUDelta": ran,
            },
            "markers": {
                "length": 0, "category": [], "data": [], "endTime": [], "name": [],
                "phase": [], "startTime": [],
            },
            "nativeSymbols": {
                "length": 0, "address": [], "functionSize": [], "libIndex": [], "name": [],
            },
            "resourceTable": {"length": 0, "lib": [], "name": [], "host": [], "type": []},
        }],
    });
    guarded(Syntax::Json, out, |out| {
        Ok(serde_json::to_writer(out, &document)?)
    })
}

fn whole_us(millis: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time between two looks, in microseconds"
    )]
    let micros = (millis * 1e3).round().max(0.0) as u64;
    micros
}

/// A function, its frame and its name have the same index, as a guest's
/// functions are known by name alone.
#[derive(Default)]
struct Tables<'a> {
    names: Vec<&'a str>,
    known: BTreeMap<&'a str, usize>,
    /// What a frame was called from, and the frame.
    stacks: Vec<(Option<usize>, usize)>,
    known_stacks: BTreeMap<(Option<usize>, usize), usize>,
}

impl<'a> Tables<'a> {
    /// The index of a stack's innermost frame; none of an empty one.
    fn stack(&mut self, stack: &'a [String]) -> Option<usize> {
        stack.iter().fold(None, |prefix, name| {
            let frame = *self.known.entry(name).or_insert_with(|| {
                self.names.push(name);
                self.names.len() - 1
            });
            let entry = (prefix, frame);
            Some(*self.known_stacks.entry(entry).or_insert_with(|| {
                self.stacks.push(entry);
                self.stacks.len() - 1
            }))
        })
    }

    fn frame_table(&self) -> Value {
        let count = self.names.len();
        let all = |value: Value| vec![value; count];
        json!({
            "length": count, "func": (0..count).collect::<Vec<_>>(),
            "address": all((-1).into()), "inlineDepth": all(0.into()),
            "category": all(0.into()), "subcategory": all(0.into()),
            "nativeSymbol": all(Value::Null), "innerWindowID": all(0.into()),
            "line": all(Value::Null), "column": all(Value::Null),
        })
    }

    fn func_table(&self) -> Value {
        let count = self.names.len();
        let all = |value: Value| vec![value; count];
        json!({
            "length": count, "name": (0..count).collect::<Vec<_>>(),
            "isJS": all(false.into()), "relevantForJS": all(false.into()),
            "resource": all((-1).into()), "fileName": all(Value::Null),
            "lineNumber": all(Value::Null), "columnNumber": all(Value::Null),
        })
    }
}

/// A profile as a flame graph.
pub(super) fn flame(profile: &Profile) -> Flame {
    Flame {
        title: format!(
            "{}: {} samples of the guest, one every {} µs while it ran",
            profile.module, profile.samples, profile.interval_us
        ),
        stacks: profile.stacks.clone(),
    }
}

/// Writes a flame graph.
pub(crate) fn flame_file(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let svg = svg(&flame(profile));
    guarded(Syntax::Markup, out, |out| out.write_all(svg.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn profile() -> Profile {
        Profile {
            module: "<m>".to_owned(),
            samples: 3,
            interval_us: 1000,
            has_names: true,
            functions: Vec::new(),
            stacks: vec![
                (
                    vec!["on_request_headers".to_owned(), "<parse>".to_owned()],
                    2,
                ),
                (vec!["on_request_headers".to_owned()], 1),
                (Vec::new(), 0),
            ],
            timeline: vec![(Duration::ZERO, 0), (Duration::from_millis(1), 1)],
        }
    }

    /// By the indices that the profiler follows: what it needs is there, and
    /// each sample's stack is the one that was seen.
    #[test]
    fn firefox_finds_every_stack_by_its_names() {
        let mut out = Vec::new();
        firefox(&profile(), &mut out).unwrap();
        let json: Value = serde_json::from_slice(&out).unwrap();
        for field in [
            "interval",
            "startTime",
            "product",
            "processType",
            "categories",
            "markerSchema",
        ] {
            assert!(!json["meta"][field].is_null(), "meta.{field}");
        }
        // The profiler brings older ones up to date; below 50 it was another.
        assert!(json["meta"]["preprocessedProfileVersion"].as_u64().unwrap() >= 50);
        let thread = &json["threads"][0];
        for field in [
            "name",
            "pid",
            "tid",
            "processName",
            "processType",
            "registerTime",
            "isMainThread",
            "markers",
            "nativeSymbols",
            "resourceTable",
        ] {
            assert!(!thread[field].is_null(), "threads[0].{field}");
        }
        let whole = |table: &Value| {
            let length = table["length"].as_u64().unwrap();
            for (column, values) in table.as_object().unwrap() {
                if let Some(values) = values.as_array() {
                    assert_eq!(values.len() as u64, length, "{column}");
                }
            }
        };
        let tables = [
            "samples",
            "stackTable",
            "frameTable",
            "funcTable",
            "markers",
        ];
        for table in tables {
            whole(&thread[table]);
        }
        let at = |table: &str, column: &str, index: u64| {
            let index = usize::try_from(index).unwrap();
            thread[table][column][index].as_u64()
        };
        let names = |sample: u64| {
            let mut names = Vec::new();
            let mut stack = at("samples", "stack", sample);
            while let Some(index) = stack {
                let frame = at("stackTable", "frame", index).unwrap();
                let function = at("frameTable", "func", frame).unwrap();
                let name = at("funcTable", "name", function).unwrap();
                let name = usize::try_from(name).unwrap();
                names.insert(0, thread["stringArray"][name].as_str().unwrap().to_owned());
                stack = at("stackTable", "prefix", index);
            }
            names
        };
        assert_eq!(thread["samples"]["length"], 2);
        assert_eq!(names(0), ["on_request_headers", "<parse>"]);
        assert_eq!(names(1), ["on_request_headers"]);
        // The second look found a guest that ran since the first.
        assert_eq!(thread["samples"]["threadCPUDelta"], json!([0, 1000]));
    }
}
