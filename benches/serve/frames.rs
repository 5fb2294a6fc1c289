//! The frames that go to and fro: one realistic request, over and over, each
//! under an id of its own.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::args::Protocol;

/// Where the id of an event goes; as long as every id.
const PLACEHOLDER: &str = "c-00-000-0000000000";
/// What stands before the id, in events and in answers.
const BEFORE_ID: &[u8] = b"\"correlation_id\":\"";
/// From the placeholder's start: where the place among those in flight is.
const SLOT: Range<usize> = 5..8;

/// A frame with places for the id.
pub(crate) struct Template {
    frame: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    pub(crate) fn new(protocol: Protocol) -> Self {
        let id = PLACEHOLDER;
        let mut event = json!({
            "metadata": {
                "correlation_id": id, "request_id": "0e8dfb0f-7d0e-4a8e-9d2a-62f0a1b2c3d4",
                "client_ip": "192.0.2.7:40312", "client_port": 0, "server_name": null,
                "protocol": "HTTP/1.1", "tls_version": null, "tls_cipher": null,
                "route_id": "shop", "upstream_id": null, "timestamp": "2026-11-20T13:31:06.123456Z",
            },
            "method": "GET",
            "uri": "/catalogue/shoes?page=2&sort=price",
            "headers": {
                "host": ["shop.example.org"],
                "user-agent": ["Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"],
                "accept": ["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
                "accept-language": ["en-GB,en;q=0.7,de;q=0.3"],
                "accept-encoding": ["gzip, deflate, br, zstd"],
                "referer": ["https://shop.example.org/catalogue"],
                "cookie": ["session=5f0a9c1e7b3d4a60; theme=dark; basket=17,42"],
                "x-forwarded-for": ["192.0.2.7"],
                "x-correlation-id": [id],
                "x-forwarded-by": ["zentinel"],
            },
        });
        let (kind, payload) = match protocol {
            Protocol::V1 => (
                None,
                json!({"version": 1, "event_type": "request_headers", "payload": event}),
            ),
            Protocol::V2 => {
                event["correlation_id"] = id.into();
                (Some(0x10), event)
            }
        };
        let frame = frame(kind, payload.to_string().as_bytes());
        let places = frame
            .windows(id.len())
            .enumerate()
            .filter_map(|(place, part)| (part == id.as_bytes()).then_some(place))
            .collect();
        Self { frame, places }
    }

    pub(crate) const fn len(&self) -> usize {
        self.frame.len()
    }

    /// Appends the frame under an id made of the three numbers.
    pub(crate) fn write(&self, [connection, slot, number]: [usize; 3], out: &mut Vec<u8>) {
        let id = format!("c-{connection:02}-{slot:03}-{number:010}");
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for place in &self.places {
            out[start + place..][..PLACEHOLDER.len()].copy_from_slice(id.as_bytes());
        }
    }
}

pub(crate) fn frame(kind: Option<u8>, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() + usize::from(kind.is_some());
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend(kind);
    frame.extend_from_slice(payload);
    frame
}

/// A proxy's first frame in v2.
pub(crate) fn handshake() -> Vec<u8> {
    let request = json!({"supported_versions": [2], "proxy_id": "zentinel-proxy",
        "proxy_version": "0.6.45", "config": null, "supported_encodings": ["json"]});
    frame(Some(0x01), request.to_string().as_bytes())
}

/// The length of the frame that `received` begins with, once it is whole.
pub(crate) fn whole(received: &[u8]) -> Option<usize> {
    let length = received.first_chunk().copied().map(u32::from_be_bytes)?;
    let length = 4 + usize::try_from(length).ok()?;
    (received.len() >= length).then_some(length)
}

/// Checks that an answer allows. In v2 it says which place it is for.
pub(crate) fn check(protocol: Protocol, answer: &[u8]) -> Result<Option<usize>> {
    // An echo is what was sent, and no answer.
    let echoed = find(answer, b"\"metadata\"").is_some();
    if !echoed && find(answer, b"\"decision\":\"allow\"").is_none() {
        bail!("not allowed: {}", String::from_utf8_lossy(answer));
    }
    if protocol == Protocol::V1 {
        return Ok(None);
    }
    let place = find(answer, BEFORE_ID).context("an answer without an id")?;
    let slot = answer
        .get(place + BEFORE_ID.len()..)
        .and_then(|id| std::str::from_utf8(id.get(SLOT)?).ok()?.parse().ok())
        .context("an answer to nobody")?;
    Ok(Some(slot))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
