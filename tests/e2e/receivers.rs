//! The harness's own receivers: what a hand-made export looks like on arrival.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use harness::{
    Answer, Client, Collector, Config, Protocol, Rotel, Skipped, Span, SpanKind, Traceparent, text,
};
use http::Method;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{self as proto, ResourceSpans, ScopeSpans, Status},
};
use prost::Message;
use tonic::codec::CompressionEncoding;

trials![
    a_span_arrives_over_grpc,
    a_span_arrives_over_http_as_protobuf,
    a_span_arrives_over_http_as_json,
    a_compressed_span_arrives_over_both,
    a_span_arrives_through_rotel,
    a_body_that_is_no_export_is_refused,
    an_absent_collector_refuses_connections_until_it_appears,
    a_configuration_is_written_as_a_person_would,
];

async fn a_span_arrives_over_grpc() {
    let collector = Collector::start().await;
    let parent = Traceparent::sampled();
    send_grpc(&collector.grpc_endpoint(), &parent).await;
    assert_arrived(&collector, &parent).await;
    assert_came_by(&collector, Protocol::Grpc, false);
}

async fn a_span_arrives_over_http_as_protobuf() {
    let collector = Collector::start().await;
    let parent = Traceparent::sampled();
    assert_eq!(send_http(&collector.http_endpoint(), &parent).await.status, 200);
    assert_arrived(&collector, &parent).await;
    assert_came_by(&collector, Protocol::HttpProtobuf, false);
}

async fn a_span_arrives_over_http_as_json() {
    let collector = Collector::start().await;
    let parent = Traceparent::sampled();
    let json = serde_json::to_vec(&export(&parent)).unwrap();
    let answer = post(&collector, "application/json", "identity", json).await;
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert_arrived(&collector, &parent).await;
    assert_came_by(&collector, Protocol::HttpJson, false);
}

async fn a_compressed_span_arrives_over_both() {
    let collector = Collector::start().await;
    let parent = Traceparent::sampled();
    let mut client = TraceServiceClient::connect(collector.grpc_endpoint())
        .await
        .unwrap()
        .send_compressed(CompressionEncoding::Gzip);
    client.export(export(&parent)).await.unwrap();
    assert_came_by(&collector, Protocol::Grpc, true);

    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&export(&parent).encode_to_vec()).unwrap();
    let answer = post(&collector, "application/x-protobuf", "gzip", gzip.finish().unwrap()).await;
    assert_eq!(answer.status, 200);
    assert_came_by(&collector, Protocol::HttpProtobuf, true);
    assert_eq!(collector.trace(&parent.trace_id, 2).await.len(), 2);
}

async fn a_span_arrives_through_rotel() -> Result<(), Skipped> {
    let collector = Collector::start().await;
    let rotel = Rotel::before(&collector).await?;
    let (first, second) = (Traceparent::sampled(), Traceparent::sampled());
    send_grpc(&rotel.grpc_endpoint(), &first).await;
    assert_eq!(send_http(&rotel.http_endpoint(), &second).await.status, 200);
    assert_arrived(&collector, &first).await;
    assert_arrived(&collector, &second).await;
    Ok(())
}

async fn a_body_that_is_no_export_is_refused() {
    let collector = Collector::start().await;
    let json = post(&collector, "application/json", "identity", b"{".to_vec()).await;
    let unknown = post(&collector, "application/x-protobuf", "br", Vec::new()).await;
    assert_eq!((json.status, unknown.status), (400, 400));
    assert_eq!(Client::http1().get(&collector.http_endpoint()).send().await.status, 404);
    assert!(collector.spans().is_empty() && collector.exports().is_empty());
}

async fn an_absent_collector_refuses_connections_until_it_appears() {
    let absent = Collector::absent();
    let endpoint = absent.grpc_endpoint();
    assert!(TraceServiceClient::connect(endpoint.clone()).await.is_err());
    let collector = absent.appear().await;
    assert_eq!(collector.grpc_endpoint(), endpoint);
    let parent = Traceparent::sampled();
    send_grpc(&endpoint, &parent).await;
    assert_arrived(&collector, &parent).await;
}

async fn a_configuration_is_written_as_a_person_would() {
    let config = Config::new()
        .set("client.request-timeout", "1s")
        .group("greeter", "http://127.0.0.1:1")
        .forward_as("/hello/{name}", "greeter", "/greeter/{name}")
        .respond("/ready", 204, "");
    let text = config.text();
    let read: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(read["discovery"]["static"]["greeter"][0].as_str(), Some("http://127.0.0.1:1"));
    assert_eq!(read["route"][0]["rewrite"].as_str(), Some("/greeter/{name}"));
    assert_eq!(read["route"][1]["respond"]["status"].as_integer(), Some(204));
    assert!(text.contains("request-timeout = \"1s\""), "{text}");
}

fn export(parent: &Traceparent) -> ExportTraceServiceRequest {
    let pair = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let string = |key: &str, value: &str| pair(key, any_value::Value::StringValue(value.into()));
    let name = string("service.name", "front");
    let span = proto::Span {
        trace_id: bytes(&parent.trace_id),
        span_id: bytes("00f067aa0ba902b7"),
        parent_span_id: bytes(&parent.span_id),
        trace_state: "vendor=1".into(),
        flags: 0x301,
        name: "GET /hello/{name}".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_000_001,
        attributes: vec![
            string("http.request.method", "GET"),
            string("http.route", "/hello/{name}"),
            string("url.path", "/hello/ada"),
            string("url.scheme", "http"),
            pair("http.response.status_code", any_value::Value::IntValue(200)),
            string("error.type", "timeout"),
        ],
        status: Some(Status { message: String::new(), code: 2 }),
        ..proto::Span::default()
    };
    let scope = InstrumentationScope { name: "by hand".into(), ..InstrumentationScope::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: vec![span],
                schema_url: "https://opentelemetry.io/schemas/1.38.0".into(),
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

async fn send_grpc(endpoint: &str, parent: &Traceparent) {
    let mut client = TraceServiceClient::connect(endpoint.to_owned()).await.unwrap();
    client.export(export(parent)).await.unwrap();
}

async fn send_http(endpoint: &str, parent: &Traceparent) -> Answer {
    Client::http1()
        .call(Method::POST, &format!("{endpoint}/v1/traces"))
        .header("content-type", "application/x-protobuf")
        .body(text(export(parent).encode_to_vec()))
        .send()
        .await
}

async fn post(collector: &Collector, kind: &str, encoding: &str, body: Vec<u8>) -> Answer {
    Client::http1()
        .call(Method::POST, &format!("{}/v1/traces", collector.http_endpoint()))
        .header("content-type", kind)
        .header("content-encoding", encoding)
        .body(text(body))
        .send()
        .await
}

async fn assert_arrived(collector: &Collector, parent: &Traceparent) {
    let spans = collector.trace(&parent.trace_id, 1).await;
    let [span] = &spans[..] else { panic!("not one span: {spans:#?}") };
    assert_eq!(span.span_id, "00f067aa0ba902b7");
    assert_eq!(span.parent_span_id, parent.span_id);
    assert!(span.has_remote_parent());
    assert_eq!((span.name.as_str(), span.kind), ("GET /hello/{name}", SpanKind::Server));
    assert_eq!((span.trace_state.as_str(), span.flags), ("vendor=1", 0x301));
    assert_eq!((span.end - span.start, span.status), (1, 2));
    assert_eq!(*span.attribute("http.response.status_code"), 200);
    assert_eq!(*span.attribute("absent"), serde_json::Value::Null);
    assert_eq!((span.scope.as_str(), service(span)), ("by hand", "front"));
}

fn service(span: &Span) -> &str {
    span.resource["service.name"].as_str().unwrap()
}

fn assert_came_by(collector: &Collector, protocol: Protocol, gzip: bool) {
    let exports = collector.exports();
    assert!(
        exports.iter().any(|export| export.protocol == protocol && export.gzip == gzip),
        "{exports:#?}"
    );
}
