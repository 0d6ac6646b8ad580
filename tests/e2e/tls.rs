//! TLS on the public port and to instances. Export over TLS is in `export_tls`.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use harness::{
    Authority, Collector, Config, Gate, Handshake, HostProcess, Launch, Pair, RawUpstream, Signal,
    Skipped, SpanKind, Terminator, Traceparent, Upstream, exchange, read_until, run,
    wait::{until, within},
};
use http::Version;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    curl::{curl, features},
    upgrade::{SWITCHED, asking},
};

trials![
    each_version_of_http_is_served_over_tls_and_traced_as_https,
    a_handshake_that_fails_is_no_span_and_no_warning,
    a_new_certificate_is_used_without_a_failed_request,
    only_clients_with_a_certificate_are_let_in,
    a_file_that_cannot_be_used_ends_the_start_with_its_name,
    an_upgrade_joins_both_sides_over_tls,
    a_stop_finishes_what_is_open_over_tls,
    calls_go_over_tls_and_show_a_certificate,
    a_call_over_tls_says_whether_its_connection_had_carried_another,
    an_instance_that_nobody_vouches_for_is_502,
];

trait Secured {
    /// With TLS on the public port.
    fn secured(self, pair: &Pair) -> Self;
}

impl Secured for Config {
    fn secured(self, pair: &Pair) -> Self {
        self.set("server.tls.cert", pair.cert.display().to_string())
            .set("server.tls.key", pair.key.display().to_string())
    }
}

fn https(host: &HostProcess, path: &str) -> String {
    format!("https://{}{path}", host.public())
}

fn forwarding(url: String) -> Config {
    Config::new().group("upstream", url).forward("/hello/{name}", "upstream")
}

async fn each_version_of_http_is_served_over_tls_and_traced_as_https() -> Result<(), Skipped> {
    if !features().await?.contains("HTTP2") {
        return Err(Skipped::new("curl is built without HTTP/2"));
    }
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let authority = Authority::new();
    let config = forwarding(upstream.url()).secured(&authority.issue("host"));
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    let ca = authority.ca().display().to_string();
    for (option, tls, version) in [
        ("--http1.1", "--tlsv1.3", "1.1"),
        ("--http2", "--tlsv1.3", "2"),
        ("--http2", "--tls-max=1.2", "2"),
    ] {
        let caller = Traceparent::sampled();
        let (header, url) = (format!("traceparent: {caller}"), https(&host, "/hello/ada"));
        let tls: Vec<&str> = tls.split('=').collect();
        let arguments = [&[option, "--cacert", &ca, "-H", &header, &url][..], &tls].concat();
        let output = curl(&arguments).await;
        let answer = (output.code, output.stdout.as_str());
        assert_eq!(answer, (0, "from upstream\n"), "{option}: {output:?}");

        let spans = collector.trace(&caller.trace_id, 2).await;
        let server = spans.iter().find(|span| span.kind == SpanKind::Server).unwrap();
        for (name, value) in [
            ("url.scheme", json!("https")),
            ("network.protocol.version", json!(version)),
            ("client.address", json!("127.0.0.1")),
            ("server.port", json!(host.public().port())),
        ] {
            assert_eq!(server.attribute(name), &value, "{option}: {name} of {server:#?}");
        }
    }
    Ok(())
}

async fn a_handshake_that_fails_is_no_span_and_no_warning() {
    let collector = Collector::start().await;
    let authority = Authority::new();
    let config = Config::new().respond("/", 200, "here\n").secured(&authority.issue("host"));
    let host = HostProcess::start(config.traced(&collector.grpc_endpoint(), "grpc")).await;
    assert!(Authority::new().connect(host.public()).await.is_err());
    let plain = exchange(host.public(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!plain.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&plain));
    assert_eq!(get(&authority, &host).await.unwrap(), "here\n");
    collector.wait_for("a span", |spans| !spans.is_empty()).await;
    let output = host.stop().await;
    assert_eq!(collector.spans().len(), 1);
    assert!(!output.stderr.contains("WARN"), "{output:?}");
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The body of an answer over a connection of its own.
async fn get(authority: &Authority, host: &HostProcess) -> std::io::Result<String> {
    let mut stream = authority.connect(host.public()).await?;
    stream.write_all(GET).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// The certificate that the host shows to new connections.
async fn shown(authority: &Authority, host: &HostProcess) -> Vec<u8> {
    let stream = authority.connect(host.public()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn a_new_certificate_is_used_without_a_failed_request() {
    let authority = Arc::new(Authority::new());
    let pair = authority.issue("host");
    let config = Config::new().respond("/", 200, "here\n").secured(&pair);
    let host = Arc::new(HostProcess::start(config).await);
    let (over, answered, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::default());
    let load = Arc::new((over, answered, failed));
    let tasks = [(); 4].map(|()| {
        let (authority, host, load) = (authority.clone(), host.clone(), load.clone());
        tokio::spawn(async move {
            let (over, answered, failed): &(_, _, Mutex<Vec<String>>) = &load;
            while !over.load(Ordering::Relaxed) {
                match get(&authority, &host).await {
                    Ok(body) if body == "here\n" => _ = answered.fetch_add(1, Ordering::Relaxed),
                    other => failed.lock().unwrap().push(format!("{other:?}")),
                }
            }
        })
    });
    let first = shown(&authority, &host).await;
    let _ = authority.issue("host");
    until("the new certificate", async || (shown(&authority, &host).await != first).then_some(()))
        .await;
    let second = shown(&authority, &host).await;
    fs::write(&pair.cert, "broken").unwrap();
    until("a warning", async || {
        (!host.lines_with(&["WARN", "server.tls.cert", "no certificate"]).is_empty()).then_some(())
    })
    .await;
    assert_eq!(shown(&authority, &host).await, second, "the last good one stays");
    load.0.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*load.2.lock().unwrap(), [""; 0]);
    assert!(load.1.load(Ordering::Relaxed) > 0);
    assert_eq!(host.lines_with(&["server.tls"]).len(), 2, "{}", host.stderr());
}

async fn only_clients_with_a_certificate_are_let_in() -> Result<(), Skipped> {
    features().await?;
    let (authority, clients) = (Authority::new(), Authority::new());
    let config = Config::new().respond("/", 200, "here\n").secured(&authority.issue("host"));
    let client_ca = clients.ca().display().to_string();
    let host = HostProcess::start(config.set("server.tls.client-ca", client_ca)).await;
    let (ca, url) = (authority.ca().display().to_string(), https(&host, "/"));
    for (shows, is_let_in) in [
        (None, false),
        (Some(authority.issue("stranger")), false),
        (Some(clients.issue("known")), true),
    ] {
        let files = shows.map(|pair| [pair.cert, pair.key].map(|file| file.display().to_string()));
        let mut arguments = vec!["--cacert", &ca, &url];
        if let Some([cert, key]) = &files {
            arguments.extend(["--cert", cert, "--key", key]);
        }
        let output = curl(&arguments).await;
        assert_eq!(output.code == 0, is_let_in, "{output:?}");
        assert_eq!(output.stdout == "here\n", is_let_in, "{output:?}");
    }
    Ok(())
}

async fn a_file_that_cannot_be_used_ends_the_start_with_its_name() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let pair = authority.issue("own");
    // Relative paths start at the file's folder, wherever the host is started.
    for (from, to) in [(&pair.cert, "cert.pem"), (&pair.key, "key.pem")] {
        fs::copy(from, folder.path().join(to)).unwrap();
    }
    let other = authority.issue("other").key.display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let file = path("host.toml");
    let elsewhere = tempfile::tempdir().unwrap();
    for (section, table, key, wanted) in [
        ("server", r#"{ cert = "no.pem", key = "key.pem" }"#, "cert", "no.pem: cannot be read: "),
        ("server", r#"{ cert = "cert.pem", key = "cert.pem" }"#, "key", "cert.pem: holds no "),
        ("server", &format!(r#"{{ cert = "cert.pem", key = "{other}" }}"#), "key", "is not the "),
        ("client", r#"{ ca = "key.pem" }"#, "ca", "key.pem: holds no certificate in PEM"),
        ("client", r#"{ cert = "cert.pem" }"#, "cert", "wanted cert and key, found only cert"),
    ] {
        fs::write(&file, format!("[{section}]\ntls = {table}\n")).unwrap();
        for command in [&["--config", &file][..], &["check", "--config", &file]] {
            let output = run(elsewhere.path(), command, &[]).await;
            assert_eq!((output.code, output.stderr.lines().count()), (78, 1), "{output:?}");
            let start = format!("host: {file}:2: {section}.tls.{key}: ");
            assert!(output.stderr.starts_with(&start), "{start}: {output:?}");
            assert!(output.stderr.contains(wanted), "{wanted}: {output:?}");
        }
    }
    let tls = r#"tls = { cert = "cert.pem", key = "key.pem" }"#;
    fs::write(&file, format!("[server]\n{tls}\n[client]\n{tls}\n")).unwrap();
    let output = run(elsewhere.path(), &["check", "--config", &file], &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    let line = format!("server.tls.key = {:?}  # file {file}:2", path("key.pem"));
    assert!(output.stdout.contains(&line), "{line}: {output:?}");
}

async fn an_upgrade_joins_both_sides_over_tls() {
    let (authority, upstream) = (Authority::new(), RawUpstream::switching(SWITCHED).await);
    let upstream = Terminator::before(&upstream.url(), &authority, &["h2", "http/1.1"], None).await;
    let config = Config::new().group("upstream", upstream.url()).forward("/ws", "upstream");
    let config = config.set("client.tls.ca", authority.ca().display().to_string());
    let host = HostProcess::start(config.secured(&authority.issue("host"))).await;

    let mut stream = authority.connect(host.public()).await.unwrap();
    stream.write_all(asking("websocket").as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\nhello ").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    stream.shutdown().await.unwrap();
    read_until(&mut stream, "bye").await;
    assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);
    let alpn = upstream.handshakes()[0].alpn.clone();
    assert_eq!(alpn.as_deref(), Some("http/1.1"), "HTTP/2 has no upgrades");
}

async fn a_stop_finishes_what_is_open_over_tls() {
    let (authority, gate) = (Authority::new(), Gate::closed());
    let upstream = Upstream::behind(&gate).await;
    let config = Config::new().group("upstream", upstream.url()).forward("/", "upstream");
    let host = HostProcess::start(config.secured(&authority.issue("host"))).await;
    // Neither is in a stop's way: one never begins its handshake, one never asks.
    let _silent = tokio::net::TcpStream::connect(host.public()).await.unwrap();
    let _idle = authority.connect(host.public()).await.unwrap();
    let mut stream = authority.connect(host.public()).await.unwrap();
    stream.write_all(GET).await.unwrap();
    upstream.wait_for(1).await;
    host.signal(Signal::TERM);
    until("the drain", async || host.stderr().contains("stopping").then_some(())).await;
    gate.open();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("from upstream\n"), "{answer}");
    assert_eq!(within("the end", host.end()).await.code, 0);
}

async fn calls_go_over_tls_and_show_a_certificate() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let (authority, clients) = (Authority::new(), Authority::new());
    let own = clients.issue("host");
    for (alpn, version, number) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2, "2"), (&[], Version::HTTP_11, "1.1")]
    {
        let upstreams = Terminator::before(&upstream.url(), &authority, alpn, Some(&clients)).await;
        let config = forwarding(upstreams.url())
            .set("client.tls.ca", authority.ca().display().to_string())
            .set("client.tls.cert", own.cert.display().to_string())
            .set("client.tls.key", own.key.display().to_string())
            .traced(&collector.grpc_endpoint(), "grpc");
        let host = HostProcess::start(config).await;
        let caller = Traceparent::sampled();
        for _ in 0..2 {
            let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
            assert_eq!((answer.status, answer.text()), (200, "from upstream\n"));
        }
        let wanted = Handshake {
            alpn: alpn.first().map(|name| (*name).to_owned()),
            server_name: Some("localhost".to_owned()),
            has_client_certificate: true,
        };
        assert_eq!(upstreams.handshakes(), [wanted], "one connection serves both calls");
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.version, &*received.target), (version, "/hello/ada"));

        let spans = collector.trace(&caller.trace_id, 4).await;
        let client = spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
        let port = upstreams.url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        for (name, value) in [
            ("url.full", json!(format!("{}/hello/ada", upstreams.url()))),
            ("server.address", json!("localhost")),
            ("server.port", json!(port)),
            ("network.peer.address", json!("127.0.0.1")),
            ("network.protocol.version", json!(number)),
        ] {
            assert_eq!(client.attribute(name), &value, "{name} of {client:#?}");
        }
    }
}

async fn a_call_over_tls_says_whether_its_connection_had_carried_another() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let authority = Authority::new();
    for alpn in ["h2", "http/1.1"] {
        let upstreams = Terminator::before(&upstream.url(), &authority, &[alpn], None).await;
        let config = forwarding(upstreams.url())
            .set("client.tls.ca", authority.ca().display().to_string())
            .traced(&collector.grpc_endpoint(), "grpc");
        let host = HostProcess::start(config).await;
        for is_pooled in [false, true, true] {
            let caller = Traceparent::sampled();
            let call = host.get("/hello/ada").header("traceparent", &caller);
            assert_eq!(call.send().await.status, 200);
            let spans = collector.trace(&caller.trace_id, 2).await;
            let client = spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
            let said = client.attribute("exchange.pooled_connection");
            assert_eq!(said, &json!(is_pooled), "{alpn}: {client:#?}");
        }
        assert_eq!(upstreams.handshakes().len(), 1, "{alpn}");
    }
}

async fn an_instance_that_nobody_vouches_for_is_502() {
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let (authority, other) = (Authority::new(), Authority::new());
    let upstream = Terminator::before(&upstream.url(), &authority, &["h2"], None).await;
    let host = |roots: &Authority| {
        let config = forwarding(upstream.url()).set("client.retries", 0);
        let config = config.traced(&collector.grpc_endpoint(), "grpc");
        // Where OpenSSL, too, looks for the system's.
        Launch::host(config).env("SSL_CERT_FILE", &roots.ca().display().to_string()).start()
    };
    let trusting = host(&authority).await;
    assert_eq!(trusting.get("/hello/ada").send().await.status, 200);

    let host = host(&other).await;
    let caller = Traceparent::sampled();
    let answer = host.get("/hello/ada").header("traceparent", &caller).send().await;
    assert_eq!(answer.status, 502);
    let place = format!("cannot connect to {}/", upstream.url());
    let said = host.lines_with(&["WARN", &place, "invalid peer certificate: UnknownIssuer"]);
    assert_eq!(said.len(), 1, "{}", host.stderr());
    let spans = collector.trace(&caller.trace_id, 2).await;
    let client = spans.iter().find(|span| span.kind == SpanKind::Client).unwrap();
    assert_eq!(client.attribute("error.type"), "connect_failed", "{client:#?}");
    assert_eq!(client.status, 2, "{client:#?}");
}
