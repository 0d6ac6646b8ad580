//! Connections that change their protocol on the way through the host.

use harness::{
    Collector, Config, HostProcess, RawUpstream, Signal, SpanKind, Upstream, exchange, read_until,
    wait::within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

trials![
    an_upgrade_joins_both_sides,
    another_answer_is_a_response_like_any_other,
    http_itself_is_not_tunnelled,
    a_switch_that_nobody_asked_for_is_502,
    a_stop_waits_for_tunnels_and_cuts_them_in_peace,
];

pub(crate) const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: yes\r\n\r\nhello ";

pub(crate) fn asking(protocol: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: example.test\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: {protocol}\r\nSec-WebSocket-Key: key\r\n\r\n"
    )
}

fn config(url: String) -> Config {
    Config::new().group("upstream", url).forward("/ws", "upstream")
}

/// The response head, in lower case.
async fn head(stream: &mut TcpStream) -> String {
    read_until(stream, "\r\n\r\n").await.to_ascii_lowercase()
}

async fn reads(stream: &mut TcpStream, wanted: &str) {
    let mut bytes = vec![0; wanted.len()];
    within("bytes of a tunnel", stream.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), wanted);
}

/// A tunnel through the host that is open, and has brought the first bytes.
async fn open(host: &HostProcess) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    // What comes right behind the head belongs to the other protocol already.
    let request = asking("websocket");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    reads(&mut stream, "hello ").await;
    (stream, head)
}

async fn an_upgrade_joins_both_sides() {
    let upstream = RawUpstream::switching(SWITCHED).await;
    let host = HostProcess::start(config(upstream.url())).await;
    let (mut stream, head) = open(&host).await;
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: yes"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    for text in ["ping", "a second time"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        reads(&mut stream, text).await;
    }
    // The other direction goes on after the end of this one.
    stream.shutdown().await.unwrap();
    reads(&mut stream, "bye").await;
    assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);

    let request = String::from_utf8(upstream.take().concat()).unwrap().to_ascii_lowercase();
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: key"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line} in {request}");
    }
}

async fn another_answer_is_a_response_like_any_other() {
    let upstream = Upstream::ready().await;
    let host = HostProcess::start(config(upstream.url())).await;
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    // The connection speaks HTTP as before.
    for _ in 0..2 {
        stream.write_all(asking("websocket").as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("http/1.1 200 "));
        reads(&mut stream, "from upstream\n").await;
    }
}

async fn http_itself_is_not_tunnelled() {
    let upstream = Upstream::ready().await;
    let host = HostProcess::start(config(upstream.url())).await;
    let mut stream = TcpStream::connect(host.public()).await.unwrap();
    stream.write_all(asking("h2c").as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 200 "));
    let received = &upstream.received()[0];
    assert_eq!((received.header("upgrade"), received.header("connection")), (None, None));
}

async fn a_switch_that_nobody_asked_for_is_502() {
    let upstream = RawUpstream::switching(SWITCHED).await;
    let host = HostProcess::start(config(upstream.url())).await;
    let request = b"GET /ws HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n";
    let answer = exchange(host.public(), request).await;
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{:?}", String::from_utf8_lossy(&answer));
}

async fn a_stop_waits_for_tunnels_and_cuts_them_in_peace() {
    let upstream = RawUpstream::switching(SWITCHED).await;
    for (drain_timeout, closes) in [("60s", true), ("300ms", false)] {
        let collector = Collector::start().await;
        let config = config(upstream.url()).set("server.drain-timeout", drain_timeout);
        let config = config.traced(&collector.grpc_endpoint(), "grpc");
        let host = HostProcess::start(config).await;
        let (mut stream, _) = open(&host).await;
        host.signal(Signal::TERM);
        if closes {
            stream.write_all(b"last words").await.unwrap();
            reads(&mut stream, "last words").await;
            drop(stream);
        }
        let output = host.end().await;
        assert_eq!(output.code, 0, "{drain_timeout}: {output:?}");
        assert_eq!(output.stderr.contains("cutting tunnels"), !closes, "{output:?}");
        let spans = collector.spans();
        let tunnel = spans.iter().find(|span| span.kind == SpanKind::Internal).expect("a tunnel");
        let is_cut = tunnel.attribute("exchange.end_reason") == "stopped";
        assert_eq!(is_cut, !closes, "{tunnel:#?}");
    }
}
