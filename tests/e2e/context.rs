//! The current context: every outgoing call is a child of the request that it is made for.

use std::collections::{BTreeMap, HashMap};

use harness::{Collector, Config, HostProcess, Launch, Span, SpanKind, Traceparent, Upstream};
use tokio::task::JoinSet;

trials![calls_after_awaits_and_in_spawned_tasks_have_the_right_parent,];

const REQUESTS: usize = 200;
const CALLS: [&str; 3] = ["direct", "awaited", "spawned"];

async fn calls_after_awaits_and_in_spawned_tasks_have_the_right_parent() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let config =
        Config::new().group("upstream", upstream.url()).traced(&collector.grpc_endpoint(), "grpc");
    let service = Launch::example("service", config).start().await;
    fan_out(&service).await;

    let count = REQUESTS * (1 + CALLS.len());
    let spans = collector.wait_for("a span for each exchange", |all| all.len() >= count).await;
    assert_eq!(spans.len(), count);
    let servers = by_number(&spans);
    let calls = by_leaf(&spans);
    for number in 0..REQUESTS {
        let server = servers[&number];
        for call in CALLS {
            let client = calls[&format!("/leaf/{number}/{call}")];
            assert_eq!(client.trace_id, server.trace_id, "{call} of {number}");
            assert_eq!(client.parent_span_id, server.span_id, "{call} of {number}");
        }
    }
    for received in upstream.received() {
        let sent: Traceparent = received.traceparent();
        assert_eq!(sent.span_id, calls[&received.target].span_id, "{received:?}");
    }
}

/// Sends all requests at once, each with a connection of its own.
async fn fan_out(service: &HostProcess) {
    let mut requests = JoinSet::new();
    for number in 0..REQUESTS {
        let url = service.url(&format!("/fan/{number}"));
        requests.spawn(async move { harness::Client::http1().get(&url).send().await.status });
    }
    let statuses = requests.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

fn by_number(spans: &[Span]) -> BTreeMap<usize, &Span> {
    let servers = spans.iter().filter(|span| span.kind == SpanKind::Server);
    let by_number: BTreeMap<usize, &Span> = servers
        .map(|span| {
            let path = span.attribute("url.path").as_str().unwrap();
            (path.strip_prefix("/fan/").unwrap().parse().unwrap(), span)
        })
        .collect();
    assert_eq!(by_number.len(), REQUESTS);
    by_number
}

fn by_leaf(spans: &[Span]) -> HashMap<String, &Span> {
    let clients = spans.iter().filter(|span| span.kind == SpanKind::Client);
    clients
        .map(|span| {
            let url: http::Uri = span.attribute("url.full").as_str().unwrap().parse().unwrap();
            (url.path().to_owned(), span)
        })
        .collect()
}
