//! Where batches go, as the settings ask.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::Resource;
use plugin_api::PluginError;
use prost::Message as _;
use serde_json::{Value, json};

use super::{
    batch::{Batch, resource_fields},
    grpc::Grpc,
    http::Http,
    transport,
};
use crate::{
    config::{self, Destination, Protocol},
    signal::Signal,
};

/// Takes batches. Called on the export thread, several times at once.
pub(crate) trait Export: Send + Sync + 'static {
    /// One attempt to export a batch.
    fn export(&self, batch: &Batch) -> impl Future<Output = Result<Accepted, Failure>> + Send;
}

/// What a collector says of a batch that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// How many of the spans, log records or data points it did not take after all.
    pub(crate) refused: usize,
    /// Why, or a warning; often empty.
    pub(crate) message: String,
}

impl Accepted {
    /// Reads the body of an answer in protobuf, which is built alike for every signal. One that
    /// cannot be read says nothing.
    pub(super) fn read(body: &[u8]) -> Self {
        let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let part = answer.partial_success.unwrap_or_default();
        let refused = usize::try_from(part.rejected_spans).unwrap_or(0);
        Self { refused, message: transport::shown(&part.error_message) }
    }
}

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Whether another attempt may go better.
    pub(crate) may_pass: bool,
    /// How long the collector wants to be left alone.
    pub(crate) wait: Duration,
}

impl Failure {
    /// Another attempt would fail the same way.
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_pass: false, wait: Duration::ZERO }
    }

    /// Another attempt may go better.
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self { may_pass: true, ..Self::lasting(reason) }
    }
}

/// Where the items of a signal go.
#[derive(Debug)]
pub(crate) struct Exporter {
    signal: Signal,
    resource: Bytes,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Grpc(Grpc),
    Http(Http),
    Console,
    Nowhere,
}

impl Exporter {
    /// An exporter as the settings ask; connects to nothing yet.
    ///
    /// # Errors
    /// What is wrong with the endpoint or a file for TLS.
    pub(crate) fn new(
        signal: Signal,
        destination: &Destination,
        resource: &Resource,
    ) -> Result<Self, PluginError> {
        let way = match (destination.exporter, destination.protocol) {
            (config::Exporter::Otlp, Protocol::Grpc) => {
                Way::Grpc(Grpc::new(signal.method(), destination)?)
            }
            (config::Exporter::Otlp, _) => Way::Http(Http::new(signal, destination)?),
            (config::Exporter::Console, _) => Way::Console,
            (config::Exporter::None, _) => Way::Nowhere,
        };
        Ok(Self { signal, resource: resource_fields(resource).into(), way })
    }
}

impl Export for Exporter {
    async fn export(&self, batch: &Batch) -> Result<Accepted, Failure> {
        match &self.way {
            Way::Grpc(grpc) => {
                let answer = grpc.call(batch.frame(&self.resource)).await;
                answer.map(|message| Accepted::read(&message))
            }
            Way::Http(http) => http.send(batch.frame(&self.resource)).await,
            Way::Console => {
                print(self.signal, &batch.frame(&self.resource)).map_err(Failure::lasting)
            }
            Way::Nowhere => Ok(Accepted::default()),
        }
    }
}

/// Prints a line for each item: OTLP's JSON with the name of the scope.
fn print(signal: Signal, parts: &[Bytes]) -> Result<Accepted, String> {
    let request = signal.to_json(&parts.concat())?;
    write(&lines(signal, &request)).map_err(|error| error.to_string())?;
    Ok(Accepted::default())
}

fn write(lines: &[Value]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

fn lines(signal: Signal, request: &Value) -> Vec<Value> {
    let names = signal.names();
    let list = |value: &Value, name| value[name].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for resource in list(request, names.resources) {
        for scope in list(&resource, names.scopes) {
            for item in list(&scope, names.items) {
                lines.push(json!({"scope": scope["scope"]["name"], names.item: item}));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        pin::Pin,
        sync::{Arc, Mutex},
        thread,
    };

    use flate2::read::GzDecoder;
    use http::{Request, Response};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_http::{HttpClient, HttpError};
    use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
    use smallvec::smallvec;

    use super::*;
    use crate::{
        config::Config,
        pipeline::{
            batch::{Scope, scope_fields},
            buffers::{Chunk, Run},
            encode,
        },
        testing::{block_on, sdk_span},
    };

    fn resource() -> Resource {
        let schema = "https://there/1";
        let pairs = [KeyValue::new("service.name", "tests"), KeyValue::new("n", 3)];
        Resource::builder_empty().with_schema_url(pairs, schema).build()
    }

    fn spans() -> [SpanData; 2] {
        let mut spans = [sdk_span(), sdk_span()];
        spans[1].name = "other".into();
        for span in &mut spans {
            span.instrumentation_scope = InstrumentationScope::builder("someone")
                .with_version("7")
                .with_schema_url("https://there/2")
                .with_attributes([KeyValue::new("a", "b")])
                .build();
        }
        spans
    }

    /// A batch of these spans, which have one scope.
    fn batch(spans: &[SpanData]) -> Batch {
        let mut batch = Batch::new(0);
        for span in spans {
            let mut bytes = Vec::new();
            encode::span(span, &mut bytes);
            let scope = Scope::Api(scope_fields(&span.instrumentation_scope).into());
            let runs = smallvec![Run { scope, end: bytes.len() }];
            batch.add(Chunk { items: 1, units: 1, bytes: bytes.into(), runs });
        }
        batch
    }

    fn exporter(settings: &str) -> Exporter {
        let config = Config::read(settings, &|_| None).unwrap();
        Exporter::new(Signal::Traces, &config.traces, &resource()).unwrap()
    }

    /// Keeps what the SDK's exporter sends.
    #[derive(Clone, Debug, Default)]
    struct Sent(Arc<Mutex<Vec<Bytes>>>);

    impl HttpClient for Sent {
        // Written out as `async_trait` would expand it.
        fn send_bytes<'a, 'async_trait>(
            &'a self,
            request: Request<Bytes>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
        where
            'a: 'async_trait,
            Self: 'async_trait,
        {
            self.0.lock().unwrap().push(request.into_body());
            Box::pin(async { Ok(Response::new(Bytes::new())) })
        }
    }

    #[test]
    fn a_request_is_the_one_that_the_sdk_s_exporter_sends() {
        let sent = Sent::default();
        let mut sdks = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(sent.clone())
            .build()
            .unwrap();
        sdks.set_resource(&resource());
        block_on(sdks.export(spans().to_vec())).unwrap();
        let wanted = ExportTraceServiceRequest::decode(&*sent.0.lock().unwrap().remove(0)).unwrap();
        assert_eq!(framed(), sorted(wanted));
    }

    /// A resource is a set.
    fn sorted(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
        let resource = request.resource_spans[0].resource.as_mut().unwrap();
        resource.attributes.sort_by(|a, b| a.key.cmp(&b.key));
        request
    }

    fn decode(parts: &[Bytes]) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(&*parts.concat()).unwrap()
    }

    /// What we make of the two spans.
    fn framed() -> ExportTraceServiceRequest {
        sorted(decode(&batch(&spans()).frame(&resource_fields(&resource()))))
    }

    /// Reads a request up to its end and answers it well.
    fn answer(mut stream: TcpStream) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        (head, body)
    }

    /// What arrives of two spans over HTTP by these settings.
    fn arrived(protocol: &str, compression: &str) -> (String, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = format!(
            r#"{{"protocol": "{protocol}", "endpoint": "http://{}", "compression": "{compression}",
                "headers": {{"x-token": "t"}}}}"#,
            listener.local_addr().unwrap()
        );
        let server = thread::spawn(move || answer(listener.accept().unwrap().0));
        block_on(exporter(&settings).export(&batch(&spans()))).unwrap();
        server.join().unwrap()
    }

    #[test]
    fn an_export_over_http_arrives_as_configured() {
        for (protocol, content_type) in
            [("http/protobuf", "application/x-protobuf"), ("http/json", "application/json")]
        {
            for compression in ["none", "gzip"] {
                let (head, mut body) = arrived(protocol, compression);
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                assert!(head.contains(&format!("content-type: {content_type}\r\n")), "{head}");
                assert!(head.contains("x-token: t\r\n"), "{head}");
                assert!(head.contains("user-agent: plugin-otel/"), "{head}");
                let gzip = compression == "gzip";
                assert_eq!(head.contains("content-encoding: gzip\r\n"), gzip, "{head}");
                if gzip {
                    let mut plain = Vec::new();
                    GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
                    body = plain;
                }
                let request = if protocol == "http/json" {
                    serde_json::from_slice(&body).unwrap()
                } else {
                    ExportTraceServiceRequest::decode(&*body).unwrap()
                };
                assert_eq!(sorted(request), framed(), "{protocol} {compression}");
            }
        }
    }

    #[test]
    fn json_has_ids_as_digits() {
        let mut span = sdk_span();
        span.parent_span_id = opentelemetry::SpanId::from_bytes([0xab; 8]);
        let json = Signal::Traces.to_json(&batch(&[span]).frame(&[]).concat()).unwrap();
        let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "0".repeat(32));
        assert_eq!(span["parentSpanId"], "ab".repeat(8));
        assert_eq!(span["kind"], 1);
    }

    #[test]
    fn the_console_has_one_line_for_each_span() {
        let request = Signal::Traces.to_json(&batch(&spans()).frame(&[]).concat()).unwrap();
        let lines = lines(Signal::Traces, &request);
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert!(lines[1].starts_with(r#"{"scope":"someone","span":{"#), "{lines:?}");
        assert!(lines[1].contains(r#""name":"other""#) && !lines[1].contains('\n'), "{lines:?}");
    }

    #[test]
    fn a_collector_that_is_not_there_is_a_failure_that_may_pass() {
        for protocol in ["grpc", "http/protobuf", "http/json"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let settings = format!(
                r#"{{"protocol": "{protocol}", "endpoint": "http://{}"}}"#,
                listener.local_addr().unwrap()
            );
            drop(listener);
            let failure = block_on(exporter(&settings).export(&Batch::default())).unwrap_err();
            assert!(failure.reason.contains("refused"), "{protocol}: {failure:?}");
            assert!(failure.may_pass, "{protocol}");
        }
    }

    #[test]
    fn an_exporter_to_nowhere_takes_everything() {
        let taken = block_on(exporter(r#"{"exporter": "none"}"#).export(&batch(&spans())));
        assert_eq!(taken, Ok(Accepted::default()));
    }
}
