//! A server at a port of its own, and one call of tonic's client to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use wasm_agent_kit::guest::{Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::internals::server::{Drain, Listeners, Live, ServeSettings, serve};
use wasm_agent_kit::policy::PoolSettings;
use wasm_agent_kit::policy::{Policy, PolicySettings};

use crate::support::shipped;
pub(crate) use proto::agent_response::Decision;
pub(crate) use proto::agent_to_proxy::Message as FromAgent;
pub(crate) use proto::proxy_to_agent::Message as ToAgent;
pub(crate) use proto::{AgentResponse, AgentToProxy, ProxyToAgent};

#[allow(
    clippy::all,
    clippy::doc_markdown,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub(crate) mod proto {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/agent_v2.rs"));
}

pub(crate) const ZENTINEL: &str = "zentinel";
pub(crate) const SENTINEL: &str = "sentinel";
/// Far longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<std::io::Result<Drain>>,
}

pub(crate) fn agent(module: &str, pool_size: usize) -> Arc<Policy> {
    let engine = Engine::new(EngineSettings::default()).unwrap();
    let is_hostile = module.starts_with("hostile/");
    let module = Module::load(&engine, &shipped(module), &LoadSettings::default()).unwrap();
    let mut pool = PoolSettings {
        size: pool_size,
        ..PoolSettings::default()
    };
    if !is_hostile {
        // On a busy machine even a good guest may wait long for a core.
        pool.limits.timeout = LONG;
    }
    let settings = PolicySettings {
        pool,
        ..PolicySettings::default()
    };
    Arc::new(Policy::new(Arc::new(module), settings))
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

impl Server {
    pub(crate) async fn start(module: &str) -> Self {
        Self::with(agent(module, 1), ServeSettings::default(), None).await
    }

    pub(crate) async fn with(
        agent: impl Into<Live>,
        settings: ServeSettings,
        unix: Option<UnixListener>,
    ) -> Self {
        let grpc = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = grpc.local_addr().unwrap();
        let listeners = Listeners {
            unix,
            grpc: Some(grpc),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        Self {
            address,
            stop: Some(stop),
            served: tokio::spawn(serve(listeners, agent.into(), settings, shutdown)),
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(self.address).await
    }

    pub(crate) async fn open(&self) -> Client {
        Client::open(self.channel().await, ZENTINEL).await
    }

    pub(crate) async fn greeted(&self, version: &str) -> Client {
        let mut client = self.open().await;
        client.send(handshake(version));
        let FromAgent::Handshake(answer) = client.receive().await else {
            panic!("no handshake");
        };
        assert!(answer.success);
        client
    }
}

/// One open `ProcessStream`.
pub(crate) struct Client {
    pub(crate) send: Option<mpsc::UnboundedSender<ProxyToAgent>>,
    pub(crate) receive: Streaming<AgentToProxy>,
}

impl Client {
    /// Waits for the response's headers before it has sent anything, as
    /// released proxies do.
    pub(crate) async fn open(channel: Channel, package: &str) -> Self {
        let (send, messages) = mpsc::unbounded_channel();
        let path = format!("/{package}.agent.v2.AgentServiceV2/ProcessStream");
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let call = grpc.streaming(
            Request::new(UnboundedReceiverStream::new(messages)),
            path.parse().unwrap(),
            ProstCodec::<ProxyToAgent, AgentToProxy>::default(),
        );
        Self {
            send: Some(send),
            receive: timeout(LONG, call).await.unwrap().unwrap().into_inner(),
        }
    }

    pub(crate) fn send(&self, message: ToAgent) {
        let message = ProxyToAgent {
            message: Some(message),
        };
        self.send.as_ref().unwrap().send(message).unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Option<FromAgent>, Status> {
        let message = timeout(LONG, self.receive.message()).await.unwrap();
        message.map(|message| message.map(|message| message.message.unwrap()))
    }

    /// The next message; a report of metrics may come at any time, and is left.
    pub(crate) async fn receive(&mut self) -> FromAgent {
        loop {
            let message = self.next().await.unwrap().unwrap();
            if !matches!(message, FromAgent::Metrics(_)) {
                return message;
            }
        }
    }

    pub(crate) async fn answer(&mut self) -> AgentResponse {
        loop {
            match self.receive().await {
                FromAgent::Response(response) => return response,
                // How the agent is may be told at any time.
                FromAgent::Health(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Of the next answer: id, and reason code or decision.
    pub(crate) async fn outcome(&mut self) -> (String, String) {
        let answer = self.answer().await;
        let reasons = answer.audit.unwrap().reason_codes;
        let what = reasons.first().cloned().unwrap_or_else(|| {
            match answer.decision.unwrap() {
                Decision::Allow(_) => "allow",
                Decision::Block(_) => "block",
                Decision::Redirect(_) => "redirect",
                Decision::Challenge(_) => "challenge",
            }
            .to_owned()
        });
        (answer.correlation_id, what)
    }

    /// How the call ended, after whatever messages were left.
    pub(crate) async fn end(mut self) -> Result<usize, Status> {
        let mut left = 0;
        while self.next().await?.is_some() {
            left += 1;
        }
        Ok(left)
    }
}

pub(crate) fn handshake(version: &str) -> ToAgent {
    ToAgent::Handshake(proto::HandshakeRequest {
        supported_versions: vec![2, 1],
        proxy_id: "zentinel-proxy".into(),
        proxy_version: version.into(),
        config_json: "{}".into(),
    })
}

pub(crate) fn request(id: &str) -> ToAgent {
    ToAgent::RequestHeaders(proto::RequestHeadersEvent {
        metadata: Some(proto::RequestMetadata {
            correlation_id: id.into(),
            client_ip: "192.0.2.7:5678".into(),
            ..Default::default()
        }),
        method: "GET".into(),
        uri: "/".into(),
        headers: vec![proto::Header {
            name: "host".into(),
            value: "a".into(),
        }],
        ..Default::default()
    })
}

pub(crate) fn response(id: &str, status_code: u32) -> ToAgent {
    ToAgent::ResponseHeaders(proto::ResponseHeadersEvent {
        correlation_id: id.into(),
        status_code,
        headers: Vec::new(),
    })
}

pub(crate) fn body(id: &str, data: Vec<u8>) -> proto::BodyChunkEvent {
    proto::BodyChunkEvent {
        correlation_id: id.into(),
        data,
        is_last: true,
        ..Default::default()
    }
}

pub(crate) fn pair(id: &str, what: &str) -> (String, String) {
    (id.to_owned(), what.to_owned())
}

pub(crate) fn ping(sequence: u64) -> ToAgent {
    ToAgent::Ping(proto::Ping {
        sequence,
        timestamp_ms: 11,
    })
}

pub(crate) fn configure(config_json: &str) -> ToAgent {
    ToAgent::Configure(proto::ConfigureEvent {
        config_json: config_json.into(),
        is_initial: true,
        ..Default::default()
    })
}

/// A gRPC answer, as the Unix transport would have written it.
pub(crate) fn as_on_unix(answer: AgentResponse) -> serde_json::Value {
    use serde_json::{Value, json};
    let operations = |operations: Vec<proto::HeaderOp>| -> Vec<Value> {
        let operation = |operation: proto::HeaderOp| match operation.operation.unwrap() {
            proto::header_op::Operation::Set(header) => {
                json!({"set": {"name": header.name, "value": header.value}})
            }
            proto::header_op::Operation::Remove(name) => json!({"remove": {"name": name}}),
            proto::header_op::Operation::Add(header) => {
                json!({"add": {"name": header.name, "value": header.value}})
            }
        };
        operations.into_iter().map(operation).collect()
    };
    let audit = answer.audit.unwrap();
    json!({
        "version": 2,
        "decision": match answer.decision.unwrap() {
            Decision::Allow(_) => json!("allow"),
            Decision::Block(block) => {
                let headers: BTreeMap<_, _> = block
                    .headers
                    .into_iter()
                    .map(|header| (header.name, header.value))
                    .collect();
                let headers = (!headers.is_empty()).then_some(headers);
                json!({"block": {"status": block.status, "body": block.body, "headers": headers}})
            }
            Decision::Redirect(to) => json!({"redirect": {"url": to.url, "status": to.status}}),
            Decision::Challenge(asked) => json!({"challenge":
                {"challenge_type": asked.challenge_type, "params": asked.params}}),
        },
        "request_headers": operations(answer.request_headers),
        "response_headers": operations(answer.response_headers),
        "routing_metadata": {},
        "audit": {
            "tags": audit.tags,
            "rule_ids": audit.rule_ids,
            "confidence": audit.confidence.map(|confidence| format!("{confidence:.3}")),
            "reason_codes": audit.reason_codes,
            "custom": {"correlation_id": answer.correlation_id},
        },
        "needs_more": answer.needs_more,
        "request_body_mutation": null,
        "response_body_mutation": null,
        "websocket_decision": null,
    })
}
