//! Jaeger's own header: `uber-trace-id: {trace}:{span}:{parent}:{flags}`.

use plugin_api::SpanContext;

use super::{DEBUG, hex, list::trim};

pub(super) const UBER_TRACE_ID: &str = "uber-trace-id";

const SAMPLED: u8 = 1;
const DEBUGGED: u8 = 2;

/// With every field at its longest and each colon as `%3A`.
const LONGEST: usize = 32 + 3 + 16 + 3 + 16 + 3 + 2;

/// The caller's span, or `None` when the value is nothing of the kind.
pub(super) fn parse(value: &[u8]) -> Option<SpanContext> {
    let mut place = [0; LONGEST];
    let text = decoded(trim(value), &mut place)?;
    let mut fields = text.split(|byte| *byte == b':');
    let trace_id = hex::read_short(fields.next()?)?;
    let span_id = hex::read_short(fields.next()?)?;
    // Long out of use, and still there.
    let _parent: [u8; 8] = hex::read_short(fields.next()?)?;
    let [flags] = hex::read_short(fields.next()?)?;
    if fields.next().is_some() {
        return None;
    }
    let flags = match (flags & DEBUGGED, flags & SAMPLED) {
        (0, 0) => 0,
        (0, _) => SpanContext::SAMPLED,
        _ => SpanContext::SAMPLED | DEBUG,
    };
    let span = SpanContext::new(trace_id, span_id, flags);
    span.is_valid().then_some(span)
}

/// The value with its colons and in lower case: some clients encode it, some write capitals.
fn decoded<'a>(mut text: &[u8], place: &'a mut [u8; LONGEST]) -> Option<&'a [u8]> {
    if text.len() > LONGEST {
        return None;
    }
    let mut length = 0;
    while let [first, rest @ ..] = text {
        let (byte, rest) = match (*first, rest) {
            (b'%', [b'3', b'A' | b'a', rest @ ..]) => (b':', rest),
            (byte, rest) => (byte.to_ascii_lowercase(), rest),
        };
        *place.get_mut(length)? = byte;
        length += 1;
        text = rest;
    }
    place.get(..length)
}

/// The value of an outgoing header, on the stack.
pub(super) struct Text([u8; 53]);

impl Text {
    /// The header for this span. Its parent is told as 0, as the specification wants.
    pub(super) fn of(span: &SpanContext) -> Self {
        let mut text = [b':'; 53];
        hex::write(&mut text[0..32], &span.trace_id);
        hex::write(&mut text[33..49], &span.span_id);
        text[50] = b'0';
        text[52] = match (span.flags & DEBUG, span.is_sampled()) {
            (0, false) => b'0',
            (0, true) => b'1',
            _ => b'3',
        };
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        // Never empty: only digits and colons are ever written.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_clients_send_is_read() {
        let zeros = "0".repeat(16);
        for (value, flags) in [
            (format!("{TRACE}:{SPAN}:0:1"), 1),
            (format!("{TRACE}:{SPAN}:0:0"), 0),
            (format!("{TRACE}:{SPAN}:0:01"), 1),
            (format!("{TRACE}:{SPAN}:0:3"), 1 | DEBUG),
            (format!("{TRACE}:{SPAN}:0:2"), 1 | DEBUG),
            (format!("{TRACE}:{SPAN}:0:9"), 1),
            (format!("{TRACE}:{SPAN}:0:f0"), 0),
            (format!("{TRACE}:{SPAN}:{SPAN}:1"), 1),
            (format!("{TRACE}:{SPAN}:{zeros}:1"), 1),
            (format!("{TRACE}%3A{SPAN}%3a0%3A1"), 1),
            (format!("{TRACE}%3A{SPAN}%3A{SPAN}%3A01"), 1),
            (format!(" {TRACE}:{SPAN}:0:1\t"), 1),
            (format!("{}:{}:0:1", TRACE.to_uppercase(), SPAN.to_uppercase()), 1),
            ("1:2:0:1".to_owned(), 1),
        ] {
            let span = parse(value.as_bytes());
            assert_eq!(span.map(|span| span.flags), Some(flags), "{value:?}");
        }
    }

    #[test]
    fn short_ids_are_padded_in_front() {
        let span = parse(b"abc:12:0:1").unwrap();
        assert_eq!((span.trace_id[13..].to_vec(), span.trace_id[0]), (vec![0, 0x0a, 0xbc], 0));
        assert_eq!(span.span_id, [0, 0, 0, 0, 0, 0, 0, 0x12]);
    }

    #[test]
    fn everything_else_is_refused() {
        for value in [
            String::new(),
            ":::".to_owned(),
            format!("{TRACE}:{SPAN}:0"),
            format!("{TRACE}:{SPAN}:0:"),
            format!("{TRACE}:{SPAN}::1"),
            format!("{TRACE}:{SPAN}:0:1:"),
            format!("{TRACE}:{SPAN}:0:1:1"),
            format!("{TRACE}:{SPAN}:0:001"),
            format!("{TRACE}:{SPAN}:0:g"),
            format!("{TRACE}:{SPAN}:x:1"),
            format!("{TRACE}:{SPAN}0:0:1"),
            format!("{TRACE}0:{SPAN}:0:1"),
            format!("0:{SPAN}:0:1"),
            format!("{TRACE}:0:0:1"),
            format!("{TRACE}%3B{SPAN}%3A0%3A1"),
            format!("{TRACE}%3A{SPAN}%3A0%3"),
            format!("{TRACE}:{SPAN}:0:1{}", "0".repeat(8192)),
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_valid_span_or_none(value in prop::collection::vec(any::<u8>(), 0..90)) {
            prop_assert!(parse(&value).is_none_or(|span| span.is_valid()));
        }

        #[test]
        fn plausible_text_gives_a_valid_span_or_none(value in "[0-9a-f:%3A]{0,80}") {
            prop_assert!(parse(value.as_bytes()).is_none_or(|span| span.is_valid()));
        }

        #[test]
        fn every_span_survives_its_header(
            trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(),
            flags in prop::sample::select(vec![0, 1, 1 | DEBUG]),
        ) {
            let span = SpanContext::new(trace_id, span_id, flags);
            prop_assume!(span.is_valid());
            prop_assert_eq!(parse(Text::of(&span).as_str().as_bytes()), Some(span));
        }
    }
}
