//! SERVER spans: one for every incoming request that is sampled.

use std::sync::Arc;

use plugin_api::{
    Accepted, Context, End, Exchange, Header, Headers, Outcome, RequestHead, ResponseHead,
    ServerLayer, SpanContext,
};

use super::{Follow, Tracing, recording::Recording};
use crate::{
    forwarded,
    policy::Decision,
    record::{Kind, Record},
    response_header::ResponseHeader,
    semconv,
    short::Short,
};

/// The part in incoming requests.
#[derive(Clone, Debug)]
pub(crate) struct Server(pub(crate) Arc<Tracing>);

impl ServerLayer for Server {
    type Exchange = ServerExchange;

    fn on_request(&self, head: &RequestHead<'_>) -> Accepted<ServerExchange> {
        let tracing = &self.0;
        let selection = tracing.live.load();
        let (incoming, link) = match selection.policy.decide(head, &tracing.propagators) {
            Decision::Follow { incoming, link } => (incoming, link),
            Decision::PassOn(context) => return Accepted { context, exchange: None },
        };
        let parent = incoming.parent();
        let span = tracing.accept(&selection, incoming.caller(), head);
        let context = incoming.context(span);
        let follow = tracing.follow(&span, |tail| tail.open(span.span_id));
        let exchange = follow.map(|follow| {
            let mut exchange = ServerExchange::begin(tracing, head, &context, parent, follow);
            if let Some(link) = link {
                exchange.recording.link(&link, true);
            }
            exchange
        });
        Accepted { context, exchange }
    }

    fn on_response(&self, context: &Context, headers: &mut Headers<'_>) {
        self.0.response_header.put(context, headers);
    }

    fn tells_clients(&self) -> bool {
        self.0.response_header != ResponseHeader::Off
    }
}

/// An incoming request under way, or what its connection is used for afterwards.
#[derive(Debug)]
pub(crate) struct ServerExchange {
    recording: Recording,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Request {
        method: &'static str,
        /// What the connection is used for next, where the response says so.
        upgrade: &'static str,
    },
    Tunnel,
}

impl ServerExchange {
    fn begin(
        tracing: &Arc<Tracing>,
        head: &RequestHead<'_>,
        context: &Context,
        parent: Option<&SpanContext>,
        follow: Follow,
    ) -> Self {
        let known = tracing.known_methods.known(head.method());
        let method = tracing.known_methods.name_of(head.method());
        let now = tracing.clock.told(head.monotonic());
        let mut record = Record::begin(Kind::Server, context, parent, method, now);
        let origin =
            forwarded::origin(head.headers(), head.peer().address(), &tracing.trusted_proxies);
        let scheme = origin.scheme.unwrap_or(head.scheme());
        record.method(known, head.method());
        record.text_if_any(semconv::URL_SCHEME, scheme);
        record.text_if_any(semconv::URL_PATH, &tracing.redaction.path(head.path()));
        record.text_if_any(semconv::URL_QUERY, &tracing.redaction.query(head.query()));
        record.server(origin.host.as_deref().unwrap_or(head.authority()), scheme);
        record.connection(head.version(), head.peer());
        if let Some(client) = origin.client {
            record.shown(semconv::CLIENT_ADDRESS, &Short::of_address(client));
        }
        if let Some(agent) = user_agent(head.headers()) {
            record.text_if_any(semconv::USER_AGENT_ORIGINAL, &agent);
        }
        tracing.request_headers.record(tracing, head.headers(), &mut record);
        let recording = Recording::begin(tracing, context, record, follow);
        Self { recording, role: Role::Request { method, upgrade: "connect" } }
    }
}

fn user_agent<'a>(headers: &'a [Header<'a>]) -> Option<std::borrow::Cow<'a, str>> {
    let header = headers.iter().find(|header| header.name() == "user-agent")?;
    Some(String::from_utf8_lossy(header.value()))
}

/// The protocol that a 101 changes to: a closed set, since it becomes part of a span's name.
fn upgrade(head: &ResponseHead<'_>) -> Option<&'static str> {
    let header = head.headers().iter().find(|header| header.name() == "upgrade")?;
    ["websocket", "h2c"]
        .into_iter()
        .find(|known| header.value().eq_ignore_ascii_case(known.as_bytes()))
}

impl Exchange for ServerExchange {
    fn on_route(&mut self, route: &str) {
        if let Role::Request { method, .. } = self.role {
            let name = self.recording.tracing.cardinality.span_name(method, route);
            self.recording.rename(&[name.as_str()]);
            self.recording.set_text(semconv::HTTP_ROUTE, name.route());
        }
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.recording.respond(head);
        if let (101, Role::Request { upgrade, .. }) = (head.status(), &mut self.role) {
            *upgrade = self::upgrade(head).unwrap_or("other");
        }
    }

    fn on_trailers(&mut self, trailers: &[Header<'_>]) {
        self.recording.trailers(trailers);
    }

    fn on_end(&mut self, end: &End) {
        match self.role {
            Role::Request { .. } => self.recording.end(end),
            Role::Tunnel => {
                self.recording.set_number(semconv::TUNNEL_BYTES_FROM_CLIENT, end.request_bytes);
                self.recording.set_number(semconv::TUNNEL_BYTES_TO_CLIENT, end.response_bytes);
                self.recording.finish(end.outcome, end.monotonic());
            }
        }
    }

    fn on_upgrade(&mut self) -> Option<Self> {
        let Role::Request { upgrade, .. } = self.role else { return None };
        let tunnel = self.recording.follow(&[upgrade, " tunnel"]);
        self.recording.finish(Outcome::COMPLETE, None);
        Some(Self { recording: tunnel, role: Role::Tunnel })
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
    use plugin_api::{
        Level, Outcome, Peer, Version,
        telemetry::{Callsite, SpanHead},
    };

    use super::*;
    use crate::{
        config::Keep,
        testing::{Bench, attribute, attributes, config, hex, status_of},
    };

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
        assert_eq!(span.kind(), SpanKind::Server);
        assert_eq!(status_of(&span), StatusCode::Unset);
        assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
        assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.span_id, context.span().span_id);
        assert_eq!(span.flags, 0x303, "a remote parent, known to be one");
        let lasted = u128::from(span.end_time_unix_nano - span.start_time_unix_nano);
        assert!(lasted > 0 && lasted <= began.elapsed().as_nanos(), "{lasted}");
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
                "exchange.time_to_first_byte=a fraction",
                "http.response.body.size=12",
                "exchange.end_reason=complete",
            ]
        );
    }

    #[test]
    fn a_path_is_recorded_without_the_secrets_in_it() {
        let bench = Bench::new("always_on");
        let head = RequestHead::new("GET", "/proxy/http://user:s3cret@there/x", &[]);
        drop(bench.server().on_request(&head).exchange);
        let path = "/proxy/http://REDACTED:REDACTED@there/x";
        assert_eq!(attribute(&bench.only_span(), "url.path"), path);
    }

    #[test]
    fn a_request_without_a_caller_starts_a_random_trace() {
        let bench = Bench::new("parentbased_always_on");
        let accepted = bench.server().on_request(&RequestHead::new("BREW", "/", &[]));
        assert_eq!(accepted.context.span().flags, 3);
        drop(accepted);
        let span = bench.only_span();
        assert_eq!(span.name, "HTTP");
        assert_eq!(span.flags, 0x103, "no remote parent");
        assert!(span.parent_span_id.is_empty());
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
    fn what_is_not_sampled_allocates_nothing() {
        let bench = Bench::new("parentbased_always_off");
        let server = bench.server();
        let client = bench.client();
        let others = [Header::new("host", b"here"), Header::new("user-agent", b"curl/8")];
        for headers in [&others[..], &[others[0], others[1], UNSAMPLED]] {
            let head = RequestHead::new("GET", "/a", headers).with_query("b=1");
            // The first of a thread seeds its random numbers.
            drop(server.on_request(&head));
            let count = allocation_counter::measure(|| {
                let accepted = server.on_request(&head);
                assert!(accepted.exchange.is_none() && accepted.context.span().is_valid());
                assert!(client.follow(&head, &accepted.context, |_, _| ()).is_none());
            });
            assert_eq!(count.count_total, 0, "{headers:?}");
        }
    }

    #[test]
    fn a_dropped_exchange_is_a_client_that_went_away_and_is_told_once() {
        let bench = Bench::new("always_on");
        let accepted = bench.server().on_request(&RequestHead::new("GET", "/", &[]));
        drop(accepted.exchange);
        let span = bench.only_span();
        assert_eq!(attribute(&span, "exchange.end_reason"), "client gone");
        assert_eq!(attribute(&span, "error.type"), "");
        assert_eq!(status_of(&span), StatusCode::Unset);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
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
            (Outcome::STOPPED, 200, "stopped", "stopped"),
        ] {
            let bench = Bench::new("always_on");
            let accepted = bench.server().on_request(&RequestHead::new("GET", "/", &[]));
            let mut exchange = accepted.exchange.unwrap();
            exchange.on_response(&ResponseHead::new(status, &[]));
            exchange.on_end(&End::new(outcome, 0, 0));
            let span = bench.only_span();
            let wanted = if error_type.is_empty() { StatusCode::Unset } else { StatusCode::Error };
            assert_eq!(status_of(&span), wanted, "{reason} {status}");
            assert_eq!(attribute(&span, "error.type"), error_type, "{reason} {status}");
            assert_eq!(attribute(&span, "exchange.end_reason"), reason);
        }
    }

    #[test]
    fn an_upgrade_ends_the_request_and_begins_a_tunnel_that_is_linked_to_it() {
        for (status, headers, name) in [
            (101, &[Header::new("upgrade", b"WebSocket")][..], "websocket tunnel"),
            (101, &[Header::new("upgrade", b"made-up")], "other tunnel"),
            (200, &[], "connect tunnel"),
        ] {
            let bench = Bench::new("always_on");
            let head = RequestHead::new("GET", "/", &[]);
            let mut exchange = bench.server().on_request(&head).exchange.unwrap();
            exchange.on_response(&ResponseHead::new(status, headers));
            let mut tunnel = exchange.on_upgrade().unwrap();
            assert_eq!(bench.live(), 1, "the request is over");
            drop(exchange);
            tunnel.on_end(&End::new(Outcome::CLIENT_GONE, 5, 7));
            drop(tunnel);
            let [request, tunnel] = &bench.spans()[..] else { panic!("two spans") };
            assert_eq!(attribute(request, "exchange.end_reason"), "complete");
            assert_eq!((&*tunnel.name, tunnel.kind()), (name, SpanKind::Internal));
            assert_eq!(tunnel.parent_span_id, request.span_id);
            assert_eq!(tunnel.links[0].span_id, request.span_id);
            assert_eq!(
                attributes(tunnel),
                [
                    "tunnel.bytes_from_client=5",
                    "tunnel.bytes_to_client=7",
                    "exchange.end_reason=client gone",
                ]
            );
            assert_eq!(bench.live(), 0);
        }
    }

    #[test]
    fn trailers_are_seen_and_a_failed_grpc_call_is_an_error() {
        for (grpc_status, error_type) in [(&b"0"[..], ""), (b"5", ""), (b"14", "UNAVAILABLE")] {
            let bench = Bench::new("always_on");
            let head = RequestHead::new("POST", "/", &[]);
            let mut exchange = bench.server().on_request(&head).exchange.unwrap();
            exchange.on_response(&ResponseHead::new(200, &[]));
            exchange.on_trailers(&[Header::new("grpc-status", grpc_status)]);
            exchange.on_end(&End::new(Outcome::COMPLETE, 0, 0));
            let span = bench.only_span();
            assert_eq!(attribute(&span, "exchange.trailers"), "1");
            assert_eq!(
                attribute(&span, "rpc.grpc.status_code").as_bytes(),
                grpc_status,
                "{error_type}"
            );
            assert_eq!(attribute(&span, "error.type"), error_type);
            assert_eq!(status_of(&span) == StatusCode::Error, !error_type.is_empty());
        }
    }

    #[test]
    fn however_much_a_caller_sends_its_span_says_how_it_ended() {
        for length in (30_000..33_000).step_by(100).chain([100_000]) {
            let bench = Bench::new("always_on");
            let query = "x".repeat(length);
            let head = RequestHead::new("GET", "/", &[]).to("http", "here").with_query(&query);
            let mut exchange = bench.server().on_request(&head).exchange.unwrap();
            exchange.on_route("/{x}");
            exchange.on_response(&ResponseHead::new(503, &[]));
            exchange.on_end(&End::new(Outcome::COMPLETE, 7, 7));
            let span = bench.only_span();
            for (key, wanted) in [
                ("server.port", "80"),
                ("http.route", "/{x}"),
                ("http.response.status_code", "503"),
                ("exchange.end_reason", "complete"),
                ("error.type", "503"),
            ] {
                assert_eq!(attribute(&span, key), wanted, "{key} behind {length} bytes");
            }
        }
    }

    #[test]
    fn a_request_that_nobody_samples_is_kept_when_it_fails() {
        for (status, names) in [(200, &[][..]), (500, &["GET", "work", "GET"])] {
            let mut config = config("always_off");
            config.keep =
                Keep { errors: true, slower_than: None, max_spans: 10, max_bytes: 1 << 20 };
            let bench = Bench::of(&config);
            let head = RequestHead::new("GET", "/", &[]);
            let Accepted { context, exchange } = bench.server().on_request(&head);
            let mut exchange = exchange.unwrap();
            assert!(!context.span().is_sampled(), "others are told the truth");
            let callsite = Callsite::new(Level::INFO, "tests", "work");
            let inner = bench.local(
                &SpanHead::new(&callsite, plugin_api::telemetry::Fields::default()),
                &context,
            );
            let attempt = bench.client_exchange(&head, &inner.context).unwrap();
            assert_eq!(bench.live(), 3);
            drop(attempt);
            assert_eq!(bench.live(), 2, "what waits is over");
            drop(inner);
            exchange.on_response(&ResponseHead::new(status, &[]));
            exchange.on_end(&End::new(Outcome::COMPLETE, 0, 0));
            let spans = bench.spans();
            let found: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
            assert_eq!(found, names, "{status}");
            if let [attempt, inner, request] = &spans[..] {
                assert_eq!(attempt.parent_span_id, inner.span_id);
                assert_eq!(inner.parent_span_id, request.span_id);
            }
            let counts = bench.counts();
            assert_eq!((counts.live, counts.started, counts.sampled), (0, 3, names.len() as u64));
        }
    }
}
