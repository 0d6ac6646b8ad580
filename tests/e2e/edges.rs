//! What HTTP allows at its edges, and the spans of it: odd hosts, heads before the head, bodies that
//! wait to be wanted, upgrades that are refused.

use harness::{
    Collector, Config, HostProcess, RawUpstream, Span, SpanKind, Traceparent, Upstream, exchange,
    read_until, wait::until,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

trials![
    a_request_without_one_valid_host_is_refused_and_traced_as_that,
    a_host_in_place_of_the_authority_of_http_2_is_as_good,
    a_body_that_waits_to_be_wanted_arrives,
    a_head_before_the_head_is_not_the_response,
    a_refused_upgrade_is_an_exchange_like_any_other,
];

fn config(url: &str, collector: &Collector) -> Config {
    let config = Config::new().group("upstream", url).forward("/hello/{name}", "upstream");
    config.traced(&collector.grpc_endpoint(), "grpc")
}

/// The SERVER span and the CLIENT span, which are all that there is of the trace.
async fn exchanged(host: &HostProcess, collector: &Collector, caller: &Traceparent) -> [Span; 2] {
    let all = collector.trace(&caller.trace_id, 2).await;
    let live = async || (host.plugin().await["status"]["spans"]["live"] == 0).then_some(());
    until("no span to be alive", live).await;
    assert_eq!(all.len(), 2, "{all:#?}");
    [SpanKind::Server, SpanKind::Client].map(|kind| {
        let span = all.iter().find(|span| span.kind == kind);
        span.unwrap_or_else(|| panic!("no {kind:?}: {all:#?}")).clone()
    })
}

fn assert_says(span: &Span, wanted: &[(&str, Value)]) {
    for (key, value) in wanted {
        assert_eq!(span.attribute(key), value, "{key} of {span:#?}");
    }
}

async fn a_request_without_one_valid_host_is_refused_and_traced_as_that() {
    let (upstream, collector) = (Upstream::ready().await, Collector::start().await);
    let host = HostProcess::start(config(&upstream.url(), &collector)).await;
    for (version, hosts, status) in [
        ("1.1", "", 400),
        ("1.1", "host: here\r\nHost: here\r\n", 400),
        ("1.1", "host: he re\r\n", 400),
        ("1.0", "host: here\r\nhost: there\r\n", 400),
        ("1.0", "", 200),
        ("1.1", "host:\r\n", 200),
    ] {
        let caller = Traceparent::sampled();
        let request = format!(
            "GET /hello/ada HTTP/{version}\r\n{hosts}traceparent: {caller}\r\n\
             connection: close\r\n\r\n"
        );
        let answer = String::from_utf8(exchange(host.public(), request.as_bytes()).await).unwrap();
        let line = format!("HTTP/{version} {status} ");
        assert!(answer.starts_with(&line), "{version} {hosts:?}: {answer}");
        assert!(answer.contains("\r\nx-request-id: "), "{answer}");
        let is_refused = status == 400;
        let spans = collector.trace(&caller.trace_id, if is_refused { 1 } else { 2 }).await;
        let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
        assert_says(
            server,
            &[
                ("http.response.status_code", json!(status)),
                ("error.type", Value::Null),
                ("exchange.end_reason", json!("complete")),
            ],
        );
        assert_eq!((server.status, spans.len() == 1), (0, is_refused), "{spans:#?}");
        assert_eq!(server.attribute("http.route").is_null(), is_refused, "{server:#?}");
    }
    assert_eq!(upstream.received().len(), 2);
}

/// `GET /hello/ada` in frames of HTTP/2, with a `host` and no `:authority`: the preface, SETTINGS, and
/// HEADERS as RFC 7541 packs them.
const WITHOUT_AUTHORITY: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x18\x01\x05\x00\x00\x00\x01\
    \x82\x86\x04\x0a/hello/ada\x0f\x17\x07there:1";

async fn a_host_in_place_of_the_authority_of_http_2_is_as_good() {
    let (upstream, collector) = (Upstream::ready().await, Collector::start().await);
    let host = HostProcess::start(config(&upstream.url(), &collector)).await;
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    stream.write_all(WITHOUT_AUTHORITY).await.unwrap();
    let spans = collector.wait_for("two spans", |spans| spans.len() == 2).await;
    let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
    assert_says(
        server,
        &[
            ("http.response.status_code", json!(200)),
            ("network.protocol.version", json!("2")),
            ("server.address", json!("there")),
            ("server.port", json!(1)),
        ],
    );
}

async fn a_body_that_waits_to_be_wanted_arrives() {
    let (upstream, collector) = (Upstream::echo().await, Collector::start().await);
    let host = HostProcess::start(config(&upstream.url(), &collector)).await;
    let caller = Traceparent::sampled();
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    let head = format!(
        "POST /hello/ada HTTP/1.1\r\nhost: here\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\
         traceparent: {caller}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    read_until(&mut stream, "hello").await;
    for span in exchanged(&host, &collector, &caller).await {
        assert_says(
            &span,
            &[
                ("http.response.status_code", json!(200)),
                ("http.request.body.size", json!(5)),
                ("http.response.body.size", json!(5)),
                ("exchange.end_reason", json!("complete")),
                ("error.type", Value::Null),
            ],
        );
    }
}

async fn a_head_before_the_head_is_not_the_response() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
    let (upstream, collector) = (RawUpstream::start(answer).await, Collector::start().await);
    let host = HostProcess::start(config(&upstream.url(), &collector)).await;
    // The second time by the same connection.
    for is_reused in [false, true] {
        let caller = Traceparent::sampled();
        let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
        assert_eq!((answer.status, answer.text(), answer.header("link")), (200, "hi", None));
        let [server, client] = exchanged(&host, &collector, &caller).await;
        for span in [&server, &client] {
            assert_says(
                span,
                &[
                    ("http.response.status_code", json!(200)),
                    ("http.response.body.size", json!(2)),
                    ("exchange.end_reason", json!("complete")),
                ],
            );
        }
        assert_says(&client, &[("exchange.pooled_connection", json!(is_reused))]);
    }
}

const REFUSALS: [(u16, &[u8]); 2] = [
    (200, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nnot me"),
    (
        400,
        b"HTTP/1.1 400 Bad Request\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        content-length: 6\r\n\r\nnot me",
    ),
];

async fn a_refused_upgrade_is_an_exchange_like_any_other() {
    for (status, answer) in REFUSALS {
        let (upstream, collector) = (RawUpstream::start(answer).await, Collector::start().await);
        let host = HostProcess::start(config(&upstream.url(), &collector)).await;
        let mut stream = TcpStream::connect(host.public()).await.unwrap();
        // The connection speaks HTTP as before.
        for asking in ["connection: upgrade\r\nupgrade: websocket\r\n", ""] {
            let caller = Traceparent::sampled();
            let request = format!(
                "GET /hello/ada HTTP/1.1\r\nhost: here\r\n{asking}traceparent: {caller}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            read_until(&mut stream, "not me").await;
            let [server, client] = exchanged(&host, &collector, &caller).await;
            for span in [&server, &client] {
                assert_says(
                    span,
                    &[
                        ("http.response.status_code", json!(status)),
                        ("http.response.body.size", json!(6)),
                        ("exchange.end_reason", json!("complete")),
                    ],
                );
            }
            assert_eq!((server.status, client.status == 2), (0, status == 400));
        }
    }
}
