//! Guards what a fresh instance costs, and that a warm one costs next to
//! nothing.
//!
//! Beside each stands `raw`: a store and `InstancePre::instantiate`, nothing
//! else. There is no target: ours also looks up the exports and sets the
//! limits, and pays that once for each instance. As a guide, for the Rust guest
//! on a machine with two cores: 11 µs on demand or from slots (raw 7 and 8.5),
//! 40 µs with the first call, a lease of a warm instance below 0.3 µs.
//!
//! Each figure includes dropping the instance. `first-call` adds one call,
//! because that is where the page faults of a fresh memory are paid.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing to report"
)]

mod support;

use criterion::{Criterion, Throughput};
use support::{Guest, Sample};
use wasm_agent_kit::guest::{Allocation, EngineSettings};
use wasm_agent_kit::internals::guest::Instance;
use wasm_agent_kit::limits::{DEFAULT_MAX_MEMORY_BYTES, Isolation, Limits};
use wasm_agent_kit::policy::{Pool, PoolSettings};

fn main() {
    let mut criterion = support::criterion();
    let slots = Allocation::Slots {
        count: 4,
        memory_bytes: usize::try_from(DEFAULT_MAX_MEMORY_BYTES).unwrap(),
    };
    for (name, allocation) in [("on-demand", Allocation::OnDemand), ("slots", slots)] {
        let settings = EngineSettings {
            allocation,
            ..EngineSettings::default()
        };
        for guest in [Guest::Allow, Guest::Rules] {
            fresh(&mut criterion, name, guest, settings);
            first_call(&mut criterion, name, guest, settings);
        }
    }
    warm(&mut criterion);
    criterion.final_summary();
}

fn fresh(criterion: &mut Criterion, name: &str, guest: Guest, settings: EngineSettings) {
    let mut group = criterion.benchmark_group(format!("instantiate/{}-{name}", guest.name()));
    group.throughput(Throughput::Elements(1));
    let module = guest.load(settings);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| Instance::new(&module, Limits::default()).unwrap());
    });
    let module = guest.load_raw(settings);
    group.bench_function("raw", |bencher| bencher.iter(|| module.instantiate()));
    group.finish();
}

fn first_call(criterion: &mut Criterion, name: &str, guest: Guest, settings: EngineSettings) {
    let mut group = criterion.benchmark_group(format!("first-call/{}-{name}", guest.name()));
    group.throughput(Throughput::Elements(1));
    let sample = Sample::small();
    let pool = Pool::new(
        guest.load(settings),
        PoolSettings {
            isolation: Isolation::Fresh,
            ..PoolSettings::default()
        },
    );
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut lease = pool.lease().unwrap();
            let called = lease.call(sample.event.kind() as usize, |out| {
                out.extend_from_slice(&sample.input);
            });
            called.result.unwrap();
        });
    });
    let module = guest.load_raw(settings);
    group.bench_function("raw", |bencher| {
        bencher.iter(|| module.guest(&sample.event).call(&sample.input).len());
    });
    group.finish();
}

fn warm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lease/warm");
    group.throughput(Throughput::Elements(1));
    let module = Guest::Rules.load(EngineSettings::default());
    let pool = Pool::new(module, PoolSettings::default());
    group.bench_function("ours", |bencher| {
        bencher.iter(|| pool.lease().unwrap().calls());
    });
    group.finish();
}
