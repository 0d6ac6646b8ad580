//! Where spans end: with the last byte, however late it comes, and not before.

use std::sync::Mutex;

use bytes::Bytes;
use harness::{
    Client, Collector, Config, HostProcess, RawUpstream, Span, SpanKind, Traceparent, Upstream,
    channel, exchange, read_until,
    wait::{until, within},
};
use http::Response;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

trials![
    an_event_stream_is_not_held_up_and_its_spans_end_with_it,
    an_upgrade_ends_with_its_head_and_its_tunnel_is_linked_to_it,
    the_status_of_a_grpc_call_comes_with_its_trailers,
    a_connect_that_leads_nowhere_is_a_request_like_any_other,
    an_attempt_that_brings_no_response_says_where_its_connection_led,
];

fn config(url: String, collector: &Collector) -> Config {
    let config = Config::new().group("upstream", url).forward("/hello/{name}", "upstream");
    config.traced(&collector.grpc_endpoint(), "grpc")
}

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    spans.iter().find(|span| span.kind == kind).unwrap_or_else(|| panic!("no {kind:?}: {spans:#?}"))
}

async fn an_event_stream_is_not_held_up_and_its_spans_end_with_it() {
    for client in [Client::http1(), Client::http2()] {
        let (mut sender, body) = channel();
        let body = Mutex::new(Some(body));
        let upstream = Upstream::start(move |_| {
            let body = body.lock().unwrap().take().expect("one request");
            async move {
                let response = Response::builder().header("content-type", "text/event-stream");
                response.body(body).unwrap()
            }
        })
        .await;
        let collector = Collector::start().await;
        let host = HostProcess::start(config(upstream.url(), &collector)).await;
        let caller = Traceparent::sampled();
        let call = client.get(&host.url("/hello/ada")).header("traceparent", &caller);
        let mut events = call.open().await.unwrap().into_body();
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            sender.send_data(Bytes::from(event)).await.unwrap();
            let frame = within("an event", events.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
            let live = &host.plugin().await["status"]["spans"]["live"];
            assert_eq!(*live, 2, "both spans last as long as the stream");
        }
        assert!(collector.spans().is_empty());
        drop(sender);
        within("the end of the stream", events.collect()).await.unwrap();
        for span in collector.trace(&caller.trace_id, 2).await {
            assert_eq!(span.attribute("http.response.body.size"), 27, "{span:#?}");
            assert_eq!(span.attribute("exchange.end_reason"), "complete", "{span:#?}");
            assert_eq!(span.status, 0, "{span:#?}");
        }
    }
}

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\n\r\nhello ";

async fn an_upgrade_ends_with_its_head_and_its_tunnel_is_linked_to_it() {
    let (upstream, collector) = (RawUpstream::switching(SWITCHED).await, Collector::start().await);
    let host = HostProcess::start(config(upstream.url(), &collector)).await;
    let caller = Traceparent::sampled();
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    let request = format!(
        "GET /hello/ada HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         traceparent: {caller}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "hello ").await;

    // The tunnel is open, and the exchange that opened it is over.
    let spans = collector.trace(&caller.trace_id, 2).await;
    let server = of_kind(&spans, SpanKind::Server).clone();
    for span in [&server, of_kind(&spans, SpanKind::Client)] {
        assert_eq!(span.attribute("http.response.status_code"), 101, "{span:#?}");
        assert_eq!(span.attribute("exchange.end_reason"), "complete", "{span:#?}");
    }
    until("the tunnel alone to be alive", async || {
        (host.plugin().await["status"]["spans"]["live"] == 1).then_some(())
    })
    .await;

    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    within("the end of a tunnel", stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "pingbye");
    let spans = collector.trace(&caller.trace_id, 3).await;
    let tunnel = of_kind(&spans, SpanKind::Internal);
    assert_eq!((&*tunnel.name, &tunnel.parent_span_id), ("websocket tunnel", &server.span_id));
    assert_eq!(tunnel.links, [(server.trace_id, server.span_id)]);
    for (key, value) in [
        ("tunnel.bytes_from_client", json!(4)),
        ("tunnel.bytes_to_client", json!("hello pingbye".len())),
        ("exchange.end_reason", json!("complete")),
    ] {
        assert_eq!(*tunnel.attribute(key), value, "{key} of {tunnel:#?}");
    }
}

async fn the_status_of_a_grpc_call_comes_with_its_trailers() {
    for (answer, code, error_of_client, error_of_server) in [
        (&ANSWERS[0], 0, None, None),
        (&ANSWERS[1], 5, Some("NOT_FOUND"), None),
        (&ANSWERS[2], 14, Some("UNAVAILABLE"), Some("UNAVAILABLE")),
    ] {
        let (upstream, collector) = (RawUpstream::start(answer).await, Collector::start().await);
        let host = HostProcess::start(config(upstream.url(), &collector)).await;
        let (client, caller) = (Client::http2(), Traceparent::sampled());
        let call = client.get(&host.url("/hello/ada")).header("traceparent", &caller);
        let response = call.header("te", "trailers").open().await.unwrap();
        let body = within("the end of a response", response.into_body().collect()).await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], code.to_string());
        let spans = collector.trace(&caller.trace_id, 2).await;
        for (kind, error) in
            [(SpanKind::Client, error_of_client), (SpanKind::Server, error_of_server)]
        {
            let span = of_kind(&spans, kind);
            assert_eq!(*span.attribute("error.type"), json!(error), "{span:#?}");
            assert_eq!(span.status == 2, error.is_some(), "{span:#?}");
            assert_eq!(span.attribute("rpc.grpc.status_code"), code, "{span:#?}");
            assert_eq!(span.attribute("exchange.trailers"), 1, "{span:#?}");
        }
    }
}

const ANSWERS: [&[u8]; 3] = [
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\ngrpc-status: 14\r\n\r\n",
];

async fn a_connect_that_leads_nowhere_is_a_request_like_any_other() {
    let (upstream, collector) = (Upstream::ready().await, Collector::start().await);
    let host = HostProcess::start(config(upstream.url(), &collector)).await;
    let caller = Traceparent::sampled();
    let request = format!(
        "CONNECT example.test:443 HTTP/1.1\r\nhost: example.test:443\r\nconnection: close\r\n\
         traceparent: {caller}\r\n\r\n"
    );
    let answer = exchange(host.public(), request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{:?}", String::from_utf8_lossy(&answer));
    let [span] = &collector.trace(&caller.trace_id, 1).await[..] else { panic!("one span") };
    assert_eq!((&*span.name, span.kind), ("CONNECT", SpanKind::Server));
    for (key, value) in [
        ("server.address", json!("example.test")),
        ("server.port", json!(443)),
        ("http.response.status_code", json!(404)),
        ("exchange.end_reason", json!("complete")),
    ] {
        assert_eq!(*span.attribute(key), value, "{key} of {span:#?}");
    }
}

async fn an_attempt_that_brings_no_response_says_where_its_connection_led() {
    for (answer, status, reason) in
        [(&b"nonsense\r\n\r\n"[..], 502, "upstream gone"), (b"", 504, "timeout")]
    {
        let (upstream, collector) = (RawUpstream::start(answer).await, Collector::start().await);
        let config = config(upstream.url(), &collector).set("client.request-timeout", "300ms");
        let host = HostProcess::start(config).await;
        let caller = Traceparent::sampled();
        let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
        assert_eq!(answer.status, status);
        let spans = collector.trace(&caller.trace_id, 2).await;
        let attempt = of_kind(&spans, SpanKind::Client);
        let port: u16 = upstream.url().rsplit(':').next().unwrap().parse().unwrap();
        for (key, value) in [
            ("exchange.end_reason", json!(reason)),
            ("network.peer.address", json!("127.0.0.1")),
            ("network.peer.port", json!(port)),
            ("exchange.pooled_connection", json!(false)),
            ("http.response.status_code", json!(null)),
        ] {
            assert_eq!(*attempt.attribute(key), value, "{key} of {attempt:#?}");
        }
    }
}
