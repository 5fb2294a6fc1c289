//! Probes of single calls, each on a fresh instance: is the answer a result,
//! is it repeated, does it hang on how header names are spelled.

use crate::abi::Abi;
use crate::answer::Answer;
use crate::check::{Check, CheckKind, CheckStatus};
use crate::fault::printable;
use crate::guest::convention::json_buffer::answer::KEYS;
use crate::guest::convention::json_buffer::hook::RESULT_KEYS;
use crate::protocol::proxy::{LISTS, Quirk, quirks};
use crate::question::HeaderNames;
use crate::question::Question;
use crate::suggest;

use super::Row;
use super::calls::{Prober, Sample, Seen, Trial, word};
use super::hooks;

/// For the first pass over the samples; ordinary modules need a few ms.
const SAMPLES_BUDGET: u64 = 300_000_000;
/// For each of the probes that repeat it.
const REPEAT_BUDGET: u64 = 100_000_000;

/// Unknown keys named in a row.
const KEYS_SHOWN: usize = 5;

/// Calls each sample on an instance of its own. After a deadline the rest of
/// that handler's samples is left out.
pub(super) fn try_samples(prober: &Prober<'_>, samples: Vec<Sample>) -> Vec<Trial> {
    let budget = prober.budget(SAMPLES_BUDGET);
    let mut trials: Vec<Trial> = Vec::new();
    let mut given_up: Option<&'static str> = None;
    for sample in samples {
        let handler = sample.handler();
        let is_first = trials
            .last()
            .is_none_or(|last| last.sample.handler() != handler);
        if prober.is_exhausted() || given_up == Some(handler) || (budget.is_spent() && !is_first) {
            continue;
        }
        let seen = prober.fresh(&sample);
        if seen.is_slow() {
            given_up = Some(handler);
        }
        trials.push(Trial { sample, seen });
    }
    trials
}

/// A row for each handler, and one for each kind of remark about its answers.
pub(super) fn rows(prober: &Prober<'_>, trials: &[Trial]) -> Vec<Row> {
    let mut rows = Vec::new();
    for handler in prober.module.handlers() {
        let own: Vec<&Trial> = trials
            .iter()
            .filter(|trial| trial.sample.handler() == handler)
            .collect();
        if own.is_empty() {
            let id = CheckKind::Answer.of(handler);
            rows.push(Row::skip(
                id,
                "a valid result each time",
                prober.why_skipped(),
            ));
            continue;
        }
        rows.push(valid(handler, &own));
        rows.extend(given_back(handler, &own));
        // To a hook it is a plain yes.
        if prober.module.abi == Abi::Agent {
            rows.extend(empty(handler, &own));
        }
        rows.extend(hooks::rows(prober, handler, &own));
        rows.extend(unknown_keys(handler, &own));
        rows.extend(mended(handler, &own));
        rows.extend(replaced(handler, &own));
        rows.extend(request_body(handler, &own));
    }
    rows
}

fn valid(handler: &str, trials: &[&Trial]) -> Row {
    let id = CheckKind::Answer.of(handler);
    let expected = "a valid result each time";
    let faulted: Vec<&&Trial> = trials
        .iter()
        .filter(|trial| trial.seen.result.is_err())
        .collect();
    if let Some(trial) = faulted.first()
        && let Err(fault) = &trial.seen.result
    {
        let mut row = Row::fault(id, expected, fault);
        row.check.found = format!(
            "{}, for {} of {} samples, first {:?}",
            row.check.found,
            faulted.len(),
            trials.len(),
            trial.sample.name,
        );
        return row.beside_published(faulted.iter().map(|trial| trial.seen.fault()));
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for trial in trials {
        let event = trial.seen.response().map(|it| it.decision.name());
        let hook = trial.seen.hook_result().map(|it| word(it.ok));
        let name = event.or(hook).unwrap_or("empty");
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let found = format!("{} samples: {}", trials.len(), counts.join(", "));
    Check::pass(id, expected, found).into()
}

/// The answer stands, but `dealloc` faulted after it.
fn given_back(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let (trial, code) = trials.iter().find_map(|trial| {
        let code = trial.seen.poison.filter(|_| trial.seen.result.is_ok())?;
        Some((trial, code))
    })?;
    let mut row = Row::from(Check::fail(
        CheckKind::Dealloc.of(handler),
        "dealloc frees input and answer",
        format!("{code} in dealloc, first for {:?}", trial.sample.name),
        "dealloc gets the addresses that alloc and the handler returned, once each; the answer is used, but every such call costs an instance",
    ));
    row.fault = Some(code);
    Some(row)
}

fn empty(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let empty: Vec<&&Trial> = trials
        .iter()
        .filter(|trial| matches!(trial.seen.result, Ok(None)))
        .collect();
    let first = empty.first()?;
    let found = format!(
        "no answer (length 0 or address 0), which allows, for {} of {} samples, first {:?}",
        empty.len(),
        trials.len(),
        first.sample.name
    );
    let (id, expected) = (CheckKind::Empty.of(handler), "a decision in each answer");
    if let Some(fix) = empty.iter().find_map(|trial| trial.seen.misread) {
        return Some(Check::fail(id, expected, found, fix).into());
    }
    Some(
        Check::warn(id, expected, found, "answer with a decision; published modules answer 0 when they fail to parse their input, so that it passes",
            )
            .into(),
    )
}

fn unknown_keys(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let mut keys: Vec<&str> = Vec::new();
    for answer in trials
        .iter()
        .filter_map(|trial| trial.seen.result.as_ref().ok()?.as_ref())
    {
        for key in &answer.unknown_keys {
            if !keys.contains(&key.as_str()) && keys.len() <= KEYS_SHOWN {
                keys.push(key);
            }
        }
    }
    if keys.is_empty() {
        return None;
    }
    let mut named: Vec<String> = keys
        .iter()
        .take(KEYS_SHOWN)
        .map(|key| {
            let near = nearest(key)
                .map(|near| format!(" (nearest: {near:?})"))
                .unwrap_or_default();
            format!("\"{}\"{near}", printable(key, 60))
        })
        .collect();
    if keys.len() > KEYS_SHOWN {
        named.push("and more".to_owned());
    }
    Some(
        Check::warn(
            CheckKind::Keys.of(handler),
            "known keys in each answer",
            format!("unknown {}", named.join(", ")),
            "rename or drop them; production ignores them",
        )
        .into(),
    )
}

fn nearest(key: &str) -> Option<&'static str> {
    let plain = |text: &str| text.replace(['_', '-', ' '], "").to_ascii_lowercase();
    let key = key.rsplit('.').next().unwrap_or(key);
    KEYS.into_iter()
        .chain(RESULT_KEYS)
        .filter_map(|known| Some((suggest::edits(&plain(key), &plain(known))?, known)))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Answers of which a part could not be used and was replaced or dropped.
fn mended(handler: &str, trials: &[&Trial]) -> Vec<Row> {
    let kinds = [
        (
            "bad-status",
            CheckKind::Status,
            "a status of 200 to 599, for a redirect of 301, 302, 303, 307 or 308",
            "another one, replaced by the default",
        ),
        (
            "bad-redirect",
            CheckKind::Redirect,
            "an http or https URL or an absolute path as \"body\"",
            "none, replaced by a block with 500",
        ),
        (
            "bad-header",
            CheckKind::Headers,
            "at most 128 operations on headers a proxy does not own, values free of CR, LF and NUL",
            "other operations, removed from the answer",
        ),
    ];
    kinds
        .into_iter()
        .filter_map(|(tag, kind, expected, found)| {
            let trial = trials.iter().find(|trial| {
                trial
                    .seen
                    .response()
                    .is_some_and(|response| response.audit.tags.iter().any(|have| have == tag))
            })?;
            let found = format!("{found}, first for {:?}", trial.sample.name);
            let fix = format!("correct the answer; in production it is tagged {tag:?}");
            Some(Check::warn(kind.of(handler), expected, found, fix).into())
        })
        .collect()
}

/// Headers of the upstream that an answer replaces, of a kind that comes more than
/// once. Cookies are a warning; the others are what an author may have meant.
fn replaced(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let cookies = [(Quirk::CookiesReplaced, CheckStatus::Warn)].into_iter();
    let lists = LISTS.map(|(_, quirk)| (quirk, CheckStatus::Pass));
    let (quirk, status, trial) = cookies
        .chain(lists)
        .find_map(|(quirk, status)| Some((quirk, status, first(quirk, trials)?)))?;
    let found = format!("{}; first for {:?}", quirk.explain(), trial.sample.name);
    let fix = "give it in append_response_headers: a value beside those of the upstream";
    let check = Check::pass(
        CheckKind::Replaced.of(handler),
        "headers with several values are kept",
        found,
    );
    Some(match status {
        CheckStatus::Pass => check.into(),
        status => check.with(status, fix).into(),
    })
}

/// The first answer that meets this quirk.
fn first<'a>(quirk: Quirk, trials: &[&'a Trial]) -> Option<&'a Trial> {
    let meets = |trial: &&&Trial| {
        let Question::Event(event) = &trial.sample.input else {
            return false;
        };
        let response = trial.seen.response();
        response.is_some_and(|response| quirks(event, response).contains(&quirk))
    };
    trials.iter().find(meets).copied()
}

/// What an answer to a request's body asks for, and no proxy does without a setting
/// of its own: told, since the module is not wrong.
fn request_body(handler: &str, trials: &[&Trial]) -> Option<Row> {
    let kinds = [
        Quirk::RequestMutationIgnored,
        Quirk::RequestOpsAfterBodyDropped,
    ];
    let (quirk, trial) = kinds
        .into_iter()
        .find_map(|quirk| Some((quirk, first(quirk, trials)?)))?;
    let found = format!("{}; first for {:?}", quirk.explain(), trial.sample.name);
    let expected = "told: changes that proxies leave out without a setting of their own";
    Some(Check::pass(CheckKind::RequestBody.of(handler), expected, found).into())
}

/// Two equal calls on fresh instances: a proxy is told the same, at equal fuel.
pub(super) fn determinism(prober: &Prober<'_>, trials: &[Trial]) -> Row {
    let id = CheckKind::Determinism;
    let expected = "equal answers and equal fuel";
    let budget = prober.budget(REPEAT_BUDGET);
    let mut compared = 0;
    for trial in trials.iter().filter(|trial| !trial.seen.is_slow()) {
        if prober.is_exhausted() || budget.is_spent() {
            break;
        }
        let again = prober.fresh(&trial.sample);
        let name = format!("{} {:?}", trial.sample.handler(), trial.sample.name);
        let found = if !again.is_like(&trial.seen) {
            let (first, second) = difference(&trial.seen, &again);
            format!("{name}: {first}, then {second}")
        } else if again.cost.fuel != trial.seen.cost.fuel {
            let fuel = |seen: &Seen| seen.cost.fuel.unwrap_or_default();
            format!("{name}: fuel {}, then {}", fuel(&trial.seen), fuel(&again))
        } else {
            compared += 1;
            continue;
        };
        return Check::fail(
            id,
            expected,
            found,
            "decide by the input only, at least on a fresh instance",
        )
        .into();
    }
    if compared == 0 {
        return Row::skip(id, expected, prober.why_skipped());
    }
    let how = if prober.is_repeatable_only_here() {
        ", with fixed clocks and random bytes: real ones are never equal"
    } else {
        ""
    };
    let found = format!("{compared} events called twice{how}");
    Check::pass(id, expected, found).into()
}

/// Two answers that differ, told apart for people: by their decisions, or by
/// what a proxy is told, from where it differs.
pub(super) fn difference(one: &Seen, other: &Seen) -> (String, String) {
    let (first, second) = (one.outcome(), other.outcome());
    if first != second {
        return (first, second);
    }
    let [one, other] = [one, other].map(told);
    let same = one.chars().zip(other.chars());
    let same = same.take_while(|(one, other)| one == other).count();
    let text = |told: &str| {
        let rest: String = told.chars().skip(same).collect();
        format!("{first} …{}", printable(&rest, 40))
    };
    (text(&one), text(&other))
}

/// The decision must not hang on how header names are spelled.
pub(super) fn spelling(prober: &Prober<'_>, trials: &[Trial]) -> Option<Row> {
    let id = CheckKind::HeaderSpelling;
    let expected = "the same in any letter case";
    let budget = prober.budget(REPEAT_BUDGET);
    let names = prober.settings.header_names;
    let other = if names == HeaderNames::Canonical {
        HeaderNames::Lower
    } else {
        HeaderNames::Canonical
    };
    let mut compared = 0;
    let mut hanging = Vec::new();
    for trial in trials.iter().filter(|trial| has_headers(&trial.sample)) {
        if trial.seen.result.is_err() {
            continue;
        }
        if prober.is_exhausted() || budget.is_spent() {
            break;
        }
        let respelled = prober.fresh_spelled(&trial.sample, other);
        compared += 1;
        if !is_same(&trial.seen, &respelled, &trial.sample) {
            let (lower, canonical) = if names == HeaderNames::Canonical {
                (&respelled, &trial.seen)
            } else {
                (&trial.seen, &respelled)
            };
            let (lower, canonical) = (lower.outcome(), canonical.outcome());
            let name = trial.sample.name;
            hanging.push(if lower == canonical {
                format!("{name:?} {lower} in both, but with other headers or tags")
            } else {
                format!("{name:?} {lower} in lower case, {canonical} in canonical case")
            });
        }
    }
    if compared == 0 {
        return None;
    }
    let found = if hanging.is_empty() {
        format!("{compared} events in both spellings")
    } else {
        format!("it depends on the spelling: {}", hanging.join("; "))
    };
    let check = Check::pass(id, expected, found);
    // Who gives the flag has seen this, and has applied the remedy.
    if hanging.is_empty() || names == HeaderNames::Canonical {
        return Some(check.into());
    }
    Some(
        check
            .with(
                CheckStatus::Warn,
                "compare header names without regard to case (zentinel-proxy up to 0.6.54 and sentinel-proxy 0.4.14 send lower case), or run with --header-names canonical",
            )
            .into(),
    )
}

fn has_headers(sample: &Sample) -> bool {
    match &sample.input {
        Question::Event(event) => !event.headers().is_empty(),
        Question::Hook(..) | Question::Exact { .. } => false,
    }
}

/// What a proxy is told, as text that is equal where that is.
fn told(seen: &Seen) -> String {
    let view = seen.answer().map(Answer::proxy_view);
    view.map_or_else(String::new, |view| view.to_string())
}

/// Equal but for the spelling of the sample's header names, which an answer may
/// repeat.
fn is_same(one: &Seen, other: &Seen, sample: &Sample) -> bool {
    let Question::Event(event) = &sample.input else {
        return one.is_like(other);
    };
    let plain = |seen: &Seen| {
        let mut text = told(seen);
        let lower = text.to_ascii_lowercase();
        for (name, _) in event.headers().iter() {
            for (at, found) in lower.match_indices(&name.to_ascii_lowercase()) {
                text.replace_range(at..at + found.len(), found);
            }
        }
        text
    };
    one.is_like(other) || other.result.is_ok() && plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_key_is_named_and_a_strange_one_is_not() {
        assert_eq!(nearest("rule_id"), Some("rule_ids"));
        assert_eq!(nearest("addRequestHeaders"), Some("add_request_headers"));
        assert_eq!(nearest("needsMore"), Some("needs_more"));
        assert_eq!(nearest("x"), None);
        assert_eq!(nearest("explanation"), None);
    }
}
