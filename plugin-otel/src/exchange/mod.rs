//! Follows exchanges: each layer begins a span, its exchange fills the record, the end hands it over.

mod authority;
mod capture;
mod client;
mod end;
mod head;
mod recording;
mod server;
mod tail;

use std::sync::Arc;

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use plugin_api::{Host, RequestHead, SpanContext};

pub(crate) use self::{authority::host_and_port, client::Client, server::Server, tail::Tally};
use self::{
    capture::Capture,
    tail::{Hold, Tail},
};
use crate::{
    cardinality::Cardinality,
    clock::Clock,
    config::{Config, Exporter},
    live::{Live, Selection},
    methods::KnownMethods,
    networks::Networks,
    pipeline::Pipeline,
    propagation::{DEBUG, DEFERRED, PASSED_ON, Propagators},
    record::Record,
    redact::Redaction,
    response_header::ResponseHeader,
};

/// What both layers need to begin a span.
#[derive(Debug)]
pub(crate) struct Tracing {
    live: Live,
    propagators: Propagators,
    trusted_proxies: Networks,
    known_methods: KnownMethods,
    redaction: Redaction,
    response_header: ResponseHeader,
    request_headers: Capture,
    response_headers: Capture,
    cardinality: Cardinality,
    /// Whether there is anyone to record spans for.
    pub(crate) records: bool,
    /// Where spans wait that nobody samples; `None` where none are kept.
    tail: Option<Arc<Tail>>,
    pub(crate) pipeline: Arc<Pipeline>,
    ids: RandomIdGenerator,
    pub(crate) clock: Clock,
}

/// Why a span is recorded.
#[derive(Debug)]
pub(crate) enum Follow {
    /// It is sampled: it is exported when it ends.
    Sampled,
    /// Its request may yet fail or be slow: it waits. Boxed, so that this is a word: it is moved more than
    /// once, and with every span.
    Held(Box<Hold>),
}

impl Follow {
    fn held(hold: Hold) -> Self {
        Self::Held(Box::new(hold))
    }

    /// Why another span of the same request is recorded, which has this id and may have others below it.
    fn parent(&self, id: [u8; 8]) -> Self {
        match self {
            Self::Sampled => Self::Sampled,
            Self::Held(hold) => Self::held(hold.parent(id)),
        }
    }

    /// Why another span of the same request is recorded.
    fn leaf(&self) -> Self {
        match self {
            Self::Sampled => Self::Sampled,
            Self::Held(hold) => Self::held(hold.leaf()),
        }
    }
}

impl Tracing {
    /// Spans as the settings say, into this pipeline.
    pub(crate) fn new(config: &Config, host: Host, pipeline: Arc<Pipeline>) -> Arc<Self> {
        let records = config.traces.exporter != Exporter::None;
        Arc::new(Self {
            live: Live::new(config),
            propagators: config.propagators.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            known_methods: config.known_methods,
            redaction: config.redaction.clone(),
            response_header: config.response_header,
            request_headers: Capture::of_requests(&config.capture.request_headers),
            response_headers: Capture::of_responses(&config.capture.response_headers),
            cardinality: Cardinality::new(config.max_distinct, host),
            records,
            tail: Tail::new(config.keep).filter(|_| records),
            pipeline,
            ids: RandomIdGenerator::default(),
            clock: Clock::new(),
        })
    }

    /// What is recorded, which may be replaced at any time.
    pub(crate) const fn live(&self) -> &Live {
        &self.live
    }

    /// The spans that wait for the end of their request; `None` where none are kept.
    pub(crate) fn tally(&self) -> Option<Tally> {
        self.tail.as_ref().map(|tail| tail.tally())
    }

    /// A new span below what the caller says or at the root of a new trace, with the sampling
    /// decision in its flags. Allocates nothing.
    fn accept(
        &self,
        selection: &Selection,
        caller: &SpanContext,
        head: &RequestHead<'_>,
    ) -> SpanContext {
        let decided = (caller.flags & DEFERRED == 0).then_some(caller.is_sampled());
        let (trace_id, random) = self.trace_of(caller);
        let rule = || selection.policy.rules.samples(&trace_id, head);
        let is_sampled = selection.sampler.samples(decided, &trace_id, head, rule);
        self.begin(trace_id, random | caller.flags & DEBUG, is_sampled)
    }

    /// A new span for a call. One that is made for an exchange of this host follows it, whatever the
    /// sampler: the decision has been made there.
    pub(crate) fn call(&self, parent: &SpanContext) -> SpanContext {
        let (trace_id, random) = self.trace_of(parent);
        let is_sampled = if parent.is_valid() {
            parent.is_sampled()
        } else {
            self.live.load().sampler.samples_own(&trace_id)
        };
        self.begin(trace_id, random | parent.flags & DEBUG, is_sampled)
    }

    /// The trace that goes on or begins, and whether its id is known to be random.
    fn trace_of(&self, parent: &SpanContext) -> ([u8; 16], u32) {
        if parent.is_valid() {
            (parent.trace_id, parent.flags & SpanContext::RANDOM)
        } else {
            (self.ids.new_trace_id().to_bytes(), SpanContext::RANDOM)
        }
    }

    fn begin(&self, trace_id: [u8; 16], flags: u32, is_sampled: bool) -> SpanContext {
        if !(is_sampled && self.records) {
            self.pipeline.started(false);
        }
        let sampled = if is_sampled { SpanContext::SAMPLED } else { 0 };
        SpanContext::new(trace_id, self.ids.new_span_id().to_bytes(), flags | sampled)
    }

    /// Another span of the same trace that is recorded as `span` is.
    fn sibling(&self, span: &SpanContext) -> SpanContext {
        if !span.is_sampled() {
            self.pipeline.started(false);
        }
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
        self.tail.as_ref().and_then(hold).map(Follow::held)
    }

    /// A span of the code below this context, and why it is recorded, if it is. Below what is not
    /// sampled, and not held either, or of an exchange that is excluded, there is none: the context stays
    /// as it is.
    pub(crate) fn inner(&self, parent: &SpanContext) -> (SpanContext, Option<Follow>) {
        if parent.flags & PASSED_ON != 0 {
            return (*parent, None);
        }
        if !parent.is_valid() || parent.is_sampled() {
            let span = self.call(parent);
            return (span, self.follow(&span, |_| None));
        }
        let hold = self.tail.as_ref().and_then(|tail| tail.below(parent.span_id));
        let Some(hold) = hold else { return (*parent, None) };
        let span = self.call(parent);
        (span, Some(Follow::held(hold.parent(span.span_id))))
    }

    /// Counts a span that is recorded from now on. One that is sampled begins here for the counters: what
    /// they have under way there is something that ends.
    pub(crate) fn count_recorded(&self, follow: &Follow) {
        match follow {
            Follow::Sampled => self.pipeline.started(true),
            Follow::Held(_) => self.pipeline.began_unsampled(),
        }
    }

    /// Takes a span that is over.
    pub(crate) fn finish(&self, record: Box<Record>, follow: Follow) {
        match follow {
            Follow::Sampled => self.export(record),
            Follow::Held(hold) => {
                self.pipeline.ended_unsampled();
                hold.settle(record, |record| {
                    self.pipeline.kept();
                    self.export(record);
                });
            }
        }
    }

    fn export(&self, record: Box<Record>) {
        self.pipeline.finish(&record);
        record.recycle();
    }
}
