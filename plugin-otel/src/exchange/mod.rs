//! Follows exchanges: each layer begins a span, its exchange fills the record, the end hands it over.

mod client;
mod head;
mod server;

use std::{borrow::Cow, sync::Arc};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use plugin_api::{Context, End, Outcome, ResponseHead, SpanContext};

pub(crate) use self::{client::Client, server::Server};
use crate::{
    clock::Clock,
    config::{Config, Exporter},
    methods::KnownMethods,
    pipeline::Pipeline,
    policy::Policy,
    propagation::{DEBUG, DEFERRED, Propagators},
    record::{Kind, Record, Value},
    redact::Redaction,
    response_header::ResponseHeader,
    sampling::Sampler,
    semconv,
};

/// How many attributes a span of an exchange has at most, so that its list grows once.
const MOST_ATTRIBUTES: usize = 20;

/// What both layers need to begin a span.
#[derive(Debug)]
pub(crate) struct Tracing {
    sampler: Sampler,
    propagators: Propagators,
    policy: Policy,
    known_methods: KnownMethods,
    redaction: Redaction,
    response_header: ResponseHeader,
    /// Whether there is anyone to record spans for.
    records: bool,
    pipeline: Arc<Pipeline>,
    ids: RandomIdGenerator,
    clock: Clock,
}

impl Tracing {
    /// Spans as the settings say, into this pipeline.
    pub(crate) fn new(config: &Config, pipeline: Arc<Pipeline>) -> Arc<Self> {
        Arc::new(Self {
            sampler: config.sampler,
            propagators: config.propagators.clone(),
            policy: config.policy.clone(),
            known_methods: config.known_methods,
            redaction: config.redaction.clone(),
            response_header: config.response_header,
            records: config.exporter != Exporter::None,
            pipeline,
            ids: RandomIdGenerator::default(),
            clock: Clock::new(),
        })
    }

    /// A new span below what the caller says or at the root of a new trace, with the sampling
    /// decision in its flags. Allocates nothing.
    fn accept(&self, caller: &SpanContext, rule: impl FnOnce() -> Option<f64>) -> SpanContext {
        let decided = (caller.flags & DEFERRED == 0).then_some(caller.is_sampled());
        let (trace_id, random) = self.trace_of(caller);
        let is_sampled = self.sampler.samples(decided, &trace_id, rule);
        self.begin(trace_id, random | caller.flags & DEBUG, is_sampled)
    }

    /// A new span for a call. One that is made for an exchange of this host follows it, whatever the
    /// sampler: the decision has been made there.
    fn call(&self, parent: &SpanContext) -> SpanContext {
        let (trace_id, random) = self.trace_of(parent);
        let is_sampled = if parent.is_valid() {
            parent.is_sampled()
        } else {
            self.sampler.samples(None, &trace_id, || None)
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
        self.pipeline.started(is_sampled && self.records);
        let sampled = if is_sampled { SpanContext::SAMPLED } else { 0 };
        SpanContext::new(trace_id, self.ids.new_span_id().to_bytes(), flags | sampled)
    }

    /// Whether the exchange of this span is followed.
    const fn records(&self, span: &SpanContext) -> bool {
        self.records && span.is_sampled()
    }
}

/// A span under way. Dropped without an end, it ends as cancelled.
#[derive(Debug)]
struct Recording {
    /// `None` once it is handed over.
    record: Option<Box<Record>>,
    tracing: Arc<Tracing>,
    /// 0 until there is one.
    status: u32,
}

impl Recording {
    fn begin(
        tracing: &Arc<Tracing>,
        kind: Kind,
        context: Context,
        parent: Option<&SpanContext>,
        name: &'static str,
    ) -> Self {
        let start = tracing.clock.now();
        let record = Record {
            context,
            parent_span_id: parent.map_or([0; 8], |parent| parent.span_id),
            parent_is_remote: parent.is_some() && kind == Kind::Server,
            kind,
            name: Cow::Borrowed(name),
            start,
            end: start,
            attributes: Vec::with_capacity(MOST_ATTRIBUTES),
            is_error: false,
        };
        Self { record: Some(Box::new(record)), tracing: Arc::clone(tracing), status: 0 }
    }

    fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(record) = &mut self.record {
            record.attributes.push((key, value.into()));
        }
    }

    fn set_text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.set(key, text.to_owned());
        }
    }

    fn rename(&mut self, name: String) {
        if let Some(record) = &mut self.record {
            record.name = Cow::Owned(name);
        }
    }

    fn respond(&mut self, head: &ResponseHead<'_>) {
        self.status = head.status();
        self.set(semconv::HTTP_RESPONSE_STATUS_CODE, u64::from(head.status()));
    }

    fn end(&mut self, end: &End) {
        if end.request_bytes > 0 {
            self.set(semconv::HTTP_REQUEST_BODY_SIZE, end.request_bytes);
        }
        if end.response_bytes > 0 {
            self.set(semconv::HTTP_RESPONSE_BODY_SIZE, end.response_bytes);
        }
        self.finish(end.outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else { return };
        let (reason, cut) = describe(outcome);
        record.attributes.push((semconv::EXCHANGE_END_REASON, reason.into()));
        let first_bad_status = match record.kind {
            Kind::Server => 500,
            Kind::Client => 400,
        };
        let error_type = match cut {
            Some(cut) => Some(Value::from(cut)),
            None if self.status >= first_bad_status => Some(self.status.to_string().into()),
            None => None,
        };
        if let Some(error_type) = error_type {
            record.is_error = true;
            record.attributes.push((semconv::ERROR_TYPE, error_type));
        }
        // The wall clock may be set meanwhile, and a span must not end before it starts.
        record.end = self.tracing.clock.now().max(record.start);
        self.tracing.pipeline.finish(record);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish(Outcome::CLIENT_GONE);
    }
}

/// The end reason of an outcome and, where the outcome is a fault, its `error.type`.
///
/// Someone who goes away is no fault of this exchange: the status code alone decides then.
fn describe(outcome: Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::COMPLETE => ("complete", None),
        Outcome::CLIENT_GONE => ("client gone", None),
        Outcome::UPSTREAM_GONE => ("upstream gone", Some("upstream_gone")),
        Outcome::TIMEOUT => ("timeout", Some("timeout")),
        Outcome::SHED => ("shed", Some("shed")),
        Outcome::PANIC => ("panic", Some("panic")),
        Outcome::CONNECT_FAILED => ("connect failed", Some("connect_failed")),
        // A newer host knows more ends than this plugin.
        _ => ("unknown", None),
    }
}
