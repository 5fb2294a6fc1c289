//! What a replay makes of the core's own call rate, and of memory.
//!
//! The same inputs are called by the core alone, read and decoded beforehand, on
//! one thread and on all cores at once; then replayed from a capture by all
//! cores. Both go the whole way from the input to the judged answer, with the
//! same module on the same engine (instructions counted), limits and failure
//! policy. The core has one instance a thread and keeps nothing of what comes;
//! a replay reads, decodes, counts, compares with what was recorded, and makes
//! instances of its own for each lane. The share of all that is less beside a
//! slower module: a fast one in Rust and a slow one in AssemblyScript are
//! measured.
//! Targets: JSON Lines at least 85 % of one thread's rate times the cores, HAR at
//! least 50 %; two modules at most twice the time of one; a HAR of 2 GiB in at
//! most 256 MiB. All cores at once are no faster than the machine lets them be,
//! so the share of their own rate is printed too.
//!
//! `cargo bench --bench replay` prints the table; `-- memory` does the 2 GiB.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench that cannot start has nothing to report, and this one prints a table"
)]

mod support;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use support::Guest;
use wasm_agent_kit::guest::EngineSettings;
use wasm_agent_kit::guest::Module;
use wasm_agent_kit::internals::capture::{
    self, Capture, DEFAULT_MAX_RECORD_BYTES, DecodeSettings, Item, Transaction,
};
use wasm_agent_kit::internals::ops::{
    FailOn, Redaction, ReplayReport, ReplaySettings, Selection, Sinks, Subjects, Watch, replay,
};
use wasm_agent_kit::policy::{Policy, PolicySettings};

/// Transactions of the captures: so many that beginning is a small part.
const TRANSACTIONS: usize = 100_000;
/// Rounds of core and replay by turns; the median counts.
const ROUNDS: usize = 5;
const MEMORY_BYTES: u64 = 2 << 30;
const MEMORY_TARGET_KIB: u64 = 256 << 10;

fn main() {
    let flag = |flag: &str| std::env::args().any(|arg| arg == flag);
    // `cargo test` gives no `--bench`: then only that it runs is of interest.
    let full = flag("--bench") && !flag("--test");
    let folder = tempfile::tempdir().unwrap();
    if full && flag("memory") {
        memory(folder.path(), MEMORY_BYTES);
        return;
    }
    let (transactions, rounds) = if full {
        (TRANSACTIONS, ROUNDS)
    } else {
        (200, 1)
    };
    let har = folder.path().join("traffic.har");
    write_har(&har, |written, index| {
        index < transactions && written < u64::MAX
    });
    let jsonl = folder.path().join("traffic.jsonl");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{cores} cores, {transactions} transactions, {rounds} rounds");
    for guest in [Guest::Rules, Guest::AssemblyScript] {
        let module = guest.load(EngineSettings {
            fuel: true,
            ..EngineSettings::default()
        });
        let sinks = Sinks {
            records: Some(Box::new(BufWriter::new(File::create(&jsonl).unwrap()))),
            ..Sinks::default()
        };
        replayed(&module, None, &har, sinks);
        println!("{}:", guest.name());
        for (name, path, target) in [("jsonl", &jsonl, 0.85), ("har", &har, 0.50)] {
            measure(&module, (name, path, target), cores, rounds);
        }
    }
    if !full {
        memory(folder.path(), 8 << 20);
    }
}

fn measure(
    module: &Arc<Module>,
    (name, path, target): (&str, &Path, f64),
    cores: usize,
    rounds: usize,
) {
    let transactions = decoded(path);
    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        rates[0].push(core(module, &transactions, 1));
        rates[1].push(core(module, &transactions, cores));
        rates[2].push(replayed(module, None, path, Sinks::default()));
        rates[3].push(replayed(module, Some(module), path, Sinks::default()));
    }
    let [one, all, single, double] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let bytes = std::fs::metadata(path).unwrap().len() as f64;
    println!(
        "{name}: core {one:.0} calls/s on one thread, {all:.0} on {cores}; replay {single:.0} calls/s, {:.1} KiB a transaction",
        bytes / 1024.0 / transactions.len() as f64
    );
    println!(
        "{name}: {:.1} % of one thread's rate times {cores}, {:.1} % of all cores' own rate (target {:.0} %)",
        single * 100.0 / (one * cores as f64),
        single * 100.0 / all,
        target * 100.0
    );
    // Two modules make twice the calls: equal rates are twice the time.
    println!(
        "{name}: two modules take {:.2} times as long as one (target 2.00)",
        single / double * 2.0
    );
}

/// Calls a second of the core alone.
fn core(module: &Arc<Module>, transactions: &[Transaction<'_>], threads: usize) -> f64 {
    let calls = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let calls = &calls;
            std::thread::Builder::new()
                .spawn_scoped(scope, move || {
                    let agent = Policy::new(Arc::clone(module), PolicySettings::default());
                    let mut done = 0;
                    for transaction in transactions.iter().skip(thread).step_by(threads) {
                        for step in &transaction.steps {
                            let handled = agent.ask(&step.input);
                            done += u64::from(handled.cost.is_some());
                        }
                    }
                    calls.fetch_add(done, std::sync::atomic::Ordering::Relaxed);
                })
                .unwrap();
        }
    });
    calls.into_inner() as f64 / began.elapsed().as_secs_f64()
}

fn captures(path: &Path) -> Vec<Capture> {
    capture::discover(&[path.to_owned()]).unwrap().0
}

fn decoded(path: &Path) -> Vec<Transaction<'static>> {
    let read = Arc::new(AtomicU64::new(0));
    let opened = captures(path)[0]
        .open(None, DEFAULT_MAX_RECORD_BYTES, &read)
        .unwrap();
    opened
        .filter_map(|item| match item {
            Item::Transaction(mut frame) => {
                let decoded = capture::decode(&mut frame, &DecodeSettings::default());
                Some(decoded.transaction.unwrap().into_owned())
            }
            Item::Unusable(_) | Item::Skipped(_) => None,
        })
        .collect()
}

/// Calls a second of a replay, of both modules together.
fn replayed(
    module: &Arc<Module>,
    baseline: Option<&Arc<Module>>,
    path: &Path,
    sinks: Sinks,
) -> f64 {
    let agent = |module: &Arc<Module>| Policy::new(Arc::clone(module), PolicySettings::default());
    let (subject, baseline) = (agent(module), baseline.map(agent));
    let subjects = Subjects {
        module: &subject,
        baseline: baseline.as_ref(),
    };
    let settings = ReplaySettings {
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        format: None,
        max_record: DEFAULT_MAX_RECORD_BYTES,
        decode: DecodeSettings::default(),
        selection: Selection::default(),
        speed: None,
        timings: true,
        examples: 3,
        ignore: Vec::new(),
        minimize: false,
        fail_on: FailOn::Decision,
        strict: true,
        max_errors: None,
        fixtures: None,
        redaction: Redaction::RandomKey,
        allow_redacted_changes: false,
    };
    let began = Instant::now();
    let report: ReplayReport = replay(
        &subjects,
        &captures(path),
        &settings,
        (sinks, &Watch::default()),
    )
    .unwrap();
    let elapsed = began.elapsed().as_secs_f64();
    let other = report
        .baseline_outcomes
        .map_or(0, |outcomes| outcomes.calls);
    (report.outcomes.calls + other) as f64 / elapsed
}

/// Entries as Chromium records them: ten headers, a small page.
fn write_har(path: &Path, more: impl Fn(u64, usize) -> bool) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut written = 0;
    out.write_all(
        br#"{"log":{"version":"1.2","creator":{"name":"bench","version":"1"},"entries":["#,
    )
    .unwrap();
    let page = "<li>a line of the page, with some words in it</li>".repeat(20);
    let mut index = 0;
    while more(written, index) {
        let entry = format!(
            r#"{}{{"startedDateTime":"2026-01-01T00:00:00.000Z","time":12.5,"request":{{"method":"GET","url":"https://shop.example/items/{index}?page=2&sort=price","httpVersion":"HTTP/2.0","cookies":[],"headers":[{{"name":":authority","value":"shop.example"}},{{"name":"accept","value":"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}},{{"name":"accept-encoding","value":"gzip, deflate, br, zstd"}},{{"name":"accept-language","value":"en-GB,en;q=0.9,de;q=0.8"}},{{"name":"cookie","value":"session=5f2c9f3ad1{index}; theme=dark"}},{{"name":"referer","value":"https://shop.example/products"}},{{"name":"sec-fetch-mode","value":"navigate"}},{{"name":"upgrade-insecure-requests","value":"1"}},{{"name":"user-agent","value":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"}}],"queryString":[],"headersSize":-1,"bodySize":0}},"response":{{"status":200,"statusText":"","httpVersion":"HTTP/2.0","cookies":[],"headers":[{{"name":"content-type","value":"text/html; charset=utf-8"}},{{"name":"date","value":"Thu, 01 Jan 2026 00:00:00 GMT"}},{{"name":"server","value":"nginx"}}],"content":{{"size":1000,"mimeType":"text/html","text":"{page}"}},"redirectURL":"","headersSize":-1,"bodySize":-1}},"cache":{{}},"timings":{{"send":0.1,"wait":12,"receive":0.4}}}}"#,
            if index == 0 { "" } else { "," }
        );
        out.write_all(entry.as_bytes()).unwrap();
        written += entry.len() as u64;
        index += 1;
    }
    out.write_all(b"]}}").unwrap();
    out.flush().unwrap();
}

/// The peak of the built program on a large HAR.
fn memory(folder: &Path, bytes: u64) {
    let har = folder.join("large.har");
    write_har(&har, |written, _| written < bytes);
    let module =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/modules/rules/rules.wasm");
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wasm-agent"))
        .args(["replay", "--baseline"])
        .args([&module, &module, &har])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = loop {
        peak = peak.max(high_water_kib(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success());
    println!(
        "memory: {} MiB of HAR through two modules in {:.1} s, at most {} MiB resident (target {} MiB)",
        bytes >> 20,
        began.elapsed().as_secs_f64(),
        peak >> 10,
        MEMORY_TARGET_KIB >> 10
    );
    std::fs::remove_file(har).unwrap();
}

/// The kernel's own high-water mark.
fn high_water_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
