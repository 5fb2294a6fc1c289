//! Heads as they are remembered: in one block until somebody asks for them.

use std::sync::Arc;

use crate::event::{Headers, RequestHead, ResponseHead};

/// A head that may be asked for. Most never are, and one block of memory is
/// given back sooner than two dozen strings that nobody has looked at since.
pub(super) enum Kept<T> {
    Packed(Packed),
    Whole(Arc<T>),
}

impl<T: Head> Kept<T> {
    pub(super) fn head(&mut self, correlation_id: &str) -> Arc<T> {
        match self {
            Self::Whole(head) => Arc::clone(head),
            Self::Packed(packed) => {
                let head = Arc::new(T::unpack(correlation_id, &mut packed.texts()));
                *self = Self::Whole(Arc::clone(&head));
                head
            }
        }
    }
}

/// Texts one after the other, behind the lengths of all of them.
pub(super) struct Packed {
    bytes: Box<[u8]>,
    texts: usize,
}

const LENGTH_BYTES: usize = size_of::<usize>();

impl Packed {
    fn new(line: &[&str], headers: &Headers) -> Self {
        let texts = line.len() + 2 * headers.len();
        let line_bytes: usize = line.iter().map(|text| text.len()).sum();
        let size = LENGTH_BYTES * texts + line_bytes + headers.text().len();
        let mut bytes = Vec::with_capacity(size);
        let fields = headers.iter().flat_map(|(name, value)| [name, value]);
        for text in line.iter().copied().chain(fields) {
            bytes.extend_from_slice(&text.len().to_ne_bytes());
        }
        for text in line.iter().copied().chain([headers.text()]) {
            bytes.extend_from_slice(text.as_bytes());
        }
        Self {
            bytes: bytes.into(),
            texts,
        }
    }

    /// About what the head takes once it is whole again.
    pub(super) const fn whole_bytes(&self) -> usize {
        self.bytes.len() + self.texts * size_of::<String>()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let (lengths, mut rest) = self.bytes.split_at(LENGTH_BYTES * self.texts);
        let (lengths, _) = lengths.as_chunks();
        lengths.iter().map_while(move |length| {
            let (text, after) = rest.split_at_checked(usize::from_ne_bytes(*length))?;
            rest = after;
            std::str::from_utf8(text).ok()
        })
    }
}

/// What can be packed. The correlation id is the entry's own.
pub(super) trait Head {
    fn pack(&self) -> Packed;
    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self;
}

impl Head for RequestHead {
    fn pack(&self) -> Packed {
        Packed::new(&[&self.method, &self.uri, &self.client_ip], &self.headers)
    }

    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self {
        let mut next = || texts.next().unwrap_or_default().to_owned();
        Self {
            correlation_id: correlation_id.to_owned(),
            method: next(),
            uri: next(),
            client_ip: next(),
            headers: headers(texts),
        }
    }
}

impl Head for ResponseHead {
    fn pack(&self) -> Packed {
        Packed::new(&[&self.status.to_string()], &self.headers)
    }

    fn unpack(correlation_id: &str, texts: &mut dyn Iterator<Item = &str>) -> Self {
        let status = texts.next().and_then(|status| status.parse().ok());
        Self {
            correlation_id: correlation_id.to_owned(),
            status: status.unwrap_or_default(),
            headers: headers(texts),
        }
    }
}

fn headers(texts: &mut dyn Iterator<Item = &str>) -> Headers {
    let mut headers = Headers::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        headers.push(name, value);
    }
    headers
}
