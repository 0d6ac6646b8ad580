//! What happens inside the host: its spans below those of exchanges, its log lines as log records.

use std::sync::Arc;

use plugin_api::{
    Context, Level,
    telemetry::{Begun, Event, SpanHead, Telemetry},
};

use crate::{exchange::Tracing, logs, pipeline::Pipeline, spans::LocalSpan};

/// Takes the host's spans and log lines.
#[derive(Debug)]
pub(crate) struct Inside {
    pub(crate) tracing: Arc<Tracing>,
    /// Where log records go; `None` where no line is exported.
    pub(crate) logs: Option<Arc<Pipeline>>,
}

impl Telemetry for Inside {
    type Span = LocalSpan;

    fn span_level(&self) -> Option<Level> {
        self.tracing.records.then_some(Level::INFO)
    }

    fn event_level(&self) -> Option<Level> {
        self.logs.as_ref().and_then(|_| self.tracing.live().load().log_level)
    }

    fn unsampled(&self) -> bool {
        self.tracing.tally().is_some()
    }

    fn on_span(&self, head: &SpanHead<'_>, parent: &Context) -> Begun<LocalSpan> {
        LocalSpan::begin(&self.tracing, head, parent)
    }

    fn on_event(&self, event: &Event<'_>, context: &Context) {
        if let Some(pipeline) = &self.logs {
            logs::finish(pipeline, event, context.span(), self.tracing.clock.now());
        }
    }
}
