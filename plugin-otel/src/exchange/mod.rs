//! Follows exchanges: each layer begins a span, its exchange fills the record, the end hands it over.

mod client;
mod head;
mod server;

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Instant, SystemTime},
};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use plugin_api::{Context, End, Outcome, ResponseHead, SpanContext};

pub(crate) use self::{client::Client, server::Server};
use crate::{
    pipeline::Pipeline,
    propagation::Propagators,
    record::{Kind, Record, Value},
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
    pipeline: Arc<Pipeline>,
    ids: RandomIdGenerator,
}

impl Tracing {
    /// Spans by this sampler, from and to these headers, into this pipeline.
    pub(crate) fn new(
        sampler: Sampler,
        propagators: Propagators,
        pipeline: Arc<Pipeline>,
    ) -> Arc<Self> {
        Arc::new(Self { sampler, propagators, pipeline, ids: RandomIdGenerator::default() })
    }

    /// A new span below `parent` or at the root of a new trace, with the sampling decision in its
    /// flags. Allocates nothing.
    fn begin(&self, parent: Option<&SpanContext>) -> SpanContext {
        let (trace_id, random) = match parent {
            Some(parent) => (parent.trace_id, parent.flags & SpanContext::RANDOM),
            None => (self.ids.new_trace_id().to_bytes(), SpanContext::RANDOM),
        };
        let is_sampled = self.sampler.samples(parent, &trace_id);
        self.pipeline.started(is_sampled);
        let sampled = if is_sampled { SpanContext::SAMPLED } else { 0 };
        SpanContext::new(trace_id, self.ids.new_span_id().to_bytes(), random | sampled)
    }
}

/// A span under way. Dropped without an end, it ends as cancelled.
#[derive(Debug)]
struct Recording {
    /// `None` once it is handed over.
    record: Option<Box<Record>>,
    pipeline: Arc<Pipeline>,
    began: Instant,
    /// 0 until there is one.
    status: u32,
}

impl Recording {
    fn begin(
        tracing: &Tracing,
        kind: Kind,
        context: Context,
        parent: Option<&SpanContext>,
        name: &'static str,
    ) -> Self {
        let start = now();
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
        Self {
            record: Some(Box::new(record)),
            pipeline: Arc::clone(&tracing.pipeline),
            began: Instant::now(),
            status: 0,
        }
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
        self.finish(end.outcome, end.elapsed_nanos);
    }

    fn finish(&mut self, outcome: Outcome, elapsed_nanos: u64) {
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
        record.end = record.start.saturating_add(elapsed_nanos);
        self.pipeline.finish(record);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let elapsed = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.finish(Outcome::CLIENT_GONE, elapsed);
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

/// Nanoseconds since the Unix epoch; 0 for a clock that is set before it.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
