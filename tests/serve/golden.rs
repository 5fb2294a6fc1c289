//! The golden rule: `run` on a fixture and `serve` given the same event give
//! the same agent response.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wasm_agent_kit::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead};
use wasm_agent_kit::fixture;

use super::support::{Agent, Client, module};

/// How the same exchange is carried.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Carrier {
    V1,
    Json,
    MessagePack,
}

fn events_folder() -> std::path::PathBuf {
    module("../events")
}

/// What `run` prints for each step of each fixture, by path and step.
fn run_responses(guest: &str, events: &Path) -> Vec<(String, Vec<Value>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_wasm-agent"))
        .arg("run")
        .arg(module(guest))
        .arg(events)
        .args(["--format", "json", "--timeout", "5s"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
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
    let carriers = [Carrier::V1, Carrier::Json, Carrier::MessagePack];
    let compared = compare("rules/rules.wasm", &events_folder(), &carriers);
    assert!(compared > 120, "{compared}");
}

/// The languages differ in what they import and how they begin, and nothing of
/// that is seen from outside.
#[test]
fn run_and_serve_agree_in_every_language() {
    for language in ["rust", "c", "zig", "assemblyscript", "go"] {
        let guest = format!("{language}/policy.wasm");
        let compared = compare(&guest, &module("../policy"), &[Carrier::Json]);
        assert!(compared >= 15, "{language}: {compared}");
    }
}

/// What a guest says as it stops is for the log; a proxy gets the same short
/// code as the desk.
#[test]
fn run_and_serve_agree_about_a_panic_in_every_language() {
    let folder = tempfile::tempdir().unwrap();
    let request = r#"{"method":"GET","uri":"/","headers":{"x-panic":"short"}}"#;
    std::fs::write(folder.path().join("panic.json"), request).unwrap();
    for language in ["rust", "c", "zig", "assemblyscript", "go"] {
        let guest = format!("{language}/panics.wasm");
        let responses = run_responses(&guest, folder.path());
        let codes = &responses[0].1[0]["audit"]["reason_codes"];
        let code = codes[0].as_str().unwrap();
        assert!(code.starts_with("trap:") && code.len() < 20, "{codes}");
        assert_eq!(compare(&guest, folder.path(), &[Carrier::Json]), 1);
    }
}

/// How many responses were compared.
fn compare(guest: &str, events: &Path, carriers: &[Carrier]) -> usize {
    let flags = ["--proxy-quirks", "off", "--pool-size", "2"];
    let agent = Agent::start(guest, &flags);
    let expected = run_responses(guest, events);
    let inputs = fixture::discover(&[events.to_owned()]).unwrap();
    assert_eq!(inputs.len(), expected.len());
    let mut compared = 0;
    for &carrier in carriers {
        for (input, (path, responses)) in inputs.iter().zip(&expected) {
            let fixture = fixture::parse(input).unwrap();
            assert_eq!(*path, input.path.display().to_string());
            let mut client = connect(&agent, carrier);
            for (step, response) in fixture.steps.iter().zip(responses) {
                for head in heads(&step.event) {
                    exchange(&mut client, carrier, &head);
                }
                let served = exchange(&mut client, carrier, &step.event);
                assert_eq!(
                    without_nulls(served),
                    as_on_the_wire(response.clone()),
                    "{carrier:?} {path}"
                );
                compared += 1;
            }
        }
    }
    compared
}

fn connect(agent: &Agent, carrier: Carrier) -> Client {
    let mut client = agent.connect();
    if carrier != Carrier::V1 {
        let encoding = if carrier == Carrier::Json {
            "json"
        } else {
            "msgpack"
        };
        assert_eq!(client.shake("0.6.45", encoding)["encoding"], encoding);
    }
    client
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
        Carrier::MessagePack => {
            client.send_bytes(kind, &rmp_serde::to_vec_named(&payload).unwrap());
            rmp_serde::from_slice(&client.receive().unwrap().1).unwrap()
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

/// `run`'s response, its body changes written as each direction asks for.
fn as_on_the_wire(mut response: Value) -> Value {
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
