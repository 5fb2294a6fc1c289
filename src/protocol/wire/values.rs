//! Values of an event's fields, as proxies write them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::event::Headers;

/// Hands a text to a function, which need not keep a copy of it.
pub(crate) struct WithText<F>(pub(crate) F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for WithText<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<T, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for WithText<F> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// Body bytes: base64 in a string, or as they are where the encoding can.
pub(super) struct Data(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct DataVisitor;
        impl Visitor<'_> for DataVisitor {
            type Value = Data;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("base64 or bytes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
                STANDARD.decode(text).map(Data).map_err(E::custom)
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Data, E> {
                Ok(Data(bytes.to_vec()))
            }
        }
        reader.deserialize_any(DataVisitor)
    }
}

/// An object of name and values, as a list of fields.
pub(super) struct HeaderMap(pub(super) Headers);

impl<'de> Deserialize<'de> for HeaderMap {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct HeadersVisitor;
        impl<'de> Visitor<'de> for HeadersVisitor {
            type Value = HeaderMap;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of lists of values")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<HeaderMap, M::Error> {
                // A usual request; more grows as it comes.
                let mut headers = Headers::with_capacity(16, 1024);
                let mut name = String::with_capacity(32);
                let keep = |name: &mut String, key: &str| {
                    name.clear();
                    name.push_str(key);
                };
                while map
                    .next_key_seed(WithText(|key: &str| keep(&mut name, key)))?
                    .is_some()
                {
                    map.next_value_seed(ValuesSeed {
                        name: &name,
                        headers: &mut headers,
                    })?;
                }
                Ok(HeaderMap(headers))
            }
        }
        reader.deserialize_map(HeadersVisitor)
    }
}

/// The values of one name.
struct ValuesSeed<'a> {
    name: &'a str,
    headers: &'a mut Headers,
}

impl<'de> DeserializeSeed<'de> for ValuesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ValuesSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of values")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let Self { name, headers } = self;
        while list
            .next_element_seed(WithText(|value: &str| headers.push(name, value)))?
            .is_some()
        {}
        Ok(())
    }
}
