//! The registered `TracerProvider`: spans that anyone makes through the OpenTelemetry API inside this
//! library go the same way as those of exchanges.

use std::{sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};

use crate::{live::Live, pipeline::Pipeline};

/// How long the API's own `force_flush` waits, which takes no timeout.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a provider whose spans join the pipeline, and registers it for this library.
pub(crate) fn register(
    live: Live,
    resource: Resource,
    pipeline: Arc<Pipeline>,
) -> SdkTracerProvider {
    let provider = SdkTracerProvider::builder()
        .with_sampler(live)
        .with_resource(resource)
        .with_span_processor(Joining(pipeline))
        .build();
    opentelemetry::global::set_tracer_provider(provider.clone());
    provider
}

/// Hands finished spans over to the pipeline.
#[derive(Debug)]
struct Joining(Arc<Pipeline>);

impl SpanProcessor for Joining {
    fn on_start(&self, _span: &mut Span, _context: &Context) {
        self.0.started(true);
    }

    fn on_end(&self, span: SpanData) {
        self.0.finish_span(&span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        let flushed = self.0.flush(FLUSH_TIMEOUT);
        flushed.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        // The plugin ends the pipeline itself, after the provider.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use opentelemetry::{
        global,
        trace::{Span as _, Tracer as _, TracerProvider as _},
    };

    use super::*;
    use crate::testing::{Journal, PATIENCE, config, pipeline};

    #[test]
    fn a_span_of_the_opentelemetry_api_is_under_way_until_it_ends() {
        let config = config("always_on");
        let (pipeline, _exporter) = pipeline(&config, &Journal::default());
        let resource = Resource::builder_empty().build();
        // Not asked for at the registry, which is one for all tests.
        let provider = register(Live::new(&config), resource, Arc::clone(&pipeline));
        let mut span = provider.tracer("someone").start("work");
        assert_eq!((pipeline.counts().live, pipeline.counts().started), (1, 1));
        span.end();
        assert_eq!((pipeline.counts().live, pipeline.counts().started), (0, 1));
    }

    #[test]
    fn a_span_of_the_opentelemetry_api_joins_the_same_pipeline() {
        let config = config("always_on");
        let (pipeline, exporter) = pipeline(&config, &Journal::default());
        let resource = Resource::builder_empty().build();
        let provider = register(Live::new(&config), resource, Arc::clone(&pipeline));
        // The registry is one for all tests, which run at the same time: whoever else registered a
        // provider meanwhile is overruled, and no test but this one asks the registry.
        let deadline = Instant::now() + PATIENCE;
        let scope = loop {
            assert!(Instant::now() < deadline, "no span joined within {PATIENCE:?}");
            let mut span = global::tracer("someone").start("work");
            span.end();
            pipeline.flush(PATIENCE).unwrap();
            if let Some(scope) = exporter.scopes().pop() {
                break scope;
            }
            global::set_tracer_provider(provider.clone());
        };
        assert_eq!(scope.spans[0].name, "work");
        assert_eq!(scope.scope.unwrap().name, "someone");
        let counts = pipeline.counts();
        assert_eq!((counts.started, counts.sampled, counts.exported), (1, 1, 1));
        provider.shutdown().unwrap();
        global::tracer("someone").start("too late").end();
        assert_eq!(pipeline.counts().started, 1);
    }
}
