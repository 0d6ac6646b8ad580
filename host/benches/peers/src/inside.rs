//! Events and spans of `tracing` as `opentelemetry-appender-tracing` and `tracing-opentelemetry` take
//! them.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use opentelemetry::{
    Context,
    trace::{TraceContextExt as _, Tracer as _},
};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    logs::{BatchConfigBuilder, BatchLogProcessor, SdkLoggerProvider},
    trace::SdkTracer,
};
use tracing::Level;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

use crate::{Failure, export::Export, work};

/// Sends the spans and the log records of this program there.
pub(crate) fn subscribe(export: &Export, collector: &str) -> Result<(), Failure> {
    let exporter =
        LogExporter::builder().with_tonic().with_endpoint(format!("http://{collector}")).build()?;
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(65_536)
        .with_scheduled_delay(Duration::from_millis(100))
        .build();
    let processor = BatchLogProcessor::builder(exporter).with_batch_config(batch).build();
    let logs = SdkLoggerProvider::builder().with_log_processor(processor).build();
    // Not what the exporters themselves say.
    let targets = || Targets::new().with_target("peers", Level::INFO);
    let spans = tracing_opentelemetry::layer().with_tracer(export.tracer());
    let subscriber = tracing_subscriber::registry()
        .with(spans.with_filter(targets()))
        .with(OpenTelemetryTracingBridge::new(&logs).with_filter(targets()));
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(())
}

/// `/WHAT/COUNT` does it so often, within the span of the request.
pub(crate) fn answer(tracer: &SdkTracer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let _request = Context::current_with_span(tracer.start("request")).attach();
    let (what, count) = request.uri().path()[1..].split_once('/').unwrap_or_default();
    let took = work::nanoseconds(what, count.parse().unwrap_or_default());
    Response::new(took.map(|took| took.to_string()).unwrap_or_default().into())
}
