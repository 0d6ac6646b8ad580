//! The `traceparent` header: W3C Trace Context level 2, section 3.2.

use plugin_api::SpanContext;

use super::{hex, list::trim};

/// The length of a header of version 00, and of the part of later versions that is known.
const LENGTH: usize = 55;

/// Later versions may be longer, but no version will ever want this much.
const LONGEST: usize = 512;

/// The flags that level 2 defines; all others are cleared, as the section 3.2.2.5 wants.
const KNOWN_FLAGS: u32 = SpanContext::SAMPLED | SpanContext::RANDOM;

/// The caller's span, or `None` when the value is not exactly what the specification allows.
pub(crate) fn parse(value: &[u8]) -> Option<SpanContext> {
    if value.len() > LONGEST {
        return None;
    }
    let text = trim(value);
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let [version] = hex::read(known.get(0..2)?)?;
    let length_is_right = match version {
        0x00 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|&next| next == b'-'),
    };
    let dashes_are_right = [2, 35, 52].iter().all(|&at| known.get(at) == Some(&b'-'));
    if !length_is_right || !dashes_are_right {
        return None;
    }
    let [flags] = hex::read(known.get(53..55)?)?;
    let trace_id = hex::read(known.get(3..35)?)?;
    let span_id = hex::read(known.get(36..52)?)?;
    let span = SpanContext::new(trace_id, span_id, u32::from(flags) & KNOWN_FLAGS);
    span.is_valid().then_some(span)
}

/// A header value on the stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text([u8; LENGTH]);

impl Text {
    /// The header of version 00 for this span.
    pub(crate) fn of(span: &SpanContext) -> Self {
        let mut text = [b'-'; LENGTH];
        hex::write(&mut text[0..2], &[0]);
        hex::write(&mut text[3..35], &span.trace_id);
        hex::write(&mut text[36..52], &span.span_id);
        let [.., flags] = (span.flags & KNOWN_FLAGS).to_be_bytes();
        hex::write(&mut text[53..55], &[flags]);
        Self(text)
    }

    /// The header's value.
    pub(crate) fn as_str(&self) -> &str {
        // Never empty: only hexadecimal digits and dashes are ever written.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn flags_of(value: &str) -> Option<u32> {
        parse(value.as_bytes()).map(|span| span.flags)
    }

    #[test]
    fn a_header_of_version_00_is_read_field_by_field() {
        let span = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(span.trace_id[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(span.span_id[..3], [0xb7, 0xad, 0x6b]);
        assert!(span.is_sampled());
    }

    #[test]
    fn what_the_specification_allows_is_read() {
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (value, flags) in [
            (format!("00-{ids}-00"), 0),
            (format!("00-{ids}-02"), 2),
            (format!("00-{ids}-03"), 3),
            (format!("00-{ids}-ff"), 3),
            (format!("00-{ids}-fc"), 0),
            (format!(" \t00-{ids}-01\t "), 1),
            (format!("01-{ids}-01"), 1),
            (format!("fe-{ids}-01-"), 1),
            (format!("cc-{ids}-01-what-the-future-brings"), 1),
            (format!("cc-{ids}-01-{}", "x".repeat(456)), 1),
            (format!("cc-{ids}-fe"), 2),
            ("00-00000000000000000000000000000001-0000000000000001-01".to_owned(), 1),
        ] {
            assert_eq!(flags_of(&value), Some(flags), "{value:?}");
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let span = "b7ad6b7169203331";
        for value in [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{trace}-{span}-01-what"),
            format!("00-{trace}-{span}-011"),
            format!("01-{trace}-{span}-011"),
            format!("cc-{trace}-{span}-01-{}", "x".repeat(457)),
            format!("01-{}-{span}-01", "0".repeat(32)),
            format!("01-{trace}-{span}-0"),
            format!("01-{trace}-{span}-0X-01"),
            format!("01-{trace}-{span}-01.what"),
            format!("ff-{trace}-{span}-01"),
            format!("ff-{trace}-{span}-01-what"),
            format!("0-{trace}-{span}-01"),
            format!("000-{trace}-{span}-01"),
            format!("0A-{trace}-{span}-01"),
            format!("0x-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{}-01", span.to_uppercase()),
            format!("00-{trace}-{span}-0A"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", &trace[1..]),
            format!("00-{trace}0-{span}-01"),
            format!("00-{}.-{span}-01", &trace[1..]),
            format!("00_{trace}-{span}-01"),
            format!("00-{trace}_{span}-01"),
            format!("00-{trace}-{span}_01"),
            format!("\u{b}00-{trace}-{span}-01"),
            format!("00 -{trace}-{span}-01"),
            format!("00-{trace}-{span}-01\u{a0}"),
            format!("00-{trace}-{span}-0\u{b9}"),
            format!("00-{trace}-{span}- 1"),
            format!("00-{trace}-{span}-01;"),
            format!("00-{trace}-{span}-01,"),
            format!("00-{span}-{trace}-01"),
            format!("FF-{trace}-{span}-01"),
            format!(".0-{trace}-{span}-01"),
            format!("-1-{trace}-{span}-01"),
            format!("{GOOD},{GOOD}"),
        ] {
            assert_eq!(flags_of(&value), None, "{value:?}");
        }
    }

    #[test]
    fn a_written_header_is_read_back() {
        assert_eq!(Text::of(&parse(GOOD.as_bytes()).unwrap()).as_str(), GOOD);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_valid_span_or_none(value in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(parse(&value).is_none_or(|span| span.is_valid() && span.flags <= 3));
        }

        #[test]
        fn a_damaged_header_is_never_read_as_something_invalid(at in 0..55_usize, byte: u8) {
            let mut value = GOOD.as_bytes().to_vec();
            value[at] = byte;
            prop_assert!(parse(&value).is_none_or(|span| span.is_valid() && span.flags <= 3));
        }

        #[test]
        fn every_span_survives_its_header(
            trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(), flags in 0..4_u32,
        ) {
            let span = SpanContext::new(trace_id, span_id, flags);
            prop_assume!(span.is_valid());
            prop_assert_eq!(parse(Text::of(&span).as_str().as_bytes()), Some(span));
        }
    }
}
