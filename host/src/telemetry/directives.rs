//! What is logged, replaceable while the host runs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use tracing::{
    Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{EnvFilter, Layer, layer::Context};

use crate::config::LogFilter;

/// The filter of a log. It is told of spans only where a directive names some, `[request]=debug` for
/// example: otherwise each step of a span would be a lock that is taken for nothing.
#[derive(Clone)]
pub(super) struct Directives(Arc<Filter>);

struct Filter {
    filter: ArcSwap<EnvFilter>,
    names_spans: AtomicBool,
}

impl Directives {
    pub(super) fn new(level: &LogFilter) -> Self {
        Self(Arc::new(Filter {
            filter: ArcSwap::from_pointee(level.build()),
            names_spans: AtomicBool::new(level.names_spans()),
        }))
    }

    /// From now on `level` says what is logged. Spans that are open already enable nothing.
    pub(super) fn replace(&self, level: &LogFilter) {
        self.0.filter.store(Arc::new(level.build()));
        self.0.names_spans.store(level.names_spans(), Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    fn if_it_names_spans(&self, tell: impl FnOnce(&EnvFilter)) {
        if self.0.names_spans.load(Ordering::Relaxed) {
            tell(&self.0.filter.load());
        }
    }
}

impl<S: Subscriber> Layer<S> for Directives {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&**self.0.filter.load(), metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.filter.load().enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.filter.load().max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.if_it_names_spans(|filter| filter.on_new_span(attributes, id, context));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.if_it_names_spans(|filter| filter.on_record(id, values, context));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.if_it_names_spans(|filter| filter.on_enter(id, context));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.if_it_names_spans(|filter| filter.on_exit(id, context));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.if_it_names_spans(|filter| filter.on_close(id, context));
    }
}
