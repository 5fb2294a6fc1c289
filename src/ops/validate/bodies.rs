//! Does what becomes of a body hang on how it is cut, or on which instance is asked
//! about which of its chunks: bodies in one piece, in chunks on one instance, and in
//! chunks over several.

use std::fmt;

use crate::check::{Check, CheckKind, CheckStatus};
use crate::event::EventKind;
use crate::fault::printable;
use crate::guest::Instance;
use crate::limits::Isolation;
use crate::policy::BodyMode;
use crate::policy::bodies::replaces_body;
use crate::question::Phase;

use super::Row;
use super::answers::difference;
use super::calls::{Budget, Prober, Sample, Seen};
use super::samples;

const BUDGET: u64 = 600_000_000;
/// Bytes of a chunk that a row shows.
const SHOWN: usize = 24;
const EXPECTED: &str = "the same decision about a body however it is cut";
/// What a module does that wants to see bodies whole.
const WHOLE: &str =
    "export the global whole_body with the value 1, or run every command with --body whole";
const PROXIES: &str =
    "zentinel-proxy up to 0.6.45 sends one chunk of a body, 0.6.54 several where it streams";
/// Where a body can be changed.
const ONE_CHUNK: &str = "a body can be changed only where the proxy sends it in one chunk: zentinel-proxy up to 0.6.45, and 0.6.54 with a response body within max-inspection-bytes; with buffering of request bodies (request-body-mode \"buffer\" or \"inspect-first\") a change of them is ignored";

/// Kinds of bodies that a module has a handler for.
pub(super) fn kinds(prober: &Prober<'_>) -> impl Iterator<Item = EventKind> {
    [EventKind::RequestBody, EventKind::ResponseBody]
        .into_iter()
        .filter(|kind| prober.module.handles(Phase::Event(*kind)))
}

/// A row for each handler of bodies.
pub(super) fn rows(prober: &Prober<'_>) -> Vec<Row> {
    kinds(prober).map(|kind| row(prober, kind)).collect()
}

/// How the module gets bodies whole; none where it replaces them, as that is a fault then.
pub(super) fn whole(prober: &Prober<'_>) -> Option<&'static str> {
    let replaces = kinds(prober).any(|kind| Replacing::of(prober, kind).first.is_some());
    (!replaces).then(|| match prober.module.wants_whole_bodies() {
        Some(_) => {
            "export the global whole_body with the value 1 (with 0, --body whole has no effect)"
        }
        None => WHOLE,
    })
}

/// What to do so that it makes no difference how a body is cut.
fn remedy(prober: &Prober<'_>) -> String {
    whole(prober).map_or_else(
        || {
            format!(
                "the module replaces bodies, which is the fault bad-answer:body-mutation if it gets them whole and they come in several chunks; {ONE_CHUNK}"
            )
        },
        str::to_owned,
    )
}

/// What a module makes of whole bodies.
#[derive(Default)]
struct Replacing {
    asked: usize,
    /// The first body that an answer replaces.
    first: Option<&'static str>,
}

impl Replacing {
    fn of(prober: &Prober<'_>, kind: EventKind) -> Self {
        let budget = prober.budget(BUDGET);
        let mut found = Self::default();
        for mut body in samples::whole_bodies(kind) {
            if budget.is_spent() || prober.is_exhausted() || found.first.is_some() {
                break;
            }
            if prober.asks(&mut body) {
                found.asked += 1;
                let fate = Fate::of(&[prober.fresh(&body)]);
                found.first = (fate == Fate::Changed).then_some(body.name);
            }
        }
        found
    }

    fn row(&self, prober: &Prober<'_>, kind: EventKind) -> Row {
        let id = CheckKind::Bodies.of(Phase::Event(kind).handler());
        if self.asked == 0 {
            return Row::skip(id, EXPECTED, prober.why_skipped());
        }
        let who = if prober.module.wants_whole_bodies().is_some() {
            "by its global whole_body"
        } else {
            "--body whole"
        };
        let mut found = format!("bodies are given whole ({who}), however the proxy cuts them");
        let Some(name) = self.first else {
            return Check::pass(id, EXPECTED, found).into();
        };
        found.push_str(&format!(
            "; {name:?}: replaces a body; where the body comes in several chunks that is the fault bad-answer:body-mutation"
        ));
        if !kind.is_request() {
            found.push_str("; zentinel-proxy up to 0.6.54 sends a response body in one chunk");
            return Check::pass(id, EXPECTED, found).into();
        }
        Check::warn(id, EXPECTED, found, ONE_CHUNK).into()
    }
}

fn row(prober: &Prober<'_>, kind: EventKind) -> Row {
    let id = CheckKind::Bodies.of(Phase::Event(kind).handler());
    if prober.body_mode() == BodyMode::Whole {
        return Replacing::of(prober, kind).row(prober, kind);
    }
    let mut cutting = Cutting {
        prober,
        budget: prober.budget(BUDGET),
        compared: Compared::default(),
        plain: None,
        moved: None,
        missed: None,
    };
    for body in samples::whole_bodies(kind) {
        cutting.compare(&body);
    }
    if cutting.compared.bodies == 0 {
        let why = if cutting.is_over() {
            prober.why_skipped()
        } else {
            "not tried, the module faults at every body".to_owned()
        };
        return Row::skip(id, EXPECTED, why);
    }
    let remembered = match cutting.moved {
        None => cutting.remembers(kind),
        Some(_) => None,
    };
    let check = Check::pass(id, EXPECTED, cutting.compared.to_string());
    match (cutting.moved, cutting.missed, remembered) {
        (None, None, None) => check.into(),
        (Some(moved), ..) => moved.row(check, prober),
        (None, missed, remembered) => {
            let found = [missed, remembered].into_iter().flatten();
            let mut check = check;
            check.found = found.collect::<Vec<_>>().join("; ");
            check
                .with(CheckStatus::Warn, format!("{}; {PROXIES}", remedy(prober)))
                .into()
        }
    }
}

/// What a pass stands for, and no more.
#[derive(Default)]
struct Compared {
    bodies: usize,
    cuts: usize,
    /// Bodies that are decided about otherwise than the first: what a rule looks for is
    /// in them.
    marked: usize,
}

impl fmt::Display for Compared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bodies,
            cuts,
            marked,
        } = self;
        write!(
            out,
            "bodies are given chunk by chunk: {bodies} bodies, {marked} of them decided about otherwise than the first, cut in {cuts} ways, on one instance and over several"
        )
    }
}

/// A chunk whose answer hangs on the instance that is asked.
struct Moved {
    /// Body and cut.
    what: String,
    /// The answer where one instance was asked about all chunks, and where several were.
    answers: (String, String),
    /// Whether the chunks of another exchange do the same.
    by_others: bool,
}

impl Moved {
    fn row(self, mut check: Check, prober: &Prober<'_>) -> Row {
        let remedy = remedy(prober);
        let Self {
            what,
            answers: (together, apart),
            by_others,
        } = self;
        check.found = format!(
            "{what}: {together} where one instance was asked about the chunks before, {apart} where another was"
        );
        if prober.isolation() == Isolation::Fresh {
            let fix = format!(
                "each chunk meets a new instance (--isolation fresh), so the module never has a whole body; {remedy}"
            );
            return check.with(CheckStatus::Fail, fix).into();
        }
        if by_others {
            check
                .found
                .push_str("; the chunks of another exchange change it just so");
            let fix = format!("keep nothing of one exchange that another can meet; {remedy}");
            return check.with(CheckStatus::Fail, fix).into();
        }
        let fix = format!(
            "the module joins chunks in its instance; serve asks one instance about all of them where it can, and another where that one is busy or gone; {remedy}; {PROXIES}"
        );
        check.with(CheckStatus::Warn, fix).into()
    }
}

/// What becomes of an exchange by the answers about a body.
#[derive(Clone, PartialEq, Eq)]
enum Fate {
    Passes,
    Changed,
    /// Refused, or a fault.
    Ends(String),
}

impl Fate {
    fn of(answers: &[Seen]) -> Self {
        if let Some(last) = answers.last().filter(|last| !passes(last)) {
            return Self::Ends(last.outcome());
        }
        let changes = |seen: &Seen| seen.response().is_some_and(replaces_body);
        if answers.iter().any(changes) {
            Self::Changed
        } else {
            Self::Passes
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passes => out.write_str("allow"),
            Self::Changed => out.write_str("allow with a changed body"),
            Self::Ends(outcome) => out.write_str(outcome),
        }
    }
}

/// Whether more of the exchange follows.
fn passes(seen: &Seen) -> bool {
    match &seen.result {
        Ok(answer) => answer.as_ref().is_none_or(|it| it.answer.passes()),
        Err(_) => false,
    }
}

struct Cutting<'a> {
    prober: &'a Prober<'a>,
    budget: Budget<'a>,
    compared: Compared,
    /// What becomes of the first body, which is harmless.
    plain: Option<Fate>,
    moved: Option<Moved>,
    /// A body that meets another fate in chunks, in words.
    missed: Option<String>,
}

impl Cutting<'_> {
    fn is_over(&self) -> bool {
        self.budget.is_spent() || self.prober.is_exhausted() || self.moved.is_some()
    }

    fn compare(&mut self, body: &Sample) {
        if self.is_over() {
            return;
        }
        let whole = self.prober.fresh(body);
        // That is a finding of its handler's own row.
        if whole.poison.is_some() || whole.result.is_err() {
            return;
        }
        self.compared.bodies += 1;
        let fate = Fate::of(&[whole]);
        let is_marked = self.plain.get_or_insert_with(|| fate.clone()) != &fate;
        self.compared.marked += usize::from(is_marked);
        for places in cuts(
            samples::data(body).len(),
            is_marked && self.missed.is_none(),
        ) {
            if self.is_over() {
                return;
            }
            self.compared.cuts += 1;
            self.cut(body, &fate, &places);
        }
    }

    fn cut(&mut self, body: &Sample, whole: &Fate, places: &[usize]) {
        let chunks = samples::cut(body, places);
        let instances = if self.prober.isolation() == Isolation::Fresh {
            chunks.len()
        } else {
            2
        };
        let together = self.ask(&chunks, 1);
        let apart = self.ask(&chunks, instances);
        let mut pairs = together.iter().zip(&apart);
        if let Some(at) = pairs.position(|(one, other)| !one.is_like(other)) {
            self.moved = Some(Moved {
                what: format!("{:?} in {}, chunk_index {at}", body.name, told(&chunks)),
                answers: difference(&together[at], &apart[at]),
                by_others: self.is_like_after_others(&chunks[..=at], &together[at]),
            });
            return;
        }
        let fate = Fate::of(&together);
        if fate != *whole && self.missed.is_none() {
            let what = match whole {
                Fate::Passes => "a body that passes is stopped or changed where it is cut",
                Fate::Changed | Fate::Ends(_) => {
                    "what the module looks for is not found where it is cut"
                }
            };
            self.missed = Some(format!(
                "{what}: {:?} is given {whole} in one chunk, {fate} in {}",
                body.name,
                told(&chunks)
            ));
        }
    }

    /// Asks so many instances by turns about the chunks, until the exchange ends.
    fn ask(&self, chunks: &[Sample], instances: usize) -> Vec<Seen> {
        self.prober.patiently(|| {
            let mut all: Vec<Instance> = Vec::new();
            let mut answers = Vec::new();
            for (at, chunk) in chunks.iter().enumerate() {
                if at < instances {
                    match self.prober.instance() {
                        Ok(instance) => all.push(instance),
                        Err(_) => break,
                    }
                }
                let seen = self.prober.call(&mut all[at % instances], chunk);
                let is_over = !passes(&seen) || seen.poison.is_some();
                answers.push(seen);
                if is_over {
                    break;
                }
            }
            answers
        })
    }

    /// Whether the last chunk is answered so too after those chunks of another exchange.
    fn is_like_after_others(&self, chunks: &[Sample], together: &Seen) -> bool {
        let Some((last, before)) = chunks.split_last() else {
            return false;
        };
        let mut others: Vec<Sample> = before.iter().map(samples::of_another).collect();
        others.push(last.clone());
        let after = self.ask(&others, 1);
        after.len() == others.len() && after.last().is_some_and(|it| it.is_like(together))
    }

    /// Whether a chunk costs other instructions after one of its body than after the same
    /// one of any other body: then the module may keep something by the correlation id,
    /// though no decision has shown it. Of two other bodies one has an id that differs at
    /// once and one that differs at its end: what is only left in a buffer tells them apart.
    fn remembers(&self, kind: EventKind) -> Option<String> {
        if self.prober.isolation() == Isolation::Fresh {
            return None;
        }
        let body = samples::whole_bodies(kind).next()?;
        let own = samples::cut(&body, &[samples::data(&body).len() / 2]);
        let [first, last] = own.as_slice() else {
            return None;
        };
        let id = first.input.event()?.correlation_id().strip_suffix('1')?;
        let other = [samples::of_another(first), last.clone()];
        let near = [samples::of_exchange(first, &format!("{id}2")), last.clone()];
        let fuel = |chunks: &[Sample]| self.ask(chunks, 1).get(1)?.cost.fuel;
        let (after_own, after_other) = (fuel(&own)?, fuel(&other)?);
        // One that is not repeated says nothing.
        let is_repeated = fuel(&own)? == after_own && fuel(&other)? == after_other;
        let is_sure = is_repeated && fuel(&near)? == after_other;
        (is_sure && after_own != after_other).then(|| {
            format!(
                "it may keep something of a chunk by its correlation id: the next chunk costs {after_own} instructions, after one of another body {after_other}"
            )
        })
    }
}

/// Where to cut a body: in two, in three and in single bytes; in two at each place where
/// what a rule looks for may stand anywhere.
fn cuts(size: usize, everywhere: bool) -> Vec<Vec<usize>> {
    let halves = 1..size;
    let mut all: Vec<Vec<usize>> = if everywhere {
        halves.map(|at| vec![at]).collect()
    } else {
        halves
            .filter(|at| *at == size / 2)
            .map(|at| vec![at])
            .collect()
    };
    if size >= 3 {
        all.push(vec![size / 3, size * 2 / 3]);
        all.push((1..size).collect());
    }
    all
}

/// How a body is cut, around the first place.
fn told(chunks: &[Sample]) -> String {
    let text = |chunk: &Sample| String::from_utf8_lossy(samples::data(chunk)).into_owned();
    let first: Vec<char> = chunks
        .first()
        .map(text)
        .unwrap_or_default()
        .chars()
        .collect();
    let tail = first[first.len().saturating_sub(SHOWN)..]
        .iter()
        .collect::<String>();
    let head = chunks.get(1).map(text).unwrap_or_default();
    let [tail, head] = [tail, head].map(|text| printable(&text, SHOWN));
    format!("{} chunks ({tail} | {head})", chunks.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_in_two_three_and_more() {
        assert_eq!(cuts(0, true), [[0; 0]; 0]);
        assert_eq!(cuts(1, true), [[0; 0]; 0]);
        assert_eq!(cuts(2, false), [[1]]);
        assert_eq!(cuts(4, false), [vec![2], vec![1, 2], vec![1, 2, 3]]);
        assert_eq!(
            cuts(4, true),
            [vec![1], vec![2], vec![3], vec![1, 2], vec![1, 2, 3]]
        );
    }
}
