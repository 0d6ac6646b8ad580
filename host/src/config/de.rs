//! Reads typed settings out of the tree with serde, so that every error knows its key and place.
//!
//! A value of the file must have the wanted type. A variable's text is taken for whatever is
//! wanted: a number where a number is wanted, text where text is.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    error::{ConfigError, unknown_key},
    secret,
    tree::{Entry, Origin, Table, Value, parse_text},
};

/// Reads a `T` from the root table.
pub(super) fn read<'de, T: Deserialize<'de>>(root: &'de Table) -> Result<T, ConfigError> {
    T::deserialize(TableReader { table: root, origin: &Origin::Default })
        .map_err(Error::into_config)
}

/// An error on its way up to the root, gathering its key.
#[derive(Debug)]
struct Error {
    path: Vec<String>,
    origin: Option<Origin>,
    message: String,
    /// What is there in place of what is wanted.
    found: Option<String>,
}

impl Error {
    /// User information is not shown, whatever the text is taken for.
    fn wanted(wanted: impl fmt::Display, found: impl fmt::Display) -> Self {
        let found = Some(secret::mask(&found.to_string()));
        Self { found, ..de::Error::custom(format_args!("wanted {wanted}")) }
    }

    /// The same error, seen from the entry `key` that it arose in.
    fn below(mut self, key: &str, origin: &Origin) -> Self {
        self.path.insert(0, key.to_owned());
        self.origin.get_or_insert_with(|| origin.clone());
        self.found = self.found.filter(|_| !secret::is_key(key));
        self
    }

    fn into_config(self) -> ConfigError {
        let origin = self.origin.clone().unwrap_or(Origin::Default);
        ConfigError::setting(origin, self.path.join("."), &self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.found.as_ref().map_or(Ok(()), |found| write!(f, ", found {found}"))
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: Vec::new(), origin: None, message: message.to_string(), found: None }
    }

    fn invalid_type(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::wanted(wanted, found)
    }

    fn invalid_value(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::wanted(wanted, found)
    }

    fn unknown_variant(found: &str, wanted: &'static [&'static str]) -> Self {
        Self::wanted(format_args!("one of {}", wanted.join(", ")), format_args!("{found:?}"))
    }

    fn unknown_field(found: &str, wanted: &'static [&'static str]) -> Self {
        Self {
            path: vec![found.to_owned()],
            ..Self::custom(unknown_key(found, wanted.iter().copied()))
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the key \"{field}\" is missing"))
    }
}

/// Reads one entry.
#[derive(Clone, Copy)]
struct Reader<'de>(&'de Entry);

impl<'de> Reader<'de> {
    /// A variable's text, where that is what the entry is.
    fn variable(self) -> Option<&'de str> {
        match (&self.0.value, &self.0.origin) {
            (Value::Text(text), Origin::Variable(_)) => Some(text),
            _ => None,
        }
    }

    fn parse<T: FromStr>(self, wanted: &str) -> Option<Result<T, Error>> {
        let text = self.variable()?;
        let wrong = |_| Error::wanted(wanted, format_args!("{text:?}"));
        Some(text.trim().parse().map_err(wrong))
    }
}

/// A number or flag: parsed from a variable's text, else as it is.
macro_rules! parsed {
    ($($method:ident => $visit:ident, $wanted:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.parse($wanted) {
                Some(parsed) => visitor.$visit(parsed?),
                None => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Table(table) => {
                TableReader { table, origin: &self.0.origin }.deserialize_any(visitor)
            }
        }
    }

    parsed! {
        deserialize_bool => visit_bool, "true or false";
        deserialize_u16 => visit_u16, "a number";
        deserialize_u64 => visit_u64, "a number";
        deserialize_i64 => visit_i64, "a number";
        deserialize_f64 => visit_f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some(text) = self.variable() else { return self.deserialize_any(visitor) };
        let Some(items) = parse_text::<Vec<toml::Value>>(text) else {
            let wanted = "a list such as [\"a\", \"b\"]";
            return Err(Error::wanted(wanted, format_args!("{text:?}")));
        };
        let items = items.into_iter().map(toml::Value::into_deserializer);
        visitor
            .visit_seq(de::value::SeqDeserializer::new(items))
            .map_err(|error: toml::de::Error| de::Error::custom(error.message()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Text(text) = &self.0.value else { return self.deserialize_any(visitor) };
        visitor.visit_enum(StrDeserializer::new(text))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u32 u128 f32 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Reads a table.
#[derive(Clone, Copy)]
struct TableReader<'de> {
    table: &'de Table,
    origin: &'de Origin,
}

impl<'de> de::Deserializer<'de> for TableReader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self.table.iter().collect::<Vec<_>>().into_iter();
        visitor.visit_map(Entries { entries, value: None }).map_err(|mut error| {
            // A missing key belongs to the table itself.
            if error.path.is_empty() && error.origin.is_none() {
                error.origin = Some(self.origin.clone());
            }
            error
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

struct Entries<'de> {
    entries: std::vec::IntoIter<(&'de String, &'de Entry)>,
    value: Option<(&'de String, &'de Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.entries.next();
        let Some((key, entry)) = self.value else { return Ok(None) };
        seed.deserialize(StrDeserializer::<Error>::new(key)).map(Some).map_err(|mut error| {
            error.origin = Some(entry.origin.clone());
            error
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, entry)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader(entry)).map_err(|error| error.below(key, &entry.origin))
    }
}

struct Items<'de> {
    items: &'de [Entry],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(entry) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Reader(entry))
            .map(Some)
            .map_err(|error| error.below(&index.to_string(), &entry.origin))
    }
}
