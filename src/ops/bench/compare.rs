//! The gate: what changed since, metric by metric and case by case.
//!
//! In: this run's report, and what it is compared with. Out: a [`Comparison`].

use std::collections::{BTreeMap, BTreeSet};

use super::baseline::{Baseline, BaselineModule};
use super::comparison::{Comparison, Finding, Metric};
use super::judge::{self, Estimate, Thresholds, Timings};
use super::machine::Machine;
use super::report::{BenchReport, CaseReport};
use crate::error::Error;
use crate::guest::engine;

/// Times of each case, and how to judge them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate<'a> {
    pub(super) timings: &'a Timings,
    pub(super) thresholds: &'a Thresholds,
    pub(super) seed: u64,
}

impl Gate<'_> {
    fn case(
        &self,
        case: &CaseReport,
        fuel_before: Option<[u64; 2]>,
        time: Option<(Estimate, Option<f64>)>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let (Some([first, warm]), Some(fuel)) = (fuel_before, case.fuel) {
            for (metric, pair) in [
                (Metric::FuelFirst, [first, fuel.first]),
                (Metric::FuelWarm, [warm, fuel.warm]),
            ] {
                let limit = self.thresholds.fuel;
                findings.push(Finding::exact(metric, Some(&case.name), pair, limit));
            }
        }
        findings.extend(
            time.map(|(estimate, busy)| Finding::time(&case.name, estimate, self.thresholds, busy)),
        );
        findings
    }

    fn size(&self, before: &BaselineModule, after: &BaselineModule) -> Finding {
        Finding::size([before.size_bytes, after.size_bytes], self.thresholds)
    }

    fn memory(&self, before: &BaselineModule, after: &BaselineModule) -> [Finding; 2] {
        let peak = [before.peak_bytes, after.peak_bytes];
        let growth = [before.growth_bytes, after.growth_bytes];
        Finding::memory([peak, growth], self.thresholds)
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
    let mut findings = Vec::new();
    if let Some(after) = &BaselineModule::of_report(report) {
        findings.push(gate.size(&before, after));
        findings.extend(gate.memory(&before, after));
    }
    let pairs = cases.iter().zip(&report.cases);
    for ((before, after), rounds) in pairs.zip(&gate.timings.rounds) {
        let fuel = before.fuel.map(|fuel| [fuel.first, fuel.warm]);
        let estimate = judge::paired(rounds, gate.seed);
        findings.extend(gate.case(after, fuel, estimate.map(|estimate| (estimate, busy))));
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
    flags: &BTreeMap<&'static str, String>,
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
        let estimate = rounds
            .filter(|_| comparable.time)
            .and_then(|rounds| judge::apart(&then.rounds, rounds, gate.seed));
        let fuel = then.fuel.filter(|_| comparable.fuel);
        findings.extend(gate.case(case, fuel, estimate.map(|estimate| (estimate, busy))));
    }
    for then in &baseline.cases {
        if !report.cases.iter().any(|case| case.name == then.name) {
            not_compared.push(format!("{}: no longer there", then.name));
        }
    }
    if let (Some(then), Some(now)) = (&baseline.module, BaselineModule::of_report(report)) {
        findings.push(gate.size(then, &now));
        if same_cases {
            findings.extend(gate.memory(then, &now));
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
