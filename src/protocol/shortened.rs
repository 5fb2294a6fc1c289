//! Pushed settings, shortened for the log and for health reports.
//!
//! In: any JSON of any size. Out: its first keys and the beginning of each
//! text. Costs linear time, and keeps little of what is long.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::protocol::wire::values::WithText;

/// Keys of one push that are kept; there are fewer that could be right.
const MAX_KEYS: usize = 32;
/// Bytes of a text that are kept; no right one is as long.
const MAX_TEXT_BYTES: usize = 128;
/// Stands for what is left out.
const LEFT_OUT: &str = "…";

/// What was pushed, as far as anybody looks at it: the first keys, the
/// beginning of a text, and nothing that is within a value.
#[derive(Debug, Default)]
pub(crate) struct Shortened(pub(crate) Value);

impl<'de> Deserialize<'de> for Shortened {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Shorten { depth: 0 }).map(Self)
    }
}

struct Shorten {
    depth: u8,
}

impl<'de> serde::de::DeserializeSeed<'de> for Shorten {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shorten {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(shortened(value).into())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Value, E> {
        Ok("(bytes)".into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Value, S::Error> {
        let mut kept = Vec::new();
        while list.next_element::<IgnoredAny>()?.is_some() {
            if kept.is_empty() {
                kept.push(LEFT_OUT.into());
            }
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value, M::Error> {
        let mut kept = serde_json::Map::new();
        while self.depth == 0 && kept.len() < MAX_KEYS {
            let Some(key) = map.next_key_seed(WithText(shortened))? else {
                return Ok(Value::Object(kept));
            };
            let value = map.next_value_seed(Self { depth: 1 })?;
            kept.insert(key, value);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            if kept.is_empty() {
                kept.insert(LEFT_OUT.to_owned(), LEFT_OUT.into());
            }
        }
        Ok(Value::Object(kept))
    }
}

/// The beginning of a text, with a mark where it goes on.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    format!("{}{LEFT_OUT}", &text[..end])
}
