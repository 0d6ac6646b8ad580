//! The values as they were written, each with the place that it comes from.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::ConfigError;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the file, counted from 1.
    File(Arc<PathBuf>, usize),
    /// What the store holds under this key for the whole service group.
    Store(Arc<str>),
    /// An environment variable.
    Variable(String),
    /// Nobody set it.
    Default,
}

impl Origin {
    /// The place, after the word for what kind of place it is.
    pub(super) fn source(&self) -> String {
        match self {
            Self::File(path, line) => format!("file {}:{line}", path.display()),
            Self::Store(key) => format!("discovery {key}"),
            Self::Variable(name) => format!("environment {name}"),
            Self::Default => "default".to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Store(key) => f.write_str(key),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value of the file, or the text of a variable.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Array(Vec<Entry>),
    Table(Table),
}

/// The entries of one table, in the order of their keys.
pub(super) type Table = BTreeMap<String, Entry>;

/// Reads a file's text.
pub(super) fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let lines = Lines { path: Arc::new(path.to_owned()), text };
    match DeTable::parse(text) {
        Ok(table) => lines.table(table.get_ref()),
        Err(error) => Err(ConfigError::Syntax {
            path: path.to_owned(),
            line: lines.number(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        }),
    }
}

/// Puts `over` over what is there: table by table, every other value whole.
pub(super) fn merge(table: &mut Table, over: Table) {
    for (key, entry) in over {
        match (table.get_mut(&key), entry) {
            (
                Some(Entry { value: Value::Table(below), .. }),
                Entry { value: Value::Table(over), .. },
            ) => merge(below, over),
            (_, entry) => _ = table.insert(key, entry),
        }
    }
}

/// Turns byte offsets of a text into line numbers.
struct Lines<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
}

impl Lines<'_> {
    fn number(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|&&byte| byte == b'\n').count() + 1
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, ConfigError> {
        table
            .iter()
            .map(|(key, value)| Ok((key.get_ref().to_string(), self.entry(key, value)?)))
            .collect()
    }

    /// A key's value; a value of several lines is said to be where its key is.
    fn entry<T>(
        &self,
        key: &Spanned<T>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, ConfigError> {
        let origin = Origin::File(Arc::clone(&self.path), self.number(key.span().start));
        Ok(Entry { value: self.value(value.get_ref(), &origin)?, origin })
    }

    fn value(&self, value: &DeValue<'_>, origin: &Origin) -> Result<Value, ConfigError> {
        // It may be a password without its quotes.
        let unusable =
            || ConfigError::setting(origin.clone(), "value", "the number is out of range");
        Ok(match value {
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Integer(number) => Value::Integer(
                i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| unusable())?,
            ),
            DeValue::Float(number) => {
                Value::Float(number.as_str().parse().map_err(|_| unusable())?)
            }
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => Value::Array(
                items.iter().map(|item| self.entry(item, item)).collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Value::Table(self.table(table)?),
        })
    }
}

/// Puts the variables that name a key (`HOST_SERVER__LISTEN`) over what is there.
///
/// Two underscores separate the parts of a key and one stands for a hyphen; an item of a list is
/// named by its place (`HOST_ROUTE__0__PATH`). A variable without two underscores is not for us.
pub(super) fn overlay(
    table: &mut Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (name, text) in variables {
        let Some(key) = name.strip_prefix("HOST_").filter(|key| key.contains("__")) else {
            continue;
        };
        let parts: Vec<String> =
            key.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
        let origin = Origin::Variable(name.clone());
        let entry = Entry { value: Value::Text(text), origin: origin.clone() };
        if !put(table, &parts, entry) {
            let message = "names no place that a value can be put in";
            return Err(ConfigError::setting(origin, parts.join("."), message));
        }
    }
    Ok(())
}

fn put(table: &mut Table, parts: &[String], entry: Entry) -> bool {
    let [first, rest @ ..] = parts else { return false };
    if rest.is_empty() {
        table.insert(first.clone(), entry);
        return true;
    }
    let below = table.entry(first.clone()).or_insert_with(|| empty(&entry.origin));
    descend(below, rest, entry)
}

fn descend(place: &mut Entry, parts: &[String], entry: Entry) -> bool {
    match &mut place.value {
        Value::Table(table) => put(table, parts, entry),
        Value::Array(items) => {
            let [first, rest @ ..] = parts else { return false };
            let Ok(index) = first.parse::<usize>() else { return false };
            if index == items.len() {
                items.push(empty(&entry.origin));
            }
            match (items.get_mut(index), rest.is_empty()) {
                (Some(item), true) => {
                    *item = entry;
                    true
                }
                (Some(item), false) => descend(item, rest, entry),
                (None, _) => false,
            }
        }
        _ => false,
    }
}

fn empty(origin: &Origin) -> Entry {
    Entry { value: Value::Table(Table::new()), origin: origin.clone() }
}

/// The entry at a dotted key, or the innermost one on the way to it.
pub(super) fn find<'a>(table: &'a Table, key: &str) -> Option<&'a Entry> {
    let mut parts = key.split('.');
    let mut found = table.get(parts.next()?)?;
    for part in parts {
        let below = match &found.value {
            Value::Table(table) => table.get(part),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match below {
            Some(entry) => found = entry,
            None => break,
        }
    }
    Some(found)
}

impl Value {
    /// The value as JSON. A variable's text becomes what it would be in the file, where it can.
    pub(super) fn to_json(&self, origin: &Origin) -> serde_json::Value {
        match self {
            Self::Bool(flag) => (*flag).into(),
            Self::Integer(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Text(text) => match origin {
                Origin::Variable(_) => parse_text(text).unwrap_or_else(|| text.clone().into()),
                Origin::File(..) | Origin::Store(_) | Origin::Default => text.clone().into(),
            },
            Self::Array(items) => items.iter().map(Entry::to_json).collect(),
            Self::Table(table) => table_to_json(table),
        }
    }
}

impl Entry {
    pub(super) fn to_json(&self) -> serde_json::Value {
        self.value.to_json(&self.origin)
    }
}

pub(super) fn table_to_json(table: &Table) -> serde_json::Value {
    table.iter().map(|(key, entry)| (key.clone(), entry.to_json())).collect()
}

/// A variable's text read as a TOML value: `5`, `true`, `["a"]`, `{ a = "b" }`.
pub(super) fn parse_text<T: DeserializeOwned>(text: &str) -> Option<T> {
    let mut table: BTreeMap<String, T> = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}
