//! Modules that have reason to answer otherwise from place to place: in `run`, in
//! `serve` over each transport, in `replay` of what that recorded, and in a host that
//! embeds the library. They answer the same, or the table names the difference.

use std::sync::Arc;

use serde_json::{Value, json};
use wasm_agent_kit::event::{BodyChunk, Event, RequestHead};
use wasm_agent_kit::guest::{Engine, EngineSettings, LoadSettings, Module};
use wasm_agent_kit::policy::{Policy, PolicySettings};

use super::proxies::{CHUNK, HEAD, Served, TRANSPORTS, Transport};
use super::same::head_input;
use super::uploads::{Upload, says};
use crate::socket::starts::SET_UP;
use crate::support::clock::{NEW_YEAR, Refuses};
use crate::support::guests::{joiner, limiter, whole_body};
use crate::support::{TestDir, binary, finish, run, shipped, steps};

/// More than the limiter of the table lets pass.
const TRANSACTIONS: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Run,
    Serve(Transport),
    Replay,
    Host,
}

struct Row {
    name: &'static str,
    wat: String,
    /// Of the fixtures of `run`.
    now: Option<&'static str>,
    /// Where the answers are not those of v2, and why.
    differs: &'static [(Place, &'static str)],
}

fn row(name: &'static str, wat: String) -> Row {
    Row {
        name,
        wat,
        now: None,
        differs: &[],
    }
}

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Refuses where the first random byte is odd.
const RANDOM: &str = r#"(module
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 2)
    (data (i32.const 1024) "{\22decision\22:\22allow\22}") (data (i32.const 2048) "{\22decision\22:\22block\22}")
    (func (export "alloc") (param i32) (result i32) (i32.const 65536))
    (func (export "dealloc") (param i32 i32))
    (func (export "on_request_headers") (param i32 i32) (result i64)
      (drop (call $random (i32.const 512) (i32.const 8)))
      (select (i64.const 0x0000_0800_0000_0014) (i64.const 0x0000_0400_0000_0014)
        (i32.and (i32.load8_u (i32.const 512)) (i32.const 1)))))"#;

fn table(dir: &TestDir) -> Vec<Row> {
    const REAL: &str = "random bytes repeat in run and replay, and nowhere else";
    let clock = || Refuses::From(NEW_YEAR).wat();
    vec![
        Row {
            now: Some("2026-11-30T12:00:00Z"),
            ..row("clock", clock())
        },
        Row {
            differs: &[(Place::Run, "a fixture without now has 2024-01-01")],
            ..row("clock, and fixtures without a time", clock())
        },
        Row {
            differs: &[
                (Place::Run, REAL),
                (Place::Replay, REAL),
                (Place::Serve(Transport::V1), REAL),
                (Place::Serve(Transport::Grpc), REAL),
                (Place::Host, REAL),
            ],
            ..row("random bytes", RANDOM.to_owned())
        },
        row("several memories", text(&shipped("right/two-memories.wat"))),
        row("constructors", SET_UP.to_owned()),
        Row {
            differs: &[(Place::Replay, "its parts have instances of their own")],
            ..row(
                "counter, on one instance",
                text(&limiter(dir, "limiter.wat", 30)),
            )
        },
        row("joiner of chunks", joiner("", 0)),
        row("joiner of whole bodies", joiner(&whole_body(1), 0)),
    ]
}

fn transactions() -> Vec<(Upload, &'static str)> {
    let chunks: [&[&str]; 3] = [&["a=1"], &["a=1", "&b=2"], &["", "x", "yz"]];
    let uri = ["/private/x", "/upload"];
    (0..TRANSACTIONS)
        .map(|at| (Upload::new(at, chunks[at % 3]), uri[at % 2]))
        .collect()
}

#[test]
fn each_module_of_the_table_answers_the_same_everywhere_or_as_it_says() {
    let dir = TestDir::new();
    for (number, row) in table(&dir).iter().enumerate() {
        let module = dir.file(&format!("{number}.wat"), &row.wat);
        let recorded = |transport| dir.path(&format!("{number}-{transport:?}.jsonl"));
        let served = |transport| {
            let record = recorded(transport);
            let flags = ["--pool-size", "1", "--record-secrets", "--record"];
            let flags = [&flags[..], &[record.to_str().unwrap()]].concat();
            let mut served = Served::start(&module, &flags);
            let answers = over(&served, transport);
            served.agent.signal("TERM");
            assert_eq!(served.agent.wait().code(), Some(0));
            answers
        };
        let v2 = served(Transport::V2);
        let mut places = vec![
            (Place::Run, in_run(&dir, (number, row), &module) == v2),
            (Place::Host, in_host(&module) == v2),
        ];
        for transport in TRANSPORTS {
            if transport != Transport::V2 {
                places.push((Place::Serve(transport), served(transport) == v2));
            }
            places.push((Place::Replay, replays(&module, &recorded(transport))));
        }
        for (place, is_same) in places {
            let named = row.differs.iter().find(|(at, _)| *at == place);
            assert_eq!(
                is_same,
                named.is_none(),
                "{}: {place:?} {named:?}",
                row.name
            );
        }
    }
}

fn over(served: &Served, transport: Transport) -> Vec<String> {
    let mut proxy = served.proxies(transport).remove(0);
    let mut answers = Vec::new();
    for (upload, uri) in transactions() {
        let mut head = upload.head();
        head["uri"] = json!(uri);
        let mut answer = says(&proxy.ask(HEAD, &head));
        for at in 0..=upload.chunks.len() {
            let goes_on = answer.starts_with("allow");
            answers.push(answer);
            if !goes_on || at == upload.chunks.len() {
                break;
            }
            answer = says(&proxy.ask(CHUNK, &upload.chunk(at)));
        }
    }
    answers
}

fn in_run(dir: &TestDir, (number, row): (usize, &Row), module: &std::path::Path) -> Vec<String> {
    for (at, (upload, uri)) in transactions().iter().enumerate() {
        let mut head = head_input(upload);
        head["uri"] = json!(uri);
        let mut steps = vec![json!({"event":"request_headers","input":head})];
        let chunks = 0..upload.chunks.len();
        steps.extend(chunks.map(|at| json!({"event":"request_body","input":upload.input(at)})));
        let mut fixture = json!({"correlation_id":upload.id,"steps":steps});
        if let Some(now) = row.now {
            fixture["now"] = json!(now);
        }
        dir.file(&format!("run-{number}/{at:02}.json"), fixture.to_string());
    }
    let folder = dir.path(&format!("run-{number}"));
    let report = run(module, &[&folder], &["--jobs", "1", "--timeout", "10s"]).json();
    let answered = |step: &Value| (!step.is_null()).then(|| says(step));
    let steps = steps(&report);
    steps
        .iter()
        .filter_map(|step| answered(step.response()))
        .collect()
}

fn replays(module: &std::path::Path, recording: &std::path::Path) -> bool {
    let mut command = binary(["replay", "--format", "json", "--timeout", "10s"]);
    command.arg(module).arg(recording);
    let drift = finish(command).json()["drift"].clone();
    assert_eq!(drift["compared"], TRANSACTIONS, "{drift}");
    drift["categories"]["unchanged"] == TRANSACTIONS
}

/// As a host does that takes the settings as they are, but for a busy machine.
fn in_host(module: &std::path::Path) -> Vec<String> {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let module = Module::load(&engine, module, &LoadSettings::default()).unwrap();
    let mut settings = PolicySettings::default();
    settings.pool.size = 1;
    settings.pool.limits.timeout = std::time::Duration::from_secs(10);
    let policy = Policy::new(Arc::new(module), settings);
    let mut answers = Vec::new();
    for (upload, uri) in transactions() {
        let head = upload.head();
        let headers = head["headers"].as_object().unwrap().iter();
        let request = RequestHead {
            correlation_id: upload.id.clone(),
            method: "POST".into(),
            uri: uri.into(),
            client_ip: "192.0.2.7".into(),
            headers: headers
                .map(|(name, values)| (name.as_str(), values[0].as_str().unwrap()))
                .collect(),
        };
        let chunks = (0..upload.chunks.len()).map(|at| Event::RequestBody {
            chunk: chunk(&upload, at),
            request: Some(Arc::new(request.clone())),
        });
        let mut exchange = policy.exchange();
        for event in std::iter::once(Event::RequestHeaders(request.clone())).chain(chunks) {
            let Some(handled) = exchange.handle(&event) else {
                break;
            };
            answers.push(says(&serde_json::to_value(&handled.response).unwrap()));
        }
    }
    answers
}

fn chunk(upload: &Upload, at: usize) -> BodyChunk {
    let input = upload.input(at);
    BodyChunk {
        correlation_id: upload.id.clone(),
        chunk_index: u32::try_from(at).unwrap(),
        is_last: input["is_last"] == true,
        total_size: input["total_size"].as_u64(),
        transferred_bytes: input["bytes_received"].as_u64().unwrap(),
        data: upload.chunks[at].clone().into_bytes(),
    }
}
