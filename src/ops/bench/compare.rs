//! The gate: what changed since, metric by metric and case by case.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::baseline::Baseline;
use super::judge::{self, BUSY, Estimate, GateVerdict, Rounds, Thresholds};
use super::machine::Machine;
use super::report::{CaseReport, MemoryReport};
use crate::error::Error;
use crate::guest::engine;
use crate::report::Verdict;

/// What was compared with what, and how it came out.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The file of the module, or of the baseline, it is compared with.
    pub before: String,
    /// `sha256:` and the hash of that module.
    pub before_hash: String,
    /// What counts as worse.
    pub thresholds: Thresholds,
    /// Each figure that could be compared.
    pub findings: Vec<Finding>,
    /// What could not be compared, and why.
    pub not_compared: Vec<String>,
    /// The share of the time that others had the processor.
    pub busy: Option<f64>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Instructions of the first call on a fresh instance.
    FuelFirst,
    /// Instructions of a warm call.
    FuelWarm,
    /// From event to response, in nanoseconds.
    Time,
    /// The most linear memory, in bytes.
    Memory,
    /// Memory that each call keeps, in bytes.
    Growth,
    /// The module's file, in bytes.
    Size,
}

impl Metric {
    /// As tables have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FuelFirst => "fuel, first call",
            Self::FuelWarm => "fuel, warm call",
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Growth => "memory kept each call",
            Self::Size => "size",
        }
    }
}

/// One figure before and after.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What it is about.
    pub metric: Metric,
    /// The event, where it is about one.
    pub case: Option<String>,
    /// The figure before.
    pub before: f64,
    /// The figure now.
    pub after: f64,
    /// After by before.
    pub ratio: f64,
    /// Ends of the ratio's interval; none where there is no noise.
    pub interval: Option<[f64; 2]>,
    /// How it came out.
    pub verdict: GateVerdict,
    /// Why it could not be told.
    pub why: Option<String>,
}

impl Finding {
    /// The metric and what it is of.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.case {
            Some(case) => format!("{} of {case}", self.metric.name()),
            None => self.metric.name().to_owned(),
        }
    }

    fn exact(
        metric: Metric,
        case: Option<&str>,
        [before, after]: [u64; 2],
        threshold: f64,
    ) -> Self {
        let [before, after] = [before as f64, after as f64];
        Self {
            metric,
            case: case.map(str::to_owned),
            before,
            after,
            ratio: if before > 0.0 { after / before } else { 1.0 },
            interval: None,
            verdict: judge::exactly(before, after, threshold),
            why: None,
        }
    }

    fn size(pair: [u64; 2], thresholds: &Thresholds) -> Self {
        Self::exact(Metric::Size, None, pair, thresholds.size)
    }

    fn memory([peak, growth]: [[u64; 2]; 2], thresholds: &Thresholds) -> [Self; 2] {
        [(Metric::Memory, peak), (Metric::Growth, growth)]
            .map(|(metric, pair)| Self::exact(metric, None, pair, thresholds.memory))
    }

    fn time(case: &str, estimate: Estimate, thresholds: &Thresholds, busy: Option<f64>) -> Self {
        let mut verdict = estimate.judge(thresholds);
        let mut why = (verdict == GateVerdict::Inconclusive)
            .then(|| "the 99 % interval includes the threshold".to_owned());
        if let Some(share) = busy.filter(|share| *share > BUSY) {
            verdict = GateVerdict::Inconclusive;
            why = Some(format!(
                "other processes used the CPU for {:.0} % of the time",
                share * 100.0
            ));
        }
        Self {
            metric: Metric::Time,
            case: Some(case.to_owned()),
            before: estimate.before_ns,
            after: estimate.after_ns,
            ratio: estimate.ratio,
            interval: Some([estimate.low, estimate.high]),
            verdict,
            why,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = (self.ratio - 1.0) * 100.0;
        write!(
            out,
            "{:.0} before, {:.0} now, {change:+.1} %",
            self.before, self.after
        )?;
        if let Some([low, high]) = self.interval {
            let percent = |ratio: f64| (ratio - 1.0) * 100.0;
            write!(out, " ({:+.1} to {:+.1} %)", percent(low), percent(high))?;
        }
        if let Some(why) = &self.why {
            write!(out, "; {why}")?;
        }
        Ok(())
    }
}

impl Comparison {
    /// One regression is a failure; one figure that could not be told is no
    /// pass.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let has = |verdict| {
            self.findings
                .iter()
                .any(|finding| finding.verdict == verdict)
        };
        let compares_cases = self.findings.iter().any(|finding| finding.case.is_some());
        if has(GateVerdict::Regressed) {
            Verdict::Failed
        } else if !compares_cases {
            Verdict::NothingChecked
        } else if has(GateVerdict::Inconclusive) {
            Verdict::Inconclusive
        } else {
            Verdict::Passed
        }
    }

    /// How many came out so.
    #[must_use]
    pub fn count(&self, verdict: GateVerdict) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
    }
}

/// One side's figures without noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exact<'a> {
    /// Bytes of the module and its memory; none of a running agent.
    pub(super) module: Option<(u64, MemoryReport)>,
    pub(super) cases: &'a [CaseReport],
}

/// Whole bytes that a call keeps.
pub(super) fn growth_bytes(memory: &MemoryReport) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "memory grows by no more than there is"
    )]
    let bytes = memory.growth.bytes_per_call.round().max(0.0) as u64;
    bytes
}

/// Times of each case, and how to judge them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing<'a> {
    pub(super) rounds: &'a [Rounds],
    pub(super) busy: Option<f64>,
    pub(super) thresholds: &'a Thresholds,
    pub(super) seed: u64,
}

/// Two modules that were measured by turns.
pub(super) fn of_modules(
    (path, hash): (&str, &str),
    [before, after]: [Exact<'_>; 2],
    timing: Timing<'_>,
) -> Comparison {
    let Timing {
        rounds,
        busy,
        thresholds,
        seed,
    } = timing;
    let mut findings = Vec::new();
    if let (Some((size_before, before)), Some((size, after))) = (before.module, after.module) {
        findings.push(Finding::size([size_before, size], thresholds));
        let pairs = [
            [before.peak_bytes, after.peak_bytes],
            [growth_bytes(&before), growth_bytes(&after)],
        ];
        findings.extend(Finding::memory(pairs, thresholds));
    }
    for ((before, after), rounds) in before.cases.iter().zip(after.cases).zip(rounds) {
        let name = Some(after.name.as_str());
        if let (Some(before), Some(after)) = (before.fuel, after.fuel) {
            let limit = thresholds.fuel;
            findings.push(Finding::exact(
                Metric::FuelFirst,
                name,
                [before.first, after.first],
                limit,
            ));
            findings.push(Finding::exact(
                Metric::FuelWarm,
                name,
                [before.warm, after.warm],
                limit,
            ));
        }
        if let Some(estimate) = judge::paired(rounds, seed) {
            findings.push(Finding::time(&after.name, estimate, thresholds, busy));
        }
    }
    Comparison {
        before: path.to_owned(),
        before_hash: hash.to_owned(),
        thresholds: *thresholds,
        findings,
        not_compared: Vec::new(),
        busy,
    }
}

/// What may be compared with a baseline at all.
#[derive(Debug, Clone)]
pub(super) struct Comparable {
    pub(super) time: bool,
    pub(super) fuel: bool,
    pub(super) why_not: Vec<String>,
}

/// Holds a baseline's fingerprint against this run's.
///
/// # Errors
/// [`Error::Usage`] where the module was called by other settings then.
pub(super) fn comparable(
    baseline: &Baseline,
    path: &str,
    settings: &BTreeMap<String, String>,
    machine: &Machine,
) -> Result<Comparable, Error> {
    let keys: std::collections::BTreeSet<&String> =
        baseline.settings.keys().chain(settings.keys()).collect();
    let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), Clone::clone);
    let others: Vec<String> = keys
        .into_iter()
        .map(|key| (key, baseline.settings.get(key), settings.get(key)))
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
    let differs: Vec<String> = [
        ("processor", &baseline.machine.processor, &machine.processor),
        (
            "cores",
            &baseline.machine.cores.to_string(),
            &machine.cores.to_string(),
        ),
        ("kernel", &baseline.machine.kernel, &machine.kernel),
        ("build", &baseline.machine.build, &machine.build),
    ]
    .into_iter()
    .filter(|(_, then, now)| then != now)
    .map(|(what, then, now)| format!("{what} was {then}, is {now}"))
    .collect();
    if !differs.is_empty() {
        why_not.push(format!("times: another machine ({})", differs.join("; ")));
    }
    Ok(Comparable {
        time: fuel && differs.is_empty(),
        fuel,
        why_not,
    })
}

/// This run beside a baseline.
pub(super) fn of_baseline(
    (path, baseline): (&str, &Baseline),
    comparable: &Comparable,
    after: Exact<'_>,
    timing: Timing<'_>,
) -> Comparison {
    let Timing {
        rounds,
        busy,
        thresholds,
        seed,
    } = timing;
    let mut not_compared = comparable.why_not.clone();
    let mut findings = Vec::new();
    let busy = [busy, baseline.busy].into_iter().flatten().reduce(f64::max);
    let mut same_cases = baseline.cases.len() == after.cases.len();
    for (index, case) in after.cases.iter().enumerate() {
        let Some(then) = baseline.cases.iter().find(|then| then.name == case.name) else {
            not_compared.push(format!("{}: not in the baseline", case.name));
            same_cases = false;
            continue;
        };
        if then.input_hash != case.input_hash {
            not_compared.push(format!("{}: its input has changed", case.name));
            same_cases = false;
            continue;
        }
        let name = Some(case.name.as_str());
        if let (Some([first, warm]), Some(fuel), true) = (then.fuel, case.fuel, comparable.fuel) {
            for (metric, pair) in [
                (Metric::FuelFirst, [first, fuel.first]),
                (Metric::FuelWarm, [warm, fuel.warm]),
            ] {
                findings.push(Finding::exact(metric, name, pair, thresholds.fuel));
            }
        }
        if let Some(rounds) = rounds.get(index).filter(|_| comparable.time)
            && let Some(estimate) = judge::apart(&then.rounds, rounds, seed)
        {
            findings.push(Finding::time(&case.name, estimate, thresholds, busy));
        }
    }
    for then in &baseline.cases {
        if !after.cases.iter().any(|case| case.name == then.name) {
            not_compared.push(format!("{}: no longer there", then.name));
        }
    }
    if let (Some(then), Some((size, memory))) = (&baseline.module, after.module) {
        findings.push(Finding::size([then.size_bytes, size], thresholds));
        if same_cases {
            let pairs = [
                [then.peak_bytes, memory.peak_bytes],
                [then.growth_bytes, growth_bytes(&memory)],
            ];
            findings.extend(Finding::memory(pairs, thresholds));
        } else {
            not_compared.push("memory: it was measured over different calls".to_owned());
        }
    }
    Comparison {
        before: path.to_owned(),
        before_hash: baseline
            .module
            .as_ref()
            .map_or_else(String::new, |module| module.hash.clone()),
        thresholds: *thresholds,
        findings,
        not_compared,
        busy,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn comparison(findings: Vec<Finding>) -> Comparison {
        Comparison {
            before: String::new(),
            before_hash: String::new(),
            thresholds: Thresholds::default(),
            findings,
            not_compared: Vec::new(),
            busy: None,
        }
    }

    proptest! {
        /// Whatever was measured while others had the processor says nothing
        /// of time, and hides no instruction.
        #[test]
        fn a_busy_machine_is_inconclusive_and_never_red(
            ratio in 0.01..100.0_f64,
            spread in 1.0..10.0_f64,
            before_ns in 10.0..1e9_f64,
            busy in 0.0..1.0_f64,
            fuel in (1_u64..1_000_000, 1_u64..1_000_000),
        ) {
            let estimate = Estimate {
                ratio,
                low: ratio / spread,
                high: ratio * spread,
                before_ns,
                after_ns: before_ns * ratio,
            };
            let thresholds = Thresholds::default();
            let time = Finding::time("a", estimate, &thresholds, Some(busy));
            let quiet = Finding::time("a", estimate, &thresholds, None);
            if busy > BUSY {
                prop_assert_eq!(time.verdict, GateVerdict::Inconclusive);
                prop_assert!(time.why.is_some());
            } else {
                prop_assert_eq!(time.verdict, quiet.verdict);
            }
            let fuel = Finding::exact(Metric::FuelWarm, Some("a"), [fuel.0, fuel.1], 0.0);
            let is_dearer = fuel.after > fuel.before;
            let verdict = comparison(vec![time, fuel]).verdict();
            if is_dearer {
                prop_assert_eq!(verdict, Verdict::Failed);
            } else if busy > BUSY {
                prop_assert_eq!(verdict, Verdict::Inconclusive);
            }
        }
    }

    #[test]
    fn figures_of_the_module_alone_are_no_comparison_of_its_calls() {
        let size = Finding::size([1, 1], &Thresholds::default());
        assert_eq!(comparison(vec![size]).verdict(), Verdict::NothingChecked);
        assert_eq!(comparison(Vec::new()).verdict(), Verdict::NothingChecked);
    }
}
