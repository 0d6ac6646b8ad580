//! One request is one trace, from the caller to the upstream, and it stands in the collector.

use harness::{
    Client, Collector, Config, HostProcess, Launch, Protocol, Rotel, Skipped, Span, SpanKind,
    Traceparent, Upstream, text,
};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

trials![
    a_trace_is_continued_and_arrives_over_grpc,
    a_trace_is_continued_and_arrives_over_http_protobuf,
    a_trace_is_continued_and_arrives_over_http_json,
    a_trace_arrives_through_rotel_over_grpc,
    a_trace_arrives_through_rotel_over_http,
    compressed_exports_arrive,
    a_request_without_a_trace_starts_one,
    an_unsampled_trace_is_recorded_nowhere_and_propagated,
    trace_state_and_baggage_reach_the_upstream,
    spans_carry_what_the_conventions_require,
    an_http2_request_is_traced_alike,
    a_request_without_a_route_has_a_span_without_one,
    a_failing_upstream_makes_failed_spans,
    a_timeout_is_traced_as_the_response_that_it_becomes,
    three_hops_through_one_host_are_one_trace,
    the_standard_variables_stand_in_for_absent_keys,
    a_disabled_sdk_gives_no_layers,
    the_console_exporter_prints_spans,
    a_call_says_whether_its_connection_had_carried_another,
    a_call_lies_within_its_request_with_a_body_and_without,
];

/// A host that forwards `/hello/{name}`, traced to `endpoint`.
async fn front(upstream: &Upstream, endpoint: &str, protocol: &str) -> HostProcess {
    HostProcess::start(forwarding(upstream).traced(endpoint, protocol)).await
}

fn forwarding(upstream: &Upstream) -> Config {
    Config::new().group("upstream", upstream.url()).forward("/hello/{name}", "upstream")
}

/// The only span of its kind.
fn only(spans: &[Span], kind: SpanKind) -> &Span {
    let of_kind: Vec<_> = spans.iter().filter(|span| span.kind == kind).collect();
    let [span] = of_kind[..] else { panic!("not one {kind:?} span: {spans:#?}") };
    span
}

/// Sends one sampled request and follows its trace to `collector`.
async fn assert_one_trace(collector: &Collector, endpoint: &str, protocol: &str) {
    let upstream = Upstream::ready().await;
    let host = front(&upstream, endpoint, protocol).await;
    let caller = Traceparent::sampled();
    let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
    assert_eq!((answer.status, answer.text()), (200, "from upstream\n"));

    let spans = collector.trace(&caller.trace_id, 2).await;
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let (server, client) = (only(&spans, SpanKind::Server), only(&spans, SpanKind::Client));
    assert_eq!(server.parent_span_id, caller.span_id);
    assert!(server.has_remote_parent(), "{server:#?}");
    assert_eq!(client.parent_span_id, server.span_id);
    assert!(!client.has_remote_parent(), "{client:#?}");
    assert!(server.start <= client.start && client.end <= server.end, "{spans:#?}");

    let sent = upstream.received()[0].traceparent();
    assert_eq!((&sent.trace_id, &sent.span_id), (&caller.trace_id, &client.span_id));
    assert!(sent.is_sampled());
}

async fn a_trace_is_continued_and_arrives_over_grpc() {
    let collector = Collector::start().await;
    assert_one_trace(&collector, &collector.grpc_endpoint(), "grpc").await;
    assert_came_by(&collector, Protocol::Grpc, false);
    let metadata = &collector.exports()[0].headers;
    assert_eq!(metadata["content-type"], "application/grpc", "{metadata:?}");
}

async fn a_trace_is_continued_and_arrives_over_http_protobuf() {
    let collector = Collector::start().await;
    assert_one_trace(&collector, &collector.http_endpoint(), "http/protobuf").await;
    assert_came_by(&collector, Protocol::HttpProtobuf, false);
}

async fn a_trace_is_continued_and_arrives_over_http_json() {
    let collector = Collector::start().await;
    assert_one_trace(&collector, &collector.http_endpoint(), "http/json").await;
    assert_came_by(&collector, Protocol::HttpJson, false);
}

async fn a_trace_arrives_through_rotel_over_grpc() -> Result<(), Skipped> {
    let collector = Collector::start().await;
    let rotel = Rotel::before(&collector).await?;
    assert_one_trace(&collector, &rotel.grpc_endpoint(), "grpc").await;
    Ok(())
}

async fn a_trace_arrives_through_rotel_over_http() -> Result<(), Skipped> {
    let collector = Collector::start().await;
    let rotel = Rotel::before(&collector).await?;
    assert_one_trace(&collector, &rotel.http_endpoint(), "http/protobuf").await;
    Ok(())
}

async fn compressed_exports_arrive() {
    let collector = Collector::start().await;
    for (endpoint, key, protocol) in [
        (collector.grpc_endpoint(), "grpc", Protocol::Grpc),
        (collector.http_endpoint(), "http/protobuf", Protocol::HttpProtobuf),
    ] {
        let config = Config::new().respond("/", 200, "").traced(&endpoint, key);
        let host = HostProcess::start(config.set("otel.compression", "gzip")).await;
        let caller = Traceparent::sampled();
        host.get("/").header("traceparent", &caller).send().await;
        collector.trace(&caller.trace_id, 1).await;
        assert_came_by(&collector, protocol, true);
    }
}

fn assert_came_by(collector: &Collector, protocol: Protocol, gzip: bool) {
    let exports = collector.exports();
    let found = exports.iter().any(|export| export.protocol == protocol && export.gzip == gzip);
    assert!(found, "{exports:#?}");
}

async fn a_request_without_a_trace_starts_one() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    for path in ["/hello/ada", "/hello/grace"] {
        assert_eq!(host.get(path).send().await.status, 200);
    }
    let spans = collector.wait_for("four spans", |spans| spans.len() == 4).await;
    let [first, second] = &upstream.received()[..] else { panic!("two requests") };
    let (first, second) = (first.traceparent(), second.traceparent());
    assert_ne!(first.trace_id, second.trace_id);
    for sent in [first, second] {
        let trace: Vec<_> =
            spans.iter().filter(|span| span.trace_id == sent.trace_id).cloned().collect();
        let (server, client) = (only(&trace, SpanKind::Server), only(&trace, SpanKind::Client));
        assert_eq!(server.parent_span_id, "");
        assert_eq!((&client.parent_span_id, &client.span_id), (&server.span_id, &sent.span_id));
    }
}

async fn an_unsampled_trace_is_recorded_nowhere_and_propagated() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    let (unsampled, sampled) = (Traceparent::unsampled(), Traceparent::sampled());
    for caller in [&unsampled, &sampled] {
        assert_eq!(host.get("/hello/ada").header("traceparent", caller).send().await.status, 200);
    }
    // All that was recorded has arrived when a host has ended in peace.
    assert_eq!(host.stop().await.code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace_id == sampled.trace_id), "{spans:#?}");

    let sent = upstream.received()[0].traceparent();
    assert_eq!(sent.trace_id, unsampled.trace_id);
    assert_ne!(sent.span_id, unsampled.span_id, "the CLIENT span's own id is sent");
    assert!(!sent.is_sampled());
}

async fn trace_state_and_baggage_reach_the_upstream() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    let caller = Traceparent::sampled();
    let answer = host
        .get("/hello/ada")
        .header("traceparent", &caller)
        .header("tracestate", "vendor=1,other=2")
        .header("baggage", "user=7")
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let received = &upstream.received()[0];
    assert_eq!(received.header("tracestate"), Some("vendor=1,other=2"));
    assert_eq!(received.header("baggage"), Some("user=7"));
    let spans = collector.trace(&caller.trace_id, 2).await;
    assert!(spans.iter().all(|span| span.trace_state == "vendor=1,other=2"), "{spans:#?}");
}

fn assert_attributes(span: &Span, expected: &[(&str, Value)]) {
    for (name, value) in expected {
        assert_eq!(span.attribute(name), value, "{name} of {span:#?}");
    }
}

async fn spans_carry_what_the_conventions_require() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = forwarding(&upstream)
        .set("service.name", "front-1")
        .traced(&collector.grpc_endpoint(), "grpc");
    let host = HostProcess::start(config.set("otel.resource.team", "blue")).await;
    let caller = Traceparent::sampled();
    let call = host.get("/hello/ada?x=1").header("traceparent", &caller);
    assert_eq!(call.header("user-agent", "tests/1").send().await.status, 200);
    let spans = collector.trace(&caller.trace_id, 2).await;

    let server = only(&spans, SpanKind::Server);
    assert_eq!((server.name.as_str(), server.status), ("GET /hello/{name}", 0));
    assert_attributes(
        server,
        &[
            ("http.request.method", json!("GET")),
            ("http.route", json!("/hello/{name}")),
            ("http.response.status_code", json!(200)),
            ("url.scheme", json!("http")),
            ("url.path", json!("/hello/ada")),
            ("url.query", json!("x=1")),
            ("server.address", json!("127.0.0.1")),
            ("server.port", json!(host.public().port())),
            ("client.address", json!("127.0.0.1")),
            ("network.protocol.version", json!("1.1")),
            ("user_agent.original", json!("tests/1")),
        ],
    );
    let client = only(&spans, SpanKind::Client);
    let upstream_port: u16 = upstream.url().rsplit(':').next().unwrap().parse().unwrap();
    assert_eq!((client.name.as_str(), client.status), ("GET", 0));
    assert_attributes(
        client,
        &[
            ("http.request.method", json!("GET")),
            ("http.response.status_code", json!(200)),
            ("url.full", json!(format!("{}/hello/ada?x=1", upstream.url()))),
            ("server.address", json!("127.0.0.1")),
            ("server.port", json!(upstream_port)),
            ("network.protocol.version", json!("1.1")),
            ("peer.service", json!("upstream")),
        ],
    );
    for (name, value) in
        [("service.name", "front"), ("service.instance.name", "front-1"), ("team", "blue")]
    {
        assert_eq!(server.resource[name], value, "{:#?}", server.resource);
    }
    assert!(server.resource["service.version"].is_string());
    assert_eq!(server.resource["service.instance.id"].as_str().unwrap().len(), 36, "a UUID");
}

async fn an_http2_request_is_traced_alike() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    let (client, caller) = (Client::http2(), Traceparent::sampled());
    let call = client.get(&host.url("/hello/ada")).header("traceparent", &caller);
    assert_eq!(call.send().await.status, 200);
    let spans = collector.trace(&caller.trace_id, 2).await;
    let server = only(&spans, SpanKind::Server);
    assert_eq!(server.parent_span_id, caller.span_id);
    assert_attributes(
        server,
        &[
            ("network.protocol.version", json!("2")),
            ("server.address", json!("127.0.0.1")),
            ("server.port", json!(host.public().port())),
        ],
    );
}

async fn a_request_without_a_route_has_a_span_without_one() {
    let collector = Collector::start().await;
    let host = HostProcess::start(Config::new().traced(&collector.grpc_endpoint(), "grpc")).await;
    let caller = Traceparent::sampled();
    assert_eq!(host.get("/nothing").header("traceparent", &caller).send().await.status, 404);
    let spans = collector.trace(&caller.trace_id, 1).await;
    let server = only(&spans, SpanKind::Server);
    assert_eq!((server.name.as_str(), server.status), ("GET", 0), "a 404 is no server error");
    assert!(!server.attributes.contains_key("http.route"), "{server:#?}");
    assert_attributes(server, &[("http.response.status_code", json!(404))]);
}

async fn a_failing_upstream_makes_failed_spans() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(async |_| {
        let mut response = http::Response::new(harness::text("broken\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    let caller = Traceparent::sampled();
    assert_eq!(host.get("/hello/ada").header("traceparent", &caller).send().await.status, 503);
    let spans = collector.trace(&caller.trace_id, 2).await;
    for span in &spans {
        assert_eq!(span.status, 2, "{span:#?}");
        assert_attributes(
            span,
            &[("http.response.status_code", json!(503)), ("error.type", json!("503"))],
        );
    }
}

async fn a_timeout_is_traced_as_the_response_that_it_becomes() {
    let gate = harness::Gate::closed();
    let (collector, upstream) = (Collector::start().await, Upstream::behind(&gate).await);
    let config = forwarding(&upstream).set("server.request-timeout", "200ms");
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    let caller = Traceparent::sampled();
    assert_eq!(host.get("/hello/ada").header("traceparent", &caller).send().await.status, 504);
    let spans = collector.trace(&caller.trace_id, 2).await;
    let (server, client) = (only(&spans, SpanKind::Server), only(&spans, SpanKind::Client));
    assert_eq!((server.name.as_str(), server.status), ("GET /hello/{name}", 2));
    assert_attributes(server, &[("http.response.status_code", json!(504))]);
    for span in [server, client] {
        let reason = [("exchange.end_reason", json!("timeout")), ("error.type", json!("timeout"))];
        assert_attributes(span, &reason);
    }
}

async fn three_hops_through_one_host_are_one_trace() {
    let collector = Collector::start().await;
    let config = Config::new()
        .group("greeter", Config::OWN_URL)
        .forward_as("/hello/{name}", "greeter", "/greeter/{name}")
        .respond("/greeter/{name}", 200, "hello {name}\n");
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    let caller = Traceparent::sampled();
    let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
    assert_eq!((answer.status, answer.text()), (200, "hello ada\n"));

    let spans = collector.trace(&caller.trace_id, 3).await;
    assert_eq!(spans.len(), 3, "{spans:#?}");
    let named = |name| spans.iter().find(|span| span.name == name).unwrap();
    let (front, call, greeter) =
        (named("GET /hello/{name}"), named("GET"), named("GET /greeter/{name}"));
    let kinds = [front, call, greeter].map(|span| span.kind);
    assert_eq!(kinds, [SpanKind::Server, SpanKind::Client, SpanKind::Server]);
    assert_eq!(front.parent_span_id, caller.span_id);
    assert_eq!(call.parent_span_id, front.span_id);
    assert_eq!(greeter.parent_span_id, call.span_id);
    assert!(greeter.has_remote_parent());
}

async fn the_standard_variables_stand_in_for_absent_keys() {
    let collector = Collector::start().await;
    let library = harness::artifacts::plugin_otel().display().to_string();
    let config = Config::new().respond("/", 200, "").plugin(&library);
    let host = Launch::host(config.set("otel.resource.team", "blue"))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.http_endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=red")
        .start()
        .await;
    let caller = Traceparent::sampled();
    host.get("/").header("traceparent", &caller).send().await;
    let spans = collector.trace(&caller.trace_id, 1).await;
    assert_came_by(&collector, Protocol::HttpProtobuf, false);
    assert_eq!(collector.exports()[0].headers["x-tenant"], "seven");
    let resource = &spans[0].resource;
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(resource["team"], "blue", "a key is stronger than its variable");
}

async fn a_disabled_sdk_gives_no_layers() {
    let upstream = Upstream::ready().await;
    let config = forwarding(&upstream).traced("http://127.0.0.1:1", "grpc");
    let host = Launch::host(config).env("OTEL_SDK_DISABLED", "true").start().await;
    for side in ["server", "client"] {
        let stack = host.stack(side).await;
        assert!(!stack.contains(&"otel".to_owned()), "{stack:?}");
    }
    let caller = Traceparent::sampled();
    assert_eq!(host.get("/hello/ada").header("traceparent", &caller).send().await.status, 200);
    assert_eq!(upstream.received()[0].traceparent(), caller, "a header like any other");
}

async fn the_console_exporter_prints_spans() {
    let library = harness::artifacts::plugin_otel().display().to_string();
    let config = Config::new().respond("/", 200, "").plugin(&library);
    let host = HostProcess::start(config.set("otel.exporter", "console")).await;
    let caller = Traceparent::sampled();
    host.get("/").header("traceparent", &caller).send().await;
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains(&caller.trace_id), "{output:?}");
}

async fn a_call_says_whether_its_connection_had_carried_another() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
    for is_pooled in [false, true, true] {
        let caller = Traceparent::sampled();
        let call = host.get("/hello/ada").header("traceparent", &caller);
        assert_eq!(call.send().await.status, 200);
        let spans = collector.trace(&caller.trace_id, 2).await;
        let client = only(&spans, SpanKind::Client);
        assert_attributes(client, &[("exchange.pooled_connection", json!(is_pooled))]);
    }
}

async fn a_call_lies_within_its_request_with_a_body_and_without() {
    let collector = Collector::start().await;
    for body in ["", "from upstream\n"] {
        let upstream = Upstream::start(move |_| async move { Response::new(text(body)) }).await;
        let host = front(&upstream, &collector.grpc_endpoint(), "grpc").await;
        for (method, client) in [
            (Method::GET, Client::http1()),
            (Method::HEAD, Client::http1()),
            (Method::GET, Client::http2()),
        ] {
            let caller = Traceparent::sampled();
            let call = client.call(method.clone(), &host.url("/hello/ada"));
            assert_eq!(call.header("traceparent", &caller).send().await.status, 200);
            let spans = collector.trace(&caller.trace_id, 2).await;
            let (server, client) = (only(&spans, SpanKind::Server), only(&spans, SpanKind::Client));
            assert!(server.start <= client.start, "{method} {body:?}: {spans:#?}");
            assert!(client.end <= server.end, "{method} {body:?}: {spans:#?}");
        }
    }
}
