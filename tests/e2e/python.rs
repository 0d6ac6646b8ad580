//! Services in Python on both sides of the host, traced by OpenTelemetry's own packages.

use harness::{Collector, Config, HostProcess, Protocol, Python, Skipped, SpanKind};
use serde_json::json;

trials![one_trace_leads_from_python_through_the_host_to_python];

async fn one_trace_leads_from_python_through_the_host_to_python() -> Result<(), Skipped> {
    let python = Python::installed()?;
    let collector = Collector::start().await;
    let endpoint = collector.http_endpoint();
    let (_service, url) = python.serve("service", &endpoint).await;
    let config = Config::new()
        .group("greeter", url)
        .forward_as("/hello/{name}", "greeter", "/greeter/{name}")
        .traced(&collector.grpc_endpoint(), "grpc");
    let host = HostProcess::start(config).await;

    let output = python.run("client", &[&host.url("/hello/ada")], &endpoint).await;
    assert_eq!((output.code, output.stdout.as_str()), (0, "200 hello ada\n"), "{output:?}");

    let spans = collector.wait_for("four spans", |spans| spans.len() >= 4).await;
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace_id == spans[0].trace_id), "{spans:#?}");
    let hops = [
        ("python-client", SpanKind::Client, "GET"),
        ("front", SpanKind::Server, "GET /hello/{name}"),
        ("front", SpanKind::Client, "GET"),
        ("python-service", SpanKind::Server, "GET /greeter/{name}"),
    ];
    let mut parent = String::new();
    for (service, kind, name) in hops {
        let of_hop = spans.iter().find(|span| {
            span.resource["service.name"] == service && span.kind == kind && span.name == name
        });
        let span = of_hop.unwrap_or_else(|| panic!("no {name} of {service}: {spans:#?}"));
        assert_eq!(span.parent_span_id, parent, "{name} of {service}");
        let is_remote = kind == SpanKind::Server;
        assert_eq!(span.has_remote_parent(), is_remote, "{name} of {service}: {span:#?}");
        assert_eq!(span.attribute("http.response.status_code"), &json!(200), "{span:#?}");
        parent.clone_from(&span.span_id);
    }
    let came_by = |protocol| collector.exports().iter().any(|export| export.protocol == protocol);
    assert!(came_by(Protocol::HttpProtobuf) && came_by(Protocol::Grpc));
    Ok(())
}
