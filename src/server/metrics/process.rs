//! Memory, processor time and open files of this process, under Prometheus' usual
//! names.

use super::{Family, Sample, Value};
use crate::client::Process;

/// What could be read; a family that could not is left out.
#[must_use]
pub(crate) fn families() -> Vec<Family> {
    let spent = Process(std::process::id()).spent().ok();
    let descriptors = std::fs::read_dir("/proc/self/fd").ok();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let found = [
        (
            "process_cpu_seconds_total",
            "Processor time of all threads, in user and system mode.",
            spent.map(|spent| Value::Total(spent.cpu.as_secs_f64())),
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            spent.map(|spent| Value::gauge(spent.resident_bytes)),
        ),
        (
            "process_open_fds",
            "Open file descriptors.",
            // The folder's own is open while it is read.
            descriptors.map(|all| Value::gauge(all.count().saturating_sub(1))),
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            max_descriptors(&limits).map(Value::Gauge),
        ),
    ];
    let family = |(name, help, value)| Some(Family::new(name, help, [Sample::new(value?)]));
    found.into_iter().filter_map(family).collect()
}

fn max_descriptors(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found() {
        let found = families();
        let names: Vec<_> = found.iter().map(|family| family.name).collect();
        assert_eq!(
            names,
            [
                "process_cpu_seconds_total",
                "process_resident_memory_bytes",
                "process_open_fds",
                "process_max_fds"
            ]
        );
        for family in &found[1..] {
            let Value::Gauge(value) = family.samples[0].value else {
                unreachable!()
            };
            assert!(value > 0.0, "{}", family.name);
        }
    }

    #[test]
    fn the_kernels_own_lines_are_read() {
        assert_eq!(
            max_descriptors("Max open files            1024                 524288 files"),
            Some(1024.0)
        );
        assert_eq!(max_descriptors(""), None);
    }
}
