//! What the tests share: a host that remembers, an exporter that obeys, a bench with both.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use plugin_api::{
    Host, Level, RequestHead, ServerLayer as _, Service,
    adapter::{HostServices, host_object},
};

use crate::{
    config::Config,
    exchange::{Client, Server, Tracing},
    pipeline::{self, Counts, Pipeline},
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
    /// Refuse it.
    Fail,
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
    batches: Vec<Vec<SpanData>>,
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

    /// The sizes of the batches taken.
    pub(crate) fn batch_sizes(&self) -> Vec<usize> {
        self.0.0.lock().unwrap().batches.iter().map(Vec::len).collect()
    }

    /// All spans taken.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.0.0.lock().unwrap().batches.concat()
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
}

impl SpanExporter for Obedient {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let order = {
            let mut obeyed = self.0.0.lock().unwrap();
            obeyed.calls += 1;
            obeyed.order
        };
        self.0.1.notify_all();
        match order {
            Order::Take => {
                self.0.0.lock().unwrap().batches.push(batch);
                self.0.1.notify_all();
                Ok(())
            }
            Order::Fail => Err(OTelSdkError::InternalFailure("told to fail".to_owned())),
            Order::Hang => std::future::pending().await,
            Order::Block => {
                self.wait("new order", |obeyed| !matches!(obeyed.order, Order::Block));
                Ok(())
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
    let runtime = pipeline::runtime().unwrap();
    let pipeline = Pipeline::start(config, journal.host(), runtime, exporter.clone()).unwrap();
    (Arc::new(pipeline), exporter)
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

    fn of(config: &Config) -> Self {
        let (pipeline, exporter) = pipeline(config, &Journal::default());
        let tracing = Tracing::new(config, Arc::clone(&pipeline));
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

    /// The pipeline's counters.
    pub(crate) fn counts(&self) -> Counts {
        self.pipeline.counts()
    }

    /// All spans finished so far.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.pipeline.flush(PATIENCE).unwrap();
        self.exporter.spans()
    }

    /// The one span finished so far.
    pub(crate) fn only_span(&self) -> SpanData {
        let mut spans = self.spans();
        assert_eq!(spans.len(), 1, "{spans:?}");
        spans.remove(0)
    }
}

/// The attributes in order, as `key=value`.
pub(crate) fn attributes(span: &SpanData) -> Vec<String> {
    span.attributes.iter().map(|pair| format!("{}={}", pair.key, pair.value)).collect()
}

/// The value of an attribute as text, empty when there is none.
pub(crate) fn attribute(span: &SpanData, key: &str) -> String {
    let pair = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    pair.map(|pair| pair.value.to_string()).unwrap_or_default()
}

/// A span of nothing in particular.
pub(crate) fn span() -> SpanData {
    let bench = Bench::new("always_on");
    drop(bench.server().on_request(&RequestHead::new("GET", "/", &[])));
    bench.only_span()
}
