//! Between the messages of gRPC and our own: every number checked, nothing cut.
//!
//! In: the bytes of one message. Out: what it asks, or that it cannot be read
//! and whom to answer. The other way: answers and control messages. Nothing
//! here waits, calls a guest or decides.

use std::collections::BTreeMap;

use prost::Message as _;

use self::proto::{
    AgentToProxy, BodyChunkEvent, ConfigureEvent, HandshakeRequest, Header, Ping, ProxyToAgent,
    RequestHeadersEvent, ResponseHeadersEvent, agent_response, agent_to_proxy, header_op,
    proxy_to_agent,
};
use crate::event::{BodyChunk, Event, Headers, RequestHead, ResponseHead, bare_ip};
use crate::fault::BadEvent;
use crate::protocol::wire::control::{Bucket, HealthState, HealthStatus, MetricsReport};
use crate::protocol::wire::handshake::{
    Identity, MAX_BODY_BYTES, PREFERRED_CHUNK_BYTES, PROTOCOL_VERSION, SUPPORTED_EVENTS,
};
use crate::protocol::wire::{BadMessage, HttpVersion, Message};
use crate::response::{AgentResponse, Audit, Decision, HeaderOp};

/// The messages of `proto/agent_v2.proto`.
#[allow(
    clippy::all,
    clippy::doc_markdown,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; holds what the protocol has, not only what we use"
)]
pub(crate) mod proto {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/agent_v2.rs"));
}

/// What a proxy sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Inbound {
    /// Wants one answer.
    Message(Result<Message, BadMessage>),
    Handshake(HandshakeRequest),
    Configure(ConfigureEvent),
    /// Of this correlation id.
    Cancel(String),
    Ping(Ping),
    /// Nothing that this agent knows.
    Nothing,
}

/// Reads one message.
///
/// # Errors
/// Where it is none.
pub(crate) fn read(payload: &[u8]) -> Result<Inbound, prost::DecodeError> {
    use proxy_to_agent::Message as Sent;
    let unhandled = |correlation_id, ends_exchange| {
        Inbound::Message(Ok(Message::Unhandled {
            correlation_id,
            ends_exchange,
        }))
    };
    Ok(match ProxyToAgent::decode(payload)?.message {
        None => Inbound::Nothing,
        Some(Sent::Handshake(request)) => Inbound::Handshake(request),
        Some(Sent::Configure(pushed)) => Inbound::Configure(pushed),
        Some(Sent::Cancel(cancel)) => Inbound::Cancel(cancel.correlation_id),
        Some(Sent::Ping(ping)) => Inbound::Ping(ping),
        Some(Sent::RequestHeaders(sent)) => Inbound::Message(request_head(sent)),
        Some(Sent::ResponseHeaders(sent)) => Inbound::Message(response_head(sent)),
        Some(Sent::RequestBodyChunk(sent)) => {
            Inbound::Message(Ok(Message::of(Event::RequestBody {
                chunk: chunk(sent),
                request: None,
            })))
        }
        Some(Sent::ResponseBodyChunk(sent)) => {
            Inbound::Message(Ok(Message::of(Event::ResponseBody {
                chunk: chunk(sent),
                request: None,
                response: None,
            })))
        }
        Some(Sent::RequestComplete(sent)) => unhandled(sent.correlation_id, true),
        Some(Sent::WebsocketFrame(sent)) => unhandled(sent.correlation_id, false),
        Some(Sent::Guardrail(sent)) => unhandled(sent.correlation_id, false),
    })
}

fn request_head(sent: RequestHeadersEvent) -> Result<Message, BadMessage> {
    let Some(metadata) = sent.metadata else {
        return Err(BadMessage {
            what: BadEvent::Missing,
            at: "metadata",
            // Nobody can be found by it, and the other events go on.
            correlation_id: Some(String::new()),
        });
    };
    if u16::try_from(metadata.client_port).is_err() {
        return Err(out_of_range("client_port", metadata.correlation_id));
    }
    let version = HttpVersion::of(&metadata.protocol, metadata.server_name.as_deref());
    let head = RequestHead {
        correlation_id: metadata.correlation_id,
        method: sent.method,
        uri: sent.uri,
        client_ip: bare_ip(&metadata.client_ip),
        headers: headers(sent.headers),
    };
    Ok(Message::Event(Event::RequestHeaders(head), version))
}

fn response_head(sent: ResponseHeadersEvent) -> Result<Message, BadMessage> {
    let Ok(status) = u16::try_from(sent.status_code) else {
        return Err(out_of_range("status", sent.correlation_id));
    };
    Ok(Message::of(Event::ResponseHeaders(ResponseHead {
        correlation_id: sent.correlation_id,
        status,
        headers: headers(sent.headers),
    })))
}

/// The word that the Unix transports have for it too.
const fn out_of_range(at: &'static str, correlation_id: String) -> BadMessage {
    BadMessage {
        what: BadEvent::Mistyped,
        at,
        correlation_id: Some(correlation_id),
    }
}

fn headers(sent: Vec<Header>) -> Headers {
    let fields = sent.iter();
    fields.map(|header| (&header.name, &header.value)).collect()
}

fn chunk(sent: BodyChunkEvent) -> BodyChunk {
    BodyChunk {
        correlation_id: sent.correlation_id,
        chunk_index: sent.chunk_index,
        is_last: sent.is_last,
        total_size: sent.total_size,
        transferred_bytes: sent.bytes_transferred,
        data: sent.data,
    }
}

/// The answer to one event.
pub(crate) fn answer(response: &AgentResponse, correlation_id: &str) -> agent_to_proxy::Message {
    agent_to_proxy::Message::Response(proto::AgentResponse {
        correlation_id: correlation_id.to_owned(),
        // Never absent: proxies would take that for an allow.
        decision: Some(decision(response)),
        request_headers: operations(&response.request_headers),
        response_headers: operations(&response.response_headers),
        audit: Some(audit(&response.audit)),
        processing_time_ms: None,
        needs_more: response.needs_more,
    })
}

fn decision(response: &AgentResponse) -> agent_response::Decision {
    use agent_response::Decision as Sent;
    match &response.decision {
        Decision::Allow => Sent::Allow(proto::AllowDecision {}),
        Decision::Block { status, body } => Sent::Block(proto::BlockDecision {
            status: (*status).into(),
            body: body.clone(),
            headers: response
                .block_headers()
                .iter()
                .map(|(name, value)| header(name, value))
                .collect(),
        }),
        Decision::Redirect { url, status } => Sent::Redirect(proto::RedirectDecision {
            url: url.clone(),
            status: (*status).into(),
        }),
        Decision::Challenge {
            challenge_type,
            params,
        } => Sent::Challenge(proto::ChallengeDecision {
            challenge_type: challenge_type.clone(),
            params: params
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }),
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn operations(operations: &[HeaderOp]) -> Vec<proto::HeaderOp> {
    operations
        .iter()
        .map(|operation| proto::HeaderOp {
            operation: Some(match operation {
                HeaderOp::Set { name, value } => header_op::Operation::Set(header(name, value)),
                HeaderOp::Add { name, value } => header_op::Operation::Add(header(name, value)),
                HeaderOp::Remove { name } => header_op::Operation::Remove(name.clone()),
            }),
        })
        .collect()
}

fn audit(audit: &Audit) -> proto::AuditMetadata {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "0 to 1, and the protocol has no more digits"
    )]
    let confidence = audit.confidence.map(|confidence| confidence as f32);
    proto::AuditMetadata {
        tags: audit.tags.clone(),
        rule_ids: audit.rule_ids.clone(),
        confidence,
        reason_codes: audit.reason_codes.clone(),
        custom: std::collections::HashMap::new(),
    }
}

/// The answer to a handshake: what this agent can do, or why nothing is agreed.
pub(crate) fn handshake_response(
    identity: Identity<'_>,
    error: Option<&str>,
) -> agent_to_proxy::Message {
    let in_flight = identity.in_flight;
    let configure = proto::EventType::Configure.into();
    agent_to_proxy::Message::Handshake(proto::HandshakeResponse {
        protocol_version: PROTOCOL_VERSION,
        capabilities: Some(proto::AgentCapabilities {
            protocol_version: PROTOCOL_VERSION,
            agent_id: identity.agent_id.to_owned(),
            name: "wasm-agent".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // Here, unlike on a Unix socket, both sides agree about its number.
            supported_events: SUPPORTED_EVENTS
                .into_iter()
                .map(i32::from)
                .chain([configure])
                .collect(),
            features: Some(proto::AgentFeatures {
                streaming_body: true,
                config_push: true,
                concurrent_requests: in_flight,
                cancellation: true,
                metrics_export: identity.metrics,
                health_reporting: true,
                ..proto::AgentFeatures::default()
            }),
            limits: Some(proto::AgentLimits {
                max_body_size: MAX_BODY_BYTES,
                max_concurrency: in_flight,
                preferred_chunk_size: PREFERRED_CHUNK_BYTES,
                ..proto::AgentLimits::default()
            }),
            health_config: None,
        }),
        success: error.is_none(),
        error: error.map(str::to_owned),
    })
}

/// The answer to a ping.
pub(crate) fn pong(ping: Ping, now_ms: u64) -> agent_to_proxy::Message {
    agent_to_proxy::Message::Pong(proto::Pong {
        sequence: ping.sequence,
        ping_timestamp_ms: ping.timestamp_ms,
        timestamp_ms: now_ms,
    })
}

/// How the agent is.
pub(crate) fn health(status: &HealthStatus<'_>) -> agent_to_proxy::Message {
    agent_to_proxy::Message::Health(proto::HealthStatus {
        agent_id: status.agent_id.to_owned(),
        state: status.state as i32,
        message: status.message.map(str::to_owned),
        timestamp_ms: status.timestamp_ms,
        timeout_multiplier: 1.0,
        recoverable: status.state == HealthState::Degraded,
        ..proto::HealthStatus::default()
    })
}

/// What was counted.
pub(crate) fn metrics(report: &MetricsReport<'_>) -> agent_to_proxy::Message {
    let labels = |labels: &BTreeMap<&str, &str>| {
        let owned = |(name, value): (&&str, &&str)| ((*name).to_owned(), (*value).to_owned());
        labels.iter().map(owned).collect()
    };
    let counters = report.counters.iter().map(|metric| proto::CounterMetric {
        name: metric.name.to_owned(),
        help: metric.help.map(str::to_owned),
        labels: labels(&metric.labels),
        value: metric.value,
    });
    let gauges = report.gauges.iter().map(|metric| proto::GaugeMetric {
        name: metric.name.to_owned(),
        help: metric.help.map(str::to_owned),
        labels: labels(&metric.labels),
        value: metric.value,
    });
    let bucket = |bucket: &Bucket| proto::HistogramBucket {
        le: bucket.le,
        count: bucket.count,
    };
    let histograms = report
        .histograms
        .iter()
        .map(|metric| proto::HistogramMetric {
            name: metric.name.to_owned(),
            help: metric.help.map(str::to_owned),
            labels: labels(&metric.labels),
            sum: metric.sum,
            count: metric.count,
            buckets: metric.buckets.iter().map(bucket).collect(),
        });
    agent_to_proxy::Message::Metrics(proto::MetricsReport {
        agent_id: report.agent_id.to_owned(),
        timestamp_ms: report.timestamp_ms,
        interval_ms: report.interval_ms,
        counters: counters.collect(),
        gauges: gauges.collect(),
        histograms: histograms.collect(),
    })
}

/// Appends a message.
pub(crate) fn write(message: agent_to_proxy::Message, out: &mut Vec<u8>) {
    let message = AgentToProxy {
        message: Some(message),
    };
    // Room in a Vec never runs out.
    let _ = message.encode(out);
}

#[cfg(test)]
mod tests;
