//! The events every module is called with: ordinary traffic, the attacks that
//! rules are written against, and a little of what nobody planned for.
//!
//! Names of headers are in lower case, as proxies send them. Every event has a
//! correlation id of its own, so a module that ties events together by it sees
//! each as an exchange of its own.

use std::borrow::Cow;
use std::sync::Arc;

use crate::abi::Abi;
use crate::event::{BodyChunk, Event, EventKind, Headers, RequestHead, ResponseHead};
use crate::guest::module::Module;
use crate::hook::{Hook, HookContext};
use crate::question::Question;

use super::calls::Sample;
use super::hooks;

type Fields = &'static [(&'static str, &'static str)];

const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// Name, method, URI, headers.
const REQUESTS: &[(&str, &str, &str, Fields)] = &[
    (
        "browser",
        "GET",
        "/",
        &[
            ("host", "www.example.com"),
            ("user-agent", BROWSER),
            ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
            ("accept-language", "en-GB,en;q=0.7"),
            ("cookie", "session=6f1e; theme=dark"),
        ],
    ),
    (
        "search",
        "GET",
        "/search?q=garden+chairs&page=2",
        &[("host", "www.example.com"), ("user-agent", BROWSER)],
    ),
    (
        "login",
        "POST",
        "/login",
        &[
            ("host", "www.example.com"),
            ("user-agent", BROWSER),
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-length", "27"),
            ("origin", "https://www.example.com"),
            ("referer", "https://www.example.com/login"),
        ],
    ),
    (
        "api-json",
        "PUT",
        "/api/items/7",
        &[
            ("host", "api.example.com"),
            ("content-type", "application/json"),
            ("x-api-key", "k-1234"),
            ("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."),
        ],
    ),
    (
        "admin-authorized",
        "GET",
        "/admin/users",
        &[
            ("host", "www.example.com"),
            ("user-agent", BROWSER),
            ("authorization", "Basic YWRtaW46c2VjcmV0"),
        ],
    ),
    (
        "admin-anonymous",
        "GET",
        "/admin",
        &[("host", "www.example.com"), ("user-agent", BROWSER)],
    ),
    (
        "scanner",
        "GET",
        "/",
        &[
            ("host", "www.example.com"),
            ("user-agent", "sqlmap/1.8.2#stable (https://sqlmap.org)"),
        ],
    ),
    (
        "crawler",
        "GET",
        "/articles/1",
        &[
            ("host", "www.example.com"),
            (
                "user-agent",
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            ),
        ],
    ),
    (
        "crawler-with-cookie",
        "GET",
        "/articles/1",
        &[
            ("host", "www.example.com"),
            ("user-agent", "ExampleBot/1.0"),
            ("cookie", "challenge=passed; session=6f1e"),
        ],
    ),
    (
        "sql-injection",
        "GET",
        "/products?id=1%27%20OR%20%271%27=%271%20UNION%20SELECT%20password%20FROM%20users--",
        &[("host", "www.example.com"), ("user-agent", BROWSER)],
    ),
    (
        "path-traversal",
        "GET",
        "/files/..%2f..%2f../etc/passwd",
        &[("host", "www.example.com"), ("user-agent", BROWSER)],
    ),
    (
        "cross-site-script",
        "GET",
        "/comment?text=%3Cscript%3Ealert(1)%3C/script%3E",
        &[("host", "www.example.com"), ("user-agent", BROWSER)],
    ),
    (
        "forwarded",
        "GET",
        "/old/page",
        &[
            ("host", "www.example.com"),
            ("x-forwarded-for", "198.51.100.9, 192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "198.51.100.9"),
            ("x-request-id", "9a3f"),
        ],
    ),
    ("bare", "GET", "/", &[]),
];

/// Name, status, headers.
const RESPONSES: &[(&str, u16, Fields)] = &[
    (
        "page",
        200,
        &[
            ("content-type", "text/html; charset=utf-8"),
            ("server", "nginx/1.24.0"),
            ("x-powered-by", "PHP/8.2.1"),
            ("set-cookie", "session=6f1e; HttpOnly"),
        ],
    ),
    ("not-found", 404, &[("content-type", "text/plain")]),
    (
        "redirect",
        302,
        &[("location", "https://www.example.com/login")],
    ),
    ("error", 500, &[("content-type", "application/json")]),
    ("bare", 204, &[]),
];

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

/// Broken input that is JSON all the same.
pub(super) const LONE_SURROGATE: &str = "lone-surrogate";

/// What the handlers of this module are called with.
pub(super) fn all(module: &Module) -> Vec<Sample> {
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

/// The events alone, by name: what a module is called with where nobody gave
/// fixtures.
pub(in crate::ops) fn events(module: &Module) -> Vec<(&'static str, Event)> {
    events_of(all(module))
}

/// The contexts that a hook module is called with, likewise.
pub(in crate::ops) fn contexts(module: &Module) -> Vec<(&'static str, Hook, HookContext)> {
    all(module)
        .into_iter()
        .filter_map(|sample| match sample.input {
            Question::Hook(hook, context) => Some((sample.name, hook, context.into_owned())),
            Question::Event(..) | Question::Exact { .. } => None,
        })
        .collect()
}

/// The requests among them.
pub(in crate::ops) fn requests_alone() -> Vec<(&'static str, Event)> {
    events_of(requests())
}

fn events_of(samples: impl IntoIterator<Item = Sample>) -> Vec<(&'static str, Event)> {
    samples
        .into_iter()
        .filter_map(|sample| match sample.input {
            Question::Event(event) => Some((sample.name, event.into_owned())),
            Question::Hook(..) | Question::Exact { .. } => None,
        })
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

fn requests() -> impl Iterator<Item = Sample> {
    (1..)
        .zip(REQUESTS)
        .map(|(n, (name, method, uri, fields))| Sample {
            name,
            input: Question::Event(Cow::Owned(Event::RequestHeaders(RequestHead {
                correlation_id: format!("request-{n}"),
                method: (*method).to_owned(),
                uri: (*uri).to_owned(),
                client_ip: "192.0.2.7".to_owned(),
                headers: headers(fields),
            }))),
        })
}

fn responses() -> impl Iterator<Item = Sample> {
    (1..)
        .zip(RESPONSES)
        .map(|(n, (name, status, fields))| Sample {
            name,
            input: Question::Event(Cow::Owned(Event::ResponseHeaders(ResponseHead {
                correlation_id: format!("response-{n}"),
                status: *status,
                headers: headers(fields),
            }))),
        })
}

fn bodies(kind: EventKind) -> impl Iterator<Item = Sample> {
    (1..).zip(BODIES).map(move |(n, (name, data, is_last))| {
        let chunk = BodyChunk {
            correlation_id: format!("{}-{n}", kind.name()),
            is_last: *is_last,
            total_size: is_last.then_some(data.len() as u64),
            transferred_bytes: data.len() as u64,
            data: data.to_vec(),
            ..BodyChunk::default()
        };
        let content_type = if name.starts_with("form") {
            "application/x-www-form-urlencoded"
        } else {
            "text/plain"
        };
        // The last one comes without its head, as from a proxy that lost it.
        let is_known = *name != "empty";
        let fields = headers(&[("content-type", content_type), ("x-trace", "1")]);
        let request = is_known.then(|| {
            Arc::new(RequestHead {
                correlation_id: chunk.correlation_id.clone(),
                method: "POST".to_owned(),
                uri: "/upload".to_owned(),
                client_ip: "192.0.2.7".to_owned(),
                headers: fields.clone(),
            })
        });
        let event = if kind == EventKind::RequestBody {
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
        Sample {
            name,
            input: Question::from(event),
        }
    })
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    fields.iter().copied().collect()
}
