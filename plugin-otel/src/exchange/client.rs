//! CLIENT spans: one for every attempt of an outgoing request that is sampled.

use std::sync::Arc;

use plugin_api::{
    ClientLayer, Context, End, Exchange, Headers, RequestHead, ResponseHead, SpanContext,
};

use super::{Recording, Tracing};
use crate::{propagation::PASSED_ON, record::Kind, semconv};

/// The part in outgoing requests.
#[derive(Clone, Debug)]
pub(crate) struct Client(pub(crate) Arc<Tracing>);

impl ClientLayer for Client {
    type Exchange = ClientExchange;

    fn on_request(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        headers: &mut Headers<'_>,
    ) -> Option<ClientExchange> {
        self.follow(head, parent, |name, value| match value {
            "" => headers.remove(name),
            value => headers.set(name, value),
        })
    }
}

impl Client {
    /// Begins the span of an attempt and tells `set` the headers of its context, sampled or not.
    fn follow(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        set: impl FnMut(&'static str, &str),
    ) -> Option<ClientExchange> {
        if parent.span().flags & PASSED_ON != 0 {
            self.0.propagators.inject(parent, true, set);
            return None;
        }
        let parent_span = Some(parent.span()).filter(|span| span.is_valid());
        let span = self.0.call(parent.span());
        let context = parent.with_span(span);
        self.0.propagators.inject(&context, parent_span.is_some(), set);
        self.0.records(&span).then(|| ClientExchange::begin(&self.0, head, context, parent_span))
    }
}

/// An outgoing request under way.
#[derive(Debug)]
pub(crate) struct ClientExchange(Recording);

impl ClientExchange {
    fn begin(
        tracing: &Arc<Tracing>,
        head: &RequestHead<'_>,
        context: Context,
        parent: Option<&SpanContext>,
    ) -> Self {
        let name = tracing.known_methods.name_of(head.method());
        let mut recording = Recording::begin(tracing, Kind::Client, context, parent, name);
        recording.set_method(head.method());
        let url = tracing.redaction.url(head.scheme(), head.authority(), head.path(), head.query());
        recording.set(semconv::URL_FULL, url);
        recording.set_server(head);
        recording.set_text(semconv::PEER_SERVICE, head.service());
        Self(recording)
    }
}

impl Exchange for ClientExchange {
    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.0.respond(head);
        self.0.set_connection(head.version(), head.peer());
    }

    fn on_end(&mut self, end: &End) {
        self.0.end(end);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::SocketAddr};

    use opentelemetry::trace::{SpanKind, Status};
    use plugin_api::{Outcome, Peer, Version};

    use super::*;
    use crate::testing::{Bench, attribute, attributes};

    fn parent(flags: u32) -> Context {
        Context::new(SpanContext::new([1; 16], [2; 8], flags)).with_state("a=1", "b=2")
    }

    fn follow(
        bench: &Bench,
        head: &RequestHead<'_>,
        parent: &Context,
    ) -> (Option<ClientExchange>, HashMap<&'static str, String>) {
        let mut headers = HashMap::new();
        let exchange = bench.client().follow(head, parent, |name, value| {
            headers.insert(name, value.to_owned());
        });
        (exchange, headers)
    }

    #[test]
    fn an_attempt_becomes_a_client_span_below_its_exchange() {
        let bench = Bench::new("parentbased_always_off");
        let head = RequestHead::new("GET", "/greeter/you", &[])
            .to("http", "user:pass@there:8080")
            .with_query("a=1&sig=s3cret")
            .with_service("greeter");
        let (exchange, headers) = follow(&bench, &head, &parent(3));
        let mut exchange = exchange.unwrap();
        let peer = Peer::from(SocketAddr::from(([10, 0, 0, 2], 8080)));
        exchange.on_response(&ResponseHead::new(200, &[]).over(Version::HTTP_2, peer));
        exchange.on_end(&End::new(Outcome::COMPLETE, 3, 4));
        drop(exchange);
        let span = bench.only_span();
        assert_eq!(span.name, "GET");
        assert_eq!(span.span_kind, SpanKind::Client);
        assert_eq!(span.parent_span_id.to_bytes(), [2; 8]);
        assert!(!span.parent_span_is_remote);
        assert_eq!(span.span_context.trace_id().to_bytes(), [1; 16]);
        assert_eq!(span.span_context.trace_state().header(), "a=1");
        let id = span.span_context.span_id();
        assert_eq!(headers["traceparent"], format!("00-{}-{id}-03", "01".repeat(16)));
        assert_eq!((&*headers["tracestate"], &*headers["baggage"]), ("a=1", "b=2"));
        assert_eq!(
            attributes(&span),
            [
                "http.request.method=GET",
                "url.full=http://REDACTED:REDACTED@there:8080/greeter/you?a=1&sig=REDACTED",
                "server.address=there",
                "server.port=8080",
                "peer.service=greeter",
                "http.response.status_code=200",
                "network.protocol.version=2",
                "network.peer.address=10.0.0.2",
                "network.peer.port=8080",
                "http.request.body.size=3",
                "http.response.body.size=4",
                "exchange.end_reason=complete",
            ]
        );
    }

    #[test]
    fn an_unsampled_attempt_still_carries_the_trace() {
        let bench = Bench::new("parentbased_always_on");
        let (exchange, headers) = follow(&bench, &RequestHead::new("GET", "/", &[]), &parent(2));
        assert!(exchange.is_none());
        let traceparent = &headers["traceparent"];
        assert!(traceparent.starts_with(&format!("00-{}-", "01".repeat(16))), "{traceparent}");
        assert!(traceparent.ends_with("-02") && !traceparent.contains(&"02".repeat(8)));
        assert!(bench.spans().is_empty());
    }

    #[test]
    fn a_call_of_no_exchange_starts_a_trace() {
        let bench = Bench::new("parentbased_always_on");
        let head = RequestHead::new("GET", "/", &[]);
        let (exchange, headers) = follow(&bench, &head, &Context::default());
        drop(exchange);
        let span = bench.only_span();
        assert_eq!(span.parent_span_id.to_bytes(), [0; 8]);
        assert!(headers["traceparent"].contains(&span.span_context.trace_id().to_string()));
        assert!(!headers.contains_key("baggage"), "a baggage of the request's own stays");
    }

    #[test]
    fn a_bad_answer_is_an_error_of_the_client() {
        for (status, error_type) in [(399, ""), (400, "400"), (404, "404"), (503, "503")] {
            let bench = Bench::new("always_on");
            let head = RequestHead::new("GET", "/", &[]);
            let (exchange, _) = follow(&bench, &head, &Context::default());
            let mut exchange = exchange.unwrap();
            exchange.on_response(&ResponseHead::new(status, &[]));
            exchange.on_end(&End::new(Outcome::COMPLETE, 0, 0));
            let span = bench.only_span();
            let wanted = if error_type.is_empty() { Status::Unset } else { Status::error("") };
            assert_eq!(span.status, wanted, "{status}");
            assert_eq!(attribute(&span, "error.type"), error_type, "{status}");
        }
    }
}
