//! From a record to the form that the SDK's exporters take.

use std::{
    str::FromStr,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value as SdkValue,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_proto::tonic::{
    common::v1::{self as proto, any_value::Value},
    trace::v1::{ScopeSpans, Span},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use prost::Message as _;

use super::{encode, queue::Finished};
use crate::{
    record::{Kind, Record},
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
            Self::Record(record) => span_of(&record),
            Self::Span(span) => *span,
        }
    }
}

fn span_of(record: &Record) -> SpanData {
    let mut bytes = Vec::new();
    encode::record(record, &mut bytes);
    let spans = ScopeSpans::decode(&bytes[..]).unwrap_or_default().spans;
    let span: Span = spans.into_iter().next().unwrap_or_default();
    let [.., flags] = record.span.flags.to_be_bytes();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(record.span.trace_id),
            SpanId::from_bytes(record.span.span_id),
            TraceFlags::new(flags),
            false,
            TraceState::from_str(&span.trace_state).unwrap_or_default(),
        ),
        parent_span_id: SpanId::from_bytes(record.parent_span_id),
        parent_span_is_remote: record.parent_is_remote,
        span_kind: match record.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: time(record.start),
        end_time: time(record.end),
        attributes: span.attributes.into_iter().filter_map(attribute).collect(),
        dropped_attributes_count: span.dropped_attributes_count,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if record.is_error { Status::error("") } else { Status::Unset },
        instrumentation_scope: SCOPE.clone(),
    }
}

fn attribute(pair: proto::KeyValue) -> Option<KeyValue> {
    Some(KeyValue::new(
        pair.key,
        match pair.value?.value? {
            Value::StringValue(text) => SdkValue::String(text.into()),
            Value::IntValue(number) => SdkValue::I64(number),
            Value::BoolValue(flag) => SdkValue::Bool(flag),
            Value::ArrayValue(list) => {
                let texts = list.values.into_iter().filter_map(|member| match member.value? {
                    Value::StringValue(text) => Some(text.into()),
                    _ => None,
                });
                SdkValue::Array(Array::String(texts.collect()))
            }
            _ => return None,
        },
    ))
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
