//! Proxies of each protocol that send transactions, many at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use super::uploads::{CONNECTIONS, OPEN, Upload};
use crate::grpc::support::{self as grpc, FromAgent, ToAgent, proto};
use crate::support::agent::{Agent, Client, decision_of};
use crate::support::binary;

/// What an event is on the wire.
pub(super) const HEAD: u8 = 0x10;
pub(super) const CHUNK: u8 = 0x11;
pub(super) const RESPONSE: u8 = 0x12;
pub(super) const RESPONSE_CHUNK: u8 = 0x13;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    V1,
    V2,
    Grpc,
}

pub(super) const TRANSPORTS: [Transport; 3] = [Transport::V1, Transport::V2, Transport::Grpc];

/// A way to the agent.
pub(super) enum Proxy {
    /// Each event goes to the connection that was free for the longest time.
    V1(Arc<Mutex<VecDeque<Client>>>),
    V2(Client),
    Grpc(Handle, Box<grpc::Client>),
}

impl Proxy {
    pub(super) fn ask(&mut self, kind: u8, event: &Value) -> Value {
        match self {
            Self::V1(free) => {
                let mut client = free.lock().unwrap().pop_front().unwrap();
                let answer = ask_v1(&mut client, kind, event);
                free.lock().unwrap().push_back(client);
                answer
            }
            Self::V2(client) => {
                client.send(kind, event);
                client.answer()
            }
            Self::Grpc(runtime, client) => {
                client.send(to_agent(kind, event));
                grpc::as_on_unix(runtime.block_on(client.answer()))
            }
        }
    }
}

pub(super) fn ask_v1(client: &mut Client, kind: u8, event: &Value) -> Value {
    let name = match kind {
        HEAD => "request_headers",
        CHUNK => "request_body_chunk",
        RESPONSE_CHUNK => "response_body_chunk",
        _ => "response_headers",
    };
    let envelope = json!({"version":1,"event_type":name,"payload":event});
    client.send_v1(envelope.to_string().as_bytes());
    serde_json::from_slice(&client.receive_v1().unwrap()).unwrap()
}

fn to_agent(kind: u8, event: &Value) -> ToAgent {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let id = text(&event["correlation_id"]);
    match kind {
        HEAD => {
            let headers = event["headers"].as_object().unwrap().iter();
            let header = |(name, values): (&String, &Value)| proto::Header {
                name: name.clone(),
                value: text(&values[0]),
            };
            ToAgent::RequestHeaders(proto::RequestHeadersEvent {
                metadata: Some(proto::RequestMetadata {
                    correlation_id: id,
                    client_ip: text(&event["metadata"]["client_ip"]),
                    protocol: text(&event["metadata"]["protocol"]),
                    ..Default::default()
                }),
                method: text(&event["method"]),
                uri: text(&event["uri"]),
                headers: headers.map(header).collect(),
                ..Default::default()
            })
        }
        CHUNK => ToAgent::RequestBodyChunk(proto::BodyChunkEvent {
            correlation_id: id,
            chunk_index: u32::try_from(event["chunk_index"].as_u64().unwrap()).unwrap(),
            data: STANDARD.decode(text(&event["data"])).unwrap(),
            is_last: event["is_last"] == true,
            total_size: event["total_size"].as_u64(),
            bytes_transferred: event["bytes_received"].as_u64().unwrap(),
            ..Default::default()
        }),
        _ => grpc::response(&id, 200),
    }
}

/// An agent over all transports, for a joiner with these parts.
pub(super) struct Served {
    pub(super) agent: Agent,
    runtime: Runtime,
}

impl Served {
    pub(super) fn start(module: &Path, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_in(folder, module, flags)
    }

    pub(super) fn start_in(folder: TempDir, module: &Path, flags: &[&str]) -> Self {
        let mut command = binary(["serve", "--module"]);
        command
            .arg(module)
            .arg("--socket")
            .arg(folder.path().join("a.sock"))
            .args([
                "--grpc-address",
                "127.0.0.1:0",
                "--admin-address",
                "127.0.0.1:0",
            ])
            .args(["--log-format", "json", "--timeout", "10s"])
            .args(flags);
        if !flags.contains(&"--pool-size") {
            command.args(["--pool-size", "4"]);
        }
        Self {
            agent: Agent::spawn(command, folder),
            runtime: Runtime::new().unwrap(),
        }
    }

    /// An agent for a module of this text, in its folder.
    pub(super) fn wat(text: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("module.wat");
        std::fs::write(&module, text).unwrap();
        Self::start_in(folder, &module, flags)
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.agent.address("admin")
    }

    pub(super) fn metric(&self, name: &str) -> u64 {
        let (status, text) = crate::ops::admin::ask(self.admin(), "GET", "/metrics");
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("no {name}")).trim();
        value.parse().unwrap()
    }

    /// Waits until a guest computes.
    pub(super) fn wait_until_busy(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.metric(r#"wasm_agent_pool_instances{state="in_use"}"#) == 0 {
            assert!(Instant::now() < until, "no call begins");
        }
    }

    /// One connection of a proxy.
    pub(super) fn v2(&self, version: &str) -> Proxy {
        let mut client = self.agent.connect();
        assert_eq!(client.shake(version, "json")["success"], true);
        Proxy::V2(client)
    }

    fn grpc(&self, address: SocketAddr) -> Proxy {
        let client = self.runtime.block_on(async {
            let channel = grpc::connect(address).await;
            let mut client = grpc::Client::open(channel, grpc::ZENTINEL).await;
            client.send(grpc::handshake("0.6.54"));
            let FromAgent::Handshake(answer) = client.receive().await else {
                panic!("no handshake");
            };
            assert!(answer.success);
            client
        });
        Proxy::Grpc(self.runtime.handle().clone(), Box::new(client))
    }

    /// The connections of one proxy.
    pub(super) fn proxies(&self, transport: Transport) -> Vec<Proxy> {
        let free = || (0..CONNECTIONS).map(|_| self.agent.connect()).collect();
        let v1 = Arc::new(Mutex::new(match transport {
            Transport::V1 => free(),
            _ => VecDeque::new(),
        }));
        let connect = |_| match transport {
            Transport::V1 => Proxy::V1(Arc::clone(&v1)),
            Transport::V2 => self.v2("0.6.54"),
            Transport::Grpc => self.grpc(self.agent.address("grpc")),
        };
        (0..CONNECTIONS).map(connect).collect()
    }
}

/// Sends all of them over the connections of one proxy, and hands back the answers to
/// the chunks of each.
pub(super) fn send(proxies: Vec<Proxy>, uploads: &[Upload]) -> Vec<Vec<Value>> {
    let count = proxies.len();
    let answers = Mutex::new(vec![Vec::new(); uploads.len()]);
    std::thread::scope(|scope| {
        for (thread, mut proxy) in proxies.into_iter().enumerate() {
            let answers = &answers;
            scope.spawn(move || {
                let own: Vec<usize> = (thread..uploads.len()).step_by(count).collect();
                for group in own.chunks(OPEN) {
                    let sent: Vec<&Upload> = group.iter().map(|at| &uploads[*at]).collect();
                    let got = send_together(&mut proxy, &sent);
                    let mut answers = answers.lock().unwrap();
                    for (at, got) in group.iter().zip(got) {
                        answers[*at] = got;
                    }
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

/// Sends them chunk by chunk in turn, each until it is refused; a proxy waits for the
/// answer to each chunk.
pub(super) fn send_together(proxy: &mut Proxy, uploads: &[&Upload]) -> Vec<Vec<Value>> {
    for upload in uploads {
        let answer = proxy.ask(HEAD, &upload.head());
        assert_eq!(decision_of(&answer), "allow", "{answer}");
    }
    let mut answers = vec![Vec::new(); uploads.len()];
    for at in 0..uploads.iter().map(|it| it.chunks.len()).max().unwrap() {
        for (upload, answers) in uploads.iter().zip(&mut answers) {
            let goes_on = answers.last().is_none_or(|it| decision_of(it) == "allow");
            if goes_on && at < upload.chunks.len() {
                answers.push(proxy.ask(CHUNK, &upload.chunk(at)));
            }
        }
    }
    for (upload, answers) in uploads.iter().zip(&answers) {
        if decision_of(answers.last().unwrap()) == "allow" {
            let response = json!({"correlation_id":upload.id,"status":200,"headers":{}});
            proxy.ask(RESPONSE, &response);
        }
    }
    answers
}
