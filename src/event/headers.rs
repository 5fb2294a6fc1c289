//! Header fields, in the order they came, in one block of text.
//!
//! A head has two dozen small strings. Each on its own would be an allocation
//! made, and given back much later; here they are two for the whole head.
//! Nothing here knows what a name means.

use std::fmt;
use std::ops::Range;

/// Header fields in the order they arrived, names in the spelling they had.
///
/// A repeated name is a repeated field; joining is the guest input's affair.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Name, value, name, value, …
    text: String,
    fields: Vec<Ends>,
}

/// Where a field's name and value end in the text. It begins where the field
/// before it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    name: usize,
    value: usize,
}

impl Headers {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: String::new(),
            fields: Vec::new(),
        }
    }

    /// No fields, with room for so many, and for so many bytes of names and
    /// values.
    #[must_use]
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            fields: Vec::with_capacity(fields),
        }
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name = self.text.len();
        self.text.push_str(value);
        let value = self.text.len();
        self.fields.push(Ends { name, value });
    }

    /// How many fields there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All names and values, one behind the other.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The name and the value of each field.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            text: &self.text,
            start: 0,
            fields: self.fields.iter(),
        }
    }

    /// The first value of a name, in any spelling.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut fields = self.iter();
        fields
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Puts a field before all others.
    pub fn prepend(&mut self, name: &str, value: &str) {
        let all = std::iter::once((name, value)).chain(&*self);
        *self = all.collect();
    }

    /// The same fields without those at these places.
    #[must_use]
    pub fn without(&self, places: &Range<usize>) -> Self {
        let kept = self.iter().enumerate();
        kept.filter(|(place, _)| !places.contains(place))
            .map(|(_, field)| field)
            .collect()
    }

    /// Memory that names, values and fields take, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.text.capacity() + self.fields.capacity() * size_of::<Ends>()
    }

    /// Gives back the memory that was made ready for more.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.fields.shrink_to_fit();
    }
}

/// See [`Headers::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    text: &'a str,
    start: usize,
    fields: std::slice::Iter<'a, Ends>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let ends = self.fields.next()?;
        let start = std::mem::replace(&mut self.start, ends.value);
        Some((
            &self.text[start..ends.name],
            &self.text[ends.name..ends.value],
        ))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Extend<(N, V)> for Headers {
    fn extend<T: IntoIterator<Item = (N, V)>>(&mut self, fields: T) {
        for (name, value) in fields {
            self.push(name.as_ref(), value.as_ref());
        }
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        let mut headers = Self::new();
        headers.extend(fields);
        headers
    }
}

impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(fields: [(N, V); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What goes in comes out, empty names and values too.
        #[test]
        fn fields_come_back_as_they_went(
            fields in prop::collection::vec(any::<(String, String)>(), 0..8),
            from in 0_usize..8,
            to in 0_usize..8,
        ) {
            let headers: Headers = fields.iter().cloned().collect();
            let back: Vec<(String, String)> =
                headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(&back, &fields);
            prop_assert_eq!((headers.len(), headers.is_empty()), (fields.len(), fields.is_empty()));
            let fewer: Headers = fields[..from.min(fields.len())]
                .iter()
                .chain(fields.get(to.max(from)..).unwrap_or_default())
                .map(|(name, value)| (name, value))
                .collect();
            prop_assert_eq!(headers.without(&(from..to.max(from))), fewer);
        }
    }

    #[test]
    fn a_name_is_found_in_any_spelling() {
        let headers = Headers::from([("A", "1"), ("x-b", "2"), ("X-B", "3")]);
        assert_eq!(headers.value("X-b"), Some("2"));
        assert_eq!(headers.value("c"), None);
    }
}
