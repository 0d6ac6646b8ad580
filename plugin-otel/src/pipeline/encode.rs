//! Writes finished spans as OTLP's `Span`, each as the member of a `ScopeSpans` that it will be.

use std::time::SystemTime;

use opentelemetry::trace::{Event, Link, SpanKind, Status};
use opentelemetry::{Array, KeyValue, SpanId, Value, trace::SpanContext as SdkContext};
use opentelemetry_sdk::trace::SpanData;

use crate::{
    otlp::{self, Place},
    record::{self, EVENT, LINK, NAME, Record},
};

/// The tag of `ScopeSpans.spans`.
const SPAN: u8 = 0x12;

/// Everything in a `Span` that has a fixed size and that every span has.
const FIXED: usize = 18 + 10 + 2 + 9 + 9 + 6;

/// How long a record is in bytes, without its tag and its length.
pub(super) fn content_len(record: &Record) -> usize {
    let parent = if record.parent_span_id == [0; 8] { 0 } else { 10 };
    let name = record.name().map_or(0, |name| otlp::field_len(name.len()));
    let status = otlp::field_len(status_len(record));
    let (attributes, events, links) = record.dropped();
    FIXED
        + parent
        + name
        + status
        + count_len(attributes)
        + count_len(events)
        + count_len(links)
        + record.fields().len()
}

const fn count_len(count: u32) -> usize {
    if count == 0 { 0 } else { 1 + otlp::varint_len(count as u64) }
}

fn status_len(record: &Record) -> usize {
    let code = if record.is_error || record.is_ok { 2 } else { 0 };
    let message = record.status_message.len();
    code + if message == 0 { 0 } else { otlp::field_len(message) }
}

/// Writes a record with its tag and its length, which is `content`.
pub(super) fn record(record: &Record, content: usize, out: &mut Vec<u8>) {
    out.reserve(otlp::field_len(content));
    otlp::head(out, SPAN, content);
    out.extend_from_slice(&fixed(record));
    if record.parent_span_id != [0; 8] {
        // One copy of a known length.
        let [a, b, c, d, e, f, g, h] = record.parent_span_id;
        out.extend_from_slice(&[0x22, 8, a, b, c, d, e, f, g, h]);
    }
    if let Some(name) = record.name() {
        otlp::bytes(out, NAME, name.as_bytes());
    }
    out.extend_from_slice(record.fields());
    let (attributes, events, links) = record.dropped();
    otlp::number_if_any(out, 0x50, attributes.into());
    otlp::number_if_any(out, 0x60, events.into());
    otlp::number_if_any(out, 0x70, links.into());
    otlp::head(out, 0x7a, status_len(record));
    otlp::bytes_if_any(out, 0x12, record.status_message.as_bytes());
    if record.is_error {
        out.extend_from_slice(&[0x18, 2]);
    } else if record.is_ok {
        out.extend_from_slice(&[0x18, 1]);
    }
}

/// Ids, kind, times and flags: one copy.
fn fixed(record: &Record) -> [u8; FIXED] {
    let mut out = [0; FIXED];
    out[0] = 0x0a;
    out[1] = 16;
    out[2..18].copy_from_slice(&record.span.trace_id);
    out[18] = 0x12;
    out[19] = 8;
    out[20..28].copy_from_slice(&record.span.span_id);
    out[28] = 0x30;
    out[29] = record.kind as u8;
    out[30] = 0x39;
    out[31..39].copy_from_slice(&record.start.to_le_bytes());
    out[39] = 0x41;
    out[40..48].copy_from_slice(&record.end.to_le_bytes());
    // The number of `Span.flags` is 16, whose tag takes two bytes.
    out[48] = 0x85;
    out[49] = 0x01;
    let flags = record::flags(record.span.flags, record.parent_is_remote);
    out[50..54].copy_from_slice(&flags.to_le_bytes());
    out
}

/// Writes a span that was made through the OpenTelemetry API. It is rare: this may allocate.
pub(super) fn span(span: &SpanData, out: &mut Vec<u8>) {
    otlp::message(out, SPAN, 0, |out| {
        context(out, &span.span_context);
        if span.parent_span_id != SpanId::INVALID {
            otlp::bytes(out, 0x22, &span.parent_span_id.to_bytes());
        }
        otlp::bytes_if_any(out, NAME, span.name.as_bytes());
        otlp::number_if_any(out, 0x30, kind(&span.span_kind));
        fixed64_if_any(out, 0x39, nanos(span.start_time));
        fixed64_if_any(out, 0x41, nanos(span.end_time));
        attributes(out, Place::Span, &span.attributes);
        otlp::number_if_any(out, 0x50, span.dropped_attributes_count.into());
        for happened in span.events.iter() {
            otlp::message(out, EVENT, 0, |out| event(out, happened));
        }
        otlp::number_if_any(out, 0x60, span.events.dropped_count.into());
        for linked in span.links.iter() {
            otlp::message(out, LINK, 0, |out| link(out, linked));
        }
        otlp::number_if_any(out, 0x70, span.links.dropped_count.into());
        otlp::message(out, 0x7a, 0, |out| status(out, &span.status));
        out.push(0x85);
        let flags = span.span_context.trace_flags().to_u8();
        otlp::fixed32(out, 0x01, record::flags(flags.into(), span.parent_span_is_remote));
    });
}

fn context(out: &mut Vec<u8>, context: &SdkContext) {
    otlp::bytes(out, 0x0a, &context.trace_id().to_bytes());
    otlp::bytes(out, 0x12, &context.span_id().to_bytes());
    otlp::bytes_if_any(out, 0x1a, context.trace_state().header().as_bytes());
}

const fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn event(out: &mut Vec<u8>, event: &Event) {
    fixed64_if_any(out, 0x09, nanos(event.timestamp));
    otlp::bytes_if_any(out, 0x12, event.name.as_bytes());
    attributes(out, Place::EventOrScope, &event.attributes);
    otlp::number_if_any(out, 0x20, event.dropped_attributes_count.into());
}

fn link(out: &mut Vec<u8>, link: &Link) {
    context(out, &link.span_context);
    attributes(out, Place::Link, &link.attributes);
    otlp::number_if_any(out, 0x28, link.dropped_attributes_count.into());
    let flags = link.span_context.trace_flags().to_u8();
    otlp::fixed32(out, 0x35, record::flags(flags.into(), link.span_context.is_remote()));
}

fn status(out: &mut Vec<u8>, status: &Status) {
    match status {
        Status::Unset => {}
        Status::Ok => otlp::number_if_any(out, 0x18, 1),
        Status::Error { description } => {
            otlp::bytes_if_any(out, 0x12, description.as_bytes());
            otlp::number_if_any(out, 0x18, 2);
        }
    }
}

/// Writes attributes as the OpenTelemetry API has them.
pub(super) fn attributes<'a>(
    out: &mut Vec<u8>,
    place: Place,
    pairs: impl IntoIterator<Item = &'a KeyValue>,
) {
    for pair in pairs {
        let key = pair.key.as_str();
        match &pair.value {
            Value::Bool(flag) => otlp::flag(out, place, key, *flag),
            Value::I64(number) => otlp::number(out, place, key, *number),
            Value::F64(fraction) => otlp::fraction(out, place, key, *fraction),
            Value::Array(list) => array(out, place, key, list),
            // A kind of value that a newer API brings is at least shown.
            text => otlp::text(out, place, key, &text.as_str()),
        }
    }
}

fn array(out: &mut Vec<u8>, place: Place, key: &str, array: &Array) {
    otlp::message(out, place as u8, 0, |out| {
        otlp::bytes(out, 0x0a, key.as_bytes());
        otlp::message(out, 0x12, 0, |out| otlp::message(out, 0x2a, 0, |out| members(out, array)));
    });
}

fn members(out: &mut Vec<u8>, array: &Array) {
    match array {
        Array::Bool(list) => each(out, list, |out, flag| out.extend([0x10, u8::from(*flag)])),
        Array::I64(list) => each(out, list, |out, number| {
            out.push(0x18);
            otlp::varint(out, number.cast_unsigned());
        }),
        Array::F64(list) => {
            each(out, list, |out, fraction| otlp::fixed64(out, 0x21, fraction.to_bits()));
        }
        Array::String(list) => {
            each(out, list, |out, text| otlp::bytes(out, 0x0a, text.as_str().as_bytes()));
        }
        // A kind of list that a newer API brings.
        _ => {}
    }
}

fn each<T>(out: &mut Vec<u8>, list: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for member in list {
        otlp::message(out, 0x0a, 0, |out| write(out, member));
    }
}

fn fixed64_if_any(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number > 0 {
        otlp::fixed64(out, tag, number);
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{str::FromStr, time::Duration};

    use opentelemetry::{
        SpanId, TraceFlags, TraceId,
        trace::{SpanKind, TraceState},
    };
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span};
    use plugin_api::{Context, SpanContext};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::{record::Kind, testing::sdk_span};

    /// The one span of these bytes.
    fn read(bytes: &[u8]) -> Span {
        let mut scope = ScopeSpans::decode(bytes).unwrap();
        assert_eq!(scope.spans.len(), 1);
        let span = scope.spans.remove(0);
        assert_eq!(scope, ScopeSpans::default());
        span
    }

    fn read_record(written: &Record) -> Span {
        let mut bytes = Vec::new();
        let content = content_len(written);
        record(written, content, &mut bytes);
        assert_eq!(bytes.len(), otlp::field_len(content));
        read(&bytes)
    }

    fn read_span(written: &SpanData) -> Span {
        let mut bytes = Vec::new();
        span(written, &mut bytes);
        read(&bytes)
    }

    /// The identity of a span with its trace state, as anyone may have sent it.
    #[derive(Clone, Debug)]
    struct Identity {
        trace_id: [u8; 16],
        span_id: [u8; 8],
        flags: u8,
        tracestate: String,
        is_remote: bool,
    }

    impl Identity {
        fn ours(&self) -> SpanContext {
            // The bits above the lowest eight never leave the process.
            SpanContext::new(self.trace_id, self.span_id, u32::from(self.flags) | 0xabcd_ef00)
        }

        fn sdks(&self) -> SdkContext {
            SdkContext::new(
                TraceId::from_bytes(self.trace_id),
                SpanId::from_bytes(self.span_id),
                TraceFlags::new(self.flags),
                self.is_remote,
                TraceState::from_str(&self.tracestate).unwrap(),
            )
        }
    }

    prop_compose! {
        fn identity()(
            trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(), flags: u8,
            tracestate in prop_oneof![Just(""), Just("a=1"), Just("a=1,b@c=2")], is_remote: bool,
        ) -> Identity {
            Identity { trace_id, span_id, flags, tracestate: tracestate.to_owned(), is_remote }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            ".{0,150}".prop_map(Value::from),
            prop::collection::vec(".{0,80}", 0..4).prop_map(|texts| {
                Value::Array(Array::String(texts.into_iter().map(Into::into).collect()))
            }),
        ]
    }

    /// Values that records do not have.
    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            value(),
            any::<i32>().prop_map(|number| Value::F64(f64::from(number) / 8.0)),
            prop::collection::vec(any::<bool>(), 0..4).prop_map(|l| Value::Array(Array::Bool(l))),
            prop::collection::vec(any::<i64>(), 0..4).prop_map(|l| Value::Array(Array::I64(l))),
            prop::collection::vec(any::<i32>(), 0..4)
                .prop_map(|l| Value::Array(Array::F64(l.into_iter().map(f64::from).collect()))),
        ]
    }

    fn pairs(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<KeyValue>> {
        let pair = (".{0,150}", value).prop_map(|(key, value)| KeyValue::new(key, value));
        prop::collection::vec(pair, 0..6)
    }

    fn time(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    fn fill(record: &mut Record, attributes: &[KeyValue]) {
        for KeyValue { key, value, .. } in attributes {
            match value {
                Value::I64(number) => record.number(key.as_str(), *number),
                Value::Bool(flag) => record.flag(key.as_str(), *flag),
                Value::Array(Array::String(list)) => {
                    record.texts(key.as_str(), list.iter().map(|text| text.as_str()));
                }
                text => record.text(key.as_str(), &text.as_str()),
            }
        }
    }

    const KINDS: [(Kind, SpanKind); 5] = [
        (Kind::Producer, SpanKind::Producer),
        (Kind::Consumer, SpanKind::Consumer),
        (Kind::Internal, SpanKind::Internal),
        (Kind::Server, SpanKind::Server),
        (Kind::Client, SpanKind::Client),
    ];

    proptest! {
        #[test]
        fn a_record_is_the_span_that_the_sdk_s_exporter_sends(
            own in identity(), parent in any::<Option<[u8; 8]>>(), kind in 0..5_usize,
            names in prop::collection::vec(".{0,150}", 0..3), times: [u64; 2], status in 0..3_usize,
            events in prop::collection::vec((".{0,150}", 1..u64::MAX, pairs(value())), 0..3),
            attributes in pairs(value()), links in prop::collection::vec((identity(), pairs("x{0,150}".prop_map(Value::from))), 0..3),
        ) {
            let (kind, span_kind) = KINDS[kind].clone();
            let context = Context::new(own.ours()).with_state(&own.tracestate, "baggage=1");
            let parent_context = parent.map(|id| SpanContext::new([1; 16], id, 0));
            let mut record = Record::begin(kind, &context, parent_context.as_ref(), "GET", times[0]);
            for name in &names {
                record.rename(&["POST ", name]);
                fill(&mut record, &attributes);
            }
            for (linked, attributes) in &links {
                let texts: Vec<_> =
                    attributes.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
                let texts: Vec<_> = texts.iter().map(|(key, text)| (*key, &**text)).collect();
                let span = linked.ours();
                let link = record::Link {
                    span: &span, tracestate: &linked.tracestate, is_remote: linked.is_remote,
                };
                record.link(&link, &texts);
            }
            record.end = times[1];
            for (name, at, pairs) in &events {
                record.event(name, *at, |out| super::attributes(out, Place::EventOrScope, pairs));
            }
            (record.is_ok, record.is_error) = (status == 1, status == 2);
            if record.is_error {
                record.status_message = names.concat();
            }

            let mut wanted = sdk_span();
            wanted.span_context = own.sdks();
            wanted.parent_span_id = SpanId::from_bytes(parent.unwrap_or_default());
            wanted.parent_span_is_remote = parent.is_some() && kind == Kind::Server;
            wanted.span_kind = span_kind;
            wanted.name = names.last().map_or("GET".into(), |name| format!("POST {name}").into());
            (wanted.start_time, wanted.end_time) = (time(times[0]), time(times[1]));
            wanted.attributes = vec![attributes; names.len()].concat();
            wanted.status = [Status::Unset, Status::Ok, Status::error(names.concat())][status].clone();
            wanted.events.events = events
                .into_iter()
                .map(|(name, at, pairs)| Event::new(name, time(at), pairs, 0))
                .collect();
            wanted.links.links = links
                .into_iter()
                .map(|(linked, attributes)| Link::new(linked.sdks(), attributes, 0))
                .collect();
            prop_assert_eq!(read_record(&record), Span::from(wanted));
            // The next case has its memory.
            record.recycle();
        }

        #[test]
        fn a_span_of_the_api_is_the_span_that_the_sdk_s_exporter_sends(
            own in identity(), parent in any::<Option<[u8; 8]>>(), is_remote: bool,
            name in ".{0,150}", times: [u64; 2], dropped: [u32; 4],
            attributes in pairs(any_value()), status in 0..3_usize,
            events in prop::collection::vec((".{0,150}", any::<u64>(), pairs(any_value())), 0..3),
            links in prop::collection::vec((identity(), pairs(any_value())), 0..3),
        ) {
            let mut made = sdk_span();
            made.span_context = own.sdks();
            made.parent_span_id = SpanId::from_bytes(parent.unwrap_or_default());
            made.parent_span_is_remote = is_remote;
            made.span_kind = SpanKind::Producer;
            made.name = name.clone().into();
            (made.start_time, made.end_time) = (time(times[0]), time(times[1]));
            made.attributes = attributes;
            made.dropped_attributes_count = dropped[0];
            made.status = [Status::Unset, Status::Ok, Status::error(name)][status].clone();
            made.events.events = events
                .into_iter()
                .map(|(name, at, pairs)| Event::new(name, time(at), pairs, dropped[1]))
                .collect();
            made.events.dropped_count = dropped[2];
            made.links.links = links
                .into_iter()
                .map(|(linked, pairs)| Link::new(linked.sdks(), pairs, dropped[3]))
                .collect();
            made.links.dropped_count = dropped[3];
            prop_assert_eq!(read_span(&made), Span::from(made));
        }
    }

    #[test]
    fn a_trace_state_that_the_sdk_does_not_know_is_exported_whole() {
        let state = "0level2=1,@under_score@x=2";
        let context = Context::new(SpanContext::new([1; 16], [2; 8], 1)).with_state(state, "");
        let record = Record::begin(Kind::Server, &context, None, "GET", 1);
        assert_eq!(read_record(&record).trace_state, state);
    }

    #[test]
    fn what_is_too_much_for_one_span_is_dropped_and_counted() {
        let context = Context::new(SpanContext::new([1; 16], [2; 8], 1));
        let mut record = Record::begin(Kind::Server, &context, None, "GET", 1);
        for number in 0..130 {
            record.number("many", number);
        }
        let span = read_record(&record);
        assert_eq!((span.attributes.len(), span.dropped_attributes_count), (128, 2));

        let mut record = Record::begin(Kind::Server, &context, None, "GET", 1);
        let long = "x".repeat(33_000);
        record.text("long", &long);
        record.text("short", "x");
        let linked = SpanContext::new([3; 16], [4; 8], 1);
        let link = record::Link { span: &linked, tracestate: "", is_remote: true };
        record.link(&link, &[("long", &long)]);
        record.link(&link, &[("short", "x")]);
        let span = read_record(&record);
        assert_eq!((span.attributes.len(), span.dropped_attributes_count), (1, 1));
        assert_eq!((span.links.len(), span.dropped_links_count), (1, 1));
    }
}
