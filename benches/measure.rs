//! Guards that what `bench` reads of a warm call is what it costs.
//!
//! Beside each stands `raw`: the same calls without a look at the clock in
//! between. Target: the mean that is read at most 1.05 times raw. What the
//! loop takes with its bookkeeping is shown as well. Then the built program's
//! closed loop with one caller stands beside raw: within a tenth. For the
//! ratios alone: `cargo bench --bench measure -- ratio`.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing to report"
)]

mod support;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::{Guest, Sample};
use wasm_agent_kit::event::Event;
use wasm_agent_kit::guest::EngineSettings;
use wasm_agent_kit::internals::ops::{BenchCase, Samples, of_inputs, sample};
use wasm_agent_kit::policy::{Policy, PolicySettings};
use wasm_agent_kit::question::HeaderNames;

const TARGET: f64 = 1.05;
/// Pairs of batches behind each ratio.
const PAIRS: usize = 200;
const BATCH_TIME: Duration = Duration::from_millis(2);
/// Runs of the program, each with raw before and after it.
const LOOPS: usize = 5;
const LOOP_TIME: Duration = Duration::from_millis(500);

fn main() {
    let mut criterion = support::criterion();
    for guest in [Guest::Allow, Guest::Rules] {
        let module = guest.load(EngineSettings::default());
        let agent = Policy::new(Arc::clone(&module), PolicySettings::default());
        let subject = Policy::new(module, PolicySettings::default());
        let small = Sample::small();
        let event = small.event.clone();
        let input = ("small".to_owned(), event.clone().into());
        let case = of_inputs([input], HeaderNames::Lower).remove(0);
        let mut group = criterion.benchmark_group(format!("measure/{}", guest.name()));
        group.bench_function("raw", |bencher| {
            bencher.iter(|| agent.handle(&event));
        });
        let mut samples = Samples::default();
        group.bench_function("bench", |bencher| {
            bencher.iter(|| sample(&subject, &case, 1, &mut samples).unwrap());
        });
        group.finish();
        let flag = |flag: &str| std::env::args().any(|arg| arg == flag);
        if flag("--bench") && !flag("--test") && !flag("--list") && !flag("--profile-time") {
            ratio(guest.name(), (&agent, &event), (&subject, &case));
            closed_loop(guest, &agent, &small);
        }
    }
    criterion.final_summary();
}

/// Prints the medians over batches of both by turns.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn ratio(name: &str, (agent, event): (&Policy, &Event), (subject, case): (&Policy, &BenchCase)) {
    let raw = |calls: u64| {
        let started = Instant::now();
        for _ in 0..calls {
            black_box(agent.handle(event));
        }
        started.elapsed()
    };
    let mut calls = 1;
    while raw(calls) < BATCH_TIME {
        calls *= 2;
    }
    let each = |time: Duration| time.as_secs_f64() * 1e9 / calls as f64;
    let mut measured: Vec<[f64; 3]> = (0..PAIRS)
        .map(|turn| {
            let ours = || {
                let mut samples = Samples::default();
                let started = Instant::now();
                sample(subject, case, calls, &mut samples).unwrap();
                (samples.response.mean(), started.elapsed())
            };
            // Neither is always the one that goes first.
            let (raw, (read, took)) = if turn % 2 == 0 {
                (raw(calls), ours())
            } else {
                let ours = ours();
                (raw(calls), ours)
            };
            let raw = each(raw);
            [read.as_secs_f64() * 1e9 / raw, each(took) / raw, raw]
        })
        .collect();
    let [read, took, raw] = [0, 1, 2].map(|column| {
        measured.sort_by(|a, b| a[column].total_cmp(&b[column]));
        measured[PAIRS / 2][column]
    });
    println!(
        "ratio measure/{name:<8} read {read:.3} (target {TARGET:.2}), with bookkeeping {took:.3}, of raw {:.2} µs",
        raw / 1e3
    );
}

/// Prints the median throughput of the program's closed loop by raw's.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn closed_loop(guest: Guest, agent: &Policy, sample: &Sample) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = folder.path().join("small.json");
    let input = std::str::from_utf8(&sample.input).unwrap();
    let text = format!(r#"{{"event":"request_headers","input":{input}}}"#);
    std::fs::write(&fixture, text).unwrap();
    let raw = || {
        let (started, mut calls) = (Instant::now(), 0_u32);
        while started.elapsed() < LOOP_TIME {
            for _ in 0..1000 {
                black_box(agent.handle(&sample.event));
            }
            calls += 1000;
        }
        f64::from(calls) / started.elapsed().as_secs_f64()
    };
    let program = || {
        let output = Command::new(env!("CARGO_BIN_EXE_wasm-agent"))
            .arg("bench")
            .args([&guest.path(), &fixture])
            .args(["--pool-size=1", "--concurrency=1", "--format=json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["loads"][0]["throughput"].as_f64().unwrap()
    };
    let mut before = raw();
    let mut measured: Vec<[f64; 2]> = (0..LOOPS)
        .map(|_| {
            let throughput = program();
            let after = raw();
            let raw = (std::mem::replace(&mut before, after) + after) / 2.0;
            [throughput / raw, throughput]
        })
        .collect();
    measured.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [ratio, throughput] = measured[LOOPS / 2];
    println!(
        "ratio loop/{:<8} {ratio:.3} (target 0.90 to 1.10), {throughput:.0} calls/s by one caller; {:.3} to {:.3} in {LOOPS} runs",
        guest.name(),
        measured[0][0],
        measured[LOOPS - 1][0],
    );
}
