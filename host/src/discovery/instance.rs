//! One instance: as the host knows it, and as a store holds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{config::BaseUrl, identity::Identity};

/// The largest entry that is read.
const MOST_BYTES: usize = 64 << 10;

/// One instance of a service group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// What tells it from every other instance of its group: a UUID; of a configured instance, whose
    /// UUID nobody knows, the URL.
    pub id: String,
    /// Its name for people; empty when configured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The version of its program; empty when configured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where it is reached.
    pub url: BaseUrl,
    /// What its operator says of it: a zone, a rack.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The value of a store's key, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: Option<String>,
    group: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    /// Host, port and, where there is one, the path that stands in front of every request's.
    address: String,
    #[serde(default = "http")]
    protocol: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn http() -> String {
    "http".to_owned()
}

impl Instance {
    /// An instance of which only the URL is known.
    pub(crate) fn configured(url: BaseUrl) -> Self {
        let (name, version, labels) = Default::default();
        Self { id: url.uri().to_string(), name, version, url, labels }
    }

    /// This process, reached at `url`.
    pub(crate) fn own(identity: &Identity, url: BaseUrl, labels: BTreeMap<String, String>) -> Self {
        let Identity { id, name, version, .. } = identity.clone();
        Self { id, name, version, url, labels }
    }

    /// The value that a store holds for it.
    pub(super) fn to_entry(&self, group: &str) -> String {
        let url = String::from(self.url.clone());
        let (protocol, address) = url.split_once("://").unwrap_or(("http", &url));
        let entry = Entry {
            id: Some(self.id.clone()),
            group: Some(group.to_owned()),
            name: self.name.clone(),
            version: self.version.clone(),
            address: address.trim_end_matches('/').to_owned(),
            protocol: protocol.to_owned(),
            labels: self.labels.clone(),
        };
        // Text and a map of texts are always JSON.
        serde_json::to_string(&entry).unwrap_or_default()
    }

    /// The instance that a store holds under the key of `group` and `id`, or why it is none.
    pub(super) fn from_entry(group: &str, id: &str, value: &[u8]) -> Result<Self, String> {
        if value.len() > MOST_BYTES {
            return Err(format!("wanted at most {MOST_BYTES} bytes, found {}", value.len()));
        }
        let entry: Entry = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        for (what, told, key) in [("id", &entry.id, id), ("group", &entry.group, group)] {
            if let Some(told) = told.as_ref().filter(|told| *told != key) {
                return Err(format!("its {what} is {told:?}, its key says {key:?}"));
            }
        }
        let url = BaseUrl::try_from(format!("{}://{}", entry.protocol, entry.address))?;
        let Entry { name, version, labels, .. } = entry;
        Ok(Self { id: id.to_owned(), name, version, url, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let instance = Instance {
            id: "1".to_owned(),
            name: "manager-1".to_owned(),
            version: "1.0.0".to_owned(),
            url: BaseUrl::try_from("http://127.0.0.1:8080/base".to_owned()).unwrap(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        };
        let entry = instance.to_entry("manager");
        assert_eq!(
            entry,
            r#"{"id":"1","group":"manager","name":"manager-1","version":"1.0.0","address":"127.0.0.1:8080/base","protocol":"http","labels":{"zone":"a"}}"#
        );
        assert_eq!(Instance::from_entry("manager", "1", entry.as_bytes()), Ok(instance));
    }

    #[test]
    fn an_entry_needs_no_more_than_an_address_and_may_have_more_than_is_known() {
        let entry = br#"{"address": "a:1", "weight": 5}"#;
        let read = Instance::from_entry("g", "1", entry).unwrap();
        assert_eq!(String::from(read.url), "http://a:1/");
    }

    #[test]
    fn what_nobody_can_call_is_no_instance() {
        for entry in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            r#"{"address": 5}"#,
            r#"{"address": ""}"#,
            r#"{"address": "u:p@a:1"}"#,
            r#"{"address": "a:1?q"}"#,
            r#"{"address": "a:1", "protocol": "ftp"}"#,
            r#"{"address": "a:1", "id": "2"}"#,
            r#"{"address": "a:1", "group": "h"}"#,
            r#"{"address": "a:1", "labels": {"a": 1}}"#,
            "{\"address\": \"a:1\", \"name\": \"\u{0}",
        ] {
            assert!(Instance::from_entry("g", "1", entry.as_bytes()).is_err(), "{entry}");
        }
        let large = format!(r#"{{"address": "a:1", "name": "{}"}}"#, "x".repeat(MOST_BYTES));
        assert!(Instance::from_entry("g", "1", large.as_bytes()).is_err());
        assert!(Instance::from_entry("g", "1", b"\xff").is_err());
    }
}
