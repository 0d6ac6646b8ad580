//! The judge of all spans, judged itself: each rule has a span that breaks it and no other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use harness::{
    Client, Collector,
    conventions::{check, orphans},
    text as body,
};
use http::Method;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;

trials![
    good_spans_are_not_complained_about,
    each_rule_finds_what_breaks_it_and_nothing_else_does,
    only_the_rules_of_otlp_hold_for_spans_of_others,
    a_parent_has_come_or_is_remote,
    a_wrong_span_fails_its_test,
];

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn texts(values: &[&str]) -> Value {
    let values = values.iter().map(|value| AnyValue { value: Some(text(value)) }).collect();
    Value::ArrayValue(ArrayValue { values })
}

fn number(value: i64) -> Value {
    Value::IntValue(value)
}

fn pair(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn server() -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        flags: 0x301,
        name: "GET /users/{id}".to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: 5,
        end_time_unix_nano: 7,
        attributes: vec![
            pair("http.request.method", text("GET")),
            pair("url.path", text("/users/7")),
            pair("url.query", text("a=1&sig=REDACTED")),
            pair("url.scheme", text("http")),
            pair("http.route", text("/users/{id}")),
            pair("http.response.status_code", number(404)),
            pair("http.request.header.accept", texts(&["a", "b"])),
            pair("network.protocol.version", text("2")),
            pair("client.address", text("10.0.0.1")),
        ],
        ..Span::default()
    }
}

fn client() -> Span {
    Span {
        flags: 0x101,
        name: "GET".to_owned(),
        kind: SpanKind::Client.into(),
        status: Some(Status { code: StatusCode::Error.into(), message: String::new() }),
        attributes: vec![
            pair("http.request.method", text("GET")),
            pair("url.full", text("http://REDACTED:REDACTED@there:81/?Signature=REDACTED")),
            pair("server.address", text("there")),
            pair("server.port", number(81)),
            pair("http.response.status_code", number(404)),
            pair("error.type", text("404")),
        ],
        ..server()
    }
}

/// What is needed of a span that is around others.
fn internal() -> Span {
    Span {
        kind: SpanKind::Internal.into(),
        name: "call".to_owned(),
        attributes: vec![],
        ..server()
    }
}

fn set(span: &mut Span, key: &str, value: Value) {
    unset(span, key);
    span.attributes.push(pair(key, value));
}

fn unset(span: &mut Span, key: &str) {
    span.attributes.retain(|pair| pair.key != key);
}

fn scope(name: &str) -> ScopeSpans {
    ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned(), ..Default::default() }),
        schema_url: "https://opentelemetry.io/schemas/1.38.0".to_owned(),
        spans: vec![],
    }
}

fn judged(span: &Span) -> Vec<String> {
    check(span, &scope("plugin-otel"))
}

async fn good_spans_are_not_complained_about() {
    let root = Span { parent_span_id: vec![], flags: 0x101, ..server() };
    let mut other = server();
    other.name = "HTTP /users/{id}".to_owned();
    set(&mut other, "http.request.method", text("_OTHER"));
    set(&mut other, "http.request.method_original", text("BREW"));
    let mut cut = server();
    cut.status = Some(Status { code: StatusCode::Error.into(), message: "in the body".to_owned() });
    set(&mut cut, "error.type", text("upstream_gone"));
    set(&mut cut, "http.response.status_code", number(200));
    let mut grpc = server();
    grpc.status = Some(Status { code: StatusCode::Error.into(), message: String::new() });
    set(&mut grpc, "http.response.status_code", number(200));
    set(&mut grpc, "rpc.grpc.status_code", number(14));
    set(&mut grpc, "error.type", text("UNAVAILABLE"));
    let mut connect = server();
    connect.name = "CONNECT /users/{id}".to_owned();
    set(&mut connect, "http.request.method", text("CONNECT"));
    unset(&mut connect, "url.path");
    for span in [server(), client(), internal(), root, other, cut, grpc, connect] {
        assert_eq!(judged(&span), [""; 0], "{span:#?}");
    }
}

/// What is done to a good span, and the rule that finds it.
type Break = (&'static str, fn() -> Span, fn(&mut Span));

const BREAKS: &[Break] = &[
    ("ids", server, |span| span.trace_id = vec![0; 16]),
    ("ids", server, |span| span.trace_id = vec![1; 15]),
    ("ids", server, |span| span.span_id = vec![]),
    ("ids", server, |span| span.parent_span_id = vec![0; 8]),
    ("ids", server, |span| span.parent_span_id = span.span_id.clone()),
    ("times", server, |span| span.end_time_unix_nano = 4),
    ("times", server, |span| span.start_time_unix_nano = 0),
    ("flags", server, |span| span.flags = 0x001),
    ("flags", server, |span| span.parent_span_id = vec![]),
    ("duplicate key", server, |span| span.attributes.push(pair("url.path", text("/users/7")))),
    ("kind", internal, |span| span.kind = SpanKind::Producer.into()),
    ("kind", internal, |span| span.kind = 0),
    ("unknown key", server, |span| set(span, "http.status_code", number(404))),
    ("unknown key", server, |span| set(span, "url.password", text("a"))),
    ("unknown key", server, |span| set(span, "server.name", text("a"))),
    ("unknown key", server, |span| set(span, "client.name", text("a"))),
    ("unknown key", server, |span| set(span, "network.name", text("a"))),
    ("unknown key", server, |span| set(span, "http.request.header.Accept", texts(&["a"]))),
    ("unknown key", server, |span| set(span, "http.response.header.", texts(&["a"]))),
    ("type", server, |span| set(span, "http.response.status_code", text("404"))),
    ("type", server, |span| set(span, "server.port", number(65_536))),
    ("type", server, |span| set(span, "network.peer.port", number(0))),
    ("type", server, |span| set(span, "http.request.body.size", number(-1))),
    ("type", server, |span| set(span, "client.address", text(""))),
    ("type", server, |span| set(span, "user_agent.original", number(1))),
    ("type", server, |span| set(span, "http.request.header.accept", text("a"))),
    ("type", server, |span| set(span, "url.query", number(1))),
    ("required attribute", server, |span| unset(span, "url.path")),
    ("required attribute", server, |span| unset(span, "url.scheme")),
    ("required attribute", server, |span| unset(span, "http.request.method")),
    ("required attribute", client, |span| unset(span, "http.request.method")),
    ("required attribute", client, |span| unset(span, "server.address")),
    ("required attribute", client, |span| unset(span, "server.port")),
    ("required attribute", client, |span| unset(span, "url.full")),
    ("method", server, |span| set(span, "http.request.method_original", text("GET"))),
    ("method", server, |span| {
        set(span, "http.request.method", text("_OTHER"));
        span.name = "HTTP /users/{id}".to_owned();
    }),
    ("name", server, |span| span.name = "GET".to_owned()),
    ("name", server, |span| span.name = "GET /users/7".to_owned()),
    ("name", server, |span| unset(span, "http.route")),
    ("name", client, |span| span.name = "GET /".to_owned()),
    ("name", client, |span| {
        set(span, "http.request.method", text("_OTHER"));
        set(span, "http.request.method_original", text("BREW"));
        span.name = "_OTHER".to_owned();
    }),
    ("scheme", server, |span| set(span, "url.scheme", text("HTTP"))),
    ("protocol", server, |span| set(span, "network.protocol.version", text("HTTP/2"))),
    ("protocol", server, |span| set(span, "network.protocol.version", text("2.0"))),
    ("protocol", server, |span| set(span, "network.protocol.name", text("HTTP"))),
    ("status code", server, |span| set(span, "http.response.status_code", number(99))),
    ("status code", client, |span| {
        set(span, "http.response.status_code", number(600));
        set(span, "error.type", text("600"));
    }),
    // A server's 5xx is an error, and so is a client's 4xx.
    ("status", server, |span| set(span, "http.response.status_code", number(500))),
    ("status", client, |span| {
        unset(span, "error.type");
        span.status = None;
    }),
    ("status", server, |span| set(span, "error.type", text("timeout"))),
    ("status", client, |span| unset(span, "error.type")),
    ("status", server, |span| {
        span.status = Some(Status { code: StatusCode::Ok.into(), message: String::new() });
    }),
    // A server's 4xx is none.
    ("error.type", server, |span| {
        set(span, "error.type", text("404"));
        span.status = Some(Status { code: StatusCode::Error.into(), message: String::new() });
    }),
    ("error.type", client, |span| set(span, "error.type", text("500"))),
    ("error.type", client, |span| set(span, "error.type", text("connection reset by peer"))),
    ("error.type", client, |span| {
        set(span, "rpc.grpc.status_code", number(5));
        set(span, "error.type", text("UNAVAILABLE"));
    }),
    ("description", client, |span| span.status.as_mut().unwrap().message = "not found".to_owned()),
    ("description", server, |span| {
        span.status = Some(Status { code: 0, message: "not found".to_owned() });
    }),
    ("URL", server, |span| set(span, "url.path", text("users/7"))),
    ("URL", server, |span| set(span, "url.query", text("?a=1"))),
    ("URL", client, |span| set(span, "url.full", text("/users/7"))),
    ("URL", client, |span| set(span, "url.full", text("http:///users/7"))),
    ("secret", client, |span| set(span, "url.full", text("http://me:hunter2@there:81/"))),
    ("secret", client, |span| set(span, "url.full", text("http://there:81/?a=1&sig=hunter2"))),
    ("secret", server, |span| set(span, "url.query", text("X-Amz-Signature=hunter2&a=1"))),
];

async fn each_rule_finds_what_breaks_it_and_nothing_else_does() {
    for (nth, (rule, good, spoil)) in BREAKS.iter().enumerate() {
        let mut span = good();
        spoil(&mut span);
        let complaints = judged(&span);
        let [complaint] = &complaints[..] else {
            panic!("break {nth} of {rule}: {complaints:?} of {span:#?}")
        };
        let named = format!("span {:?}: {rule}: ", span.name);
        assert!(complaint.contains(&named), "break {nth} of {rule}: {complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
    let unnamed = ScopeSpans { schema_url: String::new(), ..scope("plugin-otel") };
    let complaints = check(&server(), &unnamed);
    assert_eq!(complaints, ["Server span \"GET /users/{id}\": schema URL: \"\""]);
}

async fn only_the_rules_of_otlp_hold_for_spans_of_others() {
    let others = scope("opentelemetry.instrumentation.aiohttp_server");
    let span = Span { attributes: vec![], ..server() };
    assert!(!judged(&span).is_empty());
    assert_eq!(check(&span, &others), [""; 0]);
    let backwards = Span { end_time_unix_nano: 4, ..span };
    assert_eq!(check(&backwards, &others).len(), 1);
}

async fn a_parent_has_come_or_is_remote() {
    let own = |span: Span| harness::Span::from(span);
    let child = || own(Span { span_id: vec![4; 8], parent_span_id: vec![2; 8], ..client() });
    assert_eq!(orphans(&[child(), own(server())]), [""; 0], "in whatever order they come");
    assert_eq!(orphans(&[own(server())]), [""; 0], "its parent is remote");
    let orphan = ["Client span \"GET\": parent: 0202020202020202 has not come"];
    assert_eq!(orphans(&[child()]), orphan);
    let of_other_trace = own(Span { trace_id: vec![9; 16], ..server() });
    assert_eq!(orphans(&[child(), of_other_trace]), orphan);
}

/// What the collector says of these spans when its test is over.
async fn verdict(spans: Vec<Span>) -> Option<String> {
    let collector = Collector::start().await;
    let scope_spans = vec![ScopeSpans { spans, ..scope("plugin-otel") }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let request = ExportTraceServiceRequest { resource_spans };
    let answer = Client::http1()
        .call(Method::POST, &format!("{}/v1/traces", collector.http_endpoint()))
        .header("content-type", "application/x-protobuf")
        .body(body(request.encode_to_vec()))
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let payload = catch_unwind(AssertUnwindSafe(|| drop(collector))).err()?;
    Some(payload.downcast_ref::<String>().unwrap().clone())
}

async fn a_wrong_span_fails_its_test() {
    let child = || Span { span_id: vec![4; 8], parent_span_id: vec![2; 8], ..client() };
    assert_eq!(verdict(vec![child(), server()]).await, None);
    let wrong = verdict(vec![child(), Span { name: "GET".to_owned(), ..server() }]).await.unwrap();
    assert!(wrong.ends_with("Server span \"GET\": name: wanted \"GET /users/{id}\""), "{wrong}");
    let orphaned = verdict(vec![child()]).await.unwrap();
    assert!(orphaned.ends_with("parent: 0202020202020202 has not come"), "{orphaned}");
}
