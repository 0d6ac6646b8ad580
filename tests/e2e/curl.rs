//! A client that everybody has, in each version of HTTP that it speaks.

use std::process::Command;

use harness::{
    Collector, Config, HostProcess, Output, Process, Skipped, SpanKind, Traceparent, Upstream,
};
use serde_json::json;

trials![
    each_version_of_http_is_traced_as_what_it_is,
    a_method_of_its_own_is_told_apart_from_those_that_are_known,
];

/// A host that forwards `/hello/{name}`.
async fn front(collector: &Collector, upstream: &Upstream) -> HostProcess {
    let config = Config::new()
        .group("upstream", upstream.url())
        .forward("/hello/{name}", "upstream")
        .traced(&collector.grpc_endpoint(), "grpc");
    HostProcess::start(config).await
}

pub(crate) async fn curl(arguments: &[&str]) -> Output {
    // Without -q, a configuration file in the home folder would have a say.
    let mut command = Command::new("curl");
    command.args(["-q", "--silent", "--show-error", "--noproxy", "*"]).args(arguments);
    Process::spawn(&mut command).end().await
}

/// What curl says that it can do.
pub(crate) async fn features() -> Result<String, Skipped> {
    match Command::new("curl").arg("--version").output() {
        Ok(_) => Ok(curl(&["--version"]).await.stdout),
        Err(_) => Err(Skipped::new("curl is not installed")),
    }
}

async fn each_version_of_http_is_traced_as_what_it_is() -> Result<(), Skipped> {
    let features = features().await?;
    if !features.contains("HTTP2") {
        return Err(Skipped::new("curl is built without HTTP/2"));
    }
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&collector, &upstream).await;
    for (option, version) in
        [("--http1.0", "1.0"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")]
    {
        let caller = Traceparent::sampled();
        let (header, url) = (format!("traceparent: {caller}"), host.url("/hello/ada?x=1"));
        let output = curl(&[option, "-H", &header, &url]).await;
        let answer = (output.code, output.stdout.as_str());
        assert_eq!(answer, (0, "from upstream\n"), "{option}: {output:?}");

        let spans = collector.trace(&caller.trace_id, 2).await;
        let of_kind = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
        let (server, client) = (of_kind(SpanKind::Server), of_kind(SpanKind::Client));
        assert_eq!(server.parent_span_id, caller.span_id, "{option}");
        assert_eq!(client.parent_span_id, server.span_id, "{option}");
        assert_eq!(server.name, "GET /hello/{name}");
        for (name, value) in [
            ("network.protocol.version", json!(version)),
            ("http.response.status_code", json!(200)),
            ("url.path", json!("/hello/ada")),
            ("url.query", json!("x=1")),
            ("server.port", json!(host.public().port())),
            ("client.address", json!("127.0.0.1")),
        ] {
            assert_eq!(server.attribute(name), &value, "{option}: {name} of {server:#?}");
        }
        let agent = server.attribute("user_agent.original").as_str().unwrap();
        assert!(features.starts_with(&agent.replace('/', " ")), "{agent} in {features}");
        assert_eq!(client.attribute("network.protocol.version"), "1.1", "of the call upstream");
    }
    Ok(())
}

async fn a_method_of_its_own_is_told_apart_from_those_that_are_known() -> Result<(), Skipped> {
    features().await?;
    let (collector, upstream) = (Collector::start().await, Upstream::ready().await);
    let host = front(&collector, &upstream).await;
    let caller = Traceparent::sampled();
    let header = format!("traceparent: {caller}");
    let output = curl(&["-X", "BREW", "-H", &header, &host.url("/hello/ada")]).await;
    assert_eq!((output.code, output.stdout.as_str()), (0, "from upstream\n"), "{output:?}");
    assert_eq!(upstream.received()[0].method, "BREW", "it is handed on as it came");
    for span in collector.trace(&caller.trace_id, 2).await {
        assert_eq!(span.attribute("http.request.method"), "_OTHER", "{span:#?}");
        assert_eq!(span.attribute("http.request.method_original"), "BREW", "{span:#?}");
        assert!(["HTTP", "HTTP /hello/{name}"].contains(&&*span.name), "{span:#?}");
    }
    Ok(())
}
