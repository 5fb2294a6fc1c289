//! A closed loop by the library's own driver: as many events in flight as
//! there may be, always. In v1 each of them has a connection of its own, as
//! proxies have it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use wasm_agent_kit::client::{Address, Ask, Drive, Driven, Exchange, Pace, Speech, Target};
use wasm_agent_kit::event::{Event, RequestHead};

use super::process::Served;

pub(crate) struct Load {
    pub(crate) speech: Speech,
    pub(crate) depth: usize,
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) seconds: Duration,
}

/// What came of one row.
pub(crate) struct Measured {
    pub(crate) driven: Driven,
    cpu: Duration,
}

impl Measured {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.driven.response.count() as f64 / self.driven.time.as_secs_f64()
    }

    pub(crate) fn cpu_us_per_event(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.driven.response.count() as f64
    }
}

impl Load {
    pub(crate) fn run(&self, served: &Served) -> Result<Measured> {
        let target = Target {
            address: Address::Unix(served.socket()),
            speech: self.speech,
        };
        let exchange = Exchange::new(self.speech, &[request()])?;
        let driven = Drive {
            target: &target,
            exchanges: &[exchange],
            concurrency: self.connections * self.depth,
            connections: self.connections,
            pace: Pace::Closed,
            warm_up: self.warm_up,
            time: self.seconds,
            process: Some(served.process()),
        }
        .run(&|| {})?;
        let [before, after] = driven.spent.context("nobody looked at the process")?;
        Ok(Measured {
            cpu: after.cpu - before.cpu,
            driven,
        })
    }
}

/// What a browser asks a shop for.
fn request() -> Ask {
    let headers = [
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
        ("x-correlation-id", "c-00-000-0000000000"),
        ("x-forwarded-by", "zentinel"),
    ];
    Ask {
        name: "page".to_owned(),
        event: Event::RequestHeaders(RequestHead {
            method: "GET".to_owned(),
            uri: "/catalogue/shoes?page=2&sort=price".to_owned(),
            client_ip: "192.0.2.7:40312".to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..RequestHead::default()
        }),
    }
}
