//! The golden rule: `run` on a fixture and `serve` given the same event give
//! the same agent response.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use wasm_agent_kit::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead};
use wasm_agent_kit::internals::fixture;

use crate::grpc::support::{self as grpc, ToAgent, proto};
use crate::support::agent::{Agent, Client};
use crate::support::{binary, fixture, shipped};

/// How the same exchange is carried.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Carrier {
    V1,
    Json,
    MessagePack,
    Grpc,
}

const CARRIERS: [Carrier; 4] = [
    Carrier::V1,
    Carrier::Json,
    Carrier::MessagePack,
    Carrier::Grpc,
];

/// No good guest is stopped by it, however busy the machine is.
const AMPLE: [&str; 2] = ["--timeout", "5s"];

fn events_folder() -> std::path::PathBuf {
    fixture("events")
}

/// What `run` prints for each step of each fixture, by path and step.
fn run_responses(guest: &str, events: &Path, flags: &[&str]) -> Vec<(String, Vec<Value>)> {
    let output = binary(["run"])
        .arg(shipped(guest))
        .arg(events)
        .args(["--format", "json"])
        .args(flags)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{guest}: {}", String::from_utf8_lossy(&output.stderr)));
    report["fixtures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fixture| {
            let steps = fixture["steps"].as_array().unwrap();
            (
                fixture["path"].as_str().unwrap().to_owned(),
                steps.iter().map(|step| step["response"].clone()).collect(),
            )
        })
        .collect()
}

#[test]
fn run_and_serve_give_the_same_responses() {
    let compared = compare("rules/rules.wasm", &events_folder(), &AMPLE);
    assert!(compared > 160, "{compared}");
}

/// The languages differ in what they import and how they begin, and nothing of
/// that is seen from outside.
#[test]
fn run_and_serve_agree_in_every_language() {
    for language in ["rust", "c", "zig", "assemblyscript", "go"] {
        let guest = format!("{language}/policy.wasm");
        let compared = compare(&guest, &fixture("policy"), &AMPLE);
        assert!(compared >= 60, "{language}: {compared}");
    }
}

/// What a guest says as it stops is for the log; a proxy gets the same short
/// code as the dir.
#[test]
fn run_and_serve_agree_about_a_panic_in_every_language() {
    let folder = tempfile::tempdir().unwrap();
    let request = r#"{"method":"GET","uri":"/","headers":{"x-panic":"short"}}"#;
    std::fs::write(folder.path().join("panic.json"), request).unwrap();
    for language in ["rust", "c", "zig", "assemblyscript", "go"] {
        let guest = format!("{language}/panics.wasm");
        let responses = run_responses(&guest, folder.path(), &AMPLE);
        let codes = &responses[0].1[0]["audit"]["reason_codes"];
        let code = codes[0].as_str().unwrap();
        assert!(code.starts_with("trap:") && code.len() < 20, "{codes}");
        assert_eq!(compare(&guest, folder.path(), &AMPLE), 4);
    }
}

/// The small modules of a folder, by name.
fn modules(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(shipped(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".wat"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    names.sort();
    names
}

/// Every shape an answer can have, on every shipped event.
#[test]
fn run_and_serve_agree_about_every_answer() {
    let modules = modules("right");
    assert!(modules.len() >= 21, "{modules:?}");
    for guest in modules {
        let compared = compare(&guest, &events_folder(), &AMPLE);
        assert!(compared > 160, "{guest}: {compared}");
    }
}

/// Guests that spin until they are stopped, each time.
fn is_runaway(guest: &str) -> bool {
    ["spin", "fill-loop", "recursion"]
        .iter()
        .any(|part| guest.contains(part))
}

/// Every fault, in both failure modes: the same decision, tags and reason.
/// Fresh instances, because `serve` calls each guest more often than `run`.
#[test]
fn run_and_serve_agree_about_every_fault() {
    let modules = modules("hostile");
    assert!(modules.len() >= 40, "{modules:?}");
    for guest in modules {
        for mode in [&[][..], &["--fail-open"]] {
            let mut flags = vec!["--isolation", "fresh", "--timeout"];
            let runaway = is_runaway(&guest);
            flags.push(if runaway { "60ms" } else { "5s" });
            flags.extend(mode);
            let folder = if runaway {
                "events/bare"
            } else {
                "events/requests"
            };
            let compared = compare(&guest, &fixture(folder), &flags);
            assert!(compared >= 12, "{guest}: {compared}");
        }
    }
}

/// What a limit stops in a local run it stops in production, and nothing else.
#[test]
fn run_and_serve_agree_about_every_limit() {
    let rules = "rules/rules.wasm";
    for (guest, limit, value, code) in [
        (rules, "--fuel", "30000", "fuel"),
        (rules, "--max-answer", "60B", "answer-limit"),
        (
            "hostile/grow-bomb.wat",
            "--max-memory",
            "2MiB",
            "memory-limit",
        ),
        (
            "right/request-body-replace.wat",
            "--max-answer",
            "20B",
            "answer-limit",
        ),
    ] {
        for mode in [&[][..], &["--fail-open"]] {
            let mut flags = vec!["--isolation", "fresh", limit, value];
            flags.extend(AMPLE);
            flags.extend(mode);
            let stopped = |(_, steps): &(String, Vec<Value>)| {
                let is_stopped = |step: &Value| step["audit"]["reason_codes"][0] == code;
                steps.iter().filter(|step| is_stopped(step)).count()
            };
            let responses = run_responses(guest, &events_folder(), &flags);
            let stopped: usize = responses.iter().map(stopped).sum();
            let all: usize = responses.iter().map(|(_, steps)| steps.len()).sum();
            assert!(
                0 < stopped && stopped < all,
                "{guest} {limit}: {stopped} of {all}"
            );
            compare(guest, &events_folder(), &flags);
        }
    }
}

/// The same names of headers reach the module.
#[test]
fn run_and_serve_agree_about_canonical_header_names() {
    let flags = [AMPLE[0], AMPLE[1], "--header-names", "canonical"];
    let guest = "rules/rules-published-spelling.wasm";
    assert!(compare(guest, &events_folder(), &flags) > 160);
}

/// How many responses were compared: each step over every carrier, between
/// `run` and `serve` with the same flags.
fn compare(guest: &str, events: &Path, flags: &[&str]) -> usize {
    let serve = [
        "--proxy-quirks",
        "off",
        "--pool-size",
        "2",
        // A v1 connection is closed where an answer comes late.
        "--queue-wait",
        "20s",
        "--no-smoke-call",
        "--log-format",
        "json",
        "--grpc-address",
        "127.0.0.1:0",
    ];
    let all: Vec<&str> = serve.iter().chain(flags).copied().collect();
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::support::agent::command(guest, &folder);
    command.args(all);
    let agent = Agent::spawn(command, folder);
    let expected = run_responses(guest, events, flags);
    let inputs = fixture::discover(&[events.to_owned()]).unwrap();
    assert_eq!(inputs.len(), expected.len());
    let mut compared = 0;
    for carrier in CARRIERS {
        for (input, (path, responses)) in inputs.iter().zip(&expected) {
            let fixture = fixture::parse(input).unwrap();
            assert_eq!(*path, input.path.display().to_string());
            assert_eq!(fixture.steps.len(), responses.len());
            let mut link = Link::new(&agent, carrier);
            for (step, response) in fixture.steps.iter().zip(responses) {
                if response.is_null() {
                    // Not reached: a refusal ends the exchange, for a proxy too.
                    break;
                }
                for head in heads(&step.event) {
                    link.exchange(&head);
                }
                let served = link.exchange(&step.event);
                assert_eq!(
                    without_nulls(served),
                    as_on_the_wire(response.clone(), carrier),
                    "{guest} {carrier:?} {path} {flags:?}"
                );
                compared += 1;
            }
        }
    }
    compared
}

/// One connection of one carrier.
enum Link {
    Unix(Client, Carrier),
    Grpc(Box<(Runtime, grpc::Client)>),
}

impl Link {
    fn new(agent: &Agent, carrier: Carrier) -> Self {
        if carrier == Carrier::Grpc {
            let address = agent.address("grpc");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let client = runtime.block_on(async {
                let channel = grpc::connect(address).await;
                let mut client = grpc::Client::open(channel, grpc::ZENTINEL).await;
                client.send(grpc::handshake("0.6.45"));
                client.receive().await;
                client
            });
            return Self::Grpc(Box::new((runtime, client)));
        }
        let mut client = agent.connect();
        if carrier != Carrier::V1 {
            let encoding = if carrier == Carrier::Json {
                "json"
            } else {
                "msgpack"
            };
            assert_eq!(client.shake("0.6.45", encoding)["encoding"], encoding);
        }
        Self::Unix(client, carrier)
    }

    fn exchange(&mut self, event: &Event) -> Value {
        match self {
            Self::Unix(client, carrier) => exchange(client, *carrier, event),
            Self::Grpc(open) => {
                let (runtime, client) = &mut **open;
                client.send(message(event));
                let mut answer = grpc::as_on_unix(runtime.block_on(client.answer()));
                let id = &answer["audit"]["custom"]["correlation_id"];
                assert_eq!(id, event.correlation_id());
                // A float there, with fewer digits.
                let confidence = answer["audit"]["confidence"].take();
                let confidence = confidence.as_str().map(|text| text.parse().unwrap());
                answer["audit"]["confidence"] =
                    confidence.map_or(Value::Null, |digits: f64| json!(digits));
                answer
            }
        }
    }
}

/// The events that came before a body event, whose heads a fixture states.
fn heads(event: &Event) -> Vec<Event> {
    let (request, response) = match event {
        Event::RequestBody { request, .. } => (request.as_ref(), None),
        Event::ResponseBody {
            request, response, ..
        } => (request.as_ref(), response.as_ref()),
        Event::RequestHeaders(_) | Event::ResponseHeaders(_) => (None, None),
    };
    let request = request.map(|head| Event::RequestHeaders(RequestHead::clone(head)));
    let response = response.map(|head| Event::ResponseHeaders(ResponseHead::clone(head)));
    request.into_iter().chain(response).collect()
}

fn exchange(client: &mut Client, carrier: Carrier, event: &Event) -> Value {
    let (kind, name, payload) = written(event);
    let answer = match carrier {
        Carrier::V1 => {
            let envelope = json!({"version":1,"event_type":name,"payload":payload});
            client.send_v1(envelope.to_string().as_bytes());
            serde_json::from_slice(&client.receive_v1().unwrap()).unwrap()
        }
        Carrier::Json => {
            client.send(kind, &payload);
            client.answer()
        }
        Carrier::MessagePack | Carrier::Grpc => {
            client.send_bytes(kind, &rmp_serde::to_vec_named(&payload).unwrap());
            let (mut kind, mut answer) = client.receive().unwrap();
            // How the agent is may be told at any time.
            while kind == 0x30 {
                (kind, answer) = client.receive().unwrap();
            }
            rmp_serde::from_slice(&answer).unwrap()
        }
    };
    let version = if carrier == Carrier::V1 { 1 } else { 2 };
    assert_eq!(answer["version"], version);
    if carrier != Carrier::V1 {
        assert_eq!(
            answer["audit"]["custom"]["correlation_id"],
            event.correlation_id()
        );
    }
    answer
}

/// An event as a proxy writes it.
fn written(event: &Event) -> (u8, &'static str, Value) {
    let id = event.correlation_id();
    match event {
        Event::RequestHeaders(head) => (
            0x10,
            "request_headers",
            json!({"correlation_id":id,"metadata":{"correlation_id":id,"client_ip":with_port(&head.client_ip)},
                "method":head.method,"uri":head.uri,"headers":lists(&head.headers)}),
        ),
        Event::ResponseHeaders(head) => (
            0x12,
            "response_headers",
            json!({"correlation_id":id,"status":head.status,"headers":lists(&head.headers)}),
        ),
        Event::RequestBody { chunk, .. } => {
            (0x11, "request_body_chunk", body(chunk, "bytes_received"))
        }
        Event::ResponseBody { chunk, .. } => {
            (0x13, "response_body_chunk", body(chunk, "bytes_sent"))
        }
    }
}

/// The same over gRPC.
fn message(event: &Event) -> ToAgent {
    let id = || event.correlation_id().to_owned();
    let headers = |headers: &Headers| {
        let header = |(name, value): (&str, &str)| proto::Header {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        headers.iter().map(header).collect()
    };
    let chunk = |chunk: &BodyChunk| proto::BodyChunkEvent {
        correlation_id: id(),
        chunk_index: chunk.chunk_index,
        data: chunk.data.clone(),
        is_last: chunk.is_last,
        total_size: chunk.total_size,
        bytes_transferred: chunk.transferred_bytes,
        ..Default::default()
    };
    match event {
        Event::RequestHeaders(head) => ToAgent::RequestHeaders(proto::RequestHeadersEvent {
            metadata: Some(proto::RequestMetadata {
                correlation_id: id(),
                client_ip: with_port(&head.client_ip),
                ..Default::default()
            }),
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: headers(&head.headers),
            ..Default::default()
        }),
        Event::ResponseHeaders(head) => ToAgent::ResponseHeaders(proto::ResponseHeadersEvent {
            correlation_id: id(),
            status_code: head.status.into(),
            headers: headers(&head.headers),
        }),
        Event::RequestBody { chunk: body, .. } => ToAgent::RequestBodyChunk(chunk(body)),
        Event::ResponseBody { chunk: body, .. } => ToAgent::ResponseBodyChunk(chunk(body)),
    }
}

/// As proxies up to zentinel-proxy 0.6.45 send it.
fn with_port(ip: &str) -> String {
    ip.parse()
        .map_or_else(|_| ip.to_owned(), |ip| SocketAddr::new(ip, 9).to_string())
}

fn body(chunk: &BodyChunk, transferred: &str) -> Value {
    json!({"correlation_id":chunk.correlation_id,"data":STANDARD.encode(&chunk.data),"is_last":chunk.is_last,
        "total_size":chunk.total_size,"chunk_index":chunk.chunk_index,transferred:chunk.transferred_bytes})
}

fn lists(headers: &Headers) -> Value {
    let mut lists: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let list = lists.entry(name).or_insert_with(|| json!([]));
        list.as_array_mut().unwrap().push(json!(value));
    }
    lists.into()
}

/// The served response less what only the wire has.
fn without_nulls(mut served: Value) -> Value {
    let object = served.as_object_mut().unwrap();
    object.remove("version");
    let audit = object["audit"].as_object_mut().unwrap();
    audit.remove("custom");
    strip(&mut served);
    served
}

/// `run`'s response, its body changes written as each direction asks for and a
/// block's headers in the block too; for gRPC without what that cannot say, and
/// with the tags that say so.
fn as_on_the_wire(mut response: Value, carrier: Carrier) -> Value {
    let operations = response["response_headers"].as_array().unwrap().iter();
    let headers: Map<String, Value> = operations
        .filter_map(|op| op.get("set").or_else(|| op.get("add")))
        .map(|op| (op["name"].as_str().unwrap().to_owned(), op["value"].clone()))
        .collect();
    if let Some(block) = response["decision"].get_mut("block")
        && !headers.is_empty()
    {
        block["headers"] = headers.into();
    }
    if carrier == Carrier::Grpc {
        let mut lost = Vec::new();
        let bodies = ["request_body_mutation", "response_body_mutation"];
        if bodies
            .map(|key| !response[key].take().is_null())
            .contains(&true)
        {
            lost.push(json!("body-mutation-unsupported"));
        }
        let routing = response["routing_metadata"].as_object_mut();
        if routing.is_some_and(|routing| !std::mem::take(routing).is_empty()) {
            lost.push(json!("routing-metadata-unsupported"));
        }
        response["audit"]["tags"]
            .as_array_mut()
            .unwrap()
            .extend(lost);
    }
    for key in ["request_body_mutation", "response_body_mutation"] {
        let Some(mutation) = response[key].as_object_mut() else {
            continue;
        };
        let encoding = mutation.remove("encoding").unwrap();
        let data = mutation["data"].as_str().unwrap();
        if key.starts_with("response") && encoding == "utf8" {
            mutation["data"] = STANDARD.encode(data).into();
        }
    }
    strip(&mut response);
    response
}

fn strip(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, value| !value.is_null());
        object.values_mut().for_each(strip);
    }
}
