//! What may stand in a secret's place without turning a decision round.
//!
//! In: what writes an input and what asks the module about it. Out: what was
//! written, with a mark where the module does not decide about it as it did. Who
//! records, saves or makes a fixture asks here; in turn these are tried:
//!
//! 1. the ordinary stand-in;
//! 2. one of the shape of those secrets that the answer hangs on: length, kinds of
//!    characters, quotes, brackets, spaces and escapes;
//! 3. the same with words of attacks readable: those that the answer hangs on, and
//!    never all of one secret;
//! 4. the ordinary stand-in again, and the mark says that the decision is another.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::stand_in::{Manner, Shapes};
use super::{Redactor, SecretsFound};

/// Questions about one record, or one exchange that is written as a whole.
const MAX_QUESTIONS: usize = 24;

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

/// What was written in one manner.
pub(crate) struct Tried<'a, W> {
    pub(crate) written: &'a W,
    pub(crate) redactor: &'a Redactor,
    /// The secrets that are known now.
    pub(crate) found: &'a SecretsFound,
}

/// Writes with the first stand-ins that keep the decision. `found` has what is known
/// of the exchange before, and then what was found here.
pub(crate) fn keep_decision<W>(
    (redactor, found): (&Redactor, &mut SecretsFound),
    write: impl FnMut(&Redactor, &mut SecretsFound) -> W,
    ask: impl FnMut(&Tried<'_, W>) -> Heard,
) -> (W, Option<Mark>) {
    let mut search = Search {
        redactor,
        before: found.clone(),
        write,
        ask,
        // One is about the input itself.
        left: MAX_QUESTIONS - 1,
    };
    let ordinary = search.written(Manner::Token);
    let kept = match ordinary.heard {
        Heard::Same => Ok(None),
        Heard::Nothing => Err(Mark::Unchecked),
        Heard::Other => search.shapes().map(Some),
    };
    let (kept, mark) = match kept {
        Ok(kept) => (kept.unwrap_or(ordinary), None),
        Err(mark) => (ordinary, Some(mark)),
    };
    *found = kept.found;
    (kept.written, mark)
}

/// What was written in one manner, and what the module decided about it.
struct Attempt<W> {
    written: W,
    found: SecretsFound,
    heard: Heard,
}

struct Search<'a, Write, Ask> {
    redactor: &'a Redactor,
    /// What is known of the exchange before.
    before: SecretsFound,
    write: Write,
    ask: Ask,
    /// Questions that may still be asked.
    left: usize,
}

impl<W, Write, Ask> Search<'_, Write, Ask>
where
    Write: FnMut(&Redactor, &mut SecretsFound) -> W,
    Ask: FnMut(&Tried<'_, W>) -> Heard,
{
    fn written(&mut self, manner: Manner) -> Attempt<W> {
        self.left = self.left.saturating_sub(1);
        let mut found = self.before.clone();
        found.shaped.clear();
        let redactor = self.redactor.in_manner(manner);
        let written = (self.write)(&redactor, &mut found);
        let heard = (self.ask)(&Tried {
            written: &written,
            redactor: &redactor,
            found: &found,
        });
        Attempt {
            written,
            found,
            heard,
        }
    }

    /// What keeps the decision; none where this does not. Nothing more is written
    /// once there is no answer.
    fn attempt(&mut self, manner: Manner) -> Result<Option<Attempt<W>>, Mark> {
        if self.left == 0 {
            return Err(Mark::Changed);
        }
        let attempt = self.written(manner);
        match attempt.heard {
            Heard::Same => Ok(Some(attempt)),
            Heard::Other => Ok(None),
            Heard::Nothing => Err(Mark::Unchecked),
        }
    }

    /// With as few shapes as keep the decision, and as few readable words in them.
    fn shapes(&mut self) -> Result<Attempt<W>, Mark> {
        let all = self.written(Manner::Shape);
        let may_be_shown = all.found.shaped.clone();
        let mut shapes: Shapes = may_be_shown.clone();
        shapes.values_mut().for_each(BTreeSet::clear);
        let kept = match all.heard {
            Heard::Nothing => return Err(Mark::Unchecked),
            Heard::Same => Some(all),
            Heard::Other if may_be_shown == shapes => None,
            Heard::Other => {
                shapes = may_be_shown;
                self.attempt(only(&shapes))?
            }
        };
        let kept = kept.ok_or(Mark::Changed)?;
        let tokens: Vec<String> = shapes.keys().cloned().collect();
        let kept = self.fewer(tokens, kept, |tokens| {
            let mut fewer = shapes.clone();
            fewer.retain(|token, _| tokens.contains(token));
            fewer
        })?;
        let shapes = kept.1;
        let words = |(token, words): (&String, &BTreeSet<String>)| {
            let pair = |word: &String| (token.clone(), word.clone());
            words.iter().map(pair).collect::<Vec<_>>()
        };
        let words: Vec<(String, String)> = shapes.iter().flat_map(words).collect();
        let kept = self.fewer(words, kept.0, |words| {
            let mut fewer = shapes.clone();
            for (token, known) in &mut fewer {
                known.retain(|word| words.iter().any(|(of, it)| of == token && it == word));
            }
            fewer
        })?;
        Ok(kept.0)
    }

    /// The same with as few of these as keep the decision. Not where the questions do
    /// not suffice to tell which.
    fn fewer<T: Clone + PartialEq>(
        &mut self,
        mut all: Vec<T>,
        mut kept: Attempt<W>,
        with: impl Fn(&[T]) -> Shapes,
    ) -> Result<(Attempt<W>, Shapes), Mark> {
        // Large parts first, so that few questions take many away.
        let mut size = all.len().div_ceil(2);
        while size > 0 {
            for part in all.clone().chunks(size) {
                let rest: Vec<T> = all
                    .iter()
                    .filter(|it| !part.contains(it))
                    .cloned()
                    .collect();
                if let Some(without) = self.attempt(only(&with(&rest)))? {
                    (all, kept) = (rest, without);
                }
            }
            size = match size {
                1 => 0,
                _ => size.min(all.len()).div_ceil(2),
            };
        }
        Ok((kept, with(&all)))
    }
}

fn only(shapes: &Shapes) -> Manner {
    Manner::Only(Arc::new(shapes.clone()))
}
