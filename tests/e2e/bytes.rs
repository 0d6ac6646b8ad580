//! A host without tracing behaves as if tracing had never been written: byte for byte.

use harness::{Config, HostProcess, RawUpstream, artifacts, exchange};

trials![a_disabled_plugin_changes_no_byte, a_missing_plugin_changes_no_byte,];

const CHUNKED: &[u8] =
    b"HTTP/1.1 203 Other\r\nX-Case: Kept\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
    Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

/// Every kind of request that a host treats in its own way, each closing its connection.
const REQUESTS: [&str; 9] = [
    "GET /forward/a?q=%20x HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    "POST /forward/a HTTP/1.1\r\nHost: example.test\r\nX-Case: Kept\r\nContent-Length: 5\r\n\
        Connection: close\r\n\r\nhello",
    "HEAD /forward/a HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    "GET /forward/a HTTP/1.0\r\nHost: example.test\r\n\r\n",
    "GET /rewrite/a%2Fb HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    "GET /respond/ada HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    "GET /nowhere HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    "GET /down HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n",
    // Trace headers are nothing but headers to a host without a plugin.
    "GET /forward/a HTTP/1.1\r\nHost: example.test\r\n\
        traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
        tracestate: vendor=1\r\nbaggage: user=7\r\nConnection: close\r\n\r\n",
];

async fn a_disabled_plugin_changes_no_byte() {
    let library = artifacts::plugin_otel().display().to_string();
    assert_same_bytes(|config| config.plugin(&library).set("otel.enabled", false)).await;
}

async fn a_missing_plugin_changes_no_byte() {
    assert_same_bytes(|config| config.plugin("/nowhere/libplugin_otel.so")).await;
}

/// Compares a host with the `[otel]` section that `change` makes to one without it.
async fn assert_same_bytes(change: impl Fn(Config) -> Config) {
    let upstream = RawUpstream::start(CHUNKED).await;
    let config = Config::new()
        .group("upstream", upstream.url())
        .group("down", "http://127.0.0.1:1")
        .forward("/forward/{name}", "upstream")
        .forward_as("/rewrite/{name}", "upstream", "/elsewhere/{name}")
        .forward("/down", "down")
        .respond("/respond/{name}", 201, "hello {name}\n");
    let before = conversation(config.clone(), &upstream).await;
    let after = conversation(change(config), &upstream).await;
    assert_eq!(before, after);
    assert!(before[0].contains("hello") && before[0].contains("x-case: Kept"), "{before:#?}");
}

/// What the host sends on both sides for every request.
async fn conversation(config: Config, upstream: &RawUpstream) -> Vec<String> {
    let host = HostProcess::start(config).await;
    let mut all = Vec::new();
    for request in REQUESTS {
        let answer = exchange(host.public(), request.as_bytes()).await;
        let sent = upstream.take().concat();
        all.push(format!("sent: {}\nanswered: {}", comparable(&sent), comparable(&answer)));
    }
    all
}

/// The bytes, but for the two values that are another each time.
fn comparable(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines = text.split("\r\n").map(|line| match line.split_once(": ") {
        Some((name, _))
            if ["date", "x-request-id"].contains(&name.to_ascii_lowercase().as_str()) =>
        {
            name
        }
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\r\n")
}
