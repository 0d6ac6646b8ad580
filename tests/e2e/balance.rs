//! Who is called, and who is left alone; `discovery::lost` has what becomes of requests.

use std::collections::BTreeMap;

use harness::{Client, Collector, Config, Gate, HostProcess, SpanKind, Upstream, wait::until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

trials![
    requests_that_wait_are_spread_evenly,
    operators_see_who_is_in_flight_and_ejected,
    each_attempt_names_its_own_instance,
];

/// A host in front of these instances.
async fn in_front_of(instances: &[String]) -> HostProcess {
    HostProcess::start(config(instances)).await
}

fn config(instances: &[String]) -> Config {
    Config::new().set("discovery.static.who", instances.to_vec()).forward("/who", "who")
}

/// The only group's instances in `GET /services`.
async fn members(host: &HostProcess) -> Vec<Value> {
    let services = host.ask("/services").await.json();
    services["groups"]["who"].as_array().expect("a list").clone()
}

async fn requests_that_wait_are_spread_evenly() {
    let gate = Gate::closed();
    let (one, other) = (Upstream::behind(&gate).await, Upstream::behind(&gate).await);
    let host = in_front_of(&[one.url(), other.url()]).await;
    let mut waiting = JoinSet::new();
    for count in 1..=20 {
        let url = host.url("/who");
        waiting.spawn(async move { Client::http1().get(&url).send().await.status });
        until("the request to arrive", async || {
            (one.received().len() + other.received().len() == count).then_some(())
        })
        .await;
    }
    assert_eq!((one.received().len(), other.received().len()), (10, 10));
    gate.open();
    assert!(waiting.join_all().await.iter().all(|status| *status == 200));
}

async fn operators_see_who_is_in_flight_and_ejected() {
    let (absent, gate) = (Collector::absent(), Gate::closed());
    let upstream = Upstream::behind(&gate).await;
    let host = in_front_of(&[absent.grpc_endpoint(), upstream.url()]).await;
    let mut waiting = JoinSet::new();
    let sees = until("an ejection", async || {
        let url = host.url("/who");
        waiting.spawn(async move { Client::http1().get(&url).send().await.status });
        let members = members(&host).await;
        members[0]["ejected-until"].is_string().then_some(members)
    })
    .await;
    assert!(sees[0]["failures"].as_u64() >= Some(3), "{sees:?}");
    assert_eq!(sees[1]["ejected-until"], json!(null), "{sees:?}");
    until("all to wait", async || {
        (members(&host).await[1]["in-flight"] == waiting.len()).then_some(())
    })
    .await;
    let metrics = host.ask("/metrics").await;
    let (group, waits) = ("{service_group=\"who\"}", waiting.len());
    for line in [
        format!("host_discovery_instances{group} 2"),
        format!("host_discovery_ejected{group} 1"),
        format!("host_discovery_in_flight{group} {waits}"),
    ] {
        assert!(metrics.text().contains(&line), "no {line} in {}", metrics.text());
    }
    gate.open();
    assert!(waiting.join_all().await.iter().all(|status| *status == 200));
    until("nobody in flight", async || {
        members(&host).await.iter().all(|member| member["in-flight"] == 0).then_some(())
    })
    .await;
    until("the end of the ejection", async || {
        let back = host.lines_with(&["INFO", &absent.grpc_endpoint(), "is back after 1s"]);
        (members(&host).await[0]["ejected-until"].is_null() && back.len() == 1).then_some(())
    })
    .await;
}

async fn each_attempt_names_its_own_instance() {
    let (collector, absent) = (Collector::start().await, Collector::absent());
    let upstream = Upstream::ready().await;
    let config = config(&[absent.grpc_endpoint(), upstream.url()]);
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    until("a call of two attempts", async || {
        assert_eq!(host.get("/who").send().await.status, 200);
        // The dead one has been asked.
        (members(&host).await[0]["failures"] == 1).then_some(())
    })
    .await;
    let spans = collector
        .wait_for("a span of each attempt", |spans| {
            let resent =
                |span: &harness::Span| !span.attribute("http.request.resend_count").is_null();
            spans.iter().any(resent)
        })
        .await;
    let attempts: BTreeMap<bool, _> = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Client && !span.attribute("server.port").is_null())
        .map(|span| {
            let is_second = !span.attribute("http.request.resend_count").is_null();
            (is_second, span.attribute("server.port").to_string())
        })
        .collect();
    let port = |url: &str| url.rsplit(':').next().map(str::to_owned);
    assert_eq!(attempts.get(&true).cloned(), port(&upstream.url()), "{spans:#?}");
    let failed: Vec<_> = spans
        .iter()
        .filter(|span| {
            Some(span.attribute("server.port").to_string()) == port(&absent.grpc_endpoint())
        })
        .collect();
    assert_eq!(failed.len(), 1, "{spans:#?}");
}
