//! One program, traced in two ways: as a service of the host, whose plugin makes spans of what it
//! does, and with `tracing-opentelemetry` in its own process.
//!
//! `reference --config FILE` works once for each request; with the variable `REFERENCE_ENDPOINT` it
//! works once, exports there over gRPC, and ends.
#![forbid(unsafe_code)]

mod work;

use std::{convert::Infallible, env, error::Error, process::ExitCode};

use host::Body;
use http::Response;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _};

fn main() -> ExitCode {
    match env::var("REFERENCE_ENDPOINT") {
        Ok(endpoint) => match in_process(&endpoint) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Err(_) => host::main(|_config, _client| {
            tower::service_fn(|_request| async {
                work::work();
                Ok::<_, Infallible>(Response::new(Body::empty()))
            })
        }),
    }
}

/// Works under a subscriber that `tracing-opentelemetry` listens to.
#[tokio::main]
async fn in_process(endpoint: &str) -> Result<(), Box<dyn Error>> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    // By this name the collector of the tests knows spans that are not the plugin's.
    let tracer = provider.tracer("opentelemetry.instrumentation.tracing");
    // Without what it adds to every span: the thread, the target, the level, the time in and out.
    let layer = tracing_opentelemetry::layer()
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_tracer(tracer);
    let targets = Targets::new().with_target("reference", tracing::Level::INFO);
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(targets));
    tracing::subscriber::with_default(subscriber, work::work);
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}
