//! What a transaction came to, and whether calls on instances of their own come
//! to the same: nothing is shown or saved as an example that was not tried so.

use std::collections::BTreeSet;

use serde_json::Value;

use super::report::{Category, Summary};
use super::view::View;
use crate::compare::{Change, Played, compare};
use crate::policy::Policy;
use crate::question::{Question, Timed};

/// What calls have to come to again.
pub(super) enum Claim<'a> {
    /// The modules differ so.
    Change(Box<Kind>),
    /// A module answers so.
    Answers(Answers<'a>),
    /// A module ends it so.
    End(&'a Policy, End),
}

/// How two modules differ. What they agree on may be otherwise.
#[derive(PartialEq, Eq)]
pub(super) struct Kind {
    category: Category,
    from: End,
    to: End,
    places: BTreeSet<Place>,
}

/// How a module ended it, without secrets.
#[derive(PartialEq, Eq)]
pub(super) struct End {
    summary: Summary,
    /// What the fault was, less its numbers: they are addresses and sizes.
    fault: Option<String>,
}

/// A part of an answer, by the phase that was asked about.
type Place = (&'static str, String);

/// What a module answered, call by call.
pub(super) struct Answers<'a> {
    pub(super) policy: &'a Policy,
    pub(super) played: &'a Played,
    /// Phases that have to be among the calls.
    pub(super) needed: BTreeSet<&'static str>,
}

/// Calls to be tried: their phases, and which of the transaction's they are.
pub(super) struct Calls<P> {
    pub(super) phases: Vec<&'static str>,
    pub(super) first: usize,
    /// Makes them on an instance of their own. Nothing where the last of them
    /// cannot be reached.
    pub(super) play: P,
}

impl End {
    pub(super) fn of(view: &View<'_>, played: &Played) -> Self {
        let fault = played.replies.iter().filter_map(|it| it.fault.as_ref());
        Self {
            summary: view.hidden_summary(&played.summary()),
            fault: fault
                .map(|fault| without_numbers(&view.hidden(&fault.detail)))
                .next_back(),
        }
    }
}

impl Kind {
    /// How two modules differ in these calls, if they do.
    pub(super) fn of(
        view: &View<'_>,
        (old, new): (&Played, &Played),
        phases: &[&'static str],
    ) -> Option<Self> {
        let change = compare(old, new, &view.shared.settings.ignore)?;
        let (mut from, mut to) = (End::of(view, old), End::of(view, new));
        // Less what is not compared.
        from.summary = view.hidden_summary(&change.from);
        to.summary = view.hidden_summary(&change.to);
        Some(Self {
            category: change.category,
            from,
            to,
            places: places(&change, phases),
        })
    }
}

/// Which parts differ. How many answers there were follows from them.
pub(super) fn places(change: &Change, phases: &[&'static str]) -> BTreeSet<Place> {
    let place = |field: &String| {
        let (number, path) = field.split_at(field.find('/').unwrap_or(field.len()));
        let index = match number {
            "" => 0,
            number => number.parse::<usize>().ok()?.checked_sub(1)?,
        };
        Some((*phases.get(index)?, path.to_owned()))
    };
    change.fields.iter().filter_map(place).collect()
}

/// A text whose numbers, in any notation, are all the same.
fn without_numbers(text: &str) -> String {
    let words = text.split_inclusive(|letter: char| !letter.is_alphanumeric());
    let word = |word: &str| match word.find(|letter: char| letter.is_ascii_digit()) {
        Some(_) => "0 ".to_owned(),
        None => word.to_owned(),
    };
    words.map(word).collect()
}

impl Claim<'_> {
    /// Whether these calls come to it.
    pub(super) fn holds<P>(&self, view: &View<'_>, calls: &Calls<P>) -> bool
    where
        P: Fn(&Policy) -> Option<Played>,
    {
        match self {
            Self::Change(kind) => {
                let subjects = view.shared.subjects;
                let play = &calls.play;
                let old = subjects.baseline.and_then(play);
                old.zip(play(subjects.module)).is_some_and(|(old, new)| {
                    Kind::of(view, (&old, &new), &calls.phases).as_ref() == Some(&**kind)
                })
            }
            Self::Answers(answers) => {
                let mut needed = answers.needed.iter();
                needed.all(|phase| calls.phases.contains(phase))
                    && (calls.play)(answers.policy)
                        .is_some_and(|played| answers.are_in(view, &played, calls.first))
            }
            Self::End(policy, end) => {
                (calls.play)(policy).is_some_and(|played| End::of(view, &played) == *end)
            }
        }
    }
}

impl Answers<'_> {
    /// Whether these are the same, but for secrets. Held against each other as
    /// values: a hook that goes on with what another left has its keys in that
    /// one's order.
    fn are_in(&self, view: &View<'_>, played: &Played, first: usize) -> bool {
        let value = |played: &Played, at: usize| -> Option<Value> {
            let answer = serde_json::to_string(&played.replies.get(at)?.answer).ok()?;
            serde_json::from_str(&view.hidden(&answer)).ok()
        };
        let count = played.replies.len();
        let is_last = first + count == self.played.replies.len();
        (is_last || self.needed.is_empty())
            && (0..count).all(|at| value(played, at) == value(self.played, first + at))
    }
}

/// The phases of questions.
pub(super) fn phases_of(questions: &[Timed<Question<'_>>]) -> Vec<&'static str> {
    let phases = questions.iter().map(|it| it.question.phase().name());
    phases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_the_same_whatever_their_numbers() {
        let at = |text: &str| without_numbers(text);
        assert_eq!(at("found 12 bytes at 0x1f"), at("found 7 bytes at 0xffab"));
        assert_ne!(at("bad email at 3"), at("bad tenant at 3"));
    }
}
