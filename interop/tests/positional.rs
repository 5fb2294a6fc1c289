//! sentinel-agent-protocol 0.4.14 in protocol v2 with MessagePack, whose
//! structs are arrays without names and whose maps repeat a key.

use sentinel_agent_protocol::v2::{AgentClientV2Uds, UdsEncoding};
use serde_json::json;

use super::events;
use super::support::{Agent, NAME, PATIENCE, decision, read};

#[tokio::test]
async fn structs_without_names_are_read_and_answered() {
    let agent = Agent::start("rules/rules.wasm", &[]);
    let path = agent.socket().display().to_string();
    let client = AgentClientV2Uds::new(NAME, path, PATIENCE).await.unwrap();
    client.connect().await.unwrap();
    assert_eq!(client.encoding().await, UdsEncoding::MessagePack);

    for (id, uri, expected) in [("a", "/", "allow"), ("b", "/?q=or%201=1", "block")] {
        let event = events::request(id, "GET", uri);
        let answer = read(client.send_request_headers(id, &event).await);
        assert_eq!(decision(&answer), expected);
        assert_eq!(answer["audit"]["custom"]["correlation_id"], id);
    }
    let event = events::body("a", b"<script>");
    let answer = read(client.send_request_body_chunk("a", &event).await);
    assert_eq!(decision(&answer), "block");
    let event = events::response("a", 200);
    let answer = read(client.send_response_headers("a", &event).await);
    let operations = answer["response_headers"].as_array().unwrap();
    assert!(operations.contains(&json!({"remove": {"name": "server"}})));
    let event = events::body("a", b"4111111111111111");
    let answer = read(client.send_response_body_chunk("a", &event).await);
    assert_eq!(answer["audit"]["tags"], json!(["masked"]));
}
