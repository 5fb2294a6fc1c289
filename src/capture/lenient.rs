//! Values of JSON in whatever shape a tool wrote them.
//!
//! Sizes in quotes and headers that are numbers cost no record. What holds a record's
//! meaning must not get lost either: a list or an object is no text.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A text, or a number or a word as its text; nothing for `null`.
#[derive(Default)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl Visitor<'_> for Shapes {
            type Value = Text;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Some(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text, E> {
                Ok(Text(Some(text)))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(Some(value.to_string())))
            }

            fn visit_unit<E>(self) -> Result<Text, E> {
                Ok(Text(None))
            }
        }
        reader.deserialize_any(Shapes)
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    Ok(Text::deserialize(reader)?.0)
}

/// A text where one stands, of any shape where it decides nothing.
pub(super) fn any_text<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    Ok(match Loose::deserialize(reader)? {
        Loose::Text(text) => Some(text),
        Loose::None | Loose::List(_) | Loose::Odd => None,
    })
}

/// A value of any shape.
#[derive(Debug, Default)]
pub(super) enum Loose {
    #[default]
    None,
    Text(String),
    /// Of texts alone.
    List(Vec<String>),
    /// What holds an object.
    Odd,
}

impl Loose {
    /// Whether there is anything but an empty text.
    pub(super) fn is_filled(&self) -> bool {
        match self {
            Self::None => false,
            Self::Text(text) => !text.is_empty(),
            Self::List(_) | Self::Odd => true,
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Shapes;
        impl<'de> Visitor<'de> for Shapes {
            type Value = Loose;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
                Ok(Loose::Text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
                Ok(Loose::Text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
                Ok(Loose::Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
                Ok(Loose::Text(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose::None)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Loose, A::Error> {
                let mut texts = Vec::new();
                let mut is_odd = false;
                while let Some(one) = list.next_element()? {
                    match one {
                        Loose::Text(text) => texts.push(text),
                        Loose::None => {}
                        Loose::List(_) | Loose::Odd => is_odd = true,
                    }
                }
                Ok(match texts.len() {
                    _ if is_odd => Loose::Odd,
                    0 => Loose::None,
                    _ => Loose::List(texts),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                let mut is_any = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    is_any = true;
                }
                Ok(if is_any { Loose::Odd } else { Loose::None })
            }
        }
        reader.deserialize_any(Shapes)
    }
}

/// A number, in quotes or not; nothing where none stands. It must decide nothing.
pub(super) fn number<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<f64>, D::Error> {
    struct Shapes;
    impl<'de> Visitor<'de> for Shapes {
        type Value = Option<f64>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a number")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.trim().parse().ok())
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }

        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
        fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
            Ok(Some(value as f64))
        }

        #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
        fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(value as f64))
        }

        fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }
    reader.deserialize_any(Shapes)
}

/// Whether there is anything: an element, a key or a value.
pub(super) fn is_filled<'de, D: Deserializer<'de>>(reader: D) -> Result<bool, D::Error> {
    struct Shapes;
    impl<'de> Visitor<'de> for Shapes {
        type Value = bool;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("anything")
        }

        fn visit_str<E>(self, text: &str) -> Result<bool, E> {
            Ok(!text.is_empty())
        }

        fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
            Ok(true)
        }

        fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
            Ok(true)
        }

        fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
            Ok(true)
        }

        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
            let mut is_any = false;
            while list.next_element::<IgnoredAny>()?.is_some() {
                is_any = true;
            }
            Ok(is_any)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut is_any = false;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                is_any = true;
            }
            Ok(is_any)
        }
    }
    reader.deserialize_any(Shapes)
}
