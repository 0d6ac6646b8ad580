//! CLIENT spans: one for every attempt of an outgoing request that is sampled.

use std::sync::Arc;

use plugin_api::{
    ClientLayer, Context, End, Exchange, Header, Headers, RequestHead, ResponseHead, SpanContext,
};

use super::{Follow, Tracing, recording::Recording};
use crate::{
    propagation::PASSED_ON,
    record::{Kind, Record},
    semconv,
};

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
            // Most requests have nothing that would have to go.
            "" if head.headers().iter().all(|header| header.name() != name) => {}
            "" => headers.remove(name),
            value => headers.set(name, value),
        })
    }
}

impl Client {
    /// Begins the span of an attempt and tells `set` the headers of its context, sampled or not.
    pub(crate) fn follow(
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
        let follow = self.0.follow(&span, |tail| tail.below(parent.span().span_id));
        follow.map(|follow| ClientExchange::begin(&self.0, head, &context, parent_span, follow))
    }
}

/// An attempt under way, or the whole call that it is the first of.
#[derive(Debug)]
pub(crate) struct ClientExchange {
    recording: Recording,
    role: Role,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    Attempt,
    Call,
}

impl ClientExchange {
    fn begin(
        tracing: &Arc<Tracing>,
        head: &RequestHead<'_>,
        context: &Context,
        parent: Option<&SpanContext>,
        follow: Follow,
    ) -> Self {
        let known = tracing.known_methods.known(head.method());
        let name = tracing.known_methods.name_of(head.method());
        let now = tracing.clock.told(head.monotonic());
        let mut record = Record::begin(Kind::Client, context, parent, name, now);
        record.method(known, head.method());
        let url = tracing.redaction.url(head.scheme(), head.authority(), head.path(), head.query());
        record.concat(semconv::URL_FULL, &url.each_ref().map(|part| &**part));
        record.server(head.authority(), head.scheme());
        record.text_if_any(semconv::PEER_SERVICE, head.service());
        if head.resend_count() > 0 {
            record.number(semconv::HTTP_REQUEST_RESEND_COUNT, head.resend_count().into());
        }
        tracing.request_headers.record(tracing, head.headers(), &mut record);
        let recording = Recording::begin(tracing, context, record, follow);
        Self { recording, role: Role::Attempt }
    }

    fn set_pooled(&mut self, is_pooled: Option<bool>) {
        if let Some(is_pooled) = is_pooled {
            self.recording.set_flag(semconv::EXCHANGE_POOLED_CONNECTION, is_pooled);
        }
    }
}

impl Exchange for ClientExchange {
    fn on_response(&mut self, head: &ResponseHead<'_>) {
        match self.role {
            Role::Attempt => {
                self.recording.respond(head);
                self.recording.set_connection(head.version(), head.peer());
                self.set_pooled(head.is_pooled());
            }
            Role::Call => self.recording.judge(head),
        }
    }

    fn on_trailers(&mut self, trailers: &[Header<'_>]) {
        match self.role {
            Role::Attempt => self.recording.trailers(trailers),
            Role::Call => {}
        }
    }

    fn on_end(&mut self, end: &End) {
        match self.role {
            Role::Attempt => {
                self.recording.set_peer(end.peer());
                self.set_pooled(end.is_pooled());
                self.recording.end(end);
            }
            Role::Call => self.recording.finish(end.outcome, end.monotonic()),
        }
    }

    fn context(&self) -> Context {
        self.recording.context.clone()
    }

    fn on_retry(&mut self, end: &End) -> Option<Self> {
        let call = match self.role {
            Role::Attempt => self.recording.insert_parent("call"),
            Role::Call => None,
        };
        self.on_end(end);
        call.map(|recording| Self { recording, role: Role::Call })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, net::SocketAddr};

    use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
    use plugin_api::{Outcome, Peer, Version};

    use super::*;
    use crate::testing::{Bench, attribute, attributes, hex, status_of};

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
        assert_eq!(span.kind(), SpanKind::Client);
        assert_eq!(span.parent_span_id, [2; 8]);
        assert_eq!(span.flags, 0x103, "a parent, and not a remote one");
        assert_eq!(span.trace_id, [1; 16]);
        assert_eq!(span.trace_state, "a=1");
        let id = hex(&span.span_id);
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
                "exchange.time_to_first_byte=a fraction",
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
    fn a_span_that_a_panic_kept_from_beginning_is_not_under_way() {
        let bench = Bench::new("parentbased_always_on");
        let head = RequestHead::new("GET", "/", &[]);
        let begin = || bench.client().follow(&head, &parent(1), |_, _| panic!("halfway"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(begin)).is_err());
        assert_eq!((bench.live(), bench.counts().started), (0, 0));
    }

    #[test]
    fn a_call_of_no_exchange_starts_a_trace() {
        let bench = Bench::new("parentbased_always_on");
        let head = RequestHead::new("GET", "/", &[]);
        let (exchange, headers) = follow(&bench, &head, &Context::default());
        drop(exchange);
        let span = bench.only_span();
        assert!(span.parent_span_id.is_empty());
        assert!(headers["traceparent"].contains(&hex(&span.trace_id)));
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
            let wanted = if error_type.is_empty() { StatusCode::Unset } else { StatusCode::Error };
            assert_eq!(status_of(&span), wanted, "{status}");
            assert_eq!(attribute(&span, "error.type"), error_type, "{status}");
        }
    }

    #[test]
    fn a_call_of_several_attempts_is_a_span_above_them() {
        let bench = Bench::new("parentbased_always_on");
        let head = RequestHead::new("GET", "/", &[]).with_service("greeter");
        let (exchange, _) = follow(&bench, &head, &parent(1));
        let mut first = exchange.unwrap();
        let mut call = first.on_retry(&End::new(Outcome::CONNECT_FAILED, 0, 0)).unwrap();
        drop(first);
        let (exchange, headers) = follow(&bench, &head.resent(1), &call.context());
        assert_eq!((&*headers["tracestate"], &*headers["baggage"]), ("a=1", "b=2"));
        let mut second = exchange.unwrap();
        for exchange in [&mut second, &mut call] {
            exchange.on_response(&ResponseHead::new(200, &[]));
            exchange.on_end(&End::new(Outcome::COMPLETE, 0, 3));
        }
        let [first, second, call] = &bench.spans()[..] else { panic!("three spans") };
        assert_eq!((&*call.name, call.kind()), ("call", SpanKind::Internal));
        assert_eq!(hex(&call.parent_span_id), "02".repeat(8));
        assert_eq!(call.start_time_unix_nano, first.start_time_unix_nano);
        assert_eq!(status_of(call), StatusCode::Unset, "the last attempt went well");
        for (attempt, resend_count, error) in [(first, "", "connect_failed"), (second, "1", "")] {
            assert_eq!(attempt.parent_span_id, call.span_id);
            assert_eq!(attempt.trace_id, call.trace_id);
            assert_eq!(attribute(attempt, "http.request.resend_count"), resend_count);
            assert_eq!(attribute(attempt, "error.type"), error);
        }
        assert_eq!(bench.live(), 0);
    }

    #[test]
    fn a_call_that_fails_to_the_last_is_an_error() {
        let bench = Bench::new("always_on");
        let head = RequestHead::new("GET", "/", &[]);
        let mut first = follow(&bench, &head, &Context::default()).0.unwrap();
        let mut call = first.on_retry(&End::new(Outcome::CONNECT_FAILED, 0, 0)).unwrap();
        assert!(call.on_retry(&End::new(Outcome::UPSTREAM_GONE, 0, 0)).is_none());
        let span = &bench.spans()[1];
        assert_eq!(span.name, "call");
        assert_eq!(attribute(span, "error.type"), "upstream_gone");
        assert!(span.parent_span_id.is_empty());
    }

    #[test]
    fn an_attempt_that_had_a_connection_and_no_answer_says_where_it_went() {
        let end = End::new(Outcome::UPSTREAM_GONE, 0, 0);
        let at = |address: &str| Peer::from(address.parse::<SocketAddr>().unwrap());
        for (end, wanted) in [
            (end, ["", "", ""]),
            (end.over(at("10.0.0.2:8080")).over_pooled(true), ["10.0.0.2", "8080", "true"]),
            (end.over(at("[2001:db8::1]:80")).over_pooled(false), ["2001:db8::1", "80", "false"]),
        ] {
            let bench = Bench::new("always_on");
            let request = RequestHead::new("GET", "/", &[]);
            let mut exchange = follow(&bench, &request, &Context::default()).0.unwrap();
            exchange.on_end(&end);
            let span = bench.only_span();
            let keys = ["network.peer.address", "network.peer.port", "exchange.pooled_connection"];
            assert_eq!(keys.map(|key| attribute(&span, key)), wanted);
        }
    }

    #[test]
    fn a_pooled_connection_is_told() {
        for (head, wanted) in [
            (ResponseHead::new(200, &[]), ""),
            (ResponseHead::new(200, &[]).over_pooled(false), "false"),
            (ResponseHead::new(200, &[]).over_pooled(true), "true"),
        ] {
            let bench = Bench::new("always_on");
            let request = RequestHead::new("GET", "/", &[]);
            let mut exchange = follow(&bench, &request, &Context::default()).0.unwrap();
            exchange.on_response(&head);
            drop(exchange);
            assert_eq!(attribute(&bench.only_span(), "exchange.pooled_connection"), wanted);
        }
    }
}
