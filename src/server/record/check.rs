//! Asks the module about redacted events before they are written.
//!
//! In: an event with its answer, and the events of its exchange before it, each as
//! it was and as it is written. Out: whether the module decides about the event as
//! it is written as it did. Invariants: it is asked on instances of its own, by the
//! thread that writes; for half of that thread's time at most; and where no answer
//! comes in time, or records wait, the event is written unchecked.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::capture::{CapturedStep, Heard, Place, Recorded, Transaction, Tried, Written};
use crate::compare::{DecisionCheck, Played, drift};
use crate::event::{Event, EventKind};
use crate::policy::Policy;
use crate::question::Question;

/// Exchanges whose events are kept, and bytes of all of them.
const MAX_EXCHANGES: usize = 8192;
const MAX_BYTES: usize = 16 << 20;
/// Events of one exchange, and their bytes: all of them are asked about each time.
const MAX_EVENTS: usize = 32;
const MAX_EXCHANGE_BYTES: usize = 1 << 20;
/// One call, however much longer the module may take for an event.
const CALL: Duration = Duration::from_millis(100);
/// All questions about one event.
pub(super) const EVENT: Duration = Duration::from_millis(500);
/// For so many times as long as the thread asked it is busy with that,
const SHARE: u32 = 2;
/// and when it is this far behind it does not ask.
const BEHIND: Duration = Duration::from_secs(5);

/// What was written, where later events may be asked about with it.
#[derive(Default)]
pub(super) struct Checks {
    exchanges: HashMap<u64, Vec<Step>>,
    /// Oldest first; one that is over may still be here.
    order: VecDeque<u64>,
    bytes: usize,
    /// The thread may ask again from then on.
    free_at: Option<Instant>,
}

/// One event of an exchange.
pub(super) struct Step {
    pub(super) event: Event,
    pub(super) at_ns: Option<i64>,
    /// The answer of the time, as JSON.
    pub(super) answer: Vec<u8>,
    pub(super) module: Arc<str>,
    /// The input as it was, and as it is written.
    pub(super) input: String,
    pub(super) written: String,
}

impl Step {
    fn size(&self) -> usize {
        // The event holds about what its input does.
        2 * self.input.len() + self.written.len() + self.answer.len() + size_of::<Self>()
    }
}

/// What is known when an event is to be written.
pub(super) struct Questions<'a> {
    policy: &'a Weak<Policy>,
    /// The events of the exchange, this one the last.
    steps: Vec<&'a Step>,
    /// Whether those before it are known.
    is_whole: bool,
    /// Whether the thread did not ask for too long before.
    is_free: bool,
    until: Instant,
}

impl Checks {
    /// An exchange begins.
    pub(super) fn begin(&mut self, exchange: u64) {
        self.forget(exchange);
        self.exchanges.insert(exchange, Vec::new());
        self.order.push_back(exchange);
        self.make_room();
        if self.order.len() > 2 * MAX_EXCHANGES {
            let exchanges = &self.exchanges;
            self.order.retain(|kept| exchanges.contains_key(kept));
        }
    }

    /// Forgets the oldest exchanges until the others are within the bounds.
    fn make_room(&mut self) {
        while self.exchanges.len() > MAX_EXCHANGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.forget(oldest);
        }
    }

    /// About an event to be written; `until` ends all asking.
    pub(super) fn questions<'a>(
        &'a self,
        exchange: u64,
        (step, policy): (&'a Step, &'a Weak<Policy>),
        until: Instant,
    ) -> Questions<'a> {
        let now = Instant::now();
        let is_free = self.free_at.is_none_or(|at| at <= now + BEHIND);
        let known = self.exchanges.get(&exchange);
        let before = known.into_iter().flatten();
        Questions {
            policy,
            steps: before.chain([step]).collect(),
            is_whole: known.is_some(),
            is_free,
            until: until.min(now + EVENT),
        }
    }

    /// The thread asked since then.
    pub(super) fn spent(&mut self, since: Instant) {
        let begun = self.free_at.map_or(since, |at| at.max(since));
        self.free_at = Some(begun + since.elapsed() * SHARE);
    }

    /// Keeps an event for those that may follow it.
    pub(super) fn keep(&mut self, exchange: u64, step: Step, policy: &Weak<Policy>) {
        let policy = policy.upgrade();
        let kind = step.event.kind();
        let later = EventKind::ALL.into_iter().filter(|it| *it >= kind);
        let goes_on = later.into_iter().any(|it| {
            let is_body = matches!(it, EventKind::RequestBody | EventKind::ResponseBody);
            (it > kind || is_body) && policy.as_ref().is_some_and(|policy| policy.handles(it))
        });
        if goes_on {
            self.add(exchange, step);
        } else {
            self.forget(exchange);
        }
    }

    fn add(&mut self, exchange: u64, step: Step) {
        let Some(steps) = self.exchanges.get_mut(&exchange) else {
            return;
        };
        let size: usize = steps.iter().map(Step::size).sum();
        if steps.len() >= MAX_EVENTS || size + step.size() > MAX_EXCHANGE_BYTES {
            self.forget(exchange);
            return;
        }
        self.bytes += step.size();
        steps.push(step);
        self.make_room();
    }

    /// Nothing of the exchange follows that is recorded.
    pub(super) fn forget(&mut self, exchange: u64) {
        let steps = self.exchanges.remove(&exchange).unwrap_or_default();
        self.bytes -= steps.iter().map(Step::size).sum::<usize>();
    }
}

/// The same module for one exchange, which is not waited for as long. The policy
/// itself is not kept: one that was replaced is waited for.
fn alone(policy: &Weak<Policy>) -> Option<Policy> {
    let policy = policy.upgrade()?;
    let mut settings = policy.settings().clone();
    settings.pool.size = 1;
    settings.pool.limits.timeout = settings.pool.limits.timeout.min(CALL);
    Some(Policy::new(Arc::clone(policy.pool().module()), settings))
}

impl Questions<'_> {
    /// Gives `write` what tells whether the decision about the event stays, given the
    /// input as it is to be written.
    pub(super) fn asked<T>(
        &self,
        write: impl FnOnce(&mut dyn FnMut(&Tried<'_, Written>) -> Heard) -> T,
    ) -> T {
        let policy = OnceCell::new();
        let transaction = self.transaction();
        let mut check = None;
        write(&mut |tried| {
            let written = tried.written.input.as_str();
            let Some((last, before)) = self.steps.split_last() else {
                return Heard::Same;
            };
            let are_same = before.iter().all(|step| step.input == step.written);
            if written == last.input && are_same && self.is_whole {
                return Heard::Same;
            }
            let may_ask = self.is_whole && self.is_free && self.is_of_one_module();
            if !may_ask || Instant::now() >= self.until {
                return Heard::Nothing;
            }
            let policy: &Option<Policy> = policy.get_or_init(|| alone(self.policy));
            let Some(policy) = policy else {
                return Heard::Nothing;
            };
            let failure_policy = policy.settings().failure_policy;
            let check = check.get_or_insert_with(|| {
                let transaction = &transaction;
                DecisionCheck::new(policy, transaction, move |played: &Played| {
                    let now = (transaction, played);
                    let drift = drift(now, failure_policy, &[], &mut Vec::new());
                    let change = drift.and_then(|drift| drift.change);
                    change.is_none_or(|change| !change.is_other_end())
                })
            });
            let inputs = before.iter().map(|step| step.written.as_str());
            // What the guest logs here is not about an event of now.
            let nobody = tracing::subscriber::NoSubscriber::default();
            tracing::subscriber::with_default(nobody, || {
                check.ask(inputs.chain([written]), (tried.redactor, tried.found))
            })
        })
    }

    fn is_of_one_module(&self) -> bool {
        let mut modules = self.steps.iter().map(|step| &step.module);
        let first = modules.next();
        modules.all(|module| Some(module) == first)
    }

    fn transaction(&self) -> Transaction<'_> {
        let steps = self.steps.iter().map(|step| CapturedStep {
            input: Question::from(&step.event),
            at_ns: step.at_ns,
            recorded: Some(Recorded {
                response: Cow::Borrowed(&step.answer),
                fuel: None,
                module: None,
            }),
        });
        Transaction {
            place: Place {
                file: Arc::from(""),
                record: 0,
                offset: 0,
            },
            id: Cow::Borrowed(""),
            steps: steps.collect(),
            expect: None,
            remarks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many exchanges begin before any of them goes on.
    #[test]
    fn bytes_of_exchanges_that_go_on_are_bounded() {
        let mut checks = Checks::default();
        let step = || Step {
            event: Event::RequestHeaders(Default::default()),
            at_ns: None,
            answer: Vec::new(),
            module: Arc::from(""),
            input: "x".repeat(100_000),
            written: String::new(),
        };
        (0..500).for_each(|exchange| checks.begin(exchange));
        for exchange in 0..500 {
            checks.add(exchange, step());
            assert!(checks.bytes <= MAX_BYTES, "{exchange}: {}", checks.bytes);
        }
        assert!(checks.exchanges.contains_key(&499), "the newest is kept");
        let sizes = checks.exchanges.values().flatten().map(Step::size);
        assert_eq!(sizes.sum::<usize>(), checks.bytes);
    }
}
