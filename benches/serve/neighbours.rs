//! What a call that never ends does to others: events by schedule and pings,
//! with a runaway always in flight and without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use wasm_agent_kit::internals::client::{
    AskError, Asker, Drive, Driven, ExchangeFrames, Pace, Peer, Protocol, Target,
};
use wasm_agent_kit::internals::latency::Latency;

use super::args::Args;
use super::process::Served;
use super::request::request;

/// Events a second, on so many connections.
const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 16;
/// From one ping to the next.
const PING_PAUSE: Duration = Duration::from_millis(3);

/// Allows, but for TRACE, which it never ends with.
const GUEST: &str = r#"(module
  (memory (export "memory") 2)
  (data (i32.const 1024) "{\"decision\":\"allow\"}")
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "on_request_headers") (param $ptr i32) (param i32) (result i64)
    ;; The first letter after {"method":"
    (if (i32.eq (i32.load8_u offset=11 (local.get $ptr)) (i32.const 84))
      (then (loop $for_ever (br $for_ever))))
    (i64.const 0x0000_0400_0000_0014)))"#;

pub(crate) fn measure(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let module = folder.path().join("neighbours.wat");
    std::fs::write(&module, GUEST)?;
    println!(
        "\n{RATE} events/s on {CONNECTIONS} connections, beside calls that run into a deadline of 100 ms"
    );
    println!(
        "{:<12} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "runaways", "ended", "p50 us", "p99 us", "p99.9", "max", "ping p50", "ping p99", "ping max"
    );
    for runaways in [0, 1, 2] {
        let served = Served::agent(args, &module, &["--timeout", "100ms"])?;
        let (driven, ended, pings) = beside(&served, runaways, args.seconds() * 3)?;
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |quantile| us(driven.response.at(quantile));
        println!(
            "{runaways:<12} {ended:>9} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>9.0} {:>9.0} {:>9.0}",
            at(0.5),
            at(0.99),
            at(0.999),
            us(driven.response.max()),
            us(pings.at(0.5)),
            us(pings.at(0.99)),
            us(pings.max()),
        );
    }
    Ok(())
}

/// Events and pings while so many runaways are in flight, which end so often.
fn beside(served: &Served, runaways: usize, time: Duration) -> Result<(Driven, u64, Latency)> {
    let target = served.target(Protocol::V2, Peer::Agent);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let runaways: Vec<_> = (0..runaways)
            .map(|_| scope.spawn(|| run_away(&target, &over)))
            .collect();
        let pings = scope.spawn(|| ping(&target, &over));
        let driven = Drive {
            target: &target,
            exchanges: &[ExchangeFrames::new(Protocol::V2, &[request("GET")])?],
            concurrency: CONNECTIONS,
            connections: CONNECTIONS,
            pace: Pace::Rate(RATE),
            warm_up: time / 10,
            time,
            events: None,
            process: None,
        }
        .run(&|| {});
        over.store(true, Ordering::Relaxed);
        let mut ended = 0;
        for runaway in runaways {
            let Ok(calls) = runaway.join() else {
                bail!("a runaway's thread panicked");
            };
            ended += calls?;
        }
        let Ok(pings) = pings.join() else {
            bail!("the pinging thread panicked");
        };
        Ok((driven?, ended, pings?))
    })
}

fn run_away(target: &Target, over: &AtomicBool) -> Result<u64> {
    let mut asker = Asker::connect(target)?;
    let exchange = ExchangeFrames::new(Protocol::V2, &[request("TRACE")])?;
    let mut ended = 0;
    while !over.load(Ordering::Relaxed) {
        match asker.ask(&exchange, |_, _| {}) {
            Err(AskError::Failed { reason, .. }) if reason.contains("deadline") => ended += 1,
            Err(error) => return Err(error.into()),
            Ok(()) => bail!("a call without an end ended"),
        }
    }
    Ok(ended)
}

fn ping(target: &Target, over: &AtomicBool) -> Result<Latency> {
    let mut asker = Asker::connect(target)?;
    let mut times = Latency::new();
    while !over.load(Ordering::Relaxed) {
        times.record(asker.ping()?);
        std::thread::sleep(PING_PAUSE);
    }
    Ok(times)
}
