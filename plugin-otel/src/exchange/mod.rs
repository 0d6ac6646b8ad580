//! Follows exchanges: each layer begins a span, its exchange fills the record, the end hands it over.

mod client;
mod end;
mod head;
mod recording;
mod server;
mod tail;

use std::sync::Arc;

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use plugin_api::SpanContext;

use self::tail::{Hold, Tail};
pub(crate) use self::{client::Client, server::Server, tail::Tally};
use crate::{
    clock::Clock,
    config::{Config, Exporter},
    pipeline::Pipeline,
    propagation::Propagators,
    record::Record,
    sampling::Sampler,
};

/// What both layers need to begin a span.
#[derive(Debug)]
pub(crate) struct Tracing {
    sampler: Sampler,
    propagators: Propagators,
    /// Whether there is anyone to record spans for.
    records: bool,
    /// Where spans wait that nobody samples; `None` where none are kept.
    tail: Option<Arc<Tail>>,
    pipeline: Arc<Pipeline>,
    ids: RandomIdGenerator,
    clock: Clock,
}

/// Why a span is recorded.
#[derive(Debug)]
enum Follow {
    /// It is sampled: it is exported when it ends.
    Sampled,
    /// Its request may yet fail or be slow: it waits.
    Held(Hold),
}

impl Tracing {
    /// Spans as the settings say, into this pipeline.
    pub(crate) fn new(config: &Config, pipeline: Arc<Pipeline>) -> Arc<Self> {
        let records = config.exporter != Exporter::None;
        Arc::new(Self {
            sampler: config.sampler,
            propagators: config.propagators,
            records,
            tail: Tail::new(config.keep).filter(|_| records),
            pipeline,
            ids: RandomIdGenerator::default(),
            clock: Clock::new(),
        })
    }

    /// The spans that wait for the end of their request; `None` where none are kept.
    pub(crate) fn tally(&self) -> Option<Tally> {
        self.tail.as_ref().map(|tail| tail.tally())
    }

    /// A new span below `parent` or at the root of a new trace, with the sampling decision in its
    /// flags. Allocates nothing.
    fn begin(&self, parent: Option<&SpanContext>) -> SpanContext {
        let (trace_id, random) = match parent {
            Some(parent) => (parent.trace_id, parent.flags & SpanContext::RANDOM),
            None => (self.ids.new_trace_id().to_bytes(), SpanContext::RANDOM),
        };
        let is_sampled = self.sampler.samples(parent, &trace_id);
        self.pipeline.started(is_sampled && self.records);
        let sampled = if is_sampled { SpanContext::SAMPLED } else { 0 };
        SpanContext::new(trace_id, self.ids.new_span_id().to_bytes(), random | sampled)
    }

    /// Another span of the same trace that is recorded as `span` is.
    fn sibling(&self, span: &SpanContext) -> SpanContext {
        self.pipeline.started(span.is_sampled());
        SpanContext::new(span.trace_id, self.ids.new_span_id().to_bytes(), span.flags)
    }

    /// Why this span is recorded, if it is; `hold` is asked for a place where it is not sampled.
    fn follow(
        &self,
        span: &SpanContext,
        hold: impl FnOnce(&Arc<Tail>) -> Option<Hold>,
    ) -> Option<Follow> {
        if span.is_sampled() {
            return self.records.then_some(Follow::Sampled);
        }
        self.tail.as_ref().and_then(hold).map(Follow::Held)
    }

    /// Takes a span that is over.
    fn finish(&self, record: Record, follow: Follow) {
        self.pipeline.ended();
        match follow {
            Follow::Sampled => self.pipeline.finish(&record),
            Follow::Held(hold) => hold.settle(record, |record| {
                self.pipeline.kept();
                self.pipeline.finish(&record);
            }),
        }
    }
}
