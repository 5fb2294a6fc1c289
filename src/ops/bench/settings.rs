//! What a benchmark is told: what to measure, for how long, and what to
//! compare it with.

use std::path::PathBuf;
use std::time::Duration;

use super::baseline::Baseline;
use super::judge::Thresholds;
use super::progress::Watcher;
use crate::client::Pace;
use crate::guest::module::LoadSettings;
use crate::policy::PolicySettings;
use crate::policy::pool::PoolSettings;

/// How long each row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// For so long.
    Time(Duration),
    /// So many calls.
    Calls(u64),
}

impl Amount {
    /// What one of so many turns has to do, if anything.
    pub(super) fn of_turn(self, turn: u32, turns: u32) -> Option<Self> {
        match self {
            Self::Time(time) => Some(Self::Time(time / turns)),
            Self::Calls(calls) => {
                let calls = share(calls, turn.into(), turns.into());
                (calls > 0).then_some(Self::Calls(calls))
            }
        }
    }

    /// How long a row takes, where that was given.
    pub(super) const fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Calls(_) => None,
        }
    }

    /// The same, or an estimate.
    pub(super) fn row_time(self) -> Duration {
        self.time().unwrap_or(Duration::from_millis(100))
    }
}

/// The calls of one part, where so many calls are shared among so many parts.
pub(super) fn share(calls: u64, part: u64, parts: u64) -> u64 {
    calls / parts + u64::from(part < calls % parts)
}

/// A time that is taken so often.
pub(super) fn repeated(time: Duration, times: usize) -> Duration {
    time.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
}

/// One part of a time that so many share.
pub(super) fn part(time: Duration, parts: usize) -> Duration {
    time / u32::try_from(parts).unwrap_or(u32::MAX).max(1)
}

/// What is measured, and how.
#[derive(Debug, Clone)]
pub(crate) struct BenchSettings {
    /// Bounds of the file, limits of a call, the ABI asked for.
    pub load: LoadSettings,
    /// How a module is called, an agent module with this pool; its size and wait
    /// are not used.
    pub policy: PolicySettings,
    /// The pool of a hook module, likewise.
    pub hook_pool: PoolSettings,
    /// How long each row is measured.
    pub amount: Amount,
    /// How long it is called before that.
    pub warm_up: Duration,
    /// Pools to put under load. With [`BenchSettings::concurrency`] empty,
    /// none is.
    pub pool_sizes: Vec<usize>,
    /// Callers at once.
    pub concurrency: Vec<usize>,
    /// Events for each second by schedule; with none, loops are closed.
    pub rates: Vec<f64>,
    /// The response time that 99 of 100 events are to keep.
    pub p99: Duration,
    /// What counts as worse.
    pub thresholds: Thresholds,
    /// Of the resampling.
    pub seed: u64,
    /// Whether to make a baseline.
    pub keep: bool,
    /// Whether to watch where the guest spends its time.
    pub profile: bool,
}

impl BenchSettings {
    /// How long is measured, as flags.
    pub(super) fn measuring(&self) -> [(&'static str, String); 2] {
        let amount = match self.amount {
            Amount::Time(time) => ("duration", format!("{time:?}")),
            Amount::Calls(calls) => ("requests", calls.to_string()),
        };
        [amount, ("warm_up", format!("{:?}", self.warm_up))]
    }

    /// Callers at once and their pace, every combination.
    pub(super) fn callers(&self) -> Vec<(usize, Pace)> {
        let mut paces: Vec<Pace> = self.rates.iter().copied().map(Pace::Rate).collect();
        if paces.is_empty() {
            paces.push(Pace::Closed);
        }
        let concurrency = self.concurrency.iter();
        concurrency
            .flat_map(|callers| paces.iter().map(|pace| (*callers, *pace)))
            .collect()
    }
}

/// What a module is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Against {
    /// Another module, by turns.
    Module(PathBuf),
    /// What was kept of an earlier run, and its file.
    Baseline(PathBuf, Box<Baseline>),
}

/// A benchmark to be made.
#[derive(Clone, Copy)]
pub(crate) struct BenchTask<'a> {
    /// How it is measured.
    pub settings: &'a BenchSettings,
    /// With it only what the gate needs is measured.
    pub against: Option<&'a Against>,
    /// Who is told how far it has come.
    pub watcher: &'a Watcher<'a>,
}
