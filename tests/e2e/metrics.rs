//! What the host counts and times: on the admin port, and at the collector.

use std::collections::{BTreeMap, BTreeSet};

use harness::{
    Client, Collector, Config, Gate, HostProcess, MetricKind, MetricPoint, Protocol, Python, Rotel,
    Skipped, Upstream, read_until, text, wait::until,
};
use http::Response;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

trials![
    a_host_without_a_plugin_counts_by_class,
    every_request_is_counted_sampled_or_not,
    a_request_is_active_until_it_is_cut,
    an_event_stream_is_active_and_not_timed,
    an_exemplar_names_an_exported_span,
    metrics_arrive_over_every_protocol,
    metrics_arrive_through_rotel,
    the_last_collection_comes_with_the_stop,
    metrics_that_are_switched_off_are_not_exported,
    a_dead_collector_makes_nothing_grow,
    prometheus_own_parser_reads_both_formats,
];

const DURATION: &str = "http_server_request_duration_seconds";

/// The samples of `GET /metrics`, by name and labels.
async fn samples(host: &HostProcess) -> BTreeMap<String, f64> {
    let answer = host.ask("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let lines = answer.text().lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// The only sample whose name and labels contain all of these words.
fn only(samples: &BTreeMap<String, f64>, words: &[&str]) -> f64 {
    let found = samples.iter().filter(|(name, _)| words.iter().all(|word| name.contains(word)));
    let [(_, value)] = &found.collect::<Vec<_>>()[..] else { panic!("{words:?} in {samples:#?}") };
    **value
}

/// A host that forwards `/hello/{name}`, and exports there.
fn forwarding(upstream: &Upstream, collector: &Collector) -> Config {
    Config::new()
        .group("greeter", upstream.url())
        .forward("/hello/{name}", "greeter")
        .traced(&collector.grpc_endpoint(), "grpc")
}

async fn ask(host: &HostProcess, count: usize) {
    for _ in 0..count {
        assert_eq!(host.get("/hello/ada").send().await.status, 200);
    }
}

async fn a_host_without_a_plugin_counts_by_class() {
    let host = HostProcess::start(Config::new().respond("/there", 204, "")).await;
    // A client with a pool may open a second connection before the first is back.
    let mut connection = TcpStream::connect(host.public()).await.unwrap();
    for (path, status) in [("/there", 204), ("/there", 204), ("/elsewhere", 404)] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let last = if status == 404 { "not found\n" } else { "\r\n\r\n" };
        let answer = read_until(&mut connection, last).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert_eq!(samples(&host).await["host_connections"], 1.0);
    drop(connection);
    // A connection that the client has closed is open until the host sees it.
    let samples = until("the connection to be closed", async || {
        let samples = samples(&host).await;
        (samples["host_connections"] == 0.0).then_some(samples)
    })
    .await;
    for (class, count) in [("none", 0.0), ("2xx", 2.0), ("4xx", 1.0), ("5xx", 0.0)] {
        assert_eq!(samples[&format!("host_requests_total{{class=\"{class}\"}}")], count, "{class}");
    }
    assert_eq!(samples["host_requests_active"], 0.0);
    assert_eq!(samples["host_discovery_reachable"], 1.0);
    assert!(samples["process_memory_usage_bytes"] > 1e6);
    assert!(samples["process_uptime_seconds"] > 0.0);
    assert!(samples.contains_key("process_cpu_time_seconds_total{cpu_mode=\"user\"}"));
    assert!(samples.keys().all(|name| !name.starts_with("http_") && !name.starts_with("otel_")));
}

async fn every_request_is_counted_sampled_or_not() {
    for (sampler, sampled) in [("always_off", 0), ("always_on", 5)] {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let config = forwarding(&upstream, &collector).set("otel.sampler", sampler);
        let host = HostProcess::start(config).await;
        ask(&host, 4).await;
        let answer = host.get("/hello/ada").send().await;
        let bytes = 5.0 * answer.text().len() as f64;
        let samples = samples(&host).await;
        let of_server = ["http_route=\"/hello/{name}\"", "http_response_status_code=\"200\""];
        let count = |name: &str, words: &[&str]| only(&samples, &[&[name], words].concat());
        assert_eq!(count(&format!("{DURATION}_count"), &of_server), 5.0, "{sampler}");
        assert_eq!(count("http_server_response_body_size_bytes_count", &of_server), 5.0);
        assert_eq!(count("http_server_response_body_size_bytes_sum", &of_server), bytes);
        let of_client = ["server_address=\"127.0.0.1\"", "http_request_method=\"GET\""];
        assert_eq!(count("http_client_request_duration_seconds_count", &of_client), 5.0);
        assert_eq!(count("http_client_response_body_size_bytes_sum", &of_client), bytes);
        assert_eq!(count("http_server_active_requests", &["GET"]), 0.0);
        let started = count("otel_sdk_span_started_total", &["RECORD_AND_SAMPLE"]);
        assert_eq!(started, f64::from(2 * sampled), "{sampler}");
    }
}

async fn a_request_is_active_until_it_is_cut() {
    let (collector, gate) = (Collector::start().await, Gate::closed());
    let upstream = Upstream::behind(&gate).await;
    let host = HostProcess::start(forwarding(&upstream, &collector)).await;
    let active = async |wanted: f64| {
        until(&format!("{wanted} active requests"), async || {
            let samples = samples(&host).await;
            let active =
                "http_server_active_requests{http_request_method=\"GET\",url_scheme=\"http\"}";
            (samples.get(active) == Some(&wanted)).then_some(samples)
        })
        .await
    };
    let (url, client) = (host.url("/hello/ada"), Client::http1());
    let cut = tokio::spawn(async move { client.get(&url).send().await });
    active(1.0).await;
    cut.abort();
    let samples = active(0.0).await;
    let cut = only(&samples, &[&format!("{DURATION}_count")]);
    assert_eq!(cut, 1.0);
    assert_eq!(samples["host_requests_total{class=\"none\"}"], 1.0);
}

async fn an_event_stream_is_active_and_not_timed() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(|_| async {
        let response = Response::builder().header("content-type", "text/event-stream");
        response.body(text("data: x\n\n")).unwrap()
    })
    .await;
    let host = HostProcess::start(forwarding(&upstream, &collector)).await;
    ask(&host, 1).await;
    let samples = samples(&host).await;
    assert!(samples.keys().all(|name| !name.contains("_duration_")), "{samples:#?}");
    assert_eq!(only(&samples, &["http_server_active_requests"]), 0.0);
    assert_eq!(samples["host_requests_total{class=\"2xx\"}"], 1.0);
}

async fn an_exemplar_names_an_exported_span() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = forwarding(&upstream, &collector).set("otel.metric-interval", "50ms");
    let host = HostProcess::start(config).await;
    ask(&host, 3).await;
    let spans = collector.wait_for("six spans", |spans| spans.len() >= 6).await;
    let spans: BTreeSet<_> = spans.into_iter().map(|span| (span.trace_id, span.span_id)).collect();

    let accept = "application/openmetrics-text; version=1.0.0";
    let url = format!("http://{}/metrics", host.admin());
    let answer = Client::http1().get(&url).header("accept", accept).send().await;
    assert!(answer.text().ends_with("\n# EOF\n"), "{}", answer.text());
    let mut named = 0;
    for line in answer.text().lines().filter(|line| line.contains(" # {")) {
        let word = |key: &str| {
            let (_, tail) = line.split_once(&format!("{key}=\"")).unwrap();
            tail.split('"').next().unwrap().to_owned()
        };
        assert!(spans.contains(&(word("trace_id"), word("span_id"))), "{line} in {spans:?}");
        named += 1;
    }
    assert!(named >= 2, "server and client: {}", answer.text());

    let has_both = |point: &MetricPoint| point.name.contains("duration") && point.count() == 3;
    let point = collector.metric("three requests", has_both).await;
    assert!(!point.exemplars.is_empty() && point.exemplars.iter().all(|one| spans.contains(one)));
}

/// Waits for the duration of so many requests, and judges it.
async fn assert_measured(collector: &Collector, count: u64) {
    let is_it = |point: &MetricPoint| {
        point.name == "http.server.request.duration" && point.count() == count
    };
    let point = collector.metric("the durations of all requests", is_it).await;
    assert_eq!((point.kind, &*point.unit), (MetricKind::Histogram, "s"));
    assert_eq!(point.attribute("http.route"), &json!("/hello/{name}"));
    assert_eq!(point.attribute("http.response.status_code"), &json!(200));
    assert_eq!(point.attribute("url.scheme"), &json!("http"));
    assert_eq!(point.attribute("network.protocol.version"), &json!("1.1"));
    assert_eq!((point.bounds.len(), point.bounds[0]), (14, 0.005));
    assert_eq!(point.resource["service.name"], "front");
    assert!(point.start > 0 && point.start < point.time && point.value > 0.0);
}

async fn metrics_arrive_over_every_protocol() {
    for (name, protocol) in [
        ("grpc", Protocol::Grpc),
        ("http/protobuf", Protocol::HttpProtobuf),
        ("http/json", Protocol::HttpJson),
    ] {
        let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
        let grpc = protocol == Protocol::Grpc;
        let endpoint = if grpc { collector.grpc_endpoint() } else { collector.http_endpoint() };
        let config = forwarding(&upstream, &collector).traced(&endpoint, name);
        let host = HostProcess::start(config.set("otel.metric-interval", "50ms")).await;
        ask(&host, 4).await;
        assert_measured(&collector, 4).await;
        let exports = collector.metric_exports();
        assert!(exports.iter().all(|export| export.protocol == protocol), "{exports:?}");
        for (name, kind) in [
            ("http.client.request.duration", MetricKind::Histogram),
            ("http.server.active_requests", MetricKind::UpDownCounter),
            ("host.requests", MetricKind::Counter),
            ("process.cpu.time", MetricKind::Counter),
            ("process.memory.usage", MetricKind::UpDownCounter),
            ("host.discovery.instances", MetricKind::Gauge),
            ("otel.sdk.span.started", MetricKind::Counter),
            ("otel.sdk.exporter.span.exported", MetricKind::Counter),
            ("otel.sdk.exporter.metric_data_point.exported", MetricKind::Counter),
            ("otel.sdk.exporter.metric_data_point.inflight", MetricKind::UpDownCounter),
        ] {
            assert_eq!(collector.metric(name, |point| point.name == name).await.kind, kind);
        }
        let status = host.plugin().await["status"]["metrics"].clone();
        assert_eq!(status["export"]["state"], "healthy", "{status}");
    }
}

async fn metrics_arrive_through_rotel() -> Result<(), Skipped> {
    let collector = Collector::start().await;
    let rotel = Rotel::before(&collector).await?;
    let upstream = Upstream::ready().await;
    for (endpoint, protocol) in
        [(rotel.grpc_endpoint(), "grpc"), (rotel.http_endpoint(), "http/protobuf")]
    {
        let config = forwarding(&upstream, &collector).traced(&endpoint, protocol);
        let host = HostProcess::start(config.set("otel.metric-interval", "50ms")).await;
        let count = if protocol == "grpc" { 2 } else { 3 };
        ask(&host, count).await;
        assert_measured(&collector, count as u64).await;
    }
    Ok(())
}

async fn the_last_collection_comes_with_the_stop() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = forwarding(&upstream, &collector).set("otel.metric-interval", "1h");
    let host = HostProcess::start(config).await;
    ask(&host, 2).await;
    assert!(collector.metrics().is_empty());
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_measured(&collector, 2).await;
}

async fn metrics_that_are_switched_off_are_not_exported() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = forwarding(&upstream, &collector).set("otel.metric-interval", "none");
    let host = HostProcess::start(config).await;
    ask(&host, 1).await;
    assert_eq!(only(&samples(&host).await, &[&format!("{DURATION}_count")]), 1.0);
    assert!(host.plugin().await["status"].get("metrics").is_none());
    host.stop().await;
    assert!(collector.metrics().is_empty());
}

async fn a_dead_collector_makes_nothing_grow() {
    let (absent, upstream) = (Collector::absent(), Upstream::ready().await);
    let config = Config::new()
        .group("greeter", upstream.url())
        .forward("/hello/{name}", "greeter")
        .traced(&absent.grpc_endpoint(), "grpc")
        // Until then the first one is tried again, and those behind it wait.
        .set("otel.timeout", "1s")
        .set("otel.max-queue-size", 4)
        .set("otel.max-export-batch-size", 4)
        .set("otel.metric-interval", "1ms");
    let host = HostProcess::start(config).await;
    ask(&host, 2).await;
    let status = until("lost collections", async || {
        let status = host.plugin().await["status"]["metrics"].clone();
        let is_failing = status["export"]["state"] == "failing";
        (is_failing && status["dropped"].as_u64()? > 20).then_some(status)
    })
    .await;
    assert!(status["export"]["queued"].as_u64().unwrap() <= 4, "{status}");
    ask(&host, 2).await;
    // Totals are whole again with the first collection that arrives.
    assert_measured(&absent.appear().await, 4).await;
}

async fn prometheus_own_parser_reads_both_formats() -> Result<(), Skipped> {
    let python = Python::installed()?;
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = HostProcess::start(forwarding(&upstream, &collector)).await;
    ask(&host, 3).await;
    let url = format!("http://{}/metrics", host.admin());
    let output = python.run("exposition", &[&url], &collector.http_endpoint()).await;
    assert_eq!(output.code, 0, "{output:?}");
    let lines: Vec<_> = output.stdout.lines().collect();
    let of = |words: &[&str]| {
        lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    assert_eq!(of(&["histogram", &format!("{DURATION}_count"), "/hello/{name}", " 3"]), 2);
    assert_eq!(of(&["counter host_requests_total class=2xx"]), 2, "{lines:#?}");
    assert_eq!(of(&["gauge http_server_active_requests"]), 2, "{lines:#?}");
    assert_eq!(of(&["target_info", "service_name=front"]), 2, "{lines:#?}");
    let exemplars = lines.iter().filter(|line| {
        let last = line.rsplit(' ').next().unwrap();
        last.len() == 32
    });
    assert!(exemplars.count() >= 2, "{lines:#?}");
    Ok(())
}
