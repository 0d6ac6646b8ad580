//! What the store holds for a whole service group: a part of the configuration, merged between the
//! file and the environment.

use std::{path::Path, sync::Arc};

use serde_json::Value as Json;

use super::{
    error::ConfigError,
    tree::{self, Entry, Origin, Table, Value},
};

/// The keys of `[otel]` that each host decides by itself: whoever may write to the store must not
/// choose what code its hosts run.
const OWN_KEYS: [&str; 2] = ["library", "sha256"];

/// The text under the key of a service group: TOML, or a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    key: Arc<str>,
    text: Arc<str>,
}

impl Fragment {
    /// What the store holds under `key`.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { key: key.into(), text: text.into() }
    }

    /// Its settings, all of them such as a fleet may share.
    pub(super) fn read(&self) -> Result<Table, ConfigError> {
        let table = if self.text.trim_start().starts_with('{') { self.json() } else { self.toml() };
        let table = table?;
        for (key, entry) in &table {
            self.check(key, entry)?;
        }
        Ok(table)
    }

    fn check(&self, section: &str, entry: &Entry) -> Result<(), ConfigError> {
        let Value::Table(table) = &entry.value else {
            return Err(self.refuse(section.to_owned()));
        };
        let is_shared = |key: &str| match section {
            "otel" => !OWN_KEYS.contains(&key),
            "log" => key == "level",
            _ => false,
        };
        match table.keys().find(|key| !is_shared(key)) {
            Some(key) => Err(self.refuse(format!("{section}.{key}"))),
            None => Ok(()),
        }
    }

    fn refuse(&self, key: String) -> ConfigError {
        let message = "is each host's own; the store may hold log.level and the keys of [otel] but \
                       library and sha256";
        ConfigError::setting(self.origin(), key, message)
    }

    fn origin(&self) -> Origin {
        Origin::Store(Arc::clone(&self.key))
    }

    /// Places in the text are lost: the operator has the text under a key, not in a file.
    fn toml(&self) -> Result<Table, ConfigError> {
        let mut table = tree::parse(Path::new(&*self.key), &self.text)?;
        table.values_mut().for_each(|entry| self.mark(entry));
        Ok(table)
    }

    fn mark(&self, entry: &mut Entry) {
        entry.origin = self.origin();
        match &mut entry.value {
            Value::Table(table) => table.values_mut().for_each(|below| self.mark(below)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item)),
            _ => {}
        }
    }

    fn json(&self) -> Result<Table, ConfigError> {
        let json: Json = serde_json::from_str(&self.text).map_err(|error| ConfigError::Syntax {
            path: Path::new(&*self.key).to_owned(),
            line: error.line(),
            message: error.to_string(),
        })?;
        match self.value(json)? {
            Value::Table(table) => Ok(table),
            _ => Err(ConfigError::setting(self.origin(), "the text", "wanted a JSON object")),
        }
    }

    fn entry(&self, json: Json) -> Result<Entry, ConfigError> {
        Ok(Entry { value: self.value(json)?, origin: self.origin() })
    }

    fn value(&self, json: Json) -> Result<Value, ConfigError> {
        let unusable = |what: &str, why| ConfigError::setting(self.origin(), what, why);
        Ok(match json {
            Json::Null => return Err(unusable("null", "TOML has no such value")),
            Json::Bool(flag) => Value::Bool(flag),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Value::Integer(number),
                (None, Some(number)) => Value::Float(number),
                (None, None) => {
                    return Err(unusable(&number.to_string(), "the number is out of range"));
                }
            },
            Json::String(text) => Value::Text(text),
            Json::Array(items) => Value::Array(
                items.into_iter().map(|item| self.entry(item)).collect::<Result<_, _>>()?,
            ),
            Json::Object(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| Ok((key, self.entry(value)?)))
                    .collect::<Result<_, ConfigError>>()?,
            ),
        })
    }
}
