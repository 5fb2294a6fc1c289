//! Load on the built agent: on its Unix socket beside a bare echo of the same
//! frames in the same run, and over gRPC. Then what a runaway does to others.
//!
//! `cargo bench --bench serve -- --seconds 5`. Closed loop: each connection
//! keeps its depth of events in flight. What holds on a noisy machine is the
//! CPU time of the served process for each event; the rest depends on what
//! else runs. Sent = answered = allowed, or the run fails.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

mod args;
mod echo;
mod frames;
mod grpc;
mod load;
mod neighbours;
mod process;

use anyhow::Result;
use clap::Parser as _;

use args::{Args, Protocol};
use load::{Load, Measured};
use process::{PATIENT, Served};

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(socket) = &args.echo {
        return echo::serve(socket);
    }
    if args.neighbours {
        return neighbours::measure(&args);
    }
    println!(
        "{} connections, best of {} rounds of {:?}, pool of {}, frames of {} (v1) and {} (v2) bytes",
        args.connections,
        args.rounds,
        args.seconds(),
        args.pool_size,
        frames::Template::new(Protocol::V1).len(),
        frames::Template::new(Protocol::V2).len(),
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
    for protocol in [Protocol::V1, Protocol::V2] {
        for &depth in &args.depths {
            let load = Load {
                protocol,
                depth,
                connections: args.connections,
                warm_up: args.warm_up(),
                seconds: args.seconds(),
            };
            measure(&args, &load)?;
        }
    }
    for &depth in &args.depths {
        for module in args.modules() {
            grpc::measure(&args, &module, depth)?;
        }
    }
    neighbours::measure(&args)
}

/// One row for the echo and one for each module: of all rounds the one that
/// took the least CPU time, which the rest of the machine disturbed least.
fn measure(args: &Args, load: &Load) -> Result<()> {
    let modules = args.modules();
    let mut best: Vec<Option<Measured>> = Vec::new();
    best.resize_with(modules.len() + 1, || None);
    for _ in 0..args.rounds {
        let servers = std::iter::once(None).chain(modules.iter().map(Some));
        for (best, module) in best.iter_mut().zip(servers) {
            let served = module.map_or_else(Served::echo, |module| {
                Served::agent(args, module, &PATIENT, None)
            })?;
            let measured = load.run(&served)?;
            let cpu = measured.cpu_us_per_event();
            if best
                .as_ref()
                .is_none_or(|best| cpu < best.cpu_us_per_event())
            {
                *best = Some(measured);
            }
        }
    }
    let mut rows = best.iter().flatten();
    let Some(echo) = rows.next() else {
        return Ok(());
    };
    print("echo", load, echo, echo);
    for (measured, module) in rows.zip(&modules) {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        print(&name, load, measured, echo);
    }
    Ok(())
}

fn print(name: &str, load: &Load, measured: &Measured, echo: &Measured) {
    let at = |quantile| measured.latencies_ns.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{name:<12} {:>2} {:>5} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>9.2} {:>7.2}",
        load.protocol.name(),
        load.depth,
        measured.events_per_second(),
        at(0.5),
        at(0.99),
        at(0.999),
        measured.latencies_ns.max() as f64 / 1e3,
        measured.cpu_us_per_event(),
        measured.cpu_us_per_event() / echo.cpu_us_per_event(),
    );
}
