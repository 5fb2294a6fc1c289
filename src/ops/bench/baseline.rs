//! A baseline: what a module cost once, on which machine, and by what settings.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::judge::{Rounds, Timings};
use super::machine::Machine;
use super::report::{BenchReport, Flags, MemoryReport};
use crate::error::Error;
use crate::files::{self, Accept, Links};
use crate::guest::engine;
use crate::ops::module_info::ModuleInfo;

const SCHEMA: &str = "wasm-agent/baseline/1";
/// Bytes of a baseline; a hundred cases take about one MiB.
const MAX_BYTES: u64 = 64 << 20;

/// What is kept of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Baseline {
    /// Name and version of this shape.
    pub schema: String,
    /// The version that wrote it.
    pub tool_version: String,
    /// Where times were taken.
    pub machine: Machine,
    /// The engine; another may count instructions otherwise.
    pub engine: String,
    /// How the module was called, as flags.
    pub settings: BTreeMap<String, String>,
    /// The module, where it was one.
    pub module: Option<BaselineModule>,
    /// The share of the time that others had the processor.
    pub busy: Option<f64>,
    /// Each event.
    pub cases: Vec<BaselineCase>,
}

/// The module of a baseline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaselineModule {
    /// Its file.
    pub path: String,
    /// `sha256:` and its hash.
    pub hash: String,
    /// Bytes of the binary.
    pub size_bytes: u64,
    /// The most linear memory it had, in bytes.
    pub peak_bytes: u64,
    /// What each call kept, in bytes.
    pub growth_bytes: u64,
}

/// One event of a baseline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BaselineCase {
    /// The fixture's name.
    pub name: String,
    /// `sha256:` and the hash of what the guest got.
    pub input_hash: String,
    /// Instructions of the first call and of a warm one.
    pub fuel: Option<[u64; 2]>,
    /// Times beside the reference's.
    pub rounds: Rounds,
}

impl BaselineModule {
    pub(super) fn of(module: &ModuleInfo, memory: &MemoryReport) -> Self {
        Self {
            path: module.path.clone(),
            hash: module.hash.clone(),
            size_bytes: module.size_bytes,
            peak_bytes: memory.peak_bytes,
            growth_bytes: memory.growth_bytes(),
        }
    }

    /// The module of a report, where it was one.
    pub(super) fn of_report(report: &BenchReport) -> Option<Self> {
        let module = report.module.as_ref().zip(report.memory.as_ref());
        module.map(|(module, memory)| Self::of(module, memory))
    }
}

impl Baseline {
    /// What is to be kept of a report.
    pub(super) fn of(report: &BenchReport, flags: &Flags, timings: Timings) -> Self {
        let cases = report
            .cases
            .iter()
            .zip(timings.rounds)
            .map(|(case, rounds)| BaselineCase {
                name: case.name.clone(),
                input_hash: case.input_hash.clone(),
                fuel: case.fuel.map(|fuel| [fuel.first, fuel.warm]),
                rounds,
            });
        Self {
            schema: SCHEMA.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: report.machine.clone(),
            engine: engine::version().to_owned(),
            settings: flags
                .iter()
                .map(|(flag, value)| ((*flag).to_owned(), value.clone()))
                .collect(),
            module: BaselineModule::of_report(report),
            busy: timings.busy,
            cases: cases.collect(),
        }
    }

    /// Reads what [`Baseline::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Malformed`] with the place.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let malformed = |message| Error::Malformed {
            path: path.to_owned(),
            message,
        };
        let bytes = files::read(path, Accept::Stream, ("a baseline", MAX_BYTES))?;
        Self::parse(&bytes).map_err(malformed)
    }

    /// Reads the bytes of a baseline.
    ///
    /// # Errors
    /// What was expected, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Named {
            schema: String,
        }
        let fix = "write one with --save";
        let problem = |error: serde_json::Error| format!("not a baseline: {error}; {fix}");
        let named: Named = serde_json::from_slice(bytes).map_err(problem)?;
        if named.schema != SCHEMA {
            let found = crate::fault::printable(&named.schema, 60);
            return Err(format!("expected schema {SCHEMA}, found {found:?}; {fix}"));
        }
        let baseline: Self = serde_json::from_slice(bytes).map_err(problem)?;
        let is_time = |time: f64| time.is_finite() && time > 0.0;
        let all = baseline
            .cases
            .iter()
            .flat_map(|case| &case.rounds)
            .flatten();
        if !all
            .into_iter()
            .all(|pair| is_time(pair.before) && is_time(pair.after))
        {
            return Err(format!("expected times above 0 in cases[].rounds; {fix}"));
        }
        Ok(baseline)
    }

    /// Writes it, whole or not at all; a link is followed.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        files::write(path, Links::Followed, &text)
    }
}
