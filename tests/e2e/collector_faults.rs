//! A collector that is away changes no response.

use harness::{Collector, Config, HostProcess, Traceparent, Upstream, wait::until};

trials![
    requests_are_answered_while_the_collector_is_absent_and_later_spans_arrive,
    a_host_whose_collector_never_came_stops_in_peace,
];

async fn away(endpoint: &str) -> (HostProcess, Upstream) {
    let upstream = Upstream::ready().await;
    let config = Config::new()
        .group("upstream", upstream.url())
        .forward("/hello/{name}", "upstream")
        .traced(endpoint, "grpc")
        .set("otel.timeout", "500ms");
    let host = HostProcess::start(config).await;
    for _ in 0..20 {
        assert_answered(&host, &Traceparent::sampled()).await;
    }
    (host, upstream)
}

async fn assert_answered(host: &HostProcess, caller: &Traceparent) {
    let answer = host.get("/hello/ada").header("traceparent", caller).send().await;
    assert_eq!((answer.status, answer.text()), (200, "from upstream\n"));
}

async fn requests_are_answered_while_the_collector_is_absent_and_later_spans_arrive() {
    let absent = Collector::absent();
    let (host, _upstream) = away(&absent.grpc_endpoint()).await;
    let plugin = until("the export to fail", async || {
        let plugin = host.plugin().await;
        (plugin["status"]["export"]["state"] == "failing").then_some(plugin)
    })
    .await;
    assert_eq!(plugin["state"], "degraded");
    assert!(plugin["status"]["export"]["last-error"].is_string(), "{plugin}");
    assert_eq!(host.ask("/readyz").await.status, 200);

    let collector = absent.appear().await;
    until("a later span to arrive", async || {
        let caller = Traceparent::sampled();
        assert_answered(&host, &caller).await;
        let spans = collector.spans();
        (!spans.is_empty()).then_some(())
    })
    .await;
    let caller = Traceparent::sampled();
    assert_answered(&host, &caller).await;
    assert_eq!(collector.trace(&caller.trace_id, 2).await.len(), 2);
    until("the export to be healthy", async || {
        let plugin = host.plugin().await;
        let healthy = plugin["status"]["export"]["state"] == "healthy";
        (healthy && plugin["state"] == "running").then_some(())
    })
    .await;
    assert_eq!(host.stop().await.code, 0);
}

async fn a_host_whose_collector_never_came_stops_in_peace() {
    let absent = Collector::absent();
    let (host, _upstream) = away(&absent.grpc_endpoint()).await;
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
}
