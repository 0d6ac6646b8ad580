//! What the operator decides: whose context counts, what is recorded, what is told and what is not.

use std::{
    fs,
    time::{Duration, Instant},
};

use harness::{
    Answer, Client, Collector, Config, Gate, HostProcess, Received, Span, SpanKind, Traceparent,
    Upstream, run, wait::until,
};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use toml::Table;

trials![
    an_excluded_route_is_not_recorded_and_passes_its_context_on_unchanged,
    a_callers_trace_is_continued_linked_or_ignored,
    trust_is_by_network_and_by_route_and_the_first_entry_decides,
    rules_sample_by_route_method_and_header,
    the_client_is_who_trusted_proxies_say_it_is,
    the_operators_methods_are_the_known_ones,
    configured_query_keys_are_redacted_beside_those_of_the_conventions,
    no_secret_of_a_url_is_exported_however_it_is_written,
    headers_are_captured_by_name_and_secret_ones_are_masked,
    baggage_is_recorded_only_where_its_header_is_captured,
    what_fails_is_kept_though_it_is_not_sampled,
    what_is_slow_is_kept_though_it_is_not_sampled,
    a_response_names_its_trace_as_it_is_told_to,
    a_wrong_policy_is_refused_and_its_key_named,
];

/// A host that forwards `/hello/{name}` and `/other/{name}`, traced to `collector`.
fn config(collector: &Collector, upstream: &Upstream) -> Config {
    Config::new()
        .group("upstream", upstream.url())
        .forward("/hello/{name}", "upstream")
        .forward("/other/{name}", "upstream")
        .traced(&collector.grpc_endpoint(), "grpc")
}

/// One entry of a list of tables.
fn entry<const N: usize>(keys: [(&str, toml::Value); N]) -> toml::Value {
    let keys = keys.map(|(key, value)| (key.to_owned(), value));
    toml::Value::Table(Table::from_iter(keys))
}

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    spans.iter().find(|span| span.kind == kind).unwrap_or_else(|| panic!("no {kind:?}: {spans:#?}"))
}

/// A request with everything that a caller may send.
async fn call(host: &HostProcess, path: &str, caller: &Traceparent) -> Answer {
    host.get(path)
        .header("traceparent", caller)
        .header("tracestate", "vendor=1")
        .header("baggage", "user=7")
        .send()
        .await
}

async fn an_excluded_route_is_not_recorded_and_passes_its_context_on_unchanged() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = config(&collector, &upstream).set("otel.exclude", vec!["/other/{name}"]);
    let host = HostProcess::start(config).await;
    let (excluded, followed) = (Traceparent::sampled(), Traceparent::sampled());
    assert_eq!(call(&host, "/other/ada", &excluded).await.status, 200);
    assert_eq!(call(&host, "/hello/ada", &followed).await.status, 200);

    let received = upstream.received();
    assert_eq!(received[0].traceparent(), excluded, "its very span");
    assert_ne!(received[1].traceparent().span_id, followed.span_id);
    for received in &received {
        let (state, baggage) = (received.header("tracestate"), received.header("baggage"));
        assert_eq!((state, baggage), (Some("vendor=1"), Some("user=7")), "{received:?}");
    }
    assert_eq!(host.stop().await.code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace_id == followed.trace_id), "{spans:#?}");
}

/// How the two spans of a request stand to its caller.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Continued,
    Linked,
    Unrelated,
}

/// Follows one request, and sees that what is sent on fits.
async fn standing(host: &HostProcess, collector: &Collector, upstream: &Upstream) -> Standing {
    standing_at("/hello/ada", host, collector, upstream).await
}

async fn standing_at(
    path: &str,
    host: &HostProcess,
    collector: &Collector,
    upstream: &Upstream,
) -> Standing {
    let caller = Traceparent::sampled();
    assert_eq!(call(host, path, &caller).await.status, 200);
    let received: Received = upstream.received().pop().unwrap();
    let sent = received.traceparent();
    let spans = collector.trace(&sent.trace_id, 2).await;
    let (server, client) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert_eq!(client.parent_span_id, server.span_id, "{spans:#?}");
    assert_eq!(client.span_id, sent.span_id, "{spans:#?}");

    let carried = (received.header("tracestate"), received.header("baggage"));
    if sent.trace_id == caller.trace_id {
        assert_eq!(server.parent_span_id, caller.span_id);
        assert_eq!((server.links.len(), carried), (0, (Some("vendor=1"), Some("user=7"))));
        return Standing::Continued;
    }
    assert_eq!(server.parent_span_id, "", "{server:#?}");
    assert_eq!(carried, (None, None), "what belongs to the caller's trace is not carried on");
    match &server.links[..] {
        [] => Standing::Unrelated,
        [link] => {
            assert_eq!(*link, (caller.trace_id, caller.span_id));
            Standing::Linked
        }
        links => panic!("too many links: {links:?}"),
    }
}

async fn a_callers_trace_is_continued_linked_or_ignored() {
    for (incoming, expected) in [
        ("continue", Standing::Continued),
        ("link", Standing::Linked),
        ("ignore", Standing::Unrelated),
    ] {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = config(&collector, &upstream).set("otel.incoming", incoming);
        let host = HostProcess::start(config).await;
        assert_eq!(standing(&host, &collector, &upstream).await, expected, "{incoming}");
    }
}

async fn trust_is_by_network_and_by_route_and_the_first_entry_decides() {
    let entries = [
        entry([("peer", "10.0.0.0/8".into()), ("incoming", "continue".into())]),
        entry([
            ("peer", "127.0.0.0/8".into()),
            ("route", "/hello/{name}".into()),
            ("incoming", "link".into()),
        ]),
        entry([("peer", "127.0.0.0/8".into()), ("incoming", "continue".into())]),
        entry([("route", "/other/{name}".into()), ("incoming", "ignore".into())]),
    ];
    for (first, hello, other) in
        [(0, Standing::Linked, Standing::Continued), (3, Standing::Unrelated, Standing::Unrelated)]
    {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = config(&collector, &upstream)
            .set("otel.incoming", "ignore")
            .set("otel.trust", entries[first..].to_vec());
        let host = HostProcess::start(config).await;
        let at = async |path| standing_at(path, &host, &collector, &upstream).await;
        assert_eq!(at("/hello/ada").await, hello, "entries from {first}");
        assert_eq!(at("/other/ada").await, other, "entries from {first}");
    }
}

async fn rules_sample_by_route_method_and_header() {
    let rules = vec![
        entry([("header", "x-debug".into()), ("ratio", 1.0.into())]),
        entry([("method", "POST".into()), ("ratio", 0.0.into())]),
        entry([("route", "/hello/{name}".into()), ("ratio", 1.0.into())]),
    ];
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = config(&collector, &upstream)
        .set("otel.sampler", "parentbased_always_off")
        .set("otel.rule", rules);
    let host = HostProcess::start(config).await;
    let client = Client::http1();
    let rows = [
        (Method::GET, "/hello/ada", false, true),
        (Method::GET, "/other/ada", false, false),
        (Method::POST, "/hello/ada", false, false),
        (Method::POST, "/hello/ada", true, true),
        (Method::GET, "/other/ada", true, true),
    ];
    let sampled = rows.iter().filter(|(.., sampled)| *sampled).count();
    for (method, path, debug, expected) in rows {
        let mut call = client.call(method.clone(), &host.url(path));
        if debug {
            call = call.header("x-debug", "1");
        }
        assert_eq!(call.send().await.status, 200);
        let sent = upstream.received().pop().unwrap().traceparent();
        assert_eq!(sent.is_sampled(), expected, "{method} {path}, x-debug {debug}");
    }
    assert_eq!(host.stop().await.code, 0);
    assert_eq!(collector.spans().len(), 2 * sampled, "a SERVER and a CLIENT span each");
}

async fn the_client_is_who_trusted_proxies_say_it_is() {
    for (proxies, header, client) in [
        (&["127.0.0.0/8"][..], ("x-forwarded-for", "203.0.113.9"), "203.0.113.9"),
        // Who stands left of a proxy that is not trusted may be anyone's invention.
        (&["127.0.0.0/8"], ("x-forwarded-for", "192.0.2.1, 203.0.113.9"), "203.0.113.9"),
        (&["127.0.0.1", "10.0.0.0/8"], ("x-forwarded-for", "192.0.2.1, 10.1.2.3"), "192.0.2.1"),
        (&["127.0.0.0/8"], ("forwarded", "for=\"[2001:db8::1]:4711\""), "2001:db8::1"),
        (&["127.0.0.0/8"], ("forwarded", "for=unknown"), "127.0.0.1"),
        (&["10.0.0.0/8"], ("x-forwarded-for", "203.0.113.9"), "127.0.0.1"),
        (&[], ("forwarded", "for=203.0.113.9"), "127.0.0.1"),
    ] {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = config(&collector, &upstream).set("otel.trusted-proxies", proxies.to_vec());
        let host = HostProcess::start(config).await;
        let caller = Traceparent::sampled();
        let (name, value) = header;
        let call = host.get("/hello/ada").header("traceparent", &caller).header(name, value);
        assert_eq!(call.send().await.status, 200);
        let spans = collector.trace(&caller.trace_id, 2).await;
        let server = of_kind(&spans, SpanKind::Server);
        assert_eq!(server.attribute("client.address"), client, "{header:?} by {proxies:?}");
        assert_eq!(server.attribute("network.peer.address"), "127.0.0.1", "{server:#?}");
    }
    for (proxies, scheme, address) in
        [(&["127.0.0.0/8"][..], "https", "shop.test"), (&[], "http", "127.0.0.1")]
    {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = config(&collector, &upstream).set("otel.trusted-proxies", proxies.to_vec());
        let host = HostProcess::start(config).await;
        for (name, value) in [
            ("forwarded", &["for=203.0.113.9;host=shop.test;proto=https"][..]),
            (
                "x-forwarded-for x-forwarded-host x-forwarded-proto",
                &["203.0.113.9", "shop.test", "https"],
            ),
        ] {
            let caller = Traceparent::sampled();
            let call = host.get("/hello/ada").header("traceparent", &caller);
            let lines = name.split(' ').zip(value);
            let call = lines.fold(call, |call, (name, value)| call.header(name, value));
            assert_eq!(call.send().await.status, 200);
            let spans = collector.trace(&caller.trace_id, 2).await;
            let server = of_kind(&spans, SpanKind::Server);
            let told = (server.attribute("url.scheme"), server.attribute("server.address"));
            assert_eq!(told, (&json!(scheme), &json!(address)), "{name} by {proxies:?}");
        }
    }
}

async fn the_operators_methods_are_the_known_ones() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = config(&collector, &upstream).set("otel.known-methods", vec!["GET", "PURGE"]);
    let host = HostProcess::start(config).await;
    let client = Client::http1();
    for (method, name) in [("GET", "GET"), ("PURGE", "PURGE"), ("POST", "HTTP"), ("get", "HTTP")] {
        let caller = Traceparent::sampled();
        let of_method = Method::from_bytes(method.as_bytes()).unwrap();
        let call = client.call(of_method, &host.url("/hello/ada"));
        assert_eq!(call.header("traceparent", &caller).send().await.status, 200);
        for span in collector.trace(&caller.trace_id, 2).await {
            assert_eq!(span.name.split(' ').next(), Some(name), "{method}: {span:#?}");
            let expected = if name == "HTTP" { json!(method) } else { Value::Null };
            let original = span.attribute("http.request.method_original");
            assert_eq!(*original, expected, "{method}: {span:#?}");
        }
    }
}

async fn configured_query_keys_are_redacted_beside_those_of_the_conventions() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = config(&collector, &upstream).set("otel.redact-query-keys", vec!["token"]);
    let host = HostProcess::start(config).await;
    let caller = Traceparent::sampled();
    let target = "/hello/ada?a=1&token=hunter2&sig=hunter2";
    assert_eq!(call(&host, target, &caller).await.status, 200);
    assert_eq!(upstream.received()[0].target, target, "only what is told of it changes");
    let spans = collector.trace(&caller.trace_id, 2).await;
    let redacted = "a=1&token=REDACTED&sig=REDACTED";
    assert_eq!(of_kind(&spans, SpanKind::Server).attribute("url.query"), redacted);
    let full = of_kind(&spans, SpanKind::Client).attribute("url.full").as_str().unwrap();
    assert!(full.ends_with(&format!("/hello/ada?{redacted}")), "{full}");
}

async fn no_secret_of_a_url_is_exported_however_it_is_written() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = config(&collector, &upstream);
    let host =
        HostProcess::start(config.set("otel.capture-request-headers", vec!["referer"])).await;
    let queries = [
        "AWSAccessKeyId=hunter2",
        "Signature=hunter2",
        "sig=hunter2",
        "X-Goog-Signature=hunter2",
        "X-Amz-Signature=hunter2",
        "X-Amz-Credential=hunter2",
        "X-Amz-Security-Token=hunter2",
        "%73ig=hunter2",
        "s%69g=hunter2",
        "sig=1&sig=hunter2",
        "a=1&sig=hunter2&b=2",
        "sig==hunter2",
        "sig=a%26hunter2",
        "next=https%3A%2F%2Fthere%2F%3Fsig%3Dhunter2",
        "next=https%253A%252F%252Fthere%252F%253Fsig%253Dhunter2",
        "next=http://me:hunter2@there/",
    ];
    let paths = ["/hello/http:%2F%2Fme:hunter2@there", "/hello/sig%3Dhunter2"];
    let queries = queries.map(|query| format!("/hello/ada?{query}"));
    let targets = || queries.iter().map(String::as_str).chain(paths);
    for target in targets() {
        let referer = format!("http://me:hunter2@there{target}");
        let call = host.get(target).header("referer", &referer);
        assert_eq!(call.send().await.status, 200, "{target}");
    }
    assert_eq!(host.stop().await.code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2 * targets().count());
    for span in spans {
        assert!(!format!("{span:?}").contains("hunter2"), "{span:#?}");
        if span.kind == SpanKind::Server {
            assert!(!span.attribute("http.request.header.referer").is_null(), "{span:#?}");
        }
    }
}

async fn headers_are_captured_by_name_and_secret_ones_are_masked() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(async |_| {
        let mut response = http::Response::new(harness::text("well\n"));
        let headers = response.headers_mut();
        headers.insert("x-answer", HeaderValue::from_static("yes"));
        headers.insert("x-private", HeaderValue::from_static("hunter2"));
        headers.insert("set-cookie", HeaderValue::from_static("session=hunter2"));
        response
    })
    .await;
    let config = config(&collector, &upstream)
        .set("otel.capture-request-headers", vec!["X-Tenant", "authorization", "cookie", "x-none"])
        .set("otel.capture-response-headers", vec!["x-answer", "set-cookie"]);
    let host = HostProcess::start(config).await;
    let caller = Traceparent::sampled();
    let call = host.get("/hello/ada").header("traceparent", &caller);
    let call = call.header("x-tenant", "blue").header("x-tenant", "green");
    let call = call.header("authorization", "Bearer hunter2").header("cookie", "session=hunter2");
    let answer = call.header("x-other", "hunter2").send().await;
    assert_eq!(answer.header("set-cookie"), Some("session=hunter2"), "only what is told changes");

    let spans = collector.trace(&caller.trace_id, 2).await;
    let server = of_kind(&spans, SpanKind::Server);
    let tenant = server.attribute("http.request.header.x-tenant");
    assert_eq!(*tenant, json!(["blue", "green"]), "{server:#?}");
    assert_eq!(*server.attribute("http.response.header.x-answer"), json!(["yes"]), "{server:#?}");
    for masked in [
        "http.request.header.authorization",
        "http.request.header.cookie",
        "http.response.header.set-cookie",
    ] {
        let values = server.attribute(masked).as_array();
        assert_eq!(values.map(Vec::len), Some(1), "{masked}: {server:#?}");
    }
    assert!(!server.attributes.contains_key("http.request.header.x-none"), "{server:#?}");
    assert!(!server.attributes.contains_key("http.request.header.x-other"), "{server:#?}");
    assert!(!format!("{spans:?}").contains("hunter2"), "{spans:#?}");
}

async fn baggage_is_recorded_only_where_its_header_is_captured() {
    for (captured, recorded) in [(vec![], Value::Null), (vec!["baggage"], json!(["user=7"]))] {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = config(&collector, &upstream).set("otel.capture-request-headers", captured);
        let host = HostProcess::start(config).await;
        let caller = Traceparent::sampled();
        assert_eq!(call(&host, "/hello/ada", &caller).await.status, 200);
        assert_eq!(upstream.received()[0].header("baggage"), Some("user=7"), "it is passed on");
        let spans = collector.trace(&caller.trace_id, 2).await;
        let server = of_kind(&spans, SpanKind::Server);
        assert_eq!(*server.attribute("http.request.header.baggage"), recorded, "{server:#?}");
        assert_eq!(format!("{spans:?}").contains("user=7"), !recorded.is_null(), "{spans:#?}");
    }
}

async fn what_fails_is_kept_though_it_is_not_sampled() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(async |request| {
        let mut response = http::Response::new(harness::text("\n"));
        if request.uri().path().ends_with("broken") {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    })
    .await;
    let config = config(&collector, &upstream)
        .set("otel.sampler", "parentbased_always_off")
        .set("otel.keep-errors", true);
    let host = HostProcess::start(config).await;
    for (path, status) in [("/hello/ada", 200), ("/hello/broken", 503), ("/hello/ada", 200)] {
        assert_eq!(host.get(path).send().await.status, status);
    }
    let sent: Vec<_> = upstream.received().iter().map(Received::traceparent).collect();
    assert!(sent.iter().all(|sent| !sent.is_sampled()), "nobody else is told to record: {sent:?}");
    assert_eq!(host.stop().await.code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let (server, client) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert_eq!((&server.trace_id, &client.span_id), (&sent[1].trace_id, &sent[1].span_id));
    assert_eq!(client.parent_span_id, server.span_id);
}

async fn what_is_slow_is_kept_though_it_is_not_sampled() {
    let gate = Gate::closed();
    let (collector, upstream) = (Collector::start().await, Upstream::behind(&gate).await);
    let config = config(&collector, &upstream)
        .respond("/fast", 200, "")
        .set("otel.sampler", "parentbased_always_off")
        .set("otel.keep-slower-than", "150ms");
    let host = HostProcess::start(config).await;
    assert_eq!(host.get("/fast").send().await.status, 200);
    let start = Instant::now();
    let (answer, ()) = tokio::join!(host.get("/hello/ada").send(), async {
        upstream.wait_for(1).await;
        let passed = async || (start.elapsed() >= Duration::from_millis(200)).then_some(());
        until("the time to pass that is measured", passed).await;
        gate.open();
    });
    assert_eq!(answer.status, 200);
    assert_eq!(host.stop().await.code, 0);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    assert_eq!(of_kind(&spans, SpanKind::Server).name, "GET /hello/{name}");
}

async fn a_response_names_its_trace_as_it_is_told_to() {
    for (setting, is_sampled) in [
        ("traceresponse", true),
        ("traceresponse", false),
        ("server-timing", true),
        ("off", true),
        ("", true),
    ] {
        let collector = Collector::start().await;
        let upstream = Upstream::start(async |_| {
            let mut response = http::Response::new(harness::text("well\n"));
            let own = HeaderValue::from_static("db;dur=53");
            response.headers_mut().insert("server-timing", own);
            response
        })
        .await;
        let mut config = config(&collector, &upstream);
        if !setting.is_empty() {
            config = config.set("otel.response-header", setting);
        }
        let host = HostProcess::start(config).await;
        let caller = if is_sampled { Traceparent::sampled() } else { Traceparent::unsampled() };
        let answer = call(&host, "/hello/ada", &caller).await;

        let timings = answer.headers.get_all("server-timing").iter();
        let timings: Vec<_> = timings.map(|line| line.to_str().unwrap()).collect();
        assert_eq!(timings[0], "db;dur=53", "what the service says stays: {timings:?}");
        let timing = timings.get(1).map(|line| {
            let quoted = line.strip_prefix("traceparent;desc=\"");
            quoted.and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("{line}"))
        });
        let told = answer.header("traceresponse").or(timing).map(Traceparent::parse);
        let is_where_it_should_be = match setting {
            "traceresponse" => answer.header("traceresponse").is_some() && timing.is_none(),
            "server-timing" => answer.header("traceresponse").is_none() && timing.is_some(),
            _ => told.is_none(),
        };
        assert!(is_where_it_should_be, "{setting:?}: {:?}", answer.headers);
        let Some(told) = told else { continue };
        assert_eq!((&told.trace_id, told.is_sampled()), (&caller.trace_id, is_sampled));
        assert_ne!(told.span_id, caller.span_id);
        if is_sampled {
            let spans = collector.trace(&caller.trace_id, 2).await;
            assert_eq!(told.span_id, of_kind(&spans, SpanKind::Server).span_id);
        }
    }
}

async fn a_wrong_policy_is_refused_and_its_key_named() {
    let wrong: [(&str, toml::Value); 11] = [
        ("exclude", 7.into()),
        ("incoming", "maybe".into()),
        (
            "trust",
            vec![entry([("peer", "10.0.0.0/33".into()), ("incoming", "link".into())])].into(),
        ),
        ("trust", vec![entry([("route", "/".into()), ("incoming", "maybe".into())])].into()),
        ("rule", vec![entry([("route", "/".into()), ("ratio", 1.5.into())])].into()),
        ("trusted-proxies", vec!["everyone"].into()),
        ("known-methods", vec!["G E T"].into()),
        ("capture-request-headers", vec!["no header"].into()),
        ("keep-errors", "perhaps".into()),
        ("keep-slower-than", "soon".into()),
        ("response-header", "x-trace".into()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    for (key, value) in wrong {
        let config = Config::new()
            .traced("http://127.0.0.1:1", "grpc")
            .set("otel.exporter", "none")
            .set(&format!("otel.{key}"), value.clone());
        fs::write(&file, config.text()).unwrap();
        let output = run(folder.path(), &["check", "--config", file.to_str().unwrap()], &[]).await;
        assert_eq!(output.code, 78, "{key} = {value}: {}", output.stderr);
        let named = format!("otel.{key}");
        let lines = output.stderr.lines().filter(|line| line.starts_with("host: "));
        let lines: Vec<_> = lines.collect();
        let [line] = lines[..] else { panic!("not one line: {output:?}") };
        let is_understood = line.contains(&named) && !line.contains("unknown key");
        assert!(is_understood, "{key} = {value}: {output:?}");
    }
}
