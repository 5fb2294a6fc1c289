//! Events of released proxies, of custom builds, and of nobody.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::EventKind;
use crate::fault::{BadEvent, Fault, FaultCode};
use crate::policy::decision::{FailurePolicy, decide};
use crate::protocol::wire::recorded;
use crate::response::Decision;

fn json_event(kind: RequestType, json: &str) -> Result<Message, BadMessage> {
    read_v2(kind, Encoding::Json, json.as_bytes())
}

fn bad(what: BadEvent, at: &'static str, id: Option<&str>) -> BadMessage {
    BadMessage {
        what,
        at,
        correlation_id: id.map(str::to_owned),
    }
}

#[test]
fn every_recorded_v2_event_is_read() {
    let mut kinds = Vec::new();
    for frame in recorded::v2() {
        let Some(kind) = RequestType::from_byte(frame.kind) else {
            continue;
        };
        assert!(frame.from_proxy);
        let message = read_v2(kind, Encoding::Json, &frame.payload).unwrap();
        let Message::Event(event, _) = &message else {
            panic!("{message:?}")
        };
        assert!(message.correlation_id().starts_with("mu"));
        if let Event::RequestHeaders(head) = event {
            assert_eq!(head.client_ip, "127.0.0.1");
        }
        kinds.push(event.kind());
    }
    for kind in EventKind::ALL {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

/// Nobody would notice if real frames were left to the slower reader.
#[test]
fn real_frames_are_read_the_fast_way() {
    let of_proxies = |frame: &recorded::Recorded| frame.from_proxy;
    let v2 = recorded::v2().into_iter().filter(of_proxies);
    let v2 = v2.filter(|frame| RequestType::from_byte(frame.kind).is_some());
    let mut read = 0;
    for frame in v2 {
        let mut fields = Fields::default();
        FastReader::read(&frame.payload, |reader: &mut FastReader<'_>| {
            fields.fill(reader)
        })
        .unwrap();
        read += 1;
    }
    for frame in recorded::v1().into_iter().filter(of_proxies) {
        let mut envelope = Envelope::default();
        FastReader::read(&frame.payload, |reader: &mut FastReader<'_>| {
            envelope.fill(reader)
        })
        .unwrap();
        read += 1;
    }
    assert!(read > 10, "{read}");
}

#[test]
fn every_recorded_v1_event_is_read() {
    let mut uris = Vec::new();
    for frame in recorded::v1().iter().filter(|frame| frame.from_proxy) {
        match read_v1(&frame.payload).unwrap() {
            Message::Event(Event::RequestHeaders(head), _) => uris.push(head.uri),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        uris,
        [
            "/hello?x=1&y=a%20b",
            "/multi",
            "/post",
            "/binary",
            "/latin",
            "/head"
        ]
    );
}

#[test]
fn headers_bodies_and_addresses_are_what_was_sent() {
    let message = json_event(
        RequestType::RequestHeaders,
        r#"{"correlation_id":"c1","correlation_id":"c1","headers":{"a":["1","2"],"b":[],"c":[""]},"new":[{}],
            "metadata":{"client_ip":"[::1]:99","correlation_id":"c1","client_port":0},"method":"GET","uri":"/"}"#,
    );
    assert_eq!(
        message,
        Ok(Message::of(Event::RequestHeaders(RequestHead {
            correlation_id: "c1".into(),
            method: "GET".into(),
            uri: "/".into(),
            client_ip: "::1".into(),
            headers: Headers::from([("a", "1"), ("a", "2"), ("c", "")]),
        })))
    );
    let message = json_event(
        RequestType::ResponseBodyChunk,
        r#"{"data":"/w==","is_last":true,"total_size":null,"chunk_index":3,"bytes_sent":9,"bytes_received":1,"correlation_id":"c1"}"#,
    );
    let chunk = BodyChunk {
        correlation_id: "c1".into(),
        chunk_index: 3,
        is_last: true,
        total_size: None,
        transferred_bytes: 9,
        data: vec![0xff],
    };
    assert_eq!(
        message,
        Ok(Message::of(Event::ResponseBody {
            chunk,
            request: None,
            response: None
        }))
    );
}

/// Only a request of HTTP/1 without a length is known to have no body.
#[test]
fn the_http_version_is_what_the_metadata_tells() {
    let version = |metadata: &str| {
        let json = format!(
            r#"{{"correlation_id":"c1","headers":{{}},"metadata":{{"client_ip":"::1"{metadata}}},"method":"GET","uri":"/"}}"#
        );
        match json_event(RequestType::RequestHeaders, &json) {
            Ok(Message::Event(_, version)) => version,
            other => panic!("{other:?}"),
        }
    };
    for (metadata, expected) in [
        ("", HttpVersion::Other),
        (r#","protocol":"HTTP/1.1""#, HttpVersion::One),
        (
            r#","protocol":"HTTP/1.0","server_name":null"#,
            HttpVersion::One,
        ),
        (
            r#","protocol":"HTTP/1.1","server_name":"a.example""#,
            HttpVersion::Other,
        ),
        (
            r#","protocol":"HTTP/2","server_name":null"#,
            HttpVersion::Other,
        ),
        (r#","protocol":null"#, HttpVersion::Other),
    ] {
        assert_eq!(version(metadata), expected, "{metadata}");
    }
}

/// Each says what is wrong, where, and about whom.
#[test]
fn broken_events_say_what_where_and_about_whom() {
    use RequestType::{RequestBodyChunk, RequestHeaders, ResponseHeaders};
    let c1 = Some("c1");
    for (kind, json, expected) in [
        (RequestHeaders, "", bad(BadEvent::Malformed, "", None)),
        (RequestHeaders, "[]", bad(BadEvent::Mistyped, "", None)),
        (
            RequestHeaders,
            "{}",
            bad(BadEvent::Missing, "correlation_id", None),
        ),
        (
            RequestHeaders,
            r#"{"correlation_id":"c1"}"#,
            bad(BadEvent::Missing, "method", c1),
        ),
        (
            RequestHeaders,
            r#"{"correlation_id":"c1"} x"#,
            bad(BadEvent::Malformed, "correlation_id", c1),
        ),
        (
            RequestHeaders,
            r#"{"correlation_id":7}"#,
            bad(BadEvent::Mistyped, "correlation_id", None),
        ),
        (
            RequestHeaders,
            r#"{"method":7,"correlation_id":"c1"}"#,
            bad(BadEvent::Mistyped, "method", c1),
        ),
        (
            RequestHeaders,
            r#"{"headers":{"a":"b"},"metadata":{"correlation_id" : "c1"}}"#,
            bad(BadEvent::Mistyped, "headers", c1),
        ),
        (
            RequestHeaders,
            r#"{"correlation_id":"c1","uri":"\ud800"}"#,
            bad(BadEvent::Malformed, "uri", c1),
        ),
        (
            RequestHeaders,
            r#"{"correlation_id":"c1","method":"G","uri":"/","headers":{}}"#,
            bad(BadEvent::Missing, "client_ip", c1),
        ),
        (
            ResponseHeaders,
            r#"{"correlation_id":"c1","status":65736,"headers":{}}"#,
            bad(BadEvent::Mistyped, "status", c1),
        ),
        (
            ResponseHeaders,
            r#"{"correlation_id":"c1","status":-1,"headers":{}}"#,
            bad(BadEvent::Mistyped, "status", c1),
        ),
        (
            RequestBodyChunk,
            r#"{"correlation_id":"c1","data":"?","is_last":true}"#,
            bad(BadEvent::Mistyped, "data", c1),
        ),
        (
            RequestBodyChunk,
            r#"{"correlation_id":"c1","data":"","chunk_index":4294967296}"#,
            bad(BadEvent::Mistyped, "chunk_index", c1),
        ),
        (
            RequestBodyChunk,
            r#"{"correlation_id":"c1","data":""}"#,
            bad(BadEvent::Missing, "is_last", c1),
        ),
    ] {
        assert_eq!(json_event(kind, json), Err(expected), "{json}");
    }
}

#[test]
fn a_header_value_cannot_pose_as_the_correlation_id() {
    let json =
        r#"{"headers":{"a":["\"correlation_id\":\"evil\""]},"method":1,"correlation_id":"c1"}"#;
    assert_eq!(
        json_event(RequestType::RequestHeaders, json),
        Err(bad(BadEvent::Mistyped, "method", Some("c1")))
    );
}

#[test]
fn deep_nesting_is_an_error_or_skipped_and_never_a_stack_overflow() {
    let deep = format!(
        r#"{{"correlation_id":"c1","config":{}"#,
        "[".repeat(1_000_000)
    );
    let error = json_event(RequestType::Configure, &deep).unwrap_err();
    assert_eq!(error.correlation_id.as_deref(), Some("c1"));
    let skipped = format!(r#"{{"correlation_id":"c1","new":{}"#, "[".repeat(1_000_000));
    assert!(json_event(RequestType::RequestComplete, &skipped).is_err());
    for key in ["config", "new"] {
        let mut packed = vec![0x82, 0xae];
        packed.extend_from_slice(b"correlation_id\xa2c1");
        packed.push(0xa0 | u8::try_from(key.len()).unwrap());
        packed.extend_from_slice(key.as_bytes());
        packed.resize(packed.len() + 1_000_000, 0x91);
        let read = read_v2(RequestType::Configure, Encoding::MessagePack, &packed);
        assert_eq!(read.unwrap_err().correlation_id.as_deref(), Some("c1"));
    }
}

#[test]
fn v1_envelopes_that_cannot_be_used() {
    for (json, what, at) in [
        (
            r#"{"version":1,"payload":{"correlation_id":"c1"}}"#,
            "missing",
            "event_type",
        ),
        (r#"{"event_type":"configure"}"#, "missing", "payload"),
        (
            r#"{"event_type":"nonsense","payload":{"correlation_id":"c1"}}"#,
            "unknown-type",
            "event_type",
        ),
        (
            r#"{"event_type":"request_headers","payload":{"correlation_id":"c1"}}"#,
            "missing",
            "method",
        ),
        (r#"{"event_type":"#, "malformed", ""),
    ] {
        let error = read_v1(json.as_bytes()).unwrap_err();
        assert_eq!((error.what.name(), error.at), (what, at), "{json}");
    }
    assert_eq!(
        read_v1(br#"{"payload":{"agent_id":"a","config":{"x":1}},"event_type":"configure"}"#),
        Ok(Message::Configure {
            correlation_id: String::new(),
            config: json!({"x": 1})
        })
    );
}

#[test]
fn events_without_a_handler_need_their_id_only() {
    for kind in [
        RequestType::RequestComplete,
        RequestType::WebSocketFrame,
        RequestType::GuardrailInspect,
    ] {
        assert_eq!(
            json_event(
                kind,
                r#"{"correlation_id":"c1","data":"AA==","metadata":{"k":"v"}}"#
            ),
            Ok(Message::Unhandled {
                correlation_id: "c1".into(),
                ends_exchange: kind == RequestType::RequestComplete,
            })
        );
    }
}

mod message_pack {
    use super::*;

    const METADATA: [&str; 11] = [
        "c1",
        "r1",
        "192.0.2.7:1",
        "0",
        "-",
        "HTTP/1.1",
        "-",
        "-",
        "all",
        "-",
        "2026",
    ];

    fn read(kind: RequestType, write: impl FnOnce(&mut Vec<u8>)) -> Result<Message, BadMessage> {
        let mut out = Vec::new();
        write(&mut out);
        read_v2(kind, Encoding::MessagePack, &out)
    }

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&rmp_serde::to_vec(text).unwrap());
    }

    fn head() -> Message {
        Message::of(Event::RequestHeaders(RequestHead {
            correlation_id: "c1".into(),
            method: "GET".into(),
            uri: "/".into(),
            client_ip: "192.0.2.7".into(),
            headers: Headers::from([("a", "1")]),
        }))
    }

    /// Older proxies: a map with a top-level id, metadata as a list.
    #[test]
    fn positional_metadata_is_read() {
        for more in [0, 1] {
            let message = read(RequestType::RequestHeaders, |out| {
                out.push(0x85);
                text(out, "correlation_id");
                text(out, "c1");
                text(out, "metadata");
                out.push(0x90 | u8::try_from(METADATA.len() + more).unwrap());
                for value in METADATA.iter().chain(std::iter::repeat_n(&"t", more)) {
                    text(out, value);
                }
                for (key, value) in [("method", "GET"), ("uri", "/")] {
                    text(out, key);
                    text(out, value);
                }
                text(out, "headers");
                out.extend_from_slice(b"\x81\xa1a\x91\xa11");
            });
            assert_eq!(message, Ok(head()));
        }
    }

    /// Newer proxies: maps with names, the id in the metadata only.
    #[test]
    fn named_maps_are_read() {
        let message = read(RequestType::RequestHeaders, |out| {
            let event = json!({"metadata":{"correlation_id":"c1","client_ip":"192.0.2.7:1","client_port":0},
                "method":"GET","uri":"/","headers":{"a":["1"]}});
            out.extend_from_slice(&rmp_serde::to_vec_named(&event).unwrap());
        });
        assert_eq!(message, Ok(head()));
    }

    #[test]
    fn a_repeated_id_and_both_kinds_of_data_are_read() {
        for data in [b"\xa4/w==".as_slice(), b"\xc4\x01\xff"] {
            let message = read(RequestType::RequestBodyChunk, |out| {
                out.push(0x84);
                for _ in 0..2 {
                    text(out, "correlation_id");
                    text(out, "c1");
                }
                text(out, "data");
                out.extend_from_slice(data);
                text(out, "is_last");
                out.push(0xc3);
            });
            match message {
                Ok(Message::Event(Event::RequestBody { chunk, .. }, _)) => {
                    assert_eq!(chunk.data, [0xff]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn broken_events_say_about_whom() {
        let error = read(RequestType::ResponseHeaders, |out| {
            out.push(0x83);
            text(out, "status");
            text(out, "200");
            text(out, "correlation_id");
            text(out, "c1");
        });
        assert_eq!(error, Err(bad(BadEvent::Mistyped, "status", Some("c1"))));
    }
}

/// Any message, as far as reading it goes.
fn requests() -> impl Strategy<Value = RequestType> {
    prop::sample::select(RequestType::ALL.to_vec())
}

proptest! {
    /// Arbitrary bytes never panic, and what is not read is refused when
    /// closed and never when open.
    #[test]
    fn any_bytes_are_read_or_refused(
        kind in requests(),
        packed in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let encoding = if packed { Encoding::MessagePack } else { Encoding::Json };
        for read in [read_v2(kind, encoding, &bytes), read_v1(&bytes)] {
            if let Err(bad) = read {
                let fault = Fault::new(FaultCode::BadEvent(bad.what), bad.at);
                let closed = decide(Err(&fault), FailurePolicy::Closed);
                prop_assert_ne!(closed.decision, Decision::Allow);
                prop_assert_eq!(decide(Err(&fault), FailurePolicy::Open).decision, Decision::Allow);
            }
        }
    }

    /// A real frame with bytes changed is read or refused too.
    #[test]
    fn damaged_frames_are_read_or_refused(
        index in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frames = recorded::v2();
        frames.extend(recorded::v1());
        let frame = index.get(&frames);
        let mut payload = frame.payload.clone();
        let place = at.index(payload.len());
        payload[place] = byte;
        payload.truncate(cut.index(payload.len()) + 1);
        // No program writes a blank there, so that is the other reader's.
        let blank = [b" ", &*payload].concat();
        if let Some(kind) = RequestType::from_byte(frame.kind) {
            let read = read_v2(kind, Encoding::Json, &payload);
            prop_assert_eq!(read, read_v2(kind, Encoding::Json, &blank));
            let _ = read_v2(kind, Encoding::MessagePack, &payload);
        }
        prop_assert_eq!(read_v1(&payload), read_v1(&blank));
    }

    /// What a proxy says in either encoding is read as it was said.
    #[test]
    fn events_read_back(
        id in any::<String>(), uri in any::<String>(), value in any::<String>(),
        data in prop::collection::vec(any::<u8>(), 0..40), status in any::<u16>(),
    ) {
        let head = json!({"correlation_id":id,"metadata":{"correlation_id":id,"client_ip":"1.2.3.4:5"},
            "method":"GET","uri":uri,"headers":{"x":[value]}});
        let chunk = json!({"correlation_id":id,"data":STANDARD.encode(&data),"is_last":false});
        let response = json!({"correlation_id":id,"status":status,"headers":{}});
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let write = |event: &Value| match encoding {
                Encoding::Json => serde_json::to_vec(event).unwrap(),
                Encoding::MessagePack => rmp_serde::to_vec_named(event).unwrap(),
            };
            match read_v2(RequestType::RequestHeaders, encoding, &write(&head)).unwrap() {
                Message::Event(Event::RequestHeaders(read), _) => {
                    prop_assert_eq!(&read.correlation_id, &id);
                    prop_assert_eq!(&read.uri, &uri);
                    prop_assert_eq!(&read.headers, &Headers::from([("x", &value)]));
                }
                other => prop_assert!(false, "{:?}", other),
            }
            match read_v2(RequestType::RequestBodyChunk, encoding, &write(&chunk)).unwrap() {
                Message::Event(Event::RequestBody { chunk, .. }, _) => prop_assert_eq!(&chunk.data, &data),
                other => prop_assert!(false, "{:?}", other),
            }
            match read_v2(RequestType::ResponseHeaders, encoding, &write(&response)).unwrap() {
                Message::Event(Event::ResponseHeaders(read), _) => prop_assert_eq!(read.status, status),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
