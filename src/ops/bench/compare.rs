//! The gate: compares figures with a baseline, metric by metric and case by case.
//!
//! In: this run's report, and what it is compared with. Out: a [`Comparison`].

use std::collections::BTreeSet;

use super::baseline::{Baseline, BaselineModule};
use super::comparison::{Comparison, Finding, Metric};
use super::judge::{self, Estimate, Thresholds, Timings};
use super::machine::Machine;
use super::report::{BenchReport, CaseReport, Flags};
use crate::error::Error;
use crate::guest::engine;

/// Times of each case, and how to judge them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate<'a> {
    pub(super) timings: &'a Timings,
    pub(super) thresholds: &'a Thresholds,
    pub(super) seed: u64,
}

/// What a case cost before, and how its time differs now.
struct CaseBefore {
    fuel: Option<[u64; 2]>,
    estimate: Option<Estimate>,
    /// The share of the time that others had the processor.
    busy: Option<f64>,
}

impl Gate<'_> {
    fn case(&self, case: &CaseReport, before: CaseBefore) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let (Some([first, warm]), Some(fuel)) = (before.fuel, case.fuel) {
            for (metric, pair) in [
                (Metric::FuelFirst, [first, fuel.first]),
                (Metric::FuelWarm, [warm, fuel.warm]),
            ] {
                let limit = self.thresholds.fuel;
                findings.push(Finding::exact(metric, Some(&case.name), pair, limit));
            }
        }
        let time = |estimate| Finding::time(&case.name, estimate, self.thresholds, before.busy);
        findings.extend(before.estimate.map(time));
        findings
    }

    /// Size and memory.
    fn module(&self, before: &BaselineModule, after: &BaselineModule) -> [Finding; 3] {
        let Thresholds { size, memory, .. } = *self.thresholds;
        let pair = |bytes: fn(&BaselineModule) -> u64| [before, after].map(bytes);
        [
            (Metric::Size, pair(|module| module.size_bytes), size),
            (Metric::Memory, pair(|module| module.peak_bytes), memory),
            (Metric::Growth, pair(|module| module.growth_bytes), memory),
        ]
        .map(|(metric, pair, limit)| Finding::exact(metric, None, pair, limit))
    }
}

/// Two modules that were measured by turns.
pub(super) fn of_modules(
    before: BaselineModule,
    cases: &[CaseReport],
    report: &BenchReport,
    gate: Gate<'_>,
) -> Comparison {
    let busy = gate.timings.busy;
    let after = BaselineModule::of_report(report);
    let of_module = after.iter().flat_map(|after| gate.module(&before, after));
    let mut findings: Vec<Finding> = of_module.collect();
    let pairs = cases.iter().zip(&report.cases);
    for ((before, after), rounds) in pairs.zip(&gate.timings.rounds) {
        let before = CaseBefore {
            fuel: before.fuel.map(|fuel| [fuel.first, fuel.warm]),
            estimate: judge::paired(rounds, gate.seed),
            busy,
        };
        findings.extend(gate.case(after, before));
    }
    Comparison {
        before: before.path,
        before_hash: before.hash,
        thresholds: *gate.thresholds,
        findings,
        not_compared: Vec::new(),
        busy,
    }
}

/// What may be compared with a baseline at all.
#[derive(Debug, Clone)]
pub(super) struct Comparable {
    path: String,
    time: bool,
    fuel: bool,
    why_not: Vec<String>,
}

/// Holds a baseline's fingerprint against this run's.
///
/// # Errors
/// [`Error::Usage`] where the module was called by other settings then.
pub(super) fn comparable(
    baseline: &Baseline,
    path: &str,
    flags: &Flags,
    machine: &Machine,
) -> Result<Comparable, Error> {
    let then = baseline.settings.keys().map(String::as_str);
    let keys: BTreeSet<&str> = then.chain(flags.keys().copied()).collect();
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), Clone::clone);
    let others: Vec<String> = keys
        .into_iter()
        .map(|key| (key, baseline.settings.get(key), flags.get(key)))
        .filter(|(_, then, now)| then != now)
        .map(|(key, then, now)| format!("{key} was {}, is {}", shown(then), shown(now)))
        .collect();
    if !others.is_empty() {
        return Err(Error::Usage(format!(
            "{path} was measured with different settings, which cannot be compared: {}; use the same flags, or save a new baseline with --save",
            others.join("; ")
        )));
    }
    let mut why_not = Vec::new();
    let fuel = baseline.engine == engine::version();
    if !fuel {
        why_not.push(format!(
            "times and instructions: {} is not {}, and may count differently",
            baseline.engine,
            engine::version()
        ));
    }
    let now = machine.parts();
    let differs: Vec<String> = (baseline.machine.parts().into_iter().zip(now))
        .filter(|(then, now)| then != now)
        .map(|((what, then), (_, now))| format!("{what} was {then}, is {now}"))
        .collect();
    if !differs.is_empty() {
        why_not.push(format!("times: another machine ({})", differs.join("; ")));
    }
    Ok(Comparable {
        path: path.to_owned(),
        time: fuel && differs.is_empty(),
        fuel,
        why_not,
    })
}

/// This run beside a baseline.
pub(super) fn of_baseline(
    baseline: &Baseline,
    comparable: Comparable,
    report: &BenchReport,
    gate: Gate<'_>,
) -> Comparison {
    let mut not_compared = comparable.why_not;
    let mut findings = Vec::new();
    let busy = [gate.timings.busy, baseline.busy].into_iter().flatten();
    let busy = busy.reduce(f64::max);
    let mut same_cases = baseline.cases.len() == report.cases.len();
    for (index, case) in report.cases.iter().enumerate() {
        let then = baseline.cases.iter().find(|then| then.name == case.name);
        let then = match then {
            Some(then) if then.input_hash == case.input_hash => then,
            other => {
                let why = if other.is_none() {
                    "not in the baseline"
                } else {
                    "its input has changed"
                };
                not_compared.push(format!("{}: {why}", case.name));
                same_cases = false;
                continue;
            }
        };
        let rounds = gate.timings.rounds.get(index);
        let before = CaseBefore {
            fuel: then.fuel.filter(|_| comparable.fuel),
            estimate: rounds
                .filter(|_| comparable.time)
                .and_then(|rounds| judge::apart(&then.rounds, rounds, gate.seed)),
            busy,
        };
        findings.extend(gate.case(case, before));
    }
    for then in &baseline.cases {
        if !report.cases.iter().any(|case| case.name == then.name) {
            not_compared.push(format!("{}: no longer there", then.name));
        }
    }
    if let (Some(then), Some(now)) = (&baseline.module, BaselineModule::of_report(report)) {
        let [size, memory, growth] = gate.module(then, &now);
        findings.push(size);
        if same_cases {
            findings.extend([memory, growth]);
        } else {
            not_compared.push("memory: it was measured over different calls".to_owned());
        }
    }
    let module = baseline.module.as_ref();
    Comparison {
        before: comparable.path,
        before_hash: module.map_or_else(String::new, |module| module.hash.clone()),
        thresholds: *gate.thresholds,
        findings,
        not_compared,
        busy,
    }
}
