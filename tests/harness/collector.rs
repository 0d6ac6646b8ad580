//! A small OTLP receiver: gRPC on one port, HTTP with protobuf and JSON on another.

use std::{collections::BTreeMap, io::Read, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_server::LogsServiceServer},
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{self as proto, ResourceSpans, ScopeSpans},
};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinHandle,
};
use tonic::{codec::CompressionEncoding, transport::server::TcpIncoming};

use crate::{
    conventions,
    logs::{self, LogRecord},
    metric::{self, MetricPoint},
    wait::DEADLINE,
};

/// A collector that keeps what it is sent, and holds it to the conventions: dropped, it fails the test
/// that a wrong span came in.
#[derive(Debug)]
pub struct Collector {
    grpc: SocketAddr,
    http: SocketAddr,
    store: Store,
    tasks: [JoinHandle<()>; 2],
}

/// The address of a collector that is not there yet: connections to it are refused.
#[derive(Debug)]
pub struct Absent {
    grpc: TcpSocket,
    http: TcpSocket,
}

/// One finished span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for a root.
    pub parent_span_id: String,
    /// The W3C trace state.
    pub trace_state: String,
    /// The W3C flags, and above them whether the parent is remote.
    pub flags: u32,
    /// The name.
    pub name: String,
    /// SERVER, CLIENT and so on.
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// The attributes; JSON values compare with plain ones.
    pub attributes: BTreeMap<String, Value>,
    /// The trace ids and span ids of the spans that it is linked to.
    pub links: Vec<(String, String)>,
    /// 0 unset, 1 ok, 2 error.
    pub status: i32,
    /// What the status says.
    pub status_message: String,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// The instrumentation scope's name.
    pub scope: String,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, Value>,
}

/// Something that happened in a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// The name.
    pub name: String,
    /// The attributes.
    pub attributes: BTreeMap<String, Value>,
}

/// How an export came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, in protobuf.
    HttpProtobuf,
    /// OTLP over HTTP, in JSON.
    HttpJson,
}

/// The outside of one export request.
#[derive(Clone, Debug)]
pub struct Export {
    /// How it came.
    pub protocol: Protocol,
    /// Whether it came compressed.
    pub gzip: bool,
    /// The headers (gRPC: the metadata).
    pub headers: HeaderMap,
}

#[derive(Debug, Default)]
struct State {
    spans: Vec<Span>,
    /// What is wrong with them.
    complaints: Vec<String>,
    exports: Vec<Export>,
    metrics: Vec<MetricPoint>,
    metric_exports: Vec<Export>,
    logs: Vec<LogRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct Store(watch::Sender<State>);

impl Collector {
    /// Starts a collector on ports of its own.
    pub async fn start() -> Self {
        Self::absent().appear().await
    }

    /// The address of a collector that will appear later.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn absent() -> Absent {
        let bound = || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
            socket
        };
        Absent { grpc: bound(), http: bound() }
    }

    /// What `otel.endpoint` is for `grpc`.
    #[must_use]
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// What `otel.endpoint` is for `http/protobuf` and `http/json`.
    #[must_use]
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What has arrived.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.store.0.borrow().spans.clone()
    }

    /// The outsides of the exports that have arrived.
    #[must_use]
    pub fn exports(&self) -> Vec<Export> {
        self.store.0.borrow().exports.clone()
    }

    /// The points of metrics that have arrived, of all exports.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricPoint> {
        self.store.0.borrow().metrics.clone()
    }

    /// The outsides of the exports of metrics that have arrived.
    #[must_use]
    pub fn metric_exports(&self) -> Vec<Export> {
        self.store.0.borrow().metric_exports.clone()
    }

    /// Waits for a point that `is_it`, and returns the newest.
    ///
    /// # Panics
    /// Past the deadline, with `what` was waited for and the points that are there.
    pub async fn metric(&self, what: &str, is_it: impl Fn(&MetricPoint) -> bool) -> MetricPoint {
        let mut receiver = self.store.0.subscribe();
        let newest = |state: &State| state.metrics.iter().rev().find(|point| is_it(point)).cloned();
        let arrival = receiver.wait_for(|state| newest(state).is_some());
        if let Ok(state) = tokio::time::timeout(DEADLINE, arrival).await {
            return newest(&state.expect("the collector has the other end")).expect("just found");
        }
        panic!("waited {DEADLINE:?} in vain for {what}; there are {:#?}", self.metrics())
    }

    /// Waits until `enough` of what has arrived, and returns it.
    ///
    /// # Panics
    /// Past the deadline, with `what` was waited for and the spans that are there.
    pub async fn wait_for(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut receiver = self.store.0.subscribe();
        let arrival = receiver.wait_for(|state| enough(&state.spans));
        if let Ok(state) = tokio::time::timeout(DEADLINE, arrival).await {
            return state.expect("the collector has the other end").spans.clone();
        }
        panic!("waited {DEADLINE:?} in vain for {what}; there are {:#?}", self.spans())
    }

    /// The log records that have arrived.
    #[must_use]
    pub fn logs(&self) -> Vec<LogRecord> {
        self.store.0.borrow().logs.clone()
    }

    /// Waits until `enough` of the log records have arrived, and returns them.
    ///
    /// # Panics
    /// Past the deadline, with `what` was waited for and the records that are there.
    pub async fn wait_for_logs(
        &self,
        what: &str,
        enough: impl Fn(&[LogRecord]) -> bool,
    ) -> Vec<LogRecord> {
        let mut receiver = self.store.0.subscribe();
        let arrival = receiver.wait_for(|state| enough(&state.logs));
        if let Ok(state) = tokio::time::timeout(DEADLINE, arrival).await {
            return state.expect("the collector has the other end").logs.clone();
        }
        panic!("waited {DEADLINE:?} in vain for {what}; there are {:#?}", self.logs())
    }

    /// Waits until `count` spans of the trace `trace_id` have arrived, and returns all of that trace.
    pub async fn trace(&self, trace_id: &str, count: usize) -> Vec<Span> {
        let of_trace = |span: &&Span| span.trace_id == trace_id;
        let what = format!("{count} spans of trace {trace_id}");
        let spans = self.wait_for(&what, |all| all.iter().filter(of_trace).count() >= count).await;
        spans.iter().filter(of_trace).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let state = self.store.0.borrow();
        let mut complaints = state.complaints.clone();
        complaints.extend(conventions::orphans(&state.spans));
        drop(state);
        // One rule may be broken by thousands of spans, which are alike.
        complaints.sort_unstable();
        complaints.dedup();
        complaints.truncate(20);
        if complaints.is_empty() {
            return;
        }
        let complaints = complaints.join("\n");
        // A second panic would end the process, and with it every other test.
        if std::thread::panicking() {
            eprintln!("against the conventions:\n{complaints}");
        } else {
            panic!("against the conventions:\n{complaints}");
        }
    }
}

impl Absent {
    /// What `otel.endpoint` is for `grpc`.
    ///
    /// # Panics
    /// Never: the socket is bound.
    #[must_use]
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc.local_addr().expect("a bound socket"))
    }

    /// The collector appears.
    ///
    /// # Panics
    /// When the system does not let the sockets listen.
    #[allow(clippy::unused_async, reason = "must be called inside a runtime")]
    pub async fn appear(self) -> Collector {
        let [grpc, http] = [self.grpc, self.http].map(|socket| socket.listen(64).expect("listens"));
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket");
        let store = Store(watch::Sender::default());
        Collector {
            grpc: address(&grpc),
            http: address(&http),
            tasks: [
                tokio::spawn(serve_grpc(grpc, store.clone())),
                tokio::spawn(serve_http(http, store.clone())),
            ],
            store,
        }
    }
}

impl Span {
    /// Whether the flags say that the parent is in another process.
    #[must_use]
    pub fn has_remote_parent(&self) -> bool {
        self.flags & 0x300 == 0x300
    }

    /// The value of the attribute `name`; null if there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }
}

async fn serve_grpc(listener: TcpListener, store: Store) {
    let gzip = CompressionEncoding::Gzip;
    let logs = LogsServiceServer::new(store.clone()).accept_compressed(gzip);
    let traces = TraceServiceServer::new(store.clone()).accept_compressed(gzip);
    let metrics = MetricsServiceServer::new(store).accept_compressed(gzip);
    let mut server = tonic::transport::Server::builder();
    let server = server.add_service(traces).add_service(logs).add_service(metrics);
    server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("gRPC is served");
}

#[tonic::async_trait]
impl TraceService for Store {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (export, request) = open(request);
        self.keep(export, request);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Store {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let (export, request) = open(request);
        self.keep_metrics(export, request);
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The outside and the inside of an export over gRPC.
fn open<T>(request: tonic::Request<T>) -> (Export, T) {
    let (metadata, _, request) = request.into_parts();
    let headers = metadata.into_headers();
    let gzip = headers.get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
    (Export { protocol: Protocol::Grpc, gzip, headers }, request)
}

async fn serve_http(listener: TcpListener, store: Store) {
    while let Ok((stream, _)) = listener.accept().await {
        let store = store.clone();
        let service = service_fn(move |request| answer(store.clone(), request));
        tokio::spawn(async move {
            // An exporter that goes away in the middle is for the test to judge.
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    store: Store,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut response = Response::default();
    let content_type = head.headers.get("content-type").cloned();
    let taken = match (head.method.as_str(), head.uri.path()) {
        ("POST", "/v1/traces") => {
            Some(take(head.headers, &body, |export, request| store.keep(export, request)))
        }
        ("POST", "/v1/logs") => {
            Some(take(head.headers, &body, |_, request| store.keep_logs(request)))
        }
        ("POST", "/v1/metrics") => {
            Some(take(head.headers, &body, |export, request| store.keep_metrics(export, request)))
        }
        _ => None,
    };
    *response.status_mut() = match taken {
        Some(Some(Protocol::HttpJson)) => {
            *response.body_mut() = Full::from("{}");
            StatusCode::OK
        }
        Some(Some(_)) => StatusCode::OK,
        Some(None) => StatusCode::BAD_REQUEST,
        None => StatusCode::NOT_FOUND,
    };
    if let Some(content_type) = content_type {
        response.headers_mut().insert("content-type", content_type);
    }
    Ok(response)
}

/// Keeps the export in an HTTP request, and answers how it came; `None` if there is none.
fn take<T: Message + Default + DeserializeOwned>(
    headers: HeaderMap,
    body: &[u8],
    keep: impl FnOnce(Export, T),
) -> Option<Protocol> {
    let (export, request) = receive(headers, body)?;
    let protocol = export.protocol;
    keep(export, request);
    Some(protocol)
}

/// The export in an HTTP request; `None` if there is none.
fn receive<T: Message + Default + DeserializeOwned>(
    headers: HeaderMap,
    body: &[u8],
) -> Option<(Export, T)> {
    let gzip = match headers.get("content-encoding") {
        Some(encoding) if encoding == "gzip" => true,
        None => false,
        Some(encoding) if encoding == "identity" => false,
        Some(_) => return None,
    };
    let mut plain = Vec::new();
    if gzip {
        flate2::read::GzDecoder::new(body).read_to_end(&mut plain).ok()?;
    } else {
        plain.extend_from_slice(body);
    }
    let (protocol, request) = match headers.get("content-type")?.to_str().ok()? {
        "application/x-protobuf" => (Protocol::HttpProtobuf, T::decode(&plain[..]).ok()?),
        "application/json" => (Protocol::HttpJson, serde_json::from_slice(&plain).ok()?),
        _ => return None,
    };
    Some((Export { protocol, gzip, headers }, request))
}

impl Store {
    pub(crate) fn keep_logs(&self, request: ExportLogsServiceRequest) {
        let records = request.resource_logs.into_iter().flat_map(logs::flatten);
        self.0.send_modify(|state| state.logs.extend(records));
    }

    fn keep(&self, export: Export, request: ExportTraceServiceRequest) {
        self.0.send_modify(|state| {
            state.exports.push(export);
            for spans in &request.resource_spans {
                state.complaints.extend(spans.scope_spans.iter().flat_map(complaints));
            }
            state.spans.extend(request.resource_spans.into_iter().flat_map(flatten));
        });
    }

    fn keep_metrics(&self, export: Export, request: ExportMetricsServiceRequest) {
        let points: Vec<_> =
            request.resource_metrics.into_iter().flat_map(metric::flatten).collect();
        self.0.send_modify(|state| {
            state.metric_exports.push(export);
            state.metrics.extend(points);
        });
    }
}

fn complaints(scope: &ScopeSpans) -> impl Iterator<Item = String> {
    scope.spans.iter().flat_map(|span| conventions::check(span, scope))
}

fn flatten(spans: ResourceSpans) -> impl Iterator<Item = Span> {
    let resource = plain(spans.resource.map(|resource| resource.attributes).unwrap_or_default());
    spans.scope_spans.into_iter().flat_map(move |scope_spans| {
        let scope = scope_spans.scope.map(|scope| scope.name).unwrap_or_default();
        let resource = resource.clone();
        scope_spans.spans.into_iter().map(move |span| Span {
            scope: scope.clone(),
            resource: resource.clone(),
            ..Span::from(span)
        })
    })
}

impl From<proto::Span> for Span {
    fn from(span: proto::Span) -> Self {
        Self {
            kind: span.kind(),
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_span_id: hex(&span.parent_span_id),
            trace_state: span.trace_state,
            flags: span.flags,
            name: span.name,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: plain(span.attributes),
            links: span
                .links
                .iter()
                .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                .collect(),
            status: span.status.as_ref().map_or(0, |status| status.code),
            status_message: span.status.map(|status| status.message).unwrap_or_default(),
            events: span.events.into_iter().map(SpanEvent::from).collect(),
            scope: String::new(),
            resource: BTreeMap::new(),
        }
    }
}

impl From<proto::span::Event> for SpanEvent {
    fn from(event: proto::span::Event) -> Self {
        Self { name: event.name, attributes: plain(event.attributes) }
    }
}

pub(crate) fn plain(attributes: Vec<KeyValue>) -> BTreeMap<String, Value> {
    let pairs = attributes.into_iter().map(|pair| (pair.key, value(pair.value)));
    pairs.collect()
}

pub(crate) fn value(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        None => Value::Null,
        Some(any_value::Value::StringValue(text)) => text.into(),
        Some(any_value::Value::BoolValue(flag)) => flag.into(),
        Some(any_value::Value::IntValue(number)) => number.into(),
        Some(any_value::Value::DoubleValue(number)) => number.into(),
        Some(any_value::Value::ArrayValue(array)) => {
            array.values.into_iter().map(|item| self::value(Some(item))).collect()
        }
        Some(other) => json!(format!("{other:?}")),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
