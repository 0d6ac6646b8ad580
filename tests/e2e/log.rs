//! What the host writes of a request, and how it leads to the trace.

use harness::{Collector, Config, HostProcess, Traceparent, wait::until};
use serde_json::{Value, json};

trials![a_line_of_a_request_leads_to_its_trace, the_access_log_needs_no_plugin,];

/// The only line of the log that has `value` at `key`, once it is there.
async fn line(host: &HostProcess, key: &str, value: &str) -> Value {
    until(&format!("a line with {key} {value}"), async || {
        let stderr = host.stderr();
        let lines = stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = lines.filter(|line| line[key] == value).collect();
        assert!(found.len() <= 1, "{found:#?}");
        found.into_iter().next()
    })
    .await
}

async fn a_line_of_a_request_leads_to_its_trace() {
    let collector = Collector::start().await;
    let config = Config::new()
        .group("down", "http://127.0.0.1:1")
        .forward("/down/{name}", "down")
        .set("log.format", "json")
        .set("log.access", true)
        .traced(&collector.grpc_endpoint(), "grpc");
    let host = HostProcess::start(config).await;
    assert_eq!(host.stack("server").await[..3], ["otel", "access-log", "request-id"]);
    // An unsampled trace is one all the same.
    let caller = Traceparent::unsampled();
    let call = host.get("/down/ada?token=secret").header("traceparent", &caller);
    let answer = call.send().await;
    assert_eq!(answer.status, 502);

    let access = line(&host, "target", "access").await;
    assert_eq!((&access["method"], &access["path"]), (&json!("GET"), &json!("/down/ada")));
    assert_eq!((&access["status"], &access["outcome"]), (&json!(502), &json!("upstream gone")));
    assert_eq!(access["bytes_out"], json!(answer.body.len()));
    assert_eq!(access["request_id"].as_str(), answer.header("x-request-id"));
    let reason = line(&host, "level", "WARN").await;
    for line in [&access, &reason] {
        assert_eq!(line["trace_id"].as_str(), Some(caller.trace_id.as_str()), "{line}");
    }
    assert_eq!(access["span_id"], reason["span_id"]);
    assert!(!host.stderr().contains("secret"));
}

async fn the_access_log_needs_no_plugin() {
    let config = Config::new().respond("/a", 200, "hello").set("log.access", true);
    let host = HostProcess::start(config).await;
    assert_eq!(host.get("/a").send().await.status, 200);
    let found = until("the line", async || host.lines_with(&["access: "]).pop()).await;
    let parts = ["method=\"GET\" path=\"/a\" status=200 ", "bytes_out=5 ", "outcome=\"complete\""];
    assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    assert!(!found.contains("trace_id"), "{found}");
}
