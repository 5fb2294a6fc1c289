//! Does an answer hang on the calls before it: the same samples on fresh, used,
//! shuffled, just-faulted and long used instances, and the shortest sequence of calls
//! that changes one.

use std::collections::BTreeSet;
use std::fmt;

use crate::check::{Check, CheckKind, CheckStatus};
use crate::guest::Instance;
use crate::limits::Isolation;
use crate::ops::shortest::shortest;
use crate::policy::pool::Room;

use super::Row;
use super::answers::difference;
use super::calls::{Budget, Prober, Sample, Seen, Trial};
use super::growth;
use super::samples;

/// For looking. What is then found is made shorter under a budget of its own.
const BUDGET: u64 = 1_000_000_000;
const SHORTEN_BUDGET: u64 = 1_000_000_000;
/// Shuffled rounds over all samples.
const SHUFFLES: usize = 4;
/// Calls of all samples by turns on one instance.
const LONG: usize = 500;
/// Calls of one sample on one instance, for what counts them by client, path or id:
/// some limiters refuse after 3 000.
const REPEATS: usize = 3_500;
/// Calls of a sequence that are shown.
const SHOWN: usize = 20;
/// Any constant but 0; the same rounds in every run.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Calls, as indices into all that can be called.
type Sequence = Vec<usize>;

/// An answer that is not the fresh instance's.
struct Leak {
    before: Sequence,
    target: usize,
    seen: Seen,
}

/// Looks at short orders first, then at what `many` calls on one instance have shown.
pub(super) fn probe(prober: &Prober<'_>, trials: &[Trial], many: &growth::Probed) -> Row {
    let id = CheckKind::State;
    let expected = "no trace of earlier calls";
    let budget = prober.budget(BUDGET);
    let calls = Calls::new(prober, trials, budget);
    if prober.is_exhausted() {
        return Row::skip(id, expected, prober.why_skipped());
    }
    if calls.targets == 0 {
        return Row::skip(
            id,
            expected,
            "not tried, the instance faults at every sample",
        );
    }
    let mut compared = Compared::default();
    let found = calls
        .search(calls.orders(), &mut compared, budget)
        .or_else(|| calls.stray((trials, many), &mut compared))
        .or_else(|| calls.search(calls.long_orders(), &mut compared, budget));
    match found {
        None if compared.answers == 0 => Row::skip(id, expected, prober.why_skipped()),
        None => Check::pass(id, expected, compared.to_string()).into(),
        Some(leak) => calls.row(Check::pass(id, expected, ""), leak),
    }
}

/// What a pass stands for, and no more.
#[derive(Default)]
struct Compared {
    answers: usize,
    orders: usize,
    /// Calls on one instance before an answer, at most.
    most_before: usize,
}

impl fmt::Display for Compared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answers,
            orders,
            most_before,
        } = self;
        write!(
            out,
            "{answers} answers on used, shuffled and just-faulted instances: {orders} orders, at most {most_before} calls before an answer"
        )
    }
}

struct Calls<'a> {
    prober: &'a Prober<'a>,
    /// Those that are compared come first.
    all: Vec<Trial>,
    targets: usize,
}

impl<'a> Calls<'a> {
    /// All samples after which a fresh instance may be called again. Broken
    /// input is called in between and not compared itself.
    fn new(prober: &'a Prober<'a>, trials: &[Trial], budget: Budget<'_>) -> Self {
        let mut all: Vec<Trial> = trials
            .iter()
            .filter(|trial| trial.is_survived())
            .cloned()
            .collect();
        let targets = all.len();
        for sample in samples::broken(prober.module) {
            if prober.is_exhausted() || budget.is_spent() || targets == 0 {
                break;
            }
            let seen = prober.fresh(&sample);
            let trial = Trial { sample, seen };
            if trial.is_survived() {
                all.push(trial);
            }
        }
        Self {
            prober,
            all,
            targets,
        }
    }

    /// The orders in which an instance is called, each on a new one.
    fn orders(&self) -> Vec<Sequence> {
        let targets: Sequence = (0..self.targets).collect();
        let mut orders = vec![
            [targets.clone(), targets.clone()].concat(),
            targets.iter().flat_map(|target| [*target; 2]).collect(),
        ];
        let mut random = SEED;
        for _ in 0..SHUFFLES {
            let mut order = [targets.clone(), targets.clone()].concat();
            shuffle(&mut order, &mut random);
            orders.push(order);
        }
        let faulty = (0..self.all.len()).filter(|at| self.all[*at].seen.result.is_err());
        let broken = self.targets..self.all.len();
        let mut disturbers: Sequence = faulty.chain(broken).collect();
        disturbers.dedup();
        for disturber in disturbers {
            orders.push(
                targets
                    .iter()
                    .flat_map(|target| [disturber, *target])
                    .collect(),
            );
        }
        orders.push(targets.iter().copied().cycle().take(LONG).collect());
        orders
    }

    /// The first sample of each handler, over and over.
    fn long_orders(&self) -> Vec<Sequence> {
        let handler = |at: usize| self.all[at].sample.handler();
        (0..self.targets)
            .filter(|at| *at == 0 || handler(*at) != handler(*at - 1))
            .map(|at| vec![at; REPEATS])
            .collect()
    }

    /// What the calls on one instance found that were made to watch its memory.
    fn stray(
        &self,
        (trials, many): (&[Trial], &growth::Probed),
        compared: &mut Compared,
    ) -> Option<Leak> {
        if many.answers == 0 {
            return None;
        }
        compared.orders += 1;
        compared.answers += many.answers;
        compared.most_before = compared.most_before.max(many.answers - 1);
        let stray = many.stray.as_ref()?;
        // Only those that an instance survives are here.
        let place = |at: &usize| trials[..*at].iter().filter(|it| it.is_survived()).count();
        let mut calls = many.cycle.iter().map(place).cycle();
        Some(Leak {
            before: calls.by_ref().take(stray.before).collect(),
            target: calls.next()?,
            seen: stray.seen.clone(),
        })
    }

    fn search(
        &self,
        orders: Vec<Sequence>,
        compared: &mut Compared,
        budget: Budget<'_>,
    ) -> Option<Leak> {
        let life = match self.prober.isolation() {
            Isolation::Recycle(calls) => usize::try_from(calls).unwrap_or(usize::MAX),
            // Fresh ones are asked again too, and what that shows is a warning.
            Isolation::Pooled | Isolation::Fresh => usize::MAX,
        };
        let room = Room::new(self.prober.module.limits.max_memory_bytes);
        for order in orders {
            compared.orders += 1;
            let mut instance: Option<Instance> = None;
            let mut before = Sequence::new();
            for call in order {
                if budget.is_spent() || self.prober.is_exhausted() {
                    return None;
                }
                let on = match &mut instance {
                    Some(instance) => instance,
                    None => instance.insert(self.prober.instance().ok()?),
                };
                let mut seen = self.prober.call(on, &self.all[call].sample);
                let is_poisoned = seen.poison.is_some();
                if seen.is_slow() {
                    seen = self.after(&before, call).unwrap_or(seen);
                }
                if call < self.targets {
                    compared.answers += 1;
                    compared.most_before = compared.most_before.max(before.len());
                    if !seen.is_like(&self.all[call].seen) {
                        return Some(Leak {
                            before,
                            target: call,
                            seen,
                        });
                    }
                }
                if is_poisoned {
                    instance = None;
                    before.clear();
                } else {
                    before.push(call);
                }
                // From here on production has another one.
                let is_full = instance.as_ref().is_some_and(|it| !room.has_some_for(it));
                if before.len() >= life || is_full {
                    instance = None;
                    before.clear();
                }
            }
        }
        None
    }

    /// What `target` answers after these calls, if an instance survives them.
    fn after(&self, before: &[usize], target: usize) -> Option<Seen> {
        self.prober.patiently(|| {
            let mut instance = self.prober.instance().ok()?;
            for call in before {
                let seen = self.prober.call(&mut instance, &self.all[*call].sample);
                if seen.poison.is_some() {
                    return None;
                }
            }
            Some(self.prober.call(&mut instance, &self.all[target].sample))
        })
    }

    /// A history less the calls of kinds that change nothing. What counts calls is not
    /// cut short by leaving out one call after the other.
    fn narrowed(
        &self,
        mut history: Sequence,
        target: usize,
        changes: &mut impl FnMut(&[usize]) -> bool,
    ) -> Sequence {
        let handler = |at: usize| self.all[at].sample.handler();
        let kinds: BTreeSet<usize> = history.iter().copied().collect();
        let handlers: BTreeSet<&str> = kinds.iter().map(|at| handler(*at)).collect();
        let only = |is_kept: &dyn Fn(usize) -> bool, history: &Sequence| {
            let kept = history.iter().copied().filter(|at| is_kept(*at));
            Some(kept.collect::<Sequence>()).filter(|kept| kept.len() < history.len())
        };
        let of_sample = only(&|at| at == target, &history);
        let of_handler = |kind| only(&|at| handler(at) == kind, &history);
        let mut of_kind = of_sample
            .into_iter()
            .chain(handlers.into_iter().filter_map(of_handler));
        if let Some(kept) = of_kind.find(|kept| changes(kept)) {
            history = kept;
        }
        // To look further takes many calls, and often all are needed.
        if history.len() > LONG && !changes(&history[1..]) {
            return history;
        }
        for kind in kinds {
            if let Some(kept) = only(&|at| at != kind, &history).filter(|kept| changes(kept)) {
                history = kept;
            }
        }
        history
    }

    fn row(&self, mut check: Check, leak: Leak) -> Row {
        let fresh = &self.all[leak.target].seen;
        let budget = self.prober.budget(SHORTEN_BUDGET);
        let mut last = leak.seen;
        let mut changes = |before: &[usize]| {
            if budget.is_spent() || self.prober.is_exhausted() {
                return false;
            }
            match self.after(before, leak.target) {
                Some(seen) if !seen.is_like(fresh) => {
                    last = seen;
                    true
                }
                Some(_) | None => false,
            }
        };
        let history = self.narrowed(leak.before, leak.target, &mut changes);
        let before = shortest(&history, changes);
        let call = |at: usize| label(&self.all[at].sample);
        let (as_fresh, as_used) = difference(fresh, &last);
        check.found = format!(
            "{}: {as_fresh} on a fresh instance, {as_used} after {}",
            call(leak.target),
            match before.as_slice() {
                [one] => call(*one),
                more => format!("{} calls", more.len()),
            }
        );
        let line = |(at, index): (usize, &usize)| format!("{}. {}", at + 1, call(*index));
        let mut detail: Vec<String> = before.iter().enumerate().take(SHOWN).map(line).collect();
        if before.len() > SHOWN {
            detail.push(format!("… {} more calls", before.len() - SHOWN));
        }
        detail.push(format!("{}: {as_used}", line((before.len(), &leak.target))));
        let (status, fix) = if self.prober.isolation() == Isolation::Fresh {
            (
                CheckStatus::Warn,
                "keep nothing between calls; this is harmless only with --isolation fresh",
            )
        } else {
            (
                CheckStatus::Fail,
                "keep nothing between calls in globals or statics, or run with --isolation fresh",
            )
        };
        let row = Row::from(check.with(status, fix)).with_detail(detail.join("\n"));
        row.beside_published([fresh.fault(), last.fault()])
    }
}

fn label(sample: &Sample) -> String {
    format!("{} {:?}", sample.handler(), sample.name)
}

/// Fisher and Yates, by a xorshift generator.
fn shuffle<T>(items: &mut [T], random: &mut u64) {
    for at in (1..items.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let other = usize::try_from(*random % (at as u64 + 1)).unwrap_or(0);
        items.swap(at, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_repeat_and_lose_nothing() {
        let shuffled = |mut random: u64| {
            let mut items: Vec<u8> = (0..20).collect();
            shuffle(&mut items, &mut random);
            items
        };
        assert_eq!(shuffled(SEED), shuffled(SEED));
        assert_ne!(shuffled(SEED), (0..20).collect::<Vec<u8>>());
        let mut sorted = shuffled(SEED);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<u8>>());
    }
}
