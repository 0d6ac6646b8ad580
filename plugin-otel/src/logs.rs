//! Lines of the host's log as OTLP's `LogRecord`, each as the member of a `ScopeLogs` that it will be.

use plugin_api::{Level, SpanContext, telemetry::Event};

use crate::{
    otlp::{self, Place},
    pipeline::Pipeline,
    spans::fields,
};

/// The tag of `ScopeLogs.log_records`.
const RECORD: u8 = 0x12;

/// What one record takes at most: without it one line could fill the queue.
const MOST_BYTES: usize = 32 * 1024;

/// What the usual record has beside its message and its fields.
const USUAL: usize = 64;
/// What it has at most.
const MOST: usize = 96;

/// What a short text or number has beside itself and its name.
const USUAL_FIELD: usize = 10;
/// What a field has at most beside its name and its texts: an error is three attributes.
const MOST_FIELD: usize = 192;

/// Takes the record of an event at this time, in nanoseconds since the Unix epoch.
pub(crate) fn finish(pipeline: &Pipeline, event: &Event<'_>, span: &SpanContext, now: u64) {
    let target = event.callsite().target();
    let Lengths { about, most } = Lengths::of(event);
    let record = |out: &mut Vec<u8>| record(out, about, event, span, now);
    if most <= MOST_BYTES {
        // Where it will be sent from, at once.
        return pipeline.finish_item(target, most, record);
    }
    let mut bytes = Vec::new();
    record(&mut bytes);
    pipeline.finish_item(target, bytes.len(), |out| out.extend_from_slice(&bytes));
}

/// How long a record is.
struct Lengths {
    /// As it usually is.
    about: usize,
    /// At most, if nothing of it is left out.
    most: usize,
}

impl Lengths {
    fn of(event: &Event<'_>) -> Self {
        let (message, fields) = (event.message().len(), event.fields());
        let (count, texts) = (fields.len(), fields.text_len());
        Self {
            about: USUAL + USUAL_FIELD * count + message + texts,
            // What an error says stands in two attributes.
            most: MOST + MOST_FIELD * count + message + 2 * texts,
        }
    }
}

fn record(out: &mut Vec<u8>, about: usize, event: &Event<'_>, span: &SpanContext, now: u64) {
    otlp::message(out, RECORD, about, |out| write(out, event, span, now));
}

fn write(out: &mut Vec<u8>, event: &Event<'_>, span: &SpanContext, now: u64) {
    let start = out.len();
    let (head, length) = head(now, event.callsite().level());
    out.extend_from_slice(&head);
    out.truncate(start + length);
    let message = event.message();
    let message = &message[..message.floor_char_boundary(MOST_BYTES / 2)];
    if !message.is_empty() {
        otlp::text_value(out, 0x2a, message);
    }
    let (before, count) = (out.len(), event.fields().len());
    fields(out, Place::Log, event, false);
    if out.len() - start > MOST_BYTES {
        out.truncate(before);
        otlp::number_if_any(out, 0x38, count as u64);
    }
    if span.is_valid() {
        out.extend_from_slice(&tail(now, span));
    } else {
        otlp::fixed64(out, OBSERVED, now);
    }
}

/// The tag of `LogRecord.observed_time_unix_nano`.
const OBSERVED: u8 = 0x59;

/// Time, `severity_number` and `severity_text`, one copy; and how much of it there is.
fn head(now: u64, level: Level) -> ([u8; 9 + 9], usize) {
    let (severity, length) = match level {
        Level::TRACE => (b"\x10\x01\x1a\x05TRACE", 9),
        Level::DEBUG => (b"\x10\x05\x1a\x05DEBUG", 9),
        Level::WARN => (b"\x10\x0d\x1a\x04WARN ", 8),
        Level::ERROR => (b"\x10\x11\x1a\x05ERROR", 9),
        _ => (b"\x10\x09\x1a\x04INFO ", 8),
    };
    let mut out = [0; 18];
    out[0] = 0x09;
    out[1..9].copy_from_slice(&now.to_le_bytes());
    out[9..].copy_from_slice(severity);
    (out, 9 + length)
}

/// Flags, trace, span and time: one copy.
fn tail(now: u64, span: &SpanContext) -> [u8; 5 + 18 + 10 + 9] {
    let mut out = [0; 42];
    out[0] = 0x45;
    out[1..5].copy_from_slice(&(span.flags & 0xff).to_le_bytes());
    out[5] = 0x4a;
    out[6] = 16;
    out[7..23].copy_from_slice(&span.trace_id);
    out[23] = 0x52;
    out[24] = 8;
    out[25..33].copy_from_slice(&span.span_id);
    out[33] = OBSERVED;
    out[34..].copy_from_slice(&now.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::any_value,
        logs::v1::{LogRecord, ScopeLogs},
    };
    use plugin_api::telemetry::{Callsite, FieldBuffer, Value};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn read(message: &str, fields: &[(&'static str, Value<'_>)], span: &SpanContext) -> LogRecord {
        let callsite = Callsite::new(Level::WARN, "tests", "event");
        let fields: FieldBuffer = fields.iter().copied().collect();
        let event = Event::new(&callsite, message, fields.fields());
        let (Lengths { about, most }, mut bytes) = (Lengths::of(&event), Vec::new());
        record(&mut bytes, about, &event, span, 7);
        assert!(bytes.len() <= most);
        let mut records = ScopeLogs::decode(&*bytes).unwrap().log_records;
        assert_eq!(records.len(), 1);
        records.remove(0)
    }

    #[test]
    fn a_line_is_a_record_with_its_fields_and_its_ids() {
        let error = Value::Error { message: "refused", causes: "nobody there" };
        let fields = [
            ("bool", Value::Bool(true)),
            ("i64", Value::I64(-1)),
            ("u64", Value::U64(u64::MAX)),
            ("f64", Value::F64(0.5)),
            ("text", Value::Text("x")),
            ("error", error),
        ];
        let record = read("no luck", &fields, &SpanContext::new([1; 16], [2; 8], 0x103));
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (7, 7));
        assert_eq!((record.severity_number, &*record.severity_text), (13, "WARN"));
        let body = record.body.unwrap().value.unwrap();
        assert_eq!(body, any_value::Value::StringValue("no luck".to_owned()));
        assert_eq!((record.trace_id, record.span_id), (vec![1; 16], vec![2; 8]));
        assert_eq!(record.flags, 3);
        let text = |text: &str| any_value::Value::StringValue(text.to_owned());
        let found: Vec<_> = record
            .attributes
            .into_iter()
            .map(|pair| (pair.key, pair.value.unwrap().value.unwrap()))
            .collect();
        let wanted = [
            ("bool", any_value::Value::BoolValue(true)),
            ("i64", any_value::Value::IntValue(-1)),
            ("u64", text("18446744073709551615")),
            ("f64", any_value::Value::DoubleValue(0.5)),
            ("text", text("x")),
            ("error", text("refused")),
            ("exception.message", text("refused")),
            ("exception.stacktrace", text("nobody there")),
        ];
        assert_eq!(found, wanted.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn a_line_of_no_span_has_no_ids() {
        let record = read("", &[], &SpanContext::default());
        assert!(record.trace_id.is_empty() && record.span_id.is_empty() && record.flags == 0);
        assert_eq!(record.body, None);
    }

    fn any_field() -> impl Strategy<Value = (&'static str, Value<'static>)> {
        // Kept as long as the process is: fields borrow what they say.
        let text = || (0_usize..3000).prop_map(|length| &*"é".repeat(length).leak());
        let value = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::I64),
            any::<u64>().prop_map(Value::U64),
            any::<f64>().prop_map(Value::F64),
            text().prop_map(Value::Text),
            (text(), text()).prop_map(|(message, causes)| Value::Error { message, causes }),
        ];
        ("[a-z.]{0,200}", value).prop_map(|(key, value)| (&*key.leak(), value))
    }

    proptest! {
        /// Where it is written there is room for so much and no more.
        #[test]
        fn no_record_is_longer_than_is_said(
            message in "\\PC{0,300}",
            fields in proptest::collection::vec(any_field(), 0..12),
        ) {
            let record = read(&message, &fields, &SpanContext::new([1; 16], [2; 8], 1));
            let kept = record.attributes.len() + record.dropped_attributes_count as usize;
            prop_assert!(kept >= fields.len());
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        let long = "é".repeat(MOST_BYTES);
        let field = ("long", Value::Text(&long));
        let record = read(&long, &[field], &SpanContext::default());
        let Some(any_value::Value::StringValue(body)) = record.body.unwrap().value else {
            panic!("no text")
        };
        assert_eq!(body.len(), MOST_BYTES / 2);
        assert!(record.attributes.is_empty() && record.dropped_attributes_count == 1);
    }
}
