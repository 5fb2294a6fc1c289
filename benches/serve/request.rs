//! The one event that is asked about, over and over: what a browser asks of a
//! shop, as a proxy passes it on.

use wasm_agent_kit::event::{Event, RequestHead};
use wasm_agent_kit::internals::client::Ask;

const HEADERS: [(&str, &str); 10] = [
    ("host", "shop.example.org"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://shop.example.org/catalogue"),
    (
        "cookie",
        "session=5f0a9c1e7b3d4a60; theme=dark; basket=17,42",
    ),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-correlation-id", "0e8dfb0f-7d0e-4a8e-9d2a"),
    ("x-forwarded-by", "zentinel"),
];

/// It, by this method.
pub(crate) fn request(method: &str) -> Ask {
    Ask {
        name: method.to_owned(),
        event: Event::RequestHeaders(RequestHead {
            method: method.to_owned(),
            uri: "/catalogue/shoes?page=2&sort=price".to_owned(),
            client_ip: "192.0.2.7".to_owned(),
            headers: HEADERS.into(),
            ..RequestHead::default()
        }),
    }
}
