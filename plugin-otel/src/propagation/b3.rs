//! The headers of Zipkin, as the OpenTelemetry specification wants them: `b3` and `x-b3-…`.
//!
//! Both forms are read, whichever is to be written, and the single header goes before the others.

use plugin_api::SpanContext;

use super::{DEBUG, DEFERRED, Line, hex, list::trim};

pub(super) const B3: &str = "b3";
pub(super) const TRACE_ID: &str = "x-b3-traceid";
pub(super) const SPAN_ID: &str = "x-b3-spanid";
pub(super) const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
pub(super) const SAMPLED: &str = "x-b3-sampled";
pub(super) const FLAGS: &str = "x-b3-flags";

/// `{trace}-{span}-{sampled}-{parent}`; a later field cannot make it longer.
const LONGEST: usize = 32 + 1 + 16 + 1 + 1 + 1 + 16;

/// The lines that belong together where each field has a header of its own.
#[derive(Default)]
pub(super) struct Multi<'a> {
    pub(super) trace_id: Line<'a>,
    pub(super) span_id: Line<'a>,
    pub(super) sampled: Line<'a>,
    pub(super) flags: Line<'a>,
}

/// The caller of a single header: its span, or its decision alone with ids of zero.
pub(super) fn parse(value: &[u8]) -> Option<SpanContext> {
    let text = trim(value);
    if text.len() > LONGEST {
        return None;
    }
    if let Some(flags) = decision(text) {
        return Some(SpanContext::new([0; 16], [0; 8], flags));
    }
    let mut fields = text.split(|byte| *byte == b'-');
    let (trace_id, span_id) = (fields.next()?, fields.next()?);
    let mut next = fields.next();
    let decided = next.and_then(decision);
    if decided.is_some() {
        next = fields.next();
    }
    // The caller's own parent is of no use here, but nonsense in its place is nonsense.
    let parent_is_right = next.is_none_or(|parent| hex::read::<8>(parent).is_some());
    if !parent_is_right || fields.next().is_some() {
        return None;
    }
    span(trace_id, span_id, decided.unwrap_or(DEFERRED))
}

impl Multi<'_> {
    /// The caller that these lines tell of: its span, or its decision alone with ids of zero.
    pub(super) fn parse(&self) -> Option<SpanContext> {
        let flags = match (self.flags, self.sampled) {
            (Line::Once(b"1"), _) => SpanContext::SAMPLED | DEBUG,
            (_, Line::Once(b"1" | b"true")) => SpanContext::SAMPLED,
            (_, Line::Once(b"0" | b"false")) => 0,
            (_, Line::Absent) => DEFERRED,
            (_, Line::Once(_) | Line::Repeated) => return None,
        };
        match (self.trace_id, self.span_id) {
            (Line::Once(trace_id), Line::Once(span_id)) => span(trace_id, span_id, flags),
            (Line::Absent, Line::Absent) if flags != DEFERRED => {
                Some(SpanContext::new([0; 16], [0; 8], flags))
            }
            _ => None,
        }
    }
}

fn decision(field: &[u8]) -> Option<u32> {
    match field {
        b"0" => Some(0),
        b"1" => Some(SpanContext::SAMPLED),
        b"d" => Some(SpanContext::SAMPLED | DEBUG),
        _ => None,
    }
}

fn span(trace_id: &[u8], span_id: &[u8], flags: u32) -> Option<SpanContext> {
    let trace_id = match trace_id.len() {
        16 | 32 => hex::read_short(trace_id)?,
        _ => return None,
    };
    let span = SpanContext::new(trace_id, hex::read(span_id)?, flags);
    span.is_valid().then_some(span)
}

/// The values of outgoing headers, on the stack. What is empty has to go.
pub(super) struct Text {
    /// `{trace}-{span}-{sampled}`.
    text: [u8; 51],
    has_ids: bool,
    decision: &'static str,
}

impl Text {
    /// The values for this span; of one without ids, its decision alone.
    pub(super) fn of(span: &SpanContext) -> Self {
        let decision = match span.flags {
            flags if flags & DEBUG != 0 => "d",
            flags if flags & DEFERRED != 0 => "",
            flags if flags & SpanContext::SAMPLED != 0 => "1",
            _ => "0",
        };
        let mut text = [b'-'; 51];
        hex::write(&mut text[0..32], &span.trace_id);
        hex::write(&mut text[33..49], &span.span_id);
        text[50] = *decision.as_bytes().first().unwrap_or(&b'-');
        Self { text, has_ids: span.is_valid(), decision }
    }

    pub(super) fn single(&self) -> &str {
        match (self.has_ids, self.decision) {
            (false, decision) => decision,
            (true, "") => self.part(0, 49),
            (true, _) => self.part(0, 51),
        }
    }

    pub(super) fn trace_id(&self) -> &str {
        if self.has_ids { self.part(0, 32) } else { "" }
    }

    pub(super) fn span_id(&self) -> &str {
        if self.has_ids { self.part(33, 49) } else { "" }
    }

    /// Not sent beside the debug flag, which says it too.
    pub(super) fn sampled(&self) -> &'static str {
        if self.decision == "d" { "" } else { self.decision }
    }

    pub(super) fn flags(&self) -> &'static str {
        if self.decision == "d" { "1" } else { "" }
    }

    fn part(&self, from: usize, to: usize) -> &str {
        // Never empty: only hexadecimal digits, dashes and the decision are ever written.
        self.text.get(from..to).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SHORT: &str = "8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    /// The trace id's first byte, whether it has a span, and the flags.
    fn told(span: Option<SpanContext>) -> Option<(u8, bool, u32)> {
        span.map(|span| (span.trace_id[0], span.is_valid(), span.flags))
    }

    #[test]
    fn a_single_header_is_read() {
        for (value, wanted) in [
            (format!("{TRACE}-{SPAN}-1"), (0x0a, true, 1)),
            (format!("{TRACE}-{SPAN}-0"), (0x0a, true, 0)),
            (format!("{TRACE}-{SPAN}-d"), (0x0a, true, 1 | DEBUG)),
            (format!("{TRACE}-{SPAN}"), (0x0a, true, DEFERRED)),
            (format!("{TRACE}-{SPAN}-1-{SPAN}"), (0x0a, true, 1)),
            (format!("{TRACE}-{SPAN}-{SPAN}"), (0x0a, true, DEFERRED)),
            (format!("{SHORT}-{SPAN}-1"), (0, true, 1)),
            (format!(" {TRACE}-{SPAN}-1\t"), (0x0a, true, 1)),
            ("0".to_owned(), (0, false, 0)),
            ("1".to_owned(), (0, false, 1)),
            ("d".to_owned(), (0, false, 1 | DEBUG)),
        ] {
            assert_eq!(told(parse(value.as_bytes())), Some(wanted), "{value:?}");
        }
    }

    #[test]
    fn a_short_trace_id_is_padded_in_front() {
        let span = parse(format!("{SHORT}-{SPAN}-1").as_bytes()).unwrap();
        assert_eq!(span.trace_id[..10], [0, 0, 0, 0, 0, 0, 0, 0, 0x84, 0x48]);
    }

    #[test]
    fn a_single_header_that_is_broken_is_refused() {
        let zeros = "0".repeat(32);
        for value in [
            String::new(),
            "2".to_owned(),
            "D".to_owned(),
            "true".to_owned(),
            "-".to_owned(),
            TRACE.to_owned(),
            format!("{TRACE}-"),
            format!("{TRACE}-{SPAN}-"),
            format!("{TRACE}-{SPAN}-2"),
            format!("{TRACE}-{SPAN}-11"),
            format!("{TRACE}-{SPAN}-1-"),
            format!("{TRACE}-{SPAN}-1-{SPAN}-"),
            format!("{TRACE}-{SPAN}-1-{}", &SPAN[1..]),
            format!("{TRACE}-{SPAN}-1-{SPAN}0"),
            format!("{TRACE}-{}-1", &SPAN[1..]),
            format!("{}-{SPAN}-1", &TRACE[1..]),
            format!("{}-{SPAN}-1", &SHORT[1..]),
            format!("{}-{SPAN}-1", TRACE.to_uppercase()),
            format!("{zeros}-{SPAN}-1"),
            format!("{TRACE}-{}-1", &zeros[..16]),
            format!("{TRACE}_{SPAN}_1"),
        ] {
            assert_eq!(told(parse(value.as_bytes())), None, "{value:?}");
        }
    }

    fn line(text: &str) -> Line<'_> {
        if text.is_empty() { Line::Absent } else { Line::Once(text.as_bytes()) }
    }

    fn multi(trace_id: Line<'static>, rest: [&'static str; 3]) -> Option<(u8, bool, u32)> {
        let [span_id, sampled, flags] = rest.map(line);
        told(Multi { trace_id, span_id, sampled, flags }.parse())
    }

    #[test]
    fn many_headers_are_read_together() {
        for (trace_id, rest, wanted) in [
            (TRACE, [SPAN, "1", ""], Some((0x0a, true, 1))),
            (TRACE, [SPAN, "0", ""], Some((0x0a, true, 0))),
            (TRACE, [SPAN, "true", ""], Some((0x0a, true, 1))),
            (TRACE, [SPAN, "false", ""], Some((0x0a, true, 0))),
            (TRACE, [SPAN, "", ""], Some((0x0a, true, DEFERRED))),
            (TRACE, [SPAN, "", "1"], Some((0x0a, true, 1 | DEBUG))),
            (TRACE, [SPAN, "0", "1"], Some((0x0a, true, 1 | DEBUG))),
            (TRACE, [SPAN, "1", "0"], Some((0x0a, true, 1))),
            (SHORT, [SPAN, "1", ""], Some((0, true, 1))),
            ("", ["", "0", ""], Some((0, false, 0))),
            ("", ["", "1", ""], Some((0, false, 1))),
            ("", ["", "", "1"], Some((0, false, 1 | DEBUG))),
            ("", ["", "", ""], None),
            ("", ["", "", "0"], None),
            ("", [SPAN, "1", ""], None),
            (TRACE, ["", "1", ""], None),
            (TRACE, [SPAN, "yes", ""], None),
            (TRACE, [SHORT, "2", ""], None),
            ("0af7", [SPAN, "1", ""], None),
            (TRACE, ["0000000000000000", "1", ""], None),
        ] {
            assert_eq!(multi(line(trace_id), rest), wanted, "{trace_id} {rest:?}");
        }
        assert_eq!(multi(Line::Repeated, [SPAN, "1", ""]), None);
    }

    #[test]
    fn what_is_written_says_what_was_decided() {
        let ids = format!("{}-{}", "01".repeat(16), "02".repeat(8));
        for (flags, single, sampled, debug) in [
            (0, format!("{ids}-0"), "0", ""),
            (2, format!("{ids}-0"), "0", ""),
            (3, format!("{ids}-1"), "1", ""),
            (1 | DEBUG, format!("{ids}-d"), "", "1"),
            (DEFERRED, ids.clone(), "", ""),
        ] {
            let text = Text::of(&SpanContext::new([1; 16], [2; 8], flags));
            let all =
                [text.single(), text.trace_id(), text.span_id(), text.sampled(), text.flags()];
            let wanted = [single.as_str(), &ids[..32], &ids[33..], sampled, debug];
            assert_eq!(all, wanted, "{flags:x}");
        }
    }

    #[test]
    fn a_decision_without_a_span_is_written_alone() {
        for (flags, single, sampled) in [(0, "0", "0"), (1, "1", "1"), (DEFERRED, "", "")] {
            let text = Text::of(&SpanContext::new([0; 16], [0; 8], flags));
            let all =
                [text.single(), text.trace_id(), text.span_id(), text.sampled(), text.flags()];
            assert_eq!(all, [single, "", "", sampled, ""], "{flags:x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_caller_or_none(value in prop::collection::vec(any::<u8>(), 0..90)) {
            _ = parse(&value);
        }

        #[test]
        fn plausible_text_gives_a_span_or_a_decision(value in "[0-9a-fd-]{0,70}") {
            let is_right = |span: &SpanContext| span.is_valid() || span.span_id == [0; 8];
            prop_assert!(parse(value.as_bytes()).as_ref().is_none_or(is_right));
        }

        #[test]
        fn every_span_survives_its_headers(
            trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(),
            flags in prop::sample::select(vec![0, 1, 1 | DEBUG, DEFERRED]),
        ) {
            let span = SpanContext::new(trace_id, span_id, flags);
            prop_assume!(span.is_valid());
            let text = Text::of(&span);
            prop_assert_eq!(parse(text.single().as_bytes()), Some(span));
            let multi = Multi {
                trace_id: line(text.trace_id()),
                span_id: line(text.span_id()),
                sampled: line(text.sampled()),
                flags: line(text.flags()),
            };
            prop_assert_eq!(multi.parse(), Some(span));
        }
    }
}
