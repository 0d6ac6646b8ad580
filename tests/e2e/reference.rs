//! The spans of a program's own code, beside those that `tracing-opentelemetry` makes of the same.

use std::{collections::BTreeMap, process::Command};

use harness::{Collector, Config, Launch, Process, Span, SpanEvent, artifacts};
use serde_json::{Value, json};

trials![a_program_has_the_spans_that_it_has_under_tracing_opentelemetry,];

/// What is compared of a span; the names of others stand for their ids.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    parent: String,
    kind: i32,
    status: (i32, String),
    attributes: BTreeMap<String, Value>,
    events: Vec<SpanEvent>,
    links: Vec<String>,
}

/// The spans by their names, each of which is there once.
fn tree(spans: &[Span]) -> BTreeMap<String, Node> {
    let name = |id: &str| {
        let found = spans.iter().find(|span| span.span_id == id);
        found.map(|span| span.name.clone()).unwrap_or_default()
    };
    let node = |span: &Span| Node {
        parent: name(&span.parent_span_id),
        kind: span.kind as i32,
        status: (span.status, span.status_message.clone()),
        attributes: span.attributes.clone(),
        events: span.events.clone(),
        links: span.links.iter().map(|(_, id)| name(id)).collect(),
    };
    let tree: BTreeMap<_, _> = spans.iter().map(|span| (span.name.clone(), node(span))).collect();
    assert_eq!(tree.len(), spans.len(), "{spans:#?}");
    tree
}

/// What the plugin says where `tracing-opentelemetry` says this.
fn translated(node: &mut Node) {
    attributes(&mut node.attributes);
    for event in &mut node.events {
        attributes(&mut event.attributes);
        // The place of an event is its span's, but for a line or two.
        event.attributes.retain(|key, _| !key.starts_with("code."));
    }
}

fn attributes(attributes: &mut BTreeMap<String, Value>) {
    // It stands in `code.function.name`, as the conventions have it.
    attributes.remove("code.module.name");
    // A second copy of `exception.stacktrace`.
    attributes.retain(|key, _| !key.ends_with(".chain"));
    // The conventions say it is a text.
    if let Some(Value::Array(causes)) = attributes.get("exception.stacktrace") {
        let causes: Vec<_> = causes.iter().filter_map(Value::as_str).collect();
        attributes.insert("exception.stacktrace".to_owned(), json!(causes.join("\n")));
    }
    // A number that is not negative is a number.
    if let Some(unsigned) = attributes.get_mut("unsigned") {
        *unsigned = json!(unsigned.as_str().unwrap().parse::<u64>().unwrap());
    }
}

async fn under_tracing_opentelemetry() -> BTreeMap<String, Node> {
    let collector = Collector::start().await;
    let mut command = Command::new(artifacts::reference());
    command.env("REFERENCE_ENDPOINT", collector.grpc_endpoint());
    let output = Process::spawn(&mut command).end().await;
    assert_eq!(output.code, 0, "{output:?}");
    let mut tree = tree(&collector.spans());
    tree.values_mut().for_each(translated);
    tree
}

async fn under_the_host() -> BTreeMap<String, Node> {
    let collector = Collector::start().await;
    let config = Config::new().traced(&collector.grpc_endpoint(), "grpc");
    let service = Launch::host(config).binary(artifacts::reference()).start().await;
    assert_eq!(service.get("/").send().await.status, 200);
    // The request's own span ends last.
    let all = collector.wait_for("the request", |all| all.iter().any(|span| span.name == "GET"));
    let (requests, spans): (Vec<_>, Vec<_>) =
        all.await.into_iter().partition(|span| span.name == "GET");
    let work = spans.iter().find(|span| span.name == "work").unwrap();
    assert_eq!(work.parent_span_id, requests[0].span_id);
    let mut tree = tree(&spans);
    for (name, node) in &mut tree {
        let function = node.attributes.remove("code.function.name");
        assert!(function.is_some_and(|function| function != ""), "{name}");
    }
    tree
}

async fn a_program_has_the_spans_that_it_has_under_tracing_opentelemetry() {
    let theirs = under_tracing_opentelemetry().await;
    let ours = under_the_host().await;
    assert!(theirs.len() >= 14, "{theirs:#?}");
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, node) in &theirs {
        assert_eq!(&ours[name], node, "{name}");
    }
}
