//! Trace context in headers: read from an incoming request, written into an outgoing one.

mod b3;
mod baggage;
mod hex;
mod jaeger;
mod list;
pub(crate) mod traceparent;
mod tracestate;

use std::borrow::Cow;

use plugin_api::{Context, Header, SpanContext};

use self::{jaeger::UBER_TRACE_ID, list::lines};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

// Flags of a context beyond those of the header `traceparent`: the lowest eight belong to it, the
// others to this plugin. They stay in this process and in no span.

/// The caller wants the trace in full, whatever that is worth to it: `d` of B3, 2 of Jaeger.
pub(crate) const DEBUG: u32 = 1 << 8;
/// Nobody has decided yet whether the trace is sampled.
pub(crate) const DEFERRED: u32 = 1 << 9;
/// The exchange is not recorded: what it calls gets this very context, which is the caller's.
pub(crate) const PASSED_ON: u32 = 1 << 10;

/// Headers that carry a span's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `traceparent` and `tracestate`.
    TraceContext,
    /// `b3`.
    B3,
    /// `x-b3-traceid` and its like.
    B3Multi,
    /// `uber-trace-id`.
    Jaeger,
}

/// Which headers are read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Propagators {
    /// Read in this order until one gives a context; all are written.
    formats: Vec<Format>,
    baggage: bool,
}

/// What an incoming request brought.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    /// Without ids where a new trace starts here; then it is at most the caller's decision.
    caller: SpanContext,
    tracestate: Cow<'a, str>,
    baggage: Cow<'a, str>,
}

impl Incoming<'_> {
    /// Nothing, or nothing that is listened to.
    pub(crate) const NOTHING: Self = Self {
        caller: SpanContext::new([0; 16], [0; 8], DEFERRED),
        tracestate: Cow::Borrowed(""),
        baggage: Cow::Borrowed(""),
    };

    /// The caller's span with what it decided; without ids where a new trace starts here.
    pub(crate) const fn caller(&self) -> &SpanContext {
        &self.caller
    }

    /// The caller's span; `None` when a new trace starts here.
    pub(crate) fn parent(&self) -> Option<&SpanContext> {
        Some(&self.caller).filter(|caller| caller.is_valid())
    }

    /// The context of a span that takes the caller's trace state and baggage along.
    pub(crate) fn context(&self, span: SpanContext) -> Context {
        Context::new(span).with_state(&self.tracestate, &self.baggage)
    }

    /// The caller's own context, for an exchange that is not recorded.
    pub(crate) fn passed_on(&self) -> Context {
        let SpanContext { trace_id, span_id, flags, .. } = self.caller;
        self.context(SpanContext::new(trace_id, span_id, flags | PASSED_ON))
    }
}

impl Default for Propagators {
    fn default() -> Self {
        Self { formats: vec![Format::TraceContext], baggage: true }
    }
}

impl Propagators {
    /// The names that [`Propagators::add`] knows.
    pub(crate) const NAMES: [&str; 6] =
        ["tracecontext", "baggage", "b3", "b3multi", "jaeger", "none"];

    /// No header at all.
    pub(crate) const fn none() -> Self {
        Self { formats: Vec::new(), baggage: false }
    }

    /// Adds the propagator of this name, after those that are there; tells whether there is one.
    pub(crate) fn add(&mut self, name: &str) -> bool {
        let format = match name {
            "tracecontext" => Format::TraceContext,
            "b3" => Format::B3,
            "b3multi" => Format::B3Multi,
            "jaeger" => Format::Jaeger,
            "baggage" => {
                self.baggage = true;
                return true;
            }
            _ => return name == "none",
        };
        if !self.formats.contains(&format) {
            self.formats.push(format);
        }
        true
    }

    /// Reads the caller's context. Never fails: what is against the specification is left out.
    ///
    /// Allocates nothing unless a trace state or a baggage has to be rewritten.
    pub(crate) fn extract<'a>(&self, headers: &'a [Header<'a>]) -> Incoming<'a> {
        let found = Found::among(headers);
        let (caller, format) = self.caller(&found);
        let tracestate = if format == Some(Format::TraceContext) && found.tracestate {
            tracestate::parse(lines(headers, TRACESTATE))
        } else {
            Cow::Borrowed("")
        };
        let baggage = if self.baggage && found.baggage {
            baggage::parse(lines(headers, BAGGAGE))
        } else {
            Cow::Borrowed("")
        };
        Incoming { caller, tracestate, baggage }
    }

    /// The caller's span alone, with neither trace state nor baggage.
    pub(crate) fn extract_span<'a>(&self, headers: &'a [Header<'a>]) -> Option<SpanContext> {
        let (caller, format) = self.caller(&Found::among(headers));
        format.map(|_| caller)
    }

    /// The first context, with the format that it came in, or else the first decision.
    fn caller(&self, found: &Found<'_>) -> (SpanContext, Option<Format>) {
        let mut decision = None;
        for format in &self.formats {
            match found.caller(*format) {
                Some(caller) if caller.is_valid() => return (caller, Some(*format)),
                caller => decision = decision.or(caller),
            }
        }
        (decision.unwrap_or(*Incoming::NOTHING.caller()), None)
    }

    /// Tells `set` which headers of an outgoing request carry this context. An empty value means
    /// that the header has to go.
    ///
    /// `inherited` says that the context came from an exchange of this host: then its baggage is the
    /// whole truth. Otherwise a baggage that the request has by itself stays.
    pub(crate) fn inject(
        &self,
        context: &Context,
        inherited: bool,
        mut set: impl FnMut(&'static str, &str),
    ) {
        let span = context.span();
        if self.writes(Format::TraceContext) {
            let text = traceparent::Text::of(span);
            set(TRACEPARENT, if span.is_valid() { text.as_str() } else { "" });
            set(TRACESTATE, if span.is_valid() { context.tracestate() } else { "" });
        }
        if self.writes(Format::B3) || self.writes(Format::B3Multi) {
            self.inject_b3(span, &mut set);
        }
        if self.writes(Format::Jaeger) {
            let text = jaeger::Text::of(span);
            set(UBER_TRACE_ID, if span.is_valid() { text.as_str() } else { "" });
        }
        if self.baggage && (inherited || !context.baggage().is_empty()) {
            set(BAGGAGE, context.baggage());
        }
    }

    /// Whoever reads one form of B3 reads the other: the one that is not written must not stay.
    fn inject_b3(&self, span: &SpanContext, set: &mut impl FnMut(&'static str, &str)) {
        let text = b3::Text::of(span);
        set(b3::B3, if self.writes(Format::B3) { text.single() } else { "" });
        let multi = self.writes(Format::B3Multi);
        for (name, value) in [
            (b3::TRACE_ID, text.trace_id()),
            (b3::SPAN_ID, text.span_id()),
            (b3::SAMPLED, text.sampled()),
            (b3::FLAGS, text.flags()),
        ] {
            set(name, if multi { value } else { "" });
        }
        set(b3::PARENT_SPAN_ID, "");
    }

    fn writes(&self, format: Format) -> bool {
        self.formats.contains(&format)
    }
}

/// The value of a header that must not come twice.
#[derive(Clone, Copy, Debug, Default)]
enum Line<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Line<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    /// What `parse` makes of the value, if there is one and no other.
    fn parsed(self, parse: fn(&[u8]) -> Option<SpanContext>) -> Option<SpanContext> {
        match self {
            Self::Once(value) => parse(value),
            Self::Absent | Self::Repeated => None,
        }
    }
}

/// What one look at the headers tells.
#[derive(Default)]
struct Found<'a> {
    traceparent: Line<'a>,
    b3: Line<'a>,
    multi: b3::Multi<'a>,
    jaeger: Line<'a>,
    tracestate: bool,
    baggage: bool,
}

impl<'a> Found<'a> {
    fn among(headers: &[Header<'a>]) -> Self {
        let mut found = Self::default();
        for header in headers {
            let line = match header.name() {
                TRACEPARENT => &mut found.traceparent,
                b3::B3 => &mut found.b3,
                b3::TRACE_ID => &mut found.multi.trace_id,
                b3::SPAN_ID => &mut found.multi.span_id,
                b3::SAMPLED => &mut found.multi.sampled,
                b3::FLAGS => &mut found.multi.flags,
                UBER_TRACE_ID => &mut found.jaeger,
                name => {
                    found.tracestate |= name == TRACESTATE;
                    found.baggage |= name == BAGGAGE;
                    continue;
                }
            };
            line.add(header.value());
        }
        found
    }

    fn caller(&self, format: Format) -> Option<SpanContext> {
        match format {
            Format::TraceContext => self.traceparent.parsed(traceparent::parse),
            Format::B3 | Format::B3Multi => {
                self.b3.parsed(b3::parse).or_else(|| self.multi.parse())
            }
            Format::Jaeger => self.jaeger.parsed(jaeger::parse),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";
    /// Another trace in each format.
    const B3: &[u8] = b"00000000000000000000000000000b3b-0000000000000b3b-1";
    const JAEGER: &[u8] = b"aaa:aaa:0:1";

    fn of(names: &[&str]) -> Propagators {
        let mut propagators = Propagators::none();
        assert!(names.iter().all(|name| propagators.add(name)), "{names:?}");
        propagators
    }

    fn all() -> Propagators {
        of(&["tracecontext", "baggage", "b3", "b3multi", "jaeger"])
    }

    fn headers<'a>(lines: &[(&'static str, &'a str)]) -> Vec<Header<'a>> {
        lines.iter().map(|(name, value)| Header::new(name, value.as_bytes())).collect()
    }

    fn context_of(propagators: &Propagators, headers: &[Header<'_>]) -> Context {
        let incoming = propagators.extract(headers);
        incoming.context(incoming.parent().copied().unwrap_or_default())
    }

    #[test]
    fn a_caller_s_context_is_read() {
        let headers = [
            Header::new("traceparent", PARENT),
            Header::new("tracestate", b"foo=1"),
            Header::new("host", b"here"),
            Header::new("baggage", b"a=1"),
            Header::new("tracestate", b"bar=2"),
        ];
        let context = context_of(&Propagators::default(), &headers);
        assert!(context.span().is_valid());
        assert_eq!((context.tracestate(), context.baggage()), ("foo=1,bar=2", "a=1"));
        let none = context_of(&Propagators::none(), &headers);
        assert!(!none.span().is_valid());
        assert_eq!((none.tracestate(), none.baggage()), ("", ""));
    }

    #[test]
    fn a_second_header_of_a_span_makes_both_invalid() {
        for (name, value) in
            [("traceparent", PARENT), ("b3", B3), (UBER_TRACE_ID, JAEGER), ("b3", b"1")]
        {
            for second in [value, b"", b"nonsense"] {
                let headers = [
                    Header::new(name, value),
                    Header::new(name, second),
                    Header::new("tracestate", b"foo=1"),
                ];
                let context = context_of(&all(), &headers);
                assert!(!context.span().is_valid());
                assert_eq!(context.tracestate(), "", "a trace state without its trace: {name}");
            }
        }
    }

    #[test]
    fn a_bad_trace_state_keeps_the_trace() {
        let headers = [Header::new("traceparent", PARENT), Header::new("tracestate", b"foo")];
        let context = context_of(&Propagators::default(), &headers);
        assert!(context.span().is_valid());
        assert_eq!(context.tracestate(), "");
    }

    #[test]
    fn baggage_travels_without_a_trace() {
        let context = context_of(&Propagators::default(), &[Header::new("baggage", b"a=1")]);
        assert_eq!(context.baggage(), "a=1");
    }

    /// The last byte of the caller's trace id, its flags, and its trace state.
    fn told(names: &[&str], headers: &[Header<'_>]) -> (u8, u32, String) {
        let incoming = of(names).extract(headers);
        let caller = incoming.caller();
        (caller.trace_id[15], caller.flags, incoming.tracestate.into_owned())
    }

    #[test]
    fn the_first_propagator_that_gives_a_context_wins() {
        let full = [
            Header::new("traceparent", PARENT),
            Header::new("tracestate", b"foo=1"),
            Header::new("b3", B3),
            Header::new("x-b3-traceid", b"00000000000000cc"),
            Header::new("x-b3-spanid", b"00000000000000cc"),
            Header::new(UBER_TRACE_ID, JAEGER),
        ];
        for (names, wanted) in [
            (&["tracecontext", "b3", "jaeger"][..], (0x9c, 3, "foo=1")),
            (&["b3", "tracecontext"], (0x3b, 1, "")),
            (&["b3multi", "tracecontext"], (0x3b, 1, "")),
            (&["jaeger", "b3multi", "tracecontext"], (0xaa, 1, "")),
            (&["baggage"], (0, DEFERRED, "")),
        ] {
            assert_eq!(told(names, &full), (wanted.0, wanted.1, wanted.2.to_owned()), "{names:?}");
        }
        let wanted = (0xcc, DEFERRED, String::new());
        assert_eq!(told(&["b3"], &full[3..]), wanted, "either form of b3 is read");
        let broken = [Header::new("traceparent", b"00-0af7"), full[5]];
        assert_eq!(told(&["tracecontext", "jaeger"], &broken), (0xaa, 1, String::new()));
    }

    #[test]
    fn a_decision_alone_is_kept_unless_someone_has_a_span() {
        let denied = headers(&[("b3", "0")]);
        assert_eq!(told(&["tracecontext", "b3"], &denied), (0, 0, String::new()));
        let denied = headers(&[("x-b3-sampled", "0")]);
        assert_eq!(told(&["b3multi"], &denied), (0, 0, String::new()));
        let both = [denied[0], Header::new("traceparent", PARENT)];
        assert_eq!(told(&["b3", "tracecontext"], &both), (0x9c, 3, String::new()));
    }

    fn injected(propagators: &Propagators, context: &Context, inherited: bool) -> String {
        let mut told = Vec::new();
        propagators.inject(context, inherited, |name, value| told.push(format!("{name}={value}")));
        told.join(" ")
    }

    #[test]
    fn an_outgoing_request_gets_one_context_and_no_empty_header() {
        let span = SpanContext::new([1; 16], [2; 8], 2);
        let traceparent = format!("traceparent=00-{}-{}-02", "01".repeat(16), "02".repeat(8));
        let bare = Context::new(span);
        let full = Context::new(span).with_state("foo=1", "a=1");
        for (context, inherited, wanted) in [
            (&bare, false, format!("{traceparent} tracestate=")),
            (&bare, true, format!("{traceparent} tracestate= baggage=")),
            (&full, false, format!("{traceparent} tracestate=foo=1 baggage=a=1")),
            (&full, true, format!("{traceparent} tracestate=foo=1 baggage=a=1")),
        ] {
            assert_eq!(injected(&Propagators::default(), context, inherited), wanted);
            assert_eq!(injected(&Propagators::none(), context, inherited), "");
        }
    }

    #[test]
    fn every_listed_propagator_writes_and_takes_stale_headers_out() {
        let (trace, span) = ("01".repeat(16), "02".repeat(8));
        let context = Context::new(SpanContext::new([1; 16], [2; 8], 1));
        let stale = "x-b3-traceid= x-b3-spanid= x-b3-sampled= x-b3-flags= x-b3-parentspanid=";
        let many = format!(
            "x-b3-traceid={trace} x-b3-spanid={span} x-b3-sampled=1 x-b3-flags= x-b3-parentspanid="
        );
        for (names, wanted) in [
            (&["b3"][..], format!("b3={trace}-{span}-1 {stale}")),
            (&["b3multi"], format!("b3= {many}")),
            (&["b3multi", "b3"], format!("b3={trace}-{span}-1 {many}")),
            (&["jaeger"], format!("uber-trace-id={trace}:{span}:0:1")),
            (
                &["jaeger", "tracecontext"],
                format!(
                    "traceparent=00-{trace}-{span}-01 tracestate= uber-trace-id={trace}:{span}:0:1"
                ),
            ),
        ] {
            assert_eq!(injected(&of(names), &context, true), wanted, "{names:?}");
        }
    }

    #[test]
    fn a_context_that_is_passed_on_is_the_caller_s_and_nothing_where_there_was_none() {
        let propagators = of(&["tracecontext", "baggage", "b3"]);
        let full = [
            Header::new("traceparent", PARENT),
            Header::new("tracestate", b"foo=1"),
            Header::new("baggage", b"a=1"),
        ];
        let wanted = "b3=0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1";
        let stale = "x-b3-traceid= x-b3-spanid= x-b3-sampled= x-b3-flags= x-b3-parentspanid=";
        let parent = std::str::from_utf8(PARENT).unwrap();
        for (headers, wanted) in [
            (
                &full[..],
                format!("traceparent={parent} tracestate=foo=1 {wanted} {stale} baggage=a=1"),
            ),
            (&full[1..], format!("traceparent= tracestate= b3= {stale} baggage=a=1")),
            (&[], format!("traceparent= tracestate= b3= {stale} baggage=")),
            (&[Header::new("b3", b"0")], format!("traceparent= tracestate= b3=0 {stale} baggage=")),
        ] {
            let context = propagators.extract(headers).passed_on();
            assert!(context.span().flags & PASSED_ON != 0);
            assert_eq!(injected(&propagators, &context, true), wanted, "{headers:?}");
        }
    }

    #[test]
    fn every_listed_name_is_known_and_no_other() {
        for name in Propagators::NAMES {
            assert!(Propagators::none().add(name));
        }
        for name in ["", "B3", "w3c", "xray"] {
            assert!(!Propagators::none().add(name), "{name}");
        }
        assert_eq!(of(&["b3", "b3", "none"]), of(&["b3"]));
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            TRACEPARENT,
            TRACESTATE,
            BAGGAGE,
            b3::B3,
            b3::TRACE_ID,
            b3::SPAN_ID,
            b3::SAMPLED,
            b3::FLAGS,
            UBER_TRACE_ID,
            "host",
        ])
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::sample::select(vec![PARENT, B3, JAEGER, b"0", b"1", b"00000000000000cc"])
                .prop_map(<[u8]>::to_vec),
            "[a-z0-9=,; @:-]{0,60}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn any_headers_give_a_valid_context_or_a_new_trace_and_one_of_each_header_out(
            headers in prop::collection::vec((name(), value()), 0..8),
            order in Just(vec!["tracecontext", "baggage", "b3", "b3multi", "jaeger"]).prop_shuffle(),
            kept in 0..5_usize,
            inherited: bool,
        ) {
            let propagators = of(&order[kept..]);
            let headers: Vec<Header<'_>> =
                headers.iter().map(|(name, value)| Header::new(name, value)).collect();
            let incoming = propagators.extract(&headers);
            let known = SpanContext::SAMPLED | SpanContext::RANDOM | DEBUG | DEFERRED;
            prop_assert_eq!(incoming.caller().flags & !known, 0);
            if let Some(parent) = incoming.parent() {
                prop_assert!(parent.is_valid());
            } else {
                prop_assert_eq!(incoming.caller().trace_id, [0; 16]);
                prop_assert!(incoming.tracestate.is_empty());
            }
            for context in [incoming.passed_on(), incoming.context(SpanContext::new([1; 16], [2; 8], 3))] {
                let mut told: Vec<&str> = Vec::new();
                propagators.inject(&context, inherited, |name, value| {
                    told.push(name);
                    // Whatever goes out is clean: printable, and what this side would take itself.
                    assert!(value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
                    if name == TRACEPARENT && !value.is_empty() {
                        let flags = context.span().flags & 3;
                        let read = traceparent::parse(value.as_bytes()).unwrap();
                        assert_eq!(read, SpanContext::new(context.span().trace_id, context.span().span_id, flags));
                    }
                });
                let count = told.len();
                told.sort_unstable();
                told.dedup();
                prop_assert_eq!(told.len(), count, "a header was set twice");
            }
        }

        #[test]
        fn what_one_side_sends_the_other_reads(
            trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(), sampled in 0..2_u32,
            format in prop::sample::select(vec!["tracecontext", "b3", "b3multi", "jaeger"]),
        ) {
            let span = SpanContext::new(trace_id, span_id, sampled);
            prop_assume!(span.is_valid());
            let mut sent = Vec::new();
            of(&[format]).inject(&Context::new(span), true, |name, value| {
                if !value.is_empty() {
                    sent.push((name, value.to_owned()));
                }
            });
            let lines: Vec<(&str, &str)> =
                sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let lines = headers(&lines);
            let incoming = of(&[format]).extract(&lines);
            prop_assert_eq!(incoming.parent(), Some(&span));
        }
    }
}
