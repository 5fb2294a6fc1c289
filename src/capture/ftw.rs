//! go-ftw test files: a WAF's regression suite as traffic.
//!
//! A file is read as a whole; each stage of each test is a transaction with an
//! [`Expectation`](super::Expectation). All versions are read: stages within
//! `stage`, `stages`, and `payload` with `template`. A test that cannot be used is
//! named and costs no other; so does a text that is no YAML, by the lines that tests
//! begin in. Keys that mean nothing here make the test unusable by name; expectations
//! about logs and bodies, which a module's answer does not have, are counted as not
//! checked.

mod expect;
mod lines;
mod sent;
mod template;
mod yaml;

use std::collections::HashSet;
use std::io::Read as _;
use std::sync::{Arc, LazyLock};

use regex::bytes::Regex;

use super::detect::Head;
use super::format::{Read, Reader};
use super::stream::Stream;
use super::{
    ExchangeParts, Format, Item, Pieces, Place, RawTransaction, Remark, Transaction, Unusable,
    stable_hash,
};

use expect::expectation;
use lines::{Entry, Heading, entries};
use sent::{Input, Templates, text};
use yaml::{Node, Outline, Value, is_merge, outline};

/// Bytes of one test file; the largest of the Core Rule Set has 0.2 MB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The keys of each object: those that are read, and those that mean nothing to
/// a module.
const KNOWN: [(&str, &str); 7] = [
    (
        "test",
        "test_id id test_title stages payload template output desc description tags rule_id",
    ),
    ("stage", "stage input output description"),
    (
        "input",
        "uri uris method headers ordered_headers data encoded_data encoded_request raw_request \
         autocomplete_headers stop_magic save_cookie follow_redirect response dest_addr port \
         protocol version virtual_host_mode",
    ),
    (
        "output",
        "status response_contains log_contains no_log_contains log expect_error isolated \
         retry_once html_contains",
    ),
    ("log", "expect_ids no_expect_ids match_regex no_match_regex"),
    ("response", "headers status body encoded_body log_message"),
    ("header", "name value"),
];

/// Faulty keys of a kind that are written out; the others are counted.
const MAX_SHOWN_KEYS: usize = 5;

/// What a test file has in a line of its own, where its beginning is no YAML.
static TESTS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?m)^[ \t]*["']?(tests|rule_id)["']?[ \t]*:"#).ok());

pub(super) static READER: Reader = Reader {
    title: "go-ftw tests",
    loses: Some("no client address; only the response that the test gives"),
    recognises,
    frames: |stream| {
        let mut stream = Some(stream);
        Box::new(std::iter::from_fn(move || stream.take().map(read)).flatten())
    },
    read: Read::Done,
};

fn recognises(head: &Head<'_>) -> bool {
    // A map of YAML may begin like an object of JSON, without quotes.
    let has_keys_of_json = |text: &[u8]| text[1..].trim_ascii_start().starts_with(b"\"");
    if head.is_json() && has_keys_of_json(head.text) && !head.has("tests") {
        return false;
    }
    let has = |word: &str| memchr::memmem::find(head.text, word.as_bytes()).is_some();
    if !["tests", "rule_id", "meta"].into_iter().any(has) {
        return false;
    }
    match outline(&lines::readable(head.text), true) {
        Outline::Tests => true,
        Outline::Other => false,
        Outline::Unclear => TESTS
            .as_ref()
            .is_some_and(|form| !head.is_json() && form.is_match(head.text)),
    }
}

/// Whether a file that begins like this, or is this, is YAML and holds no tests:
/// settings that stand beside them.
pub(super) fn is_other_yaml(head: &[u8], is_whole: bool) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    !text.is_empty() && outline(&lines::readable(text), is_whole) == Outline::Other
}

struct Rest<'a>(&'a mut Stream);

impl std::io::Read for Rest<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let ready = self.0.ready()?;
        let taken = ready.len().min(out.len());
        out[..taken].copy_from_slice(&ready[..taken]);
        self.0.take(taken);
        Ok(taken)
    }
}

/// The items of a file, made when they are asked for.
type Items = Box<dyn Iterator<Item = Item> + Send>;

fn read(mut stream: Stream) -> Items {
    let mut bytes = Vec::new();
    let read = Rest(&mut stream)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes);
    let file = Arc::clone(&stream.file);
    let whole = |why| -> Items {
        Box::new(std::iter::once(Item::Unusable(Unusable {
            place: Place {
                file: Arc::clone(&file),
                record: 0,
                offset: 0,
            },
            why,
        })))
    };
    if let Err(error) = read {
        return whole(super::stream::unreadable(&error));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return whole(format!(
            "expected a test file of at most {MAX_FILE_BYTES} bytes, found more"
        ));
    }
    let entries = entries(&bytes);
    drop(bytes);
    if entries.is_empty() {
        return whole("expected at least one of \"tests\", found none".to_owned());
    }
    let tests = entries
        .into_iter()
        .zip(1..)
        .flat_map(move |(entry, record)| {
            let place = Place {
                file: Arc::clone(&file),
                record,
                offset: entry.at as u64,
            };
            items(&entry, place)
        });
    match stream.key {
        None => Box::new(tests),
        Some(file) => Box::new(tests.map(move |mut item| {
            if let Item::Transaction(test) = &mut item {
                test.key = stable_hash(&[test.key, file].map(u64::to_le_bytes).concat());
            }
            item
        })),
    }
}

/// What is wrong with the keys of a test.
#[derive(Default)]
struct Keys {
    unknown: Vec<String>,
    twice: Vec<String>,
    /// With a value that nobody looks into.
    nested: Vec<String>,
}

impl Keys {
    /// Looks at the keys in the document's order, each with the object that it
    /// stands in.
    fn check(&mut self, level: &str, node: &Node) {
        let known = KNOWN.into_iter().find(|(name, _)| *name == level);
        let mut seen = HashSet::new();
        for (key, value) in node.entries() {
            if is_merge(key) {
                let merged = std::slice::from_ref(value);
                let merged = if value.items().is_empty() {
                    merged
                } else {
                    value.items()
                };
                merged.iter().for_each(|node| self.check(level, node));
                continue;
            }
            let Some(name) = key.text() else {
                self.unknown.push(format!("{level}.({})", key.kind()));
                continue;
            };
            let shown = || format!("{level}.{}", crate::fault::printable(name, 40));
            if !seen.insert(name) {
                self.twice.push(shown());
            }
            if known.is_some_and(|(_, keys)| !keys.split(' ').any(|it| it == name)) {
                self.unknown.push(shown());
            }
            match name {
                "stages" if level == "test" => {
                    let stages = value.items().iter();
                    stages.for_each(|stage| self.check("stage", stage));
                }
                "stage" | "input" | "output" | "log" | "response" if known.is_some() => {
                    self.check(name, value);
                }
                "template" => self.check("input", value),
                "headers" | "ordered_headers" if known.is_some() => {
                    self.check("headers", value);
                    let listed = value.items().iter();
                    listed.for_each(|field| self.check("header", field));
                }
                _ if has_mapping(value) => self.nested.push(shown()),
                _ => {}
            }
        }
    }

    fn fault(self) -> Result<(), String> {
        let lists = [
            ("unknown keys", self.unknown),
            ("keys that stand twice", self.twice),
            ("mappings where a text is expected", self.nested),
        ];
        let said = lists.into_iter().filter(|(_, keys)| !keys.is_empty());
        let said: Vec<String> = said
            .map(|(what, keys)| {
                let shown = &keys[..keys.len().min(MAX_SHOWN_KEYS)];
                let more = match keys.len() - shown.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("{what}: {}{more}", shown.join(", "))
            })
            .collect();
        if said.is_empty() {
            return Ok(());
        }
        Err(said.join("; "))
    }
}

fn has_mapping(node: &Node) -> bool {
    let is_mapping = |node: &Node| matches!(node.value, Value::Map(_));
    is_mapping(node) || node.items().iter().any(|item| is_mapping(item))
}

fn items(entry: &Entry, place: Place) -> Items {
    let one = |why| -> Items {
        let place = place.clone();
        Box::new(std::iter::once(Item::Unusable(Unusable { place, why })))
    };
    let test = match &entry.test {
        Ok(test) => test,
        Err(why) => return one(why.clone()),
    };
    let mut keys = Keys::default();
    keys.check("test", test);
    let around = entry.heading.template.as_ref();
    if let Some(template) = around.filter(|_| test.get("stages").is_none()) {
        keys.check("input", template);
    }
    if let Err(why) = keys.fault() {
        return one(why);
    }
    let name = match test_name(&entry.heading, test, place.record) {
        Ok(name) => name,
        Err(why) => return one(why),
    };
    match cases(&entry.heading, test, &name) {
        Ok(cases) => {
            let cases = cases.into_iter().zip(0_u64..);
            Box::new(cases.flat_map(move |(case, stage)| case_items(case, &place, stage)))
        }
        Err(why) => one(format!("{name}: {why}")),
    }
}

/// The rule and the test, or the first version's title.
fn test_name(heading: &Heading, test: &Node, record: u64) -> Result<String, String> {
    let text = |key: &str| test.get(key).map(|it| text(key, it)).transpose();
    let id = text("test_id")?.or(text("id")?);
    Ok(match (&heading.rule_id, id, text("test_title")?) {
        (Some(rule), Some(id), _) => format!("{rule}-{id}"),
        (_, _, Some(title)) => title,
        (rule, id, None) => format!(
            "{}-{}",
            rule.as_deref().unwrap_or("test"),
            id.unwrap_or_else(|| record.to_string())
        ),
    })
}

/// One stage of a test.
struct Case {
    name: String,
    /// Of the third version: what stands for `.Payload`.
    around: Option<Option<String>>,
    /// Or what is wrong with it.
    input: Result<Input, String>,
    output: Option<Arc<Node>>,
}

fn cases(heading: &Heading, test: &Node, name: &str) -> Result<Vec<Case>, String> {
    let own = test.get("template");
    let Some(stages) = test.get("stages") else {
        let payload = test
            .get("payload")
            .map(|it| text("payload", it))
            .transpose()?;
        if payload.is_none() && own.is_none() && heading.template.is_none() {
            return Err(
                "expected \"stages\", or a \"payload\" and a \"template\", found neither"
                    .to_owned(),
            );
        }
        if heading.is_broken {
            return Err("the file's own \"template\" cannot be read".to_owned());
        }
        if own.is_none() && heading.template.is_none() {
            return Err("expected a \"template\" for the payload, found none".to_owned());
        }
        let of = |node: Option<&Arc<Node>>| {
            node.map_or_else(|| Ok(Input::default()), |it| Input::of(it))
        };
        let input = of(own).and_then(|own| Ok(own.over(of(heading.template.as_ref())?)));
        return Ok(vec![Case {
            name: name.to_owned(),
            around: Some(payload),
            input,
            output: test.get("output").map(Arc::clone),
        }]);
    };
    let both = ["payload", "template", "output"];
    if let Some(key) = both.into_iter().find(|key| test.get(key).is_some()) {
        return Err(format!("expected \"stages\" or \"{key}\", found both"));
    }
    let stages = match &stages.value {
        Value::List { items, .. } if !items.is_empty() => items,
        Value::List { .. } => {
            return Err("expected at least one of \"stages\", found none".to_owned());
        }
        _ => {
            return Err(format!(
                "expected a list of \"stages\", found {}",
                stages.kind()
            ));
        }
    };
    let several = stages.len() > 1;
    let case = |(index, stage): (usize, &Arc<Node>)| {
        let (stage, parts) = stage_parts(stage);
        Case {
            name: if several {
                format!("{name} stage {}", index + 1)
            } else {
                name.to_owned()
            },
            around: None,
            input: parts.and_then(|()| match stage.get("input") {
                Some(input) => Input::of(input),
                None => Err("expected an \"input\", found none".to_owned()),
            }),
            output: stage.get("output").map(Arc::clone),
        }
    };
    Ok(stages.iter().enumerate().map(case).collect())
}

/// The mapping that has a stage's parts, and whether they all stand in it.
fn stage_parts(listed: &Node) -> (&Node, Result<(), String>) {
    let Some(stage) = listed.get("stage") else {
        return (listed, Ok(()));
    };
    let beside = ["input", "output"].into_iter();
    let mut beside = beside.filter(|key| listed.get(key).is_some());
    let parts = match (beside.next(), stage.get("stage")) {
        (Some(key), _) => Err(format!("expected \"stage\" or \"{key}\", found both")),
        (None, Some(_)) => Err("expected one \"stage\", found another one in it".to_owned()),
        (None, None) => Ok(()),
    };
    (stage, parts)
}

/// The requests of a stage, one for each of its targets.
fn case_items(case: Case, place: &Place, stage: u64) -> Items {
    let place = place.clone();
    let uris = match &case.input {
        Ok(input) if !input.uris.is_empty() => input.uris.iter().cloned().map(Some).collect(),
        Ok(input) => vec![input.uri.clone()],
        Err(_) => vec![None],
    };
    Box::new(uris.into_iter().zip(0_u64..).map(move |(uri, index)| {
        match case.transaction(uri.as_deref(), &place) {
            Ok(transaction) => {
                let position = [place.record, stage, index].map(u64::to_le_bytes).concat();
                Item::Transaction(RawTransaction {
                    file: Arc::clone(&place.file),
                    format: Format::Ftw,
                    key: stable_hash(&position),
                    pieces: Pieces::new(),
                    note: None,
                    ready: Some(Box::new(transaction)),
                })
            }
            Err(why) => Item::Unusable(Unusable {
                place: place.clone(),
                why: format!("{}: {why}", case.name),
            }),
        }
    }))
}

impl Case {
    fn transaction(
        &self,
        uri: Option<&str>,
        place: &Place,
    ) -> Result<Transaction<'static>, String> {
        let input = self.input.as_ref().map_err(Clone::clone)?;
        let templates = match &self.around {
            Some(payload) => Templates::Around(payload.as_deref()),
            None => Templates::InData,
        };
        let mut request = input.request(uri, templates)?;
        let head = &mut request.half.head;
        head.correlation_id.clone_from(&self.name);
        let mut exchange = ExchangeParts::new(place.clone());
        for remark in request.remarks {
            exchange.remark(remark);
        }
        exchange.request = Some(request.half);
        exchange.response = input.response()?;
        let (expect, not_checked) = expectation(&self.name, self.output.as_deref())?;
        if not_checked {
            exchange.remark(Remark::NotChecked);
        }
        let mut transaction = exchange.into_transaction();
        let remarks = &mut transaction.remarks;
        remarks.retain(|remark| *remark != Remark::NoResponse);
        transaction.expect = expect.checks_any().then(|| Box::new(expect));
        Ok(transaction)
    }
}
