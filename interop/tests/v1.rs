//! sentinel-agent-protocol 0.4.14 in protocol v1: one event at a time on a
//! connection, several connections at once.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sentinel_agent_protocol::{AgentClient, ConfigureEvent, EventType};
use serde_json::{Value, json};

use super::events;
use super::support::{AMPLE, Agent, NAME, PATIENCE, decision, read, timeout};

pub async fn connect(socket: &Path, timeout: Duration) -> AgentClient {
    AgentClient::unix_socket(NAME, socket, timeout)
        .await
        .unwrap()
}

type RequestHeaders = sentinel_agent_protocol::RequestHeadersEvent;
type RequestBody = sentinel_agent_protocol::RequestBodyChunkEvent;
type ResponseHeaders = sentinel_agent_protocol::ResponseHeadersEvent;
type ResponseBody = sentinel_agent_protocol::ResponseBodyChunkEvent;

async fn ask(client: &mut AgentClient, id: &str, uri: &str) -> Value {
    let event: RequestHeaders = events::request(id, "GET", uri);
    read(client.send_event(EventType::RequestHeaders, event).await)
}

#[tokio::test]
async fn an_exchange_goes_through_all_its_phases() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut client = connect(&agent.socket(), PATIENCE).await;
    let id = "exchange-1";

    let form = json!({"content-type": ["application/x-www-form-urlencoded"]});
    let event: RequestHeaders = events::request_with(id, "POST", "/comments", form);
    let answer = read(client.send_event(EventType::RequestHeaders, event).await);
    assert_eq!(answer["version"], 1);
    assert_eq!(decision(&answer), "allow");
    assert_eq!(answer["needs_more"], true);
    let client_ip = json!({"set": {"name": "x-client-ip", "value": "192.0.2.7"}});
    let operations = answer["request_headers"].as_array().unwrap();
    assert!(operations.contains(&client_ip), "{answer}");

    // Another connection of the same proxy.
    let mut second = connect(&agent.socket(), PATIENCE).await;
    let event: RequestBody = events::body(id, b"id=1%3B+DROP+TABLE+users");
    let answer = read(second.send_event(EventType::RequestBodyChunk, event).await);
    assert_eq!(decision(&answer), "block");
    assert_eq!(answer["audit"]["tags"], json!(["sqli"]));

    let event: ResponseHeaders = events::response(id, 200);
    let answer = read(client.send_event(EventType::ResponseHeaders, event).await);
    let operations = answer["response_headers"].as_array().unwrap();
    assert!(operations.contains(&json!({"remove": {"name": "server"}})));

    let event: ResponseBody = events::body(id, b"paid with 4111111111111111.");
    let answer = read(client.send_event(EventType::ResponseBodyChunk, event).await);
    let data = answer["response_body_mutation"]["data"].as_str().unwrap();
    assert_eq!(
        STANDARD.decode(data).unwrap(),
        b"paid with ************1111."
    );
}

#[tokio::test]
async fn events_without_a_handler_are_allowed() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut client = connect(&agent.socket(), PATIENCE).await;
    let events: [(EventType, Value); 3] = [
        (EventType::RequestComplete, events::complete("a")),
        (EventType::WebSocketFrame, events::web_socket_frame("b")),
        (EventType::GuardrailInspect, events::guardrail("c")),
    ];
    for (kind, event) in events {
        let answer = read(client.send_event(kind, event).await);
        assert_eq!(decision(&answer), "allow", "{kind:?}");
    }
}

/// The proxy logs a refusal and goes on with the same connection.
#[tokio::test]
async fn settings_are_in_force_or_refused_with_a_reason() {
    let agent = Agent::start("rules/rules.wasm", &["--pool-size", "3"]);
    let mut client = connect(&agent.socket(), PATIENCE).await;
    for (config, expected) in [
        (json!({}), "allow"),
        (json!({"pool-size": 3, "fail-open": false}), "allow"),
        (json!({"no-such-thing": true}), "block"),
    ] {
        let event = ConfigureEvent {
            agent_id: NAME.to_owned(),
            config,
        };
        let answer = read(client.send_event(EventType::Configure, event).await);
        assert_eq!(decision(&answer), expected, "{answer}");
    }
    assert_eq!(decision(&ask(&mut client, "a", "/").await), "allow");
}

#[tokio::test]
async fn decisions_are_read_as_they_were_meant() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let mut client = connect(&agent.socket(), PATIENCE).await;
    let answer = ask(&mut client, "a", "/old/catalogue").await;
    let redirect = json!({"redirect": {"url": "/new/catalogue", "status": 301}});
    assert_eq!(answer["decision"], redirect);
    let bot = json!({"user-agent": ["ExampleBot/1.0"]});
    let event: RequestHeaders = events::request_with("b", "GET", "/", bot);
    let answer = read(client.send_event(EventType::RequestHeaders, event).await);
    // This proxy lets a challenge through.
    assert_eq!(answer["decision"]["block"]["status"], 403);
    let answer = ask(&mut client, "c", "/../etc/passwd").await;
    assert_eq!(answer["decision"]["block"]["body"], "Forbidden");
}

#[tokio::test]
async fn faults_are_refused_or_allowed_as_told() {
    let faults = [
        ("hostile/trap-unreachable.wat", "trap:unreachable"),
        ("hostile/spin.wat", "deadline"),
        ("hostile/not-json.wat", "bad-answer:not-json"),
        ("hostile/answer-out-of-bounds.wat", "bad-answer:"),
    ];
    for (module, reason) in faults {
        for (open, expected) in [("false", "block"), ("true", "allow")] {
            let fail_open = format!("--fail-open={open}");
            // An answer too late for the limits closes a v1 connection instead.
            let args = [
                "--timeout",
                timeout(module),
                "--queue-wait",
                "10s",
                &fail_open,
            ];
            let agent = Agent::start(module, &args);
            let mut client = connect(&agent.socket(), PATIENCE).await;
            for id in ["a", "b", "c"] {
                let answer = ask(&mut client, id, "/").await;
                assert_eq!(decision(&answer), expected, "{module}");
                let told = answer["audit"]["reason_codes"][0].as_str().unwrap();
                assert!(told.starts_with(reason), "{module} {told}");
            }
        }
    }
}

/// A proxy has 11 connections at most. v1 and v2 share the listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_at_once_are_each_answered_for_themselves() {
    let agent = Agent::start("rules/rules.wasm", &AMPLE);
    let mut tasks = Vec::new();
    for name in 0..11 {
        let socket = agent.socket();
        tasks.push(tokio::spawn(async move {
            let mut client = connect(&socket, PATIENCE).await;
            for number in 0..100 {
                let (uri, expected) = match number % 2 {
                    0 => ("/?q=1", "allow"),
                    _ => ("/?q=union%20select", "block"),
                };
                let answer = ask(&mut client, &format!("v1-{name}-{number}"), uri).await;
                assert_eq!(decision(&answer), expected);
            }
        }));
    }
    let pool = agent.pool().await;
    for name in 0..100 {
        let pool = std::sync::Arc::clone(&pool);
        tasks.push(tokio::spawn(async move {
            for number in 0..10 {
                let id = format!("v2-{name}-{number}");
                let event = events::request(&id, "GET", "/?q=union%20select");
                let answer = read(pool.send_request_headers(NAME, &id, &event).await);
                assert_eq!(decision(&answer), "block");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
