//! This process as the kernel sees it, under the names that dashboards know.

use super::{Family, Sample, Value};

/// Ticks in a second of `/proc/PID/stat`, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What could be read; a family that could not is left out.
#[must_use]
pub(crate) fn families() -> Vec<Family> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let family = |name, help, value: Option<Value>| {
        value.map(|value| Family::new(name, help, [Sample::new(value)]))
    };
    let gauge = |name, help, value: Option<f64>| family(name, help, value.map(Value::Gauge));
    let descriptors = std::fs::read_dir("/proc/self/fd").ok();
    let found = [
        family(
            "process_cpu_seconds_total",
            "Processor time of all threads, in user and system mode.",
            cpu_seconds(&read("/proc/self/stat")).map(Value::Total),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            kib(&read("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024.0),
        ),
        gauge(
            "process_open_fds",
            "Open file descriptors.",
            // The folder's own is open while it is read.
            descriptors.map(|all| f64::from(u32::try_from(all.count()).unwrap_or(u32::MAX)) - 1.0),
        ),
        gauge(
            "process_max_fds",
            "File descriptors that may be open.",
            max_descriptors(&read("/proc/self/limits")),
        ),
    ];
    found.into_iter().flatten().collect()
}

/// The 14th and 15th field; the second is a name in brackets that may hold
/// anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
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
        let stat = "1 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(kib("VmRSS:\t  1024 kB\n", "VmRSS:"), Some(1024.0));
        assert_eq!(
            max_descriptors("Max open files            1024                 524288 files"),
            Some(1024.0)
        );
        assert_eq!(cpu_seconds(""), None);
    }
}
