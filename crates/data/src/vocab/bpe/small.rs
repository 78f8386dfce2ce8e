//! Values of JSON that are small: parts of a file whose shape depends on what else it says.

use std::{cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// The most values within a [`Small`] one.
const MOST: usize = 10_000;

/// A value of at most [`MOST`] parts; larger ones are errors before they take memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Small(pub(super) Value);

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Parts(&Cell::new(MOST)).deserialize(from).map(Self)
    }
}

/// Items of a list, of which there may be at most `most`.
pub(super) fn list<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut from: A, most: usize) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = from.next_element()? {
        if items.len() == most {
            return Err(A::Error::custom(format_args!("there are more than {most}")));
        }
        items.push(item);
    }
    Ok(items)
}

/// How many parts are still allowed.
#[derive(Clone, Copy)]
struct Parts<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Parts<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let rest = self.0.get().checked_sub(1);
        self.0.set(rest.ok_or_else(|| D::Error::custom(format_args!("it has more than {MOST} parts")))?);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
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
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(self)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut fields = serde_json::Map::new();
        while let Some(name) = from.next_key()? {
            fields.insert(name, from.next_value_seed(self)?);
        }
        Ok(fields.into())
    }
}
