//! Headers that the operator wants on the spans.

use std::borrow::Cow;

use plugin_api::Header;
use smallvec::SmallVec;

use super::Tracing;
use crate::{record::Record, semconv};

/// The headers of one kind of message.
#[derive(Debug)]
pub(super) struct Capture(Vec<Captured>);

#[derive(Debug)]
struct Captured {
    /// In lower case.
    name: String,
    /// The attribute's key, which ends with the name.
    key: String,
}

impl Capture {
    /// The request headers of these names, in lower case.
    pub(super) fn of_requests(names: &[String]) -> Self {
        Self::new(semconv::HTTP_REQUEST_HEADER, names)
    }

    /// The response headers of these names, in lower case.
    pub(super) fn of_responses(names: &[String]) -> Self {
        Self::new(semconv::HTTP_RESPONSE_HEADER, names)
    }

    fn new(prefix: &str, names: &[String]) -> Self {
        let captured =
            |name: &String| Captured { name: name.clone(), key: format!("{prefix}{name}") };
        Self(names.iter().map(captured).collect())
    }

    /// Adds those among `headers`, without what is secret in them.
    pub(super) fn record(&self, tracing: &Tracing, headers: &[Header<'_>], record: &mut Record) {
        for Captured { name, key } in &self.0 {
            let lines = headers.iter().filter(|header| header.name() == name);
            let values = lines.map(|header| {
                let value = tracing.redaction.header(name, header.value());
                tracing.cardinality.value(key, value)
            });
            let values: SmallVec<[Cow<'_, str>; 4]> = values.collect();
            if !values.is_empty() {
                record.texts(key, values.iter().map(AsRef::as_ref));
            }
        }
    }
}
