//! A profile in files: what Firefox's profiler opens, or a flame graph.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::{Value, json};
use wasm_agent_kit::ops::bench::Profile;

use crate::cli::render::escape::{Syntax, guarded, html as escaped};

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

const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
/// Narrower than this is not drawn, in pixels.
const LEAST: f64 = 0.4;
/// A letter's width, in pixels.
const LETTER: f64 = 6.6;

/// Calls below one function, merged by name.
#[derive(Default)]
struct Node<'a> {
    looks: u64,
    below: BTreeMap<&'a str, Node<'a>>,
}

/// Writes a flame graph: width is time, what calls is below what is called,
/// neighbours are in the order of their names.
pub(crate) fn flame(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    guarded(Syntax::Markup, out, |out| {
        out.write_all(flame_svg(profile).as_bytes())
    })
}

/// The same as markup, with its own colours: it is a file of its own, too.
pub(crate) fn flame_svg(profile: &Profile) -> String {
    let mut root = Node::default();
    for (stack, looks) in &profile.stacks {
        root.looks += looks;
        let mut node = &mut root;
        for name in stack {
            node = node.below.entry(name).or_default();
            node.looks += looks;
        }
    }
    let depth = depth(&root);
    let height = ROW * (depth as f64 + 1.0) + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"flame\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>{}: {} looks</title>\n\
         <style>.flame {{ background: #fff }} .f {{ stroke: #fff; stroke-width: .5 }} .l {{ fill: #1c1e21; pointer-events: none }} \
         .h {{ fill: #1c1e21 }} @media (prefers-color-scheme: dark) {{ .flame {{ background: #16181b }} .f {{ stroke: #16181b }} .h {{ fill: #e8e9eb }} }}</style>\n\
         <text class=\"h\" x=\"4\" y=\"16\">{}: {} samples of the guest, one every {} µs while it ran</text>\n",
        escaped(&profile.module),
        profile.samples,
        escaped(&profile.module),
        profile.samples,
        profile.interval_us
    );
    if root.looks > 0 {
        draw(&root, (0.0, height - 6.0), root.looks, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

fn depth(node: &Node<'_>) -> usize {
    node.below
        .values()
        .map(|below| 1 + depth(below))
        .max()
        .unwrap_or(0)
}

fn draw(node: &Node<'_>, (x, bottom): (f64, f64), all: u64, svg: &mut String) {
    let mut x = x;
    for (name, below) in &node.below {
        let share = below.looks as f64 / all as f64;
        let width = share * WIDTH;
        if width >= LEAST {
            let y = bottom - ROW;
            svg.push_str(&format!(
                "<g><title>{}: {:.1} %, {} looks</title><rect class=\"f\" x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{:.1}\" rx=\"2\" fill=\"{}\"/>",
                escaped(name),
                share * 100.0,
                below.looks,
                ROW - 1.0,
                color(name)
            ));
            if let Some(label) = label(name, width) {
                svg.push_str(&format!(
                    "<text class=\"l\" x=\"{:.2}\" y=\"{:.1}\">{}</text>",
                    x + 3.0,
                    y + 12.5,
                    escaped(&label)
                ));
            }
            svg.push_str("</g>\n");
            draw(below, (x, y), all, svg);
        }
        x += width;
    }
}

/// As much of a name as there is room for.
fn label(name: &str, width: f64) -> Option<String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "letters within a drawing"
    )]
    let room = ((width - 6.0) / LETTER).max(0.0) as usize;
    if room < 3 {
        return None;
    }
    if name.chars().count() <= room {
        return Some(name.to_owned());
    }
    let start: String = name.chars().take(room - 1).collect();
    Some(format!("{start}…"))
}

/// Warm, and the same for the same name.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("hsl({} 75% {}%)", 18 + hash % 38, 62 + (hash >> 8) % 14)
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

    #[test]
    fn a_flame_is_as_wide_as_its_share() {
        let svg = flame_svg(&profile());
        assert!(
            svg.contains("on_request_headers: 100.0 %, 3 looks"),
            "{svg}"
        );
        assert!(svg.contains("&lt;parse&gt;: 66.7 %, 2 looks"), "{svg}");
        assert!(svg.contains("width=\"800.00\""), "{svg}");
        assert!(!svg.contains("<parse>") && !svg.contains("<m>"), "{svg}");
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
