//! What the gate found: figures before and now, and how each came out.
//!
//! In: pairs of figures and estimates. Out: [`Finding`]s and the verdict.

use std::fmt;

use serde::Serialize;

use super::judge::{self, BUSY, Estimate, GateVerdict, Thresholds};
use crate::report::Verdict;

/// What was compared with what, and how it came out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Comparison {
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

named! {
    /// What a finding is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "snake_case")]
    pub(crate) enum Metric {
        /// Instructions of the first call on a fresh instance.
        FuelFirst => "fuel, first call",
        /// Instructions of a warm call.
        FuelWarm => "fuel, warm call",
        /// From event to response, in nanoseconds.
        Time => "time",
        /// The most linear memory, in bytes.
        Memory => "memory",
        /// Memory that each call keeps, in bytes.
        Growth => "memory kept each call",
        /// The module's file, in bytes.
        Size => "size",
    }
}

/// One figure before and after.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
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
    pub(crate) fn name(&self) -> String {
        match &self.case {
            Some(case) => format!("{} of {case}", self.metric.name()),
            None => self.metric.name().to_owned(),
        }
    }

    pub(super) fn exact(
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

    pub(super) fn time(
        case: &str,
        estimate: Estimate,
        thresholds: &Thresholds,
        busy: Option<f64>,
    ) -> Self {
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
    pub(crate) fn verdict(&self) -> Verdict {
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
    pub(crate) fn count(&self, verdict: GateVerdict) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.verdict == verdict)
            .count()
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
        let size = Finding::exact(Metric::Size, None, [1, 1], 0.0);
        assert_eq!(comparison(vec![size]).verdict(), Verdict::NothingChecked);
        assert_eq!(comparison(Vec::new()).verdict(), Verdict::NothingChecked);
    }
}
