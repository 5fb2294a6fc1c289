//! What bodies keep of memory: exchanges that end in their second chunk, and bodies
//! that never end, each with a correlation id that does not come again, as those of a
//! proxy do not.

use crate::check::{Check, CheckKind, CheckStatus};
use crate::limits::Isolation;
use crate::ops::validate::Row;
use crate::ops::validate::bodies::{kinds, whole};
use crate::ops::validate::calls::{Prober, Sample, Trial};
use crate::ops::validate::samples;
use crate::policy::BodyMode;

use super::{Calls, Growth, Late, Probed, Trend, judge};

const FEW: &str = "too few calls to see what is kept of bodies; --max-growth makes more of them";

/// Calls about bodies, by turns.
struct Bodies {
    what: &'static str,
    samples: Vec<Sample>,
    /// Calls about one exchange.
    exchange: usize,
    fix: fn(&Prober<'_>) -> String,
}

/// What a collector may take beyond twice what it took for other calls, in bytes.
const SLACK: u64 = 128 << 10;

/// Rows for a module that gets chunks. `usual` is what calls do to memory whose bodies
/// are whole.
pub(in crate::ops::validate) fn rows(prober: &Prober<'_>, usual: &Probed) -> Vec<Row> {
    let is_asked = prober.body_mode() == BodyMode::Chunks && prober.isolation() != Isolation::Fresh;
    if !is_asked || kinds(prober).next().is_none() {
        return Vec::new();
    }
    let id = || CheckKind::Growth.of("bodies");
    let gate = prober.settings.max_growth_bytes;
    let expected = gate.map_or_else(
        || "no memory kept for bodies in chunks".to_owned(),
        |gate| format!("at most {gate} bytes kept for each chunk"),
    );
    let usual = match (usual.row.check.status, usual.growth) {
        (CheckStatus::Pass, Some(growth)) => growth,
        (status, Some(growth)) if status > CheckStatus::Skip && growth.trend == Trend::Growing => {
            let why = "not tried, calls without unfinished bodies keep memory too";
            return vec![Row::skip(id(), expected, why)];
        }
        _ => return vec![Row::skip(id(), expected, "not tried, see growth")],
    };
    let mut all = Check::pass(id(), &expected, "");
    let mut late = None;
    let mut collected = usual.grown;
    for bodies in [finished(prober), unfinished(prober)] {
        let (growth, changed) = match bodies.call(prober, Check::pass(id(), &expected, "")) {
            Ok(called) => called,
            Err(row) => return vec![*row],
        };
        late = late.or(changed.map(|late| late.row(bodies.what)));
        let check = bodies.judge(
            Check::pass(id(), &expected, ""),
            (&growth, collected),
            prober,
        );
        collected = collected.max(growth.grown);
        if check.status > CheckStatus::Skip {
            all = check;
            break;
        }
        if !all.found.is_empty() {
            all.found.push_str("; ");
        }
        all.found.push_str(&check.found);
        if check.status == CheckStatus::Skip {
            all = all.with(check.status, check.fix);
        }
    }
    [all.into()].into_iter().chain(late).collect()
}

fn finished(prober: &Prober<'_>) -> Bodies {
    let samples: Vec<Sample> = kinds(prober)
        .flat_map(samples::in_two_chunks)
        .filter(|sample| prober.module.has_handler(sample.handler()))
        .collect();
    Bodies {
        what: "bodies in two chunks",
        exchange: samples.len(),
        samples,
        fix: |_| "forget a body once its last chunk (\"is_last\") has come".to_owned(),
    }
}

fn unfinished(prober: &Prober<'_>) -> Bodies {
    let first = |kind| {
        let chunks = samples::in_two_chunks(kind).into_iter();
        chunks.filter(samples::is_partial)
    };
    Bodies {
        what: "bodies that never end",
        samples: kinds(prober).flat_map(first).collect(),
        exchange: 1,
        fix: |prober| {
            let or_whole = whole(prober).map_or_else(String::new, |whole| format!(", or {whole}"));
            format!(
                "a client that goes away leaves a body unfinished: bound what is kept of such bodies{or_whole}"
            )
        },
    }
}

impl Bodies {
    fn call(&self, prober: &Prober<'_>, check: Check) -> Result<(Growth, Option<Late>), Box<Row>> {
        let trials = self.first(prober).ok_or_else(|| {
            let why = if prober.is_exhausted() {
                prober.why_skipped()
            } else {
                format!("not tried, the instance faults at {}", self.what)
            };
            Box::new(Row::skip(check.id.clone(), check.expected, why))
        })?;
        let trials: Vec<&Trial> = trials.iter().collect();
        let (calls, ended) = prober.patiently(|| {
            let mut calls = Calls::new(prober)?;
            calls.exchange = Some(self.exchange as u64);
            let ended = calls.make(&trials);
            Ok::<_, Box<Row>>((calls, ended))
        })?;
        let ended = ended.map_err(|seen| {
            let mut row = calls.fault(&seen);
            row.check.id = check.id;
            Box::new(row)
        })?;
        let limit = prober.module.limits.max_memory_bytes;
        Ok((calls.watch.growth(trials.len(), limit, ended), calls.late))
    }

    /// `collected` is what a collector has let memory grow by for other calls.
    fn judge(
        &self,
        mut check: Check,
        (growth, collected): (&Growth, u64),
        prober: &Prober<'_>,
    ) -> Check {
        let fate = growth
            .fate()
            .map_or_else(String::new, |fate| format!("; {fate}"));
        check.found = format!("{}: {}{fate}", self.what, growth.kept());
        let check = judge(check, growth, prober.settings.max_growth_bytes);
        let may_be_collected = growth.grown <= collected * 2 + SLACK;
        match (check.status, growth.trend) {
            (CheckStatus::Pass | CheckStatus::Skip, _) => check,
            (CheckStatus::Warn, Trend::NotSettled) if may_be_collected => {
                check.with(CheckStatus::Skip, FEW)
            }
            (status @ (CheckStatus::Warn | CheckStatus::Fail), _) => {
                check.with(status, (self.fix)(prober))
            }
        }
    }

    /// The answers about the first exchange; none where the instance does not survive it.
    fn first(&self, prober: &Prober<'_>) -> Option<Vec<Trial>> {
        prober.patiently(|| {
            let mut instance = prober.instance().ok()?;
            let call = |sample: &Sample| {
                let seen = prober.call(&mut instance, sample);
                let is_answered = seen.poison.is_none() && seen.result.is_ok();
                is_answered.then(|| Trial {
                    sample: sample.clone(),
                    seen,
                })
            };
            self.samples.iter().map(call).collect()
        })
    }
}

impl Late {
    fn row(self, what: &str) -> Row {
        let Self {
            calls,
            handler,
            first,
            now,
        } = self;
        Check::fail(
            CheckKind::State.of("exchanges"),
            "no trace of earlier exchanges",
            format!("{what}: {handler} answers {first} at first, {now} after {calls} calls about other exchanges"),
            "keep nothing between exchanges in globals or statics, or run with --isolation fresh",
        )
        .into()
    }
}
