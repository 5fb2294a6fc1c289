//! What may stand in a secret's place without turning a decision round.
//!
//! In: what writes an input and what asks the module about it. Out: what was
//! written, with a mark where the module does not decide about it as it did. Who
//! records, saves or makes a fixture asks here; in turn these are tried:
//!
//! 1. the ordinary stand-in;
//! 2. one of the secret's shape: its length, its kinds of characters, its quotes,
//!    brackets, spaces and escapes;
//! 3. the same with words of it readable: those that the answer hangs on, and
//!    never all of one secret;
//! 4. the ordinary stand-in again, and the mark says that the decision is another.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::stand_in::Manner;
use super::{Redactor, SecretsFound};

/// Questions about one record, or one exchange that is written as a whole.
const MAX_QUESTIONS: usize = 16;

named! {
    /// What is to be said of an input that was redacted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Mark {
        /// Nobody asked the module about it as it is written.
        Unchecked => "unchecked",
        /// As it is written the module decides otherwise.
        Changed => "redaction-changed",
    }
}

/// What came of asking about an input as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The decision is the same, or the input is.
    Same,
    Other,
    /// The module could not be asked, or no longer decides about the input itself as
    /// it did.
    Nothing,
}

/// Writes with the first stand-ins that keep the decision. `found` has what is known
/// of the exchange before, and then what was found here.
pub(crate) fn keep_decision<W>(
    (redactor, found): (&Redactor, &mut SecretsFound),
    mut write: impl FnMut(&Redactor, &mut SecretsFound) -> W,
    mut ask: impl FnMut(&W) -> Heard,
) -> (W, Option<Mark>) {
    let before = found.clone();
    let ordinary = write(redactor, found);
    match ask(&ordinary) {
        Heard::Same => return (ordinary, None),
        Heard::Nothing => return (ordinary, Some(Mark::Unchecked)),
        Heard::Other => {}
    }
    // One was about the input itself, one about this.
    let mut left = MAX_QUESTIONS - 2;
    let mut attempt = |words: BTreeSet<String>| {
        left = left.checked_sub(1)?;
        let mut found = before.clone();
        found.words.clear();
        let shaping = redactor.in_manner(Manner::Shape(Arc::new(words)));
        let written = write(&shaping, &mut found);
        let heard = ask(&written);
        Some(Attempt {
            written,
            found,
            heard,
        })
    };
    let kept = match attempt(BTreeSet::new()) {
        Some(shape) if shape.heard == Heard::Other => {
            let words = shape.found.words.clone();
            with_words(words, &mut attempt)
        }
        Some(shape) => Some(shape).filter(|it| it.heard == Heard::Same),
        None => None,
    };
    match kept {
        Some(kept) => {
            *found = kept.found;
            (kept.written, None)
        }
        None => (ordinary, Some(Mark::Changed)),
    }
}

/// What was written in one manner, and what the module decided about it.
struct Attempt<W> {
    written: W,
    found: SecretsFound,
    heard: Heard,
}

/// The same with as few words as keep the decision. None where no words do, or the
/// questions do not suffice to tell which.
fn with_words<W>(
    mut words: BTreeSet<String>,
    attempt: &mut impl FnMut(BTreeSet<String>) -> Option<Attempt<W>>,
) -> Option<Attempt<W>> {
    if words.is_empty() {
        return None;
    }
    // All of them may be all of one secret, and then none of it is readable.
    let mut kept = Some(attempt(words.clone())?).filter(|it| it.heard == Heard::Same);
    // Large parts first, so that few questions take away many words.
    let mut size = words.len().div_ceil(2);
    loop {
        let all: Vec<String> = words.iter().cloned().collect();
        for part in all.chunks(size) {
            let rest = words.iter().filter(|word| !part.contains(word));
            let rest: BTreeSet<String> = rest.cloned().collect();
            // Without any it was asked about before.
            if rest.is_empty() {
                continue;
            }
            let without = attempt(rest.clone())?;
            if without.heard == Heard::Same {
                (words, kept) = (rest, Some(without));
            }
        }
        if size == 1 {
            return kept;
        }
        size = size.min(words.len()).div_ceil(2);
    }
}
