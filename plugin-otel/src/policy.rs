//! What becomes of an incoming request: decided from what it borrows, before anything is allocated.

use plugin_api::{Context, RequestHead};

use crate::{
    propagation::{Incoming, Propagators},
    rules::Rules,
    template::Template,
    trust::{Trust, TrustTable},
};

/// The operator's rules for incoming requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    /// Not recorded: what these call gets their caller's context.
    pub(crate) exclude: Vec<Template>,
    /// Whose context counts.
    pub(crate) trust: TrustTable,
    /// Sampling ratios in place of the sampler's own.
    pub(crate) rules: Rules,
}

/// What becomes of an incoming request.
#[derive(Debug)]
pub(crate) enum Decision<'a> {
    /// It gets a span of its own, recorded or not.
    Follow {
        /// What the caller sent, as far as it counts.
        incoming: Incoming<'a>,
        /// The span of a caller whose trace does not go on, to be linked to.
        link: Option<Context>,
    },
    /// It gets no span; this context stands for it.
    PassOn(Context),
}

impl Policy {
    /// Decides on the request with this head.
    ///
    /// Of a caller whose trace does not go on, nothing is passed on either.
    pub(crate) fn decide<'a>(
        &self,
        head: &RequestHead<'a>,
        propagators: &Propagators,
    ) -> Decision<'a> {
        let trust = self.trust.of(head);
        let is_excluded = self.exclude.iter().any(|template| template.matches(head.path()));
        let incoming = match trust {
            Trust::Continue => propagators.extract(head.headers()),
            Trust::Link | Trust::Ignore => Incoming::NOTHING,
        };
        if is_excluded {
            return Decision::PassOn(incoming.passed_on());
        }
        let link = match trust {
            Trust::Link => propagators.extract_span(head.headers()).map(Context::new),
            Trust::Continue | Trust::Ignore => None,
        };
        Decision::Follow { incoming, link }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use plugin_api::{
        Accepted, ClientLayer as _, Header, Headers, Level, Peer, ServerLayer as _, SpanContext,
        Version,
        adapter::{HeaderMap, Lent, lend_headers},
        telemetry::{Begun, Callsite, FieldBuffer, SpanHead},
    };

    use super::*;
    use crate::{spans::LocalSpan, testing::Bench};

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";

    const FULL: [Header<'static>; 3] = [
        Header::new("traceparent", PARENT.as_bytes()),
        Header::new("tracestate", b"foo=1"),
        Header::new("baggage", b"a=1"),
    ];

    /// What a call changes in the headers of its request, each as `name: value`.
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl HeaderMap for Lines {
        fn set(&mut self, name: &str, value: &str) {
            self.0.push(format!("{name}: {value}"));
        }

        fn remove(&mut self, name: &str) {
            self.0.push(format!("{name} removed"));
        }

        fn append(&mut self, name: &str, value: &str) {
            self.0.push(format!("{name} + {value}"));
        }
    }

    /// What a call that is made for an exchange with this context changes in headers that it brings.
    fn called(bench: &Bench, parent: &Context) -> Vec<String> {
        let mut lines = Lines::default();
        let mut lent = Lent(&mut lines);
        let head = RequestHead::new("GET", "/", &FULL);
        drop(bench.client().on_request(&head, parent, &mut Headers::new(lend_headers(&mut lent))));
        lines.0
    }

    /// A span of the code that answers an exchange with this context.
    fn local(bench: &Bench, parent: &Context) -> Begun<LocalSpan> {
        let callsite = Callsite::new(Level::INFO, "tests", "work");
        bench.local(&SpanHead::new(&callsite, FieldBuffer::default().fields()), parent)
    }

    fn from(peer: [u8; 4]) -> Peer {
        Peer::from(SocketAddr::from((peer, 1)))
    }

    #[test]
    fn an_excluded_request_has_no_span_and_passes_on_what_its_caller_sent() {
        let bench = Bench::with(r#"{"exclude": ["/health"], "response-header": "traceresponse"}"#);
        let removed = ["traceparent removed", "tracestate removed"];
        for (headers, wanted) in [
            (
                &FULL[..],
                vec![
                    format!("traceparent: {PARENT}"),
                    "tracestate: foo=1".into(),
                    "baggage: a=1".into(),
                ],
            ),
            (
                &FULL[1..],
                [&removed[..], &["baggage: a=1"]]
                    .concat()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
            (
                &[],
                [&removed[..], &["baggage removed"]]
                    .concat()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
        ] {
            let head = RequestHead::new("GET", "/health/live", headers);
            let Accepted { context, exchange } = bench.server().on_request(&head);
            assert!(exchange.is_none());
            assert_eq!(called(&bench, &context), wanted);
            let inner = local(&bench, &context);
            assert!(inner.span.is_none());
            assert_eq!(called(&bench, &inner.context), wanted);
            let mut lines = Lines::default();
            let mut lent = Lent(&mut lines);
            bench.server().on_response(&context, &mut Headers::new(lend_headers(&mut lent)));
            assert!(lines.0.is_empty());
        }
        assert!(bench.spans().is_empty());
        assert_eq!(bench.counts().started, 0);
        assert!(bench.server().on_request(&RequestHead::new("GET", "/", &[])).exchange.is_some());
    }

    #[test]
    fn of_a_caller_that_is_not_trusted_nothing_goes_on() {
        for (incoming, is_linked) in [("link", true), ("ignore", false)] {
            let bench =
                Bench::with(&format!(r#"{{"incoming": "{incoming}", "exclude": ["/out"]}}"#));
            let head = RequestHead::new("GET", "/", &FULL);
            let Accepted { context, exchange } = bench.server().on_request(&head);
            drop(exchange);
            assert_eq!(context.span().flags, SpanContext::SAMPLED | SpanContext::RANDOM);
            assert_ne!(context.span().trace_id[..2], [0x0a, 0xf7], "a trace of its own");
            assert_eq!((context.tracestate(), context.baggage()), ("", ""));
            let excluded = bench.server().on_request(&RequestHead::new("GET", "/out", &FULL));
            assert!(!excluded.context.span().is_valid() && excluded.context.baggage().is_empty());

            let policy = Policy {
                trust: TrustTable { entries: Vec::new(), otherwise: Trust::of(incoming).unwrap() },
                ..Policy::default()
            };
            let decision = policy.decide(&head, &Propagators::default());
            let Decision::Follow { link, .. } = decision else { panic!("{decision:?}") };
            assert_eq!(link.is_some(), is_linked);
            if let Some(link) = link {
                assert_eq!((link.span().trace_id[0], link.span().flags), (0x0a, 3));
                assert_eq!((link.tracestate(), link.baggage()), ("", ""));
            }
        }
    }

    #[test]
    fn an_unsampled_caller_that_is_only_linked_decides_nothing() {
        let unsampled =
            Header::new("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let settings =
            r#"{"trust": [{"peer": "10.0.0.0/8", "incoming": "continue"}], "incoming": "link"}"#;
        let bench = Bench::with(settings);
        for (peer, is_sampled) in [([10, 0, 0, 1], false), ([192, 0, 2, 1], true)] {
            let headers = [unsampled];
            let head = RequestHead::new("GET", "/", &headers).over(Version::HTTP_11, from(peer));
            let accepted = bench.server().on_request(&head);
            assert_eq!(accepted.context.span().is_sampled(), is_sampled, "{peer:?}");
        }
    }

    #[test]
    fn a_rule_decides_where_no_caller_has_and_calls_follow_their_exchange() {
        let rules = r#"[{"route": "/off", "ratio": 0}, {"header": "x-on", "ratio": 1}]"#;
        let on = Header::new("x-on", b"");
        for (sampler, path, headers, wanted) in [
            ("always_on", "/off", &[][..], false),
            ("always_on", "/off", &FULL[..1], false),
            ("always_on", "/on", &[], true),
            ("always_off", "/on", &[on], true),
            ("always_off", "/on", &[], false),
            ("parentbased_always_on", "/off", &[], false),
            ("parentbased_always_on", "/off", &FULL[..1], true),
        ] {
            let bench = Bench::with(&format!(r#"{{"sampler": "{sampler}", "rule": {rules}}}"#));
            let accepted = bench.server().on_request(&RequestHead::new("GET", path, headers));
            let span = accepted.context.span();
            assert_eq!(span.is_sampled(), wanted, "{sampler} {path}");
            assert_eq!(accepted.exchange.is_some(), wanted);
            let call = called(&bench, &accepted.context);
            let end = if wanted { "-03" } else { "-02" };
            assert!(call[0].starts_with("traceparent: ") && call[0].ends_with(end), "{call:?}");
            drop(accepted);
            assert_eq!(bench.spans().len(), if wanted { 2 } else { 0 }, "{sampler} {path}");
        }
    }

    #[test]
    fn what_b3_decides_without_a_span_holds_for_the_new_trace() {
        let settings = r#"{"propagators": ["b3"]}"#;
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (value, is_sampled, sent) in [
            ("0".to_owned(), false, "-0"),
            ("1".to_owned(), true, "-1"),
            ("d".to_owned(), true, "-d"),
            (format!("{ids}-0"), false, "-0"),
            (format!("{ids}-d"), true, "-d"),
            (ids.to_owned(), true, "-1"),
        ] {
            let bench = Bench::with(settings);
            let headers = [Header::new("b3", value.as_bytes())];
            let accepted = bench.server().on_request(&RequestHead::new("GET", "/", &headers));
            assert!(accepted.context.span().is_valid());
            assert_eq!(accepted.exchange.is_some(), is_sampled, "{value}");
            let call = called(&bench, &accepted.context);
            assert!(call[0].starts_with("b3: ") && call[0].ends_with(sent), "{value}: {call:?}");
            drop(accepted);
            for span in bench.spans() {
                // What it means in OTLP that a parent is remote, or known not to be.
                let is_remote = span.kind() == SpanKind::Server && !span.parent_span_id.is_empty();
                let of_parent = if is_remote { 0x300 } else { 0x100 };
                assert_eq!(span.flags & !3, of_parent, "{value}: {span:?}");
            }
        }
    }
}
