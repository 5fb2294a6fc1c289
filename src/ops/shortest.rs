//! The shortest part of a history that still does something.

/// Below this many parts every pair of them is tried.
const MAX_PAIRED: usize = 40;

/// The shortest part of `history`, order kept, for which `changes` holds.
///
/// Exact up to two calls. Longer ones are cut by halves to an end that will
/// do, then thinned until no single call can be left out. Precondition: it
/// holds for the whole; then it holds for what is returned.
pub(super) fn shortest<T: Clone + PartialEq>(
    history: &[T],
    mut changes: impl FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut tried: Vec<&T> = Vec::new();
    // From the end: what came last is the likeliest cause.
    for one in history.iter().rev() {
        if tried.contains(&one) {
            continue;
        }
        if changes(std::slice::from_ref(one)) {
            return vec![one.clone()];
        }
        tried.push(one);
    }
    if history.len() <= MAX_PAIRED {
        for (at, second) in history.iter().enumerate().rev() {
            for first in history[..at].iter().rev() {
                let pair = [first.clone(), second.clone()];
                if changes(&pair) {
                    return pair.to_vec();
                }
            }
        }
    }
    let mut kept = shortest_end(history, &mut changes).to_vec();
    let mut at = 0;
    while at < kept.len() {
        let mut fewer = kept.clone();
        fewer.remove(at);
        if changes(&fewer) {
            kept = fewer;
            at = 0;
        } else {
            at += 1;
        }
    }
    kept
}

/// The shortest end for which `changes` holds, if it holds for all longer ones too;
/// else some end for which it holds.
fn shortest_end<'a, T>(history: &'a [T], changes: &mut impl FnMut(&[T]) -> bool) -> &'a [T] {
    let (mut too_short, mut enough) = (2, history.len());
    // One less first: what counts calls to a number does so at once.
    let mut length = enough.saturating_sub(1);
    while too_short + 1 < enough {
        if changes(&history[history.len() - length..]) {
            enough = length;
        } else {
            too_short = length;
        }
        length = usize::midpoint(too_short, enough);
    }
    &history[history.len() - enough..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds where all of `cause` stand in this order.
    fn contains(part: &[u8], cause: &[u8]) -> bool {
        let mut part = part.iter();
        cause.iter().all(|wanted| part.any(|have| have == wanted))
    }

    #[test]
    fn the_shortest_sequence_is_found_whatever_is_between() {
        let history: Vec<u8> = (0..30).chain(0..30).collect();
        for cause in [&[4][..], &[4, 9], &[9, 4], &[2, 7, 11], &[20, 3, 3]] {
            let history = [&history[..], &history[..]].concat();
            assert_eq!(shortest(&history, |part| contains(part, cause)), cause);
        }
    }

    #[test]
    fn a_sequence_that_cannot_be_cut_stays_whole() {
        let history = [1, 2, 3, 4];
        assert_eq!(shortest(&history, |part| part.len() >= 4), history);
        assert_eq!(shortest(&history, |_| false), history);
    }
}
