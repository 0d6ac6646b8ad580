//! A finished span as plain data: exchanges fill it, the pipeline takes it, neither knows the other.

use std::borrow::Cow;

use plugin_api::Context;

/// One span.
#[derive(Debug)]
pub(crate) struct Record {
    /// The span's identity with the trace state that belongs to it.
    pub(crate) context: Context,
    /// The parent span; all zero for a root.
    pub(crate) parent_span_id: [u8; 8],
    /// Whether the parent lives in another process.
    pub(crate) parent_is_remote: bool,
    /// Which end of an exchange this is.
    pub(crate) kind: Kind,
    /// The low-cardinality name.
    pub(crate) name: Cow<'static, str>,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) end: u64,
    /// In the order in which they became known.
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// Whether the span's status is Error; otherwise it is Unset.
    pub(crate) is_error: bool,
}

/// Which end of an exchange a span describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answering end.
    Server,
    /// The asking end.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number.
    Number(i64),
    /// A text.
    Text(Cow<'static, str>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Value {
    /// A number that OTLP cannot hold becomes the largest that it can.
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}
