//! Bodies: what their heads say of them, and what one chunk leaves for the next.

use serde_json::{Map, Value};

use super::super::base_64;
use super::binary;
use super::found::SecretsFound;

/// Bytes of a chunk's end that are looked through again with the next one.
const TAIL_BYTES: usize = 1 << 10;
/// Bytes before an open secret that say what it is.
const NAME_BYTES: usize = 384;
/// Bytes at either end of an open secret.
const END_BYTES: usize = 128;

/// What an event says of its body.
#[derive(Debug)]
pub(super) struct Body {
    /// 0 for the request's, 1 for the response's.
    pub(super) side: usize,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    pub(super) is_form: bool,
    /// It is compressed in a way that nobody here reads.
    pub(super) is_unread: bool,
    /// Its head says that it is compressed.
    pub(super) is_compressed: bool,
    length: usize,
}

/// What is kept of the chunks before, for one body.
#[derive(Debug, Default, Clone)]
pub(super) struct Tail {
    pub(super) text: String,
    pub(super) is_form: bool,
    /// They end in a list or an object of secrets that begins too far back: all that
    /// follows is hidden.
    pub(super) hides: bool,
    /// By how many bytes they became longer.
    longer: i64,
}

impl Body {
    /// Of an event's input; None where it has none.
    pub(super) fn of(input: &Value) -> Option<Self> {
        let map = input.as_object()?;
        let data = map.get("data")?.as_str()?;
        let header = |name: &str| {
            let headers = map.get("headers").and_then(Value::as_object)?;
            let mut all = headers.iter();
            let value = all.find(|(key, _)| key.eq_ignore_ascii_case(name))?.1;
            let value = value.as_array().and_then(|it| it.first()).unwrap_or(value);
            value.as_str().map(str::to_ascii_lowercase)
        };
        let encoding = header("content-encoding").unwrap_or_default();
        let has = |names: &[&str]| {
            let mut all = encoding.split(',').map(str::trim);
            all.any(|it| names.contains(&it))
        };
        Some(Self {
            side: usize::from(map.contains_key("status")),
            is_first: map
                .get("chunk_index")
                .and_then(Value::as_u64)
                .unwrap_or_default()
                == 0,
            is_last: map.get("is_last").and_then(Value::as_bool).unwrap_or(true),
            is_form: header("content-type")
                .is_some_and(|it| it.starts_with("application/x-www-form-urlencoded")),
            is_unread: has(&["br", "zstd", "compress", "x-compress", "dcb", "dcz"]),
            is_compressed: has(&["gzip", "x-gzip", "deflate"]),
            length: length(map, data),
        })
    }

    /// Whether it is one chunk.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_first && self.is_last
    }

    /// Makes the lengths that the event states those of what is written. Whether
    /// there was any to change.
    pub(super) fn fit_lengths(&self, input: &mut Value, found: &mut SecretsFound) -> bool {
        let Some(map) = input.as_object_mut() else {
            return false;
        };
        let now = map
            .get("data")
            .and_then(Value::as_str)
            .map(|data| length(map, data));
        let of = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let mut longer = of(now.unwrap_or_default()).saturating_sub(of(self.length));
        if !self.is_first {
            longer = longer.saturating_add(found.tails[self.side].longer);
        }
        found.tails[self.side].longer = longer;
        if longer == 0 {
            return false;
        }
        let fit = |value: &mut Value| {
            let stated = value.as_i64().filter(|it| *it >= of(self.length));
            if let Some(stated) = stated {
                *value = stated.saturating_add(longer).max(0).into();
            }
        };
        for name in ["bytes_received", "bytes_sent"] {
            map.get_mut(name).map(fit);
        }
        if self.is_last {
            map.get_mut("total_size").map(fit);
        }
        if self.is_whole() {
            self.fit_header(map, now.unwrap_or_default());
        }
        true
    }

    fn fit_header(&self, map: &mut Map<String, Value>, now: usize) {
        let headers = map.get_mut("headers").and_then(Value::as_object_mut);
        for (name, value) in headers.into_iter().flatten() {
            let was = self.length.to_string();
            let of_list = value
                .as_array()
                .is_some_and(|it| it.iter().all(|it| *it == *was));
            if !name.eq_ignore_ascii_case("content-length") {
                continue;
            }
            if *value == *was {
                *value = now.to_string().into();
            } else if of_list {
                *value = vec![now.to_string()].into();
            }
        }
    }
}

fn length(map: &Map<String, Value>, data: &str) -> usize {
    if binary::is_base64(map) {
        base_64::decode(data).map_or(data.len(), |it| it.len())
    } else {
        data.len()
    }
}

impl Tail {
    /// Keeps what the next chunk is looked through with: the end of the text so
    /// far, and of a secret that goes on there what tells it.
    pub(super) fn keep(&mut self, text: &str, open: Option<usize>) {
        let from = |at: usize| text.floor_char_boundary(at);
        let end = &text[from(text.len().saturating_sub(TAIL_BYTES))..];
        self.text = match open {
            Some(open) if text.len() - open > TAIL_BYTES - NAME_BYTES => {
                let begin = from(open.saturating_sub(NAME_BYTES));
                let middle = from(open + END_BYTES);
                let end = from(text.len() - END_BYTES);
                [&text[begin..middle], &text[end..]].concat()
            }
            _ => end.to_owned(),
        };
    }
}
