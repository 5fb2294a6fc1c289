//! Events as proxies send them, for the types of any of the clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The clients' types are different and their JSON is the same.
fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn request<T: DeserializeOwned>(id: &str, method: &str, uri: &str) -> T {
    request_with(id, method, uri, json!({}))
}

/// A request with ten headers and a few of its own.
pub fn request_with<T: DeserializeOwned>(id: &str, method: &str, uri: &str, more: Value) -> T {
    let mut headers = json!({
        "host": ["shop.example.org"],
        "user-agent": ["Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"],
        "accept": ["text/html,application/xhtml+xml,*/*;q=0.8"],
        "accept-language": ["en-GB,en;q=0.7"],
        "accept-encoding": ["gzip, br"],
        "cookie": ["session=5f0a9c1e; theme=dark"],
        "referer": ["https://shop.example.org/catalogue"],
        "x-forwarded-for": ["192.0.2.7"],
        "x-correlation-id": [id],
        "x-forwarded-by": ["zentinel"],
    });
    let own = more.as_object().unwrap().clone();
    headers.as_object_mut().unwrap().extend(own);
    typed(json!({
        "metadata": {
            "correlation_id": id, "request_id": "0e8dfb0f", "client_ip": "192.0.2.7:40312",
            "client_port": 0, "server_name": null, "protocol": "HTTP/1.1", "tls_version": null,
            "tls_cipher": null, "route_id": "shop", "upstream_id": null,
            "timestamp": "2026-11-20T13:31:06Z",
        },
        "method": method, "uri": uri, "headers": headers,
    }))
}

pub fn response<T: DeserializeOwned>(id: &str, status: u16) -> T {
    typed(json!({
        "correlation_id": id, "status": status,
        "headers": {"content-type": ["text/plain"], "server": ["nginx", "backend"]},
    }))
}

/// A whole body in one chunk, in either direction.
pub fn body<T: DeserializeOwned>(id: &str, data: &[u8]) -> T {
    chunk(id, 0, data, true)
}

/// The clients ignore the count that is not of their direction.
pub fn chunk<T: DeserializeOwned>(id: &str, index: u32, data: &[u8], is_last: bool) -> T {
    typed(json!({
        "correlation_id": id, "data": STANDARD.encode(data), "is_last": is_last,
        "total_size": null, "chunk_index": index,
        "bytes_received": data.len(), "bytes_sent": data.len(),
    }))
}

pub fn complete<T: DeserializeOwned>(id: &str) -> T {
    typed(json!({
        "correlation_id": id, "status": 200, "duration_ms": 12, "request_body_size": 3,
        "response_body_size": 48, "upstream_attempts": 1, "error": null,
    }))
}

pub fn web_socket_frame<T: DeserializeOwned>(id: &str) -> T {
    typed(json!({
        "correlation_id": id, "opcode": "text", "data": STANDARD.encode("hello"),
        "client_to_server": true, "frame_index": 0, "fin": true, "route_id": null,
        "client_ip": "192.0.2.7",
    }))
}

pub fn guardrail<T: DeserializeOwned>(id: &str) -> T {
    typed(json!({
        "correlation_id": id, "inspection_type": "prompt_injection", "content": "hello",
        "model": "m", "categories": ["email"], "route_id": null, "metadata": {"k": "v"},
    }))
}
