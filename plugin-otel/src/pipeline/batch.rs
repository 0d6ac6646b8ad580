//! One export: chunks of encoded items, framed as OTLP's export request without looking inside. The
//! requests of all signals are built alike, with the same numbers.

use std::{ptr, sync::LazyLock};

use bytes::Bytes;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::{
    buffers::{Chunk, Run},
    encode,
};
use crate::{
    otlp::{self, Place},
    semconv,
};

/// The tag of `ExportTraceServiceRequest.resource_spans`, of `ResourceSpans.resource` and of
/// `ScopeSpans.scope`.
const FIRST: u8 = 0x0a;
/// The tag of `ResourceSpans.scope_spans`.
const SCOPES: u8 = 0x12;
/// The tag of `ResourceSpans.schema_url` and of `ScopeSpans.schema_url`.
const SCHEMA_URL: u8 = 0x1a;

/// About as many full chunks as are worth an export, and some that are not full.
const USUAL_PARTS: usize = 24;

/// The scope of the spans of exchanges.
static OWN_SCOPE: LazyLock<Bytes> = LazyLock::new(|| {
    let scope = InstrumentationScope::builder(semconv::SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(semconv::SCHEMA_URL);
    scope_fields(&scope.build()).into()
});

/// Fields of `ScopeSpans`: all but the items.
pub(super) fn scope_fields(scope: &InstrumentationScope) -> Vec<u8> {
    let mut out = Vec::new();
    otlp::message(&mut out, FIRST, 0, |out| {
        otlp::bytes_if_any(out, 0x0a, scope.name().as_bytes());
        otlp::bytes_if_any(out, 0x12, scope.version().unwrap_or_default().as_bytes());
        encode::attributes(out, Place::EventOrScope, scope.attributes());
    });
    otlp::bytes_if_any(&mut out, SCHEMA_URL, scope.schema_url().unwrap_or_default().as_bytes());
    out
}

/// Fields of `ResourceSpans`: all but the items.
pub(super) fn resource_fields(resource: &Resource) -> Vec<u8> {
    let mut out = Vec::new();
    otlp::message(&mut out, FIRST, 0, |out| {
        for (key, value) in resource {
            let pair = opentelemetry::KeyValue::new(key.clone(), value.clone());
            encode::attributes(out, Place::Resource, [&pair]);
        }
    });
    otlp::bytes_if_any(&mut out, SCHEMA_URL, resource.schema_url().unwrap_or_default().as_bytes());
    out
}

/// Whose items these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Our own.
    Own,
    /// The part of the host with this name.
    Target(&'static str),
    /// Someone's who uses the OpenTelemetry API, as [`scope_fields`] wrote it.
    Api(Bytes),
}

impl Scope {
    /// Whether both are the same. Parts of the host are so where their names are the same text of the
    /// program, before anyone compares what it says.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Target(one), Self::Target(other)) => ptr::eq(*one, *other) || one == other,
            _ => self == other,
        }
    }

    fn fields(&self) -> Bytes {
        match self {
            Self::Own => OWN_SCOPE.clone(),
            Self::Target(name) => {
                scope_fields(&InstrumentationScope::builder(*name).build()).into()
            }
            Self::Api(fields) => fields.clone(),
        }
    }
}

/// Items that are exported together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The number of the first chunk, which is that of the batch.
    pub(super) first: u64,
    pub(super) items: usize,
    /// How many spans, log records or data points these are.
    pub(super) units: usize,
    pub(super) bytes: usize,
    groups: Vec<Group>,
}

/// What a batch has of one scope.
#[derive(Debug)]
struct Group {
    scope: Scope,
    fields: Bytes,
    length: usize,
    parts: Vec<Bytes>,
}

impl Batch {
    /// A batch that has no chunks yet.
    pub(super) fn new(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Adds the next chunk.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.items += chunk.items;
        self.units += chunk.units;
        self.bytes += chunk.bytes.len();
        let mut start = 0;
        for Run { scope, end } in chunk.runs {
            self.group(scope).add(chunk.bytes.slice(start..end));
            start = end;
        }
    }

    /// The group of this scope.
    fn group(&mut self, scope: Scope) -> &mut Group {
        let known = self.groups.iter().rposition(|group| group.scope == scope);
        let index = known.unwrap_or_else(|| {
            let fields = scope.fields();
            let parts = Vec::with_capacity(USUAL_PARTS);
            self.groups.push(Group { scope, fields, length: 0, parts });
            self.groups.len() - 1
        });
        &mut self.groups[index]
    }

    /// The request's body in parts; `resource` is what [`resource_fields`] gave.
    pub(crate) fn frame(&self, resource: &[u8]) -> Vec<Bytes> {
        let length: usize = self.groups.iter().map(|group| otlp::field_len(group.len())).sum();
        let count: usize = self.groups.iter().map(|group| 1 + group.parts.len()).sum();
        let mut parts = Vec::with_capacity(1 + count);
        parts.push(head(FIRST, resource, length));
        for group in &self.groups {
            parts.push(head(SCOPES, &group.fields, group.length));
            parts.extend(group.parts.iter().cloned());
        }
        parts
    }
}

/// The beginning of a message that has these fields, and so many bytes of further ones.
fn head(tag: u8, fields: &[u8], further: usize) -> Bytes {
    let content = fields.len() + further;
    // Not a byte more: what has some to spare takes another allocation.
    let mut out = Vec::with_capacity(otlp::field_len(content) - further);
    otlp::head(&mut out, tag, content);
    out.extend_from_slice(fields);
    out.into()
}

impl Group {
    fn add(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.parts.push(bytes);
    }

    fn len(&self) -> usize {
        self.fields.len() + self.length
    }
}
