//! Routes: what is answered, what is handed on and how, and what becomes of failures.

use std::sync::Mutex;

use bytes::Bytes;
use harness::{
    Authority, Client, Collector, Config, Gate, HostProcess, RawUpstream, Terminator, Traceparent,
    Upstream, channel, exchange, text,
    wait::{until, within},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};

trials![
    a_route_answers_with_its_template,
    a_request_is_handed_on_whole,
    a_rewrite_keeps_the_query_and_the_encoding,
    http2_is_served_on_the_same_port,
    response_chunks_pass_one_by_one,
    request_chunks_pass_one_by_one,
    a_large_body_passes_unchanged,
    a_body_of_a_get_passes_though_its_length_is_not_known,
    hop_by_hop_headers_stay_behind,
    trailers_pass_over_http2,
    the_next_hop_hears_that_trailers_are_welcome,
    cookies_that_http2_has_cut_are_one_line_again,
    a_path_without_a_route_is_404,
    a_path_that_leads_out_of_its_route_is_400,
    a_request_in_a_coding_that_is_not_known_is_501,
    a_response_in_a_coding_that_is_not_known_is_502,
    an_upstream_that_is_down_is_502,
    a_dead_instance_is_passed_over,
    a_client_that_breaks_off_its_upload_is_no_failure_of_the_upstream,
    a_slow_upstream_is_504,
    a_request_past_the_limit_is_503,
];

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

async fn forward_to(upstream: &Upstream) -> HostProcess {
    HostProcess::start(forwarding(upstream)).await
}

fn forwarding(upstream: &Upstream) -> Config {
    Config::new().group("upstream", upstream.url()).forward("/hello/{name}", "upstream").forward_as(
        "/short/{name}",
        "upstream",
        "/long/{name}/end",
    )
}

async fn a_route_answers_with_its_template() {
    let host = HostProcess::start(Config::new().respond("/greeter/{name}", 201, "hello {name}\n"));
    let answer = host.await.get("/greeter/ada").send().await;
    assert_eq!((answer.status, answer.text()), (201, "hello ada\n"));
}

async fn a_request_is_handed_on_whole() {
    let upstream = Upstream::echo().await;
    let host = forward_to(&upstream).await;
    let answer = Client::http1()
        .call(Method::PUT, &host.url("/hello/ada?q=1&q=2"))
        .header("x-one", "1")
        .header("accept", "a/b")
        .header("accept", "c/d")
        .body(text("as it is"))
        .send()
        .await;
    assert_eq!((answer.status, answer.text()), (200, "as it is"));
    let received = &upstream.received()[0];
    assert_eq!((&received.method, received.target.as_str()), (&Method::PUT, "/hello/ada?q=1&q=2"));
    assert_eq!(received.header("x-one"), Some("1"));
    let accept: Vec<_> = received.headers.get_all("accept").iter().collect();
    assert_eq!(accept, ["a/b", "c/d"]);
}

async fn a_rewrite_keeps_the_query_and_the_encoding() {
    let upstream = Upstream::ready().await;
    let host = forward_to(&upstream).await;
    assert_eq!(host.get("/short/a%20b%2Fc?q=%26").send().await.status, 200);
    assert_eq!(upstream.received()[0].target, "/long/a%20b%2Fc/end?q=%26");
}

async fn http2_is_served_on_the_same_port() {
    let upstream = Upstream::ready().await;
    let host = forward_to(&upstream).await;
    for (client, version) in
        [(Client::http2(), Version::HTTP_2), (Client::http1(), Version::HTTP_11)]
    {
        let answer = client.get(&host.url("/hello/ada")).send().await;
        assert_eq!((answer.status, answer.version), (200, version));
        assert_eq!(answer.text(), "from upstream\n");
    }
}

async fn next_chunk(body: &mut Incoming) -> Option<Bytes> {
    let frame = within("a chunk of a response", body.frame()).await?;
    Some(frame.unwrap().into_data().unwrap())
}

async fn response_chunks_pass_one_by_one() {
    for client in [Client::http1(), Client::http2()] {
        let (mut sender, body) = channel();
        let body = Mutex::new(Some(body));
        let upstream = Upstream::start(move |_| {
            let body = body.lock().unwrap().take().expect("one request");
            async move { Response::new(body) }
        })
        .await;
        let host = forward_to(&upstream).await;
        let response = client.get(&host.url("/hello/ada")).open().await.unwrap();
        let mut body = response.into_body();
        // Each chunk is sent only after the one before it has come through.
        for chunk in ["one", "two", "three"] {
            sender.send_data(Bytes::from(chunk)).await.unwrap();
            assert_eq!(next_chunk(&mut body).await.unwrap(), chunk);
        }
        drop(sender);
        let rest = within("the end of a response", body.collect()).await.unwrap().to_bytes();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

async fn request_chunks_pass_one_by_one() {
    for client in [Client::http1(), Client::http2()] {
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let upstream = Upstream::start(move |request| {
            let arrived = arrived.clone();
            async move {
                let mut body = request.into_body();
                while let Some(chunk) = next_chunk(&mut body).await {
                    arrived.send(chunk).unwrap();
                }
                Response::new(text("all there"))
            }
        })
        .await;
        let host = forward_to(&upstream).await;
        let (mut sender, body) = channel();
        let url = host.url("/hello/ada");
        let call = client.call(Method::POST, &url).body(body).send();
        let chunks = async {
            for chunk in ["one", "two", "three"] {
                sender.send_data(Bytes::from(chunk)).await.unwrap();
                assert_eq!(within("a chunk upstream", arrivals.recv()).await.unwrap(), chunk);
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(call, chunks);
        assert_eq!((answer.status, answer.text()), (200, "all there"));
    }
}

async fn a_large_body_passes_unchanged() {
    let upstream = Upstream::echo().await;
    let host = forward_to(&upstream).await;
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    for client in [Client::http1(), Client::http2()] {
        let call = client.call(Method::POST, &host.url("/hello/ada")).body(text(large.clone()));
        let answer = call.send().await;
        assert!(answer.status == 200 && answer.body == large, "{}", answer.body.len());
    }
}

async fn a_body_of_a_get_passes_though_its_length_is_not_known() {
    let upstream = Upstream::echo().await;
    let (authority, tls) = both_over_tls(&upstream).await;
    let host = HostProcess::start(three_ways(&upstream, &authority, &tls)).await;
    for client in [Client::http1(), Client::http2()] {
        for path in ["/plain", "/http2", "/http1"] {
            let (mut sender, body) = channel();
            sender.send_data(Bytes::from("hello")).await.unwrap();
            drop(sender);
            let url = host.url(path);
            let call = client.get(&url).header("transfer-encoding", "chunked").body(body);
            let answer = call.send().await;
            assert_eq!((answer.status, answer.text()), (200, "hello"), "{path}");
        }
        assert_eq!(client.get(&host.url("/plain")).send().await.text(), "");
    }
    let coded = upstream.received().into_iter().map(|received| {
        let is_coded = received.header("transfer-encoding") == Some("chunked");
        (received.version, is_coded)
    });
    let plain = [(Version::HTTP_11, true), (Version::HTTP_2, false), (Version::HTTP_11, true)];
    let one = [&plain[..], &[(Version::HTTP_11, false)]].concat();
    assert_eq!(coded.collect::<Vec<_>>(), [&one[..], &one[..]].concat());
}

async fn hop_by_hop_headers_stay_behind() {
    let upstream = Upstream::start(async |_| {
        Response::builder()
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("x-end", "1")
            .body(text("done"))
            .unwrap()
    })
    .await;
    let host = forward_to(&upstream).await;
    let answer = host
        .get("/hello/ada")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "deflate")
        .header("proxy-connection", "keep-alive")
        .header("x-end", "1")
        .send()
        .await;
    let received = &upstream.received()[0];
    assert_eq!((received.header("x-end"), answer.header("x-end")), (Some("1"), Some("1")));
    for name in ["connection", "x-hop", "keep-alive", "te", "proxy-connection"] {
        assert_eq!(received.header(name), None, "{name} upstream");
        assert_eq!(answer.header(name), None, "{name} in the response");
    }
}

async fn trailers_pass_over_http2() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n\
        5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n",
    )
    .await;
    let config = Config::new().group("upstream", upstream.url()).forward("/a", "upstream");
    let host = HostProcess::start(config).await;
    let client = Client::http2();
    let response = client.get(&host.url("/a")).header("te", "trailers").open().await.unwrap();
    assert_eq!(response.headers()["trailer"], "grpc-status");
    let body = within("the end of a response", response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");
}

/// Offers HTTP/2 in front of `upstream`, and HTTP/1.1.
async fn both_over_tls(upstream: &Upstream) -> (Authority, [Terminator; 2]) {
    let authority = Authority::new();
    let http2 = Terminator::before(&upstream.url(), &authority, &["h2"], None).await;
    let http1 = Terminator::before(&upstream.url(), &authority, &["http/1.1"], None).await;
    (authority, [http2, http1])
}

/// Forwards `/plain` to `upstream` itself, and `/http2` and `/http1` to it over TLS.
fn three_ways(upstream: &Upstream, authority: &Authority, tls: &[Terminator; 2]) -> Config {
    let config = Config::new().set("client.tls.ca", authority.ca().display().to_string());
    let config = config.group("plain", upstream.url()).forward("/plain", "plain");
    let config = config.group("http2", tls[0].url()).forward("/http2", "http2");
    config.group("http1", tls[1].url()).forward("/http1", "http1")
}

async fn the_next_hop_hears_that_trailers_are_welcome() {
    // As every server by hyper, it sends trailers over HTTP/1.1 to those alone who have asked.
    let upstream = Upstream::start(async |_| {
        let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
        let body = text("hello").with_trailers(std::future::ready(Some(Ok(trailers)))).boxed();
        let response = Response::builder().header("transfer-encoding", "chunked");
        response.header("trailer", GRPC_STATUS).body(body).unwrap()
    })
    .await;
    let (authority, tls) = both_over_tls(&upstream).await;
    let host = HostProcess::start(three_ways(&upstream, &authority, &tls)).await;
    let client = Client::http2();
    for path in ["/plain", "/http2", "/http1"] {
        let call = client.get(&host.url(path)).header("te", "trailers");
        let body = call.open().await.unwrap().into_body();
        let body = within("the end of a response", body.collect()).await.unwrap();
        assert_eq!(body.trailers().unwrap()[GRPC_STATUS], "0", "{path}");
    }
    let connection = upstream.received().into_iter().map(|received| {
        assert_eq!(received.header("te"), Some("trailers"), "{received:?}");
        received.header("connection").map(str::to_owned)
    });
    assert_eq!(connection.collect::<Vec<_>>(), [Some("te".to_owned()), None, None]);
}

async fn cookies_that_http2_has_cut_are_one_line_again() {
    let upstream = Upstream::ready().await;
    let host = forward_to(&upstream).await;
    let client = Client::http2();
    let call = client.get(&host.url("/hello/ada")).header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(call.send().await.status, 200);
    let received = &upstream.received()[0];
    assert_eq!(received.headers.get_all("cookie").iter().count(), 1, "{received:?}");
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
}

async fn a_path_without_a_route_is_404() {
    let upstream = Upstream::ready().await;
    let host = forward_to(&upstream).await;
    for path in ["/", "/hello", "/hello/", "/hello/ada/more", "/Hello/ada"] {
        assert_eq!(host.get(path).send().await.status, 404, "{path}");
    }
    assert!(upstream.received().is_empty());
}

async fn a_path_that_leads_out_of_its_route_is_400() {
    let upstream = Upstream::ready().await;
    let config = forwarding(&upstream).forward_as("/up/{*rest}", "upstream", "/x/{rest}");
    let host = HostProcess::start(config.forward("/same/{*rest}", "upstream")).await;
    // As it is: a client of ours might resolve it.
    let status = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
        let answer = exchange(host.public(), request.as_bytes()).await;
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned).unwrap()
    };
    for path in ["/up/../../admin", "/up/%2e%2E/a", "/same/a/./b?c", "/same/.%2e", "/hello/.."] {
        assert_eq!(status(path).await, "400", "{path}");
    }
    assert!(upstream.received().is_empty());
    for path in ["/up/.a/b.c/..d", "/same/a?b=/../c", "/hello/..."] {
        assert_eq!(status(path).await, "200", "{path}");
    }
}

async fn a_request_in_a_coding_that_is_not_known_is_501() {
    let upstream = Upstream::ready().await;
    let host = forward_to(&upstream).await;
    let request = b"POST /hello/ada HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\
        transfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let answer = exchange(host.public(), request).await;
    assert!(answer.starts_with(b"HTTP/1.1 501 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(upstream.received().is_empty());
}

async fn a_response_in_a_coding_that_is_not_known_is_502() {
    let upstream = RawUpstream::start(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    )
    .await;
    let config = Config::new().group("upstream", upstream.url()).forward("/a", "upstream");
    let host = HostProcess::start(config).await;
    assert_eq!(host.get("/a").send().await.status, 502);
}

async fn an_upstream_that_is_down_is_502() {
    let absent = Collector::absent();
    let config = Config::new().group("down", absent.grpc_endpoint()).forward("/down", "down");
    let host = HostProcess::start(config).await;
    assert_eq!(host.get("/down").send().await.status, 502);
    assert_eq!(host.ask("/healthz").await.status, 200);
}

async fn a_dead_instance_is_passed_over() {
    let (absent, upstream) = (Collector::absent(), Upstream::ready().await);
    let instances = vec![absent.grpc_endpoint(), upstream.url()];
    let config = forwarding(&upstream).set("discovery.static.upstream", instances);
    let host = HostProcess::start(config).await;
    let ask = async |method| {
        let client = Client::http1();
        client.call(method, &host.url("/hello/ada")).send().await.status
    };
    // Where no connection is made, nothing is sent that could do harm twice.
    for method in [Method::GET, Method::POST].iter().cycle().take(20) {
        assert_eq!(ask(method.clone()).await, 200, "{method}");
    }
    let ejected = host.lines_with(&["WARN", &absent.grpc_endpoint(), "ejected for 1s"]);
    assert_eq!(ejected.len(), 1, "{ejected:?}");
}

async fn a_client_that_breaks_off_its_upload_is_no_failure_of_the_upstream() {
    let collector = Collector::start().await;
    let upstream = Upstream::start(async |request| {
        // It never comes whole.
        let _ = request.into_body().collect().await;
        Response::new(text("all there"))
    })
    .await;
    let (authority, tls) = both_over_tls(&upstream).await;
    let config = three_ways(&upstream, &authority, &tls);
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    for (nth, path) in ["/plain", "/http2", "/http1"].into_iter().enumerate() {
        let caller = Traceparent::sampled();
        let mut stream = TcpStream::connect(host.public()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: here\r\ntraceparent: {caller}\r\n");
        let request = format!("{head}content-length: 5\r\n\r\nhell");
        stream.write_all(request.as_bytes()).await.unwrap();
        upstream.wait_for(nth + 1).await;
        drop(stream);
        for span in collector.trace(&caller.trace_id, 2).await {
            assert_eq!(span.attribute("exchange.end_reason"), "client gone", "{path}: {span:#?}");
        }
    }
    let output = host.stop().await;
    assert!(!output.stderr.contains("WARN"), "{output:?}");
}

async fn a_slow_upstream_is_504() {
    for key in ["server.request-timeout", "client.request-timeout"] {
        let upstream = Upstream::behind(&Gate::closed()).await;
        let host = HostProcess::start(forwarding(&upstream).set(key, "200ms")).await;
        assert_eq!(host.get("/hello/ada").send().await.status, 504, "{key}");
    }
}

async fn a_request_past_the_limit_is_503() {
    let gate = Gate::closed();
    let upstream = Upstream::behind(&gate).await;
    let host = HostProcess::start(forwarding(&upstream).set("server.max-in-flight", 1)).await;
    let url = host.url("/hello/ada");
    let first = tokio::spawn(async move { Client::http1().get(&url).send().await.status });
    upstream.wait_for(1).await;
    assert_eq!(host.get("/hello/ada").send().await.status, 503);
    assert_eq!(upstream.received().len(), 1);
    gate.open();
    assert_eq!(first.await.unwrap(), 200);
    until("room for another request", async || {
        (host.get("/hello/ada").send().await.status == 200).then_some(())
    })
    .await;
}
