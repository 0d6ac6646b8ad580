//! Trace context in headers: read from an incoming request, written into an outgoing one.

mod baggage;
mod traceparent;
mod tracestate;

use std::borrow::Cow;

use plugin_api::{Context, Header, SpanContext};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Which headers are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagators {
    /// `traceparent` and `tracestate`.
    pub(crate) trace_context: bool,
    /// `baggage`.
    pub(crate) baggage: bool,
}

/// What an incoming request brought.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    /// The caller's span; `None` when a new trace starts here.
    pub(crate) parent: Option<SpanContext>,
    tracestate: Cow<'a, str>,
    baggage: Cow<'a, str>,
}

impl Incoming<'_> {
    /// The context of a span that takes the caller's trace state and baggage along.
    pub(crate) fn context(&self, span: SpanContext) -> Context {
        Context::new(span).with_state(&self.tracestate, &self.baggage)
    }
}

impl Propagators {
    /// Reads the caller's context. Never fails: what is against the specification is left out.
    ///
    /// Allocates nothing unless a trace state or a baggage has to be rewritten.
    pub(crate) fn extract<'a>(&self, headers: &'a [Header<'a>]) -> Incoming<'a> {
        let found = Found::among(headers);
        let parent = found.parent.filter(|_| self.trace_context);
        let tracestate = if parent.is_some() && found.tracestate {
            tracestate::parse(lines(headers, TRACESTATE))
        } else {
            Cow::Borrowed("")
        };
        let baggage = if self.baggage && found.baggage {
            baggage::parse(lines(headers, BAGGAGE))
        } else {
            Cow::Borrowed("")
        };
        Incoming { parent, tracestate, baggage }
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
        if self.trace_context {
            set(TRACEPARENT, traceparent::Text::of(context.span()).as_str());
            set(TRACESTATE, context.tracestate());
        }
        if self.baggage && (inherited || !context.baggage().is_empty()) {
            set(BAGGAGE, context.baggage());
        }
    }
}

/// What one look at the headers tells.
#[derive(Default)]
struct Found {
    parent: Option<SpanContext>,
    tracestate: bool,
    baggage: bool,
}

impl Found {
    fn among(headers: &[Header<'_>]) -> Self {
        let mut found = Self::default();
        let mut traceparents = 0;
        for header in headers {
            match header.name() {
                TRACEPARENT => {
                    traceparents += 1;
                    found.parent = traceparent::parse(header.value());
                }
                TRACESTATE => found.tracestate = true,
                BAGGAGE => found.baggage = true,
                _ => {}
            }
        }
        if traceparents > 1 {
            found.parent = None;
        }
        found
    }
}

/// The values of all lines of this name, in order.
fn lines<'a>(
    headers: &'a [Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    headers.iter().filter(move |header| header.name() == name).map(Header::value)
}

/// The members of a list header: split at commas, trimmed, empty ones skipped.
fn members<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Without the optional whitespace of HTTP, which is blanks and tabs, at both ends.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The members as one line: the line that they came in, when nothing was left out of it.
fn join<'a>(mut lines: impl Iterator<Item = &'a [u8]>, kept: &[&'a str]) -> Cow<'a, str> {
    let length = kept.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() == length => {
            std::str::from_utf8(line).map_or(Cow::Borrowed(""), Cow::Borrowed)
        }
        _ => Cow::Owned(kept.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Propagators = Propagators { trace_context: true, baggage: true };
    const NONE: Propagators = Propagators { trace_context: false, baggage: false };
    const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";

    fn context_of(propagators: Propagators, headers: &[Header<'_>]) -> Context {
        let incoming = propagators.extract(headers);
        incoming.context(incoming.parent.unwrap_or_default())
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
        let context = context_of(ALL, &headers);
        assert!(context.span().is_valid());
        assert_eq!((context.tracestate(), context.baggage()), ("foo=1,bar=2", "a=1"));
        let none = context_of(NONE, &headers);
        assert!(!none.span().is_valid());
        assert_eq!((none.tracestate(), none.baggage()), ("", ""));
    }

    #[test]
    fn a_second_traceparent_makes_both_invalid() {
        for second in [PARENT, b"", b"nonsense"] {
            let headers = [
                Header::new("traceparent", PARENT),
                Header::new("traceparent", second),
                Header::new("tracestate", b"foo=1"),
            ];
            let context = context_of(ALL, &headers);
            assert!(!context.span().is_valid());
            assert_eq!(context.tracestate(), "", "a trace state without its trace means nothing");
        }
    }

    #[test]
    fn a_bad_trace_state_keeps_the_trace() {
        let headers = [Header::new("traceparent", PARENT), Header::new("tracestate", b"foo")];
        let context = context_of(ALL, &headers);
        assert!(context.span().is_valid());
        assert_eq!(context.tracestate(), "");
    }

    #[test]
    fn baggage_travels_without_a_trace() {
        let context = context_of(ALL, &[Header::new("baggage", b"a=1")]);
        assert_eq!(context.baggage(), "a=1");
    }

    fn injected(propagators: Propagators, context: &Context, inherited: bool) -> String {
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
            assert_eq!(injected(ALL, context, inherited), wanted);
            assert_eq!(injected(NONE, context, inherited), "");
        }
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![TRACEPARENT, TRACESTATE, BAGGAGE, "host"])
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            Just(PARENT.to_vec()),
            "[a-z0-9=,; @]{0,60}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        #[test]
        fn any_headers_give_a_valid_parent_or_none(
            headers in prop::collection::vec((name(), value()), 0..8),
        ) {
            let headers: Vec<Header<'_>> =
                headers.iter().map(|(name, value)| Header::new(name, value)).collect();
            let incoming = ALL.extract(&headers);
            prop_assert!(incoming.parent.is_none_or(|span| span.is_valid() && span.flags <= 3));
        }
    }
}
