//! What a span costs: from its start to its bytes in the thread's buffer, and from there to a sink.
//!
//! ```text
//! cargo test --release -p plugin-otel -- --ignored --nocapture --test-threads 1 figures
//! ```
//!
//! Times are those of the fastest of ten rounds of `FIGURES_COUNT` spans. With two counts under
//! `valgrind`, the difference of what it tells gives instructions and allocations a span.

#![allow(clippy::print_stdout, reason = "whoever asks for figures wants to see them")]

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use opentelemetry_sdk::Resource;
use plugin_api::{
    Context, End, Exchange as _, Header, Outcome, Peer, RequestHead, ResponseHead,
    ServerLayer as _, SpanContext, Version,
};

use crate::{
    clock::Clock,
    config::{self, Config},
    exchange::{Server, Tracing},
    pipeline::{Pipeline, export::Exporter},
    record::{Kind, Record},
    signal::Signal,
    testing::Journal,
};

const ROUNDS: usize = 10;
/// Less than fits in the default bounds.
const MOST_QUEUED: u64 = 15_000;
const LONG: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::ZERO;
/// How long spans come at an even rate.
const PACED: Duration = Duration::from_secs(5);

fn count() -> usize {
    env::var("FIGURES_COUNT").map_or(200_000, |count| count.parse().unwrap())
}

fn start(settings: &str) -> (Config, Arc<Pipeline>) {
    let config = Config::read(settings, &|_| None).unwrap();
    let resource = Resource::builder_empty().with_service_name("figures").build();
    let exporter = Exporter::new(Signal::Traces, &config.traces, &resource).unwrap();
    let pipeline =
        Pipeline::start(Signal::Traces, &config.traces, Journal::default().host(), exporter);
    (config, Arc::new(pipeline.unwrap()))
}

/// A SERVER span with 14 attributes, of 411 bytes.
fn record(clock: &Clock, context: &Context, pipeline: &Pipeline) {
    use crate::semconv as names;
    let mut record = Record::begin(Kind::Server, context, None, "GET", clock.now());
    record.text(names::HTTP_REQUEST_METHOD, "GET");
    record.text(names::URL_SCHEME, "http");
    record.text(names::URL_PATH, "/hello/ada");
    record.text(names::SERVER_ADDRESS, "127.0.0.1");
    record.number(names::SERVER_PORT, 8080);
    record.text(names::NETWORK_PROTOCOL_VERSION, "1.1");
    record.text(names::NETWORK_PEER_ADDRESS, "127.0.0.1");
    record.number(names::NETWORK_PEER_PORT, 54321);
    record.text(names::CLIENT_ADDRESS, "127.0.0.1");
    record.text(names::USER_AGENT_ORIGINAL, "wrk/4.1.0");
    record.rename(&["GET", " ", "/hello/{name}"]);
    record.text(names::HTTP_ROUTE, "/hello/{name}");
    record.number(names::HTTP_RESPONSE_STATUS_CODE, 200);
    record.number(names::HTTP_RESPONSE_BODY_SIZE, 10);
    record.text(names::EXCHANGE_END_REASON, "complete");
    record.end = clock.now();
    pipeline.finish(&record);
    record.recycle();
}

/// Nanoseconds for one of `count` calls, in the fastest round.
fn fastest(count: usize, mut call: impl FnMut()) -> f64 {
    let round = |call: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..count {
            call();
        }
        began.elapsed().as_secs_f64() * 1e9 / count as f64
    };
    (0..ROUNDS).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "prints figures"]
fn records() {
    let count = count();
    let (_, pipeline) = start(r#"{"exporter": "none"}"#);
    let clock = Clock::new();
    let context = Context::new(SpanContext::new([1; 16], [2; 8], 3));
    let nanos = fastest(count, || record(&clock, &context, &pipeline));
    println!("record: {nanos:.0} ns from start to bytes in the buffer, {:?}", pipeline.counts());
    pipeline.shutdown(LONG).unwrap();
}

#[test]
#[ignore = "prints figures"]
fn exchanges() {
    let count = count();
    let (config, pipeline) = start(r#"{"exporter": "none"}"#);
    let mut config = config;
    config.traces.exporter = config::Exporter::Otlp;
    let server = Server(Tracing::new(&config, Journal::default().host(), Arc::clone(&pipeline)));
    let headers = [Header::new("host", b"127.0.0.1:8080"), Header::new("user-agent", b"wrk/4.1.0")];
    let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], 54321)));
    let head = RequestHead::new("GET", "/hello/ada", &headers)
        .to("http", "127.0.0.1:8080")
        .over(Version::HTTP_11, peer);
    let nanos = fastest(count, || {
        let mut exchange = server.on_request(&head).exchange.unwrap();
        exchange.on_route("/hello/{name}");
        exchange.on_response(&ResponseHead::new(200, &[]));
        exchange.on_end(&End::new(Outcome::COMPLETE, 0, 10));
    });
    println!("exchange: {nanos:.0} ns for all hooks of a SERVER span, {:?}", pipeline.counts());
    pipeline.shutdown(LONG).unwrap();
}

/// Starts a sink that answers each request after `delay`, and returns its URL.
fn listen(delay: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || sink(stream.unwrap(), delay));
        }
    });
    url
}

/// Reads requests and answers each.
fn sink(mut stream: TcpStream, delay: Duration) {
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    let mut body = 0;
    loop {
        if body == 0 {
            let head = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = head {
                let text = std::str::from_utf8(&buffer[..end]).unwrap();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                body = end + 4 + length.unwrap().parse::<usize>().unwrap();
            }
        }
        if body > 0 && filled >= body {
            buffer.copy_within(body..filled, 0);
            filled -= body;
            body = 0;
            thread::park_timeout(delay);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            continue;
        }
        if body > 0 && filled > 4096 && filled == buffer.len() {
            body -= filled;
            filled = 0;
        }
        match stream.read(&mut buffer[filled..]) {
            Ok(length) if length > 0 => filled += length,
            _ => return,
        }
    }
}

/// The CPU time of the export thread so far.
fn export_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of = |name: &str| fs::read_to_string(name).unwrap_or_default();
    let task = tasks
        .map(|task| task.unwrap().path().display().to_string())
        .find(|task| of(&format!("{task}/comm")).trim() == "otel-export")
        .unwrap();
    let time = of(&format!("{task}/schedstat"));
    Duration::from_nanos(time.split(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "prints figures"]
fn send() {
    let count = count();
    let settings = format!(r#"{{"protocol": "http/protobuf", "endpoint": "{}"}}"#, listen(NOW));
    let (_, pipeline) = start(&settings);
    let clock = Clock::new();
    let context = Context::new(SpanContext::new([1; 16], [2; 8], 3));
    let (mut best, mut cpu) = (0.0_f64, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (began, busy) = (Instant::now(), export_time());
        for nth in 0..count {
            // As fast as the sink takes them: what is dropped was not sent.
            while nth % 256 == 0 && pipeline.counts().queued > MOST_QUEUED {
                thread::yield_now();
            }
            record(&clock, &context, &pipeline);
        }
        pipeline.flush(LONG).unwrap();
        best = best.max(count as f64 / began.elapsed().as_secs_f64());
        cpu = cpu.min((export_time() - busy).as_secs_f64() * 1e9 / count as f64);
    }
    println!(
        "send: {best:.0} spans/s from one thread to a sink over HTTP, {cpu:.0} ns CPU of the export \
         thread a span, {:?}",
        pipeline.counts()
    );
    pipeline.shutdown(LONG).unwrap();
}

/// Spans at an even rate, in slices of a millisecond, to a sink that answers after `delay`.
fn paced(rate: u32, delay: Duration) {
    let settings = format!(r#"{{"protocol": "http/protobuf", "endpoint": "{}"}}"#, listen(delay));
    let (_, pipeline) = start(&settings);
    let clock = Clock::new();
    let context = Context::new(SpanContext::new([1; 16], [2; 8], 3));
    let slice = Duration::from_millis(1);
    let (began, busy) = (Instant::now(), export_time());
    let mut due = Duration::ZERO;
    while due < PACED {
        for _ in 0..rate / 1000 {
            record(&clock, &context, &pipeline);
        }
        due += slice;
        thread::park_timeout(due.saturating_sub(began.elapsed()));
    }
    let took = began.elapsed();
    pipeline.flush(LONG).unwrap();
    let counts = pipeline.counts();
    let made = counts.exported + counts.dropped;
    println!(
        "paced: {:.0} of {rate} spans/s to a sink that answers after {delay:?}, {} of {made} dropped, \
         {:.0} ns CPU of the export thread a span",
        made as f64 / took.as_secs_f64(),
        counts.dropped,
        (export_time() - busy).as_secs_f64() * 1e9 / made as f64,
    );
    pipeline.shutdown(LONG).unwrap();
}

#[test]
#[ignore = "prints figures"]
fn many() {
    paced(400_000, NOW);
}

#[test]
#[ignore = "prints figures"]
fn slow_collector() {
    paced(50_000, Duration::from_millis(100));
}
