//! Lines of the host's log as OTLP's `LogRecord`, each as the member of a `ScopeLogs` that it will be.

use std::cell::RefCell;

use plugin_api::{Level, SpanContext, telemetry::Event};

use crate::{
    otlp::{self, Place},
    spans::fields,
};

/// The tag of `ScopeLogs.log_records`.
const RECORD: u8 = 0x12;

/// What one record takes at most: without it one line could fill the queue.
const MOST_BYTES: usize = 32 * 1024;

/// Room before a record for its tag and its length: three bytes of a varint hold more than any is.
const HEAD: usize = 4;

/// More than the usual record takes.
const USUAL: usize = 256;

thread_local! {
    /// The bytes of the last record on this thread, whose memory the next one takes.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Hands the bytes of the record of an event at this time (nanoseconds since the Unix epoch) to
/// `take`.
pub(crate) fn record(event: &Event<'_>, span: &SpanContext, now: u64, take: impl FnOnce(&[u8])) {
    // Where a thread ends there is no kept buffer any more.
    let mut bytes = BYTES.try_with(RefCell::take).unwrap_or_default();
    bytes.clear();
    bytes.extend_from_slice(&[0; HEAD]);
    write(&mut bytes, event, span, now);
    let start = head(&mut bytes);
    take(&bytes[start..]);
    if bytes.capacity() <= MOST_BYTES {
        _ = BYTES.try_with(|kept| kept.replace(bytes));
    }
}

/// Writes the tag and the length right before the content, which is behind [`HEAD`] bytes; answers
/// where they begin.
fn head(bytes: &mut [u8]) -> usize {
    let length = (bytes.len() - HEAD) as u64;
    let start = HEAD - 1 - otlp::varint_len(length);
    bytes[start] = RECORD;
    otlp::varint_into(&mut bytes[start + 1..HEAD], length);
    start
}

fn write(out: &mut Vec<u8>, event: &Event<'_>, span: &SpanContext, now: u64) {
    out.reserve(USUAL);
    otlp::fixed64(out, 0x09, now);
    out.extend_from_slice(severity(event.callsite().level()));
    let message = event.message();
    let message = &message[..message.floor_char_boundary(MOST_BYTES / 2)];
    if !message.is_empty() {
        otlp::head(out, 0x2a, otlp::field_len(message.len()));
        otlp::bytes(out, 0x0a, message.as_bytes());
    }
    let (before, count) = (out.len(), event.fields().len());
    fields(out, Place::Log, event, false);
    if out.len() > MOST_BYTES {
        out.truncate(before);
        otlp::number_if_any(out, 0x38, count as u64);
    }
    if span.is_valid() {
        out.extend_from_slice(&ids(span));
    }
    otlp::fixed64(out, 0x59, now);
}

/// Flags, trace and span: one copy.
fn ids(span: &SpanContext) -> [u8; 5 + 18 + 10] {
    let mut out = [0; 33];
    out[0] = 0x45;
    out[1..5].copy_from_slice(&(span.flags & 0xff).to_le_bytes());
    out[5] = 0x4a;
    out[6] = 16;
    out[7..23].copy_from_slice(&span.trace_id);
    out[23] = 0x52;
    out[24] = 8;
    out[25..].copy_from_slice(&span.span_id);
    out
}

/// `severity_number` and `severity_text`, ready to be sent.
const fn severity(level: Level) -> &'static [u8] {
    match level {
        Level::TRACE => b"\x10\x01\x1a\x05TRACE",
        Level::DEBUG => b"\x10\x05\x1a\x05DEBUG",
        Level::WARN => b"\x10\x0d\x1a\x04WARN",
        Level::ERROR => b"\x10\x11\x1a\x05ERROR",
        _ => b"\x10\x09\x1a\x04INFO",
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::any_value,
        logs::v1::{LogRecord, ScopeLogs},
    };
    use plugin_api::telemetry::{Callsite, Field, Value};
    use prost::Message as _;

    use super::*;

    fn read(message: &str, fields: &[Field<'_>], span: &SpanContext) -> LogRecord {
        let callsite = Callsite::new(Level::WARN, "tests", "event");
        let mut records = Vec::new();
        record(&Event::new(callsite, message, fields), span, 7, |bytes| {
            records = ScopeLogs::decode(bytes).unwrap().log_records;
        });
        assert_eq!(records.len(), 1);
        records.remove(0)
    }

    #[test]
    fn a_line_is_a_record_with_its_fields_and_its_ids() {
        let error = Value::Error { message: "refused", causes: "nobody there" };
        let fields = [
            Field::new("bool", Value::Bool(true)),
            Field::new("i64", Value::I64(-1)),
            Field::new("u64", Value::U64(u64::MAX)),
            Field::new("f64", Value::F64(0.5)),
            Field::new("text", Value::Text("x")),
            Field::new("error", error),
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

    #[test]
    fn a_line_that_is_too_long_is_cut_and_says_so() {
        let long = "é".repeat(MOST_BYTES);
        let field = Field::new("long", Value::Text(&long));
        let record = read(&long, &[field], &SpanContext::default());
        let Some(any_value::Value::StringValue(body)) = record.body.unwrap().value else {
            panic!("no text")
        };
        assert_eq!(body.len(), MOST_BYTES / 2);
        assert!(record.attributes.is_empty() && record.dropped_attributes_count == 1);
    }
}
