//! Follows exchanges: each layer begins a span, its exchange fills the record, the end hands it over.

mod client;
mod head;
mod server;

use std::{fmt::Display, sync::Arc};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use plugin_api::{Context, End, Outcome, ResponseHead, SpanContext};

pub(crate) use self::{client::Client, server::Server};
use crate::{
    clock::Clock,
    config::{Config, Exporter},
    pipeline::Pipeline,
    propagation::Propagators,
    record::{Kind, Link, Record},
    sampling::Sampler,
    semconv,
    short::Short,
};

/// What both layers need to begin a span.
#[derive(Debug)]
pub(crate) struct Tracing {
    sampler: Sampler,
    propagators: Propagators,
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
            propagators: config.propagators,
            records: config.exporter != Exporter::None,
            pipeline,
            ids: RandomIdGenerator::default(),
            clock: Clock::new(),
        })
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

    /// Whether the exchange of this span is followed.
    const fn records(&self, span: &SpanContext) -> bool {
        self.records && span.is_sampled()
    }
}

/// A span under way. Dropped without an end, it ends as cancelled.
#[derive(Debug)]
struct Recording {
    /// `None` once it is handed over.
    record: Option<Record>,
    tracing: Arc<Tracing>,
    /// 0 until there is one.
    status: u32,
}

impl Recording {
    fn begin(
        tracing: &Arc<Tracing>,
        kind: Kind,
        context: &Context,
        parent: Option<&SpanContext>,
        name: &'static str,
    ) -> Self {
        let start = tracing.clock.now();
        let record = Record::begin(kind, context, parent, name, start);
        Self { record: Some(record), tracing: Arc::clone(tracing), status: 0 }
    }

    /// A number that OTLP cannot hold becomes the largest that it can.
    fn set_number(&mut self, key: &str, number: impl TryInto<i64>) {
        if let Some(record) = &mut self.record {
            record.number(key, number.try_into().unwrap_or(i64::MAX));
        }
    }

    /// An empty text is none.
    fn set_text(&mut self, key: &str, text: &str) {
        if let (Some(record), false) = (&mut self.record, text.is_empty()) {
            record.text(key, text);
        }
    }

    /// A text in parts, which need not be joined before.
    fn set_concat(&mut self, key: &str, parts: &[&str]) {
        if let Some(record) = &mut self.record {
            record.concat(key, parts);
        }
    }

    /// True or false.
    #[allow(dead_code, reason = "no hook sets one yet")]
    fn set_flag(&mut self, key: &str, flag: bool) {
        if let Some(record) = &mut self.record {
            record.flag(key, flag);
        }
    }

    /// A list of texts, such as the values of a header.
    #[allow(dead_code, reason = "no hook sets one yet")]
    fn set_texts<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str> + Clone) {
        if let Some(record) = &mut self.record {
            record.texts(key, texts);
        }
    }

    /// A link with a few attributes.
    #[allow(dead_code, reason = "no hook sets one yet")]
    fn set_link(&mut self, to: &Link<'_>, attributes: &[(&str, &str)]) {
        if let Some(record) = &mut self.record {
            record.link(to, attributes);
        }
    }

    /// Something short that is shown as a text, such as an address.
    fn set_shown(&mut self, key: &str, shown: impl Display) {
        self.set_text(key, &Short::of(shown));
    }

    /// The new name comes in parts, which need not be joined before.
    fn rename(&mut self, parts: &[&str]) {
        if let Some(record) = &mut self.record {
            record.rename(parts);
        }
    }

    fn respond(&mut self, head: &ResponseHead<'_>) {
        self.status = head.status();
        self.set_number(semconv::HTTP_RESPONSE_STATUS_CODE, head.status());
    }

    fn end(&mut self, end: &End) {
        if end.request_bytes > 0 {
            self.set_number(semconv::HTTP_REQUEST_BODY_SIZE, end.request_bytes);
        }
        if end.response_bytes > 0 {
            self.set_number(semconv::HTTP_RESPONSE_BODY_SIZE, end.response_bytes);
        }
        self.finish(end.outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(mut record) = self.record.take() else { return };
        let (reason, cut) = describe(outcome);
        record.text(semconv::EXCHANGE_END_REASON, reason);
        let first_bad_status = match record.kind {
            Kind::Client => 400,
            Kind::Server | Kind::Internal => 500,
        };
        if let Some(cut) = cut {
            record.is_error = true;
            record.text(semconv::ERROR_TYPE, cut);
        } else if self.status >= first_bad_status {
            record.is_error = true;
            record.text(semconv::ERROR_TYPE, &Short::of(self.status));
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
