//! The tests of a file, each with the heading above it: by YAML's grammar where the
//! file is YAML, else by the lines that tests begin in.
//!
//! Invariant: every part of a file that is no heading is a test or named.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use memchr::memchr_iter;

use super::yaml::{Node, Value, documents};
use crate::fault::printable;
use crate::json::explain;

/// What stands above tests and counts for all of them.
#[derive(Default)]
pub(super) struct Heading {
    pub(super) rule_id: Option<String>,
    pub(super) template: Option<Arc<Node>>,
    /// It cannot be read, and may have a template.
    pub(super) is_broken: bool,
}

/// A test, or what is wrong with a part of the file.
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) heading: Arc<Heading>,
    pub(super) test: Result<Arc<Node>, String>,
}

/// The tests of a file, and its parts that are none.
pub(super) fn entries(bytes: &[u8]) -> Vec<Entry> {
    // The mark stays in place as blanks, so that offsets are the file's.
    let marked = bytes.strip_prefix(b"\xef\xbb\xbf");
    let bytes = marked.map_or(Cow::Borrowed(bytes), |rest| [b"   ", rest].concat().into());
    let text = readable(&bytes);
    let mut found = Found {
        bytes: &bytes,
        text: &text,
        entries: Vec::new(),
    };
    let is_text = matches!(text, Cow::Borrowed(_));
    match documents(&text) {
        Ok(documents) if is_text => {
            let ends = documents.iter().skip(1).map(|next| next.at);
            let ends = ends.chain([text.len()]);
            for (node, end) in documents.iter().zip(ends) {
                found.document(node, end);
            }
        }
        _ => found.by_lines(),
    }
    found.entries
}

/// A text of as many bytes: what is no UTF-8 becomes what YAML refuses.
pub(super) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{1}'));
    }
    Cow::Owned(text)
}

struct Found<'a> {
    bytes: &'a [u8],
    text: &'a str,
    entries: Vec<Entry>,
}

/// What counts for the next test.
#[derive(Default)]
struct Above {
    heading: Arc<Heading>,
    has_tests: bool,
    /// The column of the dashes that tests begin with.
    dash: Option<usize>,
}

impl Above {
    /// A list begins: the heading of the list before it is not its own.
    fn begin_list(&mut self) {
        if self.has_tests || self.heading.is_broken {
            self.heading = Arc::new(Heading {
                is_broken: self.heading.is_broken,
                ..Heading::default()
            });
        }
        self.has_tests = false;
    }
}

/// One line without what ends it.
#[derive(Clone, Copy)]
struct Line<'a> {
    at: usize,
    text: &'a str,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start_matches(' ').len()
    }

    /// Nothing or a comment.
    fn is_blank(&self) -> bool {
        let text = self.text.trim();
        text.is_empty() || text.starts_with('#')
    }

    /// Where a list's entry begins in this line: the column of its dash.
    fn dash(&self) -> Option<usize> {
        let indent = self.indent();
        let behind = self.text[indent..].strip_prefix('-')?;
        (behind.is_empty() || behind.starts_with([' ', '\t'])).then_some(indent)
    }

    /// Whether it is a key alone, above a list of tests.
    fn is_tests(&self) -> bool {
        let text = self.text.trim();
        let bare = text.strip_prefix(['"', '\'']).unwrap_or(text);
        let behind = bare.strip_prefix("tests").map(str::trim_start);
        let behind = behind.map(|it| it.strip_prefix(['"', '\'']).unwrap_or(it).trim_start());
        let value = behind.and_then(|it| it.strip_prefix(':')).map(str::trim);
        value.is_some_and(|value| value.is_empty() || value.starts_with('#'))
    }

    /// Where a document begins or ends.
    fn is_marker(&self) -> bool {
        let mut markers = ["---", "..."].into_iter();
        markers.any(|marker| {
            let behind = self.text.strip_prefix(marker);
            behind
                .map(str::trim)
                .is_some_and(|it| it.is_empty() || it.starts_with('#'))
        })
    }
}

fn lines(text: &str, range: Range<usize>) -> Vec<Line<'_>> {
    let part = &text[range.clone()];
    let mut lines = Vec::new();
    let mut from = 0;
    for end in memchr_iter(b'\n', part.as_bytes()).chain([part.len()]) {
        let line = &part[from..end];
        lines.push(Line {
            at: range.start + from,
            text: line.strip_suffix('\r').unwrap_or(line),
        });
        from = end + 1;
    }
    lines
}

impl Found<'_> {
    fn name(&mut self, at: usize, heading: &Arc<Heading>, why: String) {
        self.entries.push(Entry {
            at,
            heading: Arc::clone(heading),
            test: Err(why),
        });
    }

    /// Adds the tests of a document.
    fn document(&mut self, node: &Arc<Node>, end: usize) {
        let none = Arc::new(Heading::default());
        match &node.value {
            Value::Null => {}
            Value::Map(entries) => {
                let sections = sections(entries);
                let first = |section: &&[_]| section.first().map_or(end, begins_at);
                let ends = sections.iter().skip(1).map(first).chain([end]);
                for (section, end) in sections.iter().zip(ends) {
                    self.section(section, end);
                }
            }
            _ => {
                let why = format!("expected a mapping with \"tests\", found {}", node.kind());
                self.name(node.at, &none, why);
            }
        }
    }

    fn section(&mut self, section: &[(Arc<Node>, Arc<Node>)], end: usize) {
        let heading = match heading(section) {
            Ok(heading) => Arc::new(heading),
            Err(why) => {
                let at = section.first().map_or(0, |(key, _)| key.at);
                let broken = Heading {
                    is_broken: true,
                    ..Heading::default()
                };
                let broken = Arc::new(broken);
                self.name(at, &broken, why);
                broken
            }
        };
        for (key, value) in section {
            match (key.text().unwrap_or_default(), &value.value) {
                ("tests", Value::List { items, is_block }) => {
                    let until = next_key(section, key).unwrap_or(end);
                    for (index, test) in items.iter().enumerate() {
                        let next = items.get(index + 1);
                        // Tests in braces may all stand in one line.
                        let begins = |test: &Node| match is_block {
                            true => self.begins(test.at),
                            false => test.at,
                        };
                        let next = next.map_or(until, |next| begins(next));
                        let at = begins(test);
                        let runs_over = *is_block && self.runs_over(at..next.max(at));
                        self.entries.push(Entry {
                            at,
                            heading: Arc::clone(&heading),
                            test: if runs_over {
                                Err("a text in this test runs over the beginning of another one; is there a quote that is not closed?".to_owned())
                            } else {
                                test_of(test)
                            },
                        });
                    }
                }
                ("meta" | "rule_id" | "template", _) | (_, Value::Null) => {}
                (key, Value::Text(_)) if key != "tests" => {}
                (key, _) => {
                    let expected = if key == "tests" {
                        "a list of"
                    } else {
                        "no more than"
                    };
                    let shown = printable(key, 40);
                    let why = format!(
                        "expected {expected} \"tests\", found {} in {shown:?}",
                        value.kind()
                    );
                    self.name(value.at, &heading, why);
                }
            }
        }
    }

    /// Where the line of a test begins that has its dash.
    fn begins(&self, at: usize) -> usize {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        if before[line..].trim_start_matches(' ').starts_with('-') || line == 0 {
            return line;
        }
        let mut start = line;
        loop {
            let Some(end) = start.checked_sub(1) else {
                return line;
            };
            start = self.text[..end].rfind('\n').map_or(0, |end| end + 1);
            let above = Line {
                at: start,
                text: self.text[start..end].trim_end_matches('\r'),
            };
            if above.dash().is_some() {
                return start;
            }
            if !above.is_blank() {
                return line;
            }
        }
    }

    /// Whether another entry of the same list begins within a test.
    fn runs_over(&self, range: Range<usize>) -> bool {
        let lines = lines(self.text, range);
        let Some(dash) = lines.first().and_then(Line::dash) else {
            return false;
        };
        lines.iter().skip(1).any(|line| line.dash() == Some(dash))
    }

    /// Cuts a file that is no YAML as a whole where tests begin in lines of their own.
    fn by_lines(&mut self) {
        let all: Vec<Line<'_>> = lines(self.text, 0..self.text.len())
            .into_iter()
            .filter(|line| !line.is_blank())
            .collect();
        let mut above = Above::default();
        let mut from = 0;
        while let Some(line) = all.get(from) {
            from += 1;
            if line.is_marker() {
                above = Above::default();
                continue;
            }
            if line.is_tests() {
                above.begin_list();
                let first = all.get(from).and_then(Line::dash);
                above.dash = first.filter(|dash| *dash >= line.indent());
                if above.dash.is_none() {
                    let why = "expected a list of \"tests\", found none".to_owned();
                    self.name(line.at, &above.heading, why);
                }
                continue;
            }
            let test = above.dash.filter(|dash| line.dash() == Some(*dash));
            let ends = |other: &Line<'_>| match test {
                Some(dash) => other.indent() <= dash,
                None => {
                    let begins = above.dash.is_some() && other.dash() == above.dash;
                    begins || other.is_tests() || other.is_marker()
                }
            };
            let rest = all.get(from..).unwrap_or_default();
            from += rest.iter().position(ends).unwrap_or(rest.len());
            let end = all.get(from).map_or(self.text.len(), |next| next.at);
            if test.is_some() {
                above.has_tests = true;
                self.test(line.at..end, &above.heading);
            } else {
                self.between(line.at..end, &mut above);
            }
        }
    }

    /// One test alone.
    fn test(&mut self, part: Range<usize>, heading: &Arc<Heading>) {
        let at = part.start;
        let test = self
            .parsed(part)
            .and_then(|documents| match documents.as_slice() {
                [list] => match list.items() {
                    [test] => test_of(test),
                    _ => Err("expected one test".to_owned()),
                },
                _ => Err("expected one test".to_owned()),
            });
        self.entries.push(Entry {
            at,
            heading: Arc::clone(heading),
            test,
        });
    }

    /// What stands between tests: a heading of those behind it, or named.
    fn between(&mut self, part: Range<usize>, above: &mut Above) {
        let is_value = |value: &Node| matches!(value.value, Value::Null | Value::Text(_));
        let is_heading = |(key, value): &(Arc<Node>, Arc<Node>)| match key.text() {
            Some("meta" | "rule_id" | "template") => true,
            key => key.is_some() && is_value(value),
        };
        let read = self.parsed(part.clone());
        let read = read.and_then(|documents| match documents.as_slice() {
            [] => Ok(None),
            [node] if node.is_null() => Ok(None),
            [node] => match node.entries() {
                keys if !keys.is_empty() && keys.iter().all(is_heading) => heading(keys).map(Some),
                _ => Err("expected tests, or \"meta\" and \"rule_id\" above them".to_owned()),
            },
            _ => Err("expected one document".to_owned()),
        });
        match read {
            Ok(None) => {}
            Ok(Some(heading)) => {
                above.heading = Arc::new(heading);
                above.has_tests = false;
            }
            Err(why) => {
                // It stands among the tests of this rule, or above those of the next.
                above.heading = Arc::new(Heading {
                    rule_id: above.heading.rule_id.clone(),
                    template: None,
                    is_broken: true,
                });
                self.name(part.start, &above.heading, why);
            }
        }
    }

    fn parsed(&self, part: Range<usize>) -> Result<Vec<Arc<Node>>, String> {
        explain::utf8(&self.bytes[part.clone()])?;
        let found = documents(&self.text[part]);
        found.map_err(|fault| format!("expected a go-ftw test: {}", printable(&fault.why, 300)))
    }
}

/// The keys of a file, begun anew where one of them comes again: files that were
/// joined.
fn sections(entries: &[(Arc<Node>, Arc<Node>)]) -> Vec<&[(Arc<Node>, Arc<Node>)]> {
    let mut sections = Vec::new();
    let mut from = 0;
    let mut known = HashSet::new();
    for (at, (key, _)) in entries.iter().enumerate() {
        if !known.insert(key.text()) {
            sections.push(&entries[from..at]);
            from = at;
            known = HashSet::from([key.text()]);
        }
    }
    sections.push(&entries[from..]);
    sections
}

fn begins_at((key, _): &(Arc<Node>, Arc<Node>)) -> usize {
    key.at
}

fn next_key(section: &[(Arc<Node>, Arc<Node>)], key: &Arc<Node>) -> Option<usize> {
    let others = section.iter().map(|(other, _)| other.at);
    others.filter(|at| *at > key.at).min()
}

fn heading(section: &[(Arc<Node>, Arc<Node>)]) -> Result<Heading, String> {
    let get = |name: &str| {
        let found = section.iter().find(|(key, _)| key.text() == Some(name));
        found
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    };
    let rule_id = get("rule_id")
        .map(|node| super::text("rule_id", node))
        .transpose()?;
    Ok(Heading {
        rule_id,
        template: get("template").map(Arc::clone),
        is_broken: false,
    })
}

fn test_of(node: &Arc<Node>) -> Result<Arc<Node>, String> {
    match node.value {
        Value::Map(_) => Ok(Arc::clone(node)),
        _ => Err(format!("expected a test, found {}", node.kind())),
    }
}
