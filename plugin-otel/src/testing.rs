//! What the tests share: a host that remembers, an exporter that obeys, a bench with both.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    InstrumentationScope,
    trace::{SpanContext, SpanId, SpanKind},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::{ScopeSpans, Span, Status, status::StatusCode},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use plugin_api::{
    Context, Host, Level, RequestHead, Service,
    adapter::{HostServices, host_object},
    telemetry::{Begun, SpanHead},
};

use prost::Message as _;

use crate::{
    config::Config,
    exchange::{Client, Server, Tracing},
    pipeline::{Accepted, Batch, Counts, Failure, Pipeline, export::Export},
    signal::Signal,
    spans::LocalSpan,
};

/// Longer than any step of a test takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A host's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<(Level, String)>>>);

impl Journal {
    /// A host that writes here.
    pub(crate) fn host(&self) -> Host {
        Host::new(host_object(self.clone()))
    }

    /// All lines so far: level, and target with message.
    pub(crate) fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }

    /// All lines so far as one text.
    pub(crate) fn text(&self) -> String {
        self.lines().into_iter().map(|(_, line)| line + "\n").collect()
    }
}

impl HostServices for Journal {
    fn log(&self, level: Level, target: &str, message: &str) {
        self.0.lock().unwrap().push((level, format!("{target}: {message}")));
    }

    fn service(&self) -> Service {
        Service { group: "tests".into(), ..Service::default() }
    }
}

/// What an [`Obedient`] exporter does with the next batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Take it.
    Take,
    /// Take it, but for one span.
    TakeLess,
    /// Refuse it.
    Fail,
    /// Refuse it for now.
    FailForNow,
    /// Refuse it, and want to be left alone for ever.
    FailForEver,
    /// Never answer.
    Hang,
    /// Block its thread until the order changes.
    Block,
    /// Panic.
    Panic,
}

/// An exporter that keeps what it gets and does what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Obedient(Arc<(Mutex<Obeyed>, Condvar)>);

#[derive(Debug)]
struct Obeyed {
    order: Order,
    batches: Vec<Vec<ScopeSpans>>,
    calls: usize,
}

impl Default for Obedient {
    fn default() -> Self {
        let obeyed = Obeyed { order: Order::Take, batches: Vec::new(), calls: 0 };
        Self(Arc::new((Mutex::new(obeyed), Condvar::new())))
    }
}

impl Obedient {
    /// Says what to do from now on.
    pub(crate) fn order(&self, order: Order) {
        self.0.0.lock().unwrap().order = order;
        self.0.1.notify_all();
    }

    /// Waits until the exporter has been called this often.
    pub(crate) fn wait_for_calls(&self, calls: usize) {
        self.wait("calls", |obeyed| obeyed.calls >= calls);
    }

    /// How often the exporter was called.
    pub(crate) fn calls(&self) -> usize {
        self.0.0.lock().unwrap().calls
    }

    /// The sizes of the batches taken.
    pub(crate) fn batch_sizes(&self) -> Vec<usize> {
        let obeyed = self.0.0.lock().unwrap();
        let sizes =
            obeyed.batches.iter().map(|batch| batch.iter().map(|scope| scope.spans.len()).sum());
        sizes.collect()
    }

    /// All spans taken, by their scopes.
    pub(crate) fn scopes(&self) -> Vec<ScopeSpans> {
        self.0.0.lock().unwrap().batches.concat()
    }

    /// All spans taken.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.scopes().into_iter().flat_map(|scope| scope.spans).collect()
    }

    fn wait(&self, what: &str, done: impl Fn(&Obeyed) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut obeyed = self.0.0.lock().unwrap();
        while !done(&obeyed) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} within {PATIENCE:?}");
            obeyed = self.0.1.wait_timeout(obeyed, left).unwrap().0;
        }
    }

    fn take(&self, batch: &Batch) -> Result<Accepted, Failure> {
        let request = ExportTraceServiceRequest::decode(&*batch.frame(&[]).concat()).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
        self.0.0.lock().unwrap().batches.push(scopes.collect());
        self.0.1.notify_all();
        Ok(Accepted::default())
    }
}

impl Export for Obedient {
    async fn export(&self, batch: &Batch) -> Result<Accepted, Failure> {
        let order = {
            let mut obeyed = self.0.0.lock().unwrap();
            obeyed.calls += 1;
            obeyed.order
        };
        self.0.1.notify_all();
        match order {
            Order::Take => self.take(batch),
            Order::TakeLess => {
                self.take(batch)?;
                Ok(Accepted { refused: 1, message: "one is odd".to_owned() })
            }
            Order::Fail => Err(Failure::lasting("told to fail")),
            Order::FailForNow => Err(Failure::passing("told to fail for now")),
            Order::FailForEver => {
                Err(Failure { wait: Duration::MAX, ..Failure::passing("told to wait") })
            }
            Order::Hang => std::future::pending().await,
            Order::Block => {
                self.wait("new order", |obeyed| !matches!(obeyed.order, Order::Block));
                Ok(Accepted::default())
            }
            Order::Panic => panic!("told to panic"),
        }
    }
}

/// The defaults, with this sampler.
pub(crate) fn config(sampler: &str) -> Config {
    Config::read(&format!(r#"{{"sampler": "{sampler}"}}"#), &|_| None).unwrap()
}

/// Starts a pipeline with an exporter that obeys.
pub(crate) fn pipeline(config: &Config, journal: &Journal) -> (Arc<Pipeline>, Obedient) {
    let exporter = Obedient::default();
    let pipeline =
        Pipeline::start(Signal::Traces, &config.traces, journal.host(), exporter.clone());
    (Arc::new(pipeline.unwrap()), exporter)
}

/// Both layers above a pipeline that keeps its spans.
pub(crate) struct Bench {
    tracing: Arc<Tracing>,
    pipeline: Arc<Pipeline>,
    exporter: Obedient,
}

impl Bench {
    /// A bench with this sampler.
    pub(crate) fn new(sampler: &str) -> Self {
        Self::of(&config(sampler))
    }

    /// A bench with these settings, a JSON object.
    pub(crate) fn with(settings: &str) -> Self {
        Self::of(&Config::read(settings, &|_| None).unwrap())
    }

    /// A bench with this configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let journal = Journal::default();
        let (pipeline, exporter) = pipeline(config, &journal);
        let tracing = Tracing::new(config, journal.host(), Arc::clone(&pipeline));
        Self { tracing, pipeline, exporter }
    }

    /// The server layer.
    pub(crate) fn server(&self) -> Server {
        Server(Arc::clone(&self.tracing))
    }

    /// The client layer.
    pub(crate) fn client(&self) -> Client {
        Client(Arc::clone(&self.tracing))
    }

    /// An attempt of a call made for an exchange of this context, if it is recorded.
    pub(crate) fn client_exchange(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
    ) -> Option<impl plugin_api::Exchange> {
        self.client().follow(head, parent, |_, _| {})
    }

    /// A span of the host's own code.
    pub(crate) fn local(&self, head: &SpanHead<'_>, parent: &Context) -> Begun<LocalSpan> {
        LocalSpan::begin(&self.tracing, head, parent)
    }

    /// How many spans are under way.
    pub(crate) fn live(&self) -> u64 {
        self.counts().live
    }

    /// The pipeline's counters.
    pub(crate) fn counts(&self) -> Counts {
        self.pipeline.counts()
    }

    /// All spans finished so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.pipeline.flush(PATIENCE).unwrap();
        self.exporter.spans()
    }

    /// The one span finished so far.
    pub(crate) fn only_span(&self) -> Span {
        let mut spans = self.spans();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }
}

/// The attributes in order, as `key=value`.
pub(crate) fn attributes(span: &Span) -> Vec<String> {
    span.attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, shown(pair.value.as_ref())))
        .collect()
}

/// The value of an attribute as text, empty when there is none.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    let pair = span.attributes.iter().find(|pair| pair.key == key);
    pair.map(|pair| shown(pair.value.as_ref())).unwrap_or_default()
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(_)) => "a fraction".to_owned(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(list)) => {
            let members: Vec<String> =
                list.values.iter().map(|member| shown(Some(member))).collect();
            format!("[{}]", members.join(", "))
        }
        other => panic!("no attribute of ours has the value {other:?}"),
    }
}

/// The span's status.
pub(crate) fn status_of(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, Status::code)
}

/// The digits of an id.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span of the OpenTelemetry API that says nothing in particular.
pub(crate) fn sdk_span() -> SpanData {
    SpanData {
        span_context: SpanContext::empty_context(),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "work".into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: opentelemetry::trace::Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// Runs what the export thread would run.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}
