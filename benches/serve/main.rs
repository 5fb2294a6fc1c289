//! Load on the built agent: on its Unix socket beside a bare echo of the same
//! frames in the same run, and over gRPC. Then what a runaway does to others.
//!
//! `cargo bench --bench serve -- --seconds 5`. The load is the library's, as
//! `bench --target` has it: each connection keeps its depth of events in
//! flight, in v1 too, where no proxy sends ahead of an answer, to see what the
//! frames cost. What holds on a noisy machine is the CPU time of the served
//! process for each event; the rest depends on what else runs. An answer that
//! says the agent failed ends the run.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

mod args;
mod echo;
mod neighbours;
mod process;
mod request;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use wasm_agent_kit::internals::client::{
    Drive, Driven, ExchangeFrames, Pace, Peer, Process, Protocol,
};

use args::Args;
use process::{PATIENT, Served};
use request::request;

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(socket) = &args.echo {
        return echo::serve(socket);
    }
    if args.neighbours {
        return neighbours::measure(&args);
    }
    let frame_bytes = |protocol| -> Result<usize> {
        Ok(ExchangeFrames::new(protocol, &[request("GET")])?.frame_bytes())
    };
    println!(
        "{} connections, best of {} rounds of {:?}, pool of {}, frames of {} (v1), {} (v2) and {} (gRPC) bytes",
        args.connections,
        args.rounds,
        args.seconds(),
        args.pool_size,
        frame_bytes(Protocol::V1)?,
        frame_bytes(Protocol::V2)?,
        frame_bytes(Protocol::Grpc)?,
    );
    println!(
        "{:<12} {:>2} {:>5} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "served",
        "",
        "depth",
        "events/s",
        "p50 us",
        "p99 us",
        "p99.9",
        "max",
        "CPU us/ev",
        "x echo"
    );
    for protocol in [Protocol::V1, Protocol::V2, Protocol::Grpc] {
        for &depth in &args.depths {
            Rows { protocol, depth }.measure(&args)?;
        }
    }
    neighbours::measure(&args)
}

/// One row for the echo, where there is one, and one for each module.
struct Rows {
    protocol: Protocol,
    depth: usize,
}

/// What came of one row.
struct Measured {
    driven: Driven,
    cpu_us_per_event: f64,
}

impl Rows {
    /// Of all rounds the one counts that took the least CPU time, which the
    /// rest of the machine disturbed least.
    fn measure(&self, args: &Args) -> Result<()> {
        let modules = args.modules();
        let echo = (self.protocol != Protocol::Grpc).then_some(None);
        let servers: Vec<Option<&Path>> = echo
            .into_iter()
            .chain(modules.iter().map(|module| Some(module.as_path())))
            .collect();
        let mut best: Vec<Option<Measured>> = servers.iter().map(|_| None).collect();
        for _ in 0..args.rounds {
            for (best, module) in best.iter_mut().zip(&servers) {
                let measured = self.round(args, *module)?;
                if best
                    .as_ref()
                    .is_none_or(|best| measured.cpu_us_per_event < best.cpu_us_per_event)
                {
                    *best = Some(measured);
                }
            }
        }
        let mut echo = None;
        for (measured, module) in best.iter().flatten().zip(servers) {
            let name = module.map_or("echo".into(), |module| {
                module.file_name().unwrap_or_default().to_string_lossy()
            });
            if module.is_none() {
                echo = Some(measured.cpu_us_per_event);
            }
            self.print(&name, measured, echo);
        }
        Ok(())
    }

    fn round(&self, args: &Args, module: Option<&Path>) -> Result<Measured> {
        let served = match module {
            None => Served::echo()?,
            Some(module) => Served::agent(args, module, &PATIENT)?,
        };
        let peer = module.map_or(Peer::Echo, |_| Peer::Agent);
        let driven = Drive {
            target: &served.target(self.protocol, peer),
            exchanges: &[ExchangeFrames::new(self.protocol, &[request("GET")])?],
            concurrency: args.connections * self.depth,
            connections: args.connections,
            pace: Pace::Closed,
            warm_up: args.warm_up(),
            time: args.seconds(),
            events: None,
            process: Some(Process(served.id())),
        }
        .run(&|| {})?;
        let [before, after] = driven.spent.context("no process was looked at")?;
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
        Ok(Measured {
            cpu_us_per_event: cpu / driven.response.count() as f64,
            driven,
        })
    }

    fn print(&self, name: &str, measured: &Measured, echo: Option<f64>) {
        let response = &measured.driven.response;
        let at = |quantile| response.at(quantile).as_secs_f64() * 1e6;
        let cpu = measured.cpu_us_per_event;
        println!(
            "{name:<12} {:>2} {:>5} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {cpu:>9.2} {:>7}",
            match self.protocol {
                Protocol::Grpc => "gr",
                other => other.name(),
            },
            self.depth,
            response.count() as f64 / measured.driven.time.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
            response.max().as_secs_f64() * 1e6,
            echo.map_or_else(String::new, |echo| format!("{:.2}", cpu / echo)),
        );
    }
}
