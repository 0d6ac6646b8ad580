//! What it costs to read the headers of a caller, who may send anything.
//!
//! `cargo bench -p plugin-otel --bench propagation`. A library that is opened at run time cannot be
//! linked, so the module is compiled in here once more.
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]
#![allow(dead_code, unused_imports, reason = "the whole module is here, and only part of it used")]

#[path = "../src/propagation/mod.rs"]
mod propagation;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use plugin_api::Header;

use self::propagation::Propagators;

const SIZE: usize = 8192;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// As often as it has room in 8 KiB.
fn filled(part: &str) -> String {
    part.repeat(SIZE / part.len())
}

/// As many properties of one member as have room, and a bad one.
fn properties(one: &str) -> String {
    format!("a=1{};(", one.repeat((SIZE - 5) / one.len()))
}

/// 8 KiB that are expensive to find out to be wrong, for the parser of each header.
fn garbage() -> Vec<(&'static str, &'static str, String)> {
    let member = format!("{}={},", "k".repeat(256), "v".repeat(256));
    let almost = format!("a={}\u{7f}", "v".repeat(SIZE - 3));
    vec![
        ("zeros", "traceparent", filled("0")),
        ("blanks", "traceparent", filled(" ")),
        ("blanks", "tracestate", filled(" ")),
        ("commas", "tracestate", filled(",")),
        ("bytes", "tracestate", filled("\u{e9}")),
        ("members", "tracestate", filled("a=1,")),
        ("long members and a bad one", "tracestate", filled(&member) + "x"),
        ("blanks", "baggage", filled(" ")),
        ("commas", "baggage", filled(",")),
        ("bad members", "baggage", filled("a b,")),
        ("properties", "baggage", format!("a=1{}", filled(";p"))),
        ("properties that end badly", "baggage", properties(";p")),
        ("blank properties that end badly", "baggage", properties("; a = \t")),
        ("a long member that ends badly", "baggage", almost),
        ("members", "baggage", filled("a=1,")),
        ("members with properties and a bad one", "baggage", properties(";p,a=1")),
        ("zeros", "b3", filled("0")),
        ("blanks", "b3", filled(" ")),
        ("zeros", "x-b3-traceid", filled("0")),
        ("colons", "uber-trace-id", filled("%3A")),
    ]
}

fn propagation(criterion: &mut Criterion) {
    let mut all = Propagators::none();
    for name in ["tracecontext", "baggage", "b3", "jaeger"] {
        all.add(name);
    }
    let mut group = criterion.benchmark_group("extract");
    for (what, name, value) in garbage() {
        let headers = [
            Header::new("traceparent", TRACEPARENT.as_bytes()),
            Header::new(name, value.as_bytes()),
        ];
        let headers = if name == "traceparent" { &headers[1..] } else { &headers[..] };
        group.bench_function(format!("8 KiB of {what} in {name}"), |bencher| {
            bencher.iter(|| black_box(all.extract(black_box(headers))));
        });
    }
    let usual = [
        Header::new("host", b"here"),
        Header::new("traceparent", TRACEPARENT.as_bytes()),
        Header::new("tracestate", b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        Header::new("baggage", b"userId=alice,serverNode=DF%2028"),
    ];
    let default = Propagators::default();
    group.bench_function("usual headers", |bencher| {
        bencher.iter(|| black_box(default.extract(black_box(&usual))));
    });
    group.finish();
}

criterion_group!(benches, propagation);
criterion_main!(benches);
