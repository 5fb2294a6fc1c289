//! One line for each figure: `part,name,metric,value`, times in nanoseconds.

use std::io::{self, Write};

use crate::latency::Latency;
use crate::ops::bench::{BenchReport, Spread};

use crate::cli::render::escape::csv;

/// Writes all figures of a report.
pub(super) fn write(report: &BenchReport, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines(out);
    lines.line(("part", "name"), "metric", "value")?;
    if let Some(phases) = &report.phases {
        lines.spread("read", &phases.read)?;
        lines.spread("compile", &phases.compile)?;
        lines.spread("instantiate_on_demand", &phases.instantiate_on_demand)?;
        if let Some(spread) = &phases.instantiate_in_slot {
            lines.spread("instantiate_in_slot", spread)?;
        }
        lines.spread("first_call", &phases.first_call)?;
        lines.spread("third_call", &phases.warm_call)?;
    }
    for case in &report.cases {
        let name = &case.name;
        if let Some(fuel) = case.fuel {
            lines.line(("case", name), "fuel_first", fuel.first)?;
            lines.line(("case", name), "fuel_warm", fuel.warm)?;
            lines.line(("case", name), "fuel_warm_min", fuel.warm_min)?;
            lines.line(("case", name), "fuel_warm_max", fuel.warm_max)?;
        }
        lines.latency(("case", name), "response", case.response.as_ref())?;
        lines.latency(("case", name), "guest", case.guest.as_ref())?;
    }
    lines.changed(report)?;
    if let Some(memory) = &report.memory {
        lines.line(("memory", ""), "initial_bytes", memory.initial_bytes)?;
        lines.line(("memory", ""), "peak_bytes", memory.peak_bytes)?;
        if let Some(bytes) = memory.growth.bytes_per_call {
            lines.line(("memory", ""), "bytes_per_call", bytes)?;
        }
    }
    for point in &report.loads {
        let rate = point
            .rate
            .map_or_else(String::new, |rate| format!(" rate={rate}"));
        let name = format!(
            "pool={} callers={}{rate}",
            point.pool_size, point.concurrency
        );
        lines.line(("load", &name), "throughput", point.throughput)?;
        lines.latency(("load", &name), "response", Some(&point.response))?;
        lines.latency(("load", &name), "service", point.service.as_ref())?;
        lines.latency(("load", &name), "queue", point.queue.as_ref())?;
        lines.latency(("load", &name), "guest", point.guest.as_ref())?;
        if let Some(process) = point.process {
            lines.line(
                ("load", &name),
                "cpu_us_per_event",
                process.cpu_us_per_event,
            )?;
            lines.line(("load", &name), "resident_bytes", process.resident_bytes)?;
        }
    }
    for row in &report.safety {
        lines.latency(("safety", &row.mode), "response", Some(&row.response))?;
    }
    for finding in report
        .comparison
        .iter()
        .flat_map(|comparison| &comparison.findings)
    {
        let name = finding.name();
        lines.line(("gate", &name), "before", finding.before)?;
        lines.line(("gate", &name), "after", finding.after)?;
        lines.line(("gate", &name), "ratio", finding.ratio)?;
        if let Some([low, high]) = finding.interval {
            lines.line(("gate", &name), "ratio_low", low)?;
            lines.line(("gate", &name), "ratio_high", high)?;
        }
        lines.line(
            ("gate", &name),
            "verdict",
            super::tables::word(finding.verdict),
        )?;
    }
    Ok(())
}

struct Lines<'a>(&'a mut dyn Write);

impl Lines<'_> {
    fn line(
        &mut self,
        (part, name): (&str, &str),
        metric: &str,
        value: impl std::fmt::Display,
    ) -> io::Result<()> {
        writeln!(self.0, "{part},{},{metric},{value}", csv(name))
    }

    fn changed(&mut self, report: &BenchReport) -> io::Result<()> {
        for changed in &report.changed_answers {
            let name = ("changed", changed.case.as_str());
            self.line(name, "by", csv(&changed.by))?;
            self.line(name, "from", csv(&changed.from))?;
            self.line(name, "to", csv(&changed.to))?;
            self.line(name, "after_calls", changed.after_calls)?;
        }
        Ok(())
    }

    fn spread(&mut self, name: &str, spread: &Spread) -> io::Result<()> {
        for (metric, value) in [
            ("median_ns", spread.median_ns),
            ("min_ns", spread.min_ns),
            ("max_ns", spread.max_ns),
        ] {
            self.line(("phase", name), metric, value)?;
        }
        Ok(())
    }

    fn latency(
        &mut self,
        row: (&str, &str),
        of: &str,
        latency: Option<&Latency>,
    ) -> io::Result<()> {
        let Some(latency) = latency else {
            return Ok(());
        };
        self.line(row, &format!("{of}_count"), latency.count())?;
        for (word, time) in [
            ("p50", latency.at(0.5)),
            ("p90", latency.at(0.9)),
            ("p99", latency.at(0.99)),
            ("p99_9", latency.at(0.999)),
            ("max", latency.max()),
        ] {
            self.line(row, &format!("{of}_{word}_ns"), time.as_nanos())?;
        }
        Ok(())
    }
}
