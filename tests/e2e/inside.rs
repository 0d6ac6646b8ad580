//! What happens inside a service: the spans of its functions and the lines of its log.

use std::collections::BTreeMap;

use harness::{
    Client, Collector, Config, HostProcess, Launch, LogRecord, Rotel, Skipped, Span, SpanKind,
    Upstream, wait::until,
};
use serde_json::{Value, json};

trials![
    a_request_is_one_trace_from_the_socket_to_the_calls_of_its_functions,
    the_trace_and_its_lines_arrive_through_rotel,
    the_log_is_not_exported_where_it_is_switched_off,
    a_flood_of_lines_is_dropped_and_counted_and_no_request_feels_it,
];

/// The service of the example, with its telemetry on the way to `endpoint`.
async fn service(upstream: &Upstream, endpoint: &str) -> HostProcess {
    let config = Config::new().group("upstream", upstream.url()).set("log.format", "json");
    Launch::example("service", config.traced(endpoint, "grpc")).start().await
}

/// The name of each span with that of its parent, kind and error.
fn tree(spans: &[Span]) -> Vec<(String, String)> {
    let names: BTreeMap<&str, &str> =
        spans.iter().map(|span| (span.span_id.as_str(), span.name.as_str())).collect();
    let parent = |span: &Span| names.get(span.parent_span_id.as_str()).copied().unwrap_or_default();
    let mut tree: Vec<_> =
        spans.iter().map(|span| (parent(span).to_owned(), span.name.clone())).collect();
    tree.sort();
    tree
}

/// Asks for an order and checks all that comes of it.
async fn order(service: &HostProcess, collector: &Collector) {
    let answer = service.get("/order/4").send().await;
    assert_eq!((answer.status, answer.text()), (200, "10\n"));
    let spans = collector.wait_for("the trace", |all| all.len() >= 7).await;
    let trace_id = &spans[0].trace_id;
    assert!(spans.iter().all(|span| span.trace_id == *trace_id), "{spans:#?}");
    let wanted = [
        ("", "GET /order/{n}"),
        ("GET /order/{n}", "order"),
        ("ask", "GET"),
        ("notify", "GET"),
        ("order", "notify"),
        ("order", "price"),
        ("order", "reserve"),
        ("reserve", "ask"),
    ];
    let spans = collector.wait_for("the whole trace", |all| all.len() >= wanted.len()).await;
    assert_eq!(tree(&spans), wanted.map(|(parent, name)| (parent.to_owned(), name.to_owned())));
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(named("reserve").kind, SpanKind::Internal);
    assert_eq!(named("reserve").attribute("n"), &json!(4));
    assert_eq!(named("reserve").attribute("code.function.name"), &json!("service::reserve"));

    let lines = [
        ("an order has come in", "order"),
        ("reserving", "reserve"),
        ("computing", "price"),
        ("told", "notify"),
    ];
    let find =
        |all: &[LogRecord], body: &str| all.iter().find(|record| record.body == body).cloned();
    let logs = collector
        .wait_for_logs("each line", |all| lines.iter().all(|(body, _)| find(all, body).is_some()));
    let logs = logs.await;
    for (body, name) in lines {
        let record = find(&logs, body).unwrap();
        let span = named(name);
        assert_eq!((&record.trace_id, &record.span_id), (trace_id, &span.span_id), "{body}");
        assert_eq!((&*record.severity, &*record.scope), ("INFO", "service"), "{record:?}");
        assert_eq!(record.resource["service.name"], "front");
        // The same ids are on standard error.
        let ids = format!("\"span_id\":\"{}\"", span.span_id);
        let line = until(body, async || service.lines_with(&[body, &ids]).pop()).await;
        assert!(line.contains(trace_id), "{line}");
    }
    assert_eq!(find(&logs, "reserving").unwrap().attributes["goods"], 4);
}

async fn a_request_is_one_trace_from_the_socket_to_the_calls_of_its_functions() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let service = service(&upstream, &collector.grpc_endpoint()).await;
    order(&service, &collector).await;
    until("no span to be under way", async || {
        (service.plugin().await["status"]["spans"]["live"] == 0).then_some(())
    })
    .await;
}

async fn the_trace_and_its_lines_arrive_through_rotel() -> Result<(), Skipped> {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let rotel = Rotel::before(&collector).await?;
    let service = service(&upstream, &rotel.grpc_endpoint()).await;
    order(&service, &collector).await;
    Ok(())
}

async fn the_log_is_not_exported_where_it_is_switched_off() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config = Config::new().group("upstream", upstream.url());
    let config = config.traced(&collector.grpc_endpoint(), "grpc").set("otel.log-level", "OFF");
    let service = Launch::example("service", config).start().await;
    assert_eq!(service.get("/order/1").send().await.status, 200);
    collector.wait_for("the trace", |all| all.len() >= 8).await;
    assert!(service.plugin().await["status"]["logs"].is_null());
    assert!(collector.logs().is_empty());
}

async fn a_flood_of_lines_is_dropped_and_counted_and_no_request_feels_it() {
    // What ten seconds have at 100,000 lines a second, as fast as they come.
    const LINES: u64 = 100_000;
    const BURSTS: u64 = 10;
    // As much as the queues of spans, log records and metrics may hold, once more for what an export
    // holds on its way, and for the runtime and the allocator of a process under load.
    const MOST_MORE: u64 = (2 * 3 * 8 + 32) << 20;
    let (absent, upstream) = (Collector::absent(), Upstream::ready().await);
    let config = Config::new().group("upstream", upstream.url()).set("log.level", "warn");
    let config = config.traced(&absent.grpc_endpoint(), "grpc").set("otel.log-level", "INFO");
    let service = Launch::example("service", config).start().await;
    assert_eq!(service.get("/order/4").send().await.status, 200);
    let before = service.resident();

    let url = service.url(&format!("/lines/{LINES}"));
    let flood = tokio::spawn(async move {
        for _ in 0..BURSTS {
            let answer = Client::http1().get(&url).send().await;
            assert_eq!((answer.status, answer.text()), (200, "100000\n"));
        }
    });
    let (mut asked, mut most) = (0, 0);
    while !flood.is_finished() {
        let answer = service.get("/order/4").send().await;
        assert_eq!((answer.status, answer.text()), (200, "10\n"));
        asked += 1;
        most = most.max(service.resident());
    }
    flood.await.unwrap();
    assert!(asked >= BURSTS, "{asked} requests during the flood");
    assert!(most < before + MOST_MORE, "{before} bytes before the flood, {most} in it");

    let status = until("no span to be under way", async || {
        let plugin = service.plugin().await;
        (plugin["status"]["spans"]["live"] == 0).then(|| plugin["status"].clone())
    })
    .await;
    let of = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap();
    // Four lines an order, and a few of the host's own, are among them.
    let (dropped, queued) = (of("/logs/dropped"), of("/logs/export/queued"));
    let all = dropped + queued + of("/logs/exported");
    let wanted = LINES * BURSTS + 4 * (asked + 1);
    assert!((wanted..wanted + 100).contains(&all), "{wanted} and {status:#}");
    assert!(dropped > 0 && queued <= 65_536, "{status:#}");
    // Each signal has its own queue and its own count.
    let spans = of("/spans/dropped") + of("/export/queued") + of("/spans/exported");
    assert_eq!(spans, of("/spans/sampled"), "{status:#}");
    let metrics = service.ask("/metrics").await;
    let refused = metrics.text().lines().find_map(|line| {
        let is_it = line.starts_with("otel_sdk_processor_log_processed_total")
            && line.contains("error_type=\"queue_full\"");
        is_it.then(|| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    });
    assert!(refused.is_some_and(|refused| refused > 0.0), "{}", metrics.text());
}
