//! The same load over gRPC, by the client that `bench --target` has. There is
//! no echo to stand beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use wasm_agent_kit::client::{
    Address, Ask, Drive, Driven, Exchange, Pace, Process, Speech, Target,
};
use wasm_agent_kit::event::{Event, RequestHead};

use super::args::Args;
use super::process::{PATIENT, Served};

pub(crate) fn measure(args: &Args, module: &Path, depth: usize) -> Result<()> {
    let mut best: Option<(f64, Driven)> = None;
    for _ in 0..args.rounds {
        let address = free_address()?;
        let served = Served::agent(args, module, &PATIENT, Some(address))?;
        let target = Target {
            address: Address::Grpc(address),
            speech: Speech::Grpc,
        };
        let driven = Drive {
            target: &target,
            exchanges: &[Exchange::new(Speech::Grpc, &[request("GET")])?],
            concurrency: args.connections * depth,
            connections: args.connections,
            pace: Pace::Closed,
            warm_up: args.warm_up(),
            time: args.seconds(),
            process: Some(Process(served.id())),
        }
        .run(&|| {})?;
        let cpu = driven.spent.map_or(Duration::ZERO, |[before, after]| {
            after.cpu.saturating_sub(before.cpu)
        });
        let cpu = cpu.as_secs_f64() * 1e6 / driven.response.count() as f64;
        if best.as_ref().is_none_or(|(least, _)| cpu < *least) {
            best = Some((cpu, driven));
        }
    }
    if let Some((cpu, driven)) = best {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let at = |quantile| driven.response.at(quantile).as_secs_f64() * 1e6;
        println!(
            "{name:<12} {:>2} {depth:>5} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {cpu:>9.2} {:>7}",
            "gr",
            driven.response.count() as f64 / driven.time.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
            driven.response.max().as_secs_f64() * 1e6,
            "",
        );
    }
    Ok(())
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The request that the Unix rows ask about, with this method.
pub(crate) fn request(method: &str) -> Ask {
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
        name: method.to_owned(),
        event: Event::RequestHeaders(RequestHead {
            method: method.to_owned(),
            uri: "/catalogue/shoes?page=2&sort=price".to_owned(),
            client_ip: "192.0.2.7".to_owned(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ..RequestHead::default()
        }),
    }
}
