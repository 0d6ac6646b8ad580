//! One export: chunks of encoded spans, framed as OTLP's `ExportTraceServiceRequest` without looking
//! inside.

use std::sync::LazyLock;

use bytes::Bytes;
use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::Resource;

use super::{buffers::Chunk, encode};
use crate::{
    otlp::{self, Place},
    semconv,
};

/// The tag of `ExportTraceServiceRequest.resource_spans` and of `ResourceSpans.resource`.
const FIRST: u8 = 0x0a;
/// The tag of `ResourceSpans.scope_spans`.
const SCOPE_SPANS: u8 = 0x12;
/// The tag of `ResourceSpans.schema_url` and of `ScopeSpans.schema_url`.
const SCHEMA_URL: u8 = 0x1a;

/// The scope of the spans of exchanges.
static OWN_SCOPE: LazyLock<Bytes> = LazyLock::new(|| {
    let scope = InstrumentationScope::builder(semconv::SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(semconv::SCHEMA_URL);
    scope_fields(&scope.build()).into()
});

/// Fields of `ScopeSpans`: all but the spans.
pub(super) fn scope_fields(scope: &InstrumentationScope) -> Vec<u8> {
    let mut out = Vec::new();
    otlp::message(&mut out, FIRST, |out| {
        otlp::bytes_if_any(out, 0x0a, scope.name().as_bytes());
        otlp::bytes_if_any(out, 0x12, scope.version().unwrap_or_default().as_bytes());
        encode::attributes(out, Place::EventOrScope, scope.attributes());
    });
    otlp::bytes_if_any(&mut out, SCHEMA_URL, scope.schema_url().unwrap_or_default().as_bytes());
    out
}

/// Fields of `ResourceSpans`: all but the spans.
pub(super) fn resource_fields(resource: &Resource) -> Vec<u8> {
    let mut out = Vec::new();
    otlp::message(&mut out, FIRST, |out| {
        for (key, value) in resource {
            let pair = opentelemetry::KeyValue::new(key.clone(), value.clone());
            encode::attributes(out, Place::Resource, [&pair]);
        }
    });
    otlp::bytes_if_any(&mut out, SCHEMA_URL, resource.schema_url().unwrap_or_default().as_bytes());
    out
}

/// Spans that are exported together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The number of the first chunk, which is that of the batch.
    pub(super) first: u64,
    pub(super) spans: usize,
    pub(super) bytes: usize,
    scopes: Vec<Scope>,
}

/// Chunks of one scope, one after the other.
#[derive(Debug)]
struct Scope {
    /// `None` for our own.
    fields: Option<Bytes>,
    length: usize,
    chunks: Vec<Bytes>,
}

impl Batch {
    /// A batch that has no chunks yet.
    pub(super) fn new(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Adds the next chunk.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.spans += chunk.spans;
        self.bytes += chunk.bytes.len();
        match self.scopes.last_mut() {
            Some(scope) if scope.fields == chunk.scope => scope.add(chunk.bytes),
            _ => {
                let mut scope = Scope { fields: chunk.scope, length: 0, chunks: Vec::new() };
                scope.add(chunk.bytes);
                self.scopes.push(scope);
            }
        }
    }

    /// The request's body in parts; `resource` is what [`resource_fields`] gave.
    pub(crate) fn frame(&self, resource: &[u8]) -> Vec<Bytes> {
        let scopes: usize = self.scopes.iter().map(|scope| otlp::field_len(scope.len())).sum();
        let mut start = Vec::with_capacity(resource.len() + 16);
        otlp::head(&mut start, FIRST, resource.len() + scopes);
        start.extend_from_slice(resource);
        let mut parts = vec![start.into()];
        for scope in &self.scopes {
            let mut head = Vec::with_capacity(scope.fields().len() + 16);
            otlp::head(&mut head, SCOPE_SPANS, scope.len());
            head.extend_from_slice(scope.fields());
            parts.push(head.into());
            parts.extend(scope.chunks.iter().cloned());
        }
        parts
    }
}

impl Scope {
    fn add(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len();
        self.chunks.push(bytes.into());
    }

    fn fields(&self) -> &Bytes {
        self.fields.as_ref().unwrap_or(&OWN_SCOPE)
    }

    fn len(&self) -> usize {
        self.fields().len() + self.length
    }
}
