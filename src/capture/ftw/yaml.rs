//! YAML as a tree that knows where each of its parts stands.
//!
//! Scalars stay texts, keys may stand twice, and merges and aliases are followed
//! by whoever looks: one odd value must not cost the whole file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::super::base_64;

/// Nodes of one file, as if all aliases were written out.
const MAX_NODES: usize = 1 << 20;

/// One value, and where it begins in the text.
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) value: Value,
    /// Nodes in it, aliases written out.
    size: usize,
}

pub(super) enum Value {
    Null,
    Text(String),
    List {
        items: Vec<Arc<Node>>,
        is_block: bool,
    },
    Map(Vec<(Arc<Node>, Arc<Node>)>),
}

/// What is wrong with a text.
pub(super) struct Fault {
    pub(super) why: String,
}

impl Node {
    /// What it is, for people.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Text(_) => "a text",
            Value::List { .. } => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// What is wrong where this is no mapping.
    pub(super) fn expect_mapping(&self, key: &str) -> Result<(), String> {
        match self.value {
            Value::Map(_) => Ok(()),
            _ => Err(format!(
                "expected a mapping as {key}, found {}",
                self.kind()
            )),
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Arc<Self>] {
        match &self.value {
            Value::List { items, .. } => items,
            _ => &[],
        }
    }

    /// Its own keys and values, as they stand.
    pub(super) fn entries(&self) -> &[(Arc<Self>, Arc<Self>)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key, its own or merged into it; nothing where it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Self>> {
        self.find(key).filter(|node| !node.is_null())
    }

    fn find(&self, key: &str) -> Option<&Arc<Self>> {
        let entries = self.entries();
        let own = entries.iter().find(|(name, _)| name.text() == Some(key));
        own.map(|(_, value)| value).or_else(|| {
            let merges = entries.iter().filter(|(name, _)| is_merge(name));
            let merged = merges.flat_map(|(_, value)| match &value.value {
                Value::List { items, .. } => items.as_slice(),
                _ => std::slice::from_ref(value),
            });
            merged.into_iter().find_map(|node| node.find(key))
        })
    }

    /// Its keys with those that are merged into it, each once.
    pub(super) fn fields(&self) -> Vec<(&str, &Self)> {
        let (mut fields, mut seen) = (Vec::new(), HashSet::new());
        self.add_fields(&mut fields, &mut seen);
        fields
    }

    fn add_fields<'a>(
        &'a self,
        fields: &mut Vec<(&'a str, &'a Self)>,
        seen: &mut HashSet<&'a str>,
    ) {
        let (merges, own): (Vec<_>, Vec<_>) =
            self.entries().iter().partition(|(name, _)| is_merge(name));
        for (name, value) in own {
            let name = name.text().unwrap_or_default();
            if seen.insert(name) {
                fields.push((name, value));
            }
        }
        for (_, value) in merges {
            match &value.value {
                Value::List { items, .. } => {
                    items.iter().for_each(|node| node.add_fields(fields, seen));
                }
                _ => value.add_fields(fields, seen),
            }
        }
    }
}

/// Whether a key merges another mapping into its own.
pub(super) fn is_merge(key: &Node) -> bool {
    key.text() == Some("<<")
}

/// A list or mapping that is being read.
struct Open {
    at: usize,
    anchor: usize,
    /// Of a mapping: keys and values in turn.
    nodes: Vec<Arc<Node>>,
    /// How a list is written; nothing for a mapping.
    list: Option<StructureStyle>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    documents: Vec<Arc<Node>>,
    nodes: usize,
}

/// The documents of a text.
pub(super) fn documents(text: &str) -> Result<Vec<Arc<Node>>, Fault> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            why: error.info().to_owned() + &format!(" (line {})", error.marker().line()),
        })?;
        builder.event(event, span).map_err(|why| Fault { why })?;
    }
    Ok(builder.documents)
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let at = span.start.byte_offset().unwrap_or(0);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                let tag = tag.as_ref();
                let tag = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:"));
                let is_null = is_plain && tag.as_deref() != Some("str") && is_null_text(&text);
                let value = match tag.as_deref() {
                    Some("null") => Value::Null,
                    _ if is_null => Value::Null,
                    Some("binary") => Value::Text(binary(&text)?),
                    _ => Value::Text(text.into_owned()),
                };
                self.add(Node { at, value, size: 1 }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                self.begin(at, anchor, Some(style));
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.begin(at, anchor, None);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let size = open.nodes.iter().map(|node| node.size).sum::<usize>() + 1;
                let value = open.list.map_or_else(
                    || Value::Map(pairs(&open.nodes)),
                    |style| Value::List {
                        is_block: matches!(style, StructureStyle::Block),
                        items: open.nodes.clone(),
                    },
                );
                let at = open.at;
                self.add(Node { at, value, size }, open.anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).map(Arc::clone);
                let node = node.ok_or("an alias stands within what it names")?;
                self.count(node.size)?;
                self.push(node);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: usize, anchor: usize, list: Option<StructureStyle>) {
        self.open.push(Open {
            at,
            anchor,
            nodes: Vec::new(),
            list,
        });
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(format!(
                "expected at most {MAX_NODES} values in a test file, found more"
            ));
        }
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.push(node);
        Ok(())
    }

    fn push(&mut self, node: Arc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.documents.push(node),
        }
    }
}

/// How YAML writes that there is no value.
fn is_null_text(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn pairs(nodes: &[Arc<Node>]) -> Vec<(Arc<Node>, Arc<Node>)> {
    let (pairs, _) = nodes.as_chunks::<2>();
    let both = |[key, value]: &[Arc<Node>; 2]| (Arc::clone(key), Arc::clone(value));
    pairs.iter().map(both).collect()
}

fn binary(text: &str) -> Result<String, String> {
    let text: String = text.split_ascii_whitespace().collect();
    let bytes = base_64::read(&STANDARD, &text, "a text with the tag !!binary")?;
    String::from_utf8(bytes)
        .map_err(|error| format!("expected UTF-8 in a text with the tag !!binary: {error}"))
}

/// What the beginning of a file says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outline {
    /// A list of tests, or what only stands above one.
    Tests,
    /// YAML that is something else, or holds nothing but comments.
    Other,
    /// No YAML as far as it goes, or not enough of it.
    Unclear,
}

/// Looks for the keys of the outermost mapping, in a text that may be cut.
pub(super) fn outline(text: &str, is_whole: bool) -> Outline {
    let mut depth = 0_usize;
    let mut is_key = false;
    let mut key = String::new();
    let mut has_meta = false;
    let mut is_list = false;
    let mut is_block = false;
    for event in Parser::new_from_str(text) {
        let Ok((event, _)) = event else {
            return Outline::Unclear;
        };
        let is_value = depth == 1 && !is_key && !is_list;
        let begins_list = matches!(event, Event::SequenceStart(..));
        if is_value && event.is_node() {
            let is_empty = event.scalar().is_some_and(|(text, _)| is_null_text(text));
            match key.as_str() {
                "tests" if begins_list || is_empty || event.is_alias() => return Outline::Tests,
                // An object of a JSON log may have one, too.
                "rule_id" if is_block && event.scalar().is_some() => return Outline::Tests,
                "test_overrides" => return Outline::Other,
                "meta" => has_meta = true,
                _ => {}
            }
        } else if depth == 1 && event.is_node() {
            key.clear();
            key.push_str(event.scalar().map_or("", |(text, _)| text));
        }
        match &event {
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if depth == 0 {
                    is_list = begins_list;
                    is_block = matches!(event, Event::MappingStart(StructureStyle::Block, ..));
                    is_key = !is_list;
                }
                depth += 1;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                depth -= 1;
                if depth == 1 {
                    is_key = !is_key;
                }
            }
            event if event.is_node() && depth == 1 => is_key = !is_key,
            _ => {}
        }
    }
    match (has_meta, is_whole) {
        (true, _) => Outline::Tests,
        (false, true) => Outline::Other,
        (false, false) => Outline::Unclear,
    }
}
