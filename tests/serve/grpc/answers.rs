//! What answers say, beside those of the Unix transport.

use std::path::Path;

use tokio::net::UnixListener;
use wasm_agent_kit::internals::server::ServeSettings;

use super::support::*;

/// What gRPC cannot say is said in the audit.
#[tokio::test]
async fn a_body_mutation_is_tagged() {
    let server = Server::start("right/response-body-replace.wat").await;
    for version in ["0.6.45", "0.6.54"] {
        let mut client = server.greeted(version).await;
        client.send(ToAgent::ResponseBodyChunk(body("c1", b"hello".to_vec())));
        let answer = client.answer().await;
        let tags = answer.audit.unwrap().tags;
        assert_eq!(tags, ["body-mutation-unsupported"]);
        // The echo for older proxies is ours, not the module's.
        client.send(response("c1", 200));
        assert!(client.answer().await.audit.unwrap().tags.is_empty());
    }
}

/// The quirks follow the version in the handshake.
#[tokio::test]
async fn a_challenge_is_a_block_before_0_6_54() {
    let server = Server::start("right/challenge.wat").await;
    for (version, what) in [("0.6.45", "block"), ("0.6.54", "challenge")] {
        let mut client = server.greeted(version).await;
        client.send(request("c1"));
        assert_eq!(client.outcome().await, pair("c1", what), "{version}");
    }
}

/// One event on a Unix connection of the same agent, and its answer.
pub(crate) async fn ask_on_unix(
    path: &Path,
    version: &str,
    event: &serde_json::Value,
) -> serde_json::Value {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    let handshake = serde_json::json!({"supported_versions": [2], "proxy_id": "zentinel-proxy",
        "proxy_version": version, "supported_encodings": ["json"]});
    let mut last = serde_json::Value::Null;
    for (kind, message) in [(0x01, &handshake), (0x10, event)] {
        let payload = serde_json::to_vec(message).unwrap();
        let length = u32::try_from(payload.len() + 1).unwrap();
        stream.write_u32(length).await.unwrap();
        stream.write_u8(kind).await.unwrap();
        stream.write_all(&payload).await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut frame).await.unwrap();
        last = serde_json::from_slice(&frame[1..]).unwrap();
    }
    last
}

/// The golden rule: the transport changes nothing about an answer, but for
/// what gRPC has no field for, which it says.
#[tokio::test]
async fn answers_are_those_of_the_unix_transport() {
    use serde_json::{Value, json};
    let folder = tempfile::tempdir().unwrap();
    for (number, module) in [
        "right/allow.wat",
        "right/deny.wat",
        "right/block-with-body.wat",
        "right/redirect.wat",
        "right/challenge.wat",
        "right/header-ops.wat",
        "right/full-result.wat",
        "right/needs-more.wat",
        "right/empty-answer.wat",
        "right/response-only.wat",
        "right/early-response-ops.wat",
        "hostile/not-json.wat",
        "hostile/trap-unreachable.wat",
        "hostile/header-split.wat",
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(number.to_string());
        let unix = UnixListener::bind(&path).unwrap();
        let settings = ServeSettings::default();
        let server = Server::with(agent(module, 1), settings, Some(unix)).await;
        for version in ["0.6.45", "0.6.54"] {
            let mut client = server.greeted(version).await;
            client.send(request("c1"));
            let mut got = as_on_unix(client.answer().await);
            let event = json!({"correlation_id": "c1", "method": "GET", "uri": "/",
                "metadata": {"correlation_id": "c1", "client_ip": "192.0.2.7:5678"},
                "headers": {"host": ["a"]}});
            let mut expected = ask_on_unix(&path, version, &event).await;
            if let Some(confidence) = expected["audit"]["confidence"].as_f64() {
                expected["audit"]["confidence"] = format!("{confidence:.3}").into();
            }
            if expected["routing_metadata"] != json!({}) {
                expected["routing_metadata"] = json!({});
                let Value::Array(tags) = &mut got["audit"]["tags"] else {
                    panic!("no tags");
                };
                let unsaid = json!("routing-metadata-unsupported");
                let place = tags.iter().position(|tag| *tag == unsaid);
                tags.remove(place.unwrap());
            }
            assert_eq!(got, expected, "{module} {version}");
        }
    }
}
