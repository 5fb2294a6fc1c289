//! Guards what a hook costs with an instance of its own, as hosts call it.
//!
//! Beside it stands `raw`: a new store with fuel, an instance, its exports
//! looked up, then alloc, write, call, read and dealloc by hand. Target, for the
//! Rust guest and for one that does nothing: a `before_hook` on a fresh instance
//! at most 1.30 times raw (`call`). The whole path, with the context written and
//! the result read, checked and applied, has none. What a fresh instance costs
//! beside a pooled one stands below it. For the ratios alone: `cargo bench --bench hook -- ratio`.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot start has nothing to report"
)]

mod support;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use serde_json::json;
use support::{Guest, RawModule, ratio};
use wasm_agent_kit::guest::EngineSettings;
use wasm_agent_kit::guest::Module;
use wasm_agent_kit::hook::{Hook, HookContext, HookUser};
use wasm_agent_kit::internals::guest::write_context as write_input;
use wasm_agent_kit::internals::guest::{Instance, RawAnswer};
use wasm_agent_kit::limits::Isolation;
use wasm_agent_kit::policy::PoolSettings;
use wasm_agent_kit::policy::{Policy, PolicySettings};

const TARGET: f64 = 1.30;

fn main() {
    let mut criterion = support::criterion();
    let mut all: Vec<Hooks> = [Guest::PassThrough, Guest::Account].map(Hooks::new).into();
    for hooks in &mut all {
        hooks.bench(&mut criterion);
    }
    criterion.final_summary();
    let flag = |flag: &str| std::env::args().any(|arg| arg == flag);
    // `cargo test` gives no `--bench`, and a profile is of one bench alone.
    if flag("--bench") && !flag("--test") && !flag("--list") && !flag("--profile-time") {
        all.iter_mut().for_each(Hooks::print_ratios);
    }
}

/// A guest and a context, called by us and by hand.
struct Hooks {
    name: &'static str,
    module: Arc<Module>,
    raw: RawModule,
    fresh: Policy,
    pooled: Policy,
    recycled: Policy,
    context: HookContext,
    input: Vec<u8>,
}

impl Hooks {
    fn new(guest: Guest) -> Self {
        let settings = EngineSettings {
            fuel: true,
            ..EngineSettings::default()
        };
        let module = guest.load(settings);
        let plugin = |isolation| {
            let pool = PoolSettings {
                isolation,
                limits: module.limits,
                ..PoolSettings::default()
            };
            Policy::new(
                Arc::clone(&module),
                PolicySettings {
                    pool,
                    ..PolicySettings::default()
                },
            )
        };
        let context = context();
        let mut input = Vec::new();
        write_input(&context, &mut input);
        let hooks = Self {
            name: guest.name(),
            fresh: plugin(Isolation::Fresh),
            pooled: plugin(Isolation::Pooled),
            recycled: plugin(Isolation::Recycle(100)),
            raw: guest.load_raw(settings),
            module,
            context,
            input,
        };
        // What answers differently would not be doing the same work.
        assert_eq!(hooks.ours(), hooks.raw());
        assert!(hooks.handle(&hooks.fresh));
        hooks
    }

    /// A fresh instance by hand; the length of its answer.
    fn raw(&self) -> usize {
        let mut guest = self.raw.guest_for(Hook::Before.name());
        guest.call(&self.input).len()
    }

    /// The same by our runner.
    fn ours(&self) -> usize {
        let mut instance = Instance::new(&self.module, self.module.limits).unwrap();
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&self.input);
        match instance.call(Hook::Before as usize, write).result.unwrap() {
            RawAnswer::Empty => 0,
            RawAnswer::Bytes(bytes) => bytes.len(),
        }
    }

    /// The whole path, with a context that the host gives away.
    fn handle(&self, plugin: &Policy) -> bool {
        let handled = plugin.hook(Hook::Before, self.context.clone());
        black_box(handled).result.ok
    }

    fn bench(&self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group(format!("hook/{}", self.name));
        group.throughput(Throughput::Bytes(self.input.len() as u64));
        group.bench_function("raw", |bencher| bencher.iter(|| self.raw()));
        group.bench_function("ours", |bencher| bencher.iter(|| self.ours()));
        for (name, plugin) in [
            ("path-fresh", &self.fresh),
            ("path-recycle-100", &self.recycled),
            ("path-pooled", &self.pooled),
        ] {
            group.bench_function(name, |bencher| bencher.iter(|| self.handle(plugin)));
        }
        group.finish();
    }

    fn print_ratios(&mut self) {
        let name = self.name;
        let raw = || {
            black_box(self.raw());
        };
        let ours = || {
            black_box(self.ours());
        };
        ratio(&format!("call/{name}"), Some(TARGET), raw, ours);
        for (way, plugin) in [
            ("fresh", &self.fresh),
            ("recycle", &self.recycled),
            ("pooled", &self.pooled),
        ] {
            let ours = || {
                black_box(self.handle(plugin));
            };
            ratio(&format!("path/{name}-{way}"), None, raw, ours);
        }
    }
}

/// A record as a form sends it.
fn context() -> HookContext {
    let input = json!({
        "name": "Ada Lovelace",
        "email": " Ada@Example.ORG ",
        "age": 36,
        "newsletter": false,
        "address": {"street": "St James's Square 12", "city": "London"},
    });
    let headers = [
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
        ("x-request-id", "01J9ZK5T3N8Q"),
    ];
    HookContext {
        input: input.as_object().unwrap().clone(),
        data: None,
        user: Some(HookUser {
            id: "user-123".to_owned(),
            role: "member".to_owned(),
        }),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        tenant_id: Some("acme".to_owned()),
    }
}
