//! go-ftw test files: a WAF's regression suite as traffic.
//!
//! A file is read as a whole; each stage of each test is a transaction with an
//! [`Expectation`](super::Expectation). Both the second version (`stages`) and the
//! third (`payload` and `template`) are read. Keys that mean nothing here make the
//! test unusable by name; expectations about logs and bodies, which a module's
//! answer does not have, are counted as not checked.

mod expect;
mod template;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::format::{Read, Reader};
use super::stream::Stream;
use super::{
    ExchangeParts, Format, Half, Item, Pieces, Place, RawTransaction, Remark, Transaction,
    Unusable, base_64, http1, stable_hash,
};
use crate::event::{DEFAULT_CLIENT_IP, Headers, RequestHead, ResponseHead};

use expect::{Output, expectation};
use template::templated;

/// Bytes of one test file; the largest of the Core Rule Set has 0.2 MB.
const MAX_FILE_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    rule_id: Option<String>,
    #[serde(default)]
    template: Option<Input>,
    #[serde(default)]
    tests: Vec<Spanned<Test>>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(alias = "id")]
    test_id: Option<String>,
    test_title: Option<String>,
    #[serde(default)]
    stages: Vec<Stage>,
    payload: Option<String>,
    template: Option<Input>,
    output: Option<Output>,
}

/// A stage, or the first version's wrapper around one.
#[derive(Deserialize)]
struct Stage {
    stage: Option<Box<Stage>>,
    input: Option<Input>,
    output: Option<Output>,
}

#[derive(Deserialize, Default, Clone)]
struct Input {
    uri: Option<String>,
    uris: Option<Vec<String>>,
    method: Option<String>,
    headers: Option<Fields>,
    ordered_headers: Option<Vec<Named>>,
    data: Option<Data>,
    encoded_data: Option<String>,
    encoded_request: Option<String>,
    raw_request: Option<String>,
    autocomplete_headers: Option<bool>,
    stop_magic: Option<bool>,
    save_cookie: Option<bool>,
    follow_redirect: Option<bool>,
    response: Option<Response>,
}

/// A map in the second version, a list in the third's template.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Fields {
    Map(BTreeMap<String, String>),
    List(Vec<Named>),
}

#[derive(Deserialize, Clone)]
struct Named {
    name: String,
    value: String,
}

/// One text, or the first version's list of lines.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Data {
    Text(String),
    Lines(Vec<String>),
}

#[derive(Deserialize, Clone)]
struct Response {
    headers: Option<BTreeMap<String, String>>,
    status: Option<u16>,
    body: Option<String>,
    encoded_body: Option<String>,
}

/// The keys of each object: those that are read, and those that mean nothing to
/// a module.
const KNOWN: [(&str, &str); 5] = [
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
];

pub(super) static READER: Reader = Reader {
    title: "go-ftw tests",
    loses: Some("no client address; only the response that the test gives"),
    recognises: |head| {
        let of_tests: [&[u8]; 3] = [b"tests", b"rule_id", b"meta"];
        head.yaml_keys().iter().any(|key| of_tests.contains(key))
    },
    frames: |stream| {
        let mut stream = Some(stream);
        Box::new(std::iter::from_fn(move || stream.take().map(read)).flatten())
    },
    read: Read::Done,
};

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

fn read(mut stream: Stream) -> Vec<Item> {
    let mut bytes = Vec::new();
    let read = Rest(&mut stream)
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes);
    let file = Arc::clone(&stream.file);
    let whole = |why| {
        vec![Item::Unusable(Unusable {
            place: Place {
                file: Arc::clone(&file),
                record: 0,
                offset: 0,
            },
            why,
        })]
    };
    if let Err(error) = read {
        return whole(super::stream::unreadable(&error));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return whole(format!(
            "expected a test file of at most {MAX_FILE_BYTES} bytes, found more"
        ));
    }
    let text = match crate::json::explain::utf8(&bytes) {
        Ok(text) => text,
        Err(why) => return whole(why),
    };
    let tests: File = match serde_saphyr::from_str(text) {
        Ok(tests) => tests,
        Err(error) => {
            let error = error.to_string();
            let line = error.lines().next().unwrap_or_default();
            return whole(format!(
                "expected go-ftw tests: {}",
                crate::fault::printable(line, 300)
            ));
        }
    };
    let as_written: Value = serde_saphyr::from_str(text).unwrap_or_default();
    let mut items = Vec::new();
    let lines = LineStarts::of(text);
    for (index, test) in tests.tests.iter().enumerate() {
        let place = Place {
            file: Arc::clone(&file),
            record: index as u64 + 1,
            offset: lines.offset(test.referenced.line()),
        };
        let mut unknown = Vec::new();
        unknown_keys("test", &as_written["tests"][index], &mut unknown);
        if !unknown.is_empty() {
            let why = format!("unknown keys: {}", unknown.join(", "));
            items.push(Item::Unusable(Unusable { place, why }));
            continue;
        }
        test_items(&tests, &test.value, place, &mut items);
    }
    if items.is_empty() {
        return whole("expected at least one of \"tests\", found none".to_owned());
    }
    items
}

/// Byte offsets of lines.
struct LineStarts(Vec<u64>);

impl LineStarts {
    fn of(text: &str) -> Self {
        let behind = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at as u64 + 1);
        Self(std::iter::once(0).chain(behind).collect())
    }

    fn offset(&self, line: u64) -> u64 {
        usize::try_from(line.saturating_sub(1))
            .ok()
            .and_then(|line| self.0.get(line).copied())
            .unwrap_or(0)
    }
}

/// Adds the keys that nobody knows, in the document's order, each with the
/// object that it stands in.
fn unknown_keys(level: &str, value: &Value, found: &mut Vec<String>) {
    let known = KNOWN.into_iter().filter(|(name, _)| *name == level);
    let known: Vec<&str> = known.flat_map(|(_, keys)| keys.split(' ')).collect();
    for (key, value) in value.as_object().into_iter().flatten() {
        if !known.contains(&key.as_str()) {
            found.push(format!("{level}.{}", crate::fault::printable(key, 40)));
        }
        match key.as_str() {
            "stages" => {
                let stages = value.as_array().into_iter().flatten();
                stages.for_each(|stage| unknown_keys("stage", stage, found));
            }
            "stage" | "input" | "output" | "log" => unknown_keys(key, value, found),
            "template" => unknown_keys("input", value, found),
            _ => {}
        }
    }
}

fn test_items(file: &File, test: &Test, place: Place, items: &mut Vec<Item>) {
    let name = match (&file.rule_id, &test.test_id, &test.test_title) {
        (Some(rule), Some(test), _) => format!("{rule}-{test}"),
        (_, _, Some(title)) => title.clone(),
        (rule, test, None) => format!(
            "{}-{}",
            rule.as_deref().unwrap_or("test"),
            test.clone().unwrap_or_else(|| place.record.to_string())
        ),
    };
    let mut stages: Vec<(Input, Output)> = Vec::new();
    if test.stages.is_empty() {
        let mut input = file.template.clone().unwrap_or_default();
        if let Some(own) = &test.template {
            input = own.clone().over(input);
        }
        stages.push((input, test.output.clone().unwrap_or_default()));
    }
    for stage in &test.stages {
        let stage = stage.stage.as_deref().unwrap_or(stage);
        stages.push((
            stage.input.clone().unwrap_or_default(),
            stage.output.clone().unwrap_or_default(),
        ));
    }
    let several = stages.len() > 1;
    for (index, (mut input, output)) in stages.into_iter().enumerate() {
        let case = Case {
            name: if several {
                format!("{name} stage {}", index + 1)
            } else {
                name.clone()
            },
            payload: test.payload.as_deref(),
            output,
            place: &place,
        };
        let uris = input.uris.take().filter(|uris| !uris.is_empty());
        let uris = uris.map_or(vec![input.uri.take()], |uris| {
            uris.into_iter().map(Some).collect()
        });
        for uri in uris {
            input.uri = uri;
            items.push(match case.transaction(&input) {
                Ok(transaction) => Item::Transaction(RawTransaction {
                    file: Arc::clone(&place.file),
                    format: Format::Ftw,
                    key: stable_hash(&items.len().to_le_bytes()),
                    pieces: Pieces::new(),
                    note: None,
                    ready: Some(Box::new(transaction)),
                }),
                Err(why) => Item::Unusable(Unusable {
                    place: place.clone(),
                    why: format!("{}: {why}", case.name),
                }),
            });
        }
    }
}

/// One stage of a test, whatever its input.
struct Case<'a> {
    name: String,
    payload: Option<&'a str>,
    output: Output,
    place: &'a Place,
}

impl Case<'_> {
    fn transaction(&self, input: &Input) -> Result<Transaction<'static>, String> {
        if input.follow_redirect == Some(true) || input.save_cookie == Some(true) {
            return Err(
                "follow_redirect and save_cookie need a server's response, and there is none"
                    .to_owned(),
            );
        }
        let encoded = input.encoded_request.as_ref();
        let encoded = encoded.or(input.raw_request.as_ref());
        let mut request = match encoded.filter(|text| !text.is_empty()) {
            Some(encoded) => raw(encoded)?,
            None => built(input, self.payload)?,
        };
        request.head.correlation_id.clone_from(&self.name);
        let mut exchange = ExchangeParts::new(self.place.clone());
        exchange.request = Some(request);
        if let Some(given) = &input.response {
            exchange.response = Some(response(given)?);
        }
        let (expect, not_checked) = expectation(&self.name, &self.output);
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

impl Input {
    /// This one, with what it does not say taken from another.
    fn over(self, base: Self) -> Self {
        macro_rules! own_or_base {
            ($($key:ident)*) => {
                Self { $($key: self.$key.or(base.$key),)* }
            };
        }
        own_or_base! {
            uri uris method headers ordered_headers data encoded_data encoded_request raw_request
            autocomplete_headers stop_magic save_cookie follow_redirect response
        }
    }

    fn fields(&self) -> Headers {
        let from_map = |map: &BTreeMap<String, String>| map.iter().collect();
        let from_list = |list: &[Named]| {
            list.iter()
                .map(|field| (&field.name, &field.value))
                .collect()
        };
        let mut fields: Headers = match &self.headers {
            Some(Fields::Map(map)) => from_map(map),
            Some(Fields::List(list)) => from_list(list),
            None => Headers::new(),
        };
        if let Some(ordered) = &self.ordered_headers {
            fields.extend(&from_list(ordered));
        }
        fields
    }
}

fn raw(encoded: &str) -> Result<Half<RequestHead>, String> {
    let mut request = http1::request(&decode64("encoded_request", encoded)?)?.half;
    DEFAULT_CLIENT_IP.clone_into(&mut request.head.client_ip);
    Ok(request)
}

fn decode64(key: &str, text: &str) -> Result<Vec<u8>, String> {
    let text: String = text.split_ascii_whitespace().collect();
    base_64::read(&STANDARD, &text, format_args!("\"{key}\""))
}

fn built(input: &Input, payload: Option<&str>) -> Result<Half<RequestHead>, String> {
    let fill = |text: &str| templated(text, payload);
    let body = match (&input.encoded_data, &input.data) {
        (Some(encoded), _) => decode64("encoded_data", encoded)?,
        (None, Some(Data::Text(text))) => fill(text)?.into_bytes(),
        (None, Some(Data::Lines(lines))) => fill(&lines.join("\r\n"))?.into_bytes(),
        (None, None) => Vec::new(),
    };
    let mut headers = Headers::new();
    for (name, value) in &input.fields() {
        headers.push(&fill(name)?, &fill(value)?);
    }
    let complete = input.autocomplete_headers.unwrap_or(true) && input.stop_magic != Some(true);
    if complete {
        let mut add = |name: &str, value: String| {
            if headers.value(name).is_none() {
                headers.push(name, &value);
            }
        };
        add("Connection", "close".to_owned());
        if !body.is_empty() {
            add(
                "Content-Type",
                "application/x-www-form-urlencoded".to_owned(),
            );
            add("Content-Length", body.len().to_string());
        }
    }
    Ok(Half {
        head: RequestHead {
            method: fill(input.method.as_deref().unwrap_or("GET"))?,
            uri: fill(input.uri.as_deref().unwrap_or("/"))?,
            client_ip: DEFAULT_CLIENT_IP.to_owned(),
            headers,
            ..RequestHead::default()
        },
        body,
    })
}

fn response(given: &Response) -> Result<Half<ResponseHead>, String> {
    let body = match (&given.encoded_body, &given.body) {
        (Some(encoded), _) if !encoded.is_empty() => decode64("encoded_body", encoded)?,
        (_, Some(body)) => body.clone().into_bytes(),
        _ => Vec::new(),
    };
    let headers = given.headers.iter().flatten().collect();
    Ok(Half::response(given.status.unwrap_or(200), headers, body))
}
