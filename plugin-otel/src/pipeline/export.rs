//! Builds the exporter that the settings ask for.

use std::sync::Arc;

use http::{HeaderMap, header::USER_AGENT};
use opentelemetry_otlp::{
    Compression, Protocol as OtlpProtocol, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use tonic::metadata::MetadataMap;

use crate::{
    config::{self, Config, Protocol},
    http_client::{Client, LastError},
};

/// Where spans go.
#[derive(Debug)]
pub(crate) enum Exporter {
    /// To a collector.
    Otlp {
        /// The SDK's exporter.
        exporter: Box<opentelemetry_otlp::SpanExporter>,
        /// Why the HTTP client could not reach the collector.
        last_error: Arc<LastError>,
    },
    /// To the standard output.
    Console(opentelemetry_stdout::SpanExporter),
    /// Nowhere.
    None,
}

impl Exporter {
    /// Builds it; connects to nothing yet. Call it inside the export thread's runtime.
    ///
    /// # Errors
    /// Why the exporter refused its configuration.
    pub(crate) fn build(config: &Config, resource: &Resource) -> Result<Self, String> {
        let mut exporter = match config.exporter {
            config::Exporter::Otlp => Self::otlp(config)?,
            config::Exporter::Console => {
                Self::Console(opentelemetry_stdout::SpanExporter::default())
            }
            config::Exporter::None => Self::None,
        };
        exporter.set_resource(resource);
        Ok(exporter)
    }

    fn otlp(config: &Config) -> Result<Self, String> {
        let last_error = Arc::default();
        let exporter = match config.protocol {
            Protocol::Grpc => grpc(config),
            Protocol::HttpProtobuf => http(config, OtlpProtocol::HttpBinary, &last_error),
            Protocol::HttpJson => http(config, OtlpProtocol::HttpJson, &last_error),
        };
        let exporter = Box::new(exporter.map_err(|error| error.to_string())?);
        Ok(Self::Otlp { exporter, last_error })
    }
}

type Built = Result<opentelemetry_otlp::SpanExporter, opentelemetry_otlp::ExporterBuildError>;

fn grpc(config: &Config) -> Built {
    let metadata = MetadataMap::from_headers(config.headers.clone());
    let builder = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        // The builder puts the headers of the variables above those it is given.
        .with_interceptor(move |mut request: tonic::Request<()>| {
            *request.metadata_mut() = metadata.clone();
            Ok(request)
        });
    if config.gzip { builder.with_compression(Compression::Gzip).build() } else { builder.build() }
}

fn http(config: &Config, protocol: OtlpProtocol, last_error: &Arc<LastError>) -> Built {
    let client = Client::new(config.timeout, own_headers(config), Arc::clone(last_error));
    let builder = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(protocol)
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .with_http_client(client);
    if config.gzip { builder.with_compression(Compression::Gzip).build() } else { builder.build() }
}

fn own_headers(config: &Config) -> HeaderMap {
    let mut headers = config.headers.clone();
    headers.entry(USER_AGENT).or_insert_with(|| {
        http::HeaderValue::from_static(concat!("plugin-otel/", env!("CARGO_PKG_VERSION")))
    });
    headers
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        match self {
            Self::Otlp { exporter, last_error } => {
                last_error.take();
                exporter.export(batch).await.map_err(|error| with_cause(error, last_error.take()))
            }
            Self::Console(exporter) => exporter.export(batch).await,
            Self::None => Ok(()),
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        match self {
            Self::Otlp { exporter, .. } => exporter.set_resource(resource),
            Self::Console(exporter) => exporter.set_resource(resource),
            Self::None => {}
        }
    }
}

/// The exporter says no more than "network error" where the client knows why.
fn with_cause(error: OTelSdkError, cause: Option<String>) -> OTelSdkError {
    match (error, cause) {
        (OTelSdkError::InternalFailure(reason), Some(cause)) => {
            OTelSdkError::InternalFailure(format!("{reason}: {cause}"))
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::pipeline;

    /// Exports one span by these settings.
    fn export(settings: &str) -> OTelSdkResult {
        let config = Config::read(settings, &|_| None).unwrap();
        let resource = Resource::builder_empty().with_service_name("tests").build();
        let runtime = pipeline::runtime().unwrap();
        let exporter = {
            let _entered = runtime.enter();
            Exporter::build(&config, &resource).unwrap()
        };
        runtime.block_on(exporter.export(vec![crate::testing::sdk_span()]))
    }

    fn reason(result: OTelSdkResult) -> String {
        let Err(OTelSdkError::InternalFailure(reason)) = result else { panic!("{result:?}") };
        reason
    }

    #[test]
    fn an_export_over_http_arrives_as_configured() {
        for (protocol, compression, content_type) in [
            ("http/protobuf", "none", "content-type: application/x-protobuf\r\n"),
            ("http/protobuf", "gzip", "content-encoding: gzip\r\n"),
            ("http/json", "none", "content-type: application/json\r\n"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let settings = format!(
                r#"{{"protocol": "{protocol}", "endpoint": "http://{}", "compression": "{compression}",
                    "headers": {{"x-token": "t"}}}}"#,
                listener.local_addr().unwrap()
            );
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                String::from_utf8(head).unwrap()
            });
            export(&settings).unwrap();
            let head = server.join().unwrap();
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(content_type), "{head}");
            assert!(head.contains("x-token: t\r\n"), "{head}");
            assert!(head.contains("user-agent: plugin-otel/"), "{head}");
        }
    }

    #[test]
    fn a_collector_that_is_not_there_is_an_error_with_its_reason() {
        for protocol in ["grpc", "http/protobuf", "http/json"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let settings = format!(
                r#"{{"protocol": "{protocol}", "endpoint": "http://{}", "timeout": "200ms"}}"#,
                listener.local_addr().unwrap()
            );
            drop(listener);
            let reason = reason(export(&settings));
            assert!(reason.contains("refused"), "{protocol}: {reason}");
        }
    }
}
