//! Processor time and memory of a process, as the kernel counts them.

use std::fs;
use std::io;
use std::time::Duration;

/// Linux counts in hundredths of a second for programs, on all machines.
const TICK_MS: u64 = 10;

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(pub u32);

/// What it has spent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// User and system time of all its threads, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
}

impl Process {
    /// Looks.
    ///
    /// # Errors
    /// Where there is no such process, or nobody may look.
    pub fn spent(self) -> io::Result<Spent> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let cpu = cpu(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let resident_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        Ok(Spent {
            cpu,
            resident_bytes: resident_kib << 10,
        })
    }
}

/// The 14th and the 15th field. The name in brackets may hold anything; what
/// follows is numbers.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let all = ticks()?.checked_add(ticks()?)?;
    all.checked_mul(TICK_MS).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu("7 nothing"), None);
    }

    #[test]
    fn this_process_has_memory_and_no_process_has_none() {
        let spent = Process(std::process::id()).spent().unwrap();
        assert!(spent.resident_bytes > 1 << 20);
        assert!(Process(u32::MAX).spent().is_err());
    }
}
