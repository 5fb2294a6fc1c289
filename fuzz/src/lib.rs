//! What each fuzz target does with any bytes: one parser, and what must hold
//! of whatever it makes of them.
//!
//! The targets in `fuzz_targets` hand their bytes over and do no more. The
//! same functions run over all seeds in `tests/core/fuzz_seeds.rs`, with the stable
//! compiler and in CI, so that no target rots and no crash comes back.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wasm_agent_kit::event::EventKind;
use wasm_agent_kit::guest::LoadSettings;
use wasm_agent_kit::hook::{HookContext, HookUser, apply};
use wasm_agent_kit::internals::capture::{
    DecodeSettings, Format, Item, Opened, Redactor, SecretsFound, decode, key_of, read_back,
};
use wasm_agent_kit::internals::client;
use wasm_agent_kit::internals::fixture::{self, Input};
use wasm_agent_kit::internals::guest::check_answer;
use wasm_agent_kit::internals::guest::check_result;
use wasm_agent_kit::internals::guest::{Candidate, Source};
use wasm_agent_kit::internals::guest::{Outcome, decide};
use wasm_agent_kit::internals::ops::Baseline;
use wasm_agent_kit::internals::protocol::Cancel;
use wasm_agent_kit::internals::protocol::Protocol;
use wasm_agent_kit::internals::protocol::Version;
use wasm_agent_kit::internals::protocol::{BadMessage, Encoding, Message, RequestType};
use wasm_agent_kit::internals::protocol::{Dialect, RequestBodyText};
use wasm_agent_kit::internals::protocol::{HandshakeRequest, Identity, write_response};
use wasm_agent_kit::internals::protocol::{read_v1, read_v2};
use wasm_agent_kit::internals::server;
use wasm_agent_kit::limits::{LoadLimits, MAX_POOL_SIZE};
use wasm_agent_kit::policy::AnswerPolicy;
use wasm_agent_kit::policy::FailurePolicy;
use wasm_agent_kit::question::{Phase, Question};
use wasm_agent_kit::response::{AgentResponse, Decision, HeaderOp};

/// A target: its name, what it does, and where in the repository there are
/// seeds besides `fuzz/seeds/NAME`.
pub type Target = (&'static str, fn(&[u8]), &'static [&'static str]);

/// Every target; a test holds this list against the files.
pub const TARGETS: [Target; 14] = [
    ("answer", answer, &[]),
    ("baseline", baseline, &[]),
    ("capture", capture, &["fixtures/captures"]),
    ("client", client, &[]),
    ("event_json", event_json, &[]),
    ("event_msgpack", event_msgpack, &[]),
    (
        "fixture",
        fixture,
        &["fixtures/events", "fixtures/hooks", "fixtures/policy"],
    ),
    ("frame", frame, &[]),
    ("grpc", grpc, &[]),
    ("handshake", handshake, &[]),
    ("hook_result", hook_result, &[]),
    (
        "module",
        module,
        &["fixtures/modules/right", "fixtures/modules/hostile"],
    ),
    ("redact", redact, &[]),
    ("settings", settings, &[]),
];

const REQUEST_TYPES: std::ops::RangeInclusive<u8> = 0x10..=0x17;

/// A guest's answer: neither invariant of the failure policy is broken, no
/// header is split, and what is decided reaches the proxy in every protocol.
pub fn answer(bytes: &[u8]) {
    for (kind, chunk) in [
        (EventKind::RequestHeaders, None),
        (EventKind::ResponseBody, Some(0)),
    ] {
        let checked = check_answer(bytes, kind, chunk, &AnswerPolicy::default());
        for policy in [FailurePolicy::Closed, FailurePolicy::Open] {
            let response = match &checked {
                Ok(answer) => decide(Ok(Outcome::Given(answer.response.clone())), policy),
                Err(fault) => decide(Err(fault), policy),
            };
            let allows = response.decision == Decision::Allow;
            if policy == FailurePolicy::Closed {
                assert!(!allows || checked.is_ok(), "closed, and a fault allows");
            }
            let refused = checked.as_ref().is_err_and(|fault| fault.refusal.is_some());
            assert!(!(allows && refused), "a refusal was softened");
            let ops = response.request_headers.iter();
            for op in ops.chain(&response.response_headers) {
                assert!(!is_split(op), "{op:?}");
            }
            arrives(&response);
        }
    }
}

fn is_split(op: &HeaderOp) -> bool {
    let value = op.value().unwrap_or_default();
    let is_bad = |byte: u8| matches!(byte, b'\r' | b'\n' | 0);
    op.name().is_empty() || op.name().bytes().chain(value.bytes()).any(is_bad)
}

/// The decision is the same once written and read.
fn arrives(response: &AgentResponse) {
    for (protocol, encoding) in [
        (Protocol::V1, Encoding::Json),
        (Protocol::V2, Encoding::Json),
        (Protocol::V2, Encoding::MessagePack),
    ] {
        let dialect = Dialect {
            protocol,
            encoding,
            request_body: RequestBodyText::Base64,
        };
        let mut out = Vec::new();
        assert!(dialect.write(response, "c\u{0}\"\n", &mut out));
        let frame = protocol.frame(&out).unwrap().unwrap();
        assert_eq!(frame.size, out.len());
        let read: Value = match encoding {
            Encoding::Json => serde_json::from_slice(frame.payload).unwrap(),
            Encoding::MessagePack => rmp_serde::from_slice(frame.payload).unwrap(),
        };
        let decision = &read["decision"];
        let name = decision.as_str().map(str::to_owned);
        let name = name.or_else(|| decision.as_object()?.keys().next().cloned());
        assert_eq!(name.as_deref(), Some(response.decision.name()));
    }
}

/// A hook's result: nothing is applied but input and data.
pub fn hook_result(bytes: &[u8]) {
    let context = HookContext {
        user: Some(HookUser {
            id: "7".to_owned(),
            role: "user".to_owned(),
        }),
        tenant_id: Some("acme".to_owned()),
        ..HookContext::default()
    };
    if let Ok(checked) = check_result(bytes) {
        let applied = apply(context.clone(), &checked.result);
        assert_eq!(applied.context.user, context.user);
        assert_eq!(applied.context.headers, context.headers);
        assert_eq!(applied.context.tenant_id, context.tenant_id);
        assert!(checked.result.ok || applied.context == context);
    }
}

/// A fixture file of any form: a fixture that `--update` can write anew, or an
/// error with its place; and any input text as an event.
pub fn fixture(bytes: &[u8]) {
    let input = |bytes: Vec<u8>| Input {
        path: PathBuf::from("fuzz.json"),
        document: None,
        bytes,
    };
    if let Ok(text) = std::str::from_utf8(bytes) {
        for kind in EventKind::ALL {
            let json = text.as_bytes().into();
            let phase = Phase::Event(kind);
            let question = Question::Exact {
                phase,
                chunk_index: None,
                json,
            };
            if let Err(error) = read_back([&question].into_iter()) {
                assert!(!error.is_empty());
            }
        }
    }
    let parsed = match fixture::parse(&input(bytes.to_vec())) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1);
            return;
        }
    };
    let (count, whole) = match &parsed.hooks {
        Some(hooks) => (hooks.steps.len(), json!({"ok": true})),
        None => (parsed.steps.len(), json!({"decision": "allow"})),
    };
    assert!(count > 0);
    // The last step is one that is not reached.
    let seen = (1..=count).map(|number| match number {
        1 => fixture::Seen::Answered {
            whole: whole.clone(),
            mismatches: &[],
        },
        _ if number == count => fixture::Seen::NotReached,
        _ => fixture::Seen::NotCalled,
    });
    let text = std::str::from_utf8(bytes).unwrap();
    let text = text.trim_start_matches('\u{feff}');
    if let Some(text) = fixture::update(text, &parsed, seen.collect()).text {
        let again = fixture::parse(&input(text.clone().into_bytes()));
        assert!(again.is_ok(), "{text}: {:?}", again.err());
    }
}

/// A capture, told by its content and read as each format: transactions, or
/// records that are named as unusable.
pub fn capture(bytes: &[u8]) {
    /// Small, so that the limit itself is met.
    const MAX_RECORD: usize = 4096;
    let formats = Format::ALL.map(Some).into_iter().chain([None]);
    for format in formats {
        let reader = Cursor::new(bytes.to_vec());
        let opened = Opened::of_reader("fuzz".into(), reader, (format, MAX_RECORD));
        for item in opened.unwrap() {
            match item {
                Item::Transaction(mut frame) => {
                    let decoded = decode(&mut frame, &DecodeSettings::default());
                    assert!(decoded.transaction.is_some() || !decoded.unusable.is_empty());
                    assert!(decoded.unusable.iter().all(|it| !it.why.is_empty()));
                    if let Some(transaction) = decoded.transaction {
                        assert!(!transaction.steps.is_empty());
                        let _ = read_back(transaction.questions());
                        let _ = transaction.request_line();
                        let _ = transaction.response_status();
                    }
                }
                Item::Unusable(unusable) => assert!(!unusable.why.is_empty()),
                Item::Skipped(_) => {}
            }
        }
    }
}

/// A record that is about to be written down, with a secret in it: the secret
/// is nowhere in what is written, and JSON stays JSON.
pub fn redact(bytes: &[u8]) {
    const SECRET: &str = "Tr0ub4dor-and-3";
    let text = String::from_utf8_lossy(bytes);
    let redactor = Redactor::with_key(key_of(&[b"fuzz"]));
    let _ = redactor.uri(&text, &mut SecretsFound::default());
    let any = redactor.record(&text, &text, &mut SecretsFound::default());
    for (written, or) in [(&any.input, "{}"), (&any.output, "null")] {
        let is_json = serde_json::from_str::<Value>(written).is_ok();
        assert!(is_json, "{written}");
        let was_json = serde_json::from_str::<Value>(&text).is_ok();
        assert!(was_json || written == or, "{written}");
    }
    let input = json!({"uri": text, "headers": {
        "authorization": format!("Bearer {SECRET}"), "x": format!("{text}{SECRET}"), "y": text,
    }});
    let output = json!({"decision": {"block": {"status": 403, "body": format!("{SECRET}{text}")}}});
    let mut found = SecretsFound::default();
    let redacted = redactor.record(&input.to_string(), &output.to_string(), &mut found);
    assert!(!redacted.input.contains(SECRET), "{}", redacted.input);
    assert!(!redacted.output.contains(SECRET), "{}", redacted.output);
    assert!(serde_json::from_str::<Value>(&redacted.input).is_ok());
    assert!(serde_json::from_str::<Value>(&redacted.output).is_ok());
    // A later event of the exchange does not name it, and has a part of it.
    let later = json!({"headers": {"x": format!("{text}{SECRET}"), "y": &SECRET[4..]}}).to_string();
    let later = redactor.input(&later, &mut found.known_in_parts());
    assert!(!later.contains(&SECRET[4..]), "{later}");
}

/// A module, binary or text: facts that are judged, or what is wrong with it.
pub fn module(bytes: &[u8]) {
    let path = Path::new("fuzz.wasm");
    let Ok(source) = Source::of(path, bytes.to_vec(), &LoadLimits::default()) else {
        return;
    };
    match Candidate::of(source, &LoadSettings::default()) {
        Ok(candidate) => assert!(!candidate.checks.all.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A baseline: one whose times are times, or an error that says what to do.
pub fn baseline(bytes: &[u8]) {
    match Baseline::parse(bytes) {
        Ok(baseline) => {
            let rounds = baseline.cases.iter().flat_map(|case| &case.rounds);
            assert!(
                rounds
                    .flatten()
                    .all(|pair| pair.before > 0.0 && pair.after.is_finite())
            );
        }
        Err(error) => assert!(error.contains("--save")),
    }
}

/// A stream of frames of each protocol: no frame is longer than what came,
/// none is seen before its last byte, and written again it is the same.
pub fn frame(bytes: &[u8]) {
    let _ = Protocol::detect(bytes);
    for protocol in [Protocol::V1, Protocol::V2, Protocol::Grpc] {
        let mut rest = bytes;
        while let Ok(Some(frame)) = protocol.frame(rest) {
            assert!(frame.size <= rest.len() && frame.payload.len() < frame.size);
            assert_eq!(protocol.frame(&rest[..frame.size - 1]), Ok(None));
            let mut out = Vec::new();
            if protocol.write(frame.kind, &mut out, |out| {
                out.extend_from_slice(frame.payload);
            }) {
                // gRPC's flag says compressed, and nothing of ours is.
                let from = usize::from(protocol == Protocol::Grpc);
                assert_eq!(out[from..], rest[from..frame.size]);
            }
            rest = &rest[frame.size..];
        }
    }
}

/// The payload of an event as JSON, of every type and in both protocols. What
/// reads is read the same from MessagePack.
pub fn event_json(bytes: &[u8]) {
    let blank = [b" ", bytes].concat();
    assert_eq!(read_v1(bytes), read_v1(&blank));
    checked(read_v1(bytes));
    let value = serde_json::from_slice::<Value>(bytes).ok();
    // Both readers limit nesting, and count it a little differently.
    let shallow = bytes.iter().filter(|byte| b"[{".contains(byte)).count() < 60;
    // From the value both times: it has lost the keys that came twice.
    let again = value.filter(|_| shallow).and_then(|value| {
        let packed = rmp_serde::to_vec_named(&value).ok()?;
        Some((serde_json::to_vec(&value).ok()?, packed))
    });
    for kind in REQUEST_TYPES.filter_map(RequestType::from_byte) {
        if let Some((text, packed)) = &again
            && let Ok(message) = read_v2(kind, Encoding::Json, text)
        {
            let packed = read_v2(kind, Encoding::MessagePack, packed);
            assert_eq!(packed, Ok(message));
        }
        let read = read_v2(kind, Encoding::Json, bytes);
        // No program writes a blank there: that is the other reader's.
        assert_eq!(read, read_v2(kind, Encoding::Json, &blank));
        checked(read);
    }
}

/// The payload of an event as MessagePack, of every type.
pub fn event_msgpack(bytes: &[u8]) {
    for kind in REQUEST_TYPES.filter_map(RequestType::from_byte) {
        checked(read_v2(kind, Encoding::MessagePack, bytes));
    }
}

fn checked(read: Result<Message, BadMessage>) {
    if let Err(bad) = read {
        assert!(!bad.what.name().is_empty());
    }
}

/// One message of the gRPC service.
pub fn grpc(bytes: &[u8]) {
    match server::try_grpc(bytes) {
        Ok(Some(read)) => checked(read),
        Ok(None) => {}
        Err(error) => assert!(!error.is_empty()),
    }
}

/// The first message of a v2 connection and the other control messages: a
/// handshake is answered by what was asked for.
pub fn handshake(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Cancel>(bytes);
    let Ok(request) = HandshakeRequest::read(bytes) else {
        return;
    };
    let _ = request.proxy_version.parse::<Version>();
    let identity = Identity {
        agent_id: &request.proxy_id,
        in_flight: 1,
        metrics: true,
    };
    let result = request
        .speaks_ours()
        .then(|| request.encoding())
        .ok_or("no common version");
    let mut out = Vec::new();
    write_response(result, identity, &mut out);
    let answer: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(answer["success"], request.supported_versions.contains(&2));
    let asked = request
        .supported_encodings
        .iter()
        .any(|name| name == "msgpack");
    assert!(asked || answer["encoding"] == "json");
}

/// Settings that a proxy pushed: within the limits, or refused with a reason.
pub fn settings(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    match server::try_settings(&value) {
        Ok(settings) => {
            let pool = settings.pool;
            assert!((1..=MAX_POOL_SIZE).contains(&pool.size));
            assert!(!pool.limits.timeout.is_zero());
            assert!((64 << 10..=4 << 30).contains(&pool.limits.max_memory_bytes));
        }
        Err(reason) => {
            assert!(!reason.is_empty() && reason.len() < 400, "{reason}");
            assert!(!reason.contains(['\n', '\u{1b}']), "{reason}");
        }
    }
}

/// What a running agent sends to our own client.
pub fn client(bytes: &[u8]) {
    for protocol in Protocol::ALL {
        let mut rest = bytes;
        while let Ok(Some(frame)) = protocol.frame(rest) {
            if let Err(error) = client::try_read(protocol, frame) {
                let error = error.to_string();
                assert!(!error.is_empty() && !error.contains('\u{1b}'), "{error}");
            }
            rest = &rest[frame.size..];
        }
    }
}
