//! From a record to the form that the SDK's exporters take.

use std::{
    str::FromStr,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value as SdkValue,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::queue::Finished;
use crate::{
    record::{Kind, Record, Value},
    semconv,
};

static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder(semconv::SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(semconv::SCHEMA_URL)
        .build()
});

impl Finished {
    /// The span as the SDK's exporters take it. Called on the export thread.
    pub(super) fn into_span(self) -> SpanData {
        match self {
            Self::Record(record) => span_of(*record),
            Self::Span(span) => *span,
        }
    }
}

fn span_of(record: Record) -> SpanData {
    SpanData {
        span_context: context_of(&record),
        parent_span_id: SpanId::from_bytes(record.parent_span_id),
        parent_span_is_remote: record.parent_is_remote,
        span_kind: match record.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        },
        name: record.name,
        start_time: time(record.start),
        end_time: time(record.end),
        attributes: record.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if record.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: SCOPE.clone(),
    }
}

fn context_of(record: &Record) -> SpanContext {
    let span = record.context.span();
    let [.., flags] = span.flags.to_be_bytes();
    // The SDK knows level 1 only: a state with keys of level 2 travels on but is not exported.
    let state = TraceState::from_str(record.context.tracestate()).unwrap_or_default();
    SpanContext::new(
        TraceId::from_bytes(span.trace_id),
        SpanId::from_bytes(span.span_id),
        TraceFlags::new(flags),
        false,
        state,
    )
}

fn attribute((key, value): (&'static str, Value)) -> KeyValue {
    KeyValue::new(
        key,
        match value {
            Value::Number(number) => SdkValue::I64(number),
            Value::Text(text) => SdkValue::String(text.into()),
        },
    )
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
