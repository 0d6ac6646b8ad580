//! The SDK: everything as it comes or as `OTEL_*` say, but a queue as long as the plugin's.

use opentelemetry::{global, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::Failure;

/// The registered provider.
pub(crate) struct Export(SdkTracerProvider);

impl Export {
    /// Samples `ratio` of the traces that begin here and sends them to `collector`, over gRPC on the
    /// runtime of the caller.
    pub(crate) fn start(collector: &str, ratio: f64) -> Result<Self, Failure> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(format!("http://{collector}"))
            .build()?;
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(65_536)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .build();
        global::set_tracer_provider(provider.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self(provider))
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer("peers")
    }

    /// Spans of `tracing` become spans of the SDK, but those that the exporter itself makes.
    pub(crate) fn subscribe(&self) {
        let layer = tracing_opentelemetry::layer().with_tracer(self.tracer());
        let targets = Targets::new().with_target("otel::tracing", tracing::Level::TRACE);
        tracing_subscriber::registry().with(layer.with_filter(targets)).init();
    }
}
