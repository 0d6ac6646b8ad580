//! Settings that are lists of tables: `[[otel.rule]]` and `[[otel.trust]]`.

use plugin_api::PluginError;
use serde_json::{Map, Value};

use super::parse::{self, Raw};
use crate::{rules::Rule, trust};

/// One table of a list, whose keys are taken out one by one.
struct Table {
    /// `rule.0`
    place: String,
    keys: Map<String, Value>,
}

/// Reads each table of the list at this key.
fn each<T>(
    key: &str,
    list: Value,
    read: impl Fn(&mut Table) -> Result<T, PluginError>,
) -> Result<Vec<T>, PluginError> {
    let Value::Array(list) = list else {
        return Err(PluginError::setting(key, "wanted a list of tables"));
    };
    let one = |(nth, value): (usize, Value)| {
        let place = format!("{key}.{nth}");
        let Value::Object(keys) = value else {
            return Err(PluginError::setting(&place, "wanted a table"));
        };
        let mut table = Table { place, keys };
        let read = read(&mut table)?;
        match table.keys.keys().next() {
            Some(key) => Err(table.wrong(key, "unknown setting")),
            None => Ok(read),
        }
    };
    list.into_iter().enumerate().map(one).collect()
}

impl Table {
    fn take<T>(
        &mut self,
        key: &str,
        parse: impl Fn(Raw<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, PluginError> {
        let Some(value) = self.keys.remove(key) else { return Ok(None) };
        parse(Raw::Setting(&value)).map(Some).map_err(|reason| self.wrong(key, &reason))
    }

    fn wrong(&self, key: &str, reason: &str) -> PluginError {
        PluginError::setting(&format!("{}.{key}", self.place), reason)
    }
}

/// Sampling rules.
pub(super) fn rules(list: Value) -> Result<Vec<Rule>, PluginError> {
    each("rule", list, |table| {
        Ok(Rule {
            route: table.take("route", parse::template)?,
            method: table.take("method", parse::method)?,
            header: table.take("header", parse::header_condition)?,
            ratio: table
                .take("ratio", parse::ratio)?
                .ok_or_else(|| table.wrong("ratio", "wanted a number from 0 to 1, found none"))?,
            at_least: None,
        })
    })
}

/// Entries of the trust table.
pub(super) fn trust(list: Value) -> Result<Vec<trust::Entry>, PluginError> {
    each("trust", list, |table| {
        let entry = trust::Entry {
            peers: table.take("peer", parse::networks)?,
            route: table.take("route", parse::template)?,
            trust: table.take("incoming", parse::trust)?.ok_or_else(|| {
                table.wrong("incoming", "wanted continue, link or ignore, found none")
            })?,
        };
        if entry.peers.is_none() && entry.route.is_none() {
            return Err(table.wrong("peer", "wanted peer or route or both, found neither"));
        }
        Ok(entry)
    })
}
