//! etcd's messages as its JSON gateway writes them: bytes are base64, 64-bit numbers are text, and
//! what has its default is left out.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// A range of keys, ready to be sent: one key, or all that start with a prefix.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Range {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<String>,
}

impl Range {
    pub(super) fn key(key: &str) -> Self {
        Self { key: STANDARD.encode(key), range_end: None }
    }

    pub(super) fn prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        // The last byte is the separator, which is not the greatest of all bytes.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { key: STANDARD.encode(prefix), range_end: Some(STANDARD.encode(end)) }
    }
}

/// All that is in `ranges`, at one revision.
pub(super) fn read(ranges: &[Range]) -> Json {
    let ranges: Vec<Json> = ranges.iter().map(|range| json!({"request_range": range})).collect();
    json!({ "success": ranges })
}

/// Every change in `ranges` after `revision`: one message for each of them.
pub(super) fn watch(ranges: &[Range], revision: i64) -> String {
    let mut body = String::new();
    for range in ranges {
        let mut create = json!(range);
        create["start_revision"] = (revision + 1).to_string().into();
        body += &json!({ "create_request": create }).to_string();
    }
    body
}

pub(super) fn put(key: &str, value: &str, lease: &str) -> Json {
    json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value), "lease": lease})
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Read {
    pub(super) header: Header,
    #[serde(default)]
    responses: Vec<RangeResponse>,
}

#[derive(Debug, Deserialize)]
struct RangeResponse {
    response_range: Kvs,
}

#[derive(Debug, Deserialize)]
struct Kvs {
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

impl Read {
    pub(super) fn into_pairs(self) -> impl Iterator<Item = KeyValue> {
        self.responses.into_iter().flat_map(|response| response.response_range.kvs)
    }
}

/// A key and its value; the value is absent where the key is gone.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    key: Vec<u8>,
    #[serde(default, deserialize_with = "bytes")]
    value: Vec<u8>,
}

impl KeyValue {
    /// A key that is not UTF-8 is nobody's: it is read as well as it can be, to be named.
    pub(super) fn into_pair(self) -> (String, Vec<u8>) {
        (String::from_utf8_lossy(&self.key).into_owned(), self.value)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Lease {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    /// In seconds; 0 when there is no such lease.
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    pub(super) ttl: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

/// A message of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Watched {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: i64,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    /// `DELETE`, or absent for a put.
    #[serde(rename = "type", default)]
    kind: String,
    pub(super) kv: KeyValue,
}

impl Event {
    pub(super) fn is_removal(&self) -> bool {
        self.kind == "DELETE"
    }
}

/// Why etcd does not do what it was asked.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) message: String,
}

fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        let range = json!(Range::prefix("/host/services/"));
        let wanted = json!({"key": STANDARD.encode("/host/services/"), "range_end": STANDARD.encode("/host/services0")});
        assert_eq!(range, wanted);
    }

    #[test]
    fn what_etcd_leaves_out_has_its_default() {
        let watched: Streamed<Watched> = serde_json::from_str(
            r#"{"result":{"header":{},"events":[{"kv":{"key":"YQ==","value":"Yg==","lease":"1"}},{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"4"}}]}}"#,
        )
        .unwrap();
        let watched = watched.result.unwrap();
        let removals: Vec<bool> = watched.events.iter().map(Event::is_removal).collect();
        assert_eq!((removals, watched.canceled), (vec![false, true], false));
        let lease: Streamed<Lease> =
            serde_json::from_str(r#"{"result":{"header":{},"ID":"123"}}"#).unwrap();
        assert_eq!(lease.result.unwrap().ttl, 0);
    }
}
