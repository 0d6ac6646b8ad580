//! No longer ready, stop accepting, drain, flush, exit.

use bytes::Bytes;
use harness::{
    Answer, Client, Collector, Config, Gate, HostProcess, Signal, SpanKind, Upstream, channel,
    wait::{until, within},
};
use http_body_util::BodyExt;
use std::sync::Mutex;
use tokio::{net::TcpStream, task::JoinSet};

trials![
    requests_in_flight_finish_and_their_spans_arrive,
    a_body_on_its_way_is_sent_to_its_end,
    a_connection_of_http2_is_told_to_go_and_its_streams_finish,
    an_idle_host_stops_at_either_signal,
    the_drain_deadline_ends_what_does_not_finish,
    a_second_signal_ends_at_once,
];

const REQUESTS: usize = 5;

fn forwarding(upstream: &Upstream) -> Config {
    Config::new()
        .group("upstream", upstream.url())
        .forward("/hello/{name}", "upstream")
        .set("server.drain-timeout", "60s")
}

/// Sends requests that reach the upstream and wait there.
async fn in_flight(host: &HostProcess, upstream: &Upstream) -> JoinSet<Option<Answer>> {
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let url = host.url("/hello/ada");
        requests.spawn(async move {
            let response = Client::http1().get(&url).open().await.ok()?;
            Some(Answer::read(response).await)
        });
    }
    upstream.wait_for(REQUESTS).await;
    requests
}

async fn is_draining(host: &HostProcess) {
    until("the host to say that it is not ready", async || {
        (host.ask("/readyz").await.status == 503).then_some(())
    })
    .await;
}

async fn requests_in_flight_finish_and_their_spans_arrive() {
    let gate = Gate::closed();
    let (collector, upstream) = (Collector::start().await, Upstream::behind(&gate).await);
    let config = forwarding(&upstream).traced(&collector.grpc_endpoint(), "grpc");
    // Nothing is exported on the way but what the stop flushes.
    let host = HostProcess::start(config.set("otel.schedule-delay", "600s")).await;
    let requests = in_flight(&host, &upstream).await;

    host.signal(Signal::TERM);
    is_draining(&host).await;
    assert_eq!(host.ask("/healthz").await.status, 200, "the process lives");
    until("new connections to be refused", async || {
        TcpStream::connect(host.public()).await.is_err().then_some(())
    })
    .await;

    gate.open();
    for answer in requests.join_all().await {
        let answer = answer.expect("a response");
        assert_eq!((answer.status, answer.text()), (200, "from upstream\n"));
    }
    let output = host.end().await;
    assert_eq!(output.code, 0, "{output:?}");
    let spans = collector.spans();
    for kind in [SpanKind::Server, SpanKind::Client] {
        assert_eq!(spans.iter().filter(|span| span.kind == kind).count(), REQUESTS, "{spans:#?}");
    }
}

async fn a_body_on_its_way_is_sent_to_its_end() {
    let (mut sender, body) = channel();
    let body = Mutex::new(Some(body));
    let upstream = Upstream::start(move |_| {
        let body = body.lock().unwrap().take().expect("one request");
        async move { http::Response::new(body) }
    })
    .await;
    let host = HostProcess::start(forwarding(&upstream)).await;
    let response = host.get("/hello/ada").open().await.unwrap();

    host.signal(Signal::TERM);
    is_draining(&host).await;
    sender.send_data(Bytes::from("late ")).await.unwrap();
    sender.send_data(Bytes::from("but whole")).await.unwrap();
    drop(sender);
    let body = within("the whole body", response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "late but whole");
    assert_eq!(host.end().await.code, 0);
}

async fn a_connection_of_http2_is_told_to_go_and_its_streams_finish() {
    let gate = Gate::closed();
    let upstream = Upstream::behind(&gate).await;
    let host = HostProcess::start(forwarding(&upstream).respond("/now", 200, "")).await;
    let stream = TcpStream::connect(host.public()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = async |path| {
        let request = http::Request::get(host.url(path)).body(()).unwrap();
        let mut client = within("room for a stream", client.clone().ready()).await?;
        client.send_request(request, true).map(|(response, _)| response)
    };
    let open = ask("/hello/ada").await.unwrap();
    upstream.wait_for(1).await;

    host.signal(Signal::TERM);
    // Until then it is served as before.
    let told = until("the connection to take no more requests", async || {
        let response = ask("/now").await;
        match response {
            Ok(response) => within("a response", response).await.err(),
            Err(told) => Some(told),
        }
    })
    .await;
    assert!(told.is_go_away() && told.is_remote(), "{told:?}");
    assert_eq!(told.reason(), Some(h2::Reason::NO_ERROR));

    gate.open();
    let mut response = within("the open response", open).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = within("its body", response.body_mut().data()).await.unwrap().unwrap();
    assert_eq!(body, "from upstream\n");
    within("the end of the connection", connection).await.unwrap().unwrap();
    assert_eq!(host.end().await.code, 0);
}

async fn an_idle_host_stops_at_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let host = HostProcess::start(Config::new().respond("/", 200, "")).await;
        // Its connection stays open, and is in nobody's way.
        assert_eq!(host.get("/").send().await.status, 200);
        host.signal(signal);
        let output = host.end().await;
        assert_eq!(output.code, 0, "{signal:?}: {output:?}");
    }
}

async fn the_drain_deadline_ends_what_does_not_finish() {
    let gate = Gate::closed();
    let upstream = Upstream::behind(&gate).await;
    let config = forwarding(&upstream).set("server.drain-timeout", "200ms");
    let host = HostProcess::start(config).await;
    let requests = in_flight(&host, &upstream).await;
    host.signal(Signal::TERM);
    let output = host.end().await;
    assert_eq!(output.code, 75, "{output:?}");
    drop(requests);
}

async fn a_second_signal_ends_at_once() {
    let gate = Gate::closed();
    let upstream = Upstream::behind(&gate).await;
    let host = HostProcess::start(forwarding(&upstream)).await;
    let requests = in_flight(&host, &upstream).await;
    host.signal(Signal::TERM);
    is_draining(&host).await;
    host.signal(Signal::TERM);
    let output = host.end().await;
    assert_eq!(output.code, 75, "requests were open: {output:?}");
    drop(requests);
}
