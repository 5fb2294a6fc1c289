//! `--torture`: the inputs that production brings one day.
//!
//! Each on an instance of its own, and if that survives, an ordinary sample
//! after it must be answered as ever. How a row comes out:
//!
//! - answered: pass, whatever was decided;
//! - refused within the limits (`alloc` answers 0, memory limit, answer limit):
//!   warn, since such a request passes with `--fail-open`;
//! - any other fault: fail;
//! - input that no proxy event is written as: a fault is as good as a block,
//!   except for a deadline; an allow or nothing is a warning, since a module
//!   that allows what it cannot read will do so with what it should have read.

use crate::abi::Abi;
use crate::check::{Check, CheckId, CheckKind, CheckStatus};
use crate::event::{BodyChunk, Event, EventKind, Headers, RequestHead, ResponseHead};
use crate::fault::FaultCode;
use crate::question::Question;
use std::sync::Arc;

use super::Row;
use super::answers::difference;
use super::calls::{Prober, Sample, Seen, Trial};
use super::{hooks, samples};

const BUDGET: u64 = 5_000_000_000;
const MIB: usize = 1 << 20;
const MANY: usize = 10_000;

/// One input, and what it is in words.
struct Torture {
    what: &'static str,
    sample: Sample,
}

/// A row for each input, by handler.
pub(super) fn probe(prober: &Prober<'_>, trials: &[Trial]) -> Vec<Row> {
    let budget = prober.budget(BUDGET);
    let mut inputs = if prober.module.abi == Abi::Hook {
        let inputs = hooks::torture().into_iter();
        inputs
            .map(|(what, sample)| Torture { what, sample })
            .collect()
    } else {
        inputs()
    };
    inputs.extend(samples::broken(prober.module).into_iter().map(|sample| {
        let what = if sample.name == samples::LONE_SURROGATE {
            "escapes that name no character"
        } else {
            "input that is not JSON"
        };
        Torture { what, sample }
    }));
    inputs.retain_mut(|torture| {
        prober.module.has_handler(torture.sample.handler()) && prober.asks(&mut torture.sample)
    });
    let handlers = prober.module.abi.handlers();
    inputs.sort_by_key(|torture| {
        let name = torture.sample.handler();
        handlers.iter().position(|handler| *handler == name)
    });
    inputs
        .into_iter()
        .map(|torture| {
            let kind = torture.sample.handler().trim_start_matches("on_");
            let id = CheckKind::Torture.of(format!("{kind}:{}", torture.sample.name));
            if prober.is_exhausted() {
                Row::skip(id, torture.what, prober.why_skipped())
            } else if budget.is_spent() {
                // Asked for and not done: not to be taken for a pass.
                Check::warn(
                    id,
                    torture.what,
                    "not tried, the others took too long",
                    "validate it on an idle machine, or one handler at a time",
                )
                .into()
            } else {
                prober.patiently(|| one(prober, trials, &torture, id.clone()))
            }
        })
        .collect()
}

fn one(prober: &Prober<'_>, trials: &[Trial], torture: &Torture, id: CheckId) -> Row {
    let mut instance = match prober.instance() {
        Ok(instance) => instance,
        Err(fault) => return Row::fault(id, torture.what, &fault),
    };
    let seen = prober.call(&mut instance, &torture.sample);
    // What any first call grows by says nothing about this input.
    let usual = trials.iter().map(|trial| trial.seen.cost.grown_bytes).max();
    let mut row = judge(&seen, torture, id, usual.unwrap_or(0));
    row = row.beside_published([seen.fault()]);
    // Whatever came of it, the next client must not notice.
    let ordinary = trials
        .iter()
        .find(|trial| trial.is_survived() && trial.seen.result.is_ok());
    if seen.poison.is_none()
        && let Some(ordinary) = ordinary
    {
        let after = prober.call(&mut instance, &ordinary.sample);
        if !after.is_like(&ordinary.seen) {
            let (before, after) = difference(&ordinary.seen, &after);
            let found = format!(
                "{}; but {:?} gives {before} before it, {after} after it",
                row.check.found, ordinary.sample.name,
            );
            row.check = Check::fail(
                row.check.id,
                row.check.expected,
                found,
                "keep nothing between calls, also after errors",
            );
        }
    }
    row
}

fn judge(seen: &Seen, torture: &Torture, id: CheckId, usual_growth: u64) -> Row {
    let is_event = torture.sample.is_ordinary();
    let grew = match seen.cost.grown_bytes {
        bytes if bytes > usual_growth => format!(", grew {bytes} bytes"),
        _ => String::new(),
    };
    let expected = torture.what;
    match &seen.result {
        Err(fault) => {
            let mut row = Row::fault(id, expected, fault);
            let is_limit = matches!(
                fault.code,
                FaultCode::AllocNull | FaultCode::MemoryLimit | FaultCode::AnswerLimit
            );
            let is_endless = matches!(fault.code, FaultCode::Deadline | FaultCode::Fuel);
            row.check.found = format!("faulted, {}{grew}", row.check.found);
            if !is_event && !is_endless {
                row.check.status = CheckStatus::Pass;
                row.check.fix = String::new();
                row.detail = String::new();
            } else if is_limit {
                row.check.status = CheckStatus::Warn;
                row.check.fix = format!(
                    "{}; a request like this passes with --fail-open",
                    row.check.fix
                );
            }
            row
        }
        Ok(answer) => {
            let found = format!("answered {}{grew}", seen.outcome());
            // A handler that reads other keys only may answer as ever.
            let is_json = is_event || torture.sample.name == samples::LONE_SURROGATE;
            let passes = answer
                .as_ref()
                .map_or(!is_event, |answer| !is_json && answer.answer.passes());
            let check = Check::pass(id, expected, found);
            if passes {
                check
                    .with(
                        CheckStatus::Warn,
                        "refuse input that cannot be read; if it is allowed, it passes unchecked",
                    )
                    .into()
            } else {
                check.into()
            }
        }
    }
}

fn inputs() -> Vec<Torture> {
    let mut inputs = request_lines();
    inputs.extend(request_headers());
    inputs.extend(response_headers());
    for kind in [EventKind::RequestBody, EventKind::ResponseBody] {
        inputs.extend(bodies(kind));
    }
    inputs
}

fn request(
    name: &'static str,
    what: &'static str,
    change: impl FnOnce(&mut RequestHead),
) -> Torture {
    let mut head = RequestHead {
        correlation_id: "torture".to_owned(),
        method: "GET".to_owned(),
        uri: "/".to_owned(),
        client_ip: "192.0.2.7".to_owned(),
        headers: Headers::from([("host", "www.example.com")]),
    };
    change(&mut head);
    let input = Question::from(Event::RequestHeaders(head));
    Torture {
        what,
        sample: Sample { name, input },
    }
}

fn request_lines() -> Vec<Torture> {
    let uri = |name, what, uri: String| request(name, what, |head| head.uri = uri);
    let method = |name, what, method: &str| request(name, what, |head| head.method = method.into());
    vec![
        request("empty-values", "every value empty", |head| {
            *head = RequestHead::default();
            head.headers = Headers::from([("x-empty", "")]);
        }),
        uri(
            "uri-1-mib",
            "a URI of 1 MiB",
            format!("/{}", "a".repeat(MIB)),
        ),
        uri(
            "uri-parameters",
            "a URI of 10 000 parameters",
            format!("/?{}", "a=1&".repeat(MANY)),
        ),
        uri(
            "uri-escapes",
            "a URI of 10 000 escaped percent signs",
            format!("/{}", "%2525".repeat(MANY)),
        ),
        uri(
            "uri-cut-escapes",
            "escapes that end early",
            "/%/%f/%zz?%=%&".into(),
        ),
        uri("uri-nul", "a NUL in the URI", "/a\0b?\0".into()),
        uri(
            "uri-non-ascii",
            "a URI that is not ASCII",
            "/café/日本/😀?ü=ö".into(),
        ),
        uri("uri-asterisk", "the URI *", "*".into()),
        uri(
            "uri-absolute",
            "an absolute URI",
            "http://u:p@[::1]:80//a/../b".into(),
        ),
        uri("uri-odd", "no path, two question marks", "??#/..;/".into()),
        method("method-lower-case", "the method get", "get"),
        method("method-connect", "the method CONNECT", "CONNECT"),
        method("method-unknown", "an unknown method", "X-\u{1}é FOO"),
        method("method-64-kib", "a method of 64 KiB", &"M".repeat(64 << 10)),
        request("address-odd", "a client address that is none", |head| {
            head.client_ip = "fe80::1%eth0, unknown".to_owned();
        }),
    ]
}

fn many_headers() -> Headers {
    (0..MANY).map(|n| (format!("x-{n:05}"), "v")).collect()
}

fn request_headers() -> Vec<Torture> {
    let header = |name, what, field: &str, value: String| {
        request(name, what, |head| {
            head.headers.push(field, &value);
        })
    };
    vec![
        request("headers-10000", "ten thousand headers", |head| {
            head.headers = many_headers();
        }),
        request("header-repeated", "one header a thousand times", |head| {
            let cookie = ("cookie", "a=b; c=d");
            head.headers.extend(std::iter::repeat_n(cookie, 1000));
        }),
        header(
            "header-1-mib",
            "a header of 1 MiB",
            "cookie",
            "a=b; ".repeat(MIB / 5),
        ),
        header(
            "header-nul",
            "a NUL in a header",
            "user-agent",
            "\0\0".into(),
        ),
        header(
            "header-controls",
            "line ends in a header",
            "user-agent",
            "a\r\nb: c\x7f".into(),
        ),
        header(
            "header-non-ascii",
            "a header not ASCII",
            "user-agent",
            "naïve 日本 😀\u{fffd}".into(),
        ),
        header("header-no-name", "a header without a name", "", "x".into()),
    ]
}

fn response_headers() -> Vec<Torture> {
    let response = |name, what, status, headers| {
        let event = Event::ResponseHeaders(ResponseHead {
            correlation_id: "torture".to_owned(),
            status,
            headers,
        });
        let sample = samples::event(name, event);
        Torture { what, sample }
    };
    let one = |value: &str| Headers::from([("set-cookie", value)]);
    vec![
        response("empty-values", "every value empty", 200, one("")),
        response("status-0", "the status 0", 0, Headers::new()),
        response("status-65535", "the status 65535", u16::MAX, Headers::new()),
        response("headers-10000", "ten thousand headers", 200, many_headers()),
        response(
            "header-1-mib",
            "a header of 1 MiB",
            200,
            one(&"a".repeat(MIB)),
        ),
        response("header-nul", "a NUL in a header", 200, one("\0")),
        response("header-non-ascii", "a header not ASCII", 200, one("ü 😀")),
    ]
}

fn bodies(kind: EventKind) -> Vec<Torture> {
    let body = |name, what, chunk: BodyChunk| {
        let chunk = BodyChunk {
            correlation_id: "torture".to_owned(),
            ..chunk
        };
        let request = Some(Arc::new(RequestHead::default()));
        let event = if kind == EventKind::RequestBody {
            Event::RequestBody { chunk, request }
        } else {
            Event::ResponseBody {
                chunk,
                request,
                response: None,
            }
        };
        let sample = samples::event(name, event);
        Torture { what, sample }
    };
    let data = |data: Vec<u8>| BodyChunk {
        is_last: true,
        total_size: Some(data.len() as u64),
        transferred_bytes: data.len() as u64,
        data,
        ..BodyChunk::default()
    };
    vec![
        body("empty", "an empty chunk", data(Vec::new())),
        body(
            "text-1-mib",
            "a chunk of 1 MiB of text",
            data(b"a+b%20".repeat(MIB / 6)),
        ),
        body(
            "bytes-1-mib",
            "a chunk of 1 MiB of bytes",
            data(vec![0xff; MIB]),
        ),
        body(
            "digits-1-mib",
            "a chunk of 1 MiB of digits",
            data(b"4111 ".repeat(MIB / 5)),
        ),
        body("nul", "NUL in the chunk", data(vec![0; 64])),
        body(
            "non-ascii",
            "a chunk not ASCII",
            data("ü 日本 😀 \u{202e}".into()),
        ),
        body(
            "figures",
            "the largest index and sizes",
            BodyChunk {
                chunk_index: u32::MAX,
                total_size: Some(u64::MAX),
                transferred_bytes: u64::MAX,
                ..BodyChunk::default()
            },
        ),
    ]
}
