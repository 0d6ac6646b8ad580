//! The spans of the host's own code: `tracing`'s, as users of `tracing-opentelemetry` know them.
//!
//! Fields become attributes, but for those that speak to OpenTelemetry: `otel.name`, `otel.kind`,
//! `otel.status_code` and `otel.status_message`. An event of level ERROR makes the status Error; one
//! that has an `error` and no message is the exception that ended the span.

use std::sync::Arc;

use plugin_api::{
    Context, Level,
    telemetry::{Begun, Event, Field, Span, SpanHead, Value},
};

use crate::{
    exchange::Tracing,
    otlp::{self, Place},
    record::{Kind, Link, Record},
    semconv,
};

/// A span of the host's code; over when it is dropped.
#[derive(Debug)]
pub(crate) struct LocalSpan {
    /// `None` once it is handed over.
    record: Option<Record>,
    tracing: Arc<Tracing>,
}

impl LocalSpan {
    /// Begins a span below this parent, or at the root of a new trace.
    pub(crate) fn begin(
        tracing: &Arc<Tracing>,
        head: &SpanHead<'_>,
        parent: &Context,
    ) -> Begun<Self> {
        let span = tracing.call(parent.span());
        let context = parent.with_span(span);
        if !span.is_sampled() || !tracing.records {
            return Begun { context, span: None };
        }
        let now = tracing.clock.now();
        let parent = Some(parent.span()).filter(|parent| parent.is_valid());
        let callsite = head.callsite();
        let mut record = Record::begin(Kind::Internal, &context, parent, callsite.name(), now);
        if !callsite.file().is_empty() {
            record.text(semconv::CODE_FILE_PATH, callsite.file());
            record.number(semconv::CODE_LINE_NUMBER, callsite.line().into());
        }
        if !callsite.module().is_empty() {
            let parts = [callsite.module(), "::", callsite.name()];
            record.concat(semconv::CODE_FUNCTION_NAME, &parts);
        }
        tracing.pipeline.began();
        let mut span = Self { record: Some(record), tracing: Arc::clone(tracing) };
        span.on_record(head.fields());
        Begun { context, span: Some(span) }
    }
}

impl Span for LocalSpan {
    fn on_record(&mut self, fields: &[Field<'_>]) {
        let Some(record) = &mut self.record else { return };
        for field in fields {
            match (field.key(), field.value()) {
                ("otel.name", Value::Text(name)) => record.rename(&[name]),
                ("otel.kind", Value::Text(kind)) => set_kind(record, kind),
                ("otel.status_code", Value::Text(code)) => set_status(record, code),
                ("otel.status_message" | "otel.status_description", Value::Text(message)) => {
                    record.is_error = true;
                    message.clone_into(&mut record.status_message);
                }
                (key, value) => attribute(record, key, value),
            }
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        let Some(record) = &mut self.record else { return };
        let level = event.callsite().level();
        record.is_error |= level == Level::ERROR && !record.is_ok;
        let exception = exception(event);
        if let Some(message) = exception {
            record.is_error = true;
            message.clone_into(&mut record.status_message);
        }
        for field in event.fields() {
            if let Value::Error { message, causes } = field.value() {
                exception_attributes(record, message, causes);
            }
        }
        let name = match (exception, event.message()) {
            (Some(_), _) => "exception",
            (None, "") => event.callsite().name(),
            (None, message) => message,
        };
        let now = self.tracing.clock.now();
        record.event(name, now, |out| {
            let place = Place::EventOrScope;
            otlp::text(out, place, "level", severity(level));
            otlp::text(out, place, "target", event.callsite().target());
            if let Some(message) = exception {
                otlp::text(out, place, semconv::EXCEPTION_MESSAGE, message);
            }
            fields(out, place, event, exception.is_some());
        });
    }

    fn on_follows_from(&mut self, context: &Context) {
        if let Some(record) = &mut self.record {
            let (span, tracestate) = (context.span(), context.tracestate());
            record.link(&Link { span, tracestate, is_remote: false }, &[]);
        }
    }
}

impl Drop for LocalSpan {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        // The wall clock may be set meanwhile, and a span must not end before it starts.
        record.end = self.tracing.clock.now().max(record.start);
        self.tracing.pipeline.ended();
        self.tracing.pipeline.finish(&record);
    }
}

/// The name of a level, as OpenTelemetry and `tracing` both have it.
pub(crate) const fn severity(level: Level) -> &'static str {
    match level {
        Level::TRACE => "TRACE",
        Level::DEBUG => "DEBUG",
        Level::WARN => "WARN",
        Level::ERROR => "ERROR",
        _ => "INFO",
    }
}

fn set_kind(record: &mut Record, kind: &str) {
    let kinds = [
        ("server", Kind::Server),
        ("client", Kind::Client),
        ("producer", Kind::Producer),
        ("consumer", Kind::Consumer),
        ("internal", Kind::Internal),
    ];
    if let Some((_, known)) = kinds.iter().find(|(name, _)| kind.eq_ignore_ascii_case(name)) {
        record.kind = *known;
    }
}

fn set_status(record: &mut Record, code: &str) {
    (record.is_ok, record.is_error) =
        (code.eq_ignore_ascii_case("ok"), code.eq_ignore_ascii_case("error"));
}

fn attribute(record: &mut Record, key: &str, value: Value<'_>) {
    match value {
        Value::Bool(flag) => record.flag(key, flag),
        Value::I64(number) => record.number(key, number),
        Value::U64(number) => match i64::try_from(number) {
            Ok(number) => record.number(key, number),
            // OTLP cannot hold it as a number.
            Err(_) => record.text(key, &number.to_string()),
        },
        Value::F64(fraction) => record.fraction(key, fraction),
        Value::Text(text) => record.text(key, text),
        Value::Error { message, causes } => {
            record.text(key, message);
            exception_attributes(record, message, causes);
        }
        _ => {}
    }
}

fn exception_attributes(record: &mut Record, message: &str, causes: &str) {
    record.text(semconv::EXCEPTION_MESSAGE, message);
    if !causes.is_empty() {
        record.text(semconv::EXCEPTION_STACKTRACE, causes);
    }
}

/// What `#[instrument(err)]` says of the error that it saw: an `error` without a message.
fn exception<'a>(event: &Event<'a>) -> Option<&'a str> {
    if !event.message().is_empty() {
        return None;
    }
    let error = event.fields().iter().find(|field| field.key() == "error")?;
    match error.value() {
        Value::Text(message) => Some(message),
        _ => None,
    }
}

/// Writes the fields of an event as attributes, but for the `error` that `is_told` already.
pub(crate) fn fields(out: &mut Vec<u8>, place: Place, event: &Event<'_>, is_told: bool) {
    for field in event.fields() {
        let key = field.key();
        match field.value() {
            Value::Bool(flag) => otlp::flag(out, place, key, flag),
            Value::I64(number) => otlp::number(out, place, key, number),
            Value::U64(number) => match i64::try_from(number) {
                Ok(number) => otlp::number(out, place, key, number),
                Err(_) => otlp::text(out, place, key, &number.to_string()),
            },
            Value::F64(fraction) => otlp::fraction(out, place, key, fraction),
            Value::Text(_) if is_told && key == "error" => {}
            Value::Text(text) => otlp::text(out, place, key, text),
            Value::Error { message, causes } => {
                otlp::text(out, place, key, message);
                otlp::text(out, place, semconv::EXCEPTION_MESSAGE, message);
                if !causes.is_empty() {
                    otlp::text(out, place, semconv::EXCEPTION_STACKTRACE, causes);
                }
            }
            _ => {}
        }
    }
}
