//! The spans of the host's own code: `tracing`'s, as users of `tracing-opentelemetry` know them.
//!
//! Fields become attributes, but for those that speak to OpenTelemetry: `otel.name`, `otel.kind`,
//! `otel.status_code` and `otel.status_description`. An event of level ERROR makes the status Error; one
//! that has an `error` and no message is the exception that ended the span.

use std::{mem, sync::Arc};

use plugin_api::{
    Context, Level,
    telemetry::{Begun, Event, Fields, Span, SpanHead, Value},
};

use crate::{
    callsite,
    exchange::{Follow, Tracing},
    otlp::{self, Place},
    record::{Kind, Link, Record},
    semconv,
};

/// A span of the host's code; over when it is dropped.
#[derive(Debug)]
pub(crate) struct LocalSpan {
    /// `None` once it is handed over.
    record: Option<Box<Record>>,
    follow: Follow,
    tracing: Arc<Tracing>,
}

impl LocalSpan {
    /// Begins a span below this parent, or at the root of a new trace.
    pub(crate) fn begin(
        tracing: &Arc<Tracing>,
        head: &SpanHead<'_>,
        parent: &Context,
    ) -> Begun<Self> {
        let (span, follow) = tracing.inner(parent.span());
        let context = parent.with_span(span);
        let Some(follow) = follow else { return Begun { context, span: None } };
        let now = tracing.clock.now();
        let parent = Some(parent.span()).filter(|parent| parent.is_valid());
        let callsite = head.callsite();
        let mut record = Record::begin(Kind::Internal, &context, parent, callsite.name(), now);
        callsite::record(&mut record, callsite);
        tell(&mut record, head.fields());
        tracing.count_recorded(&follow);
        let span = Self { record: Some(record), follow, tracing: Arc::clone(tracing) };
        Begun { context, span: Some(span) }
    }
}

/// Fields got their values.
fn tell(record: &mut Record, fields: Fields<'_>) {
    for field in fields.iter() {
        match field {
            ("otel.name", Value::Text(name)) => record.rename(&[cut(name)]),
            ("otel.kind", Value::Text(kind)) => set_kind(record, kind),
            ("otel.status_code", Value::Text(code)) => set_status(record, code),
            ("otel.status_message" | "otel.status_description", Value::Text(message)) => {
                fail(record, message);
            }
            (key, value) => attribute(record, key, value),
        }
    }
}

impl Span for LocalSpan {
    fn on_record(&mut self, fields: Fields<'_>) {
        if let Some(record) = &mut self.record {
            for (key, _) in fields.iter() {
                record.forget(key);
            }
            tell(record, fields);
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        let Some(record) = &mut self.record else { return };
        let level = event.callsite().level();
        record.is_error |= level == Level::ERROR && !record.is_ok;
        let exception = exception(event);
        if let Some(message) = exception {
            fail(record, message);
        }
        for (_, value) in event.fields().iter() {
            if let Value::Error { message, causes } = value {
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
            for (key, value) in [("level", severity(level)), ("target", event.callsite().target())]
            {
                if event.fields().iter().all(|(field, _)| field != key) {
                    otlp::text(out, place, key, value);
                }
            }
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
        let follow = mem::replace(&mut self.follow, Follow::Sampled);
        self.tracing.finish(record, follow);
    }
}

/// The longest name and status message, in bytes. Neither is among the fields of a span, which have a
/// bound of their own.
const LONGEST: usize = 4096;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// The name of a level, as OpenTelemetry and `tracing` both have it.
const fn severity(level: Level) -> &'static str {
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

/// What is Ok has no description, and what the code itself called Ok stays so.
fn set_status(record: &mut Record, code: &str) {
    (record.is_ok, record.is_error) =
        (code.eq_ignore_ascii_case("ok"), code.eq_ignore_ascii_case("error"));
    if record.is_ok {
        record.status_message.clear();
    }
}

fn fail(record: &mut Record, message: &str) {
    if !record.is_ok {
        record.is_error = true;
        cut(message).clone_into(&mut record.status_message);
    }
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

/// The last error is the exception of the span.
fn exception_attributes(record: &mut Record, message: &str, causes: &str) {
    record.forget(semconv::EXCEPTION_MESSAGE);
    record.forget(semconv::EXCEPTION_STACKTRACE);
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
    let (_, error) = event.fields().iter().find(|(key, _)| *key == "error")?;
    match error {
        Value::Text(message) => Some(message),
        _ => None,
    }
}

/// Writes the fields of an event as attributes, but for the `error` that `is_told` already. The first
/// error is its exception.
pub(crate) fn fields(out: &mut Vec<u8>, place: Place, event: &Event<'_>, is_told: bool) {
    let mut has_exception = is_told;
    for (key, value) in event.fields().iter() {
        match value {
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
                if mem::replace(&mut has_exception, true) {
                    continue;
                }
                otlp::text(out, place, semconv::EXCEPTION_MESSAGE, message);
                if !causes.is_empty() {
                    otlp::text(out, place, semconv::EXCEPTION_STACKTRACE, causes);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::KeyValue,
        trace::v1::{self as proto, span::SpanKind, status::StatusCode},
    };
    use plugin_api::{
        SpanContext,
        telemetry::{Callsite, FieldBuffer},
    };

    use super::*;
    use crate::testing::{Bench, attribute, attributes, status_of};

    fn below(flags: u32) -> Context {
        Context::new(SpanContext::new([1; 16], [2; 8], flags))
    }

    type Named = (&'static str, Value<'static>);

    fn event(level: Level, message: &str, fields: &[Named], tell: impl FnOnce(&Event<'_>)) {
        let callsite = Callsite::new(level, "tests", "an event");
        let fields: FieldBuffer = fields.iter().copied().collect();
        tell(&Event::new(&callsite, message, fields.fields()));
    }

    fn add(span: &mut LocalSpan, field: Named) {
        span.on_record(FieldBuffer::from_iter([field]).fields());
    }

    /// The span that has these fields from the beginning and is told the rest by `told`.
    fn span(fields: &[Named], told: impl FnOnce(&mut LocalSpan)) -> proto::Span {
        let bench = Bench::new("parentbased_always_off");
        let callsite = Callsite::new(Level::INFO, "tests", "work").at("tests::inner", "work.rs", 7);
        let fields: FieldBuffer = fields.iter().copied().collect();
        let head = SpanHead::new(&callsite, fields.fields());
        let begun = bench.local(&head, &below(SpanContext::SAMPLED));
        let mut span = begun.span.unwrap();
        told(&mut span);
        assert_eq!(bench.live(), 1);
        drop(span);
        assert_eq!(bench.live(), 0);
        bench.only_span()
    }

    fn text(key: &'static str, text: &'static str) -> Named {
        (key, Value::Text(text))
    }

    const REFUSED: Value<'static> =
        Value::Error { message: "refused", causes: "nobody there\nno route" };

    #[test]
    fn a_span_is_below_its_parent_and_has_its_place_and_its_fields() {
        let fields = [
            ("bool", Value::Bool(true)),
            ("i64", Value::I64(-7)),
            ("u64", Value::U64(7)),
            ("large", Value::U64(u64::MAX)),
            ("f64", Value::F64(0.5)),
            text("text", "x"),
        ];
        let span = span(&fields, |span| add(span, text("late", "there")));
        assert_eq!((&*span.name, span.kind()), ("work", SpanKind::Internal));
        assert_eq!((span.trace_id, span.parent_span_id), (vec![1; 16], vec![2; 8]));
        let span = proto::Span { trace_id: Vec::new(), parent_span_id: Vec::new(), ..span };
        let wanted = [
            "code.file.path=work.rs",
            "code.line.number=7",
            "code.function.name=tests::inner::work",
            "bool=true",
            "i64=-7",
            "u64=7",
            "large=18446744073709551615",
            "f64=a fraction",
            "text=x",
            "late=there",
        ];
        assert_eq!(attributes(&span), wanted);
        assert_eq!(status_of(&span), StatusCode::Unset);
    }

    #[test]
    fn a_parent_decides_whether_a_span_is_recorded_and_none_begins_a_trace() {
        let callsite = Callsite::new(Level::INFO, "tests", "work");
        let head = SpanHead::new(&callsite, Fields::default());
        let bench = Bench::new("parentbased_always_on");
        let begun = bench.local(&head, &below(0));
        assert!(begun.span.is_none());
        assert_eq!(begun.context.span().trace_id, [1; 16]);
        let begun = bench.local(&head, &Context::default());
        assert!(begun.context.span().is_valid() && begun.context.span().is_sampled());
        drop(begun);
        assert_eq!(bench.only_span().parent_span_id, [0; 0]);
    }

    #[test]
    fn fields_of_opentelemetry_say_what_a_span_is() {
        let kinds = [
            ("server", SpanKind::Server),
            ("CLIENT", SpanKind::Client),
            ("Producer", SpanKind::Producer),
            ("consumer", SpanKind::Consumer),
            ("internal", SpanKind::Internal),
            ("nonsense", SpanKind::Internal),
        ];
        for (kind, wanted) in kinds {
            let span = span(&[text("otel.name", "a job"), text("otel.kind", kind)], |_| {});
            assert_eq!((&*span.name, span.kind()), ("a job", wanted), "{kind}");
            assert_eq!(attribute(&span, "otel.kind"), "");
        }
    }

    #[test]
    fn a_status_is_what_the_code_says_or_its_errors_do() {
        let (ok, error) = (text("otel.status_code", "OK"), text("otel.status_code", "error"));
        let described = text("otel.status_description", "why");
        let unlucky = |span: &mut LocalSpan| {
            event(Level::ERROR, "out of luck", &[], |event| span.on_event(event));
        };
        let warned =
            |span: &mut LocalSpan| event(Level::WARN, "look", &[], |event| span.on_event(event));
        let found = |span: &proto::Span| {
            let message = span.status.as_ref().map(|status| status.message.clone());
            (status_of(span), message.unwrap_or_default())
        };
        let told = |code, message: &str| (code, message.to_owned());
        assert_eq!(found(&span(&[], warned)), told(StatusCode::Unset, ""));
        assert_eq!(found(&span(&[], unlucky)), told(StatusCode::Error, ""));
        assert_eq!(found(&span(&[ok], unlucky)), told(StatusCode::Ok, ""));
        assert_eq!(found(&span(&[error], |_| {})), told(StatusCode::Error, ""));
        assert_eq!(found(&span(&[error, described], |_| {})), told(StatusCode::Error, "why"));
        assert_eq!(found(&span(&[error], |span| add(span, ok))), told(StatusCode::Ok, ""));
        assert_eq!(found(&span(&[described], |span| add(span, ok))), told(StatusCode::Ok, ""));
        assert_eq!(found(&span(&[ok, described], |_| {})), told(StatusCode::Ok, ""));
    }

    #[test]
    fn a_name_and_a_message_of_any_length_are_cut() {
        let long = "\u{e9}".repeat(LONGEST);
        let fields: FieldBuffer = ["otel.name", "otel.status_description"]
            .into_iter()
            .map(|key| (key, Value::Text(&long)))
            .collect();
        let span = span(&[], |span| span.on_record(fields.fields()));
        assert_eq!((span.name.len(), span.status.unwrap().message.len()), (LONGEST, LONGEST));
    }

    #[test]
    fn each_key_is_there_once_and_the_last_value_of_a_span_is_kept() {
        let span = span(&[text("key", "first"), ("error", REFUSED)], |span| {
            add(span, text("key", "last"));
            let other = Value::Error { message: "lost", causes: "" };
            let fields = [("level", Value::I64(3)), ("one", REFUSED), ("two", other)];
            event(Level::WARN, "twice", &fields, |event| span.on_event(event));
        });
        let keys = |attributes: &[KeyValue]| {
            attributes.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>()
        };
        let of_span = keys(&span.attributes);
        assert_eq!(of_span[3..], ["error", "key", "exception.message"], "{span:?}");
        assert_eq!(attribute(&span, "key"), "last");
        assert_eq!(attribute(&span, "exception.message"), "lost");
        let wanted = ["target", "level", "one", "exception.message", "exception.stacktrace", "two"];
        assert_eq!(keys(&span.events[0].attributes), wanted);
    }

    #[test]
    fn an_error_among_the_fields_is_an_exception_of_the_span() {
        let at_once = span(&[("error", REFUSED), text("exception.type", "NoLuck")], |_| {});
        assert_eq!(attribute(&at_once, "exception.type"), "NoLuck");
        let in_a_line = span(&[], |span| {
            let fields = [("cause", REFUSED)];
            event(Level::ERROR, "failed", &fields, |event| span.on_event(event));
        });
        for span in [&at_once, &in_a_line] {
            assert_eq!(attribute(span, "exception.message"), "refused");
            assert_eq!(attribute(span, "exception.stacktrace"), "nobody there\nno route");
        }
        assert_eq!(attribute(&at_once, "error"), "refused");
        assert_eq!(attribute(&in_a_line, "cause"), "");
        let keys: Vec<_> = in_a_line.events[0].attributes.iter().map(|pair| &*pair.key).collect();
        let wanted = ["level", "target", "cause", "exception.message", "exception.stacktrace"];
        assert_eq!(keys, wanted);
    }

    #[test]
    fn an_error_without_a_message_is_the_exception_that_ended_the_span() {
        let span = span(&[], |span| {
            let fields = [text("error", "no goods")];
            event(Level::ERROR, "", &fields, |event| span.on_event(event));
        });
        assert_eq!(span.events[0].name, "exception");
        let keys: Vec<_> = span.events[0].attributes.iter().map(|pair| &*pair.key).collect();
        assert_eq!(keys, ["level", "target", "exception.message"]);
        assert_eq!(span.status.unwrap().message, "no goods");
    }

    #[test]
    fn a_span_keeps_128_events_and_counts_the_others() {
        let span = span(&[], |span| {
            for n in 0..200 {
                let message = format!("line {n}");
                event(Level::INFO, &message, &[], |event| span.on_event(event));
            }
        });
        assert_eq!((span.events.len(), span.dropped_events_count), (128, 72));
        assert_eq!((&*span.events[0].name, &*span.events[127].name), ("line 0", "line 127"));
        assert!(span.events.iter().all(|event| event.time_unix_nano >= span.start_time_unix_nano));
    }

    #[test]
    fn what_a_span_follows_from_is_a_link() {
        let cause = Context::new(SpanContext::new([3; 16], [4; 8], 1)).with_state("a=b", "");
        let span = span(&[], |span| span.on_follows_from(&cause));
        assert_eq!(span.links.len(), 1);
        let link = &span.links[0];
        assert_eq!((&link.trace_id[..], &link.span_id[..]), (&[3; 16][..], &[4; 8][..]));
        assert_eq!((&*link.trace_state, link.flags), ("a=b", 0x101));
    }
}
