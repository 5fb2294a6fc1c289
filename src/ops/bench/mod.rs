//! `bench`: what a module costs, how many instances it needs, and whether a
//! change made it worse.
//!
//! In: a module file, events and settings. Out: a [`BenchReport`]. Guests are
//! called through a [`Policy`](crate::policy::Policy) as in every command, on the
//! engine that `serve` would have; instructions are counted on a second one. A
//! guest that faults ends the benchmark and is its result: never a fast one.

mod advise;
mod baseline;
mod cases;
mod compare;
mod comparison;
mod exact;
mod harness;
mod inputs;
mod judge;
mod load;
mod machine;
mod module;
mod pairs;
mod phases;
mod profile;
mod progress;
mod report;
mod safety;
mod session;
mod settings;
mod stop;
mod target;
mod warm;

pub use advise::{Wish, advise};
pub use baseline::{Baseline, BaselineCase, BaselineModule};
pub use cases::{BenchCase, of_inputs};
pub use comparison::{Comparison, Finding, Metric};
pub use harness::{Samples, sample};
pub use inputs::{InputSettings, Inputs, MAX_CASES, read_inputs};
pub use judge::{BUSY, Estimate, GateVerdict, Pair, Rounds, Thresholds};
pub use machine::{Machine, cores};
pub use module::bench;
pub use progress::{Progress, Watcher};
pub use report::{
    Advice, BenchFailure, BenchReport, CaseFuel, CaseReport, Flags, FunctionTime, LoadPoint,
    MemoryReport, Phases, ProcessUse, Profile, SafetyRow, Sampled, Spread,
};
pub use session::Benched;
pub use settings::{Against, Amount, BenchSettings, BenchTask};
pub use target::{Running, bench_target};
