//! What happens inside a service: the spans of its functions and the lines of its log.

use std::collections::BTreeMap;

use harness::{
    Collector, Config, HostProcess, Launch, LogRecord, Rotel, Skipped, Span, SpanKind, Upstream,
    wait::until,
};
use serde_json::json;

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
    const LINES: u64 = 100_000;
    const REQUESTS: u64 = 10;
    let absent = Collector::absent();
    let config = Config::new().set("log.level", "warn").traced(&absent.grpc_endpoint(), "grpc");
    let service = Launch::example("service", config.set("otel.log-level", "INFO")).start().await;
    for _ in 0..REQUESTS {
        let answer = service.get(&format!("/lines/{LINES}")).send().await;
        assert_eq!((answer.status, answer.text()), (200, "100000\n"));
    }
    let plugin = service.plugin().await;
    let logs = &plugin["status"]["logs"];
    let count = |value: &serde_json::Value| value.as_u64().unwrap();
    let (dropped, queued) = (count(&logs["dropped"]), count(&logs["export"]["queued"]));
    // A few lines of the host's own are among them.
    let all = dropped + queued + count(&logs["exported"]);
    assert!((LINES * REQUESTS..LINES * REQUESTS + 100).contains(&all), "{plugin:#}");
    assert!(queued <= 65_536, "{plugin:#}");
}
