//! zentinel-agent-protocol 0.6.45 over the Unix socket: every event, and many
//! of them at once.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use zentinel_agent_protocol::v2::{AgentPool, UdsEncoding};

use super::events;
use super::support::{AMPLE, Agent, NAME, REPAIRED, client_version, decision, read};

/// What the answers of one exchange are kept under.
fn id_of(answer: &Value) -> &str {
    answer["audit"]["custom"]["correlation_id"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn the_handshake_says_what_the_agent_can() {
    let agent = Agent::start("rules/rules.wasm", &["--agent-id", "edge"]);
    let client = agent.client().await;
    let wanted = if cfg!(feature = "msgpack") {
        UdsEncoding::MessagePack
    } else {
        UdsEncoding::Json
    };
    assert_eq!(client.encoding().await, wanted);
    assert!(client.is_connected().await);
    let capabilities = serde_json::to_value(client.capabilities().await.unwrap()).unwrap();
    assert_eq!(capabilities["agent_id"], "edge");
    assert_eq!(
        capabilities["supported_events"],
        json!([
            "request_headers",
            "request_body_chunk",
            "response_headers",
            "response_body_chunk"
        ])
    );
    let features = &capabilities["features"];
    assert_eq!(features["streaming_body"], true);
    assert_eq!(features["config_push"], true);
    assert_eq!(features["websocket"], false);
}

#[tokio::test]
async fn an_exchange_goes_through_all_its_phases() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let pool = agent.pool().await;
    let id = "exchange-1";

    let event = events::request(id, "POST", "/orders");
    let answer = read(pool.send_request_headers(NAME, id, &event).await);
    assert_eq!(decision(&answer), "allow");
    assert_eq!(id_of(&answer), id);
    assert_eq!(answer["needs_more"], true);
    assert_eq!(answer["routing_metadata"]["pool"], "default");
    let operations = answer["request_headers"].as_array().unwrap();
    // The port that this client adds to the address is cut off.
    let client_ip = json!({"set": {"name": "x-client-ip", "value": "192.0.2.7"}});
    assert!(operations.contains(&client_ip), "{answer}");

    let event = events::body(id, b"note=hello");
    let answer = read(pool.send_request_body_chunk(NAME, id, &event).await);
    assert_eq!(decision(&answer), "allow");
    assert_eq!(answer["audit"]["tags"], json!(["clean"]));

    let event = events::response(id, 200);
    let answer = read(pool.send_response_headers(NAME, id, &event).await);
    let operations = answer["response_headers"].as_array().unwrap();
    assert!(operations.contains(&json!({"remove": {"name": "server"}})));

    let event = events::body(id, b"paid with 4111111111111111.");
    let answer = read(pool.send_response_body_chunk(NAME, id, &event).await);
    assert_eq!(answer["audit"]["tags"], json!(["masked"]));
    let data = answer["response_body_mutation"]["data"].as_str().unwrap();
    assert_eq!(
        STANDARD.decode(data).unwrap(),
        b"paid with ************1111."
    );
}

/// The content type that makes the body a form came with the headers, and
/// body events of a pool may take another connection.
#[tokio::test]
async fn the_context_of_an_exchange_follows_it_over_connections() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let (first, second) = (agent.client().await, agent.client().await);
    let form = json!({"content-type": ["application/x-www-form-urlencoded"]});
    let event = events::request_with("form", "POST", "/comments", form);
    read(first.send_request_headers("form", &event).await);
    let event = events::body("form", b"id=1%3B+DROP+TABLE+users");
    let answer = read(second.send_request_body_chunk("form", &event).await);
    assert_eq!(decision(&answer), "block");
    assert_eq!(answer["audit"]["rule_ids"], json!(["942100"]));
}

#[tokio::test]
async fn a_body_comes_in_chunks() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let pool = agent.pool().await;
    let event = events::request("c", "GET", "/");
    read(pool.send_request_headers(NAME, "c", &event).await);
    for index in 0..8 {
        let last = index == 7;
        let event = events::chunk("c", index, b"card 4111111111111111", last);
        let answer = read(pool.send_response_body_chunk(NAME, "c", &event).await);
        assert_eq!(answer["response_body_mutation"]["chunk_index"], index);
        let data = answer["response_body_mutation"]["data"].as_str().unwrap();
        assert_eq!(STANDARD.decode(data).unwrap(), b"card ************1111");
    }
}

/// One megabyte is what proxies inspect; this client writes it as base64 or,
/// by its other method, as bytes where the encoding has them.
#[tokio::test]
async fn a_megabyte_goes_through_in_either_form() {
    use zentinel_agent_protocol::{BinaryRequestBodyChunkEvent, RequestBodyChunkEvent};
    let agent = Agent::start("rules/rules.wasm", &["--timeout", "5s"]);
    let client = agent.client().await;
    let mut data = vec![b'a'; (1 << 20) - 9];
    data.extend(b" <script>");
    for name in ["text", "bytes"] {
        let event = events::request(name, "POST", "/");
        read(client.send_request_headers(name, &event).await);
        let event = BinaryRequestBodyChunkEvent::new(name, data.clone(), 0, true);
        let answer = if name == "bytes" {
            read(client.send_request_body_chunk_binary(&event).await)
        } else {
            let event = RequestBodyChunkEvent::from(event);
            read(client.send_request_body_chunk(name, &event).await)
        };
        assert_eq!(decision(&answer), "block", "{name}");
        assert_eq!(answer["audit"]["tags"], json!(["xss"]), "{name}");
    }
}

#[tokio::test]
async fn events_without_a_handler_are_allowed() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let client = agent.client().await;
    let answers = [
        read(
            client
                .send_request_complete("a", &events::complete("a"))
                .await,
        ),
        read(
            client
                .send_websocket_frame("b", &events::web_socket_frame("b"))
                .await,
        ),
        read(
            client
                .send_guardrail_inspect("c", &events::guardrail("c"))
                .await,
        ),
        read(
            agent
                .pool()
                .await
                .send_guardrail_inspect(NAME, "d", &events::guardrail("d"))
                .await,
        ),
    ];
    for (answer, id) in answers.iter().zip(["a", "b", "c", "d"]) {
        assert_eq!(decision(answer), "allow");
        assert_eq!(id_of(answer), id);
    }
    // And a handler that the module does not have.
    let agent = Agent::start("right/response-only.wat", &[]);
    let pool = agent.pool().await;
    let event = events::request("e", "GET", "/");
    let answer = read(pool.send_request_headers(NAME, "e", &event).await);
    assert_eq!(decision(&answer), "allow");
}

/// What the client makes of each decision. Proxies before 0.6.54 let a challenge
/// through, so the agent refuses them instead.
#[tokio::test]
async fn decisions_are_read_as_they_were_meant() {
    let block = |status: u16, body: Value| json!({"block": {"status": status, "body": body, "headers": null}});
    let challenge = if client_version() < REPAIRED {
        block(403, Value::Null)
    } else {
        json!({"challenge": {"challenge_type": "captcha",
            "params": {"site_key": "demo", "theme": "dark"}}})
    };
    let cases = [
        ("right/deny.wat", block(403, Value::Null)),
        ("right/challenge.wat", challenge),
    ];
    for (module, expected) in cases {
        let agent = Agent::start(module, &[]);
        let pool = agent.pool().await;
        let event = events::request("c", "GET", "/");
        let answer = read(pool.send_request_headers(NAME, "c", &event).await);
        assert_eq!(answer["decision"], expected, "{module}");
    }

    let agent = Agent::start("rules/rules.wasm", &["--proxy-quirks", "off"]);
    let pool = agent.pool().await;
    let bot = json!({"user-agent": ["ExampleBot/1.0"]});
    let cases = [
        (
            events::request("a", "GET", "/old/catalogue?page=2"),
            json!({"redirect": {"url": "/new/catalogue?page=2", "status": 301}}),
        ),
        (
            events::request_with("b", "GET", "/", bot),
            json!({"challenge": {"challenge_type": "javascript",
                "params": {"difficulty": "2", "site": "demo"}}}),
        ),
        (
            events::request("c", "GET", "/admin"),
            block(401, "Authorization required".into()),
        ),
    ];
    for (event, expected) in cases {
        let event: zentinel_agent_protocol::RequestHeadersEvent = event;
        let id = event.metadata.correlation_id.clone();
        let answer = read(pool.send_request_headers(NAME, &id, &event).await);
        assert_eq!(answer["decision"], expected);
    }

    // Confidence and all the rest, through the client's own types.
    let agent = Agent::start("right/full-result.wat", &[]);
    let pool = agent.pool().await;
    let event = events::request("c", "GET", "/");
    let answer = read(pool.send_request_headers(NAME, "c", &event).await);
    // The headers of the client's answer stand in the block itself.
    let mut full = block(418, "short and stout".into());
    full["block"]["headers"] = json!({"x-response-a": "1", "x-response-b": "2"});
    assert_eq!(answer["decision"], full);
    assert_eq!(answer["audit"]["tags"], json!(["one", "two"]));
    assert_eq!(answer["audit"]["rule_ids"], json!(["100", "200"]));
    assert_eq!(answer["audit"]["reason_codes"], json!(["FULL"]));
    assert_eq!(answer["audit"]["confidence"], 0.75);
    assert_eq!(answer["routing_metadata"], json!({"pool": "tea"}));
    assert_eq!(answer["request_headers"].as_array().unwrap().len(), 3);
    assert_eq!(answer["response_headers"].as_array().unwrap().len(), 3);
}

/// Proxies before 0.6.54 drop them in the request phase.
#[tokio::test]
async fn operations_on_the_response_are_repeated_with_it() {
    let agent = Agent::start("right/early-response-ops.wat", &[]);
    let pool = agent.pool().await;
    let event = events::request("c", "GET", "/");
    let early = read(pool.send_request_headers(NAME, "c", &event).await);
    let event = events::response("c", 200);
    let late = read(pool.send_response_headers(NAME, "c", &event).await);
    assert_eq!(early["response_headers"].as_array().unwrap().len(), 3);
    let repeated = if client_version() < REPAIRED {
        early["response_headers"].clone()
    } else {
        json!([])
    };
    assert_eq!(late["response_headers"], repeated);
}

/// What a proxy's `config` block would say; 0.6.54 sends it on each connection.
#[tokio::test]
async fn settings_are_in_force_or_refused_with_a_reason() {
    let agent = Agent::start("rules/rules.wasm", &["--pool-size", "3"]);
    for client in [agent.client().await, agent.client().await] {
        let event = json!({"config": {"pool-size": 3, "fail-open": false}, "config_version": null});
        let answer = read(client.send_configure("s1", &event).await);
        assert_eq!(decision(&answer), "allow");
        let event = json!({"config": {"no-such-thing": 1}, "config_version": null});
        let answer = read(client.send_configure("s2", &event).await);
        assert_eq!(decision(&answer), "block");
        let reason = answer["decision"]["block"]["body"].as_str().unwrap();
        assert!(reason.contains("no-such-thing"), "{reason}");
    }
}

/// Sends requests of which every third is an attack; says how many there were.
async fn ask(pool: Arc<AgentPool>, name: usize, count: usize) -> usize {
    for number in 0..count {
        let id = format!("{name}-{number}");
        let attack = number % 3 == 0;
        let uri = if attack {
            "/?q=1%27%20or%201=1"
        } else {
            "/?q=1"
        };
        let event = events::request(&id, "GET", uri);
        let answer = read(pool.send_request_headers(NAME, &id, &event).await);
        assert_eq!(id_of(&answer), id);
        let expected = if attack { "block" } else { "allow" };
        assert_eq!(decision(&answer), expected, "{answer}");
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_in_flight_are_each_answered_for_themselves() {
    let agent = Agent::start("rules/rules.wasm", &AMPLE);
    let pool = agent.pool().await;
    let tasks: Vec<_> = (0..400)
        .map(|name| tokio::spawn(ask(Arc::clone(&pool), name, 9)))
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += task.await.unwrap();
    }
    assert_eq!(answered, 3_600);
    let stats = pool.agent_stats(NAME).await.unwrap();
    assert_eq!(stats.total_requests, 3_600);
    assert_eq!(stats.total_errors, 0);
    assert_eq!(stats.healthy_connections, 4);
}
