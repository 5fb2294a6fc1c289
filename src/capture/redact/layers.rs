//! Percent encoding, also of texts that were encoded several times.
//!
//! A URL in a parameter of a URL is encoded once more with each step inwards.
//! So a text is decoded as a whole, a few times, and looked through each time:
//! what a byte costs does not depend on what stands around it. What is encoded
//! deeper than that is not read, and hidden.

use std::borrow::Cow;

/// How many times a text is decoded.
const MAX_LAYERS: usize = 4;

/// A text, decoded so many times.
#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) text: Cow<'a, str>,
    /// Where each byte, and the end, was in the text as it was given; nothing
    /// where that is this one.
    origin: Option<Vec<usize>>,
}

impl<'a> Layer<'a> {
    /// A text and what it is when decoded, up to what changes no more. The
    /// place from which on it could be decoded further goes to `rest`.
    pub(super) fn each(text: &'a str, mut look: impl FnMut(&Layer<'a>)) -> Option<usize> {
        let mut layer = Layer {
            text: Cow::Borrowed(text),
            origin: None,
        };
        for _ in 0..MAX_LAYERS {
            look(&layer);
            layer = layer.decoded()?;
        }
        look(&layer);
        let deeper = escapes(&layer.text).next()?;
        Some(layer.origin(deeper))
    }

    /// Where a place was in the text as it was given.
    pub(super) fn origin(&self, at: usize) -> usize {
        let Some(origin) = &self.origin else {
            return at;
        };
        // No place is behind the end, which is there too.
        origin
            .get(at)
            .or(origin.last())
            .copied()
            .unwrap_or_default()
    }

    /// None where nothing is encoded.
    fn decoded(&self) -> Option<Layer<'a>> {
        let mut escapes = escapes(&self.text).peekable();
        escapes.peek()?;
        let bytes = self.text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut origin = Vec::with_capacity(bytes.len() + 1);
        let mut at = 0;
        while at < bytes.len() {
            origin.push(self.origin(at));
            if escapes.next_if_eq(&at).is_some() {
                out.extend(value_of(bytes, at));
                at += 3;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        origin.push(self.origin(at));
        let (text, origin) = as_text(&out, origin);
        Some(Layer {
            text: Cow::Owned(text),
            origin: Some(origin),
        })
    }
}

/// A text without its percent encoding.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    let layer = Layer {
        text: Cow::Borrowed(text),
        origin: None,
    };
    layer.decoded().map_or(Cow::Borrowed(text), |it| it.text)
}

/// A text in each of its spellings, the one as it was given first.
pub(super) fn spellings(text: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(text)];
    while all.len() <= MAX_LAYERS
        && let Some(last) = all.last()
        && let Cow::Owned(next) = decoded(last)
    {
        all.push(Cow::Owned(next));
    }
    all
}

/// Where encoded bytes begin.
fn escapes(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let mut from = 0;
    memchr::memchr_iter(b'%', bytes).filter(move |at| {
        let is_one = *at >= from && value_of(bytes, *at).is_some();
        if is_one {
            from = at + 3;
        }
        is_one
    })
}

fn value_of(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |index: usize| char::from(*bytes.get(index)?).to_digit(16);
    u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok()
}

/// Bytes as text; what is none becomes a character that says so.
fn as_text(bytes: &[u8], origin: Vec<usize>) -> (String, Vec<usize>) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), origin);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut moved = Vec::with_capacity(origin.len());
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let next = at + chunk.valid().len();
        moved.extend_from_slice(&origin[at..next]);
        at = next;
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            moved.extend([origin[at]; char::REPLACEMENT_CHARACTER.len_utf8()]);
            at += chunk.invalid().len();
        }
    }
    moved.extend(origin.last());
    (text, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_known_where_it_was() {
        for (text, spelled) in [
            ("a%20b", vec!["a%20b", "a b"]),
            ("%25%32%30", vec!["%25%32%30", "%20", " "]),
            ("%e9x%zz%", vec!["%e9x%zz%", "\u{fffd}x%zz%"]),
            ("plain", vec!["plain"]),
        ] {
            let mut seen = Vec::new();
            let deeper = Layer::each(text, |layer| {
                assert_eq!(layer.origin(layer.text.len()), text.len());
                for (at, _) in layer.text.char_indices() {
                    assert!(text.is_char_boundary(layer.origin(at)));
                }
                seen.push(layer.text.clone().into_owned());
            });
            assert_eq!(
                (seen, deeper),
                (spelled.iter().map(|it| (*it).to_owned()).collect(), None)
            );
        }
        let deep = format!("/a?b=%{}41", "25".repeat(9));
        assert_eq!(Layer::each(&deep, |_| {}), Some(5));
    }
}
