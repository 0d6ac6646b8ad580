//! SERVER spans: one for every incoming request that is sampled.

use std::sync::Arc;

use plugin_api::{
    Accepted, Context, End, Exchange, Header, Headers, RequestHead, ResponseHead, ServerLayer,
    SpanContext,
};

use super::{Recording, Tracing};
use crate::{policy::Decision, record::Kind, semconv};

/// The part in incoming requests.
#[derive(Clone, Debug)]
pub(crate) struct Server(pub(crate) Arc<Tracing>);

impl ServerLayer for Server {
    type Exchange = ServerExchange;

    fn on_request(&self, head: &RequestHead<'_>) -> Accepted<ServerExchange> {
        let tracing = &self.0;
        let (incoming, link) = match tracing.policy.decide(head, &tracing.propagators) {
            Decision::Follow { incoming, link } => (incoming, link),
            Decision::PassOn(context) => return Accepted { context, exchange: None },
        };
        let parent = incoming.parent();
        let span = tracing.accept(incoming.caller(), || tracing.policy.rules.ratio(head));
        let context = incoming.context(span);
        let exchange = tracing
            .records(&span)
            .then(|| ServerExchange::begin(tracing, head, &context, parent, link));
        Accepted { context, exchange }
    }

    fn on_response(&self, context: &Context, headers: &mut Headers<'_>) {
        self.0.response_header.put(context, headers);
    }
}

/// An incoming request under way.
#[derive(Debug)]
pub(crate) struct ServerExchange {
    recording: Recording,
    method: &'static str,
}

impl ServerExchange {
    fn begin(
        tracing: &Arc<Tracing>,
        head: &RequestHead<'_>,
        context: &Context,
        parent: Option<&SpanContext>,
        _link: Option<Context>,
    ) -> Self {
        let method = tracing.known_methods.name_of(head.method());
        let mut recording =
            Recording::begin(tracing, Kind::Server, context.clone(), parent, method);
        recording.set_method(head.method());
        recording.set_text(semconv::URL_SCHEME, head.scheme());
        recording.set_text(semconv::URL_PATH, &tracing.redaction.path(head.path()));
        recording.set_text(semconv::URL_QUERY, &tracing.redaction.query(head.query()));
        recording.set_server(head);
        recording.set_connection(head.version(), head.peer());
        if let Some(peer) = head.peer().address() {
            recording.set(semconv::CLIENT_ADDRESS, peer.ip().to_string());
        }
        if let Some(agent) = user_agent(head.headers()) {
            recording.set_text(semconv::USER_AGENT_ORIGINAL, &agent);
        }
        Self { recording, method }
    }
}

fn user_agent<'a>(headers: &'a [Header<'a>]) -> Option<std::borrow::Cow<'a, str>> {
    let header = headers.iter().find(|header| header.name() == "user-agent")?;
    Some(String::from_utf8_lossy(header.value()))
}

impl Exchange for ServerExchange {
    fn on_route(&mut self, route: &str) {
        self.recording.rename(format!("{} {route}", self.method));
        self.recording.set_text(semconv::HTTP_ROUTE, route);
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.recording.respond(head);
    }

    fn on_end(&mut self, end: &End) {
        self.recording.end(end);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanKind, Status};
    use plugin_api::{Outcome, Peer, Version};

    use super::*;
    use crate::testing::{Bench, attribute, attributes};

    const TRACEPARENT: Header<'static> =
        Header::new("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03");
    const UNSAMPLED: Header<'static> =
        Header::new("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02");

    #[test]
    fn a_request_becomes_a_server_span_below_its_caller() {
        let bench = Bench::new("parentbased_always_on");
        let began = std::time::Instant::now();
        let headers = [TRACEPARENT, Header::new("user-agent", b"curl/8")];
        let head = RequestHead::new("GET", "/hello/you", &headers)
            .to("http", "here:8080")
            .with_query("a=1&sig=s3cret")
            .over(Version::HTTP_11, Peer::from(std::net::SocketAddr::from(([10, 0, 0, 1], 4711))));
        let Accepted { context, exchange } = bench.server().on_request(&head);
        let mut exchange = exchange.unwrap();
        exchange.on_route("/hello/{name}");
        exchange.on_response(&ResponseHead::new(200, &[]));
        exchange.on_end(&End::new(Outcome::COMPLETE, 0, 12));
        drop(exchange);
        let span = bench.only_span();
        assert_eq!(span.name, "GET /hello/{name}");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(span.parent_span_is_remote);
        assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.span_context.span_id().to_bytes(), context.span().span_id);
        assert_eq!(span.span_context.trace_flags().to_u8(), 3);
        let lasted = span.end_time.duration_since(span.start_time).unwrap();
        assert!(!lasted.is_zero() && lasted <= began.elapsed(), "{lasted:?}");
        assert_eq!(
            attributes(&span),
            [
                "http.request.method=GET",
                "url.scheme=http",
                "url.path=/hello/you",
                "url.query=a=1&sig=REDACTED",
                "server.address=here",
                "server.port=8080",
                "network.protocol.version=1.1",
                "network.peer.address=10.0.0.1",
                "network.peer.port=4711",
                "client.address=10.0.0.1",
                "user_agent.original=curl/8",
                "http.route=/hello/{name}",
                "http.response.status_code=200",
                "http.response.body.size=12",
                "exchange.end_reason=complete",
            ]
        );
    }

    #[test]
    fn a_request_without_a_caller_starts_a_random_trace() {
        let bench = Bench::new("parentbased_always_on");
        let accepted = bench.server().on_request(&RequestHead::new("BREW", "/", &[]));
        assert_eq!(accepted.context.span().flags, 3);
        drop(accepted);
        let span = bench.only_span();
        assert_eq!(span.name, "HTTP");
        assert!(!span.parent_span_is_remote);
        assert_eq!(span.parent_span_id.to_bytes(), [0; 8]);
        assert_eq!(attribute(&span, "http.request.method"), "_OTHER");
        assert_eq!(attribute(&span, "http.request.method_original"), "BREW");
    }

    #[test]
    fn an_unsampled_request_is_not_recorded_and_its_context_goes_on() {
        let bench = Bench::new("parentbased_always_on");
        let headers =
            [UNSAMPLED, Header::new("tracestate", b"a=1"), Header::new("baggage", b"b=2")];
        let Accepted { context, exchange } =
            bench.server().on_request(&RequestHead::new("GET", "/", &headers));
        assert!(exchange.is_none());
        assert_eq!(context.span().flags, SpanContext::RANDOM);
        assert_eq!(context.span().trace_id[..2], [0x0a, 0xf7]);
        assert_ne!(context.span().span_id[..2], [0xb7, 0xad], "the host's own span");
        assert_eq!((context.tracestate(), context.baggage()), ("a=1", "b=2"));
        assert!(bench.spans().is_empty());
        let counts = bench.counts();
        assert_eq!((counts.started, counts.sampled), (1, 0));
    }

    #[test]
    fn a_dropped_exchange_is_a_client_that_went_away_and_is_told_once() {
        let bench = Bench::new("always_on");
        let accepted = bench.server().on_request(&RequestHead::new("GET", "/", &[]));
        drop(accepted.exchange);
        let span = bench.only_span();
        assert_eq!(attribute(&span, "exchange.end_reason"), "client gone");
        assert_eq!(attribute(&span, "error.type"), "");
        assert_eq!(span.status, Status::Unset);
        assert!(span.end_time >= span.start_time);
    }

    #[test]
    fn status_and_outcome_decide_what_is_an_error() {
        for (outcome, status, error_type, reason) in [
            (Outcome::COMPLETE, 200, "", "complete"),
            (Outcome::COMPLETE, 404, "", "complete"),
            (Outcome::COMPLETE, 500, "500", "complete"),
            (Outcome::CLIENT_GONE, 200, "", "client gone"),
            (Outcome::CLIENT_GONE, 502, "502", "client gone"),
            (Outcome::UPSTREAM_GONE, 200, "upstream_gone", "upstream gone"),
            (Outcome::TIMEOUT, 504, "timeout", "timeout"),
            (Outcome::SHED, 503, "shed", "shed"),
            (Outcome::PANIC, 500, "panic", "panic"),
            (Outcome::CONNECT_FAILED, 502, "connect_failed", "connect failed"),
        ] {
            let bench = Bench::new("always_on");
            let accepted = bench.server().on_request(&RequestHead::new("GET", "/", &[]));
            let mut exchange = accepted.exchange.unwrap();
            exchange.on_response(&ResponseHead::new(status, &[]));
            exchange.on_end(&End::new(outcome, 0, 0));
            let span = bench.only_span();
            let wanted = if error_type.is_empty() { Status::Unset } else { Status::error("") };
            assert_eq!(span.status, wanted, "{reason} {status}");
            assert_eq!(attribute(&span, "error.type"), error_type, "{reason} {status}");
            assert_eq!(attribute(&span, "exchange.end_reason"), reason);
        }
    }
}
