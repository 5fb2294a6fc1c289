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
mod steady;
mod stop;
mod target;
mod warm;

pub use baseline::Baseline;
pub use cases::{BenchCase, of_inputs};
pub(crate) use comparison::{Comparison, Finding, Metric};
pub use harness::{Samples, sample};
pub(crate) use inputs::{InputSettings, Inputs, MAX_CASES, read_inputs};
pub(crate) use judge::{GateVerdict, Thresholds};
pub(crate) use machine::cores;
pub(crate) use module::bench;
pub(crate) use progress::Progress;
pub(crate) use report::{
    Advice, BenchReport, CaseReport, LoadPoint, MemoryReport, Phases, Profile, SafetyRow, Spread,
};
pub(crate) use session::Benched;
pub(crate) use settings::{Against, Amount, BenchSettings, BenchTask};
pub(crate) use target::{Running, bench_target};
