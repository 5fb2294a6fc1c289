//! The machine of a measurement, and whether other processes used it at the time.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Process;

/// What times hang on. Two that differ are never compared by time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, as the kernel has it.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The kernel's name and release.
    pub kernel: String,
    /// Optimised, or a debug build, which times nothing of use.
    pub build: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let processor = info
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| matches!(key.trim(), "model name" | "Model" | "cpu model"))
            .map_or("unknown", |(_, value)| value.trim());
        let kernel = format!(
            "{} {}",
            read("/proc/sys/kernel/ostype").trim(),
            read("/proc/sys/kernel/osrelease").trim()
        );
        Self {
            processor: format!("{processor} ({})", std::env::consts::ARCH),
            cores: cores(),
            kernel: match kernel.trim() {
                "" => std::env::consts::OS.to_owned(),
                kernel => kernel.to_owned(),
            },
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
        }
    }

    /// What times hang on, each by name.
    pub(super) fn parts(&self) -> [(&'static str, String); 4] {
        [
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("kernel", self.kernel.clone()),
            ("build", self.build.clone()),
        ]
    }
}

/// Cores this process may use.
#[must_use]
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How long the calling thread has run, and has been ready to run while
/// others did; nothing where the kernel does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuTime {
    ran: Duration,
    waited: Duration,
}

impl CpuTime {
    pub(super) fn of_this_thread() -> Option<Self> {
        let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let mut nanos = text.split_whitespace().map(str::parse::<u64>);
        let mut next = || nanos.next()?.ok().map(Duration::from_nanos);
        Some(Self {
            ran: next()?,
            waited: next()?,
        })
    }

    /// The share of the time since, 0 to 1, that it waited for a processor.
    pub(super) fn waited_since(self, before: Self) -> f64 {
        let ran = self.ran.saturating_sub(before.ran).as_secs_f64();
        let waited = self.waited.saturating_sub(before.waited).as_secs_f64();
        if ran + waited > 0.0 {
            waited / (ran + waited)
        } else {
            0.0
        }
    }
}

/// What the whole machine and this process have computed so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuUse {
    own: Duration,
    busy_ticks: u64,
    all_ticks: u64,
}

impl CpuUse {
    /// None where the kernel does not say.
    pub(super) fn so_far() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            // What guests of this machine take is in the first two already.
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        let all_ticks: u64 = ticks.iter().sum();
        // The fourth and fifth field: idle, and idle waiting for a disk.
        let idle: u64 = ticks.get(3..5)?.iter().sum();
        let own = Process(std::process::id()).spent().ok()?.cpu;
        Some(Self {
            own,
            busy_ticks: all_ticks - idle,
            all_ticks,
        })
    }

    /// The share of the machine, 0 to 1, that others have had since.
    pub(super) fn others_since(self, before: Self) -> f64 {
        // A tick is 10 ms for programs, on all machines.
        let own = self.own.saturating_sub(before.own).as_secs_f64() * 100.0;
        let busy = self.busy_ticks.saturating_sub(before.busy_ticks) as f64;
        let all = self.all_ticks.saturating_sub(before.all_ticks).max(1) as f64;
        ((busy - own) / all).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_both_times() {
        let at = |ran, waited| CpuTime {
            ran: Duration::from_millis(ran),
            waited: Duration::from_millis(waited),
        };
        let share = at(90, 35).waited_since(at(30, 15));
        assert!((share - 0.25).abs() < 1e-9);
        assert!(at(1, 1).waited_since(at(1, 1)).abs() < 1e-9);
    }

    #[test]
    fn others_have_what_is_neither_ours_nor_idle() {
        let at = |own, busy_ticks, all_ticks| CpuUse {
            own: Duration::from_millis(own),
            busy_ticks,
            all_ticks,
        };
        // Two cores for a second: we had one, others half of the other.
        let share = at(1000, 150, 200).others_since(at(0, 0, 0));
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        assert!(at(0, 0, 0).others_since(at(0, 0, 0)).abs() < 1e-9);
        assert!(CpuUse::so_far().is_some());
    }

    #[test]
    fn this_machine_has_a_name_and_cores() {
        let machine = Machine::here();
        assert!(machine.cores >= 1);
        assert!(!machine.processor.is_empty() && !machine.kernel.is_empty());
        assert_eq!(machine, Machine::here());
    }
}
