//! Guards what our limits and checks add to a guest call.
//!
//! Beside each stands `raw`, the loop people write by hand: alloc, write, call,
//! read, dealloc. Targets, for the Rust guest: our call at most 1.10 times raw;
//! the whole path, from an event to an agent response with JSON both ways, at
//! most 1.6 times raw. The trivial guest shows what we add in nanoseconds.
//!
//! A machine's speed drifts between two benches, so the ratios are measured
//! once more at the end, in batches of raw and ours by turns. For those alone:
//! `cargo bench --bench call -- ratio`.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing to report"
)]

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use support::{Guest, RawGuest, Sample, ratio};
use wasm_agent_kit::guest::EngineSettings;
use wasm_agent_kit::internals::guest::check_answer;
use wasm_agent_kit::internals::guest::write_input;
use wasm_agent_kit::internals::guest::{Instance, RawAnswer};
use wasm_agent_kit::limits::{Isolation, Limits};
use wasm_agent_kit::policy::AnswerPolicy;
use wasm_agent_kit::policy::{Policy, PolicySettings};
use wasm_agent_kit::policy::{Pool, PoolSettings};
use wasm_agent_kit::question::HeaderNames;

const CALL_TARGET: f64 = 1.10;
const PATH_TARGET: f64 = 1.60;

fn main() {
    let mut criterion = support::criterion();
    let mut pairs = Pair::all();
    for pair in &mut pairs {
        pair.bench(&mut criterion);
    }
    for sample in [Sample::small(), Sample::large(), Sample::body()] {
        input(&mut criterion, &sample);
    }
    answer(&mut criterion);
    criterion.final_summary();
    let flag = |flag: &str| std::env::args().any(|arg| arg == flag);
    // `cargo test` gives no `--bench`, and a profile is of one bench alone.
    if flag("--bench") && !flag("--test") && !flag("--list") && !flag("--profile-time") {
        pairs.iter_mut().for_each(Pair::print_ratios);
    }
}

/// A guest and an input, called by us and by hand.
struct Pair {
    name: String,
    guest: Guest,
    sample: Sample,
    instance: Instance,
    pool: Pool,
    agent: Policy,
    raw: RawGuest,
}

impl Pair {
    fn all() -> Vec<Self> {
        let plain = EngineSettings::default();
        let fuel = EngineSettings {
            fuel: true,
            ..plain
        };
        vec![
            Self::new(Guest::Allow, Sample::small(), plain),
            Self::new(Guest::Allow, Sample::large(), plain),
            Self::new(Guest::Rules, Sample::small(), plain),
            Self::new(Guest::Rules, Sample::large(), plain),
            Self::new(Guest::Rules, Sample::body(), plain),
            Self::new(Guest::Rules, Sample::small(), fuel),
        ]
    }

    fn new(guest: Guest, sample: Sample, settings: EngineSettings) -> Self {
        let module = guest.load(settings);
        let limits = Limits {
            fuel: settings.fuel.then_some(u64::MAX),
            ..Limits::default()
        };
        let pool = PoolSettings {
            isolation: Isolation::Pooled,
            limits,
            ..PoolSettings::default()
        };
        let fuel = if settings.fuel { "-fuel" } else { "" };
        let mut pair = Self {
            name: format!("{}-{}{fuel}", guest.name(), sample.name),
            guest,
            instance: Instance::new(&module, limits).unwrap(),
            pool: Pool::new(module.clone(), pool),
            agent: Policy::new(
                module,
                PolicySettings {
                    pool,
                    ..PolicySettings::default()
                },
            ),
            raw: guest.load_raw(settings).guest(&sample.event),
            sample,
        };
        // What answers differently would not be doing the same work.
        let answer = pair.raw.call(&pair.sample.input).to_vec();
        assert!(call(&mut pair.instance, &pair.sample) == answer.len());
        assert_eq!(pair.instance.last_answer(), answer);
        assert_eq!(pair.agent.handle(&pair.sample.event).fault, None);
        pair
    }

    fn bench(&mut self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(format!("call/{}", self.name));
        group.throughput(Throughput::Bytes(self.sample.bytes()));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| call(&mut self.instance, &self.sample));
        });
        group.bench_function("leased", |bencher| {
            bencher.iter(|| call(&mut self.pool.lease().unwrap(), &self.sample));
        });
        group.bench_function("raw", |bencher| {
            bencher.iter(|| self.raw.call(&self.sample.input).len());
        });
        group.finish();
        let mut group = criterion.benchmark_group(format!("path/{}", self.name));
        group.throughput(Throughput::Elements(1));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| self.agent.handle(&self.sample.event));
        });
        group.bench_function("raw", |bencher| {
            bencher.iter(|| self.raw.call(&self.sample.input).len());
        });
        group.finish();
    }

    fn print_ratios(&mut self) {
        let Self {
            name,
            guest,
            sample,
            instance,
            agent,
            raw,
            ..
        } = self;
        let mut raw = || {
            black_box(raw.call(&sample.input));
        };
        let ours = || {
            black_box(call(instance, sample));
        };
        let targets = match guest {
            Guest::Allow => (None, None),
            _ => (Some(CALL_TARGET), Some(PATH_TARGET)),
        };
        ratio(&format!("call/{name}"), targets.0, &mut raw, ours);
        let ours = || {
            black_box(agent.handle(&sample.event));
        };
        ratio(&format!("path/{name}"), targets.1, &mut raw, ours);
    }
}

fn call(instance: &mut Instance, sample: &Sample) -> usize {
    let called = instance.call(sample.event.kind() as usize, |out| {
        out.extend_from_slice(&sample.input);
    });
    match called.result.unwrap() {
        RawAnswer::Empty => 0,
        RawAnswer::Bytes(bytes) => bytes.len(),
    }
}

fn input(criterion: &mut Criterion, sample: &Sample) {
    let mut group = criterion.benchmark_group(format!("input/{}", sample.name));
    group.throughput(Throughput::Bytes(sample.bytes()));
    let mut out = Vec::new();
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_input(&sample.event, HeaderNames::Lower, &mut out);
            out.len()
        });
    });
    group.finish();
}

/// The least answer there is, and what the Rust guest says to the small input.
fn answer(criterion: &mut Criterion) {
    for guest in [Guest::Allow, Guest::Rules] {
        let sample = Sample::small();
        let mut raw = guest
            .load_raw(EngineSettings::default())
            .guest(&sample.event);
        let bytes = raw.call(&sample.input);
        let mut group = criterion.benchmark_group(format!("answer/{}", guest.name()));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let policy = AnswerPolicy::default();
        group.bench_function("ours", |bencher| {
            bencher.iter(|| check_answer(bytes, sample.event.kind(), None, &policy).unwrap());
        });
        group.finish();
    }
}
