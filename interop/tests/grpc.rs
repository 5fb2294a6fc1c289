//! zentinel-agent-protocol 0.6.45 over gRPC, with the same pool as over the
//! Unix socket. Guardrail events do not exist there, nor do body changes.

use std::net::TcpListener;

use serde_json::json;
use zentinel_agent_protocol::v2::{AgentClientV2, AgentPool};

use super::events;
use super::support::{AMPLE, Agent, NAME, PATIENCE, REPAIRED, client_version, decision, read};

/// A port that was free a moment ago.
fn address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn start(module: &str, args: &[&str]) -> (Agent, String) {
    let address = address();
    let args = [args, &["--grpc-address", &address]].concat();
    (Agent::start(module, &args), format!("http://{address}"))
}

async fn pool(endpoint: &str) -> AgentPool {
    let pool = AgentPool::new();
    pool.add_agent(NAME, endpoint).await.unwrap();
    assert!(pool.is_agent_healthy(NAME));
    pool
}

#[tokio::test]
async fn an_exchange_goes_through_all_its_phases() {
    let (_agent, endpoint) = start("rules/rules.wasm", &[]);
    let pool = pool(&endpoint).await;
    let id = "exchange-1";
    let event = events::request(id, "POST", "/orders");
    let answer = read(pool.send_request_headers(NAME, id, &event).await);
    assert_eq!(decision(&answer), "allow");
    assert_eq!(answer["needs_more"], true);
    let event = events::body(id, b"<script>");
    let answer = read(pool.send_request_body_chunk(NAME, id, &event).await);
    assert_eq!(decision(&answer), "block");
    let event = events::response(id, 200);
    let answer = read(pool.send_response_headers(NAME, id, &event).await);
    let operations = answer["response_headers"].as_array().unwrap();
    assert!(operations.contains(&json!({"remove": {"name": "server"}})));
    let event = events::body(id, b"4111111111111111");
    let answer = read(pool.send_response_body_chunk(NAME, id, &event).await);
    assert_eq!(
        answer["audit"]["tags"],
        json!(["masked", "body-mutation-unsupported"])
    );
}

/// Proxies before 0.6.54 let a challenge through, so it is a block for them.
#[tokio::test]
async fn refusals_are_read_as_they_were_meant() {
    let challenge = if client_version() < REPAIRED {
        json!({"block": {"status": 403, "body": null, "headers": null}})
    } else {
        json!({"challenge": {"challenge_type": "captcha",
            "params": {"site_key": "demo", "theme": "dark"}}})
    };
    let block = json!({"block": {"status": 418, "body": "short and stout",
        "headers": {"x-response-a": "1", "x-response-b": "2"}}});
    let redirect = json!({"redirect": {"url": "/new/page", "status": 301}});
    for (module, expected) in [
        ("right/challenge.wat", challenge),
        ("right/full-result.wat", block),
        ("rules/rules.wasm", redirect),
    ] {
        let (_agent, endpoint) = start(module, &[]);
        let pool = pool(&endpoint).await;
        let event = events::request("c", "GET", "/old/page");
        let answer = read(pool.send_request_headers(NAME, "c", &event).await);
        assert_eq!(answer["decision"], expected, "{module}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_in_flight_are_each_answered_for_themselves() {
    let (_agent, endpoint) = start("rules/rules.wasm", &AMPLE);
    let pool = std::sync::Arc::new(pool(&endpoint).await);
    let tasks: Vec<_> = (0..400)
        .map(|number| {
            let pool = std::sync::Arc::clone(&pool);
            tokio::spawn(async move {
                let id = number.to_string();
                let (uri, expected) = match number % 2 {
                    0 => ("/", "allow"),
                    _ => ("/?q=or%201=1", "block"),
                };
                let event = events::request(&id, "GET", uri);
                let answer = read(pool.send_request_headers(NAME, &id, &event).await);
                assert_eq!(decision(&answer), expected);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn faults_are_refused_or_allowed_as_told() {
    for (open, expected) in [("false", "block"), ("true", "allow")] {
        let fail_open = format!("--fail-open={open}");
        let (_agent, endpoint) = start("hostile/trap-unreachable.wat", &[&fail_open]);
        let pool = pool(&endpoint).await;
        let event = events::request("a", "GET", "/");
        let answer = read(pool.send_request_headers(NAME, "a", &event).await);
        assert_eq!(decision(&answer), expected);
    }
}

#[tokio::test]
async fn pings_and_settings_are_answered() {
    let (_agent, endpoint) = start("rules/rules.wasm", &[]);
    let client = AgentClientV2::new(NAME, endpoint, PATIENCE).await.unwrap();
    client.connect().await.unwrap();
    client.ping().await.unwrap();
    client
        .send_configure(json!({"fail-open": false}), None)
        .await
        .unwrap();
    client.ping().await.unwrap();
    let event = events::request("a", "GET", "/");
    let answer = read(client.send_request_headers("a", &event).await);
    assert_eq!(decision(&answer), "allow");
}
