//! What the benches share: guests, events, and the raw wasmtime loop that our
//! calls are measured beside.

#![allow(dead_code, reason = "each bench uses its own part of this")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use wasm_agent_kit::abi::handler_name;
use wasm_agent_kit::event::{BodyChunk, Event, RequestHead};
use wasm_agent_kit::guest::{Engine, EngineSettings};
use wasm_agent_kit::guest::{LoadSettings, Module};
use wasm_agent_kit::internals::guest::config;
use wasm_agent_kit::internals::guest::write_input;
use wasm_agent_kit::question::HeaderNames;
use wasmtime::{InstancePre, Linker, Memory, Store, TypedFunc};

/// Pairs of batches behind each ratio.
const PAIRS: usize = 200;
const BATCH_TIME: Duration = Duration::from_millis(1);
/// Of the `large` and `body` inputs, in bytes of JSON and of body.
const LARGE_BYTES: usize = 8 << 10;

/// What Chromium sends beside the four headers of the fixture.
const BROWSER_HEADERS: [(&str, &str); 6] = [
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cache-control", "max-age=0"),
    ("referer", "https://shop.example.org/products?sort=price"),
    ("upgrade-insecure-requests", "1"),
    (COOKIE, "session=5f2c9f3ad1; theme=dark; consent=all"),
];
const COOKIE: &str = "cookie";

/// The guests, by their names in group names.
#[derive(Clone, Copy)]
pub(crate) enum Guest {
    /// Does nothing, so what is left is the call itself.
    Allow,
    /// Parses its input and serialises an answer, as real ones do.
    Rules,
    /// The shipped policy in AssemblyScript, which takes its time.
    AssemblyScript,
    /// The same for the hook ABI.
    Account,
    /// A hook that does nothing.
    PassThrough,
}

impl Guest {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Rules => "rules",
            Self::AssemblyScript => "assemblyscript",
            Self::Account => "account",
            Self::PassThrough => "pass-through",
        }
    }

    pub(crate) fn path(self) -> PathBuf {
        fixture(match self {
            Self::Allow => "modules/right/allow.wat",
            Self::Rules => "modules/rules/rules.wasm",
            Self::AssemblyScript => "modules/assemblyscript/policy.wasm",
            Self::Account => "modules/account/account.wasm",
            Self::PassThrough => "modules/hooks/pass-through.wat",
        })
    }

    /// Loaded the way every command loads.
    pub(crate) fn load(self, settings: EngineSettings) -> Arc<Module> {
        let engine = Engine::new(settings).unwrap();
        Arc::new(Module::load(&engine, &self.path(), &LoadSettings::default()).unwrap())
    }

    /// Compiled by hand, by an engine with the same configuration.
    pub(crate) fn load_raw(self, settings: EngineSettings) -> RawModule {
        let engine = wasmtime::Engine::new(&config(settings)).unwrap();
        let wasm = wat::parse_file(self.path()).unwrap();
        let module = wasmtime::Module::from_binary(&engine, &wasm).unwrap();
        RawModule {
            pre: Linker::new(&engine).instantiate_pre(&module).unwrap(),
            fuel: settings.fuel,
        }
    }
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(path)
}

/// An event and its input JSON.
pub(crate) struct Sample {
    /// As in group names.
    pub(crate) name: &'static str,
    pub(crate) event: Event,
    pub(crate) input: Vec<u8>,
}

impl Sample {
    fn new(name: &'static str, event: Event) -> Self {
        let mut input = Vec::new();
        write_input(&event, HeaderNames::Lower, &mut input);
        Self { name, event, input }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.input.len() as u64
    }

    /// Ten headers, as a browser sends them.
    pub(crate) fn small() -> Self {
        Self::new("small", Event::RequestHeaders(request()))
    }

    /// The same with a cookie that makes it 8 KiB.
    pub(crate) fn large() -> Self {
        let mut head = request();
        let missing = LARGE_BYTES - Self::small().input.len();
        let filler: String = "; preference=eyJsYXlvdXQiOiJncmlkIn0"
            .chars()
            .cycle()
            .take(missing)
            .collect();
        let longer = |(name, value): (&str, &str)| match name {
            COOKIE => (name.to_owned(), format!("{value}{filler}")),
            _ => (name.to_owned(), value.to_owned()),
        };
        head.headers = head.headers.iter().map(longer).collect();
        Self::new("large", Event::RequestHeaders(head))
    }

    /// A chunk of 8 KiB of JSON, of which many characters need an escape.
    pub(crate) fn body() -> Self {
        let text = read("events/bodies/request-json.json");
        let text = text["input"]["data"].as_str().unwrap();
        let data: Vec<u8> = text.bytes().cycle().take(LARGE_BYTES).collect();
        Self::new(
            "body",
            Event::RequestBody {
                chunk: BodyChunk {
                    correlation_id: "bench-1".to_owned(),
                    is_last: true,
                    total_size: Some(data.len() as u64),
                    transferred_bytes: data.len() as u64,
                    data,
                    ..BodyChunk::default()
                },
                request: Some(Arc::new(request())),
            },
        )
    }
}

fn request() -> RequestHead {
    let fixture = read("events/requests/allow-page.json");
    let input = &fixture["input"];
    let text = |key: &str| input[key].as_str().unwrap().to_owned();
    let shipped = input["headers"].as_object().unwrap();
    RequestHead {
        correlation_id: "bench-1".to_owned(),
        method: text("method"),
        uri: text("uri"),
        client_ip: text("client_ip"),
        headers: shipped
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .chain(BROWSER_HEADERS)
            .collect(),
    }
}

fn read(path: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

/// A module without any of our code around it.
pub(crate) struct RawModule {
    pre: InstancePre<()>,
    fuel: bool,
}

impl RawModule {
    /// The least that instantiating takes with this configuration.
    pub(crate) fn instantiate(&self) -> (Store<()>, wasmtime::Instance) {
        let mut store = Store::new(self.pre.module().engine(), ());
        // Far away: nothing advances this engine's epoch.
        store.set_epoch_deadline(u64::MAX / 2);
        if self.fuel {
            store.set_fuel(u64::MAX).unwrap();
        }
        let instance = self.pre.instantiate(&mut store).unwrap();
        (store, instance)
    }

    /// An instance with its exports looked up, for events of this kind.
    pub(crate) fn guest(&self, event: &Event) -> RawGuest {
        self.guest_for(handler_name(event.kind()))
    }

    /// The same for a handler by its name.
    pub(crate) fn guest_for(&self, handler: &str) -> RawGuest {
        let (mut store, instance) = self.instantiate();
        RawGuest {
            memory: instance.get_memory(&mut store, "memory").unwrap(),
            alloc: instance.get_typed_func(&mut store, "alloc").unwrap(),
            dealloc: instance.get_typed_func(&mut store, "dealloc").unwrap(),
            handler: instance.get_typed_func(&mut store, handler).unwrap(),
            answer: Vec::new(),
            store,
        }
    }
}

/// The loop that people write by hand: no limits, no checks beyond wasmtime's.
pub(crate) struct RawGuest {
    store: Store<()>,
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    dealloc: TypedFunc<(i32, i32), ()>,
    handler: TypedFunc<(i32, i32), i64>,
    answer: Vec<u8>,
}

impl RawGuest {
    /// Alloc, write, call, read, dealloc.
    pub(crate) fn call(&mut self, input: &[u8]) -> &[u8] {
        let len = i32::try_from(input.len()).unwrap();
        let ptr = self.alloc.call(&mut self.store, len).unwrap();
        let at = usize::try_from(ptr.cast_unsigned()).unwrap();
        self.memory.write(&mut self.store, at, input).unwrap();
        let packed = self.handler.call(&mut self.store, (ptr, len)).unwrap();
        let [answer_len, answer_ptr] = [packed, packed >> 32]
            .map(|half| u32::try_from(half.cast_unsigned() & 0xffff_ffff).unwrap());
        let at = usize::try_from(answer_ptr).unwrap();
        let end = at + usize::try_from(answer_len).unwrap();
        self.answer.clear();
        self.answer
            .extend_from_slice(&self.memory.data(&self.store)[at..end]);
        self.dealloc.call(&mut self.store, (ptr, len)).unwrap();
        let answer = (answer_ptr.cast_signed(), answer_len.cast_signed());
        self.dealloc.call(&mut self.store, answer).unwrap();
        &self.answer
    }
}

/// Criterion, set to be done in a few minutes.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Prints the median of ours by raw, over batches of both by turns.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn ratio(
    name: &str,
    target: Option<f64>,
    mut raw: impl FnMut(),
    mut ours: impl FnMut(),
) {
    let mut calls = 1;
    while time(calls, &mut raw) < BATCH_TIME {
        calls *= 2;
    }
    let mut measured: Vec<[f64; 3]> = (0..PAIRS)
        .map(|turn| {
            // Neither is always the one that goes first.
            let (raw, ours) = if turn % 2 == 0 {
                let raw = time(calls, &mut raw);
                (raw, time(calls, &mut ours))
            } else {
                let ours = time(calls, &mut ours);
                (time(calls, &mut raw), ours)
            };
            let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(calls);
            [
                ours.as_secs_f64() / raw.as_secs_f64(),
                each(ours),
                each(raw),
            ]
        })
        .collect();
    let [ratio, ours, raw] = [0, 1, 2].map(|column| {
        measured.sort_by(|a, b| a[column].total_cmp(&b[column]));
        measured[PAIRS / 2][column]
    });
    let target = target.map_or_else(String::new, |target| format!(" (target {target:.2})"));
    println!("ratio {name:<24} {ratio:>6.2}  {ours:>7.2} µs by raw {raw:>7.2} µs{target}");
}

fn time(calls: u32, mut work: impl FnMut()) -> Duration {
    let started = Instant::now();
    for _ in 0..calls {
        work();
    }
    started.elapsed()
}
