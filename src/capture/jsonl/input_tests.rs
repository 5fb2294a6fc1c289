//! Inputs in every spelling, and the bytes that the guest gets.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::EventKind::{RequestBody, RequestHeaders, ResponseBody, ResponseHeaders};

fn is_written(json: &str, kind: EventKind) -> bool {
    FastReader::read(json.as_bytes(), |reader| written(reader, kind)).is_ok()
}

/// What the guest gets, and the remark.
fn given(phase: Phase, json: &str) -> Result<(String, Option<Remark>), String> {
    let settings = DecodeSettings::default();
    let (question, [remark, _]) = read(phase, json, ("c1", &settings))?;
    let mut out = Vec::new();
    write_input(&question, HeaderNames::Lower, &mut out);
    Ok((String::from_utf8(out).unwrap(), remark))
}

const HEAD: &str = r#"{"method":"GET","uri":"/a","client_ip":"192.0.2.1","correlation_id":"c1","headers":{"a":"1","b":"2"}}"#;
const BODY: &str = r#"{"correlation_id":"c1","method":"GET","uri":"/a","client_ip":"192.0.2.1","headers":{},"chunk_index":0,"is_last":true,"total_size":5,"bytes_received":5,"data":"hello","encoding":"utf8"}"#;

#[test]
fn every_other_spelling_becomes_production_s() {
    let head = |from: &str, to: &str| (RequestHeaders, HEAD.replace(from, to), HEAD);
    let body = |from: &str, to: &str| (RequestBody, BODY.replace(from, to), BODY);
    for (kind, json, expected) in [
        head(":", ": "),
        head("{", "{\n"),
        head("/a", "\\/a"),
        head("/a", "\\u002fa"),
        head("GET", "\\u0047ET"),
        head(r#""a":"1","b":"2""#, r#""b":"2","a":"1""#),
        head(r#""a":"1""#, r#""A":"1""#),
        head(r#""a":"1""#, r#""\u0061":"1""#),
        head("192.0.2.1", "192.0.2.1:4711"),
        head(
            r#""method":"GET","uri":"/a""#,
            r#""uri":"/a","method":"GET""#,
        ),
        head(r#","correlation_id":"c1""#, ""),
        head(r#","client_ip":"192.0.2.1""#, ""),
        body("\"chunk_index\":0", "\"chunk_index\":0.0"),
        body("\"total_size\":5", "\"total_size\":5e0"),
        body("\"bytes_received\":5", "\"bytes_received\":0.5e1"),
        body("\"chunk_index\":0,", ""),
        body(
            r#""hello","encoding":"utf8""#,
            r#""aGVsbG8=","encoding":"base64""#,
        ),
        body(r#","encoding":"utf8""#, ""),
        body(
            "\"is_last\":true,\"total_size\":5",
            "\"total_size\":5,\"is_last\":true",
        ),
    ] {
        assert!(!is_written(&json, kind), "{json}");
        let given = given(Phase::Event(kind), &json);
        let expected = (expected.to_owned(), Some(Remark::Respelled));
        assert_eq!(given.as_ref(), Ok(&expected), "{json}");
    }
}

#[test]
fn keys_that_no_input_has_are_left_out_and_told() {
    for (kind, json) in [
        (RequestHeaders, HEAD.replacen('{', r#"{"x":1,"#, 1)),
        (RequestHeaders, HEAD.replacen('{', r#"{"status":200,"#, 1)),
        (RequestBody, BODY.replacen('{', r#"{"bytes_sent":1,"#, 1)),
    ] {
        let expected = if kind == RequestHeaders { HEAD } else { BODY };
        let given = given(Phase::Event(kind), &json).unwrap();
        assert_eq!(given, (expected.to_owned(), Some(Remark::UnknownKeys)));
    }
    let context = r#"{"input":{"a":1.50,"b":{"x":[]}},"data":null,"user":{"id":"7","role":"r"},"headers":{},"tenant_id":null}"#;
    let hook = Phase::Hook(crate::hook::Hook::Before);
    let expected = context.replace("1.50", "1.5");
    for (json, remark) in [
        (expected.clone(), None),
        (context.to_owned(), Some(Remark::Respelled)),
        (
            context.replacen('{', r#"{"x":1,"#, 1),
            Some(Remark::UnknownKeys),
        ),
        (
            context.replace(r#""id""#, r#""x":1,"id""#),
            Some(Remark::UnknownKeys),
        ),
    ] {
        assert_eq!(
            given(hook, &json).unwrap(),
            (expected.clone(), remark),
            "{json}"
        );
    }
}

#[test]
fn what_no_event_can_be_is_told() {
    for (kind, json, says) in [
        (
            RequestHeaders,
            r#"{"uri":"/"}"#,
            "expected \"method\", found none",
        ),
        (RequestHeaders, "[]", "an object"),
        (
            RequestHeaders,
            r#"{"method":"a","uri":"/","uri":"/"}"#,
            "\"uri\" once",
        ),
        (ResponseHeaders, "{}", "expected \"status\", found none"),
        (
            ResponseHeaders,
            r#"{"status":65536}"#,
            "status: expected a whole number from 0 to 65535, found 65536",
        ),
        (ResponseHeaders, r#"{"status":200.5}"#, "found 200.5"),
        (
            ResponseHeaders,
            r#"{"status":200,"headers":{"a":1}}"#,
            "headers.a",
        ),
        (
            ResponseBody,
            r#"{"headers":{}}"#,
            "expected \"status\", found none",
        ),
        (RequestBody, r#"{"encoding":"hex"}"#, "\"hex\""),
        (RequestBody, r#"{"data":"@","encoding":"base64"}"#, "base64"),
        (RequestBody, r#"{"is_last":1}"#, "is_last"),
        (RequestBody, r#"{"data":"\ud800"}"#, "data"),
    ] {
        let why = given(Phase::Event(kind), json).unwrap_err();
        assert!(why.contains(says), "{json}: {why}");
    }
}

fn event() -> impl Strategy<Value = (EventKind, String)> {
    let text = || "[ -~é/\\\\\"\n\u{1}]{0,6}";
    let request = (
        text(),
        text(),
        prop::collection::vec(("[a-cA-C-]{1,2}", text()), 0..4),
    );
    let bytes = prop_oneof![
        text().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    let chunk = (
        any::<u32>(),
        any::<bool>(),
        prop::option::of(any::<u64>()),
        any::<u64>(),
        bytes,
    );
    let status = prop::option::of(100..=999_u16);
    (0..4_usize, prop::option::of(request), status, chunk).prop_map(
        |(kind, request, status, (chunk_index, is_last, total_size, transferred_bytes, data))| {
            let chunk = BodyChunk {
                correlation_id: "c1".into(),
                chunk_index,
                is_last,
                total_size,
                transferred_bytes,
                data,
            };
            let head =
                |(method, uri, headers): (String, String, Vec<(String, String)>)| RequestHead {
                    correlation_id: "c1".into(),
                    method,
                    uri,
                    client_ip: "192.0.2.1".into(),
                    headers: headers.into_iter().collect(),
                };
            let response = |status| ResponseHead {
                correlation_id: "c1".into(),
                status,
                headers: Headers::from([("x", "y")]),
            };
            let event = match EventKind::ALL[kind] {
                RequestHeaders => Event::RequestHeaders(request.map(head).unwrap_or_default()),
                ResponseHeaders => Event::ResponseHeaders(response(status.unwrap_or(200))),
                RequestBody => Event::RequestBody {
                    chunk,
                    request: request.map(head).map(Arc::new),
                },
                ResponseBody => Event::ResponseBody {
                    chunk,
                    request: request.map(head).map(Arc::new),
                    response: status.map(response).map(Arc::new),
                },
            };
            let mut out = Vec::new();
            write_input(&Question::from(event), HeaderNames::Lower, &mut out);
            (EventKind::ALL[kind], String::from_utf8(out).unwrap())
        },
    )
}

proptest! {
    /// What the writer writes is read back to the same bytes, and found to be
    /// written where nothing in it is rare.
    #[test]
    fn what_the_writer_writes_is_exact((kind, json) in event()) {
        let (again, remark) = given(Phase::Event(kind), &json).unwrap();
        prop_assert_eq!((&again, remark), (&json, None));
        let is_rare = json.contains("\\u") || json.contains("\\/");
        prop_assert!(is_rare || is_written(&json, kind), "{}", json);
    }

    /// What is taken for written is what the writer writes.
    #[test]
    fn nothing_is_exact_that_the_writer_writes_otherwise(
        (kind, json) in event(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut bytes = json.into_bytes();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        let found = FastReader::read(&bytes, |reader| written(reader, kind)).ok();
        if let Some(found) = found {
            let json = String::from_utf8(bytes).unwrap();
            let (given, _) = given(Phase::Event(kind), &json).unwrap();
            prop_assert_eq!(&given, &json);
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(json!(found.chunk_index), value["chunk_index"].clone());
        }
    }
}
